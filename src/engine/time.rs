//! Time in the engine.
//!
//! The engine reads no clock. Each step receives a [`Now`], and every deadline is compared with it.

use crate::tree::{ClusterTime, WallTime};
use core::ops::{Add, Sub};
use core::time::Duration;

/// Nanoseconds since the machine's boot, including sleep. Never goes back while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

impl Add<Duration> for Monotonic {
    type Output = Monotonic;

    /// Saturates after about 584 years.
    fn add(self, span: Duration) -> Monotonic {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Monotonic(self.0.saturating_add(nanoseconds))
    }
}

impl Sub for Monotonic {
    type Output = Duration;

    /// Zero if `earlier` is later.
    fn sub(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Monotonic {
    /// The time `span` before this one; `None` if it is before the boot.
    pub fn checked_sub(self, span: Duration) -> Option<Monotonic> {
        let nanoseconds = u64::try_from(span.as_nanos()).ok()?;
        self.0.checked_sub(nanoseconds).map(Monotonic)
    }
}

/// The clock readings when an event is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines. Cluster time is derived from it too.
    pub monotonic: Monotonic,
    /// Only displayed (`expiration`). May jump.
    pub wall: WallTime,
}

/// This member's estimate of the relation between cluster time and its machine's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Cluster time minus time since boot, modulo 2^64.
    offset: u64,
}

impl Estimate {
    /// An estimate according to which it is `cluster` at `now`.
    pub fn new(cluster: ClusterTime, now: Monotonic) -> Estimate {
        Estimate {
            offset: cluster.0.wrapping_sub(now.0),
        }
    }

    /// Cluster time minus time since boot, modulo 2^64.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// The opposite of [`Estimate::offset`].
    pub fn from_offset(offset: u64) -> Estimate {
        Estimate { offset }
    }

    /// This estimate, or a later one according to which it is `least` at `now`. The time continues from there. If the
    /// estimate stood still until the clock has caught up, the other members' estimates would overtake it.
    #[must_use]
    pub fn at_least(self, least: ClusterTime, now: Monotonic) -> Estimate {
        match self.at(now) < least {
            true => Estimate::new(least, now),
            false => self,
        }
    }

    /// Cluster time at `now`.
    pub fn at(self, now: Monotonic) -> ClusterTime {
        ClusterTime(now.0.wrapping_add(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_is_raised_goes_on_from_there() {
        let estimate = Estimate::new(ClusterTime(500), Monotonic(100));
        let raised = estimate.at_least(ClusterTime(900), Monotonic(200));
        assert_eq!(raised.at(Monotonic(200)), ClusterTime(900));
        assert_eq!(raised.at(Monotonic(250)), ClusterTime(950));
        let same = raised.at_least(ClusterTime(700), Monotonic(250));
        assert_eq!(same, raised, "it is never set back");
        assert_eq!(Estimate::from_offset(raised.offset()), raised);
    }

    /// The cluster's time may be less than the time since this machine's boot.
    #[test]
    fn a_young_cluster_on_an_old_machine_has_its_own_time() {
        let estimate = Estimate::new(ClusterTime(5), Monotonic(1 << 60));
        assert_eq!(estimate.at(Monotonic((1 << 60) + 3)), ClusterTime(8));
    }

    #[test]
    fn spans_have_ends() {
        let (early, late) = (Monotonic(3), Monotonic(10));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(late - early, Duration::from_nanos(7));
        assert_eq!(late + Duration::MAX, Monotonic(u64::MAX));
        assert_eq!(
            late.checked_sub(Duration::from_nanos(10)),
            Some(Monotonic(0))
        );
        assert_eq!(late.checked_sub(Duration::from_nanos(11)), None);
    }
}
