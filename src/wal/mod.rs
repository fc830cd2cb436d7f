//! The write-ahead log (WAL): everything this member must not forget, stored on disk.
//!
//! Raft is safe only if a member never forgets its hard state (term and vote, `HardState` in the code) or an entry that it
//! has acknowledged (paper §5). This module writes both as records to one log, syncs them, and reads them back after a
//! restart or a crash. It also stores snapshots of the state machine, so that the log before a snapshot can be deleted.
//! The module knows raft's entries, but does not interpret the commands in them.
//!
//! A record is durable when [`Wal::sync`] has returned, not before. Bytes that were written but not synced may be
//! completely, partly or not at all on disk after a crash.
//!
//! # Terms
//!
//! - A *segment* is one file of the log. Its size is fixed, and its blocks are allocated before it is used. The writer
//!   appends to the *active* segment. A background thread prepares the next one. Older segments are *sealed*.
//! - A *batch* is everything that the caller hands over in one call. A *record* is one item of it: an entry, a hard
//!   state, or a note about the log itself.
//! - A record's *durable offset* says how much of its file was synced when the record was written. Such a record is a
//!   *witness*: it proves that everything before that offset was durable.
//!
//! # Where to read
//!
//! | file                            | purpose                                                                     |
//! |---------------------------------|-----------------------------------------------------------------------------|
//! | `record`                        | the format of one record                                                    |
//! | `scan`                          | reads records through a window of the file                                  |
//! | `sums`                          | checks many candidate records in one pass, to find witnesses                |
//! | `writer`                        | appends and syncs                                                           |
//! | `spare`                         | prepares the next segment                                                   |
//! | `replay`                        | reads the chain of segments                                                 |
//! | `decide`                        | decides what a start must do about them                                     |
//! | `recover`                       | carries out that decision                                                   |
//! | `inspect`                       | inspects: reports the decision and changes nothing                          |
//! | `snapshot`, `slices`, `compact` | snapshot files, their bytes, and the deletion of old log                    |
//! | `index`, `reader`               | find and read entries by index                                              |
//! | `data_dir`, `names`                 | the data directory with its lock, and the names of its files                |
//! | `unsynced`                      | the mark of a data directory that is written without syncs                  |
//! | `disk`                          | the [`Disk`] trait: every operation that this module needs from a disk      |
//! | `real`                          | [`Disk`] of the machine                                                     |
//! | [`faulty`]                       | [`Disk`] in memory for tests: it keeps only what was synced                 |
//!
//! The transcripts in `tests/transcripts/wal` show all of this at work.
//!
//! # A segment
//!
//! A segment's name (`0000000000000007-5f3a9c21.wal`) contains its number and its salt. Its first record, the head,
//! repeats number, salt and file size. The head also holds the state of the log before this segment (last position,
//! hard state, clock), so that this state survives the deletion of older segments. Records follow each other without
//! gaps. The rest of the file is zeros. An entry whose index the log already contains replaces the old entry and all
//! later ones; the old records stay in the file. If a batch does not fit, the writer appends the part that fits, then a
//! seal record, which contains the salt of the next segment. It syncs the seal before it writes the first byte of the
//! next segment. Therefore a segment with records proves that the segment before it is complete.
//!
//! The writer maps the active segment into memory and copies records into the mapping. A sync is an `msync` of the
//! changed pages. The mapping is advised `RANDOM`, and the file is zeroed page by page. Otherwise the kernel uses large
//! folios, and a record of 100 bytes writes 16 KiB to 2 MiB. All reads are ordinary reads. A store into a mapping
//! without blocks raises a signal, so a segment is used only after its blocks are allocated and its content and name
//! are synced. On file systems that move blocks at each write (see `real`) no mapping is used.
//!
//! # What recovery finds and does
//!
//! A segment is *used* if its first record is its head. Recovery makes every decision that can refuse the directory
//! before it changes anything. A refusal names the file, the offset, the first lost entry, and what the operator can
//! do.
//!
//! | in the newest used segment                           | meaning                                    | action                         |
//! |------------------------------------------------------|--------------------------------------------|--------------------------------|
//! | zeros after the last record                          | the log ends here                          | appends here                   |
//! | a bad record that no later record calls durable      | an append was cut short                    | zeroes the rest, syncs, warns  |
//! | a bad record that a later record calls durable       | confirmed bytes are lost                   | refuses                        |
//! | a seal, and the file it names has no head            | an append was cut short in its first batch | zeroes that file, continues in it |
//! | a seal, and the file it names has records that call its head durable | confirmed bytes are lost   | refuses                        |
//! | a seal, and the file it names does not exist         | a segment was removed                      | refuses                        |
//! | no seal, and zeros in the next file                  | the next file was prepared ahead           | keeps it for later             |
//! | no seal, and records in the next file, its head bad  | the seal and everything after it are lost  | refuses                        |
//! | records after the last durable offset                | they may exist only in the page cache      | writes them again, syncs       |
//! | a stop as the last record                            | everything before it is durable            | writes nothing; the next record overwrites the stop |
//!
//! | in an older segment                                  | meaning                                    | action                         |
//! |------------------------------------------------------|--------------------------------------------|--------------------------------|
//! | a bad record                                         | confirmed bytes are lost                   | refuses                        |
//! | the next segment's salt is not the one in the seal, or its head does not match the end of this one | a segment was removed, duplicated or swapped | refuses |
//! | a bad head that is good under another name           | the file was renamed                       | refuses, prints the right name |
//! | a size that differs from the one in the head         | the file was truncated or extended         | refuses                        |
//! | two used segments with the same number               | files of two logs are mixed                | refuses                        |
//! | an unused segment with the number of a used one      | it was prepared, but was too small         | removes it                     |
//! | a gap in the numbers before entries that the newest snapshot covers | a compaction was cut short  | removes the segments before the gap |
//! | a gap that no snapshot covers                        | segments were removed                      | refuses                        |
//!
//! | files and snapshots                                  | meaning                                    | action                         |
//! |------------------------------------------------------|--------------------------------------------|--------------------------------|
//! | no segment, no snapshot, no identity                 | the directory is new                       | creates the first segment      |
//! | no segment, but a snapshot or an identity            | the log was lost, or is not mounted        | refuses                        |
//! | a temporary file                                     | a crash interrupted its creation           | removes it                     |
//! | the log begins after the newest snapshot             | the snapshot was removed                   | refuses                        |
//! | the log ends before the newest snapshot, or has another entry at its index | a leader sent the snapshot, and the log was not reset yet | restarts the log after the snapshot |
//! | a snapshot renamed to `….snap.broken`                | an etcd was started here and could not read it | renames it back, warns |
//! | a bad snapshot, and the log reaches back to an older snapshot or to its own start | the snapshot rotted | sets it aside, uses the older state, warns |
//! | a bad snapshot, and the log does not reach back      | state is lost                              | refuses                        |
//! | segments or a database of etcd, a proxy's folder     | the directory is not ours                  | refuses                        |
//!
//! # How much space it needs
//!
//! A member whose state (keys and history) fits three times on its disk can accept writes forever, even on a disk of 8
//! MB:
//!
//! - A segment takes at most a 32nd of the disk, and at most 16 MiB ([`Options::segment_bytes_max`]). A larger batch
//!   gets a segment of its own. A batch of more than one entry is at most half a segment.
//! - [`Wal::set_reserve`] keeps space free for the next snapshot: the size of the last snapshot, plus twice the size of
//!   the log since then (an event also contains the previous value), plus 128 KiB. Segments are created from the
//!   remaining space. If there is none, the batch is refused as on a full disk. The engine then makes a snapshot at
//!   once, regardless of its schedule, and tries the batch again when the log is shorter.
//! - If two more segments would use space from the reserve, only the newest snapshot and the log after it are kept, and
//!   no segment is prepared ahead. So at worst the disk holds the newest snapshot, the snapshot being written, and the
//!   log of everything that is not in them.
//! - The history takes a sixteenth of the disk (`--watch-history N,BYTES`), or one event.
//!
//! A batch that still does not fit is refused. Commands that remove keys may use the reserve.
//!
//! # Assumptions and limits
//!
//! The module assumes of the disk that synced bytes stay, unless they rot. It assumes that a sector of 512 bytes may be
//! torn, and that pages may reach the disk in any order. Therefore a good record behind a bad one proves only what its
//! durable offset says. The module does not assume that a failed sync leaves things as they were: the kernel drops the
//! page, and the next sync succeeds. So the first failure poisons the log, and the next start writes every record
//! without a witness again.
//!
//! The last batch has no later witness until the next batch or a clean stop, so rot in it looks like an append that was
//! cut short. A newest segment that turns into zeros completely, head included, looks like a segment whose first batch
//! was cut short. Records are not compressed. Segments are not reused: creating one in the background costs less than a
//! millisecond per 1 to 16 MiB.
mod compact;
mod data_dir;
mod decide;
mod disk;
mod dump;
mod error;
pub mod faulty;
mod index;
mod inspect;
#[cfg(not(target_arch = "wasm32"))]
mod map;
mod names;
mod reader;
#[cfg(not(target_arch = "wasm32"))]
mod real;
mod record;
mod recover;
mod replay;
mod scan;
mod shape;
mod slices;
mod snapshot;
mod spare;
mod stats;
mod sums;
mod unsynced;

mod writer;

pub use data_dir::{DataDir, Options, RESTORE, RESTORE_PLACED, has_identity, placed_segments};
pub use decide::has_history;
pub use disk::{Disk, DiskReader, DiskSegment, DiskWriter, Found, Holder, Locked};
pub use dump::{Content, Dump, Dumped, Line, Survivors, dump, segments};
pub use error::{WalError, WalErrorKind};
pub use faulty::FaultyDisk;
pub use inspect::{Entries, InspectedSegment, Inspection, inspect};
pub use reader::LogReader;
#[cfg(not(target_arch = "wasm32"))]
pub use real::{RealDisk, WritePath};
pub use recover::{Recovered, recover};
pub use slices::{Flaw, SliceChecker, SliceEncoder};
pub use snapshot::{SnapshotReader, SnapshotWriter, Snapshots};
pub use stats::WalStats;
pub use unsynced::unsynced_since;
pub use writer::Wal;

use crate::raft::{Entry, HardState};

/// Clock readings at the time of a write. After a restart in the same boot, the member uses them to compute how long it
/// was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// The kernel's random id of this boot.
    pub boot_id: [u8; 16],
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boottime_ns: u64,
    /// Cluster time at that moment in nanoseconds.
    pub cluster_ns: u64,
}

/// Records that are written together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The member's hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Consecutive entries. They replace all entries from the first one's index on.
    pub entries: Vec<Entry>,
    /// Clock readings, given together with entries. With `None` the last recorded readings stay valid.
    pub clock: Option<Clock>,
}
