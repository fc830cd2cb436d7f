//! Streams of large events: a slow client gets all events, and many clients that read nothing use little memory.

mod harness;

use harness::client::{PATIENCE, form_request};
use harness::{Connection, Line, Server, wait_for};
use std::thread;

fn stream(server: &Server, key: &str) -> Connection {
    let mut stream = server.connect();
    let target = format!("/v2/keys{key}?wait=true&recursive=true&stream=true");
    stream
        .write(&form_request("GET", &target, None))
        .expect("a request");
    assert_eq!(stream.head(false, PATIENCE).expect("a head").status, 200);
    stream
}

fn put(server: &Server, key: &str, bytes: usize) {
    let form = format!("value={}", "v".repeat(bytes));
    let answer = server.ask("PUT", &format!("/v2/keys{key}"), Some(&form));
    assert!([200, 201].contains(&answer.status), "{}", answer.status);
}

/// Each event contains the new value and the previous one.
#[test]
fn large_events_that_come_together_reach_a_stream() {
    let server = Server::start(&[]);
    for key in 0..6 {
        put(&server, &format!("/large/{key}"), 1_500_000);
    }
    let mut stream = stream(&server, "/large");
    thread::scope(|scope| {
        for key in 0..6 {
            let server = &server;
            scope.spawn(move || put(server, &format!("/large/{key}"), 1_500_000));
        }
    });
    for _ in 0..6 {
        match stream.line(PATIENCE) {
            Line::Is(line) => assert!(line.len() > 3_000_000, "{}", line.len()),
            other => panic!("{other:?}"),
        }
    }
}

/// The contract limits the unread events of one client to a hundred. The server limits the total memory of all unread
/// events.
#[test]
fn streams_that_nobody_reads_hold_a_bounded_memory() {
    let server = Server::start(&["--watch-history=10"]);
    put(&server, "/large/a", 1_000_000);
    let mut streams: Vec<Connection> = (0..40).map(|_| stream(&server, "/large")).collect();
    let before = server.process().resident_bytes();
    for _ in 0..60 {
        put(&server, "/large/a", 1_000_000);
    }
    let grown = server.process().resident_bytes().saturating_sub(before);
    assert!(grown < 250 << 20, "{} MiB", grown >> 20);
    wait_for("some of the streams to be cut", PATIENCE, || {
        server.log().contains("a stream is cut").then_some(())
    });
    // A client that reads gets complete events, up to the point where the stream was cut.
    let whole = streams
        .iter_mut()
        .all(|stream| matches!(stream.line(PATIENCE), Line::Is(_) | Line::Cut));
    assert!(whole);
    server.ask("GET", "/health", None);
}
