//! Received bytes of one connection that are not processed yet.
//!
//! A worker lends its buffer ([`Scratch`]) to the connection that it serves. Most requests are read and processed
//! within it. Only bytes that must wait, such as half a head, are moved to memory of the connection's own
//! ([`Input::settle`]), which grows with the received bytes. From 256 KiB on, this memory is an anonymous mapping. The
//! heap keeps memory that was freed after a few large blocks; the system gets a mapping back.

use memmap2::MmapMut;
use std::io::{self, Read};

/// Size of the worker's buffer, and the maximum of one read while a request is small.
pub(super) const SCRATCH_BYTES: usize = 16 << 10;
const MAPPED_BYTES_MIN: usize = 256 << 10;
/// Maximum of one read. A system call that copies for milliseconds would delay other connections.
const READ_BYTES_MAX: usize = 256 << 10;

/// Initialised memory, so that no `unsafe` is needed to read into it.
#[derive(Debug)]
enum Store {
    Heap(Box<[u8]>),
    Mapped(MmapMut),
}

impl Store {
    fn new(bytes: usize) -> io::Result<Store> {
        if bytes >= MAPPED_BYTES_MIN {
            MmapMut::map_anon(bytes).map(Store::Mapped)
        } else {
            Ok(Store::Heap(vec![0; bytes].into_boxed_slice()))
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Store::Heap(bytes) => bytes,
            Store::Mapped(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Store::Heap(bytes) => bytes,
            Store::Mapped(bytes) => bytes,
        }
    }
}

/// The buffer that a worker lends; empty while it is lent.
#[derive(Debug)]
pub(super) struct Scratch(Option<Box<[u8]>>);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(Some(vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}

/// The bytes `start..end` of `store` are received and not processed.
#[derive(Debug)]
pub(super) struct Input {
    store: Store,
    start: usize,
    end: usize,
    /// Whether the store is the worker's.
    lent: bool,
}

impl Input {
    /// An input without memory.
    pub fn new() -> Input {
        Input {
            store: Store::Heap(Box::default()),
            start: 0,
            end: 0,
            lent: false,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.store.bytes()[self.start..self.end]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store.bytes_mut()[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of the connection's own memory.
    pub fn owned(&self) -> usize {
        if self.lent {
            0
        } else {
            self.store.bytes().len()
        }
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed {count} of {}", self.len());
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Removes the bytes `from..to`; the following bytes move up.
    pub fn remove(&mut self, from: usize, to: usize) {
        let length = self.len();
        self.bytes_mut().copy_within(to..length, from);
        self.end -= to - from;
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Whether at least one more byte fits without new memory.
    pub fn has_room(&self) -> bool {
        self.len() < SCRATCH_BYTES.max(self.store.bytes().len())
    }

    /// The size after growing by at least one byte: twice the present size, at most `most`.
    pub fn next_size(&self, most: usize) -> usize {
        (self.store.bytes().len() * 2)
            .max(SCRATCH_BYTES)
            .min(most.max(self.len() + 1))
    }

    /// Moves the bytes to the connection's own memory of `size` bytes, and returns lent memory.
    pub fn grow(&mut self, size: usize, scratch: &mut Scratch) -> io::Result<()> {
        let length = self.len();
        assert!(size >= length, "{length} bytes do not fit into {size}");
        let mut store = Store::new(size)?;
        store.bytes_mut()[..length].copy_from_slice(self.bytes());
        let old = std::mem::replace(&mut self.store, store);
        (self.start, self.end) = (0, length);
        self.give_back(old, scratch);
        Ok(())
    }

    fn give_back(&mut self, store: Store, scratch: &mut Scratch) {
        if std::mem::take(&mut self.lent)
            && let Store::Heap(bytes) = store
        {
            scratch.0 = Some(bytes);
        }
    }

    /// Moves the waiting bytes to the worker's buffer.
    fn borrow(&mut self, scratch: &mut Scratch) {
        // A connection that panicked has dropped the buffer; then there is a new one.
        let Scratch(Some(mut bytes)) = std::mem::replace(scratch, Scratch(None)) else {
            *scratch = Scratch::new();
            return self.borrow(scratch);
        };
        let length = self.len();
        bytes[..length].copy_from_slice(self.bytes());
        *self = Input {
            store: Store::Heap(bytes),
            start: 0,
            end: length,
            lent: true,
        };
    }

    /// Reads once; small inputs are read into the worker's buffer. Returns the number of bytes, and whether there may
    /// be more: a read that does not fill the space has emptied the socket.
    pub fn fill(
        &mut self,
        mut socket: impl Read,
        scratch: &mut Scratch,
    ) -> io::Result<(usize, bool)> {
        if !self.lent && self.len() < SCRATCH_BYTES {
            self.borrow(scratch);
        }
        if self.start > 0 {
            let (start, end) = (self.start, self.end);
            self.store.bytes_mut().copy_within(start..end, 0);
            (self.start, self.end) = (0, end - start);
        }
        let room = &mut self.store.bytes_mut()[self.end..];
        let size = room.len().min(READ_BYTES_MAX);
        assert!(size > 0, "a read without room");
        let count = socket.read(&mut room[..size])?;
        self.end += count;
        Ok((count, count == size))
    }

    /// Called when the worker turns to another connection. Returns lent memory, and moves bytes that must wait to
    /// memory of their own size.
    pub fn settle(&mut self, scratch: &mut Scratch) {
        if self.is_empty() {
            let old = std::mem::replace(&mut self.store, Store::Heap(Box::default()));
            self.clear();
            self.give_back(old, scratch);
        } else if self.lent || self.owned() / 4 > self.len() {
            let waiting: Box<[u8]> = self.bytes().into();
            (self.start, self.end) = (0, waiting.len());
            let old = std::mem::replace(&mut self.store, Store::Heap(waiting));
            self.give_back(old, scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_served_leaves_no_memory() {
        let (mut input, mut scratch) = (Input::new(), Scratch::new());
        assert_eq!(
            input.fill(&b"hello"[..], &mut scratch).expect("read"),
            (5, false)
        );
        input.consume(5);
        input.settle(&mut scratch);
        assert_eq!((input.owned(), scratch.0.is_some()), (0, true));
    }

    #[test]
    fn what_must_wait_takes_its_own_size_and_grows_by_doubling() {
        let (mut input, mut scratch) = (Input::new(), Scratch::new());
        input.fill(&b"half a head"[..], &mut scratch).expect("read");
        input.consume(5);
        input.settle(&mut scratch);
        assert_eq!((input.bytes(), input.owned()), (&b"a head"[..], 6));
        input.fill(&b" and more"[..], &mut scratch).expect("read");
        assert_eq!((input.bytes(), input.owned()), (&b"a head and more"[..], 0));
        input.remove(1, 6);
        assert_eq!(input.bytes(), b"a and more");
        input
            .fill(&[b'x'; SCRATCH_BYTES][..], &mut scratch)
            .expect("read");
        assert!(!input.has_room());
        assert_eq!(
            (input.next_size(20 << 10), input.next_size(1 << 20)),
            (20 << 10, 32 << 10)
        );
        input.grow(32 << 10, &mut scratch).expect("grow");
        assert_eq!(
            (input.len(), input.owned(), input.has_room()),
            (16 << 10, 32 << 10, true)
        );
    }

    #[test]
    fn large_memory_is_mapped() {
        let (mut input, mut scratch) = (Input::new(), Scratch::new());
        input.grow(MAPPED_BYTES_MIN, &mut scratch).expect("grow");
        assert!(matches!(input.store, Store::Mapped(_)));
    }
}
