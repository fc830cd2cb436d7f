//! The write-ahead log.
mod compact;
mod disk;
mod dump;
mod error;
mod home;
mod index;
pub mod lying;
mod map;
mod names;
mod reader;
mod real;
mod record;
mod recover;
mod replay;
mod scan;
mod shape;
mod snapshot;
mod spare;
mod stats;
mod writer;

pub use disk::{Disk, DiskReader, DiskSegment, DiskWriter, Found, Locked};
pub use dump::{Line, dump};
pub use error::{WalError, WalErrorKind};
pub use home::{Home, Options};
pub use lying::LyingDisk;
pub use reader::LogReader;
pub use real::{RealDisk, WritePath};
pub use recover::{Recovered, recover};
pub use snapshot::{SnapshotReader, SnapshotWriter, Snapshots};
pub use stats::{SYNC_BUCKETS, WalStats};
pub use writer::Wal;

use crate::raft::{Ballot, Entry};

/// What the clocks showed when something was written, so that a restart on the same boot can count
/// the time it was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// The kernel's random id of this boot.
    pub boot_id: [u8; 16],
    /// CLOCK_BOOTTIME, in nanoseconds.
    pub boottime_ns: u64,
    /// The cluster's time at that moment, in nanoseconds.
    pub cluster_ns: u64,
}

/// What is written together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The node's term and vote, if they changed.
    pub ballot: Option<Ballot>,
    /// Consecutive entries; they take the place of all from the first one's index on.
    pub entries: Vec<Entry>,
    pub clock: Option<Clock>,
}
