//! Users, roles and passwords (spec §15) on a running server. The golden transcripts compare the texts.

#[path = "../harness/mod.rs"]
mod harness;
mod matrix;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::client::{PATIENCE, request};
use harness::{Line, Server, wait_for};
use matrix::{READER, ROOT, State, WRITER, ask, change, differences, enable, make_users, rows};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The routes as the router documents them: lines such as "/// `/v2/auth/users/NAME`".
#[test]
fn the_table_has_every_route() {
    let router = include_str!("../../src/api/route.rs");
    let documented = router.lines().filter_map(|line| {
        let (path, _) = line.trim().strip_prefix("/// `/")?.split_once('`')?;
        Some(format!("/{}", path.trim_end_matches("NAME")))
    });
    let documented: Vec<_> = documented.collect();
    assert!(documented.len() >= 15, "{documented:?}");
    let state = State {
        enabled: true,
        leads: true,
    };
    for path in documented {
        let is_there = rows(state).any(|(_, target, ..)| match path.ends_with('/') {
            true => target.starts_with(&path),
            false => {
                target.split('?').next() == Some(&path) || target.starts_with(&format!("{path}/"))
            }
        });
        assert!(is_there, "{path}");
    }
}

#[test]
fn each_client_gets_what_its_roles_allow() {
    let mut server = Server::start(&["--snapshot-count=20"]);
    make_users(server.address());
    let none = Vec::<String>::new();
    assert_eq!(differences(server.address(), false), none, "disabled");
    enable(server.address());
    assert_eq!(differences(server.address(), true), none, "enabled");
    // The server starts from a snapshot, because so many entries were written.
    server.stop();
    server.launch();
    assert_eq!(differences(server.address(), true), none, "after a restart");
    change(server.address(), "DELETE", "/v2/auth/enable", "", 200);
    assert_eq!(differences(server.address(), false), none, "disabled again");
}

#[test]
fn a_changed_password_ends_the_old_one() {
    let server = Server::start(&[]);
    let address = server.address();
    make_users(address);
    enable(address);
    let status = |header| ask(address, "GET", "/v2/keys/r/a", None, Some(header)).status;
    assert_eq!((status(READER), status(READER)), (200, 200));
    let user = "/v2/auth/users/reader";
    change(
        address,
        "PUT",
        user,
        r#"{"user":"reader","password":"new"}"#,
        200,
    );
    assert_eq!(status(READER), 401, "the old password");
    assert_eq!(status("Basic cmVhZGVyOm5ldw=="), 200, "the new password");
    change(address, "DELETE", user, "", 200);
    assert_eq!(status("Basic cmVhZGVyOm5ldw=="), 401, "no user");
    change(
        address,
        "PUT",
        user,
        r#"{"user":"reader","password":"new"}"#,
        201,
    );
    assert_eq!(status("Basic cmVhZGVyOm5ldw=="), 401, "no role");
    change(
        address,
        "PUT",
        user,
        r#"{"user":"reader","grant":["reads"]}"#,
        200,
    );
    assert_eq!(status("Basic cmVhZGVyOm5ldw=="), 200, "the role again");
}

#[test]
fn a_watch_needs_the_right_when_it_begins() {
    let server = Server::start(&[]);
    let address = server.address();
    make_users(address);
    enable(address);
    let watch = |target: &str, header| ask(address, "GET", target, None, header).status;
    assert_eq!(watch("/v2/keys/w/a?wait=true", Some(READER)), 401);
    assert_eq!(
        watch("/v2/keys/r?wait=true&recursive=true", Some(READER)),
        401
    );
    assert_eq!(watch("/v2/keys/r/a?wait=true", None), 401);

    let mut connection = server.connect();
    let target = "/v2/keys/r/?wait=true&recursive=true&stream=true";
    let bytes = request("GET", target, &[("Authorization", READER)], None);
    connection.write(&bytes).expect("a request");
    assert_eq!(
        connection.head(false, PATIENCE).expect("a head").status,
        200
    );
    change(address, "PUT", "/v2/keys/r/a", "value=event", 200);
    let Line::Is(event) = connection.line(PATIENCE) else {
        panic!("no event");
    };
    let event = String::from_utf8_lossy(&event);
    assert!(event.contains(r#""value":"event""#), "{event}");
}

/// Another address of this machine.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The status of the answer to a request that comes from an address of this machine.
fn status_from(from: Ipv4Addr, to: SocketAddr, request: &[u8]) -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("an address");
    socket.connect(&to.into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(request).expect("sent");
    let mut line = [0; 12];
    stream.read_exact(&mut line).expect("an answer");
    let line = std::str::from_utf8(&line).expect("text");
    line[9..].parse().expect("a status")
}

/// Sets the flag when it is dropped.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Guesses are compared one after the other, and take tens of milliseconds each. A client whose password is known does
/// not wait for them, and neither does one that needs none.
#[test]
fn guesses_delay_nobody_who_is_known() {
    let server = Server::start(&[]);
    let address = server.address();
    make_users(address);
    enable(address);
    assert_eq!(
        ask(address, "GET", "/v2/keys/r/a", None, Some(READER)).status,
        200
    );
    let (over, refused) = (AtomicBool::new(false), AtomicBool::new(false));
    let guess = |guesser: u32| {
        let mut answers = Vec::new();
        // Equal passwords would wait together.
        let header = format!("Basic {}", STANDARD.encode(format!("root:{guesser}")));
        while !over.load(Ordering::Relaxed) {
            let answer = ask(address, "GET", "/v2/keys/r/a", None, Some(&header));
            answers.push(answer.status);
            refused.fetch_or(answer.status == 503, Ordering::Relaxed);
            let retry = answer
                .header("Retry-After")
                .and_then(|text| text.parse().ok());
            thread::sleep(Duration::from_secs(retry.unwrap_or_default()));
        }
        answers
    };
    let guess = &guess;
    thread::scope(|scope| {
        let guessers: Vec<_> = (0..100)
            .map(|one| scope.spawn(move || guess(one)))
            .collect();
        // If an assertion fails, the guessers end too.
        let _end = SetAtEnd(&over);
        // More than fit wait, so some guesses are refused with 503.
        wait_for("a guess that is not compared", PATIENCE, || {
            refused.load(Ordering::Relaxed).then_some(())
        });
        let mut connection = server.connect();
        for _ in 0..100 {
            let headers = [("Authorization", READER)];
            let bytes = request("GET", "/v2/keys/r/a", &headers, None);
            connection.write(&bytes).expect("a request");
            let answer = connection.answer(false, PATIENCE).expect("an answer");
            assert_eq!(answer.status, 200);
        }
        assert_eq!(ask(address, "GET", "/v2/keys/pub", None, None).status, 200);
        // The guesses come from one address. Elsewhere, users whose password is not known yet are let in, and root
        // makes a user.
        let reads = request("GET", "/v2/keys/r/a", &[("Authorization", WRITER)], None);
        let late: Option<&[u8]> = Some(br#"{"user":"late","password":"p"}"#);
        let makes = request(
            "PUT",
            "/v2/auth/users/late",
            &[("Authorization", ROOT)],
            late,
        );
        let found = [reads, makes].map(|request| status_from(ELSEWHERE, address, &request));
        // The guessers end before anything is asserted, so that the test ends too.
        over.store(true, Ordering::Relaxed);
        for guesser in guessers {
            let answers = guesser.join().expect("no panic");
            assert!(answers.iter().all(|status| [401, 503].contains(status)));
        }
        assert_eq!(found, [200, 201]);
    });
}

#[test]
fn a_backup_contains_users_and_a_restored_cluster_enforces_them() {
    let server = Server::start(&[]);
    make_users(server.address());
    enable(server.address());
    let answer = ask(
        server.address(),
        "GET",
        "/edgetcd/snapshot",
        None,
        Some(ROOT),
    );
    assert_eq!(answer.status, 200);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    std::fs::write(&file, &answer.body).expect("a file");
    let data = folder.path().join("data");
    edgetcdctl(
        &["snapshot", "restore"],
        &[&file, Path::new("--data-dir"), &data],
    );

    let restored = Server::start_on(&data, &[]);
    assert_eq!(differences(restored.address(), true), Vec::<String>::new());
}

fn edgetcdctl(words: &[&str], paths: &[&Path]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(words)
        .args(paths)
        .output()
        .expect("edgetcdctl runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{} {said}", output.status);
    said
}

/// Not in the log, not even with `--debug`, and not in what `wal dump` prints.
#[test]
fn no_secret_is_shown() {
    let mut server = Server::start(&["--debug"]);
    let address = server.address();
    let secret = "kept-quiet-4711";
    let root = format!(r#"{{"user":"root","password":"{secret}"}}"#);
    change(address, "PUT", "/v2/auth/users/root", &root, 201);
    enable(address);
    let header = "Basic cm9vdDprZXB0LXF1aWV0LTQ3MTE=";
    assert_eq!(
        ask(address, "GET", "/v2/keys/", None, Some(header)).status,
        200
    );
    let pages = [
        "/metrics",
        "/debug/vars",
        "/v2/auth/users/root",
        "/v2/auth/users",
    ];
    let mut shown: String = pages
        .map(|page| ask(address, "GET", page, None, Some(header)).text())
        .concat();
    server.stop();
    shown += &server.log();
    shown += &edgetcdctl(&["wal", "dump"], &[server.data()]);
    shown += &edgetcdctl(&["-o", "json", "wal", "dump"], &[server.data()]);
    assert!(shown.contains("put user"), "the dump shows what was done");
    for hidden in [secret, "cm9vdDprZXB0LXF1aWV0LTQ3MTE", "$2a$"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
}
