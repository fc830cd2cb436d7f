//! Runs without random faults: the caller chooses every fault, request and change of the members ([`Act`]).
//!
//! The lab ([`crate::lab`]) uses this. A run is determined by its settings and by the acts, each between two events. Only
//! harm is a violation here, such as two leaders of a term or a lost write. Other runs also report a promise that precedes
//! its sync. Here such a promise must first do harm, because a person wants to see the harm.

use super::client::{Ask, Client, Op};
use super::cluster::{Cluster, Event, Settings};
use super::desk::Change;
use super::fault_profile::{FaultProfile, Kind, TICK};
use super::mirror::Mirror;
use super::nemesis::GUESTS;
use super::power::Down;
use super::trace::Happening;
use crate::engine;
use crate::engine::peer_message::PeerMessage;
use crate::raft::NodeId;
use crate::random::Random;
use crate::wal::FaultyDisk;
use std::collections::BTreeMap;

/// An act of the person who drives a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The power of this machine fails. All bytes that are not synced are lost.
    Crash(NodeId),
    /// The power fails in the middle of a write: any part of the bytes that are not synced is lost.
    Tear(NodeId),
    /// The process is killed. The machine continues, so no byte is lost.
    Kill(NodeId),
    /// Starts the process again from its disk.
    Restart(NodeId),
    /// Stops the process as SIGSTOP does. Everything for it waits.
    Pause(NodeId),
    /// Continues a paused process.
    Resume(NodeId),
    /// Kills the process and empties the data directory.
    Wipe(NodeId),
    /// The member receives the order to stop, as by SIGTERM.
    Stop(NodeId),
    /// Messages of the first member to the second are lost.
    Cut(NodeId, NodeId),
    /// Ends the cut and the delay in this direction.
    Heal(NodeId, NodeId),
    /// Messages in this direction take this many milliseconds longer.
    Delay(NodeId, NodeId, u64),
    /// Loses the message of this direction that would arrive first, or else the next that is sent.
    Lose(NodeId, NodeId),
    /// Duplicates that message. Only raft's messages are duplicated.
    Duplicate(NodeId, NodeId),
    /// Changes the state of a disk.
    Disk(NodeId, DiskState),
    /// A client asks this member to set `/kN` to a new value.
    Write(NodeId, u64),
    /// A client asks this member for a quorum read of `/kN`.
    Read(NodeId, u64),
    /// Asks this member to add the next new member.
    Add(NodeId),
    /// Asks the first member to remove the second.
    Remove(NodeId, NodeId),
    /// Asks a leader to transfer its leadership to the second member.
    Transfer(NodeId, NodeId),
}

/// How a disk works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// A sync takes a millisecond.
    Good,
    /// A sync takes 100 milliseconds.
    Slow,
    /// No sync ends.
    Hung,
    /// No byte more can be written.
    Full,
}

/// How long a hung disk takes. It is never reached.
const NEVER: u64 = 1 << 50;
/// What a duplicate takes longer.
const TWICE_LATE: u64 = 5_000;
/// Number of keys that an act can name.
const KEYS: u64 = 8;
/// The longest delay of a link, in milliseconds.
const DELAY_MS_MAX: u64 = 10_000;

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
    /// A cluster without random faults, clients and watchers. The seed decides the election timeouts.
    pub fn by_hand(settings: Settings) -> Cluster {
        let random = Random::spread(settings.seed);
        Cluster::with_profile(settings, FaultProfile::by_hand(), random)
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
            Act::Write(id, key) => self.request_by_hand(id, Ask::Set(key)),
            Act::Read(id, key) => self.request_by_hand(id, Ask::Read(key)),
            Act::Add(id) => return self.ask_change(id, Change::Add(NodeId(self.next_node))),
            Act::Remove(id, out) => return self.ask_change(id, Change::Remove(out)),
            Act::Transfer(id, to) => {
                return self.step_engine(id, engine::Event::Transfer(Some(to)));
            }
        }
        Ok(())
    }

    /// Whether an act has an effect now.
    ///
    /// # Errors
    /// Why it has none.
    pub fn may(&self, act: Act) -> Result<(), String> {
        let known = |id: NodeId| match self.nodes.get(&id) {
            Some(node) => Ok(node),
            None => Err(format!("there is no member {}", id.0)),
        };
        let runs = |id: NodeId| match known(id)?.life.is_some() {
            true => Ok(()),
            false => Err(format!("n{} does not run", id.0)),
        };
        let key = |key: u64| match key < KEYS {
            true => Ok(()),
            false => Err(format!("keys are k0 to k{}, not k{key}", KEYS - 1)),
        };
        match act {
            Act::Restart(id) => {
                let node = known(id)?;
                let is_paused = node.paused_until == u64::MAX;
                match (node.life.is_some(), node.retired) {
                    (true, _) if is_paused => Err(format!("n{} is paused: resume it", id.0)),
                    (true, _) => Err(format!("n{} runs already", id.0)),
                    (_, true) => Err(format!("n{} was removed, or has lost its data", id.0)),
                    _ => Ok(()),
                }
            }
            Act::Wipe(id) => known(id).map(drop),
            Act::Crash(id) | Act::Tear(id) | Act::Kill(id) | Act::Pause(id) => runs(id),
            Act::Resume(id) if known(id)?.paused_until != u64::MAX => {
                Err(format!("n{} is not paused", id.0))
            }
            Act::Resume(id) | Act::Stop(id) | Act::Transfer(id, _) => runs(id),
            Act::Disk(id, _) => known(id).map(drop),
            Act::Write(id, name) | Act::Read(id, name) => known(id).and(key(name)),
            Act::Add(id) if self.next_node > self.settings.nodes + GUESTS => {
                Err(format!("n{} cannot add more than {GUESTS}", id.0))
            }
            Act::Add(id) => runs(id),
            Act::Remove(id, out) => known(out).and(runs(id)),
            Act::Delay(_, _, ms) if ms > DELAY_MS_MAX => {
                Err(format!("{ms} ms is more than {DELAY_MS_MAX}"))
            }
            Act::Cut(from, to)
            | Act::Heal(from, to)
            | Act::Delay(from, to, _)
            | Act::Lose(from, to)
            | Act::Duplicate(from, to) => match from == to {
                true => Err(format!("n{} has no link to itself", from.0)),
                false => known(from).and(known(to)).map(drop),
            },
        }
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
