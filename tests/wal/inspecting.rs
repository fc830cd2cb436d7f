//! `inspect` reports exactly what a start does with a directory. `support::open_with` inspects the directory before every
//! start of these tests. This file covers the remaining cases.

use crate::support::{
    DIR, entries, hard_state, metadata, open, open_with, options, read_all, segments,
};
use edgetcd::raft::{Entry, LogIndex};
use edgetcd::wal::{
    Batch, Clock, DataDir, FaultyDisk, Inspection, Options, RealDisk, WalErrorKind, inspect,
    recover,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const SEGMENT: u64 = 4096;

fn seen(disk: &FaultyDisk) -> Inspection<FaultyDisk> {
    let seen = inspect(disk.clone(), options(SEGMENT));
    seen.expect("it is good").expect("something is there")
}

fn indexes(seen: Inspection<FaultyDisk>) -> Vec<(u64, u64)> {
    let entries: Result<Vec<Entry>, _> = seen.entries.collect();
    let entries = entries.expect("they read back");
    let at = |entry: &Entry| (entry.position.index.0, entry.position.term.0);
    entries.iter().map(at).collect()
}

#[test]
fn a_directory_that_is_not_there_is_new_and_stays_so() {
    let disk = FaultyDisk::new(1);
    let nothing = inspect(disk.clone(), options(SEGMENT)).expect("it is good");
    assert!(nothing.is_none() && disk.files().is_empty() && disk.changes() == 0);
}

#[test]
fn entries_come_in_order_without_those_that_were_replaced() {
    let disk = FaultyDisk::new(2);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 40, 1, 200)).expect("written");
    wal.write(&hard_state(2, 1)).expect("written");
    wal.write(&entries(31, 60, 2, 200)).expect("written");
    let clock = Clock {
        boot_id: [7; 16],
        boottime_ns: 5,
        cluster_ns: 6,
    };
    let batch = Batch {
        clock: Some(clock),
        ..entries(51, 55, 3, 9000)
    };
    wal.write(&batch).expect("written");
    let snapshot = wal.begin_snapshot(&metadata(20, 1));
    snapshot
        .and_then(|writer| writer.finish())
        .expect("written");
    wal.close().expect("closed");

    let seen = seen(&disk);
    assert_eq!(
        (seen.first, seen.start(), seen.last),
        (
            LogIndex(1),
            metadata(20, 1).position,
            entries(55, 55, 3, 0).entries[0].position
        )
    );
    assert_eq!((seen.clock, seen.hard_state.term.0), (Some(clock), 2));
    assert!(seen.warnings.is_empty() && seen.leftovers.is_empty());
    // A prepared segment is not part of the log.
    assert_eq!(seen.segments.len() + 1, segments(&disk).len());
    let told: Vec<(u64, u64)> = indexes(seen);
    let term = |index| match index {
        ..=30 => 1,
        31..=50 => 2,
        _ => 3,
    };
    let expected: Vec<(u64, u64)> = (21..=55).map(|index| (index, term(index))).collect();
    assert_eq!(told, expected);
}

#[test]
fn what_was_opened_stays_readable_when_it_is_removed() {
    let disk = FaultyDisk::new(3);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 100, 1, 200)).expect("written");
    let seen = seen(&disk);
    for path in segments(&disk) {
        disk.take(&path);
    }
    assert_eq!(indexes(seen).len(), 100);
}

#[test]
fn of_a_running_node_a_moment_is_seen() {
    let disk = FaultyDisk::new(4);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 10, 1, 40)).expect("written");
    let moment = seen(&disk);
    assert!(moment.running.is_some());
    wal.append(&entries(11, 11, 1, 40)).expect("appended");
    // Half of a record: a record that is being written is not damage, and no start will repair it.
    let path = &segments(&disk)[0];
    let end = seen(&disk).segments[0].end as usize;
    let mut bytes = disk.bytes(path).expect("bytes");
    bytes[end..end + 20].fill(7);
    disk.put(path, &bytes);
    let moment = seen(&disk);
    assert!(moment.warnings.is_empty(), "{:?}", moment.warnings);
    assert_eq!((moment.last.index.0, indexes(moment).len()), (11, 11));
    // An error that is still there at the second inspection is damage.
    bytes[200] ^= 1;
    disk.put(path, &bytes);
    let error = inspect(disk.clone(), options(SEGMENT)).expect_err("damaged");
    assert_eq!(error.kind, WalErrorKind::Damaged, "{error}");
    drop(wal);
}

/// Makes the writer end, even if the reader panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// On a real disk, a writer appends, starts new segments, makes snapshots and compacts as fast as it can. A reader must
/// always see a complete log and never damage.
#[test]
fn a_busy_log_reads_as_one_moment_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        max_wals: 1,
        max_snapshots: 2,
        segment_bytes: 64 << 10,
        segment_bytes_max: 64 << 10,
        ..Options::new(folder.path())
    };
    let data_dir = DataDir::open(RealDisk::default(), options.clone()).expect("a data directory");
    let (mut wal, _) = recover(&data_dir).expect("a new directory");
    let (done, mut inspections, mut busy, mut newest) = (AtomicBool::new(false), 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 1;
            while !done.load(Ordering::Relaxed) {
                wal.write(&entries(next, next + 9, 1, 300))
                    .expect("written");
                next += 10;
                if next % 1000 == 1 {
                    let metadata = metadata(next - 1, 1);
                    let snapshot = wal.begin_snapshot(&metadata);
                    snapshot
                        .and_then(|writer| writer.finish())
                        .expect("written");
                    wal.compact(&metadata).expect("compacted");
                }
            }
        });
        let _ends = Ends(&done);
        let begin = std::time::Instant::now();
        while inspections < 12 || newest < 5000 {
            assert!(
                begin.elapsed().as_secs() < 60,
                "{inspections} inspections, {busy} busy, to entry {newest}"
            );
            match inspect(RealDisk::default(), options.clone()) {
                Ok(Some(seen)) => {
                    let (start, last) = (seen.start().index.0, seen.last.index.0);
                    let read: Vec<u64> = (seen.entries)
                        .map(|entry| entry.expect("it reads back").position.index.0)
                        .collect();
                    assert!(read.iter().copied().eq(start + 1..=last));
                    assert!(last >= newest, "the log went back");
                    (inspections, newest) = (inspections + 1, last);
                }
                Ok(None) => panic!("something is there"),
                Err(error) => {
                    assert!(matches!(error.kind, WalErrorKind::Locked { .. }), "{error}");
                    busy += 1;
                }
            }
        }
    });
    println!("{inspections} inspections, {busy} busy, to entry {newest}");
}

#[test]
fn the_lock_is_looked_at_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options::new(folder.path());
    let seen = || {
        inspect(RealDisk::default(), options.clone()).map(|seen| seen.and_then(|seen| seen.running))
    };
    assert_eq!(seen(), Ok(None));
    let data_dir = DataDir::open(RealDisk::default(), options.clone()).expect("a data directory");
    let opened = recover(&data_dir).expect("a new directory");
    let holder = seen().expect("good").expect("it runs");
    assert_eq!(holder.pid, Some(std::process::id()));
    drop((data_dir, opened));
    assert_eq!(seen(), Ok(None));
    let lock = folder.path().join("member/lock");
    std::fs::write(&lock, b"\xff\xfe no number").expect("written");
    assert_eq!(seen(), Ok(None));
    std::fs::remove_file(&lock).expect("removed");
    std::fs::create_dir(&lock).expect("made");
    let told = seen().expect_err("a folder is no lock").to_string();
    let start = DataDir::open(RealDisk::default(), options.clone());
    assert_eq!(
        told,
        start.map(|_| ()).expect_err("nor for a start").to_string()
    );
}

#[test]
fn a_reset_log_has_no_entries_yet() {
    let disk = FaultyDisk::new(6);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 10, 1, 40)).expect("written");
    let snapshot = wal.begin_snapshot(&metadata(50, 2));
    snapshot
        .and_then(|writer| writer.finish())
        .expect("written");
    drop(wal);
    disk.kill();
    for _ in 0..2 {
        let seen = seen(&disk);
        assert_eq!(
            (seen.start(), seen.last),
            (metadata(50, 2).position, metadata(50, 2).position)
        );
        assert!(indexes(seen).is_empty());
        // In the second round the log was restarted on disk, too.
        let (_home, wal, recovered) = open_with(&disk, options(SEGMENT)).expect("it starts");
        assert!(read_all(&wal, &recovered).is_empty());
        drop(wal);
        disk.kill();
    }
    assert!(
        disk.bytes(&Path::new(DIR).join("member/snap/0000000000000032-0000000000000002.snap"))
            .is_some()
    );
}
