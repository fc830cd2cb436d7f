//! Verifies the other side's certificate: first as rustls does, then by the flags that allow certain names only.

use super::certificate::Names;
use super::{Error, Settings, files};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use std::fmt;
use std::sync::Arc;

/// `--peer-cert-allowed-cn` or `--peer-cert-allowed-hostname`.
#[derive(Debug, Clone)]
enum Allowed {
    All,
    CommonName(String),
    Host(ServerName<'static>),
}

impl Allowed {
    fn new(settings: &Settings) -> Result<Allowed, Error> {
        match (&settings.allowed_cn, &settings.allowed_hostname) {
            (None, None) => Ok(Allowed::All),
            (Some(name), None) => Ok(Allowed::CommonName(name.clone())),
            (None, Some(host)) => match ServerName::try_from(host.clone()) {
                Ok(host) => Ok(Allowed::Host(host)),
                Err(_) => Err(Error::new(
                    format!(
                        "{host:?} is no host name (--{}cert-allowed-hostname)",
                        settings.flags
                    ),
                    format!("type --{}cert-allowed-hostname=HOST", settings.flags),
                )),
            },
            (Some(name), Some(host)) => Err(Error::new(
                format!(
                    "AllowedCN and AllowedHostname are mutually exclusive (cn={name:?}, hostname={host:?})"
                ),
                format!(
                    "omit --{0}cert-allowed-cn or --{0}cert-allowed-hostname",
                    settings.flags
                ),
            )),
        }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let refuse = |why: String| {
            let other = OtherError(Arc::new(NotAllowed(why)));
            Err(CertificateError::Other(other).into())
        };
        match self {
            Allowed::All => Ok(()),
            Allowed::CommonName(allowed) => match Names::read(certificate) {
                Some(names) if names.common_name == *allowed => Ok(()),
                _ => refuse(format!(
                    "has another common name than the allowed {allowed:?}"
                )),
            },
            Allowed::Host(host) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, host).or_else(|_| {
                    refuse(format!(
                        "is not valid for the allowed host {:?}",
                        host.to_str()
                    ))
                })
            }
        }
    }
}

#[derive(Debug)]
struct NotAllowed(String);

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAllowed {}

/// A list that rustls does not read is most often one without extensions.
fn bad_list(settings: &Settings, error: &impl fmt::Display) -> Error {
    let path = settings.crl_file.as_deref().unwrap_or_else(|| "".as_ref());
    Error::new(
        format!(
            "{}: the revocation list cannot be used: {error}",
            path.display()
        ),
        format!(
            "see: openssl crl -text -noout -in {}; it must have version 2 (with openssl ca -gencrl: -crlexts)",
            path.display()
        ),
    )
}

/// The verifier of client certificates. `None` if clients need none.
pub(super) fn of_clients(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    if !settings.needs_client_certificate() {
        return Ok(None);
    }
    let roots = required_roots(settings, "client certificates are required")?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(files::revoked(settings)?)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| bad_list(settings, &error))?;
    Ok(Some(match Allowed::new(settings)? {
        Allowed::All => verifier,
        allowed => Arc::new(Clients { verifier, allowed }),
    }))
}

/// The verifier of servers.
pub(super) fn of_servers(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let allowed = Allowed::new(settings)?;
    if settings.auto {
        let algorithms = provider.signature_verification_algorithms;
        return Ok(Arc::new(Anybody(algorithms)));
    }
    let roots = required_roots(settings, "members with https URLs are verified")?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(files::revoked(settings)?)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| bad_list(settings, &error))?;
    Ok(Arc::new(Servers { verifier, allowed }))
}

fn required_roots(settings: &Settings, why: &str) -> Result<Arc<RootCertStore>, Error> {
    let flag = format!("--{}trusted-ca-file", settings.flags);
    files::roots(settings)?.ok_or_else(|| {
        Error::new(
            format!("{why}, but no {flag} is given: the system's CAs are not used"),
            format!("type {flag}=FILE"),
        )
    })
}

#[derive(Debug)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    allowed: Allowed,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        self.allowed.check(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Servers {
    verifier: Arc<WebPkiServerVerifier>,
    allowed: Allowed,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        self.allowed.check(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// For `--peer-auto-tls`: the other side proves that it has the key of its certificate, and nothing else.
#[derive(Debug)]
struct Anybody(rustls::crypto::WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
