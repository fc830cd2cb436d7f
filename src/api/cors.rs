//! Cross-origin rules: which web pages may read responses in a browser, and which pages' writes are refused.
//!
//! A web page of any origin can make a browser send a form to this server (CVE-2018-1098). So a write whose `Origin`
//! names another authority than its `Host` is refused, unless `--cors` allows that origin. Requests without `Origin`
//! are not affected: curl and client libraries send none.

use crate::config::Allowed;
use crate::engine::members::Members;
use crate::http1::{Answer, Request};

const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE";
const HEADERS: &str = "accept, content-type, authorization";

/// The origins of `--cors`.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Allowed,
}

/// The cross-origin headers of one response. Stored with a response that is sent later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// No header: no browser shows the response to a page of another origin.
    Nothing,
    /// `Access-Control-Allow-Origin: *`.
    Everybody,
    /// The request's own origin, which `--cors` contains. The response repeats it.
    Origin(Box<str>),
}

impl Cors {
    /// `origins` as in `--cors`. They are compared completely, with scheme and port.
    pub fn new(origins: Allowed) -> Cors {
        Cors { origins }
    }

    /// The headers for the response to this request.
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

    /// As [`Cors::grant`], and the page of a member may read the response: a request whose `Origin` is a client URL of a
    /// member. This is for endpoints that contain no keys and take no credentials.
    pub fn grant_to_members(
        &self,
        request: &Request<'_>,
        members: &Members,
        granted: &Grant,
    ) -> Grant {
        let origin = origin(request).filter(|_| *granted == Grant::Nothing);
        let is_member = |origin: &String| {
            let mut urls = members.iter().flat_map(|member| &member.client_urls);
            urls.any(|url| url.trim_end_matches('/') == origin)
        };
        match origin.filter(is_member) {
            Some(origin) => Grant::Origin(origin.into()),
            None => granted.clone(),
        }
    }

    /// Whether this is a write by a web page of another origin that `--cors` does not allow.
    pub fn refuses(&self, request: &Request<'_>) -> bool {
        if !matches!(request.method(), "PUT" | "POST" | "DELETE") {
            return false;
        }
        let Some(origin) = origin(request) else {
            return false;
        };
        // `null` is the origin of a page that hides where it comes from. It never equals a host.
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
