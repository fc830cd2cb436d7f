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
