//! Snapshots that another member has sent: which are used, and what an installation replaces.

use super::*;
use crate::engine::Incoming;

/// A snapshot of TWO, which leads in this term.
pub(super) fn incoming(term: u64, index: u64) -> Box<Incoming> {
    let mut state = State::new(Members::new(1, (1..=4).map(member)), 100);
    state.applied = LogIndex(index);
    let membership = Membership {
        voters: [ME, TWO, THREE].into(),
        learners: [LEARNER].into(),
    };
    Box::new(Incoming {
        from: TWO,
        term: Term(term),
        metadata: SnapshotMetadata {
            position: noop(term, index).position,
            membership,
        },
        state,
        bytes: 500,
    })
}

fn receive(bench: &mut Bench, incoming: Box<Incoming>) -> Effects<u64> {
    bench.step(Event::Peers(vec![PeerEvent::Snapshot(incoming)]))
}

fn installed(bench: &mut Bench, term: u64, index: u64) -> Effects<u64> {
    let position = noop(term, index).position;
    bench.step(Event::Disk(DiskReport::Installed(position)))
}

#[test]
fn an_unused_snapshot_bars_no_later_one() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 2));
    bench.store_all();
    receive(&mut bench, incoming(1, 2));
    assert!(!bench.engine.is_installing(), "the log has all of it");
    let effects = receive(&mut bench, incoming(1, 9));
    assert!(bench.engine.is_installing());
    assert!(effects.publish.is_empty(), "it is not on disk");
    installed(&mut bench, 1, 9);
    assert!(!bench.engine.is_installing());
    receive(&mut bench, incoming(1, 20));
    assert!(bench.engine.is_installing(), "the next one may come");
}

#[test]
fn a_snapshot_that_arrives_during_an_installation_is_dropped() {
    let mut bench = Bench::new(&[]);
    receive(&mut bench, incoming(1, 9));
    receive(&mut bench, incoming(1, 12));
    let effects = installed(&mut bench, 1, 9);
    assert_eq!(bench.engine.state().applied, LogIndex(9));
    let jumps: Vec<bool> = effects.publish.iter().map(|view| view.is_jump).collect();
    assert_eq!(jumps, [true]);
    assert!(
        effects.members_changed,
        "the transport needs the new members"
    );
}

/// The jobs of the disk are done in order. So a record that is handed over later would follow the snapshot's log.
#[test]
fn all_records_are_handed_over_before_a_snapshot_is_installed() {
    let mut bench = Bench::new(&[]);
    let large = |index| Entry {
        position: noop(1, index).position,
        payload: Payload::Command(vec![0; 600_000].into()),
    };
    bench.hear(TWO, 1, append(vec![noop(1, 1)], 0));
    bench.hear(TWO, 1, append(vec![noop(1, 1), large(2), large(3)], 0));
    assert_eq!(
        bench.at_disk.len(),
        1,
        "the others wait for the first batch"
    );
    let commit = Position::default();
    bench.hear(TWO, 2, Body::Heartbeat { round: 1, commit });
    let incoming = incoming(2, 9);
    let effects = {
        let event = Event::Peers(vec![PeerEvent::Snapshot(incoming)]);
        bench.engine.step(at(bench.now), event)
    };
    let jobs = effects.disk.iter().map(|job| match job {
        DiskJob::Save { batch, .. } => batch.entries.len(),
        DiskJob::Install(_) => 99,
        _ => 77,
    });
    assert_eq!(jobs.collect::<Vec<_>>()[..3], [1, 1, 99]);
    let hard_states = effects.disk.iter().filter_map(|job| match job {
        DiskJob::Save { batch, .. } => batch.hard_state,
        _ => None,
    });
    assert_eq!(hard_states.count(), 1, "the new term too");
}

#[test]
fn requests_whose_entries_may_be_part_of_an_installed_snapshot_fail() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    bench.propose(1, 10);
    receive(&mut bench, incoming(1, 9));
    let effects = installed(&mut bench, 1, 9);
    assert_eq!(failures(&effects), [(1, Failure::LeaderLost)]);
}

#[test]
fn an_installed_snapshot_counts_as_this_members_own() {
    let mut bench = Bench::new(&[]);
    receive(&mut bench, incoming(1, 9));
    installed(&mut bench, 1, 9);
    assert_eq!(bench.snapshots, 0, "nothing is new");
    bench.store_all();
    assert_eq!(bench.engine.core().applied(), LogIndex(9));
    assert_eq!(bench.engine.core().stored(), LogIndex(9));
}

/// An own snapshot is not begun of a state that is being replaced.
#[test]
fn no_snapshot_begins_during_an_installation() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 2));
    bench.store_all();
    receive(&mut bench, incoming(1, 9));
    bench.is_full();
    bench.tick();
    assert_eq!(bench.snapshots, 0);
}

/// The log that it would cut no longer exists.
#[test]
fn a_snapshot_of_the_replaced_log_cuts_nothing() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 2));
    bench.is_full();
    bench.store_all();
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2), noop(1, 3)], 2));
    bench.is_full();
    assert_eq!(bench.snapshots, 1);
    let metadata = bench
        .engine
        .core()
        .metadata_at(LogIndex(2))
        .expect("applied");
    receive(&mut bench, incoming(1, 9));
    installed(&mut bench, 1, 9);
    let (bytes, took) = (100, Duration::ZERO);
    bench.step(Event::Disk(DiskReport::Snapshot {
        metadata,
        bytes,
        took,
    }));
    assert_eq!(bench.cut_at, []);
}

/// A key must not expire later here than at the member that made the snapshot.
#[test]
fn an_installed_snapshot_raises_the_time() {
    let mut bench = Bench::new(&[]);
    let ahead = ClusterTime(bench.estimate().0 + 5_000_000_000);
    let mut incoming = incoming(1, 9);
    incoming.state.time = ahead;
    receive(&mut bench, incoming);
    installed(&mut bench, 1, 9);
    assert!(bench.estimate() >= ahead);
}

/// The entry at `index` after the one at `from`, both of term 1.
fn append_after(from: u64, index: u64) -> Body {
    Body::Append {
        previous: noop(1, from).position,
        entries: vec![noop(1, index)],
        commit: LogIndex(index),
    }
}

/// Until then, everything that depends on the disk waits for one more batch.
#[test]
fn the_core_is_told_when_a_snapshot_is_installed() {
    let mut bench = Bench::new(&[]);
    bench.follow(1);
    receive(&mut bench, incoming(1, 9));
    installed(&mut bench, 1, 9);
    bench.store_all();
    bench.sent.clear();
    let nothing_new = Body::Append {
        previous: noop(1, 9).position,
        entries: Vec::new(),
        commit: LogIndex(9),
    };
    bench.hear(TWO, 1, nothing_new);
    let matched = LogIndex(9);
    assert_eq!(bench.sent, [(TWO, Body::Accepted { matched })]);
    assert!(bench.at_disk.is_empty(), "nothing is left to store");
}

#[test]
fn a_snapshot_that_is_due_waits_for_the_end_of_an_installation() {
    let mut bench = Bench::with(
        &[],
        Settings {
            snapshot_count: 1,
            ..settings()
        },
    );
    bench.hear(TWO, 1, append(vec![noop(1, 1)], 1));
    bench.store_all();
    assert_eq!(bench.snapshots, 1);
    bench.hear(TWO, 1, append_after(1, 2));
    bench.store_all();
    let metadata = bench
        .engine
        .core()
        .metadata_at(LogIndex(1))
        .expect("applied");
    receive(&mut bench, incoming(1, 9));
    let (bytes, took) = (10, Duration::ZERO);
    bench.step(Event::Disk(DiskReport::Snapshot {
        metadata,
        bytes,
        took,
    }));
    assert!(bench.engine.is_installing());
    assert_eq!(bench.snapshots, 1, "of a state that is being replaced");
}

#[test]
fn entries_before_an_installed_snapshot_count_for_no_further_one() {
    let mut bench = Bench::with(
        &[],
        Settings {
            snapshot_count: 3,
            ..settings()
        },
    );
    bench.hear(TWO, 1, append(vec![noop(1, 1), noop(1, 2)], 2));
    bench.store_all();
    receive(&mut bench, incoming(1, 9));
    installed(&mut bench, 1, 9);
    bench.store_all();
    bench.hear(TWO, 1, append_after(9, 10));
    bench.store_all();
    assert_eq!(bench.engine.state().applied, LogIndex(10));
    assert_eq!(bench.snapshots, 0, "one entry is new");
}

/// The installation replaces that log as a whole, so no part of it is left to delete.
#[test]
fn an_installation_ends_the_wait_to_cut_the_replaced_log() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.acknowledge(&[TWO]);
    let applied = bench.engine.state().applied;
    bench.snapshot_made(applied, 100);
    assert_eq!(bench.cut_at, [], "THREE copies it");
    let term = bench.term() + 1;
    receive(&mut bench, incoming(term, 9));
    installed(&mut bench, term, 9);
    bench.tick();
    assert_eq!(bench.cut_at, []);
}

/// Each member has its own limit, and the sender's may be larger.
#[test]
fn an_installed_state_keeps_no_more_history_than_this_member_may() {
    let mut bench = Bench::with(
        &[],
        Settings {
            history_bytes: 5000,
            ..settings()
        },
    );
    let mut incoming = incoming(1, 0);
    for index in 1..=9 {
        let payload = Payload::Command(set(1000).into());
        incoming.state.apply(&Entry {
            payload,
            ..noop(1, index)
        });
    }
    incoming.metadata.position = noop(1, 9).position;
    assert_eq!(incoming.state.tree.history().len(), 9);
    receive(&mut bench, incoming);
    installed(&mut bench, 1, 9);
    let kept = bench.engine.state().tree.history().len();
    assert!(
        (1..5).contains(&kept),
        "{kept} events of 1000 bytes and more"
    );
}
