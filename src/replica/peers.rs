//! The raft thread's interface to the other members: the messages it sends, and the events it receives.
//!
//! The module that transports the messages (`peer`) is in a higher layer and implements [`Peers`]. No function here
//! waits: if a queue is full, the message is dropped, and raft sends again.

use crate::engine::members::Members;
use crate::engine::peer_message::PeerMessage;
use crate::engine::{Incoming, PeerEvent};
use crate::raft::{NodeId, Position, Term};
use crate::storage::jobs::Finish;
use crossbeam_channel::Sender;

/// Sends to the other members. Called on the raft thread and the WAL thread, so it must not wait.
pub trait Peers: Send + Sync + 'static {
    /// Sends messages, in order for each receiver. They are dropped if a queue is full or the member is unreachable. A
    /// dropped forward is reported by [`PeerEvent::Unsent`], the loss of any other message by
    /// [`PeerEvent::Unreachable`].
    fn send(&self, messages: Vec<(NodeId, PeerMessage)>);

    /// Streams this member's newest snapshot to `to`, with the leader's `term`. Always ends in one
    /// [`PeerEvent::SnapshotSent`]. One at a time for each member.
    fn send_snapshot(&self, to: NodeId, term: Term);

    /// Closes the connection from a member, because its messages contradict the protocol. The member may connect again.
    fn cut(&self, from: NodeId);

    /// The member table has changed: connections to new members begin, and those to removed members end.
    fn set_members(&self, members: &Members);
}

/// For a cluster of one.
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&self, _messages: Vec<(NodeId, PeerMessage)>) {}
    fn send_snapshot(&self, _to: NodeId, _term: Term) {}
    fn cut(&self, _from: NodeId) {}
    fn set_members(&self, _members: &Members) {}
}

/// Events of the other members for the raft thread. The channel is bounded: a thread that reads from a socket waits for
/// space in it, and then the sender at the other end of the socket waits too.
pub type FromPeers = PeerEvent<Received>;

/// A snapshot that another member has sent. It was read, and is synced under a temporary name.
pub struct Received {
    /// What the engine gets.
    pub incoming: Incoming,
    /// Gives the file its final name, and syncs. If it is dropped without a call, the file is removed.
    pub finish: Finish,
    /// Receives the position when the snapshot is installed. Dropped if it is not used.
    pub installed: Sender<Position>,
}
