//! Directories that were changed from outside: files that are missing, duplicated, swapped, of another size or of
//! other programs. Also full disks and failed syncs.

use crate::support::{
    self, DIR, edit, entries, hard_state, metadata, open, open_with, options, read_all, records,
    segments,
};
use edgetcd::wal::{
    Batch, DataDir, Disk, DiskWriter, FaultyDisk, Options, Wal, WalErrorKind, recover,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

const SEGMENT: u64 = 4096;

/// Entries 1 to 100 in seven segments (and one prepared segment), closed cleanly.
fn closed() -> FaultyDisk {
    let disk = FaultyDisk::new(2);
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    data_dir.write_identity(b"me").expect("written");
    for from in (1..=100).step_by(10) {
        wal.write(&entries(from, from + 9, 1, 200))
            .expect("written");
    }
    wal.close().expect("closed");
    disk.kill();
    disk
}

#[test]
fn a_mark_survives_a_power_failure_and_goes_when_all_is_synced() {
    let disk = FaultyDisk::new(5);
    let (data_dir, wal, _) = open(&disk, SEGMENT).expect("a new directory");
    assert_eq!(data_dir.unsynced_since().expect("read"), None);
    data_dir.mark_unsynced([3; 16]).expect("written");
    data_dir.mark_unsynced([4; 16]).expect("it is there");
    drop((data_dir, wal));
    disk.crash();
    let (data_dir, _wal, _) = open(&disk, SEGMENT).expect("opened");
    assert_eq!(data_dir.unsynced_since().expect("read"), Some([3; 16]));

    // A file that nobody has synced.
    let path = Path::new(DIR).join("member/snap/unsynced-file");
    let mut file = disk.create(&path).expect("created");
    file.write(b"content").expect("written");
    disk.fail_sync_after(0);
    data_dir.sync_unsynced().expect_err("a failed sync");
    assert!(data_dir.unsynced_since().expect("read").is_some());
    data_dir.sync_unsynced().expect("synced");
    assert!(data_dir.unsynced_since().expect("read").is_some());
    data_dir.remove_mark().expect("removed");
    assert_eq!(data_dir.unsynced_since().expect("read"), None);
    drop((file, data_dir, _wal));
    disk.crash();
    assert_eq!(disk.bytes(&path).as_deref(), Some(b"content".as_slice()));
    let (data_dir, ..) = open(&disk, SEGMENT).expect("opened");
    assert_eq!(data_dir.unsynced_since().expect("read"), None);
}

#[test]
fn a_mark_that_may_not_be_synced_is_written_again() {
    // As if a process had created the mark and ended before its sync.
    let disk = FaultyDisk::new(6);
    disk.lose_all_unsynced(true);
    let (data_dir, wal, _) = open(&disk, SEGMENT).expect("a new directory");
    let mark = Path::new(DIR).join("member/unsynced");
    let mut file = disk.create(&mark).expect("created");
    file.write(&[3; 16]).expect("written");
    data_dir.mark_unsynced([4; 16]).expect("marked");
    drop((file, data_dir, wal));
    disk.crash();
    let (data_dir, wal, _) = open(&disk, SEGMENT).expect("opened");
    assert_eq!(data_dir.unsynced_since().expect("read"), Some([3; 16]));

    // A failed sync, after which the disk considers the bytes of the file clean.
    data_dir.remove_mark().expect("removed");
    disk.fail_sync_after(0);
    data_dir.mark_unsynced([5; 16]).expect_err("a failed sync");
    data_dir.mark_unsynced([6; 16]).expect("marked");
    drop((data_dir, wal));
    disk.crash();
    let (data_dir, ..) = open(&disk, SEGMENT).expect("opened");
    assert_eq!(data_dir.unsynced_since().expect("read"), Some([6; 16]));
}

/// The directory must be refused with `says` in the message, and must not be changed.
fn must_refuse(disk: &FaultyDisk, path: &Path, says: &str) {
    let before: Vec<_> = disk
        .files()
        .into_iter()
        .map(|path| (disk.bytes(&path), path))
        .collect();
    let error = open(disk, SEGMENT).map(|_| ()).expect_err(says);
    assert!(error.what.contains(says), "{error}, not {says:?}");
    assert_eq!(
        (error.kind, error.path.as_path()),
        (WalErrorKind::Damaged, path),
        "{error}"
    );
    let after: Vec<_> = disk
        .files()
        .into_iter()
        .map(|path| (disk.bytes(&path), path))
        .collect();
    assert!(before == after, "{error}: and something was changed");
}

fn must_hold(disk: &FaultyDisk, last: u64) {
    let (_home, wal, recovered) = open(disk, SEGMENT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read_all(&wal, &recovered), entries(1, last, 1, 200).entries);
}

fn rename(disk: &FaultyDisk, from: &Path, to: &Path) {
    let bytes = disk.bytes(from).expect("it is there");
    disk.take(from);
    disk.put(to, &bytes);
}

#[test]
fn a_missing_segment_is_refused_wherever_it_was() {
    let disk = closed();
    let all = segments(&disk);
    let used = all.len() - 1;
    assert!(used >= 6, "{all:?}");
    for gone in 0..used {
        let disk = disk.fork(1);
        disk.take(&all[gone]);
        match gone {
            // The chain breaks before the rest, so the only visible problem is that the log begins too late.
            gone if gone + 1 < used => must_refuse(&disk, &all[gone + 1], "are missing"),
            _ => must_refuse(&disk, &all[gone - 1], "which is missing"),
        }
    }
    let without_spare = disk.fork(1);
    without_spare.take(&all[used]);
    must_hold(&without_spare, 100);
}

#[test]
fn swapped_renamed_and_foreign_segments_are_refused() {
    let disk = closed();
    let all = segments(&disk);
    let swapped = disk.fork(1);
    let (one, two) = (
        disk.bytes(&all[1]).expect("bytes"),
        disk.bytes(&all[2]).expect("bytes"),
    );
    swapped.put(&all[1], &two);
    swapped.put(&all[2], &one);
    must_refuse(&swapped, &all[1], "under another name");

    let last = all.len() - 2;
    let renamed = disk.fork(1);
    rename(
        &renamed,
        &all[last],
        &all[last].with_file_name("0000000000000020-00000001.wal"),
    );
    must_refuse(
        &renamed,
        &all[last].with_file_name("0000000000000020-00000001.wal"),
        "rename it back",
    );

    // A segment with the right number from another log in this directory.
    let other = FaultyDisk::new(99);
    let (_home, mut wal, _) = open(&other, SEGMENT).expect("a new directory");
    for from in (1..=100).step_by(10) {
        wal.write(&entries(from, from + 9, 1, 200))
            .expect("written");
    }
    let theirs = segments(&other);
    let mixed = disk.fork(1);
    mixed.take(&all[2]);
    mixed.put(&theirs[2], &other.bytes(&theirs[2]).expect("bytes"));
    must_refuse(&mixed, &all[1], "is another segment");
    let doubled = disk.fork(1);
    doubled.put(&theirs[2], &other.bytes(&theirs[2]).expect("bytes"));
    let (low, high) = if theirs[2] < all[2] {
        (&theirs[2], &all[2])
    } else {
        (&all[2], &theirs[2])
    };
    assert!(low < high);
    must_refuse(&doubled, high, "both contain records");
}

#[test]
fn segments_of_another_size_are_refused() {
    let disk = closed();
    let all = segments(&disk);
    for path in &all[..all.len() - 1] {
        for change in [
            (|bytes: &mut Vec<u8>| bytes.truncate(2048)) as fn(&mut Vec<u8>),
            |bytes| bytes.resize(8192, 0),
            |bytes| bytes.truncate(4095),
        ] {
            let disk = disk.fork(1);
            edit(&disk, path, change);
            must_refuse(&disk, path, "bytes, but was created with");
        }
        let disk = disk.fork(1);
        edit(&disk, path, |bytes| bytes.clear());
        let error = open(&disk, SEGMENT).map(|_| ()).expect_err("an empty file");
        assert_eq!(error.kind, WalErrorKind::Damaged, "{error}");
    }
    let odd_spare = disk.fork(1);
    edit(&odd_spare, &all[all.len() - 1], |bytes| bytes.truncate(100));
    must_hold(&odd_spare, 100);
}

#[test]
fn the_log_without_its_start_and_a_start_without_its_log_are_refused() {
    let disk = closed();
    let wal_dir = PathBuf::from(DIR).join("member/wal");
    let no_log = disk.fork(1);
    segments(&disk).iter().for_each(|path| no_log.take(path));
    must_refuse(
        &no_log,
        &wal_dir,
        "there is no log here, but data/member/identity",
    );

    let (data_dir, mut wal, _) = open_with(
        &disk,
        Options {
            max_wals: 1,
            ..options(SEGMENT)
        },
    )
    .expect("opens");
    for index in [60, 80] {
        wal.begin_snapshot(&metadata(index, 1))
            .expect("begun")
            .finish()
            .expect("finished");
        wal.compact(&metadata(index, 1)).expect("compacted");
    }
    drop((data_dir, wal));
    disk.kill();
    let no_log = disk.fork(1);
    segments(&disk).iter().for_each(|path| no_log.take(path));
    must_refuse(&no_log, &wal_dir, "member/snap/0000000000000050");
    let no_snapshots = disk.fork(1);
    no_snapshots.take(&PathBuf::from(DIR).join("member/snap"));
    must_refuse(
        &no_snapshots,
        &segments(&disk)[0],
        "the log begins with entry",
    );
}

#[test]
fn segments_left_over_by_a_crash_are_cleared_away() {
    let disk = closed();
    let all = segments(&disk);
    let spare = &all[all.len() - 1];
    let doubled = disk.fork(1);
    // A second prepared segment, an unused one with the number of a used one, one with a later number, and one half
    // created.
    doubled.put(
        &spare.with_file_name("0000000000000007-00000001.wal"),
        &[0; 4096],
    );
    doubled.put(
        &spare.with_file_name("0000000000000002-00000001.wal"),
        &[0; 4096],
    );
    doubled.put(
        &spare.with_file_name("0000000000000009-00000001.wal"),
        &[0; 4096],
    );
    doubled.put(
        &spare.with_file_name("0000000000000008-00000001.tmp"),
        &[0; 77],
    );
    must_hold(&doubled, 100);
    assert_eq!(segments(&doubled).len(), all.len(), "{:?}", doubled.files());

    // Segments removed by a compaction, some of which a crash restored. This is no gap in the log.
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("opens");
    wal.begin_snapshot(&metadata(90, 1))
        .expect("begun")
        .finish()
        .expect("finished");
    drop((data_dir, wal));
    disk.kill();
    disk.take(&all[1]);
    let (_home, wal, recovered) =
        open(&disk, SEGMENT).expect("the snapshot covers what is missing");
    assert_eq!(read_all(&wal, &recovered), entries(91, 100, 1, 200).entries);
    assert!(!segments(&disk).contains(&all[0]));
}

#[test]
fn directories_of_other_programs_are_refused_untouched() {
    let member = PathBuf::from(DIR).join("member");
    for (file, says) in [
        (PathBuf::from(DIR).join("proxy"), "etcd proxy"),
        (
            member.join("wal/0000000000000000-0000000000000000.wal"),
            "written by etcd",
        ),
        (member.join("wal/mine.wal"), "not the name of a file"),
        (member.join("snap/db"), "database of an etcd member"),
    ] {
        let disk = FaultyDisk::new(1);
        let (data_dir, wal, _) = open(&disk, SEGMENT).expect("a new directory");
        drop((data_dir, wal));
        disk.put(&file, b"theirs");
        let before = disk.files();
        let error = open(&disk, SEGMENT).map(|_| ()).expect_err(says);
        assert_eq!(
            (error.kind, &error.path),
            (WalErrorKind::Foreign, &file),
            "{error}"
        );
        assert!(
            error.what.contains(says) && error.what.contains("--data-dir"),
            "{error}"
        );
        assert_eq!(disk.files(), before);
    }
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let disk = FaultyDisk::new(1);
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    disk.set_capacity(disk.used());
    let mut last = 0;
    let error = loop {
        let before = records(&disk);
        match wal.write(&entries(last + 1, last + 3, 1, 300)) {
            Ok(()) => last += 3,
            Err(error) => {
                assert_eq!(before, records(&disk), "not a byte was written");
                break error;
            }
        }
    };
    assert_eq!(error.kind, WalErrorKind::Full, "{error}");
    assert!(last > 6, "the segment made ready is used first: {last}");
    assert_eq!(wal.last().index.0, last);
    // A batch that still fits is accepted. One that does not fit is refused again, and accepted later.
    wal.write(&hard_state(2, 1)).expect("a small record fits");
    let refused = wal
        .write(&entries(last + 1, last + 3, 2, 300))
        .map_err(|error| error.kind);
    assert_eq!(refused, Err(WalErrorKind::Full));
    assert_eq!(wal.stats().full.load(Relaxed), 2);
    disk.set_capacity(u64::MAX);
    wal.write(&entries(last + 1, last + 3, 2, 300))
        .expect("there is room again");
    drop((data_dir, wal));
    disk.crash();
    let (_home, wal, recovered) = open(&disk, SEGMENT).expect("opens");
    let mut all = entries(1, last, 1, 300).entries;
    all.extend(entries(last + 1, last + 3, 2, 300).entries);
    assert_eq!(read_all(&wal, &recovered), all);
    assert_eq!(recovered.hard_state.term.0, 2);
}

/// If the log used the space of the next snapshot, it could never be shortened again.
#[test]
fn the_log_leaves_room_for_the_next_snapshot_and_a_snapshot_makes_room_for_the_log() {
    const RESERVE: u64 = 40_000;
    let disk = FaultyDisk::new(1);
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    disk.set_capacity(disk.used() + 2 * RESERVE);
    let fill = |wal: &mut Wal<FaultyDisk>, mut last: u64| {
        wal.set_reserve(RESERVE);
        while wal.write(&entries(last + 1, last + 3, 1, 300)).is_ok() {
            last += 3;
        }
        last
    };
    let snapshot = |wal: &mut Wal<FaultyDisk>, last: u64| {
        let mut writer = wal.begin_snapshot(&metadata(last, 1)).expect("begun");
        writer
            .write(&vec![7; RESERVE as usize - 2000])
            .expect("room");
        writer.finish().expect("the reserve is there");
        wal.compact(&metadata(last, 1)).expect("compacted");
    };
    let snapshots = || {
        let files = disk.files().into_iter();
        files
            .filter(|file| file.extension().is_some_and(|name| name == "snap"))
            .count()
    };
    let mut last = fill(&mut wal, 0);
    assert!(last > 60, "{last}");
    for round in 0..5 {
        let before = last;
        snapshot(&mut wal, before);
        assert_eq!(snapshots(), 1, "only the newest one");
        last = fill(&mut wal, before);
        assert!(
            last > before,
            "round {round}: no room was made: {:?}",
            disk.files()
        );
    }
    drop((data_dir, wal));
    disk.kill();
    let (_home, wal, recovered) = open(&disk, SEGMENT).expect("opens");
    let all = read_all(&wal, &recovered);
    assert_eq!(all.last().map(|entry| entry.position.index.0), Some(last));
}

/// If space is short, a segment contains only one batch. The WAL must not compare the free space with such a small
/// segment, because there would seem to be enough.
#[test]
fn after_a_tiny_segment_room_is_no_less_scarce() {
    const USUAL: u64 = 16 * SEGMENT;
    let disk = FaultyDisk::new(1);
    let (_home, mut wal, _) = open(&disk, USUAL).expect("a new directory");
    let snapshots = || {
        let all = disk.files().into_iter();
        all.filter(|file| file.extension().is_some_and(|name| name == "snap"))
            .count()
    };
    let mut last = 0;
    for _ in 0..2 {
        wal.write(&entries(last + 1, last + 3, 1, 300))
            .expect("room");
        last += 3;
        let writer = wal.begin_snapshot(&metadata(last, 1)).expect("begun");
        writer.finish().expect("room");
        wal.compact(&metadata(last, 1)).expect("compacted");
    }
    assert_eq!(snapshots(), 2);
    disk.set_capacity(disk.used() + USUAL);
    let newest = || {
        let path = segments(&disk).pop().expect("a segment");
        disk.bytes(&path).expect("bytes").len() as u64
    };
    while newest() >= USUAL {
        wal.write(&entries(last + 1, last + 3, 1, 300))
            .expect("room");
        last += 3;
    }
    let free = disk.free_bytes(Path::new(DIR)).expect("it is known");
    assert!(free > 2 * newest(), "{free}");
    drop(wal.begin_snapshot(&metadata(last, 1)).expect("begun"));
    assert_eq!(snapshots(), 1, "only the newest one");
}

#[test]
fn a_full_disk_at_the_first_start_leaves_nothing_in_the_way() {
    let disk = FaultyDisk::new(1);
    disk.set_capacity(SEGMENT - 1);
    let error = open(&disk, SEGMENT)
        .map(|_| ())
        .expect_err("no room for a segment");
    assert_eq!(error.kind, WalErrorKind::Full, "{error}");
    // Space for one segment, but not for preparing the next one.
    disk.set_capacity(SEGMENT + 100);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 1, 1, 100)).expect("written");
}

#[test]
fn a_failed_sync_is_final() {
    let disk = FaultyDisk::new(1);
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 1, 1, 100)).expect("written");
    disk.fail_sync_after(0);
    let error = wal
        .write(&entries(2, 2, 1, 100))
        .expect_err("the sync fails");
    assert_eq!(
        (error.kind, error.offset),
        (WalErrorKind::Io, Some(232)),
        "{error}"
    );
    // The disk would sync without an error now, but that would prove nothing.
    let poisoned = Err(WalErrorKind::Poisoned);
    assert_eq!(wal.sync().map_err(|error| error.kind), poisoned);
    assert_eq!(
        wal.append(&Batch::default()).map_err(|error| error.kind),
        poisoned
    );
    assert_eq!(
        wal.write(&entries(2, 2, 1, 100))
            .map_err(|error| error.kind),
        poisoned
    );
    assert_eq!(
        wal.compact(&metadata(9, 1)).map_err(|error| error.kind),
        poisoned
    );
    assert_eq!(wal.close().map_err(|error| error.kind), poisoned);
    drop(data_dir);
    disk.crash();
    let (_home, _wal, recovered) = open(&disk, SEGMENT).expect("opens");
    assert!(recovered.log.last.0 >= 1);
}

/// The kernel considers the pages of a failed sync written. A restarted process reads the records from the page cache.
/// It must not rely on them before it has written them again.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_anew() {
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
        wal.write(&entries(1, 1, 1, 1000)).expect("written");
        disk.fail_sync_after(0);
        wal.write(&entries(2, 2, 1, 1500))
            .expect_err("the sync fails");
        drop((data_dir, wal));
        disk.kill();
        let (data_dir, wal, recovered) = open(&disk, SEGMENT).expect("opens");
        assert_eq!(recovered.log.last.0, 2, "the process sees it");
        drop((data_dir, wal));
        disk.crash();
        let (_home, wal, recovered) = open(&disk, SEGMENT).expect("opens");
        assert_eq!(
            read_all(&wal, &recovered).len(),
            2,
            "seed {seed}: counted on, and lost"
        );
    }
}

/// A start zeroes the rest of a torn append. If the sync of the zeros fails, they are only in the page cache. The next
/// start must zero the old bytes again, although it cannot see them, because otherwise they may return.
#[test]
fn what_was_zeroed_without_a_sync_is_zeroed_again() {
    for (seed, failing) in (0..40).flat_map(|seed| [0, 1, 2].map(|failing| (seed, failing))) {
        let disk = FaultyDisk::new(seed);
        let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
        wal.write(&entries(1, 1, 1, 600)).expect("written");
        wal.append(&entries(2, 4, 1, 600)).expect("appended");
        drop((data_dir, wal));
        disk.kill();
        let torn = records(&disk)[2].clone();
        edit(&disk, &torn.0, |bytes| bytes[torn.1.offset as usize] ^= 1);

        disk.fail_sync_after(failing);
        open(&disk, SEGMENT).map(|_| ()).expect_err("a sync fails");
        disk.kill();
        let (data_dir, mut wal, recovered) = open(&disk, SEGMENT).expect("opens");
        assert_eq!(recovered.log.last.0, 1, "seed {seed}, sync {failing}");
        // As long as the torn record, so the old bytes behind that record would now be behind this one.
        wal.write(&entries(2, 2, 1, 600)).expect("written");
        drop((data_dir, wal));
        disk.crash();
        let (_home, wal, recovered) = open(&disk, SEGMENT).expect("opens");
        let all = read_all(&wal, &recovered);
        assert_eq!(
            all,
            entries(1, 2, 1, 600).entries,
            "seed {seed}, sync {failing}"
        );
    }
}

#[test]
fn nothing_is_written_by_a_start_after_a_clean_stop() {
    let disk = closed();
    let before = disk.changes();
    for _ in 0..3 {
        let data_dir = DataDir::open(disk.clone(), options(SEGMENT)).expect("opens");
        let (wal, _): (Wal<FaultyDisk>, _) = recover(&data_dir).expect("recovers");
        wal.close().expect("closed");
    }
    assert_eq!(disk.changes(), before);
}

#[test]
fn a_hard_state_survives_the_segments_it_was_written_in() {
    let disk = FaultyDisk::new(1);
    let (data_dir, mut wal, _) = open_with(
        &disk,
        Options {
            max_wals: 1,
            ..options(SEGMENT)
        },
    )
    .expect("new");
    wal.write(&hard_state(7, 3)).expect("written");
    for index in 1..=100 {
        wal.write(&entries(index, index, 7, 300)).expect("written");
    }
    for index in [80, 90, 100] {
        wal.begin_snapshot(&metadata(index, 7))
            .expect("begun")
            .finish()
            .expect("finished");
        wal.compact(&metadata(index, 7)).expect("compacted");
    }
    assert!(
        !records(&disk)
            .iter()
            .any(|(_, line)| line.what.starts_with("hard-state"))
    );
    drop((data_dir, wal));
    disk.crash();
    let (_home, _wal, recovered) = open(&disk, SEGMENT).expect("opens");
    assert_eq!(
        recovered.hard_state,
        hard_state(7, 3).hard_state.expect("a hard state")
    );
    assert_eq!(recovered.log.last, support::position(100, 7).index);
}

#[test]
fn segments_grow_while_they_fill_fast_and_shrink_again() {
    let disk = FaultyDisk::new(1);
    let options = Options {
        segment_bytes_max: 4 * SEGMENT,
        max_wals: 0,
        ..options(SEGMENT)
    };
    let (_home, mut wal, _) = open_with(&disk, options).expect("a new directory");
    let fill = |wal: &mut Wal<FaultyDisk>, pause: u64| {
        let mut index = wal.last().index.0;
        let rolls = wal.stats().rolls.load(Relaxed);
        while wal.stats().rolls.load(Relaxed) == rolls {
            disk.advance(std::time::Duration::from_secs(pause));
            index += 1;
            wal.write(&entries(index, index, 1, 300)).expect("written");
        }
        let all = segments(&disk);
        disk.bytes(&all[all.len() - 1]).expect("bytes").len() as u64 / SEGMENT
    };
    let busy: Vec<u64> = (0..4).map(|_| fill(&mut wal, 0)).collect();
    assert_eq!(
        busy,
        [2, 2, 4, 4],
        "the one after the next is twice as large"
    );
    let idle: Vec<u64> = (0..6).map(|_| fill(&mut wal, 100)).collect();
    assert_eq!(idle[idle.len() - 1], 1, "{idle:?}");
}
