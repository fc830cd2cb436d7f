//! The trace records of runs. The simulator itself compares them with the engines after each step.

use crate::sound;
use edgetcd::engine::trace::Trace;
use edgetcd::sim::{Cluster, RunRecord};
use std::collections::{BTreeMap, BTreeSet};

/// All kinds of records, and the values of `what` of those that have several.
const KINDS: [&str; 51] = [
    "start",
    "role follower",
    "role pre-candidate",
    "role candidate",
    "role leader",
    "role learner",
    "term",
    "timer",
    "timeout",
    "vote_asked",
    "vote_answer granted",
    "vote_answer newer term",
    "vote_answer has leader",
    "vote_answer voted for another",
    "vote_answer log behind",
    "vote_got",
    "vote_stored",
    "appended",
    "truncated",
    "stored",
    "sent append",
    "received pre-vote",
    "received pre-vote-answer",
    "received vote",
    "received vote-answer",
    "received append",
    "received append-answer",
    "received append-refusal",
    "received heartbeat",
    "received heartbeat-answer",
    "received commit",
    "received transfer",
    "received blank",
    "received newer-term",
    "acknowledged",
    "refused",
    "committed",
    "applied",
    "snapshot made",
    "snapshot sending",
    "snapshot sent",
    "snapshot installing",
    "snapshot installed",
    "members",
    "link",
    "forward sent",
    "forward again",
    "forward answered",
    "forward failed",
    "read asked",
    "read confirmed",
];

/// The kind of a record, as in [`KINDS`].
fn kind(record: &RunRecord) -> String {
    let kind = record.record.event.kind();
    let of = match record.record.event {
        Trace::Role { role, .. } => role.name(),
        Trace::VoteAnswer { reason, .. } => edgetcd::engine::trace::reason_name(reason),
        Trace::Sent { message, .. } | Trace::Received { message, .. } => message.what.name(),
        Trace::Snapshot { what, .. } => what.name(),
        Trace::Forward { what, .. } => what.name(),
        Trace::Read { index } => index.map_or("asked", |_| "confirmed"),
        _ => "",
    };
    format!("{kind} {of}").trim_end().to_owned()
}

fn records(seed: u64, nodes: u64) -> Vec<RunRecord> {
    let mut cluster = Cluster::new(sound(seed, nodes));
    cluster.keep_records();
    if let Err(broken) = cluster.run() {
        panic!("seed {seed}, {nodes} nodes: {broken}");
    }
    cluster.take_records()
}

/// In runs with all kinds of faults, the records agree with the engines, and every kind of record occurs.
#[test]
fn the_records_tell_what_the_engines_do() {
    let mut missing: BTreeSet<&str> = KINDS.into();
    for seed in 0..20 {
        for record in records(seed, 3 + seed % 2 * 2) {
            if !missing.is_empty() {
                missing.remove(kind(&record).as_str());
            }
        }
    }
    assert!(missing.is_empty(), "no run has {missing:?}");
}

/// A leader counts a majority of acknowledgements and its own disk before it commits. The records show it.
#[test]
fn what_is_committed_was_stored_by_a_majority() {
    let records = records(3, 3);
    let mut stored: BTreeMap<u64, u64> = BTreeMap::new();
    let mut commits = 0;
    for RunRecord { member, record, .. } in records {
        match record.event {
            Trace::Start { last, .. } => _ = stored.insert(member.0, last.0),
            Trace::Stored { last } => _ = stored.insert(member.0, last.0),
            Trace::Committed { index } => {
                commits += 1;
                let have = stored.values().filter(|last| **last >= index.0);
                assert!(have.count() >= 2, "{record:?} of {member:?}: {stored:?}");
            }
            _ => {}
        }
    }
    assert!(commits > 100, "only {commits} commits");
}

/// Records change nothing: with and without them, a seed gives the same run.
#[test]
fn records_do_not_change_a_run() {
    let hash = |keeps: bool| {
        let mut cluster = Cluster::new(sound(7, 3));
        if keeps {
            cluster.keep_records();
        }
        cluster.run().expect("nothing breaks");
        assert_eq!(cluster.take_records().is_empty(), !keeps);
        (cluster.events(), cluster.state_hash())
    };
    assert_eq!(hash(true), hash(false));
}
