//! The endpoints about the process: `/version`, `/health`, `/debug/vars`, `/config/local/log` (spec §14).

use super::answer;
use super::cors::Grant;
use super::{Api, stats};
use crate::ETCD_VERSION;
use crate::http1::{Answer, Outbox, Reply, Request, Ticket};
use crate::logging;
use crate::replica::{Failure, Reader};
use crate::tree::json;
use crate::watch::View;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const GET: &str = "GET";

/// `/version`.
pub fn version(request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed(GET, grant));
    }
    let body = format!(r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{ETCD_VERSION}"}}"#);
    reply.send(answer::json(200, body.into_bytes(), grant));
}

/// `/health`. The node is healthy if there is a leader, if a quorum read succeeds, and if the disk accepts writes. The
/// disk accepts writes if it has space (the reference is unhealthy too while it refuses writes), and if it has synced
/// all data within the request timeout.
///
/// This check writes nothing, so it does not notice a disk that hangs while there are no writes. `?probe=true` writes
/// one record and waits until it is synced, at most for the request timeout.
pub fn health(api: &Api, request: &Request<'_>, grant: Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed(GET, &grant));
    }
    let status = api.replica.status();
    let now = api.clock.now().monotonic;
    if status.leader().is_none() || status.disk_full() || status.is_disk_stuck(now) {
        return reply.send(unhealthy(&grant));
    }
    let ticket = reply.later();
    let health = Health { ticket, grant };
    match asks_to_probe(request.query()) {
        true => api.replica.probe(Box::new(Probe {
            api: api.shared(),
            health,
        })),
        false => api.replica.read(Box::new(health)),
    }
}

/// Ignores all other parameters, like the reference.
fn asks_to_probe(query: Option<&[u8]>) -> bool {
    let mut pairs = query.unwrap_or_default().split(|&byte| byte == b'&');
    pairs.any(|pair| matches!(pair, b"probe" | b"probe=true" | b"probe=1"))
}

/// A health check that waits for the disk first, then for the quorum read.
struct Probe {
    api: Arc<Api>,
    health: Health,
}

impl Reader<Outbox> for Probe {
    fn ready(self: Box<Self>, _: &Arc<View>, _: &mut Outbox) {
        self.api.replica.read(Box::new(self.health));
    }

    fn failed(self: Box<Self>, failure: Failure, outbox: &mut Outbox) {
        Box::new(self.health).failed(failure, outbox);
    }
}

/// A node whose quorum read takes longer is unhealthy (spec §14).
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

struct Health {
    ticket: Ticket,
    grant: Grant,
}

impl Reader<Outbox> for Health {
    fn ready(self: Box<Self>, _: &Arc<View>, outbox: &mut Outbox) {
        let answer = Answer::new(200).header("Content-Type", answer::TEXT);
        let answer = self
            .grant
            .onto(answer.body(br#"{"health":"true"}"#.to_vec()));
        self.ticket.send_in(answer, outbox);
    }

    fn failed(self: Box<Self>, _: Failure, outbox: &mut Outbox) {
        self.ticket.send_in(unhealthy(&self.grant), outbox);
    }

    fn patience(&self) -> Option<Duration> {
        Some(HEALTH_TIMEOUT)
    }
}

fn unhealthy(grant: &Grant) -> Answer {
    answer::text(503, "{\"health\":\"false\"}\n", grant)
}

/// `/debug/vars`: one variable per line, in the reference's format.
pub fn vars(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed(GET, grant));
    }
    let command: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let lines: Vec<String> = [
        ("cmdline", json!(command)),
        (
            "file_descriptor_limit",
            json!(crate::http1::descriptor_limit()),
        ),
        ("memstats", memory()),
        ("raft.status", raft(api)),
    ]
    .iter()
    .map(|(name, value)| format!("\"{name}\": {value}"))
    .collect();
    let body = format!("{{\n{}\n}}\n", lines.join(",\n"));
    let answer = Answer::new(200).header("Content-Type", "application/json; charset=utf-8");
    reply.send(grant.onto(answer.body(body.into_bytes())));
}

/// In bytes, with the reference's names for the two values that mean the same here.
fn memory() -> Value {
    let usage = crate::process::read();
    json!({ "Sys": usage.virtual_bytes, "HeapInuse": usage.resident_bytes })
}

fn raft(api: &Api) -> Value {
    let status = api.replica.status();
    let hex = |id: u64| format!("{id:x}");
    json!({
        "id": hex(status.id().0),
        "term": status.term().0,
        "commit": status.commit().0,
        "applied": status.applied().0,
        "lead": status.leader().map_or_else(|| "0".into(), |id| hex(id.0)),
        "raftState": stats::role(status.role()),
        "startTime": stats::rfc3339(api.info.started),
    })
}

/// A longer body cannot contain a level name.
const LOG_LEVEL_BYTES_MAX: usize = 4 << 10;

/// The name in a body `{"Level":"INFO"}`. The reference reads one JSON value and ignores what follows. `null` counts as
/// an empty object, or an empty name.
fn level_name(body: &str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(body);
    let fields = match Value::deserialize(&mut reader).ok()? {
        Value::Object(fields) => fields,
        Value::Null => return Some(String::new()),
        _ => return None,
    };
    let mut named = fields
        .into_iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("level"));
    match named.next() {
        None | Some((_, Value::Null)) => Some(String::new()),
        Some((_, Value::String(name))) => Some(name),
        Some(_) => None,
    }
}

/// `PUT /config/local/log` with `{"Level":"DEBUG"}`.
pub fn log_level(request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "PUT" {
        return reply.send(answer::method_not_allowed("PUT", grant));
    }
    let body = match request.body() {
        body if body.len() <= LOG_LEVEL_BYTES_MAX => json::readable(body),
        _ => "".into(),
    };
    let Some(name) = level_name(&body) else {
        return reply.send(answer::message(400, "Invalid json body", grant));
    };
    match logging::etcd_level(&name.to_uppercase()) {
        Some(level) => {
            logging::set_level(level);
            reply.send(grant.onto(Answer::new(204)));
        }
        None => reply.send(answer::message(
            400,
            format!("Invalid log level {name}"),
            grant,
        )),
    }
}
