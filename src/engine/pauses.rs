//! How long a leader waits before it sends a snapshot again to a follower that did not accept it.
//!
//! A follower whose disk is full cannot store a snapshot, and an immediate retry would cost the same again: the leader
//! reads its disk, and the connection carries the whole snapshot. So for each follower separately, each failure in a
//! row doubles a pause, from 100 ms to 30 s. The core is informed of the failure when the pause is over. Until then it
//! sends that follower only heartbeats.
//!
//! This is a value without a clock: the caller passes the time.

use super::time::Monotonic;
use crate::raft::NodeId;
use core::time::Duration;
use std::collections::BTreeMap;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// The followers that failed since this member became leader.
#[derive(Debug, Default)]
pub struct Pauses(BTreeMap<NodeId, Pause>);

#[derive(Debug)]
struct Pause {
    /// The length of the next pause.
    next: Duration,
    /// When the core must be informed; `None` if it was.
    until: Option<Monotonic>,
}

impl Pauses {
    /// Sending a snapshot to `to` failed.
    pub fn failed(&mut self, to: NodeId, now: Monotonic) {
        let first = Pause {
            next: SHORTEST,
            until: None,
        };
        let pause = self.0.entry(to).or_insert(first);
        pause.until = Some(now + pause.next);
        pause.next = (2 * pause.next).min(LONGEST);
        assert!(
            pause.next > SHORTEST && pause.next <= LONGEST,
            "a pause of {:?}",
            pause.next
        );
    }

    /// `to` has installed a snapshot.
    pub fn succeeded(&mut self, to: NodeId) {
        self.0.remove(&to);
    }

    /// The connection to `to` broke. It may have restarted, with space on its disk. So a running pause ends now. The
    /// length of the next pause does not change, because connections may break repeatedly.
    pub fn restarted(&mut self, to: NodeId, now: Monotonic) {
        if let Some(pause) = self.0.get_mut(&to) {
            pause.until = pause.until.map(|until| until.min(now));
        }
    }

    /// The leader changed. The core is not informed of waiting failures.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The followers whose pause is over. Each is returned once.
    pub fn over(&mut self, now: Monotonic) -> Vec<NodeId> {
        let over = self.0.iter_mut().filter_map(|(to, pause)| {
            pause.until.filter(|until| *until <= now)?;
            pause.until = None;
            Some(*to)
        });
        over.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    /// The length of the pause after a failure at `now`, to 100 ms.
    fn length(pauses: &mut Pauses, now: Monotonic) -> u64 {
        pauses.failed(ONE, now);
        let tenth = |n| now + Duration::from_millis(100) * n;
        let over = (1..1000).find(|n| pauses.over(tenth(*n)) == [ONE]);
        u64::from(over.expect("it ends")) * 100
    }

    #[test]
    fn each_failure_doubles_the_pause_up_to_thirty_seconds() {
        let (mut pauses, now) = (Pauses::default(), Monotonic(1 << 40));
        let lengths: Vec<u64> = (0..11).map(|_| length(&mut pauses, now)).collect();
        let wanted = [
            100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000,
        ];
        assert_eq!(lengths, wanted);
        pauses.succeeded(ONE);
        assert_eq!(length(&mut pauses, now), 100);
        assert_eq!(length(&mut pauses, now), 200);
        pauses.clear();
        assert_eq!(length(&mut pauses, now), 100);
    }

    #[test]
    fn one_follower_waits_beside_another_and_is_told_once() {
        let (mut pauses, now) = (Pauses::default(), Monotonic(1 << 40));
        let ms = |ms| now + Duration::from_millis(ms);
        pauses.failed(ONE, now);
        pauses.failed(TWO, ms(50));
        assert!(pauses.over(ms(99)).is_empty());
        assert_eq!(pauses.over(ms(100)), [ONE]);
        assert!(pauses.over(ms(149)).is_empty());
        assert_eq!(pauses.over(ms(10_000)), [TWO]);
        assert!(pauses.over(ms(20_000)).is_empty());
    }

    #[test]
    fn a_follower_that_comes_back_waits_no_more() {
        let (mut pauses, now) = (Pauses::default(), Monotonic(1 << 40));
        for _ in 0..5 {
            let _ = length(&mut pauses, now);
        }
        pauses.failed(ONE, now);
        pauses.restarted(ONE, now);
        assert_eq!(pauses.over(now), [ONE]);
        assert_eq!(
            length(&mut pauses, now),
            6400,
            "a link may break every second"
        );
        pauses.restarted(TWO, now);
        assert!(pauses.over(now).is_empty());
    }

    /// Otherwise the core would be informed that a transfer in progress has failed.
    #[test]
    fn what_was_told_is_not_told_again_when_the_link_breaks() {
        let (mut pauses, now) = (Pauses::default(), Monotonic(1 << 40));
        let _ = length(&mut pauses, now);
        pauses.restarted(ONE, now);
        assert!(pauses.over(now + LONGEST).is_empty());
    }
}
