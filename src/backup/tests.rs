//! Cluster time after a restore, and how backup files are read.

use super::*;
use crate::tree::{Action, Command, Key, Stamp, WallTime};

const SECOND: u64 = 1_000_000_000;
const WALL: i64 = SECOND as i64;
const YEAR_2026: i64 = 1_767_225_600 * WALL;
/// A key that was set while the clock was right.
const RIGHT: (u64, i64) = (100 * SECOND, YEAR_2026 + 500 * WALL);

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

/// When the keys were set (cluster time and wall time), the wall clock at the restore, and the cluster time expected
/// then.
type Row = (&'static [(u64, i64)], i64, u64);

/// A state with one key of ten seconds to live for each pair of cluster time and wall time.
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
fn cluster_time_goes_on_by_the_wall_clock_and_no_key_goes_before_its_expiration() {
    let table: [Row; 9] = [
        // Without a ttl there is nothing to derive the time from.
        (&[], YEAR_2026 + 900 * WALL, 0),
        // Five seconds after the key was set.
        (&[RIGHT], YEAR_2026 + 505 * WALL, 105 * SECOND),
        // A day after the key was set.
        (&[RIGHT], YEAR_2026 + 86_900 * WALL, 86_500 * SECOND),
        // The wall clock was set back, or is not set yet.
        (&[RIGHT], YEAR_2026, 100 * SECOND),
        (&[RIGHT], 3 * WALL, 100 * SECOND),
        // The wall clock was not set when a key was set, before or after `RIGHT`. Such a key does not count.
        (
            &[(99 * SECOND, 2 * WALL), RIGHT, (101 * SECOND, 4 * WALL)],
            YEAR_2026 + 510 * WALL,
            110 * SECOND,
        ),
        // It does not count even if it is the only key. Otherwise every key would expire at once.
        (&[(100 * SECOND, 2 * WALL)], YEAR_2026, 100 * SECOND),
        // A clock that was an hour behind does not affect other keys.
        (
            &[RIGHT, (101 * SECOND, YEAR_2026 - 3100 * WALL)],
            YEAR_2026 + 510 * WALL,
            110 * SECOND,
        ),
        // A clock that was an hour ahead: cluster time continues from the state's.
        (
            &[RIGHT, (101 * SECOND, YEAR_2026 + 4100 * WALL)],
            YEAR_2026 + 510 * WALL,
            101 * SECOND,
        ),
    ];
    for (sets, wall, expected) in table {
        let state = state(sets);
        let note = clock_note(&state, &Census::of(&state.tree), &Fixed(wall));
        assert_eq!(note.cluster_ns, expected, "{sets:?} at {wall}");
        assert_eq!((note.boottime_ns, note.boot_id), (77, [3; 16]));
    }
}

fn metadata() -> SnapshotMetadata {
    SnapshotMetadata {
        position: Position {
            term: crate::raft::Term(2),
            index: LogIndex(9),
        },
        membership: Membership {
            voters: [NodeId(7)].into(),
            ..Membership::default()
        },
    }
}

fn honest() -> Contents {
    let mut state = state(&[(5, 6), (7, 8)]);
    state.members.add(Member {
        id: 7,
        name: "n7".into(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
    });
    Contents {
        metadata: metadata(),
        state,
        fingerprint: 0,
        bytes: 0,
    }
}

#[test]
fn what_is_written_is_read_and_no_two_files_have_one_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let written = honest();
    let read = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let bytes = written.write(&mut file).unwrap();
        let read = read_file(&path, 10).unwrap();
        assert_eq!((read.bytes, &read.metadata), (bytes, &written.metadata));
        assert_eq!(read.state.time, written.state.time);
        let (read_hash, hash) = (&read.state.tree, &written.state.tree);
        assert_eq!(crate::tree::hash(read_hash), crate::tree::hash(hash));
        read.fingerprint
    });
    assert_ne!(read[0], read[1]);
}

/// The checksums of the file are correct, because an attacker computes them too.
#[test]
fn a_state_that_no_cluster_has_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crafted");
    let mut crafted = honest();
    crafted.state.time = ClusterTime(u64::MAX);
    let mut without_voters = honest();
    without_voters.metadata.membership = Membership::default();
    let mut without_root = honest();
    let text = r#"{"enabled":true,"founded":true,"users":{},"roles":{}}"#;
    without_root.state.auth = std::sync::Arc::new(serde_json::from_str(text).unwrap());
    for (contents, expected) in [
        (crafted, "a cluster time"),
        (without_voters, "no voters"),
        (without_root, "authentication without"),
    ] {
        let mut file = std::fs::File::create(&path).unwrap();
        contents.write(&mut file).unwrap();
        let error = match read_file(&path, 10) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was read"),
        };
        let expected = format!(
            "{}: it passes its checksums, but it has {expected}",
            path.display()
        );
        assert!(error.starts_with(&expected), "{error}");
    }
}

/// After the largest jump, a second one would leave too few indexes.
#[test]
fn no_jump_comes_close_to_the_last_index() {
    let mut state = honest().state;
    jump(&mut state, BUMP_MAX).unwrap();
    let error = jump(&mut state, BUMP_MAX).unwrap_err().to_string();
    assert!(error.starts_with("--bump-index"), "{error}");
    assert_eq!(state.tree.index().0, BUMP_MAX + 2);
}

/// A clock in the far future is wrong, and cluster time would never come back.
#[test]
fn no_wall_clock_brings_cluster_time_close_to_its_end() {
    let state = state(&[RIGHT]);
    for wall in [i64::MAX, i64::MAX / 8 * 7] {
        let note = clock_note(&state, &Census::of(&state.tree), &Fixed(wall));
        assert_eq!(note.cluster_ns, state.time.0, "at {wall}");
    }
}

/// The checksums are right, so the file is not damaged. A newer version may have written it.
#[test]
fn a_state_of_another_version_is_told_from_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer");
    let mut bytes = Vec::new();
    let mut slices = wal::SliceEncoder::begin(7, &metadata(), &mut bytes);
    slices.write(&[9, 1, 2, 3], &mut bytes);
    slices.end(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = match read_file(&path, 10) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was read"),
    };
    let named = format!(
        "{}: it passes its checksums but cannot be decoded",
        path.display()
    );
    assert!(error.starts_with(&named), "{error}");
    assert!(error.contains("state version 9, and this edgetcd") && error.contains("newer edgetcd"));
}

/// A log of any length produces at most as many events as a server keeps. This matters on a machine with little memory.
#[test]
fn as_many_events_are_kept_as_by_a_server() {
    let config = Config::from_args(&[], std::iter::empty()).unwrap();
    assert_eq!(config.watch_history, HISTORY_EVENTS);
}
