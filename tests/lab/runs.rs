//! The stored runs: each breaks without its rules, and holds with them. Each rule has one.

use edgetcd::lab::switches::Switch;
use edgetcd::lab::{Lab, Run, runs};
use std::collections::BTreeSet;
use std::path::Path;

/// Whether a run breaks at its end, and the same acts break nothing with all rules in twice as many steps.
pub fn breaks_only_without(run: &Run) -> bool {
    let broken = Lab::play(run.clone());
    let kept = Lab::play(Run {
        without: Vec::new(),
        end: run.end * 2,
        ..run.clone()
    });
    broken.broken().map(|broken| broken.step) == Some(run.end) && kept.broken().is_none()
}

#[test]
fn each_stored_run_breaks_only_without_its_rules() {
    let mut wrong = Vec::new();
    for stored in runs::ALL {
        let run = Run::parse(stored.text).unwrap_or_else(|why| panic!("{}: {why}", stored.name));
        let is_named = run
            .without
            .iter()
            .any(|switch| switch.to_string() == stored.name);
        assert!(is_named, "{} keeps that rule", stored.name);
        if !breaks_only_without(&run) {
            wrong.push(stored.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "these runs do not break any more, or also with all rules: {wrong:?}. Search for others: \
         HUNT=20 cargo test --profile sim --test lab hunt -- --ignored --nocapture"
    );
}

#[test]
fn each_rule_has_a_run_that_breaks_it() {
    let runs = runs::ALL.iter().map(|stored| Run::parse(stored.text));
    let off: Vec<Switch> = runs
        .flat_map(|run| run.expect("a stored run can be read").without)
        .collect();
    let missing = Switch::all().filter(|switch| !off.contains(switch));
    let missing: Vec<String> = missing.map(|switch| switch.to_string()).collect();
    assert!(
        missing.is_empty(),
        "these rules have no run: {missing:?}. Search for one: \
         HUNT=20 cargo test --profile sim --test lab hunt -- --ignored --nocapture"
    );
}

/// If a run switches two rules off, each of them alone is enough to hold.
#[test]
fn a_run_without_two_rules_needs_both() {
    for stored in runs::ALL {
        let run = Run::parse(stored.text).expect("a stored run can be read");
        if run.without.len() < 2 {
            continue;
        }
        for without in &run.without {
            let one = Run {
                without: vec![*without],
                ..run.clone()
            };
            let broken = Lab::play(one);
            assert_eq!(broken.broken(), None, "{} without {without}", stored.name);
        }
    }
}

#[test]
fn each_file_is_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab/runs");
    let files = std::fs::read_dir(folder).expect("the runs").flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().replace(".run", ""));
    let listed: BTreeSet<String> = runs::ALL.iter().map(|run| run.name.to_owned()).collect();
    assert_eq!(names.collect::<BTreeSet<String>>(), listed);
}
