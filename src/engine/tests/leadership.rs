//! What a change of leader or of the members brings with it, and what a leader writes on its own.

use super::*;
use crate::engine::request::Reply;

fn change(command: Vec<u8>) -> Request<u64> {
    Request::Change(Proposal::of(command, 1))
}

/// A leader with one key that expires after this many seconds.
fn with_ttl(seconds: u64) -> Bench {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let mut command = Command::new(Action::Set, Key::new(b"/a"));
    command.ttl = Some(seconds);
    let proposal = Proposal::of(entry::tree(&command), 1);
    bench.request(Request::Propose(proposal));
    bench.commit();
    bench
}

#[test]
fn a_write_that_another_leader_has_replaced_fails_as_lost() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let term = bench.term();
    bench.propose(1, 10);
    bench.store_all();
    let log = vec![noop(term, 1), noop(term + 1, 2)];
    bench.hear(TWO, term + 1, append(log, 2));
    let mut replies: Vec<Reply<u64>> = Vec::new();
    while let Some(batch) = bench.at_disk.pop_front() {
        let last = batch.entries.last().map(|entry| entry.position);
        let hard_state = batch.hard_state;
        let stored = vec![Stored { hard_state, last }];
        let effects = bench.step(Event::Disk(DiskReport::Stored(stored)));
        replies.extend(effects.replies);
    }
    let [reply] = &replies[..] else {
        panic!("one reply")
    };
    assert!(matches!(
        reply.outcome,
        Outcome::Failed(Failure::LeaderLost)
    ));
}

/// Members that start again apply nothing before they have reached each other.
#[test]
fn a_new_peer_url_is_soon_in_a_snapshot() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let moved = Member {
        peer_urls: vec!["http://elsewhere:2380".into()],
        ..member(2)
    };
    bench.request(change(entry::update(&moved)));
    assert_eq!(bench.snapshots, 0);
    bench.commit();
    assert_eq!(bench.snapshots, 1);
}

#[test]
fn the_transport_is_told_of_changed_members() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.tick_led(1);
    bench.request(change(entry::remove(THREE)));
    bench.store_all();
    let matched = bench.last();
    let effects = bench.hear(TWO, bench.term(), Body::Accepted { matched });
    assert!(effects.members_changed);
    assert!(bench.engine.state().members.get(THREE).is_none());
}

/// The others must learn of the removal too, and some of them from this member.
#[test]
fn a_removed_member_stays_for_a_moment_and_then_ends() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.tick_led(1);
    bench.request(change(entry::remove(ME)));
    bench.commit();
    assert!(bench.notes.contains(&Note::Removed), "{:?}", bench.notes);
    (0..20).for_each(|_| bench.tick());
    assert!(!bench.removed);
    (0..10).for_each(|_| bench.tick());
    assert!(bench.removed);
}

#[test]
fn a_member_that_no_longer_leads_has_no_statistics_of_followers() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    assert!(bench.engine.followers().iter().count() > 0);
    bench.follow(bench.term() + 1);
    assert_eq!(bench.engine.followers().iter().count(), 0);
}

#[test]
fn a_leader_of_others_ticks_as_fast_as_they_do() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.tick_led(1);
    assert_eq!(bench.engine.deadline() - bench.now, TICK);
}

/// Each is an entry that all members store.
#[test]
fn keys_expire_in_at_most_two_entries_a_second() {
    let mut bench = with_ttl(1);
    let before = bench.last();
    bench.now = bench.now + Duration::from_secs(1);
    bench.tick_led(1);
    assert_eq!(bench.last(), before.next());
    bench.tick_led(20);
    assert_eq!(bench.last(), before.next(), "400 ms later");
}

/// So a restart counts most of the time that has passed, even if nothing else is written.
#[test]
fn the_time_is_in_the_log_once_a_minute_while_keys_have_a_time_to_live() {
    let mut bench = with_ttl(1000);
    let before = bench.last();
    let minute = Duration::from_secs(60).as_millis() / TICK.as_millis();
    bench.tick_led(minute as u32 - 10);
    assert_eq!(bench.last(), before);
    bench.tick_led(20);
    assert_eq!(bench.last(), before.next());
}

/// They need not wait for a tick.
#[test]
fn a_request_without_a_leader_goes_to_the_first_one_at_once() {
    let mut bench = Bench::new(&[]);
    bench.propose(1, 10);
    assert_eq!(bench.forwarded, 0);
    bench.follow(1);
    assert_eq!(bench.forwarded, 1);
}

/// One of these members was wrong: there is a leader.
#[test]
fn words_of_a_removal_count_only_until_there_is_a_leader() {
    let mut bench = Bench::new(&[]);
    bench.step(Event::Peers(vec![PeerEvent::Removed { by: THREE }]));
    bench.follow(1);
    (0..3 * ELECTION_TICKS).for_each(|_| bench.tick());
    assert_eq!(bench.engine.core().leader(), None);
    bench.step(Event::Peers(vec![PeerEvent::Removed { by: TWO }]));
    assert!(!bench.notes.contains(&Note::Removed), "{:?}", bench.notes);
}

/// Its transfer may have failed. Nobody would wait for the entry, and the next leader expires the keys.
#[test]
fn a_leader_that_stops_expires_nothing() {
    let mut bench = with_ttl(1);
    bench.tick_led(1);
    bench.now = bench.now + Duration::from_secs(2);
    let before = bench.last();
    bench.step(Event::Stop);
    // These ticks are early, so that the transfer ends before the stop does.
    for _ in 0..ELECTION_TICKS + 2 {
        bench.now = bench.now + TICK / 2;
        let effects = bench.step(Event::Tick);
        assert!(!effects.stopped);
        bench.answer_heartbeats(&[TWO, THREE]);
    }
    assert!(bench.engine.core().is_leader(), "nobody took over");
    assert_eq!(bench.last(), before);
}

/// An entry that its predecessor left behind says nothing about the speed of the other disks.
#[test]
fn a_new_leader_measures_its_disk_anew() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.tick_led(1);
    bench.tick_following(bench.term() + 1, Duration::from_secs(20));
    bench.sent.clear();
    bench.lead();
    bench.tick_led(1);
    bench.propose(2, 10);
    bench.acknowledge(&[TWO, THREE]);
    bench.tick_led(2 * ELECTION_TICKS);
    assert!(
        bench.notes.contains(&Note::HandsOverSlowDisk),
        "its disk hangs: {:?}",
        bench.notes
    );
}

/// It may be down by now, and as a voter it would count for the majority.
#[test]
fn a_learner_that_has_caught_up_and_is_silent_is_not_promoted() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.win_election();
    // Nothing is promoted before the first entry of the term is committed.
    bench.acknowledge(&[LEARNER]);
    bench.tick_answered_by(&[TWO, THREE], ELECTION_TICKS + 10);
    let first = bench.last();
    bench.commit();
    bench.tick_answered_by(&[TWO, THREE], 10);
    assert_eq!(bench.engine.core().commit(), first);
    assert_eq!(bench.last(), first);
    bench.tick_answered_by(&[TWO, THREE, LEARNER], 10);
    assert_eq!(bench.last(), first.next(), "it says something again");
}

/// The statistics would count a client's write once more with each start.
#[test]
fn entries_of_an_earlier_start_are_not_accepted_again() {
    let command = |index| Entry {
        payload: Payload::Command(set(1000).into()),
        ..noop(1, index)
    };
    let log = StoredLog {
        terms: vec![(LogIndex(1), Term(1))],
        last: LogIndex(1),
        tail: vec![command(1)],
        ..StoredLog::default()
    };
    let hard_state = HardState {
        term: Term(1),
        ..HardState::default()
    };
    let mut bench = Bench::restarted(&[], settings(), hard_state, log);
    let effects = bench.hear(TWO, 1, append(vec![command(1)], 1));
    assert_eq!(bench.engine.state().applied, LogIndex(1));
    assert_eq!(effects.accepted_bytes, 0);
    bench.hear(TWO, 1, append(vec![command(1), command(2)], 2));
    let effects = bench.store();
    assert_eq!(bench.engine.state().applied, LogIndex(2));
    assert!((1000..1100).contains(&effects.accepted_bytes), "a new one");
}
