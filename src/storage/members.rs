//! The members according to the end of the log, before any entry is applied.
//!
//! A member that starts does not know which of its entries are committed, and applies none of them before it hears from
//! a leader. But it votes for that leader. If it did not use the incarnations in its log, it would accept a member that
//! has lost its data, and the two could elect a leader without the entries that the others have committed (hazard D12).
//! The addresses of members that were added are needed to reach them.

use crate::engine::entry::{self, Command};
use crate::engine::members::Members;
use crate::raft::{Entry, Payload, StoredLog};
use crate::wal::{Disk, Wal, WalError};

/// How much of the log is read at once.
const READ_BYTES: usize = 1 << 20;

/// Calls `visit` for each entry of the log that follows the snapshot, in order.
///
/// # Errors
/// The log cannot be read.
pub fn for_each_entry<D: Disk>(
    wal: &Wal<D>,
    log: &StoredLog,
    mut visit: impl FnMut(&Entry),
) -> Result<(), WalError> {
    let in_memory = match log.tail.first() {
        Some(entry) => entry.position.index,
        None => log.last.next(),
    };
    let reader = wal.reader();
    let mut next = log.terms.first().map_or(in_memory, |(first, _)| *first);
    while next < in_memory {
        let entries = reader.read(next, in_memory.previous(), READ_BYTES)?;
        let Some(last) = entries.last() else { break };
        next = last.position.index.next();
        entries.iter().for_each(&mut visit);
    }
    log.tail.iter().for_each(visit);
    Ok(())
}

/// The entries of the log from which [`learn`] learns something.
///
/// # Errors
/// The log cannot be read.
pub fn entries<D: Disk>(wal: &Wal<D>, log: &StoredLog) -> Result<Vec<Entry>, WalError> {
    let mut entries = Vec::new();
    for_each_entry(wal, log, |entry| {
        if about_members(entry).is_some() {
            entries.push(entry.clone());
        }
    })?;
    Ok(entries)
}

fn about_members(entry: &Entry) -> Option<&[u8]> {
    match &entry.payload {
        Payload::Command(bytes) if entry::is_publish(bytes) => Some(bytes),
        Payload::Change(change) => Some(&change.context),
        Payload::Command(_) | Payload::Noop => None,
    }
}

/// Adds what an entry says about the members: a new one, or the incarnation of one. The entry may be uncommitted. Without
/// the members that it adds, it could never be committed.
pub fn learn(members: &mut Members, entry: &Entry) {
    let Some(bytes) = about_members(entry) else {
        return;
    };
    match entry::decode(bytes) {
        Ok((_, Command::Add(member))) => members.add(member),
        Ok((_, Command::Publish(published))) => drop(members.publish(published)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::{Member, Published};
    use crate::raft::{Change, ChangeKind, LogIndex, NodeId, Position, Term};
    use crate::wal::{Batch, DataDir, FaultyDisk, Options, recover};

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![format!("http://n{id}:2380")],
            client_urls: Vec::new(),
        }
    }

    fn numbered((index, payload): (u64, Payload)) -> Entry {
        let position = Position {
            term: Term(1),
            index: LogIndex(index),
        };
        Entry { position, payload }
    }

    fn empty() -> DataDir<FaultyDisk> {
        let opened = DataDir::open(FaultyDisk::new(1), Options::new("/data"));
        opened.expect("the directory is free")
    }

    /// A start keeps only the last entries in memory. The others are read from the disk.
    #[test]
    fn all_entries_are_visited_once_and_in_order() {
        let disk = FaultyDisk::new(1);
        let options = || Options {
            tail_bytes: 50_000,
            ..Options::new("/data")
        };
        let data_dir = DataDir::open(disk.clone(), options()).expect("the directory is free");
        let (mut wal, _) = recover(&data_dir).expect("an empty log");
        let entry = |index| Entry {
            position: Position {
                term: Term(1),
                index: LogIndex(index),
            },
            payload: Payload::Command(vec![7; 1_000].into()),
        };
        for index in 1..=200 {
            let batch = Batch {
                entries: vec![entry(index)],
                ..Batch::default()
            };
            wal.append(&batch).expect("there is room");
        }
        wal.sync().expect("the disk works");
        drop((wal, data_dir));
        disk.kill();
        let data_dir = DataDir::open(disk, options()).expect("the directory is free");
        let (wal, recovered) = recover(&data_dir).expect("the log is whole");
        let in_memory = recovered.log.tail.len();
        assert!((1..200).contains(&in_memory), "{in_memory} are in memory");
        let mut visited = Vec::new();
        let read = for_each_entry(&wal, &recovered.log, |entry| {
            visited.push(entry.position.index.0);
        });
        read.expect("the disk works");
        assert_eq!(visited, (1..=200).collect::<Vec<u64>>());
    }

    #[test]
    fn the_log_names_new_members_and_incarnations() {
        let publish = entry::publish(&Published {
            member: member(2),
            incarnation: 7,
        });
        let add = Change {
            kind: ChangeKind::AddLearner,
            node: NodeId(2),
            context: entry::add(&member(2)).into(),
        };
        let payloads = [
            Payload::Noop,
            Payload::Change(add),
            Payload::Command(publish.into()),
            Payload::Command(entry::expire().into()),
        ];
        let mut members = Members::new(1, [member(1)]);
        let log = StoredLog {
            last: LogIndex(4),
            tail: (1..).zip(payloads).map(numbered).collect(),
            ..StoredLog::default()
        };
        let (wal, _) = recover(&empty()).expect("an empty log");
        let entries = entries(&wal, &log).expect("they are in memory");
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.position.index.0).collect();
        assert_eq!(indexes, [2, 3], "only these say something");
        entries.iter().for_each(|entry| learn(&mut members, entry));
        assert_eq!(members.iter().count(), 2);
        assert_eq!(members.incarnation(NodeId(2)), Some(7));
    }
}
