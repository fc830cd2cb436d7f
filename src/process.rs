//! Process statistics: resources that this process uses, as counted by the kernel.

#[cfg(target_os = "linux")]
use rustix::mm::Advice;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A field is 0 if the system does not report it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Address space, including mapped segments, whether in memory or not.
    pub virtual_bytes: u64,
    /// The part of the address space that is in memory: complete pages, including shared ones.
    pub resident_bytes: u64,
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Number of threads, including the main thread.
    pub threads: u64,
}

/// Reads `/proc/self`.
pub fn read() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, in parentheses, may contain spaces, so fields are counted from its end. The first field after
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
        threads: field(20),
    }
}

/// Releases the memory of code and constants of the program and its libraries. What is used from now on is mapped again
/// from the system's cache of the files. Called once, when the node is ready: the code that reads flags, logs and
/// snapshots does not run again. It is half of an idle node's memory.
#[cfg(target_os = "linux")]
pub fn release_code() {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in unchanged(&maps) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: this is a whole private mapping of a file that nobody may write to, and no page of it is a changed copy.
        // So each page is one of the system's cache of the file, and it is the same one when it is mapped again.
        let released = unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontNeed) };
        if let Err(error) = released {
            log::debug!("the memory of the program's code is not released: {error}");
        }
    }
}

/// Start and length of the mappings in the text of `/proc/self/smaps` that are equal to a part of a file and stay so. A
/// library's constants with addresses are not: they were changed when the library was loaded, and are read-only since.
#[cfg(target_os = "linux")]
fn unchanged(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut mapping = None;
    maps.lines().filter_map(move |line| {
        // The lines after the first one of a mapping have a name and a colon.
        match line.strip_prefix("Anonymous:") {
            Some(changed) if changed.trim() == "0 kB" => mapping.take(),
            None if !line.split_whitespace().next()?.ends_with(':') => {
                mapping = read_only(line);
                None
            }
            _ => None,
        }
    })
}

/// Start and length of the mapping in the first of its lines, if it is a private mapping of a file that nobody may write
/// to.
#[cfg(target_os = "linux")]
fn read_only(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_read_only = ["r-xp", "r--p"].contains(&fields.next()?);
    let is_of_file = fields.nth(2)?.parse::<u64>().ok()? > 0;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (is_read_only && is_of_file && end > start).then_some((start, end - start))
}

/// Number of open files and sockets, at most a second old. The descriptor used for counting is included.
///
/// Listing ten thousand of them takes milliseconds, which is too long for a worker of the HTTP server at each request.
pub fn open_descriptors() -> u64 {
    static LAST: Counted = Counted(Mutex::new(None));
    let list = || fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    LAST.at(Instant::now(), list)
}

/// Memory in bytes that this process may use: that of the machine, or the limit of its control group if that is
/// smaller. `None` if the system does not report it.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    let allowed = group_limit();
    Some((kib * 1024).min(allowed.unwrap_or(u64::MAX)))
}

/// The smallest `memory.max` of this process's control group (version 2) and of the groups above it.
fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let limits = Path::new(own).ancestors().filter_map(|group| {
        let text = fs::read_to_string(root.join(group).join("memory.max")).ok()?;
        text.trim().parse().ok()
    });
    limits.min()
}

/// Size and free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Total size in bytes.
    pub bytes: u64,
    /// Bytes that a process without root rights can still allocate.
    pub free_bytes: u64,
}

/// The file system that contains `dir`. `None` if the system does not report it or reports 0 bytes, as for a ramfs.
pub fn room(dir: &Path) -> Option<Room> {
    let stats = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stats.f_frsize);
    let room = Room {
        bytes: bytes(stats.f_blocks),
        free_bytes: bytes(stats.f_bavail),
    };
    Some(room).filter(|room| room.bytes > 0)
}

/// Disk space used by the files in and below these folders, at most a second old. The folders must be the same ones in
/// each call.
pub fn occupied_bytes(dirs: &[&Path]) -> u64 {
    static LAST: Counted = Counted(Mutex::new(None));
    let sum = || dirs.iter().map(|dir| occupied(dir, FOLDERS_DEEP)).sum();
    LAST.at(Instant::now(), sum)
}

/// Depth of the search. The files of a data directory are two folders down.
const FOLDERS_DEEP: u32 = 4;

/// Files that disappear during the search count as 0.
fn occupied(dir: &Path, deep: u32) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && deep > 0 => occupied(&entry.path(), deep - 1),
        Ok(meta) if meta.is_file() => meta.blocks() * 512,
        _ => 0,
    };
    entries.flatten().map(of).sum()
}

/// Bytes that this process has caused the kernel to write to storage: complete pages, counted when they first become
/// dirty. `None` if the system does not report it.
pub fn written_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line?.trim().parse().ok()
}

/// A number that is expensive to determine, so it is determined at most once per second. In between, callers get the
/// last number. Callers that arrive while it is determined wait for it.
struct Counted(Mutex<Option<(Instant, u64)>>);

impl Counted {
    fn at(&self, now: Instant, count: impl FnOnce() -> u64) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |(then, _): &(Instant, u64)| {
            now.saturating_duration_since(*then) < Duration::from_secs(1)
        };
        let (_, number) = match last.filter(fresh) {
            Some(last) => last,
            None => *last.insert((now, count())),
        };
        number
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(count * (1_000_000_000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in memory of the mappings that may be released.
    #[cfg(target_os = "linux")]
    fn resident_code() -> usize {
        let maps = fs::read_to_string("/proc/self/smaps").expect("the mappings");
        let starts: Vec<usize> = unchanged(&maps).map(|(start, _)| start).collect();
        let mut counts = false;
        let sizes = maps.lines().filter_map(|line| {
            if !line.split_whitespace().next()?.ends_with(':') {
                counts = read_only(line).is_some_and(|(start, _)| starts.contains(&start));
            }
            let size = line.strip_prefix("Rss:").filter(|_| counts)?;
            size.trim().strip_suffix(" kB")?.parse::<usize>().ok()
        });
        sizes.sum::<usize>() << 10
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn released_code_is_mapped_again_only_when_it_runs() {
        let before = resident_code();
        release_code();
        let after = resident_code();
        assert!(0 < after && after < before, "{before} bytes, then {after}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_what_equals_a_file_is_released() {
        let code =
            "55d0a0001000-55d0a0003000 r-xp 00001000 fe:00 77                 /usr/lib/libc.so.6";
        let with = |line: &str, changed: &str| {
            let maps = format!(
                "{line}\nSize: 8 kB\nRss: 8 kB\nAnonymous: {changed} kB\nVmFlags: rd ex mr\n"
            );
            unchanged(&maps).collect::<Vec<_>>()
        };
        let released = [(0x55d0_a000_1000, 0x2000)];
        assert_eq!(with(code, "0"), released);
        assert_eq!(with(&code.replace("r-xp", "r--p"), "0"), released);
        assert_eq!(with(code, "4"), [], "a page was changed");
        for other in [
            &code.replace("r-xp", "rw-p"),
            &code.replace("r-xp", "rwxp"),
            &code.replace("r-xp", "r-xs"),
            "7ffd3a5fe000-7ffd3a600000 r-xp 00000000 00:00 0                          [vdso]",
            "",
            "not a line",
        ] {
            assert_eq!(with(other, "0"), [], "{other}");
        }
        // The lines after a mapping describe no other mapping.
        let both = format!("{code}\nAnonymous: 4 kB\nnot a line\nAnonymous: 0 kB\n");
        assert_eq!(unchanged(&both).next(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_running_process_uses_something() {
        let usage = read();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1 && open_descriptors() >= 3);
    }

    #[test]
    fn what_is_costly_is_counted_once_a_second() {
        let (counted, start) = (Counted(Mutex::new(None)), Instant::now());
        let at = |ms, count| counted.at(start + Duration::from_millis(ms), || count);
        let stats: Vec<u64> = [(0, 3), (1, 4), (999, 5), (1000, 6), (1999, 7), (2000, 8)]
            .map(|(ms, count)| at(ms, count))
            .into();
        assert_eq!(stats, [3, 3, 3, 6, 6, 8]);
    }
}
