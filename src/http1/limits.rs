//! Limits on the resources that a client can use.
//!
//! Every limit is a field, so that a test can reduce it. None of them depends on a *declared* length: a declared length
//! decides only whether a body is accepted, but not how much memory is reserved for it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// Maximum number of headers in one request. More are answered 431.
pub const HEADERS_MAX: usize = 1000;

/// Bytes of a head that a connection may hold without a grant. The rest of a longer head is counted like a body.
pub(super) const HEAD_BYTES_FREE: usize = 64 << 10;

/// Connections for vital requests, such as health checks, when all others are in use.
pub const RESERVE: usize = 8;

/// Descriptors that are left to the rest of the process: log segments and snapshots (16), connections to other members
/// and snapshots in transfer (32), listeners, wakers and standard streams (32), `--listen-metrics-urls` (16), refused
/// clients on three ports that still read the reason (48), and the reserves of three ports, which may be twice as large
/// for a moment (48).
const DESCRIPTORS_KEPT: u64 = 192;

/// Descriptors that no connection may take on any port, however low the limit is: log segments and snapshots (16), and
/// connections to other members (32).
const DESCRIPTORS_OWN: u64 = 48;

/// Minimum and maximum of [`Limits::streams_bytes`]. The maximum has room for three events with the largest values that
/// a form can hold, each with the value before.
const STREAMS_BYTES: (usize, usize) = (16 << 20, 64 << 20);

/// The part of the memory that the chunks of streams may use.
const STREAMS_SHARE: u64 = 8;

/// One in this many descriptors for connections is for the peer port.
const PEER_SHARE: u64 = 8;

/// The limits of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head (request line and headers). A longer head gets 431, or 414 if the request line alone
    /// is longer.
    pub head_bytes: usize,
    /// Bytes of a body that are kept. For a longer body, the handler receives [`TooLarge`](super::BodyState::TooLarge).
    pub body_bytes: usize,
    /// Bytes that are read and discarded after a response that closes the connection. So a client that is still sending
    /// receives the response, not a reset.
    pub discard_bytes: u64,
    /// Total bytes of all bodies that are being received, and of the parts of heads beyond 64 KiB, on all workers. When
    /// it is reached, their connections are not read until memory is freed.
    pub bodies_bytes: usize,
    /// How long a body may wait for memory before it gets 503. This is longer than the time after which a slow body is
    /// noticed, because often it is a slow body that holds the memory.
    pub room_time: Duration,
    /// Maximum number of open connections. Another client gets 503 and is disconnected.
    pub connections: usize,
    /// Connections beyond `connections`. Each serves one request, which must be vital
    /// ([`Handler::is_vital`](super::Handler::is_vital)).
    pub reserve: usize,
    /// Whether the reserve is only for clients on this machine.
    pub reserve_is_local: bool,
    /// Connections of the reserve that have not sent their request within this time are closed.
    pub reserve_time: Duration,
    /// Time from the beginning of a connection to the end of its TLS handshake.
    pub handshake_time: Duration,
    /// Failed TLS handshakes of the same address are logged once within this time. 0: all of them.
    pub failure_pause: Duration,
    /// Time from the first byte of a head to its end.
    pub head_time: Duration,
    /// In each time span of this length, a body must bring at least `body_rate` bytes per second.
    pub body_time: Duration,
    /// Bytes per second.
    pub body_rate: u64,
    /// Time after which a connection without a request is closed. `None`: only when too many connections are open,
    /// first those that never sent a request.
    pub idle_time: Option<Duration>,
    /// Time without progress after which a response is cut. A reader may pause for minutes (`| less`). The waiting part
    /// is rendered on demand and uses little memory.
    pub write_time: Duration,
    /// After the write side was shut: how long the client may send nothing. It may continue to send for fifteen times
    /// as long.
    pub linger_time: Duration,
    /// Number of chunks that the client has not accepted, at which a parked response is cut.
    pub stream_chunks: usize,
    /// Total bytes of the chunks of all parked responses. A chunk counts once, however many responses it belongs to.
    /// Above that, senders wait ([`Outbox::is_full`](super::Outbox::is_full)), and responses whose clients lag are cut,
    /// the one with the most bytes first. A single event may have tens of megabytes, so a response has no limit of its
    /// own. See [`streams_bytes`].
    pub streams_bytes: usize,
    /// How long a client may accept nothing, and how long a chunk may wait behind another one, before the response lags.
    pub lag_time: Duration,
    /// Total bytes of all responses that are rendered and not sent, without the chunks of parked responses. Above that,
    /// responses whose clients read nothing are cut.
    pub answers_bytes: usize,
    /// Bytes of the handler's data that responses may keep alive ([`Slices::pin`](super::Slices::pin)), or four times
    /// the largest part of it if that is more. Above that, responses whose clients read nothing are cut.
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
            reserve_is_local: true,
            reserve_time: Duration::from_secs(1),
            handshake_time: Duration::from_secs(10),
            failure_pause: Duration::ZERO,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            body_rate: 1024,
            idle_time: None,
            write_time: Duration::from_secs(600),
            linger_time: Duration::from_secs(2),
            stream_chunks: 100,
            streams_bytes: STREAMS_BYTES.1,
            lag_time: Duration::from_secs(1),
            answers_bytes: 64 << 20,
            pinned_bytes: 256 << 20,
        }
    }
}

/// Raises the number of descriptors that this process may open to its maximum, and returns the limit. Call it once,
/// before [`Limits::default`].
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

/// The number of descriptors that this process may open. Unlimited is returned as `u32::MAX`.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::from(u32::MAX))
}

/// How many descriptors below this limit are not for connections. Connections of the reserve may take half of them.
pub(super) fn own_descriptors(descriptors: u64) -> u64 {
    DESCRIPTORS_OWN.min(descriptors / 4)
}

/// [`Limits::streams_bytes`] for a process that may use `memory` bytes: an eighth of it, at least 16 MiB and at most
/// 64 MiB. `None` if the size is unknown: 64 MiB.
pub fn streams_bytes(memory: Option<u64>) -> usize {
    let (least, most) = STREAMS_BYTES;
    let share = memory.map_or(most as u64, |memory| memory / STREAMS_SHARE);
    usize::try_from(share).unwrap_or(most).clamp(least, most)
}

/// Maximum number of open connections on each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCaps {
    /// On the client port.
    pub clients: usize,
    /// On the peer port.
    pub peers: usize,
}

/// How many connections fit below a descriptor limit. The sum for both ports leaves enough for the rest of the process,
/// so that a large number of clients cannot prevent the next log segment.
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
    fn streams_use_a_part_of_the_memory() {
        let mib = |memory: u64| streams_bytes(Some(memory << 20)) >> 20;
        assert_eq!([0, 64, 128].map(mib), [16; 3]);
        assert_eq!([256, 511, 512, 1 << 20].map(mib), [32, 63, 64, 64]);
        assert_eq!(streams_bytes(Some(u64::MAX)), 64 << 20);
        assert_eq!(streams_bytes(None), Limits::default().streams_bytes);
    }

    #[test]
    fn the_caps_leave_descriptors_for_the_rest() {
        for descriptors in [0, 1, 16, 64, 128, 256, 1024, 20_000, 1 << 20] {
            let ConnectionCaps { clients, peers } = connection_caps(descriptors);
            let rest = descriptors as usize - clients - peers;
            assert!(rest >= 192.min(descriptors as usize / 2), "{descriptors}");
        }
        let caps = connection_caps(1024);
        assert_eq!((caps.clients, caps.peers), (728, 104));
        let caps = connection_caps(64);
        assert_eq!((caps.clients, caps.peers), (28, 4));
    }
}
