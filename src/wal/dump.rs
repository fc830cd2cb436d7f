//! A segment as text, for people and for tests. Takes no lock and changes nothing.

use super::disk::Disk;
use super::error::WalError;
use super::names::SegmentName;
use super::record::Record;
use super::scan::{Look, Window};
use crate::raft::{Ballot, Payload, Position};
use std::fmt;
use std::path::Path;

/// One record of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Byte in the segment where the record begins.
    pub offset: u64,
    /// With its padding.
    pub bytes: u64,
    /// How much of the file it says was durable.
    pub durable: u64,
    /// Its kind and content, such as `entry 12@3 command, 40 bytes`.
    pub what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line {
            offset,
            bytes,
            durable,
            what,
        } = self;
        write!(f, "{offset:>6} {bytes:>6}  durable {durable:>6}  {what}")
    }
}

/// The records of a segment from its beginning up to the first that is not good.
pub fn dump<D: Disk>(disk: &D, segment: &Path) -> Result<Vec<Line>, WalError> {
    let name = segment
        .file_name()
        .and_then(|name| SegmentName::parse(name.to_str()?));
    let Some(name) = name else {
        return Err(WalError::damaged(
            segment,
            "edgetcd gives no segment such a name",
        ));
    };
    let file = disk.open(segment);
    let file = file.map_err(|error| WalError::io(segment, "open it", &error))?;
    let mut window = Window::new(segment, file, name.salt);
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let offset = lines.last().map_or(0, |line| line.offset + line.bytes);
        match window.look(offset)? {
            Look::Record {
                record,
                durable,
                next,
            } => {
                let (bytes, what) = (next - offset, record.to_string());
                lines.push(Line {
                    offset,
                    bytes,
                    durable,
                    what,
                });
            }
            Look::Nothing => return Ok(lines),
            Look::Strange(strange) => return Err(WalError::damaged(segment, strange.0).at(offset)),
        }
    }
}

struct At(Position);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.index.0, self.0.term.0)
    }
}

struct Vote(Ballot);

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} vote ", self.0.term.0)?;
        match self.0.vote {
            Some(node) => write!(f, "{:x}", node.0),
            None => write!(f, "none"),
        }
    }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Head(head) => {
                let (last, ballot) = (At(head.last), Vote(head.ballot));
                write!(
                    f,
                    "head of {:x}, {} bytes, after {last}, {ballot}",
                    head.seq, head.bytes
                )
            }
            Record::Entry {
                position,
                kind,
                bytes,
            } => {
                let what = match Payload::decode(*kind, bytes) {
                    Ok(Payload::Noop) => "no-op",
                    Ok(Payload::Command(_)) => "command",
                    Ok(Payload::Change(_)) => "change",
                    Err(_) => "of an unknown kind",
                };
                write!(f, "entry {} {what}, {} bytes", At(*position), bytes.len())
            }
            Record::Ballot(ballot) => write!(f, "ballot {}", Vote(*ballot)),
            Record::Clock(clock) => {
                let boot = u128::from_be_bytes(clock.boot_id);
                write!(
                    f,
                    "clock boot {boot:x} at {} cluster {}",
                    clock.boottime_ns, clock.cluster_ns
                )
            }
            Record::Tick {
                boottime_ns,
                cluster_ns,
            } => {
                write!(f, "tick at {boottime_ns} cluster {cluster_ns}")
            }
            Record::Reset(position) => write!(f, "reset: goes on after {}", At(*position)),
            Record::Sealed { last, next_salt } => {
                write!(f, "sealed after {}, goes on in -{next_salt:08x}", At(*last))
            }
            Record::Stop => write!(f, "stop"),
        }
    }
}
