//! `GET /edgetcd/trace`: what this member's raft does, as one JSON line for each record. This endpoint is our own; the
//! reference does not have it. The guide documents the lines ([`crate::guide::trace`]).
//!
//! | query | the response |
//! |---|---|
//! | none | begins with the records in memory, and continues with new ones until the client disconnects |
//! | `since=N` | begins with the record `N` |
//! | `start=T` | `since` counts the records of the process that started at `T`, as in the head line of an earlier response |
//! | `last=N` | begins with at most `N` records, the newest ones |
//! | `wait=false` | ends after the records in memory |
//!
//! The response is for everybody, because a record contains no key, no value and no secret, and its members and terms
//! are public in the members API and the metrics. A page of another member may read it.
//!
//! # Costs
//!
//! One thread serves all streams ([`Streams`]), and exists only while there is one. A client that does not read gets no
//! further piece, and later a line about the records that it has missed. So a stream holds at most one piece, and the
//! raft thread never waits for it.

mod streams;

pub use streams::Streams;

use super::Api;
use super::answer;
use super::cors::Grant;
use super::query::Query;
use crate::http1::{Answer, Reply, Request};
use crate::replica::trace_log::{Resume, TraceReader};
use crate::tree::ApiError;
use crate::tree::error::INVALID_FIELD;

/// The exact path.
pub const PATH: &[u8] = b"/edgetcd/trace";

/// Maximum number of streams at a time.
pub const STREAMS_MAX: usize = 64;

/// Seconds a client should wait if there are too many.
const RETRY_AFTER: u64 = 5;

/// The records that a client requests.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    resume: Resume,
    wait: bool,
}

fn wanted(query: Option<&[u8]>) -> Result<Wanted, String> {
    let query = Query::new(query);
    let resume = Resume {
        since: query.number("since", 0, u64::MAX)?.unwrap_or(0),
        started: query.number("start", 0, u64::MAX)?,
        last: query.number("last", 0, u64::MAX)?,
    };
    let wait = match query.first("wait") {
        None => true,
        Some(_) => query.flag("wait")?,
    };
    Ok(Wanted { resume, wait })
}

/// Sends the records.
pub fn handle(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    let members = api.replica.status().members();
    let grant = &api.cors.grant_to_members(request, &members, grant);
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", grant));
    }
    let Wanted { resume, wait } = match wanted(request.query()) {
        Ok(wanted) => wanted,
        Err(cause) => {
            let error = ApiError::parameter(INVALID_FIELD, cause);
            return reply.send(answer::error(&error, &api.cluster, grant));
        }
    };
    let mut begin = String::new();
    let log = api.replica.trace();
    let mut reader = TraceReader::begin(log, &api.info.name, resume, &mut begin);
    if wait {
        return api.traces.add(reader, begin, head(grant), grant, reply);
    }
    reader.render(usize::MAX, &mut begin);
    reply.send(head(grant).body(begin.into_bytes()));
}

fn head(grant: &Grant) -> Answer {
    let head = Answer::new(200)
        .header("Content-Type", "application/x-ndjson")
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff");
    grant.onto(head)
}

fn too_many(grant: &Grant) -> Answer {
    let body = format!(
        "503 Service Unavailable: {STREAMS_MAX} clients follow the trace already; ask another member, or with wait=false\n"
    );
    answer::text(503, &body, grant).number("Retry-After", RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let parsed = |query: &str| wanted(Some(query.as_bytes()));
        let resume = Resume {
            since: 7,
            started: Some(9),
            last: Some(200),
        };
        assert_eq!(
            parsed("since=7&start=9&last=200&wait=false&other=1"),
            Ok(Wanted {
                resume,
                wait: false
            })
        );
        let all = Wanted {
            resume: Resume::default(),
            wait: true,
        };
        assert_eq!(wanted(None), Ok(all));
        for wrong in [
            "since=", "since=-1", "start=x", "last=1.5", "wait=", "wait=1",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
