//! Many writing clients of a cluster, that note what was acknowledged, how long it took and what failed.
//!
//! A writer stays with one member while that answers, and goes to the next one that is open to the
//! crowd when it fails. Nine of ten writes are PUTs and DELETEs of keys of its own; one creates a
//! key in order, which shows whether anything is applied twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::harness::ledger::{KEYS_OF_A_WRITER, Ledger, ROOT};
use crate::harness::{Connection, Random, percentile, wait_for};

/// A pause after a failure, so that a crowd without a server does not eat the processor.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

pub struct Crowd {
    targets: Arc<Targets>,
    threads: Vec<JoinHandle<Tally>>,
}

struct Targets {
    addresses: Vec<SocketAddr>,
    /// One bit for each member the crowd may talk to.
    open: AtomicU64,
    /// Requests under way at each member.
    busy: Vec<AtomicU64>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Bytes of each value beside its name. With padding nothing is created in order: the number of
    /// keys stays what it is.
    padding: usize,
}

/// What one writer, or all together, saw.
#[derive(Default)]
pub struct Tally {
    pub ledger: Ledger,
    /// When each acknowledged write was sent, and how long it took.
    pub latencies: Vec<(Instant, Duration)>,
    /// When each write without success was sent, and what came of it.
    pub failures: Vec<(Instant, String)>,
}

impl Tally {
    /// The latency below which this share of the writes sent in that time lie.
    pub fn percentile(&self, share: f64, from: Instant, to: Instant) -> Duration {
        let sent = self
            .latencies
            .iter()
            .filter(|(at, _)| (from..to).contains(at));
        let mut samples: Vec<Duration> = sent.map(|(_, took)| *took).collect();
        percentile(&mut samples, share)
    }
}

impl Tally {
    /// The first few, in words.
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
    /// `round` makes the values of this crowd differ from those of others on the same cluster.
    pub fn start(addresses: Vec<SocketAddr>, count: u64, round: u64) -> Crowd {
        Crowd::start_padded(addresses, count, round, 0)
    }

    /// Writers of larger values, to a number of keys that does not grow.
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

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.targets.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many further writes are acknowledged.
    pub fn wait_writes(&self, count: u64, within: Duration) {
        let goal = self.acknowledged() + count;
        wait_for(&format!("{count} writes of the crowd"), within, || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Nobody talks to this member any more; returns when its last answer has come.
    pub fn leave(&self, member: usize) {
        self.targets
            .open
            .fetch_and(!(1 << member), Ordering::SeqCst);
        let what = format!("the last answers of member {member}");
        wait_for(&what, Duration::from_secs(20), || {
            (self.targets.busy[member].load(Ordering::SeqCst) == 0).then_some(())
        });
    }

    /// The crowd may talk to this member again.
    pub fn come_back(&self, member: usize) {
        self.targets.open.fetch_or(1 << member, Ordering::SeqCst);
    }

    /// Ends all writers; what they saw together.
    pub fn finish(mut self) -> Tally {
        self.targets.stop.store(true, Ordering::Relaxed);
        let mut all = Tally {
            ledger: Ledger::of_cluster(),
            ..Tally::default()
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

/// When a test fails: no writer outlives the addresses it writes to.
impl Drop for Crowd {
    fn drop(&mut self) {
        self.targets.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            // Its panic has been printed, and one failure is enough.
            let _ = thread.join();
        }
    }
}

impl Targets {
    /// Takes a member that is open, this one or the next; `free` gives it back.
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

fn write_until_stopped(targets: &Targets, round: u64, number: u64) -> Tally {
    let mut tally = Tally {
        ledger: Ledger::of_cluster(),
        ..Tally::default()
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
