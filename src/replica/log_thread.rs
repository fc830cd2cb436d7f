//! The log thread: the only one that writes and syncs the WAL.
//!
//! It takes all batches that wait, writes them, and syncs **once** (group commit). Only then does it let
//! the messages go that are true only once stored, and reports to the raft thread how far the log
//! reaches. So a slow disk delays commits, never heartbeats.
//!
//! | what happens | and so |
//! |---|---|
//! | the disk is full | the log is as before; the batch is tried again until there is space; the engine makes a snapshot, and refuses writes if that makes no room |
//! | a write or sync fails | nobody knows what is on disk: the process ends, naming file and offset |
//! | an entry is asked back | it is read here, so that the raft thread never waits for the disk |

use super::peers::Peers;
use super::snapshot::Begun;
use crate::engine::letter::Letter;
use crate::engine::request::Task;
use crate::engine::{DiskReport as Report, Stored};
use crate::raft::{LogIndex, NodeId, SnapshotMark};
use crate::threads;
use crate::wal::{Batch, Disk, Wal, WalError, WalErrorKind};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// About how much of the log is read back at once.
const READ_BYTES: usize = 256 << 10;

/// What the raft thread asks for. Jobs are done in order.
pub enum Job {
    /// Store the batch, then let the messages go.
    Save {
        /// Synced together with the batches of other jobs that wait.
        batch: Batch,
        /// Sent only after that sync ([`Todo::send_stored`](crate::raft::Todo::send_stored)).
        then: Vec<(NodeId, Letter)>,
        /// Room to keep for the next snapshot ([`Wal::set_reserve`]).
        reserve: u64,
    },
    /// Keep so much room from now on, and try again at once what had none.
    Reserve(u64),
    /// Read entries `[from, to]` back.
    Read {
        /// The first index, at least 1.
        from: LogIndex,
        /// The last index wanted; about 256 KiB are read, the core asks again for the rest.
        to: LogIndex,
    },
    /// Begin a snapshot; the snapshot thread writes it.
    Snapshot(Box<Task>),
    /// The snapshot is durable and the core has let go of the log before it: remove files.
    Compact(SnapshotMark),
    /// A snapshot that another member has sent takes the place of the log.
    Install {
        /// What it stands for.
        mark: SnapshotMark,
        /// Makes it the newest one, durably ([`super::peers::Received::finish`]). Only then is the log cut.
        finish: Box<dyn FnOnce() -> Result<(), WalError> + Send>,
    },
    /// Write the last record, which calls everything before it durable, and end.
    Close,
}

/// What the thread is given.
pub struct Wiring<D: Disk> {
    /// Written and synced by this thread alone.
    pub wal: Wal<D>,
    /// From the raft thread; when its end is gone, this thread ends too.
    pub jobs: Receiver<Job>,
    /// To the raft thread. Unbounded, so that the disk never waits for it.
    pub reports: Sender<Report>,
    /// To the snapshot thread: files begun here, to be filled there.
    pub snapshots: Sender<Begun<D>>,
    /// Gets the messages of a [`Job::Save`] once it is synced.
    pub peers: Arc<dyn Peers>,
}

/// The thread's state: what is pending and whether the disk was full.
pub struct LogThread<D: Disk> {
    wiring: Wiring<D>,
    pending: Pending,
    /// The disk was full when last tried, and the log says so.
    full: bool,
}

/// Batches that are not yet synced, and what may be said once they are.
#[derive(Default)]
struct Pending {
    batches: Vec<Batch>,
    /// So many of them are written.
    written: usize,
    then: Vec<(NodeId, Letter)>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.then.is_empty()
    }

    /// A snapshot takes the place of the log: what a full disk had no room for is in it, or was replaced. The
    /// ballot stays; letters may be lost. A batch without anything stays, too: the raft thread hands over the next one
    /// only when it hears that the one before is stored.
    fn supersede(&mut self) {
        if self.batches.is_empty() {
            return;
        }
        let ballot = self.batches.iter().rev().find_map(|batch| batch.ballot);
        *self = Pending {
            batches: vec![Batch {
                ballot,
                ..Batch::default()
            }],
            ..Pending::default()
        };
    }
}

impl<D: Disk> LogThread<D> {
    /// Takes the WAL over; nothing happens before [`LogThread::run`].
    pub fn new(wiring: Wiring<D>) -> LogThread<D> {
        LogThread {
            wiring,
            pending: Pending::default(),
            full: false,
        }
    }

    /// Waits for jobs until [`Job::Close`], or until the raft thread is gone.
    pub fn run(mut self) {
        loop {
            match self.next_job() {
                Some(Job::Save {
                    batch,
                    then,
                    reserve,
                }) => {
                    self.wiring.wal.set_reserve(reserve);
                    self.pending.batches.push(batch);
                    self.pending.then.extend(then);
                    // More that wait share its sync.
                    if self.wiring.jobs.is_empty() {
                        self.store();
                    }
                }
                Some(Job::Close) => {
                    self.store();
                    return self.close();
                }
                Some(other) => {
                    self.store();
                    self.do_other(other);
                }
                None => return,
            }
        }
    }

    /// `None`: the raft thread is gone. Until there is a job, a full disk is tried again and again.
    fn next_job(&mut self) -> Option<Job> {
        while !self.pending.is_empty() {
            match self.wiring.jobs.recv_timeout(FULL_RETRY) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.store(),
            }
        }
        self.wiring.jobs.recv().ok()
    }

    /// Writes what is pending, with one sync, and tells so. On a full disk it stays pending.
    fn store(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.write() {
            Ok(()) => self.stored(),
            Err(error) if error.kind != WalErrorKind::Full => threads::fatal(&error.to_string()),
            Err(error) => {
                if !std::mem::replace(&mut self.full, true) {
                    log::debug!("{error}");
                }
                self.report(Report::Full);
            }
        }
    }

    fn write(&mut self) -> Result<(), WalError> {
        for batch in &self.pending.batches[self.pending.written..] {
            self.wiring.wal.append(batch)?;
            self.pending.written += 1;
        }
        self.wiring.wal.sync()
    }

    fn stored(&mut self) {
        self.full = false;
        let Pending { batches, then, .. } = std::mem::take(&mut self.pending);
        if !then.is_empty() {
            self.wiring.peers.send(then);
        }
        let stored = batches.iter().map(|batch| Stored {
            ballot: batch.ballot,
            last: batch.entries.last().map(|entry| entry.position),
        });
        self.report(Report::Stored(stored.collect()));
    }

    fn do_other(&mut self, job: Job) {
        match job {
            Job::Save { .. } | Job::Close => unreachable!("the caller does these"),
            Job::Read { from, to } => match self.wiring.wal.reader().read(from, to, READ_BYTES) {
                Ok(entries) => self.report(Report::Read(entries)),
                Err(error) => threads::fatal(&error.to_string()),
            },
            Job::Reserve(bytes) => {
                self.wiring.wal.set_reserve(bytes);
                self.store();
            }
            Job::Snapshot(task) => self.begin_snapshot(*task),
            Job::Compact(mark) => {
                self.soft(|wal| wal.compact(&mark));
                // What had no room may have it now.
                self.store();
            }
            Job::Install { mark, finish } => self.install(&mark, finish),
        }
    }

    /// The raft core goes on from the snapshot, so it must be there: what fails here ends the process, and the
    /// next start finds either the old log or the snapshot.
    fn install(
        &mut self,
        mark: &SnapshotMark,
        finish: Box<dyn FnOnce() -> Result<(), WalError> + Send>,
    ) {
        self.pending.supersede();
        let installed = finish().and_then(|()| self.wiring.wal.compact(mark));
        match installed {
            Ok(()) => self.report(Report::Installed(mark.position)),
            Err(error) => threads::fatal(&error.to_string()),
        }
        self.store();
    }

    fn begin_snapshot(&mut self, task: Task) {
        match self.wiring.wal.begin_snapshot(&task.mark) {
            // The snapshot thread lives as long as this one; if it is gone, the node is stopping.
            Ok(writer) => drop(self.wiring.snapshots.send((writer, task))),
            Err(error) => {
                log::warn!("no snapshot: {error}");
                self.report(Report::NoSnapshot);
            }
        }
    }

    /// Work that may fail for want of space without harm to the log.
    fn soft(&mut self, work: impl FnOnce(&mut Wal<D>) -> Result<(), WalError>) {
        match work(&mut self.wiring.wal) {
            Ok(()) => {}
            Err(error) if error.kind == WalErrorKind::Full => log::warn!("{error}"),
            Err(error) => threads::fatal(&error.to_string()),
        }
    }

    fn close(self) {
        if let Err(error) = self.wiring.wal.close() {
            log::warn!("no clean end of the log: {error}; the next start will read it all");
        }
    }

    /// A raft thread that is gone needs no reports.
    fn report(&self, report: Report) {
        let _ = self.wiring.reports.send(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, Membership, Payload, Position, Term};
    use crate::replica::peers::NoPeers;
    use crate::wal::{Home, LyingDisk, Options, recover};
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

    /// A follower's disk has no room for a batch, and its leader sends a snapshot, which is small and fits. The raft
    /// thread waits to hear of that batch before it hands over the next one.
    #[test]
    fn a_batch_that_a_snapshot_has_superseded_is_reported_stored() {
        let disk = LyingDisk::new(1);
        let options = Options {
            segment_bytes: 64 << 10,
            segment_bytes_max: 64 << 10,
            ..Options::new("/data")
        };
        let home = Home::open(disk.clone(), options).expect("the directory is free");
        let (wal, _) = recover(&home).expect("an empty log");
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
            jobs.send(Job::Save {
                batch,
                then,
                reserve,
            })
            .expect("it runs");
        };
        let report = || reported.recv_timeout(PATIENCE).expect("a report");
        save(entries(1..=2, 10));
        assert!(matches!(report(), Report::Stored(_)));
        let mark = SnapshotMark {
            position: at(50),
            membership: Membership::default(),
        };
        let mut snapshot = snapshots.begin(&mark).expect("there is room");
        snapshot.seal().expect("there is room");
        disk.set_capacity(0);
        save(entries(3..=6, 60_000));
        assert!(matches!(report(), Report::Full));
        let finish = Box::new(move || snapshot.finish());
        jobs.send(Job::Install { mark, finish }).expect("it runs");
        // It is tried again until then, and said each time.
        let next = std::iter::repeat_with(report).find(|report| !matches!(report, Report::Full));
        assert!(matches!(next, Some(Report::Installed(position)) if position == at(50)));
        match report() {
            Report::Stored(batches) => assert!(batches.iter().all(|stored| stored.last.is_none())),
            _ => panic!("the batch that was superseded is not reported"),
        }
        disk.set_capacity(u64::MAX);
        save(entries(51..=52, 10));
        assert!(matches!(report(), Report::Stored(batches) if batches[0].last == Some(at(52))));
        jobs.send(Job::Close).expect("it runs");
        thread.join().expect("it ends well");
    }
}
