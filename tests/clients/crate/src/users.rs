//! Users, roles and access control: every call of the crate's module `auth`, and what each user may do to keys.

use crate::members::{show, Member, Members};
use etcd::auth::{self, NewUser, Role, RoleUpdate, UserUpdate};
use etcd::kv::{self, GetOptions};
use etcd::{BasicAuth, Client, Response};
use futures::Future;
use std::fmt::Debug;

const READ: GetOptions = GetOptions {
    recursive: false,
    sort: true,
    strong_consistency: false,
};
const TREE: GetOptions = GetOptions {
    recursive: true,
    ..READ
};

/// A user's name and password, as each request states them. `None`: no credentials.
type Who = Option<(&'static str, &'static str)>;

const ROOT: Who = Some(("root", "secret"));

pub fn manage(members: &mut Members) {
    let _ = members.call("a key for users", |m| kv::set(m, "/app/a", "1", None));
    let _ = members.call("a key for root", |m| kv::set(m, "/other", "2", None));
    before_it_is_on(members);
    roles_and_users(members);
    access(members);
    updates(members);
    removal(members);
}

fn before_it_is_on(members: &mut Members) {
    told(members, "enable without root", None, auth::enable);
    told(members, "create root", None, |m| {
        auth::create_user(m, NewUser::new("root", "secret"))
    });
    told(members, "create root again", None, |m| {
        auth::create_user(m, NewUser::new("root", "other"))
    });
    told(members, "enable", None, auth::enable);
    told(members, "enable again", ROOT, auth::enable);
    told(members, "status", None, auth::status);
    told(members, "users, for no one", None, auth::get_users);
    told(
        members,
        "users, wrong password",
        Some(("root", "x")),
        auth::get_users,
    );
}

fn roles_and_users(members: &mut Members) {
    told(members, "create the role", ROOT, |m| {
        let mut role = Role::new("app");
        role.grant_kv_read_permission("/app/*");
        role.grant_kv_write_permission("/app/a");
        auth::create_role(m, role)
    });
    told(members, "create the role again", ROOT, |m| {
        auth::create_role(m, Role::new("app"))
    });
    told(members, "the role", ROOT, |m| auth::get_role(m, "app"));
    told(members, "no role", ROOT, |m| auth::get_role(m, "none"));
    told(members, "create the user", ROOT, |m| {
        let mut user = NewUser::new("ann", "first");
        user.add_role("app");
        auth::create_user(m, user)
    });
    told(members, "create a user with no such role", ROOT, |m| {
        let mut user = NewUser::new("bob", "first");
        user.add_role("none");
        auth::create_user(m, user)
    });
    told(members, "the user", ROOT, |m| auth::get_user(m, "ann"));
    told(members, "no user", ROOT, |m| auth::get_user(m, "none"));
}

fn access(members: &mut Members) {
    let guest = |m: &Member| {
        let mut update = RoleUpdate::new("guest");
        update.revoke_kv_read_permission("/*");
        update.revoke_kv_write_permission("/*");
        auth::update_role(m, update)
    };
    told(members, "nothing for guests", ROOT, guest);
    let users = [
        None,
        ROOT,
        Some(("ann", "first")),
        Some(("ann", "wrong")),
        Some(("none", "")),
    ];
    for who in users {
        keys_as(members, who);
    }
}

/// What a user may read and write.
fn keys_as(members: &mut Members, who: Who) {
    let user = who.map_or("no one".to_owned(), |(name, password)| {
        format!("{name}:{password}")
    });
    for key in ["/app/a", "/app", "/other", "/"] {
        let client = client_of(members, who);
        let result = members.wait(kv::get(&client, key, READ));
        show(&format!("{user} reads {key}"), &result);
    }
    let client = client_of(members, who);
    let result = members.wait(kv::get(&client, "/app", TREE));
    show(&format!("{user} reads the tree /app"), &result);
    for key in ["/app/a", "/app/b", "/other"] {
        let client = client_of(members, who);
        let result = members.wait(kv::set(&client, key, &user, None));
        show(&format!("{user} writes {key}"), &result);
    }
}

fn updates(members: &mut Members) {
    told(members, "a new password", ROOT, |m| {
        let mut update = UserUpdate::new("ann");
        update.update_password("second");
        auth::update_user(m, update)
    });
    keys_as(members, Some(("ann", "first")));
    keys_as(members, Some(("ann", "second")));
    told(members, "more for the role", ROOT, |m| {
        let mut update = RoleUpdate::new("app");
        update.grant_kv_write_permission("/app/*");
        auth::update_role(m, update)
    });
    told(members, "the same again", ROOT, |m| {
        let mut update = RoleUpdate::new("app");
        update.grant_kv_write_permission("/app/*");
        auth::update_role(m, update)
    });
    keys_as(members, Some(("ann", "second")));
    told(members, "root for the user", ROOT, |m| {
        let mut update = UserUpdate::new("ann");
        update.grant_role("root");
        auth::update_user(m, update)
    });
    told(
        members,
        "the user manages",
        Some(("ann", "second")),
        auth::get_roles,
    );
    told(members, "no longer", ROOT, |m| {
        let mut update = UserUpdate::new("ann");
        update.revoke_role("root");
        auth::update_user(m, update)
    });
    told(
        members,
        "the user cannot manage",
        Some(("ann", "second")),
        auth::get_roles,
    );
    told(members, "all users", ROOT, auth::get_users);
    told(members, "all roles", ROOT, auth::get_roles);
}

fn removal(members: &mut Members) {
    told(members, "remove the user", ROOT, |m| {
        auth::delete_user(m, "ann")
    });
    told(members, "remove the user again", ROOT, |m| {
        auth::delete_user(m, "ann")
    });
    told(members, "remove the role", ROOT, |m| {
        auth::delete_role(m, "app")
    });
    told(members, "remove guest", ROOT, |m| {
        auth::delete_role(m, "guest")
    });
    told(members, "remove root", ROOT, |m| {
        auth::delete_user(m, "root")
    });
    told(members, "disable for no one", None, auth::disable);
    told(members, "disable", ROOT, auth::disable);
    told(members, "disable again", None, auth::disable);
    told(members, "remove root now", None, |m| {
        auth::delete_user(m, "root")
    });
    told(members, "status at the end", None, auth::status);
}

/// A client with these credentials of the next member, once that has applied all acknowledged writes. Root may always
/// wait for that.
fn client_of(members: &mut Members, who: Who) -> Member {
    let url = members.next_url();
    let with = |who: Who| {
        let credentials = who.map(|(username, password)| BasicAuth {
            username: username.into(),
            password: password.into(),
        });
        Client::new(&[&url], credentials).expect("a client of this URL")
    };
    let read = kv::get(&with(ROOT), "/none?quorum=true", READ);
    members.wait(read).expect_err("this key is never set");
    with(who)
}

/// Makes a call to the next member and prints what it returned.
fn told<T, F>(members: &mut Members, what: &str, who: Who, make: impl FnOnce(&Member) -> F)
where
    T: Debug + Send + 'static,
    F: Future<Item = Response<T>, Error = Vec<etcd::Error>> + Send + 'static,
{
    let client = client_of(members, who);
    match members.wait(make(&client)) {
        Ok(answer) => println!("{what}: {:?}", answer.data),
        Err(errors) => println!("{what}: {errors:?}"),
    }
}
