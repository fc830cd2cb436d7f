//! `HANDOVERS` leadership transfers under load (hazard D20). `HANDOVER_SEED` gives another run.
//!
//! `make sim` runs a thousand. A debug build takes too long for that.

use crate::{broken, number, sound};
use edgetcd::sim::{Cluster, Handed, Handovers};
use std::time::Instant;

/// Runs the simulation to its end. Every check must hold.
fn hand_over(how: Handovers) -> Handed {
    let times = number("HANDOVERS", 200);
    let begin = Instant::now();
    let settings = sound(number("HANDOVER_SEED", 20), 3);
    let mut cluster = Cluster::handing_over(settings, times, how);
    if let Some(broken) = broken(&mut cluster) {
        let at = cluster.now() as f64 / 1000.0;
        panic!("BROKEN at {at:.3} ms: {broken}\n{:?}", cluster.handed());
    }
    let handed = cluster.handed();
    println!(
        "{how:?}: {handed:?}, {} events in {:?}",
        cluster.events(),
        begin.elapsed()
    );
    assert_eq!(handed.asked, times);
    handed
}

/// Each transfer ends within an election timeout, and clients are served after each.
#[test]
fn undisturbed_handovers_all_succeed() {
    let handed = hand_over(Handovers::Undisturbed);
    assert_eq!(handed.over, handed.asked);
}

/// Some transfers fail, mostly those whose target has a fault. Clients are served after each, whichever member leads.
#[test]
fn disturbed_handovers_succeed_or_the_old_leader_goes_on() {
    let handed = hand_over(Handovers::Disturbed);
    assert!(
        handed.kept > handed.asked / 50,
        "hardly any transfer failed: {handed:?}"
    );
    assert!(
        handed.failed_unharmed < handed.asked / 10,
        "lost messages alone make too many fail: {handed:?}"
    );
}
