//! Client requests. Writes and membership changes are appended here or forwarded to the leader. Reads are confirmed by
//! the leader.

use super::forwards::Kind;
use super::members::MemberError;
use super::peer_message::PeerMessage;
use super::request::{Effect, Failure, Outcome, Proposal, Query, Request, Task};
use super::rules::{Rule, Rules};
use super::time::Monotonic;
use super::trace::{ForwardStep, Trace};
use super::{Engine, PENDING_MAX, entry, state};
use crate::raft::{
    Change, ChangeKind, Entry, Input, LogIndex, NodeId, Payload, Position, Refusal, Term,
};
use crate::tree::{ClusterTime, Stamp};
use core::time::Duration;
use std::sync::Arc;

impl<T, R: Rules> Engine<T, R> {
    /// Processes new requests, or refuses them if this member stops.
    pub(super) fn take_requests(&mut self, requests: Vec<Request<T>>) {
        match self.stopping.is_some() {
            true => {
                (requests.into_iter()).for_each(|request| self.refuse(request, Failure::Stopped))
            }
            false => self.serve(requests),
        }
    }

    /// Processes requests. All writes become one run of entries, and all reads share one question. A member that stops
    /// finishes the requests that it has received before, also those that wait for the next leader.
    fn serve(&mut self, requests: Vec<Request<T>>) {
        let (mut writes, mut queries) = (Vec::new(), Vec::new());
        for request in requests {
            match (request, self.limit(writes.len())) {
                (Request::Read(query), _) if self.serves_reads() => {
                    self.sort_read(query, &mut queries);
                }
                (Request::Copy(caller), _) => self.copy(caller),
                (Request::Probe(caller), None) => self.probe(caller),
                (Request::Propose(write), None) if !self.is_understood(&write.bytes) => {
                    self.refuse(Request::Propose(write), Failure::NotUnderstood);
                }
                (Request::Propose(write), None) if self.admits(&write.bytes) => writes.push(write),
                (Request::Change(write), None) => self.ask_change(write),
                (request, refusal) => self.refuse(request, refusal.unwrap_or(Failure::DiskFull)),
            }
        }
        self.propose(writes);
        self.ask_reads(queries);
    }

    /// A clone of the state copies a few pointers. The caller does the rest of the work.
    fn copy(&mut self, caller: T) {
        let mut state = self.state.clone();
        state.members.hide_incarnations();
        match self.core.metadata_at(state.applied) {
            Some(metadata) => {
                let term = self.shown_term();
                self.reply(
                    caller,
                    Outcome::Copy(Box::new(Task { metadata, state }), term),
                );
            }
            // There is no applied entry to copy yet.
            None => self.fail(vec![caller], Failure::LeaderLost),
        }
    }

    /// The next batch answers it. That batch may have to wait for the present one.
    fn probe(&mut self, caller: T) {
        let deadline = self.now.monotonic + self.settings.request_timeout;
        self.probes.waiting.push((deadline, caller));
    }

    /// Collects a read that can be asked now; other reads wait for a leader.
    fn sort_read(&mut self, query: Query<T>, now: &mut Vec<Query<T>>) {
        if self.core.leader().is_some() {
            return now.push(query);
        }
        let most = self.settings.leader_timeout;
        let patience = query.patience.unwrap_or(most);
        self.await_leader_for(patience.min(most), Request::Read(query));
    }

    /// Whether there is space for the keys that this command may add.
    pub(super) fn admits(&self, command: &[u8]) -> bool {
        self.no_room.is_none() || entry::removes(command)
    }

    /// Why another member's writes are refused now, if `taken` were already accepted in this step.
    pub(super) fn refusal(&self, taken: usize) -> Option<Failure> {
        let stops = self.stopping.as_ref().map(|_| Failure::Stopped);
        stops.or_else(|| self.limit(taken))
    }

    /// Why writes are refused now, if `taken` were already accepted in this step.
    fn limit(&self, taken: usize) -> Option<Failure> {
        if self.disk_full {
            Some(Failure::DiskFull)
        } else if self.pending.len() + self.forwards.len() + taken >= PENDING_MAX {
            Some(Failure::Overloaded)
        } else {
            None
        }
    }

    /// Quorum reads need no disk as soon as an entry of this term is committed.
    pub(super) fn serves_reads(&self) -> bool {
        let core = &self.core;
        let committed = core.position_at(core.commit());
        !self.disk_full || committed.is_some_and(|last| last.term == core.term())
    }

    // Writes

    /// Appends the writes, forwards them, or lets them wait for a leader.
    pub(super) fn propose(&mut self, writes: Vec<Proposal<T>>) {
        match self.led_elsewhere() {
            _ if writes.is_empty() => {}
            Some(leader) => self.forward(leader, Kind::Command, writes),
            None => self.append(writes),
        }
    }

    /// The leader, if another member leads.
    fn led_elsewhere(&self) -> Option<NodeId> {
        let core = &self.core;
        core.leader().filter(|leader| *leader != core.id())
    }

    fn forward(&mut self, leader: NodeId, kind: Kind, writes: Vec<Proposal<T>>) {
        let deadline = self.now.monotonic + self.settings.request_timeout;
        let term = self.core.term();
        self.record_forward(ForwardStep::Sent, Some(leader), writes.len());
        let messages = self.forwards.send(kind, writes, term, deadline);
        let addressed = messages
            .into_iter()
            .map(|peer_message| (leader, peer_message));
        self.effects.send.extend(addressed);
    }

    fn append(&mut self, writes: Vec<Proposal<T>>) {
        let stamp = self.stamp();
        let (commands, mut askers): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|mut write| {
                entry::stamp(&mut write.bytes, stamp);
                let command: Arc<[u8]> = Arc::from(std::mem::take(&mut write.bytes));
                (command, write)
            })
            .unzip();
        let (accepted, refused) = self.input(Input::Propose {
            term: None,
            commands: commands.clone(),
        });
        match (accepted, refused) {
            (Some(first), None) => {
                self.check_appended(first, askers.len());
                if !self.rules.keeps(Rule::RepliedWhenApplied) {
                    self.reply_when_appended(first, &commands, &mut askers);
                }
                self.hand_out_tickets(first, askers);
            }
            (None, Some(refusal)) => self.refused(refusal, &commands, askers),
            both => unreachable!("a proposal is accepted or refused, not {both:?}"),
        }
    }

    /// Violates [`Rule::RepliedWhenApplied`], for the simulator: answers with what the entries would do to the state of
    /// this moment.
    fn reply_when_appended(
        &mut self,
        first: Position,
        commands: &[Arc<[u8]>],
        askers: &mut [Proposal<T>],
    ) {
        let (mut guess, term) = (self.state.clone(), self.shown_term());
        guess.applied = first.index.previous();
        for (command, asker) in commands.iter().zip(askers) {
            let applied = guess.applied.next();
            let entry = Entry {
                position: Position {
                    index: applied,
                    ..first
                },
                payload: Payload::Command(command.clone()),
            };
            let state::Outcome::Tree(Ok(event)) = guess.apply(&entry) else {
                continue;
            };
            if let Some(caller) = asker.caller.take() {
                let effect = Effect::Event(event);
                let outcome = Outcome::Done {
                    effect,
                    applied,
                    term,
                };
                self.reply(caller, outcome);
            }
        }
    }

    /// Each caller waits for the entry of its own command: `commands` entries were appended, from `first` on.
    pub(super) fn check_appended(&self, first: Position, commands: usize) {
        let (term, last) = (self.core.term(), self.core.last_position());
        assert_eq!(first.term, term, "{first} is appended in {term:?}");
        assert_eq!(
            first.index.after(commands),
            last.index.next(),
            "{commands} entries from {first} on end at {last}"
        );
    }

    fn hand_out_tickets(&mut self, first: Position, askers: Vec<Proposal<T>>) {
        let latest = self.now.monotonic + self.settings.request_timeout;
        for (offset, asker) in askers.into_iter().enumerate() {
            let index = LogIndex(first.index.0 + offset as u64);
            let deadline = asker.deadline.unwrap_or(latest);
            if let Some(caller) = asker.caller {
                self.pending
                    .push(Position { index, ..first }, deadline, caller);
            }
        }
    }

    /// `askers` are the writes whose bytes were moved into `commands`.
    fn refused(&mut self, refusal: Refusal, commands: &[Arc<[u8]>], askers: Vec<Proposal<T>>) {
        // What nobody waits for was this leader's own: it is no longer for it to decide.
        let asked = |(_, asker): &(_, Proposal<T>)| asker.caller.is_some();
        for (bytes, asker) in commands.iter().zip(askers).filter(asked) {
            let request = Request::Propose(Proposal {
                bytes: bytes.to_vec(),
                ..asker
            });
            match refusal {
                Refusal::Full => self.refuse(request, Failure::Overloaded),
                _ => self.try_again(request),
            }
        }
    }

    /// The times for the entries of this batch.
    pub(super) fn stamp(&self) -> Stamp {
        let wall = self.now.wall;
        let cluster = match self.rules.keeps(Rule::TimeIsMonotonic) {
            true => self.cluster_time(),
            false => ClusterTime(wall.0.unsigned_abs()),
        };
        Stamp { cluster, wall }
    }

    /// Never earlier than the time of an applied entry.
    pub(super) fn cluster_time(&self) -> ClusterTime {
        self.estimate.at(self.now.monotonic)
    }

    /// The term that clients see. A client never sees an older term after a restart.
    pub(super) fn shown_term(&self) -> Term {
        match self.rules.keeps(Rule::ShownTermIsStored) {
            true => self.core.stored_term(),
            false => self.core.term(),
        }
    }

    // Membership changes

    fn ask_change(&mut self, write: Proposal<T>) {
        let strict = self.settings.strict_changes;
        let led = self.core.leader().is_some();
        match self.led_elsewhere() {
            Some(leader) => self.forward(leader, Kind::Change, vec![write]),
            // Without a reachable majority, an addition is refused at once (spec §11).
            None if strict && !led && entry::is_add(&write.bytes) => {
                self.tell_refused(MemberError::Unhealthy, write.caller.into_iter().collect());
            }
            None => self.append_change(write),
        }
    }

    fn append_change(&mut self, write: Proposal<T>) {
        match self.change(&write.bytes) {
            Ok(position) => self.hand_out_tickets(position, vec![write]),
            Err(Unchanged::NotTaken) => self.try_again(Request::Change(write)),
            Err(Unchanged::Refused(error)) => {
                let waiters = write.caller.into_iter().collect();
                self.tell_refused(error, waiters);
            }
        }
    }

    /// Appends a membership change, if it is allowed.
    pub(super) fn change(&mut self, command: &[u8]) -> Result<Position, Unchanged> {
        let change = self.may_change(command)?;
        let mut command = command.to_vec();
        entry::stamp(&mut command, self.stamp());
        let context: Arc<[u8]> = Arc::from(command);
        let input = match change {
            Some((kind, node)) => Input::ProposeChange {
                change: Change {
                    kind,
                    node,
                    context,
                },
            },
            None => Input::Propose {
                term: None,
                commands: vec![context],
            },
        };
        let (accepted, refused) = self.input(input);
        match (accepted, refused) {
            (Some(position), None) => {
                self.check_appended(position, 1);
                self.changing = Some(position);
                Ok(position)
            }
            (None, Some(refusal)) => Err(unchanged(refusal)),
            both => unreachable!("a change is accepted or refused, not {both:?}"),
        }
    }

    /// The change that the command makes to raft's membership; `None` if it only changes a member's peer URLs. A member
    /// that was added and is not a voter yet prevents further additions. That check is first, as in the reference.
    ///
    /// Members may be added while a minority is down. The reference refuses that. Here the new member has no vote
    /// before it has caught up, so it cannot cost the majority (hazard D11).
    fn may_change(&self, command: &[u8]) -> Result<Option<(ChangeKind, NodeId)>, Unchanged> {
        let core = &self.core;
        // The table shows the applied state. It must contain all earlier changes, including those that an earlier
        // leader has acknowledged. Those are before the first entry of this term. The table need not contain everything
        // that is committed: a leader with the slowest disk is always behind.
        let applied = self.state.applied;
        let changing = self
            .changing
            .is_some_and(|last| last.term == core.term() && last.index > applied);
        let knows_all = self.applied_term == core.term();
        let in_turn = knows_all && !changing || !self.rules.keeps(Rule::ChangesOneByOne);
        if !core.is_leader() || !in_turn {
            return Err(Unchanged::NotTaken);
        }
        let members = &self.state.members;
        match entry::decode(command) {
            Ok((_, entry::Command::Add(_)))
                if self.settings.strict_changes && !core.membership().learners.is_empty() =>
            {
                Err(MemberError::Unhealthy)
            }
            Ok((_, entry::Command::Add(member))) => members
                .may_add(&member)
                .map(|()| Some((ChangeKind::AddLearner, NodeId(member.id)))),
            Ok((_, entry::Command::Remove(id))) => members
                .may_remove(id)
                .map(|()| Some((ChangeKind::Remove, id))),
            Ok((_, entry::Command::Update(member))) => members.may_update(&member).map(|()| None),
            // A command of another version. It was decoded by the member that received it.
            _ => Err(MemberError::Unhealthy),
        }
        .map_err(Unchanged::Refused)
    }

    /// Answers with a refusal that needed no entry.
    pub(super) fn tell_refused(&mut self, error: MemberError, callers: Vec<T>) {
        let applied = self.state.applied;
        let term = self.shown_term();
        for caller in callers {
            let effect = Effect::Members(Err(error));
            self.reply(
                caller,
                Outcome::Done {
                    effect,
                    applied,
                    term,
                },
            );
        }
    }

    // Waiting for a leader

    /// A returned request waits for a leader that accepts it, for as long as a request without a leader.
    pub(super) fn try_again(&mut self, request: Request<T>) {
        self.await_leader_for(self.settings.leader_timeout, request);
    }

    /// The deadline of a request does not change, however often the request is returned.
    fn await_leader_for(&mut self, patience: Duration, mut request: Request<T>) {
        let now = self.now.monotonic;
        let latest = now + self.settings.request_timeout;
        let give_up = request.deadline(latest).min(now + patience);
        self.await_leader(give_up, request);
    }

    fn await_leader(&mut self, give_up: Monotonic, request: Request<T>) {
        if let Err(request) = self.leaderless.push(give_up, request) {
            self.refuse(request, Failure::Overloaded);
        }
    }

    /// Processes the requests that wait for a leader if there is one, and fails those whose deadline has passed.
    pub(super) fn retry_leaderless(&mut self, now: Monotonic) {
        if self.leaderless.len() == 0 {
            return;
        }
        let led = self.core.leader().is_some();
        let mut served = Vec::new();
        for (give_up, request) in self.leaderless.take() {
            match request {
                request if now >= give_up => self.refuse(request, Failure::TimedOut),
                request if led => served.push(request),
                request => self.await_leader(give_up, request),
            }
        }
        self.serve(served);
    }

    // Reads

    /// One question for all reads with the full timeout, and one for each read with a shorter one.
    fn ask_reads(&mut self, queries: Vec<Query<T>>) {
        let latest = self.now.monotonic + self.settings.request_timeout;
        let mut patient = Vec::new();
        for query in queries {
            let Query {
                caller,
                patience,
                deadline,
            } = query;
            let own = patience.map(|patience| self.now.monotonic + patience);
            match deadline.into_iter().chain(own).min() {
                Some(until) => self.ask(vec![caller], until.min(latest)),
                None => patient.push(caller),
            }
        }
        if !patient.is_empty() {
            self.ask(patient, latest);
        }
    }

    fn ask(&mut self, readers: Vec<T>, until: Monotonic) {
        if self.core.is_leader() && !self.rules.keeps(Rule::ReadAsks) {
            return readers
                .into_iter()
                .for_each(|reader| self.reply(reader, Outcome::Confirmed));
        }
        if !self.rules.keeps(Rule::ReadIdIsNew) {
            self.reads.use_ids_again();
        }
        let number = self.reads.ask(readers, self.now.monotonic, until);
        self.ask_leader(number);
    }

    /// Sends a question to the leader, which may be this member. Without a leader it waits.
    fn ask_leader(&mut self, number: u64) {
        self.record(Trace::Read { index: None });
        match self.led_elsewhere() {
            Some(leader) => self
                .effects
                .send
                .push((leader, PeerMessage::AskIndex { number })),
            None if self.core.is_leader() => {
                self.input(Input::ReadIndex { id: number });
            }
            None => {}
        }
    }

    /// Asks all unanswered questions again, under new numbers: the member that was asked no longer leads, or the
    /// message was lost.
    pub(super) fn ask_again(&mut self) {
        self.ask_again_since(self.now.monotonic);
    }

    /// A reply may also get lost. So questions that are unanswered for an election timeout are asked again.
    pub(super) fn ask_again_unanswered(&mut self, now: Monotonic) {
        if let Some(time) = now.checked_sub(self.settings.leader_timeout / 2) {
            self.ask_again_since(time);
        }
    }

    fn ask_again_since(&mut self, time: Monotonic) {
        for number in self.reads.renumber(time, self.now.monotonic) {
            self.ask_leader(number);
        }
    }
}

/// Why a change was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchanged {
    /// It may be requested again.
    NotTaken,
    Refused(MemberError),
}

fn unchanged(refusal: Refusal) -> Unchanged {
    match refusal {
        Refusal::AlreadyMember => Unchanged::Refused(MemberError::IdExists),
        Refusal::NoSuchMember => Unchanged::Refused(MemberError::NotFound),
        Refusal::QuorumLost => Unchanged::Refused(MemberError::Unhealthy),
        Refusal::NotLeader { .. }
        | Refusal::OtherTerm
        | Refusal::Transferring
        | Refusal::Full
        | Refusal::ChangePending
        | Refusal::NotCaughtUp => Unchanged::NotTaken,
    }
}
