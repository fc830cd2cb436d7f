//! Reads records from a file through a window in memory, with ordinary reads.

use super::disk::DiskReader;
use super::error::WalError;
use super::record::{self, PREFIX, Prefix, RECORD_ALIGN, Record, Undecodable};
use super::sums::Sums;
use std::path::{Path, PathBuf};

/// Largest number of bytes read at once. A window begins with the smaller number and doubles it with each read.
const CHUNK: u64 = 256 * 1024;
const FIRST_CHUNK: u64 = 8 * 1024;
/// Zeros are skipped in steps of this size.
const PAGE: usize = 4096;

/// A file with a part of it in memory.
#[derive(Debug)]
pub(super) struct Window<R> {
    path: PathBuf,
    reader: R,
    salt: u32,
    /// `data[..valid]` is the content of the file from `start` on.
    start: u64,
    data: Vec<u8>,
    valid: usize,
    chunk: u64,
}

/// Content of the file at an offset.
pub(super) enum Found<'a> {
    Record {
        record: Record<'a>,
        /// The record's durable offset.
        durable: u64,
        /// Start of the next record.
        next: u64,
    },
    /// Zeros, bytes that fail the checksum, or the end of the file.
    Nothing,
    /// The checksum is good, but the record cannot be decoded.
    Undecodable(Undecodable),
}

/// Content of a file behind its last good record.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Offset of the first good record that calls the bad place durable.
    pub witness: Option<u64>,
    /// End of the last byte that is not zero. 0 if there is none.
    pub dirty_end: u64,
    /// The eight bytes, aligned to 8, that contain that last byte.
    pub last_bytes: [u8; RECORD_ALIGN as usize],
}

impl Rest {
    /// Whether nothing but zeros was found.
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

    /// The `length` bytes at `offset`. Fewer only at the end of the file.
    pub fn load(&mut self, offset: u64, length: u64) -> Result<&[u8], WalError> {
        let end = (offset + length).min(self.bytes()).max(offset);
        if offset < self.start || end > self.start + self.valid as u64 {
            self.fill(offset, length)?;
        }
        let from = ((offset - self.start) as usize).min(self.valid);
        let to = ((end - self.start) as usize).min(self.valid);
        Ok(&self.data[from..to])
    }

    /// Forgets the bytes in memory, for a file that may have changed since they were read.
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

    /// Reads and checks the record at `offset`.
    pub fn record_at(&mut self, offset: u64) -> Result<Found<'_>, WalError> {
        self.record_at_with_salt(offset, self.salt)
    }

    /// Like [`Window::record_at`], but with the salt of another file.
    pub fn record_at_with_salt(&mut self, offset: u64, salt: u32) -> Result<Found<'_>, WalError> {
        let Some(prefix) = self.prefix(offset)? else {
            return Ok(Found::Nothing);
        };
        let size = prefix.record_bytes();
        if prefix.length == 0 || size > self.bytes() - offset {
            return Ok(Found::Nothing);
        }
        let bytes = self.load(offset, size)?;
        if (bytes.len() as u64) < size || record::checksum(bytes, salt, offset) != prefix.crc {
            return Ok(Found::Nothing);
        }
        let payload = &bytes[PREFIX..PREFIX - 1 + prefix.length as usize];
        Ok(match Record::decode(prefix.kind, payload) {
            Ok(record) => Found::Record {
                record,
                durable: prefix.durable,
                next: offset + size,
            },
            Err(undecodable) => Found::Undecodable(undecodable),
        })
    }

    /// Searches everything from `bad` on, the end of the last good record. It looks for a witness that calls the bytes
    /// at `bad` durable, and for bytes that are not zero.
    pub fn rest(&mut self, bad: u64) -> Result<Rest, WalError> {
        self.search(Search::new(bad, bad + 1))
    }

    /// Whether the file contains any good record. A file whose first page is zeros was never written to, because a
    /// segment's first batch begins with its head.
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
        // A record's length is in its first eight bytes and is not 0, so no record begins in a page of zeros.
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

    /// Whether a good record at `offset` calls enough of the file durable.
    fn is_witness(&mut self, offset: u64, search: &mut Search) -> Result<bool, WalError> {
        let Some(prefix) = self.prefix(offset)? else {
            return Ok(false);
        };
        // This check is cheap, and other bytes almost never pass it. However, a value may be full of such prefixes, so
        // the checksum comes from the prepared sums.
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
        Ok(matches && !matches!(self.record_at(offset)?, Found::Nothing))
    }
}

/// A search for a witness.
struct Search {
    /// First offset at which a record may begin.
    from: u64,
    /// Lower bound of the witness's durable offset.
    durable: u64,
    /// Sums of everything from `from` on, computed when bytes look like a record for the first time.
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
