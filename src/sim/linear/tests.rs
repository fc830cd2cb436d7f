//! Histories that are known to be linearizable, or not; and a search by brute force to compare with.

use super::*;

type Op = Operation<u8, u8>;

/// An operation on key 0 of a client that is of no concern.
fn op(called: u64, returned: u64, action: Action<u8>, outcome: Outcome<u8>) -> Op {
    Operation {
        client: 0,
        key: 0,
        called,
        returned,
        action,
        outcome,
    }
}

fn set(called: u64, returned: u64, value: u8) -> Op {
    op(called, returned, Action::set(value), Outcome::Done)
}

fn lost_set(called: u64, value: u8) -> Op {
    op(called, 0, Action::set(value), Outcome::Unknown)
}

fn read(called: u64, returned: u64, found: Option<u8>) -> Op {
    op(called, returned, Action::Read, Outcome::Found(found))
}

fn refused_at(history: &[Op]) -> Option<usize> {
    check(history).err().map(|violation| violation.operation)
}

#[test]
fn one_after_the_other() {
    let history = [
        set(0, 1, 1),
        read(2, 3, Some(1)),
        set(4, 5, 2),
        read(6, 7, Some(2)),
    ];
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn a_stale_read_is_refused() {
    let history = [set(0, 1, 1), set(2, 3, 2), read(4, 5, Some(1))];
    assert_eq!(refused_at(&history), Some(2));
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    for found in [None, Some(1)] {
        assert_eq!(check(&[set(0, 10, 1), read(3, 4, found)]), Ok(()));
    }
    assert_eq!(refused_at(&[set(0, 10, 1), read(3, 4, Some(2))]), Some(1));
}

#[test]
fn what_touches_counts_as_concurrent() {
    assert_eq!(check(&[set(0, 5, 1), read(5, 6, None)]), Ok(()));
    assert_eq!(refused_at(&[set(0, 5, 1), read(6, 6, None)]), Some(1));
}

#[test]
fn two_reads_may_not_go_back() {
    let history = |first, second| [set(0, 10, 1), read(1, 2, first), read(3, 4, second)];
    assert_eq!(check(&history(None, Some(1))), Ok(()));
    assert_eq!(refused_at(&history(Some(1), None)), Some(2));
}

#[test]
fn an_unknown_write_may_come_late_or_never_but_once() {
    let late = [
        lost_set(0, 9),
        set(1, 2, 1),
        read(3, 4, Some(1)),
        read(5, 6, Some(9)),
    ];
    assert_eq!(check(&late), Ok(()));
    let never = [lost_set(0, 9), set(1, 2, 1), read(3, 4, Some(1))];
    assert_eq!(check(&never), Ok(()));
    let twice = [
        lost_set(0, 9),
        read(1, 2, Some(9)),
        set(3, 4, 1),
        read(5, 6, Some(9)),
    ];
    assert_eq!(refused_at(&twice), Some(3));
    let early = [read(0, 1, Some(9)), lost_set(2, 9)];
    assert_eq!(refused_at(&early), Some(0));
}

#[test]
fn a_swap_takes_what_it_compared() {
    let swap = |outcome| op(2, 3, Action::swap(1, 2), outcome);
    assert_eq!(check(&[set(0, 1, 1), swap(Outcome::Done)]), Ok(()));
    assert_eq!(refused_at(&[set(0, 1, 1), swap(Outcome::Refused)]), Some(1));
    assert_eq!(refused_at(&[set(0, 1, 7), swap(Outcome::Done)]), Some(1));
    assert_eq!(check(&[set(0, 1, 7), swap(Outcome::Refused)]), Ok(()));
}

#[test]
fn two_swaps_of_one_value_cannot_both_be_done() {
    let swap = |new| op(2, 9, Action::swap(1, new), Outcome::Done);
    assert!(check(&[set(0, 1, 1), swap(2), swap(3)]).is_err());
}

#[test]
fn a_refusal_may_be_explained_by_an_unknown_write() {
    let swap = op(4, 5, Action::swap(1, 2), Outcome::Refused);
    assert_eq!(check(&[set(0, 1, 1), lost_set(2, 7), swap.clone()]), Ok(()));
    assert_eq!(refused_at(&[set(0, 1, 1), swap]), Some(1));
}

#[test]
fn a_delete_needs_something() {
    let delete = |outcome| op(2, 3, Action::delete(), outcome);
    assert_eq!(check(&[delete(Outcome::Refused)]), Ok(()));
    assert_eq!(refused_at(&[delete(Outcome::Done)]), Some(0));
    let gone = [set(0, 1, 1), delete(Outcome::Done), read(4, 5, None)];
    assert_eq!(check(&gone), Ok(()));
    let back = [set(0, 1, 1), delete(Outcome::Done), read(4, 5, Some(1))];
    assert_eq!(refused_at(&back), Some(2));
}

#[test]
fn what_a_write_says_it_replaced_is_checked() {
    let second = |before| op(2, 3, Action::set(2), Outcome::Replaced(before));
    assert_eq!(check(&[set(0, 1, 1), second(Some(1))]), Ok(()));
    assert_eq!(refused_at(&[set(0, 1, 1), second(None)]), Some(1));
}

#[test]
fn keys_do_not_concern_each_other() {
    let elsewhere = Operation {
        key: 1,
        ..read(2, 3, None)
    };
    assert_eq!(check(&[set(0, 1, 1), elsewhere.clone()]), Ok(()));
    let wrong = Operation {
        outcome: Outcome::Found(Some(1)),
        ..elsewhere
    };
    assert_eq!(refused_at(&[set(0, 1, 1), wrong]), Some(1));
}

#[test]
#[should_panic(expected = "cannot be of this action")]
fn an_outcome_must_fit_its_action() {
    let _ = check(&[op(0, 1, Action::Read, Outcome::Done)]);
}

/// Two hundred writes of unknown outcome, and eight hundred operations among them: the search must
/// not try their subsets.
#[test]
fn many_unknown_writes_are_cheap() {
    let mut history: Vec<Operation<u8, u64>> = Vec::new();
    for at in 0..1000_u64 {
        let (action, outcome) = match at % 5 {
            0 => (Action::set(at), Outcome::Unknown),
            1 | 3 => (Action::set(at), Outcome::Done),
            _ => (Action::Read, Outcome::Found(Some(at - 1))),
        };
        history.push(Operation {
            client: at % 5,
            key: 0,
            called: 10 * at,
            returned: 10 * at + 5,
            action,
            outcome,
        });
    }
    assert_eq!(check(&history), Ok(()));
    history[999].outcome = Outcome::Found(Some(7));
    assert!(check(&history).is_err());
}

/// All orders, tried one by one: slow, and plain enough to be believed.
fn by_brute_force(history: &[Op], value: Option<u8>, left: &BTreeSet<usize>) -> bool {
    let must = |place: &&usize| history[**place].outcome != Outcome::Unknown;
    let returns = left
        .iter()
        .filter(must)
        .map(|place| history[*place].returned);
    let Some(first_return) = returns.min() else {
        return true;
    };
    left.iter().any(|place| {
        let operation = &history[*place];
        let current = Possibility {
            value,
            known: Places::default(),
            unknown: Places::default(),
        };
        let mut rest = left.clone();
        rest.remove(place);
        operation.called <= first_return
            && step(history, &current, *place)
                .is_some_and(|next| by_brute_force(history, next.value, &rest))
    })
}

/// Small histories drawn at random, many of them not linearizable: both searches must agree.
#[test]
fn it_agrees_with_brute_force() {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut results = [0, 0];
    for _ in 0..3000 {
        let history: Vec<Op> = (0..6).map(|_| random_operation(&mut draw)).collect();
        let counts =
            |op: &Op| !matches!((&op.action, &op.outcome), (Action::Read, Outcome::Unknown));
        let places = (0..history.len())
            .filter(|place| counts(&history[*place]))
            .collect();
        let expected = by_brute_force(&history, None, &places);
        assert_eq!(check(&history).is_ok(), expected, "{history:#?}");
        results[usize::from(expected)] += 1;
    }
    assert!(
        results.iter().all(|count| *count > 300),
        "one-sided: {results:?}"
    );
}

fn random_operation(draw: &mut impl FnMut(u64) -> u64) -> Op {
    let called = draw(12);
    let returned = called + draw(8);
    let value = u8::try_from(draw(3)).expect("below 3");
    let found = (draw(3) > 0).then_some(value);
    let known = draw(5) > 0;
    let (action, outcome) = match draw(6) {
        0 | 1 => (Action::set(value), Outcome::Done),
        2 => (Action::swap(value, (value + 1) % 3), Outcome::Done),
        3 => (Action::swap(value, 2 - value), Outcome::Refused),
        4 => (Action::delete(), Outcome::Done),
        _ => (Action::Read, Outcome::Found(found)),
    };
    let outcome = if known { outcome } else { Outcome::Unknown };
    op(called, returned, action, outcome)
}
