//! The configuration of listeners.

use super::certificate::Names;
use super::reload::Reloading;
use super::{Error, Settings, files, verify};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, InconsistentKeys, ProtocolVersion, SupportedCipherSuite};
use std::sync::Arc;
use std::time::Instant;

/// The configuration of listeners, which follows its files.
pub struct Server(Reloading<ServerConfig>);

impl Server {
    /// Reads the files. A key that others can read is warned about.
    ///
    /// # Errors
    /// A file is missing or cannot be used, or two settings contradict each other.
    pub fn open(settings: &Settings) -> Result<Server, Error> {
        Reloading::open(settings, build).map(Server)
    }

    /// The present configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config()
    }

    /// Whether [`check_remote`](super::certificate::check_remote) applies to clients.
    pub fn checks_address(&self) -> bool {
        self.0.settings().checks_address
    }

    /// Looks at the files, at most once per second, and reads them again if they have changed. If the new files cannot
    /// be used, the old configuration stays, and the reason is logged once.
    pub fn refresh(&self, now: Instant) {
        self.0.refresh(now);
    }
}

/// The provider of cryptography, with the suites of the settings.
pub(super) fn provider(settings: &Settings) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !settings.cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3
                || settings.cipher_suites.contains(&name(*suite))
        });
    }
    Arc::new(provider)
}

/// The name of a suite in the registry of TLS. rustls writes those of TLS 1.3 differently.
pub(super) fn name(suite: SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.replacen("TLS13_", "TLS_", 1)
}

fn build(settings: &Settings) -> Result<ServerConfig, Error> {
    let flags = settings.flags;
    let Some(files::Identity { chain, key }) = files::identity(settings)? else {
        return Err(Error::new(
            format!("TLS key/cert (--{flags}cert-file, --{flags}key-file) must be provided"),
            format!("type --{flags}cert-file=FILE --{flags}key-file=FILE, or --{flags}auto-tls"),
        ));
    };
    let provider = provider(settings);
    let verifier = verify::of_clients(settings, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(settings, &error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let certified = certified(&builder.crypto_provider().clone(), chain, key)
        .map_err(|error| unusable(settings, &error))?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Sessions are in tickets, encrypted with a key of this configuration. So memory does not grow with clients, and
    // after a change of the files, a certificate that is revoked since then does not resume a session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(|error| unusable(settings, &error))?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The certificate with its key, which must belong to it.
///
/// rustls compares them, but it does not read a certificate of X.509 version 1, which `openssl x509 -req` writes if it is
/// given no extensions. The reference serves such a certificate, and some clients accept it.
fn certified(
    provider: &CryptoProvider,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(reason))) => {
            let names = certified.end_entity_cert().ok().and_then(Names::read);
            let names = names.filter(|names| names.version == 1).ok_or(
                rustls::Error::InvalidCertificate(CertificateError::Other(reason)),
            )?;
            match certified.key.public_key() {
                Some(key) if key.as_ref() != names.public_key => {
                    Err(InconsistentKeys::KeyMismatch.into())
                }
                _ => Ok(certified),
            }
        }
        Err(error) => Err(error),
    }
}

/// rustls does not take the certificate or the key.
pub(super) fn unusable(settings: &Settings, error: &rustls::Error) -> Error {
    let path = |file: &Option<std::path::PathBuf>| {
        file.as_deref()
            .map_or_else(String::new, |path| path.display().to_string())
    };
    let (cert, key) = (path(&settings.cert_file), path(&settings.key_file));
    let (what, hint) = match error {
        rustls::Error::InconsistentKeys(_) => (
            "the key does not belong to the certificate".to_owned(),
            format!(
                "both must print the same: openssl x509 -pubkey -noout -in {cert}; openssl pkey -pubout -in {key}"
            ),
        ),
        rustls::Error::General(_) => (
            "the key is of a kind that is not supported".to_owned(),
            format!(
                "use RSA of 2048 bits or more, P-256, P-384 or Ed25519: openssl pkey -text -noout -in {key}"
            ),
        ),
        other => (
            other.to_string(),
            format!("see: openssl x509 -text -noout -in {cert}"),
        ),
    };
    Error::new(format!("{cert} and {key}: {what}"), hint)
}
