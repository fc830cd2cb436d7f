//! Long bodies, rendered as their clients read them.
//!
//! `Content-Length` is always exact, so the length must be known before the first byte is sent. A listing up to
//! [`WHOLE_BYTES_MAX`] is rendered once, and sent as a whole. A longer body is rendered twice: once to measure it, and
//! once to send it. Both are done one slice at a time, so that the worker can serve other connections in between.
//! Between two slices, the response holds no text. It only holds the data from which the text is rendered, and shares
//! it with the tree.

use crate::http1::{Answer, Outbox, Pin, Reply, Slices};
use crate::tree::{Listing, LongText};
use std::io;

/// Longer bodies, in bytes, are sent in slices.
pub const SLICE_BYTES: usize = 64 << 10;

/// Longer listings, in bytes, are measured before they are sent. A connection sends as many bytes in one turn. To render
/// them takes less than 0.5 ms.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// Approximate bytes that are measured in one turn. That takes less than 0.1 ms, so hundreds of clients that request
/// large values delay others only a little.
const BYTES_PER_TURN: u64 = 64 << 10;

/// A text that is rendered in slices. A clone continues at the position of the original.
pub trait Sliced: Clone + Send + 'static {
    /// An address that identifies the data which the text keeps alive.
    fn source(&self) -> usize;

    /// Appends at least `at_least` bytes, or all that are left. Returns whether there are more.
    fn render(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool;
}

impl Sliced for Listing {
    fn source(&self) -> usize {
        Listing::source(self)
    }

    fn render(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool {
        Listing::render(self, out, at_least)
    }
}

impl Sliced for LongText {
    fn source(&self) -> usize {
        LongText::source(self)
    }

    fn render(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool {
        LongText::render(self, out, at_least)
    }
}

/// Called with the length of a measured body, and with the body.
type Then<T> = Box<dyn FnOnce(Reply<'_>, u64, Body<T>) + Send>;

/// Measures `text` and calls `then`, all on the worker's thread. If the client disconnects first, `then` is not called.
pub fn measure<T: Sliced>(
    reply: Reply<'_>,
    text: T,
    then: impl FnOnce(Reply<'_>, u64, Body<T>) + Send + 'static,
) {
    let measuring = Measuring {
        rest: text.clone(),
        text,
        length: 0,
        then: Box::new(then),
    };
    measuring.go_on(reply);
}

/// Sends a response with `text` as its body, which is rendered only once if it is not too long. `body` is empty; its
/// memory is used.
pub fn send_whole<T: Sliced>(reply: Reply<'_>, head: Answer, text: T, mut body: Vec<u8>) {
    let mut rest = text.clone();
    while body.len() < WHOLE_BYTES_MAX {
        if !rest.render(&mut body, SLICE_BYTES) {
            return reply.send(head.body(body));
        }
    }
    let measuring = Measuring {
        rest,
        text,
        length: body.len() as u64,
        then: then_send(head),
    };
    measuring.go_on_later(reply);
}

/// Sends a response with `text` as its body.
pub fn send<T: Sliced>(reply: Reply<'_>, head: Answer, text: T) {
    measure(reply, text, then_send(head));
}

fn then_send<T: Sliced>(head: Answer) -> Then<T> {
    Box::new(move |reply, length, body| reply.stream_from(head, length, Box::new(body)))
}

struct Measuring<T> {
    text: T,
    /// The part that is not measured yet.
    rest: T,
    length: u64,
    then: Then<T>,
}

impl<T: Sliced> Measuring<T> {
    fn go_on(mut self, reply: Reply<'_>) {
        let mut slice = Vec::new();
        let enough = self.length + BYTES_PER_TURN;
        while self.length < enough {
            slice.clear();
            let more = self.rest.render(&mut slice, SLICE_BYTES);
            self.length += slice.len() as u64;
            if !more {
                let pin = Pin {
                    key: self.text.source(),
                    bytes: usize::try_from(self.length).unwrap_or(usize::MAX),
                };
                let text = self.text;
                return (self.then)(reply, self.length, Body { text, pin });
            }
        }
        self.go_on_later(reply);
    }

    /// Continues when the worker has served its other connections.
    fn go_on_later(self, reply: Reply<'_>) {
        let mut outbox = Outbox::default();
        let again = Box::new(move |reply: Reply<'_>| self.go_on(reply));
        reply.later().resume_in(again, &mut outbox);
        outbox.flush();
    }
}

/// A measured body.
pub struct Body<T> {
    text: T,
    pin: Pin,
}

impl<T: Sliced> Slices for Body<T> {
    fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> io::Result<bool> {
        Ok(self.text.render(out, at_least))
    }

    fn pin(&self) -> Option<Pin> {
        Some(self.pin)
    }
}
