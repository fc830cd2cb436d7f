//! Invariants that must hold after every step, within one node and between nodes.
//!
//! `check_step` and `check_output` check one node. The core calls them itself, in release builds too: they compare a few
//! numbers per step. They are about the node's own state, and no message can make them fail (see `conduct`).
//! `check_all` looks at each entry and each message, in debug builds only. [`Witness`] checks a whole cluster in tests
//! and simulators, for the guarantees of the paper's figure 3.

use super::core::{Core, Todo};
use super::message::{Body, Entry, HardState, LogIndex, NodeId, Payload, Position, Term};
use super::rules::Rules;
use std::collections::BTreeMap;

/// The values of one node that are compared before and after a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) hard_state: HardState,
    pub(super) stored_term: Term,
    pub(super) leading: bool,
    pub(super) commit: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) stored: LogIndex,
    pub(super) last: Position,
    pub(super) base: Position,
}

/// Checks what must hold between two states of one node.
pub(super) fn check_step(before: &Look, after: &Look) {
    let pair = || format!("{before:?} to {after:?}");
    assert!(
        after.hard_state.term >= before.hard_state.term,
        "term went back: {}",
        pair()
    );
    if after.hard_state.term == before.hard_state.term && before.hard_state.vote.is_some() {
        assert_eq!(
            after.hard_state.vote,
            before.hard_state.vote,
            "changed its vote: {}",
            pair()
        );
    }
    assert!(
        after.stored_term >= before.stored_term && after.stored_term <= after.hard_state.term,
        "stored term went back, or is not reached: {}",
        pair()
    );
    assert!(
        after.commit >= before.commit,
        "commit went back: {}",
        pair()
    );
    assert!(
        after.applied >= before.applied,
        "applied went back: {}",
        pair()
    );
    assert!(
        after.base.index >= before.base.index,
        "base went back: {}",
        pair()
    );
    if before.leading && after.leading && before.hard_state.term == after.hard_state.term {
        assert!(
            after.last >= before.last,
            "a leader's log got shorter: {}",
            pair()
        );
    }
    assert!(
        after.base.index <= after.applied,
        "compacted what is not applied: {after:?}"
    );
    assert!(
        after.applied <= after.commit,
        "applied what is not committed: {after:?}"
    );
    assert!(
        after.applied <= after.stored,
        "applied what is not stored: {after:?}"
    );
    assert!(
        after.commit <= after.last.index,
        "committed what is not there: {after:?}"
    );
    assert!(
        after.stored <= after.last.index,
        "stored what is not there: {after:?}"
    );
}

/// Checks that the entries in the output of one step continue what was there before.
pub(super) fn check_output(before: &Look, after: &Look, todo: &Todo) {
    if let (Some(first), Some(last)) = (todo.append.first(), todo.append.last()) {
        let (first, last) = (first.position, last.position);
        assert_eq!(
            last, after.last,
            "the appended entries are the end of the log"
        );
        assert!(
            first.index <= before.last.index.next()
                && first.index > after.commit.min(before.commit),
            "appended from {first} on: {before:?} to {after:?}"
        );
        assert_eq!(
            first.index.after(todo.append.len()),
            last.index.next(),
            "appended from {first} to {last}"
        );
    }
    if let (Some(first), Some(last)) = (todo.apply.first(), todo.apply.last()) {
        let (first, last) = (first.position, last.position);
        assert_eq!(
            first.index,
            before.applied.next(),
            "applied from {first} on: {before:?}"
        );
        assert_eq!(
            last.index, after.applied,
            "the applied index is that of the last entry to apply: {after:?}"
        );
        assert_eq!(
            first.index.after(todo.apply.len()),
            last.index.next(),
            "applied from {first} to {last}"
        );
    }
    if let Some(hard_state) = todo.hard_state {
        assert_eq!(
            hard_state, after.hard_state,
            "the newest hard state is stored"
        );
    }
}

/// Checks that all entries in the output of one step are in a row, and that it promises nothing that is not stored.
pub(super) fn check_all<R: Rules>(core: &Core<R>, todo: &Todo) {
    for entries in [&todo.append, &todo.apply] {
        let next = |pair: &[Entry]| pair[0].position.index.next() == pair[1].position.index;
        assert!(entries.windows(2).all(next), "not in a row: {entries:?}");
    }
    if core.disk_is_idle() {
        return;
    }
    for envelope in &todo.send_now {
        match envelope.message.body {
            Body::Vote { .. } => panic!("asks for votes before its own is stored: {envelope:?}"),
            Body::VoteReply { granted: true } if R::VOTE_STORED_BEFORE_ANSWER => {
                panic!("votes before the vote is stored: {envelope:?}")
            }
            Body::Accepted { .. } if R::ACK_AFTER_STORE => {
                panic!("acknowledges before all is stored: {envelope:?}")
            }
            _ => {}
        }
    }
}

/// Watches a cluster and reports when a guarantee of the paper's figure 3 is violated.
///
/// The caller passes every core after each of its steps. An error is one line that names the violated guarantee and
/// where it happened.
#[derive(Debug, Default)]
pub struct Witness {
    leaders: BTreeMap<Term, NodeId>,
    /// All appended entries, each with its predecessor's position: two entries at one position must be equal (log
    /// matching).
    entries: BTreeMap<Position, (Option<Position>, Payload)>,
    /// All applied, and therefore committed, entries, each with the lowest term of a node that applied it. The entry
    /// was committed in that term or an earlier one.
    committed: BTreeMap<LogIndex, (Position, Term)>,
}

impl Witness {
    /// The highest index that any node has applied.
    pub fn committed(&self) -> LogIndex {
        self.committed
            .last_key_value()
            .map_or(LogIndex(0), |last| *last.0)
    }

    /// Checks a step of a node: `todo` was returned by `core`.
    pub fn see<R: Rules>(&mut self, core: &Core<R>, todo: &Todo) -> Result<(), String> {
        todo.append
            .iter()
            .try_for_each(|entry| self.see_append(core, entry))?;
        todo.apply
            .iter()
            .try_for_each(|entry| self.see_apply(core, entry))?;
        if core.is_leader() {
            self.see_leader(core)
        } else {
            Ok(())
        }
    }

    /// Log matching: at every node, an entry has the same content and the same entry before it.
    fn see_append<R: Rules>(&mut self, core: &Core<R>, entry: &Entry) -> Result<(), String> {
        let previous = core.position_at(entry.position.index.previous());
        let seen = (previous, entry.payload.clone());
        let first = self
            .entries
            .entry(entry.position)
            .or_insert_with(|| seen.clone());
        let before = first
            .0
            .zip(previous)
            .is_none_or(|(first, now)| first == now);
        if first.1 == entry.payload && before {
            return Ok(());
        }
        Err(format!(
            "log matching: {} at {:?}: {seen:?}, elsewhere {first:?}",
            entry.position,
            core.id()
        ))
    }

    /// State machine safety: no two nodes apply different entries at one index.
    fn see_apply<R: Rules>(&mut self, core: &Core<R>, entry: &Entry) -> Result<(), String> {
        let position = entry.position;
        let now = (position, core.term());
        let (first, term) = self.committed.entry(position.index).or_insert(now);
        if *first == position {
            *term = core.term().min(*term);
            return Ok(());
        }
        Err(format!(
            "state machine safety: {:?} applied {position}, another {first}",
            core.id()
        ))
    }

    /// Election safety; for a new leader also leader completeness.
    fn see_leader<R: Rules>(&mut self, core: &Core<R>) -> Result<(), String> {
        match self.leaders.insert(core.term(), core.id()) {
            Some(leader) if leader == core.id() => return Ok(()),
            Some(leader) => {
                let (one, term) = (core.id(), core.term());
                return Err(format!(
                    "election safety: {leader:?} and {one:?} lead in {term:?}"
                ));
            }
            None => {}
        }
        // A leader whose election was slow need not have entries that a later term has committed since.
        let missing = self.committed.values().rev().find(|(position, term)| {
            let found = core.position_at(position.index);
            *term < core.term()
                && found.map_or(position.index > core.commit(), |found| found != *position)
        });
        match missing {
            None => Ok(()),
            Some((position, _)) => Err(format!(
                "leader completeness: {:?} leads in {:?} without {position}",
                core.id(),
                core.term()
            )),
        }
    }
}
