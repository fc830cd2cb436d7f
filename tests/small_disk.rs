//! If the log fills a disk, a snapshot makes room, and no write is refused.
//!
//! Needs root to mount small file systems. `make smalldisk` runs all cases with 200,000 writes each (or with as many
//! as write four times the size of the disk, if that is less). Without settings, the test runs a few cases with fewer
//! writes.
//!
//! * `SMALL_DISKS=8,24`: sizes of the disks in megabytes.
//! * `SMALL_VALUES=100,10000`: sizes of the values in bytes.
//! * `SMALL_WRITES=200000`: maximum number of writes per case.

mod harness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::client::form_request;
use harness::mount::Mount;
use harness::{Connection, Server, wait_for};

const CONNECTIONS: u64 = 32;
const KEYS: u64 = 50;

/// A write may wait for snapshots, and for the writes of all other connections.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root, to mount a small file system"]
fn what_does_not_fit_is_refused_until_keys_are_removed() {
    for value in [1000, 100_000] {
        run_too_much(&Mount::ext4(8), value);
    }
}

#[test]
#[ignore = "needs root, to mount small file systems"]
fn no_write_is_refused_while_the_keys_fit() {
    let disks = numbers("SMALL_DISKS", &[8, 64]);
    let values = numbers("SMALL_VALUES", &[500, 10_000, 100_000]);
    let writes = harness::setting("SMALL_WRITES", 20_000);
    for &megabytes in &disks {
        for &value in &values {
            run(megabytes, value, writes);
        }
    }
}

/// The log may be on the disk of the snapshots, or on another, perhaps smaller one. It must not fill either of them.
#[test]
#[ignore = "needs root, to mount small file systems"]
fn a_log_in_a_folder_of_its_own_counts_where_it_lies() {
    const WRITES: u64 = 500;
    const VALUE_BYTES: u64 = 100_000;
    let (small, large) = (Mount::ext4(8), Mount::ext4(64));
    for data in [&small, &large] {
        let flag = format!("--wal-dir={}", small.path().join("log").display());
        let keys = keys_that_fit(data, VALUE_BYTES);
        run_on(data, &[&flag], keys, VALUE_BYTES, WRITES);
        std::fs::remove_dir_all(data.path().join("data")).expect("it is there");
        std::fs::remove_dir_all(small.path().join("log")).expect("it is there");
    }
}

fn numbers(name: &str, default: &[u64]) -> Vec<u64> {
    let Ok(text) = std::env::var(name) else {
        return default.to_vec();
    };
    let number = |part: &str| {
        part.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: {part:?}"))
    };
    text.split(',').map(number).collect()
}

/// The state of a key that only one connection writes.
#[derive(Clone, Copy, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

/// The numbers of the writes of one connection, by key.
type Keys = BTreeMap<u64, Known>;

fn run(megabytes: u64, value_bytes: u64, writes_max: u64) {
    let mount = Mount::ext4(megabytes);
    let writes = writes_max.min(4 * (megabytes << 20) / value_bytes).max(200);
    match keys_that_fit(&mount, value_bytes) {
        0 => run_too_much(&mount, value_bytes),
        keys => run_on(&mount, &[], keys, value_bytes, writes),
    }
}

fn run_on(mount: &Mount, flags: &[&str], keys: u64, value_bytes: u64, writes: u64) {
    let mut server = Server::start_on(&mount.path().join("data"), flags);
    let began = Instant::now();
    let mut writers = Writers::start(server.address(), keys, value_bytes, writes);
    writers.wait_for(writes / 2, &server);
    server.kill();
    server.launch();
    writers.check(&server);
    writers.proceed(server.address());
    writers.wait_for(writes, &server);
    writers.check(&server);
    assert!(server.runs(), "{}", server.log());
    println!(
        "{}, {value_bytes} B: {writes} writes to {keys} keys, {} a second, none refused",
        mount.path().display(),
        writes * 1000 / began.elapsed().as_millis() as u64
    );
}

/// The disk must have room for the keys and the history three times: they are in the newest snapshot and in the one
/// that is being written, and the log needs room too. The history may use a sixteenth of the disk, or one event if
/// that is larger. An event contains the new and the previous value of a key.
fn keys_that_fit(mount: &Mount, value_bytes: u64) -> u64 {
    let disk = rustix::fs::statvfs(mount.path()).expect("a file system");
    let bytes = |blocks: u64| blocks * disk.f_frsize;
    let history = (bytes(disk.f_blocks) / 16).max(2 * value_bytes);
    let keys = (bytes(disk.f_bavail) / 3).saturating_sub(history) / value_bytes;
    keys.min(KEYS)
}

/// Data that does not fit is refused. Reads still work, also after a restart, and after keys are removed, writes are
/// accepted again.
fn run_too_much(mount: &Mount, value_bytes: u64) {
    let mut server = Server::start_on(&mount.path().join("data"), &[]);
    let put = |server: &Server, key: &str, bytes: u64| {
        let form = format!("value={}", value(1, bytes));
        let request = form_request("PUT", &format!("/v2/keys/{key}"), Some(&form));
        let mut connection = server.connect();
        connection.write(&request).expect("a request");
        let answer = connection.answer(false, WRITE_PATIENCE);
        answer.expect("an answer").status
    };
    assert_eq!(put(&server, "small", 10), 201);
    let refused =
        (0..100_000).find(|number| put(&server, &format!("k{number}"), value_bytes) >= 500);
    let refused = refused.expect("a disk is full at some time");
    let reads = |server: &Server| {
        let answer = server.ask("GET", "/v2/keys/small", None);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    reads(&server);
    server.kill();
    server.launch();
    reads(&server);
    wait_for("the keys to be removed", WRITE_PATIENCE, || {
        let is_gone = |number: &u64| {
            let answer = server.ask("DELETE", &format!("/v2/keys/k{number}"), None);
            [200, 404].contains(&answer.status)
        };
        (0..=refused).all(|number| is_gone(&number)).then_some(())
    });
    wait_for("a write with room again", WRITE_PATIENCE, || {
        (put(&server, "small", 1000) == 200).then_some(())
    });
    println!(
        "{value_bytes} B do not fit: write {refused} is refused, and with keys removed writes are taken again"
    );
}

/// Connections that write, each to its own keys, until enough writes are acknowledged.
struct Writers {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<Keys>>,
    known: Vec<Keys>,
    value_bytes: u64,
}

struct Shared {
    acknowledged: AtomicU64,
    goal: u64,
    /// The server was killed: a missing answer is not a failure.
    stop: AtomicBool,
}

impl Writers {
    fn start(address: SocketAddr, keys: u64, value_bytes: u64, goal: u64) -> Writers {
        let mut known = vec![Keys::new(); CONNECTIONS.min(keys) as usize];
        let count = known.len() as u64;
        for key in 0..keys {
            known[(key % count) as usize].insert(key, Known::default());
        }
        let mut writers = Writers {
            shared: Arc::new(Shared {
                acknowledged: AtomicU64::new(0),
                goal,
                stop: AtomicBool::new(false),
            }),
            threads: Vec::new(),
            known,
            value_bytes,
        };
        writers.proceed(address);
        writers
    }

    fn proceed(&mut self, address: SocketAddr) {
        self.shared.stop.store(false, Ordering::Relaxed);
        for keys in std::mem::take(&mut self.known) {
            let (shared, value_bytes) = (Arc::clone(&self.shared), self.value_bytes);
            let write = move || shared.write(address, keys, value_bytes);
            self.threads.push(std::thread::spawn(write));
        }
    }

    fn wait_for(&mut self, goal: u64, server: &Server) {
        let mut last = (0, Instant::now());
        loop {
            let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
            if acknowledged >= goal {
                return;
            }
            if acknowledged > last.0 {
                last = (acknowledged, Instant::now());
            }
            let ended = self
                .threads
                .iter()
                .any(std::thread::JoinHandle::is_finished);
            assert!(
                !ended && last.1.elapsed() < WRITE_PATIENCE,
                "{acknowledged} of {goal} writes, then no progress:\n{}",
                server.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Checks that each key has the last acknowledged value, or that of the write without an answer.
    fn check(&mut self, server: &Server) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        self.known = (threads.into_iter())
            .map(|thread| thread.join().expect("a writer"))
            .collect();
        for (key, known) in self.known.iter_mut().flatten() {
            let answer = wait_for("a leader", WRITE_PATIENCE, || {
                let answer = server.ask("GET", &format!("/v2/keys/k{key}?quorum=true"), None);
                (answer.status < 500).then_some(answer)
            });
            if known.acknowledged == 0 && answer.status == 404 {
                continue;
            }
            let json = answer.json();
            let text = json.get("node").and_then(|node| node.get("value"));
            let text = text.and_then(|text| text.text()).expect("a value");
            let possible = [known.acknowledged, known.sent];
            let found = possible
                .into_iter()
                .find(|&number| text == value(number, self.value_bytes));
            known.acknowledged =
                found.unwrap_or_else(|| panic!("k{key} is {:.40}, not one of {possible:?}", text));
        }
    }
}

impl Shared {
    /// Ends when it is stopped, or with the last write.
    fn write(&self, address: SocketAddr, mut keys: Keys, value_bytes: u64) -> Keys {
        let mut connection = Connection::open(address).expect("a connection");
        loop {
            for (key, known) in &mut keys {
                let is_done = self.acknowledged.load(Ordering::Relaxed) >= self.goal;
                if is_done || self.stop.load(Ordering::Relaxed) {
                    return keys;
                }
                known.sent += 1;
                let form = format!("value={}", value(known.sent, value_bytes));
                let request = form_request("PUT", &format!("/v2/keys/k{key}"), Some(&form));
                let sent = connection.write(&request);
                match sent.and_then(|()| connection.answer(false, WRITE_PATIENCE)) {
                    Ok(answer) => {
                        assert!(
                            answer.status < 300,
                            "k{key}: {} {:.200}",
                            answer.status,
                            answer.text()
                        );
                        known.acknowledged = known.sent;
                        self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) if self.is_stopped_soon() => return keys,
                    Err(error) => panic!("k{key}: {error}"),
                }
            }
        }
    }

    /// The server may be killed a moment before the writers are notified.
    fn is_stopped_soon(&self) -> bool {
        let deadline = Instant::now() + WRITE_PATIENCE;
        while !self.stop.load(Ordering::Relaxed) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// A value of this size that contains its number.
fn value(number: u64, bytes: u64) -> String {
    let mut text = format!("{number:08}-").repeat((bytes / 9 + 1) as usize);
    text.truncate(bytes as usize);
    text
}
