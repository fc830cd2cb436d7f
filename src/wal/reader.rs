//! Reads entries by index while the writer appends.

use super::data_dir::DataDir;
use super::disk::Disk;
use super::error::{WalError, WalErrorKind};
use super::index::Index;
use super::record::Record;
use super::scan::{Found, Window};
use crate::raft::{Entry, LogIndex, Payload};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The index that the writer fills and the readers use. The lock is held only for one lookup or one change.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    pub fn new(index: Index) -> SharedIndex {
        SharedIndex(Arc::new(Mutex::new(index)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is one call that cannot panic half-way, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads entries that were appended, synced or not, with ordinary reads of their files.
#[derive(Debug)]
pub struct LogReader<D: Disk> {
    data_dir: DataDir<D>,
    index: SharedIndex,
}

impl<D: Disk> Clone for LogReader<D> {
    fn clone(&self) -> LogReader<D> {
        LogReader::new(self.data_dir.clone(), self.index.clone())
    }
}

impl<D: Disk> LogReader<D> {
    pub(super) fn new(data_dir: DataDir<D>, index: SharedIndex) -> LogReader<D> {
        LogReader { data_dir, index }
    }

    /// The entries `from..=to`: at least one if the log has one, and at most `max_bytes` of payload unless the first
    /// entry is larger. Fewer entries, or none, if the log does not contain them (now that it was compacted).
    ///
    /// Errors: `Io`. `Damaged` if a record differs from what was written.
    pub fn read(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, WalError> {
        // All runs are taken at once. Everything in these runs was written before this moment, so no part that is read
        // for one run can be too old for the next one.
        let runs = self.index.lock().runs(from, to, max_bytes as u64);
        let mut reading = Reading::new(from, to, max_bytes);
        let mut open: Option<(u64, Window<D::Reader>)> = None;
        for run in runs {
            if open.as_ref().is_none_or(|(seq, _)| *seq != run.name.seq) {
                let Some(window) = self.open(run.name)? else {
                    break;
                };
                open = Some((run.name.seq, window));
            }
            let Some((_, window)) = &mut open else { break };
            if !reading.run(window, run.offset, run.until)? {
                break;
            }
        }
        Ok(reading.entries)
    }

    /// `None` if the file was removed, which may happen once its entries are in a snapshot.
    fn open(&self, name: super::names::SegmentName) -> Result<Option<Window<D::Reader>>, WalError> {
        let path = self.data_dir.wal().join(name.file());
        match self.data_dir.disk().open(&path) {
            Ok(file) => Ok(Some(Window::new(&path, file, name.salt))),
            Err(_) if self.index.lock().file(name.seq).is_none() => Ok(None),
            Err(error) => Err(WalError::io(&path, "open it", &error)),
        }
    }
}

/// A read in progress.
pub(super) struct Reading {
    /// Index of the entry that is read next.
    pub next: LogIndex,
    to: LogIndex,
    left: usize,
    pub entries: Vec<Entry>,
}

impl Reading {
    pub fn new(from: LogIndex, to: LogIndex, max_bytes: usize) -> Reading {
        Reading {
            next: from,
            to,
            left: max_bytes,
            entries: Vec::new(),
        }
    }

    /// Takes entries from a run that starts at `offset` and contains indexes below `until`. Returns false if no further
    /// entry is wanted.
    pub fn run<R: super::disk::DiskReader>(
        &mut self,
        window: &mut Window<R>,
        mut offset: u64,
        until: LogIndex,
    ) -> Result<bool, WalError> {
        let path = window.path().to_path_buf();
        while self.next < until {
            if self.next > self.to {
                return Ok(false);
            }
            let lost = |what: &str| WalError::new(WalErrorKind::Damaged, &path, what).at(offset);
            let (record, next) = match window.record_at(offset)? {
                Found::Record { record, next, .. } => (record, next),
                Found::Nothing => {
                    return Err(lost(
                        "the record here was valid when it was written, and fails its checksum now",
                    )
                    .index(self.next));
                }
                Found::Undecodable(undecodable) => return Err(lost(undecodable.0)),
            };
            if let Record::Entry {
                position,
                kind,
                bytes,
            } = record
                && position.index == self.next
            {
                if bytes.len() > self.left && !self.entries.is_empty() {
                    return Ok(false);
                }
                let payload = Payload::decode(kind, bytes).map_err(|error| lost(error.0))?;
                self.left = self.left.saturating_sub(bytes.len());
                self.entries.push(Entry { position, payload });
                self.next = LogIndex(self.next.0 + 1);
            }
            offset = next;
        }
        Ok(true)
    }
}
