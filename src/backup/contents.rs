//! What a backup holds: read from a file, or put together from the directory of a member that does not serve.

use super::BackupError;
use crate::identity::Identity;
use crate::raft::{Entry, LogIndex, Membership, NodeId, Payload, Position, SnapshotMark};
use crate::replica::state::{State, Unloaded};
use crate::wal::{self, Disk, Options, RealDisk, Seen, SliceEncoder, SnapshotReader};
use std::io::{self, Write};
use std::path::Path;

/// A state, and where it comes from.
pub struct Contents {
    /// The point it stands for, and who were the members there.
    pub mark: SnapshotMark,
    /// All of it, with all the events that are kept.
    pub state: State,
    /// Tells one backup from any other; see [`SnapshotReader::fingerprint`].
    pub fingerprint: u64,
    /// Of the file.
    pub bytes: u64,
}

impl Contents {
    /// Writes it as a file that [`read_file`] reads, and tells its length.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut bytes = 0;
        let mut put = |piece: &mut Vec<u8>| -> io::Result<()> {
            bytes += piece.len() as u64;
            out.write_all(piece)?;
            piece.clear();
            Ok(())
        };
        let mut piece = Vec::new();
        let salt = RealDisk::default().random();
        let mut slices = SliceEncoder::begin(salt, &self.mark, &mut piece);
        self.state.save(|slice| {
            slices.write(slice, &mut piece);
            put(&mut piece)
        })?;
        slices.end(&mut piece);
        put(&mut piece)?;
        out.flush()?;
        Ok(bytes)
    }
}

/// What a member that does not serve has.
pub struct Directory {
    /// All entries of its log applied, whether or not they are known to be committed.
    pub contents: Contents,
    /// Whose directory it is.
    pub identity: Identity,
    /// What a start would say of what it mends.
    pub warnings: Vec<String>,
    /// A node has the directory: this is a moment of it.
    pub is_running: bool,
}

impl Directory {
    /// The member's name, as its cluster knows it; empty if it has told none.
    pub fn name(&self) -> String {
        let me = NodeId(self.identity.id);
        let member = self.contents.state.members.get(me);
        let member = member.or_else(|| self.identity.founders.get(me));
        member.map_or_else(String::new, |member| member.name.clone())
    }
}

/// Reads a snapshot file, wherever it lies, just as a node reads its own.
///
/// # Errors
/// It is damaged, with the place, or was written by another version.
pub fn read_file(path: &Path) -> Result<Contents, BackupError> {
    let mut reader = SnapshotReader::open_file(&RealDisk::default(), path)?;
    let state = load(path, &mut reader)?;
    Ok(Contents {
        mark: reader.mark().clone(),
        state,
        fingerprint: reader.fingerprint(),
        bytes: reader.file_bytes(),
    })
}

fn load(path: &Path, reader: &mut SnapshotReader<RealDisk>) -> Result<State, BackupError> {
    State::load(reader, usize::MAX).map_err(|unloaded| match unloaded {
        Unloaded::Disk(error) => BackupError::Disk(error),
        Unloaded::Malformed(error) => BackupError::Refused(format!(
            "{}: it passes its checksums but cannot be read: {}; it may have been written by a newer edgetcd",
            path.display(),
            error.0
        )),
    })
}

/// Reads a data directory: its newest snapshot, and all of the log after it. Nothing is changed there, and no
/// lock is taken.
///
/// # Errors
/// A node would not start there, and why; or nothing is there.
pub fn read_directory(dir: &Path, wal_dir: Option<&Path>) -> Result<Directory, BackupError> {
    let options = Options {
        wal_dir: wal_dir.map(Path::to_path_buf),
        ..Options::new(dir)
    };
    let nothing = || {
        let what = "no member has its data here; is it the --data-dir that the server is given?";
        BackupError::Refused(format!("{}: {what}", dir.display()))
    };
    let seen = wal::look(RealDisk::default(), options)?.ok_or_else(nothing)?;
    let identity = seen.identity.as_ref().ok_or_else(nothing)?;
    let identity = Identity::from_bytes(identity).map_err(|what| {
        BackupError::Refused(format!("the identity in {}: {what}", dir.display()))
    })?;
    let (warnings, is_running) = (seen.warnings.clone(), seen.running.is_some());
    Ok(Directory {
        contents: contents(dir, &identity, seen)?,
        identity,
        warnings,
        is_running,
    })
}

fn contents(
    dir: &Path,
    identity: &Identity,
    mut seen: Seen<RealDisk>,
) -> Result<Contents, BackupError> {
    let (mut mark, mut state) = match &mut seen.snapshot {
        Some(reader) => (reader.mark().clone(), load(dir, reader)?),
        None => first(identity),
    };
    for entry in seen.entries {
        let entry = entry?;
        apply(&mut mark, &mut state, &entry).map_err(|what| {
            let index = entry.position.index.0;
            BackupError::Refused(format!(
                "{}: entry {index} cannot be read: {what}; it may have been written by a newer edgetcd",
                dir.display()
            ))
        })?;
    }
    Ok(Contents {
        mark,
        state,
        fingerprint: super::random(),
        bytes: 0,
    })
}

/// Before the first entry.
fn first(identity: &Identity) -> (SnapshotMark, State) {
    let state = State::new(identity.founders.clone(), usize::MAX);
    let founders = identity.founders.iter();
    let voters = match identity.joined {
        true => Vec::new(),
        false => founders.map(|member| NodeId(member.id)).collect(),
    };
    let mark = SnapshotMark {
        position: Position::default(),
        membership: Membership {
            voters: voters.into_iter().collect(),
            ..Membership::default()
        },
    };
    (mark, state)
}

fn apply(mark: &mut SnapshotMark, state: &mut State, entry: &Entry) -> Result<(), String> {
    assert_eq!(
        entry.position.index,
        LogIndex(state.applied.0 + 1),
        "the log has no gaps"
    );
    state.try_apply(entry).map_err(|malformed| malformed.0)?;
    mark.position = entry.position;
    if let Payload::Change(change) = &entry.payload {
        mark.membership.change(change);
    }
    Ok(())
}
