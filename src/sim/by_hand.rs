//! Runs without random faults: the caller chooses every fault, request and change of the members ([`Act`]).
//!
//! The lab ([`crate::lab`]) uses this. A run is determined by its settings and by the acts, each between two events. Only
//! harm is a violation here, such as two leaders of a term or a lost write. Other runs also report a promise that precedes
//! its sync. Here such a promise must first do harm, because a person wants to see the harm.

use super::act::{Act, DiskState};
use super::client::{Ask, Client, Op};
use super::cluster::{Cluster, Event, Settings};
use super::desk::Change;
use super::fault_profile::{FaultProfile, Kind, TICK};
use super::mirror::Mirror;
use super::power::Down;
use super::trace::Happening;
use crate::engine;
use crate::engine::peer_message::PeerMessage;
use crate::engine::rules::Rule;
use crate::engine::{DiskReport, PeerEvent};
use crate::raft::NodeId;
use crate::random::Random;
use crate::storage::jobs::{self, Job};
use crate::wal::FaultyDisk;
use std::collections::BTreeMap;

/// About the bytes of an entry in memory.
const ENTRY_BYTES: usize = 100;
/// How long a hung disk takes. It is never reached.
const NEVER: u64 = 1 << 50;
/// What a duplicate takes longer.
const TWICE_LATE: u64 = 5_000;

/// The faults that a caller has set on links and processes.
#[derive(Default)]
pub(super) struct Hands {
    links: BTreeMap<(NodeId, NodeId), OnLink>,
    /// The events of paused processes, in order.
    pub held: Vec<Event>,
}

/// The faults that a caller has set on one direction of a link.
#[derive(Debug, Default)]
struct OnLink {
    late: u64,
    lose: u32,
    twice: u32,
}

impl Hands {
    /// Whether the next message in this direction is lost.
    pub fn loses_next(&mut self, from: NodeId, to: NodeId) -> bool {
        let link = self.links.get_mut(&(from, to));
        let link = link.filter(|link| link.lose > 0);
        link.map(|link| link.lose -= 1).is_some()
    }

    /// The delay of a direction, in virtual microseconds.
    pub fn late(&self, from: NodeId, to: NodeId) -> u64 {
        self.links.get(&(from, to)).map_or(0, |link| link.late)
    }

    fn on(&mut self, from: NodeId, to: NodeId) -> &mut OnLink {
        self.links.entry((from, to)).or_default()
    }
}

impl Cluster {
    /// A cluster without random faults, clients and watchers. The seed decides the election timeouts. A member makes a
    /// snapshot after `snapshot_every` entries, and keeps about as many in memory: a member that is farther behind gets a
    /// snapshot.
    pub fn by_hand(settings: Settings, snapshot_every: u64) -> Cluster {
        let random = Random::spread(settings.seed);
        let usual = FaultProfile::by_hand();
        let memory_bytes = match snapshot_every < usual.snapshot_every {
            true => ENTRY_BYTES * snapshot_every as usize,
            false => usual.memory_bytes,
        };
        let profile = FaultProfile {
            snapshot_every,
            memory_bytes,
            ..usual
        };
        Cluster::with_profile(settings, profile, random)
    }

    pub(super) fn begin_by_hand(&mut self) {
        self.checks.borrow_mut().by_hand = Some(BTreeMap::new());
        self.keep_records();
    }

    /// Whether an event will happen without a further act.
    pub fn has_events(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The time of the next event, in virtual microseconds since the start.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Performs an act before the next event.
    ///
    /// # Errors
    /// The violation that it causes. An act that has no effect is no error: [`Cluster::may`] says why it has none.
    pub fn act(&mut self, act: Act) -> Result<(), String> {
        if self.may(act).is_err() {
            return Ok(());
        }
        self.note(|_| Happening::Nemesis(format!("{act:?}")));
        match act {
            Act::Crash(id) => self.lose_power(id),
            Act::Tear(id) => self.die(id, Down::Crash("power cut in the middle of a write"))?,
            Act::Kill(id) => self.down(id, Down::Kill("killed")),
            Act::Restart(id) => return self.start(id),
            Act::Pause(id) => self.node(id).paused_until = u64::MAX,
            Act::Resume(id) => self.resume(id),
            Act::Wipe(id) => self.empty(id),
            Act::Stop(id) => return self.tell_to_stop(id),
            Act::Cut(from, to) => _ = self.cuts.insert((from, to)),
            Act::Heal(from, to) => self.heal(from, to),
            Act::Delay(from, to, ms) => self.hands.on(from, to).late = ms * 1_000,
            Act::Lose(from, to) => self.lose(from, to),
            Act::Duplicate(from, to) => self.duplicate(from, to),
            Act::Disk(id, state) => self.set_disk(id, state),
            Act::Room(id, bytes) => {
                let disk = &self.node(id).disk;
                disk.set_capacity(disk.used().saturating_add(bytes));
            }
            Act::Clock(id, pace) => {
                let now = self.now;
                self.node(id).machine.set_pace(now, pace);
            }
            Act::FailSync(id) => self.node(id).disk.fail_sync_after(0),
            Act::Forget(id, entries) => self.node(id).loses_tail = entries,
            Act::Burst(id, key, count) => {
                (0..count).for_each(|_| self.request_by_hand(id, Ask::Set(key)));
            }
            Act::Lease(id) => self.request_by_hand(id, Ask::Lease(self.ops.len() as u64, 1)),
            Act::Write(id, key) => self.request_by_hand(id, Ask::Set(key)),
            Act::Read(id, key) => self.request_by_hand(id, Ask::Read(key)),
            Act::Add(id) => return self.ask_change(id, Change::Add(NodeId(self.next_node))),
            Act::Remove(id, out) => return self.ask_change(id, Change::Remove(out)),
            Act::Move(id, moves) => {
                self.node(moves).moves = true;
                return self.ask_change(id, Change::Move(moves));
            }
            Act::Watch(id) => return self.watch_at(id),
            Act::Intrude(id) => return self.intrude(id),
            Act::Accuse(id) => {
                let known = self.members_known_by(id);
                if let Some(by) = known.into_iter().find(|other| *other != id) {
                    return self.peers(id, PeerEvent::Removed { by });
                }
            }
            Act::Transfer(id, to) => {
                return self.step_engine(id, engine::Event::Transfer(Some(to)));
            }
        }
        Ok(())
    }

    /// Takes an event of a paused process out of the queue until the process continues.
    pub(super) fn hold_back_event(&mut self, event: Event) -> Option<Event> {
        let node = event.node().and_then(|id| self.nodes.get(&id));
        if node.is_none_or(|node| node.paused_until != u64::MAX) {
            return Some(event);
        }
        self.hands.held.push(event);
        None
    }

    fn lose_power(&mut self, id: NodeId) {
        self.node(id).disk.lose_all_unsynced(true);
        self.down(id, Down::Crash("power failure"));
        self.node(id).disk.lose_all_unsynced(false);
        self.let_go(id);
    }

    fn resume(&mut self, id: NodeId) {
        self.node(id).paused_until = 0;
        self.let_go(id);
    }

    /// Queues the held events of a process.
    fn let_go(&mut self, id: NodeId) {
        let held = std::mem::take(&mut self.hands.held);
        let (of_it, others) = held.into_iter().partition(|event| event.node() == Some(id));
        self.hands.held = others;
        let of_it: Vec<Event> = of_it;
        of_it.into_iter().for_each(|event| self.after(0, event));
    }

    fn empty(&mut self, id: NodeId) {
        if self.nodes[&id].life.is_some() {
            self.down(id, Down::Kill("killed"));
        }
        let seed = self.random.next();
        let node = self.node(id);
        node.disk = FaultyDisk::new(seed);
        node.identity = None;
        self.let_go(id);
        let mut checks = self.checks.borrow_mut();
        *checks.mirror(id) = Mirror::default();
        checks.lost_tail = true;
    }

    fn heal(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
        self.hands.links.remove(&(from, to));
    }

    /// The place in the queue of the message on this link that arrives first.
    fn first_on(&self, from: NodeId, to: NodeId) -> Option<(u64, u64)> {
        let is_on = |event: &Event| match event {
            Event::PeerMessage { from: a, to: b, .. } => (*a, *b) == (from, to),
            Event::Stream(stream) => (stream.from, stream.to) == (from, to),
            _ => false,
        };
        let mut queue = self.queue.iter();
        let found = queue.find(|(_, event)| is_on(event));
        found.map(|(at, _)| *at)
    }

    fn lose(&mut self, from: NodeId, to: NodeId) {
        match self.first_on(from, to) {
            Some(at) => drop(self.queue.remove(&at)),
            None => self.hands.on(from, to).lose += 1,
        }
    }

    fn duplicate(&mut self, from: NodeId, to: NodeId) {
        let first = self.first_on(from, to).and_then(|at| self.queue.get(&at));
        match first {
            Some(Event::PeerMessage { peer_message, .. }) if is_rafts(peer_message) => {
                let peer_message = peer_message.clone();
                let again = Event::PeerMessage {
                    from,
                    to,
                    peer_message,
                };
                self.after(TWICE_LATE, again);
            }
            _ => self.hands.on(from, to).twice += 1,
        }
    }

    /// Applies what a caller has done to a link to a message on it. Returns how much longer it takes.
    pub(super) fn by_hand_on(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) -> u64 {
        let Some(link) = self.hands.links.get_mut(&(from, to)) else {
            return 0;
        };
        let late = link.late;
        if link.twice > 0 && is_rafts(message) {
            link.twice -= 1;
            let peer_message = Box::new(message.clone());
            let again = Event::PeerMessage {
                from,
                to,
                peer_message,
            };
            self.after(self.profile.delay.0 + late + TWICE_LATE, again);
        }
        late
    }

    fn set_disk(&mut self, id: NodeId, state: DiskState) {
        let until = |is: bool| if is { NEVER } else { 0 };
        let node = self.node(id);
        node.slow_disk_until = until(state == DiskState::Slow);
        node.hung_disk_until = until(state == DiskState::Hung);
        let capacity = match state {
            DiskState::Full => node.disk.used(),
            _ => u64::MAX,
        };
        node.disk.set_capacity(capacity);
        if state != DiskState::Good && state != DiskState::Full {
            return;
        }
        // A job in progress ends soon.
        let late = TICK + self.now;
        let is_late = |at: u64, event: &Event| {
            at > late && matches!(event, Event::Disk { node, .. } if *node == id)
        };
        let mut queue = self.queue.iter();
        let found = queue.find(|((at, _), event)| is_late(*at, event));
        if let Some(event) = found
            .map(|(at, _)| *at)
            .and_then(|at| self.queue.remove(&at))
        {
            self.after(self.profile.sync.0, event);
        }
    }

    fn request_by_hand(&mut self, id: NodeId, ask: Ask) {
        let (number, client) = (self.ops.len() as u64, self.clients.len());
        self.ops.push(Op {
            client: client as u64,
            ask,
            called: self.now,
            returned: None,
            answer: None,
            maybe: false,
        });
        let mut asks = Client::new(client as u64);
        (asks.stays_with, asks.busy) = (Some(id), Some(number));
        self.clients.push(asks);
        self.after(self.profile.patience, Event::GiveUp { number });
        self.ask(number, self.profile.delay.0);
    }

    /// In a run by hand without one of these rules, the disk keeps its promises at the beginning of a job instead of its
    /// end. So there is a time in which a power failure does harm.
    pub(super) fn promise_early(&mut self, id: NodeId) -> Result<(), String> {
        if !self.is_by_hand() {
            return Ok(());
        }
        let without = self.settings.without;
        let Some(job) = self.life(id).and_then(|life| life.jobs.front_mut()) else {
            return Ok(());
        };
        match (job, without) {
            (Job::Save { then, .. }, Some(Rule::SyncBeforeSend)) => {
                let messages = std::mem::take(then);
                for (to, message) in messages {
                    self.send_stored(id, to, message);
                }
                Ok(())
            }
            (Job::Save { batch, .. }, Some(Rule::SyncBeforeReport)) => {
                let report = DiskReport::Stored(vec![jobs::stored(batch)]);
                self.report(id, report)
            }
            (Job::Install(installation), Some(Rule::InstallBeforeReport)) => {
                let position = installation.metadata.position;
                self.report(id, DiskReport::Installed(position))
            }
            _ => Ok(()),
        }
    }

    /// What [`Cluster::promise_early`] has not passed on of this report. The jobs that share the sync of the first one were
    /// not begun by themselves.
    pub(super) fn rest_of(&self, report: DiskReport) -> Option<DiskReport> {
        let is_early = |rule| self.is_by_hand() && self.is_without(rule);
        match report {
            DiskReport::Stored(batches) if is_early(Rule::SyncBeforeReport) => {
                (batches.len() > 1).then(|| DiskReport::Stored(batches[1..].to_vec()))
            }
            DiskReport::Installed(_) if is_early(Rule::InstallBeforeReport) => None,
            report => Some(report),
        }
    }

    /// The requests of clients so far. The number of a request is its position.
    pub fn requests(&self) -> &[Op] {
        &self.ops
    }

    /// Whether a caller chooses the faults of this run.
    pub(super) fn is_by_hand(&self) -> bool {
        self.profile.kind == Kind::ByHand
    }
}

fn is_rafts(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft { .. })
}
