//! Records the operations of clients: five kinds of writes, and quorum reads, through random members.
//!
//! Every value is written by only one operation, so a value that is read identifies its writer. Clients stop using a
//! key after a while and take a new one, which keeps the history of each key short.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Client, Json, Random};

pub const ROOT: &str = "/linear";
/// The directory of the in-order keys.
const QUEUE: &str = "/linear/queue";
const KEYS: u64 = 3;
const OPERATIONS_OF_A_KEY: u64 = 60;
/// Time limit of an operation. After that, its outcome is unknown.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);
/// Pause between two operations of a client. It is chosen so that the events of a few seconds fit into the watch
/// history.
const THINKING_MS: u64 = 20;

#[derive(Clone, Debug)]
pub enum Request {
    Put {
        key: String,
        value: String,
    },
    /// `prevValue`.
    Swap {
        key: String,
        value: String,
        expected: String,
    },
    /// `prevIndex`, and the value that had this index.
    SwapIndex {
        key: String,
        value: String,
        index: u64,
        expected: String,
    },
    Delete {
        key: String,
    },
    Post {
        value: String,
    },
    Read {
        key: String,
    },
}

/// The outcome. `at` and `index` are the store's index, which orders all operations.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The index of the change, and the value it replaced.
    Written {
        key: String,
        index: u64,
        previous: Option<String>,
    },
    Found {
        value: String,
        modified: u64,
        at: u64,
    },
    /// The key does not exist.
    Absent { at: u64 },
    /// The condition was false.
    Refused { at: u64 },
    /// No answer, or error 300: the operation may have been done, or may still be done later.
    Unknown,
}

/// An operation and its outcome. Times are nanoseconds since the start of the test.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: u64,
    /// Printed in error messages.
    #[allow(dead_code)]
    pub node: usize,
    pub request: Request,
    pub outcome: Outcome,
    pub sent: u64,
    pub answered: u64,
}

impl Request {
    /// The key of the operation. An in-order creation has none before it is answered.
    pub fn key(&self) -> &str {
        match self {
            Request::Post { .. } => QUEUE,
            Request::Put { key, .. }
            | Request::Swap { key, .. }
            | Request::SwapIndex { key, .. }
            | Request::Delete { key }
            | Request::Read { key } => key,
        }
    }

    /// The value that it writes.
    pub fn value(&self) -> Option<&str> {
        match self {
            Request::Put { value, .. }
            | Request::Swap { value, .. }
            | Request::SwapIndex { value, .. }
            | Request::Post { value } => Some(value),
            Request::Delete { .. } | Request::Read { .. } => None,
        }
    }

    /// The action of its event.
    pub fn action(&self) -> &'static str {
        match self {
            Request::Put { .. } => "set",
            Request::Swap { .. } | Request::SwapIndex { .. } => "compareAndSwap",
            Request::Delete { .. } => "delete",
            Request::Post { .. } => "create",
            Request::Read { .. } => "get",
        }
    }

    fn wire(&self) -> (&'static str, String) {
        let target = format!("/v2/keys{}", self.key());
        match self {
            Request::Put { value, .. } => ("PUT", format!("{target}?value={value}")),
            Request::Swap {
                value, expected, ..
            } => (
                "PUT",
                format!("{target}?value={value}&prevValue={expected}"),
            ),
            Request::SwapIndex { value, index, .. } => {
                ("PUT", format!("{target}?value={value}&prevIndex={index}"))
            }
            Request::Delete { .. } => ("DELETE", target),
            Request::Post { value } => ("POST", format!("{target}?value={value}")),
            Request::Read { .. } => ("GET", format!("{target}?quorum=true")),
        }
    }
}

/// State shared by all clients.
pub struct Recorder {
    start: Instant,
    stop: AtomicBool,
    /// Number of operations so far. It determines which keys are in use.
    count: AtomicU64,
    /// The highest `X-Etcd-Index` and `X-Raft-Term` that each node has returned.
    marks: Vec<Mutex<(u64, u64)>>,
    /// `X-Etcd-Cluster-Id`. It must be the same in all responses of all nodes.
    cluster: OnceLock<String>,
}

impl Recorder {
    pub fn new(nodes: usize) -> Recorder {
        Recorder {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            count: AtomicU64::new(0),
            marks: (0..nodes).map(|_| Mutex::default()).collect(),
            cluster: OnceLock::new(),
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn mark(&self, node: usize) -> (u64, u64) {
        *self.marks[node].lock().expect("no client panics here")
    }

    /// Checks that a node's index and term never decrease, even across restarts. `before` are the node's highest
    /// values when the request was sent.
    fn note(&self, node: usize, before: (u64, u64), answer: &Answer) {
        let number = |name| answer.header(name).and_then(|text| text.parse().ok());
        let index: Option<u64> = number("X-Etcd-Index");
        let term: Option<u64> = number("X-Raft-Term");
        let forth = index.is_none_or(|index| index >= before.0);
        let forth = forth && term.is_none_or(|term| term >= before.1);
        assert!(
            forth,
            "node {node} went back: it had index and term {before:?}, and now answers {answer:?}"
        );
        let id = answer.header("X-Etcd-Cluster-Id").unwrap_or_default();
        let first = self.cluster.get_or_init(|| id.to_owned());
        assert_eq!(
            id, first,
            "another cluster's id, from node {node}: {answer:?}"
        );
        let mut mark = self.marks[node].lock().expect("no client panics here");
        mark.0 = mark.0.max(index.unwrap_or(0));
        mark.1 = mark.1.max(term.unwrap_or(0));
    }
}

/// Runs one client until the recorder is stopped. Returns its operations.
pub fn act_until_stopped(
    recorder: &Recorder,
    addresses: &[SocketAddr],
    number: u64,
    seed: u64,
) -> Vec<Operation> {
    let mut actor = Actor {
        number,
        noise: Random(seed),
        seen: HashMap::new(),
        client: Client::new(addresses.to_vec()),
        history: Vec::new(),
    };
    while !recorder.stop.load(Ordering::Relaxed) {
        actor.act(recorder);
        sleep(Duration::from_millis(actor.noise.below(THINKING_MS)));
    }
    actor.history
}

struct Actor {
    number: u64,
    noise: Random,
    /// The last value and index that it saw of each key.
    seen: HashMap<String, (String, u64)>,
    client: Client,
    history: Vec<Operation>,
}

impl Actor {
    fn act(&mut self, recorder: &Recorder) {
        let request = self.choose(recorder);
        let node = self.noise.below(self.client.members() as u64) as usize;
        let before = recorder.mark(node);
        let (method, target) = request.wire();
        let sent = recorder.now();
        let answer = self.client.ask(node, method, &target, None, GIVEN_UP_AFTER);
        let answered = recorder.now();
        let outcome = outcome(&request, &answer);
        // Error 300 has index 0 in both servers.
        if let Some(answer) = answer.as_ref().ok().filter(|answer| answer.status < 500) {
            recorder.note(node, before, answer);
        }
        self.remember(&request, &outcome);
        self.history.push(Operation {
            client: self.number,
            node,
            request,
            outcome,
            sent,
            answered,
        });
    }

    fn choose(&mut self, recorder: &Recorder) -> Request {
        let count = recorder.count.fetch_add(1, Ordering::Relaxed);
        let generation = count / (OPERATIONS_OF_A_KEY * KEYS);
        let key = format!("{ROOT}/g{generation}/k{}", self.noise.below(KEYS));
        let value = format!("c{}n{}", self.number, self.history.len());
        let seen = self.seen.get(&key).cloned();
        match (self.noise.below(10), seen) {
            (0 | 1, Some((expected, _))) => Request::Swap {
                key,
                value,
                expected,
            },
            (2 | 3, Some((expected, index))) => Request::SwapIndex {
                key,
                value,
                index,
                expected,
            },
            (4, _) => Request::Delete { key },
            (5, _) => Request::Post { value },
            (6 | 7, _) => Request::Read { key },
            _ => Request::Put { key, value },
        }
    }

    fn remember(&mut self, request: &Request, outcome: &Outcome) {
        let key = request.key().to_owned();
        match (outcome, request.value()) {
            (Outcome::Written { index, .. }, Some(value)) => {
                self.seen.insert(key, (value.to_owned(), *index));
            }
            (
                Outcome::Found {
                    value, modified, ..
                },
                _,
            ) => {
                self.seen.insert(key, (value.clone(), *modified));
            }
            _ => {}
        }
    }
}

fn outcome(request: &Request, answer: &io::Result<Answer>) -> Outcome {
    let Ok(answer) = answer else {
        return Outcome::Unknown;
    };
    if answer.status >= 500 {
        return Outcome::Unknown;
    }
    let body = answer.json();
    let text = |pointer| body.at(pointer).and_then(Json::text).map(str::to_owned);
    let number = |pointer| {
        let found = body.at(pointer).and_then(Json::number);
        found.unwrap_or_else(|| panic!("no {pointer} in {answer:?}"))
    };
    match (answer.status, request) {
        (404, _) => Outcome::Absent {
            at: number("/index"),
        },
        (412, _) => Outcome::Refused {
            at: number("/index"),
        },
        (200, Request::Read { .. }) => Outcome::Found {
            value: text("/node/value").expect("a value"),
            modified: number("/node/modifiedIndex"),
            at: answer.index(),
        },
        (200 | 201, _) => Outcome::Written {
            key: text("/node/key").expect("a key"),
            index: number("/node/modifiedIndex"),
            previous: text("/prevNode/value"),
        },
        _ => panic!("{request:?}: {answer:?}"),
    }
}
