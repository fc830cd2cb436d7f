//! Tests of the lab: runs are values, the same run gives the same state, and texts from outside cannot do harm.

mod cluster;
mod hunt;
mod lessons;
mod limits;
mod links;
mod real;
mod runs;
mod serve;
mod texts;
mod wasm;

use edgetcd::lab::script::Script;
use edgetcd::lab::{Lab, Run};

/// A run in which a leader crashes, a client writes, and a link is cut.
const EVENTFUL: &str = "
members 5
until steady
name old leader
write old k0
until answered
crash old
until leader
cut leader other
write third k1
run 500
restart old
run 300
";

#[test]
fn the_same_run_gives_the_same_state() {
    let lab = Script::run(EVENTFUL).expect("this script can be done");
    let run = lab.run();
    assert!(run.acts.len() >= 5 && run.end > 100, "{run}");
    let hash = lab.state_hash();
    assert_eq!(Lab::play(run.clone()).state_hash(), hash);
    let other = Run { seed: 99, ..run };
    assert_ne!(Lab::play(other).state_hash(), hash);
}

#[test]
fn an_earlier_step_is_reached_by_playing_again() {
    let run = Script::run(EVENTFUL)
        .expect("this script can be done")
        .run();
    let crash = run
        .acts
        .iter()
        .find(|(_, act)| format!("{act:?}").contains("Crash"));
    let (crash, _) = crash.expect("the leader crashes");
    let before = Lab::at(run.clone(), crash - 1);
    let after = Lab::at(run.clone(), *crash);
    let up = |lab: &Lab| {
        lab.cluster()
            .members()
            .iter()
            .filter(|member| member.up)
            .count()
    };
    assert_eq!((up(&before), up(&after)), (5, 4));
    let mut forward = before;
    while forward.steps() < run.end && forward.step() {}
    assert_eq!(forward.state_hash(), Lab::play(run).state_hash());
}

#[test]
fn a_run_can_continue_with_other_acts_after_it() {
    let run = Script::run(EVENTFUL)
        .expect("this script can be done")
        .run();
    let middle = run.acts[2].0;
    let mut known = run.clone();
    known.acts.truncate(2);
    let mut lab = Lab::at(known, middle - 1);
    lab.continue_as(run.clone())
        .expect("it begins in the same way");
    while lab.steps() < run.end && lab.step() {}
    assert_eq!(lab.state_hash(), Lab::play(run.clone()).state_hash());
    let mut other = run.clone();
    other.acts.remove(0);
    assert!(lab.continue_as(other).is_err());
}

#[test]
fn an_act_drops_the_acts_after_it() {
    let run = Script::run(EVENTFUL)
        .expect("this script can be done")
        .run();
    let mut lab = Lab::at(run.clone(), run.acts[1].0 - 1);
    let leader = lab.leader().expect("it still leads");
    lab.act(edgetcd::sim::Act::Pause(leader)).expect("it runs");
    assert_eq!(lab.whole_run().acts.len(), 2, "{}", lab.whole_run());
    assert!(
        lab.act(edgetcd::sim::Act::Restart(leader)).is_err(),
        "it is paused"
    );
    assert_eq!(
        lab.whole_run().acts.len(),
        2,
        "an act without effect is not recorded"
    );
}
