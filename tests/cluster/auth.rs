//! Users and roles in a cluster: each member enforces them alike, and at once. `tests/closed/rights.rs` tests the same
//! with TLS, and after restarts, a snapshot and a restore.

use std::time::Duration;

use crate::harness::{Cluster, wait_for};
use crate::matrix::{
    READER, ROOT, State, ask, change, differences_of, enable, make_users, senders,
};
use crate::support::alone;

const PATIENCE: Duration = Duration::from_secs(60);

/// All members have applied what was acknowledged before.
fn catch_up(cluster: &Cluster) {
    let read = |node: usize| {
        let answer = ask(
            cluster.node(node).address(),
            "GET",
            "/v2/auth/enable?",
            None,
            None,
        );
        (answer.status == 200).then(|| answer.text())
    };
    wait_for("all members say the same", PATIENCE, || {
        let said: Vec<_> = (0..cluster.len()).filter_map(read).collect();
        (said.len() == cluster.len() && said.iter().all(|text| *text == said[0])).then_some(())
    });
}

#[test]
fn every_member_enforces_users_and_roles() {
    let _alone = alone();
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];
    // What one member has acknowledged, the next request through another one needs.
    make_users(cluster.node(follower).address());
    enable(cluster.node(leader).address());
    catch_up(&cluster);
    let none = Vec::<String>::new();
    for node in cluster.running() {
        let state = State {
            enabled: true,
            leads: node == leader,
        };
        let address = cluster.node(node).address();
        let found = differences_of(address, state, &senders(None));
        assert_eq!(found, none, "{node}");
    }

    // A password that one member knows to be right is changed through another one.
    let address = cluster.node(follower).address();
    let status = || ask(address, "GET", "/v2/keys/r/a", None, Some(READER)).status;
    assert_eq!(status(), 200);
    let body = r#"{"user":"reader","password":"other"}"#;
    let user = "/v2/auth/users/reader";
    change(cluster.node(leader).address(), "PUT", user, body, 200);
    wait_for("the old password ends", PATIENCE, || {
        (status() == 401).then_some(())
    });
}

/// The first change needs members that can apply it. Later ones must not: a member that is away for long would keep
/// the operator from changing a password.
#[test]
fn users_can_be_changed_while_a_member_is_away() {
    let _alone = alone();
    let mut cluster = Cluster::prepare(3, &[]);
    for node in [0, 1] {
        cluster.node_mut(node).spawn();
    }
    for node in [0, 1] {
        cluster.node_mut(node).wait_ready();
    }
    let leader = cluster.wait_leader();
    let address = cluster.node(leader).address();
    let root = r#"{"user":"root","password":"open"}"#;
    let put = |address| {
        ask(
            address,
            "PUT",
            "/v2/auth/users/root",
            Some(root),
            Some(ROOT),
        )
    };
    let answer = put(address);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.text().contains("has not connected yet"),
        "{}",
        answer.text()
    );

    cluster.restart(2);
    wait_for("the third member to be heard", PATIENCE, || {
        (put(address).status < 300).then_some(())
    });
    cluster.kill(2);
    for node in [0, 1] {
        cluster.stop(node);
        cluster.restart(node);
    }
    cluster.wait_leader();
    for node in [0, 1] {
        let answer = put(cluster.node(node).address());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
