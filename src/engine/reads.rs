//! Quorum reads in progress (paper §8, dissertation §6.4).
//!
//! All reads of one step share one question to the core: whether this member still leads, and at which index. When the
//! question is confirmed, the reads wait until the state machine reaches that index. A refused question (another member
//! leads) is returned to the caller, and its id is never used again.
//!
//! A member that does not lead asks its leader. Reads change nothing, so a question that may be lost is asked again
//! under a new id (hazard D6).

use super::time::Monotonic;
use crate::raft::{LogIndex, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// The readers, in the order of their questions.
pub struct Reads<T> {
    waiting: VecDeque<Question<T>>,
    /// Number of the readers of all questions.
    callers: usize,
    last_id: u64,
}

/// Questions of other members to this one: this member's id for it, then the member and its own number for it.
#[derive(Default)]
pub struct MemberQuestions(BTreeMap<u64, (NodeId, u64)>);

impl MemberQuestions {
    pub fn note(&mut self, id: u64, from: NodeId, number: u64) {
        self.0.insert(id, (from, number));
    }

    /// `None` if the question is this member's own.
    pub fn take(&mut self, id: u64) -> Option<(NodeId, u64)> {
        self.0.remove(&id)
    }
}

/// Ids of questions have this bit, and numbers of forwarded messages do not: the replies to both have the same form.
const QUESTION: u64 = 1 << 63;

struct Question<T> {
    id: u64,
    /// The index that must be applied; `None` until the question is confirmed.
    index: Option<LogIndex>,
    asked: Monotonic,
    deadline: Monotonic,
    readers: Vec<T>,
}

impl<T> Reads<T> {
    /// Ids count up from `seed`, which is random. So a reply to a question of an earlier start matches none.
    pub fn new(seed: u64) -> Reads<T> {
        Reads {
            waiting: VecDeque::new(),
            callers: 0,
            last_id: seed | QUESTION,
        }
    }

    /// A new id.
    pub fn fresh_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1) | QUESTION;
        self.last_id
    }

    /// Makes the next id one that was used before ([`super::rules::Rule::ReadIdIsNew`]).
    pub fn use_ids_again(&mut self) {
        self.last_id = QUESTION;
    }

    /// Adds readers that share one question, and returns its id.
    pub fn ask(&mut self, readers: Vec<T>, now: Monotonic, deadline: Monotonic) -> u64 {
        let id = self.fresh_id();
        assert!(id & QUESTION != 0, "{id} could be a forward's number");
        self.callers += readers.len();
        self.waiting.push_back(Question {
            id,
            index: None,
            asked: now,
            deadline,
            readers,
        });
        id
    }

    /// Gives new ids to the questions that were asked before `time` and are not confirmed. Returns the new ids.
    pub fn renumber(&mut self, time: Monotonic, now: Monotonic) -> Vec<u64> {
        let mut ids = Vec::new();
        for at in 0..self.waiting.len() {
            if self.waiting[at].index.is_none() && self.waiting[at].asked <= time {
                self.waiting[at].id = self.fresh_id();
                self.waiting[at].asked = now;
                ids.push(self.waiting[at].id);
            }
        }
        ids
    }

    pub fn confirmed(&mut self, id: u64, index: LogIndex) {
        // A question whose deadline has passed is no longer in the list.
        if let Some(question) = self.waiting.iter_mut().find(|question| question.id == id) {
            question.index = Some(index);
        }
    }

    /// Removes refused questions, and returns their readers with their deadlines.
    pub fn refused(&mut self, ids: &[u64]) -> Vec<(Monotonic, T)> {
        let refused = self.take_questions(|question| ids.contains(&question.id));
        let readers = refused.into_iter().flat_map(|question| {
            let deadline = question.deadline;
            question
                .readers
                .into_iter()
                .map(move |reader| (deadline, reader))
        });
        readers.collect()
    }

    /// Removes and returns the readers whose index is applied.
    pub fn ready(&mut self, applied: LogIndex) -> Vec<T> {
        self.take(|question| question.index.is_some_and(|index| index <= applied))
    }

    /// Removes and returns the readers whose deadline has passed.
    pub fn expired(&mut self, now: Monotonic) -> Vec<T> {
        self.take(|question| question.deadline <= now)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of readers.
    pub fn caller_count(&self) -> usize {
        self.callers
    }

    pub fn drain(&mut self) -> Vec<T> {
        self.take(|_| true)
    }

    fn take(&mut self, chosen: impl FnMut(&Question<T>) -> bool) -> Vec<T> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let taken = self.take_questions(chosen);
        taken
            .into_iter()
            .flat_map(|question| question.readers)
            .collect()
    }

    fn take_questions(
        &mut self,
        mut chosen: impl FnMut(&Question<T>) -> bool,
    ) -> VecDeque<Question<T>> {
        if !self.waiting.iter().any(&mut chosen) {
            return VecDeque::new();
        }
        let all = std::mem::take(&mut self.waiting);
        let (taken, kept): (VecDeque<Question<T>>, _) = all.into_iter().partition(chosen);
        self.waiting = kept;
        let readers = taken.iter().map(|question| question.readers.len());
        let readers: usize = readers.sum();
        assert!(
            readers <= self.callers,
            "{readers} of {} readers",
            self.callers
        );
        self.callers -= readers;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const NOW: Monotonic = Monotonic(1 << 40);

    fn readers(count: usize) -> Vec<()> {
        vec![(); count]
    }

    #[test]
    fn a_question_is_answered_once_its_index_is_applied() {
        let (mut reads, now) = (Reads::new(5), NOW);
        let (first, second) = (
            reads.ask(readers(2), NOW, now),
            reads.ask(readers(3), NOW, now),
        );
        assert_ne!(first, second, "an id is never used twice");
        assert!(reads.ready(LogIndex(9)).is_empty(), "nothing is confirmed");
        reads.confirmed(second, LogIndex(5));
        reads.confirmed(first, LogIndex(7));
        assert_eq!(reads.ready(LogIndex(4)).len(), 0);
        assert_eq!(reads.ready(LogIndex(6)).len(), 3);
        assert_eq!(reads.ready(LogIndex(7)).len(), 2);
        assert_eq!(reads.drain().len(), 0);
    }

    #[test]
    fn refused_and_late_questions_are_handed_back() {
        let (mut reads, now) = (Reads::new(5), NOW);
        let first = reads.ask(readers(1), NOW, now);
        reads.ask(readers(2), NOW, now + Duration::from_secs(1));
        assert_eq!(reads.refused(&[first, 99]).len(), 1);
        assert_eq!(reads.expired(now).len(), 0);
        assert_eq!(reads.expired(now + Duration::from_secs(1)).len(), 2);
        reads.confirmed(first, LogIndex(1));
        assert!(reads.ready(LogIndex(9)).is_empty());
    }

    #[test]
    fn a_question_asked_again_has_another_id() {
        let (mut reads, now) = (Reads::new(u64::MAX), NOW);
        let (first, second) = (
            reads.ask(readers(1), NOW, now),
            reads.ask(readers(1), NOW, now),
        );
        reads.confirmed(first, LogIndex(3));
        let again = reads.renumber(now, now);
        assert_eq!(again.len(), 1, "the first is confirmed");
        assert!(again[0] != second && again[0] & QUESTION != 0);
        reads.confirmed(second, LogIndex(3));
        assert_eq!(
            reads.ready(LogIndex(3)).len(),
            1,
            "the old answer fits none"
        );
        reads.confirmed(again[0], LogIndex(3));
        assert_eq!(reads.ready(LogIndex(3)).len(), 1);
    }
}
