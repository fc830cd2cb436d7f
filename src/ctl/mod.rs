//! `edgetcdctl`, for those who know etcdctl's API 2: the same commands, output and exit statuses.
//!
//! It talks to any server of the v2 API. What stands here is the part that everybody uses: `get`,
//! `set`, `ls`, `rm`, `mkdir`, `watch`, in the output format `simple`, and what a cluster's members
//! are changed by: `member list`, `member add`, `member remove`, `member update`.
//!
//! | exit status | for |
//! |---|---|
//! | 0 | done |
//! | 1 | bad arguments, a key that is a directory, most errors of `member` |
//! | 2 | no endpoint could be connected to |
//! | 3 | no such command |
//! | 4 | an error of the server, or no answer in time |
//!
//! Left out, compared with etcdctl: asking the endpoints for further members first (so it stays
//! with the endpoints it was given), a user and password, TLS, the formats `extended` and `json`.

mod args;
mod client;
mod commands;
mod member;

use std::io::{Read, Write};

use self::args::{Opt, Parsed};
use self::client::{Client, Failure};
use self::commands::{Command, HELP, Run};

const GLOBAL_OPTIONS: &[Opt] = &[
    Opt::value(
        &["endpoints"],
        "comma list of servers, http://HOST:PORT each",
    ),
    Opt::flag(
        &["no-sync"],
        "accepted: only the endpoints given are used anyway",
    ),
    Opt::flag(&["version", "v"], "print the version"),
    Opt::flag(&["help", "h"], "print this"),
];

const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

/// Why a command ended without doing what it was to do.
#[derive(Debug)]
enum Stop {
    /// Status 1, the text as it is.
    Plain(String),
    /// Status 1, behind `Error:  `.
    Usage(String),
    NoSuchCommand(String),
    Failed(Failure),
    /// What was to be printed could not be, such as into a closed pipe.
    Output(std::io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Output(error)
    }
}

impl Stop {
    fn status(&self) -> u8 {
        match self {
            Stop::Plain(_) | Stop::Usage(_) | Stop::Output(_) => 1,
            Stop::NoSuchCommand(_) => 3,
            Stop::Failed(failure) => failure.status(),
        }
    }

    fn text(&self) -> String {
        match self {
            Stop::Plain(text) => text.clone(),
            Stop::Usage(text) => format!("Error:  {text}"),
            Stop::NoSuchCommand(name) => format!("No help topic for '{name}'"),
            Stop::Failed(failure) => format!("Error:  {failure}"),
            Stop::Output(error) => format!("Error:  writing the output: {error}"),
        }
    }
}

/// Runs one command line, without the program's name, and returns the exit status.
/// `env_endpoints` is `ETCDCTL_ENDPOINTS`.
pub fn run(
    args: &[String],
    env_endpoints: Option<&str>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    match dispatch(args, env_endpoints, stdin, stdout) {
        Ok(()) => 0,
        Err(stop) => {
            // With stderr gone, the status is all that is left to say.
            let _ = writeln!(stderr, "{}", stop.text());
            stop.status()
        }
    }
}

fn dispatch(
    args: &[String],
    env_endpoints: Option<&str>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> Result<(), Stop> {
    let (global, rest) = args::leading(args, GLOBAL_OPTIONS)?;
    if global.flag("version") {
        writeln!(stdout, "etcdctl version: {}", crate::ETCD_VERSION)?;
        writeln!(stdout, "edgetcdctl version: {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(writeln!(stdout, "API version: 2")?);
    }
    let (name, rest) = match rest {
        [name, rest @ ..] if !global.flag("help") && name != "help" && name != "h" => (name, rest),
        _ => return Ok(stdout.write_all(help().as_bytes())?),
    };
    let Some((command, rest)) = find(name, rest)? else {
        return Ok(stdout.write_all(group_help(name).as_bytes())?);
    };
    let parsed = args::all(rest, command.options)
        .map_err(|stop| Stop::Plain(format!("{}\n{}", stop.text(), command.usage())))?;
    if parsed.flag("help") {
        return Ok(writeln!(stdout, "{}", command.usage())?);
    }
    let client = Client::new(&endpoints(&global, env_endpoints))
        .map_err(|error| Stop::Usage(error.to_string()))?;
    (command.run)(&mut Run {
        client: &client,
        parsed: &parsed,
        no_sync: global.flag("no-sync"),
        stdin,
        out: stdout,
    })
}

fn all_commands() -> impl Iterator<Item = &'static Command> {
    commands::ALL.iter().chain(member::ALL)
}

/// Those named `GROUP …`.
fn group(name: &str) -> impl Iterator<Item = &'static Command> {
    all_commands().filter(move |command| {
        let words = command.name.split_once(' ');
        words.is_some_and(|(group, _)| group == name)
    })
}

/// The command of this name and the words behind it; none where the help of a group is asked for.
fn find<'a>(
    name: &str,
    rest: &'a [String],
) -> Result<Option<(&'static Command, &'a [String])>, Stop> {
    let unknown = |name: &str| Stop::NoSuchCommand(name.to_owned());
    if group(name).next().is_none() {
        let mut single = commands::ALL.iter();
        let found = single.find(|command| command.name == name);
        return Ok(Some((found.ok_or_else(|| unknown(name))?, rest)));
    }
    let (options, rest) = args::leading(rest, &[HELP])
        .map_err(|stop| Stop::Plain(format!("{}\n{}", stop.text(), group_help(name).trim_end())))?;
    match rest {
        [sub, rest @ ..] if !options.flag("help") && sub != "help" && sub != "h" => {
            let full = format!("{name} {sub}");
            let found = group(name).find(|command| command.name == full);
            Ok(Some((found.ok_or_else(|| unknown(sub))?, rest)))
        }
        _ => Ok(None),
    }
}

fn endpoints(global: &Parsed, from_env: Option<&str>) -> String {
    let from_env = from_env.filter(|text| !text.is_empty());
    global
        .value("endpoints")
        .or(from_env)
        .unwrap_or(DEFAULT_ENDPOINTS)
        .to_owned()
}

fn group_help(name: &str) -> String {
    let mut out = format!("Usage: edgetcdctl {name} COMMAND [options] [arguments]\n\nCommands:\n");
    group(name).for_each(|command| out += &help_line(command));
    out
}

fn help_line(command: &Command) -> String {
    format!("  {:<15}{}\n", command.name, command.what)
}

fn help() -> String {
    let mut out = String::from(
        "edgetcdctl: a command line client for the v2 API of etcd\n\n\
         Usage:\n  edgetcdctl [global options] command [options] [arguments]\n\nCommands:\n",
    );
    all_commands().for_each(|command| out += &help_line(command));
    out += "\nGlobal options:\n";
    GLOBAL_OPTIONS
        .iter()
        .for_each(|option| out += &option.help());
    out += "\nThe variable ETCDCTL_ENDPOINTS stands for --endpoints.\n\n\
            Example:\n  edgetcdctl set /message Hello\n  edgetcdctl get /message\n";
    out
}
