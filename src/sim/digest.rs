//! One number for a whole run, to compare it with the same seed elsewhere.
//!
//! The number is made of bytes only, never of the memory of this process: no `usize` and no address goes into it. So it
//! is the same on a machine with words of another size.

use super::cluster::Cluster;
use super::node::Node;
use crate::engine::state::State;
use std::fmt::{self, Write};

/// FNV-1a over everything that is added.
struct Digest(u64);

impl Digest {
    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// What the member's disk holds, and what its process has in memory.
    fn node(&mut self, node: &Node) {
        self.number(node.id.0);
        self.number(node.life_number);
        self.number(node.disk.used());
        let Some(life) = &node.life else {
            return self.number(0);
        };
        let (engine, hard_state) = (&life.engine, life.engine.hard_state());
        let last = engine.last_position();
        self.number(1);
        self.number(hard_state.term.0);
        self.number(hard_state.vote.map_or(0, |vote| vote.0));
        self.number(last.term.0);
        self.number(last.index.0);
        self.number(engine.commit().0);
        self.number(life.view.applied.0);
        self.state(engine.state());
    }

    fn state(&mut self, state: &State) {
        let saved = state.save(|slice| {
            self.bytes(slice);
            Ok::<(), ()>(())
        });
        saved.expect("a digest refuses nothing");
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl Cluster {
    /// A hash of everything up to this moment. It covers the number of events and the random numbers that they have
    /// drawn; of each member, the hard state, the log's last position, the commit and applied positions, and the
    /// snapshot of its state (tree, history, members, cluster time); and the trace, if one is kept
    /// ([`Settings::tracing`](super::Settings::tracing)).
    ///
    /// Two runs of a seed have the same hash on all machines, also if their word sizes differ.
    pub fn state_hash(&self) -> u64 {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        digest.number(self.now);
        digest.number(self.events);
        digest.number(self.random.clone().next());
        self.nodes.values().for_each(|node| digest.node(node));
        for line in self.trace() {
            writeln!(digest, "{line}").expect("a digest refuses nothing");
        }
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::Members;
    use crate::raft::NodeId;
    use crate::sim::{Happening, Keeping, Settings};
    use crate::tree::{ClusterTime, TreeIndex};

    type Change = fn(&mut Cluster);

    /// A cluster in which clients have written.
    fn busy() -> Cluster {
        let mut cluster = Cluster::new(Settings {
            seed: 3,
            nodes: 3,
            kind: None,
            keeping: Keeping::all(),
            without: None,
            tracing: true,
        });
        let has_keys = |cluster: &Cluster| {
            let mut lives = cluster.nodes.values().filter_map(|node| node.life.as_ref());
            lives.any(|life| life.view.tree.index() > TreeIndex(3))
        };
        while !has_keys(&cluster) {
            cluster.step().expect("this seed breaks nothing");
        }
        cluster
    }

    fn running(cluster: &mut Cluster) -> &mut Node {
        let mut nodes = cluster.nodes.values_mut();
        nodes.find(|node| node.life.is_some()).expect("one runs")
    }

    #[test]
    fn every_part_of_a_run_counts() {
        let changes: [(&str, Change); 7] = [
            ("trace", |cluster| cluster.note(|_| Happening::Repaired)),
            ("time", |cluster| cluster.now += 1),
            ("events", |cluster| cluster.events += 1),
            ("random numbers", |cluster| _ = cluster.random.next()),
            ("applied", |cluster| {
                let life = running(cluster).life.as_mut().expect("it runs");
                life.view.applied = life.view.applied.next();
            }),
            ("processes", |cluster| running(cluster).life = None),
            ("members", |cluster| {
                let random = cluster.random.clone();
                cluster.add_node(NodeId(9), None);
                cluster.random = random;
            }),
        ];
        let expected = busy().state_hash();
        assert_eq!(busy().state_hash(), expected);
        for (part, change) in changes {
            let mut cluster = busy();
            change(&mut cluster);
            assert_ne!(cluster.state_hash(), expected, "{part}");
        }
    }

    #[test]
    fn states_with_another_time_have_another_hash() {
        let hash = |nanoseconds| {
            let mut state = State::new(Members::new(1, []), 24);
            state.time = ClusterTime(nanoseconds);
            let mut digest = Digest(0);
            digest.state(&state);
            digest.0
        };
        assert_eq!(hash(5), hash(5));
        assert_ne!(hash(5), hash(6));
    }
}
