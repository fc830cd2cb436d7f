//! The shortest known runs that break without a rule.
//!
//! A run names steps, so a change of the engine may make it harmless. The test then says how to search for another one.
//! Some rules protect the service and not an invariant. Their runs require a condition, such as `require leads 1`.

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
    "BELIEVES_ITS_LEADER"
    "CHANGE_AFTER_OWN_TERM"
    "CHECK_QUORUM"
    "COMMIT_OWN_TERM_ONLY"
    "LEARNER_MAY_LAG"
    "ONE_CHANGE_AT_A_TIME"
    "ONE_VOTE_PER_TERM"
    "OWN_STORE_COUNTS"
    "PREVIOUS_MUST_MATCH"
    "PRE_VOTE"
    "READ_AFTER_NOOP"
    "READ_ROUND_IS_NEW"
    "REPEATED_PROBES_WAIT"
    "SNAPSHOT_ONLY_AHEAD"
    "STORED_CHECKS_TERM"
    "TIMER_RESET_BY_LEADER_ONLY"
    "TRUNCATE_ONLY_ON_CONFLICT"
    "UNSTORED_COUNTS"
    "VOTER_COMPARES_LOGS"
    "VOTE_STORED_BEFORE_ANSWER"
    "ApplyReadsNoClock"
    "EqualsStay"
    "EventsAreComplete"
    "FailedSyncIsFinal"
    "ForwardsEndWithTheirTerm"
    "HardStateIsSynced"
    "HungLeaderMakesWay"
    "InstallBeforeReport"
    "InstallEnds"
    "InstallEndsWaiting"
    "InstalledByTheDisk"
    "LatestTimeCounts"
    "LeaderExpires"
    "LogNamesIncarnations"
    "LostDataIsNoticed"
    "NewUrlsAreSaved"
    "NotTakenMeansNotAppended"
    "OneWordStopsNobody"
    "PublishedBeforeReply"
    "ReadAsks"
    "ReadIdIsNew"
    "ReadWaitsForItsIndex"
    "ReadsTimeOut"
    "RepliedWhenApplied"
    "SentOnce"
    "ShownTermIsStored"
    "SnapshotAtItsMark"
    "SnapshotBeforeCut"
    "StopFinishes"
    "StopHandsOver"
    "StrangersAreIgnored"
    "SupersededIsReported"
    "SyncBeforeReport"
    "SyncBeforeSend"
    "TailIsFound"
    "TicketNamesItsTerm"
    "TimeHeardGrows"
    "TimeIsMonotonic"
    "TimeIsTheClusters"
    "UnsentMeansNotSent"
    "VoteIsFound"
    "WatchedWhenScanned"
}
