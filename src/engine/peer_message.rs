//! Peer messages: what members send each other. These are raft's messages, and a follower's requests to its leader.
//!
//! | byte 0 | message | then |
//! |---:|---|---|
//! | 1 | [`PeerMessage::Raft`] | cluster time (8), the message in raft's encoding |
//! | 2 | [`PeerMessage::Forward`] | number (8), term (8), then for each command: length (4), bytes |
//! | 3 | [`PeerMessage::Change`] | number (8), term (8), the bytes of the command |
//! | 4 | [`PeerMessage::AskIndex`] | number (8) |
//! | 5 | [`PeerMessage::Reply`] | number (8), reply (1), for a read its index (8) |
//!
//! Numbers are little-endian. Any message may be lost, but only raft's messages may be duplicated or arrive late. A
//! forwarded command is handed to a connection once, and is never sent again after that (hazard D16).

use super::entry;
use super::members::MemberError;
use crate::raft::{Body, Entry, LogIndex, Malformed, Message, Term};
use crate::tree::{ClusterTime, Stamp, WallTime};
use std::sync::Arc;

/// One peer message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// A message of raft.
    Raft {
        /// May be of any term; raft checks it.
        message: Message,
        /// The sender's cluster time if it leads, so that every member knows the time between entries; otherwise 0.
        time: ClusterTime,
    },
    /// Asks the leader to append these commands if it leads in this term. The leader replies only if it did not append
    /// them ([`LeaderReply::NotTaken`]). Otherwise the sender recognises its commands when it applies them.
    Forward {
        /// A number that the sender chooses for this message.
        number: u64,
        /// The term in which the sender expects the receiver to lead.
        term: Term,
        /// Commands in the encoding of [`super::entry`], with their tags and without a stamp.
        commands: Vec<Arc<[u8]>>,
    },
    /// Asks the leader to change the membership if it leads in this term. The leader replies if it did not.
    Change {
        /// A number that the sender chooses for this message.
        number: u64,
        /// As in [`PeerMessage::Forward`].
        term: Term,
        /// A membership command in the encoding of [`super::entry`].
        command: Vec<u8>,
    },
    /// Asks for the index from which a read is linearizable. Always answered.
    AskIndex {
        /// A number that the sender chooses and never uses again.
        number: u64,
    },
    /// The outcome of the message with this number.
    Reply {
        /// The number in the request.
        number: u64,
        /// The leader's answer.
        reply: LeaderReply,
    },
}

/// A leader's answer to another member's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderReply {
    /// Reads are linearizable when this index is applied.
    Index(LogIndex),
    /// The leader did nothing. The sender may ask again, here or elsewhere.
    NotTaken,
    /// The membership change is refused finally.
    Refused(MemberError),
}

const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const CHANGE: u8 = 3;
const ASK_INDEX: u8 = 4;
const REPLY: u8 = 5;

const INDEX: u8 = 1;
const NOT_TAKEN: u8 = 2;
/// A refusal is encoded as this plus the error's own code.
const REFUSED: u8 = 16;

impl PeerMessage {
    /// Whether this message must stay in order with the entries; all others may overtake them ([`Message::is_bulk`]).
    pub fn is_bulk(&self) -> bool {
        match self {
            PeerMessage::Raft { message, .. } => message.is_bulk(),
            PeerMessage::Forward { .. } => true,
            PeerMessage::Change { .. }
            | PeerMessage::AskIndex { .. }
            | PeerMessage::Reply { .. } => false,
        }
    }

    /// The number of a request to a leader. If it never reached a connection, it may be sent again.
    pub fn question(&self) -> Option<u64> {
        match self {
            PeerMessage::Forward { number, .. }
            | PeerMessage::Change { number, .. }
            | PeerMessage::AskIndex { number } => Some(*number),
            PeerMessage::Raft { .. } | PeerMessage::Reply { .. } => None,
        }
    }

    /// Appends the encoded message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            PeerMessage::Raft { message, time } => {
                begin(RAFT, time.0, out);
                message.encode(out);
            }
            PeerMessage::Forward {
                number,
                term,
                commands,
            } => {
                begin(FORWARD, *number, out);
                out.extend_from_slice(&term.0.to_le_bytes());
                for command in commands {
                    let length =
                        u32::try_from(command.len()).expect("a command is far below 4 GiB");
                    out.extend_from_slice(&length.to_le_bytes());
                    out.extend_from_slice(command);
                }
            }
            PeerMessage::Change {
                number,
                term,
                command,
            } => {
                begin(CHANGE, *number, out);
                out.extend_from_slice(&term.0.to_le_bytes());
                out.extend_from_slice(command);
            }
            PeerMessage::AskIndex { number } => begin(ASK_INDEX, *number, out),
            PeerMessage::Reply { number, reply } => {
                begin(REPLY, *number, out);
                reply.encode(out);
            }
        }
    }

    /// Decodes a message. It must use all of the bytes.
    ///
    /// # Errors
    /// [`Malformed`] describes what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<PeerMessage, Malformed> {
        let (&kind, rest) = bytes.split_first().ok_or(EARLY)?;
        let (number, rest) = number(rest)?;
        Ok(match kind {
            RAFT => raft(Message::decode(rest)?, ClusterTime(number))?,
            FORWARD => {
                let (term, rest) = term(rest)?;
                let commands = commands(rest)?;
                PeerMessage::Forward {
                    number,
                    term,
                    commands,
                }
            }
            CHANGE => {
                let (term, command) = term(rest)?;
                let command = command.to_vec();
                PeerMessage::Change {
                    number,
                    term,
                    command,
                }
            }
            ASK_INDEX if rest.is_empty() => PeerMessage::AskIndex { number },
            REPLY => PeerMessage::Reply {
                number,
                reply: LeaderReply::decode(rest)?,
            },
            _ => return Err(Malformed("the kind of a peer message is 1 to 5")),
        })
    }
}

/// Refuses entries that could not be applied before they are stored.
fn raft(message: Message, time: ClusterTime) -> Result<PeerMessage, Malformed> {
    let at = Stamp {
        cluster: time,
        wall: WallTime(0),
    };
    entry::check_time(at).map_err(|_| Malformed("a time that no cluster has"))?;
    if let Body::Append { entries, .. } = &message.body {
        let check = |found: &Entry| entry::check(&found.payload);
        entries.iter().try_for_each(check).map_err(|_| UNREADABLE)?;
    }
    Ok(PeerMessage::Raft { message, time })
}

const UNREADABLE: Malformed =
    Malformed("an entry cannot be read: it is of a newer version, or of no member");

impl LeaderReply {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            LeaderReply::Index(index) => begin(INDEX, index.0, out),
            LeaderReply::NotTaken => out.push(NOT_TAKEN),
            LeaderReply::Refused(error) => out.push(REFUSED + error.code()),
        }
    }

    fn decode(bytes: &[u8]) -> Result<LeaderReply, Malformed> {
        match bytes {
            [INDEX, index @ ..] => match number(index)? {
                (index, []) => Ok(LeaderReply::Index(LogIndex(index))),
                _ => Err(LATE),
            },
            [NOT_TAKEN] => Ok(LeaderReply::NotTaken),
            [code] => code
                .checked_sub(REFUSED)
                .and_then(MemberError::from_code)
                .map(LeaderReply::Refused)
                .ok_or(Malformed("no reply has this code")),
            _ => Err(LATE),
        }
    }
}

const EARLY: Malformed = Malformed("it ends too early");
const LATE: Malformed = Malformed("bytes are left over");

fn begin(kind: u8, number: u64, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&number.to_le_bytes());
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk().ok_or(EARLY)?;
    Ok((u64::from_le_bytes(*head), rest))
}

fn term(bytes: &[u8]) -> Result<(Term, &[u8]), Malformed> {
    number(bytes).map(|(term, rest)| (Term(term), rest))
}

fn commands(mut bytes: &[u8]) -> Result<Vec<Arc<[u8]>>, Malformed> {
    let mut commands = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let (command, rest) = rest.split_at_checked(length).ok_or(EARLY)?;
        commands.push(Arc::from(command));
        bytes = rest;
    }
    match bytes {
        [] => Ok(commands),
        _ => Err(EARLY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Change, ChangeKind, NodeId, Payload, Position};

    fn messages() -> Vec<PeerMessage> {
        let message = Message {
            term: Term(7),
            body: Body::HeartbeatReply { round: 9 },
        };
        let replies = [
            LeaderReply::Index(LogIndex(u64::MAX)),
            LeaderReply::NotTaken,
            LeaderReply::Refused(MemberError::UrlExists),
        ];
        let reply = |reply| PeerMessage::Reply { number: 3, reply };
        let mut messages = vec![
            PeerMessage::Raft {
                message,
                time: ClusterTime(5),
            },
            PeerMessage::Forward {
                number: 1,
                term: Term(2),
                commands: [&[1, 2, 3][..], &[], &[4]].map(Arc::from).to_vec(),
            },
            PeerMessage::Change {
                number: 1,
                term: Term(2),
                command: vec![9; 40],
            },
            PeerMessage::AskIndex { number: 8 },
        ];
        messages.extend(replies.map(reply));
        messages
    }

    #[test]
    fn messages_come_back() {
        for peer_message in messages() {
            let mut bytes = Vec::new();
            peer_message.encode(&mut bytes);
            assert_eq!(PeerMessage::decode(&bytes), Ok(peer_message));
        }
    }

    fn append(payload: Payload) -> PeerMessage {
        let position = Position {
            term: Term(1),
            index: LogIndex(1),
        };
        PeerMessage::Raft {
            message: Message {
                term: Term(1),
                body: Body::Append {
                    previous: Position::default(),
                    entries: vec![Entry { position, payload }],
                    commit: LogIndex(1),
                },
            },
            time: ClusterTime(5),
        }
    }

    fn change(kind: ChangeKind, node: u64, context: Vec<u8>) -> Payload {
        Payload::Change(Change {
            kind,
            node: NodeId(node),
            context: context.into(),
        })
    }

    /// A committed entry that cannot be decoded would end every member that applies it.
    #[test]
    fn an_entry_that_cannot_be_applied_is_no_message() {
        let mut late = entry::time();
        late[8] = 0xff;
        let sound = entry::expire();
        let table = [
            (Payload::Noop, true),
            (Payload::Command(sound.clone().into()), true),
            (Payload::Command(Arc::from([])), false),
            (Payload::Command(Arc::from(&b"\xffgarbage"[..])), false),
            (Payload::Command(sound[..16].into()), false),
            (Payload::Command(Arc::from([1; 40])), false),
            (Payload::Command(late.into()), false),
            (Payload::Command(entry::remove(NodeId(3)).into()), false),
            (change(ChangeKind::Promote, 3, vec![]), true),
            (
                change(ChangeKind::Remove, 3, entry::remove(NodeId(3))),
                true,
            ),
            (
                change(ChangeKind::Remove, 4, entry::remove(NodeId(3))),
                false,
            ),
            (
                change(ChangeKind::AddLearner, 3, entry::remove(NodeId(3))),
                false,
            ),
            (change(ChangeKind::Remove, 3, vec![]), false),
        ];
        for (payload, is_sound) in table {
            let mut bytes = Vec::new();
            append(payload.clone()).encode(&mut bytes);
            assert_eq!(PeerMessage::decode(&bytes).is_ok(), is_sound, "{payload:?}");
        }
    }

    #[test]
    fn a_time_that_no_cluster_has_is_no_message() {
        let PeerMessage::Raft { message, .. } = append(Payload::Noop) else {
            unreachable!("as it was made")
        };
        let time = ClusterTime(u64::MAX);
        let mut bytes = Vec::new();
        PeerMessage::Raft { message, time }.encode(&mut bytes);
        assert!(PeerMessage::decode(&bytes).is_err());
    }

    #[test]
    fn a_letter_cut_short_is_another_one_or_none() {
        for peer_message in messages() {
            let mut bytes = Vec::new();
            peer_message.encode(&mut bytes);
            for end in 0..bytes.len() {
                assert_ne!(
                    PeerMessage::decode(&bytes[..end]).as_ref(),
                    Ok(&peer_message)
                );
            }
        }
        assert!(PeerMessage::decode(&[]).is_err());
        assert!(PeerMessage::decode(&[99; 20]).is_err());
    }
}
