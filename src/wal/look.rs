//! Reading a data directory without being its node: no lock is kept, nothing made, nothing mended.
//!
//! What is decided is what a start decides ([`decide`](super::decide)), so what is refused here is what
//! a start refuses, in the same words. Memory does not grow with the log: entries come one after the
//! other, a snapshot slice by slice.
//!
//! A node may run on the directory meanwhile. Then what is read is one moment of it: files that vanish
//! and records that come while they are read are no damage, so it is read again until it holds still
//! for long enough. What is wrong in the same place twice in a row is wrong. All files that are needed
//! later are open before [`look`] returns: from there on it does not matter what becomes of them.

use super::Clock;
use super::decide::{Decision, Files, decide};
use super::disk::{Disk, Holder};
use super::error::{WalError, WalErrorKind};
use super::home::{Home, Options};
use super::index::{Index, Run};
use super::reader::Reading;
use super::scan::Window;
use super::snapshot::SnapshotReader;
use crate::raft::{Ballot, Entry, LogIndex, Position};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How often a directory that changes is read before giving up, and how long is waited in between.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// What a start would find in a data directory.
#[derive(Debug)]
pub struct Seen<D: Disk> {
    /// The process that has the directory: then all this is a moment of it.
    pub running: Option<Holder>,
    /// The bytes of the identity; None where a first start was cut short before it wrote them.
    pub identity: Option<Vec<u8>>,
    /// The newest term and vote that are stored.
    pub ballot: Ballot,
    /// The newest snapshot that is whole; checked already, and again while it is read.
    pub snapshot: Option<SnapshotReader<D>>,
    /// The oldest entry that the log holds, perhaps one that the snapshot has too; above `last` when
    /// there is none.
    pub first: LogIndex,
    /// Where the log ends; the snapshot's position if there is no entry after it.
    pub last: Position,
    /// What the clocks showed when something was written last.
    pub clock: Option<Clock>,
    /// The files of the log, oldest first.
    pub segments: Vec<SeenSegment>,
    /// Records in them.
    pub records: u64,
    /// What a start would say of what it mends, one line each.
    pub warnings: Vec<String>,
    /// Files that a start would remove: what a crash left half made, and what is not needed any more.
    /// None are told of a running node.
    pub leftovers: Vec<PathBuf>,
    /// The log after the snapshot.
    pub entries: Entries<D>,
}

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSegment {
    /// The file.
    pub path: PathBuf,
    /// Where its records end.
    pub end: u64,
    /// Where the log ended before it.
    pub before: Position,
}

/// Looks at a data directory as a start would, of which only `dir` and `wal_dir` matter here. None:
/// nothing is there, so a start would begin a new member.
///
/// Errors: those of [`Home::open`] and of [`recover`](super::recover()), but that a lock is held;
/// `Locked` when a node changes the directory faster than it can be read.
pub fn look<D: Disk>(disk: D, options: Options) -> Result<Option<Seen<D>>, WalError> {
    let home = Home::unlocked(disk, options)?;
    let mut before = None;
    for _ in 0..ATTEMPTS {
        // Asked after an error as well: a node may have been started in between.
        let running = home.holder()?;
        let error = match look_once(&home, running) {
            Ok(seen) => return Ok(seen),
            Err(error) => error,
        };
        let is_same =
            |before: &WalError| (&before.path, before.offset) == (&error.path, error.offset);
        if home.holder()?.is_none() && running.is_none() || before.as_ref().is_some_and(is_same) {
            return Err(error);
        }
        before = Some(error);
        std::thread::sleep(PAUSE);
    }
    let running = home.holder()?;
    let what = "a node is writing here faster than it can be read; try again when it has less to do, \
                or stop it first";
    let pid = running.and_then(|holder| holder.pid);
    Err(WalError::new(
        WalErrorKind::Locked { pid },
        home.wal(),
        what,
    ))
}

fn look_once<D: Disk>(
    home: &Home<D>,
    running: Option<Holder>,
) -> Result<Option<Seen<D>>, WalError> {
    let identity = home.identity()?;
    let found = Files::list(home)?;
    let Some(mut decision) = decide(home, &found)? else {
        return Ok(None);
    };
    let mut warnings = std::mem::take(&mut decision.warnings);
    // What a running node writes just now is not an append that was cut short.
    warnings.extend(decision.torn.take().filter(|_| running.is_none()));
    let log = &decision.replayed.log;
    let (start, end) = (decision.start(), log.shape.last());
    let has_entries = end.index > start.index && !decision.starts_anew();
    Ok(Some(Seen {
        running,
        identity,
        ballot: log.ballot,
        first: log.shape.first(),
        last: if has_entries { end } else { start },
        clock: log.clock,
        segments: segments(home, &decision),
        records: decision.replayed.records,
        warnings,
        // Nor is what it makes just now left over.
        leftovers: match running {
            None => leftovers(home, &found, &decision),
            Some(_) => Vec::new(),
        },
        entries: match has_entries {
            true => Entries::open(
                home,
                &decision.replayed.index,
                start.index.next(),
                end.index,
            )?,
            false => Entries::none(),
        },
        snapshot: decision.snapshot,
    }))
}

fn segments<D: Disk>(home: &Home<D>, decision: &Decision<D>) -> Vec<SeenSegment> {
    let used = decision.replayed.used.iter();
    used.map(|used| SeenSegment {
        path: home.wal().join(used.name.file()),
        end: (decision.replayed.ends.get(&used.name.seq).copied()).unwrap_or(0),
        before: used.before,
    })
    .collect()
}

fn leftovers<D: Disk>(home: &Home<D>, found: &Files, decision: &Decision<D>) -> Vec<PathBuf> {
    let superfluous = decision.replayed.superfluous.iter();
    let superfluous = superfluous.map(|name| home.wal().join(name.file()));
    found
        .temporaries
        .iter()
        .cloned()
        .chain(superfluous)
        .collect()
}

impl<D: Disk> Seen<D> {
    /// Where the snapshot ends, or the position before the first entry.
    pub fn start(&self) -> Position {
        let reader = self.snapshot.as_ref();
        reader.map_or(Position::default(), |reader| reader.mark().position)
    }
}

/// The entries after the snapshot, in order, each once: those that were replaced are not among them.
/// Ends with the first error: `Io`, or `Damaged` when what was good a moment ago is not now.
#[derive(Debug)]
pub struct Entries<D: Disk> {
    runs: std::vec::IntoIter<Run>,
    /// Each is taken when its first run is read, and closed after its last.
    files: BTreeMap<u64, File<D>>,
    window: Option<(u64, Window<D::Reader>)>,
    next: LogIndex,
    to: LogIndex,
    /// Those of one run, 64 KiB or one larger entry.
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

    /// Opens the files that hold the entries `from..=to`.
    fn open(
        home: &Home<D>,
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
            let path = home.wal().join(name.file());
            let reader = home.disk().open(&path);
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
            unreachable!("the runs of segment {seq:x} are read one after the other");
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
