//! Prints a segment record by record, for people and for tests. It takes no lock and changes nothing.
//!
//! Damage does not stop it: it reports the unreadable part and continues at the next record that calls that part
//! durable. About the log as a whole it knows only which entries were replaced.

use super::Clock;
use super::data_dir;
use super::disk::Disk;
use super::error::{WalError, WalErrorKind};
use super::index::Index;
use super::names::SegmentName;
use super::record::Record;
use super::scan::{Found, Window};
use crate::raft::{HardState, Payload, Position};
use std::fmt;
use std::path::{Path, PathBuf};

/// One record of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Offset in the segment where the record begins.
    pub offset: u64,
    /// Length including padding.
    pub bytes: u64,
    /// The record's durable offset.
    pub durable: u64,
    /// Kind and content, such as `entry 12@3 command, 40 bytes`.
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

/// One item of a segment's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dumped {
    /// A good record.
    Record(Line, Content),
    /// An unreadable record at a place that was durable.
    Bad {
        /// Offset in the segment.
        offset: u64,
        /// Why the record cannot be read.
        what: String,
        /// Offset of the next good record, which calls this one durable.
        next: Option<u64>,
    },
    /// Bytes that no record calls durable: an append that was cut short or is being written. Always the last item of a
    /// segment.
    Torn {
        /// Offset in the segment.
        offset: u64,
        /// Number of bytes up to the last one that is not zero.
        bytes: u64,
    },
}

/// Content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// First record of its file.
    Head {
        /// The file's number.
        number: u64,
        /// The file's length.
        bytes: u64,
        /// End of the log before this file.
        last: Position,
        /// Hard state before this file.
        hard_state: HardState,
        /// Clock readings before this file.
        clock: Option<Clock>,
    },
    /// An entry.
    Entry {
        /// Position in the log.
        position: Position,
        /// The payload, or why it cannot be decoded.
        payload: Result<Payload, String>,
    },
    /// Hard state.
    HardState(HardState),
    /// Clock readings of a boot that the log did not know yet.
    Clock(Clock),
    /// Clock readings of the boot that was recorded last.
    Tick {
        /// CLOCK_BOOTTIME in nanoseconds.
        boottime_ns: u64,
        /// Cluster time in nanoseconds.
        cluster_ns: u64,
    },
    /// The log is empty and continues after this position.
    Reset(Position),
    /// The log continues in the next file.
    Sealed {
        /// End of the log in this file.
        last: Position,
        /// Salt of the next file, the second half of its name.
        next_salt: u32,
    },
    /// The log was closed.
    Stop,
}

impl Content {
    fn new(record: Record<'_>) -> Content {
        match record {
            Record::Head(head) => Content::Head {
                number: head.seq,
                bytes: head.bytes,
                last: head.last,
                hard_state: head.hard_state,
                clock: head.clock,
            },
            Record::Entry {
                position,
                kind,
                bytes,
            } => Content::Entry {
                position,
                payload: Payload::decode(kind, bytes).map_err(|error| error.to_string()),
            },
            Record::HardState(hard_state) => Content::HardState(hard_state),
            Record::Clock(clock) => Content::Clock(clock),
            Record::Tick {
                boottime_ns,
                cluster_ns,
            } => Content::Tick {
                boottime_ns,
                cluster_ns,
            },
            Record::Reset(position) => Content::Reset(position),
            Record::Sealed { last, next_salt } => Content::Sealed { last, next_salt },
            Record::Stop => Content::Stop,
        }
    }
}

/// Lists the segments in a folder, oldest first.
///
/// Errors: `Io` if the folder cannot be listed.
pub fn segments<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<PathBuf>, WalError> {
    let found = data_dir::list(disk, dir)?;
    let names = found.iter().map(|found| SegmentName::parse(&found.name));
    let mut names: Vec<SegmentName> = names.flatten().collect();
    names.sort_unstable();
    Ok(names.iter().map(|name| dir.join(name.file())).collect())
}

/// Reads a segment from its beginning.
#[derive(Debug)]
pub struct Dump<D: Disk> {
    window: Window<D::Reader>,
    offset: u64,
    over: bool,
}

impl<D: Disk> Dump<D> {
    /// Opens a segment.
    ///
    /// Errors: `Foreign` if the file does not have a segment's name, otherwise `Io`.
    pub fn open(disk: &D, segment: &Path) -> Result<Dump<D>, WalError> {
        let Some(name) = named(segment) else {
            let what = "this is not the name of a segment of edgetcd";
            return Err(WalError::new(WalErrorKind::Foreign, segment, what));
        };
        let file = disk.open(segment);
        let file = file.map_err(|error| WalError::io(segment, "open it", &error))?;
        Ok(Dump {
            window: Window::new(segment, file, name.salt),
            offset: 0,
            over: false,
        })
    }

    /// Returns the next item, or `None` at the end.
    ///
    /// Errors: `Io`.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Dumped>, WalError> {
        if self.over {
            return Ok(None);
        }
        let offset = self.offset;
        let undecodable = match self.record()? {
            Some(Ok(good)) => return Ok(Some(good)),
            Some(Err(undecodable)) => Some(undecodable),
            None => None,
        };
        let rest = self.window.rest(offset)?;
        self.over = rest.witness.is_none();
        self.offset = rest.witness.unwrap_or(offset);
        Ok(match (undecodable, rest.witness) {
            (Some(what), next) => Some(Dumped::Bad { offset, what, next }),
            (None, Some(next)) => Some(Dumped::Bad {
                offset,
                what: format!(
                    "the record here fails its checksum, but a later one, at byte {next}, says that it \
                     was durable"
                ),
                next: Some(next),
            }),
            (None, None) if rest.is_zeros() => None,
            (None, None) => Some(Dumped::Torn {
                offset,
                bytes: rest.dirty_end - offset,
            }),
        })
    }

    /// The good record at the current offset, or why it cannot be decoded. `None` if there is no good record.
    fn record(&mut self) -> Result<Option<Result<Dumped, String>>, WalError> {
        let offset = self.offset;
        if let Found::Nothing = self.window.record_at(offset)? {
            // A member may be writing here, so the window is read again. All bytes read from now on are from the same
            // moment.
            self.window.forget();
        }
        let (record, durable, next) = match self.window.record_at(offset)? {
            Found::Record {
                record,
                durable,
                next,
            } => (record, durable, next),
            Found::Undecodable(undecodable) => return Ok(Some(Err(undecodable.0.to_owned()))),
            Found::Nothing => return Ok(None),
        };
        let line = Line {
            offset,
            bytes: next - offset,
            durable,
            what: record.to_string(),
        };
        let content = Content::new(record);
        self.offset = next;
        Ok(Some(Ok(Dumped::Record(line, content))))
    }
}

fn named(segment: &Path) -> Option<SegmentName> {
    SegmentName::parse(segment.file_name()?.to_str()?)
}

/// The records of a segment from its beginning up to the first one that is not good.
pub fn dump<D: Disk>(disk: &D, segment: &Path) -> Result<Vec<Line>, WalError> {
    let mut dump = Dump::open(disk, segment)?;
    let mut lines = Vec::new();
    while let Some(Dumped::Record(line, _)) = dump.next()? {
        lines.push(line);
    }
    Ok(lines)
}

/// Knows which entries are still part of the log: a later entry with the same or a lower index replaces an entry.
#[derive(Debug, Default)]
pub struct Survivors {
    index: Index,
    /// Place of the last record that was read. The status of later records is unknown.
    end: (u64, u64),
}

impl Survivors {
    /// Reads all segments once, as far as they are readable.
    pub fn read<D: Disk>(disk: &D, segments: &[PathBuf]) -> Survivors {
        let mut survivors = Survivors::default();
        for path in segments {
            let Some(name) = named(path) else { continue };
            // The caller that dumps this segment reports the error.
            let Ok(mut dump) = Dump::open(disk, path) else {
                continue;
            };
            if survivors.index.file(name.seq).is_some() {
                continue;
            }
            survivors.index.add_file(name);
            while let Ok(Some(dumped)) = dump.next() {
                if let Dumped::Record(line, content) = dumped {
                    survivors.put(name.seq, &line, &content);
                }
            }
        }
        survivors
    }

    fn put(&mut self, seq: u64, line: &Line, content: &Content) {
        match content {
            Content::Entry { position, .. } => self.index.put(position.index, seq, line.offset),
            Content::Reset(position) => self.index.reset(position.index),
            _ => {}
        }
        self.end = (seq, line.offset);
    }

    /// Whether a later entry has replaced this one, whose record is `line` in `segment`.
    pub fn replaced(&self, segment: &Path, line: &Line, position: Position) -> bool {
        let Some(name) = named(segment) else {
            return false;
        };
        let place = (name.seq, line.offset);
        let known = place <= self.end && self.index.file(name.seq) == Some(name);
        // The index says where the run of records begins that holds the current entry. A record before that place was
        // replaced.
        let is_own = |begin: (u64, u64)| begin.0 == place.0 && begin.1 <= place.1;
        known && !self.index.begin(position.index).is_some_and(is_own)
    }
}

struct At(Position);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.index.0, self.0.term.0)
    }
}

struct Vote(HardState);

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
                let (last, hard_state) = (At(head.last), Vote(head.hard_state));
                write!(
                    f,
                    "head of {:x}, {} bytes, after {last}, {hard_state}",
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
            Record::HardState(hard_state) => write!(f, "hard-state {}", Vote(*hard_state)),
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
            Record::Reset(position) => write!(f, "reset: continues after {}", At(*position)),
            Record::Sealed { last, next_salt } => {
                write!(
                    f,
                    "sealed after {}, continues in -{next_salt:08x}",
                    At(*last)
                )
            }
            Record::Stop => write!(f, "stop"),
        }
    }
}
