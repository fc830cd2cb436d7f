//! The checks after every step (hazards.md, section D), from outside the nodes.
//!
//! raft's own [`Witness`] finds two leaders in a term, logs that do not match, two different entries applied at one
//! index, and a leader without a committed entry. The checks here also need the disk, the state machine or the clients:
//!
//! - A message is sent only after the disk has stored what it promises.
//! - Committed entries are on the disks of a majority.
//! - States are equal at equal indexes.
//! - Each write is applied at most once.
//! - Keys expire at their deadline or later.
//! - A leader's time never decreases.
//! - The entries in memory have a limited size.
//!
//! The engines report each step of their cores and each entry that they apply, so the checks also see events within one
//! step of an engine. The first violation is kept until the cluster asks for it.

use super::by_node::ByNode;
use super::clock::TTL_SECOND;
use super::mirror::Mirror;
use crate::engine::entry::{self, Command};
use crate::engine::peer_message::PeerMessage;
use crate::engine::state::{Outcome, State};
use crate::raft::invariants::Witness;
use crate::raft::{
    Body, ChangeKind, Core, Entry, LogIndex, Membership, Message, NodeId, Payload, Position,
    Refusal, Rules, Term, Todo,
};
use crate::tree::{self, Applied, ClusterTime, TreeIndex};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// A description of a violation, in one line.
pub(super) type Broken = String;

/// The state of a core that is compared before and after a step.
#[derive(Clone, Copy)]
struct Look {
    hard_state: crate::raft::HardState,
    leading: bool,
    commit: LogIndex,
    applied: LogIndex,
    last: Position,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Look {
            hard_state,
            leading,
            commit,
            applied,
            last,
        } = self;
        let leading = if *leading { ", leader" } else { "" };
        write!(
            f,
            "({hard_state:?}{leading}, committed {}, applied {}, log to {last})",
            commit.0, applied.0
        )
    }
}

impl Look {
    fn at<R: Rules>(core: &Core<R>) -> Look {
        Look {
            hard_state: core.hard_state(),
            leading: core.is_leader(),
            commit: core.commit(),
            applied: core.applied(),
            last: core.last_position(),
        }
    }
}

/// Facts about the last step of an engine, for the cluster.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The node was elected in this term.
    pub leads: Option<Term>,
    /// The first and the last entry that the node has applied.
    pub applied: Option<(Position, Position)>,
    /// The reason if its core refused an input.
    pub refused: Option<Refusal>,
    /// A follower lacks an entry that it had acknowledged.
    pub lost_tail: bool,
}

/// The facts about one node.
#[derive(Debug, Default)]
struct Facts {
    look: Option<Look>,
    /// The membership, if it leads.
    membership: Option<Membership>,
    mirror: Mirror,
    /// The last entry that it has applied, from its log or from a snapshot.
    applied: Position,
    /// The time that it has stamped last as a leader, with its term.
    stamp: Option<(Term, ClusterTime)>,
}

/// The facts of the whole run so far.
#[derive(Default)]
pub(super) struct Checks {
    witness: Witness,
    nodes: ByNode<Facts>,
    /// The state at each applied index, from the first node that applied it.
    states: BTreeMap<LogIndex, (TreeIndex, ClusterTime, Option<u64>)>,
    /// Where each client's write was applied.
    writes: BTreeMap<u64, LogIndex>,
    /// The events in published views, by index.
    events: BTreeMap<u64, u64>,
    /// Virtual time, as of this step.
    pub now: u64,
    /// Most bytes of entries that a core may have in memory.
    pub memory_max: usize,
    /// When the keys with a TTL are due at the earliest, by the write; where clocks are true.
    pub leases: BTreeMap<u64, u64>,
    /// A disk has lost entries that it had confirmed. So committed entries may be on fewer disks than before.
    pub lost_tail: bool,
    /// Members whose removal is committed.
    pub removed: BTreeSet<NodeId>,
    pub shown: Shown,
    /// In a run by hand, what every entry is, by its position. None in other runs. In a run by hand, only harm counts as a
    /// violation: what clients lose, and states that the protocol excludes. A promise that comes too early is not
    /// reported, so that its consequences can be seen.
    pub by_hand: Option<BTreeMap<Position, String>>,
    broken: Option<Broken>,
}

impl Checks {
    pub fn mirror(&mut self, id: NodeId) -> &mut Mirror {
        &mut self.nodes.or_default(id).mirror
    }

    /// The highest index that any node has applied.
    pub fn committed(&self) -> LogIndex {
        self.witness.committed()
    }

    /// The last entry that a node has applied, from its log or from a snapshot.
    pub fn applied_by(&self, id: NodeId) -> Position {
        self.nodes
            .get(&id)
            .map_or(Position::default(), |node| node.applied)
    }

    /// Where a client's write was applied, if any node has.
    pub fn write(&self, number: u64) -> Option<LogIndex> {
        self.writes.get(&number).copied()
    }

    /// A process begins from this snapshot.
    pub fn begins(&mut self, id: NodeId, snapshot: Position) {
        let node = self.nodes.or_default(id);
        (node.look, node.stamp) = (None, None);
        node.applied = snapshot;
    }

    /// A process continues from a snapshot.
    pub fn goes_on(&mut self, id: NodeId, snapshot: Position) {
        self.nodes.or_default(id).applied = snapshot;
    }

    /// The first violation.
    pub fn result(&mut self) -> Result<(), Broken> {
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Keeps a violation if it is the first one.
    pub fn note(&mut self, result: Result<(), Broken>) {
        if let Err(broken) = result {
            self.broken.get_or_insert(broken);
        }
    }

    /// A core has stepped.
    pub fn stepped<R: Rules>(&mut self, id: NodeId, core: &Core<R>, todo: &Todo) {
        let after = Look::at(core);
        if let Some(labels) = &mut self.by_hand {
            let entries = todo.append.iter();
            labels.extend(entries.map(|entry| (entry.position, super::views::label(entry))));
        }
        let before = self.nodes.or_default(id).look.replace(after);
        if let Some(before) = before {
            let held = one_node(id, &before, &after, core.stored())
                .and_then(|()| self.on_a_majority(&before, &after, core));
            let led = before.leading && before.hard_state.term == after.hard_state.term;
            self.note(held);
            if after.leading && !led {
                self.shown.leads = Some(after.hard_state.term);
            }
        }
        let bounded = self.memory_is_bounded(core);
        self.note(bounded);
        let witnessed = self.witness.see(core, todo);
        self.note(witnessed);
        self.keep_membership(id, after.leading, core);
        if after.leading {
            let grows = self.stamps_grow(id, after.hard_state.term, &todo.append);
            self.note(grows);
        }
        self.shown.refused = todo.refused.or(self.shown.refused);
        self.shown.lost_tail |= !todo.lost_tail.is_empty();
    }

    /// Entries that the disk has not stored stay in memory, so their number must be limited elsewhere (hazard D21).
    fn memory_is_bounded<R: Rules>(&self, core: &Core<R>) -> Result<(), Broken> {
        let (bytes, entries) = core.in_memory();
        match bytes <= self.memory_max {
            true => Ok(()),
            false => Err(format!(
                "memory: n{} has {entries} entries of {bytes} bytes in memory",
                core.id().0
            )),
        }
    }

    fn keep_membership<R: Rules>(&mut self, id: NodeId, leading: bool, core: &Core<R>) {
        let known = &mut self.nodes.or_default(id).membership;
        match leading {
            false => *known = None,
            true if known.as_ref() != Some(core.membership()) => {
                *known = Some(core.membership().clone());
            }
            true => {}
        }
    }

    /// Entries that a leader newly commits must be on the disks of a majority, of the old or of the present membership.
    fn on_a_majority<R: Rules>(
        &self,
        before: &Look,
        after: &Look,
        core: &Core<R>,
    ) -> Result<(), Broken> {
        let counts = after.leading && after.commit > before.commit;
        if !counts || self.lost_tail || self.by_hand.is_some() {
            return Ok(());
        }
        let Some(position) = core.position_at(after.commit) else {
            return Ok(());
        };
        let stored = |members: &Membership| {
            let has = |id: &&NodeId| {
                let node = self.nodes.get(id);
                node.is_some_and(|node| node.mirror.holds(position))
            };
            members.voters.iter().filter(has).count() >= members.majority()
        };
        let leader = self.nodes.get(&core.id());
        let before = leader.and_then(|node| node.membership.as_ref());
        if stored(core.membership()) || before.is_some_and(stored) {
            return Ok(());
        }
        Err(format!(
            "durability: {position} is called committed and not on a majority's disks"
        ))
    }

    /// A new leader may be behind an entry that it has not applied. The state counts the latest time, so that does no harm.
    fn stamps_grow(&mut self, id: NodeId, term: Term, entries: &[Entry]) -> Result<(), Broken> {
        let stamps = entries.iter().filter_map(|entry| {
            let bytes = bytes_of(entry)?;
            Some(entry::decode(bytes).ok()?.0.cluster)
        });
        for stamp in stamps {
            let facts = self.nodes.or_default(id);
            let last = facts.stamp.replace((term, stamp));
            let applied = self.states.get(&facts.applied.index);
            if let Some((_, time, _)) = applied
                && stamp < *time
            {
                return Err(format!(
                    "time: n{} stamps {}, and has applied an entry of {}",
                    id.0, stamp.0, time.0
                ));
            }
            if let Some((before, last)) = last
                && before == term
                && stamp < last
            {
                return Err(format!(
                    "time: n{} leads in {term:?} and stamps {} after {}",
                    id.0, stamp.0, last.0
                ));
            }
        }
        Ok(())
    }

    /// The state machine of `id` has applied `entry`.
    pub fn applied(&mut self, id: NodeId, entry: &Entry, state: &State, outcome: &Outcome) {
        let position = entry.position;
        let first = self.shown.applied.map_or(position, |(first, _)| first);
        self.shown.applied = Some((first, position));
        self.nodes.or_default(id).applied = position;
        if let Payload::Change(change) = &entry.payload
            && change.kind == ChangeKind::Remove
        {
            self.removed.insert(change.node);
        }
        let stored = match self.by_hand.is_some() || self.mirror(id).holds(position) {
            true => Ok(()),
            false => Err(format!("applied before stored: n{} {position}", id.0)),
        };
        self.note(stored);
        let equal = self.is_equal(id, entry, state, outcome);
        self.note(equal);
        let in_time = self.in_time(outcome, state);
        self.note(in_time);
    }

    fn is_equal(
        &mut self,
        id: NodeId,
        entry: &Entry,
        state: &State,
        outcome: &Outcome,
    ) -> Result<(), Broken> {
        let index = entry.position.index;
        let hash = index.0.is_multiple_of(16).then(|| tree::hash(&state.tree));
        let now = (state.tree.index(), state.time, hash);
        if let Some(first) = self.states.get(&index) {
            return match *first == now {
                true => Ok(()),
                false => Err(format!(
                    "equal states: at {index:?}, n{} has {}, another member has {}",
                    id.0,
                    state_text(&now),
                    state_text(first)
                )),
            };
        }
        self.states.insert(index, now);
        let decoded = bytes_of(entry).and_then(|bytes| entry::decode(bytes).ok());
        let Some((_, Command::Tree(command))) = decoded else {
            return Ok(());
        };
        lives_long_enough(&command, state, outcome)?;
        self.applied_once(entry.position.index, &command)
    }

    fn applied_once(&mut self, index: LogIndex, command: &tree::Command) -> Result<(), Broken> {
        let Some(number) = number_in(&command.value) else {
            return Ok(());
        };
        match self.writes.insert(number, index) {
            None => Ok(()),
            Some(first) => Err(format!(
                "applied twice: #{number} at {first:?} and {index:?}"
            )),
        }
    }

    /// Keys expire at their deadline by cluster time or later. If all clocks have normal speed, also by real time.
    fn in_time(&self, outcome: &Outcome, state: &State) -> Result<(), Broken> {
        let Outcome::Expired { all, .. } = outcome else {
            return Ok(());
        };
        all.iter().try_for_each(|applied| {
            let Some(before) = &applied.event.prev_node else {
                return Ok(());
            };
            let due = before.expiry.map(|expiry| expiry.deadline());
            if due.is_none_or(|due| due > state.time) {
                return Err(format!(
                    "expired early: {:?} at {}",
                    applied.event.key, state.time.0
                ));
            }
            let number = before.value.as_ref().and_then(|value| number_in(value));
            let due = number.and_then(|number| self.leases.get(&number));
            match due.filter(|due| self.now + SLACK < **due) {
                None => Ok(()),
                Some(due) => Err(format!(
                    "expired early: #{}, due at {due}, at {}",
                    number.unwrap_or_default(),
                    self.now
                )),
            }
        })
    }

    /// Checks the events after index `last` in a published view: they are in order, and the same on all nodes.
    pub fn published(&mut self, id: NodeId, last: TreeIndex, events: &[Applied]) {
        let mut last = last.0;
        for applied in events {
            let index = applied.event.index.0;
            let mut hasher = DefaultHasher::new();
            let event = &applied.event;
            (event.action as u8).hash(&mut hasher);
            event.key.as_bytes().hash(&mut hasher);
            event.node.value.as_deref().hash(&mut hasher);
            let digest = hasher.finish();
            let first = *self.events.entry(index).or_insert(digest);
            if index <= last || first != digest {
                let broken = format!(
                    "events: n{} shows event {index} of {:?} after event {last}",
                    id.0, event.key
                );
                self.note(Err(broken));
            }
            last = index;
        }
    }

    /// An event in `[from, to)` that was in a published view.
    pub fn event_between(&self, from: u64, to: u64) -> Option<u64> {
        let begun = from > 0;
        let (missed, _) = self.events.range(from..to).next().filter(|_| begun)?;
        Some(*missed)
    }

    /// A message's promise must be on its sender's disk when it is sent. `term` and `matched` are those that the sender's
    /// core has now.
    pub fn promise_is_stored(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        term: Term,
        position_at: impl Fn(LogIndex) -> Option<Position>,
    ) {
        if self.by_hand.is_some() {
            return;
        }
        let mirror = self.mirror(from);
        let true_now = match &message.body {
            Body::Vote { .. } => mirror.has_voted(message.term, from),
            Body::VoteReply { granted: true } => mirror.has_voted(message.term, to),
            Body::Accepted { matched } if message.term == term => {
                position_at(*matched).is_none_or(|position| mirror.holds(position))
            }
            _ => true,
        };
        if true_now && message.term <= mirror.hard_state.term {
            return;
        }
        let broken = format!(
            "said before stored: n{} to n{}: {message:?}, on disk {:?}",
            from.0, to.0, mirror.hard_state
        );
        self.note(Err(broken));
    }
}

fn state_text((tree, time, hash): &(TreeIndex, ClusterTime, Option<u64>)) -> String {
    let hash = hash.map_or(String::new(), |hash| format!(", hash {hash:016x}"));
    format!("tree index {} and time {}{hash}", tree.0, time.0)
}

/// A key with a TTL lives for that time, counted from the latest time in the log.
fn lives_long_enough(
    command: &tree::Command,
    state: &State,
    outcome: &Outcome,
) -> Result<(), Broken> {
    let (Some(seconds), Outcome::Tree(Ok(applied))) = (command.ttl, outcome) else {
        return Ok(());
    };
    let due = applied.event.node.expiry.map(|expiry| expiry.deadline().0);
    let least = state.time.0 + seconds * 1_000_000_000;
    match due.filter(|due| *due < least) {
        None => Ok(()),
        Some(due) => Err(format!(
            "expired early: {:?} lives until {due}, not until {least}",
            applied.event.key
        )),
    }
}

/// Only a leader may propose these commands, so no other member may forward them.
pub(super) fn may_send(from: NodeId, peer_message: &PeerMessage) -> Result<(), Broken> {
    let PeerMessage::Forward { commands, .. } = peer_message else {
        return Ok(());
    };
    let is_own = |bytes: &[u8]| {
        let command = entry::decode(bytes).map(|(_, command)| command);
        matches!(command, Ok(Command::Expire(_) | Command::Time))
    };
    match commands.iter().any(|command| is_own(command)) {
        true => Err(format!(
            "forwards: n{} asks for what a leader decides",
            from.0
        )),
        false => Ok(()),
    }
}

fn bytes_of(entry: &Entry) -> Option<&[u8]> {
    match &entry.payload {
        Payload::Command(bytes) => Some(bytes),
        Payload::Change(_) | Payload::Noop => None,
    }
}

/// The number of the client's operation that this command is.
pub(super) fn write_number(bytes: &[u8]) -> Option<u64> {
    match entry::decode(bytes).ok()?.1 {
        Command::Tree(command) => number_in(&command.value),
        _ => None,
    }
}

/// A value is the number of the operation that wrote it.
pub(super) fn number_in(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Compares one node before and after a step.
fn one_node(id: NodeId, before: &Look, after: &Look, stored: LogIndex) -> Result<(), Broken> {
    let same_term = before.hard_state.term == after.hard_state.term;
    let wrong = if after.hard_state.term < before.hard_state.term {
        "its term went back"
    } else if same_term
        && before.hard_state.vote.is_some()
        && before.hard_state.vote != after.hard_state.vote
    {
        "it changed its vote"
    } else if after.commit < before.commit {
        "its commit went back"
    } else if after.applied < before.applied {
        "its applied index went back"
    } else if same_term && before.leading && after.leading && after.last < before.last {
        "it leads and its log got shorter"
    } else if after.applied > after.commit || after.applied > stored {
        "it applied what is not committed or not stored"
    } else {
        return Ok(());
    };
    Err(format!("n{}: {wrong}: {before:?} to {after:?}", id.0))
}

/// When a key written at `called` is due at the earliest.
pub(super) fn due(called: u64, ttl: u64) -> u64 {
    called + ttl * TTL_SECOND
}

/// Members' estimates of cluster time differ by the delay of messages, so a new leader may be ahead.
pub(super) const SLACK: u64 = 30_000;
