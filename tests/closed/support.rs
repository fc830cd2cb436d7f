//! Code shared by these tests.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::harness::certificates::Pair;
use crate::harness::closed::{Pki, endpoints, listed, peer_url};
use crate::harness::{Cluster, Server};

/// Time limit for anything that is expected to happen.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Runs one test at a time, because each needs three members.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `edgetcdctl` with the members of a closed cluster as endpoints. `pair`: its certificate.
pub fn edgetcdctl(cluster: &Cluster, pki: &Pki, pair: Option<&Pair>, words: &[&str]) -> Command {
    // A watch that is not refused would wait for an event without an end.
    let mut command = Command::new("timeout");
    command
        .args(["120", env!("CARGO_BIN_EXE_edgetcdctl")])
        .args(words)
        .env("ETCDCTL_ENDPOINTS", endpoints(&cluster.addresses()))
        .env("ETCDCTL_CA_FILE", &pki.ca.file)
        .stdin(Stdio::null());
    if let Some(pair) = pair {
        command.env("ETCDCTL_CERT_FILE", &pair.cert);
        command.env("ETCDCTL_KEY_FILE", &pair.key);
    }
    command
}

/// What a command printed. Fails if the command did.
#[track_caller]
pub fn printed(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}: {out}{error}", output.status);
    format!("{out}{error}")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The arguments that restore the data directory of a member of a closed cluster.
pub fn restore_words(cluster: &Cluster, node: usize, file: &Path) -> Vec<String> {
    let server: &Server = cluster.node(node);
    let words = ["snapshot", "restore", text(file), "--data-dir"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push(text(server.data()).to_owned());
    words.extend(["--name".to_owned(), format!("n{node}")]);
    words.push(format!("--initial-cluster={}", listed(cluster)));
    words.push(format!(
        "--initial-advertise-peer-urls={}",
        peer_url(server)
    ));
    words
}

/// Stops all members, removes their data, restores it from a backup, and starts them.
pub fn wipe_and_restore(cluster: &mut Cluster, pki: &Pki, file: &Path) {
    for node in 0..cluster.len() {
        cluster.kill(node);
    }
    for node in 0..cluster.len() {
        cluster.node_mut(node).wipe();
        let words = restore_words(cluster, node, file);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = edgetcdctl(cluster, pki, None, &words).output();
        printed(&output.expect("it starts"));
    }
    cluster.launch();
}
