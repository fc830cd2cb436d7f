//! The state machine: the result of the committed log.
//!
//! Applying is deterministic. The outcome depends only on the entries, not on a clock or on random numbers. So all
//! members have the same state at the same index. A snapshot is this state at one index.
//!
//! # What the tree's index counts in addition to key changes
//!
//! Membership changes take indexes, and places in the history, as in the reference:
//!
//! | change | indexes |
//! |---|---|
//! | the cluster is founded | one for each founder, one for the version of the cluster |
//! | a member publishes a new name or new client URLs | 1 |
//! | a member is added | 1 |
//! | a member gets other peer URLs, or the same again | 1 |
//! | a member is removed | 2 |
//! | a learner is promoted, a change is refused, a member publishes known values | 0 |
//!
//! Changes of users and roles take indexes too ([`auth::change`]).
//!
//! So the first key has index 4 in a cluster of one, and 8 in a cluster of three. An entry of an earlier version of
//! this program takes no index ([`entry::is_counted`]).
//!
//! # Encoding of the state in a snapshot
//!
//! | size | field |
//! |---:|---|
//! | 1 | version: 1, or 2 if there are users or roles |
//! | 8 | cluster time of the last entry, little-endian |
//! | 4 | length of the members' JSON |
//! | n | the members |
//! | 4 | only in version 2: length of the JSON of users and roles |
//! | n | only in version 2: users and roles ([`auth::Store`]) |
//! | rest | the tree ([`tree::Encoder`]) |
//!
//! A state without users and roles has version 1, which earlier versions of this program read too.

use super::entry::{self, Command, Malformed};
use super::members::{MemberError, Members};
use super::plausible;
use crate::auth;
use crate::raft::{ChangeKind, Entry, LogIndex, Payload};
use crate::tree::{self, Action, ApiError, Applied, Census, ClusterTime, Tree, TreeIndex};
use std::sync::Arc;

const VERSION: u8 = 1;

/// With users and roles.
const VERSION_AUTH: u8 = 2;

/// Version and time.
const HEAD_BYTES: usize = 9;

/// Largest table of members that is read, in bytes. A table of 4,000 members has less than 1 MiB.
const MEMBERS_BYTES_MAX: usize = 16 << 20;

/// The same for users and roles: more than 100,000 users.
const AUTH_BYTES_MAX: usize = 64 << 20;

/// The state machine at [`State::applied`]. A clone is cheap and keeps its content.
#[derive(Clone)]
pub struct State {
    /// The keys, and the events that watches may still request.
    pub tree: Tree,
    /// The table that the members API shows. Only raft's own membership decides who votes.
    pub members: Members,
    /// Users and roles.
    pub auth: Arc<auth::Store>,
    /// The last applied entry; 0 before the first.
    pub applied: LogIndex,
    /// Cluster time of the last stamped entry.
    pub time: ClusterTime,
}

/// The outcome of one entry.
pub enum Outcome {
    /// A client's write, which may have been refused. The same on every member.
    Tree(Result<Applied, ApiError>),
    /// The nodes that expired, in order; may be empty.
    Expired {
        /// One event for each node.
        all: Vec<Applied>,
        /// Whether the limit of the entry was reached, so that more nodes may be due.
        is_cut: bool,
    },
    /// A change of the member table, which may have been refused. The same on every member.
    Members(Result<(), MemberError>),
    /// A change of users and roles, which may have been refused. The same on every member.
    Auth(Result<auth::Changed, auth::Refusal>),
    /// No effect that a client can see.
    Quiet,
}

impl State {
    /// The state before the first entry.
    pub fn new(members: Members, history_events: usize) -> State {
        State {
            tree: Tree::new(history_events),
            members,
            auth: Arc::default(),
            applied: LogIndex(0),
            time: ClusterTime(0),
        }
    }

    /// Applies the next committed entry.
    ///
    /// # Panics
    /// If an entry was skipped, or has content that no version of this program writes. If this member continued, it
    /// would differ from the others.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        self.try_apply(entry).unwrap_or_else(|Malformed(what)| {
            let index = entry.position.index.0;
            panic!("the committed entry {index} cannot be read: {what}")
        })
    }

    /// Like [`State::apply`], for callers that only read a log which another version may have written.
    ///
    /// # Errors
    /// [`Malformed`] if the entry has content that no known version writes. The state cannot be used after that.
    ///
    /// # Panics
    /// If an entry was skipped.
    pub fn try_apply(&mut self, entry: &Entry) -> Result<Outcome, Malformed> {
        let index = entry.position.index;
        assert_eq!(
            index.0,
            self.applied.0 + 1,
            "entries are applied one after the other"
        );
        self.applied = index;
        match &entry.payload {
            Payload::Command(bytes) => self.command(bytes),
            // The leader promotes learners automatically. Only raft's own membership changes.
            Payload::Change(change) if change.kind == ChangeKind::Promote => Ok(Outcome::Quiet),
            Payload::Change(change) => self.command(&change.context),
            Payload::Noop => Ok(Outcome::Quiet),
        }
    }

    fn command(&mut self, bytes: &[u8]) -> Result<Outcome, Malformed> {
        let (mut stamp, command) = entry::decode(bytes)?;
        let (asked, before) = (stamp.cluster, self.time);
        self.time = self.time.max(stamp.cluster);
        assert!(
            self.time >= before,
            "cluster time {before:?} went back to {:?}",
            self.time
        );
        // A new leader may stamp an entry with an earlier time than its predecessor. A time to live counts from the
        // latest time in the log. Otherwise the key would expire early by the difference.
        stamp.cluster = self.time;
        let counted = entry::is_counted(bytes);
        Ok(match command {
            Command::Tree(command) => Outcome::Tree(self.tree.apply(&command, stamp)),
            Command::Expire(most) => {
                let all = self.tree.expire_some(asked, most);
                Outcome::Expired {
                    is_cut: all.len() == most,
                    all,
                }
            }
            Command::Publish(published) => {
                let founds = self.tree.index() == TreeIndex(0) && !self.members.any_published();
                let is_new = self.members.publish(published);
                let counted = counted && is_new;
                if counted && founds {
                    self.count_foundation(stamp.cluster);
                }
                self.members_outcome(Ok(()), counted.then_some(&[Action::Set]), stamp.cluster)
            }
            Command::Update(member) => {
                let updated = self.members.update(&member);
                self.members_outcome(updated, counted.then_some(&[Action::Update]), stamp.cluster)
            }
            Command::Add(member) => {
                self.members.add(member);
                self.members_outcome(Ok(()), counted.then_some(&[Action::Create]), stamp.cluster)
            }
            Command::Remove(id) => {
                self.members.remove(id);
                // The reference deletes the member, and records that its id must never be used again.
                let actions = [Action::Delete, Action::Create];
                self.members_outcome(Ok(()), counted.then_some(&actions), stamp.cluster)
            }
            Command::Auth(change) => Outcome::Auth(self.change_auth(change, stamp.cluster)),
            Command::Time | Command::NextFormat => Outcome::Quiet,
        })
    }

    /// The reference keeps users and roles in a hidden part of its store, where each write takes an index.
    fn change_auth(
        &mut self,
        change: auth::Change,
        at: ClusterTime,
    ) -> Result<auth::Changed, auth::Refusal> {
        let outcome = Arc::make_mut(&mut self.auth).apply(change);
        for write in outcome.writes {
            match write {
                auth::StoreWrite::Create(true) => self.tree.take_index(Action::Create, at),
                auth::StoreWrite::Update => self.tree.take_index(Action::Update, at),
                auth::StoreWrite::Delete(true) => self.tree.take_index(Action::Delete, at),
                auth::StoreWrite::Create(false) => self.tree.count_refusal(Action::Create),
                auth::StoreWrite::Delete(false) => self.tree.count_refusal(Action::Delete),
            }
        }
        outcome.result
    }

    /// In the reference, each founder takes an index, and so does the first cluster version. Here these indexes are
    /// taken when the first member publishes itself. Before that, no member answers a client.
    fn count_foundation(&mut self, at: ClusterTime) {
        let founders = self.members.iter().count();
        (0..founders).for_each(|_| self.tree.take_index(Action::Create, at));
        self.tree.take_index(Action::Set, at);
    }

    /// `actions`: the reference's store operations for this change. Each takes an index. `None` if the entry takes
    /// none.
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

    /// The number of bytes that [`State::save`] would write. Takes about as long as `save`.
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

    /// Encodes the state in slices, and passes each to `save`.
    ///
    /// # Errors
    /// The first error of `save`, which ends the encoding.
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

/// Encodes one version of the state on request, slice by slice.
pub struct Encoder {
    /// Version, time and members, until they are returned.
    head: Vec<u8>,
    tree: tree::Encoder,
}

impl Encoder {
    /// Keeps this version of the tree alive until the encoder is dropped.
    pub fn new(state: &State) -> Encoder {
        let has_auth = !state.auth.is_unused();
        let mut head = vec![if has_auth { VERSION_AUTH } else { VERSION }];
        head.extend_from_slice(&state.time.0.to_le_bytes());
        push_json(&mut head, &state.members);
        if has_auth {
            push_json(&mut head, &*state.auth);
        }
        Encoder {
            head,
            tree: tree::Encoder::new(state.tree.clone()),
        }
    }

    /// Appends the next slice, of about 64 KiB. Returns false after the last one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.head);
        self.tree.next(out)
    }

    /// Numbers of keys and directories in the slices so far.
    pub fn census(&self) -> Census {
        self.tree.census()
    }
}

/// Appends the length of the JSON text, and the text.
fn push_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    let text = serde_json::to_vec(value).expect("members and users are plain data");
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(&text);
}

/// Decodes a state from the slices of a snapshot, wherever the slices are cut.
pub struct Loader {
    /// The part before the tree, until it is complete.
    head: Vec<u8>,
    begun: Option<Head>,
    tree: tree::Decoder,
}

/// The part of a state before the tree.
struct Head {
    time: ClusterTime,
    members: Members,
    auth: auth::Store,
}

impl Head {
    /// Reads it, and returns its length. `None` if bytes are missing.
    fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
        let version = match bytes.first() {
            None => return Ok(None),
            Some(&version @ (VERSION | VERSION_AUTH)) => version,
            Some(other) => {
                return Err(Malformed(format!(
                    "state version {other}, and this edgetcd {} reads versions up to {VERSION_AUTH}",
                    env!("CARGO_PKG_VERSION")
                )));
            }
        };
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let time = u64::from_le_bytes(std::array::from_fn(|i| head[1 + i]));
        let Some((members, rest)) = section(rest, MEMBERS_BYTES_MAX, "members")? else {
            return Ok(None);
        };
        let (auth, rest) = match version {
            VERSION => (auth::Store::default(), rest),
            _ => match section(rest, AUTH_BYTES_MAX, "users and roles")? {
                Some(section) => section,
                None => return Ok(None),
            },
        };
        let head = Head {
            time: ClusterTime(time),
            members,
            auth,
        };
        Ok(Some((head, bytes.len() - rest.len())))
    }
}

/// Reads what [`push_json`] has written, and returns the bytes after it. `None` if bytes are missing. The length is not
/// believed before it is known to be one that the value can have.
fn section<'a, T: serde::de::DeserializeOwned>(
    bytes: &'a [u8],
    bytes_max: usize,
    what: &str,
) -> Result<Option<(T, &'a [u8])>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > bytes_max {
        return Err(Malformed(format!("the {what} have {length} bytes")));
    }
    let Some((text, rest)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    let value = serde_json::from_slice(text);
    let value = value.map_err(|error| Malformed(format!("{what}: {error}")))?;
    Ok(Some((value, rest)))
}

impl Loader {
    /// `history_events`: the number of past events that the tree keeps for watches.
    pub fn new(history_events: usize) -> Loader {
        Loader {
            head: Vec::new(),
            begun: None,
            tree: tree::Decoder::new(history_events),
        }
    }

    /// Keeps events of at most this many bytes ([`Settings::history_bytes`](super::Settings::history_bytes)).
    pub fn limit_history(mut self, bytes: usize) -> Loader {
        self.tree.limit_history(bytes);
        self
    }

    /// Processes the next slice.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not the output of [`State::save`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.begun.is_some() {
            return self.push_tree(bytes);
        }
        self.head.extend_from_slice(bytes);
        let Some((head, length)) = Head::read(&self.head)? else {
            return Ok(());
        };
        let rest = self.head.split_off(length);
        self.begun = Some(head);
        self.head = Vec::new();
        self.push_tree(&rest)
    }

    /// Ends the decoding and returns the state as of `applied`.
    ///
    /// # Errors
    /// [`Malformed`] if bytes are missing.
    pub fn finish(self, applied: LogIndex) -> Result<State, Malformed> {
        let Head {
            time,
            members,
            auth,
        } = self
            .begun
            .ok_or_else(|| Malformed("the head is cut short".into()))?;
        let latest = self.tree.latest_deadline();
        let tree = self
            .tree
            .finish()
            .map_err(|error| Malformed(format!("tree: {error:?}")))?;
        plausible::check_deadline(time, latest)?;
        Ok(State {
            tree,
            members,
            auth: Arc::new(auth),
            applied,
            time,
        })
    }

    fn push_tree(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.tree
            .push(bytes)
            .map_err(|error| Malformed(format!("tree: {error:?}")))
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

    /// A member that starts from a snapshot assigns the same indexes as the others.
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

    /// The indexes are those of the reference for the same requests.
    #[test]
    fn users_and_roles_take_indexes_and_are_in_snapshots() {
        let mut state = State::new(Members::new(1, [member(1)]), 100);
        apply(&mut state, &commands()[..1]);
        let first = state.save(|slice| Err(slice[0]));
        assert_eq!(first, Err(VERSION), "earlier programs can read it");

        let hash = || Some(auth::Hash("$2a$10$x".into()));
        let user = |name: &str| auth::Change::PutUser {
            name: name.into(),
            hash: hash(),
            roles: None,
        };
        let change = |change| entry::auth(&change);
        let changes = [
            change(auth::Change::DeleteRole("none".into())),
            change(user("root")),
            change(auth::Change::Enable),
            change(auth::Change::Enable),
            change(user("a")),
        ];
        assert_eq!(apply(&mut state, &changes), [7, 8, 10, 10, 11]);
        let stats = state.tree.stats();
        assert_eq!((stats.create_success, stats.delete_fail), (8, 1));

        let mut loader = Loader::new(100);
        // Slices may be cut anywhere.
        state
            .save(|slice| slice.iter().try_for_each(|byte| loader.push(&[*byte])))
            .expect("its own bytes");
        let loaded = loader.finish(state.applied).expect("its own bytes");
        assert_eq!(*loaded.auth, *state.auth);
        assert!(loaded.auth.is_enabled() && loaded.auth.user("a").is_some());
    }

    /// A log that was written before membership changes took indexes keeps its indexes.
    #[test]
    fn an_old_log_means_what_it_meant() {
        let mut state = State::new(Members::new(1, [member(1), member(2)]), 100);
        let mut old = commands();
        // The first byte is the kind; 64 marks an entry that takes an index.
        old.iter_mut().for_each(|command| command[0] &= !64);
        assert_eq!(apply(&mut state, &old), [0; 8]);
        assert_eq!(state.tree.stats().create_success, 0);
        assert_eq!(apply(&mut state, &[entry::add(&member(4))]), [1]);
    }

    /// A new leader whose time is behind its predecessor's stamps its first entries with an earlier time.
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

    /// The length is not believed before it is known to be one that members can have.
    #[test]
    fn no_length_of_the_members_takes_memory() {
        let mut head = vec![VERSION];
        head.extend([0; 8]);
        head.extend(u32::MAX.to_le_bytes());
        assert!(Loader::new(10).push(&head).is_err());
        let mut head = vec![VERSION_AUTH];
        head.extend([0; 8]);
        push_json(&mut head, &Members::new(1, [member(1)]));
        head.extend(u32::MAX.to_le_bytes());
        assert!(Loader::new(10).push(&head).is_err());
    }
}
