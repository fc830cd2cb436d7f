//! The order of jobs, what shares a sync, and when a batch that did not fit is tried again.

use super::*;
use crate::raft::{Entry, HardState, LogIndex, Membership, Payload, Position, Term};
use crate::wal::{DataDir, FaultyDisk, Options, recover};
use std::path::Path;

/// Records what the jobs report.
#[derive(Default)]
struct Recorder(Vec<Report>);

impl Outlet<FaultyDisk> for Recorder {
    fn send(&mut self, _: Vec<(NodeId, PeerMessage)>) {}

    fn report(&mut self, report: Report) {
        self.0.push(report);
    }

    fn begun(&mut self, _: Begun<FaultyDisk>) {}
}

fn log_jobs(disk: &FaultyDisk) -> LogJobs<FaultyDisk> {
    let data_dir =
        DataDir::open(disk.clone(), Options::new("/data")).expect("the directory is free");
    let (wal, _) = recover(&data_dir).expect("an empty log");
    LogJobs::new(wal, 1 << 20, AllRules)
}

fn save(hard_state: Option<HardState>, index: u64) -> Job {
    let entry = Entry {
        position: Position {
            term: Term(1),
            index: LogIndex(index),
        },
        payload: Payload::Command(vec![7; 100].into()),
    };
    Job::Save {
        batch: Batch {
            hard_state,
            entries: vec![entry],
            ..Batch::default()
        },
        then: Vec::new(),
        reserve: 0,
    }
}

fn vote(term: u64) -> Option<HardState> {
    let vote = Some(NodeId(term));
    let term = Term(term);
    Some(HardState { term, vote })
}

/// A member that forgot a vote could vote again in that term.
#[test]
fn a_snapshot_supersedes_entries_and_not_the_newest_hard_state() {
    let disk = FaultyDisk::new(1);
    let mut jobs = log_jobs(&disk);
    let mut out = Recorder::default();
    for job in [save(vote(2), 1), save(vote(3), 2)] {
        jobs.take(job, true, &mut out).expect("it waits");
    }
    let metadata = SnapshotMetadata {
        position: Position {
            term: Term(1),
            index: LogIndex(50),
        },
        membership: Membership::default(),
    };
    let finish = Box::new(|| Ok(()));
    let done = jobs.install(Installation { metadata, finish }, &mut out);
    done.expect("there is room");
    let [Report::Installed(_), Report::Stored(batches)] = &out.0[..] else {
        panic!(
            "{} reports: the hard state is not stored, or nothing is reported",
            out.0.len()
        )
    };
    let [stored] = &batches[..] else {
        panic!("{batches:?}")
    };
    assert_eq!((stored.hard_state, stored.last), (vote(3), None));
}

#[test]
fn batches_that_wait_share_one_report() {
    let disk = FaultyDisk::new(1);
    let mut jobs = log_jobs(&disk);
    let mut out = Recorder::default();
    let three = [1, 2, 3].map(|index| save(None, index));
    for (at, job) in three.into_iter().enumerate() {
        assert!(out.0.is_empty(), "more jobs wait");
        jobs.take(job, at < 2, &mut out).expect("there is room");
    }
    assert!(matches!(&out.0[..], [Report::Stored(all)] if all.len() == 3));
}

/// Bytes of the disk that [`without_space`] fills. Half of them are reserved.
const ROOM: u64 = 8 << 20;

/// A disk with a batch that does not fit, because of the reserve.
fn without_space(disk: &FaultyDisk, out: &mut Recorder) -> LogJobs<FaultyDisk> {
    let mut jobs = log_jobs(disk);
    let mut index = 0;
    disk.set_capacity(disk.used() + ROOM);
    while !out.0.iter().any(|report| matches!(report, Report::Full)) {
        out.0.clear();
        index += 1;
        let mut job = save(None, index);
        if let Job::Save { batch, reserve, .. } = &mut job {
            batch.entries[0].payload = Payload::Command(vec![7; 400_000].into());
            *reserve = ROOM / 2;
        }
        jobs.take(job, false, out).expect("a full disk is no error");
    }
    out.0.clear();
    jobs
}

#[test]
fn the_log_leaves_the_space_that_is_reserved_for_a_snapshot() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let _jobs = without_space(&disk, &mut out);
    let free = disk.free_bytes(Path::new("/data")).expect("it is known");
    assert!(free >= ROOM / 2, "{free} bytes are left");
}

fn is_stored(out: &Recorder) -> bool {
    matches!(out.0.last(), Some(Report::Stored(_)))
}

#[test]
fn a_batch_that_did_not_fit_is_tried_again_with_the_new_reserve() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let mut jobs = without_space(&disk, &mut out);
    let done = jobs.take(Job::Reserve(0), false, &mut out);
    done.expect("there is room");
    assert!(is_stored(&out) && !jobs.is_waiting());
}

#[test]
fn a_batch_that_did_not_fit_is_tried_again_when_the_log_is_shorter() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let mut jobs = without_space(&disk, &mut out);
    let index = jobs.pending.batches[0].entries[0].position.index.previous();
    let metadata = SnapshotMetadata {
        position: Position {
            term: Term(1),
            index,
        },
        membership: Membership::default(),
    };
    let mut snapshot = jobs.wal.begin_snapshot(&metadata).expect("it is reserved");
    snapshot.seal().expect("it is reserved");
    snapshot.finish().expect("it is reserved");
    let done = jobs.take(Job::Compact(metadata), false, &mut out);
    done.expect("the log is shorter");
    assert!(is_stored(&out) && !jobs.is_waiting());
}

#[test]
fn the_end_of_the_log_includes_the_batches_that_wait() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let mut jobs = log_jobs(&disk);
    jobs.take(save(vote(2), 1), true, &mut out)
        .expect("it waits");
    jobs.close(&mut out).expect("there is room");
    assert!(is_stored(&out));
    let data_dir =
        DataDir::open(disk.clone(), Options::new("/data")).expect("the directory is free");
    let (_, recovered) = recover(&data_dir).expect("a log with a clean end");
    assert_eq!(recovered.log.last, LogIndex(1));
    assert_eq!(Some(recovered.hard_state), vote(2));
}

/// The core asks for entries that it has handed over before.
#[test]
fn the_batches_before_another_job_are_stored_first() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let mut jobs = log_jobs(&disk);
    jobs.take(save(None, 1), true, &mut out).expect("it waits");
    let (from, to) = (LogIndex(1), LogIndex(1));
    let done = jobs.take(Job::Read { from, to }, true, &mut out);
    done.expect("the entry is there");
    let [Report::Stored(_), Report::Read(entries)] = &out.0[..] else {
        panic!("{} reports", out.0.len())
    };
    assert_eq!(entries.len(), 1);
}

/// Only a lack of space is harmless. After another failure, nobody knows what is on disk.
#[test]
fn a_log_that_cannot_be_cut_ends_the_process() {
    let (disk, mut out) = (FaultyDisk::new(1), Recorder::default());
    let mut jobs = log_jobs(&disk);
    jobs.take(save(None, 1), false, &mut out)
        .expect("there is room");
    // The log ends before this snapshot, so it begins anew.
    let metadata = SnapshotMetadata {
        position: Position {
            term: Term(1),
            index: LogIndex(50),
        },
        membership: Membership::default(),
    };
    disk.fail_sync_after(0);
    let done = jobs.take(Job::Compact(metadata), false, &mut out);
    let failed = done.expect_err("a sync failed");
    assert_eq!(failed.kind, WalErrorKind::Io);
}
