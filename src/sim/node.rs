//! One node: a core, a log on a disk that lies, a state machine, and what its driver keeps beside them.

use super::any_core::AnyCore;
use super::clock::{Machine, Reading};
use crate::engine::members::{Member, Members};
use crate::engine::state::{Loader, State};
use crate::raft::{
    Ballot, Entry, Envelope, LogIndex, Membership, NodeId, Position, SnapshotMark, Start,
    StoredLog, Term,
};
use crate::replica::clock::{self, Clock};
use crate::tree::{ClusterTime, Stamp};
use crate::wal::{
    Batch, Home, LyingDisk, Options, Recovered, SnapshotReader, SnapshotWriter, Wal, WalError,
    recover,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Events that a tree keeps: few, so that hashing one is quick.
const HISTORY_EVENTS: usize = 8;

/// What outlives a crash, and what is known about it from outside.
pub(super) struct Node {
    pub id: NodeId,
    pub disk: LyingDisk,
    pub machine: Machine,
    /// Counts lives: what was meant for an earlier one is dropped.
    pub life_number: u64,
    pub life: Option<Life>,
    pub mirror: Mirror,
    /// Stopped until then, as by SIGSTOP: what comes for it waits.
    pub paused_until: u64,
    pub slow_disk_until: u64,
    /// Has learnt that it was removed, and stays down.
    pub retired: bool,
    /// The members of a new cluster; empty for a node that joins later.
    pub founders: Membership,
}

/// What a node has certainly on its disk: all that a sync confirmed.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub ballot: Ballot,
    pub snapshot: Position,
    pub entries: BTreeMap<LogIndex, Term>,
    /// From here on a write under way may have replaced what was there.
    pub unsure_from: Option<LogIndex>,
}

impl Mirror {
    /// Whether a restart would find this entry, or a snapshot that stands for it.
    pub fn holds(&self, position: Position) -> bool {
        position.index <= self.snapshot.index
            || self.entries.get(&position.index) == Some(&position.term)
    }

    /// Another ballot is on disk: not another vote in the same term (hazard D1).
    pub fn vote(&mut self, stored: Option<Ballot>) -> Result<(), String> {
        let before = self.ballot;
        let now = stored.unwrap_or(before);
        self.ballot = now;
        match now.term == before.term && before.vote.is_some() && now.vote != before.vote {
            true => Err(format!(
                "it votes twice: {before:?} was on disk, now {now:?} is"
            )),
            false => Ok(()),
        }
    }

    pub fn stored(&mut self, saved: &[Vec<Position>]) {
        for batch in saved {
            if let Some(first) = batch.first() {
                self.entries.split_off(&first.index);
            }
            let entries = batch.iter().map(|position| (position.index, position.term));
            self.entries.extend(entries);
        }
    }

    /// Compares with what a start found, and tells what is missing.
    pub fn missing_in(
        &self,
        ballot: Ballot,
        found: &StoredLog,
        snapshot: Position,
    ) -> Option<String> {
        let votes = ballot.term == self.ballot.term && self.ballot.vote.is_some();
        if ballot.term < self.ballot.term || (votes && ballot.vote != self.ballot.vote) {
            return Some(format!("finds {ballot:?}, had stored {:?}", self.ballot));
        }
        let sure = |index: LogIndex| self.unsure_from.is_none_or(|unsure| index < unsure);
        let lost = self.entries.iter().find(|&(index, term)| {
            *index > snapshot.index && sure(*index) && term_in(found, *index) != Some(*term)
        });
        lost.map(|(index, term)| {
            let position = Position {
                term: *term,
                index: *index,
            };
            format!("restarts without {position}, which it had stored")
        })
    }
}

fn term_in(log: &StoredLog, index: LogIndex) -> Option<Term> {
    let run = log.terms.iter().rev().find(|run| run.0 <= index);
    run.filter(|_| index <= log.last).map(|run| run.1)
}

/// What one step wants stored, and what may be sent after that.
pub(super) struct Save {
    pub install: Option<(SnapshotWriter<LyingDisk>, SnapshotMark)>,
    pub batch: Batch,
    pub then: Vec<Envelope>,
}

/// What waits for the disk, first come first served.
pub(super) enum Job {
    Save(Box<Save>),
    Read {
        from: LogIndex,
        to: LogIndex,
    },
    Snapshot {
        mark: SnapshotMark,
        state: Box<State>,
    },
    Compact(SnapshotMark),
}

/// What the disk is busy with.
pub(super) enum AtDisk {
    Saving(Box<Saving>),
    Reading(Vec<Entry>),
}

/// Written, and not synced yet.
#[derive(Default)]
pub(super) struct Saving {
    pub ballot: Option<Ballot>,
    pub installed: Option<SnapshotMark>,
    /// A snapshot still to be finished (a flaw: it comes too late).
    pub unfinished: Option<SnapshotWriter<LyingDisk>>,
    pub positions: Vec<Vec<Position>>,
    pub then: Vec<Envelope>,
    /// Reported already (a flaw).
    pub reported: bool,
}

/// A snapshot being written beside everything else.
pub(super) struct Writing {
    pub writer: SnapshotWriter<LyingDisk>,
    pub mark: SnapshotMark,
    pub state: Box<State>,
}

/// A write that waits for its entry.
pub(super) struct Ticket {
    pub term: Term,
    pub number: u64,
}

/// A running process.
pub(super) struct Life {
    pub core: Box<dyn AnyCore>,
    pub wal: Wal<LyingDisk>,
    pub state: State,
    /// Cluster time minus time since boot, modulo 2^64.
    pub offset: u64,
    pub jobs: VecDeque<Job>,
    pub at_disk: Option<AtDisk>,
    pub tickets: BTreeMap<LogIndex, Ticket>,
    /// Questions for a read index: whose operation each is.
    pub reads: BTreeMap<u64, u64>,
    pub next_read: u64,
    /// Reads that wait for an index to be applied.
    pub confirmed: Vec<(u64, LogIndex)>,
    pub since_snapshot: u64,
    pub writing: Option<Writing>,
    /// Followers that wait for the snapshot being written.
    pub wanted: Vec<NodeId>,
    /// Snapshots on their way to others, by receiver.
    pub streams: BTreeMap<NodeId, u64>,
    pub incoming: Option<(SnapshotWriter<LyingDisk>, Arc<Vec<u8>>)>,
    pub expiry_ran: u64,
}

impl Life {
    /// Cluster time as far as this node knows.
    pub fn cluster_time(&self, reading: &Reading) -> ClusterTime {
        ClusterTime(reading.since_boot.wrapping_add(self.offset)).max(self.state.time)
    }

    /// Learns from a leader what time it is.
    pub fn set_time(&mut self, told: ClusterTime, reading: &Reading) {
        self.offset = told.max(self.state.time).0.wrapping_sub(reading.since_boot);
    }

    pub fn stamp(&self, reading: &Reading) -> Stamp {
        Stamp {
            cluster: self.cluster_time(reading),
            wall: reading.wall(),
        }
    }
}

impl Node {
    pub fn new(id: NodeId, seed: u64, machine: Machine, founders: Membership) -> Node {
        Node {
            id,
            disk: LyingDisk::new(seed),
            machine,
            life_number: 0,
            life: None,
            mirror: Mirror::default(),
            paused_until: 0,
            slow_disk_until: 0,
            retired: false,
            founders,
        }
    }

    /// Recovers what is on disk, as a starting server does.
    pub fn recover(
        &self,
        memory_bytes: usize,
    ) -> Result<(Wal<LyingDisk>, Recovered<LyingDisk>), WalError> {
        let options = Options {
            tail_bytes: memory_bytes,
            segment_bytes: 8 << 10,
            segment_bytes_max: 32 << 10,
            max_snapshots: 2,
            max_wals: 2,
            ..Options::new("/data")
        };
        let home = Home::open(self.disk.clone(), options)?;
        let found = recover(&home)?;
        if home.identity()?.is_none() {
            home.write_identity(&self.id.0.to_le_bytes())?;
        }
        Ok(found)
    }

    /// What the core is told of the disk, and the state machine as of the snapshot.
    pub fn start_of(
        &self,
        recovered: &mut Recovered<LyingDisk>,
    ) -> Result<(Start, State), WalError> {
        let (mark, state) = match recovered.snapshot.take() {
            Some(mut reader) => (reader.mark().clone(), load(&mut reader)?),
            None => {
                let mark = SnapshotMark {
                    position: Position::default(),
                    membership: self.founders.clone(),
                };
                let members = self.founders.voters.iter().map(|id| member(*id));
                (mark, State::new(Members::new(1, members), HISTORY_EVENTS))
            }
        };
        let start = Start {
            ballot: recovered.ballot,
            snapshot: mark,
            log: recovered.log.clone(),
        };
        Ok((start, state))
    }

    /// Cluster time at a start, and what is to be added to the time since boot to have it.
    pub fn resume(&self, recovered: &Recovered<LyingDisk>, state: &State, now: u64) -> u64 {
        let reading = self.machine.at(now);
        let time = clock::resume(recovered.clock.as_ref(), state.time, &reading);
        time.0.wrapping_sub(reading.since_boot)
    }
}

/// As the members API would show it.
pub(super) fn member(id: NodeId) -> Member {
    Member {
        id: id.0,
        name: format!("n{}", id.0),
        peer_urls: vec![format!("http://n{}:2380", id.0)],
        client_urls: Vec::new(),
    }
}

/// All bytes of a snapshot.
pub(super) fn snapshot_bytes(reader: &mut SnapshotReader<LyingDisk>) -> Result<Vec<u8>, WalError> {
    let mut bytes = Vec::new();
    while reader.next(&mut bytes)? {}
    Ok(bytes)
}

fn load(reader: &mut SnapshotReader<LyingDisk>) -> Result<State, WalError> {
    let position = reader.mark().position;
    let bytes = snapshot_bytes(reader)?;
    Ok(state_from(&bytes, position.index))
}

/// The state machine that a snapshot holds.
///
/// # Panics
/// When the bytes are not what was saved: their checksums were good, so we wrote them wrong.
pub(super) fn state_from(bytes: &[u8], applied: LogIndex) -> State {
    let mut loader = Loader::new(HISTORY_EVENTS);
    let loaded = loader.push(bytes).and_then(|()| loader.finish(applied));
    loaded.unwrap_or_else(|error| panic!("a good snapshot cannot be read: {error:?}"))
}
