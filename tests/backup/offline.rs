//! Reading the directory of a member without its server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Server};
use crate::support::{
    BUMP, PATIENCE, complained, fill, folder, put, restore_alone, run, said, text, tree,
};

fn write(server: &Server) {
    fill(&[server.address()], 300);
    let mut connection = server.connect();
    put(&mut connection, "/_hidden", "h");
    put(&mut connection, "/rich/_h", "h");
}

/// All files in and below a folder, with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
    found
}

fn back_up(from: &Path, to: &Path, further: &[&str]) -> String {
    let words = ["backup", "--data-dir", text(from), "--backup-dir", text(to)];
    said(&run("", &[&words[..], further].concat()))
}

/// A member of three whose log follows snapshots continues alone, with and without the flag.
#[test]
fn a_copy_of_a_members_directory_goes_on_alone() {
    let mut cluster = Cluster::start(3, &["--snapshot-count=100"]);
    write(cluster.node(0));
    cluster.put(0, "/last", "one");
    cluster.wait_value(2, "/last", "one", PATIENCE);
    let (full, index) = (
        tree(cluster.node(2)),
        cluster.node(2).ask("GET", "/v2/keys/", None).index(),
    );
    let old = cluster.members(2).len();
    assert_eq!(old, 3);
    (0..3).for_each(|node| cluster.kill(node));
    let from = cluster.node(2).data().to_owned();
    let before = files(&from);
    for (flags, bump) in [(&["--force-new-cluster"][..], 0), (&[], BUMP)] {
        let folder = folder();
        let (to, wal) = (folder.path().join("copy"), folder.path().join("wal"));
        let jump = ["--bump-index", "0"];
        let jump = if bump == 0 { &jump[..] } else { &[] };
        let further = ["--backup-wal-dir", text(&wal)];
        back_up(&from, &to, &[&further[..], jump].concat());
        assert_eq!(
            files(&from),
            before,
            "the backup has changed what it copied"
        );
        let mut server = Server::prepare(flags);
        server.keep_data_in(&to);
        server.add_flag(&format!("--wal-dir={}", text(&wal)));
        server.launch();
        assert_eq!(tree(&server), full);
        let answer = server.ask("PUT", "/v2/keys/more?value=1", None);
        // The new member's name and URLs also take an index.
        assert_eq!(answer.index(), index + bump + 2);
        let watched = server.ask(
            "GET",
            &format!("/v2/keys/last?wait=true&waitIndex={index}"),
            None,
        );
        // The history was kept, or it is reported as cleared.
        let expected = if bump == 0 { 200 } else { 400 };
        assert_eq!(watched.status, expected, "{}", watched.text());
        assert_eq!(watched.text().contains("\"errorCode\":401"), bump > 0);
        let members = server.ask("GET", "/v2/members", None).json();
        let members = members.get("members").expect("members").items();
        assert_eq!(members.len(), 1);
        server.stop();
        server.launch();
        assert_eq!(server.ask("GET", "/v2/keys/more", None).status, 200);
    }
}

/// While a server runs on the directory, the result is that of one moment.
#[test]
fn a_directory_in_use_can_be_read() {
    let server = Server::start(&[]);
    write(&server);
    let full = tree(&server);
    let folder = folder();
    let (copy, file) = (folder.path().join("copy"), folder.path().join("keys.snap"));
    let words = [
        "snapshot",
        "save",
        "--data-dir",
        text(server.data()),
        text(&file),
    ];
    let output = run("", &words);
    assert!(said(&output).contains("302 keys"), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("a server is running on the directory")
    );
    back_up(server.data(), &copy, &[]);
    for restored in [true, false] {
        let mut other = Server::prepare(&[]);
        match restored {
            true => drop(restore_alone(&other, &file, &[])),
            false => other.keep_data_in(&copy),
        }
        other.launch();
        assert_eq!(tree(&other), full);
    }
    assert_eq!(
        server.ask("PUT", "/v2/keys/still?value=here", None).status,
        201
    );
}

#[test]
fn what_is_no_members_directory_is_refused() {
    let folder = folder();
    let nothing = folder.path().join("nothing");
    let copy = folder.path().join("copy");
    let words = [
        "backup",
        "--data-dir",
        text(&nothing),
        "--backup-dir",
        text(&copy),
    ];
    let error = complained(&run("", &words), 1);
    assert!(
        error.contains("there is no data of a member here"),
        "{error}"
    );
    assert!(!copy.exists() && !nothing.exists());
    let mut server = Server::start(&[]);
    write(&server);
    server.kill();
    let words = [
        "backup",
        "--data-dir",
        text(server.data()),
        "--backup-dir",
        text(server.data()),
    ];
    let error = complained(&run("", &words), 1);
    assert!(error.contains("is not empty"), "{error}");
    // Damage that stops a node from starting also stops a backup.
    let wal = server.data().join("member/wal");
    let segment = fs::read_dir(&wal)
        .expect("the log")
        .map(|entry| entry.expect("one").path());
    let segment = segment.min().expect("a segment");
    let mut bytes = fs::read(&segment).expect("its bytes");
    bytes[600] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let words = [
        "snapshot",
        "save",
        "--data-dir",
        text(server.data()),
        text(&copy),
    ];
    let error = complained(&run("", &words), 1);
    assert!(
        error.contains(text(&segment)) && error.contains("at byte"),
        "{error}"
    );
    assert!(!copy.exists());
}

/// Problems of a directory are reported in the words of a start.
#[test]
fn a_lost_identity_is_told_as_a_node_tells_it() {
    let mut server = Server::start(&[]);
    write(&server);
    server.kill();
    fs::remove_file(server.data().join("member/identity")).expect("removed");
    let folder = folder();
    let (copy, file) = (folder.path().join("copy"), folder.path().join("keys.snap"));
    let check = complained(&run("", &["wal", "check", text(server.data())]), 1);
    assert!(check.contains("member/identity: it is missing"), "{check}");
    for words in [
        ["backup", "--backup-dir", text(&copy)],
        ["snapshot", "save", text(&file)],
    ] {
        let words = [&words[..], &["--data-dir", text(server.data())]].concat();
        assert_eq!(complained(&run("", &words), 1), check);
    }
    assert!(!copy.exists() && !file.exists());
}
