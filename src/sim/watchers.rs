//! Watchers: each follows all changes of keys at one node. When that node goes down, or continues from a snapshot, the
//! watcher continues at another node from the index after the last one that it has seen, as a client does with
//! `waitIndex`.
//!
//! Which watchers of a node receive an event is decided by the same code as in the server
//! ([`watch::matching`](crate::watch::matching)).
//!
//! A watcher must receive each event once, in order. If the node no longer has the events, the watcher gets error 401 and
//! begins again with the current index.

use super::cluster::{Checked, Cluster, Event};
use super::fault_profile::TICK;
use crate::engine::rules::Rule;
use crate::raft::NodeId;
use crate::tree::{Applied, Key, TreeIndex};
use crate::watch::Interest;

/// Number of watchers.
const WATCHERS: usize = 3;

/// One watcher.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// The node that it watches.
    at: Option<NodeId>,
    /// The first index that it has not received. 0: it has received no event yet.
    next: u64,
    /// In a run by hand, the node at which it was asked to begin.
    begins: Option<NodeId>,
}

impl Cluster {
    pub(super) fn begin_watchers(&mut self) {
        self.watchers = (0..WATCHERS).map(|_| Watcher::default()).collect();
        for watcher in 0..WATCHERS {
            self.watch_later(watcher);
        }
    }

    /// In a run by hand, a new watcher connects to a node.
    pub(super) fn watch_at(&mut self, id: NodeId) -> Checked {
        self.watchers.push(Watcher {
            begins: Some(id),
            ..Watcher::default()
        });
        self.watch(self.watchers.len() - 1)
    }

    fn watch_later(&mut self, watcher: usize) {
        let wait = self.random.within((500, 2 * TICK));
        self.after(wait, Event::Watch { watcher });
    }

    /// A watcher connects to a node. It first gets the events in the history, then the new ones.
    pub(super) fn watch(&mut self, watcher: usize) -> Checked {
        let up = self.up();
        let (next, begins) = {
            let this = &mut self.watchers[watcher];
            (this.next, this.begins.take())
        };
        let Some(at) = begins.or_else(|| self.random.pick(&up)) else {
            self.watch_later(watcher);
            return Ok(());
        };
        let Some(life) = self.nodes[&at].life.as_ref() else {
            return Ok(());
        };
        let tree = &life.view.tree;
        let history = tree.history();
        let is_kept = history.start().is_some_and(|start| start.0 <= next);
        let now = tree.index().0 + 1;
        let seen: Vec<u64> = history
            .since(TreeIndex(next))
            .map(|event| event.index.0)
            .collect();
        match self.is_without(Rule::WatchedWhenScanned) {
            false => self.register(watcher, at),
            true => {
                let (wait, life) = (self.random.below(TICK), self.node(at).life_number);
                self.after(wait, Event::Register { watcher, at, life });
            }
        }
        let this = &mut self.watchers[watcher];
        this.at = Some(at);
        if next < now && !is_kept {
            this.next = now;
            return Ok(());
        }
        seen.into_iter()
            .try_for_each(|index| self.watcher_sees(watcher, index))
    }

    /// The watcher receives the events that the node publishes from now on.
    fn register(&mut self, watcher: usize, at: NodeId) {
        let next = self.watchers[watcher].next;
        let Some(life) = self.life(at) else { return };
        let interest = Interest {
            key: Key::root(),
            recursive: true,
            stream: true,
            from: TreeIndex(next),
        };
        let first = TreeIndex(next.max(life.view.tree.index().0 + 1));
        life.watchers.insert(&interest, first, |_| watcher);
    }

    /// Violates [`Rule::WatchedWhenScanned`]: registers a watcher some time after the history was searched for it.
    pub(super) fn register_late(&mut self, watcher: usize, at: NodeId, life: u64) {
        if self.watchers[watcher].at == Some(at) && self.node(at).life_number == life {
            self.register(watcher, at);
        }
    }

    /// A node publishes events.
    pub(super) fn tell_watchers(&mut self, at: NodeId, events: &[Applied]) -> Checked {
        let Some(life) = self.life(at) else {
            return Ok(());
        };
        let watchers = &mut life.watchers;
        let mut seen = Vec::new();
        for applied in events {
            let told = watchers.take_for(applied);
            let tokens = told.into_iter().flat_map(|told| told.more);
            let parked = tokens.filter_map(|token| watchers.by_token(token));
            seen.extend(parked.map(|watcher| (watcher.parked, applied.event.index.0)));
        }
        seen.into_iter()
            .try_for_each(|(watcher, index)| self.watcher_sees(watcher, index))
    }

    fn watcher_sees(&mut self, watcher: usize, index: u64) -> Checked {
        let this = &mut self.watchers[watcher];
        // A node that is behind publishes events that the watcher has seen at another node.
        if index < this.next {
            return Ok(());
        }
        let missed = self.checks.borrow().event_between(this.next, index);
        this.next = index + 1;
        match missed {
            None => Ok(()),
            Some(missed) => Err(format!(
                "watchers: one at n{} sees event {index}, and has missed {missed}",
                this.at.map_or(0, |at| at.0)
            )),
        }
    }

    /// Ends the watches at this node.
    pub(super) fn end_watches(&mut self, at: NodeId) {
        if let Some(life) = self.life(at) {
            life.watchers.remove_all();
        }
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher]
                .at
                .take_if(|node| *node == at)
                .is_some()
            {
                self.watch_later(watcher);
            }
        }
    }
}
