//! The log being written: one owner, one active segment.
//!
//! A batch is encoded, copied into the active segment, and synced: one sync a batch, or one for
//! several batches (`append`, `append`, `sync`). Where the segment has no room for all of it, what
//! fits goes in; the segment is sealed and synced; the rest goes into the next, whole. The room is
//! found before the first byte is written, so a full disk leaves the log as it was.

use super::disk::{Disk, DiskSegment};
use super::error::{WalError, WalErrorKind, is_full};
use super::home::Home;
use super::index::Index;
use super::names::SegmentName;
use super::reader::{LogReader, SharedIndex};
use super::record::{self, HEAD_BYTES, Head, Place, Record, SEAL_BYTES};
use super::shape::Shape;
use super::snapshot::{SnapshotWriter, Snapshots};
use super::spare::{self, Prepared, Spare};
use super::stats::WalStats;
use super::{Batch, Clock};
use crate::raft::{Ballot, Entry, LogIndex, Position, SnapshotMark};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What is encoded before it is copied: bounds the buffer, whatever the size of a batch.
const BUFFER_BYTES: usize = 256 * 1024;
/// Segments are whole pages.
const PAGE: u64 = 4096;
/// A segment filled faster than this is followed by one of twice its size…
const BUSY: Duration = Duration::from_secs(2);
/// …and one filled slower than this by one of half its size.
const IDLE: Duration = Duration::from_secs(120);
/// Bytes of a record without payload.
pub(super) const STOP_BYTES: u64 = 16;

/// What the log says besides its entries; a segment's head repeats it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub shape: Shape,
    pub ballot: Ballot,
    pub clock: Option<Clock>,
}

impl Log {
    pub fn empty() -> Log {
        Log {
            shape: Shape::after(Position::default()),
            ballot: Ballot::default(),
            clock: None,
        }
    }

    /// Whether the log cannot be the one that goes on from a snapshot: it ends before it, or has
    /// another entry at its index (a leader sent the snapshot).
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
            ballot: self.ballot,
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
    /// Where the next record goes.
    pub end: u64,
    /// Everything before this is synced.
    pub durable: u64,
    /// When it became the active one.
    pub since: Duration,
}

impl<D: Disk> Active<D> {
    /// Opens a segment; nothing is written.
    pub fn open(home: &Home<D>, file: Prepared) -> Result<Active<D>, WalError> {
        let path = home.wal().join(file.name.file());
        let segment = home.disk().segment(&path);
        let segment = segment.map_err(|error| WalError::io(&path, "open it", &error))?;
        Ok(Active {
            file,
            segment,
            path,
            end: 0,
            durable: 0,
            since: home.disk().now(),
        })
    }

    /// Bytes left for records; there is always room behind them for the one that seals the segment.
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

    /// Syncs what was written since the last sync.
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
    /// Where the log ended before it.
    pub before: Position,
}

/// What recovery hands over.
pub(super) struct Parts<D: Disk> {
    pub log: Log,
    pub active: Active<D>,
    /// Oldest first; the last is the active one.
    pub used: Vec<Used>,
    pub spare: Option<Prepared>,
    pub index: Index,
    /// Whether the last record is one that calls all before it durable.
    pub stopped: bool,
}

/// The log, open for appending. Dropped without [`Wal::close`], it is as after a crash of the
/// process: what was synced is there.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    pub(super) home: Home<D>,
    pub(super) log: Log,
    active: Active<D>,
    pub(super) used: Vec<Used>,
    spare: Spare,
    /// The spare was found at the start: the process before may have been killed between giving it its name and making
    /// that name durable.
    spare_is_found: bool,
    pub(super) index: SharedIndex,
    buffer: Vec<u8>,
    poison: Option<WalError>,
    stopped: bool,
    /// Room on the disk that is kept for the next snapshot; segments are made from what is left.
    reserve: u64,
    /// Entries up to here may go, by the last [`Wal::compact`].
    pub(super) compacted: LogIndex,
    pub(super) stats: Arc<WalStats>,
}

/// How a batch is laid out: what goes into the active segment, and how much is left for the next.
struct Plan {
    notes_fit: bool,
    entries_fit: usize,
    rest_bytes: u64,
}

impl<D: Disk> Wal<D> {
    pub(super) fn new(home: Home<D>, parts: Parts<D>) -> Wal<D> {
        let stats = home.stats().clone();
        let wal = Wal {
            home,
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

    /// Writes the batch; it counts for nothing before [`Wal::sync`].
    ///
    /// Errors: `Full` leaves the log as it was, and the same batch may be tried again. After any
    /// other the log is poisoned: what it returns from then on is `Poisoned`.
    ///
    /// Panics when the entries leave a gap, in the batch or behind the log, or replace some that were
    /// compacted.
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

    /// Makes all that was appended survive a power cut. Costs nothing when there is nothing new.
    ///
    /// Errors: any failure is final (`Io`, then `Poisoned`): the kernel drops what it could not
    /// write, so the next sync would succeed and prove nothing.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.refuse_if_poisoned()?;
        let synced = self.timed_sync();
        self.poison_on_error(synced)
    }

    /// The position of the last entry appended.
    pub fn last(&self) -> Position {
        self.log.shape.last()
    }

    /// Reads entries back, from any thread.
    pub fn reader(&self) -> LogReader<D> {
        LogReader::new(self.home.clone(), self.index.clone())
    }

    /// Begins a snapshot; may be written by another thread. Where room is scarce, the snapshots before the newest go
    /// first.
    pub fn begin_snapshot(&mut self, mark: &SnapshotMark) -> Result<SnapshotWriter<D>, WalError> {
        if self.is_tight() {
            self.drop_older()?;
        }
        self.snapshots().begin(mark)
    }

    /// Keeps so many bytes of the disk free for the next snapshot, without which the log could never be shortened. A
    /// log that lies on another disk needs no such room there.
    pub fn set_reserve(&mut self, bytes: u64) {
        self.reserve = match self.home.options().wal_dir {
            Some(_) => 0,
            None => bytes,
        };
    }

    /// Bytes that segments may take; None if it is not known.
    fn free_for_segments(&self) -> Option<u64> {
        let free = self.home.disk().free_bytes(self.home.wal())?;
        Some(free.saturating_sub(self.reserve))
    }

    /// Whether two further segments would eat into the room for the next snapshot.
    pub(super) fn is_tight(&self) -> bool {
        let two = 2 * self.active.file.bytes;
        self.free_for_segments().is_some_and(|free| free < two)
    }

    /// Snapshots are written and found through this, from any thread.
    pub fn snapshots(&self) -> Snapshots<D> {
        Snapshots::new(self.home.clone())
    }

    /// Shared counters.
    pub fn stats(&self) -> &Arc<WalStats> {
        &self.stats
    }

    /// A clean stop: the last record calls all before it durable, so that damage to any of it will
    /// be seen. Writes nothing when the log is already closed so.
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        if self.stopped {
            return Ok(());
        }
        if self.active.room() < STOP_BYTES {
            // Without room for the record, the seal says the same; if the disk is full, the last
            // batch has no witness, and nothing else is lost.
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

    /// Starts the log anew behind a snapshot that it does not hold, synced.
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
                what: format!(
                    "{}; restart the node: it will see what is there",
                    first.what
                ),
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

    /// The batch's records that are not entries. The boot id is written only where it is news.
    fn notes(&self, batch: &Batch) -> [Option<Record<'static>>; 2] {
        let known = self.log.clock.map(|clock| clock.boot_id);
        let clock = batch.clock.map(|clock| match known == Some(clock.boot_id) {
            true => Record::Tick {
                boottime_ns: clock.boottime_ns,
                cluster_ns: clock.cluster_ns,
            },
            false => Record::Clock(clock),
        });
        [batch.ballot.map(Record::Ballot), clock]
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
        self.log.ballot = batch.ballot.unwrap_or(self.log.ballot);
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

    /// Tells the table and the outline, once the bytes are where readers may look for them.
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
            "records took other room than was counted"
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
        let (from, begin) = (self.active.durable, self.home.disk().now());
        self.active.sync()?;
        let took = self.home.disk().now() - begin;
        self.stats.synced(from, self.active.durable, took);
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

    /// The next segment, opened, with room for so many bytes of records. Nothing is written yet.
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
            // A power cut would take an unsynced name away, with all that the log has put into the file by then.
            let synced = self.home.disk().sync_dir(self.home.wal());
            let failed = |error| WalError::final_io(self.home.wal(), "sync this folder", &error);
            self.poison_on_error(synced.map_err(failed))?;
        }
        let opened = Active::open(&self.home, next);
        self.poison_on_error(opened)
    }

    /// Makes a segment in line, because there is none or it is too small.
    fn make_segment(&mut self, needed: u64, small: Option<Prepared>) -> Result<Prepared, WalError> {
        let usual = needed.max(self.home.options().segment_bytes);
        let bytes = match self.free_for_segments() {
            Some(free) if free < needed => return Err(self.no_room()),
            // A small one is better than none.
            Some(free) if free < 2 * usual => needed,
            _ => usual,
        };
        match spare::make(&self.home, self.active.file.name.seq + 1, bytes) {
            Ok(made) => {
                self.spare.set(Some(made));
                if let Some(small) = small {
                    // Should it stay, or come back after a crash, recovery sees that it is not the
                    // one named by the seal.
                    let _ = self
                        .home
                        .disk()
                        .remove(&self.home.wal().join(small.name.file()));
                }
                Ok(made)
            }
            Err(error) if is_full(&error) => Err(self.no_room()),
            Err(error) => {
                let error = WalError::io(self.home.wal(), "make another segment", &error);
                self.poison_on_error(Err(error))
            }
        }
    }

    fn no_room(&self) -> WalError {
        self.stats.full.fetch_add(1, Relaxed);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        WalError::io(self.home.wal(), "make room for more log", &full)
    }

    /// Seals the active segment and goes on in `next`. The seal is synced before the first byte of
    /// the next file is written: a file with records says that the one before it is whole.
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

    /// The size of the segment after the next one, by how fast the active one was filled.
    fn next_size(&self) -> u64 {
        let (took, bytes) = (
            self.home.disk().now() - self.active.since,
            self.active.file.bytes,
        );
        match took {
            took if took < BUSY => bytes.saturating_mul(2),
            took if took > IDLE => bytes / 2,
            _ => bytes,
        }
    }

    fn order_spare(&self, bytes: u64) {
        let options = self.home.options();
        let bytes = bytes.clamp(
            options.segment_bytes,
            options.segment_bytes_max.max(options.segment_bytes),
        );
        // What is made ahead is of no use when the next snapshot has no room.
        if self
            .free_for_segments()
            .is_some_and(|free| free < 2 * bytes)
        {
            return;
        }
        let seq = self.active.file.name.seq + 1;
        self.spare
            .order(&self.home, seq, bytes.next_multiple_of(PAGE));
    }
}

impl<D: Disk> Drop for Wal<D> {
    fn drop(&mut self) {
        // The helper works in this directory: nobody may open it again before it has finished.
        self.spare.ready();
    }
}
