//! The state on disk: recovered, or created at a first start.

use super::inspect::Refusal;
use super::no_fsync::{Unsynced, explained};
use super::{first_start, folders, force, inspect, no_fsync};
use crate::config::{Config, Stop};
use crate::dial::Tls;
use crate::engine::entry;
use crate::engine::members::Members;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::{Membership, NodeId, SnapshotMetadata, Start};
use crate::storage;
use crate::threads::Reserved;
use crate::wal::{self, DataDir, RealDisk, Recovered};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// On disks smaller than this, no additional snapshots and segments are kept.
const SMALL_DISK_BYTES: u64 = 1 << 30;

pub(super) struct Stored {
    pub identity: Identity,
    pub wal: wal::Wal<RealDisk>,
    pub start: Start,
    pub state: State,
    /// Members, their addresses and incarnations as of the end of the log.
    pub addresses: Members,
    pub clock: Option<wal::Clock>,
    pub snapshot_bytes: u64,
}

impl Stored {
    /// `thread` will be the raft thread. It loads the snapshot.
    pub fn open(config: &Config, tls: &Tls, thread: &Reserved) -> Result<Stored, Stop> {
        let mut found = None;
        if !config.data_dir.exists() {
            // Flags that contradict each other must not leave a new directory behind.
            found = Some(first_start::identity(config, tls)?);
        }
        let disk = no_fsync::disk(config);
        let data_dir = DataDir::open(disk, options(config)).map_err(refused)?;
        folders::warn(config);
        let unsynced = no_fsync::opened(config, &data_dir)?;
        let known = known(config, &data_dir)
            .map_err(|error| explained(error, &config.data_dir, unsynced))?;
        if known.is_none() && found.is_none() {
            found = Some(first_start::identity(config, tls)?);
        }
        no_fsync::settle(config, &data_dir, unsynced, known.is_none())?;
        let (mut wal, mut recovered) = wal::recover(&data_dir)
            .map_err(|error| explained(error, &config.data_dir, unsynced))?;
        // The identity is written after the log: an identity proves that there was a log.
        let identity = match (known, found) {
            (Some(identity), _) => identity,
            (None, Some(identity)) => {
                data_dir
                    .write_identity(&identity.to_bytes())
                    .map_err(refused)?;
                identity
            }
            (None, None) => unreachable!("without an identity on disk one was made"),
        };
        recovered
            .warnings
            .iter()
            .for_each(|warning| log::warn!("{warning}"));
        if config.force_new_cluster {
            force::alone(&identity, &mut wal, &mut recovered)?;
        }
        let stored = Stored::assemble(config, identity, wal, recovered, unsynced, thread)?;
        no_fsync::finish(config, &data_dir, unsynced)?;
        Ok(stored)
    }

    fn assemble(
        config: &Config,
        identity: Identity,
        wal: wal::Wal<RealDisk>,
        recovered: Recovered<RealDisk>,
        unsynced: Option<Unsynced>,
        thread: &Reserved,
    ) -> Result<Stored, Stop> {
        let first = first_metadata(&identity);
        let founders = identity.founders.clone();
        let Recovered {
            hard_state,
            snapshot,
            log,
            clock,
            ..
        } = recovered;
        let history_events = config.watch_history;
        let loading =
            snapshot.map(|reader| thread.begin(move || inspect::load(reader, history_events)));
        // The log is read at the same time.
        let about_members = storage::members::entries(&wal, &log);
        let (metadata, state, snapshot_bytes) = match loading {
            Some(loading) => (loading.recv().unwrap_or_else(|_| panicked()))
                .map_err(|error| explained(error, &config.data_dir, unsynced))?,
            None => (first, State::new(founders, history_events), 0),
        };
        let mut addresses = state.members.clone();
        about_members
            .map_err(|error| explained(error, &config.data_dir, unsynced))?
            .iter()
            .for_each(|entry| storage::members::learn(&mut addresses, entry));
        if state.members.was_removed(NodeId(identity.id)) {
            return Err(inspect::stop_removed(&config.data_dir, identity.id));
        }
        let start = Start {
            hard_state,
            snapshot: metadata,
            log,
        };
        Ok(Stored {
            identity,
            wal,
            start,
            state,
            addresses,
            clock,
            snapshot_bytes,
        })
    }
}

/// The identity in the directory. `None`: it is new.
fn known(config: &Config, data_dir: &DataDir<RealDisk>) -> Result<Option<Identity>, Refusal> {
    match data_dir.identity()? {
        Some(bytes) => inspect::identity(&config.data_dir, &bytes).map(Some),
        None if wal::has_history(data_dir)? => Err(inspect::lost_identity(&config.data_dir)),
        None => Ok(None),
    }
}

/// A critical thread has panicked, which ends the process.
fn panicked() -> ! {
    loop {
        std::thread::park();
    }
}

/// On a small disk, only the necessary files are kept: the log and two snapshots.
fn options(config: &Config) -> wal::Options {
    let disks = Disks::of(config);
    let is_small = disks.smaller() < SMALL_DISK_BYTES;
    let kept = |count: usize, least: usize| if is_small { least } else { count };
    let usual = wal::Options::new(&config.data_dir);
    let segment_bytes_max = segment_bytes_max(disks.log).min(usual.segment_bytes_max);
    wal::Options {
        wal_dir: config.wal_dir.clone(),
        log_is_apart: disks.are_two,
        segment_bytes: usual.segment_bytes.min(segment_bytes_max),
        segment_bytes_max,
        max_snapshots: kept(config.max_snapshots, 2),
        max_wals: kept(config.max_wals, 1),
        unknown: entry::unknown,
        ..usual
    }
}

/// The sizes of the file systems that hold a member's files, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disks {
    /// The file system of the snapshots.
    pub data: u64,
    /// The file system of the log, which may be elsewhere (`--wal-dir`).
    pub log: u64,
    /// Whether these are two file systems.
    pub are_two: bool,
}

impl Disks {
    pub fn of(config: &Config) -> Disks {
        let data_dir = existing(&config.data_dir);
        let wal_dir = config.wal_dir.as_deref().map_or(data_dir, existing);
        let device = |dir: &Path| std::fs::metadata(dir).map(|dir| dir.dev()).ok();
        Disks {
            data: disk_bytes(data_dir),
            log: disk_bytes(wal_dir),
            are_two: device(data_dir) != device(wal_dir),
        }
    }

    pub fn smaller(self) -> u64 {
        self.data.min(self.log)
    }
}

/// Maximum size of a segment on a disk of `disk_bytes`.
pub(super) fn segment_bytes_max(disk_bytes: u64) -> u64 {
    const PART: u64 = 32;
    const LEAST: u64 = 64 << 10;
    const MOST: u64 = 64 << 20;
    (disk_bytes / PART)
        .clamp(LEAST, MOST)
        .next_multiple_of(LEAST)
}

/// The folder, or the existing folder in which it will be created.
fn existing(dir: &Path) -> &Path {
    let there = dir.ancestors().find(|dir| dir.exists());
    there.unwrap_or(Path::new("."))
}

/// Size of the file system that contains `dir`. Unlimited if it is unknown (a ramfs reports 0).
fn disk_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir)
        .map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize))
        .ok()
        .filter(|&bytes| bytes > 0)
        .unwrap_or(u64::MAX)
}

/// The metadata before the first entry: the founders as voters, or no members for a node that joins and waits for a
/// snapshot.
pub(super) fn first_metadata(identity: &Identity) -> SnapshotMetadata {
    let founders = identity.founders.iter();
    let voters = founders.map(|member| NodeId(member.id)).collect();
    let membership = match identity.joined {
        true => Membership::default(),
        false => Membership {
            voters,
            ..Membership::default()
        },
    };
    SnapshotMetadata {
        membership,
        ..SnapshotMetadata::default()
    }
}

pub(super) fn refused(error: wal::WalError) -> Stop {
    Stop::fatal(error, "")
}
