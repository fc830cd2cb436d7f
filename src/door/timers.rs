//! A worker's timers: when to look at which connection again.
//!
//! A connection's deadline moves with every request. Moving it *back* costs nothing: the entry stays
//! where it is, and when it comes up the connection says that its time has not come yet. Only a
//! deadline that is earlier than the connection's entry adds another one; the old one is then
//! recognised by its time and ignored. So the common request touches no timer, and nothing is ever
//! scanned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Timers {
    entries: BinaryHeap<Reverse<(Instant, u32)>>,
}

impl Timers {
    /// Makes sure that `slot` comes up at `deadline` at the latest. `entry` is the connection's note
    /// of when it does so far.
    pub fn set(&mut self, slot: u32, deadline: Option<Instant>, entry: &mut Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if entry.is_none_or(|entry| deadline < entry) {
            self.entries.push(Reverse((deadline, slot)));
            *entry = Some(deadline);
        }
    }

    /// The earliest time anything comes up.
    pub fn next(&self) -> Option<Instant> {
        self.entries.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes what has come up by `now`. The connection must compare the time with its own note.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, u32)> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_moves_back_adds_no_entry() {
        let (mut timers, mut entry, start) = (Timers::default(), None, Instant::now());
        for second in [5, 6, 7, 300] {
            timers.set(1, Some(start + Duration::from_secs(second)), &mut entry);
        }
        assert_eq!(
            (timers.entries.len(), entry),
            (1, Some(start + Duration::from_secs(5)))
        );
        timers.set(1, Some(start + Duration::from_secs(2)), &mut entry);
        timers.set(2, None, &mut None);
        assert_eq!(timers.next(), Some(start + Duration::from_secs(2)));
        assert_eq!(timers.pop(start), None);
        let later = start + Duration::from_secs(9);
        assert_eq!(timers.pop(later), Some((start + Duration::from_secs(2), 1)));
        assert_eq!(
            timers.pop(later),
            Some((start + Duration::from_secs(5), 1)),
            "a stale one"
        );
        assert_eq!(timers.pop(later), None);
    }
}
