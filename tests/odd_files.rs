//! A FIFO, a directory, a socket or a link in place of each file of a data directory. Neither a start nor `wal check`
//! may hang, and no file elsewhere may be overwritten.

mod harness;

use harness::{Server, wait_for};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
}

fn directory(path: &Path) {
    fs::create_dir(path).expect("a directory");
}

fn socket(path: &Path) {
    // `bind` only accepts paths of up to 108 bytes.
    mknodat(CWD, path, FileType::Socket, Mode::from_raw_mode(0o600), 0).expect("a socket");
}

/// Creates something at a path.
type Make = fn(&Path);

const KINDS: [(&str, Make); 3] = [("FIFO", fifo), ("directory", directory), ("socket", socket)];

/// A data directory with a log, a snapshot and an identity, and the list of its files.
fn with_data() -> (Server, Vec<PathBuf>) {
    let mut server = Server::start(&["--snapshot-count=10"]);
    for at in 0..60 {
        let form = format!("value={at}");
        server.ask("PUT", "/v2/keys/a", Some(&form));
    }
    let snap = server.data().join("member/snap");
    wait_for("a snapshot", WITHIN, || {
        fs::read_dir(&snap).ok()?.flatten().find(|found| {
            found
                .path()
                .extension()
                .is_some_and(|extension| extension == "snap")
        })
    });
    server.stop();
    let member = server.data().join("member");
    let mut files = vec![member.join("lock"), member.join("identity")];
    for folder in ["wal", "snap"] {
        let found = fs::read_dir(member.join(folder)).expect("a folder");
        files.extend(found.flatten().map(|found| found.path()));
    }
    (server, files)
}

fn ends(command: &mut Command, what: &str) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    wait_for(what, WITHIN, || child.try_wait().expect("a child"));
    child.wait_with_output().expect("it has ended")
}

fn check(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command.args(["wal", "check"]).arg(dir);
    ends(&mut command, &format!("wal check {}", dir.display()))
}

/// Waits until it serves (None) or has ended. Returns its status.
fn start(server: &mut Server) -> Option<ExitStatus> {
    server.spawn();
    let ended = wait_for("it to serve or to end", WITHIN, || match server.ended() {
        Some(status) => Some(Some(status)),
        None => server.is_healthy().then_some(None),
    });
    match ended {
        None => drop(server.stop()),
        Some(_) => drop(server.wait_end(WITHIN)),
    }
    ended
}

/// Copies a data directory.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("it starts").success());
}

#[test]
fn no_kind_of_file_hangs_a_start_or_a_check() {
    let (mut server, mut files) = with_data();
    let original = server.data().to_owned();
    // The mark of `--unsafe-no-fsync`, of another boot.
    let mark = original.join("member/unsynced");
    fs::write(&mark, [7; 16]).expect("written");
    files.push(mark);
    for file in files {
        let inside = file.strip_prefix(&original).expect("a file of it");
        let name = inside.file_name().expect("a name").to_string_lossy();
        for (kind, make) in KINDS {
            let what = format!("a {kind} in place of {name}");
            let data = server.folder().join(format!("{name}-{kind}"));
            copy(&original, &data);
            fs::remove_file(data.join(inside)).expect("it is there");
            make(&data.join(inside));
            server.keep_data_in(&data);
            let checked = check(&data);
            let status = start(&mut server);
            // The node can start without a spare segment or the older snapshot. For a required file, the error must
            // name it.
            if let Some(status) = status {
                assert_eq!(status.code(), Some(1), "{what}");
                assert!(server.log().contains(&*name), "{what}: {}", server.log());
            }
            assert_eq!(
                checked.status.success(),
                status.is_none(),
                "{what}: {checked:?}"
            );
            fs::remove_dir_all(data).expect("ours");
        }
    }
}

/// A file that a node rewrites must not be written through a link.
#[test]
fn no_link_leads_a_write_elsewhere() {
    let (mut server, _) = with_data();
    let member = server.data().join("member");
    let target = server.folder().join("target");
    for name in ["lock", "identity.tmp"] {
        let path = member.join(name);
        let links: [fn(&Path, &Path); 2] = [
            |target, path| symlink(target, path).expect("a link"),
            |target, path| fs::hard_link(target, path).expect("a link"),
        ];
        for make in links {
            fs::write(&target, "somebody's file\n").expect("written");
            let _ = fs::remove_file(&path);
            make(&target, &path);
            start(&mut server);
            let text = fs::read_to_string(&target).expect("still there");
            assert_eq!(text, "somebody's file\n", "{name}");
            let _ = fs::remove_file(&path);
        }
    }
    assert_eq!(start(&mut server), None, "{}", server.log());
}

#[test]
fn a_first_start_does_not_follow_links_either() {
    for (name, is_refused) in [("lock", true), ("identity.tmp", false)] {
        let mut server = Server::prepare(&[]);
        let member = server.data().join("member");
        fs::create_dir_all(&member).expect("made");
        let target = server.folder().join("target");
        fs::write(&target, "somebody's file\n").expect("written");
        symlink(&target, member.join(name)).expect("a link");
        let status = start(&mut server);
        assert_eq!(status.is_some(), is_refused, "{name}: {}", server.log());
        let log = server.log();
        assert_eq!(log.contains("it is a symbolic link"), is_refused, "{log}");
        let text = fs::read_to_string(&target).expect("still there");
        assert_eq!(text, "somebody's file\n", "{name}");
    }
}

/// Partial files left by a crash have such names. Other names belong to other programs.
#[test]
fn odd_files_beside_those_of_the_node_are_no_obstacle() {
    let (mut server, _) = with_data();
    let member = server.data().join("member");
    let names = [
        "wal/0000000000000009-00abcdef.tmp",
        "snap/0000000000000009-0000000000000001.00abcdef.tmp",
        "snap/notes",
        "wal/notes",
        "notes",
    ];
    for (kind, make) in KINDS {
        for name in names {
            make(&member.join(name));
        }
        assert!(check(server.data()).status.success(), "{kind}");
        assert_eq!(start(&mut server), None, "{kind}: {}", server.log());
        for name in names {
            let path = member.join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }
}

/// A folder of the node is replaced by something else.
#[test]
fn no_kind_of_file_in_place_of_a_folder_hangs_a_start_or_a_check() {
    let (mut server, _) = with_data();
    let original = server.data().to_owned();
    for name in ["", "member", "member/wal", "member/snap"] {
        for (kind, make) in [KINDS[0], KINDS[2]] {
            let data = server.folder().join(format!("copy-{kind}"));
            copy(&original, &data);
            // Removes the slash at the end that an empty name would leave.
            let path: PathBuf = data.join(name).components().collect();
            fs::remove_dir_all(&path).expect("it is there");
            make(&path);
            server.keep_data_in(&data);
            let what = format!("a {kind} in place of {name:?}");
            assert!(!check(&data).status.success(), "{what}");
            let status = start(&mut server).expect(&what);
            assert_eq!(status.code(), Some(1), "{what}");
            let log = server.log();
            assert!(log.contains(&path.display().to_string()), "{what}: {log}");
            fs::remove_dir_all(&data)
                .or_else(|_| fs::remove_file(&data))
                .expect("ours");
        }
    }
}

/// A folder of the node is a link to a folder on a disk that is not mounted. A start must not begin anew, and a check
/// must not report a healthy directory.
#[test]
fn a_link_to_a_missing_folder_is_refused_by_a_start_and_by_a_check() {
    let (mut server, _) = with_data();
    let original = server.data().to_owned();
    for name in ["", "member", "member/wal", "member/snap"] {
        let data = server.folder().join("copy");
        copy(&original, &data);
        let path: PathBuf = data.join(name).components().collect();
        let elsewhere = server.folder().join("elsewhere");
        fs::rename(&path, &elsewhere).expect("moved");
        symlink(&elsewhere, &path).expect("a link");
        server.keep_data_in(&data);
        assert!(
            check(&data).status.success(),
            "{name:?}: the target is there"
        );
        assert_eq!(start(&mut server), None, "{name:?}: {}", server.log());
        fs::remove_dir_all(&elsewhere).expect("ours");
        let checked = check(&data);
        let status = start(&mut server);
        let what = format!("{name:?}: {checked:?}\n{}", server.log());
        assert_eq!(checked.status.code(), Some(1), "{what}");
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{what}");
        let place = path.display().to_string();
        for text in [
            String::from_utf8_lossy(&checked.stderr).into(),
            server.log(),
        ] {
            assert!(
                text.contains(&place) && text.contains("target is missing"),
                "{what}"
            );
        }
        fs::remove_dir_all(&data)
            .or_else(|_| fs::remove_file(&data))
            .expect("ours");
    }
}

#[test]
fn files_that_are_given_by_name_are_opened_as_carefully() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.snap");
    for (kind, make) in KINDS {
        make(&path);
        for words in [
            &["snapshot", "check"][..],
            &["snapshot", "restore", "--data-dir", "/nowhere"],
            &["wal", "dump"],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
            command.args(words).arg(&path);
            let output = ends(&mut command, &format!("{words:?} of a {kind}"));
            assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        }
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir(&path))
            .expect("removed");
    }
}

#[test]
fn a_data_directory_that_others_can_write_is_warned_about() {
    let mut server = Server::start(&[]);
    assert!(!server.log().contains("can write to"), "{}", server.log());
    server.stop();
    for (mode, words) in [
        (0o777, "every user of this machine"),
        (0o770, "every user of its group"),
    ] {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(server.data(), permissions).expect("ours");
        server.launch();
        let log = server.log();
        assert!(log.contains(words), "{log}");
        let command = format!("chmod go-w {}", server.data().display());
        assert!(log.contains(&command), "{log}");
        server.stop();
    }
}

#[test]
fn a_file_that_others_can_write_is_warned_about() {
    let (mut server, files) = with_data();
    let segment = files
        .iter()
        .find(|file| file.extension().is_some_and(|extension| extension == "wal"))
        .expect("a segment");
    fs::set_permissions(segment, fs::Permissions::from_mode(0o666)).expect("ours");
    server.launch();
    let log = server.log();
    let command = format!("chmod go-w {}", segment.display());
    assert!(log.contains(&command), "{log}");
}

#[test]
#[ignore = "needs root, to give a directory to somebody else"]
fn a_data_directory_of_somebody_else_is_warned_about() {
    let mut server = Server::start(&[]);
    server.stop();
    std::os::unix::fs::chown(server.data(), Some(12345), None).expect("root may");
    server.launch();
    let log = server.log();
    assert!(log.contains("the user with the uid 12345"), "{log}");
}

/// A start reports which file it cannot write. Commands that only read still work.
#[test]
#[ignore = "needs root, to mount a file system"]
fn a_disk_that_is_read_only_is_named_and_can_be_looked_at() {
    let mount = harness::mount::Mount::tmpfs(64);
    let data = mount.path().join("data");
    let mut server = Server::start_on(&data, &[]);
    server.ask("PUT", "/v2/keys/a", Some("value=1"));
    server.stop();
    mount.make_read_only();
    assert!(check(&data).status.success());
    let status = start(&mut server).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", server.log());
    let log = server.log();
    assert!(log.contains("Read-only file system"), "{log}");
    assert!(log.contains(&data.display().to_string()), "{log}");
}
