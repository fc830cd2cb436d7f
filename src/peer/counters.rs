//! Counters of the traffic between members, for statistics and for the check of member changes.

use crate::engine::peer_message::PeerMessage;
use crate::raft::{Body, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rates are computed over at most this many append requests.
const SAMPLES_MAX: usize = 200;
/// A rate is zero if its last request is older than this.
const FRESH: Duration = Duration::from_secs(1);

/// Traffic in one direction of one member, as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Peer messages of every kind.
    pub messages: u64,
    /// The messages among them that are raft's appends and heartbeats.
    pub appends: u64,
    /// Bytes, including the frame headers.
    pub bytes: u64,
    /// When the open connection in this direction was established. None: there is no connection.
    pub since: Option<Instant>,
}

/// Traffic of one member, as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Traffic to the member.
    pub sent: Flow,
    /// Traffic from the member.
    pub received: Flow,
    /// Peer messages to the member that were dropped because the queue was full or there was no connection.
    pub dropped: u64,
    /// Snapshots that were sent to the member and that it installed.
    pub snapshots: u64,
    /// Snapshots that could not be sent to the member, or that it did not use.
    pub snapshot_failures: u64,
}

/// Append requests (raft's appends and heartbeats) in one direction, of all members together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Appends {
    /// Number of requests since the start.
    pub count: u64,
    /// Requests per second over the last 200 requests; 0 if the last one is older than a second.
    pub rate: f64,
    /// Bytes per second, computed in the same way.
    pub bandwidth: f64,
}

/// The counters of a link. They stay valid as long as a reader holds them.
#[derive(Default)]
pub struct Counters {
    members: Mutex<BTreeMap<NodeId, Arc<Gauges>>>,
    sent: Samples,
    received: Samples,
}

impl Counters {
    /// The traffic to and from this member. None: there is no link to it.
    pub fn member(&self, id: NodeId) -> Option<PeerStats> {
        self.members().get(&id).map(|gauges| gauges.read())
    }

    /// All members with a link, by id.
    pub fn all(&self) -> Vec<(NodeId, PeerStats)> {
        let members = self.members();
        let each = members.iter().map(|(id, gauges)| (*id, gauges.read()));
        each.collect()
    }

    /// The time since which the connections in both directions, to and from this member, are open.
    pub fn connected(&self, id: NodeId) -> Option<Instant> {
        let PeerStats { sent, received, .. } = self.member(id)?;
        Some(sent.since?.max(received.since?))
    }

    /// Append requests sent.
    pub fn appends_sent(&self) -> Appends {
        self.sent.read(Instant::now())
    }

    /// Append requests received.
    pub fn appends_received(&self) -> Appends {
        self.received.read(Instant::now())
    }

    /// The gauges of a member. They are created if the member is new.
    pub(super) fn begin(&self, id: NodeId) -> Arc<Gauges> {
        Arc::clone(self.members().entry(id).or_default())
    }

    pub(super) fn end(&self, id: NodeId) {
        self.members().remove(&id);
    }

    pub(super) fn sent(&self, gauges: &Gauges, counts: &BatchCounts) {
        gauges.sent.add(counts);
        self.sent.add(counts);
    }

    pub(super) fn received(&self, gauges: &Gauges, counts: &BatchCounts) {
        gauges.received.add(counts);
        self.received.add(counts);
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Gauges>>> {
        lock(&self.members)
    }
}

/// What one batch adds to the counters.
#[derive(Debug, Default)]
pub(super) struct BatchCounts {
    messages: u64,
    bytes: u64,
    /// The sizes of append requests.
    appends: Vec<u32>,
}

impl BatchCounts {
    pub fn add(&mut self, peer_message: &PeerMessage, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if let PeerMessage::Raft { message, .. } = peer_message
            && matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. })
        {
            self.appends.push(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    pub fn clear(&mut self) {
        (self.messages, self.bytes) = (0, 0);
        self.appends.clear();
    }
}

/// The numbers of one member.
#[derive(Default)]
pub(super) struct Gauges {
    sent: Direction,
    received: Direction,
    dropped: AtomicU64,
    snapshots: AtomicU64,
    snapshot_failures: AtomicU64,
}

impl Gauges {
    pub fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a snapshot transfer that has ended.
    pub fn snapshot(&self, installed: bool) {
        let counter = match installed {
            true => &self.snapshots,
            false => &self.snapshot_failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn set_sending(&self, since: Option<Instant>) {
        *lock(&self.sent.since) = since;
    }

    pub fn set_receiving(&self, since: Option<Instant>) {
        *lock(&self.received.since) = since;
    }

    fn read(&self) -> PeerStats {
        PeerStats {
            sent: self.sent.read(),
            received: self.received.read(),
            dropped: self.dropped.load(Ordering::Relaxed),
            snapshots: self.snapshots.load(Ordering::Relaxed),
            snapshot_failures: self.snapshot_failures.load(Ordering::Relaxed),
        }
    }
}

#[derive(Default)]
struct Direction {
    messages: AtomicU64,
    appends: AtomicU64,
    bytes: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl Direction {
    fn add(&self, counts: &BatchCounts) {
        self.messages.fetch_add(counts.messages, Ordering::Relaxed);
        self.bytes.fetch_add(counts.bytes, Ordering::Relaxed);
        let appends = counts.appends.len() as u64;
        self.appends.fetch_add(appends, Ordering::Relaxed);
    }

    fn read(&self) -> Flow {
        Flow {
            messages: self.messages.load(Ordering::Relaxed),
            appends: self.appends.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            since: *lock(&self.since),
        }
    }
}

/// The last append requests: time and size in bytes.
#[derive(Default)]
struct Samples(Mutex<Window>);

#[derive(Default)]
struct Window {
    count: u64,
    last: VecDeque<(Instant, u32)>,
}

impl Samples {
    /// Reads the clock once and takes the lock once for each batch.
    fn add(&self, counts: &BatchCounts) {
        if counts.appends.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut window = lock(&self.0);
        window.count += counts.appends.len() as u64;
        let skipped = counts.appends.len().saturating_sub(SAMPLES_MAX);
        for &bytes in &counts.appends[skipped..] {
            if window.last.len() == SAMPLES_MAX {
                window.last.pop_front();
            }
            window.last.push_back((now, bytes));
        }
    }

    fn read(&self, now: Instant) -> Appends {
        let window = lock(&self.0);
        let mut appends = Appends {
            count: window.count,
            ..Appends::default()
        };
        let (Some((first, _)), Some((last, _))) = (window.last.front(), window.last.back()) else {
            return appends;
        };
        let span = last.duration_since(*first).as_secs_f64();
        if now.saturating_duration_since(*last) <= FRESH && span > 0.0 {
            let bytes: f64 = window.last.iter().map(|(_, bytes)| f64::from(*bytes)).sum();
            appends.rate = window.last.len() as f64 / span;
            appends.bandwidth = bytes / span;
        }
        appends
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{LogIndex, Message, Position, Term};
    use crate::tree::ClusterTime;

    fn heartbeat() -> PeerMessage {
        PeerMessage::Raft {
            message: Message {
                term: Term(1),
                body: Body::Heartbeat {
                    round: 1,
                    commit: Position::default(),
                },
            },
            time: ClusterTime(0),
        }
    }

    #[test]
    fn appends_and_heartbeats_are_counted_and_nothing_else() {
        let counters = Counters::default();
        let gauges = counters.begin(NodeId(1));
        let mut counts = BatchCounts::default();
        counts.add(&heartbeat(), 100);
        counts.add(&PeerMessage::AskIndex { number: 1 }, 50);
        counters.sent(&gauges, &counts);
        let sent = counters.member(NodeId(1)).expect("it has begun").sent;
        assert_eq!((sent.messages, sent.appends, sent.bytes), (2, 1, 150));
        assert_eq!(counters.appends_sent().count, 1);
        assert_eq!(counters.appends_received(), Appends::default());
        assert_eq!(counters.connected(NodeId(1)), None);
        let now = Instant::now();
        gauges.set_sending(Some(now));
        assert_eq!(counters.connected(NodeId(1)), None, "one direction");
        gauges.set_receiving(Some(now + FRESH));
        assert_eq!(counters.connected(NodeId(1)), Some(now + FRESH));
        assert_eq!(LogIndex(0), Position::default().index);
    }

    #[test]
    fn rates_are_of_the_last_two_hundred_and_go_stale() {
        let samples = Samples::default();
        let begin = Instant::now();
        {
            let mut window = lock(&samples.0);
            window.count = 500;
            for i in 0..200 {
                let time = begin + Duration::from_millis(10 * i);
                window.last.push_back((time, 100));
            }
        }
        let end = begin + Duration::from_millis(1990);
        let appends = samples.read(end);
        assert_eq!(appends.count, 500);
        assert!((appends.rate - 200.0 / 1.99).abs() < 1e-6);
        assert!((appends.bandwidth - 20_000.0 / 1.99).abs() < 1e-6);
        let stale = samples.read(end + FRESH + Duration::from_millis(1));
        assert_eq!((stale.count, stale.rate, stale.bandwidth), (500, 0.0, 0.0));
    }
}
