//! Each rule is needed: without it, the transcript about it shows the harm.

use crate::cluster::Flaw;
use crate::lesson;
use crate::script::Script;
use edgetcd::engine::rules::Rule;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A transcript, a flaw, and the harm: words that occur more often with the flaw.
const NEEDED: &[(&str, Flaw, &str)] = &[
    (
        "entry-of-a-deposed-leader",
        Flaw::Without(Rule::TicketNamesItsTerm),
        "requests without a reply",
    ),
    (
        "forward-refused-and-sent-again",
        Flaw::Without(Rule::NotTakenMeansNotAppended),
        "n2@2 → n3 Forward for term 2 [set /color=red, set /color=blue]\n",
    ),
    (
        "forward-refused-and-sent-again",
        Flaw::Without(Rule::PublishedBeforeReply),
        "n2 shows readers entry 1\nn2 → client 1: done, entry 2\n",
    ),
    (
        "full-disk",
        Flaw::Without(Rule::ReadWaitsForItsIndex),
        "n1 → client 11: /f does not exist\n",
    ),
    (
        "keys-expire-by-cluster-time",
        Flaw::Without(Rule::LeaderExpires),
        "n2@1 → n1 Forward for term 1 [expire keys]\n",
    ),
    (
        "keys-expire-by-cluster-time",
        Flaw::Without(Rule::TimeIsTheClusters),
        "readers of n2: /color does not exist\n",
    ),
    (
        "keys-expire-by-cluster-time",
        Flaw::Without(Rule::TimeHeardGrows),
        "readers of n2: /color is green\n",
    ),
    (
        "leader-lost-after-append",
        Flaw::Without(Rule::ForwardsEndWithTheirTerm),
        "waiting: client 1 at n2\n",
    ),
    (
        "leader-lost-after-append",
        Flaw::Without(Rule::SentOnce),
        "n2@2 → n3 Forward for term 2 [set /color=red]\n",
    ),
    (
        "leader-with-hung-disk",
        Flaw::Without(Rule::HungLeaderMakesWay),
        "n2@1 → n1 Forward for term 1 [set /color=blue]\n",
    ),
    (
        "leader-with-hung-disk",
        Flaw::Without(Rule::EqualsStay),
        "n3 logs: is no longer the leader, in term 3\n",
    ),
    (
        "member-added-and-promoted",
        Flaw::Without(Rule::ChangesOneByOne),
        "n3 → client 2: refused, there is no such member\n",
    ),
    (
        "new-term-shown-when-stored",
        Flaw::Without(Rule::ShownTermIsStored),
        "n3 shows readers entry 2\n",
    ),
    (
        "quorum-read-through-deposed-leader",
        Flaw::Without(Rule::ReadAsks),
        "n1 → client 5: /color is red\n",
    ),
    (
        "quorum-read-through-deposed-leader",
        Flaw::Without(Rule::ReadWaitsForItsIndex),
        "n3 → client 7: /color is blue\n",
    ),
    (
        "quorum-read-through-deposed-leader",
        Flaw::Without(Rule::ReadsTimeOut),
        "waiting: client 10 at n3\n",
    ),
    (
        "restart-with-pending-forwards",
        Flaw::SameTags,
        "n2 → client 2: done, entry 2\n",
    ),
    (
        "shutdown",
        Flaw::Without(Rule::StopHandsOver),
        "waiting: client 2 at n2\n",
    ),
    (
        "shutdown",
        Flaw::Without(Rule::StopFinishes),
        "n1 → client 1: error 300, etcdserver: server stopped\n",
    ),
    (
        "snapshot-install",
        Flaw::Without(Rule::InstalledByTheDisk),
        "readers of n3: /color is red\n",
    ),
    (
        "snapshot-install",
        Flaw::Without(Rule::InstallEndsWaiting),
        "waiting: client 1 at n3\n",
    ),
    (
        "snapshot-install",
        Flaw::Without(Rule::InstallEnds),
        "n3 does not use the snapshot of n1\n",
    ),
    (
        "transfer-under-load",
        Flaw::Without(Rule::NotTakenMeansNotAppended),
        "waiting: client 2 at n1, client 4 at n3\n",
    ),
];

/// The output of all commands with this flaw. If a check fails, the output ends with its message.
fn output_with(flaw: Flaw, name: &str) -> String {
    let text = lesson::read("engine", name);
    let mut script = Script::new(Some(flaw));
    let mut happened = String::new();
    let played = catch_unwind(AssertUnwindSafe(|| {
        lesson::replay(&text, |line| {
            let outcome = script.command(line);
            outcome.inspect(|more| happened.push_str(more))
        })
    }));
    match played {
        Ok(_) => happened,
        Err(panic) => happened + &panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

#[test]
fn each_rule_is_needed() {
    for (name, flaw, harm) in NEEDED {
        let text = lesson::read("engine", name);
        let now = output_with(*flaw, name);
        assert!(
            now.matches(harm).count() > text.matches(harm).count(),
            "{name} does not show the harm of {flaw:?}. It gives:\n{now}"
        );
    }
}

#[test]
fn each_transcript_is_about_a_rule() {
    // Those about the trace show its records.
    let lessons = crate::LESSONS.iter();
    for name in lessons.filter(|name| !name.starts_with("trace-of-")) {
        let has_one = NEEDED.iter().any(|(lesson, ..)| lesson == name);
        assert!(has_one, "{name} shows the harm of nothing");
    }
}

/// Prints for each rule the transcripts that differ without it, with the new lines.
#[test]
#[ignore = "prints what goes into the table above"]
fn hunt() {
    for rule in Rule::ALL {
        for name in crate::LESSONS {
            let text = lesson::read("engine", name);
            let now = output_with(Flaw::Without(*rule), name);
            let old: Vec<&str> = text.lines().collect();
            let new = now.lines().filter(|line| !old.contains(line));
            new.for_each(|line| println!("{name}, {rule:?}: {line}"));
        }
    }
}
