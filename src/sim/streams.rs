//! Snapshots on their way from a leader to a member that is far behind.
//!
//! A stream carries the bytes of a file. It may be lost, come late or come twice (the sender gave up on one
//! that was only slow). Its end is told to the sender's core once, whatever becomes of it.

use super::any_core::term;
use super::cluster::{Checked, Cluster, Event, Stream};
use super::node::snapshot_bytes;
use super::trace::Happening;
use super::weather::ELECTION;
use crate::raft::{Input, LogIndex, NodeId, Position};
use std::sync::Arc;

/// A sender that hears nothing of its stream gives up on it.
const PATIENCE: u64 = 4 * ELECTION;

impl Cluster {
    /// The core wants a snapshot sent: the newest there is, or one made now.
    pub(super) fn send_snapshot(&mut self, id: NodeId, to: NodeId) -> Checked {
        let fresh = self.random.one_in(3);
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let newest = life.wal.snapshots().newest();
        let Some(newest) = self.disk_result(id, newest)? else {
            return Ok(());
        };
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let can = super::driver::can_snapshot(life.core.as_ref(), life.state.applied);
        if newest.is_some() && !(fresh && can) {
            return self.stream_snapshot(id, to);
        }
        if !can {
            return self.end_later(id, to);
        }
        life.wanted.push(to);
        self.snapshot_now(id);
        Ok(())
    }

    /// There is nothing to send yet.
    fn end_later(&mut self, id: NodeId, to: NodeId) -> Checked {
        let stream = self.open_stream(id, to);
        let end = Event::StreamEnd {
            at: id,
            to,
            stream,
            installed: None,
        };
        self.after(1000, end);
        Ok(())
    }

    fn open_stream(&mut self, id: NodeId, to: NodeId) -> u64 {
        self.streams += 1;
        let stream = self.streams;
        if let Some(life) = self.life(id) {
            life.streams.insert(to, stream);
        }
        stream
    }

    /// Sends the newest snapshot.
    pub(super) fn stream_snapshot(&mut self, id: NodeId, to: NodeId) -> Checked {
        let Some(life) = self.life(id) else {
            return Ok(());
        };
        let now_in = term(life.core.as_ref());
        let leads = life.core.is_leader();
        let read = life.wal.snapshots().newest().and_then(|newest| {
            newest
                .map(|mut reader| Ok((reader.mark().clone(), snapshot_bytes(&mut reader)?)))
                .transpose()
        });
        let Some(read) = self.disk_result(id, read)? else {
            return Ok(());
        };
        let Some((mark, bytes)) = read.filter(|_| leads) else {
            return self.end_later(id, to);
        };
        let stream = self.open_stream(id, to);
        let (at, lost) = (mark.position, self.loses(id, to));
        self.note(|_| Happening::SnapshotSent {
            from: id,
            to,
            at,
            lost,
        });
        self.after(
            PATIENCE,
            Event::StreamEnd {
                at: id,
                to,
                stream,
                installed: None,
            },
        );
        if lost {
            return Ok(());
        }
        let stream = Stream {
            from: id,
            to,
            stream,
            term: now_in,
            mark,
            bytes: Arc::new(bytes),
        };
        if self.mended.is_none() && self.random.one_in(4) {
            let late = self.random.within((ELECTION / 10, PATIENCE));
            self.after(late, Event::Stream(stream.clone()));
        }
        let takes = 3 * self.delay();
        self.after(takes, Event::Stream(stream));
        Ok(())
    }

    /// A snapshot has come whole.
    pub(super) fn receive_snapshot(&mut self, stream: Stream) -> Checked {
        let Stream {
            from,
            to,
            term,
            mark,
            bytes,
            stream,
        } = stream;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let written = life.wal.begin_snapshot(&mark).and_then(|mut writer| {
            writer.write(&bytes)?;
            writer.seal()?;
            Ok(writer)
        });
        let Some(writer) = self.disk_result(to, written)? else {
            return Ok(());
        };
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        life.incoming = Some((writer, bytes));
        let at = mark.position;
        self.input(to, Input::Snapshot { from, term, mark })?;
        let Some(life) = self.life(to) else {
            return Ok(());
        };
        let installed = life.incoming.take().is_none().then_some(at);
        if self.loses(to, from) {
            return Ok(());
        }
        let back = 2 * self.delay();
        self.after(
            back,
            Event::StreamEnd {
                at: from,
                to,
                stream,
                installed,
            },
        );
        Ok(())
    }

    /// The end of a stream, told to the core the first time it is heard of.
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
        let installed = installed.filter(|position| position.index > LogIndex(0));
        self.input(id, Input::SnapshotSent { to, installed })
            .map(drop)
    }
}
