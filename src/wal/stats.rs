//! Counters that any thread may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many bounds the histogram of sync times has; see [`WalStats::sync_bounds`].
pub const SYNC_BUCKETS: usize = 14;

/// What the log has done since it was opened. All counters are monotonic but `segments`.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Bytes of records written, without the rest of the pages that a sync writes with them.
    pub bytes_written: AtomicU64,
    /// Records written, of every kind; entries are most of them.
    pub records: AtomicU64,
    /// Syncs that had something to store; one may stand for many batches.
    pub syncs: AtomicU64,
    /// Time spent in syncs, in nanoseconds.
    pub sync_ns: AtomicU64,
    /// Syncs that took no longer than the bound of the same place (and longer than the one before);
    /// the last: longer than all bounds.
    pub sync_buckets: [AtomicU64; SYNC_BUCKETS + 1],
    /// Segments in use; the one made ready ahead is not counted.
    pub segments: AtomicU64,
    /// Times the log went on in a new segment.
    pub rolls: AtomicU64,
    /// Times that one was not ready when it was needed, so that the write waited.
    pub roll_waits: AtomicU64,
    /// Batches refused for lack of space.
    pub full: AtomicU64,
}

impl WalStats {
    /// Upper bounds in seconds: 0.001 · 2^n, as etcd's `wal_fsync_duration_seconds` has them.
    pub fn sync_bounds() -> [f64; SYNC_BUCKETS] {
        std::array::from_fn(|n| 0.001 * f64::from(1 << n))
    }

    pub(super) fn count_sync(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (0..SYNC_BUCKETS).find(|n| ns <= 1_000_000 << n);
        self.syncs.fetch_add(1, Relaxed);
        self.sync_ns.fetch_add(ns, Relaxed);
        self.sync_buckets[bucket.unwrap_or(SYNC_BUCKETS)].fetch_add(1, Relaxed);
    }
}
