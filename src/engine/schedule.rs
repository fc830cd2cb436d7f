//! When this member makes a snapshot of its own state.

/// Decides when a snapshot is due. The snapshots should at most double the bytes written to the disk.
///
/// A snapshot is due after `count` entries, but not before the log since the last snapshot is larger than that
/// snapshot. In any case it is due when the log holds `log_bytes_max`, or the size of the last snapshot if that is
/// more.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    count: u64,
    log_bytes_max: u64,
    /// Entries since the last snapshot.
    entries: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    /// What the running snapshot covers. There is at most one.
    running: Option<(u64, u64)>,
    /// After a failure: the size that the log must have before the next attempt.
    not_before: u64,
    /// A snapshot is needed soon, independent of the size of the log.
    hurried: bool,
}

/// How much the log must grow before a failed snapshot is tried again, unless a full disk needs space.
const RETRY_BYTES: u64 = 1 << 20;

/// The overhead of a snapshot file: its head and checksums, and the file system's blocks.
const RESERVE_BYTES: u64 = 128 << 10;

impl Schedule {
    /// `snapshot_bytes`: the size of the newest snapshot, 0 if there is none. The log after it counts as empty.
    pub fn new(count: u64, log_bytes_max: u64, snapshot_bytes: u64) -> Schedule {
        Schedule {
            count,
            log_bytes_max,
            entries: 0,
            log_bytes: 0,
            snapshot_bytes,
            running: None,
            not_before: 0,
            hurried: false,
        }
    }

    /// An entry of this many bytes was applied.
    pub fn applied(&mut self, bytes: usize) {
        self.entries += 1;
        self.log_bytes += bytes as u64;
    }

    /// Whether to begin one now. False while one is running, or if nothing new was applied.
    pub fn is_due(&self) -> bool {
        let counted = self.entries >= self.count && self.log_bytes >= self.snapshot_bytes;
        let long = self.log_bytes >= self.log_bytes_max.max(self.snapshot_bytes);
        let may = self.running.is_none() && self.log_bytes >= self.not_before;
        may && self.entries > 0 && (counted || long || self.hurried)
    }

    /// Requests a snapshot of the present state. Only members that have applied it know a member's new peer URL. After
    /// a restart, members apply nothing before they have reached each other, so the URL must be in a snapshot.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether anything was applied since the last snapshot. Only then a new one can shorten the log.
    pub fn has_news(&self) -> bool {
        self.entries > 0
    }

    /// Bytes that the next snapshot may need: the size of the last one, and twice the log since then, because an event
    /// also contains the previous value.
    pub fn reserve(&self) -> u64 {
        let since = self.log_bytes.saturating_mul(2);
        self.snapshot_bytes
            .saturating_add(since)
            .saturating_add(RESERVE_BYTES)
    }

    /// Whether a snapshot is running.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Bytes of log since the last snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Another member's snapshot of this size has replaced the log.
    pub fn replaced(&mut self, bytes: u64) {
        (self.entries, self.log_bytes) = (0, 0);
        self.snapshot_bytes = bytes;
        // A running snapshot of this member's own is of an older state.
        self.running = self.running.map(|_| (0, 0));
    }

    /// A snapshot is running. It covers everything applied so far.
    pub fn begun(&mut self) {
        assert!(self.running.is_none(), "a second snapshot of {self:?}");
        self.hurried = false;
        self.running = Some((self.entries, self.log_bytes));
    }

    /// The running snapshot ended with this size. `None` if it failed, so that its log is still needed.
    pub fn ended(&mut self, bytes: Option<u64>) {
        let covered = self.running.take();
        match (bytes, covered) {
            (Some(bytes), Some((entries, log_bytes))) => {
                assert!(
                    entries <= self.entries && log_bytes <= self.log_bytes,
                    "the snapshot covers more than there is: {self:?}"
                );
                self.entries -= entries;
                self.log_bytes -= log_bytes;
                self.snapshot_bytes = bytes;
                self.not_before = 0;
            }
            _ => self.not_before = self.log_bytes + RETRY_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_due_after_the_count_once_the_log_outgrew_the_last_snapshot() {
        let mut schedule = Schedule::new(2, u64::MAX, 100);
        schedule.applied(40);
        assert!(!schedule.is_due(), "one entry of two");
        schedule.applied(40);
        assert!(
            !schedule.is_due(),
            "80 bytes of log are less than the snapshot's 100"
        );
        schedule.applied(40);
        assert!(schedule.is_due());
        schedule.begun();
        (0..10).for_each(|_| schedule.applied(100));
        assert!(!schedule.is_due(), "one at a time");
        schedule.ended(Some(500));
        assert!(
            schedule.is_due(),
            "entries applied during the snapshot count"
        );
    }

    #[test]
    fn is_due_when_the_log_is_long_whatever_the_count() {
        let mut schedule = Schedule::new(u64::MAX, 64 << 20, 0);
        (0..63).for_each(|_| schedule.applied(1 << 20));
        assert!(!schedule.is_due());
        schedule.applied(1 << 20);
        assert!(schedule.is_due());
    }

    /// Each entry may become an event with the value before it.
    #[test]
    fn the_reserve_has_room_for_the_log_twice() {
        let mut schedule = Schedule::new(10, u64::MAX, 500);
        assert_eq!(schedule.reserve(), 500 + RESERVE_BYTES);
        schedule.applied(70);
        assert_eq!(schedule.reserve(), 500 + 140 + RESERVE_BYTES);
    }

    #[test]
    fn is_due_at_once_when_hurried() {
        let mut schedule = Schedule::new(u64::MAX, u64::MAX, 500);
        schedule.applied(1);
        assert!(!schedule.is_due());
        schedule.hurry();
        assert!(schedule.is_due());
        schedule.begun();
        schedule.ended(Some(500));
        schedule.applied(1);
        assert!(!schedule.is_due(), "once");
    }

    #[test]
    fn is_not_due_when_there_is_nothing_new() {
        let mut schedule = Schedule::new(0, 0, 0);
        assert!(!schedule.is_due());
        schedule.applied(1);
        assert!(schedule.is_due());
    }

    #[test]
    fn a_failed_snapshot_covers_nothing_and_is_tried_again_later() {
        let mut schedule = Schedule::new(1, u64::MAX, 0);
        schedule.applied(100);
        schedule.begun();
        schedule.ended(None);
        assert!(!schedule.is_due() && schedule.has_news());
        schedule.applied(RETRY_BYTES as usize);
        assert!(schedule.is_due());
    }
}
