//! `/edgetcd/keys`: the keys with a prefix, page by page. This endpoint is our own; the reference does not have it.
//!
//! `/v2/keys` returns a directory as a whole. That is too much for a page in a browser if there are 100,000 keys. This
//! endpoint returns at most `limit` nodes, without values, and the next request continues after the last of them.
//!
//! | query | meaning |
//! |---|---|
//! | `prefix` | the first bytes of the keys, as a clean path, default `/` |
//! | `recursive=true` | also the nodes below directories that match |
//! | `hidden=true` | also names that begin with `_` |
//! | `limit` | number of nodes, 1 to 1,000, default 100 |
//! | `after` | continue after this key, whether or not it still exists: `next` of the page before |
//!
//! The answer is `{"index":N,"nodes":[…],"next":"…"}`: the index of the tree, the nodes, and if there are more nodes,
//! the value of `after` for the next page, ready for a URL. A node has the fields of `/v2/keys`, without `value`. In
//! addition, a file has `bytes`, the length of its value, and a directory has `children`, their number with hidden ones.
//! If a key is not UTF-8, `path` is the key as it stands in a URL. A page ends early if it has 256 KiB.
//!
//! The pages of a listing come from different versions of the tree. While authentication is enabled, a request needs
//! the right to read everything below the prefix.

use super::Api;
use super::access::Access;
use super::answer;
use super::cors::Grant;
use super::query::Query;
use super::target::is_clean;
use crate::http1::{Reply, Request};
use crate::tree::{ApiError, ClusterTime, NodeRef, Search, json};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: u64 = 1000;
/// A page ends at the first node beyond this length.
const PAGE_BYTES_MAX: usize = 256 << 10;
/// The bytes of a key that are escaped in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

struct Wanted {
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    recursive: bool,
    hidden: bool,
    limit: usize,
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
    if !access.may_read_all(&wanted.prefix) {
        let refusal = answer::error(&ApiError::unauthorized(), &api.cluster, grant);
        return reply.send(refusal);
    }
    let body = page(api, &wanted);
    reply.send(answer::json(200, body, grant).header("Cache-Control", "no-store"));
}

fn wanted(query: &Query<'_>) -> Result<Wanted, String> {
    let prefix = query.first("prefix").unwrap_or_else(|| b"/".to_vec());
    // The right to read is that of the text as it is, and the tree would clean it.
    let last_slash = prefix.iter().rposition(|&byte| byte == b'/');
    if !last_slash.is_some_and(|at| is_clean(&prefix[..=at])) {
        return Err(
            "prefix is a clean path: it begins with a slash, and has no empty name, . or .. in it"
                .to_owned(),
        );
    }
    let limit = query.number("limit", 1, LIMIT_MAX)?;
    Ok(Wanted {
        prefix,
        after: query.first("after"),
        recursive: query.flag("recursive")?,
        hidden: query.flag("hidden")?,
        limit: limit.map_or(LIMIT_DEFAULT, |limit| limit as usize),
    })
}

fn page(api: &Api, wanted: &Wanted) -> Vec<u8> {
    let now = api.estimate.at(api.clock.since_boot());
    let view = api.hub.view();
    let mut found = view.tree.search(&Search {
        prefix: &wanted.prefix,
        after: wanted.after.as_deref(),
        recursive: wanted.recursive,
        hidden: wanted.hidden,
    });
    let mut out = b"{\"index\":".to_vec();
    json::push_number(&mut out, view.tree.index().0);
    out.extend_from_slice(b",\"nodes\":[");
    let mut last = None;
    for (key, node) in found.by_ref().take(wanted.limit) {
        if last.is_some() {
            out.push(b',');
        }
        push_node(&mut out, &key, node, now);
        last = Some(key);
        if out.len() > PAGE_BYTES_MAX {
            break;
        }
    }
    out.push(b']');
    if let (Some(last), Some(_)) = (last, found.next()) {
        out.extend_from_slice(b",\"next\":");
        json::push_string(&mut out, escaped(&last).as_bytes());
    }
    out.extend_from_slice(b"}\n");
    out
}

fn push_node(out: &mut Vec<u8>, key: &[u8], node: NodeRef<'_>, now: ClusterTime) {
    out.extend_from_slice(b"{\"key\":");
    json::push_string(out, key);
    if std::str::from_utf8(key).is_err() {
        out.extend_from_slice(b",\"path\":");
        json::push_string(out, escaped(key).as_bytes());
    }
    let number = match node.value() {
        Some(value) => {
            out.extend_from_slice(b",\"bytes\":");
            value.len()
        }
        None => {
            out.extend_from_slice(b",\"dir\":true,\"children\":");
            node.children()
        }
    };
    json::push_number(out, number as u64);
    node.push_rest(out, now);
}

/// A key as it stands in a URL.
pub(super) fn escaped(key: &[u8]) -> String {
    percent_encode(key, ESCAPED).to_string()
}
