//! Links are cut in one or both directions, in every pattern, and restored.
//!
//! The full test has `LINK_PATTERNS=64 LINK_HOLD_MS=5000`. The reference has these properties only with
//! `--pre-vote=true`.

use std::time::Duration;

use crate::crowd::Crowd;
use crate::harness::{Cluster, setting};
use crate::support::{ELECTION_TIMEOUT, alone, check_ledger, own_bar, setting_ms, watch_for};

/// The one-way links between three nodes. Bit n of a pattern cuts link n.
const LINKS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
/// The most terms that a pattern may cost: for a leader that it cuts off, and for an election that it disturbs, while
/// it is applied or when it is restored.
const TERMS_OF_A_PATTERN: u64 = 3;
const WRITERS: u64 = 4;

#[test]
#[ignore = "needs root and ip, for links that can be cut"]
fn every_pattern_of_cut_links_heals_to_one_leader() {
    let _alone = alone();
    let cluster = Cluster::linked(3, &[]);
    let hold = setting_ms("LINK_HOLD_MS", 1000);
    let count = setting("LINK_PATTERNS", 6).clamp(1, 64);
    let crowd = Crowd::start(cluster.addresses(), WRITERS, 1);
    for number in 0..count {
        // Evenly distributed over all patterns, including the full cut.
        let pattern = 63 - number * 64 / count;
        let term = highest_term(&cluster);
        for (_, (from, to)) in cut_links(pattern) {
            cluster.cut(from, to);
        }
        watch_for(hold, || {});
        cluster.heal();
        let leader = cluster.wait_leader();
        cluster.put(leader, &format!("/healed/{pattern}"), "1");
        for node in 0..3 {
            let patience = Duration::from_secs(30);
            cluster.wait_value(node, &format!("/healed/{pattern}"), "1", patience);
        }
        let terms = highest_term(&cluster) - term;
        println!("pattern {pattern:06b}: node {leader} leads, {terms} new terms");
        own_bar(
            terms <= TERMS_OF_A_PATTERN,
            &format!("pattern {pattern:06b} costs {terms} of at most {TERMS_OF_A_PATTERN} terms"),
        );
    }
    let mut tally = crowd.finish();
    let leader = cluster.wait_leader();
    check_ledger(&cluster, leader, &mut tally.ledger);
}

fn cut_links(pattern: u64) -> impl Iterator<Item = (usize, (usize, usize))> {
    let links = LINKS.into_iter().enumerate();
    links.filter(move |(bit, _)| pattern & (1 << bit) != 0)
}

fn highest_term(cluster: &Cluster) -> u64 {
    let terms = (0..cluster.len()).map(|node| cluster.term(node));
    terms.max().expect("nodes")
}

#[test]
#[ignore = "needs root and ip, for links that can be cut"]
fn an_isolated_follower_returns_without_an_election() {
    let _alone = alone();
    let cluster = Cluster::linked(3, &[]);
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];
    let term = cluster.term(leader);
    cluster.isolate(follower);
    watch_for(setting_ms("ISOLATED_MS", 4000), || {});
    cluster.put(leader, "/while-away", "1");
    cluster.heal();
    cluster.wait_value(follower, "/while-away", "1", Duration::from_secs(30));
    watch_for(ELECTION_TIMEOUT * 2, || {});
    let after = cluster.term(leader);
    own_bar(
        after == term,
        &format!("the term stays {term}, it is {after}"),
    );
    assert_eq!(cluster.wait_leader(), leader);
}

/// A leader that sends but receives nothing must step down. The same holds for a leader that receives but cannot send.
#[test]
#[ignore = "needs root and ip, for links that can be cut"]
fn a_leader_cut_one_way_gives_way() {
    let _alone = alone();
    let cluster = Cluster::linked(3, &[]);
    for deaf in [true, false] {
        let leader = cluster.wait_leader();
        let others = cluster.others(leader);
        for other in &others {
            match deaf {
                true => cluster.cut(*other, leader),
                false => cluster.cut(leader, *other),
            }
        }
        let next = cluster.wait_leader_among(&others);
        println!("leader {leader}, deaf: {deaf}, gives way to {next}");
        cluster.put(next, "/one-way", "1");
        cluster.heal();
        cluster.wait_leader();
    }
}
