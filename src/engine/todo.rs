//! Carries out what the core requests.

use super::peer_message::LeaderReply;
use super::request::{Effect, Query, Request};
use super::rules::{Rule, Rules};
use super::state::Outcome;
use super::trace::{ForwardStep, Trace};
use super::tracing::stored_by;
use super::{Applying, DiskJob, Engine, entry};
use crate::raft::{Entry, Input, LogIndex, Payload, Position, Refusal, Term, Todo};
use crate::tree::Event;

/// Approximate overhead of a record in the WAL, without its command.
const ENTRY_OVERHEAD: usize = 40;

/// Maximum number of messages that wait for the disk. The oldest are dropped first.
const MESSAGES_MAX: usize = 4096;

impl<T, R: Rules> Engine<T, R> {
    /// Steps the core and processes its output. Returns the answers to a proposal.
    pub(super) fn input(&mut self, input: Input) -> (Option<Position>, Option<Refusal>) {
        let from = match &input {
            Input::Message { from, .. } => Some(*from),
            _ => None,
        };
        let stored = stored_by(&input);
        let todo = self.core.step(input);
        self.rules.stepped(&self.core, &todo);
        self.record_step(stored, &todo);
        self.note_changes(from);
        let answer = (todo.accepted, todo.refused);
        self.perform(todo);
        answer
    }

    pub(super) fn perform(&mut self, todo: Todo) {
        self.note_refusals(&todo.send_stored);
        if !todo.send_now.is_empty() {
            self.note_refusals(&todo.send_now);
            let messages = self.messages(todo.send_now);
            self.effects.send.extend(messages);
        }
        for &(from, violation) in &todo.violations {
            self.violated(from, violation);
        }
        for &(from, last) in &todo.lost_tail {
            self.note_lost_tail(from, last);
        }
        for &to in &todo.send_snapshot {
            self.send_snapshot(to);
        }
        if let Some(metadata) = todo.install {
            self.install(metadata);
        }
        if let Some(hard_state) = todo.hard_state {
            let waits = self.batch.hard_state;
            assert!(
                waits.is_none_or(|waits| waits.term <= hard_state.term),
                "{hard_state:?} after {waits:?}"
            );
            self.batch.hard_state = todo.hard_state;
        }
        self.batch.add(todo.append);
        if !todo.send_stored.is_empty() {
            let messages = self.messages(todo.send_stored);
            self.then.extend(messages);
            // While the disk is full, they would accumulate without limit. Raft sends them again.
            let over = self.then.len().saturating_sub(MESSAGES_MAX);
            self.then.drain(..over);
        }
        self.apply(todo.apply);
        if let Some((from, to)) = todo.read {
            self.effects.disk.push(DiskJob::Read { from, to });
        }
        for &(id, index) in &todo.reads {
            self.read_confirmed(id, index);
        }
        self.reads_refused(&todo.refused_reads);
    }

    fn read_confirmed(&mut self, id: u64, index: LogIndex) {
        self.record(Trace::Read { index: Some(index) });
        match self.asked.take(id) {
            Some((from, number)) => self.reply_to_member(from, number, LeaderReply::Index(index)),
            None => self.index_is_known(id, index),
        }
    }

    pub(super) fn index_is_known(&mut self, id: u64, index: LogIndex) {
        match self.rules.keeps(Rule::ReadWaitsForItsIndex) {
            true => self.reads.confirmed(id, index),
            false => self.reads.confirmed(id, LogIndex(0)),
        }
    }

    fn reads_refused(&mut self, ids: &[u64]) {
        if ids.is_empty() {
            return;
        }
        self.reads_not_taken(ids);
        for id in ids {
            if let Some((from, number)) = self.asked.take(*id) {
                self.reply_to_member(from, number, LeaderReply::NotTaken);
            }
        }
    }

    pub(super) fn reads_not_taken(&mut self, ids: &[u64]) {
        for (deadline, caller) in self.reads.refused(ids) {
            let query = Query {
                caller,
                patience: None,
                deadline: Some(deadline),
            };
            self.try_again(Request::Read(query));
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        for entry in entries {
            let command: &[u8] = match &entry.payload {
                Payload::Command(command) => command,
                _ => &[],
            };
            self.schedule.applied(command.len() + ENTRY_OVERHEAD);
            if entry::is_update(command) && self.rules.keeps(Rule::NewUrlsAreSaved) {
                self.schedule.hurry();
            }
            let caller = self.caller_of(&entry);
            let change = self.member_change(&entry);
            if !self.rules.keeps(Rule::ApplyReadsNoClock) {
                self.state.time = self.cluster_time();
            }
            let (latest, counts) = (self.state.time, self.rules.keeps(Rule::LatestTimeCounts));
            if !counts && let Ok((stamp, _)) = entry::decode(command) {
                self.state.time = stamp.cluster;
            }
            let outcome = self.state.apply(&entry);
            if !counts {
                self.state.time = self.state.time.max(latest);
            }
            self.rules.applied(&entry, &self.state, &outcome);
            if let (Some(change), Outcome::Members(Ok(())) | Outcome::Quiet) = (change, &outcome) {
                self.note_member_change(entry.position.index, change);
            }
            self.take_outcome(entry.position.index, caller, outcome);
            self.unpublished = true;
        }
        self.record_applied();
        // The leader that stamped these entries was ahead of this member's estimate.
        self.estimate = self.estimate.at_least(self.state.time, self.now.monotonic);
        self.check_estimate();
    }

    /// Cluster time is never before the time of an applied entry.
    pub(super) fn check_estimate(&self) {
        let (now, least) = (self.cluster_time(), self.state.time);
        assert!(now >= least, "cluster time {now:?}, applied {least:?}");
    }

    /// The caller that waits for this entry. The first entry of a term shows that commands which were forwarded in
    /// earlier terms and not applied yet are lost.
    fn caller_of(&mut self, entry: &Entry) -> Option<T> {
        let Position { term, .. } = entry.position;
        assert!(
            term >= self.applied_term,
            "{} is applied after an entry of {:?}",
            entry.position,
            self.applied_term
        );
        if term > self.applied_term {
            self.applied_term = term;
            self.end_forwards_before(term);
        }
        let request = match self.rules.keeps(Rule::TicketNamesItsTerm) {
            true => self.pending.take(entry.position, &mut self.lost),
            false => self.pending.take_at(entry.position.index),
        };
        let command = match &entry.payload {
            Payload::Command(bytes) => bytes,
            Payload::Change(change) => &change.context,
            Payload::Noop => return request,
        };
        let forwarded = entry::tag(command).and_then(|tag| self.forwards.applied(tag));
        if forwarded.is_some() {
            self.forward_answered();
        }
        forwarded.or(request)
    }

    fn end_forwards_before(&mut self, term: Term) {
        if !self.rules.keeps(Rule::SentOnce) {
            return self.send_again_before(term);
        }
        if self.rules.keeps(Rule::ForwardsEndWithTheirTerm) {
            let lost = self.forwards.outdated(term);
            self.record_forward(ForwardStep::Failed, None, lost.len());
            self.lost.extend(lost);
        }
    }

    /// Violates [`Rule::SentOnce`], for the simulator.
    fn send_again_before(&mut self, term: Term) {
        while let Some(number) = self.forwards.first_outdated(term) {
            self.not_taken(number);
        }
    }

    fn take_outcome(&mut self, index: LogIndex, caller: Option<T>, outcome: Outcome) {
        match outcome {
            Outcome::Tree(Ok(applied)) => {
                if !self.is_old(index) {
                    self.effects.accepted_bytes += client_bytes(&applied.event) as u64;
                }
                self.applied(index, caller, Effect::Event(applied));
            }
            Outcome::Tree(Err(error)) => self.applied(index, caller, Effect::Refused(error)),
            Outcome::Expired { all, is_cut } => {
                if self.keeps_time() {
                    let now = self.now.monotonic;
                    self.expiry.applied(all.len(), is_cut, now);
                }
                all.into_iter()
                    .for_each(|applied| self.applied(index, None, Effect::Event(applied)));
            }
            Outcome::Members(result) => {
                self.members_changed();
                self.applied(index, caller, Effect::Members(result));
            }
            Outcome::Auth(result) => {
                self.effects.auth_changed = true;
                self.applied(index, caller, Effect::Auth(result));
            }
            Outcome::Quiet => {}
        }
    }

    fn applied(&mut self, applied: LogIndex, caller: Option<T>, effect: Effect) {
        let term = self.shown_term();
        self.results.push(Applying {
            caller,
            effect,
            applied,
            term,
        });
    }

    pub(super) fn members_changed(&mut self) {
        self.effects.members_changed = true;
        let members = &self.state.members;
        if members.was_removed(self.core.id()) {
            self.was_removed();
        }
    }
}

/// The bytes that a client wants to store: a key, and its value unless the value is kept.
fn client_bytes(event: &Event) -> usize {
    let value = event.node.value.as_ref().filter(|_| !event.refresh);
    event.key.as_bytes().len() + value.map_or(0, |value| value.len())
}
