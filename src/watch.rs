//! The watch hub: where long polls wait, and the one place that shows the newest tree.
//!
//! # What it owns
//!
//! * The **view**: the newest version of the tree with the raft numbers that belong to it. The raft
//!   thread replaces it once a batch ([`WatchHub::publish`]); every reader clones one pointer.
//! * The **polls**: a parked long-poll is an entry here of a few hundred bytes, found by its path. It
//!   is not a thread.
//!
//! # Invariants
//!
//! * *No event is missed or told twice.* A watch is registered under the same lock under which events
//!   are published: it looks through the history of the very version it registers at, and is then told
//!   of events with a larger index only (`Poll::from`).
//! * *Events reach a poll in index order*: published in that order, matched in that order by one thread.
//! * *A poll leaves the hub once*: answered, cut, or gone. Its token carries a generation, so a late
//!   word about an old poll cannot touch a new one in the same slot.
//! * Nothing is rendered or sent while the lock is held, but for the head of a poll that parks (bytes
//!   into its own worker's buffer). The watch thread matches a few events at a time, so the raft thread
//!   never waits long for the lock.
//! * *What waits is bounded.* When the workers do not keep up with the mail for their streams, the watch
//!   thread waits for them; when too many events have gathered here and that lasts, all streams are cut, as
//!   clients that lag are (spec §9). One-shot polls are told once each, so they cannot hold anything up.
//!
//! # Whom an event concerns (spec §9)
//!
//! Polls on the event's key; recursive polls above it unless a hidden component lies between; and,
//! when a directory went, polls below it whose node went with it. The tree room decides each match
//! ([`Event::matches`]); this room only finds the candidates by path.

#[cfg(test)]
mod tests;

use crate::raft::{LogIndex, Term};
use crate::tree::{ApiError, Applied, Event, Key, Tree, TreeIndex};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// So many events wait to be matched only in a burst: many keys that expire at once…
const FRESH_MAX: usize = 32 << 10;

/// …or when the workers do not keep up. After this long it is no burst.
const BURST_MAX: Duration = Duration::from_secs(1);

/// Under one hold of the lock no more events are matched…
const EVENTS_AT_ONCE: usize = 64;

/// …and no further one once so many polls were found.
const TOLD_AT_ONCE: usize = 4096;

/// While more mail than this waits in a worker's inbox, nothing is added to it.
const MAIL_MAX: usize = 32 << 10;

/// How soon such a worker is looked at again.
const MAIL_RETRY: Duration = Duration::from_millis(1);

/// One published state: everything an answer's body and headers are made from.
#[derive(Clone)]
pub struct View {
    /// This version of the tree.
    pub tree: Tree,
    /// The last entry applied to it: `X-Raft-Index`.
    pub applied: LogIndex,
    /// This member's term: `X-Raft-Term`. Never falls.
    pub term: Term,
}

/// What a client asked to be told of.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Events on this key; also those that remove a directory above it.
    pub key: Key,
    /// Events below the key as well, unless a hidden component lies between.
    pub recursive: bool,
    /// Many events in one answer, until the client goes.
    pub stream: bool,
    /// `waitIndex`; 0: from now on.
    pub from: TreeIndex,
}

/// What became of a registration.
pub enum Registered {
    /// The poll waits in the hub.
    Parked,
    /// The history had the event: answer it now.
    Hit(Arc<Event>, Arc<View>),
}

/// How answers reach clients: collected, then handed over at once, so that each thread that writes to sockets is woken
/// once for many answers.
pub trait Outbox: Default + Send + 'static {
    /// The answer of a watcher whose head was sent. Dropping it closes the connection without the end of the answer.
    type Watcher: Send;

    /// Sends a piece of a watcher's answer.
    fn chunk(&mut self, watcher: &Self::Watcher, bytes: Arc<[u8]>);
    /// Sends the last piece of a watcher's answer, and its end.
    fn end(&mut self, watcher: Self::Watcher, bytes: Arc<[u8]>);
    /// Hands over all that was collected.
    fn flush(&mut self);
    /// How many answers wait for the thread that has most of them waiting, among those that this outbox has sent to.
    fn waiting(&self) -> usize;
}

/// What publishes a new view. The raft thread knows the hub as this.
pub trait Views: Send + Sync {
    /// The newest view.
    fn view(&self) -> Arc<View>;
    /// Shows a new view together with the events that led to it, before anybody is answered.
    fn publish(&self, view: View, events: Vec<Applied>);
    /// Shows a view that another member's snapshot has brought: the events up to it did not pass here one by
    /// one. One-shot polls get theirs from its history, if that reaches back far enough; all others are cut,
    /// and their clients look for themselves.
    fn jump(&self, view: View);
}

/// Where long polls wait. `published` is notified by [`WatchHub::publish`] (new events) and
/// [`WatchHub::close`]; only the watch thread waits on it.
pub struct WatchHub<O: Outbox> {
    view: RwLock<Arc<View>>,
    state: Mutex<State<O::Watcher>>,
    published: Condvar,
}

struct State<W> {
    polls: Polls<W>,
    /// Published, not yet matched. Nothing is added while nobody waits.
    fresh: VecDeque<Applied>,
    /// Matched, not yet told; older than everything in `fresh`.
    told: VecDeque<Told<W>>,
    closing: bool,
}

impl<O: Outbox> WatchHub<O> {
    /// A hub that shows `view` and in which nobody waits.
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

    /// Polls waiting now (`watchers` in `/v2/stats/store`). One whose event is published does not wait any
    /// more, even if the watch thread has not come to it yet.
    pub fn watchers(&self) -> usize {
        loop {
            let mut state = self.lock();
            if !(0..EVENTS_AT_ONCE).all(|_| state.match_one()) {
                return state.polls.count;
            }
        }
    }

    /// Looks through the history and, if nothing there answers the interest, parks it.
    ///
    /// `park` is called with the poll's token and the view it registers at, and gives the parked
    /// answer, whose head it has sent.
    ///
    /// # Errors
    /// 401 when `from` is older than the oldest event kept.
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

    /// Keeps an answer open without ever telling it anything: the reference's stream that was answered
    /// from the history (spec §9, quirk). It counts as a watcher until its client goes.
    pub fn park_mute(&self, interest: &Interest, park: impl FnOnce(u64) -> O::Watcher) {
        let mut state = self.lock();
        state.polls.insert(interest, TreeIndex(u64::MAX), park);
    }

    /// The watch thread: sleeps until events are published, then answers the polls they concern.
    /// Returns after [`Self::close`].
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

    /// Waits while a worker has its hands full; false if that takes too long.
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

    /// Renders an event once and shares the bytes.
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
            // A stream whose client has gone in between is not in its slot any more.
            if let Some(poll) = state.polls.by_token(token) {
                outbox.chunk(&poll.parked, bytes.clone());
            }
        }
    }

    /// Ends [`Self::deliver`]. Polls stay parked: the door closes them without a final chunk, which is
    /// how clients know that no event was meant.
    pub fn close(&self) {
        self.lock().closing = true;
        self.published.notify_all();
    }

    /// The client of a watcher has gone: its poll, if it still waits, is dropped.
    pub fn gone(&self, token: u64) {
        // What the poll held is freed after the lock is let go.
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
        // The old version may be the last of its kind: it is freed after both locks are let go.
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

/// An event and whom it concerns.
struct Told<W> {
    event: Arc<Event>,
    /// One-shot polls: the event, then the end. They have left the hub.
    last: Vec<W>,
    /// Tokens of streams: the event, and they go on.
    more: Vec<u64>,
}

impl<W> Told<W> {
    fn len(&self) -> usize {
        self.last.len() + self.more.len()
    }
}

impl<W> State<W> {
    /// Takes some of what is to be told, in index order; matches what is needed for that.
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

    /// Finds whom the oldest fresh event concerns; false if there is none.
    fn match_one(&mut self) -> bool {
        let Some(applied) = self.fresh.pop_front() else {
            return false;
        };
        let told = self.polls.take_for(&applied);
        self.told.extend(told);
        true
    }

    /// Events that the watch thread has yet to look at.
    fn waiting(&self) -> usize {
        self.fresh.len() + self.told.len()
    }
}

/// The parked polls, found by path and by token.
struct Polls<W> {
    slots: Vec<Slot<W>>,
    free: Vec<u32>,
    /// A path without polls has no entry.
    by_path: BTreeMap<Key, Lists>,
    count: usize,
}

/// Slots of the polls on one path, apart, since what happens below it concerns the recursive ones only.
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

/// A place for a poll. `generation` counts its tenants.
struct Slot<W> {
    generation: u32,
    poll: Option<Poll<W>>,
}

struct Poll<W> {
    key: Key,
    recursive: bool,
    stream: bool,
    /// Events with a smaller index are not for it.
    from: TreeIndex,
    /// Where its slot stands in the list of its path.
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

    /// The poll a token was given for, while it is here.
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

    /// Takes a poll out of its slot and its path's list, each in constant time.
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

    /// All streams. Dropping them ends them without a final chunk.
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

    /// Whom one event concerns; one-shot polls among them leave the hub.
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

    /// Polls on the key itself, and on each directory above it.
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

    /// Polls below a directory that went.
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

    /// Polls on one path; whether the event matches there is asked once for all of them.
    fn find_on(&self, path: &Key, lists: &Lists, applied: &Applied, numbers: &mut Vec<u32>) {
        let Applied { event, removed } = applied;
        for (list, recursive) in [(&lists.plain, false), (&lists.recursive, true)] {
            if !list.is_empty() && event.matches(path, recursive, removed.as_ref()) {
                let since = |number: &&u32| self.from(**number) <= event.index;
                numbers.extend(list.iter().filter(since));
            }
        }
    }

    /// Events with a smaller index are not for the poll in this slot.
    fn from(&self, number: u32) -> TreeIndex {
        let poll = self.slots[number as usize].poll.as_ref();
        poll.expect("listed slots hold polls").from
    }
}

/// What stands for a poll outside of the hub.
fn token(generation: u32, number: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(number)
}
