//! The mark of a data directory that is written without syncs (`--unsafe-no-fsync`).
//!
//! Without syncs, the kernel writes the files when it likes. If the machine stops before that, entries, votes and names
//! of files are lost that this member has acknowledged. Records contain durable offsets that were never true, so
//! recovery may also refuse such a log as damaged, which it is.
//!
//! The file `member/unsynced` exists from before the first unsynced write until all files were synced and read again. It
//! contains the id of the boot in which the first unsynced write happened. If that is the present boot, the page cache
//! still holds what the files lack, because the end of a process does not empty it. This is not true if the disk was
//! detached, if its file system was reset to an older state, or if the kernel could not write a page: then it reports an
//! error and may drop that page.

use super::data_dir::{DataDir, Options};
use super::disk::{Disk, DiskReader, DiskWriter};
use super::error::WalError;
use std::io;
use std::path::PathBuf;

const UNSYNCED: &str = "unsynced";
/// The mark before it is complete.
const ASIDE: &str = "unsynced.tmp";
const BOOT_ID_BYTES: usize = 16;

/// Like [`DataDir::unsynced_since`], without the lock. For the explanation of another error, so an error of its own counts
/// as `None`.
pub fn unsynced_since<D: Disk>(disk: D, options: Options) -> Option<[u8; BOOT_ID_BYTES]> {
    DataDir::unlocked(disk, options)
        .and_then(|data_dir| data_dir.unsynced_since())
        .ok()
        .flatten()
}

impl<D: Disk> DataDir<D> {
    /// The id of the boot since which the directory has been written without syncs. `None`: it was written with syncs.
    /// All zero if the mark is not readable as an id.
    ///
    /// # Errors
    /// `Io` if the mark exists and cannot be read.
    pub fn unsynced_since(&self) -> Result<Option<[u8; BOOT_ID_BYTES]>, WalError> {
        let path = self.mark();
        let reader = match self.disk().open(&path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(WalError::io(&path, "open it", &error)),
        };
        let mut boot_id = [0; BOOT_ID_BYTES];
        let read = reader.read_at(0, &mut boot_id);
        let read = read.map_err(|error| WalError::io(&path, "read it", &error))?;
        Ok(Some(match read {
            BOOT_ID_BYTES => boot_id,
            _ => [0; BOOT_ID_BYTES],
        }))
    }

    /// Marks the directory, before the first unsynced write. An existing mark keeps its content, because what was lost
    /// in an earlier boot remains lost.
    ///
    /// The mark is written and synced in any case. The process that created an existing mark may have ended before its
    /// sync, or the sync may have failed, and then a second sync of the same file guarantees nothing.
    ///
    /// # Errors
    /// `Io` or `Full`.
    pub fn mark_unsynced(&self, boot_id: [u8; BOOT_ID_BYTES]) -> Result<(), WalError> {
        let content = self.unsynced_since()?.unwrap_or(boot_id);
        let (path, aside) = (self.mark(), self.member().join(ASIDE));
        let disk = self.disk().with_syncs();
        let made = disk.create(&aside).and_then(|mut file| {
            file.write(&content)?;
            file.sync()?;
            disk.rename(&aside, &path)?;
            disk.sync_dir(self.member())
        });
        made.map_err(|error| WalError::io(&path, "write it", &error))
    }

    /// Syncs every file of a marked directory. The mark stays.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync_unsynced(&self) -> Result<(), WalError> {
        let disk = self.disk().with_syncs();
        for dir in [self.wal(), self.snap(), self.member()] {
            let synced = disk.sync_files(dir);
            synced.map_err(|error| WalError::io(dir, "sync the files in it", &error))?;
        }
        Ok(())
    }

    /// Removes the mark. From then on the directory counts as written with syncs.
    ///
    /// Call it after [`DataDir::sync_unsynced`], and after all files were read: if a file turns out to be incomplete, the
    /// mark is the explanation, and the next start needs it, too.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_mark(&self) -> Result<(), WalError> {
        let (path, disk) = (self.mark(), self.disk().with_syncs());
        let removed = disk
            .remove(&path)
            .and_then(|()| disk.sync_dir(self.member()));
        removed.map_err(|error| WalError::io(&path, "remove it", &error))
    }

    fn mark(&self) -> PathBuf {
        self.member().join(UNSYNCED)
    }
}
