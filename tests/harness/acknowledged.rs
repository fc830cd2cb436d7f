//! Writers that record which writes were acknowledged, and the check of the keys afterwards.
//!
//! Every writer has its own keys, so each key has one history: the last acknowledged value, and the later writes
//! without an answer. After a crash a key must have one of these values, and no other key may exist. A write without
//! an answer may or may not have been made.
//!
//! With several nodes, a write without an answer may still be in progress while the next one is acknowledged through
//! another node ([`AcknowledgedWrites::of_cluster`]). To detect that a write was made *twice*, writers create in-order keys
//! ([`AcknowledgedWrites::post`]): each value must have at most one key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};

use super::client::{Answer, Connection, PATIENCE, form_request};
use super::json::Json;
use super::{Arc, Random};

/// All writers use keys below this one.
pub const ROOT: &str = "/ledger";
/// The directory of the in-order keys.
const QUEUE: &str = "/ledger-queue";
pub const KEYS_OF_A_WRITER: u64 = 8;

const WRONG_SHOWN: usize = 50;

/// The value of a key. `None`: the key does not exist.
type Value = Option<String>;

#[derive(Clone, Debug, Default)]
struct Entry {
    acknowledged: Value,
    /// Writes sent since then without an answer, oldest first.
    unknown: Vec<Value>,
}

#[derive(Clone, Debug, Default)]
pub struct AcknowledgedWrites {
    entries: BTreeMap<String, Entry>,
    /// The values created in order, and whether the creation was acknowledged.
    posts: BTreeMap<String, bool>,
    /// Whether a write without an answer may still be made after later writes were acknowledged.
    late: bool,
    /// Number of acknowledged writes.
    pub acknowledged: u64,
    /// Number of writes answered with a server error (5xx).
    pub refused: u64,
}

impl AcknowledgedWrites {
    pub fn of_cluster() -> AcknowledgedWrites {
        AcknowledgedWrites {
            late: true,
            ..AcknowledgedWrites::default()
        }
    }

    /// Creates an in-order key with a unique value. Errors are as in [`AcknowledgedWrites::write`].
    pub fn post(&mut self, connection: &mut Connection, value: &str) -> std::io::Result<Answer> {
        self.posts.insert(value.to_owned(), false);
        let form = format!("value={value}");
        let target = format!("/v2/keys{QUEUE}");
        connection.write(&form_request("POST", &target, Some(&form)))?;
        let answer = connection.answer(false, PATIENCE)?;
        match answer.status {
            201 => {
                self.acknowledged += 1;
                self.posts.insert(value.to_owned(), true);
            }
            500.. => self.refused += 1,
            _ => panic!("POST {value}: {answer:?}"),
        }
        Ok(answer)
    }

    /// Sends one write and records its outcome. After an error, the connection is no longer usable.
    pub fn write(
        &mut self,
        connection: &mut Connection,
        key: &str,
        value: Value,
    ) -> std::io::Result<Answer> {
        let target = format!("/v2/keys{key}");
        let bytes = match &value {
            Some(value) => form_request("PUT", &target, Some(&format!("value={value}"))),
            None => form_request("DELETE", &target, None),
        };
        let entry = self.entries.entry(key.to_owned()).or_default();
        entry.unknown.push(value.clone());
        connection.write(&bytes)?;
        let answer = connection.answer(false, PATIENCE)?;
        match answer.status {
            200 | 201 => self.acknowledged += 1,
            404 if value.is_none() => {}
            500.. => {
                self.refused += 1;
                return Ok(answer);
            }
            _ => panic!("{key} = {value:?}: {answer:?}"),
        }
        entry.acknowledged = value;
        if self.late {
            entry.unknown.pop();
        } else {
            entry.unknown.clear();
        }
        Ok(answer)
    }

    /// Merges the records of another writer. Writers share no keys.
    pub fn merge(&mut self, other: AcknowledgedWrites) {
        self.entries.extend(other.entries);
        self.posts.extend(other.posts);
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
    }

    /// Compares the records with the keys on the server, and continues from there. Panics with a list of all wrong
    /// keys.
    pub fn check(&mut self, connection: &mut Connection) {
        let found: BTreeMap<String, String> = listing(connection, ROOT).into_iter().collect();
        let mut wrong = self.wrong_posts(connection);
        for (key, value) in &found {
            if !self.entries.contains_key(key) {
                wrong.push(format!(
                    "{key} has the value {value:?}, but no writer wrote it"
                ));
            }
        }
        for (key, entry) in &mut self.entries {
            let value = found.get(key).cloned();
            if entry.acknowledged != value && !entry.unknown.contains(&value) {
                wrong.push(format!("{key} holds {value:?}; {entry:?}"));
            }
            entry.acknowledged = value;
            if !self.late {
                entry.unknown.clear();
            }
        }
        assert!(
            wrong.is_empty(),
            "{} keys are wrong:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(WRONG_SHOWN)].join("\n")
        );
    }

    /// Lists in-order values that are missing, appear twice, or were never written.
    fn wrong_posts(&self, connection: &mut Connection) -> Vec<String> {
        if self.posts.is_empty() {
            return Vec::new();
        }
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in listing(connection, QUEUE) {
            keys.entry(value).or_default().push(key);
        }
        let twice = keys.iter().filter(|(_, keys)| keys.len() > 1);
        let mut wrong: Vec<String> = twice
            .map(|(value, keys)| format!("{value} was created {} times: {keys:?}", keys.len()))
            .collect();
        let foreign = keys.keys().filter(|value| !self.posts.contains_key(*value));
        wrong.extend(
            foreign.map(|value| format!("{value} has an in-order key, but no writer created it")),
        );
        let lost = self
            .posts
            .iter()
            .filter(|(value, acknowledged)| **acknowledged && !keys.contains_key(*value));
        wrong.extend(lost.map(|(value, _)| format!("{value} was acknowledged but is missing")));
        wrong
    }
}

/// All files below a folder, with their values.
fn listing(connection: &mut Connection, folder: &str) -> Vec<(String, String)> {
    let target = format!("/v2/keys{folder}?recursive=true&quorum=true");
    let answer = connection.ask("GET", &target, None).expect("a listing");
    let mut files = Vec::new();
    if answer.status == 404 {
        return files;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let document = answer.json();
    let mut waiting = vec![document.get("node").expect("a node")];
    while let Some(node) = waiting.pop() {
        let text = |name| node.get(name).and_then(Json::text);
        if let (Some(key), Some(value)) = (text("key"), text("value")) {
            files.push((key.to_owned(), value.to_owned()));
        }
        waiting.extend(node.get("nodes").map(Json::items).unwrap_or_default());
    }
    files
}

/// Threads that write until they are stopped or their connection ends.
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<AcknowledgedWrites>>,
}

impl Writers {
    /// Starts `count` threads. Each one continues the part of the record that has its keys.
    pub fn start(
        address: SocketAddr,
        count: u64,
        seed: u64,
        ledger: &AcknowledgedWrites,
    ) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|number| {
                let folder = format!("{ROOT}/w{number}/");
                let mut own = AcknowledgedWrites::default();
                for (key, entry) in &ledger.entries {
                    if key.starts_with(&folder) {
                        own.entries.insert(key.clone(), entry.clone());
                    }
                }
                let (stop, noise) = (Arc::clone(&stop), Random(seed ^ (number << 32)));
                spawn(move || write_until_stopped(address, &folder, noise, own, &stop))
            })
            .collect();
        Writers { stop, threads }
    }

    /// Stops the threads and merges their records into the given one.
    pub fn finish(self, ledger: &mut AcknowledgedWrites) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            ledger.merge(thread.join().expect("a writer"));
        }
    }
}

fn write_until_stopped(
    address: SocketAddr,
    folder: &str,
    mut noise: Random,
    mut ledger: AcknowledgedWrites,
    stop: &AtomicBool,
) -> AcknowledgedWrites {
    let Ok(mut connection) = Connection::open(address) else {
        return ledger;
    };
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{folder}k{}", noise.below(KEYS_OF_A_WRITER));
        let value = match noise.below(10) {
            0 => None,
            1 => Some(format!("{:x}", noise.next()).repeat(50)),
            _ => Some(format!("{:x}", noise.next())),
        };
        if ledger.write(&mut connection, &key, value).is_err() {
            break;
        }
    }
    ledger
}
