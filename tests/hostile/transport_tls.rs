//! A server whose clients need a certificate, and its limits. `transport.rs` documents them.

use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::Server;
use crate::harness::closed::{self, Pki};
use crate::harness::secure::Config;

/// The sessions of a few hundred connections are a part of it.
pub const MEMORY_BAR: u64 = 32 << 20;

pub const IDLE_BAR: u64 = 24 << 10;

pub const WATCH_BAR: u64 = 26 << 10;

/// Each begins with a handshake.
pub const CROWD_WITHIN: Duration = Duration::from_secs(30);

/// Each needs a handshake.
pub const CONNECTIONS: u64 = 2000;

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(Pki::new)
}

/// A client with a certificate. All connections of the tests resume each other's sessions.
pub fn client() -> &'static Config {
    static CLIENT: OnceLock<Config> = OnceLock::new();
    CLIENT.get_or_init(|| pki().named("client"))
}

/// The certificate of the CA, for other clients.
pub fn authority() -> &'static std::path::Path {
    &pki().ca.file
}

pub fn start() -> Server {
    start_with(&pki().client_cert_flags())
}

/// A server with TLS, and with these flags.
pub fn start_with(flags: &[String]) -> Server {
    let mut server = Server::prepare(&[]);
    closed::serve(&mut server, pki(), &["https"]);
    flags.iter().for_each(|flag| server.add_flag(flag));
    server.ask_with(client().clone());
    server.launch();
    server
}
