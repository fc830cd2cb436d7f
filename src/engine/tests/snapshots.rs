//! This member's own snapshots: when one is made, when the log is cut, and how often one is sent.

use super::*;
use crate::engine::trace::{SnapshotStep, Trace};

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

/// It continues after the snapshot that it receives, however long that takes.
#[test]
fn the_log_is_kept_for_a_follower_that_receives_a_snapshot() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    bench.hear(LEARNER, bench.term(), Body::Blank);
    let applied = bench.last();
    let effects = bench.snapshot_made(applied, 100);
    assert_eq!(effects.send_snapshot.len(), 1);
    bench.tick_answered_by(&[TWO, THREE], 2 * ELECTION_TICKS);
    assert_eq!(bench.cut_at, [], "the learner says nothing meanwhile");
    let installed = bench.engine.core().position_at(applied);
    let to = LEARNER;
    let event = PeerEvent::SnapshotSent { to, installed };
    bench.step(Event::Peers(vec![event]));
    bench.tick_answered_by(&[TWO, THREE], 1);
    assert_eq!(bench.cut_at, [applied]);
}

#[test]
fn a_snapshot_that_is_not_used_is_in_the_trace() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    bench.hear(LEARNER, bench.term(), Body::Blank);
    let steps = |bench: &Bench| -> Vec<(SnapshotStep, Option<NodeId>)> {
        let snapshots = bench.engine.trace().iter();
        let steps = snapshots.filter_map(|record| match record.event {
            Trace::Snapshot { what, peer, .. } => Some((what, peer)),
            _ => None,
        });
        steps.collect()
    };
    bench.snapshot_made(bench.last(), 100);
    let (made, sending) = (SnapshotStep::Made, SnapshotStep::Sending);
    assert_eq!(steps(&bench), [(made, None), (sending, Some(LEARNER))]);
    let (to, installed) = (LEARNER, None);
    let event = PeerEvent::SnapshotSent { to, installed };
    bench.step(Event::Peers(vec![event]));
    assert_eq!(steps(&bench), [(SnapshotStep::Failed, Some(LEARNER))]);
}

#[test]
fn a_snapshot_is_made_when_the_log_has_its_largest_size() {
    let mut bench = Bench::with(
        &[],
        Settings {
            log_bytes_max: 100_000,
            ..settings()
        },
    );
    bench.lead();
    for number in 1..=3 {
        assert_eq!(bench.snapshots, 0, "before write {number}");
        bench.propose(number, 40_000);
        bench.commit();
    }
    assert_eq!(bench.snapshots, 1);
}

/// A member that was down for long would expire keys later than the others.
#[test]
fn the_time_at_a_start_is_not_before_that_of_the_snapshot() {
    let mut state = State::new(Members::new(1, (1..=3).map(member)), 100);
    let now = Monotonic(1 << 40);
    state.time = ClusterTime(Estimate::default().at(now).0 + 5_000_000_000);
    let ahead = state.time;
    let core = Core::new(raft::Settings::new(ME, 1), Start::default());
    let engine: Engine<u64> = Engine::new(core, state, settings(), Estimate::default(), at(now));
    assert!(engine.estimate().at(now) >= ahead);
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

// Snapshots and a new leader

fn lead_again(bench: &mut Bench) {
    bench.follow(bench.term() + 1);
    bench.sent.clear();
    bench.lead();
}

/// The follower may have had another leader meanwhile, and space on its disk.
#[test]
fn a_new_leader_begins_with_short_pauses() {
    let mut bench = with_snapshot();
    sent_at(&mut bench, 6);
    lead_again(&mut bench);
    let sent = sent_at(&mut bench, 2);
    let pause = sent[1] - sent[0];
    assert!(pause < Duration::from_millis(500), "{pause:?}");
}

/// The follower may have the entries by now, and the core does not wait for the snapshot.
#[test]
fn a_new_leader_sends_no_snapshot_that_its_predecessor_wanted() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    bench.hear(LEARNER, bench.term(), Body::Blank);
    let applied = bench.engine.state().applied;
    assert_eq!(bench.snapshots, 1);
    lead_again(&mut bench);
    let effects = bench.snapshot_made(applied, 100);
    assert_eq!(effects.send_snapshot, []);
    let effects = bench.hear(LEARNER, bench.term(), Body::Blank);
    assert_eq!(effects.send_snapshot.len(), 1, "now it is wanted");
}
