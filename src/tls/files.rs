//! Reads the files of [`Settings`]. An error names the file, its flag, and what to type.

use super::{Error, Settings};
use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// A larger file is none of these.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// This side's certificate with its chain, and its key. Not `Debug`.
pub(crate) struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// The certificate and the key. `None` if neither is given.
///
/// # Errors
/// Only one of them is given, or a file cannot be read.
pub(crate) fn identity(settings: &Settings) -> Result<Option<Identity>, Error> {
    let flags = settings.flags;
    let (cert, key) = match (&settings.cert_file, &settings.key_file) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (cert, key) => {
            let given = |file: &Option<_>| file.as_ref().map_or("none", |_| "given");
            return Err(Error::new(
                format!(
                    "--{flags}cert-file and --{flags}key-file must both be present [key: {}, cert: {}]",
                    given(key),
                    given(cert)
                ),
                format!("type both: --{flags}cert-file=FILE --{flags}key-file=FILE"),
            ));
        }
    };
    Ok(Some(Identity {
        chain: certificates(cert, &format!("--{flags}cert-file"))?,
        key: private_key(key, &format!("--{flags}key-file"))?,
    }))
}

/// The CAs. `None` if no file is given.
pub(super) fn roots(settings: &Settings) -> Result<Option<Arc<RootCertStore>>, Error> {
    let Some(path) = &settings.trusted_ca_file else {
        return Ok(None);
    };
    let flag = format!("--{}trusted-ca-file", settings.flags);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &flag)? {
        roots.add(certificate).map_err(|_| {
            not_pem(
                path,
                &flag,
                "CERTIFICATE",
                "one of its certificates is malformed",
            )
        })?;
    }
    Ok(Some(Arc::new(roots)))
}

/// The revocation lists. Empty if no file is given.
pub(super) fn revoked(
    settings: &Settings,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let Some(path) = &settings.crl_file else {
        return Ok(Vec::new());
    };
    let flag = match settings.flags {
        "" => "--client-crl-file",
        _ => "--peer-crl-file",
    };
    let bytes = read(path, flag)?;
    let list = if bytes.starts_with(b"\x30") {
        vec![bytes.into()]
    } else {
        let lists = CertificateRevocationListDer::pem_slice_iter(&bytes);
        let lists = lists.collect::<Result<Vec<_>, _>>();
        lists.map_err(|error| not_pem(path, flag, "X509 CRL", &why(&error)))?
    };
    match list.is_empty() {
        true => Err(not_pem(path, flag, "X509 CRL", "it contains none")),
        false => Ok(list),
    }
}

/// The certificates of a PEM file, at least one. Errors name `flag`.
pub(crate) fn certificates(path: &Path, flag: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path, flag)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(not_pem(path, flag, "CERTIFICATE", "it contains none")),
        Err(error) => Err(not_pem(path, flag, "CERTIFICATE", &why(&error))),
    }
}

fn private_key(path: &Path, flag: &str) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = read(path, flag)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let is_encrypted = bytes.windows(9).any(|part| part == b"ENCRYPTED");
        if is_encrypted {
            return Error::new(
                format!("{}: the key is encrypted ({flag})", path.display()),
                format!(
                    "decrypt it into a file that only this user can read: \
                     (umask 077; openssl pkey -in {} -out KEY-FILE)",
                    path.display()
                ),
            );
        }
        not_pem(path, flag, "PRIVATE KEY", &why(&error))
    })
}

/// Describes the error without any text of the file, which may contain a key.
fn why(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        PemError::Base64Decode(_) => "a section is not base64".to_owned(),
        PemError::NoItemsFound => "it contains none".to_owned(),
        _ => "it is malformed".to_owned(),
    }
}

fn not_pem(path: &Path, flag: &str, kind: &str, why: &str) -> Error {
    Error::new(
        format!(
            "{}: no PEM text with BEGIN {kind}: {why} ({flag})",
            path.display()
        ),
        format!("look at it: grep -- ----- {}", path.display()),
    )
}

fn read(path: &Path, flag: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::NotFound => "no such file or directory".to_owned(),
                ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => error.to_string(),
            };
            Err(Error::new(
                format!("open {}: {why} ({flag})", path.display()),
                format!(
                    "see: ls -l {}; or type another file: {flag}=FILE",
                    path.display()
                ),
            ))
        }
    }
}

/// A warning if a key file can be read by others than its owner and group.
pub(super) fn warn_of_readers(settings: &Settings) {
    let Some(path) = &settings.key_file else {
        return;
    };
    let mode = |file: Metadata| file.mode();
    if let Some(mode) = path
        .metadata()
        .ok()
        .map(mode)
        .filter(|mode| mode & 0o007 != 0)
    {
        log::warn!(
            "{}: every user of this machine can read this key (mode {:03o}): type chmod 600 {0}",
            path.display(),
            mode & 0o777
        );
    }
}

/// What the files looked like. A change can be seen without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look(Vec<Option<FileLook>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileLook {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Look {
    /// Looks at all files of the settings. A file that is missing looks like no other.
    pub fn at(settings: &Settings) -> Look {
        let files = [
            &settings.cert_file,
            &settings.key_file,
            &settings.trusted_ca_file,
            &settings.crl_file,
        ];
        let look = |file: Metadata| FileLook {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        };
        let given = files.into_iter().flatten();
        Look(given.map(|path| path.metadata().ok().map(look)).collect())
    }
}
