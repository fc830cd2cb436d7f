//! How cluster time goes on from a backup, and what a file is read as.

use super::*;
use crate::tree::{Action, Command, Key, Stamp, WallTime};

const SECOND: u64 = 1_000_000_000;
const WALL: i64 = SECOND as i64;

struct Fixed(i64);

impl Clock for Fixed {
    fn since_boot(&self) -> u64 {
        77
    }
    fn wall(&self) -> WallTime {
        WallTime(self.0)
    }
    fn boot_id(&self) -> [u8; 16] {
        [3; 16]
    }
}

/// When keys were set, in cluster and wall time; the wall clock at the restore; cluster time then.
type Row = (&'static [(u64, i64)], i64, u64);

/// A state of which each pair is a key with ten seconds to live, set at that cluster and wall time.
fn state(sets: &[(u64, i64)]) -> State {
    let mut state = State::new(Members::default(), 10);
    for (at, (cluster, wall)) in sets.iter().enumerate() {
        let command = Command {
            action: Action::Set,
            key: Key::new(format!("/{at}").as_bytes()),
            value: b"v"[..].into(),
            dir: false,
            recursive: false,
            ttl: Some(10),
            refresh: false,
            prev_value: None,
            prev_index: None,
        };
        state.time = ClusterTime(*cluster);
        let stamp = Stamp {
            cluster: state.time,
            wall: WallTime(*wall),
        };
        assert!(state.tree.apply(&command, stamp).is_ok());
    }
    state
}

#[test]
fn cluster_time_goes_on_by_the_wall_clock_since_the_last_ttl_was_set() {
    let table: [Row; 5] = [
        // No ttl, nothing to measure by.
        (&[], 900 * WALL, 0),
        // Five seconds after the key was set…
        (&[(100 * SECOND, 500 * WALL)], 505 * WALL, 105 * SECOND),
        // …or a day.
        (
            &[(100 * SECOND, 500 * WALL)],
            86_900 * WALL,
            86_500 * SECOND,
        ),
        // A wall clock that was put back, or not set yet.
        (&[(100 * SECOND, 500 * WALL)], 3 * WALL, 100 * SECOND),
        // The newest pair counts: in between the wall clock was set.
        (
            &[(100 * SECOND, 2 * WALL), (101 * SECOND, 500 * WALL)],
            510 * WALL,
            111 * SECOND,
        ),
    ];
    for (sets, wall, expected) in table {
        let state = state(sets);
        let note = clock_note(&state, &Census::of(&state.tree), &Fixed(wall));
        assert_eq!(note.cluster_ns, expected, "{sets:?} at {wall}");
        assert_eq!((note.boottime_ns, note.boot_id), (77, [3; 16]));
    }
}

fn mark() -> SnapshotMark {
    SnapshotMark {
        position: Position {
            term: crate::raft::Term(2),
            index: LogIndex(9),
        },
        membership: Membership::default(),
    }
}

#[test]
fn what_is_written_is_read_and_no_two_files_have_one_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let written = Contents {
        mark: mark(),
        state: state(&[(5, 6), (7, 8)]),
        fingerprint: 0,
        bytes: 0,
    };
    let read = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let bytes = written.write(&mut file).unwrap();
        let read = read_file(&path).unwrap();
        assert_eq!((read.bytes, &read.mark), (bytes, &written.mark));
        assert_eq!(read.state.time, written.state.time);
        let (read_hash, hash) = (&read.state.tree, &written.state.tree);
        assert_eq!(crate::tree::hash(read_hash), crate::tree::hash(hash));
        read.fingerprint
    });
    assert_ne!(read[0], read[1]);
}

/// Its checksums are right, so it is not damaged; a newer version may have written it.
#[test]
fn a_state_of_another_version_is_told_from_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer");
    let mut bytes = Vec::new();
    let mut slices = wal::SliceEncoder::begin(7, &mark(), &mut bytes);
    slices.write(&[9, 1, 2, 3], &mut bytes);
    slices.end(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = match read_file(&path) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was read"),
    };
    let named = format!(
        "{}: it passes its checksums but cannot be read",
        path.display()
    );
    assert!(error.starts_with(&named), "{error}");
    assert!(error.contains("state version 9, not 1") && error.contains("newer edgetcd"));
}
