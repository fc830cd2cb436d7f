//! The server continues to accept connections when descriptors or memory run out.

use crate::child::{Child, Settings};
use crate::support::{Client, Place, eventually};
use edgetcd::http1::Limits;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Far more clients than descriptors, and no limit on connections. A quarter of the descriptors stays free for the rest
/// of the process, and clients are refused until others disconnect.
#[test]
fn accepting_goes_on_when_descriptors_are_there_again() {
    let child = Child::start(Settings {
        descriptors: 128,
        connections: 100_000,
    });
    let clients: Vec<_> = (0..400)
        .map(|_| TcpStream::connect(child.address))
        .collect();
    assert!(clients.iter().all(Result::is_ok), "the backlog takes them");
    eventually("no descriptor is left for connections", || {
        child.descriptors() >= 96
    });
    let (before, start) = (child.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let used = child.cpu() - before;
    assert!(
        used < start.elapsed() / 10,
        "it spins: {used:?} of CPU in {:?}",
        start.elapsed()
    );
    assert!(child.descriptors() < 128, "{}", child.descriptors());
    drop(clients);
    let start = Instant::now();
    child.serves();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "served after {:?}",
        start.elapsed()
    );
}

#[test]
fn the_cap_follows_from_the_descriptors() {
    let child = Child::start(Settings {
        descriptors: 128,
        connections: 0,
    });
    let mut clients: Vec<_> = (0..100).map(|_| child.client()).collect();
    // Parked clients keep their places. One of the 56 may be the child's own first client.
    for client in &mut clients[..55] {
        client.get("/park");
        client.head();
    }
    let refused = clients.last_mut().expect("some").answer();
    assert_eq!(refused.status, 503);
    drop(clients);
    eventually("there is room again", || {
        child
            .client()
            .ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
            .status
            == 200
    });
}

#[test]
fn a_client_too_many_is_told_so() {
    let place = Place::open(
        2,
        Limits {
            connections: 10,
            reserve: 0,
            ..Limits::default()
        },
    );
    let mut held: Vec<_> = (0..10).map(|_| place.client()).collect();
    for client in &mut held {
        client.get("/park");
        client.head();
    }
    eventually("all are there", || place.http_server.stats().open == 10);
    for refused in 1..=50 {
        let mut client = place.client();
        let answer = client.answer();
        assert_eq!(
            (answer.status, &answer.body[..]),
            (503, &b"503 Service Unavailable"[..])
        );
        client.is_closed();
        assert_eq!(place.http_server.stats().refused, refused);
    }
}

/// The handler marks `/hello` as vital.
#[test]
fn a_few_beyond_the_cap_are_served_what_is_vital() {
    let limits = Limits {
        connections: 10,
        reserve: 2,
        reserve_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let mut held: Vec<_> = (0..10).map(|_| place.client()).collect();
    for client in &mut held {
        client.get("/park");
        client.head();
    }
    for _ in 0..20 {
        let mut client = place.client();
        client.is_served();
        client.is_closed();
        let mut other = place.client();
        other.get("/bytes?1");
        assert_eq!(other.answer().status, 503);
    }
    // Connections that send nothing are closed, with a reason, to make room for those that send a request.
    let mut silent: Vec<_> = (0..30).map(|_| place.client()).collect();
    eventually("one that asks is served", || {
        let mut client = place.client();
        client.get("/hello");
        client.rest().starts_with(b"HTTP/1.1 200 OK")
    });
    let last = silent.last_mut().expect("some").rest();
    assert!(last.is_empty() || last.starts_with(b"HTTP/1.1 503 "));
    eventually("the reserve is free", || {
        let mut client = place.client();
        client.get("/hello");
        client.rest().starts_with(b"HTTP/1.1 200 OK")
    });
    assert_eq!(place.http_server.stats().open, 10);
}

#[test]
fn connections_are_shared_out_evenly() {
    // Each worker answers only its own clients: a worker that accepts all others would have to serve them all.
    let place = Place::open(4, Limits::default());
    let clients: Vec<Client> = (0..100).map(|_| place.client()).collect();
    eventually("all are there", || place.http_server.stats().open == 100);
    assert_eq!(place.http_server.connections_by_worker(), [25, 25, 25, 25]);
    drop(clients);
    eventually("all have gone", || place.http_server.stats().open == 0);
}

#[test]
fn ten_thousand_clients_that_reset_leave_nothing() {
    let child = Child::start(Settings::default());
    let (descriptors, threads) = (child.descriptors(), child.threads());
    for round in 0..10_000 {
        let mut client = child.client();
        match round % 5 {
            0 => {}
            1 => client.get("/park"),
            2 => client.send("PUT /a HTTP/1.1\r\nContent-Le"),
            3 => client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhell"),
            _ => client.get("/later?x"),
        }
        client.reset();
    }
    child.serves();
    // Fewer, if the child's own first client was still connected when the descriptors were counted.
    eventually("descriptors are back", || {
        child.descriptors() <= descriptors
    });
    assert_eq!(child.threads(), threads);
}
