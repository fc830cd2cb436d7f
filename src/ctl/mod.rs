//! `edgetcdctl`, for those who know etcdctl's API 2: the same commands, output and exit statuses.
//!
//! It talks to any server of the v2 API. What stands here is the part that everybody uses: `get`,
//! `set`, `ls`, `rm`, `mkdir`, `watch`, in the output format `simple`.
//!
//! | exit status | for |
//! |---|---|
//! | 0 | done |
//! | 1 | bad arguments, a key that is a directory |
//! | 2 | no endpoint could be connected to |
//! | 3 | no such command |
//! | 4 | an error of the server, or no answer in time |
//!
//! Left out, compared with etcdctl: asking the endpoints for further members first (so it stays
//! with the endpoints it was given), a user and password, TLS, the formats `extended` and `json`.

mod args;
mod client;
mod commands;

use std::io::{Read, Write};

use self::args::{Opt, Parsed};
use self::client::{Client, Failure};
use self::commands::Run;

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
    let command = commands::ALL
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| Stop::NoSuchCommand(name.clone()))?;
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
        stdin,
        out: stdout,
    })
}

fn endpoints(global: &Parsed, from_env: Option<&str>) -> String {
    let from_env = from_env.filter(|text| !text.is_empty());
    global
        .value("endpoints")
        .or(from_env)
        .unwrap_or(DEFAULT_ENDPOINTS)
        .to_owned()
}

fn help() -> String {
    let mut out = String::from(
        "edgetcdctl: a command line client for the v2 API of etcd\n\n\
         Usage:\n  edgetcdctl [global options] command [options] [arguments]\n\nCommands:\n",
    );
    for command in commands::ALL {
        out += &format!("  {:<8}{}\n", command.name, command.what);
    }
    out += "\nGlobal options:\n";
    GLOBAL_OPTIONS
        .iter()
        .for_each(|option| out += &option.help());
    out += "\nThe variable ETCDCTL_ENDPOINTS stands for --endpoints.\n\n\
            Example:\n  edgetcdctl set /message Hello\n  edgetcdctl get /message\n";
    out
}
