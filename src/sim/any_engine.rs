//! An engine under any rules, behind one trait. So the simulator is compiled once, and the rules of a run are a value.

use super::checks::Checks;
use crate::engine::rules::{Rule, Rules};
use crate::engine::state::{Outcome, State};
use crate::engine::time::{Estimate, Monotonic, Now};
use crate::engine::trace::Record;
use crate::engine::{Effects, Engine, Event, Settings};
use crate::raft::{
    self, AllRules, Core, Entry, HardState, LogIndex, Membership, NodeId, Position, Role,
    SnapshotMetadata, Start, Term, Todo,
};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

/// The methods of [`Engine`] and [`Core`] that the simulator uses.
pub(super) trait AnyEngine {
    fn step(&mut self, now: Now, event: Event<u64>) -> Effects<u64>;
    fn trace(&self) -> &[Record];
    fn keep_trace(&mut self, is_on: bool);
    fn deadline(&self) -> Monotonic;
    fn takes_requests(&self, now: Monotonic) -> bool;
    fn state(&self) -> &State;
    fn estimate(&self) -> Estimate;
    fn hard_state(&self) -> HardState;
    fn leader(&self) -> Option<NodeId>;
    fn is_leader(&self) -> bool;
    fn role(&self) -> Role;
    fn stored(&self) -> LogIndex;
    fn commit(&self) -> LogIndex;
    fn last_position(&self) -> Position;
    fn position_at(&self, index: LogIndex) -> Option<Position>;
    fn membership(&self) -> &Membership;
    fn metadata_at(&self, index: LogIndex) -> Option<SnapshotMetadata>;

    fn term(&self) -> Term {
        self.hard_state().term
    }
}

impl<R: Rules> AnyEngine for Engine<u64, R> {
    fn step(&mut self, now: Now, event: Event<u64>) -> Effects<u64> {
        Engine::step(self, now, event)
    }

    fn trace(&self) -> &[Record] {
        Engine::trace(self)
    }

    fn keep_trace(&mut self, is_on: bool) {
        Engine::keep_trace(self, is_on);
    }

    fn deadline(&self) -> Monotonic {
        Engine::deadline(self)
    }

    fn takes_requests(&self, now: Monotonic) -> bool {
        Engine::takes_requests(self, now)
    }

    fn state(&self) -> &State {
        Engine::state(self)
    }

    fn estimate(&self) -> Estimate {
        Engine::estimate(self)
    }

    fn hard_state(&self) -> HardState {
        self.core().hard_state()
    }

    fn leader(&self) -> Option<NodeId> {
        self.core().leader()
    }

    fn is_leader(&self) -> bool {
        self.core().is_leader()
    }

    fn role(&self) -> Role {
        self.core().role()
    }

    fn stored(&self) -> LogIndex {
        self.core().stored()
    }

    fn commit(&self) -> LogIndex {
        self.core().commit()
    }

    fn last_position(&self) -> Position {
        self.core().last_position()
    }

    fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.core().position_at(index)
    }

    fn membership(&self) -> &Membership {
        self.core().membership()
    }

    fn metadata_at(&self, index: LogIndex) -> Option<SnapshotMetadata> {
        self.core().metadata_at(index)
    }
}

/// The rules of one engine: raft's rules from `C`, and the engine's rules with at most one switched off. Each step of
/// the engine is reported to the checks.
struct Watched<C> {
    id: NodeId,
    without: Option<Rule>,
    checks: Rc<RefCell<Checks>>,
    core: PhantomData<fn() -> C>,
}

impl<C: raft::Rules> Rules for Watched<C> {
    type Core = C;

    fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn stepped(&self, core: &Core<C>, todo: &Todo) {
        self.checks.borrow_mut().stepped(self.id, core, todo);
    }

    fn applied(&self, entry: &Entry, state: &State, outcome: &Outcome) {
        let mut checks = self.checks.borrow_mut();
        checks.applied(self.id, entry, state, outcome);
    }
}

/// The rules of a disk.
pub(super) struct DiskRules(pub Option<Rule>);

impl Rules for DiskRules {
    type Core = AllRules;

    fn keeps(&self, rule: Rule) -> bool {
        self.0 != Some(rule)
    }
}

/// The parts of an engine.
pub(super) struct Parts {
    pub id: NodeId,
    pub without: Option<Rule>,
    pub checks: Rc<RefCell<Checks>>,
    pub core: raft::Settings,
    pub start: Start,
    pub state: State,
    pub settings: Settings,
    pub estimate: Estimate,
    pub now: Now,
}

/// The rules of raft that the cores of a run keep.
#[derive(Debug, Clone, Copy)]
pub struct Keeping(pub(super) fn(Parts) -> Box<dyn AnyEngine>);

impl Keeping {
    /// All of them. Not a generic function, so that this crate contains the code, and the compiler inlines its parts.
    #[inline(never)]
    pub fn all() -> Keeping {
        Keeping::rules::<AllRules>()
    }

    /// Those of `R`.
    pub fn rules<R: raft::Rules>() -> Keeping {
        Keeping(|parts| {
            let rules: Watched<R> = Watched {
                id: parts.id,
                without: parts.without,
                checks: parts.checks,
                core: PhantomData,
            };
            let core = Core::with_rules(parts.core, parts.start);
            Box::new(Engine::with_rules(
                rules,
                core,
                parts.state,
                parts.settings,
                parts.estimate,
                parts.now,
            ))
        })
    }
}
