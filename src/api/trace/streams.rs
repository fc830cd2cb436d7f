//! The clients that follow the trace, and the thread that serves them.

use super::{STREAMS_MAX, too_many};
use crate::api::cors::Grant;
use crate::http1::{Answer, Gone, Outbox, Parked, Reply};
use crate::replica::trace_log::{TraceLog, TraceReader};
use crate::threads;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A stream gets pieces of about this many bytes: 2000 records.
const PIECE_BYTES: usize = 256 << 10;

/// New records are collected for this time, so that many become one piece.
const PACE: Duration = Duration::from_millis(20);

/// How long the thread waits for records before it checks whether its clients still exist.
const PATIENCE: Duration = Duration::from_secs(5);

/// The streams. `state` is locked only for a moment, and never while lines are rendered.
pub struct Streams {
    log: Arc<TraceLog>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Streams that the thread has not seen yet.
    new: Vec<Stream>,
    /// Tokens of streams whose clients have disconnected.
    gone: Vec<u64>,
    /// Number of all streams.
    count: usize,
    last_token: u64,
    is_running: bool,
}

struct Stream {
    token: u64,
    parked: Parked,
    reader: TraceReader,
    /// The lines before the first records, until they were sent.
    begin: String,
    /// The piece that was sent last. While others hold it too, the client has not received all of it.
    piece: Option<Arc<[u8]>>,
}

impl Streams {
    /// No streams.
    pub fn new(log: Arc<TraceLog>) -> Arc<Streams> {
        Arc::new(Streams {
            log,
            state: Mutex::default(),
        })
    }

    /// Number of clients.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// Adds a client, whose stream begins with the lines `begin`.
    pub(super) fn add(
        self: &Arc<Streams>,
        reader: TraceReader,
        begin: String,
        head: Answer,
        grant: &Grant,
        reply: Reply<'_>,
    ) {
        let mut state = self.lock();
        if state.count >= STREAMS_MAX {
            return reply.send(too_many(grant));
        }
        if !state.is_running
            && let Err(error) = self.start()
        {
            log::warn!("cannot start the thread for a trace: {error}");
            return reply.send(too_many(grant));
        }
        state.is_running = true;
        state.count += 1;
        state.last_token += 1;
        let token = state.last_token;
        let parked = reply.park(head, Arc::clone(self) as Arc<dyn Gone>, token);
        state.new.push(Stream {
            token,
            parked,
            reader,
            begin,
            piece: None,
        });
        drop(state);
        self.log.wake();
    }

    /// It waits for the lock that the caller holds.
    fn start(self: &Arc<Streams>) -> std::io::Result<()> {
        let streams = Arc::clone(self);
        threads::critical("trace", move || streams.serve()).map(drop)
    }

    /// The thread: serves the streams until there are none.
    fn serve(&self) {
        let mut streams = Vec::new();
        let mut outbox = Outbox::default();
        let mut mark = self.log.mark();
        while self.take_changes(&mut streams) {
            for stream in &mut streams {
                stream.go_on(&mut outbox);
            }
            outbox.flush();
            self.log.wait(mark, PATIENCE);
            std::thread::sleep(PACE);
            mark = self.log.mark();
        }
    }

    /// Takes over new streams and drops those whose clients have gone. Returns false if the thread must end.
    fn take_changes(&self, streams: &mut Vec<Stream>) -> bool {
        let mut state = self.lock();
        streams.append(&mut state.new);
        let gone = std::mem::take(&mut state.gone);
        streams.retain(|stream| !gone.contains(&stream.token));
        state.count = streams.len();
        state.is_running = !streams.is_empty();
        state.is_running
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gone for Streams {
    fn gone(&self, token: u64) {
        let mut state = self.lock();
        state.gone.push(token);
        state.count = state.count.saturating_sub(1);
        drop(state);
        self.log.wake();
    }
}

impl Stream {
    /// Sends the next piece, unless the client has not received the previous one.
    fn go_on(&mut self, outbox: &mut Outbox) {
        let has_received = |piece: &Arc<[u8]>| Arc::strong_count(piece) == 1;
        if !self.piece.as_ref().is_none_or(has_received) {
            return;
        }
        let mut lines = std::mem::take(&mut self.begin);
        self.reader.render(PIECE_BYTES, &mut lines);
        if lines.is_empty() {
            return;
        }
        let piece: Arc<[u8]> = lines.into_bytes().into();
        self.piece = Some(Arc::clone(&piece));
        self.parked.chunk_in(piece, outbox);
    }
}
