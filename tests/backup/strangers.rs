//! Members that must be refused: a member of the old cluster, one that was restored a second time, and one that was
//! restored with another index jump.

use crate::harness::{Cluster, wait_for};
use crate::support::{
    PATIENCE, all_endpoints, fill, folder, restore, restore_words, run, said, save,
};

fn await_log(cluster: &Cluster, nodes: &[usize], words: &str) {
    let what = format!("{words:?} in the logs of {nodes:?}");
    wait_for(&what, PATIENCE, || {
        let mut nodes = nodes.iter();
        nodes
            .find(|node| cluster.node(**node).log().contains(words))
            .map(|_| ())
    });
}

/// The old member has an id, a log and a term that would match.
#[test]
fn an_old_member_that_was_not_wiped_is_refused() {
    let mut cluster = Cluster::start(3, &[]);
    fill(&cluster.addresses(), 200);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&all_endpoints(&cluster), &file);
    cluster.put(0, "/later", "lost");
    (0..3).for_each(|node| cluster.kill(node));
    for node in [0, 1] {
        cluster.node_mut(node).wipe();
        restore(&cluster, node, &file);
    }
    (0..3).for_each(|node| cluster.node_mut(node).spawn());
    cluster.wait_leader_among(&[0, 1]);
    await_log(&cluster, &[0, 1, 2], "this is a member of the cluster");
    cluster.put(0, "/new", "time");
    cluster.wait_value(1, "/new", "time", PATIENCE);
    assert!(!cluster.node(2).is_healthy(), "an old member serves");
    let answer = cluster.node(0).ask("GET", "/v2/keys/later", None);
    assert_eq!(
        answer.status,
        404,
        "an old member's write has come: {}",
        answer.text()
    );

    // After it was wiped and restored, it is the third member of the new cluster.
    cluster.kill(2);
    cluster.node_mut(2).wipe();
    restore(&cluster, 2, &file);
    cluster.restart(2);
    cluster.wait_value(2, "/new", "time", PATIENCE);
}

/// With the same flags it has the same id, but it has forgotten what it confirmed.
#[test]
fn a_member_restored_over_again_is_refused() {
    let mut cluster = Cluster::start(3, &[]);
    fill(&cluster.addresses(), 200);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&all_endpoints(&cluster), &file);
    crate::support::wipe_and_restore(&mut cluster, &file);
    cluster.put(0, "/new", "time");
    cluster.wait_value(2, "/new", "time", PATIENCE);
    cluster.kill(2);
    cluster.node_mut(2).wipe();
    restore(&cluster, 2, &file);
    cluster.node_mut(2).spawn();
    await_log(&cluster, &[0, 1, 2], "has another data directory");
    cluster.wait_leader_among(&[0, 1]);
    cluster.put(1, "/new", "day");
    assert!(!cluster.node(2).is_healthy(), "it takes part again");
    // There is still a majority without it. With only one of the two other members, no write may be confirmed.
    cluster.kill(1);
    let alone = cluster.node(0).try_ask(
        "PUT",
        "/v2/keys/new?value=lie",
        None,
        std::time::Duration::from_secs(15),
    );
    assert!(alone.is_ok_and(|answer| answer.status == 500));
}

/// The other nodes were forgotten. They start with empty directories and their first flags.
#[test]
fn members_that_were_not_restored_found_nothing_beside_one_that_was() {
    let mut cluster = Cluster::start(3, &[]);
    fill(&cluster.addresses(), 200);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&all_endpoints(&cluster), &file);
    for node in 0..3 {
        cluster.kill(node);
        cluster.node_mut(node).wipe();
    }
    restore(&cluster, 0, &file);
    cluster.node_mut(0).spawn();
    await_log(&cluster, &[0], "not ready: ");
    for node in [1, 2] {
        cluster.node_mut(node).spawn();
    }
    for node in [1, 2] {
        await_log(
            &cluster,
            &[node],
            "edgetcdctl snapshot restore, with the same file",
        );
        let (status, _) = cluster.node_mut(node).wait_end(PATIENCE);
        assert_eq!(status.code(), Some(1));
        assert!(!cluster.node(node).data().exists(), "nothing was made");
    }
    for node in [1, 2] {
        restore(&cluster, node, &file);
        cluster.node_mut(node).spawn();
    }
    let index = cluster.put(1, "/new", "time");
    assert!(index > 200, "{index}");
}

/// The jump is part of the ids. With different jumps, members of one cluster would give two indexes to one change.
#[test]
fn members_restored_with_different_jumps_do_not_find_each_other() {
    let mut cluster = Cluster::start(2, &[]);
    fill(&cluster.addresses(), 20);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&all_endpoints(&cluster), &file);
    let mut clusters = Vec::new();
    for (node, jump) in ["--bump-index=1000", "--bump-index=2000"]
        .iter()
        .enumerate()
    {
        cluster.kill(node);
        cluster.node_mut(node).wipe();
        let mut words = restore_words(&cluster, node, &file);
        words.push((*jump).to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let told = said(&run("", &words));
        let cluster = told.split(" of the cluster ").nth(1).expect("a cluster");
        clusters.push(cluster.split(',').next().expect("its id").to_owned());
    }
    assert_ne!(clusters[0], clusters[1]);
    (0..2).for_each(|node| cluster.node_mut(node).spawn());
    await_log(&cluster, &[0, 1], "this is a member of the cluster");
    assert!((0..2).all(|node| !cluster.node(node).is_healthy()));
}
