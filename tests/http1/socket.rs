//! A client's socket, without or with TLS. The tests of the HTTP server run both ways: `tests/http1` and `tests/tls`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;

/// A socket. It can be cloned for a second thread.
pub struct Socket {
    tcp: TcpStream,
    session: Option<session::Session>,
}

impl Socket {
    /// With TLS if the tests run over TLS.
    pub fn new(tcp: TcpStream) -> Socket {
        Socket {
            tcp,
            session: crate::TLS.then(session::begin),
        }
    }

    /// Ends the handshake first: two threads that both wait for its messages would take them from each other.
    pub fn try_clone(&self) -> io::Result<Socket> {
        if let Some(session) = &self.session {
            session::finish_handshake(session, &self.tcp)?;
        }
        Ok(Socket {
            tcp: self.tcp.try_clone()?,
            session: self.session.clone(),
        })
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.tcp
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            None => self.tcp.read(room),
            Some(session) => session::read(session, &self.tcp, room),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.session {
            None => self.tcp.write(bytes),
            Some(session) => session::write(session, &self.tcp, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub use session::security;

#[cfg(feature = "tls")]
mod session {
    use edgetcd::http1::Security;
    use edgetcd::tls::{Client, Server, Settings, auto};
    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::sync::{Arc, Mutex, OnceLock};
    use std::time::SystemTime;

    /// The session, and a lock that its writers hold while they write.
    #[derive(Clone)]
    pub struct Session(Arc<Mutex<ClientConnection>>, Arc<Mutex<()>>);

    fn settings() -> &'static Settings {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        SETTINGS.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder").keep();
            let hosts = ["127.0.0.1".to_owned()];
            let made = auto::self_signed(&folder, &hosts, SystemTime::now());
            let (cert, key) = made.expect("made");
            Settings {
                cert_file: Some(cert),
                key_file: Some(key),
                auto: true,
                ..Settings::default()
            }
        })
    }

    /// For a server of these tests.
    pub fn security() -> Security {
        match crate::TLS {
            false => Security::plain(),
            true => Security::tls(Arc::new(Server::open(settings()).expect("opened"))),
        }
    }

    /// The client verifies nothing.
    pub fn begin() -> Session {
        static CLIENT: OnceLock<Client> = OnceLock::new();
        let client = CLIENT.get_or_init(|| Client::open(settings()).expect("opened"));
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let session = ClientConnection::new(client.config(), name).expect("begun");
        Session(Arc::new(Mutex::new(session)), Arc::default())
    }

    fn broken(error: rustls::Error) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, error)
    }

    /// The end of the connection counts as its end, with a farewell or without.
    pub fn read(session: &Session, mut tcp: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
        // With more than this, the session could have more decrypted bytes than it holds.
        let mut buffer = [0; 1 << 10];
        send(session, tcp)?;
        loop {
            match session.0.lock().expect("no panic").reader().read(room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            let count = tcp.read(&mut buffer)?;
            let mut rest = &buffer[..count];
            let mut locked = session.0.lock().expect("no panic");
            loop {
                locked.read_tls(&mut rest)?;
                locked.process_new_packets().map_err(broken)?;
                if rest.is_empty() {
                    break;
                }
            }
            drop(locked);
            send(session, tcp)?;
        }
    }

    pub fn finish_handshake(session: &Session, tcp: &TcpStream) -> io::Result<()> {
        while session.0.lock().expect("no panic").is_handshaking() {
            shake(session, tcp)?;
        }
        Ok(())
    }

    pub fn write(session: &Session, tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        finish_handshake(session, tcp)?;
        let _writing = session.1.lock().expect("no panic");
        let count = session.0.lock().expect("no panic").writer().write(bytes)?;
        push(session, tcp)?;
        Ok(count)
    }

    /// Continues the handshake.
    fn shake(session: &Session, mut tcp: &TcpStream) -> io::Result<()> {
        send(session, tcp)?;
        let mut locked = session.0.lock().expect("no panic");
        if locked.is_handshaking() && locked.wants_read() {
            if locked.read_tls(&mut tcp)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            locked.process_new_packets().map_err(broken)?;
        }
        drop(locked);
        send(session, tcp)
    }

    fn send(session: &Session, tcp: &TcpStream) -> io::Result<()> {
        let _writing = session.1.lock().expect("no panic");
        push(session, tcp)
    }

    /// Sends what is encrypted. Another thread may read meanwhile.
    fn push(session: &Session, mut tcp: &TcpStream) -> io::Result<()> {
        let mut out = Vec::new();
        let mut locked = session.0.lock().expect("no panic");
        while locked.wants_write() {
            locked.write_tls(&mut out)?;
        }
        drop(locked);
        tcp.write_all(&out)
    }
}

#[cfg(not(feature = "tls"))]
mod session {
    use std::io;
    use std::net::TcpStream;

    #[derive(Clone)]
    pub enum Session {}

    pub fn begin() -> Session {
        unreachable!("without the feature, no test uses TLS")
    }

    pub fn finish_handshake(session: &Session, _: &TcpStream) -> io::Result<()> {
        match *session {}
    }

    pub fn read(session: &Session, _: &TcpStream, _: &mut [u8]) -> io::Result<usize> {
        match *session {}
    }

    pub fn write(session: &Session, _: &TcpStream, _: &[u8]) -> io::Result<usize> {
        match *session {}
    }

    pub fn security() -> edgetcd::http1::Security {
        edgetcd::http1::Security::plain()
    }
}
