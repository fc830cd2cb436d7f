//! The trace records of a run, and the check that they tell what happened.
//!
//! Each record carries the changes of its member. So a reader that follows the records of a process from its start
//! knows the member's role, term, leader, commit index and the end of its log after every step. [`Shadow`] is such a
//! reader. While a run keeps records, it is compared with the engine after each step.

use super::any_engine::AnyEngine;
use super::cluster::{Checked, Cluster};
use crate::engine::trace::{Record, SnapshotStep, Trace, TraceRole};
use crate::engine::{DiskJob, Effects};
use crate::raft::{LogIndex, NodeId, Term};

/// A record of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRecord {
    /// Virtual microseconds since the start of the run.
    pub at: u64,
    /// The member.
    pub member: NodeId,
    /// The event.
    pub record: Record,
}

impl RunRecord {
    /// The kind of the message that the member has sent to `to` in this event.
    pub fn sent(&self, to: NodeId) -> Option<&'static str> {
        match self.record.event {
            Trace::Sent { to: other, message } if other == to => Some(message.what.name()),
            _ => None,
        }
    }

    /// The line of a trace, without an end of line.
    pub fn json(&self) -> String {
        self.record.json(self.at, self.member)
    }
}

/// What a reader of the records of one process knows.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    seq: u64,
    term: Term,
    role: Option<TraceRole>,
    leader: Option<NodeId>,
    last: LogIndex,
    stored: LogIndex,
    commit: LogIndex,
    applied: LogIndex,
    members: (u32, u32),
    /// Messages sent so far.
    sent: u64,
    /// Messages that the engine has handed over so far.
    handed: u64,
    /// Messages that wait for the disk.
    held: u64,
}

impl Shadow {
    /// Follows one record.
    fn follow(&mut self, record: &Record) -> Checked {
        if record.seq != self.seq + 1 {
            return Err(format!("record {} follows {}", record.seq, self.seq));
        }
        self.seq = record.seq;
        match record.event {
            Trace::Start { last, applied, .. } => {
                (self.term, self.last, self.stored) = (record.term, last, last);
                (self.applied, self.commit) = (applied, applied);
            }
            Trace::Role { role, leader } => (self.role, self.leader) = (Some(role), leader),
            Trace::Term { was } => {
                if was != self.term {
                    return Err(format!("{record:?} follows {:?}", self.term));
                }
                self.term = record.term;
            }
            Trace::Appended { first, last, .. } => {
                if first != self.last.next() {
                    return Err(format!("{record:?} follows {:?}", self.last));
                }
                self.last = last;
            }
            Trace::Truncated { from } => {
                self.last = from.previous();
                self.stored = self.stored.min(self.last);
            }
            Trace::Snapshot {
                what: SnapshotStep::Installing,
                index,
                ..
            } => (self.last, self.stored) = (index, index),
            Trace::Stored { last } => self.stored = last,
            Trace::Committed { index } => self.commit = index,
            Trace::Applied { index } => self.applied = index,
            Trace::Members {
                voters, learners, ..
            } => self.members = (voters, learners),
            Trace::Sent { .. } => self.sent += 1,
            _ => {}
        }
        Ok(())
    }

    /// The messages of a step: those that it sends, and those that its disk releases.
    fn hand_over(&mut self, effects: &Effects<u64>, disk_has_stored: bool) {
        if disk_has_stored {
            self.handed += std::mem::take(&mut self.held);
        }
        self.handed += effects.send.len() as u64;
        let waiting = effects.disk.iter().map(|job| match job {
            DiskJob::Save { then, .. } => then.len() as u64,
            _ => 0,
        });
        self.held += waiting.sum::<u64>();
    }

    fn compare(&self, id: NodeId, engine: &dyn AnyEngine) -> Checked {
        let told = (
            (self.term, self.role, self.leader),
            (self.last, self.stored, self.commit, self.applied),
            (self.members, self.sent),
        );
        let members = engine.membership();
        let is_learner = members.learners.contains(&id);
        let role = TraceRole::of(engine.role(), is_learner);
        let is = (
            (engine.term(), Some(role), engine.leader()),
            (
                engine.last_position().index,
                engine.stored(),
                engine.commit(),
                engine.state().applied,
            ),
            (
                (members.voters.len() as u32, members.learners.len() as u32),
                self.handed,
            ),
        );
        match told == is {
            true => Ok(()),
            false => Err(format!(
                "the records tell {told:?}, and the engine is {is:?}"
            )),
        }
    }
}

impl Cluster {
    /// From now on, keeps the records of all members until [`Cluster::take_records`], and compares them with the
    /// engines. Called before the first step.
    pub fn keep_records(&mut self) {
        self.records = Some(Vec::new());
    }

    /// The records since the last call, in order. Empty if the cluster keeps none.
    pub fn take_records(&mut self) -> Vec<RunRecord> {
        self.records
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The records that are kept, in order.
    pub fn records(&self) -> &[RunRecord] {
        self.records.as_deref().unwrap_or_default()
    }

    /// Keeps the records of an engine's step.
    pub(super) fn see_records(
        &mut self,
        id: NodeId,
        effects: &Effects<u64>,
        disk_has_stored: bool,
    ) -> Checked {
        let is_by_hand = self.is_by_hand();
        let (Some(records), at) = (&mut self.records, self.now) else {
            return Ok(());
        };
        let node = self.nodes.get_mut(&id);
        let Some(life) = node.and_then(|node| node.life.as_mut()) else {
            return Ok(());
        };
        let broken = |why: String| format!("trace: n{}: {why}", id.0);
        life.shadow.hand_over(effects, disk_has_stored);
        for record in life.engine.trace() {
            let followed = life.shadow.follow(record).map_err(broken);
            if !is_by_hand {
                followed?;
            }
            records.push(RunRecord {
                at,
                member: id,
                record: *record,
            });
        }
        // Without a rule, an engine may do something without a record. A run by hand must show the harm of that.
        match is_by_hand {
            true => Ok(()),
            false => life.shadow.compare(id, &*life.engine).map_err(broken),
        }
    }
}
