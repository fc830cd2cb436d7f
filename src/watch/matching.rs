//! The registered watchers, and which of them receive an event, as a value: no lock, no thread, no socket.
//!
//! A watcher is found by its path and by its *token*. A token contains the number of the watcher's slot and a
//! generation, so the token of a watcher that has left never finds the next one in the same slot.

use super::Interest;
use crate::tree::{Applied, Event, Key, TreeIndex};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// An event, and the watchers that receive it.
pub struct Matched<W> {
    /// The event.
    pub event: Arc<Event>,
    /// One-shot watchers: they receive the event and then the end. They are no longer registered.
    pub last: Vec<W>,
    /// Tokens of streams: they receive the event and stay.
    pub more: Vec<u64>,
}

impl<W> Matched<W> {
    /// Number of watchers that receive it; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.last.len() + self.more.len()
    }
}

/// The registered watchers, by path and by token.
pub struct Watchers<W> {
    pub(super) slots: Vec<Slot<W>>,
    free: Vec<u32>,
    /// A path without watchers has no entry.
    pub(super) by_path: BTreeMap<Key, Lists>,
    count: usize,
}

/// Slots of the watchers on one path. They are in two lists, because events below the path concern only the recursive
/// ones.
#[derive(Default)]
pub(super) struct Lists {
    plain: Vec<u32>,
    recursive: Vec<u32>,
}

impl Lists {
    fn of(&mut self, recursive: bool) -> &mut Vec<u32> {
        if recursive {
            &mut self.recursive
        } else {
            &mut self.plain
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.recursive.is_empty()
    }
}

/// A place for a watcher. `generation` counts the watchers that have used it.
pub(super) struct Slot<W> {
    pub generation: u32,
    pub watcher: Option<Watcher<W>>,
}

/// A registered watcher.
pub struct Watcher<W> {
    key: Key,
    recursive: bool,
    stream: bool,
    /// The watcher does not receive events with a smaller index.
    from: TreeIndex,
    /// Position of its slot in the list of its path.
    place: u32,
    /// The caller's value.
    pub parked: W,
}

impl<W> Default for Watchers<W> {
    fn default() -> Watchers<W> {
        Watchers {
            slots: Vec::new(),
            free: Vec::new(),
            by_path: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<W> Watchers<W> {
    /// Whether no watcher is registered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of registered watchers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Registers the value that `park` returns for the new watcher's token. The watcher receives no event with an index
    /// below `from`, even if `interest` includes it.
    pub fn insert(&mut self, interest: &Interest, from: TreeIndex, park: impl FnOnce(u64) -> W) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                watcher: None,
            });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 watchers fit into memory")
        });
        let slot = &mut self.slots[number as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let parked = park(token(slot.generation, number));
        let lists = self.by_path.entry(interest.key.clone()).or_default();
        let list = lists.of(interest.recursive);
        slot.watcher = Some(Watcher {
            key: interest.key.clone(),
            recursive: interest.recursive,
            stream: interest.stream,
            from,
            place: list.len() as u32,
            parked,
        });
        list.push(number);
        self.count += 1;
    }

    /// The watcher with this token, if it is still registered.
    pub fn by_token(&self, token: u64) -> Option<&Watcher<W>> {
        let slot = self.slots.get(token as u32 as usize)?;
        slot.watcher
            .as_ref()
            .filter(|_| slot.generation == (token >> 32) as u32)
    }

    /// Removes the watcher with this token, if it is still registered.
    pub fn remove_token(&mut self, token: u64) -> Option<Watcher<W>> {
        self.by_token(token)?;
        Some(self.remove(token as u32))
    }

    /// Removes a watcher from its slot and from its path's list, each in constant time.
    fn remove(&mut self, number: u32) -> Watcher<W> {
        let watcher = self.slots[number as usize]
            .watcher
            .take()
            .expect("the caller saw a watcher in this slot");
        let lists = self
            .by_path
            .get_mut(&watcher.key)
            .expect("every watcher is in its path's list");
        let list = lists.of(watcher.recursive);
        list.swap_remove(watcher.place as usize);
        if let Some(&moved) = list.get(watcher.place as usize) {
            let moved = self.slots[moved as usize].watcher.as_mut();
            moved.expect("listed slots hold watchers").place = watcher.place;
        }
        if lists.is_empty() {
            self.by_path.remove(&watcher.key);
        }
        self.free.push(number);
        self.count -= 1;
        watcher
    }

    /// Removes all streams. Dropping them ends them without a final chunk.
    pub fn remove_streams(&mut self) -> Vec<Watcher<W>> {
        self.remove_where(|watcher| watcher.stream)
    }

    /// Removes all watchers.
    pub fn remove_all(&mut self) -> Vec<Watcher<W>> {
        self.remove_where(|_| true)
    }

    fn remove_where(&mut self, chosen: impl Fn(&Watcher<W>) -> bool) -> Vec<Watcher<W>> {
        let is_chosen = |slot: &Slot<W>| slot.watcher.as_ref().is_some_and(&chosen);
        (0..self.slots.len())
            .filter(|&number| is_chosen(&self.slots[number]))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|number| self.remove(number as u32))
            .collect()
    }

    /// The watchers that receive one event. One-shot watchers among them are removed.
    pub fn take_for(&mut self, applied: &Applied) -> Option<Matched<W>> {
        let mut numbers = Vec::new();
        self.find_above(applied, &mut numbers);
        self.find_below(applied, &mut numbers);
        if numbers.is_empty() {
            return None;
        }
        let mut matched = Matched {
            event: applied.event.clone(),
            last: Vec::new(),
            more: Vec::new(),
        };
        for number in numbers {
            let slot = &self.slots[number as usize];
            if slot.watcher.as_ref().is_some_and(|watcher| watcher.stream) {
                matched.more.push(token(slot.generation, number));
            } else {
                matched.last.push(self.remove(number).parked);
            }
        }
        Some(matched)
    }

    /// Watchers on the key itself, and on each directory above it.
    fn find_above(&self, applied: &Applied, numbers: &mut Vec<u32>) {
        let key = applied.event.key.as_bytes();
        let ends = (1..key.len()).filter(|&at| key[at] == b'/');
        let above = ends.map(|end| &key[..end]).chain([&b"/"[..]]);
        for path in above.filter(|path| *path != key).chain([key]) {
            if let Some((path, lists)) = self.by_path.get_key_value(path) {
                self.find_on(path, lists, applied, numbers);
            }
        }
    }

    /// Watchers below a removed directory.
    fn find_below(&self, applied: &Applied, numbers: &mut Vec<u32>) {
        let Some(removed) = &applied.removed else {
            return;
        };
        let stem = [removed.key().as_bytes(), b"/"].concat();
        let from = (Bound::Included(&stem[..]), Bound::Unbounded);
        let paths = self.by_path.range::<[u8], _>(from);
        for (path, lists) in paths.take_while(|(path, _)| path.as_bytes().starts_with(&stem)) {
            self.find_on(path, lists, applied, numbers);
        }
    }

    /// Watchers on one path. One check decides for all of them whether the event matches there.
    fn find_on(&self, path: &Key, lists: &Lists, applied: &Applied, numbers: &mut Vec<u32>) {
        let Applied { event, removed } = applied;
        for (list, recursive) in [(&lists.plain, false), (&lists.recursive, true)] {
            if !list.is_empty() && event.matches(path, recursive, removed.as_ref()) {
                let since = |number: &&u32| self.from(**number) <= event.index;
                numbers.extend(list.iter().filter(since));
            }
        }
    }

    /// The watcher in this slot does not receive events with a smaller index.
    fn from(&self, number: u32) -> TreeIndex {
        let watcher = self.slots[number as usize].watcher.as_ref();
        watcher.expect("listed slots hold watchers").from
    }
}

/// The handle of a watcher for others.
pub(super) fn token(generation: u32, number: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(number)
}
