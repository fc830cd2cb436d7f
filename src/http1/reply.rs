//! How a handler answers: at once, later, in chunks, or by taking over the socket.

use super::answer::Answer;
use super::inbox::{Address, Inbox, Parked, Suspended, Ticket};
use super::output::{Exchange, Output, Slices, Stamp};
use super::request::Work;
use super::secure::TlsStream;
use std::any::Any;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// Is notified when the client of a parked response has disconnected.
pub trait Gone: Send + Sync {
    /// The connection of the parked response with this token has ended: its client closed it (or only its sending
    /// side), reset it, or read too slowly, or the server stops. Called at most once, on the worker's thread, so it
    /// must not block. It is not called after the worker has processed the end of the response. If that end is still in
    /// the inbox, it is called, so a token should not be used twice.
    fn gone(&self, token: u64);
}

/// A connection that is handed over, in blocking mode.
pub struct Upgraded {
    /// The connection.
    pub stream: UpgradedStream,
    /// The bytes that were read after the request.
    pub early: Vec<u8>,
}

/// The two kinds of connections.
pub enum UpgradedStream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream>),
}

impl UpgradedStream {
    /// The socket, for its options and to shut it down.
    pub fn socket(&self) -> &TcpStream {
        match self {
            UpgradedStream::Plain(socket) => socket,
            UpgradedStream::Tls(stream) => stream.socket(),
        }
    }
}

impl Read for UpgradedStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            UpgradedStream::Plain(socket) => socket.read(room),
            UpgradedStream::Tls(stream) => stream.read(room),
        }
    }
}

impl Write for UpgradedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            UpgradedStream::Plain(socket) => socket.write(bytes),
            UpgradedStream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            UpgradedStream::Plain(socket) => socket.flush(),
            UpgradedStream::Tls(stream) => stream.flush(),
        }
    }
}

/// Receives a connection that is handed over.
pub(super) type Then = Box<dyn FnOnce(Upgraded) + Send>;

/// What the handler did with its reply.
pub(super) enum Outcome {
    /// Nothing. This is a bug of the handler, and is answered 500.
    Silent,
    /// Printed or queued. `keep`: whether the connection is kept.
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
    /// The handler must be called again, in another turn.
    GoOn(Work),
    /// The handler must be called again, when a [`Suspended`] says so.
    Suspended,
}

/// The reply to one request. The handler uses it once, on the worker's thread: the response is printed directly into
/// the connection's output. Dropping it answers 500.
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
    /// The number of the worker that runs this thread, counted from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// When this round of the worker began. Does not read the clock.
    pub fn now(&self) -> Instant {
        self.stamp.now
    }

    /// Sends the response now.
    pub fn send(self, answer: Answer) {
        let keep = self.output.answer(answer, self.exchange, self.stamp);
        *self.outcome = Outcome::Sent { keep };
    }

    /// Responds now with a body of exactly `length` bytes that is rendered while it is sent. If the body turns out
    /// longer or shorter, the connection is closed. The body of `head` is ignored.
    pub fn stream_from(self, head: Answer, length: u64, body: Box<dyn Slices + Send>) {
        let keep = self
            .output
            .stream(&head, length, body, self.exchange, self.stamp);
        *self.outcome = Outcome::Sent { keep };
    }

    /// Lets the worker serve its other connections, and then call the handler again with the same request and with
    /// `work` in [`Request::work`](super::Request::work). Use it for requests that take more than about a millisecond
    /// to read. If the client resets the connection first, the handler is not called again.
    pub fn go_on(self, work: Box<dyn Any + Send>) {
        *self.outcome = Outcome::GoOn(work);
    }

    /// Keeps the request until another thread has done something for it. Then the handler is called again, as after
    /// [`Reply::go_on`]. The connection is not read until then.
    pub fn suspend(self) -> Suspended {
        *self.outcome = Outcome::Suspended;
        Suspended::new(self.inbox, self.address)
    }

    /// Answers later. The connection is not read until then.
    pub fn later(self) -> Ticket {
        *self.outcome = Outcome::Later;
        Ticket::new(self.inbox, self.address)
    }

    /// Sends the head of a response whose chunks follow when they are available. The body of `head` is ignored. `gone`
    /// is notified if the client disconnects before the end. A client that closes only its sending side counts as
    /// disconnected too.
    pub fn park(self, head: Answer, gone: Arc<dyn Gone>, token: u64) -> Parked {
        let keep = self.output.park(&head, self.exchange, self.stamp);
        *self.outcome = Outcome::Parked { gone, token, keep };
        Parked::new(self.inbox, self.address)
    }

    /// Like [`Reply::park`], with a first chunk of exactly `length` bytes (at least one) that is rendered while it is
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

    /// Sends `head`, a 101 with its `Connection` and `Upgrade` headers. After it was sent, the connection is handed over. `then` is called on the worker's thread and must
    /// not block: it passes the connection to another thread.
    pub fn upgrade(self, head: Answer, then: Box<dyn FnOnce(Upgraded) + Send>) {
        self.output.upgrade(&head, self.exchange, self.stamp);
        *self.outcome = Outcome::Upgrade(then);
    }
}
