//! The parts of its worker that a connection uses.

use super::super::Handler;
use super::super::backlog::Backlog;
use super::super::body_budget::BodyBudget;
use super::super::inbox::Inbox;
use super::super::input::Scratch;
use super::super::limits::Limits;
use super::super::output::Stamp;
use super::super::secure::Records;
use std::cell::Cell;
use std::sync::Arc;

/// The parts of its worker that a connection uses.
pub(in super::super) struct Tools {
    pub handler: Arc<dyn Handler>,
    pub limits: Arc<Limits>,
    pub inbox: Arc<Inbox>,
    pub body_budget: Arc<BodyBudget>,
    pub backlog: Arc<Backlog>,
    pub stamp: Stamp,
    pub input: Scratch,
    pub output: Vec<u8>,
    pub records: Records,
    /// The last [`Address::turn`] that was assigned.
    pub turn: u64,
    /// Distinguishes this worker's bodies in the memory budget from those of other workers.
    pub worker: usize,
    /// Number of requests passed to the handler.
    pub requests: u64,
    /// Bytes received from sockets, and sent to them.
    pub received_bytes: u64,
    pub sent_bytes: Cell<u64>,
    /// Whether the handler was called, or a response was made, in this round.
    pub called: bool,
    /// Whether the server stops: connections are closed after their response, and no new requests are read.
    pub stopping: bool,
    /// Whether memory was freed that other connections wait for.
    pub room: bool,
    /// Whether responses use too much memory.
    pub excess: bool,
    /// Whether chunks were added to streams that wait for their clients.
    pub streams_grew: bool,
}

impl Tools {
    /// A new, unique id for the memory budget.
    pub fn next_who(&mut self) -> u64 {
        self.turn += 1;
        (self.worker as u64 + 1) << 48 | self.turn
    }
}
