//! The simulator can fail: with one rule off, or one mistake in the driver, it finds the harm.
//!
//! The tables say at which seed, and on how many nodes. `HUNT=2000 cargo test --profile sim --test sim hunt
//! -- --nocapture` looks for them anew and prints them.

use crate::{broken, number, sound};
use edgetcd::raft::Rules;
use edgetcd::sim::{Cluster, Flaw, Keeping, Settings};

/// A name, what to run, and what to expect: the seed, the nodes, words of the harm.
struct Case {
    name: String,
    keeping: Option<Keeping>,
    flaw: Option<Flaw>,
    seed: u64,
    nodes: u64,
    harm: &'static str,
}

impl Case {
    fn settings(&self, seed: u64, nodes: u64) -> Settings {
        let sound = sound(seed, nodes);
        Settings {
            keeping: self.keeping.unwrap_or(sound.keeping),
            flaw: self.flaw,
            ..sound
        }
    }
}

macro_rules! rules {
    ($($rule:ident: $seed:literal, $nodes:literal, $harm:literal);+ $(;)?) => {
        fn rules() -> Vec<Case> {
            vec![$({
                #[derive(Debug)]
                struct Without;
                impl Rules for Without {
                    const $rule: bool = false;
                }
                Case {
                    name: stringify!($rule).into(),
                    keeping: Some(Keeping::rules::<Without>()),
                    flaw: None,
                    seed: $seed,
                    nodes: $nodes,
                    harm: $harm,
                }
            }),+]
        }
    };
}

rules! {
    VOTE_STORED_BEFORE_ANSWER: 0, 3, "";
    ONE_VOTE_PER_TERM: 0, 3, "";
    VOTER_COMPARES_LOGS: 0, 3, "";
    PRE_VOTE: 0, 3, "";
    BELIEVES_ITS_LEADER: 0, 3, "";
    CHECK_QUORUM: 0, 3, "";
    TIMER_RESET_BY_LEADER_ONLY: 0, 3, "";
    ACK_AFTER_STORE: 0, 3, "";
    OWN_STORE_COUNTS: 0, 3, "";
    STORED_CHECKS_TERM: 0, 3, "";
    PREVIOUS_MUST_MATCH: 0, 3, "";
    TRUNCATE_ONLY_ON_CONFLICT: 0, 3, "";
    COMMIT_OWN_TERM_ONLY: 0, 3, "";
    CHANGE_AFTER_OWN_TERM: 0, 3, "";
    ONE_CHANGE_AT_A_TIME: 0, 3, "";
    READ_AFTER_NOOP: 0, 3, "";
    READ_ROUND_IS_NEW: 0, 3, "";
    SNAPSHOT_ONLY_AHEAD: 0, 3, "";
}

fn flaws() -> Vec<Case> {
    let case = |(flaw, seed, nodes, harm): (Flaw, u64, u64, &'static str)| Case {
        name: format!("{flaw:?}"),
        keeping: None,
        flaw: Some(flaw),
        seed,
        nodes,
        harm,
    };
    let table = [
        (Flaw::AckBeforeSync, 0, 3, ""),
        (Flaw::FailedSyncIgnored, 0, 3, ""),
        (Flaw::LogCutBeforeSnapshot, 0, 3, ""),
        (Flaw::InstallReportedEarly, 0, 3, ""),
        (Flaw::SnapshotAheadOfMark, 0, 3, ""),
        (Flaw::BallotForgotten, 0, 3, ""),
        (Flaw::TailDropped, 0, 3, ""),
        (Flaw::RetriedAfterAppend, 0, 3, ""),
        (Flaw::ReadIdReused, 0, 3, ""),
        (Flaw::ReadWithoutAsking, 0, 3, ""),
        (Flaw::ExpiryByWallClock, 0, 3, ""),
        (Flaw::ExpiryByName, 0, 3, ""),
        (Flaw::TimeOfOwnBoot, 0, 3, ""),
        (Flaw::ApplyReadsClock, 0, 3, ""),
    ];
    table.into_iter().map(case).collect()
}

/// Looks for the first seed, on three nodes and then on five, that shows the harm of each.
#[test]
fn hunt() {
    let seeds = number("HUNT", 0);
    let only = std::env::var("RULE").ok();
    for case in rules().into_iter().chain(flaws()) {
        if seeds == 0 || only.as_ref().is_some_and(|only| *only != case.name) {
            continue;
        }
        let wanted = number("NODES", 0);
        let nodes = [3, 5]
            .into_iter()
            .filter(|nodes| wanted == 0 || *nodes == wanted);
        let found = nodes.into_iter().find_map(|nodes| {
            (0..seeds).find_map(|seed| {
                let mut cluster = Cluster::new(case.settings(seed, nodes));
                Some((seed, nodes, cluster_kind(&cluster), broken(&mut cluster)?))
            })
        });
        println!("{}: {found:?}", case.name);
    }
}

fn cluster_kind(cluster: &Cluster) -> String {
    format!("{:?}", cluster.kind())
}
