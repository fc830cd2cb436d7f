//! Clients: each performs one operation after the other, and records the results.
//!
//! A client chooses a node at random, and stays with it while requests succeed. After a timeout, the outcome of its
//! write is unknown. If a node refuses a request before it has processed it, the client sends that request to another
//! node. It repeats no other request.

use super::fault_profile::{Adversary, FaultProfile, Kind};
use super::linear::{Action, Condition, Operation, Outcome};
use crate::engine::request::Failure;
use crate::raft::NodeId;
use crate::random::Random;
use crate::tree;
use std::collections::BTreeMap;

/// A request of a client. Each value is the number of its operation, so no two writes have the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A quorum read of a key.
    Read(u64),
    /// PUT.
    Set(u64),
    /// PUT with `prevExist=false`.
    Create(u64),
    /// PUT with `prevValue`.
    Swap(u64, u64),
    /// PUT with `prevIndex`: the index, and the value that was seen to have it.
    SwapIndex(u64, u64, u64),
    /// DELETE.
    Delete(u64),
    /// POST to the queue.
    Post,
    /// PUT to the client's own key, with a TTL in seconds.
    Lease(u64, u64),
    /// A quorum read of the client's own key.
    ReadLease(u64),
}

impl Ask {
    pub(super) fn key(&self) -> tree::Key {
        let path = match self {
            Ask::Read(key)
            | Ask::Set(key)
            | Ask::Create(key)
            | Ask::Swap(key, _)
            | Ask::SwapIndex(key, ..)
            | Ask::Delete(key) => format!("/k{key}"),
            Ask::Post => "/queue".to_string(),
            Ask::Lease(key, _) | Ask::ReadLease(key) => format!("/lease/{key}"),
        };
        tree::Key::new(path.as_bytes())
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self, Ask::Read(_) | Ask::ReadLease(_))
    }

    /// The write as a command for the tree.
    pub(super) fn command(&self, number: u64) -> tree::Command {
        let action = match self {
            Ask::Set(_) | Ask::Lease(..) | Ask::Read(_) | Ask::ReadLease(_) => tree::Action::Set,
            Ask::Create(_) => tree::Action::Create,
            Ask::Swap(..) | Ask::SwapIndex(..) => tree::Action::CompareAndSwap,
            Ask::Delete(_) => tree::Action::Delete,
            Ask::Post => tree::Action::CreateInOrder,
        };
        let mut command = tree::Command::new(action, self.key());
        command.value = number.to_string().as_str().into();
        match self {
            Ask::Swap(_, value) => command.prev_value = Some(value.to_string().as_str().into()),
            Ask::SwapIndex(_, index, _) => command.prev_index = Some(*index),
            Ask::Lease(_, ttl) => command.ttl = Some(*ttl),
            _ => {}
        }
        command
    }

    /// The operation for the history checker. None: the checker ignores it.
    fn action(&self, number: u64) -> Option<(u64, Action<u64>)> {
        let write = |condition| Action::Write {
            condition,
            value: Some(number),
        };
        Some(match self {
            Ask::Read(key) => (*key, Action::Read),
            Ask::Set(key) => (*key, write(Condition::Any)),
            Ask::Create(key) => (*key, write(Condition::Absent)),
            Ask::Swap(key, value) | Ask::SwapIndex(key, _, value) => {
                (*key, write(Condition::Is(*value)))
            }
            Ask::Delete(key) => (*key, Action::delete()),
            Ask::Post | Ask::Lease(..) | Ask::ReadLease(_) => return None,
        })
    }
}

/// The reply of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The write happened: the value before, and the index.
    Done(Option<u64>, u64),
    /// The write's condition did not hold.
    Refused,
    /// The result of a read: the value and its index.
    Found(Option<(u64, u64)>),
    /// The node did not take the request. The client may ask another node.
    NotTaken,
    /// No result. A write may have taken effect, or may still take effect.
    Failed(Failure),
}

/// One operation of a client.
#[derive(Debug, Clone)]
pub struct Op {
    /// Its client.
    pub client: u64,
    /// The request.
    pub ask: Ask,
    /// When the client first sent it.
    pub called: u64,
    /// When the client received the reply, or stopped waiting.
    pub returned: Option<u64>,
    /// None: the outcome is unknown.
    pub answer: Option<Answer>,
    /// Whether some node may have appended it.
    pub maybe: bool,
}

impl Op {
    /// The operation for the history checker. None if the checker ignores it, or if it certainly had no effect.
    pub(super) fn as_operation(&self, number: u64) -> Option<Operation<u64, u64>> {
        let (key, action) = self.ask.action(number)?;
        let outcome = match &self.answer {
            Some(Answer::Done(before, _)) => Outcome::Replaced(*before),
            Some(Answer::Refused) => Outcome::Refused,
            Some(Answer::Found(found)) => Outcome::Found(found.map(|(value, _)| value)),
            Some(Answer::NotTaken) => return None,
            None | Some(Answer::Failed(_)) if self.maybe && action != Action::Read => {
                Outcome::Unknown
            }
            None | Some(Answer::Failed(_)) => return None,
        };
        Some(Operation {
            client: self.client,
            key,
            called: self.called,
            returned: self.returned.unwrap_or(u64::MAX),
            action,
            outcome,
        })
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub id: u64,
    /// The node to which it sends requests, as long as that node replies.
    pub stays_with: Option<NodeId>,
    /// The number of the operation in progress.
    pub busy: Option<u64>,
    /// The last value and index that it saw of each key.
    seen: BTreeMap<u64, (u64, u64)>,
    /// Its own key with a TTL. It uses another key after each write of unknown outcome.
    pub lease: u64,
    /// Operations that were answered since all faults ended.
    pub served: u64,
}

impl Client {
    pub fn new(id: u64) -> Client {
        Client {
            id,
            stays_with: None,
            busy: None,
            seen: BTreeMap::new(),
            lease: id * 1000,
            served: 0,
        }
    }

    /// Chooses the next operation.
    pub fn next(&self, profile: &FaultProfile, random: &mut Random) -> Ask {
        if profile.kind == Kind::TimesToLive && random.one_in(2) {
            return match random.one_in(2) {
                true => Ask::Lease(self.lease, random.within((2, 3))),
                false => Ask::ReadLease(self.lease),
            };
        }
        let key = random.below(profile.keys);
        // Many operations time out here, and conditional writes of unknown outcome make a history expensive to check.
        if profile.kind == Kind::Adversary(Adversary::Sleeper) {
            return match random.one_in(3) {
                true => Ask::Set(key),
                false => Ask::Read(key),
            };
        }
        let seen = self.seen.get(&key).copied();
        // Mostly writes, because a leader that transfers its leadership must not accept them.
        if matches!(profile.kind, Kind::Handovers(_)) {
            return match random.below(20) {
                0..=11 => Ask::Set(key),
                12 => Ask::Post,
                _ => Ask::Read(key),
            };
        }
        match (random.below(20), seen) {
            (0..=6, _) => Ask::Read(key),
            (7..=9, _) => Ask::Set(key),
            (10, _) => Ask::Delete(key),
            (11 | 12, Some((value, _))) => Ask::Swap(key, value),
            (13, Some((value, index))) => Ask::SwapIndex(key, index, value),
            (14 | 15, _) => Ask::Post,
            (16, _) => Ask::Lease(self.lease, random.within((2, 5))),
            (17, _) => Ask::ReadLease(self.lease),
            _ => Ask::Create(key),
        }
    }

    /// Records that the outcome of the operation is unknown.
    pub fn fails(&mut self, ask: &Ask) {
        self.stays_with = None;
        if matches!(ask, Ask::Lease(..)) {
            self.lease += 1;
        }
    }

    /// Updates the known values and indexes from a reply.
    pub fn learn(&mut self, number: u64, ask: &Ask, answer: &Answer) {
        match (ask, answer) {
            (Ask::Read(key), Answer::Found(Some(found))) => {
                self.seen.insert(*key, *found);
            }
            (Ask::Set(key) | Ask::Create(key), Answer::Done(_, index)) => {
                self.seen.insert(*key, (number, *index));
            }
            _ => {}
        }
    }
}
