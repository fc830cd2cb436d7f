//! Each safety rule is needed: without it, the transcript about the rule fails.
//!
//! For most rules a check must fail. Some rules only prevent needless elections (pre-vote and similar rules). For
//! them, the output must differ from the transcript.

use crate::lesson;
use crate::script::Script;
use edgetcd::raft::Rules;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the transcript under `R`. Returns the new output, and the failed check if there is one.
fn play<R: Rules>(name: &str) -> (String, Result<String, String>) {
    let text = lesson::read("raft", name);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut script = Script::<R>::new();
        lesson::replay(&text, |line| script.command(line))
    }));
    let ended = match played {
        Ok((now, Ok(()))) => Ok(now),
        Ok((_, Err(broken))) => Err(broken),
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    };
    (text, ended)
}

macro_rules! without {
    ($($test:ident: $rule:ident, $lesson:literal, $harm:literal);+ $(;)?) => { $(
        #[test]
        fn $test() {
            #[derive(Debug)]
            struct Without;
            impl Rules for Without {
                const $rule: bool = false;
            }
            let (text, ended) = play::<Without>($lesson);
            match ended {
                Err(broken) => assert!(broken.contains($harm), "another harm: {broken}"),
                Ok(now) if $harm.is_empty() => assert_ne!(now, text, "nothing is different"),
                Ok(now) => panic!("nothing broke:\n{now}"),
            }
        }
    )+ };
}

without! {
    a_vote_is_stored_first:
        VOTE_STORED_BEFORE_ANSWER, "vote-not-stored", "election safety";
    an_ack_waits_for_the_disk:
        ACK_AFTER_STORE, "ack-only-after-store", "durability";
    a_leader_waits_for_its_own_disk:
        OWN_STORE_COUNTS, "leader-counts-its-own-disk", "durability";
    a_report_is_checked_against_the_log:
        STORED_CHECKS_TERM, "late-report-from-the-disk", "durability";
    old_entries_are_not_counted:
        COMMIT_OWN_TERM_ONLY, "figure-8", "leader completeness";
    an_append_that_matches_deletes_nothing:
        TRUNCATE_ONLY_ON_CONFLICT, "stale-longer-append", "leader completeness";
    one_change_at_a_time:
        ONE_CHANGE_AT_A_TIME, "two-changes-at-once", "leader completeness";
    no_change_before_the_own_term:
        CHANGE_AFTER_OWN_TERM, "membership-of-an-unproven-leader", "leader completeness";
    a_read_is_confirmed_by_a_new_round:
        READ_ROUND_IS_NEW, "read-index-stale-leader", "stale read";
    a_late_snapshot_is_not_used:
        SNAPSHOT_ONLY_AHEAD, "snapshot-behind-is-ignored", "went back";
    pre_vote_keeps_the_term:
        PRE_VOTE, "rejoin-after-isolation", "";
    belief_in_the_leader_keeps_it:
        BELIEVES_ITS_LEADER, "one-way-cut", "";
    a_leader_without_a_majority_steps_down:
        CHECK_QUORUM, "check-quorum", "";
    only_a_leader_restarts_the_timer:
        TIMER_RESET_BY_LEADER_ONLY, "timer-of-a-voter", "";
    a_question_with_a_known_answer_waits:
        REPEATED_PROBES_WAIT, "lost-tail", "";
    a_learner_need_not_have_all_at_one_moment:
        LEARNER_MAY_LAG, "learner-under-load", "";
}
