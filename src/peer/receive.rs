//! Receives a snapshot: writes it to a temporary file and decodes it into a state at the same time, slice by slice.
//!
//! A member receives one snapshot at a time. A snapshot of a newer leader, or one that the same member starts again,
//! replaces it: the older one's sender may have ended long ago, and this end may not have noticed.
//!
//! The sender may keep more events for watchers than this member, and this member may have the smaller disk. If the
//! disk has no space for the snapshot as the sender has it, the snapshot is decoded into the state only. The state
//! forgets the events that this member does not keep. When all slices have arrived, a snapshot of that state is
//! written.

use super::common::Common;
use super::connection::Connection;
use super::frame::{FrameReader, Kind};
use super::handshake::Handshake;
use super::transfer::{encode_position, plain};
use crate::engine;
use crate::engine::plausible::{self, Writer};
use crate::engine::state::{Loader, State};
use crate::raft::{NodeId, Position, SnapshotMetadata, Term};
use crate::replica::peers::{FromPeers, Received};
use crate::threads;
use crate::wal::{Disk, SnapshotWriter, Snapshots, WalError, WalErrorKind};
use crossbeam_channel::{after, bounded, select};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Limit for a frame. Snapshot metadata with thousands of members fits, and slices are far smaller.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// How long a newer snapshot waits for the thread of the older one to end.
const GIVE_WAY: Duration = Duration::from_secs(5);

/// The snapshot that is being received, if there is one. `freed` is notified when it has ended. Only threads that want
/// to receive the next snapshot wait on it.
pub(super) struct Receiver<D: Disk> {
    common: Arc<Common>,
    snapshots: Snapshots<D>,
    history_events: usize,
    history_bytes: usize,
    place: Mutex<Option<Place>>,
    freed: Condvar,
}

struct Place {
    from: NodeId,
    term: Term,
    socket: Arc<TcpStream>,
}

impl Place {
    fn gives_way(&self, from: NodeId, term: Term) -> bool {
        term > self.term || from == self.from
    }
}

impl<D: Disk> Receiver<D> {
    pub fn new(
        common: Arc<Common>,
        snapshots: Snapshots<D>,
        history_events: usize,
        history_bytes: usize,
    ) -> Arc<Receiver<D>> {
        Arc::new(Receiver {
            common,
            snapshots,
            history_events,
            history_bytes,
            place: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    /// Whether a snapshot from this leader would be accepted now.
    pub fn has_room(&self, from: NodeId, term: Term) -> bool {
        let place = self.place();
        place
            .as_ref()
            .is_none_or(|older| older.gives_way(from, term))
    }

    /// Whether a snapshot is being received.
    pub fn is_taken(&self) -> bool {
        self.place().is_some()
    }

    /// The thread `snap-in-ID`: owns the socket and the file.
    pub fn run(&self, handshake: &Handshake, connection: Connection, early: &[u8]) {
        let (from, term) = (handshake.from, handshake.term.unwrap_or_default());
        // The snapshot that is being received is replaced only by a connection that its sender vouches for.
        if self.is_taken() && !self.common.vouches(handshake) {
            return self.common.log_unvouched(from, connection.remote());
        }
        let Some(_taken) = self.take_place(from, term, &connection) else {
            return log::warn!(
                "refused a snapshot from {:x}: another one is being received",
                from.0
            );
        };
        let reader = self.common.reader_of(from, FRAME_BYTES_MAX, early);
        let incoming = Incoming {
            receiver: self,
            connection,
            reader,
            from,
            term,
        };
        if let Err(why) = incoming.run() {
            log::warn!("discarded a snapshot from {:x}: {why}", from.0);
        }
    }

    fn take_place(
        &self,
        from: NodeId,
        term: Term,
        connection: &Connection,
    ) -> Option<Taken<'_, D>> {
        let mut place = self.place();
        if let Some(older) = &*place {
            if !older.gives_way(from, term) {
                return None;
            }
            let _ = older.socket.shutdown(Shutdown::Both);
            let free = self
                .freed
                .wait_timeout_while(place, GIVE_WAY, |place| place.is_some());
            place = free.unwrap_or_else(PoisonError::into_inner).0;
        }
        if place.is_some() {
            return None;
        }
        *place = Some(Place {
            from,
            term,
            socket: connection.handle(),
        });
        Some(Taken(self))
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees the place when the thread ends.
struct Taken<'a, D: Disk>(&'a Receiver<D>);

impl<D: Disk> Drop for Taken<'_, D> {
    fn drop(&mut self) {
        *self.0.place() = None;
        self.0.freed.notify_all();
    }
}

/// One snapshot that is being received.
struct Incoming<'a, D: Disk> {
    receiver: &'a Receiver<D>,
    connection: Connection,
    reader: FrameReader,
    from: NodeId,
    term: Term,
}

/// A snapshot that has arrived completely.
struct Whole<D: Disk> {
    metadata: SnapshotMetadata,
    state: State,
    bytes: u64,
    writer: SnapshotWriter<D>,
}

impl<D: Disk> Incoming<'_, D> {
    /// Returns an error, with the reason, if the snapshot was not installed.
    fn run(mut self) -> Result<(), String> {
        let common = &self.receiver.common;
        common
            .tune(self.connection.socket(), true)
            .map_err(|error| error.to_string())?;
        let whole = self.receive()?;
        let Some(position) = self.hand_over(whole)? else {
            return Err("it was no longer needed, or its installation took too long".into());
        };
        let mut answer = Vec::new();
        let origin = self.receiver.common.origin();
        origin.frame(Kind::Installed, &mut answer, |out| {
            encode_position(position, out)
        });
        if let Err(error) = self
            .connection
            .write_all(&answer)
            .and_then(|()| self.connection.flush())
        {
            log::warn!(
                "installed a snapshot from {:x}, but cannot confirm it to that member: {}",
                self.from.0,
                plain(error)
            );
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Whole<D>, String> {
        let (bytes, metadata) = self.begin()?;
        log::info!(
            "receiving the snapshot {} ({bytes} bytes) from {:x}",
            metadata.position,
            self.from.0
        );
        let receiver = self.receiver;
        let mut copy = Copy::begin(&receiver.snapshots, &metadata, bytes);
        let loader = Loader::new(receiver.history_events);
        let mut loader = loader.limit_history(receiver.history_bytes);
        let mut received = 0;
        while let Some(slice) = self.next_slice()? {
            received += slice.len() as u64;
            copy.write(slice);
            let pushed = loader.push(slice);
            pushed.map_err(|error| format!("its state cannot be decoded: {}", error.0))?;
        }
        if received != bytes {
            return Err(format!("received {received} bytes of {bytes}"));
        }
        let state = loader.finish(metadata.position.index);
        let state = state.map_err(|error| format!("its state cannot be decoded: {}", error.0))?;
        let checked = plausible::check(&state, &metadata, Writer::Member);
        checked.map_err(|error| format!("its state is implausible: {}", error.0))?;
        if state.members.cluster != self.receiver.common.me.cluster {
            return Err("it belongs to another cluster".into());
        }
        let (writer, bytes) = match copy.seal() {
            Some(writer) => (writer, bytes),
            None => self.write_state(&metadata, &state)?,
        };
        Ok(Whole {
            metadata,
            state,
            bytes,
            writer,
        })
    }

    /// Writes a snapshot of the state. Returns its size in bytes of state.
    fn write_state(
        &self,
        metadata: &SnapshotMetadata,
        state: &State,
    ) -> Result<(SnapshotWriter<D>, u64), String> {
        let mut writer = on_disk(self.receiver.snapshots.begin(metadata))?;
        let mut bytes = 0;
        let saved = state.save(|slice| {
            bytes += slice.len() as u64;
            writer.write(slice)
        });
        on_disk(saved.and_then(|()| writer.seal()))?;
        Ok((writer, bytes))
    }

    /// Reads the first frame: the size of the state and the snapshot metadata.
    fn begin(&mut self) -> Result<(u64, SnapshotMetadata), String> {
        let stall = self.receiver.common.timing.stall;
        let (kind, payload) = next(&mut self.reader, &mut self.connection, stall)?;
        let Some((bytes, metadata)) = payload
            .split_first_chunk()
            .filter(|_| kind == Kind::Metadata)
        else {
            return Err("it does not begin with its metadata".into());
        };
        let metadata = SnapshotMetadata::decode(metadata)
            .map_err(|error| format!("its metadata is {error}"))?;
        Ok((u64::from_le_bytes(*bytes), metadata))
    }

    /// None: the snapshot is complete.
    fn next_slice(&mut self) -> Result<Option<&[u8]>, String> {
        let stall = self.receiver.common.timing.stall;
        match next(&mut self.reader, &mut self.connection, stall)? {
            (Kind::Slice, slice) => Ok(Some(slice)),
            (Kind::End, []) => Ok(None),
            (kind, _) => Err(format!("a frame of kind {kind:?} between its slices")),
        }
    }

    /// Hands the snapshot to raft. Returns its position once it is installed, or None if it was not used.
    fn hand_over(&self, whole: Whole<D>) -> Result<Option<Position>, String> {
        let (installed, result) = bounded(1);
        let writer = whole.writer;
        let received = Received {
            incoming: engine::Incoming {
                from: self.from,
                term: self.term,
                metadata: whole.metadata,
                state: whole.state,
                bytes: whole.bytes,
            },
            finish: Box::new(move || writer.finish()),
            installed,
        };
        let common = &self.receiver.common;
        let event = FromPeers::Snapshot(Box::new(received));
        let handed = common.events.send(event);
        handed.map_err(|_| "this member is stopping".to_owned())?;
        Ok(select! {
            recv(result) -> position => position.ok(),
            recv(common.resources.stopped()) -> _ => None,
            recv(after(common.timing.stall)) -> _ => None,
        })
    }
}

/// The file of a snapshot that is being received. None: the disk has no space for it.
struct Copy<D: Disk>(Option<SnapshotWriter<D>>);

impl<D: Disk> Copy<D> {
    fn begin(snapshots: &Snapshots<D>, metadata: &SnapshotMetadata, bytes: u64) -> Copy<D> {
        let has_room = snapshots.has_room(metadata, bytes);
        Copy(if has_room {
            or_full(snapshots.begin(metadata))
        } else {
            None
        })
    }

    /// Appends a slice. A file that does not fit is removed immediately.
    fn write(&mut self, slice: &[u8]) {
        let written = self.0.as_mut().map(|writer| or_full(writer.write(slice)));
        if written == Some(None) {
            self.0 = None;
        }
    }

    /// The file, durable under its temporary name.
    fn seal(self) -> Option<SnapshotWriter<D>> {
        let mut writer = self.0?;
        or_full(writer.seal()).map(|()| writer)
    }
}

/// Reads the next frame. `stall` is the longest time without a byte.
fn next<'a>(
    reader: &'a mut FrameReader,
    connection: &mut Connection,
    stall: Duration,
) -> Result<(Kind, &'a [u8]), String> {
    while !reader.has_frame().map_err(|damage| damage.to_string())? {
        match reader.fill_in_time(connection, Some(stall)) {
            Ok(0) => return Err("its sender closed the connection".into()),
            Ok(_) => {}
            Err(error) => return Err(plain(error).to_string()),
        }
    }
    let frame = reader.next().map_err(|damage| damage.to_string())?;
    frame.ok_or_else(|| unreachable!("has_frame found a whole frame"))
}

/// A full disk ends this transfer. Any other failure of the disk ends the process.
fn on_disk<T>(result: Result<T, WalError>) -> Result<T, String> {
    result.map_err(|error| match error.kind {
        WalErrorKind::Full => error.to_string(),
        _ => threads::fatal(&error.to_string()),
    })
}

/// None: the disk is full.
fn or_full<T>(result: Result<T, WalError>) -> Option<T> {
    on_disk(result).ok()
}
