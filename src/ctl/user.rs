//! `edgetcdctl user`: lists and changes the users of the cluster. See `auth` for the errors.

use serde::{Deserialize, Serialize};

use super::Stop;
use super::answer::to_json;
use super::args::Opt;
use super::auth::{change, changed, connect, get, no_arguments, one_name, path_of, secret_body};
use super::command::{Command, HELP, Run};
use super::terminal;
use super::wire::{Body, Method};

const ROLES: Opt = Opt::text(&["roles"], "a role; may be given several times");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "user add",
        arguments: "NAME[:PASSWORD]",
        what: "add a user; asks for the password if it is omitted",
        examples: &["user add root", "-u root user add alice"],
        options: &[HELP],
        run: add,
    },
    Command {
        name: "user list",
        arguments: "",
        what: "list the names of all users",
        examples: &["-u root user list"],
        options: &[HELP],
        run: list,
    },
    Command {
        name: "user get",
        arguments: "NAME",
        what: "print the roles of a user",
        examples: &["-u root user get alice"],
        options: &[HELP],
        run: print_one,
    },
    Command {
        name: "user remove",
        arguments: "NAME",
        what: "remove a user",
        examples: &["-u root user remove alice"],
        options: &[HELP],
        run: remove,
    },
    Command {
        name: "user passwd",
        arguments: "NAME",
        what: "ask for a new password of a user",
        examples: &["-u root user passwd alice"],
        options: &[HELP],
        run: passwd,
    },
    Command {
        name: "user grant",
        arguments: "NAME",
        what: "give roles to a user",
        examples: &["-u root user grant --roles reader --roles writer alice"],
        options: &[ROLES, HELP],
        run: grant,
    },
    Command {
        name: "user revoke",
        arguments: "NAME",
        what: "take roles from a user",
        examples: &["-u root user revoke --roles writer alice"],
        options: &[ROLES, HELP],
        run: revoke,
    },
];

pub(super) const NOTES: &[(&str, &str)] = &[
    (
        "user add",
        "If the user exists, this sets the password, as in etcdctl. Other users of this machine can see a password\n\
         in the arguments of a program, so let it ask. A password in a pipe is the next line of stdin.",
    ),
    (
        "user grant",
        "A name with a comma is one role, as in etcdctl: repeat --roles.",
    ),
];

const USERNAME_REQUIRED: &str = "Please provide a username";
const QUESTION: &str = "New password: ";

fn named(run: &Run) -> Result<(String, String), Stop> {
    let name = one_name(run, USERNAME_REQUIRED)?;
    let path = path_of_user(&name)?;
    Ok((name, path))
}

fn path_of_user(name: &str) -> Result<String, Stop> {
    match name.is_empty() {
        true => Err(Stop::Plain(USERNAME_REQUIRED.to_owned())),
        false => path_of("users", name),
    }
}

fn add(run: &mut Run) -> Result<(), Stop> {
    let given = one_name(run, USERNAME_REQUIRED)?;
    let (name, password) = match given.split_once(':') {
        Some((name, password)) => (name, Some(password.to_owned())),
        None => (given.as_str(), None),
    };
    let path = path_of_user(name)?;
    let client = connect(run)?;
    let password = match password {
        Some(password) => password,
        None => ask_password(run)?,
    };
    change(&client, Method::Put, &path, with_password(name, &password)?)?;
    Ok(writeln!(run.world.stdout, "User {name} created")?)
}

fn passwd(run: &mut Run) -> Result<(), Stop> {
    let (name, path) = named(run)?;
    let client = connect(run)?;
    let body = with_password(&name, &ask_password(run)?)?;
    match changed(&client, Method::Put, &path, body)?.status {
        // The request is the same as that of `user add`. etcdctl fails here too, without a text.
        201 => Err(Stop::Plain(format!(
            "User {name} did not exist and was created. To undo that, type: edgetcdctl user remove {name}"
        ))),
        _ => Ok(writeln!(run.world.stdout, "Password updated")?),
    }
}

fn ask_password(run: &mut Run) -> Result<String, Stop> {
    terminal::ask_password(QUESTION, run.world)
        .map_err(|error| Stop::Plain(format!("Error reading password: {error}")))
}

/// The body of a change. The fields are in the order of etcdctl, which `--debug` shows.
#[derive(Default, Serialize)]
struct Change<'a> {
    user: &'a str,
    /// An empty password is omitted, as in etcdctl. The server refuses it for a new user.
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    /// Always `null`: the whole list of roles is never replaced.
    roles: Option<()>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    grant: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    revoke: &'a [String],
}

fn with_password(user: &str, password: &str) -> Result<Body, Stop> {
    let body = |password| {
        to_json(&Change {
            user,
            password,
            ..Change::default()
        })
    };
    let shown = if password.is_empty() { "" } else { "…" };
    Ok(secret_body(body(password)?, body(shown)?))
}

#[derive(Deserialize)]
struct Users {
    /// `null` if there are none.
    users: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    user: String,
}

fn list(run: &mut Run) -> Result<(), Stop> {
    no_arguments(run)?;
    let client = connect(run)?;
    let Users { users } = get(&client, "users")?;
    for Named { user } in users.unwrap_or_default() {
        writeln!(run.world.stdout, "{user}")?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct User {
    user: String,
    #[serde(default)]
    roles: Option<Vec<Role>>,
}

#[derive(Deserialize)]
struct Role {
    role: String,
}

fn print_one(run: &mut Run) -> Result<(), Stop> {
    let (_, path) = named(run)?;
    let client = connect(run)?;
    let User { user, roles } = get(&client, &path)?;
    let roles = roles.unwrap_or_default();
    // etcdctl prints an empty name in front for each role.
    let empty = roles.iter().map(|_| "");
    let names = roles.iter().map(|role| role.role.as_str());
    let roles: Vec<&str> = empty.chain(names).collect();
    writeln!(run.world.stdout, "User: {user}")?;
    Ok(writeln!(run.world.stdout, "Roles: {}", roles.join(" "))?)
}

fn remove(run: &mut Run) -> Result<(), Stop> {
    let (name, path) = named(run)?;
    change(&connect(run)?, Method::Delete, &path, Body::None)?;
    Ok(writeln!(run.world.stdout, "User {name} removed")?)
}

fn grant(run: &mut Run) -> Result<(), Stop> {
    change_roles(run, |user, grant| Change {
        user,
        grant,
        ..Change::default()
    })
}

fn revoke(run: &mut Run) -> Result<(), Stop> {
    change_roles(run, |user, revoke| Change {
        user,
        revoke,
        ..Change::default()
    })
}

fn change_roles(
    run: &mut Run,
    body: for<'a> fn(&'a str, &'a [String]) -> Change<'a>,
) -> Result<(), Stop> {
    let roles: Vec<String> = run.parsed.texts("roles").map(str::to_owned).collect();
    if roles.is_empty() {
        let text = "No roles specified; please use `--roles`";
        return Err(Stop::Plain(text.to_owned()));
    }
    let (name, path) = named(run)?;
    let body = Body::Json(to_json(&body(&name, &roles))?);
    change(&connect(run)?, Method::Put, &path, body)?;
    Ok(writeln!(run.world.stdout, "User {name} updated")?)
}
