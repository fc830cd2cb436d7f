//! The raft thread.
//!
//! One loop: wait for something, step the core with it, do what the core asks, and at the end of the
//! turn send what goes to other members, hand one batch to the log, publish one view, and wake each worker
//! once.
//!
//! It waits for (one `select!`, the next tick as its deadline):
//!
//! | channel | sender | while |
//! |---|---|---|
//! | `requests` | HTTP workers | no batch is with the log thread; or it takes long; or writes are refused |
//! | `from_peers` | the links to other members | always |
//! | `reports` | log and snapshot threads | always |
//! | `stop` | [`super::Replica::stop`] | once |
//!
//! A batch takes long when it is with the log thread for a whole tick. From then on requests are taken
//! beside it, so that their time runs and quorum reads, which need no disk, are answered.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the loop, its ticks, and the end of a turn |
//! | `requests.rs` | what clients ask: appended here, or forwarded to the leader |
//! | `letters.rs` | what other members say and ask |
//! | `reports.rs` | what the log and snapshot threads tell; snapshots made, sent and installed |
//! | `events.rs` | what the log is told of all that |
//! | `todo.rs` | what the core asks for; entries applied |
//! | `stopping.rs` | leadership handed over, and the last answers |

#[path = "notes.rs"]
mod events;
mod letters;
mod reports;
mod requests;
mod stopping;
mod todo;

use super::clock::{Clock, Estimate};
use super::followers::Followers;
use super::forwards::Forwards;
use super::letter::Letter;
use super::log_thread::{Job, Report};
use super::pauses::Pauses;
use super::peers::{FromPeers, Peers, Received};
use super::reads::{Asked, Reads};
use super::snapshot::Schedule;
use super::state::State;
use super::status::Status;
use super::tickets::Tickets;
use super::{
    Backlog, Done, Effect, Failure, REQUESTS_MAX, Reader, Request, Settings, Waiter, Write, entry,
};
use crate::door::Outbox;
use crate::raft::{Core, Input, LogIndex, NodeId, Position, SnapshotMark, Term};
use crate::tree::{Applied, ClusterTime};
use crate::wal::{self, Batch};
use crate::watch::{View, WatchHub};
use crossbeam_channel::{Receiver, Sender, select};
use events::Told;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stopping::Stopping;

/// Writes that may wait for their entries; more are refused.
const TICKETS_MAX: usize = 2 * REQUESTS_MAX;

/// Expiry runs at most this often, as in the reference.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// While keys with a TTL exist, the log learns the time at least this often.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

/// A node without others to hear or to tell needs no finer time than this.
const ALONE_TICK: Duration = Duration::from_millis(100);

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
    pub from_peers: Receiver<FromPeers>,
    pub ended: Arc<AtomicBool>,
    pub backlog: Arc<Backlog>,
    pub stop: Receiver<()>,
    pub reports: Receiver<Report>,
    pub jobs: Sender<Job>,
    pub peers: Arc<dyn Peers>,
    /// Told once when this member is no longer one.
    pub removed: Sender<()>,
}

pub struct RaftThread {
    wiring: Wiring,
    boot_id: [u8; 16],
    tickets: Tickets,
    forwards: Forwards,
    reads: Reads,
    /// What other members asked of this one.
    asked: Asked,
    /// Requests that wait for a leader, with the time they give up.
    leaderless: VecDeque<(Instant, Request)>,
    followers: Followers,
    schedule: Schedule,
    /// A snapshot on disk up to which the log may go, once no follower needs that part any more.
    compacting: Option<(SnapshotMark, Instant)>,
    /// The last change of a member's URLs that was appended here.
    updating: Option<Position>,
    /// A snapshot that can be sent is on disk.
    has_snapshot: bool,
    /// Followers that wait until there is one.
    want_snapshot: Vec<NodeId>,
    /// Followers that did not take one, before it is sent again.
    pauses: Pauses,
    /// A snapshot that has come and is being installed.
    installing: Option<Box<Received>>,
    /// What the next batch will hold.
    batch: Batch,
    then: Vec<(NodeId, Letter)>,
    /// What goes to other members at the end of this turn.
    letters: Vec<(NodeId, Letter)>,
    /// Since when a batch is with the log thread.
    saving: Option<Instant>,
    disk_full: bool,
    /// What this turn's entries led to, in order.
    results: Vec<Applying>,
    lost: Vec<Box<dyn Waiter>>,
    /// Something was applied since the last view.
    unpublished: bool,
    /// Time spent on that.
    applying: Duration,
    /// The term of the last entry applied.
    applied_term: Term,
    /// As of the last turn's end.
    leader: Option<NodeId>,
    /// The latest cluster time heard from that leader: its letters overtake each other.
    time_heard: ClusterTime,
    outbox: Outbox,
    next_tick: Instant,
    expiry_ran: Instant,
    /// The last expiry took as many keys as one entry may: more may be due.
    expiry_cut: bool,
    time_logged: Instant,
    stopping: Option<Stopping>,
    told: Told,
    /// When it was first seen that this member was removed.
    removed: Option<Instant>,
}

/// What one entry led to, until the view that shows it is published.
struct Applying {
    waiter: Option<Box<dyn Waiter>>,
    effect: Effect,
    applied: LogIndex,
    term: Term,
}

impl Applying {
    fn event(&self) -> Option<&Applied> {
        match &self.effect {
            Effect::Event(applied) => Some(applied),
            Effect::Refused(_) | Effect::Members(_) => None,
        }
    }
}

enum Woken {
    Request(Request),
    FromPeers(FromPeers),
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
            has_snapshot: settings.snapshot_bytes > 0,
            next_tick: now + settings.tick,
            tickets: Tickets::default(),
            forwards: Forwards::new(settings.first_tag),
            reads: Reads::new(settings.first_tag),
            asked: Asked::default(),
            leaderless: VecDeque::new(),
            followers: Followers::default(),
            compacting: None,
            updating: None,
            want_snapshot: Vec::new(),
            pauses: Pauses::default(),
            installing: None,
            batch: Batch::default(),
            then: Vec::new(),
            letters: Vec::new(),
            saving: None,
            disk_full: false,
            results: Vec::new(),
            lost: Vec::new(),
            unpublished: false,
            applying: Duration::ZERO,
            applied_term: Term(0),
            leader: None,
            time_heard: ClusterTime(0),
            outbox: Outbox::default(),
            expiry_ran: now,
            expiry_cut: false,
            time_logged: now,
            stopping: None,
            told: Told::new(&wiring.core),
            removed: None,
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
                Woken::FromPeers(first) => self.take_from_peers(first),
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
            recv(self.wiring.from_peers) -> told => told.map_or(Woken::Abandoned, Woken::FromPeers),
            recv(requests) -> request => request.map_or(Woken::Abandoned, Woken::Request),
            recv(stop) -> _ => Woken::Stop,
            default(self.next_tick - now) => Woken::Tick,
        }
    }

    /// The batch is with the log thread for so long that nobody shall wait for its end.
    fn is_stalled(&self, now: Instant) -> bool {
        let stall = self.wiring.settings.stall;
        self.saving.is_some_and(|since| now - since >= stall)
    }

    // Ticks

    fn tick(&mut self) {
        let now = Instant::now();
        self.next_tick = now + self.tick_span();
        self.step(Input::Tick);
        let late = self.tickets.expired(now);
        self.fail(late, Failure::TimedOut);
        let late = self.forwards.expired(now);
        self.fail(late, Failure::TimedOut);
        let late = self.reads.expired(now);
        self.fail_reads(late, Failure::TimedOut);
        self.retry_leaderless(now);
        self.tell_no_leader(now);
        self.end_pauses(now);
        self.ask_again_unanswered(now);
        self.compact_when_possible(now);
        self.tell_removed(now);
        self.hand_over_if_full();
        if self.wiring.core.is_leader() {
            self.show_followers();
        }
        if self.keeps_time() {
            self.keep_time(now);
        }
    }

    fn keeps_time(&self) -> bool {
        self.wiring.core.is_leader() && !self.disk_full && self.stopping.is_none()
    }

    fn show_followers(&mut self) {
        let members = &self.wiring.state.members;
        self.followers.retain(|id| members.get(id).is_some());
        self.wiring.status.set_followers(&self.followers);
    }

    fn tick_span(&self) -> Duration {
        let members = self.wiring.core.membership();
        let alone = members.voters.len() == 1 && members.learners.is_empty();
        match alone && self.wiring.core.is_leader() {
            true => ALONE_TICK.max(self.wiring.settings.tick),
            false => self.wiring.settings.tick,
        }
    }

    /// Expires what is due, and lets the log know the time while that matters. Not more often while a batch
    /// takes its time: the entry asked for before is on its way.
    fn keep_time(&mut self, now: Instant) {
        let go_on = std::mem::take(&mut self.expiry_cut);
        let cluster = self.wiring.estimate.at(self.wiring.clock.since_boot());
        let due = self
            .wiring
            .state
            .tree
            .next_expiry()
            .is_some_and(|at| at <= cluster);
        if due && (go_on || now - self.expiry_ran >= EXPIRY_INTERVAL) {
            self.expiry_ran = now;
            self.propose(vec![Write::own(entry::expire())]);
        } else if self.wiring.state.tree.has_ttl() && now - self.time_logged >= TIME_INTERVAL {
            self.time_logged = now;
            self.propose(vec![Write::own(entry::time())]);
        }
    }

    // The end of a turn

    fn end_turn(&mut self) {
        if self.expiry_cut && self.keeps_time() {
            self.keep_time(Instant::now());
        }
        self.look_for_leader();
        if !self.letters.is_empty() {
            self.wiring.peers.send(std::mem::take(&mut self.letters));
        }
        // The disk works while what was applied is shown and answered.
        self.save();
        if self.unpublished {
            self.publish();
        }
        self.answer_reads();
        self.begin_snapshot_if_due();
        let applied = self.wiring.state.applied;
        let pending = self.tickets.len() + self.forwards.len() + self.leaderless.len();
        self.wiring
            .status
            .update(&self.wiring.core, applied, pending);
        self.outbox.flush();
    }

    /// With another leader, what waits for one has its turn at once, and reads are asked again.
    fn look_for_leader(&mut self) {
        let leader = self.wiring.core.leader();
        if leader == self.leader {
            return;
        }
        self.leader = leader;
        self.want_snapshot.clear();
        self.pauses.clear();
        self.time_heard = ClusterTime(0);
        self.followers.clear();
        self.wiring.status.set_followers(&self.followers);
        self.ask_again();
        if leader.is_some() {
            self.retry_leaderless(Instant::now());
        }
    }

    /// Shows the new state, then answers those who brought it about.
    fn publish(&mut self) {
        self.unpublished = false;
        let begun = Instant::now();
        let view = self.view();
        let events = self.results.iter().filter_map(|applying| applying.event());
        self.wiring.hub.publish(view, events.cloned());
        let at = Instant::now();
        let applying = std::mem::take(&mut self.applying) + (at - begun);
        self.wiring.status.commits().add(applying);
        for applying in self.results.drain(..) {
            if let Some(waiter) = applying.waiter {
                let done = Done {
                    effect: applying.effect,
                    applied: applying.applied,
                    term: applying.term,
                    at,
                };
                waiter.done(&done, &mut self.outbox);
            }
        }
        let lost = std::mem::take(&mut self.lost);
        self.fail(lost, Failure::LeaderLost);
    }

    fn view(&self) -> View {
        View {
            tree: self.wiring.state.tree.clone(),
            applied: self.wiring.state.applied,
            term: self.wiring.core.stored_term(),
        }
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
        if self.saving.is_none() {
            self.save_now();
        }
    }

    fn save_now(&mut self) {
        let nothing =
            self.batch.ballot.is_none() && self.batch.entries.is_empty() && self.then.is_empty();
        if nothing {
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

    // Failures

    fn fail_all(&mut self, failure: Failure) {
        let mut waiters = self.tickets.drain();
        waiters.extend(self.forwards.drain());
        self.fail(waiters, failure);
        for (_, request) in std::mem::take(&mut self.leaderless) {
            self.wiring.backlog.remove(&request);
            self.refuse(request, failure);
        }
        let readers = self.reads.drain();
        self.fail_reads(readers, failure);
    }

    fn fail_reads(&mut self, readers: Vec<Box<dyn Reader>>, failure: Failure) {
        self.wiring.status.failed(readers.len());
        readers
            .into_iter()
            .for_each(|reader| reader.failed(failure, &mut self.outbox));
    }

    fn fail(&mut self, waiters: Vec<Box<dyn Waiter>>, failure: Failure) {
        self.wiring.status.failed(waiters.len());
        waiters
            .into_iter()
            .for_each(|waiter| waiter.failed(failure, &mut self.outbox));
    }

    fn refuse(&mut self, request: Request, failure: Failure) {
        self.wiring.status.failed(1);
        request.fail(failure, &mut self.outbox);
    }

    /// The log thread outlives this one, or the process is about to end.
    fn send_job(&self, job: Job) {
        let _ = self.wiring.jobs.send(job);
    }
}
