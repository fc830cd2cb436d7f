//! Takes requests from the input, calls the handler, and records how it answered.

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::head::{self, Framing, Head, Parsed, Space};
use super::super::inbox::{Address, Resume};
use super::super::incoming::{Incoming, Shape};
use super::super::limits::Limits;
use super::super::output::Exchange;
use super::super::reply::{Outcome, Reply};
use super::super::request::{BodyState, Request, Work};
use super::clock::Clock;
use super::{Connection, Drain, State, Tools, Watch};
use std::cell::RefCell;

/// The result of processing the input.
pub(super) enum Taken {
    Request,
    NeedMore,
    /// The handler continues with the request in another turn.
    Unfinished,
}

impl Connection {
    /// Takes the next request from the input and passes it to the handler.
    pub(super) fn take_request(&mut self, tools: &mut Tools) -> Taken {
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
        let work = self.work.take();
        let call = Call::new(&head, body, body_state, work, self.reserved, tools);
        self.exchange = call.exchange;
        let outcome = call.make(&self.client, self.slot, &mut self.output, tools);
        self.called(outcome, used, tools)
    }

    fn is_vital(&self, head: &Head<'_, '_>, tools: &Tools) -> bool {
        tools.handler.is_vital(&Request {
            head,
            body: &[],
            body_state: BodyState::Complete,
            client: &self.client,
            work: RefCell::default(),
        })
    }

    /// The handler was called with a request that takes the first `used` bytes of the input.
    fn called(&mut self, outcome: Outcome, used: usize, tools: &mut Tools) -> Taken {
        let outcome = match outcome {
            Outcome::GoOn(work) => return self.go_on(work),
            Outcome::Suspended => return self.suspend(tools),
            outcome => outcome,
        };
        self.end_body(tools);
        self.input.consume(used);
        self.served(outcome, tools)
    }

    /// The request stays in the input, and the handler is called again in another turn. No time limit applies
    /// meanwhile, because the connection does not wait for its client.
    fn go_on(&mut self, work: Work) -> Taken {
        self.unwind();
        self.work = Some(work);
        Taken::Unfinished
    }

    /// Like [`Connection::go_on`], but the other turn begins with [`Message::GoOn`](super::super::inbox::Message::GoOn).
    fn suspend(&mut self, tools: &Tools) -> Taken {
        self.unwind();
        self.turn = tools.turn;
        self.state = State::Waiting;
        Taken::Request
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
        let work = self.work.take();
        let call = Call::new(&head, body, state, work, self.reserved, tools);
        self.exchange = call.exchange;
        let outcome = call.make(&self.client, self.slot, &mut self.output, tools);
        self.called(outcome, end, tools)
    }

    /// The handler has answered, or will.
    pub(super) fn served(&mut self, outcome: Outcome, tools: &mut Tools) -> Taken {
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
            Outcome::GoOn(_) | Outcome::Suspended => return self.served(Outcome::Silent, tools),
        }
        Taken::Request
    }

    /// A complete response is in the output.
    pub(super) fn answered(&mut self, keep: bool, tools: &Tools) {
        self.turn = 0;
        self.unwind();
        let discard = tools.limits.discard_bytes;
        // What is discarded is encrypted, which takes more bytes: for large bodies less than 1 % more.
        let more = self.session.as_ref().map_or(0, |_| discard / 16);
        self.state = if keep {
            State::Open
        } else {
            State::Draining(Drain {
                left: discard + more,
                until: None,
            })
        };
    }

    /// Responds with only a status, and ends the connection.
    pub(super) fn refuse(&mut self, status: u16, tools: &mut Tools) -> Taken {
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

    /// The awaited response is made now, on this thread.
    pub(super) fn resume(&mut self, with: Resume, tools: &mut Tools) {
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
}
