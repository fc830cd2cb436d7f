//! TLS for the client of these tests. It uses rustls and nothing of the library.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;

use super::certificates::Pair;

/// What a client trusts, and its certificate. Connections with the same value resume sessions of each other.
pub type Config = Arc<ClientConfig>;

/// A client that trusts the CA of this file, with a certificate or without.
pub fn config(ca: &std::path::Path, pair: Option<&Pair>) -> Config {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).expect("the certificate of a CA");
    roots.add(certificate).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of both versions")
        .with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::from_pem_file(&pair.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
            let config = builder.with_client_auth_cert(vec![chain], key);
            config.expect("the key of the certificate")
        }
    };
    Arc::new(config)
}

/// The TLS session of one socket.
pub struct Session(Box<ClientConnection>);

impl Session {
    /// Makes a handshake. The socket must have a time limit for reads and writes.
    pub fn begin(config: &Config, tcp: &TcpStream) -> io::Result<Session> {
        let mut session = Session::greet(config, tcp)?;
        session.finish(tcp)?;
        Ok(session)
    }

    /// Sends the first message of a handshake, and waits for nothing.
    pub fn greet(config: &Config, tcp: &TcpStream) -> io::Result<Session> {
        let mut session = Session::new(config, tcp.peer_addr()?.ip())?;
        session.send(tcp)?;
        Ok(session)
    }

    /// Ends the handshake.
    pub fn finish(&mut self, mut tcp: &TcpStream) -> io::Result<()> {
        while self.0.is_handshaking() {
            self.0.complete_io(&mut tcp)?;
        }
        Ok(())
    }

    fn new(config: &Config, server: IpAddr) -> io::Result<Session> {
        let name = ServerName::IpAddress(server.into());
        let session = ClientConnection::new(Arc::clone(config), name).map_err(broken)?;
        Ok(Session(Box::new(session)))
    }

    /// The bytes of the first message of a handshake.
    pub fn greeting(config: &Config) -> Vec<u8> {
        let server = IpAddr::from(Ipv4Addr::LOCALHOST);
        let mut session = Session::new(config, server).expect("a client");
        let mut bytes = Vec::new();
        session.0.write_tls(&mut bytes).expect("a vector takes all");
        bytes
    }

    /// The certificate that the server has shown. A resumed session has it too.
    pub fn certificate(&self) -> &[u8] {
        let chain = self.0.peer_certificates().unwrap_or_default();
        chain.first().expect("a handshake needs one").as_ref()
    }

    /// Encrypts and sends all these bytes.
    pub fn write(&mut self, tcp: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // A session holds only some encrypted bytes, so they are sent piece by piece.
        for piece in bytes.chunks(16 << 10) {
            self.0.writer().write_all(piece)?;
            self.send(tcp)?;
        }
        Ok(())
    }

    /// Reads once from the socket, at most `most` encrypted bytes, and appends what they contain. Returns whether the
    /// connection has ended.
    pub fn read(&mut self, tcp: &TcpStream, most: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut encrypted = vec![0; most];
        let count = { tcp }.read(&mut encrypted)?;
        let mut rest = &encrypted[..count];
        while !rest.is_empty() {
            self.0.read_tls(&mut rest)?;
            let state = self.0.process_new_packets().map_err(broken)?;
            let start = into.len();
            into.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut into[start..])?;
        }
        self.send(tcp)?;
        Ok(count == 0)
    }

    fn send(&mut self, mut tcp: &TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut tcp)?;
        }
        Ok(())
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
