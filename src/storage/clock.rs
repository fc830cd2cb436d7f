//! Clocks, and the cluster time that is derived from them at a start.
//!
//! *Cluster time* decides when keys expire. It is a count of nanoseconds that belongs to the cluster, not to a machine.
//! It advances with the leader's monotonic clock, every entry contains it, and it never goes back. The wall clock is
//! only displayed (`expiration`), so setting it harms no key.
//!
//! Between entries, a member estimates cluster time as its monotonic clock plus an offset. It sets the offset whenever
//! it learns the time: at its start from its log, then from each message of its leader. A new leader continues from its
//! own estimate, or from the last time in its log if that is later.
//!
//! The monotonic clock is the time since boot, including sleep (`CLOCK_BOOTTIME`). The WAL records it together with the
//! boot's id. So a restart of the process counts its downtime. After a reboot the two readings cannot be compared, and
//! the downtime does not count.

use crate::engine::time::{Monotonic, Now};
use crate::tree::{ClusterTime, WallTime};

/// The source of time. Tests and the simulator have their own.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since boot. Never goes back while the process runs.
    fn since_boot(&self) -> u64;
    /// Nanoseconds since 1970, UTC. May jump.
    fn wall(&self) -> WallTime;
    /// An id that differs for each boot of the machine; all zero if the system has none.
    fn boot_id(&self) -> [u8; 16];

    /// Both times, as input for a step of the engine.
    fn now(&self) -> Now {
        Now {
            monotonic: Monotonic(self.since_boot()),
            wall: self.wall(),
        }
    }
}

/// Whether two ids are known to be those of the same boot. All zero means that the id is not known.
pub fn is_same_boot(one: [u8; 16], other: [u8; 16]) -> bool {
    one == other && one != [0; 16]
}

/// The present cluster time, given the clock readings in the last WAL batch and the latest time in the log or snapshot.
pub fn resume(
    noted: Option<&crate::wal::Clock>,
    logged: ClusterTime,
    clock: &dyn Clock,
) -> ClusterTime {
    let estimate = noted.map_or(0, |note| {
        let down = match is_same_boot(note.boot_id, clock.boot_id()) {
            true => clock.since_boot().saturating_sub(note.boottime_ns),
            false => 0,
        };
        note.cluster_ns.saturating_add(down)
    });
    logged.max(ClusterTime(estimate))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed {
        since_boot: u64,
        boot: u8,
    }

    impl Clock for Fixed {
        fn since_boot(&self) -> u64 {
            self.since_boot
        }
        fn wall(&self) -> WallTime {
            WallTime(0)
        }
        fn boot_id(&self) -> [u8; 16] {
            [self.boot; 16]
        }
    }

    fn note(boot: u8, boottime_ns: u64, cluster_ns: u64) -> crate::wal::Clock {
        crate::wal::Clock {
            boot_id: [boot; 16],
            boottime_ns,
            cluster_ns,
        }
    }

    #[test]
    fn a_restart_counts_its_downtime() {
        let clock = Fixed {
            since_boot: 900,
            boot: 7,
        };
        assert_eq!(
            resume(Some(&note(7, 400, 1000)), ClusterTime(1000), &clock),
            ClusterTime(1500)
        );
    }

    #[test]
    fn a_reboot_does_not() {
        let clock = Fixed {
            since_boot: 900,
            boot: 8,
        };
        assert_eq!(
            resume(Some(&note(7, 400, 1000)), ClusterTime(1100), &clock),
            ClusterTime(1100)
        );
    }

    /// All boots have the same id then, so the times since them cannot be compared.
    #[test]
    fn without_boot_ids_no_downtime_counts() {
        let clock = Fixed {
            since_boot: 900,
            boot: 0,
        };
        assert_eq!(
            resume(Some(&note(0, 400, 1000)), ClusterTime(1000), &clock),
            ClusterTime(1000)
        );
    }

    #[test]
    fn the_log_wins_over_an_older_note_and_time_never_goes_back() {
        let clock = Fixed {
            since_boot: 10,
            boot: 7,
        };
        assert_eq!(
            resume(Some(&note(7, 400, 1000)), ClusterTime(5000), &clock),
            ClusterTime(5000)
        );
        assert_eq!(resume(None, ClusterTime(5), &clock), ClusterTime(5));
    }
}
