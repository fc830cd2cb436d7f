//! The endpoints of the peer port, which a node that wants to join reads first (spec §14).

use super::answer;
use super::cors::Grant;
use super::{Api, process};
use crate::engine::members::Member;
use crate::http1::{Answer, Reply, Request};
use serde::Serialize;

/// Handles `GET /members` and `/version`; everything else is 404.
pub fn handle(api: &Api, request: &Request<'_>, reply: Reply<'_>) {
    let grant = Grant::Nothing;
    match (request.method(), request.path()) {
        ("GET", b"/members") => reply.send(members(api)),
        (_, b"/members") => reply.send(answer::method_not_allowed("GET", &grant)),
        (_, b"/version") => process::version(request, &grant, reply),
        _ => reply.send(answer::not_found(&grant)),
    }
}

fn members(api: &Api) -> Answer {
    let list: Vec<Shown> = api.replica.status().members().iter().map(shown).collect();
    let body = serde_json::to_string(&list).expect("numbers and text become JSON");
    answer::json(200, (body + "\n").into_bytes(), &Grant::Nothing)
        .header("X-Etcd-Cluster-Id", api.cluster.text())
}

/// A member, with its fields in the reference's order. The id is a number. Fields that the member has not published yet
/// are left out.
#[derive(Serialize)]
struct Shown {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

fn shown(member: &Member) -> Shown {
    Shown {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        name: member.name.clone(),
        client_urls: member.client_urls.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_order_of_the_reference() {
        let mut member = Member {
            id: 1 << 63,
            name: "n1".to_owned(),
            peer_urls: vec!["http://a:1".to_owned()],
            client_urls: vec!["http://a:2".to_owned()],
        };
        let text = |member: &Member| serde_json::to_string(&shown(member)).expect("JSON");
        assert_eq!(
            text(&member),
            r#"{"id":9223372036854775808,"peerURLs":["http://a:1"],"name":"n1","clientURLs":["http://a:2"]}"#
        );
        member.name.clear();
        member.client_urls.clear();
        assert_eq!(
            text(&member),
            r#"{"id":9223372036854775808,"peerURLs":["http://a:1"]}"#
        );
    }
}
