//! What a client may cost.
//!
//! Every limit is a field, so that a test can shorten it. None of them depends on what a client
//! *declares*: a declared length decides only whether a body is admitted, never how much memory is
//! set aside for it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// Most headers of one request; more are answered 431.
pub const HEADERS_MAX: usize = 100;

/// Descriptors that are left to the rest of the process when the connection cap is derived from the
/// descriptor limit: log segments, snapshots, links to peers, standard streams.
const DESCRIPTORS_KEPT: u64 = 64;

/// The limits of one door.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head (request line and headers): 431, or 414 if the line alone is longer.
    pub head_bytes: usize,
    /// Bytes of a body that are kept; of a longer one the handler is told
    /// [`TooLarge`](super::BodyState::TooLarge).
    pub body_bytes: usize,
    /// Bytes read and thrown away after an answer that closes, so that a client that is still sending
    /// finds its answer rather than a reset.
    pub discard_bytes: u64,
    /// Bytes that all bodies in progress, on all workers, may hold together; past that their
    /// connections wait unread.
    pub bodies_bytes: usize,
    /// How long a body may wait for room without being granted any: 503. Longer than a slow body may
    /// take to be found out, for it is often one that holds the room.
    pub room_time: Duration,
    /// Connections open at a time; one more is answered 503 and closed.
    pub connections: usize,
    /// From the first byte of a head to its end.
    pub head_time: Duration,
    /// In each such span a body must bring at least `body_rate` bytes per second.
    pub body_time: Duration,
    /// Bytes per second.
    pub body_rate: u64,
    /// A kept-alive connection without a request.
    pub idle_time: Duration,
    /// An answer of which the client takes nothing for so long is cut.
    pub write_time: Duration,
    /// After the write side was shut: how long the client may stay silent, and fifteen times that is
    /// how long it may go on sending.
    pub linger_time: Duration,
    /// A parked answer with so many chunks not yet taken by its client is cut.
    pub stream_chunks: usize,
    /// As `stream_chunks`, in bytes.
    pub stream_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 64 << 10,
            body_bytes: 10 << 20,
            discard_bytes: 11 << 20,
            bodies_bytes: 64 << 20,
            room_time: Duration::from_secs(60),
            connections: connection_cap(descriptor_limit()),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            body_rate: 1024,
            idle_time: Duration::from_secs(300),
            write_time: Duration::from_secs(30),
            linger_time: Duration::from_secs(2),
            stream_chunks: 100,
            stream_bytes: 1 << 20,
        }
    }
}

/// Raises the number of descriptors this process may open to what it is allowed at most, and returns
/// the limit that holds then. To be called once, before [`Limits::default`].
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
    {
        log::warn!("the descriptor limit stays at {current:?}: {error}");
    }
    descriptor_limit()
}

/// The number of descriptors this process may open; an unlimited one counts as `u32::MAX`.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::from(u32::MAX))
}

/// How many connections fit below a descriptor limit.
fn connection_cap(descriptors: u64) -> usize {
    let kept = DESCRIPTORS_KEPT.min(descriptors / 2);
    usize::try_from(descriptors - kept).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_leaves_descriptors_for_the_rest() {
        assert_eq!(connection_cap(1024), 960);
        assert_eq!(connection_cap(64), 32);
        assert_eq!(connection_cap(0), 0);
    }
}
