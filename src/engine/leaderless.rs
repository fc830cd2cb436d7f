//! Requests that wait for a leader, with their deadlines.

use super::request::Request;
use super::time::Monotonic;
use std::collections::VecDeque;

/// Maximum bytes of the commands that wait. A single command may be larger.
const BYTES_MAX: usize = 32 << 20;

/// The requests in the order of their arrival.
pub(super) struct Leaderless<T> {
    waiting: VecDeque<(Monotonic, Request<T>)>,
    bytes: usize,
    callers: usize,
}

impl<T> Default for Leaderless<T> {
    fn default() -> Leaderless<T> {
        Leaderless {
            waiting: VecDeque::new(),
            bytes: 0,
            callers: 0,
        }
    }
}

impl<T> Leaderless<T> {
    /// Adds a request that fails at `give_up`. Returns it if the bytes of the waiting commands would be too many.
    pub fn push(&mut self, give_up: Monotonic, request: Request<T>) -> Result<(), Request<T>> {
        let bytes = self.bytes + request.bytes();
        if self.bytes > 0 && bytes > BYTES_MAX {
            return Err(request);
        }
        self.bytes = bytes;
        self.callers += usize::from(request.has_caller());
        self.waiting.push_back((give_up, request));
        Ok(())
    }

    /// Removes and returns all requests.
    pub fn take(&mut self) -> VecDeque<(Monotonic, Request<T>)> {
        std::mem::take(self).waiting
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of the commands that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of requests that need a reply.
    pub fn caller_count(&self) -> usize {
        self.callers
    }
}
