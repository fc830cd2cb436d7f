//! `--unsafe-no-fsync`, and what every other node guarantees: no write is acknowledged before it is synced.
//!
//! | what is counted | where |
//! |---|---|
//! | syncs of the log | `etcd_disk_wal_fsync_duration_seconds_count` in `/metrics` |
//! | system calls and responses, in their order | `strace` |

mod harness;

use harness::{Connection, Server, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const NO_FSYNC: &str = "--unsafe-no-fsync";
const WITHIN: Duration = Duration::from_secs(60);
const PUTS: usize = 30;

fn put(connection: &mut Connection, value: usize) {
    let form = format!("value={value}");
    let answer = connection.ask("PUT", "/v2/keys/a", Some(&form));
    let status = answer.expect("an answer").status;
    assert!([200, 201].contains(&status), "status {status}");
}

/// Sends PUTs over one connection, each after the response to the one before.
fn put_in_turn(server: &Server) {
    let mut connection = server.connect();
    (0..PUTS).for_each(|value| put(&mut connection, value));
}

/// The value of a metric without labels.
fn metric(server: &Server, name: &str) -> f64 {
    metric_over(&mut server.connect(), name)
}

fn metric_over(connection: &mut Connection, name: &str) -> f64 {
    let answer = connection.ask("GET", "/metrics", None);
    let page = answer.expect("an answer").text();
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.parse().expect("a number")
}

const SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";

#[test]
fn each_acknowledgement_has_a_sync_of_its_own() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut before = metric_over(&mut connection, SYNCS);
    for at in 0..PUTS {
        put(&mut connection, at);
        let syncs = metric_over(&mut connection, SYNCS);
        assert!(
            syncs >= before + 1.0,
            "write {at}: {before} syncs, then {syncs}"
        );
        before = syncs;
    }
    assert_eq!(metric(&server, "edgetcd_unsafe_no_fsync"), 0.0);
    assert!(!server.whole_log().contains(NO_FSYNC));
}

#[test]
fn without_fsync_no_write_is_synced_and_everybody_is_told() {
    let server = Server::start(&[NO_FSYNC]);
    put_in_turn(&server);
    assert_eq!(metric(&server, SYNCS), 0.0);
    assert_eq!(metric(&server, "edgetcd_unsafe_no_fsync"), 1.0);
    let status = server.ask("GET", "/edgetcd/status", None).text();
    assert!(status.contains("\"unsafe_no_fsync\":true"), "{status}");
    let log = server.whole_log();
    assert!(
        log.contains("acknowledges writes that are not on its disk"),
        "{log}"
    );
    let url = format!("http://{}", server.address());
    let shown = |words: &[&str]| {
        let ctl = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
            .env("ETCDCTL_ENDPOINTS", &url)
            .args(words)
            .output();
        String::from_utf8(ctl.expect("it runs").stdout).expect("UTF-8")
    };
    let table = shown(&["status"]);
    assert!(table.contains("  none  "), "{table}");
    assert!(
        table.ends_with(
            "default runs with --unsafe-no-fsync: if its machine stops, acknowledged writes are lost\n"
        ),
        "{table}"
    );
    let json = shown(&["-o", "json", "status"]);
    assert!(json.contains("\"unsafe_no_fsync\":true"), "{json}");
}

/// The errors of a start that is refused.
fn refused(server: &Server) -> String {
    let mut command = server.command();
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let deadline = Instant::now() + WITHIN;
    while Instant::now() < deadline && child.try_wait().expect("a status").is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    // A start that was not refused must not outlive the test.
    let _ = child.kill();
    let output = child.wait_with_output().expect("it has ended");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn names(server: &Server) -> Vec<PathBuf> {
    let member = server.data().join("member");
    let folders = [member.clone(), member.join("wal"), member.join("snap")];
    let found = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let mut names: Vec<PathBuf> = found.map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    names
}

#[test]
fn data_written_with_syncs_need_the_long_word() {
    let mut server = Server::start(&[]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    server.stop();
    let before = names(&server);
    server.add_flag(NO_FSYNC);
    let said = refused(&server);
    let dir = server.data().display().to_string();
    assert!(
        said.ends_with(&format!(
            "edgetcd: {dir} was written with syncs; with --unsafe-no-fsync, writes that it has acknowledged could be \
             lost\n  omit the flag, or type another --data-dir, or, if nobody needs the data, \
             --unsafe-no-fsync=yes-i-may-lose-data\n"
        )),
        "{said}"
    );
    assert_eq!(names(&server), before, "a refused start changes nothing");
    server.drop_flag(NO_FSYNC);
    server.add_flag("--unsafe-no-fsync=yes-i-may-lose-data");
    server.launch();
    assert_eq!(server.ask("GET", "/v2/keys/a", None).status, 200);
    put_in_turn(&server);
    assert_eq!(metric(&server, SYNCS), 0.0);
    // Now they were written without syncs, so the flag without a value is enough.
    server.stop();
    server.drop_flag("--unsafe-no-fsync=yes-i-may-lose-data");
    server.add_flag(NO_FSYNC);
    server.launch();
    put_in_turn(&server);
    assert_eq!(metric(&server, SYNCS), 0.0);
}

#[test]
fn a_later_start_with_syncs_is_told_and_ends_it() {
    let mut server = Server::start(&[NO_FSYNC]);
    put_in_turn(&server);
    server.kill();
    server.launch(); // again without syncs
    assert_eq!(metric(&server, "edgetcd_unsafe_no_fsync"), 1.0);
    server.stop();
    server.drop_flag(NO_FSYNC);
    server.launch();
    let log = server.whole_log();
    assert!(
        log.contains(
            "The machine has not restarted since, so nothing is lost, if this disk was attached"
        ),
        "{log}"
    );
    let value = server.ask("GET", "/v2/keys/a", None).text();
    assert!(value.contains(&format!("\"{}\"", PUTS - 1)), "{value}");
    assert_eq!(metric(&server, "edgetcd_unsafe_no_fsync"), 0.0);
    server.stop();
    // Everything is synced now, so the directory is one that was written with syncs.
    server.add_flag(NO_FSYNC);
    refused(&server);
}

const MAY_BE_MISSING: &str = "the machine has restarted since: writes and votes that this member has acknowledged may be \
     missing. If other members have the data, replace this one: stop it; edgetcdctl member remove ";

/// The output of `edgetcdctl wal check`, and whether a node can start.
fn checked(server: &Server, words: &[&str]) -> (String, bool) {
    let ctl = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(words)
        .args(["wal", "check"])
        .arg(server.data())
        .output();
    let ctl = ctl.expect("it runs");
    let text = String::from_utf8([ctl.stdout, ctl.stderr].concat()).expect("UTF-8");
    (text, ctl.status.success())
}

#[test]
fn after_a_reboot_every_start_tells_what_may_be_missing() {
    let mut server = Server::start(&[NO_FSYNC]);
    put_in_turn(&server);
    server.kill();
    let mark = server.data().join("member/unsynced");
    assert_eq!(fs::read(&mark).expect("a mark").len(), 16);
    let (text, _) = checked(&server, &[]);
    assert!(
        text.contains("  unsynced     written without syncs"),
        "{text}"
    );
    assert!(!text.contains("has restarted since"), "{text}");
    let (text, _) = checked(&server, &["-o", "json"]);
    assert!(text.contains("\"unsynced\":\"this_boot\""), "{text}");

    fs::write(&mark, [7; 16]).expect("the id of another boot");
    let (text, is_good) = checked(&server, &[]);
    assert!(is_good && text.contains("has restarted since"), "{text}");
    let (text, _) = checked(&server, &["-o", "json"]);
    assert!(text.contains("\"unsynced\":\"earlier_boot\""), "{text}");
    assert!(!server.whole_log().contains("has restarted since"));
    server.launch(); // with the flag: the mark of the earlier boot stays
    assert_eq!(fs::read(&mark).expect("a mark"), [7; 16]);
    let log = server.whole_log();
    assert_eq!(log.matches(MAY_BE_MISSING).count(), 1, "{log}");
    server.kill();
    server.drop_flag(NO_FSYNC);
    server.launch();
    let log = server.whole_log();
    assert_eq!(log.matches(MAY_BE_MISSING).count(), 2, "{log}");
    assert!(!log.contains("member remove ID;"), "{log}");
    assert!(!mark.exists());
    let (text, _) = checked(&server, &[]);
    assert!(!text.contains("unsynced"), "{text}");
    let (text, _) = checked(&server, &["-o", "json"]);
    assert!(text.contains("\"unsynced\":null"), "{text}");
}

/// A file that is incomplete because it was not synced must not make the mark disappear, which explains it.
#[test]
fn a_damaged_directory_keeps_its_mark_and_the_refusal_names_it() {
    let mut server = Server::start(&[NO_FSYNC]);
    put_in_turn(&server);
    server.kill();
    server.drop_flag(NO_FSYNC);
    let mark = server.data().join("member/unsynced");
    let segments = fs::read_dir(server.data().join("member/wal")).expect("a folder");
    let segment = segments
        .map(|found| found.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("/0000000000000000-"))
        .expect("the first segment");
    let mut bytes = fs::read(&segment).expect("it is readable");
    bytes[16] ^= 1;
    fs::write(&segment, &bytes).expect("damaged");
    let identity = server.data().join("member/identity");
    let whole = fs::read(&identity).expect("it is readable");
    let ways: [(Option<[u8; 16]>, &str, &str); 2] = [
        (
            None,
            "nothing is lost, if",
            "errors of this disk since (dmesg)",
        ),
        (
            Some([7; 16]),
            MAY_BE_MISSING,
            "the machine has restarted since",
        ),
    ];
    for (boot_id, warned, hinted) in ways {
        if let Some(boot_id) = boot_id {
            fs::write(&mark, boot_id).expect("the id of another boot");
        }
        let hint = format!(
            "\n  {} was written without syncs (--unsafe-no-fsync), and {}{hinted}, so its files may be incomplete. ",
            server.data().display(),
            if boot_id.is_none() {
                "the kernel may have reported "
            } else {
                ""
            },
        );
        for is_whole in [true, false] {
            fs::write(&identity, if is_whole { &whole[..] } else { b"half" }).expect("written");
            let said = refused(&server);
            assert!(said.contains(warned) && said.contains(&hint), "{said}");
            assert!(mark.exists());
            let (said, is_good) = checked(&server, &[]);
            assert!(!is_good && said.contains(&hint), "{said}");
        }
    }
    // With its bit put back the directory is good, and the start ends the state without syncs.
    bytes[16] ^= 1;
    fs::write(&segment, &bytes).expect("repaired");
    fs::write(&identity, &whole).expect("repaired");
    server.launch();
    assert!(!mark.exists());
}

/// A power failure must not remove the folder of the mark.
#[test]
#[ignore = "needs strace, and the right to trace a process"]
fn without_fsync_the_names_of_new_folders_are_synced() {
    let mut server = Server::prepare(&[NO_FSYNC]);
    let file = server.folder().join("trace");
    let data = server.folder().join("new/data");
    server.keep_data_in(&data);
    // With -D the server is the child of this test, and strace ends after it.
    let trace = file.to_str().expect("UTF-8");
    server.wrap(&["strace", "-D", "-f", "-y", "-e", "trace=fsync", "-o", trace]);
    server.launch();
    server.stop();
    let ends = |text: &String| text.contains("+++ exited with 0 +++");
    let text = wait_for("the end of the trace", WITHIN, || {
        fs::read_to_string(&file).ok().filter(ends)
    });
    let parents = [
        server.folder(),
        &server.folder().join("new"),
        &data,
        &data.join("member"),
    ];
    for folder in parents.map(|folder| folder.canonicalize().expect("it exists")) {
        let synced = format!("<{}>)", folder.display());
        assert!(text.contains(&synced), "no sync of {synced} in {text}");
    }
}

/// A running `strace` of a server.
struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    /// Returns when strace is attached to all threads.
    fn start(server: &Server) -> Trace {
        let file = server.folder().join("trace");
        let mut strace = Command::new("strace")
            .args(["-f", "-s", "16", "-e"])
            .arg("trace=msync,fsync,fdatasync,recvfrom,read,sendto,sendmsg,write,writev")
            .arg("-o")
            .arg(&file)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed and may attach");
        let stderr = BufReader::new(strace.stderr.take().expect("piped"));
        let mut lines = stderr.lines();
        let line = lines.next().expect("a line").expect("UTF-8");
        assert!(line.contains("attached"), "{line}");
        std::thread::spawn(move || lines.for_each(drop));
        Trace { strace, file }
    }

    /// The system calls in the order in which they ended, or began if they are responses. `Synced` at most once in a row.
    fn end(mut self) -> Vec<Event> {
        kill_process(Pid::from_child(&self.strace), Signal::INT).expect("a signal");
        wait_for("the end of strace", WITHIN, || {
            self.strace.try_wait().expect("a status")
        });
        let text = fs::read_to_string(&self.file).expect("a trace");
        let mut events: Vec<Event> = text.lines().filter_map(event).collect();
        events.dedup_by(|later, event| *later == Event::Synced && event == later);
        events
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Received,
    Synced,
    Acknowledged,
}

fn event(line: &str) -> Option<Event> {
    let calls = ["msync", "fsync", "fdatasync"];
    let is_sync = calls.iter().any(|call| {
        line.contains(&format!(" {call}(")) || line.contains(&format!("<... {call} resumed>"))
    });
    if is_sync && line.ends_with("= 0") {
        return Some(Event::Synced);
    }
    if line.contains("\"PUT /v2") {
        return Some(Event::Received);
    }
    // The line of a response that blocks has its bytes where it begins.
    line.contains("\"HTTP/1.1 20")
        .then_some(Event::Acknowledged)
}

fn traced(flags: &[&str]) -> Vec<Event> {
    let server = Server::start(flags);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    let trace = Trace::start(&server);
    put_in_turn(&server);
    trace.end()
}

#[test]
#[ignore = "needs strace, and the right to trace a process"]
fn no_acknowledgement_precedes_its_sync() {
    let events = traced(&[]);
    let requests: Vec<&[Event]> = events
        .split(|event| *event == Event::Received)
        .skip(1)
        .collect();
    assert_eq!(requests.len(), PUTS, "{events:?}");
    // Another sync may follow the response.
    let in_order = |after: &&[Event]| after.starts_with(&[Event::Synced, Event::Acknowledged]);
    assert!(requests.iter().all(in_order), "{events:?}");
}

#[test]
#[ignore = "needs strace, and the right to trace a process"]
fn without_fsync_nothing_is_synced() {
    let events = traced(&[NO_FSYNC]);
    assert_eq!(events, [Event::Received, Event::Acknowledged].repeat(PUTS));
}
