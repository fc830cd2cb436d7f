//! The simulator can fail: if one rule is off, or the driver has one flaw, it finds the violation.
//!
//! The tables contain the seed (below 2,000), the number of nodes, and words of the violation. `HUNT=2000 cargo test
//! --profile sim --test sim hunt -- --nocapture` searches for them again and prints them. `RULE=…`, `NODES=…` and
//! `KIND=…` limit the search.

use crate::{broken, is_wanted, number, sound};
use edgetcd::raft::Rules;
use edgetcd::sim::{Cluster, Flaw, Keeping, Settings};

/// A name, what to run, and the expected result: the seed, the number of nodes, words of the violation.
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
    VOTE_STORED_BEFORE_ANSWER: 0, 3, "said before stored";
    ONE_VOTE_PER_TERM: 8, 3, "changed its vote";
    VOTER_COMPARES_LOGS: 7, 3, "leader completeness";
    PRE_VOTE: 80, 3, "calm: Isolated";
    BELIEVES_ITS_LEADER: 93, 3, "calm: DeafToLeader";
    CHECK_QUORUM: 61, 3, "calm: DeafLeader";
    TIMER_RESET_BY_LEADER_ONLY: 7, 3, "calm: FastAndStale";
    ACK_AFTER_STORE: 0, 3, "said before stored";
    OWN_STORE_COUNTS: 0, 3, "durability";
    STORED_CHECKS_TERM: 1471, 3, "said before stored";
    PREVIOUS_MUST_MATCH: 0, 3, "assertion";
    TRUNCATE_ONLY_ON_CONFLICT: 0, 3, "assertion: truncating";
    COMMIT_OWN_TERM_ONLY: 24, 3, "leader completeness";
    CHANGE_AFTER_OWN_TERM: 0, 3, "leader completeness";
    ONE_CHANGE_AT_A_TIME: 0, 3, "leader completeness";
    READ_AFTER_NOOP: 13, 3, "not linearizable";
    READ_ROUND_IS_NEW: 86, 3, "not linearizable";
    SNAPSHOT_ONLY_AHEAD: 8, 3, "commit went back";
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
        (Flaw::AckBeforeSync, 0, 3, "said before stored"),
        (Flaw::FailedSyncIgnored, 19, 3, "restarts without"),
        (
            Flaw::LogCutBeforeSnapshot,
            264,
            3,
            "the log begins with entry",
        ),
        (Flaw::InstallReportedEarly, 0, 3, "said before stored"),
        (Flaw::SnapshotAheadOfMark, 0, 3, "equal states"),
        (Flaw::BallotForgotten, 143, 3, "votes twice"),
        (Flaw::TailDropped, 13, 3, "leader completeness"),
        (Flaw::RetriedAfterAppend, 0, 3, "applied twice"),
        (Flaw::ReadIdReused, 107, 3, "not linearizable"),
        (Flaw::ReadWithoutAsking, 13, 3, "not linearizable"),
        (Flaw::ExpiryByWallClock, 2, 3, "have not expired"),
        (Flaw::ExpiryByName, 141, 3, "expired early"),
        (Flaw::TimeOfOwnBoot, 2, 3, "have not expired"),
        (Flaw::ApplyReadsClock, 0, 3, "equal states"),
    ];
    table.into_iter().map(case).collect()
}

/// Each violation is found again with its seed.
#[test]
fn each_rule_is_needed() {
    for case in rules().into_iter().chain(flaws()) {
        let mut cluster = Cluster::new(case.settings(case.seed, case.nodes));
        let (name, seed) = (&case.name, case.seed);
        let found = broken(&mut cluster);
        match found {
            None => panic!("{name} is off, and nothing broke at seed {seed}: HUNT for another one"),
            Some(found) => assert!(
                found.contains(case.harm),
                "{name}, seed {seed}: another harm: {found}"
            ),
        }
        let sound_one = broken(&mut Cluster::new(sound(seed, case.nodes)));
        assert_eq!(
            sound_one, None,
            "seed {seed} breaks with all rules kept, too"
        );
    }
}

/// Searches for the first seed, on three nodes and then on five, that shows each violation.
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
                if !is_wanted(&cluster) {
                    return None;
                }
                Some((seed, nodes, cluster.kind(), broken(&mut cluster)?))
            })
        });
        println!("{}: {found:?}", case.name);
    }
}
