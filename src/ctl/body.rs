//! Reads the body of a response, with limits on its length and its speed.
//!
//! A server may never end its response, or send one byte per second forever. So each request has a limit in bytes
//! ([`Ask::limit`](super::wire::Ask::limit)). Its time is limited by one of two rules:
//!
//! | request | limit |
//! |---|---|
//! | most | the whole response arrives within `--total-timeout`; the HTTP library enforces this |
//! | a watch, and a listing of everything | after the first byte, at least [`BYTES_PER_SECOND`] on average in each `--timeout`; a listing begins within ten of them |
//!
//! The library does not support the second rule. For such a request, a thread reads the body, and the caller stops
//! waiting if too few bytes arrive. The thread ends when the next byte arrives or the connection ends.
//! A watch may wait for its first byte forever, but only a limited number of bytes that are no body arrive meanwhile.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ureq::Body;

use crate::dial::Overhead;

/// Even slow lines are faster than this. (The server requires the same speed of a request body.)
const BYTES_PER_SECOND: u64 = 1024;

/// Number of pieces that the thread reads ahead of the caller.
const AHEAD: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It has more bytes than this.
    TooLong(u64),
    /// Too few bytes arrived within this time.
    TooSlow(Duration),
    /// The HTTP library returned this error.
    Failed(ureq::Error),
}

impl From<ureq::Error> for Unread {
    fn from(error: ureq::Error) -> Unread {
        match error {
            ureq::Error::BodyExceedsLimit(limit) => Unread::TooLong(limit),
            other => Unread::Failed(other),
        }
    }
}

/// Reads a body of at most `limit` bytes. The HTTP library limits the time.
pub(super) fn read(body: &mut Body, limit: u64) -> Result<Vec<u8>, Unread> {
    Ok(body.with_config().limit(limit).read_to_vec()?)
}

/// Reads a body of at most `limit` bytes. Its first byte must arrive within `begin` (None: at any time). After that, it
/// may be too slow for `span` at most (zero: forever). `overhead` limits the bytes of the response that are no body.
pub(super) fn read_paced(
    body: Body,
    limit: u64,
    begin: Option<Duration>,
    span: Duration,
    overhead: &Overhead,
) -> Result<Vec<u8>, Unread> {
    let _limited = overhead.limit();
    let pieces = read_aside(body, limit, overhead.clone())?;
    let first = match begin {
        None => pieces.recv().ok(),
        Some(time) => match pieces.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => return Err(Unread::TooSlow(time)),
            first => first.ok(),
        },
    };
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let mut bytes = first?;
    let mut pace = Pace::new(span);
    while let Some(piece) = pace.next(&pieces)? {
        bytes.extend(piece?);
    }
    Ok(bytes)
}

type Piece = Result<Vec<u8>, ureq::Error>;

/// Starts a thread that reads the body. The channel closes at the end of the body.
fn read_aside(body: Body, limit: u64, overhead: Overhead) -> Result<Receiver<Piece>, ureq::Error> {
    let (sender, pieces) = bounded(AHEAD);
    let mut body = body.into_with_config().limit(limit).reader();
    let read = move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let sent = match body.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    overhead.progress();
                    piece.truncate(read);
                    sender.send(Ok(piece))
                }
                Err(error) => return drop(sender.send(Err(error.into()))),
            };
            if sent.is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("body".into()).spawn(read);
    started.map(|_| pieces).map_err(ureq::Error::from)
}

/// Measures whether enough bytes arrive in each span of time.
#[derive(Debug)]
pub(super) struct Pace {
    span: Duration,
    end: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// The first span begins now. Zero: there is no limit.
    pub fn new(span: Duration) -> Pace {
        let end = (!span.is_zero()).then(|| Instant::now() + span);
        Pace {
            span,
            end,
            bytes: 0,
        }
    }

    /// Counts bytes that have arrived.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Returns how long the caller may wait for the next bytes.
    ///
    /// # Errors
    /// Too few bytes arrived in the span that has ended.
    pub fn left(&mut self) -> Result<Option<Duration>, Unread> {
        let Some(end) = self.end else {
            return Ok(None);
        };
        let now = Instant::now();
        if now < end {
            return Ok(Some(end - now));
        }
        let least = u128::from(BYTES_PER_SECOND) * self.span.as_millis() / 1000;
        if u128::from(self.bytes) < least.max(1) {
            return Err(Unread::TooSlow(self.span));
        }
        self.bytes = 0;
        self.end = Some(now + self.span);
        Ok(Some(self.span))
    }

    /// Returns the next piece. None at the end.
    fn next(&mut self, pieces: &Receiver<Piece>) -> Result<Option<Piece>, Unread> {
        loop {
            let received = match self.left()? {
                None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => pieces.recv_timeout(left),
            };
            match received {
                Ok(piece) => {
                    self.count(piece.as_ref().map_or(0, Vec::len));
                    return Ok(Some(piece));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_in_which_too_little_came_is_the_last() {
        let span = Duration::from_millis(20);
        let mut pace = Pace::new(span);
        pace.count(1000);
        thread::sleep(span);
        assert!(pace.left().is_ok(), "20 bytes would do");
        pace.count(10);
        thread::sleep(span);
        assert!(matches!(pace.left(), Err(Unread::TooSlow(_))));
        let mut patient = Pace::new(Duration::ZERO);
        assert!(matches!(patient.left(), Ok(None)));
    }
}
