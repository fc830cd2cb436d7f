//! Uses the log like a member, and checks its promises.

use edgetcd::raft::{
    Entry, HardState, LogIndex, Membership, NodeId, Payload, Position, SnapshotMetadata, Term,
};
use edgetcd::wal::{
    Batch, Clock, DataDir, Disk, FaultyDisk, Inspection, Line, Options, Recovered, Wal, WalError,
    WalErrorKind, dump, inspect, recover,
};
use std::path::{Path, PathBuf};

pub const DIR: &str = "data";

/// Small segments, so that a test needs many of them.
pub fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        segment_bytes_max: segment_bytes,
        ..Options::new(DIR)
    }
}

pub fn position(index: u64, term: u64) -> Position {
    Position {
        term: Term(term),
        index: LogIndex(index),
    }
}

/// An entry whose bytes follow from its position.
pub fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let pattern = [
        index as u8 | 1,
        term as u8 | 1,
        (index >> 8) as u8,
        0xa5,
        0,
        1,
        0x7f,
    ];
    let mut filled = pattern.repeat(bytes / pattern.len() + 1);
    filled.truncate(bytes);
    Entry {
        position: position(index, term),
        payload: Payload::Command(filled.into()),
    }
}

pub fn entries(from: u64, to: u64, term: u64, bytes: usize) -> Batch {
    Batch {
        entries: (from..=to).map(|index| entry(index, term, bytes)).collect(),
        ..Batch::default()
    }
}

pub fn hard_state(term: u64, vote: u64) -> Batch {
    let vote = (vote != 0).then_some(NodeId(vote));
    Batch {
        hard_state: Some(HardState {
            term: Term(term),
            vote,
        }),
        ..Batch::default()
    }
}

pub fn metadata(index: u64, term: u64) -> SnapshotMetadata {
    let voters = [NodeId(1)].into();
    let membership = Membership {
        voters,
        learners: [].into(),
    };
    SnapshotMetadata {
        position: position(index, term),
        membership,
    }
}

pub type Opened = (DataDir<FaultyDisk>, Wal<FaultyDisk>, Recovered<FaultyDisk>);

pub fn open_with(disk: &FaultyDisk, options: Options) -> Result<Opened, WalError> {
    let (files, changes) = (disk.files(), disk.changes());
    let told = inspect(disk.clone(), options.clone()).map(|seen| seen.map(Told::new));
    assert!(
        (files, changes) == (disk.files(), disk.changes()),
        "an inspection changes nothing"
    );
    let opened = DataDir::open(disk.clone(), options)
        .and_then(|data_dir| recover(&data_dir).map(|(wal, recovered)| (data_dir, wal, recovered)));
    check_told(told, &opened);
    opened
}

/// The result of an inspection, with all entries.
struct Told {
    start: Position,
    last: Position,
    hard_state: HardState,
    clock: Option<Clock>,
    warnings: Vec<String>,
    entries: Vec<Entry>,
}

impl Told {
    fn new(seen: Inspection<FaultyDisk>) -> Told {
        Told {
            start: seen.start(),
            last: seen.last,
            hard_state: seen.hard_state,
            clock: seen.clock,
            warnings: seen.warnings,
            entries: seen
                .entries
                .collect::<Result<_, _>>()
                .expect("inspected entries can be read back"),
        }
    }
}

/// A start must do what the inspection before it reported.
fn check_told(told: Result<Option<Told>, WalError>, opened: &Result<Opened, WalError>) {
    let (told, recovered) = match (told, opened) {
        (Err(told), Err(error)) => return assert_eq!(&told, error),
        (Err(told), Ok(_)) => panic!("a start succeeds, but the inspection reported: {told}"),
        // The disk failed during a repair, or another process holds the lock.
        (Ok(_), Err(error)) => {
            let refused = matches!(error.kind, WalErrorKind::Damaged | WalErrorKind::Foreign);
            return assert!(!refused, "this was not reported: {error}");
        }
        (Ok(None), Ok((_, wal, recovered))) => {
            assert!(recovered.snapshot.is_none() && wal.last() == Position::default());
            return;
        }
        (Ok(Some(told)), Ok((_, _, recovered))) => (told, recovered),
    };
    let snapshot = recovered.snapshot.as_ref();
    let start = snapshot.map_or(Position::default(), |reader| reader.metadata().position);
    assert_eq!(
        (told.start, told.last.index, told.hard_state, told.clock),
        (
            start,
            recovered.log.last,
            recovered.hard_state,
            recovered.clock
        )
    );
    assert_eq!(told.warnings, recovered.warnings);
    assert_eq!(
        told.entries.len() as u64,
        recovered.log.last.0 - start.index.0
    );
    assert!(
        told.entries.ends_with(&recovered.log.tail),
        "the same entries"
    );
}

pub fn open(disk: &FaultyDisk, segment_bytes: u64) -> Result<Opened, WalError> {
    open_with(disk, options(segment_bytes))
}

/// All entries after the snapshot, read one by one from their files.
pub fn read_all<D: Disk>(wal: &Wal<D>, recovered: &Recovered<D>) -> Vec<Entry> {
    let start = recovered
        .snapshot
        .as_ref()
        .map_or(0, |reader| reader.metadata().position.index.0);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = LogIndex(start + 1 + entries.len() as u64);
        let more = wal
            .reader()
            .read(next, recovered.log.last, 1 << 20)
            .expect("the log reads back");
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    check_stored_log(recovered, &entries, start);
    entries
}

/// Checks the log that recovery returned against the entries that can be read.
fn check_stored_log<D: Disk>(recovered: &Recovered<D>, entries: &[Entry], start: u64) {
    let log = &recovered.log;
    assert_eq!(log.last.0, start + entries.len() as u64);
    let mut terms: Vec<(LogIndex, Term)> = Vec::new();
    for entry in entries {
        if terms.last().is_none_or(|run| run.1 != entry.position.term) {
            terms.push((entry.position.index, entry.position.term));
        }
    }
    assert_eq!(log.terms, terms, "terms as runs");
    let changes = entries
        .iter()
        .filter(|entry| matches!(entry.payload, Payload::Change(_)));
    assert!(changes.eq(&log.changes), "the changes among the entries");
    assert!(
        entries.ends_with(&log.tail),
        "the tail is the end of the log"
    );
}

/// The segments, oldest first.
pub fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    let wal = Path::new(DIR).join("member/wal");
    let inside =
        |path: &PathBuf| path.starts_with(&wal) && path.extension().is_some_and(|e| e == "wal");
    disk.files().into_iter().filter(inside).collect()
}

/// All records with their files.
pub fn records(disk: &FaultyDisk) -> Vec<(PathBuf, Line)> {
    let mut all = Vec::new();
    for path in segments(disk) {
        let lines = dump(disk, &path).expect("a segment can be dumped");
        all.extend(lines.into_iter().map(|line| (path.clone(), line)));
    }
    all
}

/// Changes the bytes of a file in place.
pub fn edit(disk: &FaultyDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.bytes(path).expect("the file is there");
    change(&mut bytes);
    disk.put(path, &bytes);
}
