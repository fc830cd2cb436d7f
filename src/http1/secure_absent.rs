//! The interface of `secure.rs` in a program that is built without TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Whether the clients of a listener use TLS. This program is built without it.
#[derive(Debug, Clone, Default)]
pub struct Security;

impl Security {
    /// Without TLS.
    pub fn plain() -> Security {
        Security
    }

    /// Whether clients without TLS are served.
    pub fn is_plain(&self) -> bool {
        true
    }

    /// Whether clients with TLS are served.
    pub fn is_tls(&self) -> bool {
        false
    }

    pub(super) fn refresh(&self, _: Instant) {}

    pub(super) fn begin(&self, _: SocketAddr) -> Option<Box<Session>> {
        None
    }
}

/// There are no sessions.
pub(super) enum Session {}

#[derive(Default)]
pub(super) struct Records {
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub last_read: usize,
}

impl Records {
    pub fn log_failure(&mut self, _: SocketAddr, _: &str, _: Duration, _: Instant) {}
}

impl Session {
    pub fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub fn is_plain(&self) -> bool {
        match *self {}
    }

    pub fn has_more(&self) -> bool {
        match *self {}
    }

    pub fn held(&self) -> usize {
        match *self {}
    }

    pub fn take_name(&mut self) -> Option<Box<str>> {
        match *self {}
    }

    pub fn take_failure(&mut self) -> Option<String> {
        match *self {}
    }

    pub fn reader<S>(&mut self, _: S, _: &mut Records) -> io::Empty {
        match *self {}
    }

    pub fn writer<S>(&mut self, _: S, _: &mut Records) -> io::Empty {
        match *self {}
    }

    pub fn push<S>(&mut self, _: S, _: &mut Records) -> io::Result<bool> {
        match *self {}
    }

    pub fn end(&mut self) {
        match *self {}
    }
}

/// There are no TLS connections.
pub enum TlsStream {}

impl TlsStream {
    // The same parameters as with TLS.
    #[allow(clippy::boxed_local)]
    pub(super) fn new(session: Box<Session>, _: TcpStream) -> TlsStream {
        match *session {}
    }

    /// The socket, for its options and to shut it down.
    pub fn socket(&self) -> &TcpStream {
        match *self {}
    }
}

impl Read for TlsStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Write for TlsStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}
