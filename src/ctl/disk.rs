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

/// The longest `--election-timeout` that a node accepts, in milliseconds.
const ELECTION_MAX: u64 = 50_000;

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
    let mut timeouts = Timeouts {
        heartbeat: positive(run, "heartbeat-interval")?.unwrap_or(DEFAULTS.heartbeat),
        election: positive(run, "election-timeout")?.unwrap_or(DEFAULTS.election),
    };
    refuse_unusable(dir)?;
    let node = run.parsed.text("node").filter(|url| !url.is_empty());
    let node = node.map(|url| Node::find(run, url)).transpose()?;
    if let Some(node) = &node {
        timeouts = node.timeouts(timeouts)?;
    }
    let before = node.as_ref().map(Node::written).transpose()?;
    let begin = Instant::now();
    let measured = measure(dir, span).map_err(|(doing, error)| {
        Stop::Usage(format!("{}: cannot {doing}: {error}", dir.display()))
    })?;
    let took = begin.elapsed();
    let mut out = text(&measured);
    let suits = verdict(&mut out, &measured.mapped, timeouts);
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
        ("mmap + msync", &measured.mapped),
        ("pwrite + fdatasync", &measured.written),
        ("pwrite with O_DSYNC", &measured.dsync),
    ] {
        table.add(vec![
            Some(name.to_owned()),
            Some(millis(syncs.quantile(0.5))),
            Some(millis(syncs.quantile(0.99))),
            Some(millis(syncs.worst())),
            Some(syncs.count().to_string()),
        ]);
    }
    format!(
        "{}\nsustained writes: {} MB/s, with a sync after every 4 MiB\nnew log segment: {} for 1 MiB, {} for 16 MiB\n\n",
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

/// The shortest election timeout that fits, in milliseconds: a multiple of 500, so that people can remember it.
fn election_that_fits(syncs: &Syncs) -> u64 {
    let needed = (syncs.quantile(0.99) * 10).max(syncs.worst() * 2);
    let needed = u64::try_from(needed.as_millis()).unwrap_or(u64::MAX);
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
    let fits = election_that_fits(syncs);
    let flags = format!(
        "--heartbeat-interval={} --election-timeout={fits}",
        fits / 10
    );
    let suits = election >= fits;
    if syncs.quantile(0.99) < TOO_GOOD {
        *out += "These syncs are faster than any disk: the directory is in memory, or the disk confirms what it has not \
                 stored. Then acknowledged writes are lost when the power fails.\n";
    }
    let line = match suits {
        true => format!(
            "This disk suits a heartbeat interval of {heartbeat} ms and an election timeout of {election} ms: 99 of 100 \
             syncs take at most {p99}, the worst took {worst}.\nThe shortest timeouts that fit: {flags}"
        ),
        false if fits <= ELECTION_MAX => format!(
            "This disk is too slow for an election timeout of {election} ms: one of 100 syncs takes {p99} or more, the \
             worst took {worst}. A leader on it would lose its leadership now and then.\nStart all members with: {flags}"
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

    /// Its timeouts. Those of the command line must be the same, if they are given.
    fn timeouts(&self, given: Timeouts) -> Result<Timeouts, Stop> {
        let page = self.page("/edgetcd/status")?;
        let status: Status = serde_json::from_str(&page).map_err(|error| {
            Stop::Usage(format!("--node: {}/edgetcd/status: {error}", self.url))
        })?;
        let own = Timeouts {
            heartbeat: status.heartbeat_ms,
            election: status.election_timeout_ms,
        };
        match given == DEFAULTS || given == own {
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
