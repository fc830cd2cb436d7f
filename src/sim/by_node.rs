//! A map from nodes to values. The ids of a run are small and in a row, so a look-up is an index into a list.

use crate::raft::NodeId;
use std::ops::Index;

/// The ids are below this.
const IDS_MAX: usize = 1 << 10;

/// The values in the order of their ids.
#[derive(Debug)]
pub(super) struct ByNode<T>(Vec<Option<T>>);

impl<T> Default for ByNode<T> {
    fn default() -> ByNode<T> {
        ByNode(Vec::new())
    }
}

impl<T> ByNode<T> {
    pub fn get(&self, id: &NodeId) -> Option<&T> {
        self.0.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    pub fn get_mut(&mut self, id: &NodeId) -> Option<&mut T> {
        self.0.get_mut(usize::try_from(id.0).ok()?)?.as_mut()
    }

    pub fn contains_key(&self, id: &NodeId) -> bool {
        self.get(id).is_some()
    }

    pub fn insert(&mut self, id: NodeId, value: T) {
        *self.place(id) = Some(value);
    }

    /// The value of this node, which is the default value at first.
    pub fn or_default(&mut self, id: NodeId) -> &mut T
    where
        T: Default,
    {
        self.place(id).get_or_insert_default()
    }

    fn place(&mut self, id: NodeId) -> &mut Option<T> {
        let at = usize::try_from(id.0).unwrap_or(IDS_MAX);
        assert!(at < IDS_MAX, "{id:?} is no node of a run");
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        &mut self.0[at]
    }

    pub fn keys(&self) -> impl Iterator<Item = NodeId> {
        let all = (0..).map(NodeId).zip(&self.0);
        all.filter_map(|(id, value)| value.is_some().then_some(id))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }
}

impl<T> Index<&NodeId> for ByNode<T> {
    type Output = T;

    fn index(&self, id: &NodeId) -> &T {
        self.get(id).unwrap_or_else(|| panic!("no node {id:?}"))
    }
}
