//! Counters that any thread may read.

use crate::histogram::DiskTimes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What storage writes at least.
const PAGE: u64 = 4096;

/// What has been done to the log and its snapshots since the directory was opened. All counters are monotonic but
/// `segments`.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Bytes of records written, without the rest of the pages that a sync writes with them.
    pub bytes_written: AtomicU64,
    /// Records written, of every kind; entries are most of them.
    pub records: AtomicU64,
    /// What the disk was given in syncs of the log: whole pages of 4 KiB. A page that grows is written again
    /// by each sync, which is what wears flash.
    pub synced_bytes: AtomicU64,
    /// Syncs that had something to store, and how long they took; one may stand for many batches.
    pub syncs: DiskTimes,
    /// Segments in use; the one made ready ahead is not counted.
    pub segments: AtomicU64,
    /// Times the log went on in a new segment.
    pub rolls: AtomicU64,
    /// Times that one was not ready when it was needed, so that the write waited.
    pub roll_waits: AtomicU64,
    /// Batches refused for lack of space.
    pub full: AtomicU64,
    /// Zeros that segments were filled with before their use.
    pub zeroed_bytes: AtomicU64,
    /// Bytes written to snapshot files, this member's own and those that a leader has sent.
    pub snapshot_bytes: AtomicU64,
    /// Syncs of snapshot files; a large one is synced several times.
    pub snapshot_syncs: DiskTimes,
}

impl WalStats {
    /// The log's bytes from `from` up to `to` are on disk.
    pub(super) fn synced(&self, from: u64, to: u64, took: Duration) {
        let pages = to.next_multiple_of(PAGE) - from / PAGE * PAGE;
        self.synced_bytes.fetch_add(pages, Relaxed);
        self.syncs.add(took);
    }

    /// A snapshot's next bytes are on disk.
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
