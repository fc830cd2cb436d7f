//! Converts one record to bytes and back. This file does no I/O.
//!
//! All numbers are little-endian. A record starts at a multiple of 8.
//!
//! | offset | size | field   |                                                                  |
//! |-------:|-----:|---------|------------------------------------------------------------------|
//! |      0 |    4 | crc     | CRC-32 of everything after it, padding included, with salt ^ offset/8 as the initial value |
//! |      4 |    4 | length  | of kind and payload, at least 1. 0 means that nothing was written here |
//! |      8 |    4 | durable | durable offset: how much of this file was synced when the record was written, in units of 8 |
//! |     12 |    1 | kind    | see below                                                        |
//! |     13 |    n | payload | followed by zeros up to a multiple of 8                          |
//!
//! | kind | name   | payload                                                                    |
//! |-----:|--------|----------------------------------------------------------------------------|
//! |    1 | head   | first in each file: magic (8), version (1), the file's number (8), salt (4) and length (8). Then the log's state before the file: last term and index (8, 8), term and vote (8, 8; vote 0: none), whether a clock was recorded (1) and that clock (32) |
//! |    2 | entry  | term and index (varints), the payload's kind (1), its bytes                |
//! |    3 | hard state | hard state: term and vote (varints; vote 0: none)                          |
//! |    4 | clock  | boot id (16), boot time and cluster time in ns (8, 8)                      |
//! |    5 | tick   | both times (varints), for the boot id that was recorded last               |
//! |    6 | reset  | term and index (varints): the log is empty and continues after this position |
//! |    7 | sealed | last term and index (varints), the next file's salt (4): the log continues in that file |
//! |    8 | stop   | none: the log was closed, and everything before this record is durable     |
//!
//! The salt is part of the file's name. It is chosen at random when the file is created. A different initial value
//! changes the CRC of the same bytes. Therefore a stale record of another file, or of another place in this file, is
//! never accepted as good. Records are not chained, so a good record can be found behind a bad one and serve as a
//! witness.

use super::Clock;
use crate::raft::{Entry, HardState, LogIndex, NodeId, Position, Term};
use crate::varint::{self, VarintError};

/// Records start at multiples of this.
pub(super) const RECORD_ALIGN: u64 = 8;
/// Number of bytes before the payload.
pub(super) const PREFIX: usize = 13;
/// The format version that this code writes, and the only one it reads.
const VERSION: u8 = 1;
const MAGIC: [u8; 8] = *b"edgetWAL";

/// Space that is kept free at the end of each file for its seal: two varints and a salt.
pub(super) const SEAL_BYTES: u64 = 40;
const _: () = assert!(SEAL_BYTES as usize >= PREFIX + 10 + 10 + 4);
/// Size of a head in its file.
pub(super) const HEAD_BYTES: u64 = 112;
const _: () = assert!(HEAD_BYTES as usize >= PREFIX + 29 + 32 + 1 + 32);
const _: () =
    assert!(SEAL_BYTES.is_multiple_of(RECORD_ALIGN) && HEAD_BYTES.is_multiple_of(RECORD_ALIGN));

const HEAD: u8 = 1;
const ENTRY: u8 = 2;
const HARD_STATE: u8 = 3;
const CLOCK: u8 = 4;
const TICK: u8 = 5;
const RESET: u8 = 6;
const SEALED: u8 = 7;
const STOP: u8 = 8;

/// Whether a byte is a record kind. The search for witnesses uses it.
pub(super) fn is_kind(kind: u8) -> bool {
    (HEAD..=STOP).contains(&kind)
}

/// The first record of a file. It identifies the file, and it contains everything that must be known after the files
/// before it were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub seq: u64,
    pub salt: u32,
    /// Length of the file.
    pub bytes: u64,
    /// End of the log before this file.
    pub last: Position,
    pub hard_state: HardState,
    pub clock: Option<Clock>,
}

/// Content of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Head(Head),
    Entry {
        position: Position,
        kind: u8,
        bytes: &'a [u8],
    },
    HardState(HardState),
    Clock(Clock),
    Tick {
        boottime_ns: u64,
        cluster_ns: u64,
    },
    Reset(Position),
    Sealed {
        last: Position,
        next_salt: u32,
    },
    Stop,
}

/// Why a record with a good checksum cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecodable(pub &'static str);

/// The bytes before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub crc: u32,
    /// Length of kind and payload in bytes.
    pub length: u32,
    /// Durable offset in bytes.
    pub durable: u64,
    pub kind: u8,
}

impl Prefix {
    pub fn read(bytes: &[u8; PREFIX]) -> Prefix {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Prefix {
            crc: word(0),
            length: word(4),
            durable: u64::from(word(8)) * RECORD_ALIGN,
            kind: bytes[12],
        }
    }

    /// Size of the complete record, padding included.
    pub fn record_bytes(&self) -> u64 {
        padded(PREFIX as u64 - 1 + u64::from(self.length))
    }
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(RECORD_ALIGN)
}

/// Checksum of a complete record at its place in its file. The record's first four bytes are left out.
pub(super) fn checksum(record: &[u8], salt: u32, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(checksum_start(salt, offset));
    hasher.update(&record[4..]);
    hasher.finalize()
}

/// Initial value of the checksum of a record at `offset`.
pub(super) fn checksum_start(salt: u32, offset: u64) -> u32 {
    salt ^ (offset / RECORD_ALIGN) as u32
}

/// The place where a record is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub salt: u32,
    pub offset: u64,
    /// How much of the file is synced.
    pub durable: u64,
}

impl Record<'_> {
    /// Size of the complete record. This encodes the record. For entries, [`entry_bytes`] is cheaper.
    pub fn bytes(&self) -> u64 {
        let mut bytes = Vec::new();
        self.encode_kind_and_payload(&mut bytes);
        padded((PREFIX - 1 + bytes.len()) as u64)
    }

    /// Appends the record, encoded for `place`.
    pub fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX - 1]);
        self.encode_kind_and_payload(out);
        let length = out.len() - start - (PREFIX - 1);
        out.resize(start + padded((out.len() - start) as u64) as usize, 0);
        let length = u32::try_from(length).expect("a record is smaller than 4 GiB");
        let durable = u32::try_from(place.durable / RECORD_ALIGN).expect("files are under 32 GiB");
        let record = &mut out[start..];
        record[4..8].copy_from_slice(&length.to_le_bytes());
        record[8..12].copy_from_slice(&durable.to_le_bytes());
        let crc = checksum(record, place.salt, place.offset);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn encode_kind_and_payload(&self, out: &mut Vec<u8>) {
        match self {
            Record::Head(head) => head.encode(out),
            Record::Entry {
                position,
                kind,
                bytes,
            } => {
                entry_prefix(*position, *kind, out);
                out.extend_from_slice(bytes);
            }
            Record::HardState(hard_state) => {
                out.push(HARD_STATE);
                varint::put(hard_state.term.0, out);
                varint::put(hard_state.vote.map_or(0, |node| node.0), out);
            }
            Record::Clock(clock) => {
                out.push(CLOCK);
                put_clock(clock, out);
            }
            Record::Tick {
                boottime_ns,
                cluster_ns,
            } => {
                out.push(TICK);
                varint::put(*boottime_ns, out);
                varint::put(*cluster_ns, out);
            }
            Record::Reset(position) => {
                out.push(RESET);
                put_position(*position, out);
            }
            Record::Sealed { last, next_salt } => {
                out.push(SEALED);
                put_position(*last, out);
                out.extend_from_slice(&next_salt.to_le_bytes());
            }
            Record::Stop => out.push(STOP),
        }
    }

    /// Decodes the payload of a record with a good checksum.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Record<'_>, Undecodable> {
        let mut rest = payload;
        let record = match kind {
            HEAD => Record::Head(Head::decode(&mut rest)?),
            ENTRY => {
                let position = take_position(&mut rest)?;
                let [kind] = take(&mut rest)?;
                let bytes = std::mem::take(&mut rest);
                Record::Entry {
                    position,
                    kind,
                    bytes,
                }
            }
            HARD_STATE => Record::HardState(HardState {
                term: Term(take_varint(&mut rest)?),
                vote: node(take_varint(&mut rest)?),
            }),
            CLOCK => Record::Clock(take_clock(&mut rest)?),
            TICK => Record::Tick {
                boottime_ns: take_varint(&mut rest)?,
                cluster_ns: take_varint(&mut rest)?,
            },
            RESET => Record::Reset(take_position(&mut rest)?),
            SEALED => Record::Sealed {
                last: take_position(&mut rest)?,
                next_salt: u32::from_le_bytes(take(&mut rest)?),
            },
            STOP => Record::Stop,
            _ => {
                return Err(Undecodable(
                    "its kind is unknown to this version of edgetcd",
                ));
            }
        };
        if rest.is_empty() {
            Ok(record)
        } else {
            Err(Undecodable("it is longer than records of its kind"))
        }
    }
}

impl Head {
    /// Decodes a head before its checksum is verified, to find out which segment a file claims to be.
    pub fn claimed(payload: &[u8]) -> Option<Head> {
        Head::decode(&mut &payload[..]).ok()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(HEAD);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        let vote = self.hard_state.vote.map_or(0, |node| node.0);
        let (last, hard_state) = (self.last, self.hard_state);
        for number in [
            self.bytes,
            last.term.0,
            last.index.0,
            hard_state.term.0,
            vote,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.clock.is_some()));
        put_clock(&self.clock.unwrap_or_default(), out);
    }

    fn decode(rest: &mut &[u8]) -> Result<Head, Undecodable> {
        if take(rest)? != MAGIC {
            return Err(Undecodable(
                "it is not a log of edgetcd: its first bytes differ",
            ));
        }
        let [version] = take(rest)?;
        if version != VERSION {
            return Err(Undecodable(
                "another version of edgetcd has written it; start that version",
            ));
        }
        let seq = take_u64(rest)?;
        let salt = u32::from_le_bytes(take(rest)?);
        let bytes = take_u64(rest)?;
        let last = Position {
            term: Term(take_u64(rest)?),
            index: LogIndex(take_u64(rest)?),
        };
        let hard_state = HardState {
            term: Term(take_u64(rest)?),
            vote: node(take_u64(rest)?),
        };
        let [noted] = take(rest)?;
        let clock = take_clock(rest)?;
        Ok(Head {
            seq,
            salt,
            bytes,
            last,
            hard_state,
            clock: (noted != 0).then_some(clock),
        })
    }
}

/// Appends an entry's record without copying its payload twice.
pub(super) fn encode_entry(entry: &Entry, place: Place, out: &mut Vec<u8>) {
    // `Record::Entry` needs the payload as one slice, so a membership change must be encoded first.
    if let crate::raft::Payload::Command(bytes) = &entry.payload {
        let (position, kind) = (entry.position, entry.payload.kind());
        return Record::Entry {
            position,
            kind,
            bytes,
        }
        .encode(place, out);
    }
    let mut bytes = Vec::with_capacity(entry.payload.len());
    entry.payload.bytes(&mut bytes);
    let (position, kind, bytes) = (entry.position, entry.payload.kind(), &bytes[..]);
    Record::Entry {
        position,
        kind,
        bytes,
    }
    .encode(place, out);
}

/// Size of the record that [`encode_entry`] writes.
pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    let Position { term, index } = entry.position;
    let bytes = PREFIX + varint::bytes(term.0) + varint::bytes(index.0) + 1 + entry.payload.len();
    padded(bytes as u64)
}

fn entry_prefix(position: Position, kind: u8, out: &mut Vec<u8>) {
    out.push(ENTRY);
    put_position(position, out);
    out.push(kind);
}

fn node(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

fn put_position(position: Position, out: &mut Vec<u8>) {
    varint::put(position.term.0, out);
    varint::put(position.index.0, out);
}

fn put_clock(clock: &Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(&clock.boot_id);
    out.extend_from_slice(&clock.boottime_ns.to_le_bytes());
    out.extend_from_slice(&clock.cluster_ns.to_le_bytes());
}

const SHORT: Undecodable = Undecodable("it is shorter than records of its kind");

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Undecodable> {
    let (head, tail) = rest.split_first_chunk().ok_or(SHORT)?;
    *rest = tail;
    Ok(*head)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, Undecodable> {
    take(rest).map(u64::from_le_bytes)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Undecodable> {
    varint::take(rest).map_err(|error| match error {
        VarintError::Short => SHORT,
        VarintError::TooLarge => Undecodable("a number in it does not fit 64 bits"),
    })
}

fn take_position(rest: &mut &[u8]) -> Result<Position, Undecodable> {
    Ok(Position {
        term: Term(take_varint(rest)?),
        index: LogIndex(take_varint(rest)?),
    })
}

fn take_clock(rest: &mut &[u8]) -> Result<Clock, Undecodable> {
    Ok(Clock {
        boot_id: take(rest)?,
        boottime_ns: take_u64(rest)?,
        cluster_ns: take_u64(rest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        salt: 0xdead_beef,
        offset: 4096,
        durable: 1024,
    };

    fn records() -> Vec<Record<'static>> {
        let position = Position {
            term: Term(300),
            index: LogIndex(u64::MAX),
        };
        let hard_state = HardState {
            term: Term(127),
            vote: Some(NodeId(u64::MAX)),
        };
        let clock = Clock {
            boot_id: [3; 16],
            boottime_ns: 1 << 40,
            cluster_ns: u64::MAX,
        };
        let (seq, salt, bytes) = (7, 9, 1 << 20);
        let head = Head {
            seq,
            salt,
            bytes,
            last: position,
            hard_state,
            clock: Some(clock),
        };
        vec![
            Record::Head(head),
            Record::Head(Head {
                clock: None,
                hard_state: HardState::default(),
                ..head
            }),
            Record::Entry {
                position,
                kind: 2,
                bytes: b"set /a",
            },
            Record::Entry {
                position: Position::default(),
                kind: 1,
                bytes: b"",
            },
            Record::HardState(hard_state),
            Record::HardState(HardState {
                vote: None,
                ..hard_state
            }),
            Record::Clock(clock),
            Record::Tick {
                boottime_ns: 0,
                cluster_ns: 128,
            },
            Record::Reset(position),
            Record::Sealed {
                last: position,
                next_salt: u32::MAX,
            },
            Record::Stop,
        ]
    }

    fn payload(bytes: &[u8]) -> (Prefix, &[u8]) {
        let prefix = Prefix::read(bytes.first_chunk().expect("a prefix"));
        (prefix, &bytes[PREFIX..PREFIX - 1 + prefix.length as usize])
    }

    #[test]
    fn records_come_back_and_no_part_of_one_does() {
        for record in records() {
            let mut bytes = Vec::new();
            record.encode(PLACE, &mut bytes);
            let (prefix, payload) = payload(&bytes);
            assert_eq!(bytes.len() as u64, record.bytes());
            assert_eq!(bytes.len() as u64, prefix.record_bytes());
            assert_eq!((prefix.durable, bytes.len() % 8), (1024, 0));
            assert_eq!(Record::decode(prefix.kind, payload), Ok(record));
            if matches!(record, Record::Entry { .. }) {
                continue; // what follows its position is for raft to judge
            }
            for cut in 0..payload.len() {
                assert!(
                    Record::decode(prefix.kind, &payload[..cut]).is_err(),
                    "{record:?} to {cut}"
                );
            }
            let longer = [payload, &[0]].concat();
            assert!(
                Record::decode(prefix.kind, &longer).is_err(),
                "{record:?} and more"
            );
        }
    }

    #[test]
    fn a_checksum_holds_for_one_file_and_one_place() {
        let mut bytes = Vec::new();
        Record::Stop.encode(PLACE, &mut bytes);
        let Place { salt, offset, .. } = PLACE;
        let crc = payload(&bytes).0.crc;
        assert_eq!(checksum(&bytes, salt, offset), crc);
        assert_ne!(checksum(&bytes, salt + 1, offset), crc);
        assert_ne!(checksum(&bytes, salt, offset + 8), crc);
    }

    #[test]
    fn heads_and_seals_have_the_room_that_is_kept_for_them() {
        for record in records() {
            match record {
                Record::Head(_) => assert_eq!(record.bytes(), HEAD_BYTES),
                Record::Sealed { .. } | Record::Stop => assert!(record.bytes() <= SEAL_BYTES),
                _ => {}
            }
        }
    }

    #[test]
    fn an_entrys_size_is_known_before_it_is_encoded() {
        for (number, length) in [(1, 0), (127, 2), (128, 3), (1 << 14, 100), (u64::MAX, 4000)] {
            let position = Position {
                term: Term(number),
                index: LogIndex(number),
            };
            let payload = crate::raft::Payload::Command(vec![1; length].into());
            let entry = Entry { position, payload };
            let mut bytes = Vec::new();
            encode_entry(&entry, PLACE, &mut bytes);
            assert_eq!(
                bytes.len() as u64,
                entry_bytes(&entry),
                "{number}, {length} bytes"
            );
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let mut most = Vec::new();
        varint::put(u64::MAX, &mut most);
        assert_eq!(take_varint(&mut &most[..]), Ok(u64::MAX));
        most[9] = 2;
        assert!(take_varint(&mut &most[..]).is_err(), "65 bits");
        assert!(take_varint(&mut &[0x80; 11][..]).is_err(), "no end");
    }
}
