//! An ordered map that is small with few entries and persistent with many.
//!
//! Most directories have few children, but one chunk of a persistent B-tree has space for 16. So up to [`FEW`] entries
//! are a sorted array of exactly their size, and more entries are an [`OrdMap`]. Cloning copies at most `FEW` entries.
//! A change of a shared large map copies one chunk per level.

use imbl::OrdMap;
use imbl::ordmap::RangedIter;
use std::borrow::Borrow;
use std::ops::Bound;

/// Largest number of entries in an array. A large map that shrinks to half of this becomes an array again.
const FEW: usize = 16;

/// A map from `K` to `V` in key order, described in the module documentation.
#[derive(Clone)]
pub(super) enum Map<K, V> {
    Few(Vec<(K, V)>),
    Many(OrdMap<K, V>),
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
            Map::Many(map) => map.len(),
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
            Map::Many(map) => map.get(key),
        }
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => find(entries, key).ok().map(|at| &mut entries[at].1),
            Map::Many(map) => map.get_mut(key),
        }
    }

    /// Inserts an entry and returns the old value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Map::Few(entries) => match find(entries, &key) {
                Ok(at) => return Some(std::mem::replace(&mut entries[at].1, value)),
                Err(at) if entries.len() < FEW => insert_at(entries, at, (key, value)),
                Err(_) => {
                    let mut map: OrdMap<K, V> = std::mem::take(entries).into_iter().collect();
                    map.insert(key, value);
                    *self = Map::Many(map);
                }
            },
            Map::Many(map) => return map.insert(key, value),
        }
        None
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Map::Few(entries) => find(entries, key).ok().map(|at| entries.remove(at).1),
            Map::Many(map) => {
                let removed = map.remove(key);
                if map.len() <= FEW / 2 {
                    *self = Map::Few(std::mem::take(map).into_iter().collect());
                }
                removed
            }
        }
    }

    /// The last key.
    pub fn last(&self) -> Option<&K> {
        match self {
            Map::Few(entries) => entries.last().map(|(key, _)| key),
            Map::Many(map) => map.get_max().map(|(key, _)| key),
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
            Map::Few(entries) => {
                let start = match from {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => find(entries, key).unwrap_or_else(|at| at),
                    Bound::Excluded(key) => find(entries, key).map_or_else(|at| at, |at| at + 1),
                };
                Entries::Few(entries[start..].iter())
            }
            Map::Many(map) => {
                Entries::Many(map.range::<(Bound<&Q>, Bound<&Q>), Q>((from, Bound::Unbounded)))
            }
        }
    }
}

fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(entry, _)| entry.borrow().cmp(key))
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
    Many(RangedIter<'a, K, V, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<'a, K: Ord, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Entries::Few(entries) => entries.next().map(|(key, value)| (key, value)),
            Entries::Many(entries) => entries.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert_eq!(map.last(), model.keys().last());
            assert!(map.iter().eq(model.iter()), "step {step}");
            assert!(matches!(map, Map::Few(_)) || map.len() > FEW / 2);
            assert!(matches!(map, Map::Many(_)) || map.len() <= FEW);
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
}
