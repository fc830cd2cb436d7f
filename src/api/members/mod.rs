//! The members API: `/v2/members` and `/v2/machines` (spec §13). This file contains the read part.

mod change;

use super::Api;
use super::answer;
use super::cors::Grant;
use crate::engine::members::Member;
use crate::http1::{Answer, Reply, Request};

const MEMBERS_ALLOW: &str = "GET,POST,DELETE,PUT";
const MACHINES_ALLOW: &str = "GET,HEAD";

/// Handles `/v2/members` followed by `rest`, which is empty or begins with a slash.
pub fn handle(api: &Api, request: &Request<'_>, rest: &[u8], grant: &Grant, reply: Reply<'_>) {
    let id = rest.strip_prefix(b"/").unwrap_or(rest);
    match request.method() {
        "GET" => reply.send(get(api, rest, grant)),
        "POST" => change::add(api, request, grant, reply),
        "PUT" | "DELETE" if id.is_empty() => {
            let answer = answer::text(405, "Method Not Allowed\n", grant);
            reply.send(api.cluster.onto(answer));
        }
        "PUT" => change::update(api, request, id, grant, reply),
        "DELETE" => change::remove(api, id, grant, reply),
        _ => reply.send(answer::method_not_allowed(MEMBERS_ALLOW, grant)),
    }
}

fn get(api: &Api, rest: &[u8], grant: &Grant) -> Answer {
    match rest {
        b"" | b"/" => list(api, grant),
        b"/leader" | b"/leader/" => leader(api, grant),
        _ => api.cluster.onto(answer::message(404, "Not found", grant)),
    }
}

fn list(api: &Api, grant: &Grant) -> Answer {
    let members = api.replica.status().members();
    let members = members.iter().collect();
    let answer = answer::json_line(200, &List { members }, grant);
    api.cluster.onto(answer)
}

#[derive(serde::Serialize)]
struct List<'a> {
    members: Vec<&'a Member>,
}

fn leader(api: &Api, grant: &Grant) -> Answer {
    let status = api.replica.status();
    let members = status.members();
    match status.leader().and_then(|id| members.get(id)) {
        Some(member) => api.cluster.onto(answer::json_line(200, member, grant)),
        None => api
            .cluster
            .onto(answer::message(503, "During election", grant)),
    }
}

/// `/v2/machines`: all client URLs, sorted.
pub fn machines(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    if !matches!(request.method(), "GET" | "HEAD") {
        return reply.send(answer::method_not_allowed(MACHINES_ALLOW, grant));
    }
    let body = api.replica.status().members().client_urls().join(", ");
    let answer = Answer::new(200)
        .header("Content-Type", answer::TEXT)
        .body(body.into_bytes());
    reply.send(grant.onto(answer));
}
