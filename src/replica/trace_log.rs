//! The last trace records of this process, for readers of any thread.
//!
//! The raft thread adds the records of each step after it has carried out the effects. It never waits for a reader: if a
//! reader holds the lock at that moment, the records are added with those of the next step. A reader keeps the number of
//! its next record, and renders the lines itself. If the log has dropped that record meanwhile, the reader gets a line
//! about the gap instead.
//!
//! ```text
//!   raft thread ── add ──▶ TraceLog (the last 8192 records) ◀── TraceReader::render ── streams, the trace file
//! ```

use crate::engine::trace::{FORMAT, Record};
use crate::raft::NodeId;
use core::fmt::Write as _;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Number of records that are kept: 512 KiB. Without requests, a leader of three members makes about 80 per second.
const RECORDS_MAX: usize = 8192;

/// Number of records that are copied while the lock is held.
const RECORDS_AT_ONCE: usize = 256;

/// A record and its time.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// Microseconds of Unix time.
    pub at: u64,
    /// The record.
    pub record: Record,
}

/// The last records of a process. [`TraceLog::wait`] is notified by [`TraceLog::add`] if a reader waits, and by
/// [`TraceLog::wake`].
#[derive(Debug)]
pub struct TraceLog {
    member: NodeId,
    /// Microseconds of Unix time.
    started: u64,
    kept: Mutex<Kept>,
    added: Condvar,
}

/// A state of the log.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    next: u64,
    wakes: u64,
}

#[derive(Debug, Default)]
struct Kept {
    /// Consecutive numbers.
    records: VecDeque<Timed>,
    /// The number of the next record.
    next: u64,
    /// Number of threads that wait for more. Without any, adding makes no system call.
    waiting: usize,
    /// Counts the calls of [`TraceLog::wake`].
    wakes: u64,
}

impl TraceLog {
    /// A log without records, of a process that starts now.
    pub fn new(member: NodeId) -> TraceLog {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = since.map_or(0, |since| since.as_micros());
        TraceLog {
            member,
            started: u64::try_from(started).unwrap_or(u64::MAX),
            kept: Mutex::new(Kept {
                next: 1,
                ..Kept::default()
            }),
            added: Condvar::new(),
        }
    }

    /// When the process started, in microseconds of Unix time. The numbers of the records belong to this process.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// The present state, for [`TraceLog::wait`].
    pub fn mark(&self) -> Mark {
        let kept = self.lock();
        Mark {
            next: kept.next,
            wakes: kept.wakes,
        }
    }

    /// Takes the records from `pending`, unless a reader holds the lock. Does not wait.
    pub fn add(&self, pending: &mut Vec<Timed>) {
        let mut kept = match self.kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // A reader that is interrupted could hold the lock for long.
                if pending.len() > RECORDS_MAX {
                    pending.clear();
                }
                return;
            }
        };
        kept.add(pending);
        let notify = kept.waiting > 0;
        drop(kept);
        if notify {
            self.added.notify_all();
        }
    }

    /// Waits until records were added or [`TraceLog::wake`] was called since `mark`, at most for `patience`.
    pub fn wait(&self, mark: Mark, patience: Duration) {
        let mut kept = self.lock();
        kept.waiting += 1;
        let unchanged = |kept: &mut Kept| kept.next == mark.next && kept.wakes == mark.wakes;
        let waited = self.added.wait_timeout_while(kept, patience, unchanged);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting -= 1;
    }

    /// Ends all waits.
    pub fn wake(&self) {
        self.lock().wakes += 1;
        self.added.notify_all();
    }

    /// Copies the records from number `from` on, as far as they are kept, but at most [`RECORDS_AT_ONCE`].
    fn read(&self, from: u64, into: &mut Vec<Timed>) {
        let kept = self.lock();
        let first = kept.first();
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted = kept.records.range(skip.min(kept.records.len())..);
        into.extend(wanted.take(RECORDS_AT_ONCE));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The number of the oldest record; of the next one if there is none.
    fn first(&self) -> u64 {
        let first = self.records.front();
        first.map_or(self.next, |first| first.record.seq)
    }

    fn add(&mut self, pending: &mut Vec<Timed>) {
        let Some(last) = pending.last().map(|last| last.record.seq) else {
            return;
        };
        // After records that were never added, the older ones are dropped too, so that the numbers have no hole.
        if pending[0].record.seq != self.next {
            self.records.clear();
        }
        let over = (self.records.len() + pending.len()).saturating_sub(RECORDS_MAX);
        self.records.drain(..over.min(self.records.len()));
        self.records.extend(pending.drain(..));
        let over = self.records.len().saturating_sub(RECORDS_MAX);
        self.records.drain(..over);
        self.next = last + 1;
    }
}

/// The place at which a reader's earlier trace ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resume {
    /// The number of the first record that it wants; 0 for all that are kept.
    pub since: u64,
    /// The start of the process that these numbers belong to, if the reader knows it.
    pub started: Option<u64>,
    /// The largest number of records to begin with, the newest ones.
    pub last: Option<u64>,
}

/// A reader of the log, at a position.
#[derive(Debug)]
pub struct TraceReader {
    log: Arc<TraceLog>,
    /// The number of the next record.
    next: u64,
    copied: Vec<Timed>,
}

impl TraceReader {
    /// Begins to read: writes the head line, and a line about a gap if the reader's earlier process was another one.
    pub fn begin(log: &Arc<TraceLog>, name: &str, resume: Resume, out: &mut String) -> TraceReader {
        let (first, next) = {
            let kept = log.lock();
            (kept.first(), kept.next)
        };
        head(log, name, (first, next), out);
        // Numbers that this process has not reached yet are those of another one.
        let is_other = resume.since > next || resume.started.is_some_and(|at| at != log.started);
        let mut since = resume.since;
        if is_other {
            out.push_str("{\"kind\":\"gap\",\"restart\":true}\n");
            since = 1;
        }
        // A reader without a position wants what there is.
        if since == 0 {
            since = first;
        }
        let mut reader = TraceReader {
            log: Arc::clone(log),
            next: since,
            copied: Vec::new(),
        };
        if let Some(last) = resume.last {
            reader.skip_to(next.saturating_sub(last), out);
        }
        reader
    }

    /// The number of the next record that it wants.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends lines, until `out` has at least `bytes_max` bytes or there are no more records. Returns whether there can
    /// be more.
    pub fn render(&mut self, bytes_max: usize, out: &mut String) -> bool {
        while out.len() < bytes_max {
            let mut copied = std::mem::take(&mut self.copied);
            copied.clear();
            self.log.read(self.next, &mut copied);
            if let Some(first) = copied.first() {
                self.skip_to(first.record.seq, out);
            }
            for Timed { at, record } in &copied {
                record.write_json(*at, self.log.member, out);
                out.push('\n');
            }
            let is_all = copied.len() < RECORDS_AT_ONCE;
            if let Some(last) = copied.last() {
                self.next = last.record.seq + 1;
            }
            self.copied = copied;
            if is_all {
                return false;
            }
        }
        true
    }

    /// Continues with the record `next`. Writes a line about those before it, if there are any.
    fn skip_to(&mut self, next: u64, out: &mut String) {
        if next > self.next {
            let (from, to) = (self.next, next - 1);
            let _ = writeln!(out, "{{\"kind\":\"gap\",\"from\":{from},\"to\":{to}}}");
            self.next = next;
        }
    }
}

/// The first line of a trace.
fn head(log: &TraceLog, name: &str, (first, next): (u64, u64), out: &mut String) {
    let (member, name, start) = (log.member.0, json!(name), log.started);
    let _ = writeln!(
        out,
        "{{\"format\":{FORMAT},\"member\":\"{member:x}\",\"name\":{name},\"start\":{start},\"first\":{first},\"next\":{next}}}"
    );
}

#[cfg(test)]
mod tests;
