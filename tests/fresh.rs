//! What the first clients of a new cluster see: indexes that the reference counts alike, and answers whose text is
//! the reference's to the byte.
//!
//! `EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test fresh` asks the reference the same.

mod harness;

use harness::client::{PATIENCE, form_request, request};
use harness::cluster::Cluster;
use harness::{Connection, Line, Server};

fn put(server: &Server, key: &str, value: &str) -> u64 {
    let answer = server.ask(
        "PUT",
        &format!("/v2/keys{key}"),
        Some(&format!("value={value}")),
    );
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    let written = answer
        .json()
        .at("/node/modifiedIndex")
        .and_then(|index| index.number());
    assert_eq!(written, Some(answer.index()));
    answer.index()
}

/// A parked watch of the whole store from `index` on.
fn watch(server: &Server, index: u64) -> Connection {
    let mut watch = server.connect();
    let target = format!("/v2/keys/?wait=true&recursive=true&waitIndex={index}");
    watch
        .write(&form_request("GET", &target, None))
        .expect("a request");
    assert_eq!(watch.head(false, PATIENCE).expect("a head").status, 200);
    watch
}

fn event(watch: &mut Connection) -> String {
    match watch.line(PATIENCE) {
        Line::Is(line) => String::from_utf8_lossy(&line).into_owned(),
        other => panic!("no event: {other:?}"),
    }
}

/// The member, its URLs and the cluster version have an index each.
#[test]
fn the_first_key_of_one_member_has_index_4() {
    let mut server = Server::start(&[]);
    assert_eq!(server.ask("GET", "/v2/keys/", None).index(), 3);
    assert_eq!(server.ask("GET", "/v2/keys/none", None).index(), 3);
    let mut watches: Vec<Connection> = [1, 2, 3, 4].map(|index| watch(&server, index)).into();
    assert_eq!(put(&server, "/a", "1"), 4);
    for watch in &mut watches {
        let event = event(watch);
        assert!(event.contains(r#""modifiedIndex":4"#), "{event}");
    }
    let queued = server.ask("POST", "/v2/keys/queue", Some("value=1"));
    assert!(
        queued.text().contains("/queue/00000000000000000005"),
        "{}",
        queued.text()
    );
    server.stop();
    server.launch();
    assert_eq!(put(&server, "/a", "2"), 6, "a restart tells nothing new");
}

/// Changes of the members take places in the history of events that watches look back into.
#[test]
fn the_history_counts_what_is_no_key() {
    let server = Server::start(&[]);
    for number in 0..998 {
        put(&server, "/a", &number.to_string());
    }
    let outdated = server.ask("GET", "/v2/keys/a?wait=true&waitIndex=1", None);
    assert_eq!(outdated.status, 400);
    assert!(outdated.text().contains("[2/1]"), "{}", outdated.text());
    let kept = server.ask("GET", "/v2/keys/a?wait=true&waitIndex=2", None);
    assert!(
        kept.text().contains(r#""modifiedIndex":4"#),
        "{}",
        kept.text()
    );
}

#[test]
fn the_first_key_of_three_members_has_index_8_and_changes_of_members_count() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.wait_leader();
    // All three have told their URLs when the third one's are known everywhere.
    let told = |cluster: &Cluster| {
        let members = cluster.members(0);
        members.iter().all(|member| {
            member
                .get("clientURLs")
                .is_some_and(|urls| !urls.items().is_empty())
        })
    };
    harness::wait_for("all members to be published", PATIENCE, || {
        told(&cluster).then_some(())
    });
    harness::wait_for("the cluster version", PATIENCE, || {
        (cluster.node(0).ask("GET", "/v2/keys/", None).index() == 7).then_some(())
    });
    assert_eq!(put(cluster.node(0), "/a", "1"), 8);
    let node = cluster.add(0);
    assert_eq!(put(cluster.node(1), "/a", "2"), 10, "an addition");
    cluster.node_mut(node).launch();
    assert_eq!(put(cluster.node(1), "/a", "3"), 12, "its first start");
    cluster.remove(0, node);
    assert_eq!(
        put(cluster.node(2), "/a", "4"),
        15,
        "a removal, and that its id is used up"
    );
}

/// The reference escapes what HTML and JavaScript would trip over.
#[test]
fn json_is_escaped_as_the_reference_does() {
    let server = Server::start(&[]);
    let raw = "x<&>\u{2028}\u{2029}\u{7f}\u{8}\"\\é";
    let escaped = "x\\u003c\\u0026\\u003e\\u2028\\u2029\u{7f}\\u0008\\\"\\\\é";
    let encoded: String = raw.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = format!("value={encoded}");
    let set = server.ask("PUT", &format!("/v2/keys/dir/{encoded}"), Some(&body));
    let node = format!(
        r#"{{"key":"/dir/{escaped}","value":"{escaped}","modifiedIndex":4,"createdIndex":4}}"#
    );
    assert_eq!(
        set.text(),
        format!("{{\"action\":\"set\",\"node\":{node}}}\n")
    );
    let list = server.ask("GET", "/v2/keys/dir", None);
    assert_eq!(
        list.text(),
        format!(
            "{{\"action\":\"get\",\"node\":{{\"key\":\"/dir\",\"dir\":true,\"nodes\":[{node}],\"modifiedIndex\":4,\"createdIndex\":4}}}}\n"
        )
    );
    let none = server.ask("GET", "/v2/keys/%3Ca%26b%3E", None);
    assert!(
        none.text().contains(r#""cause":"/\u003ca\u0026b\u003e""#),
        "{}",
        none.text()
    );
    let failed = server.ask("PUT", "/v2/keys/dir/b?prevValue=%3C", Some("value=1"));
    assert_eq!(failed.status, 404);
    put(&server, "/c", "%26");
    let failed = server.ask("PUT", "/v2/keys/c?prevValue=%3C", Some("value=1"));
    assert!(
        failed.text().contains(r#""cause":"[\u003c != \u0026]""#),
        "{}",
        failed.text()
    );
    let history = server.ask(
        "GET",
        "/v2/keys/dir?wait=true&recursive=true&waitIndex=4",
        None,
    );
    assert_eq!(history.text(), set.text());
    let member = server.ask("DELETE", "/v2/members/%3Cb%3E", None);
    assert_eq!(
        member.text(),
        r#"{"message":"No such member: \u003cb\u003e"}"#
    );
}

/// A compare-and-swap may have its old value in the query.
#[test]
fn a_long_request_line_is_read() {
    let server = Server::start(&[]);
    put(&server, "/a", "1");
    let mut client = server.connect();
    let long = "v".repeat(70_000);
    assert_eq!(
        client
            .ask("GET", "/v2/keys/a", None)
            .expect("an answer")
            .status,
        200
    );
    let target = format!("/v2/keys/a?prevValue={long}");
    let refused = client
        .ask("PUT", &target, Some("value=2"))
        .expect("an answer");
    assert_eq!(refused.status, 412);
    assert!(refused.text().contains(&format!("[{long} != 1]")));
    assert_eq!(
        client
            .ask("PUT", "/v2/keys/a", Some(&format!("value={long}")))
            .expect("an answer")
            .status,
        200
    );
    let swapped = client
        .ask("PUT", &target, Some("value=2"))
        .expect("an answer");
    assert_eq!(swapped.status, 200);
    // So may any other part of the head be long.
    let headers: Vec<(String, String)> = (0..900)
        .map(|n| (format!("X-{n}"), "y".repeat(200)))
        .collect();
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    client
        .write(&request("GET", "/v2/keys/a", &headers, None))
        .expect("sent");
    assert_eq!(
        client.answer(false, PATIENCE).expect("an answer").status,
        200
    );
}
