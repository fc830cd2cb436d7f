//! Real clusters of real processes: faults, members, and whether what they said can be true.
//!
//! Everything here runs against the reference, too, which is how the tests are tried themselves:
//!
//! ```text
//! EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test cluster
//! EDGETCD_SERVER=$PWD/target/release/edgetcd NEMESIS_SECONDS=60 cargo test --test cluster linear
//! ```
//!
//! Limits that are this server's own are printed there, not asserted. Tests that cut links or mount
//! file systems need root and `ip`, and are `#[ignore]`d; `make clustertest` runs them as root. One test runs at a time.
//!
//! | file               | what it shows                                                             |
//! |--------------------|---------------------------------------------------------------------------|
//! | `linearizable.rs`  | five clients and watchers under a nemesis; what they saw has one order     |
//! |                    | (`history.rs`, `watchers.rs`, `nemesis.rs`; `order.rs`, `search.rs` check) |
//! | `failover.rs`      | the leader is killed, stopped, cut off, under 64 writers                   |
//! | `rolling.rs`       | a rolling restart that no writer notices                                   |
//! | `links.rs`         | links cut one way and both, in every pattern; an isolated node returns     |
//! | `members.rs`       | added, removed, wiped, foreign, forced; 5, 7 and 9 nodes                   |
//! | `catch_up.rs`      | a follower that was away; idle nodes                                       |
//! | `full_disk.rs`     | the leader's disk is full: another leads, and no write fails               |
//! | `hung_disk.rs`     | a member's disk hangs: its health fails, and the cluster goes on           |
//! | `slow.rs`          | a follower on a narrow line: memory and term of the leader                 |
//! | `without_leader.rs`| answers without a majority, no stale reads, bounded memory                 |
//! | `time_to_live.rs`  | expiry through changes of the leader                                       |
//! | `recorded.rs`      | the recorded answers of a cluster of three                                 |

#[path = "../harness/mod.rs"]
mod harness;

// The replayer of the recorded answers; the transcripts lie beside it.
#[path = "../golden/compare.rs"]
mod compare;
#[path = "../golden/transcript.rs"]
mod transcript;

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
mod support;
mod time_to_live;
mod watchers;
mod without_leader;
