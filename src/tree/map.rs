//! An ordered map that is small with few entries and persistent with many.
//!
//! Most directories have few children. So up to [`FEW`] entries are a sorted array of about their size, and more entries
//! are a persistent B-tree (`parts`). Cloning copies at most `FEW` entries. A change of a shared large map copies one
//! part per level.

mod build;
mod parts;

pub(super) use self::build::Builder;
use self::parts::{LEAF, Part, Walk, find, start};
use std::borrow::Borrow;
use std::ops::Bound;

/// Largest number of entries in an array. A large map that shrinks to half of this becomes an array again.
const FEW: usize = LEAF;

/// A map from `K` to `V` in key order, described in the module documentation.
#[derive(Clone)]
pub(super) enum Map<K, V> {
    Few(Vec<(K, V)>),
    Many { root: Part<K, V>, len: usize },
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Map::Few(Vec::new())
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    pub fn len(&self) -> usize {
        match self {
            Map::Few(entries) => entries.len(),
            Map::Many { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => find(entries, key).ok().map(|at| &entries[at].1),
            Map::Many { root, .. } => root.get(key),
        }
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => find(entries, key).ok().map(|at| &mut entries[at].1),
            Map::Many { root, .. } => root.get_mut(key),
        }
    }

    /// Inserts an entry and returns the old value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.put(&key, value, || key.clone(), std::mem::replace)
    }

    /// Adds an entry if there is none with this key. Otherwise returns the result of `present`, which gets the value
    /// there and the new one. `owned` returns the key.
    pub fn put<Q: Ord + ?Sized, R>(
        &mut self,
        key: &Q,
        value: V,
        owned: impl FnOnce() -> K,
        present: impl FnOnce(&mut V, V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => match find(entries, key) {
                Ok(at) => return Some(present(&mut entries[at].1, value)),
                Err(at) if entries.len() < FEW => insert_at(entries, at, (owned(), value)),
                Err(_) => {
                    let len = entries.len() + 1;
                    let mut root = Part::leaf(std::mem::take(entries));
                    root.put(key, value, owned, present);
                    *self = Map::Many { root, len };
                }
            },
            Map::Many { root, len } => {
                let found = root.put(key, value, owned, present);
                *len += usize::from(found.is_none());
                return found;
            }
        }
        None
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => find(entries, key).ok().map(|at| entries.remove(at).1),
            Map::Many { root, len } => {
                let removed = root.remove_at_root(key)?;
                *len -= 1;
                if *len <= FEW / 2 {
                    let entries = Walk::new::<K>(root, Bound::Unbounded).cloned();
                    *self = Map::Few(entries.collect());
                }
                Some(removed)
            }
        }
    }

    /// The entries in key order.
    pub fn iter(&self) -> Entries<'_, K, V> {
        self.range(Bound::Unbounded)
    }

    /// The entries in key order, starting at `from`.
    pub fn range<Q: Ord + ?Sized>(&self, from: Bound<&Q>) -> Entries<'_, K, V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => Entries::Few(entries[start(entries, from)..].iter()),
            Map::Many { root, .. } => Entries::Many(Walk::new(root, from)),
        }
    }
}

/// Inserts an entry. If there is no space, it adds half of the current size. There are many directories of one to five
/// children, and the standard growth of an array would give them four or eight places.
fn insert_at<T>(entries: &mut Vec<T>, at: usize, entry: T) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact((entries.len() / 2).clamp(1, FEW - entries.len()));
    }
    entries.insert(at, entry);
}

/// Entries in key order.
pub(super) enum Entries<'a, K, V> {
    Few(std::slice::Iter<'a, (K, V)>),
    Many(Walk<'a, K, V>),
}

impl<'a, K: Ord, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Entries::Few(entries) => entries.next().map(|(key, value)| (key, value)),
            Entries::Many(entries) => entries.next().map(|(key, value)| (key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    /// Grows beyond the array, shrinks below half of it, and repeats this, comparing with the standard map.
    #[test]
    fn it_is_an_ordered_map_whatever_its_size() {
        let (mut map, mut model) = (Map::default(), BTreeMap::new());
        for step in 0..400_u32 {
            let (key, shrinks) = (step * 37 % 53, step / 50 % 2 == 1);
            if shrinks {
                assert_eq!(map.remove(&key), model.remove(&key), "step {step}");
            } else {
                assert_eq!(
                    map.insert(key, step),
                    model.insert(key, step),
                    "step {step}"
                );
            }
            assert_eq!(map.len(), model.len());
            assert_eq!(map.is_empty(), model.is_empty());
            assert!(map.iter().eq(model.iter()), "step {step}");
            assert!(matches!(map, Map::Few(_)) || map.len() > FEW / 2);
            assert!(matches!(map, Map::Many { .. }) || map.len() <= FEW);
        }
    }

    #[test]
    fn ranges_begin_at_or_after_a_key() {
        for count in [0, 1, 5, 16, 17, 100] {
            let mut map = Map::default();
            (0..count).for_each(|number| assert_eq!(map.insert(number * 2, ()), None));
            for from in 0..count * 2 + 2 {
                let keys =
                    |range: Bound<&u32>| map.range(range).map(|(key, ())| *key).collect::<Vec<_>>();
                let expected = |inclusive: bool| {
                    let keys = (0..count).map(|number| number * 2);
                    keys.filter(|&key| key > from || inclusive && key == from)
                        .collect::<Vec<_>>()
                };
                assert_eq!(
                    keys(Bound::Included(&from)),
                    expected(true),
                    "{count} from {from}"
                );
                assert_eq!(
                    keys(Bound::Excluded(&from)),
                    expected(false),
                    "{count} after {from}"
                );
            }
        }
    }

    #[test]
    fn a_clone_is_another_map() {
        for count in [3, 40] {
            let mut map = Map::default();
            (0..count).for_each(|number| assert_eq!(map.insert(number, 0), None));
            let clone = map.clone();
            *map.get_mut(&1).expect("it is in") = 9;
            map.remove(&0);
            assert_eq!((clone.get(&1), clone.len()), (Some(&0), count));
        }
    }

    /// Grows and shrinks in any order, and keeps versions: they do not change, and all invariants of the parts hold.
    #[test]
    fn versions_do_not_change_each_other() {
        for seed in 0..48 {
            let mut dice = Random::new(seed);
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let (most, mut kept) = (10 << (seed % 12), Vec::new());
            for step in 0..6000 {
                let (key, shrinks) = (dice.below(most), step / 1500 % 2);
                match dice.below(10) {
                    0 => {
                        let entry = map.get_mut(&key).map(|value| *value = step);
                        assert_eq!(entry, model.get_mut(&key).map(|value| *value = step));
                    }
                    choice if choice < 8 - 5 * shrinks => {
                        assert_eq!(map.insert(key, step), model.insert(key, step));
                    }
                    _ => {
                        // In order, so that whole parts become empty.
                        let key = model.range(key..).next().map_or(key, |(key, _)| *key);
                        assert_eq!(map.remove(&key), model.remove(&key));
                    }
                }
                assert_eq!(map.get(&key), model.get(&key));
                if dice.below(20) == 0 {
                    check(&map, &model);
                    let from = dice.below(most);
                    assert!(map.range(Bound::Included(&from)).eq(model.range(from..)));
                    let after = (Bound::Excluded(from), Bound::Unbounded);
                    assert!(map.range(Bound::Excluded(&from)).eq(model.range(after)));
                }
                if dice.below(300) == 0 {
                    kept.push((map.clone(), model.clone()));
                }
            }
            kept.iter().for_each(|(map, model)| check(map, model));
        }
    }

    fn check(map: &Map<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!(map.len(), model.len());
        if let Map::Many { root, len } = map {
            assert_eq!(root.check(None, None).0, *len);
        }
    }

    fn leaves(map: &Map<u64, u64>) -> usize {
        match map {
            Map::Few(_) => 1,
            Map::Many { root, .. } => root.leaves(),
        }
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let mut map = Map::default();
        (0..1600).for_each(|key| assert_eq!(map.insert(key, key), None));
        assert_eq!(leaves(&map), 1600 / LEAF);
    }

    #[test]
    fn leaves_are_half_full_in_any_order_and_after_removals() {
        let orders: [fn(u64) -> u64; 3] = [
            |key| 4000 - key,
            |key| key * 2654435761 % 4001,
            |key| {
                // Descending after a gap at the end: the last leaf is the only one that may have a single entry.
                if key < 96 { key } else { 9000 - key }
            },
        ];
        for order in orders {
            let mut map = Map::default();
            (0..4000).for_each(|key| assert_eq!(map.insert(order(key), key), None));
            assert!(leaves(&map) <= 4000 / (LEAF / 2), "{} leaves", leaves(&map));
            for key in (0..4000).filter(|key| key % 10 != 0) {
                assert_eq!(map.remove(&order(key)), Some(key));
            }
            assert_eq!(map.len(), 400);
            assert!(leaves(&map) <= 400 / (LEAF / 4), "{} leaves", leaves(&map));
        }
    }

    #[test]
    fn empty_leaves_go_and_small_ones_join() {
        // Full leaves on both sides: nothing to join with.
        let mut map = Map::default();
        (0..1600).for_each(|key| assert_eq!(map.insert(key, key), None));
        (160..1440).for_each(|key| assert_eq!(map.remove(&key), Some(key)));
        assert_eq!((map.len(), leaves(&map)), (320, 320 / LEAF));
        // The last leaf has only a neighbour before it.
        let mut map = Map::default();
        (0..17)
            .rev()
            .for_each(|key| assert_eq!(map.insert(key, key), None));
        assert_eq!(leaves(&map), 2);
        (12..17).for_each(|key| assert_eq!(map.remove(&key), Some(key)));
        assert_eq!((map.len(), leaves(&map)), (12, 1));
    }
}
