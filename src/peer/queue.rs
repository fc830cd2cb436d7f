//! What waits for one member: two lanes of letters, and the bell that wakes their thread.
//!
//! Urgent letters (votes, heartbeats, acks, questions) always go before bulk (entries, forwarded orders); a
//! lane keeps its order. Both are bounded, and what finds no room is dropped: raft sends again.
//!
//! While there is no connection nothing bulky is kept. Urgent letters are, for a moment: the answer to a
//! member that has just come up would otherwise be lost to a connection that is a millisecond late.
//!
//! One lock; nothing is encoded, written or told while it is held. The thread that empties the queue sleeps
//! in `poll` on a pipe (the bell) and its socket, so it hears at once of letters, of a hint to dial, of the
//! end, and of a connection that the other side closes. The bell is rung only when it sleeps: one byte at
//! most is in the pipe, and while it is busy a letter costs no system call.

use crate::raft::Body;
use crate::replica::letter::Letter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one lane may hold. A letter larger than the bytes goes if the lane is empty.
const LETTERS_MAX: usize = 4096;
const BULK_BYTES_MAX: usize = 8 << 20;

/// About what is written at once: an urgent letter waits for no more bytes than these.
const TAKE_BYTES: usize = 256 << 10;

/// Urgent letters kept without a connection, and for how long they are worth sending.
const HELD_MAX: usize = 64;
const HELD_FOR: Duration = Duration::from_millis(300);

/// What stands around the payload of a letter, roughly.
const LETTER_BYTES: usize = 64;

/// Letters that did not get through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Numbers of forwards, which may be sent again.
    pub unsent: Vec<u64>,
    /// How many others.
    pub others: u64,
}

impl Dropped {
    fn add(&mut self, letter: &Letter) {
        match letter {
            Letter::Forward { number, .. } => self.unsent.push(*number),
            _ => self.others += 1,
        }
    }

    pub fn count(&self) -> u64 {
        self.unsent.len() as u64 + self.others
    }
}

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
    urgent: VecDeque<Letter>,
    bulk: VecDeque<Letter>,
    bulk_bytes: usize,
    /// Since when the letters of `urgent` wait, one for each, while there is no connection.
    held_since: VecDeque<Instant>,
    connected: bool,
    closed: bool,
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
            state.push(letter, &mut dropped);
        }
        // A queue without connection has nobody to send it; its thread hears of the calls alone.
        if state.connected {
            self.wake(state);
        }
        dropped
    }

    /// Moves the next letters to `into`, urgent ones first, about 256 KiB of them.
    pub fn take(&self, into: &mut Vec<Letter>) -> Taken {
        let mut state = self.state();
        if state.closed {
            return Taken::Closed;
        }
        let mut bytes = 0;
        while bytes < TAKE_BYTES
            && let Some(letter) = state.next()
        {
            bytes += weight(&letter);
            into.push(letter);
        }
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
        let mut dropped = Dropped::default();
        let mut state = self.state();
        state.connected = true;
        state.called = false;
        while let Some(since) = state.held_since.pop_front() {
            if since.elapsed() > HELD_FOR
                && let Some(letter) = state.urgent.pop_front()
            {
                dropped.add(&letter);
            }
        }
        dropped
    }

    /// The connection is gone, and with it all that waited.
    pub fn disconnected(&self) -> Dropped {
        let mut state = self.state();
        state.connected = false;
        state.empty()
    }

    /// A sign of life, or of death, of the member: it is worth dialling now.
    pub fn call(&self) {
        let mut state = self.state();
        if !state.connected {
            state.called = true;
            self.wake(state);
        }
    }

    /// Ends it; gives back what waited.
    pub fn close(&self) -> Dropped {
        let mut state = self.state();
        state.closed = true;
        state.connected = false;
        let dropped = state.empty();
        self.wake(state);
        dropped
    }

    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits between two dials, not longer than `pause`, and if `hurried` not past a call. False: it is
    /// closed.
    pub fn rest(&self, pause: Duration, hurried: bool) -> bool {
        let until = Instant::now() + pause;
        loop {
            let mut state = self.state();
            if state.closed {
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

impl State {
    fn push(&mut self, letter: Letter, dropped: &mut Dropped) {
        if letter.is_bulk() {
            self.push_bulk(letter, dropped);
        } else if self.closed {
            dropped.add(&letter);
        } else if self.connected {
            match self.urgent.len() < LETTERS_MAX {
                true => self.urgent.push_back(letter),
                false => dropped.add(&letter),
            }
        } else {
            self.hold(letter, dropped);
        }
    }

    fn push_bulk(&mut self, letter: Letter, dropped: &mut Dropped) {
        let bytes = weight(&letter);
        let has_room = self.bulk.is_empty()
            || (self.bulk.len() < LETTERS_MAX && self.bulk_bytes + bytes <= BULK_BYTES_MAX);
        if self.connected && has_room {
            self.bulk_bytes += bytes;
            self.bulk.push_back(letter);
        } else {
            dropped.add(&letter);
        }
    }

    /// Keeps an urgent letter without a connection: the newest ones.
    fn hold(&mut self, letter: Letter, dropped: &mut Dropped) {
        if self.urgent.len() == HELD_MAX
            && let (Some(oldest), Some(_)) = (self.urgent.pop_front(), self.held_since.pop_front())
        {
            dropped.add(&oldest);
        }
        self.urgent.push_back(letter);
        self.held_since.push_back(Instant::now());
    }

    fn next(&mut self) -> Option<Letter> {
        self.urgent.pop_front().or_else(|| {
            let letter = self.bulk.pop_front()?;
            self.bulk_bytes -= weight(&letter);
            Some(letter)
        })
    }

    fn empty(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        self.held_since.clear();
        while let Some(letter) = self.next() {
            dropped.add(&letter);
        }
        dropped
    }
}

/// What a letter counts for where bytes are limited.
fn weight(letter: &Letter) -> usize {
    let payload = match letter {
        Letter::Raft { message, .. } => match &message.body {
            Body::Append { entries, .. } => entries.iter().map(|e| e.bytes_in_memory()).sum(),
            _ => 0,
        },
        Letter::Forward { orders, .. } => {
            let bytes = |order: &Arc<[u8]>| order.len() + size_of::<Arc<[u8]>>();
            orders.iter().map(bytes).sum()
        }
        Letter::Change { order, .. } => order.len(),
        Letter::AskIndex { .. } | Letter::Reply { .. } => 0,
    };
    LETTER_BYTES + payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Term;

    fn forward(number: u64, bytes: usize) -> Letter {
        Letter::Forward {
            number,
            term: Term(1),
            orders: vec![Arc::from(vec![0; bytes])],
        }
    }

    fn ask(number: u64) -> Letter {
        Letter::AskIndex { number }
    }

    fn open() -> Queue {
        let queue = Queue::new().expect("a pipe");
        assert_eq!(queue.connected(), Dropped::default());
        queue
    }

    fn all(queue: &Queue) -> Vec<Letter> {
        let mut letters = Vec::new();
        loop {
            let mut next = Vec::new();
            if queue.take(&mut next) != Taken::Letters {
                return letters;
            }
            letters.extend(next);
        }
    }

    #[test]
    fn urgent_letters_go_first_and_lanes_keep_their_order() {
        let queue = open();
        let letters = [forward(1, 9), ask(2), forward(3, 9), ask(4)];
        assert_eq!(queue.push(letters.into_iter()), Dropped::default());
        let wanted = [ask(2), ask(4), forward(1, 9), forward(3, 9)];
        assert_eq!(all(&queue), wanted);
    }

    #[test]
    fn bulk_is_taken_in_pieces() {
        let queue = open();
        queue.push((0..10).map(|number| forward(number, 100 << 10)));
        let mut first = Vec::new();
        queue.take(&mut first);
        assert_eq!(first.len(), 3, "300 KiB are about 256");
        queue.push([ask(99)].into_iter());
        assert_eq!(all(&queue)[0], ask(99), "it slips between");
    }

    #[test]
    fn lanes_are_bounded_by_count_and_bytes() {
        let queue = open();
        let dropped = queue.push((0..LETTERS_MAX as u64 + 5).map(|number| forward(number, 1)));
        let late: Vec<u64> = (LETTERS_MAX as u64..).take(5).collect();
        assert_eq!(dropped.unsent, late);
        let dropped = queue.push((0..LETTERS_MAX as u64 + 5).map(ask));
        assert_eq!(
            dropped,
            Dropped {
                unsent: vec![],
                others: 5
            }
        );
        all(&queue);
        let dropped = queue.push((0..9).map(|number| forward(number, 1 << 20)));
        assert_eq!(dropped.unsent, [7, 8], "8 MiB with what stands around them");
        all(&queue);
        let dropped = queue.push([forward(1, 20 << 20), forward(2, 1)].into_iter());
        assert_eq!(dropped.unsent, [2], "a larger one goes alone");
    }

    #[test]
    fn without_a_connection_forwards_come_back_and_urgent_letters_wait_a_moment() {
        let queue = Queue::new().expect("a pipe");
        let dropped = queue.push([forward(1, 1), ask(2)].into_iter());
        assert_eq!(
            dropped,
            Dropped {
                unsent: vec![1],
                others: 0
            }
        );
        let dropped = queue.push((0..HELD_MAX as u64).map(ask));
        assert_eq!(dropped.others, 1, "the oldest");
        assert_eq!(queue.connected(), Dropped::default());
        assert_eq!(all(&queue).len(), HELD_MAX);
        queue.push([forward(3, 1), ask(4)].into_iter());
        let lost = Dropped {
            unsent: vec![3],
            others: 1,
        };
        assert_eq!(queue.disconnected(), lost);
        queue.close();
        let refused = Dropped {
            unsent: vec![5],
            others: 1,
        };
        assert_eq!(queue.push([forward(5, 1), ask(6)].into_iter()), refused);
    }

    #[test]
    fn a_sleeper_hears_letters_calls_and_the_end() {
        let queue = open();
        let mut letters = Vec::new();
        let second = Some(Duration::from_secs(20));
        std::thread::scope(|scope| {
            assert_eq!(queue.take(&mut letters), Taken::Nothing);
            scope.spawn(|| queue.push([ask(1)].into_iter()));
            assert_eq!(queue.sleep(None, second), Woken::Bell);
            assert_eq!(queue.take(&mut letters), Taken::Letters);
            queue.disconnected();
            scope.spawn(|| queue.call());
            assert!(queue.rest(Duration::from_secs(20), true));
            scope.spawn(|| queue.close());
            assert!(!queue.rest(Duration::from_secs(20), true));
        });
    }
}
