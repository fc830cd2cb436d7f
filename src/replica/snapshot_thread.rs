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
