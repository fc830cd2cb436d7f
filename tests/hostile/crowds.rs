//! Many connections at once: watches, idle ones, and long listings.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::attacks::open_with;
use crate::bystander::{BYSTANDER_BAR, Bystander, alone, raise_descriptor_limit};
use crate::harness::client::{PATIENCE, form_request};
use crate::harness::server::is_release;
use crate::harness::{Answer, Connection, Json, Line, Server, setting, wait_for};
use crate::transport::{CONNECTIONS, CROWD_WITHIN, IDLE_BAR, WATCH_BAR, start};

#[test]
fn abandoned_watches_are_forgotten_and_threads_do_not_grow() {
    let _alone = alone();
    let server = start();
    server.ask("PUT", "/v2/keys/a?value=1", None);
    let process = server.process();
    let (descriptors, threads) = (process.descriptors(), process.threads());
    let watches = open_watches(&server, 2000);
    assert_eq!(watchers(&server), 2000);
    // A thread of the start may end meanwhile.
    let parked = process.threads();
    assert!(parked <= threads, "{parked} threads, {threads} before");
    assert!(process.descriptors() > 2000);
    drop(watches);
    let start = Instant::now();
    wait_for(
        "descriptors and watches to be given back",
        Duration::from_secs(2),
        || (process.descriptors() <= descriptors + 2 && watchers(&server) == 0).then_some(()),
    );
    println!(
        "2,000 abandoned watches were forgotten after {:?}",
        start.elapsed()
    );
    assert!(process.threads() <= threads);
}

/// The number of open watches, as reported by the server.
fn watchers(server: &Server) -> u64 {
    let stats = server.ask("GET", "/v2/stats/store", None).json();
    stats
        .get("watchers")
        .and_then(Json::number)
        .expect("a number of watchers")
}

#[test]
fn two_hundred_watches_at_once_twenty_times() {
    let _alone = alone();
    let mut server = start();
    let bystander = Bystander::start(&server);
    for round in 0..20 {
        let bytes = form_request("GET", "/v2/keys/crowd?wait=true", None);
        let start = Instant::now();
        let mut crowd = open_with(&server, 200, &bytes);
        for watch in &mut crowd {
            let left = CROWD_WITHIN.saturating_sub(start.elapsed());
            let head = watch
                .head(false, left)
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(head.status, 200);
        }
        server.ask("PUT", "/v2/keys/crowd?value=all", None);
        for watch in &mut crowd {
            let answer = watch.line(PATIENCE);
            assert!(matches!(answer, Line::Is(_)), "round {round}: {answer:?}");
        }
    }
    bystander.finish("20 rounds of 200 watches at once", &mut server);
}

/// A client cannot block a worker: neither with a long listing that it reads or does not read, nor with many waiting
/// requests.
#[test]
fn stalled_listings_beside_a_thousand_watches() {
    let _alone = alone();
    let mut server = start();
    let (keys, bar) = if is_release() {
        (100_000, Duration::from_millis(20))
    } else {
        (5_000, BYSTANDER_BAR)
    };
    fill(&server, keys);
    let watches = open_watches(&server, 1000);
    let bystander = Bystander::start(&server);
    let bytes = form_request("GET", "/v2/keys/many", None);
    let mut readers = open_with(&server, 10, &bytes);
    sleep(Duration::from_millis(1500));
    bystander.finish_within("ten stalled listings", &mut server, bar);
    for reader in &mut readers {
        let answer = reader.answer(false, PATIENCE).expect("the whole listing");
        assert_eq!(answer.text().matches("\"value\"").count() as u64, keys);
    }
    drop(watches);
}

/// Creates many small keys in one directory, over sixteen connections.
fn fill(server: &Server, keys: u64) {
    let write = |writer: u64| {
        let mut connection = server.connect();
        for number in (writer..keys).step_by(16) {
            let target = format!("/v2/keys/many/{number}?value=x");
            let answer = connection.ask("PUT", &target, None).expect("an answer");
            assert_eq!(answer.status, 201);
        }
    };
    let write = &write;
    scope(|scope| {
        for writer in 0..16 {
            scope.spawn(move || write(writer));
        }
    });
}

#[test]
fn idle_connections_and_parked_watches_are_cheap() {
    let _alone = alone();
    let room = raise_descriptor_limit().saturating_sub(200);
    let count = setting("HOSTILE_CONNECTIONS", CONNECTIONS).min(room);
    for (what, bar, watching) in [
        ("idle connection", IDLE_BAR, false),
        ("parked watch", WATCH_BAR, true),
    ] {
        let server = start();
        drop(open_watches(&server, 100));
        let before = server.process().resident_bytes();
        let held = if watching {
            open_watches(&server, count)
        } else {
            open_idle(&server, count)
        };
        let each = server.process().resident_bytes().saturating_sub(before) / count;
        println!("{each} bytes of memory for each {what}, of {count}");
        assert!(each < bar, "{each} bytes for each {what}");
        drop(held);
    }
}

/// Connections on which one request was answered, and no further ones are sent.
fn open_idle(server: &Server, count: u64) -> Vec<Connection> {
    let one = |_| {
        let mut connection = server.connect();
        let answer: Answer = connection.ask("GET", "/version", None).expect("an answer");
        assert_eq!(answer.status, 200);
        connection
    };
    (0..count).map(one).collect()
}

fn open_watches(server: &Server, count: u64) -> Vec<Connection> {
    let one = |number| {
        let mut connection = server.connect();
        let target = format!("/v2/keys/parked/{}?wait=true", number % 100);
        connection
            .write(&form_request("GET", &target, None))
            .expect("a request");
        assert_eq!(
            connection.head(false, PATIENCE).expect("a head").status,
            200
        );
        connection
    };
    (0..count).map(one).collect()
}
