//! Why a handshake failed, in plain words, for the log.

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Why a handshake failed. Contains no secrets. Text that the other side has chosen is not repeated.
pub fn reason(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it has sent no certificate".to_owned(),
        Error::InvalidCertificate(why) => format!("its certificate {}", certificate(why)),
        Error::AlertReceived(alert) => format!("it has refused this side: {}", refused(*alert)),
        Error::InvalidMessage(_) => "it has sent bytes that are not TLS".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
        | Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
        | Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
        // TLS 1.1 has no such extension.
        | Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => {
            "it offers neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "it offers none of the key exchanges X25519, P-256 and P-384".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => {
            "it knows no signature that the key of this side can make".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "it offers no cipher suite that this side allows".to_owned()
        }
        Error::NoApplicationProtocol => "it does not speak HTTP/1.1".to_owned(),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired (it was valid until {})", time(*not_after))
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "is not valid yet (it is valid from {}; is the clock of this machine right?)",
            time(*not_before)
        ),
        CertificateError::Revoked => "is revoked".to_owned(),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "does not come from a trusted CA".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "may not be used for this side of a connection (extended key usage)".to_owned()
        }
        CertificateError::Other(other) => other_certificate(&other.to_string()),
        other => format!("is not accepted: {other}"),
    }
}

/// rustls passes on some errors of its verifier as a name without a space. Other texts are those of
/// [`verify`](super::verify).
fn other_certificate(text: &str) -> String {
    match text {
        "CaUsedAsEndEntity" => {
            "is that of a CA (CA:TRUE), which no client and no member may use".to_owned()
        }
        "UnsupportedCertVersion" => {
            "has version 1 of X.509, and must have version 3 (openssl x509 -req writes it with -extfile)".to_owned()
        }
        name if !name.contains(' ') => format!("is not accepted: {name}"),
        text => text.to_owned(),
    }
}

/// The other side's words for its reason.
fn refused(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => "the certificate has expired",
        AlertDescription::CertificateRevoked => "the certificate is revoked",
        AlertDescription::UnknownCA => "the certificate comes from a CA that it does not trust",
        AlertDescription::BadCertificate => "the certificate is not for this host, or malformed",
        AlertDescription::UnsupportedCertificate => {
            "the certificate may not be used for this side of a connection"
        }
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "the certificate is not one of those that it allows"
        }
        AlertDescription::CertificateRequired => "a client certificate is required",
        AlertDescription::ProtocolVersion => "no common version of TLS",
        AlertDescription::HandshakeFailure => "no common parameters",
        AlertDescription::UserCanceled | AlertDescription::CloseNotify => "it gave up",
        _ => "an alert",
    }
}

fn time(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, crypto::ring};
    use std::sync::Arc;

    /// Why this certificate, which is its own CA, is refused.
    fn refused(params: rcgen::CertificateParams) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("made");
        let certificate: CertificateDer<'static> = made.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a CA");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("a verifier");
        let result = verifier.verify_client_cert(&certificate, &[], UnixTime::now());
        reason(&result.expect_err("refused"))
    }

    #[test]
    fn a_ca_is_no_client() {
        let mut params = rcgen::CertificateParams::new(vec![]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(
            refused(params),
            "its certificate is that of a CA (CA:TRUE), which no client and no member may use"
        );
    }

    #[test]
    fn every_reason_is_a_sentence() {
        for name in ["UnsupportedCertVersion", "PathLenConstraintViolated"] {
            assert!(other_certificate(name).contains(' '), "{name}");
        }
        // The alerts for a certificate whose purpose, or whose name, is not allowed.
        for alert in [
            AlertDescription::UnsupportedCertificate,
            AlertDescription::CertificateUnknown,
        ] {
            let text = reason(&Error::AlertReceived(alert));
            assert!(!text.ends_with("an alert"), "{text}");
        }
        let offers_nothing = PeerIncompatible::SignatureAlgorithmsExtensionRequired;
        assert_eq!(
            reason(&Error::PeerIncompatible(offers_nothing)),
            "it offers neither TLS 1.2 nor TLS 1.3"
        );
    }
}
