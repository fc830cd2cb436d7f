//! Whole clusters in one thread, from one seed.
//!
//! Real raft cores, the real log over a [`LyingDisk`](crate::wal::LyingDisk) for each node, the real state
//! machine and tree. What is not real is the driver between them (`driver`, `disk`, `streams`: as short as it
//! can be, with the order of effects that the server's has), the network, time, and the clients. Everything
//! that happens is an event in virtual time, drawn from the seed: the same seed gives the same run.
//!
//! # A run
//!
//! [`Weather`] says what a seed is put through. A storm of a second or two: messages are lost, doubled, late
//! and out of order, links cut one way or both; processes are killed, machines crash and lose any part of
//! what was not synced, also in the middle of a write; syncs are slow or fail; machines stop and go
//! on, clocks run at half and double speed, wall clocks jump; members come and go, leadership moves;
//! snapshots are made every few entries and sent to whom is behind. Clients write, compare, delete, post,
//! read and hold keys with a TTL. In some storms the nemesis has a plan ([`Plot`]): it looks at the cluster after
//! every event and does the worst that it can at that moment, for a harm that needs several misfortunes in
//! one order. Then all is mended, and everything must come right: one leader, members
//! level with it, clients served, no key left whose time is up.
//!
//! # What must hold
//!
//! After every step, by raft's [`Witness`](crate::raft::invariants::Witness) and `checks`: one leader a term,
//! a leader's log only grows, log matching, leader completeness, one entry applied at an index, commit and
//! applied never fall; nothing is said before it is on disk; what is called committed is on the disks of
//! a majority; a vote on disk stays; states are equal at equal indexes; no write is applied twice; no
//! key goes early. After every start: all that a sync confirmed is found. At the end: the history is
//! linearizable ([`linear`]), POSTs are in order and there once, a client's own key is as it left it.
//!
//! A run ends with the first line that says what broke. That it can is shown in `tests/sim/rules.rs`: a rule
//! of the core is turned off, or its driver makes a [`Flaw`], and a seed is known that finds it.
//!
//! # Hazards and where they are met
//!
//! | hazard | here | and in |
//! |---|---|---|
//! | D1 ballot synced before the answer | `checks::promise_is_stored`, `Mirror::vote`; power cuts at any change | transcript `vote-not-stored` |
//! | D2 a leader counts its own disk | `checks::on_a_majority` | `leader-counts-its-own-disk` |
//! | D3 acks mean stored | `checks::promise_is_stored` | `ack-only-after-store`, `late-report-from-the-disk` |
//! | D4 commit by counting own entries | [`Plot::OldEntry`]; leader completeness | `figure-8`, `commit-needs-own-term` |
//! | D5 no read before the no-op | linearizability | `read-index` |
//! | D6 read rounds and ids are new | [`Plot::Sleeper`]; [`Flaw::ReadIdReused`] | `read-index-stale-leader` |
//! | D7 no leases | clocks at half and double speed | – |
//! | D8 pre-vote, check-quorum | [`Calm::Isolated`], [`Calm::DeafToLeader`], [`Calm::DeafLeader`] | `rejoin-after-isolation`, `one-way-cut`, `newer-term-from-a-refusal` |
//! | D9 removed members | [`Calm::Removed`]; storms in which they stay | `removed-member-does-not-disturb` |
//! | D10 one change, after the own term | [`Kind::Members`], [`Plot::TwoChanges`] | `two-changes-at-once`, `membership-of-an-unproven-leader` |
//! | D11 learners first | members are added blank and promoted by the leader | `membership` |
//! | D12 lost directories | not here: identities are the server's | tests of real processes |
//! | D13 snapshot install | [`Kind::Snapshots`]; [`Flaw::LogCutBeforeSnapshot`] | `snapshot-catch-up`, `snapshot-behind-is-ignored` |
//! | D14 apply is deterministic | `Checks::applied` compares hashes; [`Flaw::ApplyReadsClock`], [`Flaw::SnapshotAheadOfMark`] | – |
//! | D15 TTL by cluster time | [`Kind::TimesToLive`], [`Kind::Clocks`]; [`Flaw::ExpiryByWallClock`], [`Flaw::TimeOfOwnBoot`] | – |
//! | D16 writes are not retried | `Checks::applied_once`; [`Flaw::RetriedAfterAppend`] | – |
//! | D17 one owner of raft's state | a core is stepped by its driver alone | the type: `Core::step` takes `&mut self` |
//! | D18 delete from the first conflict | late and doubled appends | `stale-longer-append` |
//! | D19 timer resets | [`Calm::FastAndStale`] | `timer-of-a-voter`; `tests/raft`: a leader within five timeouts |
//! | D20 transfer | a storm's transfers; [`Cluster::handing_over`], a thousand of them under load | `transfer` |
//! | D21 uncommitted log is capped | 6,000 bytes here, with cut-off leaders | `uncommitted-cap` |
//! | D22 slow followers | tiny memory, windows and reads from disk; one stream a follower | `lagging-follower-reads-back`, `follower-catches-up` |
//!
//! # Where to read
//!
//! `cluster` (the scheduler), `driver` and `disk` (what a core asks for), `power` (down and up), `streams`
//! (snapshots), `node` (what a node is, and what is certainly on its disk), `client` and `desk`, `weather`,
//! `nemesis`, `plot`, `calm` and `handover` (what goes wrong), `checks` and `history` (what must hold), `trace`.
//!
//! # Left out
//!
//! Forwarding by a follower, watches and HTTP (clients here go to the leader themselves); disks that
//! are full or rot (the log's own tests have those); wiped directories.

mod any_core;
mod calm;
mod checks;
mod client;
mod clock;
mod cluster;
mod desk;
mod disk;
mod driver;
mod flaw;
mod handover;
mod history;
pub mod linear;
mod nemesis;
mod node;
mod plot;
mod power;
mod random;
mod serve;
mod streams;
mod trace;
mod weather;

pub use any_core::Keeping;
pub use client::{Answer, Ask, Op};
pub use clock::Pace;
pub use cluster::{Cluster, Settings};
pub use flaw::Flaw;
pub use handover::Handed;
pub use trace::{Happening, Line};
pub use weather::{Calm, Handovers, Kind, Plot, Weather};
