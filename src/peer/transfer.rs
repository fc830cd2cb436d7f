//! Sends a snapshot. Each transfer has its own thread and connection, so that it never delays a heartbeat.
//!
//! | frame | payload |
//! |---|---|
//! | metadata | size of the state in bytes (8), the snapshot metadata as raft encodes it |
//! | slice | bytes of the state, as stored in the file |
//! | end | empty |
//! | installed, from the receiver | term (8), index (8) |
//!
//! Only one slice of the file is in memory at a time. After an interruption, the transfer starts from the beginning
//! when raft requests it again.

use super::common::Common;
use super::connection::Connection;
use super::dial::{Call, Failure};
use super::frame::Kind;
use super::handshake::SNAPSHOT_PATH;
use crate::raft::{LogIndex, NodeId, Position, Term};
use crate::wal::{Disk, SnapshotReader, Snapshots, WalError, WalErrorKind};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Payload of an `Installed` frame.
pub(super) const POSITION_BYTES: usize = 16;

/// How many stall times the receiver may take to sync the snapshot and raft to install it.
const ANSWER_STALLS: u32 = 3;

/// Snapshots that are being sent, at most one for each member.
pub(super) struct Transfers<D: Disk> {
    common: Arc<Common>,
    snapshots: Snapshots<D>,
    running: Mutex<BTreeSet<NodeId>>,
}

impl<D: Disk> Transfers<D> {
    pub fn new(common: Arc<Common>, snapshots: Snapshots<D>) -> Arc<Transfers<D>> {
        Arc::new(Transfers {
            common,
            snapshots,
            running: Mutex::default(),
        })
    }

    /// Starts a transfer. It always ends with one `SnapshotSent`.
    pub fn begin(self: &Arc<Self>, to: NodeId, term: Term) {
        if !self.running().insert(to) {
            return self.common.event_queue.snapshot_sent(to, None);
        }
        let ending = Ending {
            transfers: Arc::clone(self),
            to,
            installed: None,
        };
        let name = format!("snap-out-{:x}", to.0);
        let begun = self
            .common
            .resources
            .connection(&name, move || ending.reach(term));
        if let Err(error) = begun {
            log::warn!("cannot start the thread {name}: {error}");
        }
    }

    fn send(&self, to: NodeId, term: Term) -> Result<Position, String> {
        let newest = self.snapshots.newest().map_err(|error| error.to_string())?;
        let mut snapshot = newest.ok_or("this member has no snapshot yet")?;
        let peer = self.common.peer(to).ok_or("it is not a member")?;
        let call = Call {
            common: &self.common,
            to,
            urls: &peer.urls(),
            path: SNAPSHOT_PATH,
            term: Some(term),
            token: peer.token,
            given_up: &|| self.common.resources.is_stopping(),
        };
        let (mut connection, url) = call.dial().map_err(|failure| match failure {
            Failure::NobodyThere => "no process listens at its peer URLs".to_owned(),
            Failure::Failed(why) | Failure::Refused(why) | Failure::Removed(why) => why,
        })?;
        let (position, bytes) = (snapshot.metadata().position, snapshot.bytes());
        log::info!(
            "sending the snapshot {position} ({bytes} bytes) to {} at {url}",
            peer.label()
        );
        self.stream(&mut connection, &mut snapshot)
            .map_err(|trouble| match trouble {
                Trouble::Socket(why) => why,
                Trouble::Snapshot(error) => {
                    if error.kind == WalErrorKind::Damaged {
                        self.snapshots.set_aside(position);
                        self.common.event_queue.snapshot_unreadable();
                    }
                    format!("{error}; making a new snapshot")
                }
            })?;
        let installed = self.await_answer(&mut connection, to)?;
        log::info!("{} has installed the snapshot {installed}", peer.label());
        Ok(installed)
    }

    fn stream(
        &self,
        connection: &mut Connection,
        snapshot: &mut SnapshotReader<D>,
    ) -> Result<(), Trouble> {
        let origin = self.common.origin();
        let mut frame = Vec::new();
        origin.frame(Kind::Metadata, &mut frame, |out| {
            out.extend_from_slice(&snapshot.bytes().to_le_bytes());
            snapshot.metadata().encode(out);
        });
        write(connection, &frame).map_err(Trouble::Socket)?;
        let mut slice = Vec::new();
        while snapshot.next(&mut slice).map_err(Trouble::Snapshot)? {
            frame.clear();
            origin.frame(Kind::Slice, &mut frame, |out| out.extend_from_slice(&slice));
            slice.clear();
            write(connection, &frame).map_err(Trouble::Socket)?;
        }
        frame.clear();
        origin.frame(Kind::End, &mut frame, |_| {});
        write(connection, &frame).map_err(Trouble::Socket)
    }

    fn await_answer(&self, connection: &mut Connection, to: NodeId) -> Result<Position, String> {
        let patience = ANSWER_STALLS * self.common.timing.stall;
        let mut reader = self.common.reader_of(to, POSITION_BYTES, &[]);
        loop {
            if let Some((kind, payload)) = reader.next().map_err(|damage| damage.to_string())? {
                let position = decode_position(payload).filter(|_| kind == Kind::Installed);
                return position.ok_or_else(|| "its answer is malformed".into());
            }
            match reader.fill_in_time(connection, Some(patience)) {
                Ok(0) => {
                    return Err("the receiver has not installed it; see the receiver's log".into());
                }
                Ok(_) => {}
                Err(error) => return Err(format!("no answer: {}", plain(error))),
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a snapshot could not be sent completely.
enum Trouble {
    Socket(String),
    Snapshot(WalError),
}

/// Its drop reports the result of a transfer, for every cause of its end.
struct Ending<D: Disk> {
    transfers: Arc<Transfers<D>>,
    to: NodeId,
    installed: Option<Position>,
}

impl<D: Disk> Ending<D> {
    /// The thread `snap-out-ID`.
    fn reach(mut self, term: Term) {
        match self.transfers.send(self.to, term) {
            Ok(position) => self.installed = Some(position),
            Err(why) => log::warn!("cannot send a snapshot to {:x}: {why}", self.to.0),
        }
    }
}

impl<D: Disk> Drop for Ending<D> {
    fn drop(&mut self) {
        let Ending {
            transfers,
            to,
            installed,
        } = self;
        transfers.running().remove(to);
        if let Some(peer) = transfers.common.peer(*to) {
            peer.gauges.snapshot(installed.is_some());
        }
        transfers.common.event_queue.snapshot_sent(*to, *installed);
    }
}

/// Every write that accepts a byte is progress. The socket's own time limit ends a write that accepts none.
fn write(connection: &mut Connection, frame: &[u8]) -> Result<(), String> {
    connection
        .write_all(frame)
        .and_then(|()| connection.flush())
        .map_err(|error| plain(error).to_string())
}

/// Replaces the error of a socket's time limit with a readable one.
pub(super) fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(
            ErrorKind::TimedOut,
            "the connection has transferred no byte for too long",
        ),
        _ => error,
    }
}

pub(super) fn encode_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.term.0.to_le_bytes());
    out.extend_from_slice(&position.index.0.to_le_bytes());
}

fn decode_position(bytes: &[u8]) -> Option<Position> {
    let (term, index) = bytes.split_first_chunk::<8>()?;
    Some(Position {
        term: Term(u64::from_le_bytes(*term)),
        index: LogIndex(u64::from_le_bytes(index.try_into().ok()?)),
    })
}
