//! `edgetcdctl snapshot check`: reads a file as a node does at its start. It accepts exactly the files that a node
//! accepts.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::Stop;
use super::command::Run;
use crate::backup;
use crate::engine::members::Member;
use crate::identity::ids;
use crate::tree::Census;

/// The contents of a file that a node accepts.
#[derive(Debug, Serialize)]
struct Good {
    file: String,
    good: bool,
    index: u64,
    raft_index: u64,
    raft_term: u64,
    keys: u64,
    directories: u64,
    with_ttl: u64,
    events: usize,
    cluster: String,
    members: Vec<String>,
    bytes: u64,
    written: String,
}

#[derive(Debug, Serialize)]
struct Bad {
    file: String,
    good: bool,
    error: String,
}

/// Checks all files. Returns status 1 if one of them is not good.
pub(super) fn check(run: &mut Run) -> Result<(), Stop> {
    if run.parsed.args.is_empty() {
        return Err(Stop::Usage("FILE required".to_owned()));
    }
    let json = run.globals.output == "json";
    let mut all_good = true;
    for file in &run.parsed.args {
        let inspected = inspect(Path::new(file));
        all_good &= inspected.is_ok();
        let text = match (&inspected, json) {
            (Ok(good), true) => serde_json::to_string(good).map_err(std::io::Error::from)?,
            (Err(error), true) => {
                let bad = Bad {
                    file: file.clone(),
                    good: false,
                    error: error.clone(),
                };
                serde_json::to_string(&bad).map_err(std::io::Error::from)?
            }
            (Ok(good), false) => good.text(),
            (Err(error), false) => {
                writeln!(run.world.stderr, "{error}")?;
                continue;
            }
        };
        writeln!(run.world.stdout, "{text}")?;
    }
    match all_good {
        true => Ok(()),
        false => Err(Stop::Reported(1)),
    }
}

/// Reads the whole file as a node does.
fn inspect(path: &Path) -> Result<Good, String> {
    // Reads all events to count them. The member that wrote the file had enough memory for them.
    let contents = backup::read_file(path, usize::MAX).map_err(|error| error.to_string())?;
    let (state, position) = (&contents.state, contents.metadata.position);
    let census = Census::of(&state.tree);
    let member = |member: &Member| {
        let name = match member.name.as_str() {
            "" => ids::hex(member.id),
            name => name.to_owned(),
        };
        format!("{name}={}", member.peer_urls.join(","))
    };
    Ok(Good {
        file: path.display().to_string(),
        good: true,
        index: state.tree.index().0,
        raft_index: position.index.0,
        raft_term: position.term.0,
        keys: census.files,
        directories: census.dirs,
        with_ttl: census.expiring,
        events: state.tree.history().len(),
        cluster: ids::hex(state.members.cluster),
        members: state.members.iter().map(member).collect(),
        bytes: contents.bytes,
        written: written(path),
    })
}

/// The file's modification time. Empty if the file system has none.
fn written(path: &Path) -> String {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified());
    let time = time.ok().filter(|time| *time > SystemTime::UNIX_EPOCH);
    let stamp = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let whole = stamp.and_then(|stamp| jiff::Timestamp::from_second(stamp.as_second()).ok());
    whole.map_or_else(String::new, |stamp| stamp.to_string())
}

impl Good {
    fn text(&self) -> String {
        let lines = [
            ("index", self.index.to_string()),
            (
                "entry",
                format!("{}, of term {}", self.raft_index, self.raft_term),
            ),
            ("keys", self.keys.to_string()),
            ("directories", self.directories.to_string()),
            ("with a ttl", self.with_ttl.to_string()),
            ("events kept", self.events.to_string()),
            ("cluster", self.cluster.clone()),
            ("members", self.members.join(" ")),
            ("bytes", self.bytes.to_string()),
            ("written", self.written.clone()),
        ];
        let lines = lines.map(|(name, value)| format!("\n  {name:<12} {value}"));
        format!(
            "{}: good, a snapshot of edgetcd{}",
            self.file,
            lines.concat()
        )
    }
}
