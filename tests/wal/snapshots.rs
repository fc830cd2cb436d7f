//! Power failures at every step of creating a directory, starting a new segment, writing a snapshot, compacting and
//! recovering. Also snapshots that rot.

use crate::support::{
    self, DIR, edit, entries, metadata, open, open_with, options, position, read_all,
};
use edgetcd::raft::LogIndex;
use edgetcd::wal::{DataDir, FaultyDisk, Options, SnapshotReader, Wal, WalError, WalErrorKind};
use std::path::{Path, PathBuf};

const SEGMENT: u64 = 4096;

/// Runs `work` on copies of a disk. The power fails at its first change, then at its second, and so on until `work`
/// completes, a few times each. `check` inspects the disk after the crash.
fn at_every_step(
    disk: &FaultyDisk,
    work: impl Fn(&FaultyDisk) -> Result<(), WalError>,
    check: impl Fn(&FaultyDisk, &str),
) {
    for step in 0.. {
        let mut through = false;
        for seed in 0..6 {
            let disk = disk.fork(step * 100 + seed);
            disk.cut_power_after(step);
            let worked = work(&disk);
            through = disk.has_power();
            assert_eq!(worked.is_ok(), through, "step {step}: {worked:?}");
            disk.crash();
            check(&disk, &format!("power lost at step {step}, seed {seed}"));
        }
        if through {
            assert!(step > 3, "only {step} steps");
            return;
        }
        assert!(step < 500, "no end in sight");
    }
}

/// Called as the last step of some work, because the background thread that prepares the next segment does not report a
/// power failure.
fn still_there(data_dir: &DataDir<FaultyDisk>) -> Result<(), WalError> {
    data_dir.identity().map(|_| ())
}

fn must_open(disk: &FaultyDisk, what: &str) -> support::Opened {
    open(disk, SEGMENT).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn save(wal: &mut Wal<FaultyDisk>, index: u64, term: u64, bytes: usize) -> Result<(), WalError> {
    let mut writer = wal.begin_snapshot(&metadata(index, term))?;
    let piece: Vec<u8> = (0..10_000).map(|n| (n + index) as u8).collect();
    for at in (0..bytes).step_by(piece.len()) {
        writer.write(&piece[..piece.len().min(bytes - at)])?;
    }
    writer.finish()?;
    wal.compact(&metadata(index, term))
}

fn read(mut reader: SnapshotReader<FaultyDisk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while reader.next(&mut bytes).expect("the snapshot reads back") {}
    assert_eq!(bytes.len() as u64, reader.bytes());
    bytes
}

/// A log of 60 entries in several segments, with snapshots at 10 and 30.
fn grown() -> FaultyDisk {
    let disk = FaultyDisk::new(3);
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    data_dir.write_identity(b"me").expect("written");
    for from in [1, 11, 21, 31, 41, 51] {
        wal.write(&entries(from, from + 9, 1, 200))
            .expect("written");
        if from == 11 || from == 31 {
            save(&mut wal, from - 1, 1, 25_000).expect("saved");
        }
    }
    disk.kill();
    disk
}

#[test]
fn power_lost_at_every_step_of_making_a_directory() {
    let start = |disk: &FaultyDisk| {
        let (data_dir, mut wal, _) = open(disk, SEGMENT)?;
        data_dir.write_identity(b"me")?;
        wal.write(&entries(1, 1, 1, 10))?;
        still_there(&data_dir)
    };
    at_every_step(&FaultyDisk::new(9), start, |disk, what| {
        let (data_dir, mut wal, recovered) = must_open(disk, what);
        let identity = data_dir
            .identity()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            identity.is_none() || identity.as_deref() == Some(b"me"),
            "{what}"
        );
        assert!(recovered.log.last.0 == 0 || identity.is_some(), "{what}");
        data_dir.write_identity(b"you").expect("written");
        let next = recovered.log.last.0 + 1;
        wal.write(&entries(next, next, 2, 10)).expect("written");
        drop((data_dir, wal));
        disk.crash();
        let (data_dir, _, recovered) = must_open(disk, what);
        assert_eq!(
            (
                data_dir.identity().expect("readable").as_deref(),
                recovered.log.last.0
            ),
            (Some(&b"you"[..]), next)
        );
    });
}

/// The process ends at some step. The next process reads data that is only in the page cache, and relies on it. Then
/// the power fails.
#[test]
fn what_a_killed_process_left_is_made_durable_by_the_next() {
    for step in 0.. {
        let disk = FaultyDisk::new(step);
        disk.cut_power_after(step);
        let started = open(&disk, SEGMENT).and_then(|(data_dir, mut wal, _)| {
            data_dir.write_identity(b"me")?;
            wal.write(&entries(1, 3, 1, 900))?;
            wal.write(&entries(4, 6, 1, 900))?;
            save(&mut wal, 5, 1, 100)?;
            still_there(&data_dir)
        });
        let worked = started.is_ok();
        let through = disk.has_power();
        assert_eq!(worked, through, "step {step}");
        disk.kill();
        let (data_dir, wal, recovered) = must_open(&disk, "after the kill");
        let seen = (data_dir.identity().expect("readable"), recovered.log.last);
        let snapshot = recovered
            .snapshot
            .as_ref()
            .map(|reader| reader.metadata().clone());
        drop((data_dir, wal));
        disk.crash();
        let what = format!("killed at step {step}, then the power went");
        let (data_dir, _, recovered) = must_open(&disk, &what);
        let kept = (data_dir.identity().expect("readable"), recovered.log.last);
        assert_eq!(kept, seen, "{what}");
        assert_eq!(
            recovered.snapshot.map(|reader| reader.metadata().clone()),
            snapshot,
            "{what}"
        );
        if through {
            assert!(step > 20, "only {step} steps");
            return;
        }
    }
}

#[test]
fn power_lost_at_every_step_of_going_on_in_new_segments() {
    let disk = FaultyDisk::new(4);
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    wal.write(&entries(1, 30, 1, 100)).expect("written");
    drop((_home, wal));
    let work = |disk: &FaultyDisk| {
        let (data_dir, mut wal, _) = open(disk, SEGMENT)?;
        wal.write(&entries(31, 45, 1, 100))?;
        // Larger than any segment: it gets a segment of its own, although another one was prepared.
        wal.write(&entries(46, 46, 1, 20_000))?;
        wal.write(&entries(47, 60, 1, 300))?;
        still_there(&data_dir)
    };
    at_every_step(&disk, work, |disk, what| {
        let (_home, wal, recovered) = must_open(disk, what);
        let found = read_all(&wal, &recovered);
        assert!(found.len() >= 30, "{what}: {}", found.len());
        let mut all = entries(1, 45, 1, 100).entries;
        all.extend(entries(46, 46, 1, 20_000).entries);
        all.extend(entries(47, 60, 1, 300).entries);
        assert_eq!(found, all[..found.len()], "{what}");
    });
}

#[test]
fn power_lost_at_every_step_of_a_snapshot() {
    let options = || Options {
        max_wals: 1,
        max_snapshots: 1,
        ..options(SEGMENT)
    };
    let work = |disk: &FaultyDisk| {
        let (data_dir, mut wal, _) = open_with(disk, options())?;
        save(&mut wal, 50, 1, 100_000)?;
        still_there(&data_dir)
    };
    at_every_step(&grown(), work, |disk, what| {
        let (_home, wal, recovered) = must_open(disk, what);
        let found = read_all(&wal, &recovered);
        let reader = recovered
            .snapshot
            .unwrap_or_else(|| panic!("{what}: no snapshot"));
        let index = reader.metadata().position.index.0;
        assert_eq!(found, entries(index + 1, 60, 1, 200).entries, "{what}");
        assert_eq!(
            read(reader).len(),
            if index == 50 { 100_000 } else { 25_000 },
            "{what}"
        );
        let left = disk
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "tmp"));
        assert_eq!(
            left.collect::<Vec<_>>(),
            Vec::<PathBuf>::new(),
            "{what}: incomplete files are removed"
        );
    });
}

#[test]
fn power_lost_at_every_step_of_installing_a_snapshot() {
    let work = |disk: &FaultyDisk| {
        let (data_dir, mut wal, _) = open(disk, SEGMENT)?;
        save(&mut wal, 100, 7, 30_000)?;
        wal.write(&entries(101, 102, 7, 50))?;
        still_there(&data_dir)
    };
    at_every_step(&grown(), work, |disk, what| {
        let (_home, wal, recovered) = must_open(disk, what);
        let found = read_all(&wal, &recovered);
        match recovered.snapshot.map(|reader| reader.metadata().position) {
            Some(old) if old == position(30, 1) => {
                assert_eq!(found, entries(31, 60, 1, 200).entries)
            }
            Some(new) if new == position(100, 7) => {
                assert_eq!(
                    found,
                    entries(101, 102, 7, 50).entries[..found.len()],
                    "{what}"
                );
            }
            other => panic!("{what}: {other:?}"),
        }
    });
}

#[test]
fn power_lost_at_every_step_of_recovering() {
    let disk = grown();
    {
        let (_home, mut wal, _) = open(&disk, SEGMENT).expect("opens");
        wal.append(&entries(61, 66, 1, 200)).expect("appended");
        let (path, line) = support::records(&disk).pop().expect("records");
        disk.kill();
        edit(&disk, &path, |bytes| bytes[line.offset as usize - 300] ^= 1);
        // Files left by a crash of an earlier start: a segment and a snapshot that are half created.
        disk.put(
            &PathBuf::from(DIR).join("member/wal/0000000000000009-00000000.tmp"),
            &[0; 100],
        );
        disk.put(&PathBuf::from(DIR).join("member/snap/x.tmp"), b"half");
    }
    let work = |disk: &FaultyDisk| {
        let (data_dir, _, recovered) = open(disk, SEGMENT)?;
        assert!(recovered.log.last.0 < 66);
        still_there(&data_dir)
    };
    at_every_step(&disk, work, |disk, what| {
        let (_home, wal, recovered) = must_open(disk, what);
        let found = read_all(&wal, &recovered);
        assert!((30..=35).contains(&found.len()), "{what}: {}", found.len());
        assert_eq!(
            found,
            entries(31, 30 + found.len() as u64, 1, 200).entries,
            "{what}"
        );
    });
}

/// The snapshots of a disk, oldest first.
fn snapshots(disk: &FaultyDisk) -> Vec<PathBuf> {
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|e| e == "snap");
    disk.files().into_iter().filter(is_snapshot).collect()
}

#[test]
fn a_bad_newest_snapshot_gives_way_to_the_one_before_it() {
    let grown = grown();
    let newest = snapshots(&grown).pop().expect("two snapshots");
    let length = grown.bytes(&newest).expect("bytes").len();
    let damages: [(&str, &Damage); 5] = [
        ("zeroed", &|bytes| bytes.fill(0)),
        ("empty", &|bytes| bytes.clear()),
        ("cut", &|bytes| bytes.truncate(length - 1)),
        ("longer", &|bytes| bytes.push(0)),
        ("a slice moved", &|bytes| bytes[50..].rotate_left(9)),
    ];
    for (what, damage) in damages {
        falls_back(&grown, &newest, what, damage);
    }
    for at in (0..length)
        .step_by(97)
        .chain(0..60)
        .chain(length - 30..length)
    {
        falls_back(&grown, &newest, &format!("a bit at {at}"), &|bytes| {
            bytes[at] ^= 0x40
        });
    }
}

type Damage<'a> = dyn Fn(&mut Vec<u8>) + 'a;

fn falls_back(grown: &FaultyDisk, newest: &Path, what: &str, damage: &Damage) {
    let disk = grown.fork(1);
    edit(&disk, newest, damage);
    let (_home, mut wal, recovered) = must_open(&disk, what);
    let found = read_all(&wal, &recovered);
    assert_eq!(found, entries(11, 60, 1, 200).entries, "{what}");
    let warning = recovered.warnings.join("\n");
    assert!(warning.contains("uses an older one"), "{what}: {warning}");
    assert_eq!(
        read(recovered.snapshot.expect("the older one")).len(),
        25_000,
        "{what}"
    );
    assert!(
        disk.files().contains(&newest.with_extension("bad")),
        "{what}: it is moved aside"
    );
    save(&mut wal, 40, 1, 10).expect("saved");
    assert!(
        !disk.files().contains(&newest.with_extension("bad")),
        "{what}: until there is a newer one"
    );
}

/// An etcd that is started on the directory with a `--wal-dir` of its own cannot read the snapshots and renames them.
#[test]
fn snapshots_that_etcd_renamed_are_used_and_get_their_names_back() {
    let disk = grown();
    let options = || Options {
        max_wals: 1,
        ..options(SEGMENT)
    };
    let (data_dir, mut wal, _) = open_with(&disk, options()).expect("opens");
    save(&mut wal, 50, 1, 10).expect("saved");
    wal.close().expect("closed");
    drop(data_dir);
    let named = snapshots(&disk);
    let newest = named.last().expect("three snapshots");
    for path in &named {
        let bytes = disk.bytes(path).expect("it is there");
        disk.take(path);
        disk.put(&path.with_extension("snap.broken"), &bytes);
    }
    let damaged = disk.fork(1);
    let (_home, mut wal, recovered) = open_with(&disk, options()).expect("the log needs them");
    assert_eq!(recovered.log.last, LogIndex(60));
    let found = recovered.snapshot.expect("the newest");
    assert_eq!(found.metadata().position, position(50, 1));
    let warning = recovered.warnings.join("\n");
    assert!(warning.contains("renamed this snapshot"), "{warning}");
    assert_eq!(snapshots(&disk), named);
    save(&mut wal, 60, 1, 10).expect("saved");
    let is_broken = |path: &PathBuf| path.extension().is_some_and(|e| e == "broken");
    assert!(!disk.files().iter().any(is_broken));
    // Damage is damage under this name too.
    edit(&damaged, &newest.with_extension("snap.broken"), |bytes| {
        bytes[20] ^= 1;
    });
    let (_home, _wal, recovered) = open_with(&damaged, options()).expect("the one before");
    let found = recovered.snapshot.expect("the one before");
    assert_eq!(found.metadata().position, position(30, 1));
    assert!(damaged.files().contains(&newest.with_extension("bad")));
}

#[test]
fn without_any_good_snapshot_the_whole_log_will_do_if_it_is_there() {
    let grown = grown();
    snapshots(&grown)
        .iter()
        .for_each(|path| edit(&grown, path, |bytes| bytes.truncate(40)));
    let (_home, wal, recovered) = must_open(&grown, "no snapshot");
    assert!(recovered.snapshot.is_none());
    assert_eq!(recovered.warnings.len(), 2, "{:?}", recovered.warnings);
    assert_eq!(read_all(&wal, &recovered), entries(1, 60, 1, 200).entries);
}

#[test]
fn a_bad_snapshot_that_the_log_cannot_stand_in_for_is_refused() {
    let disk = grown();
    let options = || Options {
        max_wals: 1,
        ..options(SEGMENT)
    };
    let (data_dir, mut wal, _) = open_with(&disk, options()).expect("opens");
    save(&mut wal, 50, 1, 10).expect("saved");
    wal.close().expect("closed");
    drop(data_dir);
    let all = snapshots(&disk);
    assert_eq!(all.len(), 3);
    // The snapshot before the newest is enough, because the log reaches back to it. The one before that is not.
    edit(&disk, &all[2], |bytes| bytes[20] ^= 1);
    {
        let disk = disk.fork(1);
        let (_home, wal, recovered) = must_open(&disk, "the one before");
        assert_eq!(read_all(&wal, &recovered), entries(31, 60, 1, 200).entries);
    }
    edit(&disk, &all[1], |bytes| bytes[20] ^= 1);
    let error = open_with(&disk, options()).expect_err("the log does not reach back");
    assert_eq!(
        (error.kind, &error.path),
        (WalErrorKind::Damaged, &all[2]),
        "{error}"
    );
    assert!(error.what.contains("cannot replace it"), "{error}");
    assert_eq!(snapshots(&disk), all, "nothing was touched");
}

#[test]
fn old_files_go_and_needed_ones_stay() {
    for (max_wals, max_snapshots) in [(1, 1), (2, 3), (5, 5), (0, 0)] {
        let disk = FaultyDisk::new(3);
        let options = Options {
            max_wals,
            max_snapshots,
            ..options(SEGMENT)
        };
        let (_home, mut wal, _) = open_with(&disk, options).expect("a new directory");
        for index in 1..=200 {
            wal.write(&entries(index, index, 1, 200)).expect("written");
            if index % 40 == 0 {
                save(&mut wal, index, 1, 100).expect("saved");
            }
        }
        // Entries 161 to 200, which follow the second newest snapshot, are in the last three segments.
        let segments = support::segments(&disk).len() - 1;
        let kept = snapshots(&disk).len();
        match max_wals {
            0 => assert_eq!((segments, kept), (12, 5)),
            5 => assert_eq!((segments, kept), (5, 5)),
            _ => assert_eq!((segments, kept), (3, max_snapshots.max(2)), "{max_wals}"),
        }
        let reader = wal.reader();
        assert_eq!(
            reader
                .read(LogIndex(161), LogIndex(200), 1 << 20)
                .expect("read"),
            entries(161, 200, 1, 200).entries
        );
        let gone = reader
            .read(LogIndex(1), LogIndex(200), 1 << 20)
            .expect("read");
        assert_eq!(
            gone.is_empty(),
            max_wals != 0,
            "a removed file is absent, not an error"
        );
    }
}

#[test]
fn the_newest_snapshot_can_be_sent_while_it_is_replaced() {
    let disk = grown();
    let options = Options {
        max_snapshots: 1,
        ..options(SEGMENT)
    };
    let (_home, mut wal, _) = open_with(&disk, options).expect("opens");
    let snapshots = wal.snapshots();
    let mut reader = snapshots.newest().expect("listed").expect("there is one");
    assert_eq!(reader.metadata(), &metadata(30, 1));
    let mut bytes = Vec::new();
    save(&mut wal, 40, 1, 10).expect("saved");
    save(&mut wal, 50, 1, 10).expect("saved");
    while reader
        .next(&mut bytes)
        .expect("readable although its name was removed")
    {}
    assert_eq!(bytes.len(), 25_000);
    assert_eq!(
        snapshots.newest().expect("listed").expect("one").metadata(),
        &metadata(50, 1)
    );
}

#[test]
fn a_snapshot_given_up_or_without_room_leaves_nothing() {
    let disk = grown();
    let (_home, mut wal, _) = open(&disk, SEGMENT).expect("opens");
    let before = disk.files();
    let mut writer = wal.begin_snapshot(&metadata(50, 1)).expect("begun");
    writer.write(&[7; 200_000]).expect("written");
    assert_ne!(disk.files(), before);
    drop(writer);
    assert_eq!(disk.files(), before);
    disk.set_capacity(disk.used() + 50_000);
    let error = save(&mut wal, 50, 1, 200_000).expect_err("no room");
    assert_eq!(
        (error.kind, disk.files()),
        (WalErrorKind::Full, before),
        "{error}"
    );
    disk.fail_sync_after(0);
    let error = save(&mut wal, 50, 1, 100).expect_err("the sync failed");
    assert_eq!(error.kind, WalErrorKind::Io);
    wal.write(&entries(61, 61, 1, 10))
        .expect("the log is not concerned");
}

#[test]
fn a_snapshot_from_a_leader_waits_under_a_temporary_name() {
    let disk = grown();
    let (data_dir, mut wal, _) = open(&disk, SEGMENT).expect("opens");
    let before = disk.files();
    let receive = |wal: &mut Wal<FaultyDisk>| {
        let mut writer = wal.begin_snapshot(&metadata(100, 7)).expect("begun");
        writer.write(b"theirs").expect("written");
        writer.seal().expect("sealed");
        writer
    };
    // If raft does not want the snapshot, no file is left. If it does, the snapshot is complete at once and the log
    // restarts.
    drop(receive(&mut wal));
    assert_eq!(disk.files(), before);
    let received = receive(&mut wal);
    assert!(snapshots(&disk).len() == 2 && disk.files().len() == before.len() + 1);
    disk.fail_sync_after(0);
    received.finish().expect("it was synced before");
    disk.fail_sync_after(u64::MAX);
    wal.compact(&metadata(100, 7)).expect("compacted");
    assert_eq!(wal.last(), position(100, 7));
    let found = wal.snapshots().open(position(100, 7)).expect("opens");
    assert_eq!(read(found), b"theirs");
    drop(data_dir);
    disk.crash();
    let (_home, _, recovered) = must_open(&disk, "after a power cut");
    assert_eq!(
        recovered.snapshot.expect("it").metadata(),
        &metadata(100, 7)
    );
}
