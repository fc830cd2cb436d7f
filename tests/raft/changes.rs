//! Which membership changes a leader accepts (hazard D11): tests every cluster size up to seven with every number of
//! members down.

use crate::cluster::{Cluster, change, members};
use edgetcd::raft::{AllRules, ChangeKind, Input, NodeId, Refusal, Settings};
use std::sync::Arc;

const NEWCOMER: NodeId = NodeId(99);
const PATIENCE: u32 = 400;

/// A cluster with a leader that has lost `dead` of its followers, long enough ago for the leader to know.
struct Scene {
    cluster: Cluster<AllRules>,
    leader: NodeId,
    living: Vec<NodeId>,
    dead: Vec<NodeId>,
}

impl Scene {
    fn new(size: u64, dead: usize) -> Scene {
        let mut cluster = Cluster::new();
        let voters: Vec<NodeId> = (1..=size).map(NodeId).collect();
        for id in &voters {
            cluster.add(Settings::new(*id, size), members(&voters));
        }
        for id in &voters {
            cluster.start(*id).expect("no promise breaks");
        }
        let mut scene = Scene {
            cluster,
            leader: NodeId(0),
            living: Vec::new(),
            dead: Vec::new(),
        };
        scene.wait("a leader", |scene| scene.cluster.leader().is_some());
        scene.leader = scene.cluster.leader().expect("it was waited for");
        let mut followers = voters;
        followers.retain(|id| *id != scene.leader);
        scene.living = followers.split_off(dead);
        scene.dead = followers;
        for id in scene.dead.clone() {
            scene.cluster.crash(id, 0);
        }
        (0..2 * Settings::new(NodeId(1), 1).election_ticks).for_each(|_| scene.tick());
        scene
    }

    fn tick(&mut self) {
        let ticked = self.cluster.tick().and_then(|()| self.cluster.settle());
        ticked.expect("no promise breaks");
    }

    #[track_caller]
    fn wait(&mut self, what: &str, done: impl Fn(&Scene) -> bool) {
        for _ in 0..PATIENCE {
            if done(self) {
                return;
            }
            self.tick();
        }
        panic!("never: {what}");
    }

    /// Sends a request to the leader. If the leader accepts a change, it is committed when this returns.
    fn ask(&mut self, input: Input) -> Result<(), Refusal> {
        let core = self.cluster.node(self.leader).core.as_ref();
        let before = core.expect("the leader is up").last_position();
        let effects = self.refusal_of(input);
        effects.map_or(Ok(()), Err)?;
        let leader = self.leader;
        self.wait("an accepted change is committed", |scene| {
            let core = scene.cluster.nodes[&leader].core.as_ref();
            core.is_none_or(|core| core.commit() > before.index)
        });
        Ok(())
    }

    fn refusal_of(&mut self, input: Input) -> Option<Refusal> {
        use crate::cluster::Effect;
        self.cluster.tracing = true;
        self.cluster.effects.clear();
        let stepped = self.cluster.step(self.leader, input);
        stepped.expect("no promise breaks");
        self.cluster.effects.iter().find_map(|effect| match effect {
            Effect::Done { todo, .. } => todo.refused,
            Effect::Sent { .. } => None,
        })
    }

    fn writes(&mut self) -> Result<(), Refusal> {
        self.ask(Input::Propose {
            term: None,
            commands: vec![Arc::from(&b"a"[..])],
        })
    }
}

fn matrix() -> impl Iterator<Item = (u64, usize)> {
    (1..=7).flat_map(|size| (0..size as usize).map(move |dead| (size, dead)))
}

fn has_majority(living: usize, size: u64) -> bool {
    2 * living as u64 > size
}

#[test]
fn nothing_changes_without_a_living_majority() {
    for (size, dead) in matrix().filter(|(size, dead)| !has_majority(*size as usize - dead, *size))
    {
        let mut scene = Scene::new(size, dead);
        assert_eq!(scene.cluster.leader(), None, "{dead} of {size} are down");
        for (kind, node) in [
            (ChangeKind::AddLearner, NEWCOMER),
            (ChangeKind::Remove, scene.dead[0]),
        ] {
            let refusal = scene.refusal_of(change(kind, node));
            assert_eq!(refusal, Some(Refusal::NotLeader { leader: None }));
        }
    }
}

#[test]
fn a_member_may_be_added_while_a_minority_is_down_and_blocks_no_writes() {
    for (size, dead) in matrix().filter(|(size, dead)| has_majority(*size as usize - dead, *size)) {
        let mut scene = Scene::new(size, dead);
        let what = format!("{dead} of {size} are down");
        let added = scene.ask(change(ChangeKind::AddLearner, NEWCOMER));
        assert_eq!(added, Ok(()), "{what}");
        // The new member never starts.
        assert_eq!(scene.writes(), Ok(()), "{what}");
        let early = scene.refusal_of(change(ChangeKind::Promote, NEWCOMER));
        assert_eq!(early, Some(Refusal::NotCaughtUp), "{what}");
        assert_eq!(scene.ask(change(ChangeKind::Remove, NEWCOMER)), Ok(()));
        assert_eq!(scene.writes(), Ok(()), "{what}");
    }
}

#[test]
fn a_dead_member_may_go_while_a_majority_lives() {
    for (size, dead) in matrix().filter(|(size, dead)| has_majority(*size as usize - dead, *size)) {
        let mut scene = Scene::new(size, dead);
        for (gone, node) in scene.dead.clone().into_iter().enumerate() {
            let what = format!("{dead} of {size} are down, {gone} of them gone");
            let removed = scene.ask(change(ChangeKind::Remove, node));
            assert_eq!(removed, Ok(()), "{what}");
            assert_eq!(scene.writes(), Ok(()), "{what}");
        }
    }
}

#[test]
fn a_living_member_may_go_if_those_who_stay_can_decide() {
    for (size, dead) in matrix().filter(|(size, dead)| has_majority(*size as usize - dead, *size)) {
        let mut scene = Scene::new(size, dead);
        let node = scene.living.first().copied().unwrap_or(scene.leader);
        let removed = scene.ask(change(ChangeKind::Remove, node));
        let rest = has_majority(size as usize - dead - 1, size - 1);
        let expected = if rest {
            Ok(())
        } else {
            Err(Refusal::QuorumLost)
        };
        assert_eq!(removed, expected, "{dead} of {size} are down");
        assert_eq!(scene.writes(), Ok(()), "{dead} of {size} are down");
    }
}
