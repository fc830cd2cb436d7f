//! `/v2/auth`: the answers while there is no authentication (spec §15).
//!
//! Authentication is off and cannot be enabled yet. Queries are answered correctly: it is disabled, there are no users,
//! and the only role is the built-in `root`. Changes are refused with 501, so that nobody believes to be protected.

use super::Api;
use super::answer;
use super::cors::Grant;
use crate::http1::{Answer, Reply, Request};

const ONE: &str = "GET,PUT,DELETE";
const ALL: &str = "GET";
const ROOT: &str = r#"{"role":"root","permissions":{"kv":{"read":["/*"],"write":["/*"]}}}"#;

/// `/v2/auth` and `rest`.
pub fn handle(api: &Api, request: &Request<'_>, rest: &[u8], grant: &Grant, reply: Reply<'_>) {
    let (page, name) = match rest {
        b"/enable" => ("enable", None),
        b"/users" | b"/users/" => ("users", None),
        b"/roles" | b"/roles/" => ("roles", None),
        _ => match rest.strip_prefix(b"/users/") {
            Some(name) => ("users", Some(name)),
            None => match rest.strip_prefix(b"/roles/") {
                Some(name) => ("roles", Some(name)),
                None => return reply.send(answer::not_found(grant)),
            },
        },
    };
    let allow = if name.is_some() || page == "enable" {
        ONE
    } else {
        ALL
    };
    if !allow.split(',').any(|method| method == request.method()) {
        return reply.send(answer::method_not_allowed(allow, grant));
    }
    let answer = if request.method() == "GET" {
        get(page, name, grant)
    } else {
        refused(grant)
    };
    reply.send(answer.header("X-Etcd-Cluster-Id", api.cluster.text()));
}

fn get(page: &str, name: Option<&[u8]>, grant: &Grant) -> Answer {
    let line = |text: &str| answer::json(200, format!("{text}\n").into_bytes(), grant);
    match (page, name) {
        ("enable", _) => line(r#"{"enabled":false}"#),
        ("users", None) => line(r#"{"users":null}"#),
        ("roles", None) => line(&format!(r#"{{"roles":[{ROOT}]}}"#)),
        ("roles", Some(b"root")) => line(ROOT),
        (_, Some(name)) if name.contains(&b'/') => answer::message(400, "Invalid path", grant),
        (page, name) => {
            let kind: &[u8] = if page == "users" { b"User" } else { b"Role" };
            let name = name.unwrap_or_default();
            let message = [b"auth: ", kind, b" ", name, b" does not exist."].concat();
            answer::message(404, message, grant)
        }
    }
}

fn refused(grant: &Grant) -> Answer {
    answer::message(501, "auth: not available in this version of edgetcd", grant)
}
