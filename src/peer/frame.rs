//! Frames: the data on a connection between two members after its 101.
//!
//! | offset | size | field   |                                                                  |
//! |-------:|-----:|---------|------------------------------------------------------------------|
//! |      0 |    4 | length  | length of the payload, little-endian                             |
//! |      4 |    4 | crc     | CRC-32 of the length and of everything after this field          |
//! |      8 |    1 | version | 1                                                                |
//! |      9 |    1 | kind    | 1 peer message; snapshot: 2 metadata, 3 slice, 4 end, 5 reply    |
//! |     10 |    8 | cluster | the cluster's id                                                 |
//! |     18 |    8 | sender  | the member's id                                                  |
//! |     26 |    n | payload |                                                                  |
//!
//! The head of the connection already contains version, cluster and sender. Every frame repeats them, so that a frame
//! identifies its sender by itself, even through a proxy.

use super::connection::TimedRead;
use crate::raft::NodeId;
use crc32fast::Hasher;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The version of everything after the 101. The head of the connection contains it as well.
pub(super) const VERSION: u8 = 1;

pub(super) const HEADER_BYTES: usize = 26;

/// Limit for the payload of a peer message: all the requests that clients may have pending in one member (64 MiB), plus
/// the overhead around them.
pub(super) const MESSAGE_BYTES_MAX: usize = 96 << 20;

/// The initial size of a reader's buffer, and the size that an idle reader may keep.
const BUFFER_BYTES: usize = 256 << 10;
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    PeerMessage = 1,
    Metadata = 2,
    Slice = 3,
    End = 4,
    Installed = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        let kinds = [
            Kind::PeerMessage,
            Kind::Metadata,
            Kind::Slice,
            Kind::End,
            Kind::Installed,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The cluster and the sender of frames.
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

/// The checksum of a whole frame, except for the checksum field.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

/// Bytes that are not a valid frame from the sender of this connection. The bytes after them cannot be trusted either.
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
            Damage::TooLong(length) => {
                write!(f, "a frame declares {length} bytes, more than the limit")
            }
            Damage::Checksum => write!(f, "a frame fails its checksum"),
            Damage::Version(version) => write!(f, "a frame has the unknown version {version}"),
            Damage::Kind(kind) => {
                write!(f, "a frame has the unknown kind {kind}")
            }
            Damage::Cluster(id) => write!(f, "a frame names the cluster {id:x}"),
            Damage::Sender(id) => write!(f, "a frame names the member {:x} as its sender", id.0),
        }
    }
}

/// Bytes that the long frames of all connections may use together. A reader takes the length that a frame declares
/// before it reads beyond its own buffer, and waits while there is less in the budget. The time limit of each frame
/// runs meanwhile, so every reader that holds a share returns it in the end. `freed` is notified with each return; only
/// readers of long frames wait on it.
pub(super) struct Budget {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget {
            free: Mutex::new(bytes),
            freed: Condvar::new(),
        })
    }

    /// None: the budget did not have enough within that time.
    fn take(self: &Arc<Budget>, bytes: usize, within: Duration) -> Option<Share> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .freed
            .wait_timeout_while(free, within, |free| *free < bytes);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(bytes)?;
        Some(Share {
            budget: Arc::clone(self),
            bytes,
        })
    }
}

/// A part of the budget, until it is dropped.
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let free = self.budget.free.lock();
        *free.unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.freed.notify_all();
    }
}

/// Limits on the memory and time that a reader may use.
#[derive(Clone)]
pub(super) struct Bounds {
    /// Limit for the payload of a frame, in bytes.
    pub payload_max: usize,
    /// How long a frame may take from its first byte to its last one. Each MiB of the frame adds one second.
    pub time: Duration,
    /// The budget that all readers share.
    pub budget: Arc<Budget>,
}

/// Splits the bytes of a socket into frames. Memory grows with the bytes that have arrived, not with the declared
/// length.
pub(super) struct FrameReader {
    origin: Origin,
    bounds: Bounds,
    /// When the first byte of the incomplete frame arrived.
    begun: Option<Instant>,
    /// The budget share of that frame, if it is a long one.
    share: Option<Share>,
    /// Whether the socket has a time limit for reads.
    is_timed: bool,
    /// The whole buffer may be written to. `start..end` has arrived and is not consumed yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameReader {
    /// `early` contains the bytes that were read together with the head.
    pub fn new(origin: Origin, bounds: Bounds, early: &[u8]) -> FrameReader {
        let mut buffer = vec![0; BUFFER_BYTES.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        FrameReader {
            origin,
            bounds,
            begun: None,
            share: None,
            is_timed: false,
            buffer,
            start: 0,
            end: early.len(),
        }
    }

    /// Whether the buffer contains a whole frame. Fails if its bytes cannot be a frame.
    pub fn has_frame(&self) -> Result<bool, Damage> {
        match self.declared() {
            None => Ok(false),
            Some(length) if length > self.bounds.payload_max => Err(Damage::TooLong(length)),
            Some(length) => Ok(self.end - self.start >= HEADER_BYTES + length),
        }
    }

    /// The payload length that the next frame declares.
    fn declared(&self) -> Option<usize> {
        let waiting = &self.buffer[self.start..self.end];
        let length = waiting.first_chunk()?;
        Some(u32::from_le_bytes(*length) as usize)
    }

    /// The next frame that has arrived completely.
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
        self.begun = None;
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

    /// Waits for more bytes, like [`FrameReader::fill`]. Between frames it waits for `idle`, or without a limit. Within
    /// a frame it waits until the frame's time limit. The caller must have consumed all whole frames before.
    pub fn fill_in_time(
        &mut self,
        source: &mut impl TimedRead,
        idle: Option<Duration>,
    ) -> io::Result<usize> {
        let Some(left) = self.time_left()? else {
            if std::mem::take(&mut self.is_timed) || idle.is_some() {
                source.limit_reads(idle)?;
            }
            return self.fill(source);
        };
        self.take_share(left)?;
        let wait = idle.map_or(left, |idle| idle.min(left));
        // The wait for memory may leave no time, and a socket would take zero for "no limit".
        let wait = wait.max(Duration::from_millis(1));
        self.is_timed = true;
        source.limit_reads(Some(wait))?;
        match self.fill(source) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(too_slow()),
            other => other,
        }
    }

    /// How much time the incomplete frame has left. None: no frame has begun.
    fn time_left(&mut self) -> io::Result<Option<Duration>> {
        if self.start == self.end {
            self.begun = None;
            self.share = None;
            return Ok(None);
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let mib = self.declared().unwrap_or(0) >> 20;
        let most = self.bounds.time + Duration::from_secs(mib as u64);
        let left = most.saturating_sub(begun.elapsed());
        match left.is_zero() {
            true => Err(too_slow()),
            false => Ok(Some(left)),
        }
    }

    /// Takes a share of the budget if the frame is a long one.
    fn take_share(&mut self, within: Duration) -> io::Result<()> {
        let needed = self.declared().unwrap_or(0);
        let has = self.share.as_ref().map_or(0, |share| share.bytes);
        if needed <= BUFFER_BYTES_KEPT || has >= needed {
            return Ok(());
        }
        self.share = None;
        self.share = self.bounds.budget.take(needed, within);
        match &self.share {
            Some(_) => Ok(()),
            None => Err(io::Error::new(
                ErrorKind::OutOfMemory,
                "frames of other connections use all memory for long frames",
            )),
        }
    }

    /// Waits for more bytes. Returns how many arrived; 0 means the end of the stream.
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
            // The size doubles, but does not exceed the frame by much.
            let frame = HEADER_BYTES + self.declared().unwrap_or(0) + BUFFER_BYTES;
            let length = (2 * self.buffer.len()).min(frame.max(self.end + BUFFER_BYTES));
            self.buffer.resize(length, 0);
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "a frame did not arrive in time")
}

/// `N` bytes of a header from `offset` on.
fn part<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    std::array::from_fn(|i| header[offset + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const ORIGIN: Origin = Origin {
        cluster: 0xc1,
        sender: NodeId(7),
    };

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        ORIGIN.frame(Kind::PeerMessage, &mut bytes, |out| {
            out.extend_from_slice(payload)
        });
        bytes
    }

    fn reader(early: &[u8]) -> FrameReader {
        FrameReader::new(ORIGIN, bounds(1 << 20), early)
    }

    fn bounds(payload_max: usize) -> Bounds {
        Bounds {
            payload_max,
            time: Duration::from_secs(20),
            budget: Budget::new(4 << 20),
        }
    }

    /// A reader whose socket has received the beginning of a frame, and the other end of that socket.
    fn long_frame(bounds: &Bounds, payload: usize) -> (FrameReader, TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = TcpStream::connect(listener.local_addr().expect("its address"));
        let (here, _) = listener.accept().expect("the connection");
        let head = (payload as u32).to_le_bytes();
        let reader = FrameReader::new(ORIGIN, bounds.clone(), &head);
        (reader, here, there.expect("connect"))
    }

    /// Each of two connections begins a frame that needs more than half of the budget.
    #[test]
    fn long_frames_share_one_budget() {
        let bounds = Bounds {
            time: Duration::from_millis(300),
            ..bounds(3 << 20)
        };
        let (mut first, socket, mut there) = long_frame(&bounds, 3 << 20);
        std::io::Write::write_all(&mut there, &[0; 100]).expect("write");
        first
            .fill_in_time(&mut &socket, None)
            .expect("it has its share");
        let (mut second, other, _open) = long_frame(&bounds, 3 << 20);
        let begun = second.time_left().expect("time").expect("a frame");
        let error = second.take_share(begun).expect_err("no share is left");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        drop(first);
        let (mut third, _, _also_open) = long_frame(&bounds, 3 << 20);
        third
            .take_share(begun)
            .expect("the dropped reader has returned its share");
        drop((other, socket));
    }

    #[test]
    fn a_frame_that_drips_is_given_up() {
        let bounds = Bounds {
            time: Duration::from_millis(200),
            ..bounds(1 << 20)
        };
        let (mut reader, here, mut there) = long_frame(&bounds, 1000);
        let begun = Instant::now();
        let error = loop {
            let written = std::io::Write::write_all(&mut there, &[0]);
            written.expect("it is read");
            match reader.fill_in_time(&mut &here, None) {
                Ok(count) => assert!(count > 0),
                Err(error) => break error,
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the time limit of the frame has no effect"
            );
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
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
                    assert_eq!(kind, Kind::PeerMessage);
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
        let whole = frame(b"some peer message");
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut reader = reader(&bytes);
            let found = reader.next();
            // A longer declared length only makes the reader wait for bytes that never arrive.
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
