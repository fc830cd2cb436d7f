//! The units of systemd: those that `make export` writes, and that of the packages. Also the compose files.

#![cfg(target_os = "linux")]

mod harness;

use harness::server::program;
use harness::{Makes, Server, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// The rating of `systemd-analyze security`, times ten: 0 is best, 100 is worst.
const EXPOSURE_MAX: u32 = 20;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `make export` to a new folder of the test.
fn export(make: &Makes, folder: &Path, words: &[&str]) -> PathBuf {
    let out = folder.join("out");
    let dir = format!("DIR={}", out.display());
    make.done(&[&["export", &dir], words].concat());
    out
}

// What the files say ------------------------------------------------------------------------------

/// The words of `ExecStart` of a unit.
fn command_of_unit(unit: &str) -> Vec<String> {
    let joined = unit.replace("\\\n", " ");
    let line = joined
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words = line.expect("a command").split_whitespace();
    words.map(str::to_owned).collect()
}

/// The flags of each service of a compose file.
fn flags_of_compose(text: &str) -> Vec<Vec<String>> {
    let services = text.split("    command:\n").skip(1);
    let flag = |line: &str| {
        Some(
            line.strip_prefix("      - '")?
                .strip_suffix('\'')?
                .to_owned(),
        )
    };
    services
        .map(|service| service.lines().map_while(flag).collect())
        .collect()
}

/// Starts a member for each list of flags, with data directories below `folder` in place of `data`. All of them must
/// serve, and know what was written through the first one.
fn members_start(make: &Makes, folder: &Path, members: &[Vec<String>], data: &str) {
    let folder = format!("--data-dir={}", folder.display());
    let mut processes = Vec::new();
    for (node, flags) in members.iter().enumerate() {
        let placed = |flag: &String| match flag.strip_prefix("--data-dir=") {
            Some(path) => {
                assert!(path.starts_with(data), "{path}");
                format!("{folder}/n{node}{path}")
            }
            None => flag.clone(),
        };
        let data = placed(
            flags
                .iter()
                .find(|flag| flag.starts_with("--data-dir="))
                .expect("one"),
        );
        let parent = Path::new(data.trim_start_matches("--data-dir="))
            .parent()
            .expect("a folder");
        fs::create_dir_all(parent).expect("a folder");
        let process = Command::new(&program()[0])
            .args(&program()[1..])
            .args(flags.iter().map(placed))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        processes.push(Running(process.expect("it starts")));
    }
    let health = wait_for("a healthy cluster", SOON, || {
        make.ctl(1, &["cluster-health"])
    });
    assert!(health.ends_with("cluster is healthy"), "{health}");
    assert_eq!(
        health.matches("is healthy: got").count(),
        members.len(),
        "{health}"
    );
    make.ctl(1, &["set", "/fruit", "apple"]).expect("a write");
    for node in 1..=u16::try_from(members.len()).expect("few") {
        wait_for("the key on each member", SOON, || {
            (make.ctl(node, &["get", "/fruit"])? == "apple").then_some(())
        });
    }
}

// make export -------------------------------------------------------------------------------------

#[test]
fn the_flags_of_exported_units_start_a_cluster() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let out = export(&make, folder.path(), &[]);
    let command = |node| command_of_unit(&read(&out.join(format!("edgetcd-n{node}.service"))));
    let members: Vec<Vec<String>> = (1..=3).map(|node| command(node)[1..].to_vec()).collect();
    assert_eq!(command(1)[0], "/usr/local/bin/edgetcd");
    let guide = read(&out.join("README.md"));
    assert!(
        guide.contains("systemctl enable --now edgetcd-n1 edgetcd-n2 edgetcd-n3"),
        "{guide}"
    );
    members_start(&make, folder.path(), &members, "/var/lib/edgetcd-n");
}

#[test]
fn the_flags_of_exported_compose_files_start_a_cluster() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let out = export(&make, folder.path(), &["FORMAT=compose", "N=2"]);
    let members = flags_of_compose(&read(&out.join("compose.yaml")));
    assert_eq!(members.len(), 2);
    members_start(&make, folder.path(), &members, "/data");
}

/// A cluster that exists is exported with its number of members, its ports and its syncs.
#[test]
fn a_cluster_that_exists_is_exported_as_it_is() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    make.done(&["cluster", "FAST=1", "N=1", "DETACH=yes"]);
    make.done(&["stop"]);
    let out = export(&make, folder.path(), &["BASE_PORT=4000", "PREFIX=/usr"]);
    let command = command_of_unit(&read(&out.join("edgetcd-n1.service")));
    let client = format!("--listen-client-urls=http://127.0.0.1:{}", make.port());
    assert_eq!(command[0], "/usr/bin/edgetcd");
    assert!(command.contains(&client), "{command:?}");
    assert!(
        command.contains(&"--unsafe-no-fsync".to_owned()),
        "{command:?}"
    );
    assert!(!out.join("edgetcd-n2.service").exists());
}

#[test]
fn members_are_exported_for_machines_of_their_own() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = ["HOSTS=10.0.0.1 [2001:db8::2]", "BASE_PORT=2379"];
    let out = export(&make, folder.path(), &hosts);
    let all = "--initial-cluster=n1=http://10.0.0.1:2380,n2=http://[2001:db8::2]:2380";
    for (node, host) in [(1, "10.0.0.1"), (2, "[2001:db8::2]")] {
        let command = command_of_unit(&read(&out.join(format!("edgetcd-n{node}.service"))));
        for flag in [all, &format!("--advertise-client-urls=http://{host}:2379")] {
            assert!(
                command.iter().any(|word| word == flag),
                "{flag}: {command:?}"
            );
        }
    }
    fs::remove_dir_all(&out).expect("removed");
    let words = [&hosts[..], &["FORMAT=compose", "FLAGS=--cors=*"]].concat();
    let out = export(&make, folder.path(), &words);
    for node in 1..=2 {
        let members = flags_of_compose(&read(&out.join(format!("n{node}.yaml"))));
        assert_eq!(members.len(), 1);
        assert!(
            members[0].contains(&all.to_owned()) && members[0].contains(&"--cors=*".to_owned())
        );
    }
}

#[test]
fn what_cannot_be_exported_is_refused_with_the_next_command() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let dir = format!("DIR={}", folder.path().join("out").display());
    for (words, said) in [
        (vec!["DIR="], "make export DIR=units"),
        (vec![&dir, "FORMAT=yaml"], "neither systemd nor compose"),
        (vec![&dir, "N=0"], "N=0 is not a number"),
        (
            vec![&dir, "HOSTS=one two"],
            "HOSTS contains one, which is no IP address",
        ),
        (vec![&dir, "FLAGS=--name='a b'"], "cannot quote"),
        (vec![&dir, "FAST=perhaps"], "neither yes nor no"),
    ] {
        let printed = make.refused(&[&["export"], &words[..]].concat());
        assert!(printed.contains(said), "{words:?}: {printed}");
        assert!(!folder.path().join("out").exists(), "{words:?}");
    }
    make.done(&["export", &dir]);
    let printed = make.refused(&["export", &dir]);
    assert!(printed.contains("is not empty"), "{printed}");
}

// systemd -----------------------------------------------------------------------------------------

fn systemd_analyze(words: &[&str], unit: &Path) {
    let output = Command::new("systemd-analyze")
        .args(words)
        .arg(unit)
        .output();
    let output = output.expect("systemd-analyze runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    // It also complains about other units of the machine.
    let complains = words[0] == "verify" && printed.lines().any(|line| line.contains("edgetcd"));
    assert!(
        output.status.success() && !complains,
        "{words:?}: {printed}"
    );
}

fn packaged_unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/packaging/systemd/edgetcd.service")
}

#[test]
#[ignore = "needs systemd-analyze (apt-get install systemd)"]
fn systemd_takes_the_units_and_rates_them_as_safe() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let out = export(&make, folder.path(), &[]);
    let exported = (1..=3).map(|node| out.join(format!("edgetcd-n{node}.service")));
    let here = fs::canonicalize(&program()[0]).expect("the program");
    for unit in exported.chain([packaged_unit()]) {
        // systemd-analyze checks that the program exists.
        let text = read(&unit).replace("/usr/local/bin/edgetcd", &here.display().to_string());
        let copy = folder.path().join(unit.file_name().expect("a name"));
        fs::write(&copy, text).expect("written");
        systemd_analyze(&["verify"], &copy);
        let most = format!("--threshold={EXPOSURE_MAX}");
        systemd_analyze(&["security", "--offline=true", "--no-pager", &most], &copy);
    }
}

/// The system calls of each set that `SystemCallFilter` may name.
fn sets_of_calls() -> BTreeMap<String, Vec<String>> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager"])
        .output();
    let output = output.expect("systemd-analyze runs");
    let (mut sets, mut name) = (BTreeMap::new(), String::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("    ") {
            Some(call) if !call.starts_with('#') => {
                let calls: &mut Vec<String> = sets.entry(name.clone()).or_default();
                calls.push(call.to_owned());
            }
            Some(_) => {}
            None => name = line.trim().to_owned(),
        }
    }
    sets
}

/// A set without the names of other sets.
fn expanded(sets: &BTreeMap<String, Vec<String>>, name: &str) -> BTreeSet<String> {
    let calls = sets.get(name).unwrap_or_else(|| panic!("no set {name}"));
    let expand = |call: &String| match call.starts_with('@') {
        true => expanded(sets, call),
        false => BTreeSet::from([call.clone()]),
    };
    calls.iter().flat_map(expand).collect()
}

/// The system calls that the unit allows.
fn allowed() -> BTreeSet<String> {
    let sets = sets_of_calls();
    let mut allowed = BTreeSet::new();
    let unit = read(&packaged_unit());
    let filters = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="));
    for filter in filters {
        match filter.strip_prefix('~') {
            Some(name) => {
                let refused = expanded(&sets, name);
                allowed.retain(|call| !refused.contains(call));
            }
            None => allowed.extend(expanded(&sets, filter)),
        }
    }
    assert!(allowed.len() > 200, "{allowed:?}");
    allowed
}

/// The system calls of a server that starts, writes, reads, is watched, saves snapshots, ends, and starts again.
fn used(folder: &Path) -> BTreeSet<String> {
    let server = Server::prepare(&["--snapshot-count=10"]);
    let mut used = BTreeSet::new();
    for round in 0..2 {
        let trace = folder.join(format!("trace-{round}"));
        let plain = server.command();
        let process = Command::new("strace")
            .args(["--follow-forks", "--quiet=all", "--output"])
            .arg(&trace)
            .arg(plain.get_program())
            .args(plain.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut process = Running(process.expect("strace (apt-get install strace)"));
        wait_for("the server to serve", SOON, || {
            let answer = server.try_ask("GET", "/health", None, SOON).ok()?;
            (answer.status == 200).then_some(())
        });
        for number in 0..30 {
            server.ask("PUT", &format!("/v2/keys/k{number}?value=x"), None);
        }
        server.ask("GET", "/v2/keys/k1?wait=true&waitIndex=1", None);
        server.ask("GET", "/metrics", None);
        server.ask("GET", "/edgetcd/snapshot", None);
        let first = read(&trace);
        let server_id = first
            .split_whitespace()
            .next()
            .and_then(|id| id.parse().ok());
        let server_id = server_id
            .and_then(rustix::process::Pid::from_raw)
            .expect("its id");
        rustix::process::kill_process(server_id, rustix::process::Signal::TERM).expect("it runs");
        process.0.wait().expect("it ends");
        let call = |line: &str| {
            let (_, rest) = line.split_once(' ')?;
            let name = rest.trim_start().trim_start_matches("<... ");
            let end = name.find(|c: char| c != '_' && !c.is_ascii_alphanumeric())?;
            (end > 0).then(|| name[..end].to_owned())
        };
        used.extend(read(&trace).lines().filter_map(call));
    }
    used
}

#[test]
#[ignore = "needs strace and systemd-analyze (apt-get install strace systemd)"]
fn the_unit_allows_each_system_call_of_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let used = used(folder.path());
    assert!(
        used.len() > 40 && used.contains("epoll_create1"),
        "{used:?}"
    );
    let allowed = allowed();
    let refused: Vec<&String> = used
        .iter()
        .filter(|call| !allowed.contains(*call))
        .collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}
