//! The receiving side: who may come in, and the thread of each stream of letters.

use super::common::{Common, Peer};
use super::counters::Tally;
use super::crew::Held;
use super::frame::{FrameReader, HEADER_BYTES, Kind, LETTER_BYTES_MAX};
use super::hello::{Hello, LINK_PATH, Refusal, SNAPSHOT_PATH, STREAM_PATH};
use super::receive::Receiver;
use super::table::Admitted;
use crate::door::{Answer, Handler, Reply, Request};
use crate::engine::letter::Letter;
use crate::raft::NodeId;
use crate::replica::peers::FromPeers;
use crate::wal::Disk;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the peer port's door calls: upgrades of members, and pages for everybody.
pub(super) struct PeerPort<D: Disk> {
    pub common: Arc<Common>,
    pub receiver: Arc<Receiver<D>>,
    pub pages: Arc<dyn Handler>,
}

impl<D: Disk> Handler for PeerPort<D> {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        let is_snapshot = match request.path() {
            path if path == STREAM_PATH.as_bytes() => false,
            path if path == SNAPSHOT_PATH.as_bytes() => true,
            path if path == LINK_PATH.as_bytes() => return self.answer_link(request, reply),
            _ => return self.pages.handle(request, reply),
        };
        match self.admit(request, is_snapshot) {
            Ok((hello, admitted)) => self.welcome(hello, &admitted, is_snapshot, reply),
            Err((from, refusal)) => self.refuse(request, from, &refusal, reply),
        }
    }
}

impl<D: Disk> PeerPort<D> {
    fn refuse(
        &self,
        request: &Request<'_>,
        from: Option<NodeId>,
        refusal: &Refusal,
        reply: Reply<'_>,
    ) {
        self.common.complain(from, request.remote(), refusal);
        reply.send(refusal.answer(&self.common.me, request));
    }

    /// Another member asks which connections are this one's own.
    fn answer_link(&self, request: &Request<'_>, reply: Reply<'_>) {
        match self.common.me.read_question(request) {
            Ok(asker) => reply.send(match self.common.own_digest(asker) {
                Some(digest) => Answer::text(200, digest).closing(),
                None => Answer::text(404, "none\n").closing(),
            }),
            Err(refusal) => self.refuse(request, None, &refusal, reply),
        }
    }

    fn admit(
        &self,
        request: &Request<'_>,
        is_snapshot: bool,
    ) -> Result<(Hello, Admitted), (Option<NodeId>, Refusal)> {
        let common = &self.common;
        let hello = common.me.read(request).map_err(|refusal| (None, refusal))?;
        let refuse = |refusal| (Some(hello.from), refusal);
        let admitted = common.table.admits(&hello).map_err(|refusal| {
            if matches!(refusal, Refusal::Unknown(_)) {
                common.listing.want(common);
            }
            refuse(refusal)
        })?;
        if common.crew.is_stopping() {
            return Err(refuse(Refusal::Stopping));
        }
        let is_beside = match (is_snapshot, hello.term) {
            (false, _) => common.streams.is_open(hello.from),
            (true, None) => return Err(refuse(Refusal::Malformed("a snapshot is of no term"))),
            (true, Some(term)) if !self.receiver.has_room(hello.from, term) => {
                return Err(refuse(Refusal::Busy));
            }
            (true, Some(_)) => self.receiver.is_taken(),
        };
        if (is_beside || !admitted.is_shown) && !common.may_vouch(&hello) {
            return Err(refuse(Refusal::Unvouched(hello.from)));
        }
        Ok((hello, admitted))
    }

    fn welcome(&self, hello: Hello, admitted: &Admitted, is_snapshot: bool, reply: Reply<'_>) {
        let (common, receiver) = (Arc::clone(&self.common), Arc::clone(&self.receiver));
        if admitted.is_newcomer && admitted.is_shown {
            let why = "it knows this member from the log";
            common.introduce(hello.from, &hello.urls, why);
        } else if admitted.is_shown {
            common.hear(hello.from, &hello.urls);
        }
        let is_shown = admitted.is_shown;
        let begin = move |socket: TcpStream, early: Vec<u8>| {
            let kind = if is_snapshot { "snap" } else { "peer" };
            let name = format!("{kind}-in-{:x}", hello.from.0);
            // Here, where connections come one after the other; their threads may begin in any order.
            let turn = common.streams.next_turn();
            let crew = Arc::clone(&common.crew);
            let begun = crew.connection(&name, move || {
                if !is_shown && !common.vouches(&hello) {
                    return common.complain_unvouched(hello.from, socket.peer_addr().ok());
                }
                match is_snapshot {
                    true => receiver.run(&hello, socket, &early),
                    false => receive(&common, &hello, turn, socket, &early),
                }
            });
            if let Err(error) = begun {
                log::warn!("the thread {name} does not start: {error}");
            }
        };
        let welcome = self.common.me.welcome(is_shown);
        reply.upgrade(welcome, Box::new(begin));
    }
}

/// The streams that are open, one for each member at most.
///
/// A member that has lost its connection dials again before this end has noticed. But somebody else may dial in its
/// name. So an open stream gives way only to one that the member vouches for (`vouch.rs`). If it does not, the older
/// stream stays until it ends or falls silent, which the keep-alive of its socket notices.
#[derive(Default)]
pub(super) struct Streams(Mutex<Open>);

#[derive(Default)]
struct Open {
    turn: u64,
    streams: BTreeMap<NodeId, (u64, Arc<TcpStream>)>,
}

/// What became of a stream that wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Yes,
    /// An older one is open: the member has to be asked.
    Occupied,
}

impl Streams {
    pub fn is_open(&self, from: NodeId) -> bool {
        self.open().streams.contains_key(&from)
    }

    /// Ends the stream of a member that is none any more.
    pub fn shut(&self, from: NodeId) {
        if let Some((_, socket)) = self.open().streams.get(&from) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Which of two streams is the newer.
    fn next_turn(&self) -> u64 {
        let mut open = self.open();
        open.turn += 1;
        open.turn
    }

    /// Begins a stream, in the place of an older one if its member vouches for it.
    fn begin(&self, peer: &Peer, turn: u64, socket: Arc<TcpStream>, vouched: bool) -> Begun {
        let mut open = self.open();
        if let Some((_, older)) = open.streams.get(&peer.id) {
            if !vouched {
                return Begun::Occupied;
            }
            let _ = older.shutdown(Shutdown::Both);
        }
        open.streams.insert(peer.id, (turn, socket));
        peer.gauges.set_receiving(Some(Instant::now()));
        Begun::Yes
    }

    /// Whether it was still the newest.
    fn end(&self, peer: &Peer, turn: u64) -> bool {
        let mut open = self.open();
        let is_newest = open
            .streams
            .get(&peer.id)
            .is_some_and(|(newest, _)| *newest == turn);
        if is_newest {
            open.streams.remove(&peer.id);
            peer.gauges.set_receiving(None);
        }
        is_newest
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread `peer-in-ID`: owns its socket; waits for bytes, and for room in raft's channel.
fn receive(common: &Arc<Common>, hello: &Hello, turn: u64, socket: TcpStream, early: &[u8]) {
    // Both are none only if the member, or this link, has just ended.
    let (Some(peer), Some(socket)) = (common.peer(hello.from), common.crew.hold(socket)) else {
        return;
    };
    if let Err(error) = common.tune(&socket, false) {
        return log::warn!("the connection from {} is lost: {error}", peer.label());
    }
    let begin = |vouched| common.streams.begin(&peer, turn, socket.handle(), vouched);
    // The older one may have ended while the member was asked.
    if begin(false) == Begun::Occupied && begin(common.vouches(hello)) == Begun::Occupied {
        return common.complain_unvouched(peer.id, socket.peer_addr().ok());
    }
    let stream = Stream {
        format: hello.format,
        common,
        peer,
        turn,
        socket,
    };
    // The table may have changed since the hello was read; from `begin` on, a change shuts the socket.
    if common.table.admits(hello).is_ok() {
        stream.run(early);
    }
}

/// One stream of letters; its drop tells that it has ended, however that came.
struct Stream<'a> {
    /// The newest format of entries that the member understands.
    format: u16,
    common: &'a Common,
    peer: Arc<Peer>,
    turn: u64,
    socket: Held,
}

impl Stream<'_> {
    fn run(&self, early: &[u8]) {
        let Peer {
            id, queue, alive, ..
        } = &*self.peer;
        log::info!("{} is connected to this member", self.peer.label());
        alive.store(true, Ordering::SeqCst);
        // It is up: the way back is worth a dial.
        queue.call();
        let (member, format) = (*id, self.format);
        let event = FromPeers::Understands { member, format };
        if self.common.events.tell(event).is_err() {
            return;
        }
        let mut reader = self.common.reader_of(*id, LETTER_BYTES_MAX, early);
        if let Err(why) = self.read(&mut reader) {
            let label = self.peer.label();
            log::warn!("closing the connection from {label}: {why}");
        }
    }

    /// Until the stream ends; what was wrong with its bytes, if something was.
    fn read(&self, reader: &mut FrameReader) -> Result<(), String> {
        let mut tally = Tally::default();
        loop {
            let letters = cut(reader, &mut tally)?;
            if !letters.is_empty() {
                self.common.counters.received(&self.peer.gauges, &tally);
                tally.clear();
                let from = self.peer.id;
                let event = FromPeers::Letters { from, letters };
                if self.common.events.tell(event).is_err() {
                    return Ok(());
                }
            }
            match reader.fill_in_time(&self.socket, None) {
                Ok(1..) => {}
                Err(error) if is_own_limit(&error) => return Err(error.to_string()),
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }
}

/// Whether a limit of ours has ended the stream, which its sender does not see.
fn is_own_limit(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::OutOfMemory)
}

/// The letters of all frames that have come whole.
fn cut(reader: &mut FrameReader, tally: &mut Tally) -> Result<Vec<Letter>, String> {
    let mut letters = Vec::new();
    while let Some((kind, payload)) = reader.next().map_err(|damage| damage.to_string())? {
        if kind != Kind::Letter {
            return Err(format!("a frame of kind {kind:?} among letters"));
        }
        let letter = Letter::decode(payload).map_err(|error| format!("a letter is {error}"))?;
        tally.add(&letter, HEADER_BYTES + payload.len());
        letters.push(letter);
    }
    Ok(letters)
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let Stream {
            common, peer, turn, ..
        } = self;
        if common.streams.end(peer, *turn) {
            log::info!("the connection from {} has ended", peer.label());
            common.news.unreachable(peer.id);
            // Has its process ended, or only the connection? A dial tells.
            peer.queue.call();
            common.forget_newcomer(peer.id);
        }
    }
}
