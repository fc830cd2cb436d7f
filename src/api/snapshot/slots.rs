//! The slots of backups that are being sent, and the rule by which a slow client loses its slot.
//!
//! A client that reads its backup slowly occupies a slot and a version of the tree for a long time. That is no problem
//! while no other client wants a backup: a slow connection is not the client's fault. But two clients that read a few
//! hundred bytes per second would prevent all other backups for hours. So if all slots are in use, a new request takes
//! the slot of the slowest client that has read less than [`RATE_MIN`] on average since its start, after a grace period
//! of [`GRACE`]. The version of the tree is released at once. The slow client's connection ends the next time it reads.
//! If all clients are fast enough, the new one has to wait.
//!
//! Bytes in the kernel's send buffer count as read, up to a few MiB. So a client that reads nothing may look fast for a
//! minute.

use super::SNAPSHOTS_MAX;
use crate::engine::state::Encoder;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes per second below which a client can lose its slot. This is half of what a connection of 1 Mbit/s carries. A
/// tree of useful size takes too long to copy over a slower one.
const RATE_MIN: u64 = 64 << 10;

/// How long a client keeps its slot at any rate, because a connection may start slowly.
const GRACE: Duration = Duration::from_secs(30);

/// All slots of this member. Locks are held only briefly. Lock order: first this one, then a transfer's.
#[derive(Default)]
pub struct Slots(Mutex<Vec<Arc<Transfer>>>);

/// `None` before the first byte is sent, and after the slot was lost.
#[derive(Default)]
struct Transfer(Mutex<Option<Sending>>);

/// The state of a transfer that has begun.
struct Sending {
    since: Instant,
    /// Bytes of the state that the client has made room for.
    taken: u64,
    state: Encoder,
}

impl Sending {
    /// The rate in bytes per second if the client is slow enough to lose its slot.
    fn slow_rate(&self, now: Instant) -> Option<u64> {
        let age = now.saturating_duration_since(self.since);
        let rate = self.taken / age.as_secs().max(1);
        (age >= GRACE && rate < RATE_MIN).then_some(rate)
    }
}

/// One slot. Dropping it makes it available again.
pub(super) struct Slot {
    slots: Arc<Slots>,
    transfer: Arc<Transfer>,
}

impl Slots {
    /// Takes a free slot, or the slot of a client that is too slow. `None` if neither exists.
    pub(super) fn take(self: &Arc<Slots>, now: Instant) -> Option<Slot> {
        let transfer = Arc::<Transfer>::default();
        let mut taken = lock(&self.0);
        let cut = match taken.len() < SNAPSHOTS_MAX {
            true => None,
            false => Some(slowest(&taken, now).map(|at| taken.swap_remove(at))?),
        };
        taken.push(Arc::clone(&transfer));
        drop(taken);
        // Dropping a version of the tree may take long, so it happens outside the lock.
        if let Some(sending) = cut.and_then(|cut| lock(&cut.0).take()) {
            let seconds = now.saturating_duration_since(sending.since).as_secs();
            let taken = sending.taken;
            log::warn!(
                "aborted a slow backup, because another client requests one: its client has read {taken} bytes in \
                 {seconds} s"
            );
        }
        Some(Slot {
            slots: Arc::clone(self),
            transfer,
        })
    }
}

/// The transfer that must end, if any is too slow.
fn slowest(taken: &[Arc<Transfer>], now: Instant) -> Option<usize> {
    let slow = taken.iter().enumerate().filter_map(|(at, transfer)| {
        let rate = lock(&transfer.0).as_ref()?.slow_rate(now)?;
        Some((rate, at))
    });
    slow.min().map(|(_, at)| at)
}

impl Slot {
    /// Starts the measurement of the client's rate.
    pub fn begin(&self, state: Encoder, now: Instant) {
        *lock(&self.transfer.0) = Some(Sending {
            since: now,
            taken: 0,
            state,
        });
    }

    /// Appends the next slice of the state, like [`Encoder::next`].
    ///
    /// # Errors
    /// `ConnectionAborted` if another request has taken the slot.
    pub fn next(&self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut sending = lock(&self.transfer.0);
        let Some(sending) = sending.as_mut() else {
            return Err(ErrorKind::ConnectionAborted.into());
        };
        let before = out.len();
        let more = sending.state.next(out);
        sending.taken += (out.len() - before) as u64;
        Ok(more)
    }

    /// Whether another request has taken the slot.
    pub fn is_cut(&self) -> bool {
        lock(&self.transfer.0).is_none()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.slots.0).retain(|transfer| !Arc::ptr_eq(transfer, &self.transfer));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::Members;
    use crate::engine::state::State;

    fn begun(slots: &Arc<Slots>, at: Instant) -> Slot {
        let slot = slots.take(at).expect("a place");
        slot.begin(Encoder::new(&State::new(Members::default(), 0)), at);
        slot
    }

    fn has_taken(slot: &Slot, bytes: u64) {
        lock(&slot.transfer.0).as_mut().expect("not cut").taken = bytes;
    }

    #[test]
    fn the_slowest_gives_way_once_its_grace_is_over() {
        let (slots, start) = (Arc::<Slots>::default(), Instant::now());
        let (slow, slower) = (begun(&slots, start), begun(&slots, start));
        assert!(
            slots
                .take(start + GRACE - Duration::from_millis(1))
                .is_none()
        );
        let later = start + 2 * GRACE;
        has_taken(&slow, 2 * RATE_MIN);
        has_taken(&slower, RATE_MIN);
        let third = begun(&slots, later);
        assert!(slower.is_cut() && !slow.is_cut());
        let error = slower.next(&mut Vec::new()).expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(slow.next(&mut Vec::new()).is_ok());
        // Dropping the slower one does not free the slot, because another request has it now.
        drop(slower);
        has_taken(&slow, RATE_MIN * 60);
        assert!(slots.take(later).is_none(), "one is fast, one is new");
        drop(third);
        assert!(slots.take(later).is_some());
    }

    #[test]
    fn who_takes_enough_keeps_its_place() {
        let (slots, start) = (Arc::<Slots>::default(), Instant::now());
        let both = [begun(&slots, start), begun(&slots, start)];
        for seconds in [30, 60, 3600] {
            both.iter()
                .for_each(|slot| has_taken(slot, seconds * RATE_MIN));
            let now = start + Duration::from_secs(seconds);
            assert!(slots.take(now).is_none(), "after {seconds} s");
        }
    }

    /// Before its first byte, a transfer waits for the server, not for its client.
    #[test]
    fn what_has_not_begun_is_not_slow() {
        let (slots, start) = (Arc::<Slots>::default(), Instant::now());
        let _both = [slots.take(start), slots.take(start)].map(|slot| slot.expect("a place"));
        assert!(slots.take(start + 10 * GRACE).is_none());
    }
}
