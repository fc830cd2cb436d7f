//! How a step becomes trace records.
//!
//! The records of a step are in the order in which the events take effect: first what arrived or reached the disk, then
//! what the core made of it, then what is sent. A message that waits for the disk gets its record when the disk has
//! reported its batch.

use super::Engine;
use super::peer_message::PeerMessage;
use super::rules::Rules;
use super::trace::{ForwardStep, MessageSummary, Record, SnapshotStep, Trace, TraceRole};
use crate::raft::{
    Body, Core, Entry, Envelope, HardState, Input, LogIndex, Message, NodeId, Role, Term, Todo,
};
use std::collections::BTreeSet;

/// The records of the present step, and what the records of later steps are compared with.
pub(super) struct Tracer {
    is_on: bool,
    /// Kept between steps, so that a step allocates nothing.
    records: Vec<Record>,
    seq: u64,
    seen: Seen,
    /// Messages that the disk's present batch holds back.
    held: Vec<Trace>,
    /// Members whose connection is up.
    links: BTreeSet<NodeId>,
    /// Forwarded commands whose entries were applied, not recorded yet.
    answered: usize,
}

/// The previous values.
#[derive(Clone, Copy)]
struct Seen {
    term: Term,
    role: TraceRole,
    leader: Option<NodeId>,
    last: LogIndex,
    stored: LogIndex,
    commit: LogIndex,
    members: (u32, u32),
    /// Ticks of the election timeout that was drawn.
    timeout: u32,
}

impl Seen {
    fn of<R: crate::raft::Rules>(core: &Core<R>) -> Seen {
        let members = core.membership();
        let count = |ids: &BTreeSet<NodeId>| u32::try_from(ids.len()).unwrap_or(u32::MAX);
        Seen {
            term: core.term(),
            role: TraceRole::of(core.role(), members.learners.contains(&core.id())),
            leader: core.leader(),
            last: core.last_position().index,
            stored: core.stored(),
            commit: core.commit(),
            members: (count(&members.voters), count(&members.learners)),
            timeout: core.election_timeout(),
        }
    }
}

impl Tracer {
    pub fn new<R: crate::raft::Rules>(core: &Core<R>) -> Tracer {
        Tracer {
            is_on: true,
            records: Vec::new(),
            seq: 0,
            seen: Seen::of(core),
            held: Vec::new(),
            links: BTreeSet::new(),
            answered: 0,
        }
    }
}

impl<T, R: Rules> Engine<T, R> {
    /// The records of the last step, in order.
    pub fn trace(&self) -> &[Record] {
        &self.tracer.records
    }

    /// Switches the records on or off. They are on at first.
    pub fn keep_trace(&mut self, is_on: bool) {
        self.tracer.is_on = is_on;
        self.tracer.seen = Seen::of(&self.core);
    }

    /// A step begins.
    pub(super) fn begin_trace(&mut self) {
        self.tracer.records.clear();
    }

    pub(super) fn record(&mut self, event: Trace) {
        if self.tracer.is_on {
            self.tracer.seq += 1;
            self.tracer.records.push(Record {
                seq: self.tracer.seq,
                term: self.core.term(),
                event,
            });
        }
    }

    /// The first record of a process: its log at the start.
    pub(super) fn record_start(&mut self) {
        let core = &self.core;
        let (base, last) = (core.base_position().index, core.last_position().index);
        let seen = self.tracer.seen;
        self.record(Trace::Start {
            first: base.next(),
            last,
            applied: self.state.applied,
        });
        self.record_members(seen.members);
        self.record(Trace::Role {
            role: seen.role,
            leader: seen.leader,
        });
        self.record_timer(seen.timeout);
    }

    fn record_timer(&mut self, ticks: u32) {
        let after_ms = self.in_ms(ticks);
        self.record(Trace::Timer { after_ms });
    }

    fn in_ms(&self, ticks: u32) -> u64 {
        let after = self.settings.tick * ticks;
        u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
    }

    fn record_members(&mut self, (voters, learners): (u32, u32)) {
        self.record(Trace::Members {
            voters,
            learners,
            index: self.core.membership_since(),
        });
    }

    // Messages

    /// A message arrived from a member that may send it.
    pub(super) fn record_received(&mut self, from: NodeId, message: &PeerMessage) {
        if !self.tracer.is_on {
            return;
        }
        self.record(Trace::Received {
            from,
            message: MessageSummary::of(message),
        });
        if let PeerMessage::Raft { message, .. } = message {
            self.record_answer(from, message);
        }
    }

    /// What an answer means to the leader or candidate that asked.
    fn record_answer(&mut self, by: NodeId, Message { term, body }: &Message) {
        let role = self.core.role();
        let in_term = *term == self.core.term();
        match *body {
            Body::Accepted { matched } if role == Role::Leader && in_term => {
                self.record(Trace::Acknowledged { by, last: matched });
            }
            Body::Refused { hint, .. } if role == Role::Leader && in_term => {
                let last = hint.index;
                self.record(Trace::Refused { by, last });
            }
            Body::VoteReply { granted } if role == Role::Candidate && in_term => {
                let pre = false;
                self.record(Trace::VoteGot { by, pre, granted });
            }
            Body::PreVoteReply { asked, granted }
                if role == Role::PreCandidate && asked == self.core.term().next() =>
            {
                let pre = true;
                self.record(Trace::VoteGot { by, pre, granted });
            }
            _ => {}
        }
    }

    /// The step's messages are sent at its end.
    pub(super) fn record_sent(&mut self) {
        if !self.tracer.is_on {
            return;
        }
        let send = std::mem::take(&mut self.effects.send);
        for (to, message) in &send {
            self.record(sent(*to, message));
        }
        self.effects.send = send;
        let snapshots = std::mem::take(&mut self.effects.send_snapshot);
        for (to, _) in &snapshots {
            self.record_snapshot(SnapshotStep::Sending, LogIndex(0), Some(*to));
        }
        self.effects.send_snapshot = snapshots;
    }

    /// These messages wait for a batch that is handed to the disk now.
    pub(super) fn hold_sent(&mut self, then: &[(NodeId, PeerMessage)]) {
        if self.tracer.is_on {
            let sent = then.iter().map(|(to, message)| sent(*to, message));
            self.tracer.held.extend(sent);
        }
    }

    /// The disk has stored everything, and has released the messages that waited for it.
    pub(super) fn record_released(&mut self) {
        let mut held = std::mem::take(&mut self.tracer.held);
        held.drain(..).for_each(|event| self.record(event));
        self.tracer.held = held;
    }

    // Steps of the core

    /// The core's output for its last input. `stored` is the hard state if the input reported one as stored.
    pub(super) fn record_step(&mut self, stored: Option<HardState>, todo: &Todo) {
        if !self.tracer.is_on {
            return;
        }
        let now = Seen::of(&self.core);
        let before = std::mem::replace(&mut self.tracer.seen, now);
        // The core counts a snapshot as stored before the disk has installed it.
        if todo.install.is_none() {
            self.record_stored(stored, before);
        }
        if let Some(ticks) = todo.timed_out {
            let after_ms = self.in_ms(ticks);
            self.record(Trace::Timeout { after_ms });
        }
        if now.term != before.term {
            self.record(Trace::Term { was: before.term });
        }
        for vote in &todo.votes {
            self.record(Trace::VoteAnswer {
                candidate: vote.candidate,
                pre: vote.pre_vote,
                reason: vote.reason,
            });
        }
        if (now.role, now.leader) != (before.role, before.leader) {
            let Seen { role, leader, .. } = now;
            self.record(Trace::Role { role, leader });
        }
        if now.timeout != before.timeout {
            self.record_timer(now.timeout);
        }
        self.record_vote_asked(todo);
        self.record_log(before.last, &todo.append);
        if now.members != before.members {
            self.record_members(now.members);
        }
        if now.commit != before.commit {
            let index = now.commit;
            self.record(Trace::Committed { index });
        }
    }

    fn record_stored(&mut self, hard_state: Option<HardState>, before: Seen) {
        let last = self.tracer.seen.stored;
        if last > before.stored {
            self.record(Trace::Stored { last });
        }
        let Some(HardState { term, vote }) = hard_state else {
            return;
        };
        let candidate = vote;
        self.record(Trace::VoteStored { term, candidate });
        let own = self.core.id();
        if vote == Some(own) && before.role == TraceRole::Candidate && term == before.term {
            let (by, pre, granted) = (own, false, true);
            self.record(Trace::VoteGot { by, pre, granted });
        }
    }

    /// The requests to all voters are one record.
    fn record_vote_asked(&mut self, todo: &Todo) {
        let asked = |Envelope { message, .. }: &Envelope| match message.body {
            Body::PreVote { last } => Some((true, last)),
            Body::Vote { last, .. } => Some((false, last)),
            _ => None,
        };
        let mut sent = todo.send_now.iter().chain(&todo.send_stored);
        let Some((pre, last)) = sent.find_map(asked) else {
            return;
        };
        self.record(Trace::VoteAsked {
            pre,
            last: last.index,
            last_term: last.term,
        });
    }

    /// One record for each run of appended entries with the same term.
    fn record_log(&mut self, before: LogIndex, appended: &[Entry]) {
        let Some(first) = appended.first().map(|entry| entry.position.index) else {
            return;
        };
        if first <= before {
            self.record(Trace::Truncated { from: first });
        }
        for run in appended.chunk_by(|a, b| a.position.term == b.position.term) {
            let (first, last) = (run[0].position, run[run.len() - 1].position);
            self.record(Trace::Appended {
                first: first.index,
                last: last.index,
                entry_term: first.term,
            });
        }
    }

    // Everything else

    pub(super) fn record_snapshot(
        &mut self,
        what: SnapshotStep,
        index: LogIndex,
        peer: Option<NodeId>,
    ) {
        self.record(Trace::Snapshot { what, index, peer });
    }

    pub(super) fn record_link(&mut self, peer: NodeId, up: bool) {
        let changed = match up {
            true => self.tracer.links.insert(peer),
            false => self.tracer.links.remove(&peer),
        };
        if changed {
            self.record(Trace::Link { peer, up });
        }
    }

    pub(super) fn record_forward(&mut self, what: ForwardStep, to: Option<NodeId>, count: usize) {
        if count > 0 {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.record(Trace::Forward { what, to, count });
        }
    }

    /// A forwarded command of this member is applied.
    pub(super) fn forward_answered(&mut self) {
        self.tracer.answered += 1;
    }

    /// Entries were applied.
    pub(super) fn record_applied(&mut self) {
        let (index, answered) = (
            self.state.applied,
            std::mem::take(&mut self.tracer.answered),
        );
        self.record(Trace::Applied { index });
        self.record_forward(ForwardStep::Answered, None, answered);
    }
}

/// The hard state that the input reports as stored.
pub(super) fn stored_by(input: &Input) -> Option<HardState> {
    match input {
        Input::HardStateStored { hard_state } => Some(*hard_state),
        _ => None,
    }
}

fn sent(to: NodeId, message: &PeerMessage) -> Trace {
    Trace::Sent {
        to,
        message: MessageSummary::of(message),
    }
}
