//! How other threads reach a connection: through the inbox of the worker that owns it.
//!
//! A [`Ticket`] or a [`Parked`] identifies the connection by its slot *and* by a number that the worker assigns only
//! once ([`Address`]). When the connection has closed, or was answered, the slot no longer has that number, and a
//! message for it is dropped. So a response never reaches the next client in the same slot.
//!
//! # No lost and no unnecessary wake-ups
//!
//! Waking a worker takes a system call, which costs more than a response. So the inbox records whether the worker
//! sleeps, **under the same lock as the messages**:
//!
//! | who | under the lock | then |
//! |---|---|---|
//! | a sender | adds a message; clears `asleep` | wakes the worker if `asleep` was set |
//! | the worker, before it waits | if there are messages, stays awake; otherwise sets `asleep` | waits for its sockets and the waker |
//! | the worker, after it waited | takes all messages; clears `asleep` | processes them |
//!
//! The lock orders these steps. A message that is added before the worker checks keeps it awake. A message that is
//! added after the check finds `asleep` set and wakes the worker, even if the worker has not begun to wait, because a
//! wake-up stays pending until it is received. Between two waits, `asleep` is clear. So a sender makes no system call
//! while the worker runs, or after another sender: the worker will check the inbox again.

use super::answer::Answer;
use super::reply::Reply;
use super::request::Work;
use super::secure::Session;
use super::stream_budget::{BudgetState, Chunk, StreamBudget};
use mio::Waker;
use mio::net::TcpStream;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A response that is awaited on one connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub slot: u32,
    /// A worker assigns each value only once. 0 means none.
    pub turn: u64,
}

/// Messages to a worker.
pub(super) enum Message {
    Adopt {
        socket: TcpStream,
        /// With TLS.
        session: Option<Box<Session>>,
        remote: SocketAddr,
        /// Whether it belongs to the reserve.
        reserved: bool,
    },
    Answer {
        to: Address,
        answer: Answer,
    },
    /// Make a response now, on the worker's thread.
    Resume {
        to: Address,
        with: Resume,
    },
    /// Call the handler again, with this work.
    GoOn {
        to: Address,
        work: Work,
    },
    Chunk {
        to: Address,
        chunk: Chunk,
    },
    End {
        to: Address,
        last: Arc<[u8]>,
    },
    Abort {
        to: Address,
    },
    /// Unsent chunks exceed their budget: cut this stream, unless it has caught up.
    Cut {
        to: Address,
    },
    /// Memory for bodies was freed.
    Room,
    /// Responses use too much memory.
    Relieve,
    /// Too many connections are open: close up to `count` idle ones.
    Evict {
        count: usize,
    },
    /// The reserve is full: close its oldest waiting connection.
    EvictReserved,
    Stop {
        deadline: Duration,
    },
}

/// Makes a response on the thread of the connection's worker. Must not block.
pub(super) type Resume = Box<dyn FnOnce(Reply<'_>) + Send>;

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    asleep: bool,
}

/// A worker's inbox. Its size is bounded by the worker's open requests: each gets one response, and a stream whose
/// client lags is cut.
pub(super) struct Inbox {
    state: Mutex<State>,
    waker: Waker,
    /// The budget for the chunks of all workers.
    pub budget: Arc<StreamBudget<Place>>,
}

/// Where a stream is.
#[derive(Clone)]
pub(super) struct Place {
    pub inbox: Arc<Inbox>,
    pub to: Address,
}

impl Place {
    /// Asks the stream's worker to cut it.
    pub fn cut(self) {
        self.inbox.put(Message::Cut { to: self.to });
    }
}

impl Inbox {
    pub fn new(waker: Waker, budget: Arc<StreamBudget<Place>>) -> Inbox {
        Inbox {
            state: Mutex::default(),
            waker,
            budget,
        }
    }

    /// No code under this lock can panic. Even if it could, the messages would be valid.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all messages, leaves `messages` empty, and wakes the worker if it sleeps.
    pub fn put_all(&self, messages: &mut Vec<Message>) {
        let mut state = self.lock();
        if state.messages.is_empty() {
            std::mem::swap(&mut state.messages, messages);
        } else {
            state.messages.append(messages);
        }
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        self.wake_if(wake);
    }

    pub fn put(&self, message: Message) {
        let mut state = self.lock();
        state.messages.push(message);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        self.wake_if(wake);
    }

    fn wake_if(&self, wake: bool) {
        if wake && let Err(error) = self.waker.wake() {
            log::error!("a worker of the HTTP server cannot be woken: {error}");
        }
    }

    fn waiting(&self) -> usize {
        self.lock().messages.len()
    }

    /// Called before the worker waits; returns false if it must not wait, because there are messages.
    pub fn may_sleep(&self) -> bool {
        let mut state = self.lock();
        state.asleep = state.messages.is_empty();
        state.asleep
    }

    /// Called after the worker waited: takes all messages into `messages`, which must be empty.
    pub fn take(&self, messages: &mut Vec<Message>) {
        debug_assert!(messages.is_empty());
        let mut state = self.lock();
        state.asleep = false;
        std::mem::swap(&mut state.messages, messages);
    }
}

/// Responses for several workers. [`Outbox::flush`] takes the lock of each inbox once, and wakes each worker at most
/// once.
#[derive(Default)]
pub struct Outbox {
    /// One entry for each worker so far: only a few.
    boxes: Vec<(Arc<Inbox>, Vec<Message>)>,
}

impl Outbox {
    /// An empty outbox. Keep it, because its memory is reused.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    pub(super) fn add(&mut self, inbox: &Arc<Inbox>, message: Message) {
        match self
            .boxes
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, inbox))
        {
            Some((_, waiting)) => waiting.push(message),
            None => self.boxes.push((Arc::clone(inbox), vec![message])),
        }
    }

    /// Hands all messages to the workers.
    pub fn flush(&mut self) {
        for (inbox, messages) in &mut self.boxes {
            if !messages.is_empty() {
                inbox.put_all(messages);
            }
        }
    }

    /// Adds the same chunk to several parked responses of one server.
    pub fn chunk<'a>(&mut self, to: impl IntoIterator<Item = &'a Parked>, bytes: Arc<[u8]>) {
        let mut chunk = None;
        for parked in to {
            let Some(inbox) = &parked.inbox else { continue };
            let chunk = chunk.get_or_insert_with(|| inbox.budget.chunk(Arc::clone(&bytes)));
            let (to, chunk) = (parked.to, chunk.clone());
            self.add(inbox, Message::Chunk { to, chunk });
        }
    }

    /// Whether the caller should wait before it adds another chunk, because unsent chunks exceed the budget of the
    /// servers that this outbox has sent to. Call it about once per millisecond while it returns true: it also chooses
    /// the stream to be cut.
    ///
    /// `patient`: also while all clients read. Otherwise only until the workers have received what was sent, and have
    /// cut the chosen stream.
    pub fn is_full(&self, patient: bool) -> bool {
        let Some((inbox, _)) = self.boxes.first() else {
            return false;
        };
        match inbox.budget.check(Instant::now()) {
            BudgetState::Room => false,
            BudgetState::Full => patient || self.waiting() > 0,
            BudgetState::Cutting => true,
            BudgetState::Cut(place) => {
                place.cut();
                true
            }
        }
    }

    /// The largest number of messages that wait for one worker, among those that this outbox has sent to. A thread that
    /// can wait should wait while this is large.
    pub fn waiting(&self) -> usize {
        let waiting = self.boxes.iter().map(|(inbox, _)| inbox.waiting());
        waiting.max().unwrap_or(0)
    }
}

impl Drop for Outbox {
    /// Sends what was added.
    fn drop(&mut self) {
        self.flush();
    }
}

/// The right to answer one request later, once, from any thread. If the client has disconnected by then, the response
/// is dropped. Dropping a ticket answers 500 and closes the connection.
#[must_use = "a ticket that is dropped answers 500"]
pub struct Ticket {
    /// `None` after the response was sent.
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

    /// Sends the response at once.
    pub fn send(mut self, answer: Answer) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::Answer {
                to: self.to,
                answer,
            });
        }
    }

    /// Runs `with` on the worker's thread when `outbox` is flushed. Use it for a response that is ready, but too
    /// expensive to build on the calling thread.
    pub fn resume_in(mut self, with: Box<dyn FnOnce(Reply<'_>) + Send>, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(&inbox, Message::Resume { to: self.to, with });
        }
    }

    /// Sends the response when `outbox` is flushed.
    pub fn send_in(mut self, answer: Answer, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(
                &inbox,
                Message::Answer {
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
            inbox.put(Message::Answer {
                to: self.to,
                answer: Answer::refusal(500),
            });
        }
    }
}

/// A request that the handler will handle again, once, when any thread says so. If the client has disconnected by then,
/// nothing happens. Dropping this closes the connection.
#[must_use = "a suspended request that is dropped closes its connection"]
pub struct Suspended {
    /// `None` after the request has continued.
    inbox: Option<Arc<Inbox>>,
    to: Address,
}

impl Suspended {
    pub(super) fn new(inbox: &Arc<Inbox>, to: Address) -> Suspended {
        Suspended {
            inbox: Some(Arc::clone(inbox)),
            to,
        }
    }

    /// Calls the handler again, with `work` in [`Request::work`](super::Request::work).
    pub fn go_on(mut self, work: Box<dyn Any + Send>) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::GoOn { to: self.to, work });
        }
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::Abort { to: self.to });
        }
    }
}

/// A response whose head was sent, and whose chunks any thread can add. At most 24 bytes large. Dropping it closes the
/// connection without the final chunk, so that the client knows that the response was cut.
#[must_use = "a parked answer that is dropped is cut"]
pub struct Parked {
    /// `None` after the response has ended.
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

    /// Sends a chunk when `outbox` is flushed. If the client lags too far behind, the response is cut.
    pub fn chunk_in(&self, bytes: Arc<[u8]>, outbox: &mut Outbox) {
        outbox.chunk([self], bytes);
    }

    /// Sends a last chunk, which may be empty, and ends the response, when `outbox` is flushed. The connection then
    /// serves its next request.
    pub fn end_in(mut self, last: Arc<[u8]>, outbox: &mut Outbox) {
        if let Some(inbox) = self.inbox.take() {
            outbox.add(&inbox, Message::End { to: self.to, last });
        }
    }

    /// Closes the connection without the final chunk.
    pub fn abort(self) {}
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.put(Message::Abort { to: self.to });
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
        let budget = Arc::new(StreamBudget::new(0, std::time::Duration::ZERO));
        (poll, Arc::new(Inbox::new(waker, budget)))
    }

    /// Whether a wake-up is pending.
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
        inbox.put(Message::Room);
        assert!(!woken(&mut poll), "a worker that is awake needs no wake-up");
        assert!(!inbox.may_sleep(), "a message arrived while it worked");
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        assert_eq!(messages.len(), 1);
        assert!(inbox.may_sleep());
        inbox.put(Message::Room);
        assert!(woken(&mut poll));
        inbox.put(Message::Room);
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
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        let turns: Vec<_> = messages
            .iter()
            .map(|message| match message {
                Message::End { to, .. } => to.turn,
                _ => 0,
            })
            .collect();
        assert_eq!(turns, [1, 2, 3]);
    }
}
