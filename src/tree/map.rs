//! An ordered map that is small when it holds little and persistent when it holds much.
//!
//! Most directories have few children, and a chunk of a persistent B-tree has room for 16: so up to
//! [`FEW`] entries are a sorted array of just their size, more are an [`OrdMap`]. Cloning copies at
//! most `FEW` entries, whatever the size; a change of a shared big map copies one chunk a level.

use imbl::OrdMap;
use imbl::ordmap::RangedIter;
use std::borrow::Borrow;
use std::ops::Bound;

/// The most entries kept as an array; a big map that shrinks to half of it becomes an array again.
const FEW: usize = 16;

/// A map from `K` to `V` in key order. See the module.
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

    /// Inserts, and returns what was there.
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

    /// The entries in key order from a place on.
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

/// Inserts with half as much room again when there is none: directories of one to five children
/// are many, and an array's own growth would give them four or eight places.
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
