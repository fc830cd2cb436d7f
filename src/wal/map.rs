//! The memory-mapped segment: the only `unsafe` code of this module.

use memmap2::{Advice, MmapMut};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;

/// A complete allocated file, mapped for writing. It has one owner, and nobody reads through it.
#[derive(Debug)]
pub(super) struct Map {
    map: MmapMut,
    file: File,
}

impl Map {
    /// All blocks of `file` must be allocated: on a full disk a store into a hole raises a signal instead of an error.
    pub(super) fn open(file: &File) -> io::Result<Map> {
        // SAFETY: a mapping is undefined if its file changes or shrinks. The file belongs to this process alone: the
        // directory's lock is held as long as a segment is open. The file's length never changes after its allocation.
        // Bytes are only copied into the mapping. No reference into it leaves this type, and the file is read with
        // ordinary reads.
        let map = unsafe { MmapMut::map_mut(file)? };
        // Without this the kernel reads and dirties large folios around each fault, and a record of 100 bytes after a
        // burst writes 16 to 64 KiB instead of one page.
        map.advise(Advice::Random)?;
        let file = file.try_clone()?;
        Ok(Map { map, file })
    }

    /// Copies `bytes` to `offset`. Panics if they do not fit: the caller keeps track of the space.
    ///
    /// Errors: another program truncated the file. A store behind the end would raise a signal, so the length is
    /// checked first. A truncation between the check and the store cannot be detected here.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let (now, length) = (self.file_bytes()?, self.map.len());
        if now < length as u64 {
            let what =
                format!("another program has truncated the file from {length} to {now} bytes");
            return Err(io::Error::other(what));
        }
        self.map[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Length of the file, found with a seek instead of `fstat`. After an `fstat` the kernel gives the file finer
    /// timestamps at its next change, and then the sync also writes the inode. On ext4 without a journal this was a
    /// third of the sync's time, and one more block written to flash.
    fn file_bytes(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?)
    }

    /// Calls `msync` for the pages that contain `[from, to)`.
    pub(super) fn sync(&self, from: usize, to: usize) -> io::Result<()> {
        self.map.flush_range(from, to - from)
    }
}
