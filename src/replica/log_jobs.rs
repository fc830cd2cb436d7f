//! What the WAL thread does with each job, without the thread.
//!
//! [`LogJobs`] takes the jobs in order, writes batches, and syncs **once** for all that wait (group commit). Only then
//! does it let the messages go that are true only once stored, and reports how far the log reaches. The WAL thread
//! ([`super::log_thread`]) feeds it from a channel, the simulator from its queue of events. What comes of a job goes to
//! an [`Outlet`], at once and in order.
//!
//! | what happens | and so |
//! |---|---|
//! | the disk is full | the log is as before; the batch stays pending and is tried again; the engine makes a snapshot, and refuses writes if that makes no room |
//! | a write or sync fails | nobody knows what is on disk: the caller ends the process, naming file and offset |
//! | an entry is asked back | it is read here, so that the raft thread never waits for the disk |

use super::snapshot::Begun;
use crate::engine::letter::Letter;
use crate::engine::request::Task;
use crate::engine::rules::{Rule, Rules};
use crate::engine::{DiskReport as Report, Stored};
use crate::raft::{AllRules, LogIndex, NodeId, SnapshotMark};
use crate::wal::{Batch, Disk, Wal, WalError, WalErrorKind};

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
        /// The last index wanted; the core asks again for what is not read at once.
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

/// Who takes what comes of the jobs.
pub trait Outlet<D: Disk> {
    /// Messages that may leave.
    fn send(&mut self, letters: Vec<(NodeId, Letter)>);

    /// For the engine.
    fn report(&mut self, report: Report);

    /// A snapshot was begun: its file is to be filled.
    fn begun(&mut self, begun: Begun<D>);

    /// Everything in these batches is on disk, in this order.
    fn batches_synced(&mut self, _batches: &[Batch]) {}

    /// The snapshot has taken the log's place.
    fn snapshot_installed(&mut self, _mark: &SnapshotMark) {}
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

/// The WAL with the jobs that are under way.
pub struct LogJobs<D: Disk, R: Rules = AllRules> {
    rules: R,
    wal: Wal<D>,
    pending: Pending,
    /// The disk was full when last tried, and the log says so.
    full: bool,
    /// About how many bytes of entries are read back at once.
    read_bytes: usize,
}

impl<D: Disk, R: Rules> LogJobs<D, R> {
    /// Nothing is pending yet.
    pub fn new(wal: Wal<D>, read_bytes: usize, rules: R) -> LogJobs<D, R> {
        LogJobs {
            rules,
            wal,
            pending: Pending::default(),
            full: false,
            read_bytes,
        }
    }

    /// The log that it writes.
    pub fn wal(&self) -> &Wal<D> {
        &self.wal
    }

    /// Whether something waits for a sync: a full disk is to be tried again.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Does one job that is not [`Job::Close`]. Batches are kept for a common sync while `more_jobs` wait.
    ///
    /// # Errors
    /// The process must end: nobody knows what is on disk.
    pub fn take(
        &mut self,
        job: Job,
        more_jobs: bool,
        outlet: &mut impl Outlet<D>,
    ) -> Result<(), WalError> {
        if let Job::Save {
            batch,
            then,
            reserve,
        } = job
        {
            self.wal.set_reserve(reserve);
            self.pending.batches.push(batch);
            self.pending.then.extend(then);
            return match more_jobs {
                true => Ok(()),
                false => self.store(outlet),
            };
        }
        self.store(outlet)?;
        self.do_other(job, outlet)
    }

    /// Writes what is pending and the last record, which calls everything before it durable.
    ///
    /// # Errors
    /// As [`LogJobs::take`], from what is pending.
    pub fn close(mut self, outlet: &mut impl Outlet<D>) -> Result<(), WalError> {
        self.store(outlet)?;
        if let Err(error) = self.wal.close() {
            log::warn!("no clean end of the log: {error}; the next start will read it all");
        }
        Ok(())
    }

    /// Writes what is pending, with one sync, and tells so. On a full disk it stays pending.
    ///
    /// # Errors
    /// As [`LogJobs::take`].
    pub fn store(&mut self, outlet: &mut impl Outlet<D>) -> Result<(), WalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.rules.keeps(Rule::SyncBeforeSend) {
            outlet.send(std::mem::take(&mut self.pending.then));
        }
        if !self.rules.keeps(Rule::SyncBeforeReport) {
            outlet.report(Report::Stored(
                self.pending.batches.iter().map(stored).collect(),
            ));
        }
        match self.write() {
            Ok(()) => {
                self.stored(outlet);
                Ok(())
            }
            Err(error) if error.kind != WalErrorKind::Full => Err(error),
            Err(error) => {
                if !std::mem::replace(&mut self.full, true) {
                    log::debug!("{error}");
                }
                outlet.report(Report::Full);
                Ok(())
            }
        }
    }

    fn write(&mut self) -> Result<(), WalError> {
        for batch in &self.pending.batches[self.pending.written..] {
            self.wal.append(batch)?;
            self.pending.written += 1;
        }
        let has_entries = |batch: &Batch| !batch.entries.is_empty();
        if !self.pending.batches.iter().any(has_entries) && !self.rules.keeps(Rule::BallotIsSynced)
        {
            return Ok(());
        }
        match self.wal.sync() {
            Err(error)
                if error.kind == WalErrorKind::Io && !self.rules.keeps(Rule::FailedSyncIsFinal) =>
            {
                Ok(())
            }
            synced => synced,
        }
    }

    fn stored(&mut self, outlet: &mut impl Outlet<D>) {
        self.full = false;
        let Pending { batches, then, .. } = std::mem::take(&mut self.pending);
        outlet.batches_synced(&batches);
        if !then.is_empty() {
            outlet.send(then);
        }
        if self.rules.keeps(Rule::SyncBeforeReport) {
            outlet.report(Report::Stored(batches.iter().map(stored).collect()));
        }
    }

    fn do_other(&mut self, job: Job, outlet: &mut impl Outlet<D>) -> Result<(), WalError> {
        match job {
            Job::Save { .. } | Job::Close => unreachable!("the caller does these"),
            Job::Read { from, to } => {
                let entries = self.wal.reader().read(from, to, self.read_bytes)?;
                outlet.report(Report::Read(entries));
                Ok(())
            }
            Job::Reserve(bytes) => {
                self.wal.set_reserve(bytes);
                self.store(outlet)
            }
            Job::Snapshot(task) => {
                self.begin_snapshot(*task, outlet);
                Ok(())
            }
            Job::Compact(mark) => {
                match self.wal.compact(&mark) {
                    // Work that may fail for want of space without harm to the log.
                    Err(error) if error.kind == WalErrorKind::Full => log::warn!("{error}"),
                    compacted => compacted?,
                }
                // What had no room may have it now.
                self.store(outlet)
            }
            Job::Install { mark, finish } => self.install(&mark, finish, outlet),
        }
    }

    /// The raft core goes on from the snapshot, so it must be there: what fails here ends the process, and the
    /// next start finds either the old log or the snapshot.
    fn install(
        &mut self,
        mark: &SnapshotMark,
        finish: Box<dyn FnOnce() -> Result<(), WalError> + Send>,
        outlet: &mut impl Outlet<D>,
    ) -> Result<(), WalError> {
        self.pending.supersede();
        let report = Report::Installed(mark.position);
        if !self.rules.keeps(Rule::InstallBeforeReport) {
            outlet.report(report);
            finish()?;
            self.wal.compact(mark)?;
            outlet.snapshot_installed(mark);
            return self.store(outlet);
        }
        if !self.rules.keeps(Rule::SnapshotBeforeCut) {
            self.wal.compact(mark)?;
            finish()?;
        } else {
            finish()?;
            self.wal.compact(mark)?;
        }
        outlet.snapshot_installed(mark);
        outlet.report(report);
        self.store(outlet)
    }

    fn begin_snapshot(&mut self, task: Task, outlet: &mut impl Outlet<D>) {
        match self.wal.begin_snapshot(&task.mark) {
            Ok(writer) => outlet.begun((writer, task)),
            Err(error) => {
                log::warn!("no snapshot: {error}");
                outlet.report(Report::NoSnapshot);
            }
        }
    }
}

fn stored(batch: &Batch) -> Stored {
    Stored {
        ballot: batch.ballot,
        last: batch.entries.last().map(|entry| entry.position),
    }
}
