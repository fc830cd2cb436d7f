//! Letting go of what a snapshot has made superfluous.
//!
//! Kept: the newest two snapshots, and every segment with an entry after the older of them
//! (after the start of the log, while there is only one), so that a snapshot that proves bad can be
//! done without. `--max-snapshots` and `--max-wals` say how much is kept beyond that. Where room is scarce, the newest
//! snapshot alone is kept, with the log after it.
//!
//! Names may vanish in any order when the power goes between two removals. Recovery needs none of
//! them: a gap before the first segment that is needed is no gap in the log.

use super::disk::Disk;
use super::error::WalError;
use super::home;
use super::snapshot;
use super::writer::Wal;
use crate::raft::{LogIndex, SnapshotMark};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// Fewer snapshots are never kept.
const SNAPSHOTS_MIN: usize = 2;

impl<D: Disk> Wal<D> {
    /// To be called after the snapshot at `mark` was finished: removes old segments and snapshots.
    /// Where the log does not hold the mark's entry (a leader sent the snapshot), it starts anew
    /// after it, synced: the next entry may be `mark`'s index + 1.
    ///
    /// Errors: as [`Wal::write`]; `Full` when the log has to start anew and there is no room. A file
    /// that cannot be removed is left for the next time.
    pub fn compact(&mut self, mark: &SnapshotMark) -> Result<(), WalError> {
        let position = mark.position;
        if self.log.conflicts(position) {
            self.reset(position)?;
        }
        self.compacted = self.compacted.max(position.index);
        if self.is_tight() {
            return self.drop_older();
        }
        let snapshots = snapshot::positions(&self.home)?;
        let keep = snapshots
            .len()
            .checked_sub(SNAPSHOTS_MIN)
            .map(|second| snapshots[second].index);
        self.remove_snapshots(&snapshots, SNAPSHOTS_MIN)?;
        let max = self.home.options().max_wals;
        self.remove_segments(
            keep.unwrap_or_default().max(self.reach(position.index)),
            max,
        );
        self.sync_dirs()
    }

    /// Keeps the newest snapshot alone, and of the log what raft still asks for.
    pub(super) fn drop_older(&mut self) -> Result<(), WalError> {
        let snapshots = snapshot::positions(&self.home)?;
        let Some(newest) = snapshots.last() else {
            return Ok(());
        };
        let keep = newest.index.min(self.compacted);
        self.remove_snapshots(&snapshots, 1)?;
        self.remove_segments(keep.max(self.reach(newest.index)), 1);
        self.sync_dirs()
    }

    /// Entries up to here are of no use: no older snapshot has the log that goes on from it.
    fn reach(&self, newest: LogIndex) -> LogIndex {
        let before_first = LogIndex(self.log.shape.first().0 - 1);
        before_first.min(newest)
    }

    /// Keeps at least `least` of them, and as many as `--max-snapshots` says where there is room for two.
    fn remove_snapshots(
        &self,
        snapshots: &[crate::raft::Position],
        least: usize,
    ) -> Result<(), WalError> {
        let max = self.home.options().max_snapshots;
        let keep = match max {
            _ if least < SNAPSHOTS_MIN => least,
            0 => snapshots.len(),
            max => max.max(least),
        };
        let old = snapshots.len().saturating_sub(keep);
        for position in &snapshots[..old] {
            self.remove(&snapshot::path(&self.home, *position));
        }
        for found in home::list(self.home.disk(), self.home.snap())? {
            if found.name.ends_with(".bad") {
                self.remove(&self.home.snap().join(found.name));
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
        // The state before a segment has all that the ones before it say but their entries.
        let done = self.used[1..]
            .iter()
            .take_while(|next| next.before.index <= keep)
            .count();
        let gone = done.min(beyond);
        if gone == 0 {
            return;
        }
        // Readers first: who finds a file gone looks whether it should be there.
        let first = self.used[gone];
        self.index.lock().forget_files(first.name.seq);
        self.log.shape.forget(first.before.index);
        for used in self.used.drain(..gone).collect::<Vec<_>>() {
            self.remove(&self.home.wal().join(used.name.file()));
        }
        self.stats.segments.store(self.used.len() as u64, Relaxed);
    }

    fn remove(&self, path: &Path) {
        // A file that stays costs room only; recovery copes with it.
        let _ = self.home.disk().remove(path);
    }

    fn sync_dirs(&self) -> Result<(), WalError> {
        for dir in [self.home.wal(), self.home.snap()] {
            let synced = self.home.disk().sync_dir(dir);
            synced.map_err(|error| WalError::io(dir, "sync this folder", &error))?;
        }
        Ok(())
    }
}
