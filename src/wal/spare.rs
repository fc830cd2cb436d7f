//! The segment after the active one, made ready before it is needed.
//!
//! The writer asks for it when it begins a segment; a helper allocates it under a temporary name,
//! syncs it, renames it and syncs the folder. When the writer gets to the end of the active
//! segment, all that is left to do is to open the file. The writer waits only if the helper has not
//! finished, and makes one itself if there is none (the disk was full) or it is too small.

use super::disk::Disk;
use super::home::Home;
use super::names::SegmentName;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A file of zeros under its final name, of no use until the log gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    pub name: SegmentName,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Making,
    Ready(Prepared),
}

/// `changed` is notified by the helper when it leaves `Making`; only the writer waits on it.
#[derive(Debug)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

/// The writer's hold on the next segment.
#[derive(Debug)]
pub(super) struct Spare(Arc<Slot>);

impl Spare {
    pub fn new(ready: Option<Prepared>) -> Spare {
        Spare(Arc::new(Slot {
            state: Mutex::new(ready.map_or(State::Missing, State::Ready)),
            changed: Condvar::new(),
        }))
    }

    /// Has one made beside the caller, unless there is one.
    pub fn order<D: Disk>(&self, home: &Home<D>, seq: u64, bytes: u64) {
        {
            let mut state = self.0.lock();
            if *state != State::Missing {
                return;
            }
            *state = State::Making;
        }
        // Made before the job is handed over: a job that is dropped unrun says so as well.
        let making = Making {
            slot: self.0.clone(),
            made: None,
        };
        let home = home.clone();
        home.disk().clone().background(Box::new(move || {
            let made = make(&home, seq, bytes).ok();
            // The directory's lock goes first: who has heard of the end may open it again.
            drop(home);
            making.end(made);
        }));
    }

    /// Whether a write that needs it now would wait.
    pub fn is_being_made(&self) -> bool {
        *self.0.lock() == State::Making
    }

    /// The segment if there is one, once it is known.
    pub fn ready(&self) -> Option<Prepared> {
        let mut state = self.0.lock();
        while *state == State::Making {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match *state {
            State::Ready(prepared) => Some(prepared),
            State::Missing | State::Making => None,
        }
    }

    pub fn set(&self, prepared: Option<Prepared>) {
        *self.0.lock() = prepared.map_or(State::Missing, State::Ready);
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the writer how the making ended, however it ended.
struct Making {
    slot: Arc<Slot>,
    made: Option<Prepared>,
}

impl Making {
    fn end(mut self, made: Option<Prepared>) {
        self.made = made;
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        *self.slot.lock() = self.made.map_or(State::Missing, State::Ready);
        self.slot.changed.notify_all();
    }
}

/// Makes the segment, durable with its name. When it fails, nothing is left but at most a file with
/// a temporary name.
pub(super) fn make<D: Disk>(home: &Home<D>, seq: u64, bytes: u64) -> io::Result<Prepared> {
    let disk = home.disk();
    let name = SegmentName {
        seq,
        salt: disk.random(),
    };
    let temporary = home.wal().join(name.temporary());
    disk.allocate(&temporary, bytes)?;
    home.stats().zeroed_bytes.fetch_add(bytes, Relaxed);
    let named = disk
        .rename(&temporary, &home.wal().join(name.file()))
        .and_then(|()| disk.sync_dir(home.wal()));
    if named.is_err() {
        // Whatever is left of it goes at the next start.
        let _ = disk.remove(&temporary);
    }
    named.map(|()| Prepared { name, bytes })
}
