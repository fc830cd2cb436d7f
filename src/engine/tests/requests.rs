//! Which requests are accepted, how long they wait, and which membership changes are decided.

use super::*;
use crate::engine::members::MemberError;
use crate::engine::peer_message::LeaderReply;
use crate::engine::request::{Effect, Query, Reply};
use crate::engine::{LogIndex, PENDING_MAX};

fn add(id: u64) -> Request<u64> {
    Request::Change(Proposal::of(entry::add(&member(id)), id))
}

fn refused_change(effects: &Effects<u64>) -> Option<MemberError> {
    effects
        .replies
        .iter()
        .find_map(|reply| match reply.outcome {
            Outcome::Done {
                effect: Effect::Members(Err(error)),
                ..
            } => Some(error),
            _ => None,
        })
}

#[test]
fn requests_after_the_stop_are_refused() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.step(Event::Stop);
    let last = bench.last();
    let effects = bench.propose(1, 10);
    assert_eq!(failures(&effects), [(1, Failure::Stopped)]);
    let read = Request::Read(Query::new(2, None));
    assert_eq!(failures(&bench.request(read)), [(2, Failure::Stopped)]);
    assert_eq!(bench.last(), last);
}

/// Otherwise clients that do not wait for replies fill the memory.
#[test]
fn the_number_of_pending_requests_is_limited() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    let write = |number| Request::Propose(Proposal::of(set(1), number));
    let most = PENDING_MAX as u64;
    let effects = bench.step(Event::Requests((0..most).map(write).collect()));
    assert!(effects.replies.is_empty());
    let effects = bench.request(write(most));
    assert_eq!(failures(&effects), [(most, Failure::Overloaded)]);
}

#[test]
fn the_bytes_that_wait_for_a_leader_are_limited_and_are_freed() {
    const HALF: usize = 17 << 20;
    let mut bench = Bench::new(&[]);
    assert!(bench.propose(1, HALF).replies.is_empty());
    let effects = bench.propose(2, HALF);
    assert_eq!(failures(&effects), [(2, Failure::Overloaded)]);
    bench.now = bench.now + settings().leader_timeout;
    let effects = bench.step(Event::Tick);
    assert_eq!(failures(&effects), [(1, Failure::TimedOut)]);
    assert_eq!(bench.engine.leaderless_bytes(), 0);
    assert!(bench.propose(3, HALF).replies.is_empty(), "there is room");
}

#[test]
fn a_read_waits_for_a_leader_no_longer_than_it_wants() {
    let mut bench = Bench::new(&[]);
    let patience = Duration::from_millis(300);
    let asked = bench.now;
    bench.request(Request::Read(Query::new(5, Some(patience))));
    let failed = loop {
        bench.now = bench.now + TICK;
        if !bench.step(Event::Tick).replies.is_empty() {
            break bench.now - asked;
        }
    };
    assert!((patience..patience + 2 * TICK).contains(&failed));
}

#[test]
fn a_read_waits_for_its_leader_no_longer_than_it_wants() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    let patience = Duration::from_millis(300);
    bench.request(Request::Read(Query::new(5, Some(patience))));
    let replies = bench.tick_following(1, patience - TICK);
    assert!(replies.is_empty(), "it waits as long as it wants");
    let replies = bench.tick_following(1, 2 * TICK);
    assert!(matches!(
        replies[..],
        [(5, Outcome::Failed(Failure::TimedOut))]
    ));
}

/// Its own timeout may be much longer.
#[test]
fn a_read_that_its_leader_could_not_confirm_waits_for_the_next_one_like_others() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.request(Request::Read(Query::new(5, None)));
    while bench.engine.core().is_leader() {
        bench.tick();
    }
    let alone = bench.now;
    let failed = loop {
        bench.now = bench.now + TICK;
        let effects = bench.step(Event::Tick);
        if !effects.replies.is_empty() {
            assert_eq!(failures(&effects), [(5, Failure::TimedOut)]);
            break bench.now - alone;
        }
    };
    let most = settings().leader_timeout;
    assert!((most..most + 2 * TICK).contains(&failed), "{failed:?}");
}

/// A batch that began before the probe says nothing about the disk after it.
#[test]
fn a_probe_is_answered_by_a_batch_that_began_after_it() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.request(Request::Probe(2));
    let stored = |bench: &mut Bench| {
        let batch = bench.at_disk.pop_front().expect("a batch");
        bench.waiting.pop_front();
        let last = batch.entries.last().map(|entry| entry.position);
        let hard_state = batch.hard_state;
        let stored = vec![Stored { hard_state, last }];
        let effects = bench.step(Event::Disk(DiskReport::Stored(stored)));
        let is_probe = |reply: &crate::engine::request::Reply<u64>| reply.caller == 2;
        effects.replies.iter().any(is_probe)
    };
    assert!(!stored(&mut bench), "its batch is not with the disk");
    assert!(bench.at_disk[0].noted.is_some(), "its batch has a record");
    assert!(stored(&mut bench));
}

// Membership changes

#[test]
fn an_addition_without_a_leader_is_refused_at_once() {
    let mut bench = Bench::new(&[]);
    let effects = bench.request(add(8));
    assert_eq!(refused_change(&effects), Some(MemberError::Unhealthy));
}

#[test]
fn an_addition_is_refused_while_another_member_catches_up() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    let last = bench.last();
    let effects = bench.request(add(8));
    assert_eq!(refused_change(&effects), Some(MemberError::Unhealthy));
    assert_eq!(bench.last(), last);
}

/// The member table does not show the first change yet.
#[test]
fn a_change_is_decided_when_the_one_before_it_is_applied() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.request(add(8));
    bench.acknowledge(&[TWO, THREE]);
    assert!(bench.engine.core().commit() == bench.last(), "committed");
    let last = bench.last();
    let moved = Member { id: 2, ..member(8) };
    let update = Request::Change(Proposal::of(entry::update(&moved), 2));
    bench.request(update);
    assert_eq!(bench.last(), last, "two members would have one URL");
    bench.store_all();
    let effects = bench.step(Event::Tick);
    assert_eq!(refused_change(&effects), Some(MemberError::UrlExists));
}

// Waiting for the end of a write

#[test]
fn a_write_fails_when_its_time_is_over() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.now = bench.now + settings().request_timeout;
    let effects = bench.step(Event::Tick);
    assert_eq!(failures(&effects), [(1, Failure::TimedOut)]);
}

#[test]
fn a_probe_fails_when_its_time_is_over() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.request(Request::Probe(1));
    bench.now = bench.now + settings().request_timeout;
    let effects = bench.step(Event::Tick);
    assert_eq!(failures(&effects), [(1, Failure::TimedOut)]);
}

#[test]
fn at_the_end_of_a_stop_every_request_has_a_reply() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    bench.request(Request::Read(Query::new(2, None)));
    bench.request(Request::Probe(3));
    bench.step(Event::Stop);
    bench.now = bench.now + Duration::from_secs(1);
    let effects = bench.step(Event::Tick);
    assert!(effects.stopped);
    let mut callers: Vec<u64> = failures(&effects)
        .iter()
        .map(|(caller, _)| *caller)
        .collect();
    callers.sort_unstable();
    assert_eq!(callers, [1, 2, 3]);
}

#[test]
fn at_the_end_of_a_stop_those_that_wait_for_a_leader_have_a_reply() {
    let mut bench = Bench::new(&[]);
    bench.propose(1, 10);
    let effects = bench.step(Event::Stop);
    assert!(effects.stopped, "nothing else is in progress");
    assert_eq!(failures(&effects), [(1, Failure::Stopped)]);
}

/// The leader that stops hands over. What it has received before, it asks of the next leader.
#[test]
fn a_read_in_progress_at_a_stop_is_asked_of_the_next_leader() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.request(Request::Read(Query::new(7, None)));
    assert!(!bench.step(Event::Stop).stopped);
    let effects = bench.follow(bench.term() + 1);
    assert_eq!(failures(&effects), []);
    let asked = bench.questions();
    let [number] = asked[..] else {
        panic!("one question: {asked:?}")
    };
    let reply = LeaderReply::Index(LogIndex(0));
    let effects = bench.hear_other(TWO, PeerMessage::Reply { number, reply });
    assert!(matches!(
        effects.replies[..],
        [Reply {
            caller: 7,
            outcome: Outcome::Confirmed
        }]
    ));
}

#[test]
fn a_stop_waits_for_the_disk() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1)], 0));
    assert!(!bench.step(Event::Stop).stopped, "an entry is not stored");
    let last = bench.at_disk.pop_front().expect("a batch");
    let stored = Stored {
        hard_state: last.hard_state,
        last: last.entries.last().map(|entry| entry.position),
    };
    let effects = bench.step(Event::Disk(DiskReport::Stored(vec![stored])));
    assert!(effects.stopped);
}

#[test]
fn a_stop_takes_a_second_at_most() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    assert!(!bench.step(Event::Stop).stopped, "a request is in progress");
    bench.now = bench.now + Duration::from_millis(990);
    assert!(!bench.step(Event::Tick).stopped);
    bench.now = bench.now + TICK;
    assert!(bench.step(Event::Tick).stopped);
}

#[test]
fn applied_is_never_before_what_was_shown() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.acknowledge(&[TWO]);
    let shown = |effects: Effects<u64>| {
        let publication = effects.publish.into_iter().next();
        publication.map(|publication| publication.applied)
    };
    let matched = bench.last();
    let effects = bench.propose(2, 10);
    assert_eq!(shown(effects), None);
    assert_eq!(bench.engine.state().applied, matched);
    bench.store_all();
    let matched = bench.last();
    let effects = bench.hear(TWO, bench.term(), Body::Accepted { matched });
    assert_eq!(shown(effects), Some(LogIndex(matched.0)));
}

#[test]
fn a_stop_waits_for_the_writes_and_reads_in_progress() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 1));
    bench.store_all();
    bench.request(Request::Read(Query::new(1, None)));
    assert!(!bench.step(Event::Stop).stopped, "the read is not answered");
    let number = bench.questions()[0];
    let reply = crate::engine::peer_message::LeaderReply::Index(LogIndex(1));
    let effects = bench.hear_other(TWO, PeerMessage::Reply { number, reply });
    assert!(effects.stopped);

    let mut alone = Bench::new(&[]);
    alone.lead();
    alone.propose(2, 10);
    alone.store_all();
    assert!(!alone.step(Event::Stop).stopped, "the write is not applied");
    let heard = Body::Heartbeat {
        round: 1,
        commit: Position::default(),
    };
    let effects = alone.hear(TWO, alone.term() + 1, heard);
    assert!(!effects.stopped, "it stays to return forwards");
    alone.store_all();
    alone.now = alone.now + Duration::from_millis(200);
    assert!(!alone.step(Event::Tick).stopped, "the write waits on");
}

/// Followers still forward commands to it, and it tells them that it did not append them.
#[test]
fn a_leader_that_stops_stays_for_a_moment_after_the_transfer() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    assert!(!bench.step(Event::Stop).stopped, "it leads");
    let heard = Body::Heartbeat {
        round: 1,
        commit: Position::default(),
    };
    assert!(!bench.hear(TWO, bench.term() + 1, heard).stopped);
    assert!(!bench.store().stopped, "all is stored");
    assert!(bench.at_disk.is_empty());
    bench.now = bench.now + Duration::from_millis(90);
    assert!(!bench.step(Event::Tick).stopped);
    bench.now = bench.now + TICK;
    assert!(bench.step(Event::Tick).stopped);
}

/// One step later processes all of them, and they share a sync.
#[test]
fn requests_wait_while_the_disk_works_but_not_for_long() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    assert!(bench.engine.takes_requests(bench.now));
    bench.propose(1, 10);
    assert!(!bench.engine.takes_requests(bench.now));
    assert!(bench.engine.takes_requests(bench.now + settings().stall));
}
