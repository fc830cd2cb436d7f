//! Tests of the HTTP server over real sockets, with a handler that has only a few paths (`support::Desk`).

mod accept;
mod answers;
mod child;
mod framing;
mod limits;
mod load;
mod memory;
mod socket;
mod support;

/// Whether the clients of these tests use TLS.
const TLS: bool = false;
