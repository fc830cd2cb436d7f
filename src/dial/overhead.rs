//! A limit for bytes that arrive without progress of their reader.
//!
//! A chunked body ends with trailers, and the library reads them without a limit. The reader of the body does not see
//! them. It cannot limit them by time either, if it waits for an event that may take days. So the connections of an
//! agent count the bytes that arrive, and the reader reports its progress.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Bytes that may arrive without progress. Heads of chunks, and a full buffer of the library, need less.
const BYTES_MAX: u64 = 1 << 20;

const UNLIMITED: u64 = u64::MAX;

/// The count of one agent: the bytes that may still arrive, or `UNLIMITED`.
#[derive(Debug, Clone)]
pub struct Overhead(Arc<AtomicU64>);

impl Default for Overhead {
    fn default() -> Overhead {
        Overhead(Arc::new(AtomicU64::new(UNLIMITED)))
    }
}

impl Overhead {
    /// From now on, at most `BYTES_MAX` bytes arrive without progress, until the result is dropped.
    pub fn limit(&self) -> Limited {
        self.0.store(BYTES_MAX, Ordering::Relaxed);
        Limited(self.clone())
    }

    /// The reader has received bytes of the body.
    pub fn progress(&self) {
        self.change(|_| Some(BYTES_MAX));
    }

    fn arrived(&self, bytes: usize) -> io::Result<()> {
        match self.change(|left| left.checked_sub(bytes as u64)) {
            true => Ok(()),
            false => Err(io::Error::other(
                "the response has more than 1 MiB of chunk heads or trailers",
            )),
        }
    }

    /// Changes the number if there is a limit. Returns false if `change` fails.
    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        let changed = |left| match left {
            UNLIMITED => Some(UNLIMITED),
            left => change(left),
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, changed).is_ok()
    }
}

/// The limit of an [`Overhead`] while this value exists.
#[derive(Debug)]
pub struct Limited(Overhead);

impl Drop for Limited {
    fn drop(&mut self) {
        self.0.0.store(UNLIMITED, Ordering::Relaxed);
    }
}

/// Opens connections that count.
#[derive(Debug)]
pub(super) struct Counting(pub Overhead);

impl<In: Transport> Connector<In> for Counting {
    type Out = Counted<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Counted<In>>, ureq::Error> {
        Ok(chained.map(|inner| Counted {
            inner,
            overhead: self.0.clone(),
        }))
    }
}

/// A connection that counts what arrives.
#[derive(Debug)]
pub(super) struct Counted<In> {
    inner: In,
    overhead: Overhead,
}

impl<In: Transport> Transport for Counted<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let before = self.inner.buffers().input().len();
        let has_more = self.inner.await_input(timeout)?;
        let after = self.inner.buffers().input().len();
        self.overhead.arrived(after.saturating_sub(before))?;
        Ok(has_more)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_without_progress_are_limited_while_somebody_wants_it() {
        let overhead = Overhead::default();
        let half = BYTES_MAX as usize / 2;
        let many = |count: usize| (0..count).all(|_| overhead.arrived(half).is_ok());
        assert!(many(10), "nobody has set a limit");
        let limited = overhead.limit();
        assert!(many(2));
        overhead.progress();
        assert!(many(2));
        assert!(!many(1));
        drop(limited);
        overhead.progress();
        assert!(many(10), "the limit is gone");
    }
}
