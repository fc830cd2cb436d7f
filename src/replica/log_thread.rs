//! The WAL thread: the only thread that writes and syncs the WAL.
//!
//! It waits for jobs, does them ([`storage::jobs`](crate::storage::jobs)), and tries a full disk again at intervals. So a slow disk delays
//! commits, but not heartbeats. A failed write or sync ends the process.

use super::peers::Peers;
use crate::engine::DiskReport;
use crate::engine::peer_message::PeerMessage;
use crate::raft::{AllRules, NodeId};
use crate::storage::jobs::{Job, LogJobs, Outlet};
use crate::storage::snapshot::Begun;
use crate::threads;
use crate::wal::{Disk, Wal, WalError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

/// Interval between attempts on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Approximate bytes of the log per read.
const READ_BYTES: usize = 256 << 10;

/// The thread's inputs and outputs.
pub struct Wiring<D: Disk> {
    /// Only this thread writes and syncs it.
    pub wal: Wal<D>,
    /// From the raft thread. This thread ends when the sender is dropped.
    pub jobs: Receiver<LogInput>,
    /// Reports to the raft thread. Unbounded, so that the disk never waits for that thread.
    pub reports: Sender<DiskReport>,
    /// Snapshot files begun here, which the snapshot thread fills.
    pub snapshots: Sender<Begun<D>>,
    /// Sends the messages of a [`Job::Save`] after its sync.
    pub peers: Arc<dyn Peers>,
}

/// What the raft thread hands to this thread.
pub enum LogInput {
    /// Jobs are done in order.
    Job(Job),
    /// Write the last record, which declares everything before it durable, and end.
    Close,
}

/// The thread's state.
pub struct LogThread<D: Disk> {
    log: LogJobs<D>,
    jobs: Receiver<LogInput>,
    out: Out<D>,
}

/// The channels to the other threads.
struct Out<D: Disk> {
    reports: Sender<DiskReport>,
    snapshots: Sender<Begun<D>>,
    peers: Arc<dyn Peers>,
}

impl<D: Disk> Outlet<D> for Out<D> {
    fn send(&mut self, messages: Vec<(NodeId, PeerMessage)>) {
        self.peers.send(messages);
    }

    /// If the raft thread has ended, nobody needs the reports.
    fn report(&mut self, report: DiskReport) {
        let _ = self.reports.send(report);
    }

    /// The snapshot thread runs as long as this one. If it has ended, the node is stopping.
    fn begun(&mut self, begun: Begun<D>) {
        let _ = self.snapshots.send(begun);
    }
}

impl<D: Disk> LogThread<D> {
    /// Takes ownership of the WAL. Nothing happens before [`LogThread::run`].
    pub fn new(wiring: Wiring<D>) -> LogThread<D> {
        LogThread {
            log: LogJobs::new(wiring.wal, READ_BYTES, AllRules),
            jobs: wiring.jobs,
            out: Out {
                reports: wiring.reports,
                snapshots: wiring.snapshots,
                peers: wiring.peers,
            },
        }
    }

    /// Does jobs until [`LogInput::Close`], or until the raft thread has ended.
    pub fn run(mut self) {
        while let Some(input) = self.next() {
            match input {
                LogInput::Job(job) => {
                    or_end(self.log.take(job, !self.jobs.is_empty(), &mut self.out));
                }
                LogInput::Close => return or_end(self.log.close(&mut self.out)),
            }
        }
    }

    /// Waits for a job; meanwhile tries a full disk again. `None` if the raft thread has ended.
    fn next(&mut self) -> Option<LogInput> {
        while self.log.is_waiting() {
            match self.jobs.recv_timeout(FULL_RETRY) {
                Ok(input) => return Some(input),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => or_end(self.log.store(&mut self.out)),
            }
        }
        self.jobs.recv().ok()
    }
}

/// After a failed write nobody knows what is on disk, so the process ends.
fn or_end(done: Result<(), WalError>) {
    if let Err(error) = done {
        threads::fatal(&error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DiskReport as Report;
    use crate::raft::{Entry, LogIndex, Membership, Payload, Position, SnapshotMetadata, Term};
    use crate::replica::peers::NoPeers;
    use crate::storage::jobs::Installation;
    use crate::wal::{Batch, DataDir, FaultyDisk, Options, recover};
    use crossbeam_channel::unbounded;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(index: u64) -> Position {
        Position {
            term: Term(1),
            index: LogIndex(index),
        }
    }

    fn entries(indexes: std::ops::RangeInclusive<u64>, bytes: usize) -> Batch {
        let entry = |index| Entry {
            position: at(index),
            payload: Payload::Command(Arc::from(vec![7; bytes])),
        };
        Batch {
            entries: indexes.map(entry).collect(),
            ..Batch::default()
        }
    }

    /// A follower's disk has no space for a batch. Its leader sends a snapshot, which is smaller and fits. The raft
    /// thread waits for the report about that batch before it hands over the next one.
    #[test]
    fn a_batch_that_a_snapshot_has_superseded_is_reported_stored() {
        let disk = FaultyDisk::new(1);
        let options = Options {
            segment_bytes: 64 << 10,
            segment_bytes_max: 64 << 10,
            ..Options::new("/data")
        };
        let data_dir = DataDir::open(disk.clone(), options).expect("the directory is free");
        let (wal, _) = recover(&data_dir).expect("an empty log");
        let snapshots = wal.snapshots();
        let (jobs, to_do) = unbounded();
        let (reports, reported) = unbounded();
        let thread = LogThread::new(Wiring {
            wal,
            jobs: to_do,
            reports,
            snapshots: unbounded().0,
            peers: Arc::new(NoPeers),
        });
        let thread = std::thread::spawn(move || thread.run());
        let save = |batch| {
            let then = Vec::new();
            let reserve = 0;
            let job = Job::Save {
                batch,
                then,
                reserve,
            };
            jobs.send(LogInput::Job(job)).expect("it runs");
        };
        let report = || {
            let next = reported.recv_timeout(PATIENCE);
            next.expect(
                "a report about each batch: without one, the raft thread hands over no more",
            )
        };
        save(entries(1..=2, 10));
        assert!(matches!(report(), Report::Stored(_)));
        let metadata = SnapshotMetadata {
            position: at(50),
            membership: Membership::default(),
        };
        let mut snapshot = snapshots.begin(&metadata).expect("there is room");
        snapshot.seal().expect("there is room");
        disk.set_capacity(0);
        save(entries(3..=6, 60_000));
        for attempt in 1..=3 {
            assert!(matches!(report(), Report::Full), "attempt {attempt}");
        }
        let finish = Box::new(move || snapshot.finish());
        let install = Job::Install(Installation { metadata, finish });
        jobs.send(LogInput::Job(install)).expect("it runs");
        // Until then the batch is tried again, and each attempt is reported.
        let next = std::iter::repeat_with(report).find(|report| !matches!(report, Report::Full));
        assert!(matches!(next, Some(Report::Installed(position)) if position == at(50)));
        match report() {
            Report::Stored(batches) => assert!(batches.iter().all(|stored| stored.last.is_none())),
            _ => panic!("the batch that was superseded is not reported"),
        }
        disk.set_capacity(u64::MAX);
        save(entries(51..=52, 10));
        assert!(matches!(report(), Report::Stored(batches) if batches[0].last == Some(at(52))));
        jobs.send(LogInput::Close).expect("it runs");
        thread.join().expect("it ends well");
    }
}
