//! Dials a member: one TCP connection, the handshake, and its result.

use super::common::{Common, Peer};
use super::connection::{Connection, TimedRead};
use super::handshake::{CLUSTER, Greeting, INCARNATION, LINK_PATH, PROOF, PROTOCOL, REMOVED};
use super::resources::Held;
use crate::identity::ids;
use crate::raft::{NodeId, Term};
use crate::urls::{Scheme, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Limits for the head of an answer, and for the text of a refusal that is kept.
const HEAD_BYTES_MAX: usize = 8 << 10;
const TEXT_BYTES_MAX: usize = 1 << 10;

/// Why a member with an `https` URL cannot be dialled.
const NO_TLS: &str = match crate::tls::IS_BUILT_IN {
    true => {
        "this member cannot verify a member with TLS: start it with --peer-trusted-ca-file (and --peer-cert-file, \
         --peer-key-file)"
    }
    false => "this program was built without TLS",
};

/// How often a pending connect checks whether the connection is still needed.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Limit for unsent bytes in the kernel. An urgent message waits for these bytes, too.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 << 10;

/// One attempt to dial a member.
pub(super) struct Call<'a> {
    pub common: &'a Common,
    pub to: NodeId,
    pub urls: &'a [String],
    pub path: &'a str,
    pub term: Option<Term>,
    /// The token that this member's connections to that one contain.
    pub token: u64,
    /// Called while waiting: returns whether the connection is no longer needed.
    pub given_up: &'a dyn Fn() -> bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No process listens: the member's machine refused the connection at every URL.
    NobodyThere,
    /// The member is unreachable, or the answer is not that of a member. The text is the reason.
    Failed(String),
    /// The member has answered with a refusal.
    Refused(String),
    /// The member has answered that this member was removed from the cluster.
    Removed(String),
}

impl Call<'_> {
    /// Tries the URLs one by one. Returns the connection and its URL, or the most severe failure.
    pub fn dial(&self) -> Result<(Connection, String), Failure> {
        let mut nobody = None;
        let mut failure = None;
        for url in self.urls {
            match self.dial_url(url) {
                Ok(connection) => return Ok((connection, url.clone())),
                Err(Failure::NobodyThere) => nobody = Some(Failure::NobodyThere),
                Err(other) => failure = Some(other),
            }
        }
        let none = || Failure::Failed("the member has no peer URL".into());
        Err(failure.or(nobody).unwrap_or_else(none))
    }

    fn dial_url(&self, text: &str) -> Result<Connection, Failure> {
        let (socket, url) = self.reach(text)?;
        self.greet(socket, &url)
    }

    /// Connects to the first address of a URL that accepts a connection.
    fn reach(&self, text: &str) -> Result<(TcpStream, Url), Failure> {
        let failed = |why: String| Failure::Failed(format!("{text}: {why}"));
        let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
        if url.socket_path().is_some() {
            return Err(failed(
                "members connect to each other over the network".into(),
            ));
        }
        if url.scheme() == Scheme::Https && !self.common.tls.is_possible() {
            return Err(failed(NO_TLS.into()));
        }
        let addresses = url.resolve().map_err(|error| failed(error.to_string()))?;
        let mut why = failed("the host name has no address".into());
        let mut refused = 0;
        for address in &addresses {
            match self.connect(*address) {
                Ok(socket) => return Ok((socket, url)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                Err(error) => why = failed(error.to_string()),
            }
        }
        match refused > 0 && refused == addresses.len() {
            true => Err(Failure::NobodyThere),
            false => Err(why),
        }
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let kind = Domain::for_address(address);
        let socket = Socket::new(kind, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if is_under_way(&error) => self.wait_for(&socket)?,
            other => other?,
        }
        socket.set_nonblocking(false)?;
        let socket = TcpStream::from(socket);
        if socket.local_addr()? == socket.peer_addr()? {
            // The kernel can give the port of an address without a listener to the dialling socket, which then connects
            // to itself.
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(socket)
    }

    fn wait_for(&self, socket: &Socket) -> io::Result<()> {
        let until = Instant::now() + self.common.timing.connect;
        let slice = Timespec::try_from(CHECK_EVERY).ok();
        loop {
            let ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], slice.as_ref());
            if ready.is_ok_and(|count| count > 0) {
                return socket.take_error()?.map_or(Ok(()), Err);
            }
            if Instant::now() >= until || (self.given_up)() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the connection attempt timed out",
                ));
            }
        }
    }

    /// Requests the digest of the member's token.
    fn ask_digest(&self, text: &str) -> Result<Option<String>, Failure> {
        let failed = |error: io::Error| Failure::Failed(error.to_string());
        let (socket, url) = self.reach(text)?;
        let common = self.common;
        let Some(held) = common.resources.hold(socket) else {
            return Ok(None);
        };
        let request = common.me.question(self.to, url.authority());
        common.tune(&held, false).map_err(failed)?;
        let mut connection = self.secure(held, &url)?;
        let answer = self.exchange(&mut connection, &request).map_err(failed)?;
        Ok(Some(answer.text).filter(|_| answer.status == 200))
    }

    /// Sends the handshake and reads the answer.
    fn greet(&self, socket: TcpStream, url: &Url) -> Result<Connection, Failure> {
        let failed = |why: String| Failure::Failed(format!("{url}: {why}"));
        let common = self.common;
        let Some(held) = common.resources.hold(socket) else {
            return Err(failed("this member is stopping".into()));
        };
        let greeting = Greeting {
            path: self.path,
            authority: url.authority(),
            term: self.term,
            urls: &common.own_urls(),
            token: self.token,
            known: common.table.incarnation(self.to),
        };
        let request = common.me.request(self.to, &greeting);
        common
            .tune(&held, self.term.is_some())
            .map_err(|error| failed(error.to_string()))?;
        let mut connection = self.secure(held, url)?;
        let answer = self
            .exchange(&mut connection, &request)
            .map_err(|error| failed(self.unanswered(&error)))?;
        self.judge(&answer, url)?;
        Ok(connection)
    }

    fn exchange(&self, connection: &mut Connection, request: &[u8]) -> io::Result<Answer> {
        connection.write_all(request)?;
        connection.flush()?;
        Answer::read(connection, self.common.timing.greet)
    }

    /// Begins TLS if the URL has it.
    #[cfg(feature = "tls")]
    fn secure(&self, socket: Held, url: &Url) -> Result<Connection, Failure> {
        if url.scheme() != Scheme::Https {
            return Ok(Connection::plain(socket));
        }
        let failed = |error: io::Error| {
            let why = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "it takes too long".to_owned(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                    "the member has closed the connection; does it listen with TLS?".to_owned()
                }
                _ => error.to_string(),
            };
            Failure::Failed(format!("{url}: TLS has failed: {why}"))
        };
        let config = self.common.tls.config().map_err(failed)?;
        let within = self.common.timing.greet;
        Connection::secure(socket, config, url.host(), within).map_err(failed)
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, socket: Held, _: &Url) -> Result<Connection, Failure> {
        Ok(Connection::plain(socket))
    }

    /// Describes a missing answer. A member that has just been started listens before it has read its log.
    fn unanswered(&self, error: &io::Error) -> String {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
                "the member listens, but has not answered the handshake within {:?}; it may still be starting",
                self.common.timing.greet
            ),
            _ => format!("the member has not answered the handshake: {error}"),
        }
    }

    fn judge(&self, answer: &Answer, url: &Url) -> Result<(), Failure> {
        let common = self.common;
        if answer.status == 101 && answer.upgrade {
            let admitted = common.table.admits_answer(self.to, answer.incarnation);
            return admitted.map_err(|refusal| Failure::Refused(format!("{url}: {refusal}")));
        }
        let text = format!("{url} answers {}: {}", answer.status, answer.text);
        match answer.status {
            410 if self.is_removal(answer) => Err(Failure::Removed(text)),
            // This status passes by itself within a short time.
            503 => Err(Failure::Failed(text)),
            _ => Err(Failure::Refused(text)),
        }
    }

    /// Whether the member itself has answered that this member was removed. After a start, before a leader is known,
    /// the incarnations of the other members may be unknown here. Then this member believes the process at the member's
    /// URL.
    fn is_removal(&self, answer: &Answer) -> bool {
        let common = self.common;
        let (me, to) = (common.me, self.to);
        let is_meant = answer.removed == Some(me.id.0) && answer.cluster == Some(me.cluster);
        let is_proven = match common.table.incarnation(to) {
            Some(own) => answer.proof == Some(me.removal(to, me.id, self.token, own)),
            None => true,
        };
        is_meant && is_proven
    }
}

/// Asks a member, at its address in the table, for the digest of its connections to this one. None: it does not answer.
pub(super) fn ask_digest(common: &Common, peer: &Peer) -> Option<String> {
    let urls = common.table.urls(peer.id);
    let call = Call {
        common,
        to: peer.id,
        urls: &urls,
        path: LINK_PATH,
        term: None,
        token: 0,
        given_up: &|| common.resources.is_stopping(),
    };
    urls.iter().find_map(|url| call.ask_digest(url).ok()?)
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// A member's answer to the handshake.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    upgrade: bool,
    incarnation: Option<u64>,
    removed: Option<u64>,
    cluster: Option<u64>,
    proof: Option<String>,
    length: usize,
    text: String,
}

impl Answer {
    fn read(connection: &mut impl TimedRead, within: Duration) -> io::Result<Answer> {
        let until = Instant::now() + within;
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        loop {
            if let Some((answer, head)) = Answer::parse(&bytes)? {
                let wanted = head + answer.length.min(TEXT_BYTES_MAX);
                if answer.status == 101 || bytes.len() >= wanted {
                    return Ok(answer.with_text(&bytes[head..]));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || bytes.len() > HEAD_BYTES_MAX {
                return Err(ErrorKind::TimedOut.into());
            }
            connection.limit_reads(Some(left))?;
            match connection.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer and the length of its head, if the head is complete.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(bytes);
        let parsed = parsed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let (httparse::Status::Complete(head), Some(status)) = (parsed, response.code) else {
            return Ok(None);
        };
        let value = |name: &str| {
            let mut headers = response.headers.iter();
            let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        };
        let answer = Answer {
            status,
            upgrade: value("upgrade") == Some(PROTOCOL),
            incarnation: value(INCARNATION).and_then(ids::parse),
            removed: value(REMOVED).and_then(ids::parse),
            cluster: value(CLUSTER).and_then(ids::parse),
            proof: value(PROOF).map(str::to_owned),
            length: value("content-length")
                .and_then(|length| length.parse().ok())
                .unwrap_or(0),
            text: String::new(),
        };
        Ok(Some((answer, head)))
    }

    fn with_text(mut self, body: &[u8]) -> Answer {
        let body = &body[..body.len().min(TEXT_BYTES_MAX)];
        self.text = String::from_utf8_lossy(body).trim().to_owned();
        self
    }
}

/// Sets the options of a connection between members, on either end: small messages are sent immediately, and a host
/// that has vanished or accepts no bytes is detected.
pub(super) fn tune(
    socket: &TcpStream,
    write: Duration,
    unacknowledged: Duration,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(write))?;
    let options = SockRef::from(socket);
    // The system counts whole seconds here.
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(unacknowledged.max(second))
        .with_interval(second)
        .with_retries(3);
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        options.set_tcp_user_timeout(Some(unacknowledged))?;
        options.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}
