//! The rules that a run can switch off, by the names that they have in the code.

use crate::engine::rules::Rule;
use crate::raft::Rules;
use crate::sim::Keeping;
use std::fmt;

/// A rule that is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// One of raft's ([`Rules`]), by its position in [`RAFT`].
    Raft(usize),
    /// One of the engine and of the threads around it.
    Engine(Rule),
}

/// A rule of raft, as the lab shows it.
pub struct RaftRule {
    /// The name of the constant in [`Rules`].
    pub name: &'static str,
    /// What a member does.
    pub sentence: &'static str,
    /// The section of the paper or the dissertation.
    pub section: &'static str,
    keeping: fn() -> Keeping,
}

macro_rules! raft_rules {
    ($($name:ident, $section:literal, $sentence:literal;)+) => {
        /// Raft's rules, in the order of [`Rules`].
        pub const RAFT: &[RaftRule] = &[$(RaftRule {
            name: stringify!($name),
            sentence: $sentence,
            section: $section,
            keeping: || {
                #[derive(Debug)]
                struct Without;
                impl Rules for Without {
                    const $name: bool = false;
                }
                Keeping::rules::<Without>()
            },
        }),+];
    };
}

raft_rules! {
    VOTE_STORED_BEFORE_ANSWER, "paper §5.2, figure 2", "A vote is on disk before it is answered.";
    ONE_VOTE_PER_TERM, "paper §5.2", "A member votes once in a term.";
    VOTER_COMPARES_LOGS, "paper §5.4.1", "A voter refuses a candidate whose log ends before its own.";
    PRE_VOTE, "dissertation §9.6", "A candidate first asks whether it could win.";
    BELIEVES_ITS_LEADER, "dissertation §4.2.3", "A voter that hears its leader ignores candidates.";
    CHECK_QUORUM, "dissertation §6.2", "A leader that hears no majority steps down.";
    TIMER_RESET_BY_LEADER_ONLY, "paper §5.2", "Only a leader, or a granted vote, restarts the election timer.";
    ACK_AFTER_STORE, "paper §5.3, figure 2", "A follower acknowledges entries that are on its disk.";
    OWN_STORE_COUNTS, "dissertation §10.2.1", "A leader counts itself when the entry is on its own disk.";
    UNSTORED_COUNTS, "dissertation §10.2.1", "A leader limits the entries that its own disk has not stored.";
    STORED_CHECKS_TERM, "paper §5.3", "A late report of the disk counts only for the entry that it names.";
    PREVIOUS_MUST_MATCH, "paper §5.3", "A follower accepts entries only after the entry before them.";
    TRUNCATE_ONLY_ON_CONFLICT, "paper §5.3, figure 2", "A follower deletes entries only from the first conflict on.";
    COMMIT_OWN_TERM_ONLY, "paper §5.4.2, figure 8", "A leader counts copies only of entries of its own term.";
    CHANGE_AFTER_OWN_TERM, "the bug of 2015", "A leader changes members only after an entry of its term is committed.";
    ONE_CHANGE_AT_A_TIME, "dissertation §4.1", "A leader changes members only when no other change is uncommitted.";
    READ_AFTER_NOOP, "dissertation §6.4", "A leader serves reads only after the no-op of its term is committed.";
    READ_ROUND_IS_NEW, "dissertation §6.4", "A read waits for a heartbeat round that began after it arrived.";
    REPEATED_PROBES_WAIT, "paper §5.3", "A probe that was refused is repeated only if it asks for less.";
    LEARNER_MAY_LAG, "dissertation §4.2.1", "A learner has caught up if it has what was committed a while ago.";
    SNAPSHOT_ONLY_AHEAD, "paper §7", "A snapshot is installed only if it is ahead.";
}

impl Switch {
    /// The switch with this name.
    pub fn named(name: &str) -> Option<Switch> {
        let raft = RAFT.iter().position(|rule| rule.name == name);
        let mut engine = Rule::ALL.iter();
        let mut engine = || engine.find(|rule| format!("{rule:?}") == name);
        raft.map(Switch::Raft)
            .or_else(|| engine().map(|rule| Switch::Engine(*rule)))
    }

    /// All switches.
    pub fn all() -> impl Iterator<Item = Switch> {
        let raft = (0..RAFT.len()).map(Switch::Raft);
        raft.chain(Rule::ALL.iter().copied().map(Switch::Engine))
    }

    fn is_rafts(self) -> bool {
        matches!(self, Switch::Raft(_))
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Switch::Raft(number) => f.write_str(RAFT[*number].name),
            Switch::Engine(rule) => write!(f, "{rule:?}"),
        }
    }
}

/// Whether these can be off together: at most one of raft's rules, and one of the others.
///
/// # Errors
/// A sentence for the person who chose them.
pub fn check(off: &[Switch]) -> Result<(), String> {
    let rafts = off.iter().filter(|switch| switch.is_rafts()).count();
    if rafts > 1 || off.len() - rafts > 1 {
        return Err("at most one rule of raft and one of the engine can be off".into());
    }
    Ok(())
}

/// What a simulated cluster without these rules needs.
pub fn keeping(off: &[Switch]) -> (Keeping, Option<Rule>) {
    let mut kept = (Keeping::all(), None);
    for switch in off {
        match switch {
            Switch::Raft(number) => kept.0 = (RAFT[*number].keeping)(),
            Switch::Engine(rule) => kept.1 = Some(*rule),
        }
    }
    kept
}
