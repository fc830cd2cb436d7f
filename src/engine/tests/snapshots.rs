//! Snapshots: when the log is cut, how often one is sent, and what happens while one is installed.

use super::*;
use crate::engine::Incoming;

/// A snapshot of TWO, which leads in this term.
fn incoming(term: u64, index: u64) -> Box<Incoming> {
    let mut state = State::new(Members::new(1, (1..=4).map(member)), 100);
    state.applied = LogIndex(index);
    let membership = Membership {
        voters: [ME, TWO, THREE].into(),
        learners: [LEARNER].into(),
    };
    Box::new(Incoming {
        from: TWO,
        term: Term(term),
        mark: SnapshotMetadata {
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

// The log before a snapshot

/// A crash before that would leave neither the snapshot nor the log.
#[test]
fn the_log_is_cut_only_after_its_snapshot_is_durable() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let applied = bench.last();
    bench.propose(1, 10_000);
    bench.is_full();
    assert_eq!((bench.snapshots, bench.cut_at.len()), (1, 0));
    bench.tick_led(ELECTION_TICKS);
    assert_eq!(bench.cut_at, []);
    bench.snapshot_made(applied, 100);
    assert_eq!(bench.cut_at, [applied]);
}

/// Otherwise it would need the whole snapshot.
#[test]
fn the_log_is_kept_for_a_while_for_a_follower_that_copies_it() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.acknowledge(&[TWO]);
    let applied = bench.engine.state().applied;
    bench.snapshot_made(applied, 100);
    let keep = settings().keep_tail.as_millis() / TICK.as_millis();
    bench.tick_led(keep as u32 - 10);
    assert_eq!(bench.cut_at, [], "THREE answers heartbeats");
    bench.tick_led(20);
    assert_eq!(bench.cut_at, [applied], "it is too slow");
}

#[test]
fn the_log_is_not_kept_for_a_follower_that_is_away() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.acknowledge(&[TWO]);
    let applied = bench.engine.state().applied;
    bench.tick_answered_by(&[TWO], ELECTION_TICKS + 10);
    bench.snapshot_made(applied, 100);
    assert_eq!(bench.cut_at, [applied]);
}

// Snapshots for others

/// A learner that needs a snapshot, and the leader's ticks at which one is sent if none is accepted.
fn sent_at(bench: &mut Bench, most: usize) -> Vec<Monotonic> {
    let mut sent = Vec::new();
    let to = LEARNER;
    while sent.len() < most {
        bench.tick_led(1);
        let effects = bench.hear(LEARNER, bench.term(), Body::Blank);
        if !effects.send_snapshot.is_empty() {
            sent.push(bench.now);
            let installed = None;
            let event = PeerEvent::SnapshotSent { to, installed };
            bench.step(Event::Peers(vec![event]));
        }
    }
    sent
}

fn with_snapshot() -> Bench {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    bench.hear(LEARNER, bench.term(), Body::Blank);
    assert_eq!(bench.snapshots, 1, "the first one is made for it");
    let effects = bench.snapshot_made(bench.last(), 100);
    assert_eq!(effects.send_snapshot.len(), 1);
    let (to, installed) = (LEARNER, None);
    let event = PeerEvent::SnapshotSent { to, installed };
    bench.step(Event::Peers(vec![event]));
    bench
}

#[test]
fn a_snapshot_that_is_not_accepted_is_sent_again_after_growing_pauses() {
    let mut bench = with_snapshot();
    let sent = sent_at(&mut bench, 5);
    let pauses: Vec<u128> = sent
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    // Each is 200, 400, 800, … ms, and the time until the next probe.
    let fits = |(pause, least): (&u128, u128)| (least..2 * least).contains(pause);
    let leasts = (0..).map(|power| 200 << power);
    assert!(pauses.iter().zip(leasts).all(fits), "{pauses:?}");
}

#[test]
fn a_follower_that_accepts_a_snapshot_has_no_pause_any_longer() {
    let mut bench = with_snapshot();
    sent_at(&mut bench, 5);
    let to = LEARNER;
    let at = bench.engine.core().position_at(bench.last());
    while bench
        .hear(LEARNER, bench.term(), Body::Blank)
        .send_snapshot
        .is_empty()
    {
        bench.tick_led(1);
    }
    let event = PeerEvent::SnapshotSent { to, installed: at };
    bench.step(Event::Peers(vec![event]));
    let sent = sent_at(&mut bench, 2);
    let pause = sent[1] - sent[0];
    assert!(pause < Duration::from_millis(500), "{pause:?}");
}

#[test]
fn a_follower_for_which_no_snapshot_could_be_made_is_not_forgotten() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    bench.hear(LEARNER, bench.term(), Body::Blank);
    assert_eq!(bench.snapshots, 1);
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    for _ in 0..ELECTION_TICKS {
        bench.tick_led(1);
        bench.hear(LEARNER, bench.term(), Body::Blank);
    }
    assert_eq!(bench.snapshots, 2);
}

// Snapshots from others

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
    let mark = bench.engine.core().mark_at(LogIndex(2)).expect("applied");
    receive(&mut bench, incoming(1, 9));
    installed(&mut bench, 1, 9);
    let (bytes, took) = (100, Duration::ZERO);
    bench.step(Event::Disk(DiskReport::Snapshot { mark, bytes, took }));
    assert_eq!(bench.cut_at, []);
}

/// It may have restarted, with space on its disk.
#[test]
fn a_broken_connection_ends_the_pause_of_a_follower() {
    let mut bench = with_snapshot();
    sent_at(&mut bench, 6);
    let failed = bench.now;
    bench.step(Event::Peers(vec![PeerEvent::Unreachable(LEARNER)]));
    let sent = sent_at(&mut bench, 1);
    assert!(sent[0] - failed < Duration::from_secs(1), "not after 6.4 s");
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
