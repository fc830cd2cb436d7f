//! Quorum reads on their way (paper §8, dissertation §6.4).
//!
//! All reads that come in one turn share one question to the core: "do I still lead, and at which
//! index?". Once it is confirmed, they wait for the state machine to reach that index. A question that
//! was refused (another leads) is handed back; its id is never used again.
//!
//! A member that does not lead asks its leader. Reads change nothing, so a question that may be lost is
//! simply asked again, under a new id (hazard D6).

use super::time::Monotonic;
use crate::raft::{LogIndex, NodeId};
use std::collections::{BTreeMap, VecDeque};

/// Readers in the order of their questions.
pub struct Reads<T> {
    waiting: VecDeque<Question<T>>,
    last_id: u64,
}

/// Questions that other members asked of this one: by our id, theirs.
#[derive(Default)]
pub struct Asked(BTreeMap<u64, (NodeId, u64)>);

impl Asked {
    pub fn note(&mut self, id: u64, from: NodeId, number: u64) {
        self.0.insert(id, (from, number));
    }

    /// None: the question is one of ours.
    pub fn take(&mut self, id: u64) -> Option<(NodeId, u64)> {
        self.0.remove(&id)
    }
}

/// Ids of questions have this bit, numbers of forwarded letters do not: both are answered alike.
const QUESTION: u64 = 1 << 63;

struct Question<T> {
    id: u64,
    /// Once confirmed: what the state machine must have applied.
    index: Option<LogIndex>,
    asked: Monotonic,
    deadline: Monotonic,
    readers: Vec<T>,
}

impl<T> Reads<T> {
    /// Ids count up from `seed`, drawn at random: an answer to a question of an earlier start fits none.
    pub fn new(seed: u64) -> Reads<T> {
        Reads {
            waiting: VecDeque::new(),
            last_id: seed | QUESTION,
        }
    }

    /// An id that was never used.
    pub fn fresh_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1) | QUESTION;
        self.last_id
    }

    /// The next id is one that was used before ([`super::rules::Rule::ReadIdIsNew`]).
    pub fn use_ids_again(&mut self) {
        self.last_id = QUESTION;
    }

    /// Readers that share a question: its id.
    pub fn ask(&mut self, readers: Vec<T>, now: Monotonic, deadline: Monotonic) -> u64 {
        let id = self.fresh_id();
        self.waiting.push_back(Question {
            id,
            index: None,
            asked: now,
            deadline,
            readers,
        });
        id
    }

    /// Gives new ids to the questions that were asked before `time` and are not confirmed: these.
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
        // A question whose time ran out is not here any more.
        if let Some(question) = self.waiting.iter_mut().find(|question| question.id == id) {
            question.index = Some(index);
        }
    }

    /// The readers of refused questions, each with the time it waits until.
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

    /// The readers whose index is applied.
    pub fn ready(&mut self, applied: LogIndex) -> Vec<T> {
        self.take(|question| question.index.is_some_and(|index| index <= applied))
    }

    /// The readers whose time is up.
    pub fn expired(&mut self, now: Monotonic) -> Vec<T> {
        self.take(|question| question.deadline <= now)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn drain(&mut self) -> Vec<T> {
        self.take(|_| true)
    }

    fn take(&mut self, chosen: impl FnMut(&Question<T>) -> bool) -> Vec<T> {
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
        let (taken, kept) = all.into_iter().partition(chosen);
        self.waiting = kept;
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
