//! How the WAL thread does each job, as a value without the thread.
//!
//! [`LogJobs`] does the jobs in order, writes batches, and syncs **once** for all waiting batches (group commit). Only
//! after that, it sends the messages that are true only when stored, and reports the stored position. The WAL thread
//! (`replica::log_thread`) passes it jobs from a channel, the simulator from its event queue. The results of a job are
//! passed to an [`Outlet`], immediately and in order.
//!
//! | event | result |
//! |---|---|
//! | the disk is full | the log is unchanged. The batch stays pending and is tried again. The engine makes a snapshot, and refuses writes if that frees no space |
//! | a write or sync fails | the content of the disk is unknown. The caller ends the process, and the error names file and offset |
//! | entries are requested | they are read here, so that the raft thread never waits for the disk |

use super::snapshot::Begun;
use crate::engine::peer_message::PeerMessage;
use crate::engine::request::Task;
use crate::engine::rules::{Rule, Rules};
use crate::engine::{DiskJob, DiskReport as Report, Stored};
use crate::raft::{AllRules, NodeId, SnapshotMetadata};
use crate::wal::{Batch, Clock, Disk, Wal, WalError, WalErrorKind};

/// A job of the engine, with what it needs on this machine.
pub type Job = DiskJob<Batch, Installation>;

/// Replaces the log by a snapshot that another member has sent.
pub struct Installation {
    /// The snapshot's metadata.
    pub metadata: SnapshotMetadata,
    /// Makes it the newest snapshot and syncs (`replica::peers::Received::finish`). Only after that, the log is
    /// deleted.
    pub finish: Finish,
}

/// Makes a received snapshot the newest one.
pub type Finish = Box<dyn FnOnce() -> Result<(), WalError> + Send>;

/// Adds to a job of the engine the id of this boot, and for an installation how to finish the received snapshot.
pub fn job(job: DiskJob, boot_id: [u8; 16], finish: impl FnOnce() -> Finish) -> Job {
    match job {
        DiskJob::Save {
            batch,
            then,
            reserve,
        } => {
            let clock = batch.noted.map(|(cluster, since_boot)| Clock {
                boot_id,
                boottime_ns: since_boot.0,
                cluster_ns: cluster.0,
            });
            let batch = Batch {
                hard_state: batch.hard_state,
                entries: batch.entries,
                clock,
            };
            Job::Save {
                batch,
                then,
                reserve,
            }
        }
        DiskJob::Reserve(bytes) => Job::Reserve(bytes),
        DiskJob::Read { from, to } => Job::Read { from, to },
        DiskJob::Snapshot(task) => Job::Snapshot(task),
        DiskJob::Compact(metadata) => Job::Compact(metadata),
        DiskJob::Install(metadata) => {
            let finish = finish();
            Job::Install(Installation { metadata, finish })
        }
    }
}

/// Receives the results of the jobs.
pub trait Outlet<D: Disk> {
    /// Messages that may be sent.
    fn send(&mut self, messages: Vec<(NodeId, PeerMessage)>);

    /// A report for the engine.
    fn report(&mut self, report: Report);

    /// A snapshot was begun: its file must be filled.
    fn begun(&mut self, begun: Begun<D>);

    /// Everything in these batches is on disk, in this order.
    fn batches_synced(&mut self, _batches: &[Batch]) {}

    /// The snapshot has replaced the log.
    fn snapshot_installed(&mut self, _metadata: &SnapshotMetadata) {}
}

/// Batches that are not synced yet, and the messages that wait for them.
#[derive(Default)]
struct Pending {
    batches: Vec<Batch>,
    /// Number of batches that are written.
    written: usize,
    then: Vec<(NodeId, PeerMessage)>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.then.is_empty()
    }

    /// A snapshot replaces the log: the entries that did not fit on a full disk are part of it, or were replaced. The
    /// hard state stays; messages may be lost. An empty batch stays too, because the raft thread hands over the next
    /// batch only after the report that the previous one is stored.
    fn supersede(&mut self, is_reported: bool) {
        if self.batches.is_empty() {
            return;
        }
        let hard_state = self.batches.iter().rev().find_map(|batch| batch.hard_state);
        let rest = Batch {
            hard_state,
            ..Batch::default()
        };
        *self = Pending {
            batches: vec![rest; usize::from(is_reported || hard_state.is_some())],
            ..Pending::default()
        };
    }
}

/// The WAL with its jobs in progress.
pub struct LogJobs<D: Disk, R: Rules = AllRules> {
    rules: R,
    wal: Wal<D>,
    pending: Pending,
    /// Whether the disk was full at the last attempt. This is logged once.
    full: bool,
    /// Approximate bytes of entries per read.
    read_bytes: usize,
}

impl<D: Disk, R: Rules> LogJobs<D, R> {
    /// Starts without pending batches.
    pub fn new(wal: Wal<D>, read_bytes: usize, rules: R) -> LogJobs<D, R> {
        LogJobs {
            rules,
            wal,
            pending: Pending::default(),
            full: false,
            read_bytes,
        }
    }

    /// The WAL.
    pub fn wal(&self) -> &Wal<D> {
        &self.wal
    }

    /// Whether a batch waits for a sync, so that a full disk must be tried again.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Does one job. While `more_jobs` are waiting, batches are collected for a common sync.
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

    /// Writes the pending batches and the last record, which declares everything before it durable.
    ///
    /// # Errors
    /// Like [`LogJobs::take`], for the pending batches.
    pub fn close(mut self, outlet: &mut impl Outlet<D>) -> Result<(), WalError> {
        self.store(outlet)?;
        if let Err(error) = self.wal.close() {
            log::warn!(
                "cannot write the clean end of the log: {error}; the next start takes longer, because it reads \
                 the log again"
            );
        }
        Ok(())
    }

    /// Writes the pending batches with one sync, and reports them. On a full disk they stay pending.
    ///
    /// # Errors
    /// Like [`LogJobs::take`].
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
        if !self.pending.batches.iter().any(has_entries)
            && !self.rules.keeps(Rule::HardStateIsSynced)
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
            Job::Save { .. } => unreachable!("the caller does these"),
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
            Job::Compact(metadata) => {
                match self.wal.compact(&metadata) {
                    // This work may fail for lack of space without harm to the log.
                    Err(error) if error.kind == WalErrorKind::Full => log::warn!("{error}"),
                    compacted => compacted?,
                }
                // The pending batches may fit now.
                self.store(outlet)
            }
            Job::Install(installation) => self.install(installation, outlet),
        }
    }

    /// The raft core continues from the snapshot, so the snapshot must be on disk. A failure here ends the process. The
    /// next start finds either the old log or the snapshot.
    fn install(
        &mut self,
        Installation { metadata, finish }: Installation,
        outlet: &mut impl Outlet<D>,
    ) -> Result<(), WalError> {
        let is_reported = self.rules.keeps(Rule::SupersededIsReported);
        self.pending.supersede(is_reported);
        let report = Report::Installed(metadata.position);
        if !self.rules.keeps(Rule::InstallBeforeReport) {
            outlet.report(report);
            finish()?;
            self.wal.compact(&metadata)?;
            outlet.snapshot_installed(&metadata);
            return self.store(outlet);
        }
        if !self.rules.keeps(Rule::SnapshotBeforeCut) {
            self.wal.compact(&metadata)?;
            finish()?;
        } else {
            finish()?;
            self.wal.compact(&metadata)?;
        }
        outlet.snapshot_installed(&metadata);
        outlet.report(report);
        self.store(outlet)
    }

    fn begin_snapshot(&mut self, task: Task, outlet: &mut impl Outlet<D>) {
        match self.wal.begin_snapshot(&task.metadata) {
            Ok(writer) => outlet.begun((writer, task)),
            Err(error) => {
                log::warn!("cannot make a snapshot: {error}");
                outlet.report(Report::NoSnapshot);
            }
        }
    }
}

/// What the report about a stored batch says.
pub(crate) fn stored(batch: &Batch) -> Stored {
    Stored {
        hard_state: batch.hard_state,
        last: batch.entries.last().map(|entry| entry.position),
    }
}

#[cfg(test)]
mod tests;
