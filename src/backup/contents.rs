//! The content of a backup: read from a file, or from the directory of a member that is not running.

use super::BackupError;
use crate::engine::plausible::Writer;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::node;
use crate::raft::{NodeId, SnapshotMetadata};
use crate::storage::snapshot::{self, Unloaded};
use crate::wal::{Disk, RealDisk, SliceEncoder, SnapshotReader};
use std::io::{self, Write};
use std::path::Path;

/// A state and its origin.
pub struct Contents {
    /// Metadata of the snapshot: its position and the members at that position.
    pub metadata: SnapshotMetadata,
    /// The complete state, with as many past events as were requested.
    pub state: State,
    /// Distinguishes this backup from every other one; see [`SnapshotReader::fingerprint`].
    pub fingerprint: u64,
    /// Length of the file. 0 if the backup was not read from a file.
    pub bytes: u64,
}

impl Contents {
    /// Writes the backup as a file that [`read_file`] can read. Returns the file's length.
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
        let mut slices = SliceEncoder::begin(salt, &self.metadata, &mut piece);
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

/// Number of past events that are kept when a directory is read: the default of a server. More would cost memory,
/// perhaps more than there is, and few servers would use them.
pub const HISTORY_EVENTS: usize = 1000;

/// The data of a member that is not running.
pub struct Directory {
    /// The state after all entries of the log, whether or not they are known to be committed.
    pub contents: Contents,
    /// Identity of the directory's member.
    pub identity: Identity,
    /// The warnings that a start would log about its repairs.
    pub warnings: Vec<String>,
    /// Whether a node is running in the directory. Then the content is that of one moment.
    pub is_running: bool,
}

impl Directory {
    /// The member's name, as its cluster knows it. Empty if the member has not published one.
    pub fn name(&self) -> String {
        let me = NodeId(self.identity.id);
        let member = self.contents.state.members.get(me);
        let member = member.or_else(|| self.identity.founders.get(me));
        member.map_or_else(String::new, |member| member.name.clone())
    }
}

/// Reads a snapshot file in any place, in the same way as a node reads its own. Of the past events in it, the newest
/// `history_events` are kept.
///
/// # Errors
/// The file is damaged (the error names the place), or another version wrote it.
pub fn read_file(path: &Path, history_events: usize) -> Result<Contents, BackupError> {
    let mut reader = SnapshotReader::open_file(&RealDisk::default(), path)?;
    let state = snapshot::load(&mut reader, history_events, Writer::Anybody).map_err(|unloaded| match unloaded {
        Unloaded::Disk(error) => BackupError::Disk(error),
        Unloaded::Malformed(error) => BackupError::Refused(format!(
            "{}: it passes its checksums but cannot be decoded: {}; a newer edgetcd may have written it",
            path.display(),
            error.0
        )),
        Unloaded::Impossible(error) => BackupError::Refused(format!(
            "{}: it passes its checksums, but {}",
            path.display(),
            error.0
        )),
    })?;
    Ok(Contents {
        metadata: reader.metadata().clone(),
        state,
        fingerprint: reader.fingerprint(),
        bytes: reader.file_bytes(),
    })
}

/// Reads a data directory: its newest snapshot and the complete log after it. Changes nothing in the directory and
/// keeps no lock. A directory of a member that was removed from its cluster is accepted, because it may be the last
/// copy.
///
/// # Errors
/// A node would not start on the directory (with the same message), or there is no member's data in it.
pub fn read_directory(dir: &Path, wal_dir: Option<&Path>) -> Result<Directory, BackupError> {
    let nothing = |what: &str| BackupError::Refused(format!("{}: {what}", dir.display()));
    let found = node::read(dir, wal_dir, HISTORY_EVENTS)
        .map_err(|refusal| BackupError::Refused(refusal.to_string()))?;
    let found = found.ok_or_else(|| {
        nothing("there is no data of a member here; use the --data-dir of the server")
    })?;
    let identity = found.identity.ok_or_else(|| {
        nothing("a member's first start was interrupted here, so there is no data to save")
    })?;
    Ok(Directory {
        contents: Contents {
            metadata: found.end,
            state: found.state,
            fingerprint: super::random(),
            bytes: 0,
        },
        identity,
        warnings: found.warnings,
        is_running: found.running.is_some(),
    })
}
