//! Runs `edgetcdctl` as a process against the reference (Debian: `etcd-server`, `etcd-client`), so that the correct
//! behaviour is not defined by this project.
//!
//! The transcripts are as in `config.rs`: command lines, `---`, then the output of each. Lines on stderr begin with
//! `! `, and an exit status other than 0 is at the end.

use std::cell::RefCell;
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
    // A command that does not read stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| word.replace("''", "").replace('_', " "))
        .collect()
}

/// The reference with its own folder. Ended and removed when dropped.
struct Reference {
    child: Child,
    url: String,
    peer_url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Starts the reference as the only member of its cluster.
fn reference(more: &[&str]) -> Reference {
    // Another process may take the free port before etcd does. Then etcd ends at once.
    (0..5)
        .find_map(|_| start_reference(&free_url(), more))
        .expect("etcd starts (apt-get install etcd-server)")
}

fn start_reference(peer_url: &str, more: &[&str]) -> Option<Reference> {
    let folder = tempfile::tempdir().unwrap();
    let url = free_url();
    let child = Command::new("etcd")
        .args(["--enable-v2=true", "--data-dir"])
        .arg(folder.path())
        .args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ])
        .args(["--listen-peer-urls", peer_url])
        .args(more)
        .env("ETCD_UNSUPPORTED_ARCH", env::consts::ARCH)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reference = Reference {
        child,
        url,
        peer_url: peer_url.to_owned(),
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
        thread::sleep(Duration::from_millis(50)); // then ask again
    }
    panic!("etcd serves nothing at {}", reference.url);
}

fn transcript(name: &str, endpoints: &str) {
    transcript::check(&format!("ctl/{name}"), |line| {
        let line = line.strip_prefix("edgetcdctl ");
        let args = words(line.expect("a line for edgetcdctl"));
        // The port of the server is random.
        show(&edgetcdctl(endpoints, &args, "")).replace(endpoints, "SERVER")
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
#[ignore = "needs etcd"]
fn keys() {
    let reference = reference(&[]);
    transcript("keys", &reference.url);
    stdin_is_taken_as_it_is(&reference.url);
    a_watch_waits_for_what_comes(&reference.url);
    dead_endpoints_are_passed_over(&reference.url);
}

#[test]
#[ignore = "needs etcd"]
fn users() {
    let reference = reference(&[]);
    transcript("users", &reference.url);
    passwords_are_read_from_stdin(&reference.url);
}

/// A password and then a value, both from stdin. Blanks around the password do not count, as in etcdctl.
fn passwords_are_read_from_stdin(url: &str) {
    let with_stdin = |line: &str, stdin: &str| show(&edgetcdctl(url, &words(line), stdin));
    assert_eq!(
        with_stdin("-u root user add typed", "pw\n  open sesame \n"),
        "User typed created\n! Password:\n! New password:\n"
    );
    assert_eq!(
        with_stdin("-u root user grant --roles root typed", "pw"),
        "User typed updated\n! Password:\n"
    );
    assert_eq!(
        with_stdin("-u typed set /a", "open sesame\nvalue\n"),
        "value\n\n! Password:\n"
    );
    assert_eq!(
        with_stdin("-u typed user passwd typed", "open sesame\nother\n"),
        "Password updated\n! Password:\n! New password:\n"
    );
    assert_eq!(
        with_stdin("-u root:pw user passwd nobody", "other\n"),
        "! New password:\n! User nobody did not exist and was created. To undo that, type: edgetcdctl user remove nobody\n\
         status 1\n"
    );
    assert_eq!(
        with_stdin("-u typed user list", "open sesame\n"),
        "! Password:\n! Insufficient credentials\nstatus 1\n"
    );
    assert_eq!(with_stdin("-u typed:other get /a", ""), "value\n\n");
    assert_eq!(
        with_stdin("-u root:pw auth disable", ""),
        "Authentication Disabled\n"
    );
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

/// Sets the key repeatedly until the watch has received one event, whenever the watch was registered.
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
    // These requests are sent only once, but nothing was sent to the dead endpoint.
    for line in ["--no-sync mk /once passed", "--no-sync rm /once"] {
        assert!(
            edgetcdctl(&endpoints, &words(line), "").status.success(),
            "{line}"
        );
    }
}

/// Commands that need no server. No process listens on port 1 of this machine.
#[test]
fn without_a_server() {
    transcript("without-a-server", "http://127.0.0.1:1");
}

/// Placeholders in transcripts for URLs and ids that differ in every run.
#[derive(Default)]
struct Names(RefCell<Vec<(&'static str, String)>>);

impl Names {
    fn add(&self, name: &'static str, value: &str) {
        self.0.borrow_mut().push((name, value.to_owned()));
    }

    fn fill(&self, line: &str) -> String {
        let names = self.0.borrow();
        names.iter().fold(line.to_owned(), |line, (name, value)| {
            line.replace(name, value)
        })
    }

    /// Members are sorted by id, which is random for added members. Here they are sorted by name.
    /// `as_etcdctl_prints_it` compares the real order.
    fn hide(&self, text: &str) -> String {
        let names = self.0.borrow();
        let text = names.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(value, name)
        });
        let mut lines: Vec<String> = text.lines().map(sorted_cluster).collect();
        if lines.iter().all(|line| line.contains("peerURLs=")) {
            lines.sort();
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Runs a command line of a transcript. `ADDED` stands for the id of the member that was added.
    fn run(&self, url: &str, line: &str) -> String {
        let output = edgetcdctl(url, &words(&self.fill(line)), "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some((_, rest)) = text.split_once(" with ID ")
            && let Some((id, _)) = rest.split_once(" to cluster\n")
        {
            self.add("ADDED", id);
        }
        self.hide(&show(&output))
    }

    fn transcript(&self, name: &str, url: &str) {
        transcript::check(&format!("ctl/{name}"), |line| {
            let line = line.strip_prefix("edgetcdctl ");
            self.run(url, line.expect("a line for edgetcdctl"))
        });
    }
}

fn sorted_cluster(line: &str) -> String {
    let Some(cluster) = line.strip_prefix("ETCD_INITIAL_CLUSTER=\"") else {
        return line.to_owned();
    };
    let mut pairs: Vec<&str> = cluster.trim_end_matches('"').split(',').collect();
    pairs.sort_unstable();
    format!("ETCD_INITIAL_CLUSTER=\"{}\"", pairs.join(","))
}

/// Also runs the read-only commands with etcdctl, and compares.
fn as_etcdctl_prints_it(url: &str, lines: &[String]) {
    for line in lines {
        let theirs = Command::new("etcdctl")
            .args(words(line))
            .env("ETCDCTL_API", "2")
            .env("ETCDCTL_ENDPOINTS", url)
            .stdin(Stdio::null())
            .output();
        let theirs = theirs.expect("etcdctl runs (apt-get install etcd-client)");
        assert_eq!(
            show(&edgetcdctl(url, &words(line), "")),
            show(&theirs),
            "{line}"
        );
    }
}

/// Repeats a command until it succeeds, or until it fails, and returns its output.
fn wait_for(success: bool, run: impl Fn() -> Output) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = run();
        if output.status.success() == success {
            return output;
        }
        assert!(Instant::now() < deadline, "still {}", show(&output));
        thread::sleep(Duration::from_millis(50)); // then try again
    }
}

/// A longer election timeout, so that the leader stays the same on a busy machine.
const PATIENT: [&str; 2] = ["--election-timeout", "3000"];

/// A cluster of one, of two of which one never started, of two, of three, and of one again.
#[test]
#[ignore = "needs etcd and etcdctl"]
fn members() {
    let first = reference(&PATIENT);
    let url = first.url.as_str();
    let (names, second_peer) = (Names::default(), free_url());
    names.add("CLIENT", url);
    names.add("PEER", &first.peer_url);
    names.add("SECOND", &second_peer);
    wrong_lines_are_told_as_etcdctl_tells_them(url);
    a_change_is_not_sent_to_a_second_that_may_be_made_already(url);
    names.transcript("members-one", url);

    wait_for(false, || edgetcdctl(url, &words("member list"), ""));
    names.transcript("members-no-leader", url);
    wrong_lines_are_told_as_etcdctl_tells_them(url);

    let second = start_second(&second_peer, &names.fill("default=PEER,second=SECOND"));
    names.add("CLIENT2", &second.url);
    wait_for(true, || edgetcdctl(url, &words("member list"), ""));
    as_etcdctl_prints_it(url, &["member list".to_owned()]);
    a_third_comes_and_goes(url);
    names.transcript("members-two", url);
}

fn start_second(peer_url: &str, cluster: &str) -> Reference {
    let more = [
        ["--name", "second"],
        ["--initial-cluster", cluster],
        ["--initial-cluster-state", "existing"],
        ["--initial-advertise-peer-urls", peer_url],
        PATIENT,
    ];
    start_reference(peer_url, &more.concat()).expect("the second etcd starts")
}

/// The third member is never started. The reference accepts it once the first two have been connected for a while.
fn a_third_comes_and_goes(url: &str) {
    let third = words("member add third http://127.0.0.1:1");
    let added = wait_for(true, || edgetcdctl(url, &third, ""));
    let text = String::from_utf8(added.stdout).unwrap();
    let id = text.split(' ').nth(6).unwrap();
    let shown = show(&edgetcdctl(url, &words("member list"), ""));
    let line = format!("{id}[unstarted]: peerURLs=http://127.0.0.1:1");
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    as_etcdctl_prints_it(url, &["member list".to_owned()]);
    assert_eq!(
        show(&edgetcdctl(url, &words(&format!("member remove {id}")), "")),
        format!("Removed member {id} from cluster\n")
    );
    let again = [format!("member remove {id}")];
    as_etcdctl_prints_it(url, &again);
}

fn wrong_lines_are_told_as_etcdctl_tells_them(url: &str) {
    let lines = "member list
member list x
member bogus
member add
member add a
member add a b c
member add a b
member add a 127.0.0.1:1
member add a ftp://127.0.0.1:1
member add a http://127.0.0.1:1/
member remove
member remove a b
member remove default
member remove 1234
member remove ''
member update
member update a
member update a b c
member update default b
member update xyz http://127.0.0.1:1
member update a/b http://127.0.0.1:1
member update 1234 http://127.0.0.1:1,
--endpoints http://127.0.0.1:1 member list
--endpoints http://127.0.0.1:1 member add a http://127.0.0.1:1
--endpoints http://127.0.0.1:1 member remove 1234
--endpoints http://127.0.0.1:1 member update 1234 http://127.0.0.1:1
--endpoints http://127.0.0.1:1 --no-sync member list
--endpoints http://127.0.0.1:1 --no-sync member add a http://127.0.0.1:1
--endpoints http://127.0.0.1:1 --no-sync member remove 1234
--endpoints http://127.0.0.1:1 --no-sync member update 1234 http://127.0.0.1:1";
    as_etcdctl_prints_it(url, &lines.lines().map(String::from).collect::<Vec<_>>());
}

/// An endpoint that accepts requests and never answers. The next endpoint is tried, but not for a change. (The first
/// step would have found that endpoint, so it is skipped.) An endpoint to which no connection can be made is skipped,
/// also for a change.
fn a_change_is_not_sent_to_a_second_that_may_be_made_already(url: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let both = format!("{silent},{url}");
    let before = show(&edgetcdctl(url, &words("member list"), ""));
    assert_eq!(show(&edgetcdctl(&both, &words("member list"), "")), before);
    let timeout = format!(
        "! client: etcd cluster is unavailable or misconfigured; error #0: client: endpoint \
         {silent} exceeded header timeout\n!\nstatus 1\n"
    );
    for line in [
        "--no-sync member add second http://127.0.0.1:1",
        "--no-sync member update 8e9e05c52164694d http://127.0.0.1:1",
    ] {
        assert_eq!(show(&edgetcdctl(&both, &words(line), "")), timeout);
    }
    assert_eq!(show(&edgetcdctl(url, &words("member list"), "")), before);
    let past_the_dead = format!("http://127.0.0.1:1,{url}");
    let same = words("member update 8e9e05c52164694d http://localhost:2380");
    assert_eq!(
        show(&edgetcdctl(&past_the_dead, &same, "")),
        "Updated member with ID 8e9e05c52164694d in cluster\n"
    );
}
