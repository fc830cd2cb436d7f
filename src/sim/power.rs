//! How a node stops and starts: crashes, kills, clean stops, and the start from its disk.

use super::any_engine::{DiskRules, Parts};
use super::clock::SECONDS_SCALE;
use super::cluster::{Checked, Cluster, Event};
use super::desk::new_address;
use super::disk::READ_BYTES;
use super::fault_profile::{FaultProfile, Kind, TICK};
use super::node::Life;
use super::perform::caller;
use super::records::Shadow;
use super::trace::Happening;
use crate::engine;
use crate::engine::PeerEvent;
use crate::engine::rules::Rule;
use crate::raft::{HardState, NodeId, Settings, Term};
use crate::storage;
use crate::storage::jobs::LogJobs;
use crate::tree::ClusterTime;
use crate::wal::{FaultyDisk, Recovered};
use crate::watch::View;
use crate::watch::matching::Watchers;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Limit for the bytes of uncommitted entries on a leader.
const UNCOMMITTED_BYTES: usize = 6_000;

/// Most bytes of entries that a core may have in memory: what it keeps of the stored ones, what its leaders have sent it
/// before it acknowledged anything, and what it has proposed itself.
pub(super) fn memory_max(profile: &FaultProfile) -> usize {
    4 * profile.memory_bytes + 2 * UNCOMMITTED_BYTES
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Down {
    /// A power failure. Any part of the unsynced bytes is lost.
    Crash(&'static str),
    /// The process is killed, and the machine continues.
    Kill(&'static str),
    /// The process stops cleanly.
    Stopped,
}

/// Converts a duration on a machine's clock to virtual microseconds.
pub(super) fn by_machine(micros: u64) -> Duration {
    Duration::from_micros(micros * SECONDS_SCALE)
}

/// A tick by a machine's clock.
pub(super) fn tick() -> Duration {
    by_machine(TICK)
}

impl Cluster {
    /// A process dies, perhaps during a job of its disk.
    pub(super) fn die(&mut self, id: NodeId, how: Down) -> Checked {
        self.die_at_work(id)?;
        self.down(id, how);
        Ok(())
    }

    /// Ends a node's process. It starts again later, unless it was removed.
    pub(super) fn down(&mut self, id: NodeId, how: Down) {
        let why = match how {
            Down::Crash(why) | Down::Kill(why) => why,
            Down::Stopped => "it stops",
        };
        self.note(|_| Happening::Down { node: id, how: why });
        let (now, same_boot) = (self.now, self.profile.same_boot);
        let random = &mut self.random;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        // A killed process runs no cleanup.
        node.disk.cut_power_after(0);
        let life = node.life.take();
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
        let retired = node.retired;
        self.end_watches(id);
        if let Some(life) = life {
            let untaken = life.requests.iter().filter_map(caller);
            untaken.for_each(|number| _ = self.changes.remove(&number));
            self.forget_changes(life.pending.into_keys());
        }
        if retired {
            return;
        }
        if self.is_by_hand() {
            return;
        }
        let down = match self.repaired {
            Some(_) => TICK,
            None => self.random.within(self.profile.down),
        };
        self.after(down, Event::Start { node: id });
        if !matches!(self.profile.kind, Kind::Scenario(_)) {
            self.tell_of_the_dead(id);
        }
    }

    /// The node's host refuses connections now. Some members notice it.
    fn tell_of_the_dead(&mut self, leader: NodeId) {
        for node in self.up() {
            if self.random.one_in(3) {
                let wait = self.random.within((500, TICK));
                let event = Box::new(PeerEvent::Gone(leader));
                self.after(wait, Event::Peers { node, event });
            }
        }
    }

    /// Starts a process from what is on the disk.
    pub(super) fn start(&mut self, id: NodeId) -> Checked {
        let memory_bytes = self.profile.memory_bytes;
        let node = self.node(id);
        if node.life.is_some() || node.retired {
            return Ok(());
        }
        if std::mem::take(&mut node.moves) {
            node.address = Some(new_address(id));
        }
        if node.identity.is_none() && !self.first_start(id) {
            return Ok(());
        }
        let node = self.node(id);
        node.life_number += 1;
        let recovered = node.recover(memory_bytes);
        let Some((wal, mut recovered)) = self.disk_result(id, recovered)? else {
            return Ok(());
        };
        let (hard_state, found) = (recovered.hard_state, recovered.log.clone());
        self.spoil(id, &mut recovered);
        let started = self.node(id).start_of(&mut recovered);
        let Some((start, state, snapshot_bytes)) = self.disk_result(id, started)? else {
            return Ok(());
        };
        let checks = self.checks.clone();
        let mut seen = checks.borrow_mut();
        let mirror = seen.mirror(id);
        if let Some(missing) = mirror.missing_in(hard_state, &found, start.snapshot.position) {
            return Err(format!("recovery: n{} {missing}", id.0));
        }
        mirror.reflect(&start, hard_state);
        seen.begins(id, start.snapshot.position);
        drop(seen);
        let mut table = state.members.clone();
        let learns = !self.is_without(Rule::LogNamesIncarnations);
        let read = storage::members::for_each_entry(&wal, &start.log, |entry| {
            if learns {
                storage::members::learn(&mut table, entry);
            }
        });
        if self.disk_result(id, read)?.is_none() {
            return Ok(());
        }
        let settings = self.engine_settings(id, snapshot_bytes);
        let node = &self.nodes[&id];
        let view = View {
            tree: state.tree.clone(),
            applied: state.applied,
            term: Term(0),
        };
        let mut engine = (self.settings.keeping.0)(Parts {
            id,
            without: self.settings.without,
            checks,
            core: self.core_settings(id),
            settings,
            estimate: node.resume(&recovered, &state, self.now),
            now: node.now(self.now),
            start,
            state,
        });
        engine.keep_trace(self.records.is_some());
        let warnings = recovered.warnings.len();
        let found = engine.last_position();
        self.note(|_| Happening::Started {
            node: id,
            found,
            warnings,
        });
        let rules = DiskRules(self.settings.without);
        self.node(id).life = Some(Life {
            engine,
            table,
            view,
            watchers: Watchers::default(),
            requests: VecDeque::new(),
            pending: BTreeMap::new(),
            has_news: false,
            forwarded: BTreeMap::new(),
            log: LogJobs::new(wal, READ_BYTES, rules),
            jobs: VecDeque::new(),
            disk_is_busy: false,
            begun: VecDeque::new(),
            incoming: None,
            streams: BTreeMap::new(),
            time_heard: (Term(0), ClusterTime(0)),
            told: None,
            stopping: None,
            shadow: Shadow::default(),
        });
        let life = self.node(id).life_number;
        let wait = self.random.below(TICK);
        self.after(wait, Event::Tick { node: id, life });
        self.after(wait, Event::Publish { node: id, life });
        self.step_engine(id, engine::Event::Start)
    }

    /// Ticks the engine if its next tick is due.
    pub(super) fn tick(&mut self, id: NodeId, life_number: u64) -> Checked {
        let now = self.nodes[&id].now(self.now).monotonic;
        if self.node(id).life_number != life_number {
            return Ok(());
        }
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if now >= life.engine.deadline() {
            self.step_engine(id, engine::Event::Tick)?;
        }
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let left = life.engine.deadline() - now;
        let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX) / SECONDS_SCALE;
        let node = self.node(id);
        let (wait, life) = (node.machine.lasts(micros).max(1), node.life_number);
        self.after(wait, Event::Tick { node: id, life });
        Ok(())
    }

    fn core_settings(&self, id: NodeId) -> Settings {
        let node = &self.nodes[&id];
        Settings {
            election_ticks: 10,
            heartbeat_ticks: 2,
            memory_bytes: self.profile.memory_bytes,
            batch_bytes: self.profile.batch_bytes,
            strict_changes: self.profile.strict_changes,
            window_bytes: self.profile.memory_bytes,
            uncommitted_bytes: UNCOMMITTED_BYTES,
            ..Settings::new(id, self.settings.seed ^ (node.life_number << 32))
        }
    }

    fn engine_settings(&mut self, id: NodeId, snapshot_bytes: u64) -> engine::Settings {
        // Different from the tags of all other processes, and small enough that tags do not wrap around.
        let first_tag = self.random.next() >> 2;
        let alone = self.nodes[&id].life_number.is_multiple_of(2) && self.profile.alone;
        engine::Settings {
            tick: tick(),
            request_timeout: self.profile.request_timeout(),
            leader_timeout: 20 * tick(),
            snapshot_count: self.profile.snapshot_every,
            snapshot_bytes,
            log_bytes_max: 100 * self.profile.snapshot_every,
            batch_bytes_max: if alone { 1 } else { 2_000 },
            history_bytes: usize::MAX,
            stall: tick(),
            keep_tail: by_machine(self.profile.keep_tail),
            election_ticks: 10,
            strict_changes: self.profile.strict_changes,
            first_tag,
        }
    }

    /// The mistakes of a start whose rule is switched off, and the entries that a disk may lose.
    fn spoil(&mut self, id: NodeId, recovered: &mut Recovered<FaultyDisk>) {
        if self.is_without(Rule::VoteIsFound) {
            recovered.hard_state = HardState {
                vote: None,
                ..recovered.hard_state
            };
        }
        let mut lost = std::mem::take(&mut self.node(id).loses_tail);
        let loses = lost > 0;
        lost += u64::from(self.is_without(Rule::TailIsFound));
        let lost = lost.min(recovered.log.tail.len() as u64);
        self.checks.borrow_mut().lost_tail |= loses && lost > 0;
        let log = &mut recovered.log;
        for _ in 0..lost {
            let last = log.last;
            log.terms.retain(|run| run.0 < last);
            log.changes.retain(|entry| entry.position.index < last);
            log.tail.retain(|entry| entry.position.index < last);
            log.last = last.previous();
        }
    }
}
