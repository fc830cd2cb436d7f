//! The cost of a backup, and the conditions under which it must still work.

use std::fs;
use std::time::Duration;

use crate::harness::client::form_request;
use crate::harness::mount::{Mount, fill as fill_disk};
use crate::harness::{Cluster, Server, server, wait_for};
use crate::support::{PATIENCE, complained, fill, folder, number, put, run, save, text, url};

const PATH: &str = "/edgetcd/snapshot";

/// Two stalled clients hold little memory, and a third one is asked to come again. When one of them disconnects, the
/// next one is served.
#[test]
fn stalled_clients_are_few_and_hold_little() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let value = "x".repeat(1 << 20);
    for key in 0..24 {
        put(&mut connection, &format!("/large/{key}"), &value);
    }
    // After this, memory that a complete transfer leaves in caches is already allocated.
    assert_eq!(server.ask("GET", PATH, None).status, 200);
    let before = server.process().resident_bytes();
    let stalled: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = server.connect();
            connection
                .write(&form_request("GET", PATH, None))
                .expect("sent");
            let head = connection
                .head(false, Duration::from_secs(10))
                .expect("a head");
            assert_eq!(head.status, 200);
            connection
        })
        .collect();
    let third = server.ask("GET", PATH, None);
    assert_eq!(third.status, 503, "{}", third.text());
    assert_eq!(third.header("Retry-After"), Some("5"));
    assert!(third.text().contains("try again"));
    let grown = server.process().resident_bytes().saturating_sub(before);
    assert!(
        grown < 8 << 20 || !server::is_release() && grown < 16 << 20,
        "two stalled clients cost {grown} bytes"
    );
    put(&mut connection, "/others", "go on");
    drop(stalled);
    wait_for("a free place", PATIENCE, || {
        (server.ask("GET", PATH, None).status == 200).then_some(())
    });
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_is_no_obstacle() {
    let mount = Mount::tmpfs(16);
    let server = Server::start_on(&mount.path().join("data"), &[]);
    let mut connection = server.connect();
    put(&mut connection, "/before", "the flood");
    fill_disk(&mount.path().join("filler"));
    let mut last = 0;
    wait_for("a write to be refused", PATIENCE, || {
        let form = format!("value={}", "y".repeat(10_000));
        let answer = connection.ask("PUT", &format!("/v2/keys/k{last}"), Some(&form));
        let refused = answer.expect("an answer").status >= 500;
        last += u64::from(!refused);
        refused.then_some(())
    });
    let folder = folder();
    let file = folder.path().join("keys.snap");
    let saved = save(&url(server.address()), &file);
    assert_eq!(number(&saved, "keys"), last + 1);
    let checked = run("", &["snapshot", "check", text(&file)]);
    assert!(checked.status.success());

    // A backup cannot be saved on a full disk, and no part of it is left.
    let there = mount.path().join("keys.snap");
    let output = run(&url(server.address()), &["snapshot", "save", text(&there)]);
    assert!(complained(&output, 1).contains("No space left"));
    let names = fs::read_dir(mount.path()).expect("the mount");
    let names: Vec<_> = names
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().contains("keys")),
        "{names:?}"
    );
}

#[test]
fn without_a_majority_only_what_a_member_has_can_be_saved() {
    let mut cluster = Cluster::start(3, &[]);
    fill(&cluster.addresses(), 100);
    cluster.put(0, "/last", "one");
    cluster.wait_value(1, "/last", "one", PATIENCE);
    cluster.kill(0);
    cluster.kill(2);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    let endpoint = url(cluster.node(1).address());
    let output = run(&endpoint, &["--no-sync", "snapshot", "save", text(&file)]);
    let error = complained(&output, 4);
    assert!(error.contains("--local"), "{error}");
    assert!(!file.exists());
    let output = run(
        &endpoint,
        &["-o", "json", "snapshot", "save", "--local", text(&file)],
    );
    assert!(crate::support::said(&output).contains("\"keys\":101"));
}
