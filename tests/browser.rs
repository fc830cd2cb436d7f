//! The page at `/` and the endpoints that it reads: `/edgetcd/status`, `/edgetcd/keys`, `/edgetcd/history`. What the page
//! does in a browser is tested by `tests/page`.

mod harness;

use harness::client::{PATIENCE, request};
use harness::{Answer, Cluster, Server};
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut connection = server.connect();
    let bytes = request(method, target, headers, None);
    connection.write(&bytes).expect("it is sent");
    let answer = connection.answer(method == "HEAD", PATIENCE);
    answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

fn get(server: &Server, target: &str) -> Value {
    let answer = ask(server, "GET", target, &[]);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn put(server: &Server, key: &str, body: &str) {
    let answer = server.ask("PUT", &format!("/v2/keys{key}"), Some(body));
    assert!(answer.status < 300, "{key}: {}", answer.text());
}

#[test]
fn only_browsers_get_the_page() {
    let server = Server::start(&[]);
    let page = ask(&server, "GET", "/", &[("Accept", BROWSER)]);
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().starts_with("<!doctype html>"));
    let head = ask(&server, "HEAD", "/", &[("Accept", BROWSER)]);
    assert_eq!(head.status, 200);
    for name in ["Content-Length", "ETag", "Content-Security-Policy"] {
        assert!(head.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), page.header(name));
    }
    for (method, accept) in [
        ("GET", "*/*"),
        ("GET", "application/json"),
        ("POST", BROWSER),
        ("DELETE", BROWSER),
    ] {
        let other = ask(&server, method, "/", &[("Accept", accept)]);
        assert_eq!(
            (other.status, other.text()),
            (404, "404 page not found\n".into()),
            "{method} {accept}"
        );
    }
    assert_eq!(ask(&server, "GET", "/", &[]).status, 404);
}

/// Browsers accept gzip. Other programs get the text.
#[test]
fn browsers_get_the_page_compressed() {
    let server = Server::start(&[]);
    let text = ask(&server, "GET", "/", &[("Accept", BROWSER)]);
    assert_eq!(text.header("Content-Encoding"), None);
    assert_eq!(text.header("Vary"), Some("Accept, Accept-Encoding"));
    let headers = [("Accept", BROWSER), ("Accept-Encoding", "deflate, gzip")];
    let packed = ask(&server, "GET", "/", &headers);
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert_ne!(packed.header("ETag"), text.header("ETag"));
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is a part of every system");
    let mut input = gzip.stdin.take().expect("it is piped");
    let bytes = packed.body.clone();
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let unpacked = gzip.wait_with_output().expect("its output");
    writing.join().expect("no panic").expect("gzip reads it");
    assert!(unpacked.status.success(), "the checksum and the length fit");
    assert_eq!(
        String::from_utf8(unpacked.stdout).expect("text"),
        text.text()
    );
}

#[test]
fn an_unchanged_page_is_not_sent_again() {
    let server = Server::start(&[]);
    let etag = ask(&server, "HEAD", "/", &[("Accept", BROWSER)]);
    let etag = etag.header("ETag").expect("a tag").to_owned();
    let again = ask(
        &server,
        "GET",
        "/",
        &[("Accept", BROWSER), ("If-None-Match", &etag)],
    );
    assert_eq!((again.status, again.text()), (304, String::new()));
    assert!(again.header("Content-Security-Policy").is_some());
    let changed = ask(
        &server,
        "GET",
        "/",
        &[("Accept", BROWSER), ("If-None-Match", "\"x\"")],
    );
    assert_eq!(changed.status, 200);
}

#[test]
fn the_policy_admits_the_own_script_and_the_members() {
    let cluster = Cluster::start(3, &[]);
    let page = ask(cluster.node(0), "GET", "/", &[("Accept", BROWSER)]);
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, sources) = policy.split_once("connect-src ").expect("a list");
    let sources: Vec<&str> = sources.split(' ').collect();
    for address in cluster.addresses() {
        assert!(
            sources.contains(&format!("http://{address}").as_str()),
            "{policy}"
        );
    }
    assert_eq!(sources.len(), 4, "{policy}");
    // The document names the same origins, so that it asks no others.
    let named = format!(
        "<meta name=\"members\" content=\"{}\">",
        sources[1..].join(" ")
    );
    assert!(page.text().contains(&named), "{named}");
}

#[test]
fn the_status_tells_the_leader_and_the_logs() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    put(cluster.node(leader), "/a", "value=v");
    let told = get(cluster.node(leader), "/edgetcd/status");
    assert_eq!(told["role"], "leader");
    assert_eq!(told["leader"], told["id"]);
    assert_eq!(told["election_timeout_ms"], 1000);
    let log = &told["log"];
    assert_eq!((&log["first"], &log["terms"][0][0]), (&1.into(), &1.into()));
    let number = |name: &str| log[name].as_u64().expect("a number");
    let last = number("last");
    assert!(last >= 5 && number("commit") <= last && number("stored") <= last);
    let members = list(&told["members"]);
    assert_eq!(members.len(), 3);
    for member in members {
        let is_self = member["id"] == told["id"];
        assert_eq!(member.get("matched").is_some(), !is_self);
        assert_eq!(
            (&member["learner"], &member["connected"]),
            (&false.into(), &true.into())
        );
    }
    let other = get(cluster.node(cluster.others(leader)[0]), "/edgetcd/status");
    assert_eq!(
        (&other["role"], &other["term"]),
        (&"follower".into(), &told["term"])
    );
    assert_eq!(other["leader"], told["id"]);
    // The next leader's first entry begins a term in its log.
    cluster.kill(leader);
    let next = cluster.wait_leader();
    let told = get(cluster.node(next), "/edgetcd/status");
    let terms = list(&told["log"]["terms"]);
    assert_eq!(terms.last().expect("a term")[1], told["term"]);
    assert!(terms.len() >= 2, "{terms:?}");
}

/// The page of a member shows what the others do, and no other page can read it.
#[test]
fn pages_of_members_may_read_the_status() {
    let cluster = Cluster::start(2, &[]);
    let [own, other] = [0, 1].map(|node| format!("http://{}", cluster.node(node).address()));
    let allowed = |target: &str, origin: &str| {
        let answer = ask(cluster.node(0), "GET", target, &[("Origin", origin)]);
        assert_eq!(answer.status, 200);
        answer
            .header("Access-Control-Allow-Origin")
            .map(str::to_owned)
    };
    for origin in [own, other.clone()] {
        assert_eq!(allowed("/edgetcd/status", &origin), Some(origin));
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1", ""] {
        assert_eq!(allowed("/edgetcd/status", origin), None, "{origin}");
    }
    for keys in ["/v2/keys/", "/edgetcd/keys", "/edgetcd/history"] {
        assert_eq!(allowed(keys, &other), None, "{keys}");
    }
}

fn keys_of(page: &Value) -> Vec<String> {
    list(&page["nodes"])
        .iter()
        .map(|node| node["key"].as_str().expect("a key").to_owned())
        .collect()
}

#[test]
fn keys_come_page_by_page() {
    let server = Server::start(&[]);
    for number in 0..25 {
        put(
            &server,
            &format!("/d/k{number:02}"),
            &format!("value={}", "x".repeat(number)),
        );
    }
    put(&server, "/d/sub/x", "value=v&ttl=100");
    put(&server, "/d/_hidden", "value=v");
    put(&server, "/e%20f", "value=v");
    let top = get(&server, "/edgetcd/keys");
    assert_eq!(keys_of(&top), ["/d", "/e f"]);
    let dir = &top["nodes"][0];
    assert_eq!((&dir["dir"], &dir["children"]), (&true.into(), &27.into()));
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(
            &server,
            &format!("/edgetcd/keys?prefix=/d/&limit=10{after}"),
        );
        found.extend(keys_of(&page));
        match page.get("next") {
            Some(next) => after = format!("&after={}", next.as_str().expect("text")),
            None => break,
        }
    }
    let mut expected: Vec<String> = (0..25).map(|number| format!("/d/k{number:02}")).collect();
    expected.push("/d/sub".to_owned());
    assert_eq!(found, expected);
    let some = get(&server, "/edgetcd/keys?prefix=/d/k0&recursive=true");
    assert_eq!(keys_of(&some).len(), 10);
    assert_eq!(some["nodes"][7]["bytes"], 7);
    let deep = get(&server, "/edgetcd/keys?prefix=/d/s&recursive=true");
    assert_eq!(keys_of(&deep), ["/d/sub", "/d/sub/x"]);
    assert!(deep["nodes"][1]["ttl"].as_u64() > Some(90));
    assert_eq!(
        keys_of(&get(
            &server,
            "/edgetcd/keys?prefix=/d/&hidden=true&limit=1"
        )),
        ["/d/_hidden"]
    );
    assert!(keys_of(&get(&server, "/edgetcd/keys?prefix=/none/")).is_empty());
}

#[test]
fn a_key_that_is_no_text_has_a_path() {
    let server = Server::start(&[]);
    put(&server, "/%ff%fe", "value=v");
    put(&server, "/z", "value=v");
    let page = get(&server, "/edgetcd/keys");
    assert_eq!(page["nodes"][0].get("path"), None);
    assert_eq!(page["nodes"][1]["path"], "/%FF%FE");
    put(&server, "/%ff%fe%fd", "value=v");
    let page = get(&server, "/edgetcd/keys?limit=2");
    assert_eq!(page["next"], "/%FF%FE");
    let rest = get(&server, "/edgetcd/keys?after=/%FF%FE");
    assert_eq!(rest["nodes"][0]["path"], "/%FF%FE%FD");
}

#[test]
fn wrong_parameters_are_refused() {
    let server = Server::start(&[]);
    for target in [
        "/edgetcd/keys?limit=0",
        "/edgetcd/keys?limit=1001",
        "/edgetcd/keys?recursive=yes",
        "/edgetcd/keys?prefix=a",
        "/edgetcd/history?limit=101",
        "/edgetcd/history?before=x",
    ] {
        let answer = ask(&server, "GET", target, &[]);
        assert_eq!(answer.status, 400, "{target}");
        assert!(
            answer.text().starts_with("{\"message\":\""),
            "{target}: {}",
            answer.text()
        );
    }
    for target in ["/edgetcd/keys", "/edgetcd/history", "/edgetcd/status"] {
        assert_eq!(ask(&server, "PUT", target, &[]).status, 405, "{target}");
    }
}

#[test]
fn the_history_has_earlier_values_and_deleted_keys() {
    let server = Server::start(&[]);
    put(&server, "/a", "value=one");
    put(&server, "/a", "value=two");
    put(&server, "/b/c", &format!("value={}", "x".repeat(5000)));
    assert_eq!(ask(&server, "DELETE", "/v2/keys/a", &[]).status, 200);
    assert_eq!(
        ask(&server, "DELETE", "/v2/keys/b?recursive=true", &[]).status,
        200
    );
    let told = get(&server, "/edgetcd/history?key=/a");
    let changes = list(&told["changes"]);
    let actions: Vec<&Value> = changes.iter().map(|change| &change["action"]).collect();
    assert_eq!(actions, ["delete", "set", "set"]);
    assert_eq!(changes[0]["before"]["value"], "two");
    assert!(changes[0].get("after").is_none() && changes[2].get("before").is_none());
    assert_eq!(changes[1]["before"]["value"], "one");
    assert_eq!(changes[1]["after"]["value"], "two");
    assert!(told.get("next").is_none() && told["first"].as_u64() >= Some(1));
    let removed = get(&server, "/edgetcd/history?recursive=true&removed=true");
    let keys: Vec<&Value> = list(&removed["changes"])
        .iter()
        .map(|change| &change["key"])
        .collect();
    assert_eq!(keys, ["/b", "/a"]);
    assert_eq!(removed["changes"][0]["before"]["dir"], true);
    let long = get(&server, "/edgetcd/history?key=/b&recursive=true");
    let change = &long["changes"][1];
    assert_eq!(
        (&change["key"], &change["after"]["bytes"]),
        (&"/b/c".into(), &5000.into())
    );
    assert!(change["after"].get("value").is_none());
    // Page by page, from the newest on.
    let first = get(&server, "/edgetcd/history?key=/a&limit=2");
    let rest = get(
        &server,
        &format!("/edgetcd/history?key=/a&limit=2&before={}", first["next"]),
    );
    assert_eq!(
        (list(&first["changes"]).len(), list(&rest["changes"]).len()),
        (2, 1)
    );
    assert!(rest.get("next").is_none());
}
