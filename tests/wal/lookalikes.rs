//! A torn batch with a value full of bytes that look like records.

use crate::support::{edit, entries, open, read_all, records, segments};
use edgetcd::wal::{FaultyDisk, WalErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The size of the largest request in a release build. Without optimisation everything takes ten times as long, and
/// tests share the machine. One checksum for each lookalike would take ten minutes.
const VALUE_BYTES: usize = if cfg!(debug_assertions) { 1 } else { 10 } << 20;
const RECOVERY_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 1 });

/// A log of two entries, and the place of the second, large one. With `more` there is a third entry.
fn large_value(more: bool) -> (FaultyDisk, PathBuf, usize) {
    let disk = FaultyDisk::new(1);
    let segment_bytes = VALUE_BYTES as u64 + 65_536;
    let (data_dir, mut wal, _) = open(&disk, segment_bytes).expect("a new directory");
    wal.write(&entries(1, 1, 1, 10)).expect("written");
    wal.write(&entries(2, 2, 1, VALUE_BYTES)).expect("written");
    if more {
        wal.write(&entries(3, 3, 1, 10)).expect("written");
    }
    drop((data_dir, wal));
    disk.kill();
    let lines = records(&disk);
    let (path, line) = &lines[lines.len() - 1 - usize::from(more)];
    let (path, offset) = (path.clone(), line.offset as usize);
    (disk, path, offset)
}

/// Fills the value so that every eight bytes look like the beginning of a record until its checksum is tested. Each
/// such record calls the torn record durable and extends to the end of the value.
fn fill_with_lookalikes(disk: &FaultyDisk, path: &Path, offset: usize) {
    edit(disk, path, |bytes| {
        let value = &mut bytes[offset + 16..][..VALUE_BYTES];
        let durable = (offset / 8) as u32 + 1;
        for at in (0..VALUE_BYTES).step_by(8) {
            // The low byte of the length is the kind of the record eight bytes before.
            let length = ((VALUE_BYTES - at) as u32).saturating_sub(256) & !0xff | 2;
            value[at..at + 4].copy_from_slice(&durable.to_le_bytes());
            value[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
        }
    });
}

#[test]
fn a_torn_value_of_lookalikes_is_cut_off_in_no_time() {
    let (disk, path, offset) = large_value(false);
    fill_with_lookalikes(&disk, &path, offset);
    let begin = Instant::now();
    let (_home, wal, recovered) = open(&disk, 4096).expect("the last append was cut short");
    let took = begin.elapsed();
    assert_eq!(read_all(&wal, &recovered), entries(1, 1, 1, 10).entries);
    assert!(took < RECOVERY_MAX, "{took:?}");
}

#[test]
fn a_witness_behind_lookalikes_is_heard() {
    let (disk, path, offset) = large_value(true);
    assert_eq!(segments(&disk)[0], path);
    fill_with_lookalikes(&disk, &path, offset);
    let error = open(&disk, 4096).map(|_| ()).expect_err("a loss");
    assert_eq!(
        (error.kind, error.offset),
        (WalErrorKind::Damaged, Some(offset as u64)),
        "{error}"
    );
}
