//! The nemesis causes faults while clients run: one fault after another, each of which it removes again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Random};

const HELD_MS: (u64, u64) = (300, 2500);
const REST_MS: u64 = 1000;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// Stops a node with SIGTERM and starts it again.
    Restart,
    Pause,
    /// Cuts all links of the node, in both directions.
    Isolate,
    /// The node can send but receives nothing.
    Deafen,
    /// The node receives but cannot send.
    Mute,
    /// Cuts one direction of one link.
    CutOne,
}

const ON_PROCESSES: [Fault; 3] = [Fault::Kill, Fault::Restart, Fault::Pause];
const ON_LINKS: [Fault; 4] = [Fault::Isolate, Fault::Deafen, Fault::Mute, Fault::CutOne];

/// Causes and removes faults until the time is over. At the end there is no fault. Prints its actions.
pub fn rage(cluster: &mut Cluster, time: Duration, noise: &mut Random) {
    let start = Instant::now();
    while start.elapsed() < time {
        let leader = cluster.wait_leader();
        // Every second fault is the leader's.
        let victim = match noise.below(2) {
            0 => leader,
            _ => noise.below(cluster.len() as u64) as usize,
        };
        let fault = choose(cluster, noise);
        let held = HELD_MS.0 + noise.below(HELD_MS.1 - HELD_MS.0);
        println!(
            "{:5.1} s: {fault:?} of node {victim} for {held} ms; node {leader} leads",
            start.elapsed().as_secs_f64()
        );
        begin(cluster, fault, victim);
        sleep(Duration::from_millis(held));
        end(cluster, fault, victim);
        cluster.wait_leader();
        sleep(Duration::from_millis(noise.below(REST_MS)));
    }
}

fn choose(cluster: &Cluster, noise: &mut Random) -> Fault {
    let links = if cluster.has_links() {
        &ON_LINKS[..]
    } else {
        &[]
    };
    let all = [&ON_PROCESSES[..], links].concat();
    all[noise.below(all.len() as u64) as usize]
}

fn begin(cluster: &mut Cluster, fault: Fault, victim: usize) {
    let others: Vec<usize> = cluster.others(victim);
    match fault {
        Fault::Kill => cluster.kill(victim),
        Fault::Restart => drop(cluster.stop(victim)),
        Fault::Pause => cluster.pause(victim),
        Fault::Isolate => cluster.isolate(victim),
        Fault::Deafen => others.iter().for_each(|other| cluster.cut(*other, victim)),
        Fault::Mute => others.iter().for_each(|other| cluster.cut(victim, *other)),
        Fault::CutOne => cluster.cut(victim, others[0]),
    }
}

fn end(cluster: &mut Cluster, fault: Fault, victim: usize) {
    match fault {
        Fault::Kill | Fault::Restart => cluster.restart(victim),
        Fault::Pause => cluster.resume(victim),
        Fault::Isolate | Fault::Deafen | Fault::Mute | Fault::CutOne => cluster.heal(),
    }
}
