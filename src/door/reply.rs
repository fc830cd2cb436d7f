//! How a handler answers: now, later, in chunks, or by taking the socket.

use super::answer::Answer;
use super::inbox::{Address, Inbox, Parked, Ticket};
use super::output::{Exchange, Output, Slices, Stamp};
use super::request::Work;
use std::any::Any;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// Told when the client of a parked answer has gone.
pub trait Gone: Send + Sync {
    /// The connection of the parked answer with this token has ended: its client closed it (or only
    /// its sending side), reset it, read too slowly, or the door stops. Called at most once, on the
    /// worker's thread, so it must not block; and not after the worker has seen the answer's end.
    /// An end that is still in the inbox does not count, so a token should not be used twice.
    fn gone(&self, token: u64);
}

/// What becomes of a socket that leaves the door, and the bytes read from it past the request.
pub(super) type Then = Box<dyn FnOnce(TcpStream, Vec<u8>) + Send>;

/// What the handler has made of its reply.
pub(super) enum Outcome {
    /// Nothing: a fault of ours, answered 500.
    Silent,
    /// Printed, or queued; whether the connection is kept.
    Sent {
        keep: bool,
    },
    Later,
    Parked {
        gone: Arc<dyn Gone>,
        token: u64,
        keep: bool,
    },
    Upgrade(Then),
    /// The handler wants to be called again, in another turn.
    GoOn(Work),
}

/// The answer to one request, to be given once while the handler is called, on the worker's thread:
/// it is printed straight into the connection's output. Dropping it answers 500.
pub struct Reply<'a> {
    pub(super) output: &'a mut Output,
    pub(super) exchange: Exchange,
    pub(super) stamp: &'a Stamp,
    pub(super) worker: usize,
    pub(super) inbox: &'a Arc<Inbox>,
    pub(super) address: Address,
    pub(super) outcome: &'a mut Outcome,
}

impl Reply<'_> {
    /// On which worker's thread this is, counted from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// When this round of the worker began; costs no look at the clock.
    pub fn now(&self) -> Instant {
        self.stamp.now
    }

    /// Answers now.
    pub fn send(self, answer: Answer) {
        let keep = self.output.answer(answer, self.exchange, self.stamp);
        *self.outcome = Outcome::Sent { keep };
    }

    /// Answers now with a body of exactly `length` bytes that is rendered while it is sent. A body
    /// that turns out longer or shorter costs the connection. The body of `head` is not looked at.
    pub fn stream_from(self, head: Answer, length: u64, body: Box<dyn Slices + Send>) {
        let keep = self
            .output
            .stream(&head, length, body, self.exchange, self.stamp);
        *self.outcome = Outcome::Sent { keep };
    }

    /// Lets the worker serve its other connections and then call the handler again, with the same request and with
    /// `work` in [`Request::work`](super::Request::work). Use it for requests that take longer than a millisecond or so
    /// to read. If the client resets the connection first, the handler is not called again.
    pub fn go_on(self, work: Box<dyn Any + Send>) {
        *self.outcome = Outcome::GoOn(work);
    }

    /// Answers later. The connection is not read until then.
    pub fn later(self) -> Ticket {
        *self.outcome = Outcome::Later;
        Ticket::new(self.inbox, self.address)
    }

    /// Sends the head of an answer whose body comes in chunks later, as they are there. The body of
    /// `head` is not looked at. `gone` is told when the client has gone before the end; a client that
    /// closes only its sending side has gone, too.
    pub fn park(self, head: Answer, gone: Arc<dyn Gone>, token: u64) -> Parked {
        let keep = self.output.park(&head, self.exchange, self.stamp);
        *self.outcome = Outcome::Parked { gone, token, keep };
        Parked::new(self.inbox, self.address)
    }

    /// As [`Reply::park`], with a first chunk of exactly `length` bytes, more than none, that is rendered while it is
    /// sent.
    pub fn park_after(
        self,
        head: Answer,
        gone: Arc<dyn Gone>,
        token: u64,
        length: u64,
        first: Box<dyn Slices + Send>,
    ) -> Parked {
        let keep = self.output.park(&head, self.exchange, self.stamp);
        self.output.sliced_chunk(length, first, self.exchange);
        *self.outcome = Outcome::Parked { gone, token, keep };
        Parked::new(self.inbox, self.address)
    }

    /// Sends `head`, a 101 with its `Connection` and `Upgrade` headers; when it is out, the socket
    /// leaves the door, in blocking mode, with the bytes that were read past the request. `then` is
    /// called on the worker's thread and must not block: it hands the socket to a thread of its own.
    pub fn upgrade(self, head: Answer, then: Box<dyn FnOnce(TcpStream, Vec<u8>) + Send>) {
        self.output.upgrade(&head, self.exchange, self.stamp);
        *self.outcome = Outcome::Upgrade(then);
    }
}
