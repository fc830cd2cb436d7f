//! The watch hub: holds the waiting watchers, and publishes the newest tree.
//!
//! # What it owns
//!
//! * The **view**: the newest version of the tree, with its raft index and term. The raft thread replaces it once per
//!   batch ([`WatchHub::publish`]). A reader clones one pointer.
//! * The **watchers**: a waiting long-poll or stream is an entry of a few hundred bytes here,
//!   which is found by its path. It is not a thread.
//!
//! # Invariants
//!
//! * *A watcher misses no event and gets none twice.* A watcher is registered under the same lock under which events
//!   are published. It searches the history of exactly that version, and afterwards receives only events with a larger
//!   index (`Watcher::from`).
//! * *A watcher gets events in index order.* Events are published in that order, and one thread matches them in that
//!   order.
//! * *A watcher leaves the hub once*: it is answered, cut, or its client disconnects. Its token contains a generation.
//!   So a late report about an old watcher does not affect a new one in the same slot.
//! * Nothing is rendered or sent while the lock is held, with one exception: the head of a watcher's response, which
//!   goes into the buffer of the worker that registers it. The watch thread matches a few events at a time, so the raft
//!   thread never waits long for the lock.
//! * *Memory is bounded.* If the workers are too slow for the events of their streams, the watch thread waits for them.
//!   If too many events are queued here for too long, all streams are cut, like clients that lag (spec §9). If the
//!   events that clients have not received yet use too much memory, the watch thread waits for the clients, for a second
//!   at most, and those that lag most are cut ([`Outbox::is_full`]). One-shot watchers get one event each, so they
//!   cannot delay anything.
//!
//! # Which watchers receive an event (spec §9)
//!
//! Watchers on the event's key. Recursive watchers above it, unless there is a hidden component in between. And if a
//! directory was removed, watchers below it whose node was removed with it. The tree decides each match
//! ([`Event::matches`](crate::tree::Event::matches)). This module only finds the candidates by path.
//!
//! # Files
//!
//! | file | content |
//! |---|---|
//! | `hub` | locks, the watch thread, the sending of events |
//! | [`matching`] | the registered watchers, and which of them receive an event, as a value |

#[cfg(not(target_arch = "wasm32"))]
mod hub;
pub mod matching;

use crate::raft::{LogIndex, Term};
use crate::tree::{Key, Tree, TreeIndex};
#[cfg(not(target_arch = "wasm32"))]
pub use hub::{Outbox, Registered, Views, WatchHub};

/// One published state: the source of a response's body and headers.
#[derive(Clone)]
pub struct View {
    /// This version of the tree.
    pub tree: Tree,
    /// The last entry applied to it: `X-Raft-Index`.
    pub applied: LogIndex,
    /// This member's term: `X-Raft-Term`. Never decreases.
    pub term: Term,
}

/// The events that a client wants to receive.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Events on this key, including those that remove a directory above it.
    pub key: Key,
    /// Also events below the key, unless there is a hidden component in between.
    pub recursive: bool,
    /// Many events in one response, until the client disconnects.
    pub stream: bool,
    /// `waitIndex`; 0 means from now on.
    pub from: TreeIndex,
}
