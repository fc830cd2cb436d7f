//! Elections: a node requests votes, voters decide, and a majority makes it leader.
//!
//! A node that receives no message from a leader for a random time in `[T, 2T)` (`election_ticks`; paper §5.2) does not
//! start an election at once. It first asks whether it *could* win (pre-vote, dissertation §9.6). A pre-vote changes no
//! state. So a node that was cut off returns without a newer term, and a healthy leader stays. If a majority agrees,
//! the node begins a new term and stores its vote for itself. Only then it requests votes. Its own vote counts when it
//! is on disk, like every other vote.
//!
//! A voter grants one vote per term, to a candidate whose log does not end before its own (compared by last term, then
//! by length; paper §5.4.1). So a leader has every committed entry. For `T` after a message from its leader, a voter
//! refuses pre-votes and ignores vote requests, including their term (dissertation §4.2.3). So nobody can replace a
//! leader whose messages reach a majority. There are two exceptions: a leadership transfer (`transfer`), and a hint
//! that the leader's process is dead.
//!
//! The hint is [`Input::LeaderGone`](super::Input::LeaderGone). When the leader's process dies, its host refuses
//! connections. The driver then knows long before a timeout that this leader's process is dead. The hint clears only
//! this node's *own* record of its leader: from now on the node may start a pre-vote and grant others theirs. A small
//! random delay prevents all followers of one leader from starting at the same moment. Then the usual pre-vote runs
//! under the usual rules, so a wrong hint only costs a few messages. The other voters still know their leader and
//! refuse, and the next heartbeat restores the record.

use super::core::{Core, State};
use super::message::{Body, HardState, Membership, NodeId, Payload, Position, Term};
use super::replication::Leading;
use super::rules::Rules;
use crate::random::Random;

/// Decides when a node that receives nothing from a leader starts an election.
#[derive(Debug)]
pub(super) struct Timer {
    /// Ticks since the last message from a leader, granted vote or election of its own.
    elapsed: u32,
    /// Random in `[T, 2T)`, chosen again for each election.
    limit: u32,
}

impl Timer {
    pub(super) fn new(election_ticks: u32, random: &mut Random) -> Timer {
        assert!(
            election_ticks > 0,
            "an election timeout has at least one tick"
        );
        Timer {
            elapsed: 0,
            limit: random.between(election_ticks, election_ticks),
        }
    }

    pub(super) fn restart(&mut self) {
        self.elapsed = 0;
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

/// State of early elections: this node knows that its leader's process is dead.
#[derive(Debug)]
pub(super) struct Hint {
    tries: u8,
    wait: u32,
}

/// Number of retries of an early election before the usual timeout applies.
const HINT_RETRIES: u8 = 3;

/// The voters that have granted their vote.
#[derive(Debug, Default)]
pub(super) struct VoteCount(Vec<NodeId>);

impl VoteCount {
    /// Counts `voter` once, and returns whether a majority has granted.
    fn add(&mut self, voter: NodeId, members: &Membership) -> bool {
        if members.voters.contains(&voter) && !self.0.contains(&voter) {
            self.0.push(voter);
        }
        self.0.len() >= members.majority()
    }
}

/// What a node decided about a request for its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteAnswer {
    /// The candidate.
    pub candidate: NodeId,
    /// Whether it asked for a pre-vote, which changes no state.
    pub pre_vote: bool,
    /// Why it gets the vote or not.
    pub reason: VoteReason,
}

/// Why a node grants or refuses its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteReason {
    /// It grants the vote: no rule forbids it.
    Granted,
    /// It is in a newer term than the candidate, or already in the term that a pre-candidate would begin (paper §5.1).
    NewerTerm,
    /// It leads, or has received a message from its leader lately (dissertation §4.2.3). A request for a vote gets no
    /// reply then.
    HasLeader,
    /// It has voted for another candidate in this term (paper §5.2).
    VotedForAnother,
    /// Its own log ends after the candidate's (paper §5.4.1).
    LogBehind,
    /// It knows no members yet, so its log proves nothing.
    Blank,
}

impl<R: Rules> Core<R> {
    /// Notes a decision about a vote, for [`super::Todo::votes`].
    pub(super) fn decided(&mut self, candidate: NodeId, pre_vote: bool, reason: VoteReason) {
        self.todo.votes.push(VoteAnswer {
            candidate,
            pre_vote,
            reason,
        });
    }

    /// The only voter starts an election without waiting for a timeout.
    pub(super) fn lead_alone(&mut self) {
        if self.is_voter() && self.members.current().voters.len() == 1 {
            self.campaign(false);
        }
    }

    /// A tick of a node that does not lead.
    pub(super) fn tick_waiting(&mut self) {
        self.timer.elapsed = self.timer.elapsed.saturating_add(1);
        let overdue = self.timer.elapsed >= self.timer.limit;
        if overdue {
            self.leader = None;
        }
        if (self.hint_is_due() || overdue) && self.may_stand() {
            self.todo.timed_out = Some(self.timer.elapsed);
            self.ask_pre_votes();
        }
    }

    fn hint_is_due(&mut self) -> bool {
        let Some(hint) = &mut self.hint else {
            return false;
        };
        hint.wait = hint.wait.saturating_sub(1);
        if hint.wait > 0 {
            return false;
        }
        let again = hint.tries.checked_sub(1);
        self.hint = again.map(|tries| Hint {
            tries,
            wait: self.retry_wait(),
        });
        true
    }

    /// Half to one and a half heartbeat intervals: 50 to 150 ms by default.
    fn retry_wait(&mut self) -> u32 {
        let heartbeat = self.settings.heartbeat_ticks;
        self.random.between(heartbeat.div_ceil(2), heartbeat + 1)
    }

    /// The driver reports that the process of `leader` is dead.
    pub(super) fn on_leader_gone(&mut self, leader: NodeId) {
        if self.leader == Some(leader) && leader != self.settings.id {
            self.leader = None;
            let wait = self
                .random
                .between(1, self.settings.heartbeat_ticks.div_ceil(2));
            self.hint = Some(Hint {
                tries: HINT_RETRIES,
                wait,
            });
        }
    }

    /// Whether this node has reason to assume that its leader still leads. Either it leads itself (otherwise
    /// check-quorum would have made it step down), or it has received a message from the leader within the shortest
    /// election timeout.
    pub(super) fn believes(&self) -> bool {
        let lately = self.timer.elapsed < self.settings.election_ticks;
        R::BELIEVES_ITS_LEADER && (self.is_leader() || (self.leader.is_some() && lately))
    }

    fn restart_timer(&mut self) {
        self.timer = Timer::new(self.settings.election_ticks, &mut self.random);
    }

    fn ask_pre_votes(&mut self) {
        if !R::PRE_VOTE {
            return self.campaign(false);
        }
        self.leader = None;
        self.restart_timer();
        let mut votes = VoteCount::default();
        if votes.add(self.settings.id, self.members.current()) {
            return self.campaign(false);
        }
        self.state = State::PreCandidate(votes);
        let last = self.log.last_position();
        self.other_voters()
            .into_iter()
            .for_each(|id| self.send(id, Body::PreVote { last }));
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let voters = self.members.current().voters.iter().copied();
        voters.filter(|id| *id != self.settings.id).collect()
    }

    /// Begins a new term as a candidate. The vote requests are sent when its own vote is on disk.
    pub(super) fn campaign(&mut self, handover: bool) {
        self.enter(HardState {
            term: self.hard_state.term.next(),
            vote: Some(self.settings.id),
        });
        self.state = State::Candidate(VoteCount::default());
        self.restart_timer();
        let last = self.log.last_position();
        for id in self.other_voters() {
            self.send_when_stored(id, Body::Vote { last, handover }, true);
        }
    }

    /// Adopts a newer term and drops what belonged to the old one.
    fn enter(&mut self, hard_state: HardState) {
        assert!(
            hard_state.term > self.hard_state.term,
            "from {:?} to {hard_state:?}",
            self.hard_state
        );
        self.hard_state = hard_state;
        self.leader = None;
        self.commit_heard = Position::default();
    }

    /// Another node is in a newer term.
    pub(super) fn become_follower(&mut self, term: Term) {
        self.step_down();
        self.enter(HardState { term, vote: None });
    }

    /// Becomes a follower. A leader's timer did not run, so it is restarted. A candidate's timer continues.
    pub(super) fn step_down(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Follower);
        if let State::Leader(leading) = state {
            self.todo.refused_reads.extend(leading.reads.all());
            self.leader = None;
            self.restart_timer();
        }
    }

    /// `from` leads in this term.
    pub(super) fn follow(&mut self, from: NodeId) {
        assert!(
            !self.is_leader(),
            "{from:?} and {:?} lead in {:?}",
            self.id(),
            self.term()
        );
        self.state = State::Follower;
        self.leader = Some(from);
        self.hint = None;
        self.timer.restart();
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, last: Position) {
        let asked = term.next();
        let reason = if asked <= self.hard_state.term {
            VoteReason::NewerTerm
        } else if self.believes() {
            VoteReason::HasLeader
        } else {
            self.compare_logs(last)
        };
        let granted = reason == VoteReason::Granted;
        self.decided(from, true, reason);
        self.send(from, Body::PreVoteReply { asked, granted });
    }

    /// Grants a vote if a log that ends at `last` has all entries that this node could have helped to commit.
    fn compare_logs(&self, last: Position) -> VoteReason {
        if self.is_blank() {
            VoteReason::Blank
        } else if last < self.log.last_position() && R::VOTER_COMPARES_LOGS {
            VoteReason::LogBehind
        } else {
            VoteReason::Granted
        }
    }

    pub(super) fn on_pre_vote_granted(&mut self, from: NodeId, asked: Term) {
        let State::PreCandidate(votes) = &mut self.state else {
            return;
        };
        if asked == self.hard_state.term.next() && votes.add(from, self.members.current()) {
            self.campaign(false);
        }
    }

    /// A candidate of this term requests a vote.
    pub(super) fn on_vote(&mut self, from: NodeId, last: Position) {
        let free = self.hard_state.vote.is_none_or(|vote| vote == from) || !R::ONE_VOTE_PER_TERM;
        let reason = if self.leader.is_some() {
            VoteReason::HasLeader
        } else if !free {
            VoteReason::VotedForAnother
        } else {
            self.compare_logs(last)
        };
        let granted = reason == VoteReason::Granted;
        self.decided(from, false, reason);
        if granted {
            self.hard_state.vote = Some(from);
            self.timer.restart();
            if let Some(tries) = self.hint.as_ref().map(|hint| hint.tries) {
                self.hint = Some(Hint {
                    tries,
                    wait: self.retry_wait(),
                });
            }
        }
        self.send_when_stored(
            from,
            Body::VoteReply { granted },
            R::VOTE_STORED_BEFORE_ANSWER,
        );
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        if granted {
            self.count_vote(from);
        }
    }

    /// The hard state is on disk. If it contains a vote for this node itself, the vote counts now.
    pub(super) fn count_own_vote(&mut self) {
        if self.hard_state.vote == Some(self.settings.id) {
            self.count_vote(self.settings.id);
        }
    }

    fn count_vote(&mut self, voter: NodeId) {
        let State::Candidate(votes) = &mut self.state else {
            return;
        };
        if votes.add(voter, self.members.current()) {
            self.lead();
        }
    }

    /// The node was elected. It appends a no-op first: committing it also commits all entries before it (paper §8),
    /// which may not be committed by counting replicas (§5.4.2).
    fn lead(&mut self) {
        self.leader = Some(self.settings.id);
        self.hint = None;
        let leading = Leading::new(self.log.last().next(), self.now);
        self.state = State::Leader(Box::new(leading));
        self.follow_membership();
        self.append_own(Payload::Noop);
    }
}
