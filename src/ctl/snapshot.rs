//! `edgetcdctl snapshot`: all keys of a cluster in a file, and what a file is worth.
//!
//! `save` fetches `/edgetcd/snapshot` (see `crate::http`). Each slice is checked as it comes, and the file
//! has its name only once it is whole, good and on the disk: a name is a backup. What was cut or damaged on
//! the way is thrown away, and the next endpoint is asked.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;

use serde::Serialize;

use super::Stop;
use super::args::Opt;
use super::client::{Failure, Miss, Reach, Settings};
use super::command::{Command, HELP, Run};
use super::download::Download;
use super::endpoint::Endpoint;
use super::part_file::PartFile;
use super::progress::Progress;
use super::restore::{stop, tell_warnings};
use super::wal::held;
use super::wire::{Ask, Patience};
use crate::backup;
use crate::raft::SnapshotMark;
use crate::tree::Census;
use crate::wal::SliceChecker;

pub(super) const ALL: &[Command] = &[
    Command {
        name: "snapshot save",
        arguments: "FILE",
        what: "write all keys of a running cluster to a file (- is stdout)",
        examples: &[
            "snapshot save /mnt/backup/keys-$(date +%F).snap",
            "snapshot save - | ssh backup 'cat > keys.snap'",
            "--endpoints http://10.0.0.2:2379 snapshot save --local last.snap",
        ],
        options: &[
            Opt::flag(&["force", "f"], "replace FILE if it is there"),
            Opt::flag(
                &["local"],
                "what the given endpoint has, also without a majority: the newest writes may be missing",
            ),
            Opt::text(
                &["data-dir"],
                "read it from the directory of a server that does not start; nothing is changed there",
            ),
            Opt::text(&["wal-dir"], "where its log is, if not in --data-dir"),
            HELP,
        ],
        run: save,
    },
    Command {
        name: "snapshot check",
        arguments: "FILE...",
        what: "say whether a node can be started from a file, and what is in it",
        examples: &[
            "snapshot check keys.snap",
            "-o json snapshot check keys.snap",
            "snapshot check /var/lib/edgetcd/member/snap/*.snap",
        ],
        options: &[HELP],
        run: super::check::check,
    },
];

const PATH: &str = "/edgetcd/snapshot";

/// What was saved, as it is told at the end.
#[derive(Debug, Serialize)]
struct Saved {
    file: String,
    from: String,
    keys: u64,
    directories: u64,
    index: u64,
    raft_index: u64,
    raft_term: u64,
    bytes: u64,
}

fn save(run: &mut Run) -> Result<(), Stop> {
    let path = file_argument(run)?;
    let is_stdout = path == "-";
    if !is_stdout {
        match run.parsed.flag("force") {
            true => refuse_what_is_no_file(Path::new(&path))?,
            false => refuse_existing(Path::new(&path))?,
        }
    }
    if let Some(dir) = run.parsed.text("data-dir").map(PathBuf::from) {
        return save_offline(run, &path, &dir);
    }
    let local = run.parsed.flag("local");
    let client = match local {
        true => run.globals.given_endpoints(run.world.stderr)?,
        false => run.connect()?,
    };
    let mut misses = vec![];
    for endpoint in &client.endpoints {
        let asked = Asked {
            endpoint,
            settings: &client.settings,
            local,
            show: run.world.stderr_is_terminal,
        };
        let saved = match is_stdout {
            true => asked.save_to(&mut *run.world.stdout, "-"),
            false => asked.save_as(Path::new(&path), run.parsed.flag("force")),
        };
        match saved {
            Ok(saved) => return tell_saved(run, &saved, is_stdout),
            Err(Unsaved::Here(stop)) => return Err(stop),
            Err(Unsaved::There(miss, begun)) => {
                misses.push(miss);
                // Bytes on stdout cannot be taken back.
                if begun && is_stdout {
                    break;
                }
            }
        }
    }
    Err(nobody(misses))
}

/// What a member has that does not serve.
fn save_offline(run: &mut Run, path: &str, dir: &Path) -> Result<(), Stop> {
    let wal_dir = run.parsed.text("wal-dir").map(PathBuf::from);
    let read = backup::read_directory(dir, wal_dir.as_deref()).map_err(stop)?;
    tell_warnings(run, &read)?;
    let contents = read.contents;
    let mut file = match path {
        "-" => None,
        path => Some(PartFile::create(Path::new(path))?),
    };
    let out: &mut dyn Write = match &mut file {
        Some(part) => &mut part.file,
        None => &mut *run.world.stdout,
    };
    let bytes = contents
        .write(out)
        .map_err(|error| Stop::Plain(format!("{path}: {error}")))?;
    if let Some(mut file) = file {
        file.finish(Path::new(path))?;
    }
    let census = Census::of(&contents.state.tree);
    let position = contents.mark.position;
    let saved = Saved {
        file: path.to_owned(),
        from: dir.display().to_string(),
        keys: census.files,
        directories: census.dirs,
        index: contents.state.tree.index().0,
        raft_index: position.index.0,
        raft_term: position.term.0,
        bytes,
    };
    tell_saved(run, &saved, path == "-")
}

pub(super) fn file_argument(run: &Run) -> Result<String, Stop> {
    match run.parsed.args.as_slice() {
        [path] if !path.is_empty() => Ok(path.clone()),
        [] | [_] => Err(Stop::Usage("FILE required".to_owned())),
        [_, more, ..] => Err(Stop::Usage(format!("one FILE, and {more} is too much"))),
    }
}

/// A device or a pipe under this name would be replaced by a file.
fn refuse_what_is_no_file(path: &Path) -> Result<(), Stop> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(Stop::Plain(format!(
            "{} is there already, and no file; to write into it: snapshot save - > {}",
            path.display(),
            path.display()
        ))),
        // That it cannot be written to, the writing will tell.
        _ => Ok(()),
    }
}

fn refuse_existing(path: &Path) -> Result<(), Stop> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Stop::Plain(format!("{}: {error}", path.display()))),
        Ok(_) => Err(Stop::Plain(format!(
            "{} is there already; give another name, or --force to replace it",
            path.display()
        ))),
    }
}

fn nobody(misses: Vec<Miss>) -> Stop {
    let failure = |misses| Failure::Unavailable(misses);
    if misses.is_empty() {
        return Stop::Failed(Failure::NoEndpoints);
    }
    if misses.iter().all(|miss| miss.reach == Reach::Refused) {
        return Stop::Unconnected(failure(misses));
    }
    let errors: Vec<&str> = misses.iter().map(|miss| miss.error.as_str()).collect();
    Stop::NotServed(errors.join("\n        "))
}

fn tell_saved(run: &mut Run, saved: &Saved, on_stderr: bool) -> Result<(), Stop> {
    let out = match on_stderr {
        true => &mut run.world.stderr,
        false => &mut run.world.stdout,
    };
    if run.globals.output == "json" {
        let text = serde_json::to_string(saved).map_err(std::io::Error::from)?;
        return Ok(writeln!(out, "{text}")?);
    }
    let Saved {
        file,
        from,
        keys,
        directories,
        index,
        bytes,
        ..
    } = saved;
    let entry = format!("{}@{}", saved.raft_index, saved.raft_term);
    let held = held(*keys, *directories);
    Ok(writeln!(
        out,
        "{file}: {held} at index {index} (entry {entry}), {bytes} bytes, \
         from {from}"
    )?)
}

/// Why nothing was saved.
enum Unsaved {
    /// By this machine: no other endpoint would help.
    Here(Stop),
    /// By that endpoint; whether bytes had come already.
    There(Miss, bool),
}

/// What is asked of one endpoint.
struct Asked<'a> {
    endpoint: &'a Endpoint,
    settings: &'a Settings,
    local: bool,
    show: bool,
}

impl Asked<'_> {
    /// Under another name first, in the same folder.
    fn save_as(&self, path: &Path, force: bool) -> Result<Saved, Unsaved> {
        let download = self.begin()?;
        let mut file = PartFile::create(path).map_err(Unsaved::Here)?;
        let name = path.display().to_string();
        let saved = self.fetch(download, &mut file.file, &name)?;
        if !force {
            refuse_existing(path).map_err(Unsaved::Here)?;
        }
        file.finish(path).map_err(Unsaved::Here)?;
        Ok(saved)
    }

    fn save_to(&self, out: &mut dyn Write, name: &str) -> Result<Saved, Unsaved> {
        self.fetch(self.begin()?, out, name)
    }

    fn begin(&self) -> Result<Download, Unsaved> {
        let query = match self.local {
            true => vec![("local", "true".to_owned())],
            false => vec![],
        };
        let ask = Ask {
            patience: Patience::Long,
            ..Ask::get(PATH, query)
        };
        let begun = Download::begin(self.endpoint, self.settings, ask);
        let download = begun.map_err(|miss| Unsaved::There(miss, false))?;
        match download.head.status {
            200 => Ok(download),
            _ => Err(Unsaved::There(self.refused(download), false)),
        }
    }

    fn refused(&self, download: Download) -> Miss {
        let (endpoint, status) = (self.endpoint, download.head.status);
        let text = download.text();
        let error = match status {
            404 => format!("client: {endpoint} has no {PATH}: is it an edgetcd?"),
            500 => format!(
                "client: {endpoint}: {}; without a majority of the members, --local saves what this one has",
                cause(&text).unwrap_or(text)
            ),
            _ => format!("client: {endpoint}: {text}"),
        };
        Miss::sent(error)
    }

    fn fetch(
        &self,
        mut download: Download,
        out: &mut dyn Write,
        name: &str,
    ) -> Result<Saved, Unsaved> {
        let kib = usize::try_from(download.head.bytes >> 10).unwrap_or(usize::MAX);
        let progress = Progress::with_unit(kib, " KiB");
        let copied = thread::scope(|scope| {
            if self.show {
                scope.spawn(|| progress.show());
            }
            let _ends = progress.until_dropped();
            self.copy(&mut download, out, name, &progress)
        });
        let (mark, bytes) = copied?;
        let number = |name: &str| download.head.number(name).unwrap_or(0);
        Ok(Saved {
            file: name.to_owned(),
            from: self.endpoint.to_string(),
            keys: number("X-Edgetcd-Keys"),
            directories: number("X-Edgetcd-Directories"),
            index: number("X-Etcd-Index"),
            raft_index: mark.position.index.0,
            raft_term: mark.position.term.0,
            bytes,
        })
    }

    fn copy(
        &self,
        download: &mut Download,
        out: &mut dyn Write,
        name: &str,
        progress: &Progress,
    ) -> Result<(SnapshotMark, u64), Unsaved> {
        let mut checker = SliceChecker::default();
        let flawed = |flaw: crate::wal::Flaw| {
            let (endpoint, offset, what) = (self.endpoint, flaw.offset, flaw.what);
            let error =
                format!("client: {endpoint}: what came is no good: {what}, at byte {offset}");
            Unsaved::There(Miss::sent(error), true)
        };
        let here = |error| Unsaved::Here(Stop::Plain(format!("{name}: {error}")));
        let mut bytes = 0;
        while let Some(piece) = download.next().map_err(|miss| Unsaved::There(miss, true))? {
            checker.push(&piece).map_err(flawed)?;
            out.write_all(&piece).map_err(here)?;
            bytes += piece.len() as u64;
            let kib = usize::try_from(bytes >> 10).unwrap_or(usize::MAX);
            progress.done.store(kib, Ordering::Relaxed);
        }
        let mark = checker.finish().map_err(flawed)?;
        out.flush().map_err(here)?;
        Ok((mark, bytes))
    }
}

/// The cause in an error of the keys API.
fn cause(body: &str) -> Option<String> {
    let error: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(error.get("cause")?.as_str()?.to_owned())
}
