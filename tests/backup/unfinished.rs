//! A killed restore: no server starts with an empty store on its directory, and each command that a message proposes
//! does what the message says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Server, wait_for};
use crate::support::{complained, folder, put, restore_alone, run, save, text, url};

const WITHIN: Duration = Duration::from_secs(60);

/// Puts a directory into the state before the last step of a restore: everything exists, and nothing was moved.
fn interrupt(data: &Path) {
    let aside = data.join("restore.tmp");
    fs::create_dir(&aside).expect("made");
    fs::rename(data.join("member"), aside.join("member")).expect("moved");
}

/// The server ends and prints the command.
fn refuses(server: &mut Server) -> String {
    server.spawn();
    let (status, _) = server.wait_end(WITHIN);
    assert_eq!(status.code(), Some(1), "{}", server.log());
    server.log()
}

fn type_it(log: &str, beginning: &str) {
    let at = log
        .rfind(beginning)
        .unwrap_or_else(|| panic!("no {beginning} in {log}"));
    let line = log[at..].lines().next().expect("a line");
    let status = Command::new("sh")
        .args(["-c", line])
        .status()
        .expect("it starts");
    assert!(status.success(), "{line}");
}

#[test]
fn no_server_starts_on_half_a_restore() {
    let source = Server::start(&[]);
    put(&mut source.connect(), "/kept", "1");
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&url(source.address()), &file);
    let mut server = Server::prepare(&[]);
    restore_alone(&server, &file, &[]);
    interrupt(server.data());
    let log = refuses(&mut server);
    assert!(
        log.contains("edgetcdctl snapshot restore FILE --data-dir"),
        "{log}"
    );
    assert!(!server.data().join("member").exists(), "nothing was made");
    // `wal check` reports the same as a start.
    let checked = complained(&run("", &["wal", "check", text(server.data())]), 1);
    assert!(checked.contains("was not finished"), "{checked}");
    // The restore is finished by the same command.
    restore_alone(&server, &file, &[]);
    server.launch();
    assert_eq!(server.ask("GET", "/v2/keys/kept", None).status, 200);
    server.stop();
    // The restore is discarded.
    interrupt(server.data());
    let log = refuses(&mut server);
    type_it(&log, "rm -r ");
    server.launch();
    assert_eq!(server.ask("GET", "/v2/keys/kept", None).status, 404);
}

/// The log was already moved to its final place, and the rest was not.
#[test]
fn a_log_that_lies_elsewhere_is_discarded_with_the_rest() {
    let source = Server::start(&[]);
    put(&mut source.connect(), "/kept", "1");
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&url(source.address()), &file);
    let wal = folder.path().join("a log");
    let mut server = Server::prepare(&[&format!("--wal-dir={}", wal.display())]);
    restore_alone(&server, &file, &["--wal-dir", text(&wal)]);
    interrupt(server.data());
    let names = fs::read_dir(&wal).expect("a folder").flatten();
    let names: Vec<String> = names
        .map(|found| found.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".wal"))
        .collect();
    assert!(!names.is_empty());
    let list = server.data().join("restore.tmp/placed");
    fs::write(list, names.join("\n")).expect("written");
    fs::create_dir(wal.join("restore.tmp")).expect("made");
    let log = refuses(&mut server);
    type_it(&log, "rm -r ");
    assert_eq!(
        fs::read_dir(&wal)
            .expect("a folder")
            .flatten()
            .filter(|found| found.file_name() != "lock")
            .count(),
        0
    );
    server.launch();
    assert_eq!(server.ask("GET", "/v2/keys/kept", None).status, 404);
}

/// After a kill at any moment, the message is right.
#[test]
fn a_restore_killed_at_any_moment_leaves_all_or_a_refusal() {
    let source = Server::start(&[]);
    let mut connection = source.connect();
    let value = "v".repeat(500_000);
    for key in 0..40 {
        put(&mut connection, &format!("/k{key}"), &value);
    }
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&url(source.address()), &file);
    let mut refused = 0;
    for round in 0..12_u32 {
        let mut server = Server::prepare(&[]);
        let peer = format!(
            "--initial-advertise-peer-urls={}",
            url(server.peer_address())
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
            .args(["snapshot", "restore", text(&file), &peer, "--data-dir"])
            .arg(server.data())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        if round % 2 == 0 {
            // Kill it as soon as it has begun.
            let begun = server.data().join("restore.tmp");
            wait_for("it to begin, or to end", WITHIN, || {
                (begun.exists() || child.try_wait().expect("a child").is_some()).then_some(())
            });
        } else {
            std::thread::sleep(Duration::from_millis(u64::from(round) * 10));
        }
        child.kill().expect("a child");
        child.wait().expect("it ends");
        let has_begun = server.data().join("restore.tmp").exists();
        let is_whole = server.data().join("member").exists();
        if has_begun && !is_whole {
            refused += 1;
            let log = refuses(&mut server);
            assert!(log.contains("rm -r"), "{log}");
            restore_alone(&server, &file, &[]);
        } else if !is_whole {
            continue;
        }
        server.launch();
        assert_eq!(server.ask("GET", "/v2/keys/k39", None).status, 200);
    }
    assert!(refused > 0, "no restore was caught half-way");
}
