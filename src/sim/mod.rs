//! Whole clusters in one thread, from one seed.
//!
//! The simulator runs the code of the server: each member is an [`Engine`](crate::engine::Engine), and its disk is the
//! WAL thread's [`LogJobs`](crate::storage::jobs::LogJobs) over a [`FaultyDisk`](crate::wal::FaultyDisk). The simulator
//! makes no decision for a member. It passes events to the engines and performs their effects.
//!
//! # What is simulated
//!
//! | part of the world | file | what it does |
//! |---|---|---|
//! | time | `cluster`, `clock` | a queue of events in virtual time; each machine has a monotonic and a wall clock of its own |
//! | the raft thread | `perform` | steps an engine, and performs its effects in their order |
//! | the disk | `disk` | does the jobs one after the other, each in its time; records what is certainly stored (`mirror`) |
//! | the snapshot thread | `disk` | writes a snapshot while the engine continues |
//! | the links | `network`, `streams` | lose and delay peer messages and snapshots, duplicate those of raft |
//! | processes | `power`, `node` | start from the disk; crash, are killed, or stop by an order |
//! | identities | `identity` | a first start asks the other members; incarnations decide which messages a link accepts |
//! | data directories | `wiped` | are emptied; the operator removes the member and adds another one |
//! | strangers | `stranger` | a process that is no member sends any message to any engine |
//! | clients | `client`, `desk` | ask any member: writes, quorum reads, changes of the members |
//! | watchers | `watchers` | follow all events at one member, and continue at another one |
//!
//! Everything that happens is an event, drawn from the seed: the same seed gives the same run. The simulator also
//! builds for WebAssembly, where a seed gives the same run as on a machine with 64 bits ([`Cluster::state_hash`]).
//!
//! # A run by hand
//!
//! The lab lets a person choose every fault ([`Cluster::by_hand`], [`Act`]). The rest of this page is about seeds.
//!
//! # A run
//!
//! [`FaultProfile`] is the fault profile of a seed. Faults happen for a second or two. Messages are lost, duplicated,
//! late and out of order, and links are cut in one direction or both. Processes are killed or stopped. Machines crash and
//! lose any part of the unsynced bytes, also in the middle of a write. Disks are slow, hang, are full, or fail a sync.
//! Machines pause, clocks run at half and double speed, wall clocks jump. Members are added and removed, lose their data
//! directories and are replaced, and the leadership is transferred. A member reports a removal that did not happen. Snapshots are made every few entries and sent to followers that are behind.
//!
//! In some runs an adversary ([`Adversary`]) inspects the cluster after every event, and chooses the faults for a
//! violation that needs several of them in a certain order. Other runs have a single fault with a known result
//! ([`Scenario`]). Then all faults end, and the cluster must recover: there is one leader, all members have the same log,
//! clients are served, and every key with a TTL expires.
//!
//! # What must hold
//!
//! | of | after each step of a core or an engine | file |
//! |---|---|---|
//! | raft | one leader a term, a leader's log only grows, log matching, leader completeness, one entry applied at an index. Term, vote, commit and applied never go back. The entries in memory have a limited size | [`Witness`](crate::raft::invariants::Witness), `checks` |
//! | the disk | no message, report, applied entry or view precedes the sync that it depends on. Committed entries are on the disks of a majority. A vote on disk stays. A start finds everything that a sync confirmed | `checks`, `mirror`, `disk` |
//! | the state | equal at equal indexes. Each write is applied at most once. Keys expire at their deadline or later, which counts from the latest time in the log | `checks` |
//! | time | A leader stamps no time before that of its last entry, or before that of an entry that it has applied. Its time advances with its clock. A member's estimate is never before the time that its leader has sent | `checks`, `network` |
//! | replies | each request gets one, that of its own entry, within the request timeout, and no later than this member has applied its entry or an entry of a newer term than it was forwarded in | `perform` |
//! | readers | views never go back. A reply follows the view that contains its change. A term in a reply or view is on disk | `perform` |
//! | watchers | each event once, in order, the same from every member | `watchers`, `checks` |
//! | forwards | a member forwards clients' commands only | `checks` |
//! | strangers | their messages change no term, vote, leader, log or commit | `stranger` |
//! | removals | a member ends only if its removal is committed | `perform` |
//! | traces | the records of a process have no gap, and tell the role, term, leader, log and messages of its engine; checked while a run keeps them | `records` |
//! | the end | the history is linearizable ([`linear`]). POSTs are in order and there once. A client's own key has the value of its last write | `history` |
//!
//! A run ends at the first violation, with a line that describes it. `tests/sim/rules.rs` shows that violations are
//! found: it switches off one rule of raft ([`Rules`](crate::raft::Rules)), or of the engine and the threads around it
//! ([`Rule`](crate::engine::rules::Rule)), and a known seed finds the violation.
//!
//! # Hazards and where they are met
//!
//! | hazard | here | and in |
//! |---|---|---|
//! | B3 a failed sync is final | [`Rule::FailedSyncIsFinal`](crate::engine::rules::Rule::FailedSyncIsFinal) | `tests/wal` |
//! | D1 the hard state is synced before the answer | `Checks::promise_is_stored`, `Mirror::synced`; power cuts at any change | transcript `vote-not-stored` |
//! | D2 a leader counts its own disk | `Checks::on_a_majority` | `leader-counts-its-own-disk` |
//! | D3 acks mean stored | `Checks::promise_is_stored` | `ack-only-after-store`, `late-report-from-the-disk` |
//! | D4 commit by counting own entries | [`Adversary::OldEntry`]; leader completeness | `figure-8`, `commit-needs-own-term` |
//! | D5 no read before the no-op | linearizability | `read-index` |
//! | D6 read rounds and ids are new | [`Adversary::Sleeper`] | `read-index-stale-leader` |
//! | D7 no leases | clocks at half and double speed | – |
//! | D8 pre-vote, check-quorum | [`Scenario::Isolated`], [`Scenario::DeafToLeader`], [`Scenario::DeafLeader`] | `rejoin-after-isolation`, `one-way-cut`, `newer-term-from-a-refusal` |
//! | D9 removed members | [`Scenario::Removed`]; runs in which their processes continue | `removed-member-does-not-disturb` |
//! | D10 one change, after the own term | [`Kind::Members`], [`Adversary::TwoChanges`] | `two-changes-at-once`, `membership-of-an-unproven-leader` |
//! | D11 learners first | members are added blank and promoted by the leader | `membership` |
//! | D12 lost directories | [`Kind::Wiped`], [`Rule::LostDataIsNoticed`](crate::engine::rules::Rule::LostDataIsNoticed), [`Rule::LogNamesIncarnations`](crate::engine::rules::Rule::LogNamesIncarnations) | tests of real processes |
//! | D13 snapshot install | [`Kind::Snapshots`] | `snapshot-catch-up`, `snapshot-behind-is-ignored` |
//! | D14 apply is deterministic | `Checks::applied` compares hashes | – |
//! | D15 TTL by cluster time | [`Kind::TimesToLive`], [`Kind::Clocks`] | – |
//! | D16 writes are not retried | `Checks::applied` | – |
//! | D17 one owner of raft's state | a core is stepped by its engine alone | the type: `Core::step` takes `&mut self` |
//! | D18 delete from the first conflict | late and doubled appends | `stale-longer-append` |
//! | D19 timer resets | [`Scenario::FastAndStale`] | `timer-of-a-voter`; `tests/raft`: a leader within five timeouts |
//! | D20 transfer | transfers and stops among other faults, [`Scenario::Shutdown`], and [`Cluster::handing_over`]: a thousand under load | `transfer` |
//! | D21 uncommitted log is capped | 6,000 bytes here, with cut-off leaders; [`Scenario::HungUnderLoad`] | `uncommitted-cap` |
//! | D22 slow followers | tiny memory, windows and reads from disk; one stream a follower | `lagging-follower-reads-back`, `follower-catches-up` |
//! | E1, E4 watches and terms | `watchers`; a view's term never falls while a process runs | – |
//!
//! # Left out
//!
//! Threads, sockets and HTTP. The handshake's encoding and proof: a link compares the two incarnations. Disks that lose
//! synced bytes (the tests of the WAL have those). A data directory that is emptied before most of the members know its
//! incarnation: they cannot distinguish that from a first start.

mod act;
mod adversary;
mod any_engine;
mod by_hand;
mod by_node;
mod checks;
mod client;
mod clock;
mod cluster;
mod desk;
mod digest;
mod disk;
mod fault_profile;
mod handover;
mod history;
mod identity;
pub mod linear;
mod mirror;
mod nemesis;
mod network;
mod node;
mod perform;
mod power;
mod records;
mod scenario;
mod stranger;
mod streams;
mod trace;
mod views;
#[cfg(target_arch = "wasm32")]
mod wasm;
mod watchers;
mod wiped;

pub use act::{Act, DiskState};
pub use any_engine::Keeping;
pub use client::{Answer, Ask, Op};
pub use clock::Pace;
pub use cluster::{Cluster, Settings};
pub use fault_profile::{Adversary, FaultProfile, Handovers, Kind, Scenario};
pub use handover::Handed;
pub use records::RunRecord;
pub use trace::{Happening, Line};
pub use views::{EntryView, MemberView, MessageView};
