//! What several of these tests need.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::harness::client::form_request;
use crate::harness::ledger::Ledger;
use crate::harness::server::program;
use crate::harness::{Answer, Cluster, Connection, percentile, setting};

/// Several processes and many clients share this machine's cores: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether these tests run against the reference, which is how they are tried themselves.
pub fn is_reference() -> bool {
    let name = program()[0].clone();
    name.rsplit('/').next() == Some("etcd")
}

/// A limit or promise that is this server's own. The reference is not held to it: there it is
/// printed whether it would hold, and the test ends there or goes on.
pub fn own_bar(holds: bool, what: &str) {
    match (holds, is_reference()) {
        (true, _) => println!("holds: {what}"),
        (false, true) => println!("NOT HELD by the reference, which does not promise it: {what}"),
        (false, false) => panic!("does not hold: {what}"),
    }
}

/// A limit of this server's own on time, which a busy machine breaks: printed, and asserted in `make clusterbars`.
pub fn time_bar(holds: bool, what: &str) {
    match std::env::var_os("TIME_BARS") {
        Some(_) => own_bar(holds, what),
        None => println!("{}: {what}", if holds { "holds" } else { "TOO SLOW" }),
    }
}

/// `--election-timeout` as the cluster of a test has it.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

/// Time from now to the first success among writes sent from now on, to these members in turn,
/// each on a connection of its own, one every ten milliseconds.
pub fn first_success(addresses: &[SocketAddr], name: &str, within: Duration) -> Duration {
    let start = Instant::now();
    let (sender, receiver) = channel();
    for (number, address) in addresses.iter().cycle().enumerate() {
        let (sender, address) = (sender.clone(), *address);
        let target = format!("/v2/keys/probe/{name}?value={number}");
        spawn(move || {
            let answer = ask_fresh(address, "PUT", &target, within);
            if answer.is_ok_and(|answer| answer.status < 300) {
                // The receiver has gone when an earlier one has succeeded.
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

/// One request on a connection of its own.
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

/// Median and worst; printed with the name.
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

/// Compares what the cluster holds with the ledger, by quorum reads through this node.
pub fn check_ledger(cluster: &Cluster, node: usize, ledger: &mut Ledger) {
    ledger.check(&mut cluster.node(node).connect());
}

/// Keeps looking for as long as `time`, a few times a second; `look` panics when it sees something wrong.
pub fn watch_for(time: Duration, mut look: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look();
        sleep(Duration::from_millis(100));
    }
}
