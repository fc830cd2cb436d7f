//! `edgetcdctl auth`: switches the access control of the cluster on and off. This module also has the code that `user`
//! and `role` share.
//!
//! All errors have status 1 and are printed without `Error:  `. The only exception: if no connection can be made in the
//! first step, which asks for all members, the error is reported as in all commands.
//!
//! A change is sent to a second endpoint only if no connection to the first could be made. The reference retries in
//! more cases, and would then report a change as refused that it has already made.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Stop;
use super::client::{Answer, Client, Failure};
use super::command::{Command, HELP, Run};
use super::secret::Secret;
use super::wire::{Ask, Body, Further, Method};

pub(super) const ALL: &[Command] = &[
    Command {
        name: "auth enable",
        arguments: "",
        what: "require a user and a password from now on (needs the user root)",
        examples: &["user add root", "auth enable"],
        options: &[HELP],
        run: enable,
    },
    Command {
        name: "auth disable",
        arguments: "",
        what: "allow everything to everybody again",
        examples: &["-u root auth disable"],
        options: &[HELP],
        run: disable,
    },
];

/// Notes for the help of these commands.
pub(super) const NOTES: &[(&str, &str)] = &[(
    "auth enable",
    "Requests without a user then have the rights of the role guest, which are at first read and write on all keys.\n\
     To take them away: edgetcdctl -u root role revoke --path '/*' --rw guest",
)];

const PATH: &str = "/v2/auth";

fn enable(run: &mut Run) -> Result<(), Stop> {
    switch(run, Method::Put, "Authentication Enabled")
}

fn disable(run: &mut Run) -> Result<(), Stop> {
    switch(run, Method::Delete, "Authentication Disabled")
}

fn switch(run: &mut Run, method: Method, done: &str) -> Result<(), Stop> {
    no_arguments(run)?;
    let client = connect(run)?;
    change(&client, method, "enable", Body::None)?;
    Ok(writeln!(run.world.stdout, "{done}")?)
}

pub(super) fn no_arguments(run: &Run) -> Result<(), Stop> {
    match run.parsed.args.is_empty() {
        true => Ok(()),
        false => Err(Stop::Plain("No arguments accepted".to_owned())),
    }
}

/// The name of a user or a role, which is the only argument.
pub(super) fn one_name(run: &Run, otherwise: &str) -> Result<String, Stop> {
    match &run.parsed.args[..] {
        [name] => Ok(name.clone()),
        _ => Err(Stop::Plain(otherwise.to_owned())),
    }
}

/// The path of a user or a role below `/v2/auth`. A name with a slash would be the path of something else, for example
/// of a key, so it is refused with the message of the server.
pub(super) fn path_of(kind: &str, name: &str) -> Result<String, Stop> {
    match name.contains('/') || [".", ".."].contains(&name) {
        false => Ok(format!("{kind}/{name}")),
        true => Err(Stop::Plain("Invalid path".to_owned())),
    }
}

/// As [`Run::connect`]. With `--debug`, etcdctl prints the endpoints once more.
pub(super) fn connect(run: &mut Run) -> Result<Client, Stop> {
    let client = run.connect()?;
    run.globals.tell_endpoints(&client, run.world.stderr)?;
    Ok(client)
}

/// A request that reads `path` below `/v2/auth`.
///
/// # Errors
/// The message of the server, or the reason why there is none.
pub(super) fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Stop> {
    match answer(client, &ask(path))? {
        Answer {
            status: 200, body, ..
        } => read(&body),
        refusal => Err(refused(&refusal)),
    }
}

/// Sends a change of `path` below `/v2/auth` and returns the body of the answer.
///
/// # Errors
/// The message of the server, or the reason why there is none.
pub(super) fn change(
    client: &Client,
    method: Method,
    path: &str,
    body: Body,
) -> Result<Vec<u8>, Stop> {
    changed(client, method, path, body).map(|answer| answer.body)
}

/// As [`change`], with the whole answer, whose status is 200, or 201 if something was created.
pub(super) fn changed(
    client: &Client,
    method: Method,
    path: &str,
    body: Body,
) -> Result<Answer, Stop> {
    let ask = Ask {
        method,
        body,
        further: Further::IfNotReached,
        ..ask(path)
    };
    match answer(client, &ask)? {
        answer @ Answer {
            status: 200 | 201, ..
        } => Ok(answer),
        refusal => Err(refused(&refusal)),
    }
}

pub(super) fn ask(path: &str) -> Ask {
    Ask::get(&format!("{PATH}/{path}"), vec![])
}

pub(super) fn answer(client: &Client, ask: &Ask) -> Result<Answer, Stop> {
    let answer = client.answer(ask);
    answer.map_err(|failure| Stop::Plain(failure.brief()))
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Stop> {
    serde_json::from_slice(body).map_err(|_| Stop::Plain(Failure::NoJson.to_string()))
}

/// An error response of the auth API.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// The server's error message.
fn refused(answer: &Answer) -> Stop {
    match read(&answer.body) {
        Ok(Refusal { message }) => Stop::Plain(message),
        Err(stop) => stop,
    }
}

/// A request body with a password, which `--debug` prints as `shown`.
pub(super) fn secret_body(json: String, shown: String) -> Body {
    Body::Secret {
        json: Secret::new(json),
        shown,
    }
}
