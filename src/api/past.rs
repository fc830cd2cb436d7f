//! `/edgetcd/history`: the last changes of a key, with the values before them. This endpoint is our own; the reference
//! does not have it.
//!
//! The history that serves watches with `waitIndex` contains for each change the node after it and the node before it.
//! So an earlier value of a key can be read, and a deleted key can be written again, for as long as the history reaches
//! back: a thousand changes of all keys together, or less if they are large.
//!
//! | query | meaning |
//! |---|---|
//! | `key` | the key or directory, as a clean path, default `/` |
//! | `recursive=true` | also the changes of everything below it |
//! | `removed=true` | only removals: deletions and expiries |
//! | `limit` | number of changes, 1 to 100, default 50 |
//! | `before` | only changes with a smaller index: `next` of the page before |
//!
//! The answer is `{"index":N,"first":N,"changes":[…],"next":N}`: the index of the tree, the first index in the history (0
//! if it is empty), the changes, newest first, and if there may be more, the value of `before` for the next page. A
//! change has `index`, `action`, `key`, and the nodes `after` and `before` it, if they existed. A node has `dir` if it is
//! a directory, otherwise `bytes` and `value`. A `value` of more than 4 KiB is left out: `GET
//! /v2/keys/KEY?wait=true&waitIndex=INDEX` returns it. A removed directory does not list what was below it.
//!
//! While authentication is enabled, a request needs the right to read the key, or everything below it.

use super::Api;
use super::access::Access;
use super::answer;
use super::cors::Grant;
use super::query::Query;
use super::search::escaped;
use super::target::is_clean;
use crate::auth::Right;
use crate::http1::{Reply, Request};
use crate::tree::{ApiError, Event, EventAction, Key, NodeView, TreeIndex, json};
use std::sync::Arc;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: u64 = 100;
/// In bytes. A page has at most 200 values, each of which is escaped on the worker's thread.
const VALUE_BYTES_MAX: usize = 4 << 10;

struct Wanted {
    key: Vec<u8>,
    recursive: bool,
    removed: bool,
    limit: usize,
    before: TreeIndex,
}

/// Answers from the newest view.
pub fn handle(api: &Api, request: &Request<'_>, access: &Access, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", grant));
    }
    let wanted = match wanted(&Query::new(request.query())) {
        Ok(wanted) => wanted,
        Err(message) => return reply.send(answer::message(400, message, grant)),
    };
    let is_allowed = match wanted.recursive {
        true => access.may_read_all(&wanted.key),
        false => access.allows(&wanted.key, Right::Read, false),
    };
    if !is_allowed {
        let refusal = answer::error(&ApiError::unauthorized(), &api.cluster, grant);
        return reply.send(refusal);
    }
    let body = page(api, &wanted);
    reply.send(answer::json(200, body, grant).header("Cache-Control", "no-store"));
}

fn wanted(query: &Query<'_>) -> Result<Wanted, String> {
    let limit = query.number("limit", 1, LIMIT_MAX)?;
    let before = query.number("before", 0, u64::MAX)?;
    let key = query.first("key").unwrap_or_else(|| b"/".to_vec());
    // The right to read is that of the text as it is, and the tree would clean it.
    if !is_clean(&key) {
        return Err(
            "key is a clean path: it begins with a slash, and has no empty name, . or .. in it"
                .to_owned(),
        );
    }
    Ok(Wanted {
        key,
        recursive: query.flag("recursive")?,
        removed: query.flag("removed")?,
        limit: limit.map_or(LIMIT_DEFAULT, |limit| limit as usize),
        before: TreeIndex(before.unwrap_or(u64::MAX)),
    })
}

fn page(api: &Api, wanted: &Wanted) -> Vec<u8> {
    let view = api.hub.view();
    let history = view.tree.history();
    let key = Key::new(&wanted.key);
    let is_wanted = |event: &&Arc<Event>| {
        let matches = event.key == key || wanted.recursive && event.key.is_below(&key);
        let fits = !wanted.removed || is_removal(event.action);
        matches && fits && !event.refresh && event.index < wanted.before
    };
    let mut found: Vec<&Arc<Event>> = history.since(TreeIndex(0)).filter(is_wanted).collect();
    let left = found.len().saturating_sub(wanted.limit);
    let mut out = b"{\"index\":".to_vec();
    json::push_number(&mut out, view.tree.index().0);
    out.extend_from_slice(b",\"first\":");
    json::push_number(&mut out, history.first().map_or(0, |first| first.0));
    out.extend_from_slice(b",\"changes\":[");
    for (at, event) in found.drain(left..).rev().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_change(&mut out, event);
    }
    out.push(b']');
    if let Some(next) = found.last() {
        out.extend_from_slice(b",\"next\":");
        json::push_number(&mut out, next.index.0 + 1);
    }
    out.extend_from_slice(b"}\n");
    out
}

fn is_removal(action: EventAction) -> bool {
    use EventAction::{CompareAndDelete, Delete, Expire};
    matches!(action, Delete | CompareAndDelete | Expire)
}

fn push_change(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(b"{\"index\":");
    json::push_number(out, event.index.0);
    out.extend_from_slice(b",\"action\":\"");
    out.extend_from_slice(event.action.as_str().as_bytes());
    out.extend_from_slice(b"\",\"key\":");
    json::push_string(out, event.key.as_bytes());
    if std::str::from_utf8(event.key.as_bytes()).is_err() {
        out.extend_from_slice(b",\"path\":");
        json::push_string(out, escaped(event.key.as_bytes()).as_bytes());
    }
    if !is_removal(event.action) {
        out.extend_from_slice(b",\"after\":");
        push_node(out, &event.node);
    }
    if let Some(before) = &event.prev_node {
        out.extend_from_slice(b",\"before\":");
        push_node(out, before);
    }
    out.push(b'}');
}

fn push_node(out: &mut Vec<u8>, node: &NodeView) {
    let value = node.value.as_ref().map(|value| value.as_slice());
    match value {
        None => out.extend_from_slice(b"{\"dir\":true}"),
        Some(value) => {
            out.extend_from_slice(b"{\"bytes\":");
            json::push_number(out, value.len() as u64);
            if value.len() <= VALUE_BYTES_MAX {
                out.extend_from_slice(b",\"value\":");
                json::push_string(out, value);
            }
            out.push(b'}');
        }
    }
}
