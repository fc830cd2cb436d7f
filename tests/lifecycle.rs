//! Start and stop: how soon the server serves, how few resources it uses when idle, and how it ends.
//!
//! The limits apply to a release build (`make bars`). A debug build may use more memory and time, and its size is not
//! checked. `IDLE_SECONDS=30` measures longer.

mod harness;

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use edgetcd::engine::entry;
use edgetcd::raft::{Entry, Payload, Position};
use edgetcd::wal::{Batch, DataDir, Options, RealDisk, recover};
use harness::acknowledged::{AcknowledgedWrites, Writers};
use harness::client::{PATIENCE, form_request};
use harness::server::{Place, is_release, program};
use harness::{Connection, Line, Server, percentile, setting, wait_for};
use rustix::process::Signal;

/// Runs one test at a time, because they measure time and memory.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let _alone = alone();
    stopped_under_load(Signal::TERM);
}

#[test]
fn sigint_under_load_loses_nothing() {
    let _alone = alone();
    stopped_under_load(Signal::INT);
}

/// The tests themselves may run with ignored signals, for example in the background of a script.
const SIGNALS_AS_USUAL: [&str; 2] = ["env", "--default-signal=HUP,INT,QUIT,TERM,PWR"];

fn stopped_under_load(signal: Signal) {
    let mut server = Server::prepare(&[]);
    server.wrap(&SIGNALS_AS_USUAL);
    server.launch();
    let mut watches: Vec<Connection> = (0..100)
        .map(|number| {
            let mut watch = server.connect();
            let target = format!("/v2/keys/nobody/{number}?wait=true");
            watch
                .write(&form_request("GET", &target, None))
                .expect("a request");
            assert_eq!(watch.head(false, PATIENCE).expect("a head").status, 200);
            watch
        })
        .collect();
    let mut ledger = AcknowledgedWrites::default();
    let writers = Writers::start(server.address(), 16, 7, &ledger);
    wait_writes(&server, 200);
    server.signal(signal);
    let (status, time) = server.wait_end(Duration::from_secs(10));
    writers.finish(&mut ledger);
    assert!(time < Duration::from_secs(2), "it took {time:?} to end");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        ledger.acknowledged > 100,
        "only {} writes",
        ledger.acknowledged
    );
    for watch in &mut watches {
        assert_eq!(
            watch.line(PATIENCE),
            Line::Cut,
            "a watch ends without its final chunk"
        );
    }
    server.launch();
    ledger.check(&mut server.connect());
}

/// A terminal that closes, a user who wants the server to end at once, a power supply that fails.
#[test]
fn sighup_sigquit_and_sigpwr_under_load_lose_nothing() {
    let _alone = alone();
    stopped_under_load(Signal::HUP);
    stopped_under_load(Signal::QUIT);
    stopped_under_load(Signal::POWER);
}

#[test]
fn signals_without_a_meaning_do_nothing() {
    let server = Server::start(&[]);
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::XCPU,
        Signal::XFSZ,
    ] {
        server.signal(signal);
        assert_eq!(
            server.ask("PUT", "/v2/keys/a?value=1", None).status / 100,
            2
        );
    }
    assert!(server.runs(), "{}", server.log());
}

/// `nohup` makes a program ignore SIGHUP, and it must stay ignored.
#[test]
fn a_signal_that_is_ignored_from_the_beginning_stays_ignored() {
    let mut server = Server::prepare(&[]);
    server.wrap(&["nohup"]);
    server.launch();
    server.signal(Signal::HUP);
    assert_eq!(server.ask("PUT", "/v2/keys/a?value=1", None).status, 201);
    assert_eq!(server.stop().code(), Some(0));
    // A request may still be answered during a stop, so only the log shows which signal caused the stop.
    let log = server.log();
    assert!(
        log.contains("signal 15: stopping"),
        "an ignored signal has stopped the server:\n{log}"
    );
}

/// The first process of a container: signals without a handler have no effect on it.
#[test]
#[ignore = "needs root and unshare, for a process that is the first of its own"]
fn as_the_first_process_of_a_container_it_stops_for_each_signal() {
    for signal in ["TERM", "INT", "HUP", "QUIT", "PWR"] {
        let mut server = Server::prepare(&[]);
        let [env, signals] = SIGNALS_AS_USUAL;
        server.wrap(&[
            env,
            signals,
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        server.launch();
        server.ask("PUT", "/v2/keys/a?value=1", None);
        // The child of unshare is process 1 in its namespace, but has another number here.
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let inner = fs::read_to_string(children).expect("its children");
        let kill = |signal: &str| {
            let kill = std::process::Command::new("kill")
                .args([&format!("-{signal}"), inner.trim()])
                .status();
            assert!(kill.expect("kill runs").success());
        };
        kill("USR1");
        assert_eq!(server.ask("GET", "/v2/keys/a", None).status, 200);
        kill(signal);
        let (status, _) = server.wait_end(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{signal}: {}", server.log());
        assert!(
            server.log().contains("stopped"),
            "{signal}: {}",
            server.log()
        );
    }
}

/// An etcd that was started on the directory by mistake leaves its database there.
#[test]
fn what_etcd_leaves_in_a_directory_of_its_own_is_no_obstacle() {
    let mut server = Server::start(&[]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    server.stop();
    let member = server.data().join("member");
    fs::write(member.join("snap/db"), "bolt").expect("a file");
    fs::write(member.join("wal/0.tmp"), "etcd's").expect("a file");
    fs::write(
        member.join("wal/0000000000000000-0000000000000000.wal"),
        "etcd's",
    )
    .expect("a file");
    fs::create_dir(server.data().join("proxy")).expect("a folder");
    fs::create_dir(server.data().join("lost+found")).expect("a folder");
    server.launch();
    assert_eq!(server.ask("GET", "/v2/keys/a", None).status, 200);
    assert!(member.join("snap/db").exists() && member.join("wal/0.tmp").exists());
}

/// Appends an entry that only a newer version understands to the log of a member that does not run.
fn append_next_format(data: &Path) {
    let data_dir = DataDir::open(RealDisk::default(), Options::new(data)).expect("it is free");
    let (mut wal, _) = recover(&data_dir).expect("a log");
    let last = wal.last();
    let position = Position {
        index: last.index.next(),
        ..last
    };
    let payload = Payload::Command(entry::next_format().into());
    let batch = Batch {
        entries: vec![Entry { position, payload }],
        ..Batch::default()
    };
    wal.write(&batch).expect("written");
    wal.close().expect("closed");
}

/// A member that applied such an entry would end, and after each restart again.
#[test]
fn a_node_does_not_start_on_an_entry_of_a_newer_version() {
    let mut server = Server::start(&[]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    server.stop();
    append_next_format(server.data());
    let checked = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["wal", "check"])
        .arg(server.data())
        .output()
        .expect("it runs");
    server.spawn();
    let (status, _) = server.wait_end(PATIENCE);
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let newer = format!("cannot be applied: it is of format {}", entry::FORMAT + 1);
    let is_reason = |line: &&str| line.contains(&newer);
    let reason = log.lines().find(is_reason).expect(&log);
    let place = server.data().join("member/wal");
    assert!(reason.contains(&*place.to_string_lossy()), "{reason}");
    let report = String::from_utf8_lossy(&checked.stderr);
    let same = reason.trim_start_matches("edgetcd: ");
    assert!(report.contains(same), "{report} does not say {same}");
}

#[test]
fn a_stop_without_load_is_clean_and_leaves_everything() {
    let _alone = alone();
    let mut server = Server::start(&[]);
    let written = server.ask("PUT", "/v2/keys/a?value=1&ttl=1000", None);
    assert_eq!(server.stop().code(), Some(0), "{}", server.log());
    server.launch();
    let found = server.ask("GET", "/v2/keys/a", None);
    assert_eq!(found.index(), written.index(), "the index continues");
    let expiration = |answer: &harness::Answer| {
        answer
            .json()
            .at("/node/expiration")
            .map(|time| time.to_string())
    };
    assert_eq!(expiration(&found), expiration(&written));
    assert!(expiration(&found).is_some());
}

#[test]
fn the_first_write_is_acknowledged_soon_after_the_start() {
    let _alone = alone();
    let bar = Duration::from_millis(100);
    let mut fresh: Vec<Duration> = (0..5)
        .map(|_| time_to_first_write(&mut Server::prepare(&[])))
        .collect();
    let mut server = Server::start(&[]);
    let mut ledger = AcknowledgedWrites::default();
    let writers = Writers::start(server.address(), 8, 3, &ledger);
    wait_writes(&server, 200);
    writers.finish(&mut ledger);
    let mut again = Vec::new();
    for round in 0..6 {
        match round % 2 {
            0 => server.kill(),
            _ => assert_eq!(server.stop().code(), Some(0), "{}", server.log()),
        }
        again.push(time_to_first_write(&mut server));
    }
    let (fresh, again) = (percentile(&mut fresh, 0.5), percentile(&mut again, 0.5));
    println!(
        "process start to first acknowledged write: {fresh:?} fresh, {again:?} on restart (medians)"
    );
    // On a busy machine, times of a debug build mean nothing. `make bars` checks them.
    assert!(
        fresh < bar && again < bar || !is_release(),
        "the bar is {bar:?}"
    );
}

/// Waits until the tree has had this many changes.
fn wait_writes(server: &Server, count: u64) {
    wait_for("writes", PATIENCE, || {
        let answer = server.ask("GET", "/v2/keys", None);
        let index: u64 = answer.header("X-Etcd-Index")?.parse().ok()?;
        (index > count).then_some(())
    });
}

fn time_to_first_write(server: &mut Server) -> Duration {
    let start = Instant::now();
    server.spawn();
    wait_for(
        "the first acknowledged write",
        Duration::from_secs(20),
        || {
            let mut connection = Connection::open(server.address()).ok()?;
            let answer = connection
                .ask("PUT", "/v2/keys/first", Some("value=1"))
                .ok()?;
            (answer.status < 300).then_some(())
        },
    );
    start.elapsed()
}

#[test]
fn idle_it_needs_little_and_writes_nothing() {
    let _alone = alone();
    let server = Server::start(&[]);
    let time = Duration::from_secs(setting("IDLE_SECONDS", 3));
    let settled = settled_writes(&server);
    let cpu = server.process().cpu();
    sleep(time);
    let written = server.process().written_bytes() - settled;
    let cpu = server.process().cpu() - cpu;
    let memory = server.process().resident_bytes();
    let folder = size(server.data());
    println!(
        "idle {time:?}: {written} bytes written, {cpu:?} of CPU, {memory} bytes resident, {folder} bytes on disk"
    );
    assert_eq!(written, 0, "bytes written in {time:?} of idleness");
    assert!(cpu < time / 50, "{cpu:?} of CPU in {time:?} of idleness");
    assert!(
        folder < 4 << 20,
        "the empty node's folder holds {folder} bytes"
    );
    // Most of a debug build's memory is the program, which is three times as large as that of users.
    let (memory, bar) = match is_release() {
        true => (memory, 6 << 20),
        false => (server.process().anonymous_bytes(), 3 << 20),
    };
    assert!(memory < bar, "{memory} bytes of memory, the bar is {bar}");
}

/// Waits until the start's own writes have ended. Returns the count then.
fn settled_writes(server: &Server) -> u64 {
    let mut last = (server.process().written_bytes(), Instant::now());
    wait_for("the start's writes to end", Duration::from_secs(10), || {
        let now = server.process().written_bytes();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

fn size(path: &Path) -> u64 {
    let meta = fs::symlink_metadata(path).expect("a file");
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path)
        .expect("a folder")
        .map(|entry| size(&entry.expect("an entry").path()))
        .sum()
}

#[test]
#[ignore = "measures the release build: make roottest"]
fn the_program_is_small() {
    assert!(is_release(), "a debug build has no such limit");
    let size = fs::metadata(&program()[0]).expect("the program").len();
    println!("the program has {size} bytes");
    // The feature `tls` adds a third.
    let most = if cfg!(feature = "tls") {
        6_000_000
    } else {
        3_800_000
    };
    assert!(size < most, "{size} bytes, the limit is {most}");
}

/// A start that takes long: here because another initial member accepts a request and never answers.
#[test]
fn a_signal_during_the_start_ends_it_at_once() {
    let _alone = alone();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = Place::free();
    let other = silent.local_addr().expect("its address");
    let cluster = format!("default=http://{},other=http://{other}", place.peer);
    let mut server = Server::prepare_at(&place, &cluster, &[]);
    server.spawn();
    let (_question, _) = silent.accept().expect("it asks");
    assert!(server.ended().is_none(), "it waits:\n{}", server.log());
    server.signal(Signal::TERM);
    let (status, time) = server.wait_end(Duration::from_secs(10));
    assert!(time < Duration::from_secs(1), "it took {time:?} to end");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// A server that cannot start prints the reason, exits with status 1, and leaves no directory behind.
#[test]
fn flags_that_contradict_each_other_leave_nothing() {
    let server = Server::prepare(&["--name=a", "--initial-cluster=b=http://127.0.0.1:1"]);
    let output = server.command().output().expect("a process");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("couldn't find local name"), "{said}");
    assert!(!server.data().exists(), "a directory is left behind");
}

/// Initial members that start together ask each other. A member that waits for answers must not make the others wait.
/// So its peer port refuses connections until it knows its own id: here, until its request to a silent member has
/// timed out.
#[test]
fn a_founder_that_asks_refuses_to_be_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = Place::free();
    let other = silent.local_addr().expect("its address");
    let cluster = format!("default=http://{},other=http://{other}", place.peer);
    let mut server = Server::prepare_at(&place, &cluster, &[]);
    server.spawn();
    let (_question, _) = silent.accept().expect("it asks");
    let refused = TcpStream::connect(place.peer).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    wait_for("its peer port", Duration::from_secs(10), || {
        TcpStream::connect(place.peer).ok()
    });
}
