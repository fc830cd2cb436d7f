//! The possible states of names and sectors after a crash.

use crate::random::Random;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) const SECTOR: usize = 512;
type Sector = [u8; SECTOR];
/// Number of states of one sector or name kept between two syncs. When it is reached, a new state replaces the last.
const STATES_MAX: usize = 6;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name with the states that it may have after a crash.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    pub synced: Option<Node>,
    /// States after the synced one, in order. A program sees the last one.
    pub later: Vec<Option<Node>>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Dir,
    File(Arc<Mutex<Inode>>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub id: u64,
    pub length: u64,
    pub synced_length: u64,
    /// A sector that was never written is zeros.
    pub sectors: BTreeMap<u64, States>,
}

/// A sector with the states that it may have after a crash.
#[derive(Debug, Clone)]
pub(super) struct States {
    synced: Sector,
    later: Vec<Sector>,
    /// A sync of the sector failed. The kernel considers it clean until it is written again.
    forgotten: bool,
}

/// How much unsynced data one crash keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mood {
    Nothing,
    Everything,
    Anything,
}

impl Name {
    pub fn now(&self) -> Option<&Node> {
        self.later.last().unwrap_or(&self.synced).as_ref()
    }

    pub fn set(&mut self, node: Option<Node>) {
        if self.later.len() == STATES_MAX {
            self.later.pop();
        }
        self.later.push(node);
    }

    pub fn sync(&mut self) {
        if let Some(now) = self.later.pop() {
            self.synced = now;
            self.later.clear();
        }
    }

    pub fn crash(&mut self, random: &mut Random, mood: Mood) {
        let kept = mood.choose(self.later.len(), random);
        if let Some(kept) = kept.checked_sub(1) {
            self.synced = self.later.swap_remove(kept);
        }
        self.later.clear();
    }
}

impl Mood {
    pub fn any(random: &mut Random) -> Mood {
        match random.below(6) {
            0 => Mood::Nothing,
            1 => Mood::Everything,
            _ => Mood::Anything,
        }
    }

    /// Number of later states that reached the disk.
    pub fn choose(self, later: usize, random: &mut Random) -> usize {
        match self {
            Mood::Nothing => 0,
            Mood::Everything => later,
            Mood::Anything => random.below(later as u64 + 1) as usize,
        }
    }
}

impl Inode {
    pub fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let count = (self.length.saturating_sub(offset) as usize).min(into.len());
        let into = &mut into[..count];
        into.fill(0);
        let end = offset + count as u64;
        for (&number, states) in self
            .sectors
            .range(offset / SECTOR as u64..end.div_ceil(SECTOR as u64))
        {
            let begin = number * SECTOR as u64;
            let (from, to) = (begin.max(offset), (begin + SECTOR as u64).min(end));
            let bytes = &states.now()[(from - begin) as usize..(to - begin) as usize];
            into[(from - offset) as usize..(to - offset) as usize].copy_from_slice(bytes);
        }
        count
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let inside = (at % SECTOR as u64) as usize;
            let count = (SECTOR - inside).min(bytes.len() - done);
            let states = self
                .sectors
                .entry(at / SECTOR as u64)
                .or_insert_with(States::zeros);
            states.write(inside, &bytes[done..done + count]);
            done += count;
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    pub fn sync(&mut self, from: u64, to: u64) {
        let range = from / SECTOR as u64..to.div_ceil(SECTOR as u64).max(from / SECTOR as u64);
        self.sectors
            .range_mut(range)
            .for_each(|(_, states)| states.sync());
        self.synced_length = self.length;
    }

    /// Some sectors are written. The kernel considers the others clean, too.
    pub fn fail_sync(&mut self, random: &mut Random) {
        for states in self.sectors.values_mut() {
            match random.coin() {
                true => states.sync(),
                false => states.forgotten = true,
            }
        }
    }

    pub fn crash(&mut self, random: &mut Random, mood: Mood) {
        self.sectors
            .values_mut()
            .for_each(|states| states.crash(random, mood));
        let grown = self.length.saturating_sub(self.synced_length);
        self.length = match mood {
            Mood::Nothing => self.synced_length,
            Mood::Everything => self.length,
            Mood::Anything => self.synced_length + random.below(grown + 1),
        };
        self.synced_length = self.length;
        let end = self.length;
        self.sectors
            .retain(|number, _| number * (SECTOR as u64) < end);
    }
}

impl States {
    pub fn zeros() -> States {
        States {
            synced: [0; SECTOR],
            later: Vec::new(),
            forgotten: false,
        }
    }

    pub fn now(&self) -> &Sector {
        self.later.last().unwrap_or(&self.synced)
    }

    pub fn write(&mut self, inside: usize, bytes: &[u8]) {
        let mut sector = *self.now();
        sector[inside..inside + bytes.len()].copy_from_slice(bytes);
        if self.later.len() == STATES_MAX {
            self.later.pop();
        }
        self.later.push(sector);
        self.forgotten = false;
    }

    pub fn sync(&mut self) {
        if !self.forgotten {
            self.synced = *self.now();
            self.later.clear();
        }
    }

    pub fn crash(&mut self, random: &mut Random, mood: Mood) {
        let kept = mood.choose(self.later.len(), random);
        if let Some(newest) = kept.checked_sub(1) {
            let older = if newest == 0 {
                self.synced
            } else {
                self.later[newest - 1]
            };
            self.synced = self.later[newest];
            if matches!(mood, Mood::Anything) && random.below(4) == 0 {
                let torn = random.below(SECTOR as u64) as usize;
                self.synced[torn..].copy_from_slice(&older[torn..]);
            }
        }
        self.later.clear();
        self.forgotten = false;
    }
}
