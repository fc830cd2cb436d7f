//! The snapshot thread: writes one version of the state to a file while the other threads continue.

use crate::engine::DiskReport as Report;
use crate::storage::snapshot::{Begun, write};
use crate::threads;
use crate::wal::{Disk, WalErrorKind};
use crossbeam_channel::{Receiver, Sender};
use std::time::Instant;

/// Writes snapshots one after the other until the WAL thread has ended.
pub fn run<D: Disk>(tasks: &Receiver<Begun<D>>, reports: &Sender<Report>) {
    for (writer, task) in tasks {
        let begun = Instant::now();
        let report = match write(writer, &task) {
            Ok(bytes) => Report::Snapshot {
                metadata: task.metadata,
                bytes,
                took: begun.elapsed(),
            },
            Err(error) if error.kind == WalErrorKind::Full => {
                log::warn!("cannot make a snapshot: {error}");
                Report::NoSnapshot
            }
            Err(error) => threads::fatal(&error.to_string()),
        };
        if reports.send(report).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::Members;
    use crate::engine::request::Task;
    use crate::engine::state::State;
    use crate::raft::{LogIndex, Membership, Position, SnapshotMetadata, Term};
    use crate::wal::{DataDir, FaultyDisk, Options, recover};
    use crossbeam_channel::unbounded;
    use std::time::Duration;

    fn task(index: u64) -> Task {
        let index = LogIndex(index);
        let mut state = State::new(Members::new(1, []), 10);
        state.applied = index;
        let metadata = SnapshotMetadata {
            position: Position {
                term: Term(1),
                index,
            },
            membership: Membership::default(),
        };
        Task { metadata, state }
    }

    /// A full disk harms nothing, and the next snapshot may fit.
    #[test]
    fn goes_on_after_a_full_disk() {
        let disk = FaultyDisk::new(1);
        let data_dir = DataDir::open(disk.clone(), Options::new("/data")).expect("it is free");
        let (wal, _) = recover(&data_dir).expect("an empty log");
        let (begun, tasks) = unbounded();
        let (reports, reported) = unbounded();
        let thread = std::thread::spawn(move || run(&tasks, &reports));
        let write = |index, capacity| {
            disk.set_capacity(u64::MAX);
            let task = task(index);
            let writer = wal.snapshots().begin(&task.metadata);
            let writer = writer.expect("the file can be made");
            disk.set_capacity(capacity);
            begun.send((writer, task)).expect("the thread runs");
        };
        let report = || reported.recv_timeout(Duration::from_secs(20));
        write(5, 0);
        assert!(matches!(report(), Ok(Report::NoSnapshot)));
        disk.set_capacity(u64::MAX);
        write(6, u64::MAX);
        assert!(matches!(report(), Ok(Report::Snapshot { .. })));
        drop(begun);
        thread.join().expect("it ends with the WAL thread");
    }
}
