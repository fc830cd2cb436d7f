//! Many writing clients of a cluster. They record acknowledged writes, latencies and failures.
//!
//! A writer stays with one member while it answers. After a failure the writer moves to the next member that is open
//! to the crowd. Nine of ten writes are PUTs and DELETEs of the writer's own keys. One creates an in-order key, which
//! shows whether a command is applied twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::harness::acknowledged::{AcknowledgedWrites, KEYS_OF_A_WRITER, ROOT};
use crate::harness::{Connection, Random, percentile, wait_for};

/// A pause after a failure, so that clients without a server do not use all CPU time.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

pub struct Crowd {
    targets: Arc<Targets>,
    threads: Vec<JoinHandle<WriterResults>>,
}

struct Targets {
    addresses: Vec<SocketAddr>,
    /// One bit for each member that the clients may use.
    open: AtomicU64,
    /// Number of requests in progress at each member.
    busy: Vec<AtomicU64>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Number of bytes that are added to each value. With padding, no in-order keys are created, so the number of
    /// keys stays constant.
    padding: usize,
}

/// The results of one writer, or of all of them.
#[derive(Default)]
pub struct WriterResults {
    pub ledger: AcknowledgedWrites,
    /// Send time and latency of each acknowledged write.
    pub latencies: Vec<(Instant, Duration)>,
    /// Send time and error of each failed write.
    pub failures: Vec<(Instant, String)>,
}

impl WriterResults {
    /// The given percentile of the latency of the writes that were sent in that period.
    pub fn percentile(&self, share: f64, from: Instant, to: Instant) -> Duration {
        let sent = self
            .latencies
            .iter()
            .filter(|(at, _)| (from..to).contains(at));
        let mut samples: Vec<Duration> = sent.map(|(_, took)| *took).collect();
        percentile(&mut samples, share)
    }
}

impl WriterResults {
    /// A text about the first few failures.
    pub fn first_failures(&self) -> String {
        let texts: Vec<&str> = self
            .failures
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        let some = texts[..texts.len().min(3)].join("; ");
        format!("{} failed: {some}", texts.len())
    }
}

impl Crowd {
    /// `round` makes the values of this crowd differ from those of other crowds on the same cluster.
    pub fn start(addresses: Vec<SocketAddr>, count: u64, round: u64) -> Crowd {
        Crowd::start_padded(addresses, count, round, 0)
    }

    /// Writers of larger values, with a constant number of keys.
    pub fn start_padded(
        addresses: Vec<SocketAddr>,
        count: u64,
        round: u64,
        padding: usize,
    ) -> Crowd {
        let targets = Arc::new(Targets {
            open: AtomicU64::new((1 << addresses.len()) - 1),
            busy: addresses.iter().map(|_| AtomicU64::new(0)).collect(),
            addresses,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            padding,
        });
        let threads = (0..count)
            .map(|number| {
                let targets = Arc::clone(&targets);
                spawn(move || write_until_stopped(&targets, round, number))
            })
            .collect();
        Crowd { targets, threads }
    }

    /// Number of writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.targets.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `count` more writes are acknowledged.
    pub fn wait_writes(&self, count: u64, within: Duration) {
        let goal = self.acknowledged() + count;
        wait_for(&format!("{count} writes of the crowd"), within, || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Closes a member to the crowd. Returns when the last request to it has ended.
    pub fn leave(&self, member: usize) {
        self.targets
            .open
            .fetch_and(!(1 << member), Ordering::SeqCst);
        let what = format!("the last answers of member {member}");
        wait_for(&what, Duration::from_secs(20), || {
            (self.targets.busy[member].load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    /// Opens a member to the crowd again.
    pub fn come_back(&self, member: usize) {
        self.targets.open.fetch_or(1 << member, Ordering::SeqCst);
    }

    /// Stops all writers and returns their results.
    pub fn finish(mut self) -> WriterResults {
        self.targets.stop.store(true, Ordering::Relaxed);
        let mut all = WriterResults {
            ledger: AcknowledgedWrites::of_cluster(),
            ..WriterResults::default()
        };
        for thread in std::mem::take(&mut self.threads) {
            let one = thread.join().expect("a writer");
            all.ledger.merge(one.ledger);
            all.latencies.extend(one.latencies);
            all.failures.extend(one.failures);
        }
        all
    }
}

/// Stops the writers if the test fails, because the server's addresses may be reused after the test.
impl Drop for Crowd {
    fn drop(&mut self) {
        self.targets.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            // The thread's panic is already printed.
            let _ = thread.join();
        }
    }
}

impl Targets {
    /// Takes an open member, `wanted` or the next one. `free` gives it back.
    fn take(&self, wanted: usize) -> Option<usize> {
        let count = self.addresses.len();
        for member in (0..count).map(|step| (wanted + step) % count) {
            self.busy[member].fetch_add(1, Ordering::SeqCst);
            if self.open.load(Ordering::SeqCst) & (1 << member) != 0 {
                return Some(member);
            }
            self.free(member);
        }
        None
    }

    fn free(&self, member: usize) {
        self.busy[member].fetch_sub(1, Ordering::SeqCst);
    }
}

fn write_until_stopped(targets: &Targets, round: u64, number: u64) -> WriterResults {
    let mut tally = WriterResults {
        ledger: AcknowledgedWrites::of_cluster(),
        ..WriterResults::default()
    };
    let mut noise = Random(round ^ (number << 32));
    let mut wanted = number as usize;
    let mut connection: Option<(usize, Connection)> = None;
    for write in 0.. {
        if targets.stop.load(Ordering::Relaxed) {
            break;
        }
        let Some(member) = targets.take(wanted) else {
            sleep(AFTER_FAILURE);
            continue;
        };
        wanted = member;
        let kept = connection.take().filter(|(to, _)| *to == member);
        let sent = Instant::now();
        let name = format!("r{round}w{number}n{write}");
        let key = format!(
            "{ROOT}/r{round}w{number}/k{}",
            noise.below(KEYS_OF_A_WRITER)
        );
        let opened = kept.map_or_else(
            || Connection::open(targets.addresses[member]),
            |(_, c)| Ok(c),
        );
        let outcome = opened.and_then(|mut open| {
            let answer = match noise.below(10) {
                0 if targets.padding == 0 => tally.ledger.post(&mut open, &name)?,
                1 => tally.ledger.write(&mut open, &key, None)?,
                _ => {
                    let value = name + &"v".repeat(targets.padding);
                    tally.ledger.write(&mut open, &key, Some(value))?
                }
            };
            connection = Some((member, open));
            Ok(answer)
        });
        targets.free(member);
        let failure = match outcome {
            Ok(answer) if answer.status < 500 => {
                tally.latencies.push((sent, sent.elapsed()));
                targets.acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        };
        let failure = format!(
            "through member {member} after {:?}: {failure}",
            sent.elapsed()
        );
        tally.failures.push((sent, failure));
        wanted += 1;
        sleep(AFTER_FAILURE);
    }
    tally
}
