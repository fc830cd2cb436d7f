//! Keys with a common beginning, in the order of a listing, from any key on.
//!
//! A search walks the part of the tree whose keys begin with the prefix, and nothing else. It can continue after any
//! key, whether or not that key still exists. So a client can read a directory of any size in small pages, and the cost of
//! a page depends on its length and on the depth of its keys, not on the size of the tree.

use super::Tree;
use super::bytes::Bytes;
use super::clock::ClusterTime;
use super::json;
use super::key::{HIDDEN, Key, PAST_HIDDEN};
use super::map::Entries;
use super::node::{Dir, Found, Node, NodeRef};
use std::ops::Bound;

/// What to search for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search<'a> {
    /// The keys' first bytes. The part up to the last slash is a directory. It need not exist.
    pub prefix: &'a [u8],
    /// Skips all keys up to this one.
    pub after: Option<&'a [u8]>,
    /// Whether the nodes in directories that match are found too, instead of the directories only.
    pub recursive: bool,
    /// Whether names are found that begin with `_`. Without it they are found only in the directory of the prefix, and
    /// only if the prefix itself has such a name.
    pub hidden: bool,
}

/// The nodes that a search finds, each directory before its children.
pub struct Matches<'a> {
    /// The open directories, from the outermost inwards.
    open: Vec<Level<'a>>,
    /// The path of the innermost open directory. Empty for the root.
    path: Vec<u8>,
    /// The beginning of names in the outermost directory.
    name_prefix: Vec<u8>,
    recursive: bool,
    hidden: bool,
}

struct Level<'a> {
    dir: &'a Dir,
    rest: Entries<'a, Bytes, Node>,
    /// Length of the path of the directory above.
    path_before: usize,
}

impl Tree {
    /// Searches this version of the tree.
    pub fn search(&self, search: &Search<'_>) -> Matches<'_> {
        let last_slash = search.prefix.iter().rposition(|&byte| byte == b'/');
        let (above, name_prefix) = search.prefix.split_at(last_slash.map_or(0, |at| at + 1));
        let dir = Key::new(above);
        let mut found = Matches {
            open: Vec::new(),
            path: Vec::new(),
            name_prefix: name_prefix.to_vec(),
            recursive: search.recursive,
            hidden: search.hidden,
        };
        if let Ok(Found::Dir(start)) = self.find(&dir) {
            if !dir.is_root() {
                found.path.extend_from_slice(dir.as_bytes());
            }
            let after = search.after.and_then(Key::from_clean);
            let names = after.as_ref().and_then(|key| key.rest_below(&dir));
            found.begin(start, names);
        }
        found
    }
}

impl<'a> Matches<'a> {
    /// Opens the directory of the prefix, and the directories on the way to the key `names` below it.
    fn begin(&mut self, dir: &'a Dir, names: Option<&[u8]>) {
        let mut names = names
            .into_iter()
            .flat_map(|names| names.split(|&byte| byte == b'/'));
        let first = names
            .next()
            .filter(|name| *name >= self.name_prefix.as_slice());
        let from = match first {
            Some(name) => Bound::Excluded(name),
            None => Bound::Included(self.name_prefix.as_slice()),
        };
        let path_before = self.path.len();
        self.open.push(Level {
            dir,
            rest: dir.children.range(from),
            path_before,
        });
        let mut above = (dir, first);
        while let (true, (dir, Some(name))) = (self.recursive, above)
            && self.shows(name)
            && let Some(Node::Dir(child)) = dir.children.get(name)
        {
            let next = names.next();
            self.enter(name, child, next);
            above = (child, next);
        }
    }

    /// Opens the directory `name` of the innermost open directory, and passes its children up to `after`.
    fn enter(&mut self, name: &[u8], dir: &'a Dir, after: Option<&[u8]>) {
        let path_before = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        self.open.push(Level {
            dir,
            rest: dir
                .children
                .range(after.map_or(Bound::Unbounded, Bound::Excluded)),
            path_before,
        });
    }

    /// Whether a name in the innermost open directory can be found.
    fn shows(&self, name: &[u8]) -> bool {
        let is_named = self.open.len() == 1 && self.name_prefix.starts_with(HIDDEN);
        self.hidden || is_named || !name.starts_with(HIDDEN)
    }
}

impl<'a> Iterator for Matches<'a> {
    /// A key and its node.
    type Item = (Vec<u8>, NodeRef<'a>);

    fn next(&mut self) -> Option<(Vec<u8>, NodeRef<'a>)> {
        loop {
            let is_outermost = self.open.len() == 1;
            let level = self.open.last_mut()?;
            let Some((name, node)) = level.rest.next() else {
                self.path.truncate(level.path_before);
                self.open.pop();
                continue;
            };
            if is_outermost && !name.starts_with(&self.name_prefix) {
                self.open.clear();
                return None;
            }
            if !self.shows(name) {
                // In the order of names, all hidden names are consecutive.
                let level = self.open.last_mut()?;
                level.rest = level.dir.children.range(Bound::Included(PAST_HIDDEN));
                continue;
            }
            let mut key = self.path.clone();
            key.push(b'/');
            key.extend_from_slice(name);
            let found = match node {
                Node::File(file) => Found::File(file),
                Node::Dir(dir) => {
                    if self.recursive {
                        self.enter(name, dir, None);
                    }
                    Found::Dir(dir)
                }
            };
            return Some((key, NodeRef(found)));
        }
    }
}

impl NodeRef<'_> {
    /// Number of children of a directory, including hidden ones. 0 for a file.
    pub fn children(&self) -> usize {
        match self.0 {
            Found::File(_) => 0,
            Found::Dir(dir) => dir.children.len(),
        }
    }

    /// Appends the time to live at `now`, the indexes, and the closing brace of a node's JSON.
    pub fn push_rest(&self, out: &mut Vec<u8>, now: ClusterTime) {
        let view = self.view();
        json::push_expiry(out, view.expiry, now);
        json::push_indexes(out, view.modified, view.created);
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Stamp;
    use super::super::command::{Action, Command};
    use super::*;

    fn tree(keys: &[&str]) -> Tree {
        let mut tree = Tree::new(10);
        for key in keys {
            let command = Command {
                action: Action::Set,
                key: Key::new(key.as_bytes()),
                value: b""[..].into(),
                dir: key.ends_with('/'),
                recursive: false,
                ttl: None,
                refresh: false,
                prev_value: None,
                prev_index: None,
            };
            tree.apply(&command, Stamp::default()).expect("it is valid");
        }
        tree
    }

    fn keys(tree: &Tree, search: Search<'_>) -> Vec<String> {
        let found = tree.search(&search);
        found
            .map(|(key, _)| String::from_utf8(key).expect("text"))
            .collect()
    }

    const KEYS: [&str; 9] = [
        "/a", "/ab/c", "/ab/d/e", "/ab/_h/i", "/abc", "/b/", "/_s/t", "/z/_y", "/z/zz",
    ];

    #[test]
    fn a_prefix_finds_names_or_everything_below_them() {
        let tree = tree(&KEYS);
        let table: [(&str, bool, bool, &[&str]); 10] = [
            ("/", false, false, &["/a", "/ab", "/abc", "/b", "/z"]),
            ("/a", false, false, &["/a", "/ab", "/abc"]),
            (
                "/ab",
                true,
                false,
                &["/ab", "/ab/c", "/ab/d", "/ab/d/e", "/abc"],
            ),
            (
                "/ab/",
                true,
                true,
                &["/ab/_h", "/ab/_h/i", "/ab/c", "/ab/d", "/ab/d/e"],
            ),
            ("/ab/d/", false, false, &["/ab/d/e"]),
            ("/_", true, false, &["/_s", "/_s/t"]),
            ("/z/", true, false, &["/z/zz"]),
            ("/none/x", true, true, &[]),
            ("/a/x", true, true, &[]),
            ("", false, false, &["/a", "/ab", "/abc", "/b", "/z"]),
        ];
        for (prefix, recursive, hidden, expected) in table {
            let search = Search {
                prefix: prefix.as_bytes(),
                after: None,
                recursive,
                hidden,
            };
            assert_eq!(keys(&tree, search), expected, "{prefix}");
        }
    }

    /// After any last key of a page, the next page continues with the key after it.
    #[test]
    fn pages_of_any_length_together_are_the_whole() {
        let tree = tree(&KEYS);
        for (prefix, recursive, hidden) in [
            ("/", true, true),
            ("/", true, false),
            ("/ab", true, false),
            ("/a", false, false),
        ] {
            let search = |after| Search {
                prefix: prefix.as_bytes(),
                after,
                recursive,
                hidden,
            };
            let whole = keys(&tree, search(None));
            for at in 0..whole.len() {
                let rest = keys(&tree, search(Some(whole[at].as_bytes())));
                assert_eq!(rest, whole[at + 1..], "{prefix} after {}", whole[at]);
            }
        }
    }

    /// The key that a page ended with may be gone, or another kind of node, when the next page is read.
    #[test]
    fn a_page_continues_after_a_key_that_is_gone() {
        let tree = tree(&KEYS);
        let table: [(&str, &[&str]); 5] = [
            (
                "/aa",
                &[
                    "/ab", "/ab/c", "/ab/d", "/ab/d/e", "/abc", "/b", "/z", "/z/zz",
                ],
            ),
            (
                "/ab/c/d",
                &["/ab/d", "/ab/d/e", "/abc", "/b", "/z", "/z/zz"],
            ),
            ("/ab/d/e/f/g", &["/abc", "/b", "/z", "/z/zz"]),
            (
                "/ab/_h/i",
                &["/ab/c", "/ab/d", "/ab/d/e", "/abc", "/b", "/z", "/z/zz"],
            ),
            ("/zz", &[]),
        ];
        for (after, expected) in table {
            let search = Search {
                prefix: b"/",
                after: Some(after.as_bytes()),
                recursive: true,
                hidden: false,
            };
            assert_eq!(keys(&tree, search), expected, "after {after}");
        }
    }

    #[test]
    fn directories_tell_how_many_children_they_have() {
        let tree = tree(&KEYS);
        let counts: Vec<usize> = tree
            .search(&Search {
                prefix: b"/",
                ..Search::default()
            })
            .map(|(_, node)| node.children())
            .collect();
        assert_eq!(counts, [0, 3, 0, 0, 2]);
    }
}
