//! The queue of one member: its lanes, and the bell that wakes their thread.
//!
//! One lock; nothing is encoded, written or told while it is held. The thread that empties the queue sleeps
//! in `poll` on a pipe (the bell) and its socket, so it hears at once of letters, of a hint to dial, of the
//! end, and of a connection that the other side closes. The bell is rung only when it sleeps: one byte at
//! most is in the pipe, and while it is busy a letter costs no system call.

use super::lanes::{Dropped, Lanes};
use crate::engine::letter::Letter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What [`Queue::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Letters,
    Nothing,
    Closed,
}

/// What ended [`Queue::sleep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// Letters, a hint, the end: whoever sleeps looks for himself.
    Bell,
    /// The socket has something to read: on a connection that only sends, its end.
    Socket,
    TimeUp,
}

/// The letters for one member.
pub(super) struct Queue {
    state: Mutex<State>,
    bell: PipeWriter,
    ear: PipeReader,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    /// There is reason to dial now.
    called: bool,
    /// The bell must be rung.
    sleeping: bool,
}

impl Queue {
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Queue> {
        let (ear, bell) = io::pipe()?;
        Ok(Queue {
            state: Mutex::default(),
            bell,
            ear,
        })
    }

    /// Takes letters in; gives back what found no room. Never waits.
    pub fn push(&self, letters: impl Iterator<Item = Letter>) -> Dropped {
        let mut dropped = Dropped::default();
        let mut state = self.state();
        for letter in letters {
            state.lanes.push(letter, &mut dropped);
        }
        // A queue without connection has nobody to send it; its thread hears of the calls alone.
        if state.lanes.is_connected() {
            self.wake(state);
        }
        dropped
    }

    /// Moves the next letters to `into`, urgent ones first, about 256 KiB of them.
    pub fn take(&self, into: &mut Vec<Letter>) -> Taken {
        let mut state = self.state();
        if state.lanes.is_closed() {
            return Taken::Closed;
        }
        state.lanes.take(into);
        state.sleeping = into.is_empty();
        match into.is_empty() {
            true => Taken::Nothing,
            false => Taken::Letters,
        }
    }

    /// After [`Taken::Nothing`]: waits for the bell, or for something on the socket.
    pub fn sleep(&self, socket: Option<&TcpStream>, at_most: Option<Duration>) -> Woken {
        let timeout = at_most.and_then(|span| Timespec::try_from(span).ok());
        let mut files = vec![PollFd::new(&self.ear, PollFlags::IN)];
        files.extend(socket.map(|socket| PollFd::new(socket, PollFlags::IN)));
        // An interrupted poll has found nothing: the caller looks and comes back.
        let ready = poll(&mut files, timeout.as_ref()).unwrap_or(1);
        let heard = |file: &PollFd<'_>| !file.revents().is_empty();
        let (rung, socket) = (heard(&files[0]), files.get(1).is_some_and(heard));
        if rung {
            // One byte, and it is there.
            let _ = (&self.ear).read(&mut [0]);
        }
        match (socket, rung || ready > 0) {
            (true, _) => Woken::Socket,
            (false, true) => Woken::Bell,
            (false, false) => Woken::TimeUp,
        }
    }

    /// There is a connection: letters are kept from here on. Gives back those that waited too long.
    pub fn connected(&self) -> Dropped {
        let mut state = self.state();
        state.called = false;
        state.lanes.connect()
    }

    /// The connection is gone, and with it all that waited.
    pub fn disconnected(&self) -> Dropped {
        self.state().lanes.disconnect()
    }

    /// A sign of life, or of death, of the member: it is worth dialling now.
    pub fn call(&self) {
        let mut state = self.state();
        if !state.lanes.is_connected() {
            state.called = true;
            self.wake(state);
        }
    }

    /// Ends it; gives back what waited.
    pub fn close(&self) -> Dropped {
        let mut state = self.state();
        let dropped = state.lanes.close();
        self.wake(state);
        dropped
    }

    pub fn is_closed(&self) -> bool {
        self.state().lanes.is_closed()
    }

    /// Waits between two dials, not longer than `pause`, and if `hurried` not past a call. False: it is
    /// closed.
    pub fn rest(&self, pause: Duration, hurried: bool) -> bool {
        let until = Instant::now() + pause;
        loop {
            let mut state = self.state();
            if state.lanes.is_closed() {
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

    /// Lets go of the lock, and rings if the thread sleeps.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleeps = std::mem::take(&mut state.sleeping);
        drop(state);
        if sleeps {
            // The pipe is empty, so this does not wait; it fails only when nobody is left to hear it.
            let _ = (&self.bell).write(&[1]);
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
        let mut letters = Vec::new();
        let long = Duration::from_secs(20);
        std::thread::scope(|scope| {
            assert_eq!(queue.take(&mut letters), Taken::Nothing);
            scope.spawn(|| queue.push([Letter::AskIndex { number: 1 }].into_iter()));
            assert_eq!(queue.sleep(None, Some(long)), Woken::Bell);
            assert_eq!(queue.take(&mut letters), Taken::Letters);
            queue.disconnected();
            scope.spawn(|| queue.call());
            assert!(queue.rest(long, true));
            scope.spawn(|| queue.close());
            assert!(!queue.rest(long, true));
        });
    }
}
