//! Reading records from a file through a window, with ordinary reads.

use super::disk::DiskReader;
use super::error::WalError;
use super::record::{self, PREFIX, Prefix, RECORD_ALIGN, Record, Strange};
use super::sums::Sums;
use std::path::{Path, PathBuf};

/// What is read at once, at most: a window begins with less, and doubles it each time.
const CHUNK: u64 = 256 * 1024;
const FIRST_CHUNK: u64 = 8 * 1024;
/// The steps in which zeros are skipped.
const PAGE: usize = 4096;

/// A file with a part of it in memory.
#[derive(Debug)]
pub(super) struct Window<R> {
    path: PathBuf,
    reader: R,
    salt: u32,
    /// `data[..valid]` is what the file holds from `start` on.
    start: u64,
    data: Vec<u8>,
    valid: usize,
    chunk: u64,
}

/// What stands at an offset.
pub(super) enum Look<'a> {
    Record {
        record: Record<'a>,
        /// How much of the file it says was durable.
        durable: u64,
        /// Where the next record starts.
        next: u64,
    },
    /// Zeros, or bytes that fail the checksum, or the end of the file.
    Nothing,
    /// Written on purpose, yet not to be understood.
    Strange(Strange),
}

/// What is behind the last good record of a file.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// The first good record that calls the bad place durable.
    pub witness: Option<u64>,
    /// The end of the last byte that is not zero; 0 if there is none.
    pub dirty_end: u64,
    /// The eight bytes, from a multiple of 8 on, with that byte.
    pub last_bytes: [u8; RECORD_ALIGN as usize],
}

impl Rest {
    /// Whether nothing was found.
    pub fn is_zeros(&self) -> bool {
        self.dirty_end == 0
    }
}

impl<R: DiskReader> Window<R> {
    pub fn new(path: &Path, reader: R, salt: u32) -> Window<R> {
        Window {
            path: path.to_path_buf(),
            reader,
            salt,
            start: 0,
            data: Vec::new(),
            valid: 0,
            chunk: FIRST_CHUNK,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> u64 {
        self.reader.bytes()
    }

    /// The `length` bytes at `offset`; fewer only where the file ends.
    pub fn load(&mut self, offset: u64, length: u64) -> Result<&[u8], WalError> {
        let end = (offset + length).min(self.bytes()).max(offset);
        if offset < self.start || end > self.start + self.valid as u64 {
            self.fill(offset, length)?;
        }
        let from = ((offset - self.start) as usize).min(self.valid);
        let to = ((end - self.start) as usize).min(self.valid);
        Ok(&self.data[from..to])
    }

    /// Lets go of what was read, for a file that may have changed since.
    pub fn forget(&mut self) {
        self.valid = 0;
    }

    fn fill(&mut self, offset: u64, length: u64) -> Result<(), WalError> {
        let left = self.bytes().saturating_sub(offset);
        let wanted = length.max(self.chunk).min(left) as usize;
        self.chunk = (self.chunk * 2).min(CHUNK);
        if self.data.len() < wanted {
            self.data.resize(wanted, 0);
        }
        let read = self.reader.read_at(offset, &mut self.data[..wanted]);
        let failed = |error| WalError::io(&self.path, "read it", &error).at(offset);
        self.valid = read.map_err(failed)?;
        self.start = offset;
        Ok(())
    }

    fn prefix(&mut self, offset: u64) -> Result<Option<Prefix>, WalError> {
        let bytes = self.load(offset, PREFIX as u64)?;
        Ok(bytes.first_chunk().map(Prefix::read))
    }

    /// The record at `offset`, whole and checked.
    pub fn look(&mut self, offset: u64) -> Result<Look<'_>, WalError> {
        self.look_salted(offset, self.salt)
    }

    /// As [`Window::look`], with the salt of another file.
    pub fn look_salted(&mut self, offset: u64, salt: u32) -> Result<Look<'_>, WalError> {
        let Some(prefix) = self.prefix(offset)? else {
            return Ok(Look::Nothing);
        };
        let size = prefix.record_bytes();
        if prefix.length == 0 || size > self.bytes() - offset {
            return Ok(Look::Nothing);
        }
        let bytes = self.load(offset, size)?;
        if (bytes.len() as u64) < size || record::checksum(bytes, salt, offset) != prefix.crc {
            return Ok(Look::Nothing);
        }
        let payload = &bytes[PREFIX..PREFIX - 1 + prefix.length as usize];
        Ok(match Record::decode(prefix.kind, payload) {
            Ok(record) => Look::Record {
                record,
                durable: prefix.durable,
                next: offset + size,
            },
            Err(strange) => Look::Strange(strange),
        })
    }

    /// Looks at everything from `bad` on, where the last good record ends: for a witness that calls
    /// what stood there durable, and for bytes that are not zero.
    pub fn rest(&mut self, bad: u64) -> Result<Rest, WalError> {
        self.search(Search::new(bad, bad + 1))
    }

    /// Whether there is any good record in the file. One whose first page is zeros was never written
    /// to: a segment's first batch begins with its head.
    pub fn has_record(&mut self) -> Result<bool, WalError> {
        Ok(!self.begins_with_zeros()? && self.search(Search::new(0, 0))?.witness.is_some())
    }

    /// Whether the first page is zeros.
    pub fn begins_with_zeros(&mut self) -> Result<bool, WalError> {
        Ok(self.load(0, PAGE as u64)?.iter().all(|byte| *byte == 0))
    }

    fn search(&mut self, mut search: Search) -> Result<Rest, WalError> {
        let mut page = search.from / PAGE as u64 * PAGE as u64;
        while page < self.bytes() {
            let data = self.reader.next_data(page);
            let data = data.map_err(|error| WalError::io(&self.path, "read it", &error))?;
            let Some(data) = data else { break };
            page = page.max(data / PAGE as u64 * PAGE as u64);
            self.search_page(page, &mut search)?;
            page += PAGE as u64;
        }
        Ok(search.rest)
    }

    fn search_page(&mut self, page: u64, search: &mut Search) -> Result<(), WalError> {
        let from = search.from.max(page);
        let bytes = self.load(from, page + PAGE as u64 - from)?;
        // A record's length is in its first eight bytes, so none begins in a page of zeros.
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else {
            return Ok(());
        };
        let align = RECORD_ALIGN as usize;
        let mut last_bytes = [0; RECORD_ALIGN as usize];
        let tail = bytes[last / align * align..].iter();
        last_bytes
            .iter_mut()
            .zip(tail)
            .for_each(|(to, from)| *to = *from);
        search.rest.last_bytes = last_bytes;
        search.rest.dirty_end = from + last as u64 + 1;
        let mut offset = from.next_multiple_of(RECORD_ALIGN);
        while search.rest.witness.is_none() && offset < search.rest.dirty_end {
            if self.is_witness(offset, search)? {
                search.rest.witness = Some(offset);
            }
            offset += RECORD_ALIGN;
        }
        Ok(())
    }

    /// Whether a good record stands at `offset` that calls enough durable.
    fn is_witness(&mut self, offset: u64, search: &mut Search) -> Result<bool, WalError> {
        let Some(prefix) = self.prefix(offset)? else {
            return Ok(false);
        };
        // Cheap and almost never true of other bytes; but a value may be full of such prefixes.
        let plausible = record::is_kind(prefix.kind)
            && prefix.durable >= search.durable
            && prefix.durable <= offset
            && prefix.record_bytes() <= self.bytes() - offset;
        if !plausible {
            return Ok(false);
        }
        let sums = match &mut search.sums {
            Some(sums) => sums,
            none => none.insert(Sums::read(self, search.from)?),
        };
        let matches = sums.match_record(&prefix, self.salt, offset);
        Ok(matches && !matches!(self.look(offset)?, Look::Nothing))
    }
}

/// A search for a witness.
struct Search {
    /// Where a record may begin.
    from: u64,
    /// So many bytes it must call durable.
    durable: u64,
    /// From `from` on; made when the first bytes look like a record.
    sums: Option<Sums>,
    rest: Rest,
}

impl Search {
    fn new(from: u64, durable: u64) -> Search {
        Search {
            from,
            durable,
            sums: None,
            rest: Rest::default(),
        }
    }
}
