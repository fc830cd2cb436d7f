//! Requests between members: forwarded commands and read indexes, at both ends.

use super::*;
use crate::engine::members::MemberError;
use crate::engine::peer_message::LeaderReply;
use crate::engine::request::{Effect, Query};

fn read(number: u64) -> Request<u64> {
    Request::Read(Query::new(number, None))
}

/// The replies that this member sent to another one.
fn replies(bench: &Bench) -> Vec<(NodeId, u64, LeaderReply)> {
    let reply = |(to, message): &(NodeId, PeerMessage)| match message {
        PeerMessage::Reply { number, reply } => Some((*to, *number, *reply)),
        _ => None,
    };
    bench.asked.iter().filter_map(reply).collect()
}

fn forward(number: u64, term: u64, commands: &[Vec<u8>]) -> PeerMessage {
    let commands = commands
        .iter()
        .map(|command| command.clone().into())
        .collect();
    PeerMessage::Forward {
        number,
        term: Term(term),
        commands,
    }
}

fn change(number: u64, term: u64) -> PeerMessage {
    PeerMessage::Change {
        number,
        term: Term(term),
        command: entry::add(&member(8)),
    }
}

// The member that forwards

#[test]
fn a_forward_names_the_term_of_its_leader() {
    let mut bench = Bench::new(&[]);
    bench.follow(3);
    bench.propose(1, 10);
    assert!(matches!(bench.forwards()[..], [(_, Term(3))]));
}

#[test]
fn a_forward_that_was_not_sent_is_sent_again() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    let (number, _) = bench.forwards()[0];
    let effects = bench.step(Event::Peers(vec![PeerEvent::Unsent(vec![number])]));
    assert!(effects.replies.is_empty());
    bench.tick();
    assert_eq!(bench.forwarded, 2);
    assert_ne!(bench.forwards()[1].0, number, "under another number");
}

#[test]
fn a_forward_fails_when_its_time_is_over() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    let timeout = settings().request_timeout;
    assert!(bench.tick_following(1, timeout - TICK).is_empty());
    let replies = bench.tick_following(1, 2 * TICK);
    assert!(matches!(
        replies[..],
        [(1, Outcome::Failed(Failure::TimedOut))]
    ));
}

/// However often it is returned. Otherwise a client whose leaders stop one after the other waits without end.
#[test]
fn a_returned_request_keeps_its_deadline() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    let begun = bench.now;
    bench.propose(1, 10);
    bench.request(read(2));
    let (mut failed, timeout) = (Vec::new(), settings().request_timeout);
    while bench.now - begun < timeout + 3 * TICK {
        for (number, _) in bench.forwards() {
            let reply = LeaderReply::NotTaken;
            bench.hear_other(TWO, PeerMessage::Reply { number, reply });
        }
        for number in bench.questions() {
            let reply = LeaderReply::NotTaken;
            bench.hear_other(TWO, PeerMessage::Reply { number, reply });
        }
        bench.asked.clear();
        let replies = bench.tick_following(1, TICK);
        failed.extend(replies.into_iter().map(|(caller, _)| caller));
    }
    failed.sort_unstable();
    assert_eq!(failed, [1, 2]);
}

#[test]
fn a_change_that_the_leader_refuses_finally_is_not_sent_again() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    let add = Proposal::of(entry::add(&member(8)), 1);
    bench.request(Request::Change(add));
    let (number, _) = bench.forwards()[0];
    let reply = LeaderReply::Refused(MemberError::UrlExists);
    let effects = bench.hear_other(TWO, PeerMessage::Reply { number, reply });
    let told = effects.replies.iter().any(|reply| {
        let outcome = &reply.outcome;
        matches!(
            outcome,
            Outcome::Done {
                effect: Effect::Members(Err(MemberError::UrlExists)),
                ..
            }
        )
    });
    assert!(told, "the client is told why");
    bench.tick_following(1, 2 * TICK);
    assert_eq!(bench.forwards().len(), 1);
}

// The member that asks for a read index

/// Messages may be lost.
#[test]
fn a_question_without_an_answer_is_asked_again() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.request(read(1));
    assert_eq!(bench.questions().len(), 1);
    bench.tick_following(1, settings().leader_timeout / 2 + TICK);
    let questions = bench.questions();
    assert_eq!(questions.len(), 2);
    assert_ne!(questions[0], questions[1]);
}

#[test]
fn a_question_is_asked_again_when_the_connection_to_the_leader_breaks() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.request(read(1));
    bench.step(Event::Peers(vec![PeerEvent::Unreachable(THREE)]));
    assert_eq!(bench.questions().len(), 1);
    bench.step(Event::Peers(vec![PeerEvent::Unreachable(TWO)]));
    assert_eq!(bench.questions().len(), 2);
}

#[test]
fn a_question_is_asked_again_when_another_member_leads() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.request(read(1));
    let commit = Position::default();
    bench.hear(THREE, 2, Body::Heartbeat { round: 1, commit });
    let asks = |(to, message): &&(NodeId, PeerMessage)| {
        *to == THREE && matches!(message, PeerMessage::AskIndex { .. })
    };
    assert_eq!(bench.asked.iter().filter(asks).count(), 1);
}

#[test]
fn a_question_that_is_refused_is_asked_again_soon() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.request(read(1));
    let number = bench.questions()[0];
    let reply = LeaderReply::NotTaken;
    bench.hear_other(TWO, PeerMessage::Reply { number, reply });
    bench.tick_following(1, 2 * TICK);
    assert_eq!(bench.questions().len(), 2);
}

#[test]
fn a_read_waits_until_its_index_is_applied() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 1));
    bench.store_all();
    bench.request(read(1));
    let number = bench.questions()[0];
    let reply = LeaderReply::Index(LogIndex(2));
    let effects = bench.hear_other(TWO, PeerMessage::Reply { number, reply });
    assert_eq!(bench.engine.state().applied, LogIndex(1));
    assert!(effects.replies.is_empty());
    let commit = noop(1, 2).position;
    let effects = bench.hear(TWO, 1, Body::Commit { commit });
    assert!(matches!(effects.replies[0].outcome, Outcome::Confirmed));
}

// The leader

#[test]
fn an_answer_goes_to_the_member_that_asked_with_its_number() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.hear_other(TWO, PeerMessage::AskIndex { number: 77 });
    bench.hear_other(THREE, PeerMessage::AskIndex { number: 78 });
    bench.tick_led(10);
    let index = LeaderReply::Index(bench.engine.core().commit());
    let mut answers = replies(&bench);
    answers.sort_unstable_by_key(|(to, ..)| *to);
    assert_eq!(answers, [(TWO, 77, index), (THREE, 78, index)]);
}

#[test]
fn a_member_that_does_not_lead_refuses_a_question() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.hear_other(THREE, PeerMessage::AskIndex { number: 77 });
    assert_eq!(replies(&bench), [(THREE, 77, LeaderReply::NotTaken)]);
}

/// A command of another term may be in the log already, or may have failed.
#[test]
fn a_forward_is_appended_only_in_the_term_that_it_names() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let (term, last) = (bench.term(), bench.last());
    for named in [term - 1, term + 1] {
        bench.asked.clear();
        bench.hear_other(TWO, forward(5, named, &[set(1)]));
        bench.hear_other(TWO, change(6, named));
        assert_eq!(bench.last(), last);
        let [one, other] = [5, 6].map(|number| (TWO, number, LeaderReply::NotTaken));
        assert_eq!(replies(&bench), [one, other]);
    }
    bench.hear_other(TWO, forward(7, term, &[set(1)]));
    assert_eq!(bench.last(), last.next());
}

#[test]
fn a_leader_that_stops_appends_nothing_for_others() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.step(Event::Stop);
    // The transfer fails. So only the stop is a reason against the command.
    bench.tick_led(ELECTION_TICKS / 2);
    let (term, last) = (bench.term(), bench.last());
    bench.hear_other(TWO, forward(5, term, &[set(1)]));
    bench.hear_other(TWO, change(6, term));
    assert_eq!(bench.last(), last);
    let [one, other] = [5, 6].map(|number| (TWO, number, LeaderReply::NotTaken));
    assert_eq!(replies(&bench), [one, other]);
}

// Time

/// A leader may be behind the time of an earlier leader's entries.
#[test]
fn a_leaders_time_is_not_before_the_applied_entries() {
    let mut bench = Bench::new(&[]);
    let ahead = ClusterTime(bench.estimate().0 + 5_000_000_000);
    let time = Entry {
        payload: stamped(entry::time(), ahead),
        ..noop(1, 1)
    };
    bench.hear(TWO, 1, append(vec![time], 1));
    bench.store_all();
    assert_eq!(bench.engine.state().time, ahead);
    let message = Message {
        term: Term(1),
        body: Body::Heartbeat {
            round: 1,
            commit: Position::default(),
        },
    };
    let time = ClusterTime(ahead.0 - 1_000_000_000);
    bench.hear_other(TWO, PeerMessage::Raft { message, time });
    assert!(bench.estimate() >= ahead, "{:?}", bench.estimate());
}

#[test]
fn only_a_leader_tells_the_time() {
    let mut bench = Bench::new(&[]);
    bench.follow(3);
    let before = bench.estimate();
    let message = Message {
        term: Term(3),
        body: Body::HeartbeatReply { round: 1 },
    };
    let time = ClusterTime(before.0 + 5_000_000_000);
    bench.hear_other(THREE, PeerMessage::Raft { message, time });
    assert_eq!(bench.estimate(), before);
}

/// Its machine refuses connections, so its process no longer exists.
#[test]
fn an_election_begins_soon_after_the_leaders_process_is_gone() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.step(Event::Peers(vec![PeerEvent::Gone(TWO)]));
    for _ in 0..ELECTION_TICKS / 2 {
        bench.tick();
    }
    let asks = |(_, body): &(NodeId, Body)| matches!(body, Body::PreVote { .. });
    assert!(bench.sent.iter().any(asks));
}
