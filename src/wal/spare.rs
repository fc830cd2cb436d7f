//! Prepares the segment after the active one before it is needed.
//!
//! The writer requests it when it begins a segment. A background thread allocates the file under a temporary name,
//! syncs it, renames it and syncs the folder. At the end of the active segment the writer only has to open the file.
//! The writer waits only if the background thread has not finished. It creates a segment itself if there is none (the
//! disk was full) or if the prepared one is too small.

use super::data_dir::DataDir;
use super::disk::Disk;
use super::names::SegmentName;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A file of zeros under its final name. The log does not use it yet.
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

/// The background thread notifies `changed` when the state is no longer `Making`. Only the writer waits for it.
#[derive(Debug)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

/// The writer's handle to the next segment.
#[derive(Debug)]
pub(super) struct Spare(Arc<Slot>);

impl Spare {
    pub fn new(ready: Option<Prepared>) -> Spare {
        Spare(Arc::new(Slot {
            state: Mutex::new(ready.map_or(State::Missing, State::Ready)),
            changed: Condvar::new(),
        }))
    }

    /// Starts to create a segment in the background, unless there already is one.
    pub fn order<D: Disk>(&self, data_dir: &DataDir<D>, seq: u64, bytes: u64) {
        {
            let mut state = self.0.lock();
            if *state != State::Missing {
                return;
            }
            *state = State::Making;
        }
        // Created before the job is passed on: if the job is dropped without running, `Making` still reports the end.
        let making = Making {
            slot: self.0.clone(),
            made: None,
        };
        let data_dir = data_dir.clone();
        data_dir.disk().clone().background(Box::new(move || {
            let made = make(&data_dir, seq, bytes).ok();
            // The directory's lock is released first: after the end is reported, another process may open the
            // directory.
            drop(data_dir);
            making.end(made);
        }));
    }

    /// Whether a write that needs the segment now would have to wait.
    pub fn is_being_made(&self) -> bool {
        *self.0.lock() == State::Making
    }

    /// The segment if there is one. Waits until a running preparation has ended.
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

/// Reports to the writer how the preparation ended, even if its thread panicked.
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

/// Creates the segment and makes it and its name durable. If this fails, at most a file with a temporary name is left.
pub(super) fn make<D: Disk>(data_dir: &DataDir<D>, seq: u64, bytes: u64) -> io::Result<Prepared> {
    let disk = data_dir.disk();
    let name = SegmentName {
        seq,
        salt: disk.random(),
    };
    let temporary = data_dir.wal().join(name.temporary());
    disk.allocate(&temporary, bytes)?;
    data_dir.stats().zeroed_bytes.fetch_add(bytes, Relaxed);
    let named = disk
        .rename(&temporary, &data_dir.wal().join(name.file()))
        .and_then(|()| disk.sync_dir(data_dir.wal()));
    if named.is_err() {
        // If this fails too, the next start removes the file.
        let _ = disk.remove(&temporary);
    }
    named.map(|()| Prepared { name, bytes })
}
