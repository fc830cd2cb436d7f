//! Events: how the tree reports a change to the writer, the watchers and the history.

use super::bytes::Bytes;
use super::clock::{ClusterTime, Expiry};
use super::json;
use super::key::Key;
use super::long::{LongString, LongText};
use super::node::{Dir, Node, TreeIndex};
use std::sync::Arc;

/// Kind of a change: the `action` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventAction {
    /// A node was written, whether or not it existed.
    Set,
    /// A node was created that did not exist. In-order creation is included.
    Create,
    /// An existing node was written.
    Update,
    /// A file was written after a comparison.
    CompareAndSwap,
    /// A node was removed, with everything below it.
    Delete,
    /// A file was removed after a comparison.
    CompareAndDelete,
    /// A node was removed because its time to live was over, with everything below it.
    Expire,
}

impl EventAction {
    /// The action's name in the JSON.
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
    /// A file's value. `None` for a directory, and for the node after its removal.
    pub value: Option<Bytes>,
    /// `None` for a permanent node, and for the node after its removal.
    pub expiry: Option<Expiry>,
    /// `createdIndex`.
    pub created: TreeIndex,
    /// `modifiedIndex`.
    pub modified: TreeIndex,
}

/// A change of the tree. Each index has exactly one event, so the history has no gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Kind of the change.
    pub action: EventAction,
    /// The changed key. For an in-order creation, the new key.
    pub key: Key,
    /// The index of the change. It is the `X-Etcd-Index` of a write's answer.
    pub index: TreeIndex,
    /// The node after the change. After a removal, only its metadata.
    pub node: NodeView,
    /// The node before the change, if it existed.
    pub prev_node: Option<NodeView>,
    /// Whether only a ttl was renewed. Then no watch receives the event, live or from the history.
    pub refresh: bool,
    /// Time of the change. The `ttl` fields are relative to it, no matter when the event is rendered.
    pub at: ClusterTime,
}

impl Event {
    /// HTTP status of the answer: 201 if the node is new, otherwise 200.
    pub fn status(&self) -> u16 {
        match (self.action, &self.prev_node) {
            (EventAction::Create, _) | (EventAction::Set, None) => 201,
            _ => 200,
        }
    }

    /// Approximate size in bytes, in memory and in a snapshot.
    pub fn bytes(&self) -> usize {
        const REST: usize = 64;
        let value = |view: &NodeView| view.value.as_ref().map_or(0, |value| value.len());
        let before = self.prev_node.as_ref().map_or(0, value);
        REST + self.key.as_bytes().len() + value(&self.node) + before
    }

    /// Whether a live watch on `watch` receives this event (spec §9, live watches). `removed` belongs to the same
    /// [`Applied`] as the event. The watch hub checks the index from which a watch waits.
    ///
    /// These watches receive it: a watch on the event's key, and a recursive watch above it, unless a name between the
    /// two begins with `_`. If a directory was removed, so does every watch, recursive or not, on a node that was
    /// removed with it. A watch on a path below the directory where no node existed does not.
    pub fn matches(&self, watch: &Key, recursive: bool, removed: Option<&Removed>) -> bool {
        if self.refresh {
            return false;
        }
        self.key == *watch
            || recursive && self.key.is_below(watch) && !self.key.hidden_below(watch)
            || removed.is_some_and(|removed| removed.contains(watch))
    }

    /// Whether a watch with `waitIndex` finds this event in the history (spec §9, history). This differs from a live
    /// match in two ways, as in the reference. Hidden names are not left out. The removal of a directory matches every
    /// path whose text begins with the directory's: paths below it, whether or not they existed, and also siblings such
    /// as `/dir2` for `/dir`.
    pub fn matches_in_history(&self, watch: &Key, recursive: bool) -> bool {
        if self.refresh {
            return false;
        }
        self.key == *watch
            || recursive && self.key.is_below(watch)
            || self.removes_dir() && watch.as_bytes().starts_with(self.key.as_bytes())
    }

    /// Whether this event removed a directory.
    fn removes_dir(&self) -> bool {
        matches!(self.action, EventAction::Delete | EventAction::Expire) && self.node.dir
    }

    /// Appends the event as one line of JSON.
    pub fn render(&self, out: &mut Vec<u8>) {
        self.render_with(out, |out, bytes| json::push_escaped(out, bytes));
    }

    /// The text of [`Event::render`], to be rendered in parts. It shares the event's long values.
    pub fn long_text(&self) -> LongText {
        let (mut text, mut strings) = (Vec::new(), Vec::new());
        self.render_with(&mut text, |out, bytes| match LongString::new(bytes) {
            Some(string) => strings.push((out.len(), string)),
            None => json::push_escaped(out, bytes),
        });
        LongText::new(text, strings)
    }

    /// `push_string` appends the escaped text of a key or a value.
    fn render_with(&self, out: &mut Vec<u8>, mut push_string: impl FnMut(&mut Vec<u8>, &Bytes)) {
        self.render_action(out);
        out.extend_from_slice(b",\"node\":");
        self.render_view(&self.node, out, &mut push_string);
        if let Some(prev_node) = &self.prev_node {
            out.extend_from_slice(b",\"prevNode\":");
            self.render_view(prev_node, out, &mut push_string);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends the answer to `noValueOnSuccess`: only the action, as one line of JSON.
    pub fn render_without_nodes(&self, out: &mut Vec<u8>) {
        self.render_action(out);
        out.extend_from_slice(b"}\n");
    }

    fn render_action(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"action\":\"");
        out.extend_from_slice(self.action.as_str().as_bytes());
        out.push(b'"');
    }

    fn render_view(
        &self,
        view: &NodeView,
        out: &mut Vec<u8>,
        push_string: &mut impl FnMut(&mut Vec<u8>, &Bytes),
    ) {
        out.extend_from_slice(b"{\"key\":\"");
        push_string(out, self.key.bytes());
        out.push(b'"');
        if let Some(value) = &view.value {
            out.extend_from_slice(b",\"value\":\"");
            push_string(out, value);
            out.push(b'"');
        }
        if view.dir {
            out.extend_from_slice(b",\"dir\":true");
        }
        json::push_expiry(out, view.expiry, self.at);
        json::push_indexes(out, view.modified, view.created);
        out.push(b'}');
    }
}

/// Result of a command or of an expiry.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The change.
    pub event: Arc<Event>,
    /// The removed directory, if one was removed.
    pub removed: Option<Removed>,
}

/// A removed directory with everything that was below it. It keeps these nodes in memory.
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

    /// Whether a node at `key` was removed with the directory. The directory itself counts.
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
