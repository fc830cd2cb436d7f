//! The log of a member: its start, raft's events, and few lines if many errors occur.

mod harness;

use harness::mount::Mount;
use harness::{Cluster, Json, Server, wait_for};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A line of the text format: milliseconds of the day, level, module and text.
struct Said {
    at: u64,
    level: String,
    text: String,
}

fn said(log: &str) -> Vec<Said> {
    let parse = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let (time, level) = (parts.next()?, parts.next()?.to_owned());
        let text = parts.next()?.to_owned();
        let time = time.strip_suffix('Z')?.split_once('T')?.1;
        let numbers: Vec<u64> = time
            .split([':', '.'])
            .filter_map(|n| n.parse().ok())
            .collect();
        let [hours, minutes, seconds, ms] = numbers[..] else {
            return None;
        };
        let at = ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms;
        Some(Said { at, level, text })
    };
    let lines = log.lines().filter(|line| !line.is_empty());
    let parsed = lines.map(|line| parse(line).unwrap_or_else(|| panic!("no line: {line:?}")));
    parsed.collect()
}

/// The text without its numbers and without the count of repeats, to compare two lines.
fn essence(text: &str) -> String {
    let repeats = regex_lite::Regex::new(r" \(\d+ more (times|like this)\)$").expect("a pattern");
    let number = regex_lite::Regex::new(r"(^|[^A-Za-z_0-9])[0-9]+").expect("a pattern");
    let text = repeats.replace(text, "");
    number.replace_all(&text, "${1}0").into_owned()
}

/// Asserts that no two warnings within a second differ only in numbers.
fn check_calm(log: &str) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for Said { at, level, text } in said(log) {
        if !["warn", "error"].contains(&level.as_str()) {
            continue;
        }
        // Suppressed lines are reported by the first line after their second, or at the end of the process.
        if let Some(before) = last.insert(essence(&text), at) {
            assert!(
                at >= before + 999,
                "{} ms after the last: {text}\n{log}",
                at - before
            );
        }
    }
}

#[test]
fn a_member_says_what_it_is_where_it_listens_and_what_raft_does() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let id = cluster.id(leader, leader).expect("it is a member");
    let log = cluster.node(leader).log();
    let client = cluster.node(leader).address();
    let peer = cluster.node(leader).peer_address();
    for wanted in [
        "info node: edgetcd ".to_owned(),
        format!("member {id} of cluster "),
        format!("clients   listening on http://{client}, advertised as http://{client}"),
        format!("peers     listening on http://{peer}, advertised as http://{peer}"),
        format!("data      in {}", cluster.node(leader).data().display()),
        "members   n".to_owned(),
        "heartbeat every ".to_owned(),
        " cores, memory ".to_owned(),
        "starts an election in term ".to_owned(),
        "became leader in term ".to_owned(),
        format!("leader is n{leader} ({id}) in term "),
        "is ready: clients on ".to_owned(),
    ] {
        assert!(log.contains(&wanted), "no {wanted:?} in\n{log}");
    }
    let added = cluster.add(leader);
    cluster.node_mut(added).launch();
    let new = cluster.id(leader, added).expect("it is a member");
    let all_said = |words: &[String]| {
        // The new member may have received all that in a snapshot.
        for node in cluster.others(added) {
            for wanted in words {
                let heard = || cluster.node(node).log().contains(wanted).then_some(());
                wait_for(&format!("node {node} to say {wanted}"), SOON, heard);
            }
        }
    };
    all_said(&[
        format!("added member {new} at http://"),
        format!("member {new} has the name n{added}"),
        // It is named only by its id if its name was not known yet.
        ": it has caught up and votes".to_owned(),
    ]);
    cluster.remove(leader, added);
    let gone = format!("removed member n{added} ({new})");
    for node in cluster.others(added) {
        let heard = || cluster.node(node).log().contains(&gone).then_some(());
        wait_for(&format!("node {node} to say {gone}"), SOON, heard);
    }
    // The member that loses the old leader names it.
    cluster.kill(leader);
    let other = cluster.wait_leader_among(&cluster.others(leader)[..2]);
    let lost = format!("warn replica: lost leader n{leader} ({id}) in term ");
    let log = cluster.node(other).log();
    assert!(log.contains(&lost), "{log}");
    // Changes applied before this start are not logged again.
    cluster.restart(leader);
    let log = cluster.node(leader).log();
    let again = log
        .rsplit("info node: edgetcd ")
        .next()
        .expect("it has started again");
    assert!(
        !again.contains(&format!("added member {new} at http://")),
        "{again}"
    );
}

#[test]
fn a_member_whose_peers_are_down_is_calm() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let others = cluster.others(leader);
    others.iter().for_each(|node| cluster.kill(*node));
    let node = cluster.node(leader);
    wait_for("it to complain", SOON, || {
        // A client sends requests all the time.
        let asked = node.try_ask("PUT", "/v2/keys/a?value=1", None, Duration::from_millis(50));
        assert!(!asked.is_ok_and(|answer| answer.status < 300));
        node.log().contains("no leader for 10 s").then_some(())
    });
    let log = node.log();
    check_calm(&log);
    let warnings = said(&log)
        .iter()
        .filter(|said| said.level == "warn")
        .count();
    assert!((2..30).contains(&warnings), "{warnings} warnings:\n{log}");
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_under_load_is_one_line() {
    let mount = Mount::tmpfs(16);
    let mut server = Server::start_on(&mount.path().join("data"), &[]);
    let value = format!("value={}", "x".repeat(60_000));
    let mut refused = 0;
    let mut number = 0;
    let mut connection = server.connect();
    while refused < 3000 {
        number += 1;
        let target = format!("/v2/keys/k{number}");
        let answer = connection
            .ask("PUT", &target, Some(&value))
            .expect("an answer");
        refused += u64::from(answer.status == 500);
        assert!(number < 20_000, "the disk does not get full");
    }
    server.stop();
    let log = server.log();
    check_calm(&log);
    assert!(
        log.contains("writes are refused until there is space"),
        "{log}"
    );
    let warnings = said(&log)
        .iter()
        .filter(|said| said.level == "warn")
        .count();
    assert!(warnings < 20, "{warnings} warnings:\n{log}");
}

#[test]
fn a_flood_of_bad_requests_is_no_flood_of_lines() {
    let server = Server::start(&[]);
    for number in 0..600 {
        let port = if number % 2 == 0 {
            server.address()
        } else {
            server.peer_address()
        };
        let mut socket = TcpStream::connect(port).expect("connected");
        let nonsense = match number % 6 {
            0 => "GET /v2/keys/%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            1 => "nonsense\r\n\r\n".to_owned(),
            2 => "PUT /v2/keys/a?ttl=x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            3 => format!(
                "GET /raft/stream/{number} HTTP/1.1\r\nHost: a\r\nUpgrade: edgetcd-peer-{number}\r\nConnection: Upgrade\r\n\r\n"
            ),
            4 => "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
            _ => format!("GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        };
        socket.write_all(nonsense.as_bytes()).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).expect("shut");
        // The response does not matter.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let log = server.log();
    check_calm(&log);
    assert!(said(&log).len() < 40, "{log}");
}

#[test]
fn as_json_every_line_is_an_object() {
    let mut server = Server::start(&["--log-format=json"]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    // The error of a second server that cannot start is also such a line.
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_edgetcd"))
        .args(["--log-format=json", "--listen-client-urls"])
        .arg(format!("http://{}", server.address()))
        .arg("--advertise-client-urls=http://127.0.0.1:1")
        .output()
        .expect("it can be started");
    assert_eq!(second.status.code(), Some(1));
    server.stop();
    let log = server.log() + "\n" + &String::from_utf8(second.stderr).expect("text");
    let mut words = String::new();
    for line in log.lines() {
        let line = Json::parse(line).unwrap_or_else(|error| panic!("{error:?}: {line}"));
        for field in ["time", "level", "area", "message"] {
            let text = line
                .get(field)
                .and_then(Json::text)
                .expect(field)
                .to_owned();
            words += &text;
        }
        words.push('\n');
    }
    assert!(words.contains("this is   default, member "), "{words}");
    assert!(words.contains("stopped"), "{words}");
    assert!(words.contains("address already in use"), "{words}");
}

#[test]
fn the_level_is_set_while_it_runs() {
    let server = Server::start(&["--log-level=error"]);
    assert_eq!(server.log(), "", "nothing went wrong");
    let set = |level: &str| {
        let mut socket = server.connect();
        let body = format!("{{\"Level\":\"{level}\"}}");
        let request =
            harness::client::request("PUT", "/config/local/log", &[], Some(body.as_bytes()));
        socket.write(&request).expect("sent");
        let answer = socket.answer(false, SOON).expect("an answer");
        assert_eq!(answer.status, 204);
    };
    set("INFO");
    server.signal(rustix::process::Signal::TERM);
    let stopping = || {
        server
            .log()
            .contains("info edgetcd: signal 15: stopping")
            .then_some(())
    };
    wait_for("the signal to be logged", SOON, stopping);
}

/// The flags for the peer URLs of this member count at its first start. Other values at a later start cause a log
/// line.
#[test]
fn peer_urls_that_differ_from_the_member_table_are_logged() {
    let mut server = Server::start(&[]);
    server.stop();
    let other = "--initial-advertise-peer-urls=http://127.0.0.1:1";
    let mut again = server.command();
    again.arg(other).stderr(std::process::Stdio::piped());
    let mut child = again.spawn().expect("it starts");
    let mut log = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    let mut bytes = [0; 4096];
    while !log.contains(" is ready") {
        let read = stderr.read(&mut bytes).expect("its lines");
        assert!(read > 0, "it has ended: {log}");
        log += &String::from_utf8_lossy(&bytes[..read]);
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(
        log.contains("--initial-advertise-peer-urls is http://127.0.0.1:1; to change"),
        "{log}"
    );
    assert!(log.contains("edgetcdctl member update "), "{log}");
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(done.expect("cp runs").success());
}

/// The leader refuses a member whose data directory is an older copy. That member has only the leader's silence, so its
/// log must not blame a majority that is there.
#[test]
fn a_member_on_an_older_copy_says_whose_log_tells_why() {
    let mut cluster = Cluster::start(3, &["--election-timeout=5000"]);
    let leader = cluster.wait_leader();
    let node = cluster.others(leader)[0];
    cluster.put(node, "/a", "1");
    cluster.stop(node);
    let data = cluster.node(node).data().to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let older = folder.path().join("older");
    copy(&data, &older);
    cluster.restart(node);
    cluster.put(node, "/a", "2");
    cluster.wait_value(node, "/a", "2", SOON);
    cluster.stop(node);
    std::fs::remove_dir_all(&data).expect("it is there");
    copy(&older, &data);
    cluster.node_mut(node).spawn();
    wait_for("the leader's word", SOON, || {
        let log = cluster.node(leader).log();
        log.contains("lost entries that it had acknowledged")
            .then_some(())
    });
    wait_for("the member's word", SOON, || {
        let log = cluster.node(node).log();
        log.contains("not ready: waiting for entries of the leader")
            .then_some(())
    });
}

/// Text that a terminal would obey, in the name of a folder that log lines and the reason of a failed start contain.
#[test]
fn nothing_that_a_terminal_would_obey_is_logged() {
    let wild = "x\u{1b}[2J\u{9b}31m\u{202e}\u{7}";
    let is_obeyed = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    for format in ["text", "json"] {
        let format = format!("--log-format={format}");
        let mut server = Server::prepare(&[&format]);
        let data = server.folder().join(format!("{wild}.etcd"));
        server.keep_data_in(&data);
        server.launch();
        server.stop();
        std::fs::create_dir(data.join("restore.tmp")).expect("a folder");
        server.launch();
        wait_for("the warning about the folder", SOON, || {
            server
                .log()
                .contains("left over from a restore")
                .then_some(())
        });
        let log = server.log();
        assert!(log.contains("[2J"), "{log:?}");
        assert!(!log.contains(is_obeyed), "{log:?}");
        // A file in place of the data directory.
        let file = server.folder().join(wild);
        std::fs::write(&file, "").expect("a file");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_edgetcd"));
        command.arg("--data-dir").arg(&file).arg(&format);
        command.arg("--listen-client-urls=http://127.0.0.1:0");
        command.arg("--advertise-client-urls=http://127.0.0.1:1");
        command.arg("--listen-peer-urls=http://127.0.0.1:0");
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("[2J"), "{said:?}");
        assert!(!said.contains(is_obeyed), "{said:?}");
    }
}
