//! What a backup holds: read from a file, or put together from the directory of a member that does not serve.

use super::BackupError;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::node;
use crate::raft::{NodeId, SnapshotMark};
use crate::replica::snapshot::{self, Unloaded};
use crate::wal::{Disk, RealDisk, SliceEncoder, SnapshotReader};
use std::io::{self, Write};
use std::path::Path;

/// A state, and where it comes from.
pub struct Contents {
    /// The point it stands for, and who were the members there.
    pub mark: SnapshotMark,
    /// All of it, with as many of the past events as were asked for.
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

/// How many past events are kept of a directory: as many as a server keeps that is told nothing else.
/// More would cost memory, perhaps more than there is, for what few servers would take.
pub const HISTORY_EVENTS: usize = 1000;

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

/// Reads a snapshot file, wherever it lies, just as a node reads its own, with the newest `history_events` of the
/// past events in it.
///
/// # Errors
/// It is damaged, with the place, or was written by another version.
pub fn read_file(path: &Path, history_events: usize) -> Result<Contents, BackupError> {
    let mut reader = SnapshotReader::open_file(&RealDisk::default(), path)?;
    let state = snapshot::load(&mut reader, history_events).map_err(|unloaded| match unloaded {
        Unloaded::Disk(error) => BackupError::Disk(error),
        Unloaded::Malformed(error) => BackupError::Refused(format!(
            "{}: it passes its checksums but cannot be read: {}; it may have been written by a newer edgetcd",
            path.display(),
            error.0
        )),
    })?;
    Ok(Contents {
        mark: reader.mark().clone(),
        state,
        fingerprint: reader.fingerprint(),
        bytes: reader.file_bytes(),
    })
}

/// Reads a data directory: its newest snapshot, and all of the log after it. Nothing is changed there, and no
/// lock is kept. A member that was removed from its cluster may have the last copy: that is no obstacle.
///
/// # Errors
/// A node would not start there, and why, in its words; or nothing is there.
pub fn read_directory(dir: &Path, wal_dir: Option<&Path>) -> Result<Directory, BackupError> {
    let nothing = |what: &str| BackupError::Refused(format!("{}: {what}", dir.display()));
    let found = node::read(dir, wal_dir, HISTORY_EVENTS)
        .map_err(|refusal| BackupError::Refused(refusal.to_string()))?;
    let found = found.ok_or_else(|| {
        nothing("no member has its data here; is it the --data-dir that the server is given?")
    })?;
    let identity = found.identity.ok_or_else(|| {
        nothing("a member's first start was cut short here, so there is nothing to be saved")
    })?;
    Ok(Directory {
        contents: Contents {
            mark: found.end,
            state: found.state,
            fingerprint: super::random(),
            bytes: 0,
        },
        identity,
        warnings: found.warnings,
        is_running: found.running.is_some(),
    })
}
