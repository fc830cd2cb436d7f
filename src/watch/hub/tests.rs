//! Tests of the hub with real watchers: an HTTP server on loopback whose handler registers them.

use super::{FRESH_MAX, Interest, MESSAGES_MAX, Registered, View, Views};
use crate::api::WatchHub;
use crate::http1::{Answer, Handler, HttpServer, Limits, Reply, Request, listen};
use crate::raft::{LogIndex, Term};
use crate::tree::{Action, Applied, ClusterTime, Command, Key, Stamp, Tree, TreeIndex};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough to notice an event that must not arrive.
const PAUSE: Duration = Duration::from_millis(100);

/// A handler that registers the watch described by the path and the query of each request.
struct Watches(Arc<WatchHub>, Arc<Mutex<()>>);

impl Handler for Watches {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        let query = String::from_utf8_lossy(request.query().unwrap_or_default()).into_owned();
        if query.contains("block") {
            // A second reference to the gate shows the test that this worker waits.
            let gate = self.1.clone();
            drop(gate.lock());
        }
        let from = query.split('&').find_map(|pair| pair.strip_prefix("from="));
        let interest = Interest {
            key: Key::new(request.path()),
            recursive: query.contains("recursive"),
            stream: query.contains("stream"),
            from: TreeIndex(from.map_or(0, |text| text.parse().expect("a number"))),
        };
        let mut reply = Some(reply);
        let mut take = || reply.take().expect("a poll parks once");
        if query.contains("mute") {
            let hub = self.0.clone();
            return self
                .0
                .park_mute(&interest, |token| take().park(Answer::new(200), hub, token));
        }
        let registered = self.0.register(&interest, |token, _| {
            take().park(Answer::new(200), self.0.clone(), token)
        });
        let Some(reply) = reply else { return };
        reply.send(match registered {
            Ok(Registered::Parked) => unreachable!("its reply was taken"),
            Ok(Registered::Hit(event, _)) => {
                let mut body = Vec::new();
                event.render(&mut body);
                Answer::new(200).body(body)
            }
            Err(error) => Answer::new(error.status()),
        });
    }
}

/// A hub with its thread, a tree whose changes it publishes, and an HTTP server.
struct Stand {
    hub: Arc<WatchHub>,
    tree: Mutex<Tree>,
    http_server: HttpServer,
    thread: Option<JoinHandle<()>>,
    /// While the test holds it, a request to block waits.
    gate: Arc<Mutex<()>>,
}

impl Stand {
    /// With a running watch thread.
    fn new() -> Stand {
        let mut stand = Stand::asleep(2);
        stand.wake();
        stand
    }

    /// Without a running watch thread.
    fn asleep(workers: usize) -> Stand {
        Stand::limited(workers, Limits::default())
    }

    /// Without a running watch thread.
    fn limited(workers: usize, limits: Limits) -> Stand {
        let gate = Arc::new(Mutex::new(()));
        let tree = Tree::new(1000);
        let mut hub = WatchHub::new(view(&tree));
        // A test must not depend on how soon its clients get a processor.
        hub.burst_max = limits.lag_time;
        let hub = Arc::new(hub);
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let handler = Arc::new(Watches(hub.clone(), gate.clone()));
        let http_server =
            HttpServer::open(vec![listener], workers, limits, handler).expect("an HTTP server");
        Stand {
            hub,
            tree: Mutex::new(tree),
            http_server,
            thread: None,
            gate,
        }
    }

    fn wake(&mut self) {
        let hub = self.hub.clone();
        self.thread = Some(std::thread::spawn(move || hub.deliver()));
    }

    /// Opens a watch, and waits until it is registered or answered.
    fn watch(&self, target: &str) -> Client {
        let mut client = Client::open(self.http_server.addresses()[0]);
        client.ask(target);
        client
    }

    fn apply(&self, command: &Command) -> Applied {
        let mut tree = self.tree.lock().expect("no test panics here");
        let applied = tree.apply(command, Stamp::default()).expect("it is taken");
        self.hub.publish(view(&tree), vec![applied.clone()]);
        applied
    }

    fn put(&self, key: &str) -> u64 {
        self.apply(&command(Action::Set, key)).event.index.0
    }

    fn put_value(&self, key: &str, bytes: usize) -> u64 {
        let command = Command {
            value: "v".repeat(bytes).as_bytes().into(),
            ..command(Action::Set, key)
        };
        self.apply(&command).event.index.0
    }

    /// Removes a directory.
    fn remove(&self, key: &str) -> u64 {
        let command = Command {
            dir: true,
            recursive: true,
            ..command(Action::Delete, key)
        };
        self.apply(&command).event.index.0
    }

    #[track_caller]
    fn waits_for(&self, watchers: usize) {
        let begin = Instant::now();
        while self.hub.watchers() != watchers {
            let now = self.hub.watchers();
            assert!(begin.elapsed() < PATIENCE, "{now} watchers, not {watchers}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.hub.close();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watch thread does not panic");
        }
    }
}

fn view(tree: &Tree) -> View {
    View {
        tree: tree.clone(),
        applied: LogIndex(tree.index().0),
        term: Term(1),
    }
}

fn command(action: Action, key: &str) -> Command {
    Command::new(action, Key::new(key.as_bytes()))
}

/// A client that reads responses line by line.
struct Client {
    stream: BufReader<TcpStream>,
    chunked: bool,
}

impl Client {
    fn open(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        Client {
            stream: BufReader::new(stream),
            chunked: false,
        }
    }

    fn send(&mut self, target: &str) {
        self.patience(PATIENCE);
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut socket = self.stream.get_ref();
        socket.write_all(request.as_bytes()).expect("it is sent");
    }

    fn ask(&mut self, target: &str) {
        self.send(target);
        self.chunked = false;
        loop {
            let line = self.line().expect("a head").to_ascii_lowercase();
            self.chunked |= line.starts_with("transfer-encoding");
            if line == "\r\n" {
                return;
            }
        }
    }

    fn patience(&self, time: Duration) {
        let socket = self.stream.get_ref();
        socket.set_read_timeout(Some(time)).expect("a time limit");
    }

    /// `None` if the connection is closed, or silent until the timeout.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(length) if length > 0 => Some(line),
            _ => None,
        }
    }

    /// The index of the next event; `None` at the end of the response, or if it was cut.
    fn event(&mut self) -> Option<u64> {
        if self.chunked && self.line()? == "0\r\n" {
            self.line()?;
            return None;
        }
        let event = self.line()?;
        if self.chunked {
            self.line()?;
        }
        let (_, rest) = event.split_once("\"modifiedIndex\":").expect("an event");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(digits.parse().expect("an index"))
    }

    #[track_caller]
    fn is_silent(&mut self) {
        self.patience(PAUSE);
        let event = self.event();
        assert_eq!(event, None, "an event that does not concern it");
        self.patience(PATIENCE);
    }

    /// Reads until the connection is closed.
    fn ends(&mut self) -> bool {
        self.stream.read_to_end(&mut Vec::new()).is_ok()
    }
}

#[test]
fn a_poll_is_told_once_and_leaves() {
    let stand = Stand::new();
    let mut client = stand.watch("/a");
    stand.waits_for(1);
    let index = stand.put("/a");
    stand.put("/a");
    assert_eq!(client.event(), Some(index));
    assert_eq!(client.event(), None, "its answer ends");
    stand.waits_for(0);
    // Its connection sends another request.
    client.ask("/a?from=2");
    assert_eq!(client.event(), Some(2), "from the history");
    assert_eq!(stand.hub.watchers(), 0);
}

#[test]
fn only_what_comes_after_registering_is_told_and_not_before_its_index() {
    let mut stand = Stand::asleep(2);
    // Without any watcher, events are not queued for matching.
    let _other = stand.watch("/other");
    stand.put("/a");
    let mut now = stand.watch("/a");
    let mut future = stand.watch("/a?from=4");
    stand.waits_for(3);
    for _ in 2..=4 {
        stand.put("/a");
    }
    stand.wake();
    assert_eq!(now.event(), Some(2), "event 1 was published before it came");
    assert_eq!(future.event(), Some(4));
}

#[test]
fn a_stream_has_every_event_in_order() {
    let stand = Stand::new();
    let mut stream = stand.watch("/d?recursive&stream");
    let mut plain = stand.watch("/d/7?stream");
    stand.waits_for(2);
    for number in 1..=200 {
        stand.put(&format!("/d/{}", number % 10));
        if number % 50 == 0 {
            // Each client is always less than a hundred events behind.
            let told: Vec<_> = (0..50).map(|_| stream.event()).collect();
            let wanted: Vec<_> = (number - 49..=number).map(Some).collect();
            assert_eq!(told, wanted);
        }
    }
    for number in 0..20 {
        assert_eq!(plain.event(), Some(number * 10 + 7));
    }
    assert_eq!(stand.hub.watchers(), 2, "streams stay");
}

#[test]
fn whom_a_change_concerns() {
    let stand = Stand::new();
    let targets = [
        "/",
        "/?recursive",
        "/d",
        "/d?recursive",
        "/d/x",
        "/d2?recursive",
    ];
    let mut clients: Vec<Client> = targets.iter().map(|target| stand.watch(target)).collect();
    stand.waits_for(6);
    stand.put("/d/_hidden/x");
    stand.waits_for(6);
    let index = stand.put("/d/x");
    stand.waits_for(3);
    let told = [false, true, false, true, true, false];
    for ((client, told), target) in clients.iter_mut().zip(told).zip(targets) {
        if told {
            assert_eq!(client.event(), Some(index), "{target}");
        } else {
            client.is_silent();
        }
    }
}

#[test]
fn the_end_of_a_directory_is_told_below_it_where_something_was() {
    let stand = Stand::new();
    stand.put("/d/was/x");
    stand.put("/d-sibling");
    let mut told: Vec<Client> = ["/d", "/d/was", "/d/was/x", "/d/was?recursive"]
        .iter()
        .map(|target| stand.watch(target))
        .collect();
    let mut untold: Vec<Client> = ["/d/never", "/d/was/x/below", "/d-sibling", "/d!"]
        .iter()
        .map(|target| stand.watch(target))
        .collect();
    stand.waits_for(8);
    let index = stand.remove("/d");
    for client in &mut told {
        assert_eq!(client.event(), Some(index));
    }
    stand.waits_for(4);
    untold.iter_mut().for_each(Client::is_silent);
}

/// Keys with thousands of levels delay no one.
#[test]
fn deep_keys_are_matched_fast() {
    let stand = Stand::new();
    let deep = "/d".repeat(20_000);
    let mut waiting: Vec<Client> = (0..3).map(|_| stand.watch("/d/d/d?stream")).collect();
    let mut recursive = stand.watch("/d/d?recursive&stream");
    stand.waits_for(4);
    let begin = Instant::now();
    let mut published = Duration::ZERO;
    let indexes: Vec<u64> = (0..20)
        .map(|_| {
            let mut tree = stand.tree.lock().expect("no test panics here");
            let applied = tree.apply(&command(Action::Set, &deep), Stamp::default());
            let applied = applied.expect("it is taken");
            let begin = Instant::now();
            stand.hub.publish(view(&tree), vec![applied.clone()]);
            published = published.max(begin.elapsed());
            applied.event.index.0
        })
        .collect();
    for index in indexes {
        assert_eq!(recursive.event(), Some(index));
    }
    waiting.iter_mut().for_each(Client::is_silent);
    println!(
        "published within {published:?}, all in {:?}",
        begin.elapsed()
    );
    assert!(published < Duration::from_millis(500), "{published:?}");
}

#[test]
fn a_mute_poll_counts_and_is_told_nothing() {
    let stand = Stand::new();
    let mut mute = stand.watch("/a?mute&stream");
    stand.waits_for(1);
    stand.put("/a");
    mute.is_silent();
    assert_eq!(stand.hub.watchers(), 1);
    drop(mute);
    stand.waits_for(0);
}

#[test]
fn those_who_go_leave_nothing_and_take_nobody_with_them() {
    let stand = Stand::new();
    let mut leaving: Vec<Client> = (0..50).map(|_| stand.watch("/a?recursive")).collect();
    let mut staying: Vec<Client> = (0..50).map(|_| stand.watch("/a?recursive")).collect();
    stand.waits_for(100);
    // Some clients close the connection, others only their sending side.
    for (number, client) in leaving.drain(..).enumerate() {
        if number % 2 == 0 {
            let socket = client.stream.get_ref();
            socket.shutdown(Shutdown::Write).expect("a shutdown");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    stand.waits_for(50);
    // Other watchers use their slots. Late reports about the previous watchers must not affect them.
    let mut new: Vec<Client> = (0..50).map(|_| stand.watch("/b")).collect();
    stand.waits_for(100);
    let generations: u32 = {
        let state = stand.hub.lock();
        assert_eq!(state.watchers.slots.len(), 100, "slots are used again");
        state
            .watchers
            .slots
            .iter()
            .map(|slot| slot.generation)
            .sum()
    };
    assert_eq!(generations, 150);
    let of_nobody = crate::watch::matching::token(1, 99) | 7 << 32;
    crate::http1::Gone::gone(&*stand.hub, of_nobody);
    assert_eq!(stand.hub.watchers(), 100, "that token was never given");
    let (a, b) = (stand.put("/a/x"), stand.put("/b"));
    staying
        .iter_mut()
        .for_each(|client| assert_eq!(client.event(), Some(a)));
    new.iter_mut()
        .for_each(|client| assert_eq!(client.event(), Some(b)));
    stand.waits_for(0);
    assert!(stand.hub.lock().watchers.by_path.is_empty());
}

#[test]
fn a_burst_cuts_nobody() {
    let mut stand = Stand::asleep(2);
    let _stream = stand.watch("/other?recursive&stream");
    let mut poll = stand.watch("/a?recursive");
    stand.waits_for(2);
    for _ in 0..=FRESH_MAX {
        stand.put("/a/x");
    }
    stand.wake();
    assert_eq!(poll.event(), Some(1), "the first event is still the first");
    stand.waits_for(1);
}

/// Events that are published together, and together exceed the budget for unsent events many times, reach a client that
/// reads. The watch thread waits for it.
#[test]
fn a_burst_of_large_events_waits_for_a_client_that_reads() {
    let mut stand = Stand::limited(
        2,
        Limits {
            streams_bytes: 2 << 20,
            lag_time: PATIENCE,
            ..Limits::default()
        },
    );
    let mut stream = stand.watch("/a?stream");
    stand.waits_for(1);
    for _ in 0..60 {
        stand.put_value("/a", 400_000);
    }
    stand.wake();
    for index in 1..=60 {
        assert_eq!(stream.event(), Some(index));
    }
    assert_eq!(stand.http_server.stats().streams_cut, 0);
}

/// A client that reads nothing costs others a short delay at most, and its stream is the one that is cut.
#[test]
fn a_stream_that_fills_the_budget_is_cut_and_no_other() {
    let mut stand = Stand::limited(
        2,
        Limits {
            streams_bytes: 2 << 20,
            ..Limits::default()
        },
    );
    stand.wake();
    let mut stalled = stand.watch("/d?recursive&stream");
    let mut following = stand.watch("/d/a?stream");
    stand.waits_for(2);
    for _ in 0..60 {
        let index = stand.put_value("/d/a", 400_000);
        assert_eq!(following.event(), Some(index));
    }
    stand.waits_for(1);
    let index = stand.put("/d/a");
    assert_eq!(following.event(), Some(index));
    assert!(stalled.ends());
    let begin = Instant::now();
    while stand.http_server.stats().streams_bytes > 0 {
        assert!(begin.elapsed() < PATIENCE, "everything was sent or freed");
        std::thread::yield_now();
    }
    assert_eq!(stand.http_server.stats().streams_cut, 1);
}

#[test]
fn streams_that_hold_up_their_worker_are_cut() {
    let mut stand = Stand::asleep(1);
    stand.wake();
    let mut stream = stand.watch("/a?recursive&stream");
    let mut poll = stand.watch("/b");
    stand.waits_for(2);
    let gate = stand.gate.clone();
    let closed = gate.lock().expect("nobody panics with it");
    let mut blocking = Client::open(stand.http_server.addresses()[0]);
    let owners = Arc::strong_count(&gate);
    blocking.send("/x?block");
    let begin = Instant::now();
    while Arc::strong_count(&gate) == owners {
        assert!(begin.elapsed() < PATIENCE, "the worker takes no request");
        std::thread::yield_now();
    }
    for _ in 0..MESSAGES_MAX + FRESH_MAX + 1000 {
        stand.put("/a/x");
    }
    stand.waits_for(1);
    drop(closed);
    assert!(stream.ends(), "the client that lagged is cut");
    let index = stand.put("/b");
    assert_eq!(poll.event(), Some(index), "the poll is none the worse");
}

#[test]
fn nothing_is_kept_while_nobody_waits() {
    let stand = Stand::asleep(2);
    for _ in 0..10 {
        stand.put("/a");
    }
    assert!(stand.hub.lock().fresh.is_empty());
    assert_eq!(stand.hub.view().tree.index(), TreeIndex(10));
}

#[test]
fn events_and_registrations_race_and_none_is_missed() {
    let stand = Stand::new();
    const EVENTS: u64 = 500;
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::open(stand.http_server.addresses()[0]);
                    for next in 1..=EVENTS {
                        client.ask(&format!("/a?from={next}"));
                        assert_eq!(client.event(), Some(next));
                        if client.chunked {
                            assert_eq!(client.event(), None);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..EVENTS {
            stand.put("/a");
            std::thread::yield_now();
        }
        for follower in followers {
            follower.join().expect("it has them all");
        }
    });
    stand.waits_for(0);
}

#[test]
fn an_expired_directory_is_told_as_a_removed_one() {
    let stand = Stand::new();
    stand.apply(&Command {
        dir: true,
        ttl: Some(1),
        ..command(Action::Set, "/d")
    });
    stand.put("/d/x");
    let mut below = stand.watch("/d/x");
    stand.waits_for(1);
    let mut tree = stand.tree.lock().expect("no test panics here");
    let expired = tree.expire(ClusterTime(2_000_000_000));
    stand.hub.publish(view(&tree), expired);
    assert_eq!(below.event(), Some(3));
}
