//! A second, independent check: searches for an order of the operations without using indexes.
//!
//! [`crate::order`] trusts the server's own indexes and checks that the operations fit them. This module searches for
//! any valid order, key by key, from requests, responses and times. It ignores in-order creations, because each
//! creates its own key; the first check covers them.

use edgetcd::sim::linear::{self, Action, Condition};

use crate::history::{Operation, Outcome, Request};

/// Panics with the operation that no order explains.
pub fn check(history: &[Operation]) {
    if let Some(violation) = violation(history) {
        panic!("{violation}");
    }
}

/// The operation that no order explains, with all others on its key.
pub fn violation(history: &[Operation]) -> Option<String> {
    let (own, asked): (Vec<&Operation>, Vec<_>) = history
        .iter()
        .filter_map(|operation| Some((operation, translated(operation)?)))
        .unzip();
    let violation = linear::check(&asked).err()?;
    let worst = own[violation.operation];
    Some(format!(
        "{violation}\n{worst:?}\n{}",
        others_on(worst, &own)
    ))
}

fn translated(operation: &Operation) -> Option<linear::Operation<&str, &str>> {
    Some(linear::Operation {
        client: operation.client,
        key: operation.request.key(),
        called: operation.sent,
        returned: operation.answered,
        action: action(&operation.request)?,
        outcome: outcome(&operation.outcome, &operation.request),
    })
}

fn action<'a>(request: &'a Request) -> Option<Action<&'a str>> {
    let write = |condition: Condition<&'a str>, value: Option<&'a str>| {
        Some(Action::Write { condition, value })
    };
    match request {
        Request::Put { value, .. } => write(Condition::Any, Some(value)),
        Request::Swap {
            value, expected, ..
        }
        | Request::SwapIndex {
            value, expected, ..
        } => write(Condition::Is(expected), Some(value)),
        Request::Delete { .. } => write(Condition::Present, None),
        Request::Read { .. } => Some(Action::Read),
        Request::Post { .. } => None,
    }
}

fn outcome<'a>(outcome: &'a Outcome, request: &Request) -> linear::Outcome<&'a str> {
    let reads = matches!(request, Request::Read { .. });
    match outcome {
        Outcome::Written { previous, .. } => linear::Outcome::Replaced(previous.as_deref()),
        Outcome::Found { value, .. } => linear::Outcome::Found(Some(value)),
        Outcome::Absent { .. } if reads => linear::Outcome::Found(None),
        Outcome::Absent { .. } | Outcome::Refused { .. } => linear::Outcome::Refused,
        Outcome::Unknown => linear::Outcome::Unknown,
    }
}

/// All other operations on that key, in the order in which they were sent.
fn others_on(worst: &Operation, history: &[&Operation]) -> String {
    let same = history
        .iter()
        .filter(|other| other.request.key() == worst.request.key());
    let mut same: Vec<&&Operation> = same.collect();
    same.sort_by_key(|operation| operation.sent);
    same.iter()
        .map(|operation| format!("  {operation:?}\n"))
        .collect()
}

/// Tests that both checks can fail: histories that no order explains.
mod can_fail {
    use super::*;
    use crate::order;
    use crate::watchers::{Event, Log};

    /// A write of "one" at index 5, of "two" at 6, and then this read.
    fn story(found: &str, modified: u64, at: u64) -> (Vec<Operation>, Log) {
        let operation = |request, outcome, sent| Operation {
            client: 1,
            node: 0,
            request,
            outcome,
            sent,
            answered: sent + 5,
        };
        let key = || "/k".to_owned();
        let put = |value: &str, index, previous: Option<&str>, sent| {
            let (value, previous) = (value.to_owned(), previous.map(str::to_owned));
            let written = Outcome::Written {
                key: key(),
                index,
                previous,
            };
            operation(Request::Put { key: key(), value }, written, sent)
        };
        let event = |value: &str, previous: Option<&str>| Event {
            action: "set".to_owned(),
            key: key(),
            value: Some(value.to_owned()),
            previous: previous.map(str::to_owned),
        };
        let read = Outcome::Found {
            value: found.to_owned(),
            modified,
            at,
        };
        let history = vec![
            put("one", 5, None, 0),
            put("two", 6, Some("one"), 10),
            operation(Request::Read { key: key() }, read, 20),
        ];
        let log = Log::from([(5, event("one", None)), (6, event("two", Some("one")))]);
        (history, log)
    }

    #[test]
    fn a_fresh_read_is_accepted() {
        let (history, log) = story("two", 6, 6);
        assert_eq!(order::misfits(&history, &log), Vec::<String>::new());
        assert_eq!(violation(&history), None);
    }

    #[test]
    fn a_stale_read_is_noticed() {
        let (history, log) = story("one", 5, 5);
        assert!(!order::misfits(&history, &log).is_empty());
        assert!(violation(&history).is_some());
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_noticed() {
        let (history, log) = story("one", 5, 6);
        assert!(!order::misfits(&history, &log).is_empty());
        assert!(violation(&history).is_some());
    }

    #[test]
    fn an_acknowledged_write_that_never_happened_is_noticed() {
        let (history, mut log) = story("two", 6, 6);
        log.remove(&5);
        assert!(!order::misfits(&history, &log).is_empty());
    }

    #[test]
    fn a_write_made_twice_is_noticed() {
        let (history, mut log) = story("two", 6, 6);
        let again = log[&5].clone();
        log.insert(7, again);
        assert!(!order::misfits(&history, &log).is_empty());
    }
}
