//! Watchers that move from member to member, and streams that stay with one member.
//!
//! All watchers that use `waitIndex` must see the same events, each once and in order, up to the last one. A stream
//! must see the same events without a gap, from the index in its header on until it is cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::client::form_request;
use crate::harness::{Connection, Json, Line, Random};
use crate::history::ROOT;

/// After this time without an event, a watcher moves to another member.
const PATIENCE_WITH_A_MEMBER: Duration = Duration::from_millis(700);
/// Pause after a refused connection.
const BEFORE_TRYING_AGAIN: Duration = Duration::from_millis(5);
/// Time limit for the last event, which is written when all faults are removed.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(60);
/// The value of the last event.
pub const END: &str = "the-end";

/// One change, as a watcher receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub action: String,
    pub key: String,
    pub value: Option<String>,
    pub previous: Option<String>,
}

/// Changes by their index.
pub type Log = BTreeMap<u64, Event>;

fn parse(line: &[u8]) -> (u64, Event) {
    let text = String::from_utf8_lossy(line);
    let event = Json::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let field = |pointer| event.at(pointer).and_then(Json::text).map(str::to_owned);
    let index = event.at("/node/modifiedIndex").and_then(Json::number);
    let parsed = Event {
        action: field("/action").expect("an action"),
        key: field("/node/key").expect("a key"),
        value: field("/node/value"),
        previous: field("/prevNode/value"),
    };
    (index.expect("an index"), parsed)
}

/// Follows by `waitIndex` through random members until the last event, or until it is stopped.
pub fn follow(addresses: &[SocketAddr], start: u64, seed: u64, stop: &AtomicBool) -> Log {
    let (mut noise, mut log, mut next) = (Random(seed), Log::new(), start + 1);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        assert!(
            last.elapsed() < PATIENCE_AT_THE_END,
            "a follower timed out waiting for an event from {next} on"
        );
        let member = noise.below(addresses.len() as u64) as usize;
        let Ok(mut connection) = Connection::open(addresses[member]) else {
            sleep(BEFORE_TRYING_AGAIN);
            continue;
        };
        // Reads a few events through this member, then moves to the next one.
        for _ in 0..1 + noise.below(20) {
            let Some((index, event)) = next_event(&mut connection, next) else {
                break;
            };
            assert!(
                index >= next,
                "asked from {next} on, received {index}: {event:?}"
            );
            let is_last = event.value.as_deref() == Some(END);
            log.insert(index, event);
            if is_last {
                return log;
            }
            (next, last) = (index + 1, Instant::now());
        }
    }
    log
}

fn next_event(connection: &mut Connection, next: u64) -> Option<(u64, Event)> {
    let target = format!("/v2/keys{ROOT}?wait=true&recursive=true&waitIndex={next}");
    connection.write(&form_request("GET", &target, None)).ok()?;
    let head = connection.head(false, PATIENCE_WITH_A_MEMBER).ok()?;
    let Line::Is(line) = connection.line(PATIENCE_WITH_A_MEMBER) else {
        return None;
    };
    // Status 400 would mean that the watcher is so far behind that the history no longer has the next event.
    let text = String::from_utf8_lossy(&line).into_owned();
    assert_eq!(head.status, 200, "watch from {next} on: {text}");
    (connection.line(PATIENCE_WITH_A_MEMBER) == Line::End).then(|| parse(&line))
}

/// The events that one stream received: all after `after`.
pub struct Stream {
    pub member: usize,
    after: u64,
    told: Log,
}

/// Opens streams of one member. Opens a new one whenever the last was cut.
pub fn stream(address: SocketAddr, member: usize, stop: &AtomicBool) -> Vec<Stream> {
    let mut streams = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match one_stream(address, member, stop) {
            Some(stream) => streams.push(stream),
            None => sleep(BEFORE_TRYING_AGAIN),
        }
    }
    streams
}

fn one_stream(address: SocketAddr, member: usize, stop: &AtomicBool) -> Option<Stream> {
    let target = format!("/v2/keys{ROOT}?wait=true&recursive=true&stream=true");
    let mut connection = Connection::open(address).ok()?;
    connection.write(&form_request("GET", &target, None)).ok()?;
    let head = connection.head(false, PATIENCE_WITH_A_MEMBER).ok()?;
    assert_eq!(head.status, 200, "{head:?}");
    let (after, mut told) = (head.index(), Log::new());
    while !stop.load(Ordering::Relaxed) {
        match connection.line(Duration::from_millis(100)) {
            Line::Is(line) if line.ends_with(b"\n") => {
                let (index, event) = parse(&line);
                let last = told.last_key_value().map_or(after, |(index, _)| *index);
                assert!(index > last, "received {index} after {last}: {event:?}");
                told.insert(index, event);
            }
            Line::Silence => {}
            // The stream was cut, perhaps in the middle of a line.
            _ => break,
        }
    }
    Some(Stream {
        member,
        after,
        told,
    })
}

impl Stream {
    /// Compares the events with those that happened. Returns the number of events received.
    pub fn check(&self, log: &Log) -> usize {
        let (Some((last, _)), Some((first, _))) =
            (self.told.last_key_value(), log.first_key_value())
        else {
            return 0;
        };
        // A stream may begin on a member that has not yet applied the writes before the run.
        let begin = (self.after + 1).max(*first);
        let between = |log: &Log| -> Log {
            let events = log.range(begin..=(*last).max(begin));
            events
                .map(|(index, event)| (*index, event.clone()))
                .collect()
        };
        assert_eq!(
            between(log),
            between(&self.told),
            "what happened, and what a stream of member {} received",
            self.member
        );
        self.told.len()
    }
}
