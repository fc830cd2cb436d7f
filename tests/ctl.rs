//! `edgetcdctl` as a process, against a server that is not ours: the reference, where it is
//! installed (Debian: `etcd-server`), so that what is right is not our own opinion. Where it is
//! not, those tests say so in a line and pass.
//!
//! Transcripts as in `config.rs`: command lines, `---`, then what each printed; lines on stderr
//! have `! ` in front, a status other than 0 stands last.

use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[path = "harness/transcript.rs"]
mod transcript;

fn edgetcdctl(endpoints: &str, args: &[String], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(args)
        .env("ETCDCTL_ENDPOINTS", endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no stdin may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| word.replace("''", "").replace('_', " "))
        .collect()
}

/// The reference with a folder of its own; ended and removed on drop.
struct Reference {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Both fail only if it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Starts the reference, or says that it is not installed.
fn reference() -> Option<Reference> {
    if Command::new("etcd").arg("--version").output().is_err() {
        println!("skipped: no etcd is installed to compare with");
        return None;
    }
    // Another process may take a free port before etcd does; then it ends at once.
    (0..5)
        .find_map(|_| start_reference())
        .or_else(|| panic!("etcd did not start"))
}

fn start_reference() -> Option<Reference> {
    let folder = tempfile::tempdir().unwrap();
    let (url, peer_url) = (free_url(), free_url());
    let child = Command::new("etcd")
        .args(["--enable-v2=true", "--data-dir"])
        .arg(folder.path())
        .args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ])
        .args(["--listen-peer-urls", &peer_url])
        .env("ETCD_UNSUPPORTED_ARCH", env::consts::ARCH)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reference = Reference {
        child,
        url,
        _folder: folder,
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if reference.child.try_wait().unwrap().is_some() {
            return None;
        }
        if edgetcdctl(&reference.url, &words("ls"), "")
            .status
            .success()
        {
            return Some(reference);
        }
        thread::sleep(Duration::from_millis(50)); // then it is asked again
    }
    panic!("etcd serves nothing at {}", reference.url);
}

fn transcript(name: &str, endpoints: &str) {
    transcript::check(&format!("ctl/{name}"), |line| {
        let line = line.strip_prefix("edgetcdctl ");
        let args = words(line.expect("a line for edgetcdctl"));
        show(&edgetcdctl(endpoints, &args, ""))
    });
}

fn show(output: &Output) -> String {
    let mut shown = String::from_utf8(output.stdout.clone()).unwrap();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        writeln!(shown, "{}", format!("! {line}").trim_end()).unwrap();
    }
    let status = output.status.code().expect("no end by a signal");
    if status != 0 {
        writeln!(shown, "status {status}").unwrap();
    }
    shown
}

#[test]
fn keys() {
    if let Some(reference) = reference() {
        transcript("keys", &reference.url);
        stdin_is_taken_as_it_is(&reference.url);
        a_watch_waits_for_what_comes(&reference.url);
        dead_endpoints_are_passed_over(&reference.url);
    }
}

fn stdin_is_taken_as_it_is(url: &str) {
    assert_eq!(
        show(&edgetcdctl(url, &words("set /stdin"), "two\nlines\n")),
        "two\nlines\n\n"
    );
    assert_eq!(
        show(&edgetcdctl(url, &words("get stdin"), "")),
        "two\nlines\n\n"
    );
}

/// The key is set again and again until the watch, whenever it was heard, has seen one.
fn a_watch_waits_for_what_comes(url: &str) {
    let watch = thread::spawn({
        let url = url.to_owned();
        move || show(&edgetcdctl(&url, &words("watch -r /watched"), ""))
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while !watch.is_finished() {
        assert!(Instant::now() < deadline, "the watch sees nothing");
        edgetcdctl(url, &words("set /watched/key seen"), "");
    }
    assert_eq!(watch.join().unwrap(), "[set] /watched/key\nseen\n");
}

fn dead_endpoints_are_passed_over(url: &str) {
    let endpoints = format!("http://127.0.0.1:1,{url}");
    assert_eq!(
        show(&edgetcdctl(&endpoints, &words("set /a passed"), "")),
        "passed\n"
    );
    let one = format!("--endpoints={endpoints} get /a");
    assert_eq!(
        show(&edgetcdctl("http://127.0.0.1:1", &words(&one), "")),
        "passed\n"
    );
}

/// What needs no server; port 1 of this machine has none.
#[test]
fn without_a_server() {
    transcript("without-a-server", "http://127.0.0.1:1");
}
