//! Backups: a state out of a file, or out of the directory of a member that does not serve, and into the
//! directory of a member of a new cluster. All of it offline; what a running node hands out is the business
//! of the HTTP room.
//!
//! # A new cluster, and why
//!
//! What is restored is never the old cluster going on: writes after the backup are lost, and members that
//! still have them must not mix theirs with ours. So ids are new. Members are given the ids that their peer
//! URLs and the token give on a first start, but with the fingerprint of the file and the leap of the index behind
//! the token: all members that are restored from one file with the same flags agree on all ids without asking each
//! other, and a member of the old cluster that was not wiped, whose log would fit, is a member of another cluster.
//! So is a member that was restored with another leap: it would give the same changes other indexes.
//! (Restored twice from the same file with the same flags, two clusters have the same ids: between the two,
//! all members must be wiped, or the token changed.) Each directory draws an incarnation as on a first start,
//! so that one member that is restored a second time, beside others that went on, is refused by them like any
//! that lost its data (hazard D12).
//!
//! # What goes on, and what does not
//!
//! | | in the new cluster |
//! |---|---|
//! | keys, values, directories, their indexes, counters | the same |
//! | the tree's index | goes on after a leap, so that indexes the lost cluster has given out since are old |
//! | events kept for `waitIndex` | forgotten: each watch from an older index gets 401, none waits in silence |
//! | the raft index and term | go on from those of the backup |
//! | members | the founders by the flags; client URLs and names are told at their start |
//! | times to live | see below |
//!
//! # Times to live
//!
//! Keys expire by cluster time, which nobody counts while the state lies in a file. What users see is the
//! wall clock's `expiration`, and they rely on that. So a restored member begins with the cluster time that
//! belongs to the wall clock now. How the two stand, each key with a time to live says: its deadline is
//! cluster time, its `expiration` the wall clock, and both were noted at once. As long as the leaders' clocks
//! were right, all say the same, and keys expire at the `expiration` that is shown: those of which it is past,
//! soon after the start.
//!
//! Clocks of small machines are not always right, and a key too long is better than a key lost. So it is the
//! least of all these times that counts, and no key goes before its `expiration`, whatever the clock was when
//! another was set:
//!
//! | the wall clock was | then that key expires | all others |
//! |---|---|---|
//! | right | at its `expiration` | too |
//! | behind, or not set yet, when a key was set | after its `expiration`, by as much | at their `expiration` |
//! | not set yet (before 2020) for all keys | when what was left of its time to live is over | |
//! | ahead, when a key was set | when what was left is over | later by the time spent in the file |
//! | before the moment of the backup, at the restore | when what was left is over | too |
//!
//! The last two are one rule: cluster time never goes back behind the state. Members may be restored at
//! different moments, so that time is each member's own estimate beside the log, never part of the state; the
//! leader's counts.
//!
//! # A directory in one step
//!
//! All is made and synced in `restore.tmp` in the data directory, which may be a mount point, and whose parent
//! may not be ours to write in. The last step gives the folder `member` its place. Before that, a node does not start on
//! the directory: it names the commands that finish or discard the restore. What a crash left is removed by the next
//! attempt.

mod contents;
mod making;

pub use contents::{Contents, Directory, HISTORY_EVENTS, read_directory, read_file};
pub use making::Place;

use crate::engine::members::{Member, Members};
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::{Ballot, LogIndex, Membership, NodeId, Position, SnapshotMark};
use crate::replica::clock::{Clock, SystemClock};
use crate::tree::{Census, ClusterTime, TreeIndex};
use crate::wal::{self, Disk, RealDisk, WalError};
use crate::{config, config::Config};
use std::fmt;

/// Why there is no backup, or no directory.
#[derive(Debug)]
pub enum BackupError {
    /// The disk, or what is on it.
    Disk(WalError),
    /// Something else that a person has to change; says what.
    Refused(String),
}

impl From<WalError> for BackupError {
    fn from(error: WalError) -> BackupError {
        BackupError::Disk(error)
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Disk(error) => write!(f, "{error}"),
            BackupError::Refused(what) => f.write_str(what),
        }
    }
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The member whose directory it is.
    pub member: u64,
    /// Its cluster.
    pub cluster: u64,
    /// What it holds.
    pub census: Census,
    /// The tree's index, after which it goes on.
    pub index: TreeIndex,
    /// The entry after which the log goes on.
    pub position: Position,
}

/// No leap is longer; far from where indexes end, and no cluster ever gets there.
pub const BUMP_MAX: u64 = 1 << 60;

/// Makes the data directory of one founder of a new cluster from a backup: `config` says where, and who, as on
/// a first start. `bump`, at most [`BUMP_MAX`], is how far the tree's index leaps.
///
/// # Errors
/// The flags contradict each other, something is in the directory already, or the disk takes no more.
pub fn restore(config: &Config, backup: Contents, bump: u64) -> Result<Made, BackupError> {
    assert!(bump <= BUMP_MAX, "a leap of {bump}");
    config::check_first_start(config).map_err(|stop| {
        let text = stop.stderr.trim_end();
        let text = text.strip_prefix("edgetcd: ").unwrap_or(text);
        BackupError::Refused(text.to_owned())
    })?;
    let token = &config.initial_cluster_token;
    let mixed = Config {
        // Members with different leaps would give out different indexes: they are of different clusters.
        initial_cluster_token: format!("{token}@{:016x}+{bump}", backup.fingerprint),
        ..config.clone()
    };
    let identity = Identity::found(&mixed, random());
    let mut state = backup.state;
    leap(&mut state, bump);
    put(&Place::of(config), &identity, state, backup.mark.position)
}

/// The tree goes on so much further, and knows nothing of what was before.
fn leap(state: &mut State, bump: u64) {
    let index = TreeIndex(state.tree.index().0.saturating_add(bump));
    state.tree.skip_to(index);
}

/// Makes a directory of the same state for one member that goes on alone, with new ids: the copy that is kept
/// of a directory. `bump` is a leap as for [`restore`]: the other members, or this one later, may have given out
/// indexes that are not in it. Without a leap the history stays, [`HISTORY_EVENTS`] of it: nothing was lost then.
///
/// # Errors
/// As [`restore`].
pub fn copy_alone(place: &Place, copied: Directory, bump: u64) -> Result<Made, BackupError> {
    assert!(bump <= BUMP_MAX, "a leap of {bump}");
    let me = copied
        .contents
        .state
        .members
        .get(NodeId(copied.identity.id));
    let me = me.or_else(|| copied.identity.founders.get(NodeId(copied.identity.id)));
    let id = random();
    let member = Member {
        id,
        name: me.map_or_else(String::new, |me| me.name.clone()),
        peer_urls: me.map_or_else(Vec::new, |me| me.peer_urls.clone()),
        client_urls: Vec::new(),
    };
    // Drawn as well, not made from the member's: this cluster is nobody else's.
    let identity = Identity::alone(id, random(), Members::new(random(), [member]));
    let Contents {
        mark, mut state, ..
    } = copied.contents;
    if bump > 0 {
        leap(&mut state, bump);
    }
    put(place, &identity, state, mark.position)
}

fn put(
    place: &Place,
    identity: &Identity,
    mut state: State,
    position: Position,
) -> Result<Made, BackupError> {
    state.members = identity.founders.clone();
    let voters = identity.founders.iter().map(|member| NodeId(member.id));
    let mark = SnapshotMark {
        position,
        membership: Membership {
            voters: voters.collect(),
            ..Membership::default()
        },
    };
    if position.index == LogIndex(0) {
        let what = "nothing was ever applied there, so there is nothing to go on with: start with an empty \
                    --data-dir";
        return Err(BackupError::Refused(what.into()));
    }
    let census = Census::of(&state.tree);
    let batch = wal::Batch {
        ballot: Some(Ballot {
            term: position.term,
            vote: None,
        }),
        clock: Some(clock_note(&state, &census, &SystemClock)),
        ..wal::Batch::default()
    };
    making::make(place, identity, &mark, &state, &batch)?;
    Ok(Made {
        member: identity.id,
        cluster: identity.founders.cluster,
        census,
        index: state.tree.index(),
        position,
    })
}

/// How this machine's clocks stand to the cluster time of the state, if it went on since (see the module).
fn clock_note(state: &State, census: &Census, clock: &dyn Clock) -> wal::Clock {
    let earliest = i128::from(state.time.0);
    let now = census.least_lead.map_or(earliest, |lead| {
        let now = i128::from(clock.wall().0) + lead;
        now.max(earliest)
    });
    let ClusterTime(cluster_ns) = u64::try_from(now).map_or(state.time, ClusterTime);
    wal::Clock {
        boot_id: clock.boot_id(),
        boottime_ns: clock.since_boot(),
        cluster_ns,
    }
}

/// Eight bytes that nobody can guess.
fn random() -> u64 {
    let disk = RealDisk::default();
    u64::from(disk.random()) << 32 | u64::from(disk.random())
}

#[cfg(test)]
mod tests;
