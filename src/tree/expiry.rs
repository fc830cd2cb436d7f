//! Expiry: finds the next node to expire, and keeps the deadlines in order.
//!
//! There is no list of all deadlines. Each directory sorts its own children by the earliest deadline in each child
//! (`Dir::dues`), where a child directory counts with everything below it. This has three consequences:
//!
//! - The tree's earliest deadline is the root's first one. To find its node, follow the first child in each directory
//!   downwards.
//! - A removed directory takes along the deadlines below it, without reading them.
//! - A write updates the directories above it only as far up as their earliest deadline changes. If neither the old nor
//!   the new node has a time to live, it updates none.
//!
//! Nodes expire in the order of their deadlines. With equal deadlines a directory expires before the nodes below it,
//! and siblings expire in the order of their names. So the order is the same on every member.

use super::Tree;
use super::apply::{dir_mut, names_of_parent};
use super::bytes::Bytes;
use super::clock::{ClusterTime, Stamp, WallTime};
use super::event::{Applied, EventAction};
use super::key::Key;
use super::node::{Dir, Node, earliest};
use std::sync::Arc;

/// Largest number of nodes that one entry expires: a million keys that are due at once must not block the raft thread
/// for seconds. Members that apply the same entry must expire the same number of nodes, so this number is part of the
/// log's meaning. An entry may contain a smaller number.
pub const EXPIRED_AT_ONCE: usize = 2_000;

/// Earliest deadline in a child before and after a change.
type DueChange = (Option<ClusterTime>, Option<ClusterTime>);

impl Tree {
    /// Like [`Tree::expire_some`], with at most [`EXPIRED_AT_ONCE`] nodes.
    pub fn expire(&mut self, up_to: ClusterTime) -> Vec<Applied> {
        self.expire_some(up_to, EXPIRED_AT_ONCE)
    }

    /// Removes at most `most` nodes whose deadline is at or before `up_to`, earliest first. Each removal makes one
    /// `expire` event and takes one index. Nodes below a removed directory are removed with it and get no event of
    /// their own.
    pub fn expire_some(&mut self, up_to: ClusterTime, most: usize) -> Vec<Applied> {
        let stamp = Stamp {
            cluster: up_to,
            wall: WallTime(0),
        };
        let mut expired = Vec::new();
        while expired.len() < most && self.next_expiry().is_some_and(|deadline| deadline <= up_to) {
            let key = self.key_due_first();
            expired.push(self.remove(EventAction::Expire, &key, stamp));
            self.stats.expire_count += 1;
        }
        expired
    }

    /// Earliest deadline in the tree.
    pub fn next_expiry(&self) -> Option<ClusterTime> {
        self.root.due()
    }

    /// Whether any node has a time to live.
    pub fn has_ttl(&self) -> bool {
        self.next_expiry().is_some()
    }

    /// The key with the tree's earliest deadline. There must be one.
    fn key_due_first(&self) -> Key {
        let mut dir = &self.root;
        let mut names: Vec<&[u8]> = Vec::new();
        while let Some(((deadline, name), ())) = dir.dues.iter().next() {
            names.push(name);
            match dir.children.get(name.as_slice()) {
                Some(Node::Dir(child)) if child.deadline() != Some(*deadline) => dir = child,
                Some(_) => return Key::from_names(&names),
                None => unreachable!(
                    "{:?} is due at {deadline:?} and does not exist",
                    Key::from_names(&names)
                ),
            }
        }
        unreachable!(
            "nothing is due in {:?}, but its parent lists it as due",
            Key::from_names(&names)
        )
    }

    /// Updates the directories above `key` after the earliest deadline at `key` has changed. The node itself was
    /// already changed.
    pub(super) fn due_changed(
        &mut self,
        key: &Key,
        before: Option<ClusterTime>,
        after: Option<ClusterTime>,
    ) {
        if before == after {
            return;
        }
        let changes = self.changes_upwards(key, (before, after));
        let names: Vec<&[u8]> = key.components().collect();
        let untouched = names.len() - changes.len();
        let mut dir = dir_mut(&mut self.root, names[..untouched].iter().copied());
        for (depth, change) in (untouched..names.len()).zip(changes.into_iter().rev()) {
            dir.set_due(names[depth], change);
            match dir.children.get_mut(names[depth]) {
                Some(Node::Dir(child)) if depth + 1 < names.len() => dir = Arc::make_mut(child),
                _ => break,
            }
        }
    }

    /// The changes for the directories above `key`, its parent first, as far up as anything changes.
    fn changes_upwards(&self, key: &Key, change: DueChange) -> Vec<DueChange> {
        let mut dirs = vec![&self.root];
        for name in names_of_parent(key) {
            match dirs[dirs.len() - 1].children.get(name) {
                Some(Node::Dir(child)) => dirs.push(child),
                _ => unreachable!("{key:?} was written just now"),
            }
        }
        let mut changes = Vec::new();
        let mut change = change;
        for (dir, name) in dirs.into_iter().rev().zip(key.components().rev()) {
            if change.0 == change.1 {
                break;
            }
            changes.push(change);
            change = (dir.due(), dir.due_after(name, change));
        }
        changes
    }
}

impl Dir {
    /// The result that [`Dir::due`] will have after the child `name` has made `change`.
    fn due_after(&self, name: &[u8], change: DueChange) -> Option<ClusterTime> {
        let is_old =
            |deadline: ClusterTime, child: &[u8]| Some(deadline) == change.0 && child == name;
        let mut others = self
            .dues
            .iter()
            .map(|(due, ())| due)
            .filter(|(deadline, child)| !is_old(*deadline, child));
        let below = earliest(others.next().map(|(deadline, _)| *deadline), change.1);
        earliest(self.deadline(), below)
    }

    /// Records that the earliest deadline of the child `name` has changed.
    pub(super) fn set_due(&mut self, name: &[u8], (before, after): DueChange) {
        let name = Bytes::from(name);
        if let Some(deadline) = before {
            let was = self.dues.remove(&(deadline, name.clone()));
            assert!(
                was.is_some(),
                "{name:?} was not known to be due at {deadline:?}"
            );
        }
        if let Some(deadline) = after {
            self.dues.insert((deadline, name), ());
        }
    }
}
