//! The rules that a member keeps beside raft's own, each with a switch.
//!
//! A test that has never failed proves little. The simulator switches one rule off, runs the same engine, and must find
//! the harm ([`crate::sim`]). A server keeps all of them: for [`AllRules`] every question is answered by a constant, so
//! the compiler removes the other branch.
//!
//! The rules of the WAL thread ([`crate::replica`]) are here too, so that one list holds all that can be switched off.

use super::state::{Outcome, State};
use crate::raft::{self, AllRules, Core, Entry, Todo};

/// What an engine asks about the rules, and whom it shows its steps.
pub trait Rules: Sized + 'static {
    /// The rules of raft's core.
    type Core: raft::Rules;

    /// Whether this rule is kept.
    fn keeps(&self, _rule: Rule) -> bool {
        true
    }

    /// The core has taken one step.
    fn stepped(&self, _core: &Core<Self::Core>, _todo: &Todo) {}

    /// The state machine has applied the entry.
    fn applied(&self, _entry: &Entry, _state: &State, _outcome: &Outcome) {}
}

impl Rules for AllRules {
    type Core = AllRules;
}

macro_rules! listed {
    ($($(#[$doc:meta])* $rule:ident,)+) => {
        /// One rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rule {
            $($(#[$doc])* $rule,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Rule] = &[$(Rule::$rule,)+];
        }
    };
}

listed! {
    // Writes and changes of the members.

    /// A forwarded command that was not applied by the first entry of a newer term fails then. Without: its client waits
    /// until its time is over.
    ForwardsEndWithTheirTerm,
    /// Such a command is not sent again: its entry may be in the log of the leader to come (hazard D16).
    SentOnce,
    /// An entry answers the request whose entry it is, not whoever waits for its index.
    TicketNamesItsTerm,
    /// The table of members is as of all earlier changes when the next one is decided.
    ChangesOneByOne,
    /// A forwarded command that was not taken is reported as such only if it was not appended.
    NotTakenMeansNotAppended,

    // Reads.

    /// A quorum read asks whether its leader still leads. Without: a leader answers at once (hazard D5).
    ReadAsks,
    /// Each question has an id of its own (etcd #20418).
    ReadIdIsNew,
    /// A confirmed read waits until its index is applied.
    ReadWaitsForItsIndex,
    /// A read fails when its time is over.
    ReadsTimeOut,

    // Snapshots.

    /// A received snapshot is shown once the disk has reported it. Without: at once.
    InstalledByTheDisk,
    /// Requests whose entries may be in an installed snapshot fail.
    InstallEndsWaiting,
    /// Once a snapshot is installed, the next one can be.
    InstallEnds,

    // Time.

    /// Cluster time comes from the leader's monotonic clock, not from its wall clock (etcd #7565).
    TimeIsMonotonic,
    /// A new leader continues the cluster's time. Without: it counts from its own boot (etcd #2508).
    TimeIsTheClusters,
    /// An older message of a leader does not set the time back.
    TimeHeardGrows,
    /// A leader that was behind the time of its log goes on from there. Without: it stands still until it has caught up.
    TimeGoesOn,
    /// Only a leader lets keys expire.
    LeaderExpires,
    /// Applying reads no clock.
    ApplyReadsNoClock,

    // What a client is shown.

    /// The term in a reply or a view is on disk.
    ShownTermIsStored,
    /// A view is published before the replies that it belongs to.
    PublishedBeforeReply,

    // Leadership and the end.

    /// A leader whose disk hangs makes way.
    HungLeaderMakesWay,
    /// A leader whose disk is as slow as the others' stays.
    EqualsStay,
    /// A leader that stops hands over first.
    StopHandsOver,
    /// A member that stops answers first what it was asked before.
    StopFinishes,

    // Reports of the disk.

    /// The entries of a batch are reported to the core before its hard state, which releases what was held back.
    EntriesBeforeBallot,

    // The WAL thread.

    /// A batch that holds only a hard state is synced.
    BallotIsSynced,
    /// What depends on a batch is sent after its sync (etcd #14370).
    SyncBeforeSend,
    /// A batch is reported after its sync.
    SyncBeforeReport,
    /// A failed sync ends the process ("fsyncgate").
    FailedSyncIsFinal,
    /// The log is cut after the snapshot that stands for it has its name (camunda #6092).
    SnapshotBeforeCut,
    /// An installed snapshot is reported after it has its name.
    InstallBeforeReport,
}
