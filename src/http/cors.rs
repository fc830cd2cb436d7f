//! Cross-origin rules: who may read answers in a browser, and whose writes are refused.
//!
//! A page from anywhere can make a browser send a form to this server (CVE-2018-1098). So a write whose
//! `Origin` names another authority than its `Host` is refused, unless `--cors` admits that origin.
//! Requests without `Origin`, which is all that curl and client libraries send, are not concerned.

use crate::allowed::Allowed;
use crate::door::{Answer, Request};

const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE";
const HEADERS: &str = "accept, content-type, authorization";

/// The origins of `--cors`.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Allowed,
}

/// What one request's answer says of cross-origin reads; kept with an answer that is given later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// No header: a browser shows the answer to no page of another origin.
    Nothing,
    /// `Access-Control-Allow-Origin: *`.
    Everybody,
    /// The request's own origin, which `--cors` names; it is said back to it.
    Origin(Box<str>),
}

impl Cors {
    /// `origins` as `--cors` gives them: compared whole, with scheme and port.
    pub fn new(origins: Allowed) -> Cors {
        Cors { origins }
    }

    /// What the answer to this request may say.
    pub fn grant(&self, request: &Request<'_>) -> Grant {
        match &self.origins {
            Allowed::Nobody => Grant::Nothing,
            Allowed::Anybody => Grant::Everybody,
            Allowed::Only(origins) => match origin(request) {
                Some(origin) if origins.contains(&origin) => Grant::Origin(origin.into()),
                _ => Grant::Nothing,
            },
        }
    }

    /// Whether this is a write from a foreign page.
    pub fn refuses(&self, request: &Request<'_>) -> bool {
        if !matches!(request.method(), "PUT" | "POST" | "DELETE") {
            return false;
        }
        let Some(origin) = origin(request) else {
            return false;
        };
        // `null`, the origin of a page that shall not tell where it is from, is nobody's.
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let host = request.authority();
        let same = authority.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(host));
        !same && !self.origins.admits(&origin)
    }
}

fn origin(request: &Request<'_>) -> Option<String> {
    request
        .header("origin")
        .map(|origin| String::from_utf8_lossy(origin).into_owned())
}

impl Grant {
    /// Adds the three headers.
    pub fn onto(&self, answer: Answer) -> Answer {
        let origin = match self {
            Grant::Nothing => return answer,
            Grant::Everybody => "*",
            Grant::Origin(origin) => origin,
        };
        answer
            .header("Access-Control-Allow-Methods", METHODS)
            .header("Access-Control-Allow-Origin", origin)
            .header("Access-Control-Allow-Headers", HEADERS)
    }
}
