//! The rules that a member keeps in addition to raft's own, each with a switch.
//!
//! A test that has never failed proves little. The simulator switches one rule off, runs the same engine, and must find
//! a violation ([`crate::sim`]). A server keeps all rules: [`AllRules`] answers with constants, so the compiler removes
//! the other branch.
//!
//! The rules of the WAL thread ([`crate::replica`]) are listed here too, so that one list contains everything that can
//! be switched off.

use super::state::{Outcome, State};
use crate::raft::{self, AllRules, Core, Entry, Todo};

/// The interface through which an engine asks for its rules and shows its steps.
pub trait Rules: Sized + 'static {
    /// The rules of raft's core.
    type Core: raft::Rules;

    /// Whether this rule is kept.
    fn keeps(&self, _rule: Rule) -> bool {
        true
    }

    /// Called after each step of the core.
    fn stepped(&self, _core: &Core<Self::Core>, _todo: &Todo) {}

    /// Called after the state machine has applied an entry.
    fn applied(&self, _entry: &Entry, _state: &State, _outcome: &Outcome) {}
}

impl Rules for AllRules {
    type Core = AllRules;
}

macro_rules! listed {
    ($($(#[$doc:meta])* $rule:ident,)+) => {
        /// A rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rule {
            $($(#[$doc])* $rule,)+
        }

        impl Rule {
            /// All rules.
            pub const ALL: &[Rule] = &[$(Rule::$rule,)+];
        }
    };
}

listed! {
    // Writes and membership changes.

    /// A forwarded command fails if an entry of a newer term is applied before it. Without this rule, its client waits
    /// until the deadline.
    ForwardsEndWithTheirTerm,
    /// Such a command is not sent again: its entry may be in the next leader's log (hazard D16).
    SentOnce,
    /// A write is answered when its entry is applied. Without this rule, a leader answers when it has appended the entry.
    RepliedWhenApplied,
    /// An entry answers the request that it belongs to, not any request that waits for its index.
    TicketNamesItsTerm,
    /// When a membership change is decided, the member table contains all earlier changes.
    ChangesOneByOne,
    /// A leader reports a forwarded command as not accepted only if it did not append it.
    NotTakenMeansNotAppended,

    // Reads.

    /// For a quorum read, the leader confirms that it still leads. Without this rule, a leader answers at once (hazard
    /// D5).
    ReadAsks,
    /// Each question has a new id (etcd #20418).
    ReadIdIsNew,
    /// A confirmed read waits until its index is applied.
    ReadWaitsForItsIndex,
    /// A read fails when its deadline has passed.
    ReadsTimeOut,

    // Snapshots.

    /// A received snapshot is published when the disk has reported it. Without this rule, it is published at once.
    InstalledByTheDisk,
    /// Requests whose entries may be part of an installed snapshot fail.
    InstallEndsWaiting,
    /// After a snapshot is installed, another one can be installed.
    InstallEnds,
    /// A snapshot is made soon after a member got other peer URLs. Without this rule, members that move together do not
    /// find each other after their start: before they have a leader, they know only the URLs in their snapshots.
    NewUrlsAreSaved,

    // Time.

    /// Cluster time advances with the leader's monotonic clock, not with its wall clock (etcd #7565).
    TimeIsMonotonic,
    /// A new leader continues the cluster's time. Without this rule, it counts from its own boot (etcd #2508).
    TimeIsTheClusters,
    /// An older message of a leader does not set the time back.
    TimeHeardGrows,
    /// A time to live counts from the latest time in the log, not from the time of its own entry. A new leader may be
    /// behind the one before.
    LatestTimeCounts,
    /// Only a leader proposes the expiry of keys.
    LeaderExpires,
    /// Applying reads no clock.
    ApplyReadsNoClock,

    // What clients see.

    /// The term in a reply or a view is on disk.
    ShownTermIsStored,
    /// A view is published before the replies that it belongs to.
    PublishedBeforeReply,
    /// Watchers receive every change.
    EventsAreComplete,
    /// A watcher is registered in the moment in which the history was searched. Without this rule, it is registered
    /// later, and misses the events that are published in between.
    WatchedWhenScanned,

    // The other members.

    /// A member that leads or has a leader does not stop because another one reports its removal.
    OneWordStopsNobody,
    /// A message of a process that is not a member has no effect, unless the transport has admitted its connection.
    StrangersAreIgnored,
    /// A member that starts with an empty data directory, after others have seen it run, is refused (hazard D12).
    LostDataIsNoticed,
    /// A member that starts uses the incarnations in its log before it applies the log. Without this rule, it accepts a
    /// member that has lost its data when both start at the same time.
    LogNamesIncarnations,

    // Leadership and stopping.

    /// A leader whose disk hangs gives up leadership.
    HungLeaderMakesWay,
    /// A leader whose disk is as slow as the others' keeps leadership.
    EqualsStay,
    /// A leader that stops transfers leadership first.
    StopHandsOver,
    /// A member that stops first answers the requests that it has received before.
    StopFinishes,

    // The WAL thread.

    /// A batch that contains only a hard state is synced.
    HardStateIsSynced,
    /// Messages that depend on a batch are sent after its sync (etcd #14370).
    SyncBeforeSend,
    /// A batch is reported after its sync.
    SyncBeforeReport,
    /// A batch that a snapshot has superseded is reported, too. Without this rule, the engine waits for it forever.
    SupersededIsReported,
    /// A failed sync ends the process ("fsyncgate").
    FailedSyncIsFinal,
    /// The log is deleted only after the snapshot that replaces it has its final name (camunda #6092).
    SnapshotBeforeCut,
    /// An installed snapshot is reported only after it has its final name.
    InstallBeforeReport,

    // The snapshot thread, the transport, and the start.

    /// A snapshot holds what its metadata says, although the state changes while it is written.
    SnapshotAtItsMark,
    /// A message is reported as unsent only if it was never handed to a connection.
    UnsentMeansNotSent,
    /// A start finds the vote.
    VoteIsFound,
    /// A start finds the last entry of the log.
    TailIsFound,
}
