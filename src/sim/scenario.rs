//! One fault in a healthy cluster, with a known result.
//!
//! Some rules do not prevent wrong answers. They prevent needless elections, or a cluster without progress. Their effect
//! shows only if there is no other fault, so here there is none.

use super::client::{Answer, Op};
use super::clock::Pace;
use super::cluster::{Checked, Cluster, Event};
use super::desk::{Change, new_address};
use super::fault_profile::{ELECTION, Scenario, TICK};
use super::power::Down;
use crate::engine::request::Failure;
use crate::raft::{Body, NodeId, Term};

/// The stage of the scenario.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: u32,
    /// The leader at the beginning, and its term.
    led: Option<(NodeId, Term)>,
    victim: Option<NodeId>,
    /// Clients send no requests.
    pub quiet: bool,
    /// Some core has reported that a follower has lost entries.
    pub lost_tail: bool,
    /// Appends that were sent to the victim.
    appends: u64,
    /// Operations that began before.
    first_op: usize,
    /// The requests that were pending at the leader when it received the order to stop.
    owed: Vec<u64>,
}

impl Progress {
    /// Inspects a message that is sent.
    pub fn count(&mut self, to: NodeId, body: &Body) {
        let is_append = matches!(body, Body::Append { .. });
        self.appends += u64::from(is_append && self.victim == Some(to));
    }
}

/// Limit for appends: twice the number of heartbeats in that time, because a probe is sent once per heartbeat.
const APPENDS_MAX: u64 = 6 * ELECTION / TICK;

/// The duration of a sync on a disk that is slower than an election.
const SLOW: (u64, u64) = (11 * ELECTION / 10, 3 * ELECTION / 2);

impl Cluster {
    /// Enters the next stage.
    pub(super) fn disturb(&mut self, scenario: Scenario) -> Checked {
        self.scenario.stage += 1;
        let wait = match self.scenario.stage {
            1 => {
                self.scenario.quiet = matches!(
                    scenario,
                    Scenario::DeafToLeader | Scenario::Removed | Scenario::Moved
                );
                8 * ELECTION
            }
            2 => {
                self.begin(scenario)?;
                5 * ELECTION
            }
            3 => {
                self.go_on(scenario)?;
                6 * ELECTION
            }
            _ => return self.judge(scenario),
        };
        self.after(wait, Event::Nemesis);
        Ok(())
    }

    fn begin(&mut self, scenario: Scenario) -> Checked {
        let Some(leader) = self.leader() else {
            return Err("liveness: nobody leads a healthy cluster".into());
        };
        let term = self.nodes[&leader]
            .life
            .as_ref()
            .map(|life| life.engine.term());
        self.scenario.led = term.map(|term| (leader, term));
        let others: Vec<NodeId> = self.up().into_iter().filter(|id| *id != leader).collect();
        let Some(victim) = self.random.pick(&others) else {
            return Ok(());
        };
        self.scenario.victim = Some(victim);
        match scenario {
            Scenario::Isolated => self.isolate(victim),
            Scenario::DeafToLeader => drop(self.cuts.insert((leader, victim))),
            Scenario::DeafLeader => self.cuts.extend(others.iter().map(|id| (*id, leader))),
            Scenario::FastAndStale => {
                let now = self.now;
                self.isolate(victim);
                self.node(victim).machine.set_pace(now, Pace::Double);
            }
            Scenario::Removed => {
                let deaf = self.up().into_iter().filter(|id| *id != victim);
                self.cuts
                    .extend(deaf.map(|id| (id, victim)).collect::<Vec<_>>());
                return self.remove_member(leader, victim);
            }
            Scenario::HungDisk | Scenario::HungUnderLoad => {
                let until = self.now + 12 * ELECTION;
                self.node(leader).hung_disk_until = until;
            }
            Scenario::SlowDisks => {
                // One write at a time, so that the follower could catch up.
                (self.profile.sync, self.profile.think) = (SLOW, (ELECTION, 3 * ELECTION));
            }
            Scenario::Stranger => self.scenario.first_op = self.ops.len(),
            Scenario::Learner => return self.add_member(leader),
            Scenario::Moved => {
                let mut all = self.up().into_iter();
                return all.try_for_each(|id| self.ask_change(leader, Change::Move(id)));
            }
            Scenario::LostTail => {
                self.node(victim).loses_tail = 1 + self.random.below(5);
                self.die(victim, Down::Kill("killed"))?;
                return self.start(victim);
            }
            Scenario::Shutdown => {
                self.scenario.first_op = self.ops.len();
                let life = self.nodes[&leader].life.as_ref();
                let owed = life.map(|life| life.pending.keys().copied().collect());
                self.scenario.owed = owed.unwrap_or_default();
                return self.tell_to_stop(leader);
            }
        }
        Ok(())
    }

    fn go_on(&mut self, scenario: Scenario) -> Checked {
        match scenario {
            Scenario::Isolated => self.cuts.clear(),
            Scenario::FastAndStale => {
                self.cuts.clear();
                if let Some((leader, _)) = self.scenario.led {
                    return self.die(leader, Down::Kill("killed"));
                }
            }
            Scenario::Moved => {
                let all = self.up();
                for id in &all {
                    self.die(*id, Down::Kill("killed"))?;
                    self.node(*id).address = Some(new_address(*id));
                }
                return all.into_iter().try_for_each(|id| self.start(id));
            }
            // From here on only the leader's probes are counted.
            Scenario::LostTail => (self.scenario.quiet, self.scenario.appends) = (true, 0),
            _ => {}
        }
        Ok(())
    }

    /// The leader has reported the member that lost entries, and has not flooded it with probes. The member is removed, as an
    /// operator would do.
    fn replace_victim(&mut self, leader: Option<NodeId>) -> Checked {
        let (Some(victim), Some(leader)) = (self.scenario.victim, leader) else {
            return Ok(());
        };
        // A snapshot may contain everything that it had, and the leader may not have counted what it had stored.
        let last = |id: NodeId| Some(self.nodes[&id].life.as_ref()?.engine.last_position());
        let has_lost = self.checks.borrow().lost_tail && last(victim) != last(leader);
        let (told, appends) = (self.scenario.lost_tail || !has_lost, self.scenario.appends);
        if !told || appends > APPENDS_MAX {
            return Err(format!(
                "scenario: LostTail: reported: {told}, {appends} appends"
            ));
        }
        self.node(victim).retired = true;
        self.down(victim, Down::Stopped);
        self.remove_member(leader, victim)
    }

    /// If a leader stops under few faults, every request gets a result.
    fn all_were_served(&self) -> Checked {
        for number in &self.scenario.owed {
            let answer = self.ops.get(*number as usize).map(|op| &op.answer);
            if let Some(Some(Answer::Failed(failure))) = answer {
                return Err(format!("scenario: Shutdown: #{number} fails: {failure:?}"));
            }
        }
        let since = self.ops.iter().zip(0..).skip(self.scenario.first_op);
        for (op, number) in since {
            // A stopping member refuses later requests.
            let is_refusal = |failure: &&Failure| **failure == Failure::Stopped;
            let failed = match &op.answer {
                Some(Answer::Failed(failure)) => Some(failure),
                _ => None,
            };
            if let Some(failure) = failed.filter(|failure| !is_refusal(failure)) {
                return Err(format!("scenario: Shutdown: #{number} fails: {failure:?}"));
            }
        }
        Ok(())
    }

    /// The member that was added has a vote.
    fn is_promoted(&self, leader: Option<NodeId>) -> Checked {
        let life = leader.and_then(|id| self.nodes[&id].life.as_ref());
        let learners = life.map(|life| &life.engine.membership().learners);
        match learners {
            Some(learners) if !learners.is_empty() => {
                Err(format!("scenario: Learner: {learners:?} have no vote yet"))
            }
            _ => Ok(()),
        }
    }

    /// Clients were served all the time.
    fn none_has_failed(&self) -> Checked {
        let since = &self.ops[self.scenario.first_op..];
        let failed = |op: &&Op| matches!(op.answer, Some(Answer::Failed(_)));
        let is_done = |op: &Op| matches!(op.answer, Some(Answer::Done(..)));
        match since.iter().find(failed) {
            Some(op) => Err(format!("scenario: Stranger: {op:?}")),
            None if !since.iter().any(is_done) => Err("scenario: Stranger: no write".into()),
            None => Ok(()),
        }
    }

    fn judge(&mut self, scenario: Scenario) -> Checked {
        let leader = self.leader();
        let term = |id: NodeId| self.nodes[&id].life.as_ref().map(|life| life.engine.term());
        let now = leader.and_then(|id| Some((id, term(id)?)));
        let before = self.scenario.led;
        let good = match scenario {
            Scenario::Isolated
            | Scenario::DeafToLeader
            | Scenario::Removed
            | Scenario::SlowDisks
            | Scenario::Stranger
            | Scenario::Learner
            | Scenario::LostTail => now == before,
            Scenario::HungUnderLoad => now.is_some(),
            // All have restarted, so its term is another one.
            Scenario::Moved => now.is_some() && now != before,
            Scenario::DeafLeader
            | Scenario::FastAndStale
            | Scenario::HungDisk
            | Scenario::Shutdown => now.map(|now| now.0) != before.map(|led| led.0),
        };
        match scenario {
            Scenario::LostTail => self.replace_victim(leader)?,
            Scenario::Shutdown => self.all_were_served()?,
            Scenario::Stranger => self.none_has_failed()?,
            Scenario::Learner => self.is_promoted(leader)?,
            _ => {}
        }
        match good && now.is_some() {
            true => Ok(()),
            false => Err(format!(
                "scenario: {scenario:?}: {before:?} led, now {now:?} does"
            )),
        }
    }
}
