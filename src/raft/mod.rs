//! Consensus as a pure value (the chapter is written here).
mod core;
mod election;
mod follower;
pub mod invariants;
mod log;
mod membership;
mod message;
mod random;
mod read_index;
mod replication;
mod rules;
mod snapshot;
mod transfer;
mod wire;

pub use self::core::{Core, Input, Refusal, Role, Settings, Start, StoredLog, Todo};
pub use message::{
    Ballot, Body, Change, ChangeKind, Entry, Envelope, LogIndex, Membership, Message, NodeId,
    Payload, Position, SnapshotMark, Term,
};
pub use replication::{PeerFlow, PeerProgress};
pub use rules::{AllRules, Rules};
pub use wire::Malformed;
