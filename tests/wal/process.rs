//! Two processes on one directory, and the version of the package that maps files.

use edgetcd::wal::{DataDir, Options, RealDisk, WalErrorKind, recover};
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HOLD: &str = "EDGETCD_TEST_HOLD";

/// Ends the child together with the test.
pub struct Holder(pub Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // The child may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one test of this program in a process of its own, with `dir` as the value of the variable. A test that finds
/// the variable set is that child.
pub fn child(test: &str, variable: &str, dir: &Path) -> Holder {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"])
        .env(variable, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Holder(child.expect("a child"))
}

/// Runs in the child process of the test below: opens the directory, prints a line, and waits to be ended.
fn hold_a_directory(dir: OsString) {
    let data_dir = DataDir::open(RealDisk::default(), Options::new(dir)).expect("the first has it");
    let (_wal, _) = recover(&data_dir).expect("recovers");
    println!("\nholding");
    let mut line = String::new();
    // Returns when the parent ends.
    let _ = std::io::stdin().read_line(&mut line);
}

#[test]
fn a_second_process_is_refused_with_the_first_ones_pid() {
    if let Some(dir) = std::env::var_os(HOLD) {
        return hold_a_directory(dir);
    }
    let dir = tempfile::tempdir().expect("a folder");
    let this = "process::a_second_process_is_refused_with_the_first_ones_pid";
    let mut child = child(this, HOLD, dir.path());
    let output = BufReader::new(child.0.stdout.take().expect("its output"));
    let held = output
        .lines()
        .any(|line| line.is_ok_and(|line| line.contains("holding")));
    assert!(held, "the child has the directory");
    let refused =
        || DataDir::open(RealDisk::default(), Options::new(dir.path())).expect_err("refused");
    let error = refused();
    let pid = child.0.id();
    assert_eq!(
        error.kind,
        WalErrorKind::Locked { pid: Some(pid) },
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("process {pid} is using")),
        "{error}"
    );
    drop(child);
    // The kernel releases the lock when the process ends.
    let data_dir =
        DataDir::open(RealDisk::default(), Options::new(dir.path())).expect("free again");
    assert!(recover(&data_dir).is_ok());
}

/// An inspection holds the directory's lock in shared mode for a moment. A node that starts at that moment must not be
/// refused.
#[test]
fn who_only_looks_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || DataDir::open(RealDisk::default(), Options::new(dir.path()));
    drop(open().expect("it is free"));
    let lock = File::open(dir.path().join("member/lock")).expect("the lock's file");
    flock(&lock, FlockOperation::NonBlockingLockShared).expect("nobody has it");
    std::thread::scope(|scope| {
        let started = scope.spawn(open);
        // Long enough that the start tries to take the lock meanwhile, and at most as long as an inspection may take.
        std::thread::sleep(Duration::from_millis(50));
        flock(&lock, FlockOperation::Unlock).expect("it was had");
        let data_dir = started
            .join()
            .expect("no panic")
            .expect("it waits a moment");
        assert!(recover(&data_dir).is_ok());
    });
}

#[test]
fn a_wal_dir_is_locked_too() {
    let (one, two) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let shared = tempfile::tempdir().expect("a folder");
    let options = |dir: &tempfile::TempDir| Options {
        wal_dir: Some(shared.path().join("wal")),
        ..Options::new(dir.path())
    };
    let _home = DataDir::open(RealDisk::default(), options(&one)).expect("the first has it");
    let error = DataDir::open(RealDisk::default(), options(&two)).expect_err("refused");
    assert_eq!(
        error.kind,
        WalErrorKind::Locked {
            pid: Some(std::process::id())
        }
    );
    assert_eq!(error.path, shared.path().join("wal/lock"));
}

/// Before 0.9.11 it did not check its ranges.
#[test]
fn memmap2_is_new_enough() {
    let lock = include_str!("../../Cargo.lock");
    let after = lock
        .split("name = \"memmap2\"\nversion = \"")
        .nth(1)
        .expect("memmap2 is used");
    let version = after.split('"').next().expect("a version");
    let numbers: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    assert!(numbers >= vec![0, 9, 11], "memmap2 {version}");
}
