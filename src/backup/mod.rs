//! Backups: reads a state from a backup file, or from the directory of a member that is not running, and writes it into
//! the directory of a member of a new cluster. This module works only on files. A running node serves its backup
//! through the API.
//!
//! # Why a restore creates a new cluster
//!
//! A restored cluster never continues the old one. Writes after the backup are lost, and members that still have them
//! must not be mixed with the restored ones. Therefore all ids are new. The ids are derived from the peer URLs and the
//! token, as on a first start, but the file's fingerprint and the size of the index jump are appended to the token:
//!
//! - All members that are restored from one file with the same flags derive the same ids without any communication.
//! - A member of the old cluster that was not wiped belongs to another cluster, even though its log would match.
//! - A member that was restored with another jump belongs to another cluster, too: it would give other indexes to the
//!   same changes.
//!
//! Two clusters that are restored one after the other from the same file with the same flags have the same ids. Between
//! the two restores, all members must be wiped or the token changed. Each directory gets a random incarnation, as on a
//! first start. If one member is restored a second time while the others have continued, they refuse it like any member
//! that lost its data (hazard D12).
//!
//! # What a restore keeps
//!
//! | state                                            | in the new cluster                                           |
//! |--------------------------------------------------|--------------------------------------------------------------|
//! | keys, values, directories, their indexes, counters | unchanged                                                  |
//! | the tree's index                                 | continues after a jump, so that all indexes that the lost cluster returned later are old |
//! | events kept for `waitIndex`                      | forgotten: a watch from an older index gets error 401 and does not wait |
//! | the raft index and term                          | continue from those of the backup                            |
//! | members                                          | the founders named by the flags; they publish client URLs and names at their start |
//! | times to live                                    | see below                                                    |
//!
//! # Times to live
//!
//! Keys expire by cluster time, and nobody advances cluster time while the state lies in a file. Users see and rely on
//! the wall-clock time in `expiration`. Therefore a restored member begins with the cluster time that corresponds to
//! the current wall-clock time. Each key with a time to live shows how the two relate: its deadline is cluster time,
//! its `expiration` is wall-clock time, and both were recorded at the same moment. If the leaders' clocks were right,
//! all keys give the same result, and each key expires at the `expiration` that users see. Keys whose `expiration` has
//! passed expire soon after the start.
//!
//! The clocks of small machines are not always right, and it is better to keep a key too long than to lose it. So the
//! least of all these cluster times is used. Then no key expires before its `expiration`, even if the clock was wrong
//! when another key was set:
//!
//! | the wall clock was                               | that key expires                        | all other keys expire         |
//! |--------------------------------------------------|-----------------------------------------|-------------------------------|
//! | right                                            | at its `expiration`                     | at their `expiration`         |
//! | behind, or not set yet, when a key was set       | after its `expiration`, by the same amount | at their `expiration`      |
//! | not set yet (before 2020) for all keys           | when the rest of its time to live is over |                             |
//! | ahead, when a key was set                        | when the rest of its time to live is over | later, by the time that the state spent in the file |
//! | at the restore, earlier than the backup          | when the rest of its time to live is over | when the rest of their time to live is over |
//!
//! The last two rows follow from one rule: cluster time never goes back behind the state. Members may be restored at
//! different moments. So this time is each member's own estimate, stored in its log and not in the state. The leader's
//! estimate is the one that counts.
//!
//! # The directory appears in one step
//!
//! Everything is created and synced in `restore.tmp` inside the data directory. The data directory may be a mount
//! point, and its parent may not be writable, so the temporary folder cannot be next to it. The last step renames the
//! folder `member` to its final place. Before that step a node refuses to start on the directory, and its message names
//! the commands that finish or discard the restore. The next restore removes files that a crash left.
//!
//! # What is not restored
//!
//! Checksums show that a file is as its writer wrote it, and nothing about the writer. A restore refuses a state that no
//! cluster can have, such as one without voters or with a time at the end of its range ([`plausible`]).

mod contents;
mod making;

pub use contents::{Contents, Directory, HISTORY_EVENTS, read_directory, read_file};
pub use making::Place;

use crate::engine::members::{Member, Members};
use crate::engine::plausible::{self, Writer};
use crate::engine::state::State;
use crate::identity::Identity;
use crate::raft::{HardState, LogIndex, Membership, NodeId, Position, SnapshotMetadata};
use crate::replica::clock::SystemClock;
use crate::storage::clock::Clock;
use crate::tree::{Census, ClusterTime, TreeIndex};
use crate::wal::{self, Disk, RealDisk, WalError};
use crate::{config, config::Config};
use std::fmt;

/// Why a backup or a directory was not created.
#[derive(Debug)]
pub enum BackupError {
    /// An error of the disk or of the files on it.
    Disk(WalError),
    /// Another problem that the operator must solve. The text describes it.
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

/// Result of a restore or copy.
#[derive(Debug)]
pub struct Made {
    /// Id of the directory's member.
    pub member: u64,
    /// Id of its cluster.
    pub cluster: u64,
    /// Counts of its content.
    pub census: Census,
    /// The tree's index. The next change gets the following one.
    pub index: TreeIndex,
    /// Position of the entry after which the log continues.
    pub position: Position,
}

/// Largest allowed jump of the index. No cluster ever reaches it, and it is far below the largest index.
pub const BUMP_MAX: u64 = 1 << 60;

/// Creates the data directory of one founder of a new cluster from a backup. `config` names the directory and the
/// member, as on a first start. `bump`, at most [`BUMP_MAX`], is the jump of the tree's index.
///
/// # Errors
/// The flags contradict each other, the directory is not empty, or a write fails.
pub fn restore(config: &Config, backup: Contents, bump: u64) -> Result<Made, BackupError> {
    assert!(bump <= BUMP_MAX, "a jump of {bump}");
    config::check_first_start(config).map_err(|stop| {
        let text = stop.stderr.trim_end();
        let text = text.strip_prefix("edgetcd: ").unwrap_or(text);
        BackupError::Refused(text.to_owned())
    })?;
    let token = &config.initial_cluster_token;
    let mixed = Config {
        // Members with different jumps would return different indexes, so they must belong to different clusters.
        initial_cluster_token: format!("{token}@{:016x}+{bump}", backup.fingerprint),
        ..config.clone()
    };
    let identity = Identity::found(&mixed, random());
    let mut state = backup.state;
    jump(&mut state, bump)?;
    put(
        &Place::of(config),
        &identity,
        state,
        backup.metadata.position,
    )
}

/// Advances the tree's index by `bump` and forgets all events.
///
/// # Errors
/// Too few indexes would be left for the writes to come.
fn jump(state: &mut State, bump: u64) -> Result<(), BackupError> {
    let before = state.tree.index();
    let index = TreeIndex(before.0.saturating_add(bump));
    if index >= Writer::Anybody.tree_index_limit() {
        return Err(BackupError::Refused(format!(
            "--bump-index {bump}: the index of the backup is {}, and {index} would be too near to the largest index; \
             use a smaller jump",
            before.0,
            index = index.0
        )));
    }
    state.tree.skip_to(index);
    Ok(())
}

/// Creates a directory with the same state for one member that continues alone, with new ids: a copy of a directory.
/// `bump` is a jump as for [`restore`], because the other members, or this one later, may have returned indexes that
/// are not in the copy. Without a jump nothing was lost, so the history is kept ([`HISTORY_EVENTS`] events).
///
/// # Errors
/// As [`restore`].
pub fn copy_alone(place: &Place, copied: Directory, bump: u64) -> Result<Made, BackupError> {
    assert!(bump <= BUMP_MAX, "a jump of {bump}");
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
    // The cluster id is also random and not derived from the member, because no other member belongs to this cluster.
    let identity = Identity::alone(id, random(), Members::new(random(), [member]));
    let Contents {
        metadata,
        mut state,
        ..
    } = copied.contents;
    if bump > 0 {
        jump(&mut state, bump)?;
    }
    put(place, &identity, state, metadata.position)
}

fn put(
    place: &Place,
    identity: &Identity,
    mut state: State,
    position: Position,
) -> Result<Made, BackupError> {
    state.members = identity.founders.clone();
    let voters = identity.founders.iter().map(|member| NodeId(member.id));
    let metadata = SnapshotMetadata {
        position,
        membership: Membership {
            voters: voters.collect(),
            ..Membership::default()
        },
    };
    if position.index == LogIndex(0) {
        let what = "this member has never applied an entry, so there is no data to copy: start with an empty \
                    --data-dir";
        return Err(BackupError::Refused(what.into()));
    }
    let checked = plausible::check(&state, &metadata, Writer::Anybody);
    checked.map_err(|error| BackupError::Refused(error.0))?;
    let census = Census::of(&state.tree);
    let batch = wal::Batch {
        hard_state: Some(HardState {
            term: position.term,
            vote: None,
        }),
        clock: Some(clock_note(&state, &census, &SystemClock)),
        ..wal::Batch::default()
    };
    making::make(place, identity, &metadata, &state, &batch)?;
    Ok(Made {
        member: identity.id,
        cluster: identity.founders.cluster,
        census,
        index: state.tree.index(),
        position,
    })
}

/// This machine's clock readings, with the cluster time that the state would have now if it had continued (see the
/// module).
fn clock_note(state: &State, census: &Census, clock: &dyn Clock) -> wal::Clock {
    let earliest = i128::from(state.time.0);
    let now = census.least_lead.map_or(earliest, |lead| {
        let now = i128::from(clock.wall().0) + lead;
        now.max(earliest)
    });
    let now = u64::try_from(now).map(ClusterTime).ok();
    // A wall clock in the far future is wrong, and time would never go back.
    let now = now.filter(|now| *now < Writer::Anybody.time_limit());
    let ClusterTime(cluster_ns) = now.unwrap_or(state.time);
    wal::Clock {
        boot_id: clock.boot_id(),
        boottime_ns: clock.since_boot(),
        cluster_ns,
    }
}

/// A random number that nobody can guess.
fn random() -> u64 {
    let disk = RealDisk::default();
    u64::from(disk.random()) << 32 | u64::from(disk.random())
}

#[cfg(test)]
mod tests;
