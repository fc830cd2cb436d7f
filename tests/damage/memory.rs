//! Each damage on a disk in memory. The function of `wal check` and that of a start must give the same result, and it
//! must be right.

use crate::specimen::{DIR, End, HISTORY, make, options, records};
use edgetcd::engine::plausible::Writer;
use edgetcd::engine::state::State;
use edgetcd::identity::Identity;
use edgetcd::node::{Inspected, Refusal, inspect_on};
use edgetcd::raft::LogIndex;
use edgetcd::storage::snapshot::{self, Unloaded};
use edgetcd::tree::hash;
use edgetcd::wal::{DataDir, Disk, FaultyDisk, Line, SnapshotReader, recover, segments};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PEER: &str = "http://127.0.0.1:2380";

/// State of a node at the end of its log. Equal keys, events and counters have the same hash.
fn content(state: &State) -> (u64, u64) {
    (hash(&state.tree), state.applied.0)
}

/// The part of a start that depends on the disk.
fn start(disk: &FaultyDisk) -> Result<State, String> {
    let data_dir = DataDir::open(disk.clone(), options()).map_err(|error| error.to_string())?;
    let identity = data_dir.identity().map_err(|error| error.to_string())?;
    let identity = identity
        .map(|bytes| Identity::from_bytes(&bytes))
        .transpose()?;
    let (wal, recovered) = recover(&data_dir).map_err(|error| error.to_string())?;
    let mut state = match recovered.snapshot {
        Some(mut reader) => snapshot::load(&mut reader, HISTORY, Writer::Member).map_err(
            |unloaded| match unloaded {
                Unloaded::Disk(error) => error.to_string(),
                Unloaded::Malformed(error) | Unloaded::Impossible(error) => error.0,
            },
        )?,
        None => {
            let founders = identity.map(|identity| identity.founders);
            State::new(founders.unwrap_or_default(), HISTORY)
        }
    };
    let last = recovered.log.last;
    while state.applied < last {
        let entries = wal.reader().read(state.applied.next(), last, 1 << 20);
        for entry in entries.map_err(|error| error.to_string())? {
            state.apply(&entry);
        }
    }
    Ok(state)
}

fn check(disk: &FaultyDisk) -> Result<Option<Inspected>, Refusal> {
    inspect_on(disk.clone(), Path::new(DIR), None, HISTORY)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(disk: &FaultyDisk) -> Files {
    let bytes = |path: PathBuf| (path.clone(), disk.bytes(&path).unwrap_or_default());
    let files = disk.files().into_iter().map(bytes);
    // A start creates the lock file itself, so it is ignored.
    files.filter(|(path, _)| !path.ends_with("lock")).collect()
}

/// How a start handled a damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Whole,
    WithoutTheLast,
    Refused,
}

struct Bench {
    disk: FaultyDisk,
    whole: (u64, u64),
    /// The state without the last entry.
    without: (u64, u64),
}

impl Bench {
    fn new(end: End) -> Bench {
        let content_of = |end| content(&start(&make(PEER, end)).expect("it is good"));
        Bench {
            disk: make(PEER, end),
            whole: content_of(end),
            without: content_of(End::Without),
        }
    }

    /// Damages a copy and compares the results of a check and of a start.
    fn damage(&self, what: &str, damage: impl FnOnce(&FaultyDisk)) -> Met {
        let disk = self.disk.fork(1);
        damage(&disk);
        let before = files(&disk);
        let told = check(&disk);
        assert!(
            files(&disk) == before,
            "{what}: a check has changed something"
        );
        let started = start(&disk);
        match (&told, &started) {
            (Ok(Some(inspected)), Ok(state)) => {
                assert_eq!(content(&inspected.state), content(state), "{what}");
                match content(state) {
                    all if all == self.whole => Met::Whole,
                    all if all == self.without => Met::WithoutTheLast,
                    other => panic!("{what}: it starts with {other:?}, of {:?}", self.whole),
                }
            }
            (Err(refusal), Err(error)) => {
                assert_eq!(&refusal.reason, error, "{what}");
                assert!(
                    files(&disk) == before,
                    "{what}: a refusal has changed something"
                );
                check_words(what, refusal);
                Met::Refused
            }
            (Ok(inspected), Err(error)) => panic!("{what}: {}: {error}", inspected.is_some()),
            (Err(refusal), Ok(_)) => panic!("{what}: it starts, though: {refusal}"),
            (Ok(None), Ok(_)) => panic!("{what}: a node begins anew, and all is lost"),
        }
    }
}

/// The instructions for the operator, in the words of the messages.
const WAYS_OUT: [&str; 6] = [
    "move its data directory aside, remove the member and add it again",
    "move the data directory aside and add this node to its cluster",
    "rename it back",
    "start that version",
    "its own --data-dir",
    "cannot ",
];

fn check_words(what: &str, refusal: &Refusal) {
    let text = refusal.to_string();
    assert_eq!(text.lines().count(), 1, "{what}: one line, not {text:?}");
    assert!(
        text.starts_with(&format!("{DIR}/member")),
        "{what}: which file? {text}"
    );
    assert!(
        WAYS_OUT.iter().any(|way| text.contains(way)),
        "{what}: and now? {text}"
    );
}

fn edit(disk: &FaultyDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.bytes(path).expect("the file is there");
    change(&mut bytes);
    disk.put(path, &bytes);
}

/// A change to a file's bytes, with its description.
type Damage = (&'static str, fn(&mut Vec<u8>));
type Boxed = Box<dyn Fn(&mut Vec<u8>)>;

fn kind(line: &Line) -> &str {
    line.what.split([' ', ':']).next().unwrap_or_default()
}

/// Places in a record: each of its fields, and the middle and end of its payload.
fn places(line: &Line) -> Vec<(&'static str, u64)> {
    let from = line.offset;
    let mut places = vec![
        ("crc", from),
        ("length", from + 4),
        ("high length", from + 7),
        ("durable", from + 8),
        ("high durable", from + 11),
        ("kind", from + 12),
        ("end", from + line.bytes - 1),
    ];
    if line.bytes > 16 {
        places.extend([("body", from + 13), ("middle", from + line.bytes / 2 + 4)]);
    }
    places
}

const KINDS: [&str; 8] = [
    "head",
    "entry",
    "hard-state",
    "clock",
    "tick",
    "reset",
    "sealed",
    "stop",
];

#[test]
fn the_specimen_has_every_kind_of_record_and_file() {
    let disk = make(PEER, End::Clean);
    let all = records(&disk);
    let kinds: BTreeSet<&str> = all.iter().map(|(_, line)| kind(line)).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS));
    for payload in ["no-op", "command", "change"] {
        assert!(
            all.iter().any(|(_, line)| line.what.contains(payload)),
            "{payload}"
        );
    }
    let wal = segments(&disk, &Path::new(DIR).join("member/wal")).expect("a folder");
    assert!(wal.len() > 5, "{wal:?}");
    assert_eq!(snapshots(&disk).len(), 3);
    let state = start(&disk).expect("it is good");
    let inspected = check(&disk)
        .expect("it is good")
        .expect("something is there");
    assert_eq!(content(&state), content(&inspected.state));
    assert_eq!(
        (state.applied, inspected.warnings.len()),
        (LogIndex(119), 0)
    );
}

/// After a clean stop, a later record calls each record durable, except the stop itself.
#[test]
fn a_flipped_bit_of_any_record_is_refused() {
    let bench = Bench::new(End::Clean);
    for (path, line) in records(&bench.disk) {
        for (field, at) in places(&line) {
            let what = format!("{field} of {line} in {}", path.display());
            let met = bench.damage(&what, |disk| {
                edit(disk, &path, |bytes| bytes[at as usize] ^= 0x10);
            });
            let expected = if kind(&line) == "stop" {
                Met::Whole
            } else {
                Met::Refused
            };
            assert_eq!(met, expected, "{what}");
        }
    }
}

#[test]
fn a_record_that_is_gone_or_cut_is_refused() {
    let bench = Bench::new(End::Clean);
    let all = records(&bench.disk);
    let (newest, _) = all.last().expect("records");
    for (path, line) in &all {
        let (from, to) = (line.offset as usize, (line.offset + line.bytes) as usize);
        let page = from / 4096 * 4096;
        let damages: [(&str, Boxed); 6] = [
            ("zeros in", Box::new(move |bytes| bytes[from..to].fill(0))),
            ("ones in", Box::new(move |bytes| bytes[from..to].fill(0xff))),
            (
                "a zeroed sector of",
                Box::new(move |bytes| bytes[from / 512 * 512..][..512].fill(0)),
            ),
            (
                "a zeroed page of",
                Box::new(move |bytes| bytes[page..page + 4096].fill(0)),
            ),
            ("a cut at", Box::new(move |bytes| bytes.truncate(from))),
            (
                "a cut in",
                Box::new(move |bytes| bytes.truncate((from + to) / 2)),
            ),
        ];
        for (how, damage) in damages {
            let what = format!("{how} {line} of {}", path.display());
            if how.contains("page") && path == newest && page == 0 {
                // This is the complete content of the newest segment. It is the only damage that looks like an append
                // that was cut short (see the limits in the module documentation of `wal`).
                continue;
            }
            let met = bench.damage(&what, |disk| edit(disk, path, damage));
            let stop_only = kind(line) == "stop" && !how.contains("cut") && !how.contains("zeroed");
            assert_eq!(met == Met::Whole, stop_only, "{what}: {met:?}");
            // One torn sector may contain both the stop and the record for which the stop is the witness.
            assert!(
                met != Met::WithoutTheLast || how.contains("sector"),
                "{what}"
            );
        }
    }
}

/// No record calls the last record durable, so damage to it looks like an append that a crash cut short.
#[test]
fn a_torn_last_record_is_mended_and_nothing_before_it() {
    let bench = Bench::new(End::Killed);
    let all = records(&bench.disk);
    let (path, last) = all.last().expect("records").clone();
    for at in last.offset..last.offset + last.bytes {
        for bit in [0x01, 0x80] {
            let what = format!("bit {bit:x} of byte {at} in {last}");
            let met = bench.damage(&what, |disk| {
                edit(disk, &path, |bytes| bytes[at as usize] ^= bit)
            });
            assert_eq!(met, Met::WithoutTheLast, "{what}");
        }
        let what = format!("zeros from byte {at} on in {last}");
        let met = bench.damage(&what, |disk| {
            edit(disk, &path, |bytes| bytes[at as usize..].fill(0))
        });
        // The padding of a record is zeros anyway.
        assert!(
            met == Met::WithoutTheLast || at > last.offset + 8,
            "{what}: {met:?}"
        );
    }
    let end = (last.offset + last.bytes) as usize;
    for (what, bytes) in [
        ("noise", &b"\x5a\xa5noise"[..]),
        ("a half head", b"\0\0\0\0\x40\0\0\0"),
    ] {
        let met = bench.damage(what, |disk| {
            edit(disk, &path, |file| {
                file[end..end + bytes.len()].copy_from_slice(bytes)
            });
        });
        assert_eq!(met, Met::Whole, "{what} behind the end");
    }
    // The tick before the last entry was written in the same batch, so damage to the tick also removes the entry.
    let (_, tick) = &all[all.len() - 2];
    let met = bench.damage("the tick of the last batch", |disk| {
        edit(disk, &path, |bytes| bytes[tick.offset as usize + 14] ^= 1);
    });
    assert_eq!(met, Met::WithoutTheLast);
    let (_, before) = &all[all.len() - 3];
    let met = bench.damage("the entry before", |disk| {
        edit(disk, &path, |bytes| bytes[before.offset as usize + 20] ^= 1);
    });
    assert_eq!(met, Met::Refused, "{before}");
}

fn snapshots(disk: &FaultyDisk) -> Vec<PathBuf> {
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|is| is == "snap");
    disk.files().into_iter().filter(is_snapshot).collect()
}

fn rename(disk: &FaultyDisk, from: &Path, to: &Path) {
    let bytes = disk.bytes(from).expect("it is there");
    disk.take(from);
    disk.put(to, &bytes);
}

fn swap(disk: &FaultyDisk, one: &Path, other: &Path) {
    let bytes = disk
        .bytes(one)
        .zip(disk.bytes(other))
        .expect("they are there");
    disk.put(one, &bytes.1);
    disk.put(other, &bytes.0);
}

#[test]
fn segments_that_are_missing_doubled_or_of_another_size_are_refused() {
    let bench = Bench::new(End::Clean);
    let all = segments(&bench.disk, &Path::new(DIR).join("member/wal")).expect("a folder");
    // The last segment is prepared but not used yet.
    let (spare, used) = all.split_last().expect("segments");
    let inspected = check(&bench.disk)
        .expect("it is good")
        .expect("something is there");
    let covered = inspected.metadata.position.index;
    let heads: Vec<LogIndex> = inspected
        .segments
        .iter()
        .map(|segment| segment.before.index)
        .collect();
    for (number, path) in used.iter().enumerate() {
        let name = path.display();
        // If a snapshot covers the entries before a later segment, the log may begin with that segment.
        let is_covered = heads
            .get(number + 1)
            .is_some_and(|before| *before <= covered);
        let met = bench.damage(&format!("{name} is removed"), |disk| disk.take(path));
        assert_eq!(met == Met::Whole, is_covered, "{name} is removed: {met:?}");
        let damages: [Damage; 5] = [
            ("empty", |bytes| bytes.clear()),
            ("zeros", |bytes| bytes.fill(0)),
            ("one byte short", |bytes| bytes.truncate(bytes.len() - 1)),
            ("a page longer", |bytes| bytes.resize(bytes.len() + 4096, 0)),
            ("no segment at all", |bytes| bytes.fill(b'#')),
        ];
        for (how, damage) in damages {
            let what = format!("{name}: {how}");
            if number + 1 == used.len() && (how == "zeros" || how == "no segment at all") {
                // As above: there is no witness for a newest segment without any good record.
                continue;
            }
            let met = bench.damage(&what, |disk| edit(disk, path, damage));
            assert_eq!(met, Met::Refused, "{what}");
        }
        let double = path.with_file_name(format!("{number:016x}-12345678.wal"));
        let what = format!("{name} is there twice");
        let met = bench.damage(&what, |disk| {
            disk.put(&double, &disk.bytes(path).expect("bytes"));
        });
        assert_eq!(met, Met::Refused, "{what}");
        let what = format!("{name} has another name");
        assert_eq!(
            bench.damage(&what, |disk| rename(disk, path, &double)),
            Met::Refused,
            "{what}"
        );
        if let Some(next) = used.get(number + 1) {
            let what = format!("{name} is exchanged with the next");
            assert_eq!(
                bench.damage(&what, |disk| swap(disk, path, next)),
                Met::Refused,
                "{what}"
            );
        }
    }
    for (how, damage) in [
        ("empty", (|bytes| bytes.clear()) as fn(&mut Vec<u8>)),
        ("longer", |bytes| bytes.resize(9000, 0)),
        ("ones", |bytes| bytes.fill(0xff)),
    ] {
        let met = bench.damage(&format!("the spare is {how}"), |disk| {
            edit(disk, spare, damage)
        });
        assert_eq!(met, Met::Whole, "the spare is {how}");
    }
    assert_eq!(
        bench.damage("no spare", |disk| disk.take(spare)),
        Met::Whole
    );
    let met = bench.damage("no log", |disk| all.iter().for_each(|path| disk.take(path)));
    assert_eq!(met, Met::Refused);
}

/// Whether `snapshot check` accepts the changed file.
fn loads_with(disk: &FaultyDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let disk = disk.fork(1);
    edit(&disk, path, change);
    let reader = SnapshotReader::open_file(&disk, path);
    reader.is_ok_and(|mut reader| snapshot::load(&mut reader, HISTORY, Writer::Member).is_ok())
}

/// Damage to any byte of the newest snapshot. The snapshot before it and the log since then replace it. If the log was
/// restarted after the snapshot, nothing can replace it.
#[test]
fn snapshots_are_replaced_by_the_log_or_refused() {
    let bench = Bench::new(End::Clean);
    let all = snapshots(&bench.disk);
    let [old, sent, newest] = &all[..] else {
        panic!("three snapshots, not {all:?}");
    };
    let length = bench.disk.bytes(newest).expect("bytes").len();
    // The beginning and the end byte by byte, and some bytes in between.
    let places = (0..60)
        .chain((60..length).step_by(length / 20))
        .chain(length - 30..length);
    for at in places {
        let what = format!("byte {at} of the newest snapshot");
        let met = bench.damage(&what, |disk| edit(disk, newest, |bytes| bytes[at] ^= 4));
        assert_eq!(met, Met::Whole, "{what}");
        assert!(
            !loads_with(&bench.disk, newest, |bytes| bytes[at] ^= 4),
            "{what}"
        );
        let what = format!("byte {at} of all snapshots");
        let met = bench.damage(&what, |disk| {
            for path in &all {
                edit(disk, path, |bytes| {
                    let at = at.min(bytes.len() - 1);
                    bytes[at] ^= 4;
                });
            }
        });
        assert_eq!(met, Met::Refused, "{what}");
    }
    let damages: [Damage; 6] = [
        ("empty", |bytes| bytes.clear()),
        ("short", |bytes| bytes.truncate(bytes.len() - 1)),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("longer", |bytes| bytes.push(0)),
        ("zeros", |bytes| bytes.fill(0)),
        ("doubled", |bytes| bytes.extend_from_within(..)),
    ];
    for (how, damage) in damages {
        let met = bench.damage(how, |disk| edit(disk, newest, damage));
        assert_eq!(met, Met::Whole, "the newest is {how}");
        assert!(!loads_with(&bench.disk, newest, damage), "it is {how}");
        let met = bench.damage(how, |disk| {
            edit(disk, newest, damage);
            edit(disk, sent, damage);
        });
        assert_eq!(
            met,
            Met::Refused,
            "both snapshots from which the log continues are {how}"
        );
    }
    assert_eq!(
        bench.damage("no newest", |disk| disk.take(newest)),
        Met::Whole
    );
    assert_eq!(bench.damage("no old", |disk| disk.take(old)), Met::Whole);
    let met = bench.damage("no snapshot", |disk| {
        all.iter().for_each(|path| disk.take(path))
    });
    assert_eq!(met, Met::Refused, "the log has begun anew at 101");
    assert_eq!(
        bench.damage("exchanged", |disk| swap(disk, sent, newest)),
        Met::Refused
    );
    let aside = newest.with_extension("bad");
    assert_eq!(
        bench.damage("aside", |disk| rename(disk, newest, &aside)),
        Met::Whole
    );
}

#[test]
fn an_identity_that_is_not_as_written_is_refused() {
    let bench = Bench::new(End::Clean);
    let path = Path::new(DIR).join("member/identity");
    let length = bench.disk.bytes(&path).expect("bytes").len();
    for at in 0..length {
        let met = bench.damage("identity", |disk| edit(disk, &path, |bytes| bytes[at] ^= 1));
        assert_eq!(met, Met::Refused, "byte {at}");
    }
    let damages: [Damage; 5] = [
        ("empty", |bytes| bytes.clear()),
        ("short", |bytes| bytes.truncate(bytes.len() - 1)),
        ("longer", |bytes| bytes.push(b' ')),
        ("very long", |bytes| bytes.resize(3 << 20, 0)),
        ("zeros", |bytes| bytes.fill(0)),
    ];
    for (how, damage) in damages {
        let met = bench.damage(how, |disk| edit(disk, &path, damage));
        assert_eq!(met, Met::Refused, "it is {how}");
    }
}

/// An operator makes a copy before a change. The copy may still exist when a snapshot has made the segment unnecessary.
#[test]
fn a_copy_of_a_segment_is_harmless_and_a_moved_segment_is_missed() {
    let bench = Bench::new(End::Clean);
    let wal = Path::new(DIR).join("member/wal");
    let all = segments(&bench.disk, &wal).expect("a folder");
    // The last segment is prepared but not used yet. The oldest one is not needed, because a snapshot covers its
    // entries.
    let used = &all[..all.len() - 1];
    for path in used {
        let what = path.display().to_string();
        let copy = path.with_extension("copy.wal");
        let met = bench.damage(&what, |disk| {
            disk.put(&copy, &disk.bytes(path).expect("bytes"))
        });
        assert_eq!(met, Met::Whole, "{what} has a copy");
        let aside = path.with_file_name("a.wal");
        let met = bench.damage(&what, |disk| rename(disk, path, &aside));
        let is_oldest = *path == used[0];
        let expected = if is_oldest { Met::Whole } else { Met::Refused };
        assert_eq!(met, expected, "{what} is moved");
    }
    let met = bench.damage("all are moved", |disk| {
        for path in used {
            rename(disk, path, &path.with_extension("old.wal"));
        }
    });
    assert_eq!(met, Met::Refused);
}

#[test]
fn files_of_others_are_refused_and_leftovers_are_not() {
    let bench = Bench::new(End::Clean);
    let member = Path::new(DIR).join("member");
    for (path, expected) in [
        ("wal/0000000000000000-0000000000000000.wal", Met::Whole),
        ("wal/copy.wal", Met::Whole),
        ("snap/db", Met::Whole),
        ("wal/0000000000000009-00000001.tmp", Met::Whole),
        ("wal/notes.txt", Met::Whole),
        (
            "snap/0000000000000099-0000000000000001.00000001.tmp",
            Met::Whole,
        ),
        ("snap/notes.txt", Met::Whole),
        ("snap/0000000000000002-000000000000000b.snap", Met::Whole),
        ("wal/0000000000000000-00000001.wal~", Met::Whole),
        ("identity.tmp", Met::Whole),
        ("lock", Met::Whole),
    ] {
        let met = bench.damage(path, |disk| disk.put(&member.join(path), b"\xffabc"));
        assert_eq!(met, expected, "{path}");
    }
    // A folder in the place of a file.
    for (path, expected) in [
        ("lock", Met::Refused),
        ("wal/0000000000000001-00000001.wal", Met::Refused),
        ("snap/0000000000000099-0000000000000001.snap", Met::Refused),
        ("identity", Met::Refused),
    ] {
        let path = member.join(path);
        let met = bench.damage(&path.display().to_string(), |disk| {
            disk.take(&path);
            disk.make_dir(&path).expect("made");
        });
        assert_eq!(met, expected, "a folder {}", path.display());
    }
}
