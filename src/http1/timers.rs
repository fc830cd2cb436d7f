//! A worker's timers: when each connection must be checked again.
//!
//! A connection's deadline changes with every request. Making it *later* costs nothing: the entry stays, and when its
//! time is reached, the connection finds that its deadline has not passed yet. Only a deadline that is earlier than the
//! entry adds another entry; the old one is then recognised by its time and ignored. So a common request changes no
//! timer, and nothing is ever scanned.
//!
//! The entry belongs to the slot, not to the connection: the next connection in the slot uses it too. So any number of
//! clients that connect and disconnect leave no entries behind.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Timers {
    entries: BinaryHeap<Reverse<(Instant, u32)>>,
    /// For each slot: when its entry is reached next, if it has one.
    next_of: Vec<Option<Instant>>,
}

impl Timers {
    /// Makes sure that `slot` is checked at `deadline` at the latest.
    pub fn set(&mut self, slot: u32, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let at = slot as usize;
        if self.next_of.len() <= at {
            self.next_of.resize(at + 1, None);
        }
        if self.next_of[at].is_none_or(|next| deadline < next) {
            self.entries.push(Reverse((deadline, slot)));
            self.next_of[at] = Some(deadline);
        }
    }

    /// The earliest time of an entry.
    pub fn next(&self) -> Option<Instant> {
        self.entries.peek().map(|Reverse((time, _))| *time)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a slot whose entry was reached by `now`. Its deadline may be later.
    pub fn pop(&mut self, now: Instant) -> Option<u32> {
        while self.next()? <= now {
            let Reverse((time, slot)) = self.entries.pop()?;
            let next = &mut self.next_of[slot as usize];
            if *next == Some(time) {
                *next = None;
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_moves_back_adds_no_entry() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        for second in [5, 6, 7, 300] {
            timers.set(1, Some(start + Duration::from_secs(second)));
        }
        assert_eq!(
            (timers.entries.len(), timers.next()),
            (1, Some(start + Duration::from_secs(5)))
        );
        timers.set(1, Some(start + Duration::from_secs(2)));
        timers.set(2, None);
        assert_eq!(timers.next(), Some(start + Duration::from_secs(2)));
        assert_eq!(timers.pop(start), None);
        let later = start + Duration::from_secs(9);
        assert_eq!(timers.pop(later), Some(1));
        assert_eq!(timers.pop(later), None, "the other one is stale");
        assert_eq!(timers.next(), None);
    }
}
