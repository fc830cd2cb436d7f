//! Checks that the observations of the clients fit one order, that of the store's index.
//!
//! The server's responses define the order: a change has an index, and every other response contains the index of the
//! store from which it was made. So no search is needed. The history is linearizable over all keys under two
//! conditions: each operation fits the log of changes at its claimed position, and no operation that began after the
//! end of another one claims an earlier position.

use std::collections::HashMap;

use crate::history::{Operation, Outcome, Request};
use crate::watchers::{Event, Log};

/// The changes of each key: index and value after it.
type Changes = HashMap<String, Vec<(u64, Option<String>)>>;

/// Panics with a list of the operations that do not fit.
pub fn check(history: &[Operation], log: &Log) {
    let wrong = misfits(history, log);
    let shown = wrong[..wrong.len().min(20)].join("\n");
    assert!(wrong.is_empty(), "{} do not fit:\n{shown}", wrong.len());
}

/// Messages about the operations that do not fit.
pub fn misfits(history: &[Operation], log: &Log) -> Vec<String> {
    let changes = changes(log);
    let mut wrong = made_twice_or_by_nobody(history, log);
    for operation in history {
        if let Err(why) = fits(operation, log, &changes) {
            wrong.push(format!("{why}: {operation:?}"));
        }
    }
    wrong.extend(out_of_order(history, log));
    wrong
}

fn changes(log: &Log) -> Changes {
    let mut changes = Changes::new();
    for (index, event) in log {
        let change = (*index, event.value.clone());
        changes.entry(event.key.clone()).or_default().push(change);
    }
    changes
}

/// The value of a key after the change with this index, and the index of the key's last change.
fn state<'a>(changes: &'a Changes, key: &str, at: u64) -> (Option<&'a str>, u64) {
    let own = changes.get(key).map_or(&[][..], Vec::as_slice);
    let count = own.partition_point(|(index, _)| *index <= at);
    let last = count.checked_sub(1).map(|position| &own[position]);
    last.map_or((None, 0), |(index, value)| (value.as_deref(), *index))
}

/// Every value was written by one request. It may have been applied at most once.
fn made_twice_or_by_nobody(history: &[Operation], log: &Log) -> Vec<String> {
    let mut writers: HashMap<&str, u64> = HashMap::new();
    for value in history
        .iter()
        .filter_map(|operation| operation.request.value())
    {
        writers.insert(value, 0);
    }
    let mut wrong = Vec::new();
    for (index, Event { value, key, .. }) in log {
        let Some(value) = value else { continue };
        match writers.get_mut(value.as_str()) {
            Some(times) if *times == 0 => *times = *index,
            Some(times) => wrong.push(format!(
                "{key} = {value} was applied at {times} and {index}"
            )),
            None if value == crate::watchers::END => {}
            None => wrong.push(format!("{key} = {value} was written by no client")),
        }
    }
    wrong
}

/// Whether the operation would have had this outcome at its claimed position.
fn fits(operation: &Operation, log: &Log, changes: &Changes) -> Result<(), String> {
    let request = &operation.request;
    let (value, modified) = match position(&operation.outcome) {
        Some(at) => state(changes, request.key(), at),
        None => return Ok(()),
    };
    let holds = match (&operation.outcome, request) {
        (
            Outcome::Written {
                key,
                index,
                previous,
            },
            _,
        ) => {
            let event = log
                .get(index)
                .ok_or("acknowledged, but it never happened")?;
            let same = event.action == request.action()
                && event.key == *key
                && event.value.as_deref() == request.value()
                && event.previous == *previous;
            let before = state(changes, key, index - 1);
            same && before.0 == previous.as_deref() && condition(request, before)
        }
        (
            Outcome::Found {
                value: found,
                modified: index,
                ..
            },
            _,
        ) => value == Some(found) && modified == *index,
        (Outcome::Absent { .. }, _) => value.is_none(),
        (Outcome::Refused { .. }, _) => value.is_some() && !condition(request, (value, modified)),
        (Outcome::Unknown, _) => true,
    };
    let why = || format!("the key was {value:?} since {modified}");
    if holds { Ok(()) } else { Err(why()) }
}

/// Whether the request's condition is true for this value and index.
fn condition(request: &Request, (value, modified): (Option<&str>, u64)) -> bool {
    match request {
        Request::Swap { expected, .. } => value == Some(expected),
        Request::SwapIndex { index, .. } => value.is_some() && modified == *index,
        Request::Delete { .. } => value.is_some(),
        Request::Post { .. } => value.is_none(),
        Request::Put { .. } | Request::Read { .. } => true,
    }
}

/// The position in the order that it claims.
fn position(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Written { index, .. } => Some(*index),
        Outcome::Found { at, .. } | Outcome::Absent { at } | Outcome::Refused { at } => Some(*at),
        Outcome::Unknown => None,
    }
}

/// Operations that began after the end of another one but claim an earlier position.
fn out_of_order(history: &[Operation], log: &Log) -> Vec<String> {
    let applied: HashMap<&str, u64> = log
        .iter()
        .filter_map(|(index, event)| Some((event.value.as_deref()?, *index)))
        .collect();
    let mut ended: Vec<(u64, u64, &Operation)> = history
        .iter()
        .filter_map(|operation| {
            Some((operation.answered, position(&operation.outcome)?, operation))
        })
        .collect();
    ended.sort_by_key(|(answered, ..)| *answered);
    // The latest position claimed by any operation that ended up to there.
    let mut furthest: Vec<(u64, u64, &Operation)> = Vec::new();
    for (answered, place, operation) in ended {
        match furthest.last() {
            Some((_, far, by)) if *far >= place => furthest.push((answered, *far, *by)),
            _ => furthest.push((answered, place, operation)),
        }
    }
    let mut wrong = Vec::new();
    for operation in history {
        // A change may also be known from the log alone.
        let known = operation
            .request
            .value()
            .and_then(|value| applied.get(value))
            .copied();
        let written = matches!(operation.outcome, Outcome::Written { .. });
        let is_change = written || known.is_some();
        let Some(place) = position(&operation.outcome).or(known) else {
            continue;
        };
        let count = furthest.partition_point(|(answered, ..)| *answered < operation.sent);
        let Some((_, far, earlier)) = count.checked_sub(1).map(|last| &furthest[last]) else {
            continue;
        };
        if place < *far || (is_change && place == *far) {
            wrong.push(format!(
                "began after the end of another, and claims {place}, not after {far}: {operation:?}, after {earlier:?}"
            ));
        }
    }
    wrong
}
