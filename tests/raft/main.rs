//! The raft core: lessons as transcripts, and random clusters.

mod cluster;
mod random;
mod script;

use edgetcd::raft::AllRules;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/raft")
}

/// Runs the transcript `name`; with `UPDATE=1` writes what it did into it.
fn lesson(name: &str) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).expect("the transcript is there");
    assert!(text.starts_with("# "), "{name} begins with what it teaches");
    let (now, outcome) = script::replay::<AllRules>(&text);
    outcome.unwrap_or_else(|broken| panic!("{name}: {broken}, after\n{now}"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, now).expect("it can be written");
    } else if now != text {
        let line = now.lines().zip(text.lines()).position(|(now, text)| now != text);
        panic!("{name} differs from line {line:?} on; it now gives\n{now}");
    }
}

macro_rules! lessons {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test] fn $test() { lesson($name); })+

        #[test]
        fn every_transcript_is_run() {
            let entries = std::fs::read_dir(folder()).expect("the folder is there");
            for entry in entries {
                let name = entry.expect("it can be read").file_name();
                assert!([$($name),+].iter().any(|known| name == *known), "{name:?} is not run");
            }
        }
    };
}

lessons! {
    first_election: "first-election",
}
