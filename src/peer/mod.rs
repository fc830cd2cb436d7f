//! Connections between members: they carry peer messages (`PeerMessage` in the code) and snapshots.
//!
//! # A link
//!
//! ```text
//!   raft, log ──send──► queue of each member ──► peer-out-ID ══► its peer port     (peer messages)
//!   raft ◄──FromPeers── peer-in-ID ◄══ peer port (an HTTP server) ◄══ its peer-out-ID
//!   raft ──send_snapshot──► snap-out-ID ══► its peer port     (a connection of its own)
//!   raft ◄──Received── snap-in-ID ◄══ peer port
//! ```
//!
//! Two members have two connections. Each member sends on the connection that it dialled. A connection begins as an
//! HTTP/1.1 Upgrade on the peer port (`handshake.rs`), so the same port can also answer `/members` and `/version`. After
//! the 101, a blocking thread owns the socket, and the socket carries frames (`frame.rs`).
//!
//! If the URL of a member begins with `https`, all of this is inside TLS (`connection.rs`). The HTTP server makes the
//! handshake of an incoming connection, and then hands over the socket with the state of TLS. A process without the
//! certificate that the flags ask for cannot send a request, so none of its bytes reaches this module or raft.
//!
//! # Threads
//!
//! | thread | owns | waits for |
//! |---|---|---|
//! | `peer-out-ID` | the connection to one member | a wake-up by its queue, the end of that connection, its next dial |
//! | `peer-in-ID` | the connection from one member | bytes, and space in raft's channel (meanwhile the sender waits too) |
//! | `snap-out-ID`, `snap-in-ID` | one snapshot, its connection and file | the socket, the disk |
//! | `peer-ask` | the requests that ask members about an id that the table does not contain; runs only then | members' answers |
//! | `peer-events` | events for the raft thread that are not peer messages | its condition variable, and space in raft's channel |
//!
//! The raft thread and the WAL thread never wait for these threads. They put peer messages into bounded queues
//! (`queue.rs`).
//!
//! # Invariants
//!
//! - Peer messages of one queue arrive in order or not at all. A message is sent at most once.
//! - A forward is reported as unsent only if none of its bytes was handed to a connection (hazard D16).
//! - A heartbeat waits for at most about 256 KiB of bulk, and never for a snapshot.
//! - The sender of an accepted connection is a member of this cluster, still has its data, and means this member (D12).
//!   If the table does not contain the sender, it is accepted only if it proves that it knows the log, or if a member
//!   lists it (`table.rs`).
//! - This member dials no address that only a process outside the cluster has named.
//! - An open connection is replaced only by a connection that its member vouches for (`vouch.rs`).
//! - A member is reported as gone only if its machine refused a connection. A timeout is no proof.
//! - Memory is bounded: 8 MiB of bulk for each member, one budget for the long frames of all incoming connections, and
//!   one slice of each snapshot.
//!
//! # Reading order
//!
//! `handshake.rs`, `frame.rs`, `priority.rs`, `queue.rs`, `outgoing.rs` (with `dial.rs` and `reach.rs`), `incoming.rs`, `transfer.rs` and
//! `receive.rs`. The other files are `table.rs` (which ids are members), `vouch.rs` (whether a connection is its
//! member's own), `listing.rs` (the members that other members list), `raft_events.rs` (events for the raft thread),
//! `resources.rs` (stopping) and `counters.rs`.
//!
//! # Left out
//!
//! Resolving a slow name blocks only the thread of its own member, but that thread may still
//! run after [`Link::stop`] has returned.

mod common;
mod connection;
mod counters;
mod dial;
mod frame;
mod handshake;
mod incoming;
pub mod listing;
mod outgoing;
mod priority;
mod queue;
mod raft_events;
mod reach;
mod receive;
mod resources;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod vouch;

pub use common::Timing;
pub use counters::{Appends, Counters, Flow, PeerStats};

use crate::dial::Tls;
use crate::engine::members::Members;
use crate::engine::peer_message::PeerMessage;
use crate::http1::{Handler, Limits, connection_caps, descriptor_limit};
use crate::raft::{NodeId, Term};
use crate::replica::peers::{FromPeers, Peers};
use crate::wal::{Disk, Snapshots};
use common::{Common, Peer};
use crossbeam_channel::Sender;
use handshake::Me;
use incoming::PeerPort;
use raft_events::Events;
use receive::Receiver;
use resources::Resources;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Table;
use transfer::Transfers;

/// How long [`Link::stop`] waits for its threads.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that send no handshake within this time are closed, and those that do not read their response.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// How often failed TLS handshakes of the same machine are logged: it may try again and again.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// Limit for request bodies. No page of the peer port needs a large one.
const BODY_BYTES: usize = 64 << 10;

/// Limit for request heads. Handshakes are short.
const HEAD_BYTES: usize = 64 << 10;

/// The limits of an HTTP server on the peer port. One worker is enough for it.
pub fn limits() -> Limits {
    Limits {
        handshake_time: HANDSHAKE_TIME,
        failure_pause: FAILURE_PAUSE,
        head_time: HANDSHAKE_TIME,
        idle_time: Some(HANDSHAKE_TIME),
        write_time: HANDSHAKE_TIME,
        connections: connection_caps(descriptor_limit()).peers,
        // Members come from other machines.
        reserve_is_local: false,
        head_bytes: HEAD_BYTES,
        body_bytes: BODY_BYTES,
        ..Limits::default()
    }
}

/// Everything that a link needs.
pub struct Config<D: Disk> {
    /// The id of this member.
    pub id: NodeId,
    /// A random number, drawn when the data directory was created.
    pub incarnation: u64,
    /// The members as this member knows them now.
    pub members: Members,
    /// The peer URLs of this member according to its flags. It sends them to members whose table does not contain it
    /// yet.
    pub urls: Vec<String>,
    /// Time limits.
    pub timing: Timing,
    /// How connections to members with `https` URLs are encrypted.
    pub tls: Tls,
    /// The directory that snapshots are read from and written to.
    pub snapshots: Snapshots<D>,
    /// How many past events a state keeps for watchers.
    pub history_events: usize,
    /// How many bytes of past events a state keeps for watchers.
    pub history_bytes: usize,
    /// Channel to the raft thread.
    pub to_raft: Sender<FromPeers>,
}

/// The connections between this member and the others.
pub struct Link<D: Disk> {
    common: Arc<Common>,
    transfers: Arc<Transfers<D>>,
    receiver: Arc<Receiver<D>>,
}

impl<D: Disk> Link<D> {
    /// Starts to dial the other members. Their connections arrive through [`Link::handler`].
    ///
    /// # Errors
    /// Fails if the system has no thread or descriptor left.
    pub fn start(config: Config<D>) -> io::Result<Arc<Link<D>>> {
        let me = Me {
            cluster: config.members.cluster,
            id: config.id,
            incarnation: config.incarnation,
        };
        let resources = Resources::new();
        let events = Events::new(config.to_raft, resources.stopped().clone());
        let table = Table::new(me, &config.members);
        let common = Arc::new(Common::new(
            me,
            config.urls,
            config.timing,
            config.tls,
            table,
            resources,
            events,
        ));
        let snapshots = config.snapshots;
        let link = Arc::new(Link {
            transfers: Transfers::new(Arc::clone(&common), snapshots.clone()),
            receiver: Receiver::new(
                Arc::clone(&common),
                snapshots,
                config.history_events,
                config.history_bytes,
            ),
            common,
        });
        let common = Arc::clone(&link.common);
        link.common.resources.critical("peer-events", move || {
            common.event_queue.run(&common.events)
        })?;
        for (id, known) in link.common.table.others() {
            link.common.add(id, known)?;
        }
        Ok(link)
    }

    /// The handler for an HTTP server on the peer port. It takes members' connections and passes all other requests to
    /// `pages`.
    pub fn handler(&self, pages: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(PeerPort {
            common: Arc::clone(&self.common),
            receiver: Arc::clone(&self.receiver),
            pages,
        })
    }

    /// The counters of messages sent and received, and of open connections.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.common.counters)
    }

    /// The time since which the connections in both directions, to and from this member, are open.
    pub fn connected(&self, id: NodeId) -> Option<Instant> {
        self.common.counters.connected(id)
    }

    /// Ends all connections and threads within a second. After that, raft receives no more events. A second call does
    /// nothing. The HTTP server should be stopped before this call or soon after it, because from here on it refuses
    /// members.
    pub fn stop(&self) {
        let common = &self.common;
        common.event_queue.close();
        common.listing.close();
        for peer in common.peers().values() {
            peer.queue.close();
        }
        common.resources.stop();
        if !common.resources.join(STOP_TIMEOUT) {
            log::warn!(
                "a peer connection's thread has not ended within {STOP_TIMEOUT:?}: stopping without it"
            );
        }
    }

    /// Queues the messages for one receiver.
    fn send_to(&self, to: NodeId, messages: impl Iterator<Item = PeerMessage>) {
        if let Some(peer) = self.common.peer(to) {
            let dropped = peer.queue.push(messages);
            return self.common.settle(&peer, dropped);
        }
        self.common.event_queue.unreachable(to);
        let numbers = messages.filter_map(|peer_message| peer_message.question());
        self.common.event_queue.unsent(numbers.collect());
    }
}

impl<D: Disk> Peers for Link<D> {
    fn send(&self, mut messages: Vec<(NodeId, PeerMessage)>) {
        // The sort is stable, so the order for each receiver stays.
        messages.sort_by_key(|(to, _)| *to);
        let mut messages = messages.into_iter().peekable();
        while let Some(&(to, _)) = messages.peek() {
            let same = std::iter::from_fn(|| messages.next_if(|(next, _)| *next == to));
            self.send_to(to, same.map(|(_, peer_message)| peer_message));
        }
    }

    fn send_snapshot(&self, to: NodeId, term: Term) {
        self.transfers.begin(to, term);
    }

    fn cut(&self, from: NodeId) {
        self.common.streams.shut(from);
    }

    fn set_members(&self, members: &Members) {
        let common = &self.common;
        common.table.update(members);
        let mut others = common.table.others();
        let before: Vec<Arc<Peer>> = common.peers().values().cloned().collect();
        for peer in before {
            match others.remove(&peer.id) {
                None => common.remove(peer.id),
                Some(known) => {
                    if peer.learn(known) {
                        peer.queue.call();
                    }
                }
            }
        }
        for (id, known) in others {
            if let Err(error) = common.add(id, known) {
                log::error!("cannot connect to the new member {:x}: {error}", id.0);
            }
        }
    }
}

impl<D: Disk> Drop for Link<D> {
    fn drop(&mut self) {
        self.stop();
    }
}
