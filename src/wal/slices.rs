//! The bytes of a snapshot: encoded piece by piece, and checked as they arrive. This file does no I/O. A file in `snap`
//! and a backup sent over a connection have the same bytes.
//!
//! | offset | size | field                                               |
//! |-------:|-----:|-----------------------------------------------------|
//! |      0 |    8 | magic `edgeSNP1`                                    |
//! |      8 |    4 | salt, chosen at random when the snapshot is made    |
//! |     12 |      | slices, one after the other, up to the end          |
//!
//! A slice consists of a CRC-32 (4) of the rest of the slice with salt ^ slice number as the initial value, the length
//! of its bytes (4), its kind (1), and its bytes. So a slice is good only at its own place in its own snapshot.
//!
//! | kind | bytes                                                                             |
//! |-----:|-----------------------------------------------------------------------------------|
//! |    1 | the snapshot metadata, as raft encodes it: the first slice, number 0              |
//! |    2 | bytes of the state machine, at most 64 KiB                                        |
//! |    3 | the end, number 2^32 − 1: number of slices before it (4), number of bytes of the state machine (8), CRC-32 of those slices' CRCs (4) |

use crate::raft::SnapshotMetadata;
use crc32fast::Hasher;

pub(super) const MAGIC: [u8; 8] = *b"edgeSNP1";
pub(super) const HEADER_BYTES: u64 = 12;
pub(super) const SLICE_PREFIX: usize = 9;
/// Bytes of the state machine in one slice.
const SLICE_BYTES: usize = 64 * 1024;
/// Upper bound of a slice's length. The metadata of 4,000 members fits.
pub(super) const SLICE_BYTES_MAX: u32 = 1 << 20;
pub(super) const END_BYTES: usize = 4 + 8 + 4;
pub(super) const END_NUMBER: u32 = u32::MAX;

pub(super) const MARK: u8 = 1;
pub(super) const DATA: u8 = 2;
pub(super) const END: u8 = 3;

pub(super) fn slice_crc(salt: u32, number: u32, after_crc: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt ^ number);
    hasher.update(after_crc);
    hasher.finalize()
}

/// Encodes a snapshot from its first byte to its last.
#[derive(Debug)]
pub struct SliceEncoder {
    salt: u32,
    /// Number of the next slice.
    number: u32,
    crcs: Hasher,
    /// Bytes of the state machine so far.
    bytes: u64,
    /// The slice that is being filled, beginning with space for its prefix.
    slice: Vec<u8>,
}

impl SliceEncoder {
    /// Appends everything before the state machine's bytes to `out`. `salt` should be random.
    pub fn begin(salt: u32, metadata: &SnapshotMetadata, out: &mut Vec<u8>) -> SliceEncoder {
        let mut encoder = SliceEncoder {
            salt,
            number: 0,
            crcs: Hasher::new(),
            bytes: 0,
            slice: vec![0; SLICE_PREFIX],
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&salt.to_le_bytes());
        metadata.encode(&mut encoder.slice);
        encoder.put_slice(MARK, out);
        encoder
    }

    /// Takes bytes of the state machine in pieces of any size. Appends each slice that becomes full to `out`.
    pub fn write(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = SLICE_PREFIX + SLICE_BYTES - self.slice.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.slice.extend_from_slice(now);
            self.bytes += now.len() as u64;
            bytes = later;
            if self.slice.len() == SLICE_PREFIX + SLICE_BYTES {
                self.put_slice(DATA, out);
            }
        }
    }

    /// Appends the rest and the end. The caller must not add bytes afterwards.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.slice.len() > SLICE_PREFIX {
            self.put_slice(DATA, out);
        }
        self.slice.extend_from_slice(&self.number.to_le_bytes());
        self.slice.extend_from_slice(&self.bytes.to_le_bytes());
        let crcs = self.crcs.clone().finalize();
        self.slice.extend_from_slice(&crcs.to_le_bytes());
        self.number = END_NUMBER;
        self.put_slice(END, out);
    }

    /// Length of the complete snapshot if the state machine has `state_bytes` bytes.
    pub fn length(metadata: &SnapshotMetadata, state_bytes: u64) -> u64 {
        let mut encoded = Vec::new();
        metadata.encode(&mut encoded);
        let slices = state_bytes.div_ceil(SLICE_BYTES as u64) + 2;
        let prefixes = slices * SLICE_PREFIX as u64;
        HEADER_BYTES + prefixes + encoded.len() as u64 + state_bytes + END_BYTES as u64
    }

    fn put_slice(&mut self, kind: u8, out: &mut Vec<u8>) {
        let length = u32::try_from(self.slice.len() - SLICE_PREFIX).expect("a slice is small");
        assert!(length <= SLICE_BYTES_MAX, "a slice of {length} bytes");
        self.slice[4..8].copy_from_slice(&length.to_le_bytes());
        self.slice[8] = kind;
        let crc = slice_crc(self.salt, self.number, &self.slice[4..]).to_le_bytes();
        self.slice[..4].copy_from_slice(&crc);
        self.crcs.update(&crc);
        self.number = self.number.wrapping_add(1);
        out.extend_from_slice(&self.slice);
        self.slice.truncate(SLICE_PREFIX);
    }
}

/// An error in the bytes of a snapshot, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Offset of the bad slice, or the number of bytes received.
    pub offset: u64,
    /// A clause whose subject is "it".
    pub what: String,
}

/// Checks a snapshot as it arrives, in pieces of any size. It keeps at most one slice in memory.
#[derive(Debug, Default)]
pub struct SliceChecker {
    /// Bytes of a slice that is not complete yet, and their offset.
    held: Vec<u8>,
    offset: u64,
    salt: Option<u32>,
    number: u32,
    crcs: Hasher,
    bytes: u64,
    metadata: Option<SnapshotMetadata>,
    ended: bool,
}

impl SliceChecker {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The bytes are not a valid continuation of a snapshot.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(length) = self.whole(done)? {
            self.take(done, length)?;
            done += length;
            self.offset += length as u64;
        }
        self.held.drain(..done);
        Ok(())
    }

    /// Returns the snapshot's metadata (`SnapshotMetadata`) after all bytes have arrived and were good.
    ///
    /// # Errors
    /// The end is missing.
    pub fn finish(self) -> Result<SnapshotMetadata, Flaw> {
        match self.metadata {
            Some(metadata) if self.ended => Ok(metadata),
            _ => Err(Flaw {
                offset: self.offset + self.held.len() as u64,
                what: "its end is missing".into(),
            }),
        }
    }

    /// Length of the next part, which is the header or a slice, if the part is complete.
    fn whole(&self, done: usize) -> Result<Option<usize>, Flaw> {
        let rest = &self.held[done..];
        if self.ended && !rest.is_empty() {
            return Err(self.flaw("there are bytes after its end"));
        }
        let length = match (self.salt, rest) {
            (None, _) => HEADER_BYTES as usize,
            (Some(_), [_, _, _, _, l0, l1, l2, l3, ..]) => {
                let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
                if length > SLICE_BYTES_MAX {
                    return Err(self.flaw("a slice fails its checksum"));
                }
                SLICE_PREFIX + length as usize
            }
            _ => return Ok(None),
        };
        Ok((rest.len() >= length).then_some(length))
    }

    fn take(&mut self, done: usize, length: usize) -> Result<(), Flaw> {
        let part = std::mem::take(&mut self.held);
        let taken = match self.salt {
            None => self.take_header(&part[done..done + length]),
            Some(salt) => self.take_slice(salt, &part[done..done + length]),
        };
        self.held = part;
        taken
    }

    fn take_header(&mut self, header: &[u8]) -> Result<(), Flaw> {
        let salt = header
            .strip_prefix(&MAGIC)
            .and_then(|salt| salt.try_into().ok());
        self.salt = salt.map(u32::from_le_bytes);
        match self.salt {
            Some(_) => Ok(()),
            None => Err(self.flaw("it is not a snapshot of edgetcd: its first bytes differ")),
        }
    }

    fn take_slice(&mut self, salt: u32, slice: &[u8]) -> Result<(), Flaw> {
        let (prefix, bytes) = slice.split_at(SLICE_PREFIX);
        let kind = prefix[8];
        let number = if kind == END { END_NUMBER } else { self.number };
        let expected = if self.metadata.is_none() {
            kind == MARK
        } else {
            kind != MARK
        };
        let crc = &prefix[..4];
        if !expected || slice_crc(salt, number, &slice[4..]).to_le_bytes() != crc {
            return Err(self.flaw("a slice fails its checksum"));
        }
        match kind {
            MARK => {
                let metadata = SnapshotMetadata::decode(bytes);
                self.metadata = Some(metadata.map_err(|error| self.flaw(&error.to_string()))?);
            }
            DATA => self.bytes += bytes.len() as u64,
            _ => return self.take_end(bytes),
        }
        self.crcs.update(crc);
        self.number = self.number.wrapping_add(1);
        Ok(())
    }

    fn take_end(&mut self, end: &[u8]) -> Result<(), Flaw> {
        let mut wanted = self.number.to_le_bytes().to_vec();
        wanted.extend_from_slice(&self.bytes.to_le_bytes());
        wanted.extend_from_slice(&self.crcs.clone().finalize().to_le_bytes());
        self.ended = end == wanted;
        match self.ended {
            true => Ok(()),
            false => Err(self.flaw("its slices are not those that its end describes")),
        }
    }

    fn flaw(&self, what: &str) -> Flaw {
        Flaw {
            offset: self.offset,
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{LogIndex, Membership, NodeId, Position, Term};

    fn metadata() -> SnapshotMetadata {
        SnapshotMetadata {
            position: Position {
                term: Term(3),
                index: LogIndex(70),
            },
            membership: Membership {
                voters: [NodeId(7), NodeId(9)].into(),
                ..Membership::default()
            },
        }
    }

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = SliceEncoder::begin(0x1234_5678, &metadata(), &mut out);
        bytes
            .chunks(10_000)
            .for_each(|piece| encoder.write(piece, &mut out));
        encoder.end(&mut out);
        out
    }

    fn check(bytes: &[u8], piece: usize) -> Result<SnapshotMetadata, Flaw> {
        let mut checker = SliceChecker::default();
        for piece in bytes.chunks(piece) {
            checker.push(piece)?;
        }
        checker.finish()
    }

    #[test]
    fn all_sizes_are_as_long_as_told_and_good_in_pieces_of_any_size() {
        for size in [0, 1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 200_000] {
            let out = encoded(&vec![7; size]);
            assert_eq!(
                out.len() as u64,
                SliceEncoder::length(&metadata(), size as u64)
            );
            for piece in [1, 8, 4096, usize::MAX] {
                assert_eq!(check(&out, piece), Ok(metadata()), "{size} by {piece}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_seen() {
        let good = encoded(&[5; 300]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(check(&bad, 64).is_err(), "flipped at {at}");
            assert!(check(&good[..at], 64).is_err(), "cut at {at}");
        }
        let longer = [&good[..], &[0]].concat();
        let flaw = check(&longer, 64).expect_err("it goes on");
        assert_eq!(flaw.offset, good.len() as u64);
    }

    #[test]
    fn slices_of_another_snapshot_or_place_are_refused() {
        let (one, other) = (encoded(&[1; 70_000]), {
            let mut out = Vec::new();
            let mut encoder = SliceEncoder::begin(1, &metadata(), &mut out);
            encoder.write(&[1; 70_000], &mut out);
            encoder.end(&mut out);
            out
        });
        let begin = one.len() - 70_000;
        let mixed = [&one[..begin], &other[begin..]].concat();
        assert!(check(&mixed, 4096).is_err());
    }
}
