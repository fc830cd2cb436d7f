//! A connection between two members: its socket, and TLS if the URL of the dialled member has it.
//!
//! A blocking thread owns the connection and uses it in one direction. Time limits are those of the socket. Another
//! thread may only shut the socket down ([`Connection::handle`]).

use super::resources::{Held, Resources};
use crate::http1::{TlsStream, UpgradedStream};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use dialled::Dialled;

/// A connection whose handshakes are done.
pub(super) struct Connection {
    socket: Held,
    layer: Layer,
}

/// The layer between the socket and the frames.
enum Layer {
    Plain,
    /// This member is the client of TLS.
    #[cfg(feature = "tls")]
    Dialled(Box<Dialled>),
    /// This member is the server of TLS.
    Accepted(Box<TlsStream>),
}

/// A source of bytes whose waits can be limited.
pub(super) trait TimedRead: Read {
    /// Each later read fails with `WouldBlock` if no byte arrives within this time. None: it waits without a limit.
    fn limit_reads(&self, at_most: Option<Duration>) -> io::Result<()>;
}

impl Connection {
    /// A connection without TLS.
    pub fn plain(socket: Held) -> Connection {
        Connection {
            socket,
            layer: Layer::Plain,
        }
    }

    /// A connection that the peer port has accepted. `None`, and the connection is closed, if the link is stopping, or if
    /// there is no descriptor left.
    pub fn accepted(resources: &Arc<Resources>, stream: UpgradedStream) -> Option<Connection> {
        let (socket, layer) = match stream {
            UpgradedStream::Plain(socket) => (socket, Layer::Plain),
            UpgradedStream::Tls(stream) => {
                let socket = stream.socket().try_clone();
                (socket.ok()?, Layer::Accepted(stream))
            }
        };
        let socket = resources.hold(socket)?;
        Some(Connection { socket, layer })
    }

    /// Begins TLS with the member at `host`, which has accepted the connection.
    ///
    /// # Errors
    /// The handshake fails or takes too long. The text of an `InvalidData` is the reason.
    #[cfg(feature = "tls")]
    pub fn secure(
        socket: Held,
        config: Arc<rustls::ClientConfig>,
        host: &str,
        within: Duration,
    ) -> io::Result<Connection> {
        let dialled = Dialled::begin(&socket, config, host, within)?;
        Ok(Connection {
            socket,
            layer: Layer::Dialled(Box::new(dialled)),
        })
    }

    /// The socket, for its options.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The address of the other side, for the log.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    /// A handle for a caller that may need to shut the socket down.
    pub fn handle(&self) -> Arc<TcpStream> {
        self.socket.handle()
    }

    /// Called when the socket of a connection that only sends is readable: whether the other side has closed it. With
    /// TLS, it may also have sent a ticket for a later session, for example.
    pub fn is_closed(&mut self) -> bool {
        match &mut self.layer {
            Layer::Plain => true,
            #[cfg(feature = "tls")]
            Layer::Dialled(dialled) => dialled.is_closed(&self.socket),
            // This member reads from the connections that it has accepted.
            Layer::Accepted(_) => true,
        }
    }
}

impl TimedRead for Connection {
    fn limit_reads(&self, at_most: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(at_most)
    }
}

impl TimedRead for &TcpStream {
    fn limit_reads(&self, at_most: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(at_most)
    }
}

impl Read for Connection {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => (&*self.socket).read(room),
            #[cfg(feature = "tls")]
            Layer::Dialled(dialled) => dialled.read(&self.socket, room),
            Layer::Accepted(stream) => stream.read(room),
        }
    }
}

impl Write for Connection {
    /// On a connection that this member has dialled, bytes that are not reported as written were not handed to the
    /// socket, not even in part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain => (&*self.socket).write(bytes),
            #[cfg(feature = "tls")]
            Layer::Dialled(dialled) => dialled.write(&self.socket, bytes),
            Layer::Accepted(stream) => stream.write(bytes),
        }
    }

    /// Must be called after the last write: only then it is certain that the socket has all bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain => Ok(()),
            #[cfg(feature = "tls")]
            Layer::Dialled(dialled) => dialled.flush(&self.socket),
            Layer::Accepted(stream) => stream.flush(),
        }
    }
}

#[cfg(feature = "tls")]
mod dialled {
    use crate::tls::reason;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection};
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// Maximum number of bytes that wait for the socket, encrypted.
    const BUFFER_BYTES: usize = 64 << 10;

    /// The client's side of TLS.
    pub struct Dialled {
        session: ClientConnection,
        /// An error of a write of which the session had already taken bytes.
        failed: Option<io::Error>,
    }

    impl Dialled {
        pub fn begin(
            socket: &TcpStream,
            config: Arc<ClientConfig>,
            host: &str,
            within: Duration,
        ) -> io::Result<Dialled> {
            let until = Instant::now() + within;
            let mut session =
                ClientConnection::new(config, name_of(host)?).map_err(|error| broken(&error))?;
            session.set_buffer_limit(Some(BUFFER_BYTES));
            let mut dialled = Dialled {
                session,
                failed: None,
            };
            while dialled.session.is_handshaking() {
                dialled.send(socket)?;
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                socket.set_read_timeout(Some(left))?;
                if dialled.session.is_handshaking() && dialled.receive(socket)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            dialled.send(socket)?;
            Ok(dialled)
        }

        /// Reads the socket once. Returns how many encrypted bytes have arrived.
        fn receive(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
            let count = self.session.read_tls(&mut socket)?;
            if let Err(error) = self.session.process_new_packets() {
                // An alert for the other side, which may have closed the connection already.
                let _ = self.send(socket);
                return Err(broken(&error));
            }
            Ok(count)
        }

        fn send(&mut self, mut socket: &TcpStream) -> io::Result<()> {
            while self.session.wants_write() {
                match self.session.write_tls(&mut socket) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }

        pub fn is_closed(&mut self, socket: &TcpStream) -> bool {
            match self.receive(socket) {
                Ok(0) | Err(_) => true,
                // Members send no data in this direction.
                Ok(_) => !matches!(
                    self.session.reader().read(&mut [0]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock
                ),
            }
        }

        pub fn read(&mut self, socket: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
            loop {
                match self.session.reader().read(room) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => return other,
                }
                self.send(socket)?;
                if self.receive(socket)? == 0 {
                    return Ok(0);
                }
            }
        }

        pub fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
            self.flush(socket)?;
            let count = self.session.writer().write(bytes)?;
            // A part of these bytes may be in the socket, so they count as written.
            self.failed = self.send(socket).err();
            Ok(count)
        }

        pub fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
            match self.failed.take() {
                Some(error) => Err(error),
                None => self.send(socket),
            }
        }
    }

    /// The name or address that the member's certificate must be for. A zone has no meaning on another machine.
    fn name_of(host: &str) -> io::Result<ServerName<'static>> {
        let host = host.split('%').next().unwrap_or_default().to_owned();
        ServerName::try_from(host.clone()).map_err(|_| {
            io::Error::new(
                ErrorKind::InvalidData,
                format!("{host} cannot be the name in a certificate"),
            )
        })
    }

    fn broken(error: &rustls::Error) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, reason(error))
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use crate::tls::{Client, Server, Settings, auto};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustls::{ServerConnection, StreamOwned};
    use std::net::{Shutdown, TcpListener};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::SystemTime;

    const WITHIN: Duration = Duration::from_secs(30);

    type Accepted = StreamOwned<ServerConnection, TcpStream>;

    /// A connection, and `serve` as the other member.
    fn connection(serve: impl FnOnce(Accepted) + Send + 'static) -> Connection {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = ["127.0.0.1".to_owned()];
        let made = auto::self_signed(folder.path(), &hosts, SystemTime::now());
        let (cert, key) = made.expect("a certificate");
        let settings = Settings {
            cert_file: Some(cert),
            key_file: Some(key),
            auto: true,
            ..Settings::peers()
        };
        let server = Server::open(&settings).expect("good files").config();
        let client = Client::open(&settings).expect("good files").config();
        // With short records, the socket is full in the middle of a write, after some records of it.
        let mut client = rustls::ClientConfig::clone(&client);
        client.max_fragment_size = Some(100);
        let client = Arc::new(client);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a member");
            let session = ServerConnection::new(server).expect("a session");
            let mut stream = StreamOwned::new(session, socket);
            stream.flush().expect("a handshake");
            serve(stream);
        });
        let socket = TcpStream::connect(address).expect("it listens");
        let held = Resources::new().hold(socket).expect("it runs");
        Connection::secure(held, client, "127.0.0.1", WITHIN).expect("a handshake")
    }

    fn wait_readable(connection: &Connection) {
        let mut files = [PollFd::new(connection.socket(), PollFlags::IN)];
        let timeout = WITHIN.try_into().ok();
        assert_eq!(poll(&mut files, timeout.as_ref()), Ok(1));
    }

    #[test]
    fn a_ticket_does_not_end_a_connection_that_only_sends() {
        let (end, ended) = channel::<()>();
        let mut connection = connection(move |stream| {
            // Until the test drops the sender.
            let _ = ended.recv();
            drop(stream);
        });
        // A server sends the ticket after the handshake.
        wait_readable(&connection);
        assert!(!connection.is_closed());
        drop(end);
        wait_readable(&connection);
        assert!(connection.is_closed());
    }

    /// A forward that was reported as unsent is sent again. So the other side must not have any byte of it.
    #[test]
    fn bytes_that_may_have_left_count_as_written() {
        let (full, read) = channel::<()>();
        let (count, counted) = channel();
        let mut connection = connection(move |mut stream| {
            // Nothing is read until the sender has given up.
            let _ = read.recv();
            let mut received = Vec::new();
            // The other side closes the connection without a word.
            let _ = stream.read_to_end(&mut received);
            count.send(received.len()).expect("the test waits");
        });
        let limit = Some(Duration::from_millis(100));
        connection.socket().set_write_timeout(limit).expect("set");
        let mut written = 0;
        let error = loop {
            match connection.write(&[7; 100_000]) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(full);
        let socket = connection.socket();
        socket.shutdown(Shutdown::Write).expect("it is open");
        let received = counted.recv_timeout(WITHIN).expect("a count");
        assert!(
            received > 0 && received <= written,
            "{received} of {written}"
        );
    }
}
