//! The two clocks of a time to live.
//!
//! *Cluster time* decides when a key expires. It only moves forward, at the speed of the leader's monotonic clock, and
//! is stored with every command. So all members expire the same keys at the same place in the log. *Wall-clock time* is
//! only shown: a node's `expiration` is the leader's wall clock at the proposal plus the ttl. It is stored once and
//! never compared with anything.

use std::num::NonZeroU64;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of cluster time since an arbitrary start. Decides when keys expire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterTime(pub u64);

/// Nanoseconds since 1970 in UTC by the leader's wall clock. Only shown. Reaches the year 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallTime(pub i64);

/// The two times that are stored with every command. The leader sets them when it proposes the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Decides when keys expire.
    pub cluster: ClusterTime,
    /// Only shown to users.
    pub wall: WallTime,
}

/// Deadline and `expiration` of a node. An `Option<Expiry>` is two words, so it stays small in a directory's map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// The nanosecond after the deadline.
    after: NonZeroU64,
    expiration: WallTime,
}

const _: () = assert!(
    size_of::<Option<Expiry>>() == 16,
    "no expiry takes no room of its own"
);

impl Stamp {
    /// The expiry of a node that is written now with `ttl` seconds to live. Returns `None`, which makes the node
    /// permanent, if one of the two times does not fit into 64 bits (a ttl of about 240 years or more). The reference
    /// does the same.
    pub fn expiry(&self, ttl: u64) -> Option<Expiry> {
        let nanos = ttl.checked_mul(SECOND)?;
        let deadline = self.cluster.0.checked_add(nanos)?;
        let expiration = self.wall.0.checked_add(i64::try_from(nanos).ok()?)?;
        Expiry::new(ClusterTime(deadline), WallTime(expiration))
    }
}

impl Expiry {
    /// Returns `None` for the very last nanosecond of cluster time, which means never.
    pub fn new(deadline: ClusterTime, expiration: WallTime) -> Option<Expiry> {
        let after = NonZeroU64::new(deadline.0.wrapping_add(1))?;
        Some(Expiry { after, expiration })
    }

    /// The first expiry run at or after this time removes the node.
    pub fn deadline(&self) -> ClusterTime {
        ClusterTime(self.after.get() - 1)
    }

    /// The time shown as `expiration`.
    pub fn expiration(&self) -> WallTime {
        self.expiration
    }

    /// Seconds left at `now`, rounded up: 3.7 s is 4. 0 within the first second after the deadline, then negative.
    pub fn seconds_left(&self, now: ClusterTime) -> i64 {
        let deadline = self.deadline().0;
        let seconds = match deadline.checked_sub(now.0) {
            Some(left) => i128::from(left.div_ceil(SECOND)),
            None => -i128::from((now.0 - deadline) / SECOND),
        };
        i64::try_from(seconds).expect("2^64 ns are 1.8e10 seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up() {
        let at = |deadline, now| {
            Expiry::new(ClusterTime(deadline), WallTime(0))
                .map(|expiry| expiry.seconds_left(ClusterTime(now)))
        };
        assert_eq!(at(5 * SECOND, 1_300_000_000), Some(4));
        assert_eq!(at(5 * SECOND, 4 * SECOND), Some(1));
        assert_eq!(at(5 * SECOND, 5 * SECOND), Some(0));
        assert_eq!(at(5 * SECOND, 6 * SECOND - 1), Some(0));
        assert_eq!(at(5 * SECOND, 7 * SECOND), Some(-2));
        assert_eq!(at(u64::MAX - 1, 0), Some(18_446_744_074));
        assert_eq!(at(0, u64::MAX), Some(-18_446_744_073));
    }

    #[test]
    fn the_last_nanosecond_is_never() {
        assert_eq!(Expiry::new(ClusterTime(u64::MAX), WallTime(0)), None);
    }

    #[test]
    fn what_does_not_fit_is_permanent() {
        let stamp = Stamp {
            cluster: ClusterTime(7),
            wall: WallTime(1_700_000_000_000_000_000),
        };
        assert!(
            stamp
                .expiry(0)
                .is_some_and(|expiry| expiry.deadline() == stamp.cluster)
        );
        assert!(stamp.expiry(1_000_000_000).is_some());
        for ttl in [
            9_223_372_036,
            9_223_372_037,
            10_000_000_000,
            18_446_744_072,
            u64::MAX,
        ] {
            assert_eq!(stamp.expiry(ttl), None, "{ttl}");
        }
    }
}
