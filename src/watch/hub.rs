//! The hub: the locks, the watch thread, and how events reach clients.

#[cfg(test)]
mod tests;

use super::matching::{Matched, Watchers};
use super::{Interest, View};
use crate::tree::{ApiError, Applied, Event, TreeIndex};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// There are more queued events than this only in a burst (many keys expire at once), or if the workers are too slow.
const FRESH_MAX: usize = 32 << 10;

/// After this time it is not a burst: all streams are cut, or slow clients are not waited for.
const BURST_MAX: Duration = Duration::from_secs(1);

/// Maximum number of events that are matched while the lock is held once.
const EVENTS_AT_ONCE: usize = 64;

/// Number of watchers after which no further event is matched while the lock is held.
const WATCHERS_AT_ONCE: usize = 4096;

/// If a worker's inbox contains more messages than this, none are added.
const MESSAGES_MAX: usize = 32 << 10;

/// Wait before such a worker's inbox is checked again.
const MESSAGES_RETRY: Duration = Duration::from_millis(1);

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

    /// Sends the same piece of the responses to several watchers. They share its bytes.
    fn chunk<'a>(&mut self, watchers: impl Iterator<Item = &'a Self::Watcher>, bytes: Arc<[u8]>)
    where
        Self::Watcher: 'a;
    /// Sends the last piece of a watcher's response, and its end.
    fn end(&mut self, watcher: Self::Watcher, bytes: Arc<[u8]>);
    /// Hands over everything that was collected.
    fn flush(&mut self);
    /// The largest number of messages that wait for one thread, among those that this outbox has sent to.
    fn waiting(&self) -> usize;
    /// Whether no piece should be added now, because the pieces that clients have not received yet use too much
    /// memory. Cuts the responses to clients that do not keep up. `patient`: also waits for clients that are slow.
    fn is_full(&self, patient: bool) -> bool;
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
    /// See [`BURST_MAX`].
    burst_max: Duration,
}

struct State<W> {
    watchers: Watchers<W>,
    /// Published and not matched yet. Stays empty while there are no watchers.
    fresh: VecDeque<Applied>,
    /// Matched and not sent yet; older than everything in `fresh`.
    matched: VecDeque<Matched<W>>,
    closing: bool,
}

impl<O: Outbox> WatchHub<O> {
    /// A hub with this view and without watchers.
    pub fn new(view: View) -> WatchHub<O> {
        WatchHub {
            view: RwLock::new(Arc::new(view)),
            state: Mutex::new(State {
                watchers: Watchers::default(),
                fresh: VecDeque::new(),
                matched: VecDeque::new(),
                closing: false,
            }),
            published: Condvar::new(),
            burst_max: BURST_MAX,
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
                return state.watchers.count();
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
            .watchers
            .insert(interest, first, |token| park(token, &view));
        Ok(Registered::Parked)
    }

    /// Keeps a response open without ever sending an event. The reference does this with a stream that was answered
    /// from the history (spec §9, quirk). It counts as a watcher until its client disconnects.
    pub fn park_mute(&self, interest: &Interest, park: impl FnOnce(u64) -> O::Watcher) {
        let mut state = self.lock();
        state.watchers.insert(interest, TreeIndex(u64::MAX), park);
    }

    /// The watch thread: waits until events are published, then sends them to the matching watchers. Returns after
    /// [`Self::close`].
    pub fn deliver(&self) {
        let mut outbox = O::default();
        let mut state = self.lock();
        let mut full_since = None;
        loop {
            let was_idle = state.waiting() == 0;
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
                false => state.watchers.remove_streams(),
            };
            let matched = state.take_matched();
            drop(state);
            if !cut.is_empty() {
                log::warn!("closed {} streams: their clients do not keep up", cut.len());
            }
            drop(cut);
            if was_idle && !outbox.is_full(true) {
                full_since = None;
            }
            for matched in matched {
                if !matched.more.is_empty() {
                    self.wait_for_clients(&mut outbox, &mut full_since);
                }
                self.send(matched, &mut outbox);
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
        while outbox.waiting() > MESSAGES_MAX && !state.closing {
            if state.waiting() > FRESH_MAX && begin.elapsed() > self.burst_max {
                return (state, false);
            }
            let waited = self.published.wait_timeout(state, MESSAGES_RETRY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (state, true)
    }

    /// Waits while the unsent events of streams use too much memory, so that a burst of large events does not exceed it
    /// while clients read. `full_since`: when that began. After [`BURST_MAX`] it is not a burst, and slow clients are
    /// not waited for until the queue was empty and there was room.
    fn wait_for_clients(&self, outbox: &mut O, full_since: &mut Option<Instant>) {
        if !outbox.is_full(true) {
            return;
        }
        outbox.flush();
        let since = *full_since.get_or_insert_with(Instant::now);
        while outbox.is_full(since.elapsed() < self.burst_max) {
            let state = self.lock();
            if state.closing || state.waiting() > FRESH_MAX {
                return;
            }
            let waited = self.published.wait_timeout(state, MESSAGES_RETRY);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Renders an event once, and shares the bytes.
    fn send(&self, matched: Matched<O::Watcher>, outbox: &mut O) {
        let mut bytes = Vec::with_capacity(256);
        matched.event.render(&mut bytes);
        let bytes: Arc<[u8]> = bytes.into();
        for parked in matched.last {
            outbox.end(parked, bytes.clone());
        }
        if matched.more.is_empty() {
            return;
        }
        let state = self.lock();
        // If a stream's client has disconnected in between, it is no longer in its slot.
        let tokens = matched.more.iter();
        let watchers = tokens.filter_map(|&token| state.watchers.by_token(token));
        outbox.chunk(watchers.map(|watcher| &watcher.parked), bytes);
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
        let removed = self.lock().watchers.remove_token(token);
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
        if state.watchers.is_empty() {
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
        let cut = state.watchers.remove_all();
        drop(state);
        if !cut.is_empty() {
            log::warn!("closed {} watches: a snapshot was installed", cut.len());
        }
        self.published.notify_one();
    }
}

impl<W> State<W> {
    /// Takes some of the matched events, in index order; matches more as needed.
    fn take_matched(&mut self) -> Vec<Matched<W>> {
        let (mut all, mut watchers) = (Vec::new(), 0);
        for _ in 0..EVENTS_AT_ONCE {
            if watchers >= WATCHERS_AT_ONCE || self.matched.is_empty() && !self.match_one() {
                break;
            }
            let matched = self.matched.pop_front();
            watchers += matched.as_ref().map_or(0, Matched::len);
            all.extend(matched);
        }
        all
    }

    /// Finds the watchers for the oldest event in `fresh`; returns false if there is none.
    fn match_one(&mut self) -> bool {
        let Some(applied) = self.fresh.pop_front() else {
            return false;
        };
        let matched = self.watchers.take_for(&applied);
        self.matched.extend(matched);
        true
    }

    /// Number of events that the watch thread has not processed yet.
    fn waiting(&self) -> usize {
        self.fresh.len() + self.matched.len()
    }
}
