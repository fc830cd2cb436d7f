//! The state machine: what the committed log adds up to.
//!
//! Applying is deterministic: the outcome depends on the entries alone, never on a clock or on chance,
//! so all members are equal at equal indexes. A snapshot is this state at one index.
//!
//! # What the tree's index counts beside changes of keys
//!
//! Changes of the members take indexes, and places in the history, as in the reference:
//!
//! | change | indexes |
//! |---|---|
//! | the cluster is founded | one for each founder, one for the version of the cluster |
//! | a member publishes a name or client URLs that are new | 1 |
//! | a member is added | 1 |
//! | a member gets other peer URLs, or the same again | 1 |
//! | a member is removed | 2 |
//! | a learner is promoted, a change is refused, a member publishes what is known | 0 |
//!
//! So the first key has index 4 in a cluster of one, and 8 in a cluster of three. An entry of an earlier version counts
//! nothing ([`entry::is_counted`]).
//!
//! # The state's bytes in a snapshot
//!
//! | size | field |
//! |---:|---|
//! | 1 | version, 1 |
//! | 8 | cluster time of the last entry, little-endian |
//! | 4 | length of the members' JSON |
//! | n | the members |
//! | rest | the tree ([`tree::Encoder`]) |

use super::entry::{self, Malformed, Order};
use super::members::{MemberError, Members};
use crate::raft::{ChangeKind, Entry, LogIndex, Payload};
use crate::tree::{self, Action, ApiError, Applied, Census, ClusterTime, Tree, TreeIndex};

const VERSION: u8 = 1;
/// Version, time and the length of the members' JSON.
const HEAD_BYTES: usize = 13;

/// What the log adds up to at [`State::applied`]. A clone is cheap and keeps its content.
#[derive(Clone)]
pub struct State {
    /// The keys, and the events that watches may still ask for.
    pub tree: Tree,
    /// The table that the members API shows; who votes is for raft's own membership to say.
    pub members: Members,
    /// The last entry that is in it; 0 before the first.
    pub applied: LogIndex,
    /// Cluster time of the last stamped entry.
    pub time: ClusterTime,
}

/// What one entry did.
pub enum Outcome {
    /// A client's write, which may have been refused; equal on every member.
    Tree(Result<Applied, ApiError>),
    /// What was removed because its time was up, in order; may be empty.
    Expired {
        /// One event for each node.
        all: Vec<Applied>,
        /// As many as the entry may expire: more may be due.
        is_cut: bool,
    },
    /// The members' table changed, unless the change was refused; equal on every member.
    Members(Result<(), MemberError>),
    /// Nothing that a client sees.
    Quiet,
}

impl State {
    /// The state before the first entry.
    pub fn new(members: Members, history_events: usize) -> State {
        State {
            tree: Tree::new(history_events),
            members,
            applied: LogIndex(0),
            time: ClusterTime(0),
        }
    }

    /// Applies the next committed entry.
    ///
    /// # Panics
    /// When an entry is skipped, or holds what no version wrote: going on would make this member differ
    /// from the others.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        self.try_apply(entry).unwrap_or_else(|Malformed(what)| {
            let index = entry.position.index.0;
            panic!("the committed entry {index} cannot be read: {what}")
        })
    }

    /// As [`State::apply`], for whoever only reads a log that another version may have written.
    ///
    /// # Errors
    /// [`Malformed`] when the entry holds what no version known here wrote; the state is of no use then.
    ///
    /// # Panics
    /// When an entry is skipped.
    pub fn try_apply(&mut self, entry: &Entry) -> Result<Outcome, Malformed> {
        let index = entry.position.index;
        assert_eq!(
            index.0,
            self.applied.0 + 1,
            "entries are applied one after the other"
        );
        self.applied = index;
        match &entry.payload {
            Payload::Command(bytes) => self.order(bytes),
            // The leader promotes by itself, and raft's own membership says so.
            Payload::Change(change) if change.kind == ChangeKind::Promote => Ok(Outcome::Quiet),
            Payload::Change(change) => self.order(&change.context),
            Payload::Noop => Ok(Outcome::Quiet),
        }
    }

    fn order(&mut self, bytes: &[u8]) -> Result<Outcome, Malformed> {
        let (mut stamp, order) = entry::decode(bytes)?;
        let asked = stamp.cluster;
        self.time = self.time.max(stamp.cluster);
        // A new leader may stamp with an earlier time than the one before. What is to live for a while lives from the
        // latest time that the log knows, or it would end early by the difference.
        stamp.cluster = self.time;
        let counted = entry::is_counted(bytes);
        Ok(match order {
            Order::Tree(command) => Outcome::Tree(self.tree.apply(&command, stamp)),
            Order::Expire(most) => {
                let all = self.tree.expire_some(asked, most);
                Outcome::Expired {
                    is_cut: all.len() == most,
                    all,
                }
            }
            Order::Publish(published) => {
                let founds = self.tree.index() == TreeIndex(0) && !self.members.any_published();
                let is_new = self.members.publish(published);
                let counted = counted && is_new;
                if counted && founds {
                    self.count_foundation(stamp.cluster);
                }
                self.members_outcome(Ok(()), counted.then_some(&[Action::Set]), stamp.cluster)
            }
            Order::Update(member) => {
                let updated = self.members.update(&member);
                self.members_outcome(updated, counted.then_some(&[Action::Update]), stamp.cluster)
            }
            Order::Add(member) => {
                self.members.add(member);
                self.members_outcome(Ok(()), counted.then_some(&[Action::Create]), stamp.cluster)
            }
            Order::Remove(id) => {
                self.members.remove(id);
                // The reference deletes the member, and notes that its id is never used again.
                let actions = [Action::Delete, Action::Create];
                self.members_outcome(Ok(()), counted.then_some(&actions), stamp.cluster)
            }
            Order::Time => Outcome::Quiet,
        })
    }

    /// In the reference each founder takes an index, and so does the first cluster version. Here they take theirs
    /// when the first member publishes itself: before that no member answers a client.
    fn count_foundation(&mut self, at: ClusterTime) {
        let founders = self.members.iter().count();
        (0..founders).for_each(|_| self.tree.take_index(Action::Create, at));
        self.tree.take_index(Action::Set, at);
    }

    /// `actions`: what the reference does in its store for this change, each with an index; None if none is counted.
    fn members_outcome(
        &mut self,
        result: Result<(), MemberError>,
        actions: Option<&[Action]>,
        at: ClusterTime,
    ) -> Outcome {
        if result.is_ok() {
            for action in actions.unwrap_or_default() {
                self.tree.take_index(*action, at);
            }
        }
        Outcome::Members(result)
    }

    /// How many bytes [`State::save`] would write. Takes about as long.
    pub fn saved_bytes(&self) -> u64 {
        let mut encoder = Encoder::new(self);
        let (mut bytes, mut slice) = (0, Vec::new());
        loop {
            let more = encoder.next(&mut slice);
            bytes += slice.len() as u64;
            slice.clear();
            if !more {
                return bytes;
            }
        }
    }

    /// The state as bytes, slice by slice; `save` takes them one after the other.
    ///
    /// # Errors
    /// The first one of `save`, which ends the writing.
    pub fn save<E>(&self, mut save: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut encoder = Encoder::new(self);
        let mut slice = Vec::new();
        loop {
            let more = encoder.next(&mut slice);
            save(&slice)?;
            slice.clear();
            if !more {
                return Ok(());
            }
        }
    }
}

/// Makes the bytes of one version of the state, as they are asked for.
pub struct Encoder {
    /// The version, the time and the members, until they are handed out.
    head: Vec<u8>,
    tree: tree::Encoder,
}

impl Encoder {
    /// Keeps that version of the tree until it is dropped.
    pub fn new(state: &State) -> Encoder {
        let members = serde_json::to_vec(&state.members).expect("members are plain data");
        let mut head = Vec::with_capacity(HEAD_BYTES + members.len());
        head.push(VERSION);
        head.extend_from_slice(&state.time.0.to_le_bytes());
        head.extend_from_slice(&(members.len() as u32).to_le_bytes());
        head.extend_from_slice(&members);
        Encoder {
            head,
            tree: tree::Encoder::new(state.tree.clone()),
        }
    }

    /// Appends the next slice, of about 64 KiB. False: that was all.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head);
        self.tree.next(out)
    }

    /// What the slices so far hold.
    pub fn census(&self) -> Census {
        self.tree.census()
    }
}

/// Reads a state back from the slices of a snapshot, however they are cut.
pub struct Loader {
    /// The head and the members, until they are complete.
    head: Vec<u8>,
    begun: Option<(Members, ClusterTime)>,
    tree: tree::Decoder,
}

impl Loader {
    /// `history_events`: how many past events the tree keeps for watches.
    pub fn new(history_events: usize) -> Loader {
        Loader {
            head: Vec::new(),
            begun: None,
            tree: tree::Decoder::new(history_events),
        }
    }

    /// Keeps events of at most so many bytes ([`Settings::history_bytes`](super::Settings::history_bytes)).
    pub fn limit_history(mut self, bytes: usize) -> Loader {
        self.tree.limit_history(bytes);
        self
    }

    /// Takes the next slice.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not what [`State::save`] writes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.begun.is_some() {
            return self.push_tree(bytes);
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.members_end()? else {
            return Ok(());
        };
        let rest = self.head.split_off(end);
        let members = serde_json::from_slice(&self.head[HEAD_BYTES..])
            .map_err(|error| Malformed(format!("members: {error}")))?;
        let time = u64::from_le_bytes(std::array::from_fn(|i| self.head[1 + i]));
        self.begun = Some((members, ClusterTime(time)));
        self.head = Vec::new();
        self.push_tree(&rest)
    }

    /// Ends the reading: the state as of `applied`.
    ///
    /// # Errors
    /// [`Malformed`] when bytes are missing.
    pub fn finish(self, applied: LogIndex) -> Result<State, Malformed> {
        let (members, time) = self
            .begun
            .ok_or_else(|| Malformed("the head is cut short".into()))?;
        let tree = self
            .tree
            .finish()
            .map_err(|error| Malformed(format!("tree: {error:?}")))?;
        Ok(State {
            tree,
            members,
            applied,
            time,
        })
    }

    fn push_tree(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.tree
            .push(bytes)
            .map_err(|error| Malformed(format!("tree: {error:?}")))
    }

    /// Where the members end, once that many bytes are there.
    fn members_end(&self) -> Result<Option<usize>, Malformed> {
        match self.head.first() {
            Some(&VERSION) | None => {}
            Some(other) => return Err(Malformed(format!("state version {other}, not {VERSION}"))),
        }
        let Some(length) = self.head.get(9..HEAD_BYTES) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(length.try_into().expect("a range of four")) as usize;
        let end = HEAD_BYTES + length;
        Ok((self.head.len() >= end).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::{Member, Published};
    use crate::raft::{NodeId, Position, Term};
    use std::sync::Arc;

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            client_urls: vec![format!("http://127.0.0.1:1{id}")],
        }
    }

    fn apply(state: &mut State, commands: &[Vec<u8>]) -> Vec<u64> {
        let apply = |command: &Vec<u8>| {
            let index = LogIndex(state.applied.0 + 1);
            let term = Term(1);
            state.apply(&Entry {
                position: Position { term, index },
                payload: Payload::Command(Arc::from(command.as_slice())),
            });
            state.tree.index().0
        };
        commands.iter().map(apply).collect()
    }

    fn commands() -> Vec<Vec<u8>> {
        let publish = |id, incarnation| {
            let member = member(id);
            entry::publish(&Published {
                member,
                incarnation,
            })
        };
        vec![
            publish(1, 7),
            publish(1, 7),
            publish(2, 8),
            publish(9, 9),
            entry::add(&member(3)),
            entry::update(&member(2)),
            entry::update(&member(9)),
            entry::remove(NodeId(3)),
        ]
    }

    #[test]
    fn changes_of_the_members_take_indexes_as_in_the_reference() {
        let mut state = State::new(Members::new(1, [member(1), member(2)]), 100);
        let indexes = apply(&mut state, &commands());
        assert_eq!(indexes, [4, 4, 5, 5, 6, 7, 7, 9]);
        assert_eq!(state.tree.history().first(), Some(TreeIndex(1)));
        assert_eq!(state.tree.history().len(), 9);
        let stats = state.tree.stats();
        let counted = [
            stats.create_success,
            stats.sets_success,
            stats.update_success,
            stats.delete_success,
        ];
        assert_eq!(counted, [4, 3, 1, 1]);
    }

    /// Whatever a member starts from, it counts on as the others do.
    #[test]
    fn a_snapshot_between_any_two_entries_changes_no_index() {
        let mut state = State::new(Members::new(1, [member(1), member(2)]), 100);
        let mut indexes = Vec::new();
        for command in commands() {
            let mut loader = Loader::new(100);
            let saved = state.save(|slice| loader.push(slice));
            saved.expect("its own bytes");
            state = loader.finish(state.applied).expect("its own bytes");
            indexes.extend(apply(&mut state, &[command]));
        }
        assert_eq!(indexes, [4, 4, 5, 5, 6, 7, 7, 9]);
        assert_eq!(state.tree.stats().create_success, 4);
    }

    /// A log that was written before they were counted keeps its indexes.
    #[test]
    fn an_old_log_means_what_it_meant() {
        let mut state = State::new(Members::new(1, [member(1), member(2)]), 100);
        let mut old = commands();
        // The first byte is the kind, and 64 says that it is counted.
        old.iter_mut().for_each(|command| command[0] &= !64);
        assert_eq!(apply(&mut state, &old), [0; 8]);
        assert_eq!(state.tree.stats().create_success, 0);
        assert_eq!(apply(&mut state, &[entry::add(&member(4))]), [1]);
    }

    /// A new leader whose time is behind that of the one before stamps its first entries with less.
    #[test]
    fn a_key_lives_from_the_latest_time_that_the_log_knows() {
        use crate::tree::{Action, Command, Key, Stamp, WallTime};
        const SECOND: u64 = 1_000_000_000;
        let mut state = State::new(Members::new(1, [member(1)]), 100);
        let stamped = |mut bytes: Vec<u8>, seconds: u64| {
            let cluster = ClusterTime(seconds * SECOND);
            let wall = WallTime(0);
            entry::stamp(&mut bytes, Stamp { cluster, wall });
            bytes
        };
        let lease = Command {
            ttl: Some(30),
            ..Command::new(Action::Set, Key::new(b"/lease"))
        };
        let log = [
            stamped(entry::time(), 128),
            stamped(entry::tree(&lease), 100),
            stamped(entry::expire(), 131),
        ];
        apply(&mut state, &log);
        assert!(
            state.tree.get(&Key::new(b"/lease")).is_ok(),
            "3 of 30 seconds are over"
        );
        apply(&mut state, &[stamped(entry::expire(), 159)]);
        assert!(state.tree.get(&Key::new(b"/lease")).is_err());
    }
}
