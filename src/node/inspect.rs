//! Inspects a data directory: reports what a start would find in it, without starting.
//!
//! [`wal::inspect`] makes the same decisions about the files as a start. The content of the files is read by the same
//! functions as at a start. So if this inspection refuses a directory, a node does not start on it and reports the same
//! error. The inspection changes nothing and holds no lock, so a node may run on the directory. [`read`] returns the
//! content even if a node may no longer start from it.

use super::no_fsync::{Unsynced, explained};
use super::stored::first_metadata;
use crate::config::Stop;
use crate::engine::entry::{self, Malformed};
use crate::engine::members::Members;
use crate::engine::plausible::Writer;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::{Entry, HardState, LogIndex, NodeId, Payload, Position, SnapshotMetadata};
use crate::storage::snapshot::{self, Unloaded};
use crate::wal::{self, Disk, Holder, InspectedSegment, RealDisk, SnapshotReader, WalError};
use std::fmt;
use std::path::{Path, PathBuf};

/// The content of a data directory, all of it read and verified.
pub struct Inspected {
    /// The process that uses the directory now. If there is one, the result shows the state at one moment.
    pub running: Option<Holder>,
    /// The identity of the directory's member. `None` if a first start was cut short; the next start then takes the
    /// identity from its flags.
    pub identity: Option<Identity>,
    /// The newest hard state (term and vote).
    pub hard_state: HardState,
    /// File and state length of the newest valid snapshot, if there is one.
    pub snapshot: Option<(PathBuf, u64)>,
    /// Its metadata. Without a snapshot: position 0, and the founders as voters.
    pub metadata: SnapshotMetadata,
    /// The same at the end of the log.
    pub end: SnapshotMetadata,
    /// Whether the snapshot says that this member was removed. A start refuses that.
    pub was_removed: bool,
    /// The oldest entry that is still in the log; greater than `last` if there is none.
    pub first: LogIndex,
    /// Position of the last entry.
    pub last: Position,
    /// The segments of the log, oldest first.
    pub segments: Vec<InspectedSegment>,
    /// Number of records in them.
    pub records: u64,
    /// The warnings that a start would log about its repairs.
    pub warnings: Vec<String>,
    /// Files that a start would remove.
    pub leftovers: Vec<PathBuf>,
    /// Since when the directory has been written without syncs. `None`: it was written with syncs.
    pub unsynced: Option<Unsynced>,
    /// The state machine after all entries of the log, including those that may not be committed yet.
    pub state: State,
}

/// Why a start would refuse the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file or folder with the problem.
    pub path: PathBuf,
    /// The offset in the file, if there is one.
    pub offset: Option<u64>,
    /// The first lost entry, if it is known.
    pub index: Option<LogIndex>,
    /// The whole message. It names the place.
    pub reason: String,
    /// What the operator can do, if the message does not contain it.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hint.is_empty() {
            true => write!(f, "{}", self.reason),
            false => write!(f, "{}\n  {}", self.reason, self.hint),
        }
    }
}

impl From<WalError> for Refusal {
    fn from(error: WalError) -> Refusal {
        Refusal {
            reason: error.to_string(),
            hint: String::new(),
            path: error.path,
            offset: error.offset,
            index: error.index,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::fatal(refusal.reason, &refusal.hint)
    }
}

/// Inspects a data directory and its log, which may be in another folder. `history_events`: the number of past events
/// that the tree keeps. Returns `None` if the directory is empty, so that a start would create a new member.
///
/// # Errors
/// The error that a start would report.
pub fn inspect(
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Inspected>, Refusal> {
    inspect_on(RealDisk::default(), dir, wal_dir, history_events)
}

/// Like [`inspect`], on any disk.
///
/// # Errors
/// The error that a start would report.
pub fn inspect_on<D: Disk>(
    disk: D,
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Inspected>, Refusal> {
    let Some(found) = read_on(disk, dir, wal_dir, history_events)? else {
        return Ok(None);
    };
    match &found.identity {
        Some(identity) if found.was_removed => Err(was_removed(dir, identity.id)),
        _ => Ok(Some(found)),
    }
}

/// Like [`inspect`], but also reads the directory of a removed member.
///
/// # Errors
/// The error that a start would report about the rest.
pub fn read(
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Inspected>, Refusal> {
    read_on(RealDisk::default(), dir, wal_dir, history_events)
}

fn read_on<D: Disk>(
    disk: D,
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Inspected>, Refusal> {
    let options = wal::Options {
        wal_dir: wal_dir.map(Path::to_owned),
        unknown: entry::unknown,
        ..wal::Options::new(dir)
    };
    read_files(disk.clone(), options.clone(), history_events).map_err(|refusal| {
        let unsynced = wal::unsynced_since(disk, options).map(Unsynced::since);
        explained(refusal, dir, unsynced)
    })
}

fn read_files<D: Disk>(
    disk: D,
    options: wal::Options,
    history_events: usize,
) -> Result<Option<Inspected>, Refusal> {
    let dir = &options.dir.clone();
    let Some(seen) = wal::inspect(disk, options)? else {
        return Ok(None);
    };
    let identity = seen.identity.as_deref();
    let identity = identity
        .map(|bytes| self::identity(dir, bytes))
        .transpose()?;
    if identity.is_none() && (seen.last, seen.hard_state) != Default::default() {
        return Err(lost_identity(dir));
    }
    let snapshot =
        (seen.snapshot.as_ref()).map(|reader| (reader.path().to_owned(), reader.bytes()));
    let (metadata, mut state) = match seen.snapshot {
        Some(reader) => {
            load(reader, history_events).map(|(metadata, state, _)| (metadata, state))?
        }
        None => {
            let founders = identity.as_ref().map(|identity| identity.founders.clone());
            let metadata = identity.as_ref().map(first_metadata).unwrap_or_default();
            (
                metadata,
                State::new(founders.unwrap_or_default(), history_events),
            )
        }
    };
    let me = identity.as_ref().map(|identity| NodeId(identity.id));
    let was_removed = me.is_some_and(|me| state.members.was_removed(me));
    let mut end = metadata.clone();
    for entry in seen.entries {
        let entry = entry?;
        let applied = apply(&mut end, &mut state, &entry);
        applied.map_err(|what| strange_entry(&seen.segments, entry.position, what))?;
    }
    Ok(Some(Inspected {
        running: seen.running,
        identity,
        hard_state: seen.hard_state,
        snapshot,
        metadata,
        end,
        was_removed,
        first: seen.first,
        last: seen.last,
        segments: seen.segments,
        records: seen.records,
        warnings: seen.warnings,
        leftovers: seen.leftovers,
        unsynced: seen.unsynced_since.map(Unsynced::since),
        state,
    }))
}

impl Inspected {
    /// The members at the end of the log.
    pub fn members(&self) -> &Members {
        &self.state.members
    }
}

fn apply(
    metadata: &mut SnapshotMetadata,
    state: &mut State,
    entry: &Entry,
) -> Result<(), Malformed> {
    state.try_apply(entry)?;
    metadata.position = entry.position;
    if let Payload::Change(change) = &entry.payload {
        metadata.membership.change(change);
    }
    Ok(())
}

/// Decodes the identity of a directory.
pub(super) fn identity(dir: &Path, bytes: &[u8]) -> Result<Identity, Refusal> {
    Identity::from_bytes(bytes).map_err(|what| {
        let path = dir.join("member/identity");
        Refusal {
            reason: format!("{}: {what}", path.display()),
            hint: "start the version of edgetcd that wrote it, or use another --data-dir"
                .to_owned(),
            path,
            offset: None,
            index: None,
        }
    })
}

/// The error for a missing identity. A start would otherwise create a new identity from its flags, and continue with
/// the entries and votes of a member that may be another one. The identity is written before the first entry and the
/// first vote.
pub(super) fn lost_identity(dir: &Path) -> Refusal {
    let path = dir.join("member/identity");
    Refusal {
        reason: format!(
            "{}: it is missing, but the log contains records, so this node does not know its own id; restore \
             the file from a copy, or move the data directory aside and add this node to its cluster as a \
             new member",
            path.display()
        ),
        hint: String::new(),
        path,
        offset: None,
        index: None,
    }
}

/// Reads a snapshot into a state. Also returns the length of the encoded state.
pub(super) fn load<D: Disk>(
    mut reader: SnapshotReader<D>,
    history_events: usize,
) -> Result<(SnapshotMetadata, State, u64), Refusal> {
    let metadata = reader.metadata().clone();
    match snapshot::load(&mut reader, history_events, Writer::Member) {
        Ok(state) => Ok((metadata, state, reader.bytes())),
        Err(Unloaded::Disk(error)) => Err(error.into()),
        Err(Unloaded::Malformed(Malformed(what))) => Err(Refusal {
            reason: format!(
                "{}: the snapshot passes its checksums but cannot be decoded: {what}",
                reader.path().display()
            ),
            hint: "a newer edgetcd may have written it: start that version".to_owned(),
            path: reader.path().to_owned(),
            offset: None,
            index: Some(metadata.position.index),
        }),
        Err(Unloaded::Impossible(Malformed(what))) => Err(Refusal {
            reason: format!("{}: the snapshot passes its checksums, but {what}", reader.path().display()),
            hint: "it was changed by hand: restore a backup, or add this node to its cluster as a new member"
                .to_owned(),
            path: reader.path().to_owned(),
            offset: None,
            index: Some(metadata.position.index),
        }),
    }
}

/// The error for a removed member: it must not return under its id (spec §13).
pub(super) fn was_removed(dir: &Path, id: u64) -> Refusal {
    Refusal {
        reason: format!("member {id:x} was permanently removed from its cluster"),
        hint: format!(
            "to join again, add it (edgetcdctl member add NAME PEER-URL) and start it with \
             --initial-cluster-state existing on an empty --data-dir, not {}",
            dir.display()
        ),
        path: dir.to_owned(),
        offset: None,
        index: None,
    }
}

/// The same as the error that ends the process, with its own exit status: a restart cannot solve it.
pub(super) fn stop_removed(dir: &Path, id: u64) -> Stop {
    let refusal = was_removed(dir, id);
    Stop::removed(refusal.reason, &refusal.hint)
}

/// The error for a complete entry with unknown content: only another version writes such entries.
fn strange_entry(
    segments: &[InspectedSegment],
    at: Position,
    Malformed(what): Malformed,
) -> Refusal {
    // The entry is in the last file that begins before it. An earlier file may contain a replaced entry with the same
    // index.
    let has_it = |segment: &&InspectedSegment| segment.before.index < at.index;
    let path = segments.iter().rev().find(has_it);
    let path = path.map(|segment| segment.path.clone()).unwrap_or_default();
    Refusal {
        reason: format!("{}: entry {at} cannot be decoded: {what}", path.display()),
        hint: "a newer edgetcd may have written it: start that version".to_owned(),
        path,
        offset: None,
        index: Some(at.index),
    }
}
