//! The watch hub: holds the waiting watchers, and publishes the newest tree.
//!
//! # What it owns
//!
//! * The **view**: the newest version of the tree, with its raft index and term. The raft thread replaces it once per
//!   batch ([`WatchHub::publish`]). A reader clones one pointer.
//! * The **watchers**: a waiting long-poll or stream (`Poll` in the code) is an entry of a few hundred bytes here,
//!   which is found by its path. It is not a thread.
//!
//! # Invariants
//!
//! * *A watcher misses no event and gets none twice.* A watcher is registered under the same lock under which events
//!   are published. It searches the history of exactly that version, and afterwards receives only events with a larger
//!   index (`Poll::from`).
//! * *A watcher gets events in index order.* Events are published in that order, and one thread matches them in that
//!   order.
//! * *A watcher leaves the hub once*: it is answered, cut, or its client disconnects. Its token contains a generation.
//!   So a late report about an old watcher does not affect a new one in the same slot.
//! * Nothing is rendered or sent while the lock is held, with one exception: the head of a watcher's response, which
//!   goes into the buffer of the worker that registers it. The watch thread matches a few events at a time, so the raft
//!   thread never waits long for the lock.
//! * *Memory is bounded.* If the workers are too slow for the events of their streams, the watch thread waits for them.
//!   If too many events are queued here for too long, all streams are cut, like clients that lag (spec §9). One-shot
//!   watchers get one event each, so they cannot delay anything.
//!
//! # Which watchers receive an event (spec §9)
//!
//! Watchers on the event's key. Recursive watchers above it, unless there is a hidden component in between. And if a
//! directory was removed, watchers below it whose node was removed with it. The tree decides each match
//! ([`Event::matches`]). This module only finds the candidates by path.

#[cfg(test)]
mod tests;

use crate::raft::{LogIndex, Term};
use crate::tree::{ApiError, Applied, Event, Key, Tree, TreeIndex};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// There are more queued events than this only in a burst (many keys expire at once), or if the workers are too slow.
const FRESH_MAX: usize = 32 << 10;

/// After this time it is not a burst: all streams are cut.
const BURST_MAX: Duration = Duration::from_secs(1);

/// Maximum number of events that are matched while the lock is held once.
const EVENTS_AT_ONCE: usize = 64;

/// Number of watchers after which no further event is matched while the lock is held.
const TOLD_AT_ONCE: usize = 4096;

/// If a worker's inbox contains more messages than this, none are added.
const MAIL_MAX: usize = 32 << 10;

/// Wait before such a worker's inbox is checked again.
const MAIL_RETRY: Duration = Duration::from_millis(1);

/// One published state: the source of a response's body and headers.
#[derive(Clone)]
pub struct View {
    /// This version of the tree.
    pub tree: Tree,
    /// The last entry applied to it: `X-Raft-Index`.
    pub applied: LogIndex,
    /// This member's term: `X-Raft-Term`. Never decreases.
    pub term: Term,
}

/// The events that a client wants to receive.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Events on this key, including those that remove a directory above it.
    pub key: Key,
    /// Also events below the key, unless there is a hidden component in between.
    pub recursive: bool,
    /// Many events in one response, until the client disconnects.
    pub stream: bool,
    /// `waitIndex`; 0 means from now on.
    pub from: TreeIndex,
}

/// The result of a registration.
pub enum Registered {
    /// The watcher waits in the hub.
    Parked,
    /// The history contains the event: the caller answers now.
    Hit(Arc<Event>, Arc<View>),
}

/// How events reach clients. They are collected and then handed over at once, so that each thread that writes to
/// sockets is woken once for many messages.
pub trait Outbox: Default + Send + 'static {
    /// The response to a watcher whose head was sent. Dropping it closes the connection without the end of the
    /// response.
    type Watcher: Send;

    /// Sends a piece of a watcher's response.
    fn chunk(&mut self, watcher: &Self::Watcher, bytes: Arc<[u8]>);
    /// Sends the last piece of a watcher's response, and its end.
    fn end(&mut self, watcher: Self::Watcher, bytes: Arc<[u8]>);
    /// Hands over everything that was collected.
    fn flush(&mut self);
    /// The largest number of messages that wait for one thread, among those that this outbox has sent to.
    fn waiting(&self) -> usize;
}

/// Publishes new views. The raft thread knows the hub only by this trait.
pub trait Views: Send + Sync {
    /// The newest view.
    fn view(&self) -> Arc<View>;
    /// Publishes a new view together with the events that led to it, before any reply is sent.
    fn publish(&self, view: View, events: Vec<Applied>);
    /// Publishes a view from another member's snapshot: the events up to it are not known one by one. One-shot watchers
    /// get their event from its history, if the history is long enough. All others are cut, and their clients must read
    /// the present state.
    fn jump(&self, view: View);
}

/// The hub of all watchers. `published` is notified by [`WatchHub::publish`] (new events) and [`WatchHub::close`]. Only
/// the watch thread waits on it.
pub struct WatchHub<O: Outbox> {
    view: RwLock<Arc<View>>,
    state: Mutex<State<O::Watcher>>,
    published: Condvar,
}

struct State<W> {
    polls: Polls<W>,
    /// Published and not matched yet. Stays empty while there are no watchers.
    fresh: VecDeque<Applied>,
    /// Matched and not sent yet; older than everything in `fresh`.
    told: VecDeque<Told<W>>,
    closing: bool,
}

impl<O: Outbox> WatchHub<O> {
    /// A hub with this view and without watchers.
    pub fn new(view: View) -> WatchHub<O> {
        WatchHub {
            view: RwLock::new(Arc::new(view)),
            state: Mutex::new(State {
                polls: Polls::default(),
                fresh: VecDeque::new(),
                told: VecDeque::new(),
                closing: false,
            }),
            published: Condvar::new(),
        }
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Views::view(self)
    }

    /// Number of waiting watchers (`watchers` in `/v2/stats/store`). A watcher whose event is published no longer
    /// counts, even if the watch thread has not processed it yet.
    pub fn watchers(&self) -> usize {
        loop {
            let mut state = self.lock();
            if !(0..EVENTS_AT_ONCE).all(|_| state.match_one()) {
                return state.polls.count;
            }
        }
    }

    /// Searches the history. If it contains no matching event, registers a watcher.
    ///
    /// `park` is called with the watcher's token and the view at which it is registered. It sends the head of the
    /// response, and returns the open response.
    ///
    /// # Errors
    /// 401 if `from` is older than the oldest event in the history.
    pub fn register(
        &self,
        interest: &Interest,
        park: impl FnOnce(u64, &Arc<View>) -> O::Watcher,
    ) -> Result<Registered, ApiError> {
        let mut state = self.lock();
        let view = self.view();
        let now = view.tree.index();
        if interest.from.0 > 0 && interest.from <= now {
            let hit = view
                .tree
                .history()
                .scan(interest.from, &interest.key, interest.recursive)?;
            if let Some(event) = hit {
                drop(state);
                return Ok(Registered::Hit(event, view));
            }
        }
        let first = interest.from.max(TreeIndex(now.0 + 1));
        state
            .polls
            .insert(interest, first, |token| park(token, &view));
        Ok(Registered::Parked)
    }

    /// Keeps a response open without ever sending an event. The reference does this with a stream that was answered
    /// from the history (spec §9, quirk). It counts as a watcher until its client disconnects.
    pub fn park_mute(&self, interest: &Interest, park: impl FnOnce(u64) -> O::Watcher) {
        let mut state = self.lock();
        state.polls.insert(interest, TreeIndex(u64::MAX), park);
    }

    /// The watch thread: waits until events are published, then sends them to the matching watchers. Returns after
    /// [`Self::close`].
    pub fn deliver(&self) {
        let mut outbox = O::default();
        let mut state = self.lock();
        loop {
            while state.waiting() == 0 && !state.closing {
                state = self.wait(state);
            }
            let keep_up;
            (state, keep_up) = self.wait_for_workers(state, &outbox);
            if state.closing {
                return;
            }
            let cut = match keep_up {
                true => Vec::new(),
                false => state.polls.remove_streams(),
            };
            let told = state.take_told();
            drop(state);
            if !cut.is_empty() {
                log::warn!("closed {} streams: their clients do not keep up", cut.len());
            }
            drop(cut);
            for told in told {
                self.tell(told, &mut outbox);
            }
            outbox.flush();
            state = self.lock();
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<O::Watcher>>,
    ) -> MutexGuard<'a, State<O::Watcher>> {
        self.published
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a worker has too many messages; returns false if that takes too long.
    fn wait_for_workers<'a>(
        &self,
        mut state: MutexGuard<'a, State<O::Watcher>>,
        outbox: &O,
    ) -> (MutexGuard<'a, State<O::Watcher>>, bool) {
        let begin = Instant::now();
        while outbox.waiting() > MAIL_MAX && !state.closing {
            if state.waiting() > FRESH_MAX && begin.elapsed() > BURST_MAX {
                return (state, false);
            }
            let waited = self.published.wait_timeout(state, MAIL_RETRY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (state, true)
    }

    /// Renders an event once, and shares the bytes.
    fn tell(&self, told: Told<O::Watcher>, outbox: &mut O) {
        let mut bytes = Vec::with_capacity(256);
        told.event.render(&mut bytes);
        let bytes: Arc<[u8]> = bytes.into();
        for parked in told.last {
            outbox.end(parked, bytes.clone());
        }
        if told.more.is_empty() {
            return;
        }
        let state = self.lock();
        for token in told.more {
            // If a stream's client has disconnected in between, it is no longer in its slot.
            if let Some(poll) = state.polls.by_token(token) {
                outbox.chunk(&poll.parked, bytes.clone());
            }
        }
    }

    /// Ends [`Self::deliver`]. The watchers stay registered. The HTTP server closes their connections without a final
    /// chunk, and so clients know that there was no event.
    pub fn close(&self) {
        self.lock().closing = true;
        self.published.notify_all();
    }

    /// A watcher's client has disconnected: removes the watcher if it is still registered.
    pub fn gone(&self, token: u64) {
        // The watcher's memory is freed after the lock is released.
        let removed = self.lock().polls.remove_token(token);
        drop(removed);
    }

    fn lock(&self) -> MutexGuard<'_, State<O::Watcher>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Outbox> Views for WatchHub<O> {
    fn view(&self) -> Arc<View> {
        self.view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn publish(&self, view: View, events: Vec<Applied>) {
        // The old version may be the last clone of a tree, so it is freed after both locks are released.
        let mut view = Arc::new(view);
        let mut state = self.lock();
        std::mem::swap(
            &mut *self.view.write().unwrap_or_else(PoisonError::into_inner),
            &mut view,
        );
        if state.polls.is_empty() {
            return;
        }
        let before = state.waiting();
        state.fresh.extend(events);
        let notify = before == 0 && state.waiting() > 0;
        drop(state);
        if notify {
            self.published.notify_one();
        }
    }

    fn jump(&self, view: View) {
        let since = self.view().tree.index();
        let history = view.tree.history();
        let is_whole = history.start().is_none_or(|first| first.0 <= since.0 + 1);
        let missed: Vec<Applied> = history
            .since(TreeIndex(since.0 + 1))
            .filter(|_| is_whole)
            .map(|event| Applied {
                event: event.clone(),
                removed: None,
            })
            .collect();
        self.publish(view, missed);
        let mut state = self.lock();
        while state.match_one() {}
        let cut = state.polls.remove_all();
        drop(state);
        if !cut.is_empty() {
            log::warn!("closed {} watches: a snapshot was installed", cut.len());
        }
        self.published.notify_one();
    }
}

/// An event, and the watchers that receive it.
struct Told<W> {
    event: Arc<Event>,
    /// One-shot watchers: they receive the event and then the end. They have left the hub.
    last: Vec<W>,
    /// Tokens of streams: they receive the event and stay.
    more: Vec<u64>,
}

impl<W> Told<W> {
    fn len(&self) -> usize {
        self.last.len() + self.more.len()
    }
}

impl<W> State<W> {
    /// Takes some of the matched events, in index order; matches more as needed.
    fn take_told(&mut self) -> Vec<Told<W>> {
        let (mut all, mut polls) = (Vec::new(), 0);
        for _ in 0..EVENTS_AT_ONCE {
            if polls >= TOLD_AT_ONCE || self.told.is_empty() && !self.match_one() {
                break;
            }
            let told = self.told.pop_front();
            polls += told.as_ref().map_or(0, Told::len);
            all.extend(told);
        }
        all
    }

    /// Finds the watchers for the oldest event in `fresh`; returns false if there is none.
    fn match_one(&mut self) -> bool {
        let Some(applied) = self.fresh.pop_front() else {
            return false;
        };
        let told = self.polls.take_for(&applied);
        self.told.extend(told);
        true
    }

    /// Number of events that the watch thread has not processed yet.
    fn waiting(&self) -> usize {
        self.fresh.len() + self.told.len()
    }
}

/// The registered watchers, by path and by token.
struct Polls<W> {
    slots: Vec<Slot<W>>,
    free: Vec<u32>,
    /// A path without watchers has no entry.
    by_path: BTreeMap<Key, Lists>,
    count: usize,
}

/// Slots of the watchers on one path. They are in two lists, because events below the path concern only the recursive
/// ones.
#[derive(Default)]
struct Lists {
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
struct Slot<W> {
    generation: u32,
    poll: Option<Poll<W>>,
}

struct Poll<W> {
    key: Key,
    recursive: bool,
    stream: bool,
    /// The watcher does not receive events with a smaller index.
    from: TreeIndex,
    /// Position of its slot in the list of its path.
    place: u32,
    parked: W,
}

impl<W> Default for Polls<W> {
    fn default() -> Polls<W> {
        Polls {
            slots: Vec::new(),
            free: Vec::new(),
            by_path: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<W> Polls<W> {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn insert(&mut self, interest: &Interest, from: TreeIndex, park: impl FnOnce(u64) -> W) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                poll: None,
            });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 polls fit into memory")
        });
        let slot = &mut self.slots[number as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let parked = park(token(slot.generation, number));
        let lists = self.by_path.entry(interest.key.clone()).or_default();
        let list = lists.of(interest.recursive);
        slot.poll = Some(Poll {
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
    fn by_token(&self, token: u64) -> Option<&Poll<W>> {
        let slot = self.slots.get(token as u32 as usize)?;
        slot.poll
            .as_ref()
            .filter(|_| slot.generation == (token >> 32) as u32)
    }

    fn remove_token(&mut self, token: u64) -> Option<Poll<W>> {
        self.by_token(token)?;
        Some(self.remove(token as u32))
    }

    /// Removes a watcher from its slot and from its path's list, each in constant time.
    fn remove(&mut self, number: u32) -> Poll<W> {
        let poll = self.slots[number as usize]
            .poll
            .take()
            .expect("the caller saw a poll in this slot");
        let lists = self
            .by_path
            .get_mut(&poll.key)
            .expect("every poll is in its path's list");
        let list = lists.of(poll.recursive);
        list.swap_remove(poll.place as usize);
        if let Some(&moved) = list.get(poll.place as usize) {
            let moved = self.slots[moved as usize].poll.as_mut();
            moved.expect("listed slots hold polls").place = poll.place;
        }
        if lists.is_empty() {
            self.by_path.remove(&poll.key);
        }
        self.free.push(number);
        self.count -= 1;
        poll
    }

    /// Removes all streams. Dropping them ends them without a final chunk.
    fn remove_streams(&mut self) -> Vec<Poll<W>> {
        self.remove_where(|poll| poll.stream)
    }

    fn remove_all(&mut self) -> Vec<Poll<W>> {
        self.remove_where(|_| true)
    }

    fn remove_where(&mut self, chosen: impl Fn(&Poll<W>) -> bool) -> Vec<Poll<W>> {
        let is_chosen = |slot: &Slot<W>| slot.poll.as_ref().is_some_and(&chosen);
        (0..self.slots.len())
            .filter(|&number| is_chosen(&self.slots[number]))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|number| self.remove(number as u32))
            .collect()
    }

    /// The watchers that receive one event. One-shot watchers among them leave the hub.
    fn take_for(&mut self, applied: &Applied) -> Option<Told<W>> {
        let mut numbers = Vec::new();
        self.find_above(applied, &mut numbers);
        self.find_below(applied, &mut numbers);
        if numbers.is_empty() {
            return None;
        }
        let mut told = Told {
            event: applied.event.clone(),
            last: Vec::new(),
            more: Vec::new(),
        };
        for number in numbers {
            let slot = &self.slots[number as usize];
            if slot.poll.as_ref().is_some_and(|poll| poll.stream) {
                told.more.push(token(slot.generation, number));
            } else {
                told.last.push(self.remove(number).parked);
            }
        }
        Some(told)
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
        let poll = self.slots[number as usize].poll.as_ref();
        poll.expect("listed slots hold polls").from
    }
}

/// The handle of a watcher outside of the hub.
fn token(generation: u32, number: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(number)
}
