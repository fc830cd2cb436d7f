//! The WAL on the machine's own disk.

use crate::process::{Holder, child};
use crate::support::{entries, hard_state, read_all};
use edgetcd::raft::LogIndex;
use edgetcd::wal::{DataDir, Options, RealDisk, Recovered, Wal, WalErrorKind, WritePath, recover};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const CRASH: &str = "EDGETCD_TEST_CRASH";

type Opened = (DataDir<RealDisk>, Wal<RealDisk>, Recovered<RealDisk>);

fn open(dir: &Path, write_path: WritePath) -> Opened {
    let options = Options {
        max_wals: 0,
        ..Options::new(dir)
    };
    let data_dir = DataDir::open(
        RealDisk {
            write_path,
            ..RealDisk::default()
        },
        options,
    )
    .expect("the directory");
    let (wal, recovered) = recover(&data_dir).expect("recovers");
    (data_dir, wal, recovered)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Waits until the background thread has created the next segment, so that it does not disturb the test.
fn wait_for_spare(dir: &Path, segments: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let count = || {
        files(dir)
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "wal"))
            .count()
    };
    while count() < segments {
        assert!(
            Instant::now() < deadline,
            "no segment was made ready: {:?}",
            files(dir)
        );
        std::thread::yield_now();
    }
}

/// The log, its readers and its snapshots can move to other threads.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Wal<RealDisk>>();
    is_send::<edgetcd::wal::LogReader<RealDisk>>();
    is_send::<edgetcd::wal::Snapshots<RealDisk>>();
    is_send::<edgetcd::wal::SnapshotWriter<RealDisk>>();
    is_send::<edgetcd::wal::SnapshotReader<RealDisk>>();
};

#[test]
fn both_write_paths_keep_what_they_are_given() {
    for write_path in [WritePath::Mapped, WritePath::Written] {
        let dir = tempfile::tempdir().expect("a folder");
        let (data_dir, mut wal, _) = open(dir.path(), write_path);
        wal.write(&hard_state(3, 2)).expect("written");
        for from in (1..=3000).step_by(50) {
            wal.write(&entries(from, from + 49, 3, 900))
                .expect("written");
        }
        wal.write(&entries(3001, 3001, 3, 3 << 20))
            .expect("one larger than a segment");
        wal.write(&entries(2990, 3010, 4, 10))
            .expect("in place of others");
        let stats = wal.stats().clone();
        assert!(stats.rolls.load(Relaxed) >= 3, "{stats:?}");
        assert!(stats.syncs.read().count() >= 63, "{stats:?}");
        let (synced, written) = (
            stats.synced_bytes.load(Relaxed),
            stats.bytes_written.load(Relaxed),
        );
        assert!(synced >= written, "{stats:?}");
        let mut all = entries(1, 2989, 3, 900).entries;
        all.extend(entries(2990, 3010, 4, 10).entries);
        let read = wal
            .reader()
            .read(LogIndex(1), LogIndex(3010), usize::MAX)
            .expect("read");
        assert_eq!(read, all);
        drop((data_dir, wal));
        let (_home, wal, recovered) = open(dir.path(), write_path);
        assert_eq!(
            recovered.hard_state,
            hard_state(3, 2).hard_state.expect("a hard state")
        );
        assert_eq!(read_all(&wal, &recovered), all);
        assert_eq!(recovered.warnings, Vec::<String>::new());
    }
}

#[test]
fn readers_read_while_the_log_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_home, mut wal, _) = open(dir.path(), WritePath::Mapped);
    let (reader, total) = (wal.reader(), 4000);
    let reading = std::thread::spawn(move || {
        let mut next = 1;
        while next <= total {
            let some = reader
                .read(LogIndex(next), LogIndex(total), 100_000)
                .expect("read");
            let end = next + some.len() as u64;
            assert!(next == end || some == entries(next, end - 1, 1, 700).entries);
            next = end;
        }
    });
    for from in (1..=total).step_by(40) {
        wal.append(&entries(from, from + 39, 1, 700))
            .expect("appended");
    }
    wal.sync().expect("synced");
    reading.join().expect("all was read");
}

#[test]
fn an_empty_directory_is_small_and_private() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("new/data");
    let (_home, _wal, _) = open(&data, WritePath::Mapped);
    wait_for_spare(&data, 2);
    let bytes: u64 = files(&data)
        .iter()
        .map(|path| path.metadata().expect("it is there").blocks() * 512)
        .sum();
    assert!(
        (2 << 20..4 << 20).contains(&bytes),
        "{bytes} bytes, all of them allocated"
    );
    for made in [
        "new",
        "new/data",
        "new/data/member",
        "new/data/member/wal",
        "new/data/member/snap",
    ] {
        let mode = dir
            .path()
            .join(made)
            .metadata()
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
}

/// Bytes that this thread has given to the disk, as counted by the kernel.
fn written() -> Option<u64> {
    let about = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = about
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.parse().ok()
}

#[test]
#[ignore = "needs target/ on a disk: a tmpfs counts no written bytes"]
fn a_small_record_writes_one_page_also_after_a_burst() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (_home, mut wal, _) = open(dir.path(), WritePath::Mapped);
    wait_for_spare(dir.path(), 2);
    let first = written_by_single_records(&mut wal);
    for _ in 0..40 {
        let next = wal.last().index.0 + 1;
        wal.write(&entries(next, next + 63, 1, 300))
            .expect("written");
    }
    let after = written_by_single_records(&mut wal);
    println!("bytes written for one record: {first:?}, after a burst {after:?}");
    for bytes in [first, after] {
        assert!(
            (4096..=8192).contains(&bytes.unwrap_or(0)),
            "{first:?}, after a burst {after:?}"
        );
    }
}

/// Average bytes for one commit of one record of 100 bytes.
fn written_by_single_records(wal: &mut Wal<RealDisk>) -> Option<u64> {
    let before = written()?;
    for _ in 0..50 {
        let next = wal.last().index.0 + 1;
        wal.write(&entries(next, next, 1, 100)).expect("written");
    }
    Some((written()? - before) / 50)
}

/// Runs in the child of the next test: writes entries and prints the acknowledged index, until it is ended.
fn write_until_killed(dir: OsString) {
    let (_home, mut wal, recovered) = open(Path::new(&dir), WritePath::Mapped);
    let mut out = std::io::stdout();
    let mut next = recovered.log.last.0 + 1;
    loop {
        let to = next + next % 7;
        wal.write(&entries(next, to, 1, 500)).expect("written");
        if writeln!(out, "\nstored {to}")
            .and_then(|()| out.flush())
            .is_err()
        {
            return; // the parent has ended
        }
        next = to + 1;
    }
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    if let Some(dir) = std::env::var_os(CRASH) {
        return write_until_killed(dir);
    }
    let this = "real::killed_at_any_moment_it_keeps_what_it_acknowledged";
    let dir = tempfile::tempdir().expect("a folder");
    let mut acknowledged = 0;
    for round in 1..=5 {
        let mut child: Holder = child(this, CRASH, dir.path());
        let mut stored = BufReader::new(child.0.stdout.take().expect("its output"))
            .lines()
            .filter_map(|line| {
                line.expect("text")
                    .strip_prefix("stored ")?
                    .parse::<u64>()
                    .ok()
            });
        // Far enough that the log continues in another segment in each round.
        let until = acknowledged + round * 400;
        acknowledged = stored.find(|stored| *stored > until).expect("it writes");
        child.0.kill().expect("killed");
        acknowledged = stored.last().unwrap_or(acknowledged);
        drop(child);
        let (_home, wal, recovered) = open(dir.path(), WritePath::Mapped);
        let found = read_all(&wal, &recovered);
        assert!(
            found.len() as u64 >= acknowledged,
            "{} of {acknowledged}",
            found.len()
        );
        assert_eq!(found, entries(1, found.len() as u64, 1, 500).entries);
    }
}

#[test]
fn a_file_cut_short_under_the_log_is_refused_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let (data_dir, mut wal, _) = open(dir.path(), WritePath::Mapped);
    wal.write(&entries(1, 10, 1, 100)).expect("written");
    wal.close().expect("closed");
    drop(data_dir);
    let all = files(dir.path());
    let first = all
        .iter()
        .find(|path| path.to_string_lossy().contains("/wal/0000000000000000-"));
    let first = first.expect("the first segment");
    std::fs::OpenOptions::new()
        .write(true)
        .open(first)
        .expect("open")
        .set_len(8192)
        .expect("cut");
    let data_dir =
        DataDir::open(RealDisk::default(), Options::new(dir.path())).expect("the directory");
    let error = recover(&data_dir).map(|_| ()).expect_err("refused");
    assert_eq!(
        (error.kind, &error.path),
        (WalErrorKind::Damaged, first),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("8192 bytes, but was created with 1048576"),
        "{error}"
    );
}
