//! What all threads of the room share.

use super::counters::{Counters, Gauges};
use super::crew::Crew;
use super::dial;
use super::frame::{Bounds, Budget, FrameReader, Origin};
use super::hello::{Me, Refusal};
use super::incoming::Streams;
use super::lanes::Dropped;
use super::news::{Events, News};
use super::outgoing::Outgoing;
use super::queue::Queue;
use super::table::{Known, Table};
use crate::raft::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the same refusal of the same member is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Different ones remembered for that.
const COMPLAINTS_MAX: usize = 64;

/// Bytes of incoming frames that are longer than a reader's buffer, of all connections together: one frame as long as
/// there may be, and a third of that for the others.
const FRAMES_BYTES: usize = 128 << 20;

/// How long things may take. The defaults suit an election timeout of a second.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Until a connect is answered.
    pub connect: Duration,
    /// Until the hello is.
    pub greet: Duration,
    /// A connection that takes no byte for so long is broken.
    pub write: Duration,
    /// So is one whose other end acknowledges nothing for so long.
    pub unacknowledged: Duration,
    /// A frame that has begun is complete after this long, and a second more for each MiB of it.
    pub frame: Duration,
    /// A snapshot transfer without progress is given up.
    pub stall: Duration,
    /// The pause after the first failed dial; it doubles
    pub retry_min: Duration,
    /// up to this.
    pub retry_max: Duration,
    /// The pause after a refusal: what is wrong then does not pass by itself.
    pub refused: Duration,
}

impl Timing {
    /// For a cluster with this election timeout.
    pub fn new(election_timeout: Duration) -> Timing {
        Timing {
            connect: Duration::from_secs(2),
            greet: Duration::from_secs(5),
            write: Duration::from_secs(5).max(5 * election_timeout),
            // Short, since a connection that has lost segments falls silent for ever longer spans: after a
            // cut link is healed a new one is there sooner.
            unacknowledged: Duration::from_secs(3).max(3 * election_timeout),
            frame: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            retry_min: Duration::from_millis(10),
            retry_max: Duration::from_secs(1),
            refused: Duration::from_secs(1),
        }
    }
}

pub(super) struct Common {
    pub me: Me,
    pub timing: Timing,
    pub table: Table,
    pub crew: Arc<Crew>,
    pub events: Events,
    pub news: News,
    pub counters: Arc<Counters>,
    pub streams: Streams,
    pub frames: Arc<Budget>,
    pub peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    /// As the flags say; the table may know better.
    urls: Vec<String>,
    complaints: Complaints,
}

/// One other member, as its threads share it.
pub(super) struct Peer {
    pub id: NodeId,
    pub queue: Queue,
    pub gauges: Arc<Gauges>,
    /// It was connected, in either direction, since it was called gone last.
    pub alive: AtomicBool,
    known: Mutex<Known>,
}

impl Peer {
    pub fn new(id: NodeId, known: Known, gauges: Arc<Gauges>) -> io::Result<Peer> {
        Ok(Peer {
            id,
            queue: Queue::new()?,
            gauges,
            alive: AtomicBool::new(false),
            known: Mutex::new(known),
        })
    }

    pub fn urls(&self) -> Vec<String> {
        self.known().urls.clone()
    }

    /// `n2 (b3a64181bea306fb)`, as logs name it.
    pub fn label(&self) -> String {
        match self.known().name.as_str() {
            "" => format!("{:x}", self.id.0),
            name => format!("{name} ({:x})", self.id.0),
        }
    }

    /// Takes over what the table says now; whether it has other URLs.
    pub fn learn(&self, known: Known) -> bool {
        let before = std::mem::replace(&mut *self.known(), known);
        before.urls != self.known().urls
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    pub fn new(
        me: Me,
        urls: Vec<String>,
        timing: Timing,
        table: Table,
        crew: Arc<Crew>,
        events: Events,
    ) -> Common {
        Common {
            me,
            timing,
            table,
            crew,
            events,
            news: News::default(),
            counters: Arc::default(),
            streams: Streams::default(),
            frames: Budget::new(FRAMES_BYTES),
            peers: Mutex::default(),
            urls,
            complaints: Complaints::default(),
        }
    }

    pub fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&id).cloned()
    }

    /// Where this member is reached.
    pub fn own_urls(&self) -> Vec<String> {
        self.table.own_urls().unwrap_or_else(|| self.urls.clone())
    }

    /// Begins a link to a member: it is dialled from now on.
    pub fn add(self: &Arc<Common>, id: NodeId, known: Known) -> io::Result<()> {
        let peer = Arc::new(Peer::new(id, known, self.counters.begin(id))?);
        let out = Outgoing::new(Arc::clone(self), Arc::clone(&peer));
        let name = format!("peer-out-{:x}", id.0);
        self.peers().insert(id, peer);
        let begun = self.crew.critical(&name, move || out.run());
        begun.inspect_err(|_| self.remove(id))
    }

    /// Ends the link to a member.
    pub fn remove(&self, id: NodeId) {
        let removed = self.peers().remove(&id);
        if let Some(peer) = removed {
            self.settle(&peer, peer.queue.close());
        }
        self.streams.shut(id);
        self.counters.end(id);
    }

    /// Links a member of this cluster that the table does not have yet.
    pub fn invite(self: &Arc<Common>, from: NodeId, urls: &[String]) {
        let Some(known) = self.table.invite(from, urls) else {
            return;
        };
        log::info!(
            "{:x} at {} is of this cluster, and not in the members' table here yet",
            from.0,
            known.urls.join(",")
        );
        if let Some(peer) = self.peer(from) {
            peer.learn(known);
            return peer.queue.call();
        }
        if let Err(error) = self.add(from, known) {
            log::error!("no link to {:x}: {error}", from.0);
        }
    }

    /// Dials a member at the URLs that it names as well, where the table has others.
    pub fn hear(&self, from: NodeId, urls: &[String]) {
        if let Some(known) = self.table.hear(from, urls)
            && let Some(peer) = self.peer(from)
        {
            log::info!(
                "{} says it is reached at {}, which is not in the members' table here yet",
                peer.label(),
                urls.join(",")
            );
            peer.learn(known);
            peer.queue.call();
        }
    }

    /// How frames of this member begin.
    pub fn origin(&self) -> Origin {
        self.origin_of(self.me.id)
    }

    pub fn origin_of(&self, sender: NodeId) -> Origin {
        Origin {
            cluster: self.me.cluster,
            sender,
        }
    }

    /// A reader of what `sender` sends.
    pub fn reader_of(&self, sender: NodeId, payload_max: usize, early: &[u8]) -> FrameReader {
        let bounds = Bounds {
            payload_max,
            time: self.timing.frame,
            budget: Arc::clone(&self.frames),
        };
        FrameReader::new(self.origin_of(sender), bounds, early)
    }

    /// Sets the options of a connection, on either end.
    pub fn tune(&self, socket: &TcpStream, is_snapshot: bool) -> io::Result<()> {
        let Timing {
            write,
            unacknowledged,
            stall,
            ..
        } = self.timing;
        match is_snapshot {
            true => dial::tune(socket, stall, stall),
            false => dial::tune(socket, write, unacknowledged),
        }
    }

    /// Tells raft what did not get through.
    pub fn settle(&self, peer: &Peer, dropped: Dropped) {
        peer.gauges.dropped(dropped.count());
        if dropped.others > 0 {
            self.news.unreachable(peer.id);
        }
        self.news.unsent(dropped.unsent);
    }

    /// Logs that `remote` was refused.
    pub fn complain(&self, from: Option<NodeId>, remote: SocketAddr, refusal: &Refusal) {
        if self.complaints.is_new(from, refusal.status()) {
            log::warn!("refused a connection from {remote}: {refusal}");
        }
    }

    /// Whether `peer` is gone for all we know: it was there, nothing is open from it, nobody listens.
    pub fn note_nobody_there(&self, peer: &Peer) {
        if !self.streams.is_open(peer.id) && peer.alive.swap(false, Ordering::SeqCst) {
            self.news.gone(peer.id);
        }
    }
}

/// What was complained about and when, so that one who tries again and again does not fill the log.
#[derive(Debug, Default)]
struct Complaints(Mutex<BTreeMap<(Option<NodeId>, u16), Instant>>);

impl Complaints {
    fn is_new(&self, from: Option<NodeId>, status: u16) -> bool {
        let now = Instant::now();
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, at| now.duration_since(*at) < COMPLAIN_EVERY);
        // A crowd of strangers is one stranger.
        let from = from.filter(|_| made.len() < COMPLAINTS_MAX);
        let is_new = !made.contains_key(&(from, status));
        if is_new {
            made.insert((from, status), now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_made_once_a_minute_and_a_crowd_is_one() {
        let complaints = Complaints::default();
        assert!(complaints.is_new(Some(NodeId(1)), 409));
        assert!(!complaints.is_new(Some(NodeId(1)), 409));
        assert!(complaints.is_new(Some(NodeId(1)), 412), "another reason");
        assert!(complaints.is_new(Some(NodeId(2)), 409), "another member");
        let many = (0..1000).filter(|id| complaints.is_new(Some(NodeId(*id)), 403));
        assert!(many.count() <= COMPLAINTS_MAX);
    }
}
