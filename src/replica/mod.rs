//! The replica: the threads around an [`Engine`], and the handle through which the rest of the process uses it. The
//! engine makes the decisions.
//!
//! # Threads
//!
//! | thread | file | owns |
//! |---|---|---|
//! | `raft` | `raft_thread` | the engine |
//! | `wal` | [`log_thread`] | the WAL; [`storage::jobs`](crate::storage::jobs) does the jobs as a value |
//! | `snapshot` | `snapshot_thread` | the version of the state that it writes |
//!
//! # Invariants
//!
//! * The effects of a step take place in the order that [`crate::engine::Effects`] documents.
//! * The raft thread never waits for a worker, the disk or a client. Requests arrive through a channel that is bounded
//!   by number and by bytes. A request that does not fit is refused at once ([`Failure::Overloaded`]).
//! * The raft thread does not wait for that channel, but for a second one, the bell. To wake a thread takes a system
//!   call, which costs more than a read. So a thread that makes many requests rings once for all of them
//!   ([`Replica::wake`]).
//! * Each caller is called exactly once, in every case.

pub mod clock;
pub mod log_thread;
pub mod peers;
mod raft_thread;
mod snapshot_thread;
mod status;
#[cfg(test)]
mod tests;
pub mod trace_log;

use crate::auth;
pub use crate::engine::Settings;
use crate::engine::members::{Member, Published};
pub use crate::engine::request::{Effect, Failure, Task};
use crate::engine::request::{Outcome, Proposal, Query, Request};
use crate::engine::state::State;
use crate::engine::{Engine, REQUESTS_MAX, entry};
use crate::raft::{Core, LogIndex, NodeId, Term};
use crate::storage::clock::Clock;
use crate::threads::{self, Reserved};
use crate::tree::Command;
use crate::wal::{Disk, Wal};
use crate::watch::{Outbox, View, Views};
use clock::SharedEstimate;
use crossbeam_channel::{Receiver, SendError, Sender, bounded, unbounded};
use log_thread::LogThread;
use peers::{FromPeers, Peers};
use raft_thread::RaftThread;
pub use status::Status;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trace_log::TraceLog;

/// Maximum bytes of the queued requests. A single request may be larger. 32 clients may each wait with a value of 1
/// MiB.
const BACKLOG_BYTES: usize = 40 << 20;

/// If more requests than this are queued, the raft thread is woken, although more may follow.
const QUEUED_MAX: usize = 128;

/// The data for the response to a write.
pub struct Done {
    /// A refusal by the tree is an effect too: its entry was committed.
    pub effect: Effect,
    /// The entry's index: `X-Raft-Index`.
    pub applied: LogIndex,
    /// The member's term: `X-Raft-Term`. It may be newer than the term in which the entry was appended. It is on disk,
    /// so a client never sees an older term after a restart.
    pub term: Term,
    /// When the view was published. One reading of the clock serves all entries that are applied together.
    pub at: Instant,
}

/// A caller that waits for a write. Called on the raft thread, so it must not wait, and must return quickly.
pub trait Waiter<O>: Send {
    /// Its entry is applied, and the view that contains it is published.
    fn done(self: Box<Self>, done: &Done, outbox: &mut O);
    /// There is no result. The [`Failure`] says whether the entry can still be applied.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);
}

/// A caller that waits for a linearizable view. Called on the raft thread.
pub trait Reader<O>: Send {
    /// `view` contains everything that was acknowledged before the request (dissertation §6.4).
    fn ready(self: Box<Self>, view: &Arc<View>, outbox: &mut O);
    /// The read was not confirmed, for the reason in the [`Failure`].
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);

    /// Its maximum wait, if shorter than the request timeout.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// A caller that waits for a copy of everything that this member has applied, as of one index. Called on the raft
/// thread.
pub trait Copier<O>: Send {
    /// The copy does not change while the member continues. `term` is the member's own.
    fn ready(self: Box<Self>, copy: Task, term: Term, outbox: &mut O);
    /// There is no copy, for the reason in the [`Failure`].
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut O);
}

/// A caller that waits for a reply of the engine.
pub enum Caller<O> {
    /// For a write, or a membership change.
    Write(Box<dyn Waiter<O>>),
    /// For a quorum read.
    Read(Box<dyn Reader<O>>),
    /// For a copy of the state.
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

/// The parts of a replica, recovered and ready.
pub struct Parts<D: Disk> {
    /// Recovered; no step was taken yet.
    pub core: Core,
    /// The state of the newest snapshot. Later entries are applied when they are known to be committed.
    pub state: State,
    /// For the WAL thread, the only thread that writes it.
    pub wal: Wal<D>,
    /// Receives each new view before any reply is sent. The first is complete. The log that a start applies again is
    /// not shown step by step.
    pub views: Arc<dyn Views>,
    /// The clock for the times in entries.
    pub clock: Arc<dyn Clock>,
    /// Set by the raft thread, read by all threads.
    pub estimate: Arc<SharedEstimate>,
    /// They do not change while the replica runs.
    pub settings: Settings,
    /// Sends to the other members.
    pub peers: Arc<dyn Peers>,
    /// Receives from the other members. Bounded.
    pub from_peers: Receiver<FromPeers>,
    /// Gets one notification when this member was removed from its cluster.
    pub removed: Sender<()>,
    /// Becomes the raft thread. It should have loaded `state`, because it changes it from now on.
    pub thread: Reserved,
}

/// A handle on a running replica. Clones use the same replica.
pub struct Replica<O> {
    requests: Sender<Request<Caller<O>>>,
    /// Has room for one message, which says that there are requests.
    bell: Sender<()>,
    /// The receiving end, for requests that are still in the channel when the raft thread has ended.
    untaken: Receiver<Request<Caller<O>>>,
    /// Whether the raft thread refuses all further requests. The raft thread sets it before it reads the last requests.
    /// A caller reads it after sending a request. So at least one of the two notices the other.
    ended: Arc<AtomicBool>,
    backlog: Arc<Backlog>,
    stop: Sender<()>,
    status: Arc<Status>,
    trace: Arc<TraceLog>,
}

impl<O> Clone for Replica<O> {
    fn clone(&self) -> Replica<O> {
        Replica {
            requests: self.requests.clone(),
            bell: self.bell.clone(),
            untaken: self.untaken.clone(),
            ended: self.ended.clone(),
            backlog: self.backlog.clone(),
            stop: self.stop.clone(),
            status: self.status.clone(),
            trace: self.trace.clone(),
        }
    }
}

/// The threads of a replica. Wait for them after [`Replica::stop`].
pub struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Waits for at most `deadline`; returns whether all have ended.
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
    /// The system cannot create another thread.
    pub fn start<D: Disk>(parts: Parts<D>) -> io::Result<(Replica<O>, Threads)> {
        // Not `bounded`, which allocates and writes all slots when it starts: 320 KiB of an idle node's memory.
        let (requests, waiting) = unbounded();
        let untaken = waiting.clone();
        let (bell, rung) = bounded(1);
        let ended = Arc::new(AtomicBool::new(false));
        let backlog = Arc::new(Backlog::default());
        let (stop, stopping) = bounded(1);
        let (jobs, to_do) = unbounded();
        let (reports, reported) = unbounded();
        let (begun, to_write) = unbounded();
        let status = Arc::new(Status::new(
            &parts.core,
            &parts.state,
            parts.settings.request_timeout,
        ));
        let trace = Arc::new(TraceLog::new(parts.core.id()));
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
            rung,
            from_peers: parts.from_peers,
            ended: ended.clone(),
            backlog: backlog.clone(),
            stop: stopping,
            reports: reported,
            jobs,
            peers: parts.peers,
            removed: parts.removed,
            trace: trace.clone(),
        });
        let threads = vec![
            threads::critical("wal", move || log.run())?,
            threads::critical("snapshot", move || {
                snapshot_thread::run(&to_write, &reports)
            })?,
            parts.thread.work(move || raft.run()),
        ];
        let replica = Replica {
            requests,
            bell,
            untaken,
            ended,
            backlog,
            stop,
            status,
            trace,
        };
        Ok((replica, Threads(threads)))
    }

    /// Replicates a client's write. The waiter is called exactly once.
    pub fn propose(&self, command: &Command, waiter: Box<dyn Waiter<O>>) {
        self.queue_write(command, waiter);
        self.wake();
    }

    /// Like [`Replica::propose`], for a thread that calls [`Replica::wake`] soon, after several requests.
    pub fn queue_write(&self, command: &Command, waiter: Box<dyn Waiter<O>>) {
        let proposal = Proposal::of(entry::tree(command), Caller::Write(waiter));
        self.queue(Request::Propose(proposal));
    }

    /// Requests a view that contains everything acknowledged before this call. The reader is called once.
    pub fn read(&self, reader: Box<dyn Reader<O>>) {
        self.queue_read(reader);
        self.wake();
    }

    /// Like [`Replica::read`], for a thread that calls [`Replica::wake`] soon, after several requests.
    pub fn queue_read(&self, reader: Box<dyn Reader<O>>) {
        let patience = reader.patience();
        let query = Query::new(Caller::Read(reader), patience);
        self.queue(Request::Read(query));
    }

    /// Wakes the raft thread if requests wait for it. If it is about to take them already, nothing happens.
    pub fn wake(&self) {
        if !self.requests.is_empty() {
            // If the bell is full, the raft thread will receive its message.
            let _ = self.bell.try_send(());
        }
    }

    /// Writes a record to this member's log, and calls the reader when it is synced, or after the request timeout. This
    /// checks whether the disk still works. No majority confirms the view.
    pub fn probe(&self, reader: Box<dyn Reader<O>>) {
        self.request(Request::Probe(Caller::Read(reader)));
    }

    /// Requests a copy of everything that this member has applied, with its snapshot metadata, whether or not there is
    /// a leader. The copier is called once.
    pub fn copy(&self, copier: Box<dyn Copier<O>>) {
        self.request(Request::Copy(Caller::Copy(copier)));
    }

    /// Replicates what a member publishes about itself. The waiter is called once.
    pub fn publish(&self, published: &Published, waiter: Box<dyn Waiter<O>>) {
        self.command(entry::publish(published), waiter);
    }

    /// Changes a member's peer URLs. The waiter is called once, with [`Effect::Members`].
    pub fn update_member(&self, member: &Member, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::update(member), waiter);
    }

    /// Adds a member, which has no vote until it has caught up. The waiter is called once, with [`Effect::Members`].
    pub fn add_member(&self, member: &Member, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::add(member), waiter);
    }

    /// Removes a member. The waiter is called once, with [`Effect::Members`].
    pub fn remove_member(&self, id: NodeId, waiter: Box<dyn Waiter<O>>) {
        self.change(entry::remove(id), waiter);
    }

    /// Changes users and roles. The waiter is called once, with [`Effect::Auth`].
    pub fn change_auth(&self, change: &auth::Change, waiter: Box<dyn Waiter<O>>) {
        self.command(entry::auth(change), waiter);
    }

    fn command(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter<O>>) {
        let proposal = Proposal::of(bytes, Caller::Write(waiter));
        self.request(Request::Propose(proposal));
    }

    fn change(&self, bytes: Vec<u8>, waiter: Box<dyn Waiter<O>>) {
        let proposal = Proposal::of(bytes, Caller::Write(waiter));
        self.request(Request::Change(proposal));
    }

    /// Bytes of the requests that wait for the raft thread, or in the engine for a leader.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.bytes()
    }

    /// The present state of this member: leader, term, and so on.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The last records of what this member's consensus has done.
    pub fn trace(&self) -> &Arc<TraceLog> {
        &self.trace
    }

    /// Asks the threads to finish the requests in progress, and to end.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
    }

    /// Whether the threads refuse all further requests.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn request(&self, request: Request<Caller<O>>) {
        self.queue(request);
        self.wake();
    }

    fn queue(&self, request: Request<Caller<O>>) {
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
        // Callers that check at the same time may exceed the limit by one request each.
        if self.requests.len() >= REQUESTS_MAX || !self.backlog.add(&request) {
            return Err((request, Failure::Overloaded));
        }
        let sent = self.requests.send(request);
        if self.requests.len() >= QUEUED_MAX {
            self.wake();
        }
        sent.map_err(|SendError(request)| {
            self.backlog.remove(&request);
            (request, Failure::Stopped)
        })
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

    /// Counts the request, unless the limit is reached.
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

    /// A counted request was taken from the queue.
    fn remove<O>(&self, request: &Request<Caller<O>>) {
        self.queued.fetch_sub(request.bytes(), Ordering::Relaxed);
    }

    fn set_leaderless(&self, bytes: usize) {
        self.leaderless.store(bytes, Ordering::Relaxed);
    }
}

/// A channel that never receives anything. It replaces one that must not be read now.
fn closed_for_now<T>() -> Receiver<T> {
    crossbeam_channel::never()
}
