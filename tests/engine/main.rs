//! Transcripts of the engine: several members, step by step. Each file in `tests/transcripts/engine` is a lesson.
//!
//! | file | content |
//! |---|---|
//! | `script.rs` | the commands |
//! | `cluster.rs` | members and clients; performs the effects of a step |
//! | `cluster/network.rs` | messages and snapshots on their way |
//! | `disk.rs`, `cluster/jobs.rs` | a disk, and its jobs |
//! | `cluster/clock.rs` | time, and what works by itself |
//! | `text.rs` | messages and answers in words |
//! | `rules.rs` | each rule is needed: without it, the transcript about it differs |

mod cluster;
mod disk;
#[path = "../harness/lesson.rs"]
mod lesson;
#[path = "../harness/raft_text.rs"]
mod raft_text;
mod rules;
mod script;
mod text;

fn run(name: &str) {
    let mut script = script::Script::new(None);
    lesson::check("engine", name, |line| script.command(line));
}

macro_rules! lessons {
    ($($test:ident: $name:literal),+ $(,)?) => {
        /// The names of all lessons.
        const LESSONS: &[&str] = &[$($name),+];

        $(#[test] fn $test() { run($name); })+
    };
}

lessons! {
    entry_of_a_deposed_leader: "entry-of-a-deposed-leader",
    forward_refused_and_sent_again: "forward-refused-and-sent-again",
    full_disk: "full-disk",
    keys_expire_by_cluster_time: "keys-expire-by-cluster-time",
    leader_lost_after_append: "leader-lost-after-append",
    leader_with_hung_disk: "leader-with-hung-disk",
    member_added_and_promoted: "member-added-and-promoted",
    new_term_shown_when_stored: "new-term-shown-when-stored",
    quorum_read_through_deposed_leader: "quorum-read-through-deposed-leader",
    restart_with_pending_forwards: "restart-with-pending-forwards",
    shutdown: "shutdown",
    snapshot_install: "snapshot-install",
    trace_of_a_vote: "trace-of-a-vote",
    trace_of_a_write: "trace-of-a-write",
    trace_of_what_fails: "trace-of-what-fails",
    transfer_under_load: "transfer-under-load",
}

#[test]
fn every_transcript_is_run() {
    lesson::all_are_run("engine", LESSONS);
}
