//! Random operations on a log over a faulty disk, compared with a model of its promises.
//!
//! The model keeps the state after each record since the last sync. After any fault, the recovered log must be one of
//! these states: a prefix of the written records that includes every acknowledged one. Its snapshot must be a finished
//! one, or one that was being finished.

use crate::support::{self, entry, open_with, options, position};
use edgetcd::raft::{Entry, HardState, LogIndex, NodeId, Position, SnapshotMetadata, Term};
use edgetcd::wal::{Batch, Clock, DataDir, FaultyDisk, Recovered, Wal, WalError, WalErrorKind};
use std::collections::BTreeSet;
use std::time::Duration;

const SEEDS: u64 = 60;
const STEPS: u64 = 120;

/// Content of the log after some record.
#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    hard_state: HardState,
    clock: Option<Clock>,
    /// The log starts after this position.
    base: Position,
    /// Position and size of each entry.
    entries: Vec<(Position, usize)>,
}

impl State {
    fn last(&self) -> Position {
        self.entries.last().map_or(self.base, |entry| entry.0)
    }

    fn put(&mut self, entry: &Entry) {
        let keep = entry.position.index.0 - self.base.index.0 - 1;
        self.entries.truncate(keep as usize);
        self.entries.push((entry.position, entry.payload.len()));
    }

    fn at(&self, index: u64) -> Option<Position> {
        let all = [self.base]
            .into_iter()
            .chain(self.entries.iter().map(|entry| entry.0));
        all.into_iter().find(|position| position.index.0 == index)
    }

    /// The entries of the log that follow a snapshot.
    fn after(&self, snapshot: Option<Position>) -> Vec<(Position, usize)> {
        let Some(snapshot) = snapshot else {
            return self.entries.clone();
        };
        let known = self.at(snapshot.index.0);
        if snapshot.index > self.last().index || known.is_some_and(|known| known != snapshot) {
            return Vec::new();
        }
        let after = |entry: &&(Position, usize)| entry.0.index > snapshot.index;
        self.entries.iter().filter(after).copied().collect()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct World {
    seed: u64,
    random: Random,
    disk: FaultyDisk,
    open: Option<(DataDir<FaultyDisk>, Wal<FaultyDisk>)>,
    /// The first state is acknowledged. After a crash, the log may have any of them.
    states: Vec<State>,
    /// Possible newest snapshots.
    snapshots: BTreeSet<Option<Position>>,
    term: u64,
    boots: u64,
}

fn snapshot_bytes(metadata: &SnapshotMetadata) -> Vec<u8> {
    let count = 100 + metadata.position.index.0 * 700 % 70_000;
    (0..count)
        .map(|n| (n + metadata.position.index.0) as u8)
        .collect()
}

impl World {
    fn new(seed: u64) -> World {
        World {
            seed,
            random: Random(seed * 2 + 1),
            disk: FaultyDisk::new(seed),
            open: None,
            states: vec![State::default()],
            snapshots: [None].into(),
            term: 1,
            boots: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            while self.open.is_none() {
                self.start();
            }
            self.step();
        }
        // At the end no fault happens, and everything must work.
        self.disk.set_capacity(u64::MAX);
        self.open = None;
        self.disk.crash();
        while self.open.is_none() {
            self.start();
        }
    }

    /// Opens the log and compares it with the promises.
    fn start(&mut self) {
        self.disk.set_capacity(u64::MAX);
        if self.random.below(6) == 0 {
            self.disk.cut_power_after(self.random.below(25));
        }
        let options = edgetcd::wal::Options {
            max_wals: 1 + self.seed as usize % 3,
            max_snapshots: 1 + self.seed as usize % 4,
            tail_bytes: 3000,
            segment_bytes_max: 16 * 1024,
            ..options(4096)
        };
        match open_with(&self.disk, options) {
            // The power may have failed while the background thread prepared the next segment.
            Ok(_) if !self.disk.has_power() => self.end(true),
            Ok((data_dir, wal, recovered)) => {
                self.disk.cut_power_after(u64::MAX);
                self.compare(&wal, recovered);
                self.open = Some((data_dir, wal));
            }
            Err(error) if error.kind == WalErrorKind::Io => {
                let power = error.what.contains("the power is gone") || self.random.below(2) == 0;
                self.end(power);
            }
            Err(error) => panic!("seed {}: refuses to start: {error}", self.seed),
        }
    }

    fn compare(&mut self, wal: &Wal<FaultyDisk>, mut recovered: Recovered<FaultyDisk>) {
        let snapshot = recovered
            .snapshot
            .as_ref()
            .map(|reader| reader.metadata().position);
        let may = &self.snapshots;
        assert!(
            may.contains(&snapshot),
            "seed {}: snapshot {snapshot:?} of {may:?}",
            self.seed
        );
        let found = support::read_all(wal, &recovered);
        for entry in &found {
            let Position { index, term } = entry.position;
            assert_eq!(*entry, support::entry(index.0, term.0, entry.payload.len()));
        }
        let found: Vec<_> = found
            .iter()
            .map(|entry| (entry.position, entry.payload.len()))
            .collect();
        let same = |state: &&State| {
            (state.hard_state, state.clock) == (recovered.hard_state, recovered.clock)
                && state.after(snapshot) == found
        };
        let Some(state) = self.states.iter().rev().find(same) else {
            panic!(
                "seed {}: snapshot {snapshot:?}, {:?}, {:?}, log {found:?}, which is none of {:#?}",
                self.seed, recovered.hard_state, recovered.clock, self.states
            );
        };
        let mut state = state.clone();
        if let Some(position) = snapshot {
            state.base = position;
            state.entries = found;
        }
        self.states = vec![state];
        self.snapshots = [snapshot].into();
        if let Some(reader) = &mut recovered.snapshot {
            let mut bytes = Vec::new();
            while reader.next(&mut bytes).expect("the snapshot reads back") {}
            assert_eq!(bytes, snapshot_bytes(reader.metadata()));
        }
    }

    fn state(&self) -> State {
        self.states[self.states.len() - 1].clone()
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..55 => self.write(),
            55..65 => self.sync(),
            65..72 => self.snapshot(),
            72..74 => self.install(),
            74..78 => self
                .disk
                .advance(Duration::from_secs(self.random.below(200))),
            78..82 => self.disk.cut_power_after(self.random.below(40)),
            82..84 => self.disk.fail_sync_after(self.random.below(4)),
            84..88 => {
                let room = self.random.below(20_000);
                self.disk.set_capacity(self.disk.used() + room);
                // Room that is scarce makes the log give up the snapshots before the newest.
                let (_, wal) = self.open.as_mut().expect("open");
                wal.set_reserve(self.random.below(20_000));
            }
            88..90 => self.disk.set_capacity(u64::MAX),
            90..94 => self.close(),
            94..97 => self.end(false),
            _ => self.end(true),
        }
    }

    /// Checks the result of a call that may have met an injected fault.
    fn went(&mut self, result: Result<(), WalError>) -> bool {
        let Err(error) = result else { return true };
        match error.kind {
            WalErrorKind::Full => {}
            WalErrorKind::Io => {
                let (_, wal) = self.open.as_mut().expect("open");
                let again = wal
                    .write(&support::hard_state(999_999, 1))
                    .map_err(|error| error.kind);
                let dead = error.what.contains("the power is gone");
                let poisoned = again == Err(WalErrorKind::Poisoned);
                assert!(
                    dead || poisoned,
                    "seed {}: {again:?} after {error}",
                    self.seed
                );
                // If a process ends because of a failed sync, the machine may continue to run.
                let power = dead || self.random.below(2) == 0;
                self.end(power);
            }
            _ => panic!("seed {}: {error}", self.seed),
        }
        false
    }

    /// The latest index at which the log may begin.
    fn newest_snapshot(&self) -> u64 {
        let snapshots = self.snapshots.iter().flatten();
        let newest = snapshots.map(|position| position.index.0).max();
        newest.unwrap_or(0).max(self.state().base.index.0)
    }

    fn batch(&mut self) -> Batch {
        let last = self.state().last().index.0;
        let committed = self.newest_snapshot();
        let mut first = last + 1;
        if self.random.below(8) == 0 && last > committed {
            first = committed + 1 + self.random.below(last - committed);
            self.term += 1;
        }
        let count = [0, 1, 1, 2, 5, 20][self.random.below(6) as usize];
        let sizes = [0, 1, 60, 200, 1500];
        let size = if self.random.below(30) == 0 {
            30_000
        } else {
            sizes[self.random.below(5) as usize]
        };
        let entries = (first..first + count).map(|index| entry(index, self.term, size));
        let entries: Vec<Entry> = entries.collect();
        let hard_state = (self.random.below(6) == 0).then(|| {
            self.term += 1;
            let vote = (self.random.below(2) == 0).then_some(NodeId(1 + self.random.below(3)));
            HardState {
                term: Term(self.term),
                vote,
            }
        });
        let clock = (self.random.below(3) == 0).then(|| Clock {
            boot_id: [self.boots as u8; 16],
            boottime_ns: self.random.below(1 << 40),
            cluster_ns: self.random.below(1 << 60),
        });
        Batch {
            hard_state,
            entries,
            clock,
        }
    }

    fn write(&mut self) {
        let batch = self.batch();
        let (before, sync) = (self.states.len(), self.random.below(3) > 0);
        let mut state = self.state();
        if let Some(hard_state) = batch.hard_state {
            state.hard_state = hard_state;
            self.states.push(state.clone());
        }
        if let Some(clock) = batch.clock {
            state.clock = Some(clock);
            self.states.push(state.clone());
        }
        for entry in &batch.entries {
            state.put(entry);
            self.states.push(state.clone());
        }
        let (_, wal) = self.open.as_mut().expect("open");
        match wal.append(&batch) {
            Err(error) if error.kind == WalErrorKind::Full => self.states.truncate(before),
            result => {
                if self.went(result) && sync {
                    self.sync();
                }
            }
        }
    }

    fn sync(&mut self) {
        let (_, wal) = self.open.as_mut().expect("open");
        let result = wal.sync();
        if self.went(result) {
            self.states.drain(..self.states.len() - 1);
        }
    }

    /// Makes a snapshot of acknowledged entries, then compacts. A fault may end this at any step.
    fn snapshot(&mut self) {
        let (state, now) = (&self.states[0], &self.states[self.states.len() - 1]);
        // Committed entries are never replaced, so the snapshot covers only entries that are still in the log.
        let same = |entry: &&(Position, usize)| now.at(entry.0.index.0) == Some(entry.0);
        let newest = self
            .snapshots
            .iter()
            .flatten()
            .map(|position| position.index)
            .max();
        let Some(last) = state.entries.iter().take_while(same).last() else {
            return;
        };
        if newest.is_some_and(|newest| newest >= last.0.index) {
            return;
        }
        let metadata = support::metadata(last.0.index.0, last.0.term.0);
        self.save(&metadata);
    }

    /// Installs a snapshot from a leader that is ahead of the log or belongs to another history.
    fn install(&mut self) {
        self.sync();
        if self.open.is_none() {
            return;
        }
        self.term += 1;
        let ahead = self.random.below(30);
        let from = self.newest_snapshot();
        let metadata = support::metadata(from + 1 + ahead, self.term);
        self.save(&metadata);
    }

    fn save(&mut self, metadata: &SnapshotMetadata) {
        self.snapshots.insert(Some(metadata.position));
        let (_, wal) = self.open.as_mut().expect("open");
        let written = wal.begin_snapshot(metadata).and_then(|mut writer| {
            snapshot_bytes(metadata)
                .chunks(7_000)
                .try_for_each(|piece| writer.write(piece))?;
            writer.finish()
        });
        if let Err(error) = written {
            if error.what.contains("the power is gone") {
                return self.end(true);
            }
            if error.what.contains("I/O error") {
                // The sync of the snapshot failed. The file keeps its temporary name, and the log is not affected.
                self.snapshots.remove(&Some(metadata.position));
                return;
            }
            assert_eq!(
                error.kind,
                WalErrorKind::Full,
                "seed {}: {error}",
                self.seed
            );
            self.snapshots.remove(&Some(metadata.position));
            return;
        }
        self.snapshots = [Some(metadata.position)].into();
        let (_, wal) = self.open.as_mut().expect("open");
        let result = wal.compact(metadata);
        let conflict = self.state().after(Some(metadata.position)).is_empty()
            && self.state().last() != metadata.position;
        match result {
            Err(error) if error.kind == WalErrorKind::Full => self.end(false),
            result => {
                if self.went(result) && conflict {
                    let (base, entries) = (metadata.position, Vec::new());
                    self.states = vec![State {
                        base,
                        entries,
                        ..self.state()
                    }];
                }
            }
        }
    }

    fn close(&mut self) {
        let (_home, wal) = self.open.take().expect("open");
        match wal.close() {
            Ok(()) => {
                self.states.drain(..self.states.len() - 1);
            }
            Err(_) => self.disk.crash(),
        }
        self.boots += 1;
        if self.random.below(2) == 0 {
            drop(_home);
            self.disk.crash();
        }
    }

    /// Ends the process, with or without a crash of the machine.
    fn end(&mut self, power: bool) {
        if power {
            self.disk.crash();
            self.boots += 1;
        } else {
            self.disk.kill();
        }
        self.open = None;
    }
}

#[test]
fn what_comes_back_is_a_prefix_with_all_that_was_acknowledged() {
    for seed in 1..=SEEDS {
        World::new(seed).run();
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        let files = world.disk.files();
        let bytes: Vec<_> = files.iter().map(|path| world.disk.bytes(path)).collect();
        (world.disk.changes(), files, bytes)
    };
    assert!(run(3) == run(3));
    assert_ne!(run(3).0, run(4).0);
    assert_eq!(
        position(2, 1),
        Position {
            index: LogIndex(2),
            term: Term(1)
        }
    );
}
