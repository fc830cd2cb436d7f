//! Inspects a data directory without being its member: it keeps no lock, creates nothing and repairs nothing.
//!
//! The inspection makes the same decision as a start ([`decide`](super::decide)), so it refuses the same directories
//! with the same words. Its memory use does not grow with the log: it yields one entry after the other, and a snapshot
//! slice by slice.
//!
//! A member may run in the directory meanwhile. Then the result describes one moment. Files that disappear and records
//! that appear during the inspection are not damage, so the directory is read again until it does not change for long
//! enough. An error at the same place twice in a row is a real error. [`inspect`] opens all files that are needed later
//! before it returns, so later changes of the directory do not matter.

use super::Clock;
use super::data_dir::{DataDir, Options};
use super::decide::{Decision, Files, decide};
use super::disk::{Disk, Holder};
use super::error::{WalError, WalErrorKind};
use super::index::{Index, Run};
use super::reader::Reading;
use super::scan::Window;
use super::snapshot::SnapshotReader;
use crate::raft::{Entry, HardState, LogIndex, Position};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Number of attempts to read a directory that changes, and the pause between two attempts.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// The state that a start would find in a data directory.
#[derive(Debug)]
pub struct Inspection<D: Disk> {
    /// The process that runs in the directory. If there is one, this value describes one moment.
    pub running: Option<Holder>,
    /// The encoded identity. `None` if a first start was cut short before it wrote the identity.
    pub identity: Option<Vec<u8>>,
    /// The newest stored hard state.
    pub hard_state: HardState,
    /// The newest undamaged snapshot. It was already checked, and it is checked again while it is read.
    pub snapshot: Option<SnapshotReader<D>>,
    /// Index of the oldest entry in the log, which may also be covered by the snapshot. Greater than `last` if there is
    /// none.
    pub first: LogIndex,
    /// End of the log, or the snapshot's position if there is no entry after it.
    pub last: Position,
    /// Clock readings at the last write.
    pub clock: Option<Clock>,
    /// The boot since which the directory has been written without syncs (see [`DataDir::unsynced_since`]).
    pub unsynced_since: Option<[u8; 16]>,
    /// The segments of the log, oldest first.
    pub segments: Vec<InspectedSegment>,
    /// Number of records in the segments.
    pub records: u64,
    /// The warnings that a start would log about its repairs, one line each.
    pub warnings: Vec<String>,
    /// Files that a start would remove, because a crash interrupted their creation or nothing needs them now. Empty if
    /// a member is running.
    pub leftovers: Vec<PathBuf>,
    /// The log after the snapshot.
    pub entries: Entries<D>,
}

/// A segment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedSegment {
    /// Path of the file.
    pub path: PathBuf,
    /// End of its records.
    pub end: u64,
    /// End of the log before this segment.
    pub before: Position,
}

/// Inspects a data directory as a start would. Only `dir` and `wal_dir` of the options matter. Returns `None` if the
/// directory is empty, so that a start would create a new member.
///
/// Errors: those of [`DataDir::open`] and of [`recover`](super::recover()), except that a held lock is no error. `Locked`
/// if a member changes the directory faster than it can be read.
pub fn inspect<D: Disk>(disk: D, options: Options) -> Result<Option<Inspection<D>>, WalError> {
    let data_dir = DataDir::unlocked(disk, options)?;
    let mut before = None;
    for _ in 0..ATTEMPTS {
        // This runs after an error, too: a member may have been started in between.
        let running = data_dir.holder()?;
        let error = match look_once(&data_dir, running) {
            Ok(seen) => return Ok(seen),
            Err(error) => error,
        };
        let is_same =
            |before: &WalError| (&before.path, before.offset) == (&error.path, error.offset);
        if data_dir.holder()?.is_none() && running.is_none() || before.as_ref().is_some_and(is_same)
        {
            return Err(error);
        }
        before = Some(error);
        data_dir.disk().wait(PAUSE);
    }
    let running = data_dir.holder()?;
    let what = "a node is writing here faster than this command can read; try again when the node has \
                less to do, or stop it first";
    let pid = running.and_then(|holder| holder.pid);
    Err(WalError::new(
        WalErrorKind::Locked { pid },
        data_dir.wal(),
        what,
    ))
}

fn look_once<D: Disk>(
    data_dir: &DataDir<D>,
    running: Option<Holder>,
) -> Result<Option<Inspection<D>>, WalError> {
    let unsynced_since = data_dir.unsynced_since()?;
    let identity = data_dir.identity()?;
    let found = Files::list(data_dir)?;
    let Some(mut decision) = decide(data_dir, &found)? else {
        return Ok(None);
    };
    let mut warnings = std::mem::take(&mut decision.warnings);
    // A running member may be writing this append right now, so it is not an append that was cut short.
    warnings.extend(decision.torn.take().filter(|_| running.is_none()));
    let log = &decision.replayed.log;
    let (start, end) = (decision.start(), log.shape.last());
    let has_entries = end.index > start.index && !decision.starts_anew();
    Ok(Some(Inspection {
        running,
        identity,
        hard_state: log.hard_state,
        first: log.shape.first(),
        last: if has_entries { end } else { start },
        clock: log.clock,
        unsynced_since,
        segments: segments(data_dir, &decision),
        records: decision.replayed.records,
        warnings,
        // The same holds for files: a running member may be creating them right now.
        leftovers: match running {
            None => leftovers(data_dir, &found, &decision),
            Some(_) => Vec::new(),
        },
        entries: match has_entries {
            true => Entries::open(
                data_dir,
                &decision.replayed.index,
                start.index.next(),
                end.index,
            )?,
            false => Entries::none(),
        },
        snapshot: decision.snapshot,
    }))
}

fn segments<D: Disk>(data_dir: &DataDir<D>, decision: &Decision<D>) -> Vec<InspectedSegment> {
    let used = decision.replayed.used.iter();
    used.map(|used| InspectedSegment {
        path: data_dir.wal().join(used.name.file()),
        end: (decision.replayed.ends.get(&used.name.seq).copied()).unwrap_or(0),
        before: used.before,
    })
    .collect()
}

fn leftovers<D: Disk>(
    data_dir: &DataDir<D>,
    found: &Files,
    decision: &Decision<D>,
) -> Vec<PathBuf> {
    let superfluous = decision.replayed.superfluous.iter();
    let superfluous = superfluous.map(|name| data_dir.wal().join(name.file()));
    found
        .temporaries
        .iter()
        .cloned()
        .chain(superfluous)
        .collect()
}

impl<D: Disk> Inspection<D> {
    /// Position of the snapshot, or the position before the first entry.
    pub fn start(&self) -> Position {
        let reader = self.snapshot.as_ref();
        reader.map_or(Position::default(), |reader| reader.metadata().position)
    }
}

/// The entries after the snapshot, in order and each once. Replaced entries are left out. The iterator ends after the
/// first error: `Io`, or `Damaged` if a record that was good a moment ago is not good now.
#[derive(Debug)]
pub struct Entries<D: Disk> {
    runs: std::vec::IntoIter<Run>,
    /// A file is taken out of this map when its first run is read, and closed after its last run.
    files: BTreeMap<u64, File<D>>,
    window: Option<(u64, Window<D::Reader>)>,
    next: LogIndex,
    to: LogIndex,
    /// Entries of one run: 64 KiB, or one larger entry.
    ready: std::vec::IntoIter<Entry>,
}

#[derive(Debug)]
struct File<D: Disk> {
    path: PathBuf,
    reader: D::Reader,
    salt: u32,
}

impl<D: Disk> Entries<D> {
    fn none() -> Entries<D> {
        Entries {
            runs: Vec::new().into_iter(),
            files: BTreeMap::new(),
            window: None,
            next: LogIndex(1),
            to: LogIndex(0),
            ready: Vec::new().into_iter(),
        }
    }

    /// Opens the files that contain the entries `from..=to`.
    fn open(
        data_dir: &DataDir<D>,
        index: &Index,
        from: LogIndex,
        to: LogIndex,
    ) -> Result<Entries<D>, WalError> {
        let runs = index.runs(from, to, u64::MAX);
        let mut files = BTreeMap::new();
        for name in runs.iter().map(|run| run.name) {
            if files.contains_key(&name.seq) {
                continue;
            }
            let path = data_dir.wal().join(name.file());
            let reader = data_dir.disk().open(&path);
            let reader = reader.map_err(|error| WalError::io(&path, "open it", &error))?;
            let salt = name.salt;
            files.insert(name.seq, File { path, reader, salt });
        }
        Ok(Entries {
            runs: runs.into_iter(),
            files,
            next: from,
            to,
            ..Entries::none()
        })
    }

    fn read(&mut self, run: Run) -> Result<(), WalError> {
        let mut reading = Reading::new(self.next, self.to, usize::MAX);
        let seq = run.name.seq;
        if let Some(File { path, reader, salt }) = self.files.remove(&seq) {
            self.window = Some((seq, Window::new(&path, reader, salt)));
        }
        let Some((_, window)) = self.window.as_mut().filter(|(open, _)| *open == seq) else {
            unreachable!("segment {seq:x} is closed, but a run of it is left to read");
        };
        reading.run(window, run.offset, run.until)?;
        self.next = reading.next;
        self.ready = reading.entries.into_iter();
        Ok(())
    }
}

impl<D: Disk> Iterator for Entries<D> {
    type Item = Result<Entry, WalError>;

    fn next(&mut self) -> Option<Result<Entry, WalError>> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(Ok(entry));
            }
            let run = self.runs.next()?;
            if let Err(error) = self.read(run) {
                self.runs = Vec::new().into_iter();
                return Some(Err(error));
            }
        }
    }
}
