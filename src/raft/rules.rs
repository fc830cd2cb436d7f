//! The safety rules, each with a switch.
//!
//! A test that has never failed proves little. So each rule the core keeps is a constant of a type
//! parameter: the simulator builds a core without one rule and must then find the harm. The
//! switches are constants, so the compiler removes them, and [`AllRules`] cannot be weakened: a
//! server is built from `Core`, which is `Core<AllRules>`.

/// Which rules a core keeps. All of them unless an implementation says otherwise.
///
/// ```
/// use edgetcd::raft::Rules;
/// #[derive(Debug)]
/// struct Forgetful;
/// impl Rules for Forgetful {
///     const VOTE_STORED_BEFORE_ANSWER: bool = false;
/// }
/// assert!(Forgetful::ACK_AFTER_STORE);
/// ```
pub trait Rules: std::fmt::Debug + 'static {
    /// A vote is on disk before its answer goes out (paper §5.2, figure 2 "updated on stable
    /// storage before responding"). Without: a voter that restarts votes twice in a term.
    const VOTE_STORED_BEFORE_ANSWER: bool = true;
    /// A node votes once in a term (paper §5.2).
    const ONE_VOTE_PER_TERM: bool = true;
    /// A voter refuses a candidate whose log ends before its own (paper §5.4.1).
    const VOTER_COMPARES_LOGS: bool = true;
    /// A candidate first asks whether it could win (dissertation §9.6). Without: a node that comes
    /// back from a partition unseats a healthy leader.
    const PRE_VOTE: bool = true;
    /// A voter that has heard its leader lately ignores other candidates (dissertation §4.2.3).
    /// Without: a removed member disturbs the others for ever.
    const BELIEVES_ITS_LEADER: bool = true;
    /// A leader that hears no majority for an election timeout steps down (dissertation §6.2).
    const CHECK_QUORUM: bool = true;
    /// Only a valid leader, or a vote granted, restarts the election timer (paper §5.2).
    const TIMER_RESET_BY_LEADER_ONLY: bool = true;
    /// A follower acknowledges entries once they are on its disk.
    const ACK_AFTER_STORE: bool = true;
    /// A leader counts itself among those that have an entry once it is on its own disk.
    const OWN_STORE_COUNTS: bool = true;
    /// `Stored` counts only while the entry it names still has that term.
    const STORED_CHECKS_TERM: bool = true;
    /// A follower takes entries only if it has the one before them (paper §5.3).
    const PREVIOUS_MUST_MATCH: bool = true;
    /// A follower deletes entries only from the first conflict on (paper §5.3). Without: a stale
    /// message that arrives late removes entries that were acknowledged.
    const TRUNCATE_ONLY_ON_CONFLICT: bool = true;
    /// Replicas are counted only for entries of the leader's own term (paper §5.4.2, figure 8).
    const COMMIT_OWN_TERM_ONLY: bool = true;
    /// No membership change before an entry of the own term is committed (the bug found in 2015).
    const CHANGE_AFTER_OWN_TERM: bool = true;
    /// No membership change while another is uncommitted (dissertation §4.1).
    const ONE_CHANGE_AT_A_TIME: bool = true;
    /// No read index before the no-op of the term is committed (dissertation §6.4).
    const READ_AFTER_NOOP: bool = true;
    /// A read is confirmed only by a heartbeat round begun after it was asked.
    const READ_ROUND_IS_NEW: bool = true;
    /// A probe that was refused is sent again at once only if it asks for an earlier entry. Without: a follower that lost
    /// what it had acknowledged is asked the same as fast as the network is.
    const REPEATED_PROBES_WAIT: bool = true;
    /// A learner has caught up once it has what was committed an election timeout ago (in the spirit of dissertation
    /// §4.2.1). Without: it must have all that is committed at one moment, which it never has under load.
    const LEARNER_MAY_LAG: bool = true;
    /// A received snapshot is installed only when it is ahead of what is committed here.
    const SNAPSHOT_ONLY_AHEAD: bool = true;
}

/// Every rule kept: what servers run.
#[derive(Debug)]
pub struct AllRules;

impl Rules for AllRules {}
