//! Snapshot files: written in slices under a temporary name, then renamed, and read in slices. `slices` documents their
//! bytes.
//!
//! A snapshot gets its final name only after it is complete and synced. A crash during the writing leaves a temporary
//! file, which the next start removes. The file is synced every few MiB while it is written, so that the last sync does
//! not delay the log's own syncs for long.

use super::data_dir::{self, DataDir};
use super::disk::{Disk, DiskReader, DiskWriter};
use super::error::{WalError, WalErrorKind};
use super::names;
use super::slices::{
    DATA, END, END_BYTES, END_NUMBER, HEADER_BYTES, MAGIC, MARK, SLICE_BYTES_MAX, SLICE_PREFIX,
    SliceEncoder, slice_crc,
};
use crate::raft::{Position, SnapshotMetadata};
use crc32fast::Hasher;
use std::io;
use std::path::{Path, PathBuf};

/// Number of bytes written between two syncs.
const SYNC_EVERY: u64 = 4 << 20;

/// Writes and finds snapshots. Any thread may hold one.
#[derive(Debug)]
pub struct Snapshots<D: Disk>(DataDir<D>);

impl<D: Disk> Clone for Snapshots<D> {
    fn clone(&self) -> Snapshots<D> {
        Snapshots(self.0.clone())
    }
}

impl<D: Disk> Snapshots<D> {
    pub(super) fn new(data_dir: DataDir<D>) -> Snapshots<D> {
        Snapshots(data_dir)
    }

    /// Begins a snapshot under a temporary name.
    pub fn begin(&self, metadata: &SnapshotMetadata) -> Result<SnapshotWriter<D>, WalError> {
        SnapshotWriter::begin(self.0.clone(), metadata)
    }

    /// Whether the disk has room for a snapshot with `bytes` bytes of state. True if the free space is unknown.
    pub fn has_room(&self, metadata: &SnapshotMetadata, state_bytes: u64) -> bool {
        let free = self.0.disk().free_bytes(self.0.snap());
        free.is_none_or(|free| SliceEncoder::length(metadata, state_bytes) < free)
    }

    /// Opens the finished snapshot at this position.
    pub fn open(&self, position: Position) -> Result<SnapshotReader<D>, WalError> {
        SnapshotReader::open(&self.0, position)
    }

    /// Renames a snapshot that turned out to be damaged, so that it is not used. It is removed when there is a newer
    /// one.
    pub fn set_aside(&self, position: Position) {
        let path = path(&self.0, position);
        let disk = self.0.disk();
        // If the renaming fails, the next reader finds the damage again.
        let _ = disk
            .rename(&path, &path.with_extension("bad"))
            .and_then(|()| disk.sync_dir(self.0.snap()));
    }

    /// The newest snapshot that can be opened, for a member that has fallen behind. Its slices are checked as they are
    /// read. It stays readable after it was removed.
    pub fn newest(&self) -> Result<Option<SnapshotReader<D>>, WalError> {
        for position in positions(&self.0)?.into_iter().rev() {
            match SnapshotReader::open(&self.0, position) {
                Ok(reader) => return Ok(Some(reader)),
                Err(error) if error.kind == WalErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Positions of all snapshots, oldest first, with those that etcd has renamed.
pub(super) fn positions<D: Disk>(data_dir: &DataDir<D>) -> Result<Vec<Position>, WalError> {
    let found = data_dir::list(data_dir.disk(), data_dir.snap())?;
    let position = |name: &str| names::parse_snapshot(name).or_else(|| names::parse_renamed(name));
    let named = found.iter().filter_map(|found| position(&found.name));
    let mut positions: Vec<Position> = named.collect();
    positions.sort_unstable_by_key(|position| (position.index, position.term));
    positions.dedup();
    Ok(positions)
}

/// Gives the snapshots that etcd has renamed their names back. Returns whether there were any. The caller syncs the
/// folder.
pub(super) fn rename_back<D: Disk>(data_dir: &DataDir<D>) -> Result<bool, WalError> {
    let found = data_dir::list(data_dir.disk(), data_dir.snap())?;
    let is_there = |name: &str| found.iter().any(|found| found.name == name);
    let mut renamed: Vec<Position> = found
        .iter()
        .filter_map(|found| names::parse_renamed(&found.name))
        .collect();
    renamed.retain(|position| !is_there(&names::snapshot_file(*position)));
    for &position in &renamed {
        let from = renamed_path(data_dir, position);
        data_dir
            .disk()
            .rename(&from, &path(data_dir, position))
            .map_err(|error| WalError::io(&from, "rename it back", &error))?;
    }
    Ok(!renamed.is_empty())
}

/// Removes the snapshot under both names that it may have. One that cannot be removed only costs space.
pub(super) fn remove<D: Disk>(data_dir: &DataDir<D>, position: Position) {
    for path in [path(data_dir, position), renamed_path(data_dir, position)] {
        let _ = data_dir.disk().remove(&path);
    }
}

pub(super) fn path<D: Disk>(data_dir: &DataDir<D>, position: Position) -> PathBuf {
    data_dir.snap().join(names::snapshot_file(position))
}

fn renamed_path<D: Disk>(data_dir: &DataDir<D>, position: Position) -> PathBuf {
    data_dir.snap().join(names::snapshot_renamed(position))
}

/// A snapshot being written. If it is dropped before [`SnapshotWriter::finish`], its file is removed.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    data_dir: DataDir<D>,
    position: Position,
    temporary: PathBuf,
    file: Option<D::Writer>,
    slices: SliceEncoder,
    /// Bytes to be written next.
    out: Vec<u8>,
    unsynced: u64,
    sealed: bool,
}

impl<D: Disk> SnapshotWriter<D> {
    fn begin(
        data_dir: DataDir<D>,
        metadata: &SnapshotMetadata,
    ) -> Result<SnapshotWriter<D>, WalError> {
        let salt = data_dir.disk().random();
        let random = data_dir.disk().random();
        let temporary = data_dir
            .snap()
            .join(names::snapshot_temporary(metadata.position, random));
        let file = data_dir.disk().create(&temporary);
        let file = file.map_err(|error| WalError::io(&temporary, "make it", &error))?;
        let mut out = Vec::new();
        let slices = SliceEncoder::begin(salt, metadata, &mut out);
        let mut writer = SnapshotWriter {
            data_dir,
            position: metadata.position,
            temporary,
            file: Some(file),
            slices,
            out,
            unsynced: 0,
            sealed: false,
        };
        writer.put()?;
        Ok(writer)
    }

    /// Adds bytes of the state machine, in pieces of any size.
    ///
    /// Errors: `Full` or `Io`. The caller must drop the writer then. The log is not affected.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        assert!(!self.sealed, "a write after the snapshot was sealed");
        self.slices.write(bytes, &mut self.out);
        self.put()
    }

    /// Completes the snapshot and makes it durable, still under its temporary name. A snapshot sent by a leader waits
    /// in this state until raft decides whether to use it. The caller must not add bytes afterwards.
    pub fn seal(&mut self) -> Result<(), WalError> {
        if self.sealed {
            return Ok(());
        }
        self.sealed = true;
        self.slices.end(&mut self.out);
        self.put()?;
        self.sync()
    }

    /// Seals the snapshot and gives it its final name, durably. From then on a start uses it. So the caller must not
    /// finish a snapshot with entries that raft does not have, unless raft has decided to install this snapshot. The
    /// caller then calls [`Wal::compact`](super::Wal::compact).
    pub fn finish(mut self) -> Result<(), WalError> {
        self.seal()?;
        self.file = None;
        let path = path(&self.data_dir, self.position);
        let disk = self.data_dir.disk();
        disk.rename(&self.temporary, &path)
            .and_then(|()| disk.sync_dir(self.data_dir.snap()))
            .map_err(|error| WalError::io(&path, "rename it to its final name", &error))
    }

    fn put(&mut self) -> Result<(), WalError> {
        if let Some(file) = self.file.as_mut().filter(|_| !self.out.is_empty()) {
            let written = file.write(&self.out);
            written.map_err(|error| WalError::io(&self.temporary, "write it", &error))?;
        }
        self.unsynced += self.out.len() as u64;
        self.out.clear();
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WalError> {
        if let Some(file) = &mut self.file {
            let begin = self.data_dir.disk().now();
            let synced = file.sync();
            synced.map_err(|error| WalError::io(&self.temporary, "sync it", &error))?;
            let took = self.data_dir.disk().now() - begin;
            if self.data_dir.disk().syncs() {
                self.data_dir.stats().snapshot_synced(self.unsynced, took);
            }
        }
        self.unsynced = 0;
        Ok(())
    }
}

impl<D: Disk> Drop for SnapshotWriter<D> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // If the file cannot be removed now, the next start removes it.
            let _ = self.data_dir.disk().remove(&self.temporary);
        }
    }
}

/// A snapshot being read.
#[derive(Debug)]
pub struct SnapshotReader<D: Disk> {
    path: PathBuf,
    file: D::Reader,
    metadata: SnapshotMetadata,
    bytes: u64,
    slices: u32,
    crcs_wanted: u32,
    salt: u32,
    crcs: Hasher,
    /// Number of the next slice.
    number: u32,
    offset: u64,
    /// The last slice, with its prefix.
    slice: Vec<u8>,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens a snapshot and checks its beginning and its end.
    pub(super) fn open(
        data_dir: &DataDir<D>,
        position: Position,
    ) -> Result<SnapshotReader<D>, WalError> {
        let (named, renamed) = (path(data_dir, position), renamed_path(data_dir, position));
        match data_dir.disk().open(&named) {
            Ok(file) => SnapshotReader::read(file, named, Some(position)),
            Err(error) => match data_dir.disk().open(&renamed) {
                Ok(file) if error.kind() == io::ErrorKind::NotFound => {
                    SnapshotReader::read(file, renamed, Some(position))
                }
                _ => Err(WalError::io(&named, "open it", &error)),
            },
        }
    }

    /// Whether the file has the name that etcd gives a snapshot that it cannot read.
    pub(super) fn is_renamed(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| names::parse_renamed(name).is_some())
    }

    /// Opens a snapshot in any place, such as a backup, and checks its beginning and its end. If its name has the form
    /// used in `snap`, it must match the content, as it must for a member.
    pub fn open_file(disk: &D, path: &Path) -> Result<SnapshotReader<D>, WalError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let position = name.and_then(names::parse_snapshot);
        let file = disk.open(path);
        let file = file.map_err(|error| WalError::io(path, "open it", &error))?;
        SnapshotReader::read(file, path.to_path_buf(), position)
    }

    fn read(
        file: D::Reader,
        path: PathBuf,
        named: Option<Position>,
    ) -> Result<SnapshotReader<D>, WalError> {
        let mut reader = SnapshotReader {
            path,
            file,
            metadata: SnapshotMetadata::default(),
            bytes: 0,
            slices: 0,
            crcs_wanted: 0,
            salt: 0,
            crcs: Hasher::new(),
            number: 0,
            offset: HEADER_BYTES,
            slice: Vec::new(),
        };
        reader.read_header()?;
        reader.read_end()?;
        reader.read_metadata(named)?;
        Ok(reader)
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot's metadata.
    pub fn metadata(&self) -> &SnapshotMetadata {
        &self.metadata
    }

    /// Number of bytes of the state machine in the snapshot.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// The salt and the checksum of all slices' checksums. It identifies a snapshot: only copies have the same
    /// fingerprint.
    pub fn fingerprint(&self) -> u64 {
        u64::from(self.salt) << 32 | u64::from(self.crcs_wanted)
    }

    /// Appends the next bytes of the state machine, at most 64 KiB, to `out`. Returns false and appends nothing if all
    /// bytes were read and all were good.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, WalError> {
        let slice = self.slice()?;
        slice.iter().for_each(|slice| out.extend_from_slice(slice));
        Ok(slice.is_some())
    }

    /// Like [`SnapshotReader::next`], without a copy. `None` if all bytes were read and all were good.
    pub fn slice(&mut self) -> Result<Option<&[u8]>, WalError> {
        if self.number == self.slices {
            return self.check_end().map(|()| None);
        }
        self.read_slice(self.number, DATA)?;
        Ok(Some(self.content()))
    }

    /// Reads the whole snapshot to check it.
    pub(super) fn verify(mut self) -> Result<(), WalError> {
        while self.slice()?.is_some() {}
        Ok(())
    }

    fn read_header(&mut self) -> Result<(), WalError> {
        let mut header = [0; HEADER_BYTES as usize];
        self.read_at(0, &mut header)?;
        let [magic @ .., a, b, c, d] = header;
        if magic != MAGIC {
            return Err(self.damaged(0, "it is not a snapshot of edgetcd: its first bytes differ"));
        }
        self.salt = u32::from_le_bytes([a, b, c, d]);
        Ok(())
    }

    fn read_end(&mut self) -> Result<(), WalError> {
        let size = (SLICE_PREFIX + END_BYTES) as u64;
        let Some(offset) = self.file.bytes().checked_sub(size) else {
            return Err(self.damaged(0, "its end is missing"));
        };
        let begin = std::mem::replace(&mut self.offset, offset);
        self.read_slice(END_NUMBER, END)?;
        (self.offset, self.number, self.crcs) = (begin, 0, Hasher::new());
        let Ok(end) = <[u8; END_BYTES]>::try_from(self.content()) else {
            return Err(self.damaged(offset, "its end is malformed"));
        };
        let [s0, s1, s2, s3, bytes @ .., c0, c1, c2, c3] = end;
        self.slices = u32::from_le_bytes([s0, s1, s2, s3]);
        self.bytes = u64::from_le_bytes(bytes);
        self.crcs_wanted = u32::from_le_bytes([c0, c1, c2, c3]);
        Ok(())
    }

    fn read_metadata(&mut self, named: Option<Position>) -> Result<(), WalError> {
        self.read_slice(0, MARK)?;
        match SnapshotMetadata::decode(self.content()) {
            Ok(metadata) if named.is_none_or(|named| named == metadata.position) => {
                self.metadata = metadata
            }
            Ok(_) => {
                return Err(self.damaged(
                    HEADER_BYTES,
                    "its metadata names another snapshot than its file name",
                ));
            }
            Err(error) => return Err(self.damaged(HEADER_BYTES, &error.to_string())),
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), WalError> {
        let size = (SLICE_PREFIX + END_BYTES) as u64;
        let good = self.offset + size == self.file.bytes()
            && self.crcs.clone().finalize() == self.crcs_wanted;
        match good {
            true => Ok(()),
            false => Err(self.damaged(
                self.offset,
                "its slices are not those that its end describes",
            )),
        }
    }

    /// Reads and checks the slice at the current offset, which must have this number and kind, and moves past it.
    fn read_slice(&mut self, number: u32, kind: u8) -> Result<(), WalError> {
        let offset = self.offset;
        let mut prefix = [0; SLICE_PREFIX];
        self.read_at(offset, &mut prefix)?;
        let prefix_end = offset + SLICE_PREFIX as u64;
        let [c0, c1, c2, c3, l0, l1, l2, l3, found] = prefix;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let left = self.file.bytes().saturating_sub(prefix_end);
        if length > SLICE_BYTES_MAX || u64::from(length) > left || found != kind {
            return Err(self.damaged(offset, "a slice fails its checksum"));
        }
        // Most slices have the same length, and then the array stays as it is.
        let mut slice = std::mem::take(&mut self.slice);
        slice.resize(SLICE_PREFIX + length as usize, 0);
        slice[..SLICE_PREFIX].copy_from_slice(&prefix);
        self.read_at(prefix_end, &mut slice[SLICE_PREFIX..])?;
        self.slice = slice;
        let crc = [c0, c1, c2, c3];
        if slice_crc(self.salt, number, &self.slice[4..]) != u32::from_le_bytes(crc) {
            return Err(self.damaged(offset, "a slice fails its checksum"));
        }
        self.crcs.update(&crc);
        self.offset = prefix_end + u64::from(length);
        self.number = number.wrapping_add(1);
        Ok(())
    }

    /// The bytes in the last slice.
    fn content(&self) -> &[u8] {
        &self.slice[SLICE_PREFIX..]
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), WalError> {
        match self.file.read_at(offset, into) {
            Ok(read) if read == into.len() => Ok(()),
            Ok(_) => Err(self.damaged(offset, "the file ends too early")),
            Err(error) => Err(read_error(&self.path, &error).at(offset)),
        }
    }

    fn damaged(&self, offset: u64, what: &str) -> WalError {
        WalError::damaged(&self.path, what).at(offset)
    }
}

fn read_error(path: &Path, error: &io::Error) -> WalError {
    WalError::io(path, "read it", error)
}
