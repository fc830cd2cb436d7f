//! The memory budget ([`BodyBudget`]) of all request bodies that are being received, over all workers.
//!
//! Memory is granted as a body grows, not by its declared length. Otherwise seven clients that declare 10 MiB and send
//! nothing would block all others. But then the limit could be reached while every body needs more memory to complete.
//! So space for one whole body is reserved for one connection at a time (`elder`). That connection can always continue:
//! it completes, or is cut because it is slow, and then another connection takes its place. So no connection waits
//! forever, and the sum stays below the limit.
//!
//! The first 16 KiB of a body are read before anything about it is known. They are counted, but never refused.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) struct BodyBudget {
    /// Bytes in use.
    held: AtomicUsize,
    /// The id of the connection that may use the reserve, or 0.
    elder: AtomicU64,
    /// Number of connections that were refused and wait for [`BodyBudget::release`].
    waiting: AtomicUsize,
    /// Maximum bytes of all connections except `elder`.
    common: usize,
}

impl BodyBudget {
    /// For `total` bytes, and bodies of at most `largest` bytes.
    pub fn new(total: usize, largest: usize) -> BodyBudget {
        BodyBudget {
            held: AtomicUsize::new(0),
            elder: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            common: total.saturating_sub(largest),
        }
    }

    /// Counts `bytes` that are in use already.
    pub fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Grants `bytes` more to `who` (not 0), or refuses.
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

    /// Releases `bytes` of `who`. `ended`: its body needs no further memory. Returns whether another connection waits
    /// for memory.
    ///
    /// A refused connection counts itself as waiting *before* it asks once more. Here, memory is freed *before* that
    /// count is read. So one of the two notices the other.
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
        let budget = BodyBudget::new(100, 40);
        assert!(budget.grant(1, 30) && budget.grant(2, 30));
        assert!(budget.grant(1, 20), "the first to be refused is the elder");
        assert!(budget.grant(1, 20));
        assert!(!budget.grant(2, 1) && !budget.grant(3, 1));
        budget.wait();
        assert!(budget.release(1, 70, true), "somebody waits");
        assert!(budget.grant(3, 30) && budget.grant(2, 10));
        assert_eq!(budget.held(), 70);
        budget.wait_no_more();
        assert!(!budget.release(2, 40, true) && !budget.release(3, 30, true));
        assert_eq!(budget.held(), 0);
    }
}
