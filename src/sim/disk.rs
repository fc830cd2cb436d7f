//! A node's disk: does the jobs of the WAL thread one after the other, with the server's code ([`LogJobs`]) over a faulty
//! disk. Each job takes some virtual time.
//!
//! A job takes effect when its time is over. If the process dies before that, a part of the job may have taken effect:
//! then the job starts, and the power fails in the middle of it. The node's [`Mirror`] records everything that a sync
//! has confirmed.

use super::any_engine::AnyEngine;
use super::checks::Checks;
use super::cluster::{Checked, Cluster, Event};
use super::mirror::Mirror;
use super::power::Down;
use super::trace::Happening;
use crate::engine::peer_message::PeerMessage;
use crate::engine::{self, DiskReport};
use crate::raft::{LogIndex, NodeId, SnapshotMetadata};
use crate::storage::jobs::{Job, LogJobs, Outlet};
use crate::storage::snapshot::{self, Begun};
use crate::wal::{Batch, FaultyDisk, WalError, WalErrorKind};
use core::time::Duration;
use std::cell::RefCell;

/// The approximate number of bytes that one read returns.
pub(super) const READ_BYTES: usize = 400;

/// The interval at which a write to a full disk is tried again.
const FULL_RETRY: u64 = 10_000;

/// Receives the results of a job. It records at once what is on disk, and keeps the other results until the job ends.
struct Out<'a> {
    id: NodeId,
    engine: &'a dyn AnyEngine,
    checks: &'a RefCell<Checks>,
    messages: Vec<(NodeId, PeerMessage)>,
    reports: Vec<DiskReport>,
    begun: Option<Begun<FaultyDisk>>,
}

impl Out<'_> {
    fn note(&self, what: impl FnOnce(&mut Mirror) -> Result<(), String>) {
        let mut checks = self.checks.borrow_mut();
        let done = what(checks.mirror(self.id));
        checks.note(done);
    }

    /// Checks that a report is true.
    fn check_report(&self, report: &DiskReport) {
        if self.checks.borrow().by_hand.is_some() {
            return;
        }
        self.note(|mirror| {
            let wrong = match report {
                DiskReport::Stored(batches) => {
                    batches.iter().any(|stored| {
                        let later = mirror.hard_state.term;
                        stored
                            .hard_state
                            .is_some_and(|hard_state| hard_state.term > later)
                            || stored.hard_state.is_some_and(|hard_state| {
                                hard_state.term == later
                                    && hard_state.vote != mirror.hard_state.vote
                                    && mirror.hard_state.vote.is_none()
                            })
                    }) || batches
                        .last()
                        .and_then(|stored| stored.last)
                        .is_some_and(|last| !mirror.holds(last))
                }
                DiskReport::Installed(position) => mirror.snapshot.index < position.index,
                _ => false,
            };
            match wrong {
                true => Err(format!(
                    "reported before stored: by the disk of n{}",
                    self.id.0
                )),
                false => Ok(()),
            }
        });
    }
}

impl Outlet<FaultyDisk> for Out<'_> {
    fn send(&mut self, messages: Vec<(NodeId, PeerMessage)>) {
        let mut checks = self.checks.borrow_mut();
        for (to, peer_message) in &messages {
            if let PeerMessage::Raft { message, .. } = peer_message {
                let engine = self.engine;
                checks.promise_is_stored(self.id, *to, message, engine.term(), |index| {
                    engine.position_at(index)
                });
            }
        }
        drop(checks);
        self.messages.extend(messages);
    }

    fn report(&mut self, report: DiskReport) {
        self.check_report(&report);
        self.reports.push(report);
    }

    fn begun(&mut self, begun: Begun<FaultyDisk>) {
        self.begun = Some(begun);
    }

    fn batches_synced(&mut self, batches: &[Batch]) {
        self.note(|mirror| mirror.synced(batches));
    }

    fn snapshot_installed(&mut self, metadata: &SnapshotMetadata) {
        self.note(|mirror| {
            mirror.installed(metadata.position);
            Ok(())
        });
    }
}

/// Marks the data that a job may replace as uncertain until the job is done.
fn replaces_from(job: &Job) -> Option<LogIndex> {
    match job {
        Job::Save { batch, .. } => batch.entries.first().map(|entry| entry.position.index),
        // A log that conflicts with a complete snapshot is dropped as a whole.
        Job::Install(_) => Some(LogIndex(0)),
        _ => None,
    }
}

impl Cluster {
    /// Starts the next waiting job if the disk is idle.
    pub(super) fn begin_job(&mut self, id: NodeId) -> Checked {
        let (now, repaired) = (self.now, self.repaired.is_some());
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let Some(job) = life.jobs.front().filter(|_| !life.disk_is_busy) else {
            return Ok(());
        };
        let writes = matches!(job, Job::Save { .. } | Job::Install(_));
        life.disk_is_busy = true;
        let mut takes = match writes {
            true => self.random.within(self.profile.sync),
            false => self.random.within((50, 500)),
        };
        let slow = self.random.one_in(self.profile.slow_sync_one_in);
        let slower = self.profile.slow_disk;
        let node = self.node(id);
        if !repaired && (slow || node.slow_disk_until > now) {
            takes *= slower;
        }
        let takes = takes.max(node.hung_disk_until.saturating_sub(now));
        let life = node.life_number;
        self.after(takes, Event::Disk { node: id, life });
        self.promise_early(id)
    }

    /// The time of a job is over: does the job.
    pub(super) fn disk_done(&mut self, id: NodeId, life_number: u64) -> Checked {
        if self.node(id).life_number != life_number {
            return Ok(());
        }
        self.do_jobs(id)?;
        if let Some(life) = self.life(id) {
            life.disk_is_busy = false;
        }
        self.begin_job(id)
    }

    /// Does the first job, and the jobs that share its sync.
    fn do_jobs(&mut self, id: NodeId) -> Checked {
        loop {
            let Some(life) = self.life(id) else {
                return Ok(());
            };
            let Some(job) = life.jobs.pop_front() else {
                return Ok(());
            };
            let more = !life.jobs.is_empty();
            let shares = more && matches!(job, Job::Save { .. });
            self.use_log(id, replaces_from(&job), |log, out| log.take(job, more, out))?;
            if !shares {
                return Ok(());
            }
        }
    }

    /// Tries a full disk again. If a job is in progress, tries later.
    pub(super) fn retry_disk(&mut self, id: NodeId, life_number: u64) -> Checked {
        let node = self.node(id);
        if node.life_number != life_number {
            return Ok(());
        }
        if node.life.as_ref().is_some_and(|life| life.disk_is_busy) {
            let life = life_number;
            self.after(FULL_RETRY, Event::DiskRetry { node: id, life });
            return Ok(());
        }
        self.use_log(id, None, |log, out| log.store(out))
    }

    /// Does all waiting jobs, as the last action of a process.
    pub(super) fn close_log(&mut self, id: NodeId) -> Checked {
        while self.life(id).is_some_and(|life| !life.jobs.is_empty()) {
            self.do_jobs(id)?;
        }
        self.use_log(id, None, |log, out| log.store(out))
    }

    /// The process dies during a job. A part of the job may have taken effect.
    pub(super) fn die_at_work(&mut self, id: NodeId) -> Checked {
        let changes = self.random.below(8);
        let begins = self.random.one_in(2);
        let node = self.node(id);
        if !node.life.as_ref().is_some_and(|life| life.disk_is_busy) || !begins {
            return Ok(());
        }
        node.disk.cut_power_after(changes);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let Some(job) = life.jobs.pop_front() else {
            return Ok(());
        };
        self.with_log(id, replaces_from(&job), |log, out| {
            log.take(job, false, out)
        });
        self.checks.borrow_mut().result()
    }

    /// Runs `work` on the log and passes on the results.
    fn use_log(
        &mut self,
        id: NodeId,
        replaces_from: Option<LogIndex>,
        work: impl FnOnce(
            &mut LogJobs<FaultyDisk, super::any_engine::DiskRules>,
            &mut Out,
        ) -> Result<(), WalError>,
    ) -> Checked {
        let Some((messages, reports, begun, result)) = self.with_log(id, replaces_from, work)
        else {
            return Ok(());
        };
        self.checks.borrow_mut().result()?;
        if self.disk_result(id, result)?.is_none() {
            return Ok(());
        }
        if let Some(life) = self.life(id)
            && life.log.is_waiting()
            && life.jobs.is_empty()
        {
            let life = self.node(id).life_number;
            self.after(FULL_RETRY, Event::DiskRetry { node: id, life });
        }
        for (to, peer_message) in messages {
            self.send_stored(id, to, peer_message);
        }
        if let Some(begun) = begun {
            self.snapshot_begun(id, begun);
        }
        for report in reports {
            if let Some(report) = self.rest_of(report) {
                self.report(id, report)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn with_log(
        &mut self,
        id: NodeId,
        replaces_from: Option<LogIndex>,
        work: impl FnOnce(
            &mut LogJobs<FaultyDisk, super::any_engine::DiskRules>,
            &mut Out,
        ) -> Result<(), WalError>,
    ) -> Option<(
        Vec<(NodeId, PeerMessage)>,
        Vec<DiskReport>,
        Option<Begun<FaultyDisk>>,
        Result<(), WalError>,
    )> {
        let checks = self.checks.clone();
        let life = self.life(id)?;
        if let Some(from) = replaces_from {
            let mut checks = checks.borrow_mut();
            let unsure = &mut checks.mirror(id).unsure_from;
            *unsure = Some(unsure.map_or(from, |before| before.min(from)));
        }
        let mut out = Out {
            id,
            engine: life.engine.as_ref(),
            checks: &checks,
            messages: Vec::new(),
            reports: Vec::new(),
            begun: None,
        };
        let result = work(&mut life.log, &mut out);
        let Out {
            messages,
            reports,
            begun,
            ..
        } = out;
        if result.is_ok() && !life.log.is_waiting() {
            checks.borrow_mut().mirror(id).unsure_from = None;
        }
        Some((messages, reports, begun, result))
    }

    pub(super) fn report(&mut self, id: NodeId, report: DiskReport) -> Checked {
        let installed = match &report {
            DiskReport::Stored(batches) => {
                let last = batches.iter().rev().find_map(|stored| stored.last);
                self.note(|_| Happening::Stored { node: id, last });
                None
            }
            DiskReport::Full => {
                self.note(|_| Happening::Full { node: id });
                None
            }
            DiskReport::Installed(at) => {
                let at = *at;
                self.note(|_| Happening::SnapshotInstalled { node: id, at });
                self.checks.borrow_mut().goes_on(id, at);
                if let Some(life) = self.life(id) {
                    life.has_news = true;
                }
                Some(at)
            }
            _ => None,
        };
        self.step_engine(id, engine::Event::Disk(report))?;
        match installed {
            Some(at) => self.installed(id, at),
            None => Ok(()),
        }
    }

    /// The result of a call of the log. None if the process died because of it.
    pub(super) fn disk_result<T>(
        &mut self,
        id: NodeId,
        result: Result<T, WalError>,
    ) -> Result<Option<T>, String> {
        let power = self.node(id).disk.has_power();
        match result {
            Ok(value) if power => Ok(Some(value)),
            Ok(_) => {
                self.down(id, Down::Crash("power cut in the middle of a write"));
                Ok(None)
            }
            Err(_) if !power => {
                self.down(id, Down::Crash("power cut in the middle of a write"));
                Ok(None)
            }
            Err(WalError {
                kind: WalErrorKind::Io,
                ..
            }) => {
                self.down(id, Down::Kill("a sync failed"));
                Ok(None)
            }
            Err(WalError {
                kind: WalErrorKind::Full,
                ..
            }) => {
                self.down(id, Down::Kill("the disk is full"));
                Ok(None)
            }
            Err(WalError {
                kind: WalErrorKind::Poisoned,
                ..
            }) => {
                self.down(id, Down::Crash("the log is poisoned, and the power fails"));
                Ok(None)
            }
            Err(error) => Err(format!("the disk of n{}: {error}", id.0)),
        }
    }

    // The member's own snapshots

    fn snapshot_begun(&mut self, id: NodeId, begun: Begun<FaultyDisk>) {
        let takes = self.random.within(self.profile.sync) * 3;
        let life_number = self.node(id).life_number;
        if let Some(life) = self.life(id) {
            life.begun.push_back(begun);
        }
        let life = life_number;
        self.after(takes, Event::Written { node: id, life });
    }

    /// The writing of the oldest begun snapshot has ended.
    pub(super) fn snapshot_written(&mut self, id: NodeId, life_number: u64) -> Checked {
        if self.node(id).life_number != life_number {
            return Ok(());
        }
        let ahead = self.is_without(crate::engine::rules::Rule::SnapshotAtItsMark);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let Some((writer, mut task)) = life.begun.pop_front() else {
            return Ok(());
        };
        if ahead {
            task.state = life.engine.state().clone();
        }
        let report = match snapshot::write(writer, &task) {
            Err(error) if error.kind == WalErrorKind::Full && self.node(id).disk.has_power() => {
                DiskReport::NoSnapshot
            }
            written => {
                let Some(bytes) = self.disk_result(id, written)? else {
                    return Ok(());
                };
                let at = task.metadata.position;
                self.note(|_| Happening::SnapshotMade { node: id, at });
                self.checks.borrow_mut().mirror(id).snapshot_made(at);
                DiskReport::Snapshot {
                    metadata: task.metadata,
                    bytes,
                    took: Duration::from_millis(1),
                }
            }
        };
        self.report(id, report)
    }
}
