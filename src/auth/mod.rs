//! Users, roles and permissions of etcd's v2 authentication, as a pure value (spec §15).
//!
//! A [`Store`] is a part of the replicated state. It changes only by a [`Change`], which is a command of the raft log.
//! All checks are made when the change is applied, so every member accepts or refuses it alike. Passwords do not occur
//! here: a change contains a bcrypt hash, and the API compares passwords with it.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the store, and queries of it |
//! | [`change`] | how a change is applied, and the answers of etcd |
//! | [`role`] | permissions: which keys a pattern allows |
//! | [`basic`] | the `Authorization` header |
//!
//! # Invariants
//!
//! - The role `root` exists, allows everything, and cannot be changed. The user `root` always has it.
//! - While authentication is enabled, the user `root` exists.
//!
//! # Compared with the reference
//!
//! These quirks are copied: a user may have roles that do not exist; a user or role whose name begins with `_` is left
//! out of the lists; the first update of a user or role that has no lists yet, or unsorted ones, sorts them and counts as
//! a change. Not copied: the reference answers nothing to some requests about a user who has a role without a name.

pub mod basic;
pub mod change;
pub mod role;

pub use change::{Change, Changed, Refusal, StoreWrite};
pub use role::{Permissions, Right, Role};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The user that may do everything, and the role that allows it.
pub const ROOT: &str = "root";

/// The role of requests without credentials.
pub const GUEST: &str = "guest";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The password's bcrypt hash.
    hash: Hash,
    /// Names of roles, in the order in which they are shown. `None`: the user was created without this list.
    roles: Option<Vec<String>>,
}

/// The bcrypt hash of a password. Its text appears in no log line and no error.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash(pub String);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(not shown)")
    }
}

impl User {
    /// The hash with which a password is compared.
    pub fn hash(&self) -> &str {
        &self.hash.0
    }
}

/// Users, roles, and whether they are enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    enabled: bool,
    /// Whether a user or role was ever written or deleted. The reference then creates directories, which take indexes.
    founded: bool,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
}

impl Store {
    /// Whether requests are checked.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether nothing was ever changed. A snapshot of such a state has the format of earlier versions.
    pub fn is_unused(&self) -> bool {
        *self == Store::default()
    }

    /// The user with this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The names of a user's roles. `None` if there is no such user, or if the user was created without a list.
    fn roles_of(&self, name: &str) -> Option<Vec<String>> {
        let roles = self.users.get(name)?.roles.clone();
        if name != ROOT {
            return roles;
        }
        let mut roles = roles.unwrap_or_default();
        if !roles.iter().any(|role| role == ROOT) {
            roles.push(ROOT.to_owned());
        }
        Some(roles)
    }

    /// The role with this name. The role `root` always exists.
    pub fn role(&self, name: &str) -> Option<Role> {
        match name {
            ROOT => Some(Role::everything()),
            name => self.roles.get(name).cloned(),
        }
    }

    /// Whether a user has the role `root`.
    pub fn is_root(&self, user: &str) -> bool {
        let roles = self.users.get(user).map(|user| user.roles.iter().flatten());
        roles.is_some_and(|mut roles| user == ROOT || roles.any(|role| role == ROOT))
    }

    /// Whether a request may access `key`: the decoded path after `/v2/keys`, with its trailing slash if it has one.
    /// `user`: `None` for a request without credentials, which has the role `guest`. Whether authentication is enabled
    /// does not matter here.
    pub fn allows(&self, user: Option<&str>, key: &[u8], right: Right, recursive: bool) -> bool {
        let Some(name) = user else {
            let guest = self.roles.get(GUEST);
            return guest.is_some_and(|role| role.allows(key, right));
        };
        self.allows_user(name, key, right, recursive)
    }

    /// Whether a request may access every key that begins with `prefix`. Unlike [`Store::allows`], this has no exception
    /// for the role `guest`.
    pub fn allows_prefix(&self, user: Option<&str>, prefix: &[u8], right: Right) -> bool {
        match user {
            Some(name) => self.allows_user(name, prefix, right, true),
            None => {
                let guest = self.roles.get(GUEST);
                guest.is_some_and(|role| role.allows_below(prefix, right))
            }
        }
    }

    fn allows_user(&self, name: &str, key: &[u8], right: Right, recursive: bool) -> bool {
        let Some(user) = self.users.get(name) else {
            return false;
        };
        self.is_root(name)
            || user.roles.iter().flatten().any(|role| {
                let role = self.roles.get(role);
                role.is_some_and(|role| match recursive {
                    true => role.allows_below(key, right),
                    false => role.allows(key, right),
                })
            })
    }

    /// All users for a listing, in order: names and the roles that exist.
    pub fn list_users(&self) -> impl Iterator<Item = (&str, Vec<NamedRole>)> {
        let shown = self.users.keys().filter(|name| !name.starts_with('_'));
        shown.map(|name| {
            let roles = self.roles_of(name).unwrap_or_default();
            let roles = roles.iter().filter_map(|role| self.named_role(role));
            (name.as_str(), roles.collect())
        })
    }

    /// All roles for a listing, in order.
    pub fn list_roles(&self) -> Vec<NamedRole> {
        let mut names: Vec<&str> = self.roles.keys().map(String::as_str).collect();
        names.retain(|name| !name.starts_with('_'));
        names.push(ROOT);
        names.sort_unstable();
        let roles = names.into_iter().filter_map(|name| self.named_role(name));
        roles.collect()
    }

    /// A role with its name, as answers show it.
    pub fn named_role(&self, name: &str) -> Option<NamedRole> {
        let role = self.role(name)?;
        let name = name.to_owned();
        Some(NamedRole { name, role })
    }

    /// The roles of a user.
    ///
    /// # Errors
    /// The name of the first role that does not exist, or [`Refusal::NoUser`].
    pub fn user_roles(&self, name: &str) -> Result<Vec<NamedRole>, Refusal> {
        if !self.users.contains_key(name) {
            return Err(Refusal::NoUser(name.to_owned()));
        }
        let roles = self.roles_of(name).unwrap_or_default();
        let found = roles.iter().map(|role| {
            let missing = || Refusal::NoRole(role.clone());
            self.named_role(role).ok_or_else(missing)
        });
        found.collect()
    }
}

/// A role as answers show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedRole {
    /// Its name.
    #[serde(rename = "role")]
    pub name: String,
    /// Its permissions.
    #[serde(flatten)]
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(changes: impl IntoIterator<Item = Change>) -> Store {
        let mut store = Store::default();
        for change in changes {
            let name = format!("{change:?}");
            store.apply(change).result.expect(&name);
        }
        store
    }

    fn user(name: &str, roles: &[&str]) -> Change {
        Change::CreateUser {
            name: name.into(),
            hash: Some(Hash("h".into())),
            roles: Some(roles.iter().map(|role| (*role).into()).collect()),
        }
    }

    fn role(name: &str, read: &[&str], write: &[&str]) -> Change {
        let list = |patterns: &[&str]| Some(patterns.iter().map(|text| (*text).into()).collect());
        let (read, write) = (list(read), list(write));
        Change::CreateRole {
            name: name.into(),
            role: Role::new(Permissions { read, write }),
        }
    }

    #[test]
    fn a_request_needs_a_role_that_allows_it() {
        let store = store([
            user("root", &["x"]),
            user("admin", &["root"]),
            user("a", &["r", "missing", "w"]),
            user("_hidden", &[]),
            role("r", &["/p/*", "/exact"], &[]),
            role("w", &[], &["/q*"]),
            role("guest", &["/pub"], &["/pub/*"]),
        ]);
        let (read, write) = (Right::Read, Right::Write);
        let table = [
            (Some("root"), "/any", write, true, true),
            (Some("admin"), "/", write, true, true),
            (Some("nobody"), "/pub", read, false, false),
            (Some("a"), "/p/x", read, false, true),
            (Some("a"), "/p/", read, true, true),
            (Some("a"), "/p", read, false, false),
            (Some("a"), "/p/x", write, false, false),
            (Some("a"), "/exact", read, false, true),
            (Some("a"), "/exact/", read, false, false),
            // Only a pattern with a star covers what is below a key.
            (Some("a"), "/exact", read, true, false),
            (Some("a"), "/qq", write, true, true),
            (Some("a"), "/pub", read, false, false),
            (Some("_hidden"), "/pub", read, false, false),
            (None, "/pub", read, false, true),
            // The reference checks the guest's patterns without regard to the parameter.
            (None, "/pub", read, true, true),
            (None, "/pub/x", write, true, true),
            (None, "/p/x", read, false, false),
        ];
        let prefixes = [
            (Some("root"), "/", true),
            (Some("a"), "/p/", true),
            (Some("a"), "/p", false),
            (Some("a"), "/exact", false),
            // A key such as /public begins with this too.
            (None, "/pub", false),
        ];
        for (user, prefix, wanted) in prefixes {
            let allowed = store.allows_prefix(user, prefix.as_bytes(), read);
            assert_eq!(allowed, wanted, "{user:?} {prefix}");
        }
        for (user, key, right, recursive, wanted) in table {
            let allowed = store.allows(user, key.as_bytes(), right, recursive);
            assert_eq!(allowed, wanted, "{user:?} {right:?} {key} {recursive}");
        }
        assert!(store.is_root("root") && store.is_root("admin"));
        assert!(!store.is_root("a") && !store.is_root("nobody"));
        let users: Vec<&str> = store.list_users().map(|(name, _)| name).collect();
        assert_eq!(users, ["a", "admin", "root"]);
        let roles = store.list_roles();
        let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        assert_eq!(names, ["guest", "r", "root", "w"]);
    }

    #[test]
    fn without_the_role_guest_nobody_is_a_guest() {
        let store = store([user("root", &[])]);
        assert!(!store.allows(None, b"/a", Right::Read, false));
    }

    #[test]
    fn the_user_root_alone_has_a_role_that_was_not_granted() {
        let store = store([user("root", &[]), user("a", &[])]);
        let names = |user: &str| -> Vec<String> {
            let roles = store.user_roles(user).expect(user);
            roles.into_iter().map(|role| role.name).collect()
        };
        assert_eq!(names("root"), ["root"]);
        assert_eq!(names("a"), [""; 0]);
        assert_eq!(store.user_roles("b"), Err(Refusal::NoUser("b".into())));
    }

    #[test]
    fn no_debug_text_contains_a_hash() {
        let text = format!("{:?} {:?}", store([user("a", &[])]), user("a", &[]));
        assert!(!text.contains("\"h\""), "{text}");
    }
}
