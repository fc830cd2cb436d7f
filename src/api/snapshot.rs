//! `GET /edgetcd/snapshot`: all keys at one index, as a backup file. This endpoint is our own; the reference does not
//! have it.
//!
//! The body has the format of a snapshot file in the data directory: the state from which a member starts, with a
//! checksum every 64 KiB and an end marker that shows that the file is complete. `edgetcdctl snapshot save` downloads,
//! checks and stores it. `curl -o FILE` works too; then `edgetcdctl snapshot check FILE` checks it.
//!
//! | query | the state is |
//! |---|---|
//! | none | confirmed by a majority: it contains everything that was acknowledged before the request |
//! | `local=true` | what this member has applied: for clusters that have lost their majority |
//!
//! | header | value |
//! |---|---|
//! | `X-Etcd-Index`, `X-Raft-Index`, `X-Raft-Term`, `X-Etcd-Cluster-Id` | as in every response about keys |
//! | `X-Edgetcd-Keys`, `X-Edgetcd-Directories` | their number in the backup, including hidden ones |
//! | `Content-Length` | exact: the state is encoded once before, to measure it |
//!
//! | status | reason |
//! |---|---|
//! | 405 | any method other than GET |
//! | 500, error 300 | no majority has confirmed the state |
//! | 503 with `Retry-After` | [`SNAPSHOTS_MAX`] backups are being sent already |
//!
//! # Costs
//!
//! The raft thread clones the state, which copies a few pointers, and continues. The connection's worker encodes the
//! state, 64 KiB at a time. Between two slices it serves other connections, and it encodes only as fast as the client
//! reads. So the server writes nothing to a disk, and no thread waits. Per client it needs memory for one slice, and
//! for the parts of the tree that were replaced since the clone: at most the size of the tree, if all of it is
//! rewritten meanwhile. Therefore the number of backups is limited. A client that reads nothing for ten minutes is
//! disconnected, as for any response. A client that reads less than 64 KiB per second loses its slot to another client,
//! but not before 30 s ([`Slots`]).
//!
//! The response contains all keys and all password hashes. So while authentication is enabled, it needs the role
//! `root`.

mod slots;

pub use slots::Slots;

use self::slots::Slot;
use super::Api;
use super::answer;
use super::cors::Grant;
use super::form::{Body, Form};
use crate::engine::state::Encoder;
use crate::http1::{Answer, Outbox, Reply, Request, Slices, Ticket};
use crate::raft::Term;
use crate::replica::{Copier, Failure, Reader, Task};
use crate::tree::ApiError;
use crate::tree::error::{INVALID_FIELD, INVALID_FORM};
use crate::wal::{Disk, RealDisk, SliceEncoder};
use crate::watch::View;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Maximum number of backups at a time: each may hold a version of the tree.
pub const SNAPSHOTS_MAX: usize = 2;

/// Seconds a client should wait if all slots are in use.
const RETRY_AFTER: u64 = 5;

/// The state is measured and sent in slices of about this many bytes.
const SLICE_BYTES: usize = 64 << 10;

/// The exact path.
pub const PATH: &[u8] = b"/edgetcd/snapshot";

/// Sends the newest state.
pub fn handle(api: &Api, request: &Request<'_>, grant: Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", &grant));
    }
    let local = match is_local(request) {
        Ok(local) => local,
        Err(error) => return reply.send(answer::error(&error, &api.cluster, &grant)),
    };
    let Some(slot) = api.snapshots.take(Instant::now()) else {
        return reply.send(too_many(&grant));
    };
    let ticket = reply.later();
    let asking = Box::new(Asking {
        ticket,
        api: api.shared(),
        grant,
        slot,
    });
    match local {
        true => api.replica.copy(asking),
        false => api.replica.read(asking),
    }
}

/// Longer queries are refused.
const QUERY_BYTES_MAX: usize = 64 << 10;

fn is_local(request: &Request<'_>) -> Result<bool, ApiError> {
    let query = request.query().unwrap_or_default();
    if query.len() > QUERY_BYTES_MAX {
        return Err(ApiError::parameter(INVALID_FORM, "the query is too long"));
    }
    let form = Form::parse(Some(query), Body::Ignored)
        .map_err(|cause| ApiError::parameter(INVALID_FORM, cause))?;
    match form.first("local") {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(ApiError::parameter(
            INVALID_FIELD,
            r#"invalid value for "local""#,
        )),
    }
}

fn too_many(grant: &Grant) -> Answer {
    let body = format!(
        "503 Service Unavailable: {SNAPSHOTS_MAX} snapshots are being sent already; try again when one of \
         them has ended, or ask another member\n"
    );
    answer::text(503, &body, grant).number("Retry-After", RETRY_AFTER)
}

/// A client that waits: first for a majority's confirmation, then for the raft thread's copy.
struct Asking {
    ticket: Ticket,
    api: Arc<Api>,
    grant: Grant,
    slot: Slot,
}

impl Asking {
    fn refuse(self, failure: Failure, outbox: &mut Outbox) {
        let error = ApiError::raft(failure.cause());
        let answer = answer::error(&error, &self.api.cluster, &self.grant);
        self.ticket.send_in(answer, outbox);
    }
}

impl Reader<Outbox> for Asking {
    /// The view contains no members and no snapshot metadata. So the raft thread is asked for a copy. Its state may be
    /// newer by now.
    fn ready(self: Box<Self>, _: &Arc<View>, _: &mut Outbox) {
        let replica = self.api.replica.clone();
        replica.copy(self);
    }

    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        self.refuse(failure, outbox);
    }
}

impl Copier<Outbox> for Asking {
    fn ready(self: Box<Self>, copy: Task, term: Term, outbox: &mut Outbox) {
        let Asking {
            ticket,
            api,
            grant,
            slot,
        } = *self;
        let begin = move |reply: Reply<'_>| {
            let head = head(&api, &copy, term, &grant);
            Measuring::new(head, copy, slot).go_on(reply);
        };
        ticket.resume_in(Box::new(begin), outbox);
    }

    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        self.refuse(failure, outbox);
    }
}

fn head(api: &Api, copy: &Task, term: Term, grant: &Grant) -> Answer {
    let head = Answer::new(200)
        .header("Content-Type", "application/octet-stream")
        .header("X-Etcd-Cluster-Id", api.cluster.text())
        .number("X-Etcd-Index", copy.state.tree.index().0)
        .number("X-Raft-Index", copy.metadata.position.index.0)
        .number("X-Raft-Term", term.0);
    grant.onto(head)
}

/// A state that is encoded to measure its size, one slice at a time, so that the worker can serve other connections in
/// between.
struct Measuring {
    head: Answer,
    copy: Task,
    /// The part that is not measured yet.
    rest: Encoder,
    bytes: u64,
    slice: Vec<u8>,
    slot: Slot,
}

impl Measuring {
    fn new(head: Answer, copy: Task, slot: Slot) -> Measuring {
        Measuring {
            head,
            rest: Encoder::new(&copy.state),
            copy,
            bytes: 0,
            slice: Vec::new(),
            slot,
        }
    }

    fn go_on(mut self, reply: Reply<'_>) {
        self.slice.clear();
        let more = self.rest.next(&mut self.slice);
        self.bytes += self.slice.len() as u64;
        if !more {
            return self.send(reply);
        }
        let mut outbox = Outbox::default();
        let again = Box::new(move |reply: Reply<'_>| self.go_on(reply));
        reply.later().resume_in(again, &mut outbox);
        outbox.flush();
    }

    fn send(self, reply: Reply<'_>) {
        let census = self.rest.census();
        let head = self
            .head
            .number("X-Edgetcd-Keys", census.files)
            .number("X-Edgetcd-Directories", census.dirs);
        let length = SliceEncoder::length(&self.copy.metadata, self.bytes);
        let mut begin = Vec::new();
        let salt = RealDisk::default().random();
        let position = self.copy.metadata.position;
        log::info!(
            "sending a backup of {} keys at {position}, {length} bytes",
            census.files
        );
        let body = Sending {
            left: length,
            slices: SliceEncoder::begin(salt, &self.copy.metadata, &mut begin),
            begin,
            piece: self.slice,
            slot: self.slot,
        };
        body.slot
            .begin(Encoder::new(&self.copy.state), Instant::now());
        reply.stream_from(head, length, Box::new(body));
    }
}

/// A state that is encoded, with checksums, as fast as the client reads.
struct Sending {
    slices: SliceEncoder,
    /// The bytes before the state, until they were sent.
    begin: Vec<u8>,
    piece: Vec<u8>,
    left: u64,
    /// Contains the state, so that another request can end this transfer.
    slot: Slot,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.left > 0 && !self.slot.is_cut() {
            log::warn!(
                "aborted a backup: its client has not read the last {} bytes",
                self.left
            );
        }
    }
}

impl Slices for Sending {
    fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> io::Result<bool> {
        let begin = out.len();
        let more = self.fill(out, at_least)?;
        self.left = self.left.saturating_sub((out.len() - begin) as u64);
        Ok(more)
    }
}

impl Sending {
    fn fill(&mut self, out: &mut Vec<u8>, at_least: usize) -> io::Result<bool> {
        let enough = out.len() + at_least.min(SLICE_BYTES);
        out.append(&mut self.begin);
        while out.len() < enough {
            self.piece.clear();
            let more = self.slot.next(&mut self.piece)?;
            self.slices.write(&self.piece, out);
            if !more {
                self.slices.end(out);
                return Ok(false);
            }
        }
        Ok(true)
    }
}
