//! The few places of backups that are being sent, and who gives theirs up for another.
//!
//! A client that takes its backup slowly holds a place and a version of the tree for a long time. As long as
//! nobody else asks that is no harm: a slow link is no fault. But two clients that take a few hundred bytes a
//! second would keep all others from a backup for hours. So where no place is free, the slowest of those that
//! have taken less than [`RATE_MIN`] on average since they began is cut, after a grace of [`GRACE`]; what it
//! holds of the tree is let go at once, and its connection ends when it next takes something. Where all are
//! fast enough, the new one has to wait.
//!
//! What the kernel has buffered for a client counts as taken, up to a few MiB: a client that takes nothing may
//! look fast for a minute.

use super::SNAPSHOTS_MAX;
use crate::engine::state::Encoder;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes a second below which a place is given up for another: half of what a link of 1 Mbit/s carries, the
/// slowest over which a tree that is worth the name is copied in a bearable time.
const RATE_MIN: u64 = 64 << 10;

/// How long a place is nobody else's, whatever the rate: a link may begin slowly.
const GRACE: Duration = Duration::from_secs(30);

/// All places of this member. A lock is held for a look; of the two kinds this one is taken first.
#[derive(Default)]
pub struct Slots(Mutex<Vec<Arc<Transfer>>>);

/// None before the first byte is sent, and once it was cut.
#[derive(Default)]
struct Transfer(Mutex<Option<Sending>>);

/// What is on its way.
struct Sending {
    since: Instant,
    /// Bytes of the state, as far as the client has made room for them.
    taken: u64,
    state: Encoder,
}

impl Sending {
    /// Bytes a second, if it is so slow that it must give way.
    fn slow_rate(&self, now: Instant) -> Option<u64> {
        let age = now.saturating_duration_since(self.since);
        let rate = self.taken / age.as_secs().max(1);
        (age >= GRACE && rate < RATE_MIN).then_some(rate)
    }
}

/// One of the places; given back when it is dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    transfer: Arc<Transfer>,
}

impl Slots {
    /// A free place, or that of a client that is too slow. None: all are taken.
    pub(super) fn take(self: &Arc<Slots>, now: Instant) -> Option<Slot> {
        let transfer = Arc::<Transfer>::default();
        let mut taken = lock(&self.0);
        let cut = match taken.len() < SNAPSHOTS_MAX {
            true => None,
            false => Some(slowest(&taken, now).map(|at| taken.swap_remove(at))?),
        };
        taken.push(Arc::clone(&transfer));
        drop(taken);
        // A version of the tree: it may be long in going.
        if let Some(sending) = cut.and_then(|cut| lock(&cut.0).take()) {
            let seconds = now.saturating_duration_since(sending.since).as_secs();
            let taken = sending.taken;
            log::warn!(
                "a backup was cut off, as another client asks for one: its client has taken {taken} bytes in \
                 {seconds} s"
            );
        }
        Some(Slot {
            slots: Arc::clone(self),
            transfer,
        })
    }
}

/// Which of them must give way, if any must.
fn slowest(taken: &[Arc<Transfer>], now: Instant) -> Option<usize> {
    let slow = taken.iter().enumerate().filter_map(|(at, transfer)| {
        let rate = lock(&transfer.0).as_ref()?.slow_rate(now)?;
        Some((rate, at))
    });
    slow.min().map(|(_, at)| at)
}

impl Slot {
    /// From now on the client is measured.
    pub fn begin(&self, state: Encoder, now: Instant) {
        *lock(&self.transfer.0) = Some(Sending {
            since: now,
            taken: 0,
            state,
        });
    }

    /// Appends the next slice of the state, as [`Encoder::next`].
    ///
    /// # Errors
    /// `ConnectionAborted` when the place was given to another.
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

    /// Whether the place was given to another.
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
        // Its end gives nothing back: the place is another's.
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

    /// Before its first byte it waits for others, not for its client.
    #[test]
    fn what_has_not_begun_is_not_slow() {
        let (slots, start) = (Arc::<Slots>::default(), Instant::now());
        let _both = [slots.take(start), slots.take(start)].map(|slot| slot.expect("a place"));
        assert!(slots.take(start + 10 * GRACE).is_none());
    }
}
