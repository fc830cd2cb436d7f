//! The jobs of a disk, and its reports to the engine.

use super::{Cluster, label};
use crate::disk::{Save, Snapshot};
use crate::text::{batch_text, stored_text};
use edgetcd::engine::{DiskJob, DiskReport, Event};
use edgetcd::raft::{NodeId, Position};
use std::time::Duration;

impl Cluster {
    pub(super) fn order(&mut self, id: NodeId, job: DiskJob) {
        let what = match &job {
            DiskJob::Save { batch, .. } => batch_text(batch),
            DiskJob::Read { from, to } => format!("read of entries {} to {}", from.0, to.0),
            DiskJob::Snapshot(task) => format!("snapshot at {}", task.metadata.position),
            DiskJob::Compact(metadata) => format!("deletion of the log to {}", metadata.position),
            DiskJob::Install(metadata) => {
                format!("the snapshot at {} in place of the log", metadata.position)
            }
            DiskJob::Reserve(_) => String::new(),
        };
        if !what.is_empty() {
            self.say_usual(format!("{} to disk: {what}", label(id)));
        }
        self.disk(id).jobs.push_back(job);
    }

    /// The disk does all of its jobs, except for the snapshots that it begins. Batches that do not fit stay. Returns
    /// false if there was nothing to do.
    pub fn store(&mut self, id: NodeId) -> bool {
        if !self.is_up(id) || self.disk(id).hangs {
            return false;
        }
        let waits = !self.disk(id).waiting.is_empty();
        if self.disk(id).jobs.is_empty() {
            self.store_waiting(id);
            return waits && self.is_up(id) && self.disk(id).waiting.is_empty();
        }
        while let Some(job) = self.disk(id).jobs.pop_front() {
            self.do_job(id, job);
        }
        true
    }

    fn do_job(&mut self, id: NodeId, job: DiskJob) {
        match job {
            DiskJob::Save {
                batch,
                then,
                reserve,
            } => {
                let disk = self.disk(id);
                disk.reserve = reserve;
                disk.waiting.push(Save { batch, then });
                self.store_waiting(id);
            }
            DiskJob::Reserve(bytes) => {
                self.disk(id).reserve = bytes;
                self.store_waiting(id);
            }
            DiskJob::Read { from, to } => {
                let all = self.disk(id).entries.iter();
                let wanted = all.filter(|entry| (from..=to).contains(&entry.position.index));
                let entries = wanted.cloned().collect();
                self.step(id, Event::Disk(DiskReport::Read(entries)));
            }
            DiskJob::Snapshot(task) => self.disk(id).writing.push_back(*task),
            DiskJob::Compact(metadata) => {
                self.disk(id).compact(metadata.position);
                self.store_waiting(id);
            }
            DiskJob::Install(metadata) => self.install(id, metadata.position),
        }
    }

    /// Stores the batches that wait, and sends their messages.
    fn store_waiting(&mut self, id: NodeId) {
        let disk = self.disk(id);
        if disk.waiting.is_empty() {
            return;
        }
        if !disk.has_room() {
            if !std::mem::replace(&mut self.process(id).knows_full, true) {
                self.say(format!("{} stores nothing: its disk is full", label(id)));
            }
            return self.step(id, Event::Disk(DiskReport::Full));
        }
        self.process(id).knows_full = false;
        let mut stored = Vec::new();
        for Save { batch, then } in std::mem::take(&mut self.disk(id).waiting) {
            let one = self.disk(id).store(&batch);
            let text = stored_text(&one);
            if !text.is_empty() {
                self.say_usual(format!("{} has stored {text}", label(id)));
            }
            stored.push(one);
            for (to, message) in then {
                self.send(id, to, message);
            }
        }
        self.step(id, Event::Disk(DiskReport::Stored(stored)));
    }

    fn install(&mut self, id: NodeId, position: Position) {
        let incoming = self.process(id).incoming.take();
        let (sender, snapshot) = incoming.expect("only a received snapshot is installed");
        self.disk(id).install(snapshot);
        self.say(format!(
            "{} has stored the snapshot at {position}",
            label(id)
        ));
        self.step(id, Event::Disk(DiskReport::Installed(position)));
        self.snapshot_ended(sender, id, Some(position));
        self.store_waiting(id);
    }

    /// Finishes a snapshot of the member's own state. Returns false if none is being written.
    pub fn finish_snapshot(&mut self, id: NodeId) -> bool {
        if self.disk(id).hangs {
            return false;
        }
        let Some(task) = self.disk(id).writing.pop_front() else {
            return false;
        };
        if !self.disk(id).has_room_for_snapshot() {
            self.say(format!("{} cannot store the snapshot: no room", label(id)));
            self.step(id, Event::Disk(DiskReport::NoSnapshot));
            return true;
        }
        let snapshot = Snapshot {
            bytes: task.state.saved_bytes(),
            metadata: task.metadata,
            state: task.state,
        };
        let (metadata, bytes) = (snapshot.metadata.clone(), snapshot.bytes);
        self.disk(id).snapshot = Some(snapshot);
        let took = Duration::from_millis(1);
        self.step(
            id,
            Event::Disk(DiskReport::Snapshot {
                metadata,
                bytes,
                took,
            }),
        );
        true
    }
}
