//! Users and roles in a cluster: each member enforces them alike, at once, and after a restart or a snapshot.

use std::time::Duration;

use crate::harness::{Cluster, wait_for};
use crate::matrix::{READER, ask, change, differences, enable, make_users};
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
    let mut cluster = Cluster::start(3, &["--snapshot-count=30"]);
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];
    // What one member has acknowledged, the next request through another one needs.
    make_users(cluster.node(follower).address());
    enable(cluster.node(leader).address());
    catch_up(&cluster);
    let none = Vec::<String>::new();
    for node in [leader, follower] {
        assert_eq!(
            differences(cluster.node(node).address(), true),
            none,
            "{node}"
        );
    }

    // A member without data gets users and roles in a snapshot. The others have no log from before them.
    let third = cluster.others(leader)[1];
    cluster.kill(third);
    let address = cluster.node(leader).address();
    for number in 0..100 {
        let key = format!("/v2/keys/more/{number}");
        change(address, "PUT", &key, "value=v", 201);
    }
    cluster.restart(third);
    cluster.wait_leader();
    let address = cluster.node(third).address();
    assert_eq!(differences(address, true), none, "after a snapshot");

    // A password that one member knows to be right is changed through another one.
    let status = || ask(address, "GET", "/v2/keys/r/a", None, Some(READER)).status;
    assert_eq!(status(), 200);
    let body = r#"{"user":"reader","password":"other"}"#;
    let user = "/v2/auth/users/reader";
    change(cluster.node(leader).address(), "PUT", user, body, 200);
    wait_for("the old password ends", PATIENCE, || {
        (status() == 401).then_some(())
    });
}
