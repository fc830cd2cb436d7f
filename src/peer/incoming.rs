//! The receiving side: which connections are accepted, and the thread of each stream of peer messages.

use super::common::{Common, Peer};
use super::connection::Connection;
use super::counters::BatchCounts;
use super::frame::{FrameReader, HEADER_BYTES, Kind, MESSAGE_BYTES_MAX};
use super::handshake::{Handshake, LINK_PATH, Refusal, SNAPSHOT_PATH, STREAM_PATH};
use super::receive::Receiver;
use super::table::Admitted;
use crate::engine::peer_message::PeerMessage;
use crate::http1::{Answer, Handler, Reply, Request, Upgraded};
use crate::raft::NodeId;
use crate::replica::peers::FromPeers;
use crate::wal::Disk;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The handler of the peer port's HTTP server: it takes members' upgrades, and serves pages to everybody.
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
            Ok((handshake, admitted)) => self.welcome(handshake, &admitted, is_snapshot, reply),
            Err((from, refusal)) => self.refuse(request, from, &refusal, reply),
        }
    }

    /// A crowd of strangers must not keep a member out. A handshake is served at once, so it needs a connection of the
    /// reserve only for a moment.
    fn is_vital(&self, request: &Request<'_>) -> bool {
        let paths = [STREAM_PATH, SNAPSHOT_PATH, LINK_PATH];
        paths.iter().any(|path| request.path() == path.as_bytes())
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
        self.common.log_refusal(from, request.remote(), refusal);
        reply.send(refusal.answer(&self.common.me, request));
    }

    /// Answers another member that asks which connections are this member's own.
    fn answer_link(&self, request: &Request<'_>, reply: Reply<'_>) {
        match self.common.me.sender(request) {
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
    ) -> Result<(Handshake, Admitted), (Option<NodeId>, Refusal)> {
        let common = &self.common;
        let handshake = common.me.read(request).map_err(|refusal| (None, refusal))?;
        let refuse = |refusal| (Some(handshake.from), refusal);
        let admitted = common.table.admits(&handshake).map_err(|refusal| {
            if matches!(refusal, Refusal::Unknown(_)) {
                common.listing.want(common);
            }
            refuse(refusal)
        })?;
        if common.resources.is_stopping() {
            return Err(refuse(Refusal::Stopping));
        }
        let is_beside = match (is_snapshot, handshake.term) {
            (false, _) => common.streams.is_open(handshake.from),
            (true, None) => return Err(refuse(Refusal::Malformed("a snapshot has no term"))),
            (true, Some(term)) if !self.receiver.has_room(handshake.from, term) => {
                return Err(refuse(Refusal::Busy));
            }
            (true, Some(_)) => self.receiver.is_taken(),
        };
        if (is_beside || !admitted.is_shown) && !common.may_vouch(&handshake) {
            return Err(refuse(Refusal::Unvouched(handshake.from)));
        }
        Ok((handshake, admitted))
    }

    fn welcome(
        &self,
        handshake: Handshake,
        admitted: &Admitted,
        is_snapshot: bool,
        reply: Reply<'_>,
    ) {
        let (common, receiver) = (Arc::clone(&self.common), Arc::clone(&self.receiver));
        if admitted.is_newcomer && admitted.is_shown {
            let why = "it has proved that it knows the cluster's log";
            common.add_newcomer(handshake.from, &handshake.urls, why);
        } else if admitted.is_shown {
            common.learn_urls(handshake.from, &handshake.urls);
        }
        let is_shown = admitted.is_shown;
        let begin = move |Upgraded { stream, early }| {
            let kind = if is_snapshot { "snap" } else { "peer" };
            let name = format!("{kind}-in-{:x}", handshake.from.0);
            // The number is taken here, where connections arrive one after the other. Their threads may start in any
            // order.
            let turn = common.streams.next_turn();
            let resources = Arc::clone(&common.resources);
            let begun = resources.connection(&name, move || {
                // None only if the whole link has just ended, or if there is no descriptor left.
                let Some(connection) = Connection::accepted(&common.resources, stream) else {
                    return;
                };
                if !is_shown && !common.vouches(&handshake) {
                    return common.log_unvouched(handshake.from, connection.remote());
                }
                match is_snapshot {
                    true => receiver.run(&handshake, connection, &early),
                    false => receive(&common, &handshake, turn, connection, &early),
                }
            });
            if let Err(error) = begun {
                log::warn!("cannot start the thread {name}: {error}");
            }
        };
        let welcome = self.common.me.welcome(is_shown);
        reply.upgrade(welcome, Box::new(begin));
    }
}

/// The open streams, at most one for each member.
///
/// A member that has lost its connection dials again before this end has noticed the loss. But another process may also
/// dial in its name. So an open stream is replaced only by one that the member vouches for (`vouch.rs`). If the member
/// does not vouch for it, the older stream stays until it ends, or until the keep-alive of its socket detects that its
/// other end is silent.
#[derive(Default)]
pub(super) struct Streams(Mutex<Open>);

#[derive(Default)]
struct Open {
    turn: u64,
    streams: BTreeMap<NodeId, (u64, Arc<TcpStream>)>,
}

/// Whether a new stream could be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Yes,
    /// An older stream is open, so the member must be asked first.
    Occupied,
}

impl Streams {
    pub fn is_open(&self, from: NodeId) -> bool {
        self.open().streams.contains_key(&from)
    }

    /// Ends the stream of a removed member.
    pub fn shut(&self, from: NodeId) {
        if let Some((_, socket)) = self.open().streams.get(&from) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The number of a new stream. Of two streams, the higher number is the newer one.
    fn next_turn(&self) -> u64 {
        let mut open = self.open();
        open.turn += 1;
        open.turn
    }

    /// Registers a stream. It replaces an older stream only if the member vouches for the new one.
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

    /// Unregisters a stream. Returns whether it was still the newest one.
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

/// The thread `peer-in-ID`: owns its socket, and waits for bytes and for space in raft's channel.
fn receive(
    common: &Arc<Common>,
    handshake: &Handshake,
    turn: u64,
    connection: Connection,
    early: &[u8],
) {
    // None only if the link to the member has just ended.
    let Some(peer) = common.peer(handshake.from) else {
        return;
    };
    if let Err(error) = common.tune(connection.socket(), false) {
        return log::warn!("lost the connection from {}: {error}", peer.label());
    }
    let begin = |vouched| {
        common
            .streams
            .begin(&peer, turn, connection.handle(), vouched)
    };
    // If the member does not vouch, the second attempt still succeeds if the older stream has ended meanwhile.
    if begin(false) == Begun::Occupied && begin(common.vouches(handshake)) == Begun::Occupied {
        return common.log_unvouched(peer.id, connection.remote());
    }
    let stream = Stream {
        format: handshake.format,
        common,
        peer,
        turn,
        connection,
    };
    // The table may have changed since the handshake was read. From `begin` on, a change of the table shuts the socket
    // down.
    if common.table.admits(handshake).is_ok() {
        stream.run(early);
    }
}

/// One stream of peer messages. Its drop reports the end of the stream, for every cause.
struct Stream<'a> {
    /// The newest format of entries that the member understands.
    format: u16,
    common: &'a Common,
    peer: Arc<Peer>,
    turn: u64,
    connection: Connection,
}

impl Stream<'_> {
    fn run(mut self, early: &[u8]) {
        let Peer {
            id, queue, alive, ..
        } = &*self.peer;
        log::info!("{} is connected to this member", self.peer.label());
        alive.store(true, Ordering::SeqCst);
        // The member runs, so this member dials it now.
        queue.call();
        let (member, format) = (*id, self.format);
        let event = FromPeers::Understands { member, format };
        if self.common.events.send(event).is_err() {
            return;
        }
        let mut reader = self.common.reader_of(*id, MESSAGE_BYTES_MAX, early);
        if let Err(why) = self.read(&mut reader) {
            let label = self.peer.label();
            log::warn!("closed the connection from {label}: {why}");
        }
    }

    /// Reads until the stream ends. Returns an error if the bytes were invalid or a limit was exceeded.
    fn read(&mut self, reader: &mut FrameReader) -> Result<(), String> {
        let mut counts = BatchCounts::default();
        loop {
            let messages = cut(reader, &mut counts)?;
            if !messages.is_empty() {
                self.common.counters.received(&self.peer.gauges, &counts);
                counts.clear();
                let from = self.peer.id;
                let event = FromPeers::Messages { from, messages };
                if self.common.events.send(event).is_err() {
                    return Ok(());
                }
            }
            match reader.fill_in_time(&mut self.connection, None) {
                Ok(1..) => {}
                Err(error) if is_own_limit(&error) => return Err(error.to_string()),
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }
}

/// Whether one of our limits has ended the stream. The sender does not see this cause.
fn is_own_limit(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::OutOfMemory)
}

/// The messages of all frames that have arrived completely.
fn cut(reader: &mut FrameReader, counts: &mut BatchCounts) -> Result<Vec<PeerMessage>, String> {
    let mut messages = Vec::new();
    while let Some((kind, payload)) = reader.next().map_err(|damage| damage.to_string())? {
        if kind != Kind::PeerMessage {
            return Err(format!("a frame of kind {kind:?} in a stream of messages"));
        }
        let peer_message =
            PeerMessage::decode(payload).map_err(|error| format!("a peer message is {error}"))?;
        counts.add(&peer_message, HEADER_BYTES + payload.len());
        messages.push(peer_message);
    }
    Ok(messages)
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let Stream {
            common, peer, turn, ..
        } = self;
        if common.streams.end(peer, *turn) {
            log::info!("the connection from {} has ended", peer.label());
            common.event_queue.unreachable(peer.id);
            // A dial shows whether the member's process has ended, or only the connection.
            peer.queue.call();
            common.forget_newcomer(peer.id);
        }
    }
}
