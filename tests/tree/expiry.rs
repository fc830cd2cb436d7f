//! Many keys that are due at once.

use crate::random::stamp_at;
use edgetcd::tree::{Action, Command, EXPIRED_AT_ONCE, Event, Key, Tree, hash};
use std::sync::Arc;

const KEYS: usize = 100_000;

fn set(key: String, ttl: u64) -> Command {
    Command {
        ttl: Some(ttl),
        ..Command::new(Action::Set, Key::new(key.as_bytes()))
    }
}

#[test]
fn a_hundred_thousand_keys_expire_in_turns_that_are_the_same_everywhere() {
    let mut tree = Tree::new(100);
    for key in 0..KEYS {
        let command = set(format!("/{}/{key:06}", key % 7), 1 + key as u64 % 3);
        tree.apply(&command, stamp_at(0)).expect("a set");
    }
    let (mut other, due) = (tree.clone(), stamp_at(10).cluster);
    let mut deadlines = Vec::new();
    for turn in 0..KEYS / EXPIRED_AT_ONCE {
        let expired = tree.expire(due);
        assert_eq!(expired.len(), EXPIRED_AT_ONCE, "turn {turn}");
        assert_eq!(other.expire(due).len(), EXPIRED_AT_ONCE);
        if turn % 4 == 0 {
            assert_eq!(hash(&tree), hash(&other), "turn {turn}");
        }
        deadlines.extend(expired.iter().map(|applied| deadline(&applied.event)));
    }
    assert!(deadlines.is_sorted(), "earliest first, over all turns");
    assert!(tree.expire(due).is_empty() && !tree.has_ttl());
}

/// The key's deadline in seconds, which follows from the number at the end of its name.
fn deadline(event: &Arc<Event>) -> usize {
    let name = event.key.components().next_back().expect("a name");
    let number = std::str::from_utf8(name).expect("digits").parse::<usize>();
    number.expect("a number") % 3
}

#[test]
fn a_directory_that_is_due_counts_once_whatever_is_below() {
    let mut tree = Tree::new(100);
    for key in 0..=EXPIRED_AT_ONCE {
        let mut command = set(format!("/dir/{key}"), 5);
        command.ttl = None;
        tree.apply(&command, stamp_at(0)).expect("a set");
    }
    let mut update = set("/dir".into(), 1);
    (update.action, update.dir) = (Action::Update, true);
    tree.apply(&update, stamp_at(0)).expect("an update");
    assert_eq!(tree.expire(stamp_at(2).cluster).len(), 1);
    assert!(tree.get(&Key::new(b"/dir")).is_err());
}
