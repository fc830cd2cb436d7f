//! Faults at random times, with the weights of the fault profile.

use super::clock::Pace;
use super::cluster::{Checked, Cluster, Event};
use super::desk::Change;
use super::fault_profile::{Act, ELECTION, Kind};
use super::power::Down;
use super::trace::Happening;
use crate::engine::{self, PeerEvent};
use crate::raft::NodeId;

/// Nodes that may join in addition to the founders.
pub(super) const GUESTS: u64 = 3;
const DAY_NS: i64 = 86_400_000_000_000;

impl Cluster {
    pub(super) fn begin_nemesis(&mut self) {
        let wait = match self.profile.kind {
            Kind::Scenario(_) => ELECTION,
            _ => 2 * ELECTION,
        };
        self.after(wait, Event::Nemesis);
    }

    /// Causes the next fault.
    pub(super) fn nemesis(&mut self) -> Checked {
        if self.repaired.is_some() {
            return Ok(());
        }
        match self.profile.kind {
            Kind::Scenario(scenario) => return self.disturb(scenario),
            Kind::Handovers(_) => return Ok(()),
            _ => {}
        }
        let wait = self.random.within(self.profile.every);
        self.after(wait, Event::Nemesis);
        let act = self.profile.act(&mut self.random);
        match act {
            Act::CutOneWay | Act::CutBoth | Act::Isolate | Act::Mend => self.cut(act),
            Act::Transfer | Act::Add | Act::Remove => return self.change(act),
            Act::Wipe => return self.wipe_some(),
            _ => return self.harm(act),
        }
        Ok(())
    }

    fn some_node(&mut self) -> Option<NodeId> {
        let leader = self
            .leader()
            .filter(|_| self.random.one_in(self.profile.aimed_one_in));
        let up = self.up();
        leader.or_else(|| self.random.pick(&up))
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        self.note(|_| Happening::Nemesis(what()));
    }

    fn harm(&mut self, act: Act) -> Checked {
        let Some(id) = self.some_node() else {
            return Ok(());
        };
        let now = self.now;
        if !matches!(act, Act::Crash | Act::Kill) {
            self.say(|| format!("{act:?} n{}", id.0));
        }
        match act {
            Act::Crash => return self.die(id, Down::Crash("crash")),
            Act::Kill => return self.die(id, Down::Kill("killed")),
            Act::Stop => return self.tell_to_stop(id),
            Act::PowerCut => {
                let changes = self.random.below(12);
                self.node(id).disk.cut_power_after(changes);
            }
            Act::FailSync => {
                let good = self.random.below(5);
                self.node(id).disk.fail_sync_after(good);
            }
            Act::SlowDisk => {
                let lasts = self.random.within((ELECTION, 4 * ELECTION));
                self.node(id).slow_disk_until = now + lasts;
            }
            Act::HangDisk => {
                let lasts = self.random.within((ELECTION, 8 * ELECTION));
                self.node(id).hung_disk_until = now + lasts;
            }
            Act::FillDisk => {
                let (some, one_in) = (self.random.below(48 << 10), self.random.one_in(3));
                let disk = &self.node(id).disk;
                let used = disk.used();
                disk.set_capacity(if one_in { u64::MAX } else { used + some });
            }
            Act::Pause => {
                let lasts = self.random.within((ELECTION / 4, 5 * ELECTION));
                self.node(id).paused_until = now + lasts;
            }
            Act::Pace => {
                let paces = [Pace::Half, Pace::True, Pace::Double];
                let pace = self.random.pick(&paces).unwrap_or(Pace::True);
                self.node(id).machine.set_pace(now, pace);
            }
            Act::WallJump => {
                let days = self.random.below(21) as i64 - 10;
                self.node(id).machine.set_wall(days * DAY_NS / 2);
            }
            Act::Unreachable if self.random.one_in(3) => return self.report_removed(id),
            Act::Unreachable => {
                let Some(node) = self.some_node() else {
                    return Ok(());
                };
                return self.peers(id, PeerEvent::Unreachable(node));
            }
            _ => unreachable!("{act:?} harms no node"),
        }
        Ok(())
    }

    /// A member reports a removal that did not happen, as one does that was started with `--force-new-cluster`. Always the
    /// same one, because two members without a leader are believed, and also the only other member.
    fn report_removed(&mut self, to: NodeId) -> Checked {
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let ids = life.engine.state().members.iter().map(|member| member.id);
        let ids: Vec<u64> = ids.filter(|id| *id != to.0).collect();
        match ids[..] {
            [by, _, ..] => self.peers(to, PeerEvent::Removed { by: NodeId(by) }),
            _ => Ok(()),
        }
    }

    fn cut(&mut self, act: Act) {
        let all: Vec<NodeId> = self.nodes.keys().collect();
        let (Some(one), Some(other)) = (self.some_node(), self.random.pick(&all)) else {
            return;
        };
        match act {
            Act::Mend => {
                self.cuts.clear();
                self.say(|| "links restored".into());
            }
            Act::Isolate => {
                self.isolate(one);
                self.say(|| format!("n{} is cut off", one.0));
            }
            _ if one == other => {}
            _ => {
                self.cuts.insert((one, other));
                if act == Act::CutBoth {
                    self.cuts.insert((other, one));
                }
                self.say(|| format!("{act:?} n{} → n{}", one.0, other.0));
            }
        }
    }

    pub(super) fn isolate(&mut self, one: NodeId) {
        let others = self.nodes.keys().filter(|id| *id != one);
        for other in others.collect::<Vec<_>>() {
            self.cuts.insert((one, other));
            self.cuts.insert((other, one));
        }
    }

    /// A node that leads, or believes that it leads.
    fn some_leader(&mut self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let life = self.nodes[id].life.as_ref();
            life.is_some_and(|life| life.engine.is_leader())
        };
        let leaders: Vec<NodeId> = self.up().into_iter().filter(leads).collect();
        self.random.pick(&leaders)
    }

    fn change(&mut self, act: Act) -> Checked {
        let Some(leader) = self.some_leader() else {
            return Ok(());
        };
        let Some(life) = self.life(leader) else {
            return Ok(());
        };
        let members = life.engine.membership().clone();
        let up = self.up();
        let any = self.random.pick(&up).unwrap_or(leader);
        match act {
            Act::Transfer => {
                let voters: Vec<NodeId> = members.voters.into_iter().collect();
                let to = self.random.pick(&voters).filter(|to| to.0 % 2 == 0);
                self.say(|| format!("n{} hands over to {to:?}", leader.0));
                self.step_engine(leader, engine::Event::Transfer(to))
            }
            Act::Add => self.add_member(any),
            _ => {
                let all: Vec<NodeId> = members
                    .voters
                    .iter()
                    .chain(&members.learners)
                    .copied()
                    .collect();
                let enough = members.voters.len() > 2;
                match self.random.pick(&all).filter(|_| enough) {
                    Some(node) => self.remove_member(any, node),
                    None => Ok(()),
                }
            }
        }
    }

    pub(super) fn add_member(&mut self, at: NodeId) -> Checked {
        let is_asked = |change: &Change| matches!(change, Change::Add(_));
        let id = self.next_node;
        if id > self.settings.nodes + GUESTS || self.changes.values().any(is_asked) {
            return Ok(());
        }
        self.ask_change(at, Change::Add(NodeId(id)))
    }

    pub(super) fn remove_member(&mut self, at: NodeId, node: NodeId) -> Checked {
        self.ask_change(at, Change::Remove(node))
    }

    /// Faults that happen as soon as a leader is elected.
    pub(super) fn new_leader(&mut self, id: NodeId) {
        if self.profile.hasty && self.repaired.is_none() {
            let wait = self.random.below(3_000);
            self.after(wait, Event::Hasty { node: id });
        }
    }

    /// Sends a new leader the request to remove a member.
    pub(super) fn hasty(&mut self, leader: NodeId) -> Checked {
        let Some(life) = self.life(leader) else {
            return Ok(());
        };
        let voters: Vec<NodeId> = life.engine.membership().voters.iter().copied().collect();
        match self.random.pick(&voters).filter(|_| voters.len() > 2) {
            Some(node) => self.remove_member(leader, node),
            None => Ok(()),
        }
    }
}
