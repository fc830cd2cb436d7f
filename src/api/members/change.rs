//! The write part of the members API: add, update and remove (spec §13).
//!
//! The order of checks is the reference's: content type, JSON, URLs, and then the checks of the leader.

use crate::api::Api;
use crate::api::answer::{self, ClusterId};
use crate::api::cors::Grant;
use crate::engine::members::{Member, MemberError};
use crate::go;
use crate::http1::{BodyState, Outbox, Reply, Request, Ticket};
use crate::identity::ids;
use crate::raft::NodeId;
use crate::replica::{Done, Effect, Failure, Waiter};
use crate::tree::json;
use crate::urls::Url;
use serde_json::Value;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

const ACCEPTED: &str = "application/json";

/// Longer JSON bodies are refused, because they are parsed on a thread that serves other connections. No member needs a
/// body of this length.
const JSON_BYTES_MAX: usize = 64 << 10;

/// `POST /v2/members`, also with a longer path.
pub fn add(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    let urls = match peer_urls(request) {
        Ok(urls) => urls,
        Err(refusal) => return refusal.answer(api, grant, reply),
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since_1970.map_or(0, |since| since.as_secs());
    let member = Member {
        id: ids::latecomer(&urls, seconds).0,
        name: String::new(),
        peer_urls: texts(&urls),
        client_urls: Vec::new(),
    };
    let waiter = Box::new(ChangeAnswer {
        ticket: reply.later(),
        cluster: api.cluster.clone(),
        grant: grant.clone(),
        asked: ChangeRequest::Add,
        member: member.clone(),
    });
    api.replica.add_member(&member, waiter);
}

/// `PUT /v2/members/ID`.
pub fn update(api: &Api, request: &Request<'_>, id: &[u8], grant: &Grant, reply: Reply<'_>) {
    let asked = member_id(id).and_then(|id| peer_urls(request).map(|urls| (id, urls)));
    let (id, urls) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refusal.answer(api, grant, reply),
    };
    let member = Member {
        peer_urls: texts(&urls),
        ..nobody(id)
    };
    let waiter = Box::new(ChangeAnswer {
        ticket: reply.later(),
        cluster: api.cluster.clone(),
        grant: grant.clone(),
        asked: ChangeRequest::Update,
        member: member.clone(),
    });
    api.replica.update_member(&member, waiter);
}

/// `DELETE /v2/members/ID`.
pub fn remove(api: &Api, id: &[u8], grant: &Grant, reply: Reply<'_>) {
    let id = match member_id(id) {
        Ok(id) => id,
        Err(refusal) => return refusal.answer(api, grant, reply),
    };
    let waiter = Box::new(ChangeAnswer {
        ticket: reply.later(),
        cluster: api.cluster.clone(),
        grant: grant.clone(),
        asked: ChangeRequest::Remove,
        member: nobody(id),
    });
    api.replica.remove_member(NodeId(id), waiter);
}

fn nobody(id: u64) -> Member {
    Member {
        id,
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

/// A refusal before the request is sent to the leader.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    /// May quote the request, whose bytes need not be UTF-8.
    message: Vec<u8>,
}

impl Refusal {
    fn bad(message: impl Into<Vec<u8>>) -> Refusal {
        Refusal {
            status: 400,
            message: message.into(),
        }
    }

    fn answer(&self, api: &Api, grant: &Grant, reply: Reply<'_>) {
        let answer = answer::message(self.status, &self.message, grant);
        reply.send(api.cluster.onto(answer));
    }
}

fn member_id(text: &[u8]) -> Result<u64, Refusal> {
    let id = std::str::from_utf8(text).ok().and_then(ids::parse);
    id.ok_or_else(|| Refusal {
        status: 404,
        message: [b"No such member: ", text].concat(),
    })
}

/// The sorted URLs of a body `{"peerURLs":[…]}`.
fn peer_urls(request: &Request<'_>) -> Result<Vec<Url>, Refusal> {
    let kind = request.header("Content-Type").unwrap_or_default();
    check_type(kind)?;
    let is_too_long =
        request.body_state() == BodyState::TooLarge || request.body().len() > JSON_BYTES_MAX;
    if is_too_long {
        return Err(Refusal {
            status: 413,
            message: "Request Entity Too Large".into(),
        });
    }
    let texts = url_texts(request.body())?;
    Url::parse_members(texts).map_err(|error| Refusal::bad(error.to_string()))
}

/// The type is compared exactly. Only a type with parameters is compared in lower case and without them (spec §13).
fn check_type(given: &[u8]) -> Result<(), Refusal> {
    let kind = match given.iter().position(|&byte| byte == b';') {
        Some(end) => {
            let kind = json::readable(&given[..end]).trim().to_lowercase();
            Cow::Owned(kind.into_bytes())
        }
        None => Cow::Borrowed(given),
    };
    match *kind == *ACCEPTED.as_bytes() {
        true => Ok(()),
        false => Err(Refusal {
            status: 415,
            message: [
                b"Bad Content-Type ",
                &*kind,
                b", accept ",
                ACCEPTED.as_bytes(),
            ]
            .concat(),
        }),
    }
}

/// The list as the client sent it. Error messages that are part of the contract have the recorded wording.
fn url_texts(body: &[u8]) -> Result<Vec<String>, Refusal> {
    go::json::check(body).map_err(Refusal::bad)?;
    // Go accepts half of a surrogate pair, and numbers of any size.
    let value: Value = serde_json::from_str(&json::readable(body))
        .map_err(|error| Refusal::bad(format!("invalid JSON: {error}")))?;
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(Vec::new()),
        other => {
            let shape = r#"struct { PeerURLs []string "json:\"peerURLs\"" }"#;
            return Err(mistyped(&other, &format!("value of type {shape}")));
        }
    };
    let named = |name: &String| name.eq_ignore_ascii_case("peerURLs");
    let list = fields.into_iter().rfind(|(name, _)| named(name));
    match list.map(|(_, value)| value) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.into_iter().map(url_text).collect(),
        Some(other) => Err(mistyped(&other, "struct field .peerURLs of type []string")),
    }
}

fn url_text(item: Value) -> Result<String, Refusal> {
    match item {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        other => Err(mistyped(&other, "struct field .peerURLs of type string")),
    }
}

fn mistyped(value: &Value, wanted: &str) -> Refusal {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Refusal::bad(format!("json: cannot unmarshal {kind} into Go {wanted}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChangeRequest {
    Add,
    Update,
    Remove,
}

/// A client that waits for its membership change.
struct ChangeAnswer {
    ticket: Ticket,
    cluster: ClusterId,
    grant: Grant,
    asked: ChangeRequest,
    member: Member,
}

impl Waiter<Outbox> for ChangeAnswer {
    fn done(self: Box<Self>, done: &Done, outbox: &mut Outbox) {
        let answer = match &done.effect {
            Effect::Members(Ok(())) => self.success(),
            Effect::Members(Err(error)) => {
                let (status, message) = self.refusal(*error);
                answer::message(status, &message, &self.grant)
            }
            Effect::Event(_) | Effect::Refused(_) | Effect::Auth(_) => {
                unreachable!("a change of members changes nothing else")
            }
        };
        self.ticket.send_in(self.cluster.onto(answer), outbox);
    }

    fn failed(self: Box<Self>, _: Failure, outbox: &mut Outbox) {
        let answer = answer::message(500, answer::INTERNAL, &self.grant);
        self.ticket.send_in(self.cluster.onto(answer), outbox);
    }
}

impl ChangeAnswer {
    fn success(&self) -> crate::http1::Answer {
        match self.asked {
            ChangeRequest::Add => {
                let mut body = json::to_vec(&self.member).expect("members are plain data");
                body.push(b'\n');
                answer::json(201, body, &self.grant)
            }
            ChangeRequest::Update | ChangeRequest::Remove => {
                self.grant.onto(crate::http1::Answer::new(204))
            }
        }
    }

    fn refusal(&self, error: MemberError) -> (u16, String) {
        let id = ids::hex(self.member.id);
        match (error, self.asked) {
            (MemberError::UrlExists, _) => (409, "membership: peerURL exists".into()),
            (MemberError::IdExists, _) => (409, "membership: ID exists".into()),
            (MemberError::Removed, ChangeRequest::Remove) => {
                (410, format!("Member permanently removed: {id}"))
            }
            (MemberError::NotFound, _) => (404, format!("No such member: {id}")),
            (MemberError::Removed | MemberError::Unhealthy, _) => (500, answer::INTERNAL.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        let message = url_texts(body.as_bytes()).expect_err(body).message;
        String::from_utf8(message).expect("text")
    }

    #[test]
    fn a_list_is_found_whatever_the_case_of_its_name() {
        let list = |body: &str| url_texts(body.as_bytes()).expect(body);
        assert_eq!(list(r#"{"peerURLs":["a","b"]}"#), ["a", "b"]);
        assert_eq!(list(r#"{"x":1,"PEERURLS":["a"]}"#), ["a"]);
        assert_eq!(list(r#"{"peerURLs":null}"#), [""; 0]);
        assert_eq!(list(r#"{"peerURLs":[null]}"#), [""]);
        assert_eq!(list("null"), [""; 0]);
    }

    #[test]
    fn complaints_are_those_of_the_contract() {
        assert_eq!(refused(""), "unexpected end of JSON input");
        assert_eq!(refused("{\"peerURLs\":["), "unexpected end of JSON input");
        assert_eq!(
            refused(r#"{"peerURLs":[1]}"#),
            "json: cannot unmarshal number into Go struct field .peerURLs of type string"
        );
        assert_eq!(
            refused("{]"),
            "invalid character ']' looking for beginning of object key string"
        );
    }

    #[test]
    fn a_content_type_is_taken_exactly_but_for_parameters() {
        assert_eq!(check_type(b"application/json"), Ok(()));
        assert_eq!(check_type(b"Application/JSON; charset=utf-8"), Ok(()));
        assert!(check_type(b"Application/JSON").is_err());
        assert_eq!(
            check_type(b" X/\xff<; a=b")
                .expect_err("parameters")
                .message,
            "Bad Content-Type x/\u{fffd}<, accept application/json".as_bytes()
        );
        assert_eq!(
            check_type(b"").expect_err("none").message,
            b"Bad Content-Type , accept application/json"
        );
    }
}
