//! Counters of the log and its snapshots. Any thread may read them.

use crate::histogram::DiskTimes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Smallest unit that storage writes, in bytes.
const PAGE: u64 = 4096;

/// Work done on the log and its snapshots since the directory was opened. All counters except `segments` only grow.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Bytes of records written, without the rest of the pages that a sync writes with them.
    pub bytes_written: AtomicU64,
    /// Records written, of every kind. Most are entries.
    pub records: AtomicU64,
    /// Bytes given to the disk by syncs of the log, in complete pages of 4 KiB. Each sync writes a page that grows
    /// again, and this is what wears out flash.
    pub synced_bytes: AtomicU64,
    /// Number and duration of syncs that had something to store. One sync may cover many batches.
    pub syncs: DiskTimes,
    /// Segments in use. The segment that is prepared ahead is not counted.
    pub segments: AtomicU64,
    /// How often the log continued in a new segment.
    pub rolls: AtomicU64,
    /// How often the next segment was not ready when it was needed, so that the write had to wait.
    pub roll_waits: AtomicU64,
    /// Batches refused for lack of space.
    pub full: AtomicU64,
    /// Zeros written to segments before their use, in bytes.
    pub zeroed_bytes: AtomicU64,
    /// Bytes written to snapshot files, both this member's own and those sent by a leader.
    pub snapshot_bytes: AtomicU64,
    /// Number and duration of syncs of snapshot files. A large file is synced several times.
    pub snapshot_syncs: DiskTimes,
}

impl WalStats {
    /// Counts a sync of the log's bytes from `from` up to `to`.
    pub(super) fn synced(&self, from: u64, to: u64, took: Duration) {
        let pages = to.next_multiple_of(PAGE) - from / PAGE * PAGE;
        self.synced_bytes.fetch_add(pages, Relaxed);
        self.syncs.add(took);
    }

    /// Counts a sync of a snapshot's next bytes.
    pub(super) fn snapshot_synced(&self, bytes: u64, took: Duration) {
        self.snapshot_bytes.fetch_add(bytes, Relaxed);
        self.snapshot_syncs.add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_grows_is_written_by_each_sync() {
        let stats = WalStats::default();
        let synced = |from, to| {
            stats.synced(from, to, Duration::ZERO);
            stats.synced_bytes.load(Relaxed)
        };
        assert_eq!(synced(0, 100), PAGE);
        assert_eq!(synced(100, 200), 2 * PAGE);
        assert_eq!(synced(200, PAGE), 3 * PAGE);
        assert_eq!(synced(PAGE, PAGE + 1), 4 * PAGE);
        assert_eq!(synced(PAGE + 1, 2 * PAGE + 1), 6 * PAGE);
        assert_eq!(stats.syncs.read().count(), 5);
    }
}
