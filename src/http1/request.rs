//! A request as the handler sees it. It borrows the connection's buffer; nothing is copied.

use super::head::Head;
use std::any::Any;
use std::cell::RefCell;
use std::net::SocketAddr;

/// Whether a request has its complete body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// The whole body was received. It may be empty.
    Complete,
    /// The body is longer than [`Limits::body_bytes`](super::Limits::body_bytes), or will be. None of it is kept, and
    /// the connection closes after the response.
    TooLarge,
}

/// A request. Its bytes are as received; only the body's framing is decoded.
#[derive(Debug)]
pub struct Request<'a> {
    pub(super) head: &'a Head<'a, 'a>,
    pub(super) body: &'a [u8],
    pub(super) body_state: BodyState,
    pub(super) client: &'a Client,
    pub(super) work: RefCell<Option<Work>>,
}

/// The client of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub remote: SocketAddr,
    /// The common name of its verified certificate.
    pub certificate_name: Option<Box<str>>,
}

/// The handler's work so far, for a request that takes several turns.
pub(super) type Work = Box<dyn Any + Send>;

impl<'a> Request<'a> {
    /// The method as received. Methods are case sensitive.
    pub fn method(&self) -> &'a str {
        self.head.method
    }

    /// The target's path, with its escapes: `*` stays `*`; for an absolute target, the part after the authority (`/` if
    /// that is empty).
    pub fn path(&self) -> &'a [u8] {
        split_target(self.head.target).path
    }

    /// The part of the target after the first `?`.
    pub fn query(&self) -> Option<&'a [u8]> {
        split_target(self.head.target).query
    }

    /// The authority of an absolute target, otherwise the `Host` header. Empty if there is neither.
    pub fn authority(&self) -> &'a [u8] {
        split_target(self.head.target)
            .authority
            .or_else(|| self.header("host"))
            .unwrap_or(b"")
    }

    /// The value of the first header with this name, in any case, without spaces around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The body without its framing. Empty if it is too large.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether the body is complete.
    pub fn body_state(&self) -> BodyState {
        self.body_state
    }

    /// The value that was passed to [`Reply::go_on`](super::Reply::go_on) in the handler's last call for this request,
    /// or to [`Suspended::go_on`](super::Suspended::go_on) after it.
    /// `None` in the first call, and after it was taken.
    pub fn work(&self) -> Option<Box<dyn Any + Send>> {
        self.work.take()
    }

    /// Puts back what [`Request::work`] has taken, for another part of the handler.
    pub fn keep_work(&self, work: Box<dyn Any + Send>) {
        self.work.replace(Some(work));
    }

    /// The client's address.
    pub fn remote(&self) -> SocketAddr {
        self.client.remote
    }

    /// The common name of the client's certificate. `None` if the connection has no TLS, if the listener does not
    /// require certificates, or if the name is empty.
    pub fn certificate_name(&self) -> Option<&'a str> {
        self.client.certificate_name.as_deref()
    }
}

struct Target<'a> {
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
}

fn split_target(target: &[u8]) -> Target<'_> {
    let (authority, local) = match after_scheme(target) {
        None => (None, target),
        Some(rest) => {
            let end = rest
                .iter()
                .position(|b| matches!(b, b'/' | b'?'))
                .unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
    };
    let (path, query) = match local.iter().position(|&b| b == b'?') {
        None => (local, None),
        Some(at) => (&local[..at], Some(&local[at + 1..])),
    };
    let path = if path.is_empty() && authority.is_some() {
        b"/"
    } else {
        path
    };
    Target {
        authority,
        path,
        query,
    }
}

/// The part after `scheme://`, for a target that does not begin with a path.
fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    if target.first().is_none_or(|&b| b == b'/') {
        return None;
    }
    let end = target.windows(3).position(|w| w == b"://")?;
    target[..end]
        .iter()
        .all(u8::is_ascii_alphabetic)
        .then(|| &target[end + 3..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split() {
        let cases: [(&str, &str, &str, Option<&str>); 9] = [
            ("/a/b", "-", "/a/b", None),
            ("/a?", "-", "/a", Some("")),
            ("/a?b=c?d", "-", "/a", Some("b=c?d")),
            ("//a//b", "-", "//a//b", None),
            ("/a?u=http://x/", "-", "/a", Some("u=http://x/")),
            ("*", "-", "*", None),
            ("http://h:1/a?b", "h:1", "/a", Some("b")),
            ("http://h", "h", "/", None),
            ("http://h?x", "h", "/", Some("x")),
        ];
        for (target, authority, path, query) in cases {
            let split = split_target(target.as_bytes());
            assert_eq!(
                split.authority.unwrap_or(b"-"),
                authority.as_bytes(),
                "{target}"
            );
            assert_eq!(
                (split.path, split.query),
                (path.as_bytes(), query.map(str::as_bytes)),
                "{target}"
            );
        }
    }
}
