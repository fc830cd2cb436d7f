//! The disk of one member has room for three copies of its state. The member must keep up, and catch up after a
//! crash.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::full_disk::number;
use crate::harness::Cluster;
use crate::harness::mount::Mount;
use crate::support::alone;

/// After a follower's last answer, the leader keeps the log for it for this time.
const BELIEVED_IN: Duration = Duration::from_secs(2);
/// More writes than the history of the others keeps.
const WRITES_AWAY: u64 = 1100;
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(60);
const SMALL: usize = 2;
const SENT: &str = "edgetcd_snapshots_sent_total";

struct Load {
    keys: u64,
    value_bytes: usize,
}

impl Load {
    fn value(&self, number: u64) -> String {
        format!("{number:08}-").repeat(self.value_bytes / 9)
    }

    fn write(&self, cluster: &Cluster, through: usize, numbers: Range<u64>) {
        let mut connection = cluster.node(through).connect();
        for number in numbers {
            let form = format!("value={}", self.value(number));
            let target = format!("/v2/keys/k{}", number % self.keys);
            let answer = connection.ask("PUT", &target, Some(&form));
            let answer = answer.expect("an answer");
            assert!(answer.status < 300, "write {number}: {answer:.300?}");
        }
    }

    /// Checks each key on the small member, after writes with the numbers 0 to `count`.
    fn check(&self, cluster: &Cluster, count: u64) {
        for key in 0..self.keys {
            let target = format!("/v2/keys/k{key}");
            let json = cluster.node(SMALL).ask("GET", &target, None).json();
            let text = json.at("/node/value").and_then(|text| text.text());
            let newest = (0..count).rev().find(|number| number % self.keys == key);
            let wanted = self.value(newest.expect("all keys were written"));
            assert!(text == Some(wanted.as_str()), "k{key}");
        }
    }
}

/// The others have large disks, so their snapshots contain 1000 events, for which this disk has no room.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_follower_with_a_small_disk_keeps_up_and_catches_up() {
    for (megabytes, value_bytes, keys) in [(8, 10_000, 50), (24, 100_000, 20)] {
        let _alone = alone();
        let load = Load { keys, value_bytes };
        let mount = Mount::ext4(megabytes);
        let mut cluster = Cluster::prepare(3, &["--snapshot-count=500"]);
        let data = mount.path().join("data");
        cluster.node_mut(SMALL).keep_data_in(&data);
        cluster.launch();
        let four_times_its_disk = 4 * (megabytes << 20) / value_bytes as u64;
        load.write(&cluster, 0, 0..four_times_its_disk);
        cluster.put(0, "/last", "kept-up");
        cluster.wait_value(SMALL, "/last", "kept-up", CATCHES_UP_WITHIN);

        cluster.kill(SMALL);
        let leader = cluster.wait_leader_among(&[0, 1]);
        let before = number(&cluster, leader, SENT);
        let (begin, mut written) = (Instant::now(), 0);
        while written < WRITES_AWAY || begin.elapsed() < 2 * BELIEVED_IN {
            load.write(&cluster, 0, written..written + 100);
            written += 100;
        }
        cluster.node_mut(SMALL).spawn();
        cluster.put(0, "/last", "caught-up");
        cluster.wait_value(SMALL, "/last", "caught-up", CATCHES_UP_WITHIN);
        let after = number(&cluster, leader, SENT);
        assert!(after > before, "it caught up without a snapshot");
        load.write(&cluster, SMALL, 0..100);
        load.check(&cluster, 100);
    }
}
