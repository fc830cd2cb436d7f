//! `edgetcdctl mirror`: copies the keys of one cluster to another and keeps the copy up to date.
//!
//! It first copies all keys as of one index, then watches for changes after that index and sends each one. After an
//! interruption it starts again with a copy. An interruption is a server that cannot be reached, or a change that is
//! no longer in the history because there were too many changes. It removes those keys from the target that it has sent
//! earlier and that the source no longer has. Other keys in the target stay, unless `--delete` was given.
//!
//! A client can extend a time to live with `refresh=true`, which creates no event (spec §7.3). So before a copied key
//! expires in the target, the mirror reads the source again and extends the times to live. While it does so, it sends
//! no changes, so changes that happen after that read are also sent after it.
//!
//! Hidden keys are not copied, because neither listings nor watches above them show them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Stop;
use super::answer::Event;
use super::args::Opt;
use super::client::{Client, Failure};
use super::command::{Command, HELP, Run};
use super::endpoint::Endpoint;
use super::entry::{Entry, NOT_FOUND, read_all};
use super::transfer::send_all;
use super::watch::{Watch, end_well_on_interrupt};
use super::wire::Ask;

pub(super) const ALL: &[Command] = &[Command {
    name: "mirror",
    arguments: "--from URL --to URL [KEY]",
    what: "copy all keys to another server, then copy every change",
    examples: &[
        "mirror --from http://10.0.0.1:2379 --to http://10.1.0.1:2379",
        "mirror --from http://10.0.0.1:2379 --to http://10.1.0.1:2379 --delete /services",
    ],
    options: &[
        Opt::text(&["from"], "servers to read from, separated by commas"),
        Opt::text(&["to"], "servers to write to, separated by commas"),
        Opt::flag(
            &["delete"],
            "first remove keys from the target that are not in the source",
        ),
        HELP,
    ],
    run: mirror,
}];

/// Number of concurrent writes of a copy.
const AT_ONCE: usize = 8;

/// Pause before a retry.
const PAUSE: Duration = Duration::from_secs(1);

/// Interval for checking whether a key is about to expire.
const TICK: Duration = Duration::from_millis(100);
/// Minimum time between two reads of the source for that purpose.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Times to live that differ by less count as equal, because they are reported in whole seconds.
const SAME_TIME: Duration = Duration::from_millis(1500);

/// Error code: the requested events are no longer in the history.
const HISTORY_GONE: u32 = 401;

struct Mirror<'a> {
    from: Client,
    to: Client,
    key: &'a str,
    /// Remove all keys that are not in the source.
    delete: bool,
    /// Draw a progress bar for the copy.
    show: bool,
    /// The keys in the target that this mirror sent.
    sent: Mutex<Sent>,
}

/// Keys that this mirror sent.
#[derive(Default)]
struct Sent {
    keys: BTreeSet<String>,
    /// When the keys with a time to live expire in the target.
    ends: BTreeMap<String, Instant>,
}

impl Sent {
    fn note(&mut self, entry: &Entry) {
        self.keys.insert(entry.key.clone());
        match entry.lifetime() {
            Some(time) => self.ends.insert(entry.key.clone(), Instant::now() + time),
            None => self.ends.remove(&entry.key),
        };
    }

    fn forget(&mut self, key: &str) {
        self.keys.remove(key);
        self.ends.remove(key);
    }

    /// Whether the key in the target expires at the same time as the entry.
    fn ends_with(&self, entry: &Entry, time: Duration) -> bool {
        let (there, here) = (self.ends.get(&entry.key), Instant::now() + time);
        there.is_some_and(|there| {
            let (early, late) = (*there.min(&here), *there.max(&here));
            late - early < SAME_TIME
        })
    }
}

fn mirror(run: &mut Run) -> Result<(), Stop> {
    let from = side(run, "from")?;
    let to = side(run, "to")?;
    end_well_on_interrupt()?;
    let mirror = Mirror {
        from,
        to,
        key: run.parsed.args.first().map_or("/", String::as_str),
        delete: run.parsed.flag("delete"),
        show: run.world.stderr_is_terminal,
        sent: Mutex::default(),
    };
    refuse_itself(&mirror)?;
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

/// Fails if source and target are the same cluster, because copying would then never end. Ids alone do not show that:
/// they are computed from URLs, and two single-member clusters have the same ids by default. But no two members have
/// both the same id and the same start time.
fn refuse_itself(mirror: &Mirror) -> Result<(), Stop> {
    let (from, to) = (processes(&mirror.from), processes(&mirror.to));
    match from.intersection(&to).next() {
        None => Ok(()),
        Some((id, _)) => Err(Stop::Plain(format!(
            "--from and --to are one cluster: both lead to the member {id}"
        ))),
    }
}

/// The id and the start time of each running member.
fn processes(client: &Client) -> BTreeSet<(String, String)> {
    let ask = Ask::get("/v2/stats/self", vec![]);
    let told = |url| {
        let deadline = Instant::now() + client.settings.total_timeout;
        let answer = client.any_answer_of(url, &ask, Some(deadline)).ok()?;
        let page: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let text = |name: &str| Some(page[name].as_str()?.to_owned());
        Some((text("id")?, text("startTime")?))
    };
    client.endpoints.iter().filter_map(told).collect()
}

/// Whether a retry can help.
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
    let endpoints = Endpoint::parse_list(given).map_err(|error| Stop::Plain(error.to_string()))?;
    run.globals.connect_to(endpoints, run.world.stderr)
}

impl Mirror<'_> {
    /// Copies all keys. Returns their number and the index of the copy.
    fn copy(&self) -> Result<(usize, u64), Stop> {
        let (entries, index) = match read_all(&self.from, self.key) {
            Err(Failure::Refused(error)) if error.code == NOT_FOUND => (vec![], error.index),
            read => read?,
        };
        self.remove_others(&entries)?;
        let mut sent = self.sent();
        entries.iter().for_each(|entry| sent.note(entry));
        drop(sent);
        send_all(&self.to, &entries, AT_ONCE, self.show)?;
        Ok((entries.len(), index))
    }

    /// Removes keys that are not among the entries: those that this mirror sent, or all with `--delete`. Also removes
    /// a key that is a directory in the source, and the reverse, because they cannot be overwritten.
    fn remove_others(&self, entries: &[Entry]) -> Result<(), Stop> {
        let mut sent = self.sent();
        if !self.delete && sent.keys.is_empty() {
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
            let ours = self.delete || sent.keys.contains(&entry.key);
            if ours && !wanted.contains(&(entry.key.as_str(), entry.dir)) {
                remove(&self.to, &entry.key)?;
                sent.forget(&entry.key);
            }
        }
        Ok(())
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends each change after this index until an error occurs.
    fn follow(&self, index: u64) -> Failure {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.keep_alive(&over));
            let mut watch = Watch::new(&self.from, self.key, true, index);
            loop {
                let sent = watch.next().and_then(|event| self.send_on(&event));
                if let Err(failure) = sent {
                    over.store(true, Ordering::Relaxed);
                    return failure;
                }
            }
        })
    }

    fn send_on(&self, event: &Event) -> Result<(), Failure> {
        let mut sent = self.sent();
        let key = &event.node.key;
        match event.action.as_str() {
            "delete" | "expire" | "compareAndDelete" => {
                remove(&self.to, key)?;
                sent.forget(key);
            }
            _ => {
                let entry = Entry::new(&event.node);
                sent.note(&entry);
                entry.send(&self.to)?;
            }
        }
        Ok(())
    }

    /// Reads the source again when half of the shortest time to live is over.
    fn keep_alive(&self, over: &AtomicBool) {
        let mut looked = Instant::now();
        while !over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let mut sent = self.sent();
            let Some(soonest) = sent.ends.values().min() else {
                continue;
            };
            let half = soonest.saturating_duration_since(looked) / 2;
            if looked.elapsed() >= half.max(LOOK_AGAIN) {
                looked = Instant::now();
                // If the source cannot be reached, the watch reports it.
                let _ = self.prolong(&mut sent);
            }
        }
    }

    fn prolong(&self, sent: &mut Sent) -> Result<(), Failure> {
        let (entries, _) = read_all(&self.from, self.key)?;
        let living = entries
            .iter()
            .filter_map(|entry| Some((entry, entry.lifetime()?)));
        let living: Vec<(&Entry, Duration)> = living.collect();
        for (entry, time) in &living {
            if !sent.ends_with(entry, *time) {
                entry.prolong(&self.to)?;
                sent.note(entry);
            }
        }
        // The watch reports keys that were removed, or whose time to live was removed.
        let still: BTreeSet<&str> = living.iter().map(|(entry, _)| entry.key.as_str()).collect();
        sent.ends.retain(|key, _| still.contains(key.as_str()));
        Ok(())
    }
}

/// Removes a key, or a directory with its contents. Succeeds if it does not exist.
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
