//! The accept thread. It owns all listeners, waits for them and for the stop signal, and hands each socket to the
//! worker with the fewest connections. It ends when it is stopped, and then the listeners close. Listeners take turns,
//! so that many clients at one of them do not block the others.
//!
//! An error of `accept` never ends the thread. If no descriptor or memory is left, the listener stays ready, and
//! edge-triggered readiness is not reported again. So the thread tries again after 10 ms, then 20, up to 100, and logs
//! it at most once per second.
//!
//! When the number of connections is near its limit, the workers are asked to close idle connections. A few connections
//! above the limit are a reserve for clients with a vital request, such as a health check of a client on this machine.
//! Further clients are still accepted, get a 503, and are disconnected, so that they learn the reason. These few sockets stay
//! open for at most a second ([`Refused`]). Closing at once, with the client's request unread, would reset the
//! connection, and the client could lose the response.
//!
//! The process has several servers, and each counts only its own connections. The system gives out the lowest free
//! descriptor, so the number of a new socket shows how many are in use by all together. Near the process's limit, a
//! connection counts as one above the limit of its server ([`Descriptors`]). So the log can always open its next file.

use super::inbox::{Inbox, Message, Outbox};
use super::limits::{Limits, descriptor_limit, own_descriptors};
use super::listen::{self, Port};
use super::secure::Security;
use super::worker::Gauges;
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const STOP: Token = Token(usize::MAX);
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(100);
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// Clients of one listener that are accepted before those of the other listeners.
const BATCH: usize = 64;
const REFUSED_MAX: usize = 16;
const REFUSED_TIME: Duration = Duration::from_secs(1);

/// Idle connections are closed when less than one in this many places is free.
const NEAR_CAP: usize = 8;
/// How many of them are closed at once, and how often at most.
const EVICTED: usize = 16;
const EVICT_EVERY: Duration = Duration::from_millis(50);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 23\r\nConnection: close\r\n\r\n\
    503 Service Unavailable";

/// The part that the accept thread shares with the [`HttpServer`](super::HttpServer).
pub(super) struct Control {
    pub stop: AtomicBool,
    pub waker: Waker,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
}

pub(super) struct Acceptor {
    poll: Poll,
    listeners: Vec<Source>,
    workers: Vec<(Arc<Inbox>, Arc<Gauges>)>,
    connections_max: usize,
    reserve: usize,
    reserve_is_local: bool,
    descriptors: Descriptors,
    control: Arc<Control>,
    outbox: Outbox,
    /// The worker that is next among those with equally many connections.
    turn: usize,
    refused: Refused,
    retry: Duration,
    complained: Option<Instant>,
    evicted: Option<Instant>,
}

struct Source {
    socket: Socket,
    security: Security,
    /// Whether clients may be waiting.
    ready: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    fn open(listener: listen::Listener, registry: &Registry, token: Token) -> io::Result<Socket> {
        Ok(match listener {
            listen::Listener::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let mut socket = TcpListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                Socket::Tcp(socket)
            }
            listen::Listener::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let mut socket = UnixListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                Socket::Unix(socket)
            }
        })
    }

    /// The client's socket and its address. Both kinds of sockets are descriptors with the same calls, so a Unix socket
    /// is used as a `TcpStream`. Its client counts as one of this machine.
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Socket::Tcp(socket) => socket.accept(),
            Socket::Unix(socket) => {
                let (client, _) = socket.accept()?;
                let client = std::os::unix::net::UnixStream::from(OwnedFd::from(client));
                client.set_nonblocking(true)?;
                let client = std::net::TcpStream::from(OwnedFd::from(client));
                let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                Ok((TcpStream::from_std(client), here))
            }
        }
    }
}

impl Acceptor {
    pub fn new(
        ports: Vec<Port>,
        workers: Vec<(Arc<Inbox>, Arc<Gauges>)>,
        limits: &Limits,
    ) -> io::Result<(Acceptor, Arc<Control>)> {
        let poll = Poll::new()?;
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            waker: Waker::new(poll.registry(), STOP)?,
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut sockets = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            sockets.push(Source {
                socket: Socket::open(port.listener, poll.registry(), Token(index))?,
                security: port.security,
                ready: true,
            });
        }
        let acceptor = Acceptor {
            poll,
            listeners: sockets,
            workers,
            connections_max: limits.connections,
            reserve: limits.reserve,
            reserve_is_local: limits.reserve_is_local,
            descriptors: Descriptors::new(descriptor_limit()),
            control: Arc::clone(&control),
            outbox: Outbox::new(),
            turn: 0,
            refused: Refused::default(),
            retry: RETRY_MIN,
            complained: None,
            evicted: None,
        };
        Ok((acceptor, control))
    }

    /// The thread's main function.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(16);
        while !self.control.stop.load(Ordering::SeqCst) {
            let starved = !self.accept_some();
            let timeout = if starved {
                Some(self.retry)
            } else if self.listeners.iter().any(|listener| listener.ready) {
                Some(Duration::ZERO)
            } else {
                self.refused.timeout()
            };
            self.retry = if starved {
                (self.retry * 2).min(RETRY_MAX)
            } else {
                RETRY_MIN
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                panic!("the accept thread cannot wait for its listeners: {error}");
            }
            for event in &events {
                if let Some(listener) = self.listeners.get_mut(event.token().0) {
                    listener.ready = true;
                }
            }
            self.refused.close_old();
        }
    }

    /// Accepts a batch from each listener; returns false if some could not be accepted for lack of a resource.
    fn accept_some(&mut self) -> bool {
        let mut well = true;
        for index in 0..self.listeners.len() {
            well &= self.accept_from(index);
        }
        self.outbox.flush();
        well
    }

    fn accept_from(&mut self, index: usize) -> bool {
        for _ in 0..BATCH {
            if !self.listeners[index].ready || self.control.stop.load(Ordering::SeqCst) {
                break;
            }
            match self.listeners[index].socket.accept() {
                Ok((socket, remote)) => {
                    self.listeners[index].security.refresh(Instant::now());
                    self.control.accepted.fetch_add(1, Ordering::Relaxed);
                    self.hand_over(socket, remote, index);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => self.listeners[index].ready = false,
                    // This error concerns only the client that disconnected; the next one can still be accepted.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.complain(&error);
                        return false;
                    }
                },
            }
        }
        true
    }

    fn hand_over(&mut self, socket: TcpStream, remote: SocketAddr, listener: usize) {
        let total = self.total(|gauges| &gauges.open);
        let scarcity = self.descriptors.scarcity(&socket);
        if total + self.connections_max / NEAR_CAP >= self.connections_max
            || scarcity != Scarcity::None
        {
            self.evict();
        }
        let is_full = total >= self.connections_max || scarcity != Scarcity::None;
        let reserved = is_full && self.may_use_reserve(remote, scarcity) && self.has_reserve();
        if is_full && !reserved {
            self.control.refused.fetch_add(1, Ordering::Relaxed);
            let is_plain = !self.listeners[listener].security.is_tls();
            return self.refused.add(socket, scarcity, is_plain);
        }
        let count = self.workers.len();
        let turn = self.turn;
        self.turn = (turn + 1) % count;
        let open = |index: &usize| self.workers[*index].1.open.load(Ordering::Relaxed);
        let least = (0..count).map(|step| (turn + step) % count);
        if let Some(index) = least.min_by_key(open) {
            let (inbox, gauges) = &self.workers[index];
            let gauge = if reserved {
                &gauges.reserved
            } else {
                &gauges.open
            };
            gauge.fetch_add(1, Ordering::Relaxed);
            let message = Message::Adopt {
                session: self.listeners[listener].security.begin(remote),
                socket,
                remote,
                reserved,
            };
            self.outbox.add(inbox, message);
        }
    }

    fn may_use_reserve(&self, remote: SocketAddr, scarcity: Scarcity) -> bool {
        let is_local = remote.ip().to_canonical().is_loopback();
        scarcity != Scarcity::Extreme && (is_local || !self.reserve_is_local)
    }

    fn total(&self, of: impl Fn(&Gauges) -> &AtomicUsize) -> usize {
        let each = self.workers.iter().map(|(_, gauges)| of(gauges));
        each.map(|gauge| gauge.load(Ordering::Relaxed)).sum()
    }

    /// The reserve may exceed its limit until its oldest connection is closed. So a client that sends its request at
    /// once is served, however many others connect and send nothing.
    fn has_reserve(&mut self) -> bool {
        let reserved = self.total(|gauges| &gauges.reserved);
        if reserved >= self.reserve {
            for (inbox, _) in &self.workers {
                self.outbox.add(inbox, Message::EvictReserved);
            }
        }
        reserved < 2 * self.reserve
    }

    fn evict(&mut self) {
        if self
            .evicted
            .is_some_and(|last| last.elapsed() < EVICT_EVERY)
        {
            return;
        }
        self.evicted = Some(Instant::now());
        let count = self.connections_max / EVICTED / self.workers.len() + 1;
        for (inbox, _) in &self.workers {
            self.outbox.add(inbox, Message::Evict { count });
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self
            .complained
            .is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY)
        {
            self.complained = Some(Instant::now());
            log::warn!("cannot accept connections for now: {error}");
        }
    }
}

/// How many descriptors are left to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarcity {
    None,
    /// Only connections of the reserve may take one more.
    Some,
    /// No connection may take one more.
    Extreme,
}

/// The descriptors of this process.
struct Descriptors {
    /// A connection with this descriptor or a higher one must be of the reserve.
    scarce: u64,
    /// No connection may keep this descriptor or a higher one.
    extreme: u64,
}

impl Descriptors {
    /// `limit`: how many descriptors the process may open.
    fn new(limit: u64) -> Descriptors {
        let own = own_descriptors(limit);
        Descriptors {
            scarce: limit - own,
            extreme: limit - own / 2,
        }
    }

    fn scarcity(&self, socket: &impl AsRawFd) -> Scarcity {
        match u64::try_from(socket.as_raw_fd()) {
            Ok(number) if number >= self.extreme => Scarcity::Extreme,
            Ok(number) if number >= self.scarce => Scarcity::Some,
            _ => Scarcity::None,
        }
    }
}

/// Clients that got a 503, for as long as they need to read it.
#[derive(Default)]
struct Refused {
    sockets: VecDeque<(Instant, TcpStream)>,
}

impl Refused {
    /// If descriptors are scarce, or if the client expects TLS, the socket is closed at once.
    fn add(&mut self, mut socket: TcpStream, scarcity: Scarcity, is_plain: bool) {
        let is_told =
            is_plain && socket.write(TOO_MANY).is_ok() && socket.shutdown(Shutdown::Write).is_ok();
        if !is_told || scarcity != Scarcity::None {
            return;
        }
        if self.sockets.len() == REFUSED_MAX {
            self.close_first();
        }
        self.sockets
            .push_back((Instant::now() + REFUSED_TIME, socket));
    }

    /// Reads the bytes that the client has sent, because closing with unread bytes resets the connection.
    fn close_first(&mut self) {
        if let Some((_, mut socket)) = self.sockets.pop_front() {
            let _ = socket.read(&mut [0; 16 << 10]);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let (until, _) = self.sockets.front()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    fn close_old(&mut self) {
        while self.timeout().is_some_and(|left| left.is_zero()) {
            self.close_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::stream_budget::StreamBudget;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = super::super::listen(([127, 0, 0, 1], 0).into()).expect("listen");
        let address = listener.local_addr().expect("address");
        (listener, address)
    }

    #[test]
    fn a_crowd_at_one_listener_keeps_nobody_from_the_other() {
        let poll = Poll::new().expect("poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("waker");
        let inbox = Arc::new(Inbox::new(
            waker,
            Arc::new(StreamBudget::new(0, Duration::ZERO)),
        ));
        let gauges = Arc::new(Gauges::default());
        let ((busy, crowded), (quiet, empty)) = (listener(), listener());
        let (mut acceptor, _) = Acceptor::new(
            vec![busy.into(), quiet.into()],
            vec![(Arc::clone(&inbox), gauges)],
            &Limits {
                connections: 1000,
                reserve: 0,
                ..Limits::default()
            },
        )
        .expect("acceptor");
        let connect = |address| TcpStream::connect(address).expect("connect");
        let _crowd: Vec<_> = (0..3 * BATCH).map(|_| connect(crowded)).collect();
        let _single = connect(empty);
        let mut came = Vec::new();
        while came.len() <= 3 * BATCH {
            assert!(acceptor.accept_some());
            let mut messages = Vec::new();
            inbox.take(&mut messages);
            came.extend(messages.into_iter().map(|message| match message {
                Message::Adopt { socket, .. } => socket.local_addr().ok(),
                _ => None,
            }));
        }
        let place = came.iter().position(|address| *address == Some(empty));
        assert_eq!(place, Some(BATCH), "after one batch of the crowd");
    }
}
