//! `edgetcdctl mirror`: the keys of one cluster, kept the same in another.
//!
//! It begins with a copy of all, as of one index, and goes on with the changes behind that index,
//! each sent on as it is heard of. Whatever interrupts it, it begins with a copy again: that a server
//! cannot be reached, or that changes came so fast that the next one is no longer remembered. What it
//! has once sent and does not find again, it removes there; what else is there stays, unless
//! `--delete` was given.
//!
//! Left out: hidden keys, which no listing shows and no watch above them hears of.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::Stop;
use super::answer::Event;
use super::args::Opt;
use super::client::{Client, Failure};
use super::command::{Command, HELP, Run};
use super::entry::{Entry, NOT_FOUND, read_all};
use super::globals::parse_endpoints;
use super::transfer::send_all;
use super::watch::{Watch, end_well_on_interrupt};
use super::wire::Ask;

pub(super) const ALL: &[Command] = &[Command {
    name: "mirror",
    arguments: "--from URL --to URL [KEY]",
    what: "copy all keys to another server, and go on with every change",
    examples: &[
        "mirror --from http://10.0.0.1:2379 --to http://10.1.0.1:2379",
        "mirror --from http://10.0.0.1:2379 --to http://10.1.0.1:2379 --delete /services",
    ],
    options: &[
        Opt::text(&["from"], "comma list of the servers that are read"),
        Opt::text(&["to"], "comma list of the servers that are written"),
        Opt::flag(&["delete"], "remove there, at the start, what is not here"),
        HELP,
    ],
    run: mirror,
}];

/// How many writes of a copy are sent at once.
const AT_ONCE: usize = 8;

/// Before it tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// The code of an error: the events asked for are no longer remembered.
const HISTORY_GONE: u32 = 401;

struct Mirror<'a> {
    from: Client,
    to: Client,
    key: &'a str,
    /// Remove all that is not in the source.
    delete: bool,
    /// Draw how far a copy is.
    show: bool,
    /// What is there because it was sent from here.
    sent: BTreeSet<String>,
}

fn mirror(run: &mut Run) -> Result<(), Stop> {
    let from = side(run, "from")?;
    let to = side(run, "to")?;
    end_well_on_interrupt()?;
    let mut mirror = Mirror {
        from,
        to,
        key: run.parsed.args.first().map_or("/", String::as_str),
        delete: run.parsed.flag("delete"),
        show: run.world.stderr_is_terminal,
        sent: BTreeSet::new(),
    };
    let mut copied_once = false;
    loop {
        let stop = match mirror.copy() {
            Ok((entries, index)) => {
                copied_once = true;
                writeln!(
                    run.world.stderr,
                    "copied {entries} keys and directories as of index {index}; following"
                )?;
                Stop::Failed(mirror.follow(index))
            }
            Err(stop) => stop,
        };
        if !copied_once || !passes(&stop) {
            return Err(stop);
        }
        let why = stop.text();
        let why = why.lines().next().unwrap_or_default();
        writeln!(run.world.stderr, "{why}; copying again")?;
        thread::sleep(PAUSE);
    }
}

/// Whether trying again can help.
fn passes(stop: &Stop) -> bool {
    match stop {
        Stop::Failed(Failure::Refused(error)) => error.code == HISTORY_GONE,
        Stop::Failed(failure) | Stop::FailedAt(_, failure) => matches!(
            failure,
            Failure::Unavailable(_) | Failure::Missed(_) | Failure::Deadline
        ),
        _ => false,
    }
}

fn side(run: &mut Run, option: &str) -> Result<Client, Stop> {
    let given = run.parsed.text(option).filter(|text| !text.is_empty());
    let given = given.ok_or_else(|| Stop::Usage("--from and --to required".to_owned()))?;
    let endpoints = parse_endpoints(given).map_err(|error| Stop::Plain(error.to_string()))?;
    run.globals.connect_to(endpoints, run.world.stderr)
}

impl Mirror<'_> {
    /// How many were copied, and the index that the copy is of.
    fn copy(&mut self) -> Result<(usize, u64), Stop> {
        let (entries, index) = match read_all(&self.from, self.key) {
            Err(Failure::Refused(error)) if error.code == NOT_FOUND => (vec![], error.index),
            read => read?,
        };
        self.remove_others(&entries)?;
        self.sent
            .extend(entries.iter().map(|entry| entry.key.clone()));
        send_all(&self.to, &entries, AT_ONCE, self.show)?;
        Ok((entries.len(), index))
    }

    /// Removes what was sent, or with `--delete` all that is there, if it is not among the entries.
    /// What is of the other kind, a key for a directory, goes as well: nothing can take its place.
    fn remove_others(&mut self, entries: &[Entry]) -> Result<(), Stop> {
        if !self.delete && self.sent.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<(&str, bool)> = entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.dir))
            .collect();
        let there = match read_all(&self.to, self.key) {
            Err(Failure::Refused(error)) if error.code == NOT_FOUND => return Ok(()),
            there => there?.0,
        };
        for entry in there {
            let ours = self.delete || self.sent.contains(&entry.key);
            if ours && !wanted.contains(&(entry.key.as_str(), entry.dir)) {
                remove(&self.to, &entry.key)?;
                self.sent.remove(&entry.key);
            }
        }
        Ok(())
    }

    /// Sends on each change behind this index, until something fails.
    fn follow(&mut self, index: u64) -> Failure {
        let mut watch = Watch::new(&self.from, self.key, true, index);
        loop {
            let sent = watch
                .next()
                .and_then(|event| send_on(&self.to, &mut self.sent, &event));
            if let Err(failure) = sent {
                return failure;
            }
        }
    }
}

fn send_on(to: &Client, sent: &mut BTreeSet<String>, event: &Event) -> Result<(), Failure> {
    let key = &event.node.key;
    match event.action.as_str() {
        "delete" | "expire" | "compareAndDelete" => {
            remove(to, key)?;
            sent.remove(key);
        }
        _ => {
            sent.insert(key.clone());
            Entry::new(&event.node).send(to)?;
        }
    }
    Ok(())
}

/// Removes a key or a directory with all in it; that it is gone already is no harm.
fn remove(to: &Client, key: &str) -> Result<(), Failure> {
    let yes = || "true".to_owned();
    match to.send(&Ask::delete(
        key,
        vec![("recursive", yes()), ("dir", yes())],
    )) {
        Err(Failure::Refused(error)) if error.code == NOT_FOUND => Ok(()),
        removed => removed.map(drop),
    }
}
