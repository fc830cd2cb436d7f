//! The client that must be served while others attack.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::process::Process;
use crate::harness::server::is_release;
use crate::harness::{Connection, Server, percentile};
use crate::transport::{MEMORY_BAR, start};

/// Limit of the 99th percentile of the bystander's latency in a release build.
pub const BYSTANDER_BAR: Duration = Duration::from_millis(50);

/// Runs one test at a time, because they measure time and memory.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    raise_descriptor_limit();
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// This process holds the other end of every connection.
pub fn raise_descriptor_limit() -> u64 {
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

/// Reads and writes all the time and records each latency. Also samples the memory.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Duration>, u64)>,
    memory_before: u64,
    pid: u32,
}

impl Bystander {
    pub fn start(server: &Server) -> Bystander {
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
    pub fn finish(self, what: &str, server: &mut Server) {
        self.finish_within(what, server, BYSTANDER_BAR);
    }

    /// As [`Bystander::finish`], with another limit for the 99th percentile.
    pub fn finish_within(self, what: &str, server: &mut Server, bar: Duration) {
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
pub fn attacked(what: &str, attack: impl FnOnce(&Server)) {
    let _alone = alone();
    let mut server = start();
    let bystander = Bystander::start(&server);
    attack(&server);
    // The bystander measures at least this long.
    sleep(Duration::from_millis(500));
    bystander.finish(what, &mut server);
}
