//! Watchers must see every event exactly once: compares the events that they received with the log of writes.
//!
//! Writers record the index of every acknowledged write. Watchers follow with `waitIndex`, as clients do; some
//! disconnect at times, some use a stream. At the end each must have seen exactly the writes below its path, in the
//! order of their indexes. `WATCH_ROUNDS` and `WATCH_SEED` give longer and other runs.

mod harness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use harness::client::{PATIENCE, form_request};
use harness::{Answer, Connection, Json, Line, Random, Server, setting, wait_for};

const WRITERS: u64 = 4;
/// The total stays below the 1,000 events of the history, so no index is ever outdated.
const WRITES_OF_EACH: u64 = 200;
const FOLDERS: u64 = 3;
const KEYS: u64 = 5;

/// One change: its key, and its action with the new value.
type Change = (String, String);
/// Changes by their index.
type Log = BTreeMap<u64, Change>;

/// The path that a watcher follows.
#[derive(Clone, Debug)]
struct Path {
    key: String,
    recursive: bool,
    is_folder: bool,
}

impl Path {
    fn covers(&self, key: &str) -> bool {
        let below = || {
            key.strip_prefix(&self.key)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        key == self.key || (self.recursive && below())
    }

    /// The key of the last event of this path.
    fn end(&self) -> String {
        if self.is_folder {
            format!("{}/end", self.key)
        } else {
            self.key.clone()
        }
    }

    fn target(&self, more: &str) -> String {
        format!(
            "/v2/keys{}?wait=true&recursive={}{more}",
            self.key, self.recursive
        )
    }
}

#[test]
fn watchers_see_every_write_once_and_in_order() {
    let mut noise = Random(setting("WATCH_SEED", 9));
    let server = Server::start(&[]);
    for round in 0..setting("WATCH_ROUNDS", 3) {
        let seen = one_round(&server, round, &mut noise);
        println!("round {round}: {seen} events seen by all watchers together");
        assert!(seen > 1000);
    }
}

fn one_round(server: &Server, round: u64, noise: &mut Random) -> usize {
    let root = format!("/watching{round}");
    let start = server
        .ask("PUT", &format!("/v2/keys{root}/start?value=1"), None)
        .index();
    let address = server.address();
    let watchers: Vec<(Path, JoinHandle<Log>)> = paths(&root)
        .into_iter()
        .flat_map(|path| [(path.clone(), false), (path.clone(), false), (path, true)])
        .map(|(path, stream)| {
            let (own, noise) = (path.clone(), Random(noise.next()));
            let follow = if stream {
                follow_stream
            } else {
                follow_by_index
            };
            (path, follow(address, own, start, noise))
        })
        .collect();
    let writers: Vec<JoinHandle<Log>> = (0..WRITERS)
        .map(|_| {
            let (root, noise) = (root.clone(), Random(noise.next()));
            spawn(move || write(address, &root, noise))
        })
        .collect();
    let mut log = Log::new();
    for writer in writers {
        for (index, change) in writer.join().expect("a writer") {
            let twice = log.insert(index, change);
            assert!(twice.is_none(), "two writes got index {index}");
        }
    }
    end_all(server, &root, &mut log);
    let mut seen = 0;
    for (path, watcher) in watchers {
        let actual = watcher.join().expect("a watcher");
        let expected: Log = log
            .iter()
            .filter(|(_, (key, _))| path.covers(key))
            .map(|(i, c)| (*i, c.clone()))
            .collect();
        seen += actual.len();
        compare(&path, &expected, &actual);
    }
    seen
}

/// Every folder, three of their keys, and the root.
fn paths(root: &str) -> Vec<Path> {
    let folder = |key| Path {
        key,
        recursive: true,
        is_folder: true,
    };
    let file = |key, recursive| Path {
        key,
        recursive,
        is_folder: false,
    };
    let mut all = vec![folder(root.to_owned())];
    for number in 0..FOLDERS {
        all.push(folder(format!("{root}/f{number}")));
        all.push(file(format!("{root}/f{number}/k0"), false));
        all.push(file(format!("{root}/f{number}/k{}", number + 1), true));
    }
    all
}

fn compare(path: &Path, expected: &Log, actual: &Log) {
    let missed: Vec<_> = expected
        .iter()
        .filter(|(index, _)| !actual.contains_key(index))
        .collect();
    let foreign: Vec<_> = actual
        .iter()
        .filter(|(index, _)| !expected.contains_key(index))
        .collect();
    assert!(missed.is_empty(), "{path:?} missed {missed:?}");
    assert!(
        foreign.is_empty(),
        "{path:?} saw events that no client wrote: {foreign:?}"
    );
    assert_eq!(expected, actual, "{path:?}");
}

/// Makes random changes. Returns the log of those that succeeded.
fn write(address: SocketAddr, root: &str, mut noise: Random) -> Log {
    let mut connection = Connection::open(address).expect("a connection");
    let mut log = Log::new();
    for _ in 0..WRITES_OF_EACH {
        let key = format!("{root}/f{}/k{}", noise.below(FOLDERS), noise.below(KEYS));
        let value = noise.next() % 1000;
        let (method, parameters) = match noise.below(10) {
            0 => ("DELETE", String::new()),
            1 => ("PUT", format!("value={value}&prevExist=false")),
            2 => ("PUT", format!("value={value}&prevExist=true")),
            3 => ("PUT", format!("value={value}&ttl=1000")),
            4 => ("PUT", "refresh=true&ttl=2000".to_owned()),
            _ => ("PUT", format!("value={value}")),
        };
        let answer = connection.ask(method, &format!("/v2/keys{key}?{parameters}"), None);
        let answer = answer.expect("an answer");
        match answer.status {
            // Watchers receive no event for a refresh.
            200 | 201 if parameters.starts_with("refresh") => {}
            200 | 201 => {
                let (index, change) = change(&answer.json());
                assert_eq!(index, answer.index());
                log.insert(index, change);
            }
            404 | 412 => {}
            _ => panic!("{method} {key} {parameters}: {answer:?}"),
        }
    }
    log
}

/// Ends the round for every watcher with a write to each path, which is its last event.
fn end_all(server: &Server, root: &str, log: &mut Log) {
    for path in paths(root).into_iter().rev() {
        let key = if path.is_folder {
            format!("{}/end", path.key)
        } else {
            path.key
        };
        let answer = server.ask("PUT", &format!("/v2/keys{key}?value=end"), None);
        let (index, change) = change(&answer.json());
        log.insert(index, change);
    }
}

fn change(event: &Json) -> (u64, Change) {
    let text = |pointer| {
        event
            .at(pointer)
            .and_then(Json::text)
            .unwrap_or("nothing")
            .to_owned()
    };
    let index = event
        .at("/node/modifiedIndex")
        .and_then(Json::number)
        .expect("an index");
    (
        index,
        (
            text("/node/key"),
            format!("{} {}", text("/action"), text("/node/value")),
        ),
    )
}

/// Follows as clients do: the next request waits from the index after the last event.
fn follow_by_index(
    address: SocketAddr,
    path: Path,
    start: u64,
    mut noise: Random,
) -> JoinHandle<Log> {
    spawn(move || {
        let (mut log, mut next) = (Log::new(), start + 1);
        let mut connection = Connection::open(address).expect("a connection");
        loop {
            let target = path.target(&format!("&waitIndex={next}"));
            connection
                .write(&form_request("GET", &target, None))
                .expect("a request");
            if noise.below(8) == 0 {
                // Disconnects while the response may be in transit, and sends the same request again.
                connection = Connection::open(address).expect("a connection");
                continue;
            }
            let head = connection.head(false, PATIENCE).expect("a head");
            assert_eq!(
                head.status,
                200,
                "{target}: {:?}",
                connection.line(PATIENCE)
            );
            let Line::Is(line) = connection.line(PATIENCE) else {
                panic!("{target}: no event came")
            };
            assert_eq!(
                connection.line(PATIENCE),
                Line::End,
                "one event is one answer"
            );
            let (index, change) = noted(&mut log, &line);
            if change == (path.end(), "set end".to_owned()) {
                return log;
            }
            next = index + 1;
        }
    })
}

/// A response without an end, registered before the first write.
fn follow_stream(address: SocketAddr, path: Path, _start: u64, _noise: Random) -> JoinHandle<Log> {
    let mut connection = Connection::open(address).expect("a connection");
    connection
        .write(&form_request("GET", &path.target("&stream=true"), None))
        .expect("a request");
    let head = connection.head(false, PATIENCE).expect("a head");
    assert_eq!(head.status, 200);
    spawn(move || {
        let mut log = Log::new();
        loop {
            let Line::Is(line) = connection.line(PATIENCE) else {
                panic!("{path:?}: no event came")
            };
            if noted(&mut log, &line).1 == (path.end(), "set end".to_owned()) {
                return log;
            }
        }
    })
}

/// Records an event. It must be newer than all previous ones.
fn noted(log: &mut Log, line: &[u8]) -> (u64, Change) {
    let text = String::from_utf8_lossy(line);
    let event = Json::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (index, change) = change(&event);
    let last = log.last_key_value().map_or(0, |(index, _)| *index);
    assert!(index > last, "event {index} came after {last}: {text}");
    log.insert(index, change.clone());
    (index, change)
}

/// The server registers a watch before it reads the history: a watch from the index of the last response misses
/// nothing.
#[test]
fn nothing_falls_between_history_and_waiting() {
    let server = Server::start(&[]);
    let address = server.address();
    let writes = setting("WATCH_ROUNDS", 3) * 300;
    let watcher = spawn(move || {
        let mut connection = Connection::open(address).expect("a connection");
        let (mut next, mut seen) = (1, 0);
        while seen < writes {
            let target = format!("/v2/keys/one?wait=true&waitIndex={next}");
            let answer: Answer = connection.ask("GET", &target, None).expect("an event");
            let event = answer.json();
            if answer.status != 200 {
                panic!("{answer:?}");
            }
            next = change(&event).0 + 1;
            seen += 1;
            let value = event
                .at("/node/value")
                .and_then(Json::text)
                .map(str::to_owned);
            assert_eq!(value, Some(seen.to_string()), "the next write in order");
        }
        seen
    });
    let mut connection = server.connect();
    for number in 1..=writes {
        let answer = connection.ask("PUT", "/v2/keys/one", Some(&format!("value={number}")));
        assert!(answer.expect("an answer").status < 300);
    }
    assert_eq!(watcher.join().expect("the watcher"), writes);
}

#[test]
fn an_outdated_index_is_told_with_the_oldest_that_is_kept() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let first = connection
        .ask("PUT", "/v2/keys/old?value=1", None)
        .expect("an answer")
        .index();
    for _ in 0..1000 {
        connection
            .ask("PUT", "/v2/keys/foreign?value=1", None)
            .expect("an answer");
    }
    let target = format!("/v2/keys/old?wait=true&waitIndex={first}");
    let answer = connection.ask("GET", &target, None).expect("an answer");
    assert_eq!(answer.status, 400, "{answer:?}");
    let cause = format!(
        "the requested history has been cleared [{}/{first}]",
        first + 1
    );
    assert_eq!(
        answer.json().get("cause").and_then(Json::text),
        Some(cause.as_str())
    );
    // The way to recover: read the key, then wait from the index of that response.
    let read = connection
        .ask("GET", "/v2/keys/old", None)
        .expect("an answer");
    let target = format!("/v2/keys/old?wait=true&waitIndex={}", read.index() + 1);
    connection
        .write(&form_request("GET", &target, None))
        .expect("a request");
    assert_eq!(
        connection.head(false, PATIENCE).expect("a head").status,
        200
    );
    assert_eq!(connection.line(Duration::from_millis(50)), Line::Silence);
    server.ask("PUT", "/v2/keys/old?value=2", None);
    wait_for("the event", PATIENCE, || match connection.line(PATIENCE) {
        Line::Is(_) => Some(()),
        _ => None,
    });
}

/// A longer history, set by a flag, lets an idle watch continue despite many other writes.
#[test]
fn a_wider_history_keeps_an_idle_watch_alive() {
    const FOREIGN: u64 = 5000;
    let server = Server::start(&["--watch-history=6000"]);
    let mut connection = server.connect();
    let mut put = |key: &str| {
        let answer = connection.ask("PUT", key, Some("value=1"));
        let answer = answer.expect("an answer");
        assert!(answer.status < 300, "{answer:?}");
        change(&answer.json()).0
    };
    let idle_since = put("/v2/keys/mine");
    let last = (0..FOREIGN)
        .map(|number| put(&format!("/v2/keys/foreign/{}", number % 10)))
        .last();
    assert_eq!(last, Some(idle_since + FOREIGN));
    let target = format!("/v2/keys/mine?wait=true&waitIndex={}", idle_since + 1);
    let mut watch = server.connect();
    watch
        .write(&form_request("GET", &target, None))
        .expect("a request");
    let head = watch.head(false, PATIENCE).expect("a head");
    assert_eq!(head.status, 200, "{head:?}");
    // All events since the first start are kept, including those of the members.
    assert_eq!(head.header("X-Edgetcd-First-Index"), Some("1"));
    let told = put("/v2/keys/mine");
    let Line::Is(event) = watch.line(PATIENCE) else {
        panic!("the watch ended")
    };
    assert!(String::from_utf8_lossy(&event).contains(&format!("\"modifiedIndex\":{told}")));
}
