//! TLS: the files of certificates and keys, and rustls configurations made of them.
//!
//! This module opens no socket. `http1` and the links between members run the protocol.
//!
//! # The interface
//!
//! [`Settings`] says which files to use and which certificates to accept. They are plain data, made from flags, and
//! exist without the cargo feature `tls` too. With that feature:
//!
//! - [`Server`] is the configuration of listeners, [`Client`] that of connections to other members. Both are opened
//!   once; `open` fails with an [`Error`] that names the file and what to do. Both are shared (`Arc`) between threads.
//! - [`Server::config`] and [`Client::config`] return the present configuration. Call it for each new connection, and
//!   [`Server::refresh`] or [`Client::refresh`] before it, where looking at files is allowed: it reads them again if
//!   they have changed. Existing connections keep the configuration they began with.
//! - [`certificate::Names`] are the names in a certificate. [`certificate::check_remote`] is the reference's check of a
//!   client's address.
//! - [`reason`] says in plain words why a handshake failed.
//! - [`auto::self_signed`] makes the certificate of `--auto-tls`.
//!
//! ```no_run
//! # #[cfg(feature = "tls")]
//! # fn dial() -> Result<(), Box<dyn std::error::Error>> {
//! use edgetcd::tls::{Client, Settings};
//! let settings = Settings {
//!     cert_file: Some("n1.pem".into()),
//!     key_file: Some("n1-key.pem".into()),
//!     trusted_ca_file: Some("ca.pem".into()),
//!     ..Settings::peers()
//! };
//! let client = Client::open(&settings)?;
//! client.refresh(std::time::Instant::now());
//! let name = rustls::pki_types::ServerName::try_from("10.0.0.2")?;
//! let connection = rustls::ClientConnection::new(client.config(), name)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What follows the reference, and what does not
//!
//! - A server asks for client certificates if `--client-cert-auth` or `--trusted-ca-file` is given. Then a client
//!   without a certificate of that CA is refused.
//! - `--peer-cert-allowed-cn` and `--peer-cert-allowed-hostname` restrict both directions of a link.
//! - With `--peer-auto-tls`, members encrypt and do not verify each other.
//! - Revocation lists apply to all certificates of a chain. A certificate that no list covers is accepted.
//! - Only the CA file is trusted. The reference also trusts the system's CAs if no file is given; here the file is
//!   required.
//! - The reference reads certificate, key and revocation list for each connection, and the CA once. Here all files are
//!   looked at once per second.
//! - The signature of a revocation list is verified, and it must be of version 2.
//! - Only at the peer port, the addresses in the other side's certificate are compared with its own. Host names are not
//!   resolved: that would block a worker.
//!
//! # Secrets
//!
//! Keys are only in rustls's memory. No error, log line or `Debug` shows any byte of a key file.

#[cfg(feature = "tls")]
pub mod auto;
#[cfg(feature = "tls")]
pub mod certificate;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
pub(crate) mod files;
#[cfg(feature = "tls")]
mod reason;
#[cfg(feature = "tls")]
mod reload;
#[cfg(feature = "tls")]
mod server;
mod suites;
#[cfg(feature = "tls")]
mod verify;

#[cfg(feature = "tls")]
pub use self::client::Client;
#[cfg(feature = "tls")]
pub use self::reason::reason;
#[cfg(feature = "tls")]
pub use self::server::Server;
pub use self::suites::{SUITES, check_suites};

use std::fmt;
use std::path::PathBuf;

/// Whether this program can use TLS: the cargo feature `tls`.
pub const IS_BUILT_IN: bool = cfg!(feature = "tls");

/// Which files to use, and which certificates to accept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// PEM: this side's certificate, then those that lead to the CA.
    pub cert_file: Option<PathBuf>,
    /// PEM: its key (PKCS#8, PKCS#1 or SEC1).
    pub key_file: Option<PathBuf>,
    /// PEM: the certificates of the CAs that the other side's certificate must come from.
    pub trusted_ca_file: Option<PathBuf>,
    /// PEM or DER: revoked certificates.
    pub crl_file: Option<PathBuf>,
    /// Whether clients must have a certificate. A `trusted_ca_file` implies it.
    pub client_cert_auth: bool,
    /// The common name that the other side's certificate must have.
    pub allowed_cn: Option<String>,
    /// A host name that the other side's certificate must be valid for.
    pub allowed_hostname: Option<String>,
    /// Names of the cipher suites for TLS 1.2 that may be used, all of them in [`SUITES`]. Empty: all. Those of TLS 1.3
    /// are always allowed, as in the reference.
    pub cipher_suites: Vec<String>,
    /// Whether a client's certificate with addresses must contain the client's own.
    pub checks_address: bool,
    /// The certificate is self-signed: as a client, the other side is not verified.
    pub auto: bool,
    /// The prefix of the flags that errors name: `""` for clients, `"peer-"` for members.
    pub flags: &'static str,
}

impl Settings {
    /// No files; errors name the flags for members, such as `--peer-cert-file`.
    pub fn peers() -> Settings {
        Settings {
            checks_address: true,
            flags: "peer-",
            ..Settings::default()
        }
    }

    /// Whether there is a certificate or a key.
    pub fn is_given(&self) -> bool {
        self.cert_file.is_some() || self.key_file.is_some()
    }

    /// Whether a server asks for client certificates.
    pub fn needs_client_certificate(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

/// Why a configuration cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Describes the error and names the file.
    pub message: String,
    /// What to type.
    pub hint: String,
}

impl Error {
    /// An error with its hint.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.hint)
    }
}

impl std::error::Error for Error {}
