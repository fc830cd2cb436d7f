//! A process outside of the cluster that sends messages to all members, in its own name or in that of a removed member.
//!
//! A transport would refuse its connection. Here the messages reach the engine, which must ignore them by its own rule
//! (`engine::trust`). The messages are of all kinds. Their numbers are those of the receiver, their neighbours, or
//! extreme; some messages are copies of a member's, or copies with altered bytes.

use super::cluster::{Checked, Cluster, Event, Stream};
use super::fault_profile::{Kind, Scenario};
use super::trace::Happening;
use crate::engine::PeerEvent;
use crate::engine::entry;
use crate::engine::members::MemberError;
use crate::engine::peer_message::{LeaderReply, PeerMessage};
use crate::raft::{
    Body, Entry, HardState, LogIndex, Message, NodeId, Payload, Position, SnapshotMetadata, Term,
};
use crate::tree::{Action, ClusterTime, Command, Key};
use std::sync::Arc;

/// An id that no member has.
const STRANGER: NodeId = NodeId(99);

/// What no stranger may change.
type Look = (HardState, Option<NodeId>, Position, LogIndex, bool);

impl Cluster {
    pub(super) fn begin_strangers(&mut self) {
        if self.profile.stranger_every.1 > 0 {
            self.stranger_again();
        }
    }

    fn stranger_again(&mut self) {
        let wait = self.random.within(self.profile.stranger_every);
        self.after(wait, Event::Stranger);
    }

    /// Sends one message to one member.
    pub(super) fn stranger(&mut self) -> Checked {
        let is_over = self.repaired.is_some();
        if is_over && self.profile.kind != Kind::Scenario(Scenario::Stranger) {
            return Ok(());
        }
        self.stranger_again();
        let up = self.up();
        let Some(to) = self.random.pick(&up) else {
            return Ok(());
        };
        let from = self.name_of_a_stranger(to);
        self.changes_nothing(from, to, |cluster| match cluster.random.below(24) {
            0 => cluster.peers(to, PeerEvent::Removed { by: from }),
            1 => cluster.forged_snapshot(from, to),
            _ => cluster.forged_message(from, to),
        })
    }

    /// In a run by hand, a stranger claims to lead in a newer term.
    pub(super) fn intrude(&mut self, to: NodeId) -> Checked {
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let message = Message {
            term: Term(life.engine.term().0 + 1),
            body: Body::Heartbeat {
                round: 1,
                commit: Position::default(),
            },
        };
        let messages = vec![PeerMessage::Raft {
            message,
            time: ClusterTime(0),
        }];
        let from = STRANGER;
        self.changes_nothing(from, to, |cluster| {
            cluster.peers(to, PeerEvent::Messages { from, messages })
        })
    }

    /// What a stranger does has no effect on the member.
    fn changes_nothing(
        &mut self,
        from: NodeId,
        to: NodeId,
        act: impl FnOnce(&mut Cluster) -> Checked,
    ) -> Checked {
        self.hand_over_requests(to)?;
        let before = self.look_at_member(to);
        act(self)?;
        let after = self.look_at_member(to);
        match before == after || after.is_none() {
            true => Ok(()),
            false => Err(format!(
                "strangers: n{} as {}: {before:?} to {after:?}",
                to.0, from.0
            )),
        }
    }

    /// An id that the receiver knows as removed, or one that was never used.
    fn name_of_a_stranger(&mut self, to: NodeId) -> NodeId {
        let removed = self.life(to).map(|life| {
            let members = &life.engine.state().members;
            // The log of a member that has joined may be behind the table that it found when it joined.
            let in_effect = life.engine.membership();
            let is_removed = |id: &NodeId| members.was_removed(*id) && !in_effect.contains(*id);
            let ids = (1..STRANGER.0).map(NodeId).filter(is_removed);
            // It may still follow a leader that has removed itself.
            ids.filter(|id| life.engine.leader() != Some(*id)).collect()
        });
        let removed: Vec<NodeId> = removed.unwrap_or_default();
        let named = self.random.coin();
        (self.random.pick(&removed).filter(|_| named)).unwrap_or(STRANGER)
    }

    fn look_at_member(&self, id: NodeId) -> Option<Look> {
        let engine = &self.nodes[&id].life.as_ref()?.engine;
        Some((
            engine.hard_state(),
            engine.leader(),
            engine.last_position(),
            engine.commit(),
            engine.is_leader(),
        ))
    }

    fn forged_message(&mut self, from: NodeId, to: NodeId) -> Checked {
        let Some(message) = self.forge(to) else {
            return Ok(());
        };
        let message = self.decoded(&message);
        let Some(message) = message else {
            return Ok(());
        };
        self.note(|_| Happening::Came {
            from,
            to,
            peer_message: Box::new(message.clone()),
        });
        let messages = vec![message];
        self.peers(to, PeerEvent::Messages { from, messages })
    }

    /// A snapshot of the receiver's own state, at another position.
    fn forged_snapshot(&mut self, from: NodeId, to: NodeId) -> Checked {
        let Some(mut forger) = self.forger(to) else {
            return Ok(());
        };
        let position = forger.position();
        let term = Term(forger.number());
        self.random = forger.random;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let membership = life.engine.membership().clone();
        let mut bytes = Vec::new();
        let saved = life.engine.state().save(|slice| {
            bytes.extend_from_slice(slice);
            Ok::<(), ()>(())
        });
        saved.expect("memory takes everything");
        self.streams += 1;
        let stream = Stream {
            from,
            to,
            stream: self.streams,
            term,
            metadata: SnapshotMetadata {
                position,
                membership,
            },
            bytes: Arc::new(bytes),
        };
        self.take_stream(stream)
    }

    /// The bytes of the message as the receiver decodes them, some of them altered. None: a transport would close the
    /// connection.
    fn decoded(&mut self, message: &PeerMessage) -> Option<PeerMessage> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if self.random.one_in(4) {
            let at = self.random.below(bytes.len() as u64) as usize;
            bytes[at] = self.random.next() as u8;
        }
        PeerMessage::decode(&bytes).ok()
    }

    fn forge(&mut self, to: NodeId) -> Option<PeerMessage> {
        if self.random.one_in(4) && self.overheard.is_some() {
            return self.overheard.clone();
        }
        let mut forger = self.forger(to)?;
        let message = forger.message();
        self.random = forger.random;
        Some(message)
    }

    fn forger(&self, to: NodeId) -> Option<Forger> {
        let engine = &self.nodes[&to].life.as_ref()?.engine;
        Some(Forger {
            last: engine.last_position(),
            commit: engine.commit(),
            term: engine.term(),
            random: self.random.clone(),
        })
    }
}

/// Makes messages about the numbers of one member.
struct Forger {
    last: Position,
    commit: LogIndex,
    term: Term,
    random: crate::random::Random,
}

impl Forger {
    fn number(&mut self) -> u64 {
        let bases = [0, self.last.index.0, self.commit.0, self.term.0, 1 << 32];
        let edges = [(1 << 62) - 1, 1 << 62, u64::MAX];
        let edge = self.random.pick(&edges).filter(|_| self.random.one_in(12));
        let base = self.random.pick(&bases).unwrap_or(0);
        edge.unwrap_or_else(|| (base + self.random.below(4)).saturating_sub(1))
    }

    fn position(&mut self) -> Position {
        let other = Position {
            term: Term(self.number()),
            index: LogIndex(self.number()),
        };
        if self.random.coin() { self.last } else { other }
    }

    fn command(&mut self) -> Arc<[u8]> {
        let mut command = Command::new(Action::Set, Key::new(b"/k0"));
        command.value = "0".into();
        match self.random.below(3) {
            0 => entry::remove(NodeId(self.random.below(5))).into(),
            1 => entry::expire().into(),
            _ => entry::tree(&command).into(),
        }
    }

    fn entries(&mut self, previous: Position) -> Vec<Entry> {
        let term = previous.term.max(self.term);
        let mut index = previous.index.0;
        let payloads = (0..self.random.below(4)).map(|_| match self.random.coin() {
            true => Payload::Noop,
            false => Payload::Command(self.command()),
        });
        let payloads: Vec<Payload> = payloads.collect();
        let entry = |payload| {
            index = index.saturating_add(1);
            let index = LogIndex(index);
            let position = Position { term, index };
            Entry { position, payload }
        };
        payloads.into_iter().map(entry).collect()
    }

    fn body(&mut self) -> Body {
        let (granted, last, number) = (self.random.coin(), self.position(), self.number());
        match self.random.below(14) {
            0 => Body::PreVote { last },
            1 => Body::PreVoteReply {
                asked: Term(number),
                granted,
            },
            2 | 3 => Body::Vote {
                last,
                handover: granted,
            },
            4 => Body::VoteReply { granted },
            5 | 6 => Body::Append {
                previous: last,
                entries: self.entries(last),
                commit: LogIndex(number),
            },
            7 => Body::Accepted {
                matched: LogIndex(number),
            },
            8 => Body::Refused {
                previous: LogIndex(number),
                hint: last,
            },
            9 => Body::Heartbeat {
                round: number,
                commit: last,
            },
            10 => Body::HeartbeatReply { round: number },
            11 => Body::Commit { commit: last },
            12 => Body::CampaignNow,
            _ => match granted {
                true => Body::Blank,
                false => Body::Outdated,
            },
        }
    }

    fn message(&mut self) -> PeerMessage {
        let (number, term) = (self.number(), Term(self.number()));
        match self.random.below(12) {
            0 => PeerMessage::Forward {
                number,
                term,
                commands: vec![self.command()],
            },
            1 => PeerMessage::Change {
                number,
                term,
                command: entry::remove(NodeId(self.random.below(5))),
            },
            2 => PeerMessage::AskIndex { number },
            3 => {
                let replies = [
                    LeaderReply::Index(self.last.index),
                    LeaderReply::NotTaken,
                    LeaderReply::Refused(MemberError::NotFound),
                ];
                let reply = self.random.pick(&replies).unwrap_or(LeaderReply::NotTaken);
                PeerMessage::Reply { number, reply }
            }
            _ => PeerMessage::Raft {
                message: Message {
                    term,
                    body: self.body(),
                },
                time: ClusterTime(number),
            },
        }
    }
}
