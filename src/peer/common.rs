//! The state that all threads of a link share.

use super::counters::{Counters, Gauges};
use super::dial;
use super::frame::{Bounds, Budget, FrameReader, Origin};
use super::handshake::{Handshake, Me, Refusal};
use super::incoming::Streams;
use super::listing::Listing;
use super::outgoing::Outgoing;
use super::priority::Dropped;
use super::queue::Queue;
use super::raft_events::{EventQueue, Events};
use super::resources::Resources;
use super::table::{Known, Table};
use super::vouch::Vouchers;
use crate::dial::Tls;
use crate::raft::NodeId;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the same refusal of the same member is logged.
const LOG_REFUSAL_EVERY: Duration = Duration::from_secs(60);
/// The number of different refusals that are remembered for this purpose.
const LOGGED_REFUSALS_MAX: usize = 64;

/// Total bytes of incoming frames that are longer than a reader's buffer, over all connections. It is enough for one
/// frame of the maximum length, and for a third of that for the others.
const FRAMES_BYTES: usize = 128 << 20;

/// Time limits. The defaults suit an election timeout of one second.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How long a connect may take.
    pub connect: Duration,
    /// How long the answer to the handshake may take.
    pub greet: Duration,
    /// A connection that accepts no byte for this long is closed.
    pub write: Duration,
    /// A connection whose other end acknowledges no byte for this long is closed.
    pub unacknowledged: Duration,
    /// How long a frame may take from its first byte to its last one. Each MiB of the frame adds one second.
    pub frame: Duration,
    /// A snapshot transfer without progress for this long is aborted.
    pub stall: Duration,
    /// The pause after the first failed dial. Each further failure doubles it,
    pub retry_min: Duration,
    /// up to this value.
    pub retry_max: Duration,
    /// The pause after a refusal. The cause of a refusal does not pass by itself.
    pub refused: Duration,
}

impl Timing {
    /// The time limits for a cluster with this election timeout.
    pub fn new(election_timeout: Duration) -> Timing {
        Timing {
            connect: Duration::from_secs(2),
            greet: Duration::from_secs(5),
            write: Duration::from_secs(5).max(5 * election_timeout),
            // This limit is short because TCP retransmits lost segments at ever longer intervals. When a broken network
            // link works again, a new connection is usable sooner than the old one.
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
    pub tls: Tls,
    pub table: Table,
    pub resources: Arc<Resources>,
    pub events: Events,
    pub event_queue: EventQueue,
    pub counters: Arc<Counters>,
    pub streams: Streams,
    pub listing: Listing,
    pub vouchers: Vouchers,
    pub frames: Arc<Budget>,
    pub peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    /// The peer URLs according to the flags. The URLs in the table override them.
    urls: Vec<String>,
    logged_refusals: LoggedRefusals,
    random: RandomState,
    drawn: AtomicU64,
}

/// One other member, as its threads share it.
pub(super) struct Peer {
    pub id: NodeId,
    pub queue: Queue,
    pub gauges: Arc<Gauges>,
    /// Whether the member was connected, in either direction, since it was last reported as gone.
    pub alive: AtomicBool,
    /// The token that this member's connections to it contain (`vouch.rs`).
    pub token: u64,
    known: Mutex<Known>,
}

impl Peer {
    pub fn new(id: NodeId, known: Known, gauges: Arc<Gauges>, token: u64) -> io::Result<Peer> {
        Ok(Peer {
            id,
            queue: Queue::new()?,
            gauges,
            alive: AtomicBool::new(false),
            token,
            known: Mutex::new(known),
        })
    }

    /// The URLs at which the member is dialled.
    pub fn urls(&self) -> Vec<String> {
        self.known().urls.clone()
    }

    /// The member's name in log messages: `n2 (b3a64181bea306fb)`.
    pub fn label(&self) -> String {
        match self.known().name.as_str() {
            "" => format!("{:x}", self.id.0),
            name => format!("{name} ({:x})", self.id.0),
        }
    }

    /// Stores what the table contains now. Returns whether the URLs differ.
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
        tls: Tls,
        table: Table,
        resources: Arc<Resources>,
        events: Events,
    ) -> Common {
        Common {
            me,
            timing,
            tls,
            table,
            resources,
            events,
            event_queue: EventQueue::default(),
            counters: Arc::default(),
            streams: Streams::default(),
            listing: Listing::default(),
            vouchers: Vouchers::default(),
            frames: Budget::new(FRAMES_BYTES),
            peers: Mutex::default(),
            urls,
            logged_refusals: LoggedRefusals::default(),
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    /// A number that nobody can guess and that is not 0.
    fn draw_token(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        self.random.hash_one(drawn).max(1)
    }

    pub fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&id).cloned()
    }

    /// The peer URLs of this member.
    pub fn own_urls(&self) -> Vec<String> {
        self.table.own_urls().unwrap_or_else(|| self.urls.clone())
    }

    /// Starts a link to a member: this member dials it from now on.
    pub fn add(self: &Arc<Common>, id: NodeId, known: Known) -> io::Result<()> {
        let peer = Arc::new(Peer::new(
            id,
            known,
            self.counters.begin(id),
            self.draw_token(),
        )?);
        let out = Outgoing::new(Arc::clone(self), Arc::clone(&peer));
        let name = format!("peer-out-{:x}", id.0);
        self.peers().insert(id, peer);
        let begun = self.resources.critical(&name, move || out.run());
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

    /// Starts a link to a newcomer. `why` names the member or the proof that vouches for it.
    pub fn add_newcomer(self: &Arc<Common>, id: NodeId, urls: &[String], why: &str) {
        let added = self
            .table
            .add_newcomer(id, urls, |id| self.streams.is_open(id));
        if let Some(forgotten) = added.forgotten {
            self.remove(forgotten);
        }
        let Some(known) = added.new else {
            return;
        };
        log::info!(
            "accepting messages from {:x} at {}, which is not in this member's table yet: {why}",
            id.0,
            known.urls.join(",")
        );
        if let Some(peer) = self.peer(id) {
            peer.learn(known);
            return peer.queue.call();
        }
        if let Err(error) = self.add(id, known) {
            log::error!("cannot connect to {:x}: {error}", id.0);
        }
    }

    /// If a member names other URLs than the table, this member dials it at those URLs too. The member must have shown
    /// its incarnation or its proof before.
    pub fn learn_urls(&self, from: NodeId, urls: &[String]) {
        if let Some(known) = self.table.learn_urls(from, urls)
            && let Some(peer) = self.peer(from)
        {
            log::info!(
                "{} reports its peer URLs {}, which are not in this member's table yet: dialling them too",
                peer.label(),
                urls.join(",")
            );
            peer.learn(known);
            peer.queue.call();
        }
    }

    /// Forgets a newcomer whose connection has ended.
    pub fn forget_newcomer(&self, id: NodeId) {
        if self.table.forget(id) {
            self.remove(id);
        }
    }

    /// Whether the member vouches for the connection that begins with this handshake.
    pub fn vouches(&self, handshake: &Handshake) -> bool {
        let (Some(peer), Some(digest)) = (self.peer(handshake.from), self.digest_of(handshake))
        else {
            return false;
        };
        let ask = || dial::ask_digest(self, &peer);
        self.vouchers.vouches(peer.id, &digest, ask)
    }

    /// Whether the member's answer is known, or the member may be asked now.
    pub fn may_vouch(&self, handshake: &Handshake) -> bool {
        let digest = self.digest_of(handshake);
        digest.is_some_and(|digest| self.vouchers.may_ask(handshake.from, &digest))
    }

    fn digest_of(&self, handshake: &Handshake) -> Option<String> {
        let token = handshake.token?;
        Some(self.me.digest(handshake.from, self.me.id, token))
    }

    /// This member's answer when another member asks which connections are its own.
    pub fn own_digest(&self, asker: NodeId) -> Option<String> {
        let peer = self.peer(asker)?;
        Some(self.me.digest(self.me.id, asker, peer.token))
    }

    /// The fields that identify this member in each of its frames.
    pub fn origin(&self) -> Origin {
        self.origin_of(self.me.id)
    }

    pub fn origin_of(&self, sender: NodeId) -> Origin {
        Origin {
            cluster: self.me.cluster,
            sender,
        }
    }

    /// A reader for the frames of `sender`.
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

    /// Reports to raft which messages were not sent.
    pub fn settle(&self, peer: &Peer, dropped: Dropped) {
        peer.gauges.dropped(dropped.count());
        if dropped.others > 0 {
            self.event_queue.unreachable(peer.id);
        }
        self.event_queue.unsent(dropped.unsent);
    }

    /// Logs that a connection in a member's name was closed.
    pub fn log_unvouched(&self, from: NodeId, remote: Option<SocketAddr>) {
        let Some(peer) = self.peer(from) else { return };
        if self.logged_refusals.is_new(Some(from), 0) {
            let label = peer.label();
            let remote = remote.map_or_else(|| "?".to_owned(), |remote| remote.to_string());
            log::warn!("{}", unvouched(&label, &remote));
        }
    }

    /// Logs that `remote` was refused.
    pub fn log_refusal(&self, from: Option<NodeId>, remote: SocketAddr, refusal: &Refusal) {
        if self.logged_refusals.is_new(from, refusal.status()) {
            log::warn!("refused a connection from {remote}: {refusal}");
        }
    }

    /// Reports `peer` as gone if all three hold: it was connected before, no connection from it is open, and no process
    /// listens at its URLs.
    pub fn note_nobody_there(&self, peer: &Peer) {
        if !self.streams.is_open(peer.id) && peer.alive.swap(false, Ordering::SeqCst) {
            self.event_queue.gone(peer.id);
        }
    }
}

/// The log line about a connection from `remote` in the name of the member `label`.
fn unvouched(label: &str, remote: &str) -> String {
    format!(
        "closed a connection in the name of {label} from {remote}: {label}, asked at its peer URL, does not vouch for it"
    )
}

/// The refusals that were logged, and when, so that a sender that tries again and again does not fill the log.
#[derive(Debug, Default)]
struct LoggedRefusals(Mutex<BTreeMap<(Option<NodeId>, u16), Instant>>);

impl LoggedRefusals {
    fn is_new(&self, from: Option<NodeId>, status: u16) -> bool {
        let now = Instant::now();
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, at| now.duration_since(*at) < LOG_REFUSAL_EVERY);
        // Above this limit, all senders count as one unknown sender.
        let from = from.filter(|_| made.len() < LOGGED_REFUSALS_MAX);
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
    use crate::engine::Note;
    use crate::engine::members::Members;
    use crate::raft::{Term, Violation};

    const PAGE: &str = include_str!("../guide/trust.md");

    /// Each line of which the guide describes a part, in the order of the guide.
    fn lines() -> Vec<String> {
        let (me, other) = (NodeId(1), NodeId(2));
        let (theirs, ours) = (8, 9);
        let known = Known {
            name: "n2".to_owned(),
            urls: vec!["http://b:2380".to_owned()],
        };
        let refusals = [
            Refusal::Unknown(other),
            Refusal::Cluster { theirs, ours },
            Refusal::NotMe { meant: other, me },
            Refusal::LostItsData(other, Box::new(known)),
        ];
        let ignored = Note::Violation {
            from: other,
            violation: Violation::TermTooFar {
                claimed: Term(9),
                own: Term(1),
            },
        };
        let mut lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        lines.push(unvouched("n2 (2)", "10.0.0.2:4711"));
        lines.push(ignored.text(&Members::new(9, [])).to_string());
        lines
    }

    /// The page about attackers quotes parts of log lines. `…` stands for ids and names.
    #[test]
    fn the_guide_quotes_the_log_lines() {
        let (_, table) = PAGE.split_once("# Log lines").expect("the section");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let quotes: Vec<&str> = rows
            .filter_map(|row| Some(row.split_once('`')?.0))
            .collect();
        let lines = lines();
        assert_eq!(quotes.len(), lines.len());
        for (quote, line) in quotes.into_iter().zip(&lines) {
            let mut rest = line.as_str();
            for part in quote.split('…') {
                let found = rest.split_once(part);
                let (_, after) = found.unwrap_or_else(|| panic!("{quote}\nis not in\n{line}"));
                rest = after;
            }
        }
    }

    #[test]
    fn the_same_refusal_is_logged_once_a_minute_and_a_crowd_is_one() {
        let logged_refusals = LoggedRefusals::default();
        assert!(logged_refusals.is_new(Some(NodeId(1)), 409));
        assert!(!logged_refusals.is_new(Some(NodeId(1)), 409));
        assert!(
            logged_refusals.is_new(Some(NodeId(1)), 412),
            "another reason"
        );
        assert!(
            logged_refusals.is_new(Some(NodeId(2)), 409),
            "another member"
        );
        let many = (0..1000).filter(|id| logged_refusals.is_new(Some(NodeId(*id)), 403));
        assert!(many.count() <= LOGGED_REFUSALS_MAX);
    }
}
