//! Repeated leadership transfers while clients write (hazard D20).
//!
//! Other runs contain few transfers among many other faults. Here, the leader is asked to transfer its
//! leadership, the result is checked, and a client that sends a request afterwards must be served. Then the next
//! transfer begins.
//!
//! - [`Handovers::Undisturbed`]: there are no other faults, so each transfer must succeed within an election timeout.
//! - [`Handovers::Disturbed`]: messages are lost and late, and the target often dies or is cut off during the transfer.
//!   Then the transfer may fail. The leader must accept writes again after its deadline.

use super::client::{Answer, Op};
use super::cluster::{Checked, Cluster};
use super::fault_profile::{ELECTION, Handovers, Kind, TICK};
use super::power::Down;
use super::trace::Happening;
use crate::engine;
use crate::raft::{NodeId, Term};

/// The results of all transfers of a run. Times are virtual microseconds.
#[derive(Debug, Default, Clone, Copy)]
pub struct Handed {
    /// Transfers that a leader began.
    pub asked: u64,
    /// Number of transfers after which the target led within an election timeout.
    pub over: u64,
    /// Number of transfers after which the old leader continued in its term.
    pub kept: u64,
    /// Number of transfers that failed although no fault affected them.
    pub failed_unharmed: u64,
    /// The longest time from the request to transfer until the target led.
    pub slowest: u64,
    /// The longest time from the request to transfer until a request that a client sent after the decision was served.
    pub longest_unserved: u64,
}

/// The state of the run.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of remaining transfers.
    left: u64,
    stage: Stage,
    handed: Handed,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Clients send requests. From `until` on, the next leader is asked to transfer its leadership.
    Rest { until: u64 },
    /// The leader was asked to transfer its leadership.
    Moving(Transfer),
    /// The transfer is decided. The operations from `first` on began after that, and one of their writes must succeed.
    Decided { transfer: Transfer, first: usize },
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Rest {
            until: 5 * ELECTION,
        }
    }
}

/// One transfer.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    at: u64,
    from: NodeId,
    term: Term,
    /// None: the leader chooses the target.
    to: Option<NodeId>,
    /// The fault, and its time.
    harm: Option<(u64, Harm)>,
    harmed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Crash,
    Kill,
    CutOff,
    /// The target receives the leader's messages, but its own messages are lost.
    Unheard,
}

const HARMS: [Harm; 4] = [Harm::Crash, Harm::Kill, Harm::CutOff, Harm::Unheard];

/// If there is no leader to ask, or no successful write, for this long, the run fails.
const LIMIT: u64 = 6 * ELECTION;

impl Cluster {
    pub(super) fn hand_over_often(&mut self, times: u64) {
        self.handovers.left = times;
    }

    /// The results so far.
    pub fn handed(&self) -> Handed {
        self.handovers.handed
    }

    /// Runs after every event: does the next action if its condition holds.
    pub(super) fn go_on_handing_over(&mut self) -> Checked {
        let Kind::Handovers(how) = self.profile.kind else {
            return Ok(());
        };
        if self.repaired.is_some() {
            return Ok(());
        }
        match self.handovers.stage {
            Stage::Rest { until } if self.now >= until => self.order_handover(how, until),
            Stage::Rest { .. } => Ok(()),
            Stage::Moving(transfer) => self.follow_handover(how, transfer),
            Stage::Decided { transfer, first } => self.await_service(how, transfer, first),
        }
    }

    fn order_handover(&mut self, how: Handovers, since: u64) -> Checked {
        if self.handovers.left == 0 {
            return self.mend();
        }
        let Some((from, term)) = self.leading() else {
            return match self.now > since + LIMIT {
                true => Err("handover: nobody leads who could hand over".into()),
                false => Ok(()),
            };
        };
        let others = self.all_but(&[from]);
        // The target that the leader chooses is not known, so there is no fault against it.
        let named = !self.random.one_in(4);
        let to = self.random.pick(&others).filter(|_| named);
        let harmed = named && how == Handovers::Disturbed && self.random.one_in(3);
        let harm = self.random.pick(&HARMS).filter(|_| harmed);
        let moment = self.now + self.random.below(2 * TICK);
        let harm = harm.map(|harm| (moment, harm));
        self.note(|_| Happening::Nemesis(format!("n{} hands over to {to:?}", from.0)));
        self.step_engine(from, engine::Event::Transfer(to))?;
        if let Some(refused) = self.refused {
            if how == Handovers::Undisturbed {
                return Err(format!("handover: n{} refuses: {refused:?}", from.0));
            }
            self.handovers.stage = Stage::Rest {
                until: self.now + TICK,
            };
            return Ok(());
        }
        self.handovers.left -= 1;
        self.handovers.handed.asked += 1;
        self.handovers.stage = Stage::Moving(Transfer {
            at: self.now,
            from,
            term,
            to,
            harm,
            harmed: false,
        });
        Ok(())
    }

    fn follow_handover(&mut self, how: Handovers, mut transfer: Transfer) -> Checked {
        let now_leads = self.leading().filter(|(_, term)| *term > transfer.term);
        let took = self.now - transfer.at;
        let in_time = took <= ELECTION;
        match now_leads {
            Some((leader, _)) => {
                let wanted = transfer.to.is_none_or(|to| to == leader) && leader != transfer.from;
                if wanted && in_time {
                    let handed = &mut self.handovers.handed;
                    handed.over += 1;
                    handed.slowest = handed.slowest.max(took);
                    self.decided(transfer);
                    return Ok(());
                }
                self.not_in_time(how, transfer)
            }
            // The leader counts its own ticks, and may have begun in the middle of one.
            None if took > ELECTION + TICK => self.not_in_time(how, transfer),
            None => {
                if let Some((_, harm)) = transfer.harm.take_if(|(at, _)| *at <= self.now) {
                    transfer.harmed = true;
                    self.handovers.stage = Stage::Moving(transfer);
                    self.harm_handover(transfer, harm);
                }
                Ok(())
            }
        }
    }

    fn harm_handover(&mut self, transfer: Transfer, harm: Harm) {
        let Some(to) = transfer.to else { return };
        self.note(|_| Happening::Nemesis(format!("{harm:?} n{}", to.0)));
        match harm {
            Harm::Crash => self.down(to, Down::Crash("crash")),
            Harm::Kill => self.down(to, Down::Kill("killed")),
            Harm::CutOff => self.isolate(to),
            Harm::Unheard => drop(self.cuts.insert((to, transfer.from))),
        }
    }

    fn not_in_time(&mut self, how: Handovers, transfer: Transfer) -> Checked {
        let leads = self.leading();
        if how == Handovers::Undisturbed {
            return Err(format!(
                "handover: not over within an election timeout: {transfer:?}, now {leads:?} leads"
            ));
        }
        let handed = &mut self.handovers.handed;
        handed.kept += u64::from(leads == Some((transfer.from, transfer.term)));
        handed.failed_unharmed += u64::from(!transfer.harmed);
        self.decided(transfer);
        Ok(())
    }

    /// The present leader must serve. A target that is cut off stays so until that is checked: the old leader
    /// must serve without it.
    fn decided(&mut self, transfer: Transfer) {
        let first = self.ops.len();
        self.handovers.stage = Stage::Decided { transfer, first };
    }

    fn await_service(&mut self, how: Handovers, transfer: Transfer, first: usize) -> Checked {
        let failed = |op: &&Op| matches!(op.answer, Some(Answer::Failed(_)));
        if let Some(op) = self.ops.iter().find(failed)
            && how == Handovers::Undisturbed
        {
            return Err(format!(
                "handover: {transfer:?} costs a client its result: {op:?}"
            ));
        }
        let done = |op: &Op| matches!(op.answer, Some(Answer::Done(..)));
        let unserved = self.now - transfer.at;
        if self.ops[first..].iter().any(done) {
            let longest = &mut self.handovers.handed.longest_unserved;
            *longest = (*longest).max(unserved);
            self.cuts.clear();
            let until = self.now + self.random.within((1_000, 3 * TICK));
            self.handovers.stage = Stage::Rest { until };
            return Ok(());
        }
        let limit = match how {
            Handovers::Undisturbed => 2 * ELECTION,
            Handovers::Disturbed => LIMIT,
        };
        match unserved > limit {
            true => Err(format!("handover: no write is done after {transfer:?}")),
            false => Ok(()),
        }
    }

    /// The leader of the newest term, and that term.
    pub fn leading(&self) -> Option<(NodeId, Term)> {
        let leader = self.leader()?;
        let life = self.nodes[&leader].life.as_ref()?;
        Some((leader, life.engine.term()))
    }
}
