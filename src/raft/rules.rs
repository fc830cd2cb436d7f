//! The safety rules, each with a switch.
//!
//! A test that has never failed proves little. So each rule that the core keeps is a constant of a type parameter: the
//! simulator builds a core without one rule, and must then find a violation. The switches are constants, so the
//! compiler removes them. A server uses `Core`, which is `Core<AllRules>`, and [`AllRules`] cannot be weakened.

/// The rules that a core keeps. An implementation keeps all of them except those that it switches off.
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
    /// A vote is on disk before the reply is sent (paper §5.2, figure 2 "updated on stable storage before responding").
    /// Without this rule, a voter that restarts can vote twice in a term.
    const VOTE_STORED_BEFORE_ANSWER: bool = true;
    /// A node votes once in a term (paper §5.2).
    const ONE_VOTE_PER_TERM: bool = true;
    /// A voter refuses a candidate whose log ends before its own (paper §5.4.1).
    const VOTER_COMPARES_LOGS: bool = true;
    /// A candidate first asks whether it could win (dissertation §9.6). Without this rule, a node that returns from a
    /// partition replaces a healthy leader.
    const PRE_VOTE: bool = true;
    /// A voter that has received a message from its leader within the election timeout ignores other candidates
    /// (dissertation §4.2.3). Without this rule, a removed member disturbs the others forever.
    const BELIEVES_ITS_LEADER: bool = true;
    /// A leader that receives no messages from a majority for an election timeout steps down (dissertation §6.2).
    const CHECK_QUORUM: bool = true;
    /// Only a message from a valid leader, or a granted vote, restarts the election timer (paper §5.2).
    const TIMER_RESET_BY_LEADER_ONLY: bool = true;
    /// A follower acknowledges entries only when they are on its disk.
    const ACK_AFTER_STORE: bool = true;
    /// A leader counts itself as having an entry only when the entry is on its own disk.
    const OWN_STORE_COUNTS: bool = true;
    /// Entries count against the limit of a leader's uncommitted bytes until they are committed and on its own disk.
    /// Without this rule, the memory of a leader whose disk hangs grows as long as the others commit.
    const UNSTORED_COUNTS: bool = true;
    /// `Stored` counts only if the log still has an entry at the position it names.
    const STORED_CHECKS_TERM: bool = true;
    /// A follower accepts entries only if it has the entry before them (paper §5.3).
    const PREVIOUS_MUST_MATCH: bool = true;
    /// A follower deletes entries only from the first conflict on (paper §5.3). Without this rule, an old message that
    /// arrives late removes acknowledged entries.
    const TRUNCATE_ONLY_ON_CONFLICT: bool = true;
    /// Replicas are counted only for entries of the leader's own term (paper §5.4.2, figure 8).
    const COMMIT_OWN_TERM_ONLY: bool = true;
    /// A leader makes no membership change before an entry of its own term is committed (the bug found in 2015).
    const CHANGE_AFTER_OWN_TERM: bool = true;
    /// A leader makes no membership change while another is uncommitted (dissertation §4.1).
    const ONE_CHANGE_AT_A_TIME: bool = true;
    /// A leader returns no read index before the no-op of its term is committed (dissertation §6.4).
    const READ_AFTER_NOOP: bool = true;
    /// A read is confirmed only by a heartbeat round that began after the read arrived.
    const READ_ROUND_IS_NEW: bool = true;
    /// After a refused probe, the leader sends the next probe at once only if it asks for an earlier entry. Without
    /// this rule, a follower that lost entries it had acknowledged gets the same probe again as fast as the network
    /// allows.
    const REPEATED_PROBES_WAIT: bool = true;
    /// A learner has caught up when it has the entries that were committed an election timeout ago (similar to
    /// dissertation §4.2.1). Without this rule it must have all entries that are committed at one moment, and under
    /// load it never has.
    const LEARNER_MAY_LAG: bool = true;
    /// A received snapshot is installed only if it is ahead of this node's commit index.
    const SNAPSHOT_ONLY_AHEAD: bool = true;
}

/// Keeps every rule. Servers use this.
#[derive(Debug)]
pub struct AllRules;

impl Rules for AllRules {}
