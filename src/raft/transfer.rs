//! Handing leadership over (dissertation §3.10).
//!
//! The leader stops taking proposals, brings the target's log up to its own, and tells it to stand
//! for election at once. The target skips the pre-vote (everybody would refuse: the leader lives),
//! and its vote requests say that this is a handover, so that belief in the leader is no reason to
//! ignore them. All else is an ordinary election: a target that lags cannot win it.
//!
//! The word to stand may get lost, or the target may be gone. So it is repeated with each heartbeat,
//! and after an election timeout the leader takes proposals again.
//!
//! A target catches up from the leader's memory and disk. If that disk hangs, it may never do. So a driver may also ask
//! a leader to step down at once, with the best of the other voters asked to stand: it has what is committed, if
//! anybody has.

use super::core::{Core, Refusal, State};
use super::message::{Body, NodeId};
use super::rules::Rules;

/// A handover under way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// The tick at which the leader gives up.
    pub(super) deadline: u64,
    /// Whether the target was told to stand.
    pub(super) told: bool,
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
                    told: false,
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

    /// The other voter, heard of lately, that has most of the log.
    pub(super) fn best_voter(&self) -> Option<NodeId> {
        let State::Leader(leading) = &self.state else {
            return None;
        };
        let voters = self.members.current().voters.iter().copied();
        let others = voters.filter(|id| *id != self.settings.id);
        let living = others.filter(|id| leading.heard_lately(*id, self));
        living.max_by_key(|id| leading.progress.get(id).map(|progress| progress.matched))
    }

    /// Tells the target to stand once it has the whole log.
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
        if !transfer.told && matched == Some(self.log.last()) {
            transfer.told = true;
            let to = transfer.to;
            self.send(to, Body::CampaignNow);
        }
    }

    /// With each tick: gives up at the deadline, or when the target is no voter any more.
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

    /// The leader asks this node to stand. Only the leader may: anybody else's word would unseat it.
    pub(super) fn on_campaign_now(&mut self, from: NodeId) {
        if self.is_voter() && self.leader == Some(from) && !self.is_leader() {
            self.campaign(true);
        }
    }
}
