//! The life of one connection.
//!
//! ```text
//!            ┌─────────── the response is printed, the connection is kept ◄──┐
//!            ▼                                                               │
//!   ──► Open: a head, then its body, ──► handler ──┬─ send, stream_from ─────┤
//!            are received                          ├─ later ──► Waiting ─────┤
//!            │                                     ├─ park ───► Parked ──────┤
//!            │ malformed, too slow                 └─ upgrade ► Leaving ──► the socket is handed over
//!            ▼                                                               │
//!        Draining ◄───────────────── the connection closes ◄─────────────────┘
//!            the response is sent, the write side is shut, further input is discarded
//! ```
//!
//! A connection is processed when its socket is ready, when a message for it is in the worker's inbox, or when its
//! deadline has passed. It then continues as far as possible ([`Connection::run`]) and returns what the worker must do
//! with it ([`NextStep`]). It never waits.
//!
//! - Readiness is edge-triggered, so it is reported once. [`Connection::readable`] remembers it until a read returns
//!   fewer bytes than requested. So no state change needs a system call to change the events of interest.
//! - Requests are served one at a time, in order. While a request waits for its response, or responses wait for the
//!   socket, nothing is read. So TCP stops a client that sends requests without reading responses.
//! - If the client closes its sending side, that is reported even while nothing is read. It ends a parked response at
//!   once. Any other request is still answered (`printf … | nc`).
//! - Each state has at most one time limit ([`Clock`]).
//!
//! This file has the states. The files of the folder have the parts: `receive.rs` reads, `requests.rs` calls the
//! handler, `unsent.rs` sends, `clock.rs` limits the time.

mod clock;
mod receive;
mod requests;
mod tools;
mod unsent;

pub(super) use tools::Tools;

use super::backlog::Share;
use super::inbox::{Address, Message};
use super::incoming::Incoming;
use super::input::Input;
use super::output::{Exchange, Output};
use super::reply::{Gone, Then};
use super::request::{Client, Work};
use super::secure::Session;
use super::stream_budget::Chunk;
use clock::Clock;
use mio::net::TcpStream;
use receive::{Filled, LongHead};
use requests::Taken;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of requests of one connection that are served before other connections are served.
const REQUESTS_PER_TURN: usize = 64;

/// Maximum number of bytes of one connection that are read before other connections are served: a client that sends
/// quickly must not keep the worker from its other connections.
const BYTES_PER_TURN: usize = 256 << 10;

/// How many times `linger_time` a client may continue to send to a connection that closes.
const LINGERS_MAX: u32 = 15;

/// The `linger_time` while the server stops.
const LINGER_STOPPING: Duration = Duration::from_millis(100);

/// What the worker must do with a connection after processing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    Stay,
    /// Process it again without waiting for an event.
    Again,
    /// Like `Stay`, until there is memory for its body.
    AwaitRoom,
    Close,
    /// Hand its socket over.
    Leave,
}

enum State {
    Open,
    Waiting,
    Parked(Box<Watch>),
    Leaving(Then),
    Draining(Drain),
}

/// A parked response.
struct Watch {
    gone: Arc<dyn Gone>,
    token: u64,
    keep: bool,
    /// Bytes of a long head that the owner of the response may keep.
    kept: usize,
}

/// A connection that closes: the bytes still to be discarded, and, after the write side was shut, the latest end.
struct Drain {
    left: u64,
    until: Option<Instant>,
}

/// The parts of a connection that is handed over.
pub(super) struct Leaving {
    pub socket: TcpStream,
    pub session: Option<Box<Session>>,
    pub early: Vec<u8>,
    pub then: Then,
}

/// The rest of a connection's turn.
struct Turn {
    requests: usize,
    bytes: usize,
}

impl Turn {
    fn new() -> Turn {
        Turn {
            requests: REQUESTS_PER_TURN,
            bytes: BYTES_PER_TURN,
        }
    }

    fn is_over(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    fn read(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }
}

/// A connection. Its worker owns it.
pub(super) struct Connection {
    socket: TcpStream,
    /// With TLS.
    session: Option<Box<Session>>,
    client: Client,
    slot: u32,
    /// The address of the response that is awaited ([`Address::turn`]), or 0.
    turn: u64,
    state: State,
    /// Belongs to the request that is being answered.
    exchange: Exchange,
    input: Input,
    output: Output,
    incoming: Option<Box<Incoming>>,
    long_head: Option<Box<LongHead>>,
    /// The handler's work so far on a request that is not finished. The input still begins with that request.
    work: Option<Work>,
    /// Bytes of an incomplete head that were scanned for its end, and those that were parsed.
    seen: usize,
    parsed: usize,
    /// Whether the socket has, or may have, bytes to read.
    readable: bool,
    /// Whether the client has closed its sending side.
    read_closed: bool,
    /// Whether the output must be continued in another turn.
    paused: bool,
    clock: Clock,
    /// When it became idle, while the clock is [`Clock::Idle`].
    idle_since: Instant,
    /// Whether a request was served.
    used: bool,
    /// Whether it belongs to the reserve and serves one vital request.
    reserved: bool,
    /// When it must be processed at the latest.
    pub deadline: Option<Instant>,
    /// Its id in the budget of streams, or 0 if no chunk waits here.
    stream_id: u64,
    /// Its part of the backlog's sums.
    share: Share,
    /// Whether the worker has it in its list of connections that wait for memory, and in the list of those that need
    /// another turn.
    pub awaits_room: bool,
    pub awaits_turn: bool,
}

impl Connection {
    pub fn new(
        socket: TcpStream,
        session: Option<Box<Session>>,
        remote: SocketAddr,
        slot: u32,
        reserved: bool,
    ) -> Connection {
        Connection {
            socket,
            session,
            client: Client {
                remote,
                certificate_name: None,
            },
            slot,
            turn: 0,
            state: State::Open,
            exchange: Exchange {
                old: false,
                head_only: false,
                keep_alive: false,
            },
            input: Input::new(),
            output: Output::new(),
            incoming: None,
            long_head: None,
            work: None,
            seen: 0,
            parsed: 0,
            readable: false,
            read_closed: false,
            paused: false,
            clock: Clock::None,
            idle_since: Instant::now(),
            used: false,
            reserved,
            deadline: None,
            stream_id: 0,
            share: Share::default(),
            awaits_room: false,
            awaits_turn: false,
        }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub fn is_reserved(&self) -> bool {
        self.reserved
    }

    pub fn is_handshaking(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_handshaking())
    }

    /// Whether a response with this address is awaited here.
    pub fn awaits(&self, to: Address) -> bool {
        self.turn == to.turn && to.turn != 0
    }

    /// The socket is ready. `hung_up`: both of its sides are closed.
    pub fn ready(
        &mut self,
        readable: bool,
        read_closed: bool,
        hung_up: bool,
        tools: &mut Tools,
    ) -> NextStep {
        // Bytes that a client sent before it closed must be read even then: see `drain`.
        if hung_up && !matches!(self.state, State::Draining(_)) {
            return NextStep::Close;
        }
        self.readable |= readable || read_closed;
        self.read_closed |= read_closed;
        self.run(tools)
    }

    /// A message has arrived for which [`Connection::awaits`] is true.
    pub fn deliver(&mut self, message: Message, tools: &mut Tools) -> NextStep {
        self.output.borrow(&mut tools.output);
        if tools.stopping {
            self.exchange.keep_alive = false;
        }
        match message {
            Message::Answer { answer, .. } => {
                let keep = self.output.answer(answer, self.exchange, &tools.stamp);
                self.answered(keep, tools);
            }
            Message::Resume { with, .. } => self.resume(with, tools),
            Message::GoOn { work, .. } => {
                (self.turn, self.state) = (0, State::Open);
                self.work = Some(work);
            }
            Message::Chunk { chunk, .. } => {
                if self.lags(tools) {
                    self.output.settle(&mut tools.output);
                    return NextStep::Close;
                }
                self.output.chunk(chunk, self.exchange);
            }
            Message::End { last, .. } => self.end_watch(last, tools),
            Message::Abort { .. } => {
                self.state = State::Open;
                self.output.settle(&mut tools.output);
                return NextStep::Close;
            }
            Message::Adopt { .. }
            | Message::Cut { .. }
            | Message::Room
            | Message::Relieve
            | Message::Evict { .. }
            | Message::EvictReserved
            | Message::Stop { .. } => {
                unreachable!("a message for the worker was passed to a connection")
            }
        }
        self.run(tools)
    }

    fn lags(&self, tools: &Tools) -> bool {
        self.output.backlog().0 >= tools.limits.stream_chunks
    }

    fn end_watch(&mut self, last: Arc<[u8]>, tools: &Tools) {
        let State::Parked(watch) = &self.state else {
            return;
        };
        let keep = watch.keep && !tools.stopping;
        self.forget_unsent(tools);
        self.output.chunk(Chunk::uncounted(last), self.exchange);
        self.output.last_chunk(self.exchange);
        self.answered(keep, tools);
    }

    /// The server stops: connections that do not wait for a response end here.
    pub fn stop(&mut self, tools: &mut Tools) -> NextStep {
        match self.state {
            State::Parked(_) => return NextStep::Close,
            State::Open if self.output.is_empty() => return NextStep::Close,
            // Printed responses are sent to their end; further requests are not begun.
            State::Open => {
                self.end_body(tools);
                self.answered(false, tools);
            }
            State::Draining(_) if self.clock == Clock::Linger => return NextStep::Close,
            _ => {}
        }
        self.run(tools)
    }

    /// Continues as far as possible.
    pub fn run(&mut self, tools: &mut Tools) -> NextStep {
        self.output.borrow(&mut tools.output);
        self.paused = false;
        let mut next = self.advance(tools).unwrap_or(NextStep::Close);
        if next == NextStep::Close {
            self.input.clear();
        }
        if next == NextStep::Stay && self.paused {
            next = NextStep::Again;
        }
        self.output.settle(&mut tools.output);
        self.input.settle(&mut tools.input);
        self.count(tools);
        self.record_unsent(tools);
        self.count_output(tools);
        next
    }

    /// Errors: those of the socket. The client cannot be informed of them.
    fn advance(&mut self, tools: &mut Tools) -> io::Result<NextStep> {
        let mut turn = Turn::new();
        loop {
            match self.state {
                State::Open => {
                    if let Some(next) = self.serve(&mut turn, tools)? {
                        return Ok(next);
                    }
                }
                State::Parked(_) if self.read_closed => return Ok(NextStep::Close),
                State::Waiting | State::Parked(_) => {
                    if self.flush(tools)? {
                        self.unwind();
                    }
                    return Ok(NextStep::Stay);
                }
                State::Leaving(_) => {
                    return Ok(if self.flush(tools)? {
                        NextStep::Leave
                    } else {
                        NextStep::Stay
                    });
                }
                State::Draining(_) => return self.drain(&mut turn, tools),
            }
        }
    }

    /// Processes received requests, sends responses, reads. `None` means: continue.
    fn serve(&mut self, turn: &mut Turn, tools: &mut Tools) -> io::Result<Option<NextStep>> {
        let (mut hungry, mut unfinished) = (false, false);
        while !hungry
            && !unfinished
            && turn.requests > 0
            && !self.output.is_full()
            && matches!(self.state, State::Open)
        {
            match self.take_request(tools) {
                Taken::Request => turn.requests -= 1,
                Taken::NeedMore => hungry = true,
                Taken::Unfinished => unfinished = true,
            }
        }
        if !self.flush(tools)? {
            return Ok(Some(NextStep::Stay));
        }
        if !matches!(self.state, State::Open) {
            return Ok(None);
        }
        if unfinished {
            return Ok(Some(NextStep::Again));
        }
        if !hungry {
            return Ok((turn.requests == 0).then_some(NextStep::Again));
        }
        if !self.readable {
            self.wind(tools);
            return Ok(Some(NextStep::Stay));
        }
        if turn.is_over() {
            return Ok(Some(NextStep::Again));
        }
        Ok(match self.fill(tools)? {
            Filled::More(count) => {
                turn.read(count);
                None
            }
            Filled::Nothing => {
                self.wind(tools);
                Some(NextStep::Stay)
            }
            Filled::NoRoom if self.read_closed && !self.may_complete() => Some(NextStep::Close),
            Filled::NoRoom => {
                if self.clock != Clock::Room {
                    self.set_clock(Clock::Room, tools.limits.room_time, tools);
                }
                Some(NextStep::AwaitRoom)
            }
            Filled::End => Some(NextStep::Close),
        })
    }

    /// Sends the rest, shuts the write side, and discards further input. Closing a socket with unread bytes would reset
    /// the connection, and the client could lose the response.
    fn drain(&mut self, turn: &mut Turn, tools: &mut Tools) -> io::Result<NextStep> {
        if !self.flush(tools)? || !self.end_session(tools)? {
            return Ok(NextStep::Stay);
        }
        let State::Draining(drain) = &mut self.state else {
            return Ok(NextStep::Close);
        };
        let linger = match tools.stopping {
            true => tools.limits.linger_time.min(LINGER_STOPPING),
            false => tools.limits.linger_time,
        };
        let until = match drain.until {
            Some(until) => until,
            None => {
                self.socket.shutdown(Shutdown::Write)?;
                let until = tools.stamp.now + linger * LINGERS_MAX;
                (self.clock, self.deadline) = (Clock::Linger, Some(tools.stamp.now + linger));
                *drain.until.insert(until)
            }
        };
        self.input.clear();
        while self.readable {
            if turn.is_over() {
                return Ok(NextStep::Again);
            }
            let filled = self.fill(tools)?;
            let count = self.input.len() as u64;
            turn.read(self.input.len());
            self.input.clear();
            let State::Draining(drain) = &mut self.state else {
                return Ok(NextStep::Close);
            };
            if matches!(filled, Filled::End) || count >= drain.left {
                return Ok(NextStep::Close);
            }
            drain.left -= count;
            if count > 0 {
                self.deadline = Some(until.min(tools.stamp.now + linger));
            }
        }
        Ok(NextStep::Stay)
    }

    /// The connection has ended: frees shared resources, and informs the owner of a parked response.
    pub fn ended(&mut self, tools: &mut Tools) {
        self.forget_unsent(tools);
        tools.backlog.update(&mut self.share, 0, None);
        self.end_head(tools);
        self.end_body(tools);
        if let Some(session) = &mut self.session {
            session.end();
            // The client may be gone, or may not read.
            let _ = session.push(&self.socket, &mut tools.records);
        }
        if let State::Parked(watch) = std::mem::replace(&mut self.state, State::Open) {
            watch.gone.gone(watch.token);
        }
    }

    /// Takes the connection apart after [`NextStep::Leave`].
    pub fn leave(self) -> Option<Leaving> {
        let State::Leaving(then) = self.state else {
            return None;
        };
        Some(Leaving {
            early: self.input.bytes().to_vec(),
            socket: self.socket,
            session: self.session,
            then,
        })
    }
}
