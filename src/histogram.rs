//! Histograms of durations: counters in buckets, as Prometheus expects them.
//!
//! Any thread can add and read, and no thread waits. Each bound is twice the one before, as in etcd's histograms, so
//! etcd's dashboards work. Each observation is counted in one bucket only, and [`Histogram::read`] adds the buckets up.
//! Counters never decrease.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// `B` buckets. There are `B - 1` bounds, from `LEAST_US` microseconds on, each twice the one before. The last bucket
/// has no bound.
#[derive(Debug)]
pub struct Histogram<const LEAST_US: u64, const B: usize> {
    buckets: [AtomicU64; B],
    /// Sum of all durations in nanoseconds.
    sum_ns: AtomicU64,
}

/// Durations of syncs and other disk operations: 1 ms to 8.192 s.
pub type DiskTimes = Histogram<1000, 15>;

impl<const LEAST_US: u64, const B: usize> Default for Histogram<LEAST_US, B> {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl<const LEAST_US: u64, const B: usize> Histogram<LEAST_US, B> {
    /// Counts one duration.
    pub fn add(&self, took: Duration) {
        self.add_many(took, 1);
    }

    /// Counts `count` equal durations.
    pub fn add_many(&self, took: Duration, count: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (0..B - 1).find(|n| ns <= (LEAST_US * 1000) << n);
        self.buckets[bucket.unwrap_or(B - 1)].fetch_add(count, Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(count), Relaxed);
    }

    /// The counts so far.
    pub fn read(&self) -> Observed<B> {
        let mut observed = Observed {
            bounds: std::array::from_fn(|n| match n + 1 < B {
                true => LEAST_US as f64 / 1e6 * (1_u64 << n) as f64,
                false => f64::INFINITY,
            }),
            counts: std::array::from_fn(|n| self.buckets[n].load(Relaxed)),
            sum: self.sum_ns.load(Relaxed) as f64 / 1e9,
        };
        for n in 1..B {
            observed.counts[n] += observed.counts[n - 1];
        }
        observed
    }
}

/// The counts of a histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed<const B: usize> {
    /// Upper bounds in seconds, ascending. The last one is infinite.
    pub bounds: [f64; B],
    /// Number of durations up to the bound at the same position. The last one counts all.
    pub counts: [u64; B],
    /// Sum of all durations in seconds.
    pub sum: f64,
}

impl<const B: usize> Observed<B> {
    /// Number of all durations.
    pub fn count(&self) -> u64 {
        self.counts[B - 1]
    }

    /// The sum of two histograms with the same bounds.
    #[must_use]
    pub fn plus(&self, other: &Observed<B>) -> Observed<B> {
        Observed {
            bounds: self.bounds,
            counts: std::array::from_fn(|n| self.counts[n] + other.counts[n]),
            sum: self.sum + other.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_up_to_its_bound_and_above() {
        let times = Histogram::<1000, 4>::default();
        let us = Duration::from_micros;
        for took in [us(0), us(1000), us(1001), us(4000), us(4001)] {
            times.add(took);
        }
        times.add_many(us(2000), 3);
        let read = times.read();
        assert_eq!(read.bounds, [0.001, 0.002, 0.004, f64::INFINITY]);
        assert_eq!(read.counts, [2, 6, 7, 8]);
        assert!((read.sum - 0.016_002).abs() < 1e-12, "{}", read.sum);
        let twice = read.plus(&read);
        assert_eq!((twice.count(), twice.counts[0]), (16, 4));
    }

    /// Dashboards use these bounds by name.
    #[test]
    fn bounds_are_short_decimals() {
        let bounds = DiskTimes::default().read().bounds;
        let shown: Vec<String> = bounds.iter().map(|bound| bound.to_string()).collect();
        assert_eq!(shown[..4], ["0.001", "0.002", "0.004", "0.008"]);
        assert_eq!(shown[12..], ["4.096", "8.192", "inf"]);
    }
}
