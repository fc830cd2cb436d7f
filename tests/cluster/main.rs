//! Tests of real clusters of real processes: faults, members, and whether the responses are consistent.
//!
//! All these tests also run against the reference. This is how the tests themselves are tested:
//!
//! ```text
//! EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test cluster EDGETCD_SERVER=$PWD/target/release/edgetcd
//! NEMESIS_SECONDS=60 cargo test --test cluster linear
//! ```
//!
//! Against the reference, the tests only print the limits that are specific to this server. Tests that cut links or
//! mount file systems need root and `ip`, and are `#[ignore]`d; `make clustertest` runs them as root. Only one test
//! runs at a time.
//!
//! | file               | what it tests                                                             |
//! |--------------------|---------------------------------------------------------------------------|
//! | `linearizable.rs`  | five clients and watchers under a nemesis; their history is linearizable   |
//! |                    | (`history.rs`, `watchers.rs`, `nemesis.rs`; `order.rs`, `search.rs` check) |
//! | `failover.rs`      | the leader is killed, stopped, cut off, under 64 writers                   |
//! | `rolling.rs`       | a rolling restart without a failed write                                   |
//! | `links.rs`         | links cut one way and both, in every pattern; an isolated node returns     |
//! | `members.rs`       | added, removed, wiped, foreign, forced; 5, 7 and 9 nodes                   |
//! | `catch_up.rs`      | a follower that was down; idle nodes                                       |
//! | `auth.rs`          | users and roles: all members enforce them alike                            |
//! | `full_disk.rs`     | the leader's disk is full: another member leads, and no write fails        |
//! | `hung_disk.rs`     | a member's disk hangs: its health check fails, and the cluster continues   |
//! | `small_disk.rs`    | a follower with a small disk: it keeps up, and catches up after a crash    |
//! | `slow.rs`          | a follower on a slow line: memory and term of the leader                   |
//! | `without_leader.rs`| responses without a majority, no stale reads, bounded memory               |
//! | `versions.rs`    | members of two versions: no entry that one of them cannot apply            |
//! | `time_to_live.rs`  | expiry across changes of the leader                                        |
//! | `recorded.rs`      | the recorded responses of a cluster of three                               |

#[path = "../harness/mod.rs"]
mod harness;

// Replays the recorded responses. The transcripts are in the same folder.
#[path = "../golden/compare.rs"]
mod compare;
#[path = "../golden/transcript.rs"]
mod transcript;

#[path = "../auth/matrix.rs"]
mod matrix;

mod auth;
mod catch_up;
mod crowd;
mod failover;
mod full_disk;
mod history;
mod hung_disk;
mod linearizable;
mod links;
mod members;
mod nemesis;
mod order;
mod recorded;
mod rolling;
mod search;
mod slow;
mod small_disk;
mod support;
mod time_to_live;
mod versions;
mod watchers;
mod without_leader;
