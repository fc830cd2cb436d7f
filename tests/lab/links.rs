//! The links of `edgetcd-lab cluster`, as the nodes' own records show them, and a node that has lost its data.

use crate::real::{Lab, until};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

const DELAY_MS: u64 = 700;
/// A message that has passed the link before a cut may be recorded so much later.
const ON_THE_WAY_MICROS: u64 = 200_000;

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

#[test]
fn a_link_is_cut_in_one_direction() {
    let lab = Lab::start();
    lab.wait_running(3);
    let leader = lab.leader();
    let follower = leader % 3 + 1;
    let (leader_id, follower_id) = (
        lab.member(leader)["id"].clone(),
        lab.member(follower)["id"].clone(),
    );
    let heard = |since| {
        !times(
            &lab.records(follower),
            "received",
            ("from", &leader_id),
            "heartbeat",
            since,
        )
        .is_empty()
    };
    until("heartbeats", || heard(0).then_some(()));
    lab.act(&format!("cut {leader} {follower}"));
    let cut = now_micros();
    // The follower receives no message, and asks for votes. The leader gets that, and its heartbeats go on.
    until("a question for votes, against the cut", || {
        let asked = times(
            &lab.records(leader),
            "received",
            ("from", &follower_id),
            "pre-vote",
            cut,
        );
        (!asked.is_empty()).then_some(())
    });
    until("heartbeats that are sent", || {
        let sent = times(
            &lab.records(leader),
            "sent",
            ("to", &follower_id),
            "heartbeat",
            cut,
        );
        (sent.len() >= 5).then_some(())
    });
    assert!(
        !heard(cut + ON_THE_WAY_MICROS),
        "the follower has heard the leader"
    );
    let status = lab.read(leader, "/edgetcd/status").expect("it answers");
    assert_eq!(
        status["leader"], leader_id,
        "the third member hears the leader"
    );
    lab.act(&format!("heal {leader} {follower}"));
    until("heartbeats again", || {
        heard(cut + ON_THE_WAY_MICROS).then_some(())
    });
}

#[test]
fn a_link_is_delayed_in_one_direction() {
    let lab = Lab::start();
    lab.wait_running(3);
    let leader = lab.leader();
    let follower = leader % 3 + 1;
    let (leader_id, follower_id) = (
        lab.member(leader)["id"].clone(),
        lab.member(follower)["id"].clone(),
    );
    lab.act(&format!("delay {leader} {follower} {DELAY_MS}"));
    let key = lab.read(leader, "/edgetcd/status").expect("it answers");
    let before = key["log"]["last"].as_u64().expect("an index");
    let url = format!(
        "{}/v2/keys/a",
        lab.member(leader)["client_urls"][0]
            .as_str()
            .expect("a URL")
    );
    ureq::post(&url)
        .send_form([("value", "v")])
        .expect("it is written");
    // The entry after it.
    let of_entry = |records: Vec<Value>, kind: &str, field: &str, id: &Value| {
        let fits = |record: &&Value| {
            record["kind"] == kind
                && record[field] == *id
                && record["what"] == "append"
                && record["first"] == before + 1
        };
        records
            .iter()
            .find(fits)
            .and_then(|record| record["at"].as_u64())
    };
    let sent = until("the entry on its way", || {
        of_entry(lab.records(leader), "sent", "to", &follower_id)
    });
    let received = until("the entry at the follower", || {
        of_entry(lab.records(follower), "received", "from", &leader_id)
    });
    let took = received.saturating_sub(sent) / 1000;
    assert!(took >= DELAY_MS, "the entry took {took} ms");
    let answered = until("the answer", || {
        let received = lab.records(leader);
        let fits = |record: &&Value| {
            record["kind"] == "received"
                && record["from"] == follower_id
                && record["what"] == "append-answer"
                && record["last"] == before + 1
        };
        received
            .iter()
            .find(fits)
            .and_then(|record| record["at"].as_u64())
    });
    let back = answered.saturating_sub(received) / 1000;
    assert!(back < DELAY_MS, "the answer took {back} ms");
}

#[test]
fn a_node_without_data_says_why_it_does_not_start_and_can_join_again() {
    let lab = Lab::start();
    lab.wait_running(3);
    let leader = lab.leader();
    let lost = leader % 3 + 1;
    let id = lab.member(lost)["id"].clone();
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
    let (status, text) = lab.ask("act", Some(&format!("add {leader}")), &[]);
    assert!(
        status == 409 && text.contains("runs: kill or wipe it first"),
        "{status} {text}"
    );
    lab.act(&format!("add {lost}"));
    let added = lab.member(lost)["id"].clone();
    assert_ne!(added, id);
    until("the new member in the cluster", || {
        let status = lab.read(lost, "/edgetcd/status")?;
        (status["id"] == added && status["leader"] == lab.member(leader)["id"]).then_some(())
    });
    // Its proxy knows it by its URL.
    lab.act(&format!("cut {leader} {lost}"));
    let cut = now_micros();
    let leader_id = lab.member(leader)["id"].clone();
    until("heartbeats that are sent", || {
        let sent = times(
            &lab.records(leader),
            "sent",
            ("to", &added),
            "heartbeat",
            cut,
        );
        (sent.len() >= 5).then_some(())
    });
    let heard = times(
        &lab.records(lost),
        "received",
        ("from", &leader_id),
        "heartbeat",
        cut + ON_THE_WAY_MICROS,
    );
    assert!(heard.is_empty(), "{heard:?}");
}
