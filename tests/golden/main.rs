//! Replays the recorded transcripts against a running server.
//!
//! Each `*.json` in this folder contains requests and the reference's responses to them. `README.md` describes the
//! format. One server, started with `--cors=*`, answers all files one after another. `replay.py` does the same
//! against any URL.
//!
//! `GOLDEN=cas.json,ttl.json` replays only these.

mod compare;
#[path = "../harness/mod.rs"]
mod harness;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};

use harness::Server;
use transcript::Transcript;

/// Files that need more than one server.
const LATER: [(&str, &str); 1] = [(
    "members-cluster.json",
    "three members: tests/cluster/recorded.rs replays it",
)];

#[test]
fn every_answer_is_as_recorded() {
    let server = Server::start(&["--cors=*"]);
    let (mut passed, mut failures) = (0, Vec::new());
    for path in chosen_files() {
        let name = path
            .file_name()
            .expect("a file name")
            .to_string_lossy()
            .into_owned();
        if let Some((_, why)) = LATER.iter().find(|(file, _)| *file == name) {
            println!("{name}: left out, it needs {why}");
            continue;
        }
        let text = fs::read_to_string(&path).expect("a transcript");
        let outcome = Transcript::new(&name, &text, server.address()).run();
        println!(
            "{name}: {} passed, {} failed",
            outcome.passed,
            outcome.failures.len()
        );
        passed += outcome.passed;
        failures.extend(outcome.failures);
    }
    assert!(passed + failures.len() > 0, "no step was compared");
    assert!(
        failures.is_empty(),
        "{passed} steps passed, {} failed:\n\n{}\n",
        failures.len(),
        failures.join("\n\n")
    );
}

fn chosen_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if let Ok(names) = std::env::var("GOLDEN") {
        return names.split(',').map(|name| folder.join(name)).collect();
    }
    let entries = fs::read_dir(&folder).expect("the transcripts");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    files
}
