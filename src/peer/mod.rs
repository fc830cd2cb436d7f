//! What goes between members: letters, and snapshots.
//!
//! # A link
//!
//! ```text
//!   raft, log ──send──► queue of each member ──► peer-out-ID ══► its peer port     (letters)
//!   raft ◄──FromPeers── peer-in-ID ◄══ peer port (a door) ◄══ its peer-out-ID
//!   raft ──send_snapshot──► snap-out-ID ══► its peer port     (a connection of its own)
//!   raft ◄──Received── snap-in-ID ◄══ peer port
//! ```
//!
//! Two members have two connections: each one sends on the one that it has dialled. A connection begins as
//! an HTTP/1.1 Upgrade on the peer port (`hello.rs`), so that the port also answers `/members` and
//! `/version`; after the 101 its socket belongs to a blocking thread and carries frames (`frame.rs`).
//!
//! # Threads
//!
//! | thread | owns | waits for |
//! |---|---|---|
//! | `peer-out-ID` | the connection to one member | its queue's bell, that connection's end, its next dial |
//! | `peer-in-ID` | the connection from one member | bytes; room in raft's channel, and so does the other end |
//! | `snap-out-ID`, `snap-in-ID` | one snapshot, its connection and file | the socket, the disk |
//! | `peer-ask` | the questions to members about somebody whom the table does not name; runs only then | members' answers |
//! | `peer-news` | what there is to tell raft beside letters | its condition variable; room in raft's channel |
//!
//! The raft and the log thread wait for none of these: they put letters into bounded queues (`queue.rs`).
//!
//! # Invariants
//!
//! - Letters of one lane arrive in order or not at all; nothing is sent twice.
//! - A forward is told unsent only if no byte of it was handed to a connection (hazard D16).
//! - A heartbeat waits for about 256 KiB of bulk at most, and for no snapshot.
//! - Whoever comes in is of this cluster and still has its data, and means this member (D12). Somebody whom the
//!   table does not name is heard only if it proves that it knows the log, or if a member lists it (`table.rs`).
//! - This member dials no address that a stranger named.
//! - An open connection gives way only to one that its member vouches for (`vouch.rs`).
//! - A member is called gone only if its machine refused a connection; a timeout is no proof.
//! - Memory is bounded: 8 MiB of bulk for each member, one budget for the long frames of all that come in, one slice.
//!
//! # Reading order
//!
//! `hello.rs`, `frame.rs`, `lanes.rs`, `queue.rs`, `outgoing.rs` (with `dial.rs`), `incoming.rs`, `transfer.rs` and
//! `receive.rs`; beside them `table.rs` (who belongs), `vouch.rs` (whose a connection is), `listing.rs` (whom the members
//! list), `news.rs` (to raft), `crew.rs` (stopping), `counters.rs`.
//!
//! Left out: TLS; a name that takes long to resolve holds up its own member's thread only, but may outlive
//! [`Link::stop`].

mod common;
mod counters;
mod crew;
mod dial;
mod frame;
mod hello;
mod incoming;
mod lanes;
pub mod listing;
mod news;
mod outgoing;
mod queue;
mod receive;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod vouch;

pub use common::Timing;
pub use counters::{Appends, Counters, Flow, PeerStats};

use crate::door::{Handler, Limits, connection_caps, descriptor_limit};
use crate::engine::letter::Letter;
use crate::engine::members::Members;
use crate::raft::{NodeId, Term};
use crate::replica::peers::{FromPeers, Peers};
use crate::wal::{Disk, Snapshots};
use common::{Common, Peer};
use crew::Crew;
use crossbeam_channel::Sender;
use hello::Me;
use incoming::PeerPort;
use news::Events;
use receive::Receiver;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::Table;
use transfer::Transfers;

/// How long [`Link::stop`] waits for its threads.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Who has not said within this who he is, is cut.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// No page of the peer port takes a body worth the name.
const BODY_BYTES: usize = 64 << 10;

/// Handshakes are short.
const HEAD_BYTES: usize = 64 << 10;

/// The limits of a door on the peer port; one worker is enough for it.
pub fn limits() -> Limits {
    Limits {
        head_time: HELLO_TIME,
        idle_time: Some(HELLO_TIME),
        connections: connection_caps(descriptor_limit()).peers,
        reserve: 0,
        head_bytes: HEAD_BYTES,
        body_bytes: BODY_BYTES,
        ..Limits::default()
    }
}

/// What a link is made of.
pub struct Config<D: Disk> {
    /// This member.
    pub id: NodeId,
    /// Drawn when its data directory was made.
    pub incarnation: u64,
    /// As this member knows them now.
    pub members: Members,
    /// Where this member is reached, as its flags say: told to members that do not know it yet.
    pub urls: Vec<String>,
    /// How long things may take.
    pub timing: Timing,
    /// Where snapshots are read from and written to.
    pub snapshots: Snapshots<D>,
    /// How many past events a state keeps for watches…
    pub history_events: usize,
    /// …and how many bytes of them.
    pub history_bytes: usize,
    /// The raft thread's ear.
    pub to_raft: Sender<FromPeers>,
}

/// The connections between this member and the others.
pub struct Link<D: Disk> {
    common: Arc<Common>,
    transfers: Arc<Transfers<D>>,
    receiver: Arc<Receiver<D>>,
}

impl<D: Disk> Link<D> {
    /// Begins to dial the other members. Their calls come in by [`Link::handler`].
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start(config: Config<D>) -> io::Result<Arc<Link<D>>> {
        let me = Me {
            cluster: config.members.cluster,
            id: config.id,
            incarnation: config.incarnation,
        };
        let crew = Crew::new();
        let events = Events::new(config.to_raft, crew.stopped().clone());
        let table = Table::new(me, &config.members);
        let common = Arc::new(Common::new(
            me,
            config.urls,
            config.timing,
            table,
            crew,
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
        link.common
            .crew
            .critical("peer-news", move || common.news.run(&common.events))?;
        for (id, known) in link.common.table.others() {
            link.common.add(id, known)?;
        }
        Ok(link)
    }

    /// What a door on the peer port calls: members' connections, and `pages` for all else.
    pub fn handler(&self, pages: Arc<dyn Handler>) -> Arc<dyn Handler> {
        Arc::new(PeerPort {
            common: Arc::clone(&self.common),
            receiver: Arc::clone(&self.receiver),
            pages,
        })
    }

    /// What has gone to and fro, and who is connected.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.common.counters)
    }

    /// Since when both directions to and from this member are up.
    pub fn connected(&self, id: NodeId) -> Option<Instant> {
        self.common.counters.connected(id)
    }

    /// Ends all connections and threads, within a second; nothing is told to raft any more. Called again,
    /// it does nothing. The door should be stopped first or soon after: it refuses members from here on.
    pub fn stop(&self) {
        let common = &self.common;
        common.news.close();
        common.listing.close();
        for peer in common.peers().values() {
            peer.queue.close();
        }
        common.crew.stop();
        if !common.crew.join(STOP_TIMEOUT) {
            log::warn!("a thread between members still waits for something; it is left behind");
        }
    }

    /// The letters of one receiver.
    fn send_to(&self, to: NodeId, letters: impl Iterator<Item = Letter>) {
        if let Some(peer) = self.common.peer(to) {
            let dropped = peer.queue.push(letters);
            return self.common.settle(&peer, dropped);
        }
        self.common.news.unreachable(to);
        let numbers = letters.filter_map(|letter| letter.question());
        self.common.news.unsent(numbers.collect());
    }
}

impl<D: Disk> Peers for Link<D> {
    fn send(&self, mut letters: Vec<(NodeId, Letter)>) {
        // Stable: the order for each receiver stays.
        letters.sort_by_key(|(to, _)| *to);
        let mut letters = letters.into_iter().peekable();
        while let Some(&(to, _)) = letters.peek() {
            let same = std::iter::from_fn(|| letters.next_if(|(next, _)| *next == to));
            self.send_to(to, same.map(|(_, letter)| letter));
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
                log::error!("no link to the new member {:x}: {error}", id.0);
            }
        }
    }
}

impl<D: Disk> Drop for Link<D> {
    fn drop(&mut self) {
        self.stop();
    }
}
