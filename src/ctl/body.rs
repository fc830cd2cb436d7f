//! The body of an answer: not longer than its command can need, and not slower than a slow line.
//!
//! Any server may be asked, also one that never ends its answer, or sends a byte a second for ever. So each request has
//! a limit of bytes ([`Ask::limit`](super::wire::Ask::limit)). Its time is limited by one of two rules:
//!
//! | request | limit |
//! |---|---|
//! | most | the whole answer comes within `--total-timeout`; the HTTP library sees to that |
//! | a watch, and a listing of everything | once the body has begun, it brings at least [`BYTES_PER_SECOND`] in each `--timeout`; a listing begins within ten of them |
//!
//! The library cannot measure the second rule. A thread reads the body there, and whoever waits for it gives up when
//! too little has come. The thread ends with the next byte that comes, or with the connection.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ureq::Body;

/// A slow line is faster. (A server demands the same of a body that is sent to it.)
const BYTES_PER_SECOND: u64 = 1024;

/// Pieces that were read and wait to be taken.
const AHEAD: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It has more bytes than this.
    TooLong(u64),
    /// In so much time too little of it came.
    TooSlow(Duration),
    /// As the HTTP library tells it.
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

/// All of a body of at most `limit` bytes, for whose time the HTTP library was given a limit.
pub(super) fn read(body: &mut Body, limit: u64) -> Result<Vec<u8>, Unread> {
    Ok(body.with_config().limit(limit).read_to_vec()?)
}

/// All of a body of at most `limit` bytes that begins within `begin` (None: at any time) and is fast enough from then on.
/// `span` is how long it may stay slow; zero: for ever.
pub(super) fn read_paced(
    body: Body,
    limit: u64,
    begin: Option<Duration>,
    span: Duration,
) -> Result<Vec<u8>, Unread> {
    let pieces = read_aside(body, limit)?;
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

/// Has a thread read the body; the channel closes at its end.
fn read_aside(body: Body, limit: u64) -> Result<Receiver<Piece>, ureq::Error> {
    let (tell, pieces) = bounded(AHEAD);
    let mut body = body.into_with_config().limit(limit).reader();
    let read = move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let told = match body.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    tell.send(Ok(piece))
                }
                Err(error) => return drop(tell.send(Err(error.into()))),
            };
            if told.is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("body".into()).spawn(read);
    started.map(|_| pieces).map_err(ureq::Error::from)
}

/// Measures whether enough comes in each span of time.
#[derive(Debug)]
pub(super) struct Pace {
    span: Duration,
    end: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// The first span begins now. Zero: as slow as it may be.
    pub fn new(span: Duration) -> Pace {
        let end = (!span.is_zero()).then(|| Instant::now() + span);
        Pace {
            span,
            end,
            bytes: 0,
        }
    }

    /// So many bytes have come.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// How long more may be waited for now.
    ///
    /// # Errors
    /// A span is over in which too little came.
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

    /// The next piece; none at the end.
    fn next(&mut self, pieces: &Receiver<Piece>) -> Result<Option<Piece>, Unread> {
        loop {
            let told = match self.left()? {
                None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => pieces.recv_timeout(left),
            };
            match told {
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
