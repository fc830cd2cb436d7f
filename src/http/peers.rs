//! The endpoints of the peer port, which a node that wants to join reads first (spec §14).

use super::answer;
use super::cors::Grant;
use super::{Api, process};
use crate::door::{Answer, Reply, Request};
use crate::engine::members::Member;
use serde_json::{Map, Value, json};

/// Handles `GET /members` and `/version`; everything else is 404.
pub fn handle(api: &Api, request: &Request<'_>, reply: Reply<'_>) {
    let grant = Grant::Nothing;
    match (request.method(), request.path()) {
        ("GET", b"/members") => reply.send(members(api)),
        (_, b"/members") => reply.send(answer::method_not_allowed("GET", &grant)),
        (_, b"/version") => process::version(request, &grant, reply),
        _ => reply.send(answer::not_found(&grant)),
    }
}

fn members(api: &Api) -> Answer {
    let list: Vec<Value> = api.replica.status().members().iter().map(member).collect();
    let body = format!("{}\n", Value::from(list));
    answer::json(200, body.into_bytes(), &Grant::Nothing)
        .header("X-Etcd-Cluster-Id", api.cluster.text())
}

/// The id is a number. Fields that the member has not published yet are left out.
fn member(member: &Member) -> Value {
    let mut shown = Map::new();
    shown.insert("id".into(), json!(member.id));
    shown.insert("peerURLs".into(), json!(member.peer_urls));
    if !member.name.is_empty() {
        shown.insert("name".into(), json!(member.name));
    }
    if !member.client_urls.is_empty() {
        shown.insert("clientURLs".into(), json!(member.client_urls));
    }
    shown.into()
}
