//! Frames: what a connection between two members carries after its 101.
//!
//! | offset | size | field   |                                                                  |
//! |-------:|-----:|---------|------------------------------------------------------------------|
//! |      0 |    4 | length  | of the payload, little-endian                                    |
//! |      4 |    4 | crc     | CRC-32 of the length and of all that follows this field          |
//! |      8 |    1 | version | 1                                                                |
//! |      9 |    1 | kind    | 1 letter; 2 mark, 3 slice, 4 end of a snapshot; 5 its answer     |
//! |     10 |    8 | cluster | the cluster's id                                                 |
//! |     18 |    8 | sender  | the member's id                                                  |
//! |     26 |    n | payload |                                                                  |
//!
//! The head of the connection has told version, cluster and sender already. They stand in every frame
//! all the same: a frame says for itself whose it is, whatever lies between the two ends.

use crate::raft::NodeId;
use crc32fast::Hasher;
use std::fmt;
use std::io::{self, Read};

/// The version of everything after the 101, told in the head as well.
pub(super) const VERSION: u8 = 1;

pub(super) const HEADER_BYTES: usize = 26;

/// No frame of letters is longer: all that clients may have under way in one member (64 MiB), and room
/// for what stands around it.
pub(super) const LETTER_BYTES_MAX: usize = 96 << 20;

/// What a reader begins with, and what it may keep while nothing comes.
const BUFFER_BYTES: usize = 256 << 10;
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Letter = 1,
    Mark = 2,
    Slice = 3,
    End = 4,
    Installed = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        let kinds = [
            Kind::Letter,
            Kind::Mark,
            Kind::Slice,
            Kind::End,
            Kind::Installed,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Whose frames these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub cluster: u64,
    pub sender: NodeId,
}

impl Origin {
    /// Appends a frame whose payload `fill` appends.
    pub fn frame(&self, kind: Kind, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[VERSION, kind as u8]);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.sender.0.to_le_bytes());
        fill(out);
        let length = out.len() - start - HEADER_BYTES;
        let length = u32::try_from(length).expect("a frame is far below 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Over a whole frame but for the field it goes to.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

/// Bytes that are no frame of this member: whatever follows them cannot be trusted either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    TooLong(usize),
    Checksum,
    Version(u8),
    Kind(u8),
    Cluster(u64),
    Sender(NodeId),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::TooLong(length) => write!(f, "a frame says that it has {length} bytes"),
            Damage::Checksum => write!(f, "a frame fails its checksum"),
            Damage::Version(version) => write!(f, "a frame is of version {version}"),
            Damage::Kind(kind) => {
                write!(f, "a frame is of kind {kind}, which does not belong here")
            }
            Damage::Cluster(id) => write!(f, "a frame is of the cluster {id:x}"),
            Damage::Sender(id) => write!(f, "a frame is of the member {:x}", id.0),
        }
    }
}

/// Cuts what a socket brings into frames. Memory follows what has come, not what a length declares.
pub(super) struct FrameReader {
    origin: Origin,
    payload_max: usize,
    /// All of it may be written to; `start..end` has come and is not yet taken.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    /// `early`: what was read with the head.
    pub fn new(origin: Origin, payload_max: usize, early: &[u8]) -> FrameReader {
        let mut buffer = vec![0; BUFFER_BYTES.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        FrameReader {
            origin,
            payload_max,
            buffer,
            start: 0,
            end: early.len(),
        }
    }

    /// Whether a whole frame waits, or one that can be none.
    pub fn has_frame(&self) -> Result<bool, Damage> {
        let waiting = &self.buffer[self.start..self.end];
        let Some(length) = waiting.first_chunk() else {
            return Ok(false);
        };
        let length = u32::from_le_bytes(*length) as usize;
        match length > self.payload_max {
            true => Err(Damage::TooLong(length)),
            false => Ok(waiting.len() >= HEADER_BYTES + length),
        }
    }

    /// The next whole frame that has come.
    pub fn next(&mut self) -> Result<Option<(Kind, &[u8])>, Damage> {
        let waiting = &self.buffer[self.start..self.end];
        let Some(header) = waiting.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if !self.has_frame()? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(part(header, 0)) as usize;
        let frame = &waiting[..HEADER_BYTES + length];
        if u32::from_le_bytes(part(header, 4)) != checksum(frame) {
            return Err(Damage::Checksum);
        }
        let kind = self.check(header)?;
        let payload = self.start + HEADER_BYTES;
        self.start = payload + length;
        Ok(Some((kind, &self.buffer[payload..payload + length])))
    }

    fn check(&self, header: &[u8; HEADER_BYTES]) -> Result<Kind, Damage> {
        if header[8] != VERSION {
            return Err(Damage::Version(header[8]));
        }
        let cluster = u64::from_le_bytes(part(header, 10));
        if cluster != self.origin.cluster {
            return Err(Damage::Cluster(cluster));
        }
        let sender = NodeId(u64::from_le_bytes(part(header, 18)));
        if sender != self.origin.sender {
            return Err(Damage::Sender(sender));
        }
        Kind::from_byte(header[9]).ok_or(Damage::Kind(header[9]))
    }

    /// Waits for more; how much came, 0 at the end of the stream.
    pub fn fill(&mut self, mut socket: impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match socket.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > BUFFER_BYTES_KEPT {
                self.buffer = vec![0; BUFFER_BYTES];
            }
        } else if self.buffer.len() - self.end < self.buffer.len() / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < self.buffer.len() / 4 {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
    }
}

/// `N` bytes of a header from `offset` on.
fn part<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    std::array::from_fn(|i| header[offset + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin {
        cluster: 0xc1,
        sender: NodeId(7),
    };

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        ORIGIN.frame(Kind::Letter, &mut bytes, |out| {
            out.extend_from_slice(payload)
        });
        bytes
    }

    fn reader(early: &[u8]) -> FrameReader {
        FrameReader::new(ORIGIN, 1 << 20, early)
    }

    #[test]
    fn frames_come_back_however_the_stream_is_cut() {
        let payloads = [vec![], vec![1], vec![2; 300_000], vec![3; 70_000]];
        let stream: Vec<u8> = payloads.iter().flat_map(|bytes| frame(bytes)).collect();
        for piece in [1, 25, 26, 27, 4096, 1 << 20] {
            let mut reader = reader(&stream[..10]);
            let mut rest = &stream[10..];
            let mut found = Vec::new();
            loop {
                while let Some((kind, payload)) = reader.next().expect("sound frames") {
                    assert_eq!(kind, Kind::Letter);
                    found.push(payload.to_vec());
                }
                let piece = piece.max(rest.len() / 1000);
                if reader.fill((&mut rest).take(piece as u64)).expect("bytes") == 0 {
                    break;
                }
            }
            assert!(found == payloads, "in pieces of {piece}");
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let whole = frame(b"some letter");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut reader = reader(&bytes);
            let found = reader.next();
            // A longer length waits for bytes that never come.
            assert!(!matches!(found, Ok(Some(_))), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_frame_of_somebody_else_is_refused() {
        let others = [
            (
                Origin {
                    cluster: 1,
                    ..ORIGIN
                },
                Damage::Cluster(1),
            ),
            (
                Origin {
                    sender: NodeId(8),
                    ..ORIGIN
                },
                Damage::Sender(NodeId(8)),
            ),
        ];
        for (origin, damage) in others {
            let mut bytes = Vec::new();
            origin.frame(Kind::End, &mut bytes, |_| {});
            assert_eq!(reader(&bytes).next(), Err(damage));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_its_bytes_come() {
        let bytes = [&u32::MAX.to_le_bytes()[..], &[0; 22]].concat();
        let damage = Damage::TooLong(u32::MAX as usize);
        assert_eq!(reader(&bytes).next(), Err(damage));
    }

    #[test]
    fn memory_follows_what_came_and_is_given_back() {
        let whole = frame(&vec![5; 1 << 20]);
        let mut reader = reader(&whole[..HEADER_BYTES]);
        assert_eq!(reader.next(), Ok(None));
        let mut rest = &whole[HEADER_BYTES..];
        while reader.fill((&mut rest).take(4000)).expect("bytes") > 0 {
            assert!(reader.buffer.len() <= 3 * reader.end.max(BUFFER_BYTES));
        }
        assert!(reader.next().expect("sound").is_some());
        reader.fill(&[0u8; 1][..]).expect("a byte");
        assert!(reader.buffer.len() <= BUFFER_BYTES_KEPT);
    }
}
