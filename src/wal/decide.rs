//! Decides what a start does with the files it finds: which log and which snapshot it uses, which repairs it makes, or
//! why it refuses. This module changes no file.
//!
//! [`recover`](super::recover()) carries out the decision. [`inspect`](super::inspect()) only reports it. So a report about a
//! directory always matches what a start would do.

use super::data_dir::{self, DataDir};
use super::disk::Disk;
use super::error::{WalError, WalErrorKind};
use super::names::{self, SegmentName};
use super::replay::{self, Replayed, WAY_OUT};
use super::snapshot::{self, SnapshotReader};
use crate::raft::{LogIndex, Position};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

/// The content of a data directory and what a start does about it.
pub(super) struct Decision<D: Disk> {
    pub replayed: Replayed,
    /// The newest undamaged snapshot.
    pub snapshot: Option<SnapshotReader<D>>,
    /// Damaged snapshots that are newer than `snapshot`. A start renames them.
    pub bad: Vec<Position>,
    /// Warnings about the damaged snapshots. A start and an inspection print the same text, so it does not say that
    /// something was done.
    pub warnings: Vec<String>,
    /// Warning about an incomplete append, worded for both in the same way.
    pub torn: Option<String>,
}

impl<D: Disk> Decision<D> {
    /// Position of the snapshot, after which the used part of the log begins.
    pub fn start(&self) -> Position {
        let reader = self.snapshot.as_ref();
        reader.map_or(Position::default(), |reader| reader.metadata().position)
    }

    /// Whether the log does not continue from the snapshot and has to restart after it.
    pub fn starts_anew(&self) -> bool {
        self.replayed.log.conflicts(self.start())
    }
}

/// Decides what to do about a directory. Returns `None` if the directory is new.
///
/// Errors: every reason for which a start refuses the directory.
pub(super) fn decide<D: Disk>(
    data_dir: &DataDir<D>,
    found: &Files,
) -> Result<Option<Decision<D>>, WalError> {
    if found.segments.is_empty() {
        refuse_lost_log(data_dir)?;
        return Ok(None);
    }
    let newest = Checked::begin(data_dir);
    let replayed = replay::replay(data_dir, &found.segments);
    let newest = newest.and_then(Checked::wait);
    let mut decision = choose_snapshot(data_dir, replayed?, newest)?;
    decision.torn = torn(data_dir, &decision.replayed);
    refuse_unknown(data_dir, &decision)?;
    Ok(Some(decision))
}

/// Refuses a log with an entry that this program cannot apply, before anything is applied. The process would end at that
/// entry, and after each restart again.
fn refuse_unknown<D: Disk>(data_dir: &DataDir<D>, decision: &Decision<D>) -> Result<(), WalError> {
    if decision.starts_anew() {
        return Ok(());
    }
    let start = decision.start().index;
    let is_used = |unknown: &&replay::Unknown| unknown.position.index > start;
    let Some(first) = decision.replayed.unknown.iter().find(is_used) else {
        return Ok(());
    };
    let path = data_dir.wal().join(first.segment.file());
    let what = format!("entry {} cannot be applied: {}", first.position, first.why);
    let error = WalError::new(WalErrorKind::Foreign, &path, what);
    Err(error.at(first.offset).index(first.position.index))
}

/// Whether the directory contains anything that a member has promised or received. A first start that was cut short
/// leaves an empty log.
///
/// Errors: every reason for which a start refuses the directory.
pub fn has_history<D: Disk>(data_dir: &DataDir<D>) -> Result<bool, WalError> {
    let decision = decide(data_dir, &Files::list(data_dir)?)?;
    Ok(decision.is_some_and(|decision| {
        let log = &decision.replayed.log;
        let (last, hard_state) = (log.shape.last(), log.hard_state);
        decision.snapshot.is_some() || (last, hard_state) != Default::default()
    }))
}

/// The files that matter to a start, found by their names.
pub(super) struct Files {
    pub segments: Vec<(SegmentName, u64)>,
    /// Files whose creation was interrupted by a crash.
    pub temporaries: Vec<PathBuf>,
}

impl Files {
    pub fn list<D: Disk>(data_dir: &DataDir<D>) -> Result<Files, WalError> {
        let mut files = Files {
            segments: Vec::new(),
            temporaries: Vec::new(),
        };
        for found in data_dir::list(data_dir.disk(), data_dir.wal())? {
            match SegmentName::parse(&found.name) {
                Some(name) => files.segments.push((name, found.bytes)),
                None if names::is_segment_temporary(&found.name) => {
                    files.temporaries.push(data_dir.wal().join(found.name));
                }
                None => {}
            }
        }
        for found in data_dir::list(data_dir.disk(), data_dir.snap())? {
            if names::is_snapshot_temporary(&found.name) {
                files.temporaries.push(data_dir.snap().join(found.name));
            }
        }
        Ok(files)
    }

    /// Removes files whose creation was interrupted by a crash. One that cannot be removed does no harm.
    pub fn remove_temporaries<D: Disk>(&self, data_dir: &DataDir<D>) {
        for path in &self.temporaries {
            let _ = data_dir.disk().remove(path);
        }
    }
}

/// Warning about bytes behind the end of the log that a start will cut off. `None` if there are none.
fn torn<D: Disk>(data_dir: &DataDir<D>, replayed: &Replayed) -> Option<String> {
    if replayed.rest.is_zeros() {
        return None;
    }
    let path = data_dir.wal().join(replayed.active.name.file());
    Some(format!(
        "{} at byte {}: the last append is incomplete, as after a crash: the next start removes the {} \
         bytes from here on",
        path.display(),
        replayed.end,
        replayed.rest.dirty_end - replayed.end
    ))
}

/// Called without any segment. The directory is new, or its log was lost.
fn refuse_lost_log<D: Disk>(data_dir: &DataDir<D>) -> Result<(), WalError> {
    let snapshot = snapshot::positions(data_dir)?
        .pop()
        .map(|position| snapshot::path(data_dir, position));
    let identity = data_dir
        .identity()?
        .map(|_| data_dir.member().join("identity"));
    match snapshot.or(identity) {
        None => Ok(()),
        Some(path) => Err(WalError::damaged(
            data_dir.wal(),
            format!(
                "there is no log here, but {} shows that there was one (is --wal-dir the same as before, \
                 and is it mounted?); {WAY_OUT}",
                path.display()
            ),
        )),
    }
}

/// The check of the newest snapshot, which runs while the log is read.
struct Checked {
    position: Position,
    result: Receiver<Result<(), WalError>>,
}

impl Checked {
    /// `None` if there is no snapshot. If the folder cannot be listed, the caller meets the error again.
    fn begin<D: Disk>(data_dir: &DataDir<D>) -> Option<Checked> {
        let position = snapshot::positions(data_dir).ok()?.pop()?;
        let (checked, result) = channel();
        let (disk, data_dir) = (data_dir.disk().clone(), data_dir.clone());
        disk.background(Box::new(move || {
            let outcome = check(&data_dir, position);
            // The directory is unlocked when the last owner is dropped, and the caller may be about to do that.
            drop(data_dir);
            // The caller waits, unless it has panicked.
            let _ = checked.send(outcome);
        }));
        Some(Checked { position, result })
    }

    /// `None` if the check has not run to its end. Then the caller makes it again.
    fn wait(self) -> Option<(Position, Result<(), WalError>)> {
        let outcome = self.result.recv().ok()?;
        Some((self.position, outcome))
    }
}

fn check<D: Disk>(data_dir: &DataDir<D>, position: Position) -> Result<(), WalError> {
    SnapshotReader::open(data_dir, position)?.verify()
}

/// Chooses the newest undamaged snapshot. The log must reach back to it. If newer snapshots are damaged, the log must
/// also reach as far as the newest of them did. `newest` is a snapshot that was checked already.
fn choose_snapshot<D: Disk>(
    data_dir: &DataDir<D>,
    replayed: Replayed,
    newest: Option<(Position, Result<(), WalError>)>,
) -> Result<Decision<D>, WalError> {
    let mut newest = newest;
    let mut chosen = Decision {
        replayed,
        snapshot: None,
        bad: Vec::new(),
        warnings: Vec::new(),
        torn: None,
    };
    let mut first_error = None;
    for position in snapshot::positions(data_dir)?.into_iter().rev() {
        let checked = match newest.take_if(|(checked, _)| *checked == position) {
            Some((_, checked)) => checked,
            None => check(data_dir, position),
        };
        match checked {
            Ok(()) => {
                let reader = SnapshotReader::open(data_dir, position)?;
                if reader.is_renamed() {
                    chosen.warnings.push(format!(
                        "{}: an etcd that was started on this directory has renamed this snapshot; the \
                         next start renames it back",
                        reader.path().display()
                    ));
                }
                chosen.snapshot = Some(reader);
                break;
            }
            Err(error) if error.kind == WalErrorKind::Damaged => {
                chosen.warnings.push(format!(
                    "{error}; the next start moves it aside and uses an older one"
                ));
                chosen.bad.push(position);
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let start = chosen.start().index;
    let replayed = &chosen.replayed;
    match (first_error, chosen.bad.first()) {
        (Some(error), Some(newest)) => refuse_short_log(replayed, *newest, start, error)?,
        _ if start.0 + 1 < replayed.log.shape.first().0 => {
            return Err(late_log(data_dir, replayed, start));
        }
        _ => {}
    }
    Ok(chosen)
}

/// The newest snapshot is damaged. An older one can replace it only together with the complete log since then.
fn refuse_short_log(
    replayed: &Replayed,
    newest: Position,
    start: LogIndex,
    mut error: WalError,
) -> Result<(), WalError> {
    let shape = &replayed.log.shape;
    if shape.holds(newest) && start.0 + 1 >= shape.first().0 {
        return Ok(());
    }
    error.what = format!(
        "{}, and the log (entries {} to {}) cannot replace it from entry {} on; {WAY_OUT}",
        error.what,
        shape.first().0,
        shape.last().index.0,
        start.0 + 1
    );
    error.index = Some(LogIndex(start.0 + 1));
    Err(error)
}

/// The log begins after the end of the snapshot.
fn late_log<D: Disk>(data_dir: &DataDir<D>, replayed: &Replayed, start: LogIndex) -> WalError {
    let first = replayed.used[0].name;
    let path = data_dir.wal().join(first.file());
    let missing = match first.seq.checked_sub(1) {
        Some(seq) => format!("segments up to {seq:016x} are missing"),
        None => "it has no earlier segments".to_string(),
    };
    let what = format!(
        "the log begins with entry {}, {missing}, and the newest snapshot ends at {}; {WAY_OUT}",
        replayed.log.shape.first().0,
        start.0
    );
    WalError::damaged(&path, what).index(LogIndex(start.0 + 1))
}
