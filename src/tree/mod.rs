//! The key tree as a pure value: commands in, events or API errors out.
//!
//! This is what etcd's v2 API calls the store: files and directories under slash-separated keys, with
//! times to live, compare operations, and a history of what happened for those who watch. It opens
//! no file, reads no clock and rolls no dice. Every member feeds the same commands in the same order
//! to its own tree and gets the same nodes, events, refusals and counters: [`hash`] tells.
//!
//! # Vocabulary
//!
//! | word | is |
//! |---|---|
//! | [`Key`] | a cleaned path, `/` or `/a/b`; its parts are names |
//! | node | a file (a value) or a directory (children by name), with two indexes and maybe a ttl |
//! | [`TreeIndex`] | counts changes: `modifiedIndex`, `X-Etcd-Index`. Not the index of the raft log |
//! | [`Command`] | a write as the raft log keeps it |
//! | [`Stamp`] | the two times that come with it |
//! | [`Event`] | a change: the node as it is now and as it was before |
//! | refusal | an [`ApiError`]: the request's fault, answered, equal on every member |
//! | [`History`] | the last events, for watches that look back |
//! | hidden | of a name: beginning with `_`, so left out of what its parents show |
//! | due | of a node or a directory: the earliest deadline of it and all below it |
//!
//! # Reading order
//!
//! `key`, `command` (with the bytes of a command), `node` (how the tree is built and let go), `apply`
//! (the actions: the heart), `event` (what is told to whom), `expiry`, `history`; then what is only
//! work: `listing` and `json`, `snapshot` and `codec`, `map` and `bytes`. The transcripts in
//! `tests/transcripts/tree` show every action, error and quirk by example.
//!
//! # Versions
//!
//! A [`Tree`] is persistent: [`Clone`] copies a few pointers, and the clone keeps its content while
//! the original goes on. So a reader, a listing that a slow client drains, or a snapshot costs the
//! writer nothing but this: the first write after a clone copies what lies between the root and the
//! key, a later one only what no earlier one has copied already.
//!
//! # Invariants
//!
//! - The root is a directory; it has no name, no ttl and index 0, is never written and never goes.
//! - Each change takes exactly one index and leaves exactly one event, so the history has no gaps and
//!   its newest event has the tree's index. A refusal changes nothing but a counter. (A tree that was
//!   restored from a backup goes on from a later index, without events up to there: [`Tree::skip_to`].)
//! - A node's indexes are at most the tree's; a directory's are its own, not its children's.
//! - Each directory knows the earliest deadline in each of its children, and of nobody else.
//! - Nothing recurses over the depth of a key or the width of a directory, letting go included.
//!
//! # Clocks
//!
//! Cluster time decides, wall time is shown; both come from outside with each command, and the one
//! call that removes what is due is told up to when. What is read between commands, the `ttl` left,
//! is counted to a cluster time that the reader brings. See [`Stamp`].
//!
//! # As the reference does it, and otherwise
//!
//! The behaviour is that of etcd 3.4 down to the order of checks and of JSON fields. Copied quirks: an
//! updated directory keeps its stored modifiedIndex; the history matches more than a live watch does
//! ([`Event::matches_in_history`]); comparing and deleting the root is refused without a cause.
//! Not copied: a ttl that ends after the year 2262 always makes a permanent node; every refusal
//! counts as a failure; `<`, `>` and `&` are not escaped.
//!
//! # Left out
//!
//! Which watch waits for what, and since when: the hub's business. Who may do it: the HTTP room's.
//! Gets are not counted here, as they are not replicated. There is no limit on the number or the
//! size of nodes; a history of large values holds a thousand of them.

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
mod map;
mod node;
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
pub use node::{NodeRef, TreeIndex};
pub use snapshot::{Census, Decoder, Encoder, hash};
pub use stats::{LocalStats, Stats};

use node::{Dir, Found, Node};
use std::sync::Arc;

/// One version of the key tree. A clone costs a few pointers and keeps its content whatever happens
/// to the original.
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

    /// The index of the last change.
    pub fn index(&self) -> TreeIndex {
        self.index
    }

    /// The last events.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Keeps events of at most so many bytes from now on, but always the newest one. Each member may keep another number:
    /// what is kept decides how far a watch can look back, and nothing else.
    pub fn limit_history(&mut self, bytes: usize) {
        self.history.limit(bytes);
    }

    /// Goes on as if so many changes had been made that nobody knows anything of: the next one has `index` + 1,
    /// and whoever asks for events up to `index` is told that they are forgotten.
    ///
    /// # Panics
    /// When the index would go back.
    pub fn skip_to(&mut self, index: TreeIndex) {
        assert!(
            index >= self.index,
            "from {:?} back to {index:?}",
            self.index
        );
        self.index = index;
        self.history.clear(index);
    }

    /// Uses the next index for a change that is not one of the tree. The reference keeps its members in a hidden part
    /// of its store, so a change of them has an index there, a place in the history, and a counter: that of `action`.
    /// No watch is told of it.
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
            // Refreshes match no watch, parked or looking back.
            refresh: true,
            at,
        }));
    }

    /// The replicated counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The node at `key`.
    ///
    /// # Errors
    /// 104 with the path of a file that stands on the way, 100 with the first path that is missing.
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
