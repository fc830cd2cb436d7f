//! The identity of each process: first starts, incarnations, and the connections that the transport admits.
//!
//! A machine starts for the first time, or with an emptied data directory, in the way of the server (`node::first_start`):
//! it asks the members that it reaches whether they know it, and ends if they have seen it run (hazard D12). Then it
//! publishes its incarnation. The links decide with the same table as the server's transport
//! ([`Members::claim`](crate::engine::members::Members::claim)), but for each message instead of each connection.

use super::cluster::{Checked, Cluster, Event};
use super::desk::CHANGES;
use super::fault_profile::ELECTION;
use super::node::{Life, Node, member};
use super::trace::Happening;
use crate::engine::entry;
use crate::engine::members::{Claim, Member, Members, Published};
use crate::engine::request::{Proposal, Request};
use crate::engine::rules::Rule;
use crate::raft::NodeId;

/// The identity in a data directory.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub incarnation: u64,
    /// The members of the new cluster, or those that the process found when it joined.
    pub founders: Members,
    /// The member joined a running cluster. It learns the voters from the others.
    pub joined: bool,
}

/// What the transport does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Open,
    /// The sender is a member, and the receiver has not applied its addition yet.
    Newcomer,
    /// The sender was removed.
    Removed,
    Closed,
}

impl Cluster {
    /// A first start. False: the process ends without an identity.
    pub(super) fn first_start(&mut self, id: NodeId) -> bool {
        let lists = self.answers_for(id);
        let knows = |list: &&Members| list.get(id).is_some_and(Member::has_started);
        let node = &self.nodes[&id];
        let founders = match &node.initial_cluster {
            Some(founders) => Some(founders.clone()),
            None => lists.iter().find(|list| list.get(id).is_some()).cloned(),
        };
        let joined = node.initial_cluster.is_none();
        if lists.iter().any(|list| knows(&list)) && !self.is_without(Rule::LostDataIsNoticed) {
            self.note(|_| Happening::Nemesis(format!("n{} ends: its data is lost", id.0)));
            self.node(id).retired = true;
            return false;
        }
        let Some(founders) = founders else {
            // No member lists it yet. The operator tries again.
            self.after(ELECTION, Event::Start { node: id });
            return false;
        };
        let incarnation = self.random.next();
        self.node(id).identity = Some(Identity {
            incarnation,
            founders,
            joined,
        });
        true
    }

    /// The member tables of the other members that answer.
    fn answers_for(&self, id: NodeId) -> Vec<Members> {
        let is_cut =
            |other: &NodeId| self.cuts.contains(&(id, *other)) || self.cuts.contains(&(*other, id));
        let others = self.nodes.values().filter(|node| node.id != id);
        let answers = others.filter(|node| !is_cut(&node.id) && node.paused_until <= self.now);
        let lives = answers.filter_map(|node| node.life.as_ref());
        lives
            .map(|life| life.engine.state().members.clone())
            .collect()
    }

    /// Publishes the incarnation of a member until the log contains it, as the server does.
    pub(super) fn publish_identity(&mut self, id: NodeId, life_number: u64) -> Checked {
        let node = self.node(id);
        let (Some(incarnation), Some(life)) = (node.incarnation(), &node.life) else {
            return Ok(());
        };
        let members = &life.engine.state().members;
        if node.life_number != life_number
            || members.incarnation(id) == Some(incarnation)
            || life.stopping.is_some()
        {
            return Ok(());
        }
        let node = id;
        let life = life_number;
        self.after(2 * ELECTION, Event::Publish { node, life });
        self.last_change += 1;
        let published = Published {
            member: Member {
                client_urls: vec![format!("http://n{}:2379", id.0)],
                ..member(id)
            },
            incarnation,
        };
        let proposal = Proposal::of(entry::publish(&published), CHANGES + self.last_change);
        if let Some(life) = self.life(id) {
            life.requests.push_back(Request::Propose(proposal));
        }
        self.hand_over_requests(id)
    }

    /// Whether the transport of `to` accepts a message of `from`, and the transport of `from` has connected to `to`.
    pub(super) fn link(&self, from: NodeId, to: NodeId) -> Link {
        let (Some(sender), Some(receiver)) = (self.nodes.get(&from), self.nodes.get(&to)) else {
            return Link::Closed;
        };
        let Some(life) = &receiver.life else {
            return Link::Closed;
        };
        let finds = |life: &Life| {
            let member = life.table.get(to);
            let is_there = |address| member.is_some_and(|to| to.peer_urls.contains(address));
            receiver.address.as_ref().is_none_or(is_there)
        };
        if !sender.life.as_ref().is_none_or(finds) {
            return Link::Closed;
        }
        let notices = !self.is_without(Rule::LostDataIsNoticed);
        // A process that has ended had connected before.
        let known = sender
            .life
            .as_ref()
            .and_then(|life| life.table.incarnation(to));
        let is_wrong = known.is_some() && known != receiver.incarnation();
        match life.table.claim(from, sender.incarnation()) {
            Claim::Removed => Link::Removed,
            _ if is_wrong && notices => Link::Closed,
            Claim::LostItsData if notices => Link::Closed,
            Claim::Unknown if known.is_some() || self.is_listed(from, &life.table) => {
                Link::Newcomer
            }
            Claim::Unknown => Link::Closed,
            // The log may have added it, and that entry is not applied.
            Claim::Proven | Claim::Unproven | Claim::LostItsData
                if life.engine.state().members.get(from).is_none() =>
            {
                Link::Newcomer
            }
            Claim::Proven | Claim::Unproven | Claim::LostItsData => Link::Open,
        }
    }

    /// Whether a member of the table, asked for its own table, lists this process.
    fn is_listed(&self, id: NodeId, table: &Members) -> bool {
        let members = table.iter().filter(|member| member.id != id.0);
        let nodes = members.filter_map(|member| self.nodes.get(&NodeId(member.id)));
        let mut lives = nodes.filter_map(|node| node.life.as_ref());
        lives.any(|life| life.table.get(id).is_some())
    }
}

impl Node {
    /// None: its data directory is empty.
    pub fn incarnation(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.incarnation)
    }
}
