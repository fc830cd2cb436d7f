//! What this process uses of its machine, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// Zero where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Address space, mapped segments included, whether in memory or not.
    pub virtual_bytes: u64,
    /// What of it is in memory now: whole pages, shared ones too.
    pub resident_bytes: u64,
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Files and sockets; the one that counts them is among them.
    pub open_descriptors: u64,
    /// All of the process, the main thread included.
    pub threads: u64,
}

/// Reads `/proc/self`.
pub fn read() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, in parentheses, may hold blanks: count from behind it. The first one after
    // it is field 3 of proc(5).
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Usage {
        virtual_bytes: field(23),
        resident_bytes: field(24) * rustix::param::page_size() as u64,
        cpu: ticks(field(14) + field(15)),
        open_descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        threads: field(20),
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(count * (1_000_000_000 / per_second))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_running_process_uses_something() {
        let usage = super::read();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1 && usage.open_descriptors >= 3);
    }
}
