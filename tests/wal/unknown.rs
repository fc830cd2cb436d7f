//! Entries that this program cannot apply, because a newer version appended them.

use crate::support::{entries, metadata, open, open_with, options, records};
use edgetcd::wal::{FaultyDisk, Options, Wal, WalErrorKind};

const SEGMENT: u64 = 4096;

/// The second byte of [`support::entry`](crate::support::entry) is the term, if that is odd.
fn is_of_term_9(bytes: &[u8]) -> Option<String> {
    (bytes.get(1) == Some(&9)).then(|| "it is new".to_owned())
}

fn strict() -> Options {
    Options {
        unknown: is_of_term_9,
        ..options(SEGMENT)
    }
}

/// A log of 30 entries in several segments. Those of term 9 are unknown.
fn written(terms: [u64; 3]) -> (FaultyDisk, Wal<FaultyDisk>) {
    let disk = FaultyDisk::new(1);
    let (_, mut wal, _) = open(&disk, SEGMENT).expect("a new directory");
    for (from, term) in [1, 11, 21].into_iter().zip(terms) {
        let batch = entries(from, from + 9, term, 200);
        wal.write(&batch).expect("written");
    }
    (disk, wal)
}

#[test]
fn an_entry_that_cannot_be_applied_is_refused_and_its_place_named() {
    let (disk, wal) = written([1, 1, 9]);
    drop(wal);
    // `open_with` also asks `inspect`, which must report the same.
    let refused = open_with(&disk, strict()).map(|_| ());
    let error = refused.expect_err("the entries from 21 on cannot be applied");
    let all = records(&disk);
    let (path, first) = all
        .iter()
        .find(|(_, line)| line.what.starts_with("entry 21@9 "))
        .expect("it is written");
    assert_eq!(error.kind, WalErrorKind::Foreign, "{error}");
    assert_eq!((&error.path, error.offset), (path, Some(first.offset)));
    assert!(
        error
            .what
            .starts_with("entry 21@9 cannot be applied: it is new"),
        "{error}"
    );
    open(&disk, SEGMENT).expect("a program that knows them starts");
}

#[test]
fn an_entry_that_was_replaced_need_not_be_applied() {
    let (disk, mut wal) = written([1, 1, 9]);
    wal.write(&entries(21, 22, 11, 200)).expect("written");
    drop(wal);
    open_with(&disk, strict()).expect("entry 21 is of term 11");
}

#[test]
fn an_entry_that_the_snapshot_contains_need_not_be_applied() {
    let (disk, mut wal) = written([1, 9, 11]);
    let mut snapshot = wal.begin_snapshot(&metadata(20, 9)).expect("begun");
    snapshot.write(b"state").expect("written");
    snapshot.finish().expect("finished");
    drop(wal);
    open_with(&disk, strict()).expect("the entries after 20 are of term 11");
}
