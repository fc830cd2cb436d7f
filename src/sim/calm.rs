//! One thing goes wrong in a healthy cluster, and what must come of it is known.
//!
//! Some rules keep nobody from a wrong answer: they keep a cluster from being disturbed, or from standing
//! still. What they are good for shows only where nothing else is wrong, so here nothing else is.

use super::clock::Pace;
use super::cluster::{Checked, Cluster, Event};
use super::power::Down;
use super::weather::{Calm, ELECTION};
use crate::raft::{NodeId, Term};

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: u32,
    /// Who led when it began, and in which term.
    led: Option<(NodeId, Term)>,
    victim: Option<NodeId>,
    /// Clients ask nothing.
    pub quiet: bool,
}

impl Cluster {
    /// Goes on to the next stage.
    pub(super) fn disturb(&mut self, calm: Calm) -> Checked {
        self.calm.stage += 1;
        let wait = match self.calm.stage {
            1 => {
                self.calm.quiet = matches!(calm, Calm::DeafToLeader | Calm::Removed);
                8 * ELECTION
            }
            2 => {
                self.begin(calm)?;
                5 * ELECTION
            }
            3 => {
                self.go_on(calm)?;
                6 * ELECTION
            }
            _ => return self.judge(calm),
        };
        self.after(wait, Event::Nemesis);
        Ok(())
    }

    fn begin(&mut self, calm: Calm) -> Checked {
        let Some(leader) = self.leader() else {
            return Err("liveness: nobody leads a healthy cluster".into());
        };
        let term = self.nodes[&leader]
            .life
            .as_ref()
            .map(|life| life.core.ballot().term);
        self.calm.led = term.map(|term| (leader, term));
        let others: Vec<NodeId> = self.up().into_iter().filter(|id| *id != leader).collect();
        let Some(victim) = self.random.pick(&others) else {
            return Ok(());
        };
        self.calm.victim = Some(victim);
        match calm {
            Calm::Isolated => self.isolate(victim),
            Calm::DeafToLeader => drop(self.cuts.insert((leader, victim))),
            Calm::DeafLeader => self.cuts.extend(others.iter().map(|id| (*id, leader))),
            Calm::FastAndStale => {
                let now = self.now;
                self.isolate(victim);
                self.node(victim).machine.set_pace(now, Pace::Double);
            }
            Calm::Removed => {
                let deaf = self.up().into_iter().filter(|id| *id != victim);
                self.cuts
                    .extend(deaf.map(|id| (id, victim)).collect::<Vec<_>>());
                return self.remove_member(leader, victim);
            }
        }
        Ok(())
    }

    fn go_on(&mut self, calm: Calm) -> Checked {
        match calm {
            Calm::Isolated => self.cuts.clear(),
            Calm::FastAndStale => {
                self.cuts.clear();
                if let Some((leader, _)) = self.calm.led {
                    self.down(leader, Down::Kill("killed"));
                }
            }
            Calm::DeafToLeader | Calm::DeafLeader | Calm::Removed => {}
        }
        Ok(())
    }

    fn judge(&mut self, calm: Calm) -> Checked {
        let leader = self.leader();
        let term = |id: NodeId| {
            self.nodes[&id]
                .life
                .as_ref()
                .map(|life| life.core.ballot().term)
        };
        let now = leader.and_then(|id| Some((id, term(id)?)));
        let before = self.calm.led;
        let good = match calm {
            Calm::Isolated | Calm::DeafToLeader | Calm::Removed => now == before,
            Calm::DeafLeader | Calm::FastAndStale => {
                now.map(|now| now.0) != before.map(|led| led.0)
            }
        };
        match good && now.is_some() {
            true => Ok(()),
            false => Err(format!("calm: {calm:?}: {before:?} led, now {now:?} does")),
        }
    }
}
