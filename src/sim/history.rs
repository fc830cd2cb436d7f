//! The end of a run: all faults end, and the cluster must recover. Then the history of the clients is checked.

use super::checks::{Broken, SLACK};
use super::client::{Answer, Ask};
use super::clock::{Pace, TTL_SECOND};
use super::cluster::{Checked, Cluster};
use super::fault_profile::{ELECTION, Kind};
use super::linear::{self, Action, Operation, Outcome};
use super::trace::Happening;
use crate::raft::{LogIndex, NodeId};
use crate::tree;
use std::collections::BTreeMap;

/// Clients continue for this long after the repair.
const AFTERGLOW: u64 = 8 * ELECTION;
/// The cluster must have recovered within this time after the repair.
const LIMIT: u64 = 60 * ELECTION;

impl Cluster {
    /// Ends all faults.
    pub(super) fn mend(&mut self) -> Checked {
        self.note(|_| Happening::Repaired);
        self.repaired = Some(self.now);
        self.cuts.clear();
        self.profile.delay = (200, 2_000);
        self.profile.sync = (100, 1_000);
        self.profile.slow_sync_one_in = 0;
        self.profile.removed_stop = true;
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.machine.set_pace(now, Pace::True);
            node.paused_until = 0;
            (node.slow_disk_until, node.hung_disk_until) = (0, 0);
            node.disk.set_capacity(u64::MAX);
        }
        for id in self.nodes.keys().collect::<Vec<NodeId>>() {
            self.node(id).disk.cut_power_after(u64::MAX);
            self.node(id).disk.fail_sync_after(u64::MAX);
            self.start(id)?;
        }
        Ok(())
    }

    /// Whether the cluster has recovered.
    pub(super) fn has_settled(&mut self) -> Result<bool, Broken> {
        let Some(repaired) = self.repaired else {
            return Ok(false);
        };
        let waiting = self.clients.iter().any(|client| client.served == 0);
        self.open = self.now < repaired + if waiting { LIMIT } else { AFTERGLOW };
        if self.open || !self.events.is_multiple_of(16) {
            return Ok(false);
        }
        match self.unsettled() {
            None => Ok(true),
            Some(why) if self.now > repaired + LIMIT => Err(format!("liveness: {why}")),
            Some(_) => Ok(false),
        }
    }

    fn unsettled(&self) -> Option<String> {
        let busy = self.clients.iter().find(|client| client.busy.is_some());
        if let Some(client) = busy {
            return Some(format!(
                "c{} waits for #{}",
                client.id,
                client.busy.unwrap_or_default()
            ));
        }
        if let Some(client) = self.clients.iter().find(|client| client.served == 0) {
            return Some(format!(
                "c{} was not served after the faults ended",
                client.id
            ));
        }
        if let Some(wiped) = self.wiped {
            return Some(format!("not replaced: {wiped:?}"));
        }
        let Some(leader) = self.leader() else {
            return Some("nobody leads".into());
        };
        let life = self.nodes[&leader].life.as_ref()?;
        let (core, last) = (&life.engine, life.engine.last_position().index);
        let members = core.membership();
        if core.commit() != last || !members.learners.is_empty() || !members.contains(leader) {
            return Some(format!(
                "n{} has not committed all, or has learners",
                leader.0
            ));
        }
        if life.engine.state().tree.has_ttl() {
            return Some("keys with a TTL have not expired".into());
        }
        let behind = members
            .voters
            .iter()
            .find(|id| !self.is_level(**id, leader, last));
        behind.map(|id| format!("n{} is not where n{} is", id.0, leader.0))
    }

    fn is_level(&self, id: NodeId, leader: NodeId, last: LogIndex) -> bool {
        let life = self.nodes.get(&id).and_then(|node| node.life.as_ref());
        life.is_some_and(|life| {
            life.engine.state().applied == last && life.engine.leader() == Some(leader)
        })
    }

    /// Checks the replies of all clients, and the final state.
    pub(super) fn check_history(&self) -> Checked {
        let Some(life) = self.leader().and_then(|id| self.nodes[&id].life.as_ref()) else {
            return Err("liveness: nobody leads".into());
        };
        let end = tree::hash(&life.engine.state().tree);
        for node in self.nodes.values() {
            let other = node
                .life
                .as_ref()
                .filter(|other| other.engine.state().applied == life.engine.state().applied);
            if other.is_some_and(|other| tree::hash(&other.engine.state().tree) != end) {
                return Err(format!("equal states: n{} ends otherwise", node.id.0));
            }
        }
        self.check_linear(Some(&life.engine.state().tree))?;
        self.check_posts(&life.engine.state().tree)?;
        self.check_leases()
    }

    /// Checks the replies of all clients so far. If `end` is given, the state at the end of the run counts too.
    pub(super) fn check_linear(&self, end: Option<&tree::Tree>) -> Checked {
        let numbered = self.ops.iter().zip(0..);
        let seen = numbered.filter_map(|(op, number)| Some((number, op.as_operation(number)?)));
        let (numbers, mut history): (Vec<u64>, Vec<_>) = seen.unzip();
        // The final state counts as a read of every key.
        for (key, end) in (0..self.profile.keys).filter_map(|key| Some((key, end?))) {
            let node = end.get(&Ask::Read(key).key()).ok();
            let value = node.and_then(|node| super::checks::number_in(node.value()?));
            history.push(Operation {
                client: u64::MAX,
                key,
                called: self.now + 1,
                returned: self.now + 2,
                action: Action::Read,
                outcome: Outcome::Found(value),
            });
        }
        linear::check(&history).map_err(|violation| {
            let number = numbers.get(violation.operation);
            let number = number.copied().unwrap_or_default();
            format!("not linearizable at #{number}: {}", violation.why)
        })
    }

    /// POSTs that were answered are there, each once, in order of time; others once or not at all.
    fn check_posts(&self, end: &tree::Tree) -> Checked {
        let mut last_returned: BTreeMap<u64, u64> = BTreeMap::new();
        let posts = self
            .ops
            .iter()
            .zip(0_u64..)
            .filter(|(op, _)| op.ask == Ask::Post);
        for (op, number) in posts {
            let Some(Answer::Done(_, index)) = op.answer else {
                continue;
            };
            let key = Ask::Post.key().child(format!("{index:020}").as_bytes());
            let value = end
                .get(&key)
                .ok()
                .and_then(|node| super::checks::number_in(node.value()?));
            if value != Some(number) {
                return Err(format!(
                    "POST #{number} was answered with {index}, where {value:?} is"
                ));
            }
            last_returned.insert(index, number);
        }
        let mut earliest_return_above = u64::MAX;
        for (index, number) in last_returned.iter().rev() {
            let op = &self.ops[*number as usize];
            if op.called > earliest_return_above {
                return Err(format!(
                    "POST #{number} at {index} was asked after a later one returned"
                ));
            }
            earliest_return_above = earliest_return_above.min(op.returned.unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// A client reads what it wrote to its own key, until the key expires.
    fn check_leases(&self) -> Checked {
        let mut held: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (op, number) in self.ops.iter().zip(0..) {
            match (&op.ask, &op.answer) {
                (Ask::Lease(key, ttl), Some(Answer::Done(..))) => {
                    held.insert(*key, (number, op.called + ttl * TTL_SECOND));
                }
                (Ask::ReadLease(key), Some(Answer::Found(found))) => {
                    let Some((wrote, until)) = held.get(key) else {
                        continue;
                    };
                    let returned = op.returned.unwrap_or(u64::MAX);
                    let strict = self.profile.kind == Kind::TimesToLive;
                    match found {
                        Some((value, _)) if value != wrote => {
                            return Err(format!(
                                "#{number} read #{value} of its own key, not #{wrote}"
                            ));
                        }
                        None if strict && returned + SLACK < *until => {
                            return Err(format!("expired early: #{wrote}, read by #{number}"));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
