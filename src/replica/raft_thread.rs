//! The raft thread: waits for an event, steps the engine, and carries out the effects.
//!
//! It owns the engine. It waits in one `select!` with the engine's next tick as its deadline. While the engine has work
//! that is done in pieces, the thread does the next piece as soon as no other event waits. The channels are:
//!
//! | channel | sender | read |
//! |---|---|---|
//! | `rung`, then `requests` | HTTP workers | while the engine accepts requests ([`Engine::takes_requests`]) |
//! | `from_peers` | the connections to other members | always |
//! | `reports` | WAL and snapshot threads | always |
//! | `stop` | [`super::Replica::stop`] | once |
//!
//! It ends when the engine has stopped, or when all senders are dropped.

use super::clock::SharedEstimate;
use super::log_thread::LogInput;
use super::peers::{FromPeers, Peers, Received};
use super::status::Status;
use super::trace_log::{Timed, TraceLog};
use super::{Backlog, Caller, closed_for_now};
use crate::engine::request::{Failure, Outcome, Reply, Request};
use crate::engine::time::Now;
use crate::engine::{
    DiskJob, DiskReport, Effects, Engine, Event, Note, PeerEvent, Publication, REQUESTS_MAX,
};
use crate::raft::Position;
use crate::storage::clock::Clock;
use crate::storage::jobs::{self, Finish};
use crate::watch::{Outbox, View, Views};
use crossbeam_channel::{Receiver, Sender, select};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Maximum number of requests per step, so that reports and ticks are not delayed.
const REQUESTS_PER_STEP: usize = 1024;

/// Maximum number of peer events per step. Each contains what one connection has read at once.
const PEER_EVENTS_PER_STEP: usize = 64;

/// The thread's inputs and outputs.
pub struct Wiring<O> {
    pub engine: Engine<Caller<O>>,
    pub views: Arc<dyn Views>,
    pub clock: Arc<dyn Clock>,
    pub estimate: Arc<SharedEstimate>,
    pub status: Arc<Status>,
    pub requests: Receiver<Request<Caller<O>>>,
    /// Receives a message when there are requests.
    pub rung: Receiver<()>,
    pub from_peers: Receiver<FromPeers>,
    pub ended: Arc<AtomicBool>,
    pub backlog: Arc<Backlog>,
    pub stop: Receiver<()>,
    pub reports: Receiver<DiskReport>,
    pub jobs: Sender<LogInput>,
    pub peers: Arc<dyn Peers>,
    /// Gets one notification when this member was removed.
    pub removed: Sender<()>,
    pub trace: Arc<TraceLog>,
}

pub struct RaftThread<O> {
    wiring: Wiring<O>,
    boot_id: [u8; 16],
    /// The snapshot that is being installed: how to make it the newest one, and the sender that waits for that.
    installing: Option<Installing>,
    stop_seen: bool,
    outbox: O,
    /// Trace records that are not in the trace log yet.
    records: Vec<Timed>,
    /// Whether the readers have a view of this process. See [`RaftThread::withholds`].
    shown: bool,
}

struct Installing {
    finish: Finish,
    installed: Sender<Position>,
}

/// The event that ended the wait.
enum Woken {
    Requests,
    FromPeers(FromPeers),
    Report(DiskReport),
    Stop,
    Tick,
    GoOn,
    /// All senders are dropped.
    Abandoned,
}

impl<O: Outbox> RaftThread<O> {
    pub fn new(wiring: Wiring<O>) -> RaftThread<O> {
        RaftThread {
            boot_id: wiring.clock.boot_id(),
            wiring,
            installing: None,
            stop_seen: false,
            outbox: O::default(),
            records: Vec::new(),
            shown: false,
        }
    }

    /// Runs until stopped.
    pub fn run(mut self) {
        let mut stopped = self.step(Event::Start);
        while !stopped {
            stopped = match self.wait() {
                Woken::Requests => self.take_requests(REQUESTS_PER_STEP),
                Woken::FromPeers(first) => self.take_from_peers(first),
                Woken::Report(report) => self.take_report(report),
                Woken::Stop => {
                    self.stop_seen = true;
                    // The requests received so far are finished. Later ones are refused.
                    self.take_requests(REQUESTS_MAX) || self.step(Event::Stop)
                }
                Woken::Tick => self.step(Event::Tick),
                Woken::GoOn => self.step(Event::GoOn),
                Woken::Abandoned => return,
            };
        }
        self.wiring.ended.store(true, Ordering::SeqCst);
        for request in self.wiring.requests.try_iter() {
            self.wiring.backlog.remove(&request);
            super::fail(request, Failure::Stopped, &mut self.outbox);
        }
        self.outbox.flush();
        self.send_to_wal(LogInput::Close);
    }

    fn wait(&self) -> Woken {
        let now = self.wiring.clock.now().monotonic;
        let engine = &self.wiring.engine;
        // A due tick has precedence over all channels.
        if now >= engine.deadline() {
            return Woken::Tick;
        }
        let never = closed_for_now();
        let takes_requests = engine.takes_requests(now);
        let rung = if takes_requests {
            &self.wiring.rung
        } else {
            &never
        };
        // Stop is sent only once. After that, the closed channel would be ready forever.
        let never_again = closed_for_now();
        let stop = if self.stop_seen {
            &never_again
        } else {
            &self.wiring.stop
        };
        // Requests may be left from the last step, and this thread need not wait for the next message of the bell.
        // Work that is done in pieces continues when no other event waits.
        let (wait, then) = match takes_requests && !self.wiring.requests.is_empty() {
            true => (Duration::ZERO, Woken::Requests),
            false if engine.goes_on() => (Duration::ZERO, Woken::GoOn),
            false => (engine.deadline() - now, Woken::Tick),
        };
        select! {
            recv(self.wiring.reports) -> report => report.map_or(Woken::Abandoned, Woken::Report),
            recv(self.wiring.from_peers) -> event => event.map_or(Woken::Abandoned, Woken::FromPeers),
            recv(rung) -> rung => rung.map_or(Woken::Abandoned, |()| Woken::Requests),
            recv(stop) -> _ => Woken::Stop,
            default(wait) => then,
        }
    }

    /// Takes at most `most` requests. There may be none: the last step may have taken those that the bell announced.
    fn take_requests(&mut self, most: usize) -> bool {
        let waiting = self.wiring.requests.try_iter().take(most);
        let all: Vec<Request<Caller<O>>> = waiting.collect();
        if all.is_empty() {
            return false;
        }
        all.iter()
            .for_each(|request| self.wiring.backlog.remove(request));
        self.step(Event::Requests(all))
    }

    fn take_from_peers(&mut self, first: FromPeers) -> bool {
        let waiting = self.wiring.from_peers.try_iter().take(PEER_EVENTS_PER_STEP);
        let all: Vec<FromPeers> = std::iter::once(first).chain(waiting).collect();
        let events = all.into_iter().filter_map(|event| self.peer_event(event));
        let events = events.collect();
        let stopped = self.step(Event::Peers(events));
        // The engine did not use the snapshot. Dropping it removes the file and informs the sender.
        if !self.wiring.engine.is_installing() {
            self.installing = None;
        }
        stopped
    }

    /// `None` for a snapshot that cannot be used because another one is being installed. Dropping it informs its
    /// sender.
    fn peer_event(&mut self, event: FromPeers) -> Option<PeerEvent> {
        Some(match event {
            FromPeers::Messages { from, messages } => PeerEvent::Messages { from, messages },
            FromPeers::Unsent(numbers) => PeerEvent::Unsent(numbers),
            FromPeers::Unreachable(node) => PeerEvent::Unreachable(node),
            FromPeers::Gone(leader) => PeerEvent::Gone(leader),
            FromPeers::SnapshotSent { to, installed } => PeerEvent::SnapshotSent { to, installed },
            FromPeers::SnapshotUnreadable => PeerEvent::SnapshotUnreadable,
            FromPeers::Removed { by } => PeerEvent::Removed { by },
            FromPeers::Understands { member, format } => PeerEvent::Understands { member, format },
            FromPeers::Snapshot(_) if self.installing.is_some() => return None,
            // The engine gets the content. The file stays here until the engine installs it.
            FromPeers::Snapshot(received) => {
                let Received {
                    incoming,
                    finish,
                    installed,
                } = *received;
                self.installing = Some(Installing { finish, installed });
                PeerEvent::Snapshot(Box::new(incoming))
            }
        })
    }

    fn take_report(&mut self, report: DiskReport) -> bool {
        let installed = match &report {
            DiskReport::Snapshot { bytes, took, .. } => {
                self.wiring.status.snapshot_made(*bytes, *took);
                None
            }
            DiskReport::Installed(position) => Some(*position),
            _ => None,
        };
        let stopped = self.step(Event::Disk(report));
        if let (Some(position), Some(installing)) =
            (installed, self.installing.take_if(|_| installed.is_some()))
        {
            // The sender may have disconnected meanwhile.
            let _ = installing.installed.send(position);
        }
        stopped
    }

    /// Steps the engine and carries out the effects. Returns whether the engine has stopped.
    fn step(&mut self, event: Event<Caller<O>>) -> bool {
        let begun = Instant::now();
        let now = self.wiring.clock.now();
        let effects = self.wiring.engine.step(now, event);
        let stopped = effects.stopped;
        self.perform(effects, begun);
        self.keep_trace(now);
        stopped
    }

    /// Adds the records of the step to the trace log, after the clients have their replies.
    fn keep_trace(&mut self, now: Now) {
        let at = u64::try_from(now.wall.0 / 1000).unwrap_or(0);
        let records = self.wiring.engine.trace().iter();
        self.records
            .extend(records.map(|&record| Timed { at, record }));
        if !self.records.is_empty() {
            self.wiring.trace.add(&mut self.records);
        }
    }

    /// Carries out the effects in the order of the fields of [`Effects`].
    fn perform(&mut self, effects: Effects<Caller<O>>, begun: Instant) {
        self.wiring.status.before_effects(&self.wiring.engine);
        effects.notes.iter().for_each(|note| self.log(note));
        if !effects.send.is_empty() {
            self.wiring.peers.send(effects.send);
        }
        for (to, term) in effects.send_snapshot {
            self.wiring.peers.send_snapshot(to, term);
        }
        for from in effects.cut {
            self.wiring.peers.cut(from);
        }
        effects
            .disk
            .into_iter()
            .for_each(|job| self.perform_disk(job));
        let engine = &self.wiring.engine;
        if effects.members_changed {
            let members = &engine.state().members;
            self.wiring.status.set_members(members);
            self.wiring.peers.set_members(members);
        }
        if effects.auth_changed {
            self.wiring.status.set_auth(&engine.state().auth);
        }
        self.wiring.estimate.set(engine.estimate());
        self.wiring.status.accepted(effects.accepted_bytes);
        let publishes = !effects.publish.is_empty();
        if self.shown {
            effects
                .publish
                .into_iter()
                .for_each(|publication| self.publish(publication));
        } else if !self.withholds(publishes, &effects.replies) {
            // The view contains all withheld changes. Their events are lost.
            drop(effects.publish);
            self.publish(self.wiring.engine.present());
            self.shown = true;
        }
        let at = Instant::now();
        if publishes {
            self.wiring.status.commits().add(at - begun);
        }
        self.reply(effects.replies, at);
        for (of, took) in effects.round_trips {
            self.wiring.status.round_trip(of, took);
        }
        let engine = &self.wiring.engine;
        if effects.followers_changed {
            let (followers, progress) = (engine.followers(), engine.core().progress());
            self.wiring.status.set_followers(followers, progress);
        }
        if effects.removed {
            // One notification is enough. The receiver may have it already, or be stopping.
            let _ = self.wiring.removed.try_send(());
        }
        self.wiring
            .backlog
            .set_leaderless(engine.leaderless_bytes());
        self.wiring.status.update(engine);
        self.outbox.flush();
    }

    fn log(&self, note: &Note) {
        if log::log_enabled!(note.level()) {
            let members = &self.wiring.engine.state().members;
            log::log!(note.level(), "{}", note.text(members));
        }
    }

    fn perform_disk(&mut self, job: DiskJob) {
        let installing = &mut self.installing;
        let job = jobs::job(job, self.boot_id, || {
            let Some(installing) = installing else {
                unreachable!("a snapshot is installed, and nothing was received")
            };
            std::mem::replace(&mut installing.finish, Box::new(|| Ok(())))
        });
        self.send_to_wal(LogInput::Job(job));
    }

    /// Whether readers get no view yet.
    ///
    /// A start applies the log after the snapshot again, in many steps. As long as nobody else has the tree, a change
    /// copies nothing. With a view for each step, nearly every entry would copy a part of the tree of more than a
    /// kilobyte, and the copies would leave gaps in the memory. So the first view is published when all entries that
    /// are known to be committed are applied, or with the first reply. Nobody watches a member before it has replied.
    fn withholds(&self, publishes: bool, replies: &[Reply<Caller<O>>]) -> bool {
        let engine = &self.wiring.engine;
        let core = engine.core();
        let is_behind = core.applied() < core.commit();
        replies.is_empty() && (is_behind || !publishes) && !engine.decides_alone()
    }

    fn publish(&self, publication: Publication) {
        let Publication {
            tree,
            applied,
            term,
            events,
            is_jump,
        } = publication;
        let view = View {
            tree,
            applied,
            term,
        };
        match is_jump {
            true => self.wiring.views.jump(view),
            false => self.wiring.views.publish(view, events),
        }
    }

    fn reply(&mut self, replies: Vec<Reply<Caller<O>>>, at: Instant) {
        let failed = |reply: &&Reply<Caller<O>>| matches!(reply.outcome, Outcome::Failed(_));
        self.wiring
            .status
            .failed(replies.iter().filter(failed).count());
        for Reply { caller, outcome } in replies {
            caller.reply(outcome, at, &*self.wiring.views, &mut self.outbox);
        }
    }

    /// Sending fails only if the WAL thread has ended, and then the process is about to end.
    fn send_to_wal(&self, input: LogInput) {
        let _ = self.wiring.jobs.send(input);
    }
}

#[cfg(test)]
mod tests;
