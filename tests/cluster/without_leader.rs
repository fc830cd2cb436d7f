//! The responses of a cluster without a majority, and what its last leader must not do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::harness::client::{PATIENCE, form_request};
use crate::harness::{Answer, Cluster, Connection, Json, Line, setting, wait_for};
use crate::support::{alone, ask_fresh, own_bar};

/// 5 s and two election timeouts, and some time for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(9);

#[test]
fn without_a_majority_reads_go_on_and_writes_are_refused_with_300() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let (left, others) = (cluster.others(leader)[0], cluster.others(leader));
    cluster.put(leader, "/here", "1");
    cluster.wait_value(left, "/here", "1", PATIENCE);
    for node in [leader, others[1]] {
        cluster.kill(node);
    }
    let address = cluster.node(left).address();
    let ask = |method: &str, target: &str| {
        ask_fresh(address, method, target, ANSWERED_WITHIN).expect(target)
    };
    wait_for(
        "the leader to be forgotten",
        Duration::from_secs(10),
        || (ask("GET", "/v2/members/leader").status == 503).then_some(()),
    );
    let read = ask("GET", "/v2/keys/here");
    assert_eq!(text(&read, "/node/value"), "1", "a plain read must succeed");
    for (method, target) in [
        ("PUT", "/v2/keys/here?value=2"),
        ("DELETE", "/v2/keys/here"),
        ("POST", "/v2/keys/queue?value=2"),
        ("GET", "/v2/keys/here?quorum=true"),
    ] {
        let start = Instant::now();
        let answer = ask(method, target);
        assert_eq!(answer.status, 500, "{method} {target}: {answer:?}");
        let body = answer.json();
        assert_eq!(body.get("errorCode").and_then(Json::number), Some(300));
        assert_eq!(body.get("index").and_then(Json::number), Some(0));
        let cause = text(&answer, "/cause");
        assert!(cause.starts_with("etcdserver: "), "{answer:?}");
        println!("{method} {target}: {cause} after {:?}", start.elapsed());
    }
    assert_others(&ask);
    assert_members_stay(&cluster, left, &ask);
    let mut watch = Connection::open(address).expect("a connection");
    let target = "/v2/keys/here?wait=true";
    watch
        .write(&form_request("GET", target, None))
        .expect("a request");
    assert_eq!(watch.head(false, PATIENCE).expect("a head").status, 200);
    assert_eq!(watch.line(Duration::from_millis(200)), Line::Silence);

    // The majority returns, and the watcher receives the next write.
    cluster.node_mut(others[1]).launch();
    cluster.put(left, "/here", "3");
    assert!(matches!(watch.line(PATIENCE), Line::Is(_)));
}

/// The other endpoints in the table of the contract.
fn assert_others(ask: &dyn Fn(&str, &str) -> Answer) {
    let health = ask("GET", "/health");
    assert_eq!(
        (health.status, health.text().trim()),
        (503, "{\"health\":\"false\"}")
    );
    let ready = ask("GET", "/readyz");
    assert_eq!(ready.status, 503);
    let reason = "[-]leader failed: no leader is known; are a majority of the members running and connected?\n";
    assert!(ready.text().contains(reason), "{ready:?}");
    assert_eq!(ask("GET", "/livez").status, 200);
    for target in ["/version", "/v2/members", "/v2/machines", "/v2/stats/self"] {
        assert_eq!(ask("GET", target).status, 200, "{target}");
    }
    let leader = ask("GET", "/v2/members/leader");
    assert_eq!(text(&leader, "/message"), "During election");
    let stats = ask("GET", "/v2/stats/leader");
    assert_eq!(
        (stats.status, text(&stats, "/message").as_str()),
        (403, "not current leader")
    );
}

/// Adding a member is refused at once, and no member can be removed.
fn assert_members_stay(cluster: &Cluster, node: usize, ask: &dyn Fn(&str, &str) -> Answer) {
    let start = Instant::now();
    let added = cluster.post_member(node, r#"{"peerURLs":["http://127.0.0.1:1"]}"#);
    let added = added.expect("an answer");
    assert!(start.elapsed() < Duration::from_secs(1), "it waited");
    let id = cluster.id(node, node).expect("it is a member");
    let removed = ask("DELETE", &format!("/v2/members/{id}"));
    for answer in [added, removed] {
        assert_eq!(answer.status, 500, "{answer:?}");
        assert_eq!(text(&answer, "/message"), "Internal Server Error");
    }
}

fn text(answer: &Answer, pointer: &str) -> String {
    let body = answer.json();
    let found = body.at(pointer).and_then(Json::text);
    found
        .unwrap_or_else(|| panic!("no {pointer} in {answer:?}"))
        .to_owned()
}

/// A leader that was paused during an election must not answer from its old state (etcd #20418).
#[test]
fn a_leader_that_slept_answers_no_stale_quorum_read() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let mut refused = 0;
    for round in 0..setting("STALE_ROUNDS", 3) {
        let leader = cluster.wait_leader();
        let others = cluster.others(leader);
        cluster.put(leader, "/stale", &format!("old{round}"));
        let address = cluster.node(leader).address();
        // One request is in progress when it is paused, others arrive before it continues.
        let mut early: Vec<Connection> = (0..4).map(|_| reader(address)).collect();
        early[0].write(&quorum_read()).expect("a request");
        cluster.pause(leader);
        let next = cluster.wait_leader_among(&others);
        cluster.put(next, "/stale", &format!("new{round}"));
        for connection in &mut early[1..] {
            connection.write(&quorum_read()).expect("a request");
        }
        cluster.resume(leader);
        for connection in &mut early[1..] {
            refused += u64::from(!is_fresh(connection, &format!("new{round}")));
        }
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            let mut connection = reader(address);
            connection.write(&quorum_read()).expect("a request");
            refused += u64::from(!is_fresh(&mut connection, &format!("new{round}")));
        }
    }
    println!("no stale answer; {refused} reads were refused");
}

fn reader(address: std::net::SocketAddr) -> Connection {
    Connection::open(address).expect("a connection")
}

fn quorum_read() -> Vec<u8> {
    form_request("GET", "/v2/keys/stale?quorum=true", None)
}

/// Whether the response is this value. It may be an error, but not another value.
fn is_fresh(connection: &mut Connection, value: &str) -> bool {
    let answer = connection
        .answer(false, ANSWERED_WITHIN)
        .expect("an answer");
    if answer.status == 500 {
        return false;
    }
    assert_eq!(
        text(&answer, "/node/value"),
        value,
        "a stale read: {answer:?}"
    );
    true
}

/// Writes that cannot be committed are refused, not queued.
#[test]
fn a_leader_of_a_minority_keeps_its_memory() {
    const VALUE_BYTES: usize = 4096;
    const SENDERS: u64 = 8;
    /// Stop the test at this size, before a server that queues all writes uses all memory of the machine.
    const GIVEN_UP_AT: u64 = 1 << 30;
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    cluster.put(leader, "/before", "1");
    // They are paused, not killed: their sockets still accept what the leader sends.
    for node in cluster.others(leader) {
        cluster.pause(node);
    }
    let count = setting("MINORITY_PUTS", 20_000);
    let (address, process) = (
        cluster.node(leader).address(),
        cluster.node(leader).process(),
    );
    let before = process.resident_bytes();
    let peak = AtomicU64::new(before);
    scope(|threads| {
        for number in 0..SENDERS {
            let peak = &peak;
            threads.spawn(move || {
                let target = format!("/v2/keys/minority/{number}");
                let value = format!("value={}", "v".repeat(VALUE_BYTES));
                let put = form_request("PUT", &target, Some(&value));
                for sent in 0..count / SENDERS {
                    // No client waits for the response. A refused connection is a response too.
                    let _ = Connection::open(address).and_then(|mut open| open.write(&put));
                    if sent % 16 == 0 {
                        peak.fetch_max(process.resident_bytes(), Ordering::Relaxed);
                    }
                    if peak.load(Ordering::Relaxed) > before + GIVEN_UP_AT {
                        return;
                    }
                }
            });
        }
    });
    let growth = peak.into_inner() - before;
    println!("{count} PUTs of {VALUE_BYTES} bytes: memory grew by {growth} bytes from {before}");
    // Up to 40 MiB may be uncommitted and up to 32 MiB may wait for a leader. The rest is overhead.
    let bar = 88 << 20;
    own_bar(
        growth < bar,
        &format!("grown by {growth} of at most {bar} bytes"),
    );
    for node in [0, 1, 2] {
        if node != leader {
            cluster.resume(node);
        }
    }
    let leader = cluster.wait_leader();
    cluster.put(leader, "/after", "1");
}
