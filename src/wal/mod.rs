//! The write-ahead log: what this node has promised, on disk.
//!
//! Raft's promises hold only if a node never forgets what it has answered for: its term and vote,
//! and every entry it has acknowledged (paper §5). This room writes both to one log of records,
//! syncs them, and reads them back after whatever happened. It also keeps snapshots of the state
//! machine, after which the log before them may go. It knows raft's entries, not what is in them.
//!
//! A record counts from the moment [`Wal::sync`] has returned, and not before. What was written and
//! not synced may be there after a crash or not, in any part.
//!
//! # Words
//!
//! - A *segment* is one file of the log, of fixed size, allocated before use. The *active* one is
//!   written to; the one after it is made ready by a helper; older ones are *sealed*.
//! - A *batch* is what is handed over together; a *record* is one entry, ballot or note of it.
//! - A record's *durable offset* says how much of its file was synced when it was written. It makes
//!   the record a *witness* for everything before that offset.
//!
//! # Where to read
//!
//! `record` is the format; `scan` reads records through a window, with `sums` where much might be
//! one; `writer` appends and syncs; `spare` makes the next segment; `replay` reads a chain of
//! segments, `decide` says what is to be done about them, `recover` does it, and `look` only tells it;
//! `snapshot` (with `slices`, its bytes) and `compact` let the log be cut; `index` and
//! `reader` give entries back by their index; `home` is the directory and its lock, `names` its
//! files. All of it asks a [`Disk`] for what it needs: `real` is the machine's, [`lying`] a disk of
//! memory that keeps what was synced and nothing else. The lessons in `tests/transcripts/wal` show
//! it at work.
//!
//! # A segment
//!
//! A name (`0000000000000007-5f3a9c21.wal`) gives a segment's number and its salt. The first record
//! is its head: which file it is, its size, and what the log says before it (last position, term and
//! vote, clock), so that nothing is lost with the files before it. Records follow each other without
//! gaps, then zeros to the end. An entry whose index the log already has takes the place of all from
//! there on: nothing is erased. When a batch does not fit, what fits goes in, then the seal, which
//! names the salt of the next segment; it is synced before the first byte goes into the next. So a
//! segment with records says that the one before it is whole.
//!
//! The active segment is mapped and written by copying; a sync is an `msync` of the pages that
//! changed. It is advised `RANDOM`, and zeroed in pages: otherwise the kernel handles it in large
//! folios, and a record of 100 bytes writes 16 KiB to 2 MiB. Everything is read with ordinary reads.
//! Stores into a mapping without blocks under it end in a signal, so a segment's blocks are all
//! there, and synced, and its name too, before it is used; where blocks move with each write
//! (see `real`) the map is not used at all.
//!
//! # What recovery finds, and does
//!
//! A segment is *used* when its first record is its head. All that refuses is decided before
//! anything is changed; a refusal names the file, the place, the first entry lost, and the way out.
//!
//! | in the newest used segment                  | so                                 | and                     |
//! |---------------------------------------------|------------------------------------|-------------------------|
//! | zeros after the last record                 | the log ends here                  | appends here            |
//! | a bad record that no later one calls durable | an append was cut short           | zeroes the rest, syncs, warns |
//! | a bad record that a later one calls durable | confirmed bytes are lost           | refuses                 |
//! | a seal, and the file it names has no head   | an append was cut short in its first batch | zeroes that file, goes on in it |
//! | a seal, and the file it names has records that call its head durable | confirmed bytes are lost | refuses  |
//! | a seal, and no such file                    | a segment was removed              | refuses                 |
//! | no seal, and zeros in the next file         | it was made ready ahead            | keeps it for later      |
//! | no seal, and records in the next file, its head bad | the seal and all after it are lost | refuses         |
//! | records after the last one that says what is durable | they may be in the kernel's memory only | writes them again, syncs |
//! | a stop as the last record                   | all before it is durable           | writes nothing; the next record takes its place |
//!
//! | in or about an older segment                | so                                 | and                     |
//! |---------------------------------------------|------------------------------------|-------------------------|
//! | a bad record                                | confirmed bytes are lost           | refuses                 |
//! | the next one's salt is not the one it names, or its head does not go on where this ends | one was removed, doubled or exchanged | refuses |
//! | a bad head, good under another name         | it was renamed                     | refuses, says its name  |
//! | a size that its head does not tell          | it was cut or lengthened           | refuses                 |
//! | two used ones of one number                 | files of two logs are mixed        | refuses                 |
//! | one of a number without records beside a used one | it was made ready and too small | removes it              |
//! | a gap in the numbers, and the newest snapshot reaches over it | a compaction was cut short | removes what is before |
//! | a gap that no snapshot reaches over         | segments were removed              | refuses                 |
//!
//! | of files and snapshots                      | so                                 | and                     |
//! |---------------------------------------------|------------------------------------|-------------------------|
//! | no segment, no snapshot, no identity        | the directory is new               | makes the first segment |
//! | no segment, but a snapshot or an identity   | the log was lost, or is not mounted | refuses                |
//! | a temporary file                            | something was being made           | removes it              |
//! | the log begins after the newest snapshot    | the snapshot was removed           | refuses                 |
//! | the log ends before the newest snapshot, or has another entry there | a leader sent it, and the log was not cut yet | starts the log anew after it |
//! | a bad snapshot; an older one, or none, and all the log since then | it rotted         | puts it aside, uses that, warns |
//! | a bad snapshot, and the log does not reach  | state is lost                      | refuses                 |
//! | segments or a database of etcd, a proxy's folder | it is not ours                | refuses                 |
//!
//! # How much room it takes
//!
//! A node whose state (keys and history) fits three times on its disk takes writes for ever, also on a disk of 8 MB:
//!
//! - Segments have up to a 32nd of the disk, 16 MiB at most ([`Options::segment_bytes_max`]); one for a larger batch has
//!   that batch alone. A batch has up to half a segment, if it is more than one entry.
//! - [`Wal::set_reserve`] keeps free what the next snapshot may need: the bytes of the last one, twice those of the log
//!   since (an event has the value before, too), and 128 KiB. Segments are made from what is left, and if that is
//!   nothing, the batch is refused as on a full disk. The engine then makes a snapshot at once, whatever its schedule,
//!   and the batch is tried again when the log is shorter.
//! - While two more segments would eat into the reserve, the newest snapshot is kept alone with the log after it, and no
//!   segment is made ahead. So at the worst moment two snapshots lie on the disk, the newest and the one being written,
//!   and the log of what is not in them.
//! - The history has a sixteenth of the disk (`--watch-history N,BYTES`), or one event.
//!
//! What does not fit even so is refused, and commands that remove keys may use the reserve.
//!
//! # What is assumed, and left out
//!
//! Assumed of the disk: what a sync has confirmed stays, unless it rots; a sector of 512 bytes may
//! be torn, and pages may reach the disk in any order, so a good record behind a bad one proves
//! nothing but by its durable offset. Not assumed: that a failed sync leaves things as they were. The
//! kernel drops the page and calls the next sync a success; so the first failure poisons the log, and
//! the next start writes again what it finds without a witness.
//!
//! Left out: the last batch has no later witness until the next one or a clean stop, so rot there
//! reads as an append cut short, and a newest segment that turns into zeros as a whole, head and
//! all, reads as one whose first batch was. Records are not compressed. Segments are not reused:
//! making one costs less than a millisecond every 1 to 16 MiB, beside the writer.
mod compact;
mod decide;
mod disk;
mod dump;
mod error;
mod home;
mod index;
mod look;
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
mod slices;
mod snapshot;
mod spare;
mod stats;
mod sums;

mod writer;

pub use decide::has_history;
pub use disk::{Disk, DiskReader, DiskSegment, DiskWriter, Found, Holder, Locked};
pub use dump::{Content, Dump, Dumped, Line, Survivors, dump, segments};
pub use error::{WalError, WalErrorKind};
pub use home::{Home, Options, RESTORE, RESTORE_PLACED, has_identity, placed_segments};
pub use look::{Entries, Seen, SeenSegment, look};
pub use lying::LyingDisk;
pub use reader::LogReader;
pub use real::{RealDisk, WritePath};
pub use recover::{Recovered, recover};
pub use slices::{Flaw, SliceChecker, SliceEncoder};
pub use snapshot::{SnapshotReader, SnapshotWriter, Snapshots};
pub use stats::WalStats;
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
    /// How the clocks stood, given with entries; None leaves what was recorded last.
    pub clock: Option<Clock>,
}

impl Batch {
    /// Adds entries. They replace those from the first one's index on, in the batch too: a new leader's may
    /// come before the batch with the old one's is written.
    pub fn add(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first().map(|entry| entry.position.index) {
            let kept = (self.entries).partition_point(|entry| entry.position.index < first);
            self.entries.truncate(kept);
        }
        self.entries.extend(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{LogIndex, Payload, Position, Term};

    #[test]
    fn entries_of_a_batch_replace_those_from_the_first_on() {
        let entry = |term, index| Entry {
            position: Position {
                term: Term(term),
                index: LogIndex(index),
            },
            payload: Payload::Noop,
        };
        let mut batch = Batch::default();
        batch.add(vec![entry(1, 5), entry(1, 6), entry(1, 7)]);
        batch.add(Vec::new());
        batch.add(vec![entry(2, 6)]);
        batch.add(vec![entry(2, 7), entry(2, 8)]);
        let shown: Vec<String> = (batch.entries.iter())
            .map(|entry| entry.position.to_string())
            .collect();
        assert_eq!(shown, ["5@1", "6@2", "7@2", "8@2"]);
        batch.add(vec![entry(3, 4)]);
        assert_eq!(batch.entries, [entry(3, 4)]);
    }
}
