//! The shape of the house: which room may know which, and which may touch the world.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor; a room imports only from floors below its own (and from itself).
const FLOORS: [&[&str]; 6] = [
    &["raft", "tree"],
    &[
        "allowed",
        "door",
        "engine",
        "histogram",
        "ids",
        "logging",
        "notify",
        "threads",
        "urls",
        "usage",
        "wal",
    ],
    &["dial", "replica", "watch"],
    &["http", "peer"],
    &["backup", "config", "identity", "node", "sim"],
    &["main", "bin", "ctl", "guide"],
];

/// Rooms on one floor that know each other on purpose.
const NEIGHBOURS: [(&str, &str, &str); 12] = [
    ("http", "peer", "its counters are part of the statistics"),
    (
        "door",
        "threads",
        "its threads are among those that must not end",
    ),
    ("notify", "threads", "its threads, too"),
    ("wal", "histogram", "its syncs are timed"),
    ("replica", "watch", "the raft thread publishes to the hub"),
    ("ids", "urls", "an id is a hash of URLs"),
    (
        "identity",
        "config",
        "the first start's flags found the cluster",
    ),
    (
        "backup",
        "config",
        "the flags say who is restored, and where",
    ),
    ("backup", "identity", "a directory has one"),
    (
        "backup",
        "node",
        "a directory is read as a start would read it",
    ),
    ("node", "config", "a node is started from a configuration"),
    ("node", "identity", "and from what its directory says it is"),
];

/// Modules that are pure values…
const PURE: [&str; 3] = ["raft", "tree", "engine"];

/// …so that none of these is named there.
const EFFECTS: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::time",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "rand",
    "crossbeam_channel",
    "mio",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the source folder can be read") {
        let path = entry.expect("so can its entries").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Source files with the room they belong to and their text without comments and unit tests, which may
/// look anywhere.
fn files() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let room = |path: &Path| {
        let inside = path.strip_prefix(&src).expect("sources lie in src");
        let first = inside
            .iter()
            .next()
            .expect("a file has a name")
            .to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).expect("sources are text");
        let text = text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    sources(&src)
        .into_iter()
        .map(|path| (path.clone(), room(&path), code(&path)))
        .collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The words of code, cut at everything that is no part of a path.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| !word.is_empty())
}

#[test]
fn every_room_has_a_floor() {
    for (path, room, _) in files() {
        assert!(
            room == "lib" || floor(&room).is_some(),
            "{}: on which floor is it?",
            path.display()
        );
    }
}

#[test]
fn rooms_import_only_from_floors_below() {
    let mut wrong = Vec::new();
    for (path, room, code) in files() {
        let Some(own) = floor(&room) else { continue };
        for word in words(&code) {
            let Some(path_in_crate) = word.strip_prefix("crate::") else {
                continue;
            };
            let other = path_in_crate.split("::").next().unwrap_or_default();
            let Some(theirs) = floor(other) else { continue };
            let neighbours = NEIGHBOURS.iter().any(|(a, b, _)| *a == room && *b == other);
            if other != room && theirs >= own && !neighbours {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from the same floor or above:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn pure_modules_have_no_effects() {
    let mut wrong = Vec::new();
    for (path, room, code) in files() {
        if !PURE.contains(&room.as_str()) {
            continue;
        }
        for word in words(&code) {
            let named = |effect: &&&str| {
                word == **effect
                    || word.starts_with(&format!("{effect}::"))
                    || word.split("::").any(|part| part == **effect)
            };
            let effect = EFFECTS.iter().find(named);
            if let Some(effect) = effect {
                wrong.push(format!("{}: {effect}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "effects in pure modules:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn unsafe_stands_in_one_file_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let with_unsafe: Vec<PathBuf> = files()
        .into_iter()
        .filter(|(_, _, code)| words(code).any(|word| word == "unsafe"))
        .map(|(path, _, _)| {
            path.strip_prefix(&src)
                .expect("sources lie in src")
                .to_owned()
        })
        .collect();
    assert_eq!(
        with_unsafe,
        [Path::new("wal/map.rs")],
        "only the mapped segment needs it"
    );
}
