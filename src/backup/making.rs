//! A complete data directory, in one step.
//!
//! A log that lies elsewhere has its place before that step. So its segments are listed first, in the folder
//! that is made aside: as long as the list and the folder `member` both lie there, the segments are nobody's,
//! whatever ended the restore, and the next attempt removes them. Their names are drawn, so no others are
//! meant. (An attempt that puts the log elsewhere, or leaves that out, forgets them; they are in the way of
//! the next one there, which says so.)

use super::BackupError;
use crate::config::Config;
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::SnapshotMark;
use crate::wal::{self, Batch, Disk, Home, Options, RealDisk};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

/// Where all is made before it has its place. A node does not start on a directory that has it and no `member`.
const ASIDE: &str = wal::RESTORE;
/// The file system's own, in a mount point.
const LOST_AND_FOUND: &str = "lost+found";
const MEMBER: &str = "member";
/// The segments that are given their place in the log's folder, a name a line.
const PLACED: &str = wal::RESTORE_PLACED;

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
    refuse_used(place)?;
    let aside = Aside::begin(place)?;
    aside.fill(identity, mark, state, batch)?;
    aside.check(mark)?;
    aside.finish()
}

/// One of the two would be in the way of the other, which begins empty.
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
        "{} lies in {}: leave out where the log goes, or put it elsewhere",
        inner.display(),
        outer.display()
    )))
}

/// The same path without links and detours, though its end may not be there yet.
fn resolved(path: &Path) -> PathBuf {
    let path = Path::new(".").join(path);
    let known = path
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut whole)) = known else {
        return path;
    };
    // What is not there is no link: `..` behind it leads back.
    for part in path.strip_prefix(above).unwrap_or(&path).components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => drop(whole.pop()),
            _ => {}
        }
    }
    whole
}

/// Nobody's data is overwritten.
fn refuse_used(place: &Place) -> Result<(), BackupError> {
    let placed = placed(place)?;
    for folder in place.folders() {
        let found = match RealDisk::default().list(folder) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(folder, "list this folder", &error)),
        };
        let is_ours = |name: &str| {
            let is_placed = *folder != place.dir && placed.iter().any(|placed| placed == name);
            [ASIDE, LOST_AND_FOUND].contains(&name) || is_placed
        };
        if let Some(used) = found.iter().find(|found| !is_ours(&found.name)) {
            return Err(BackupError::Refused(format!(
                "{dir} is not empty, {name} is in it: a restored member begins in an empty directory; stop \
                 its server, keep the old one (mv {dir} {dir}.old), or give another",
                dir = folder.display(),
                name = used.name
            )));
        }
    }
    Ok(())
}

/// The segments in the log's folder that a restore has left there before its last step.
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

/// Takes back what [`placed`] tells, so that the log's folder is as it was.
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
    // The list may go only after them.
    sync(&RealDisk::default(), wal_dir)
}

fn failed(path: &Path, doing: &str, error: &io::Error) -> BackupError {
    BackupError::Refused(format!("{}: cannot {doing}: {error}", path.display()))
}

/// What is being made. Dropped before [`Aside::finish`], it leaves nothing but a directory that was there.
struct Aside {
    place: Place,
    options: Options,
    /// Folders that were made for this, the inner ones last.
    made: Vec<PathBuf>,
    /// On the folders themselves, so that nothing is left of them.
    locks: Vec<File>,
    /// Some of the log may have its place.
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
        // Another restore may have come and gone since it was looked at first.
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
    fn finish(mut self) -> Result<(), BackupError> {
        self.place_log()?;
        self.place_member()?;
        for folder in self.place.folders() {
            remove(&folder.join(ASIDE))?;
            sync(&RealDisk::default(), folder)?;
        }
        Ok(())
    }

    /// Segments only: a start makes the file of its lock itself.
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
        // Where the log cannot be taken back, the list of it stays for the next attempt.
        if self.finished || self.placed && unplace(&self.place).is_err() {
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

/// How often a directory is made that another restore, which gives up, has made and removes again.
const MAKE_DIR_TRIES: usize = 100;

fn make_dir(folder: &Path) -> Result<(), BackupError> {
    let disk = RealDisk::default();
    // Gone again, or there again since: only another kind of file is in the way for good.
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

#[cfg(test)]
mod tests;
