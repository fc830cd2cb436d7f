//! The request target: decodes and cleans its path (spec §2, path cleaning).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Characters that are not escaped in a `Location`, in addition to the alphanumeric ones. The set is the reference's.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A request path, as the router needs it.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// The decoded path. It is clean.
    Clean(Vec<u8>),
    /// The path is not clean: the client is redirected to this location, including the query.
    Redirect(String),
    /// A `%` that is not followed by two hexadecimal digits.
    Malformed,
    /// More than [`SLASHES_MAX`] slashes.
    TooDeep,
}

/// Maximum number of slashes in a path. Each costs a worker about 0.1 µs when it searches the tree.
pub const SLASHES_MAX: usize = 32 << 10;

/// Decodes and cleans the raw path.
pub fn target(raw: &[u8], query: Option<&[u8]>) -> Target {
    let Some(path) = decode(raw) else {
        return Target::Malformed;
    };
    if path.iter().filter(|&&byte| byte == b'/').count() > SLASHES_MAX {
        return Target::TooDeep;
    }
    if is_clean(&path) {
        return Target::Clean(path);
    }
    let mut location = percent_encode(&clean(&path), PATH_ESCAPES).to_string();
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        location.push('?');
        push_query(query, &mut location);
    }
    Target::Redirect(location)
}

/// Copies the query unchanged, except for bytes that a header line must not contain: like the reference, it escapes
/// them in lower case.
fn push_query(query: &[u8], location: &mut String) {
    for &byte in query {
        if byte.is_ascii() {
            location.push(char::from(byte));
        } else {
            location.push_str(&format!("%{byte:02x}"));
        }
    }
}

/// Percent-decoding for paths: `+` is not changed.
fn decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        path.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 1..at + 3)?;
        path.push(hex(digits[0])? << 4 | hex(digits[1])?);
        rest = &rest[at + 3..];
    }
    path.extend_from_slice(rest);
    Some(path)
}

/// The value of a hexadecimal digit.
pub fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Whether the path is clean: it begins with a slash, has no empty component except the last, and no `.` or `..`.
pub(super) fn is_clean(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else {
        return false;
    };
    let mut components = rest.split(|&byte| byte == b'/').peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        if (component.is_empty() && !last) || component == b"." || component == b".." {
            return false;
        }
    }
    true
}

/// The path with a slash at the start, without empty, `.` and `..` components. A slash at the end is kept.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut cleaned = Vec::with_capacity(path.len() + 1);
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                let parent = cleaned.iter().rposition(|&byte| byte == b'/');
                cleaned.truncate(parent.unwrap_or(0));
            }
            name => {
                cleaned.push(b'/');
                cleaned.extend_from_slice(name);
            }
        }
    }
    if cleaned.is_empty() || path.ends_with(b"/") {
        cleaned.push(b'/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(raw: &str) -> String {
        match target(raw.as_bytes(), None) {
            Target::Clean(path) => format!("clean {}", String::from_utf8_lossy(&path)),
            Target::Redirect(location) => format!("to {location}"),
            Target::Malformed => "malformed".into(),
            Target::TooDeep => "too deep".into(),
        }
    }

    #[test]
    fn a_path_may_be_long_but_not_deep() {
        assert!(seen(&format!("/{}", "a".repeat(1 << 20))).starts_with("clean /aaa"));
        assert!(seen(&"/a".repeat(SLASHES_MAX)).starts_with("clean /a/a"));
        for deep in ["/a", "%2Fa", "/", "/.."] {
            assert_eq!(seen(&deep.repeat(SLASHES_MAX + 1)), "too deep");
        }
    }

    #[test]
    fn decodes_cleans_and_escapes_again() {
        let table = [
            ("/v2/keys/a", "clean /v2/keys/a"),
            ("/v2/keys/a/", "clean /v2/keys/a/"),
            ("/v2/keys/a+b%20c", "clean /v2/keys/a+b c"),
            ("/v2/keys/a%2Fb", "clean /v2/keys/a/b"),
            ("/v2/keys/...", "clean /v2/keys/..."),
            ("/v2/keys//a", "to /v2/keys/a"),
            ("/v2/keys/a%2F%2Fb", "to /v2/keys/a/b"),
            ("/v2/keys/a/%2e%2e/b", "to /v2/keys/b"),
            ("/v2/keys/a/..", "to /v2/keys"),
            ("/v2/keys/a/../", "to /v2/keys/"),
            ("/../..", "to /"),
            ("/./x%20y%25", "to /x%20y%25"),
            ("", "to /"),
            ("x", "to /x"),
            ("/%zz", "malformed"),
            ("/%4", "malformed"),
        ];
        for (raw, wanted) in table {
            assert_eq!(seen(raw), wanted, "of {raw:?}");
        }
    }

    #[test]
    fn the_query_goes_along() {
        let wanted = Target::Redirect("/a?b=%2F&c".into());
        assert_eq!(target(b"//a", Some(b"b=%2F&c")), wanted);
        assert_eq!(target(b"//a", Some(b"")), Target::Redirect("/a".into()));
        let raw = Target::Redirect("/%C3%A4?v=%c3%a4".into());
        assert_eq!(target("//ä".as_bytes(), Some("v=ä".as_bytes())), raw);
    }
}
