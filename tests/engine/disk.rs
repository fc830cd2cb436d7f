//! A disk that acts only on command: what a restart finds, and the jobs that wait.

use edgetcd::engine::peer_message::PeerMessage;
use edgetcd::engine::request::Task;
use edgetcd::engine::state::State;
use edgetcd::engine::{Batch, DiskJob, Stored};
use edgetcd::raft::{
    Entry, HardState, LogIndex, Membership, NodeId, Payload, Position, SnapshotMetadata, Start,
    StoredLog, Term,
};
use std::collections::VecDeque;

/// How much fits on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// Everything.
    #[default]
    Enough,
    /// No batch. The space that is reserved for a snapshot is still free.
    SnapshotOnly,
    /// No snapshot: the tree is larger than the space reserved for it. Batches fit if nothing is reserved.
    ReserveOnly,
    /// Nothing.
    Nothing,
}

/// A snapshot on disk, or on its way to another member.
#[derive(Clone)]
pub struct Snapshot {
    pub metadata: SnapshotMetadata,
    pub state: State,
    pub bytes: u64,
}

/// A batch with the messages that wait for it.
pub struct Save {
    pub batch: Batch,
    pub then: Vec<(NodeId, PeerMessage)>,
}

/// A member's disk. A restart finds `hard_state`, `snapshot` and `entries`; a crash loses the rest.
#[derive(Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
    pub space: Space,
    /// It finishes nothing.
    pub hangs: bool,
    /// Bytes reserved for the next snapshot.
    pub reserve: u64,
    /// Jobs that it has not begun.
    pub jobs: VecDeque<DiskJob>,
    /// Batches that did not fit.
    pub waiting: Vec<Save>,
    /// Snapshots that are being written.
    pub writing: VecDeque<Task>,
}

impl Disk {
    /// The process has ended: nobody waits for the jobs any longer.
    pub fn forget_jobs(&mut self) {
        self.jobs.clear();
        self.waiting.clear();
        self.writing.clear();
    }

    pub fn has_room(&self) -> bool {
        match self.space {
            Space::Enough => true,
            Space::ReserveOnly => self.reserve == 0,
            Space::SnapshotOnly | Space::Nothing => false,
        }
    }

    pub fn has_room_for_snapshot(&self) -> bool {
        matches!(self.space, Space::Enough | Space::SnapshotOnly)
    }

    pub fn store(&mut self, batch: &Batch) -> Stored {
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = batch.entries.first() {
            let first = first.position.index;
            self.entries.retain(|entry| entry.position.index < first);
            self.entries.extend(batch.entries.iter().cloned());
        }
        Stored {
            hard_state: batch.hard_state,
            last: batch.entries.last().map(|entry| entry.position),
        }
    }

    /// Deletes the log before `end`. The space is free then, if the log was what filled the disk.
    pub fn compact(&mut self, end: Position) {
        self.entries
            .retain(|entry| entry.position.index > end.index);
        if self.space == Space::SnapshotOnly {
            self.space = Space::Enough;
        }
    }

    /// A snapshot of the leader replaces the log. Batches that did not fit are part of it; only their hard state stays.
    pub fn install(&mut self, snapshot: Snapshot) {
        self.entries.clear();
        self.snapshot = Some(snapshot);
        for save in &mut self.waiting {
            save.batch.entries.clear();
            save.then.clear();
        }
    }

    /// The data that a core starts from. `founders` are the members of a new cluster.
    pub fn start(&self, founders: Membership) -> Start {
        let snapshot = match &self.snapshot {
            Some(snapshot) => snapshot.metadata.clone(),
            None => SnapshotMetadata {
                membership: founders,
                ..SnapshotMetadata::default()
            },
        };
        let first = snapshot.position.index;
        let kept = self
            .entries
            .iter()
            .filter(|entry| entry.position.index > first);
        let tail: Vec<Entry> = kept.cloned().collect();
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for Position { index, term } in tail.iter().map(|entry| entry.position) {
            if terms.last().is_none_or(|run| run.1 != term) {
                terms.push((index, term));
            }
        }
        let is_change = |entry: &&Entry| matches!(entry.payload, Payload::Change(_));
        Start {
            hard_state: self.hard_state,
            log: StoredLog {
                terms,
                last: tail.last().map_or(first, |entry| entry.position.index),
                changes: tail.iter().filter(is_change).cloned().collect(),
                tail,
            },
            snapshot,
        }
    }
}
