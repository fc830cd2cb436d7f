//! Dials a member: one TCP connection, the handshake, and its result.

use super::common::{Common, Peer};
use super::connection::Connection;
use super::handshake::{CLUSTER, Greeting, INCARNATION, LINK_PATH, PROOF, PROTOCOL, REMOVED};
use super::reach::{Body, Reach, Response};
use crate::identity::ids;
use crate::raft::{NodeId, Term};
use crate::urls::Url;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

/// Limit for the text of a refusal that is kept.
const TEXT_BYTES_MAX: usize = 1 << 10;

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
        let (socket, url) = self.reach().connect(text, self.common.timing.connect)?;
        self.greet(socket, &url)
    }

    fn reach(&self) -> Reach<'_> {
        Reach {
            tls: &self.common.tls,
            given_up: self.given_up,
        }
    }

    /// Requests the digest of the member's token.
    fn ask_digest(&self, text: &str) -> Result<Option<String>, Failure> {
        let failed = |error: io::Error| Failure::Failed(error.to_string());
        let common = self.common;
        let (socket, url) = self.reach().connect(text, common.timing.connect)?;
        let Some(held) = common.resources.hold(socket) else {
            return Ok(None);
        };
        let request = common.me.question(self.to, url.authority());
        common.tune(&held, false).map_err(failed)?;
        let mut connection = self.reach().secure(held, &url, common.timing.greet)?;
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
        let mut connection = self.reach().secure(held, url, common.timing.greet)?;
        let answer = self
            .exchange(&mut connection, &request)
            .map_err(|error| failed(self.unanswered(&error)))?;
        self.judge(&answer, url)?;
        Ok(connection)
    }

    fn exchange(&self, connection: &mut Connection, request: &[u8]) -> io::Result<Answer> {
        let body = Body::Announced(TEXT_BYTES_MAX);
        let response = Response::exchange(connection, request, body, self.common.timing.greet)?;
        Ok(Answer::of(&response))
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

/// A member's answer to the handshake.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    upgrade: bool,
    incarnation: Option<u64>,
    removed: Option<u64>,
    cluster: Option<u64>,
    proof: Option<String>,
    text: String,
}

impl Answer {
    fn of(response: &Response) -> Answer {
        let value = |name: &str| response.header(name);
        Answer {
            status: response.status,
            upgrade: value("upgrade") == Some(PROTOCOL),
            incarnation: value(INCARNATION).and_then(ids::parse),
            removed: value(REMOVED).and_then(ids::parse),
            cluster: value(CLUSTER).and_then(ids::parse),
            proof: value(PROOF).map(str::to_owned),
            text: String::from_utf8_lossy(&response.body).trim().to_owned(),
        }
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
