//! The raft consensus protocol: several nodes keep identical copies of one log, and a minority of them may fail.
//!
//! Read this chapter together with "In Search of an Understandable Consensus Algorithm" (Ongaro and Ousterhout, 2014;
//! *the paper*) and Ongaro's dissertation "Consensus: Bridging Theory and Practice" (2014; *the dissertation*,
//! *diss.*). Section numbers refer to these two.
//!
//! # Purpose
//!
//! A service that must not lose confirmed data stores it on several machines. The machines must agree on the order of
//! the changes, so that the state machine (here: the key tree) is the same on all of them. Raft makes them agree on a
//! *log*. One node is the *leader*. Only the leader appends entries; the other nodes copy them. An entry is *committed*
//! when a *majority* has it on disk. A committed entry survives even if a minority of the nodes is lost for good: two
//! majorities always have a node in common, so each new leader gets the votes of a majority in which some node has the
//! entry.
//!
//! # Terms
//!
//! | term | meaning |
//! |---|---|
//! | term | a numbered election period. It has one leader or none. Terms are raft's only clock: every message carries its sender's term. A node adopts a newer term at once, and rejects messages of an older term (§5.1) |
//! | hard state ([`HardState`]) | a node's term, and the node it voted for in that term. A node must never forget it |
//! | log, entry, index, position | entries are numbered from 1. A position is an index and a term, written `12@3`. If two logs have an entry at the same position, they are identical up to it (*log matching*, §5.3) |
//! | commit, apply | a committed entry is never removed. An applied entry was passed to the state machine. Entries are applied in order |
//! | matched, next | per follower: the last entry that the leader knows the follower has, and the entry it sends next |
//! | voter, learner | the two kinds of members. A learner receives entries and has no vote |
//! | snapshot | the state machine at one position. It replaces the log up to that position. Its metadata ([`SnapshotMetadata`]) is that position and the membership there |
//! | round | a numbered heartbeat to all members. Their replies contain the number |
//! | blank | a node that does not know any members yet. It waits for a snapshot |
//!
//! # Reading order
//!
//! [`Core`] is a pure value. [`Core::step`] takes one [`Input`] and returns a [`Todo`]. The core opens no file and no
//! socket, starts no thread, reads no clock, and gets its random numbers from a seed. So a test, a simulator and a
//! server run the same code, and a run can be repeated exactly.
//!
//! 1. `message.rs`: the data types: numbers, entries, messages.
//! 2. `core.rs`: inputs, outputs, the order of their effects, and what one step does.
//! 3. `log.rs`: the log, of which only the end is in memory.
//! 4. `election.rs`: how a leader is elected.
//! 5. `follower.rs`, then `replication.rs`: the two sides of copying the log.
//! 6. `read_index.rs`, `membership.rs`, `transfer.rs`, `snapshot.rs`: one idea each, in any order.
//! 7. `rules.rs` and `invariants.rs`: the safety rules, how a test switches one off to show what it prevents, and what
//!    must always hold. Read `wire.rs` and `random.rs` last.
//!
//! Each file in `tests/transcripts/raft` is a lesson: it lists commands and everything that the nodes then sent and
//! did. Begin with `first-election`, `split-vote`, `divergent-log` and `figure-8`.
//!
//! # The rules and their sources
//!
//! | rule | source | code | transcript |
//! |---|---|---|---|
//! | a node votes once per term, and its vote is on disk before it answers | §5.2, figure 2 | `election` | `vote-not-stored` |
//! | a voter refuses a candidate whose log ends before its own | §5.4.1 | `election` | `divergent-log` |
//! | election timeouts are random in `[T, 2T)`; only a message from the leader or a granted vote restarts them | §5.2 | `election` | `split-vote`, `timer-of-a-voter` |
//! | a candidate first asks whether it could win (pre-vote); a refusal informs it of a newer term | diss. §9.6 | `election` | `rejoin-after-isolation`, `newer-term-from-a-refusal` |
//! | a voter that receives messages from its leader refuses other candidates | diss. §4.2.3 | `election` | `one-way-cut`, `removed-member-does-not-disturb` |
//! | a leader that receives no messages from a majority steps down | diss. §6.2 | `replication` | `check-quorum` |
//! | a follower accepts entries only after an entry that both logs have, and deletes entries only from a conflict on | §5.3 | `follower` | `divergent-log`, `stale-longer-append` |
//! | a follower acknowledges entries that it has checked and stored on disk | figure 2 | `follower`, `core` | `ack-only-after-store`, `late-report-from-the-disk` |
//! | a leader counts an entry for itself when it is on its disk, not when it is in memory | diss. §10.2.1 | `replication` | `leader-counts-its-own-disk` |
//! | a leader counts replicas only for entries of its own term; a term begins with a no-op | §5.4.2, §8 | `replication` | `figure-8`, `commit-needs-own-term` |
//! | a read needs a committed no-op, and a heartbeat round that began after the read arrived | diss. §6.4 | `read_index` | `read-index`, `read-index-stale-leader` |
//! | there is one membership change at a time, which takes effect when appended. A leader makes none before an entry of its own term is committed | diss. §4.1, and the note of 2015 | `membership` | `membership`, `two-changes-at-once`, `membership-of-an-unproven-leader` |
//! | a leader that is removed leads until the removal is committed, and may be needed to commit it | diss. §4.2.2 | `membership` | `leader-removes-itself`, `removed-leader-is-needed` |
//! | a new member is a learner before it is a voter | diss. §4.2.1 | `membership` | `membership` |
//! | a snapshot is installed only if it is ahead of the node's commit index | §7 | `snapshot` | `snapshot-catch-up`, `snapshot-behind-is-ignored` |
//! | a leader can transfer its leadership | diss. §3.10 | `transfer` | `transfer` |
//!
//! # Additions
//!
//! - **The disk is slow, the network is not.** A step does not wait for a sync: the core returns what must be stored
//!   and continues. The leader sends appends while its own disk still writes, and heartbeats never wait for a disk.
//!   Messages that are true only when the node's disk has stored something are in [`Todo::send_stored`].
//! - **Memory is bounded.** Only the end of the log is in memory. Older entries are read back from disk
//!   ([`Todo::read`]): to apply them after a restart, or to send them to a follower that is behind.
//! - **If the leader's process dies, a new leader is elected after some tens of milliseconds.** [`Input::LeaderGone`]
//!   informs a node that its leader's process no longer exists. The node then starts a pre-vote at once instead of
//!   waiting for the timeout. All rules apply as usual.
//! - **A node applies only entries that are on its own disk.** The paper lets a follower apply an entry as soon as a
//!   majority has stored it. With that rule, a client could read an older state after a restart than before it. The
//!   cost: a leader with the slowest disk of the cluster replies later than it could.
//!
//! # Not implemented, and what that costs
//!
//! - *Leases for reads* (diss. §6.4.1). Each quorum read costs a heartbeat round. Leases would depend on clocks.
//! - *Joint consensus* (paper §6). Several members are replaced one after the other.
//! - *Incremental snapshots in messages*. A snapshot is one file, and the driver streams it whole.
//! - *Storing the hard state in parallel*. An election costs one sync before the candidate requests votes. A node that
//!   runs alone syncs twice (vote, no-op) before it confirms its first write.
//! - *Protection against malicious members*. A member that sends false messages breaks the protocol. The decoder checks
//!   that bytes from outside are well-formed ([`Message::decode`]). A message that a correct member never sends has no
//!   effect and is reported (`conduct`). No message ends the process.
//! - *Priorities*. Any voter whose log is up to date can become leader.

mod conduct;
mod core;
mod election;
mod follower;
pub mod invariants;
mod log;
mod membership;
mod message;
mod read_index;
mod replication;
mod rules;
mod snapshot;
mod transfer;
mod wire;

pub use self::core::{Core, Input, Refusal, Role, Settings, Start, StoredLog, Todo};
pub use conduct::Violation;
pub use election::{VoteAnswer, VoteReason};
pub use message::{
    Body, Change, ChangeKind, Entry, Envelope, HardState, LogIndex, Membership, Message, NodeId,
    Payload, Position, SnapshotMetadata, Term,
};
pub use replication::{PeerFlow, PeerProgress};
pub use rules::{AllRules, Rules};
pub use wire::Malformed;
