//! The last events of the whole tree, for watches that look back.

use super::error::{ApiError, EVENT_INDEX_CLEARED};
use super::event::Event;
use super::key::Key;
use super::node::TreeIndex;
use imbl::Vector;
use std::sync::Arc;

/// A ring of events, all keys together, refreshes and expiries included. Persistent, like the tree.
///
/// Invariants: at most `capacity` events; their indexes follow each other without a gap and end at
/// the tree's index.
#[derive(Clone)]
pub struct History {
    capacity: usize,
    events: Vector<Arc<Event>>,
}

impl History {
    /// An empty history that will keep the last `capacity` events (at least one).
    pub(super) fn new(capacity: usize) -> History {
        History {
            capacity: capacity.max(1),
            events: Vector::new(),
        }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        if let Some(last) = self.events.back() {
            assert_eq!(event.index, last.index.next(), "the history has no gaps");
        }
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The index of the oldest event kept; none if there is none.
    pub fn first(&self) -> Option<TreeIndex> {
        self.events.front().map(|event| event.index)
    }

    /// The index of the newest event; none if there is none.
    pub fn last(&self) -> Option<TreeIndex> {
        self.events.back().map(|event| event.index)
    }

    /// How many events are kept.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The kept events from index `from` on, oldest first.
    pub fn since(&self, from: TreeIndex) -> impl Iterator<Item = &Arc<Event>> {
        let first = self.first().unwrap_or(from);
        let skipped = usize::try_from(from.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        self.events.iter().skip(skipped)
    }

    /// The first kept event at or after `from` that a watch on `watch` finds in the history
    /// ([`Event::matches_in_history`]). None: the watch waits for the next one.
    ///
    /// # Errors
    /// 401 if events from `from` on have been forgotten, whether or not one of them would match.
    pub fn scan(
        &self,
        from: TreeIndex,
        watch: &Key,
        recursive: bool,
    ) -> Result<Option<Arc<Event>>, ApiError> {
        let (Some(first), Some(last)) = (self.first(), self.last()) else {
            return Ok(None);
        };
        if from < first {
            let cause = format!(
                "the requested history has been cleared [{}/{}]",
                first.0, from.0
            );
            return Err(ApiError::new(EVENT_INDEX_CLEARED, cause, last.0));
        }
        Ok(self
            .since(from)
            .find(|event| event.matches_in_history(watch, recursive))
            .cloned())
    }
}
