//! Nodes: the nested files and directories, and how they are freed.
//!
//! A directory owns a map from name to node. Nodes do not know their paths. Directories are behind shared pointers: a
//! version of the tree shares everything that did not change with the next version. A write to a shared tree copies the
//! directories from the root to the key, once for each publication.
//!
//! A directory also knows which of its children have a deadline: [`Dir::dues`] sorts them by the earliest deadline in
//! each child, which is that of the child itself or of a node below it. So the earliest deadline of the complete tree
//! is at the root, a removed directory takes its deadlines along, and no other list must be searched (see `expiry`).

use super::bytes::Bytes;
use super::clock::{ClusterTime, Expiry};
use super::event::NodeView;
use super::map::Map;
use std::cell::Cell;
use std::mem;
use std::sync::Arc;

/// Number of changes to the key tree: `modifiedIndex`, `createdIndex`, `X-Etcd-Index`. Not every raft entry changes a
/// key. 0 is before the first change.
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

/// A directory. `created` and `modified` are its own: changes of children do not affect them.
#[derive(Clone, Default)]
pub(super) struct Dir {
    pub children: Children,
    /// Earliest deadline and name of each child that has a deadline in it or below it.
    pub dues: Map<(ClusterTime, Bytes), ()>,
    pub expiry: Option<Expiry>,
    pub created: TreeIndex,
    pub modified: TreeIndex,
}

/// The node under a name. A file is stored in the map itself. So reading or copying a part of the map touches no other
/// memory, such as a file's reference count.
#[derive(Clone)]
pub(super) enum Node {
    File(File),
    Dir(Arc<Dir>),
}

const _: () = assert!(
    size_of::<(Bytes, Node)>() == 80,
    "a small key takes 80 bytes"
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

    /// The earliest deadline of the directory and everything below it.
    pub fn due(&self) -> Option<ClusterTime> {
        let below = self.dues.iter().next().map(|((deadline, _), ())| *deadline);
        earliest(self.deadline(), below)
    }
}

/// The earlier of two optional deadlines.
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

    /// An empty directory created at `index`.
    pub fn dir(expiry: Option<Expiry>, index: TreeIndex) -> Node {
        Node::Dir(Arc::new(Dir::new(expiry, index, index)))
    }

    /// The earliest deadline of the node and everything below it.
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
    /// Children of directories that wait to be freed by a `drop` further up in this thread's call stack. `None` if no
    /// such `drop` is running.
    static LETTING_GO: Cell<Option<Vec<Children>>> = const { Cell::new(None) };
}

/// Frees a directory without recursion. Freeing a directory may free its children, and so on, thousands of levels deep,
/// on the possibly small stack of the last owner. So a directory that is dropped while another `drop` is running adds
/// its children to the list of that one, which frees them in a loop. Only nodes that nobody shares are visited.
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

/// Adds `children` to the list of the running loop. If there is none, returns them, and the caller becomes that loop.
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

/// The next children to free. The loop ends when the list is empty.
fn take_next(list: &Cell<Option<Vec<Children>>>) -> Option<Children> {
    let mut waiting = list.take()?;
    let next = waiting.pop();
    if next.is_some() {
        list.set(Some(waiting));
    }
    next
}
