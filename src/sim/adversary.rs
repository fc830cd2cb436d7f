//! Adversarial schedules: faults that are chosen from the state of the cluster, not at random.
//!
//! Some violations need three or four faults in a certain order, each within a millisecond. Random faults do not produce
//! them in thousands of seeds. So an adversary inspects all nodes after every event, and cuts a link, or stops or kills
//! a process, at the moment that its plan needs. It has no other means. It invents and alters no message, delivers none
//! on a cut link, and changes members only by a request to a leader. Other faults of the profile happen at the same
//! time, so a plan often fails. Then the adversary restores all links and begins again.

use super::cluster::{Checked, Cluster};
use super::fault_profile::{Adversary, ELECTION, Kind};
use super::power::Down;
use super::trace::Happening;
use crate::raft::{HardState, NodeId, Position};

/// The stage of the plan.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: Stage,
    /// The time of the next action. A plan that waits for the cluster is aborted at this time.
    due: u64,
}

/// The state of the plan.
#[derive(Debug, Default, Clone, Copy)]
enum Stage {
    /// Waits until `due`, then until the condition of the plan holds.
    #[default]
    Idle,
    /// [`Adversary::OldEntry`]: `old` leads, is cut off, and appends entries that no other member receives.
    Alone { old: NodeId },
    /// `new` has led since, but its messages were lost, and it is cut off. `old` must send its `entry` to the others.
    Returned {
        old: NodeId,
        new: NodeId,
        entry: Position,
    },
    /// [`Adversary::TwoChanges`]: `old` has removed `out`, and no other member has received the entry.
    Removed { old: NodeId, out: NodeId },
    /// `new` is being elected; `kept` receives no message of it, so that it stays in `old`'s half.
    Elected {
        old: NodeId,
        new: NodeId,
        kept: NodeId,
    },
    /// `new` has removed `old`.
    Both {
        old: NodeId,
        new: NodeId,
        kept: NodeId,
    },
    /// [`Adversary::Sleeper`]: a leader was paused, and replies to it are in transit.
    Dozing { leader: NodeId, wakes: u64 },
    /// The last stage: the nodes that could cause the violation are connected again.
    Last,
}

impl Cluster {
    /// Runs after every event: does the next action if its condition holds.
    pub(super) fn adversary(&mut self) -> Checked {
        let Kind::Adversary(adversary) = self.profile.kind else {
            return Ok(());
        };
        if self.repaired.is_some() {
            return Ok(());
        }
        let late = self.now >= self.plan.due;
        match (self.plan.stage, adversary) {
            (Stage::Idle, _) if !late => {}
            (Stage::Idle, Adversary::OldEntry) => self.leave_alone(),
            (Stage::Idle, Adversary::TwoChanges) => return self.first_change(),
            (Stage::Idle, Adversary::Sleeper) => self.put_to_sleep(),
            (Stage::Dozing { leader, wakes }, _) if late => self.let_others_lead(leader, wakes),
            _ if late => self.give_up_plan(),
            (Stage::Alone { old }, _) => self.silence_next(old),
            (Stage::Returned { old, new, entry }, _) => self.count_old(old, new, entry),
            (Stage::Removed { old, out }, _) => self.keep_one(old, out),
            (Stage::Elected { old, new, kept }, _) => return self.second_change(old, new, kept),
            (Stage::Both { old, new, kept }, _) => self.part(old, new, kept),
            (Stage::Dozing { .. } | Stage::Last, _) => {}
        }
        Ok(())
    }

    fn go_to(&mut self, stage: Stage, within: (u64, u64)) {
        self.note(|_| Happening::Nemesis(format!("plan: {stage:?}")));
        let due = self.now + self.random.within(within);
        self.plan = Progress { stage, due };
    }

    /// The plan has failed or ended.
    fn give_up_plan(&mut self) {
        self.cuts.clear();
        self.go_to(Stage::Idle, (ELECTION / 10, 2 * ELECTION));
    }

    // Figure 8: an entry of an old term is on a majority's disks, and may still be replaced.

    fn leave_alone(&mut self) {
        if let Some(old) = self.leader() {
            self.isolate(old);
            self.go_to(Stage::Alone { old }, PATIENCE);
        }
    }

    /// The next leader appends an entry that no other member receives.
    fn silence_next(&mut self, old: NodeId) {
        if let Some((new, _)) = self.about_to_lead(old) {
            let others = self.all_but(&[new]);
            self.cuts.extend(others.into_iter().map(|to| (new, to)));
        }
        let Some(new) = self.leader().filter(|new| *new != old) else {
            return;
        };
        let Some(last) = self.last_stored(new) else {
            return;
        };
        let life = self.nodes[&old].life.as_ref();
        let Some(entry) = life.and_then(|life| life.engine.position_at(last.index)) else {
            return;
        };
        if !self.holds(old, entry) {
            return;
        }
        self.cuts.clear();
        self.hold_back(new);
        self.keep_apart(&[old, new]);
        self.go_to(Stage::Returned { old, new, entry }, PATIENCE);
    }

    /// The old entry is delivered to the others, but no entry after it.
    fn count_old(&mut self, old: NodeId, new: NodeId, entry: Position) {
        for id in self.all_but(&[old, new]) {
            let core = self.nodes[&id].life.as_ref().map(|life| &life.engine);
            if core.is_some_and(|core| core.position_at(entry.index) == Some(entry)) {
                self.cuts.insert((old, id));
            }
        }
        let core = self.nodes[&old].life.as_ref().map(|life| &life.engine);
        if core.is_some_and(|core| core.is_leader() && core.commit() >= entry.index) {
            self.cuts.clear();
            self.hold_back(old);
            self.keep_apart(&[old, new]);
            self.go_to(Stage::Last, PATIENCE);
        }
    }

    // 2015: two leaders, each with its own membership change, and majorities that do not overlap.

    fn first_change(&mut self) -> Checked {
        let Some(old) = self.leader().filter(|id| self.is_settled(*id)) else {
            return Ok(());
        };
        let Some(life) = self.life(old) else {
            return Ok(());
        };
        let members = life.engine.membership().clone();
        let voters = members.voters;
        let others: Vec<NodeId> = voters.iter().copied().filter(|id| *id != old).collect();
        let Some(out) = self.random.pick(&others) else {
            return Ok(());
        };
        if voters.len() == 4 {
            self.isolate(old);
            self.remove_member(old, out)?;
            self.go_to(Stage::Removed { old, out }, PATIENCE);
            // It must refuse a second change. Otherwise it would soon be a majority by itself.
            let mut more = others.into_iter().filter(|id| *id != out);
            return more.try_for_each(|id| self.remove_member(old, id));
        }
        // A removal makes the majority smaller only if the number of voters is even.
        self.go_to(Stage::Idle, (ELECTION / 10, ELECTION));
        match voters.len() > 4 {
            true => self.remove_member(old, out),
            false if members.learners.is_empty() => self.add_member(old),
            false => Ok(()),
        }
    }

    /// One of the voters for the next leader receives no further message of it.
    fn keep_one(&mut self, old: NodeId, out: NodeId) {
        let Some((new, voters)) = self.about_to_lead(old) else {
            return;
        };
        let kept = voters
            .into_iter()
            .filter(|id| ![old, out, new].contains(id));
        let kept: Vec<NodeId> = kept.collect();
        if let Some(kept) = self.random.pick(&kept) {
            self.cuts.insert((new, kept));
            self.go_to(Stage::Elected { old, new, kept }, PATIENCE);
        }
    }

    fn second_change(&mut self, old: NodeId, new: NodeId, kept: NodeId) -> Checked {
        if self.leader() != Some(new) {
            return Ok(());
        }
        self.go_to(Stage::Both { old, new, kept }, PATIENCE);
        self.remove_member(new, old)
    }

    /// Once the second change is committed, the half of the first may elect its leader.
    fn part(&mut self, old: NodeId, new: NodeId, kept: NodeId) {
        let Some(life) = &self.nodes[&new].life else {
            return;
        };
        let voters = &life.engine.membership().voters;
        if voters.contains(&old) || !self.is_settled(new) {
            return;
        }
        self.cuts.clear();
        for one in [old, kept] {
            for other in self.all_but(&[old, kept]) {
                self.cuts.extend([(one, other), (other, one)]);
            }
        }
        self.go_to(Stage::Last, PATIENCE);
    }

    // A leader that is paused while another one is elected, and receives reads when it continues.

    fn put_to_sleep(&mut self) {
        let Some(leader) = self.leader() else { return };
        // A heartbeat round is in progress. The leader finds the replies to it when it continues.
        let is_read =
            |number: &u64| (self.ops.get(*number as usize)).is_some_and(|op| op.ask.is_read());
        let life = self.nodes[&leader].life.as_ref();
        let asked = life.is_some_and(|life| life.pending.keys().any(is_read));
        if !asked {
            return;
        }
        let wakes = self.now + self.random.within((3 * ELECTION, 6 * ELECTION));
        self.node(leader).paused_until = wakes;
        let answers_take = 2 * self.profile.delay.1;
        self.go_to(Stage::Dozing { leader, wakes }, (500, answers_take));
    }

    fn let_others_lead(&mut self, leader: NodeId, wakes: u64) {
        self.isolate(leader);
        let left = wakes.saturating_sub(self.now);
        self.go_to(Stage::Last, (left, left + ELECTION / 2));
    }

    // What the adversary inspects and does

    /// A node that has enough votes, but has not received them yet.
    fn about_to_lead(&self, not: NodeId) -> Option<(NodeId, Vec<NodeId>)> {
        let nodes = self.nodes.values().filter(|node| node.id != not);
        nodes.into_iter().find_map(|node| {
            let core = &node.life.as_ref()?.engine;
            let own = HardState {
                vote: Some(node.id),
                ..core.hard_state()
            };
            let said_yes = |id: &NodeId| self.checks.borrow_mut().mirror(*id).hard_state == own;
            let voters = core.membership().voters.iter().copied();
            let yes: Vec<NodeId> = voters.filter(said_yes).collect();
            let enough = yes.len() >= core.membership().majority();
            (enough && !core.is_leader()).then_some((node.id, yes))
        })
    }

    /// The end of a leader's log, if it is of the leader's own term, on its disk, and on no other disk.
    fn last_stored(&self, leader: NodeId) -> Option<Position> {
        let core = &self.nodes[&leader].life.as_ref()?.engine;
        let last = core.last_position();
        let own = last.term == core.term() && self.holds(leader, last);
        let elsewhere = self.all_but(&[leader]).into_iter().any(|id| {
            let life = self.nodes[&id].life.as_ref();
            life.is_some_and(|life| life.engine.position_at(last.index) == Some(last))
        });
        (own && !elsewhere).then_some(last)
    }

    fn holds(&self, id: NodeId, position: Position) -> bool {
        self.checks.borrow_mut().mirror(id).holds(position)
    }

    /// Whether a leader's membership is committed, and with it an entry of its own term.
    fn is_settled(&self, leader: NodeId) -> bool {
        let life = self.nodes[&leader].life.as_ref();
        life.is_some_and(|life| {
            let core = &life.engine;
            core.metadata_at(core.commit()).is_some_and(|metadata| {
                metadata.position.term == core.term() && metadata.membership == *core.membership()
            })
        })
    }

    pub(super) fn all_but(&self, these: &[NodeId]) -> Vec<NodeId> {
        let all = self.nodes.keys();
        all.filter(|id| !these.contains(id)).collect()
    }

    /// Cuts a node off from now on. It may also be down for a while.
    fn hold_back(&mut self, id: NodeId) {
        self.isolate(id);
        match self.random.below(3) {
            0 => self.down(id, Down::Crash("crash")),
            1 => self.down(id, Down::Kill("killed")),
            _ => {}
        }
    }

    /// Cuts all links among the others, so that none of them is elected.
    fn keep_apart(&mut self, these: &[NodeId]) {
        let others = self.all_but(these);
        for one in &others {
            let rest = others.iter().filter(|other| *other != one);
            self.cuts.extend(rest.map(|other| (*one, *other)));
        }
    }
}

/// How long a plan waits for its condition: an election or two.
const PATIENCE: (u64, u64) = (4 * ELECTION, 8 * ELECTION);
