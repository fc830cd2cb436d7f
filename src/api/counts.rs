//! Counts and times requests of the key space: etcd's `etcd_http_*`, and the reads in `/v2/stats/store`.
//!
//! A plain read costs about as much as a few cache misses, so counting it must be cheap. Each worker of the HTTP server
//! has [`WorkerCounts`] of its own, and no other thread writes to them. So incrementing a counter is a load and a store.
//! Plain reads are timed per round: all reads answered in one round count with the duration of the round, so the worker
//! reads the clock once for all of them.
//!
//! The requests counted are those that etcd counts: requests with valid parameters. Watches count only if they fail. A
//! quorum read has the method `QGET`. Requests that are answered on other threads (writes, on the raft thread) are
//! counted together, in counts that these threads share.

use crate::histogram::{Histogram, Observed};
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Buckets from 0.5 ms to 2.048 s, as in etcd's `etcd_http_successful_duration_seconds`.
const TIMES: usize = 14;

/// Durations of requests.
pub type Times = Histogram<500, TIMES>;

/// Statuses of key-space errors.
const CODES: [u16; 7] = [400, 401, 403, 404, 412, 500, 503];

/// The kind of a request, as in etcd's label `method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Method {
    /// A plain read, from this member's newest view.
    Get,
    /// A plain read with the method HEAD.
    Head,
    /// A quorum read.
    QGet,
    /// A write, like the next two.
    Put,
    /// In-order creation.
    Post,
    /// A removal.
    Delete,
}

impl Method {
    /// All methods, in the order of their numbers.
    pub const ALL: [Method; 6] = [
        Method::Get,
        Method::Head,
        Method::QGet,
        Method::Put,
        Method::Post,
        Method::Delete,
    ];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::QGet => "QGET",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// The counts of a node.
#[derive(Debug)]
pub struct Counts {
    /// By number of the worker of the HTTP server.
    workers: Box<[WorkerCounts]>,
    /// Counted on other threads.
    elsewhere: WorkerCounts,
}

/// The counts of one worker. Aligned, so that it shares no cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounts {
    /// Reads that were received and succeeded in this round; see [`Counts::round`].
    in_round: [AtomicU64; 3],
    received: [AtomicU64; Method::ALL.len()],
    /// Lookups of nodes in the tree, by result (found or not), then by kind (recursive or not).
    reads: [[AtomicU64; 2]; 2],
    watches: AtomicU64,
    failed: [[AtomicU64; CODES.len()]; Method::ALL.len()],
    times: [Times; Method::ALL.len()],
}

/// Only one thread writes to `counter`.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// These functions may only be called on the thread that owns the counts.
impl WorkerCounts {
    /// Counts a request with valid parameters.
    pub fn received(&self, method: Method) {
        bump(&self.received[method as usize]);
    }

    /// Counts a watch with valid parameters.
    pub fn watch(&self) {
        bump(&self.watches);
    }

    /// Counts a lookup in the tree.
    pub fn read(&self, found: bool, recursive: bool) {
        bump(&self.reads[usize::from(!found)][usize::from(recursive)]);
    }

    /// Counts a request that failed with this status.
    pub fn failed(&self, method: Method, status: u16) {
        bump(&self.failed[method as usize][place(status)]);
    }

    /// Counts a read that succeeded in the round that began `now`. If it was received in this round, its duration is
    /// that of the round. Otherwise it began at `asked`.
    pub fn answered(&self, method: Method, asked: Instant, now: Instant) {
        match self.in_round.get(method as usize) {
            Some(counter) if asked == now => bump(counter),
            _ => self.times[method as usize].add(now.saturating_duration_since(asked)),
        }
    }
}

/// The position of a status in [`CODES`].
fn place(status: u16) -> usize {
    let found = CODES.iter().position(|code| *code == status);
    found.unwrap_or_else(|| unreachable!("no error of the key space has status {status}"))
}

impl Counts {
    /// All counts at zero, for this many workers.
    pub fn new(workers: usize) -> Counts {
        Counts {
            workers: iter::repeat_with(WorkerCounts::default)
                .take(workers)
                .collect(),
            elsewhere: WorkerCounts::default(),
        }
    }

    /// The counts of the calling worker.
    pub fn of(&self, worker: usize) -> &WorkerCounts {
        self.workers.get(worker).unwrap_or(&self.elsewhere)
    }

    /// A worker's round has ended: each read that it answered took this long.
    pub fn round(&self, worker: usize, took: Duration) {
        let counts = self.of(worker);
        for (counter, times) in counts.in_round.iter().zip(&counts.times) {
            let count = counter.load(Relaxed);
            if count > 0 {
                counter.store(0, Relaxed);
                times.add_many(took, count);
            }
        }
    }

    /// Counts a request that succeeded after this time. May be called on any thread.
    pub fn succeeded(&self, method: Method, took: Duration) {
        self.elsewhere.times[method as usize].add(took);
    }

    /// Counts a request that failed with this status. May be called on any thread.
    pub fn failed(&self, method: Method, status: u16) {
        self.elsewhere.failed[method as usize][place(status)].fetch_add(1, Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = &WorkerCounts> {
        self.workers.iter().chain(iter::once(&self.elsewhere))
    }

    fn sum(&self, of: impl Fn(&WorkerCounts) -> &AtomicU64) -> u64 {
        self.all().map(|counts| of(counts).load(Relaxed)).sum()
    }

    /// Number of requests with valid parameters.
    pub fn received(&self, method: Method) -> u64 {
        self.sum(|counts| &counts.received[method as usize])
    }

    /// Number of watches with valid parameters.
    pub fn watches(&self) -> u64 {
        self.sum(|counts| &counts.watches)
    }

    /// Number of lookups in the tree.
    pub fn reads(&self, found: bool, recursive: bool) -> u64 {
        self.sum(|counts| &counts.reads[usize::from(!found)][usize::from(recursive)])
    }

    /// Number of failed requests by status, without zeros.
    pub fn failures(&self, method: Method) -> impl Iterator<Item = (u16, u64)> {
        let codes = CODES.iter().enumerate();
        let counts = codes.map(move |(n, code)| {
            let count = self.sum(|counts| &counts.failed[method as usize][n]);
            (*code, count)
        });
        counts.filter(|(_, count)| *count > 0)
    }

    /// Durations of successful requests on this member.
    pub fn times(&self, method: Method) -> Observed<TIMES> {
        let zero = Times::default().read();
        let times = self
            .all()
            .map(|counts| counts.times[method as usize].read());
        times.fold(zero, |sum, times| sum.plus(&times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::ApiError;

    #[test]
    fn plain_reads_take_as_long_as_their_round() {
        let (counts, now) = (Counts::new(2), Instant::now());
        for worker in [0, 1, 1] {
            counts.of(worker).received(Method::Get);
            counts.of(worker).read(true, worker == 0);
            counts.of(worker).answered(Method::Get, now, now);
        }
        assert_eq!(counts.times(Method::Get).count(), 0, "not before its end");
        counts.round(1, Duration::from_millis(3));
        counts.round(1, Duration::from_secs(9));
        let times = counts.times(Method::Get);
        assert_eq!((times.count(), times.sum), (2, 0.006));
        counts.round(0, Duration::ZERO);
        assert_eq!(counts.times(Method::Get).count(), 3);
        assert_eq!(counts.received(Method::Get), 3);
        let reads = |found, recursive| counts.reads(found, recursive);
        assert_eq!((reads(true, false), reads(true, true)), (2, 1));
        assert_eq!((reads(false, false), counts.received(Method::Put)), (0, 0));
    }

    #[test]
    fn what_waits_is_timed_from_when_it_was_asked() {
        let (counts, asked) = (Counts::new(1), Instant::now());
        let now = asked + Duration::from_millis(20);
        counts.of(0).answered(Method::QGet, asked, now);
        counts.succeeded(Method::Put, Duration::from_millis(7));
        assert_eq!(counts.times(Method::QGet).sum, 0.02);
        assert_eq!(counts.times(Method::Put).sum, 0.007);
    }

    #[test]
    fn every_error_of_the_key_space_has_its_place() {
        let counts = Counts::new(1);
        for code in 0..1000 {
            let status = ApiError::new(code, "", 0).status();
            counts.failed(Method::Put, status);
        }
        let failures: Vec<(u16, u64)> = counts.failures(Method::Put).collect();
        let all: u64 = failures.iter().map(|(_, count)| count).sum();
        assert_eq!(all, 1000);
        assert_eq!(
            failures.iter().find(|(code, _)| *code == 404),
            Some(&(404, 1))
        );
        assert_eq!(counts.failures(Method::Get).count(), 0);
    }

    #[test]
    fn methods_are_in_the_order_of_their_numbers() {
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
        }
    }
}
