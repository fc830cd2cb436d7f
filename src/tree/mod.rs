//! The key tree as a pure value (the chapter is written here).

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
pub use history::History;
pub use key::Key;
pub use listing::Listing;
pub use node::{NodeRef, TreeIndex};
pub use snapshot::{Decoder, Encoder, hash};
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
