//! One call of the handler: builds the request and its reply from the connection's parts.

use super::connection::Tools;
use super::head::Head;
use super::inbox::Address;
use super::output::{Exchange, Output};
use super::reply::{Outcome, Reply};
use super::request::{BodyState, Client, Request, Work};
use std::cell::RefCell;

/// One call of the handler.
pub(super) struct Call<'a> {
    head: &'a Head<'a, 'a>,
    body: &'a [u8],
    body_state: BodyState,
    pub exchange: Exchange,
    /// The handler's work in earlier turns.
    work: Option<Work>,
}

impl<'a> Call<'a> {
    /// `reserved`: the connection serves only this request.
    pub fn new(
        head: &'a Head<'a, 'a>,
        body: &'a [u8],
        body_state: BodyState,
        work: Option<Work>,
        reserved: bool,
        tools: &Tools,
    ) -> Self {
        let is_last = reserved || tools.stopping || body_state != BodyState::Complete;
        let exchange = Exchange {
            old: head.minor == 0,
            head_only: head.method == "HEAD",
            keep_alive: head.keep_alive && !is_last,
        };
        Call {
            head,
            body,
            body_state,
            exchange,
            work,
        }
    }

    pub fn make(
        self,
        client: &Client,
        slot: u32,
        output: &mut Output,
        tools: &mut Tools,
    ) -> Outcome {
        tools.turn += 1;
        tools.requests += u64::from(self.work.is_none());
        tools.called = true;
        let Call {
            head,
            body,
            body_state,
            exchange,
            work,
        } = self;
        let request = Request {
            head,
            body,
            body_state,
            client,
            work: RefCell::new(work),
        };
        let mut outcome = Outcome::Silent;
        let reply = Reply {
            output,
            exchange,
            stamp: &tools.stamp,
            worker: tools.worker,
            inbox: &tools.inbox,
            address: Address {
                slot,
                turn: tools.turn,
            },
            outcome: &mut outcome,
        };
        tools.handler.handle(&request, reply);
        outcome
    }
}
