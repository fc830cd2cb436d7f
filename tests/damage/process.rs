//! One damage of each kind with the programs themselves, on files: the report of `edgetcdctl wal check` on a copy, and
//! what `edgetcd` then does with it.

use crate::harness::{Server, wait_for};
use crate::specimen::{self, End};
use edgetcd::identity::Identity;
use edgetcd::wal::{FaultyDisk, Line, RealDisk, dump, segments};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);

/// The expected result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// The node starts with all keys.
    Whole,
    /// The node starts with all keys and reports a repair.
    Mended,
    /// The node starts without the last entry and reports this.
    Torn,
    /// The node does not start.
    Refused,
}

use Ends::{Mended, Refused, Torn, Whole};

/// A directory, and the damage to a copy of it.
struct Case {
    name: String,
    base: &'static str,
    damage: Box<dyn Fn(&Path) + Send + Sync>,
    ends: Ends,
}

impl Case {
    fn new(
        base: &'static str,
        name: impl Into<String>,
        ends: Ends,
        damage: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Case {
        Case {
            name: name.into(),
            base,
            damage: Box::new(damage),
            ends,
        }
    }
}

/// Directories to copy, each with the listing of its keys. `killed` also has a listing without the last entry
/// (`without`).
struct Bases {
    folder: tempfile::TempDir,
    listings: BTreeMap<&'static str, String>,
}

impl Bases {
    fn path(&self, base: &str) -> PathBuf {
        self.folder.path().join(base)
    }

    /// - `node`: made by the program, stopped cleanly
    /// - `life`: with every kind of record, in small segments, stopped cleanly
    /// - `killed`, `without`: the same, but killed, and without its last entry
    fn new() -> Bases {
        let mut bases = Bases {
            folder: tempfile::tempdir().expect("a folder"),
            listings: BTreeMap::new(),
        };
        by_program(&bases.path("node"));
        let peer = "http://127.0.0.1:2380";
        for (base, end) in [
            ("life", End::Clean),
            ("killed", End::Killed),
            ("without", End::Without),
        ] {
            export(&specimen::make(peer, end), &bases.path(base));
        }
        for base in ["node", "life", "killed", "without"] {
            let copy = bases.path("copy");
            copy_dir(&bases.path(base), &copy);
            let started = start(&copy).unwrap_or_else(|error| panic!("{base}: {error}"));
            bases.listings.insert(base, started.keys);
            fs::remove_dir_all(&copy).expect("removed");
        }
        bases
    }
}

fn by_program(data: &Path) {
    let mut server = Server::prepare(&[]);
    server.keep_data_in(data);
    server.launch();
    for number in 0..20 {
        server.ask("PUT", &format!("/v2/keys/a/{number}?value=one"), None);
    }
    server.ask("DELETE", "/v2/keys/a/7", None);
    let body = r#"{"peerURLs":["http://127.0.0.1:1"]}"#;
    let mut connection = server.connect();
    let request = format!(
        "POST /v2/members HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write(request.as_bytes()).expect("sent");
    let answer = connection.answer(false, WITHIN).expect("an answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    // A kill and a second run: this gives another term, and a stop record that is later overwritten.
    server.kill();
    server.launch();
    server.ask("PUT", "/v2/keys/b?value=two", None);
    assert_eq!(server.stop().code(), Some(0), "{}", server.log());
}

pub fn export(disk: &FaultyDisk, to: &Path) {
    for path in disk.files() {
        let inside = path.strip_prefix(specimen::DIR).expect("it lies there");
        let file = to.join(inside);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, disk.bytes(&path).expect("bytes")).expect("written");
    }
    fs::write(to.join("member/lock"), "12345\n").expect("written");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let there = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_dir(&entry.path(), &there),
            false => drop(fs::copy(entry.path(), there).expect("copied")),
        }
    }
}

/// All files with their content, except the locks, which a start creates.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if !path.ends_with("lock") {
            let bytes = fs::read(&path).unwrap_or_default();
            all.insert(path, bytes);
        }
    }
    all
}

/// A server that answers requests.
struct Started {
    /// The listing of all keys.
    keys: String,
    log: String,
}

/// Starts the server on the directory. If it does not start, returns its output on stderr.
fn start(data: &Path) -> Result<Started, String> {
    let mut server = Server::prepare(&[]);
    server.keep_data_in(data);
    server.spawn();
    let ended = wait_for("a server that serves, or ends", WITHIN, || {
        let ended = server.ended();
        (ended.is_some() || server.is_healthy()).then_some(ended)
    });
    match ended {
        None => {
            let answer = server.ask("GET", "/v2/keys/?recursive=true&sorted=true", None);
            assert_eq!(answer.status, 200, "{answer:?}");
            let body = String::from_utf8(answer.body).expect("text");
            server.kill();
            let log = server.log();
            assert!(!log.contains("panicked"), "{log}");
            let keys = timeless(&body);
            Ok(Started { keys, log })
        }
        Some(status) => {
            assert_eq!(status.code(), Some(1), "{}", server.log());
            Err(server.log())
        }
    }
}

/// Removes the remaining times to live.
fn timeless(body: &str) -> String {
    let mut parts = body.split("\"ttl\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + part.trim_start_matches(|digit: char| digit.is_ascii_digit())
    })
}

fn ctl_on(args: &[&str], file: &Path) -> Output {
    ctl(&[args, &[file.to_str().expect("a plain path")]].concat())
}

pub fn ctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn examine(bases: &Bases, case: &Case) {
    let Case { name, base, .. } = case;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    copy_dir(&bases.path(base), &data);
    (case.damage)(&data);
    let before = contents(&data);
    let check = ctl_on(&["wal", "check"], &data);
    let json = ctl_on(&["-o", "json", "wal", "check"], &data);
    let dumped = ctl_on(&["wal", "dump"], &data);
    assert!(
        contents(&data) == before,
        "{name}: a check has changed something"
    );
    assert!(
        !text(&dumped.stderr).contains("panicked"),
        "{name}: {}",
        text(&dumped.stderr)
    );
    let started = start(&data);
    let (said, told) = (text(&check.stdout), text(&check.stderr));
    let json = text(&json.stdout);
    if case.ends == Refused {
        let Err(error) = started else {
            panic!("{name}: a start succeeds, but the check reported: {told}");
        };
        assert!(
            contents(&data) == before,
            "{name}: a refusal has changed something"
        );
        let lines: Vec<&str> = error
            .lines()
            .filter(|line| line.starts_with("edgetcd: "))
            .collect();
        let [line] = lines[..] else {
            panic!("{name}: one line of error, not: {error}");
        };
        assert!(
            !error.contains("panicked") && !error.contains("backtrace"),
            "{name}: {error}"
        );
        assert!(
            line.contains(&data.join("member").display().to_string()),
            "{name}: {line}"
        );
        // The same words, including the hint in a line of its own.
        assert!(
            error
                .trim_end()
                .ends_with(&format!("edgetcd: {}", told.trim_end())),
            "{name}: {error}\nnot\n{told}"
        );
        assert_eq!(
            (check.status.code(), said.as_str()),
            (Some(1), ""),
            "{name}"
        );
        assert!(
            json.starts_with("{\"dir\":") && json.contains("\"good\":false"),
            "{json}"
        );
        return;
    }
    let Started { keys, log } = started.unwrap_or_else(|error| panic!("{name}: {error}"));
    let like = if case.ends == Torn { "without" } else { base };
    assert_eq!(keys, bases.listings[like], "{name}");
    assert_eq!(
        (check.status.code(), told.as_str()),
        (Some(0), ""),
        "{name}"
    );
    assert!(json.contains("\"good\":true"), "{json}");
    let warnings: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  warning      "))
        .collect();
    assert_eq!(warnings.is_empty(), case.ends == Whole, "{name}: {said}");
    for warning in warnings {
        assert!(log.contains(warning), "{name}: {warning}\nnot in\n{log}");
    }
}

/// Two cases at a time, because a start mostly waits for the disk.
fn examine_all(bases: &Bases, cases: &[Case]) {
    let next = Mutex::new(cases.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let case = next.lock().expect("no panic while it is held").next();
                    let Some(case) = case else { return };
                    examine(bases, case);
                }
            });
        }
    });
}

pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("it is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

pub fn wal(data: &Path) -> Vec<PathBuf> {
    segments(&RealDisk::default(), &data.join("member/wal")).expect("a folder")
}

/// The first record whose text contains `what`, and its file.
pub fn record(data: &Path, what: &str) -> (PathBuf, Line) {
    for path in wal(data) {
        let lines = dump(&RealDisk::default(), &path).expect("a good segment");
        if let Some(line) = lines.into_iter().find(|line| line.what.contains(what)) {
            return (path, line);
        }
    }
    panic!("no {what} in {}", data.display());
}

pub fn flip(data: &Path, what: &str) {
    let (path, line) = record(data, what);
    let at = (line.offset + 13.min(line.bytes - 4)) as usize;
    edit(&path, |bytes| bytes[at] ^= 0x10);
}

fn snapshots(data: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(data.join("member/snap")).expect("listed");
    let paths = found.map(|entry| entry.expect("listed").path());
    let mut all: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|is| is == "snap"))
        .collect();
    all.sort();
    all
}

fn of_records() -> Vec<Case> {
    let mut cases = Vec::new();
    for what in [
        "head",
        "no-op",
        "command",
        "change",
        "hard-state",
        "clock",
        "tick",
    ] {
        let name = format!("{what}, written by the program");
        cases.push(Case::new("node", name, Refused, move |data| {
            flip(data, what)
        }));
    }
    for what in ["sealed", "reset", "head of 2"] {
        cases.push(Case::new("life", what, Refused, move |data| {
            flip(data, what)
        }));
    }
    cases.push(Case::new("life", "a stop", Mended, |data| {
        flip(data, "stop")
    }));
    cases.push(Case::new("killed", "the last entry", Torn, |data| {
        let path = wal(data).into_iter().rev().nth(1).expect("two segments");
        let lines = dump(&RealDisk::default(), &path).expect("a good segment");
        let at = lines.last().expect("records").offset as usize;
        edit(&path, |bytes| bytes[at + 14..at + 20].fill(0));
    }));
    cases
}

fn of_segments() -> Vec<Case> {
    vec![
        Case::new("life", "a missing segment", Refused, |data| {
            fs::remove_file(&wal(data)[3]).expect("removed");
        }),
        Case::new("life", "a cut segment", Refused, |data| {
            edit(&wal(data)[2], |bytes| bytes.truncate(1000));
        }),
        Case::new("life", "an empty segment", Refused, |data| {
            edit(&wal(data)[3], |bytes| bytes.clear());
        }),
        Case::new("life", "no log at all", Refused, |data| {
            fs::remove_dir_all(data.join("member/wal")).expect("removed");
        }),
        Case::new("life", "no spare", Whole, |data| {
            fs::remove_file(wal(data).last().expect("a spare")).expect("removed");
        }),
        Case::new("life", "a segment nobody can open", Refused, |data| {
            let path = &wal(data)[1];
            fs::remove_file(path).expect("removed");
            std::os::unix::fs::symlink("nowhere", path).expect("a dangling link");
        }),
        Case::new(
            "life",
            "a folder in the place of a segment",
            Refused,
            |data| {
                let path = &wal(data)[1];
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            },
        ),
        Case::new("life", "a segment of etcd", Whole, |data| {
            let name = "member/wal/0000000000000000-0000000000000000.wal";
            fs::write(data.join(name), "etcd's").expect("written");
        }),
        Case::new("life", "a half made segment", Whole, |data| {
            let name = "member/wal/0000000000000009-00000001.tmp";
            fs::write(data.join(name), "half").expect("written");
        }),
    ]
}

fn of_snapshots() -> Vec<Case> {
    let spoil = |path: &PathBuf| edit(path, |bytes| bytes[200] ^= 1);
    vec![
        Case::new("life", "the newest snapshot", Mended, move |data| {
            spoil(snapshots(data).last().expect("snapshots"));
        }),
        Case::new("life", "all snapshots", Refused, move |data| {
            snapshots(data).iter().for_each(spoil);
        }),
        Case::new("life", "no snapshot", Refused, |data| {
            for path in snapshots(data) {
                fs::remove_file(path).expect("removed");
            }
        }),
        Case::new(
            "life",
            "a folder in the place of a snapshot",
            Refused,
            |data| {
                let name = "member/snap/0000000000000099-0000000000000001.snap";
                fs::create_dir(data.join(name)).expect("made");
            },
        ),
        Case::new("life", "a database of etcd", Whole, |data| {
            fs::write(data.join("member/snap/db"), "bolt").expect("written");
        }),
    ]
}

fn of_locks_and_identities() -> Vec<Case> {
    let identity = |data: &Path| data.join("member/identity");
    let lock = |data: &Path| data.join("member/lock");
    vec![
        Case::new(
            "life",
            "an identity with a flipped bit",
            Refused,
            move |data| {
                edit(&identity(data), |bytes| bytes[30] ^= 1);
            },
        ),
        Case::new("life", "no identity", Refused, move |data| {
            fs::remove_file(identity(data)).expect("removed");
        }),
        Case::new("life", "an empty identity", Refused, move |data| {
            edit(&identity(data), |bytes| bytes.clear());
        }),
        Case::new(
            "life",
            "a folder in the place of the identity",
            Refused,
            move |data| {
                fs::remove_file(identity(data)).expect("removed");
                fs::create_dir(identity(data)).expect("made");
            },
        ),
        Case::new(
            "life",
            "an identity of another version",
            Refused,
            move |data| {
                edit(&identity(data), |bytes| {
                    let known = Identity::from_bytes(&bytes[12..]).expect("good");
                    let text = String::from_utf8(known.to_bytes()).expect("JSON");
                    let text = text.replace("\"version\":1", "\"version\":2");
                    bytes.truncate(8);
                    bytes.extend(crc32fast::hash(text.as_bytes()).to_le_bytes());
                    bytes.extend(text.as_bytes());
                });
            },
        ),
        Case::new("life", "no lock", Whole, move |data| {
            fs::remove_file(lock(data)).expect("removed");
        }),
        Case::new("life", "a lock with anything in it", Whole, move |data| {
            fs::write(lock(data), b"\xff\xfe not a number").expect("written");
        }),
        Case::new(
            "life",
            "a folder in the place of the lock",
            Refused,
            move |data| {
                fs::remove_file(lock(data)).expect("removed");
                fs::create_dir(lock(data)).expect("made");
            },
        ),
        Case::new(
            "life",
            "no folder of snapshots, but all of the log",
            Refused,
            |data| {
                fs::remove_dir_all(data.join("member/snap")).expect("removed");
            },
        ),
    ]
}

#[test]
fn a_start_and_a_check_come_to_the_same_end() {
    let bases = Bases::new();
    let mut cases = of_records();
    cases.extend(of_segments());
    cases.extend(of_snapshots());
    cases.extend(of_locks_and_identities());
    examine_all(&bases, &cases);
}

/// If `snapshot check` reports a file as bad, a node sets it aside or refuses it. If it reports a file as good, a node
/// uses it.
#[test]
fn a_check_of_a_snapshot_says_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    export(&specimen::make("http://127.0.0.1:2380", End::Clean), &data);
    let newest = snapshots(&data).pop().expect("snapshots");
    let good = ctl_on(&["snapshot", "check"], &newest);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    edit(&newest, |bytes| bytes[200] ^= 1);
    let bad = ctl_on(&["snapshot", "check"], &newest);
    let error = text(&bad.stderr);
    assert_eq!(bad.status.code(), Some(1), "{error}");
    let check = text(&ctl_on(&["wal", "check"], &data).stdout);
    assert!(
        check.contains(&format!(
            "{}; the next start moves it aside",
            error.trim_end()
        )),
        "{error}\n{check}"
    );
}
