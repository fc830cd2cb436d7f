//! One machine: its disk, its clocks, and the process on it.

use super::any_engine::{AnyEngine, DiskRules};
use super::clock::Machine;
use super::identity::Identity;
use super::records::Shadow;
use crate::engine::members::{Member, Members};
use crate::engine::request::Request;
use crate::engine::state::{Loader, State};
use crate::engine::time::{Estimate, Monotonic, Now};
use crate::raft::{LogIndex, Membership, NodeId, Position, SnapshotMetadata, Start, Term};
use crate::storage::clock::{self, Clock};
use crate::storage::jobs::{Job, LogJobs};
use crate::storage::snapshot::Begun;
use crate::tree::ClusterTime;
use crate::wal::{
    DataDir, FaultyDisk, Options, Recovered, SnapshotReader, SnapshotWriter, Wal, WalError, recover,
};
use crate::watch::View;
use crate::watch::matching::Watchers;
use std::collections::{BTreeMap, VecDeque};

/// Number of events that a tree keeps. It is small, so that a tree can be hashed quickly.
const HISTORY_EVENTS: usize = 24;

/// One machine: everything that survives the end of the process.
pub(super) struct Node {
    pub id: NodeId,
    pub disk: FaultyDisk,
    pub machine: Machine,
    /// Number of processes so far. Events for an earlier process are dropped.
    pub life_number: u64,
    pub life: Option<Life>,
    /// The process is stopped until this time, as by SIGSTOP. Its events wait.
    pub paused_until: u64,
    pub slow_disk_until: u64,
    /// The disk hangs until this time.
    pub hung_disk_until: u64,
    /// The number of stored entries that its next start does not find.
    pub loses_tail: u64,
    /// The member has learnt of its removal, and stays down.
    pub retired: bool,
    /// The flags of a first start: the members of a new cluster. None: it joins the cluster that has added it.
    pub initial_cluster: Option<Members>,
    /// The URL at which the others reach it, if that is not the one of [`member`].
    pub address: Option<String>,
    /// From its next start on, it has the address that the operator has announced.
    pub moves: bool,
    /// None: the data directory is empty.
    pub identity: Option<Identity>,
}

/// A running process: an engine, and the data of the threads around it.
pub(super) struct Life {
    pub engine: Box<dyn AnyEngine>,
    /// The transport's table of members.
    pub table: Members,
    /// The published view.
    pub view: View,
    /// The numbers of the watchers at this node.
    pub watchers: Watchers<usize>,
    /// Requests that wait until the engine takes them.
    pub requests: VecDeque<Request<u64>>,
    /// When the engine took each request that it has not answered yet.
    pub pending: BTreeMap<u64, Monotonic>,
    /// What the check of the pending requests depends on has changed since the last one.
    pub has_news: bool,
    /// Forwarded writes, with the number and term of the message.
    pub forwarded: BTreeMap<u64, (u64, Term)>,
    pub log: LogJobs<FaultyDisk, DiskRules>,
    /// Jobs for the disk. The first one is in progress.
    pub jobs: VecDeque<Job>,
    pub disk_is_busy: bool,
    /// Snapshots to be written. The first one is in progress.
    pub begun: VecDeque<Begun<FaultyDisk>>,
    /// A received snapshot, until the engine installs or discards it.
    pub incoming: Option<Incoming>,
    /// Snapshots that are being sent to other members, by receiver.
    pub streams: BTreeMap<NodeId, u64>,
    /// The latest cluster time in a message of a leader, and its term.
    pub time_heard: (Term, ClusterTime),
    /// The last message that it has sent as a leader: the term, the cluster time, and the time by its own clock.
    pub told: Option<(Term, ClusterTime, Monotonic)>,
    /// When it received the order to stop.
    pub stopping: Option<Monotonic>,
    /// What a reader of its records knows.
    pub shadow: Shadow,
}

/// The file of a received snapshot, and the member that gets the report.
pub(super) struct Incoming {
    /// None: it was handed to the disk.
    pub writer: Option<SnapshotWriter<FaultyDisk>>,
    pub from: NodeId,
    pub stream: u64,
}

impl Node {
    pub fn new(id: NodeId, seed: u64, machine: Machine, initial_cluster: Option<Members>) -> Node {
        Node {
            id,
            disk: FaultyDisk::new(seed),
            machine,
            life_number: 0,
            life: None,
            paused_until: 0,
            slow_disk_until: 0,
            hung_disk_until: 0,
            loses_tail: 0,
            retired: false,
            initial_cluster,
            address: None,
            moves: false,
            identity: None,
        }
    }

    /// The readings of its clocks.
    pub fn now(&self, now: u64) -> Now {
        self.machine.at(now).now()
    }

    /// Recovers what is on disk, as a starting server does.
    pub fn recover(
        &self,
        memory_bytes: usize,
    ) -> Result<(Wal<FaultyDisk>, Recovered<FaultyDisk>), WalError> {
        let options = Options {
            tail_bytes: memory_bytes,
            segment_bytes: 8 << 10,
            segment_bytes_max: 32 << 10,
            max_snapshots: 2,
            max_wals: 2,
            ..Options::new("/data")
        };
        let data_dir = DataDir::open(self.disk.clone(), options)?;
        let found = recover(&data_dir)?;
        if data_dir.identity()?.is_none() {
            data_dir.write_identity(&self.id.0.to_le_bytes())?;
        }
        Ok(found)
    }

    /// The start of the core, the state of the snapshot, and the snapshot's bytes.
    pub fn start_of(
        &self,
        recovered: &mut Recovered<FaultyDisk>,
    ) -> Result<(Start, State, u64), WalError> {
        let (metadata, state, bytes) = match recovered.snapshot.take() {
            Some(mut reader) => {
                let bytes = snapshot_bytes(&mut reader)?;
                let metadata = reader.metadata().clone();
                let state = state_from(&bytes, metadata.position.index);
                (metadata, state, bytes.len() as u64)
            }
            None => {
                let identity = self.identity.as_ref();
                let Identity {
                    founders, joined, ..
                } = identity.expect("a process has one");
                let voters = founders.iter().map(|member| NodeId(member.id));
                let membership = Membership {
                    voters: voters.filter(|_| !joined).collect(),
                    ..Membership::default()
                };
                let metadata = SnapshotMetadata {
                    position: Position::default(),
                    membership,
                };
                (metadata, State::new(founders.clone(), HISTORY_EVENTS), 0)
            }
        };
        let start = Start {
            hard_state: recovered.hard_state,
            snapshot: metadata,
            log: recovered.log.clone(),
        };
        Ok((start, state, bytes))
    }

    /// Cluster time at a start.
    pub fn resume(&self, recovered: &Recovered<FaultyDisk>, state: &State, now: u64) -> Estimate {
        let reading = self.machine.at(now);
        let time = clock::resume(recovered.clock.as_ref(), state.time, &reading);
        Estimate::new(time, reading.now().monotonic)
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
pub(super) fn snapshot_bytes(reader: &mut SnapshotReader<FaultyDisk>) -> Result<Vec<u8>, WalError> {
    let mut bytes = Vec::new();
    while reader.next(&mut bytes)? {}
    Ok(bytes)
}

/// The state machine that a snapshot holds.
///
/// # Panics
/// The bytes cannot be decoded. Their checksums are valid, so this program has written them wrongly.
pub(super) fn state_from(bytes: &[u8], applied: LogIndex) -> State {
    let mut loader = Loader::new(HISTORY_EVENTS);
    let loaded = loader.push(bytes).and_then(|()| loader.finish(applied));
    loaded.unwrap_or_else(|error| panic!("a good snapshot cannot be read: {error:?}"))
}
