//! The replica: raft, log and state machine at work together.
//!
//! # What it owns
//!
//! | thread | file | owns |
//! |---|---|---|
//! | `raft` | `turn` | the core, the state machine, the tickets, cluster time |
//! | `wal` | [`log_thread`] | the WAL |
//! | `snapshot` | [`snapshot`] | the version of the state that it writes |
//!
//! # The way of a write
//!
//! ```text
//!  http-N ── Request::Propose ──▶ raft: append to the core, hand out a ticket
//!                                   │ one batch                ▲ Report::Stored
//!                                   ▼                          │
//!                                 wal: write, one sync ────────┘
//!  http-N ◀── answer by inbox ─── raft: commit → apply → publish → answer, one wake-up a worker
//! ```
//!
//! On a member that does not lead, the raft thread sends the order to the leader ([`letter`]) with a tag, and
//! answers when it applies the entry with that tag: so a client reads its own write. `forwards` says when an
//! order may be sent again, and when it is given up.
//!
//! ```text
//!  follower:  Request ──▶ forwards ══ Letter::Forward ══▶ leader: append in that term ══ Append ══▶ all
//!             answer ◀── apply ◀── commit ◀══════════════════════════════════════════════════════╛
//! ```
//!
//! While a batch is with the log thread, new requests wait in the channel: they could not be stored
//! earlier anyway, and the raft thread is woken once a batch instead of once a request. Messages of other
//! members and ticks are never held up.
//!
//! # Invariants
//!
//! * An entry counts for this node only after its own sync ([`Report::Stored`]).
//! * A view is published before anybody is answered: who has an answer reads what it says.
//! * Each request is answered once: by its entry, by a failure, or by its time running out.
//! * No order is appended twice: it is sent again only if it certainly was not taken (hazard D16).
//! * The raft thread never waits for a worker, the log or a client. Requests come by a channel that is
//!   bounded in their number and their bytes; what does not fit is refused at once
//!   ([`Failure::Overloaded`]).
//!
//! [`Report::Stored`]: log_thread::Report::Stored

pub mod clock;
#[path = "../engine/entry.rs"]
pub mod entry;
#[path = "../engine/followers.rs"]
pub mod followers;
#[path = "../engine/forwards.rs"]
mod forwards;
#[path = "../engine/letter.rs"]
pub mod letter;
pub mod log_thread;
#[path = "../engine/members.rs"]
pub mod members;
#[path = "../engine/pauses.rs"]
mod pauses;
pub mod peers;
#[path = "../engine/reads.rs"]
mod reads;
pub mod snapshot;
#[path = "../engine/state.rs"]
pub mod state;
mod status;
#[cfg(test)]
mod tests;
#[path = "../engine/tickets.rs"]
mod tickets;
#[path = "../engine/mod.rs"]
mod turn;

use crate::door::Outbox;
use crate::raft::{Core, LogIndex, NodeId, Term};
use crate::threads;
use crate::tree::{ApiError, Applied, Command};
use crate::wal::{Disk, Wal};
use crate::watch::{View, WatchHub};
use clock::{Clock, Estimate};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use forwards::Kind;
use log_thread::{Job, LogThread, Report};
use members::MemberError;
use peers::{FromPeers, Peers};
pub use snapshot::Task;
use state::State;
pub use status::Status;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests that may wait for the raft thread.
const REQUESTS_MAX: usize = 4096;

/// Bytes that they may hold together; one alone may be larger.
const BACKLOG_BYTES: usize = 32 << 20;

/// What a request's entry did.
pub enum Effect {
    /// A change of the tree.
    Event(Applied),
    /// The tree refused it; equal on every member.
    Refused(ApiError),
    /// The members' table is as asked, or the change was refused.
    Members(Result<(), MemberError>),
}

/// What an answer to a write is made from.
pub struct Done {
    /// A refusal by the tree is an effect too: its entry was committed.
    pub effect: Effect,
    /// The entry's index, and the member's term: `X-Raft-Index`, `X-Raft-Term`.
    pub applied: LogIndex,
    /// May be newer than the term that the entry was appended in. It is on disk: what a client was shown does
    /// not go back with a restart.
    pub term: Term,
    /// When that was shown: what was done together has one look at the clock.
    pub at: Instant,
}

/// Why a request got no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may have been applied, or may be yet.
    TimedOut,
    /// A new leader replaced its entry, or it is not known what became of it.
    LeaderLost,
    /// This node ends: it may have been applied, or may be yet.
    Stopped,
    /// Refused before anything was done with it.
    Overloaded,
    /// Like [`Failure::TimedOut`] for what was under way, refused for what came after.
    DiskFull,
}

/// Somebody who waits for a write. Called on the raft thread, so it must not wait or do much.
pub trait Waiter: Send {
    /// Its entry is applied, and the view that shows it published.
    fn done(self: Box<Self>, done: &Done, outbox: &mut Outbox);
    /// There is no result; whether the entry is applied depends on the [`Failure`].
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox);
}

/// Somebody who waits for a linearizable view. Called on the raft thread.
pub trait Reader: Send {
    /// `view` has all that was acknowledged before the question (dissertation §6.4).
    fn ready(self: Box<Self>, view: &Arc<View>, outbox: &mut Outbox);
    /// The read was not confirmed; the [`Failure`] says why. Nothing was read.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox);

    /// How long it waits at most, if less than the request timeout.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// Somebody who wants all that this member has applied, as of one index. Called on the raft thread.
pub trait Copier: Send {
    /// The state stays as it is while the member goes on; `term` is the member's own.
    fn ready(self: Box<Self>, copy: Task, term: Term, outbox: &mut Outbox);
    /// There is none; the [`Failure`] says why.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox);
}

/// An order for the log, with whoever waits for it.
pub struct Write {
    /// The order without its stamp, as [`entry`] writes it; counted against the backlog.
    pub bytes: Vec<u8>,
    /// None: nobody is told.
    pub waiter: Option<Box<dyn Waiter>>,
    /// When it is given up, however often it was handed back before; None until the raft thread takes it.
    pub deadline: Option<Instant>,
}

impl Write {
    /// One that nobody waits for.
    fn own(bytes: Vec<u8>) -> Write {
        Write {
            bytes,
            waiter: None,
            deadline: None,
        }
    }

    fn of(bytes: Vec<u8>, waiter: Box<dyn Waiter>) -> Write {
        Write {
            waiter: Some(waiter),
            ..Write::own(bytes)
        }
    }
}

/// A quorum read, with when it is given up; None until the raft thread takes it.
pub struct Query {
    /// Who asks.
    pub reader: Box<dyn Reader>,
    /// As in [`Write`].
    pub deadline: Option<Instant>,
}

/// What is asked of the raft thread.
pub enum Request {
    /// Replicate and apply.
    Propose(Write),
    /// Change who takes part, and where members are reached.
    Change(Write),
    /// A quorum read.
    Read(Query),
    /// What is applied here, whoever leads.
    Copy(Box<dyn Copier>),
}

/// How a replica behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two inputs `Tick` of the core.
    pub tick: Duration,
    /// A request is given up after this long (spec §11: 5 s + 2 × election timeout).
    pub request_timeout: Duration,
    /// Without a leader a request waits this long (2 × election timeout).
    pub leader_timeout: Duration,
    /// Entries between two snapshots.
    pub snapshot_count: u64,
    /// Bytes of the newest snapshot, 0 without one.
    pub snapshot_bytes: u64,
    /// A log this long is cut whatever the count of its entries.
    pub log_bytes_max: u64,
    /// A batch that is with the disk for longer no longer holds up requests.
    pub stall: Duration,
    /// Ticks after which a member that was not heard counts as gone.
    pub election_ticks: u32,
    /// Whether changes of the members that could cost the majority are refused
    /// (`--strict-reconfig-check`).
    pub strict_changes: bool,
    /// Drawn at random at each start: by tags from here on this member knows its forwarded orders again.
    pub first_tag: u64,
}

/// The parts a replica is made of, recovered and ready.
pub struct Parts<D: Disk> {
    /// Recovered and not stepped yet.
    pub core: Core,
    /// As of the newest snapshot; later entries are applied once they are known to be committed.
    pub state: State,
    /// Goes to the log thread, the only one that writes it.
    pub wal: Wal<D>,
    /// Gets each new view before anybody is answered.
    pub hub: Arc<WatchHub>,
    /// What a leader stamps entries with.
    pub clock: Arc<dyn Clock>,
    /// Set by the raft thread, read by everybody.
    pub estimate: Arc<Estimate>,
    /// Do not change while the replica runs.
    pub settings: Settings,
    /// The way to the other members…
    pub peers: Arc<dyn Peers>,
    /// …and what comes from them. Bounded.
    pub from_peers: Receiver<FromPeers>,
    /// Told once when this member was removed from its cluster.
    pub removed: Sender<()>,
}

/// A running replica. Clones are handles on the same one.
#[derive(Clone)]
pub struct Replica {
    requests: Sender<Request>,
    /// The other end: for what the raft thread has not taken when it ended.
    untaken: Receiver<Request>,
    /// The raft thread takes no more requests. Set before it looks for the last ones, and looked at after
    /// one was sent: so one of the two sees it.
    ended: Arc<AtomicBool>,
    backlog: Arc<Backlog>,
    stop: Sender<()>,
    status: Arc<Status>,
}

/// The threads of a replica, to be waited for after [`Replica::stop`].
pub struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Waits for at most `deadline`; true if all have ended.
    pub fn join(self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        let (done, all_done) = bounded(1);
        let joiner = std::thread::spawn(move || {
            self.0.into_iter().for_each(|thread| drop(thread.join()));
            let _ = done.send(());
        });
        let ended = all_done.recv_deadline(end).is_ok();
        drop(joiner);
        ended
    }
}

impl Replica {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread left to give.
    pub fn start<D: Disk>(parts: Parts<D>) -> io::Result<(Replica, Threads)> {
        let (requests, waiting) = bounded(REQUESTS_MAX);
        let untaken = waiting.clone();
        let ended = Arc::new(AtomicBool::new(false));
        let backlog = Arc::new(Backlog::default());
        let (stop, stopping) = bounded(1);
        let (jobs, to_do) = unbounded::<Job>();
        let (reports, reported) = unbounded::<Report>();
        let (begun, to_write) = unbounded();
        let status = Arc::new(Status::new(&parts.core, &parts.state));
        let log = LogThread::new(log_thread::Wiring {
            wal: parts.wal,
            jobs: to_do,
            reports: reports.clone(),
            snapshots: begun,
            peers: parts.peers.clone(),
        });
        let raft = turn::RaftThread::new(turn::Wiring {
            core: parts.core,
            state: parts.state,
            settings: parts.settings,
            hub: parts.hub,
            clock: parts.clock,
            estimate: parts.estimate,
            status: status.clone(),
            requests: waiting,
            from_peers: parts.from_peers,
            ended: ended.clone(),
            backlog: backlog.clone(),
            stop: stopping,
            reports: reported,
            jobs,
            peers: parts.peers,
            removed: parts.removed,
        });
        let threads = vec![
            threads::critical("wal", move || log.run())?,
            threads::critical("snapshot", move || snapshot::run(&to_write, &reports))?,
            threads::critical("raft", move || raft.run())?,
        ];
        let replica = Replica {
            requests,
            untaken,
            ended,
            backlog,
            stop,
            status,
        };
        Ok((replica, Threads(threads)))
    }

    /// Replicates a client's write. The waiter is called once, whatever happens.
    pub fn propose(&self, command: &Command, waiter: Box<dyn Waiter>) {
        self.order(entry::tree(command), waiter);
    }

    /// A view that holds everything acknowledged before this call. The reader is called once.
    pub fn read(&self, reader: Box<dyn Reader>) {
        let deadline = None;
        self.request(Request::Read(Query { reader, deadline }));
    }

    /// All that this member has applied, with the point it stands for, whether or not there is a leader. The
    /// copier is called once.
    pub fn copy(&self, copier: Box<dyn Copier>) {
        self.request(Request::Copy(copier));
    }

    /// Replicates what a member tells of itself. The waiter is called once.
    pub fn publish(&self, published: &members::Published, waiter: Box<dyn Waiter>) {
        self.order(entry::publish(published), waiter);
    }

    /// Gives a member other peer URLs. The waiter is called once, with [`Effect::Members`].
    pub fn update_member(&self, member: &members::Member, waiter: Box<dyn Waiter>) {
        self.change(entry::update(member), waiter);
    }

    /// Adds a member: first without a vote, until it has caught up. The waiter is called once, with
    /// [`Effect::Members`].
    pub fn add_member(&self, member: &members::Member, waiter: Box<dyn Waiter>) {
        self.change(entry::add(member), waiter);
    }

    /// Removes a member. The waiter is called once, with [`Effect::Members`].
    pub fn remove_member(&self, id: NodeId, waiter: Box<dyn Waiter>) {
        self.change(entry::remove(id), waiter);
    }

    fn order(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter>) {
        self.request(Request::Propose(Write::of(bytes, waiter)));
    }

    fn change(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter>) {
        self.request(Request::Change(Write::of(bytes, waiter)));
    }

    /// Bytes of requests that wait for the raft thread, or there for a leader.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.0.load(Ordering::Relaxed)
    }

    /// Who leads, in which term, and so on.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Asks the threads to finish what was handed to them and to end.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
    }

    /// Whether the threads take nothing any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn request(&self, request: Request) {
        let refused = self.hand_over(request).err();
        let has_ended = self.has_ended();
        if refused.is_none() && !has_ended {
            return;
        }
        let mut outbox = Outbox::default();
        if let Some((request, failure)) = refused {
            request.fail(failure, &mut outbox);
        }
        if has_ended {
            let untaken = self.untaken.try_iter();
            untaken.for_each(|request| request.fail(Failure::Stopped, &mut outbox));
        }
        outbox.flush();
    }

    fn hand_over(&self, request: Request) -> Result<(), (Request, Failure)> {
        if !self.backlog.add(&request) {
            return Err((request, Failure::Overloaded));
        }
        let (request, failure) = match self.requests.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request)) => (request, Failure::Overloaded),
            Err(TrySendError::Disconnected(request)) => (request, Failure::Stopped),
        };
        self.backlog.remove(&request);
        Err((request, failure))
    }
}

/// Bytes of the requests that wait for the raft thread, or there for a leader.
#[derive(Debug, Default)]
struct Backlog(AtomicUsize);

impl Backlog {
    /// Counts the request, unless there is no room for it.
    fn add(&self, request: &Request) -> bool {
        let bytes = request.bytes();
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= BACKLOG_BYTES;
        if !fits {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// A request that was counted waits no more.
    fn remove(&self, request: &Request) {
        self.0.fetch_sub(request.bytes(), Ordering::Relaxed);
    }
}

impl Request {
    fn of(kind: Kind, write: Write) -> Request {
        match kind {
            Kind::Order => Request::Propose(write),
            Kind::Change => Request::Change(write),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Request::Propose(write) | Request::Change(write) => write.bytes.len(),
            Request::Read(_) | Request::Copy(_) => 0,
        }
    }

    fn fail(self, failure: Failure, outbox: &mut Outbox) {
        match self {
            Request::Propose(write) | Request::Change(write) => {
                if let Some(waiter) = write.waiter {
                    waiter.failed(failure, outbox);
                }
            }
            Request::Read(query) => query.reader.failed(failure, outbox),
            Request::Copy(copier) => copier.failed(failure, outbox),
        }
    }

    /// When it is given up: `latest`, unless it was taken before.
    fn deadline(&mut self, latest: Instant) -> Instant {
        match self {
            Request::Propose(write) | Request::Change(write) => &mut write.deadline,
            Request::Read(query) => &mut query.deadline,
            // It waits for nobody.
            Request::Copy(_) => return latest,
        }
        .get_or_insert(latest)
        .to_owned()
    }
}

/// A channel that never has anything, in place of one that must wait.
fn closed_for_now<T>() -> Receiver<T> {
    crossbeam_channel::never()
}
