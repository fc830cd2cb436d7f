//! A disk without space: which requests are refused, when, and for how long.

use super::*;
use crate::engine::peer_message::LeaderReply;
use crate::engine::request::Query;

/// A leader whose disk has no space for a batch, nor for a snapshot. It refuses writes.
fn out_of_room() -> Bench {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10_000);
    bench.is_full();
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    bench.is_full();
    assert!(bench.notes.contains(&Note::DiskFull), "{:?}", bench.notes);
    bench
}

fn hands_over(bench: &Bench) -> bool {
    bench.notes.contains(&Note::HandsOverFullDisk)
}

/// Its outcome would be known here when it is applied, and that needs the disk.
#[test]
fn commands_that_wait_for_a_full_disk_fail_wherever_they_were_appended() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 1));
    bench.store_all();
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2), noop(1, 3)], 2));
    bench.is_full();
    assert_eq!(bench.snapshots, 1);
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    let effects = bench.is_full();
    assert_eq!(failures(&effects), [(1, Failure::DiskFull)]);
}

/// It changes nothing on the disk.
#[test]
fn a_full_disk_fails_no_quorum_read() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10_000);
    bench.request(Request::Read(Query::new(2, None)));
    bench.is_full();
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    let effects = bench.is_full();
    assert_eq!(failures(&effects), [(1, Failure::DiskFull)]);
}

#[test]
fn a_full_disk_takes_no_command_of_another_member() {
    let mut bench = out_of_room();
    let (term, last) = (bench.term(), bench.last());
    bench.asked.clear();
    // A removal, which would be taken without room. THREE is away, so leadership is not transferred. Only the disk is a
    // reason against a command.
    let removal = Command::new(Action::Delete, Key::new(b"/a"));
    let commands = vec![entry::tree(&removal).into()];
    let forward = PeerMessage::Forward {
        number: 5,
        term: Term(term),
        commands,
    };
    let change = PeerMessage::Change {
        number: 6,
        term: Term(term),
        command: entry::add(&member(8)),
    };
    bench.acknowledge(&[TWO]);
    bench.tick_answered_by(&[TWO], 3 * ELECTION_TICKS);
    for _ in 0..ELECTION_TICKS {
        for message in [&forward, &change] {
            bench.hear_other(TWO, message.clone());
        }
        bench.tick_answered_by(&[TWO], 1);
    }
    assert!(bench.engine.core().is_leader());
    assert_eq!(bench.last(), last);
    let refused = |(_, message): &(NodeId, PeerMessage)| {
        let reply = LeaderReply::NotTaken;
        let both = [5, 6].map(|number| PeerMessage::Reply { number, reply });
        both.contains(message)
    };
    assert!(bench.asked.iter().all(refused));
}

#[test]
fn without_room_only_removals_of_other_members_are_taken() {
    let mut bench = out_of_room();
    bench.store_all();
    bench.acknowledge(&[TWO, THREE]);
    // The transfer fails, because nobody is elected.
    bench.tick_led(ELECTION_TICKS + 1);
    let last = bench.last();
    let forward = |number, action| PeerMessage::Forward {
        number,
        term: Term(1),
        commands: vec![entry::tree(&Command::new(action, Key::new(b"/a"))).into()],
    };
    bench.hear_other(TWO, forward(5, Action::Set));
    assert_eq!(bench.last(), last);
    bench.hear_other(TWO, forward(6, Action::Delete));
    assert_eq!(bench.last(), last.next());
}

/// A disk that was full for a moment, twice, was not full for long.
#[test]
fn the_time_without_space_counts_from_the_batch_that_does_not_fit() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 100);
    bench.is_full();
    bench.commit();
    bench.tick_led(6 * ELECTION_TICKS);
    assert!(!bench.engine.is_disk_full(), "{:?}", bench.notes);
}

#[test]
fn each_attempt_at_a_snapshot_without_room_waits_twice_as_long() {
    let mut bench = out_of_room();
    let mut begun = Vec::new();
    while begun.len() < 4 {
        let before = bench.snapshots;
        bench.tick_led(1);
        if bench.snapshots > before {
            begun.push(bench.now);
            bench.step(Event::Disk(DiskReport::NoSnapshot));
        }
    }
    let seconds = |pair: &[Monotonic]| (pair[1] - pair[0]).as_secs_f64().round() as u64;
    let waits: Vec<u64> = begun.windows(2).map(seconds).collect();
    assert_eq!(waits, [2, 4, 8]);
}

#[test]
fn a_leader_with_a_full_disk_transfers_leadership() {
    let mut bench = out_of_room();
    bench.tick_led(2 * ELECTION_TICKS);
    assert!(hands_over(&bench), "{:?}", bench.notes);
}

/// Nobody else would have a majority.
#[test]
fn a_leader_with_a_full_disk_stays_if_the_others_are_not_a_majority() {
    let mut bench = out_of_room();
    // Until then, THREE counts as reachable, and a transfer may begin and end.
    bench.tick_answered_by(&[TWO], 3 * ELECTION_TICKS);
    bench.notes.clear();
    bench.tick_answered_by(&[TWO], 2 * ELECTION_TICKS);
    assert!(bench.engine.core().is_leader());
    assert!(!hands_over(&bench), "{:?}", bench.notes);
}

/// The oldest are dropped; raft sends them again.
#[test]
fn the_messages_that_wait_for_a_full_disk_are_limited() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1)], 0));
    bench.is_full();
    for _ in 0..5000 {
        bench.hear(TWO, 1, append(vec![noop(1, 1)], 0));
    }
    bench.sent.clear();
    bench.store_all();
    assert_eq!(bench.sent.len(), 1 + 4096, "one was with the disk");
}

/// Its time is in an entry, and that needs the disk.
#[test]
fn a_leader_with_a_full_disk_expires_nothing() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let mut command = Command::new(Action::Set, Key::new(b"/a"));
    command.ttl = Some(5);
    bench.request(Request::Propose(Proposal::of(entry::tree(&command), 1)));
    bench.commit();
    bench.propose(2, 10);
    bench.is_full();
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    bench.is_full();
    let last = bench.last();
    bench.tick_answered_by(&[TWO], 6 * ELECTION_TICKS);
    assert_eq!(bench.last(), last);
}
