//! The key space: `/v2/keys` (spec §3–§11).

use super::Api;
use super::access::Access;
use super::answer::{self, ClusterId, Numbers};
use super::cors::Grant;
use super::counts::{Counts, Method};
use super::form::{Body, Form, Reading};
use super::params::Params;
use super::slices::{self, SLICE_BYTES};
use crate::auth::Right;
use crate::http1::{Answer, BodyState, Outbox, Reply, Request, Ticket};
use crate::replica::{Done, Effect, Failure, Reader, Waiter};
use crate::tree::error::INVALID_FORM;
use crate::tree::{Action, ApiError, Command, Event, EventAction, Key, Listing, TreeIndex};
use crate::watch::{Interest, Registered, View};
use std::sync::Arc;
use std::time::Instant;

const ALLOW: &str = "HEAD,GET,PUT,POST,DELETE";

/// Answers a request whose decoded, cleaned path is `/v2/keys` followed by `rest`.
///
/// As in the reference, a request with unreadable parameters is refused for that before its credentials matter.
pub fn handle(
    api: &Api,
    request: &Request<'_>,
    rest: &[u8],
    access: &Access,
    grant: Grant,
    reply: Reply<'_>,
) {
    if !matches!(request.method(), "HEAD" | "GET" | "PUT" | "POST" | "DELETE") {
        return reply.send(answer::method_not_allowed(ALLOW, &grant));
    }
    let refuse = |error: &ApiError| answer::error(error, &api.cluster, &grant);
    let progress = request.work().and_then(|work| work.downcast().ok());
    let form = match Form::read(request.query(), body_of(request), progress) {
        Ok(Reading::Whole(form)) => form,
        // A client that may do nothing must not keep this thread busy.
        Ok(Reading::Part(_)) if access.is_nobody() => {
            return reply.send(refuse(&ApiError::unauthorized()));
        }
        Ok(Reading::Part(progress)) => return reply.go_on(progress),
        Err(cause) => return reply.send(refuse(&ApiError::parameter(INVALID_FORM, cause))),
    };
    let is_get = request.method() == "GET";
    let params = match Params::check(&form, is_get) {
        Ok(params) => params,
        Err(error) => return reply.send(refuse(&error)),
    };
    let right = match request.method() {
        "GET" | "HEAD" => Right::Read,
        _ => Right::Write,
    };
    if !access.allows(rest, right, params.recursive) {
        return reply.send(refuse(&ApiError::unauthorized()));
    }
    let key = Key::new(rest);
    let counts = api.counts.of(reply.worker());
    if params.wait && !params.quorum {
        counts.watch();
        return watch(api, key, &params, &grant, reply);
    }
    let method = match request.method() {
        "GET" if params.quorum => Method::QGet,
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        _ => Method::Delete,
    };
    counts.received(method);
    let asked = reply.now();
    if matches!(method, Method::Get | Method::Head | Method::QGet) {
        let read = Read {
            key,
            recursive: params.recursive,
            method,
            asked,
        };
        return match method {
            Method::QGet => quorum_read(api, read, grant, reply),
            _ => read.answer(api, &api.hub.view(), &grant, reply),
        };
    }
    let waiter = WriteAnswer {
        ticket: reply.later(),
        cluster: api.cluster.clone(),
        grant,
        no_value: params.no_value_on_success,
        counts: api.counts.clone(),
        method,
        asked,
    };
    let command = command(request.method(), key, &params);
    api.replica.queue_write(&command, Box::new(waiter));
}

fn body_of<'a>(request: &Request<'a>) -> Body<'a> {
    if !matches!(request.method(), "PUT" | "POST") {
        return Body::Ignored;
    }
    let content_type = request.header("content-type");
    match request.body_state() {
        BodyState::Complete => Body::Complete {
            content_type,
            bytes: request.body(),
        },
        BodyState::TooLarge => Body::TooLarge { content_type },
    }
}

/// Determines the action of a write (spec §6).
fn command(method: &str, key: Key, params: &Params<'_>) -> Command {
    let compares = params.prev_value.is_some() || params.prev_index > 0;
    let action = match (method, params.prev_exist) {
        ("POST", _) => Action::CreateInOrder,
        ("PUT", Some(false)) => Action::Create,
        ("PUT", _) if compares => Action::CompareAndSwap,
        ("PUT", Some(true)) => Action::Update,
        ("PUT", None) => Action::Set,
        (_, _) if compares => Action::CompareAndDelete,
        (_, _) => Action::Delete,
    };
    let is_delete = method == "DELETE";
    let is_create = matches!(action, Action::Create | Action::CreateInOrder);
    Command {
        action,
        key,
        value: params
            .value
            .filter(|_| !is_delete)
            .unwrap_or_default()
            .into(),
        dir: params.dir,
        recursive: is_delete && params.recursive,
        ttl: params.ttl.filter(|_| !is_delete),
        refresh: params.refresh && !is_delete && !is_create,
        prev_value: params.prev_value.filter(|_| !is_create).map(Into::into),
        prev_index: Some(params.prev_index).filter(|&index| index > 0 && !is_create),
    }
}

// Writes

/// A client that waits for its write.
struct WriteAnswer {
    ticket: Ticket,
    cluster: ClusterId,
    grant: Grant,
    no_value: bool,
    counts: Arc<Counts>,
    method: Method,
    asked: Instant,
}

impl Waiter<Outbox> for WriteAnswer {
    fn done(self: Box<Self>, done: &Done, outbox: &mut Outbox) {
        let answer = match &done.effect {
            Effect::Event(applied) => {
                let took = done.at.saturating_duration_since(self.asked);
                self.counts.succeeded(self.method, took);
                if applied.event.bytes() > SLICE_BYTES && self.shows_nodes(&applied.event) {
                    return self.long_success(&applied.event, done, outbox);
                }
                self.success(&applied.event, done)
            }
            Effect::Refused(error) => {
                self.counts.failed(self.method, error.status());
                if error.cause.len() > SLICE_BYTES {
                    return self.long_error(error, outbox);
                }
                answer::error(error, &self.cluster, &self.grant)
            }
            Effect::Members(_) | Effect::Auth(_) => {
                unreachable!("a write to the keys changes nothing else")
            }
        };
        self.ticket.send_in(answer, outbox);
    }

    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        let error = ApiError::raft(failure.cause());
        self.counts.failed(self.method, error.status());
        let answer = answer::error(&error, &self.cluster, &self.grant);
        self.ticket.send_in(answer, outbox);
    }
}

impl WriteAnswer {
    fn success(&self, event: &Event, done: &Done) -> Answer {
        let mut body = Vec::with_capacity(256);
        if self.shows_nodes(event) {
            event.render(&mut body);
        } else {
            event.render_without_nodes(&mut body);
        }
        self.head(event, done).body(body)
    }

    /// The connection's worker renders a large event, because this is the raft thread.
    fn long_success(self, event: &Arc<Event>, done: &Done, outbox: &mut Outbox) {
        let (head, event) = (self.head(event, done), event.clone());
        let answer = move |reply: Reply<'_>| slices::send(reply, head, event.long_text());
        self.ticket.resume_in(Box::new(answer), outbox);
    }

    /// Like [`Self::long_success`], for a failed comparison of large values.
    fn long_error(self, error: &ApiError, outbox: &mut Outbox) {
        let head = answer::error_head(error, &self.cluster, &self.grant);
        let text = error.long_text();
        let answer = move |reply: Reply<'_>| slices::send(reply, head, text);
        self.ticket.resume_in(Box::new(answer), outbox);
    }

    fn head(&self, event: &Event, done: &Done) -> Answer {
        let numbers = Numbers {
            index: event.index,
            applied: done.applied,
            term: done.term,
        };
        answer::success(event.status(), &self.cluster, numbers, &self.grant)
    }

    fn shows_nodes(&self, event: &Event) -> bool {
        let removes = matches!(
            event.action,
            EventAction::Delete | EventAction::CompareAndDelete
        );
        removes || !self.no_value
    }
}

// Reads

/// A plain read. Listings are always sorted, so `sorted` has no effect.
struct Read {
    key: Key,
    recursive: bool,
    method: Method,
    asked: Instant,
}

impl Read {
    /// Answers from one version of the tree, on the worker's own thread.
    fn answer(self, api: &Api, view: &Arc<View>, grant: &Grant, reply: Reply<'_>) {
        let now = api.estimate.at(api.clock.since_boot());
        let counts = api.counts.of(reply.worker());
        let node = match view.tree.get(&self.key) {
            Ok(node) => node,
            Err(error) => {
                counts.read(false, self.recursive);
                counts.failed(self.method, error.status());
                return reply.send(answer::error(&error, &api.cluster, grant));
            }
        };
        counts.read(true, self.recursive);
        counts.answered(self.method, self.asked, reply.now());
        let head = answer::success(200, &api.cluster, numbers(view), grant);
        let mut body = Vec::with_capacity(256);
        if node.render_file(&self.key, now, &mut body, SLICE_BYTES) {
            return reply.send(head.body(body));
        }
        let listing = Listing::new(&view.tree, &self.key, self.recursive, now);
        let listing = listing.expect("the node was found in this very version");
        slices::send_whole(reply, head, listing, body);
    }
}

fn numbers(view: &View) -> Numbers {
    Numbers {
        index: view.tree.index(),
        applied: view.applied,
        term: view.term,
    }
}

/// A quorum read (spec §4.4, `quorum`). In a cluster of one voter it is a plain read.
fn quorum_read(api: &Api, read: Read, grant: Grant, reply: Reply<'_>) {
    if api.replica.status().is_view_linearizable() {
        // The view must be taken after the question.
        return read.answer(api, &api.hub.view(), &grant, reply);
    }
    let reader = QuorumAnswer {
        ticket: reply.later(),
        api: api.shared(),
        grant,
        read,
    };
    api.replica.queue_read(Box::new(reader));
}

struct QuorumAnswer {
    ticket: Ticket,
    api: Arc<Api>,
    grant: Grant,
    read: Read,
}

impl Reader<Outbox> for QuorumAnswer {
    /// The connection's worker renders the body, because it may be long, and this is the raft thread.
    fn ready(self: Box<Self>, view: &Arc<View>, outbox: &mut Outbox) {
        let QuorumAnswer {
            ticket,
            api,
            grant,
            read,
        } = *self;
        let view = view.clone();
        ticket.resume_in(
            Box::new(move |reply| read.answer(&api, &view, &grant, reply)),
            outbox,
        );
    }

    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        let error = ApiError::raft(failure.cause());
        self.api.counts.failed(self.read.method, error.status());
        let answer = answer::error(&error, &self.api.cluster, &self.grant);
        self.ticket.send_in(answer, outbox);
    }
}

// Watches

/// Reports how far back `waitIndex` reaches now, so that a client can predict a 401. (This is a difference from the
/// reference, documented in README.)
const FIRST_KEPT: &str = "X-Edgetcd-First-Index";

fn with_first_kept(answer: Answer, view: &View) -> Answer {
    match view.tree.history().start() {
        Some(first) => answer.number(FIRST_KEPT, first.0),
        None => answer,
    }
}

/// A long poll (spec §9).
fn watch(api: &Api, key: Key, params: &Params<'_>, grant: &Grant, reply: Reply<'_>) {
    let from = TreeIndex(params.wait_index);
    let interest = Interest {
        key,
        recursive: params.recursive,
        stream: params.stream,
        from,
    };
    let mut reply = Some(reply);
    let registered = api.hub.register(&interest, |token, view| {
        let reply = reply.take().expect("a poll parks once");
        let head = answer::success(200, &api.cluster, numbers(view), grant);
        reply.park(with_first_kept(head, view), api.hub.clone(), token)
    });
    let Some(reply) = reply else { return };
    match registered {
        Ok(Registered::Parked) => unreachable!("a parked poll has taken its reply"),
        Ok(Registered::Hit(event, view)) => hit(api, interest, &event, &view, grant, reply),
        Err(error) => {
            api.counts.failed(Method::Get, error.status());
            let answer = answer::error(&error, &api.cluster, grant);
            reply.send(with_first_kept(answer, &api.hub.view()));
        }
    }
}

/// The history contains the event. A stream stays open after it, and never receives another event. The reference does
/// so, and clients that know it open a new stream (spec §9, quirk).
fn hit(api: &Api, interest: Interest, event: &Event, view: &View, grant: &Grant, reply: Reply<'_>) {
    let head = answer::success(200, &api.cluster, numbers(view), grant);
    let head = with_first_kept(head, view);
    let is_long = event.bytes() > SLICE_BYTES;
    match (interest.stream, is_long) {
        (false, true) => return slices::send(reply, head, event.long_text()),
        (true, true) => return stream_long(api, interest, head, event, reply),
        _ => {}
    }
    let mut body = Vec::with_capacity(256);
    event.render(&mut body);
    if !interest.stream {
        return reply.send(head.body(body));
    }
    api.hub.park_mute(&interest, |token| {
        let parked = reply.park(head, api.hub.clone(), token);
        let mut outbox = Outbox::default();
        parked.chunk_in(body.into(), &mut outbox);
        outbox.flush();
        parked
    });
}

/// A stream that begins with a large event.
fn stream_long(api: &Api, interest: Interest, head: Answer, event: &Event, reply: Reply<'_>) {
    let hub = api.hub.clone();
    slices::measure(reply, event.long_text(), move |reply, length, body| {
        hub.park_mute(&interest, |token| {
            reply.park_after(head, hub.clone(), token, length, Box::new(body))
        });
    });
}
