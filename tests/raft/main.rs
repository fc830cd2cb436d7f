//! Tests of the raft core: transcripts and random clusters.

mod changes;
mod cluster;
mod random;
mod rules;
mod script;
mod steps;

use edgetcd::raft::AllRules;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/raft")
}

/// Runs the transcript `name`. With `UPDATE=1`, writes the new output to it.
fn lesson(name: &str) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).expect("the transcript is there");
    assert!(text.starts_with("# "), "{name} begins with what it teaches");
    let (now, outcome) = script::replay::<AllRules>(&text);
    outcome.unwrap_or_else(|broken| panic!("{name}: {broken}, after\n{now}"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, now).expect("it can be written");
    } else if now != text {
        let line = now
            .lines()
            .zip(text.lines())
            .position(|(now, text)| now != text);
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
    ack_only_after_store: "ack-only-after-store",
    check_quorum: "check-quorum",
    commit_needs_own_term: "commit-needs-own-term",
    divergent_log: "divergent-log",
    figure_8: "figure-8",
    first_election: "first-election",
    follower_catches_up: "follower-catches-up",
    lagging_follower_reads_back: "lagging-follower-reads-back",
    late_report_from_the_disk: "late-report-from-the-disk",
    learner_under_load: "learner-under-load",
    leader_counts_its_own_disk: "leader-counts-its-own-disk",
    leader_gone_hint: "leader-gone-hint",
    leader_removes_itself: "leader-removes-itself",
    lost_append: "lost-append",
    lost_tail: "lost-tail",
    membership: "membership",
    membership_of_an_unproven_leader: "membership-of-an-unproven-leader",
    newer_term_from_a_refusal: "newer-term-from-a-refusal",
    one_way_cut: "one-way-cut",
    read_index: "read-index",
    read_index_stale_leader: "read-index-stale-leader",
    rejoin_after_isolation: "rejoin-after-isolation",
    removed_leader_is_needed: "removed-leader-is-needed",
    removed_member_does_not_disturb: "removed-member-does-not-disturb",
    single_node_restart_with_long_log: "single-node-restart-with-long-log",
    snapshot_behind_is_ignored: "snapshot-behind-is-ignored",
    snapshot_catch_up: "snapshot-catch-up",
    split_vote: "split-vote",
    stepping_down: "stepping-down",
    stale_longer_append: "stale-longer-append",
    timer_of_a_voter: "timer-of-a-voter",
    transfer: "transfer",
    two_changes_at_once: "two-changes-at-once",
    uncommitted_cap: "uncommitted-cap",
    vote_not_stored: "vote-not-stored",
}
