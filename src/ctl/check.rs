//! `edgetcdctl snapshot check`: reads as a node reads that starts. What it calls good, a node takes, and
//! nothing else.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::Stop;
use super::command::Run;
use crate::backup;
use crate::engine::members::Member;
use crate::ids;
use crate::tree::Census;

/// What a file holds that a node would take.
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

/// Status 1 if one of them is not good; all are looked at.
pub(super) fn check(run: &mut Run) -> Result<(), Stop> {
    if run.parsed.args.is_empty() {
        return Err(Stop::Usage("FILE required".to_owned()));
    }
    let json = run.globals.output == "json";
    let mut all_good = true;
    for file in &run.parsed.args {
        let looked = look(Path::new(file));
        all_good &= looked.is_ok();
        let text = match (&looked, json) {
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
        false => Err(Stop::Told(1)),
    }
}

/// Reads all of it as a node does.
fn look(path: &Path) -> Result<Good, String> {
    // All events, since they are counted: who wrote the file had room for them.
    let contents = backup::read_file(path, usize::MAX).map_err(|error| error.to_string())?;
    let (state, position) = (&contents.state, contents.mark.position);
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

/// When the file was written last, by its file system; empty where that has no such thing.
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
