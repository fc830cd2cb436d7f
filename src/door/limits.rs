//! What a client may cost.
//!
//! Every limit is a field, so that a test can shorten it. None of them depends on what a client
//! *declares*: a declared length decides only whether a body is admitted, never how much memory is
//! set aside for it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// Most headers of one request; more are answered 431.
pub const HEADERS_MAX: usize = 1000;

/// Bytes of a head that a connection may hold without asking; of a longer one the rest counts among the bodies.
pub(super) const HEAD_BYTES_FREE: usize = 64 << 10;

/// Connections for health checks when all others are taken.
const RESERVE: usize = 8;

/// Descriptors that are left to the rest of the process: log segments and snapshots (16), links to peers and snapshots
/// on their way (32), listeners, wakers and standard streams (32), `--listen-metrics-urls` (16), clients of three ports
/// that are refused and still read why (48), the reserve, which may be twice as large for a moment (16).
const DESCRIPTORS_KEPT: u64 = 160;

/// Of the descriptors for connections, one in so many is for the peer port.
const PEER_SHARE: u64 = 8;

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
    /// Bytes that all bodies in progress, and what heads hold beyond 64 KiB each, may hold together, on all
    /// workers; past that their connections wait unread.
    pub bodies_bytes: usize,
    /// How long a body may wait for room without being granted any: 503. Longer than a slow body may
    /// take to be found out, for it is often one that holds the room.
    pub room_time: Duration,
    /// Connections open at a time; one more is answered 503 and closed.
    pub connections: usize,
    /// Connections beyond `connections` for clients on this machine. Each serves one request, which must be vital
    /// ([`Handler::is_vital`](super::Handler::is_vital)).
    pub reserve: usize,
    /// Connections of the reserve that have not sent their request within this time are closed.
    pub reserve_time: Duration,
    /// From the first byte of a head to its end.
    pub head_time: Duration,
    /// In each such span a body must bring at least `body_rate` bytes per second.
    pub body_time: Duration,
    /// Bytes per second.
    pub body_rate: u64,
    /// A connection without a request is closed after so long. None: only when connections are scarce, those first
    /// that never sent a request.
    pub idle_time: Option<Duration>,
    /// An answer of which the client takes nothing for so long is cut. A reader may pause for minutes (`| less`); what
    /// waits for it is rendered on demand and holds little.
    pub write_time: Duration,
    /// After the write side was shut: how long the client may stay silent, and fifteen times that is
    /// how long it may go on sending.
    pub linger_time: Duration,
    /// A parked answer with so many chunks not yet taken by its client is cut.
    pub stream_chunks: usize,
    /// Bytes that the chunks of all parked answers may hold together. Beyond that the one with most of them is cut, of
    /// the worker that notices. A single event may hold tens of megabytes, so no answer has a limit of its own.
    pub streams_bytes: usize,
    /// Bytes of all answers together that are rendered and not sent, without the chunks of parked answers. Above that,
    /// answers whose clients read nothing are cut.
    pub answers_bytes: usize,
    /// Bytes of the handler's data that answers may keep alive ([`Slices::pin`](super::Slices::pin)), or four times the
    /// largest part of it if that is more. Above that, answers whose clients read nothing are cut.
    pub pinned_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 1 << 20,
            body_bytes: 10 << 20,
            discard_bytes: 11 << 20,
            bodies_bytes: 64 << 20,
            room_time: Duration::from_secs(60),
            connections: connection_caps(descriptor_limit()).clients,
            reserve: RESERVE,
            reserve_time: Duration::from_secs(1),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            body_rate: 1024,
            idle_time: None,
            write_time: Duration::from_secs(600),
            linger_time: Duration::from_secs(2),
            stream_chunks: 100,
            streams_bytes: 64 << 20,
            answers_bytes: 64 << 20,
            pinned_bytes: 256 << 20,
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

/// How many connections may be open on each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCaps {
    /// On the client port.
    pub clients: usize,
    /// On the peer port.
    pub peers: usize,
}

/// How many connections fit below a descriptor limit. Both ports together leave what the rest of the process needs,
/// so that no crowd of clients keeps the log from its next segment.
pub fn connection_caps(descriptors: u64) -> ConnectionCaps {
    let kept = DESCRIPTORS_KEPT.min(descriptors / 2);
    let all = descriptors - kept;
    let peers = all / PEER_SHARE;
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    ConnectionCaps {
        clients: count(all - peers),
        peers: count(peers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caps_leave_descriptors_for_the_rest() {
        for descriptors in [0, 1, 16, 64, 128, 256, 1024, 20_000, 1 << 20] {
            let ConnectionCaps { clients, peers } = connection_caps(descriptors);
            let rest = descriptors as usize - clients - peers;
            assert!(rest >= 160.min(descriptors as usize / 2), "{descriptors}");
        }
        let caps = connection_caps(1024);
        assert_eq!((caps.clients, caps.peers), (756, 108));
        let caps = connection_caps(64);
        assert_eq!((caps.clients, caps.peers), (28, 4));
    }
}
