//! A complete data directory, in one step.

use super::BackupError;
use crate::config::Config;
use crate::identity::Identity;
use crate::raft::SnapshotMark;
use crate::replica::state::State;
use crate::wal::{self, Batch, Disk, Home, Options, RealDisk};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where all is made before it has its place.
const ASIDE: &str = "restore.tmp";
/// The file system's own, in a mount point.
const LOST_AND_FOUND: &str = "lost+found";
const MEMBER: &str = "member";

/// Where a member's data goes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data directory: empty, or not there yet.
    pub dir: PathBuf,
    /// The same for the log, where it lies elsewhere.
    pub wal_dir: Option<PathBuf>,
}

impl Place {
    /// Where the flags say.
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

/// Makes the directory that a member with this identity goes on from: after the state, with nothing in its log
/// but what `batch` notes.
pub(super) fn make(
    place: &Place,
    identity: &Identity,
    mark: &SnapshotMark,
    state: &State,
    batch: &Batch,
) -> Result<(), BackupError> {
    refuse_within(place)?;
    for folder in place.folders() {
        refuse_used(folder)?;
    }
    let aside = Aside::begin(place)?;
    aside.fill(identity, mark, state, batch)?;
    aside.check(mark)?;
    aside.finish(place)
}

/// The log's folder would be in the way of the folder that is given its place.
fn refuse_within(place: &Place) -> Result<(), BackupError> {
    match &place.wal_dir {
        Some(wal_dir) if wal_dir.starts_with(&place.dir) => Err(BackupError::Refused(format!(
            "{} lies in {}: leave out where the log goes, or put it elsewhere",
            wal_dir.display(),
            place.dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Nobody's data is overwritten.
fn refuse_used(folder: &Path) -> Result<(), BackupError> {
    let found = match RealDisk::default().list(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(folder, "list this folder", &error)),
    };
    let used = |name: &&str| ![ASIDE, LOST_AND_FOUND].contains(name);
    match found.iter().map(|found| found.name.as_str()).find(used) {
        None => Ok(()),
        Some(name) => Err(BackupError::Refused(format!(
            "{dir} is not empty, {name} is in it: a restored member begins in an empty directory; stop its \
             server, keep the old one (mv {dir} {dir}.old), or give another",
            dir = folder.display()
        ))),
    }
}

fn failed(path: &Path, doing: &str, error: &io::Error) -> BackupError {
    BackupError::Refused(format!("{}: cannot {doing}: {error}", path.display()))
}

/// What is being made. Dropped before [`Aside::finish`], it leaves nothing but a directory that was there.
struct Aside {
    options: Options,
    /// Folders that were made for this, the inner ones last.
    made: Vec<PathBuf>,
    /// On the folders themselves, so that nothing is left of them.
    locks: Vec<File>,
    finished: bool,
}

impl Aside {
    fn begin(place: &Place) -> Result<Aside, BackupError> {
        let mut aside = Aside {
            options: Options {
                wal_dir: place.wal_dir.as_ref().map(|dir| dir.join(ASIDE)),
                ..Options::new(place.dir.join(ASIDE))
            },
            made: Vec::new(),
            locks: Vec::new(),
            finished: false,
        };
        for folder in place.folders() {
            let is_new = !folder.exists();
            make_dir(folder)?;
            aside.locks.push(lock(folder)?);
            // Another restore may have come and gone since it was looked at first.
            refuse_used(folder)?;
            aside.made.extend(is_new.then(|| folder.clone()));
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
        mark: &SnapshotMark,
        state: &State,
        batch: &Batch,
    ) -> Result<(), BackupError> {
        let home = Home::open(RealDisk::default(), self.options.clone())?;
        let (mut log, _) = wal::recover(&home)?;
        let mut snapshot = log.begin_snapshot(mark)?;
        state.save(|slice| snapshot.write(slice))?;
        snapshot.finish()?;
        // The log begins anew behind the snapshot, as it does when a leader has sent one.
        log.compact(mark)?;
        log.write(batch)?;
        log.close()?;
        Ok(home.write_identity(&identity.to_bytes())?)
    }

    /// Reads it as a start would: what cannot be read back is told now, not then.
    fn check(&self, mark: &SnapshotMark) -> Result<(), BackupError> {
        let seen = wal::look(RealDisk::default(), self.options.clone())?;
        match seen.map(|seen| (seen.start(), seen.last)) {
            Some(found) if found == (mark.position, mark.position) => Ok(()),
            found => Err(BackupError::Refused(format!(
                "{}: what was written is not what is read back ({found:?}): is the disk sound?",
                self.options.dir.display()
            ))),
        }
    }

    /// Gives all its place. The log first: without the rest it is nobody's.
    fn finish(mut self, place: &Place) -> Result<(), BackupError> {
        let disk = RealDisk::default();
        if let (Some(from), Some(to)) = (&self.options.wal_dir, &place.wal_dir) {
            for found in list(from)? {
                rename(&from.join(&found), &to.join(&found))?;
            }
            sync(&disk, to)?;
        }
        let (from, to) = (self.options.dir.join(MEMBER), place.dir.join(MEMBER));
        rename(&from, &to)?;
        self.finished = true;
        sync(&disk, &place.dir)?;
        for folder in place.folders() {
            remove(&folder.join(ASIDE))?;
            sync(&disk, folder)?;
        }
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for folder in self.made.iter().rev() {
            // What cannot be removed is in nobody's way; a folder that is not empty stays.
            let _ = match folder.ends_with(ASIDE) {
                true => fs::remove_dir_all(folder),
                false => fs::remove_dir(folder),
            };
        }
    }
}

/// Keeps other restores out. A file system that has no locks has no second restore to speak of either.
fn lock(folder: &Path) -> Result<File, BackupError> {
    let file = File::open(folder).map_err(|error| failed(folder, "open this folder", &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(BackupError::Refused(format!(
            "another restore is at work in {}",
            folder.display()
        ))),
        _ => Ok(file),
    }
}

fn make_dir(folder: &Path) -> Result<(), BackupError> {
    let made = RealDisk::default().make_dir(folder);
    made.map_err(|error| failed(folder, "make this folder", &error))
}

fn list(folder: &Path) -> Result<Vec<String>, BackupError> {
    let found = RealDisk::default().list(folder);
    let found = found.map_err(|error| failed(folder, "list this folder", &error))?;
    Ok(found.into_iter().map(|found| found.name).collect())
}

fn remove(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed(folder, "remove this folder", &error))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    let renamed = RealDisk::default().rename(from, to);
    renamed.map_err(|error| failed(to, "give it its place", &error))
}

fn sync(disk: &RealDisk, folder: &Path) -> Result<(), BackupError> {
    let synced = disk.sync_dir(folder);
    synced.map_err(|error| failed(folder, "sync this folder", &error))
}
