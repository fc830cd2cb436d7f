//! `edgetcdctl`: the same commands, output and exit statuses as etcdctl with API 2.
//!
//! It works with any server of the v2 API. A command line consists of global options, the command, its options and
//! its arguments. `globals` parses the first part, `args` the last two, and the table of `Command`s lists the
//! commands. A command builds an `Ask`, and the `Client` sends it to one endpoint after another. Unless `--no-sync`
//! is given, the client first asks the endpoints for the members of the cluster, and then uses all of them as
//! endpoints.
//!
//! | exit status | for |
//! |---|---|
//! | 0 | success |
//! | 1 | invalid arguments, a key that is a directory, most errors of `member`, `user`, `role` and `auth` |
//! | 2 | no connection to any endpoint could be made |
//! | 3 | the command does not exist |
//! | 4 | an error of the server, or no answer in time |
//! | 5 | `cluster-health`, `status`: not all members are healthy |
//!
//! Intended differences from etcdctl:
//!
//! * Help texts are our own and have examples.
//! * Endpoints are tried in the order in which they are given or listed, not in random order. The one that answered
//!   last is tried first.
//! * `http://` may be omitted.
//! * Requests that must be sent only once (a deletion, the creation of a key that must not exist) are still sent to
//!   the next endpoint if no connection could be made, because nothing was sent then.
//! * Arguments are checked before a server is asked.
//! * A value can be read from a file (`--file`).
//! * The program asks for a password on stderr.
//! * No password appears in the output of `--debug`, and none is sent to another server by a redirect.
//! * A name with a slash is refused in `user` and `role` before the request. There it is a path, also of a key.
//! * Characters that control a terminal are escaped in all output to a terminal (`screen`).
//! * A response may not be larger or slower than its command needs (`body`).
//! * `KEY -- COMMAND` of `exec-watch` needs no option before it.
//!
//! In addition to etcdctl: `status`, `get -r` and `ls --tree`, `watch --timestamps`, `export`, `import`, `mirror`,
//! `snapshot`, `wal`, `disk check`, `completion`, `man`, and colours on a terminal.
//!
//! Not supported: endpoints from DNS.
//!
//! # What a hostile server can do
//!
//! The v2 API has no signatures. So with `http`, an attacker on the network path to an endpoint can do the same. With
//! `https`, only a server with a certificate of the CA can, and an attacker can only end connections.
//!
//! | a hostile server | |
//! |---|---|
//! | can lie | about keys, values, indexes and members, and about the result of a write |
//! | can read | everything that is sent to it: keys, values, and the password of `--username` |
//! | can redirect the program | by a list of members (not with `--no-sync`) or by up to 10 redirects. The password is sent to the members, but not to the targets of redirects |
//! | can delay a command | up to its time limits: `--timeout` for each endpoint, `--total-timeout` for the command, and for each member that `status` and `cluster-health` ask. A watch waits for its event without a limit, which is its purpose |
//! | can use memory | up to the limit of the response (1 MiB for a page, 128 MiB for an event, `--answer-limit` for a listing), and for a listing about the same amount again while it is parsed |
//! | can use disk space | only in the output file of `export` or `snapshot save`, up to the limits above or the announced length |
//! | can choose values | that `exec-watch` passes to its command in the environment. That command must not trust them |
//! | cannot | make a command succeed with half a response, write other files, run a program, or control the terminal |

mod answer;
mod args;
mod auth;
mod base64;
mod body;
mod check;
mod client;
mod command;
mod completion;
mod disk;
mod disk_measure;
mod download;
mod endpoint;
mod entry;
mod globals;
mod health;
mod help;
mod keys;
mod man;
mod member;
mod metrics;
mod mirror;
mod paint;
mod part_file;
mod payload;
mod progress;
mod proxy;
mod restore;
mod role;
mod screen;
mod secret;
mod snapshot;
mod status;
mod table;
mod terminal;
mod tls;
mod transfer;
mod tree;
mod user;
mod wal;
mod wal_dump;
mod watch;
mod wire;

use std::io::{ErrorKind, Write};

pub use self::command::World;

use self::client::Failure;
use self::command::{Command, HELP, Run};
use self::globals::{GLOBAL_OPTIONS, Globals};
use self::screen::Screen;

/// The reason why a command failed.
#[derive(Debug)]
enum Stop {
    /// Status 1. The text is printed as it is.
    Plain(String),
    /// Status 1. The text is printed after `Error:  `.
    Usage(String),
    /// Status 1: options that cannot be parsed. `head` and the help go to stdout.
    Misuse {
        head: &'static str,
        text: String,
        help: String,
    },
    NoSuchCommand(String),
    /// No connection could be made in the first step, which asks for the members.
    Unconnected(Failure),
    Failed(Failure),
    /// As `Failed`, with our own message.
    NotServed(String),
    /// As `Failed`, with the key concerned.
    FailedAt(String, Failure),
    /// Not all members are healthy. The command has printed the details.
    Unhealthy,
    /// The command has printed the error. Only the status remains.
    Reported(u8),
    /// The output could not be written, for example into a closed pipe.
    Output(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        Stop::Output(error)
    }
}

impl Stop {
    fn misuse(text: String) -> Stop {
        Stop::Misuse {
            head: "",
            text,
            help: String::new(),
        }
    }

    /// Sets the start of the message and the help. etcdctl prints a dot for wrong options of the program and of a
    /// group, and a colon for those of a command.
    fn with_help(self, new_head: &'static str, new_help: impl FnOnce() -> String) -> Stop {
        match self {
            Stop::Misuse { text, .. } => Stop::Misuse {
                head: new_head,
                text,
                help: new_help(),
            },
            other => other,
        }
    }

    fn status(&self) -> u8 {
        match self {
            Stop::Plain(_) | Stop::Usage(_) | Stop::Misuse { .. } | Stop::Output(_) => 1,
            Stop::Unconnected(_) => 2,
            Stop::NoSuchCommand(_) => 3,
            Stop::Failed(_) | Stop::NotServed(_) | Stop::FailedAt(..) => 4,
            Stop::Unhealthy => 5,
            Stop::Reported(status) => *status,
        }
    }

    fn text(&self) -> String {
        match self {
            Stop::Plain(text) | Stop::Misuse { text, .. } => text.clone(),
            Stop::Usage(text) | Stop::NotServed(text) => format!("Error:  {text}"),
            Stop::NoSuchCommand(name) => format!("No help topic for '{name}'"),
            Stop::Unconnected(failure) | Stop::Failed(failure) => format!("Error:  {failure}"),
            Stop::FailedAt(key, failure) => format!("Error:  {key}: {failure}"),
            Stop::Unhealthy | Stop::Reported(_) => String::new(),
            Stop::Output(error) => format!("Error:  cannot write the output: {error}"),
        }
    }

    fn print(&self, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<()> {
        if let Stop::Misuse { head, text, help } = self {
            write!(out, "{head} {text}\n\n{help}")?;
        }
        match self {
            Stop::Unhealthy | Stop::Reported(_) => Ok(()),
            // The reader has closed the pipe on purpose, as `head` does.
            Stop::Output(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            _ => writeln!(err, "{}", self.text()),
        }
    }
}

/// Stack size that [`run`] needs, because a listing is parsed recursively, one level per directory.
pub const STACK_BYTES: usize = 64 << 20;

/// Runs one command line (without the program's name) and returns the exit status.
pub fn run(args: &[String], world: &mut World) -> u8 {
    let mut stdout = screened(world.stdout, world.stdout_is_terminal);
    let mut stderr = screened(world.stderr, world.stderr_is_terminal);
    let mut world = World {
        env: world.env,
        stdin: &mut *world.stdin,
        stdout: &mut *stdout,
        stderr: &mut *stderr,
        ..*world
    };
    run_in(args, &mut world)
}

/// Wraps an output stream: on a terminal, characters that control it are escaped.
fn screened<'a>(out: &'a mut dyn Write, is_terminal: bool) -> Box<dyn Write + 'a> {
    match is_terminal {
        true => Box::new(Screen::new(out)),
        false => Box::new(out),
    }
}

fn run_in(args: &[String], world: &mut World) -> u8 {
    match dispatch(args, world) {
        Ok(()) => 0,
        Err(stop) => {
            // If stdout or stderr is closed, only the status can report the error.
            let _ = stop.print(world.stdout, world.stderr);
            stop.status()
        }
    }
}

fn dispatch(args: &[String], world: &mut World) -> Result<(), Stop> {
    let (global, rest) = args::leading(args, GLOBAL_OPTIONS)
        .map_err(|stop| stop.with_help("Incorrect Usage.", help_of_all))?;
    if global.flag("version") {
        return version(world.stdout);
    }
    if global.flag("help") {
        return print(&help_of_all(), world);
    }
    let (name, rest) = match rest {
        [name, rest @ ..] if name == "help" || name == "h" => return help(rest, world),
        [name, rest @ ..] => (name, rest),
        [] => return print(&help_of_all(), world),
    };
    let Some((command, rest)) = find(name, rest)? else {
        return print(&help::of_group(name, group(name)), world);
    };
    let parsed = args::all(rest, command.options)
        .map_err(|stop| stop.with_help("Incorrect Usage:", || help::of_command(command)))?;
    if parsed.flag("help") {
        return print(&help::of_command(command), world);
    }
    let globals = Globals::new(&global, world)?;
    (command.run)(&mut Run {
        globals: &globals,
        parsed: &parsed,
        world,
    })
}

fn print(text: &str, world: &mut World) -> Result<(), Stop> {
    Ok(world.stdout.write_all(text.as_bytes())?)
}

fn version(out: &mut dyn Write) -> Result<(), Stop> {
    writeln!(out, "etcdctl version: {}", crate::ETCD_VERSION)?;
    writeln!(out, "edgetcdctl version: {}", env!("CARGO_PKG_VERSION"))?;
    Ok(writeln!(out, "API version: 2")?)
}

fn help_of_all() -> String {
    help::of_all(all_commands())
}

/// `help`, `help COMMAND` and `help GROUP COMMAND`.
fn help(words: &[String], world: &mut World) -> Result<(), Stop> {
    let text = match words {
        [] => help_of_all(),
        [name, rest @ ..] => match find(name, rest)? {
            Some((command, _)) => help::of_command(command),
            None => help::of_group(name, group(name)),
        },
    };
    print(&text, world)
}

/// All commands, in the order of the help.
fn all_commands() -> impl Iterator<Item = &'static Command> {
    let tables = [
        keys::ALL,
        watch::ALL,
        health::ALL,
        status::ALL,
        member::ALL,
        user::ALL,
        role::ALL,
        auth::ALL,
        transfer::ALL,
        mirror::ALL,
        snapshot::ALL,
        restore::ALL,
        wal::ALL,
        disk::ALL,
        completion::ALL,
        man::ALL,
    ];
    tables.into_iter().flatten()
}

/// Those named `GROUP …`.
fn group(name: &str) -> impl Iterator<Item = &'static Command> {
    all_commands().filter(move |command| {
        let words = command.name.split_once(' ');
        words.is_some_and(|(group, _)| group == name)
    })
}

/// Returns the command of this name and the remaining words. None if the user asked for the help of a group.
fn find<'a>(
    name: &str,
    rest: &'a [String],
) -> Result<Option<(&'static Command, &'a [String])>, Stop> {
    let unknown = |name: &str| Stop::NoSuchCommand(name.to_owned());
    if group(name).next().is_none() {
        let found = all_commands().find(|command| command.name == name);
        let found = found.filter(|command| !command.name.contains(' '));
        return Ok(Some((found.ok_or_else(|| unknown(name))?, rest)));
    }
    let help_of_group = || help::of_group(name, group(name));
    let (options, rest) = args::leading(rest, &[HELP])
        .map_err(|stop| stop.with_help("Incorrect Usage.", help_of_group))?;
    match rest {
        [sub, rest @ ..] if !options.flag("help") && sub != "help" && sub != "h" => {
            let full = format!("{name} {sub}");
            let found = group(name).find(|command| command.name == full);
            Ok(Some((found.ok_or_else(|| unknown(sub))?, rest)))
        }
        _ => Ok(None),
    }
}
