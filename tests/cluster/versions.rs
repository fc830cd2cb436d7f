//! Members of two versions, during an upgrade.
//!
//! The second program is built from the same source with `--cfg edgetcd_next_format`: it understands one format of entries
//! more, and its leaders append an entry of that format as soon as they may.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Cluster, wait_for};
use crate::support::alone;

const PATIENCE: Duration = Duration::from_secs(60);

/// What `edgetcdctl wal dump` and the server of the older version say of an entry of the next format.
const NEXT_FORMAT: &str = "it is of format 3, and this edgetcd";

/// Builds the program of the next version.
fn next_program() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("next");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--bin", "edgetcd"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", "--cfg edgetcd_next_format")
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    target.join("debug/edgetcd")
}

/// Whether the log of a node holds an entry of the next format.
fn has_next_format(cluster: &Cluster, node: usize) -> bool {
    let output = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["wal", "dump"])
        .arg(cluster.node(node).data())
        .output()
        .expect("edgetcdctl runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).contains(NEXT_FORMAT)
}

#[test]
fn an_entry_of_the_next_format_waits_until_every_member_is_upgraded() {
    let _alone = alone();
    let next = next_program();
    let mut cluster = Cluster::prepare(3, &[]);
    for upgraded in [0, 1] {
        cluster.node_mut(upgraded).use_program(Some(next.clone()));
    }
    cluster.launch();

    // A member of the next version leads, and the member of this one is connected to it.
    if cluster.wait_leader() == 2 {
        cluster.kill(2);
        cluster.wait_leader_among(&[0, 1]);
        cluster.restart(2);
    }
    let leader = cluster.wait_leader_among(&[0, 1]);
    for number in 0..50 {
        cluster.put(2, &format!("/before/{number}"), "1");
    }
    cluster.wait_value(leader, "/before/49", "1", PATIENCE);
    cluster.stop(2);
    assert!(!has_next_format(&cluster, 2), "a member could not apply it");

    cluster.node_mut(2).use_program(Some(next));
    cluster.restart(2);
    wait_for("an entry of the next format", PATIENCE, || {
        has_next_format(&cluster, 2).then_some(())
    });
    cluster.put(2, "/after", "1");

    // Back to this version: it does not start, and says what it needs.
    cluster.stop(2);
    cluster.node_mut(2).use_program(None);
    cluster.node_mut(2).spawn();
    let (status, _) = cluster.node_mut(2).wait_end(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", cluster.node(2).log());
    let log = cluster.node(2).log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(NEXT_FORMAT))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("cannot be applied"), "{log}");
}
