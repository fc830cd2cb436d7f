//! `edgetcdctl` against servers that mean harm: texts that a terminal would obey.

mod harness;

use harness::{Server, wait_for};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

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
