//! Deletes segments and snapshots that a newer snapshot has made unnecessary.
//!
//! The newest two snapshots are kept, and every segment with an entry after the older of them. While there is only one
//! snapshot, the log is kept from its start. So the member can start without a snapshot that turns out to be damaged.
//! `--max-snapshots` and `--max-wals` set how many more are kept. When space is scarce, only the newest snapshot and
//! the log after it are kept.
//!
//! A power failure between two removals may undo any of them, in any order. Recovery needs none of the removed files,
//! and it accepts a gap in front of the first segment that it needs.

use super::data_dir;
use super::disk::Disk;
use super::error::WalError;
use super::snapshot;
use super::writer::Wal;
use crate::raft::{LogIndex, SnapshotMetadata};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// Lower bound of the number of snapshots that are kept.
const SNAPSHOTS_MIN: usize = 2;

impl<D: Disk> Wal<D> {
    /// Removes old segments and snapshots. The caller calls this after the snapshot at `metadata` was finished. If the log
    /// does not contain the entry at the snapshot's position (a leader sent the snapshot), the log restarts after that
    /// position. The restart is synced, and the next entry may have the snapshot's index + 1.
    ///
    /// Errors: those of [`Wal::write`]. `Full` if the log has to restart and there is no space. A file that cannot be
    /// removed stays until the next call.
    pub fn compact(&mut self, metadata: &SnapshotMetadata) -> Result<(), WalError> {
        let position = metadata.position;
        if self.log.conflicts(position) {
            self.reset(position)?;
        }
        self.compacted = self.compacted.max(position.index);
        if self.is_tight() {
            return self.drop_older();
        }
        let snapshots = snapshot::positions(&self.data_dir)?;
        let keep = snapshots
            .len()
            .checked_sub(SNAPSHOTS_MIN)
            .map(|second| snapshots[second].index);
        self.remove_snapshots(&snapshots, SNAPSHOTS_MIN)?;
        let max = self.data_dir.options().max_wals;
        self.remove_segments(
            keep.unwrap_or_default().max(self.reach(position.index)),
            max,
        );
        self.sync_dirs()
    }

    /// Keeps only the newest snapshot and the part of the log that raft still needs.
    pub(super) fn drop_older(&mut self) -> Result<(), WalError> {
        let snapshots = snapshot::positions(&self.data_dir)?;
        let Some(newest) = snapshots.last() else {
            return Ok(());
        };
        let keep = newest.index.min(self.compacted);
        self.remove_snapshots(&snapshots, 1)?;
        self.remove_segments(keep.max(self.reach(newest.index)), 1);
        self.sync_dirs()
    }

    /// Entries up to this index need not be kept: the log begins after it, so it continues from no older snapshot.
    fn reach(&self, newest: LogIndex) -> LogIndex {
        let before_first = LogIndex(self.log.shape.first().0 - 1);
        before_first.min(newest)
    }

    /// Keeps at least `least` snapshots, and as many as `--max-snapshots` allows if there is space for two.
    fn remove_snapshots(
        &self,
        snapshots: &[crate::raft::Position],
        least: usize,
    ) -> Result<(), WalError> {
        let max = self.data_dir.options().max_snapshots;
        let keep = match max {
            _ if least < SNAPSHOTS_MIN => least,
            0 => snapshots.len(),
            max => max.max(least),
        };
        let old = snapshots.len().saturating_sub(keep);
        for position in &snapshots[..old] {
            snapshot::remove(&self.data_dir, *position);
        }
        for found in data_dir::list(self.data_dir.disk(), self.data_dir.snap())? {
            if found.name.ends_with(".bad") {
                self.remove(&self.data_dir.snap().join(found.name));
            }
        }
        Ok(())
    }

    fn remove_segments(&mut self, keep: LogIndex, max: usize) {
        let beyond = if max == 0 {
            0
        } else {
            self.used.len().saturating_sub(max)
        };
        // A segment's head holds all state of the segments before it except their entries.
        let done = self.used[1..]
            .iter()
            .take_while(|next| next.before.index <= keep)
            .count();
        let gone = done.min(beyond);
        if gone == 0 {
            return;
        }
        // The index forgets the files first: a reader that does not find a file asks the index whether the file should
        // exist.
        let first = self.used[gone];
        self.index.lock().forget_files(first.name.seq);
        self.log.shape.forget(first.before.index);
        for used in self.used.drain(..gone).collect::<Vec<_>>() {
            self.remove(&self.data_dir.wal().join(used.name.file()));
        }
        self.stats.segments.store(self.used.len() as u64, Relaxed);
    }

    fn remove(&self, path: &Path) {
        // A file that cannot be removed only costs space. Recovery handles it.
        let _ = self.data_dir.disk().remove(path);
    }

    fn sync_dirs(&self) -> Result<(), WalError> {
        for dir in [self.data_dir.wal(), self.data_dir.snap()] {
            let synced = self.data_dir.disk().sync_dir(dir);
            synced.map_err(|error| WalError::io(dir, "sync this directory", &error))?;
        }
        Ok(())
    }
}
