//! A core under any rules, behind one face: so the simulator is compiled once, and which rules a run keeps
//! is a value.

use crate::raft::invariants::Witness;
use crate::raft::{
    Ballot, Core, Input, LogIndex, Membership, NodeId, Position, Rules, Settings, SnapshotMark,
    Start, Term, Todo,
};

/// What the simulator asks of a core. See [`Core`] for each.
pub(super) trait AnyCore {
    fn step(&mut self, input: Input) -> Todo;
    fn ballot(&self) -> Ballot;
    fn leader(&self) -> Option<NodeId>;
    fn is_leader(&self) -> bool;
    fn commit(&self) -> LogIndex;
    fn applied(&self) -> LogIndex;
    fn stored(&self) -> LogIndex;
    fn last_position(&self) -> Position;
    fn position_at(&self, index: LogIndex) -> Option<Position>;
    fn membership(&self) -> &Membership;
    fn mark_at(&self, index: LogIndex) -> Option<SnapshotMark>;
    /// Shows it to the witness after a step.
    fn witnessed(&self, witness: &mut Witness, todo: &Todo) -> Result<(), String>;
}

impl<R: Rules> AnyCore for Core<R> {
    fn step(&mut self, input: Input) -> Todo {
        Core::step(self, input)
    }

    fn ballot(&self) -> Ballot {
        Core::ballot(self)
    }

    fn leader(&self) -> Option<NodeId> {
        Core::leader(self)
    }

    fn is_leader(&self) -> bool {
        Core::is_leader(self)
    }

    fn commit(&self) -> LogIndex {
        Core::commit(self)
    }

    fn applied(&self) -> LogIndex {
        Core::applied(self)
    }

    fn stored(&self) -> LogIndex {
        Core::stored(self)
    }

    fn last_position(&self) -> Position {
        Core::last_position(self)
    }

    fn position_at(&self, index: LogIndex) -> Option<Position> {
        Core::position_at(self, index)
    }

    fn membership(&self) -> &Membership {
        Core::membership(self)
    }

    fn mark_at(&self, index: LogIndex) -> Option<SnapshotMark> {
        Core::mark_at(self, index)
    }

    fn witnessed(&self, witness: &mut Witness, todo: &Todo) -> Result<(), String> {
        witness.see(self, todo)
    }
}

/// Which rules the cores of a run keep.
#[derive(Debug, Clone, Copy)]
pub struct Keeping(pub(super) fn(Settings, Start) -> Box<dyn AnyCore>);

impl Keeping {
    /// Those of `R`.
    pub fn rules<R: Rules>() -> Keeping {
        Keeping(|settings, start| Box::new(Core::<R>::with_rules(settings, start)))
    }
}

/// The term of a core.
pub(super) fn term(core: &dyn AnyCore) -> Term {
    core.ballot().term
}
