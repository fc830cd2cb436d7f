//! The key tree as a pure value: commands in, events or API errors out.
//!
//! etcd's v2 API calls this the store: files and directories under slash-separated keys, with times to live, compare
//! operations, and a history of events for watches. The tree opens no file, reads no clock and uses no random numbers.
//! Every member applies the same commands in the same order to its own tree, and gets the same nodes, events, refusals
//! and counters. [`hash`] compares them.
//!
//! # Vocabulary
//!
//! | term | meaning |
//! |---|---|
//! | [`Key`] | a cleaned path, `/` or `/a/b`. Its parts are names |
//! | node | a file (with a value) or a directory (with children by name). It has two indexes and may have a ttl |
//! | [`TreeIndex`] | number of changes: `modifiedIndex`, `X-Etcd-Index`. It is not the index of the raft log |
//! | [`Command`] | a write, as the raft log stores it |
//! | [`Stamp`] | the two times that are stored with a command |
//! | [`Event`] | a change: the node after it and before it |
//! | refusal | an [`ApiError`]: the request is at fault and gets this answer, which is the same on every member |
//! | [`History`] | the last events, for watches with `waitIndex` |
//! | hidden | said of a name that begins with `_`. Listings and watches of the directories above it leave it out |
//! | due | the earliest deadline of a node, or of a directory and everything below it |
//!
//! # Reading order
//!
//! `key`, `command` (with its encoding), `node` (the structure of the tree and how it is freed), `apply` (the actions,
//! the core of this module), `event` (what writers and watchers receive), `expiry`, `history`. Then the supporting
//! files: `listing`, `search` and `json`, `snapshot` and `codec`, `map` and `bytes`. The transcripts in `tests/transcripts/tree`
//! show every action, error and quirk by example.
//!
//! # Versions
//!
//! A [`Tree`] is persistent: [`Clone`] copies a few pointers, and the clone keeps its content when the original
//! changes. So a reader, a listing that a slow client receives, or a snapshot costs the writer very little. The first
//! write after a clone copies the directories between the root and the key. Later writes copy only directories that
//! were not copied yet.
//!
//! # Invariants
//!
//! - The root is a directory. It has no name, no ttl and index 0. It is never written and never removed.
//! - Each change takes exactly one index and produces exactly one event. So the history has no gaps, and its newest
//!   event has the tree's index. A refusal changes only a counter. (A tree restored from a backup continues from a
//!   later index, without the events up to it: [`Tree::skip_to`].)
//! - A node's indexes are at most the tree's index. A directory's indexes do not depend on its children's.
//! - Each directory knows the earliest deadline in each of its children, and no other deadlines.
//! - No function recurses over the depth of a key or the width of a directory. This includes freeing a tree.
//!
//! # Clocks
//!
//! Cluster time decides when keys expire. Wall-clock time is only shown. Both arrive from outside with each command,
//! and [`Tree::expire`] receives the time up to which it removes nodes. Between commands, readers pass a cluster time,
//! from which the remaining `ttl` is computed. See [`Stamp`].
//!
//! # Compared with the reference
//!
//! The behaviour is that of etcd 3.4, including the order of checks and of JSON fields. These quirks are copied: an
//! updated directory keeps its stored modifiedIndex, the history matches more events than a live watch does
//! ([`Event::matches_in_history`]), and comparing and deleting the root is refused without a cause. These are not
//! copied: a ttl that ends after the year 2262 always makes a permanent node, and every refusal counts as a failure.
//!
//! # Limits
//!
//! The watch hub knows which watch waits for which events. The API checks permissions. Gets are not counted here,
//! because they are not replicated. The number and the size of nodes are not limited. A history of large values holds a
//! thousand of them unless [`Tree::limit_history`] sets a limit in bytes.

mod apply;
mod bytes;
mod clock;
mod codec;
mod command;
pub mod error;
mod event;
mod expiry;
mod history;
pub mod json;
mod key;
mod listing;
mod long;
mod map;
mod node;
mod search;
mod snapshot;
mod stats;

pub use bytes::Bytes;
pub use clock::{ClusterTime, Expiry, Stamp, WallTime};
pub use codec::Malformed;
pub use command::{Action, Command};
pub use error::ApiError;
pub use event::{Applied, Event, EventAction, NodeView, Removed};
pub use expiry::EXPIRED_AT_ONCE;
pub use history::History;
pub use key::Key;
pub use listing::Listing;
pub use long::LongText;
pub use node::{NodeRef, TreeIndex};
pub use search::{Matches, Search};
pub use snapshot::{Census, Decoder, Encoder, hash};
pub use stats::{LocalStats, Stats};

use node::{Dir, Found, Node};
use std::sync::Arc;

/// One version of the key tree. A clone copies a few pointers and keeps its content when the original changes.
#[derive(Clone)]
pub struct Tree {
    root: Arc<Dir>,
    index: TreeIndex,
    history: History,
    stats: Stats,
}

impl Tree {
    /// An empty tree at index 0 that keeps the last `history_events` events.
    pub fn new(history_events: usize) -> Tree {
        Tree {
            root: Arc::new(Dir::default()),
            index: TreeIndex(0),
            history: History::new(history_events),
            stats: Stats::default(),
        }
    }

    /// A tree with the same index and counters, without nodes and events. It shares no memory with this one.
    pub fn without_nodes(&self) -> Tree {
        let mut history = History::new(1);
        history.clear(self.index);
        Tree {
            root: Arc::new(Dir::default()),
            index: self.index,
            history,
            stats: self.stats,
        }
    }

    /// Index of the last change.
    pub fn index(&self) -> TreeIndex {
        self.index
    }

    /// The last events.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// From now on keeps events of at most `bytes` bytes in total, but always the newest event. Each member may use
    /// another limit, because the history only determines how far back a watch can look.
    pub fn limit_history(&mut self, bytes: usize) {
        self.history.limit(bytes);
    }

    /// Sets the index, as after unknown changes: the next change gets `index` + 1, and a request for events up to
    /// `index` gets error 401.
    ///
    /// # Panics
    /// If the index would go back.
    pub fn skip_to(&mut self, index: TreeIndex) {
        assert!(
            index >= self.index,
            "from {:?} back to {index:?}",
            self.index
        );
        self.index = index;
        self.history.clear(index);
    }

    /// Uses the next index for a change outside of the tree. The reference stores its members in a hidden part of its
    /// store. There a member change has an index, an event in the history, and a counter, which is that of `action`. No
    /// watch receives the event.
    pub fn take_index(&mut self, action: Action, at: ClusterTime) {
        self.index = self.index.next();
        self.stats.count(action, true);
        let node = NodeView {
            dir: true,
            value: None,
            expiry: None,
            created: self.index,
            modified: self.index,
        };
        self.history.push(Arc::new(Event {
            action: EventAction::Update,
            key: Key::new(b"/"),
            index: self.index,
            node,
            prev_node: None,
            // A refresh matches no watch, live or in the history.
            refresh: true,
            at,
        }));
    }

    /// Counts a change outside of the tree that was refused, like [`Tree::take_index`].
    pub fn count_refusal(&mut self, action: Action) {
        self.stats.count(action, false);
    }

    /// The replicated counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The node at `key`.
    ///
    /// # Errors
    /// 104 with the path of a file on the way to the key, 100 with the first missing path.
    pub fn get(&self, key: &Key) -> Result<NodeRef<'_>, ApiError> {
        self.find(key).map(NodeRef)
    }

    fn find(&self, key: &Key) -> Result<Found<'_>, ApiError> {
        let mut dir = &self.root;
        let mut end = 0;
        for name in key.components() {
            end += 1 + name.len();
            match dir.children.get(name) {
                Some(Node::Dir(child)) => dir = child,
                Some(Node::File(file)) if end == key.as_bytes().len() => {
                    return Ok(Found::File(file));
                }
                Some(Node::File(_)) => {
                    return Err(self.refusal_at(error::NOT_A_DIRECTORY, key, end));
                }
                None => return Err(self.refusal_at(error::KEY_NOT_FOUND, key, end)),
            }
        }
        Ok(Found::Dir(dir))
    }

    /// An error whose cause is the first `end` bytes of the key.
    fn refusal_at(&self, code: u16, key: &Key, end: usize) -> ApiError {
        ApiError::new(code, &key.as_bytes()[..end], self.index.0)
    }

    fn refusal(&self, code: u16, key: &Key) -> ApiError {
        ApiError::new(code, key.as_bytes(), self.index.0)
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree at {:?}", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nodes_it_has_the_same_counts_and_shares_nothing() {
        let mut tree = Tree::new(10);
        let command = Command::new(Action::Set, Key::new(b"/a/b"));
        tree.apply(&command, Stamp::default())
            .expect("an empty file");
        let bare = tree.without_nodes();
        assert_eq!((bare.index(), bare.stats()), (tree.index(), tree.stats()));
        assert!(bare.get(&Key::new(b"/a")).is_err());
        assert_eq!(bare.history().start(), Some(TreeIndex(2)));
        assert!(Arc::get_mut(&mut tree.root).is_some(), "a change copies it");
    }
}
