//! Time, and everything that works by itself while a command lets it.

use super::Cluster;
use super::network::Flight;
use edgetcd::engine::Event;
use edgetcd::engine::time::Monotonic;
use edgetcd::raft::NodeId;
use std::time::Duration;

impl Cluster {
    /// Disks and network work until nothing is left to do. No time passes.
    pub fn settle(&mut self) {
        self.settle_between(&self.ids());
    }

    /// The disks of these members and the links between them work until nothing is left to do.
    pub fn settle_between(&mut self, ids: &[NodeId]) {
        for _ in 0..100_000 {
            let mut busy = false;
            for id in ids {
                busy |= self.store(*id) | self.finish_snapshot(*id);
            }
            let is_between =
                |flight: &Flight| ids.contains(&flight.from) && ids.contains(&flight.to);
            if let Some(at) = self.flights.iter().position(is_between) {
                self.deliver(at);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster never settles");
    }

    /// Time passes, while disks and network work.
    pub fn wait(&mut self, span: Duration) {
        self.settle();
        let end = self.now + span;
        while let Some(next) = self.next_tick().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            for id in self.ids() {
                self.tick_if_due(id);
            }
            self.settle();
        }
        self.now = end;
    }

    fn deadline(&self, id: NodeId) -> Option<Monotonic> {
        let process = self.members[&id].process.as_ref()?;
        let left = process.engine.deadline() - self.clock(id).monotonic;
        Some(self.now + left)
    }

    fn next_tick(&self) -> Option<Monotonic> {
        let deadlines = self.members.keys().filter_map(|id| self.deadline(*id));
        deadlines.min()
    }

    fn tick_if_due(&mut self, id: NodeId) {
        if self.deadline(id).is_some_and(|at| at <= self.now) {
            self.step(id, Event::Tick);
        }
    }

    /// The next tick of one member. The clocks of the others stand still.
    pub fn tick(&mut self, id: NodeId) {
        if let Some(at) = self.deadline(id) {
            self.now = self.now.max(at);
            self.step(id, Event::Tick);
        }
    }
}
