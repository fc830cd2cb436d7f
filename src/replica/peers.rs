//! The raft thread's interface to the other members: the messages it sends, and the events it receives.
//!
//! The module that transports the messages (`peer`) is in a higher layer and implements [`Peers`]. No function here
//! waits: if a queue is full, the message is dropped, and raft sends again.

use crate::engine::members::Members;
use crate::engine::peer_message::PeerMessage;
use crate::engine::state::State;
use crate::raft::{NodeId, Position, SnapshotMetadata, Term};
use crate::wal::WalError;
use crossbeam_channel::Sender;

/// Sends to the other members. Called on the raft thread and the WAL thread, so it must not wait.
pub trait Peers: Send + Sync + 'static {
    /// Sends messages, in order for each receiver. They are dropped if a queue is full or the member is unreachable. A
    /// dropped forward is reported by [`FromPeers::Unsent`], the loss of any other message by
    /// [`FromPeers::Unreachable`].
    fn send(&self, messages: Vec<(NodeId, PeerMessage)>);

    /// Streams this member's newest snapshot to `to`, with the leader's `term`. Always ends in one
    /// [`FromPeers::SnapshotSent`]. One at a time for each member.
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
pub enum FromPeers {
    /// Peer messages from one member, in order.
    Messages {
        /// The sender. The transport has checked that it is a member of this cluster, with the incarnation that is
        /// published.
        from: NodeId,
        /// All messages that arrived together.
        messages: Vec<PeerMessage>,
    },
    /// None of the bytes of these requests to a leader (commands, membership changes, read indexes) reached a
    /// connection. The values are their numbers.
    Unsent(Vec<u64>),
    /// Raft messages to this member were dropped, or its connection broke.
    Unreachable(NodeId),
    /// The member's process no longer exists: its connection ended, and its machine refused a new one.
    Gone(NodeId),
    /// A complete snapshot has arrived. It was read, and is synced under a temporary name.
    Snapshot(Box<Received>),
    /// The snapshot for `to` was installed there, or not.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The snapshot's position; `None` if it was not sent or not used.
        installed: Option<Position>,
    },
    /// This member's newest snapshot could not be read and was set aside. None can be sent.
    SnapshotUnreadable,
    /// The newest format of commands that a member understands, as it said when it connected.
    Understands {
        /// The member.
        member: NodeId,
        /// See [`crate::engine::entry`].
        format: u16,
    },
    /// A member reports that this one was removed from the cluster.
    Removed {
        /// The member whose address was dialled.
        by: NodeId,
    },
}

/// A snapshot that another member has sent.
pub struct Received {
    /// The sender: the leader of `term`.
    pub from: NodeId,
    /// The term that the sender stated.
    pub term: Term,
    /// The snapshot's metadata.
    pub metadata: SnapshotMetadata,
    /// The snapshot's content.
    pub state: State,
    /// Bytes of that content in the file.
    pub bytes: u64,
    /// Gives the file its final name, and syncs. If it is dropped without a call, the file is removed.
    pub finish: Box<dyn FnOnce() -> Result<(), WalError> + Send>,
    /// Receives the position when the snapshot is installed. Dropped if it is not used.
    pub installed: Sender<Position>,
}
