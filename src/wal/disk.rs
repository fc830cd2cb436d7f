//! The seam: everything this room asks of a disk.
//!
//! [`RealDisk`](super::RealDisk) is the machine's own; [`LyingDisk`](super::LyingDisk) is made of
//! memory and keeps exactly the promises below and no other, so that a test can see what is left
//! when the power goes.
//!
//! What is promised: after `sync` returns, the bytes written before it survive a power cut; after
//! `sync_dir` returns, the names made, changed or removed in that folder before it do. Nothing
//! else survives for certain, and what is not synced may survive in any part and any order.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A disk, and the clock, chance and helper that go with it.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// What [`Disk::open`] gives.
    type Reader: DiskReader;
    /// What [`Disk::create`] gives.
    type Writer: DiskWriter;
    /// What [`Disk::segment`] gives.
    type Segment: DiskSegment;
    /// Holds a lock until it is dropped.
    type Lock: Debug + Send + Sync + 'static;

    /// Makes the folder and those above it that are missing, readable by their owner only, and
    /// syncs each into the one above it.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// What the folder holds, in no order; `NotFound` if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<Found>>;
    /// Makes the names made, changed or removed in this folder so far survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Replaces what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes the name away, for certain only after `sync_dir`; readers that are open go on.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Opens a file for ordinary reads.
    fn open(&self, file: &Path) -> io::Result<Self::Reader>;
    /// Makes a new file that is written from front to back; an older one of that name is emptied.
    fn create(&self, file: &Path) -> io::Result<Self::Writer>;
    /// Makes a new file of `bytes` zeros with all its blocks, and syncs it (not its folder). When it
    /// fails, no file is left.
    fn allocate(&self, file: &Path, bytes: u64) -> io::Result<()>;
    /// Opens an allocated file for writing in place.
    fn segment(&self, file: &Path) -> io::Result<Self::Segment>;
    /// Takes the lock that this file stands for, or tells who has it; a real disk after half a second, in which
    /// whoever only looks ([`Disk::holder`]) lets go of it.
    fn lock(&self, file: &Path) -> io::Result<Locked<Self::Lock>>;
    /// Who has the lock that this file stands for, if anybody has. Nothing is changed, but a real disk's
    /// lock is held for a moment, shared. An error is one that [`Disk::lock`] would meet as well.
    fn holder(&self, file: &Path) -> io::Result<Option<Holder>>;
    /// Bytes that this process may still allocate on the file system of this folder; None if that cannot be told.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;
    /// A number that nobody can guess (or, under a seed, anybody can).
    fn random(&self) -> u32;
    /// A clock that never goes back; from any start.
    fn now(&self) -> Duration;
    /// Runs the job beside the caller; a simulated disk runs it at once.
    fn background(&self, job: Box<dyn FnOnce() + Send>);
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Without the folder.
    pub name: String,
    /// Length of the file; of no meaning for a folder.
    pub bytes: u64,
    /// A link is none, wherever it leads.
    pub is_dir: bool,
}

/// The outcome of [`Disk::lock`].
#[derive(Debug)]
pub enum Locked<L> {
    /// The lock is held until this is dropped, or the process ends.
    Mine(L),
    /// Another process has it: its pid, if the lock file tells one.
    Theirs(Option<u32>),
}

/// A process that has a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// None: the lock file holds no number.
    pub pid: Option<u32>,
}

/// A file open for ordinary reads. It stays readable after its name is gone.
pub trait DiskReader: Debug + Send {
    /// Length when the file was opened.
    fn bytes(&self) -> u64;
    /// Fills as much of `into` as the file has from `offset` on; tells how much.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The first byte at or after `offset` that may differ from zero; `None` when all the rest is
    /// zeros for certain. A disk that cannot tell gives `offset` back.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// A file being written from front to back.
pub trait DiskWriter: Debug + Send {
    /// Appends all of the bytes; they survive a power cut only after `sync`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all bytes so far survive a power cut; the name needs [`Disk::sync_dir`].
    fn sync(&mut self) -> io::Result<()>;
}

/// An allocated file open for writing in place. Its length never changes.
pub trait DiskSegment: Debug + Send {
    /// Puts all of the bytes at `offset`; they must fit into the file's length.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written between the two offsets survive a power cut (more may).
    fn sync(&mut self, from: u64, to: u64) -> io::Result<()>;
}
