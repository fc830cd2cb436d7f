//! What a disk can do: measures in one folder, with the same calls as the log of a node.
//!
//! Each file loses its name as soon as it is open, so nothing is left behind, even if the process is killed.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::random::Random;
use crate::wal::{Disk, DiskSegment, DiskWriter, RealDisk, WritePath};

/// Size of one write. A node writes at least one page per sync.
const PAGE: u64 = 4096;
/// Size of the files for single syncs: the size of a new log's first segment.
const SEGMENT: u64 = 1 << 20;
/// Size of the largest segment of a log.
const LARGE_SEGMENT: u64 = 16 << 20;
/// Syncs measured per kind, at most.
const SYNCS_MAX: usize = 1000;
/// Bytes of the file for the sustained rate, at most, and how many of them are written between two syncs.
const SUSTAINED_MAX: u64 = 64 << 20;
const SUSTAINED_STEP: u64 = 4 << 20;
/// Space that the measurement needs: one large segment, and a reserve for other writers.
pub(super) const NEEDED_BYTES: u64 = 24 << 20;

/// Durations of syncs, sorted. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syncs(Vec<Duration>);

impl Syncs {
    /// Panics if there are none.
    pub fn new(mut took: Vec<Duration>) -> Syncs {
        assert!(!took.is_empty(), "at least one sync is measured");
        took.sort_unstable();
        Syncs(took)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that this share of the syncs does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = (share * self.0.len() as f64).ceil() as usize;
        self.0[at.clamp(1, self.0.len()) - 1]
    }

    pub fn worst(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// The measured numbers of one disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    /// A store into a mapping, and `msync`. `None` on a file system where a log is not mapped.
    pub mapped: Option<Syncs>,
    /// `pwrite` and `fdatasync`.
    pub written: Syncs,
    /// `pwrite` into a file opened with `O_DSYNC`.
    pub dsync: Syncs,
    /// Bytes per second of a large file with a sync after every 4 MiB.
    pub sustained: f64,
    /// Time to create a segment of 1 MiB, and one of 16 MiB.
    pub segment: Duration,
    pub large_segment: Duration,
}

impl Measured {
    /// The syncs of a log on this disk.
    pub fn log(&self) -> &Syncs {
        self.mapped.as_ref().unwrap_or(&self.written)
    }
}

/// Content that no disk can store in less space. Some file systems compress what they store, or store equal blocks once.
struct Noise(Random);

impl Noise {
    /// Differs from all others, also from those of earlier runs.
    fn new() -> Noise {
        Noise(Random::spread(u64::from(RealDisk::default().random())))
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.0.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// Measures. Each of the four parts takes at most `span`, or a single sync, if that takes longer.
///
/// # Errors
/// Any operation failed. The text names it.
pub(super) fn measure(dir: &Path, span: Duration) -> Result<Measured, (&'static str, io::Error)> {
    let failed = |doing| move |error| (doing, error);
    let segment = allocation(dir, SEGMENT).map_err(failed("create a segment"))?;
    let large_segment = allocation(dir, LARGE_SEGMENT).map_err(failed("create a segment"))?;
    Ok(Measured {
        mapped: in_segment(dir, WritePath::Mapped, span).map_err(failed("sync a file"))?,
        written: in_segment(dir, WritePath::Written, span)
            .map_err(failed("sync a file"))?
            .expect("every file system can be written to"),
        dsync: dsync(dir, span).map_err(failed("write to a file"))?,
        sustained: sustained(dir, span).map_err(failed("write to a file"))?,
        segment,
        large_segment,
    })
}

/// A path that no other process uses.
fn path(dir: &Path) -> PathBuf {
    let (process, random) = (std::process::id(), RealDisk::default().random());
    dir.join(format!(".edgetcdctl-disk-check-{process}-{random:08x}"))
}

/// Removes a file by its name when dropped.
struct Named(PathBuf);

impl Drop for Named {
    fn drop(&mut self) {
        // It may have been removed already. If it cannot be removed, the user can see it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn allocation(dir: &Path, bytes: u64) -> io::Result<Duration> {
    let file = Named(path(dir));
    let begin = Instant::now();
    RealDisk::default().allocate(&file.0, bytes)?;
    Ok(begin.elapsed())
}

/// Syncs pages one after the other, as a log does with single writes. `None` if a log is not written in this way here.
fn in_segment(dir: &Path, write_path: WritePath, span: Duration) -> io::Result<Option<Syncs>> {
    let disk = RealDisk {
        write_path,
        ..RealDisk::default()
    };
    let file = Named(path(dir));
    disk.allocate(&file.0, SEGMENT)?;
    let mut segment = disk.segment(&file.0)?;
    drop(file);
    if segment.is_mapped() != (write_path == WritePath::Mapped) {
        return Ok(None);
    }
    let syncs = timed(span, |offset, bytes| {
        segment.write(offset, bytes)?;
        segment.sync(offset, offset + PAGE)
    });
    syncs.map(Some)
}

fn dsync(dir: &Path, span: Duration) -> io::Result<Syncs> {
    let file = Named(path(dir));
    RealDisk::default().allocate(&file.0, SEGMENT)?;
    let mut how = OpenOptions::new();
    how.write(true)
        .custom_flags(OFlags::DSYNC.bits().cast_signed());
    let opened = how.open(&file.0)?;
    drop(file);
    timed(span, |offset, bytes| opened.write_all_at(bytes, offset))
}

fn timed(span: Duration, mut sync: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<Syncs> {
    let begin = Instant::now();
    let (mut took, mut noise) = (Vec::new(), Noise::new());
    let mut bytes = [0; PAGE as usize];
    while took.is_empty() || (begin.elapsed() < span && took.len() < SYNCS_MAX) {
        let number = took.len() as u64;
        noise.fill(&mut bytes);
        let before = Instant::now();
        sync(number * PAGE % SEGMENT, &bytes)?;
        took.push(before.elapsed());
    }
    Ok(Syncs::new(took))
}

fn sustained(dir: &Path, span: Duration) -> io::Result<f64> {
    let disk = RealDisk::default();
    let free = disk.free_bytes(dir).unwrap_or(SUSTAINED_MAX);
    let most = SUSTAINED_MAX.min(free / 2).max(SUSTAINED_STEP);
    let file = Named(path(dir));
    let mut writer = disk.create(&file.0)?;
    drop(file);
    let (mut bytes, mut noise) = (vec![0; SUSTAINED_STEP as usize], Noise::new());
    let (mut took, mut done) = (Duration::ZERO, 0);
    while done < most && (done == 0 || took < span) {
        noise.fill(&mut bytes);
        let before = Instant::now();
        writer.write(&bytes)?;
        writer.sync()?;
        took += before.elapsed();
        done += SUSTAINED_STEP;
    }
    Ok(done as f64 / took.as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syncs(millis: &[u64]) -> Syncs {
        Syncs::new(millis.iter().copied().map(Duration::from_millis).collect())
    }

    #[test]
    fn a_quantile_is_one_of_the_durations() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        let of = |share| syncs(&hundred).quantile(share).as_millis();
        assert_eq!((of(0.0), of(0.5), of(0.99), of(1.0)), (1, 50, 99, 100));
        assert_eq!(syncs(&[7]).quantile(0.5).as_millis(), 7);
        assert_eq!(syncs(&[7, 9]).worst().as_millis(), 9);
    }

    #[test]
    fn the_content_does_not_repeat() {
        let (mut noise, mut bytes) = (Noise::new(), vec![0; 1 << 20]);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2 {
            noise.fill(&mut bytes);
            let mut words = bytes.chunks(8).map(<[u8]>::to_vec);
            assert!(words.all(|word| seen.insert(word)));
        }
        let counts = bytes.iter().fold([0; 256], |mut counts: [u32; 256], byte| {
            counts[usize::from(*byte)] += 1;
            counts
        });
        // 4096 of each on average, with a deviation of 64.
        assert!(
            counts.iter().all(|count| (3500..4700).contains(count)),
            "{counts:?}"
        );
        Noise::new().fill(&mut bytes);
        let mut words = bytes.chunks(8).map(<[u8]>::to_vec);
        assert!(words.all(|word| seen.insert(word)), "two runs");
    }

    #[test]
    fn nothing_is_left_in_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let measured = measure(dir.path(), Duration::ZERO).expect("measured");
        assert_eq!(measured.log().count(), 1);
        assert!(measured.sustained > 0.0);
        let left = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(left, 0);
    }
}
