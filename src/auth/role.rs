//! Roles: patterns of keys that may be read, and of keys that may be written.

use super::change::Refusal;
use serde::{Deserialize, Serialize};

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// GET and HEAD, watches included.
    Read,
    /// PUT, POST and DELETE.
    Write,
}

/// Patterns. One that ends in `*` covers every key that begins with the text before it. Any other covers only the equal
/// key. `None`: the list was never set. Answers show it as `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// For [`Right::Read`].
    pub read: Option<Vec<String>>,
    /// For [`Right::Write`].
    pub write: Option<Vec<String>>,
}

/// The form in which requests and answers contain permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPermissions {
    /// The only kind that etcd has.
    pub kv: Permissions,
}

/// A role. Its serialized form is that of answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    permissions: KeyPermissions,
    /// Empty lists that came with the creation. The reference stores and shows them until the next update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<KeyPermissions>,
    /// Like `grant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoke: Option<KeyPermissions>,
}

impl Permissions {
    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        is_empty(&self.read) && is_empty(&self.write)
    }

    fn of(&self, right: Right) -> impl Iterator<Item = &str> {
        let list = match right {
            Right::Read => &self.read,
            Right::Write => &self.write,
        };
        list.iter().flatten().map(String::as_str)
    }

    fn granted(&self, more: &Permissions) -> Result<Permissions, Refusal> {
        let add = |old: &Option<Vec<String>>, more: &Option<Vec<String>>, kind| {
            let mut list = old.clone().unwrap_or_default();
            for pattern in more.iter().flatten() {
                if list.contains(pattern) {
                    return Err(Refusal::PermissionGranted(kind, pattern.clone()));
                }
                list.push(pattern.clone());
            }
            Ok(Some(sorted(list)))
        };
        Ok(Permissions {
            read: add(&self.read, &more.read, Right::Read)?,
            write: add(&self.write, &more.write, Right::Write)?,
        })
    }

    fn revoked(&self, less: &Permissions) -> Permissions {
        let remove = |old: &Option<Vec<String>>, less: &Option<Vec<String>>| {
            let mut list = old.clone().unwrap_or_default();
            let less: Vec<&String> = less.iter().flatten().collect();
            list.retain(|pattern| !less.contains(&pattern));
            Some(sorted(list))
        };
        Permissions {
            read: remove(&self.read, &less.read),
            write: remove(&self.write, &less.write),
        }
    }
}

/// Sorted, without duplicates.
pub(super) fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list.dedup();
    list
}

impl Role {
    /// A role with these permissions.
    pub fn new(permissions: Permissions) -> Role {
        Role {
            permissions: KeyPermissions { kv: permissions },
            grant: None,
            revoke: None,
        }
    }

    /// All rights on all keys: the role `root`, and the role `guest` when it is created.
    pub fn everything() -> Role {
        let all = || Some(vec!["/*".to_owned()]);
        Role::new(Permissions {
            read: all(),
            write: all(),
        })
    }

    /// Whether a pattern covers the key.
    pub fn allows(&self, key: &[u8], right: Right) -> bool {
        let mut patterns = self.permissions.kv.of(right);
        patterns.any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix.as_bytes()),
            None => key == pattern.as_bytes(),
        })
    }

    /// Whether a pattern covers the key and everything below it.
    pub fn allows_below(&self, key: &[u8], right: Right) -> bool {
        let mut prefixes = self
            .permissions
            .kv
            .of(right)
            .filter_map(|pattern| pattern.strip_suffix('*'));
        prefixes.any(|prefix| key.starts_with(prefix.as_bytes()))
    }

    /// The role with further patterns, and then without others. Patterns that it does not have are not missed.
    pub(super) fn updated(
        &self,
        grant: Option<&Permissions>,
        revoke: Option<&Permissions>,
    ) -> Result<Role, Refusal> {
        let old = &self.permissions.kv;
        let granted = grant.map_or_else(|| Ok(old.clone()), |more| old.granted(more))?;
        let left = revoke.map_or_else(|| granted.clone(), |less| granted.revoked(less));
        Ok(Role::new(left))
    }
}
