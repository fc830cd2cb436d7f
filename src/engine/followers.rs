//! A leader's statistics of its followers: how fast they reply, and how often (spec §12).
//!
//! The time from a heartbeat to its reply is the latency in `/v2/stats/leader`. Every reply counts as a success, and
//! every broken connection as a failure.

use super::time::Monotonic;
use crate::raft::{Body, NodeId};
use core::time::Duration;
use std::collections::BTreeMap;

/// Statistics since this member became leader; empty if it does not lead.
#[derive(Debug, Clone, Default)]
pub struct Followers(BTreeMap<u64, Follower>);

/// Statistics of one follower.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Follower {
    /// The newest heartbeat that is not answered yet.
    asked: Option<(u64, Monotonic)>,
    /// The last latency in milliseconds.
    pub current: f64,
    /// The shortest and the longest latency in milliseconds; `None` before the first.
    pub range: Option<(f64, f64)>,
    sum: f64,
    sum_of_squares: f64,
    measured: u64,
    /// Number of replies.
    pub success: u64,
    /// Number of broken or refused connections, and of dropped messages.
    pub fail: u64,
}

impl Follower {
    /// The mean of all latencies, in milliseconds.
    pub fn average(&self) -> f64 {
        match self.measured {
            0 => 0.0,
            count => self.sum / count as f64,
        }
    }

    /// Standard deviation of the latencies in milliseconds.
    pub fn standard_deviation(&self) -> f64 {
        match self.measured {
            0 => 0.0,
            count => {
                let variance = self.sum_of_squares / count as f64 - self.average().powi(2);
                variance.max(0.0).sqrt()
            }
        }
    }

    fn measure(&mut self, latency: Duration) {
        let ms = latency.as_secs_f64() * 1000.0;
        self.current = ms;
        self.sum += ms;
        self.sum_of_squares += ms * ms;
        self.measured += 1;
        let (least, most) = self.range.unwrap_or((ms, ms));
        self.range = Some((least.min(ms), most.max(ms)));
    }
}

impl Followers {
    /// The followers with their ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Follower)> {
        self.0.iter().map(|(id, follower)| (NodeId(*id), follower))
    }

    /// Clears the statistics when the term or the leader changes.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A message is sent to a follower. If it is a heartbeat, and no other one is being measured, its latency is
    /// measured.
    pub(super) fn sent(&mut self, to: NodeId, body: &Body, now: Monotonic) {
        let follower = self.0.entry(to.0).or_default();
        if let Body::Heartbeat { round, .. } = body
            && follower.asked.is_none()
        {
            follower.asked = Some((*round, now));
        }
    }

    /// A message has arrived. Messages of other nodes than followers are not counted. If it answers the heartbeat that
    /// is being measured, returns the latency.
    pub(super) fn received(
        &mut self,
        from: NodeId,
        body: &Body,
        now: Monotonic,
    ) -> Option<Duration> {
        let follower = self.0.get_mut(&from.0)?;
        match body {
            Body::HeartbeatReply { round } => {
                follower.success += 1;
                if let Some((asked, since)) = follower.asked
                    && *round >= asked
                {
                    follower.asked = None;
                    follower.measure(now - since);
                    return Some(now - since);
                }
            }
            Body::Accepted { .. } | Body::Refused { .. } => follower.success += 1,
            _ => {}
        }
        None
    }

    /// The connection broke, or messages were dropped.
    pub(super) fn failed(&mut self, node: NodeId) {
        if let Some(follower) = self.0.get_mut(&node.0) {
            follower.fail += 1;
            follower.asked = None;
        }
    }

    /// Removes the statistics of nodes that are no longer members.
    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.0.retain(|id, _| is_member(NodeId(*id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Position;

    const OTHER: NodeId = NodeId(2);

    fn heartbeat(round: u64) -> Body {
        Body::Heartbeat {
            round,
            commit: Position::default(),
        }
    }

    #[test]
    fn a_latency_is_from_a_heartbeat_to_its_answer() {
        let (mut followers, start) = (Followers::default(), Monotonic(1 << 40));
        let ms = Duration::from_millis;
        followers.sent(OTHER, &heartbeat(1), start);
        followers.sent(OTHER, &heartbeat(2), start + ms(50));
        followers.received(OTHER, &Body::HeartbeatReply { round: 1 }, start + ms(10));
        followers.sent(OTHER, &heartbeat(3), start + ms(100));
        followers.received(OTHER, &Body::HeartbeatReply { round: 2 }, start + ms(101));
        followers.received(OTHER, &Body::HeartbeatReply { round: 3 }, start + ms(130));
        let (_, shown) = followers.iter().next().expect("one follower");
        assert_eq!((shown.success, shown.fail), (3, 0));
        assert_eq!(shown.range, Some((10.0, 30.0)));
        assert_eq!((shown.current, shown.average()), (30.0, 20.0));
        assert!((shown.standard_deviation() - 10.0).abs() < 1e-9);
    }

    /// The reply to a heartbeat of the old connection may arrive after the next one is sent.
    #[test]
    fn a_broken_connection_is_no_latency() {
        let (mut followers, start) = (Followers::default(), Monotonic(1 << 40));
        followers.sent(OTHER, &heartbeat(1), start);
        followers.failed(OTHER);
        let later = start + Duration::from_secs(9);
        followers.sent(OTHER, &heartbeat(2), later);
        let reply = Body::HeartbeatReply { round: 2 };
        let took = followers.received(OTHER, &reply, later + Duration::from_millis(5));
        assert_eq!(took, Some(Duration::from_millis(5)));
    }

    #[test]
    fn strangers_count_nowhere_and_failures_are_counted() {
        let (mut followers, now) = (Followers::default(), Monotonic(1 << 40));
        followers.received(OTHER, &Body::HeartbeatReply { round: 1 }, now);
        assert_eq!(followers.iter().count(), 0);
        followers.sent(OTHER, &heartbeat(1), now);
        followers.failed(OTHER);
        let (_, shown) = followers.iter().next().expect("one follower");
        assert_eq!((shown.fail, shown.range), (1, None));
        followers.retain(|_| false);
        assert_eq!(followers.iter().count(), 0);
    }
}
