//! The machine's own disk.
//!
//! There are two ways to write a segment, so that they can be compared on a given disk: a copy into a mapping and
//! `msync` of the changed range, or `pwrite` and `fdatasync`. Some file systems write every block to a new place
//! (btrfs, zfs, bcachefs, f2fs) or work over a network. There an allocated block does not guarantee that a store
//! succeeds, so the mapping is never used: `pwrite` returns an error where the mapping would raise a signal.

use super::disk::{Disk, DiskReader, DiskSegment, DiskWriter, Found, Holder, Locked};
use super::map::Map;
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use std::fs::{DirBuilder, File, FileType, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::Path;
use std::time::Duration;

/// Number of bytes written at once when a segment is zeroed. Larger writes leave large pages in the cache, and then
/// each record dirties a complete large page (2 MiB were measured).
const ZEROS: [u8; 4096] = [0; 4096];

/// Number of attempts to take a lock, and the pause between two attempts. An inspection releases the lock within this
/// time, and an operator who starts a node on a used directory gets the error soon enough.
const ATTEMPTS_MAX: u32 = 25;
const LOOK_TIME: Duration = Duration::from_millis(20);

/// How segments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WritePath {
    /// Copies into a mapping and calls `msync`. Uses `pwrite` on file systems where a mapping is not safe.
    #[default]
    Mapped,
    /// Calls `pwrite` and `fdatasync`.
    Written,
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk {
    /// The requested way. On a file system where a mapping is not safe, it is always `Written`.
    pub write_path: WritePath,
    /// Whether the background thread also writes zeros to a segment that is prepared ahead. The first sync of an
    /// allocated block that was never written changes the file's block map and commits the file system's journal.
    /// Measured on ext4 with batches of 60 records: 161 µs and 71 µs of CPU per sync with zeros, 318 µs and 148 µs
    /// without. The price is that each byte of the log is written twice. This is 3% of what single records write, and
    /// for batches about as much as the journal would have written.
    pub zero_ahead: bool,
    /// False: no write waits for the disk, so a power failure may lose everything since the last sync
    /// (`--unsafe-no-fsync`). Only new folders are synced.
    pub syncs: bool,
}

impl Default for RealDisk {
    fn default() -> RealDisk {
        RealDisk {
            write_path: WritePath::default(),
            zero_ahead: true,
            syncs: true,
        }
    }
}

/// Gives the owner of a new folder all rights. A umask such as 0117, which lets the group connect to a Unix socket, also
/// takes the right to enter folders from their owner.
fn allow_owner(dir: &Path) -> io::Result<()> {
    let mut permissions = std::fs::metadata(dir)?.permissions();
    let mode = permissions.mode();
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    permissions.set_mode(mode | 0o700);
    std::fs::set_permissions(dir, permissions)
}

impl Disk for RealDisk {
    type Reader = RealReader;
    type Writer = RealWriter;
    type Segment = RealSegment;
    type Lock = RealLock;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let above = above(dir);
        self.make_dir(above)?;
        DirBuilder::new().mode(0o700).create(dir)?;
        allow_owner(dir)?;
        self.with_syncs().sync_dir(above)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        std::fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                let about = entry.metadata()?;
                Ok(Found {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    bytes: about.len(),
                    is_dir: about.is_dir(),
                })
            })
            .collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if !self.syncs {
            return Ok(());
        }
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        File::open(dir)?.sync_all()
    }

    fn sync_files(&self, dir: &Path) -> io::Result<()> {
        for found in std::fs::read_dir(dir)? {
            let found = found?;
            if found.file_type()?.is_file() {
                // A sync concerns the file, not the descriptor, so one that can only read is enough.
                open_regular(OpenOptions::new().read(true), Links::Refused, &found.path())?
                    .sync_all()?;
            }
        }
        self.with_syncs().sync_dir(dir)
    }

    fn syncs(&self) -> bool {
        self.syncs
    }

    fn with_syncs(&self) -> RealDisk {
        RealDisk {
            syncs: true,
            ..*self
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn open(&self, path: &Path) -> io::Result<RealReader> {
        let file = open_regular(OpenOptions::new().read(true), Links::Followed, path)?;
        Ok(RealReader {
            bytes: file.metadata()?.len(),
            tells_holes: tells_holes(&file),
            file,
        })
    }

    fn create(&self, path: &Path) -> io::Result<RealWriter> {
        let mut how = OpenOptions::new();
        // The name may be a link made by somebody else. Then the bytes would be written to the link's target.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        how.write(true).create_new(true).mode(0o600);
        let file = how.open(path)?;
        Ok(RealWriter {
            file,
            syncs: self.syncs,
        })
    }

    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut how = OpenOptions::new();
        let mut file = how.write(true).create_new(true).mode(0o600).open(path)?;
        let made = reserve(&file, bytes)
            .and_then(|reserved| match reserved && !self.zero_ahead {
                true => Ok(()),
                false => zero(&mut file, bytes),
            })
            .and_then(|()| match self.syncs {
                true => file.sync_all(),
                false => Ok(()),
            });
        if made.is_err() {
            // If the removal fails, the file has a temporary name, and the next start removes it.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    fn segment(&self, path: &Path) -> io::Result<RealSegment> {
        let mut how = OpenOptions::new();
        let file = open_regular(how.read(true).write(true), Links::Refused, path)?;
        let is_written = self.write_path == WritePath::Written || !keeps_blocks(&file);
        let how = match is_written {
            true => How::Written(file),
            false => How::Mapped(Map::open(&file)?),
        };
        Ok(RealSegment {
            how,
            syncs: self.syncs,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Locked<RealLock>> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false);
        let mut file = open_regular(how.mode(0o600), Links::Refused, path)?;
        let mut attempts = 0;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // An inspection may hold the lock for a moment (see `holder`).
                Err(rustix::io::Errno::WOULDBLOCK) if attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                    std::thread::sleep(LOOK_TIME);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Ok(Locked::Theirs(pid(&mut file)));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        refuse_other_content(&mut file)?;
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Locked::Mine(RealLock { file }))
    }

    fn holder(&self, path: &Path) -> io::Result<Option<Holder>> {
        let opened = open_regular(OpenOptions::new().read(true), Links::Refused, path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // If the shared lock is granted at once, nobody holds the lock. It is released at once, and a node that starts
        // in between tries again. There is no way to only query the lock: `fcntl` does not see `flock` locks, and only
        // Linux lists them by device and inode, on some file systems with other devices than `stat` returns.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
                Ok(None)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(Holder {
                pid: pid(&mut file),
            })),
            Err(errno) => Err(errno.into()),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        let disk = rustix::fs::statvfs(dir).ok()?;
        // A file system that does not count its blocks, such as a ramfs, reports 0 of 0 blocks.
        (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn random(&self) -> u32 {
        // The standard library keys each of these from the system's random source.
        RandomState::new().build_hasher().finish() as u32
    }

    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // A monotonic clock is never negative.
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn background(&self, job: Box<dyn FnOnce() + Send>) {
        // The job reports its own failure. Without a thread, the caller later does the work itself.
        let _ = std::thread::Builder::new()
            .name("wal-next".into())
            .spawn(job);
    }
}

/// How an open treats a symbolic link in place of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Followed,
    /// For files that are written: the bytes would be written to the link's target.
    Refused,
}

/// Opens a regular file and refuses everything else. A FIFO would block the open until another process opens its other
/// end, and a device may have side effects when it is read.
fn open_regular(how: &mut OpenOptions, links: Links, path: &Path) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refused {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = how.custom_flags(flags.bits().cast_signed()).open(path);
    let about = match &opened {
        Ok(file) => file.metadata()?,
        // The errors for a link, a socket, and a FIFO without a reader do not name the kind of file.
        Err(_) => match std::fs::symlink_metadata(path) {
            Ok(about) => about,
            Err(_) => return opened,
        },
    };
    match kind(about.file_type()) {
        None => opened,
        Some(_) if about.is_dir() => Err(rustix::io::Errno::ISDIR.into()),
        // The link may be followed, so the problem is its target.
        Some(_) if opened.is_err() && about.is_symlink() && links == Links::Followed => opened,
        Some(kind) => {
            let what = format!("it is a {kind}, not a regular file");
            Err(io::Error::other(what))
        }
    }
}

/// Kind of the file. `None` for a regular file.
fn kind(found: FileType) -> Option<&'static str> {
    let kinds = [
        (found.is_dir(), "directory"),
        (found.is_symlink(), "symbolic link"),
        (found.is_fifo(), "FIFO"),
        (found.is_socket(), "socket"),
        (found.is_char_device() || found.is_block_device(), "device"),
    ];
    let known = kinds.into_iter().find(|(is_it, _)| *is_it);
    known.map(|(_, kind)| kind)
}

/// Refuses a lock file that is a hard link to a file of somebody else, because the lock would overwrite that file. A
/// lock file contains only the pid of a process.
fn refuse_other_content(file: &mut File) -> io::Result<()> {
    if file.metadata()?.nlink() < 2 {
        return Ok(());
    }
    let mut start = Vec::new();
    file.take(32).read_to_end(&mut start)?;
    if start.trim_ascii().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    Err(io::Error::other(
        "it is a hard link, and contains more than a process id",
    ))
}

/// The pid in the file of a held lock.
fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // Reads at most as many bytes as a number can take, because the file may contain anything by now.
    let read = file.take(32).read_to_string(&mut text);
    read.ok().and_then(|_| text.trim().parse().ok())
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Allocates the file's blocks. Fails if there are not enough. Returns false if the file system does not support it.
fn reserve(file: &File, bytes: u64) -> io::Result<bool> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Fills the file with zeros, page by page.
fn zero(file: &mut File, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..now as usize])?;
        left -= now;
    }
    Ok(())
}

// The kernel's numbers for file systems (linux/magic.h; zfs from its own source).
const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const TMPFS: u64 = 0x0102_1994;
const MOVING: [u64; 8] = [
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0xf2f5_2010, // f2fs
    0x6969,      // nfs
    0xff53_4d42, // cifs
    0x6573_5546, // fuse
    0x0102_1997, // 9p
];

#[cfg(target_os = "linux")]
fn file_system(file: &File) -> u64 {
    rustix::fs::fstatfs(file).map_or(0, |about| about.f_type as u64 & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn file_system(_file: &File) -> u64 {
    0
}

/// Whether an allocated block stays in its place, so that a store into it cannot fail.
fn keeps_blocks(file: &File) -> bool {
    !MOVING.contains(&file_system(file))
}

/// Whether `SEEK_DATA` is known to be right, even for pages that are not written back yet.
fn tells_holes(file: &File) -> bool {
    [EXT, XFS, TMPFS].contains(&file_system(file))
}

/// A file open for ordinary reads.
#[derive(Debug)]
pub struct RealReader {
    file: File,
    bytes: u64,
    tells_holes: bool,
}

impl DiskReader for RealReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        if !self.tells_holes {
            return Ok(Some(offset));
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(_) => Ok(Some(offset)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

/// A file that is written from front to back.
#[derive(Debug)]
pub struct RealWriter {
    file: File,
    syncs: bool,
}

impl DiskWriter for RealWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.syncs {
            true => self.file.sync_all(),
            false => Ok(()),
        }
    }
}

/// An allocated file that is written in place.
#[derive(Debug)]
pub struct RealSegment {
    how: How,
    syncs: bool,
}

#[derive(Debug)]
enum How {
    Mapped(Map),
    Written(File),
}

impl RealSegment {
    /// Whether it is written with stores into a mapping. False on a file system where that is not safe.
    pub fn is_mapped(&self) -> bool {
        matches!(self.how, How::Mapped(_))
    }
}

impl DiskSegment for RealSegment {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.how {
            How::Mapped(map) => map.write(offset as usize, bytes),
            How::Written(file) => file.write_all_at(bytes, offset),
        }
    }

    fn sync(&mut self, from: u64, to: u64) -> io::Result<()> {
        if !self.syncs {
            return Ok(());
        }
        match &mut self.how {
            How::Mapped(map) => map.sync(from as usize, to as usize),
            How::Written(file) => file.sync_data(),
        }
    }
}

/// Holds the lock until it is dropped. The kernel releases it when the process ends, for any reason.
#[derive(Debug)]
pub struct RealLock {
    file: File,
}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing the file is not enough while a child process is being started. Until the child runs its program, it
        // has a copy of every descriptor and so also the lock. If the unlock fails, closing is all that remains.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}
