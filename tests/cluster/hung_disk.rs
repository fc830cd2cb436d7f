//! The disk of one member hangs, those of the others do not. The cluster continues, and that member is unhealthy.

use std::time::Duration;

use crate::harness::client::PATIENCE;
use crate::harness::mount::Mount;
use crate::harness::{Cluster, wait_for};
use crate::support::alone;

/// The request timeout is 7 s. A write that waits for a hung disk takes as long.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root, to mount a file system and to freeze it"]
fn a_leader_whose_disk_hangs_is_not_healthy_and_another_leads() {
    let _alone = alone();
    let mounts: Vec<Mount> = (0..3).map(|_| Mount::ext4(64)).collect();
    let cluster = cluster_on(mounts.iter());
    let leader = cluster.wait_leader();
    let others = cluster.others(leader);
    let frozen = mounts[leader].freeze();
    write_until_unhealthy(&cluster, leader, &others);
    cluster.wait_leader_among(&others);
    // Until then, a hung batch may have delayed requests to the old leader.
    cluster.put(others[0], "/after", "1");
    cluster.wait_value(others[1], "/after", "1", PATIENCE);
    for &other in &others {
        assert!(cluster.node(other).is_healthy(), "n{other}");
    }
    drop(frozen);
    recovers(&cluster, leader);
}

#[test]
#[ignore = "needs root, to mount a file system and to freeze it"]
fn a_follower_whose_disk_hangs_is_not_healthy_and_holds_nobody_up() {
    let _alone = alone();
    let mounts: Vec<Mount> = (0..3).map(|_| Mount::ext4(64)).collect();
    let cluster = cluster_on(mounts.iter());
    let leader = cluster.wait_leader();
    let (follower, other) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let frozen = mounts[follower].freeze();
    assert!(cluster.node(follower).is_healthy(), "nobody has written");
    let probe = cluster
        .node(follower)
        .try_ask("GET", "/health?probe=true", None, PATIENCE);
    assert_eq!(probe.expect("an answer").status, 503);
    write_until_unhealthy(&cluster, follower, &[leader]);
    for node in [leader, other] {
        assert!(cluster.node(node).is_healthy(), "n{node}");
    }
    assert_eq!(cluster.wait_leader_among(&[leader, other]), leader);
    drop(frozen);
    recovers(&cluster, follower);
}

fn cluster_on<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Cluster {
    let mut cluster = Cluster::prepare(3, &[]);
    for (node, mount) in mounts.enumerate() {
        let folder = mount.path().join("data");
        cluster.node_mut(node).keep_data_in(&folder);
    }
    cluster.launch();
    cluster
}

/// Each write gives the hung disk a batch, if the member had none.
fn write_until_unhealthy(cluster: &Cluster, hung: usize, through: &[usize]) {
    wait_for("the member not to be healthy", NOTICED_WITHIN, || {
        for &node in through {
            // The write may fail while the old leader still waits for its disk.
            let form = Some("value=1");
            let _ = cluster
                .node(node)
                .try_ask("PUT", "/v2/keys/k", form, PATIENCE);
        }
        let answer = cluster.node(hung).ask("GET", "/health", None);
        (answer.status == 503).then_some(())
    });
    let text = cluster.node(hung).ask("GET", "/health", None).text();
    assert_eq!(text, "{\"health\":\"false\"}\n");
    // A leader that has lost its followers is unhealthy before the request timeout has passed.
    let reason =
        "[-]disk_sync failed: the disk has not stored a batch within the request timeout\n";
    wait_for("the reason", NOTICED_WITHIN, || {
        let ready = cluster.node(hung).ask("GET", "/readyz", None);
        assert_eq!(ready.status, 503, "{ready:?}");
        ready.text().contains(reason).then_some(())
    });
    assert_eq!(cluster.node(hung).ask("GET", "/livez", None).status, 200);
    let read = cluster.node(hung).ask("GET", "/v2/keys/k", None);
    assert!(
        [200, 404].contains(&read.status),
        "reads must succeed: {read:?}"
    );
}

fn recovers(cluster: &Cluster, node: usize) {
    wait_for("the member to be healthy", NOTICED_WITHIN, || {
        cluster.node(node).is_healthy().then_some(())
    });
    cluster.put(node, "/last", "1");
    for node in 0..3 {
        cluster.wait_value(node, "/last", "1", PATIENCE);
    }
}
