//! Responses in etcd's form: content types, headers, error bodies.

use super::cors::Grant;
use crate::http1::Answer;
use crate::raft::{LogIndex, Term};
use crate::tree::{ApiError, TreeIndex};

/// Content type of responses of the key space, including errors, and of most other endpoints.
pub const JSON: &str = "application/json";
/// Content type of plain text errors (403, 404, 405, 421), `/health` and `/v2/machines`.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The cluster id as printed in every response of the key space.
#[derive(Debug, Clone)]
pub struct ClusterId(std::sync::Arc<str>);

impl ClusterId {
    /// Lower-case hexadecimal without leading zeros, like all ids that etcd prints.
    pub fn new(id: u64) -> ClusterId {
        ClusterId(format!("{id:x}").into())
    }

    /// The value of `X-Etcd-Cluster-Id`.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Adds the header to a response that is not about keys.
    pub fn onto(&self, answer: Answer) -> Answer {
        answer.header("X-Etcd-Cluster-Id", self.text())
    }
}

/// The numbers in the headers of a successful key-space response.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// `X-Etcd-Index`: the index of the event that a write made, or of the tree that was read.
    pub index: TreeIndex,
    /// `X-Raft-Index`: the last entry in the state from which the response was made.
    pub applied: LogIndex,
    /// `X-Raft-Term`: this member's term. It may be newer than the entry's.
    pub term: Term,
}

/// The headers of a successful key-space response.
pub fn success(status: u16, cluster: &ClusterId, numbers: Numbers, grant: &Grant) -> Answer {
    grant.onto(
        Answer::new(status)
            .header("Content-Type", JSON)
            .header("X-Etcd-Cluster-Id", cluster.text())
            .number("X-Etcd-Index", numbers.index.0)
            .number("X-Raft-Index", numbers.applied.0)
            .number("X-Raft-Term", numbers.term.0),
    )
}

/// A key-space error.
pub fn error(error: &ApiError, cluster: &ClusterId, grant: &Grant) -> Answer {
    let mut body = Vec::with_capacity(128);
    error.render(&mut body);
    error_head(error, cluster, grant).body(body)
}

/// The head of a key-space error.
pub fn error_head(error: &ApiError, cluster: &ClusterId, grant: &Grant) -> Answer {
    grant.onto(
        Answer::new(error.status())
            .header("Content-Type", JSON)
            .header("X-Etcd-Cluster-Id", cluster.text())
            .number("X-Etcd-Index", error.index),
    )
}

/// A plain text response that no browser interprets as another type.
pub fn text(status: u16, body: &str, grant: &Grant) -> Answer {
    grant.onto(
        Answer::new(status)
            .header("Content-Type", TEXT)
            .header("X-Content-Type-Options", "nosniff")
            .body(body.as_bytes().to_vec()),
    )
}

/// The response to a path that does not exist.
pub fn not_found(grant: &Grant) -> Answer {
    text(404, "404 page not found\n", grant)
}

/// The response to a method that the path does not support.
pub fn method_not_allowed(allow: &'static str, grant: &Grant) -> Answer {
    text(405, "Method Not Allowed\n", grant).header("Allow", allow)
}

/// A JSON response without etcd's headers.
pub fn json(status: u16, body: Vec<u8>, grant: &Grant) -> Answer {
    grant.onto(Answer::new(status).header("Content-Type", JSON).body(body))
}

/// A JSON response of one value, with a newline at the end.
pub fn json_line(status: u16, value: &impl serde::Serialize, grant: &Grant) -> Answer {
    let mut body = crate::tree::json::to_vec(value).expect("the API's values are plain data");
    body.push(b'\n');
    json(status, body, grant)
}

/// The message of a request about members, users or roles that raft did not complete.
pub const INTERNAL: &str = "Internal Server Error";

/// `{"message":"…"}`: an error of members, auth, stats or the log level. A message may quote bytes that are not UTF-8.
/// They are escaped like those of a value.
pub fn message(status: u16, message: impl AsRef<[u8]>, grant: &Grant) -> Answer {
    let mut body = b"{\"message\":".to_vec();
    crate::tree::json::push_string(&mut body, message.as_ref());
    body.push(b'}');
    json(status, body, grant)
}
