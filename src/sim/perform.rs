//! A step of an engine, and its effects: performed in the order that [`Effects`] documents, as the server's raft thread
//! does, on the simulated disks, links and clients.
//!
//! This module also checks the reply to each request:
//!
//! - The request gets exactly one reply, before its deadline, and at the latest in the step that applies its entry or an
//!   entry of a newer term than the one in which it was forwarded.
//! - The reply is that of its own entry, and readers of this node can already see the effect of that entry.
//! - The term in the reply is on this node's disk.

use super::checks::{may_send, write_number};
use super::cluster::{Checked, Cluster};
use super::node::Life;
use super::power::Down;
use super::trace::Happening;
use crate::engine::peer_message::PeerMessage;
use crate::engine::request::{Effect, Failure, Outcome, Reply, Request};
use crate::engine::time::Monotonic;
use crate::engine::{DiskJob, DiskReport, Effects, Event, Note, Publication};
use crate::raft::NodeId;
use crate::storage::clock::Clock;
use crate::storage::jobs;
use crate::watch::View;
use core::time::Duration;

/// How long a stopping member waits for forwarded commands.
const STOP_PATIENCE: Duration = Duration::from_millis(900);

impl Cluster {
    pub(super) fn life(&mut self, id: NodeId) -> Option<&mut Life> {
        self.nodes.get_mut(&id)?.life.as_mut()
    }

    /// Steps a running engine, performs its effects, and passes it the requests that it takes now.
    pub(super) fn step_engine(&mut self, id: NodeId, event: Event<u64>) -> Checked {
        let now = self.nodes[&id].now(self.now);
        let is_tick = matches!(event, Event::Tick);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if let Event::Requests(requests) = &event {
            let callers = requests.iter().filter_map(caller);
            life.has_news = true;
            life.pending
                .extend(callers.map(|number| (number, now.monotonic)));
        }
        let disk_has_stored = matches!(event, Event::Disk(DiskReport::Stored(_)));
        let effects = life.engine.step(now, event);
        self.see_step(id)?;
        self.see_records(id, &effects, disk_has_stored)?;
        let stopped = effects.stopped;
        self.perform(id, effects)?;
        self.look_at_pending(id, is_tick.then_some(now.monotonic))?;
        if stopped {
            return self.stopped(id);
        }
        self.hand_over_requests(id)
    }

    /// The facts that the checks have recorded during the step.
    fn see_step(&mut self, id: NodeId) -> Checked {
        let mut checks = self.checks.borrow_mut();
        checks.result()?;
        let shown = std::mem::take(&mut checks.shown);
        drop(checks);
        self.refused = shown.refused;
        self.scenario.lost_tail |= shown.lost_tail;
        if let Some((first, last)) = shown.applied {
            if let Some(life) = self.life(id) {
                life.has_news = true;
            }
            self.note(|_| Happening::Applied {
                node: id,
                first,
                last,
            });
        }
        if let Some(term) = shown.leads {
            self.note(|_| Happening::Leads { node: id, term });
            self.new_leader(id);
        }
        Ok(())
    }

    /// Requests wait until the engine takes them, as in the server's channel.
    pub(super) fn hand_over_requests(&mut self, id: NodeId) -> Checked {
        let now = self.nodes[&id].now(self.now).monotonic;
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if life.requests.is_empty() || !life.engine.takes_requests(now) {
            return Ok(());
        }
        let requests = life.requests.drain(..).collect();
        self.step_engine(id, Event::Requests(requests))
    }

    fn perform(&mut self, id: NodeId, effects: Effects<u64>) -> Checked {
        for note in &effects.notes {
            if let Note::BadForward { from } = note {
                return Err(format!("forwards: n{} sent n{} a bad one", from.0, id.0));
            }
        }
        for (to, peer_message) in effects.send {
            self.send(id, to, peer_message)?;
        }
        for &(to, term) in &effects.send_snapshot {
            self.send_snapshot(id, to, term)?;
        }
        for job in effects.disk {
            self.order_job(id, job);
        }
        self.begin_job(id)?;
        if effects.members_changed
            && let Some(life) = self.life(id)
        {
            let members = life.engine.state().members.clone();
            let earlier = std::mem::replace(&mut life.table, members);
            life.table.keep_incarnations(&earlier);
        }
        for publication in effects.publish {
            self.publish(id, publication)?;
        }
        for reply in effects.replies {
            self.reply(id, reply)?;
        }
        match effects.removed && self.profile.removed_stop {
            true => self.stop_removed(id),
            false => Ok(()),
        }
    }

    fn stop_removed(&mut self, id: NodeId) -> Checked {
        if self.life(id).is_none_or(|life| life.stopping.is_some()) {
            return Ok(());
        }
        self.note(|_| Happening::Removed { node: id });
        if !self.checks.borrow().removed.contains(&id) {
            return Err(format!("removed: n{} ends, and is a member", id.0));
        }
        self.node(id).retired = true;
        self.tell_to_stop(id)
    }

    /// Sends the node the order to stop, like SIGTERM.
    pub(super) fn tell_to_stop(&mut self, id: NodeId) -> Checked {
        let now = self.nodes[&id].now(self.now).monotonic;
        let Some(life) = self.life(id).filter(|life| life.stopping.is_none()) else {
            return Ok(());
        };
        life.stopping = Some(now);
        // The engine finishes earlier requests, and refuses later ones.
        let requests: Vec<Request<u64>> = life.requests.drain(..).collect();
        if !requests.is_empty() {
            self.step_engine(id, Event::Requests(requests))?;
        }
        self.step_engine(id, Event::Stop)
    }

    /// The engine has stopped. Requests that it has not taken are refused, the log is closed, and the process ends.
    fn stopped(&mut self, id: NodeId) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if let Some((number, _)) = life.pending.first_key_value() {
            return Err(format!("replies: n{} stops and #{number} waits", id.0));
        }
        let untaken: Vec<Request<u64>> = life.requests.drain(..).collect();
        for number in untaken.iter().filter_map(caller) {
            self.refused_at_the_server(number);
        }
        self.close_log(id)?;
        self.down(id, Down::Stopped);
        Ok(())
    }

    fn order_job(&mut self, id: NodeId, job: DiskJob) {
        let boot_id = self.nodes[&id].machine.at(self.now).boot_id();
        let Some(life) = self.life(id) else { return };
        let incoming = life.incoming.as_mut();
        let job = jobs::job(job, boot_id, || {
            let writer = incoming.and_then(|incoming| incoming.writer.take());
            let writer = writer.expect("only a received snapshot is installed");
            Box::new(|| writer.finish())
        });
        life.jobs.push_back(job);
    }

    /// Replaces the view of this node's readers.
    fn publish(&mut self, id: NodeId, publication: Publication) -> Checked {
        let Publication {
            tree,
            applied,
            term,
            events,
            is_jump,
        } = publication;
        let checks = self.checks.clone();
        let mut checks = checks.borrow_mut();
        let on_disk = checks.mirror(id).hard_state.term;
        let is_by_hand = checks.by_hand.is_some();
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let before = std::mem::replace(
            &mut life.view,
            View {
                tree,
                applied,
                term,
            },
        );
        let view = &life.view;
        if applied < before.applied || term < before.term || view.tree.index() < before.tree.index()
        {
            return Err(format!(
                "views: n{} shows {applied:?} in {term:?} after {:?} in {:?}",
                id.0, before.applied, before.term
            ));
        }
        if term > on_disk && !is_by_hand {
            return Err(format!(
                "shown before stored: n{} shows {term:?}, on disk is {on_disk:?}",
                id.0
            ));
        }
        if is_jump && checks.mirror(id).snapshot.index < applied && !is_by_hand {
            return Err(format!(
                "shown before stored: n{} shows a snapshot at {applied:?}",
                id.0
            ));
        }
        if is_jump {
            drop(checks);
            self.end_watches(id);
            return Ok(());
        }
        checks.published(id, before.tree.index(), &events);
        checks.result()?;
        drop(checks);
        self.tell_watchers(id, &events)
    }

    fn reply(&mut self, id: NodeId, reply: Reply<u64>) -> Checked {
        let Reply {
            caller: number,
            outcome,
        } = reply;
        let now = self.nodes[&id].now(self.now).monotonic;
        let on_disk = self.checks.borrow_mut().mirror(id).hard_state.term;
        let is_by_hand = self.is_by_hand();
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let is_forwarded = life.forwarded.remove(&number).is_some();
        let since = life.stopping.map_or(STOP_PATIENCE, |since| now - since);
        if is_forwarded
            && matches!(outcome, Outcome::Failed(Failure::Stopped))
            && since < STOP_PATIENCE
        {
            return Err(format!(
                "replies: n{} stops {since:?} after the order, and #{number} was on its way",
                id.0
            ));
        }
        if life.pending.remove(&number).is_none() {
            return Err(format!("replies: n{} answers #{number} twice", id.0));
        }
        if let Outcome::Done {
            applied,
            term,
            effect,
        } = &outcome
        {
            let unseen = matches!(effect, Effect::Event(_)) && *applied > life.view.applied;
            if unseen || (*term > on_disk && !is_by_hand) {
                return Err(format!(
                    "shown before stored: n{} answers #{number} with {applied:?} in {term:?}, \
                     readers see {:?}, on disk is {on_disk:?}",
                    id.0, life.view.applied
                ));
            }
        }
        self.answered_by(id, number, outcome)
    }

    /// Checks that no request waits longer than the request timeout, or for a result that this node already knows.
    fn look_at_pending(&mut self, id: NodeId, ticked: Option<Monotonic>) -> Checked {
        let timeout = self.profile.request_timeout() + 3 * super::power::tick();
        let Some(life) = self.nodes.get_mut(&id).and_then(|node| node.life.as_mut()) else {
            return Ok(());
        };
        if !std::mem::take(&mut life.has_news) && ticked.is_none() {
            return Ok(());
        }
        let checks = self.checks.borrow();
        let applied = checks.applied_by(id);
        for (number, since) in &life.pending {
            let known = checks.write(*number).filter(|at| *at <= applied.index);
            if let Some(at) = known {
                return Err(format!(
                    "replies: n{} has applied #{number} at {at:?}, and its client waits",
                    id.0
                ));
            }
            let sent = life.forwarded.get(number);
            if let Some((_, term)) = sent.filter(|(_, term)| *term < applied.term) {
                return Err(format!(
                    "replies: n{} has applied {applied}, and #{number}, forwarded in {term:?}, waits",
                    id.0
                ));
            }
            if let Some(now) = ticked.filter(|now| *now - *since > timeout) {
                return Err(format!(
                    "replies: n{} has #{number} waiting for {:?}",
                    id.0,
                    now - *since
                ));
            }
        }
        Ok(())
    }

    /// Records the operations that a forward carries.
    pub(super) fn note_forward(&mut self, from: NodeId, peer_message: &PeerMessage) -> Checked {
        may_send(from, peer_message)?;
        let PeerMessage::Forward {
            number,
            term,
            commands,
        } = peer_message
        else {
            return Ok(());
        };
        let Some(life) = self.life(from) else {
            return Ok(());
        };
        let carried = commands.iter().filter_map(|command| write_number(command));
        life.has_news = true;
        life.forwarded
            .extend(carried.map(|carried| (carried, (*number, *term))));
        Ok(())
    }
}

impl Life {
    /// The commands of this forward wait for a leader again.
    pub fn not_taken(&mut self, peer_message: u64) {
        self.forwarded
            .retain(|_, (number, _)| *number != peer_message);
    }
}

/// The caller of a request.
pub(super) fn caller(request: &Request<u64>) -> Option<u64> {
    match request {
        Request::Propose(proposal) | Request::Change(proposal) => proposal.caller,
        Request::Read(query) => Some(query.caller),
        Request::Copy(caller) | Request::Probe(caller) => Some(*caller),
    }
}
