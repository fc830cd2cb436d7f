//! Where the raft thread meets the other members: what it hands out, and what it is told.
//!
//! The room that carries letters (`peer`) lies above this one and implements [`Peers`]. Nothing here waits:
//! what a queue has no room for is dropped, and raft sends again.

use crate::engine::letter::Letter;
use crate::engine::members::Members;
use crate::engine::state::State;
use crate::raft::{NodeId, Position, SnapshotMark, Term};
use crate::wal::WalError;
use crossbeam_channel::Sender;

/// The way to the other members. Called on the raft and the log thread: must not wait for anybody.
pub trait Peers: Send + Sync + 'static {
    /// Takes letters, in order for each receiver. Full queues and members out of reach drop them; a
    /// dropped forward is told by [`FromPeers::Unsent`], the loss of anything else by
    /// [`FromPeers::Unreachable`].
    fn send(&self, letters: Vec<(NodeId, Letter)>);

    /// Streams this member's newest snapshot to `to`, in the name of the leader of `term`. Always ends in one
    /// [`FromPeers::SnapshotSent`]. One at a time for each member.
    fn send_snapshot(&self, to: NodeId, term: Term);

    /// Closes the connection from a member: what came by it contradicts the protocol. It may come again.
    fn cut(&self, from: NodeId);

    /// The members have changed: links to new ones begin, those to others end.
    fn set_members(&self, members: &Members);
}

/// A cluster of one has nobody to talk to.
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&self, _letters: Vec<(NodeId, Letter)>) {}
    fn send_snapshot(&self, _to: NodeId, _term: Term) {}
    fn cut(&self, _from: NodeId) {}
    fn set_members(&self, _members: &Members) {}
}

/// What the raft thread is told of the other members. The channel is bounded: whoever reads from a socket
/// waits for room in it, and so does the other end of that socket.
pub enum FromPeers {
    /// What one member said, in order.
    Letters {
        /// Checked to be a member of this cluster, with the incarnation that it is known by.
        from: NodeId,
        /// As many as came at once.
        letters: Vec<Letter>,
    },
    /// What was asked of a leader under these numbers (orders, changes, indexes of reads) was never handed to a
    /// connection.
    Unsent(Vec<u64>),
    /// Raft's letters to this member were dropped, or its connection broke.
    Unreachable(NodeId),
    /// Its process is gone: the connection ended, and a new one was refused by its machine.
    Gone(NodeId),
    /// A snapshot has come whole, is read and synced under a temporary name.
    Snapshot(Box<Received>),
    /// The snapshot sent to `to` was installed there, or not.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The snapshot's position; None: it was not sent, or not used.
        installed: Option<Position>,
    },
    /// This member's newest snapshot cannot be read back, and was set aside: there is none to send.
    SnapshotUnreadable,
    /// A member says that this one was removed from the cluster.
    Removed {
        /// The member, as it was dialled.
        by: NodeId,
    },
}

/// A snapshot that another member has sent.
pub struct Received {
    /// Who sent it: the leader of `term`.
    pub from: NodeId,
    /// As the sender said.
    pub term: Term,
    /// What it stands for.
    pub mark: SnapshotMark,
    /// What it holds.
    pub state: State,
    /// Bytes of that state in the file.
    pub bytes: u64,
    /// Gives the file its final name, durably. Dropped uncalled, it removes the file.
    pub finish: Box<dyn FnOnce() -> Result<(), WalError> + Send>,
    /// Told once it is installed; dropped if it is not used.
    pub installed: Sender<Position>,
}
