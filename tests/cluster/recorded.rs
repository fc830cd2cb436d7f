//! Replays the recorded responses of a cluster of three, in which members are added, changed and removed.

use std::fs;
use std::path::Path;

use crate::harness::cluster::ELECTED_WITHIN;
use crate::harness::{Cluster, wait_for};
use crate::support::{alone, is_reference};
use crate::transcript::Transcript;

#[test]
fn a_cluster_of_three_answers_as_recorded() {
    let _alone = alone();
    let cluster = Cluster::start(3, &["--cors=*"]);
    let name = "members-cluster.json";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(folder.join(name)).expect("a transcript");
    // If a follower forwards a member change before the leader has applied the previous one, the reference drops it
    // and answers 500 after seven seconds.
    let through = match is_reference() {
        true => vec![cluster.wait_leader()],
        false => vec![0, 1, 2],
    };
    for node in through {
        wait_until_members_may_change(&cluster, node);
        let outcome = Transcript::new(name, &text, cluster.node(node).address()).run();
        println!("through node {node}: {} steps passed", outcome.passed);
        assert!(
            outcome.failures.is_empty(),
            "through node {node}:\n\n{}\n",
            outcome.failures.join("\n\n")
        );
    }
}

/// Member changes are refused until the members have been connected for five seconds.
fn wait_until_members_may_change(cluster: &Cluster, node: usize) {
    wait_for("a change of members to be allowed", ELECTED_WITHIN, || {
        let body = "{\"peerURLs\":[\"http://127.0.0.1:9\"]}";
        let answer = cluster.post_member(node, body).ok()?;
        if answer.status != 201 {
            return None;
        }
        let id = answer.json().get("id")?.text()?.to_owned();
        let target = format!("/v2/members/{id}");
        let removed = cluster.node(node).ask("DELETE", &target, None);
        assert_eq!(removed.status, 204, "{removed:?}");
        Some(())
    });
}
