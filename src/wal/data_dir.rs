//! The data directory: its layout, its lock, and the member's identity.
//!
//! | path under the data directory | content                                                         |
//! |-------------------------------|-----------------------------------------------------------------|
//! | `member/lock`                 | locked by the process that uses the directory; contains its pid |
//! | `member/identity`             | the member's identity: magic (8), CRC-32 of the rest (4), the bytes |
//! | `member/wal/`                 | segments (or in `--wal-dir`, which then has a `lock` of its own) |
//! | `member/snap/`                | snapshots                                                       |
//! | `member/unsynced`             | exists while the directory is written without syncs (see `unsynced`) |
//!
//! Folders are created readable only by their owner.

use super::disk::{Disk, DiskReader, DiskWriter, Found, Holder, Locked};
use super::error::{WalError, WalErrorKind};
use super::names::{self, SegmentName};
use super::replay;
use super::stats::WalStats;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MEMBER: &str = "member";
const IDENTITY: &str = "identity";
/// Folder in which a restore creates a data directory before it moves each part to its final place.
pub const RESTORE: &str = "restore.tmp";
/// File in that folder that lists the segments already moved to `--wal-dir`, one name per line.
pub const RESTORE_PLACED: &str = "placed";
/// Upper bound of the list's length. A restored log has one segment and one prepared segment.
const PLACED_BYTES_MAX: u64 = 64 << 10;
const IDENTITY_MAGIC: [u8; 8] = *b"edgetID1";
/// Upper bound of an identity's length. The identity of a cluster with 4,000 members fits.
const IDENTITY_BYTES_MAX: u64 = 1 << 20;

/// Where the log is stored, and how much of it is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// Folder for segments, instead of `member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Whether the log lies on another file system than the snapshots. Then the log leaves no room for them.
    pub log_is_apart: bool,
    /// Number of snapshots to keep. The newest two are always kept. 0 keeps all.
    pub max_snapshots: usize,
    /// Number of segments to keep. Segments that are still needed are always kept. 0 keeps all.
    pub max_wals: usize,
    /// Bytes of the log's last entries that [`recover`](super::recover) returns.
    pub tail_bytes: usize,
    /// Size of the first segment in bytes. Later segments grow with the write rate.
    pub segment_bytes: u64,
    /// Size in bytes up to which segments grow. A larger batch gets a segment of its own size.
    pub segment_bytes_max: u64,
    /// Why this program cannot apply a command, or `None` if it can. A log with such an entry after the newest snapshot
    /// is refused. Called for each entry that is read at a start.
    pub unknown: fn(&[u8]) -> Option<String>,
}

impl Options {
    /// The default options: segments of 1 to 16 MiB, five of them and five snapshots kept, the last 4 MiB of entries
    /// returned, and every command accepted.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            wal_dir: None,
            log_is_apart: false,
            max_snapshots: 5,
            max_wals: 5,
            tail_bytes: 4 << 20,
            segment_bytes: 1 << 20,
            segment_bytes_max: 16 << 20,
            unknown: |_| None,
        }
    }
}

/// Whether the data directory contains an identity, good or damaged. If it does, it is not new.
pub fn has_identity(dir: &Path) -> bool {
    dir.join(MEMBER).join(IDENTITY).exists()
}

/// The locked data directory. The lock is released when this value, its clones and everything opened through them are
/// dropped.
#[derive(Debug)]
pub struct DataDir<D: Disk>(Arc<Inner<D>>);

#[derive(Debug)]
struct Inner<D: Disk> {
    disk: D,
    options: Options,
    member: PathBuf,
    wal: PathBuf,
    snap: PathBuf,
    stats: Arc<WalStats>,
    _locks: Vec<D::Lock>,
}

impl<D: Disk> Inner<D> {
    /// Refuses a directory that is not edgetcd's or contains an unfinished restore. Creates nothing and locks nothing.
    fn new(disk: D, options: Options) -> Result<Inner<D>, WalError> {
        let (member, wal, snap) = folders(&options);
        refuse_unfinished(&disk, &options)?;
        // If it is a link to a missing folder, the folders in it seem to be missing, too.
        list(&disk, &member)?;
        refuse_foreign(&disk, &options.dir, &wal, &snap)?;
        Ok(Inner {
            disk,
            options,
            member,
            wal,
            snap,
            stats: Arc::default(),
            _locks: Vec::new(),
        })
    }
}

impl<D: Disk> Clone for DataDir<D> {
    fn clone(&self) -> DataDir<D> {
        DataDir(self.0.clone())
    }
}

impl<D: Disk> DataDir<D> {
    /// Creates missing folders and takes the lock.
    ///
    /// Errors: `Locked` if another process has the lock, after at most half a second. `Foreign` if the directory is not
    /// edgetcd's. `Unfinished` if a restore into it was interrupted. Otherwise `Io` or `Full`.
    pub fn open(disk: D, options: Options) -> Result<DataDir<D>, WalError> {
        let mut inner = Inner::new(disk, options)?;
        let disk = &inner.disk;
        make_dir(disk, &inner.member)?;
        let mut locks = vec![lock(disk, &inner.member.join("lock"))?];
        make_dir(disk, &inner.wal)?;
        if inner.options.wal_dir.is_some() {
            locks.push(lock(disk, &inner.wal.join("lock"))?);
        }
        make_dir(disk, &inner.snap)?;
        inner._locks = locks;
        Ok(DataDir(Arc::new(inner)))
    }

    /// Opens the directory for an inspection: it creates nothing and keeps no lock.
    ///
    /// Errors: `Foreign`, `Unfinished`, `Io`.
    pub(super) fn unlocked(disk: D, options: Options) -> Result<DataDir<D>, WalError> {
        Ok(DataDir(Arc::new(Inner::new(disk, options)?)))
    }

    /// The process that uses the directory, if there is one.
    pub(super) fn holder(&self) -> Result<Option<Holder>, WalError> {
        let wal_dir = self.options().wal_dir.as_ref();
        let locks = [Some(&self.0.member), wal_dir];
        for dir in locks.into_iter().flatten() {
            let path = dir.join("lock");
            let holder = self.disk().holder(&path);
            let holder = holder.map_err(|error| WalError::io(&path, "lock it", &error))?;
            if holder.is_some() {
                return Ok(holder);
            }
        }
        Ok(None)
    }

    /// The bytes given to [`DataDir::write_identity`] last. `None` in a new directory.
    pub fn identity(&self) -> Result<Option<Vec<u8>>, WalError> {
        let path = self.identity_path();
        let reader = match self.disk().open(&path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WalError::io(&path, "open it", &error)),
        };
        // Reads one byte more than the largest identity has, so that a longer file fails its checksum.
        let mut bytes = vec![0; reader.bytes().min(IDENTITY_BYTES_MAX + 1) as usize];
        let read = reader.read_at(0, &mut bytes);
        let read = read.map_err(|error| WalError::io(&path, "read it", &error))?;
        match checked_identity(&bytes[..read]) {
            Some(identity) => Ok(Some(identity.to_vec())),
            None => Err(WalError::damaged(
                &path,
                "it fails its checksum, so this node does not know its own id; move the data \
                 directory aside and add this node to its cluster as a new member",
            )),
        }
    }

    /// Replaces the identity atomically: after a crash the file contains the old or the new one.
    ///
    /// On a new directory, call it after [`recover`](super::recover). An identity without a log means that the log was
    /// lost, and is refused.
    pub fn write_identity(&self, identity: &[u8]) -> Result<(), WalError> {
        let (path, aside) = (self.identity_path(), self.0.member.join("identity.tmp"));
        let mut bytes = IDENTITY_MAGIC.to_vec();
        bytes.extend_from_slice(&crc32fast::hash(identity).to_le_bytes());
        bytes.extend_from_slice(identity);
        let disk = self.disk();
        let written = disk.create(&aside).and_then(|mut file| {
            file.write(&bytes)?;
            file.sync()?;
            disk.rename(&aside, &path)?;
            disk.sync_dir(&self.0.member)
        });
        written.map_err(|error| WalError::io(&path, "write it", &error))
    }

    fn identity_path(&self) -> PathBuf {
        self.0.member.join(IDENTITY)
    }

    pub(super) fn disk(&self) -> &D {
        &self.0.disk
    }

    pub(super) fn stats(&self) -> &Arc<WalStats> {
        &self.0.stats
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(super) fn member(&self) -> &Path {
        &self.0.member
    }

    pub(super) fn wal(&self) -> &Path {
        &self.0.wal
    }

    pub(super) fn snap(&self) -> &Path {
        &self.0.snap
    }
}

/// `member`, and the folders of segments and snapshots.
fn folders(options: &Options) -> (PathBuf, PathBuf, PathBuf) {
    let member = options.dir.join(MEMBER);
    let wal_dir = options.wal_dir.clone();
    let wal = wal_dir.unwrap_or_else(|| member.join("wal"));
    let snap = member.join("snap");
    (member, wal, snap)
}

fn checked_identity(bytes: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, identity) = rest.split_first_chunk::<4>()?;
    let good = *magic == IDENTITY_MAGIC && u32::from_le_bytes(*crc) == crc32fast::hash(identity);
    good.then_some(identity)
}

fn make_dir<D: Disk>(disk: &D, dir: &Path) -> Result<(), WalError> {
    disk.make_dir(dir)
        .map_err(|error| WalError::io(dir, "create this directory", &error))
}

fn lock<D: Disk>(disk: &D, path: &Path) -> Result<D::Lock, WalError> {
    match disk.lock(path) {
        Ok(Locked::Mine(lock)) => Ok(lock),
        Ok(Locked::Theirs(pid)) => {
            let who = pid.map_or("another process".to_string(), |pid| {
                format!("process {pid}")
            });
            let what = format!(
                "{who} is using this directory; stop it first, or give this node its own --data-dir"
            );
            Err(WalError::new(WalErrorKind::Locked { pid }, path, what))
        }
        Err(error) => Err(WalError::io(path, "lock it", &error)),
    }
}

/// Content of the folder. Empty if the folder does not exist.
///
/// # Errors
/// `Io` if it cannot be listed, also if it is a symbolic link whose target does not exist.
pub(super) fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Found>, WalError> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_named(disk, dir) {
            true => list_named(disk, dir),
            false => Ok(Vec::new()),
        },
        listed => listed.map_err(|error| WalError::io(dir, "list this directory", &error)),
    }
}

/// Whether the folder above contains this name.
fn is_named<D: Disk>(disk: &D, dir: &Path) -> bool {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return false;
    };
    let above = match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    };
    let listed = disk.list(above).unwrap_or_default();
    listed.iter().any(|found| name == found.name.as_str())
}

/// The content of a folder that was not there, although its name is. Another process may have just created it.
fn list_named<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Found>, WalError> {
    disk.list(dir).map_err(|error| {
        let what = format!(
            "cannot list this directory: {error}; if it is a symbolic link, its target is missing: mount the disk of \
             the target, or restore it"
        );
        WalError::new(WalErrorKind::Io, dir, what)
    })
}

/// Refuses a directory with an unfinished restore, because a node would start there with an empty store. The last step
/// of a restore moves the folder `member`, so a directory that contains `member` is complete.
fn refuse_unfinished<D: Disk>(disk: &D, options: &Options) -> Result<(), WalError> {
    let data = &options.dir;
    if list(disk, data)?.iter().any(|found| found.name == MEMBER) {
        return Ok(());
    }
    let mut left = Vec::new();
    for dir in std::iter::once(data).chain(&options.wal_dir) {
        let is_left = |found: &Found| found.name == RESTORE && found.is_dir;
        if list(disk, dir)?.iter().any(is_left) {
            left.push(dir.join(RESTORE));
        }
    }
    let Some(first) = left.first().cloned() else {
        return Ok(());
    };
    if let Some(wal_dir) = &options.wal_dir {
        let there = list(disk, wal_dir)?;
        // If this folder is not there, the restore was finished, and the segments belong to a member that was moved
        // away.
        let has_made = (list(disk, &data.join(RESTORE))?.iter()).any(|found| found.name == MEMBER);
        let placed = match has_made {
            true => placed_segments(disk, data)?,
            false => Vec::new(),
        };
        let is_there = |name: &String| there.iter().any(|found| found.name == *name);
        let placed = placed.into_iter().filter(is_there);
        left.extend(placed.map(|name| wal_dir.join(name)));
    }
    let left: Vec<String> = left.iter().map(|path| shell_word(path)).collect();
    let what = format!(
        "a restore into {} was not finished, so the keys of the backup are not there (wait for it, if it still \
         runs); to finish it, type the command that began it again, such as: edgetcdctl snapshot restore FILE \
         --data-dir {} …; to discard it: rm -r {}",
        data.display(),
        shell_word(data),
        left.join(" ")
    );
    Err(WalError::new(WalErrorKind::Unfinished, &first, what))
}

/// The segments that an unfinished restore has already moved to `--wal-dir`. Even if the list is damaged, this returns
/// only names of segments, so that no other files are removed.
///
/// # Errors
/// `Io` if the list exists and cannot be read.
pub fn placed_segments<D: Disk>(disk: &D, data: &Path) -> Result<Vec<String>, WalError> {
    let path = data.join(RESTORE).join(RESTORE_PLACED);
    let reader = match disk.open(&path) {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(WalError::io(&path, "open it", &error)),
    };
    let mut bytes = vec![0; reader.bytes().min(PLACED_BYTES_MAX) as usize];
    let read = reader.read_at(0, &mut bytes);
    let read = read.map_err(|error| WalError::io(&path, "read it", &error))?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let is_segment = |name: &&str| names::SegmentName::parse(name).is_some();
    Ok(text.lines().filter(is_segment).map(Into::into).collect())
}

/// Quotes the path for a shell, if it contains special characters.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Refuses a directory that another program made, before anything in it is changed. A directory with edgetcd's own
/// identity and log is accepted: an etcd started on it by mistake leaves a database, which does no harm.
fn refuse_foreign<D: Disk>(disk: &D, data: &Path, wal: &Path, snap: &Path) -> Result<(), WalError> {
    let foreign = |path: PathBuf, what: &str| {
        let what = format!("{what}; give edgetcd its own --data-dir");
        Err(WalError::new(WalErrorKind::Foreign, &path, what))
    };
    let in_wal = list(disk, wal)?;
    let has_log = in_wal
        .iter()
        .any(|found| SegmentName::parse(&found.name).is_some());
    let is_own = has_log
        && list(disk, &data.join(MEMBER))?
            .iter()
            .any(|found| found.name == IDENTITY);
    if !is_own && list(disk, data)?.iter().any(|found| found.name == "proxy") {
        return foreign(data.join("proxy"), "this is the directory of an etcd proxy");
    }
    for found in &in_wal {
        if !found.name.ends_with(".wal") || SegmentName::parse(&found.name).is_some() {
            continue;
        }
        let path = wal.join(&found.name);
        if let Some(segment) = replay::segment_in(disk, &path)?
            && is_missing(disk, wal, &in_wal, segment)?
        {
            let name = segment.file();
            let what = format!("it is the segment {name} under another name; rename it back");
            return Err(WalError::damaged(&path, what));
        }
        if is_own {
            continue;
        }
        return match names::is_etcd_segment(&found.name) {
            true => foreign(path, "this log was written by etcd, in its own format"),
            false => foreign(path, "this is not the name of a file of edgetcd"),
        };
    }
    if !is_own && list(disk, snap)?.iter().any(|found| found.name == "db") {
        return foreign(snap.join("db"), "this is the database of an etcd member");
    }
    Ok(())
}

/// Whether the log may lack this segment, which was found in the folder under another name. A copy of an existing
/// segment is harmless, and so is a copy of a segment that was deleted because a snapshot made it unnecessary.
fn is_missing<D: Disk>(
    disk: &D,
    wal: &Path,
    in_wal: &[Found],
    segment: SegmentName,
) -> Result<bool, WalError> {
    let mut oldest = None;
    for found in in_wal {
        let Some(name) = SegmentName::parse(&found.name) else {
            continue;
        };
        if name == segment {
            return Ok(false);
        }
        // A segment that is only prepared says nothing about the log.
        if replay::segment_in(disk, &wal.join(&found.name))?.is_some() {
            oldest = Some(oldest.map_or(name.seq, |oldest: u64| name.seq.min(oldest)));
        }
    }
    Ok(oldest.is_none_or(|oldest| oldest < segment.seq))
}
