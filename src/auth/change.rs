//! Changes of users and roles, and how they are applied.
//!
//! A refusal has the status and the text of the reference (spec §15). The order of the checks is the reference's too.

use super::role::{Permissions, Right, Role, sorted};
use super::{GUEST, Hash, ROOT, Store, User};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::fmt;

/// A change, as the raft log stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// From now on requests are checked. Creates the role `guest` if it is missing.
    Enable,
    /// From now on requests are not checked.
    Disable,
    /// A new user. Without a hash it is refused.
    CreateUser {
        /// The user's name.
        name: String,
        /// The hash of the password.
        hash: Option<Hash>,
        /// Names of roles, which need not exist.
        roles: Option<Vec<String>>,
    },
    /// A new user, or a new password for an existing one.
    PutUser {
        /// The user's name.
        name: String,
        /// The hash of the password.
        hash: Option<Hash>,
        /// For a new user: an empty list, or none.
        roles: Option<Vec<String>>,
    },
    /// Changes an existing user.
    UpdateUser {
        /// The user's name.
        name: String,
        /// The hash of the new password.
        hash: Option<Hash>,
        /// Roles that the user must not have yet.
        grant: Vec<String>,
        /// Roles that the user must have.
        revoke: Vec<String>,
    },
    /// Removes a user.
    DeleteUser(String),
    /// A new role.
    CreateRole {
        /// The role's name.
        name: String,
        /// Its permissions.
        role: Role,
    },
    /// Changes an existing role.
    UpdateRole {
        /// The role's name.
        name: String,
        /// Patterns that the role must not have yet.
        grant: Option<Permissions>,
        /// Patterns that are removed.
        revoke: Option<Permissions>,
    },
    /// Removes a role. Users who have it keep its name.
    DeleteRole(String),
}

/// What an accepted change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The answer shows nothing.
    Quiet,
    /// A user as it is now.
    User {
        /// Its name.
        name: String,
        /// Its roles. `None` is shown as `null`.
        roles: Option<Vec<String>>,
        /// Whether the answer is that of a creation.
        created: bool,
    },
    /// A role as it is now.
    Role {
        /// Its name.
        name: String,
        /// Its permissions.
        role: Role,
        /// Whether the answer is that of a creation.
        created: bool,
    },
}

/// Why a change, or a query, is refused. The text is etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Enabled already.
    Enabled,
    /// Disabled already.
    Disabled,
    /// Nobody could change anything after this.
    NoRootUser,
    /// The user exists.
    UserExists(String),
    /// A new user needs a password.
    NoPassword(String),
    /// There is no such user.
    NoUser(String),
    /// There is no such user to delete.
    NoUserToDelete(String),
    /// The user has this role: role, user.
    RoleGranted(String, String),
    /// The user does not have this role: role, user.
    RoleNotGranted(String, String),
    /// The update changes nothing.
    UserNotUpdated,
    /// While authentication is enabled, the user `root` must exist.
    RootUserStays,
    /// The role exists.
    RoleExists(String),
    /// There is no such role.
    NoRole(String),
    /// There is no such role to delete.
    NoRoleToDelete(String),
    /// The role has this pattern.
    PermissionGranted(Right, String),
    /// The update changes nothing.
    RoleNotUpdated,
    /// The role `root` cannot be changed.
    RootRoleStays,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Enabled
            | Refusal::Disabled
            | Refusal::NoRootUser
            | Refusal::UserExists(_)
            | Refusal::RoleGranted(..)
            | Refusal::RoleNotGranted(..)
            | Refusal::RoleExists(_)
            | Refusal::PermissionGranted(..) => 409,
            Refusal::NoPassword(_) | Refusal::UserNotUpdated | Refusal::RoleNotUpdated => 400,
            Refusal::NoUser(_)
            | Refusal::NoUserToDelete(_)
            | Refusal::NoRole(_)
            | Refusal::NoRoleToDelete(_) => 404,
            Refusal::RootUserStays | Refusal::RootRoleStays => 403,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auth: ")?;
        match self {
            Refusal::Enabled => f.write_str("already enabled"),
            Refusal::Disabled => f.write_str("already disabled"),
            Refusal::NoRootUser => f.write_str("No root user available, please create one"),
            Refusal::UserExists(user) => write!(f, "User {user} already exists."),
            Refusal::NoPassword(user) => {
                write!(f, "Cannot create user {user} with an empty password")
            }
            Refusal::NoUser(user) => write!(f, "User {user} does not exist."),
            Refusal::NoUserToDelete(user) => write!(f, "User {user} does not exist"),
            Refusal::RoleGranted(role, user) => {
                write!(f, "Granting duplicate role {role} for user {user}")
            }
            Refusal::RoleNotGranted(role, user) => {
                write!(f, "Revoking ungranted role {role} for user {user}")
            }
            Refusal::UserNotUpdated => {
                f.write_str("User not updated. Use grant/revoke/password to update the user.")
            }
            Refusal::RootUserStays => f.write_str("Cannot delete root user while auth is enabled."),
            Refusal::RoleExists(role) => write!(f, "Role {role} already exists."),
            Refusal::NoRole(role) => write!(f, "Role {role} does not exist."),
            Refusal::NoRoleToDelete(role) => write!(f, "Role {role} doesn't exist."),
            Refusal::PermissionGranted(Right::Read, pattern) => {
                write!(f, "Granting duplicate read permission {pattern}")
            }
            Refusal::PermissionGranted(Right::Write, pattern) => {
                write!(f, "Granting duplicate write permission {pattern}")
            }
            Refusal::RoleNotUpdated => {
                f.write_str("Role not updated. Use grant/revoke to update the role.")
            }
            Refusal::RootRoleStays => f.write_str("Cannot modify role root: is root role."),
        }
    }
}

/// A write to the store in which the reference keeps users and roles. A successful one takes an index of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreWrite {
    /// Creates a node. It succeeds if `true`.
    Create(bool),
    /// Replaces a node.
    Update,
    /// Deletes a node. It succeeds if `true`.
    Delete(bool),
}

/// The outcome of a change.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The change made, or the reason for the refusal.
    pub result: Result<Changed, Refusal>,
    /// What the reference writes for it, in order.
    pub writes: Vec<StoreWrite>,
}

/// Nodes that the reference creates before its first write: three directories, and the flag of whether authentication
/// is enabled.
const FOUNDATION: usize = 4;

impl Store {
    /// Applies a change. Deterministic: the same on every member.
    pub fn apply(&mut self, change: Change) -> Outcome {
        let mut writes = Vec::new();
        let result = match change {
            Change::Enable => self.enable(&mut writes),
            Change::Disable => self.disable(&mut writes),
            Change::CreateUser { name, hash, roles } => {
                let created = self.create_user(name, hash, roles, &mut writes);
                created.map(|changed| changed.into_update())
            }
            Change::PutUser { name, hash, roles } if !self.users.contains_key(&name) => {
                self.create_user(name, hash, roles, &mut writes)
            }
            Change::PutUser { name, hash, .. } => {
                self.update_user(name, hash, &[], &[], &mut writes)
            }
            Change::UpdateUser {
                name,
                hash,
                grant,
                revoke,
            } => self.update_user(name, hash, &grant, &revoke, &mut writes),
            Change::DeleteUser(name) => self.delete_user(name, &mut writes),
            Change::CreateRole { name, role } => self.create_role(name, role, &mut writes),
            Change::UpdateRole {
                name,
                grant,
                revoke,
            } => self.update_role(name, grant.as_ref(), revoke.as_ref(), &mut writes),
            Change::DeleteRole(name) => self.delete_role(name, &mut writes),
        };
        Outcome { result, writes }
    }

    /// Called before the first write.
    fn found(&mut self, writes: &mut Vec<StoreWrite>) {
        if !std::mem::replace(&mut self.founded, true) {
            writes.extend([StoreWrite::Create(true); FOUNDATION]);
        }
    }

    fn enable(&mut self, writes: &mut Vec<StoreWrite>) -> Result<Changed, Refusal> {
        if self.enabled {
            return Err(Refusal::Enabled);
        }
        if !self.users.contains_key(ROOT) {
            return Err(Refusal::NoRootUser);
        }
        self.found(writes);
        if let Entry::Vacant(guest) = self.roles.entry(GUEST.to_owned()) {
            guest.insert(Role::everything());
            writes.push(StoreWrite::Create(true));
        }
        self.enabled = true;
        writes.push(StoreWrite::Update);
        Ok(Changed::Quiet)
    }

    fn disable(&mut self, writes: &mut Vec<StoreWrite>) -> Result<Changed, Refusal> {
        if !self.enabled {
            return Err(Refusal::Disabled);
        }
        self.enabled = false;
        writes.push(StoreWrite::Update);
        Ok(Changed::Quiet)
    }

    fn create_user(
        &mut self,
        name: String,
        hash: Option<Hash>,
        mut roles: Option<Vec<String>>,
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        let Some(hash) = hash else {
            return Err(Refusal::NoPassword(name));
        };
        if name == ROOT && !roles.iter().flatten().any(|role| role == ROOT) {
            roles.get_or_insert_default().push(ROOT.to_owned());
        }
        self.found(writes);
        let Entry::Vacant(place) = self.users.entry(name.clone()) else {
            writes.push(StoreWrite::Create(false));
            return Err(Refusal::UserExists(name));
        };
        let user = place.insert(User { hash, roles });
        writes.push(StoreWrite::Create(true));
        Ok(Changed::User {
            roles: user.roles.clone(),
            name,
            created: true,
        })
    }

    fn update_user(
        &mut self,
        name: String,
        hash: Option<Hash>,
        grant: &[String],
        revoke: &[String],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        let old = self.roles_of(&name);
        let Some(user) = self.users.get(&name) else {
            return Err(Refusal::NoUser(name));
        };
        let mut roles = old.clone().unwrap_or_default();
        for role in grant {
            if roles.contains(role) {
                return Err(Refusal::RoleGranted(role.clone(), name));
            }
            roles.push(role.clone());
        }
        for role in revoke {
            if !roles.contains(role) {
                return Err(Refusal::RoleNotGranted(role.clone(), name));
            }
            roles.retain(|held| held != role);
        }
        let roles = Some(sorted(roles));
        let hash = hash.unwrap_or_else(|| user.hash.clone());
        if hash == user.hash && roles == old {
            return Err(Refusal::UserNotUpdated);
        }
        self.found(writes);
        let user = User { hash, roles };
        let roles = user.roles.clone();
        self.users.insert(name.clone(), user);
        writes.push(StoreWrite::Update);
        Ok(Changed::User {
            name,
            roles,
            created: false,
        })
    }

    fn delete_user(
        &mut self,
        name: String,
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        if self.enabled && name == ROOT {
            return Err(Refusal::RootUserStays);
        }
        self.found(writes);
        let existed = self.users.remove(&name).is_some();
        writes.push(StoreWrite::Delete(existed));
        match existed {
            true => Ok(Changed::Quiet),
            false => Err(Refusal::NoUserToDelete(name)),
        }
    }

    fn create_role(
        &mut self,
        name: String,
        role: Role,
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        if name == ROOT {
            return Err(Refusal::RootRoleStays);
        }
        self.found(writes);
        let Entry::Vacant(place) = self.roles.entry(name.clone()) else {
            writes.push(StoreWrite::Create(false));
            return Err(Refusal::RoleExists(name));
        };
        place.insert(role.clone());
        writes.push(StoreWrite::Create(true));
        Ok(Changed::Role {
            name,
            role,
            created: true,
        })
    }

    fn update_role(
        &mut self,
        name: String,
        grant: Option<&Permissions>,
        revoke: Option<&Permissions>,
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        if name == ROOT {
            return Err(Refusal::RootRoleStays);
        }
        let Some(old) = self.roles.get(&name) else {
            return Err(Refusal::NoRole(name));
        };
        let role = old.updated(grant, revoke)?;
        if role == *old {
            return Err(Refusal::RoleNotUpdated);
        }
        self.found(writes);
        self.roles.insert(name.clone(), role.clone());
        writes.push(StoreWrite::Update);
        Ok(Changed::Role {
            name,
            role,
            created: false,
        })
    }

    fn delete_role(
        &mut self,
        name: String,
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Changed, Refusal> {
        if name == ROOT {
            return Err(Refusal::RootRoleStays);
        }
        self.found(writes);
        let existed = self.roles.remove(&name).is_some();
        writes.push(StoreWrite::Delete(existed));
        match existed {
            true => Ok(Changed::Quiet),
            false => Err(Refusal::NoRoleToDelete(name)),
        }
    }
}

impl Changed {
    /// The reference answers 200, not 201, to the creation of a user with roles.
    fn into_update(mut self) -> Changed {
        if let Changed::User { created, .. } = &mut self {
            *created = false;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> Option<Hash> {
        Some(Hash(text.into()))
    }

    fn put(name: &str, text: &str) -> Change {
        Change::PutUser {
            name: name.into(),
            hash: hash(text),
            roles: None,
        }
    }

    fn update(name: &str, grant: &[&str], revoke: &[&str]) -> Change {
        let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Change::UpdateUser {
            name: name.into(),
            hash: None,
            grant: list(grant),
            revoke: list(revoke),
        }
    }

    fn roles(store: &mut Store, change: Change) -> Option<Vec<String>> {
        match store.apply(change).result {
            Ok(Changed::User { roles, .. }) => roles,
            other => panic!("{other:?}"),
        }
    }

    /// Indexes that the reference took for the same changes: 3 to 8, then one more for each success.
    #[test]
    fn the_first_write_creates_what_the_reference_keeps_users_in() {
        let mut store = Store::default();
        let success = |outcome: &Outcome| {
            let taken = |write: &&StoreWrite| {
                !matches!(write, StoreWrite::Create(false) | StoreWrite::Delete(false))
            };
            outcome.writes.iter().filter(taken).count()
        };
        let table = [
            (Change::Enable, 0, false),
            (update("a", &["r"], &[]), 0, false),
            (put("root", "1"), 5, true),
            (put("root", "1"), 0, false),
            (put("root", "2"), 1, true),
            (update("root", &["x"], &[]), 1, true),
            (Change::DeleteRole("zz".into()), 0, false),
            (Change::Enable, 2, true),
            (Change::Enable, 0, false),
            (Change::DeleteUser("root".into()), 0, false),
            (Change::Disable, 1, true),
            (Change::Enable, 1, true),
            (Change::Disable, 1, true),
            (Change::DeleteUser("root".into()), 1, true),
        ];
        for (change, indexes, is_ok) in table {
            let name = format!("{change:?}");
            let outcome = store.apply(change);
            assert_eq!(success(&outcome), indexes, "{name}");
            assert_eq!(outcome.result.is_ok(), is_ok, "{name}: {outcome:?}");
        }
        let mut other = Store::default();
        let outcome = other.apply(Change::DeleteRole("zz".into()));
        assert_eq!(success(&outcome), 4, "a deletion creates it too");
    }

    #[test]
    fn roles_are_sorted_by_the_first_update() {
        let mut store = Store::default();
        let create = Change::CreateUser {
            name: "w".into(),
            hash: hash("1"),
            roles: Some(["z", "a", "a"].map(String::from).into()),
        };
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).into()).collect());
        assert_eq!(roles(&mut store, create), list(&["z", "a", "a"]));
        assert_eq!(roles(&mut store, update("w", &[], &[])), list(&["a", "z"]));
        let again = store.apply(update("w", &[], &[])).result;
        assert_eq!(again, Err(Refusal::UserNotUpdated));
        assert_eq!(roles(&mut store, put("n", "1")), None);
        assert_eq!(roles(&mut store, update("n", &[], &[])), list(&[]));
        assert_eq!(
            roles(&mut store, update("n", &["b", "a"], &["b"])),
            list(&["a"])
        );
    }

    #[test]
    fn the_role_of_the_user_root_cannot_be_taken_away() {
        let mut store = Store::default();
        roles(&mut store, put("root", "1"));
        assert_eq!(
            roles(&mut store, update("root", &[], &["root"])),
            Some(vec![])
        );
        assert!(store.is_root("root"));
        let again = store.apply(update("root", &["root"], &[])).result;
        assert_eq!(
            again,
            Err(Refusal::RoleGranted("root".into(), "root".into()))
        );
    }

    #[test]
    fn a_change_survives_its_encoding() {
        let changes = [
            Change::Enable,
            put("a", "1"),
            update("a", &["r"], &["s"]),
            Change::DeleteUser("a".into()),
            Change::CreateRole {
                name: "r".into(),
                role: Role::everything(),
            },
            Change::UpdateRole {
                name: "r".into(),
                grant: Some(Permissions {
                    read: Some(vec!["/a".into()]),
                    write: None,
                }),
                revoke: None,
            },
        ];
        for change in changes {
            let bytes = serde_json::to_vec(&change).expect("plain data");
            let again: Change = serde_json::from_slice(&bytes).expect("its own bytes");
            assert_eq!(again, change);
        }
    }
}
