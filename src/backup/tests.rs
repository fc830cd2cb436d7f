//! How cluster time goes on from a backup.

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
