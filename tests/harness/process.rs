//! Reads the kernel's information about a process from `/proc`.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc/PID/stat`: 100 on every current Linux.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Resident memory, in bytes.
    pub fn resident_bytes(self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// Resident memory without the pages of the program and of other files, in bytes.
    pub fn anonymous_bytes(self) -> u64 {
        self.status("RssAnon:") * 1024
    }

    pub fn threads(self) -> u64 {
        self.status("Threads:")
    }

    /// Number of open descriptors.
    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).map_or(0, Iterator::count)
    }

    /// CPU time used so far by all threads, user and kernel.
    pub fn cpu(self) -> Duration {
        let stat = self.file("stat");
        let after_name = stat.rsplit(") ").next().expect("a name in brackets");
        let ticks = |field: usize| -> u64 {
            let text = after_name.split(' ').nth(field).expect("utime and stime");
            text.parse().expect("ticks")
        };
        Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
    }

    /// Whether the process has ended, even if no parent has waited for it.
    pub fn has_ended(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    /// Number of bytes that this process caused to be written to a disk.
    pub fn written_bytes(self) -> u64 {
        field(&self.file("io"), "write_bytes:")
    }

    fn status(self, name: &str) -> u64 {
        field(&self.file("status"), name)
    }

    fn file(self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.0);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}
