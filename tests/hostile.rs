//! Hostile or abandoned clients, while the same process must serve others.
//!
//! During each attack, another client (the bystander) reads and writes on its own connections and measures the
//! latency, and the test samples the server's memory. `HOSTILE_CONNECTIONS` (default 10,000) is the number of idle
//! connections and parked watches in the memory tests. The limits apply to a release build (`make bars`). A debug
//! build has more time and fewer deaf clients.

mod harness;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use harness::client::{FORM, PATIENCE, form_request, request};
use harness::process::Process;
use harness::server::is_release;
use harness::{Answer, Connection, Json, Random, Server, percentile, setting, wait_for};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Limit of the 99th percentile of the bystander's latency in a release build.
const BYSTANDER_BAR: Duration = Duration::from_millis(50);

/// The same for writes while many keys expire.
const EXPIRY_BAR: Duration = Duration::from_millis(100);

/// Number of clients that request 2 MB each and do not read.
fn deaf_clients() -> usize {
    if is_release() { 64 } else { 8 }
}

const MEMORY_BAR: u64 = 16 << 20;

/// Runs one test at a time, because they measure time and memory.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    raise_descriptor_limit();
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// This process holds the other end of every connection.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

// ---- the bystander

/// Reads and writes all the time and records each latency. Also samples the memory.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Duration>, u64)>,
    memory_before: u64,
    pid: u32,
}

impl Bystander {
    fn start(server: &Server) -> Bystander {
        let mut connection = server.connect();
        for _ in 0..200 {
            connection
                .ask("PUT", "/v2/keys/bystander", Some("value=warm"))
                .expect("an answer");
        }
        let process = server.process();
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        Bystander {
            stop,
            memory_before: process.resident_bytes(),
            pid: server.pid(),
            thread: spawn(move || watch_the_others(connection, process, &until)),
        }
    }

    /// Stops it. Panics if it was served too slowly, or if the server's memory grew too much.
    fn finish(self, what: &str, server: &mut Server) {
        self.finish_within(what, server, BYSTANDER_BAR);
    }

    /// As [`Bystander::finish`], with another limit for the 99th percentile.
    fn finish_within(self, what: &str, server: &mut Server, bar: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut times, most) = self.thread.join().expect("the bystander was not served");
        assert!(
            server.ended().is_none(),
            "{what}: the server ended:\n{}",
            server.log()
        );
        assert_eq!(server.pid(), self.pid);
        let (count, slow) = (times.len(), percentile(&mut times, 0.99));
        let slowest = percentile(&mut times, 1.0);
        let grown = most.saturating_sub(self.memory_before);
        println!(
            "{what}: {count} requests of others, p99 {slow:?}, slowest {slowest:?}; memory grew by {} KiB",
            grown >> 10
        );
        // On a busy machine, times of a debug build mean nothing. `make bars` checks them.
        let least = if is_release() { 50 } else { 1 };
        assert!(count >= least, "{what}: only {count} requests of others");
        assert!(slow < bar || !is_release(), "{what}: p99 {slow:?}");
        assert!(grown < MEMORY_BAR, "{what}: memory grew by {grown} bytes");
    }
}

fn watch_the_others(
    mut connection: Connection,
    process: Process,
    stop: &AtomicBool,
) -> (Vec<Duration>, u64) {
    let (mut times, mut most) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        for (method, form) in [("GET", None), ("PUT", Some("value=1"))] {
            let start = Instant::now();
            let answer = connection
                .ask(method, "/v2/keys/bystander", form)
                .expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            times.push(start.elapsed());
        }
        most = most.max(process.resident_bytes());
        sleep(Duration::from_millis(1));
    }
    (times, most)
}

/// Runs an attack while a bystander measures.
fn attacked(what: &str, attack: impl FnOnce(&Server)) {
    let _alone = alone();
    let mut server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    attack(&server);
    // The bystander measures at least this long.
    sleep(Duration::from_millis(500));
    bystander.finish(what, &mut server);
}

// ---- attacks

#[test]
fn a_header_line_without_end() {
    attacked("a header line without end", |server| {
        for _ in 0..20 {
            let mut connection = server.connect();
            connection
                .write(b"GET /v2/keys HTTP/1.1\r\nHost: a\r\nX-Endless: ")
                .expect("a head");
            let piece = vec![b'a'; 1 << 20];
            let sent = (0..64)
                .take_while(|_| connection.write(&piece).is_ok())
                .count();
            assert!(sent < 64, "64 MiB of a header line were taken");
        }
    });
}

#[test]
fn five_hundred_half_requests_are_closed() {
    attacked("500 half requests", |server| {
        let mut halves = open_with(
            server,
            500,
            b"GET /v2/keys/a HTTP/1.1\r\nHost: a\r\nX-Half: ",
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        for half in &mut halves {
            assert!(
                half.closes(deadline - Instant::now()),
                "a half request is still open after 30 s"
            );
        }
    });
}

#[test]
fn two_hundred_half_bodies() {
    attacked("200 half bodies", |server| {
        let head = "PUT /v2/keys/half HTTP/1.1\r\nHost: a\r\nContent-Length: 5120\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\n\r\nvalue=";
        let bytes = [head.as_bytes(), &[b'h'; 2500]].concat();
        let before = server.process().descriptors();
        let halves = open_with(server, 200, &bytes);
        wait_for("all to be accepted", PATIENCE, || {
            (server.process().descriptors() >= before + 200).then_some(())
        });
        drop(halves);
        wait_for("all to be closed", PATIENCE, || {
            (server.process().descriptors() <= before).then_some(())
        });
        assert_eq!(
            server.ask("GET", "/v2/keys/half", None).status,
            404,
            "half a body was written"
        );
    });
}

#[test]
fn clients_that_ask_for_2_mb_and_do_not_read() {
    let _alone = alone();
    let mut server = Server::start(&[]);
    let value = format!("value={}", "x".repeat(10_000));
    for number in 0..210 {
        let answer = server.ask("PUT", &format!("/v2/keys/large/{number}"), Some(&value));
        assert_eq!(answer.status, 201);
    }
    assert!(server.ask("GET", "/v2/keys/large", None).body.len() > 2 << 20);
    let bystander = Bystander::start(&server);
    let bytes = form_request("GET", "/v2/keys/large", None);
    let mut readers = open_with(&server, deaf_clients(), &bytes);
    sleep(Duration::from_secs(2));
    let answer = readers[0]
        .answer(false, PATIENCE)
        .expect("one that reads after all");
    assert!(answer.body.len() > 2 << 20, "{} bytes", answer.body.len());
    drop(readers);
    bystander.finish("clients that ask for 2 MB and do not read", &mut server);
}

#[test]
fn a_body_of_100_mib() {
    attacked("a body of 100 MiB", |server| {
        let mut connection = server.connect();
        let mut bytes = request(
            "PUT",
            "/v2/keys/big",
            &[FORM, ("Content-Length", "104857600")],
            None,
        );
        bytes.extend_from_slice(b"value=");
        connection.write(&bytes).expect("a head");
        let piece = vec![b'b'; 1 << 20];
        let sent = (0..100)
            .take_while(|_| connection.write(&piece).is_ok())
            .count();
        println!("{sent} MiB were taken");
        assert!(sent < 100, "all of it was taken");
        assert_eq!(server.ask("GET", "/v2/keys/big", None).status, 404);
    });
}

#[test]
fn lengths_that_nobody_will_send() {
    attacked("Content-Length: 900000000000", |server| {
        for length in [
            "900000000000",
            "9223372036854775808",
            "18446744073709551615",
            "1073741824",
        ] {
            let mut connection = server.connect();
            let headers = [FORM, ("Content-Length", length)];
            connection
                .write(&request("PUT", "/v2/keys/never", &headers, None))
                .expect("a head");
            let answer = connection.answer(false, PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("Content-Length: {length}: {error}"));
            assert_eq!(answer.status, 400, "{length}: {answer:?}");
        }
        // And one that disconnects instead of waiting for the response.
        for _ in 0..20 {
            let headers = [FORM, ("Content-Length", "900000000000")];
            let mut connection = server.connect();
            connection
                .write(&request("PUT", "/v2/keys/never", &headers, None))
                .expect("a head");
        }
    });
}

#[test]
fn a_body_one_byte_too_long_gets_its_answer() {
    let _alone = alone();
    let server = Server::start(&[]);
    let limit = 10 << 20;
    for (length, status) in [(limit, 201), (limit + 1, 400)] {
        let mut body = b"value=".to_vec();
        body.resize(length, b'v');
        let mut connection = server.connect();
        connection
            .write(&request("PUT", "/v2/keys/edge", &[FORM], Some(&body)))
            .expect("a request");
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        let code = || answer.json().get("errorCode").and_then(Json::number);
        assert_eq!(answer.status, status, "{length} bytes");
        assert!(status != 400 || code() == Some(210), "{}", answer.text());
    }
}

#[test]
fn a_thousand_malformed_heads() {
    const HEADS: [&str; 22] = [
        "GET\r\n\r\n",
        "GET /v2/keys\r\n\r\n",
        "GET /v2/keys HTTP/9.9\r\n\r\n",
        "GET /v2/keys HTTP/1.1 more\r\nHost: a\r\n\r\n",
        "GET /v2/keys with blank HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{1}T /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\n: a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked, chunked\r\n\r\n0\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nvalue\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3} a TLS hello\r\n\r\n",
    ];
    attacked("1,000 malformed heads", |server| {
        for number in 0..1000 {
            let head = HEADS[number % HEADS.len()];
            let mut connection = server.connect();
            // A second request follows each head. The server must not answer it, however it parses the first one.
            let both = [
                head.as_bytes(),
                &form_request("PUT", "/v2/keys/smuggled", Some("value=1")),
            ];
            if connection.write(&both.concat()).is_err() {
                continue;
            }
            match connection.answer(false, PATIENCE) {
                Ok(answer) => assert!((400..600).contains(&answer.status), "{head:?}: {answer:?}"),
                Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{head:?}"),
            }
            assert!(connection.closes(PATIENCE), "still open after {head:?}");
        }
        assert_eq!(server.ask("GET", "/v2/keys/smuggled", None).status, 404);
    });
}

#[test]
fn connect_and_reset() {
    attacked("2,000 connections that reset", |server| {
        let mut noise = Random(5);
        let bytes = form_request("PUT", "/v2/keys/reset", Some("value=1"));
        for _ in 0..2000 {
            let mut connection = server.connect();
            let end = noise.below(bytes.len() as u64 + 1) as usize;
            let _ = connection.write(&bytes[..end]);
            let socket = socket2::SockRef::from(connection.stream());
            socket
                .set_linger(Some(Duration::ZERO))
                .expect("linger 0: closing resets");
        }
    });
}

// ---- many at once

#[test]
fn abandoned_watches_are_forgotten_and_threads_do_not_grow() {
    let _alone = alone();
    let server = Server::start(&[]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    let process = server.process();
    let (descriptors, threads) = (process.descriptors(), process.threads());
    let watches = open_watches(&server, 2000);
    assert_eq!(watchers(&server), 2000);
    assert_eq!(
        process.threads(),
        threads,
        "threads with 2,000 watches parked"
    );
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
    assert_eq!(process.threads(), threads);
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
    let mut server = Server::start(&[]);
    let bystander = Bystander::start(&server);
    for round in 0..20 {
        let bytes = form_request("GET", "/v2/keys/crowd?wait=true", None);
        let start = Instant::now();
        let mut crowd = open_with(&server, 200, &bytes);
        for watch in &mut crowd {
            let left = Duration::from_secs(1).saturating_sub(start.elapsed());
            let head = watch
                .head(false, left)
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(head.status, 200);
        }
        server.ask("PUT", "/v2/keys/crowd?value=all", None);
        for watch in &mut crowd {
            let answer = watch.line(PATIENCE);
            assert!(
                matches!(answer, harness::Line::Is(_)),
                "round {round}: {answer:?}"
            );
        }
    }
    bystander.finish("20 rounds of 200 watches at once", &mut server);
}

/// A client cannot block a worker: neither with a long listing that it reads or does not read, nor with many waiting
/// requests.
#[test]
fn stalled_listings_beside_a_thousand_watches() {
    let _alone = alone();
    let mut server = Server::start(&[]);
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
    let address = server.address();
    let write = move |writer: u64| {
        let mut connection = Connection::open(address).expect("a connection");
        for number in (writer..keys).step_by(16) {
            let target = format!("/v2/keys/many/{number}?value=x");
            let answer = connection.ask("PUT", &target, None).expect("an answer");
            assert_eq!(answer.status, 201);
        }
    };
    let writers: Vec<_> = (0..16).map(|writer| spawn(move || write(writer))).collect();
    writers
        .into_iter()
        .for_each(|writer| writer.join().expect("it writes"));
}

#[test]
fn idle_connections_and_parked_watches_are_cheap() {
    let _alone = alone();
    let room = raise_descriptor_limit().saturating_sub(200);
    let count = setting("HOSTILE_CONNECTIONS", 10_000).min(room);
    for (what, bar, watching) in [
        ("idle connection", 2048, false),
        ("parked watch", 4096, true),
    ] {
        let server = Server::start(&[]);
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

/// Connections that have sent these bytes and wait.
fn open_with(server: &Server, count: usize, bytes: &[u8]) -> Vec<Connection> {
    let mut all: Vec<Connection> = (0..count).map(|_| server.connect()).collect();
    for connection in &mut all {
        connection.write(bytes).expect("a request");
    }
    all
}

/// A client that reads one byte at a time gets the whole response.
#[test]
fn a_slow_reader_gets_everything() {
    let _alone = alone();
    let server = Server::start(&[]);
    server.ask(
        "PUT",
        "/v2/keys/slow",
        Some(&format!("value={}", "s".repeat(3000))),
    );
    let mut connection = server.connect();
    connection
        .write(&form_request("GET", "/v2/keys/slow", None))
        .expect("a request");
    let (mut taken, mut byte) = (Vec::new(), [0]);
    while !taken.ends_with(b"}\n") {
        connection
            .stream()
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        connection
            .stream()
            .read_exact(&mut byte)
            .expect("the next byte");
        taken.push(byte[0]);
    }
    assert!(taken.len() > 3000);
}

/// Many keys expire at the same moment: the process is paused until all are due. Other tests run meanwhile, so its name
/// makes it one of the first. EXPIRING_KEYS=1000000 EXPIRING_AFTER_S=120 tests it with a million keys in the release
/// build.
#[test]
fn a_crowd_of_expiring_keys_delays_no_write() {
    let making = alone();
    let keys = setting("EXPIRING_KEYS", 20_000);
    let ttl = Duration::from_secs(setting("EXPIRING_AFTER_S", 30));
    let server = Server::start(&[]);
    let begun = Instant::now();
    make_expiring(&server, keys, ttl);
    let made = begun.elapsed();
    assert!(
        made < ttl,
        "making {keys} keys took {made:?}: set EXPIRING_AFTER_S to more"
    );
    server.signal(Signal::STOP);
    drop(making);
    // All keys are due this long after the last one was created.
    sleep(ttl + Duration::from_secs(1));
    let _alone = alone();
    server.signal(Signal::CONT);
    let mut took = Vec::new();
    let mut connection = server.connect();
    let begun = Instant::now();
    while is_any_left(&mut connection) {
        let write = Instant::now();
        let answer = connection
            .ask("PUT", "/v2/keys/beside", Some("value=x"))
            .expect("an answer");
        took.push(write.elapsed());
        assert_eq!(answer.status / 100, 2, "{answer:?}");
    }
    let (all, writes) = (begun.elapsed(), took.len());
    let (median, worst) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
    println!(
        "{keys} keys expired in {all:?}; {writes} concurrent writes: median {median:?}, 99 % {worst:?}"
    );
    // On any machine, a write is processed between two expiry entries, and each entry expires at most 2,000 keys.
    assert!(writes as u64 >= keys / 2_000 / 4, "{writes} writes");
    assert!(
        worst < EXPIRY_BAR || !is_release(),
        "99 % of the writes took up to {worst:?}"
    );
}

/// Creates keys with this time to live, with several writers whose requests share syncs. The last key created also
/// expires last.
fn make_expiring(server: &Server, keys: u64, ttl: Duration) {
    const WRITERS: u64 = 50;
    let form = format!("value=x&ttl={}", ttl.as_secs());
    let put = |key: String| form_request("PUT", &key, Some(&form));
    let mut writers: Vec<Connection> = (0..WRITERS).map(|_| server.connect()).collect();
    for round in 0..keys.div_ceil(WRITERS) {
        for (number, writer) in writers.iter_mut().enumerate() {
            let key = format!("/v2/keys/expiring/{round}/{number}");
            writer.write(&put(key)).expect("it is read");
        }
        for writer in &mut writers {
            let answer = writer.answer(false, PATIENCE).expect("an answer");
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }
    let last = writers[0].ask("PUT", "/v2/keys/expiring/last", Some(&form));
    assert_eq!(last.expect("an answer").status, 201);
}

/// Whether the key that was created last still exists.
fn is_any_left(connection: &mut Connection) -> bool {
    let answer = connection.ask("GET", "/v2/keys/expiring/last", None);
    answer.expect("an answer").status == 200
}
