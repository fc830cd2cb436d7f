//! Memory that bodies in progress hold, over all workers.
//!
//! Memory is granted as a body grows, not by what it declares: otherwise seven clients that declare
//! 10 MiB and send nothing would keep everybody else out. But then a full ledger could leave only
//! bodies that all need more to complete. So room for one whole body is kept back for one
//! connection at a time, the *elder*: it can always go on, completes or is cut for being slow, and
//! the next one takes its place. Nobody starves for good, and the sum stays below the limit.
//!
//! The first 16 KiB of a body, read before anything about it was known, are counted but not refused.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) struct Ledger {
    /// Bytes held.
    held: AtomicUsize,
    /// The connection that may use what is kept back: its ticket, or 0.
    elder: AtomicU64,
    /// Connections that were refused and wait for [`Ledger::release`].
    waiting: AtomicUsize,
    /// What all but the elder may hold together.
    common: usize,
}

impl Ledger {
    /// For `total` bytes and bodies of `largest` bytes at most.
    pub fn new(total: usize, largest: usize) -> Ledger {
        Ledger {
            held: AtomicUsize::new(0),
            elder: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            common: total.saturating_sub(largest),
        }
    }

    /// Counts `bytes` that are held already.
    pub fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Grants `bytes` more to `who` (not 0), or not.
    pub fn grant(&self, who: u64, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= self.common);
        if self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok()
        {
            return true;
        }
        let elder = self
            .elder
            .compare_exchange(0, who, Ordering::SeqCst, Ordering::SeqCst);
        let is_elder = elder.is_ok() || elder == Err(who);
        if is_elder {
            self.add(bytes);
        }
        is_elder
    }

    /// Takes `bytes` back; `ended` if `who` needs no more. Whether somebody waits for them.
    ///
    /// A refused connection counts itself as waiting *before* it asks once more, and here memory is
    /// freed *before* the count is looked at: one of the two sees the other.
    pub fn release(&self, who: u64, bytes: usize, ended: bool) -> bool {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        if ended {
            let _ = self
                .elder
                .compare_exchange(who, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    pub fn wait_no_more(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_can_always_go_on() {
        let ledger = Ledger::new(100, 40);
        assert!(ledger.grant(1, 30) && ledger.grant(2, 30));
        assert!(ledger.grant(1, 20), "the first to be refused is the elder");
        assert!(ledger.grant(1, 20));
        assert!(!ledger.grant(2, 1) && !ledger.grant(3, 1));
        ledger.wait();
        assert!(ledger.release(1, 70, true), "somebody waits");
        assert!(ledger.grant(3, 30) && ledger.grant(2, 10));
        assert_eq!(ledger.held(), 70);
        ledger.wait_no_more();
        assert!(!ledger.release(2, 40, true) && !ledger.release(3, 30, true));
        assert_eq!(ledger.held(), 0);
    }
}
