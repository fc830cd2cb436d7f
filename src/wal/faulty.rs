//! The faulty disk of the tests: a disk in memory that keeps only the guarantees of [`Disk`].
//!
//! Synced data survives a crash. For unsynced data, each 512-byte sector of a file and each name in a folder is decided
//! on its own: it has its last synced state, its latest state, or a state in between. A sector may also be torn. The
//! seed and the sequence of calls determine everything, so a run can be repeated. Background jobs run at once in the
//! caller.
//!
//! A test can inject these faults: a power failure at the n-th change ([`FaultyDisk::cut_power_after`]), a failed sync
//! ([`FaultyDisk::fail_sync_after`]; as on Linux, the next sync succeeds and proves nothing), a full disk
//! ([`FaultyDisk::set_capacity`]), slow syncs ([`FaultyDisk::set_sync_delay`]), and a disk that hangs
//! ([`FaultyDisk::hold_syncs`]).
//!
//! A clone refers to the same disk. Handles that were opened before [`FaultyDisk::crash`] or [`FaultyDisk::kill`] are
//! invalid afterwards: every call on them returns an error, and dropping them changes nothing.

mod memory;

use self::memory::{Inode, Mood, Name, Node, SECTOR, lock};
use super::disk::{Disk, DiskReader, DiskSegment, DiskWriter, Found, Holder, Locked};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The faulty disk, described in the module documentation.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Shared>);

struct Shared {
    machine: Mutex<Machine>,
    /// Notified when held syncs are released.
    released: Condvar,
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyDisk")
    }
}

#[derive(Debug)]
struct Machine {
    random: Random,
    /// Whether a crash loses all unsynced data, instead of any part of it.
    loses_all: bool,
    /// Incremented by each crash and kill. A handle of an earlier boot is invalid.
    boot: u64,
    names: BTreeMap<PathBuf, Name>,
    inodes: u64,
    locks: BTreeSet<PathBuf>,
    capacity: u64,
    /// Number of changes so far, and the number of the change at which the power fails.
    changes: u64,
    power_until: u64,
    /// Number of successful file syncs until one fails.
    sync_fails: Option<u64>,
    sync_delay: Duration,
    /// Whether file syncs wait, and how many are waiting.
    holds_syncs: bool,
    held_syncs: usize,
    now: Duration,
}

impl FaultyDisk {
    /// Creates an empty disk. Its faults are determined by `seed`.
    pub fn new(seed: u64) -> FaultyDisk {
        let machine = Machine {
            random: Random::new(seed),
            loses_all: false,
            boot: 0,
            names: BTreeMap::new(),
            inodes: 0,
            locks: BTreeSet::new(),
            capacity: u64::MAX,
            changes: 0,
            power_until: u64::MAX,
            sync_fails: None,
            sync_delay: Duration::ZERO,
            holds_syncs: false,
            held_syncs: 0,
            now: Duration::ZERO,
        };
        FaultyDisk(Arc::new(Shared {
            machine: Mutex::new(machine),
            released: Condvar::new(),
        }))
    }

    /// The power fails and returns. Each piece of unsynced data is kept or lost on its own.
    pub fn crash(&self) {
        self.machine().crash();
    }

    /// Whether crashes lose all unsynced data from now on. Otherwise each piece is kept or lost on its own.
    pub fn lose_all_unsynced(&self, all: bool) {
        self.machine().loses_all = all;
    }

    /// Only the process ends. Everything that it wrote remains, and unsynced data remains unsynced.
    pub fn kill(&self) {
        self.machine().restart();
    }

    /// The power fails at the `changes`-th change from now (0 means the next one). That change is done only in part.
    /// From then on every call fails until [`FaultyDisk::crash`].
    pub fn cut_power_after(&self, changes: u64) {
        let mut machine = self.machine();
        machine.power_until = machine.changes.saturating_add(changes);
    }

    /// Whether the disk has power: false after a requested power failure has happened.
    pub fn has_power(&self) -> bool {
        self.machine().alive().is_ok()
    }

    /// Number of changes so far: calls that write, sync, create, rename or remove.
    pub fn changes(&self) -> u64 {
        self.machine().changes
    }

    /// Makes one file sync fail, after `good` successful ones.
    pub fn fail_sync_after(&self, good: u64) {
        self.machine().sync_fails = Some(good);
    }

    /// Limits the total bytes of all files.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    /// The limit for the total bytes of all files.
    pub fn capacity(&self) -> u64 {
        self.machine().capacity
    }

    /// Makes each file sync take this long. The calling thread waits.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.machine().sync_delay = delay;
    }

    /// From now on each file sync blocks its thread until [`FaultyDisk::release_syncs`].
    pub fn hold_syncs(&self) {
        self.machine().holds_syncs = true;
    }

    /// Releases all waiting syncs and stops holding later ones.
    pub fn release_syncs(&self) {
        self.machine().holds_syncs = false;
        self.0.released.notify_all();
    }

    /// Number of syncs that are waiting.
    pub fn held_syncs(&self) -> usize {
        self.machine().held_syncs
    }

    /// Advances the disk's clock.
    pub fn advance(&self, by: Duration) {
        self.machine().now += by;
    }

    /// Total bytes of all files.
    pub fn used(&self) -> u64 {
        self.machine().used()
    }

    /// All files, sorted by name.
    pub fn files(&self) -> Vec<PathBuf> {
        let machine = self.machine();
        let files = machine
            .names
            .iter()
            .filter(|(_, name)| matches!(name.now(), Some(Node::File(_))));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Content of a file, as a program would read it.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.machine().file(path).ok()?;
        let inode = lock(&inode);
        let mut bytes = vec![0; inode.length as usize];
        inode.read(0, &mut bytes);
        Some(bytes)
    }

    /// Creates or replaces a file as if it had always been there, to simulate rot and manual changes.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut machine = self.machine();
        let inode = machine.inode(bytes.len() as u64);
        {
            let mut inode = lock(&inode);
            inode.write(0, bytes);
            inode.sync(0, u64::MAX);
        }
        let name = Name {
            synced: Some(Node::File(inode)),
            later: Vec::new(),
        };
        machine.names.insert(path.to_path_buf(), name);
    }

    /// Removes a file or a complete folder as if it had never been there.
    pub fn take(&self, path: &Path) {
        self.machine()
            .names
            .retain(|name, _| !name.starts_with(path));
    }

    /// Copies the disk with its content, including the unsynced states. No process runs on the copy.
    pub fn fork(&self, seed: u64) -> FaultyDisk {
        let copy = FaultyDisk::new(seed);
        let machine = self.machine();
        let mut copies = BTreeMap::new();
        let mut copy_node = |node: &Option<Node>| match node {
            Some(Node::File(inode)) => {
                let inode = lock(inode);
                let copied = copies
                    .entry(inode.id)
                    .or_insert_with(|| Arc::new(Mutex::new(inode.clone())));
                Some(Node::File(copied.clone()))
            }
            other => other.clone(),
        };
        let names = machine.names.iter().map(|(path, name)| {
            let synced = copy_node(&name.synced);
            let later = name.later.iter().map(&mut copy_node).collect();
            (path.clone(), Name { synced, later })
        });
        let names = names.collect();
        let mut copied = copy.machine();
        copied.names = names;
        copied.inodes = machine.inodes;
        copied.capacity = machine.capacity;
        copied.now = machine.now;
        drop(copied);
        copy
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.0.machine)
    }
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

/// Whether the power survives a change.
enum Power {
    Stays,
    /// The power fails now. The change is done in part, and its caller gets an error.
    Goes,
}

impl Machine {
    fn crash(&mut self) {
        let loses_all = self.loses_all;
        let mood = |random: &mut Random| match loses_all {
            true => Mood::Nothing,
            false => Mood::any(random),
        };
        let of_names = mood(&mut self.random);
        let mut inodes = BTreeMap::new();
        for name in self.names.values_mut() {
            let nodes = name.later.iter().chain([&name.synced]).flatten();
            inodes.extend(nodes.filter_map(|node| match node {
                Node::File(inode) => Some((lock(inode).id, inode.clone())),
                Node::Dir => None,
            }));
            name.crash(&mut self.random, of_names);
        }
        for inode in inodes.values() {
            let mood = mood(&mut self.random);
            lock(inode).crash(&mut self.random, mood);
        }
        self.names.retain(|_, name| name.synced.is_some());
        let dirs: BTreeSet<PathBuf> = self.dirs().collect();
        let has_parents = |path: &PathBuf| {
            path.ancestors()
                .skip(1)
                .all(|above| is_root(above) || dirs.contains(above))
        };
        self.names.retain(|path, _| has_parents(path));
        self.restart();
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.locks.clear();
        self.power_until = u64::MAX;
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        let dirs = self
            .names
            .iter()
            .filter(|(_, name)| matches!(name.now(), Some(Node::Dir)));
        dirs.map(|(path, _)| path.clone())
    }

    /// Must be called before anything is read.
    fn alive(&self) -> io::Result<()> {
        if self.changes > self.power_until {
            return Err(gone());
        }
        Ok(())
    }

    /// Must be called before anything is changed.
    fn change(&mut self) -> io::Result<Power> {
        self.alive()?;
        self.changes += 1;
        Ok(if self.changes > self.power_until {
            Power::Goes
        } else {
            Power::Stays
        })
    }

    /// Changes names. If the power fails now, the change is made or not made.
    fn change_names(
        &mut self,
        change: impl FnOnce(&mut Machine) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.change()? {
            Power::Stays => change(self),
            Power::Goes => {
                if self.random.coin() {
                    change(self)?;
                }
                Err(gone())
            }
        }
    }

    fn is_dir(&self, dir: &Path) -> bool {
        is_root(dir) || matches!(self.names.get(dir).and_then(Name::now), Some(Node::Dir))
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        match self.names.get(path).and_then(Name::now) {
            Some(Node::File(inode)) => Ok(inode.clone()),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn refuse_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path).and_then(Name::now) {
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(()),
        }
    }

    fn inode(&mut self, length: u64) -> Arc<Mutex<Inode>> {
        self.inodes += 1;
        Arc::new(Mutex::new(Inode {
            id: self.inodes,
            length,
            ..Inode::default()
        }))
    }

    fn set_name(&mut self, path: &Path, node: Option<Node>) -> io::Result<()> {
        if !path.parent().is_some_and(|dir| self.is_dir(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.names.entry(path.to_path_buf()).or_default().set(node);
        Ok(())
    }

    fn sync_dir(&mut self, dir: &Path) {
        for (path, name) in &mut self.names {
            if path.parent() == Some(dir) {
                name.sync();
            }
        }
        self.names
            .retain(|_, name| name.synced.is_some() || !name.later.is_empty());
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|name| match name.now() {
            Some(Node::File(inode)) => Some(lock(inode).length),
            _ => None,
        });
        files.sum()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        if self.used().saturating_add(bytes) > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync_file(&mut self, inode: &Mutex<Inode>, from: u64, to: u64) -> io::Result<()> {
        if let Power::Goes = self.change()? {
            // The crash that follows decides how much of the file was written.
            return Err(gone());
        }
        match &mut self.sync_fails {
            Some(0) => {
                self.sync_fails = None;
                lock(inode).fail_sync(&mut self.random);
                return Err(io::Error::other("I/O error"));
            }
            Some(good) => *good -= 1,
            None => {}
        }
        lock(inode).sync(from, to);
        Ok(())
    }

    fn write_file(&mut self, inode: &Mutex<Inode>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.change()? {
            Power::Stays => {
                lock(inode).write(offset, bytes);
                Ok(())
            }
            Power::Goes => {
                let part = self.random.below(bytes.len() as u64 + 1) as usize;
                lock(inode).write(offset, &bytes[..part]);
                Err(gone())
            }
        }
    }
}

/// A relative path ends in the empty path, an absolute one in the root. Both always exist.
fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

impl Disk for FaultyDisk {
    type Reader = FaultyReader;
    type Writer = FaultyFile;
    type Segment = FaultyFile;
    type Lock = FaultyLock;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if self.machine().is_dir(dir) {
            return self.machine().alive();
        }
        let above = dir.parent().unwrap_or(Path::new(""));
        self.make_dir(above)?;
        self.machine()
            .change_names(|machine| machine.set_name(dir, Some(Node::Dir)))?;
        self.sync_dir(above)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Found>> {
        let machine = self.machine();
        machine.alive()?;
        if !machine.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = machine
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        let found = inside.filter_map(|(path, name)| {
            let (bytes, is_dir) = match name.now()? {
                Node::Dir => (0, true),
                Node::File(inode) => (lock(inode).length, false),
            };
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(Found {
                name,
                bytes,
                is_dir,
            })
        });
        Ok(found.collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        match machine.change()? {
            Power::Stays => {
                machine.sync_dir(dir);
                Ok(())
            }
            Power::Goes => Err(gone()),
        }
    }

    fn sync_files(&self, dir: &Path) -> io::Result<()> {
        for found in self.list(dir)?.iter().filter(|found| !found.is_dir) {
            let mut machine = self.machine();
            let inode = machine.file(&dir.join(&found.name))?;
            machine.sync_file(&inode, 0, u64::MAX)?;
        }
        self.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine().change_names(|machine| {
            let inode = machine.file(from)?;
            machine.set_name(to, Some(Node::File(inode)))?;
            machine.set_name(from, None)
        })
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.machine().change_names(|machine| {
            machine.file(file)?;
            machine.set_name(file, None)
        })
    }

    fn open(&self, file: &Path) -> io::Result<FaultyReader> {
        let machine = self.machine();
        machine.alive()?;
        let inode = machine.file(file)?;
        let bytes = lock(&inode).length;
        let (disk, boot) = (self.clone(), machine.boot);
        Ok(FaultyReader {
            disk,
            boot,
            inode,
            bytes,
        })
    }

    fn create(&self, file: &Path) -> io::Result<FaultyFile> {
        let mut machine = self.machine();
        let inode = machine.inode(0);
        let made = Some(Node::File(inode.clone()));
        machine.change_names(|machine| machine.set_name(file, made))?;
        let (disk, boot) = (self.clone(), machine.boot);
        Ok(FaultyFile {
            disk,
            boot,
            inode,
            end: 0,
        })
    }

    fn allocate(&self, file: &Path, bytes: u64) -> io::Result<()> {
        let mut machine = self.machine();
        machine.alive()?;
        if machine.file(file).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.reserve(bytes)?;
        let inode = machine.inode(bytes);
        lock(&inode).synced_length = bytes;
        machine.change_names(|machine| machine.set_name(file, Some(Node::File(inode))))
    }

    fn segment(&self, file: &Path) -> io::Result<FaultyFile> {
        let machine = self.machine();
        machine.alive()?;
        let inode = machine.file(file)?;
        let (disk, boot) = (self.clone(), machine.boot);
        Ok(FaultyFile {
            disk,
            boot,
            inode,
            end: 0,
        })
    }

    fn lock(&self, file: &Path) -> io::Result<Locked<FaultyLock>> {
        let mut machine = self.machine();
        machine.alive()?;
        machine.refuse_dir(file)?;
        if !machine.locks.insert(file.to_path_buf()) {
            return Ok(Locked::Theirs(None));
        }
        let (disk, boot, path) = (self.clone(), machine.boot, file.to_path_buf());
        Ok(Locked::Mine(FaultyLock { disk, boot, path }))
    }

    fn holder(&self, file: &Path) -> io::Result<Option<Holder>> {
        let machine = self.machine();
        machine.alive()?;
        machine.refuse_dir(file)?;
        let held = machine.locks.contains(file);
        Ok(held.then_some(Holder { pid: None }))
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        let machine = self.machine();
        (machine.capacity < u64::MAX).then(|| machine.capacity.saturating_sub(machine.used()))
    }

    fn random(&self) -> u32 {
        self.machine().random.next() as u32
    }

    fn now(&self) -> Duration {
        self.machine().now
    }

    fn wait(&self, time: Duration) {
        self.machine().now += time;
    }

    fn background(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// A file open for reading.
#[derive(Debug)]
pub struct FaultyReader {
    disk: FaultyDisk,
    boot: u64,
    inode: Arc<Mutex<Inode>>,
    bytes: u64,
}

/// Locks the machine, if it is still in the boot in which the handle was opened.
fn same_boot(disk: &FaultyDisk, boot: u64) -> io::Result<MutexGuard<'_, Machine>> {
    let machine = disk.machine();
    machine.alive()?;
    if machine.boot != boot {
        return Err(io::Error::other("the process that opened this has ended"));
    }
    Ok(machine)
}

impl DiskReader for FaultyReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let _machine = same_boot(&self.disk, self.boot)?;
        Ok(lock(&self.inode).read(offset, into))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let _machine = same_boot(&self.disk, self.boot)?;
        let inode = lock(&self.inode);
        let sector = inode.sectors.range(offset / SECTOR as u64..).next();
        Ok(sector.map(|(number, _)| (number * SECTOR as u64).max(offset)))
    }
}

/// A file open for writing.
#[derive(Debug)]
pub struct FaultyFile {
    disk: FaultyDisk,
    boot: u64,
    inode: Arc<Mutex<Inode>>,
    /// Offset of the next bytes, if the file is written from front to back.
    end: u64,
}

impl FaultyFile {
    fn sync_range(&self, from: u64, to: u64) -> io::Result<()> {
        let mut machine = same_boot(&self.disk, self.boot)?;
        let delay = machine.sync_delay;
        machine.held_syncs += 1;
        let released = &self.disk.0.released;
        let waited = released.wait_while(machine, |machine| machine.holds_syncs);
        let mut machine = waited.unwrap_or_else(PoisonError::into_inner);
        machine.held_syncs -= 1;
        if !delay.is_zero() {
            // Only the end of the time ends this wait, and other threads use the disk meanwhile.
            drop(released.wait_timeout_while(machine, delay, |_| true));
        } else {
            drop(machine);
        }
        same_boot(&self.disk, self.boot)?.sync_file(&self.inode, from, to)
    }
}

impl DiskWriter for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut machine = same_boot(&self.disk, self.boot)?;
        machine.reserve(bytes.len() as u64)?;
        machine.write_file(&self.inode, self.end, bytes)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_range(0, u64::MAX)
    }
}

impl DiskSegment for FaultyFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut machine = same_boot(&self.disk, self.boot)?;
        let length = lock(&self.inode).length;
        assert!(
            offset + bytes.len() as u64 <= length,
            "a segment of {length} bytes does not grow"
        );
        machine.write_file(&self.inode, offset, bytes)
    }

    fn sync(&mut self, from: u64, to: u64) -> io::Result<()> {
        self.sync_range(from, to)
    }
}

/// A lock. It is released on drop, unless the process that took it has ended.
#[derive(Debug)]
pub struct FaultyLock {
    disk: FaultyDisk,
    boot: u64,
    path: PathBuf,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.boot == self.boot {
            machine.locks.remove(&self.path);
        }
    }
}
