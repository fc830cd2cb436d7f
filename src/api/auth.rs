//! `/v2/auth`: users, roles, and whether they are enforced (spec §15).
//!
//! A query is a quorum read, so a change that any member has acknowledged is in the answer. A change is a command of the
//! raft log; all checks of its content are made when it is applied ([`Store::apply`](crate::auth::Store::apply)). A
//! password is hashed before that, on the passwords' thread. [`super::access`] has checked the credentials.

use super::Api;
use super::access;
use super::answer::{self, ClusterId};
use super::cors::Grant;
use super::json_body::{Fields, Invalid, Null};
use super::passwords::Busy;
use super::route::Route;
use crate::auth::role::KeyPermissions;
use crate::auth::{Change, Changed, Hash, NamedRole, Permissions, Refusal, Role, Store};
use crate::http1::{Answer, BodyState, Outbox, Reply, Request, Ticket};
use crate::replica::{Done, Effect, Failure, Reader, Waiter};
use crate::tree::json;
use crate::watch::View;
use std::sync::Arc;

const ONE: &str = "GET,PUT,DELETE";
const ALL: &str = "GET";

/// Longer JSON bodies are refused, because they are parsed on a thread that serves other connections: a role with some
/// thousands of patterns.
const JSON_BYTES_MAX: usize = 256 << 10;

/// Answers a request for one of these routes.
pub fn handle(api: &Api, request: &Request<'_>, route: Route<'_>, grant: &Grant, reply: Reply<'_>) {
    let method = request.method();
    let allow = match route {
        Route::AuthEnable | Route::User(_) | Route::Role(_) => ONE,
        Route::Users | Route::Roles => ALL,
        _ => return reply.send(answer::message(400, "Invalid path", grant)),
    };
    if !allow.split(',').any(|allowed| allowed == method) {
        return reply.send(answer::method_not_allowed(allow, grant));
    }
    if let Some(message) = unknown(method, route) {
        return refuse(api, 404, message, grant, reply);
    }
    match (method, route) {
        ("GET", Route::AuthEnable) => query(api, Query::Enabled, grant, reply),
        ("GET", Route::Users) => query(api, Query::Users, grant, reply),
        ("GET", Route::Roles) => query(api, Query::Roles, grant, reply),
        ("GET", Route::User(name)) => query(api, Query::User(text(name)), grant, reply),
        ("GET", Route::Role(name)) => query(api, Query::Role(text(name)), grant, reply),
        ("PUT", Route::AuthEnable) => change(api, &Change::Enable, grant, reply),
        ("PUT", Route::User(name)) => put_user(api, request, name, grant, reply),
        ("PUT", Route::Role(name)) => match role_change(request, name) {
            Ok(wanted) => change(api, &wanted, grant, reply),
            Err(message) => refuse(api, 400, message, grant, reply),
        },
        (_, Route::User(name)) => change(api, &Change::DeleteUser(text(name)), grant, reply),
        (_, Route::Role(name)) => change(api, &Change::DeleteRole(text(name)), grant, reply),
        _ => change(api, &Change::Disable, grant, reply),
    }
}

/// The message of 404 for a query or deletion whose name is not UTF-8, because no user or role has such a name.
fn unknown(method: &str, route: Route<'_>) -> Option<Vec<u8>> {
    let (kind, name, end): (&[u8], &[u8], &[u8]) = match (method, route) {
        ("PUT", _) => return None,
        ("GET", Route::User(name)) => (b"User ", name, b" does not exist."),
        (_, Route::User(name)) => (b"User ", name, b" does not exist"),
        ("GET", Route::Role(name)) => (b"Role ", name, b" does not exist."),
        (_, Route::Role(name)) => (b"Role ", name, b" doesn't exist."),
        _ => return None,
    };
    let is_broken = std::str::from_utf8(name).is_err();
    is_broken.then(|| [b"auth: ", kind, name, end].concat())
}

fn text(name: &[u8]) -> String {
    json::readable(name).into_owned()
}

fn refuse(api: &Api, status: u16, message: impl AsRef<[u8]>, grant: &Grant, reply: Reply<'_>) {
    let answer = answer::message(status, message, grant);
    reply.send(api.cluster.onto(answer));
}

// Queries

enum Query {
    Enabled,
    Users,
    User(String),
    Roles,
    Role(String),
}

#[derive(serde::Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(serde::Serialize)]
struct Users<'a> {
    users: Option<Vec<ShownUser<'a>>>,
}

#[derive(serde::Serialize)]
struct ShownUser<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<NamedRole>,
}

#[derive(serde::Serialize)]
struct Roles {
    roles: Vec<NamedRole>,
}

impl Query {
    fn answer(&self, auth: &Store, grant: &Grant) -> Answer {
        let refused = |refusal: Refusal| {
            let text = refusal.to_string();
            answer::message(refusal.status(), text, grant)
        };
        match self {
            Query::Enabled => {
                let enabled = auth.is_enabled();
                answer::json_line(200, &Enabled { enabled }, grant)
            }
            Query::Users => {
                let users = auth.list_users();
                let users: Vec<_> = users
                    .map(|(user, roles)| ShownUser { user, roles })
                    .collect();
                let users = Some(users).filter(|users| !users.is_empty());
                answer::json_line(200, &Users { users }, grant)
            }
            Query::User(user) => match auth.user_roles(user) {
                Ok(roles) => answer::json_line(200, &ShownUser { user, roles }, grant),
                Err(refusal) => refused(refusal),
            },
            Query::Roles => {
                let roles = auth.list_roles();
                answer::json_line(200, &Roles { roles }, grant)
            }
            Query::Role(name) => match auth.named_role(name) {
                Some(role) => answer::json_line(200, &role, grant),
                None => refused(Refusal::NoRole(name.clone())),
            },
        }
    }
}

fn query(api: &Api, query: Query, grant: &Grant, reply: Reply<'_>) {
    let reader = QueryAnswer {
        ticket: reply.later(),
        api: api.shared(),
        grant: grant.clone(),
        query,
    };
    api.replica.read(Box::new(reader));
}

struct QueryAnswer {
    ticket: Ticket,
    api: Arc<Api>,
    grant: Grant,
    query: Query,
}

impl Reader<Outbox> for QueryAnswer {
    /// The connection's worker renders the body, because it may be long, and this is the raft thread.
    fn ready(self: Box<Self>, _: &Arc<View>, outbox: &mut Outbox) {
        let auth = self.api.replica.status().auth();
        let QueryAnswer {
            ticket,
            api,
            grant,
            query,
        } = *self;
        let answer = move |reply: Reply<'_>| {
            reply.send(api.cluster.onto(query.answer(&auth, &grant)));
        };
        ticket.resume_in(Box::new(answer), outbox);
    }

    fn failed(self: Box<Self>, _: Failure, outbox: &mut Outbox) {
        let answer = answer::message(500, answer::INTERNAL, &self.grant);
        self.ticket.send_in(self.api.cluster.onto(answer), outbox);
    }
}

// Changes

fn change(api: &Api, change: &Change, grant: &Grant, reply: Reply<'_>) {
    let waiter = ChangeAnswer {
        ticket: reply.later(),
        cluster: api.cluster.clone(),
        grant: grant.clone(),
    };
    api.replica.change_auth(change, Box::new(waiter));
}

/// A client that waits for its change.
struct ChangeAnswer {
    ticket: Ticket,
    cluster: ClusterId,
    grant: Grant,
}

#[derive(serde::Serialize)]
struct ChangedUser<'a> {
    user: &'a str,
    roles: &'a Option<Vec<String>>,
}

impl Waiter<Outbox> for ChangeAnswer {
    fn done(self: Box<Self>, done: &Done, outbox: &mut Outbox) {
        let Effect::Auth(result) = &done.effect else {
            unreachable!("a change of users and roles changes nothing else");
        };
        let answer = match result {
            Ok(changed) => self.success(changed),
            Err(refusal) => answer::message(refusal.status(), refusal.to_string(), &self.grant),
        };
        self.ticket.send_in(self.cluster.onto(answer), outbox);
    }

    /// The reference hides every reason. This one is shown, because only the operator can remove it.
    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        let answer = match failure {
            Failure::NotUnderstood => answer::message(503, failure.cause(), &self.grant),
            _ => answer::message(500, answer::INTERNAL, &self.grant),
        };
        self.ticket.send_in(self.cluster.onto(answer), outbox);
    }
}

impl ChangeAnswer {
    fn success(&self, changed: &Changed) -> Answer {
        let status = |created: &bool| if *created { 201 } else { 200 };
        match changed {
            Changed::Quiet => answer::json(200, Vec::new(), &self.grant),
            Changed::User {
                name,
                roles,
                created,
            } => {
                let shown = ChangedUser { user: name, roles };
                answer::json_line(status(created), &shown, &self.grant)
            }
            Changed::Role {
                name,
                role,
                created,
            } => {
                let (name, role) = (name.clone(), role.clone());
                answer::json_line(status(created), &NamedRole { name, role }, &self.grant)
            }
        }
    }
}

/// A change of a user, as requested. The hash of the password is still missing.
struct WantedUser {
    change: Change,
    password: Option<String>,
}

fn put_user(api: &Api, request: &Request<'_>, name: &[u8], grant: &Grant, reply: Reply<'_>) {
    let WantedUser {
        change: wanted,
        password,
    } = match user_change(request, name) {
        Ok(wanted) => wanted,
        Err(message) => return refuse(api, 400, message, grant, reply),
    };
    let Some(password) = password else {
        return change(api, &wanted, grant, reply);
    };
    let (ticket, grant, shared) = (reply.later(), grant.clone(), api.shared());
    let then = move |hash: Result<Hash, Busy>| match hash {
        Ok(hash) => {
            let waiter = ChangeAnswer {
                ticket,
                cluster: shared.cluster.clone(),
                grant,
            };
            let wanted = with_hash(wanted, hash);
            shared.replica.change_auth(&wanted, Box::new(waiter));
        }
        Err(Busy) => ticket.send(access::busy(&shared, &grant)),
    };
    api.passwords.hash(password.into_bytes(), Box::new(then));
}

fn with_hash(mut change: Change, found: Hash) -> Change {
    match &mut change {
        Change::CreateUser { hash, .. }
        | Change::PutUser { hash, .. }
        | Change::UpdateUser { hash, .. } => *hash = Some(found),
        _ => unreachable!("only a user has a password"),
    }
    change
}

const INVALID_JSON: &str = "Invalid JSON in request body.";

impl From<Invalid> for &'static str {
    fn from(_: Invalid) -> &'static str {
        INVALID_JSON
    }
}

fn fields(request: &Request<'_>) -> Result<Fields, &'static str> {
    let body = request.body();
    if request.body_state() == BodyState::TooLarge || body.len() > JSON_BYTES_MAX {
        return Err("JSON in request body is too long.");
    }
    Ok(Fields::read(body)?)
}

fn user_change(request: &Request<'_>, name: &[u8]) -> Result<WantedUser, &'static str> {
    let mut fields = fields(request)?;
    let given = fields.text("user")?;
    let password = Some(fields.text("password")?).filter(|password| !password.is_empty());
    let roles = fields.texts("roles")?;
    let grant = fields.texts("grant")?.unwrap_or_default();
    let revoke = fields.texts("revoke")?.unwrap_or_default();
    if given.as_bytes() != name {
        return Err("User JSON name does not match the name in the URL");
    }
    let (name, hash) = (given, None);
    let has_roles = roles.as_ref().is_some_and(|roles| !roles.is_empty());
    let change = match (grant.is_empty() && revoke.is_empty(), has_roles) {
        (true, true) => Change::CreateUser { name, hash, roles },
        (true, false) => Change::PutUser { name, hash, roles },
        (false, true) => return Err("User JSON contains both roles and grant/revoke"),
        (false, false) => Change::UpdateUser {
            name,
            hash,
            grant,
            revoke,
        },
    };
    Ok(WantedUser { change, password })
}

fn role_change(request: &Request<'_>, name: &[u8]) -> Result<Change, &'static str> {
    let mut fields = fields(request)?;
    let given = fields.text("role")?;
    let permissions = permissions(fields.object("permissions", Null::Keeps)?)?.unwrap_or_default();
    let grant = permissions_of(&mut fields, "grant")?;
    let revoke = permissions_of(&mut fields, "revoke")?;
    if given.as_bytes() != name {
        return Err("Role JSON name does not match the name in the URL");
    }
    let is_empty = |list: &Option<Permissions>| list.as_ref().is_none_or(Permissions::is_empty);
    if !is_empty(&grant) || !is_empty(&revoke) {
        if !permissions.is_empty() {
            return Err("Role JSON contains both permissions and grant/revoke");
        }
        return Ok(Change::UpdateRole {
            name: given,
            grant,
            revoke,
        });
    }
    let mut role = Role::new(permissions);
    role.grant = grant.map(|kv| KeyPermissions { kv });
    role.revoke = revoke.map(|kv| KeyPermissions { kv });
    Ok(Change::CreateRole { name: given, role })
}

fn permissions_of(fields: &mut Fields, name: &str) -> Result<Option<Permissions>, Invalid> {
    permissions(fields.object(name, Null::Removes)?)
}

/// The permissions in an object with the field `kv`.
fn permissions(object: Option<Fields>) -> Result<Option<Permissions>, Invalid> {
    let Some(mut object) = object else {
        return Ok(None);
    };
    let mut kv = object.object("kv", Null::Keeps)?.unwrap_or_default();
    Ok(Some(Permissions {
        read: kv.texts("read")?,
        write: kv.texts("write")?,
    }))
}
