//! The acts of a person who drives a run, and when an act has an effect.

use super::clock::Pace;
use super::cluster::Cluster;
use super::nemesis::GUESTS;
use crate::raft::NodeId;

/// Number of keys that an act can name.
const KEYS: u64 = 8;
/// The longest delay of a link, in milliseconds.
const DELAY_MS_MAX: u64 = 10_000;
/// The most requests of one act.
const BURST_MAX: u64 = 100;

/// An act of the person who drives a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The power of this machine fails. All bytes that are not synced are lost.
    Crash(NodeId),
    /// The power fails in the middle of a write: any part of the bytes that are not synced is lost.
    Tear(NodeId),
    /// The process is killed. The machine continues, so no byte is lost.
    Kill(NodeId),
    /// Starts the process again from its disk.
    Restart(NodeId),
    /// Stops the process as SIGSTOP does. Everything for it waits.
    Pause(NodeId),
    /// Continues a paused process.
    Resume(NodeId),
    /// Kills the process and empties the data directory.
    Wipe(NodeId),
    /// The member receives the order to stop, as by SIGTERM.
    Stop(NodeId),
    /// Messages of the first member to the second are lost.
    Cut(NodeId, NodeId),
    /// Ends the cut and the delay in this direction.
    Heal(NodeId, NodeId),
    /// Messages in this direction take this many milliseconds longer.
    Delay(NodeId, NodeId, u64),
    /// Loses the message of this direction that would arrive first, or else the next that is sent.
    Lose(NodeId, NodeId),
    /// Duplicates that message. Only raft's messages are duplicated.
    Duplicate(NodeId, NodeId),
    /// Changes the state of a disk.
    Disk(NodeId, DiskState),
    /// The disk has room for this many bytes.
    Room(NodeId, u64),
    /// The clock of this machine runs at this speed.
    Clock(NodeId, Pace),
    /// The next sync of this member's disk fails, and the data of that sync is lost with the power.
    FailSync(NodeId),
    /// At its next start, the disk of this member has lost the last entries of its log, although it had confirmed them.
    Forget(NodeId, u64),
    /// A client asks this member to set `/kN` to a new value.
    Write(NodeId, u64),
    /// As many clients ask this member at once to set `/kN`, each to a new value.
    Burst(NodeId, u64, u64),
    /// A client asks this member to set a key of its own to a new value with a time to live of one second.
    Lease(NodeId),
    /// A client asks this member for a quorum read of `/kN`.
    Read(NodeId, u64),
    /// Asks this member to add the next new member.
    Add(NodeId),
    /// Asks the first member to remove the second.
    Remove(NodeId, NodeId),
    /// Asks the first member to give the second a new peer URL. The second has that address from its next start on.
    Move(NodeId, NodeId),
    /// Asks a leader to transfer its leadership to the second member.
    Transfer(NodeId, NodeId),
    /// A client watches all keys at this member. If it stops, the client continues at another one.
    Watch(NodeId),
    /// A process that is no member sends this member a heartbeat of a leader in a newer term.
    Intrude(NodeId),
    /// The first other member claims to this one that it was removed, which is not true.
    Accuse(NodeId),
}

/// How a disk works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// A sync takes a millisecond.
    Good,
    /// A sync takes 100 milliseconds.
    Slow,
    /// No sync ends.
    Hung,
    /// No byte more can be written.
    Full,
}

impl Cluster {
    /// Whether an act has an effect now.
    ///
    /// # Errors
    /// Why it has none.
    pub fn may(&self, act: Act) -> Result<(), String> {
        let known = |id: NodeId| match self.nodes.get(&id) {
            Some(node) => Ok(node),
            None => Err(format!("there is no member {}", id.0)),
        };
        let runs = |id: NodeId| match known(id)?.life.is_some() {
            true => Ok(()),
            false => Err(format!("n{} does not run", id.0)),
        };
        let key = |key: u64| match key < KEYS {
            true => Ok(()),
            false => Err(format!("keys are k0 to k{}, not k{key}", KEYS - 1)),
        };
        match act {
            Act::Restart(id) => {
                let node = known(id)?;
                let is_paused = node.paused_until == u64::MAX;
                match (node.life.is_some(), node.retired) {
                    (true, _) if is_paused => Err(format!("n{} is paused: resume it", id.0)),
                    (true, _) => Err(format!("n{} runs already", id.0)),
                    (_, true) => Err(format!("n{} was removed, or has lost its data", id.0)),
                    _ => Ok(()),
                }
            }
            Act::Wipe(id) => known(id).map(drop),
            Act::Crash(id)
            | Act::Tear(id)
            | Act::Kill(id)
            | Act::Pause(id)
            | Act::Watch(id)
            | Act::Intrude(id) => runs(id),
            Act::Accuse(id) if self.members_known_by(id).len() < 3 => {
                Err(format!("n{} would believe the only other member", id.0))
            }
            Act::Accuse(id) => runs(id),
            Act::Room(id, _) | Act::Clock(id, _) => known(id).map(drop),
            Act::FailSync(id) | Act::Forget(id, _) | Act::Lease(id) => known(id).map(drop),
            Act::Burst(id, name, 1..=BURST_MAX) => known(id).and(key(name)),
            Act::Burst(_, _, count) => Err(format!("{count} requests are not 1 to {BURST_MAX}")),
            Act::Move(id, moves) => known(moves).and(runs(id)),
            Act::Resume(id) if known(id)?.paused_until != u64::MAX => {
                Err(format!("n{} is not paused", id.0))
            }
            Act::Resume(id) | Act::Stop(id) | Act::Transfer(id, _) => runs(id),
            Act::Disk(id, _) => known(id).map(drop),
            Act::Write(id, name) | Act::Read(id, name) => known(id).and(key(name)),
            Act::Add(id) if self.next_node > self.settings.nodes + GUESTS => {
                Err(format!("n{} cannot add more than {GUESTS}", id.0))
            }
            Act::Add(id) => runs(id),
            Act::Remove(id, out) => known(out).and(runs(id)),
            Act::Delay(_, _, ms) if ms > DELAY_MS_MAX => {
                Err(format!("{ms} ms is more than {DELAY_MS_MAX}"))
            }
            Act::Cut(from, to)
            | Act::Heal(from, to)
            | Act::Delay(from, to, _)
            | Act::Lose(from, to)
            | Act::Duplicate(from, to) => match from == to {
                true => Err(format!("n{} has no link to itself", from.0)),
                false => known(from).and(known(to)).map(drop),
            },
        }
    }

    /// The members that a running member knows, by number.
    pub(super) fn members_known_by(&self, id: NodeId) -> Vec<NodeId> {
        let life = self.nodes.get(&id).and_then(|node| node.life.as_ref());
        let members = life.map(|life| &life.engine.state().members);
        let ids = members.into_iter().flat_map(|members| members.iter());
        ids.map(|member| NodeId(member.id)).collect()
    }
}
