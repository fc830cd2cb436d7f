//! Commands that were forwarded to a leader on another member.
//!
//! A command is sent with the term in which the sender expects its leader to lead, and is appended only in that term.
//! So one of these happens:
//!
//! | event | result |
//! |---|---|
//! | this member applies an entry with its tag | the caller gets the outcome |
//! | the leader replies that it did not append it, or it was never sent | it may be sent again |
//! | this member applies an entry of a newer term first | it is in no log, or was lost with its leader: it fails at once |
//! | its deadline passes | it fails, but may be applied later |
//!
//! A command that the leader may have appended is never sent again (hazard D16).

use super::entry;
use super::peer_message::PeerMessage;
use super::request::Proposal;
use super::time::Monotonic;
use crate::raft::Term;
use std::collections::VecDeque;
use std::sync::Arc;

/// A message is complete when it holds this many bytes. A single command may be larger.
const MESSAGE_BYTES: usize = 256 << 10;

/// The kinds of commands. Each has its own kind of peer message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An entry of the log.
    Command,
    /// A membership change.
    Change,
}

/// Forwarded commands that have no outcome yet, by tag. Tags increase.
pub struct Forwards<T> {
    next_tag: u64,
    next_number: u64,
    waiting: VecDeque<Forward<T>>,
    /// How many of `waiting` have no outcome yet.
    open: usize,
    /// How many of these have a caller.
    callers: usize,
}

struct Forward<T> {
    tag: u64,
    /// Number of the peer message that contains it.
    number: u64,
    term: Term,
    kind: Kind,
    deadline: Monotonic,
    /// `None` if it has an outcome. It is removed when it is the oldest.
    open: Option<Open<T>>,
}

struct Open<T> {
    command: Arc<[u8]>,
    caller: Option<T>,
}

impl<T> Forwards<T> {
    /// Tags count up from `first_tag`, which is random at each start. So they differ from the tags of other members and
    /// of earlier starts.
    pub fn new(first_tag: u64) -> Forwards<T> {
        Forwards {
            next_tag: first_tag,
            // Less than the ids of reads, see `reads`.
            next_number: first_tag >> 1,
            waiting: VecDeque::new(),
            open: 0,
            callers: 0,
        }
    }

    /// Prepares messages for proposals, many in one message; each membership change has a message of its own. Proposals
    /// without a deadline get the deadline `latest`.
    pub fn send(
        &mut self,
        kind: Kind,
        writes: Vec<Proposal<T>>,
        term: Term,
        latest: Monotonic,
    ) -> Vec<PeerMessage> {
        let mut messages = Vec::new();
        let (mut commands, mut bytes) = (Vec::new(), 0);
        for write in writes {
            let command = self.note(kind, write, term, latest);
            bytes += command.len();
            commands.push(command);
            if kind == Kind::Change || bytes >= MESSAGE_BYTES {
                messages.push(self.peer_message(kind, term, std::mem::take(&mut commands)));
                bytes = 0;
            }
        }
        if !commands.is_empty() {
            messages.push(self.peer_message(kind, term, commands));
        }
        messages
    }

    /// The message for the commands that were just recorded. The next message gets another number.
    fn peer_message(&mut self, kind: Kind, term: Term, commands: Vec<Arc<[u8]>>) -> PeerMessage {
        let number = self.next_number;
        assert!(
            number < 1 << 63,
            "{number} could be the id of a question of `reads`"
        );
        self.next_number += 1;
        match kind {
            Kind::Command => PeerMessage::Forward {
                number,
                term,
                commands,
            },
            Kind::Change => PeerMessage::Change {
                number,
                term,
                command: commands.concat(),
            },
        }
    }

    fn note(&mut self, kind: Kind, write: Proposal<T>, term: Term, latest: Monotonic) -> Arc<[u8]> {
        let Proposal {
            mut bytes,
            caller,
            deadline,
        } = write;
        let tag = self.next_tag;
        let last = self.waiting.back().map(|last| last.tag);
        assert!(
            last.is_none_or(|last| last.wrapping_add(1) == tag),
            "tag {tag} after {last:?}"
        );
        self.next_tag = self.next_tag.wrapping_add(1);
        entry::put_tag(&mut bytes, tag);
        let command: Arc<[u8]> = Arc::from(bytes);
        self.callers += usize::from(caller.is_some());
        let open = Open {
            command: command.clone(),
            caller,
        };
        self.waiting.push_back(Forward {
            tag,
            number: self.next_number,
            term,
            kind,
            deadline: deadline.unwrap_or(latest),
            open: Some(open),
        });
        self.open += 1;
        command
    }

    /// An entry with this tag is applied. Returns the caller of the command.
    pub fn applied(&mut self, tag: u64) -> Option<T> {
        let first = self.waiting.front()?.tag;
        let at = usize::try_from(tag.wrapping_sub(first)).ok()?;
        let forward = self.waiting.get_mut(at)?;
        assert_eq!(forward.tag, tag, "the tags have no gap");
        let open = forward.open.take()?;
        self.count_settled(1, usize::from(open.caller.is_some()));
        open.caller
    }

    /// The commands of a message that the leader did not accept, unchanged.
    pub fn not_taken(&mut self, number: u64) -> Vec<(Kind, Proposal<T>)> {
        let taken = self.take(|forward| forward.number == number);
        let write = |open: Open<T>, deadline| Proposal {
            bytes: entry::without_tag(&open.command),
            caller: open.caller,
            deadline: Some(deadline),
        };
        taken
            .into_iter()
            .map(|(kind, deadline, open)| (kind, write(open, deadline)))
            .collect()
    }

    /// The callers of a message whose membership change is refused finally.
    pub fn refused(&mut self, number: u64) -> Vec<T> {
        self.callers(|forward| forward.number == number)
    }

    /// An entry of `term` is applied. Commands that were sent in earlier terms and not applied yet never will be.
    /// Returns their callers.
    pub fn outdated(&mut self, term: Term) -> Vec<T> {
        self.callers(|forward| forward.term < term)
    }

    /// The number of the first message of an earlier term ([`super::rules::Rule::SentOnce`]).
    pub fn first_outdated(&self, term: Term) -> Option<u64> {
        let open = self.waiting.iter().filter(|forward| forward.open.is_some());
        open.filter(|forward| forward.term < term)
            .map(|forward| forward.number)
            .next()
    }

    /// The callers whose deadline has passed.
    pub fn expired(&mut self, now: Monotonic) -> Vec<T> {
        match self.open {
            0 => Vec::new(),
            _ => self.callers(|forward| forward.deadline <= now),
        }
    }

    /// All callers, for a failure that concerns all of them.
    pub fn drain(&mut self) -> Vec<T> {
        self.callers(|_| true)
    }

    pub fn len(&self) -> usize {
        self.open
    }

    /// Number of commands that need a reply.
    pub fn caller_count(&self) -> usize {
        self.callers
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    fn callers(&mut self, chosen: impl FnMut(&Forward<T>) -> bool) -> Vec<T> {
        let taken = self.take(chosen);
        taken
            .into_iter()
            .filter_map(|(_, _, open)| open.caller)
            .collect()
    }

    fn take(
        &mut self,
        mut chosen: impl FnMut(&Forward<T>) -> bool,
    ) -> Vec<(Kind, Monotonic, Open<T>)> {
        let mut taken = Vec::new();
        for forward in &mut self.waiting {
            if forward.open.is_some() && chosen(forward) {
                let open = forward.open.take();
                taken.extend(open.map(|open| (forward.kind, forward.deadline, open)));
            }
        }
        let callers = taken.iter().filter(|(_, _, open)| open.caller.is_some());
        let callers = callers.count();
        self.count_settled(taken.len(), callers);
        taken
    }

    fn count_settled(&mut self, settled: usize, callers: usize) {
        assert!(
            settled <= self.open && callers <= self.callers,
            "{settled} of {} forwards, {callers} of {} callers",
            self.open,
            self.callers
        );
        self.open -= settled;
        self.callers -= callers;
        self.drop_settled();
        assert!(
            self.open <= self.waiting.len(),
            "{} of {} forwards are open",
            self.open,
            self.waiting.len()
        );
    }

    fn drop_settled(&mut self) {
        while self
            .waiting
            .front()
            .is_some_and(|forward| forward.open.is_none())
        {
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn write(byte: u8) -> Proposal<()> {
        let mut bytes = entry::time();
        bytes.push(byte);
        Proposal::own(bytes)
    }

    fn commands(peer_message: &PeerMessage) -> (u64, Vec<Arc<[u8]>>) {
        match peer_message {
            PeerMessage::Forward {
                number, commands, ..
            } => (*number, commands.clone()),
            other => panic!("{other:?} is no forward"),
        }
    }

    #[test]
    fn a_command_is_known_by_its_tag_and_settled_once() {
        let (mut forwards, later) = (Forwards::new(u64::MAX), Monotonic(1 << 40));
        let messages = forwards.send(Kind::Command, vec![write(1), write(2)], Term(3), later);
        let (_, commands) = commands(&messages[0]);
        let tags: Vec<u64> = commands
            .iter()
            .filter_map(|command| entry::tag(command))
            .collect();
        assert_eq!(tags, [u64::MAX, 0], "tags count round");
        assert_eq!((forwards.len(), forwards.caller_count()), (2, 0));
        forwards.applied(0);
        forwards.applied(0);
        forwards.applied(77);
        assert_eq!(forwards.len(), 1);
        forwards.applied(u64::MAX);
        assert!(forwards.is_empty() && forwards.waiting.is_empty());
    }

    #[test]
    fn a_letter_ends_when_it_is_large() {
        let (mut forwards, later) = (Forwards::new(7), Monotonic(1 << 40));
        let large = || Proposal::own(vec![1; MESSAGE_BYTES / 2]);
        let writes = vec![large(), large(), large(), write(1)];
        let messages = forwards.send(Kind::Command, writes, Term(3), later);
        let sizes: Vec<usize> = messages
            .iter()
            .map(|peer_message| commands(peer_message).1.len())
            .collect();
        assert_eq!(sizes, [2, 2]);
        assert_eq!(forwards.not_taken(commands(&messages[0]).0).len(), 2);
        assert_eq!(forwards.len(), 2);
    }

    #[test]
    fn what_was_not_taken_comes_back_as_it_was() {
        let (mut forwards, later) = (Forwards::new(7), Monotonic(1 << 40));
        let first = forwards.send(Kind::Command, vec![write(1)], Term(3), later);
        let changes = forwards.send(Kind::Change, vec![write(2), write(3)], Term(3), later);
        assert_eq!(changes.len(), 2, "a change has a peer message of its own");
        let back = forwards.not_taken(commands(&first[0]).0);
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].1.bytes, write(1).bytes);
        assert!(forwards.not_taken(99).is_empty());
        assert_eq!(forwards.len(), 2);
    }

    #[test]
    fn a_newer_term_ends_those_of_the_terms_before() {
        let (mut forwards, now) = (Forwards::new(7), Monotonic(1 << 40));
        forwards.send(Kind::Command, vec![write(1)], Term(3), now);
        let messages = forwards.send(
            Kind::Command,
            vec![write(2)],
            Term(4),
            now + Duration::from_secs(9),
        );
        forwards.outdated(Term(4));
        assert_eq!(forwards.len(), 1);
        forwards.expired(now);
        assert_eq!(forwards.len(), 1);
        assert_eq!(forwards.not_taken(commands(&messages[0]).0).len(), 1);
    }
}
