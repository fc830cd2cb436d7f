//! A crash may lose the last batch that was not synced, at any byte of it, and nothing else.

use crate::support::{self, edit, entries, hard_state, open, read_all, records};
use edgetcd::raft::{Change, ChangeKind, Entry, NodeId, Payload};
use edgetcd::wal::{Batch, Clock, FaultyDisk, WalErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

const SEGMENT: u64 = 16 * 1024;

/// A log with acknowledged entries 1 to 3, and a batch of three more records that was written but not synced. Also
/// returns the place of that batch.
fn torn() -> (FaultyDisk, PathBuf, Range<usize>) {
    let disk = FaultyDisk::new(1);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 3, 1, 41)).expect("written");
    let begin = records(&disk)
        .last()
        .map(|(_, line)| line.offset + line.bytes)
        .expect("records");
    wal.append(&entries(4, 6, 1, 41)).expect("appended");
    let (path, last) = records(&disk).pop().expect("records");
    disk.kill();
    (
        disk,
        path,
        begin as usize..(last.offset + last.bytes) as usize,
    )
}

/// The log must open, contain the acknowledged entries, be a prefix of the appended ones, accept more, and keep these
/// through another power failure.
fn must_recover(disk: &FaultyDisk, what: &str) -> usize {
    let (_home, mut wal, recovered) =
        open(disk, SEGMENT).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = read_all(&wal, &recovered);
    assert!(
        found.len() >= 3,
        "{what}: acknowledged entries are lost: {}",
        found.len()
    );
    assert_eq!(
        found,
        entries(1, found.len() as u64, 1, 41).entries,
        "{what}"
    );
    let next = found.len() as u64 + 1;
    wal.write(&entries(next, next, 2, 41)).expect("written");
    disk.crash();
    let (_home, wal, recovered) =
        open(disk, SEGMENT).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    let again = read_all(&wal, &recovered);
    assert_eq!(again[..found.len()], found, "{what}, again");
    assert_eq!(
        again[found.len()..],
        entries(next, next, 2, 41).entries,
        "{what}, again"
    );
    assert_eq!(
        recovered.warnings,
        Vec::<String>::new(),
        "{what}: the first start mends it"
    );
    found.len()
}

fn each_byte(damage: impl Fn(&mut [u8], Range<usize>, usize)) -> Vec<usize> {
    let (disk, path, batch) = torn();
    let mut kept = Vec::new();
    for at in batch.clone() {
        let disk = disk.fork(at as u64);
        edit(&disk, &path, |bytes| damage(bytes, batch.clone(), at));
        kept.push(must_recover(
            &disk,
            &format!("damaged at {at} of {batch:?}"),
        ));
    }
    kept
}

#[test]
fn cut_at_every_byte_of_the_last_batch() {
    let kept = each_byte(|bytes, _, at| bytes[at..].fill(0));
    assert_eq!(
        (kept[0], kept[kept.len() - 1]),
        (3, 6),
        "a cut in the padding loses nothing"
    );
    assert!(kept.is_sorted(), "a later cut never keeps less: {kept:?}");
}

#[test]
fn zeroed_at_every_byte_of_the_last_batch() {
    let kept = each_byte(|bytes, batch, at| bytes[at..(at + 24).min(batch.end)].fill(0));
    assert!(kept.iter().all(|kept| (3..=6).contains(kept)));
}

#[test]
fn one_bit_flipped_at_every_byte_of_the_last_batch() {
    let kept = each_byte(|bytes, _, at| bytes[at] ^= 0x10);
    assert!(
        kept.iter().all(|kept| (3..6).contains(kept)),
        "a bad record is not taken: {kept:?}"
    );
}

#[test]
fn old_bytes_at_every_byte_of_the_last_batch() {
    // Records of an earlier file at exactly the same places. They would be good if they had no salt of their own.
    let old = FaultyDisk::new(77);
    let (_home, mut wal, _) = open(&old, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 3, 1, 41)).expect("written");
    wal.write(&entries(4, 6, 1, 41)).expect("written");
    wal.write(&entries(7, 60, 1, 41)).expect("written");
    let (path, _) = records(&old).pop().expect("records");
    let old = old.bytes(&path).expect("bytes");
    let kept = each_byte(|bytes, _, at| bytes[at..].copy_from_slice(&old[at..]));
    assert!(kept.iter().all(|kept| (3..=6).contains(kept)));
    let kept =
        each_byte(|bytes, batch, at| bytes[batch.start..at].copy_from_slice(&old[batch.start..at]));
    assert_eq!(kept[0], 6);
    assert!(
        kept[1..].iter().all(|kept| *kept == 3),
        "the first record is not whole: {kept:?}"
    );
}

/// The same for a batch that continues in a new segment: the new segment's head may be torn, too.
#[test]
fn cut_at_every_byte_of_a_new_segment() {
    let disk = FaultyDisk::new(1);
    let (_home, mut wal, _) = open(&disk, 4096).expect("a new directory");
    wal.write(&entries(1, 30, 1, 90)).expect("written");
    wal.append(&entries(31, 40, 1, 90)).expect("appended");
    let all = records(&disk);
    let (path, last) = all.last().expect("records");
    assert_eq!(support::segments(&disk).len(), 3, "two in use, one ready");
    assert_ne!(*path, all[0].0);
    disk.kill();
    for at in 0..(last.offset + last.bytes) as usize {
        for tail in [false, true] {
            let disk = disk.fork(at as u64);
            edit(&disk, path, |bytes| {
                if tail {
                    bytes[..at].fill(0)
                } else {
                    bytes[at..].fill(0)
                }
            });
            let (_home, wal, recovered) =
                open(&disk, 4096).unwrap_or_else(|error| panic!("{at}: {error}"));
            let found = read_all(&wal, &recovered);
            assert!(found.len() >= 30, "{at}: {}", found.len());
            assert_eq!(found, entries(1, found.len() as u64, 1, 90).entries, "{at}");
        }
    }
}

/// A cleanly closed log with every kind of record, in several segments.
fn every_kind() -> FaultyDisk {
    let disk = FaultyDisk::new(5);
    let (data_dir, mut wal, _) = open(&disk, 4096).expect("a new directory");
    wal.write(&hard_state(1, 7)).expect("written");
    let clock = |at| Clock {
        boot_id: [9; 16],
        boottime_ns: at,
        cluster_ns: at * 2,
    };
    wal.write(&Batch {
        clock: Some(clock(1000)),
        ..entries(1, 2, 1, 60)
    })
    .expect("written");
    wal.write(&Batch {
        clock: Some(clock(2000)),
        ..entries(3, 3, 1, 0)
    })
    .expect("written");
    let change = Change {
        kind: ChangeKind::AddLearner,
        node: NodeId(8),
        context: (*b"url").into(),
    };
    let change = Entry {
        position: support::position(4, 1),
        payload: Payload::Change(change),
    };
    let noop = Entry {
        position: support::position(5, 2),
        payload: Payload::Noop,
    };
    wal.write(&Batch {
        entries: vec![change, noop],
        ..hard_state(2, 0)
    })
    .expect("written");
    wal.write(&entries(6, 40, 2, 90)).expect("written");
    wal.close().expect("closed");
    drop(data_dir);
    let (_home, mut wal, _) = open(&disk, 4096).expect("opens");
    wal.write(&entries(41, 41, 2, 20)).expect("written");
    wal.begin_snapshot(&support::metadata(50, 3))
        .expect("begun")
        .finish()
        .expect("finished");
    wal.compact(&support::metadata(50, 3)).expect("compacted");
    wal.write(&entries(51, 52, 3, 30)).expect("written");
    wal.close().expect("closed");
    disk.kill();
    disk
}

#[test]
fn a_flipped_bit_in_any_durable_record_is_refused() {
    let disk = every_kind();
    let all = records(&disk);
    for kind in [
        "head",
        "no-op",
        "command",
        "change",
        "hard-state",
        "clock",
        "tick",
        "reset",
        "sealed",
        "stop",
    ] {
        assert!(
            all.iter().any(|(_, line)| line.what.contains(kind)),
            "no {kind} in {all:#?}"
        );
    }
    // The last record calls all others durable, and no record calls the last one durable.
    let (last, durable) = all.split_last().expect("records");
    for (path, line) in durable {
        for at in line.offset..line.offset + line.bytes {
            must_refuse(&disk, path, at, line.offset, &line.what);
        }
    }
    for at in last.1.offset..last.1.offset + last.1.bytes {
        let disk = disk.fork(at);
        edit(&disk, &last.0, |bytes| bytes[at as usize] ^= 4);
        let (_home, wal, recovered) = open(&disk, 4096).expect("only the mark of the stop is lost");
        assert_eq!(recovered.log.last.0, 52);
        assert_eq!(recovered.warnings.len(), 1, "{:?}", recovered.warnings);
        drop(wal);
    }
}

fn must_refuse(disk: &FaultyDisk, path: &Path, at: u64, record: u64, what: &str) {
    let disk = disk.fork(at);
    edit(&disk, path, |bytes| bytes[at as usize] ^= 1 << (at % 8));
    let before: Vec<_> = disk.files().iter().map(|path| disk.bytes(path)).collect();
    let Err(error) = open(&disk, 4096) else {
        panic!(
            "{}: a bit was flipped at {at} in {what}, and it starts",
            path.display()
        );
    };
    assert_eq!(error.kind, WalErrorKind::Damaged, "{error}");
    assert_eq!(
        (error.path.as_path(), error.offset),
        (path, Some(record)),
        "{what} at {at}: {error}"
    );
    assert!(
        error.what.contains("move its data directory aside"),
        "{error}"
    );
    let after: Vec<_> = disk.files().iter().map(|path| disk.bytes(path)).collect();
    assert!(before == after, "a refused directory is as it was found");
}

#[test]
fn a_zeroed_sector_before_the_last_sync_is_refused() {
    let disk = every_kind();
    let paths = support::segments(&disk);
    let (_, last) = records(&disk).pop().expect("records");
    let used = &paths[..paths.len() - 1];
    for (number, path) in used.iter().enumerate() {
        let ends = if number + 1 == used.len() {
            last.offset as usize
        } else {
            4096 - 512
        };
        for sector in (0..ends).step_by(512) {
            let disk = disk.fork(1);
            edit(&disk, path, |bytes| {
                bytes[sector..(sector + 512).min(ends)].fill(0)
            });
            let error = open(&disk, 4096).expect_err("confirmed bytes are lost");
            assert_eq!(
                (error.kind, error.path),
                (WalErrorKind::Damaged, path.clone())
            );
        }
    }
}

/// The record of a clean stop is written, and the process ends before the sync. The next stop must not call it durable:
/// it may be in another page than the records written then.
#[test]
fn a_stop_that_was_not_synced_is_not_called_durable() {
    for seed in 0..16 {
        let disk = FaultyDisk::new(seed);
        let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
        wal.write(&entries(1, 62, 1, 41)).expect("written");
        disk.fail_sync_after(0);
        wal.close().expect_err("the stop is not synced");
        drop(data_dir);
        let (_, line) = records(&disk).pop().expect("records");
        assert_eq!((line.offset, line.bytes), (4080, 16), "it ends a page");
        disk.kill();

        let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("opens");
        wal.write(&entries(63, 64, 1, 41)).expect("written");
        drop((data_dir, wal));
        disk.crash();
        let (_home, wal, recovered) =
            open(&disk, SEGMENT).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(
            read_all(&wal, &recovered),
            entries(1, 64, 1, 41).entries,
            "seed {seed}"
        );
    }
}

/// The process ends cleanly, but its background thread ends between naming the next segment and making that name
/// durable. The next process uses the segment, and then the power fails. Everything that it acknowledged must remain.
/// The disk has no space for a further segment, because creating one would also make the name durable.
#[test]
fn a_segment_whose_name_was_not_durable_is_not_lost_with_what_is_in_it() {
    for seed in 0..32 {
        let disk = FaultyDisk::new(seed);
        let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
        let write = |wal: &mut edgetcd::wal::Wal<FaultyDisk>, from: u64, to: u64| {
            (from..=to).for_each(|at| wal.write(&entries(at, at, 1, 1000)).expect("written"));
        };
        write(&mut wal, 1, 10);
        wal.close().expect("a clean end");
        drop(_home);
        unname_durably(&disk);
        disk.set_capacity(disk.used());
        let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a sound log");
        write(&mut wal, 11, 20);
        drop((wal, _home));
        disk.crash();
        let (_home, wal, recovered) =
            open(&disk, SEGMENT).unwrap_or_else(|error| panic!("{seed}: {error}"));
        assert_eq!(read_all(&wal, &recovered).len(), 20, "{seed}");
    }
}

/// Simulates that the newest segment was named just before the process was killed: its rename is not synced.
fn unname_durably(disk: &FaultyDisk) {
    use edgetcd::wal::Disk;
    disk.kill();
    let newest = disk
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "wal"))
        .max()
        .expect("segments");
    let temporary = newest.with_extension("tmp");
    let dir = newest.parent().expect("a folder");
    disk.rename(&newest, &temporary).expect("renamed");
    disk.sync_dir(dir).expect("synced");
    disk.rename(&temporary, &newest).expect("renamed");
    disk.kill();
}
