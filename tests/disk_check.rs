//! `edgetcdctl disk check`: its report, its verdict, and its errors. Times and rates are those of the machine, so the
//! transcripts show `#` in place of numbers.

mod harness;

#[path = "harness/transcript.rs"]
mod transcript;

use harness::Server;
use harness::mount::Mount;
use regex_lite::Regex;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a line of a transcript. `names` are words in it and the paths or URLs that they stand for.
fn shown(line: &str, names: &[(&str, String)]) -> String {
    let mut line = line.to_owned();
    for (name, real) in names {
        line = line.replace(name, real);
    }
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("edgetcdctl"), "{line}");
    let output = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let mut text = String::from_utf8(output.stdout).expect("UTF-8");
    for error in String::from_utf8(output.stderr).expect("UTF-8").lines() {
        text += &format!("! {error}\n");
    }
    if let Some(status) = output.status.code().filter(|status| *status != 0) {
        text += &format!("status {status}\n");
    }
    for (name, real) in names {
        text = text.replace(real.as_str(), name);
    }
    // Lines that depend on the disk: one that keeps its cache, as in a virtual machine, and a file system that moves
    // its blocks.
    let special = ["These syncs are faster than any disk", "mmap is not used"];
    let is_usual = |line: &&str| !special.iter().any(|start| line.starts_with(start));
    let lines = text.lines().filter(is_usual);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    vague(&text).replace("mmap + msync - - - -\n", "mmap + msync #ms #ms #ms #\n")
}

/// The text without the measured numbers, and with single blanks in place of columns.
fn vague(text: &str) -> String {
    let replaced = |text: &str, pattern: &str, by: &str| {
        let pattern = Regex::new(pattern).expect("a pattern");
        pattern.replace_all(text, by).into_owned()
    };
    let text = replaced(text, r"[0-9]+(\.[0-9]+)?ms", "#ms");
    let text = replaced(&text, r"[0-9]+(\.[0-9]+)? (MB|kB)", "# $2");
    let text = replaced(&text, r"[0-9]+(\.[0-9]+)?% of", "#% of");
    let text = replaced(&text, r"(more than 100|[0-9.]+) years", "# years");
    let text = replaced(&text, r"(?m)(#ms +#ms +#ms) +[0-9]+$", "$1 #");
    let text = replaced(
        &text,
        r"(?m)--heartbeat-interval=[0-9]+ --election-timeout=[0-9]+$",
        "--heartbeat-interval=# --election-timeout=#",
    );
    replaced(&text, " {2,}", " ")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_disk_is_measured_and_judged() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let names = [
        ("FILE", path(&file)),
        ("MISSING", path(&folder.path().join("missing"))),
        ("DIR", path(folder.path())),
    ];
    transcript::check("ctl/disk", |line| shown(line, &names));
    let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "only FILE: {left:?}");
}

#[test]
fn a_running_node_says_its_timeouts_and_what_it_writes() {
    let server = Server::start(&["--heartbeat-interval=5000", "--election-timeout=50000"]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    let closed = harness::server::free_address();
    let names = [
        ("NODE", format!("http://{}", server.address())),
        ("NOBODY", closed.to_string()),
        ("DIR", path(server.data())),
    ];
    transcript::check("ctl/disk-node", |line| shown(line, &names));
}

#[test]
#[ignore = "mounts file systems, which needs root"]
fn a_full_disk_and_a_read_only_one_are_refused() {
    let (full, read_only) = (Mount::tmpfs(16), Mount::tmpfs(64));
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(read_only.path())
        .status();
    assert!(remounted.expect("mount runs").success());
    let names = [
        ("FULL", path(&full.path())),
        ("READONLY", path(&read_only.path())),
    ];
    transcript::check("ctl/disk-root", |line| shown(line, &names));
}
