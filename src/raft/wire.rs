//! Raft's values as bytes, for the log on disk and for the link between members.
//!
//! All numbers are little-endian and of fixed width. Decoding trusts nothing: a length is checked
//! against what is there before anything is reserved, sets must be strictly ascending (so a value
//! has one encoding only), and bytes left over are an error. What fails is [`Malformed`]; no bytes
//! make a decoder panic.
//!
//! | payload kind | bytes                                                     |
//! |-------------:|-----------------------------------------------------------|
//! |            1 | `Noop`: none                                              |
//! |            2 | `Command`: as given                                       |
//! |            3 | `Change`: kind (1), node (8), the context up to the end   |
//!
//! A membership is the number of voters (4), their ids (8 each), the number of learners (4) and
//! theirs. A snapshot's mark is term (8), index (8), membership.

use super::message::{
    Change, ChangeKind, LogIndex, Membership, NodeId, Payload, Position, SnapshotMark, Term,
};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

const NOOP: u8 = 1;
const COMMAND: u8 = 2;
const CHANGE: u8 = 3;

/// Bytes that are not what they should be; says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Payload {
    /// The kind byte that goes beside [`Payload::bytes`] (see the module's table).
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
                out.extend_from_slice(&change.node.0.to_le_bytes());
                out.extend_from_slice(&change.context);
            }
        }
    }

    /// How many bytes [`Payload::bytes`] appends. This is also what limits of memory count.
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

    /// Reads back what [`Payload::kind`] and [`Payload::bytes`] gave.
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

    /// Reads back what [`Membership::encode`] gave; `bytes` must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Membership, Malformed> {
        let mut cursor = Cursor(bytes);
        let membership = cursor.membership()?;
        cursor.end(membership)
    }
}

impl SnapshotMark {
    /// Appends the mark's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.term.0.to_le_bytes());
        out.extend_from_slice(&self.position.index.0.to_le_bytes());
        self.membership.encode(out);
    }

    /// Reads back what [`SnapshotMark::encode`] gave; `bytes` must hold nothing else.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotMark, Malformed> {
        let mut cursor = Cursor(bytes);
        let mark = cursor.mark()?;
        cursor.end(mark)
    }
}

/// What is left to read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
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

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Malformed> {
        match self.u64()? {
            0 => Err(Malformed("a member's id is not 0")),
            id => Ok(NodeId(id)),
        }
    }

    pub(super) fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position {
            term: Term(self.u64()?),
            index: LogIndex(self.u64()?),
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

    pub(super) fn mark(&mut self) -> Result<SnapshotMark, Malformed> {
        Ok(SnapshotMark {
            position: self.position()?,
            membership: self.membership()?,
        })
    }

    /// `value`, if nothing is left.
    pub(super) fn end<T>(&self, value: T) -> Result<T, Malformed> {
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

    fn mark() -> SnapshotMark {
        SnapshotMark {
            position: Position {
                term: Term(7),
                index: LogIndex(u64::MAX),
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
    fn marks_come_back_and_no_part_of_one_does() {
        let mut bytes = Vec::new();
        mark().encode(&mut bytes);
        assert_eq!(SnapshotMark::decode(&bytes), Ok(mark()));
        for cut in 0..bytes.len() {
            assert!(SnapshotMark::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        assert!(SnapshotMark::decode(&bytes).is_err());
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
