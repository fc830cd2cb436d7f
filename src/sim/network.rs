//! The links between members. They lose and delay peer messages, and duplicate those of raft.
//!
//! A request to a leader (commands, changes, indexes of reads) is handed to a connection once, so it never arrives twice.
//! If it is lost, its sender gets the report that it was never sent, or no report.

use super::cluster::{Checked, Cluster, Event};
use super::identity::Link;
use super::trace::Happening;
use crate::engine::peer_message::{LeaderReply, PeerMessage};
use crate::engine::rules::Rule;
use crate::engine::{self, PeerEvent, entry};
use crate::raft::{NodeId, Term};
use crate::storage::clock::Clock;
use crate::tree::ClusterTime;

impl Cluster {
    /// Sends a peer message that does not depend on the disk.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, peer_message: PeerMessage) -> Checked {
        if let PeerMessage::Raft { message, time } = &peer_message {
            self.time_goes_on(from, message.term, *time)?;
            let Some(life) = self.nodes[&from].life.as_ref() else {
                return Ok(());
            };
            let engine = &life.engine;
            let mut checks = self.checks.borrow_mut();
            checks.promise_is_stored(from, to, message, engine.term(), |index| {
                engine.position_at(index)
            });
            checks.result()?;
        }
        self.note_forward(from, &peer_message)?;
        self.send_stored(from, to, peer_message);
        Ok(())
    }

    /// Checks that the cluster time in a leader's messages advances with its clock.
    fn time_goes_on(&mut self, from: NodeId, term: Term, time: ClusterTime) -> Checked {
        let now = self.nodes[&from].now(self.now).monotonic;
        let Some(life) = self.life(from).filter(|_| time > ClusterTime(0)) else {
            return Ok(());
        };
        let told = life.told.replace((term, time, now));
        match told.filter(|(before, ..)| *before == term) {
            Some((_, told, then)) if time.0 < told.0 + (now.0 - then.0) => Err(format!(
                "time: n{} leads in {term:?} and sends {}, {:?} after {}",
                from.0,
                time.0,
                now - then,
                told.0
            )),
            _ => Ok(()),
        }
    }

    /// Sends a peer message whose promise is checked.
    pub(super) fn send_stored(&mut self, from: NodeId, to: NodeId, peer_message: PeerMessage) {
        let lost = self.loses(from, to) || self.hands.loses_next(from, to);
        if let PeerMessage::Raft { message, .. } = &peer_message {
            self.scenario.count(to, &message.body);
        }
        if self.profile.stranger_every.1 > 0 && self.events.is_multiple_of(8) {
            self.overheard = Some(peer_message.clone());
        }
        self.note(|_| Happening::Sent {
            from,
            to,
            peer_message: Box::new(peer_message.clone()),
            lost,
        });
        let question = peer_message.question();
        let unsent = match lost {
            true => self.random.one_in(2),
            false => self.is_without(Rule::UnsentMeansNotSent) && self.random.one_in(20),
        };
        if let Some(number) = question.filter(|_| unsent) {
            let wait = self.delay();
            let event = Box::new(PeerEvent::Unsent(vec![number]));
            self.after(wait, Event::Peers { node: from, event });
        }
        if lost {
            return;
        }
        let late = self.by_hand_on(from, to, &peer_message);
        let twice = matches!(peer_message, PeerMessage::Raft { .. })
            && self.repaired.is_none()
            && self.random.one_in(self.profile.double_one_in);
        if twice {
            let (delay, peer_message) = (2 * self.delay(), Box::new(peer_message.clone()));
            self.after(
                delay,
                Event::PeerMessage {
                    from,
                    to,
                    peer_message,
                },
            );
        }
        let (delay, peer_message) = (self.delay() + late, Box::new(peer_message));
        self.after(
            delay,
            Event::PeerMessage {
                from,
                to,
                peer_message,
            },
        );
    }

    /// Delivers a peer message.
    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        peer_message: PeerMessage,
    ) -> Checked {
        match self.link(from, to) {
            Link::Closed => return Ok(()),
            Link::Removed if self.profile.removed_stop => return self.turn_away(from, to),
            Link::Newcomer => self.introduce(from, to)?,
            Link::Open | Link::Removed => {}
        }
        self.note(|_| Happening::Came {
            from,
            to,
            peer_message: Box::new(peer_message.clone()),
        });
        let heard = match &peer_message {
            PeerMessage::Raft { message, time } => Some((message.term, *time)),
            PeerMessage::Reply {
                number,
                reply: LeaderReply::NotTaken | LeaderReply::Refused(_),
            } => {
                if let Some(life) = self.life(to) {
                    life.not_taken(*number);
                }
                None
            }
            _ => None,
        };
        let messages = vec![peer_message];
        self.peers(to, PeerEvent::Messages { from, messages })?;
        heard.map_or(Ok(()), |heard| self.look_at_time(from, to, heard))
    }

    /// Checks that a member's estimate of cluster time is not before the time that its leader has sent.
    fn look_at_time(&mut self, from: NodeId, to: NodeId, heard: (Term, ClusterTime)) -> Checked {
        let now = self.nodes[&to].machine.at(self.now).now().monotonic;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let engine = &life.engine;
        if engine.leader() != Some(from) || engine.term() != heard.0 {
            return Ok(());
        }
        life.time_heard = life.time_heard.max(heard);
        let (estimate, latest) = (engine.estimate().at(now), life.time_heard.1);
        match estimate < latest {
            true => Err(format!(
                "time: n{} estimates {}, and has received {}",
                to.0, estimate.0, latest.0
            )),
            false => Ok(()),
        }
    }

    /// The transport of `to` reports that it has admitted `from`.
    pub(super) fn introduce(&mut self, member: NodeId, to: NodeId) -> Checked {
        let format = entry::FORMAT;
        self.peers(to, PeerEvent::Understands { member, format })
    }

    /// Refuses a removed member and reports the reason to it.
    fn turn_away(&mut self, removed: NodeId, by: NodeId) -> Checked {
        if !self.loses(by, removed) {
            let wait = self.delay();
            let event = Box::new(PeerEvent::Removed { by });
            let node = removed;
            self.after(wait, Event::Peers { node, event });
        }
        Ok(())
    }

    /// The transport of a node reports an event to the engine.
    pub(super) fn peers(&mut self, id: NodeId, event: PeerEvent) -> Checked {
        if let (PeerEvent::Unsent(numbers), Some(life)) = (&event, self.life(id)) {
            numbers.iter().for_each(|number| life.not_taken(*number));
        }
        self.step_engine(id, engine::Event::Peers(vec![event]))
    }
}
