//! TLS of the client: `--ca-file`, `--cert-file` and `--key-file`, and what its errors mean.
//!
//! Without `--ca-file`, a server is trusted if one of the CAs of this machine has signed its certificate, as in etcdctl.
//! They are read from the files of the operating system (or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`), not from a
//! list in the program: a list would be 200 kB of every program, would be out of date on a device that is rarely
//! updated, and would not contain the company's own CA. A device without such files needs `--ca-file`, and for etcd
//! that is the usual case anyway.

#[cfg(feature = "tls")]
pub(super) use self::with::{explain, open};
#[cfg(not(feature = "tls"))]
pub(super) use self::without::{explain, open};

use std::path::PathBuf;

/// The files of the options.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What an error of TLS means.
pub(super) struct Explained {
    pub text: String,
    /// The handshake failed, so nothing of the request was sent.
    pub is_unsent: bool,
}

#[cfg(not(feature = "tls"))]
mod without {
    use super::{Explained, Files};
    use crate::dial::Tls;
    use crate::urls::Url;

    pub fn open(files: &Files) -> Result<Tls, String> {
        match files {
            Files {
                ca: None,
                cert: None,
                key: None,
            } => Ok(Tls::none()),
            _ => {
                Err("--ca-file, --cert-file, --key-file: this program was built without TLS".into())
            }
        }
    }

    pub fn explain(_: &ureq::Error, _: &Url, _: &Files) -> Option<Explained> {
        None
    }
}

#[cfg(feature = "tls")]
mod with {
    use super::{Explained, Files};
    use crate::dial::{self, HandshakeError, Tls};
    use crate::tls::{self, Settings, files};
    use crate::urls::Url;
    use rustls::crypto::ring;
    use rustls::pki_types::UnixTime;
    use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore};
    use std::io;
    use std::sync::{Arc, OnceLock};

    /// Reads the given files. The CAs of this machine are read when they are needed.
    ///
    /// # Errors
    /// Returns a message that names the file and what to do.
    pub fn open(files: &Files) -> Result<Tls, String> {
        let text = |error: tls::Error| error.to_string();
        let identity = files::identity(&Settings {
            cert_file: files.cert.clone(),
            key_file: files.key.clone(),
            ..Settings::default()
        });
        let identity = identity.map_err(text)?;
        let given = match &files.ca {
            Some(path) => {
                let found = files::certificates(path, "--ca-file").map_err(text)?;
                let mut roots = RootCertStore::empty();
                for certificate in found {
                    roots.add(certificate).map_err(|error| {
                        format!(
                            "{}: one of the certificates is malformed: {error}",
                            path.display()
                        )
                    })?;
                }
                Some(roots)
            }
            None => None,
        };
        if identity.is_none() && given.is_none() {
            let read = OnceLock::new();
            return Ok(Tls::new(Arc::new(move || {
                let config = read.get_or_init(|| build(roots_of_machine()?, None));
                config.clone().map_err(io::Error::other)
            })));
        }
        let config = build(given.map_or_else(roots_of_machine, Ok)?, identity)?;
        Ok(Tls::new(Arc::new(move || Ok(config.clone()))))
    }

    fn roots_of_machine() -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        match roots.is_empty() {
            false => Ok(roots),
            true => Err(
                "this machine has no list of trusted CAs: type --ca-file FILE with the CA's certificate"
                    .to_owned(),
            ),
        }
    }

    fn build(
        roots: RootCertStore,
        identity: Option<files::Identity>,
    ) -> Result<Arc<ClientConfig>, String> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&versions)
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(files::Identity { chain, key }) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => {
                        "the key of --key-file does not belong to the certificate of --cert-file"
                            .to_owned()
                    }
                    other => format!("--cert-file and --key-file: {other}"),
                })?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What an error means, if it is one of TLS, in etcdctl's words with the next command. `url` is the endpoint's.
    pub fn explain(error: &ureq::Error, url: &Url, files: &Files) -> Option<Explained> {
        let (error, is_unsent) = match error {
            ureq::Error::Io(error) => (error, false),
            ureq::Error::Other(other) => (&other.downcast_ref::<HandshakeError>()?.0, true),
            _ => return None,
        };
        let text = match dial::error_of(error) {
            Some(error) => text_of(error, url, files),
            None if is_unsent => {
                format!(
                    "the server ended the TLS handshake ({error}): if it speaks plain HTTP, type http:// instead of \
                     https://"
                )
            }
            None => return None,
        };
        Some(Explained { text, is_unsent })
    }

    fn text_of(error: &rustls::Error, url: &Url, files: &Files) -> String {
        match error {
            rustls::Error::InvalidCertificate(error) => certificate(error, url, files),
            rustls::Error::AlertReceived(alert) => refused(*alert, files),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "http: server gave HTTP response to HTTPS client: type http:// instead of https://"
                    .to_owned()
            }
            other => format!("tls: {other}"),
        }
    }

    fn certificate(error: &CertificateError, url: &Url, files: &Files) -> String {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let hint = match &files.ca {
                    None => "type --ca-file FILE with the certificate of its CA".to_owned(),
                    Some(path) => format!(
                        "no certificate in {} has signed it; see: openssl s_client -connect {} -showcerts",
                        path.display(),
                        url.authority()
                    ),
                };
                format!("x509: certificate signed by unknown authority: {hint}")
            }
            CertificateError::Expired => expired(None),
            CertificateError::ExpiredContext { not_after, .. } => expired(Some(*not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "x509: certificate has expired or is not yet valid: it is valid from {}; is the clock of this machine \
                 right? see: date",
                time(*not_before)
            ),
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "x509: certificate is valid for {}, not {}: type one of its names in --endpoints, or make a \
                 certificate for this one",
                names(presented),
                url.host()
            ),
            CertificateError::Revoked => {
                "x509: certificate is revoked: the server needs a new one".to_owned()
            }
            CertificateError::Other(other) => {
                format!("x509: {other}{}", hint_of(&other.to_string()))
            }
            other => format!("x509: {other}"),
        }
    }

    /// A certificate made by `openssl req -x509` without more is that of a CA, which rustls refuses for a server.
    fn hint_of(error: &str) -> &'static str {
        match error.contains("CaUsedAsEndEntity") {
            true => {
                ": the server uses the certificate of a CA itself; it needs one of its own (openssl req -x509 -addext \
                 basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:ADDRESS …)"
            }
            false => "",
        }
    }

    fn expired(not_after: Option<UnixTime>) -> String {
        let when = not_after.map(|not_after| format!("it was valid until {}; ", time(not_after)));
        format!(
            "x509: certificate has expired or is not yet valid: {}the server needs a new one, unless the clock of this \
             machine is wrong; see: date",
            when.unwrap_or_default()
        )
    }

    fn refused(alert: AlertDescription, files: &Files) -> String {
        let own = match &files.cert {
            Some(path) => path.display().to_string(),
            None => "the certificate".to_owned(),
        };
        let (what, hint) = match alert {
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate
                if files.cert.is_none() =>
            {
                (
                    "certificate required",
                    "type --cert-file FILE --key-file FILE with a certificate that the server trusts".to_owned(),
                )
            }
            AlertDescription::UnknownCA => (
                "unknown certificate authority",
                format!("the server does not trust the CA of {own}"),
            ),
            AlertDescription::BadCertificate => (
                "bad certificate",
                format!("the server does not accept {own}; its log may tell why"),
            ),
            AlertDescription::CertificateExpired => {
                ("expired certificate", format!("{own} has expired"))
            }
            AlertDescription::CertificateRevoked => {
                ("revoked certificate", format!("{own} is revoked"))
            }
            AlertDescription::ProtocolVersion => (
                "protocol version not supported",
                "the server speaks neither TLS 1.2 nor 1.3".to_owned(),
            ),
            other => return format!("remote error: tls: {other:?}"),
        };
        format!("remote error: tls: {what}: {hint}")
    }

    /// The names of a certificate as rustls prints them: `DnsName("a")` and `IpAddress(10.0.0.1)`.
    fn names(presented: &[String]) -> String {
        let bare = |name: &String| {
            let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
            inner.trim_end_matches(')').trim_matches('"').to_owned()
        };
        match presented.is_empty() {
            true => "no name at all".to_owned(),
            false => presented.iter().map(bare).collect::<Vec<_>>().join(", "),
        }
    }

    fn time(time: UnixTime) -> String {
        let seconds = i64::try_from(time.as_secs()).ok();
        let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string())
    }
}
