//! What a node does for others: it proposes, and answers reads once they are confirmed.

use super::any_core::term;
use super::client::Answer;
use super::cluster::{Checked, Cluster};
use super::flaw::Flaw;
use super::node::Ticket;
use crate::engine::entry;
use crate::raft::{Change, ChangeKind, Input, LogIndex, NodeId, Position, Refusal};
use std::sync::Arc;

/// A proposal's place, or why it has none.
pub(super) type Proposed = (Option<Position>, Option<Refusal>);

impl Cluster {
    pub(super) fn propose(&mut self, id: NodeId, orders: Vec<Vec<u8>>) -> Result<Proposed, String> {
        let stamp = self.stamp(id);
        let commands = orders.into_iter().map(|mut bytes| {
            entry::stamp(&mut bytes, stamp);
            Arc::from(bytes)
        });
        let commands = commands.collect();
        self.input(
            id,
            Input::Propose {
                term: None,
                commands,
            },
        )
    }

    pub(super) fn propose_change(
        &mut self,
        id: NodeId,
        kind: ChangeKind,
        node: NodeId,
    ) -> Result<Proposed, String> {
        let mut context = match kind {
            ChangeKind::Remove => entry::remove(node),
            _ => entry::add(&super::node::member(node)),
        };
        entry::stamp(&mut context, self.stamp(id));
        let change = Change {
            kind,
            node,
            context: Arc::from(context),
        };
        self.input(id, Input::ProposeChange { change })
    }

    /// A client's request has come.
    pub(super) fn request(&mut self, number: u64, id: NodeId) -> Checked {
        let ask = self.ops[number as usize].ask.clone();
        let Some(life) = self.life(id) else {
            // Nobody listens: the client hears that soon, or hears nothing.
            if self.mended.is_some() || self.random.one_in(2) {
                self.answer(number, Answer::NotTaken(None));
            }
            return Ok(());
        };
        if !life.core.is_leader() {
            let leader = life.core.leader().filter(|leader| *leader != id);
            self.answer(number, Answer::NotTaken(leader));
            return Ok(());
        }
        if ask.is_read() {
            return self.request_read(number, id);
        }
        let now_in = term(life.core.as_ref());
        let proposed = self.propose(id, vec![entry::tree(&ask.command(number))])?;
        match (proposed, self.life(id)) {
            ((Some(position), _), Some(life)) if position.index > life.state.applied => {
                life.tickets.insert(
                    position.index,
                    Ticket {
                        term: now_in,
                        number,
                    },
                );
            }
            ((None, Some(_)), _) => self.answer(number, Answer::NotTaken(None)),
            _ => {}
        }
        Ok(())
    }

    fn request_read(&mut self, number: u64, id: NodeId) -> Checked {
        if self.has_flaw(Flaw::ReadWithoutAsking) {
            self.answer_read(id, number);
            return Ok(());
        }
        let reused = self.has_flaw(Flaw::ReadIdReused);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        life.next_read += 1;
        let read = if reused { 1 } else { life.next_read };
        life.reads.insert(read, number);
        self.input(id, Input::ReadIndex { id: read }).map(drop)
    }

    pub(super) fn confirm_reads(
        &mut self,
        id: NodeId,
        reads: Vec<(u64, LogIndex)>,
        refused: &[u64],
    ) {
        let Some(life) = self.life(id) else { return };
        for (read, index) in reads {
            if let Some(number) = life.reads.remove(&read) {
                life.confirmed.push((number, index));
            }
        }
        let refused = refused.iter().filter_map(|read| life.reads.remove(read));
        for number in refused.collect::<Vec<_>>() {
            self.answer(number, Answer::NotTaken(None));
        }
    }

    pub(super) fn answer_reads(&mut self, id: NodeId) {
        let Some(life) = self.life(id) else { return };
        let applied = life.state.applied;
        let (ready, waiting) = life.confirmed.iter().partition(|read| read.1 <= applied);
        life.confirmed = waiting;
        let ready: Vec<(u64, LogIndex)> = ready;
        ready
            .into_iter()
            .for_each(|(number, _)| self.answer_read(id, number));
    }

    fn answer_read(&mut self, id: NodeId, number: u64) {
        let key = self.ops[number as usize].ask.key();
        let Some(life) = self.life(id) else { return };
        let found = life.state.tree.get(&key).ok().and_then(|node| {
            let value = super::checks::number_in(node.value()?)?;
            Some((value, node.view().modified.0))
        });
        self.answer(number, Answer::Found(found));
    }
}
