//! `edgetcdctl` against servers that mean harm: answers without an end, answers of a byte a moment, and texts that a
//! terminal would obey. `over_tls.rs` has the same with TLS.

#[path = "../harness/mod.rs"]
mod harness;
#[cfg(feature = "tls")]
mod over_tls;

use harness::process::Process;
use harness::{Server, wait_for};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take that has to give up by itself; its own limits are seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// A list of members in which the server at `url` is the only one; `name` stands in it as JSON has it.
fn members(url: &str, name: &str) -> String {
    format!(
        r#"{{"members":[{{"id":"a1","name":"{name}","peerURLs":["{url}"],"clientURLs":["{url}"]}}]}}"#
    )
}

/// Starts a server that answers each request by `answer`, which is given the path. It ends with the test.
fn server(answer: impl Fn(&str, TcpStream) + Send + Clone + 'static) -> String {
    listen(move |head, socket| answer(head.split(' ').nth(1).unwrap_or_default(), socket))
}

/// As [`server`]; `answer` is given the whole head.
fn listen(answer: impl Fn(&str, TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
                let mut lines = String::new();
                while reader.read_line(&mut lines).is_ok_and(|count| count > 2) {}
                answer(&lines, socket);
                // A socket that is closed with bytes unread takes back what was sent.
                let _ = reader.get_ref().shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            });
        }
    });
    url
}

fn send(mut socket: &TcpStream, text: &str) -> bool {
    socket.write_all(text.as_bytes()).is_ok()
}

fn head(more: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-Etcd-Index: 5\r\nConnection: close\r\n{more}\r\n")
}

fn page(socket: &TcpStream, body: &str) {
    send(
        socket,
        &(head(&format!("Content-Length: {}\r\n", body.len())) + body),
    );
}

/// The beginning of every body here; what follows is still part of a value.
const BEGINNING: &str = r#"{"action":"set","node":{"key":"/a","value":""#;

fn without_end(socket: &TcpStream) {
    let more = "x".repeat(64 << 10);
    send(socket, &(head("") + BEGINNING));
    while send(socket, &more) {}
}

/// A listing whose every node is as short as it can be.
fn empty_nodes(socket: &TcpStream) {
    let more = "{},".repeat(20 << 10);
    let beginning = r#"{"action":"get","node":{"dir":true,"nodes":["#;
    send(socket, &(head("Content-Length: 60000044\r\n") + beginning));
    for _ in 0..1000 {
        if !send(socket, &more) {
            return;
        }
    }
}

fn drip(socket: &TcpStream) {
    send(socket, &(head("") + BEGINNING));
    while send(socket, "x") {
        thread::sleep(Duration::from_millis(50));
    }
}

fn drip_head(socket: &TcpStream) {
    send(socket, "HTTP/1.1 200 OK\r\nX-Long: ");
    while send(socket, "x") {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sends an answer.
type Way = fn(&TcpStream);

/// Answers that no server may send, each by a server of its own.
const WAYS: [(&str, Way); 15] = [
    ("a header without an end", |socket| {
        send(socket, "HTTP/1.1 200 OK\r\nX-Long: ");
        repeat(socket, &"x".repeat(64 << 10));
    }),
    ("headers without an end", |socket| {
        send(socket, "HTTP/1.1 200 OK\r\n");
        repeat(socket, &"X-More: 1\r\n".repeat(1000));
    }),
    ("a status line without an end", |socket| {
        repeat(socket, &"HTTP/1.1 200 ".repeat(1000));
    }),
    ("interim answers without an end", |socket| {
        repeat(socket, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    }),
    ("100 Continue without an end", |socket| {
        repeat(socket, &"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000));
    }),
    ("another protocol", |socket| {
        send(
            socket,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        );
        repeat(socket, &"x".repeat(64 << 10));
    }),
    ("a redirect to itself", |socket| {
        let own = socket.local_addr().expect("an address");
        send(
            socket,
            &format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{own}/again\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            ),
        );
    }),
    ("a redirect with a body without an end", |socket| {
        let own = socket.local_addr().expect("an address");
        send(
            socket,
            &format!("HTTP/1.1 302 Found\r\nLocation: http://{own}/again\r\n\r\n"),
        );
        repeat(socket, &"x".repeat(64 << 10));
    }),
    ("a compressed body", |socket| {
        send(socket, &head("Content-Encoding: gzip\r\n"));
        repeat(socket, &"\0".repeat(64 << 10));
    }),
    ("more bytes announced than sent", |socket| {
        send(
            socket,
            &(head("Content-Length: 18446744073709551615\r\n") + BEGINNING),
        );
    }),
    ("two lengths", |socket| {
        send(
            socket,
            &(head("Content-Length: 5\r\nContent-Length: 50\r\n") + BEGINNING),
        );
    }),
    ("a huge chunk", |socket| {
        send(
            socket,
            &(head("Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\n"),
        );
        repeat(socket, &"x".repeat(64 << 10));
    }),
    ("a chunk whose size has no end", |socket| {
        send(socket, &head("Transfer-Encoding: chunked\r\n"));
        repeat(socket, &"0".repeat(64 << 10));
    }),
    ("chunk extensions without an end", |socket| {
        send(socket, &(head("Transfer-Encoding: chunked\r\n") + "1;"));
        repeat(socket, &"x".repeat(64 << 10));
    }),
    ("trailers without an end", |socket| {
        send(socket, &(head("Transfer-Encoding: chunked\r\n") + "0\r\n"));
        repeat(socket, &"X-More: 1\r\n".repeat(1000));
    }),
];

fn repeat(socket: &TcpStream, text: &str) {
    while send(socket, text) {}
}

/// How it ended, and the most memory that was seen of it.
fn run_watched(url: &str, words: &[&str]) -> (Output, u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(words)
        .env("ETCDCTL_ENDPOINTS", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (process, begun) = (Process(child.id()), Instant::now());
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        most = most.max(peak_bytes(process));
        if begun.elapsed() > WITHIN || most > 2 << 30 {
            child.kill().expect("it runs");
            panic!(
                "{words:?} still runs after {:?} with {} MiB",
                begun.elapsed(),
                most >> 20
            );
        }
        thread::sleep(Duration::from_millis(5));
    }
    (child.wait_with_output().expect("it has ended"), most)
}

/// The most memory that it has ever had; 0 if it has ended.
fn peak_bytes(process: Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|digits| digits.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

/// Commands, and how much memory in MiB each may use: for a listing the limit, and space for its growth.
const COMMANDS: [(&str, u64); 19] = [
    ("--no-sync get /a", 400),
    ("--no-sync get -r /a", 400),
    ("--no-sync ls /", 400),
    ("--no-sync ls --tree /", 400),
    ("--no-sync -o json ls -r /", 400),
    ("--no-sync export", 400),
    ("--no-sync --answer-limit 16 export", 64),
    ("--no-sync set /a 1", 250),
    ("--no-sync mk /a 1", 250),
    ("--no-sync rm /a", 250),
    ("--no-sync watch /a", 250),
    ("--no-sync watch -f -r /a", 250),
    ("--no-sync exec-watch /a -- true", 250),
    ("--no-sync snapshot save /nowhere.snap", 64),
    ("member list", 64),
    ("get /a", 400),
    ("cluster-health", 64),
    ("status", 64),
    ("member remove a1", 64),
];

/// Each command gives up by itself, soon, and has not taken much memory until then. `options` come first. So many
/// commands run at the same time.
fn each_gives_up(url: &str, options: &str, at_once: usize) {
    for some in COMMANDS.chunks(at_once) {
        thread::scope(|scope| {
            for (line, mib) in some {
                scope.spawn(move || gives_up(url, &format!("{options}{line}"), *mib));
            }
        });
    }
}

fn gives_up(url: &str, line: &str, mib: u64) {
    let words: Vec<&str> = line.split(' ').collect();
    let begun = Instant::now();
    let (output, most) = run_watched(url, &words);
    assert!(!output.status.success(), "{line}: {output:?}");
    assert!(most < mib << 20, "{line} took {} MiB", most >> 20);
    assert!(
        begun.elapsed() < WITHIN,
        "{line} took {:?}",
        begun.elapsed()
    );
}

#[test]
fn an_answer_without_an_end_is_not_read_to_the_end_of_memory() {
    // Each takes memory up to its limit.
    each_gives_up(&server(|_, socket| without_end(&socket)), "", 2);
}

#[test]
fn no_answer_that_breaks_the_protocol_holds_a_command() {
    for (what, way) in WAYS {
        let url = server(move |_, socket| way(&socket));
        let lines = [
            "--no-sync get /a",
            "--no-sync set /a 1",
            "--no-sync watch /a",
            "status",
        ];
        thread::scope(|scope| {
            for line in lines {
                let url = &url;
                scope.spawn(move || {
                    let words: Vec<&str> = line.split(' ').collect();
                    let (output, most) = run_watched(url, &words);
                    assert!(!output.status.success(), "{line} of {what}: {output:?}");
                    assert!(most < 400 << 20, "{line} of {what} took {} MiB", most >> 20);
                });
            }
        });
    }
}

#[test]
fn many_empty_nodes_are_no_listing() {
    let url = server(|_, socket| empty_nodes(&socket));
    for line in ["--no-sync ls /", "--no-sync export"] {
        let words: Vec<&str> = line.split(' ').collect();
        let (output, most) = run_watched(&url, &words);
        assert!(!output.status.success(), "{line}: {output:?}");
        assert!(most < 200 << 20, "{line} took {} MiB", most >> 20);
    }
}

/// Times that let a test wait less.
const SHORT: &str = "--timeout 1s --total-timeout 2s ";

#[test]
fn an_answer_that_drips_is_given_up() {
    each_gives_up(&server(|_, socket| drip(&socket)), SHORT, COMMANDS.len());
}

#[test]
fn a_head_that_drips_is_given_up() {
    each_gives_up(
        &server(|_, socket| drip_head(&socket)),
        SHORT,
        COMMANDS.len(),
    );
}

#[test]
fn a_listing_that_never_begins_is_given_up() {
    let url = server(|_, socket| {
        send(&socket, &head(""));
        thread::sleep(WITHIN);
    });
    let url = &url;
    thread::scope(|scope| {
        for line in ["get -r /a", "ls -r /", "export"] {
            scope.spawn(move || gives_up(url, &format!("{SHORT}--no-sync {line}"), 400));
        }
    });
}

/// The members come as they should, and each page that is asked of them does not end.
#[test]
fn a_member_without_an_end_harms_no_look_at_all_members() {
    for way in [without_end, drip] {
        let url = server(move |path, socket| match path {
            "/v2/members" => {
                let own = format!("http://{}", socket.local_addr().expect("an address"));
                page(&socket, &members(&own, "n1"));
            }
            _ => way(&socket),
        });
        for line in ["cluster-health", "status", "member list"] {
            let words: Vec<&str> = line.split(' ').collect();
            let (output, most) = run_watched(&url, &words);
            assert!(!output.status.success(), "{line}: {output:?}");
            assert!(most < 64 << 20, "{line} took {} MiB", most >> 20);
        }
    }
}

/// Each page is as long as a page may be, and small values take much memory.
#[test]
fn many_members_with_long_pages_harm_no_look_at_all_members() {
    let url = server(move |path, socket| {
        let own = format!("http://{}", socket.local_addr().expect("an address"));
        if path == "/v2/members" {
            let one = |id| format!(r#"{{"id":"{id:x}","name":"n","clientURLs":["{own}"]}}"#);
            let all: Vec<String> = (0..60).map(one).collect();
            return page(&socket, &format!(r#"{{"members":[{}]}}"#, all.join(",")));
        }
        let zeros = "0,".repeat((1 << 20) / 2 - 100);
        let known = r#""etcdserver":"3.4.0","state":"StateLeader","health":"true""#;
        page(&socket, &format!(r#"{{{known},"more":[{zeros}0]}}"#));
    });
    for line in ["status", "cluster-health"] {
        let words: Vec<&str> = line.split(' ').collect();
        let (output, most) = run_watched(&url, &words);
        assert!(!output.stdout.is_empty(), "{line}: {output:?}");
        assert!(most < 128 << 20, "{line} took {} MiB", most >> 20);
    }
}

/// A member with many URLs gets no more time than one with a single one.
#[test]
fn many_urls_of_a_member_cost_no_more_time() {
    let url = server(move |path, socket| {
        let own = format!("http://{}", socket.local_addr().expect("an address"));
        match path {
            "/v2/members" => {
                let urls = vec![format!("\"{own}\""); 300].join(",");
                let members =
                    format!(r#"{{"members":[{{"id":"a1","name":"n1","clientURLs":[{urls}]}}]}}"#);
                page(&socket, &members);
            }
            _ => drip_head(&socket),
        }
    });
    for line in ["status", "cluster-health"] {
        let line = format!("{SHORT}{line}");
        let words: Vec<&str> = line.split(' ').collect();
        let (output, _) = run_watched(&url, &words);
        assert_eq!(output.status.code(), Some(5), "{line}: {output:?}");
    }
}

/// Otherwise a server could fill the disk: every slice of an endless snapshot can have a valid checksum.
#[test]
fn a_snapshot_that_is_longer_than_announced_is_refused() {
    let true_one = Server::start(&[]);
    let snapshot = true_one.ask("GET", "/edgetcd/snapshot", None).body;
    let url = server(move |_, mut socket| {
        let chunked = "Transfer-Encoding: chunked\r\nContent-Length: 10\r\n";
        let chunk = format!("{:x}\r\n", snapshot.len());
        send(&socket, &(head(chunked) + &chunk));
        let _ = socket.write_all(&snapshot);
        send(&socket, "\r\n0\r\n\r\n");
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.snap");
    let words = [
        "--no-sync",
        "snapshot",
        "save",
        file.to_str().expect("plain"),
    ];
    let (output, _) = run_watched(&url, &words);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "{output:?}");
}

/// Each poll is answered at once, without an event.
#[test]
fn a_server_that_ends_each_poll_at_once_is_not_asked_without_a_pause() {
    let (tell, told) = std::sync::mpsc::channel();
    let url = server(move |_, socket| {
        let _ = tell.send(Instant::now());
        page(&socket, "");
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["--no-sync", "watch", "/a"])
        .env("ETCDCTL_ENDPOINTS", url)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let times: Vec<Instant> = told.iter().take(3).collect();
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let took = times[2] - times[0];
    assert!(
        took > Duration::from_millis(1500),
        "three polls in {took:?}"
    );
}

/// As etcdctl does: the same request again, elsewhere. The password stays with the server that it is for.
#[test]
fn a_redirect_repeats_the_request_without_the_password() {
    let (tell, told) = std::sync::mpsc::channel();
    let to = listen(move |request, socket| {
        let _ = tell.send(request.to_owned());
        page(
            &socket,
            &(BEGINNING.to_owned() + r#"b","modifiedIndex":7,"createdIndex":7}}"#),
        );
    });
    let from = server(move |path, socket| {
        let head = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nConnection: close\r\n";
        send(&socket, &format!("{head}Location: {to}{path}\r\n\r\n"));
    });
    let words = ["--no-sync", "--username", "u:secret", "set", "/a", "b"];
    let (output, _) = run_watched(&from, &words);
    assert!(output.status.success(), "{output:?}");
    let request = told.recv_timeout(WITHIN).expect("a request");
    assert!(request.starts_with("PUT /v2/keys/a"), "{request}");
    assert!(!request.contains("Authorization"), "{request}");
}

/// A mirror runs until it is stopped, and its memory must not grow.
#[test]
fn a_mirror_of_a_stream_without_an_end_stays_small() {
    let to = Server::start(&[]);
    let from = server(|path, socket| match path {
        path if path.contains("wait=true") => without_end(&socket),
        path if path.starts_with("/v2/keys") => page(
            &socket,
            r#"{"action":"get","node":{"dir":true,"nodes":[]}}"#,
        ),
        _ => page(&socket, "{}"),
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["--no-sync", "mirror", "--from", &from, "--to"])
        .arg(format!("http://{}", to.address()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    // It has given up three events.
    let mut given_up = 0;
    while given_up < 3 {
        let line = lines.next().expect("it still runs").expect("text");
        given_up += usize::from(line.contains("copying again"));
    }
    let most = peak_bytes(Process(child.id()));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(most < 400 << 20, "{} MiB", most >> 20);
}

/// A watch may wait for its event as long as it likes.
#[test]
fn a_watch_waits_longer_than_any_answer_may_take() {
    let url = server(|_, socket| {
        send(&socket, &head(""));
        thread::sleep(Duration::from_secs(3));
        send(
            &socket,
            &(BEGINNING.to_owned() + r#"late","modifiedIndex":7,"createdIndex":7}}"#),
        );
    });
    let words = [
        "--no-sync",
        "--timeout",
        "1s",
        "--total-timeout",
        "1s",
        "watch",
        "/a",
    ];
    let (output, _) = run_watched(&url, &words);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "late\n",
        "{output:?}"
    );
}

/// What a command prints whose stdout and stderr are a terminal.
fn on_terminal(url: &str, words: &[&str]) -> String {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&near).expect("ours");
    unlockpt(&near).expect("ours");
    let name = ptsname(&near, Vec::new()).expect("a name");
    let far = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().expect("a plain path"))
        .expect("a terminal");
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(words)
        .env("ETCDCTL_ENDPOINTS", url)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(far.try_clone().expect("a second handle"))
        .stderr(far)
        .spawn()
        .expect("it starts");
    let mut screen = Vec::new();
    let mut near = File::from(near);
    let reader = thread::spawn(move || {
        // The last handle of the other side is closed: that ends it, by an error on Linux.
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut piece) {
            screen.extend_from_slice(&piece[..count]);
        }
        screen
    });
    wait_for(&format!("{words:?} to end"), WITHIN, || {
        child.try_wait().expect("a child")
    });
    String::from_utf8_lossy(&reader.join().expect("no panic")).into_owned()
}

/// Without the colours of ours, which may only be these.
fn without_colours(screen: &str) -> String {
    let ours = ["\x1b[32m", "\x1b[31m", "\x1b[1;34m", "\x1b[0m"];
    let bare = |text: String, ours: &&str| text.replace(ours, "");
    ours.iter().fold(screen.replace("\r\n", "\n"), bare)
}

#[track_caller]
fn assert_tame(screen: &str, line: &str) {
    let wild = |c: char| {
        let is_turning = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        is_turning || c.is_control() && c != '\n' && c != '\t'
    };
    let screen = without_colours(screen);
    assert!(!screen.contains(wild), "{line}: {screen:?}");
}

/// Text that a terminal would obey, and how it is sent in a form.
const WILD: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}";
const WILD_FORM: &str = "%1B%5D0%3Bowned%07%1B%5B2J%C2%9B31m%E2%80%AE";

#[test]
fn keys_and_values_are_escaped_on_a_terminal_and_as_they_are_in_a_pipe() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    let key = format!("/v2/keys/dir/{WILD_FORM}");
    let put = server.ask("PUT", &key, Some(&format!("value={WILD_FORM}")));
    assert_eq!(put.status, 201);
    let wild_key = format!("/dir/{WILD}");
    let lines: [&[&str]; 10] = [
        &["ls", "/dir"],
        &["ls", "--tree", "/"],
        &["ls", "-r", "-p", "/"],
        &["get", "-r", "/"],
        &["get", &wild_key],
        &["-o", "extended", "get", &wild_key],
        &["-o", "json", "ls", "-r", "/dir"],
        &["export"],
        &["watch", "-r", "--after-index", "1", "/dir"],
        // Errors have their key, or the value that did not fit.
        &["mk", &wild_key, "again"],
    ];
    for words in lines {
        let screen = on_terminal(&url, words);
        assert!(screen.contains("owned"), "{words:?}: {screen:?}");
        assert_tame(&screen, &words.join(" "));
    }
    let wild_value = format!("set /dir/{WILD_FORM}");
    let refused = on_terminal(&url, &["set", &wild_key, "x", "--swap-with-value", "no"]);
    assert!(refused.contains("owned"), "{refused:?}");
    assert_tame(&refused, &wild_value);
    let debug = on_terminal(&url, &["--debug", "get", &wild_key]);
    assert_tame(&debug, "--debug get");
    let piped = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["ls", "/dir"])
        .env("ETCDCTL_ENDPOINTS", &url)
        .output()
        .expect("it starts");
    assert_eq!(
        String::from_utf8_lossy(&piped.stdout),
        format!("{wild_key}\n")
    );
}

#[test]
fn records_of_a_log_are_escaped_on_a_terminal() {
    let mut server = Server::start(&[]);
    let key = format!("/v2/keys/{WILD_FORM}");
    let form = format!("value={WILD_FORM}");
    assert_eq!(server.ask("PUT", &key, Some(&form)).status, 201);
    server.stop();
    let dir = server.data().to_str().expect("a plain path").to_owned();
    for words in [
        &["wal", "dump", "--full", &dir][..],
        &["-o", "json", "wal", "dump", &dir],
    ] {
        let screen = on_terminal("", words);
        assert!(screen.contains("owned"), "{words:?}: {screen:?}");
        assert_tame(&screen, &words.join(" "));
    }
}

/// Names, ids, versions and errors of a server.
#[test]
fn what_a_server_tells_of_itself_is_escaped_on_a_terminal() {
    const NAME: &str = r"\u001b]0;owned\u0007\u001b[2J\u009b31m\u202e";
    let url = server(|path, socket| {
        let own = format!("http://{}", socket.local_addr().expect("an address"));
        match path {
            "/v2/members" => page(&socket, &members(&own, NAME)),
            "/v2/members/leader" => page(&socket, &format!(r#"{{"id":"{NAME}"}}"#)),
            "/v2/stats/self" => page(&socket, &format!(r#"{{"name":"{NAME}","state":"{NAME}"}}"#)),
            "/version" => page(&socket, &format!(r#"{{"etcdserver":"{NAME}"}}"#)),
            "/health" => page(&socket, &format!("{WILD} is no JSON")),
            _ => {
                let body =
                    format!(r#"{{"errorCode":100,"message":"{NAME}","cause":"{NAME}","index":5}}"#);
                send(
                    &socket,
                    &format!(
                        "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    ),
                );
            }
        }
    });
    for line in [
        "status",
        "cluster-health",
        "member list",
        "get /a",
        "set /a 1",
        "watch /a",
        "rm /a",
        "member remove a1",
        "snapshot save /nowhere.snap",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let screen = on_terminal(&url, &words);
        assert!(!screen.is_empty(), "{line}");
        assert_tame(&screen, line);
    }
}
