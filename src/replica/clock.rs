//! The machine's clocks, and the raft thread's estimate of cluster time for all threads.

use crate::engine::time::{Estimate, Monotonic};
use crate::storage::clock::Clock;
use crate::tree::{ClusterTime, WallTime};
use std::sync::atomic::{AtomicU64, Ordering};

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn since_boot(&self) -> u64 {
        let now = rustix::time::clock_gettime(BOOT_CLOCK);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
    }

    fn wall(&self) -> WallTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock set before 1970 is shown as 1970.
        WallTime(since.map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        }))
    }

    fn boot_id(&self) -> [u8; 16] {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let hex = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
            *byte = hex(pair[0]) << 4 | hex(pair[1]);
        }
        id
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// The raft thread's [`engine::time::Estimate`](Estimate), readable by all threads. One writer, many readers.
#[derive(Debug, Default)]
pub struct SharedEstimate(AtomicU64);

impl SharedEstimate {
    /// Replaces it.
    pub fn set(&self, estimate: Estimate) {
        self.0.store(estimate.offset(), Ordering::Relaxed);
    }

    /// The newest estimate.
    pub fn get(&self) -> Estimate {
        Estimate::from_offset(self.0.load(Ordering::Relaxed))
    }

    /// Cluster time as estimated by this member, this many nanoseconds after the boot.
    pub fn at(&self, since_boot: u64) -> ClusterTime {
        self.get().at(Monotonic(since_boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_moves_with_the_monotonic_clock() {
        let estimate = SharedEstimate::default();
        estimate.set(Estimate::new(ClusterTime(100), Monotonic(1_000_000)));
        assert_eq!(estimate.at(1_000_050), ClusterTime(150));
        estimate.set(Estimate::new(ClusterTime(5_000_000), Monotonic(7)));
        assert_eq!(estimate.at(8), ClusterTime(5_000_001));
    }

    #[test]
    fn the_system_clock_knows_its_boot() {
        let (one, other) = (SystemClock.since_boot(), SystemClock.since_boot());
        assert!(one > 0 && other >= one);
        assert_eq!(SystemClock.boot_id(), SystemClock.boot_id());
    }
}
