//! How a node comes down, and up again.

use super::cluster::{Checked, Cluster, Event};
use super::flaw::Flaw;
use super::node::Life;
use super::trace::Happening;
use super::weather::{Kind, TICK};
use crate::raft::{Ballot, Input, NodeId, Settings, Start};
use crate::wal::{LyingDisk, Recovered};
use std::collections::{BTreeMap, VecDeque};

/// Entries a leader takes while nothing is committed, in bytes.
const UNCOMMITTED_BYTES: usize = 6_000;

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Down {
    /// The power goes: what was not synced is lost, in any part.
    Crash(&'static str),
    /// The process ends, the machine does not.
    Kill(&'static str),
    /// It stops by itself.
    Stopped,
}

impl Cluster {
    /// Ends a node's process. It starts again later, unless it was removed.
    pub(super) fn down(&mut self, id: NodeId, how: Down) {
        let why = match how {
            Down::Crash(why) | Down::Kill(why) => why,
            Down::Stopped => "it stops",
        };
        self.note(|_| Happening::Down { node: id, how: why });
        let (now, same_boot) = (self.now, self.weather.same_boot);
        let random = &mut self.random;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        // What a dying process would still tidy up, it does not.
        node.disk.cut_power_after(0);
        node.life = None;
        node.life_number += 1;
        node.paused_until = 0;
        match how {
            Down::Crash(_) => {
                node.disk.crash();
                if !same_boot {
                    node.machine.reboot(now, random);
                }
            }
            Down::Kill(_) | Down::Stopped => node.disk.kill(),
        }
        if node.retired {
            return;
        }
        let down = match self.mended {
            Some(_) => TICK,
            None => self.random.within(self.weather.down),
        };
        self.after(down, Event::Start { node: id });
        if !matches!(self.weather.kind, Kind::Calm(_)) {
            self.tell_of_the_dead(id);
        }
    }

    /// Its host refuses connections now: some hear of that.
    fn tell_of_the_dead(&mut self, leader: NodeId) {
        for node in self.up() {
            if self.random.one_in(3) {
                let wait = self.random.within((500, TICK));
                self.after(wait, Event::Gone { node, leader });
            }
        }
    }

    /// Starts a process from what is on the disk.
    pub(super) fn start(&mut self, id: NodeId) -> Checked {
        let memory_bytes = self.weather.memory_bytes;
        let node = self.node(id);
        if node.life.is_some() || node.retired {
            return Ok(());
        }
        node.life_number += 1;
        let recovered = node.recover(memory_bytes);
        let Some((wal, mut recovered)) = self.disk_result(id, recovered)? else {
            return Ok(());
        };
        let (ballot, found) = (recovered.ballot, recovered.log.clone());
        self.spoil(&mut recovered);
        let started = self.node(id).start_of(&mut recovered);
        let Some((start, state)) = self.disk_result(id, started)? else {
            return Ok(());
        };
        let missing = self
            .node(id)
            .mirror
            .missing_in(ballot, &found, start.snapshot.position);
        if let Some(missing) = missing {
            return Err(format!("recovery: n{} {missing}", id.0));
        }
        let core = (self.settings.keeping.0)(self.core_settings(id), start.clone());
        let offset = self.nodes[&id].resume(&recovered, &state, self.now);
        let warnings = recovered.warnings.len();
        let found = core.last_position();
        self.note(|_| Happening::Started {
            node: id,
            found,
            warnings,
        });
        self.reflect(id, &start, ballot);
        self.node(id).life = Some(Life {
            core,
            wal,
            state,
            offset,
            jobs: VecDeque::new(),
            at_disk: None,
            tickets: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
            confirmed: Vec::new(),
            since_snapshot: 0,
            writing: None,
            wanted: Vec::new(),
            streams: BTreeMap::new(),
            incoming: None,
            expiry_ran: 0,
        });
        let life = self.node(id).life_number;
        let wait = self.random.below(TICK);
        self.after(wait, Event::Tick { node: id, life });
        self.input(id, Input::Start).map(drop)
    }

    fn core_settings(&self, id: NodeId) -> Settings {
        let node = &self.nodes[&id];
        Settings {
            election_ticks: 10,
            heartbeat_ticks: 2,
            memory_bytes: self.weather.memory_bytes,
            batch_bytes: self.weather.batch_bytes,
            strict_changes: self.weather.strict_changes,
            window_bytes: self.weather.memory_bytes,
            uncommitted_bytes: UNCOMMITTED_BYTES,
            ..Settings::new(id, self.settings.seed ^ (node.life_number << 32))
        }
    }

    /// What was found is on disk from now on, whatever was before.
    fn reflect(&mut self, id: NodeId, start: &Start, ballot: Ballot) {
        let mirror = &mut self.node(id).mirror;
        mirror.ballot = ballot;
        mirror.snapshot = start.snapshot.position;
        mirror.entries.clear();
        mirror.unsure_from = None;
        let ends = start.log.terms.iter().skip(1).map(|run| run.0);
        let ends = ends.chain([start.log.last.next()]);
        for (&(first, term), end) in start.log.terms.iter().zip(ends) {
            let indexes = (first.0..end.0).map(crate::raft::LogIndex);
            mirror.entries.extend(indexes.map(|index| (index, term)));
        }
    }

    /// Mistakes a start could make.
    fn spoil(&self, recovered: &mut Recovered<LyingDisk>) {
        if self.has_flaw(Flaw::BallotForgotten) {
            recovered.ballot = Ballot {
                vote: None,
                ..recovered.ballot
            };
        }
        let log = &mut recovered.log;
        if self.has_flaw(Flaw::TailDropped) && !log.terms.is_empty() {
            let last = log.last;
            log.terms.retain(|run| run.0 < last);
            log.changes.retain(|entry| entry.position.index < last);
            log.tail.retain(|entry| entry.position.index < last);
            log.last = last.previous();
        }
    }
}
