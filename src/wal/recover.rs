//! Turns the files on disk into a log that can be written to, or refuses them.
//!
//! All checks that can refuse the directory run first and change nothing (see `decide`), so a refused directory stays
//! as it was. The repairs follow.

use super::data_dir::DataDir;
use super::decide::{Decision, Files, decide};
use super::disk::{Disk, DiskReader, DiskSegment};
use super::error::WalError;
use super::names::SegmentName;
use super::reader::{LogReader, SharedIndex};
use super::record::{RECORD_ALIGN, Record};
use super::replay::Replayed;
use super::snapshot::{self, SnapshotReader};
use super::spare::Prepared;
use super::writer::{Active, Log, Parts, STOP_BYTES, Used, Wal};
use super::{Clock, index::Index};
use crate::raft::{HardState, LogIndex, Position, StoredLog};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// The state that was on disk.
#[derive(Debug)]
pub struct Recovered<D: Disk> {
    /// The newest stored hard state. In a new directory it has term 0 and no vote.
    pub hard_state: HardState,
    /// The newest undamaged snapshot. It was already checked, and it is checked again while it is read.
    pub snapshot: Option<SnapshotReader<D>>,
    /// The log after that snapshot.
    pub log: StoredLog,
    /// Clock readings at the last write.
    pub clock: Option<Clock>,
    /// Warnings about problems found and repaired, one line each, for the program's log.
    pub warnings: Vec<String>,
}

/// Opens the log of a data directory. Creates the log if the directory is new.
///
/// Errors: `Damaged` if the files contradict what was confirmed (then nothing was changed), `Foreign`, `Io`, `Full`.
pub fn recover<D: Disk>(data_dir: &DataDir<D>) -> Result<(Wal<D>, Recovered<D>), WalError> {
    let found = Files::list(data_dir)?;
    let Some(mut decision) = decide(data_dir, &found)? else {
        found.remove_temporaries(data_dir);
        return begin(data_dir);
    };
    found.remove_temporaries(data_dir);
    repair(data_dir, &decision)?;
    let (position, starts_anew) = (decision.start(), decision.starts_anew());
    let log = match starts_anew {
        true => StoredLog {
            last: position.index,
            ..StoredLog::default()
        },
        false => stored_log(data_dir, &decision.replayed, position.index)?,
    };
    let mut warnings = std::mem::take(&mut decision.warnings);
    warnings.extend(decision.torn.take());
    let recovered = Recovered {
        hard_state: decision.replayed.log.hard_state,
        snapshot: decision.snapshot.take(),
        log,
        clock: decision.replayed.log.clock,
        warnings,
    };
    let mut wal = Wal::new(data_dir.clone(), parts(data_dir, decision.replayed)?);
    if starts_anew {
        wal.reset(position)?;
    }
    Ok((wal, recovered))
}

/// Creates the first segment of a new directory. Its head is written and synced before it gets its name.
fn begin<D: Disk>(data_dir: &DataDir<D>) -> Result<(Wal<D>, Recovered<D>), WalError> {
    let disk = data_dir.disk();
    let name = SegmentName {
        seq: 0,
        salt: disk.random(),
    };
    let file = Prepared {
        name,
        bytes: data_dir.options().segment_bytes.next_multiple_of(4096),
    };
    let (temporary, path) = (
        data_dir.wal().join(name.temporary()),
        data_dir.wal().join(name.file()),
    );
    let failed = |error| WalError::io(&path, "make it", &error);
    disk.allocate(&temporary, file.bytes).map_err(failed)?;
    data_dir.stats().zeroed_bytes.fetch_add(file.bytes, Relaxed);
    let log = Log::empty();
    let mut bytes = Vec::new();
    let place = super::record::Place {
        salt: name.salt,
        offset: 0,
        durable: 0,
    };
    Record::Head(log.head(file)).encode(place, &mut bytes);
    let mut segment = disk.segment(&temporary).map_err(failed)?;
    segment.write(0, &bytes).map_err(failed)?;
    segment.sync(0, bytes.len() as u64).map_err(failed)?;
    disk.rename(&temporary, &path).map_err(failed)?;
    disk.sync_dir(data_dir.wal()).map_err(failed)?;
    let (end, since) = (bytes.len() as u64, disk.now());
    let active = Active {
        file,
        segment,
        path,
        end,
        durable: end,
        since,
    };
    let mut index = Index::default();
    index.add_file(name);
    let used = vec![Used {
        name,
        before: Position::default(),
    }];
    let parts = Parts {
        log,
        active,
        used,
        spare: None,
        index,
        stopped: false,
    };
    let recovered = Recovered {
        hard_state: HardState::default(),
        snapshot: None,
        log: StoredLog::default(),
        clock: None,
        warnings: Vec::new(),
    };
    Ok((Wal::new(data_dir.clone(), parts), recovered))
}

/// Makes the disk match the decision: removes superfluous segments, gives snapshots their names back, renames damaged
/// ones, and syncs the folders.
fn repair<D: Disk>(data_dir: &DataDir<D>, decision: &Decision<D>) -> Result<(), WalError> {
    let Decision { replayed, bad, .. } = decision;
    for name in &replayed.superfluous {
        let path = data_dir.wal().join(name.file());
        data_dir
            .disk()
            .remove(&path)
            .map_err(|error| WalError::io(&path, "remove it", &error))?;
    }
    let renamed = snapshot::rename_back(data_dir)?;
    for position in bad {
        let path = snapshot::path(data_dir, *position);
        let aside = path.with_extension("bad");
        data_dir
            .disk()
            .rename(&path, &aside)
            .map_err(|error| WalError::io(&path, "move it aside", &error))?;
    }
    let is_unchanged = replayed.superfluous.is_empty() && bad.is_empty() && !renamed;
    if replayed.stopped && is_unchanged {
        return Ok(());
    }
    // The previous process may have ended between a rename and the sync of its folder.
    for dir in [data_dir.wal(), data_dir.snap(), data_dir.member()] {
        sync_dir(data_dir, dir)?;
    }
    Ok(())
}

fn sync_dir<D: Disk>(data_dir: &DataDir<D>, dir: &Path) -> Result<(), WalError> {
    let synced = data_dir.disk().sync_dir(dir);
    synced.map_err(|error| WalError::io(dir, "sync this directory", &error))
}

/// The log after `start`, with its last entries in memory.
fn stored_log<D: Disk>(
    data_dir: &DataDir<D>,
    replayed: &Replayed,
    start: LogIndex,
) -> Result<StoredLog, WalError> {
    let last = replayed.log.shape.last().index;
    let bytes = data_dir.options().tail_bytes;
    let ends = &replayed.ends;
    let end_of = |seq: u64| ends.get(&seq).copied().unwrap_or(0);
    let from = replayed
        .index
        .tail(bytes as u64, end_of)
        .max(LogIndex(start.0 + 1));
    let reader = LogReader::new(data_dir.clone(), SharedIndex::new(replayed.index.clone()));
    let mut tail = Vec::new();
    while tail.len() as u64 + from.0 <= last.0 {
        let next = LogIndex(from.0 + tail.len() as u64);
        let more = reader.read(next, last, bytes)?;
        assert!(
            !more.is_empty(),
            "entry {next:?} of {last:?} was just replayed"
        );
        tail.extend(more);
    }
    let after = |change: &&crate::raft::Entry| change.position.index > start;
    Ok(StoredLog {
        terms: replayed.log.shape.runs_after(start),
        last: last.max(start),
        changes: replayed.changes.iter().filter(after).cloned().collect(),
        tail,
    })
}

/// Opens the active segment, zeroes everything behind the end of the log, and makes the records that were read durable.
fn parts<D: Disk>(data_dir: &DataDir<D>, replayed: Replayed) -> Result<Parts<D>, WalError> {
    let mut active = Active::open(data_dir, replayed.active)?;
    zero_rest(&mut active, &replayed)?;
    if !replayed.stopped {
        settle(data_dir, &mut active, &replayed)?;
    }
    // A stop record proves that everything before it is durable, but proves nothing about itself: a process that ended
    // during the stop may have left the record in the page cache only. Therefore the next record overwrites it.
    let stop = if replayed.stopped { STOP_BYTES } else { 0 };
    active.end = replayed.end - stop;
    active.durable = active.end;
    if active.end == 0 {
        active.write_record(Record::Head(replayed.log.head(replayed.active)))?;
        active.sync()?;
    }
    Ok(Parts {
        log: replayed.log,
        active,
        used: replayed.used,
        spare: replayed.spare,
        index: replayed.index,
        stopped: replayed.stopped && replayed.rest.is_zeros(),
    })
}

/// Zeroes the bytes behind the end of the log, so that no later start takes them for a record. The zeros are synced
/// before anything is appended.
///
/// A failed sync leaves zeros in the page cache and the old bytes on disk. The next start would then see nothing to
/// zero. Therefore the last eight bytes that are not zeros stay until all bytes before them are zeroed on disk, and
/// these eight bytes are first written again themselves. As long as old bytes may be left, a start finds the last eight
/// and repeats all of this. If the last sync fails, the eight bytes that may remain are no record: eight bytes cannot
/// hold both the length and the kind of a record.
fn zero_rest<D: Disk>(active: &mut Active<D>, replayed: &Replayed) -> Result<(), WalError> {
    let (end, rest) = (replayed.end, &replayed.rest);
    if rest.is_zeros() {
        return Ok(());
    }
    let last = (rest.dirty_end - 1) / RECORD_ALIGN * RECORD_ALIGN;
    let segment = &mut active.segment;
    let zeroed = write_synced(segment, last, &rest.last_bytes)
        .and_then(|()| zero(segment, end, last))
        .and_then(|()| write_synced(segment, last, &[0; RECORD_ALIGN as usize]));
    zeroed.map_err(|error| WalError::final_io(&active.path, "zero it", &error).at(end))
}

fn write_synced(segment: &mut impl DiskSegment, at: u64, bytes: &[u8]) -> io::Result<()> {
    segment.write(at, bytes)?;
    segment.sync(at, at + bytes.len() as u64)
}

fn zero(segment: &mut impl DiskSegment, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut at = from;
    while at < to {
        let count = (to - at).min(zeros.len() as u64);
        segment.write(at, &zeros[..count as usize])?;
        at += count;
    }
    segment.sync(from, to)
}

/// Writes and syncs again what no record calls durable. These bytes may be only in the page cache: a killed process
/// leaves them there, and after a failed sync the kernel considers their pages clean.
fn settle<D: Disk>(
    data_dir: &DataDir<D>,
    active: &mut Active<D>,
    replayed: &Replayed,
) -> Result<(), WalError> {
    let (name, from) = replayed.unsure;
    let path = data_dir.wal().join(name.file());
    let end = replayed.ends[&name.seq];
    let settled = if name == replayed.active.name {
        write_again(data_dir, &path, &mut active.segment, from, end)
    } else {
        let segment = data_dir.disk().segment(&path);
        segment.and_then(|mut segment| write_again(data_dir, &path, &mut segment, from, end))
    };
    settled.map_err(|error| WalError::final_io(&path, "sync it", &error).at(from))
}

fn write_again<D: Disk>(
    data_dir: &DataDir<D>,
    path: &Path,
    segment: &mut D::Segment,
    from: u64,
    end: u64,
) -> io::Result<()> {
    let reader = data_dir.disk().open(path)?;
    let mut piece = vec![0; 64 * 1024];
    let mut offset = from;
    while offset < end {
        let wanted = (end - offset).min(piece.len() as u64) as usize;
        let read = reader.read_at(offset, &mut piece[..wanted])?;
        segment.write(offset, &piece[..read])?;
        offset += wanted as u64;
    }
    segment.sync(from, end)
}
