//! A small cluster of cores, with disks and a network that act only on command.
//!
//! Nothing happens by itself. The messages of a step wait in `flights`, and the data that it wants to store waits in
//! its node's `queue`. So a test decides the order of all events, and a crash can lose exactly the data that was not
//! stored. After each step the node and the whole cluster are checked.

use edgetcd::raft::invariants::Witness;
use edgetcd::raft::{
    Change, ChangeKind, Core, Entry, Envelope, HardState, Input, LogIndex, Membership, Message,
    NodeId, Payload, Position, Role, Rules, Settings, SnapshotMetadata, Start, StoredLog, Term,
    Todo,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The data that one step wants to store, and the messages that may be sent after that.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub install: Option<SnapshotMetadata>,
    pub hard_state: Option<HardState>,
    pub append: Vec<Entry>,
    pub send: Vec<Envelope>,
}

/// The data that a restart finds.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: SnapshotMetadata,
    pub entries: Vec<Entry>,
}

impl Disk {
    fn store(&mut self, batch: &Batch) {
        if let Some(metadata) = &batch.install {
            self.snapshot = metadata.clone();
            self.entries.clear();
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = batch.append.first() {
            self.entries
                .retain(|entry| entry.position.index < first.position.index);
            self.entries.extend(batch.append.iter().cloned());
        }
    }

    fn compact(&mut self, metadata: SnapshotMetadata) {
        self.entries
            .retain(|entry| entry.position.index > metadata.position.index);
        self.snapshot = metadata;
    }

    /// Whether the entry at `position` would survive a crash.
    fn has(&self, position: Position) -> bool {
        position.index <= self.snapshot.position.index
            || self.entries.iter().any(|entry| entry.position == position)
    }

    /// The start data of a core: the end of the log, with up to `memory_bytes` of it in memory.
    fn start(&self, memory_bytes: usize) -> Start {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for Position { index, term } in self.entries.iter().map(|entry| entry.position) {
            if terms.last().is_none_or(|run| run.1 != term) {
                terms.push((index, term));
            }
        }
        let mut left = memory_bytes;
        let tail = self.entries.iter().rev().take_while(|entry| {
            let fits = entry.bytes_in_memory() <= left;
            left = left.saturating_sub(entry.bytes_in_memory());
            fits
        });
        let tail = self.entries.len() - tail.count();
        let change = |entry: &&Entry| matches!(entry.payload, Payload::Change(_));
        Start {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log: StoredLog {
                terms,
                last: self
                    .entries
                    .last()
                    .map_or(self.snapshot.position, |e| e.position)
                    .index,
                changes: self.entries.iter().filter(change).cloned().collect(),
                tail: self.entries[tail..].to_vec(),
            },
        }
    }
}

/// One node: its core (None while it is down), its disk, and the queue of the disk.
#[derive(Debug)]
pub struct Node<R: Rules> {
    pub core: Option<Core<R>>,
    pub disk: Disk,
    pub queue: VecDeque<Batch>,
    pub settings: Settings,
    /// Entries requested with `Todo::read` and not delivered yet.
    pub reading: Option<(LogIndex, LogIndex)>,
}

/// A message in transit.
#[derive(Debug, Clone)]
pub struct Flight {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

/// A snapshot in transit: the state that its sender had applied when it was requested.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub from: NodeId,
    pub to: NodeId,
    pub term: Term,
    pub metadata: SnapshotMetadata,
}

/// An effect of a step, for transcripts.
#[derive(Debug)]
pub enum Effect {
    Sent {
        flight: Flight,
        lost: bool,
    },
    Done {
        node: NodeId,
        todo: Box<Todo>,
        role: Role,
        term: Term,
        commit: LogIndex,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Cluster<R: Rules> {
    pub nodes: BTreeMap<NodeId, Node<R>>,
    pub flights: Vec<Flight>,
    /// One-way links that lose everything.
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    /// Snapshots in transit.
    pub snapshots: Vec<Snapshot>,
    pub witness: Witness,
    /// For each read, the highest commit of any node when the read was requested.
    reads: BTreeMap<u64, LogIndex>,
    pub effects: Vec<Effect>,
    /// Whether to keep `effects`.
    pub tracing: bool,
}

pub type Outcome = Result<(), String>;

impl<R: Rules> Cluster<R> {
    pub fn new() -> Cluster<R> {
        Cluster {
            nodes: BTreeMap::new(),
            flights: Vec::new(),
            cuts: BTreeSet::new(),
            snapshots: Vec::new(),
            witness: Witness::default(),
            reads: BTreeMap::new(),
            effects: Vec::new(),
            tracing: false,
        }
    }

    /// Adds a node that is down, with an empty disk that contains `members`.
    pub fn add(&mut self, settings: Settings, members: Membership) {
        let disk = Disk {
            snapshot: SnapshotMetadata {
                membership: members,
                ..SnapshotMetadata::default()
            },
            ..Disk::default()
        };
        let id = settings.id;
        let node = Node {
            core: None,
            disk,
            queue: VecDeque::new(),
            settings,
            reading: None,
        };
        self.nodes.insert(id, node);
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node<R> {
        self.nodes
            .get_mut(&id)
            .unwrap_or_else(|| panic!("no node {id:?}"))
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn up(&self) -> impl Iterator<Item = &Core<R>> {
        self.nodes.values().filter_map(|node| node.core.as_ref())
    }

    /// The leader with the newest term.
    pub fn leader(&self) -> Option<NodeId> {
        self.up()
            .filter(|core| core.is_leader())
            .max_by_key(|core| core.term())
            .map(Core::id)
    }

    pub fn start(&mut self, id: NodeId) -> Outcome {
        let node = self.node(id);
        let start = node.disk.start(node.settings.memory_bytes);
        node.core = Some(Core::with_rules(node.settings.clone(), start));
        self.step(id, Input::Start)
    }

    /// Stops the node. Of the batches in its disk queue, the first `kept` were stored.
    pub fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.node(id);
        let queue = std::mem::take(&mut node.queue);
        queue
            .iter()
            .take(kept)
            .for_each(|batch| node.disk.store(batch));
        node.core = None;
        node.reading = None;
        self.snapshots.retain(|snapshot| snapshot.from != id);
    }

    /// Steps a node that is up, performs its effects, and checks everything.
    pub fn step(&mut self, id: NodeId, input: Input) -> Outcome {
        let Some(core) = &mut self.node(id).core else {
            return Ok(());
        };
        let (commit, membership) = (core.commit(), core.membership().clone());
        let todo = core.step(input);
        let advanced = core.is_leader() && core.commit() > commit;
        let core = self.nodes[&id].core.as_ref().expect("it has just stepped");
        self.witness.see(core, &todo)?;
        if advanced {
            self.check_majority(core, &membership)?;
        }
        self.check_reads(&todo)?;
        self.carry_out(id, todo);
        Ok(())
    }

    /// Checks that an entry that a leader commits would survive a crash of every node. `before` was the membership
    /// when the step began. The step may have begun another membership: by promoting a learner that does not have the
    /// entry yet, or by a removal that lowers the majority. A majority of either membership is enough, because it
    /// overlaps with each majority of the other.
    fn check_majority(&self, leader: &Core<R>, before: &Membership) -> Outcome {
        let position = leader
            .position_at(leader.commit())
            .expect("a leader knows its commit");
        let has = |id: &&NodeId| {
            self.nodes
                .get(id)
                .is_some_and(|node| node.disk.has(position))
        };
        let is_stored = |membership: &Membership| {
            membership.voters.iter().filter(has).count() >= membership.majority()
        };
        if is_stored(before) || is_stored(leader.membership()) {
            return Ok(());
        }
        let voters = &before.voters;
        let stored: Vec<_> = voters.iter().filter(has).collect();
        Err(format!(
            "durability: {position} is committed, {stored:?} of {voters:?} have stored it"
        ))
    }

    /// Checks that a read is not older than the commit when it was requested.
    fn check_reads(&self, todo: &Todo) -> Outcome {
        for (id, index) in &todo.reads {
            let least = self.reads.get(id).copied().unwrap_or_default();
            if *index < least {
                return Err(format!(
                    "stale read: {index:?}, committed before it was asked: {least:?}"
                ));
            }
        }
        Ok(())
    }

    /// Requests a read, and records the minimum index of its result.
    pub fn read(&mut self, node: NodeId, id: u64) -> Outcome {
        self.reads.insert(id, self.witness.committed());
        self.step(node, Input::ReadIndex { id })
    }

    fn carry_out(&mut self, id: NodeId, mut todo: Todo) {
        let batch = Batch {
            install: todo.install.clone(),
            hard_state: todo.hard_state,
            append: todo.append.clone(),
            send: std::mem::take(&mut todo.send_stored),
        };
        let node = self.node(id);
        if batch.install.is_some() {
            // Entries that were read from the old log are no longer valid.
            node.reading = None;
        }
        node.reading = todo.read.or(node.reading);
        let wanted = batch.install.is_some() || batch.hard_state.is_some();
        if wanted || !batch.append.is_empty() || !batch.send.is_empty() {
            node.queue.push_back(batch);
        }
        for to in todo.send_snapshot.iter().copied() {
            let core = self.nodes[&id].core.as_ref().expect("it has just stepped");
            let metadata = core
                .metadata_at(core.applied())
                .expect("the applied state is known");
            self.snapshots.push(Snapshot {
                from: id,
                to,
                term: core.term(),
                metadata,
            });
        }
        let sent = std::mem::take(&mut todo.send_now);
        if self.tracing {
            let core = self.nodes[&id].core.as_ref().expect("it has just stepped");
            let (role, term, commit) = (core.role(), core.term(), core.commit());
            self.effects.push(Effect::Done {
                node: id,
                todo: Box::new(todo),
                role,
                term,
                commit,
            });
        }
        self.send(id, sent);
    }

    fn send(&mut self, from: NodeId, envelopes: Vec<Envelope>) {
        for Envelope { to, message } in envelopes {
            let flight = Flight { from, to, message };
            let lost = self.cuts.contains(&(from, to));
            if self.tracing {
                self.effects.push(Effect::Sent {
                    flight: flight.clone(),
                    lost,
                });
            }
            if !lost {
                self.flights.push(flight);
            }
        }
    }

    /// Stores the oldest batch of a node. Returns false if there is none.
    pub fn store(&mut self, id: NodeId) -> Result<bool, String> {
        let node = self.node(id);
        let Some(batch) = node.queue.pop_front() else {
            return Ok(false);
        };
        node.disk.store(&batch);
        let installed = batch.install.as_ref().map(|metadata| metadata.position);
        let stored = batch
            .append
            .last()
            .map(|entry| entry.position)
            .or(installed);
        self.send(id, batch.send);
        if let Some(hard_state) = batch.hard_state {
            self.step(id, Input::HardStateStored { hard_state })?;
        }
        if let Some(position) = stored {
            self.step(id, Input::Stored { position })?;
        }
        Ok(true)
    }

    /// Delivers a batch of the entries that a node wants to read back.
    pub fn read_back(&mut self, id: NodeId) -> Result<bool, String> {
        let node = self.node(id);
        let Some((first, last)) = node.reading.take() else {
            return Ok(false);
        };
        let mut left = node.settings.batch_bytes;
        let wanted = node
            .disk
            .entries
            .iter()
            .filter(|entry| entry.position.index >= first && entry.position.index <= last);
        let entries: Vec<Entry> = (wanted.take_while(|entry| {
            let fits = left > 0;
            left = left.saturating_sub(entry.bytes_in_memory());
            fits
        }))
        .cloned()
        .collect();
        self.step(id, Input::Read { entries })?;
        Ok(true)
    }

    /// Delivers the message at `at` in `flights`.
    pub fn deliver(&mut self, at: usize) -> Outcome {
        let Flight { from, to, message } = self.flights.remove(at);
        if self.cuts.contains(&(from, to)) || !self.nodes.contains_key(&to) {
            return Ok(());
        }
        self.step(to, Input::Message { from, message })
    }

    /// Delivers the snapshot at `at` if sender and receiver are up and connected. Reports the result to the sender.
    pub fn deliver_snapshot(&mut self, at: usize) -> Outcome {
        let Snapshot {
            from,
            to,
            term,
            metadata,
        } = self.snapshots.remove(at);
        let up = self.nodes.get(&to).is_some_and(|node| node.core.is_some());
        if !up || self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from)) {
            return self.step(
                from,
                Input::SnapshotSent {
                    to,
                    installed: None,
                },
            );
        }
        let installed = Some(metadata.position);
        self.step(
            to,
            Input::Snapshot {
                from,
                term,
                metadata,
            },
        )?;
        while self.store(to)? {}
        self.step(from, Input::SnapshotSent { to, installed })
    }

    /// Makes a snapshot of the node's applied state and truncates its log.
    pub fn compact(&mut self, id: NodeId) -> Outcome {
        let node = self.node(id);
        let Some(core) = &node.core else {
            return Ok(());
        };
        // Finish the installation of a snapshot first.
        if node.queue.iter().any(|batch| batch.install.is_some()) {
            return Ok(());
        }
        let metadata = core
            .metadata_at(core.applied())
            .expect("the applied state is known");
        if metadata.position.index <= node.disk.snapshot.position.index {
            return Ok(());
        }
        node.disk.compact(metadata.clone());
        self.step(id, Input::Compacted { metadata })
    }

    /// Stores, delivers and reads until nothing is left to do. Does not tick.
    pub fn settle(&mut self) -> Outcome {
        for _ in 0..100_000 {
            let mut busy = false;
            for id in self.ids() {
                busy |= self.store(id)? | self.read_back(id)?;
            }
            if !self.flights.is_empty() {
                self.deliver(0)?;
                busy = true;
            }
            if !self.snapshots.is_empty() {
                self.deliver_snapshot(0)?;
                busy = true;
            }
            if !busy {
                return Ok(());
            }
        }
        Err("liveness: the cluster never settles".into())
    }

    /// Ticks every node once.
    pub fn tick(&mut self) -> Outcome {
        self.ids()
            .into_iter()
            .try_for_each(|id| self.step(id, Input::Tick))
    }
}

pub fn members(voters: &[NodeId]) -> Membership {
    Membership {
        voters: voters.iter().copied().collect(),
        learners: BTreeSet::new(),
    }
}

pub fn change(kind: ChangeKind, node: NodeId) -> Input {
    Input::ProposeChange {
        change: Change {
            kind,
            node,
            context: [].into(),
        },
    }
}
