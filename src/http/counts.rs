//! Requests of the key space, counted and timed: etcd's `etcd_http_*`, the reads of `/v2/stats/store`.
//!
//! A plain read costs about as much as a few cache misses, so it must not pay for being counted: each worker of
//! the door has a [`Tally`] of its own, which no other thread writes. A counter there is a load and a store, and
//! plain reads are timed by the round: all that were answered in one took as long as the round, which is one
//! look at the clock for all of them.
//!
//! Counted are the requests that etcd counts, as it counts them: those whose parameters are good, but no
//! watches, unless they fail. A quorum read has the method `QGET`. What is answered on another thread than the
//! worker's (writes, by the raft thread) goes to one tally that all share.

use crate::histogram::{Histogram, Observed};
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// 0.5 ms to 2.048 s, as etcd's `etcd_http_successful_duration_seconds` has them.
const TIMES: usize = 14;

/// What answers took.
pub type Times = Histogram<500, TIMES>;

/// Statuses of key-space errors.
const CODES: [u16; 7] = [400, 401, 403, 404, 412, 500, 503];

/// What a request is, as etcd's label `method` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Method {
    /// A plain read, from this member's newest view.
    Get,
    /// A plain read's head.
    Head,
    /// A read through consensus.
    QGet,
    /// A write, as the next two.
    Put,
    /// In-order creation.
    Post,
    /// A removal.
    Delete,
}

impl Method {
    /// All of them, in the order of their numbers.
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
    /// By worker of the door.
    tallies: Box<[Tally]>,
    elsewhere: Tally,
}

/// What one worker has counted. Alone in its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    /// Plain reads that this round has answered with success; see [`Counts::round`].
    in_round: [AtomicU64; 2],
    received: [AtomicU64; Method::ALL.len()],
    /// Nodes looked up in the tree: found or not, then recursively or not.
    reads: [[AtomicU64; 2]; 2],
    watches: AtomicU64,
    failed: [[AtomicU64; CODES.len()]; Method::ALL.len()],
    times: [Times; Method::ALL.len()],
}

/// Only one thread writes `counter`.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// To be called on the tally's own thread only.
impl Tally {
    /// A request with good parameters has come.
    pub fn received(&self, method: Method) {
        bump(&self.received[method as usize]);
    }

    /// A watch with good parameters has come.
    pub fn watch(&self) {
        bump(&self.watches);
    }

    /// A node was looked up in the tree.
    pub fn read(&self, found: bool, recursive: bool) {
        bump(&self.reads[usize::from(!found)][usize::from(recursive)]);
    }

    /// A request is answered with this status of an error.
    pub fn failed(&self, method: Method, status: u16) {
        bump(&self.failed[method as usize][place(status)]);
    }

    /// A read is answered with success, in the round that began `now`. One that came in this round takes as
    /// long as the round; another has been `asked` before.
    pub fn answered(&self, method: Method, asked: Instant, now: Instant) {
        match self.in_round.get(method as usize) {
            Some(counter) => bump(counter),
            None => self.times[method as usize].add(now.saturating_duration_since(asked)),
        }
    }
}

/// Where a status is in [`CODES`].
fn place(status: u16) -> usize {
    let found = CODES.iter().position(|code| *code == status);
    found.unwrap_or_else(|| unreachable!("no error of the key space has status {status}"))
}

impl Counts {
    /// Nothing counted yet, for so many workers.
    pub fn new(workers: usize) -> Counts {
        Counts {
            tallies: iter::repeat_with(Tally::default).take(workers).collect(),
            elsewhere: Tally::default(),
        }
    }

    /// The tally of the worker on whose thread this is.
    pub fn of(&self, worker: usize) -> &Tally {
        self.tallies.get(worker).unwrap_or(&self.elsewhere)
    }

    /// A worker's round has ended: what it has answered took so long.
    pub fn round(&self, worker: usize, took: Duration) {
        let tally = self.of(worker);
        for (counter, times) in tally.in_round.iter().zip(&tally.times) {
            let count = counter.load(Relaxed);
            if count > 0 {
                counter.store(0, Relaxed);
                times.add_many(took, count);
            }
        }
    }

    /// A request took so long to be answered with success. On any thread.
    pub fn succeeded(&self, method: Method, took: Duration) {
        self.elsewhere.times[method as usize].add(took);
    }

    /// A request is answered with this status of an error. On any thread.
    pub fn failed(&self, method: Method, status: u16) {
        self.elsewhere.failed[method as usize][place(status)].fetch_add(1, Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter().chain(iter::once(&self.elsewhere))
    }

    fn sum(&self, of: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        self.all().map(|tally| of(tally).load(Relaxed)).sum()
    }

    /// Requests with good parameters.
    pub fn received(&self, method: Method) -> u64 {
        self.sum(|tally| &tally.received[method as usize])
    }

    /// Watches with good parameters.
    pub fn watches(&self) -> u64 {
        self.sum(|tally| &tally.watches)
    }

    /// Nodes looked up in the tree.
    pub fn reads(&self, found: bool, recursive: bool) -> u64 {
        self.sum(|tally| &tally.reads[usize::from(!found)][usize::from(recursive)])
    }

    /// Requests answered with an error, by its status; those that there were.
    pub fn failures(&self, method: Method) -> impl Iterator<Item = (u16, u64)> {
        let codes = CODES.iter().enumerate();
        let counts = codes.map(move |(n, code)| {
            let count = self.sum(|tally| &tally.failed[method as usize][n]);
            (*code, count)
        });
        counts.filter(|(_, count)| *count > 0)
    }

    /// How long requests took that were answered with success, as far as this member saw them.
    pub fn times(&self, method: Method) -> Observed<TIMES> {
        let zero = Times::default().read();
        let times = self.all().map(|tally| tally.times[method as usize].read());
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
