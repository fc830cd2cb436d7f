//! The mapped segment: this room's only `unsafe`.

use memmap2::{Advice, MmapMut};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;

/// A whole allocated file, mapped for writing. One owner; nobody reads through it.
#[derive(Debug)]
pub(super) struct Map {
    map: MmapMut,
    file: File,
}

impl Map {
    /// `file` must have all its blocks: a store into a hole of a full disk is a signal, not an error.
    pub(super) fn open(file: &File) -> io::Result<Map> {
        // SAFETY: a map is undefined when its file changes or shrinks under it. The file belongs to
        // this process alone (the directory's lock is held for as long as a segment is open) and its
        // length never changes after it was allocated. Through the map bytes are only copied in:
        // no reference into it is ever handed out, and what is on disk is read with ordinary reads.
        let map = unsafe { MmapMut::map_mut(file)? };
        // Without this the kernel reads and dirties large folios around each fault, and a 100-byte
        // record after a burst writes 16 to 64 KiB instead of one page.
        map.advise(Advice::Random)?;
        let file = file.try_clone()?;
        Ok(Map { map, file })
    }

    /// Copies `bytes` in at `offset`. Panics when they do not fit: the caller counts the room.
    ///
    /// Errors: somebody has cut the file. A store behind its end would be a signal, so the length is
    /// looked at first; a cut in the moment between cannot be told from here.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let (now, length) = (self.file_bytes()?, self.map.len());
        if now < length as u64 {
            let what = format!("somebody has cut the file to {now} bytes; it had {length}");
            return Err(io::Error::other(what));
        }
        self.map[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// By a seek and not by `fstat`: a file whose times were looked at gets finer ones with its next change,
    /// and then the sync writes its inode, too. On ext4 without a journal that was a third of the sync, and
    /// a block more for the flash.
    fn file_bytes(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?)
    }

    /// `msync` of the pages that hold `[from, to)`.
    pub(super) fn sync(&self, from: usize, to: usize) -> io::Result<()> {
        self.map.flush_range(from, to - from)
    }
}
