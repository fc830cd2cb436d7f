//! Makes a map from entries that arrive in key order, as those of a snapshot do.
//!
//! The parts are filled from left to right: no search, no copy, and no array that grows. All parts are full except the
//! last one of each level.

use super::parts::{BRANCH, Child, LEAF};
use super::{FEW, Map};

const _: () = assert!(FEW == LEAF, "what fits a leaf is not a tree");

/// A map that is being filled.
pub(in crate::tree) struct Builder<K, V> {
    /// The last leaf, which belongs to no branch yet. It is empty only if the map is.
    leaf: Vec<(K, V)>,
    /// The last branch of each level, from the leaves up. They belong to no branch above yet, and none is empty.
    branches: Vec<Vec<Child<K, V>>>,
    /// Number of entries below the branches.
    len: usize,
}

impl<K, V> Default for Builder<K, V> {
    fn default() -> Self {
        Builder {
            leaf: Vec::new(),
            branches: Vec::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Builder<K, V> {
    /// The last key.
    pub fn last(&self) -> Option<&K> {
        self.leaf.last().map(|(key, _)| key)
    }

    /// Adds an entry. Its key must be greater than all keys so far.
    pub fn push(&mut self, key: K, value: V) {
        debug_assert!(self.last().is_none_or(|last| *last < key), "not in order");
        if self.leaf.len() == LEAF {
            self.end_leaf();
        }
        if self.leaf.capacity() == 0 {
            self.leaf.reserve_exact(LEAF);
        }
        self.leaf.push((key, value));
    }

    /// The map of all entries.
    pub fn finish(mut self) -> Map<K, V> {
        self.leaf.shrink_to_fit();
        if self.branches.is_empty() {
            return Map::Few(self.leaf);
        }
        self.end_leaf();
        let mut level = 0;
        let root = loop {
            let mut children = std::mem::take(&mut self.branches[level]);
            children.shrink_to_fit();
            let branch = Child::branch(children);
            if level + 1 == self.branches.len() {
                break branch.into_part();
            }
            level += 1;
            self.add(level, branch);
        };
        let len = self.len;
        Map::Many { root, len }
    }

    fn end_leaf(&mut self) {
        let entries = std::mem::take(&mut self.leaf);
        self.len += entries.len();
        self.add(0, Child::leaf(entries));
    }

    /// Adds a child to the last branch of a level. A full branch moves to the level above first.
    fn add(&mut self, mut level: usize, mut child: Child<K, V>) {
        loop {
            if level == self.branches.len() {
                self.branches.push(Vec::with_capacity(BRANCH));
            }
            let branch = &mut self.branches[level];
            if branch.len() < BRANCH {
                branch.push(child);
                return;
            }
            let mut next = Vec::with_capacity(BRANCH);
            next.push(child);
            child = Child::branch(std::mem::replace(branch, next));
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    fn built(keys: impl Iterator<Item = u64>) -> Map<u64, u64> {
        let mut builder = Builder::default();
        for key in keys {
            builder.push(key, key * 7);
            assert_eq!(builder.last(), Some(&key));
        }
        builder.finish()
    }

    /// The numbers around which a leaf, or a branch of each level, is full.
    fn sizes() -> impl Iterator<Item = u64> {
        let full = [0, 1, LEAF, LEAF * BRANCH, LEAF * BRANCH * BRANCH].map(|full| full as u64);
        full.into_iter()
            .flat_map(|full| full.saturating_sub(2)..full + 3)
            .chain([3 * 16 * 16, 5000])
    }

    #[test]
    fn it_is_the_map_of_ordinary_insertions() {
        for size in sizes() {
            let map = built((0..size).map(|key| key * 2));
            let mut inserted = Map::default();
            (0..size).for_each(|key| assert_eq!(inserted.insert(key * 2, key * 14), None));
            assert!(map.iter().eq(inserted.iter()), "{size}");
            assert_eq!(map.len(), inserted.len());
            match (&map, &inserted) {
                (Map::Few(_), Map::Few(_)) => {}
                (Map::Many { root, len }, Map::Many { root: other, .. }) => {
                    assert_eq!(root.check(None, None), other.check(None, None), "{size}");
                    assert_eq!(root.leaves(), len.div_ceil(LEAF));
                }
                _ => panic!("{size} entries are a tree in one of them only"),
            }
            for key in 0..size * 2 + 2 {
                assert_eq!(map.get(&key), inserted.get(&key), "{key} of {size}");
                let after = Bound::Excluded(&key);
                let next = map.range(after).next();
                assert_eq!(next, inserted.range(after).next(), "{key} of {size}");
            }
        }
    }

    #[test]
    fn it_can_be_changed_like_any_map() {
        for size in sizes() {
            let mut dice = Random::new(size);
            let mut map = built((0..size).map(|key| key * 2));
            let mut model: BTreeMap<u64, u64> = (0..size).map(|key| (key * 2, key * 14)).collect();
            for step in 0..2000 {
                let key = dice.below(size * 2 + 20);
                match dice.below(2) {
                    0 => assert_eq!(map.insert(key, step), model.insert(key, step)),
                    _ => assert_eq!(map.remove(&key), model.remove(&key)),
                }
            }
            assert!(map.iter().eq(model.iter()), "{size}");
            if let Map::Many { root, len } = &map {
                assert_eq!(root.check(None, None).0, *len);
                assert_eq!(*len, model.len());
            }
        }
    }
}
