//! Consensus as a pure value (the chapter is written here).
mod core;
mod message;
mod wire;

pub use self::core::{Core, Input, Refusal, Settings, Start, StoredLog, Todo};
pub use message::{
    Ballot, Change, ChangeKind, Entry, Envelope, LogIndex, Membership, Message, NodeId, Payload,
    Position, SnapshotMark, Term,
};
pub use wire::Malformed;
