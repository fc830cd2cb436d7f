//! When keys expire, and how many at once.
//!
//! The leader proposes an entry that expires what is due. A million keys may be due together, and while an entry is
//! applied nothing else is done. So an entry expires a number of keys that takes about [`WORK`], requests are taken
//! before the next one, and the next one shares a batch with them. The leader measures what its entries take, and says
//! the number in the entry: all members expire the same keys, whatever their speed.

use super::time::Monotonic;
use crate::tree::EXPIRED_AT_ONCE;
use core::time::Duration;

/// How long applying and publishing one entry may take: a request waits for two of them.
const WORK: Duration = Duration::from_millis(15);

/// Fewer are not worth an entry and a sync.
const LEAST: usize = 100;

/// What a leader knows of its expiry.
pub(super) struct Expiry {
    /// When the last one was proposed.
    pub ran: Monotonic,
    /// How many keys the next entry may expire.
    most: usize,
    /// The last entry took as many keys as it might: more may be due.
    is_cut: bool,
    /// An entry is proposed and not applied.
    is_proposed: bool,
    /// When the last entry began to be applied, and how many keys it took.
    measured: Option<(Monotonic, usize)>,
}

impl Expiry {
    pub fn new(now: Monotonic) -> Expiry {
        Expiry {
            ran: now,
            most: EXPIRED_AT_ONCE / 4,
            is_cut: false,
            is_proposed: false,
            measured: None,
        }
    }

    /// Whether there is more to do, at once.
    pub fn goes_on(&self) -> bool {
        self.is_cut && !self.is_proposed
    }

    /// An entry is proposed; how many keys it may expire.
    pub fn propose(&mut self, now: Monotonic) -> usize {
        self.ran = now;
        self.is_cut = false;
        self.is_proposed = true;
        self.most
    }

    /// This member leads no more, or has nothing to expire.
    pub fn rest(&mut self) {
        self.is_cut = false;
        self.is_proposed = false;
    }

    /// An entry is applied in this step.
    pub fn applied(&mut self, count: usize, is_cut: bool, now: Monotonic) {
        self.is_proposed = false;
        self.is_cut = is_cut;
        self.measured = Some((now, count));
    }

    /// The disk works, so the next step may have to wait for it: that says nothing of this member's work.
    pub fn skip_measure(&mut self) {
        self.measured = None;
    }

    /// The next step begins. If an entry was applied in the one before, that took until now: there was no waiting,
    /// since there is more to do.
    pub fn measure(&mut self, now: Monotonic) {
        let Some((since, count)) = self.measured.take().filter(|_| self.is_cut) else {
            return;
        };
        let took = now - since;
        if took > WORK {
            self.most = (count / 2).max(LEAST);
        } else if took < WORK / 2 && count == self.most {
            self.most = (self.most + self.most / 2).min(EXPIRED_AT_ONCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries on a machine that takes so long for each key; the numbers that they expire.
    fn numbers(expiry: &mut Expiry, a_key: Duration) -> Vec<usize> {
        let mut now = Monotonic(1 << 40);
        let one = |_| {
            let most = expiry.propose(now);
            expiry.applied(most, true, now);
            now = now + a_key * most as u32;
            expiry.measure(now);
            most
        };
        (0..30).map(one).collect()
    }

    #[test]
    fn the_number_fits_the_machine() {
        let mut expiry = Expiry::new(Monotonic(0));
        let fast = numbers(&mut expiry, Duration::from_micros(1));
        assert_eq!(fast.last(), Some(&EXPIRED_AT_ONCE));
        let slow = numbers(&mut expiry, Duration::from_micros(50));
        let last = *slow.last().expect("thirty");
        assert!((150..=300).contains(&last), "{slow:?}");
        let very_slow = numbers(&mut expiry, Duration::from_millis(10));
        assert_eq!(very_slow.last(), Some(&LEAST));
        let fast = numbers(&mut expiry, Duration::from_micros(1));
        assert_eq!(fast.last(), Some(&EXPIRED_AT_ONCE), "it grows again");
    }
}
