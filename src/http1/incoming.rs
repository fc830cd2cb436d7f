//! A body that is being received: its bytes so far, the memory that it holds, and its speed.

use super::body::Chunked;
use super::connection::Tools;
use super::head::Head;
use super::input::Input;
use super::request::BodyState;

/// A body that is being received. The buffer begins with the head; the decoded part of the body follows it.
pub(super) struct Incoming {
    pub head_length: usize,
    shape: Shape,
    /// Bytes of the body so far.
    pub data: usize,
    /// The client waits for a 100.
    pub owes_continue: bool,
    /// The id in the memory budget, and the bytes counted there.
    pub who: u64,
    pub counted: usize,
    /// Bytes received so far, and their number when the present time span began.
    received: u64,
    received_before: u64,
}

pub(super) enum Shape {
    Length(u64),
    Chunked(Chunked),
}

impl Incoming {
    pub fn new(head: &Head<'_, '_>, shape: Shape, tools: &mut Tools) -> Incoming {
        Incoming {
            head_length: head.length,
            shape,
            data: 0,
            owes_continue: head.expects_continue,
            who: tools.next_who(),
            counted: 0,
            received: 0,
            received_before: 0,
        }
    }

    /// Processes the received bytes. `Ok(None)` if more are needed.
    pub fn take(&mut self, input: &mut Input, most: usize) -> Result<Option<BodyState>, u16> {
        match &mut self.shape {
            Shape::Length(length) => {
                let there = input.len() - self.head_length;
                if (there as u64) < *length {
                    return Ok(None);
                }
                self.data = *length as usize;
                Ok(Some(BodyState::Complete))
            }
            Shape::Chunked(decoder) => {
                let from = self.head_length + self.data;
                let decoded = decoder
                    .decode(input.bytes_mut(), from, from)
                    .map_err(|_| 400u16)?;
                input.remove(from + decoded.data, from + decoded.taken);
                self.data += decoded.data;
                if decoder.promised().saturating_add(self.data as u64) > most as u64 {
                    return Ok(Some(BodyState::TooLarge));
                }
                Ok(decoder.is_done().then_some(BodyState::Complete))
            }
        }
    }

    /// Minimum number of bytes until the body is complete.
    pub fn missing(&self, input: &Input) -> u64 {
        match &self.shape {
            Shape::Length(length) => length.saturating_sub((input.len() - self.head_length) as u64),
            Shape::Chunked(decoder) => decoder.promised(),
        }
    }

    /// More bytes have arrived.
    pub fn receive(&mut self, count: usize) {
        self.received += count as u64;
    }

    /// Bytes received since the last [`Incoming::rewind`].
    pub fn fresh(&self) -> u64 {
        self.received - self.received_before
    }

    /// Begins a new time span, in which enough bytes must arrive.
    pub fn rewind(&mut self) {
        self.received_before = self.received;
    }
}

impl Shape {
    pub fn chunked() -> Shape {
        Shape::Chunked(Chunked::new())
    }
}
