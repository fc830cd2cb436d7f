//! The memory budget of streams: one limit for the chunks that wait in all streams of one server.
//!
//! A stream is a parked response that gets many chunks. Its chunks wait in the inbox of its worker, and then in its
//! output until the client accepts them. Several streams may get the same chunk. It is in memory once, so it counts
//! once: from the first stream that gets it until the last one has sent or dropped it.
//!
//! A single chunk may have tens of megabytes, so no stream has a limit of bytes of its own. If all chunks together
//! exceed the budget, the sender waits for a moment ([`Outbox::is_full`](super::Outbox::is_full)). If a stream lags
//! meanwhile, it is cut: of all streams that lag, on all workers, the one with the most bytes first. A stream lags if
//! its client has accepted nothing for a second ([`Limits::lag_time`](super::Limits::lag_time)), or if a chunk has
//! waited that long behind another one. So a
//! stream that keeps up is not cut because of another one that does not.
//!
//! Many clients that each read a single chunk very slowly do not lag. Therefore, above twice the budget, the stream
//! with the most bytes is cut in any case. That rule ignores chunks that exceed the budget alone.
//!
//! One stream is cut at a time. The next one is chosen after the worker has made the cut and its chunks are freed,
//! because streams that share their chunks free them only together.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A piece of a parked response. Clones share its bytes.
#[derive(Clone)]
pub(super) struct Chunk {
    bytes: Arc<[u8]>,
    /// `None` if it does not count in the budget: the last chunk of a response counts in the backlog.
    counted: Option<Arc<Counted>>,
}

/// Bytes that count as held until this is dropped.
struct Counted {
    bytes: usize,
    since: Instant,
    held: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Chunk {
    /// A chunk that does not count in the budget.
    pub fn uncounted(bytes: Arc<[u8]>) -> Chunk {
        Chunk {
            bytes,
            counted: None,
        }
    }

    /// Since when it counts in the budget.
    pub fn since(&self) -> Option<Instant> {
        self.counted.as_ref().map(|counted| counted.since)
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The budget, and the streams whose sockets have not accepted all of their chunks. `P` identifies a stream to the
/// caller.
pub(super) struct StreamBudget<P> {
    limit_bytes: usize,
    lag_time: Duration,
    held_bytes: Arc<AtomicUsize>,
    cuts: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting<P>>>,
}

/// A stream with unsent chunks.
struct Waiting<P> {
    place: P,
    unsent: Unsent,
    /// Whether it was chosen to be cut.
    is_chosen: bool,
}

/// The chunks of one stream that are not sent completely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsent {
    pub chunks: usize,
    pub bytes: usize,
    /// When the client last accepted a byte, or when the stream began to wait for it.
    pub progress: Instant,
    /// Since when the second chunk waits, if there is one.
    pub second_since: Option<Instant>,
}

/// Whether the chunks exceed the budget, and what to do about it before another chunk is added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BudgetState<P> {
    /// The chunks do not exceed the budget.
    Room,
    /// They exceed it, and no stream is to be cut for now.
    Full,
    /// A stream was chosen, and it is not cut yet.
    Cutting,
    /// Cut this stream.
    Cut(P),
}

impl<P> Waiting<P> {
    fn lags(&self, lag_time: Duration, now: Instant) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= lag_time;
        is_long(self.unsent.progress) || self.unsent.second_since.is_some_and(is_long)
    }
}

impl<P: Clone> StreamBudget<P> {
    /// See [`Limits::streams_bytes`](super::Limits::streams_bytes) and [`Limits::lag_time`](super::Limits::lag_time).
    pub fn new(limit_bytes: usize, lag_time: Duration) -> StreamBudget<P> {
        StreamBudget {
            limit_bytes,
            lag_time,
            held_bytes: Arc::default(),
            cuts: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Bytes of all counted chunks.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Number of streams cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// A chunk that counts in this budget while a clone of it exists.
    pub fn chunk(&self, bytes: Arc<[u8]>) -> Chunk {
        self.held_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let counted = Counted {
            bytes: bytes.len(),
            since: Instant::now(),
            held: Arc::clone(&self.held_bytes),
        };
        Chunk {
            bytes,
            counted: Some(Arc::new(counted)),
        }
    }

    /// Records the unsent chunks of a stream (at least one). `id` is unique in the server.
    pub fn record(&self, id: u64, unsent: Unsent, place: impl FnOnce() -> P) {
        let mut all = self.lock();
        let stream = all.entry(id).or_insert_with(|| Waiting {
            place: place(),
            unsent,
            is_chosen: false,
        });
        stream.unsent = unsent;
    }

    /// A stream has sent all its chunks, or has ended.
    pub fn forget(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Whether this stream was chosen by [`StreamBudget::check`]. If so, the caller cuts it now.
    pub fn cut(&self, id: u64) -> bool {
        let is_chosen = self.lock().get(&id).is_some_and(|stream| stream.is_chosen);
        if is_chosen {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
        is_chosen
    }

    /// Compares the chunks with the budget, and chooses the stream to be cut.
    pub fn check(&self, now: Instant) -> BudgetState<P> {
        let held = self.held_bytes();
        if held <= self.limit_bytes {
            return BudgetState::Room;
        }
        let mut all = self.lock();
        if all.values().any(|stream| stream.is_chosen) {
            return BudgetState::Cutting;
        }
        let lagging = all
            .values_mut()
            .filter(|stream| stream.lags(self.lag_time, now));
        let mut chosen = lagging.max_by_key(|stream| stream.unsent.bytes);
        if chosen.is_none() {
            let largest = all.values_mut().max_by_key(|stream| stream.unsent.bytes);
            chosen = largest.filter(|stream| self.is_far_exceeded(held, stream.unsent));
        }
        match chosen {
            None => BudgetState::Full,
            Some(stream) => {
                stream.is_chosen = true;
                BudgetState::Cut(stream.place.clone())
            }
        }
    }

    /// `largest`: the stream with the most bytes.
    fn is_far_exceeded(&self, held: usize, largest: Unsent) -> bool {
        let single = match largest.chunks {
            1 => largest.bytes,
            _ => 0,
        };
        held / 2 > self.limit_bytes.max(single)
    }

    /// No code under this lock can panic but for want of memory, and then the map is valid.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting<P>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAGS_AFTER: Duration = Duration::from_secs(1);
    const BEFORE: Duration = Duration::from_millis(999);

    /// A budget of 100 bytes, its time of origin, and chunks of `held` bytes in total.
    fn budget(held: usize) -> (StreamBudget<u64>, Instant, Chunk) {
        let budget = StreamBudget::new(100, LAGS_AFTER);
        let chunk = budget.chunk(vec![0; held].into());
        (budget, Instant::now(), chunk)
    }

    fn record(budget: &StreamBudget<u64>, id: u64, (chunks, bytes): (usize, usize), now: Instant) {
        let unsent = Unsent {
            chunks,
            bytes,
            progress: now,
            second_since: (chunks > 1).then_some(now),
        };
        budget.record(id, unsent, || id);
    }

    /// Cuts as many streams as necessary, and returns them in order.
    fn cut_all(budget: &StreamBudget<u64>, now: Instant) -> Vec<u64> {
        let mut order = Vec::new();
        while let BudgetState::Cut(id) = budget.check(now) {
            assert!(budget.cut(id));
            budget.forget(id);
            order.push(id);
        }
        order
    }

    #[test]
    fn a_chunk_counts_once_until_its_last_stream_has_sent_it() {
        let budget = StreamBudget::<u64>::new(100, LAGS_AFTER);
        let chunk = budget.chunk(vec![0; 80].into());
        let other = budget.chunk(vec![0; 7].into());
        let mut streams: Vec<Chunk> = (0..10).map(|_| chunk.clone()).collect();
        drop(chunk);
        assert_eq!(budget.held_bytes(), 87);
        streams.truncate(1);
        assert_eq!(budget.held_bytes(), 87);
        drop(streams);
        assert_eq!(budget.held_bytes(), 7);
        drop(other);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn within_the_budget_nobody_is_cut() {
        let (budget, begin, _chunk) = budget(100);
        record(&budget, 1, (9, 90), begin);
        assert_eq!(budget.check(begin + 10 * LAGS_AFTER), BudgetState::Room);
    }

    #[test]
    fn the_largest_that_lags_is_cut_first() {
        let (budget, begin, _chunk) = budget(101);
        for (id, unsent) in [(1, (2, 20)), (2, (1, 60)), (3, (9, 50)), (4, (3, 99))] {
            record(&budget, id, unsent, begin);
        }
        let later = begin + LAGS_AFTER;
        // The largest one has only the chunk that it sends, and its client reads.
        record(&budget, 4, (1, 99), later);
        assert_eq!(cut_all(&budget, later), [2, 3, 1]);
        assert_eq!(budget.check(later), BudgetState::Full);
        assert_eq!(budget.cuts(), 3);
    }

    #[test]
    fn a_stream_lags_if_its_client_accepts_nothing_for_a_second() {
        let (budget, begin, _chunk) = budget(101);
        record(&budget, 1, (1, 10), begin);
        assert_eq!(budget.check(begin + BEFORE), BudgetState::Full);
        assert_eq!(budget.check(begin + LAGS_AFTER), BudgetState::Cut(1));
    }

    #[test]
    fn a_stream_lags_if_a_chunk_waits_for_a_second_behind_another() {
        let (budget, begin, _chunk) = budget(101);
        let later = begin + LAGS_AFTER;
        let check = |second_since| {
            let unsent = Unsent {
                chunks: 3,
                bytes: 10,
                progress: later,
                second_since,
            };
            budget.record(1, unsent, || 1);
            budget.check(later)
        };
        assert_eq!(check(None), BudgetState::Full);
        assert_eq!(check(Some(later - BEFORE)), BudgetState::Full);
        assert_eq!(check(Some(begin)), BudgetState::Cut(1));
    }

    #[test]
    fn the_next_cut_waits_for_the_effect_of_the_first() {
        let (budget, begin, chunk) = budget(101);
        let later = begin + LAGS_AFTER;
        for id in 1..=2 {
            record(&budget, id, (2, 50), begin);
        }
        let BudgetState::Cut(first) = budget.check(later) else {
            panic!("one is cut");
        };
        assert_eq!(budget.check(later), BudgetState::Cutting);
        record(&budget, first, (3, 70), later);
        assert_eq!(
            budget.check(later),
            BudgetState::Cutting,
            "it is still to be cut"
        );
        drop(chunk);
        assert!(budget.cut(first));
        budget.forget(first);
        assert_eq!(budget.check(later), BudgetState::Room);
    }

    #[test]
    fn a_chosen_stream_that_catches_up_is_not_cut() {
        let (budget, begin, _chunk) = budget(101);
        record(&budget, 1, (2, 50), begin);
        assert_eq!(budget.check(begin + LAGS_AFTER), BudgetState::Cut(1));
        budget.forget(1);
        record(&budget, 1, (1, 50), begin + LAGS_AFTER);
        assert!(!budget.cut(1));
        assert_eq!(budget.cuts(), 0);
    }

    #[test]
    fn twice_the_budget_is_never_exceeded_for_long() {
        let (budget, begin, _chunk) = budget(202);
        for (id, bytes) in [(1, 60), (2, 80), (3, 70)] {
            record(&budget, id, (1, bytes), begin);
        }
        assert_eq!(cut_all(&budget, begin), [2, 3, 1]);
        // A chunk larger than the budget must reach somebody.
        record(&budget, 4, (1, 202), begin);
        assert_eq!(budget.check(begin), BudgetState::Full);
        let _another = budget.chunk(vec![0; 204].into());
        assert_eq!(budget.check(begin), BudgetState::Cut(4));
    }
}
