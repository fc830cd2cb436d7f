//! Commands that wait for events, to print them or to run a command.
//!
//! Ctrl-C is the normal way to end them, so it gives status 0.

use std::process::Command as Process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;

use super::answer::{Event, to_json};
use super::args::Opt;
use super::client::{Client, Failure};
use super::command::{Command, HELP, Run};
use super::paint::Paint;
use super::wire::Ask;
use super::{Stop, terminal};

const RECURSIVE: Opt = Opt::flag(&["recursive", "r"], "include everything below");
const AFTER_INDEX: Opt = Opt::number(&["after-index"], "changes after this index");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "watch",
        arguments: "KEY",
        what: "wait for a change and print it",
        examples: &[
            "watch /message",
            "watch -r -f --timestamps /services",
            "watch --after-index 1000 /message",
        ],
        options: &[
            RECURSIVE,
            Opt::flag(&["forever", "f"], "print every change, until Ctrl-C"),
            AFTER_INDEX,
            Opt::flag(
                &["timestamps"],
                "print the time of receipt (UTC) before each change",
            ),
            HELP,
        ],
        run: watch,
    },
    Command {
        name: "exec-watch",
        arguments: "KEY -- COMMAND [ARGUMENTS] | COMMAND [ARGUMENTS] KEY",
        what: "run a command for every change",
        examples: &[
            "exec-watch -r /services -- sh -c 'echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY'",
            "exec-watch ./reload /config",
        ],
        options: &[RECURSIVE, AFTER_INDEX, HELP],
        run: exec_watch,
    },
];

/// The shortest time between two polls if the first one brought no event.
const POLL_TIME_MIN: Duration = Duration::from_secs(1);

/// Receives the events of a key in order, without duplicates.
pub(super) struct Watch<'a> {
    client: &'a Client,
    key: &'a str,
    recursive: bool,
    next: u64,
}

impl<'a> Watch<'a> {
    /// `after`: only events after this index. 0: from now on.
    pub fn new(client: &'a Client, key: &'a str, recursive: bool, after: u64) -> Watch<'a> {
        let next = if after == 0 { 0 } else { after.wrapping_add(1) };
        Watch {
            client,
            key,
            recursive,
            next,
        }
    }

    /// Waits for the next event. If a server ends a poll without an event, polls again, but not more often than every
    /// [`POLL_TIME_MIN`]: a server that ends each poll at once must not keep this machine busy.
    pub fn next(&mut self) -> Result<Event, Failure> {
        let ask = Ask::watch(
            self.key,
            vec![
                ("recursive", self.recursive.to_string()),
                ("wait", "true".to_owned()),
                ("waitIndex", self.next.to_string()),
            ],
        );
        loop {
            let begun = Instant::now();
            match self.client.send(&ask) {
                Err(Failure::Empty) => thread::sleep(POLL_TIME_MIN.saturating_sub(begun.elapsed())),
                Err(failure) => return Err(failure),
                Ok(event) => {
                    self.next = event.node.modified_index.saturating_add(1);
                    return Ok(event);
                }
            }
        }
    }
}

/// Status with which etcdctl ends as process 1, if a signal ends it.
const ENDED_BY_SIGNAL: i32 = 2;

/// From now on, Ctrl-C ends the program with status 0. The other signals keep their usual action, which is to end the
/// program. Process 1 of a container has no usual actions, so there they need handlers.
pub(super) fn end_well_on_interrupt() -> Result<(), Stop> {
    let armed = Arc::new(AtomicBool::new(true));
    register_conditional_shutdown(SIGINT, 0, armed.clone())?;
    terminal::leave_signals(&[SIGINT]);
    if std::process::id() == 1 {
        let others = [SIGTERM, SIGHUP, SIGQUIT];
        terminal::leave_signals(&others);
        for signal in others {
            register_conditional_shutdown(signal, ENDED_BY_SIGNAL, armed.clone())?;
        }
    }
    Ok(())
}

fn after_index(run: &Run) -> u64 {
    let given = run.parsed.number("after-index");
    given.unwrap_or(0).cast_unsigned()
}

/// Skips events of directories, as etcdctl does.
fn watch(run: &mut Run) -> Result<(), Stop> {
    let key = run.key()?;
    let (recursive, forever) = (run.parsed.flag("recursive"), run.parsed.flag("forever"));
    let client = run.connect()?;
    end_well_on_interrupt()?;
    let mut watch = Watch::new(&client, &key, recursive, after_index(run));
    loop {
        let event = watch.next()?;
        if event.node.dir {
            continue;
        }
        print(run, &event, recursive)?;
        if !forever {
            return Ok(());
        }
    }
}

/// Text output has the time before the first line. JSON has it as a field, so that it stays valid.
fn print(run: &mut Run, event: &Event, recursive: bool) -> Result<(), Stop> {
    if run.parsed.flag("timestamps") {
        // Milliseconds, always with all digits, so that lines are aligned.
        let time = jiff::Timestamp::now();
        let time = format!("{time:.3}");
        if run.globals.output == "json" {
            let stamped = to_json(&Stamped { time, event })?;
            return Ok(writeln!(run.world.stdout, "{stamped}")?);
        }
        write!(run.world.stdout, "{time} ")?;
    }
    if recursive {
        let action = Paint::new(run.world).good(&event.action);
        writeln!(run.world.stdout, "[{action}] {}", event.node.key)?;
    }
    run.print(event)
}

#[derive(Serialize)]
struct Stamped<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// The commands run concurrently: the next event does not wait for the end of the previous command.
fn exec_watch(run: &mut Run) -> Result<(), Stop> {
    let (key, line) = key_and_command(run)?;
    let client = run.connect()?;
    end_well_on_interrupt()?;
    let recursive = run.parsed.flag("recursive");
    let mut watch = Watch::new(&client, &key, recursive, after_index(run));
    loop {
        let event = watch.next()?;
        if event.node.dir {
            writeln!(run.world.stderr, "Ignored dir {} change", event.node.key)?;
            continue;
        }
        spawn(&line, &event)?;
    }
}

/// `KEY -- COMMAND…`, or `COMMAND… KEY`.
fn key_and_command(run: &Run) -> Result<(String, Vec<String>), Stop> {
    let args = &run.parsed.args;
    let split = match (run.parsed.before_dashes, args.as_slice()) {
        (Some(1), [key, line @ ..]) | (_, [line @ .., key]) => Some((key, line)),
        _ => None,
    };
    match split {
        Some((key, line)) if !line.is_empty() => Ok((key.clone(), line.to_vec())),
        _ => Err(Stop::Usage("key and command to exec required".to_owned())),
    }
}

fn spawn(line: &[String], event: &Event) -> Result<(), Stop> {
    let [program, args @ ..] = line else {
        return Ok(());
    };
    let index = event.node.modified_index.to_string();
    let mut child = Process::new(program)
        .args(args)
        .env("ETCD_WATCH_ACTION", &event.action)
        .env("ETCD_WATCH_KEY", &event.node.key)
        .env("ETCD_WATCH_VALUE", &event.node.value)
        .env("ETCD_WATCH_MODIFIED_INDEX", index)
        .spawn()
        .map_err(|error| Stop::Plain(format!("{program}: {error}")))?;
    // The thread waits for the child so that it does not stay as a zombie. Its exit status is ignored.
    thread::spawn(move || child.wait());
    Ok(())
}
