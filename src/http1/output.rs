//! Prints responses, and holds the bytes that are to be sent on one connection.
//!
//! A small response is printed into one buffer and sent with one write. If it were sent in two small segments, Nagle's
//! algorithm and the delayed acknowledgement would cost 44 ms. A large body is in a queue behind the buffer. It is
//! copied or rendered into the buffer as the socket accepts bytes. So a client that does not read occupies about
//! [`SLICE_BYTES`] of memory, even if it requested much more (`backlog.rs`).
//!
//! tiny_http's `Response::raw_print` is not used, because it allocates for each header, formats the date for each
//! response, and prints with `write!`. Building and printing a response with six headers and 100 bytes took 1.8 µs with
//! it, and takes 0.25 µs here. A whole request costs about 5 µs. It also drops the header `Connection: close`, which a
//! refusal needs. Its types are still used ([`Answer`]).

use super::answer::{Answer, decimal};
use super::backlog::{Pin, SLICE_BYTES};
use super::stream_budget::Chunk;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tiny_http::StatusCode;

/// A body that is rendered while it is sent.
///
/// Called on the worker's thread; each call should be short.
pub trait Slices {
    /// Appends at least `at_least` bytes to `out`, or all that are left. Returns whether there are more.
    ///
    /// # Errors
    /// The source ended before the declared length. The connection is closed.
    fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> io::Result<bool>;

    /// The part of the handler's data that this body keeps alive until it has ended. Always returns the same value.
    fn pin(&self) -> Option<Pin> {
        None
    }
}

/// Maximum number of bytes that a connection sends in one turn, not counting the end of its last write. A client that
/// reads a large body quickly must not keep the worker from its other connections.
const BYTES_PER_TURN: usize = 256 << 10;
/// A body up to this size is printed directly behind its head.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// The properties of a request that determine the form of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// HTTP/1.0: no chunks, and `keep-alive` is written.
    pub old: bool,
    /// HEAD: no body.
    pub head_only: bool,
    pub keep_alive: bool,
}

/// How the body of a response is delimited.
enum Follows {
    Length(u64),
    /// In chunks; for HTTP/1.0, by the end of the connection.
    Parked,
    Nothing,
}

/// A part of the queue behind the buffer.
enum Piece {
    Bytes {
        bytes: Vec<u8>,
        at: usize,
    },
    /// One chunk. It is framed when it is copied, unless `plain` (HTTP/1.0).
    Chunk {
        bytes: Chunk,
        at: usize,
        plain: bool,
    },
    LastChunk,
    Slices {
        source: Box<dyn Slices + Send>,
        left: u64,
    },
    /// The bytes after a chunk's data.
    ChunkEnd,
}

/// The bytes that are to be sent.
pub(super) struct Output {
    buffer: Vec<u8>,
    sent: usize,
    queue: VecDeque<Piece>,
    /// Number of chunks in the queue.
    chunks: usize,
    chunk_bytes: usize,
    lent: bool,
}

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    /// The socket is full for now. `progress`: whether it accepted any bytes.
    Blocked {
        progress: bool,
    },
    /// The socket would accept more, but other connections are served first.
    Paused,
}

impl Output {
    /// An output without memory.
    pub fn new() -> Output {
        Output {
            buffer: Vec::new(),
            sent: 0,
            queue: VecDeque::new(),
            chunks: 0,
            chunk_bytes: 0,
            lent: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sent == self.buffer.len() && self.queue.is_empty()
    }

    /// Whether more bytes wait than one write should send. Then they must be sent before more is printed.
    pub fn is_full(&self) -> bool {
        !self.queue.is_empty() || self.buffer.len() - self.sent >= SLICE_BYTES
    }

    /// Number of chunks behind the buffer, and their bytes.
    pub fn backlog(&self) -> (usize, usize) {
        (self.chunks, self.chunk_bytes)
    }

    /// Since when the second chunk behind the buffer waits, if there is one.
    pub fn second_chunk_since(&self) -> Option<Instant> {
        let chunks = self.queue.iter().filter_map(|piece| match piece {
            Piece::Chunk { bytes, .. } => Some(bytes),
            _ => None,
        });
        chunks.skip(1).find_map(Chunk::since)
    }

    /// Borrows the worker's buffer to print into.
    pub fn borrow(&mut self, scratch: &mut Vec<u8>) {
        if !self.lent && self.buffer.capacity() == 0 {
            self.buffer = std::mem::take(scratch);
            self.lent = true;
        }
    }

    /// Called when the worker turns to another connection. Returns the buffer; unsent bytes move to memory of their own
    /// size.
    pub fn settle(&mut self, scratch: &mut Vec<u8>) {
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.sent = 0;
            let buffer = std::mem::take(&mut self.buffer);
            if std::mem::take(&mut self.lent) {
                *scratch = buffer;
                scratch.shrink_to(4 * SLICE_BYTES);
            }
        } else if self.lent {
            let unsent = self.buffer[self.sent..].to_vec();
            self.buffer.clear();
            self.sent = 0;
            *scratch = std::mem::replace(&mut self.buffer, unsent);
            scratch.shrink_to(4 * SLICE_BYTES);
            self.lent = false;
        }
    }

    /// Appends bytes unchanged.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Prints a complete response. Returns whether the connection is kept after it.
    pub fn answer(&mut self, answer: Answer, exchange: Exchange, stamp: &Stamp) -> bool {
        let length = Follows::Length(answer.body.len() as u64);
        let keep = exchange.keep_alive && !answer.close;
        self.head(&answer, exchange, keep, length, stamp);
        if exchange.head_only || bodiless(answer.status) || answer.body.is_empty() {
            return keep;
        }
        if answer.body.len() <= INLINE_BYTES_MAX {
            self.buffer.extend_from_slice(&answer.body);
        } else {
            self.queue.push_back(Piece::Bytes {
                bytes: answer.body,
                at: 0,
            });
        }
        keep
    }

    /// Prints the head of a response whose body of `length` bytes is rendered while it is sent.
    pub fn stream(
        &mut self,
        head: &Answer,
        length: u64,
        source: Box<dyn Slices + Send>,
        exchange: Exchange,
        stamp: &Stamp,
    ) -> bool {
        let keep = exchange.keep_alive && !head.close;
        self.head(head, exchange, keep, Follows::Length(length), stamp);
        if length > 0 && !exchange.head_only && !bodiless(head.status) {
            self.queue.push_back(Piece::Slices {
                source,
                left: length,
            });
        }
        keep
    }

    /// Prints the head of a response whose chunks are added later.
    pub fn park(&mut self, head: &Answer, exchange: Exchange, stamp: &Stamp) -> bool {
        let keep = exchange.keep_alive && !head.close && !exchange.old;
        self.head(head, exchange, keep, Follows::Parked, stamp);
        keep
    }

    /// Prints the head of a 101.
    pub fn upgrade(&mut self, head: &Answer, exchange: Exchange, stamp: &Stamp) {
        self.head(head, exchange, true, Follows::Nothing, stamp);
    }

    fn head(
        &mut self,
        answer: &Answer,
        exchange: Exchange,
        keep: bool,
        body: Follows,
        stamp: &Stamp,
    ) {
        let out = &mut self.buffer;
        let Exchange { old, .. } = exchange;
        status_line(out, answer.status, old);
        out.extend_from_slice(&answer.lines);
        out.extend_from_slice(&stamp.lines);
        match body {
            Follows::Length(length) if !bodiless(answer.status) => {
                out.extend_from_slice(b"Content-Length: ");
                number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            Follows::Parked if !old => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        match (keep, old) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Adds a chunk of a parked response. An empty chunk would end the response, so it is ignored.
    pub fn chunk(&mut self, bytes: Chunk, exchange: Exchange) {
        if bytes.is_empty() || exchange.head_only {
            return;
        }
        self.chunks += 1;
        self.chunk_bytes += bytes.len();
        self.queue.push_back(Piece::Chunk {
            bytes,
            at: 0,
            plain: exchange.old,
        });
    }

    /// Adds a chunk of `length` bytes (at least one) that is rendered while it is sent.
    pub fn sliced_chunk(
        &mut self,
        length: u64,
        source: Box<dyn Slices + Send>,
        exchange: Exchange,
    ) {
        if exchange.head_only {
            return;
        }
        let body = Piece::Slices {
            source,
            left: length,
        };
        if exchange.old {
            return self.queue.push_back(body);
        }
        let size = format!("{length:x}\r\n").into_bytes();
        self.queue.push_back(Piece::Bytes { bytes: size, at: 0 });
        self.queue.push_back(body);
        self.queue.push_back(Piece::ChunkEnd);
    }

    /// Bytes that are rendered and belong only to this response.
    pub fn held(&self) -> usize {
        let own = |piece: &Piece| match piece {
            Piece::Bytes { bytes, .. } => bytes.len(),
            _ => 0,
        };
        self.buffer.len() - self.sent + self.queue.iter().map(own).sum::<usize>()
    }

    /// The data that the response keeps alive and may share with other responses. For a parked response, this counts
    /// only if `has_ended`: no further chunks can follow.
    pub fn pin(&self, has_ended: bool) -> Option<Pin> {
        self.queue.iter().rev().find_map(|piece| match piece {
            Piece::Slices { source, .. } => source.pin(),
            Piece::Chunk { bytes, .. } if has_ended => Some(Pin {
                key: bytes.as_ptr().addr(),
                bytes: bytes.len(),
            }),
            _ => None,
        })
    }

    /// Ends a parked response.
    pub fn last_chunk(&mut self, exchange: Exchange) {
        if !exchange.old && !exchange.head_only {
            self.queue.push_back(Piece::LastChunk);
        }
    }

    /// Sends as many bytes as the socket accepts, and renders about `slice` bytes at a time.
    ///
    /// Errors: those of the socket; `InvalidData` if a body did not have its declared length.
    pub fn flush(&mut self, mut socket: impl Write, slice: usize) -> io::Result<Flushed> {
        let mut progress = false;
        let mut written = 0;
        loop {
            self.top_up(slice)?;
            if self.sent == self.buffer.len() {
                return Ok(Flushed::All);
            }
            if written >= BYTES_PER_TURN {
                return Ok(Flushed::Paused);
            }
            match socket.write(&self.buffer[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    written += count;
                    progress = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Flushed::Blocked { progress });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies from the front of the queue while the buffer is short.
    fn top_up(&mut self, slice: usize) -> io::Result<()> {
        if self.sent == self.buffer.len() {
            self.buffer.clear();
            self.sent = 0;
        }
        while self.buffer.len() - self.sent < slice / 4
            && let Some(piece) = self.queue.front_mut()
        {
            // If a client always reads a little at a time, the buffer is never empty.
            self.buffer.drain(..self.sent);
            self.sent = 0;
            if piece.render(&mut self.buffer, slice)? {
                if let Some(Piece::Chunk { bytes, .. }) = self.queue.pop_front() {
                    self.chunks -= 1;
                    self.chunk_bytes -= bytes.len();
                }
                if self.queue.is_empty() {
                    self.queue = VecDeque::new();
                }
            }
        }
        Ok(())
    }
}

impl Piece {
    /// Appends the next slice; returns whether it was the last.
    fn render(&mut self, out: &mut Vec<u8>, slice: usize) -> io::Result<bool> {
        match self {
            Piece::Bytes { bytes, at } => Ok(copy_slice(bytes, at, out, slice)),
            Piece::Chunk {
                bytes,
                at,
                plain: true,
            } => Ok(copy_slice(bytes, at, out, slice)),
            Piece::Chunk {
                bytes,
                at,
                plain: false,
            } => {
                if *at == 0 {
                    write!(out, "{:x}\r\n", bytes.len())?;
                }
                let last = copy_slice(bytes, at, out, slice);
                if last {
                    out.extend_from_slice(b"\r\n");
                }
                Ok(last)
            }
            Piece::LastChunk => {
                out.extend_from_slice(b"0\r\n\r\n");
                Ok(true)
            }
            Piece::Slices { source, left } => render_slice(source.as_mut(), left, out, slice),
            Piece::ChunkEnd => {
                out.extend_from_slice(b"\r\n");
                Ok(true)
            }
        }
    }
}

fn copy_slice(bytes: &[u8], at: &mut usize, out: &mut Vec<u8>, slice: usize) -> bool {
    let end = bytes.len().min(*at + slice);
    out.extend_from_slice(&bytes[*at..end]);
    *at = end;
    end == bytes.len()
}

/// A body with another length than its `Content-Length` would shift all following responses, so the connection is
/// closed.
fn render_slice(
    source: &mut dyn Slices,
    left: &mut u64,
    out: &mut Vec<u8>,
    slice: usize,
) -> io::Result<bool> {
    let before = out.len();
    let more = source.next(out, slice)?;
    let count = (out.len() - before) as u64;
    if count > *left || more != (count < *left) || (more && count == 0) {
        log::error!("a body has {count} bytes where {left} were left (more: {more})");
        return Err(ErrorKind::InvalidData.into());
    }
    *left -= count;
    Ok(!more)
}

/// Responses that never have a body (RFC 9110 §6.4.1).
fn bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

fn status_line(out: &mut Vec<u8>, status: u16, old: bool) {
    match (status, old) {
        (200, false) => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        (201, false) => out.extend_from_slice(b"HTTP/1.1 201 Created\r\n"),
        _ => {
            out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
            number(out, u64::from(status));
            out.push(b' ');
            out.extend_from_slice(StatusCode(status).default_reason_phrase().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    let (digits, start) = decimal(number);
    out.extend_from_slice(&digits[start..]);
}

/// Maximum delay before a new second is noticed.
const DATED_EVERY: Duration = Duration::from_millis(10);

/// The header lines that are equal in all responses of one second: `Server` and `Date`.
pub(super) struct Stamp {
    lines: Vec<u8>,
    second: u64,
    /// When the wall clock was last read.
    dated: Instant,
    pub now: Instant,
}

impl Stamp {
    pub fn new() -> Stamp {
        let now = Instant::now();
        let mut stamp = Stamp {
            lines: Vec::new(),
            second: u64::MAX,
            dated: now,
            now,
        };
        stamp.date();
        stamp
    }

    /// Reads the monotonic clock, and from time to time the wall clock. A busy worker has ten thousand rounds per
    /// second, and a `Date` that changes a moment late does no harm.
    pub fn refresh(&mut self) {
        self.now = Instant::now();
        if self.now - self.dated >= DATED_EVERY {
            self.date();
        }
    }

    /// Prints the lines again when a second has passed.
    fn date(&mut self) {
        self.dated = self.now;
        let second = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if second == self.second {
            return;
        }
        self.second = second;
        self.lines.clear();
        self.lines.extend_from_slice(
            concat!("Server: edgetcd/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes(),
        );
        if let Some(date) = http_date(second) {
            self.lines
                .extend_from_slice(format!("Date: {date}\r\n").as_bytes());
        }
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for a time outside the calendar.
fn http_date(second: u64) -> Option<String> {
    let time = jiff::Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::super::stream_budget::StreamBudget;
    use super::*;

    const NEW: Exchange = Exchange {
        old: false,
        head_only: false,
        keep_alive: true,
    };

    /// The sent bytes without the two lines of the stamp.
    fn sent(output: &mut Output) -> String {
        let mut wire = Vec::new();
        assert_eq!(
            output
                .flush(&mut wire, SLICE_BYTES)
                .expect("a vector takes all"),
            Flushed::All
        );
        let text = String::from_utf8(wire).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", &text));
        let head: Vec<_> = head
            .lines()
            .filter(|line| !line.starts_with("Date: ") && !line.starts_with("Server: "))
            .collect();
        format!("{}|{body}", head.join("|"))
    }

    fn printed(answer: Answer, exchange: Exchange) -> String {
        let mut output = Output::new();
        output.answer(answer, exchange, &Stamp::new());
        sent(&mut output)
    }

    #[test]
    fn answers_for_each_kind_of_request() {
        let answer = || Answer::new(200).header("A", "b").body("hello");
        let cases = [
            (NEW, "HTTP/1.1 200 OK|A: b|Content-Length: 5|hello"),
            (
                Exchange {
                    head_only: true,
                    ..NEW
                },
                "HTTP/1.1 200 OK|A: b|Content-Length: 5|",
            ),
            (
                Exchange {
                    keep_alive: false,
                    ..NEW
                },
                "HTTP/1.1 200 OK|A: b|Content-Length: 5|Connection: close|hello",
            ),
            (
                Exchange { old: true, ..NEW },
                "HTTP/1.0 200 OK|A: b|Content-Length: 5|Connection: keep-alive|hello",
            ),
        ];
        for (exchange, expected) in cases {
            assert_eq!(printed(answer(), exchange), expected, "{exchange:?}");
        }
        assert_eq!(
            printed(Answer::new(204).body("x"), NEW),
            "HTTP/1.1 204 No Content|"
        );
        assert_eq!(
            printed(Answer::bad_request(), NEW),
            "HTTP/1.1 400 Bad Request|Content-Type: text/plain; charset=utf-8|\
             Content-Length: 15|Connection: close|400 Bad Request"
        );
    }

    #[test]
    fn chunks_are_framed_but_for_http_1_0() {
        for (old, body) in [
            (false, "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
            (true, "hello!"),
        ] {
            let (mut output, exchange) = (Output::new(), Exchange { old, ..NEW });
            for chunk in ["hello", "", "!"] {
                output.chunk(Chunk::uncounted(chunk.as_bytes().into()), exchange);
            }
            assert_eq!(output.backlog(), (2, 6));
            output.last_chunk(exchange);
            let mut wire = Vec::new();
            output
                .flush(&mut wire, SLICE_BYTES)
                .expect("a vector takes all");
            assert_eq!(String::from_utf8_lossy(&wire), body);
            assert_eq!((output.backlog(), output.is_empty()), ((0, 0), true));
        }
    }

    #[test]
    fn the_second_chunk_waits_behind_the_first() {
        let budget = StreamBudget::<()>::new(0, std::time::Duration::ZERO);
        let chunks = [(); 3].map(|()| budget.chunk(vec![b'x'; 10].into()));
        let since = |number: usize| chunks[number].since();
        let mut output = Output::new();
        output.chunk(chunks[0].clone(), NEW);
        assert_eq!(output.second_chunk_since(), None);
        output.chunk(chunks[1].clone(), NEW);
        output.chunk(chunks[2].clone(), NEW);
        assert_eq!(output.second_chunk_since(), since(1));
        output.flush(Vec::new(), SLICE_BYTES).expect("all is taken");
        assert_eq!(output.second_chunk_since(), None);
        assert!(since(0) <= since(1) && since(1) <= since(2));
    }

    #[test]
    fn a_chunk_may_be_rendered_while_it_is_sent() {
        for (old, body) in [
            (false, "a\r\nxxxxxxxxxx\r\n1\r\n!\r\n"),
            (true, "xxxxxxxxxx!"),
        ] {
            let (mut output, exchange) = (Output::new(), Exchange { old, ..NEW });
            output.sliced_chunk(10, Box::new(Counted(10)), exchange);
            output.chunk(Chunk::uncounted(b"!".as_slice().into()), exchange);
            let mut wire = Vec::new();
            output
                .flush(&mut wire, SLICE_BYTES)
                .expect("a vector takes all");
            assert_eq!(String::from_utf8_lossy(&wire), body);
        }
    }

    /// Accepts only this many bytes.
    struct Narrow(usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count == 0 {
                Err(ErrorKind::WouldBlock.into())
            } else {
                Ok(count)
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Counted(usize);

    impl Slices for Counted {
        fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> io::Result<bool> {
            let count = self.0.min(at_least);
            out.resize(out.len() + count, b'x');
            self.0 -= count;
            Ok(self.0 > 0)
        }
    }

    #[test]
    fn a_large_body_is_rendered_as_the_socket_drains() {
        let mut output = Output::new();
        let length = 10 * SLICE_BYTES;
        output.stream(
            &Answer::new(200),
            length as u64,
            Box::new(Counted(length)),
            NEW,
            &Stamp::new(),
        );
        let mut flushes = 0;
        while output
            .flush(Narrow(100_000), SLICE_BYTES)
            .expect("no error")
            != Flushed::All
        {
            assert!(
                output.buffer.len() <= 2 * SLICE_BYTES,
                "{} bytes held",
                output.buffer.len()
            );
            flushes += 1;
        }
        assert_eq!(flushes, 6);
    }

    #[test]
    fn a_client_that_takes_little_at_a_time_holds_no_more() {
        let mut output = Output::new();
        let length = 40 * SLICE_BYTES;
        let body = Box::new(Counted(length));
        output.stream(&Answer::new(200), length as u64, body, NEW, &Stamp::new());
        while output.flush(Narrow(10_000), SLICE_BYTES).expect("no error") != Flushed::All {
            let held = output.buffer.len();
            assert!(held <= 2 * SLICE_BYTES, "{held} bytes held");
        }
    }

    #[test]
    fn a_large_body_is_sent_in_turns() {
        let mut output = Output::new();
        let length = 4 * BYTES_PER_TURN;
        let body = Box::new(Counted(length));
        output.stream(&Answer::new(200), length as u64, body, NEW, &Stamp::new());
        let mut wire = Vec::new();
        let mut turns = 1;
        while output
            .flush(&mut wire, SLICE_BYTES)
            .expect("a vector takes all")
            == Flushed::Paused
        {
            assert!(wire.len() <= turns * (BYTES_PER_TURN + 2 * SLICE_BYTES));
            turns += 1;
        }
        assert!(
            wire.len() > length && turns > 3,
            "{} bytes in {turns} turns",
            wire.len()
        );
    }

    #[test]
    fn a_body_of_another_length_than_promised_costs_the_connection() {
        for promised in [9, 11] {
            let mut output = Output::new();
            output.stream(
                &Answer::new(200),
                promised,
                Box::new(Counted(10)),
                NEW,
                &Stamp::new(),
            );
            let error = output
                .flush(Narrow(1000), SLICE_BYTES)
                .expect_err("wrong length");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn unsent_bytes_leave_the_workers_buffer() {
        let (mut output, mut scratch) = (Output::new(), Vec::with_capacity(1000));
        output.borrow(&mut scratch);
        output.raw(b"hello");
        assert_eq!(
            output.flush(Narrow(2), SLICE_BYTES).expect("no error"),
            Flushed::Blocked { progress: true }
        );
        output.settle(&mut scratch);
        assert_eq!(
            (scratch.capacity(), &output.buffer[..]),
            (1000, &b"llo"[..])
        );
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(
            http_date(784_111_777).as_deref(),
            Some("Sun, 06 Nov 1994 08:49:37 GMT")
        );
    }
}
