//! `--force-new-cluster`: a member continues alone with its data when the majority is lost for good.
//!
//! Before raft starts, this module appends entries to the log that remove all other members. Then this member is the
//! only voter, so it becomes leader and commits everything in its log. Writes that only the lost members had are lost
//! with them.

use super::stored::refused;
use crate::config::Stop;
use crate::engine::entry;
use crate::identity::Identity;
use crate::raft::{
    Change, ChangeKind, Entry, HardState, LogIndex, NodeId, Payload, Position, StoredLog,
};
use crate::wal::{Batch, RealDisk, Recovered, Wal};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Appends the removals, synced, to the log on disk and to the recovered log in memory.
///
/// # Errors
/// The disk is full, or the directory has no data to continue with.
pub(super) fn alone(
    identity: &Identity,
    wal: &mut Wal<RealDisk>,
    recovered: &mut Recovered<RealDisk>,
) -> Result<(), Stop> {
    let me = NodeId(identity.id);
    let mut changes: Vec<Change> = Vec::new();
    let (voters, learners) = members(identity, recovered);
    if !voters.contains(&me) && !learners.contains(&me) {
        return Err(Stop::fatal(
            "--force-new-cluster: this node's log does not list it as a member: it has joined but not \
             received the data yet, or it was removed",
            "start another member of that cluster with --force-new-cluster",
        ));
    }
    if learners.contains(&me) {
        changes.push(change(ChangeKind::Promote, me));
    }
    let others = voters.iter().chain(&learners).filter(|id| **id != me);
    changes.extend(others.map(|id| change(ChangeKind::Remove, *id)));
    if changes.is_empty() {
        return Ok(());
    }
    log::warn!(
        "--force-new-cluster: removed {} other members; this is now the only one",
        changes.len()
    );
    let entries = number(changes, recovered);
    if let Some(first) = entries.first() {
        recovered.hard_state = HardState {
            term: first.position.term,
            vote: None,
        };
    }
    let batch = Batch {
        hard_state: Some(recovered.hard_state),
        entries: entries.clone(),
        ..Batch::default()
    };
    wal.append(&batch)
        .and_then(|()| wal.sync())
        .map_err(refused)?;
    extend(&mut recovered.log, entries);
    Ok(())
}

/// Voters and learners at the end of the log.
fn members(
    identity: &Identity,
    recovered: &Recovered<RealDisk>,
) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let mut membership = match &recovered.snapshot {
        Some(reader) => reader.metadata().membership.clone(),
        None => super::stored::first_metadata(identity).membership,
    };
    for found in &recovered.log.changes {
        if let Payload::Change(change) = &found.payload {
            membership.change(change);
        }
    }
    (membership.voters, membership.learners)
}

fn change(kind: ChangeKind, node: NodeId) -> Change {
    let context = match kind {
        ChangeKind::Remove => Arc::from(entry::remove(node)),
        _ => Arc::from([]),
    };
    Change {
        kind,
        node,
        context,
    }
}

/// Turns the changes into entries that follow the log, in a term without a leader: in the last term, another member may
/// have other entries at these indexes.
fn number(changes: Vec<Change>, recovered: &Recovered<RealDisk>) -> Vec<Entry> {
    let log = &recovered.log;
    let at_snapshot = recovered
        .snapshot
        .as_ref()
        .map(|reader| reader.metadata().position);
    let last = match (log.terms.last(), at_snapshot) {
        (Some((_, term)), _) => *term,
        (None, Some(position)) => position.term,
        (None, None) => recovered.hard_state.term,
    };
    let term = last.max(recovered.hard_state.term).next();
    let first = log.last.next();
    let numbered = changes.into_iter().zip(first.0..);
    numbered
        .map(|(change, index)| Entry {
            position: Position {
                term,
                index: LogIndex(index),
            },
            payload: Payload::Change(change),
        })
        .collect()
}

fn extend(log: &mut StoredLog, entries: Vec<Entry>) {
    let Some(first) = entries.first().map(|entry| entry.position) else {
        return;
    };
    if log.terms.last().is_none_or(|(_, term)| *term != first.term) {
        log.terms.push((first.index, first.term));
    }
    log.last = first.index.after(entries.len() - 1);
    log.changes.extend(entries.iter().cloned());
    log.tail.extend(entries);
}
