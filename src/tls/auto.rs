//! The certificate of `--auto-tls`: self-signed, kept in the data directory.

use super::certificate::Names;
use super::{Error, Settings, files};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);
/// As in the reference.
const VALID: Duration = Duration::from_secs(365 * 86_400);

/// The files `cert.pem` and `key.pem` in `folder`, for these host names and addresses. The files of an earlier start are
/// used again while they are valid for at least one more day.
///
/// # Errors
/// The files cannot be written.
pub fn self_signed(
    folder: &Path,
    hosts: &[String],
    now: SystemTime,
) -> Result<(PathBuf, PathBuf), Error> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if is_usable(&cert, &key, now) {
        return Ok((cert, key));
    }
    let (cert_text, key_text) = make(hosts, now).map_err(|error| {
        Error::new(
            format!(
                "cannot make a certificate for {}: {error}",
                hosts.join(", ")
            ),
            "type --cert-file=FILE --key-file=FILE instead of --auto-tls",
        )
    })?;
    write(
        folder,
        &[(&key, key_text, 0o600), (&cert, cert_text, 0o644)],
    )
    .map_err(|error| {
        Error::new(
            format!(
                "{}: cannot write the certificate of --auto-tls: {error}",
                folder.display()
            ),
            format!("see: ls -ld {0}; df {0}", folder.display()),
        )
    })?;
    log::info!("made a self-signed certificate: {}", cert.display());
    Ok((cert, key))
}

fn is_usable(cert: &Path, key: &Path, now: SystemTime) -> bool {
    let settings = Settings {
        cert_file: Some(cert.to_owned()),
        key_file: Some(key.to_owned()),
        ..Settings::default()
    };
    let Ok(Some(identity)) = files::identity(&settings) else {
        return false;
    };
    let least = (now + DAY)
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let names = identity.chain.first().and_then(Names::read);
    names.is_some_and(|names| i128::from(names.not_after) >= i128::from(least))
}

fn make(hosts: &[String], now: SystemTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts.to_vec())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "etcd");
    params.distinguished_name = name;
    // The clocks of other machines may be behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID).into();
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write(folder: &Path, files: &[(&PathBuf, String, u32)]) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    for (path, text, mode) in files {
        // An old file keeps its mode, so it goes first.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
