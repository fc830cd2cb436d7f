//! What must hold after every step, whatever happened: within one node, and between nodes.
//!
//! `check_step` and `check_todo` look at one node; a core calls them itself in debug builds.
//! [`Witness`] looks at a whole cluster, for tests and simulators, and checks what the paper's
//! figure 3 promises.

use super::core::{Core, Todo};
use super::message::{Ballot, Body, Entry, LogIndex, NodeId, Payload, Position, Term};
use super::rules::Rules;
use std::collections::BTreeMap;

/// What is compared between two looks at one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) ballot: Ballot,
    pub(super) leading: bool,
    pub(super) commit: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) stored: LogIndex,
    pub(super) last: Position,
    pub(super) base: Position,
}

/// What must hold between two looks at one node.
pub(super) fn check_step(before: &Look, after: &Look) {
    let pair = || format!("{before:?} to {after:?}");
    assert!(
        after.ballot.term >= before.ballot.term,
        "term went back: {}",
        pair()
    );
    if after.ballot.term == before.ballot.term && before.ballot.vote.is_some() {
        assert_eq!(
            after.ballot.vote,
            before.ballot.vote,
            "changed its vote: {}",
            pair()
        );
    }
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
    if before.leading && after.leading && before.ballot.term == after.ballot.term {
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

/// What one step asks for must be in order, and must not promise what is not stored.
pub(super) fn check_todo<R: Rules>(core: &Core<R>, todo: &Todo) {
    for entries in [&todo.append, &todo.apply] {
        let next = |pair: &[Entry]| pair[0].position.index.next() == pair[1].position.index;
        assert!(entries.windows(2).all(next), "not in a row: {entries:?}");
    }
    if let Some(last) = todo.append.last() {
        assert_eq!(
            last.position,
            core.last_position(),
            "what is appended is the log's end"
        );
    }
    if let Some(last) = todo.apply.last() {
        assert_eq!(
            last.position.index,
            core.applied(),
            "what is applied is up to date"
        );
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

/// Watches a cluster and tells when a promise of paper figure 3 is broken.
///
/// Show it every core after each of its steps, and every entry a node applies. An error is one
/// line that says which promise broke, where.
#[derive(Debug, Default)]
pub struct Witness {
    leaders: BTreeMap<Term, NodeId>,
    /// What was appended where: two entries at one position are the same (log matching).
    entries: BTreeMap<Position, (Option<Position>, Payload)>,
    /// What was applied, and so committed, with the lowest term of a node that did: it was committed
    /// in that term or before.
    committed: BTreeMap<LogIndex, (Position, Term)>,
}

impl Witness {
    /// The highest index that anybody has applied.
    pub fn committed(&self) -> LogIndex {
        self.committed
            .last_key_value()
            .map_or(LogIndex(0), |last| *last.0)
    }

    /// A node has stepped: `todo` came out of `core`.
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

    /// Log matching: an entry has the same content and the same entry before it wherever it is.
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

    /// State machine safety: nobody applies another entry at an index.
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

    /// Election safety, and leader completeness when a leader is new.
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
        // A leader that was slow to be elected need not have what a later term has committed since.
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
