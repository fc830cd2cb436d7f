//! The replica: the threads around an [`Engine`], which decides, and the handle by which the process asks it.
//!
//! # What it owns
//!
//! | thread | file | owns |
//! |---|---|---|
//! | `raft` | `raft_thread` | the engine |
//! | `wal` | [`log_thread`] | the WAL; what it does with each job is a value, [`log_jobs`] |
//! | `snapshot` | [`snapshot`] | the version of the state that it writes |
//!
//! # Invariants
//!
//! * The effects of a step take place in the order that [`crate::engine::Effects`] documents.
//! * The raft thread never waits for a worker, the disk or a client. Requests come by a channel that is
//!   bounded in their number and their bytes; what does not fit is refused at once
//!   ([`Failure::Overloaded`]).
//! * Each caller is called once, whatever happens.

pub mod clock;
pub mod log_jobs;
pub mod log_thread;
pub mod peers;
mod raft_thread;
pub mod snapshot;
mod status;
#[cfg(test)]
mod tests;

pub use crate::engine::Settings;
use crate::engine::members::{Member, Published};
pub use crate::engine::request::{Effect, Failure, Task};
use crate::engine::request::{Outcome, Proposal, Query, Request};
use crate::engine::state::State;
use crate::engine::{Engine, REQUESTS_MAX, entry};
use crate::raft::{Core, LogIndex, NodeId, Term};
use crate::threads;
use crate::tree::Command;
use crate::wal::{Disk, Wal};
use crate::watch::{Outbox, View, Views};
use clock::{Clock, SharedEstimate};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use log_jobs::Job;
use log_thread::LogThread;
use peers::{FromPeers, Peers};
use raft_thread::RaftThread;
pub use status::Status;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that they may hold together; one alone may be larger. 32 clients may each wait with a value of 1 MiB.
const BACKLOG_BYTES: usize = 40 << 20;

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

/// Somebody who waits for a write. Called on the raft thread, so it must not wait or do much.
pub trait Waiter<O>: Send {
    /// Its entry is applied, and the view that shows it published.
    fn done(self: Box<Self>, done: &Done, outbox: &mut O);
    /// There is no result; whether the entry is applied depends on the [`Failure`].
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);
}

/// Somebody who waits for a linearizable view. Called on the raft thread.
pub trait Reader<O>: Send {
    /// `view` has all that was acknowledged before the question (dissertation §6.4).
    fn ready(self: Box<Self>, view: &Arc<View>, outbox: &mut O);
    /// The read was not confirmed; the [`Failure`] says why. Nothing was read.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);

    /// How long it waits at most, if less than the request timeout.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// Somebody who wants all that this member has applied, as of one index. Called on the raft thread.
pub trait Copier<O>: Send {
    /// The state stays as it is while the member goes on; `term` is the member's own.
    fn ready(self: Box<Self>, copy: Task, term: Term, outbox: &mut O);
    /// There is none; the [`Failure`] says why.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);
}

/// Somebody who waits for a reply of the engine.
pub enum Caller<O> {
    /// For a write, or a change of the members.
    Write(Box<dyn Waiter<O>>),
    /// For a quorum read.
    Read(Box<dyn Reader<O>>),
    /// For the state.
    Copy(Box<dyn Copier<O>>),
}

impl<O> Caller<O> {
    /// `at`: when the step's view was published.
    fn reply(self, outcome: Outcome, at: Instant, views: &dyn Views, outbox: &mut O) {
        match (self, outcome) {
            (caller, Outcome::Failed(failure)) => caller.failed(failure, outbox),
            (
                Caller::Write(waiter),
                Outcome::Done {
                    effect,
                    applied,
                    term,
                },
            ) => {
                let done = Done {
                    effect,
                    applied,
                    term,
                    at,
                };
                waiter.done(&done, outbox);
            }
            (Caller::Read(reader), Outcome::Confirmed) => reader.ready(&views.view(), outbox),
            (Caller::Copy(copier), Outcome::Copy(task, term)) => copier.ready(*task, term, outbox),
            _ => unreachable!("the engine gives each request a reply of its kind"),
        }
    }

    fn failed(self, failure: Failure, outbox: &mut O) {
        match self {
            Caller::Write(waiter) => waiter.failed(failure, outbox),
            Caller::Read(reader) => reader.failed(failure, outbox),
            Caller::Copy(copier) => copier.failed(failure, outbox),
        }
    }
}

fn fail<O>(request: Request<Caller<O>>, failure: Failure, outbox: &mut O) {
    if let Some(caller) = request.into_caller() {
        caller.failed(failure, outbox);
    }
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
    pub views: Arc<dyn Views>,
    /// What a leader stamps entries with.
    pub clock: Arc<dyn Clock>,
    /// Set by the raft thread, read by everybody.
    pub estimate: Arc<SharedEstimate>,
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
pub struct Replica<O> {
    requests: Sender<Request<Caller<O>>>,
    /// The other end: for what the raft thread has not taken when it ended.
    untaken: Receiver<Request<Caller<O>>>,
    /// The raft thread takes no more requests. Set before it looks for the last ones, and looked at after
    /// one was sent: so one of the two sees it.
    ended: Arc<AtomicBool>,
    backlog: Arc<Backlog>,
    stop: Sender<()>,
    status: Arc<Status>,
}

impl<O> Clone for Replica<O> {
    fn clone(&self) -> Replica<O> {
        Replica {
            requests: self.requests.clone(),
            untaken: self.untaken.clone(),
            ended: self.ended.clone(),
            backlog: self.backlog.clone(),
            stop: self.stop.clone(),
            status: self.status.clone(),
        }
    }
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

impl<O: Outbox> Replica<O> {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread left to give.
    pub fn start<D: Disk>(parts: Parts<D>) -> io::Result<(Replica<O>, Threads)> {
        let (requests, waiting) = bounded(REQUESTS_MAX);
        let untaken = waiting.clone();
        let ended = Arc::new(AtomicBool::new(false));
        let backlog = Arc::new(Backlog::default());
        let (stop, stopping) = bounded(1);
        let (jobs, to_do) = unbounded::<Job>();
        let (reports, reported) = unbounded();
        let (begun, to_write) = unbounded();
        let status = Arc::new(Status::new(
            &parts.core,
            &parts.state,
            parts.settings.request_timeout,
        ));
        let log = LogThread::new(log_thread::Wiring {
            wal: parts.wal,
            jobs: to_do,
            reports: reports.clone(),
            snapshots: begun,
            peers: parts.peers.clone(),
        });
        let engine = Engine::new(
            parts.core,
            parts.state,
            parts.settings,
            parts.estimate.get(),
            parts.clock.now(),
        );
        let raft = RaftThread::new(raft_thread::Wiring {
            engine,
            views: parts.views,
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
    pub fn propose(&self, command: &Command, waiter: Box<dyn Waiter<O>>) {
        self.order(entry::tree(command), waiter);
    }

    /// A view that holds everything acknowledged before this call. The reader is called once.
    pub fn read(&self, reader: Box<dyn Reader<O>>) {
        let patience = reader.patience();
        let query = Query::new(Caller::Read(reader), patience);
        self.request(Request::Read(query));
    }

    /// Writes a record to this member's log and calls the reader once that is synced, or after the request timeout. This
    /// tells whether the disk still answers. The view is not confirmed by a majority.
    pub fn probe(&self, reader: Box<dyn Reader<O>>) {
        self.request(Request::Probe(Caller::Read(reader)));
    }

    /// All that this member has applied, with the point it stands for, whether or not there is a leader. The
    /// copier is called once.
    pub fn copy(&self, copier: Box<dyn Copier<O>>) {
        self.request(Request::Copy(Caller::Copy(copier)));
    }

    /// Replicates what a member tells of itself. The waiter is called once.
    pub fn publish(&self, published: &Published, waiter: Box<dyn Waiter<O>>) {
        self.order(entry::publish(published), waiter);
    }

    /// Gives a member other peer URLs. The waiter is called once, with [`Effect::Members`].
    pub fn update_member(&self, member: &Member, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::update(member), waiter);
    }

    /// Adds a member: first without a vote, until it has caught up. The waiter is called once, with
    /// [`Effect::Members`].
    pub fn add_member(&self, member: &Member, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::add(member), waiter);
    }

    /// Removes a member. The waiter is called once, with [`Effect::Members`].
    pub fn remove_member(&self, id: NodeId, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::remove(id), waiter);
    }

    fn order(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter<O>>) {
        let proposal = Proposal::of(bytes, Caller::Write(waiter));
        self.request(Request::Propose(proposal));
    }

    fn change(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter<O>>) {
        let proposal = Proposal::of(bytes, Caller::Write(waiter));
        self.request(Request::Change(proposal));
    }

    /// Bytes of requests that wait for the raft thread, or there for a leader.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.bytes()
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

    fn request(&self, request: Request<Caller<O>>) {
        let refused = self.hand_over(request).err();
        let has_ended = self.has_ended();
        if refused.is_none() && !has_ended {
            return;
        }
        let mut outbox = O::default();
        if let Some((request, failure)) = refused {
            fail(request, failure, &mut outbox);
        }
        if has_ended {
            let untaken = self.untaken.try_iter();
            untaken.for_each(|request| fail(request, Failure::Stopped, &mut outbox));
        }
        outbox.flush();
    }

    fn hand_over(&self, request: Request<Caller<O>>) -> Result<(), (Request<Caller<O>>, Failure)> {
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

/// Bytes of the commands that wait for the raft thread, and of those that wait in the engine for a leader.
#[derive(Debug, Default)]
struct Backlog {
    queued: AtomicUsize,
    leaderless: AtomicUsize,
}

impl Backlog {
    fn bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.leaderless.load(Ordering::Relaxed)
    }

    /// Counts the request, unless there is no room for it.
    fn add<O>(&self, request: &Request<Caller<O>>) -> bool {
        let bytes = request.bytes();
        let queued = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let before = queued + self.leaderless.load(Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= BACKLOG_BYTES;
        if !fits {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// A request that was counted was taken from the queue.
    fn remove<O>(&self, request: &Request<Caller<O>>) {
        self.queued.fetch_sub(request.bytes(), Ordering::Relaxed);
    }

    fn set_leaderless(&self, bytes: usize) {
        self.leaderless.store(bytes, Ordering::Relaxed);
    }
}

/// A channel that never has anything, in place of one that must wait.
fn closed_for_now<T>() -> Receiver<T> {
    crossbeam_channel::never()
}
