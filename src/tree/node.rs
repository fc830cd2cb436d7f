//! Nodes: files and directories, nested, and how they are let go.
//!
//! A directory owns a map from name to node; nodes do not know their paths. Nodes are behind shared
//! pointers: a version of the tree shares with the next all that did not change, and a write to a
//! shared tree copies the directories from the root to the key, once for each publication.
//!
//! A directory also knows which of its children have something due: [`Dir::dues`] orders them by the
//! earliest deadline in each child, be it the child itself or anything below it. So the earliest
//! deadline of the whole tree stands at the root, a directory that goes takes its deadlines along,
//! and nothing is left behind to be searched for (see `expiry`).

use super::bytes::Bytes;
use super::clock::{ClusterTime, Expiry};
use super::event::NodeView;
use super::map::Map;
use std::cell::Cell;
use std::mem;
use std::sync::Arc;

/// Count of changes to the key tree: `modifiedIndex`, `createdIndex`, `X-Etcd-Index`. Not every raft
/// entry changes a key. 0: before the first change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TreeIndex(pub u64);

impl TreeIndex {
    /// The index of the change after this one.
    pub fn next(self) -> TreeIndex {
        TreeIndex(self.0 + 1)
    }
}

/// A file: a value with its indexes.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub value: Bytes,
    pub expiry: Option<Expiry>,
    pub created: TreeIndex,
    pub modified: TreeIndex,
}

/// The children of a directory by name.
pub(super) type Children = Map<Bytes, Node>;

/// A directory. `created` and `modified` are its own: changes of children do not touch them.
#[derive(Clone, Default)]
pub(super) struct Dir {
    pub children: Children,
    /// Of each child in which something is due: its earliest deadline and its name.
    pub dues: Map<(ClusterTime, Bytes), ()>,
    pub expiry: Option<Expiry>,
    pub created: TreeIndex,
    pub modified: TreeIndex,
}

/// What a name stands for. A file stands in the map itself: reading or copying a part of the map
/// touches no other memory, be it the files' reference counts.
#[derive(Clone)]
pub(super) enum Node {
    File(File),
    Dir(Arc<Dir>),
}

const _: () = assert!(
    size_of::<(Bytes, Node)>() == 80,
    "a small key takes this and no more"
);

impl File {
    pub fn view(&self) -> NodeView {
        NodeView {
            dir: false,
            value: Some(self.value.clone()),
            expiry: self.expiry,
            created: self.created,
            modified: self.modified,
        }
    }
}

impl Dir {
    /// An empty directory.
    pub fn new(expiry: Option<Expiry>, created: TreeIndex, modified: TreeIndex) -> Dir {
        let (children, dues) = (Map::default(), Map::default());
        Dir {
            children,
            dues,
            expiry,
            created,
            modified,
        }
    }

    pub fn view(&self) -> NodeView {
        NodeView {
            dir: true,
            value: None,
            expiry: self.expiry,
            created: self.created,
            modified: self.modified,
        }
    }

    /// The directory's own deadline.
    pub fn deadline(&self) -> Option<ClusterTime> {
        self.expiry.as_ref().map(|expiry| expiry.deadline())
    }

    /// The earliest deadline of the directory and all that is below it.
    pub fn due(&self) -> Option<ClusterTime> {
        let below = self.dues.iter().next().map(|((deadline, _), ())| *deadline);
        earliest(self.deadline(), below)
    }
}

/// The earlier of two deadlines, either of which may not be.
pub(super) fn earliest(a: Option<ClusterTime>, b: Option<ClusterTime>) -> Option<ClusterTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Node {
    pub fn file(
        value: Bytes,
        expiry: Option<Expiry>,
        created: TreeIndex,
        modified: TreeIndex,
    ) -> Node {
        Node::File(File {
            value,
            expiry,
            created,
            modified,
        })
    }

    /// An empty directory made at `index`.
    pub fn dir(expiry: Option<Expiry>, index: TreeIndex) -> Node {
        Node::Dir(Arc::new(Dir::new(expiry, index, index)))
    }

    /// The earliest deadline of the node and all that is below it.
    pub fn due(&self) -> Option<ClusterTime> {
        match self {
            Node::File(file) => file.expiry.as_ref().map(|expiry| expiry.deadline()),
            Node::Dir(dir) => dir.due(),
        }
    }

    pub fn view(&self) -> NodeView {
        match self {
            Node::File(file) => file.view(),
            Node::Dir(dir) => dir.view(),
        }
    }
}

/// A node of a tree, as found by [`Tree::get`](super::Tree::get).
#[derive(Clone, Copy)]
pub struct NodeRef<'a>(pub(super) Found<'a>);

#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    File(&'a File),
    Dir(&'a Arc<Dir>),
}

impl<'a> NodeRef<'a> {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.0, Found::Dir(_))
    }

    /// A file's value.
    pub fn value(&self) -> Option<&'a [u8]> {
        match self.0 {
            Found::File(file) => Some(&file.value),
            Found::Dir(_) => None,
        }
    }

    /// The node as an event would show it.
    pub fn view(&self) -> NodeView {
        match self.0 {
            Found::File(file) => file.view(),
            Found::Dir(dir) => dir.view(),
        }
    }
}

thread_local! {
    /// The children of directories that are being let go further up this very call stack; `None`
    /// while no directory is.
    static LETTING_GO: Cell<Option<Vec<Children>>> = const { Cell::new(None) };
}

/// Letting a directory go may let go its children, and so on: thousands of levels deep, on whatever
/// small stack the last owner runs. So a directory that goes while another one does hands its
/// children over to that one, which works them off in a loop. Only what nobody shares is visited.
impl Drop for Dir {
    fn drop(&mut self) {
        if self.children.is_empty() {
            return;
        }
        let children = mem::take(&mut self.children);
        let mut next = LETTING_GO
            .try_with(|list| hand_over(list, children))
            .ok()
            .flatten();
        while let Some(children) = next {
            drop(children);
            next = LETTING_GO.with(take_next);
        }
    }
}

/// Adds `children` to the list of the loop further up; gives them back if there is none, and makes
/// the caller that loop.
fn hand_over(list: &Cell<Option<Vec<Children>>>, children: Children) -> Option<Children> {
    match list.take() {
        None => {
            list.set(Some(Vec::new()));
            Some(children)
        }
        Some(mut waiting) => {
            waiting.push(children);
            list.set(Some(waiting));
            None
        }
    }
}

/// The next children to let go; the loop ends with the list.
fn take_next(list: &Cell<Option<Vec<Children>>>) -> Option<Children> {
    let mut waiting = list.take()?;
    let next = waiting.pop();
    if next.is_some() {
        list.set(Some(waiting));
    }
    next
}
