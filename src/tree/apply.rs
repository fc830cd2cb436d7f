//! The actions: the checks of each command, their order, and their effects (spec §6).
//!
//! | action | refusals in the order of the checks | effect |
//! |---|---|---|
//! | set | 104 for a file on the way, 100 for a refresh of a missing key, 107 for the root, 102 for a directory | replaces the node, both indexes are new, creates missing parents |
//! | create | 107 for the root, 104 for a file on the way, 105 if the node exists | creates the node and missing parents |
//! | create in order | 104 for a file at the key or on the way | creates a child of the key, named by the new index |
//! | update | 107 for the root, 104 or 100 on the way, 102 for a value given to a directory | file: changes value and ttl, keeps createdIndex. Directory: changes the ttl and keeps the stored modifiedIndex, although the event shows a new one |
//! | compare and swap | 107 for the root, 104 or 100 on the way, 102 for a directory, 101 if the comparison fails | as update of a file |
//! | delete | 107 for the root, 104 or 100 on the way, 102 for a directory without `dir` or `recursive`, 108 for a directory with children without `recursive` | removes the node and everything below it with one event |
//! | compare and delete | 104 or 100 on the way, 102 for a directory (without cause for the root), 101 if the comparison fails | removes the file |
//!
//! The checks read the tree without copying it. Only a command that passed its checks walks the tree again to change
//! it. `set` and the creations check during that walk. They create parents only where no node was, and below a new
//! parent no check can fail.

use super::Tree;
use super::bytes::Bytes;
use super::clock::{Expiry, Stamp};
use super::command::{Action, Command};
use super::error::{self, ApiError};
use super::event::{Applied, Event, EventAction, NodeView, Removed};
use super::key::Key;
use super::node::{Dir, File, Found, Node, TreeIndex};
use std::mem;
use std::sync::Arc;

impl Tree {
    /// Applies a command. The event or the refusal is the same on every member that applied the same commands. A
    /// refusal changes only the counters.
    ///
    /// # Errors
    /// The request's errors, listed in the table of this module.
    pub fn apply(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        let result = match command.action {
            Action::Set => self.set(command, stamp),
            Action::Create => self.create(command, command.key.clone(), stamp),
            Action::CreateInOrder => self.create_in_order(command, stamp),
            Action::Update => self.update(command, stamp),
            Action::CompareAndSwap => self.compare_and_swap(command, stamp),
            Action::Delete => self.delete(command, stamp),
            Action::CompareAndDelete => self.compare_and_delete(command, stamp),
        };
        self.stats.count(command.action, result.is_ok());
        result
    }

    fn set(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        let value = match command.refresh {
            true => self.value_kept(&command.key)?,
            false => command.value.clone(),
        };
        self.refuse_root(&command.key)?;
        let node = self.new_node(command, value, stamp);
        let view = node.view();
        let prev = self.place(&command.key, node, true)?;
        Ok(self.commit(EventAction::Set, command, view, prev, stamp))
    }

    fn create(&mut self, command: &Command, key: Key, stamp: Stamp) -> Result<Applied, ApiError> {
        self.refuse_root(&key)?;
        let node = self.new_node(command, command.value.clone(), stamp);
        let view = node.view();
        self.place(&key, node, false)?;
        Ok(self.record(EventAction::Create, key, false, view, None, stamp))
    }

    fn create_in_order(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        let name = format!("{:020}", self.index.next().0);
        self.create(command, command.key.child(name.as_bytes()), stamp)
    }

    fn update(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        self.refuse_root(&command.key)?;
        match self.find(&command.key)? {
            Found::File(file) => {
                let file = file.clone();
                Ok(self.rewrite(EventAction::Update, command, &file, stamp))
            }
            Found::Dir(_) if !command.value.is_empty() => {
                Err(self.refusal(error::NOT_A_FILE, &command.key))
            }
            Found::Dir(dir) => {
                let prev = dir.view();
                Ok(self.renew_directory(command, prev, stamp))
            }
        }
    }

    fn compare_and_swap(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        self.refuse_root(&command.key)?;
        let file = self.find_file(&command.key)?.clone();
        self.compare(command, &file)?;
        Ok(self.rewrite(EventAction::CompareAndSwap, command, &file, stamp))
    }

    fn delete(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        self.refuse_root(&command.key)?;
        if let Found::Dir(dir) = self.find(&command.key)? {
            if !command.dir && !command.recursive {
                return Err(self.refusal(error::NOT_A_FILE, &command.key));
            }
            if !command.recursive && !dir.children.is_empty() {
                return Err(self.refusal(error::DIRECTORY_NOT_EMPTY, &command.key));
            }
        }
        Ok(self.remove(EventAction::Delete, &command.key, stamp))
    }

    fn compare_and_delete(&mut self, command: &Command, stamp: Stamp) -> Result<Applied, ApiError> {
        if command.key.is_root() {
            return Err(ApiError::new(error::NOT_A_FILE, "", self.index.0));
        }
        let file = self.find_file(&command.key)?;
        self.compare(command, file)?;
        Ok(self.remove(EventAction::CompareAndDelete, &command.key, stamp))
    }

    fn refuse_root(&self, key: &Key) -> Result<(), ApiError> {
        if key.is_root() {
            Err(self.refusal(error::ROOT_READ_ONLY, key))
        } else {
            Ok(())
        }
    }

    /// The value that a refresh keeps. A directory has no value, and the write itself refuses a directory.
    fn value_kept(&self, key: &Key) -> Result<Bytes, ApiError> {
        match self.find(key)? {
            Found::File(file) => Ok(file.value.clone()),
            Found::Dir(_) => Ok(Bytes::new()),
        }
    }

    fn find_file(&self, key: &Key) -> Result<&File, ApiError> {
        match self.find(key)? {
            Found::File(file) => Ok(file),
            Found::Dir(_) => Err(self.refusal(error::NOT_A_FILE, key)),
        }
    }

    /// Refuses a file that differs from the command's expectation. The cause shows the difference.
    fn compare(&self, command: &Command, file: &File) -> Result<(), ApiError> {
        let mut cause = Vec::new();
        if let Some(expected) = &command.prev_value
            && !expected.is_empty()
            && *expected != file.value
        {
            push_difference(&mut cause, expected, &file.value);
        }
        if let Some(expected) = command.prev_index
            && expected != 0
            && expected != file.modified.0
        {
            push_difference(
                &mut cause,
                expected.to_string().as_bytes(),
                file.modified.0.to_string().as_bytes(),
            );
        }
        if cause.is_empty() {
            Ok(())
        } else {
            Err(ApiError::new(error::COMPARE_FAILED, cause, self.index.0))
        }
    }

    /// The node that a set or a creation writes.
    fn new_node(&self, command: &Command, value: Bytes, stamp: Stamp) -> Node {
        let (index, expiry) = (self.index.next(), expiry(command, stamp));
        if command.dir {
            Node::dir(expiry, index)
        } else {
            Node::file(value, expiry, index, index)
        }
    }

    /// Writes `node` to `key` and creates missing parents. Returns the file that it replaced.
    fn place(
        &mut self,
        key: &Key,
        node: Node,
        replace: bool,
    ) -> Result<Option<NodeView>, ApiError> {
        let (index, now) = (self.index, self.index.next());
        let due = node.due();
        let parent = parent_made(&mut self.root, key, now).map_err(|end| {
            ApiError::new(error::NOT_A_DIRECTORY, &key.as_bytes()[..end], index.0)
        })?;
        let name = || Bytes::from(key.name());
        let placed = parent
            .children
            .put(key.name(), node, name, |slot, node| match slot {
                _ if !replace => Err(error::KEY_EXISTS),
                Node::Dir(_) => Err(error::NOT_A_FILE),
                Node::File(_) => Ok(mem::replace(slot, node)),
            });
        let prev = placed.transpose();
        let prev = prev.map_err(|code| self.refusal(code, key))?;
        self.due_changed(key, prev.as_ref().and_then(Node::due), due);
        Ok(prev.map(|node| node.view()))
    }

    /// Writes an existing file: a new value (a refresh keeps the old one) and ttl, but the old createdIndex.
    fn rewrite(
        &mut self,
        action: EventAction,
        command: &Command,
        file: &File,
        stamp: Stamp,
    ) -> Applied {
        let value = if command.refresh {
            &file.value
        } else {
            &command.value
        };
        let node = Node::file(
            value.clone(),
            expiry(command, stamp),
            file.created,
            self.index.next(),
        );
        let (view, due) = (node.view(), node.due());
        let old = self.swap(&command.key, node);
        self.due_changed(&command.key, old.due(), due);
        self.commit(action, command, view, Some(file.view()), stamp)
    }

    /// Changes the ttl of an existing directory. The event shows a new modifiedIndex, but the directory keeps its own,
    /// as in the reference.
    fn renew_directory(&mut self, command: &Command, prev: NodeView, stamp: Stamp) -> Applied {
        let expiry = expiry(command, stamp);
        let dir = dir_mut(&mut self.root, command.key.components());
        let before = dir.due();
        dir.expiry = expiry;
        let after = dir.due();
        self.due_changed(&command.key, before, after);
        let view = NodeView {
            expiry,
            modified: self.index.next(),
            ..prev.clone()
        };
        self.commit(EventAction::Update, command, view, Some(prev), stamp)
    }

    /// Removes the node at `key`, which must exist and must not be the root.
    pub(super) fn remove(&mut self, action: EventAction, key: &Key, stamp: Stamp) -> Applied {
        let parent = dir_mut(&mut self.root, names_of_parent(key));
        let Some(node) = parent.children.remove(key.name()) else {
            unreachable!("{key:?} was found before it was to be removed");
        };
        self.due_changed(key, node.due(), None);
        let prev = node.view();
        let rest = NodeView {
            value: None,
            expiry: None,
            modified: self.index.next(),
            ..prev.clone()
        };
        let mut applied = self.record(action, key.clone(), false, rest, Some(prev), stamp);
        if let Node::Dir(dir) = node {
            applied.removed = Some(Removed {
                key: key.clone(),
                dir,
            });
        }
        applied
    }

    fn swap(&mut self, key: &Key, node: Node) -> Node {
        let parent = dir_mut(&mut self.root, names_of_parent(key));
        match parent.children.get_mut(key.name()) {
            Some(slot) => mem::replace(slot, node),
            None => unreachable!("{key:?} was found before it was to be written"),
        }
    }

    fn commit(
        &mut self,
        action: EventAction,
        command: &Command,
        node: NodeView,
        prev: Option<NodeView>,
        stamp: Stamp,
    ) -> Applied {
        self.record(
            action,
            command.key.clone(),
            command.refresh,
            node,
            prev,
            stamp,
        )
    }

    /// Takes the next index for a change that was made, and adds its event to the history.
    fn record(
        &mut self,
        action: EventAction,
        key: Key,
        refresh: bool,
        node: NodeView,
        prev_node: Option<NodeView>,
        stamp: Stamp,
    ) -> Applied {
        self.index = self.index.next();
        let (index, at) = (self.index, stamp.cluster);
        let event = Arc::new(Event {
            action,
            key,
            index,
            node,
            prev_node,
            refresh,
            at,
        });
        self.history.push(event.clone());
        Applied {
            event,
            removed: None,
        }
    }
}

fn expiry(command: &Command, stamp: Stamp) -> Option<Expiry> {
    command.ttl.and_then(|seconds| stamp.expiry(seconds))
}

/// Appends `[EXPECTED != STORED]`, separated by a space from an earlier difference.
fn push_difference(cause: &mut Vec<u8>, expected: &[u8], stored: &[u8]) {
    if !cause.is_empty() {
        cause.push(b' ');
    }
    cause.push(b'[');
    cause.extend_from_slice(expected);
    cause.extend_from_slice(b" != ");
    cause.extend_from_slice(stored);
    cause.push(b']');
}

/// The names on the path to the parent of `key`.
pub(super) fn names_of_parent(key: &Key) -> impl Iterator<Item = &[u8]> {
    let mut names = key.components();
    names.next_back();
    names
}

/// The directory to write into. Missing directories on the path are created with `index`. If a file is on the path,
/// returns where the file's path ends in `key`.
fn parent_made<'a>(
    root: &'a mut Arc<Dir>,
    key: &Key,
    index: TreeIndex,
) -> Result<&'a mut Dir, usize> {
    let mut dir = Arc::make_mut(root);
    let mut end = 0;
    for name in names_of_parent(key) {
        end += 1 + name.len();
        if dir.children.get(name).is_none() {
            dir.children
                .insert(Bytes::from(name), Node::dir(None, index));
        }
        dir = match dir.children.get_mut(name) {
            Some(Node::Dir(child)) => Arc::make_mut(child),
            _ => return Err(end),
        };
    }
    Ok(dir)
}

/// The directory at the path `names`, which must exist, ready to be changed. Every directory on the path that another
/// version of the tree shares is copied.
pub(super) fn dir_mut<'a, 'n>(
    root: &'a mut Arc<Dir>,
    names: impl Iterator<Item = &'n [u8]>,
) -> &'a mut Dir {
    let mut dir = Arc::make_mut(root);
    for name in names {
        dir = match dir.children.get_mut(name) {
            Some(Node::Dir(child)) => Arc::make_mut(child),
            _ => unreachable!("{:?} was found to be a directory before", Bytes::from(name)),
        };
    }
    dir
}
