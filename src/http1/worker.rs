//! A worker: one thread that owns a set of connections.
//!
//! It owns its connections and their buffers, and waits for their sockets and for its inbox. After a stop, it ends when
//! its last connection has ended, or when the deadline has passed. One round consists of these steps:
//!
//! 1. wait, unless there are messages or a connection needs another turn;
//! 2. process the sockets that are ready;
//! 3. process the messages, including new connections;
//! 4. process the connections that need another turn, then those whose deadline has passed.
//!
//! A slot that becomes free in step 2 gets a new connection in step 3 at the earliest. Then no event of the old
//! connection is left.
//!
//! A panic while a connection is processed, in the handler or in this server, ends that connection.

use super::backlog::{Excess, RELIEVE_EVERY};
use super::connection::{Connection, NextStep, Tools};
use super::inbox::{Address, Inbox, Message};
use super::reply::{Upgraded, UpgradedStream};
use super::secure::{Session, TlsStream};
use super::stream_budget::BudgetState;
use super::timers::Timers;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The inbox's token. It differs from all slots.
pub(super) const INBOX: Token = Token(usize::MAX);

const EVENTS_PER_ROUND: usize = 256;

/// How often a worker warns that it cuts responses, or streams.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Values of a worker that other threads may read.
#[derive(Default)]
pub(super) struct Gauges {
    /// Number of its connections, including those that are being handed over.
    pub open: AtomicUsize,
    /// Number of connections of the reserve. `open` does not include them.
    pub reserved: AtomicUsize,
    pub requests: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,
}

pub(super) struct Worker {
    pub poll: Poll,
    pub tools: Tools,
    pub gauges: Arc<Gauges>,
    /// The inboxes of all workers.
    pub inboxes: Vec<Arc<Inbox>>,
    /// When to search again for responses to cut.
    pub relieve_at: Option<Instant>,
    /// When cut responses were last logged.
    pub complained: Option<Instant>,
    /// When a cut stream was last logged.
    pub cut_logged: Option<Instant>,
    pub connections: Connections,
}

/// The connections by slot.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    timers: Timers,
    /// Slots of the connections that need another turn.
    again: Vec<u32>,
    /// Slots of the connections that wait for memory for their bodies.
    no_room: Vec<u32>,
    deadline: Option<Instant>,
}

impl Worker {
    /// The thread's main function.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        let mut messages = Vec::new();
        while !self.is_done() {
            self.wait(&mut events);
            self.tools.inbox.take(&mut messages);
            self.tools.stamp.refresh();
            for event in events.iter().filter(|event| event.token() != INBOX) {
                self.handle_event(event);
            }
            for message in messages.drain(..) {
                self.handle_message(message);
            }
            self.run_again();
            self.run_timers();
            if std::mem::take(&mut self.tools.room) {
                self.inboxes
                    .iter()
                    .for_each(|inbox| inbox.put(Message::Room));
            }
            self.bound_streams();
            self.watch_backlog();
            self.end_round();
        }
        self.end_all();
    }

    /// Publishes the counts. Reads the clock only if there was something to do.
    fn end_round(&mut self) {
        let (tools, gauges) = (&mut self.tools, &self.gauges);
        gauges.requests.store(tools.requests, Ordering::Relaxed);
        gauges.received_bytes.store(
            tools.received_bytes + tools.records.received_bytes,
            Ordering::Relaxed,
        );
        gauges.sent_bytes.store(
            tools.sent_bytes.get() + tools.records.sent_bytes,
            Ordering::Relaxed,
        );
        if std::mem::take(&mut tools.called) {
            tools.handler.round(tools.worker, tools.stamp.now.elapsed());
        }
    }

    fn wait(&mut self, events: &mut Events) {
        let busy = !self.connections.again.is_empty() || !self.tools.inbox.may_sleep();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            self.time_to_wait()
        };
        if let Err(error) = self.poll.poll(events, timeout) {
            events.clear();
            if error.kind() != std::io::ErrorKind::Interrupted {
                panic!("a worker of the HTTP server cannot wait for its sockets: {error}");
            }
        }
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let timer = self.connections.timers.next();
        let others = self.connections.deadline.into_iter().chain(self.relieve_at);
        let next = timer.into_iter().chain(others).min()?;
        Some(next.saturating_duration_since(self.tools.stamp.now))
    }

    fn handle_event(&mut self, event: &Event) {
        let slot = event.token().0 as u32;
        if event.is_error() {
            return self.close(slot);
        }
        let (readable, read_closed) = (event.is_readable(), event.is_read_closed());
        let hung_up = event.is_write_closed();
        self.look(slot, |connection, tools| {
            connection.ready(readable, read_closed, hung_up, tools)
        });
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Adopt {
                socket,
                session,
                remote,
                reserved,
            } => self.adopt(socket, session, remote, reserved),
            Message::Answer { to, .. }
            | Message::Resume { to, .. }
            | Message::GoOn { to, .. }
            | Message::Chunk { to, .. }
            | Message::End { to, .. }
            | Message::Abort { to } => {
                let slot = self.connections.slots.get(to.slot as usize);
                if slot.is_some_and(|slot| slot.as_ref().is_some_and(|c| c.awaits(to))) {
                    self.look(to.slot, |connection, tools| {
                        connection.deliver(message, tools)
                    });
                }
            }
            Message::Cut { to } => {
                self.cut(to);
                self.tools.streams_grew = true;
            }
            Message::Room => {
                for slot in std::mem::take(&mut self.connections.no_room) {
                    self.tools.body_budget.wait_no_more();
                    self.look(slot, |connection, tools| {
                        connection.awaits_room = false;
                        connection.run(tools)
                    });
                }
            }
            Message::Relieve => self.relieve(),
            Message::Evict { count } => self.evict(count),
            Message::EvictReserved => self.evict_reserved(),
            Message::Stop { deadline } => self.stop(deadline),
        }
    }

    /// If responses use too much memory, each worker cuts some of its own and checks again later, until the sums are
    /// below their limits.
    fn watch_backlog(&mut self) {
        let is_new = std::mem::take(&mut self.tools.excess) && self.relieve_at.is_none();
        if is_new {
            self.inboxes
                .iter()
                .for_each(|inbox| inbox.put(Message::Relieve));
        }
        if self
            .relieve_at
            .is_some_and(|time| time <= self.tools.stamp.now)
        {
            self.relieve();
        }
    }

    /// Cuts responses whose clients read nothing, until no sum exceeds its limit.
    fn relieve(&mut self) {
        self.relieve_at = None;
        let Some(excess) = self.tools.backlog.excess() else {
            return;
        };
        let slots = self.connections.slots.iter().enumerate();
        let waiting = slots.filter_map(|(slot, connection)| {
            let relief = connection.as_ref()?.relief(excess, &self.tools)?;
            Some((relief, slot as u32))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        while self.tools.backlog.excess() == Some(excess)
            && let Some((_, slot)) = waiting.pop()
        {
            self.complain(excess);
            self.close(slot);
        }
        if self.tools.backlog.excess().is_some() {
            self.relieve_at = Some(self.tools.stamp.now + RELIEVE_EVERY);
        }
    }

    /// Logs that responses are cut.
    fn complain(&mut self, excess: Excess) {
        if is_due(&mut self.complained, self.tools.stamp.now) {
            let what = match excess {
                Excess::Held { .. } => "rendered bytes that are not sent",
                Excess::Pinned { .. } => "old versions of the data that are not sent",
            };
            log::warn!(
                "answers hold too much memory ({what}): cutting those whose clients do not read"
            );
        }
    }

    /// If the streams of all workers exceed their budget, cuts the chosen ones of this worker, up to one that another
    /// worker has to cut.
    fn bound_streams(&mut self) {
        if !std::mem::take(&mut self.tools.streams_grew) {
            return;
        }
        while let BudgetState::Cut(place) = self.tools.inbox.budget.check(self.tools.stamp.now) {
            if !Arc::ptr_eq(&place.inbox, &self.tools.inbox) {
                return place.cut();
            }
            self.cut(place.to);
        }
    }

    /// Cuts a stream that the budget has chosen, if it still exists and has not caught up.
    fn cut(&mut self, to: Address) {
        let connection = self.connections.slots.get(to.slot as usize);
        let connection = connection.and_then(Option::as_ref).filter(|c| c.awaits(to));
        let Some(reason) = connection.and_then(|c| c.reason_to_cut(&self.tools)) else {
            return;
        };
        if is_due(&mut self.cut_logged, self.tools.stamp.now) {
            let cuts = self.tools.inbox.budget.cuts();
            log::warn!("a stream is cut ({cuts} since the start): {reason}");
        }
        self.close(to.slot);
    }

    /// Closes idle connections: first those that never sent a request, then those that have served one, then those with
    /// an incomplete head. Of each kind, those that have waited longest come first.
    fn evict(&mut self, count: usize) {
        let now = self.tools.stamp.now;
        let slots = self.connections.slots.iter().enumerate();
        let idle = slots.filter_map(|(slot, connection)| {
            let idleness = connection.as_ref()?.idleness(&self.tools.limits, now)?;
            Some((idleness, slot as u32))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        idle.truncate(count);
        for (_, slot) in idle {
            self.close(slot);
        }
    }

    /// Closes the connection of the reserve that has waited longest for its request. If there is none, closes the one
    /// that has not read its response for longest.
    fn evict_reserved(&mut self) {
        let slots = self.connections.slots.iter().enumerate();
        let waiting = slots.filter_map(|(slot, connection)| {
            Some((connection.as_ref()?.reserved_since()?, slot as u32))
        });
        if let Some((_, slot)) = waiting.min() {
            self.close(slot);
        }
    }

    fn adopt(
        &mut self,
        mut socket: TcpStream,
        session: Option<Box<Session>>,
        remote: SocketAddr,
        reserved: bool,
    ) {
        let slots = &mut self.connections.slots;
        let slot = self.connections.free.pop().unwrap_or_else(|| {
            slots.push(None);
            (slots.len() - 1) as u32
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(slot as usize);
        if self.tools.stopping
            || self
                .poll
                .registry()
                .register(&mut socket, token, interest)
                .is_err()
        {
            self.connections.free.push(slot);
            self.uncount(reserved);
            return;
        }
        let connection = Connection::new(socket, session, remote, slot, reserved);
        self.connections.slots[slot as usize] = Some(Box::new(connection));
        // Sets the deadline for a client that never sends anything. If it has sent bytes, an event follows.
        self.look(slot, Connection::run);
    }

    /// Processes a connection, and does what it returns.
    fn look(&mut self, slot: u32, turn: impl FnOnce(&mut Connection, &mut Tools) -> NextStep) {
        let Worker {
            connections, tools, ..
        } = self;
        let Some(Some(connection)) = connections.slots.get_mut(slot as usize) else {
            return;
        };
        let next = catch_unwind(AssertUnwindSafe(|| turn(connection, tools)));
        let next = next.unwrap_or(NextStep::Close);
        match next {
            NextStep::Stay => {}
            // Two requests for another turn count as one. Otherwise each event would add another turn per round.
            NextStep::Again => {
                if !std::mem::replace(&mut connection.awaits_turn, true) {
                    connections.again.push(slot);
                }
            }
            NextStep::AwaitRoom => return self.await_room(slot),
            NextStep::Close => return self.close(slot),
            NextStep::Leave => return self.let_go(slot),
        }
        connections.timers.set(slot, connection.deadline);
    }

    /// Counts the connection as waiting, then asks again: see [`BodyBudget`](super::body_budget::BodyBudget).
    fn await_room(&mut self, slot: u32) {
        let Some(Some(connection)) = self.connections.slots.get_mut(slot as usize) else {
            return;
        };
        self.connections.timers.set(slot, connection.deadline);
        if !std::mem::replace(&mut connection.awaits_room, true) {
            self.connections.no_room.push(slot);
            self.tools.body_budget.wait();
            self.look(slot, Connection::run);
        }
    }

    fn take(&mut self, slot: u32) -> Option<Box<Connection>> {
        let connection = self.connections.slots.get_mut(slot as usize)?.take()?;
        self.connections.free.push(slot);
        self.uncount(connection.is_reserved());
        Some(connection)
    }

    fn uncount(&self, reserved: bool) {
        let Gauges {
            open,
            reserved: few,
            ..
        } = &*self.gauges;
        let gauge = if reserved { few } else { open };
        gauge.fetch_sub(1, Ordering::Relaxed);
    }

    fn close(&mut self, slot: u32) {
        let Some(mut connection) = self.take(slot) else {
            return;
        };
        let tools = &mut self.tools;
        let _ = catch_unwind(AssertUnwindSafe(|| connection.ended(tools)));
    }

    /// Hands over the socket of an upgraded connection.
    fn let_go(&mut self, slot: u32) {
        let Some(mut connection) = self.take(slot) else {
            return;
        };
        let released = self.poll.registry().deregister(connection.socket());
        let Some(leaving) = connection.leave() else {
            return;
        };
        let socket = std::net::TcpStream::from(leaving.socket);
        match released.and_then(|()| socket.set_nonblocking(false)) {
            Ok(()) => {
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    let stream = match leaving.session {
                        None => UpgradedStream::Plain(socket),
                        Some(session) => {
                            UpgradedStream::Tls(Box::new(TlsStream::new(session, socket)))
                        }
                    };
                    (leaving.then)(Upgraded {
                        stream,
                        early: leaving.early,
                    });
                }));
            }
            Err(error) => log::warn!("a connection was lost when it was upgraded: {error}"),
        }
    }

    fn run_again(&mut self) {
        for slot in std::mem::take(&mut self.connections.again) {
            self.look(slot, |connection, tools| {
                connection.awaits_turn = false;
                connection.run(tools)
            });
        }
    }

    fn run_timers(&mut self) {
        while let Some(slot) = self.connections.timers.pop(self.tools.stamp.now) {
            self.look(slot, Connection::expired);
        }
    }

    fn stop(&mut self, deadline: Duration) {
        self.tools.stopping = true;
        self.connections.deadline = Some(self.tools.stamp.now + deadline);
        for slot in 0..self.connections.slots.len() as u32 {
            self.look(slot, Connection::stop);
        }
    }

    fn is_done(&self) -> bool {
        self.connections.deadline.is_some_and(|deadline| {
            deadline <= self.tools.stamp.now || self.connections.slots.iter().all(Option::is_none)
        })
    }

    fn end_all(&mut self) {
        for slot in 0..self.connections.slots.len() as u32 {
            self.close(slot);
        }
    }
}

/// Whether a line that was logged at `last` may be logged again. If so, it is logged now.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAIN_EVERY);
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::super::stream_budget::StreamBudget;
    use super::super::{Answer, Handler, Limits, Reply, Request, build_workers};
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    struct Hello;

    impl Handler for Hello {
        fn handle(&self, _: &Request<'_>, reply: Reply<'_>) {
            reply.send(Answer::new(200));
        }
    }

    fn worker() -> Worker {
        let handler: Arc<dyn Handler> = Arc::new(Hello);
        let limits = Arc::new(Limits {
            idle_time: Some(Duration::from_secs(300)),
            ..Limits::default()
        });
        let budget = Arc::new(StreamBudget::new(limits.streams_bytes, limits.lag_time));
        let mut workers = build_workers(1, &limits, &budget, &handler).expect("a worker");
        workers.pop().expect("one was asked for")
    }

    /// Connects a client to slot 0 of the worker.
    fn connect(worker: &mut Worker) -> std::net::TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let client = std::net::TcpStream::connect(address).expect("connect");
        let (socket, remote) = listener.accept().expect("accept");
        socket.set_nonblocking(true).expect("set");
        // The kernel buffers several turns' bytes between the two.
        let far = socket2::SockRef::from(&socket);
        far.set_recv_buffer_size(2 << 20).expect("set");
        let near = socket2::SockRef::from(&client);
        near.set_send_buffer_size(2 << 20).expect("set");
        worker.gauges.open.fetch_add(1, Ordering::Relaxed);
        worker.adopt(TcpStream::from_std(socket), None, remote, false);
        client
    }

    #[test]
    fn a_connection_waits_for_one_turn_only() {
        let mut worker = worker();
        let mut client = connect(&mut worker);
        let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
        client.write_all(requests.as_bytes()).expect("sent");
        for _ in 0..3 {
            worker.look(0, |connection, tools| {
                connection.ready(true, false, false, tools)
            });
        }
        assert_eq!(worker.connections.again, [0]);
        worker.run_again();
        assert_eq!(worker.connections.again, [0]);
    }

    #[test]
    fn a_client_that_sends_quickly_has_turns_as_others() {
        let refused = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        let body = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n";
        for head in [body, refused] {
            let mut worker = worker();
            let mut client = connect(&mut worker);
            client.write_all(head.as_bytes()).expect("sent");
            let begun = Instant::now();
            // Fills the sockets repeatedly: that is more than one turn may read.
            client.set_nonblocking(true).expect("set");
            while worker.connections.again.is_empty() {
                while client.write(&[b'x'; 64 << 10]).is_ok() {}
                worker.look(0, |connection, tools| {
                    connection.ready(true, false, false, tools)
                });
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "one turn reads it all"
                );
            }
        }
    }

    #[test]
    fn clients_that_come_and_go_leave_no_timers() {
        let mut worker = worker();
        for _ in 0..50 {
            drop(connect(&mut worker));
            worker.tools.stamp.refresh();
            worker.close(0);
        }
        assert_eq!(worker.connections.timers.len(), 1);
    }
}
