//! The driver of one core: what it asks for is done in the order and with the promises of
//! [`Todo`](crate::raft::Todo), as the server's raft thread does it.

use super::any_core::{AnyCore, term};
use super::checks::{Look, in_time, on_a_majority, promise_is_stored};
use super::client::{Answer, Ask};
use super::cluster::{Checked, Cluster, Event, ends};
use super::flaw::Flaw;
use super::node::{Job, Life, Save, Ticket, state_from};
use super::serve::Proposed;
use super::trace::Happening;
use super::weather::TICK;
use crate::engine::entry;
use crate::engine::state::Outcome;
use crate::raft::{ChangeKind, Entry, Envelope, Input, LogIndex, Message, NodeId, Payload, Todo};
use crate::replica::clock::Clock;
use crate::tree::{self, ClusterTime, Stamp};
use crate::wal::{self, Batch};

/// Expiry runs at most this often.
const EXPIRY_INTERVAL: u64 = 5 * TICK;

impl Cluster {
    pub(super) fn life(&mut self, id: NodeId) -> Option<&mut Life> {
        self.nodes.get_mut(&id)?.life.as_mut()
    }

    /// Steps a core that runs, checks it, and does what it asks for.
    pub(super) fn input(&mut self, id: NodeId, input: Input) -> Result<Proposed, String> {
        let Some(life) = self.life(id) else {
            return Ok((None, None));
        };
        let before = Look::at(life.core.as_ref());
        let led = life.core.is_leader();
        let todo = life.core.step(input);
        let (leads, now_in) = (life.core.is_leader(), term(life.core.as_ref()));
        if leads && !led {
            self.note(|_| Happening::Leads {
                node: id,
                term: now_in,
            });
            self.new_leader(id);
        }
        if let Some(life) = self.nodes.get(&id).and_then(|node| node.life.as_ref()) {
            let core = life.core.as_ref();
            self.checks.step(id, &before, core, &todo)?;
            on_a_majority(&before, core, &self.nodes)?;
        }
        let proposed = (todo.accepted, todo.refused);
        self.perform(id, todo)?;
        if led && !leads && self.has_flaw(Flaw::RetriedAfterAppend) {
            self.retry_all(id);
        }
        Ok(proposed)
    }

    fn perform(&mut self, id: NodeId, todo: Todo) -> Checked {
        self.send(id, todo.send_now)?;
        self.save(
            id,
            &todo.install,
            todo.ballot,
            todo.append,
            todo.send_stored,
        );
        self.apply(id, todo.apply)?;
        if let (Some((from, to)), Some(life)) = (todo.read, self.life(id)) {
            life.jobs.push_back(Job::Read { from, to });
        }
        for to in todo.send_snapshot {
            self.send_snapshot(id, to)?;
        }
        self.confirm_reads(id, todo.reads, &todo.refused_reads);
        self.answer_reads(id);
        self.disk_begin(id)
    }

    /// Queues what is to be stored; a received snapshot takes the state's place at once.
    fn save(
        &mut self,
        id: NodeId,
        install: &Option<crate::raft::SnapshotMark>,
        ballot: Option<crate::raft::Ballot>,
        entries: Vec<Entry>,
        then: Vec<Envelope>,
    ) {
        let reading = self.nodes[&id].machine.at(self.now);
        let Some(life) = self.life(id) else { return };
        let mut save = Save {
            install: None,
            batch: Batch {
                ballot,
                entries,
                clock: None,
            },
            then,
        };
        if let Some(mark) = install {
            let (writer, bytes) = life.incoming.take().expect("only what came is installed");
            let time = life.cluster_time(&reading);
            life.state = state_from(&bytes, mark.position.index);
            life.set_time(time, &reading);
            life.since_snapshot = 0;
            save.install = Some((writer, mark.clone()));
        }
        let nothing = save.batch.ballot.is_none() && save.batch.entries.is_empty();
        if nothing && save.then.is_empty() && save.install.is_none() {
            return;
        }
        if !save.batch.entries.is_empty() {
            save.batch.clock = Some(wal::Clock {
                boot_id: reading.boot_id(),
                boottime_ns: reading.since_boot,
                cluster_ns: life.cluster_time(&reading).0,
            });
        }
        life.jobs.push_back(Job::Save(Box::new(save)));
    }

    // The network

    pub(super) fn send(&mut self, from: NodeId, envelopes: Vec<Envelope>) -> Checked {
        for envelope in envelopes {
            let node = &self.nodes[&from];
            let Some(life) = &node.life else {
                return Ok(());
            };
            promise_is_stored(from, life.core.as_ref(), &node.mirror, &envelope)?;
            let leads = life.core.is_leader();
            let time = leads.then(|| life.cluster_time(&node.machine.at(self.now)));
            let Envelope { to, message } = envelope;
            let lost = self.loses(from, to);
            self.note(|_| Happening::Sent {
                from,
                to,
                message: message.clone(),
                lost,
            });
            if lost {
                continue;
            }
            let time = time.unwrap_or_default();
            if self.mended.is_none() && self.random.one_in(self.weather.double_one_in) {
                let (delay, message) = (2 * self.delay(), message.clone());
                self.after(
                    delay,
                    Event::Message {
                        from,
                        to,
                        message,
                        time,
                    },
                );
            }
            let delay = self.delay();
            self.after(
                delay,
                Event::Message {
                    from,
                    to,
                    message,
                    time,
                },
            );
        }
        Ok(())
    }

    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: Message,
        time: ClusterTime,
    ) -> Checked {
        if self.life(to).is_none() {
            return Ok(());
        }
        self.note(|_| Happening::Came {
            from,
            to,
            message: message.clone(),
        });
        self.input(to, Input::Message { from, message })?;
        let reading = self.nodes[&to].machine.at(self.now);
        if let Some(life) = self.life(to)
            && time > ClusterTime(0)
            && life.core.leader() == Some(from)
        {
            life.set_time(time, &reading);
        }
        Ok(())
    }

    pub(super) fn leader_gone(&mut self, id: NodeId, leader: NodeId) -> Checked {
        self.input(id, Input::LeaderGone { leader }).map(drop)
    }

    // Time

    pub(super) fn tick(&mut self, id: NodeId, life_number: u64) -> Checked {
        if self.node(id).life_number != life_number || self.life(id).is_none() {
            return Ok(());
        }
        let next = self.node(id).machine.lasts(TICK);
        self.after(
            next,
            Event::Tick {
                node: id,
                life: life_number,
            },
        );
        self.input(id, Input::Tick)?;
        self.keep_time(id)
    }

    pub(super) fn stamp(&self, id: NodeId) -> Stamp {
        let node = &self.nodes[&id];
        let reading = node.machine.at(self.now);
        let Some(life) = &node.life else {
            return Stamp::default();
        };
        let mut stamp = life.stamp(&reading);
        if self.has_flaw(Flaw::ExpiryByWallClock) {
            stamp.cluster = ClusterTime(stamp.wall.0.unsigned_abs());
        }
        stamp
    }

    fn new_leader(&mut self, id: NodeId) {
        if self.has_flaw(Flaw::TimeOfOwnBoot)
            && let Some(life) = self.life(id)
        {
            life.offset = 0;
        }
        if self.weather.hasty && self.mended.is_none() {
            let wait = self.random.below(3_000);
            self.after(wait, Event::Hasty { node: id });
        }
    }

    /// Somebody asks a new leader to remove a member, at once.
    pub(super) fn hasty(&mut self, leader: NodeId) -> Checked {
        let Some(life) = self.life(leader) else {
            return Ok(());
        };
        let voters: Vec<NodeId> = life.core.membership().voters.iter().copied().collect();
        match self.random.pick(&voters).filter(|_| voters.len() > 2) {
            Some(node) => self.remove_member(leader, node),
            None => Ok(()),
        }
    }

    /// The leader expires what is due.
    fn keep_time(&mut self, id: NodeId) -> Checked {
        let (now, stamp) = (self.now, self.stamp(id));
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let due = life
            .state
            .tree
            .next_expiry()
            .is_some_and(|at| at <= stamp.cluster);
        if !due || !life.core.is_leader() || now < life.expiry_ran + EXPIRY_INTERVAL {
            return Ok(());
        }
        life.expiry_ran = now;
        let orders = match self.has_flaw(Flaw::ExpiryByName) {
            true => self.due_by_name(id, stamp),
            false => vec![entry::expire()],
        };
        self.propose(id, orders).map(drop)
    }

    fn due_by_name(&self, id: NodeId, stamp: Stamp) -> Vec<Vec<u8>> {
        let Some(life) = &self.nodes[&id].life else {
            return Vec::new();
        };
        let keys = self.ops.iter().filter_map(|op| match &op.ask {
            Ask::Lease(..) => Some(op.ask.key()),
            _ => None,
        });
        let due = keys.filter(|key| {
            let expiry = life
                .state
                .tree
                .get(key)
                .ok()
                .and_then(|node| node.view().expiry);
            expiry.is_some_and(|expiry| expiry.deadline() <= stamp.cluster)
        });
        let delete = |key| entry::tree(&tree::Command::new(tree::Action::Delete, key));
        due.map(delete).collect()
    }

    // The state machine

    fn apply(&mut self, id: NodeId, entries: Vec<Entry>) -> Checked {
        if let Some((first, last)) = ends(&entries) {
            self.note(|_| Happening::Applied {
                node: id,
                first,
                last,
            });
        }
        let mut removed = false;
        for entry in &entries {
            let reads_clock = self.has_flaw(Flaw::ApplyReadsClock);
            let reading = self.nodes[&id].machine.at(self.now);
            let Some(life) = self.life(id) else {
                return Ok(());
            };
            if reads_clock {
                life.state.time = life.cluster_time(&reading);
            }
            let outcome = life.state.apply(entry);
            life.since_snapshot += 1;
            let ticket = life.tickets.remove(&entry.position.index);
            if let Some(life) = &self.nodes[&id].life {
                self.checks.applied(id, entry, &life.state)?;
                in_time(&outcome, &life.state, self.now, &self.ops, &self.weather)?;
            }
            if let Some(ticket) = ticket {
                self.answer_ticket(&ticket, entry, &outcome);
            }
            removed |= matches!(&entry.payload, Payload::Change(change)
                if change.kind == ChangeKind::Remove && change.node == id);
        }
        if removed && self.weather.removed_stop {
            self.note(|_| Happening::Removed { node: id });
            self.node(id).retired = true;
            self.down(id, super::power::Down::Stopped);
            return Ok(());
        }
        self.snapshot_if_due(id);
        Ok(())
    }

    fn answer_ticket(&mut self, ticket: &Ticket, entry: &Entry, outcome: &Outcome) {
        let answer = match outcome {
            _ if ticket.term != entry.position.term => Answer::Lost,
            Outcome::Tree(Ok(applied)) => {
                let event = &applied.event;
                let before = event.prev_node.as_ref().and_then(|node| node.value.clone());
                let before = before.and_then(|value| super::checks::number_in(&value));
                Answer::Done(before, event.index.0)
            }
            Outcome::Tree(Err(_)) => Answer::Refused,
            _ => return,
        };
        self.answer(ticket.number, answer);
    }

    /// A flaw: the server itself asks the new leader again.
    fn retry_all(&mut self, id: NodeId) {
        let nodes = self.up();
        let Some(life) = self.life(id) else { return };
        let numbers: Vec<u64> = life.tickets.values().map(|ticket| ticket.number).collect();
        for number in numbers {
            if let Some(node) = self.random.pick(&nodes) {
                let wait = self.random.within((TICK, 30 * TICK));
                self.after(wait, Event::Request { number, node });
            }
        }
    }
}

/// Whether a core could make a snapshot of what it has applied.
pub(super) fn can_snapshot(core: &dyn AnyCore, applied: LogIndex) -> bool {
    applied > LogIndex(0) && core.mark_at(applied).is_some()
}
