//! Leadership transfer (dissertation §3.10).
//!
//! The leader stops accepting proposals, brings the target's log up to date, and asks the target to start an election
//! at once. The target skips the pre-vote, because every voter would refuse it while the leader is alive. Its vote
//! requests are marked as part of a transfer, so that voters do not ignore them because they have a leader. Apart from
//! that it is an ordinary election: a target whose log is behind cannot win it.
//!
//! The request to the target may be lost, or the target may be down. So the leader repeats it with each heartbeat, and
//! accepts proposals again after an election timeout.
//!
//! The target catches up from the leader's memory and disk. If the leader's disk hangs, it may never catch up. So a
//! driver may also ask a leader to step down at once. The leader then asks the most up-to-date of the other reachable
//! voters to start an election. That voter has all committed entries if any reachable voter has.

use super::core::{Core, Refusal, State};
use super::message::{Body, NodeId};
use super::rules::Rules;

/// A transfer in progress.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// The tick at which the leader aborts the transfer.
    pub(super) deadline: u64,
    /// Whether the target was asked to start an election.
    pub(super) target_asked: bool,
}

impl<R: Rules> Core<R> {
    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        let to = to.or_else(|| self.best_voter());
        match self.may_transfer(to) {
            Err(refusal) => self.todo.refused = Some(refusal),
            Ok(to) => {
                let deadline = self.now + u64::from(self.settings.election_ticks);
                let State::Leader(leading) = &mut self.state else {
                    return;
                };
                leading.transfer = Some(Transfer {
                    to,
                    deadline,
                    target_asked: false,
                });
            }
        }
    }

    /// Steps down without waiting for a target to catch up.
    pub(super) fn give_up_leading(&mut self) {
        let to = self.best_voter();
        match to {
            _ if !self.is_leader() => {
                let leader = self.leader;
                self.todo.refused = Some(Refusal::NotLeader { leader });
            }
            None => self.todo.refused = Some(Refusal::NoSuchMember),
            Some(_) => self.resign(),
        }
    }

    fn may_transfer(&self, to: Option<NodeId>) -> Result<NodeId, Refusal> {
        let State::Leader(leading) = &self.state else {
            return Err(Refusal::NotLeader {
                leader: self.leader,
            });
        };
        if leading.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let to = to.ok_or(Refusal::NoSuchMember)?;
        let voter = self.members.current().voters.contains(&to);
        if voter && to != self.settings.id {
            Ok(to)
        } else {
            Err(Refusal::NoSuchMember)
        }
    }

    /// The other voter that has sent a message within an election timeout and has most of the log.
    pub(super) fn best_voter(&self) -> Option<NodeId> {
        let State::Leader(leading) = &self.state else {
            return None;
        };
        let voters = self.members.current().voters.iter().copied();
        let others = voters.filter(|id| *id != self.settings.id);
        let living = others.filter(|id| leading.heard_lately(*id, self));
        living.max_by_key(|id| leading.progress.get(id).map(|progress| progress.matched))
    }

    /// Asks the target to start an election when it has the whole log.
    pub(super) fn hand_over(&mut self) {
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        let Some(transfer) = &mut leading.transfer else {
            return;
        };
        let matched = leading
            .progress
            .get(&transfer.to)
            .map(|progress| progress.matched);
        if !transfer.target_asked && matched == Some(self.log.last()) {
            transfer.target_asked = true;
            let to = transfer.to;
            self.send(to, Body::CampaignNow);
        }
    }

    /// Runs with each tick. Aborts the transfer at its deadline, or when the target is no longer a voter.
    pub(super) fn tick_transfer(&mut self) {
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        let voters = &self.members.current().voters;
        if leading
            .transfer
            .as_ref()
            .is_some_and(|transfer| self.now >= transfer.deadline || !voters.contains(&transfer.to))
        {
            leading.transfer = None;
        }
    }

    /// The leader asks this node to start an election. Only a request of the leader counts; with any other, a node
    /// could replace the leader.
    pub(super) fn on_campaign_now(&mut self, from: NodeId) {
        if self.is_voter() && self.leader == Some(from) && !self.is_leader() {
            self.campaign(true);
        }
    }
}
