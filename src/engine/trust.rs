//! Whose messages this member takes.
//!
//! A message that contradicts the protocol has no effect, whoever sends it. The connection it came by is closed, and
//! the log says why.

use super::time::Monotonic;
use super::{Engine, Note};
use super::rules::Rules;
use crate::raft::{NodeId, Violation};
use core::time::Duration;
use std::collections::btree_map::Entry;

/// How often the same member's violations are noted.
const VIOLATION_INTERVAL: Duration = Duration::from_secs(10);

impl<T, R: Rules> Engine<T, R> {
    /// Closes the connection, and says why now and then.
    pub(super) fn violated(&mut self, from: NodeId, violation: Violation) {
        self.effects.cut.push(from);
        let now = self.now.monotonic;
        let is_due = |at: &Monotonic| now - *at >= VIOLATION_INTERVAL;
        self.violations.retain(|_, at| !is_due(at));
        if let Entry::Vacant(unsaid) = self.violations.entry(from) {
            unsaid.insert(now);
            self.note(Note::Violation { from, violation });
        }
    }
}
