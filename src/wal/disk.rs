//! The disk interface: every operation that this module needs from a disk.
//!
//! [`RealDisk`](super::RealDisk) is the machine's disk. [`FaultyDisk`](super::FaultyDisk) is the faulty disk of the
//! tests: it lives in memory and keeps only the guarantees below, so that a test can check what is left after a power
//! failure.
//!
//! The guarantees are: after `sync` returns, all bytes written before it survive a power failure. After `sync_dir`
//! returns, all names that were created, changed or removed in that folder before it survive one. Nothing else is
//! guaranteed: any part of the unsynced data may survive, in any order.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A disk, together with a clock, a random source and background threads.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// Type returned by [`Disk::open`].
    type Reader: DiskReader;
    /// Type returned by [`Disk::create`].
    type Writer: DiskWriter;
    /// Type returned by [`Disk::segment`].
    type Segment: DiskSegment;
    /// Holds a lock until it is dropped.
    type Lock: Debug + Send + Sync + 'static;

    /// Creates the folder and its missing parents, readable only by their owner, and syncs each into its parent folder,
    /// even without syncs: the mark of unsynced files must not be lost together with its folder.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Lists the folder in no particular order. Fails with `NotFound` if it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<Found>>;
    /// Makes all names created, changed or removed in this folder so far survive a power failure.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the contents and the names of all files in this folder survive a power failure, also of those that another process wrote.
    fn sync_files(&self, dir: &Path) -> io::Result<()>;
    /// False for a disk whose syncs return at once and guarantee nothing (`--unsafe-no-fsync`).
    fn syncs(&self) -> bool {
        true
    }
    /// The same disk with syncs, for the few files that need them even then.
    fn with_syncs(&self) -> Self {
        self.clone()
    }
    /// Renames a file. An existing file with the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the name. The removal is durable only after `sync_dir`. Open readers still work.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Opens a file for ordinary reads.
    fn open(&self, file: &Path) -> io::Result<Self::Reader>;
    /// Creates a file that is written from front to back. An existing file of that name is emptied.
    fn create(&self, file: &Path) -> io::Result<Self::Writer>;
    /// Creates a file of `bytes` zeros, allocates all its blocks, and syncs it (but not its folder). Leaves no file if
    /// it fails.
    fn allocate(&self, file: &Path, bytes: u64) -> io::Result<()>;
    /// Opens an allocated file for writing in place.
    fn segment(&self, file: &Path) -> io::Result<Self::Segment>;
    /// Takes the lock that this file stands for, or returns the holder. A real disk tries for half a second, because an
    /// inspection ([`Disk::holder`]) may hold the lock for a moment.
    fn lock(&self, file: &Path) -> io::Result<Locked<Self::Lock>>;
    /// Returns the holder of the lock that this file stands for, if there is one. This changes nothing, but a real disk
    /// holds the lock in shared mode for a moment. [`Disk::lock`] would meet the same errors.
    fn holder(&self, file: &Path) -> io::Result<Option<Holder>>;
    /// Bytes that this process may still allocate on the file system of this folder. `None` if that is unknown.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
    /// A random number that nobody can guess. With a seed it is predictable.
    fn random(&self) -> u32;
    /// Monotonic clock with an arbitrary start.
    fn now(&self) -> Duration;
    /// Waits this long by that clock. A simulated disk advances its clock.
    fn wait(&self, time: Duration);
    /// Runs the job on another thread. A simulated disk runs it at once in the caller.
    fn background(&self, job: Box<dyn FnOnce() + Send>);
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Name without the folder.
    pub name: String,
    /// Length of the file. Meaningless for a folder.
    pub bytes: u64,
    /// False for a symbolic link, even to a folder.
    pub is_dir: bool,
}

/// Outcome of [`Disk::lock`].
#[derive(Debug)]
pub enum Locked<L> {
    /// This process holds the lock until the value is dropped or the process ends.
    Mine(L),
    /// Another process holds the lock. The pid is `None` if the lock file contains none.
    Theirs(Option<u32>),
}

/// A process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// `None` if the lock file contains no number.
    pub pid: Option<u32>,
}

/// A file open for ordinary reads. It stays readable after its name was removed.
pub trait DiskReader: Debug + Send {
    /// Length at the time the file was opened.
    fn bytes(&self) -> u64;
    /// Fills `into` with the bytes from `offset` on and returns their number, which is less at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The first byte at or after `offset` that may differ from zero. `None` if all remaining bytes are certainly zero.
    /// A disk that cannot find out returns `offset`.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// A file that is written from front to back.
pub trait DiskWriter: Debug + Send {
    /// Appends all bytes. They survive a power failure only after `sync`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all bytes so far survive a power failure. The name of the file also needs [`Disk::sync_dir`].
    fn sync(&mut self) -> io::Result<()>;
}

/// An allocated file open for writing in place. Its length never changes.
pub trait DiskSegment: Debug + Send {
    /// Writes all bytes at `offset`. They must fit into the file's length.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes at least the bytes written between the two offsets survive a power failure.
    fn sync(&mut self, from: u64, to: u64) -> io::Result<()>;
}
