//! Peer messages from other members, and the replies to their requests.

use super::forwards::Kind;
use super::peer_message::{LeaderReply, PeerMessage};
use super::request::Request;
use super::requests::Unchanged;
use super::rules::{Rule, Rules};
use super::time::Estimate;
use super::trace::{ForwardStep, Trace};
use super::{Engine, Note, PeerEvent, entry};
use crate::raft::{Envelope, Input, Message, NodeId, Term};
use crate::tree::ClusterTime;
use std::sync::Arc;

impl<T, R: Rules> Engine<T, R> {
    pub(super) fn take_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Messages { from, messages } => {
                for peer_message in messages {
                    self.take_message(from, peer_message);
                }
            }
            PeerEvent::Unsent(numbers) => {
                for number in numbers {
                    self.not_taken(number);
                }
            }
            PeerEvent::Unreachable(node) => {
                self.record_link(node, false);
                self.followers.failed(node);
                self.pauses.restarted(node, self.now.monotonic);
                self.input(Input::Unreachable { node });
                if self.core.leader() == Some(node) {
                    self.ask_again();
                }
            }
            PeerEvent::Gone(leader) => {
                self.record_link(leader, false);
                self.input(Input::LeaderGone { leader });
            }
            PeerEvent::Snapshot(incoming) => self.snapshot_received(incoming),
            PeerEvent::SnapshotSent { to, installed } => {
                self.snapshot_sent(to, installed);
            }
            PeerEvent::SnapshotUnreadable => self.has_snapshot = false,
            PeerEvent::Removed { by } => self.is_told_removed(by),
            PeerEvent::Understands { member, format } => {
                self.record_link(member, true);
                self.formats.insert(member, format);
            }
        }
    }

    fn take_message(&mut self, from: NodeId, peer_message: PeerMessage) {
        if !self.may_send(from, &peer_message) {
            return;
        }
        self.record_received(from, &peer_message);
        match peer_message {
            PeerMessage::Raft { message, time } => self.take_raft_message(from, message, time),
            PeerMessage::Forward {
                number,
                term,
                commands,
            } => self.take_forward(from, number, term, commands),
            PeerMessage::Change {
                number,
                term,
                command,
            } => self.take_change(from, number, term, &command),
            PeerMessage::AskIndex { number } => {
                let id = self.reads.fresh_id();
                self.asked.note(id, from, number);
                self.input(Input::ReadIndex { id });
            }
            PeerMessage::Reply { number, reply } => self.take_reply(number, reply),
        }
    }

    fn take_raft_message(&mut self, from: NodeId, message: Message, time: ClusterTime) {
        let trip = self
            .followers
            .received(from, &message.body, self.now.monotonic);
        if let Some(took) = trip {
            self.effects.round_trips.push((from, took));
        }
        let term = message.term;
        self.input(Input::Message { from, message });
        let core = &self.core;
        let from_leader = core.leader() == Some(from) && core.term() == term;
        let is_news = (term, time) > self.time_heard || !self.rules.keeps(Rule::TimeHeardGrows);
        if from_leader && is_news {
            self.time_heard = (term, time);
            let time = time.max(self.state.time);
            self.estimate = Estimate::new(time, self.now.monotonic);
        }
    }

    /// A follower's commands: appended in the term that they name, or refused.
    fn take_forward(&mut self, from: NodeId, number: u64, term: Term, commands: Vec<Arc<[u8]>>) {
        if !commands
            .iter()
            .all(|command| self.may_forward(from, command))
        {
            self.note(Note::BadForward { from });
            return;
        }
        let admitted = commands
            .iter()
            .all(|command| self.admits(command) && self.is_understood(command));
        let taken = admitted
            && self.refusal(commands.len()).is_none()
            && self.append_forward(term, commands);
        if !taken || !self.rules.keeps(Rule::NotTakenMeansNotAppended) {
            self.reply_to_member(from, number, LeaderReply::NotTaken);
        }
    }

    /// Whether another member may have this command appended. The command must be valid when it is applied. A member
    /// may publish only its own data. Its incarnation is published once: another incarnation belongs to a process that
    /// has lost the data.
    fn may_forward(&self, from: NodeId, command: &[u8]) -> bool {
        use entry::Command;
        match entry::decode(command) {
            Ok((_, Command::Tree(_) | Command::Auth(_))) => true,
            Ok((_, Command::Publish(published))) => {
                let known = self.state.members.incarnation(from);
                let is_lost = known.is_some_and(|known| known != published.incarnation);
                let notices = self.rules.keeps(Rule::LostDataIsNoticed);
                published.member.id == from.0 && !(is_lost && notices)
            }
            // Only a leader makes these, or they are changes of the membership.
            Ok((
                _,
                Command::Expire(_)
                | Command::Time
                | Command::Update(_)
                | Command::Add(_)
                | Command::Remove(_)
                | Command::NextFormat,
            ))
            | Err(_) => false,
        }
    }

    fn append_forward(&mut self, term: Term, commands: Vec<Arc<[u8]>>) -> bool {
        let stamp = self.stamp();
        let stamped = commands.into_iter().map(|mut command| {
            entry::stamp(Arc::make_mut(&mut command), stamp);
            command
        });
        let commands: Vec<Arc<[u8]>> = stamped.collect();
        let (term, count) = (Some(term), commands.len());
        let (accepted, _) = self.input(Input::Propose { term, commands });
        if let Some(first) = accepted {
            self.check_appended(first, count);
        }
        accepted.is_some()
    }

    fn take_change(&mut self, from: NodeId, number: u64, term: Term, command: &[u8]) {
        let reply = match self.refusal(0) {
            None if term == self.core.term() => self.change(command),
            _ => Err(Unchanged::NotTaken),
        };
        match reply {
            Ok(_) => {}
            Err(Unchanged::NotTaken) => self.reply_to_member(from, number, LeaderReply::NotTaken),
            Err(Unchanged::Refused(error)) => {
                self.reply_to_member(from, number, LeaderReply::Refused(error));
            }
        }
    }

    fn take_reply(&mut self, number: u64, reply: LeaderReply) {
        match reply {
            LeaderReply::Index(index) => {
                self.record(Trace::Read { index: Some(index) });
                self.index_is_known(number, index);
            }
            LeaderReply::Refused(error) => {
                let callers = self.forwards.refused(number);
                self.record_forward(ForwardStep::Failed, None, callers.len());
                self.tell_refused(error, callers);
            }
            LeaderReply::NotTaken => self.not_taken(number),
        }
    }

    /// The commands in this message wait again until there is a leader that accepts them.
    pub(super) fn not_taken(&mut self, number: u64) {
        let again = self.forwards.not_taken(number);
        self.record_forward(ForwardStep::Again, None, again.len());
        for (kind, proposal) in again {
            self.try_again(match kind {
                Kind::Command => Request::Propose(proposal),
                Kind::Change => Request::Change(proposal),
            });
        }
        self.reads_not_taken(&[number]);
    }

    pub(super) fn reply_to_member(&mut self, to: NodeId, number: u64, reply: LeaderReply) {
        self.effects
            .send
            .push((to, PeerMessage::Reply { number, reply }));
    }

    /// Converts raft's messages to peer messages. Those of a leader contain the cluster time.
    pub(super) fn messages(
        &mut self,
        envelopes: Vec<Envelope>,
    ) -> impl Iterator<Item = (NodeId, PeerMessage)> + use<T, R> {
        let leads = self.core.is_leader();
        let time = match leads {
            true => self.cluster_time(),
            false => ClusterTime(0),
        };
        let now = self.now.monotonic;
        for Envelope { to, message } in envelopes.iter().filter(|_| leads) {
            self.followers.sent(*to, &message.body, now);
        }
        let peer_message =
            move |Envelope { to, message }| (to, PeerMessage::Raft { message, time });
        envelopes.into_iter().map(peer_message)
    }
}
