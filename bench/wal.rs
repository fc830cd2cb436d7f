//! Measures the cost of a commit: `cargo bench --bench wal [-- FOLDER]`, on the disk of FOLDER.
//!
//! Tests both ways of writing a segment: first single small records, then batches as 64 writers make them, then
//! single records again (a burst must not leave large pages behind), and then restarts. Exits with status 1 if a
//! single small record makes the disk write more than 8 KiB.

use edgetcd::raft::{Entry, LogIndex, Payload, Position, Term};
use edgetcd::wal::{Batch, DataDir, Options, RealDisk, Wal, WritePath, recover};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SINGLE_BYTES_MAX: u64 = 8192;

/// Bytes that this thread has written to the disk; 0 if the system does not report them.
fn written() -> u64 {
    let about = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    let line = about
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn batch(wal: &Wal<RealDisk>, count: u64, bytes: usize) -> Batch {
    let next = wal.last().index.0 + 1;
    let payload = Payload::Command(vec![7; bytes].into());
    let entries = (next..next + count).map(|index| Entry {
        position: Position {
            term: Term(1),
            index: LogIndex(index),
        },
        payload: payload.clone(),
    });
    Batch {
        entries: entries.collect(),
        ..Batch::default()
    }
}

fn open(dir: &Path, disk: RealDisk) -> Wal<RealDisk> {
    let options = Options {
        max_wals: 0,
        ..Options::new(dir)
    };
    let data_dir = DataDir::open(disk, options).expect("the folder can be used");
    recover(&data_dir).expect("the log can be opened").0
}

/// Writes `rounds` batches and prints the cost of one. Returns the bytes written per batch.
fn run(wal: &mut Wal<RealDisk>, what: &str, rounds: u32, count: u64, bytes: usize) -> u64 {
    let (mut syncs, mut appending, mut syncing) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let before = written();
    for _ in 0..rounds {
        let batch = batch(wal, count, bytes);
        let begin = cpu();
        wal.append(&batch).expect("appended");
        let (appended, sync) = (cpu(), Instant::now());
        wal.sync().expect("synced");
        syncs.push(sync.elapsed());
        appending += appended - begin;
        syncing += cpu() - appended;
    }
    let each = (written() - before) / u64::from(rounds);
    syncs.sort();
    let at = |part: usize| syncs[syncs.len() * part / 100].as_micros();
    let append_ns = appending.as_nanos() / u128::from(rounds) / u128::from(count);
    let sync_us = syncing.as_micros() / u128::from(rounds);
    println!(
        "  {what:<34} sync p50 {:>5} µs  p99 {:>6} µs  {each:>6} bytes  CPU: sync {sync_us:>4} µs, append {append_ns:>5} ns an entry",
        at(50),
        at(99)
    );
    each
}

fn restart(dir: &Path, disk: RealDisk, what: &str) {
    let begin = Instant::now();
    let wal = open(dir, disk);
    let took = begin.elapsed();
    println!(
        "  {what:<34} {:.1} ms, {} entries",
        took.as_secs_f64() * 1e3,
        wal.last().index.0
    );
}

fn main() {
    // cargo adds its own flags.
    let folder = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let parent = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let mut worst = 0;
    let ways = [
        (WritePath::Mapped, true),
        (WritePath::Written, true),
        (WritePath::Mapped, false),
        (WritePath::Written, false),
    ];
    for (write_path, zero_ahead) in ways {
        let disk = RealDisk {
            write_path,
            zero_ahead,
            ..RealDisk::default()
        };
        println!("{disk:?}");
        let dir = tempfile::tempdir_in(&parent).expect("a folder for the log");
        let mut wal = open(dir.path(), disk);
        let mut single = vec![run(&mut wal, "one record of 100 bytes", 1000, 1, 100)];
        run(&mut wal, "60 records of 100 bytes", 1000, 60, 100);
        run(&mut wal, "200 records of 1000 bytes", 100, 200, 1000);
        single.push(run(
            &mut wal,
            "one record of 100 bytes, after that",
            1000,
            1,
            100,
        ));
        worst = worst.max(single.into_iter().max().unwrap_or(0));
        let stats = wal.stats().clone();
        drop(wal);
        println!("  {stats:?}");
        restart(dir.path(), disk, "restart");
        let mut wal = open(dir.path(), disk);
        let one = batch(&wal, 10_000, 100);
        while wal.last().index.0 < 600_000 {
            let mut batch = one.clone();
            let next = wal.last().index.0 + 1;
            batch
                .entries
                .iter_mut()
                .zip(next..)
                .for_each(|(entry, index)| entry.position.index = LogIndex(index));
            wal.write(&batch).expect("written");
        }
        drop(wal);
        restart(dir.path(), disk, "restart with 64 MiB of log");
        let small = tempfile::tempdir_in(&parent).expect("a folder for the log");
        restart(small.path(), disk, "first start");
        restart(small.path(), disk, "restart of an empty node");
    }
    if worst > SINGLE_BYTES_MAX {
        println!("FAILED: a single small record made the disk write {worst} bytes");
        std::process::exit(1);
    }
}
