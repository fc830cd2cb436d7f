//! The network: messages and snapshots on their way, links that lose everything.

use super::{Cluster, Detail, label};
use crate::disk::Snapshot;
use crate::text::message_text;
use edgetcd::engine::entry::FIRST_FORMAT;
use edgetcd::engine::peer_message::PeerMessage;
use edgetcd::engine::{DiskJob, Event, Incoming, PeerEvent};
use edgetcd::raft::{Body, NodeId, Position, Term};

/// A message or a snapshot on its way from one member to another.
#[derive(Clone)]
pub enum Load {
    Message(PeerMessage),
    /// A snapshot that the leader of this term sends.
    Snapshot(Box<Snapshot>, Term),
}

#[derive(Clone)]
pub struct Flight {
    pub from: NodeId,
    pub to: NodeId,
    pub load: Load,
}

fn detail_of_message(message: &PeerMessage) -> Detail {
    match message {
        PeerMessage::Raft { message, .. } => match message.body {
            Body::Heartbeat { .. } | Body::HeartbeatReply { .. } => Detail::Full,
            _ => Detail::Usual,
        },
        _ => Detail::Brief,
    }
}

impl Cluster {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        let text = message_text(&message);
        self.say_sent(detail_of_message(&message), from, to, &text);
        self.launch(from, to, Load::Message(message));
    }

    /// Sends the newest snapshot.
    pub(super) fn send_snapshot(&mut self, from: NodeId, to: NodeId, term: Term) {
        let snapshot = self.disk(from).snapshot.clone();
        let snapshot = snapshot.expect("there is one to send");
        let text = format!("Snapshot at {}", snapshot.metadata.position);
        self.say_sent(Detail::Brief, from, to, &text);
        self.launch(from, to, Load::Snapshot(Box::new(snapshot), term));
    }

    fn say_sent(&mut self, detail: Detail, from: NodeId, to: NodeId, text: &str) {
        let term = self.core(from).term().0;
        let lost = match self.cuts.contains(&(from, to)) {
            true => " (lost)",
            false => "",
        };
        let line = format!("{}@{term} → {} {text}{lost}", label(from), label(to));
        self.say_from(detail, line);
    }

    fn launch(&mut self, from: NodeId, to: NodeId, load: Load) {
        if !self.cuts.contains(&(from, to)) {
            self.flights.push(Flight { from, to, load });
        }
    }

    /// Loses what is at `at` in `flights`. The sender of a snapshot learns that.
    pub fn lose(&mut self, at: usize) {
        let Flight { from, to, load } = self.flights.remove(at);
        if let Load::Snapshot(..) = load {
            self.snapshot_ended(from, to, None);
        }
    }

    /// Delivers what is at `at` in `flights`.
    pub fn deliver(&mut self, at: usize) {
        let Flight { from, to, .. } = self.flights[at];
        if self.cuts.contains(&(from, to)) || !self.members.contains_key(&to) {
            return self.lose(at);
        }
        match self.flights.remove(at).load {
            Load::Message(message) => {
                // The transport admits every member, and reports that first.
                let (member, format) = (from, FIRST_FORMAT);
                let admitted = PeerEvent::Understands { member, format };
                let messages = vec![message];
                let messages = PeerEvent::Messages { from, messages };
                self.step(to, Event::Peers(vec![admitted, messages]));
            }
            Load::Snapshot(snapshot, term) => self.deliver_snapshot(from, to, *snapshot, term),
        }
    }

    fn deliver_snapshot(&mut self, from: NodeId, to: NodeId, snapshot: Snapshot, term: Term) {
        let Some(process) = &mut self.member(to).process else {
            return self.snapshot_ended(from, to, None);
        };
        let is_new = process.incoming.is_none();
        if is_new {
            process.incoming = Some((from, snapshot.clone()));
        }
        let incoming = Incoming {
            from,
            term,
            metadata: snapshot.metadata,
            state: snapshot.state,
            bytes: snapshot.bytes,
        };
        self.step(
            to,
            Event::Peers(vec![PeerEvent::Snapshot(Box::new(incoming))]),
        );
        let jobs = &self.disk(to).jobs;
        let installs = jobs.iter().any(|job| matches!(job, DiskJob::Install(_)));
        if !(is_new && installs) {
            if is_new {
                self.process(to).incoming = None;
            }
            self.say(format!(
                "{} does not use the snapshot of {}",
                label(to),
                label(from)
            ));
            self.snapshot_ended(from, to, None);
        }
    }

    pub(super) fn snapshot_ended(
        &mut self,
        sender: NodeId,
        to: NodeId,
        installed: Option<Position>,
    ) {
        let event = PeerEvent::SnapshotSent { to, installed };
        self.step(sender, Event::Peers(vec![event]));
    }

    /// Cuts all links between these members and the others.
    pub fn split(&mut self, part: &[NodeId]) {
        let others = self.ids().into_iter().filter(|id| !part.contains(id));
        for other in others {
            let both = part.iter().flat_map(|id| [(*id, other), (other, *id)]);
            self.cuts.extend(both);
        }
    }

    /// The requests at `chosen` in `flights` never reached a connection, and their sender learns that.
    pub fn unsent(&mut self, chosen: &[usize]) {
        for at in chosen.iter().rev() {
            let Flight { from, load, .. } = self.flights.remove(*at);
            if let Load::Message(message) = load {
                let number = message.question().into_iter().collect();
                self.step(from, Event::Peers(vec![PeerEvent::Unsent(number)]));
            }
        }
    }
}
