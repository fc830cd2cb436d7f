//! Whether a connection in a member's name is that member's own.
//!
//! A member draws a *token* for each other member when it begins to dial it. Each of its handshakes contains the token.
//! No third process knows the token. The receiver asks the member, at the address that the table has for it, for the
//! token's digest (`GET /raft/link`), and remembers the answer. It needs that answer
//!
//! - for a stream that would replace an open one, and for a snapshot while another one is being received;
//! - for a sender that has not shown itself: the log has not published its incarnation, and it does not know this
//!   member's. Only the answer distinguishes it from a process that is not a member.
//!
//! A member is asked one question at a time, and at most ten in a second, however many processes connect in its name. A
//! few connections wait for the answer. The others are refused and can try again. The member's own next connection
//! finds the remembered answer, so many connections of other processes do not keep it out.

use crate::raft::NodeId;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pause between two questions to the same member.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections in one member's name may wait for an answer, each with a thread.
const WAITING_MAX: usize = 4;

/// The answers of the members. `changed` is notified at the end of each question. The threads of connections that need
/// an answer wait on it.
#[derive(Default)]
pub(super) struct Vouchers {
    asked: Mutex<BTreeMap<NodeId, Asked>>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    /// The newest answer.
    digest: Option<String>,
    /// The number of questions that have ended, with or without an answer.
    ended: u64,
    under_way: bool,
    /// The member is not asked before this time.
    again: Option<Instant>,
    waiting: usize,
}

impl Vouchers {
    /// Whether a connection with this digest could be accepted, perhaps after a question.
    pub fn may_ask(&self, member: NodeId, digest: &str) -> bool {
        let asked = self.asked();
        let Some(asked) = asked.get(&member) else {
            return true;
        };
        asked.is(digest) || asked.waiting < WAITING_MAX
    }

    /// Whether the member vouches for the connection with this digest. `ask` asks the member. None: it does not answer.
    pub fn vouches(&self, member: NodeId, digest: &str, ask: impl Fn() -> Option<String>) -> bool {
        let mut asked = self.asked();
        let entry = asked.entry(member).or_default();
        if entry.is(digest) || entry.waiting >= WAITING_MAX {
            return entry.is(digest);
        }
        entry.waiting += 1;
        // The answer to a question that has already been sent may be older than this connection.
        let enough = entry.ended + u64::from(entry.under_way) + 1;
        let is_own = loop {
            let now = Instant::now();
            let entry = asked.entry(member).or_default();
            let pause = entry
                .again
                .map_or(Duration::ZERO, |again| again.saturating_duration_since(now));
            if entry.is(digest) || entry.ended >= enough {
                break entry.is(digest);
            }
            asked = if entry.under_way || !pause.is_zero() {
                let wait = pause.max(PAUSE);
                let waited = self.changed.wait_timeout(asked, wait);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                entry.under_way = true;
                drop(asked);
                let answer = ask();
                self.end(member, answer)
            };
        };
        asked.entry(member).or_default().waiting -= 1;
        is_own
    }

    fn end(
        &self,
        member: NodeId,
        answer: Option<String>,
    ) -> MutexGuard<'_, BTreeMap<NodeId, Asked>> {
        let mut asked = self.asked();
        let entry = asked.entry(member).or_default();
        entry.under_way = false;
        entry.ended += 1;
        entry.again = Some(Instant::now() + PAUSE);
        if answer.is_some() {
            entry.digest = answer;
        }
        self.changed.notify_all();
        asked
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<NodeId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn is(&self, digest: &str) -> bool {
        self.digest.as_deref() == Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const TWO: NodeId = NodeId(2);

    #[test]
    fn an_answer_is_remembered_and_a_new_process_is_asked_again() {
        let vouchers = Vouchers::default();
        let own = |digest: &str| Some(digest.to_owned());
        assert!(!vouchers.vouches(TWO, "false", || own("first")));
        let never = || unreachable!("it is known");
        assert!(vouchers.vouches(TWO, "first", never));
        assert!(vouchers.vouches(TWO, "second", || own("second")));
        assert!(
            !vouchers.vouches(TWO, "first", || own("second")),
            "the old process"
        );
        assert!(
            !vouchers.vouches(TWO, "third", || None),
            "it does not answer"
        );
        assert!(vouchers.vouches(TWO, "second", || unreachable!("it is known still")));
    }

    /// Many threads ask as fast as possible.
    #[test]
    fn a_crowd_asks_few_questions_and_does_not_keep_the_member_out() {
        let vouchers = Vouchers::default();
        let questions = AtomicUsize::new(0);
        let ask = || {
            questions.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            Some("own".to_owned())
        };
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| assert!(!vouchers.vouches(TWO, "false", ask)));
            }
        });
        let most = begun.elapsed().as_millis() / PAUSE.as_millis() + 1;
        let questions = questions.load(Ordering::SeqCst);
        assert!(
            (1..=most as usize).contains(&questions),
            "{questions} questions"
        );
        assert!(vouchers.may_ask(TWO, "own") && vouchers.may_ask(TWO, "false"));
        assert!(vouchers.vouches(TWO, "own", || unreachable!("it is known")));
    }
}
