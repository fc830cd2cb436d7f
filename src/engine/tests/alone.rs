//! A member that decides alone: its applied state is linearizable without a question to the core.

use super::*;

fn decides_alone(bench: &Bench) -> bool {
    bench.engine.decides_alone()
}

fn change(bench: &mut Bench, bytes: Vec<u8>) {
    bench.request(Request::Change(Proposal::of(bytes, 1)));
}

/// A leader whose two followers were removed.
fn alone() -> Bench {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.tick_led(10);
    assert!(!decides_alone(&bench), "two of three are a majority");
    change(&mut bench, entry::remove(THREE));
    bench.store_all();
    bench.acknowledge(&[TWO]);
    bench.store_all();
    assert_eq!(bench.engine.core().membership().voters.len(), 2);
    assert!(!decides_alone(&bench), "the other one has a vote");
    bench.tick_led(10);
    change(&mut bench, entry::remove(TWO));
    assert_eq!(bench.engine.core().membership().voters.len(), 1);
    assert!(!decides_alone(&bench), "the removal is not committed");
    bench.store_all();
    assert!(decides_alone(&bench), "nobody else has a vote");
    bench
}

#[test]
fn a_promotion_ends_it_before_any_message_leaves() {
    let mut bench = alone();
    change(&mut bench, entry::add(&member(LEARNER.0)));
    bench.store_all();
    assert!(decides_alone(&bench), "a learner has no vote");
    bench.acknowledge(&[LEARNER]);
    assert_eq!(bench.engine.core().membership().voters.len(), 2);
    assert!(!decides_alone(&bench), "the learner was promoted");
}

#[test]
fn a_member_that_stops_does_not_decide() {
    let mut bench = alone();
    bench.propose(1, 10);
    assert!(decides_alone(&bench), "the write is not acknowledged yet");
    bench.step(Event::Stop);
    assert!(!decides_alone(&bench));
}

/// Its log may end with entries that it acknowledged before the restart. It applies them with the first entry of its
/// term.
#[test]
fn a_new_leader_first_applies_what_was_acknowledged_before() {
    let entry = |index, payload| Entry {
        position: Position {
            term: Term(1),
            index: LogIndex(index),
        },
        payload,
    };
    let change = |node| {
        let (kind, context) = (ChangeKind::Remove, entry::remove(node).into());
        Payload::Change(crate::raft::Change {
            kind,
            node,
            context,
        })
    };
    let changes = vec![entry(1, change(TWO)), entry(2, change(THREE))];
    let acknowledged = entry(3, Payload::Command(set(10).into()));
    let log = StoredLog {
        terms: vec![(LogIndex(1), Term(1))],
        last: LogIndex(3),
        tail: changes.iter().cloned().chain([acknowledged]).collect(),
        changes,
    };
    let hard_state = HardState {
        term: Term(1),
        vote: Some(ME),
    };
    let mut bench = Bench::restarted(&[], settings(), hard_state, log);
    let mut led_before = false;
    while bench.engine.state().applied < LogIndex(4) {
        assert!(!decides_alone(&bench), "{:?}", bench.engine.state().applied);
        led_before |= bench.engine.core().is_leader();
        match bench.at_disk.is_empty() {
            true => bench.tick(),
            false => drop(bench.store()),
        }
    }
    assert!(led_before && decides_alone(&bench));
}
