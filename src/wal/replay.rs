//! Reads the segments in order and finds out what the log contains and where it ends. This module changes no file.
//!
//! A segment is *used* if it begins with its head. The log is the chain of used segments that ends with the newest one.
//! Every segment in the chain except the last must be sealed, its seal must contain the salt of the next segment, and
//! the state of the log at its end must match the next segment's head. Unused files are segments that were prepared
//! ahead, or segments whose first batch was cut short by a crash.

use super::Clock;
use super::data_dir::DataDir;
use super::disk::Disk;
use super::error::WalError;
use super::index::Index;
use super::names::SegmentName;
use super::record::{HEAD_BYTES, Head, Record, SEAL_BYTES};
use super::scan::{Found, Rest, Window};
use super::shape::Shape;
use super::spare::Prepared;
use super::writer::{Log, Used};
use crate::raft::{Entry, LogIndex, Payload, Position};
use std::collections::BTreeMap;
use std::path::Path;

/// What an operator can do about a log that must not be used.
pub(super) const WAY_OUT: &str = "if this node has peers, move its data directory aside, remove the \
     member and add it again; otherwise restore the directory from a copy";

/// The content of the segments.
pub(super) struct Replayed {
    pub log: Log,
    pub index: Index,
    pub used: Vec<Used>,
    /// Membership changes that are still in the log.
    pub changes: Vec<Entry>,
    /// Entries in the log that this program cannot apply.
    pub unknown: Vec<Unknown>,
    /// End of the records in each file.
    pub ends: BTreeMap<u64, u64>,
    pub active: Prepared,
    /// End of the log in the active segment. 0 if not even its head is complete.
    pub end: u64,
    /// The newest used file, and the offset from which no record proves that its bytes were synced.
    pub unsure: (SegmentName, u64),
    /// Bytes behind the end of the log that must be zeroed.
    pub rest: Rest,
    /// Whether the last record is the stop of a clean shutdown.
    pub stopped: bool,
    pub spare: Option<Prepared>,
    /// Files that the log does not need.
    pub superfluous: Vec<SegmentName>,
    /// Number of records in all files of the log, including heads and seals.
    pub records: u64,
}

/// An entry that this program cannot apply ([`Options::unknown`](super::Options::unknown)).
pub(super) struct Unknown {
    pub position: Position,
    pub segment: SegmentName,
    pub offset: u64,
    pub why: String,
}

/// A segment file, with its head if it has one.
struct File {
    name: SegmentName,
    bytes: u64,
    head: Option<Head>,
}

impl File {
    fn prepared(&self) -> Prepared {
        Prepared {
            name: self.name,
            bytes: self.bytes,
        }
    }
}

/// The place where reading a file ended.
struct End<R> {
    /// The file with the bytes read last. Another process may be writing there, so the search behind the end uses bytes
    /// of the same moment.
    window: Window<R>,
    offset: u64,
    /// Largest durable offset in the file's records.
    durable: u64,
    /// Salt of the next file, if this file is sealed.
    sealed: Option<u32>,
    stopped: bool,
}

/// Reads all segments. `found` is not empty.
pub(super) fn replay<D: Disk>(
    data_dir: &DataDir<D>,
    found: &[(SegmentName, u64)],
) -> Result<Replayed, WalError> {
    let mut files = Vec::new();
    for &(name, bytes) in found {
        let head = read_head(data_dir, name, bytes)?;
        files.push(File { name, bytes, head });
    }
    files.sort_unstable_by_key(|file| file.name);
    let used = files.iter().filter(|file| file.head.is_some());
    let Some(newest) = used.map(|file| file.name).max() else {
        let what = "neither this segment nor another one begins with a valid record";
        return Err(damaged(data_dir, files[0].name, 0, what));
    };
    let mut superfluous = Vec::new();
    refuse_lost_heads(data_dir, &files, newest.seq, &mut superfluous)?;
    let (before, chain) = chain(data_dir, &files)?;
    superfluous.extend(before.iter().map(|file| file.name));

    let mut replay = Replay::begin(chain[0].head.as_ref(), data_dir.options().unknown);
    let mut end = replay.file(data_dir, chain[0])?;
    for pair in chain.windows(2) {
        replay.check_link(data_dir, pair[0], pair[1], &end)?;
        end = replay.file(data_dir, pair[1])?;
    }
    let after: Vec<&File> = files
        .iter()
        .filter(|file| file.name.seq > newest.seq)
        .collect();
    let last = chain[chain.len() - 1];
    let mut replayed = match end.sealed {
        Some(salt) => replay.sealed_end(data_dir, last, &after, &end, salt)?,
        None => replay.open_end(data_dir, last, &after, &mut end)?,
    };
    replayed.superfluous.append(&mut superfluous);
    Ok(replayed)
}

fn damaged<D: Disk>(data_dir: &DataDir<D>, name: SegmentName, offset: u64, what: &str) -> WalError {
    WalError::damaged(
        &data_dir.wal().join(name.file()),
        format!("{what}; {WAY_OUT}"),
    )
    .at(offset)
}

fn open<D: Disk>(data_dir: &DataDir<D>, name: SegmentName) -> Result<Window<D::Reader>, WalError> {
    let path = data_dir.wal().join(name.file());
    match data_dir.disk().open(&path) {
        Ok(reader) => Ok(Window::new(&path, reader, name.salt)),
        Err(error) => Err(WalError::io(&path, "open it", &error)),
    }
}

/// Reads the head of a segment and checks it against the file's name and size. Returns `None` if there is no head.
fn read_head<D: Disk>(
    data_dir: &DataDir<D>,
    name: SegmentName,
    bytes: u64,
) -> Result<Option<Head>, WalError> {
    let mut window = open(data_dir, name)?;
    let wrong = |what: &str| Err(damaged(data_dir, name, 0, what));
    match window.record_at(0)? {
        Found::Record {
            record: Record::Head(head),
            ..
        } => {
            if (head.seq, head.salt) != (name.seq, name.salt) {
                return wrong("its head names another segment");
            }
            if head.bytes != bytes {
                let what = format!("it has {bytes} bytes, but was created with {}", head.bytes);
                return wrong(&what);
            }
            Ok(Some(head))
        }
        Found::Record { .. } => wrong("its first record is not a segment head"),
        Found::Undecodable(undecodable) => wrong(undecodable.0),
        Found::Nothing => match misnamed(&mut window)? {
            Some(head) => {
                let other = SegmentName {
                    seq: head.seq,
                    salt: head.salt,
                };
                wrong(&format!(
                    "it is the segment {} under another name; rename it back",
                    other.file()
                ))
            }
            None => Ok(None),
        },
    }
}

/// The segment that a file contains, independent of its name. `None` if it contains none, or if its head is damaged.
pub(super) fn segment_in<D: Disk>(disk: &D, path: &Path) -> Result<Option<SegmentName>, WalError> {
    let reader = match disk.open(path) {
        Ok(reader) => reader,
        // It is a folder, or a file that this process may not read.
        Err(_) => return Ok(None),
    };
    let head = misnamed(&mut Window::new(path, reader, 0))?;
    Ok(head.map(|head| SegmentName {
        seq: head.seq,
        salt: head.salt,
    }))
}

/// Returns the head if this file was written under another name.
fn misnamed<R: super::disk::DiskReader>(window: &mut Window<R>) -> Result<Option<Head>, WalError> {
    let bytes = window.load(0, HEAD_BYTES)?;
    let Some(payload) = bytes.get(super::record::PREFIX..) else {
        return Ok(None);
    };
    let Some(claimed) = Head::claimed(payload) else {
        return Ok(None);
    };
    match window.record_at_with_salt(0, claimed.salt)? {
        Found::Record {
            record: Record::Head(head),
            ..
        } => Ok(Some(head)),
        _ => Ok(None),
    }
}

/// Refuses a file without a head if the log continued after it: confirmed records in it are lost. A file that shares
/// its number with a used one is only superfluous: it was prepared, but was too small.
fn refuse_lost_heads<D: Disk>(
    data_dir: &DataDir<D>,
    files: &[File],
    newest: u64,
    superfluous: &mut Vec<SegmentName>,
) -> Result<(), WalError> {
    for file in files
        .iter()
        .filter(|file| file.head.is_none() && file.name.seq <= newest)
    {
        let twin = files
            .iter()
            .any(|other| other.name.seq == file.name.seq && other.head.is_some());
        if !twin || open(data_dir, file.name)?.has_record()? {
            let what = "its first record fails its checksum, but the log continues after it";
            return Err(damaged(data_dir, file.name, 0, what));
        }
        superfluous.push(file.name);
    }
    Ok(())
}

/// The used files up to the newest without a gap in their numbers, and the used files before the gap.
fn chain<'a, D: Disk>(
    data_dir: &DataDir<D>,
    files: &'a [File],
) -> Result<(Vec<&'a File>, Vec<&'a File>), WalError> {
    let used: Vec<&File> = files.iter().filter(|file| file.head.is_some()).collect();
    let mut first = used.len() - 1;
    while first > 0 && used[first - 1].name.seq + 1 >= used[first].name.seq {
        if used[first - 1].name.seq == used[first].name.seq {
            let what = format!(
                "it has the same number as {}, and both contain records",
                used[first - 1].name.file()
            );
            return Err(damaged(data_dir, used[first].name, 0, &what));
        }
        first -= 1;
    }
    Ok((used[..first].to_vec(), used[first..].to_vec()))
}

/// State while the files are read.
struct Replay {
    log: Log,
    index: Index,
    used: Vec<Used>,
    changes: Vec<Entry>,
    unknown: Vec<Unknown>,
    is_unknown: fn(&[u8]) -> Option<String>,
    ends: BTreeMap<u64, u64>,
    command: u8,
    noop: u8,
    records: u64,
}

impl Replay {
    fn begin(head: Option<&Head>, is_unknown: fn(&[u8]) -> Option<String>) -> Replay {
        let mut log = Log::empty();
        let mut index = Index::default();
        if let Some(head) = head {
            log.shape = Shape::after(head.last);
            log.hard_state = head.hard_state;
            log.clock = head.clock;
            index.reset(head.last.index);
        }
        Replay {
            log,
            index,
            used: Vec::new(),
            changes: Vec::new(),
            unknown: Vec::new(),
            is_unknown,
            ends: BTreeMap::new(),
            command: Payload::Command([].into()).kind(),
            noop: Payload::Noop.kind(),
            records: 0,
        }
    }

    /// Reads a used file up to its seal or its first bad record.
    fn file<D: Disk>(
        &mut self,
        data_dir: &DataDir<D>,
        file: &File,
    ) -> Result<End<D::Reader>, WalError> {
        self.used.push(Used {
            name: file.name,
            before: self.log.shape.last(),
        });
        self.index.add_file(file.name);
        let mut end = End {
            window: open(data_dir, file.name)?,
            offset: HEAD_BYTES,
            durable: 0,
            sealed: None,
            stopped: false,
        };
        while end.sealed.is_none() {
            let (record, durable, next) = match end.window.record_at(end.offset)? {
                Found::Record {
                    record,
                    durable,
                    next,
                } => (record, durable, next),
                Found::Undecodable(undecodable) => {
                    return Err(damaged(data_dir, file.name, end.offset, undecodable.0));
                }
                Found::Nothing => break,
            };
            end.stopped = record == Record::Stop && durable == end.offset;
            end.durable = end.durable.max(durable);
            if let Record::Sealed { next_salt, .. } = record {
                end.sealed = Some(next_salt);
            }
            self.record(record, file.name, end.offset)
                .map_err(|what| damaged(data_dir, file.name, end.offset, &what))?;
            end.offset = next;
            self.records += 1;
        }
        self.ends.insert(file.name.seq, end.offset);
        Ok(end)
    }

    fn record(
        &mut self,
        record: Record<'_>,
        segment: SegmentName,
        offset: u64,
    ) -> Result<(), String> {
        match record {
            Record::Entry {
                position,
                kind,
                bytes,
            } => {
                if let Some(why) = self.entry(position, kind, bytes)? {
                    self.unknown.push(Unknown {
                        position,
                        segment,
                        offset,
                        why,
                    });
                }
                self.index.put(position.index, segment.seq, offset);
            }
            Record::HardState(hard_state) => {
                if hard_state.term < self.log.hard_state.term {
                    return Err(format!(
                        "the term decreases from {} to {}",
                        self.log.hard_state.term.0, hard_state.term.0
                    ));
                }
                self.log.hard_state = hard_state;
            }
            Record::Clock(clock) => self.log.clock = Some(clock),
            Record::Tick {
                boottime_ns,
                cluster_ns,
            } => {
                let Some(Clock { boot_id, .. }) = self.log.clock else {
                    return Err("a time record without a preceding clock record".into());
                };
                self.log.clock = Some(Clock {
                    boot_id,
                    boottime_ns,
                    cluster_ns,
                });
            }
            Record::Reset(position) => {
                self.log.shape = Shape::after(position);
                self.index.reset(position.index);
                self.changes.clear();
                self.unknown.clear();
            }
            Record::Sealed { last, .. } if last != self.log.shape.last() => {
                return Err(format!(
                    "the seal names {last:?} as the last entry, but the last one is {:?}",
                    self.log.shape.last()
                ));
            }
            Record::Head(_) => return Err("a segment head in the middle of a segment".into()),
            Record::Sealed { .. } | Record::Stop => {}
        }
        Ok(())
    }

    /// Takes an entry. Returns why it cannot be applied, if it cannot.
    fn entry(
        &mut self,
        position: Position,
        kind: u8,
        bytes: &[u8],
    ) -> Result<Option<String>, String> {
        let index = position.index;
        if !self.log.shape.admits(index) {
            let last = self.log.shape.last().index.0;
            return Err(format!("entry {} follows entry {last}", index.0));
        }
        while self
            .changes
            .last()
            .is_some_and(|change| change.position.index >= index)
        {
            self.changes.pop();
        }
        while (self.unknown.last()).is_some_and(|unknown| unknown.position.index >= index) {
            self.unknown.pop();
        }
        self.log.shape.put(position);
        // Commands are the bulk of the log. They are decoded only when somebody reads them.
        if kind == self.command {
            return Ok((self.is_unknown)(bytes));
        }
        if kind == self.noop {
            return Ok(None);
        }
        let payload = Payload::decode(kind, bytes).map_err(|error| error.to_string())?;
        let unknown = match &payload {
            Payload::Change(change) => (self.is_unknown)(&change.context),
            Payload::Command(_) | Payload::Noop => None,
        };
        self.changes.push(Entry { position, payload });
        Ok(unknown)
    }

    /// Checks that the next file, which has records, continues this one.
    fn check_link<D: Disk>(
        &self,
        data_dir: &DataDir<D>,
        file: &File,
        next: &File,
        end: &End<D::Reader>,
    ) -> Result<(), WalError> {
        let next_file = next.name.file();
        let Some(salt) = end.sealed else {
            return Err(self.lost(
                data_dir,
                file.name,
                end.offset,
                &format!("the log continues in {next_file}"),
            ));
        };
        if salt != next.name.salt {
            let named = SegmentName {
                seq: next.name.seq,
                salt,
            };
            let what = format!(
                "the log continues in {}, which is missing ({next_file} is another segment)",
                named.file()
            );
            return Err(damaged(data_dir, file.name, end.offset, &what));
        }
        let head = self.log.head(next.prepared());
        if next.head.as_ref() != Some(&head) {
            let what = format!("it does not continue where {} ends", file.name.file());
            return Err(damaged(data_dir, next.name, 0, &what));
        }
        Ok(())
    }

    /// The error for a bad record that was durable.
    fn lost<D: Disk>(
        &self,
        data_dir: &DataDir<D>,
        name: SegmentName,
        offset: u64,
        why: &str,
    ) -> WalError {
        let next = LogIndex(self.log.shape.last().index.0 + 1);
        let what = format!(
            "the record here fails its checksum, but {why}: confirmed entries are lost, from entry {} on",
            next.0
        );
        damaged(data_dir, name, offset, &what).index(next)
    }

    fn witness<D: Disk>(
        &self,
        data_dir: &DataDir<D>,
        name: SegmentName,
        offset: u64,
        witness: u64,
    ) -> WalError {
        self.lost(
            data_dir,
            name,
            offset,
            &format!("a later one, at byte {witness}, says that it was durable"),
        )
    }

    /// Handles a newest used file that is sealed: the log continues in a file whose head was not written, or not
    /// completely.
    fn sealed_end<D: Disk>(
        self,
        data_dir: &DataDir<D>,
        last: &File,
        after: &[&File],
        end: &End<D::Reader>,
        salt: u32,
    ) -> Result<Replayed, WalError> {
        let named = SegmentName {
            seq: last.name.seq + 1,
            salt,
        };
        let Some(next) = after.iter().find(|file| file.name == named) else {
            let what = format!("the log continues in {}, which is missing", named.file());
            return Err(damaged(data_dir, last.name, end.offset, &what));
        };
        if !is_whole(next.bytes) {
            let what = format!("it has {} bytes, which no segment has", next.bytes);
            return Err(damaged(data_dir, named, 0, &what));
        }
        let rest = open(data_dir, named)?.rest(0)?;
        if let Some(witness) = rest.witness {
            return Err(self.witness(data_dir, named, 0, witness));
        }
        let others = after.iter().filter(|file| file.name != named);
        let superfluous = self.unused(data_dir, last, others.copied())?;
        let mut replayed = self.replayed(next.prepared(), 0, (last.name, end.durable), rest);
        replayed.used.push(Used {
            name: named,
            before: replayed.log.shape.last(),
        });
        replayed.index.add_file(named);
        replayed.superfluous = superfluous;
        Ok(replayed)
    }

    /// Handles a log that ends in the newest used file.
    fn open_end<D: Disk>(
        self,
        data_dir: &DataDir<D>,
        last: &File,
        after: &[&File],
        end: &mut End<D::Reader>,
    ) -> Result<Replayed, WalError> {
        let rest = end.window.rest(end.offset)?;
        if let Some(witness) = rest.witness {
            return Err(self.witness(data_dir, last.name, end.offset, witness));
        }
        let mut superfluous = self.unused(data_dir, last, after.iter().copied())?;
        let mut replayed =
            self.replayed(last.prepared(), end.offset, (last.name, end.durable), rest);
        replayed.stopped = end.stopped;
        replayed.spare = spare(data_dir, last, after)?;
        superfluous.retain(|name| replayed.spare.is_none_or(|spare| spare.name != *name));
        replayed.superfluous = superfluous;
        Ok(replayed)
    }

    /// Checks that the files after the newest used one contain no record. A record in them proves that a seal existed
    /// before it and was lost.
    fn unused<'a, D: Disk>(
        &self,
        data_dir: &DataDir<D>,
        last: &File,
        files: impl Iterator<Item = &'a File>,
    ) -> Result<Vec<SegmentName>, WalError> {
        let mut unused = Vec::new();
        for file in files {
            if open(data_dir, file.name)?.has_record()? {
                let end = self.ends[&last.name.seq];
                let why = format!("the log continues in {}", file.name.file());
                return Err(self.lost(data_dir, last.name, end, &why));
            }
            unused.push(file.name);
        }
        Ok(unused)
    }

    fn replayed(
        self,
        active: Prepared,
        end: u64,
        unsure: (SegmentName, u64),
        rest: Rest,
    ) -> Replayed {
        Replayed {
            log: self.log,
            index: self.index,
            used: self.used,
            changes: self.changes,
            unknown: self.unknown,
            ends: self.ends,
            active,
            end,
            unsure,
            rest,
            stopped: false,
            spare: None,
            superfluous: Vec::new(),
            records: self.records,
        }
    }
}

/// Whether a file without a head has a size that a segment can have.
fn is_whole(bytes: u64) -> bool {
    bytes >= HEAD_BYTES + SEAL_BYTES && bytes.is_multiple_of(4096)
}

/// The file that was prepared as the segment after `last`: it has the next number and was never written to.
fn spare<D: Disk>(
    data_dir: &DataDir<D>,
    last: &File,
    after: &[&File],
) -> Result<Option<Prepared>, WalError> {
    let number = last.name.seq + 1;
    for file in after.iter().filter(|file| file.name.seq == number) {
        if is_whole(file.bytes) && open(data_dir, file.name)?.begins_with_zeros()? {
            return Ok(Some(file.prepared()));
        }
    }
    Ok(None)
}
