//! The leader's side of replication: it probes, sends entries, counts acknowledgements and commits.
//!
//! For each other member, the leader records the last entry that is on that member's disk and identical to its own
//! (`matched`), the next entry it will send, and how it sends:
//!
//! | flow     | when                                                      | what the leader sends                      |
//! |----------|-----------------------------------------------------------|--------------------------------------------|
//! | probe    | the leader does not know where the logs agree             | one append, then it waits for the reply    |
//! | stream   | the last reply was an acknowledgement                     | appends without waiting, up to a window    |
//! | snapshot | the entries it needs are no longer in the log             | nothing; the driver streams a snapshot     |
//!
//! The reply to a refused probe contains the last position at which the follower's log could agree (paper §5.3, end).
//! So a probe steps back by a whole term, not by one entry. A stream in which a message was lost becomes a probe again:
//! after a refusal, when the driver reports dropped messages, or when an append is unanswered for an election timeout
//! while heartbeats are answered. A follower that does not answer heartbeats receives only heartbeats.
//!
//! A refusal below `matched` contradicts an acknowledgement: the follower's disk has lost entries. Such a follower
//! cannot be brought up to date, because its votes and acknowledgements are worth nothing (like those of a member whose
//! data directory was wiped). The leader probes it once per heartbeat, without entries, and reports it.
//!
//! The leader sends an append while its own disk still writes the entry, because both take about the same time. The
//! leader counts like one more follower. Its `matched` is what its own disk has confirmed.

use super::core::{Core, Refusal, State};
use super::message::{
    Body, ENTRY_BYTES, Entry, LogIndex, Membership, NodeId, Payload, Position, Term,
};
use super::read_index::Reads;
use super::rules::Rules;
use super::transfer::Transfer;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Maximum number of appends that are on their way to one follower, independent of their size.
const WINDOW_MESSAGES: usize = 256;

/// A leader's data in its term.
#[derive(Debug)]
pub(super) struct Leading {
    /// Progress of all members except the leader.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// Index of the no-op that began this term.
    pub(super) term_start: LogIndex,
    /// The tick at which this node became leader.
    since: u64,
    heartbeat_in: u32,
    /// Number of the newest heartbeat round.
    pub(super) round: u64,
    pub(super) reads: Reads,
    pub(super) transfer: Option<Transfer>,
    uncommitted: Uncommitted,
    /// The follower for which entries were last read from disk. The next one in order is served next.
    served: NodeId,
    /// The commit index of at least an election timeout ago, the one recorded last, and the tick at which it was
    /// recorded.
    commits: (LogIndex, LogIndex, u64),
}

/// The leader's information about one other member.
#[derive(Debug)]
pub(super) struct Progress {
    /// Entries up to here are on its disk and identical to the leader's.
    pub(super) matched: LogIndex,
    /// The next entry to send.
    next: LogIndex,
    flow: Flow,
    /// The tick of the last message from it in this term.
    heard: Option<u64>,
    /// The newest heartbeat round that it answered.
    pub(super) round: u64,
    /// The newest commit index that the leader sent it.
    commit_sent: LogIndex,
    /// How often in a row it reported that it lacks entries that it had acknowledged. A message that was on its way for
    /// a long time can cause one such report.
    contradictions: u32,
}

/// After this many refusals of an acknowledged entry, each in reply to a separate probe, the leader concludes that the
/// follower has lost it.
const CONTRADICTIONS_MIN: u32 = 3;

#[derive(Debug)]
enum Flow {
    /// `asked`: the tick of the probe that is not answered yet.
    Probe {
        asked: Option<u64>,
    },
    Stream(Window),
    Snapshot,
}

/// Appends on their way: for each one the last index and the bytes.
#[derive(Debug)]
struct Window {
    sent: VecDeque<(LogIndex, usize)>,
    bytes: usize,
    /// The tick of the last acknowledgement, or of the first append of an empty window.
    moved: u64,
}

impl Window {
    fn add(&mut self, last: LogIndex, bytes: usize, now: u64) {
        if self.sent.is_empty() {
            self.moved = now;
        }
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn acked(&mut self, matched: LogIndex, now: u64) {
        while let Some(&(last, bytes)) = self.sent.front()
            && last <= matched
        {
            self.sent.pop_front();
            self.bytes -= bytes;
            self.moved = now;
        }
    }

    fn is_open(&self, limit: usize) -> bool {
        self.sent.len() < WINDOW_MESSAGES && self.bytes < limit
    }
}

/// Entries that are proposed together are counted in runs of about this many bytes. So the entries that are committed
/// first free their bytes before the rest is committed.
const RUN_BYTES: usize = 256 << 10;

/// Bytes that are proposed and not committed, by run of proposals.
#[derive(Debug, Default)]
struct Uncommitted {
    bytes: usize,
    runs: VecDeque<(LogIndex, usize)>,
}

impl Uncommitted {
    fn add(&mut self, last: LogIndex, bytes: usize) {
        if bytes > 0 {
            self.bytes += bytes;
            self.runs.push_back((last, bytes));
        }
    }

    fn committed(&mut self, index: LogIndex) {
        while let Some(&(last, bytes)) = self.runs.front()
            && last <= index
        {
            self.runs.pop_front();
            self.bytes -= bytes;
        }
    }
}

/// The leader's information about another member, for statistics and to decide when to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// A voter or a learner, never the leader itself.
    pub node: NodeId,
    /// Entries up to here are on its disk and identical to the leader's.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How the leader sends entries to it.
    pub flow: PeerFlow,
    /// Ticks since the last message from it in this term; `None` if there was none.
    pub silent_ticks: Option<u64>,
}

/// How entries are sent to a member (see the table of the module).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerFlow {
    /// One append at a time, until a reply shows where the logs agree.
    Probe,
    /// Appends without waiting, up to a window of bytes.
    Stream,
    /// No entries, until the driver reports [`SnapshotSent`](super::Input::SnapshotSent).
    Snapshot,
}

impl Leading {
    pub(super) fn new(term_start: LogIndex, now: u64) -> Leading {
        Leading {
            progress: BTreeMap::new(),
            term_start,
            since: now,
            heartbeat_in: 0,
            round: 0,
            reads: Reads::default(),
            transfer: None,
            uncommitted: Uncommitted::default(),
            served: NodeId(0),
            // The leader has no earlier commit index, so a learner needs everything up to this term's first entry.
            commits: (term_start, term_start, now),
        }
    }

    /// The commit index of an election timeout ago, or of the time when this node became leader.
    pub(super) fn commit_before(&self) -> LogIndex {
        self.commits.0
    }

    /// Runs with each tick. Records the commit index once per election timeout.
    fn note_commit(&mut self, commit: LogIndex, now: u64, election_ticks: u32) {
        let (_, last, since) = self.commits;
        if now - since >= u64::from(election_ticks) {
            self.commits = (last, commit, now);
        }
    }

    /// Bytes that are proposed and not committed, or committed but not yet on this node's disk.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted.bytes
    }

    /// Begins to replicate to `id`, unless it already does. The first probe asks for `last`.
    pub(super) fn add(&mut self, id: NodeId, last: LogIndex) {
        self.progress.entry(id).or_insert(Progress {
            matched: LogIndex(0),
            next: last.next(),
            flow: Flow::Probe { asked: None },
            heard: None,
            round: 0,
            commit_sent: LogIndex(0),
            contradictions: 0,
        });
    }

    /// Whether `id` has sent a message within an election timeout, or is this node itself.
    pub(super) fn heard_lately<R: Rules>(&self, id: NodeId, core: &Core<R>) -> bool {
        let timeout = u64::from(core.settings.election_ticks);
        let heard = self.progress.get(&id).and_then(|progress| progress.heard);
        id == core.settings.id || heard.is_some_and(|tick| core.now - tick < timeout)
    }

    pub(super) fn overview(&self, now: u64) -> Vec<PeerProgress> {
        let one = |(node, progress): (&NodeId, &Progress)| PeerProgress {
            node: *node,
            matched: progress.matched,
            next: progress.next,
            flow: match progress.flow {
                Flow::Probe { .. } => PeerFlow::Probe,
                Flow::Stream(_) => PeerFlow::Stream,
                Flow::Snapshot => PeerFlow::Snapshot,
            },
            silent_ticks: progress.heard.map(|tick| now - tick),
        };
        self.progress.iter().map(one).collect()
    }
}

impl Progress {
    /// Probes at once, beginning with `next`.
    fn probe(&mut self, next: LogIndex) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { asked: None };
    }

    /// The follower has all entries up to `matched`. From now on the leader sends without waiting for replies.
    fn stream(&mut self, now: u64) {
        self.next = self.matched.next();
        self.flow = Flow::Stream(Window {
            sent: VecDeque::new(),
            bytes: 0,
            moved: now,
        });
    }
}

impl<R: Rules> Core<R> {
    /// Appends an entry that the leader itself creates.
    pub(super) fn append_own(&mut self, payload: Payload) -> Position {
        let position = Position {
            term: self.hard_state.term,
            index: self.log.last().next(),
        };
        let entry = Entry { position, payload };
        let is_change = matches!(entry.payload, Payload::Change(_));
        self.append(entry);
        if is_change {
            self.follow_membership();
        }
        position
    }

    /// Appends an entry to the log and to the entries that the disk must store.
    pub(super) fn append(&mut self, entry: Entry) {
        self.members.appended(&entry);
        self.log.push(entry.clone());
        self.todo.append.push(entry);
    }

    pub(super) fn propose(&mut self, term: Option<Term>, commands: Vec<Arc<[u8]>>) {
        let bytes = commands
            .iter()
            .map(|command| command.len() + ENTRY_BYTES)
            .sum();
        if let Err(refusal) = self.may_propose(term, bytes) {
            self.todo.refused = Some(refusal);
            return;
        }
        let (term, first) = (self.hard_state.term, self.log.last().next());
        self.todo.accepted = Some(Position { term, index: first });
        self.todo.append.reserve(commands.len());
        let mut run = 0;
        for (index, command) in (first.0..).zip(commands) {
            run += command.len() + ENTRY_BYTES;
            let position = Position {
                term,
                index: LogIndex(index),
            };
            let entry = Entry {
                position,
                payload: Payload::Command(command),
            };
            self.log.push(entry.clone());
            self.todo.append.push(entry);
            if run >= RUN_BYTES {
                self.count_uncommitted(std::mem::take(&mut run));
            }
        }
        self.count_uncommitted(run);
    }

    /// Counts `bytes` for the newest entries.
    fn count_uncommitted(&mut self, bytes: usize) {
        if let State::Leader(leading) = &mut self.state {
            leading.uncommitted.add(self.log.last(), bytes);
        }
    }

    fn may_propose(&self, term: Option<Term>, bytes: usize) -> Result<(), Refusal> {
        let State::Leader(leading) = &self.state else {
            return Err(Refusal::NotLeader {
                leader: self.leader,
            });
        };
        let waiting = leading.uncommitted.bytes;
        if term.is_some_and(|term| term != self.hard_state.term) {
            Err(Refusal::OtherTerm)
        } else if leading.transfer.is_some() {
            Err(Refusal::Transferring)
        } else if waiting > 0 && waiting + bytes > self.settings.uncommitted_bytes {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// A leader's tick: check-quorum, the deadline of a transfer, heartbeats.
    pub(super) fn tick_leading(&mut self) {
        if self.lost_quorum() {
            return self.step_down();
        }
        self.tick_transfer();
        let (commit, now, ticks) = (self.commit, self.now, self.settings.election_ticks);
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        leading.note_commit(commit, now, ticks);
        if leading.heartbeat_in > 1 {
            leading.heartbeat_in -= 1;
            return;
        }
        if let Some(transfer) = &mut leading.transfer {
            transfer.target_asked = false;
        }
        self.heartbeat();
    }

    /// Whether the leader has received no messages from a majority for an election timeout (dissertation §6.2). Then
    /// another node may lead already, and clients should ask that one.
    fn lost_quorum(&self) -> bool {
        let State::Leader(leading) = &self.state else {
            return false;
        };
        let members = self.members.current();
        let timeout = u64::from(self.settings.election_ticks);
        let heard = || {
            members
                .voters
                .iter()
                .filter(|id| leading.heard_lately(**id, self))
                .count()
        };
        R::CHECK_QUORUM && self.now - leading.since >= timeout && heard() < members.majority()
    }

    /// Begins a heartbeat round, for all reads that wait for one.
    pub(super) fn heartbeat(&mut self) {
        let commit = self.commit_position();
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        leading.round += 1;
        leading.heartbeat_in = self.settings.heartbeat_ticks;
        let round = leading.round;
        let followers: Vec<NodeId> = leading.progress.keys().copied().collect();
        followers
            .into_iter()
            .for_each(|id| self.send(id, Body::Heartbeat { round, commit }));
        self.join_round();
    }

    /// A message of this term has arrived from `from`.
    pub(super) fn heard(&mut self, from: NodeId) {
        let now = self.now;
        if let Some(progress) = self.progress_of(from) {
            progress.heard = Some(now);
        }
    }

    fn progress_of(&mut self, id: NodeId) -> Option<&mut Progress> {
        match &mut self.state {
            State::Leader(leading) => leading.progress.get_mut(&id),
            _ => None,
        }
    }

    /// The follower's log is on its disk and identical to this one up to `matched`.
    pub(super) fn on_accepted(&mut self, from: NodeId, matched: LogIndex) {
        let (now, base) = (self.now, self.log.base().index);
        let matched = matched.min(self.log.last());
        let Some(progress) = self.progress_of(from) else {
            return;
        };
        progress.matched = progress.matched.max(matched);
        progress.contradictions = 0;
        let meets = matched >= base;
        match &mut progress.flow {
            Flow::Stream(window) => {
                window.acked(matched, now);
                progress.next = progress.next.max(matched.next());
            }
            Flow::Probe { .. } if matched.next() >= progress.next => progress.stream(now),
            Flow::Snapshot if meets => progress.stream(now),
            Flow::Probe { .. } | Flow::Snapshot => {}
        }
    }

    /// The follower does not have this log's entry at `previous`.
    pub(super) fn on_refused(&mut self, from: NodeId, previous: LogIndex, hint: Position) {
        let meet = self.log.last_at_most(hint.index, hint.term);
        let (base, now) = (self.log.base().index, self.now);
        let Some(progress) = self.progress_of(from) else {
            return;
        };
        match progress.flow {
            Flow::Stream(_) if previous > progress.matched => progress.probe(LogIndex(0)),
            Flow::Probe { .. } if previous.next() == progress.next => {
                if previous <= progress.matched {
                    return self.on_contradiction(from, hint.index);
                }
                // If the logs agree nowhere above the base, probe before it, so that a snapshot is sent.
                progress.probe(meet.map_or(base, |position| position.index.next()));
                // The same probe would get the same refusal, so it is sent again only after a pause.
                if progress.next > previous && R::REPEATED_PROBES_WAIT {
                    progress.flow = Flow::Probe { asked: Some(now) };
                }
            }
            _ => {}
        }
    }

    /// The follower reports that its log ends at `last`, before an entry that it has acknowledged. A message that was
    /// on its way for a long time can cause this once. Otherwise its disk has lost entries. Then only the wait for the
    /// next heartbeat keeps probe and refusal from repeating as fast as the network allows.
    fn on_contradiction(&mut self, from: NodeId, last: LogIndex) {
        let now = self.now;
        let Some(progress) = self.progress_of(from) else {
            return;
        };
        progress.probe(LogIndex(0));
        if R::REPEATED_PROBES_WAIT {
            progress.flow = Flow::Probe { asked: Some(now) };
        }
        progress.contradictions += 1;
        if progress.contradictions >= CONTRADICTIONS_MIN {
            self.todo.lost_tail.push((from, last));
        }
    }

    /// The follower is alive. Messages to it that seem lost are sent again.
    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, round: u64) {
        let (now, settings) = (self.now, &self.settings);
        let begun = match &self.state {
            State::Leader(leading) => leading.round,
            _ => 0,
        };
        let patience = [settings.heartbeat_ticks, settings.election_ticks].map(u64::from);
        let Some(progress) = self.progress_of(from) else {
            return;
        };
        // A reply to a round that this leader has not begun confirms nothing.
        progress.round = progress.round.max(round.min(begun));
        match &mut progress.flow {
            Flow::Probe { asked } => *asked = asked.filter(|tick| now - *tick < patience[0]),
            Flow::Stream(window) => {
                if !window.sent.is_empty() && now - window.moved >= patience[1] {
                    progress.probe(LogIndex(0));
                }
            }
            Flow::Snapshot => {}
        }
    }

    pub(super) fn on_unreachable(&mut self, node: NodeId) {
        let now = self.now;
        let Some(progress) = self.progress_of(node) else {
            return;
        };
        if let Flow::Stream(_) = progress.flow {
            progress.probe(LogIndex(0));
            progress.flow = Flow::Probe { asked: Some(now) };
        }
    }

    /// The follower does not know any members yet. If it has acknowledged entries before, it has lost all of them.
    pub(super) fn on_blank(&mut self, from: NodeId) {
        let Some(progress) = self.progress_of(from) else {
            return;
        };
        match progress.flow {
            Flow::Probe { asked: Some(_) } if progress.matched > LogIndex(0) => {
                self.on_contradiction(from, LogIndex(0));
            }
            Flow::Probe { .. } | Flow::Stream(_) if progress.matched == LogIndex(0) => {
                progress.flow = Flow::Snapshot;
                self.todo.send_snapshot.push(from);
            }
            _ => {}
        }
    }

    /// The driver's answer to `send_snapshot`. If it failed, the next probe (a heartbeat later) finds out what the
    /// follower needs.
    pub(super) fn on_snapshot_sent(&mut self, to: NodeId, installed: Option<Position>) {
        let (now, last) = (self.now, self.log.last());
        let Some(progress) = self.progress_of(to) else {
            return;
        };
        if let Flow::Snapshot = progress.flow {
            let next = installed.map_or(progress.next, |position| position.index.min(last).next());
            progress.probe(next);
            if installed.is_none() {
                progress.flow = Flow::Probe { asked: Some(now) };
            }
        }
    }

    /// Commits what a majority has on disk, if the newest of these entries is of this term (paper §5.4.2). An older
    /// entry could still be replaced although a majority has it; figure 8 shows how.
    pub(super) fn advance_commit(&mut self) {
        self.commit_what_a_majority_has();
        // Entries that this node's own disk does not have yet stay in memory, committed or not.
        let done = match R::UNSTORED_COUNTS {
            true => self.commit.min(self.log.stored()),
            false => self.commit,
        };
        if let State::Leader(leading) = &mut self.state {
            leading.uncommitted.committed(done);
        }
    }

    fn commit_what_a_majority_has(&mut self) {
        let State::Leader(leading) = &self.state else {
            return;
        };
        let own = if R::OWN_STORE_COUNTS {
            self.log.stored()
        } else {
            self.log.last()
        };
        let (id, progress) = (self.settings.id, &leading.progress);
        let index = LogIndex(self.members.current().reached(|voter| {
            match voter == id {
                true => own.0,
                false => progress
                    .get(&voter)
                    .map_or(0, |progress| progress.matched.0),
            }
        }));
        let own_term = self.log.term_at(index) == Some(self.hard_state.term);
        if index <= self.commit || (R::COMMIT_OWN_TERM_ONLY && !own_term) {
            return;
        }
        let changed = self.members.changed_at() > self.commit;
        self.commit_to(index);
        if changed {
            self.follow_membership();
        }
    }

    /// Sends every follower the entries it may receive, and the commit index.
    pub(super) fn replicate(&mut self) {
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        let (last, commit, limit) = (self.log.last(), self.commit, self.settings.window_bytes);
        let wants = |progress: &Progress| match &progress.flow {
            Flow::Probe { asked } => asked.is_none(),
            Flow::Stream(window) => {
                progress.commit_sent < commit || progress.next <= last && window.is_open(limit)
            }
            Flow::Snapshot => false,
        };
        let all = leading.progress.iter();
        let waiting = all.filter(|(_, progress)| wants(progress));
        let ids: Vec<NodeId> = waiting.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.replicate_to(id));
    }

    fn replicate_to(&mut self, id: NodeId) {
        while let Some((previous, entries)) = self.next_append(id) {
            self.send_append(id, previous, entries);
        }
        let commit = self.commit;
        let Some(progress) = self.progress_of(id) else {
            return;
        };
        if matches!(progress.flow, Flow::Stream(_)) && progress.commit_sent < commit {
            progress.commit_sent = commit;
            let commit = self.commit_position();
            self.send(id, Body::Commit { commit });
        }
    }

    /// The next append for a follower, from memory. If the log no longer has the entries that the follower needs, the
    /// driver must send a snapshot.
    fn next_append(&mut self, id: NodeId) -> Option<(Position, Vec<Entry>)> {
        let State::Leader(leading) = &mut self.state else {
            return None;
        };
        let progress = leading.progress.get_mut(&id)?;
        let probing = match &progress.flow {
            Flow::Probe { asked } if asked.is_none() => true,
            Flow::Stream(window) if window.is_open(self.settings.window_bytes) => false,
            _ => return None,
        };
        let Some(previous) = self.log.position_at(progress.next.previous()) else {
            progress.flow = Flow::Snapshot;
            self.todo.send_snapshot.push(id);
            return None;
        };
        let here = progress.next >= self.log.tail_first() && progress.next <= self.log.last();
        // A follower that contradicts its acknowledgements would refuse the entries again, and they would only fill the
        // connection.
        match (here && progress.contradictions == 0, probing) {
            (true, _) => Some((
                previous,
                self.log.batch(progress.next, self.settings.batch_bytes),
            )),
            (false, true) => Some((previous, Vec::new())),
            (false, false) => None,
        }
    }

    fn send_append(&mut self, id: NodeId, previous: Position, entries: Vec<Entry>) {
        let (now, commit) = (self.now, self.commit);
        let bytes = entries.iter().map(Entry::bytes_in_memory).sum();
        let last = previous.index.after(entries.len());
        let Some(progress) = self.progress_of(id) else {
            return;
        };
        progress.commit_sent = commit;
        match &mut progress.flow {
            Flow::Probe { asked } => *asked = Some(now),
            Flow::Stream(window) => {
                window.add(last, bytes, now);
                progress.next = last.next();
            }
            Flow::Snapshot => unreachable!("no append is sent during a snapshot transfer"),
        }
        self.send(
            id,
            Body::Append {
                previous,
                entries,
                commit,
            },
        );
    }

    /// The first index that a follower needs and that is no longer in memory. The followers take turns.
    pub(super) fn follower_wants(&mut self) -> Option<LogIndex> {
        let State::Leader(leading) = &mut self.state else {
            return None;
        };
        let (tail_first, limit) = (self.log.tail_first(), self.settings.window_bytes);
        let wants = |progress: &Progress| match &progress.flow {
            Flow::Stream(window) => progress.next < tail_first && window.is_open(limit),
            _ => false,
        };
        let waiting = || {
            leading
                .progress
                .iter()
                .filter(|(_, progress)| wants(progress))
        };
        let next = waiting()
            .find(|(id, _)| **id > leading.served)
            .or_else(|| waiting().next())?;
        let (id, index) = (*next.0, next.1.next);
        leading.served = id;
        Some(index)
    }

    /// Sends entries that were read from disk to the followers that wait for them.
    pub(super) fn send_read(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.position.index) else {
            return;
        };
        let State::Leader(leading) = &self.state else {
            return;
        };
        let end = first.after(entries.len());
        let limit = self.settings.window_bytes;
        let waits = |progress: &Progress| match &progress.flow {
            Flow::Stream(window) => {
                progress.next >= first && progress.next < end && window.is_open(limit)
            }
            _ => false,
        };
        let waiting: Vec<(NodeId, LogIndex)> = (leading.progress.iter())
            .filter(|(_, progress)| waits(progress))
            .map(|(id, progress)| (*id, progress.next))
            .collect();
        for (id, next) in waiting {
            if let Some(previous) = self.log.position_at(next.previous()) {
                let rest = &entries[(next.0 - first.0) as usize..];
                self.send_append(id, previous, rest.to_vec());
            }
        }
    }
}

impl Membership {
    /// The largest value that a majority of the voters has reached; 0 without voters.
    pub(super) fn reached(&self, value: impl Fn(NodeId) -> u64) -> u64 {
        if let (1, Some(only)) = (self.voters.len(), self.voters.first()) {
            return value(*only);
        }
        // A leader computes this in each step, so the values of a usual cluster are not allocated.
        let (mut few, mut many) = ([0; 9], Vec::new());
        let voters = self.voters.len();
        let values = match few.get_mut(..voters) {
            Some(few) => few,
            None => {
                many.resize(voters, 0);
                &mut many[..]
            }
        };
        for (place, id) in values.iter_mut().zip(&self.voters) {
            *place = value(*id);
        }
        values.sort_unstable();
        voters
            .checked_sub(self.majority())
            .map_or(0, |at| values[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters with the values 99, 98, …: a majority has at least the value in the middle.
    #[test]
    fn the_value_of_a_majority_is_found_in_clusters_of_any_size() {
        for count in 1..20 {
            let members = Membership {
                voters: (1..=count).map(NodeId).collect(),
                ..Membership::default()
            };
            let reached = members.reached(|id| 100 - id.0);
            assert_eq!(reached, 99 - count / 2, "{count} voters");
        }
        assert_eq!(Membership::default().reached(|id| id.0), 0);
    }
}
