//! What a start would find in a data directory, told without starting.
//!
//! [`wal::look`] decides about the files as a start does; here what is in them is read by the same
//! functions as at a start. So a directory that is refused here is one on which a node does not start,
//! and it says the same. Nothing is changed, no lock is kept, and a node may run on the directory.
//! [`read`] is for those who want what is in it, whether or not a node may still go on from it.

use super::stored::first_mark;
use crate::config::Stop;
use crate::engine::entry::Malformed;
use crate::engine::members::Members;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::{Ballot, Entry, LogIndex, NodeId, Payload, Position, SnapshotMark};
use crate::replica::snapshot::{self, Unloaded};
use crate::wal::{self, Disk, Holder, RealDisk, SeenSegment, SnapshotReader, WalError};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a data directory holds, all of it read and good.
pub struct Look {
    /// The process that has the directory: then all this is a moment of it.
    pub running: Option<Holder>,
    /// Whose the directory is; None where a first start was cut short: then a start takes it from its flags.
    pub identity: Option<Identity>,
    /// The newest term and vote.
    pub ballot: Ballot,
    /// The newest good snapshot's file and length of its state, if there is one.
    pub snapshot: Option<(PathBuf, u64)>,
    /// Where it stands, and who votes there; without a snapshot position 0 and the founders.
    pub mark: SnapshotMark,
    /// The same at the end of the log.
    pub end: SnapshotMark,
    /// By the snapshot this member was removed: a start refuses that.
    pub was_removed: bool,
    /// The oldest entry still in the log; above `last` when there is none.
    pub first: LogIndex,
    /// Where the log ends.
    pub last: Position,
    /// The files of the log, oldest first.
    pub segments: Vec<SeenSegment>,
    /// Records in them.
    pub records: u64,
    /// What the clocks showed when something was written last.
    pub clock: Option<wal::Clock>,
    /// What a start would say of what it mends.
    pub warnings: Vec<String>,
    /// Files that a start would remove.
    pub leftovers: Vec<PathBuf>,
    /// The state machine at the end of the log: what is committed, and what may yet be.
    pub state: State,
}

/// Why a start would refuse the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file or folder concerned.
    pub path: PathBuf,
    /// The byte in it, where there is one.
    pub offset: Option<u64>,
    /// The first entry that is lost, where it is known.
    pub index: Option<LogIndex>,
    /// The whole message, which names the place.
    pub reason: String,
    /// What to do, where the message does not say it.
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

/// Reads a data directory, and its log elsewhere if it is. `history_events`: how many past events the
/// tree keeps. None: nothing is there, and a start would begin a new member.
///
/// # Errors
/// What a start would say.
pub fn look(
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Look>, Refusal> {
    look_on(RealDisk::default(), dir, wal_dir, history_events)
}

/// As [`look`], on any disk.
///
/// # Errors
/// What a start would say.
pub fn look_on<D: Disk>(
    disk: D,
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Look>, Refusal> {
    let Some(found) = read_on(disk, dir, wal_dir, history_events)? else {
        return Ok(None);
    };
    match &found.identity {
        Some(identity) if found.was_removed => Err(was_removed(dir, identity.id)),
        _ => Ok(Some(found)),
    }
}

/// As [`look`], but the directory of a member that was removed is read as any other.
///
/// # Errors
/// What a start would say of what is there.
pub fn read(
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Look>, Refusal> {
    read_on(RealDisk::default(), dir, wal_dir, history_events)
}

fn read_on<D: Disk>(
    disk: D,
    dir: &Path,
    wal_dir: Option<&Path>,
    history_events: usize,
) -> Result<Option<Look>, Refusal> {
    let options = wal::Options {
        wal_dir: wal_dir.map(Path::to_owned),
        ..wal::Options::new(dir)
    };
    let Some(seen) = wal::look(disk, options)? else {
        return Ok(None);
    };
    let identity = seen.identity.as_deref();
    let identity = identity
        .map(|bytes| self::identity(dir, bytes))
        .transpose()?;
    if identity.is_none() && (seen.last, seen.ballot) != Default::default() {
        return Err(lost_identity(dir));
    }
    let snapshot =
        (seen.snapshot.as_ref()).map(|reader| (reader.path().to_owned(), reader.bytes()));
    let (mark, mut state) = match seen.snapshot {
        Some(reader) => load(reader, history_events).map(|(mark, state, _)| (mark, state))?,
        None => {
            let founders = identity.as_ref().map(|identity| identity.founders.clone());
            let mark = identity.as_ref().map(first_mark).unwrap_or_default();
            (
                mark,
                State::new(founders.unwrap_or_default(), history_events),
            )
        }
    };
    let me = identity.as_ref().map(|identity| NodeId(identity.id));
    let was_removed = me.is_some_and(|me| state.members.was_removed(me));
    let mut end = mark.clone();
    for entry in seen.entries {
        let entry = entry?;
        let applied = apply(&mut end, &mut state, &entry);
        applied.map_err(|what| strange_entry(&seen.segments, entry.position, what))?;
    }
    Ok(Some(Look {
        running: seen.running,
        identity,
        ballot: seen.ballot,
        snapshot,
        mark,
        end,
        was_removed,
        first: seen.first,
        last: seen.last,
        segments: seen.segments,
        records: seen.records,
        clock: seen.clock,
        warnings: seen.warnings,
        leftovers: seen.leftovers,
        state,
    }))
}

impl Look {
    /// The members at the end of the log.
    pub fn members(&self) -> &Members {
        &self.state.members
    }
}

fn apply(mark: &mut SnapshotMark, state: &mut State, entry: &Entry) -> Result<(), Malformed> {
    state.try_apply(entry)?;
    mark.position = entry.position;
    if let Payload::Change(change) = &entry.payload {
        mark.membership.change(change);
    }
    Ok(())
}

/// Reads whose directory it is.
pub(super) fn identity(dir: &Path, bytes: &[u8]) -> Result<Identity, Refusal> {
    Identity::from_bytes(bytes).map_err(|what| {
        let path = dir.join("member/identity");
        Refusal {
            reason: format!("{}: {what}", path.display()),
            hint: "start the edgetcd that wrote it, or give another --data-dir".to_owned(),
            path,
            offset: None,
            index: None,
        }
    })
}

/// Without an identity a start would make a new one from its flags, and go on with the entries and the
/// votes of whom it may not be. It is written before the first of either.
pub(super) fn lost_identity(dir: &Path) -> Refusal {
    let path = dir.join("member/identity");
    Refusal {
        reason: format!(
            "{}: it is missing, though there is a log with more than a beginning, so this node does not know \
             who it is; put it back from a copy, or move the data directory aside and add this node to its \
             cluster as a new member",
            path.display()
        ),
        hint: String::new(),
        path,
        offset: None,
        index: None,
    }
}

/// Reads a snapshot into a state; with the length of the state's bytes.
pub(super) fn load<D: Disk>(
    mut reader: SnapshotReader<D>,
    history_events: usize,
) -> Result<(SnapshotMark, State, u64), Refusal> {
    let mark = reader.mark().clone();
    match snapshot::load(&mut reader, history_events) {
        Ok(state) => Ok((mark, state, reader.bytes())),
        Err(Unloaded::Disk(error)) => Err(error.into()),
        Err(Unloaded::Malformed(Malformed(what))) => Err(Refusal {
            reason: format!(
                "{}: the snapshot passes its checksums but cannot be read: {what}",
                reader.path().display()
            ),
            hint: "it may have been written by a newer edgetcd: start that one".to_owned(),
            path: reader.path().to_owned(),
            offset: None,
            index: Some(mark.position.index),
        }),
    }
}

/// A member that was removed may not come back under its id (spec §13).
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

/// The same as what ends the process, with a status of its own: no restart mends it.
pub(super) fn stop_removed(dir: &Path, id: u64) -> Stop {
    let refusal = was_removed(dir, id);
    Stop::removed(refusal.reason, &refusal.hint)
}

/// An entry that is whole and says nothing that we know: only another version writes such.
fn strange_entry(segments: &[SeenSegment], at: Position, Malformed(what): Malformed) -> Refusal {
    // The last file that begins before the entry, or again with it, is the one that has it.
    let has_it = |segment: &&SeenSegment| segment.before.index < at.index;
    let path = segments.iter().rev().find(has_it);
    let path = path.map(|segment| segment.path.clone()).unwrap_or_default();
    Refusal {
        reason: format!("{}: entry {at} cannot be read: {what}", path.display()),
        hint: "it may have been written by a newer edgetcd: start that one".to_owned(),
        path,
        offset: None,
        index: Some(at.index),
    }
}
