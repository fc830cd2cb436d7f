//! Consensus: several nodes that keep one log, whatever happens to some of them.
//!
//! This is a chapter to read beside "In Search of an Understandable Consensus Algorithm" (Ongaro and
//! Ousterhout, 2014; *the paper*) and Ongaro's dissertation "Consensus: Bridging Theory and Practice"
//! (2014; *the dissertation*). Sections named here are theirs.
//!
//! # What it is for
//!
//! A service that must not lose what it has confirmed keeps it on several machines. They must agree
//! on the order of the changes, for a state machine (here: the key tree) to be the same everywhere.
//! Raft makes them agree on a *log*. One node is the *leader*: it alone appends, the others copy. An
//! entry that a *majority* has on disk is *committed*: it stays, though a minority may be lost for
//! good. As two majorities always share a node, whoever leads next learns of every committed entry
//! from one of those that elected it.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | term | an election period, numbered. It has one leader or none. The one clock of raft: every message bears its sender's term; a newer one is joined at once, an older one refused (§5.1) |
//! | ballot | a node's term and whom it has voted for there. Must never be forgotten |
//! | log, entry, index, position | entries are numbered from 1; a position is index and term, written `12@3`. Two logs with the same position are the same up to there (*log matching*, §5.3) |
//! | commit, apply | committed: never taken back. Applied: handed to the state machine, in order |
//! | matched, next | what the leader knows a follower has, and what it sends next |
//! | voter, learner | members; a learner gets entries and has no vote |
//! | snapshot, mark | the state machine at a position, which stands for the log up to there; its mark is the position and the membership there |
//! | round | a numbered heartbeat to all, to which the answers bear the number |
//! | blank | a node that knows no members yet; it waits for a snapshot |
//!
//! # How to read it
//!
//! [`Core`] is a value. [`Input`]s go in one at a time by [`Core::step`]; a [`Todo`] comes out. It
//! opens no file and no socket, starts no thread, reads no clock and draws random numbers from a seed,
//! so a test, a simulator and a server run the very same code, and a run can be repeated.
//!
//! 1. `message.rs`: what there is to talk about.
//! 2. `core.rs`: inputs, outputs and the order of their effects; how a step goes.
//! 3. `log.rs`: the log, of which only the end is in memory.
//! 4. `election.rs`: who leads.
//! 5. `follower.rs`, then `replication.rs`: both sides of copying.
//! 6. `read_index.rs`, `membership.rs`, `transfer.rs`, `snapshot.rs`: one idea each, in any order.
//! 7. `rules.rs` and `invariants.rs`: what must hold, and how a test turns a rule off to see what
//!    it was good for. `wire.rs` and `random.rs` can wait.
//!
//! Beside the code, `tests/transcripts/raft` has a lesson a file: commands, and all that the nodes then
//! said and did. Begin with `first-election`, `split-vote`, `divergent-log`, `figure-8`.
//!
//! # The rules, and where they are from
//!
//! | rule | from | kept in | seen in |
//! |---|---|---|---|
//! | one vote a term, on disk before it is answered | §5.2, figure 2 | `election` | `vote-not-stored` |
//! | a voter's log must not end after the candidate's | §5.4.1 | `election` | `divergent-log` |
//! | timeouts are random in `[T, 2T)`; only a leader heard or a vote granted restarts them | §5.2 | `election` | `split-vote`, `timer-of-a-voter` |
//! | ask before standing (pre-vote); a refusal tells a newer term | diss. §9.6 | `election` | `rejoin-after-isolation`, `newer-term-from-a-refusal` |
//! | who hears its leader refuses others | diss. §4.2.3 | `election` | `one-way-cut`, `removed-member-does-not-disturb` |
//! | a leader that hears no majority steps down | diss. §6.2 | `replication` | `check-quorum` |
//! | entries are taken only after one both have; deleted only from a conflict on | §5.3 | `follower` | `divergent-log`, `stale-longer-append` |
//! | an ack means: checked, and on disk | figure 2 | `follower`, `core` | `ack-only-after-store`, `late-report-from-the-disk` |
//! | a leader counts its own disk, not its memory | diss. §10.2.1 | `replication` | `leader-counts-its-own-disk` |
//! | only entries of the own term are committed by counting; a term begins with a no-op | §5.4.2, §8 | `replication` | `figure-8`, `commit-needs-own-term` |
//! | a read needs the no-op committed, and a round begun after it was asked | diss. §6.4 | `read_index` | `read-index`, `read-index-stale-leader` |
//! | one membership change at a time, in force when appended, none before an entry of the own term is committed | diss. §4.1, and the note of 2015 | `membership` | `membership`, `two-changes-at-once`, `membership-of-an-unproven-leader` |
//! | a leader that is removed leads until that is committed, and may be needed to commit it | diss. §4.2.2 | `membership` | `leader-removes-itself`, `removed-leader-is-needed` |
//! | new members learn before they vote | diss. §4.2.1 | `membership` | `membership` |
//! | a snapshot is installed only if it is ahead | §7 | `snapshot` | `snapshot-catch-up`, `snapshot-behind-is-ignored` |
//! | leadership can be handed over | diss. §3.10 | `transfer` | `transfer` |
//!
//! # What was added
//!
//! - **The disk is slow, the network is not.** Syncing is not part of a step: the core hands out what
//!   to store and goes on. Appends go out while the leader's own disk still writes; heartbeats never
//!   wait for a disk. What a node may only say once its disk has it waits in [`Todo::send_stored`].
//! - **Memory is bounded.** The end of the log is in memory, older entries are read back
//!   ([`Todo::read`]) to be applied after a restart, or for a follower that is behind.
//! - **A crash costs tens of milliseconds.** [`Input::LeaderGone`] clears this node's belief in a
//!   leader whose process is known to be gone. It asks under the usual rules, only earlier.
//! - **A node applies what is on its own disk.** The paper lets a follower apply what others have
//!   stored. Then a restart could show an older state than was shown before. The cost: a leader with
//!   the slowest disk answers later than it might.
//!
//! # What was left out, and what that costs
//!
//! - *Leases for reads* (diss. §6.4.1): a quorum read costs a round of heartbeats. Leases would trust
//!   clocks.
//! - *Joint consensus* (paper §6): several members are exchanged one after the other.
//! - *Incremental snapshots in messages*: a snapshot is a file that the driver streams, whole.
//! - *Parallel disk writes of the leader's ballot*: standing for election costs one sync before votes
//!   are asked; a node alone syncs twice (vote, no-op) before its first write is confirmed.
//! - *Byzantine members*: a member that lies breaks it. Bytes from outside are checked to be
//!   well-formed ([`Message::decode`]), and what no sound member sends is refused and reported (`conduct`):
//!   no message ends the process.
//! - *Priorities*: any voter with the newest log may lead.

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
pub use message::{
    Ballot, Body, Change, ChangeKind, Entry, Envelope, LogIndex, Membership, Message, NodeId,
    Payload, Position, SnapshotMark, Term,
};
pub use replication::{PeerFlow, PeerProgress};
pub use rules::{AllRules, Rules};
pub use wire::Malformed;
