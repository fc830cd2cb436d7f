//! A machine's clocks: a monotonic one with its own speed, and a wall clock that can be set.
//!
//! Virtual time is counted in microseconds. A machine's time since boot runs at half, normal or double speed. Its wall
//! clock is that time plus an offset, which may jump. Times to live are whole seconds, too long for a run of three
//! seconds. So the clocks of machines run [`SECONDS_SCALE`] times as fast as the network's time.

use crate::random::Random;
use crate::storage::clock::Clock;
use crate::tree::WallTime;

/// Seconds on a machine's clock in one virtual second.
pub const SECONDS_SCALE: u64 = 10;
/// Virtual microseconds that a TTL of one second lasts by a clock of normal speed.
pub const TTL_SECOND: u64 = 1_000_000 / SECONDS_SCALE;

/// The speed of a clock, in halves of the normal speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Half speed.
    Half,
    /// Normal speed.
    True,
    /// Double speed.
    Double,
}

impl Pace {
    fn halves(self) -> u64 {
        match self {
            Pace::Half => 1,
            Pace::True => 2,
            Pace::Double => 4,
        }
    }
}

/// The clocks of one machine.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pace: Pace,
    /// At this virtual time the time since boot was `base_ns`.
    since: u64,
    base_ns: u64,
    wall_offset: i64,
    boot: u64,
}

impl Machine {
    pub fn new(random: &mut Random) -> Machine {
        Machine {
            pace: Pace::True,
            since: 0,
            base_ns: random.below(1 << 40),
            wall_offset: 1_700_000_000_000_000_000,
            boot: random.next(),
        }
    }

    pub fn set_pace(&mut self, now: u64, pace: Pace) {
        self.base_ns = self.since_boot_at(now);
        self.since = now;
        self.pace = pace;
    }

    /// Sets the wall clock, often by whole days.
    pub fn set_wall(&mut self, by_ns: i64) {
        self.wall_offset = self.wall_offset.saturating_add(by_ns);
    }

    /// The machine boots: its monotonic clock starts at zero, with a new boot id.
    pub fn reboot(&mut self, now: u64, random: &mut Random) {
        self.boot = random.next();
        self.base_ns = random.below(1 << 30);
        self.since = now;
    }

    pub fn since_boot_at(&self, now: u64) -> u64 {
        let passed = now.saturating_sub(self.since) * self.pace.halves() / 2;
        self.base_ns + passed * 1000 * SECONDS_SCALE
    }

    /// Converts `micros` on this clock to virtual microseconds.
    pub fn lasts(&self, micros: u64) -> u64 {
        micros * 2 / self.pace.halves()
    }

    /// The readings of the clocks at `now`.
    pub fn at(&self, now: u64) -> Reading {
        Reading {
            since_boot: self.since_boot_at(now),
            wall_offset: self.wall_offset,
            boot: self.boot,
        }
    }
}

/// The clocks of a machine at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub since_boot: u64,
    wall_offset: i64,
    boot: u64,
}

impl Clock for Reading {
    fn since_boot(&self) -> u64 {
        self.since_boot
    }

    fn wall(&self) -> WallTime {
        WallTime((self.since_boot as i64).saturating_add(self.wall_offset))
    }

    fn boot_id(&self) -> [u8; 16] {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.boot.to_le_bytes());
        id
    }
}
