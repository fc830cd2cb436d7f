//! What must hold after every step (hazards.md, section D), seen from outside the nodes.
//!
//! raft's own [`Witness`] looks for two leaders in a term, logs that do not match, another entry applied
//! at an index, and a leader without a committed entry. What is added here needs the disk, the state
//! machine or the clients: nothing is said before it is stored; what is committed is on a majority's
//! disks; states are equal at equal indexes; no write is applied twice; no key goes before its time.

use super::any_core::{AnyCore, term};
use super::client::{Ask, Op};
use super::clock::TTL_SECOND;
use super::node::{Mirror, Node};
use super::weather::{Kind, Weather};
use crate::engine::entry::{self, Order};
use crate::engine::state::{Outcome, State};
use crate::raft::invariants::Witness;
use crate::raft::{
    Ballot, Body, Entry, Envelope, LogIndex, Membership, NodeId, Payload, Position, Todo,
};
use crate::tree::{self, Applied, ClusterTime, TreeIndex};
use std::collections::BTreeMap;

/// One line that says what is broken.
pub(super) type Broken = String;

/// What is compared between two looks at one core.
#[derive(Debug, Clone)]
pub(super) struct Look {
    ballot: Ballot,
    leading: bool,
    commit: LogIndex,
    applied: LogIndex,
    last: Position,
    membership: Option<Membership>,
}

impl Look {
    pub fn at(core: &dyn AnyCore) -> Look {
        let leading = core.is_leader();
        Look {
            ballot: core.ballot(),
            leading,
            commit: core.commit(),
            applied: core.applied(),
            last: core.last_position(),
            membership: leading.then(|| core.membership().clone()),
        }
    }
}

/// What the whole run has shown so far.
#[derive(Default)]
pub(super) struct Checks {
    witness: Witness,
    /// The state at each applied index, as the first node that got there had it.
    states: BTreeMap<LogIndex, (TreeIndex, ClusterTime, Option<u64>)>,
    /// Where each client's write was applied.
    writes: BTreeMap<u64, LogIndex>,
}

impl Checks {
    /// After a step of a core.
    pub fn step(
        &mut self,
        id: NodeId,
        before: &Look,
        core: &dyn AnyCore,
        todo: &Todo,
    ) -> Result<(), Broken> {
        one_node(id, before, core)?;
        core.witnessed(&mut self.witness, todo)
    }

    /// The state machine of `id` has applied `entry`.
    pub fn applied(&mut self, id: NodeId, entry: &Entry, state: &State) -> Result<(), Broken> {
        let index = entry.position.index;
        let hash = index.0.is_multiple_of(16).then(|| tree::hash(&state.tree));
        let now = (state.tree.index(), state.time, hash);
        if let Some(first) = self.states.get(&index) {
            return match *first == now {
                true => Ok(()),
                false => Err(format!(
                    "equal states: n{} has {now:?} at {index:?}, another {first:?}",
                    id.0
                )),
            };
        }
        self.states.insert(index, now);
        self.applied_once(entry)
    }

    fn applied_once(&mut self, entry: &Entry) -> Result<(), Broken> {
        let Some(number) = write_number(entry) else {
            return Ok(());
        };
        let index = entry.position.index;
        match self.writes.insert(number, index) {
            None => Ok(()),
            Some(first) => Err(format!(
                "applied twice: #{number} at {first:?} and {index:?}"
            )),
        }
    }
}

/// The number of the client's operation that this entry is.
fn write_number(entry: &Entry) -> Option<u64> {
    let Payload::Command(bytes) = &entry.payload else {
        return None;
    };
    match entry::decode(bytes).ok()?.1 {
        Order::Tree(command) => number_in(&command.value),
        _ => None,
    }
}

/// A value is the number of the operation that wrote it.
pub(super) fn number_in(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What must hold between two looks at one node.
fn one_node(id: NodeId, before: &Look, core: &dyn AnyCore) -> Result<(), Broken> {
    let after = Look::at(core);
    let same_term = before.ballot.term == after.ballot.term;
    let wrong = if after.ballot.term < before.ballot.term {
        "its term went back"
    } else if same_term && before.ballot.vote.is_some() && before.ballot.vote != after.ballot.vote {
        "it changed its vote"
    } else if after.commit < before.commit {
        "its commit went back"
    } else if after.applied < before.applied {
        "what it applied went back"
    } else if same_term && before.leading && after.leading && after.last < before.last {
        "it leads and its log got shorter"
    } else if after.applied > after.commit || after.applied > core.stored() {
        "it applied what is not committed or not stored"
    } else {
        return Ok(());
    };
    Err(format!("n{}: {wrong}: {before:?} to {after:?}", id.0))
}

/// What a leader newly calls committed must be on the disks of a majority, as it was or as it is now.
pub(super) fn on_a_majority(
    before: &Look,
    core: &dyn AnyCore,
    nodes: &BTreeMap<NodeId, Node>,
) -> Result<(), Broken> {
    let Some(position) = core.position_at(core.commit()) else {
        return Ok(());
    };
    if !core.is_leader() || core.commit() <= before.commit {
        return Ok(());
    }
    let stored = |members: &Membership| {
        let has = |id: &&NodeId| {
            nodes
                .get(id)
                .is_some_and(|node| node.mirror.holds(position))
        };
        members.voters.iter().filter(has).count() >= members.majority()
    };
    if stored(core.membership()) || before.membership.as_ref().is_some_and(stored) {
        return Ok(());
    }
    Err(format!(
        "durability: {position} is called committed and not on a majority's disks"
    ))
}

/// What a message promises must be on its sender's disk when it leaves.
pub(super) fn promise_is_stored(
    from: NodeId,
    core: &dyn AnyCore,
    mirror: &Mirror,
    envelope: &Envelope,
) -> Result<(), Broken> {
    let message = &envelope.message;
    let voted = |for_whom: NodeId| {
        mirror.ballot
            == (Ballot {
                term: message.term,
                vote: Some(for_whom),
            })
            || mirror.ballot.term > message.term
    };
    let true_now = match &message.body {
        Body::Vote { .. } => voted(from),
        Body::VoteReply { granted: true } => voted(envelope.to),
        Body::Accepted { matched } if message.term == term(core) => {
            let position = core.position_at(*matched);
            position.is_none_or(|position| mirror.holds(position))
        }
        _ => true,
    };
    if true_now && message.term <= mirror.ballot.term {
        return Ok(());
    }
    Err(format!(
        "said before stored: n{} to n{}: {message:?}, on disk {:?}",
        from.0, envelope.to.0, mirror.ballot
    ))
}

/// Keys go when their time is up by cluster time; and, where clocks are true, by real time.
pub(super) fn in_time(
    outcome: &Outcome,
    state: &State,
    now: u64,
    ops: &[Op],
    weather: &Weather,
) -> Result<(), Broken> {
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
                "expired early: {:?} at {:?}",
                applied.event, state.time
            ));
        }
        really_due(applied, now, ops, weather)
    })
}

fn really_due(applied: &Applied, now: u64, ops: &[Op], weather: &Weather) -> Result<(), Broken> {
    let value = applied
        .event
        .prev_node
        .as_ref()
        .and_then(|node| node.value.clone());
    let number = value.and_then(|value| number_in(&value));
    let op = number.and_then(|number| ops.get(number as usize));
    match op {
        Some(Op {
            ask: Ask::Lease(_, ttl),
            called,
            ..
        }) if weather.kind == Kind::TimesToLive && now + SLACK < called + ttl * TTL_SECOND => {
            Err(format!("expired early: #{number:?} of {called}, at {now}"))
        }
        _ => Ok(()),
    }
}

/// Members' estimates of cluster time differ by what messages take, so a new leader may be ahead.
pub(super) const SLACK: u64 = 30_000;
