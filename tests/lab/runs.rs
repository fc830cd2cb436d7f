//! The stored runs: each breaks without its rules, and holds with them.

use edgetcd::lab::{Lab, Run, runs};

#[test]
fn each_stored_run_breaks_only_without_its_rules() {
    for stored in runs::ALL {
        let run = Run::parse(stored.text).unwrap_or_else(|why| panic!("{}: {why}", stored.name));
        let broken = Lab::play(run.clone());
        let broken = broken.broken().unwrap_or_else(|| {
            panic!(
                "{} does not break any more: HUNT for another run",
                stored.name
            )
        });
        assert_eq!(broken.step, run.end, "{}: {}", stored.name, broken.text);
        let kept = Run {
            without: Vec::new(),
            end: run.end * 2,
            ..run
        };
        let kept = Lab::play(kept);
        assert_eq!(kept.broken(), None, "{} breaks with all rules", stored.name);
    }
}
