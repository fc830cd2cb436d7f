//! Finds entries on disk: a sparse table that the writer fills and the readers use.
//!
//! A spot says that the entries from its index up to the next spot's index are stored in one file, in order, starting
//! at its offset. Other records may lie between them. There is a spot for the first entry of each file, one for every
//! [`SPACING`] bytes, and one wherever entries were replaced. Therefore a replaced entry is never read.

use super::names::SegmentName;
use crate::raft::LogIndex;
use std::collections::BTreeMap;

/// Number of bytes that a reader may have to skip. A spot takes 24 bytes, so 64 MiB of log cost 24 KiB of memory.
const SPACING: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    index: LogIndex,
    seq: u64,
    offset: u64,
}

/// Consecutive records of one file that contain all entries below `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub name: SegmentName,
    pub offset: u64,
    pub until: LogIndex,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Ascending by index, and also by file and offset, because spots of replaced entries are dropped.
    spots: Vec<Spot>,
    /// Index of the last entry.
    last: LogIndex,
    files: BTreeMap<u64, SegmentName>,
}

impl Index {
    pub fn add_file(&mut self, name: SegmentName) {
        self.files.insert(name.seq, name);
    }

    pub fn file(&self, seq: u64) -> Option<SegmentName> {
        self.files.get(&seq).copied()
    }

    /// Records that an entry was written at this place. It replaces all entries from its index on.
    pub fn put(&mut self, index: LogIndex, seq: u64, offset: u64) {
        let replaces = index <= self.last;
        if replaces {
            self.spots
                .truncate(self.spots.partition_point(|spot| spot.index < index));
        }
        let near = self
            .spots
            .last()
            .is_some_and(|spot| spot.seq == seq && offset - spot.offset < SPACING);
        if replaces || !near {
            self.spots.push(Spot { index, seq, offset });
        }
        self.last = index;
    }

    /// Records that the log is empty and continues after `last`.
    pub fn reset(&mut self, last: LogIndex) {
        self.spots.clear();
        self.last = last;
    }

    /// Forgets the files before `seq`.
    pub fn forget_files(&mut self, seq: u64) {
        self.files = self.files.split_off(&seq);
        self.spots.retain(|spot| spot.seq >= seq);
    }

    /// File and offset from which a reader finds this entry. `None` if there is no such entry.
    pub fn begin(&self, index: LogIndex) -> Option<(u64, u64)> {
        let spots = self.spots.partition_point(|spot| spot.index <= index);
        let spot = self.spots[..spots].last().filter(|_| index <= self.last);
        spot.map(|spot| (spot.seq, spot.offset))
    }

    /// The runs of records that contain the entries `from..=to`, as many as are needed for `bytes` of payload.
    pub fn runs(&self, from: LogIndex, to: LogIndex, bytes: u64) -> Vec<Run> {
        let Some(first) = self
            .spots
            .partition_point(|spot| spot.index <= from)
            .checked_sub(1)
        else {
            return Vec::new();
        };
        if from > self.last {
            return Vec::new();
        }
        // Replaced entries make some runs shorter than the spacing. Then a read returns less than it could.
        let count = usize::try_from(bytes / SPACING)
            .unwrap_or(usize::MAX)
            .saturating_add(2);
        let last = LogIndex(self.last.0 + 1);
        let ends = self.spots[first + 1..]
            .iter()
            .map(|spot| spot.index)
            .chain([last]);
        let runs = self.spots[first..].iter().zip(ends).take(count);
        runs.take_while(|(spot, _)| spot.index <= to)
            .filter_map(|(spot, until)| {
                let (name, offset) = (self.file(spot.seq)?, spot.offset);
                Some(Run {
                    name,
                    offset,
                    until,
                })
            })
            .collect()
    }

    /// The lowest index from which the records of all later entries take at most `bytes`, with the precision of one
    /// spot. `file_end` returns the end of the records in a file.
    pub fn tail(&self, bytes: u64, file_end: impl Fn(u64) -> u64) -> LogIndex {
        let mut left = bytes;
        let mut from = LogIndex(self.last.0 + 1);
        let mut behind: Option<Spot> = None;
        for spot in self.spots.iter().rev() {
            let same_file = behind.filter(|behind| behind.seq == spot.seq);
            let until = same_file.map_or_else(|| file_end(spot.seq), |behind| behind.offset);
            let size = until.saturating_sub(spot.offset);
            if size > left {
                break;
            }
            left -= size;
            from = spot.index;
            behind = Some(*spot);
        }
        from
    }
}
