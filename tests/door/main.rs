//! The door over real sockets, with a handler that knows nothing but a few paths (`support::Desk`).

mod accept;
mod answers;
mod child;
mod framing;
mod limits;
mod load;
mod memory;
mod support;
