//! Sends the output, and counts what waits to be sent.

use super::super::backlog::{Excess, STALLED_MIN};
use super::super::inbox::{Address, Place};
use super::super::output::Flushed;
use super::super::stream_budget::Unsent;
use super::clock::Clock;
use super::{Connection, State, Tools};
use mio::net::TcpStream;
use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

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

impl Connection {
    /// Returns whether everything was sent. If not, the time limit for the client to accept bytes begins.
    pub(super) fn flush(&mut self, tools: &mut Tools) -> io::Result<bool> {
        let slice = tools.backlog.slice_bytes();
        let flushed = match &mut self.session {
            None => {
                let socket = Counted {
                    socket: &self.socket,
                    taken: &tools.sent_bytes,
                };
                self.output.flush(socket, slice)?
            }
            Some(_) => self.flush_encrypted(slice, tools)?,
        };
        match flushed {
            Flushed::All => Ok(true),
            Flushed::Paused => {
                self.paused = true;
                self.set_clock(Clock::Write, tools.limits.write_time, tools);
                Ok(false)
            }
            // The time limit of the handshake stays.
            Flushed::Blocked { .. } if self.is_handshaking() => Ok(false),
            Flushed::Blocked { progress } => {
                if progress || self.clock != Clock::Write {
                    self.set_clock(Clock::Write, tools.limits.write_time, tools);
                }
                Ok(false)
            }
        }
    }

    /// Like [`Output::flush`](super::super::output::Output::flush), through the session.
    fn flush_encrypted(&mut self, slice: usize, tools: &mut Tools) -> io::Result<Flushed> {
        let Some(session) = &mut self.session else {
            return Ok(Flushed::All);
        };
        let writer = session.writer(&self.socket, &mut tools.records);
        match self.output.flush(writer, slice)? {
            Flushed::All if session.push(&self.socket, &mut tools.records)? => Ok(Flushed::All),
            Flushed::All => Ok(Flushed::Blocked { progress: false }),
            other => Ok(other),
        }
    }

    /// Says that this side sends nothing more, if the connection has TLS. Returns whether everything was sent.
    pub(super) fn end_session(&mut self, tools: &mut Tools) -> io::Result<bool> {
        match &mut self.session {
            None => Ok(true),
            Some(session) => {
                session.end();
                self.flush(tools)
            }
        }
    }

    /// Bytes of a long head that the owner of the parked response may keep.
    fn kept(&self) -> usize {
        match &self.state {
            State::Parked(watch) => watch.kept,
            _ => 0,
        }
    }

    /// Updates the backlog with the output that waits here.
    pub(super) fn count_output(&mut self, tools: &mut Tools) {
        let is_parked = matches!(self.state, State::Parked(_));
        let kept = self.kept();
        let encrypted = self.session.as_ref().map_or(0, |session| session.held());
        if self.output.is_empty() && kept == 0 && encrypted == 0 && self.share.is_empty() {
            return;
        }
        let held = self.output.held() + kept + encrypted;
        let pin = self.output.pin(!is_parked);
        tools.backlog.update(&mut self.share, held, pin);
        tools.excess |= tools.backlog.excess().is_some();
    }

    /// How much cutting this response would reduce the sum: larger is more. `None` if the response does not contribute
    /// to it, or if its client reads.
    pub(in super::super) fn relief(
        &self,
        excess: Excess,
        tools: &Tools,
    ) -> Option<(usize, Duration)> {
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
    pub(super) fn record_unsent(&mut self, tools: &mut Tools) {
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

    pub(super) fn forget_unsent(&mut self, tools: &Tools) {
        if self.stream_id != 0 {
            tools.inbox.budget.forget(self.stream_id);
            self.stream_id = 0;
        }
    }

    /// If the budget has chosen this stream to be cut, the reason.
    pub(in super::super) fn reason_to_cut(&self, tools: &Tools) -> Option<String> {
        let is_chosen = self.stream_id != 0 && tools.inbox.budget.cut(self.stream_id);
        is_chosen.then(|| {
            let (chunks, bytes) = self.output.backlog();
            format!(
                "its client {} has not read {chunks} events of {bytes} bytes, and all streams may hold {} bytes",
                self.client.remote, tools.limits.streams_bytes
            )
        })
    }
}
