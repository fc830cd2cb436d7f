//! TLS on a connection: decrypts what is read, and encrypts what is written.
//!
//! rustls does no input or output, so a handshake is a part of the connection's state machine: it continues when bytes
//! arrive, and it never waits. Only a time limit ([`Limits::handshake_time`](super::Limits::handshake_time)) applies
//! to it. rustls's unbuffered interface leaves all buffers to its caller. So records are decrypted in a buffer of the
//! worker ([`Records`]), and an idle connection has none: what it keeps is the state of rustls.
//!
//! A connection keeps these bytes, if any: a record that has not arrived completely (a handshake message of up to
//! [`RECEIVED_BYTES_MAX`]), the rest of a decrypted record, and up to [`WRITE_BYTES`] that the socket has not accepted.
//!
//! The first byte shows whether a client speaks TLS. One that speaks HTTP to a port with only TLS gets an answer in
//! plain text, in the words of Go's server.

use crate::tls::certificate::{Names, check_remote};
use crate::tls::{Server, reason};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Size of the worker's buffer for received bytes.
const WINDOW_BYTES: usize = 40 << 10;
/// The longest record (18 KiB) or handshake message. This is enough for a chain of ten certificates.
const RECEIVED_BYTES_MAX: usize = 32 << 10;
/// Maximum number of bytes that are encrypted at once.
const WRITE_BYTES: usize = 32 << 10;
/// How many addresses of failed handshakes a worker remembers.
const ADDRESSES_MAX: usize = 100;
/// The type of a handshake record, with which every client of TLS begins.
const HANDSHAKE: u8 = 0x16;
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Whether the clients of a listener use TLS.
#[derive(Clone, Default)]
pub struct Security(Option<Tls>);

#[derive(Clone)]
struct Tls {
    server: Arc<Server>,
    is_optional: bool,
}

impl Security {
    /// Without TLS.
    pub fn plain() -> Security {
        Security(None)
    }

    /// Only with TLS.
    pub fn tls(server: Arc<Server>) -> Security {
        Security(Some(Tls {
            server,
            is_optional: false,
        }))
    }

    /// With and without TLS: the first byte of each connection decides.
    pub fn optional(server: Arc<Server>) -> Security {
        Security(Some(Tls {
            server,
            is_optional: true,
        }))
    }

    /// Whether clients without TLS are served.
    pub fn is_plain(&self) -> bool {
        self.0.as_ref().is_none_or(|tls| tls.is_optional)
    }

    /// Whether clients with TLS are served.
    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the files of certificates be looked at.
    pub(super) fn refresh(&self, now: Instant) {
        if let Some(tls) = &self.0 {
            tls.server.refresh(now);
        }
    }

    /// The session of a new connection. `None` without TLS.
    pub(super) fn begin(&self, remote: SocketAddr) -> Option<Box<Session>> {
        let tls = self.0.as_ref()?;
        let rustls = match UnbufferedServerConnection::new(tls.server.config()) {
            Ok(rustls) => rustls,
            Err(error) => unreachable!("a configuration that cannot be used was made: {error}"),
        };
        Some(Box::new(Session {
            rustls,
            phase: Phase::First {
                is_optional: tls.is_optional,
            },
            // A Unix socket has no port, and its clients have no address.
            remote: (tls.server.checks_address() && remote.port() != 0).then(|| remote.ip()),
            received: Vec::new(),
            decrypted: Vec::new(),
            unsent: Vec::new(),
            more: true,
            is_closed: false,
            name: None,
            failure: None,
        }))
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_tls(), self.is_plain()) {
            (false, _) => "plain",
            (true, true) => "optional TLS",
            (true, false) => "TLS",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was received.
    First {
        is_optional: bool,
    },
    Handshake,
    Open,
    /// The client does not use TLS, and need not.
    Plain,
    /// Nothing is decrypted or encrypted any longer. Bytes that still arrive are discarded.
    Ended,
}

/// The TLS session of one connection.
pub(super) struct Session {
    rustls: UnbufferedServerConnection,
    phase: Phase,
    /// The address that the client's certificate must contain if it contains any. `None`: it is not compared.
    remote: Option<IpAddr>,
    /// Received bytes from which rustls has not taken a whole record.
    received: Vec<u8>,
    /// The rest of a decrypted record.
    decrypted: Vec<u8>,
    /// Encrypted bytes that the socket has not accepted.
    unsent: Vec<u8>,
    /// Whether there may be more bytes to read, here or in the socket.
    more: bool,
    /// Whether the client has said that it will send nothing more.
    is_closed: bool,
    /// The common name of the client's certificate, until the connection takes it.
    name: Option<Box<str>>,
    failure: Option<String>,
}

/// The buffers and counters of a worker for the sessions of its connections.
#[derive(Default)]
pub(super) struct Records {
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes received from sockets, and sent to them.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Bytes received in the last read.
    pub last_read: usize,
    /// When a failure of an address was last logged.
    addresses: BTreeMap<IpAddr, Instant>,
}

impl Records {
    /// Logs why a session has failed, for each address once within `pause`.
    pub fn log_failure(&mut self, remote: SocketAddr, why: &str, pause: Duration, now: Instant) {
        if !pause.is_zero() {
            let since = |last: Instant| now.saturating_duration_since(last);
            self.addresses.retain(|_, last| since(*last) < pause);
            // Many addresses are as one: then they are logged as often as without a pause.
            if self.addresses.contains_key(&remote.ip()) {
                return;
            }
            if self.addresses.len() < ADDRESSES_MAX {
                self.addresses.insert(remote.ip(), now);
            }
        }
        log::warn!("TLS with the client {remote} has failed: {why}");
    }
}

/// Received bytes that rustls has not taken: `bytes[start..end]`.
struct Window {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn received(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }
}

/// What to do when the session can send.
enum Want<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

impl Session {
    pub fn is_handshaking(&self) -> bool {
        matches!(self.phase, Phase::First { .. } | Phase::Handshake)
    }

    /// Whether the client does not use TLS. Then the session is no longer needed.
    pub fn is_plain(&self) -> bool {
        self.phase == Phase::Plain
    }

    /// Whether there may be more bytes to read, without another event of the socket.
    pub fn has_more(&self) -> bool {
        self.more || !self.decrypted.is_empty()
    }

    /// Bytes that are kept.
    pub fn held(&self) -> usize {
        self.received.len() + self.decrypted.len() + self.unsent.len()
    }

    /// The common name of the client's verified certificate, once after the handshake.
    pub fn take_name(&mut self) -> Option<Box<str>> {
        self.name.take()
    }

    /// Why the session has failed, once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub fn reader<'a, S>(&'a mut self, socket: S, records: &'a mut Records) -> Reader<'a, S> {
        Reader(self, socket, records)
    }

    pub fn writer<'a, S>(&'a mut self, socket: S, records: &'a mut Records) -> Writer<'a, S> {
        Writer(self, socket, records)
    }

    /// Sends bytes that are already encrypted. Returns whether none is left.
    ///
    /// Errors: those of the socket.
    pub fn push(&mut self, mut socket: impl Write, records: &mut Records) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    records.sent_bytes += count as u64;
                    self.unsent.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(true)
    }

    /// Says that this side sends nothing more. [`Session::push`] sends it.
    pub fn end(&mut self) {
        if self.phase == Phase::Open {
            let mut out = std::mem::take(&mut self.unsent);
            // If rustls fails here, the client sees the end of the connection anyway.
            let _ = self.process_received(Want::Close, &mut out);
            self.unsent = out;
        }
        self.phase = Phase::Ended;
        self.more = true;
        (self.received, self.decrypted) = (Vec::new(), Vec::new());
    }

    /// Reads decrypted bytes. Fails with `Interrupted` if a read of the socket brought none.
    fn read(
        &mut self,
        socket: impl Read + Write,
        room: &mut [u8],
        records: &mut Records,
    ) -> io::Result<usize> {
        records.last_read = 0;
        if !self.decrypted.is_empty() {
            return Ok(self.take_decrypted(room));
        }
        if self.phase == Phase::Ended {
            return self.read_socket(socket, room, records);
        }
        let mut window = self.open_window(records);
        let result = self.read_records(socket, room, &mut window, records);
        self.received = window.received().to_vec();
        records.input = window.bytes;
        result
    }

    fn take_decrypted(&mut self, room: &mut [u8]) -> usize {
        let count = room.len().min(self.decrypted.len());
        room[..count].copy_from_slice(&self.decrypted[..count]);
        self.decrypted.drain(..count);
        if self.decrypted.is_empty() {
            self.decrypted = Vec::new();
        }
        count
    }

    fn open_window(&mut self, records: &mut Records) -> Window {
        let received = std::mem::take(&mut self.received);
        let mut bytes = std::mem::take(&mut records.input);
        bytes.resize(WINDOW_BYTES, 0);
        bytes[..received.len()].copy_from_slice(&received);
        Window {
            bytes,
            start: 0,
            end: received.len(),
        }
    }

    fn read_socket(
        &mut self,
        mut socket: impl Read,
        room: &mut [u8],
        records: &mut Records,
    ) -> io::Result<usize> {
        let count = socket.read(room)?;
        records.received_bytes += count as u64;
        records.last_read = count;
        // A read that does not fill the space has emptied the socket.
        self.more = count == room.len();
        Ok(count)
    }

    /// Decrypts what was received before, or else reads the socket once.
    fn read_records(
        &mut self,
        mut socket: impl Read + Write,
        room: &mut [u8],
        window: &mut Window,
        records: &mut Records,
    ) -> io::Result<usize> {
        if !window.is_empty() {
            let count = self.decrypt(window, room)?;
            if count > 0 {
                return Ok(count);
            }
        }
        if self.is_closed {
            return Ok(0);
        }
        if window.received().len() > RECEIVED_BYTES_MAX {
            return Err(self.fail("it has sent a handshake message that is too long".to_owned()));
        }
        let mut space = &mut window.bytes[window.end..];
        if let Phase::First { .. } = self.phase {
            let size = space.len().min(room.len());
            space = &mut space[..size];
        }
        let count = self.read_socket(&mut socket, space, records)?;
        if count == 0 {
            return Ok(0);
        }
        window.end += count;
        if let Phase::First { is_optional } = self.phase
            && let Some(result) = self.look_at_first(window.received(), room, is_optional)
        {
            window.end = window.start;
            return result;
        }
        let count = self.decrypt(window, room)?;
        self.push(&mut socket, records)?;
        if count > 0 || self.is_closed {
            return Ok(count);
        }
        Err(ErrorKind::Interrupted.into())
    }

    /// Looks at the first bytes of a connection. `None`: they are TLS, or something for rustls to refuse.
    fn look_at_first(
        &mut self,
        bytes: &[u8],
        room: &mut [u8],
        is_optional: bool,
    ) -> Option<io::Result<usize>> {
        self.phase = Phase::Handshake;
        if bytes[0] == HANDSHAKE {
            return None;
        }
        if is_optional {
            self.phase = Phase::Plain;
            room[..bytes.len()].copy_from_slice(bytes);
            return Some(Ok(bytes.len()));
        }
        if !bytes[0].is_ascii_uppercase() {
            return None;
        }
        self.unsent = NOT_TLS.to_vec();
        let why = "it has sent an HTTP request without TLS (its URL must begin with https://)";
        Some(Err(self.fail(why.to_owned())))
    }

    /// Decrypts records into `room`. Returns the number of bytes.
    fn decrypt(&mut self, window: &mut Window, room: &mut [u8]) -> io::Result<usize> {
        let mut out = std::mem::take(&mut self.unsent);
        let result = self.process(window, room, Want::Nothing, &mut out);
        self.unsent = out;
        let mut count = result.map_err(|error| self.fail(reason(&error)))?;
        if self.phase == Phase::Handshake && !self.rustls.is_handshaking() {
            self.phase = Phase::Open;
            if let Err(why) = self.check_certificate() {
                count = 0;
                self.end();
                self.failure = Some(why);
            }
        }
        match self.failure {
            Some(_) => Err(ErrorKind::InvalidData.into()),
            None => Ok(count),
        }
    }

    fn fail(&mut self, why: String) -> io::Error {
        self.phase = Phase::Ended;
        self.more = true;
        self.failure = Some(why);
        ErrorKind::InvalidData.into()
    }

    /// rustls has verified the certificate, unless the session continues an earlier one.
    fn check_certificate(&mut self) -> Result<(), String> {
        let chain = self.rustls.peer_certificates().unwrap_or_default();
        let Some(certificate) = chain.first() else {
            return Ok(());
        };
        let names = Names::read(certificate).ok_or("its certificate is malformed")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        if now.is_ok_and(|now| i128::from(now.as_secs()) > i128::from(names.not_after)) {
            return Err("its certificate has expired".to_owned());
        }
        if let Some(remote) = self.remote {
            check_remote(&names, remote)?;
        }
        if !names.common_name.is_empty() {
            self.name = Some(names.common_name.into());
        }
        Ok(())
    }

    /// Like [`Session::process`], for bytes that were received before. The decrypted bytes are kept.
    fn process_received(
        &mut self,
        want: Want<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, rustls::Error> {
        let bytes = std::mem::take(&mut self.received);
        let mut window = Window {
            start: 0,
            end: bytes.len(),
            bytes,
        };
        let result = self.process(&mut window, &mut [], want, out);
        self.received = match window.start {
            0 => window.bytes,
            start => window.bytes[start..].to_vec(),
        };
        result
    }

    /// Runs rustls until it needs more bytes, or until `room` is full. Bytes that it wants to send are appended to
    /// `out`. Returns how many bytes of `room` are used.
    fn process(
        &mut self,
        window: &mut Window,
        room: &mut [u8],
        mut want: Want<'_>,
        out: &mut Vec<u8>,
    ) -> Result<usize, rustls::Error> {
        let mut count = 0;
        let mut failed = None;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.rustls.process_tls_records(window.received());
            let was_failed = failed.is_some();
            let mut goes_on = !was_failed;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let fits = record.payload.len().min(room.len() - count);
                        room[count..count + fits].copy_from_slice(&record.payload[..fits]);
                        count += fits;
                        self.decrypted.extend_from_slice(&record.payload[fits..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(out, |space| match data.encode(space) {
                        Err(EncodeError::InsufficientSize(error)) => Err(Some(error)),
                        other => other.map_err(|_| None),
                    })?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let too_small = |error| match error {
                        EncryptError::InsufficientSize(error) => Some(error),
                        EncryptError::EncryptExhausted => None,
                    };
                    match std::mem::replace(&mut want, Want::Nothing) {
                        Want::Nothing => goes_on = false,
                        Want::Encrypt(bytes) => append(out, |space| {
                            traffic.encrypt(bytes, space).map_err(too_small)
                        })?,
                        Want::Close => append(out, |space| {
                            traffic.queue_close_notify(space).map_err(too_small)
                        })?,
                    }
                }
                // In the call after an error, rustls returns the alert that it wants to send. A further call would decode
                // the same bytes again, which it does not expect.
                Err(error) => {
                    failed.get_or_insert(error);
                }
                // Needs more bytes, or is closed. Early data is not accepted.
                Ok(_) => goes_on = false,
            }
            window.start += discard;
            if !goes_on || (matches!(want, Want::Nothing) && !self.decrypted.is_empty()) {
                break;
            }
        }
        self.more |= !self.decrypted.is_empty();
        match (failed, want) {
            (Some(error), _) => Err(error),
            (None, Want::Nothing) => Ok(count),
            // Otherwise the bytes would be lost.
            (None, _) => Err(rustls::Error::HandshakeNotComplete),
        }
    }

    fn write(
        &mut self,
        mut socket: impl Write,
        bytes: &[u8],
        records: &mut Records,
    ) -> io::Result<usize> {
        if !self.push(&mut socket, records)? || self.phase != Phase::Open {
            return Err(ErrorKind::WouldBlock.into());
        }
        let part = &bytes[..bytes.len().min(WRITE_BYTES)];
        let mut out = std::mem::take(&mut records.output);
        let encrypted = self.process_received(Want::Encrypt(part), &mut out);
        let sent = match encrypted {
            Err(error) => Err(self.fail(reason(&error))),
            Ok(_) => match socket.write(&out) {
                Err(error) if is_for_later(&error) => Ok(0),
                other => other,
            },
        };
        if let Ok(sent) = &sent {
            records.sent_bytes += *sent as u64;
            self.unsent = out[*sent..].to_vec();
        }
        out.clear();
        records.output = out;
        sent.map(|_| part.len())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Appends what `encode` writes. It is called first without space, and then with the space that it asks for.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    let mut size = 0;
    loop {
        out.resize(start + size, 0);
        match encode(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Some(InsufficientSizeError { required_size })) if required_size > size => {
                size = required_size;
            }
            Err(_) => {
                out.truncate(start);
                return Err(rustls::Error::EncryptError);
            }
        }
    }
}

/// Reads what the session decrypts. Fails with `InvalidData` if the session fails: see [`Session::take_failure`].
pub(super) struct Reader<'a, S>(&'a mut Session, S, &'a mut Records);

impl<S: Read + Write> Read for Reader<'_, S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut self.1, room, self.2)
    }
}

/// Encrypts what is written. Bytes that the socket does not accept are kept by the session.
pub(super) struct Writer<'a, S>(&'a mut Session, S, &'a mut Records);

impl<S: Write> Write for Writer<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&mut self.1, bytes, self.2)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS connection that was handed over. Its socket blocks. It belongs to one thread at a time; another thread may
/// only shut the socket down.
pub struct TlsStream {
    session: Box<Session>,
    socket: TcpStream,
    records: Records,
}

impl TlsStream {
    pub(super) fn new(session: Box<Session>, socket: TcpStream) -> TlsStream {
        TlsStream {
            session,
            socket,
            records: Records::default(),
        }
    }

    /// The socket, for its options and to shut it down.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Read for TlsStream {
    /// Errors: those of the socket, such as `WouldBlock` after its time limit; `InvalidData` if the session fails.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.read(&self.socket, room, &mut self.records) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let failure = self.session.take_failure();
                    return Err(
                        failure.map_or(error, |why| io::Error::new(ErrorKind::InvalidData, why))
                    );
                }
                other => return other,
            }
        }
    }
}

impl Write for TlsStream {
    /// Errors: those of the socket. After `WouldBlock`, a part of what was written before may not be sent yet.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.write(&self.socket, bytes, &mut self.records)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.session.push(&self.socket, &mut self.records)? {
            true => Ok(()),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }
}
