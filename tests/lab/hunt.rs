//! Searches for runs that break without a rule, and makes them short.
//!
//! `HUNT=20 cargo test --profile sim --test lab hunt -- --ignored --nocapture` searches for each rule whose stored run is
//! missing or does not break any more, for 20 seconds each, and writes what it finds to `src/lab/runs`. A new name must be
//! added to `src/lab/runs.rs`. `RULE=…` limits the search to one rule. `SCRIPT=FILE` with `play` runs a script and prints the
//! state after each line.

use crate::runs::breaks_only_without;
use edgetcd::lab::script::Script;
use edgetcd::lab::shrink::{broken, holds_with_all_rules, shrink};
use edgetcd::lab::switches::Switch;
use edgetcd::lab::{Lab, Run, lessons, runs};
use edgetcd::raft::NodeId;
use edgetcd::random::Random;
use edgetcd::sim::{Act, DiskState, MemberView};
use std::time::{Duration, Instant};

/// The most events of a run that is searched.
const STEPS: u64 = 3_000;

/// An act for the present state.
fn some_act(random: &mut Random, members: &[MemberView]) -> Act {
    let any = |random: &mut Random| NodeId(members[random.below(members.len() as u64) as usize].id);
    let is = |wanted: &dyn Fn(&MemberView) -> bool| -> Vec<NodeId> {
        let found = members.iter().filter(|member| wanted(member));
        found.map(|member| NodeId(member.id)).collect()
    };
    let (n, m) = (any(random), any(random));
    let down = is(&|member| !member.up);
    let paused = is(&|member| member.paused);
    let bad = is(&|member| member.disk != "good");
    let leaders = is(&|member| member.role == "leader");
    let at = random.pick(&leaders).unwrap_or(n);
    let key = random.below(2);
    match random.below(46) {
        40 => Act::Stop(n),
        41 => Act::FailSync(n),
        42 => Act::Watch(n),
        43 => Act::Lease(n),
        44 => Act::Burst(n, key, random.within((2, 20))),
        45 => Act::Tear(at),
        0..=2 => Act::Crash(n),
        3 => Act::Crash(at),
        4 => Act::Kill(n),
        5..=11 => random.pick(&down).map_or(Act::Write(at, key), Act::Restart),
        12..=14 => Act::Cut(n, m),
        15 => Act::Cut(at, m),
        16..=20 => Act::Heal(n, m),
        21 => Act::Pause(n),
        22..=24 => random
            .pick(&paused)
            .map_or(Act::Write(at, key), Act::Resume),
        25..=28 => Act::Write(at, key),
        29 | 30 => Act::Read(n, key),
        31 => Act::Lose(n, m),
        32 => Act::Duplicate(n, m),
        33 => Act::Delay(n, m, 5 << random.below(6)),
        34 => Act::Disk(
            n,
            if random.coin() {
                DiskState::Slow
            } else {
                DiskState::Hung
            },
        ),
        35 | 36 => random
            .pick(&bad)
            .map_or(Act::Read(at, key), |n| Act::Disk(n, DiskState::Good)),
        37 => Act::Transfer(at, m),
        38 if random.coin() => Act::Add(at),
        38 => Act::Remove(at, m),
        _ => Act::Tear(n),
    }
}

/// Drives a run at random until it breaks or is long enough.
fn random_run(seed: u64, without: &[Switch]) -> Option<Run> {
    let mut random = Random::spread(seed);
    let mut lab = Lab::new(Run {
        without: without.to_vec(),
        snapshot_every: if random.coin() { 40 } else { 5 },
        ..Run::new(seed, 3 + random.below(3))
    });
    let pace = random.within((10, 80));
    while lab.steps() < STEPS && lab.broken().is_none() {
        for _ in 0..random.within((1, pace)) {
            lab.step();
        }
        let act = some_act(&mut random, &lab.cluster().members());
        // An act without effect is not a part of the run.
        let _ = lab.act(act);
    }
    lab.broken()?;
    Some(lab.run())
}

fn number(name: &str) -> u64 {
    std::env::var(name).map_or(0, |text| text.parse().expect("a number"))
}

/// The rules that are switched off together.
fn off(switch: Switch) -> Vec<Switch> {
    let also = Switch::named("ChangesOneByOne").expect("it is a rule");
    match switch.to_string().as_str() {
        "CHANGE_AFTER_OWN_TERM" | "ONE_CHANGE_AT_A_TIME" => vec![switch, also],
        _ => vec![switch],
    }
}

/// The runs of lessons and of the scripts beside this file that switch this rule off. Random acts do not find runs that
/// need many acts in a certain order.
fn of_scripts(switch: Switch) -> Vec<Run> {
    let lessons = lessons::ALL.iter().flat_map(lessons::Lesson::scripts);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/scripts");
    let files = std::fs::read_dir(folder).expect("the scripts").flatten();
    let files = files.map(|file| std::fs::read_to_string(file.path()).expect("a script is text"));
    let scripts = lessons.map(str::to_owned).chain(files);
    let without = format!("without {switch}");
    let scripts = scripts.filter(|script| script.lines().any(|line| line == without));
    // If a script does not break with its own seed, it is tried with others.
    let runs = scripts.filter_map(|script| {
        let other = |seed| format!("seed {seed}\n{}", without_seed(&script));
        let tried = std::iter::once(script.clone()).chain((1..=60).map(other));
        let mut runs = tried.filter_map(|script| {
            let run = to_its_violation(&script)?;
            (broken(&run).is_some() && holds_with_all_rules(&run)).then_some(run)
        });
        runs.next()
    });
    runs.collect()
}

/// The run of a script up to the line that breaks it.
fn to_its_violation(text: &str) -> Option<Run> {
    let mut script = Script::default();
    for line in text.lines() {
        script.line(line).ok()?;
        if !line.starts_with("without") && script.begin().0 > 0 && script.lab().broken().is_some() {
            break;
        }
    }
    Some(script.into_lab().run())
}

fn without_seed(script: &str) -> String {
    let lines = script.lines().filter(|line| !line.starts_with("seed "));
    lines.collect::<Vec<&str>>().join("\n")
}

#[test]
#[ignore = "writes runs to src/lab/runs"]
fn hunt() {
    std::panic::set_hook(Box::new(|_| {}));
    let limit = Duration::from_secs(number("HUNT"));
    let only = std::env::var("RULE").ok();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lab/runs");
    for switch in Switch::all() {
        let name = switch.to_string();
        let is_good = |stored: &runs::Stored| {
            let run = Run::parse(stored.text).expect("a stored run can be read");
            stored.name == name && breaks_only_without(&run)
        };
        let has_one = runs::ALL.iter().any(is_good);
        if only.as_ref().map_or(has_one, |only| *only != name) {
            continue;
        }
        let begin = Instant::now();
        let mut best: Option<Run> = None;
        let mut seed = number("FROM");
        let mut of_scripts = of_scripts(switch);
        while begin.elapsed() < limit || !of_scripts.is_empty() {
            let found = of_scripts.pop().or_else(|| {
                seed += 1;
                random_run(seed, &off(switch))
            });
            let Some(found) = found else {
                continue;
            };
            let Some(short) = shrink(&found) else {
                continue;
            };
            if !holds_with_all_rules(&short) {
                eprintln!("WITH ALL RULES, TOO:\n{short}");
                continue;
            }
            let length = |run: &Run| (run.acts.len(), run.end);
            if best
                .as_ref()
                .is_none_or(|best| length(&short) < length(best))
            {
                best = Some(short);
            }
        }
        match best {
            None => eprintln!("{name}: nothing in {seed} seeds"),
            Some(best) => {
                let text = broken(&best).map(|(_, text)| text).unwrap_or_default();
                eprintln!(
                    "{name}: {} acts, {} steps: {text}",
                    best.acts.len(),
                    best.end
                );
                std::fs::write(format!("{folder}/{name}.run"), best.to_string())
                    .expect("src can be written");
            }
        }
    }
}

#[test]
#[ignore = "plays the script in SCRIPT"]
fn play() {
    let file = std::env::var("SCRIPT").expect("SCRIPT is a file");
    let text = std::fs::read_to_string(file).expect("SCRIPT can be read");
    let mut script = Script::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let done = script.line(line);
        if line.starts_with(['m', 's', 'w', '#']) && done.is_ok() {
            continue;
        }
        let lab = script.lab();
        println!(
            "{line}   [step {}, {} ms]",
            lab.steps(),
            lab.cluster().now() / 1000
        );
        for member in lab.cluster().members() {
            let log: Vec<String> = (member.log.iter())
                .map(|entry| format!("{}@{}:{}", entry.index, entry.term, entry.label))
                .collect();
            println!(
                "   n{} {} t{} vote {:?} on disk {:?} leader {:?} commit {} stored {} voters {:?} {}",
                member.id,
                member.role,
                member.term,
                member.vote,
                member.stored_vote,
                member.leader,
                member.commit,
                member.stored,
                member.voters,
                log.join(" ")
            );
        }
        for message in lab.cluster().messages() {
            println!(
                "      {}→{} {} {}",
                message.from, message.to, message.what, message.text
            );
        }
        if let Some(broken) = lab.broken() {
            println!("   BROKEN {broken:?}");
        }
        if let Err(why) = done {
            if number("TRACE") == 1 {
                lab.cluster()
                    .trace()
                    .iter()
                    .for_each(|line| println!("{line}"));
            }
            panic!("{why}");
        }
    }
}
