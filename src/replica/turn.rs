//! The raft thread.
//!
//! One loop: wait for something, step the core with it, do what the core asks, and at the end of the
//! turn hand one batch to the log, publish one view, and wake each worker once.
//!
//! It waits for (one `select!`, the next tick as its deadline):
//!
//! | channel | sender | while |
//! |---|---|---|
//! | `requests` | HTTP workers | no batch is with the log thread; or it takes long; or writes are refused |
//! | `reports` | log and snapshot threads | always |
//! | `stop` | [`super::Replica::stop`] | once |
//!
//! A batch takes long when it is with the log thread for a whole tick. From then on requests are taken
//! beside it, so that their time runs and quorum reads, which need no disk, are answered.

use super::clock::{Clock, Estimate};
use super::log_thread::{Job, Peers, Report};
use super::reads::Reads;
use super::snapshot::{Schedule, Task};
use super::state::{Outcome, State};
use super::status::Status;
use super::tickets::Tickets;
use super::{
    Backlog, Done, Effect, Failure, REQUESTS_MAX, Reader, Request, Settings, Waiter, entry,
};
use crate::door::Outbox;
use crate::raft::{
    Ballot, Core, Entry, Envelope, Input, LogIndex, Payload, Position, Refusal, SnapshotMark, Todo,
};
use crate::tree::{Applied, ClusterTime, Stamp};
use crate::wal::{self, Batch};
use crate::watch::{View, WatchHub};
use crossbeam_channel::{Receiver, Sender, select};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// At most this many requests are taken in one turn, so that reports and ticks get theirs.
const REQUESTS_PER_TURN: usize = 1024;

/// Writes that may wait for their entries; more are refused.
const TICKETS_MAX: usize = 2 * REQUESTS_MAX;

/// Expiry runs at most this often, as in the reference.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// While keys with a TTL exist, the log learns the time at least this often.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

/// A stopping replica waits this long for what was handed to it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the thread is given.
pub struct Wiring {
    pub core: Core,
    pub state: State,
    pub settings: Settings,
    pub hub: Arc<WatchHub>,
    pub clock: Arc<dyn Clock>,
    pub estimate: Arc<Estimate>,
    pub status: Arc<Status>,
    pub requests: Receiver<Request>,
    pub ended: Arc<AtomicBool>,
    pub backlog: Arc<Backlog>,
    pub stop: Receiver<()>,
    pub reports: Receiver<Report>,
    pub jobs: Sender<Job>,
    pub peers: Arc<dyn Peers>,
}

pub struct RaftThread {
    wiring: Wiring,
    boot_id: [u8; 16],
    tickets: Tickets,
    reads: Reads,
    /// Requests that wait for a leader, with the time they give up.
    leaderless: VecDeque<(Instant, Request)>,
    schedule: Schedule,
    /// What the next batch will hold.
    batch: Batch,
    then: Vec<Envelope>,
    /// Since when a batch is with the log thread.
    saving: Option<Instant>,
    disk_full: bool,
    /// What this turn's entries led to, in order.
    results: Vec<Applying>,
    lost: Vec<Box<dyn Waiter>>,
    /// Something was applied since the last view.
    unpublished: bool,
    outbox: Outbox,
    next_tick: Instant,
    expiry_ran: Instant,
    time_logged: Instant,
    stopping: Option<Instant>,
}

/// A request to append, with whoever waits for it.
struct Write {
    bytes: Vec<u8>,
    waiter: Option<Box<dyn Waiter>>,
}

impl Write {
    /// One that nobody waits for.
    fn own(bytes: Vec<u8>) -> Write {
        Write {
            bytes,
            waiter: None,
        }
    }
}

/// What one entry led to, until the view that shows it is published.
struct Applying {
    waiter: Option<Box<dyn Waiter>>,
    done: Done,
}

impl Applying {
    fn event(&self) -> Option<&Applied> {
        match &self.done.effect {
            Effect::Event(applied) => Some(applied),
            Effect::Refused(_) | Effect::Members => None,
        }
    }
}

enum Woken {
    Request(Request),
    Report(Report),
    Stop,
    Tick,
    /// Nobody can ask anything any more.
    Abandoned,
}

impl RaftThread {
    pub fn new(wiring: Wiring) -> RaftThread {
        let now = Instant::now();
        let settings = &wiring.settings;
        RaftThread {
            boot_id: wiring.clock.boot_id(),
            schedule: Schedule::new(
                settings.snapshot_count,
                settings.log_bytes_max,
                settings.snapshot_bytes,
            ),
            next_tick: now + settings.tick,
            tickets: Tickets::default(),
            reads: Reads::default(),
            leaderless: VecDeque::new(),
            batch: Batch::default(),
            then: Vec::new(),
            saving: None,
            disk_full: false,
            results: Vec::new(),
            lost: Vec::new(),
            unpublished: false,
            outbox: Outbox::default(),
            expiry_ran: now,
            time_logged: now,
            stopping: None,
            wiring,
        }
    }

    /// Runs until stopped.
    pub fn run(mut self) {
        self.step(Input::Start);
        self.end_turn();
        while !self.has_stopped() {
            match self.wait() {
                Woken::Request(first) => self.take_requests(Some(first)),
                Woken::Report(report) => self.take_report(report),
                Woken::Stop => self.begin_stop(),
                Woken::Tick => self.tick(),
                Woken::Abandoned => return,
            }
            self.end_turn();
        }
        self.fail_all(Failure::Stopped);
        self.wiring.ended.store(true, Ordering::SeqCst);
        self.take_requests(None);
        self.outbox.flush();
        self.send_job(Job::Close);
    }

    fn wait(&self) -> Woken {
        let now = Instant::now();
        // Whatever waits besides: a tick comes in its time.
        if now >= self.next_tick {
            return Woken::Tick;
        }
        let never = super::closed_for_now();
        let wanted = self.saving.is_none() || self.disk_full || self.stopping.is_some();
        let requests = if wanted || self.is_stalled(now) {
            &self.wiring.requests
        } else {
            &never
        };
        // Only one stop is ever sent; after it the channel would be ready for ever.
        let never_again = super::closed_for_now();
        let stop = if self.stopping.is_none() {
            &self.wiring.stop
        } else {
            &never_again
        };
        select! {
            recv(self.wiring.reports) -> report => report.map_or(Woken::Abandoned, Woken::Report),
            recv(requests) -> request => request.map_or(Woken::Abandoned, Woken::Request),
            recv(stop) -> _ => Woken::Stop,
            default(self.next_tick - now) => Woken::Tick,
        }
    }

    /// The batch is with the log thread for so long that nobody shall wait for its end.
    fn is_stalled(&self, now: Instant) -> bool {
        let tick = self.wiring.settings.tick;
        self.saving.is_some_and(|since| now - since >= tick)
    }

    /// What was handed over until now is finished; what comes after is refused.
    fn begin_stop(&mut self) {
        self.take_requests(None);
        self.stopping = Some(Instant::now());
    }

    /// Nothing that was handed to this thread is still under way, or it took too long.
    fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|since| {
            let saved = self.saving.is_none() || self.disk_full;
            let idle = saved && self.tickets.is_empty() && self.reads.is_empty();
            idle || since.elapsed() >= STOP_TIMEOUT
        })
    }

    // Requests

    /// Takes what waits: all writes become one run of entries, all reads share one question.
    fn take_requests(&mut self, first: Option<Request>) {
        let mut writes = Vec::new();
        let mut readers = Vec::new();
        let most = match first {
            Some(_) => REQUESTS_PER_TURN,
            None => REQUESTS_MAX,
        };
        let waiting: Vec<Request> = self.wiring.requests.try_iter().take(most).collect();
        for request in first.into_iter().chain(waiting) {
            self.wiring.backlog.remove(&request);
            match (request, self.refusal(writes.len())) {
                (request, Some(Failure::Stopped)) => self.refuse(request, Failure::Stopped),
                (Request::Read(reader), _) if self.serves_reads() => readers.push(reader),
                (Request::Propose { bytes, waiter }, None) => writes.push(Write { bytes, waiter }),
                (request, refusal) => self.refuse(request, refusal.unwrap_or(Failure::DiskFull)),
            }
        }
        self.propose(writes);
        self.ask_reads(readers);
    }

    /// Why writes are not taken now, with so many taken in this turn already.
    fn refusal(&self, taken: usize) -> Option<Failure> {
        if self.stopping.is_some() {
            Some(Failure::Stopped)
        } else if self.disk_full {
            Some(Failure::DiskFull)
        } else if self.tickets.len() + taken >= TICKETS_MAX {
            Some(Failure::Overloaded)
        } else {
            None
        }
    }

    /// Quorum reads need no disk, once the log knows an entry of this term.
    fn serves_reads(&self) -> bool {
        let core = &self.wiring.core;
        let committed = core.position_at(core.commit());
        !self.disk_full || committed.is_some_and(|last| last.term == core.term())
    }

    fn propose(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let stamp = self.stamp();
        let (commands, waiters): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|Write { mut bytes, waiter }| {
                entry::stamp(&mut bytes, stamp);
                (Arc::from(bytes), waiter)
            })
            .unzip();
        let (accepted, refused) = self.step(Input::Propose {
            term: None,
            commands: commands.clone(),
        });
        match (accepted, refused) {
            (Some(first), None) => self.hand_out_tickets(first, waiters),
            (None, Some(refusal)) => self.refused(refusal, commands, waiters),
            both => unreachable!("a proposal is accepted or refused, not {both:?}"),
        }
    }

    fn hand_out_tickets(&mut self, first: Position, waiters: Vec<Option<Box<dyn Waiter>>>) {
        let deadline = Instant::now() + self.wiring.settings.request_timeout;
        for (offset, waiter) in waiters.into_iter().enumerate() {
            let index = LogIndex(first.index.0 + offset as u64);
            if let Some(waiter) = waiter {
                self.tickets
                    .push(Position { index, ..first }, deadline, waiter);
            }
        }
    }

    fn refused(
        &mut self,
        refusal: Refusal,
        commands: Vec<Arc<[u8]>>,
        waiters: Vec<Option<Box<dyn Waiter>>>,
    ) {
        let give_up = Instant::now() + self.wiring.settings.leader_timeout;
        for (bytes, waiter) in commands.into_iter().zip(waiters) {
            let request = Request::Propose {
                bytes: bytes.to_vec(),
                waiter,
            };
            match refusal {
                Refusal::Full => self.refuse(request, Failure::Overloaded),
                _ => self.await_leader(give_up, request),
            }
        }
    }

    fn await_leader(&mut self, give_up: Instant, request: Request) {
        if self.wiring.backlog.add(&request) {
            self.leaderless.push_back((give_up, request));
        } else {
            self.refuse(request, Failure::Overloaded);
        }
    }

    /// One question for all, and one for each that waits less long than they.
    fn ask_reads(&mut self, readers: Vec<Box<dyn Reader>>) {
        let (impatient, patient): (Vec<_>, Vec<_>) = readers
            .into_iter()
            .partition(|reader| reader.patience().is_some());
        for reader in impatient {
            let patience = reader.patience().unwrap_or_default();
            self.ask(vec![reader], patience);
        }
        if !patient.is_empty() {
            self.ask(patient, self.wiring.settings.request_timeout);
        }
    }

    fn ask(&mut self, readers: Vec<Box<dyn Reader>>, patience: Duration) {
        let patience = patience.min(self.wiring.settings.request_timeout);
        let id = self.reads.ask(readers, Instant::now() + patience);
        self.step(Input::ReadIndex { id });
    }

    fn refuse(&mut self, request: Request, failure: Failure) {
        self.wiring.status.failed(1);
        request.fail(failure, &mut self.outbox);
    }

    /// The times that the entries of this batch carry. Cluster time never goes back.
    fn stamp(&self) -> Stamp {
        let now = self.wiring.estimate.at(self.wiring.clock.since_boot());
        Stamp {
            cluster: now.max(self.wiring.state.time),
            wall: self.wiring.clock.wall(),
        }
    }

    // Reports

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Stored { ballot, last } => self.stored(ballot, last),
            Report::Full => self.disk_is_full(),
            Report::Read(entries) => drop(self.step(Input::Read { entries })),
            Report::Snapshot { mark, bytes } => self.snapshot_saved(mark, bytes),
            Report::NoSnapshot => self.schedule.ended(None),
        }
    }

    fn stored(&mut self, ballot: Option<Ballot>, last: Option<Position>) {
        self.saving = None;
        if std::mem::take(&mut self.disk_full) {
            self.wiring.status.set_disk_full(false);
            log::warn!("there is space on the disk again: writes are taken");
        }
        if let Some(ballot) = ballot {
            self.step(Input::BallotStored { ballot });
        }
        if let Some(position) = last {
            self.step(Input::Stored { position });
        }
    }

    /// Whoever waits for a write is told at once; what was handed to the log may be applied once there is
    /// space. Reads go on.
    fn disk_is_full(&mut self) {
        self.disk_full = true;
        self.wiring.status.set_disk_full(true);
        let waiters = self.tickets.drain();
        self.fail(waiters, Failure::DiskFull);
        if !self.serves_reads() {
            let readers = self.reads.drain();
            self.fail_reads(readers, Failure::DiskFull);
        }
        if self.schedule.is_worthwhile() {
            self.begin_snapshot();
        }
    }

    fn snapshot_saved(&mut self, mark: SnapshotMark, bytes: u64) {
        self.schedule.ended(Some(bytes));
        self.step(Input::Compacted { mark: mark.clone() });
        self.send_job(Job::Compact(mark));
    }

    fn begin_snapshot(&mut self) {
        let applied = self.wiring.state.applied;
        let Some(mark) = self.wiring.core.mark_at(applied) else {
            unreachable!("what is applied ({applied:?}) is committed and in the log")
        };
        self.schedule.begun();
        let state = self.wiring.state.clone();
        self.send_job(Job::Snapshot(Box::new(Task { mark, state })));
    }

    // Ticks

    fn tick(&mut self) {
        let now = Instant::now();
        self.next_tick = now + self.wiring.settings.tick;
        self.step(Input::Tick);
        let late = self.tickets.expired(now);
        self.fail(late, Failure::TimedOut);
        let late = self.reads.expired(now);
        self.fail_reads(late, Failure::TimedOut);
        self.retry_leaderless(now);
        if self.wiring.core.is_leader() && !self.disk_full {
            self.keep_time(now);
        }
    }

    fn retry_leaderless(&mut self, now: Instant) {
        let led = self.wiring.core.is_leader();
        for (give_up, request) in std::mem::take(&mut self.leaderless) {
            self.wiring.backlog.remove(&request);
            match request {
                request if now >= give_up => self.refuse(request, Failure::TimedOut),
                Request::Propose { bytes, waiter } if led => {
                    self.propose(vec![Write { bytes, waiter }])
                }
                Request::Read(reader) if led => self.ask_reads(vec![reader]),
                request => self.await_leader(give_up, request),
            }
        }
    }

    /// Expires what is due, and lets the log know the time while that matters. Not more often while a batch
    /// takes its time: the entry asked for before is on its way.
    fn keep_time(&mut self, now: Instant) {
        let cluster = self.wiring.estimate.at(self.wiring.clock.since_boot());
        let due = self
            .wiring
            .state
            .tree
            .next_expiry()
            .is_some_and(|at| at <= cluster);
        if due && now - self.expiry_ran >= EXPIRY_INTERVAL {
            self.expiry_ran = now;
            self.propose(vec![Write::own(entry::expire())]);
        } else if self.wiring.state.tree.has_ttl() && now - self.time_logged >= TIME_INTERVAL {
            self.time_logged = now;
            self.propose(vec![Write::own(entry::time())]);
        }
    }

    // What the core asks for

    /// Steps the core and takes up what it asks for; the answers to a proposal are handed back.
    fn step(&mut self, input: Input) -> (Option<Position>, Option<Refusal>) {
        let todo = self.wiring.core.step(input);
        let answer = (todo.accepted, todo.refused);
        self.perform(todo);
        answer
    }

    fn perform(&mut self, todo: Todo) {
        assert!(
            todo.install.is_none() && todo.send_snapshot.is_empty(),
            "snapshots go between members, and this is the only one"
        );
        if !todo.send_now.is_empty() {
            self.wiring.peers.send(todo.send_now);
        }
        if todo.ballot.is_some() {
            self.batch.ballot = todo.ballot;
        }
        self.batch.entries.extend(todo.append);
        self.then.extend(todo.send_stored);
        self.apply(todo.apply);
        if let Some((from, to)) = todo.read {
            self.send_job(Job::Read { from, to });
        }
        for (id, index) in todo.reads {
            self.reads.confirmed(id, index);
        }
        if !todo.refused_reads.is_empty() {
            let give_up = Instant::now() + self.wiring.settings.leader_timeout;
            for reader in self.reads.refused(&todo.refused_reads) {
                self.await_leader(give_up, Request::Read(reader));
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let bytes = if let Payload::Command(bytes) = &entry.payload {
                bytes.len()
            } else {
                0
            };
            self.schedule.applied(bytes + ENTRY_OVERHEAD);
            let waiter = self.tickets.take(entry.position, &mut self.lost);
            let index = entry.position.index;
            match self.wiring.state.apply(&entry) {
                Outcome::Tree(Ok(applied)) => self.applied(index, waiter, Effect::Event(applied)),
                Outcome::Tree(Err(error)) => self.applied(index, waiter, Effect::Refused(error)),
                Outcome::Expired(all) => all
                    .into_iter()
                    .for_each(|applied| self.applied(index, None, Effect::Event(applied))),
                Outcome::Members => {
                    self.wiring.status.set_members(&self.wiring.state.members);
                    self.applied(index, waiter, Effect::Members);
                }
                Outcome::Quiet => {}
            }
            self.unpublished = true;
        }
    }

    fn applied(&mut self, applied: LogIndex, waiter: Option<Box<dyn Waiter>>, effect: Effect) {
        let term = self.wiring.core.term();
        let done = Done {
            effect,
            applied,
            term,
        };
        self.results.push(Applying { waiter, done });
    }

    // The end of a turn

    fn end_turn(&mut self) {
        if self.unpublished {
            self.publish();
        }
        self.answer_reads();
        self.save();
        if self.schedule.is_due() {
            self.begin_snapshot();
        }
        let applied = self.wiring.state.applied;
        let pending = self.tickets.len() + self.leaderless.len();
        self.wiring
            .status
            .update(&self.wiring.core, applied, pending);
        self.outbox.flush();
    }

    /// Shows the new state, then answers those who brought it about.
    fn publish(&mut self) {
        self.unpublished = false;
        let view = View {
            tree: self.wiring.state.tree.clone(),
            applied: self.wiring.state.applied,
            term: self.wiring.core.term(),
        };
        let events = self.results.iter().filter_map(|applying| applying.event());
        self.wiring.hub.publish(view, events.cloned());
        for Applying { waiter, done } in self.results.drain(..) {
            if let Some(waiter) = waiter {
                waiter.done(&done, &mut self.outbox);
            }
        }
        let lost = std::mem::take(&mut self.lost);
        self.fail(lost, Failure::LeaderLost);
    }

    fn answer_reads(&mut self) {
        let readers = self.reads.ready(self.wiring.state.applied);
        if !readers.is_empty() {
            let view = self.wiring.hub.view();
            readers
                .into_iter()
                .for_each(|reader| reader.ready(&view, &mut self.outbox));
        }
    }

    /// Hands the log what has gathered, unless it is still busy with the batch before.
    fn save(&mut self) {
        let nothing =
            self.batch.ballot.is_none() && self.batch.entries.is_empty() && self.then.is_empty();
        if nothing || self.saving.is_some() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.clock = self.note_time(&batch);
        let then = std::mem::take(&mut self.then);
        self.saving = Some(Instant::now());
        self.send_job(Job::Save { batch, then });
    }

    /// Beside entries the WAL notes how this machine's clock stood to cluster time, so that a restart
    /// knows how long it was down.
    fn note_time(&mut self, batch: &Batch) -> Option<wal::Clock> {
        if batch.entries.is_empty() {
            return None;
        }
        self.time_logged = Instant::now();
        let since_boot = self.wiring.clock.since_boot();
        let ClusterTime(cluster_ns) = self.wiring.estimate.at(since_boot);
        Some(wal::Clock {
            boot_id: self.boot_id,
            boottime_ns: since_boot,
            cluster_ns,
        })
    }

    fn fail_all(&mut self, failure: Failure) {
        let waiters = self.tickets.drain();
        self.fail(waiters, failure);
        for (_, request) in std::mem::take(&mut self.leaderless) {
            self.wiring.backlog.remove(&request);
            self.refuse(request, failure);
        }
        let readers = self.reads.drain();
        self.fail_reads(readers, failure);
    }

    fn fail_reads(&mut self, readers: Vec<Box<dyn Reader>>, failure: Failure) {
        for reader in readers {
            self.refuse(Request::Read(reader), failure);
        }
    }

    fn fail(&mut self, waiters: Vec<Box<dyn Waiter>>, failure: Failure) {
        self.wiring.status.failed(waiters.len());
        waiters
            .into_iter()
            .for_each(|waiter| waiter.failed(failure, &mut self.outbox));
    }

    /// The log thread outlives this one, or the process is about to end.
    fn send_job(&self, job: Job) {
        let _ = self.wiring.jobs.send(job);
    }
}

/// What a record costs in the WAL beside its command, roughly.
const ENTRY_OVERHEAD: usize = 40;
