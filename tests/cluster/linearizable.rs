//! Five clients and several watchers use random members while a nemesis causes one fault after another. Their
//! observations must fit one order of events.
//!
//! | parameter               | default |                                              |
//! |-------------------------|--------:|----------------------------------------------|
//! | `NEMESIS_SECONDS`       |      20 | duration; the full test has 60               |
//! | `NEMESIS_NODES`         |       3 |                                              |
//! | `NEMESIS_SEED`          |       1 | the order of faults and requests             |
//! | `NEMESIS_SNAPSHOTS`     | 100,000 | `--snapshot-count`; few: many snapshots      |
//!
//! The test checks every response ([`crate::order`] and [`crate::search`]: linearizable, no acknowledged write lost,
//! none applied twice). It checks that a node's `X-Etcd-Index` and `X-Raft-Term` never decrease, even across restarts
//! ([`crate::history`]), and that watchers see every event once and in order ([`crate::watchers`]). At the end, the
//! keys of all nodes must agree with the events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use crate::harness::{Cluster, Json, Random, setting};
use crate::history::{Operation, Outcome, ROOT, Recorder, act_until_stopped};
use crate::nemesis;
use crate::order;
use crate::search;
use crate::support::{alone, setting_seconds};
use crate::watchers::{END, Log, Stream, follow, stream};

const CLIENTS: u64 = 5;
const FOLLOWERS: u64 = 3;

#[test]
fn what_clients_see_under_a_nemesis_has_one_order() {
    let _alone = alone();
    let seed = setting("NEMESIS_SEED", 1);
    let time = setting_seconds("NEMESIS_SECONDS", 20);
    let nodes = setting("NEMESIS_NODES", 3) as usize;
    let snapshots = format!("--snapshot-count={}", setting("NEMESIS_SNAPSHOTS", 100_000));
    let mut noise = Random(seed);
    // Without root, the nemesis can still kill processes.
    let mut cluster = match rustix::process::geteuid().is_root() {
        true => Cluster::linked(nodes, &[&snapshots]),
        false => Cluster::start(nodes, &[&snapshots]),
    };

    let seen = watch_and_write(&mut cluster, time, &mut noise);
    let Seen { history, log, .. } = &seen;
    let streamed: usize = seen.streams.iter().map(|one| one.check(log)).sum();
    order::check(history, log);
    search::check(history);
    for node in 0..nodes {
        cluster.wait_value(node, &format!("{ROOT}/end"), END, Duration::from_secs(30));
        assert_holds_what_happened(&cluster, node, log);
    }
    println!(
        "seed {seed}: {} events, {streamed} streamed; {}",
        log.len(),
        summary(history)
    );
    let unknown = count(history, |outcome| matches!(outcome, Outcome::Unknown));
    assert!(
        history.len() > unknown * 2,
        "too little is known: {}",
        summary(history)
    );
}

/// The observations of clients, followers and streams.
struct Seen {
    history: Vec<Operation>,
    log: Log,
    streams: Vec<Stream>,
}

/// Stops the threads that observe the cluster, also if the test fails.
struct EndsWith<'a>(&'a Recorder, &'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.stop();
        self.1.store(true, Ordering::Relaxed);
    }
}

fn watch_and_write(cluster: &mut Cluster, time: Duration, noise: &mut Random) -> Seen {
    let start = cluster.put(0, &format!("{ROOT}/start"), END);
    let (addresses, nodes) = (cluster.addresses(), cluster.len());
    let (recorder, stop) = (&Recorder::new(nodes), &AtomicBool::new(false));
    let addresses = &addresses[..];
    scope(|threads| {
        let ending = EndsWith(recorder, stop);
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|_| noise.next())
            .map(|seed| threads.spawn(move || follow(addresses, start, seed, stop)))
            .collect();
        let streams: Vec<_> = (0..nodes)
            .map(|node| threads.spawn(move || stream(addresses[node], node, stop)))
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| (number, noise.next()))
            .map(|(number, seed)| {
                threads.spawn(move || act_until_stopped(recorder, addresses, number, seed))
            })
            .collect();

        nemesis::rage(cluster, time, noise);
        recorder.stop();
        let histories = clients.into_iter().map(|one| one.join().expect("a client"));
        let history = histories.flatten().collect();
        let end = cluster.put(cluster.wait_leader(), &format!("{ROOT}/end"), END);
        let mut logs = followers
            .into_iter()
            .map(|one| one.join().expect("a follower"));
        let log = logs.next().expect("a follower");
        logs.for_each(|other| assert_same_log(&log, &other));
        assert_eq!(log.last_key_value().map(|(index, _)| *index), Some(end));
        drop(ending);
        let streams = streams
            .into_iter()
            .flat_map(|one| one.join().expect("streams"));
        Seen {
            history,
            log,
            streams: streams.collect(),
        }
    })
}

fn assert_same_log(one: &Log, other: &Log) {
    let differ = |a: &Log, b: &Log| -> Vec<String> {
        let missing = a
            .iter()
            .filter(|(index, event)| b.get(index) != Some(event));
        missing
            .map(|(index, event)| format!("{index}: {event:?}"))
            .collect()
    };
    let (left, right) = (differ(one, other), differ(other, one));
    assert!(
        left.is_empty() && right.is_empty(),
        "two followers received different events:\n{left:?}\n{right:?}"
    );
}

/// Checks that a node's keys are the result of the events.
fn assert_holds_what_happened(cluster: &Cluster, node: usize, log: &Log) {
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for event in log.values() {
        match &event.value {
            Some(value) => expected.insert(event.key.clone(), value.clone()),
            None => expected.remove(&event.key),
        };
    }
    let answer = cluster
        .node(node)
        .ask("GET", &format!("/v2/keys{ROOT}?recursive=true"), None);
    let document = answer.json();
    let mut waiting = vec![document.get("node").expect("a node")];
    let mut actual = BTreeMap::new();
    while let Some(found) = waiting.pop() {
        let text = |name| found.get(name).and_then(Json::text).map(str::to_owned);
        if let (Some(key), Some(value)) = (text("key"), text("value")) {
            actual.insert(key, value);
        }
        waiting.extend(found.get("nodes").map(Json::items).unwrap_or_default());
    }
    // Written before the first event that the watchers receive.
    actual.remove(&format!("{ROOT}/start"));
    assert_eq!(
        expected, actual,
        "what happened, and what node {node} holds"
    );
}

fn summary(history: &[Operation]) -> String {
    format!(
        "{} operations: {} changes, {} found, {} absent, {} refused, {} unknown",
        history.len(),
        count(history, |outcome| matches!(
            outcome,
            Outcome::Written { .. }
        )),
        count(history, |outcome| matches!(outcome, Outcome::Found { .. })),
        count(history, |outcome| matches!(outcome, Outcome::Absent { .. })),
        count(history, |outcome| matches!(
            outcome,
            Outcome::Refused { .. }
        )),
        count(history, |outcome| matches!(outcome, Outcome::Unknown)),
    )
}

fn count(history: &[Operation], kind: impl Fn(&Outcome) -> bool) -> usize {
    history
        .iter()
        .filter(|operation| kind(&operation.outcome))
        .count()
}
