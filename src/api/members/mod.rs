//! The members API: `/v2/members` and `/v2/machines` (spec §13). This file contains the read part.

mod change;

use super::Api;
use super::answer::{self, ClusterId};
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
            reply.send(with_cluster(&api.cluster, answer));
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
        _ => with_cluster(&api.cluster, answer::message(404, "Not found", grant)),
    }
}

fn list(api: &Api, grant: &Grant) -> Answer {
    let members = api.replica.status().members();
    line(
        api,
        &List {
            members: members.iter().collect(),
        },
        grant,
    )
}

#[derive(serde::Serialize)]
struct List<'a> {
    members: Vec<&'a Member>,
}

fn leader(api: &Api, grant: &Grant) -> Answer {
    let status = api.replica.status();
    let members = status.members();
    match status.leader().and_then(|id| members.get(id)) {
        Some(member) => line(api, member, grant),
        None => with_cluster(&api.cluster, answer::message(503, "During election", grant)),
    }
}

/// A JSON body with a newline at the end, as in all successful responses of this API.
fn line(api: &Api, value: &impl serde::Serialize, grant: &Grant) -> Answer {
    let mut body = crate::tree::json::to_vec(value).expect("members are plain data");
    body.push(b'\n');
    with_cluster(&api.cluster, answer::json(200, body, grant))
}

fn with_cluster(cluster: &ClusterId, answer: Answer) -> Answer {
    answer.header("X-Etcd-Cluster-Id", cluster.text())
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
