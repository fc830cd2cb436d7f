//! The cluster and its scheduler: a queue of events in virtual time, and the effect of each event.
//!
//! Everything that happens is an event with a time. The scheduler takes the earliest event. Of two events with the same
//! time, it takes the one that was queued first. Only events advance time, and all random numbers come from one
//! generator. So the same seed gives the same run, event for event.

use super::any_engine::Keeping;
use super::by_node::ByNode;
use super::checks::{Broken, Checks};
use super::client::{Answer, Client, Op};
use super::clock::Machine;
use super::desk::Change;
use super::fault_profile::{FaultProfile, Handovers, Kind, Scenario, TICK};
use super::node::{Node, member};
use super::records::RunRecord;
use super::trace::{Happening, Line};
use crate::engine::PeerEvent;
use crate::engine::members::Members;
use crate::engine::peer_message::PeerMessage;
use crate::engine::rules::Rule;
use crate::raft::{NodeId, Position, Refusal, SnapshotMetadata, Term};
use crate::random::Random;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

pub(super) type Checked = Result<(), Broken>;

/// The settings of a run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The same seed gives the same run.
    pub seed: u64,
    /// Number of initial nodes.
    pub nodes: u64,
    /// The kind of the run. `None`: the seed selects it.
    pub kind: Option<Kind>,
    /// The rules that the cores keep.
    pub keeping: Keeping,
    /// The rule that is switched off in engines, disks and links.
    pub without: Option<Rule>,
    /// Whether to keep a trace.
    pub tracing: bool,
}

/// An event in the queue.
pub(super) enum Event {
    Tick {
        node: NodeId,
        life: u64,
    },
    PeerMessage {
        from: NodeId,
        to: NodeId,
        peer_message: Box<PeerMessage>,
    },
    Peers {
        node: NodeId,
        event: Box<PeerEvent>,
    },
    Stream(Box<Stream>),
    StreamEnd {
        at: NodeId,
        to: NodeId,
        stream: u64,
        installed: Option<Position>,
    },
    Disk {
        node: NodeId,
        life: u64,
    },
    DiskRetry {
        node: NodeId,
        life: u64,
    },
    Written {
        node: NodeId,
        life: u64,
    },
    Start {
        node: NodeId,
    },
    Call {
        client: usize,
    },
    Request {
        number: u64,
        node: NodeId,
    },
    Answer {
        number: u64,
        answer: Answer,
    },
    GiveUp {
        number: u64,
    },
    Hasty {
        node: NodeId,
    },
    Watch {
        watcher: usize,
    },
    Register {
        watcher: usize,
        at: NodeId,
        life: u64,
    },
    Publish {
        node: NodeId,
        life: u64,
    },
    Operator,
    Stranger,
    Nemesis,
    Mend,
}

/// A snapshot on its way.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub from: NodeId,
    pub to: NodeId,
    pub stream: u64,
    pub term: Term,
    pub metadata: SnapshotMetadata,
    pub bytes: Arc<Vec<u8>>,
}

impl Event {
    /// The node of the event, if it has one.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Event::Tick { node, .. }
            | Event::Disk { node, .. }
            | Event::DiskRetry { node, .. }
            | Event::Peers { node, .. }
            | Event::Written { node, .. }
            | Event::Publish { node, .. }
            | Event::Start { node }
            | Event::Request { node, .. } => Some(*node),
            Event::PeerMessage { to, .. } => Some(*to),
            Event::Stream(stream) => Some(stream.to),
            Event::StreamEnd { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// A simulated cluster; see the module documentation.
pub struct Cluster {
    pub(super) settings: Settings,
    pub(super) profile: FaultProfile,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) queue: BTreeMap<(u64, u64), Event>,
    ordered: u64,
    pub(super) nodes: ByNode<Node>,
    pub(super) cuts: BTreeSet<(NodeId, NodeId)>,
    /// What a caller does to links ([`Cluster::by_hand`]); empty in all other runs.
    pub(super) hands: super::by_hand::Hands,
    pub(super) clients: Vec<Client>,
    pub(super) ops: Vec<Op>,
    pub(super) checks: Rc<RefCell<Checks>>,
    /// The reason if the core that stepped last refused its input.
    pub(super) refused: Option<Refusal>,
    /// Requested membership changes without a reply yet.
    pub(super) changes: BTreeMap<u64, Change>,
    pub(super) last_change: u64,
    pub(super) watchers: Vec<super::watchers::Watcher>,
    pub(super) streams: u64,
    pub(super) next_node: u64,
    /// The member whose data directory was emptied, until another one has replaced it.
    pub(super) wiped: Option<super::wiped::Wiped>,
    /// A message that a member has sent lately. A stranger may send it again, altered.
    pub(super) overheard: Option<PeerMessage>,
    /// When all faults ended.
    pub(super) repaired: Option<u64>,
    /// Whether clients still begin new operations.
    pub(super) open: bool,
    pub(super) scenario: super::scenario::Progress,
    pub(super) plan: super::adversary::Progress,
    pub(super) handovers: super::handover::Progress,
    /// Number of processed events.
    pub(super) events: u64,
    trace: Vec<Line>,
    /// The engines' records, if the run keeps them.
    pub(super) records: Option<Vec<RunRecord>>,
}

impl Cluster {
    /// A cluster of new nodes that are about to start.
    pub fn new(settings: Settings) -> Cluster {
        let mut random = Random::spread(settings.seed);
        let profile = FaultProfile::of(&mut random, settings.kind);
        Cluster::with_profile(settings, profile, random)
    }

    /// A cluster whose leader transfers its leadership `times` times while clients write.
    pub fn handing_over(settings: Settings, times: u64, how: Handovers) -> Cluster {
        let mut random = Random::spread(settings.seed);
        let profile = FaultProfile::of_handovers(how, &mut random);
        let mut cluster = Cluster::with_profile(settings, profile, random);
        cluster.hand_over_often(times);
        cluster
    }

    pub(super) fn with_profile(
        settings: Settings,
        profile: FaultProfile,
        random: Random,
    ) -> Cluster {
        let mut cluster = Cluster {
            settings,
            clients: (0..profile.clients).map(Client::new).collect(),
            profile,
            random,
            now: 0,
            queue: BTreeMap::new(),
            ordered: 0,
            nodes: ByNode::default(),
            cuts: BTreeSet::new(),
            hands: super::by_hand::Hands::default(),
            ops: Vec::new(),
            checks: Rc::default(),
            refused: None,
            changes: BTreeMap::new(),
            last_change: 0,
            watchers: Vec::new(),
            streams: 0,
            next_node: settings.nodes + 1,
            wiped: None,
            overheard: None,
            repaired: None,
            open: true,
            scenario: super::scenario::Progress::default(),
            plan: super::adversary::Progress::default(),
            handovers: super::handover::Progress::default(),
            events: 0,
            trace: Vec::new(),
            records: None,
        };
        cluster.checks.borrow_mut().memory_max = super::power::memory_max(&cluster.profile);
        cluster.note(|cluster| Happening::FaultProfile(Box::new(cluster.profile.clone())));
        let all = (1..=settings.nodes).map(NodeId);
        let founders = Members::new(1, all.clone().map(member));
        all.for_each(|id| cluster.add_node(id, Some(founders.clone())));
        for client in 0..cluster.clients.len() {
            let wait = cluster.random.below(TICK * 20);
            cluster.after(wait, Event::Call { client });
        }
        if cluster.profile.kind == Kind::ByHand {
            cluster.begin_by_hand();
            return cluster;
        }
        let storm = cluster.profile.storm;
        cluster.after(storm, Event::Mend);
        cluster.begin_watchers();
        cluster.begin_nemesis();
        cluster.begin_strangers();
        cluster
    }

    pub(super) fn add_node(&mut self, id: NodeId, initial_cluster: Option<Members>) {
        let seed = self.random.next();
        let machine = Machine::new(&mut self.random);
        let mut node = Node::new(id, seed, machine, initial_cluster);
        if self.profile.kind == Kind::Scenario(Scenario::Learner) && node.initial_cluster.is_none()
        {
            node.slow_disk_until = u64::MAX;
        }
        self.nodes.insert(id, node);
        let wait = self.random.below(TICK);
        self.after(wait, Event::Start { node: id });
    }

    /// The trace so far, if the settings request one.
    pub fn trace(&self) -> &[Line] {
        &self.trace
    }

    /// The fault profile of its seed.
    pub fn kind(&self) -> Kind {
        self.profile.kind
    }

    /// Number of events processed so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Number of committed entries.
    pub fn committed(&self) -> u64 {
        self.checks.borrow().committed().0
    }

    /// Virtual microseconds since the start.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Runs to the end: the faults, the recovery, and the final checks.
    ///
    /// # Errors
    /// The violation, in one line. A violation that a core detects itself is a panic.
    pub fn run(&mut self) -> Result<(), String> {
        while !self.has_settled()? {
            self.step()?;
        }
        self.check_history()
    }

    /// Processes the next event.
    ///
    /// # Errors
    /// The violation that it caused.
    pub fn step(&mut self) -> Result<(), String> {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return Err("nothing will ever happen again".into());
        };
        self.now = time;
        self.checks.borrow_mut().now = time;
        self.events += 1;
        let Some(event) = self.hold_back_event(event) else {
            return Ok(());
        };
        let paused = event.node().and_then(|id| self.nodes.get(&id));
        match paused.map(|node| node.paused_until) {
            Some(until) if until > time => {
                let again = self.random.below(1000);
                self.after(until - time + again, event);
                Ok(())
            }
            _ => {
                self.take(event)?;
                self.adversary()?;
                self.go_on_handing_over()
            }
        }
    }

    fn take(&mut self, event: Event) -> Checked {
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::PeerMessage {
                from,
                to,
                peer_message,
            } => self.deliver(from, to, *peer_message),
            Event::Peers { node, event } => self.peers(node, *event),
            Event::Stream(stream) => self.receive_snapshot(*stream),
            Event::StreamEnd {
                at,
                to,
                stream,
                installed,
            } => self.snapshot_sent(at, to, stream, installed),
            Event::Disk { node, life } => self.disk_done(node, life),
            Event::DiskRetry { node, life } => self.retry_disk(node, life),
            Event::Written { node, life } => self.snapshot_written(node, life),
            Event::Start { node } => self.start(node),
            Event::Call { client } => self.call(client),
            Event::Request { number, node } => self.request(number, node),
            Event::Answer { number, answer } => self.answered(number, answer),
            Event::GiveUp { number } => self.give_up(number),
            Event::Hasty { node } => self.hasty(node),
            Event::Watch { watcher } => self.watch(watcher),
            Event::Register { watcher, at, life } => {
                self.register_late(watcher, at, life);
                Ok(())
            }
            Event::Publish { node, life } => self.publish_identity(node, life),
            Event::Operator => self.operator(),
            Event::Stranger => self.stranger(),
            Event::Nemesis => self.nemesis(),
            Event::Mend => self.mend(),
        }
    }

    pub(super) fn after(&mut self, wait: u64, event: Event) {
        self.ordered += 1;
        self.queue.insert((self.now + wait, self.ordered), event);
    }

    pub(super) fn note(&mut self, what: impl FnOnce(&Cluster) -> Happening) {
        if self.settings.tracing {
            let (at, what) = (self.now, what(self));
            self.trace.push(Line { at, what });
        }
    }

    pub(super) fn is_without(&self, rule: Rule) -> bool {
        self.settings.without == Some(rule)
    }

    pub(super) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(&id)
            .unwrap_or_else(|| panic!("no node {id:?}"))
    }

    /// The node that leads in the newest term, if it runs.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leading = self.nodes.values().filter_map(|node| {
            let engine = &node.life.as_ref()?.engine;
            engine.is_leader().then(|| (engine.term(), node.id))
        });
        leading.max().map(|(_, id)| id)
    }

    /// Nodes whose process runs.
    pub(super) fn up(&self) -> Vec<NodeId> {
        let up = self.nodes.values().filter(|node| node.life.is_some());
        up.map(|node| node.id).collect()
    }

    /// Whether the link is cut now.
    pub(super) fn loses(&mut self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cuts.contains(&(from, to));
        let dropped = self.repaired.is_none() && self.random.one_in(self.profile.drop_one_in);
        cut || dropped || !self.nodes.contains_key(&to)
    }

    pub(super) fn delay(&mut self) -> u64 {
        let mut delay = self.random.within(self.profile.delay);
        if self.repaired.is_none() && self.random.one_in(self.profile.late_one_in) {
            delay += self.random.within(self.profile.late);
        }
        delay
    }
}
