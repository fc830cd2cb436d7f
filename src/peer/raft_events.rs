//! Events for the raft thread.
//!
//! The channel to the raft thread is bounded. Peer messages wait there for space, each on the thread of its connection.
//! Events that are detected *on* the raft thread (a full queue), or that must not wait behind peer messages, are
//! reported by the `peer-events` thread. It collects events, so that none is lost and they need little memory. It limits
//! how often it reports the same event.

use crate::raft::{NodeId, Position};
use crate::replica::peers::FromPeers;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A member is reported as unreachable at most once within this time.
const QUIET: Duration = Duration::from_millis(100);

/// The raft thread has ended, or the link is ending.
#[derive(Debug)]
pub(super) struct Ended;

/// Sends events to the raft thread.
#[derive(Clone)]
pub(super) struct Events {
    to_raft: Sender<FromPeers>,
    stopped: Receiver<Infallible>,
}

impl Events {
    pub fn new(to_raft: Sender<FromPeers>, stopped: Receiver<Infallible>) -> Events {
        Events { to_raft, stopped }
    }

    /// Waits until the channel has space.
    pub fn send(&self, event: FromPeers) -> Result<(), Ended> {
        let event = match self.to_raft.try_send(event) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(Ended),
            Err(TrySendError::Full(event)) => event,
        };
        select! {
            send(self.to_raft, event) -> sent => sent.map_err(|_| Ended),
            recv(self.stopped) -> _ => Err(Ended),
        }
    }
}

/// Events that are not reported yet. `changed` is notified by every thread that adds an event, and by `close`. Only the
/// thread `peer-events` waits on it. Events are sent only after `state` is unlocked.
#[derive(Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    unsent: Vec<u64>,
    unreachable: BTreeSet<NodeId>,
    /// When each member was last reported as unreachable.
    reported: BTreeMap<NodeId, Instant>,
    gone: BTreeSet<NodeId>,
    snapshots: Vec<(NodeId, Option<Position>)>,
    /// This member's own newest snapshot was found damaged.
    unreadable: bool,
    /// Members that have answered that this member was removed.
    removed_by: BTreeSet<NodeId>,
    closed: bool,
}

impl EventQueue {
    pub fn unsent(&self, mut numbers: Vec<u64>) {
        if !numbers.is_empty() {
            self.change(|state| state.unsent.append(&mut numbers));
        }
    }

    pub fn unreachable(&self, id: NodeId) {
        self.change(|state| state.unreachable.extend([id]));
    }

    pub fn gone(&self, id: NodeId) {
        self.change(|state| state.gone.extend([id]));
    }

    pub fn snapshot_sent(&self, to: NodeId, installed: Option<Position>) {
        self.change(|state| state.snapshots.push((to, installed)));
    }

    pub fn snapshot_unreadable(&self) {
        self.change(|state| state.unreadable = true);
    }

    pub fn removed(&self, by: NodeId) {
        self.change(|state| {
            state.removed_by.insert(by);
        });
    }

    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// The thread `peer-events`. It runs until [`EventQueue::close`].
    pub fn run(&self, events: &Events) {
        while let Some(batch) = self.next() {
            for event in batch {
                if events.send(event).is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for events to report.
    fn next(&self) -> Option<Vec<FromPeers>> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let batch = state.take(now);
            if !batch.is_empty() {
                return Some(batch);
            }
            state = match state.next_due(now) {
                Some(wait) => {
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, now: Instant) -> Vec<FromPeers> {
        let mut batch = Vec::new();
        if !self.unsent.is_empty() {
            batch.push(FromPeers::Unsent(std::mem::take(&mut self.unsent)));
        }
        batch.extend(
            std::mem::take(&mut self.gone)
                .into_iter()
                .map(FromPeers::Gone),
        );
        self.reported
            .retain(|_, reported| now.duration_since(*reported) < QUIET);
        let (quiet, due) = std::mem::take(&mut self.unreachable)
            .into_iter()
            .partition(|id| self.reported.contains_key(id));
        self.unreachable = quiet;
        let due: BTreeSet<NodeId> = due;
        self.reported.extend(due.iter().map(|id| (*id, now)));
        batch.extend(due.into_iter().map(FromPeers::Unreachable));
        // Raft receives this event before the end of the transfer that found the damage.
        let unreadable = std::mem::take(&mut self.unreadable);
        batch.extend(unreadable.then_some(FromPeers::SnapshotUnreadable));
        let sent = |(to, installed)| FromPeers::SnapshotSent { to, installed };
        batch.extend(std::mem::take(&mut self.snapshots).into_iter().map(sent));
        let removed = std::mem::take(&mut self.removed_by).into_iter();
        batch.extend(removed.map(|by| FromPeers::Removed { by }));
        batch
    }

    /// How long until the first delayed event may be reported.
    fn next_due(&self, now: Instant) -> Option<Duration> {
        let reported = self
            .unreachable
            .iter()
            .filter_map(|id| self.reported.get(id));
        reported
            .map(|reported| QUIET.saturating_sub(now.duration_since(*reported)))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(batch: &[FromPeers]) -> usize {
        let is = |event: &&FromPeers| matches!(event, FromPeers::Unreachable(NodeId(1)));
        batch.iter().filter(is).count()
    }

    #[test]
    fn out_of_reach_is_told_at_once_and_then_not_too_often() {
        let mut state = State::default();
        let now = Instant::now();
        state.unreachable.insert(NodeId(1));
        assert_eq!(unreachable(&state.take(now)), 1);
        state.unreachable.insert(NodeId(1));
        let soon = now + Duration::from_millis(40);
        assert_eq!(unreachable(&state.take(soon)), 0);
        assert_eq!(state.next_due(soon), Some(Duration::from_millis(60)));
        assert_eq!(
            unreachable(&state.take(now + QUIET)),
            1,
            "it is not forgotten"
        );
        assert!(state.take(now + 2 * QUIET).is_empty());
    }

    #[test]
    fn removed_is_told_as_often_as_it_is_heard() {
        let by = NodeId(7);
        let mut state = State::default();
        for _ in 0..2 {
            state.removed_by.insert(by);
            let batch = state.take(Instant::now());
            assert!(matches!(batch[..], [FromPeers::Removed { by: NodeId(7) }]));
            assert!(state.take(Instant::now()).is_empty());
        }
    }
}
