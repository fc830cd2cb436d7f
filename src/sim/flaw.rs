//! Mistakes that a driver could make: rules that are not the core's to keep.
//!
//! Each was made by somebody. The simulator's own driver makes it on request, and must then find the harm.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// What waits for the disk is sent, and reported stored, before the sync (etcd #14370).
    AckBeforeSync,
    /// A failed sync is taken for a good one ("fsyncgate").
    FailedSyncIgnored,
    /// The log is cut before the snapshot that stands for it has its name (camunda #6092).
    LogCutBeforeSnapshot,
    /// An installed snapshot is reported stored before it is.
    InstallReportedEarly,
    /// A snapshot holds more than its mark says: the state went on while it was written.
    SnapshotAheadOfMark,
    /// A start does not look for the vote.
    BallotForgotten,
    /// A start takes the last entry of the log for a torn one.
    TailDropped,
    /// A write whose leader is gone is proposed again by the server (hazard D16).
    RetriedAfterAppend,
    /// A question for a read index gets an id that another one still has (etcd #20418).
    ReadIdReused,
    /// A leader answers reads without asking anybody.
    ReadWithoutAsking,
    /// Cluster time is the leader's wall clock (etcd #7565).
    ExpiryByWallClock,
    /// The leader removes keys that it sees due by name, not "all that is due": one renewed meanwhile goes.
    ExpiryByName,
    /// A new leader takes its own time since boot for cluster time (etcd #2508).
    TimeOfOwnBoot,
    /// Applying looks at the machine's own clock.
    ApplyReadsClock,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 14] = [
        Flaw::AckBeforeSync,
        Flaw::FailedSyncIgnored,
        Flaw::LogCutBeforeSnapshot,
        Flaw::InstallReportedEarly,
        Flaw::SnapshotAheadOfMark,
        Flaw::BallotForgotten,
        Flaw::TailDropped,
        Flaw::RetriedAfterAppend,
        Flaw::ReadIdReused,
        Flaw::ReadWithoutAsking,
        Flaw::ExpiryByWallClock,
        Flaw::ExpiryByName,
        Flaw::TimeOfOwnBoot,
        Flaw::ApplyReadsClock,
    ];
}
