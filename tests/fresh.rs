//! The first indexes of a new cluster, which must equal the reference's, and responses whose text must equal the
//! reference's byte for byte.
//!
//! `EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test fresh` runs the same tests against the reference.

mod harness;

use std::time::Duration;

use harness::client::{PATIENCE, form_request, request};
use harness::cluster::Cluster;
use harness::server::program;
use harness::{Answer, Connection, Json, Line, Server, wait_for};

/// The reference does not start faster, and sets the cluster version some time after it begins to serve.
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// How long a watch must stay silent if no event in the history matches. A matching event would be returned at once.
const SILENCE: Duration = Duration::from_millis(200);

/// Each start of a member of the reference uses an index, even if nothing is new.
fn restarts_take_an_index() -> bool {
    program()[0].rsplit('/').next() == Some("etcd")
}

/// Waits for the index of the store. Fails if the index exceeds it.
fn wait_index(server: &Server, wanted: u64) {
    wait_for(&format!("index {wanted}"), STARTED_WITHIN, || {
        let index = server.ask("GET", "/v2/keys/", None).index();
        assert!(index <= wanted, "index {index} instead of {wanted}");
        (index == wanted).then_some(())
    });
}

/// What supervisors ask. A member that has no leader is in `cluster/without_leader.rs`, one whose disk hangs in
/// `cluster/hung_disk.rs` and `full_disk.rs`.
#[test]
fn a_new_server_is_live_and_ready() {
    if restarts_take_an_index() {
        return; // the reference has these paths in later versions only
    }
    let server = Server::start(&[]);
    let says = |target: &str| {
        let answer = server.ask("GET", target, None);
        (answer.status, answer.text())
    };
    assert_eq!(says("/livez"), (200, "ok\n".into()));
    assert_eq!(says("/readyz"), (200, "ok\n".into()));
    let all = "[+]raft ok\nlivez check passed\n";
    assert_eq!(says("/livez?verbose"), (200, all.into()));
    let all = "[+]leader ok\n[+]voter ok\n[+]disk_space ok\n[+]disk_sync ok\n[+]read_index ok\nreadyz check passed\n";
    assert_eq!(says("/readyz?verbose"), (200, all.into()));
    let some = "[+]leader ok\n[+]voter ok\n[+]disk_space ok\nreadyz check passed\n";
    let target = "/readyz?exclude=disk_sync&verbose&exclude=read_index";
    assert_eq!(says(target), (200, some.into()));
    for target in ["/livez", "/readyz"] {
        assert_eq!(server.ask("PUT", target, None).status, 405);
    }
}

/// Asks a server to set the peer URL of one of its members. Returns the status.
fn update_peer_url(server: &Server, id: &str, url: &str) -> u16 {
    let json = ("Content-Type", "application/json");
    let body = format!("{{\"peerURLs\":[\"{url}\"]}}");
    let target = format!("/v2/members/{id}");
    let mut connection = server.connect();
    connection
        .write(&request("PUT", &target, &[json], Some(body.as_bytes())))
        .expect("a request");
    let answer = connection.answer(false, STARTED_WITHIN);
    answer.expect("an answer").status
}

/// The error response to a watch for past events. None if the watch is accepted.
fn look_back(server: &Server, from: u64) -> Option<Answer> {
    let mut connection = server.connect();
    let target = format!("/v2/keys/none?wait=true&waitIndex={from}");
    connection
        .write(&form_request("GET", &target, None))
        .expect("a request");
    let mut head = connection.head(false, PATIENCE).expect("a head");
    match head.status {
        200 => None,
        _ => {
            let Line::Is(line) = connection.line(PATIENCE) else {
                panic!("no body: {head:?}")
            };
            head.body = line;
            Some(head)
        }
    }
}

fn cause(answer: Option<Answer>) -> Option<String> {
    let json = answer?.json();
    json.get("cause").and_then(Json::text).map(str::to_owned)
}

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

/// The member, its URLs and the cluster version use one index each.
#[test]
fn the_first_key_of_one_member_has_index_4() {
    let server = Server::start(&[]);
    wait_index(&server, 3);
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
}

/// The members' own changes are in the history, but no watch returns them.
#[test]
fn no_watch_sees_the_members() {
    let server = Server::start(&[]);
    wait_index(&server, 3);
    for from in 1..=4 {
        for target in [
            "/?recursive=true&",
            "/?recursive=true&stream=true&",
            "/?",
            "/none?",
        ] {
            let mut watch = server.connect();
            let target = format!("/v2/keys{target}wait=true&waitIndex={from}");
            watch
                .write(&form_request("GET", &target, None))
                .expect("a request");
            assert_eq!(watch.head(false, PATIENCE).expect("a head").index(), 3);
            assert_eq!(watch.line(SILENCE), Line::Silence, "{target}");
        }
    }
    let stats = server.ask("GET", "/v2/stats/store", None).json();
    let count = |name| stats.get(name).and_then(Json::number);
    assert_eq!(count("createSuccess"), Some(1), "the member");
    assert_eq!(count("setsSuccess"), Some(2), "its URLs, the version");
}

#[test]
fn a_restart_takes_an_index_only_for_new_urls() {
    if restarts_take_an_index() {
        return println!("skipped: in the reference each restart uses an index");
    }
    let mut server = Server::start(&[]);
    assert_eq!(put(&server, "/a", "1"), 4);
    server.kill();
    server.launch();
    wait_index(&server, 4);
    server.stop();
    let port = server.address().port();
    server.add_flag(&format!("--advertise-client-urls=http://localhost:{port}"));
    server.launch();
    wait_index(&server, 5);
    server.stop();
    server.launch();
    wait_index(&server, 5);
    assert_eq!(put(&server, "/a", "2"), 6);
}

#[test]
fn updates_of_members_take_places_in_the_history() {
    let server = Server::start(&[]);
    wait_index(&server, 3);
    let members = server.ask("GET", "/v2/members", None).json();
    let id = members.at("/members/0/id").and_then(Json::text);
    let id = id.expect("an id").to_owned();
    let url = format!("http://localhost:{}", server.peer_address().port());
    // The same URL again is also an update. An update of a member that does not exist is not.
    assert_eq!(update_peer_url(&server, &id, &url), 204);
    assert_eq!(update_peer_url(&server, &id, &url), 204);
    assert_eq!(update_peer_url(&server, "77", &url), 404);
    for index in 6..=999 {
        assert_eq!(put(&server, "/a", "1"), index);
    }
    assert_eq!(update_peer_url(&server, &id, &url), 204);
    assert_eq!(cause(look_back(&server, 1)), None, "1000 events are kept");
    assert_eq!(put(&server, "/a", "1"), 1001);
    let cleared = |range| Some(format!("the requested history has been cleared {range}"));
    assert_eq!(cause(look_back(&server, 1)), cleared("[2/1]"));
    assert_eq!(cause(look_back(&server, 2)), None);
    assert_eq!(update_peer_url(&server, &id, &url), 204);
    assert_eq!(cause(look_back(&server, 2)), cleared("[3/2]"));
    assert_eq!(cause(look_back(&server, 3)), None);
}

/// Member changes use places in the event history.
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
    // All three members have published their URLs when the third one's are known everywhere.
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

/// A member that joins by a snapshot, and all members after a restart.
#[test]
fn all_members_agree_on_the_index() {
    let mut cluster = Cluster::start(3, &[]);
    wait_index(cluster.node(0), 7);
    let new = cluster.add(0);
    cluster.restart(new);
    for node in 0..=new {
        wait_index(cluster.node(node), 9);
    }
    assert_eq!(put(cluster.node(new), "/a", "1"), 10);
    if restarts_take_an_index() {
        return;
    }
    (0..=new).for_each(|node| cluster.kill(node));
    cluster.launch();
    for node in 0..=new {
        wait_index(cluster.node(node), 10);
    }
}

/// `--force-new-cluster` removes the other members, and each removal uses two indexes.
#[test]
fn who_goes_on_alone_counts_those_that_are_left_behind() {
    if restarts_take_an_index() {
        return println!("skipped: in the reference each restart uses an index");
    }
    let mut cluster = Cluster::start(3, &[]);
    wait_index(cluster.node(0), 7);
    assert_eq!(put(cluster.node(0), "/a", "1"), 8);
    (0..3).for_each(|node| wait_index(cluster.node(node), 8));
    (0..3).for_each(|node| cluster.kill(node));
    cluster.node_mut(1).add_flag("--force-new-cluster=true");
    cluster.node_mut(1).launch();
    wait_index(cluster.node(1), 12);
    assert_eq!(put(cluster.node(1), "/a", "2"), 13);
}

/// The reference escapes characters that are special in HTML and JavaScript.
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
    // Other parts of the head may be long too.
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
