//! When keys expire, and how many at once.
//!
//! The leader proposes an entry that expires due keys. A million keys may be due together, and a member does nothing
//! else while it applies an entry. So an entry expires only as many keys as take about [`WORK`]. Requests are accepted
//! before the next entry, and share a batch with it. The leader measures how long its entries take, and writes the
//! number into the entry: fast and slow members expire the same keys.

use super::time::Monotonic;
use crate::tree::EXPIRED_AT_ONCE;
use core::time::Duration;

/// Maximum time for applying and publishing one entry. A request waits for at most two of them.
const WORK: Duration = Duration::from_millis(15);

/// Minimum number of keys per entry: fewer are not worth an entry and a sync.
const LEAST: usize = 100;

/// The leader's data about expiry.
pub(super) struct Expiry {
    /// When the last entry was proposed.
    pub ran: Monotonic,
    /// Maximum number of keys that the next entry expires.
    most: usize,
    /// Whether the last entry is applied and reached its maximum, so that more keys may be due.
    is_cut: bool,
    /// When the last entry began to be applied, and how many keys it expired.
    measured: Option<(Monotonic, usize)>,
}

impl Expiry {
    pub fn new(now: Monotonic) -> Expiry {
        Expiry {
            ran: now,
            most: EXPIRED_AT_ONCE / 4,
            is_cut: false,
            measured: None,
        }
    }

    /// Whether another entry should be proposed at once.
    pub fn goes_on(&self) -> bool {
        self.is_cut
    }

    /// Records that an entry is proposed, and returns how many keys it may expire.
    pub fn propose(&mut self, now: Monotonic) -> usize {
        assert!(
            (LEAST..=EXPIRED_AT_ONCE).contains(&self.most),
            "an entry for {} keys",
            self.most
        );
        self.ran = now;
        self.is_cut = false;
        self.most
    }

    /// This member no longer leads, or has no keys to expire.
    pub fn rest(&mut self) {
        self.is_cut = false;
    }

    /// An entry is applied in this step. Called only on the leader: other members wait for its entries, so they cannot
    /// measure how long one takes.
    pub fn applied(&mut self, count: usize, is_cut: bool, now: Monotonic) {
        self.is_cut = is_cut;
        self.measured = Some((now, count));
    }

    /// The disk works, so the next step may have to wait for it. That wait is not this member's work, so it is not
    /// measured.
    pub fn skip_measure(&mut self) {
        self.measured = None;
    }

    /// The next step begins. If the previous one applied an entry, that took until now: there was no waiting in
    /// between, because there is more to do.
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

    /// Runs entries on a machine that needs `a_key` per key, and returns how many keys each expires.
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

    /// Another member leads meanwhile, and it has perhaps expired the rest.
    #[test]
    fn a_leader_that_rested_waits_for_its_next_interval() {
        let mut expiry = Expiry::new(Monotonic(0));
        let most = expiry.propose(Monotonic(1));
        expiry.applied(most, true, Monotonic(2));
        assert!(expiry.goes_on());
        expiry.rest();
        assert!(!expiry.goes_on());
    }
}
