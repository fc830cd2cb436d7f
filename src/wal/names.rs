//! File names. They sort in the order of their content.
//!
//! | name                                          | content                                                              |
//! |-----------------------------------------------|----------------------------------------------------------------------|
//! | `wal/0000000000000007-5f3a9c21.wal`           | the eighth segment, with its salt                                    |
//! | `wal/0000000000000007-5f3a9c21.tmp`           | a segment that is being created, useless after a crash               |
//! | `snap/00000000000186a0-0000000000000002.snap` | the snapshot at index 100000, term 2                                 |
//! | `snap/….bad`                                  | a snapshot that failed its checksums, kept until there is a newer one |
//! | `snap/….snap.broken`                          | a snapshot that an etcd, started here by mistake, could not read and renamed |
//! | `snap/….1f00c3d2.tmp`                         | a snapshot that is being written, with a random number               |

use crate::raft::{LogIndex, Position, Term};

/// What etcd appends to the name of a snapshot that it cannot read.
const RENAMED: &str = ".broken";

/// Name of a segment. The segments of a directory are numbered from 0, without gaps, and a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub seq: u64,
    pub salt: u32,
}

impl SegmentName {
    pub fn file(self) -> String {
        format!("{:016x}-{:08x}.wal", self.seq, self.salt)
    }

    pub fn temporary(self) -> String {
        format!("{:016x}-{:08x}.tmp", self.seq, self.salt)
    }

    pub fn parse(name: &str) -> Option<SegmentName> {
        let (seq, salt) = name.strip_suffix(".wal")?.split_once('-')?;
        let seq = hex(seq, 16)?;
        let salt = u32::try_from(hex(salt, 8)?).ok()?;
        Some(SegmentName { seq, salt })
    }
}

/// Whether this is a name of an etcd segment: number and first index, 16 digits each.
pub(super) fn is_etcd_segment(name: &str) -> bool {
    name.strip_suffix(".wal")
        .and_then(|stem| stem.split_once('-'))
        .is_some_and(|(seq, index)| hex(seq, 16).is_some() && hex(index, 16).is_some())
}

/// Whether this is a segment that was being created. Temporary files of other programs do not match.
pub(super) fn is_segment_temporary(name: &str) -> bool {
    let stem = name.strip_suffix(".tmp");
    stem.is_some_and(|stem| SegmentName::parse(&format!("{stem}.wal")).is_some())
}

/// Whether this is a snapshot that was being written.
pub(super) fn is_snapshot_temporary(name: &str) -> bool {
    let stem = name
        .strip_suffix(".tmp")
        .and_then(|name| name.rsplit_once('.'));
    stem.is_some_and(|(stem, random)| {
        hex(random, 8).is_some() && parse_snapshot(&format!("{stem}.snap")).is_some()
    })
}

/// Name of the snapshot at this position.
pub(super) fn snapshot_file(position: Position) -> String {
    format!("{:016x}-{:016x}.snap", position.index.0, position.term.0)
}

pub(super) fn snapshot_temporary(position: Position, random: u32) -> String {
    let Position { term, index } = position;
    format!("{:016x}-{:016x}.{random:08x}.tmp", index.0, term.0)
}

pub(super) fn parse_snapshot(name: &str) -> Option<Position> {
    let (index, term) = name.strip_suffix(".snap")?.split_once('-')?;
    Some(Position {
        index: LogIndex(hex(index, 16)?),
        term: Term(hex(term, 16)?),
    })
}

/// The name that etcd gives a snapshot that it cannot read.
pub(super) fn snapshot_renamed(position: Position) -> String {
    format!("{}{RENAMED}", snapshot_file(position))
}

pub(super) fn parse_renamed(name: &str) -> Option<Position> {
    parse_snapshot(name.strip_suffix(RENAMED)?)
}

/// Parses exactly `count` digits, lower case only.
fn hex(digits: &str, count: usize) -> Option<u64> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != count || !digits.bytes().all(plain) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_not_taken() {
        let name = SegmentName {
            seq: 255,
            salt: 0x00ab_cdef,
        };
        assert_eq!(name.file(), "00000000000000ff-00abcdef.wal");
        assert_eq!(SegmentName::parse(&name.file()), Some(name));
        let position = Position {
            term: Term(2),
            index: LogIndex(100_000),
        };
        assert_eq!(parse_snapshot(&snapshot_file(position)), Some(position));
        assert_eq!(parse_renamed(&snapshot_renamed(position)), Some(position));
        assert_eq!(parse_renamed(&snapshot_file(position)), None);
        assert_eq!(parse_snapshot(&snapshot_renamed(position)), None);
        for other in [
            "00000000000000FF-00abcdef.wal",
            "ff-00abcdef.wal",
            "00000000000000ff-00abcdef.tmp",
            ".wal",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
        assert!(is_segment_temporary(&name.temporary()) && !is_segment_temporary("0.tmp"));
        let position = Position::default();
        assert!(is_snapshot_temporary(&snapshot_temporary(position, 7)));
        assert!(!is_snapshot_temporary("tmp123.tmp") && !is_snapshot_temporary("a.snap.tmp"));
        assert!(is_etcd_segment("0000000000000001-0000000000002710.wal"));
        assert!(!is_etcd_segment(&name.file()));
        assert_eq!(parse_snapshot(&snapshot_temporary(position, 7)), None);
    }
}
