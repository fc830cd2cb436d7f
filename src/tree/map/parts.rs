//! A persistent B-tree: maps of more entries than an array holds.
//!
//! Entries are in leaves; branches lead to them. All leaves are at the same depth. Parts are shared between versions of
//! the map, and a change copies the parts from the root to one leaf, if another version shares them.
//!
//! - A leaf has 1 to [`LEAF`] entries, and a branch 1 to [`BRANCH`] children.
//! - [`Child::from`] is at most the smallest key below the child, and greater than every key below the child before it.
//!   That of the first child is not used: a smaller key than all others is inserted below it.
//!
//! # Memory
//!
//! A full leaf is split in the middle, except at the end of the map: there it stays full, and the new entry gets a leaf
//! of its own. Keys that arrive in order, as those of a snapshot and of `POST`, therefore fill their leaves completely.
//! Only the last leaf of a map is treated like this. Elsewhere, keys in descending order would get a leaf each.
//!
//! A part that is less than half full after a removal is joined with a neighbour if both fill at most three quarters. The
//! difference keeps a part from being split and joined in turns.

use std::borrow::Borrow;
use std::ops::Bound;
use std::slice;
use std::sync::Arc;

/// Most entries of a leaf. A write after a publication copies a leaf, and counts the references of its long values.
pub(super) const LEAF: usize = 16;

/// Most children of a branch.
pub(super) const BRANCH: usize = 16;

/// Number of entries by which the array of a leaf grows.
const GROWTH: usize = 2;

/// A leaf or a branch, with everything below it.
#[derive(Clone)]
pub(in crate::tree) enum Part<K, V> {
    Leaf(Arc<Vec<(K, V)>>),
    Branch(Arc<Vec<Child<K, V>>>),
}

/// A part below a branch.
#[derive(Clone)]
pub(in crate::tree) struct Child<K, V> {
    from: K,
    part: Part<K, V>,
}

impl<K: Ord + Clone, V: Clone> Child<K, V> {
    /// A leaf of 1 to [`LEAF`] entries in key order.
    pub(super) fn leaf(entries: Vec<(K, V)>) -> Child<K, V> {
        Child {
            from: entries[0].0.clone(),
            part: Part::leaf(entries),
        }
    }

    /// A branch of 1 to [`BRANCH`] children of the same depth.
    pub(super) fn branch(children: Vec<Child<K, V>>) -> Child<K, V> {
        Child {
            from: children[0].from.clone(),
            part: Part::Branch(Arc::new(children)),
        }
    }

    pub(super) fn into_part(self) -> Part<K, V> {
        self.part
    }
}

/// The result of an insertion: the value that it replaced, and the right half of the part if that was split.
type Inserted<K, V> = (Option<V>, Option<Child<K, V>>);

impl<K: Ord + Clone, V: Clone> Part<K, V> {
    /// A leaf of at most [`LEAF`] entries in key order.
    pub fn leaf(entries: Vec<(K, V)>) -> Part<K, V> {
        debug_assert!(entries.len() <= LEAF && entries.is_sorted_by(|a, b| a.0 < b.0));
        Part::Leaf(Arc::new(entries))
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut part = self;
        loop {
            match part {
                Part::Leaf(entries) => return find(entries, key).ok().map(|at| &entries[at].1),
                Part::Branch(children) => part = &children[child_of(children, key)].part,
            }
        }
    }

    /// Copies what is shared on the way to the key, even if the key is not there.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Part::Leaf(entries) => {
                let at = find(entries, key).ok()?;
                Some(&mut own(entries, 0)[at].1)
            }
            Part::Branch(children) => {
                let at = child_of(children, key);
                own(children, 0)[at].part.get_mut(key)
            }
        }
    }

    /// Like [`Map::put`](super::Map::put), for the root of a map.
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
        let mut part = &mut *self;
        loop {
            match part {
                Part::Branch(children) => {
                    let at = child_of(children, key);
                    part = &mut own(children, 0)[at].part;
                }
                Part::Leaf(entries) => match find(entries, key) {
                    Ok(at) => return Some(present(&mut own(entries, 0)[at].1, value)),
                    Err(at) if entries.len() < LEAF => {
                        add(entries, at, (owned(), value), LEAF, false);
                        return None;
                    }
                    Err(_) => break,
                },
            }
        }
        // Few leaves are full, so this second way from the root is rare.
        self.insert_at_root(owned(), value);
        None
    }

    /// Inserts an entry below the root of a map.
    pub fn insert_at_root(&mut self, key: K, value: V) -> Option<V> {
        let (old, right) = self.insert(key, value, true);
        if let Some(right) = right {
            let left = Child {
                from: right.from.clone(),
                part: self.clone(),
            };
            *self = Part::Branch(Arc::new(vec![left, right]));
        }
        old
    }

    /// `last`: no part follows this one in the map.
    fn insert(&mut self, key: K, value: V, last: bool) -> Inserted<K, V> {
        match self {
            Part::Leaf(entries) => match find(entries, &key) {
                Ok(at) => {
                    let old = &mut own(entries, 0)[at].1;
                    (Some(std::mem::replace(old, value)), None)
                }
                Err(at) => {
                    let right = add(entries, at, (key, value), LEAF, last);
                    (None, right.map(Child::leaf))
                }
            },
            Part::Branch(children) => {
                let at = child_of(children, &key);
                let last = last && at + 1 == children.len();
                let (old, new) = own(children, 1)[at].part.insert(key, value, last);
                let right = new.and_then(|child| add(children, at + 1, child, BRANCH, last));
                (old, right.map(Child::branch))
            }
        }
    }

    /// Removes an entry below the root of a map. The map may be empty afterwards.
    pub fn remove_at_root<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A key that is not there copies nothing.
        self.get(key)?;
        let removed = self.remove(key);
        while let Part::Branch(children) = self
            && children.len() == 1
        {
            *self = children[0].part.clone();
        }
        removed
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Part::Leaf(entries) => {
                let at = find(entries, key).ok()?;
                let entries = own(entries, 0);
                let (_, removed) = entries.remove(at);
                if entries.capacity() >= entries.len() + 2 * GROWTH {
                    entries.shrink_to(entries.len() + GROWTH / 2);
                }
                Some(removed)
            }
            Part::Branch(children) => {
                let at = child_of(children, key);
                let children = own(children, 0);
                let removed = children[at].part.remove(key);
                tidy(children, at);
                removed
            }
        }
    }

    /// The number of entries or children of this part alone, and the most that it may have.
    fn size(&self) -> (usize, usize) {
        match self {
            Part::Leaf(entries) => (entries.len(), LEAF),
            Part::Branch(children) => (children.len(), BRANCH),
        }
    }

    /// Appends the next part, of the same depth. `from` is the start of that part.
    fn append(&mut self, from: K, next: Part<K, V>) {
        match (self, next) {
            (Part::Leaf(entries), Part::Leaf(next)) => {
                let entries = own(entries, next.len());
                entries.reserve_exact(next.len());
                entries.extend(Arc::unwrap_or_clone(next));
            }
            (Part::Branch(children), Part::Branch(next)) => {
                let mut next = Arc::unwrap_or_clone(next);
                next[0].from = from;
                own(children, next.len()).extend(next);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

/// The entry with the key, or the place where it would be.
pub(super) fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(
    entries: &[(K, V)],
    key: &Q,
) -> Result<usize, usize> {
    entries.binary_search_by(|(entry, _)| entry.borrow().cmp(key))
}

/// The child below which a key is, or would be.
fn child_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize {
    children[1..].partition_point(|child| child.from.borrow() <= key)
}

/// The array of a part, as this version's own. If it is copied, it has space for `spare` more.
fn own<T: Clone>(shared: &mut Arc<Vec<T>>, spare: usize) -> &mut Vec<T> {
    // There are no weak pointers. Reading the count is cheaper than `get_mut`, which locks it.
    if Arc::strong_count(shared) > 1 {
        let mut copy = Vec::with_capacity(shared.len() + spare);
        copy.extend_from_slice(shared);
        *shared = Arc::new(copy);
    }
    Arc::get_mut(shared).expect("nobody else has it")
}

/// Adds an item to a part. If the part is full, it is split, and the right half is returned.
fn add<T: Clone>(
    shared: &mut Arc<Vec<T>>,
    at: usize,
    item: T,
    most: usize,
    last: bool,
) -> Option<Vec<T>> {
    let items = own(shared, 1);
    if items.len() < most {
        if items.len() == items.capacity() {
            items.reserve_exact(GROWTH.min(most - items.len()));
        }
        items.insert(at, item);
        return None;
    }
    if last && at == most {
        return Some(vec![item]);
    }
    let middle = most / 2;
    let mut right = Vec::with_capacity(most - middle + 1);
    right.extend(items.drain(middle..));
    items.shrink_to(middle + 1);
    match at <= middle {
        true => items.insert(at, item),
        false => right.insert(at - middle, item),
    }
    Some(right)
}

/// After a removal below the child at `at`: removes it if it is empty, or joins it with a neighbour if both are small.
fn tidy<K: Ord + Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    let (size, most) = children[at].part.size();
    if size == 0 {
        children.remove(at);
        return;
    }
    if size >= most / 2 {
        return;
    }
    for right in [at + 1, at] {
        if right == 0 || right >= children.len() {
            continue;
        }
        let sum = children[right - 1].part.size().0 + children[right].part.size().0;
        if sum <= most * 3 / 4 {
            let Child { from, part } = children.remove(right);
            children[right - 1].part.append(from, part);
            return;
        }
    }
}

/// Entries in key order.
pub(in crate::tree) struct Walk<'a, K, V> {
    leaf: slice::Iter<'a, (K, V)>,
    /// The children that follow, of each branch above the leaf. The root's are the first.
    above: Vec<slice::Iter<'a, Child<K, V>>>,
}

impl<'a, K, V> Walk<'a, K, V> {
    /// The entries from `from` on.
    pub(super) fn new<Q: Ord + ?Sized>(root: &'a Part<K, V>, from: Bound<&Q>) -> Walk<'a, K, V>
    where
        K: Borrow<Q>,
    {
        let (mut part, mut above) = (root, Vec::new());
        loop {
            match part {
                Part::Leaf(entries) => {
                    let leaf = entries[start(entries, from)..].iter();
                    return Walk { leaf, above };
                }
                Part::Branch(children) => {
                    let at = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => child_of(children, key),
                    };
                    above.push(children[at + 1..].iter());
                    part = &children[at].part;
                }
            }
        }
    }

    /// Goes to the first leaf of a part.
    fn descend(&mut self, mut part: &'a Part<K, V>) {
        loop {
            match part {
                Part::Leaf(entries) => {
                    self.leaf = entries.iter();
                    return;
                }
                Part::Branch(children) => {
                    let mut rest = children.iter();
                    let first = rest.next().expect("a branch has a child");
                    self.above.push(rest);
                    part = &first.part;
                }
            }
        }
    }
}

/// The first entry of a range that begins at `from`.
pub(super) fn start<K: Borrow<Q>, V, Q: Ord + ?Sized>(
    entries: &[(K, V)],
    from: Bound<&Q>,
) -> usize {
    match from {
        Bound::Unbounded => 0,
        Bound::Included(key) => find(entries, key).unwrap_or_else(|at| at),
        Bound::Excluded(key) => find(entries, key).map_or_else(|at| at, |at| at + 1),
    }
}

impl<'a, K, V> Iterator for Walk<'a, K, V> {
    type Item = &'a (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match self.above.last_mut()?.next() {
                Some(child) => self.descend(&child.part),
                None => {
                    self.above.pop();
                }
            }
        }
    }
}

#[cfg(test)]
impl<K: Ord + Clone + std::fmt::Debug, V: Clone> Part<K, V> {
    /// Checks the invariants of the module documentation, and returns the number of entries and the depth. The keys are
    /// in `from..to`.
    pub fn check(&self, from: Option<&K>, to: Option<&K>) -> (usize, usize) {
        let (size, most) = self.size();
        assert!((1..=most).contains(&size), "{size} of {most}");
        match self {
            Part::Leaf(entries) => {
                assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
                assert!(from.is_none_or(|from| *from <= entries[0].0));
                assert!(to.is_none_or(|to| entries[size - 1].0 < *to));
                assert!(
                    entries.capacity() < size + 2 * GROWTH,
                    "little unused space"
                );
                (size, 1)
            }
            Part::Branch(children) => {
                let root = from.is_none() && to.is_none();
                assert!(!root || size > 1, "the root leads somewhere");
                let mut sum = (0, None);
                for (at, child) in children.iter().enumerate() {
                    let from = if at == 0 { from } else { Some(&child.from) };
                    let to = children.get(at + 1).map(|next| &next.from).or(to);
                    let (entries, depth) = child.part.check(from, to);
                    assert!(
                        sum.1.is_none_or(|before| before == depth),
                        "all leaves are equally deep"
                    );
                    sum = (sum.0 + entries, Some(depth));
                }
                (sum.0, sum.1.expect("a child") + 1)
            }
        }
    }

    /// The number of leaves.
    pub fn leaves(&self) -> usize {
        match self {
            Part::Leaf(_) => 1,
            Part::Branch(children) => children.iter().map(|child| child.part.leaves()).sum(),
        }
    }
}
