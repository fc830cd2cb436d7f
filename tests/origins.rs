//! Access from browsers: `--cors`, foreign pages (hazard E7), `--host-whitelist`, OPTIONS. Also responses with a body
//! that is too long for one piece.

mod harness;

use harness::client::{FORM, PATIENCE, form_request};
use harness::{Answer, Connection, Server};

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

/// Sends a request with additional header lines.
fn ask(server: &Server, method: &str, target: &str, host: &str, more: &str) -> Answer {
    let mut connection = server.connect();
    let length = if method == "GET" {
        ""
    } else {
        "Content-Length: 7\r\n"
    };
    let body = if method == "GET" { "" } else { "value=1" };
    let (kind, form) = FORM;
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}{kind}: {form}\r\n{length}\r\n{body}"
    );
    connection.write(text.as_bytes()).expect("it is sent");
    connection.answer(false, PATIENCE).expect("an answer")
}

fn put(server: &Server, origin: &str) -> u16 {
    let more = format!("Origin: {origin}\r\n");
    ask(server, "PUT", "/v2/keys/a", "node:2379", &more).status
}

#[test]
fn a_write_from_a_foreign_page_is_refused() {
    let server = Server::start(&[]);
    assert_eq!(put(&server, "http://evil.example"), 403);
    assert_eq!(put(&server, "null"), 403);
    assert_eq!(
        put(&server, "http://node:1"),
        403,
        "another port is another origin"
    );
    assert_eq!(put(&server, "http://NODE:2379"), 201, "its own page");
    let curl = ask(&server, "PUT", "/v2/keys/a", "node:2379", "");
    assert_eq!(curl.status, 200, "a request without Origin is accepted");
    let origin = "Origin: http://evil.example\r\n";
    let read = ask(&server, "GET", "/v2/keys/a", "node:2379", origin);
    assert_eq!((read.status, read.header(ALLOW_ORIGIN)), (200, None));
    for method in ["POST", "DELETE"] {
        assert_eq!(
            ask(&server, method, "/v2/keys/a", "node", origin).status,
            403
        );
    }
}

#[test]
fn cors_admits_whom_it_names() {
    let server = Server::start(&["--cors=http://good.example,http://fine.example"]);
    assert_eq!(put(&server, "http://good.example"), 201);
    assert_eq!(put(&server, "http://evil.example"), 403);
    let with = |origin| {
        let more = format!("Origin: {origin}\r\n");
        let answer = ask(&server, "GET", "/nowhere", "node", &more);
        assert_eq!(answer.status, 404);
        answer.header(ALLOW_ORIGIN).map(str::to_owned)
    };
    assert_eq!(
        with("http://fine.example").as_deref(),
        Some("http://fine.example")
    );
    assert_eq!(with("http://evil.example"), None);
}

#[test]
fn cors_for_all_is_on_every_answer_but_that_to_options_asterisk() {
    let server = Server::start(&["--cors=*"]);
    assert_eq!(put(&server, "http://evil.example"), 201);
    let everybody = Some("*");
    let table = [
        ("*", None),
        ("/", everybody),
        ("/v2/keys/a", everybody),
        ("/v2/nothing", everybody),
    ];
    for (target, origin) in table {
        let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut connection = server.connect();
        connection.write(text.as_bytes()).expect("it is sent");
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header(ALLOW_ORIGIN), origin, "{target}");
        assert!(answer.text().is_empty());
    }
}

#[test]
fn a_whitelist_answers_other_hosts_421() {
    // Not started with `Server::start`, which sends requests by address.
    let mut server = Server::prepare(&["--host-whitelist=good.example,127.0.0.1"]);
    server.launch();
    let status = |host| ask(&server, "GET", "/version", host, "").status;
    assert_eq!(status("good.example"), 200);
    assert_eq!(status("good.example:2379"), 200);
    assert_eq!(status("evil.example"), 421);
    assert_eq!(status("good.example.evil.example"), 421);
    let absolute = ask(
        &server,
        "GET",
        "http://evil.example/version",
        "good.example",
        "",
    );
    assert_eq!(absolute.status, 421, "the target's authority counts");
}

#[test]
fn a_long_listing_has_its_exact_length() {
    let server = Server::start(&[]);
    let value = "x".repeat(1000);
    for number in 0..200 {
        let form = format!("value={value}{number}");
        let target = format!("/v2/keys/long/{number}");
        assert_eq!(server.ask("PUT", &target, Some(&form)).status, 201);
    }
    for target in ["/v2/keys/long", "/v2/keys/?recursive=true&quorum=true"] {
        let mut connection = server.connect();
        let listing = connection.ask("GET", target, None).expect("an answer");
        let length = listing
            .header("Content-Length")
            .expect("a length")
            .to_owned();
        assert_eq!(length, listing.text().len().to_string());
        assert!(listing.text().len() > 200_000);
        listing.json();
        head_only(&mut connection, target, &length);
    }
}

/// Sends HEAD on the same connection, and asserts that the connection still works.
fn head_only(connection: &mut Connection, target: &str, length: &str) {
    let asked = form_request("HEAD", target, None);
    connection.write(&asked).expect("it is sent");
    let head = connection.answer(true, PATIENCE).expect("an answer");
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some(length))
    );
    let again = connection.ask("GET", "/version", None).expect("an answer");
    assert_eq!(again.status, 200);
}
