//! An HTTP/1.1 server over sockets. It knows nothing of etcd.
//!
//! # The interface
//!
//! A [`HttpServer`] is a running server. It is opened on listeners with a [`Handler`]. For each request, the server calls the
//! handler with the [`Request`], which borrows the connection's buffer, and a [`Reply`]. The handler answers in one of
//! these ways:
//!
//! - at once ([`Reply::send`], or [`Reply::stream_from`] for a large body),
//! - later, from any thread ([`Reply::later`] returns a [`Ticket`]),
//! - by being called again, after another thread has prepared something ([`Reply::suspend`] returns a [`Suspended`]),
//! - in chunks, as they become available ([`Reply::park`] returns a [`Parked`]), or
//! - by taking over the socket ([`Reply::upgrade`]).
//!
//! The handler runs on a thread that serves many other connections, so **it must not block**: it must not wait for a
//! commit, hold a lock during input or output, or compute for long. Work that takes time is passed on with a ticket.
//!
//! # Threads
//!
//! ```text
//!   listeners ─► accept ──► http-0   its connections, buffers, timers, inbox
//!                     └───► http-1   …
//!                              ▲
//!   any thread ── Ticket, Parked, Outbox ── inbox, at most one wake-up per batch
//! ```
//!
//! The number of workers is fixed. Each connection belongs to the worker that had the fewest connections when it was
//! accepted. So nothing about a connection is shared or locked, and any number of connections is served. A worker waits
//! until its sockets are ready (`mio`). A connection is a state machine: whenever it is processed, it continues as far
//! as possible (`connection.rs`). So no client can block a thread.
//!
//! tiny_http's types are used here, but not its server, for these reasons: it leaves connections unserved when many are
//! opened at once, ends the process on one crafted `Content-Length`, stops accepting after the first error, and takes
//! three times the processor time (`cargo bench --bench http1`).
//!
//! # Reading order
//!
//! `worker.rs` (one round), `connection.rs` (the life of a connection), `head.rs`, `body.rs` and `incoming.rs` (strict
//! framing), `call.rs` (the call of the handler), `input.rs` and `output.rs` (memory),
//! `secure.rs` (TLS), `inbox.rs` (responses from other
//! threads, wake-ups), `timers.rs`, `body_budget.rs`, `backlog.rs`, `accept.rs`.
//!
//! # Invariants
//!
//! - A response reaches the request that it belongs to, or it is dropped (`inbox.rs`).
//! - The responses on a connection are in the order of its requests.
//! - Memory depends on the bytes that a client has sent or is receiving, not on declared lengths. An idle or parked
//!   connection has no buffer.
//! - After bytes whose framing is ambiguous, nothing on that connection is read as a request.
//!
//! Not supported: HTTP/2, `Range`, compression.

mod accept;
mod answer;
mod backlog;
mod body;
mod body_budget;
mod call;
mod connection;
mod head;
mod inbox;
mod incoming;
mod input;
mod limits;
mod listen;
mod output;
mod reply;
mod request;
#[cfg(feature = "tls")]
mod secure;
#[cfg(not(feature = "tls"))]
#[path = "secure_absent.rs"]
mod secure;
mod stream_budget;
mod timers;
mod worker;

pub use answer::Answer;
pub use backlog::Pin;
pub use inbox::{Outbox, Parked, Suspended, Ticket};
pub use limits::{
    ConnectionCaps, HEADERS_MAX, Limits, RESERVE, connection_caps, descriptor_limit,
    raise_descriptor_limit, streams_bytes,
};
pub use listen::{Bound, Listener, Port, SocketFile, bind, listen, listen_unix};
pub use output::Slices;
pub use reply::{Gone, Reply, Upgraded, UpgradedStream};
pub use request::{BodyState, Request};
pub use secure::{Security, TlsStream};

use crate::threads;
use accept::{Acceptor, Control};
use backlog::Backlog;
use body_budget::BodyBudget;
use connection::Tools;
use inbox::{Inbox, Message, Place};
use input::Scratch;
use mio::{Poll, Waker};
use output::Stamp;
use secure::Records;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use stream_budget::StreamBudget;
use worker::{Connections, Gauges, INBOX, Worker};

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Called on a worker's thread, once for each request. Must not block. A panic ends the connection and nothing
    /// else.
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>);

    /// Whether the request is answered even if all connections are in use, provided that it comes from this machine.
    /// Intended for health checks. The request has no body yet.
    fn is_vital(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Called on a worker's thread at the end of a round in which it called the handler, or made a response. A handler
    /// that counts and times requests does so here, once for the whole round. `took` is the duration of the round,
    /// beginning when the worker learned which sockets are ready.
    fn round(&self, worker: usize, took: Duration) {
        let _ = (worker, took);
    }
}

/// The server's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of open connections.
    pub open: usize,
    /// Connections accepted so far, including refused ones.
    pub accepted: u64,
    /// Connections refused because too many were open.
    pub refused: u64,
    /// Requests passed to the handler so far.
    pub requests: u64,
    /// Bytes received on all connections.
    pub received_bytes: u64,
    /// Bytes sent on all connections.
    pub sent_bytes: u64,
    /// Bytes of the chunks of streams that clients have not received yet ([`Limits::streams_bytes`]).
    pub streams_bytes: usize,
    /// Streams cut so far because their chunks exceeded that limit.
    pub streams_cut: u64,
}

/// The server's counters. They can be read at any time.
#[derive(Clone)]
pub struct Counters {
    gauges: Vec<Arc<Gauges>>,
    control: Arc<Control>,
    budget: Arc<StreamBudget<Place>>,
}

impl Counters {
    /// The present values.
    pub fn read(&self) -> Stats {
        let sum = |of: fn(&Gauges) -> &AtomicU64| {
            let values = self.gauges.iter().map(|g| of(g).load(Ordering::Relaxed));
            values.sum()
        };
        Stats {
            open: self
                .gauges
                .iter()
                .map(|g| g.open.load(Ordering::Relaxed))
                .sum(),
            accepted: self.control.accepted.load(Ordering::Relaxed),
            refused: self.control.refused.load(Ordering::Relaxed),
            requests: sum(|g| &g.requests),
            received_bytes: sum(|g| &g.received_bytes),
            sent_bytes: sum(|g| &g.sent_bytes),
            streams_bytes: self.budget.held_bytes(),
            streams_cut: self.budget.cuts(),
        }
    }
}

/// A running server. Dropping it stops it at once.
pub struct HttpServer {
    addresses: Vec<SocketAddr>,
    control: Arc<Control>,
    budget: Arc<StreamBudget<Place>>,
    workers: Vec<(Arc<Inbox>, Arc<Gauges>)>,
    accept_thread: Mutex<Option<JoinHandle<()>>>,
    worker_threads: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Begins to serve `ports` with a fixed number of workers (at least one).
    ///
    /// Errors: those of the system if it has no descriptor or thread left.
    pub fn open(
        ports: Vec<impl Into<Port>>,
        workers: usize,
        limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<HttpServer> {
        let ports: Vec<Port> = ports.into_iter().map(Into::into).collect();
        let address = |port: &Port| match &port.listener {
            Listener::Tcp(socket) => Some(socket.local_addr()),
            Listener::Unix(_) => None,
        };
        let addresses = ports
            .iter()
            .filter_map(address)
            .collect::<io::Result<_>>()?;
        let limits = Arc::new(limits);
        let budget = Arc::new(StreamBudget::new(limits.streams_bytes, limits.lag_time));
        let built = build_workers(workers.max(1), &limits, &budget, &handler)?;
        let shared: Vec<_> = built
            .iter()
            .map(|worker| (Arc::clone(&worker.tools.inbox), Arc::clone(&worker.gauges)))
            .collect();
        let (acceptor, control) = Acceptor::new(ports, shared.clone(), &limits)?;
        // From here on, an error drops the server, which ends the threads started so far.
        let mut http_server = HttpServer {
            addresses,
            control,
            budget,
            workers: shared,
            accept_thread: Mutex::default(),
            worker_threads: Vec::new(),
        };
        for (index, worker) in built.into_iter().enumerate() {
            let thread = threads::critical(&format!("http-{index}"), move || worker.run())?;
            http_server.worker_threads.push(thread);
        }
        let accept = threads::critical("accept", move || acceptor.run())?;
        http_server.accept_thread = Mutex::new(Some(accept));
        Ok(http_server)
    }

    /// The TCP addresses of the listeners, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The server's counters, for code that does not own the server.
    pub fn counters(&self) -> Counters {
        let gauges = self.workers.iter().map(|(_, gauges)| Arc::clone(gauges));
        Counters {
            gauges: gauges.collect(),
            control: Arc::clone(&self.control),
            budget: Arc::clone(&self.budget),
        }
    }

    /// The present values of the server's counters.
    pub fn stats(&self) -> Stats {
        self.counters().read()
    }

    /// The number of connections of each worker.
    pub fn connections_by_worker(&self) -> Vec<usize> {
        self.workers
            .iter()
            .map(|(_, gauges)| gauges.open.load(Ordering::Relaxed))
            .collect()
    }

    /// Closes the listeners. Open connections are still served. Returns when the listeners are closed.
    pub fn stop_accepting(&self) {
        self.control.stop.store(true, Ordering::SeqCst);
        if let Err(error) = self.control.waker.wake() {
            log::error!("the accept thread cannot be woken: {error}");
        }
        let mut thread = self
            .accept_thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }

    /// Stops the server. It accepts no new connections or requests. Parked responses are cut without their final chunk.
    /// Requests that wait for their response, and responses that are being sent, have time until `deadline`. Returns
    /// when all threads have ended.
    pub fn stop(mut self, deadline: Duration) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Duration) {
        self.stop_accepting();
        for (inbox, _) in &self.workers {
            inbox.put(Message::Stop { deadline });
        }
        for thread in self.worker_threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn build_workers(
    count: usize,
    limits: &Arc<Limits>,
    budget: &Arc<StreamBudget<Place>>,
    handler: &Arc<dyn Handler>,
) -> io::Result<Vec<Worker>> {
    let body_budget = Arc::new(BodyBudget::new(
        limits.bodies_bytes,
        limits.head_bytes + limits.body_bytes,
    ));
    let backlog = Arc::new(Backlog::new(limits.answers_bytes, limits.pinned_bytes));
    let mut polls = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..count {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), INBOX)?;
        inboxes.push(Arc::new(Inbox::new(waker, Arc::clone(budget))));
        polls.push(poll);
    }
    let build = |(index, poll)| Worker {
        poll,
        tools: Tools {
            handler: Arc::clone(handler),
            limits: Arc::clone(limits),
            inbox: Arc::clone(&inboxes[index]),
            body_budget: Arc::clone(&body_budget),
            backlog: Arc::clone(&backlog),
            stamp: Stamp::new(),
            input: Scratch::new(),
            output: Vec::new(),
            records: Records::default(),
            turn: 0,
            worker: index,
            requests: 0,
            received_bytes: 0,
            sent_bytes: Cell::new(0),
            called: false,
            stopping: false,
            room: false,
            excess: false,
            streams_grew: false,
        },
        gauges: Arc::new(Gauges::default()),
        inboxes: inboxes.clone(),
        relieve_at: None,
        complained: None,
        cut_logged: None,
        connections: Connections::default(),
    };
    Ok(polls.into_iter().enumerate().map(build).collect())
}
