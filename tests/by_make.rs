//! Clusters with make, used as a user does: one terminal shows the logs, and other make commands run meanwhile.
//!
//! None of these has a real terminal, as in CI. At the end, no process may be left.

mod harness;

use harness::{Makes, Terminal, wait_for};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const UP: &str = "Ctrl-C ends all";

/// The number of the leader, once there is one.
fn leader(make: &Makes) -> u16 {
    wait_for("a leader", PATIENCE, || {
        let text = make.run(&["status"]).text;
        let line = text.lines().find(|line| line.contains("  leader "))?;
        line.strip_prefix('n')?.split(' ').next()?.parse().ok()
    })
}

fn node(number: u16) -> String {
    format!("NODE={number}")
}

fn wait_value(make: &Makes, node: u16, key: &str, value: &str) {
    let what = format!("{value} in {key} of n{node}");
    wait_for(&what, PATIENCE, || {
        (make.ctl(node, &["get", key])? == value).then_some(())
    });
}

fn nothing_lives(make: &Makes) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let living = make.living();
        if living.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still there: {living:?}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cluster_goes_through_everything_that_make_does_to_it() {
    let make = Makes::new();
    let mut terminal = make.terminal(&["cluster"]);
    terminal.shows(UP);
    assert!(make.refused(&["cluster"]).contains("runs already"));

    let dead = leader(&make);
    let other = dead % 3 + 1;
    assert!(make.done(&["kill", "NODE=leader"]).contains("+ kill -9 "));
    terminal.shows(&format!("n{dead} | -- is dead now"));
    assert_eq!(make.node_that_is("dead"), Some(dead));
    wait_for("a write without it", PATIENCE, || {
        make.ctl(other, &["set", "/fruit", "apple"])
    });
    make.done(&["restart", &node(dead)]);
    terminal.shows(&format!("n{dead} | -- is running now"));
    wait_value(&make, dead, "/fruit", "apple");

    let leads = leader(&make);
    let follower = leads % 3 + 1;
    make.done(&["pause", &node(follower)]);
    assert_eq!(make.node_that_is("paused"), Some(follower));
    assert!(make.ctl(leads, &["set", "/fruit", "cherry"]).is_some());
    make.done(&["resume", &node(follower)]);
    wait_value(&make, follower, "/fruit", "cherry");

    let wiped = make.done(&["wipe", &node(follower)]);
    for step in ["member remove", "rm -rf", "member add"] {
        assert!(
            wiped.contains(&format!("+ {step}")) || wiped.contains(&format!("+ edgetcdctl {step}"))
        );
    }
    wait_value(&make, follower, "/fruit", "cherry");
    make.done(&["add"]);
    wait_value(&make, 4, "/fruit", "cherry");
    let status = make.done(&["status"]);
    assert_eq!(status.matches(" running ").count(), 4, "{status}");
    assert_eq!(status.matches("MiB").count(), 4, "{status}");

    terminal.signal(Signal::INT);
    terminal.wait();
    assert!(terminal.text().contains("All nodes have ended."));
    nothing_lives(&make);
}

#[test]
fn a_cluster_that_was_stopped_goes_on_with_its_data() {
    let make = Makes::new();
    make.done(&["cluster", "DETACH=yes"]);
    make.ctl(1, &["set", "/fruit", "apple"]).expect("a write");
    make.done(&["stop"]);
    nothing_lives(&make);
    assert!(make.refused(&["status"]).contains("No node is running"));
    assert!(
        make.refused(&["cluster", "N=5"])
            .contains("holds a cluster of 3")
    );

    let mut terminal = make.terminal(&["cluster"]);
    terminal.shows(UP);
    wait_value(&make, 2, "/fruit", "apple");
    make.done(&["stop"]);
    assert!(terminal.wait().success(), "{}", terminal.text());
    nothing_lives(&make);
}

#[test]
fn a_fast_cluster_does_not_wait_for_its_disk() {
    let make = Makes::new();
    let refused = make.refused(&["cluster", "FAST=perhaps", "N=1", "DETACH=yes"]);
    assert!(
        refused.contains("FAST=perhaps is neither yes nor no"),
        "{refused}"
    );
    make.done(&["cluster", "FAST=1", "N=1", "DETACH=yes"]);
    make.done(&["restart", "NODE=1"]);
    make.done(&["add"]);
    let fast = |node| format!("n{node} runs with --unsafe-no-fsync");
    let status = make.done(&["status"]);
    assert!(
        status.contains(&fast(1)) && status.contains(&fast(2)),
        "{status}"
    );
    make.done(&["stop"]);
    let refused = make.refused(&["cluster", "FAST=no", "DETACH=yes"]);
    assert!(refused.contains("was created with FAST=yes"), "{refused}");
    nothing_lives(&make);
}

#[test]
fn a_cluster_that_is_not_to_be_fast_waits_for_its_disk() {
    for off in ["FAST=0", "FAST=no", "FAST=off"] {
        let make = Makes::new();
        make.done(&["cluster", off, "N=1", "DETACH=yes"]);
        let status = make.done(&["status"]);
        assert!(!status.contains("--unsafe-no-fsync"), "{off}: {status}");
        make.done(&["stop"]);
        nothing_lives(&make);
    }
}

/// The first command that a user types.
#[test]
fn make_run_is_one_node_to_talk_to() {
    let make = Makes::new();
    let data = format!("DATA_DIR={}", make.cluster_dir().display());
    let client = format!("CLIENT_URL=http://127.0.0.1:{}", make.port());
    let peer = format!("PEER_URL=http://127.0.0.1:{}", make.port() + 1);
    let mut terminal = make.terminal(&["run", &data, &client, &peer]);
    terminal.shows("try: curl http://127.0.0.1");
    let answer = make.ctl(1, &["set", "/hello", "world"]);
    assert_eq!(answer.as_deref(), Some("world"));
    terminal.signal(Signal::INT);
    terminal.wait();
    assert!(terminal.text().contains("stopped"), "{}", terminal.text());
    assert!(make.done(&["help"]).contains("make run "));
}

/// Two terminals, or an impatient user: one make runs the cluster, the other one reports that and changes nothing.
#[test]
fn two_makes_at_once_start_one_cluster() {
    let make = Makes::new();
    let mut terminals = [make.terminal(&["cluster"]), make.terminal(&["cluster"])];
    wait_for("one of both to be refused", PATIENCE, || {
        let refused = |terminal: &Terminal| terminal.text().contains("runs already");
        terminals.iter().any(refused).then_some(())
    });
    let refused = terminals[1].text().contains("runs already");
    let [first, second] = &mut terminals;
    let (going, gone) = if refused {
        (first, second)
    } else {
        (second, first)
    };
    assert!(!gone.wait().success(), "{}", gone.text());
    going.shows(UP);
    let status = make.done(&["status"]);
    assert_eq!(status.matches(" running ").count(), 3, "{status}");
    make.done(&["stop"]);
    assert!(going.wait().success(), "{}", going.text());
    nothing_lives(&make);
}

#[test]
fn one_of_two_members_is_replaced() {
    let make = Makes::new();
    make.done(&["cluster", "DETACH=yes", "N=2"]);
    make.ctl(1, &["set", "/fruit", "apple"]).expect("a write");
    let follower = 3 - leader(&make);
    make.done(&["wipe", &node(follower)]);
    wait_value(&make, follower, "/fruit", "apple");
    make.done(&["stop"]);
    nothing_lives(&make);
}

#[test]
fn however_the_terminal_ends_no_node_is_left() {
    let make = Makes::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut terminal = make.terminal(&["cluster"]);
        terminal.shows(UP);
        terminal.signal(signal);
        terminal.wait();
        nothing_lives(&make);
    }
}

/// A make that gets SIGTERM sends it to its script again, so the script gets it twice. Users press Ctrl-C twice.
#[test]
fn several_signals_in_a_row_leave_no_node() {
    let mut make = Makes::new();
    let slow = make.slow_scripts();
    for (words, shown, signal) in [
        (&["cluster"][..], UP, Signal::INT),
        (&["cluster"], UP, Signal::TERM),
        (&["demo", "DEMO_PACE=0"], "== A write", Signal::HUP),
    ] {
        let mut terminal = make.terminal(words);
        terminal.shows(shown);
        fs::write(&slow, "").expect("a file");
        terminal.signal_often(signal);
        nothing_lives(&make);
        fs::remove_file(&slow).expect("it exists");
        let _ = fs::remove_dir_all(make.cluster_dir()); // the demo has removed it
    }
}

#[test]
fn the_demo_shows_a_failover_and_leaves_nothing() {
    let make = Makes::new();
    let text = make.done(&["demo", "DEMO_PACE=0"]);
    for shown in [
        "ms after the kill",
        "[watch through n",
        "+ kill -STOP",
        "Added member named n4",
        "n4    ",
    ] {
        assert!(text.contains(shown), "no {shown:?} in: {text}");
    }
    assert!(
        !text.contains("nodes.sh: line"),
        "bash reports an error: {text}"
    );
    assert!(!make.cluster_dir().exists());
    nothing_lives(&make);
}

#[test]
fn a_port_in_use_is_told_before_anything_is_started() {
    let make = Makes::new();
    let _taken = TcpListener::bind(("127.0.0.1", make.port() + 3)).expect("a free port");
    let text = make.refused(&["cluster"]);
    assert!(text.contains("which n2 needs, is in use"), "{text}");
    let further = format!("make cluster BASE_PORT={}", make.port() + 1000);
    assert!(text.contains(&further), "{text}");
    assert!(
        !make.cluster_dir().exists(),
        "nothing else prevents the start"
    );
    nothing_lives(&make);
}

#[test]
fn what_is_not_there_is_told_with_what_there_is() {
    let make = Makes::new();
    assert!(
        make.refused(&["status"])
            .contains("To start one: make cluster")
    );
    assert!(make.refused(&["cluster", "N=none"]).contains("N=5"));
    assert!(
        make.refused(&["cluster", "BASE_PORT=65530"])
            .contains("BASE_PORT=3379")
    );
    make.done(&["cluster", "DETACH=yes", "N=1"]);
    assert!(make.refused(&["kill"]).contains("NODE=1"));
    assert!(make.refused(&["kill", "NODE=7"]).contains("there is n1."));
    assert!(make.refused(&["wipe", "NODE=1"]).contains("the only one"));
    assert!(make.ctl(1, &["ls", "/"]).is_some(), "it was left alone");
    make.done(&["stop"]);
    nothing_lives(&make);
}

/// A process that has the reused number of a node that has ended.
#[test]
fn a_stranger_with_the_number_of_a_node_is_left_alone() {
    let make = Makes::new();
    make.done(&["cluster", "DETACH=yes", "N=1"]);
    make.done(&["kill", "NODE=1"]);
    let file = make.cluster_dir().join("n1/pid");
    let recorded = fs::read_to_string(&file).expect("a number and a birth");
    let (_, birth) = recorded.split_once(' ').expect("two words");
    let mut stranger = Command::new("sleep").arg("60").spawn().expect("a sleep");
    fs::write(&file, format!("{} {birth}", stranger.id())).expect("it can be written");
    assert!(
        make.refused(&["kill", "NODE=1"])
            .contains("is dead already")
    );
    make.done(&["stop"]);
    assert!(stranger.try_wait().expect("a state").is_none());
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
}

const PAGES: [&str; 4] = [
    "share/man/man1/edgetcdctl.1",
    "share/bash-completion/completions/edgetcdctl",
    "share/zsh/site-functions/_edgetcdctl",
    "share/fish/vendor_completions.d/edgetcdctl.fish",
];

/// What systemd, Prometheus and Grafana read.
const PACKAGING: [&str; 5] = [
    "share/edgetcd/systemd/edgetcd.env",
    "share/edgetcd/systemd/edgetcd.service",
    "share/edgetcd/prometheus/alerts.yml",
    "share/edgetcd/prometheus/scrape.yml",
    "share/edgetcd/grafana/edgetcd.json",
];

#[test]
fn programs_and_pages_are_installed_and_links_when_asked_for() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let destination = format!("DESTDIR={}/there", folder.path().display());
    let words = ["install", &destination, "PREFIX=/usr"];
    let prefix = folder.path().join("there/usr");
    let bin = prefix.join("bin");
    make.done(&words);
    assert!(bin.join("edgetcd").exists() && bin.join("edgetcdctl").exists());
    for page in PAGES {
        let text = fs::read_to_string(prefix.join(page)).expect("a page");
        assert!(
            text.contains("cluster-health") || text.contains(r"cluster\-health"),
            "{page}: {text}"
        );
    }
    for file in PACKAGING {
        assert!(prefix.join(file).exists(), "{file}");
    }
    let unit = fs::read_to_string(prefix.join("share/edgetcd/systemd/edgetcd.service"));
    assert!(
        unit.expect("a unit")
            .contains("\nExecStart=/usr/bin/edgetcd\n")
    );
    assert!(!bin.join("etcd").exists(), "nobody asked for links");

    let linked = [&words[..], &["LINKS=yes"]].concat();
    make.done(&linked);
    make.done(&linked);
    for (link, program) in [("etcd", "edgetcd"), ("etcdctl", "edgetcdctl")] {
        let there = fs::read_link(bin.join(link)).expect("a link");
        assert_eq!(there.to_str(), Some(program));
    }

    fs::remove_file(bin.join("etcd")).expect("it is there");
    symlink("/opt/etcd/etcd", bin.join("etcd")).expect("another etcd");
    make.refused(&linked);
    let there = fs::read_link(bin.join("etcd")).expect("a link");
    assert_eq!(there.to_str(), Some("/opt/etcd/etcd"));
}

#[test]
fn a_tarball_holds_programs_pages_license_and_readme() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let to = format!("DIST_DIR={}/dist", folder.path().display());
    let here = concat!("HOSTCTL=", env!("CARGO_BIN_EXE_edgetcdctl"));
    make.done(&["dist", &to, here, "TARGET=some-target"]);
    let name = format!("edgetcd-{}-some-target", env!("CARGO_PKG_VERSION"));
    let output = Command::new("tar")
        .arg("-tzf")
        .arg(folder.path().join(format!("dist/{name}.tar.gz")))
        .output()
        .expect("tar runs");
    let text = String::from_utf8(output.stdout).expect("names");
    let mut found: Vec<&str> = text.lines().filter(|name| !name.ends_with('/')).collect();
    found.sort_unstable();
    let names = ["LICENSE", "README.md", "bin/edgetcd", "bin/edgetcdctl"];
    let mut expected: Vec<String> = names
        .iter()
        .chain(&PAGES)
        .chain(&PACKAGING)
        .map(|file| format!("{name}/{file}"))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
