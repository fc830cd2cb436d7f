//! A backup made during writes is one point in the order of writes: it contains everything acknowledged up to its
//! index, and nothing after it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::client::form_request;
use crate::harness::{Cluster, Connection, Json, Server, wait_for};
use crate::support::{PATIENCE, all_endpoints, folder, number, put, restore_alone, save};

const WRITERS: usize = 8;
const BACKUPS: usize = 3;

/// One acknowledged write: its index, its key, its value.
type Written = (u64, String, String);

/// Writes `a`, then `b`, with the same number. `newest` is the last acknowledged index.
fn write_pairs(
    writer: usize,
    address: SocketAddr,
    stop: &AtomicBool,
    newest: &AtomicU64,
) -> Vec<Written> {
    let mut connection = Connection::open(address).expect("a connection");
    let mut written = Vec::new();
    for round in 0.. {
        for half in ["a", "b"] {
            let (key, value) = (format!("/w{writer}/{half}"), round.to_string());
            let index = put(&mut connection, &key, &value).index();
            newest.fetch_max(index, Ordering::SeqCst);
            written.push((index, key, value));
        }
        if stop.load(Ordering::SeqCst) {
            break;
        }
    }
    written
}

#[test]
fn a_backup_is_one_point_of_the_order_of_writes() {
    let cluster = Cluster::start(3, &[]);
    let folder = folder();
    let (stop, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    let (written, backups) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let address = cluster.node(writer % 3).address();
                let (stop, newest) = (&stop, &newest);
                scope.spawn(move || write_pairs(writer, address, stop, newest))
            })
            .collect();
        let mut backups = Vec::new();
        for backup in 0..BACKUPS {
            let more = newest.load(Ordering::SeqCst) + 100;
            wait_for("some writes", PATIENCE, || {
                (newest.load(Ordering::SeqCst) > more).then_some(())
            });
            let file = folder.path().join(format!("{backup}.snap"));
            let acknowledged = newest.load(Ordering::SeqCst);
            let saved = save(&all_endpoints(&cluster), &file);
            backups.push((file, acknowledged, number(&saved, "index")));
        }
        stop.store(true, Ordering::SeqCst);
        let written = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"));
        (written.flatten().collect::<Vec<Written>>(), backups)
    });
    for (file, acknowledged, index) in backups {
        assert!(
            index >= acknowledged,
            "{index} misses what {acknowledged} had"
        );
        let server = Server::prepare(&[]);
        restore_alone(&server, &file, &["--bump-index", "0"]);
        holds_all_up_to(server, index, &written);
    }
}

fn holds_all_up_to(mut server: Server, index: u64, written: &[Written]) {
    let mut expected: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (at, key, value) in written.iter().filter(|(at, ..)| *at <= index) {
        let newest = expected.entry(key).or_default();
        if *at > newest.0 {
            *newest = (*at, value);
        }
    }
    server.launch();
    let listing = server.ask("GET", "/v2/keys/?recursive=true", None);
    // The restored member's name and URLs also take an index.
    assert_eq!(listing.index(), index + 1);
    let mut found = BTreeMap::new();
    let json = listing.json();
    for folder in json.at("/node/nodes").expect("folders").items() {
        for node in folder.get("nodes").expect("keys").items() {
            let text = |name: &str| {
                node.get(name)
                    .and_then(Json::text)
                    .expect("text")
                    .to_owned()
            };
            let modified = node.get("modifiedIndex").and_then(Json::number);
            found.insert(text("key"), (modified.expect("an index"), text("value")));
        }
    }
    let found: BTreeMap<&str, (u64, &str)> = found
        .iter()
        .map(|(key, (at, value))| (key.as_str(), (*at, value.as_str())))
        .collect();
    assert_eq!(found, expected, "at index {index}");
    // The next write gets the next index, so indexes are never used twice.
    let next = server.ask("PUT", "/v2/keys/next?value=x", None);
    assert_eq!(next.index(), index + 2);
    let (status, _) = {
        server.signal(rustix::process::Signal::TERM);
        server.wait_end(Duration::from_secs(10))
    };
    assert!(status.success());
}

/// A member that hung for a moment does not know which writes it has missed. Its backup contains them anyway.
#[test]
fn a_member_that_lags_asks_before_it_hands_out() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let lagging = cluster.others(leader)[0];
    for _ in 0..5 {
        let mut connection = cluster.node(lagging).connect();
        cluster.pause(lagging);
        let mut writer = cluster.node(leader).connect();
        let mut last = 0;
        for value in 0..50 {
            last = put(&mut writer, "/counter", &value.to_string()).index();
        }
        // The request is already in the socket when the member continues.
        connection
            .write(&form_request("GET", "/edgetcd/snapshot", None))
            .expect("sent");
        cluster.resume(lagging);
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let index = answer.index();
        assert!(
            index >= last,
            "index {index}, and {last} was acknowledged before"
        );
    }
}
