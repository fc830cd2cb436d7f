//! Checks whether a cluster can have produced a state.
//!
//! Checksums show that a snapshot was not changed after it was written. They show nothing about the writer. With a
//! crafted cluster time at the end of its range, every later time to live would end at once or never. A cluster without
//! voters would never have a leader. With an index at the end of its range, the node would stop at one of the next
//! writes. So such states are refused wherever a snapshot comes from outside. Every state that a cluster has written is
//! accepted.

use super::entry::Malformed;
use super::state::State;
use crate::auth;
use crate::raft::SnapshotMetadata;
use crate::tree::{ClusterTime, TreeIndex};

/// Indexes of entries, terms and counters stay below this: a million a second for two thousand years.
const COUNT_LIMIT: u64 = 1 << 56;

/// Indexes of the tree stay below this. A restore may add up to 2^60 at once.
const TREE_INDEX_LIMIT: u64 = 1 << 61;

/// Cluster time stays below this, in nanoseconds: 146 years.
const TIME_LIMIT: u64 = 1 << 62;

/// The writer of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A member of this cluster.
    Member,
    /// Anybody: a cluster may begin with it, so a quarter of each range must be left.
    Anybody,
}

impl Writer {
    fn limit(self, limit: u64) -> u64 {
        match self {
            Writer::Member => limit,
            Writer::Anybody => limit / 4 * 3,
        }
    }

    /// Indexes of the tree stay below this.
    pub fn tree_index_limit(self) -> TreeIndex {
        TreeIndex(self.limit(TREE_INDEX_LIMIT))
    }

    /// Cluster time stays below this.
    pub fn time_limit(self) -> ClusterTime {
        ClusterTime(self.limit(TIME_LIMIT))
    }
}

/// Checks that a cluster can have this state at `metadata`.
///
/// # Errors
/// [`Malformed`], with what no cluster has.
pub fn check(state: &State, metadata: &SnapshotMetadata, writer: Writer) -> Result<(), Malformed> {
    let SnapshotMetadata {
        position,
        membership,
    } = metadata;
    let (voters, learners) = (&membership.voters, &membership.learners);
    let mut all = voters.iter().chain(learners);
    let is_position = |number: u64| (1..writer.limit(COUNT_LIMIT)).contains(&number);
    let mut events = state.tree.history().since(TreeIndex(0));
    let wrong = match () {
        () if !is_position(position.index.0) => "an entry's index that no cluster reaches",
        () if !is_position(position.term.0) => "a term that no cluster reaches",
        () if state.tree.index() >= writer.tree_index_limit() => {
            "an index of the tree that no cluster reaches"
        }
        () if state.time >= writer.time_limit() => "a cluster time that no cluster reaches",
        () if state.tree.stats().largest() >= writer.limit(COUNT_LIMIT) => {
            "a counter that no cluster reaches"
        }
        // Time is the maximum of the stamps of all commands.
        () if events.any(|event| event.at > state.time) => {
            "an event that is later than its cluster time"
        }
        () if voters.is_empty() => "no voters",
        () if !voters.is_disjoint(learners) => "a learner that votes",
        // The same entry changes both.
        () if all.any(|id| state.members.get(*id).is_none()) => {
            "a voter or a learner that is no member"
        }
        () if !state.members.is_sound() => "members that contradict each other",
        // Nobody could change anything, or end this.
        () if state.auth.is_enabled() && state.auth.user(auth::ROOT).is_none() => {
            "authentication without its user root"
        }
        () => return Ok(()),
    };
    Err(impossible(wrong))
}

/// Checks the latest deadline of a state at `time`. A time to live has at most 2^63 nanoseconds, or its end could not be
/// shown as a date, and it begins with its command.
///
/// # Errors
/// [`Malformed`]: no time to live ends then.
pub fn check_deadline(time: ClusterTime, latest: ClusterTime) -> Result<(), Malformed> {
    match latest.0 > time.0.saturating_add(i64::MAX.unsigned_abs()) {
        true => Err(impossible(
            "a key that expires later than any time to live allows",
        )),
        false => Ok(()),
    }
}

fn impossible(wrong: &str) -> Malformed {
    Malformed(format!("it has {wrong}; no cluster writes such a snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::entry;
    use crate::engine::members::{Member, Members};
    use crate::engine::state::Loader;
    use crate::raft::{Entry, LogIndex, Membership, NodeId, Payload, Position, Term};
    use crate::tree::{Action, Command, Key, Listing, LocalStats, Stamp, WallTime};

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            client_urls: vec![format!("http://127.0.0.1:1{id}")],
        }
    }

    fn honest() -> (State, SnapshotMetadata) {
        let mut state = State::new(Members::new(1, [member(1), member(2), member(3)]), 100);
        state.members.remove(NodeId(3));
        state.time = ClusterTime(1 << 60);
        let metadata = SnapshotMetadata {
            position: Position {
                term: Term(7),
                index: LogIndex(900),
            },
            membership: Membership {
                voters: [NodeId(1)].into(),
                learners: [NodeId(2)].into(),
            },
        };
        (state, metadata)
    }

    /// Checksums fit, as whoever makes such a snapshot computes them.
    #[test]
    fn a_snapshot_that_no_cluster_writes_is_refused() {
        type Craft = fn(&mut State, &mut SnapshotMetadata);
        let table: [(Craft, &str); 16] = [
            (
                |_, metadata| metadata.position.index = LogIndex(0),
                "an entry's index",
            ),
            (
                |_, metadata| metadata.position.index = LogIndex((1 << 62) - 1),
                "an entry's index",
            ),
            (
                |_, metadata| metadata.position.index = LogIndex(u64::MAX),
                "an entry's index",
            ),
            (|_, metadata| metadata.position.term = Term(0), "a term"),
            (
                |_, metadata| metadata.position.term = Term((1 << 62) - 1),
                "a term",
            ),
            (
                |_, metadata| metadata.position.term = Term(u64::MAX),
                "a term",
            ),
            (
                |state, _| state.tree.skip_to(TreeIndex((1 << 62) - 1)),
                "an index of the tree",
            ),
            (
                |_, metadata| metadata.membership.voters.clear(),
                "no voters",
            ),
            (
                |_, metadata| assert!(metadata.membership.learners.insert(NodeId(1))),
                "a learner that votes",
            ),
            (
                |_, metadata| assert!(metadata.membership.voters.insert(NodeId(9))),
                "a voter or a learner that is no member",
            ),
            (
                |_, metadata| assert!(metadata.membership.learners.insert(NodeId(3))),
                "a voter or a learner that is no member",
            ),
            (
                |state, _| state.members.add(member(3)),
                "members that contradict",
            ),
            (
                |state, _| state.members.add(member(0)),
                "members that contradict",
            ),
            (
                |state, _| state.time = ClusterTime(u64::MAX),
                "a cluster time",
            ),
            (
                |state, _| state.time = ClusterTime(1 << 62),
                "a cluster time",
            ),
            (
                |state, _| {
                    state
                        .tree
                        .take_index(Action::Set, ClusterTime(state.time.0 + 1));
                },
                "an event that is later",
            ),
        ];
        let read = |state: &State, metadata: &SnapshotMetadata| {
            let mut loader = Loader::new(100);
            state.save(|slice| loader.push(slice))?;
            let state = loader.finish(metadata.position.index)?;
            check(&state, metadata, Writer::Member)
        };
        let (state, metadata) = honest();
        assert_eq!(read(&state, &metadata), Ok(()));
        for (craft, expected) in table {
            let (mut state, mut metadata) = honest();
            craft(&mut state, &mut metadata);
            let error = read(&state, &metadata).expect_err(expected);
            assert!(error.0.contains(expected), "{error:?}, not {expected}");
        }
    }

    #[test]
    fn a_key_that_expires_later_than_any_time_to_live_is_refused() {
        let (mut state, metadata) = honest();
        let lease = Command {
            ttl: Some(9_000_000_000),
            ..Command::new(Action::Set, Key::new(b"/lease"))
        };
        let stamp = Stamp {
            cluster: state.time,
            wall: WallTime(0),
        };
        state.tree.apply(&lease, stamp).expect("a key");
        let read = |state: &State| {
            let mut loader = Loader::new(100);
            state.save(|slice| loader.push(slice))?;
            loader.finish(metadata.position.index).map(drop)
        };
        assert_eq!(read(&state), Ok(()), "285 years are a time to live");
        state.time = ClusterTime(1000);
        let error = read(&state).expect_err("it was set after this");
        assert!(error.0.contains("expires later"), "{error:?}");
    }

    /// A new cluster may begin with this state, so it must be able to continue for a long time.
    #[test]
    fn of_anybody_a_quarter_of_each_range_is_kept() {
        let almost = |state: &mut State, metadata: &mut SnapshotMetadata, field: u8| match field {
            0 => metadata.position.index = LogIndex(COUNT_LIMIT - 1),
            1 => metadata.position.term = Term(COUNT_LIMIT - 1),
            2 => state.tree.skip_to(TreeIndex(TREE_INDEX_LIMIT - 1)),
            _ => state.time = ClusterTime(TIME_LIMIT - 1),
        };
        for field in 0..4 {
            let (mut state, mut metadata) = honest();
            almost(&mut state, &mut metadata, field);
            assert_eq!(check(&state, &metadata, Writer::Member), Ok(()), "{field}");
            assert!(
                check(&state, &metadata, Writer::Anybody).is_err(),
                "{field}"
            );
        }
    }

    /// A state with keys, a time to live, events and counters, as bytes.
    fn written() -> (Vec<u8>, SnapshotMetadata) {
        let (mut state, metadata) = honest();
        let stamp = Stamp {
            cluster: state.time,
            wall: WallTime(1_700_000_000_000_000_000),
        };
        for (key, ttl) in [("/dir/a", None), ("/dir/b", Some(60)), ("/c", Some(1))] {
            let mut command = Command::new(Action::Set, Key::new(key.as_bytes()));
            command.ttl = ttl;
            command.value = "v".into();
            state.tree.apply(&command, stamp).expect("a key");
        }
        let mut bytes = Vec::new();
        let saved = state.save(|slice| {
            bytes.extend_from_slice(slice);
            Ok::<(), ()>(())
        });
        saved.expect("memory takes it");
        (bytes, metadata)
    }

    /// Does with a state what a node and its clients do.
    fn use_it(state: &mut State, metadata: &SnapshotMetadata) {
        let mut out = Vec::new();
        let now = state.time;
        for event in state.tree.history().since(TreeIndex(0)) {
            event.render(&mut out);
        }
        for key in [&b"/"[..], b"/dir", b"/c"] {
            if let Ok(mut listing) = Listing::new(&state.tree, &Key::new(key), true, now) {
                while listing.render(&mut out, 1000) {}
            }
        }
        state.tree.stats().render(&LocalStats::default(), &mut out);
        let stamp = Stamp {
            cluster: ClusterTime(now.0 + 2_000_000_000),
            wall: WallTime(1_700_000_100_000_000_000),
        };
        let actions = [
            Action::Set,
            Action::Create,
            Action::Update,
            Action::CompareAndSwap,
            Action::Delete,
        ];
        let commands = actions.iter().flat_map(|action| {
            [&b"/dir/a"[..], b"/c", b"/new/d"].map(|key| {
                let mut command = Command::new(*action, Key::new(key));
                command.ttl = Some(60);
                entry::tree(&command)
            })
        });
        let commands = std::iter::once(entry::expire()).chain(commands);
        for (step, mut command) in commands.enumerate() {
            entry::stamp(&mut command, stamp);
            let entry = Entry {
                position: Position {
                    index: metadata.position.index.after(step + 1),
                    ..metadata.position
                },
                payload: Payload::Command(command.into()),
            };
            state.apply(&entry);
        }
    }

    /// The writer of such a snapshot can also compute correct checksums.
    #[test]
    fn whatever_number_a_snapshot_contains_a_node_can_use_it_or_refuses_it() {
        let extremes: [&[u8]; 6] = [
            &[0; 8],
            &[0xFF; 8],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F],
            // Numbers of variable length.
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        ];
        let (bytes, metadata) = written();
        let mut used = 0;
        for at in 0..bytes.len() {
            for extreme in extremes {
                // In place of a number of any length.
                for end in (1..=10).map(|length| at + length) {
                    let mut crafted = bytes[..at].to_vec();
                    crafted.extend_from_slice(extreme);
                    crafted.extend_from_slice(bytes.get(end..).unwrap_or_default());
                    let run = std::panic::catch_unwind(|| {
                        let mut loader = Loader::new(100);
                        loader.push(&crafted).ok()?;
                        let mut state = loader.finish(metadata.position.index).ok()?;
                        check(&state, &metadata, Writer::Anybody).ok()?;
                        use_it(&mut state, &metadata);
                        Some(())
                    });
                    let run = run.unwrap_or_else(|_| panic!("{extreme:x?} at byte {at}"));
                    used += usize::from(run.is_some());
                }
            }
        }
        assert!(used > 50, "only {used} were accepted");
    }
}
