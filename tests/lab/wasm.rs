//! The stored runs and the runs of the lessons in WebAssembly, with the page's own code for steps backward.

use edgetcd::lab::script::Script;
use edgetcd::lab::{Lab, Run, lessons, runs};
use std::path::Path;
use std::process::Command;

/// All runs, each without and with its rules.
fn all() -> Vec<(String, Run)> {
    let stored = runs::ALL.iter().map(|stored| {
        let run = Run::parse(stored.text).expect("a stored run can be read");
        (stored.name.to_owned(), run)
    });
    let scripts = lessons::ALL.iter().flat_map(|lesson| {
        let numbered = (1..).zip(lesson.scripts());
        numbered.map(|(number, script)| {
            let lab = Script::run(script).unwrap_or_else(|why| panic!("{}: {why}", lesson.name));
            (format!("{}-{number}", lesson.name), lab.run())
        })
    });
    let runs: Vec<(String, Run)> = stored.chain(scripts).collect();
    let kept = runs.iter().filter(|(_, run)| !run.without.is_empty());
    let kept = kept.map(|(name, run)| {
        let run = Run {
            without: Vec::new(),
            ..run.clone()
        };
        (format!("{name}-kept"), run)
    });
    let kept: Vec<(String, Run)> = kept.collect();
    runs.into_iter().chain(kept).collect()
}

/// `WASM` is the library that `make lab` builds.
#[test]
#[ignore = "needs Node and a build for WebAssembly: make labtest"]
fn each_run_ends_in_the_same_state_in_webassembly() {
    let library = std::env::var("WASM").expect("WASM is the library that `make lab` builds");
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/wasm.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(library);
    let mut native = Vec::new();
    for (name, run) in all() {
        let file = folder.path().join(format!("{name}.run"));
        std::fs::write(&file, run.to_string()).expect("the folder can be written");
        node.arg(file);
        let lab = Lab::play(run);
        let broken = lab.broken().map_or(0, |broken| broken.step);
        native.push(format!(
            "{name}.run broken={broken} state={:016x}",
            lab.state_hash()
        ));
    }
    let output = node.output().expect("node runs: is Node installed?");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in WebAssembly: {printed}{errors}");
    let other: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("state="))
        .collect();
    assert_eq!(native, other);
    println!("{} runs end in the same state", native.len());
    printed
        .lines()
        .filter(|line| line.contains("per second"))
        .for_each(|line| println!("{line}"));
}
