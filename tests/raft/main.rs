//! Tests of the raft core: transcripts and random clusters.

mod changes;
mod cluster;
mod random;
mod rules;
mod script;
mod steps;

#[path = "../harness/lesson.rs"]
mod lesson;
#[path = "../harness/raft_text.rs"]
mod raft_text;

use edgetcd::raft::AllRules;

fn run(name: &str) {
    let mut script = script::Script::<AllRules>::new();
    lesson::check("raft", name, |line| script.command(line));
}

macro_rules! lessons {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test] fn $test() { run($name); })+

        #[test]
        fn every_transcript_is_run() {
            lesson::all_are_run("raft", &[$($name),+]);
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
