//! Whole clusters in one thread, from one seed.
//!
//! What runs is what ships: each member is an [`Engine`](crate::engine::Engine), and its disk is the WAL thread's
//! [`LogJobs`](crate::replica::log_jobs::LogJobs) over a [`LyingDisk`](crate::wal::LyingDisk). The simulator decides
//! nothing of what a member does. It hands events to the engines and performs their effects.
//!
//! # What is simulated
//!
//! | part of the world | file | what it does |
//! |---|---|---|
//! | time | `cluster`, `clock` | a queue of events in virtual time; each machine has a monotonic and a wall clock of its own |
//! | the raft thread | `perform` | steps an engine, and performs its effects in their order |
//! | the disk | `disk` | does the jobs one after the other, each in its time; notes what is certainly stored (`mirror`) |
//! | the snapshot thread | `disk` | fills a snapshot while everything else goes on |
//! | the links | `network`, `streams` | lose letters and snapshots, hold them up, carry raft's twice |
//! | processes | `power`, `node` | start from what is on the disk; crash, are killed, or stop when told |
//! | clients | `client`, `desk` | ask any member: writes, quorum reads, changes of the members |
//! | watchers | `watchers` | follow all events at one member, and continue at another one |
//!
//! Everything that happens is an event, drawn from the seed: the same seed gives the same run.
//!
//! # A run
//!
//! [`Weather`] says what a seed is put through. A storm of a second or two: letters are lost, doubled, late
//! and out of order, links cut one way or both; processes are killed or told to stop, machines crash and lose any part
//! of what was not synced, also in the middle of a write; disks are slow, hang, are full, or fail a sync; machines stop
//! and go on, clocks run at half and double speed, wall clocks jump; members come and go, leadership moves;
//! snapshots are made every few entries and sent to whom is behind. In some storms the nemesis has a plan ([`Plot`]): it
//! looks at the cluster after every event and does the worst that it can at that moment, for a harm that needs several
//! misfortunes in one order. In others only one thing goes wrong, and it is known what must come of it ([`Calm`]).
//! Then all is mended, and everything must come right: one leader, members level with it, clients served, no key left
//! whose time is up.
//!
//! # What must hold
//!
//! | of | after each step of a core or an engine | file |
//! |---|---|---|
//! | raft | one leader a term; a leader's log only grows; log matching; leader completeness; one entry applied at an index; term, vote, commit and applied never go back | [`Witness`](crate::raft::invariants::Witness), `checks` |
//! | the disk | nothing is said, reported, applied or shown before it is stored; what is called committed is on the disks of a majority; a vote on disk stays; a start finds all that a sync confirmed | `checks`, `mirror`, `disk` |
//! | the state | equal at equal indexes; no write is applied twice; no key expires early | `checks` |
//! | time | a leader's stamps never go back; a member's estimate is never before what its leader has said | `checks`, `network` |
//! | replies | each request gets one, that of its own entry, within the request timeout, and no later than this member has applied its entry or an entry of a newer term than it was forwarded in | `perform` |
//! | readers | views never go back; a reply comes after the view that shows it; a term that is shown is on disk | `perform` |
//! | watchers | each event once, in order, the same from every member | `watchers`, `checks` |
//! | forwards | a member forwards clients' commands only | `checks` |
//! | the end | the history is linearizable ([`linear`]); POSTs are in order and there once; a client's own key is as it left it | `history` |
//!
//! A run ends with the first line that says what broke. That it can is shown in `tests/sim/rules.rs`: a rule
//! of raft ([`Rules`](crate::raft::Rules)) or of the engine and what is around it ([`Rule`](crate::engine::rules::Rule))
//! is switched off, and a seed is known that finds the harm.
//!
//! # Hazards and where they are met
//!
//! | hazard | here | and in |
//! |---|---|---|
//! | B3 a failed sync is final | [`Rule::FailedSyncIsFinal`](crate::engine::rules::Rule::FailedSyncIsFinal) | `tests/wal` |
//! | D1 ballot synced before the answer | `Checks::promise_is_stored`, `Mirror::synced`; power cuts at any change | transcript `vote-not-stored` |
//! | D2 a leader counts its own disk | `Checks::on_a_majority` | `leader-counts-its-own-disk` |
//! | D3 acks mean stored | `Checks::promise_is_stored` | `ack-only-after-store`, `late-report-from-the-disk` |
//! | D4 commit by counting own entries | [`Plot::OldEntry`]; leader completeness | `figure-8`, `commit-needs-own-term` |
//! | D5 no read before the no-op | linearizability | `read-index` |
//! | D6 read rounds and ids are new | [`Plot::Sleeper`] | `read-index-stale-leader` |
//! | D7 no leases | clocks at half and double speed | – |
//! | D8 pre-vote, check-quorum | [`Calm::Isolated`], [`Calm::DeafToLeader`], [`Calm::DeafLeader`] | `rejoin-after-isolation`, `one-way-cut`, `newer-term-from-a-refusal` |
//! | D9 removed members | [`Calm::Removed`]; storms in which they stay | `removed-member-does-not-disturb` |
//! | D10 one change, after the own term | [`Kind::Members`], [`Plot::TwoChanges`] | `two-changes-at-once`, `membership-of-an-unproven-leader` |
//! | D11 learners first | members are added blank and promoted by the leader | `membership` |
//! | D12 lost directories | not here: identities are the server's | tests of real processes |
//! | D13 snapshot install | [`Kind::Snapshots`] | `snapshot-catch-up`, `snapshot-behind-is-ignored` |
//! | D14 apply is deterministic | `Checks::applied` compares hashes | – |
//! | D15 TTL by cluster time | [`Kind::TimesToLive`], [`Kind::Clocks`] | – |
//! | D16 writes are not retried | `Checks::applied` | – |
//! | D17 one owner of raft's state | a core is stepped by its engine alone | the type: `Core::step` takes `&mut self` |
//! | D18 delete from the first conflict | late and doubled appends | `stale-longer-append` |
//! | D19 timer resets | [`Calm::FastAndStale`] | `timer-of-a-voter`; `tests/raft`: a leader within five timeouts |
//! | D20 transfer | a storm's transfers and stops; [`Calm::Shutdown`]; [`Cluster::handing_over`], a thousand of them under load | `transfer` |
//! | D21 uncommitted log is capped | 6,000 bytes here, with cut-off leaders | `uncommitted-cap` |
//! | D22 slow followers | tiny memory, windows and reads from disk; one stream a follower | `lagging-follower-reads-back`, `follower-catches-up` |
//! | E1, E4 watches and terms | `watchers`; a view's term never falls while a process runs | – |
//!
//! # Left out
//!
//! The threads, the sockets and HTTP. The handshake: an incarnation that is not the known one, a stranger on the
//! network. Disks that rot (the log's own tests have those), and wiped directories.

mod any_engine;
mod calm;
mod checks;
mod client;
mod clock;
mod cluster;
mod desk;
mod disk;
mod handover;
mod history;
pub mod linear;
mod mirror;
mod nemesis;
mod network;
mod node;
mod perform;
mod plot;
mod power;
mod random;
mod streams;
mod trace;
mod watchers;
mod weather;

pub use any_engine::Keeping;
pub use client::{Answer, Ask, Op};
pub use clock::Pace;
pub use cluster::{Cluster, Settings};
pub use handover::Handed;
pub use trace::{Happening, Line};
pub use weather::{Calm, Handovers, Kind, Plot, Weather};
