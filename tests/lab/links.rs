//! The links of `edgetcd-lab cluster`, as the nodes' own records show them, and a node that has lost its data.

use crate::real::{RealCluster, until};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DELAY_MS: u64 = 700;
/// Heartbeats that are lost one after the other.
const LOST: usize = 5;

fn now_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    since.as_micros() as u64
}

/// The times of the records of this kind about this member and message, from a time on.
fn times(records: &[Value], kind: &str, other: (&str, &Value), what: &str, since: u64) -> Vec<u64> {
    let (field, id) = other;
    let fits =
        |record: &&Value| record["kind"] == kind && record[field] == *id && record["what"] == what;
    let times = records
        .iter()
        .filter(fits)
        .filter_map(|record| record["at"].as_u64());
    times.filter(|at| *at >= since).collect()
}

/// A cluster of three, its leader and one of the followers.
struct Pair {
    lab: RealCluster,
    leader: usize,
    leader_id: Value,
    follower: usize,
    follower_id: Value,
}

impl Pair {
    /// Waits while the leader sends some heartbeats to a member with this id, and that member receives none. Those that
    /// were on their way before the cut may arrive first.
    fn wait_unheard(&self, id: &Value) {
        until("heartbeats that are sent and not received", || {
            let since = now_micros();
            let sent = || {
                times(
                    &self.lab.records(self.leader),
                    "sent",
                    ("to", id),
                    "heartbeat",
                    since,
                )
                .len()
            };
            until("heartbeats that are sent", || {
                (sent() >= LOST).then_some(())
            });
            (!self.heard(since)).then_some(())
        });
    }

    /// Whether the follower has received a heartbeat of the leader since then.
    fn heard(&self, since: u64) -> bool {
        let records = self.lab.records(self.follower);
        let leader = ("from", &self.leader_id);
        !times(&records, "received", leader, "heartbeat", since).is_empty()
    }

    fn start() -> Pair {
        let lab = RealCluster::start();
        lab.wait_running(3);
        let leader = lab.leader();
        let follower = leader % 3 + 1;
        let id = |number| lab.member(number)["id"].clone();
        let (leader_id, follower_id) = (id(leader), id(follower));
        Pair {
            lab,
            leader,
            leader_id,
            follower,
            follower_id,
        }
    }
}

#[test]
fn a_link_is_cut_in_one_direction() {
    let pair = Pair::start();
    let Pair {
        lab,
        leader,
        follower,
        ..
    } = &pair;
    until("heartbeats", || pair.heard(0).then_some(()));
    lab.act(&format!("cut {leader} {follower}"));
    let cut = now_micros();
    // The follower receives no message, and asks for votes. The leader gets that, and its heartbeats go on.
    until("a question for votes, against the cut", || {
        let records = lab.records(*leader);
        let asked = times(
            &records,
            "received",
            ("from", &pair.follower_id),
            "pre-vote",
            cut,
        );
        (!asked.is_empty()).then_some(())
    });
    pair.wait_unheard(&pair.follower_id);
    let status = lab.read(*leader, "/edgetcd/status").expect("it answers");
    assert_eq!(
        status["leader"], pair.leader_id,
        "the third member hears the leader"
    );
    lab.act(&format!("heal {leader} {follower}"));
    let healed = now_micros();
    until("heartbeats again", || pair.heard(healed).then_some(()));
}

#[test]
fn a_link_is_delayed_in_one_direction() {
    let pair = Pair::start();
    let (leader, follower) = (pair.leader, pair.follower);
    pair.lab
        .act(&format!("delay {leader} {follower} {DELAY_MS}"));
    // An answer may be late because the machine is busy. If the link back is delayed as well, each one is.
    until("an answer that is not delayed", || {
        let (there, back) = pair.write();
        assert!(there >= DELAY_MS, "the entry took {there} ms");
        (back < DELAY_MS).then_some(())
    });
}

impl Pair {
    /// Writes an entry. Returns how long it took to the follower, and the follower's answer back, in ms.
    fn write(&self) -> (u64, u64) {
        let status = self.lab.read(self.leader, "/edgetcd/status");
        let before = status.expect("it answers")["log"]["last"].as_u64();
        let index = before.expect("an index") + 1;
        let leader = self.lab.member(self.leader);
        let url = leader["client_urls"][0].as_str().expect("a URL");
        let request = ureq::post(format!("{url}/v2/keys/a"));
        request.send_form([("value", "v")]).expect("it is written");
        let at = |of: usize, kind: &str, (other, id): (&str, &Value), what: &str, field: &str| {
            until(&format!("{what} {index}, {kind}"), || {
                let records = self.lab.records(of);
                let fits = |record: &&Value| {
                    record["kind"] == kind
                        && record[other] == *id
                        && record["what"] == what
                        && record[field] == index
                };
                records.iter().find(fits)?["at"].as_u64()
            })
        };
        let sent = at(
            self.leader,
            "sent",
            ("to", &self.follower_id),
            "append",
            "first",
        );
        let received = at(
            self.follower,
            "received",
            ("from", &self.leader_id),
            "append",
            "first",
        );
        let answered = at(
            self.leader,
            "received",
            ("from", &self.follower_id),
            "append-answer",
            "last",
        );
        (
            received.saturating_sub(sent) / 1000,
            answered.saturating_sub(received) / 1000,
        )
    }
}

#[test]
fn a_node_without_data_says_why_it_does_not_start_and_can_join_again() {
    let pair = Pair::start();
    let Pair {
        lab,
        leader,
        follower: lost,
        follower_id: id,
        ..
    } = &pair;
    let (leader, lost) = (*leader, *lost);
    lab.act(&format!("wipe {lost}"));
    let member = lab.member(lost);
    assert!(
        member["state"] == "down" && member["said"].is_null(),
        "{member}"
    );
    lab.act(&format!("restart {lost}"));
    until("its refusal to start", || {
        let member = lab.member(lost);
        let is_refused = member["said"]
            .as_str()
            .is_some_and(|said| said.contains("its data is lost"));
        (is_refused && member["state"] == "down").then_some(())
    });
    // Only the end of its log is read: this one does not fit into any memory.
    let path = format!("nodes/n{lost}/log");
    let log = OpenOptions::new()
        .append(true)
        .open(lab.folder.path().join(path));
    let mut log = log.expect("its log");
    log.set_len(1 << 42).expect("a sparse file");
    log.write_all(b"\nedgetcd: the end\n").expect("a line");
    assert_eq!(lab.member(lost)["said"], "edgetcd: the end");
    let (status, text) = lab.ask("act", Some(&format!("add {leader}")), &[]);
    assert!(
        status == 409 && text.contains("runs: kill or wipe it first"),
        "{status} {text}"
    );
    lab.act(&format!("add {lost}"));
    let added = lab.member(lost)["id"].clone();
    assert_ne!(added, *id);
    until("the new member in the cluster", || {
        let status = lab.read(lost, "/edgetcd/status")?;
        (status["id"] == added && status["leader"] == lab.member(leader)["id"]).then_some(())
    });
    until("heartbeats", || pair.heard(0).then_some(()));
    // Its proxy knows it by its URL.
    lab.act(&format!("cut {leader} {lost}"));
    pair.wait_unheard(&added);
}
