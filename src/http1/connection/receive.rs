//! Reads from the socket, and counts the memory that received bytes use.

use super::super::limits::{HEAD_BYTES_FREE, Limits};
use super::clock::Clock;
use super::{Connection, Tools};
use std::io::{self, ErrorKind};

/// The part of a long head that is counted in the memory budget, because it exceeds [`HEAD_BYTES_FREE`].
pub(super) struct LongHead {
    who: u64,
    pub(super) counted: usize,
}

/// The result of one read.
pub(super) enum Filled {
    /// This many bytes.
    More(usize),
    Nothing,
    End,
    NoRoom,
}

impl Connection {
    /// Reads once. Makes space first if there is none.
    pub(super) fn fill(&mut self, tools: &mut Tools) -> io::Result<Filled> {
        if !self.input.has_room() && !self.make_room(tools)? {
            return Ok(Filled::NoRoom);
        }
        let filled = match &mut self.session {
            None => self.input.fill(&self.socket, &mut tools.input),
            Some(_) => self.fill_decrypted(tools),
        };
        match filled {
            Ok((0, _)) => Ok(Filled::End),
            Ok((count, more)) => {
                if self.session.is_none() {
                    tools.received_bytes += count as u64;
                }
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
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                let is_tls = self.session.is_some();
                let count = if is_tls { tools.records.last_read } else { 0 };
                Ok(Filled::More(count))
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`Input::fill`](super::super::input::Input::fill), through the session. If it fails, the connection closes.
    fn fill_decrypted(&mut self, tools: &mut Tools) -> io::Result<(usize, bool)> {
        let Some(session) = &mut self.session else {
            return Ok((0, false));
        };
        let reader = session.reader(&self.socket, &mut tools.records);
        let filled = self.input.fill(reader, &mut tools.input);
        // After the client's last byte, no event reports the end.
        let more = session.has_more() || self.read_closed;
        if let Some(name) = session.take_name() {
            self.client.certificate_name = Some(name);
        }
        if session.is_plain() {
            self.session = None;
        } else if let Some(why) = session.take_failure() {
            let (pause, now) = (tools.limits.failure_pause, tools.stamp.now);
            tools
                .records
                .log_failure(self.client.remote, &why, pause, now);
            self.end_head(tools);
            self.end_body(tools);
            self.answered(false, tools);
            // The client may still be told why: see `drain`.
            return Err(ErrorKind::Interrupted.into());
        }
        match filled {
            Err(error) if error.kind() == ErrorKind::Interrupted && !more => {
                Err(ErrorKind::WouldBlock.into())
            }
            other => other.map(|(count, _)| (count, more)),
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
        if !tools.body_budget.grant(incoming.who, more) {
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
        if !tools.body_budget.grant(who, wanted - long.counted) {
            return false;
        }
        long.counted = wanted;
        if self.clock == Clock::Room {
            self.unwind();
        }
        true
    }

    /// The head was read, or refused.
    pub(super) fn end_head(&mut self, tools: &mut Tools) {
        if let Some(long) = self.long_head.take() {
            tools.room |= tools.body_budget.release(long.who, long.counted, true);
        }
    }

    /// Whether the bytes received so far, including those in the socket, can be a whole body.
    pub(super) fn may_complete(&self) -> bool {
        // If the system does not report the unread bytes, the time limit decides.
        let unread = rustix::io::ioctl_fionread(&self.socket).unwrap_or(u64::MAX);
        let held = self.session.as_ref().map_or(0, |session| session.held());
        let unread = unread.saturating_add(held as u64);
        self.incoming
            .as_ref()
            .is_none_or(|incoming| incoming.missing(&self.input) <= unread)
    }

    pub(super) fn end_body(&mut self, tools: &mut Tools) {
        if let Some(incoming) = self.incoming.take() {
            tools.room |= tools
                .body_budget
                .release(incoming.who, incoming.counted, true);
        }
    }

    /// Updates the memory budget with the memory actually in use.
    pub(super) fn count(&mut self, tools: &mut Tools) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let owned = self.input.owned();
        if owned > incoming.counted {
            tools.body_budget.add(owned - incoming.counted);
        } else if owned < incoming.counted {
            tools.room |= tools
                .body_budget
                .release(incoming.who, incoming.counted - owned, false);
        }
        incoming.counted = owned;
    }
}
