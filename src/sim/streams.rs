//! Snapshots on their way from a leader to a member that is far behind.
//!
//! A stream carries the bytes of a file. It may be lost, arrive late or arrive twice (if the sender stopped waiting for a
//! slow one and sent another). The sender's engine receives one report about its end. The receiver keeps the file until
//! its engine installs or discards it, as the server's raft thread does.

use super::cluster::{Checked, Cluster, Event, Stream};
use super::fault_profile::ELECTION;
use super::identity::Link;
use super::node::{Incoming, snapshot_bytes, state_from};
use super::trace::Happening;
use crate::engine::{self, PeerEvent};
use crate::raft::{NodeId, Position, Term};
use crate::wal::WalErrorKind;
use std::sync::Arc;

/// A sender without a reply gives up its stream after this time.
const PATIENCE: u64 = 4 * ELECTION;

impl Cluster {
    /// Sends the newest snapshot in the name of the leader of `term`.
    pub(super) fn send_snapshot(&mut self, id: NodeId, to: NodeId, term: Term) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let newest = life.log.wal().snapshots().newest();
        let read = newest.and_then(|newest| {
            newest
                .map(|mut reader| Ok((reader.metadata().clone(), snapshot_bytes(&mut reader)?)))
                .transpose()
        });
        let Some(read) = self.disk_result(id, read)? else {
            return Ok(());
        };
        let Some((metadata, bytes)) = read else {
            return Err(format!("snapshots: n{} has none to send", id.0));
        };
        self.streams += 1;
        let stream = self.streams;
        if let Some(life) = self.life(id) {
            life.streams.insert(to, stream);
        }
        let (at, lost) = (metadata.position, self.loses(id, to));
        self.note(|_| Happening::SnapshotSent {
            from: id,
            to,
            at,
            lost,
        });
        self.end_stream(id, to, stream, None, PATIENCE);
        if lost {
            return Ok(());
        }
        let stream = Stream {
            from: id,
            to,
            stream,
            term,
            metadata,
            bytes: Arc::new(bytes),
        };
        if self.repaired.is_none() && self.random.one_in(4) {
            let late = self.random.within((ELECTION / 10, PATIENCE));
            self.after(late, Event::Stream(Box::new(stream.clone())));
        }
        let takes = 3 * self.delay();
        self.after(takes, Event::Stream(Box::new(stream)));
        Ok(())
    }

    fn end_stream(
        &mut self,
        at: NodeId,
        to: NodeId,
        stream: u64,
        installed: Option<Position>,
        wait: u64,
    ) {
        let end = Event::StreamEnd {
            at,
            to,
            stream,
            installed,
        };
        self.after(wait, end);
    }

    /// A snapshot has arrived completely.
    pub(super) fn receive_snapshot(&mut self, stream: Stream) -> Checked {
        match self.link(stream.from, stream.to) {
            Link::Closed | Link::Removed => {
                self.tell_sender(stream.to, stream.from, stream.stream, None);
                return Ok(());
            }
            Link::Newcomer => self.introduce(stream.from, stream.to)?,
            Link::Open => {}
        }
        self.take_stream(stream)
    }

    /// Passes a snapshot to the engine.
    pub(super) fn take_stream(&mut self, stream: Stream) -> Checked {
        let Stream {
            from,
            to,
            term,
            metadata,
            bytes,
            stream,
        } = stream;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        if life.incoming.is_some() {
            self.tell_sender(to, from, stream, None);
            return Ok(());
        }
        let written = life
            .log
            .wal()
            .snapshots()
            .begin(&metadata)
            .and_then(|mut writer| {
                writer.write(&bytes)?;
                writer.seal()?;
                Ok(writer)
            });
        if matches!(&written, Err(error) if error.kind == WalErrorKind::Full)
            && self.node(to).disk.has_power()
        {
            self.tell_sender(to, from, stream, None);
            return Ok(());
        }
        let Some(writer) = self.disk_result(to, written)? else {
            return Ok(());
        };
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        life.incoming = Some(Incoming {
            writer: Some(writer),
            from,
            stream,
        });
        let state = state_from(&bytes, metadata.position.index);
        let incoming = engine::Incoming {
            from,
            term,
            metadata,
            state,
            bytes: bytes.len() as u64,
        };
        self.peers(to, PeerEvent::Snapshot(Box::new(incoming)))?;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        // The engine does not use the snapshot. Dropping it removes the file.
        let wanted = |incoming: &mut Incoming| incoming.writer.is_some();
        if life.incoming.take_if(wanted).is_some() {
            self.tell_sender(to, from, stream, None);
        }
        Ok(())
    }

    /// The received snapshot has replaced the log.
    pub(super) fn installed(&mut self, id: NodeId, at: Position) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if let Some(Incoming { from, stream, .. }) = life.incoming.take() {
            self.tell_sender(id, from, stream, Some(at));
        }
        Ok(())
    }

    fn tell_sender(&mut self, by: NodeId, to: NodeId, stream: u64, installed: Option<Position>) {
        if !self.loses(by, to) {
            let back = 2 * self.delay();
            self.end_stream(to, by, stream, installed, back);
        }
    }

    /// Reports the end of a stream to the engine, once.
    pub(super) fn snapshot_sent(
        &mut self,
        id: NodeId,
        to: NodeId,
        stream: u64,
        installed: Option<Position>,
    ) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        if life.streams.get(&to) != Some(&stream) {
            return Ok(());
        }
        life.streams.remove(&to);
        self.peers(id, PeerEvent::SnapshotSent { to, installed })
    }
}
