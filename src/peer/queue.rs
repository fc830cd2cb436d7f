//! The messages that wait for one member, and the wake-up of the thread that sends them.
//!
//! The queue has one lock. The threads encode, write and report messages only without the lock. The thread that empties
//! the queue sleeps in `poll` on a pipe and on its socket. It wakes immediately for a message, a reason to dial, the end
//! of the link, and a connection that the other side closes. Other threads write a byte to the pipe only if the thread
//! sleeps. Therefore the pipe contains at most one byte, and while the thread is busy, a message costs no system call.

use super::priority::{Dropped, PriorityQueues};
use crate::engine::peer_message::PeerMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The result of [`Queue::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Messages,
    Nothing,
    Closed,
}

/// What ended [`Queue::sleep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// A byte in the pipe: a message, a reason to dial, or the end of the queue. The thread must check which one.
    Pipe,
    /// The socket is readable. On a connection that only sends, this is its end.
    Socket,
    TimeUp,
}

/// The messages for one member.
pub(super) struct Queue {
    state: Mutex<State>,
    wake_writer: PipeWriter,
    wake_reader: PipeReader,
}

#[derive(Default)]
struct State {
    queues: PriorityQueues,
    /// Whether there is a reason to dial now.
    called: bool,
    /// Whether the thread sleeps, so that a byte must be written to the pipe.
    sleeping: bool,
}

impl Queue {
    /// # Errors
    /// Fails if the system has no descriptor left.
    pub fn new() -> io::Result<Queue> {
        let (wake_reader, wake_writer) = io::pipe()?;
        Ok(Queue {
            state: Mutex::default(),
            wake_writer,
            wake_reader,
        })
    }

    /// Queues messages. Returns those that did not fit. Never waits.
    pub fn push(&self, messages: impl Iterator<Item = PeerMessage>) -> Dropped {
        let mut dropped = Dropped::default();
        let mut state = self.state();
        for peer_message in messages {
            state.queues.push(peer_message, &mut dropped);
        }
        // Without a connection the thread cannot send the messages. Only [`Queue::call`] wakes it then.
        if state.queues.is_connected() {
            self.wake(state);
        }
        dropped
    }

    /// Moves the next messages to `into`, urgent ones first, about 256 KiB of them.
    pub fn take(&self, into: &mut Vec<PeerMessage>) -> Taken {
        let mut state = self.state();
        if state.queues.is_closed() {
            return Taken::Closed;
        }
        state.queues.take(into);
        state.sleeping = into.is_empty();
        match into.is_empty() {
            true => Taken::Nothing,
            false => Taken::Messages,
        }
    }

    /// Called after [`Taken::Nothing`]: waits for a byte in the pipe, or for the socket to be readable.
    pub fn sleep(&self, socket: Option<&TcpStream>, at_most: Option<Duration>) -> Woken {
        let timeout = at_most.and_then(|span| Timespec::try_from(span).ok());
        let mut files = vec![PollFd::new(&self.wake_reader, PollFlags::IN)];
        files.extend(socket.map(|socket| PollFd::new(socket, PollFlags::IN)));
        // An interrupted poll has found no event. The caller checks the queue and calls again.
        let ready = poll(&mut files, timeout.as_ref()).unwrap_or(1);
        let is_ready = |file: &PollFd<'_>| !file.revents().is_empty();
        let (woken, socket) = (is_ready(&files[0]), files.get(1).is_some_and(is_ready));
        if woken {
            // The pipe contains one byte, so this does not block.
            let _ = (&self.wake_reader).read(&mut [0]);
        }
        match (socket, woken || ready > 0) {
            (true, _) => Woken::Socket,
            (false, true) => Woken::Pipe,
            (false, false) => Woken::TimeUp,
        }
    }

    /// Marks the queue as connected: it keeps messages from here on. Returns those that have waited too long.
    pub fn connected(&self) -> Dropped {
        let mut state = self.state();
        state.called = false;
        state.queues.connect()
    }

    /// Marks the connection as lost. Returns all waiting messages as dropped.
    pub fn disconnected(&self) -> Dropped {
        self.state().queues.disconnect()
    }

    /// Ends a pause between two dials, because there is a sign that the member runs or has ended.
    pub fn call(&self) {
        let mut state = self.state();
        if !state.queues.is_connected() {
            state.called = true;
            self.wake(state);
        }
    }

    /// Closes the queue. Returns the messages that waited.
    pub fn close(&self) -> Dropped {
        let mut state = self.state();
        let dropped = state.queues.close();
        self.wake(state);
        dropped
    }

    pub fn is_closed(&self) -> bool {
        self.state().queues.is_closed()
    }

    /// Waits between two dials: at most for `pause`, and if `hurried`, at most until the next [`Queue::call`]. False:
    /// the queue is closed.
    pub fn rest(&self, pause: Duration, hurried: bool) -> bool {
        let until = Instant::now() + pause;
        loop {
            let mut state = self.state();
            if state.queues.is_closed() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (hurried && state.called) {
                state.called = false;
                return true;
            }
            state.sleeping = true;
            drop(state);
            self.sleep(None, Some(left));
            self.state().sleeping = false;
        }
    }

    /// Releases the lock, and writes a byte to the pipe if the thread sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleeps = std::mem::take(&mut state.sleeping);
        drop(state);
        if sleeps {
            // The pipe is empty, so this does not block. It fails only if no thread reads the pipe any longer.
            let _ = (&self.wake_writer).write(&[1]);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_hears_letters_calls_and_the_end() {
        let queue = Queue::new().expect("a pipe");
        queue.connected();
        let mut messages = Vec::new();
        let long = Duration::from_secs(20);
        std::thread::scope(|scope| {
            assert_eq!(queue.take(&mut messages), Taken::Nothing);
            scope.spawn(|| queue.push([PeerMessage::AskIndex { number: 1 }].into_iter()));
            assert_eq!(queue.sleep(None, Some(long)), Woken::Pipe);
            assert_eq!(queue.take(&mut messages), Taken::Messages);
            queue.disconnected();
            scope.spawn(|| queue.call());
            assert!(queue.rest(long, true));
            scope.spawn(|| queue.close());
            assert!(!queue.rest(long, true));
        });
    }
}
