//! Events: what a change of the tree tells its author, its watchers and the history.

use super::bytes::Bytes;
use super::clock::{ClusterTime, Expiry};
use super::json;
use super::key::Key;
use super::node::{Dir, Node, TreeIndex};
use std::sync::Arc;

/// What happened: the `action` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventAction {
    /// A node was written whether or not it existed.
    Set,
    /// A node was made that did not exist, in-order keys included.
    Create,
    /// An existing node was written.
    Update,
    /// A file was written after a comparison.
    CompareAndSwap,
    /// A node was removed, with all below it.
    Delete,
    /// A file was removed after a comparison.
    CompareAndDelete,
    /// A node was removed because its time was over, with all below it.
    Expire,
}

impl EventAction {
    /// The word in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EventAction::Set => "set",
            EventAction::Create => "create",
            EventAction::Update => "update",
            EventAction::CompareAndSwap => "compareAndSwap",
            EventAction::Delete => "delete",
            EventAction::CompareAndDelete => "compareAndDelete",
            EventAction::Expire => "expire",
        }
    }
}

/// A node at one moment, without its children.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// Whether it is a directory.
    pub dir: bool,
    /// A file's value; none for a directory, and for the node of a removal.
    pub value: Option<Bytes>,
    /// None: permanent, or the node of a removal.
    pub expiry: Option<Expiry>,
    /// `createdIndex`.
    pub created: TreeIndex,
    /// `modifiedIndex`.
    pub modified: TreeIndex,
}

/// A change of the tree. There is one for each index, so the events of the history are numbered
/// without gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What happened.
    pub action: EventAction,
    /// To which key. In-order creation: the key that was made.
    pub key: Key,
    /// The index that the change took; `X-Etcd-Index` of a write's answer.
    pub index: TreeIndex,
    /// The node as it is now; of a removal: what remains to be said of it.
    pub node: NodeView,
    /// The node before, if there was one.
    pub prev_node: Option<NodeView>,
    /// Only a ttl was renewed: no watch is told, from the history neither.
    pub refresh: bool,
    /// When it happened. The `ttl` fields count from here, whenever the event is rendered.
    pub at: ClusterTime,
}

impl Event {
    /// HTTP status of the answer: 201 if the node is new, else 200.
    pub fn status(&self) -> u16 {
        match (self.action, &self.prev_node) {
            (EventAction::Create, _) | (EventAction::Set, None) => 201,
            _ => 200,
        }
    }

    /// About how many bytes it holds, in memory and in a snapshot.
    pub fn bytes(&self) -> usize {
        const REST: usize = 64;
        let value = |view: &NodeView| view.value.as_ref().map_or(0, |value| value.len());
        let before = self.prev_node.as_ref().map_or(0, value);
        REST + self.key.as_bytes().len() + value(&self.node) + before
    }

    /// Whether a parked watch on `watch` is told (spec §9, live watches). `removed` is what came
    /// with the event in [`Applied`]. The index a watch waits for is the hub's business.
    ///
    /// Told are: a watch on the event's key; a recursive watch above it, unless a name between
    /// the two begins with `_`; and, when a directory went, recursive or not, every watch on a node
    /// that went with it, but none on a path below it where nothing was.
    pub fn matches(&self, watch: &Key, recursive: bool, removed: Option<&Removed>) -> bool {
        if self.refresh {
            return false;
        }
        self.key == *watch
            || recursive && self.key.is_below(watch) && !self.key.hidden_below(watch)
            || removed.is_some_and(|removed| removed.contains(watch))
    }

    /// Whether a watch that looks back finds this event (spec §9, history). This differs from a
    /// live match in two ways, both the reference's: hidden names are not left out, and the removal
    /// of a directory matches every path whose text begins with the directory's, be it below it
    /// (whether or not it existed) or a sibling such as `/dir2` for `/dir`.
    pub fn matches_in_history(&self, watch: &Key, recursive: bool) -> bool {
        if self.refresh {
            return false;
        }
        self.key == *watch
            || recursive && self.key.is_below(watch)
            || self.removes_dir() && watch.as_bytes().starts_with(self.key.as_bytes())
    }

    /// Whether a directory went with this event.
    fn removes_dir(&self) -> bool {
        matches!(self.action, EventAction::Delete | EventAction::Expire) && self.node.dir
    }

    /// Appends the event as one JSON line with its newline.
    pub fn render(&self, out: &mut Vec<u8>) {
        self.render_action(out);
        out.extend_from_slice(b",\"node\":");
        self.render_view(&self.node, out);
        if let Some(prev_node) = &self.prev_node {
            out.extend_from_slice(b",\"prevNode\":");
            self.render_view(prev_node, out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends the answer to `noValueOnSuccess`: only the action, as a JSON line.
    pub fn render_without_nodes(&self, out: &mut Vec<u8>) {
        self.render_action(out);
        out.extend_from_slice(b"}\n");
    }

    fn render_action(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"action\":\"");
        out.extend_from_slice(self.action.as_str().as_bytes());
        out.push(b'"');
    }

    fn render_view(&self, view: &NodeView, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"key\":");
        json::push_string(out, self.key.as_bytes());
        if let Some(value) = &view.value {
            out.extend_from_slice(b",\"value\":");
            json::push_string(out, value);
        }
        if view.dir {
            out.extend_from_slice(b",\"dir\":true");
        }
        json::push_expiry(out, view.expiry, self.at);
        json::push_indexes(out, view.modified, view.created);
        out.push(b'}');
    }
}

/// What applying a command, or an expiry, did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The change.
    pub event: Arc<Event>,
    /// The directory that went with it, if one did.
    pub removed: Option<Removed>,
}

/// A directory that was removed, with all that was below it. Holding it keeps its nodes in memory.
#[derive(Clone)]
pub struct Removed {
    pub(super) key: Key,
    pub(super) dir: Arc<Dir>,
}

impl Removed {
    /// The directory's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether a node at `key` went with the directory, which counts itself.
    pub fn contains(&self, key: &Key) -> bool {
        if *key == self.key {
            return true;
        }
        let Some(rest) = key.rest_below(&self.key) else {
            return false;
        };
        let mut dir = &self.dir;
        let mut names = rest.split(|&byte| byte == b'/').peekable();
        while let Some(name) = names.next() {
            match dir.children.get(name) {
                None => return false,
                Some(Node::File(_)) => return names.peek().is_none(),
                Some(Node::Dir(child)) => dir = child,
            }
        }
        true
    }
}

impl std::fmt::Debug for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Removed({:?})", self.key)
    }
}
