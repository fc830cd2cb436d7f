//! The shortest known runs that break without a rule.
//!
//! A run names steps, so a change of the engine may make it harmless. The test then says how to search for another one. Not
//! each rule has a run: some rules protect the service and not an invariant (lesson 9 shows `PRE_VOTE`), and the harm of
//! others needs faults that the lab does not have.

/// A run that breaks if its rules are off, and holds if they are kept.
pub struct Stored {
    /// The name of the file, without its end.
    pub name: &'static str,
    /// The text of the run.
    pub text: &'static str,
}

macro_rules! stored {
    ($($name:literal)*) => {
        /// All stored runs.
        pub const ALL: &[Stored] = &[$(Stored {
            name: $name,
            text: include_str!(concat!("runs/", $name, ".run")),
        },)*];
    };
}

stored! {
    "ACK_AFTER_STORE"
    "CHANGE_AFTER_OWN_TERM"
    "COMMIT_OWN_TERM_ONLY"
    "ONE_CHANGE_AT_A_TIME"
    "ONE_VOTE_PER_TERM"
    "OWN_STORE_COUNTS"
    "PREVIOUS_MUST_MATCH"
    "READ_AFTER_NOOP"
    "SNAPSHOT_ONLY_AHEAD"
    "TRUNCATE_ONLY_ON_CONFLICT"
    "VOTER_COMPARES_LOGS"
    "VOTE_STORED_BEFORE_ANSWER"
    "ApplyReadsNoClock"
    "ForwardsEndWithTheirTerm"
    "HardStateIsSynced"
    "LostDataIsNoticed"
    "NotTakenMeansNotAppended"
    "PublishedBeforeReply"
    "ReadAsks"
    "ReadWaitsForItsIndex"
    "ReadsTimeOut"
    "SentOnce"
    "SnapshotAtItsMark"
    "TailIsFound"
    "TicketNamesItsTerm"
    "TimeHeardGrows"
    "TimeIsMonotonic"
    "TimeIsTheClusters"
    "UnsentMeansNotSent"
    "VoteIsFound"
}
