//! The memory of responses that their clients have not read yet, over all workers of one server.
//!
//! There are two sums. *Held* bytes are rendered and not sent yet. *Pinned* bytes belong to the handler's data: a long
//! body is rendered from that data while its client reads. So a client that pauses holds one slice of rendered text,
//! and it keeps a version of the data alive that may have been replaced meanwhile. If several clients receive the same
//! version, it counts once.
//!
//! A parked response to a request with a long head also counts as holding that head, because the owner of the response
//! may keep parts of it.
//!
//! Both sums may exceed their limits for a moment, because a response that has begun cannot be undone. Above a limit,
//! the workers cut responses whose clients have read nothing for [`STALLED_MIN`]. Above twice the limit, they cut any
//! response that waits for its client. While `held` is above half of its limit, slices are small.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a client may read nothing while memory is scarce.
pub(super) const STALLED_MIN: Duration = Duration::from_secs(1);

/// How often a worker searches for responses to cut while a sum is too large.
pub(super) const RELIEVE_EVERY: Duration = Duration::from_millis(100);

/// Bytes of a large body that are rendered at a time.
pub(super) const SLICE_BYTES: usize = 64 << 10;
/// The same while memory is scarce.
const SMALL_SLICE_BYTES: usize = 8 << 10;

/// The part of the handler's data that one response keeps alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Equal for all responses that keep the same data alive, for example the address of that data.
    pub key: usize,
    /// Its approximate size in bytes.
    pub bytes: usize,
}

/// The sum that exceeds its limit. `far`: it exceeds twice its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Held { far: bool },
    Pinned { far: bool },
}

/// The part of the sums that one connection causes.
#[derive(Default)]
pub(super) struct Share {
    held: usize,
    /// The key of its pinned data.
    pinned: Option<NonZeroUsize>,
}

impl Share {
    /// The bytes that the connection holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether the connection pins anything.
    pub fn is_pinning(&self) -> bool {
        self.pinned.is_some()
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.pinned.is_none()
    }
}

/// The sums of one server.
pub(super) struct Backlog {
    held: AtomicUsize,
    held_max: usize,
    pinned_max: usize,
    /// Locked only for responses that wait for their clients and pin data.
    pins: Mutex<Pins>,
    /// Copies of values in `pins`, so that they can be read without its lock.
    pinned: AtomicUsize,
    pinned_limit: AtomicUsize,
}

#[derive(Default)]
struct Pins {
    /// By key: the bytes, and the number of responses.
    by_key: HashMap<usize, (usize, usize)>,
    bytes: usize,
}

impl Backlog {
    pub fn new(held_max: usize, pinned_max: usize) -> Backlog {
        Backlog {
            held: AtomicUsize::new(0),
            held_max,
            pinned_max,
            pins: Mutex::default(),
            pinned: AtomicUsize::new(0),
            pinned_limit: AtomicUsize::new(pinned_max),
        }
    }

    /// From now on, a connection holds `held` bytes and pins `pin`.
    pub fn update(&self, share: &mut Share, held: usize, pin: Option<Pin>) {
        if held != share.held {
            // The addition is modulo 2^64, so it also subtracts.
            let change = held.wrapping_sub(share.held);
            self.held.fetch_add(change, Ordering::Relaxed);
            share.held = held;
        }
        let pin = pin.filter(|pin| pin.key != 0);
        let key = pin.and_then(|pin| NonZeroUsize::new(pin.key));
        if key != share.pinned {
            pin.inspect(|&pin| self.pin(pin));
            share.pinned.inspect(|&key| self.unpin(key.get()));
            share.pinned = key;
        }
    }

    fn pin(&self, pin: Pin) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = pins.by_key.entry(pin.key).or_insert((pin.bytes, 0));
        entry.1 += 1;
        if entry.1 == 1 {
            pins.bytes += pin.bytes;
        }
        self.publish(&pins);
    }

    fn unpin(&self, key: usize) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = pins.by_key.get_mut(&key) else {
            return;
        };
        entry.1 -= 1;
        if let (bytes, 0) = *entry {
            pins.by_key.remove(&key);
            pins.bytes -= bytes;
        }
        self.publish(&pins);
    }

    /// Copies the sum. The limit is at least four times the largest version, so that several clients can read a large
    /// store at the same time even if its listing alone exceeds the limit.
    fn publish(&self, pins: &Pins) {
        let largest = match pins.bytes > self.pinned_max {
            true => pins.by_key.values().map(|entry| entry.0).max(),
            false => None,
        };
        let limit = self.pinned_max.max(4 * largest.unwrap_or(0));
        self.pinned.store(pins.bytes, Ordering::Relaxed);
        self.pinned_limit.store(limit, Ordering::Relaxed);
    }

    /// The sum that exceeds its limit, if one does.
    pub fn excess(&self) -> Option<Excess> {
        let held = self.held.load(Ordering::Relaxed);
        if held > self.held_max {
            let far = held / 2 > self.held_max;
            return Some(Excess::Held { far });
        }
        let pinned = self.pinned.load(Ordering::Relaxed);
        let limit = self.pinned_limit.load(Ordering::Relaxed);
        let far = pinned / 2 > limit;
        (pinned > limit).then_some(Excess::Pinned { far })
    }

    /// Bytes of a body to render at a time.
    pub fn slice_bytes(&self) -> usize {
        match self.held.load(Ordering::Relaxed) > self.held_max / 2 {
            true => SMALL_SLICE_BYTES,
            false => SLICE_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_answers_share_counts_once() {
        let backlog = Backlog::new(100, 1000);
        let hold = |key| {
            let mut share = Share::default();
            backlog.update(&mut share, 0, Some(Pin { key, bytes: 400 }));
            share
        };
        let mut same: Vec<Share> = (0..50).map(|_| hold(1)).collect();
        assert_eq!(backlog.excess(), None);
        let mut others: Vec<Share> = (2..=4).map(hold).collect();
        assert_eq!(backlog.excess(), None, "four times the largest is allowed");
        others.push(hold(5));
        assert_eq!(backlog.excess(), Some(Excess::Pinned { far: false }));
        backlog.update(&mut same[0], 0, None);
        assert_eq!(
            backlog.excess(),
            Some(Excess::Pinned { far: false }),
            "49 others still pin the first"
        );
        for share in &mut same {
            backlog.update(share, 0, None);
        }
        assert_eq!(backlog.excess(), None);
    }

    #[test]
    fn slices_shrink_before_the_limit_is_reached() {
        let backlog = Backlog::new(100, 1000);
        let mut share = Share::default();
        let mut seen = |held| {
            backlog.update(&mut share, held, None);
            (backlog.slice_bytes(), backlog.excess())
        };
        assert_eq!(seen(50), (SLICE_BYTES, None));
        assert_eq!(seen(60), (SMALL_SLICE_BYTES, None));
        let far = Some(Excess::Held { far: true });
        assert_eq!(seen(202), (SMALL_SLICE_BYTES, far));
        let near = Some(Excess::Held { far: false });
        assert_eq!(seen(101), (SMALL_SLICE_BYTES, near));
        assert_eq!(seen(0), (SLICE_BYTES, None));
    }
}
