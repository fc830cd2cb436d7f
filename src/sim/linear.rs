//! Checks whether a history is linearizable, as a pure function: it takes operations, and returns an explanation if they
//! are not.
//!
//! A *history* is the list of all operations of the clients. An [`Operation`] holds its key, its action, the times of its
//! call and return, and its [`Outcome`]. A history is *linearizable* (Herlihy and Wing, 1990) if each operation can be
//! assigned one moment between its call and its return, so that a plain variable would have returned the same results
//! in the order of these moments. Keys are independent, so a history is linearizable if the history of each key is.
//!
//! An operation whose outcome is [`Outcome::Unknown`] (a timeout, a broken connection) may take effect at any moment
//! after its call, even long after the client stopped waiting, or never.
//!
//! # How it searches
//!
//! Lowe's "just in time" form of Wing and Gong's search ("Testing for linearizability", 2016). Calls
//! and returns are visited in order of time. The state of the search is a set of *possibilities*: the value of the key,
//! and which of the open operations have taken effect. A call opens an operation. At a return, the operation takes effect
//! in each possibility, possibly after other open ones. Possibilities in which it cannot are dropped. If none is left, no
//! order explains the history, and the operation that just returned is the [`Violation`].
//!
//! Equal possibilities are kept once (the memoisation of the title). If two possibilities differ only in the unknown
//! operations that they have used, and one has used all those of the other and more, it is dropped: the other one allows
//! at least the same continuations. An open read or refused write that fits the present value takes effect at once: a
//! later moment would allow nothing more. All unknown writes whose values no client has read are treated as one. So the cost
//! grows with the number of operations that are open at once, and little with the number of unknown ones.
//!
//! # Input
//!
//! All times must come from one clock that never goes back and that all recorded clients share. Record the time of the
//! call before the request is sent, and the time of the return after the response was read. Then rounding only makes an
//! operation longer. The checker finds more violations if every write has a different value. Record a compare-and-swap
//! on an index as one on the value that had this index.
//!
//! ```
//! use edgetcd::sim::linear::{check, Action, Operation, Outcome};
//! let write = Operation {
//!     client: 1, key: "/a", called: 10, returned: 20,
//!     action: Action::set("red"), outcome: Outcome::Done,
//! };
//! let read = Operation {
//!     client: 2, key: "/a", called: 30, returned: 40,
//!     action: Action::Read, outcome: Outcome::Found(None),
//! };
//! let violation = check(&[write, read]).unwrap_err();
//! assert_eq!(violation.operation, 1, "the read is after the write, and must see it");
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// One operation of one client on one key, as the client saw it.
///
/// `K` is the type of keys and `V` the type of values, such as strings or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<K, V> {
    /// The client, for explanations only. The operations of one client are already ordered by
    /// their times.
    pub client: u64,
    /// The only key this operation touches.
    pub key: K,
    /// When it was sent, or before.
    pub called: u64,
    /// When its response had been read, or later, but not before `called`. Ignored if the outcome is
    /// unknown.
    pub returned: u64,
    /// The request.
    pub action: Action<V>,
    /// The result.
    pub outcome: Outcome<V>,
}

/// The request of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<V> {
    /// The value, or that there is none.
    Read,
    /// Replaces the value if the condition holds.
    Write {
        /// Without it, the write changes nothing.
        condition: Condition<V>,
        /// The new value. None: the key is deleted.
        value: Option<V>,
    },
}

/// A condition on the value before the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition<V> {
    /// Nothing.
    Any,
    /// There is none (`prevExist=false`).
    Absent,
    /// There is one (`prevExist=true`; a plain delete).
    Present,
    /// It is this one (`prevValue`).
    Is(V),
}

/// The result of an operation, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<V> {
    /// The write took effect.
    Done,
    /// The write took effect, and this is what it replaced (`prevNode`).
    Replaced(Option<V>),
    /// The condition of the write did not hold; nothing changed.
    Refused,
    /// What a read found.
    Found(Option<V>),
    /// The outcome is unknown: it may take effect at any time after its call, or never. An operation that is
    /// known to have had no effect must not be in the history.
    Unknown,
}

impl<V> Action<V> {
    /// Set, without a condition.
    pub fn set(value: V) -> Action<V> {
        Action::Write {
            condition: Condition::Any,
            value: Some(value),
        }
    }

    /// Compare and swap.
    pub fn swap(expected: V, value: V) -> Action<V> {
        Action::Write {
            condition: Condition::Is(expected),
            value: Some(value),
        }
    }

    /// Delete the key. Refused if the key does not exist.
    pub fn delete() -> Action<V> {
        Action::Write {
            condition: Condition::Present,
            value: None,
        }
    }
}

/// The first operation, in order of returns, that no order explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its place in the history that was checked.
    pub operation: usize,
    /// The possible values just before it returned, in words.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not linearizable at operation {}: {}",
            self.operation, self.why
        )
    }
}

/// Checks the history of all keys, each beginning absent. Operations may come in any order.
///
/// # Panics
/// If an operation returned before it was called, or an outcome does not belong to its action.
pub fn check<K, V>(history: &[Operation<K, V>]) -> Result<(), Violation>
where
    K: Clone + Ord + fmt::Debug,
    V: Clone + Ord + fmt::Debug,
{
    let mut keys: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
    for (place, operation) in history.iter().enumerate() {
        validate(operation);
        keys.entry(&operation.key).or_default().push(place);
    }
    keys.values()
        .try_for_each(|places| check_key(history, places))
}

fn validate<K: fmt::Debug, V: fmt::Debug>(operation: &Operation<K, V>) {
    use Outcome::{Done, Found, Refused, Replaced, Unknown};
    let fits = match (&operation.action, &operation.outcome) {
        (_, Unknown) => return,
        (Action::Read, Found(_)) => true,
        (Action::Write { .. }, Done | Replaced(_) | Refused) => true,
        (Action::Read, _) | (Action::Write { .. }, Found(_)) => false,
    };
    assert!(
        fits,
        "an outcome that cannot be of this action: {operation:?}"
    );
    assert!(
        operation.called <= operation.returned,
        "returned before it was called: {operation:?}"
    );
}

/// Places of operations in the history, in ascending order. A few numbers in one piece of memory: they are copied and
/// compared far more often than changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Places(Vec<usize>);

impl Places {
    fn contains(&self, place: usize) -> bool {
        self.0.binary_search(&place).is_ok()
    }

    fn insert(&mut self, place: usize) {
        if let Err(at) = self.0.binary_search(&place) {
            self.0.insert(at, place);
        }
    }

    /// Returns whether it was there.
    fn remove(&mut self, place: usize) -> bool {
        let at = self.0.binary_search(&place);
        at.is_ok_and(|at| self.0.remove(at) == place)
    }

    fn is_subset(&self, of: &Places) -> bool {
        let mut others = of.0.iter();
        self.0.len() <= of.0.len()
            && self
                .0
                .iter()
                .all(|place| others.any(|other| other == place))
    }
}

/// A possible state of a key at one moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Possibility<V> {
    value: Option<V>,
    /// Open operations that will return, and have taken effect.
    known: Places,
    /// Operations of unknown outcome that have taken effect.
    unknown: Places,
}

/// Possibilities of which none makes another superfluous. Of two with the same value and the same `known`,
/// one that used up more unknown operations is not kept.
#[derive(Debug)]
struct Possibilities<V>(BTreeMap<Known<V>, Vec<Places>>);

/// The value, and the operations that will return and have taken effect.
type Known<V> = (Option<V>, Places);

impl<V: Clone + Ord> Possibilities<V> {
    /// Adds it, unless another one makes it superfluous. Returns whether it was added.
    fn add(&mut self, new: &Possibility<V>) -> bool {
        let key = (new.value.clone(), new.known.clone());
        let used = self.0.entry(key).or_default();
        if used.iter().any(|other| other.is_subset(&new.unknown)) {
            return false;
        }
        used.retain(|other| !new.unknown.is_subset(other));
        used.push(new.unknown.clone());
        true
    }

    fn into_vec(self) -> Vec<Possibility<V>> {
        let one = |((value, known), used): (Known<V>, Vec<Places>)| {
            let possibility = move |unknown| Possibility {
                value: value.clone(),
                known: known.clone(),
                unknown,
            };
            used.into_iter().map(possibility)
        };
        self.0.into_iter().flat_map(one).collect()
    }
}

/// The operations on one key.
struct Search<'a, K, V> {
    history: &'a [Operation<K, V>],
    /// The values in replies and conditions. Writes of other values cannot be distinguished.
    observed: BTreeSet<&'a V>,
    /// Called, and not returned (or never to return).
    open: Places,
}

/// A call or a return, ordered by time. At equal times, calls are first, so that operations that
/// touch count as concurrent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    time: u64,
    is_return: bool,
    place: usize,
}

fn moments<K, V>(history: &[Operation<K, V>], places: &[usize]) -> Vec<Moment> {
    let mut moments = Vec::with_capacity(2 * places.len());
    for &place in places {
        let operation = &history[place];
        let unknown = matches!(operation.outcome, Outcome::Unknown);
        if unknown && matches!(operation.action, Action::Read) {
            continue;
        }
        moments.push(Moment {
            time: operation.called,
            is_return: false,
            place,
        });
        if !unknown {
            moments.push(Moment {
                time: operation.returned,
                is_return: true,
                place,
            });
        }
    }
    moments.sort();
    moments
}

/// Checks the history of one key.
fn check_key<K, V>(history: &[Operation<K, V>], places: &[usize]) -> Result<(), Violation>
where
    K: fmt::Debug,
    V: Clone + Ord + fmt::Debug,
{
    let mut possible = vec![Possibility {
        value: None,
        known: Places::default(),
        unknown: Places::default(),
    }];
    let mut search = Search {
        history,
        observed: places
            .iter()
            .flat_map(|at| observed(&history[*at]))
            .collect(),
        open: Places::default(),
    };
    for moment in moments(history, places) {
        if !moment.is_return {
            search.open.insert(moment.place);
            continue;
        }
        let after = search.take_effect(&possible, moment.place);
        if after.is_empty() {
            return Err(explain(history, &possible, moment.place));
        }
        search.open.remove(moment.place);
        possible = after;
    }
    Ok(())
}

/// The values that this operation's answer depends on.
fn observed<K, V>(operation: &Operation<K, V>) -> impl Iterator<Item = &V> {
    let compared = match &operation.action {
        Action::Write {
            condition: Condition::Is(value),
            ..
        } => Some(value),
        _ => None,
    };
    let seen = match &operation.outcome {
        Outcome::Found(value) | Outcome::Replaced(value) => value.as_ref(),
        _ => None,
    };
    compared.into_iter().chain(seen)
}

impl<K, V: Clone + Ord> Search<'_, K, V> {
    /// All possibilities after the operation at `returning` has taken effect.
    fn take_effect(&self, possible: &[Possibility<V>], returning: usize) -> Vec<Possibility<V>> {
        let mut done = Possibilities(BTreeMap::new());
        let mut seen = Possibilities(BTreeMap::new());
        let mut todo: VecDeque<Possibility<V>> = possible.iter().cloned().collect();
        while let Some(mut current) = todo.pop_front() {
            if current.known.remove(returning) {
                done.add(&current);
            } else if seen.add(&current) {
                todo.extend(self.next(&current));
            }
        }
        done.into_vec()
    }

    /// The possibilities after one more open operation.
    fn next(&self, current: &Possibility<V>) -> Vec<Possibility<V>> {
        let unseen = |value: &V| !self.observed.contains(value);
        let mut hidden = current.value.as_ref().is_some_and(unseen);
        let mut worth_trying = |place: &usize| {
            let used = current.known.contains(*place) || current.unknown.contains(*place);
            // Of unknown writes that cannot be distinguished, one is enough.
            let another = !used && hidden && self.is_hidden(*place);
            hidden |= !used && self.is_hidden(*place);
            !used && !another
        };
        let mut all = Vec::new();
        for place in self.open.0.iter().filter(|place| worth_trying(place)) {
            let Some(next) = step(self.history, current, *place) else {
                continue;
            };
            // It never changes anything, so nothing that is possible later is impossible after it.
            let outcome = &self.history[*place].outcome;
            if matches!(outcome, Outcome::Found(_) | Outcome::Refused) {
                return vec![next];
            }
            all.push(next);
        }
        all
    }

    /// Whether this is an unconditional write of unknown outcome whose value no other operation mentions.
    fn is_hidden(&self, place: usize) -> bool {
        let operation = &self.history[place];
        let written = match &operation.action {
            Action::Write {
                condition: Condition::Any,
                value: Some(value),
            } => value,
            _ => return false,
        };
        matches!(operation.outcome, Outcome::Unknown) && !self.observed.contains(written)
    }
}

/// Lets one open operation take effect, if it could have done so with its outcome.
fn step<K, V: Clone + Ord>(
    history: &[Operation<K, V>],
    current: &Possibility<V>,
    place: usize,
) -> Option<Possibility<V>> {
    let operation = &history[place];
    let after = |value: &Option<V>| Possibility {
        value: value.clone(),
        known: current.known.clone(),
        unknown: current.unknown.clone(),
    };
    let Action::Write { condition, value } = &operation.action else {
        let is_found = operation.outcome == Outcome::Found(current.value.clone());
        return is_found.then(|| {
            let mut next = after(&current.value);
            next.known.insert(place);
            next
        });
    };
    let holds = holds(condition, &current.value);
    let fits = match &operation.outcome {
        Outcome::Done => holds,
        // One that changes nothing is no different from one that never takes effect.
        Outcome::Unknown => holds && *value != current.value,
        Outcome::Replaced(before) => holds && *before == current.value,
        Outcome::Refused => !holds,
        Outcome::Found(_) => false,
    };
    fits.then(|| {
        let mut next = after(if holds { value } else { &current.value });
        match operation.outcome {
            Outcome::Unknown => next.unknown.insert(place),
            _ => next.known.insert(place),
        }
        next
    })
}

fn holds<V: PartialEq>(condition: &Condition<V>, value: &Option<V>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => value.is_none(),
        Condition::Present => value.is_some(),
        Condition::Is(expected) => value.as_ref() == Some(expected),
    }
}

fn explain<K: fmt::Debug, V: Clone + Ord + fmt::Debug>(
    history: &[Operation<K, V>],
    possible: &[Possibility<V>],
    place: usize,
) -> Violation {
    let operation = &history[place];
    let values: BTreeSet<&Option<V>> = possible.iter().map(|one| &one.value).collect();
    Violation {
        operation: place,
        why: format!("{operation:?}; at the return before it the value was one of {values:?}"),
    }
}

#[cfg(test)]
mod tests;
