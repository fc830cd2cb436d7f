//! Creates a complete data directory in one step.
//!
//! If the log has a folder of its own, the segments are moved there before that step. Their names are first written to
//! a list in the temporary folder. As long as both the list and the folder `member` are in the temporary folder, the
//! segments belong to an unfinished restore, and the next restore removes them. Segment names are random, so the list
//! cannot mean other files. A restore with another log folder, or without one, forgets these segments. A later restore
//! into the old log folder then finds them and reports them.

use super::BackupError;
use crate::config::Config;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::SnapshotMetadata;
use crate::wal::{self, Batch, DataDir, Disk, Options, RealDisk};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

/// Temporary folder in which everything is created. A node does not start on a directory that contains it and no
/// `member`.
const ASIDE: &str = wal::RESTORE;
/// A folder that the file system itself creates in a mount point.
const LOST_AND_FOUND: &str = "lost+found";
const MEMBER: &str = "member";
/// List of the segments that are moved into the log's folder, one name per line.
const PLACED: &str = wal::RESTORE_PLACED;

/// The folders of a member's data.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data directory. It is empty or does not exist yet.
    pub dir: PathBuf,
    /// The separate folder of the log, if there is one. It is also empty or does not exist yet.
    pub wal_dir: Option<PathBuf>,
}

impl Place {
    /// The folders that the flags name.
    pub fn of(config: &Config) -> Place {
        Place {
            dir: config.data_dir.clone(),
            wal_dir: config.wal_dir.clone(),
        }
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.dir).chain(&self.wal_dir)
    }
}

/// Creates the directory for a member with this identity: the state as a snapshot, and a log that contains only
/// `batch`.
pub(super) fn make(
    place: &Place,
    identity: &Identity,
    metadata: &SnapshotMetadata,
    state: &State,
    batch: &Batch,
) -> Result<(), BackupError> {
    refuse_within(place)?;
    refuse_used(place)?;
    let aside = Aside::begin(place)?;
    aside.fill(identity, metadata, state, batch)?;
    aside.check(metadata)?;
    aside.finish()
}

/// Refuses folders that contain each other, because both must be empty at the beginning.
fn refuse_within(place: &Place) -> Result<(), BackupError> {
    let Some(wal_dir) = &place.wal_dir else {
        return Ok(());
    };
    let (dir, wal) = (resolved(&place.dir), resolved(wal_dir));
    let (inner, outer) = match (wal.starts_with(&dir), dir.starts_with(&wal)) {
        (true, _) => (wal_dir, &place.dir),
        (false, true) => (&place.dir, wal_dir),
        (false, false) => return Ok(()),
    };
    Err(BackupError::Refused(format!(
        "{} is inside {}: omit --wal-dir, or use a directory elsewhere",
        inner.display(),
        outer.display()
    )))
}

/// The same path without links and `..`, even if its end does not exist yet.
fn resolved(path: &Path) -> PathBuf {
    let path = Path::new(".").join(path);
    let known = path
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut whole)) = known else {
        return path;
    };
    // A part that does not exist is no link, so `..` after it leads back.
    for part in path.strip_prefix(above).unwrap_or(&path).components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => drop(whole.pop()),
            _ => {}
        }
    }
    whole
}

/// Refuses a directory that contains data. A restore never overwrites data.
fn refuse_used(place: &Place) -> Result<(), BackupError> {
    let placed = placed(place)?;
    for folder in place.folders() {
        let found = match RealDisk::default().list(folder) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(folder, "list this directory", &error)),
        };
        let is_ours = |name: &str| {
            let is_placed = *folder != place.dir && placed.iter().any(|placed| placed == name);
            [ASIDE, LOST_AND_FOUND].contains(&name) || is_placed
        };
        if let Some(used) = found.iter().find(|found| !is_ours(&found.name)) {
            return Err(BackupError::Refused(format!(
                "{dir} is not empty, it contains {name}: a restored member begins in an empty directory; stop \
                 its server and move the old directory aside (mv {dir} {dir}.old), or use another",
                dir = folder.display(),
                name = used.name
            )));
        }
    }
    Ok(())
}

/// The segments that an unfinished restore left in the log's folder.
fn placed(place: &Place) -> Result<Vec<String>, BackupError> {
    let aside = place.dir.join(ASIDE);
    if !aside.join(MEMBER).exists() {
        return Ok(Vec::new());
    }
    Ok(wal::placed_segments(&RealDisk::default(), &place.dir)?)
}

fn is_segment(name: &&str) -> bool {
    name.ends_with(".wal") && !name.contains('/')
}

/// Removes the segments listed by [`placed`], so that the log's folder is as it was.
fn unplace(place: &Place) -> Result<(), BackupError> {
    let Some(wal_dir) = &place.wal_dir else {
        return Ok(());
    };
    for name in placed(place)? {
        let path = wal_dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(&path, "remove it", &error));
            }
            _ => {}
        }
    }
    // The segments must be gone before the list may be removed.
    sync(&RealDisk::default(), wal_dir)
}

fn failed(path: &Path, doing: &str, error: &io::Error) -> BackupError {
    BackupError::Refused(format!("{}: cannot {doing}: {error}", path.display()))
}

/// A directory in creation. If it is dropped before [`Aside::finish`], everything is removed except folders that
/// existed before.
struct Aside {
    place: Place,
    options: Options,
    /// Folders created for this restore, inner ones last.
    made: Vec<PathBuf>,
    /// Locks on the folders themselves, so that no lock files are left.
    locks: Vec<File>,
    /// Whether segments may have been moved to the log's folder.
    placed: bool,
    finished: bool,
}

impl Aside {
    fn begin(place: &Place) -> Result<Aside, BackupError> {
        let mut aside = Aside {
            place: place.clone(),
            options: Options {
                wal_dir: place.wal_dir.as_ref().map(|dir| dir.join(ASIDE)),
                ..Options::new(place.dir.join(ASIDE))
            },
            made: Vec::new(),
            locks: Vec::new(),
            placed: false,
            finished: false,
        };
        for folder in place.folders() {
            let is_new = !folder.exists();
            make_dir(folder)?;
            aside.locks.push(lock(folder)?);
            aside.made.extend(is_new.then(|| folder.clone()));
        }
        // Another restore may have run since the first check.
        refuse_used(place)?;
        unplace(place)?;
        for folder in place.folders() {
            let inner = folder.join(ASIDE);
            remove(&inner)?;
            aside.made.push(inner.clone());
            make_dir(&inner)?;
        }
        Ok(aside)
    }

    fn fill(
        &self,
        identity: &Identity,
        metadata: &SnapshotMetadata,
        state: &State,
        batch: &Batch,
    ) -> Result<(), BackupError> {
        let data_dir = DataDir::open(RealDisk::default(), self.options.clone())?;
        let (mut log, _) = wal::recover(&data_dir)?;
        let mut snapshot = log.begin_snapshot(metadata)?;
        state.save(|slice| snapshot.write(slice))?;
        snapshot.finish()?;
        // The log restarts after the snapshot, as it does after a leader has sent one.
        log.compact(metadata)?;
        log.write(batch)?;
        log.close()?;
        Ok(data_dir.write_identity(&identity.to_bytes())?)
    }

    /// Reads the directory as a start would, so that an unreadable one is reported now and not at the start.
    fn check(&self, metadata: &SnapshotMetadata) -> Result<(), BackupError> {
        let seen = wal::inspect(RealDisk::default(), self.options.clone())?;
        match seen.map(|seen| (seen.start(), seen.last)) {
            Some(found) if found == (metadata.position, metadata.position) => Ok(()),
            found => Err(BackupError::Refused(format!(
                "{}: reading the new directory back gives {found:?}, not what was written: check the disk",
                self.options.dir.display()
            ))),
        }
    }

    /// Moves everything to its final place. The log is moved first: without the rest it belongs to nobody.
    fn finish(mut self) -> Result<(), BackupError> {
        self.place_log()?;
        self.place_member()?;
        for folder in self.place.folders() {
            remove(&folder.join(ASIDE))?;
            sync(&RealDisk::default(), folder)?;
        }
        Ok(())
    }

    /// Moves only segments: a start creates its own lock file.
    fn place_log(&mut self) -> Result<(), BackupError> {
        let (Some(from), Some(to)) = (&self.options.wal_dir, &self.place.wal_dir) else {
            return Ok(());
        };
        let names = list(from)?;
        let segments = || names.iter().map(String::as_str).filter(is_segment);
        self.note_placed(&segments().collect::<Vec<_>>().join("\n"))?;
        self.placed = true;
        for name in segments() {
            rename(&from.join(name), &to.join(name))?;
        }
        sync(&RealDisk::default(), to)
    }

    fn note_placed(&self, names: &str) -> Result<(), BackupError> {
        let list = self.options.dir.join(PLACED);
        let written = File::create(&list).and_then(|mut file| {
            file.write_all(names.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| failed(&list, "write it", &error))?;
        sync(&RealDisk::default(), &self.options.dir)
    }

    fn place_member(&mut self) -> Result<(), BackupError> {
        let dir = &self.place.dir;
        rename(&self.options.dir.join(MEMBER), &dir.join(MEMBER))?;
        self.finished = true;
        sync(&RealDisk::default(), dir)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // If the segments cannot be removed, the list stays for the next restore.
        if self.finished || self.placed && unplace(&self.place).is_err() {
            return;
        }
        for folder in self.made.iter().rev() {
            // A folder that cannot be removed does no harm. A folder that is not empty stays.
            let _ = match folder.ends_with(ASIDE) {
                true => fs::remove_dir_all(folder),
                false => fs::remove_dir(folder),
            };
        }
    }
}

/// Keeps other restores out. A second restore at the same time is unlikely on a file system without locks.
fn lock(folder: &Path) -> Result<File, BackupError> {
    let file = File::open(folder).map_err(|error| failed(folder, "open this directory", &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(BackupError::Refused(format!(
            "another restore is running in {}",
            folder.display()
        ))),
        _ => Ok(file),
    }
}

/// Number of attempts to create a directory that another failing restore creates and removes at the same time.
const MAKE_DIR_TRIES: usize = 100;

fn make_dir(folder: &Path) -> Result<(), BackupError> {
    let disk = RealDisk::default();
    // The folder disappeared or appeared in between. Only a file of another kind is a permanent obstacle.
    let is_passing = |error: &io::Error| {
        let is_in_the_way = folder.exists() && !folder.is_dir();
        [ErrorKind::AlreadyExists, ErrorKind::NotFound].contains(&error.kind()) && !is_in_the_way
    };
    let mut made = disk.make_dir(folder);
    for _ in 1..MAKE_DIR_TRIES {
        match &made {
            Err(error) if is_passing(error) => made = disk.make_dir(folder),
            _ => break,
        }
    }
    made.map_err(|error| failed(folder, "create this directory", &error))
}

fn list(folder: &Path) -> Result<Vec<String>, BackupError> {
    let found = RealDisk::default().list(folder);
    let found = found.map_err(|error| failed(folder, "list this directory", &error))?;
    Ok(found.into_iter().map(|found| found.name).collect())
}

fn remove(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed(folder, "remove this directory", &error))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    let renamed = RealDisk::default().rename(from, to);
    renamed.map_err(|error| failed(to, "move it to its place", &error))
}

fn sync(disk: &RealDisk, folder: &Path) -> Result<(), BackupError> {
    let synced = disk.sync_dir(folder);
    synced.map_err(|error| failed(folder, "sync this directory", &error))
}

#[cfg(test)]
mod tests;
