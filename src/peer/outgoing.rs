//! The sending side: one thread for each other member. It dials, sends, and dials again.
//!
//! The thread owns its connection. It waits for messages, for the end of that connection, for a reason to dial, and for
//! the end of the link, all in one place ([`Queue::sleep`](super::queue::Queue::sleep)). The waiting messages are
//! encoded into one buffer and sent with one write.

use super::common::{Common, Peer};
use super::connection::Connection;
use super::counters::BatchCounts;
use super::dial::{Call, Failure};
use super::frame::{HEADER_BYTES, Kind, MESSAGE_BYTES_MAX, Origin};
use super::handshake::STREAM_PATH;
use super::queue::{Taken, Woken};
use crate::engine::peer_message::PeerMessage;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// If a connection lasted at least this long, the next dial starts without a pause.
const HELD: Duration = Duration::from_secs(1);

/// How much of the buffer is kept between two writes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// The thread `peer-out-ID`.
pub(super) struct Outgoing {
    common: Arc<Common>,
    peer: Arc<Peer>,
    backoff: Backoff,
    /// The last failure that was logged for this member, so that it is logged once.
    logged: String,
}

/// How long to wait before the next dial.
struct Pause {
    span: Duration,
    /// Whether a sign that the member runs ends the pause early.
    hurried: bool,
}

impl Outgoing {
    pub fn new(common: Arc<Common>, peer: Arc<Peer>) -> Outgoing {
        let backoff = Backoff::new(common.timing.retry_min, common.timing.retry_max);
        Outgoing {
            common,
            peer,
            backoff,
            logged: String::new(),
        }
    }

    /// Runs until the queue is closed.
    pub fn run(mut self) {
        loop {
            let pause = match self.dial() {
                Ok((connection, url)) => self.serve(connection, &url),
                Err(failure) => self.failed(failure),
            };
            if !self.peer.queue.rest(pause.span, pause.hurried) {
                return;
            }
        }
    }

    fn dial(&self) -> Result<(Connection, String), Failure> {
        let call = Call {
            common: &self.common,
            to: self.peer.id,
            urls: &self.peer.urls(),
            path: STREAM_PATH,
            term: None,
            token: self.peer.token,
            given_up: &|| self.peer.queue.is_closed(),
        };
        call.dial()
    }

    fn failed(&mut self, failure: Failure) -> Pause {
        let Common {
            event_queue,
            timing,
            ..
        } = &*self.common;
        let (why, hurried) = match failure {
            Failure::NobodyThere => {
                self.common.note_nobody_there(&self.peer);
                ("no process listens at its peer URLs".into(), true)
            }
            Failure::Failed(why) => (why, true),
            Failure::Refused(why) => (why, false),
            Failure::Removed(why) => {
                event_queue.removed(self.peer.id);
                (why, false)
            }
        };
        let span = match hurried {
            true => self.backoff.next(),
            false => timing.refused,
        };
        if self.logged != why && !self.peer.queue.is_closed() {
            log::warn!("no connection to {}: {why}", self.peer.label());
            self.logged = why;
        }
        Pause { span, hurried }
    }

    /// Sends messages until the connection ends.
    fn serve(&mut self, mut connection: Connection, url: &str) -> Pause {
        let (common, peer) = (&self.common, &self.peer);
        let since = Instant::now();
        peer.alive.store(true, Ordering::SeqCst);
        common.settle(peer, peer.queue.connected());
        peer.gauges.set_sending(Some(since));
        log::info!("connected to {} at {url}", peer.label());
        let why = self.carry(&mut connection);
        peer.gauges.set_sending(None);
        drop(connection);
        common.settle(peer, peer.queue.disconnected());
        if peer.queue.is_closed() {
            return Pause::none();
        }
        common.event_queue.unreachable(peer.id);
        log::warn!("lost the connection to {}: {why}", peer.label());
        self.logged.clear();
        if since.elapsed() < HELD {
            let span = self.backoff.next();
            return Pause {
                span,
                hurried: true,
            };
        }
        self.backoff.reset();
        Pause::none()
    }

    /// Sends messages until the connection ends. Returns the reason of the end.
    fn carry(&self, connection: &mut Connection) -> String {
        let mut messages = Vec::new();
        let mut batch = Batch::default();
        loop {
            match self.peer.queue.take(&mut messages) {
                Taken::Closed => return "the link was closed".into(),
                Taken::Nothing => {
                    let woken = self.peer.queue.sleep(Some(connection.socket()), None);
                    if woken == Woken::Socket && connection.is_closed() {
                        return "the member has closed it".into();
                    }
                }
                Taken::Messages => {
                    batch.fill(&self.common.origin(), &mut messages);
                    let written = batch.write(connection);
                    self.common.counters.sent(&self.peer.gauges, &batch.counts);
                    if let Err((done, error)) = written {
                        self.common.event_queue.unsent(batch.questions_from(done));
                        return error.to_string();
                    }
                }
            }
        }
    }
}

impl Pause {
    fn none() -> Pause {
        Pause {
            span: Duration::ZERO,
            hurried: true,
        }
    }
}

/// Messages that are being written to the socket.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The offset in `bytes` and the number of each request to a leader.
    questions: Vec<(usize, u64)>,
    counts: BatchCounts,
}

impl Batch {
    /// Encodes the messages and empties `messages`.
    fn fill(&mut self, origin: &Origin, messages: &mut Vec<PeerMessage>) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.questions.clear();
        self.counts.clear();
        for peer_message in messages.drain(..) {
            let start = self.bytes.len();
            origin.frame(Kind::PeerMessage, &mut self.bytes, |out| {
                peer_message.encode(out)
            });
            let bytes = self.bytes.len() - start;
            if bytes > HEADER_BYTES + MESSAGE_BYTES_MAX {
                // The receiver would end the connection because of it, each time again.
                log::error!(
                    "dropped a peer message of {bytes} bytes: the limit is {MESSAGE_BYTES_MAX} bytes"
                );
                self.bytes.truncate(start);
                continue;
            }
            if let Some(number) = peer_message.question() {
                self.questions.push((start, number));
            }
            self.counts.add(&peer_message, bytes);
        }
    }

    /// Hands all bytes to the connection. An error contains the number of bytes that were written before it.
    fn write(&self, connection: &mut impl Write) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        loop {
            let rest = &self.bytes[done..];
            let written = match rest.is_empty() {
                false => connection.write(rest),
                true => match connection.flush() {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                },
            };
            match written {
                Ok(0) => return Err((done, ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let silent =
                        io::Error::new(ErrorKind::TimedOut, "the member stopped accepting bytes");
                    return Err((done, silent));
                }
                Err(error) => return Err((done, error)),
            }
        }
    }

    /// Forwards of which no byte was handed to the connection: no other process can have read them.
    fn questions_from(&self, done: usize) -> Vec<u64> {
        let untouched = self.questions.iter().filter(|(start, _)| *start >= done);
        untouched.map(|(_, number)| *number).collect()
    }
}

/// Pauses that double. Each is shortened at random by up to half, so that members do not dial at the same time.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    drawn: u64,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Backoff {
        Backoff {
            min,
            max,
            next: min,
            random: RandomState::new(),
            drawn: 0,
        }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let span = self.next;
        self.next = (2 * span).min(self.max);
        self.drawn += 1;
        let chance = self.random.hash_one(self.drawn) as u32;
        span - span.mul_f64(0.5 * f64::from(chance) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{NodeId, Term};

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(1000));
        for wanted in [10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            let pause = backoff.next();
            assert!(pause >= ms(wanted) / 2 && pause <= ms(wanted), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(10));
    }

    #[test]
    fn only_questions_that_left_no_byte_behind_are_unsent() {
        let origin = Origin {
            cluster: 1,
            sender: NodeId(1),
        };
        let forward = |number| PeerMessage::Forward {
            number,
            term: Term(1),
            commands: vec![std::sync::Arc::from([0; 10])],
        };
        let mut batch = Batch::default();
        batch.fill(&origin, &mut vec![forward(1), forward(2), forward(3)]);
        let one = batch.bytes.len() / 3;
        assert_eq!(batch.questions_from(0), [1, 2, 3]);
        assert_eq!(batch.questions_from(one), [2, 3]);
        assert_eq!(batch.questions_from(one + 1), [3]);
    }
}
