//! Responses of the keys API: parses them, and writes them again as etcdctl's JSON.

use std::fmt;
use std::io;

use crate::tree::json;
use serde::{Deserialize, Serialize};

/// An event, or the response to a GET. The fields are in the order in which they are printed.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Event {
    pub action: String,
    pub node: Node,
    #[serde(rename = "prevNode")]
    pub prev_node: Option<Node>,
    /// `X-Etcd-Index`. 0 if the server does not send it.
    #[serde(skip)]
    pub index: u64,
}

/// A key or a directory.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Node {
    /// Empty for the root.
    #[serde(default)]
    pub key: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub dir: bool,
    #[serde(default)]
    pub value: String,
    /// The direct children of a listed directory.
    pub nodes: Option<Vec<Node>>,
    #[serde(default, rename = "createdIndex")]
    pub created_index: u64,
    #[serde(default, rename = "modifiedIndex")]
    pub modified_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ttl: i64,
}

impl Node {
    pub fn children(&self) -> &[Node] {
        self.nodes.as_deref().unwrap_or_default()
    }
}

// Serde passes a reference to these functions, even for small types.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// An error response of the keys API.
#[derive(Debug, Deserialize)]
pub(super) struct KeysError {
    #[serde(default, rename = "errorCode")]
    pub code: u32,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub cause: String,
    #[serde(default)]
    pub index: u64,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeysError {
            code,
            message,
            cause,
            index,
        } = self;
        write!(f, "{code}: {message} ({cause}) [{index}]")
    }
}

/// Maximum nesting of JSON that is parsed. A directory is two levels, and uses some kilobytes of
/// [`super::STACK_BYTES`].
const MAX_DEPTH: usize = 4_000;

/// Parses an event. Returns None if it is not one.
pub(super) fn read_event(body: &[u8]) -> Option<Event> {
    let shape = shape(body);
    // A node is larger in memory than in JSON: a list of empty ones would take all there is.
    let objects_max = body.len() / NODE_BYTES_MIN + OBJECTS_FREE;
    if shape.depth > MAX_DEPTH || shape.objects > objects_max {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    let event = Event::deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(event)
}

/// Minimum size in bytes of a node's JSON in a listing: a key, two indexes, and their names.
const NODE_BYTES_MIN: usize = 40;
/// Objects that a response may have in addition to its nodes.
const OBJECTS_FREE: usize = 100;

/// Properties of a JSON text that can be counted without parsing it.
struct Shape {
    /// The maximum number of brackets that are open at once.
    depth: usize,
    objects: usize,
}

fn shape(json: &[u8]) -> Shape {
    let (mut open, mut most, mut objects) = (0_usize, 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => open += 1,
            b'}' | b']' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
        objects += usize::from(!in_string && *byte == b'{');
        most = most.max(open);
    }
    Shape {
        depth: most,
        objects,
    }
}

/// One line of JSON, with the escapes of Go, as etcdctl prints it.
pub(super) fn to_json(value: &impl Serialize) -> io::Result<String> {
    let bytes = json::to_vec(value)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_brackets_outside_of_strings() {
        let table = [
            ("", 0),
            ("[]", 1),
            ("[{},[[]]]", 3),
            (r#"{"[[[":"\"[["}"#, 1),
            (r#"{"a\\":[]}"#, 2),
            ("]]][", 1),
        ];
        for (json, expected) in table {
            assert_eq!(shape(json.as_bytes()).depth, expected, "{json}");
        }
        let endless = "[".repeat(1_000_000);
        assert!(read_event(endless.as_bytes()).is_none());
        let many = |count| {
            let nodes = vec!["{}"; count].join(",");
            format!(r#"{{"action":"get","node":{{"nodes":[{nodes}]}}}}"#)
        };
        assert!(read_event(many(50).as_bytes()).is_some());
        assert!(read_event(many(1_000_000).as_bytes()).is_none());
    }

    #[test]
    fn a_node_is_printed_with_all_that_etcdctl_prints() {
        let answer = r#"{"action":"get","node":{"dir":true,"nodes":[{"key":"/a","value":"1",
            "expiration":"2026-01-01T00:00:00.5Z","ttl":5,"modifiedIndex":4,"createdIndex":3}]}}"#;
        let event: Event = serde_json::from_str(answer).unwrap();
        assert_eq!(
            to_json(&event).unwrap(),
            r#"{"action":"get","node":{"key":"","dir":true,"value":"","nodes":[{"key":"/a","value":"1","nodes":null,"createdIndex":3,"modifiedIndex":4,"expiration":"2026-01-01T00:00:00.5Z","ttl":5}],"createdIndex":0,"modifiedIndex":0},"prevNode":null}"#
        );
    }
}
