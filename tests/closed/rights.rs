//! The table of what each client may do (`tests/auth/matrix.rs`), in a cluster with TLS: on the leader and on a follower,
//! without TLS, with it, and with a certificate of the client, and with authentication disabled and enabled. It holds
//! on members that were restarted, on one that got users and roles in a snapshot, and after a restore.

use std::fs;
use std::thread;

use crate::harness::certificates::Pair;
use crate::harness::closed::{self, Pki};
use crate::harness::secure::config;
use crate::harness::{Cluster, wait_for};
use crate::matrix::{
    ROOT, Sender, State, ask, change, differences_of, enable, make_users, senders,
};
use crate::support::{WITHIN, alone, edgetcdctl, printed, text, wipe_and_restore};

/// The member that is away while users and roles are made.
const LATE: usize = 2;

#[test]
fn the_table_holds_without_tls_and_with_it() {
    let _alone = alone();
    let pki = Pki::new();
    let flags = ["--snapshot-count=20".to_owned()];
    let mut cluster = closed::prepare(3, &pki, &["https", "http"], &flags);
    let anonymous = pki.anonymous();
    let all = [senders(None), senders(Some(&anonymous))].concat();
    check(&mut cluster, &pki, None, &all);
}

/// A client with a certificate is its user, unless it sends credentials. If the certificate names no user, it is a
/// guest.
#[test]
fn the_table_holds_with_certificates_of_clients() {
    let _alone = alone();
    let pki = Pki::new();
    let mut flags = vec!["--snapshot-count=20".to_owned()];
    flags.extend(pki.client_cert_flags());
    let mut cluster = closed::prepare(3, &pki, &["https"], &flags);
    let own = pki.sign("stranger");
    let stranger = config(&pki.ca.file, Some(&own));
    closed::ask_with(&mut cluster, &stranger);
    let mut all = senders(Some(&stranger));
    for (name, column) in [("reader", 4), ("writer", 5), ("root", 6)] {
        all.push(Sender {
            name,
            column,
            header: None,
            config: Some(pki.named(name)),
        });
    }
    check(&mut cluster, &pki, Some(&own), &all);
}

/// Compares with the table in each state of the cluster. `own`: the certificate of edgetcdctl.
fn check(cluster: &mut Cluster, pki: &Pki, own: Option<&Pair>, senders: &[Sender]) {
    cluster.launch();
    cluster.kill(LATE);
    let leader = cluster.wait_leader();
    make_users(cluster.node(leader));
    holds(cluster, senders, false, "disabled");
    enable(cluster.node(leader));
    holds(cluster, senders, true, "enabled");

    for node in [0, 1] {
        cluster.stop(node);
        cluster.restart(node);
    }
    holds(cluster, senders, true, "after a restart");

    the_late_member_gets_a_snapshot(cluster);
    holds_on(cluster, &[LATE], senders, true, "after a snapshot");

    let file = pki.folder().join("backup");
    let words = ["-u", "root:open", "snapshot", "save", text(&file)];
    let output = edgetcdctl(cluster, pki, own, &words).output();
    printed(&output.expect("it starts"));
    wipe_and_restore(cluster, pki, &file);
    holds(cluster, senders, true, "after a restore");
    let leader = cluster.wait_leader();
    change(cluster.node(leader), "DELETE", "/v2/auth/enable", "", 200);
    holds(cluster, senders, false, "disabled again");
}

/// The log of the others no longer begins with the first entry, so they send a snapshot to the member that was away.
fn the_late_member_gets_a_snapshot(cluster: &mut Cluster) {
    let leader = cluster.wait_leader();
    let oldest = || {
        let files = fs::read_dir(cluster.node(leader).data().join("member/wal"));
        let files = files.expect("a folder").flatten();
        files.map(|file| file.file_name()).min().expect("a log")
    };
    let first = oldest();
    let body = format!("value={}", "x".repeat(1 << 20));
    wait_for(
        "the first file of the log to be removed",
        4 * WITHIN,
        || {
            let large = "/v2/keys/large";
            ask(cluster.node(leader), "PUT", large, Some(&body), Some(ROOT));
            (oldest() != first).then_some(())
        },
    );
    cluster.restart(LATE);
    cluster.wait_leader();
    let log = cluster.node(LATE).whole_log();
    assert!(log.contains("receiving the snapshot"), "{log}");
}

/// Compares on the leader and on a follower.
fn holds(cluster: &Cluster, senders: &[Sender], enabled: bool, when: &str) {
    let leader = cluster.wait_leader();
    let nodes = [leader, cluster.others(leader)[0]];
    holds_on(cluster, &nodes, senders, enabled, when);
}

fn holds_on(cluster: &Cluster, nodes: &[usize], senders: &[Sender], enabled: bool, when: &str) {
    loop {
        let leader = cluster.wait_leader();
        let found: Vec<String> = thread::scope(|scope| {
            let compare = |node: usize| {
                let address = cluster.node(node).address();
                let state = State {
                    enabled,
                    leads: node == leader,
                };
                scope.spawn(move || differences_of(address, state, senders))
            };
            let threads: Vec<_> = nodes.iter().map(|node| compare(*node)).collect();
            let found = threads.into_iter().map(|thread| thread.join().expect("ok"));
            found.flatten().collect()
        });
        // After an election, what a follower answered is compared with the table of a leader.
        if found.is_empty() || cluster.wait_leader() == leader {
            return assert_eq!(found, Vec::<String>::new(), "{when}");
        }
    }
}
