//! What waits for a node's disk: batches of the log, entries read back, snapshots, cutting.
//!
//! One thing at a time, first come first served. Bytes are written when a batch begins and synced when it
//! ends; what comes between, a crash for one, finds them there and not certain. Everything a step
//! asks for at once is one batch, and batches that wait share a sync, as in the server's log thread.

use super::cluster::{Checked, Cluster, Event};
use super::flaw::Flaw;
use super::node::{AtDisk, Job, Save, Saving, Writing};
use super::power::Down;
use super::trace::Happening;
use crate::raft::{Input, LogIndex, NodeId, Position, SnapshotMark};
use crate::wal::{WalError, WalErrorKind};

/// About how many bytes one read brings back.
const READ_BYTES: usize = 400;

impl Cluster {
    /// Begins what waits for the disk, if it is idle.
    pub(super) fn disk_begin(&mut self, id: NodeId) -> Checked {
        loop {
            let Some(life) = self.life(id) else {
                return Ok(());
            };
            if life.at_disk.is_some() {
                return Ok(());
            }
            let Some(job) = life.jobs.pop_front() else {
                return Ok(());
            };
            match job {
                Job::Save(save) => return self.save_begin(id, *save),
                Job::Read { from, to } => return self.read_begin(id, from, to),
                Job::Snapshot { mark, state } => {
                    let begun = life.wal.begin_snapshot(&mark);
                    let writing = begun.map(|writer| Writing {
                        writer,
                        mark,
                        state,
                    });
                    let Some(writing) = self.disk_result(id, writing)? else {
                        return Ok(());
                    };
                    self.snapshot_begun(id, writing);
                }
                Job::Compact(mark) => {
                    let compacted = life.wal.compact(&mark);
                    if self.disk_result(id, compacted)?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn snapshot_begun(&mut self, id: NodeId, writing: Writing) {
        let takes = self.random.within(self.weather.sync) * 3;
        let life_number = self.node(id).life_number;
        if let Some(life) = self.life(id) {
            life.writing = Some(writing);
        }
        self.after(
            takes,
            Event::Written {
                node: id,
                life: life_number,
            },
        );
    }

    /// Writes all batches that wait, or only the first, without a sync yet.
    fn save_begin(&mut self, id: NodeId, first: Save) -> Checked {
        let alone = self.mended.is_none() && self.random.one_in(self.weather.alone_one_in);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let mut saves = vec![first];
        while let Some(Job::Save(next)) = life.jobs.front()
            && next.install.is_none()
            && !alone
        {
            if let Some(Job::Save(save)) = life.jobs.pop_front() {
                saves.push(*save);
            }
        }
        let installs = saves.iter().any(|save| save.install.is_some());
        let firsts = saves.iter().filter_map(|save| save.batch.entries.first());
        let first = firsts.map(|entry| entry.position.index).min();
        // A log that conflicts with a snapshot that has its name goes as a whole.
        let unsure = installs.then_some(LogIndex(0)).or(first);
        let node = self.node(id);
        node.mirror.unsure_from = unsure.or(node.mirror.unsure_from);
        let written = self.write_all(id, saves);
        let Some(mut saving) = self.disk_result(id, written)? else {
            return Ok(());
        };
        if self.has_flaw(Flaw::AckBeforeSync)
            || saving.unfinished.is_some() && self.has_flaw(Flaw::InstallReportedEarly)
        {
            saving.reported = true;
            let (ballot, last, then) = (
                saving.ballot,
                last_of(&saving),
                std::mem::take(&mut saving.then),
            );
            self.disk_busy(id, AtDisk::Saving(Box::new(saving)));
            self.send(id, then)?;
            return self.report(id, ballot, last);
        }
        self.disk_busy(id, AtDisk::Saving(Box::new(saving)));
        Ok(())
    }

    fn write_all(&mut self, id: NodeId, saves: Vec<Save>) -> Result<Saving, WalError> {
        let flaw = self.settings.flaw;
        let mut saving = Saving::default();
        let Some(life) = self.life(id) else {
            return Ok(saving);
        };
        for Save {
            install,
            batch,
            then,
        } in saves
        {
            if let Some((writer, mark)) = install {
                let late = [
                    Some(Flaw::LogCutBeforeSnapshot),
                    Some(Flaw::InstallReportedEarly),
                ];
                if late.contains(&flaw) {
                    saving.unfinished = Some(writer);
                } else {
                    writer.finish()?;
                }
                if flaw != Some(Flaw::InstallReportedEarly) {
                    life.wal.compact(&mark)?;
                }
                saving.installed = Some(mark);
            }
            let entries = &batch.entries;
            // Behind a snapshot that is not there yet, the log takes nothing.
            if flaw != Some(Flaw::InstallReportedEarly) || saving.unfinished.is_none() {
                life.wal.append(&batch)?;
                let positions = entries.iter().map(|entry| entry.position);
                saving.positions.push(positions.collect());
            }
            saving.ballot = batch.ballot.or(saving.ballot);
            saving.then.extend(then);
        }
        Ok(saving)
    }

    fn disk_busy(&mut self, id: NodeId, at_disk: AtDisk) {
        let now = self.now;
        let mut takes = self.random.within(self.weather.sync);
        let slow = self.random.one_in(self.weather.slow_sync_one_in);
        if self.mended.is_none() && (slow || self.node(id).slow_disk_until > now) {
            takes *= 10;
        }
        let life_number = self.node(id).life_number;
        if let Some(life) = self.life(id) {
            life.at_disk = Some(at_disk);
            self.after(
                takes,
                Event::Disk {
                    node: id,
                    life: life_number,
                },
            );
        }
    }

    pub(super) fn disk_done(&mut self, id: NodeId, life_number: u64) -> Checked {
        if self.node(id).life_number != life_number {
            return Ok(());
        }
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        match life.at_disk.take() {
            Some(AtDisk::Saving(saving)) => self.save_end(id, *saving),
            Some(AtDisk::Reading(entries)) => {
                self.input(id, Input::Read { entries })?;
                self.disk_begin(id)
            }
            None => Ok(()),
        }
    }

    fn save_end(&mut self, id: NodeId, mut saving: Saving) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let finished = match (saving.unfinished.take(), &saving.installed) {
            (Some(writer), Some(mark)) => writer.finish().and_then(|()| life.wal.compact(mark)),
            _ => Ok(()),
        };
        let synced = finished.and_then(|()| life.wal.sync());
        let ignored = self.has_flaw(Flaw::FailedSyncIgnored) && self.node(id).disk.has_power();
        if !ignored && self.disk_result(id, synced)?.is_none() {
            return Ok(());
        }
        let last = last_of(&saving);
        let mirror = &mut self.node(id).mirror;
        mirror.vote(saving.ballot)?;
        if let Some(mark) = &saving.installed {
            mirror.entries.clear();
            mirror.snapshot = mark.position;
        }
        mirror.stored(&saving.positions);
        mirror.unsure_from = None;
        self.note(|_| Happening::Stored { node: id, last });
        if let Some(mark) = &saving.installed {
            let at = mark.position;
            self.note(|_| Happening::SnapshotInstalled { node: id, at });
        }
        self.send(id, saving.then)?;
        if !saving.reported {
            self.report(id, saving.ballot, last)?;
        }
        self.disk_begin(id)
    }

    /// Tells the core what is stored: the ballot first, as it was handed out first.
    fn report(
        &mut self,
        id: NodeId,
        ballot: Option<crate::raft::Ballot>,
        last: Option<Position>,
    ) -> Checked {
        if let Some(ballot) = ballot {
            self.input(id, Input::BallotStored { ballot })?;
        }
        if let Some(position) = last {
            self.input(id, Input::Stored { position })?;
        }
        Ok(())
    }

    fn read_begin(&mut self, id: NodeId, from: LogIndex, to: LogIndex) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let read = life.wal.reader().read(from, to, READ_BYTES);
        let Some(entries) = self.disk_result(id, read)? else {
            return Ok(());
        };
        self.disk_busy(id, AtDisk::Reading(entries));
        Ok(())
    }

    /// What a call of the log came to; None if it cost the process its life.
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
                kind: WalErrorKind::Poisoned,
                ..
            }) => {
                self.down(id, Down::Crash("the log is poisoned, and the power goes"));
                Ok(None)
            }
            Err(error) => Err(format!("the disk of n{}: {error}", id.0)),
        }
    }

    // Snapshots of one's own

    pub(super) fn snapshot_if_due(&mut self, id: NodeId) {
        let every = self.weather.snapshot_every;
        if self
            .life(id)
            .is_some_and(|life| life.since_snapshot >= every)
        {
            self.snapshot_now(id);
        }
    }

    /// Orders a snapshot of what is applied, unless one is being made.
    pub(super) fn snapshot_now(&mut self, id: NodeId) {
        let Some(life) = self.life(id) else { return };
        let applied = life.state.applied;
        let ordered = life
            .jobs
            .iter()
            .any(|job| matches!(job, Job::Snapshot { .. }));
        if life.writing.is_some()
            || ordered
            || !super::driver::can_snapshot(life.core.as_ref(), applied)
        {
            return;
        }
        if let Some(mark) = life.core.mark_at(applied) {
            life.since_snapshot = 0;
            let state = Box::new(life.state.clone());
            life.jobs.push_back(Job::Snapshot { mark, state });
        }
    }

    pub(super) fn snapshot_written(&mut self, id: NodeId, life_number: u64) -> Checked {
        if self.node(id).life_number != life_number {
            return Ok(());
        }
        let ahead = self.has_flaw(Flaw::SnapshotAheadOfMark);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let Some(Writing {
            mut writer,
            mark,
            state,
        }) = life.writing.take()
        else {
            return Ok(());
        };
        let state = if ahead {
            Box::new(life.state.clone())
        } else {
            state
        };
        let saved = state
            .save(|slice| writer.write(slice))
            .and_then(|()| writer.finish());
        if self.disk_result(id, saved)?.is_none() {
            return Ok(());
        }
        self.snapshot_made(id, mark)
    }

    fn snapshot_made(&mut self, id: NodeId, mark: SnapshotMark) -> Checked {
        let at = mark.position;
        self.note(|_| Happening::SnapshotMade { node: id, at });
        let mirror = &mut self.node(id).mirror;
        if mirror.snapshot.index < at.index {
            mirror.snapshot = at;
            mirror.entries = mirror.entries.split_off(&at.index.next());
        }
        self.input(id, Input::Compacted { mark: mark.clone() })?;
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        life.jobs.push_back(Job::Compact(mark));
        let wanted = std::mem::take(&mut life.wanted);
        for to in wanted {
            self.stream_snapshot(id, to)?;
        }
        self.disk_begin(id)
    }
}

fn last_of(saving: &Saving) -> Option<Position> {
    let entries = saving
        .positions
        .iter()
        .rev()
        .find_map(|batch| batch.last().copied());
    entries.or(saving.installed.as_ref().map(|mark| mark.position))
}
