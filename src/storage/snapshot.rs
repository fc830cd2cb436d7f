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
    while let Some(slice) = reader.slice().map_err(Unloaded::Disk)? {
        loader.push(slice).map_err(Unloaded::Malformed)?;
    }
    let applied = reader.metadata().position.index;
    let state = loader.finish(applied).map_err(Unloaded::Malformed)?;
    let checked = plausible::check(&state, reader.metadata(), writer);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::{Member, Members};
    use crate::raft::{LogIndex, Membership, NodeId, Position, SnapshotMetadata, Term};
    use crate::wal::{DataDir, FaultyDisk, Options, recover};

    /// Writes a snapshot of a cluster with one member, and loads it. `voter` is the only voter.
    fn written_and_loaded(voter: NodeId) -> Result<State, Unloaded> {
        let disk = FaultyDisk::new(1);
        let data_dir = DataDir::open(disk, Options::new("/data")).expect("the directory is free");
        let (wal, _) = recover(&data_dir).expect("an empty log");
        let member = Member {
            id: 1,
            name: "n1".into(),
            peer_urls: vec!["http://n1:2380".into()],
            client_urls: Vec::new(),
        };
        let mut state = State::new(Members::new(1, [member]), 100);
        state.applied = LogIndex(5);
        let metadata = SnapshotMetadata {
            position: Position {
                term: Term(1),
                index: LogIndex(5),
            },
            membership: Membership {
                voters: [voter].into(),
                learners: [].into(),
            },
        };
        let writer = wal.snapshots().begin(&metadata).expect("there is room");
        let bytes = write(writer, &Task { metadata, state }).expect("there is room");
        let newest = wal.snapshots().newest().expect("the disk works");
        let mut reader = newest.expect("it has its final name");
        assert!(bytes > 0 && reader.bytes() >= bytes);
        load(&mut reader, 100, Writer::Member)
    }

    #[test]
    fn what_was_written_is_loaded() {
        let state = written_and_loaded(NodeId(1)).expect("a snapshot of a cluster");
        assert_eq!(state.applied, LogIndex(5));
        assert!(state.members.get(NodeId(1)).is_some());
    }

    /// Its checksums fit, as whoever makes such a file computes them.
    #[test]
    fn a_snapshot_that_no_cluster_writes_is_not_loaded() {
        let loaded = written_and_loaded(NodeId(9));
        assert!(matches!(loaded, Err(Unloaded::Impossible(_))));
    }
}
