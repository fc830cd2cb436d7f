//! `edgetcdctl role`: lists and changes the roles of the cluster. See `auth` for the errors.

use serde::{Deserialize, Serialize};

use super::Stop;
use super::answer::to_json;
use super::args::Opt;
use super::auth::{answer, ask, change, connect, get, no_arguments, one_name, path_of, read};
use super::command::{Command, HELP, Run};
use super::wire::{Body, Method};

const PATH: Opt = Opt::text(
    &["path"],
    "a key, or with * at its end all keys that begin so",
);
const READ: Opt = Opt::flag(&["read"], "reading and watching");
const WRITE: Opt = Opt::flag(&["write"], "all changes");
const READ_WRITE: Opt = Opt::flag(&["readwrite", "rw"], "both");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "role add",
        arguments: "NAME",
        what: "add a role without permissions",
        examples: &["-u root role add reader"],
        options: &[HELP],
        run: add,
    },
    Command {
        name: "role list",
        arguments: "",
        what: "list the names of all roles",
        examples: &["-u root role list"],
        options: &[HELP],
        run: list,
    },
    Command {
        name: "role get",
        arguments: "NAME",
        what: "print the permissions of a role",
        examples: &["-u root role get reader"],
        options: &[HELP],
        run: print_one,
    },
    Command {
        name: "role remove",
        arguments: "NAME",
        what: "remove a role",
        examples: &["-u root role remove reader"],
        options: &[HELP],
        run: remove,
    },
    Command {
        name: "role grant",
        arguments: "NAME",
        what: "allow a role to read or write keys",
        examples: &["-u root role grant --path '/config/*' --read reader"],
        options: &[PATH, READ, WRITE, READ_WRITE, HELP],
        run: grant,
    },
    Command {
        name: "role revoke",
        arguments: "NAME",
        what: "take such a permission from a role",
        examples: &["-u root role revoke --path '/*' --rw guest"],
        options: &[PATH, READ, WRITE, READ_WRITE, HELP],
        run: revoke,
    },
];

pub(super) const NOTES: &[(&str, &str)] = &[(
    "role grant",
    "/config/* is for all keys below /config, but not for /config itself, and --recursive needs a path with *.",
)];

const NAME_REQUIRED: &str = "Please provide a role name";

fn named(run: &Run) -> Result<(String, String), Stop> {
    let name = one_name(run, NAME_REQUIRED)?;
    if name.is_empty() {
        return Err(Stop::Plain(NAME_REQUIRED.to_owned()));
    }
    let path = path_of("roles", &name)?;
    Ok((name, path))
}

/// A role as the server sends it, and the body of a change. The fields are in the order of etcdctl, which `--debug`
/// shows.
#[derive(Default, PartialEq, Deserialize, Serialize)]
struct Role {
    role: String,
    permissions: Permissions,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    grant: Option<Permissions>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    revoke: Option<Permissions>,
}

#[derive(Default, PartialEq, Deserialize, Serialize)]
struct Permissions {
    kv: Keys,
}

/// A list that is `null` differs from an empty one, because etcdctl compares them so.
#[derive(Default, PartialEq, Deserialize, Serialize)]
struct Keys {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Roles {
    roles: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    role: String,
}

fn list(run: &mut Run) -> Result<(), Stop> {
    no_arguments(run)?;
    let client = connect(run)?;
    let answer = answer(&client, &ask("roles"))?;
    if answer.status != 200 {
        // Only here, etcdctl prints the status and not the server's message.
        let text = format!("unexpected status code {}", answer.status);
        return Err(Stop::Plain(text));
    }
    let Roles { roles } = read(&answer.body)?;
    for Named { role } in roles.unwrap_or_default() {
        writeln!(run.world.stdout, "{role}")?;
    }
    Ok(())
}

fn print_one(run: &mut Run) -> Result<(), Stop> {
    let (_, path) = named(run)?;
    let client = connect(run)?;
    let Role {
        role, permissions, ..
    } = get(&client, &path)?;
    let out = &mut run.world.stdout;
    writeln!(out, "Role: {role}")?;
    let Keys { read, write } = permissions.kv;
    for (title, keys) in [("KV Read:", read), ("KV Write:", write)] {
        writeln!(out, "{title}")?;
        for key in keys.unwrap_or_default() {
            writeln!(out, "\t{key}")?;
        }
    }
    Ok(())
}

/// Asks first whether the role exists, for etcdctl's message. The server also refuses to add it again.
fn add(run: &mut Run) -> Result<(), Stop> {
    let (name, path) = named(run)?;
    let client = connect(run)?;
    if answer(&client, &ask(&path)).is_ok_and(|answer| answer.status == 200) {
        return Err(Stop::Plain(format!("Role {name} already exists")));
    }
    let new = Role {
        role: name.clone(),
        ..Role::default()
    };
    change(&client, Method::Put, &path, Body::Json(to_json(&new)?))?;
    Ok(writeln!(run.world.stdout, "Role {name} created")?)
}

fn remove(run: &mut Run) -> Result<(), Stop> {
    let (name, path) = named(run)?;
    change(&connect(run)?, Method::Delete, &path, Body::None)?;
    Ok(writeln!(run.world.stdout, "Role {name} removed")?)
}

fn grant(run: &mut Run) -> Result<(), Stop> {
    let grant = Some(permission(run)?);
    let what = Role {
        grant,
        ..Role::default()
    };
    change_permission(run, what, "Role unchanged; already granted")
}

fn revoke(run: &mut Run) -> Result<(), Stop> {
    let revoke = Some(permission(run)?);
    let what = Role {
        revoke,
        ..Role::default()
    };
    change_permission(run, what, "Role unchanged; already revoked")
}

fn change_permission(run: &mut Run, what: Role, unchanged: &str) -> Result<(), Stop> {
    let (name, path) = named(run)?;
    let client = connect(run)?;
    let before: Role = get(&client, &path)?;
    let body = to_json(&Role {
        role: name.clone(),
        ..what
    })?;
    let changed = change(&client, Method::Put, &path, Body::Json(body))?;
    let after: Role = read(&changed)?;
    if after == before {
        // Without a newline, as in etcdctl.
        write!(run.world.stdout, "{unchanged}")?;
    }
    Ok(writeln!(run.world.stdout, "Role {name} updated")?)
}

/// `--path`, which the server compares with keys letter by letter.
fn checked_key(run: &Run) -> Result<String, Stop> {
    let key = run.parsed.text("path").unwrap_or_default();
    if key.is_empty() {
        let text = "No path specified; please use `--path`";
        return Err(Stop::Plain(text.to_owned()));
    }
    match canonical(key) {
        clean if clean == key => Ok(clean),
        clean => Err(Stop::Plain(format!(
            "Not canonical path; please use `--path={clean}`"
        ))),
    }
}

/// As etcd's `CanonicalURLPath`: with a slash in front, without empty parts, `.` and `..`. A slash at the end stays.
fn canonical(key: &str) -> String {
    match super::wire::clean(key) {
        clean if clean.is_empty() => "/".to_owned(),
        clean => clean,
    }
}

/// The permission that the options select.
fn permission(run: &Run) -> Result<Permissions, Stop> {
    let key = checked_key(run)?;
    let given = ["read", "write", "readwrite"].map(|flag| run.parsed.flag(flag));
    let (read, write) = match given {
        [true, false, false] => (true, false),
        [false, true, false] => (false, true),
        [false, false, true] => (true, true),
        _ => {
            let text = "Please specify exactly one of --read, --write or --readwrite";
            return Err(Stop::Plain(text.to_owned()));
        }
    };
    let listed = |given: bool| given.then(|| vec![key.clone()]);
    let (read, write) = (listed(read), listed(write));
    Ok(Permissions {
        kv: Keys { read, write },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_canonical_as_in_etcd() {
        let table = [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/a/", "/a/"),
            ("/a//b/../*", "/a/*"),
            ("/..", "/"),
        ];
        for (given, expected) in table {
            assert_eq!(canonical(given), expected, "{given:?}");
        }
    }
}
