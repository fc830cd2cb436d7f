//! `edgetcdctl wal`: inspects a data directory. The commands change nothing, take no lock and ask no server. The node
//! may be running; then they show its state at one moment.
//!
//! `wal check` predicts the result of a start: it uses the same code ([`crate::node::inspect`]) and the same messages.
//! `wal dump` (in `wal_dump`) shows the records.
//!
//! | exit status of `wal check` | for |
//! |---|---|
//! | 0 | a node can start with all its data, perhaps after the repairs in the warnings |
//! | 1 | a node cannot start, or the directory contains no node |
//!
//! It does not check whether the node's user may write there, nor whether there is space on the disk.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Stop;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::wal_dump;
use crate::identity::ids::hex;
use crate::node::{Inspected, Refusal, Unsynced, inspect};
use crate::tree::Census;
use crate::wal::{RealDisk, segments};

pub(super) const ALL: &[Command] = &[
    Command {
        name: "wal check",
        arguments: "DIR",
        what: "check whether a node can start from a data directory, and show its contents",
        examples: &[
            "wal check /var/lib/edgetcd",
            "wal check /var/lib/edgetcd --wal-dir /fast/wal",
            "-o json wal check default.etcd",
        ],
        options: &[WAL_DIR, HELP],
        run: check,
    },
    wal_dump::DUMP,
];

pub(super) const WAL_DIR: Opt = Opt::text(
    &["wal-dir"],
    "the directory of the log, if the node has a --wal-dir",
);

/// The paths of a data directory and its log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
}

impl Place {
    /// Reads the argument and `--wal-dir`. A folder inside the data directory is accepted as well.
    pub fn given(run: &Run) -> Result<Place, Stop> {
        let [dir] = run.parsed.args.as_slice() else {
            return Err(Stop::Usage("one data directory required".to_owned()));
        };
        let wal_dir = run.parsed.text("wal-dir").filter(|dir| !dir.is_empty());
        Ok(Place {
            dir: data_dir(Path::new(dir)),
            wal_dir: wal_dir.map(PathBuf::from),
        })
    }

    /// The folder of the segments.
    pub fn wal(&self) -> PathBuf {
        let wal_dir = self.wal_dir.clone();
        wal_dir.unwrap_or_else(|| self.dir.join("member/wal"))
    }
}

/// Finds the data directory from its own path, its `member` folder, or a folder or file in that.
fn data_dir(given: &Path) -> PathBuf {
    if given.join("member").exists() {
        return given.to_owned();
    }
    let Ok(whole) = given.canonicalize() else {
        return given.to_owned();
    };
    // Does not search further up, because a folder with that name may be unrelated.
    let member = whole
        .ancestors()
        .take(3)
        .find(|above| above.ends_with("member"));
    let above = member.and_then(Path::parent);
    above.map_or_else(|| given.to_owned(), Path::to_owned)
}

fn check(run: &mut Run) -> Result<(), Stop> {
    let place = Place::given(run)?;
    let json = run.globals.output == "json";
    let inspected = match inspect(&place.dir, place.wal_dir.as_deref(), 0) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(nothing(&place)),
        Err(refusal) => Err(refusal),
    };
    match inspected {
        Ok(found) if json => Ok(writeln!(
            run.world.stdout,
            "{}",
            to_json(&Good::new(&place, &found))?
        )?),
        Ok(found) => Ok(write!(run.world.stdout, "{}", text(&place, &found))?),
        Err(refusal) if json => {
            writeln!(
                run.world.stdout,
                "{}",
                to_json(&Bad::new(&place, &refusal))?
            )?;
            Err(Stop::Reported(1))
        }
        Err(refusal) => Err(Stop::Plain(refusal.to_string())),
    }
}

fn to_json(value: &impl Serialize) -> Result<String, Stop> {
    Ok(serde_json::to_string(value).map_err(std::io::Error::from)?)
}

/// A start would not fail here but create a new member. The user of this command does not expect that.
fn nothing(place: &Place) -> Refusal {
    let dir = place.dir.display();
    let reason = match place.dir.exists() {
        false => format!("{dir}: there is no such directory"),
        true => format!(
            "{dir}: this directory contains no node; a node that starts on it would be a new one"
        ),
    };
    let is_wal_dir =
        segments(&RealDisk::default(), &place.dir).is_ok_and(|found| !found.is_empty());
    let hint = match is_wal_dir {
        true => format!(
            "this is a log directory; use the data directory that belongs to it, and --wal-dir {dir}"
        ),
        false => "use the path that the node has as its --data-dir (default: NAME.etcd)".to_owned(),
    };
    Refusal {
        path: place.dir.clone(),
        offset: None,
        index: None,
        reason,
        hint,
    }
}

#[derive(Debug, Serialize)]
struct Bad {
    dir: String,
    good: bool,
    error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    file: String,
    offset: Option<u64>,
    /// The first lost entry.
    entry: Option<u64>,
}

impl Bad {
    fn new(place: &Place, refusal: &Refusal) -> Bad {
        Bad {
            dir: place.dir.display().to_string(),
            good: false,
            error: refusal.reason.clone(),
            hint: refusal.hint.clone(),
            file: refusal.path.display().to_string(),
            offset: refusal.offset,
            entry: refusal.index.map(|index| index.0),
        }
    }
}

#[derive(Debug, Serialize)]
struct Good {
    dir: String,
    good: bool,
    running: bool,
    pid: Option<u32>,
    member: Option<String>,
    cluster: String,
    term: u64,
    vote: Option<String>,
    segments: Vec<Segment>,
    records: u64,
    /// The first and last entry in the log. 0 and 0: none.
    first_entry: u64,
    last_entry: u64,
    snapshot: Option<Snapshot>,
    index: u64,
    keys: u64,
    directories: u64,
    with_ttl: u64,
    members: Vec<String>,
    /// Since when no write has been synced: `this_boot` or `earlier_boot`. `None`: all were synced.
    unsynced: Option<&'static str>,
    warnings: Vec<String>,
    removes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Segment {
    file: String,
    end: u64,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    file: String,
    entry: u64,
    term: u64,
    bytes: u64,
}

impl Good {
    fn new(place: &Place, found: &Inspected) -> Good {
        let shown = |path: &PathBuf| path.display().to_string();
        let census = Census::of(&found.state.tree);
        let has_entries = found.first <= found.last.index;
        let position = found.metadata.position;
        let segments = found.segments.iter().map(|segment| Segment {
            file: shown(&segment.path),
            end: segment.end,
        });
        Good {
            dir: shown(&place.dir),
            good: true,
            running: found.running.is_some(),
            pid: found.running.and_then(|holder| holder.pid),
            member: found.identity.as_ref().map(|identity| hex(identity.id)),
            cluster: hex(found.members().cluster),
            term: found.hard_state.term.0,
            vote: found.hard_state.vote.map(|node| hex(node.0)),
            segments: segments.collect(),
            records: found.records,
            first_entry: if has_entries { found.first.0 } else { 0 },
            last_entry: if has_entries { found.last.index.0 } else { 0 },
            snapshot: found.snapshot.as_ref().map(|(path, bytes)| Snapshot {
                file: shown(path),
                entry: position.index.0,
                term: position.term.0,
                bytes: *bytes,
            }),
            index: found.state.tree.index().0,
            keys: census.files,
            directories: census.dirs,
            with_ttl: census.expiring,
            members: found.members().iter().map(member).collect(),
            unsynced: found.unsynced.map(|since| match since {
                Unsynced::ThisBoot => "this_boot",
                Unsynced::EarlierBoot => "earlier_boot",
            }),
            warnings: found.warnings.clone(),
            removes: found.leftovers.iter().map(shown).collect(),
        }
    }
}

fn member(member: &crate::engine::members::Member) -> String {
    let name = match member.name.as_str() {
        "" => hex(member.id),
        name => name.to_owned(),
    };
    format!("{name}={}", member.peer_urls.join(","))
}

fn text(place: &Place, found: &Inspected) -> String {
    let good = Good::new(place, found);
    let mended = match good.warnings.is_empty() {
        true => "",
        false => ", after the repairs in the warnings",
    };
    let mut out = format!("{}: good, a node can start from it{mended}\n", good.dir);
    let mut line = |name: &str, value: &str| out += &format!("  {name:<12} {value}\n");
    match &good.member {
        Some(member) => line("member", &format!("{member} of cluster {}", good.cluster)),
        None => line("member", "not known: a start takes it from the flags"),
    }
    if good.running {
        let who = good
            .pid
            .map_or("a process".to_owned(), |pid| format!("process {pid}"));
        line(
            "in use",
            &format!("{who} is running on it: this is its state at one moment"),
        );
    }
    line("term", &term(&good));
    line("log", &log(&good));
    line("snapshot", &snapshot(&good));
    let held = held(good.keys, good.directories);
    line("holds", &format!("{held} at index {}", good.index));
    line("members", &good.members.join(" "));
    if let Some(unsynced) = found.unsynced {
        line("unsynced", unsynced_text(unsynced));
    }
    good.warnings
        .iter()
        .for_each(|warning| line("warning", warning));
    good.removes.iter().for_each(|file| line("removes", file));
    out
}

/// The meaning of a directory that was written with `--unsafe-no-fsync`.
fn unsynced_text(unsynced: Unsynced) -> &'static str {
    match unsynced {
        Unsynced::ThisBoot => {
            "written without syncs (--unsafe-no-fsync): if the machine stops, acknowledged writes are lost"
        }
        Unsynced::EarlierBoot => {
            "written without syncs (--unsafe-no-fsync), and the machine has restarted since, or this is another one: \
             writes and votes that this member has acknowledged may be missing"
        }
    }
}

fn term(good: &Good) -> String {
    let vote = good.vote.as_deref().unwrap_or("nobody");
    format!("{}, voted for {vote}", good.term)
}

fn log(good: &Good) -> String {
    let entries = match good.last_entry {
        0 => "no entries".to_owned(),
        last => format!("entries {} to {last}", good.first_entry),
    };
    let files = count(good.segments.len() as u64, "file", "files");
    let records = count(good.records, "record", "records");
    format!("{files}, {records}, {entries}")
}

/// The numbers of keys and directories as text.
pub(super) fn held(keys: u64, directories: u64) -> String {
    let keys = count(keys, "key", "keys");
    let directories = count(directories, "directory", "directories");
    format!("{keys}, {directories}")
}

fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn snapshot(good: &Good) -> String {
    match &good.snapshot {
        None => "none".to_owned(),
        Some(Snapshot {
            file,
            entry,
            term,
            bytes,
        }) => format!("{file}: up to entry {entry} of term {term}, {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_inside_of_a_data_directory_stand_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder
            .path()
            .canonicalize()
            .expect("it is there")
            .join("data");
        std::fs::create_dir_all(data.join("member/wal")).expect("made");
        std::fs::write(data.join("member/wal/x.wal"), b"").expect("written");
        for inside in [
            "",
            "member",
            "member/wal",
            "member/wal/x.wal",
            "member/snap/../wal/",
        ] {
            std::fs::create_dir_all(data.join("member/snap")).expect("made");
            assert_eq!(
                data_dir(&data.join(inside)).canonicalize().expect("there"),
                data,
                "{inside}"
            );
        }
        let elsewhere = folder.path().join("none");
        assert_eq!(data_dir(&elsewhere), elsewhere);
        assert_eq!(data_dir(folder.path()), folder.path());
    }
}
