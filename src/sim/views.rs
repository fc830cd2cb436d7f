//! What a person sees of a run by hand: the members, and the messages on their way.

use super::checks::number_in;
use super::client::Ask;
use super::cluster::{Cluster, Event};
use super::node::Node;
use super::trace::message_text;
use crate::engine::entry::{self, Command};
use crate::engine::peer_message::PeerMessage;
use crate::raft::{Body, ChangeKind, Entry, LogIndex, NodeId, Payload, Position, Role};
use serde::Serialize;

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Its index.
    pub index: u64,
    /// The term in which it was appended.
    pub term: u64,
    /// A short name of its kind.
    pub label: String,
}

/// A member. Of one that does not run, it shows what its disk has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Its number.
    pub id: u64,
    /// Whether its process runs.
    pub up: bool,
    /// Whether the process is paused.
    pub paused: bool,
    /// Whether it will not start again: it was removed, or has lost its data.
    pub retired: bool,
    /// `good`, `slow`, `hung` or `full`.
    pub disk: &'static str,
    /// `follower`, `pre-candidate`, `candidate`, `leader`, `learner` or `down`.
    pub role: &'static str,
    /// The newest term that it has seen.
    pub term: u64,
    /// The member it has voted for in this term.
    pub vote: Option<u64>,
    /// The term and the vote on its disk.
    pub stored_vote: (u64, Option<u64>),
    /// The leader that it follows.
    pub leader: Option<u64>,
    /// Its log after the last snapshot.
    pub log: Vec<EntryView>,
    /// Everything up to here is committed.
    pub commit: u64,
    /// Everything up to here is applied.
    pub applied: u64,
    /// Everything up to here is on its disk.
    pub stored: u64,
    /// The voters in its membership.
    pub voters: Vec<u64>,
    /// The learners in its membership.
    pub learners: Vec<u64>,
    /// The keys that its readers see: the number of the key, and the number of the request that wrote it.
    pub keys: Vec<(u64, u64)>,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageView {
    /// A number that no other message has.
    pub number: u64,
    /// The sender.
    pub from: u64,
    /// The receiver.
    pub to: u64,
    /// When it was sent, in virtual microseconds. If the delay of the link has changed since, this is not exact.
    pub sent: u64,
    /// When it arrives. A message that waits at a paused member has arrived.
    pub arrives: u64,
    /// Its kind, as in the trace records.
    pub what: &'static str,
    /// The whole message as a text.
    pub text: String,
}

impl Cluster {
    /// All members, by number.
    pub fn members(&self) -> Vec<MemberView> {
        self.nodes.values().map(|node| self.member(node)).collect()
    }

    fn member(&self, node: &Node) -> MemberView {
        let mut checks = self.checks.borrow_mut();
        let mirror = checks.mirror(node.id);
        let on_disk = mirror.hard_state;
        let entries: Vec<Position> = (mirror.entries.iter())
            .map(|(index, term)| Position {
                index: *index,
                term: *term,
            })
            .filter(|position| position.index > mirror.snapshot.index)
            .collect();
        let snapshot = mirror.snapshot.index.0;
        let labels = checks.by_hand.as_ref();
        let label = |position: Position| EntryView {
            index: position.index.0,
            term: position.term.0,
            label: (labels.and_then(|labels| labels.get(&position)).cloned()).unwrap_or_default(),
        };
        let stored_vote = (on_disk.term.0, on_disk.vote.map(|vote| vote.0));
        let mut view = MemberView {
            id: node.id.0,
            up: false,
            paused: node.paused_until == u64::MAX,
            retired: node.retired,
            disk: disk(node),
            role: "down",
            term: stored_vote.0,
            vote: stored_vote.1,
            stored_vote,
            leader: None,
            stored: entries.last().map_or(snapshot, |last| last.index.0),
            log: entries.into_iter().map(label).collect(),
            commit: 0,
            applied: 0,
            voters: Vec::new(),
            learners: Vec::new(),
            keys: Vec::new(),
        };
        let Some(life) = &node.life else { return view };
        let engine = &life.engine;
        let membership = engine.membership();
        let last = engine.last_position().index;
        let log = (1..=last.0).filter_map(|index| engine.position_at(LogIndex(index)));
        view.up = true;
        view.role = match engine.role() {
            _ if membership.learners.contains(&node.id) => "learner",
            role => role_name(role),
        };
        view.term = engine.term().0;
        view.vote = engine.hard_state().vote.map(|vote| vote.0);
        view.leader = engine.leader().map(|leader| leader.0);
        view.log = log.map(label).collect();
        view.commit = engine.commit().0;
        view.applied = life.view.applied.0;
        view.stored = engine.stored().0;
        view.voters = membership.voters.iter().map(|id| id.0).collect();
        view.learners = membership.learners.iter().map(|id| id.0).collect();
        let value = |key: u64| {
            let node = life.view.tree.get(&Ask::Read(key).key()).ok()?;
            Some((key, number_in(node.value()?)?))
        };
        view.keys = (0..self.profile.keys).filter_map(value).collect();
        view
    }

    /// Whether everything that readers of this member see is on its disk, and the term that they see too.
    pub fn shows_stored(&self, id: NodeId) -> bool {
        let life = self.nodes.get(&id).and_then(|node| node.life.as_ref());
        let Some(life) = life else { return true };
        let mut checks = self.checks.borrow_mut();
        let mirror = checks.mirror(id);
        let shown = life.view.applied;
        let holds = match life.engine.position_at(shown) {
            Some(position) => mirror.holds(position),
            None => shown <= mirror.snapshot.index,
        };
        holds && life.view.term <= mirror.hard_state.term
    }

    /// All messages on their way, in the order of their arrival.
    pub fn messages(&self) -> Vec<MessageView> {
        let now = self.now;
        let queued = self
            .queue
            .iter()
            .map(|((at, number), event)| (*at, *number, event));
        let held = self.hands.held.iter().zip(1 << 40..);
        let held = held.map(|(event, number)| (now, number, event));
        held.chain(queued)
            .filter_map(|(at, number, event)| self.message(at, number, event))
            .collect()
    }

    fn message(&self, arrives: u64, number: u64, event: &Event) -> Option<MessageView> {
        let (from, to, what, text) = match event {
            Event::PeerMessage {
                from,
                to,
                peer_message,
            } => (*from, *to, kind(peer_message), message_text(peer_message)),
            Event::Stream(stream) => {
                let text = format!(
                    "t{} snapshot at {}",
                    stream.term.0, stream.metadata.position
                );
                (stream.from, stream.to, "snapshot", text)
            }
            _ => return None,
        };
        let takes = self.profile.delay.0 + self.hands.late(from, to);
        Some(MessageView {
            number,
            from: from.0,
            to: to.0,
            sent: arrives.saturating_sub(takes),
            arrives,
            what,
            text,
        })
    }

    /// Links that are cut, in one direction each.
    pub fn cut_links(&self) -> Vec<(u64, u64)> {
        self.cuts.iter().map(|(from, to)| (from.0, to.0)).collect()
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn disk(node: &Node) -> &'static str {
    if node.hung_disk_until > 0 {
        "hung"
    } else if node.slow_disk_until > 0 {
        "slow"
    } else if node.disk.capacity() < u64::MAX {
        "full"
    } else {
        "good"
    }
}

/// The kind of a message, as in the trace records.
fn kind(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Raft { message, .. } => match &message.body {
            Body::PreVote { .. } => "pre-vote",
            Body::PreVoteReply { .. } => "pre-vote-answer",
            Body::Vote { .. } => "vote",
            Body::VoteReply { .. } => "vote-answer",
            Body::Append { .. } => "append",
            Body::Accepted { .. } | Body::Refused { .. } => "append-answer",
            Body::Heartbeat { .. } => "heartbeat",
            Body::HeartbeatReply { .. } => "heartbeat-answer",
            Body::Commit { .. } => "commit",
            Body::CampaignNow => "transfer",
            Body::Blank => "blank",
            Body::Outdated => "outdated",
        },
        PeerMessage::Forward { .. } => "forward",
        PeerMessage::Change { .. } => "forward-change",
        PeerMessage::AskIndex { .. } => "read-index",
        PeerMessage::Reply { .. } => "forward-answer",
    }
}

/// A short name of an entry's kind.
pub(super) fn label(entry: &Entry) -> String {
    match &entry.payload {
        Payload::Noop => "no-op".into(),
        Payload::Change(change) => {
            let sign = match change.kind {
                ChangeKind::AddLearner => "+learner",
                ChangeKind::Promote => "+voter",
                ChangeKind::Remove => "−",
            };
            format!("{sign} n{}", change.node.0)
        }
        Payload::Command(bytes) => match entry::decode(bytes).map(|(_, command)| command) {
            Ok(Command::Tree(command)) => {
                let key = String::from_utf8_lossy(command.key.as_bytes()).into_owned();
                let number = number_in(&command.value).unwrap_or_default();
                format!("{}=#{number}", key.trim_start_matches('/'))
            }
            Ok(Command::Publish(published)) => format!("hello n{}", published.member.id),
            Ok(Command::Expire(_)) => "expire".into(),
            Ok(Command::Time) => "time".into(),
            _ => "other".into(),
        },
    }
}
