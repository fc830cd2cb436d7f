//! How other threads reach a connection: by the inbox of the worker that owns it.
//!
//! A [`Ticket`] or a [`Parked`] names the connection by its slot *and* by a number that the worker
//! gives out once ([`Address`]). When the connection has closed, or was answered, the number is no
//! longer the slot's, and what comes for it is dropped: an answer never reaches the next client that
//! got the slot.
//!
//! # No lost wake-up, and no needless one
//!
//! A worker is told to wake by a system call, which costs more than an answer. So whether it sleeps
//! is kept in the inbox, **under the same lock as the mail**:
//!
//! | who | under the lock | then |
//! |---|---|---|
//! | a sender | adds mail; takes `asleep` (true becomes false) | wakes the worker if it was true |
//! | the worker, before it waits | is there mail? then it stays awake; else sets `asleep` | waits for its sockets and the waker |
//! | the worker, after it waited | takes all mail; clears `asleep` | works |
//!
//! The lock orders these steps. Mail added before the worker looks keeps it awake; mail added after
//! it looked finds `asleep` set and wakes it, also if it has not begun to wait yet, because a wake-up
//! stays with the poll until it is seen. Between two waits the flag is clear, so whoever sends while
//! the worker works, or second after another sender, makes no system call: the worker will look again.

use super::answer::Answer;
use super::reply::Reply;
use mio::Waker;
use mio::net::TcpStream;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One answer that is waited for on one connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub slot: u32,
    /// Never given twice by one worker; 0 is nobody's.
    pub turn: u64,
}

/// What a worker can be sent.
pub(super) enum Mail {
    Adopt {
        socket: TcpStream,
        remote: SocketAddr,
        listener: usize,
        /// It belongs to the reserve.
        reserved: bool,
    },
    Answer {
        to: Address,
        answer: Answer,
    },
    /// Answer now, on the worker's thread.
    Resume {
        to: Address,
        with: Resume,
    },
    Chunk {
        to: Address,
        bytes: Arc<[u8]>,
    },
    End {
        to: Address,
        last: Arc<[u8]>,
    },
    Abort {
        to: Address,
    },
    /// Memory for bodies has become free.
    Room,
    /// Answers hold too much memory.
    Relieve,
    /// Connections are scarce: close up to so many idle ones.
    Evict {
        count: usize,
    },
    /// The reserve is full: close its oldest connection that waits.
    EvictReserved,
    Stop {
        deadline: Duration,
    },
}

/// Makes an answer on the thread of the connection's worker; must not block.
pub(super) type Resume = Box<dyn FnOnce(Reply<'_>) + Send>;

#[derive(Default)]
struct State {
    mail: Vec<Mail>,
    asleep: bool,
}

/// A worker's inbox. Its size is bounded by the worker's open requests: each is answered once, and a
/// stream whose client lags is cut.
pub(super) struct Inbox {
    state: Mutex<State>,
    waker: Waker,
}

impl Inbox {
    pub fn new(waker: Waker) -> Inbox {
        Inbox {
            state: Mutex::default(),
            waker,
        }
    }

    /// Nothing that is done under this lock can panic, and if it could, the mail would be as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all of `mail`, leaving it empty, and wakes the worker if it sleeps.
    pub fn put_all(&self, mail: &mut Vec<Mail>) {
        let mut state = self.lock();
        if state.mail.is_empty() {
            std::mem::swap(&mut state.mail, mail);
        } else {
            state.mail.append(mail);
        }
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        self.wake_if(wake);
    }

    pub fn put(&self, mail: Mail) {
        let mut state = self.lock();
        state.mail.push(mail);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        self.wake_if(wake);
    }

    fn wake_if(&self, wake: bool) {
        if wake && let Err(error) = self.waker.wake() {
            log::error!("a worker of the door cannot be woken: {error}");
        }
    }

    fn waiting(&self) -> usize {
        self.lock().mail.len()
    }

    /// The worker is about to wait; false if it must not, because there is mail.
    pub fn may_sleep(&self) -> bool {
        let mut state = self.lock();
        state.asleep = state.mail.is_empty();
        state.asleep
    }

    /// The worker is awake again: takes all mail into `mail`, which must be empty.
    pub fn take(&self, mail: &mut Vec<Mail>) {
        debug_assert!(mail.is_empty());
        let mut state = self.lock();
        state.asleep = false;
        std::mem::swap(&mut state.mail, mail);
    }
}

/// Answers on their way to several workers; [`Outbox::flush`] takes the lock of each inbox once and
/// wakes each worker at most once.
#[derive(Default)]
pub struct Outbox {
    /// One for each worker met so far: a handful.
    boxes: Vec<(Arc<Inbox>, Vec<Mail>)>,
}

impl Outbox {
    /// An empty outbox; to be kept, because its memory is used again.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    pub(super) fn add(&mut self, inbox: &Arc<Inbox>, mail: Mail) {
        match self
            .boxes
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, inbox))
        {
            Some((_, waiting)) => waiting.push(mail),
            None => self.boxes.push((Arc::clone(inbox), vec![mail])),
        }
    }

    /// Hands everything to the workers.
    pub fn flush(&mut self) {
        for (inbox, mail) in &mut self.boxes {
            if !mail.is_empty() {
                inbox.put_all(mail);
            }
        }
    }

    /// How much mail waits for the worker that has most, of those that were sent any by this outbox. Who
    /// may wait does so while this is large.
    pub fn waiting(&self) -> usize {
        let waiting = self.boxes.iter().map(|(inbox, _)| inbox.waiting());
        waiting.max().unwrap_or(0)
    }
}

impl Drop for Outbox {
    /// What was put in is not lost.
    fn drop(&mut self) {
        self.flush();
    }
}

/// The right to answer one request later, once, from any thread. If the client has gone by then, the
/// answer is dropped. Dropping a ticket answers 500 and closes.
#[must_use = "a ticket that is dropped answers 500"]
pub struct Ticket {
    /// Taken when the answer was sent.
    inbox: Option<Arc<Inbox>>,
    to: Address,
}

impl Ticket {
    pub(super) fn new(inbox: &Arc<Inbox>, to: Address) -> Ticket {
        Ticket {
            inbox: Some(Arc::clone(inbox)),
            to,
        }
    }

    /// Answers at once.
    pub fn send(mut self, answer: Answer) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Mail::Answer {
                to: self.to,
                answer,
            });
        }
    }

    /// Has `with` answer on the worker's thread, once `outbox` is flushed: for an answer that is ready
    /// to be made elsewhere and costs too much to be made there.
    pub fn resume_in(mut self, with: Box<dyn FnOnce(Reply<'_>) + Send>, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(&inbox, Mail::Resume { to: self.to, with });
        }
    }

    /// Answers when `outbox` is flushed.
    pub fn send_in(mut self, answer: Answer, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(
                &inbox,
                Mail::Answer {
                    to: self.to,
                    answer,
                },
            );
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Mail::Answer {
                to: self.to,
                answer: Answer::refusal(500),
            });
        }
    }
}

/// An answer whose head was sent and whose body comes in chunks, from any thread. 24 bytes at most. Dropping
/// it closes the connection without the final chunk, so that the client knows its answer is cut.
#[must_use = "a parked answer that is dropped is cut"]
pub struct Parked {
    /// Taken when the answer has ended.
    inbox: Option<Arc<Inbox>>,
    to: Address,
}

impl Parked {
    pub(super) fn new(inbox: &Arc<Inbox>, to: Address) -> Parked {
        Parked {
            inbox: Some(Arc::clone(inbox)),
            to,
        }
    }

    /// Sends a chunk when `outbox` is flushed. A client that lags too far behind is cut instead.
    pub fn chunk_in(&self, bytes: Arc<[u8]>, outbox: &mut Outbox) {
        if let Some(inbox) = &self.inbox {
            outbox.add(inbox, Mail::Chunk { to: self.to, bytes });
        }
    }

    /// Sends a last chunk, which may be empty, and ends the answer, when `outbox` is flushed. The
    /// connection serves its next request.
    pub fn end_in(mut self, last: Arc<[u8]>, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(&inbox, Mail::End { to: self.to, last });
        }
    }

    /// Closes the connection without the final chunk.
    pub fn abort(self) {}
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Mail::Abort { to: self.to });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    fn inbox() -> (Poll, Arc<Inbox>) {
        let poll = Poll::new().expect("poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("waker");
        (poll, Arc::new(Inbox::new(waker)))
    }

    /// Whether a wake-up is waiting.
    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).expect("poll");
        !events.is_empty()
    }

    #[test]
    fn a_handle_is_small() {
        assert!(size_of::<Parked>() <= 24);
    }

    #[test]
    fn only_the_first_sender_to_a_sleeping_worker_wakes_it() {
        let (mut poll, inbox) = inbox();
        inbox.put(Mail::Room);
        assert!(!woken(&mut poll), "a worker that is awake needs no wake-up");
        assert!(!inbox.may_sleep(), "mail came while it worked");
        let mut mail = Vec::new();
        inbox.take(&mut mail);
        assert_eq!(mail.len(), 1);
        assert!(inbox.may_sleep());
        inbox.put(Mail::Room);
        assert!(woken(&mut poll));
        inbox.put(Mail::Room);
        assert!(!woken(&mut poll), "it is on its way already");
    }

    #[test]
    fn a_batch_wakes_once_and_keeps_its_order() {
        let (mut poll, inbox) = inbox();
        assert!(inbox.may_sleep());
        let mut outbox = Outbox::new();
        for turn in 1..=3 {
            Parked::new(&inbox, Address { slot: 0, turn }).end_in([].into(), &mut outbox);
        }
        assert!(!woken(&mut poll));
        outbox.flush();
        assert!(woken(&mut poll));
        let mut mail = Vec::new();
        inbox.take(&mut mail);
        let turns: Vec<_> = mail
            .iter()
            .map(|mail| match mail {
                Mail::End { to, .. } => to.turn,
                _ => 0,
            })
            .collect();
        assert_eq!(turns, [1, 2, 3]);
    }
}
