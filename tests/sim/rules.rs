//! The simulator can fail: if one rule of raft or of the engine is off, it finds the violation.
//!
//! The tables contain the seed (below 2,000), the number of nodes, and words of the violation. `HUNT=2000 cargo test
//! --profile sim --test sim hunt -- --ignored --nocapture` searches for them again and prints them. `RULE=…`, `NODES=…` and
//! `KIND=…` limit the search.

use crate::{broken, is_wanted, number, sound};
use edgetcd::engine::rules::Rule;
use edgetcd::lab::runs;
use edgetcd::raft::Rules;
use edgetcd::sim::{Cluster, Keeping, Kind, Scenario, Settings};

/// A name, what to run, and the expected result: the seed, the number of nodes, words of the violation.
struct Case {
    name: String,
    keeping: Option<Keeping>,
    without: Option<Rule>,
    kind: Option<Kind>,
    seed: u64,
    nodes: u64,
    harm: &'static str,
}

impl Case {
    fn settings(&self, seed: u64, nodes: u64) -> Settings {
        let sound = sound(seed, nodes);
        Settings {
            keeping: self.keeping.unwrap_or(sound.keeping),
            without: self.without,
            kind: self.kind,
            ..sound
        }
    }
}

macro_rules! rules {
    ($($rule:ident $(and $also:ident)? $(in $scenario:ident)?: $seed:literal, $nodes:literal, $harm:literal);+ $(;)?) => {
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
                    without: None$(.or(Some(Rule::$also)))?,
                    kind: None$(.or(Some(Kind::Scenario(Scenario::$scenario))))?,
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
    ONE_VOTE_PER_TERM: 6, 3, "changed its vote";
    VOTER_COMPARES_LOGS: 1, 3, "leader completeness";
    PRE_VOTE: 106, 3, "scenario: Isolated";
    BELIEVES_ITS_LEADER: 68, 3, "scenario: DeafToLeader";
    CHECK_QUORUM: 171, 3, "scenario: DeafLeader";
    TIMER_RESET_BY_LEADER_ONLY: 46, 3, "scenario: FastAndStale";
    ACK_AFTER_STORE: 0, 3, "said before stored";
    OWN_STORE_COUNTS: 1, 3, "durability";
    STORED_CHECKS_TERM: 23, 3, "applied before stored";
    PREVIOUS_MUST_MATCH: 0, 3, "assertion";
    TRUNCATE_ONLY_ON_CONFLICT: 0, 3, "assertion: truncating";
    COMMIT_OWN_TERM_ONLY: 5, 3, "leader completeness";
    CHANGE_AFTER_OWN_TERM and ChangesOneByOne: 3, 3, "leader completeness";
    ONE_CHANGE_AT_A_TIME and ChangesOneByOne: 3, 3, "leader completeness";
    UNSTORED_COUNTS and HungLeaderMakesWay in HungUnderLoad: 1, 3, "memory: ";
    READ_AFTER_NOOP: 17, 3, "not linearizable";
    READ_ROUND_IS_NEW: 18, 3, "not linearizable";
    REPEATED_PROBES_WAIT: 259, 3, "scenario: LostTail";
    LEARNER_MAY_LAG: 65, 3, "scenario: Learner";
    SNAPSHOT_ONLY_AHEAD: 0, 3, "commit went back";
}

/// The rules of the engine, the WAL thread and the transport. [`Rule::ChangesOneByOne`] does no harm as long as raft's core keeps
/// its own rules on changes: it is off above, where one of those is.
const ENGINE_RULES: &[(Rule, u64, u64, &str)] = &[
    (Rule::ForwardsEndWithTheirTerm, 1, 3, "forwarded in term"),
    (Rule::SentOnce, 1, 3, "forwarded in term"),
    (Rule::TicketNamesItsTerm, 3, 3, "requests without a reply"),
    (Rule::NotTakenMeansNotAppended, 0, 3, "its client waits"),
    (Rule::ReadAsks, 1, 3, "of its own key"),
    (Rule::ReadIdIsNew, 818, 3, "not linearizable"),
    (Rule::ReadWaitsForItsIndex, 1, 3, "expired early"),
    (Rule::ReadsTimeOut, 0, 3, "waiting for"),
    (Rule::InstalledByTheDisk, 0, 3, "shown before stored"),
    (Rule::InstallEndsWaiting, 63, 3, "its client waits"),
    (Rule::InstallEnds, 114, 3, "liveness"),
    (Rule::TimeIsMonotonic, 1, 3, "time: "),
    (Rule::TimeIsTheClusters, 1, 3, "time: "),
    (Rule::TimeHeardGrows, 0, 3, "time: "),
    (Rule::LeaderExpires, 0, 3, "forwards: "),
    (Rule::ApplyReadsNoClock, 0, 3, "equal states"),
    (Rule::ShownTermIsStored, 1, 3, "shown before stored"),
    (Rule::PublishedBeforeReply, 0, 3, "shown before stored"),
    (Rule::EventsAreComplete, 1, 3, "watchers: "),
    (Rule::OneWordStopsNobody, 1, 3, "removed: "),
    (Rule::StrangersAreIgnored, 9, 3, "strangers: "),
    (Rule::LostDataIsNoticed, 686, 3, "leader completeness"),
    (Rule::LogNamesIncarnations, 686, 3, "leader completeness"),
    (Rule::HungLeaderMakesWay, 2, 3, "scenario: HungDisk"),
    (Rule::EqualsStay, 101, 3, "scenario: SlowDisks"),
    (Rule::StopHandsOver, 59, 3, "scenario: Shutdown"),
    (Rule::StopFinishes, 0, 3, "on its way"),
    (Rule::HardStateIsSynced, 5, 3, "recovery: "),
    (Rule::SyncBeforeSend, 0, 3, "said before stored"),
    (Rule::SyncBeforeReport, 0, 3, "reported before stored"),
    (Rule::FailedSyncIsFinal, 28, 3, "restarts without"),
    (Rule::SnapshotBeforeCut, 265, 3, "the log begins with entry"),
    (Rule::InstallBeforeReport, 0, 3, "reported before stored"),
    (Rule::SnapshotAtItsMark, 3, 3, "equal states"),
    (Rule::UnsentMeansNotSent, 0, 3, "its client waits"),
    (Rule::VoteIsFound, 236, 3, "votes twice"),
    (Rule::TailIsFound, 6, 3, "leader completeness"),
    (Rule::NewUrlsAreSaved, 0, 3, "scenario: Moved"),
    (Rule::RepliedWhenApplied, 0, 3, "shown before stored"),
    (Rule::WatchedWhenScanned, 13, 3, "watchers: "),
];

/// The kind of the runs that need a rule, if seeds do not select it.
fn kind_of(rule: Rule) -> Option<Kind> {
    match rule {
        Rule::NewUrlsAreSaved => Some(Kind::Scenario(Scenario::Moved)),
        _ => None,
    }
}

fn engine_rule(rule: Rule, seed: u64, nodes: u64, harm: &'static str) -> Case {
    Case {
        name: format!("{rule:?}"),
        keeping: None,
        without: Some(rule),
        kind: kind_of(rule),
        seed,
        nodes,
        harm,
    }
}

fn engine_rules() -> Vec<Case> {
    let table = ENGINE_RULES.iter().copied();
    table
        .map(|(rule, seed, nodes, harm)| engine_rule(rule, seed, nodes, harm))
        .collect()
}

/// Random faults do not create the situations of these rules: each takes many acts in a certain order. A run by hand does,
/// and `tests/lab` plays it with the rule and without it.
const BY_HAND: &[Rule] = &[Rule::LatestTimeCounts, Rule::SupersededIsReported];

/// A rule without a seed proves nothing.
#[test]
fn each_rule_of_the_engine_has_a_seed() {
    let has_none = |rule: &&Rule| {
        let listed = ENGINE_RULES.iter().any(|(listed, ..)| listed == *rule);
        let name = format!("{rule:?}");
        let has_run = runs::ALL.iter().any(|run| run.name == name);
        let is_by_hand = BY_HAND.contains(rule) && has_run;
        !listed && !is_by_hand && **rule != Rule::ChangesOneByOne
    };
    let missing: Vec<&Rule> = Rule::ALL.iter().filter(has_none).collect();
    assert!(missing.is_empty(), "HUNT for {missing:?}");
}

/// Each violation is found again with its seed.
#[test]
fn each_rule_is_needed() {
    for case in rules().into_iter().chain(engine_rules()) {
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
        let sound_one = broken(&mut Cluster::new(Settings {
            kind: case.kind,
            ..sound(seed, case.nodes)
        }));
        assert_eq!(
            sound_one, None,
            "seed {seed} breaks with all rules kept, too"
        );
    }
}

/// Searches for the first seed, on three nodes and then on five, that shows each violation.
#[test]
#[ignore = "prints what goes into the tables above"]
fn hunt() {
    let seeds = number("HUNT", 0);
    let only = std::env::var("RULE").ok();
    let engine = Rule::ALL.iter().map(|rule| engine_rule(*rule, 0, 3, ""));
    for case in rules().into_iter().chain(engine) {
        if only.as_ref().is_some_and(|only| *only != case.name) {
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
