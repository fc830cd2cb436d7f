//! The time limits of a connection. Each state has at most one ([`Clock`]).

use super::super::limits::Limits;
use super::{Connection, NextStep, Tools};
use std::time::{Duration, Instant};

/// How long a connection without a first request is kept at least, however many clients wait for a place.
const UNUSED_IDLE_MIN: Duration = Duration::from_millis(200);

/// How long a connection is kept at least between two requests.
const USED_IDLE_MIN: Duration = Duration::from_secs(1);

/// A head that has been incomplete for a shorter time is not dropped when connections are scarce.
const HALF_HEAD_MIN: Duration = Duration::from_secs(2);

/// What an idle connection waits for, in the order in which they are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Idleness {
    /// Its first request.
    Unused,
    /// Another request.
    Used,
    /// The rest of a head.
    HalfHead,
}

/// What the connection's deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    None,
    /// For a TLS handshake.
    Handshake,
    Idle,
    Head,
    Body,
    /// For a body that waits until other connections free memory.
    Room,
    Write,
    Linger,
}

impl Connection {
    /// What the connection waits for, and since when. `None` if it is in use, or belongs to the reserve.
    pub(in super::super) fn idleness(
        &self,
        limits: &Limits,
        now: Instant,
    ) -> Option<(Idleness, Instant)> {
        if self.readable || self.reserved {
            return None;
        }
        let (idleness, since, least) = match self.clock {
            Clock::Handshake => (Idleness::Unused, self.idle_since, UNUSED_IDLE_MIN),
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

    /// When a connection of the reserve was opened, and whether it has its response and does not read it. `None` if it
    /// does not belong to the reserve, or is being served.
    pub(in super::super) fn reserved_since(&self) -> Option<(bool, Instant)> {
        let is_unread = self.clock == Clock::Write;
        let waits = matches!(
            self.clock,
            Clock::Handshake | Clock::Idle | Clock::Head | Clock::Linger
        );
        (self.reserved && (waits || is_unread)).then_some((is_unread, self.idle_since))
    }

    /// The deadline may have passed.
    pub(in super::super) fn expired(&mut self, tools: &mut Tools) -> NextStep {
        if self
            .deadline
            .is_none_or(|deadline| deadline > tools.stamp.now)
        {
            return NextStep::Stay;
        }
        match self.clock {
            Clock::None => return NextStep::Stay,
            Clock::Idle | Clock::Head if self.reserved => self.refuse_late(503, tools),
            Clock::Handshake | Clock::Idle | Clock::Write | Clock::Linger => {
                return NextStep::Close;
            }
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

    /// Sets the deadline of a connection that waits for bytes from its client.
    pub(super) fn wind(&mut self, tools: &Tools) {
        let limits = &tools.limits;
        if self.is_handshaking() {
            let time = match self.reserved {
                true => limits.reserve_time.min(limits.handshake_time),
                false => limits.handshake_time,
            };
            self.clock = Clock::Handshake;
            self.deadline = Some(self.idle_since + time);
        } else if let Some(incoming) = &mut self.incoming {
            if self.clock != Clock::Body {
                incoming.rewind();
                self.set_clock(Clock::Body, limits.body_time, tools);
            }
        } else if self.input.is_empty() {
            if !self.reserved || !matches!(self.clock, Clock::Handshake | Clock::Idle) {
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

    pub(super) fn unwind(&mut self) {
        (self.clock, self.deadline) = (Clock::None, None);
    }

    pub(super) fn set_clock(&mut self, clock: Clock, time: Duration, tools: &Tools) {
        (self.clock, self.deadline) = (clock, Some(tools.stamp.now + time));
    }
}
