//! Encoding of raft's values, for the log on disk and for the connections between members.
//!
//! All numbers are little-endian and have a fixed width. The decoder trusts nothing. It checks each length against the
//! remaining bytes before it reserves memory. Sets must be strictly ascending, so that a value has only one encoding.
//! Remaining bytes are an error. Every failure is a [`Malformed`]; no input makes a decoder panic.
//!
//! | payload kind | bytes                                                     |
//! |-------------:|-----------------------------------------------------------|
//! |            1 | `Noop`: none                                              |
//! |            2 | `Command`: the given bytes                                |
//! |            3 | `Change`: kind (1), node (8), the context up to the end   |
//!
//! A message consists of its term (8), its kind (1), and the fields of its body in their order. A flag is one byte: 0
//! or 1. In an append, `previous` and `commit` are followed by the number of entries (4), and for each entry its term
//! (8), the payload's kind (1), the payload's length (4), and the payload. Indexes are not sent: the entries follow
//! `previous`. Terms must not decrease from entry to entry, and must not exceed the message's term.
//!
//! A membership consists of the number of voters (4), their ids (8 each), the number of learners (4) and their ids.
//! Snapshot metadata consists of term (8), index (8) and membership.

use super::message::{
    Body, Change, ChangeKind, Entry, LogIndex, Membership, Message, NodeId, Payload, Position,
    SnapshotMetadata, Term,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

const NOOP: u8 = 1;
const COMMAND: u8 = 2;
const CHANGE: u8 = 3;

/// Terms, indexes and rounds are below this limit. No log reaches it, and sums of such numbers cannot overflow.
const NUMBER_LIMIT: u64 = 1 << 62;

/// Input bytes that are not valid; names what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Payload {
    /// The kind byte that is stored together with [`Payload::bytes`] (see the table of the module).
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Noop => NOOP,
            Payload::Command(_) => COMMAND,
            Payload::Change(_) => CHANGE,
        }
    }

    /// Appends the payload's bytes, without its kind, to `out`.
    pub fn bytes(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Noop => {}
            Payload::Command(command) => out.extend_from_slice(command),
            Payload::Change(change) => {
                out.push(change_kind(change.kind));
                put(change.node.0, out);
                out.extend_from_slice(&change.context);
            }
        }
    }

    /// How many bytes [`Payload::bytes`] appends. Memory limits count this number too.
    pub fn len(&self) -> usize {
        match self {
            Payload::Noop => 0,
            Payload::Command(command) => command.len(),
            Payload::Change(change) => 9 + change.context.len(),
        }
    }

    /// Whether [`Payload::bytes`] appends nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes the values of [`Payload::kind`] and [`Payload::bytes`].
    pub fn decode(kind: u8, bytes: &[u8]) -> Result<Payload, Malformed> {
        match kind {
            NOOP if bytes.is_empty() => Ok(Payload::Noop),
            NOOP => Err(Malformed("a no-op has no bytes")),
            COMMAND => Ok(Payload::Command(Arc::from(bytes))),
            CHANGE => decode_change(bytes).map(Payload::Change),
            _ => Err(Malformed("the kind of a payload is 1, 2 or 3")),
        }
    }
}

fn change_kind(kind: ChangeKind) -> u8 {
    match kind {
        ChangeKind::AddLearner => 1,
        ChangeKind::Promote => 2,
        ChangeKind::Remove => 3,
    }
}

fn decode_change(bytes: &[u8]) -> Result<Change, Malformed> {
    let mut cursor = Cursor(bytes);
    let kind = match cursor.u8()? {
        1 => ChangeKind::AddLearner,
        2 => ChangeKind::Promote,
        3 => ChangeKind::Remove,
        _ => return Err(Malformed("the kind of a membership change is 1, 2 or 3")),
    };
    let node = cursor.node()?;
    Ok(Change {
        kind,
        node,
        context: Arc::from(cursor.0),
    })
}

impl Membership {
    /// Appends the membership's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for ids in [&self.voters, &self.learners] {
            let count = u32::try_from(ids.len()).expect("a cluster has fewer than 2^32 members");
            out.extend_from_slice(&count.to_le_bytes());
            ids.iter()
                .for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
        }
    }

    /// Decodes the bytes of [`Membership::encode`]. `bytes` must contain nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Membership, Malformed> {
        let mut cursor = Cursor(bytes);
        let membership = cursor.membership()?;
        cursor.end(membership)
    }
}

impl SnapshotMetadata {
    /// Appends the encoded metadata to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_position(self.position, out);
        self.membership.encode(out);
    }

    /// Decodes the bytes of [`SnapshotMetadata::encode`]. `bytes` must contain nothing else.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotMetadata, Malformed> {
        let mut cursor = Cursor(bytes);
        let metadata = cursor.metadata()?;
        cursor.end(metadata)
    }
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const ACCEPTED: u8 = 6;
const REFUSED: u8 = 7;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_REPLY: u8 = 9;
const COMMIT: u8 = 10;
const CAMPAIGN_NOW: u8 = 11;
const BLANK: u8 = 12;
const OUTDATED: u8 = 13;

fn put(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_position(position: Position, out: &mut Vec<u8>) {
    put(position.term.0, out);
    put(position.index.0, out);
}

impl Message {
    /// Appends the message's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(self.term.0, out);
        out.push(body_kind(&self.body));
        match &self.body {
            Body::PreVote { last } => put_position(*last, out),
            Body::PreVoteReply { asked, granted } => {
                put(asked.0, out);
                out.push(u8::from(*granted));
            }
            Body::Vote { last, handover } => {
                put_position(*last, out);
                out.push(u8::from(*handover));
            }
            Body::VoteReply { granted } => out.push(u8::from(*granted)),
            Body::Append {
                previous,
                entries,
                commit,
            } => {
                put_position(*previous, out);
                put(commit.0, out);
                put_entries(entries, out);
            }
            Body::Accepted { matched } => put(matched.0, out),
            Body::Refused { previous, hint } => {
                put(previous.0, out);
                put_position(*hint, out);
            }
            Body::Heartbeat { round, commit } => {
                put(*round, out);
                put_position(*commit, out);
            }
            Body::HeartbeatReply { round } => put(*round, out),
            Body::Commit { commit } => put_position(*commit, out),
            Body::CampaignNow | Body::Blank | Body::Outdated => {}
        }
    }

    /// Decodes the bytes of [`Message::encode`]. `bytes` must contain nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut cursor = Cursor(bytes);
        let term = cursor.term()?;
        let body = cursor.body(term)?;
        cursor.end(Message { term, body })
    }
}

fn body_kind(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => PRE_VOTE,
        Body::PreVoteReply { .. } => PRE_VOTE_REPLY,
        Body::Vote { .. } => VOTE,
        Body::VoteReply { .. } => VOTE_REPLY,
        Body::Append { .. } => APPEND,
        Body::Accepted { .. } => ACCEPTED,
        Body::Refused { .. } => REFUSED,
        Body::Heartbeat { .. } => HEARTBEAT,
        Body::HeartbeatReply { .. } => HEARTBEAT_REPLY,
        Body::Commit { .. } => COMMIT,
        Body::CampaignNow => CAMPAIGN_NOW,
        Body::Blank => BLANK,
        Body::Outdated => OUTDATED,
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes)
        .expect("an append is far below 4 GiB")
        .to_le_bytes()
}

fn put_entries(entries: &[Entry], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(entries.len()));
    for Entry { position, payload } in entries {
        put(position.term.0, out);
        out.push(payload.kind());
        out.extend_from_slice(&length(payload.len()));
        payload.bytes(out);
    }
}

impl Cursor<'_> {
    fn body(&mut self, term: Term) -> Result<Body, Malformed> {
        Ok(match self.u8()? {
            PRE_VOTE => Body::PreVote {
                last: self.position()?,
            },
            PRE_VOTE_REPLY => Body::PreVoteReply {
                asked: self.term()?,
                granted: self.flag()?,
            },
            VOTE => Body::Vote {
                last: self.position()?,
                handover: self.flag()?,
            },
            VOTE_REPLY => Body::VoteReply {
                granted: self.flag()?,
            },
            APPEND => self.append(term)?,
            ACCEPTED => Body::Accepted {
                matched: self.index()?,
            },
            REFUSED => Body::Refused {
                previous: self.index()?,
                hint: self.position()?,
            },
            HEARTBEAT => Body::Heartbeat {
                round: self.number()?,
                commit: self.position()?,
            },
            HEARTBEAT_REPLY => Body::HeartbeatReply {
                round: self.number()?,
            },
            COMMIT => Body::Commit {
                commit: self.position()?,
            },
            CAMPAIGN_NOW => Body::CampaignNow,
            BLANK => Body::Blank,
            OUTDATED => Body::Outdated,
            _ => return Err(Malformed("the kind of a message is 1 to 13")),
        })
    }

    fn append(&mut self, term: Term) -> Result<Body, Malformed> {
        let (previous, commit) = (self.position()?, self.index()?);
        let mut entries = Vec::new();
        let mut last = previous;
        for _ in 0..self.u32()? {
            let position = Position {
                term: self.term()?,
                index: limited(last.index.0 + 1).map(LogIndex)?,
            };
            if position.term < last.term || position.term > term {
                return Err(Malformed("terms of entries rise, at most to the message's"));
            }
            let (kind, length) = (self.u8()?, self.u32()? as usize);
            entries.push(Entry {
                position,
                payload: Payload::decode(kind, self.take(length)?)?,
            });
            last = position;
        }
        Ok(Body::Append {
            previous,
            entries,
            commit,
        })
    }
}

fn limited(number: u64) -> Result<u64, Malformed> {
    match number < NUMBER_LIMIT {
        true => Ok(number),
        false => Err(Malformed("terms, indexes and rounds are below 2^62")),
    }
}

/// The bytes that are not decoded yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn node(&mut self) -> Result<NodeId, Malformed> {
        match self.u64()? {
            0 => Err(Malformed("a member's id is not 0")),
            id => Ok(NodeId(id)),
        }
    }

    /// A term, an index or a round.
    fn number(&mut self) -> Result<u64, Malformed> {
        self.u64().and_then(limited)
    }

    fn term(&mut self) -> Result<Term, Malformed> {
        self.number().map(Term)
    }

    fn index(&mut self) -> Result<LogIndex, Malformed> {
        self.number().map(LogIndex)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is 0 or 1")),
        }
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position {
            term: self.term()?,
            index: self.index()?,
        })
    }

    fn ids(&mut self) -> Result<BTreeSet<NodeId>, Malformed> {
        let mut ids = BTreeSet::new();
        for _ in 0..self.u32()? {
            let id = self.node()?;
            if ids.last().is_some_and(|last| *last >= id) {
                return Err(Malformed("ids of members are in ascending order"));
            }
            ids.insert(id);
        }
        Ok(ids)
    }

    fn membership(&mut self) -> Result<Membership, Malformed> {
        let membership = Membership {
            voters: self.ids()?,
            learners: self.ids()?,
        };
        if !membership.voters.is_disjoint(&membership.learners) {
            return Err(Malformed("a member is a voter or a learner, not both"));
        }
        Ok(membership)
    }

    fn metadata(&mut self) -> Result<SnapshotMetadata, Malformed> {
        Ok(SnapshotMetadata {
            position: self.position()?,
            membership: self.membership()?,
        })
    }

    /// Returns `value` if no bytes are left.
    fn end<T>(&self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Malformed("bytes are left over"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn metadata() -> SnapshotMetadata {
        SnapshotMetadata {
            position: Position {
                term: Term(7),
                index: LogIndex(NUMBER_LIMIT - 1),
            },
            membership: Membership {
                voters: ids(&[1, 2, u64::MAX]),
                learners: ids(&[9]),
            },
        }
    }

    fn payloads() -> Vec<Payload> {
        let change = |kind, context: &[u8]| {
            Payload::Change(Change {
                kind,
                node: NodeId(5),
                context: Arc::from(context),
            })
        };
        vec![
            Payload::Noop,
            Payload::Command(Arc::from(&b""[..])),
            Payload::Command(Arc::from(&b"set /a"[..])),
            change(ChangeKind::AddLearner, b"http://127.0.0.1:2380"),
            change(ChangeKind::Promote, b""),
            change(ChangeKind::Remove, b"x"),
        ]
    }

    #[test]
    fn payloads_come_back() {
        for payload in payloads() {
            let mut bytes = Vec::new();
            payload.bytes(&mut bytes);
            assert_eq!(bytes.len(), payload.len());
            assert_eq!(Payload::decode(payload.kind(), &bytes), Ok(payload));
        }
    }

    #[test]
    fn metadata_comes_back_and_no_part_of_it_does() {
        let mut bytes = Vec::new();
        metadata().encode(&mut bytes);
        assert_eq!(SnapshotMetadata::decode(&bytes), Ok(metadata()));
        for cut in 0..bytes.len() {
            assert!(
                SnapshotMetadata::decode(&bytes[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        bytes.push(0);
        assert!(SnapshotMetadata::decode(&bytes).is_err());
    }

    fn messages() -> Vec<Message> {
        let at = |term, index| Position {
            term: Term(term),
            index: LogIndex(index),
        };
        let entries = (6..).zip(payloads());
        let entries = entries.map(|(index, payload)| Entry {
            position: at(4, index),
            payload,
        });
        let bodies = [
            Body::PreVote { last: at(3, 9) },
            Body::PreVoteReply {
                asked: Term(5),
                granted: true,
            },
            Body::Vote {
                last: at(3, 9),
                handover: true,
            },
            Body::VoteReply { granted: false },
            Body::Append {
                previous: at(2, 5),
                entries: entries.collect(),
                commit: LogIndex(4),
            },
            Body::Accepted {
                matched: LogIndex(8),
            },
            Body::Refused {
                previous: LogIndex(8),
                hint: at(2, 5),
            },
            Body::Heartbeat {
                round: NUMBER_LIMIT - 1,
                commit: at(3, 9),
            },
            Body::HeartbeatReply { round: 77 },
            Body::Commit { commit: at(3, 9) },
            Body::CampaignNow,
            Body::Blank,
            Body::Outdated,
        ];
        bodies
            .map(|body| Message {
                term: Term(4),
                body,
            })
            .into()
    }

    #[test]
    fn messages_come_back_and_no_part_of_one_does() {
        for message in messages() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes), Ok(message.clone()));
            for cut in 0..bytes.len() {
                assert!(
                    Message::decode(&bytes[..cut]).is_err(),
                    "{message:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn no_changed_byte_makes_decoding_panic() {
        for message in messages() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut odd = bytes.clone();
                    odd[at] ^= flip;
                    if let Ok(other) = Message::decode(&odd) {
                        assert_ne!(other, message, "byte {at} means nothing");
                    }
                }
            }
        }
    }

    /// One message for each field that can contain a number, with `number` in that field.
    fn messages_with(number: u64) -> Vec<Message> {
        let (term, index) = (Term(number), LogIndex(number));
        let none = Position::default();
        let of_term = Position { term, ..none };
        let of_index = Position { index, ..none };
        let append = |previous, commit| Body::Append {
            previous,
            entries: Vec::new(),
            commit,
        };
        let mut bodies = vec![
            Body::PreVoteReply {
                asked: term,
                granted: true,
            },
            append(none, index),
            Body::Accepted { matched: index },
            Body::Refused {
                previous: index,
                hint: none,
            },
            Body::Heartbeat {
                round: number,
                commit: none,
            },
            Body::HeartbeatReply { round: number },
        ];
        for position in [of_term, of_index] {
            bodies.extend([
                Body::PreVote { last: position },
                Body::Vote {
                    last: position,
                    handover: false,
                },
                append(position, LogIndex(0)),
                Body::Refused {
                    previous: LogIndex(0),
                    hint: position,
                },
                Body::Heartbeat {
                    round: 0,
                    commit: position,
                },
                Body::Commit { commit: position },
            ]);
        }
        let with_term = |body| Message {
            term: Term(1),
            body,
        };
        let mut messages: Vec<Message> = bodies.into_iter().map(with_term).collect();
        messages.push(Message {
            term,
            body: Body::Blank,
        });
        messages
    }

    #[test]
    fn numbers_that_later_sums_could_overflow_are_refused() {
        let decoded = |message: &Message| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            Message::decode(&bytes)
        };
        for message in messages_with(NUMBER_LIMIT - 1) {
            assert_eq!(decoded(&message), Ok(message));
        }
        for number in [NUMBER_LIMIT, u64::MAX] {
            for message in messages_with(number) {
                assert!(decoded(&message).is_err(), "{message:?}");
            }
            for (term, index) in [(number, 1), (1, number)] {
                let mut bytes = Vec::new();
                put(term, &mut bytes);
                put(index, &mut bytes);
                Membership::default().encode(&mut bytes);
                assert!(SnapshotMetadata::decode(&bytes).is_err(), "{term}, {index}");
            }
        }
    }

    #[test]
    fn an_append_that_goes_on_beyond_the_last_index_is_refused() {
        let follows = |index: u64| {
            let previous = Position {
                term: Term(1),
                index: LogIndex(index),
            };
            let entry = Entry {
                position: previous,
                payload: Payload::Noop,
            };
            let body = Body::Append {
                previous,
                entries: vec![entry],
                commit: LogIndex(0),
            };
            let mut bytes = Vec::new();
            let term = Term(1);
            Message { term, body }.encode(&mut bytes);
            Message::decode(&bytes).is_ok()
        };
        assert!(follows(NUMBER_LIMIT - 2));
        assert!(!follows(NUMBER_LIMIT - 1));
    }

    #[test]
    fn an_append_whose_terms_fall_is_refused() {
        let entry = |term, index| Entry {
            position: Position {
                term: Term(term),
                index: LogIndex(index),
            },
            payload: Payload::Noop,
        };
        let refused = |entries| {
            let previous = Position {
                term: Term(2),
                index: LogIndex(1),
            };
            let body = Body::Append {
                previous,
                entries,
                commit: LogIndex(0),
            };
            let mut bytes = Vec::new();
            Message {
                term: Term(3),
                body,
            }
            .encode(&mut bytes);
            Message::decode(&bytes).is_err()
        };
        assert!(!refused(vec![entry(2, 2), entry(3, 3)]));
        assert!(refused(vec![entry(3, 2), entry(2, 3)]), "falling");
        assert!(refused(vec![entry(1, 2)]), "before the previous one's");
        assert!(refused(vec![entry(4, 2)]), "after the message's");
    }

    #[test]
    fn odd_bytes_are_refused() {
        assert!(Payload::decode(0, b"").is_err());
        assert!(Payload::decode(NOOP, b"x").is_err());
        assert!(
            Payload::decode(CHANGE, &[1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(),
            "node 0"
        );
        assert!(
            Payload::decode(CHANGE, &[4, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(),
            "kind 4"
        );
        assert!(
            Membership::decode(&[0xff; 8]).is_err(),
            "a count that is not believed"
        );
        let twice = Membership {
            voters: ids(&[3]),
            learners: ids(&[3]),
        };
        let mut bytes = Vec::new();
        twice.encode(&mut bytes);
        assert!(Membership::decode(&bytes).is_err());
    }
}
