//! Data directories that are emptied, and the operator who replaces their members (hazard D12).
//!
//! A member goes down, and starts again with its flags and an empty directory. It has forgotten its votes and the entries
//! that it had acknowledged, so the others must not accept it. The operator removes it, and adds another member, which
//! must catch up.
//!
//! One member is wiped at a time, because its data is a copy less of everything. And it is wiped only when so many of the
//! others know its incarnation that it could not be elected, nor elect another one, with the rest. Before that, the others
//! cannot distinguish it from a member that starts for the first time.

use super::cluster::{Checked, Cluster, Event};
use super::desk::Change;
use super::fault_profile::ELECTION;
use super::mirror::Mirror;
use super::nemesis::GUESTS;
use super::power::Down;
use super::trace::Happening;
use crate::raft::{Membership, NodeId};
use crate::wal::FaultyDisk;

/// A replacement in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wiped {
    /// The member whose data directory was emptied.
    lost: NodeId,
    /// The member that replaces it.
    new: NodeId,
}

impl Cluster {
    /// Empties the data directory of a voter, if the cluster can bear it.
    pub(super) fn wipe_some(&mut self) -> Checked {
        let Some(members) = self.settled_membership() else {
            return Ok(());
        };
        let voters: Vec<NodeId> = members.voters.iter().copied().collect();
        let is_spare = voters.len() >= 3 && members.learners.is_empty();
        let is_free = self.wiped.is_none() && self.changes.is_empty();
        let may_replace = self.next_node <= self.settings.nodes + GUESTS;
        let id = self.random.pick(&voters);
        match id.filter(|_| is_spare && is_free && may_replace) {
            Some(id) if self.is_known_to_most(id, &members) => self.wipe(id),
            _ => Ok(()),
        }
    }

    /// The membership of a leader that has committed it.
    fn settled_membership(&self) -> Option<Membership> {
        let engine = &self.nodes[&self.leader()?].life.as_ref()?.engine;
        let committed = engine.metadata_at(engine.commit())?.membership;
        (committed == *engine.membership()).then_some(committed)
    }

    /// Whether the others that do not know its incarnation are no majority together with it. What a member knows is on its
    /// disk: a start reads it in the log.
    fn is_known_to_most(&self, id: NodeId, members: &Membership) -> bool {
        let incarnation = self.nodes[&id].incarnation();
        let knows = |other: &&NodeId| {
            let life = self.nodes[*other].life.as_ref();
            **other != id
                && life.is_some_and(|life| {
                    incarnation.is_some()
                        && life.engine.state().members.incarnation(id) == incarnation
                })
        };
        let known = members.voters.iter().filter(knows).count();
        members.voters.len() - known < members.majority()
    }

    fn wipe(&mut self, id: NodeId) -> Checked {
        self.die(id, Down::Kill("killed"))?;
        let (seed, joins, cut_off) = (
            self.random.next(),
            self.random.one_in(3),
            self.random.one_in(2),
        );
        self.note(|_| Happening::Nemesis(format!("n{} loses its data directory", id.0)));
        let node = self.node(id);
        node.disk = FaultyDisk::new(seed);
        node.identity = None;
        if joins {
            node.initial_cluster = None;
        }
        // The same power failure has hit the others.
        if self.random.one_in(3) {
            for other in self.all_but(&[id]) {
                self.die(other, Down::Crash("crash"))?;
            }
        }
        // Nobody answers the questions of its first start. Later the links are restored.
        if cut_off {
            self.isolate(id);
        }
        let mut checks = self.checks.borrow_mut();
        *checks.mirror(id) = Mirror::default();
        checks.lost_tail = true;
        drop(checks);
        let new = NodeId(self.next_node);
        self.wiped = Some(Wiped { lost: id, new });
        let wait = self.random.within((ELECTION, 8 * ELECTION));
        self.after(wait, Event::Operator);
        Ok(())
    }

    /// The operator does the next step of the replacement.
    pub(super) fn operator(&mut self) -> Checked {
        let Some(Wiped { lost, new }) = self.wiped else {
            return Ok(());
        };
        self.after(ELECTION, Event::Operator);
        let Some(leader) = self.leader().filter(|_| self.changes.is_empty()) else {
            return Ok(());
        };
        let Some(life) = self.life(leader) else {
            return Ok(());
        };
        let (table, members) = (&life.engine.state().members, life.engine.membership());
        let (is_added, is_voter) = (table.get(new).is_some(), members.voters.contains(&new));
        if table.get(lost).is_some() {
            return self.ask_change(leader, Change::Remove(lost));
        }
        self.node(lost).retired = true;
        if self.nodes[&lost].life.is_some() {
            self.down(lost, Down::Stopped);
        }
        if is_voter {
            self.wiped = None;
        }
        match is_added {
            true => Ok(()),
            false => self.ask_change(leader, Change::Add(new)),
        }
    }
}
