//! `edgetcdctl snapshot`: saves all keys of a cluster in a file, and checks such files.
//!
//! `save` downloads `/edgetcd/snapshot` (see `crate::api`). It checks each slice as it arrives. The file gets its
//! name only when it is complete, valid and synced, so a file with that name is always a backup. If a download was
//! cut or damaged, it is discarded, and the next endpoint is tried.

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
use crate::raft::SnapshotMetadata;
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
            Opt::flag(&["force", "f"], "replace FILE if it exists"),
            Opt::flag(
                &["local"],
                "save the data of the given endpoint without asking a majority: the newest writes may be missing",
            ),
            Opt::text(
                &["data-dir"],
                "read the data directory of a server that does not start; nothing is changed there",
            ),
            Opt::text(
                &["wal-dir"],
                "the directory of its log, if not in --data-dir",
            ),
            HELP,
        ],
        run: save,
    },
    Command {
        name: "snapshot check",
        arguments: "FILE...",
        what: "check whether a node can start from a file, and show its contents",
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

/// A summary of the saved data, printed at the end.
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
                // Bytes that were written to stdout cannot be taken back.
                if begun && is_stdout {
                    break;
                }
            }
        }
    }
    Err(nobody(misses))
}

/// Saves the data of a member that does not run.
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
    let position = contents.metadata.position;
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
        [_, more, ..] => Err(Stop::Usage(format!(
            "only one FILE is allowed, but there is also {more}"
        ))),
    }
}

/// A device or a pipe with this name would be replaced by a file.
fn refuse_what_is_no_file(path: &Path) -> Result<(), Stop> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(Stop::Plain(format!(
            "{} exists and is not a regular file; to write to it: snapshot save - > {}",
            path.display(),
            path.display()
        ))),
        // Other errors are reported when the file is written.
        _ => Ok(()),
    }
}

fn refuse_existing(path: &Path) -> Result<(), Stop> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Stop::Plain(format!("{}: {error}", path.display()))),
        Ok(_) => Err(Stop::Plain(format!(
            "{} exists already; use another name, or --force to replace it",
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

/// The reason why nothing was saved.
enum Unsaved {
    /// An error on this machine: another endpoint would not help.
    Here(Stop),
    /// An error of the endpoint, and whether some bytes were already written.
    There(Miss, bool),
}

/// A request to one endpoint.
struct Asked<'a> {
    endpoint: &'a Endpoint,
    settings: &'a Settings,
    local: bool,
    show: bool,
}

impl Asked<'_> {
    /// Writes to a temporary name in the same folder first.
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
            // Without it nobody knows where the file ends, and a disk could be filled.
            200 if download.head.bytes == 0 => {
                let endpoint = self.endpoint;
                let error = format!("client: {endpoint}: the answer does not say how long it is");
                Err(Unsaved::There(Miss::sent(error), false))
            }
            200 => Ok(download),
            _ => Err(Unsaved::There(self.refused(download), false)),
        }
    }

    fn refused(&self, download: Download) -> Miss {
        let (endpoint, status) = (self.endpoint, download.head.status);
        let text = download.text();
        let error = match status {
            404 => format!("client: {endpoint} has no {PATH}: check that it is an edgetcd"),
            500 => format!(
                "client: {endpoint}: {}; if there is no majority, save the data of this member with --local",
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
        let (metadata, bytes) = copied?;
        let number = |name: &str| download.head.number(name).unwrap_or(0);
        Ok(Saved {
            file: name.to_owned(),
            from: self.endpoint.to_string(),
            keys: number("X-Edgetcd-Keys"),
            directories: number("X-Edgetcd-Directories"),
            index: number("X-Etcd-Index"),
            raft_index: metadata.position.index.0,
            raft_term: metadata.position.term.0,
            bytes,
        })
    }

    fn copy(
        &self,
        download: &mut Download,
        out: &mut dyn Write,
        name: &str,
        progress: &Progress,
    ) -> Result<(SnapshotMetadata, u64), Unsaved> {
        let mut checker = SliceChecker::default();
        let flawed = |flaw: crate::wal::Flaw| {
            let (endpoint, offset, what) = (self.endpoint, flaw.offset, flaw.what);
            let error = format!(
                "client: {endpoint}: the received data is damaged: {what}, at byte {offset}"
            );
            Unsaved::There(Miss::sent(error), true)
        };
        let here = |error| Unsaved::Here(Stop::Plain(format!("{name}: {error}")));
        let mut bytes = 0;
        while let Some(piece) = download.next().map_err(|miss| Unsaved::There(miss, true))? {
            bytes += piece.len() as u64;
            // With chunks, the HTTP library does not look at the announced length.
            if bytes > download.head.bytes {
                let (endpoint, announced) = (self.endpoint, download.head.bytes);
                let error =
                    format!("client: {endpoint}: more than the announced {announced} bytes came");
                return Err(Unsaved::There(Miss::sent(error), true));
            }
            checker.push(&piece).map_err(flawed)?;
            out.write_all(&piece).map_err(here)?;
            let kib = usize::try_from(bytes >> 10).unwrap_or(usize::MAX);
            progress.done.store(kib, Ordering::Relaxed);
        }
        let metadata = checker.finish().map_err(flawed)?;
        out.flush().map_err(here)?;
        Ok((metadata, bytes))
    }
}

/// The cause in an error of the keys API.
fn cause(body: &str) -> Option<String> {
    let error: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(error.get("cause")?.as_str()?.to_owned())
}
