//! `edgetcdctl disk check`: what a disk can do, and which timeouts fit it.
//!
//! A member acknowledges an entry after its log is synced, so the disk decides how fast the cluster writes. A disk that
//! stores nothing for an election timeout costs its member the leadership. The rule for the timeout is that of etcd's
//! tuning guide, applied to the disk: ten times the 99th percentile, and at least twice the worst case.
//!
//! | exit status | for |
//! |---|---|
//! | 0 | the disk suits the timeouts |
//! | 1 | it does not, or it could not be measured |
//!
//! With `--node`, the timeouts are those of a running node, and its metrics say how much it writes. The rate is the
//! difference between the beginning and the end of the measurement, because the average since the start hides how much
//! a node writes now. Both are shown.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::Stop;
use super::args::Opt;
use super::client::Client;
use super::command::{Command, HELP, Run};
use super::disk_measure::{Measured, NEEDED_BYTES, Syncs, measure};
use super::endpoint::Endpoint;
use super::metrics;
use super::table::{Align, Table};
use super::wire::Ask;
use crate::config;
use crate::process;
use crate::wal::{Disk, RealDisk};

pub(super) const ALL: &[Command] = &[Command {
    name: "disk check",
    arguments: "DIR",
    what: "measure the disk of a directory, and say which timeouts of a node fit it",
    examples: &[
        "disk check /var/lib/edgetcd",
        "disk check --election-timeout 3000 --heartbeat-interval 300 .",
        "disk check --node http://127.0.0.1:2379 /var/lib/edgetcd",
    ],
    options: &[
        Opt::text(
            &["node"],
            "a running node: use its timeouts, and show how much it writes",
        ),
        Opt::number(&["heartbeat-interval"], "the node's flag, in ms (100)"),
        Opt::number(&["election-timeout"], "the node's flag, in ms (1000)"),
        Opt::number(&["seconds"], "time for each of the four measurements (2)"),
        HELP,
    ],
    run: check,
}];

/// The timeouts of a node, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timeouts {
    heartbeat: u64,
    election: u64,
}

const DEFAULTS: Timeouts = Timeouts {
    heartbeat: 100,
    election: 1000,
};

/// The timeouts on the command line, in milliseconds. `None`: not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    heartbeat: Option<u64>,
    election: Option<u64>,
}

/// The longest `--election-timeout` that a node accepts.
const ELECTION_MAX: Duration = Duration::from_millis(50_000);

/// A sync that is shorter than this does not reach a medium.
const TOO_GOOD: Duration = Duration::from_micros(15);

/// Complete writes of all its cells that a cheap flash endures.
const FLASH_WRITES: f64 = 1000.0;

fn check(run: &mut Run) -> Result<(), Stop> {
    let [dir] = run.parsed.args.as_slice() else {
        return Err(Stop::Usage("one directory required".to_owned()));
    };
    let dir = Path::new(dir);
    let span = Duration::from_secs(positive(run, "seconds")?.unwrap_or(2));
    let given = Given {
        heartbeat: positive(run, "heartbeat-interval")?,
        election: positive(run, "election-timeout")?,
    };
    refuse_unusable(dir)?;
    let node = run.parsed.text("node").filter(|url| !url.is_empty());
    let node = node.map(|url| Node::find(run, url)).transpose()?;
    let timeouts = match &node {
        Some(node) => node.timeouts(given)?,
        None => given.of_a_new_node()?,
    };
    let before = node.as_ref().map(Node::written).transpose()?;
    let begin = Instant::now();
    let measured = measure(dir, span).map_err(|(doing, error)| {
        Stop::Usage(format!("{}: cannot {doing}: {error}", dir.display()))
    })?;
    let took = begin.elapsed();
    let mut out = text(&measured);
    let suits = verdict(&mut out, measured.log(), timeouts);
    if let (Some(node), Some(before)) = (&node, before) {
        let now = node.written()?.bytes.saturating_sub(before.bytes) as f64 / took.as_secs_f64();
        let disk_bytes = process::room(dir).map(|room| room.bytes);
        out += &wear(&node.url, now, before.average(), disk_bytes);
    }
    write!(run.world.stdout, "{out}")?;
    match suits {
        true => Ok(()),
        false => Err(Stop::Reported(1)),
    }
}

impl Given {
    /// The timeouts of a node with these flags.
    ///
    /// # Errors
    /// A node would refuse them.
    fn of_a_new_node(self) -> Result<Timeouts, Stop> {
        let timeouts = Timeouts {
            heartbeat: self.heartbeat.unwrap_or(DEFAULTS.heartbeat),
            election: self.election.unwrap_or(DEFAULTS.election),
        };
        match config::refused_times(timeouts.heartbeat.into(), timeouts.election.into()) {
            Some((reason, hint)) => Err(Stop::Usage(format!("{reason}: {hint}"))),
            None => Ok(timeouts),
        }
    }

    /// Whether none of them contradicts these.
    fn fits(self, timeouts: Timeouts) -> bool {
        let is_same = |given: Option<u64>, own| given.is_none_or(|given| given == own);
        is_same(self.heartbeat, timeouts.heartbeat) && is_same(self.election, timeouts.election)
    }
}

/// An option whose value is at least 1.
fn positive(run: &Run, option: &str) -> Result<Option<u64>, Stop> {
    let given = run.parsed.number(option);
    let given = given.map(|number| u64::try_from(number).ok().filter(|number| *number > 0));
    match given {
        Some(None) => Err(Stop::Usage(format!("--{option}: a number, at least 1"))),
        Some(number) => Ok(number),
        None => Ok(None),
    }
}

fn refuse_unusable(dir: &Path) -> Result<(), Stop> {
    let shown = dir.display();
    let refused = |why: String| Err(Stop::Usage(format!("{shown}: {why}")));
    match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refused(format!(
                "there is no such directory; to create it: mkdir -p {shown}"
            ));
        }
        Err(error) => return refused(error.to_string()),
        Ok(about) if !about.is_dir() => {
            return refused("this is not a directory; use the one that contains it".to_owned());
        }
        Ok(_) => {}
    }
    let free = RealDisk::default().free_bytes(dir);
    match free.filter(|free| *free < NEEDED_BYTES) {
        Some(free) => refused(format!(
            "the measurement needs {} MiB, and {} MiB are free on this disk; free some space, or use another directory",
            NEEDED_BYTES >> 20,
            free >> 20
        )),
        None => Ok(()),
    }
}

fn text(measured: &Measured) -> String {
    let mut table = Table::new(&[
        ("SYNC OF 4 KIB", Align::Left),
        ("P50", Align::Right),
        ("P99", Align::Right),
        ("WORST", Align::Right),
        ("COUNT", Align::Right),
    ]);
    for (name, syncs) in [
        ("mmap + msync", measured.mapped.as_ref()),
        ("pwrite + fdatasync", Some(&measured.written)),
        ("pwrite with O_DSYNC", Some(&measured.dsync)),
    ] {
        table.add(vec![
            Some(name.to_owned()),
            syncs.map(|syncs| millis(syncs.quantile(0.5))),
            syncs.map(|syncs| millis(syncs.quantile(0.99))),
            syncs.map(|syncs| millis(syncs.worst())),
            syncs.map(|syncs| syncs.count().to_string()),
        ]);
    }
    let note = match measured.mapped {
        Some(_) => "",
        None => {
            "mmap is not used on this file system, because it moves its blocks (btrfs, zfs, f2fs) or is elsewhere \
             (network). Where blocks move, a sync costs more: it also writes the blocks that point to them.\n"
        }
    };
    format!(
        "{}{note}\nsustained writes: {} MB/s, with a sync after every 4 MiB\nnew log segment: {} for 1 MiB, {} for 16 MiB\n\n",
        table.draw(|_, text| text.to_owned()),
        number(measured.sustained / 1e6),
        millis(measured.segment),
        millis(measured.large_segment),
    )
}

fn millis(time: Duration) -> String {
    format!("{}ms", number(time.as_secs_f64() * 1e3))
}

/// Two or three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// The shortest election timeout that fits the disk.
fn needed_election(syncs: &Syncs) -> Duration {
    (syncs.quantile(0.99) * 10).max(syncs.worst() * 2)
}

/// An election timeout to type, in milliseconds: at least the needed one and the default, and a multiple of 500, so that
/// people can remember it.
fn round_election(needed: Duration) -> u64 {
    let needed = u64::try_from(needed.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    needed
        .max(DEFAULTS.election)
        .checked_next_multiple_of(500)
        .unwrap_or(u64::MAX)
}

/// Appends what the numbers mean. Returns whether the disk suits the timeouts.
fn verdict(out: &mut String, syncs: &Syncs, timeouts: Timeouts) -> bool {
    let Timeouts {
        heartbeat,
        election,
    } = timeouts;
    let (p99, worst) = (millis(syncs.quantile(0.99)), millis(syncs.worst()));
    let needed = needed_election(syncs);
    let suits = Duration::from_millis(election) >= needed;
    if syncs.quantile(0.99) < TOO_GOOD {
        *out += "These syncs are faster than any disk: the directory is in memory, or the disk confirms what it has not \
                 stored. Then acknowledged writes are lost when the power fails.\n";
    }
    let line = match suits {
        true => format!(
            "This disk suits a heartbeat interval of {heartbeat} ms and an election timeout of {election} ms: 99 of 100 \
             syncs take at most {p99}, the worst took {worst}.\nAn election timeout that is shorter than {} would not suit it.",
            millis(needed)
        ),
        false if needed <= ELECTION_MAX => format!(
            "This disk is too slow for an election timeout of {election} ms: one of 100 syncs takes {p99} or more, the \
             worst took {worst}. A leader on it would lose its leadership now and then.\nStart all members with: \
             --heartbeat-interval={} --election-timeout={}",
            round_election(needed) / 10,
            round_election(needed)
        ),
        false => format!(
            "This disk is too slow for any timeout: one of 100 syncs takes {p99} or more, the worst took {worst}. \
             Check the kernel's log for errors (dmesg), and use another disk."
        ),
    };
    let _ = writeln!(out, "{line}");
    suits
}

/// How much a node has written, at one moment.
#[derive(Debug, Clone, Copy)]
struct Written {
    bytes: u64,
    since_start: Duration,
}

impl Written {
    /// Bytes per second since the start of the process.
    fn average(self) -> f64 {
        self.bytes as f64 / self.since_start.as_secs_f64().max(1.0)
    }
}

/// The fields of `/edgetcd/status` that are read.
#[derive(Debug, Deserialize)]
struct Status {
    heartbeat_ms: u64,
    election_timeout_ms: u64,
}

/// The running node of `--node`.
struct Node {
    client: Client,
    endpoint: Endpoint,
    url: String,
}

impl Node {
    fn find(run: &Run, url: &str) -> Result<Node, Stop> {
        let endpoint = Endpoint::parse(url).map_err(Stop::Plain)?;
        let client = Client::new(vec![endpoint.clone()], run.globals.settings.clone());
        Ok(Node {
            client,
            endpoint,
            url: url.to_owned(),
        })
    }

    fn page(&self, path: &str) -> Result<String, Stop> {
        let deadline = Instant::now() + self.client.settings.total_timeout;
        let ask = Ask::get(path, vec![]);
        let answer = self
            .client
            .any_answer_of(&self.endpoint, &ask, Some(deadline));
        let answer = answer.map_err(|miss| Stop::Usage(format!("--node: {}", miss.error)))?;
        match answer.status {
            200 => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            status => Err(Stop::Usage(format!(
                "--node: {}{path} returned {status}; is an edgetcd running there?",
                self.url
            ))),
        }
    }

    /// Its timeouts. Those of the command line must be the same, as far as they are given.
    fn timeouts(&self, given: Given) -> Result<Timeouts, Stop> {
        let page = self.page("/edgetcd/status")?;
        let status: Status = serde_json::from_str(&page).map_err(|error| {
            Stop::Usage(format!("--node: {}/edgetcd/status: {error}", self.url))
        })?;
        let own = Timeouts {
            heartbeat: status.heartbeat_ms,
            election: status.election_timeout_ms,
        };
        match given.fits(own) {
            true => Ok(own),
            false => Err(Stop::Usage(format!(
                "the node has a heartbeat interval of {} ms and an election timeout of {} ms: omit --node, or the two \
                 other flags",
                own.heartbeat, own.election
            ))),
        }
    }

    fn written(&self) -> Result<Written, Stop> {
        let page = self.page("/metrics")?;
        let value = |name| {
            metrics::value(&page, name).ok_or_else(|| {
                Stop::Usage(format!(
                    "--node: {}/metrics does not contain {name}",
                    self.url
                ))
            })
        };
        let bytes = value("edgetcd_process_written_bytes_total")?;
        let started = value("process_start_time_seconds")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        Ok(Written {
            bytes: bytes as u64,
            since_start: Duration::from_secs_f64((now - started).clamp(0.0, 1e12)),
        })
    }
}

/// Bytes that a day of writing adds, and how long a flash of this size endures it.
fn wear(url: &str, now: f64, average: f64, disk_bytes: Option<u64>) -> String {
    const DAY: f64 = 86_400.0;
    let most = now.max(average) * DAY;
    let mut out = format!(
        "\n{url} writes {} kB/s now, {} kB/s since its start: {} MB per day.\n",
        number(now / 1e3),
        number(average / 1e3),
        number(most / 1e6)
    );
    if let Some(bytes) = disk_bytes.filter(|_| most > 0.0) {
        let years = bytes as f64 * FLASH_WRITES / most / 365.0;
        let years = match years > 100.0 {
            true => "more than 100 years".to_owned(),
            false => format!("{} years", number(years)),
        };
        let _ = writeln!(
            out,
            "That is {}% of this disk per day. A flash of this size whose cells endure {FLASH_WRITES:.0} writes lasts \
             {years}, if it writes nothing else and distributes its writes evenly.",
            number(most / bytes as f64 * 100.0)
        );
    }
    out
}

#[cfg(test)]
mod tests;
