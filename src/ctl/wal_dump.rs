//! `edgetcdctl wal dump`: prints every record of a log in the order in which they were written.
//!
//! A text line begins with the record's offset, its length, and the position up to which the file was durable
//! according to the record. `-o json` prints each record as one line with all its fields. A record that cannot be
//! read is shown in its place. The dump continues after it, and the exit status is 1. An entry is marked *replaced*
//! if it is no longer part of the log: a later record has its index or a lower one, or the log begins after it because
//! a snapshot was installed.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Stop;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::payload::{self, Fields};
use super::wal::{Place, WAL_DIR};
use crate::identity::ids::hex;
use crate::node::inspect;
use crate::raft::{HardState, Position};
use crate::wal::{Clock, Content, Dump, Dumped, Line, RealDisk, Survivors, WalError, segments};

pub(super) const DUMP: Command = Command {
    name: "wal dump",
    arguments: "DIR | FILE",
    what: "show every record of a log, with the commands in it",
    examples: &[
        "wal dump /var/lib/edgetcd",
        "wal dump --from 1200 --full /var/lib/edgetcd",
        "wal dump default.etcd/member/wal/0000000000000003-5f3a9c21.wal",
        "-o json wal dump default.etcd | jq -c 'select(.key == \"/a\")'",
    ],
    options: &[
        Opt::number(
            &["from"],
            "skip everything before the entry with this index",
        ),
        Opt::flag(&["full"], "show long keys and values completely"),
        Opt::flag(&["json"], "the same as -o json"),
        WAL_DIR,
        HELP,
    ],
    run: dump,
};

fn dump(run: &mut Run) -> Result<(), Stop> {
    let disk = RealDisk::default();
    let [given] = run.parsed.args.as_slice() else {
        return Err(Stop::Usage(
            "one data directory or segment required".to_owned(),
        ));
    };
    let files = files(run, Path::new(given), &disk)?;
    // For a single file, the entries of the other files are unknown.
    let survivors = match Path::new(given).is_file() {
        true => Survivors::default(),
        false => Survivors::read(&disk, &files),
    };
    let from = run.parsed.number("from").filter(|from| *from > 0);
    let mut printer = Printer {
        json: run.parsed.flag("json") || run.globals.output == "json",
        full: run.parsed.flag("full"),
        waits_for: from.and_then(|from| u64::try_from(from).ok()),
        all_good: true,
        unsealed: None,
        survivors,
        out: BufWriter::new(&mut *run.world.stdout),
    };
    for file in &files {
        printer.file(&disk, file)?;
    }
    printer.out.flush()?;
    match printer.all_good {
        true => Ok(()),
        false => Err(Stop::Plain(
            "not all records can be read; to find out whether a node can start: edgetcdctl wal check"
                .to_owned(),
        )),
    }
}

/// The selected segments, oldest first.
fn files(run: &Run, given: &Path, disk: &RealDisk) -> Result<Vec<PathBuf>, Stop> {
    if given.is_file() {
        return Ok(vec![given.to_owned()]);
    }
    let listed = |dir: &Path| segments(disk, dir).map_err(|error| Stop::Plain(error.to_string()));
    let place = Place::given(run)?;
    let found = listed(&place.wal())?;
    // The argument may also be a folder of segments, such as a --wal-dir or a copy.
    let found = match found.is_empty() {
        true => listed(given)?,
        false => found,
    };
    match found.is_empty() {
        true => Err(Stop::Plain(nothing(&place, given))),
        false => Ok(found),
    }
}

/// The reason why there is nothing to show: the error of `wal check`, if it refuses the directory.
fn nothing(place: &Place, given: &Path) -> String {
    match inspect(&place.dir, place.wal_dir.as_deref(), 0) {
        Err(refusal) => refusal.to_string(),
        Ok(_) => format!(
            "{}: this directory contains no log of edgetcd\n  use the path that the node has as its --data-dir (default: \
             NAME.etcd)",
            given.display()
        ),
    }
}

/// The output and its options.
struct Printer<W: Write> {
    json: bool,
    full: bool,
    /// The index of `--from`, until an entry with this index or a later one appears. Until then the dump prints no
    /// record.
    waits_for: Option<u64>,
    all_good: bool,
    /// The previous file ends at this position without a seal.
    unsealed: Option<(String, u64)>,
    survivors: Survivors,
    out: BufWriter<W>,
}

/// One record, or a note about a damaged one, as JSON.
#[derive(Debug, Default, Serialize)]
struct Row<'a> {
    file: &'a str,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<u64>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<bool>,
    #[serde(flatten)]
    payload: Option<Fields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_state: Option<Vote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_salt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The position of the next good record.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Vote {
    term: u64,
    vote: Option<String>,
}

#[derive(Debug, Serialize)]
struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    boottime_ns: u64,
    cluster_ns: u64,
}

impl<W: Write> Printer<W> {
    fn file(&mut self, disk: &RealDisk, path: &Path) -> Result<(), Stop> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !self.json && self.waits_for.is_none() {
            writeln!(self.out, "{name}")?;
        }
        let dumped = self.records(disk, path, &name)?;
        if let Err(error) = dumped {
            let offset = error.offset.unwrap_or(0);
            self.bad(&name, offset, &error.to_string(), None)?;
        }
        Ok(())
    }

    /// The inner error is that of the file. It does not end the dump.
    fn records(
        &mut self,
        disk: &RealDisk,
        path: &Path,
        name: &str,
    ) -> Result<Result<(), WalError>, Stop> {
        let mut dump = match Dump::open(disk, path) {
            Ok(dump) => dump,
            Err(error) => return Ok(Err(error)),
        };
        let mut is_used = false;
        loop {
            match dump.next() {
                Ok(None) if !is_used => return Ok(Ok(self.unused()?)),
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
                Ok(Some(Dumped::Record(line, content))) => {
                    is_used = true;
                    self.link(name, &line, &content)?;
                    self.record(path, name, &line, &content)?;
                }
                Ok(Some(Dumped::Bad { offset, what, next })) => {
                    is_used = true;
                    self.bad(name, offset, &what, next)?;
                }
                Ok(Some(Dumped::Torn { offset, bytes })) => {
                    is_used = true;
                    self.torn(name, offset, bytes)?;
                }
            }
        }
    }

    /// If a file contains records, the previous file must be complete and end with a seal.
    fn link(&mut self, name: &str, line: &Line, content: &Content) -> Result<(), Stop> {
        if let (Content::Head { .. }, Some((before, end))) = (content, self.unsealed.take()) {
            let what = format!(
                "{before}: the record at byte {end} fails its checksum, but the log continues in {name}"
            );
            self.bad(&before, end, &what, None)?;
        }
        self.unsealed = match content {
            Content::Sealed { .. } => None,
            _ => Some((name.to_owned(), line.offset + line.bytes)),
        };
        Ok(())
    }

    fn unused(&mut self) -> Result<(), Stop> {
        if !self.json && self.waits_for.is_none() {
            writeln!(self.out, "       empty: prepared for later records")?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        path: &Path,
        name: &str,
        line: &Line,
        content: &Content,
    ) -> Result<(), Stop> {
        if let (Some(from), Content::Entry { position, .. }) = (self.waits_for, content)
            && position.index.0 >= from
        {
            self.waits_for = None;
            if !self.json {
                writeln!(self.out, "{name}")?;
            }
        }
        if self.waits_for.is_some() {
            return Ok(());
        }
        let replaced = match content {
            Content::Entry { position, .. } => self.survivors.replaced(path, line, *position),
            _ => false,
        };
        if self.json {
            let row = Row {
                file: name,
                offset: line.offset,
                bytes: Some(line.bytes),
                durable: Some(line.durable),
                replaced: replaced.then_some(true),
                ..row(content)
            };
            return self.row(&row);
        }
        let what = match content {
            Content::Entry { position, payload } => {
                format!("entry {position} {}", payload::text(payload, self.full))
            }
            _ => line.what.clone(),
        };
        let replaced = if replaced { "  (replaced)" } else { "" };
        let line = Line {
            what,
            ..line.clone()
        };
        Ok(writeln!(self.out, "{line}{replaced}")?)
    }

    fn bad(&mut self, name: &str, offset: u64, what: &str, next: Option<u64>) -> Result<(), Stop> {
        self.all_good = false;
        if self.json {
            return self.row(&Row {
                file: name,
                offset,
                kind: "bad",
                error: Some(what.to_owned()),
                next,
                ..Row::default()
            });
        }
        Ok(writeln!(self.out, "{offset:>6}      ?  {what}")?)
    }

    fn torn(&mut self, name: &str, offset: u64, bytes: u64) -> Result<(), Stop> {
        let what = "not whole: an append that was cut short, or is being written; no record says that it \
                    was durable";
        if self.json {
            return self.row(&Row {
                file: name,
                offset,
                bytes: Some(bytes),
                kind: "torn",
                error: Some(what.to_owned()),
                ..Row::default()
            });
        }
        Ok(writeln!(self.out, "{offset:>6} {bytes:>6}  {what}")?)
    }

    fn row(&mut self, row: &Row) -> Result<(), Stop> {
        serde_json::to_writer(&mut self.out, row).map_err(std::io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }
}

/// The JSON fields of a record in addition to its position.
fn row(content: &Content) -> Row<'static> {
    let kind = |kind| Row {
        kind,
        ..Row::default()
    };
    let at = |position: &Position, row| Row {
        index: Some(position.index.0),
        term: Some(position.term.0),
        ..row
    };
    match content {
        Content::Head {
            number,
            bytes,
            last,
            hard_state,
            clock,
        } => Row {
            number: Some(*number),
            file_bytes: Some(*bytes),
            hard_state: Some(vote(hard_state)),
            clock: clock.as_ref().map(times),
            ..at(last, kind("head"))
        },
        Content::Entry { position, payload } => Row {
            payload: Some(Fields::new(payload)),
            ..at(position, kind("entry"))
        },
        Content::HardState(hard_state) => Row {
            hard_state: Some(vote(hard_state)),
            ..kind("hard-state")
        },
        Content::Clock(clock) => Row {
            clock: Some(times(clock)),
            ..kind("clock")
        },
        Content::Tick {
            boottime_ns,
            cluster_ns,
        } => Row {
            clock: Some(Times {
                boot: None,
                boottime_ns: *boottime_ns,
                cluster_ns: *cluster_ns,
            }),
            ..kind("tick")
        },
        Content::Reset(position) => at(position, kind("reset")),
        Content::Sealed { last, next_salt } => Row {
            next_salt: Some(format!("{next_salt:08x}")),
            ..at(last, kind("sealed"))
        },
        Content::Stop => kind("stop"),
    }
}

fn vote(hard_state: &HardState) -> Vote {
    Vote {
        term: hard_state.term.0,
        vote: hard_state.vote.map(|node| hex(node.0)),
    }
}

fn times(clock: &Clock) -> Times {
    Times {
        boot: Some(format!("{:032x}", u128::from_be_bytes(clock.boot_id))),
        boottime_ns: clock.boottime_ns,
        cluster_ns: clock.cluster_ns,
    }
}
