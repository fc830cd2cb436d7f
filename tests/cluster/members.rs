//! Members that are added, removed or wiped, and nodes of another cluster.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::harness::client::PATIENCE;
use crate::support::{alone, ask_fresh, own_bar, setting_seconds, watch_for};

const JOINED_WITHIN: Duration = Duration::from_secs(60);

/// Of a process whose member was removed.
const REMOVED_STATUS: i32 = 3;

#[test]
fn an_added_member_has_the_data_and_a_removed_one_ends_by_itself() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    cluster.put(0, "/before", "1");
    let new = cluster.add(0);
    cluster.restart(new);
    cluster.wait_value(new, "/before", "1", JOINED_WITHIN);
    cluster.put(new, "/through-the-new-one", "2");
    cluster.wait_value(0, "/through-the-new-one", "2", JOINED_WITHIN);
    cluster.wait_leader();

    let id = cluster.remove(0, new);
    let (status, took) = cluster.node_mut(new).wait_end(Duration::from_secs(15));
    println!("the removed node ended with {status} after {took:?}");
    own_bar(
        status.code() == Some(REMOVED_STATUS),
        "a supervisor sees why it ended",
    );
    let again = cluster
        .node(0)
        .ask("DELETE", &format!("/v2/members/{id}"), None);
    assert_eq!(again.status, 410, "{again:?}");
    // It must not start again with its data.
    cluster.node_mut(new).spawn();
    let (status, took) = cluster.node_mut(new).wait_end(Duration::from_secs(15));
    println!("started again it ended with {status} after {took:?}");
    own_bar(
        status.code() == Some(REMOVED_STATUS),
        "and does not try for ever",
    );
    assert_eq!(cluster.members(0).len(), 3);
    cluster.put(1, "/after", "3");
}

/// The third member joined after the newest snapshot, and leads when the fourth one joins.
#[test]
fn a_cluster_grows_from_one_and_whoever_leads_admits_the_next() {
    let _alone = alone();
    let mut cluster = Cluster::start(1, &[]);
    cluster.put(0, "/before", "1");
    for through in 0..2 {
        let new = cluster.add(through);
        cluster.restart(new);
        cluster.wait_value(new, "/before", "1", JOINED_WITHIN);
    }
    // A leader that stops transfers to a member that it has heard from within an election timeout. So if the other
    // member has been paused for longer, the third one becomes leader.
    let deadline = Instant::now() + Duration::from_secs(60);
    while cluster.wait_leader() != 2 {
        assert!(Instant::now() < deadline, "the third never leads");
        let leader = cluster.wait_leader();
        let other = 1 - leader;
        cluster.pause(other);
        watch_for(Duration::from_millis(1500), || {});
        cluster.stop(leader);
        cluster.resume(other);
        cluster.wait_leader_among(&[other, 2]);
        cluster.restart(leader);
    }
    let new = cluster.add(2);
    cluster.restart(new);
    cluster.wait_value(new, "/before", "1", JOINED_WITHIN);
    cluster.put(new, "/after", "2");
    cluster.wait_value(2, "/after", "2", JOINED_WITHIN);
}

/// The member was down when it was removed, and the remaining members do not send it entries.
#[test]
fn a_member_that_was_down_while_it_was_removed_learns_it_when_it_starts() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let removed = cluster.others(leader)[0];
    cluster.stop(removed);
    cluster.remove(leader, removed);
    cluster.node_mut(removed).spawn();
    let (status, took) = cluster.node_mut(removed).wait_end(Duration::from_secs(30));
    println!("it ended with {status} after {took:?}");
    own_bar(
        status.code() == Some(REMOVED_STATUS),
        "a supervisor sees why it ended",
    );
    let said = cluster.node(removed).log();
    own_bar(
        said.contains("permanently removed"),
        "its last log line names the reason",
    );
    cluster.put(leader, "/after", "1");
}

/// The member knows none of the current members, and all members that it knows were removed.
#[test]
fn a_member_that_was_away_while_all_others_were_replaced_comes_back() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let away = 0;
    cluster.put(away, "/before", "1");
    for node in 0..3 {
        cluster.wait_value(node, "/before", "1", JOINED_WITHIN);
    }
    cluster.stop(away);
    for old in [1, 2] {
        let through = 3 - old;
        let through = if cluster.node(through).runs() {
            through
        } else {
            3
        };
        let new = cluster.add(through);
        cluster.restart(new);
        cluster.wait_value(new, "/before", "1", JOINED_WITHIN);
        cluster.put(new, "/voter", "1");
        cluster.remove(new, old);
        cluster.node_mut(old).wait_end(Duration::from_secs(30));
    }
    cluster.put(4, "/replaced", "1");
    cluster.restart(away);
    cluster.wait_value(away, "/replaced", "1", JOINED_WITHIN);
    cluster.put(away, "/after", "2");
    cluster.wait_value(3, "/after", "2", JOINED_WITHIN);
}

/// The node was stopped when it was removed, so it does not know about its removal.
#[test]
fn a_removed_node_left_running_disturbs_nobody() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let removed = cluster.others(leader)[0];
    cluster.pause(removed);
    cluster.put(leader, "/noticed", "1");
    cluster.remove(leader, removed);
    let stay = cluster.others(removed);
    let leader = cluster.wait_leader_among(&stay);
    let term = cluster.term(leader);
    cluster.resume(removed);
    watch_for(setting_seconds("REMOVED_SECONDS", 5), || {
        assert_eq!(
            cluster.term(leader),
            term,
            "the removed node caused an election"
        );
    });
    assert_eq!(cluster.wait_leader_among(&stay), leader);
    cluster.put(leader, "/undisturbed", "1");
    let ended = cluster.node_mut(removed).ended();
    println!("the removed node has ended by itself: {ended:?}");
}

#[test]
fn a_wiped_node_with_its_old_flags_is_refused() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let wiped = cluster.others(leader)[0];
    cluster.kill(wiped);
    cluster.put(leader, "/goes-on", "1");
    cluster.node_mut(wiped).wipe();
    cluster.node_mut(wiped).spawn();
    let (status, _) = cluster.node_mut(wiped).wait_end(Duration::from_secs(15));
    assert_eq!(status.code(), Some(1), "{status}");
    let said = cluster.node(wiped).log();
    let id = cluster.id(leader, wiped).expect("still a member");
    assert!(said.contains(&id), "its id {id} is not named:\n{said}");
    let mends = said.contains("member remove") || said.contains("member add");
    own_bar(mends, "its last words name the command that mends it");
    cluster.put(leader, "/still-goes-on", "1");
}

/// Each cluster moves one of its nodes to an address of the other cluster.
#[test]
fn two_clusters_with_crossed_addresses_do_not_mix() {
    let _alone = alone();
    let mut one = Cluster::start(3, &["--initial-cluster-token=one"]);
    let mut other = Cluster::start(3, &["--initial-cluster-token=other"]);
    one.put(0, "/whose", "one");
    other.put(0, "/whose", "other");
    for cluster in [&mut one, &mut other] {
        assert!(cluster.stop(2).code().is_none_or(|code| code == 0));
    }
    let (here, there) = (one.node(2).peer_address(), other.node(2).peer_address());
    let listens = |address| format!("--listen-peer-urls=http://{address}");
    one.node_mut(2).add_flag(&listens(there));
    other.node_mut(2).add_flag(&listens(here));
    // They may find no leader there, so do not wait for them to be healthy.
    one.node_mut(2).spawn();
    other.node_mut(2).spawn();
    let terms = |one: &Cluster, other: &Cluster| {
        let (a, b) = (
            one.wait_leader_among(&[0, 1]),
            other.wait_leader_among(&[0, 1]),
        );
        (one.term(a), other.term(b))
    };
    let before = terms(&one, &other);
    watch_for(setting_seconds("CROSSED_SECONDS", 5), || {
        one.wait_value(0, "/whose", "one", PATIENCE);
        other.wait_value(0, "/whose", "other", PATIENCE);
    });
    one.put(1, "/only-one", "1");
    let absent = other
        .node(1)
        .ask("GET", "/v2/keys/only-one?quorum=true", None);
    assert_eq!(absent.status, 404, "{absent:?}");
    assert_eq!(one.members(0).len(), 3);
    assert_eq!(other.members(0).len(), 3);
    let after = terms(&one, &other);
    println!("terms before {before:?}, after {after:?}");
    assert_eq!(
        before, after,
        "a node of another cluster caused an election"
    );
}

/// The members apply entries only after there is a leader, and they elect one only when they reach each other. The
/// snapshot after an update contains the new URLs.
#[test]
fn members_that_all_moved_find_each_other_after_a_restart() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    cluster.put(0, "/before", "1");
    (0..3).for_each(|node| cluster.move_node(0, node));
    // Each node has the last change on its disk.
    cluster.put(0, "/moved", "1");
    (1..3).for_each(|node| cluster.wait_value(node, "/moved", "1", PATIENCE));
    (0..3).for_each(|node| cluster.kill(node));
    cluster.launch();
    let leader = cluster.wait_leader();
    cluster.put(leader, "/after", "1");
    (0..3).for_each(|node| cluster.wait_value(node, "/after", "1", JOINED_WITHIN));
}

/// It knows the others by their old URLs, so they must send it their new ones.
#[test]
fn a_member_that_was_down_while_the_others_moved_comes_back() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    cluster.kill(2);
    for node in 0..2 {
        cluster.move_node(1 - node, node);
        cluster.kill(node);
        cluster.node_mut(node).spawn();
        cluster.wait_leader_among(&[0, 1]);
    }
    cluster.put(0, "/moved", "1");
    cluster.restart(2);
    cluster.wait_value(2, "/moved", "1", JOINED_WITHIN);
    cluster.kill(0);
    let leader = cluster.wait_leader_among(&[1, 2]);
    cluster.put(leader, "/after", "1");
}

#[test]
fn five_seven_and_nine_nodes_work() {
    let _alone = alone();
    for count in [5, 7, 9] {
        let mut cluster = Cluster::start(count, &[]);
        for node in 0..count {
            cluster.put(node, &format!("/from/{node}"), &format!("{node}"));
        }
        let leader = cluster.wait_leader();
        cluster.kill(leader);
        // And pauses as many followers as a majority can do without.
        for node in cluster.running().into_iter().take(count / 2 - 1) {
            cluster.kill(node);
        }
        let next = cluster.wait_leader();
        cluster.put(next, "/with-a-bare-majority", "1");
        for node in cluster.running() {
            for key in 0..count {
                let target = format!("/v2/keys/from/{key}?quorum=true");
                let answer = cluster.node(node).ask("GET", &target, None);
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        println!("{count} nodes: {leader} led, {next} leads with a bare majority");
    }
}

/// The reference stops serving in this case, because its quorum counts a member that was never started.
#[test]
fn adding_to_one_or_two_never_blocks_writes() {
    let _alone = alone();
    for count in [1, 2] {
        let mut cluster = Cluster::start(count, &[]);
        cluster.put(0, "/before", "1");
        let new = cluster.add(0);
        let start = Instant::now();
        while start.elapsed() < setting_seconds("ADDED_SECONDS", 3) {
            let address = cluster.node(0).address();
            let answer = ask_fresh(address, "PUT", "/v2/keys/k?value=1", PATIENCE);
            let answer = answer.expect("an answer");
            let line = format!(
                "{count} nodes and one never started: a write is answered {} after {:?}",
                answer.status,
                start.elapsed()
            );
            if answer.status >= 300 {
                own_bar(false, &line);
                break;
            }
        }
        println!("{count} nodes: the added one is started");
        cluster.restart(new);
        cluster.wait_value(new, "/before", "1", JOINED_WITHIN);
        cluster.put(new, "/after", "1");
    }
}

#[test]
fn force_new_cluster_goes_on_alone_with_the_same_data() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let index = cluster.put(0, "/kept", "1");
    // The following writes tell node 2 that the first one is committed, and node 2 stores that.
    for number in 0..10 {
        cluster.put(0, "/later", &format!("{number}"));
    }
    cluster.wait_value(2, "/later", "9", JOINED_WITHIN);
    (0..3).for_each(|node| cluster.kill(node));
    cluster.node_mut(2).add_flag("--force-new-cluster=true");
    cluster.restart(2);
    assert_eq!(cluster.members(2).len(), 1);
    cluster.wait_value(2, "/kept", "1", JOINED_WITHIN);
    assert!(cluster.put(2, "/alone", "1") > index, "the index goes on");
    // Without the flag it keeps its new member list.
    cluster.node_mut(2).drop_flag("--force-new-cluster=true");
    cluster.kill(2);
    cluster.restart(2);
    cluster.wait_value(2, "/alone", "1", JOINED_WITHIN);
    assert_eq!(cluster.members(2).len(), 1);
    // And it accepts new members again.
    let new = cluster.add(2);
    cluster.restart(new);
    cluster.wait_value(new, "/kept", "1", JOINED_WITHIN);
}

/// The leader is a normal member, so it can also be asked to remove itself.
#[test]
fn a_leader_that_is_removed_leaves_a_working_cluster() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let others = cluster.others(leader);
    cluster.remove(others[0], leader);
    let (status, took) = cluster.node_mut(leader).wait_end(Duration::from_secs(15));
    println!("the removed leader ended with {status} after {took:?}");
    own_bar(
        status.code() == Some(REMOVED_STATUS),
        "a supervisor sees why it ended",
    );
    let next = cluster.wait_leader_among(&others);
    cluster.put(next, "/after", "1");
    assert_eq!(cluster.members(next).len(), 2);
}
