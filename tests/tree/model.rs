//! Compares the tree with a very simple model: one flat map from complete paths to nodes, which is searched from end to
//! end for each question.

use crate::random::{Random, stamp_at};
use edgetcd::tree::{
    Action, Applied, ClusterTime, Command, Event, EventAction, Expiry, Key, Listing, NodeView,
    Stamp, Tree, TreeIndex, error,
};
use std::collections::BTreeMap;

/// The names of a path. Paths are ordered by name from the root downwards, a directory before the nodes below it.
type Path = Vec<Vec<u8>>;

#[derive(Clone, PartialEq, Debug)]
struct Plain {
    dir: bool,
    value: Vec<u8>,
    expiry: Option<Expiry>,
    created: u64,
    modified: u64,
}

/// Code and cause of a refusal.
type Refusal = (u16, Vec<u8>);

#[derive(Default)]
struct Model {
    nodes: BTreeMap<Path, Plain>,
    index: u64,
}

/// The model's result of an action.
#[derive(PartialEq, Debug)]
struct Told {
    action: EventAction,
    path: Path,
    node: Option<Plain>,
    prev: Option<Plain>,
}

impl Model {
    fn apply(&mut self, command: &Command, stamp: Stamp) -> Result<Told, Refusal> {
        let mut path: Path = command.key.components().map(<[u8]>::to_vec).collect();
        if command.action == Action::CreateInOrder {
            path.push(format!("{:020}", self.index + 1).into_bytes());
        }
        let prev = self.node_before(command, &path)?;
        if let Some(prev) = &prev {
            self.check(command, &path, prev)?;
        }
        self.index += 1;
        let expiry = command.ttl.and_then(|ttl| stamp.expiry(ttl));
        let node = match command.action {
            Action::Delete | Action::CompareAndDelete => {
                self.remove(&path);
                None
            }
            _ => Some(self.write(command, &path, expiry, prev.as_ref())),
        };
        let action = told_as(command.action);
        Ok(Told {
            action,
            path,
            node,
            prev,
        })
    }

    /// The node that a command refers to. `None` if the command creates it.
    fn node_before(&self, command: &Command, path: &Path) -> Result<Option<Plain>, Refusal> {
        if path.is_empty() {
            return match command.action {
                Action::CompareAndDelete => Err((error::NOT_A_FILE, Vec::new())),
                _ => Err((error::ROOT_READ_ONLY, b"/".to_vec())),
            };
        }
        let keeps_value = command.refresh && command.action == Action::Set;
        match self.existing(path) {
            Ok(node) => Ok(Some(node)),
            Err((error::KEY_NOT_FOUND, _)) if makes(command.action) && !keeps_value => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The refusals that depend on the existing node.
    fn check(&self, command: &Command, path: &Path, prev: &Plain) -> Result<(), Refusal> {
        let code = match command.action {
            Action::Create | Action::CreateInOrder => error::KEY_EXISTS,
            _ if !prev.dir => 0,
            Action::Set | Action::CompareAndSwap | Action::CompareAndDelete => error::NOT_A_FILE,
            Action::Update if !command.value.is_empty() => error::NOT_A_FILE,
            Action::Delete if !command.dir && !command.recursive => error::NOT_A_FILE,
            Action::Delete if !command.recursive && self.has_children(path) => {
                error::DIRECTORY_NOT_EMPTY
            }
            _ => 0,
        };
        let compares = matches!(
            command.action,
            Action::CompareAndSwap | Action::CompareAndDelete
        );
        let differs = if compares {
            difference(command, prev)
        } else {
            Vec::new()
        };
        match code {
            0 if differs.is_empty() => Ok(()),
            0 => Err((error::COMPARE_FAILED, differs)),
            code => Err((code, text(path))),
        }
    }

    fn write(
        &mut self,
        command: &Command,
        path: &Path,
        expiry: Option<Expiry>,
        prev: Option<&Plain>,
    ) -> Plain {
        let makes = makes(command.action);
        let dir = if makes {
            command.dir
        } else {
            prev.is_some_and(|prev| prev.dir)
        };
        let kept = command.refresh
            && matches!(
                command.action,
                Action::Set | Action::Update | Action::CompareAndSwap
            );
        let value = match prev {
            _ if dir => Vec::new(),
            Some(prev) if kept => prev.value.clone(),
            _ => command.value.to_vec(),
        };
        let created = if makes {
            self.index
        } else {
            prev.map_or(self.index, |prev| prev.created)
        };
        let node = Plain {
            dir,
            value,
            expiry,
            created,
            modified: self.index,
        };
        for end in 1..path.len() {
            let (created, modified) = (self.index, self.index);
            let parent = Plain {
                dir: true,
                value: Vec::new(),
                expiry: None,
                created,
                modified,
            };
            self.nodes.entry(path[..end].to_vec()).or_insert(parent);
        }
        let mut stored = node.clone();
        if let (false, true, Some(prev)) = (makes, dir, prev) {
            stored.modified = prev.modified; // an updated directory keeps its index
        }
        self.nodes.insert(path.clone(), stored);
        node
    }

    /// Removes the next node that expires at `now`.
    fn expire_one(&mut self, now: ClusterTime) -> Option<Told> {
        let (deadline, path) = self.first_due()?;
        if deadline > now {
            return None;
        }
        self.index += 1;
        let prev = self.nodes.get(&path).cloned();
        self.remove(&path);
        Some(Told {
            action: EventAction::Expire,
            path,
            node: None,
            prev,
        })
    }

    fn first_due(&self) -> Option<(ClusterTime, Path)> {
        let due = self
            .nodes
            .iter()
            .filter_map(|(path, node)| Some((node.expiry?.deadline(), path.clone())));
        due.min()
    }

    fn existing(&self, path: &Path) -> Result<Plain, Refusal> {
        for end in 1..=path.len() {
            let above = path[..end].to_vec();
            match self.nodes.get(&above) {
                None => return Err((error::KEY_NOT_FOUND, text(&above))),
                Some(node) if end == path.len() => return Ok(node.clone()),
                Some(node) if !node.dir => return Err((error::NOT_A_DIRECTORY, text(&above))),
                Some(_) => {}
            }
        }
        Ok(Plain {
            dir: true,
            value: Vec::new(),
            expiry: None,
            created: 0,
            modified: 0,
        })
    }

    fn has_children(&self, path: &Path) -> bool {
        self.nodes
            .keys()
            .any(|other| other.len() > path.len() && other.starts_with(path))
    }

    fn remove(&mut self, path: &Path) {
        self.nodes.retain(|other, _| !other.starts_with(path));
    }
}

fn makes(action: Action) -> bool {
    matches!(action, Action::Set | Action::Create | Action::CreateInOrder)
}

fn told_as(action: Action) -> EventAction {
    match action {
        Action::Set => EventAction::Set,
        Action::Create | Action::CreateInOrder => EventAction::Create,
        Action::Update => EventAction::Update,
        Action::CompareAndSwap => EventAction::CompareAndSwap,
        Action::Delete => EventAction::Delete,
        Action::CompareAndDelete => EventAction::CompareAndDelete,
    }
}

fn difference(command: &Command, prev: &Plain) -> Vec<u8> {
    let mut parts = Vec::new();
    if let Some(value) = command
        .prev_value
        .as_ref()
        .filter(|value| !value.is_empty() && value.as_slice() != prev.value)
    {
        let (given, stored) = (
            String::from_utf8_lossy(value),
            String::from_utf8_lossy(&prev.value),
        );
        parts.push(format!("[{given} != {stored}]"));
    }
    if let Some(index) = command
        .prev_index
        .filter(|&index| index != 0 && index != prev.modified)
    {
        parts.push(format!("[{index} != {}]", prev.modified));
    }
    parts.join(" ").into_bytes()
}

fn text(path: &[Vec<u8>]) -> Vec<u8> {
    path.iter()
        .flat_map(|name| [b"/".as_slice(), name].concat())
        .collect()
}

fn plain(view: &NodeView) -> Plain {
    let value = view
        .value
        .as_ref()
        .map_or(Vec::new(), |value| value.to_vec());
    Plain {
        dir: view.dir,
        value,
        expiry: view.expiry,
        created: view.created.0,
        modified: view.modified.0,
    }
}

fn assert_event(event: &Event, told: &Told, index: u64, seed: u64) {
    assert_eq!(event.action, told.action, "seed {seed}");
    assert_eq!(event.key, Key::new(&text(&told.path)), "seed {seed}");
    assert_eq!(event.index, TreeIndex(index), "seed {seed}");
    assert_eq!(
        event.prev_node.as_ref().map(plain),
        told.prev,
        "seed {seed}"
    );
    match &told.node {
        Some(node) => assert_eq!(plain(&event.node), *node, "seed {seed}"),
        None => {
            let prev = told.prev.as_ref().expect("only what was there is removed");
            let rest = Plain {
                value: Vec::new(),
                expiry: None,
                modified: index,
                ..prev.clone()
            };
            assert_eq!(plain(&event.node), rest, "seed {seed}");
            assert_eq!(event.node.value, None);
        }
    }
}

/// The tree must contain exactly the paths of the model, including hidden ones.
fn assert_same_nodes(tree: &Tree, model: &Model, seed: u64) {
    for (path, node) in &model.nodes {
        let key = Key::new(&text(path));
        let found = tree
            .get(&key)
            .unwrap_or_else(|error| panic!("seed {seed}: {key:?} {error}"));
        assert_eq!(plain(&found.view()), *node, "seed {seed}: {key:?}");
    }
    assert_eq!(count_nodes(tree), model.nodes.len(), "seed {seed}");
}

/// Counts the nodes of a tree with listings. Hidden nodes need a listing by name.
fn count_nodes(tree: &Tree) -> usize {
    let mut left = vec![Key::root()];
    let mut count = 0;
    while let Some(key) = left.pop() {
        let body = body(tree, &key, false);
        for child in body["node"]["nodes"].as_array().unwrap_or(&Vec::new()) {
            count += 1;
            let path = child["key"].as_str().expect("a child has a key");
            left.extend(child["dir"].as_bool().map(|_| Key::new(path.as_bytes())));
        }
        let hidden = key.child(b"_h");
        if let Ok(found) = tree.get(&hidden) {
            count += 1;
            left.extend(found.is_dir().then_some(hidden));
        }
    }
    count
}

fn body(tree: &Tree, key: &Key, recursive: bool) -> serde_json::Value {
    let mut out = Vec::new();
    let mut listing = Listing::new(tree, key, recursive, ClusterTime(0)).expect("it is there");
    while listing.render(&mut out, 1) {}
    serde_json::from_slice(&out).expect("a listing is JSON")
}

#[test]
fn the_tree_does_what_the_model_does() {
    for seed in 0..40 {
        let (mut tree, mut model) = (Tree::new(100), Model::default());
        let mut random = Random::new(seed);
        let mut versions = Vec::new();
        for step in 0..400u64 {
            let command = random.command();
            let stamp = stamp_at(step / 4);
            match (tree.apply(&command, stamp), model.apply(&command, stamp)) {
                (Ok(Applied { event, .. }), Ok(told)) => {
                    assert_event(&event, &told, model.index, seed)
                }
                (Err(error), Err((code, cause))) => {
                    assert_eq!(
                        (error.code, &error.cause),
                        (code, &cause),
                        "seed {seed} {command:?}"
                    );
                    assert_eq!(error.index, model.index, "seed {seed}");
                }
                (tree, model) => {
                    panic!("seed {seed} step {step}: {command:?}\n{tree:?}\n{model:?}")
                }
            }
            if step % 40 == 39 {
                let now = stamp_at(step / 4).cluster;
                for applied in tree.expire(now) {
                    let told = model.expire_one(now).expect("the model expires as much");
                    assert_event(&applied.event, &told, model.index, seed);
                }
                assert_eq!(
                    model.expire_one(now),
                    None,
                    "seed {seed}: the tree expires as much"
                );
                assert_same_nodes(&tree, &model, seed);
                versions.push(tree.clone());
            }
            if random.one_in(20) {
                versions.clear(); // now and then nothing is shared, mostly much is
            }
            assert_eq!(
                tree.next_expiry(),
                model.first_due().map(|(deadline, _)| deadline),
                "seed {seed}"
            );
            assert_eq!(tree.has_ttl(), model.first_due().is_some());
        }
    }
}
