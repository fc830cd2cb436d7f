//! Code shared by several of these tests.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::harness::acknowledged::AcknowledgedWrites;
use crate::harness::client::form_request;
use crate::harness::server::program;
use crate::harness::{Answer, Cluster, Connection, percentile, setting};

/// Runs one test at a time, because several processes and many clients share the cores of this machine.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether these tests run against the reference, to test the tests.
pub fn is_reference() -> bool {
    let name = program()[0].clone();
    name.rsplit('/').next() == Some("etcd")
}

/// Checks a limit or guarantee that is specific to this server. Against the reference, only prints whether it holds.
/// The test then ends or continues.
pub fn own_bar(holds: bool, what: &str) {
    match (holds, is_reference()) {
        (true, _) => println!("holds: {what}"),
        (false, true) => println!("NOT HELD by the reference, which does not guarantee it: {what}"),
        (false, false) => panic!("does not hold: {what}"),
    }
}

/// Checks a time limit of this server, which a busy machine can exceed. Prints it; only `make clusterbars` asserts
/// it.
pub fn time_bar(holds: bool, what: &str) {
    match std::env::var_os("TIME_BARS") {
        Some(_) => own_bar(holds, what),
        None => println!("{}: {what}", if holds { "holds" } else { "TOO SLOW" }),
    }
}

/// The `--election-timeout` of the test clusters.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

/// Returns the time from now to the first successful write. Sends writes to these members in turn, one every ten
/// milliseconds, each on its own connection.
pub fn first_success(addresses: &[SocketAddr], name: &str, within: Duration) -> Duration {
    let start = Instant::now();
    let (sender, receiver) = channel();
    for (number, address) in addresses.iter().cycle().enumerate() {
        let (sender, address) = (sender.clone(), *address);
        let target = format!("/v2/keys/probe/{name}?value={number}");
        spawn(move || {
            let answer = ask_fresh(address, "PUT", &target, within);
            if answer.is_ok_and(|answer| answer.status < 300) {
                // The receiver is dropped when an earlier write has succeeded.
                let _ = sender.send(Instant::now());
            }
        });
        if let Ok(done) = receiver.recv_timeout(Duration::from_millis(10)) {
            return done - start;
        }
        assert!(
            start.elapsed() < within,
            "no write succeeded for {within:?}"
        );
    }
    unreachable!("a cycle has no end")
}

/// Sends one request on its own connection.
pub fn ask_fresh(
    address: SocketAddr,
    method: &str,
    target: &str,
    within: Duration,
) -> std::io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    connection.write(&form_request(method, target, None))?;
    connection.answer(false, within)
}

/// Returns the median and the worst value. Prints them with the name.
pub fn shown(what: &str, samples: &mut [Duration]) -> (Duration, Duration) {
    let (median, worst) = (percentile(samples, 0.5), percentile(samples, 1.0));
    println!(
        "{what}, {} times: median {median:?}, worst {worst:?}",
        samples.len()
    );
    (median, worst)
}

/// A duration in milliseconds from the environment.
pub fn setting_ms(name: &str, default: u64) -> Duration {
    Duration::from_millis(setting(name, default))
}

pub fn setting_seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(setting(name, default))
}

/// Compares the keys of the cluster with the record of acknowledged writes, by quorum reads through this node.
pub fn check_ledger(cluster: &Cluster, node: usize, ledger: &mut AcknowledgedWrites) {
    ledger.check(&mut cluster.node(node).connect());
}

/// Calls `look` a few times per second for as long as `time`. `look` panics if it sees an error.
pub fn watch_for(time: Duration, mut look: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look();
        sleep(Duration::from_millis(100));
    }
}
