//! The two queues of messages that wait for one member.
//!
//! Urgent messages (votes, heartbeats, acks, index requests) are always sent before bulk (entries, forwarded commands).
//! Each queue keeps its order. Both queues are bounded. A message that does not fit is dropped, and raft sends it again.
//!
//! While there is no connection, no bulk message is kept. Urgent messages are kept for a moment. Otherwise the answer
//! to a member that has just started would be lost whenever the connection is a millisecond late.

use crate::engine::peer_message::PeerMessage;
use crate::raft::{Body, Entry};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits of one queue. A message that exceeds the byte limit is accepted if the queue is empty.
const MESSAGES_MAX: usize = 4096;
const BULK_BYTES_MAX: usize = 8 << 20;

/// The approximate size of one write. An urgent message waits for at most this many bytes.
const TAKE_BYTES: usize = 256 << 10;

/// How many urgent messages are kept without a connection, and for how long they are worth sending.
const HELD_MAX: usize = 64;
const HELD_FOR: Duration = Duration::from_millis(300);

/// The approximate overhead around the payload of a message.
const MESSAGE_BYTES: usize = 64;

/// Messages that were not sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The numbers of the requests to a leader among them. These requests may be sent again.
    pub unsent: Vec<u64>,
    /// The number of other messages.
    pub others: u64,
}

impl Dropped {
    fn add(&mut self, peer_message: &PeerMessage) {
        match peer_message.question() {
            Some(number) => self.unsent.push(number),
            None => self.others += 1,
        }
    }

    pub fn count(&self) -> u64 {
        self.unsent.len() as u64 + self.others
    }
}

/// The waiting messages, and whether there is a connection for them.
#[derive(Default)]
pub(super) struct PriorityQueues {
    urgent: VecDeque<PeerMessage>,
    bulk: VecDeque<PeerMessage>,
    bulk_bytes: usize,
    /// While there is no connection: the time at which each message of `urgent` was queued.
    held_since: VecDeque<Instant>,
    connected: bool,
    closed: bool,
}

impl PriorityQueues {
    /// Queues a message, or adds it to `dropped`.
    pub fn push(&mut self, peer_message: PeerMessage, dropped: &mut Dropped) {
        if peer_message.is_bulk() {
            self.push_bulk(peer_message, dropped);
        } else if self.closed {
            dropped.add(&peer_message);
        } else if self.connected {
            match self.urgent.len() < MESSAGES_MAX {
                true => self.urgent.push_back(peer_message),
                false => dropped.add(&peer_message),
            }
        } else {
            self.hold(peer_message, dropped);
        }
    }

    fn push_bulk(&mut self, peer_message: PeerMessage, dropped: &mut Dropped) {
        let bytes = weight(&peer_message);
        let has_room = self.bulk.is_empty()
            || (self.bulk.len() < MESSAGES_MAX && self.bulk_bytes + bytes <= BULK_BYTES_MAX);
        if self.connected && has_room {
            self.bulk_bytes += bytes;
            self.bulk.push_back(peer_message);
        } else {
            dropped.add(&peer_message);
        }
    }

    /// Keeps an urgent message without a connection. If there are too many, the oldest one is dropped.
    fn hold(&mut self, peer_message: PeerMessage, dropped: &mut Dropped) {
        if self.urgent.len() == HELD_MAX
            && let (Some(oldest), Some(_)) = (self.urgent.pop_front(), self.held_since.pop_front())
        {
            dropped.add(&oldest);
        }
        self.urgent.push_back(peer_message);
        self.held_since.push_back(Instant::now());
    }

    /// Removes and returns the next message to send.
    fn next(&mut self) -> Option<PeerMessage> {
        self.urgent.pop_front().or_else(|| {
            let peer_message = self.bulk.pop_front()?;
            self.bulk_bytes -= weight(&peer_message);
            Some(peer_message)
        })
    }

    /// Moves the next messages to `into`, about 256 KiB of them.
    pub fn take(&mut self, into: &mut Vec<PeerMessage>) {
        let mut bytes = 0;
        while bytes < TAKE_BYTES
            && let Some(peer_message) = self.next()
        {
            bytes += weight(&peer_message);
            into.push(peer_message);
        }
    }

    /// Marks the queues as connected. Returns the messages that have waited too long for the connection.
    pub fn connect(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        self.connected = true;
        while let Some(since) = self.held_since.pop_front() {
            if since.elapsed() > HELD_FOR
                && let Some(peer_message) = self.urgent.pop_front()
            {
                dropped.add(&peer_message);
            }
        }
        dropped
    }

    /// Marks the connection as lost. Returns all waiting messages as dropped.
    pub fn disconnect(&mut self) -> Dropped {
        self.connected = false;
        self.empty()
    }

    /// Refuses all further messages.
    pub fn close(&mut self) -> Dropped {
        self.closed = true;
        self.disconnect()
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn empty(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        self.held_since.clear();
        while let Some(peer_message) = self.next() {
            dropped.add(&peer_message);
        }
        dropped
    }
}

/// The size of a message for the byte limits.
fn weight(peer_message: &PeerMessage) -> usize {
    let payload = match peer_message {
        PeerMessage::Raft { message, .. } => match &message.body {
            Body::Append { entries, .. } => entries.iter().map(Entry::bytes_in_memory).sum(),
            _ => 0,
        },
        PeerMessage::Forward { commands, .. } => {
            let bytes = |command: &Arc<[u8]>| command.len() + size_of::<Arc<[u8]>>();
            commands.iter().map(bytes).sum()
        }
        PeerMessage::Change { command, .. } => command.len(),
        PeerMessage::AskIndex { .. } | PeerMessage::Reply { .. } => 0,
    };
    MESSAGE_BYTES + payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Term;

    fn forward(number: u64, bytes: usize) -> PeerMessage {
        PeerMessage::Forward {
            number,
            term: Term(1),
            commands: vec![Arc::from(vec![0; bytes])],
        }
    }

    fn ask(number: u64) -> PeerMessage {
        PeerMessage::AskIndex { number }
    }

    fn connected() -> PriorityQueues {
        let mut queues = PriorityQueues::default();
        assert_eq!(queues.connect(), Dropped::default());
        queues
    }

    fn push(
        queues: &mut PriorityQueues,
        messages: impl IntoIterator<Item = PeerMessage>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        for peer_message in messages {
            queues.push(peer_message, &mut dropped);
        }
        dropped
    }

    fn all(queues: &mut PriorityQueues) -> Vec<PeerMessage> {
        std::iter::from_fn(|| queues.next()).collect()
    }

    #[test]
    fn urgent_messages_are_first_and_queues_keep_their_order() {
        let mut queues = connected();
        let messages = [forward(1, 9), ask(2), forward(3, 9), ask(4)];
        assert_eq!(push(&mut queues, messages), Dropped::default());
        let wanted = [ask(2), ask(4), forward(1, 9), forward(3, 9)];
        assert_eq!(all(&mut queues), wanted);
    }

    #[test]
    fn bulk_is_taken_in_pieces() {
        let mut queues = connected();
        push(
            &mut queues,
            (0..10).map(|number| forward(number, 100 << 10)),
        );
        let mut first = Vec::new();
        queues.take(&mut first);
        assert_eq!(first.len(), 3, "300 KiB are about 256");
        push(&mut queues, [ask(99)]);
        assert_eq!(all(&mut queues)[0], ask(99), "it slips between");
    }

    #[test]
    fn queues_are_bounded_by_count_and_bytes() {
        let mut queues = connected();
        let most = MESSAGES_MAX as u64;
        let dropped = push(&mut queues, (0..most + 5).map(|number| forward(number, 1)));
        assert_eq!(dropped.unsent, (most..most + 5).collect::<Vec<u64>>());
        let dropped = push(&mut queues, (0..most + 5).map(ask));
        assert_eq!((dropped.unsent.len(), dropped.others), (5, 0));
        all(&mut queues);
        let dropped = push(&mut queues, (0..9).map(|number| forward(number, 1 << 20)));
        assert_eq!(dropped.unsent, [7, 8], "8 MiB with what stands around them");
        all(&mut queues);
        let dropped = push(&mut queues, [forward(1, 20 << 20), forward(2, 1)]);
        assert_eq!(dropped.unsent, [2], "a larger one goes alone");
    }

    #[test]
    fn without_a_connection_forwards_come_back_and_urgent_messages_wait_a_moment() {
        let mut queues = PriorityQueues::default();
        let dropped = push(&mut queues, [forward(1, 1), ask(2)]);
        assert_eq!((dropped.unsent, dropped.others), (vec![1], 0));
        let dropped = push(&mut queues, (0..HELD_MAX as u64).map(ask));
        assert_eq!(dropped.unsent, [2], "the oldest");
        assert_eq!(queues.connect(), Dropped::default());
        assert_eq!(all(&mut queues).len(), HELD_MAX);
        push(&mut queues, [forward(3, 1), ask(4)]);
        let lost = queues.disconnect();
        assert_eq!((lost.unsent, lost.others), (vec![4, 3], 0));
        queues.close();
        let refused = push(&mut queues, [forward(5, 1), ask(6)]);
        assert_eq!((refused.unsent, refused.others), (vec![5, 6], 0));
    }

    #[test]
    fn messages_older_than_the_connection_are_dropped() {
        let mut queues = PriorityQueues::default();
        push(&mut queues, [ask(1), ask(2)]);
        queues.held_since[0] -= 2 * HELD_FOR;
        assert_eq!(queues.connect().unsent, [1]);
        assert_eq!(all(&mut queues), [ask(2)]);
    }
}
