//! Keys: cleaned slash-separated paths (spec §3).

use super::bytes::Bytes;
use std::borrow::Borrow;

/// A cleaned path: `/` (the root), or one or more times `/name`. A name is a non-empty string of any bytes except `/`,
/// and not `.` or `..`. Cloning is cheap: up to 22 bytes are stored inline, longer paths are shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(Bytes);

impl Key {
    /// The root, `/`.
    pub fn root() -> Key {
        Key(Bytes::from("/"))
    }

    /// Cleans `path`: adds a leading slash, drops empty names and `.`, lets `..` remove the name before it (nothing at
    /// the root), and drops a trailing slash.
    pub fn new(path: &[u8]) -> Key {
        if is_clean(path) {
            return Key(Bytes::from(path));
        }
        let mut names: Vec<&[u8]> = Vec::new();
        for name in path.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        Key::from_names(&names)
    }

    /// A path from outside that must already be clean. `None` if it is not.
    pub(super) fn from_clean(path: &[u8]) -> Option<Key> {
        is_clean(path).then(|| Key(Bytes::from(path)))
    }

    /// The path of clean `names`, from the root downwards.
    pub(super) fn from_names<'a>(names: impl IntoIterator<Item = &'a &'a [u8]>) -> Key {
        let mut path = Vec::new();
        for name in names {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            Key::root()
        } else {
            Key(Bytes::from(path))
        }
    }

    /// The path as text: `/`, `/a/b`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As [`Key::as_bytes`], to be shared.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The names from the root downwards. Empty for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.0[1..]
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The last name. Empty for the root.
    pub fn name(&self) -> &[u8] {
        &self.0[self.last_slash() + 1..]
    }

    /// The path of the child `name`, which must be a clean name.
    pub fn child(&self, name: &[u8]) -> Key {
        let stem = if self.is_root() { 0 } else { self.0.len() };
        let mut path = Vec::with_capacity(stem + 1 + name.len());
        path.extend_from_slice(&self.0[..stem]);
        path.push(b'/');
        path.extend_from_slice(name);
        Key(Bytes::from(path))
    }

    /// Whether this path is strictly below `ancestor` (`/queue2` is not below `/queue`).
    pub fn is_below(&self, ancestor: &Key) -> bool {
        self.rest_below(ancestor).is_some()
    }

    /// Whether a name of this path below `ancestor` begins with `_`. Watches on `ancestor` do not receive changes of
    /// such a path. False if this path is not below `ancestor`.
    pub fn hidden_below(&self, ancestor: &Key) -> bool {
        let mut rest = self
            .rest_below(ancestor)
            .unwrap_or(b"")
            .split(|&byte| byte == b'/');
        rest.any(|name| name.starts_with(HIDDEN))
    }

    /// The rest of the path after `ancestor` and a slash, if this path is strictly below `ancestor`.
    pub(super) fn rest_below(&self, ancestor: &Key) -> Option<&[u8]> {
        if ancestor.is_root() {
            return (!self.is_root()).then(|| &self.0[1..]);
        }
        self.0.strip_prefix(ancestor.as_bytes())?.strip_prefix(b"/")
    }

    fn last_slash(&self) -> usize {
        self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
    }
}

/// Keys are ordered like their bytes, so a map of keys can be searched with a byte slice.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Names with this beginning are hidden: listings and watches of the directories above leave them out. In the order of
/// names, this string is the first of them.
pub(super) const HIDDEN: &[u8] = b"_";

/// All names from this one on, and all before [`HIDDEN`], are visible.
pub(super) const PAST_HIDDEN: &[u8] = b"`";

const _: () = assert!(PAST_HIDDEN[0] == HIDDEN[0] + 1);

/// Whether a node may have this name.
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/')
}

pub(super) fn is_clean(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else {
        return false;
    };
    rest.is_empty()
        || rest
            .split(|&byte| byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (given, clean) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a/", "/a"),
            ("a", "/a"),
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/...", "/..."),
            ("/.x", "/.x"),
        ] {
            assert_eq!(
                Key::new(given.as_bytes()).as_bytes(),
                clean.as_bytes(),
                "of {given:?}"
            );
        }
    }

    #[test]
    fn whatever_is_cleaned_is_clean() {
        let mut paths = vec![Vec::new()];
        for length in 0..6 {
            for at in 0..paths.len() {
                let path: &Vec<u8> = &paths[at];
                if path.len() == length {
                    let longer = b"/.a".map(|byte| [path.as_slice(), &[byte]].concat());
                    paths.extend(longer);
                }
            }
        }
        for path in paths {
            let key = Key::new(&path);
            assert!(is_clean(key.as_bytes()), "{path:?} gave {key:?}");
            assert!(key.components().all(is_name));
            assert_eq!(Key::new(key.as_bytes()), key);
        }
    }

    #[test]
    fn family() {
        let key = |path: &str| Key::new(path.as_bytes());
        assert_eq!(key("/a/b").name(), b"b");
        assert_eq!(Key::root().name(), b"");
        assert_eq!(Key::root().child(b"a"), key("/a"));
        assert_eq!(key("/a").child(b"b"), key("/a/b"));
        assert_eq!(Key::root().components().count(), 0);
        assert_eq!(key("/a/b").components().collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn below_and_hidden() {
        let key = |path: &str| Key::new(path.as_bytes());
        assert!(key("/queue/1").is_below(&key("/queue")));
        assert!(!key("/queue2").is_below(&key("/queue")));
        assert!(!key("/queue").is_below(&key("/queue")));
        assert!(key("/a").is_below(&Key::root()) && !Key::root().is_below(&Key::root()));
        assert!(key("/a/_h/b").hidden_below(&key("/a")));
        assert!(!key("/a/_h/b").hidden_below(&key("/a/_h")));
        assert!(!key("/a/not_hidden").hidden_below(&Key::root()));
        assert!(key("/_a").hidden_below(&Key::root()));
    }
}
