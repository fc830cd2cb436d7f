//! Errors of requests (spec §10). They are the same on every member, are sent as answers, and are never fatal.

use super::bytes::Bytes;
use super::json;
use super::long::{LongString, LongText};
use std::fmt;

/// Key not found. The cause is the first missing path.
pub const KEY_NOT_FOUND: u16 = 100;
/// Compare failed. The cause shows the difference.
pub const COMPARE_FAILED: u16 = 101;
/// Not a file: the key is a directory, and the action needs a file.
pub const NOT_A_FILE: u16 = 102;
/// Not a directory: there is a file on the path to the key.
pub const NOT_A_DIRECTORY: u16 = 104;
/// Key already exists.
pub const KEY_EXISTS: u16 = 105;
/// Root is read only.
pub const ROOT_READ_ONLY: u16 = 107;
/// Directory not empty.
pub const DIRECTORY_NOT_EMPTY: u16 = 108;
/// The request requires user authentication.
pub const UNAUTHORIZED: u16 = 110;
/// `prevValue` is empty.
pub const PREV_VALUE_REQUIRED: u16 = 201;
/// The ttl is not a number.
pub const TTL_NOT_A_NUMBER: u16 = 202;
/// An index is not a number.
pub const INDEX_NOT_A_NUMBER: u16 = 203;
/// Invalid field.
pub const INVALID_FIELD: u16 = 209;
/// Invalid form, query or body.
pub const INVALID_FORM: u16 = 210;
/// A refresh has a value.
pub const VALUE_ON_REFRESH: u16 = 211;
/// A refresh has no ttl.
pub const TTL_REQUIRED_ON_REFRESH: u16 = 212;
/// Raft could not execute the request: no leader, a timeout, overload, or shutdown.
pub const RAFT_INTERNAL: u16 = 300;
/// The event is older than the oldest one in the history.
pub const EVENT_INDEX_CLEARED: u16 = 401;

/// An error of the keys API, with everything that its HTTP status and body need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    /// etcd's error code, one of this module's constants.
    pub code: u16,
    /// The `cause` field. The body leaves it out if it is empty. Bytes that are not UTF-8 are replaced.
    pub cause: Vec<u8>,
    /// The tree's index when the error was found. 0 for errors found before the tree was read.
    pub index: u64,
}

impl ApiError {
    /// An error at a tree index.
    pub fn new(code: u16, cause: impl Into<Vec<u8>>, index: u64) -> ApiError {
        ApiError {
            code,
            cause: cause.into(),
            index,
        }
    }

    /// An error in a parameter (codes 2xx), with index 0.
    pub fn parameter(code: u16, cause: impl Into<Vec<u8>>) -> ApiError {
        ApiError::new(code, cause, 0)
    }

    /// Error 300 with a reason and index 0.
    pub fn raft(reason: impl Into<Vec<u8>>) -> ApiError {
        ApiError::new(RAFT_INTERNAL, reason, 0)
    }

    /// Error 110 with its fixed cause and index 0.
    pub fn unauthorized() -> ApiError {
        ApiError::new(UNAUTHORIZED, "Insufficient credentials", 0)
    }

    /// The `message` field.
    pub fn message(&self) -> &'static str {
        match self.code {
            KEY_NOT_FOUND => "Key not found",
            COMPARE_FAILED => "Compare failed",
            NOT_A_FILE => "Not a file",
            NOT_A_DIRECTORY => "Not a directory",
            KEY_EXISTS => "Key already exists",
            ROOT_READ_ONLY => "Root is read only",
            DIRECTORY_NOT_EMPTY => "Directory not empty",
            UNAUTHORIZED => "The request requires user authentication",
            PREV_VALUE_REQUIRED => "PrevValue is Required in POST form",
            TTL_NOT_A_NUMBER => "The given TTL in POST form is not a number",
            INDEX_NOT_A_NUMBER => "The given index in POST form is not a number",
            INVALID_FIELD => "Invalid field",
            INVALID_FORM => "Invalid POST form",
            VALUE_ON_REFRESH => "Value provided on refresh",
            TTL_REQUIRED_ON_REFRESH => "A TTL must be provided on refresh",
            RAFT_INTERNAL => "Raft Internal Error",
            EVENT_INDEX_CLEARED => "The event in requested index is outdated and cleared",
            _ => "",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.code {
            KEY_NOT_FOUND => 404,
            COMPARE_FAILED | KEY_EXISTS => 412,
            NOT_A_FILE | DIRECTORY_NOT_EMPTY => 403,
            UNAUTHORIZED => 401,
            RAFT_INTERNAL => 500,
            _ => 400,
        }
    }

    /// Appends the body: `{"errorCode":…,"message":…,"cause":…,"index":…}` and a newline.
    pub fn render(&self, out: &mut Vec<u8>) {
        self.render_with(out, json::push_escaped);
    }

    /// The text of [`ApiError::render`], to be rendered in parts. A cause that shows values may have megabytes.
    pub fn long_text(&self) -> LongText {
        let (mut text, mut strings) = (Vec::new(), Vec::new());
        self.render_with(&mut text, |out, cause| {
            match LongString::new(&Bytes::from(cause)) {
                Some(string) => strings.push((out.len(), string)),
                None => json::push_escaped(out, cause),
            }
        });
        LongText::new(text, strings)
    }

    /// `push_cause` appends the escaped cause.
    fn render_with(&self, out: &mut Vec<u8>, push_cause: impl FnOnce(&mut Vec<u8>, &[u8])) {
        out.extend_from_slice(b"{\"errorCode\":");
        json::push_number(out, u64::from(self.code));
        out.extend_from_slice(b",\"message\":");
        json::push_string(out, self.message().as_bytes());
        if !self.cause.is_empty() {
            out.extend_from_slice(b",\"cause\":\"");
            push_cause(out, &self.cause);
            out.push(b'"');
        }
        out.extend_from_slice(b",\"index\":");
        json::push_number(out, self.index);
        out.extend_from_slice(b"}\n");
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = String::from_utf8_lossy(&self.cause);
        write!(
            f,
            "{}: {} ({cause}) [{}]",
            self.code,
            self.message(),
            self.index
        )
    }
}

impl std::error::Error for ApiError {}
