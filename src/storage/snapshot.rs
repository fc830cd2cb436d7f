//! Writes a version of the state to a snapshot file, and reads one back.

use crate::engine::entry::Malformed;
use crate::engine::plausible::{self, Writer};
use crate::engine::request::Task;
use crate::engine::state::{Loader, State};
use crate::wal::{Disk, SnapshotReader, SnapshotWriter, WalError};

/// A task with its file.
pub type Begun<D> = (SnapshotWriter<D>, Task);

/// Fills the file and gives it its final name. Returns the bytes of the state in it.
///
/// # Errors
/// Those of the disk. A full disk harms nothing. After any other error the process must end.
pub fn write<D: Disk>(mut writer: SnapshotWriter<D>, task: &Task) -> Result<u64, WalError> {
    let mut bytes = 0;
    task.state.save(|slice| {
        bytes += slice.len() as u64;
        writer.write(slice)
    })?;
    writer.finish()?;
    Ok(bytes)
}

/// Reads a whole snapshot that `writer` has written, as a node does when it starts.
///
/// # Errors
/// [`Unloaded`]: it is damaged, cannot be read, or was written by another version.
pub fn load<D: Disk>(
    reader: &mut SnapshotReader<D>,
    history_events: usize,
    writer: Writer,
) -> Result<State, Unloaded> {
    let mut loader = Loader::new(history_events);
    let mut slice = Vec::new();
    while reader.next(&mut slice).map_err(Unloaded::Disk)? {
        loader.push(&slice).map_err(Unloaded::Malformed)?;
        slice.clear();
    }
    let applied = reader.mark().position.index;
    let state = loader.finish(applied).map_err(Unloaded::Malformed)?;
    let checked = plausible::check(&state, reader.mark(), writer);
    checked.map_err(Unloaded::Impossible)?;
    Ok(state)
}

/// Why a snapshot could not be loaded.
#[derive(Debug)]
pub enum Unloaded {
    /// It cannot be read, or its content has changed since it was written.
    Disk(WalError),
    /// Its content is as written, but not understood. Because of the checksums this is not damage: another version
    /// wrote it.
    Malformed(Malformed),
    /// It is understood, and no cluster can have such a state: somebody has made it up.
    Impossible(Malformed),
}
