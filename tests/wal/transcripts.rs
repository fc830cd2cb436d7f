//! Runs the transcripts in `tests/transcripts/wal`: commands, a line `---`, then everything that happened.
//!
//! `UPDATE=1 cargo test --test wal` writes the part below the line again. The commands are:
//!
//! | command                          | effect                                                     |
//! |----------------------------------|------------------------------------------------------------|
//! | `disk 4096 seed=1 wals=1 snapshots=2` | an empty disk, the size of segments, how many files are kept |
//! | `open`, `close`, `kill`, `crash` | start, clean stop, end of the process, power failure       |
//! | `append 3 x40`, `sync`, `write 3 x40` | three entries of 40 bytes. `from=2` and `term=2` set their position |
//! | `hard-state 3 for 7`, `clock boot=1 at=5 cluster=9` | writes and syncs a hard state or a clock    |
//! | `snapshot 5 x1000`, `compact 5`  | a snapshot at entry 5, or a compaction up to it. `term=2` if a leader sent the snapshot |
//! | `power 3`, `fail sync`, `room 100`, `room` | the power fails at the third change from now, the next sync fails, 100 bytes are left, plenty of space again |
//! | `tear 3 bytes`                   | the last three bytes of the last record never reached the disk |
//! | `flip entry 2`                   | flips a bit in the record whose text begins with `entry 2` |
//! | `zero head of 1`                 | zeroes that complete record                                |
//! | `spoil 30`                       | flips a bit in the snapshot at 30                          |
//! | `stale`                          | copies bytes of the oldest segment behind the end of the active one |
//! | `records`, `files`, `read 2 5`   | print                                                      |

use crate::support::{self, DIR, edit, entries, metadata, open_with, options};
use edgetcd::raft::{HardState, LogIndex, NodeId, Position, Term};
use edgetcd::wal::{Batch, Clock, DataDir, FaultyDisk, Line, Options, Recovered, Wal, WalError};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

struct Stage {
    disk: FaultyDisk,
    options: Options,
    open: Option<(DataDir<FaultyDisk>, Wal<FaultyDisk>)>,
    said: String,
}

/// A command's words: plain ones, and those of the form `name=number`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, u64>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Words<'a> {
        let mut words = Words {
            plain: Vec::new(),
            named: BTreeMap::new(),
        };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, number)) => {
                    words.named.insert(name, number.parse().expect("a number"));
                }
                None => words.plain.push(word),
            }
        }
        words
    }

    fn number(&self, at: usize) -> u64 {
        let word = self
            .plain
            .get(at)
            .unwrap_or_else(|| panic!("word {at} of {:?}", self.plain));
        word.trim_start_matches('x').parse().expect("a number")
    }

    fn named(&self, name: &str) -> Option<u64> {
        self.named.get(name).copied()
    }
}

impl Stage {
    fn new() -> Stage {
        Stage {
            disk: FaultyDisk::new(1),
            options: options(4096),
            open: None,
            said: String::new(),
        }
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        writeln!(self.said, "  {what}").expect("a string takes all");
    }

    fn result(&mut self, result: Result<(), WalError>, good: &str) {
        match result {
            Ok(()) => self.say(good),
            Err(error) => self.say(format!("{:?}: {error}", error.kind)),
        }
    }

    fn wal(&mut self) -> &mut Wal<FaultyDisk> {
        &mut self.open.as_mut().expect("the log is open").1
    }

    fn run(&mut self, line: &str) {
        writeln!(self.said, "> {line}").expect("a string takes all");
        let words = Words::new(line);
        match words.plain[0] {
            "disk" => self.set_up(&words),
            "open" => self.start(),
            "close" => {
                let (data_dir, wal) = self.open.take().expect("the log is open");
                let closed = wal.close();
                self.result(closed, "closed");
                drop(data_dir);
            }
            "kill" => self.end(FaultyDisk::kill),
            "crash" => self.end(FaultyDisk::crash),
            "append" | "write" | "sync" => self.write(&words),
            "hard-state" | "clock" => self.note(&words),
            "snapshot" => self.snapshot(&words),
            "compact" => {
                let metadata = self.metadata(&words);
                let compacted = self.wal().compact(&metadata);
                self.result(compacted, "compacted");
            }
            "power" => self.disk.cut_power_after(words.number(1) - 1),
            "fail" => self.disk.fail_sync_after(0),
            "room" => {
                let room = if words.plain.len() > 1 {
                    self.disk.used() + words.number(1)
                } else {
                    u64::MAX
                };
                self.disk.set_capacity(room);
            }
            "records" => self.records(),
            "files" => self.files(),
            "read" => self.read(&words),
            "spoil" => self.spoil(&words),
            _ => self.damage(&words),
        }
    }

    fn set_up(&mut self, words: &Words) {
        *self = Stage {
            said: std::mem::take(&mut self.said),
            ..Stage::new()
        };
        self.disk = FaultyDisk::new(words.named("seed").unwrap_or(1));
        self.options = Options {
            max_wals: words.named("wals").unwrap_or(5) as usize,
            max_snapshots: words.named("snapshots").unwrap_or(5) as usize,
            ..options(words.number(1))
        };
    }

    fn start(&mut self) {
        match open_with(&self.disk, self.options.clone()) {
            Ok((data_dir, wal, recovered)) => {
                self.show(&recovered);
                self.open = Some((data_dir, wal));
            }
            Err(error) => self.say(format!("{:?}: {error}", error.kind)),
        }
    }

    fn show(&mut self, recovered: &Recovered<FaultyDisk>) {
        if recovered.hard_state != HardState::default() {
            let vote = recovered
                .hard_state
                .vote
                .map_or("nobody".into(), |node| node.0.to_string());
            self.say(format!(
                "term {}, voted for {vote}",
                recovered.hard_state.term.0
            ));
        }
        if let Some(clock) = recovered.clock {
            let boot = u128::from_be_bytes(clock.boot_id);
            self.say(format!(
                "boot {boot} at {}, cluster time {}",
                clock.boottime_ns, clock.cluster_ns
            ));
        }
        if let Some(reader) = &recovered.snapshot {
            let Position { term, index } = reader.metadata().position;
            self.say(format!(
                "snapshot {}@{}, {} bytes",
                index.0,
                term.0,
                reader.bytes()
            ));
        }
        let terms: Vec<String> = recovered
            .log
            .terms
            .iter()
            .map(|(index, term)| format!("{}@{}", index.0, term.0))
            .collect();
        match terms.is_empty() {
            true => self.say(format!("no entries after {}", recovered.log.last.0)),
            false => self.say(format!(
                "entries to {}, terms {}",
                recovered.log.last.0,
                terms.join(" ")
            )),
        }
        recovered
            .warnings
            .iter()
            .for_each(|warning| self.say(format!("warning: {warning}")));
    }

    fn end(&mut self, how: fn(&FaultyDisk)) {
        how(&self.disk);
        self.open = None;
    }

    fn write(&mut self, words: &Words) {
        let wal = self.wal();
        let mut result = Ok(());
        let mut good = "synced".to_string();
        if words.plain[0] != "sync" {
            let last = wal.last();
            let from = words.named("from").unwrap_or(last.index.0 + 1);
            let term = words.named("term").unwrap_or(last.term.0.max(1));
            let to = from + words.number(1) - 1;
            good = format!(
                "entries {from} to {to} {}",
                if words.plain[0] == "write" {
                    "stored"
                } else {
                    "appended"
                }
            );
            result = wal.append(&entries(from, to, term, words.number(2) as usize));
        }
        if words.plain[0] != "append" {
            result = result.and_then(|()| wal.sync());
        }
        self.result(result, &good);
    }

    fn note(&mut self, words: &Words) {
        let mut batch = Batch::default();
        if words.plain[0] == "hard-state" {
            let vote = (words.plain.len() > 2).then(|| NodeId(words.number(3)));
            batch.hard_state = Some(HardState {
                term: Term(words.number(1)),
                vote,
            });
        } else {
            let named = |name| words.named(name).expect("boot, at and cluster");
            batch.clock = Some(Clock {
                boot_id: u128::from(named("boot")).to_be_bytes(),
                boottime_ns: named("at"),
                cluster_ns: named("cluster"),
            });
        }
        let written = self.wal().write(&batch);
        self.result(written, "stored");
    }

    fn metadata(&mut self, words: &Words) -> edgetcd::raft::SnapshotMetadata {
        let index = words.number(1);
        let at = LogIndex(index);
        let known = self
            .wal()
            .reader()
            .read(at, at, 1)
            .ok()
            .and_then(|found| found.first().map(|entry| entry.position.term.0));
        metadata(index, words.named("term").or(known).unwrap_or(1))
    }

    fn snapshot(&mut self, words: &Words) {
        let metadata = self.metadata(words);
        let bytes = vec![7; words.number(2) as usize];
        let written = self.wal().begin_snapshot(&metadata).and_then(|mut writer| {
            writer.write(&bytes)?;
            writer.finish()
        });
        self.result(written, "snapshot stored");
    }

    fn records(&mut self) {
        for path in support::segments(&self.disk) {
            self.say(short(&path));
            let lines = edgetcd::wal::dump(&self.disk, &path).expect("a dump");
            lines.iter().for_each(|line| self.say(line));
        }
    }

    fn files(&mut self) {
        for path in self.disk.files() {
            let bytes = self.disk.bytes(&path).map_or(0, |bytes| bytes.len());
            self.say(format!("{} {bytes}", short(&path)));
        }
    }

    fn read(&mut self, words: &Words) {
        let (from, to) = (LogIndex(words.number(1)), LogIndex(words.number(2)));
        match self.wal().reader().read(from, to, usize::MAX) {
            Ok(found) => {
                let at = |entry: &edgetcd::raft::Entry| {
                    format!("{}@{}", entry.position.index.0, entry.position.term.0)
                };
                let found: Vec<String> = found.iter().map(at).collect();
                self.say(found.join(" "));
            }
            Err(error) => self.say(error),
        }
    }

    fn spoil(&mut self, words: &Words) {
        let begins = format!("{:016x}-", words.number(1));
        let named = |path: &PathBuf| short(path).starts_with(&format!("snap/{begins}"));
        let path = self
            .disk
            .files()
            .into_iter()
            .find(named)
            .expect("a snapshot");
        edit(&self.disk, &path, |bytes| bytes[100] ^= 1);
        self.say(short(&path));
    }

    /// Changes bytes in a file without the log's knowledge.
    fn damage(&mut self, words: &Words) {
        let all = support::records(&self.disk);
        let (path, line) = match words.plain[..] {
            ["tear", _, "bytes"] | ["stale"] => all.last().expect("a record"),
            _ => find(&all, &words.plain[1..].join(" ")),
        };
        let (from, to) = (line.offset as usize, (line.offset + line.bytes) as usize);
        let old = self.disk.bytes(&all[0].0).expect("the oldest segment");
        edit(&self.disk, path, |bytes| match words.plain[0] {
            "tear" => bytes[to - words.number(1) as usize..to].fill(0),
            "flip" => bytes[to - 9] ^= 0x20,
            "zero" => bytes[from..to].fill(0),
            "stale" => bytes[to..].copy_from_slice(&old[to..]),
            other => panic!("no command {other:?}"),
        });
        let at = if words.plain[0] == "stale" { to } else { from };
        self.say(format!("{} at {at}", short(path)));
    }
}

fn find<'a>(all: &'a [(PathBuf, Line)], begins: &str) -> &'a (PathBuf, Line) {
    let found = all.iter().find(|(_, line)| line.what.starts_with(begins));
    found.unwrap_or_else(|| panic!("no record begins with {begins:?}"))
}

fn short(path: &Path) -> String {
    let path = path
        .strip_prefix(Path::new(DIR).join("member"))
        .unwrap_or(path);
    path.display().to_string()
}

fn play(commands: &str) -> String {
    let mut stage = Stage::new();
    for line in commands
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
    {
        stage.run(line);
    }
    stage.said
}

#[test]
fn the_lessons_happen_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/wal");
    let mut lessons: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the lessons")
        .map(|entry| entry.expect("a lesson").path())
        .collect();
    lessons.sort();
    assert!(lessons.len() >= 10, "{lessons:?}");
    let update = std::env::var_os("UPDATE").is_some_and(|update| update == "1");
    for path in lessons {
        let text = std::fs::read_to_string(&path).expect("a lesson");
        let (commands, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
        let happened = play(commands);
        if update {
            std::fs::write(&path, format!("{commands}\n---\n{happened}")).expect("written");
        } else {
            assert_eq!(
                happened,
                expected,
                "{}: UPDATE=1 writes it anew",
                path.display()
            );
        }
    }
}
