//! When this member makes a snapshot of its own state.

/// When a snapshot is due (design: at most doubling what is written to the disk).
///
/// After `count` entries, but not before the log since the last snapshot has outgrown that snapshot; in
/// any case once the log holds `log_bytes_max` or the last snapshot's size, whichever is more.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    count: u64,
    log_bytes_max: u64,
    /// Since the last snapshot.
    entries: u64,
    log_bytes: u64,
    snapshot_bytes: u64,
    /// What the snapshot under way covers. One at a time.
    running: Option<(u64, u64)>,
    /// After one that failed: not before the log holds this much.
    not_before: u64,
    /// Something must be in a snapshot soon, whatever the log's length.
    hurried: bool,
}

/// What the log must grow by before a failed snapshot is tried again, unless room is sought for a full disk.
const RETRY_BYTES: u64 = 1 << 20;

/// Beside the state: the file's own head and checksums, and the file system's blocks.
const RESERVE_BYTES: u64 = 128 << 10;

impl Schedule {
    /// `snapshot_bytes`: of the newest snapshot, 0 without one; the log after it counts as empty.
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

    /// An entry of so many bytes was applied.
    pub fn applied(&mut self, bytes: usize) {
        self.entries += 1;
        self.log_bytes += bytes as u64;
    }

    /// Whether to begin one now; never while one is under way or nothing new was applied.
    pub fn is_due(&self) -> bool {
        let counted = self.entries >= self.count && self.log_bytes >= self.snapshot_bytes;
        let long = self.log_bytes >= self.log_bytes_max.max(self.snapshot_bytes);
        let may = self.running.is_none() && self.log_bytes >= self.not_before;
        may && self.entries > 0 && (counted || long || self.hurried)
    }

    /// Wants a snapshot of what is applied now. A member's new peer URL is known to those alone that have
    /// applied it, and after a restart they apply nothing before they have reached each other.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether anything was applied since the last snapshot: only then a new one frees log.
    pub fn has_news(&self) -> bool {
        self.entries > 0
    }

    /// Bytes that the next snapshot may have: the last one, and twice what came since, since an event holds the value
    /// before as well.
    pub fn reserve(&self) -> u64 {
        let since = self.log_bytes.saturating_mul(2);
        self.snapshot_bytes
            .saturating_add(since)
            .saturating_add(RESERVE_BYTES)
    }

    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Bytes of log since the last snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Another member's snapshot of so many bytes took the place of the log.
    pub fn replaced(&mut self, bytes: u64) {
        (self.entries, self.log_bytes) = (0, 0);
        self.snapshot_bytes = bytes;
        // One of our own that is under way is of an older state.
        self.running = self.running.map(|_| (0, 0));
    }

    /// One is under way that covers all that was applied so far.
    pub fn begun(&mut self) {
        self.hurried = false;
        self.running = Some((self.entries, self.log_bytes));
    }

    /// The snapshot under way has become so many bytes; or nothing, and its log is still needed.
    pub fn ended(&mut self, bytes: Option<u64>) {
        let covered = self.running.take();
        match (bytes, covered) {
            (Some(bytes), Some((entries, log_bytes))) => {
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
        assert!(schedule.is_due(), "what came meanwhile counts");
    }

    #[test]
    fn is_due_when_the_log_is_long_whatever_the_count() {
        let mut schedule = Schedule::new(u64::MAX, 64 << 20, 0);
        (0..63).for_each(|_| schedule.applied(1 << 20));
        assert!(!schedule.is_due());
        schedule.applied(1 << 20);
        assert!(schedule.is_due());
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
