//! `/v2/stats/self`, `/v2/stats/leader` and `/v2/stats/store` (spec §12).

use super::Api;
use super::answer;
use super::cors::Grant;
use crate::engine::followers::Follower;
use crate::http1::{Answer, Reply, Request};
use crate::raft::Role;
use crate::tree::LocalStats;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

const ALLOW: &str = "GET";

/// Handles a request for one page of `/v2/stats`.
pub fn handle(api: &Api, request: &Request<'_>, page: Page, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed(ALLOW, grant));
    }
    reply.send(match page {
        Page::Itself => itself(api, grant),
        Page::Leader => leader(api, grant),
        Page::Store => store(api, grant),
    });
}

/// The three pages.
#[derive(Debug, Clone, Copy)]
pub enum Page {
    Itself,
    Leader,
    Store,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Itself<'a> {
    name: &'a str,
    id: String,
    state: &'a str,
    start_time: String,
    leader_info: LeaderInfo,
    #[serde(rename = "recvAppendRequestCnt")]
    received: u64,
    #[serde(rename = "recvPkgRate", skip_serializing_if = "is_zero")]
    received_rate: f64,
    #[serde(rename = "recvBandwidthRate", skip_serializing_if = "is_zero")]
    received_bandwidth: f64,
    #[serde(rename = "sendAppendRequestCnt")]
    sent: u64,
    #[serde(rename = "sendPkgRate", skip_serializing_if = "is_zero")]
    sent_rate: f64,
    #[serde(rename = "sendBandwidthRate", skip_serializing_if = "is_zero")]
    sent_bandwidth: f64,
}

fn is_zero(rate: &f64) -> bool {
    *rate == 0.0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderInfo {
    leader: String,
    uptime: String,
    start_time: String,
}

fn itself(api: &Api, grant: &Grant) -> Answer {
    let status = api.replica.status();
    let leader_since = status.leader_since();
    let uptime = SystemTime::now()
        .duration_since(leader_since)
        .unwrap_or_default();
    let received = api.traffic.appends_received();
    let sent = api.traffic.appends_sent();
    let page = Itself {
        name: &api.info.name,
        id: format!("{:x}", status.id().0),
        state: role(status.role()),
        start_time: rfc3339(api.info.started),
        leader_info: LeaderInfo {
            leader: status
                .leader()
                .map_or(String::new(), |id| format!("{:x}", id.0)),
            uptime: duration(uptime),
            start_time: rfc3339(leader_since),
        },
        received: received.count,
        received_rate: received.rate,
        received_bandwidth: received.bandwidth,
        sent: sent.count,
        sent_rate: sent.rate,
        sent_bandwidth: sent.bandwidth,
    };
    json(&page, grant)
}

#[derive(Serialize)]
struct Leader {
    leader: String,
    followers: BTreeMap<String, FollowerStats>,
}

#[derive(Serialize)]
struct FollowerStats {
    latency: Latency,
    counts: Counts,
}

/// In milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    current: f64,
    average: f64,
    standard_deviation: f64,
    minimum: serde_json::Number,
    maximum: f64,
}

#[derive(Serialize)]
struct Counts {
    fail: u64,
    success: u64,
}

/// The reference's value for the minimum before the first sample: its largest integer, rounded.
const NO_MINIMUM: u64 = 1 << 63;

/// In a cluster of one, this node is the leader and has no followers.
fn leader(api: &Api, grant: &Grant) -> Answer {
    let status = api.replica.status();
    if !status.is_leader() {
        return answer::message(403, "not current leader", grant);
    }
    let seen = status.followers();
    let followers = seen
        .iter()
        .map(|(id, follower)| (format!("{:x}", id.0), follower_stats(follower)));
    let page = Leader {
        leader: format!("{:x}", status.id().0),
        followers: followers.collect(),
    };
    json(&page, grant)
}

fn follower_stats(follower: &Follower) -> FollowerStats {
    let least = follower.range.map(|(least, _)| least);
    let minimum = least.and_then(serde_json::Number::from_f64);
    FollowerStats {
        latency: Latency {
            current: follower.current,
            average: follower.average(),
            standard_deviation: follower.standard_deviation(),
            minimum: minimum.unwrap_or(NO_MINIMUM.into()),
            maximum: follower.range.map_or(0.0, |(_, most)| most),
        },
        counts: Counts {
            fail: follower.fail,
            success: follower.success,
        },
    }
}

fn store(api: &Api, grant: &Grant) -> Answer {
    let counted = |found| api.counts.reads(found, false) + api.counts.reads(found, true);
    let local = LocalStats {
        gets_success: counted(true),
        gets_fail: counted(false),
        watchers: api.hub.watchers() as u64,
    };
    let mut body = Vec::with_capacity(512);
    api.hub.view().tree.stats().render(&local, &mut body);
    answer::json(200, body, grant)
}

fn json(page: &impl Serialize, grant: &Grant) -> Answer {
    let body = crate::tree::json::to_vec(page).expect("statistics are plain data");
    answer::json(200, body, grant)
}

/// etcd's name for a role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "StateLeader",
        Role::Follower => "StateFollower",
        Role::Candidate => "StateCandidate",
        Role::PreCandidate => "StatePreCandidate",
    }
}

/// A time in etcd's format, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    // Conversion fails only for a clock far outside the calendar.
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A duration in etcd's format: `1h2m3.5s`, `1.5ms`, `0s`.
fn duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    if nanos < 1_000_000_000 {
        let (unit, name) = match nanos {
            0 => return "0s".into(),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{name}", decimal(nanos, unit));
    }
    let (hours, minutes) = (span.as_secs() / 3600, span.as_secs() / 60 % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    text + &decimal(nanos % 60_000_000_000, 1_000_000_000) + "s"
}

/// `number / unit` without trailing zeros.
fn decimal(number: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", number / unit, number % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_like_the_references() {
        let table = [
            (0, "0s"),
            (900, "900ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (17_389_913_175_009, "4h49m49.913175009s"),
        ];
        for (nanos, wanted) in table {
            assert_eq!(duration(Duration::from_nanos(nanos)), wanted);
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500_000_000_250);
        assert_eq!(rfc3339(time), "2017-07-14T02:40:00.25Z");
    }
}
