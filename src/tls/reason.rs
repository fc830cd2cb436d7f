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
        | Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled) => {
            "it offers neither TLS 1.2 nor TLS 1.3".to_owned()
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
        CertificateError::Other(other) => other.to_string(),
        other => format!("is not accepted: {other}"),
    }
}

/// The other side's words for its reason.
fn refused(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => "the certificate has expired",
        AlertDescription::CertificateRevoked => "the certificate is revoked",
        AlertDescription::UnknownCA => "the certificate comes from a CA that it does not trust",
        AlertDescription::BadCertificate => "the certificate is not for this host, or malformed",
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
