//! Random clusters from a seed: lost, duplicated and reordered messages, cut links, crashes that lose unsaved data,
//! membership changes, leadership transfers, snapshots. Every check must hold at all times. When all faults are removed, one
//! leader must bring all members to the same log.
//!
//! To show that the checks can fail, other tests run with single rules switched off.

use crate::cluster::{Cluster, Outcome, change, members};
use edgetcd::raft::{AllRules, ChangeKind, Input, LogIndex, Membership, NodeId, Rules, Settings};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A separate generator, so that the random numbers of the core do not depend on those of the test (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn settings(id: u64, seed: u64) -> Settings {
    Settings {
        election_ticks: 10,
        heartbeat_ticks: 2,
        // So small that reading back, windows and refusals occur in every run.
        memory_bytes: 600,
        batch_bytes: 200,
        window_bytes: 500,
        uncommitted_bytes: 2000,
        ..Settings::new(NodeId(id), seed)
    }
}

/// Three or five nodes that know each other, and one more that may join.
fn cluster<R: Rules>(seed: u64) -> Cluster<R> {
    let mut cluster = Cluster::new();
    let count = 3 + 2 * (seed / 4 % 2);
    let voters: Vec<NodeId> = (1..=count).map(NodeId).collect();
    for id in 1..=count {
        cluster.add(settings(id, seed), members(&voters));
    }
    cluster.add(settings(count + 1, seed), Membership::default());
    cluster
}

/// The weights of the actions, in the order of [`Run::act`].
#[derive(Debug, Clone, Copy)]
struct FaultProfile {
    weights: [usize; 14],
    slow_clock: Option<NodeId>,
}

impl FaultProfile {
    /// No faults, slow disks with crashes, a slow clock behind cut links, and many snapshots, in turn.
    fn of(seed: u64) -> FaultProfile {
        let (weights, slow_clock) = match seed % 4 {
            0 => ([450, 210, 190, 70, 20, 20, 8, 8, 8, 4, 6, 2, 2, 2], None),
            1 => ([450, 90, 260, 50, 10, 10, 40, 10, 4, 4, 2, 2, 4, 2], None),
            2 => (
                [450, 210, 250, 50, 60, 20, 2, 16, 8, 4, 2, 2, 8, 2],
                Some(NodeId(1 + seed % 3)),
            ),
            _ => ([450, 210, 190, 50, 20, 20, 8, 8, 40, 40, 6, 2, 2, 10], None),
        };
        FaultProfile {
            weights,
            slow_clock,
        }
    }
}

struct Run<R: Rules> {
    cluster: Cluster<R>,
    profile: FaultProfile,
    dice: Dice,
    next_read: u64,
}

impl<R: Rules> Run<R> {
    fn new(seed: u64) -> Run<R> {
        Run {
            cluster: cluster(seed),
            profile: FaultProfile::of(seed),
            dice: Dice::new(seed),
            next_read: 0,
        }
    }

    fn any(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        self.dice.pick(&ids)
    }

    /// A node that is leader, or believes that it is. There may be several.
    fn any_leader(&mut self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            self.cluster.nodes[id]
                .core
                .as_ref()
                .is_some_and(|core| core.is_leader())
        };
        let leaders: Vec<NodeId> = self.cluster.ids().into_iter().filter(leads).collect();
        if leaders.is_empty() {
            None
        } else {
            Some(self.dice.pick(&leaders))
        }
    }

    fn act(&mut self) -> Outcome {
        let weights = self.profile.weights;
        let mut drawn = self.dice.below(weights.iter().sum());
        let act = weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        match act.expect("less than their sum") {
            0 => self.deliver(),
            1 => {
                let id = self.any();
                self.cluster.store(id).map(drop)
            }
            2 => self.tick(),
            3 => self.propose(),
            4 => self.read(),
            5 => {
                let id = self.any();
                self.cluster.read_back(id).map(drop)
            }
            6 => self.crash_or_restart(),
            7 => self.cut_or_heal(),
            8 => {
                let id = self.any();
                self.cluster.compact(id)
            }
            9 => self.deliver_snapshot(),
            10 => self.change(),
            11 => self.transfer(),
            12 => self.hint(),
            _ => self.unreachable(),
        }
    }

    /// One of the nodes may have a slow clock.
    fn tick(&mut self) -> Outcome {
        let id = self.any();
        if self.profile.slow_clock == Some(id) && !self.dice.one_in(10) {
            return Ok(());
        }
        self.cluster.step(id, Input::Tick)
    }

    /// Delivers a snapshot, and sometimes delivers it a second time later.
    fn deliver_snapshot(&mut self) -> Outcome {
        if self.cluster.snapshots.is_empty() {
            return Ok(());
        }
        if self.dice.one_in(2) {
            let again = self.cluster.snapshots[0].clone();
            self.cluster.snapshots.push(again);
        }
        self.cluster.deliver_snapshot(0)
    }

    /// Delivers mostly the oldest message, sometimes another one, none, or one twice.
    fn deliver(&mut self) -> Outcome {
        let waiting = self.cluster.flights.len();
        if waiting == 0 {
            return Ok(());
        }
        let at = if self.dice.one_in(3) {
            self.dice.below(waiting)
        } else {
            0
        };
        if self.dice.one_in(25) {
            self.cluster.flights.remove(at);
            return Ok(());
        }
        if self.dice.one_in(25) {
            let twice = self.cluster.flights[at].clone();
            self.cluster.flights.push(twice);
        }
        self.cluster.deliver(at)
    }

    fn propose(&mut self) -> Outcome {
        let Some(leader) = self.any_leader() else {
            return Ok(());
        };
        let count = 1 + self.dice.below(3);
        let commands = (0..count).map(|_| format!("{}", self.dice.below(1000)).into_bytes().into());
        let commands = commands.collect();
        self.cluster.step(
            leader,
            Input::Propose {
                term: None,
                commands,
            },
        )
    }

    fn read(&mut self) -> Outcome {
        let Some(leader) = self.any_leader() else {
            return Ok(());
        };
        self.next_read += 1;
        self.cluster.read(leader, self.next_read)
    }

    fn crash_or_restart(&mut self) -> Outcome {
        let id = self.any();
        let queued = self.cluster.nodes[&id].queue.len();
        if self.cluster.nodes[&id].core.is_none() {
            return self.cluster.start(id);
        }
        let kept = self.dice.below(queued + 1);
        self.cluster.crash(id, kept);
        Ok(())
    }

    fn cut_or_heal(&mut self) -> Outcome {
        if self.dice.one_in(2) {
            self.cluster.cuts.clear();
            return Ok(());
        }
        let (one, other) = (self.any(), self.any());
        self.cluster.cuts.insert((one, other));
        if self.dice.one_in(2) {
            self.cluster.cuts.insert((other, one));
        }
        Ok(())
    }

    fn change(&mut self) -> Outcome {
        let Some(leader) = self.any_leader() else {
            return Ok(());
        };
        let node = self.any();
        let kind = self.dice.pick(&[
            ChangeKind::AddLearner,
            ChangeKind::Promote,
            ChangeKind::Remove,
        ]);
        self.cluster.step(leader, change(kind, node))
    }

    fn transfer(&mut self) -> Outcome {
        let Some(leader) = self.any_leader() else {
            return Ok(());
        };
        let to = if self.dice.one_in(2) {
            None
        } else {
            Some(self.any())
        };
        self.cluster.step(leader, Input::Transfer { to })
    }

    fn hint(&mut self) -> Outcome {
        let (id, leader) = (self.any(), self.any());
        self.cluster.step(id, Input::LeaderGone { leader })
    }

    fn unreachable(&mut self) -> Outcome {
        let (id, node) = (self.any(), self.any());
        self.cluster.step(id, Input::Unreachable { node })
    }

    fn start(&mut self) -> Outcome {
        self.cluster
            .ids()
            .into_iter()
            .try_for_each(|id| self.cluster.start(id))
    }

    /// Removes all faults, and checks that all members soon agree.
    fn mend(&mut self) -> Outcome {
        self.cluster.cuts.clear();
        for id in self.cluster.ids() {
            if self.cluster.nodes[&id].core.is_none() {
                self.cluster.start(id)?;
            }
        }
        for _ in 0..400 {
            self.cluster.settle()?;
            if self.agree() {
                return Ok(());
            }
            self.cluster.tick()?;
        }
        Err("liveness: no leader that all follow within 40 election timeouts".into())
    }

    fn agree(&self) -> bool {
        let Some(leader) = self.cluster.leader() else {
            return false;
        };
        let leader = self.cluster.nodes[&leader].core.as_ref().expect("it leads");
        let members = leader.membership();
        leader.commit() == leader.last_position().index
            && members.learners.is_empty()
            && members.voters.iter().all(|id| {
                let core = self.cluster.nodes[id].core.as_ref().expect("all are up");
                core.applied() == leader.commit() && core.leader() == Some(leader.id())
            })
    }
}

fn run<R: Rules>(seed: u64, actions: usize) -> Outcome {
    let mut run = Run::<R>::new(seed);
    run.start()?;
    (0..actions).try_for_each(|_| run.act())?;
    run.mend()
}

/// `SEEDS=20000` runs more of them.
#[test]
fn no_promise_breaks() {
    let seeds = std::env::var("SEEDS").map_or(400, |seeds| seeds.parse().expect("a number"));
    for seed in 0..seeds {
        if let Err(broken) = run::<AllRules>(seed, 1500) {
            panic!("seed {seed}: {broken}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let last = |seed| {
        let mut run = Run::<AllRules>::new(seed);
        run.start().unwrap();
        (0..1000).try_for_each(|_| run.act()).unwrap();
        format!("{:?}", run.cluster.nodes)
    };
    assert_eq!(last(5), last(5));
    assert_ne!(last(5), last(7));
}

#[test]
fn a_leader_is_elected_within_five_timeouts() {
    for seed in 0..100 {
        let mut cluster = Cluster::<AllRules>::new();
        let voters: Vec<NodeId> = (1..=5).map(NodeId).collect();
        (1..=5).for_each(|id| cluster.add(settings(id, seed), members(&voters)));
        cluster
            .ids()
            .into_iter()
            .try_for_each(|id| cluster.start(id))
            .unwrap();
        let elected = (0..50).any(|_| {
            cluster.tick().unwrap();
            cluster.settle().unwrap();
            cluster.leader().is_some()
        });
        assert!(elected, "seed {seed}");
    }
}

/// Runs seeds until a check or an assertion in the core fails.
fn finds_harm<R: Rules>(seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let outcome = catch_unwind(AssertUnwindSafe(|| run::<R>(seed, 3000)));
        match outcome {
            Ok(Err(broken)) if !broken.starts_with("liveness") => Some((seed, broken)),
            Ok(_) => None,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                Some((seed, said.unwrap_or_else(|| "an assertion".into())))
            }
        }
    })
}

macro_rules! without {
    ($($test:ident: $rule:ident),+ $(,)?) => { $(
        #[test]
        fn $test() {
            #[derive(Debug)]
            struct Without;
            impl Rules for Without {
                const $rule: bool = false;
            }
            let harm = finds_harm::<Without>(300);
            let (seed, broken) = harm.expect("a rule was off, and nothing broke");
            println!("seed {seed}: {broken}");
        }
    )+ };
}

without! {
    without_one_vote_a_term: ONE_VOTE_PER_TERM,
    without_comparing_logs: VOTER_COMPARES_LOGS,
    without_storing_before_an_ack: ACK_AFTER_STORE,
    without_storing_its_own: OWN_STORE_COUNTS,
    without_looking_at_the_previous_entry: PREVIOUS_MUST_MATCH,
    without_looking_for_a_conflict: TRUNCATE_ONLY_ON_CONFLICT,
    without_a_noop_before_reads: READ_AFTER_NOOP,
    without_a_new_round_for_reads: READ_ROUND_IS_NEW,
    without_looking_whether_a_snapshot_is_ahead: SNAPSHOT_ONLY_AHEAD,
}

/// Reads that cannot be confirmed are refused, and none is forgotten, because a client of the driver waits for each.
#[test]
fn every_read_is_answered_or_refused() {
    let mut cluster = Cluster::<AllRules>::new();
    let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
    (1..=3).for_each(|id| cluster.add(settings(id, 3), members(&voters)));
    cluster
        .ids()
        .into_iter()
        .try_for_each(|id| cluster.start(id))
        .unwrap();
    while cluster.leader().is_none() {
        cluster.tick().unwrap();
        cluster.settle().unwrap();
    }
    let leader = cluster.leader().expect("there is one now");
    cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .for_each(|id| cluster.crash(id, 0));
    cluster.read(leader, 1).unwrap();
    let core = cluster.node(leader).core.as_mut().expect("it is up");
    let refused = (0..20).find_map(|_| {
        let todo = core.step(Input::Tick);
        (!todo.refused_reads.is_empty()).then_some(todo.refused_reads)
    });
    assert_eq!(
        refused,
        Some(vec![1]),
        "its leader has stepped down by then"
    );
    assert!(!core.is_leader() && core.commit() > LogIndex(0));
}
