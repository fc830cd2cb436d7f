//! Streams of large events: a slow client gets all events, and many clients that read nothing use little memory.
//!
//! The budget for unsent events is 64 MiB on a machine with at least 512 MiB of memory.

mod harness;

use harness::client::{PATIENCE, form_request};
use harness::{Connection, Line, Server, wait_for};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The budget.
const BUDGET: u64 = 64 << 20;

/// Memory that the log, the history and a snapshot may take besides.
const MARGIN: u64 = 80 << 20;

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

/// The index and the length of the next event of a stream.
fn event(stream: &mut Connection) -> (u64, usize) {
    let line = match stream.line(PATIENCE) {
        Line::Is(line) => line,
        other => panic!("{other:?}"),
    };
    let text = std::str::from_utf8(&line).expect("text");
    let (_, rest) = text.split_once("\"modifiedIndex\":").expect("an event");
    let digits = rest.find(|char: char| !char.is_ascii_digit());
    let index = rest[..digits.expect("the number ends")].parse();
    (index.expect("an index"), line.len())
}

/// The value of a metric.
fn metric(server: &Server, name: &str) -> u64 {
    let page = server.ask("GET", "/metrics", None).text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value: f64 = line
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    value as u64
}

/// Number of streams that the server has cut because of the budget.
fn cuts(server: &Server) -> u64 {
    metric(server, "edgetcd_streams_cut_total")
}

/// Each event contains the new value and the previous one. The client reads after all writes.
#[test]
fn large_events_that_come_together_reach_a_slow_reader() {
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
    let mut last = 0;
    for _ in 0..6 {
        let (index, length) = event(&mut stream);
        assert!(index > last, "{index} after {last}");
        assert!(length > 3_000_000, "{length}");
        last = index;
    }
    assert_eq!(cuts(&server), 0);
}

/// Events with the largest values that a form can hold, each with the value before.
#[test]
fn several_events_of_the_largest_values_wait_for_a_slow_reader() {
    const BYTES: usize = (10 << 20) - 100;
    let server = Server::start(&["--watch-history=10"]);
    for key in 0..3 {
        put(&server, &format!("/largest/{key}"), BYTES);
    }
    let mut stream = stream(&server, "/largest");
    for key in 0..3 {
        put(&server, &format!("/largest/{key}"), BYTES);
    }
    for _ in 0..3 {
        let (_, length) = event(&mut stream);
        assert!(length > 2 * BYTES, "{length}");
    }
}

/// An event is in memory once. Sixty streams that get the same events need no more memory than one, and stay within
/// the budget together, although their events have six times its size.
#[test]
fn streams_share_the_memory_of_their_events() {
    const EVENTS: usize = 4;
    let server = Server::start(&["--watch-history=10"]);
    put(&server, "/shared/a", 1_000_000);
    let mut streams: Vec<Connection> = (0..60).map(|_| stream(&server, "/shared")).collect();
    for _ in 0..EVENTS {
        put(&server, "/shared/a", 1_000_000);
    }
    for stream in &mut streams {
        for _ in 0..EVENTS {
            let (_, length) = event(stream);
            assert!(length > 2_000_000, "{length}");
        }
    }
    assert_eq!(cuts(&server), 0);
}

/// One client reads nothing, and fifty read: only the stream of that one is cut, and the memory is bounded.
#[test]
fn only_the_stalled_stream_is_cut() {
    const EVENTS: usize = 50;
    const VALUE: usize = 1 << 20;
    let server = Server::start(&["--watch-history=10"]);
    for _ in 0..20 {
        put(&server, "/a", VALUE);
    }
    let mut stalled = stream(&server, "/a");
    let following: Vec<Connection> = (0..50).map(|_| stream(&server, "/a")).collect();
    let counts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
    let before = server.process().resident_bytes();
    let mut most = 0;
    thread::scope(|scope| {
        for (connection, count) in following.iter().zip(&counts) {
            scope.spawn(move || count_bytes(connection, count, EVENTS * 2 * VALUE));
        }
        for number in 0..EVENTS {
            // Every reader is at most three events behind. Otherwise it would depend on the machine which of them
            // keep up.
            wait_for("the readers", 6 * PATIENCE, || {
                let least = counts
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .min();
                (least.expect("readers") / (2 * VALUE) + 3 > number).then_some(())
            });
            put(&server, "/a", VALUE);
            let unsent = metric(&server, "edgetcd_streams_unsent_bytes");
            assert!(unsent < BUDGET + 6 * VALUE as u64, "{unsent}");
            most = most.max(server.process().resident_bytes());
        }
    });
    assert_eq!(cuts(&server), 1, "{}", server.log());
    assert!(stalled.closes(PATIENCE));
    let grown = most.saturating_sub(before);
    assert!(grown < BUDGET + MARGIN, "{} MiB", grown >> 20);
    wait_for("everything to be sent", PATIENCE, || {
        (metric(&server, "edgetcd_streams_unsent_bytes") == 0).then_some(())
    });
}

/// Reads at least `total` bytes of a stream, and counts them.
fn count_bytes(connection: &Connection, count: &AtomicUsize, total: usize) {
    let mut socket = connection.stream();
    socket
        .set_read_timeout(Some(6 * PATIENCE))
        .expect("a timeout");
    let mut piece = vec![0; 256 << 10];
    while count.load(Ordering::Relaxed) < total {
        let read = socket.read(&mut piece).expect("the stream goes on");
        assert!(read > 0, "a stream that keeps up was cut");
        count.fetch_add(read, Ordering::Relaxed);
    }
}

/// Of several streams that lag, those with the most bytes are cut, whichever worker has them.
#[test]
fn the_largest_of_those_that_lag_are_cut() {
    let server = Server::start(&["--watch-history=10"]);
    put(&server, "/large", 2_000_000);
    put(&server, "/small", 200_000);
    let mut large: Vec<Connection> = (0..3).map(|_| stream(&server, "/large")).collect();
    let mut small: Vec<Connection> = (0..8).map(|_| stream(&server, "/small")).collect();
    for _ in 0..25 {
        put(&server, "/large", 2_000_000);
        put(&server, "/small", 200_000);
    }
    wait_for("a cut", PATIENCE, || (cuts(&server) > 0).then_some(()));
    for stream in &mut small {
        for _ in 0..25 {
            event(stream);
        }
    }
    assert_eq!(cuts(&server), 3);
    assert!(large.iter_mut().all(|stream| stream.closes(PATIENCE)));
}

/// The contract limits the unread events of one client to a hundred. The server limits the total memory of all unread
/// events.
#[test]
fn streams_that_nobody_reads_hold_a_bounded_memory() {
    const STREAMS: usize = 12;
    let server = Server::start(&["--watch-history=10"]);
    let keys: Vec<String> = (0..STREAMS).map(|key| format!("/large/{key}")).collect();
    keys.iter().for_each(|key| put(&server, key, 1_000_000));
    keys.iter().for_each(|key| put(&server, key, 1_000_000));
    let before = server.process().resident_bytes();
    let mut streams: Vec<Connection> = keys.iter().map(|key| stream(&server, key)).collect();
    let mut most = 0;
    for _ in 0..10 {
        keys.iter().for_each(|key| put(&server, key, 1_000_000));
        most = most.max(server.process().resident_bytes());
    }
    let grown = most.saturating_sub(before);
    assert!(grown < BUDGET + MARGIN, "{} MiB", grown >> 20);
    assert!(cuts(&server) > 0, "some of the streams were cut");
    // A client that reads gets complete events, up to the point where the stream was cut.
    let whole = streams
        .iter_mut()
        .all(|stream| matches!(stream.line(PATIENCE), Line::Is(_) | Line::Cut));
    assert!(whole);
    server.ask("GET", "/health", None);
}
