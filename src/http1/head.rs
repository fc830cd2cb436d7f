//! Parses the head of a request, with strict framing.
//!
//! If two programs disagree about where a request ends, the bytes of one client can become the request of another. So
//! errors that RFC 9112 allows a recipient to tolerate are refused with 400, and the connection ends. Examples are a
//! sign, a space or a list in `Content-Length`, a second `Content-Length` (even an equal one), `Content-Length`
//! together with `Transfer-Encoding`, folded header lines, and a control character anywhere. A second `Host` or
//! `Origin` is refused too. These headers decide about access, and a proxy may have checked the other one.
//!
//! httparse reads a common head in one pass. It requires targets to be UTF-8, which the reference does not, and it
//! reports all versions other than 1.0 and 1.1 in the same way. Such request lines are parsed by this module.
//!
//! Not supported: transfer codings other than `chunked` (501), and expectations other than `100-continue` (417).

use super::limits::HEADERS_MAX;
use httparse::{EMPTY_HEADER, Error, Header, Status};
use std::mem::MaybeUninit;

/// A common head has at most this many headers. Each takes 32 bytes of a worker's stack, which keeps the pages that it has
/// touched once.
const COMMON_HEADERS: usize = 64;

/// Space for the headers of one request. That of a common head is on the caller's stack. Zeroing it would cost as much as
/// parsing the head. Only the rare second parse needs that, and takes memory from the heap.
pub(super) struct Space<'b> {
    common: [MaybeUninit<Header<'b>>; COMMON_HEADERS],
    rare: Vec<Header<'b>>,
}

impl Space<'_> {
    pub fn new() -> Self {
        Space {
            common: [const { MaybeUninit::uninit() }; COMMON_HEADERS],
            rare: Vec::new(),
        }
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// A complete head. It borrows the connection's buffer.
#[derive(Debug)]
pub(super) struct Head<'h, 'b> {
    pub method: &'b str,
    /// Any bytes except control characters and spaces.
    pub target: &'b [u8],
    /// 1 for HTTP/1.1 and later 1.x, 0 for HTTP/1.0.
    pub minor: u8,
    pub headers: &'h [Header<'b>],
    /// Bytes of the head, including the empty line.
    pub length: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// The result of parsing the bytes so far.
#[derive(Debug)]
pub(super) enum Parsed<'h, 'b> {
    Complete(Head<'h, 'b>),
    Partial,
    /// A request that this server does not accept, with the status of the response. The response ends the connection.
    Refused(u16),
}

/// Parses a head at the beginning of `bytes`.
pub(super) fn parse<'h, 'b>(bytes: &'b [u8], space: &'h mut Space<'b>) -> Parsed<'h, 'b> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut space.common) {
        Ok(Status::Complete(length)) => match (request.method, request.path, request.version) {
            (Some(method), Some(target), Some(minor)) => {
                let line = Line {
                    method,
                    target: target.as_bytes(),
                    minor,
                    length: 0,
                };
                complete(line, request.headers, length)
            }
            _ => Parsed::Refused(400),
        },
        Ok(Status::Partial) => Parsed::Partial,
        Err(Error::Token | Error::Version | Error::TooManyHeaders) => {
            parse_by_line(bytes, &mut space.rare)
        }
        Err(_) => Parsed::Refused(400),
    }
}

/// The second parse, for request lines that httparse refuses, and for heads with more than [`COMMON_HEADERS`] headers.
fn parse_by_line<'h, 'b>(bytes: &'b [u8], rare: &'h mut Vec<Header<'b>>) -> Parsed<'h, 'b> {
    let line = match request_line(bytes) {
        Ok(Some(line)) => line,
        Ok(None) => return Parsed::Partial,
        Err(status) => return Parsed::Refused(status),
    };
    rare.resize(HEADERS_MAX, EMPTY_HEADER);
    let headers = &mut rare[..];
    match httparse::parse_headers(&bytes[line.length..], headers) {
        Ok(Status::Complete((length, headers))) => {
            let length = line.length + length;
            complete(line, headers, length)
        }
        Ok(Status::Partial) => Parsed::Partial,
        Err(Error::TooManyHeaders) => Parsed::Refused(431),
        Err(_) => Parsed::Refused(400),
    }
}

/// A request line, and its length.
struct Line<'b> {
    method: &'b str,
    target: &'b [u8],
    minor: u8,
    length: usize,
}

/// `Ok(None)`: not complete yet, and valid so far. `Err`: the status for the refusal.
fn request_line(bytes: &[u8]) -> Result<Option<Line<'_>>, u16> {
    let empty = bytes
        .iter()
        .take_while(|b| matches!(b, b'\r' | b'\n'))
        .count();
    let rest = &bytes[empty..];
    let Some(method) = word(rest, |b| b.is_ascii_graphic())? else {
        return Ok(None);
    };
    let rest = &rest[method.len() + 1..];
    let Some(target) = word(rest, |b| b > b' ' && b != 0x7F)? else {
        return Ok(None);
    };
    let rest = &rest[target.len() + 1..];
    let Some(minor) = version(rest)? else {
        return Ok(None);
    };
    let end = match &rest[VERSION_BYTES..] {
        [] | [b'\r'] => return Ok(None),
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => return Err(400),
    };
    let method = std::str::from_utf8(method).map_err(|_| 400u16)?;
    let length = bytes.len() - rest.len() + VERSION_BYTES + end;
    Ok(Some(Line {
        method,
        target,
        minor,
        length,
    }))
}

/// The bytes before the first space. All of them must be `allowed`.
fn word(bytes: &[u8], allowed: impl Fn(u8) -> bool) -> Result<Option<&[u8]>, u16> {
    let length = bytes.iter().take_while(|&&b| allowed(b)).count();
    match bytes.get(length) {
        None => Ok(None),
        Some(b' ') if length > 0 => Ok(Some(&bytes[..length])),
        Some(_) => Err(400),
    }
}

const VERSION_BYTES: usize = b"HTTP/1.1".len();

/// The minor version of HTTP/1; 505 for another major version.
fn version(bytes: &[u8]) -> Result<Option<u8>, u16> {
    const PREFIX: &[u8] = b"HTTP/";
    let known = bytes.len().min(PREFIX.len());
    if bytes[..known] != PREFIX[..known] {
        return Err(400);
    }
    match bytes.get(PREFIX.len()..VERSION_BYTES) {
        None => Ok(None),
        Some([b'1', b'.', minor]) if minor.is_ascii_digit() => Ok(Some((minor - b'0').min(1))),
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => Err(505),
        Some(_) => Err(400),
    }
}

/// The headers that concern the message itself.
#[derive(Default)]
struct Fields<'b> {
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    hosts: usize,
    origin: Option<&'b [u8]>,
    close: bool,
    keep_alive: bool,
    expects: Option<&'b [u8]>,
}

fn complete<'h, 'b>(line: Line<'b>, headers: &'h [Header<'b>], length: usize) -> Parsed<'h, 'b> {
    let judged = fields(headers).and_then(|fields| {
        if fields.hosts > 1 || (fields.hosts == 0 && line.minor > 0) {
            return Err(400);
        }
        let expects_continue = match fields.expects {
            Some(what) if what.eq_ignore_ascii_case(b"100-continue") => line.minor > 0,
            Some(_) => return Err(417),
            None => false,
        };
        let keep_alive = !fields.close && (line.minor > 0 || fields.keep_alive);
        Ok((framing(&fields, line.minor)?, keep_alive, expects_continue))
    });
    let Line {
        method,
        target,
        minor,
        ..
    } = line;
    if !method.bytes().all(is_token) {
        return Parsed::Refused(400);
    }
    match judged {
        Err(status) => Parsed::Refused(status),
        Ok((framing, keep_alive, expects_continue)) => Parsed::Complete(Head {
            method,
            target,
            minor,
            headers,
            length,
            framing,
            keep_alive,
            expects_continue,
        }),
    }
}

/// RFC 9110's `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Examines each header once, by the length of its name first.
fn fields<'b>(headers: &[Header<'b>]) -> Result<Fields<'b>, u16> {
    let mut fields = Fields::default();
    for header in headers {
        let (name, value) = (header.name, header.value);
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => fields.hosts += 1,
            6 if name.eq_ignore_ascii_case("expect") => fields.expects = Some(value),
            6 if name.eq_ignore_ascii_case("origin") => once(&mut fields.origin, value)?,
            10 if name.eq_ignore_ascii_case("connection") => {
                fields.close |= lists(value, b"close");
                fields.keep_alive |= lists(value, b"keep-alive");
            }
            14 if name.eq_ignore_ascii_case("content-length") => once(&mut fields.length, value)?,
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                once(&mut fields.coding, value)?;
            }
            _ => {}
        }
    }
    Ok(fields)
}

/// A header that decides about the body's end or about access must not occur twice, even with equal values.
fn once<'b>(field: &mut Option<&'b [u8]>, value: &'b [u8]) -> Result<(), u16> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(400),
    }
}

/// Whether a comma-separated list contains `token`, in any case.
fn lists(value: &[u8], token: &[u8]) -> bool {
    value
        .split(|&b| b == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

fn framing(fields: &Fields<'_>, minor: u8) -> Result<Framing, u16> {
    match (fields.length, fields.coding) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(length), None) => content_length(length).map(Framing::Length).ok_or(400),
        // HTTP/1.0 has no transfer codings. A proxy between this server and the client may understand such a request
        // differently.
        (Some(_), Some(_)) => Err(400),
        (None, Some(_)) if minor == 0 => Err(400),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(_)) => Err(501),
    }
}

/// Only digits, and at most 2^63 - 1, as in the reference.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (length <= i64::MAX as u64).then_some(length)
}

/// Whether `bytes` may contain the end of a head. Examines only the bytes after `seen`.
pub(super) fn may_end(bytes: &[u8], seen: usize) -> bool {
    let fresh = &bytes[seen.saturating_sub(3)..];
    fresh.windows(2).any(|w| w == b"\n\n") || fresh.windows(3).any(|w| w == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status with which a head is refused, or 0 with its parsed content.
    fn read(head: &[u8]) -> (u16, String) {
        let mut space = Space::new();
        match parse(head, &mut space) {
            Parsed::Complete(head) => (
                0,
                format!(
                    "{:?} keep={} minor={}",
                    head.framing, head.keep_alive, head.minor
                ),
            ),
            Parsed::Partial => (0, "partial".into()),
            Parsed::Refused(status) => (status, String::new()),
        }
    }

    #[test]
    fn versions_and_keep_alive() {
        let cases = [
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "Length(0) keep=true minor=1",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
                "Length(0) keep=false minor=1",
            ),
            ("GET / HTTP/1.0\r\n\r\n", "Length(0) keep=false minor=0"),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "Length(0) keep=true minor=0",
            ),
            (
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "Length(0) keep=true minor=1",
            ),
            (
                "\r\n\r\nGET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "Length(0) keep=true minor=1",
            ),
            ("GET / HTTP/1.0\n\n", "Length(0) keep=false minor=0"),
        ];
        for (head, expected) in cases {
            assert_eq!(read(head.as_bytes()), (0, expected.to_string()), "{head:?}");
        }
    }

    #[test]
    fn targets_need_not_be_utf8() {
        let mut space = Space::new();
        let head = b"GET /caf\xE9?\xFF HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nrest";
        let Parsed::Complete(head) = parse(head, &mut space) else {
            panic!("not complete")
        };
        assert_eq!(head.target, b"/caf\xE9?\xFF");
        assert_eq!((head.length, head.headers.len()), (43 - "rest".len(), 2));
    }

    #[test]
    fn prefixes_of_a_head_are_partial() {
        let heads: [&[u8]; 3] = [
            b"PUT /v2/keys/a?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            b"GET /caf\xE9 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.7\r\nHost: a\r\n\r\n",
        ];
        for head in heads {
            for end in 0..head.len() {
                assert_eq!(
                    read(&head[..end]),
                    (0, "partial".into()),
                    "{:?}",
                    &head[..end]
                );
            }
        }
    }

    #[test]
    fn the_end_of_a_head_is_seen_across_reads() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for seen in 0..head.len() {
            assert!(may_end(head, seen), "seen {seen}");
            assert!(!may_end(&head[..head.len() - 1], seen), "seen {seen}");
        }
    }
}
