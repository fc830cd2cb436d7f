//! Users and passwords in `edgetcdctl`: which servers get them, where they must not appear, and the question for a
//! password on a terminal. The commands for users and roles are also compared with etcdctl in `clients/`.

mod harness;

use harness::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);
/// `root:sesame` as of RFC 7617.
const CREDENTIALS: &str = "Basic cm9vdDpzZXNhbWU=";

fn edgetcdctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    let variables = std::env::vars().map(|(name, _)| name);
    variables
        .filter(|name| name.starts_with("ETCDCTL_"))
        .for_each(|name| {
            command.env_remove(name);
        });
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    edgetcdctl(args).output().expect("it starts")
}

fn printed(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

/// A server that keeps the requests it gets.
#[derive(Clone)]
struct Fake {
    url: String,
    /// Head and body of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each request by `answer(own URL, path)`, which returns the lines from the status on. Without
    /// `Connection: close` the connection stays open.
    fn start(answer: impl Fn(&str, &str) -> String + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let fake = Fake {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            requests: Arc::default(),
        };
        let shared = fake.clone();
        thread::spawn(move || {
            let mut open = vec![];
            for mut socket in listener.incoming().flatten() {
                let request = read_request(&socket);
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                shared.requests.lock().expect("no panic").push(request);
                let text = format!("HTTP/1.1 {}", answer(&shared.url, &path));
                // The client may have ended.
                let _ = socket.write_all(text.as_bytes());
                if !text.contains("Connection: close") {
                    open.push(socket);
                }
            }
        });
        fake
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().expect("no panic"))
    }
}

fn read_request(socket: &TcpStream) -> String {
    let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().expect("a number"))
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    head + &String::from_utf8(body).expect("text")
}

fn page(status: &str, body: &str) -> String {
    let length = body.len();
    format!("{status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn moved(to: &str) -> String {
    format!(
        "307 Temporary Redirect\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn member(url: &str) -> String {
    format!(r#"{{"id":"a1","name":"n","peerURLs":["{url}"],"clientURLs":["{url}"]}}"#)
}

/// Knows its members and refuses everything else.
fn refusing() -> Fake {
    Fake::start(|url, path| match path {
        "/v2/members" => page("200 OK", &format!(r#"{{"members":[{}]}}"#, member(url))),
        "/v2/members/leader" => page("200 OK", &member(url)),
        _ => page(
            "401 Unauthorized",
            r#"{"errorCode":110,"message":"Unauthorized","cause":"x","index":0}"#,
        ),
    })
}

/// Every command that asks a server. `URL` is the server, `FOLDER` an empty folder.
const ASKING: &[&str] = &[
    "get /a",
    "set /a 1",
    "mk /a 1",
    "update /a 1",
    "ls -r /",
    "mkdir /a",
    "setdir /a",
    "updatedir /a",
    "rm /a",
    "rmdir /a",
    "watch /a",
    "exec-watch /a -- true",
    "cluster-health",
    "status",
    "member list",
    "member add x http://127.0.0.1:1",
    "member remove a1",
    "member update a1 http://127.0.0.1:1",
    "user add alice:opensesame",
    "user list",
    "user get alice",
    "user remove alice",
    "user passwd alice",
    "user grant --roles r alice",
    "user revoke --roles r alice",
    "role add r",
    "role list",
    "role get r",
    "role remove r",
    "role grant --path /a --read r",
    "role revoke --path /a --read r",
    "auth enable",
    "auth disable",
    "export",
    "import FOLDER/keys",
    "mirror --from URL --to URL",
    "snapshot save FOLDER/snapshot",
];

/// Commands that work on files.
const ALONE: &[&str] = &[
    "snapshot check",
    "snapshot restore",
    "backup",
    "wal check",
    "wal dump",
    "disk check",
    "completion",
    "man",
];

#[test]
fn every_request_of_every_command_has_the_credentials_and_none_shows_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, "{\"key\":\"/a\",\"value\":\"1\"}\n").expect("a file");
    let folder = folder.path().to_str().expect("a plain path");
    let fake = refusing();
    for line in ASKING {
        let filled = line.replace("URL", &fake.url).replace("FOLDER", folder);
        let mut words = vec!["--debug", "--endpoints", &fake.url, "-u", "root:sesame"];
        words.extend(filled.split(' '));
        let shown = printed(&run(&words));
        let requests = fake.take_requests();
        assert!(!requests.is_empty(), "{line} asks no server: {shown}");
        for request in &requests {
            assert!(request.contains(CREDENTIALS), "{line}: {request}");
        }
        assert!(shown.contains("cURL Command: "), "{line}: {shown}");
        for secret in ["sesame", CREDENTIALS.trim_start_matches("Basic ")] {
            assert!(!shown.contains(secret), "{line}: {shown}");
        }
    }
}

#[test]
fn no_command_is_missing_above() {
    let help = printed(&run(&["help"]));
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let (commands, _) = commands.split_once("\n\n").expect("its end");
    let tested: Vec<&str> = ASKING.iter().chain(ALONE).copied().collect();
    for line in commands.lines() {
        let name = line.trim().split("  ").next().expect("a name");
        let is_tested = tested
            .iter()
            .any(|line| line.starts_with(&format!("{name} ")) || *line == name);
        let is_long = tested
            .iter()
            .any(|line| name.starts_with(&format!("{line} ")));
        assert!(is_tested || is_long, "{name}");
    }
}

#[test]
fn a_redirect_takes_the_credentials_only_to_the_same_server() {
    let other = refusing();
    let (elsewhere, here) = (other.url.clone(), "/v2/keys/here");
    let first = Fake::start(move |own, path| match path.split('?').next() {
        Some("/v2/keys/away") => moved(&format!("{elsewhere}/v2/keys/a")),
        Some("/v2/keys/full") => moved(&format!("{own}{here}")),
        Some("/v2/keys/path") => moved(here),
        _ => page("200 OK", r#"{"action":"get","node":{"value":"found"}}"#),
    });
    for (key, is_found) in [("/away", false), ("/full", true), ("/path", true)] {
        let words = ["--no-sync", "--endpoints", &first.url, "-u", "root:sesame"];
        let shown = printed(&run(&[&words[..], &["get", key]].concat()));
        assert_eq!(shown.contains("found"), is_found, "{key}: {shown}");
        for request in first.take_requests() {
            assert!(request.contains(CREDENTIALS), "{key}: {request}");
        }
        for request in other.take_requests() {
            let request = request.to_lowercase();
            assert!(!request.contains("authorization"), "{key}: {request}");
        }
    }
}

#[test]
fn errors_about_an_endpoint_do_not_show_the_password_in_it() {
    for endpoint in [
        "http://root:sesame@127.0.0.1:1",
        "http://root:sesame@127.0.0.1:x",
        "http://root:sesame@",
        "ftp://root:sesame@127.0.0.1:1",
        "https://root:sesame@127.0.0.1:1",
        "http://root:sesame@127.0.0.1:1/pre/fix?token=1",
    ] {
        for more in [&["--debug"][..], &["--no-sync"], &[]] {
            let words = [more, &["--endpoints", endpoint, "get", "/a"]].concat();
            let output = run(&words);
            let shown = printed(&output);
            assert!(!output.status.success(), "{words:?}: {shown}");
            assert!(!shown.contains("sesame"), "{words:?}: {shown}");
        }
    }
}

#[test]
fn a_name_is_never_a_path() {
    let fake = refusing();
    let words = ["--no-sync", "--endpoints", &fake.url];
    for name in ["../../keys/a", "a/b", "..", ".", "/"] {
        for command in ["user remove", "user get", "role remove", "role add"] {
            let command: Vec<&str> = command.split(' ').collect();
            let output = run(&[&words[..], &command, &[name]].concat());
            assert_eq!(output.status.code(), Some(1), "{name}");
            assert_eq!(printed(&output), "Invalid path\n", "{name}");
        }
    }
    assert!(fake.take_requests().is_empty());
}

/// A shell on a terminal of its own, which runs a command of edgetcdctl.
struct Terminal {
    shell: Child,
    near: OwnedFd,
    /// All that was shown so far.
    screen: Arc<Mutex<String>>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Terminal {
    /// Runs the command, then prints `status N`, and `echo` or `-echo`: whether the terminal shows what is typed.
    fn start(words: &[&str]) -> Terminal {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&near).expect("ours");
        unlockpt(&near).expect("ours");
        let name = ptsname(&near, Vec::new()).expect("a name");
        let open = || {
            let mut options = File::options();
            options.read(true).write(true);
            options.open(name.to_str().expect("a plain path"))
        };
        let far = || Stdio::from(open().expect("a terminal"));
        // The shell survives the keys that interrupt a command. A terminal whose first process ends is reset.
        let script =
            "trap : INT QUIT; \"$@\"; echo \"status $?\"; stty -a | grep -Eo -- '-?echo\\b'";
        let mut shell = Command::new("setsid");
        shell
            .args(["--ctty", "sh", "-c", script, "sh"])
            .arg(env!("CARGO_BIN_EXE_edgetcdctl"))
            .args(words)
            .stdin(far())
            .stdout(far())
            .stderr(far());
        let shell = shell.spawn().expect("setsid runs");
        let screen: Arc<Mutex<String>> = Arc::default();
        let mut reader = File::from(near.try_clone().expect("a second handle"));
        let shared = screen.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..count]);
                shared.lock().expect("no panic").push_str(&text);
            }
        });
        Terminal {
            shell,
            near,
            screen,
        }
    }

    fn shown(&self) -> String {
        self.screen.lock().expect("no panic").replace("\r\n", "\n")
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_for(&format!("{text:?} in {:?}", self.shown()), WITHIN, || {
            self.shown().contains(text).then_some(())
        });
    }

    /// Waits until the terminal shows what is typed, or until it hides it.
    #[track_caller]
    fn wait_for_echo(&self, expected: bool) {
        wait_for(&format!("echo to be {expected}"), WITHIN, || {
            let modes = tcgetattr(&self.near).expect("a terminal");
            (modes.local_modes.contains(LocalModes::ECHO) == expected).then_some(())
        });
    }

    fn press(&self, keys: &str) {
        let near = self.near.try_clone().expect("a second handle");
        File::from(near)
            .write_all(keys.as_bytes())
            .expect("it reads");
    }

    /// The process of edgetcdctl.
    fn command(&self) -> Pid {
        let id = self.shell.id();
        wait_for("the command", WITHIN, || {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let id = children.expect("the shell runs").trim().parse().ok();
            id.and_then(Pid::from_raw)
        })
    }
}

#[test]
fn a_password_is_not_shown_while_it_is_typed() {
    let fake = refusing();
    let words = ["--endpoints", &fake.url, "-u", "root", "user", "add", "x"];
    let terminal = Terminal::start(&words);
    terminal.wait_for("Password: ");
    terminal.wait_for_echo(false);
    terminal.press("sesame\n");
    terminal.wait_for("New password: ");
    terminal.wait_for_echo(false);
    terminal.press(" open sesame \n");
    terminal.wait_for("echo\n");
    let expected = "Password: \nNew password: \nUnauthorized\nstatus 1\necho\n";
    assert_eq!(terminal.shown(), expected);
    let requests = fake.take_requests();
    for request in &requests {
        assert!(request.contains(CREDENTIALS), "{request}");
    }
    let body = r#"{"user":"x","password":"open sesame","roles":null}"#;
    assert!(requests[1].ends_with(body), "{}", requests[1]);
}

#[test]
fn an_interrupted_question_leaves_a_terminal_that_shows_what_is_typed() {
    for (key, status) in [("\x03", 128 + 2), ("\x1c", 128 + 3)] {
        let terminal = Terminal::start(&["-u", "root", "get", "/a"]);
        terminal.wait_for("Password: ");
        terminal.wait_for_echo(false);
        terminal.press("ses");
        terminal.press(key);
        terminal.wait_for("echo\n");
        let shown = terminal.shown();
        assert!(
            shown.contains(&format!("status {status}\necho\n")),
            "{shown}"
        );
        assert!(!shown.contains("ses"), "{shown}");
    }
    let terminal = Terminal::start(&["-u", "root", "get", "/a"]);
    terminal.wait_for("Password: ");
    terminal.wait_for_echo(false);
    kill_process(terminal.command(), Signal::TERM).expect("it runs");
    terminal.wait_for("echo\n");
    let shown = terminal.shown();
    assert!(shown.contains("status 143\necho\n"), "{shown}");
}

#[test]
fn a_stopped_question_continues_hidden() {
    let fake = refusing();
    let terminal = Terminal::start(&["--endpoints", &fake.url, "-u", "root", "get", "/a"]);
    terminal.wait_for("Password: ");
    terminal.wait_for_echo(false);
    terminal.press("\x1a");
    terminal.wait_for_echo(true);
    let command = terminal.command();
    let stat = format!("/proc/{}/stat", command.as_raw_nonzero());
    wait_for("it to stop", WITHIN, || {
        let stat = fs::read_to_string(&stat).expect("it exists");
        stat.contains(") T ").then_some(())
    });
    kill_process(command, Signal::CONT).expect("it exists");
    terminal.wait_for_echo(false);
    terminal.press("sesame\n");
    terminal.wait_for("echo\n");
    let shown = terminal.shown();
    assert!(shown.ends_with("\nstatus 4\necho\n"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
}

/// The thread that restores the terminal must not change what a signal does later.
#[test]
fn after_a_question_a_watch_ends_by_ctrl_c_as_always() {
    let waiting = Fake::start(|_, path| match path.contains("wait=true") {
        false => page("200 OK", ""),
        true => {
            thread::sleep(WITHIN); // longer than the test
            String::new()
        }
    });
    let words = ["--no-sync", "--endpoints", &waiting.url, "-u", "root"];
    let terminal = Terminal::start(&[&words[..], &["watch", "/a"]].concat());
    terminal.wait_for("Password: ");
    terminal.wait_for_echo(false);
    terminal.press("sesame\n");
    wait_for("the watch", WITHIN, || {
        let requests = waiting.requests.lock().expect("no panic");
        (!requests.is_empty()).then_some(())
    });
    terminal.press("\x03");
    terminal.wait_for("echo\n");
    let shown = terminal.shown();
    assert!(shown.ends_with("status 0\necho\n"), "{shown}");
}

/// The same for a command that removes its unfinished file before it ends by a signal.
#[test]
fn after_a_question_an_interrupted_download_leaves_no_file() {
    let stalling = Fake::start(|own, path| match path {
        "/v2/members" => page("200 OK", &format!(r#"{{"members":[{}]}}"#, member(own))),
        _ => "200 OK\r\nContent-Length: 100000\r\n\r\n".to_owned(),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("snapshot");
    let to = to.to_str().expect("a plain path");
    let count = || fs::read_dir(folder.path()).expect("a folder").count();
    let words = ["--no-sync", "--endpoints", &stalling.url, "-u", "root"];
    let words = [&words[..], &["snapshot", "save", to]].concat();
    // Two threads handle the signal, and the wrong one may be late.
    for _ in 0..10 {
        let terminal = Terminal::start(&words);
        terminal.wait_for("Password: ");
        terminal.wait_for_echo(false);
        terminal.press("sesame\n");
        wait_for("a file", WITHIN, || (count() > 0).then_some(()));
        terminal.press("\x03");
        terminal.wait_for("echo\n");
        let shown = terminal.shown();
        assert!(shown.ends_with("status 130\necho\n"), "{shown}");
        assert_eq!(count(), 0);
    }
}
