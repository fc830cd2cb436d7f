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
//! with it ([`Fate`]). It never waits.
//!
//! - Readiness is edge-triggered, so it is reported once. [`Connection::readable`] remembers it until a read returns
//!   fewer bytes than requested. So no state change needs a system call to change the events of interest.
//! - Requests are served one at a time, in order. While a request waits for its response, or responses wait for the
//!   socket, nothing is read. So TCP stops a client that sends requests without reading responses.
//! - If the client closes its sending side, that is reported even while nothing is read. It ends a parked response at
//!   once. Any other request is still answered (`printf … | nc`).
//! - Each state has at most one time limit ([`Clock`]).

use super::Handler;
use super::answer::Answer;
use super::backlog::{Backlog, Excess, STALLED_MIN, Share};
use super::call::Call;
use super::head::{self, Framing, Head, Parsed, Space};
use super::inbox::{Address, Inbox, Mail, Place, Resume};
use super::incoming::{Incoming, Shape};
use super::input::{Input, Scratch};
use super::ledger::Ledger;
use super::limits::{HEAD_BYTES_FREE, Limits};
use super::output::{Exchange, Flushed, Output, Stamp};
use super::reply::{Gone, Outcome, Reply, Then};
use super::request::{BodyState, Request, Work};
use super::stream_budget::{Chunk, Unsent};
use mio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write};
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

/// How long a connection without a first request is kept at least, however many clients wait for a place.
const UNUSED_IDLE_MIN: Duration = Duration::from_millis(200);

/// How long a connection is kept at least between two requests.
const USED_IDLE_MIN: Duration = Duration::from_secs(1);

/// A head that has been incomplete for a shorter time is not dropped when connections are scarce.
const HALF_HEAD_MIN: Duration = Duration::from_secs(2);

/// What an idle connection waits for, in the order in which they are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Idleness {
    /// Its first request.
    Unused,
    /// Another request.
    Used,
    /// The rest of a head.
    HalfHead,
}

/// The `linger_time` while the server stops.
const LINGER_STOPPING: Duration = Duration::from_millis(100);

/// The parts of its worker that a connection uses.
pub(super) struct Tools {
    pub handler: Arc<dyn Handler>,
    pub limits: Arc<Limits>,
    pub inbox: Arc<Inbox>,
    pub ledger: Arc<Ledger>,
    pub backlog: Arc<Backlog>,
    pub stamp: Stamp,
    pub input: Scratch,
    pub output: Vec<u8>,
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

/// The part of a long head that is counted in the memory budget, because it exceeds [`HEAD_BYTES_FREE`].
struct LongHead {
    who: u64,
    counted: usize,
}

/// What the worker must do with a connection after processing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
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

/// What the connection's deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    None,
    Idle,
    Head,
    Body,
    /// For a body that waits until other connections free memory.
    Room,
    Write,
    Linger,
}

/// The result of processing the input.
enum Taken {
    Request,
    NeedMore,
    /// The handler continues with the request in another turn.
    Unfinished,
}

enum Filled {
    /// This many bytes.
    More(usize),
    Nothing,
    End,
    NoRoom,
}

/// A socket whose sent bytes are counted by the worker.
struct Counted<'a> {
    socket: &'a TcpStream,
    taken: &'a Cell<u64>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.socket.write(bytes)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
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
    remote: SocketAddr,
    listener: usize,
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
        remote: SocketAddr,
        listener: usize,
        slot: u32,
        reserved: bool,
    ) -> Connection {
        Connection {
            socket,
            remote,
            listener,
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

    /// What the connection waits for, and since when. `None` if it is in use, or belongs to the reserve.
    pub fn idleness(&self, limits: &Limits, now: Instant) -> Option<(Idleness, Instant)> {
        if self.readable || self.reserved {
            return None;
        }
        let (idleness, since, least) = match self.clock {
            Clock::Idle if !self.used => (Idleness::Unused, self.idle_since, UNUSED_IDLE_MIN),
            Clock::Idle => (Idleness::Used, self.idle_since, USED_IDLE_MIN),
            Clock::Head => {
                let since = self.deadline?.checked_sub(limits.head_time)?;
                (Idleness::HalfHead, since, HALF_HEAD_MIN)
            }
            _ => return None,
        };
        let is_old = now.saturating_duration_since(since) >= least;
        is_old.then_some((idleness, since))
    }

    pub fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// When a connection of the reserve was opened, and whether it has its response and does not read it. `None` if it
    /// does not belong to the reserve, or is being served.
    pub fn reserved_since(&self) -> Option<(bool, Instant)> {
        let is_unread = self.clock == Clock::Write;
        let waits = matches!(self.clock, Clock::Idle | Clock::Head | Clock::Linger);
        (self.reserved && (waits || is_unread)).then_some((is_unread, self.idle_since))
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
    ) -> Fate {
        // Bytes that a client sent before it closed must be read even then: see `drain`.
        if hung_up && !matches!(self.state, State::Draining(_)) {
            return Fate::Close;
        }
        self.readable |= readable || read_closed;
        self.read_closed |= read_closed;
        self.run(tools)
    }

    /// A message has arrived for which [`Connection::awaits`] is true.
    pub fn deliver(&mut self, mail: Mail, tools: &mut Tools) -> Fate {
        self.output.borrow(&mut tools.output);
        if tools.stopping {
            self.exchange.keep_alive = false;
        }
        match mail {
            Mail::Answer { answer, .. } => {
                let keep = self.output.answer(answer, self.exchange, &tools.stamp);
                self.answered(keep, tools);
            }
            Mail::Resume { with, .. } => self.resume(with, tools),
            Mail::Chunk { chunk, .. } => {
                if self.lags(tools) {
                    self.output.settle(&mut tools.output);
                    return Fate::Close;
                }
                self.output.chunk(chunk, self.exchange);
            }
            Mail::End { last, .. } => self.end_watch(last, tools),
            Mail::Abort { .. } => {
                self.state = State::Open;
                self.output.settle(&mut tools.output);
                return Fate::Close;
            }
            Mail::Adopt { .. }
            | Mail::Cut { .. }
            | Mail::Room
            | Mail::Relieve
            | Mail::Evict { .. }
            | Mail::EvictReserved
            | Mail::Stop { .. } => {
                unreachable!("a message for the worker was passed to a connection")
            }
        }
        self.run(tools)
    }

    /// The awaited response is made now, on this thread.
    fn resume(&mut self, with: Resume, tools: &mut Tools) {
        tools.turn += 1;
        tools.called = true;
        let mut outcome = Outcome::Silent;
        with(Reply {
            output: &mut self.output,
            exchange: self.exchange,
            stamp: &tools.stamp,
            worker: tools.worker,
            inbox: &tools.inbox,
            address: Address {
                slot: self.slot,
                turn: tools.turn,
            },
            outcome: &mut outcome,
        });
        self.served(outcome, tools);
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
    pub fn stop(&mut self, tools: &mut Tools) -> Fate {
        match self.state {
            State::Parked(_) => return Fate::Close,
            State::Open if self.output.is_empty() => return Fate::Close,
            // Printed responses are sent to their end; further requests are not begun.
            State::Open => {
                self.end_body(tools);
                self.answered(false, tools);
            }
            State::Draining(_) if self.clock == Clock::Linger => return Fate::Close,
            _ => {}
        }
        self.run(tools)
    }

    /// The deadline may have passed.
    pub fn expired(&mut self, tools: &mut Tools) -> Fate {
        if self
            .deadline
            .is_none_or(|deadline| deadline > tools.stamp.now)
        {
            return Fate::Stay;
        }
        match self.clock {
            Clock::None => return Fate::Stay,
            Clock::Idle | Clock::Head if self.reserved => self.refuse_late(503, tools),
            Clock::Idle | Clock::Write | Clock::Linger => return Fate::Close,
            Clock::Body if self.is_fast_enough(tools) => self.clock = Clock::None,
            Clock::Head | Clock::Body => self.refuse_late(408, tools),
            Clock::Room => self.refuse_late(503, tools),
        }
        self.run(tools)
    }

    fn refuse_late(&mut self, status: u16, tools: &mut Tools) {
        self.output.borrow(&mut tools.output);
        self.refuse(status, tools);
    }

    fn is_fast_enough(&self, tools: &Tools) -> bool {
        let Limits {
            body_time,
            body_rate,
            ..
        } = *tools.limits;
        self.incoming.as_ref().is_some_and(|incoming| {
            let least = body_time.as_millis() as u64 * body_rate / 1000;
            incoming.fresh() >= least
        })
    }

    /// Continues as far as possible.
    pub fn run(&mut self, tools: &mut Tools) -> Fate {
        self.output.borrow(&mut tools.output);
        self.paused = false;
        let mut fate = self.advance(tools).unwrap_or(Fate::Close);
        if fate == Fate::Close {
            self.input.clear();
        }
        if fate == Fate::Stay && self.paused {
            fate = Fate::Again;
        }
        self.output.settle(&mut tools.output);
        self.input.settle(&mut tools.input);
        self.count(tools);
        self.record_unsent(tools);
        self.count_output(tools);
        fate
    }

    /// Bytes of a long head that the owner of the parked response may keep.
    fn kept(&self) -> usize {
        match &self.state {
            State::Parked(watch) => watch.kept,
            _ => 0,
        }
    }

    /// Updates the backlog with the output that waits here.
    fn count_output(&mut self, tools: &mut Tools) {
        let is_parked = matches!(self.state, State::Parked(_));
        let kept = self.kept();
        if self.output.is_empty() && kept == 0 && self.share.is_empty() {
            return;
        }
        let (held, pin) = (self.output.held() + kept, self.output.pin(!is_parked));
        tools.backlog.update(&mut self.share, held, pin);
        tools.excess |= tools.backlog.excess().is_some();
    }

    /// How much cutting this response would reduce the sum: larger is more. `None` if the response does not contribute
    /// to it, or if its client reads.
    pub fn relief(&self, excess: Excess, tools: &Tools) -> Option<(usize, Duration)> {
        if self.kept() > 0 && matches!(excess, Excess::Held { .. }) {
            return Some((self.share.held(), Duration::ZERO));
        }
        if self.clock != Clock::Write {
            return None;
        }
        let left = self.deadline?.saturating_duration_since(tools.stamp.now);
        let stalled = tools.limits.write_time.saturating_sub(left);
        let (size, far) = match excess {
            Excess::Held { far } => (self.share.held(), far),
            // The size of a version does not show how much memory is freed. The response that has waited longest
            // probably pins an old version, which shares least with the newest one.
            Excess::Pinned { far } => (usize::from(self.share.is_pinning()), far),
        };
        (size > 0 && (far || stalled >= STALLED_MIN)).then_some((size, stalled))
    }

    /// Tells the budget of streams which chunks wait here. The rest of a stream that has ended counts in the backlog.
    fn record_unsent(&mut self, tools: &mut Tools) {
        let (chunks, bytes) = match self.state {
            State::Parked(_) => self.output.backlog(),
            _ => (0, 0),
        };
        if chunks == 0 {
            return self.forget_unsent(tools);
        }
        if self.stream_id == 0 {
            self.stream_id = tools.next_who();
        }
        let since = match self.clock {
            Clock::Write => self
                .deadline
                .and_then(|end| end.checked_sub(tools.limits.write_time)),
            _ => None,
        };
        let unsent = Unsent {
            chunks,
            bytes,
            progress: since.unwrap_or(tools.stamp.now),
            second_since: self.output.second_chunk_since(),
        };
        let inbox = &tools.inbox;
        inbox.budget.record(self.stream_id, unsent, || Place {
            inbox: Arc::clone(inbox),
            to: Address {
                slot: self.slot,
                turn: self.turn,
            },
        });
        tools.streams_grew = true;
    }

    fn forget_unsent(&mut self, tools: &Tools) {
        if self.stream_id != 0 {
            tools.inbox.budget.forget(self.stream_id);
            self.stream_id = 0;
        }
    }

    /// If the budget has chosen this stream to be cut, the reason.
    pub fn reason_to_cut(&self, tools: &Tools) -> Option<String> {
        let is_chosen = self.stream_id != 0 && tools.inbox.budget.cut(self.stream_id);
        is_chosen.then(|| {
            let (chunks, bytes) = self.output.backlog();
            format!(
                "its client {} has not read {chunks} events of {bytes} bytes, and all streams may hold {} bytes",
                self.remote, tools.limits.streams_bytes
            )
        })
    }

    /// Errors: those of the socket. The client cannot be informed of them.
    fn advance(&mut self, tools: &mut Tools) -> io::Result<Fate> {
        let mut turn = Turn::new();
        loop {
            match self.state {
                State::Open => {
                    if let Some(fate) = self.serve(&mut turn, tools)? {
                        return Ok(fate);
                    }
                }
                State::Parked(_) if self.read_closed => return Ok(Fate::Close),
                State::Waiting | State::Parked(_) => {
                    if self.flush(tools)? {
                        self.unwind();
                    }
                    return Ok(Fate::Stay);
                }
                State::Leaving(_) => {
                    return Ok(if self.flush(tools)? {
                        Fate::Leave
                    } else {
                        Fate::Stay
                    });
                }
                State::Draining(_) => return self.drain(&mut turn, tools),
            }
        }
    }

    /// Processes received requests, sends responses, reads. `None` means: continue.
    fn serve(&mut self, turn: &mut Turn, tools: &mut Tools) -> io::Result<Option<Fate>> {
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
            return Ok(Some(Fate::Stay));
        }
        if !matches!(self.state, State::Open) {
            return Ok(None);
        }
        if unfinished {
            return Ok(Some(Fate::Again));
        }
        if !hungry {
            return Ok((turn.requests == 0).then_some(Fate::Again));
        }
        if !self.readable {
            self.wind(tools);
            return Ok(Some(Fate::Stay));
        }
        if turn.is_over() {
            return Ok(Some(Fate::Again));
        }
        Ok(match self.fill(tools)? {
            Filled::More(count) => {
                turn.read(count);
                None
            }
            Filled::Nothing => {
                self.wind(tools);
                Some(Fate::Stay)
            }
            Filled::NoRoom if self.read_closed && !self.may_complete() => Some(Fate::Close),
            Filled::NoRoom => {
                if self.clock != Clock::Room {
                    self.set_clock(Clock::Room, tools.limits.room_time, tools);
                }
                Some(Fate::AwaitRoom)
            }
            Filled::End => Some(Fate::Close),
        })
    }

    /// Returns whether everything was sent. If not, the time limit for the client to accept bytes begins.
    fn flush(&mut self, tools: &Tools) -> io::Result<bool> {
        let socket = Counted {
            socket: &self.socket,
            taken: &tools.sent_bytes,
        };
        match self.output.flush(socket, tools.backlog.slice_bytes())? {
            Flushed::All => Ok(true),
            Flushed::Paused => {
                self.paused = true;
                self.set_clock(Clock::Write, tools.limits.write_time, tools);
                Ok(false)
            }
            Flushed::Blocked { progress } => {
                if progress || self.clock != Clock::Write {
                    self.set_clock(Clock::Write, tools.limits.write_time, tools);
                }
                Ok(false)
            }
        }
    }

    /// Reads once. Makes space first if there is none.
    fn fill(&mut self, tools: &mut Tools) -> io::Result<Filled> {
        if !self.input.has_room() && !self.make_room(tools)? {
            return Ok(Filled::NoRoom);
        }
        match self.input.fill(&self.socket, &mut tools.input) {
            Ok((0, _)) => Ok(Filled::End),
            Ok((count, more)) => {
                tools.received_bytes += count as u64;
                // After the client's last byte, no event reports the end.
                self.readable = more || self.read_closed;
                if let Some(incoming) = &mut self.incoming {
                    incoming.receive(count);
                }
                Ok(Filled::More(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Filled::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Filled::More(0)),
            Err(error) => Err(error),
        }
    }

    /// Grows the buffer in proportion to the received bytes; returns false if the memory for bodies is used up.
    fn make_room(&mut self, tools: &mut Tools) -> io::Result<bool> {
        let Limits {
            head_bytes,
            body_bytes,
            ..
        } = *tools.limits;
        let Some(incoming) = &mut self.incoming else {
            let size = self.input.next_size(head_bytes);
            return match self.grant_head(size, tools) {
                true => self.input.grow(size, &mut tools.input).map(|()| true),
                false => Ok(false),
            };
        };
        // In a chunked body, the next size line is behind the data for a moment.
        let size = self.input.next_size(incoming.head_length + body_bytes + 64);
        let more = size.saturating_sub(incoming.counted);
        if !tools.ledger.grant(incoming.who, more) {
            return Ok(false);
        }
        incoming.counted += more;
        if self.clock == Clock::Room {
            self.unwind();
        }
        self.input.grow(size, &mut tools.input).map(|()| true)
    }

    /// Counts a head of `size` bytes; returns false if the memory for long heads is used up.
    fn grant_head(&mut self, size: usize, tools: &mut Tools) -> bool {
        let wanted = size.saturating_sub(HEAD_BYTES_FREE);
        if wanted == 0 {
            return true;
        }
        let who = match &self.long_head {
            Some(long) => long.who,
            None => tools.next_who(),
        };
        let long = self
            .long_head
            .get_or_insert(Box::new(LongHead { who, counted: 0 }));
        if !tools.ledger.grant(who, wanted - long.counted) {
            return false;
        }
        long.counted = wanted;
        if self.clock == Clock::Room {
            self.unwind();
        }
        true
    }

    /// The head was read, or refused.
    fn end_head(&mut self, tools: &mut Tools) {
        if let Some(long) = self.long_head.take() {
            tools.room |= tools.ledger.release(long.who, long.counted, true);
        }
    }

    /// Whether the bytes received so far, including those in the socket, can be a whole body.
    fn may_complete(&self) -> bool {
        // If the system does not report the unread bytes, the time limit decides.
        let unread = rustix::io::ioctl_fionread(&self.socket).unwrap_or(u64::MAX);
        self.incoming
            .as_ref()
            .is_none_or(|incoming| incoming.missing(&self.input) <= unread)
    }

    /// Sets the deadline of a connection that waits for bytes from its client.
    fn wind(&mut self, tools: &Tools) {
        let limits = &tools.limits;
        if let Some(incoming) = &mut self.incoming {
            if self.clock != Clock::Body {
                incoming.rewind();
                self.set_clock(Clock::Body, limits.body_time, tools);
            }
        } else if self.input.is_empty() {
            if !self.reserved || self.clock != Clock::Idle {
                self.idle_since = tools.stamp.now;
            }
            self.clock = Clock::Idle;
            let time = match self.reserved {
                true => Some(limits.reserve_time),
                false => limits.idle_time,
            };
            self.deadline = time.map(|time| self.idle_since + time);
        } else if self.reserved {
            // The running time limit includes the head.
            self.clock = Clock::Head;
            self.deadline = Some(self.idle_since + limits.reserve_time);
        } else if self.clock != Clock::Head {
            self.set_clock(Clock::Head, limits.head_time, tools);
        }
    }

    fn unwind(&mut self) {
        (self.clock, self.deadline) = (Clock::None, None);
    }

    fn set_clock(&mut self, clock: Clock, time: Duration, tools: &Tools) {
        (self.clock, self.deadline) = (clock, Some(tools.stamp.now + time));
    }

    /// Takes the next request from the input and passes it to the handler.
    fn take_request(&mut self, tools: &mut Tools) -> Taken {
        if self.incoming.is_some() {
            return self.take_body(tools);
        }
        self.skip_empty_lines();
        if !self.is_worth_parsing(tools) {
            return Taken::NeedMore;
        }
        let Limits {
            head_bytes,
            body_bytes,
            ..
        } = *tools.limits;
        let bytes = self.input.bytes();
        let mut space = Space::new();
        let head = match head::parse(bytes, &mut space) {
            Parsed::Complete(head) if head.length <= head_bytes => head,
            Parsed::Complete(_) => return self.refuse_long_head(tools),
            Parsed::Refused(status) => return self.refuse(status, tools),
            Parsed::Partial => return self.partial_head(tools),
        };
        if self.reserved && !self.is_vital(&head, tools) {
            return self.refuse(503, tools);
        }
        let there = bytes.len() - head.length;
        let (body, body_state) = match head.framing {
            Framing::Length(length) if length > body_bytes as u64 => (&[][..], BodyState::TooLarge),
            Framing::Length(length) if length <= there as u64 => (
                &bytes[head.length..][..length as usize],
                BodyState::Complete,
            ),
            Framing::Length(length) => {
                let shape = Shape::Length(length);
                let incoming = Incoming::new(&head, shape, tools);
                return self.begin_body(incoming, tools);
            }
            Framing::Chunked => {
                let incoming = Incoming::new(&head, Shape::chunked(), tools);
                return self.begin_body(incoming, tools);
            }
        };
        let used = head.length + body.len();
        let mut call = Call::new(&head, body, body_state, self.work.take(), tools);
        call.exchange.keep_alive &= !self.reserved;
        self.exchange = call.exchange;
        let outcome = call.make(
            self.remote,
            self.listener,
            self.slot,
            &mut self.output,
            tools,
        );
        if let Outcome::GoOn(work) = outcome {
            return self.go_on(work);
        }
        self.input.consume(used);
        self.served(outcome, tools)
    }

    fn is_vital(&self, head: &Head<'_, '_>, tools: &Tools) -> bool {
        tools.handler.is_vital(&Request {
            head,
            body: &[],
            body_state: BodyState::Complete,
            remote: self.remote,
            listener: self.listener,
            work: RefCell::default(),
        })
    }

    /// The request stays in the input, and the handler is called again in another turn. No time limit applies
    /// meanwhile, because the connection does not wait for its client.
    fn go_on(&mut self, work: Work) -> Taken {
        self.unwind();
        self.work = Some(work);
        Taken::Unfinished
    }

    /// Some clients send an empty line after a body (RFC 9112 §2.2).
    fn skip_empty_lines(&mut self) {
        let bytes = self.input.bytes();
        let mut count = 0;
        while let [b'\n', ..] | [b'\r', b'\n', ..] = bytes[count..] {
            count += if bytes[count] == b'\n' { 1 } else { 2 };
        }
        self.input.consume(count);
    }

    /// A head that arrives in many small reads is not parsed after each of them. It is parsed only if its end may have
    /// arrived, or if it has doubled, so that invalid input is still noticed early.
    fn is_worth_parsing(&mut self, tools: &Tools) -> bool {
        let bytes = self.input.bytes();
        let is_enough = !bytes.is_empty()
            && (bytes.len() >= (2 * self.parsed).min(tools.limits.head_bytes)
                || head::may_end(bytes, self.seen));
        let worth = self.work.is_some() || is_enough;
        self.seen = bytes.len();
        worth
    }

    fn partial_head(&mut self, tools: &mut Tools) -> Taken {
        self.parsed = self.input.len();
        if self.parsed < tools.limits.head_bytes {
            return Taken::NeedMore;
        }
        self.refuse_long_head(tools)
    }

    fn refuse_long_head(&mut self, tools: &mut Tools) -> Taken {
        let line_fits = self.input.bytes()[..tools.limits.head_bytes].contains(&b'\n');
        self.refuse(if line_fits { 431 } else { 414 }, tools)
    }

    fn begin_body(&mut self, mut incoming: Incoming, tools: &mut Tools) -> Taken {
        incoming.receive(self.input.len() - incoming.head_length);
        (self.seen, self.parsed) = (0, 0);
        self.clock = Clock::None;
        self.end_head(tools);
        self.incoming = Some(Box::new(incoming));
        self.take_body(tools)
    }

    /// Continues with the body. When it is complete, passes the request to the handler.
    fn take_body(&mut self, tools: &mut Tools) -> Taken {
        let Some(incoming) = &mut self.incoming else {
            return Taken::NeedMore;
        };
        let state = match incoming.take(&mut self.input, tools.limits.body_bytes) {
            Err(status) => return self.refuse(status, tools),
            Ok(None) => {
                if std::mem::take(&mut incoming.owes_continue) {
                    self.output.raw(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                return Taken::NeedMore;
            }
            Ok(Some(state)) => state,
        };
        let (start, end) = (incoming.head_length, incoming.head_length + incoming.data);
        let bytes = self.input.bytes();
        let mut space = Space::new();
        let Parsed::Complete(head) = head::parse(&bytes[..start], &mut space) else {
            unreachable!("a head that was parsed no longer is one");
        };
        let body = if state == BodyState::Complete {
            &bytes[start..end]
        } else {
            &[]
        };
        let mut call = Call::new(&head, body, state, self.work.take(), tools);
        call.exchange.keep_alive &= !self.reserved;
        self.exchange = call.exchange;
        let outcome = call.make(
            self.remote,
            self.listener,
            self.slot,
            &mut self.output,
            tools,
        );
        if let Outcome::GoOn(work) = outcome {
            return self.go_on(work);
        }
        self.end_body(tools);
        self.input.consume(end);
        self.served(outcome, tools)
    }

    fn end_body(&mut self, tools: &mut Tools) {
        if let Some(incoming) = self.incoming.take() {
            tools.room |= tools.ledger.release(incoming.who, incoming.counted, true);
        }
    }

    /// Updates the memory budget with the memory actually in use.
    fn count(&mut self, tools: &mut Tools) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let owned = self.input.owned();
        if owned > incoming.counted {
            tools.ledger.add(owned - incoming.counted);
        } else if owned < incoming.counted {
            tools.room |= tools
                .ledger
                .release(incoming.who, incoming.counted - owned, false);
        }
        incoming.counted = owned;
    }

    /// The handler was called.
    fn served(&mut self, outcome: Outcome, tools: &mut Tools) -> Taken {
        self.used = true;
        let kept = self.long_head.as_ref().map_or(0, |long| long.counted);
        self.end_head(tools);
        (self.seen, self.parsed) = (0, 0);
        self.unwind();
        match outcome {
            Outcome::Silent => {
                log::error!("a request was not answered by its handler");
                self.output
                    .answer(Answer::refusal(500), self.exchange, &tools.stamp);
                self.answered(false, tools);
            }
            Outcome::Sent { keep } => self.answered(keep, tools),
            Outcome::Later => {
                self.turn = tools.turn;
                self.state = State::Waiting;
            }
            Outcome::Parked { gone, token, keep } => {
                self.turn = tools.turn;
                self.state = State::Parked(Box::new(Watch {
                    gone,
                    token,
                    keep,
                    kept,
                }));
            }
            Outcome::Upgrade(then) => self.state = State::Leaving(then),
            // Only a call with the request may ask for another call. A response that is made later may not.
            Outcome::GoOn(_) => return self.served(Outcome::Silent, tools),
        }
        Taken::Request
    }

    /// A complete response is in the output.
    fn answered(&mut self, keep: bool, tools: &Tools) {
        self.turn = 0;
        self.unwind();
        self.state = if keep {
            State::Open
        } else {
            State::Draining(Drain {
                left: tools.limits.discard_bytes,
                until: None,
            })
        };
    }

    /// Responds with only a status, and ends the connection.
    fn refuse(&mut self, status: u16, tools: &mut Tools) -> Taken {
        self.end_head(tools);
        self.end_body(tools);
        self.exchange = Exchange {
            old: false,
            head_only: false,
            keep_alive: false,
        };
        self.output
            .answer(Answer::refusal(status), self.exchange, &tools.stamp);
        self.answered(false, tools);
        Taken::Request
    }

    /// Sends the rest, shuts the write side, and discards further input. Closing a socket with unread bytes would reset
    /// the connection, and the client could lose the response.
    fn drain(&mut self, turn: &mut Turn, tools: &mut Tools) -> io::Result<Fate> {
        if !self.flush(tools)? {
            return Ok(Fate::Stay);
        }
        let State::Draining(drain) = &mut self.state else {
            return Ok(Fate::Close);
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
                return Ok(Fate::Again);
            }
            let filled = self.fill(tools)?;
            let count = self.input.len() as u64;
            turn.read(self.input.len());
            self.input.clear();
            let State::Draining(drain) = &mut self.state else {
                return Ok(Fate::Close);
            };
            if matches!(filled, Filled::End) || count >= drain.left {
                return Ok(Fate::Close);
            }
            drain.left -= count;
            if count > 0 {
                self.deadline = Some(until.min(tools.stamp.now + linger));
            }
        }
        Ok(Fate::Stay)
    }

    /// The connection has ended: frees shared resources, and informs the owner of a parked response.
    pub fn ended(&mut self, tools: &mut Tools) {
        self.forget_unsent(tools);
        tools.backlog.update(&mut self.share, 0, None);
        self.end_head(tools);
        self.end_body(tools);
        if let State::Parked(watch) = std::mem::replace(&mut self.state, State::Open) {
            watch.gone.gone(watch.token);
        }
    }

    /// Takes the connection apart after [`Fate::Leave`].
    pub fn leave(self) -> Option<(TcpStream, Vec<u8>, Then)> {
        let State::Leaving(then) = self.state else {
            return None;
        };
        Some((self.socket, self.input.bytes().to_vec(), then))
    }
}
