//! Requests of clients on their way to a member, and the replies.
//!
//! A client asks any member, not only the leader. It stays with that member until a request fails there.

use super::client::{Answer, Ask, Op};
use super::cluster::{Checked, Cluster, Event};
use super::fault_profile::{Kind, TICK};
use super::node::member;
use super::trace::Happening;
use crate::engine::entry;
use crate::engine::members::Member;
use crate::engine::request::{Effect, Failure, Outcome, Proposal, Query, Request};
use crate::raft::NodeId;
use crate::tree::NodeView;

/// The first number for membership changes.
pub(super) const CHANGES: u64 = 1 << 40;

impl Cluster {
    /// A client begins its next operation.
    pub(super) fn call(&mut self, client: usize) -> Checked {
        if !self.open || self.clients[client].busy.is_some() {
            return Ok(());
        }
        if self.scenario.quiet && self.repaired.is_none() {
            self.after(TICK, Event::Call { client });
            return Ok(());
        }
        let ask = self.clients[client].next(&self.profile, &mut self.random);
        let number = self.ops.len() as u64;
        if let (Ask::Lease(_, ttl), Kind::TimesToLive) = (&ask, self.profile.kind) {
            let due = super::checks::due(self.now, *ttl);
            self.checks.borrow_mut().leases.insert(number, due);
        }
        self.ops.push(Op {
            client: client as u64,
            ask,
            called: self.now,
            returned: None,
            answer: None,
            maybe: false,
        });
        self.clients[client].busy = Some(number);
        self.after(self.profile.patience, Event::GiveUp { number });
        let delay = self.random.within((100, 2_000));
        self.ask(number, delay);
        Ok(())
    }

    /// Sends a request to the client's node, or to a random one.
    pub(super) fn ask(&mut self, number: u64, delay: u64) {
        let client = self.ops[number as usize].client as usize;
        let any: Vec<NodeId> = self.nodes.keys().collect();
        let stray = self.random.one_in(self.profile.stray_one_in);
        let stays_with = self.clients[client].stays_with.filter(|_| !stray);
        let Some(node) = stays_with.or_else(|| self.random.pick(&any)) else {
            return;
        };
        let op = &mut self.ops[number as usize];
        op.maybe = true;
        let ask = op.ask.clone();
        self.note(|_| Happening::Asked {
            client: client as u64,
            number,
            node,
            ask,
        });
        self.clients[client].stays_with = Some(node);
        self.after(delay, Event::Request { number, node });
    }

    /// A client's request has arrived at a node.
    pub(super) fn request(&mut self, number: u64, id: NodeId) -> Checked {
        let ask = self.ops[number as usize].ask.clone();
        let Some(life) = self.life(id) else {
            // The connection is refused, or there is no reply.
            let is_refused = self.repaired.is_some() || self.is_by_hand();
            if is_refused || self.random.one_in(2) {
                self.refused_at_the_server(number);
            }
            return Ok(());
        };
        life.requests.push_back(match ask.is_read() {
            true => Request::Read(Query::new(number, None)),
            false => Request::Propose(Proposal::of(entry::tree(&ask.command(number)), number)),
        });
        self.hand_over_requests(id)
    }

    /// A node refuses a request before its engine takes it.
    pub(super) fn refused_at_the_server(&mut self, number: u64) {
        match number >= CHANGES {
            true => drop(self.changes.remove(&number)),
            false => self.answer(number, Answer::NotTaken),
        }
    }

    /// A node replies. The reply arrives after a delay.
    fn answer(&mut self, number: u64, answer: Answer) {
        let delay = self.random.within((100, 2_000));
        self.after(delay, Event::Answer { number, answer });
    }

    /// An engine has replied to a request.
    pub(super) fn answered_by(&mut self, id: NodeId, number: u64, outcome: Outcome) -> Checked {
        if number >= CHANGES {
            self.changed(number, &outcome);
            return Ok(());
        }
        let answer = match outcome {
            Outcome::Done {
                effect: Effect::Event(applied),
                ..
            } => {
                let event = &applied.event;
                let value = |node: &NodeView| {
                    let value = node.value.as_ref()?;
                    super::checks::number_in(value)
                };
                let wrote = value(&event.node);
                if wrote.is_some_and(|wrote| wrote != number) {
                    return Err(format!(
                        "replies: n{} answers #{number} with what #{wrote:?} did",
                        id.0
                    ));
                }
                let before = event.prev_node.as_ref().and_then(value);
                Answer::Done(before, event.index.0)
            }
            Outcome::Done {
                effect: Effect::Refused(_),
                ..
            } => Answer::Refused,
            Outcome::Confirmed => self.found(id, number),
            Outcome::Failed(Failure::Overloaded) => Answer::NotTaken,
            Outcome::Failed(failure) => Answer::Failed(failure),
            Outcome::Done { .. } | Outcome::Copy(..) => {
                return Err(format!("replies: n{} gives #{number} another kind", id.0));
            }
        };
        self.answer(number, answer);
        Ok(())
    }

    /// The data that a reader of this node sees.
    fn found(&mut self, id: NodeId, number: u64) -> Answer {
        let key = self.ops[number as usize].ask.key();
        let life = self.nodes[&id].life.as_ref();
        let found = life.and_then(|life| {
            let node = life.view.tree.get(&key).ok()?;
            let value = super::checks::number_in(node.value()?)?;
            Some((value, node.view().modified.0))
        });
        Answer::Found(found)
    }

    /// A reply has arrived at its client.
    pub(super) fn answered(&mut self, number: u64, answer: Answer) -> Checked {
        let (now, repeats) = (self.now, !self.is_by_hand());
        let op = &mut self.ops[number as usize];
        let client = op.client as usize;
        if self.clients[client].busy != Some(number) {
            return Ok(());
        }
        if answer == Answer::NotTaken && repeats {
            op.maybe = false;
            self.clients[client].stays_with = None;
            let wait = self.random.within((1_000, TICK));
            if self.now + wait < self.ops[number as usize].called + self.profile.patience {
                self.ask(number, wait);
            }
            return Ok(());
        }
        op.answer = Some(answer.clone());
        op.returned = Some(now);
        let ask = op.ask.clone();
        let client_id = client as u64;
        if self.is_by_hand() {
            self.check_linear(None)?;
        }
        self.note(|_| Happening::Answered {
            client: client_id,
            number,
            answer: answer.clone(),
        });
        if let Answer::Failed(_) = answer {
            self.clients[client].fails(&ask);
        } else {
            let client = &mut self.clients[client];
            client.learn(number, &ask, &answer);
            client.served += u64::from(self.repaired.is_some());
        }
        self.done(client);
        Ok(())
    }

    /// The client's timeout has passed.
    pub(super) fn give_up(&mut self, number: u64) -> Checked {
        let client = self.ops[number as usize].client as usize;
        if self.clients[client].busy != Some(number) {
            return Ok(());
        }
        self.note(|_| Happening::GaveUp {
            client: client as u64,
            number,
        });
        let op = &mut self.ops[number as usize];
        op.returned = Some(self.now);
        let ask = op.ask.clone();
        self.clients[client].fails(&ask);
        self.done(client);
        Ok(())
    }

    fn done(&mut self, client: usize) {
        self.clients[client].busy = None;
        if self.is_by_hand() {
            return;
        }
        let think = self.random.within(self.profile.think);
        self.after(think, Event::Call { client });
    }

    // Changes of the members

    /// Sends a request to a node to change the members.
    pub(super) fn ask_change(&mut self, at: NodeId, change: Change) -> Checked {
        self.last_change += 1;
        let number = CHANGES + self.last_change;
        let command = match change {
            Change::Add(id) => entry::add(&member(id)),
            Change::Remove(id) => entry::remove(id),
            Change::Move(id) => entry::update(&Member {
                peer_urls: vec![new_address(id)],
                ..member(id)
            }),
        };
        self.note(|_| Happening::Nemesis(format!("n{} is asked: {change:?}", at.0)));
        let Some(life) = self.life(at) else {
            return Ok(());
        };
        let request = Request::Change(Proposal::of(command, number));
        life.requests.push_back(request);
        self.changes.insert(number, change);
        self.hand_over_requests(at)
    }

    fn changed(&mut self, number: u64, outcome: &Outcome) {
        let refused = matches!(
            outcome,
            Outcome::Done {
                effect: Effect::Members(Err(_)),
                ..
            }
        );
        match refused {
            true => drop(self.changes.remove(&number)),
            false => self.forget_changes([number].into_iter()),
        }
    }

    /// The changes have taken effect, or may have. Starts a member that may have been added.
    pub(super) fn forget_changes(&mut self, numbers: impl Iterator<Item = u64>) {
        for number in numbers {
            if let Some(Change::Add(id)) = self.changes.remove(&number)
                && !self.nodes.contains_key(&id)
            {
                self.next_node = self.next_node.max(id.0 + 1);
                self.add_node(id, None);
            }
        }
    }
}

/// A change of the members.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Add(NodeId),
    Remove(NodeId),
    /// It gets the URL of its new address.
    Move(NodeId),
}

/// The peer URL of a member that has moved.
pub(super) fn new_address(id: NodeId) -> String {
    format!("http://moved{}:2380", id.0)
}
