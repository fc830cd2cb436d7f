//! Whether a leader's disk is much slower than those of the other members.
//!
//! Heartbeats need no disk. So a leader whose disk hangs keeps its majority, and every client waits for it. But if the
//! other disks are equally slow, a slow disk is no reason to give up leadership: the members would transfer it around.
//! So this module compares two times. Both begin when an entry was appended: how long this disk has not stored it, and
//! how long it took until a majority had committed it. The second time is the speed of a majority. It never falls by
//! more than half with one measurement, so that one quick sync among slow ones does not count for much.

use super::time::Monotonic;
use crate::raft::LogIndex;
use core::time::Duration;

/// This disk may take this many times as long as a majority, in addition to an election timeout. An entry that arrives
/// while the disk is busy waits for one sync and is part of the next. So equally slow disks can differ by a factor of
/// two, and syncs differ among themselves.
const FACTOR: u32 = 4;

/// The measurements of a leader's disk, updated with each tick.
#[derive(Debug, Default)]
pub struct Lag {
    /// The last entry of the log at one time, observed until this disk has stored it.
    own: Option<(LogIndex, Monotonic)>,
    /// The same, observed until it is committed.
    majority: Option<(LogIndex, Monotonic)>,
    /// The time until an entry is committed: the last measurement, or half of the previous value if that is longer.
    usual: Duration,
    /// When this leader began to give up leadership.
    since: Option<Monotonic>,
}

/// How a leader gives up leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MakeWay {
    /// It transfers its leadership.
    Transfer,
    /// It steps down, because a transfer failed.
    StepDown,
}

impl Lag {
    /// Observes a leader's log at `now`: its last entry, the last stored one, and the last committed one.
    pub fn look(&mut self, now: Monotonic, last: LogIndex, stored: LogIndex, commit: LogIndex) {
        if let Some(took) = follow(&mut self.majority, now, last, commit) {
            self.usual = took.max(self.usual / 2);
        }
        follow(&mut self.own, now, last, stored);
    }

    /// What a leader must do now. `patience` is an election timeout. A transfer may take as long. The next leader may
    /// lack entries that only the hanging disk has. Therefore a leader steps down if it could not transfer its
    /// leadership. It does nothing unless `others_decide`: only then another member could lead.
    pub fn makes_way(
        &mut self,
        now: Monotonic,
        patience: Duration,
        commit: LogIndex,
        others_decide: bool,
    ) -> Option<MakeWay> {
        if !others_decide || !self.is_slow(now, patience, commit) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        Some(match now - since > patience + patience / 2 {
            true => MakeWay::StepDown,
            false => MakeWay::Transfer,
        })
    }

    /// Whether this disk does not store what a majority has committed, for longer than `patience` and for much longer
    /// than the majority took.
    fn is_slow(&self, now: Monotonic, patience: Duration, commit: LogIndex) -> bool {
        let waits =
            |followed: Option<(LogIndex, Monotonic)>| followed.map(|(_, since)| now - since);
        let majority = self.usual.max(waits(self.majority).unwrap_or_default());
        self.own.is_some_and(|(index, since)| {
            commit >= index && now - since >= patience + FACTOR * majority
        })
    }
}

/// Observes an entry until `reached` is as far. Then returns how long that took, and observes the last entry.
fn follow(
    followed: &mut Option<(LogIndex, Monotonic)>,
    now: Monotonic,
    last: LogIndex,
    reached: LogIndex,
) -> Option<Duration> {
    let took = followed
        .take_if(|(index, _)| *index <= reached)
        .map(|(_, since)| now - since);
    if followed.is_none() && last > reached {
        *followed = Some((last, now));
    }
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);
    const TICK: u64 = 10;

    /// A leader under load, with a number of entries at each tick. The disks sync one batch after the other. Times are
    /// in milliseconds.
    struct Cluster {
        lag: Lag,
        now: u64,
        last: u64,
        leader: Disk,
        other: Disk,
    }

    /// A disk that stores everything that exists at the start of a sync when that sync ends.
    struct Disk {
        sync: fn(u64) -> u64,
        syncs: u64,
        begun: u64,
        ends: u64,
        writes: u64,
        stored: u64,
    }

    impl Disk {
        fn new(sync: fn(u64) -> u64) -> Disk {
            Disk {
                sync,
                syncs: 0,
                begun: 0,
                ends: 0,
                writes: 0,
                stored: 0,
            }
        }

        fn tick(&mut self, now: u64, last: u64) {
            if now < self.ends {
                return;
            }
            self.stored = self.writes;
            if last > self.stored {
                self.writes = last;
                self.syncs += 1;
                self.begun = now;
                self.ends = now + (self.sync)(self.syncs);
            }
        }
    }

    impl Cluster {
        /// How long a sync of the leader took when its disk was found slow, in milliseconds. `None` if it was not
        /// within ten minutes.
        fn slow_at(leader: fn(u64) -> u64, other: fn(u64) -> u64, every: u64) -> Option<u64> {
            let mut cluster = Cluster {
                lag: Lag::default(),
                now: 0,
                last: 0,
                leader: Disk::new(leader),
                other: Disk::new(other),
            };
            let found = (0..60_000).any(|_| cluster.tick(every));
            found.then_some(cluster.now - cluster.leader.begun)
        }

        fn tick(&mut self, every: u64) -> bool {
            self.now += TICK;
            self.last += u64::from(self.now.is_multiple_of(every));
            self.leader.tick(self.now, self.last);
            self.other.tick(self.now, self.last);
            let now = Monotonic(self.now * 1_000_000);
            let [last, stored, commit] =
                [self.last, self.leader.stored, self.other.stored].map(LogIndex);
            self.lag.look(now, last, stored, commit);
            self.lag.is_slow(now, PATIENCE, commit)
        }
    }

    /// Between one and three times `base`, depending on the number of the sync.
    fn uneven(base: u64, sync: u64) -> u64 {
        base + base * 2 * (sync * 7919 % 101) / 100
    }

    /// The majority was quick before, and its disks hang now as well.
    #[test]
    fn a_leader_stays_while_a_majority_hangs_too() {
        let mut lag = Lag::default();
        let at = |ms: u64| Monotonic(ms * 1_000_000);
        lag.look(at(0), LogIndex(1), LogIndex(0), LogIndex(0));
        lag.look(at(10), LogIndex(2), LogIndex(0), LogIndex(1));
        assert!(!lag.is_slow(at(1_500), PATIENCE, LogIndex(1)));
        lag.look(at(1_500), LogIndex(2), LogIndex(0), LogIndex(2));
        let way = lag.makes_way(at(20_000), PATIENCE, LogIndex(2), true);
        assert_eq!(way, Some(MakeWay::Transfer), "only its own disk hangs");
    }

    #[test]
    fn a_disk_that_is_slow_again_has_its_time_again() {
        let mut lag = Lag::default();
        let at = |seconds: u64| Monotonic(seconds * 1_000_000_000);
        let mut way = |now, stored| {
            lag.look(at(now), LogIndex(1), LogIndex(stored), LogIndex(1));
            lag.makes_way(at(now), PATIENCE, LogIndex(1), true)
        };
        assert_eq!(way(0, 0), None);
        assert_eq!(way(2, 0), Some(MakeWay::Transfer));
        assert_eq!(way(3, 1), None);
        let mut again = |now| {
            lag.look(at(now), LogIndex(2), LogIndex(1), LogIndex(2));
            lag.makes_way(at(now), PATIENCE, LogIndex(2), true)
        };
        assert_eq!(again(4), None);
        assert_eq!(again(6), Some(MakeWay::Transfer), "not a step down");
        assert_eq!(again(8), Some(MakeWay::StepDown));
    }

    #[test]
    fn one_quick_sync_among_slow_ones_does_not_count_for_much() {
        let mut lag = Lag::default();
        let mut commit = |index, at| {
            lag.look(
                Monotonic(at),
                LogIndex(index),
                LogIndex(0),
                LogIndex(index - 1),
            );
            lag.look(
                Monotonic(at + 1_000 / index),
                LogIndex(index),
                LogIndex(0),
                LogIndex(index),
            );
            lag.usual.as_nanos()
        };
        assert_eq!(commit(1, 10_000), 1_000);
        assert_eq!(commit(1_000, 20_000), 500);
        assert_eq!(commit(1_001, 30_000), 250);
    }

    #[test]
    fn a_disk_that_hangs_is_slow_after_an_election_timeout() {
        let hangs = |sync| if sync < 100 { 20 } else { u64::MAX / 2 };
        for every in [10, 50, 500] {
            let hung = Cluster::slow_at(hangs, |_| 20, every).expect("it hangs");
            assert!((1000..1300).contains(&hung), "every {every} ms: {hung}");
        }
        // There is only one entry, so only its missing sync shows that the disk hangs.
        let hung = Cluster::slow_at(|_| u64::MAX / 2, |_| 20, 500_000);
        assert!((1000..1300).contains(&hung.expect("it hangs")), "{hung:?}");
    }

    #[test]
    fn disks_that_are_equally_slow_are_not() {
        for every in [10, 50, 500, 5000] {
            for (leader, other) in [
                ((|_| 1500) as fn(u64) -> u64, (|_| 1500) as fn(u64) -> u64),
                (|_| 5000, |_| 5000),
                (|_| 20_000, |_| 20_000),
                (|sync| uneven(1000, sync), |sync| uneven(1000, sync + 31)),
                (|sync| uneven(5000, sync + 17), |sync| uneven(5000, sync)),
            ] {
                assert_eq!(Cluster::slow_at(leader, other, every), None);
            }
        }
    }

    /// A disk that syncs within an election timeout is fast enough: no client waits longer than for an election.
    #[test]
    fn a_disk_that_syncs_within_an_election_timeout_is_not_slow() {
        for every in [10, 50, 500] {
            assert_eq!(Cluster::slow_at(|_| 450, |_| 1, every), None);
        }
    }

    #[test]
    fn a_disk_much_slower_than_the_others_is() {
        for every in [10, 50, 500] {
            assert!(Cluster::slow_at(|_| 3000, |_| 10, every).is_some());
            assert!(Cluster::slow_at(|_| 30_000, |_| 1500, every).is_some());
        }
    }
}
