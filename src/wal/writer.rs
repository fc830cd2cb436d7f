//! Appends to the log. The log has one owner and one active segment.
//!
//! The writer encodes a batch, copies it into the active segment, and syncs it. There is one sync per batch, or one for
//! several batches (`append`, `append`, `sync`). If the segment has too little space for the whole batch, the writer
//! appends the part that fits, seals and syncs the segment, and writes the rest into the next one. It makes sure that
//! there is enough space before it writes the first byte, so a full disk leaves the log unchanged.

use super::data_dir::DataDir;
use super::disk::{Disk, DiskSegment};
use super::error::{WalError, WalErrorKind, is_full};
use super::index::Index;
use super::names::SegmentName;
use super::reader::{LogReader, SharedIndex};
use super::record::{self, HEAD_BYTES, Head, Place, Record, SEAL_BYTES};
use super::shape::Shape;
use super::snapshot::{SnapshotWriter, Snapshots};
use super::spare::{self, Prepared, Spare};
use super::stats::WalStats;
use super::{Batch, Clock};
use crate::raft::{Entry, HardState, LogIndex, Position, SnapshotMetadata};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Number of bytes encoded before they are copied. This limits the buffer for batches of any size.
const BUFFER_BYTES: usize = 256 * 1024;
/// The size of a segment is a multiple of this.
const PAGE: u64 = 4096;
/// A segment that was filled faster than this is followed by one of twice its size.
const BUSY: Duration = Duration::from_secs(2);
/// A segment that was filled slower than this is followed by one of half its size.
const IDLE: Duration = Duration::from_secs(120);
/// Size of a record without payload.
pub(super) const STOP_BYTES: u64 = 16;

/// State of the log apart from the content of its entries. Each segment's head repeats it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub shape: Shape,
    pub hard_state: HardState,
    pub clock: Option<Clock>,
}

impl Log {
    pub fn empty() -> Log {
        Log {
            shape: Shape::after(Position::default()),
            hard_state: HardState::default(),
            clock: None,
        }
    }

    /// Whether the log cannot continue from the snapshot: it ends before the snapshot, or has another entry at the
    /// snapshot's index (a leader sent the snapshot).
    pub fn conflicts(&self, snapshot: Position) -> bool {
        let known = self.shape.term_at(snapshot.index);
        snapshot.index > self.shape.last().index || known.is_some_and(|term| term != snapshot.term)
    }

    pub fn head(&self, segment: Prepared) -> Head {
        Head {
            seq: segment.name.seq,
            salt: segment.name.salt,
            bytes: segment.bytes,
            last: self.shape.last(),
            hard_state: self.hard_state,
            clock: self.clock,
        }
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active<D: Disk> {
    pub file: Prepared,
    pub segment: D::Segment,
    pub path: PathBuf,
    /// Offset of the next record.
    pub end: u64,
    /// All bytes before this offset are synced.
    pub durable: u64,
    /// Time at which the segment became the active one.
    pub since: Duration,
}

impl<D: Disk> Active<D> {
    /// Opens a segment without writing to it.
    pub fn open(data_dir: &DataDir<D>, file: Prepared) -> Result<Active<D>, WalError> {
        let path = data_dir.wal().join(file.name.file());
        let segment = data_dir.disk().segment(&path);
        let segment = segment.map_err(|error| WalError::io(&path, "open it", &error))?;
        Ok(Active {
            file,
            segment,
            path,
            end: 0,
            durable: 0,
            since: data_dir.disk().now(),
        })
    }

    /// Bytes left for records. The space for the seal is not included.
    fn room(&self) -> u64 {
        (self.file.bytes - SEAL_BYTES).saturating_sub(self.end)
    }

    fn place(&self, ahead: usize) -> Place {
        Place {
            salt: self.file.name.salt,
            offset: self.end + ahead as u64,
            durable: self.durable,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let written = self.segment.write(self.end, bytes);
        written.map_err(|error| WalError::final_io(&self.path, "write it", &error).at(self.end))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    pub fn write_record(&mut self, record: Record<'_>) -> Result<(), WalError> {
        let mut bytes = Vec::new();
        record.encode(self.place(0), &mut bytes);
        self.write(&bytes)
    }

    /// Syncs the bytes written since the last sync.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if self.durable == self.end {
            return Ok(());
        }
        let synced = self.segment.sync(self.durable, self.end);
        synced
            .map_err(|error| WalError::final_io(&self.path, "sync it", &error).at(self.durable))?;
        self.durable = self.end;
        Ok(())
    }
}

/// A segment in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub name: SegmentName,
    /// End of the log before this segment.
    pub before: Position,
}

/// The state that recovery passes to the writer.
pub(super) struct Parts<D: Disk> {
    pub log: Log,
    pub active: Active<D>,
    /// Oldest first. The last one is the active segment.
    pub used: Vec<Used>,
    pub spare: Option<Prepared>,
    pub index: Index,
    /// Whether the last record is a stop, which calls everything before it durable.
    pub stopped: bool,
}

/// The log, open for appending. Dropping it without [`Wal::close`] is like a crash of the process: synced records
/// remain.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    pub(super) data_dir: DataDir<D>,
    pub(super) log: Log,
    active: Active<D>,
    pub(super) used: Vec<Used>,
    spare: Spare,
    /// Whether the spare segment was found at the start. The previous process may have been killed after it renamed the
    /// file and before it synced the folder.
    spare_is_found: bool,
    pub(super) index: SharedIndex,
    buffer: Vec<u8>,
    poison: Option<WalError>,
    stopped: bool,
    /// Bytes of disk space kept for the next snapshot. Segments are created from the remaining space.
    reserve: u64,
    /// The last [`Wal::compact`] allowed the removal of entries up to this index.
    pub(super) compacted: LogIndex,
    pub(super) stats: Arc<WalStats>,
}

/// Layout of a batch: what fits into the active segment, and how much remains for the next one.
struct Plan {
    notes_fit: bool,
    entries_fit: usize,
    rest_bytes: u64,
}

impl<D: Disk> Wal<D> {
    pub(super) fn new(data_dir: DataDir<D>, parts: Parts<D>) -> Wal<D> {
        let stats = data_dir.stats().clone();
        let wal = Wal {
            data_dir,
            log: parts.log,
            active: parts.active,
            used: parts.used,
            spare_is_found: parts.spare.is_some(),
            spare: Spare::new(parts.spare),
            index: SharedIndex::new(parts.index),
            buffer: Vec::new(),
            poison: None,
            stopped: parts.stopped,
            reserve: 0,
            compacted: LogIndex(0),
            stats,
        };
        wal.stats.segments.store(wal.used.len() as u64, Relaxed);
        wal.order_spare(wal.active.file.bytes);
        wal
    }

    /// Writes the batch and syncs it.
    pub fn write(&mut self, batch: &Batch) -> Result<(), WalError> {
        self.append(batch)?;
        self.sync()
    }

    /// Writes the batch without syncing it. It is durable only after [`Wal::sync`].
    ///
    /// Errors: `Full` leaves the log unchanged, and the caller may try the same batch again. Any other error poisons
    /// the log: from then on it returns `Poisoned`.
    ///
    /// Panics if the entries leave a gap, in the batch or after the end of the log, or if they replace compacted
    /// entries.
    pub fn append(&mut self, batch: &Batch) -> Result<(), WalError> {
        self.refuse_if_poisoned()?;
        self.check(batch);
        let notes = self.notes(batch);
        let plan = self.plan(&notes, &batch.entries);
        let next = match plan.rest_bytes {
            0 => None,
            bytes => Some(self.next_segment(bytes)?),
        };
        let written = self.lay_out(batch, &notes, &plan, next);
        self.poison_on_error(written)
    }

    /// Makes everything appended so far survive a power failure. Does nothing if nothing new was appended.
    ///
    /// Errors: every failure is final (`Io`, then `Poisoned`). The kernel drops the pages that it could not write, so
    /// the next sync would succeed and prove nothing.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.refuse_if_poisoned()?;
        let synced = self.timed_sync();
        self.poison_on_error(synced)
    }

    /// Position of the last appended entry.
    pub fn last(&self) -> Position {
        self.log.shape.last()
    }

    /// Returns a reader for entries, which any thread may use.
    pub fn reader(&self) -> LogReader<D> {
        LogReader::new(self.data_dir.clone(), self.index.clone())
    }

    /// Begins a snapshot. Another thread may write it. When space is scarce, older snapshots than the newest are
    /// removed first.
    pub fn begin_snapshot(
        &mut self,
        metadata: &SnapshotMetadata,
    ) -> Result<SnapshotWriter<D>, WalError> {
        if self.is_tight() {
            self.drop_older()?;
        }
        self.snapshots().begin(metadata)
    }

    /// Keeps `bytes` of the disk free for the next snapshot, because the log cannot be shortened without one. A log on
    /// another disk (`--wal-dir`) needs no reserve there.
    pub fn set_reserve(&mut self, bytes: u64) {
        self.reserve = match self.data_dir.options().log_is_apart {
            true => 0,
            false => bytes,
        };
    }

    /// Bytes that segments may use. `None` if the free space is unknown.
    fn free_for_segments(&self) -> Option<u64> {
        let free = self.data_dir.disk().free_bytes(self.data_dir.wal())?;
        Some(free.saturating_sub(self.reserve))
    }

    /// Whether two more segments would use space of the next snapshot.
    pub(super) fn is_tight(&self) -> bool {
        // The active segment may be a tiny one: only that still fitted.
        let usual = self.data_dir.options().segment_bytes;
        let two = 2 * self.active.file.bytes.max(usual);
        self.free_for_segments().is_some_and(|free| free < two)
    }

    /// Returns a handle to write and find snapshots, which any thread may use.
    pub fn snapshots(&self) -> Snapshots<D> {
        Snapshots::new(self.data_dir.clone())
    }

    /// Shared counters.
    pub fn stats(&self) -> &Arc<WalStats> {
        &self.stats
    }

    /// Closes the log cleanly. The last record then calls everything before it durable, so that damage to any of it is
    /// detected. Writes nothing if the log is already closed.
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        if self.stopped {
            return Ok(());
        }
        if self.active.room() < STOP_BYTES {
            // If there is no space for the stop record, the seal proves the same. If the disk is full, only the last
            // batch has no witness.
            return match self.make_room(STOP_BYTES) {
                Err(error) if error.kind == WalErrorKind::Full => Ok(()),
                made => made.and_then(|()| self.sync()),
            };
        }
        let stopped = self
            .put_record(Record::Stop)
            .and_then(|()| self.timed_sync());
        self.poison_on_error(stopped)
    }

    /// Restarts the log after a snapshot whose entry it does not contain, and syncs this.
    pub(super) fn reset(&mut self, position: Position) -> Result<(), WalError> {
        self.refuse_if_poisoned()?;
        self.make_room(SEAL_BYTES)?;
        let written = self
            .put_record(Record::Reset(position))
            .and_then(|()| self.timed_sync());
        self.poison_on_error(written)?;
        self.log.shape = Shape::after(position);
        self.index.lock().reset(position.index);
        Ok(())
    }

    fn refuse_if_poisoned(&self) -> Result<(), WalError> {
        match &self.poison {
            None => Ok(()),
            Some(first) => Err(WalError {
                kind: WalErrorKind::Poisoned,
                what: format!("{}; restart the node: it reads the log again", first.what),
                ..first.clone()
            }),
        }
    }

    fn poison_on_error<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &result {
            self.poison = Some(error.clone());
        }
        result
    }

    fn check(&self, batch: &Batch) {
        let (first, last) = (self.log.shape.first(), self.log.shape.last());
        let mut next = None;
        for entry in &batch.entries {
            let index = entry.position.index;
            let follows = next.map_or(self.log.shape.admits(index), |next| index.0 == next);
            assert!(follows, "entry {index:?} after {last:?} leaves a gap");
            assert!(
                index >= first,
                "entry {index:?} is before the log's first, {first:?}"
            );
            next = Some(index.0 + 1);
        }
    }

    /// The batch's records that are not entries. The boot id is written only if it differs from the one recorded last.
    fn notes(&self, batch: &Batch) -> [Option<Record<'static>>; 2] {
        let known = self.log.clock.map(|clock| clock.boot_id);
        let clock = batch.clock.map(|clock| match known == Some(clock.boot_id) {
            true => Record::Tick {
                boottime_ns: clock.boottime_ns,
                cluster_ns: clock.cluster_ns,
            },
            false => Record::Clock(clock),
        });
        [batch.hard_state.map(Record::HardState), clock]
    }

    fn plan(&self, notes: &[Option<Record<'_>>; 2], entries: &[Entry]) -> Plan {
        let mut room = self.active.room();
        let notes_bytes = notes.iter().flatten().map(Record::bytes).sum::<u64>();
        let notes_fit = notes_bytes <= room;
        let mut plan = Plan {
            notes_fit,
            entries_fit: 0,
            rest_bytes: if notes_fit { 0 } else { notes_bytes },
        };
        room = if notes_fit { room - notes_bytes } else { 0 };
        for entry in entries {
            let bytes = record::entry_bytes(entry);
            if plan.rest_bytes == 0 && bytes <= room {
                room -= bytes;
                plan.entries_fit += 1;
            } else {
                plan.rest_bytes += bytes;
            }
        }
        plan
    }

    fn lay_out(
        &mut self,
        batch: &Batch,
        notes: &[Option<Record<'static>>; 2],
        plan: &Plan,
        next: Option<Active<D>>,
    ) -> Result<(), WalError> {
        let (now, later) = batch.entries.split_at(plan.entries_fit);
        if plan.notes_fit {
            self.put_notes(batch, notes)?;
        }
        self.put_entries(now)?;
        if let Some(next) = next {
            self.roll(next)?;
            if !plan.notes_fit {
                self.put_notes(batch, notes)?;
            }
            self.put_entries(later)?;
        }
        Ok(())
    }

    fn put_notes(
        &mut self,
        batch: &Batch,
        notes: &[Option<Record<'static>>; 2],
    ) -> Result<(), WalError> {
        for note in notes.iter().flatten() {
            self.put_record(*note)?;
        }
        self.log.hard_state = batch.hard_state.unwrap_or(self.log.hard_state);
        self.log.clock = batch.clock.or(self.log.clock);
        Ok(())
    }

    fn put_record(&mut self, record: Record<'_>) -> Result<(), WalError> {
        self.stopped = matches!(record, Record::Stop);
        let begin = self.active.end;
        self.active.write_record(record)?;
        self.count(1, self.active.end - begin);
        Ok(())
    }

    fn put_entries(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.stopped = false;
        let begin = self.active.end;
        for entry in entries {
            record::encode_entry(
                entry,
                self.active.place(self.buffer.len()),
                &mut self.buffer,
            );
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        self.flush()?;
        self.note_entries(entries, begin);
        self.count(entries.len(), self.active.end - begin);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WalError> {
        self.active.write(&self.buffer)?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        Ok(())
    }

    /// Adds the entries to the index and the outline. This must follow the write, because readers use the index.
    fn note_entries(&mut self, entries: &[Entry], begin: u64) {
        let mut offset = begin;
        let mut index = self.index.lock();
        for entry in entries {
            index.put(entry.position.index, self.active.file.name.seq, offset);
            self.log.shape.put(entry.position);
            offset += record::entry_bytes(entry);
        }
        assert_eq!(
            offset, self.active.end,
            "the batch is not as long as was computed before it was written"
        );
    }

    fn count(&self, records: usize, bytes: u64) {
        self.stats.records.fetch_add(records as u64, Relaxed);
        self.stats.bytes_written.fetch_add(bytes, Relaxed);
    }

    fn timed_sync(&mut self) -> Result<(), WalError> {
        if self.active.durable == self.active.end {
            return Ok(());
        }
        let (from, begin) = (self.active.durable, self.data_dir.disk().now());
        self.active.sync()?;
        let took = self.data_dir.disk().now() - begin;
        if self.data_dir.disk().syncs() {
            self.stats.synced(from, self.active.durable, took);
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        if self.active.room() >= bytes {
            return Ok(());
        }
        let next = self.next_segment(bytes)?;
        let rolled = self.roll(next);
        self.poison_on_error(rolled)
    }

    /// Opens the next segment with space for `bytes` of records. This writes nothing to it.
    fn next_segment(&mut self, bytes: u64) -> Result<Active<D>, WalError> {
        let needed = (HEAD_BYTES + bytes + SEAL_BYTES).next_multiple_of(PAGE);
        if self.spare.is_being_made() {
            self.stats.roll_waits.fetch_add(1, Relaxed);
        }
        let next = match self.spare.ready() {
            Some(spare) if spare.bytes >= needed => spare,
            spare => self.make_segment(needed, spare)?,
        };
        if std::mem::take(&mut self.spare_is_found) {
            // A power failure would remove an unsynced name, and with it everything that the log has written into that
            // file.
            let synced = self.data_dir.disk().sync_dir(self.data_dir.wal());
            let failed =
                |error| WalError::final_io(self.data_dir.wal(), "sync this directory", &error);
            self.poison_on_error(synced.map_err(failed))?;
        }
        let opened = Active::open(&self.data_dir, next);
        self.poison_on_error(opened)
    }

    /// Creates a segment in this thread, because none is prepared or the prepared one is too small.
    fn make_segment(&mut self, needed: u64, small: Option<Prepared>) -> Result<Prepared, WalError> {
        let usual = needed.max(self.data_dir.options().segment_bytes);
        let bytes = match self.free_for_segments() {
            Some(free) if free < needed => return Err(self.no_room()),
            // A small segment is better than none.
            Some(free) if free < 2 * usual => needed,
            _ => usual,
        };
        match spare::make(&self.data_dir, self.active.file.name.seq + 1, bytes) {
            Ok(made) => {
                self.spare.set(Some(made));
                if let Some(small) = small {
                    // If this removal fails or is undone by a crash, recovery sees that the seal does not name this
                    // file.
                    let _ = self
                        .data_dir
                        .disk()
                        .remove(&self.data_dir.wal().join(small.name.file()));
                }
                Ok(made)
            }
            Err(error) if is_full(&error) => Err(self.no_room()),
            Err(error) => {
                let error = WalError::io(self.data_dir.wal(), "create a segment", &error);
                self.poison_on_error(Err(error))
            }
        }
    }

    fn no_room(&self) -> WalError {
        self.stats.full.fetch_add(1, Relaxed);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        WalError::io(self.data_dir.wal(), "reserve space for the log", &full)
    }

    /// Seals the active segment and continues in `next`. The seal is synced before the first byte of the next file is
    /// written, because a file with records proves that the file before it is complete.
    fn roll(&mut self, next: Active<D>) -> Result<(), WalError> {
        let seal = Record::Sealed {
            last: self.log.shape.last(),
            next_salt: next.file.name.salt,
        };
        self.put_record(seal)?;
        self.timed_sync()?;
        let bytes = self.next_size();
        self.active = next;
        let (name, before) = (self.active.file.name, self.log.shape.last());
        self.used.push(Used { name, before });
        self.index.lock().add_file(name);
        self.put_record(Record::Head(self.log.head(self.active.file)))?;
        self.spare.set(None);
        self.order_spare(bytes);
        self.stats.rolls.fetch_add(1, Relaxed);
        self.stats.segments.store(self.used.len() as u64, Relaxed);
        Ok(())
    }

    /// Size of the segment after the next one, chosen by how fast the active one was filled.
    fn next_size(&self) -> u64 {
        let (took, bytes) = (
            self.data_dir.disk().now() - self.active.since,
            self.active.file.bytes,
        );
        match took {
            took if took < BUSY => bytes.saturating_mul(2),
            took if took > IDLE => bytes / 2,
            _ => bytes,
        }
    }

    fn order_spare(&self, bytes: u64) {
        let options = self.data_dir.options();
        let bytes = bytes.clamp(
            options.segment_bytes,
            options.segment_bytes_max.max(options.segment_bytes),
        );
        // The space is more useful for the next snapshot than for a segment prepared ahead.
        if self
            .free_for_segments()
            .is_some_and(|free| free < 2 * bytes)
        {
            return;
        }
        let seq = self.active.file.name.seq + 1;
        self.spare
            .order(&self.data_dir, seq, bytes.next_multiple_of(PAGE));
    }
}

impl<D: Disk> Drop for Wal<D> {
    fn drop(&mut self) {
        // The background thread uses this directory. Nobody may open the directory again before that thread has
        // finished.
        self.spare.ready();
    }
}
