//! Certificates for tests: CAs, and certificates that they sign, as files in a folder.

#![allow(dead_code)]

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub const DAY: Duration = Duration::from_secs(86_400);

/// A CA whose certificate is in a file.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
    folder: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A certificate to be signed.
pub struct Leaf {
    pub name: &'static str,
    pub common_name: &'static str,
    pub hosts: Vec<String>,
    pub from: SystemTime,
    pub until: SystemTime,
    pub serial: u64,
}

/// A valid certificate for 127.0.0.1, ::1 and localhost, as a server and as a client.
pub fn leaf(name: &'static str) -> Leaf {
    let now = SystemTime::now();
    Leaf {
        name,
        common_name: name,
        hosts: ["127.0.0.1", "::1", "localhost"]
            .map(str::to_owned)
            .to_vec(),
        from: now - DAY,
        until: now + 30 * DAY,
        serial: 1,
    }
}

impl Ca {
    pub fn new(folder: &Path, name: &str) -> Ca {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, certificate.pem()).expect("written");
        Ca {
            issuer: Issuer::new(params, key),
            file,
            folder: folder.to_owned(),
        }
    }

    /// Signs a certificate and writes `NAME.pem` and `NAME-key.pem`.
    pub fn sign(&self, leaf: &Leaf) -> Pair {
        let mut params = CertificateParams::new(leaf.hosts.clone()).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.common_name);
        params.not_before = leaf.from.into();
        params.not_after = leaf.until.into();
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let pair = Pair {
            cert: self.folder.join(format!("{}.pem", leaf.name)),
            key: self.folder.join(format!("{}-key.pem", leaf.name)),
        };
        replace(&pair.cert, &certificate.pem());
        replace(&pair.key, &key.serialize_pem());
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).expect("set");
        pair
    }

    /// Writes a list of revoked serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (now - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("signed");
        let file = self.folder.join("revoked.pem");
        replace(&file, &list.pem().expect("text"));
        file
    }
}

/// Writes the file at once, as a careful operator does.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}
