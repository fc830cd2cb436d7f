//! The last events of the complete tree, for watches with `waitIndex`.

use super::error::{ApiError, EVENT_INDEX_CLEARED};
use super::event::Event;
use super::key::Key;
use super::map::Map;
use super::node::TreeIndex;
use std::sync::Arc;

/// Number of events in one block. The first change after a publication copies less than one block of the history.
const BLOCK: usize = 16;

/// The last events of all keys, including refreshes and expiries. Like the tree, this is a persistent value.
///
/// Invariants:
/// - At most `capacity` events are visible. They have at most `bytes_max` bytes in total, unless there is only one.
/// - Their indexes have no gaps and end at the tree's index. If there are no events, everything up to the tree's index
///   is forgotten.
/// - Every block except the newest is full, and less than one block of the oldest block is hidden.
#[derive(Clone)]
pub struct History {
    capacity: usize,
    /// Limit of the total bytes of the events.
    bytes_max: usize,
    /// Total bytes of the events.
    bytes: usize,
    /// The full blocks by number. The oldest has the number `oldest`, and there are no gaps.
    blocks: Map<u64, Arc<Vec<Arc<Event>>>>,
    oldest: u64,
    /// The newest block, which is never full.
    newest: Arc<Vec<Arc<Event>>>,
    /// Number of events at the front of the oldest block that are no longer visible.
    hidden: usize,
    /// While there is no event: the last forgotten index.
    cleared: TreeIndex,
}

impl History {
    /// An empty history that will keep the last `capacity` events (at least one).
    pub(super) fn new(capacity: usize) -> History {
        let (blocks, newest) = (Map::default(), Arc::new(Vec::new()));
        History {
            capacity: capacity.max(1),
            bytes_max: usize::MAX,
            bytes: 0,
            blocks,
            oldest: 0,
            newest,
            hidden: 0,
            cleared: TreeIndex(0),
        }
    }

    /// Forgets all events up to `last`, including those that were never stored here.
    pub(super) fn clear(&mut self, last: TreeIndex) {
        *self = History {
            cleared: last,
            bytes_max: self.bytes_max,
            ..History::new(self.capacity)
        };
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        if let Some(last) = self.last() {
            assert_eq!(event.index, last.next(), "the history has no gaps");
        }
        self.bytes += event.bytes();
        Arc::make_mut(&mut self.newest).push(event);
        if self.newest.len() == BLOCK {
            let number = self.oldest + self.blocks.len() as u64;
            self.blocks.insert(number, std::mem::take(&mut self.newest));
        }
        self.trim();
    }

    /// Changes the limit of the total bytes.
    pub(super) fn limit(&mut self, bytes: usize) {
        self.bytes_max = bytes;
        self.trim();
    }

    fn trim(&mut self) {
        while self.len() > self.capacity || (self.bytes > self.bytes_max && self.len() > 1) {
            self.bytes -= self.event(0).bytes();
            self.hidden += 1;
            if self.hidden == BLOCK {
                self.blocks.remove(&self.oldest);
                self.oldest += 1;
                self.hidden = 0;
            }
        }
    }

    /// Index of the oldest event. `None` if there is no event.
    pub fn first(&self) -> Option<TreeIndex> {
        (!self.is_empty()).then(|| self.event(0).index)
    }

    /// Lowest index from which a watch can start: that of the oldest event, or the next index if all events were
    /// forgotten. `None` in a tree that was never changed.
    pub fn start(&self) -> Option<TreeIndex> {
        let cleared = (self.cleared > TreeIndex(0)).then(|| self.cleared.next());
        self.first().or(cleared)
    }

    /// Index of the newest event. `None` if there is no event.
    pub fn last(&self) -> Option<TreeIndex> {
        (!self.is_empty()).then(|| self.event(self.len() - 1).index)
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.blocks.len() * BLOCK + self.newest.len() - self.hidden
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events from index `from` on, oldest first.
    pub fn since(&self, from: TreeIndex) -> impl Iterator<Item = &Arc<Event>> {
        let passed = from.0.saturating_sub(self.first().unwrap_or(from).0);
        let start = usize::try_from(passed)
            .unwrap_or(usize::MAX)
            .min(self.len())
            + self.hidden;
        let blocks = (start / BLOCK..=self.blocks.len()).map(|block| self.block(block));
        blocks.flatten().skip(start % BLOCK)
    }

    /// The first event at or after `from` that a watch on `watch` finds in the history ([`Event::matches_in_history`]).
    /// `None` if the watch must wait for a later event.
    ///
    /// # Errors
    /// 401 if events from `from` on were forgotten, whether or not one of them would match.
    pub fn scan(
        &self,
        from: TreeIndex,
        watch: &Key,
        recursive: bool,
    ) -> Result<Option<Arc<Event>>, ApiError> {
        let Some(first) = self.start() else {
            return Ok(None);
        };
        let last = self.last().unwrap_or(self.cleared);
        if from < first {
            let cause = format!(
                "the requested history has been cleared [{}/{}]",
                first.0, from.0
            );
            return Err(ApiError::new(EVENT_INDEX_CLEARED, cause, last.0));
        }
        let mut events = self.since(from);
        Ok(events
            .find(|event| event.matches_in_history(watch, recursive))
            .cloned())
    }

    /// The event at position `at` after the oldest one. It must exist.
    fn event(&self, at: usize) -> &Arc<Event> {
        let place = at + self.hidden;
        &self.block(place / BLOCK)[place % BLOCK]
    }

    /// The full block at this position. The position after the last full block is the newest block.
    fn block(&self, at: usize) -> &[Arc<Event>] {
        let number = self.oldest + at as u64;
        self.blocks.get(&number).unwrap_or(&self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::ClusterTime;
    use super::super::event::{EventAction, NodeView};
    use super::*;

    fn event(index: u64) -> Arc<Event> {
        let (created, modified) = (TreeIndex(index), TreeIndex(index));
        let node = NodeView {
            dir: true,
            value: None,
            expiry: None,
            created,
            modified,
        };
        let (action, key, index) = (EventAction::Set, Key::new(b"/a"), TreeIndex(index));
        let at = ClusterTime(0);
        Arc::new(Event {
            action,
            key,
            index,
            node,
            prev_node: None,
            refresh: false,
            at,
        })
    }

    #[test]
    fn the_ring_keeps_the_last_of_any_capacity() {
        for capacity in [1, 2, 15, 16, 17, 33, 100] {
            let mut history = History::new(capacity);
            for index in 5..300 {
                history.push(event(index));
                let first = index.saturating_sub(capacity as u64 - 1).max(5);
                assert_eq!(history.first(), Some(TreeIndex(first)));
                assert_eq!(history.last(), Some(TreeIndex(index)));
                for from in [0, first, first + 7, index, index + 1, u64::MAX] {
                    let seen: Vec<u64> =
                        history.since(TreeIndex(from)).map(|e| e.index.0).collect();
                    let expected: Vec<u64> = (from.max(first)..=index).collect();
                    assert_eq!(
                        seen, expected,
                        "capacity {capacity}, from {from} at {index}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_limit_on_bytes_keeps_the_newest_event_at_least() {
        let mut history = History::new(1000);
        let one = event(1).bytes();
        (1..=50).for_each(|index| history.push(event(index)));
        history.limit(20 * one + one / 2);
        assert_eq!(history.first(), Some(TreeIndex(31)));
        (51..=90).for_each(|index| history.push(event(index)));
        assert_eq!(history.first(), Some(TreeIndex(71)));
        history.clear(TreeIndex(100));
        (101..=150).for_each(|index| history.push(event(index)));
        assert_eq!(history.first(), Some(TreeIndex(131)));
        history.limit(1);
        assert_eq!(
            (history.first(), history.last()),
            (Some(TreeIndex(150)), Some(TreeIndex(150)))
        );
    }

    #[test]
    fn a_clone_keeps_its_events() {
        let mut history = History::new(20);
        (1..=50).for_each(|index| history.push(event(index)));
        let before = history.clone();
        (51..=90).for_each(|index| history.push(event(index)));
        assert_eq!(before.first(), Some(TreeIndex(31)));
        assert_eq!(before.since(TreeIndex(0)).count(), 20);
        assert_eq!(history.first(), Some(TreeIndex(71)));
    }

    #[test]
    fn a_cleared_history_says_so_instead_of_waiting() {
        let mut history = History::new(20);
        (1..=50).for_each(|index| history.push(event(index)));
        history.clear(TreeIndex(1050));
        let watch = |history: &History, from| history.scan(TreeIndex(from), &Key::new(b"/a"), true);
        assert_eq!(history.start(), Some(TreeIndex(1051)));
        for from in [1, 50, 51, 1050] {
            let error = watch(&history, from).expect_err("forgotten");
            assert_eq!((error.code, error.index), (EVENT_INDEX_CLEARED, 1050));
            let cause = format!("the requested history has been cleared [1051/{from}]");
            assert_eq!(error.cause, cause.as_bytes());
        }
        assert!(watch(&history, 1051).is_ok_and(|hit| hit.is_none()));
        history.push(event(1051));
        assert!(watch(&history, 1050).is_err());
        assert!(watch(&history, 1051).is_ok_and(|hit| hit.is_some()));
    }

    #[test]
    #[should_panic(expected = "no gaps")]
    fn a_gap_is_our_fault() {
        let mut history = History::new(20);
        history.push(event(1));
        history.push(event(3));
    }
}
