//! `edgetcd-lab cluster`: only its own page may act, and no node outlives it. Its handles are used in a browser
//! (`page/cluster.test.js`), its links in `links.rs`.

use crate::real::{PROGRAM, Process, RealCluster, until};
use rustix::process::{Pid, Signal, test_kill_process};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The processes that have a flag with this folder in it.
fn processes_of(folder: &Path) -> Vec<Pid> {
    let needle = format!("--data-dir={}/", folder.display());
    let entries = std::fs::read_dir("/proc").expect("processes");
    let ids = entries.flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_of = String::from_utf8_lossy(&line).contains(&needle);
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        is_of.then(|| Pid::from_raw(id))?
    });
    ids.collect()
}

#[test]
fn no_other_page_may_act() {
    let lab = RealCluster::start();
    lab.wait_running(3);
    let own = lab.url.trim_end_matches('/').to_owned();
    let host = own.strip_prefix("http://").expect("a URL").to_owned();
    let port = host.rsplit(':').next().expect("a port");
    let renamed = format!("name.example:{port}");
    for headers in [
        vec![("Origin", "http://name.example")],
        vec![("Origin", "null")],
        vec![("Host", renamed.as_str())],
        vec![("Host", renamed.as_str()), ("Origin", own.as_str())],
    ] {
        let (status, text) = lab.ask("act", Some("kill 1"), &headers);
        assert_eq!(status, 403, "{headers:?}: {text}");
        assert_eq!(lab.ask("cluster", None, &headers).0, 403, "{headers:?}");
    }
    assert_eq!(lab.ask("act", None, &[]).0, 404, "a GET changes nothing");
    assert!(!lab.ask("cluster", None, &[]).1.contains("\"down\""));
    let (status, state) = lab.ask("act", Some("kill 1"), &[("Origin", own.as_str())]);
    assert_eq!(
        (status, state.matches("\"down\"").count()),
        (200, 1),
        "{state}"
    );
    for (act, why) in [
        ("kill 4", "the members are 1 to 3"),
        ("kill 1", "n1 does not run"),
        ("restart 2", "n2 runs already"),
        ("cut 1 1", "no link to itself"),
        ("delay 1 2 99999", "at most 10000 ms"),
        ("tear 1", "only a simulated cluster"),
        ("", "no act is"),
    ] {
        let (status, text) = lab.ask("act", Some(act), &[]);
        assert!(
            status == 409 && text.contains(why),
            "{act}: {status} {text}"
        );
    }
}

#[test]
fn no_node_outlives_it() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut lab = RealCluster::start();
        lab.wait_running(3);
        let nodes = processes_of(lab.folder.path());
        assert_eq!(nodes.len(), 3);
        assert_eq!(lab.ask("act", Some("pause 3"), &[]).0, 200);
        lab.process.signal(signal);
        let status = lab.process.wait();
        assert_eq!(status.success(), signal != Signal::KILL, "{status}");
        until(&format!("no node after {signal:?}"), || {
            let is_gone = |id: &Pid| test_kill_process(*id).is_err() || is_zombie(*id);
            nodes.iter().all(is_gone).then_some(())
        });
    }
}

/// Whether a process has ended, and nobody has waited for it: in some containers nobody does.
fn is_zombie(id: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

/// The indented lines of the README that begin with this.
fn shown_in_the_readme(beginning: &str) -> Vec<&'static str> {
    let lines = include_str!("../../README.md").lines();
    let shown = lines.filter_map(|line| line.strip_prefix("    ")?.strip_prefix(beginning));
    shown.collect()
}

#[test]
fn the_commands_of_the_readme_work() {
    let flags = shown_in_the_readme("target/release/edgetcd-lab cluster ");
    let [flags] = flags[..] else {
        panic!("one command starts a cluster: {flags:?}")
    };
    let lab = RealCluster::start_with(&flags.split(' ').collect::<Vec<_>>());
    lab.wait_running(5);
    let acts = shown_in_the_readme("curl -d ");
    assert!(acts.len() >= 2, "{acts:?}");
    for act in acts {
        let mut parts = act.split('\'');
        let (words, url) = (parts.nth(1), parts.next());
        assert_eq!(url, Some(" http://127.0.0.1:2390/act"));
        let (status, text) = lab.ask("act", words, &[]);
        assert_eq!(status, 200, "{act}: {text}");
    }
    let (_, state) = lab.ask("cluster", None, &[]);
    assert!(
        state.contains("\"down\"") && state.contains("\"cut\":true"),
        "{state}"
    );
    let records = lab.folder.path().join("records").join("n5.trace");
    until("a file of records", || {
        let text = std::fs::read_to_string(&records).ok()?;
        text.starts_with("{\"format\":1,").then_some(())
    });
}

/// Without --folder, its own folder is only for its user, and is removed at the end, also if it cannot begin.
#[test]
fn a_temporary_folder_is_removed() {
    let place = tempfile::tempdir().expect("a folder");
    let folders = || {
        let entries = std::fs::read_dir(place.path()).expect("the folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect::<Vec<_>>()
    };
    let start = |flags: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["cluster", "--listen=127.0.0.1:0"])
            .args(flags);
        Process::start(command.env("TMPDIR", place.path()))
    };
    let mut process = start(&["--members=1"]);
    process.first_line();
    let [folder] = &folders()[..] else {
        panic!("one folder: {:?}", folders())
    };
    let mode = std::fs::metadata(folder)
        .expect("a folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    process.signal(Signal::INT);
    assert!(process.wait().success());
    assert_eq!(folders(), Vec::<PathBuf>::new());
    std::fs::write(place.path().join("file"), "").expect("a file");
    for flag in [
        "--server=/no/such/server".to_owned(),
        format!("--record={}/file", place.path().display()),
    ] {
        let ended = start(&[&flag]).wait();
        assert_eq!(ended.code(), Some(1), "{flag}");
        assert_eq!(folders(), [place.path().join("file")], "{flag}");
    }
}

#[test]
fn it_says_what_is_wrong_with_its_options() {
    let says = |args: &[&str]| {
        let output = Command::new(PROGRAM)
            .arg("cluster")
            .args(args)
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().expect("its end"), text)
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "").expect("it can be written");
    let full = format!("--folder={}", folder.path().display());
    for (args, code, text) in [
        (
            &["--members=8"][..],
            2,
            "--members 8: not a number from 1 to 7",
        ),
        (&["--listen=0.0.0.0:2390"], 2, "not a loopback address"),
        (&["--port=1"], 2, "port"),
        (&["now"], 2, "takes no argument now"),
        (
            &["--listen=127.0.0.1:0", &full],
            1,
            "not empty; name another folder",
        ),
        (
            &["--listen=127.0.0.1:0", "--server=/no/such/server"],
            1,
            "--server PATH",
        ),
    ] {
        let (found, said) = says(args);
        assert!(
            found == code && said.contains(text),
            "{args:?}: {found} {said}"
        );
    }
}
