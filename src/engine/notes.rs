//! What happens in raft and among the members, told to the log.
//!
//! The core is a pure value and says nothing. So after each step this looks at what became different: the
//! term, the vote, the role, the leader. Each such event is one line at `info`, with its values; what only
//! explains why nothing happened (a vote refused) is `debug`. Members are told of when their entry is
//! applied; those that a restart applies again were told of before, and are `debug`, too.

use super::super::entry::{self, Order};
use super::RaftThread;
use crate::raft::{
    Ballot, Body, ChangeKind, Core, Entry, Envelope, LogIndex, NodeId, Payload, Role,
};
use std::time::{Duration, Instant};

/// How often a member without a leader says so.
const NO_LEADER_SAID_EVERY: Duration = Duration::from_secs(10);

/// What was told last.
pub(super) struct Told {
    ballot: Ballot,
    role: Role,
    leader: Option<NodeId>,
    /// Entries up to here were in the log when this process began.
    old: LogIndex,
    no_leader: Option<NoLeader>,
}

struct NoLeader {
    since: Instant,
    said: Instant,
}

impl Told {
    pub fn new(core: &Core) -> Told {
        Told {
            ballot: core.ballot(),
            role: core.role(),
            leader: core.leader(),
            old: core.last_position().index,
            no_leader: None,
        }
    }
}

impl RaftThread {
    /// Whether this entry was in the log when the process began: it is applied once more.
    pub(super) fn is_old(&self, index: LogIndex) -> bool {
        index <= self.told.old
    }

    /// Tells what the last step has changed; it was a message `from` another member, or something else.
    pub(super) fn tell_events(&mut self, from: Option<NodeId>) {
        let core = &self.wiring.core;
        let (ballot, role, leader) = (core.ballot(), core.role(), core.leader());
        let before = Told {
            ballot: std::mem::replace(&mut self.told.ballot, ballot),
            role: std::mem::replace(&mut self.told.role, role),
            leader: std::mem::replace(&mut self.told.leader, leader),
            old: self.told.old,
            no_leader: None,
        };
        // A leader is lost before another one is looked for, and found after it was elected.
        let lost = before.leader.filter(|_| leader.is_none());
        if let Some(led) = lost {
            let (led, term) = (self.label(led), before.ballot.term.0);
            log::warn!("no leader in term {term}: {led} did lead");
        }
        self.tell_term(before.ballot, ballot, from);
        if role != before.role {
            self.tell_role(before.role, role);
        }
        if let Some(leads) = leader.filter(|_| leader != before.leader) {
            log::info!("{} leads in term {}", self.label(leads), ballot.term.0);
        }
    }

    fn tell_term(&self, before: Ballot, now: Ballot, from: Option<NodeId>) {
        let Ballot { term, vote } = now;
        if term != before.term && vote != Some(self.wiring.core.id()) {
            let whence = from.map_or_else(String::new, |from| {
                format!(", heard from {}", self.label(from))
            });
            log::info!("term {} now, after {}{whence}", term.0, before.term.0);
        }
        match vote.filter(|_| now != before) {
            Some(whom) if whom == self.wiring.core.id() => {
                log::info!(
                    "stands for election in term {}, and votes for itself",
                    term.0
                );
            }
            Some(whom) => log::info!("votes for {} in term {}", self.label(whom), term.0),
            None => {}
        }
    }

    fn tell_role(&self, before: Role, now: Role) {
        let term = self.wiring.core.term();
        match (before, now) {
            (_, Role::PreCandidate) => {
                let next = term.next().0;
                log::info!(
                    "hears no leader: asks the others whether it could be elected in term {next}"
                );
            }
            // The vote for itself says it.
            (_, Role::Candidate) => {}
            (_, Role::Leader) => log::info!("is elected in term {}", term.0),
            (Role::Leader, _) => log::warn!("leads no more, in term {}", term.0),
            (_, Role::Follower) => log::info!("is a follower again, in term {}", term.0),
        }
    }

    /// Tells whom a vote is refused, and why it may be.
    pub(super) fn tell_refusals(&self, envelopes: &[Envelope]) {
        if !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let core = &self.wiring.core;
        for Envelope { to, message } in envelopes {
            let asked = match message.body {
                Body::VoteReply { granted: false } => "its vote",
                Body::PreVoteReply { granted: false, .. } => "a promise of its vote",
                _ => continue,
            };
            log::debug!(
                "refuses {} {asked}: in term {}, voted for {}, led by {}, with a log up to {}",
                self.label(*to),
                core.term().0,
                self.label_or(core.ballot().vote, "nobody"),
                self.label_or(core.leader(), "nobody"),
                core.last_position(),
            );
        }
    }

    /// Says now and then that nobody leads, and what that means.
    pub(super) fn tell_no_leader(&mut self, now: Instant) {
        if self.wiring.core.leader().is_some() {
            self.told.no_leader = None;
            return;
        }
        let first = NoLeader {
            since: now,
            said: now,
        };
        let no_leader = self.told.no_leader.get_or_insert(first);
        if now - no_leader.said >= NO_LEADER_SAID_EVERY {
            no_leader.said = now;
            log::warn!(
                "no leader for {} s: writes and quorum reads fail until a majority of the {} voters is up and reached",
                (now - no_leader.since).as_secs(),
                self.wiring.core.membership().voters.len()
            );
        }
    }

    /// What an entry is about to do to the members; None: nothing that is told.
    pub(super) fn describe_change(&self, entry: &Entry) -> Option<String> {
        let change = match &entry.payload {
            Payload::Command(order) if entry::is_update(order) || entry::is_publish(order) => order,
            Payload::Change(change) if change.kind == ChangeKind::Promote => {
                let label = self.label(change.node);
                return Some(format!(
                    "member {label} has caught up and votes from now on"
                ));
            }
            Payload::Change(change) => &change.context,
            _ => return None,
        };
        Some(match entry::decode(change).ok()?.1 {
            Order::Add(member) => format!(
                "member {:x} at {} is added, without a vote until it has caught up",
                member.id,
                member.peer_urls.join(",")
            ),
            Order::Remove(id) => format!("member {} is removed", self.label(id)),
            Order::Update(member) => format!(
                "member {} is at {} from now on",
                self.label(NodeId(member.id)),
                member.peer_urls.join(",")
            ),
            Order::Publish(told) => format!(
                "member {:x} is called {} and serves clients at {}",
                told.member.id,
                told.member.name,
                told.member.client_urls.join(",")
            ),
            Order::Tree(_) | Order::Expire | Order::Time => return None,
        })
    }

    /// The entry at `index` has done so.
    pub(super) fn tell_change(&self, index: LogIndex, what: &str) {
        let level = match self.is_old(index) {
            true => log::Level::Debug,
            false => log::Level::Info,
        };
        log::log!(level, "{what} (entry {})", index.0);
    }

    /// `n2 (b3a64181bea306fb)`.
    pub(super) fn label(&self, id: NodeId) -> String {
        let known = self.wiring.state.members.get(id);
        match known.map_or("", |member| member.name.as_str()) {
            "" => format!("{:x}", id.0),
            name => format!("{name} ({:x})", id.0),
        }
    }

    fn label_or(&self, id: Option<NodeId>, nobody: &str) -> String {
        id.map_or_else(|| nobody.to_owned(), |id| self.label(id))
    }
}
