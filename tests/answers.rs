//! Large responses to clients that do not read, or that pause. The server's memory must stay small, other clients
//! must be served, and a client that continues to read must get its whole response.

mod harness;

use harness::client::{PATIENCE, form_request};
use harness::{Connection, Line, Server, wait_for};
use socket2::SockRef;
use std::thread::sleep;
use std::time::Duration;

const VALUE_BYTES: usize = 3 << 19;
const CLIENTS: usize = 40;
/// Far below the total size of the responses: 60 MiB, and twice that if they contain two nodes.
const MEMORY_BAR: u64 = 24 << 20;

/// A value with characters to escape at its beginning, in the middle and at its end.
fn value(fill: char) -> String {
    let half = fill.to_string().repeat(VALUE_BYTES / 2);
    format!("<{half}\u{2028}{half}&")
}

fn escaped(value: &str) -> String {
    value
        .replace('<', "\\u003c")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
}

fn put(server: &Server, key: &str, value: &str) -> u64 {
    let text = value
        .replace('&', "%26")
        .replace('<', "%3C")
        .replace('\u{2028}', "%E2%80%A8");
    let answer = server.ask("PUT", key, Some(&format!("value={text}")));
    assert!([200, 201].contains(&answer.status), "{}", answer.status);
    answer.index()
}

fn ask(server: &Server, method: &str, target: &str, form: Option<&str>) -> Connection {
    let mut client = server.connect();
    client
        .write(&form_request(method, target, form))
        .expect("a request");
    client
}

/// Sends a request on many connections, waits until each response has begun, and measures the server's memory. Then
/// reads some of the responses, each of which must contain the `wanted` values.
fn hold(server: &Server, what: &str, method: &str, target: &str, wanted: &[&str]) {
    let before = server.process().resident_bytes();
    let form = (method == "PUT").then_some("refresh=true&ttl=1000&prevExist=true");
    let mut clients: Vec<Connection> = (0..CLIENTS)
        .map(|_| ask(server, method, target, form))
        .collect();
    for client in &clients {
        client
            .stream()
            .set_read_timeout(Some(4 * PATIENCE))
            .expect("a timeout");
        assert_eq!(
            client.stream().peek(&mut [0]).expect("an answer"),
            1,
            "{what}"
        );
    }
    let held = server.process().resident_bytes().saturating_sub(before);
    println!("{what}: {} MiB held", held >> 20);
    assert!(held < MEMORY_BAR, "{what}: {} MiB held", held >> 20);
    assert_eq!(server.ask("GET", "/health", None).status, 200);
    for client in clients.iter_mut().take(2) {
        holds(&read(client, target.contains("stream=")), wanted, what);
    }
    drop(clients);
    wait_for("the memory to go back to the system", PATIENCE, || {
        let held = server.process().resident_bytes().saturating_sub(before);
        (held < 16 << 20).then_some(())
    });
}

fn read(client: &mut Connection, is_stream: bool) -> Vec<u8> {
    if !is_stream {
        let answer = client.answer(false, PATIENCE).expect("all of the answer");
        assert_eq!(answer.status, 200);
        return answer.body;
    }
    client.head(false, PATIENCE).expect("a head");
    match client.line(PATIENCE) {
        Line::Is(line) => line,
        other => panic!("{other:?}"),
    }
}

/// Checks that the body contains the wanted values in order, without gaps.
fn holds(body: &[u8], wanted: &[&str], what: &str) {
    let mut rest = body;
    for part in wanted {
        let start = b"\"value\":\"";
        let at = rest.windows(start.len()).position(|window| window == start);
        rest = &rest[at.unwrap_or_else(|| panic!("{what}: no value")) + start.len()..];
        assert!(rest.starts_with(part.as_bytes()), "{what}: another value");
        rest = &rest[part.len()..];
        assert!(rest.starts_with(b"\""), "{what}: more of a value");
    }
    assert!(rest.ends_with(b"}\n"), "{what}");
}

#[test]
fn answers_that_are_not_read_hold_little() {
    let server = Server::start(&[]);
    let (old, new) = (value('o'), value('n'));
    put(&server, "/v2/keys/large/a", &old);
    let index = put(&server, "/v2/keys/large/a", &new);
    let (old, new) = (escaped(&old), escaped(&new));
    let key = "/v2/keys/large/a";
    hold(&server, "a value", "GET", key, &[&new]);
    hold(
        &server,
        "a quorum read",
        "GET",
        &format!("{key}?quorum=true"),
        &[&new],
    );
    hold(&server, "a listing", "GET", "/v2/keys/large", &[&new]);
    let past = format!("{key}?wait=true&waitIndex={index}");
    hold(&server, "an event of the past", "GET", &past, &[&new, &old]);
    let stream = format!("{past}&stream=true");
    hold(
        &server,
        "a stream from the past",
        "GET",
        &stream,
        &[&new, &old],
    );
    hold(
        &server,
        "a write that shows the values",
        "PUT",
        key,
        &[&new, &new],
    );
}

/// Like a pager: the client reads nothing for longer than the idle limit of a connection.
#[test]
fn a_reader_may_pause_within_a_listing() {
    readers_pause(Duration::from_secs(36));
}

/// Longer than the system gives clients whose host has vanished.
#[test]
#[ignore = "takes two minutes"]
fn a_reader_may_pause_for_minutes() {
    readers_pause(Duration::from_secs(120));
}

/// Most of a listing waits in the server. A response of a few hundred kilobytes waits in the system's buffers.
fn readers_pause(pause: Duration) {
    const SMALL_BYTES: usize = 300_000;
    let server = Server::start(&[]);
    let text = "p".repeat(1 << 20);
    for key in 0..12 {
        put(&server, &format!("/v2/keys/book/{key}"), &text);
    }
    let first = put(&server, "/v2/keys/page", &text[..SMALL_BYTES]);
    let page = format!("/v2/keys/page?wait=true&waitIndex={first}");
    let stream = format!("{page}&stream=true");
    let mut readers = [
        ("a listing", "/v2/keys/book", false, 12, text.len()),
        ("a value", "/v2/keys/page", false, 1, SMALL_BYTES),
        ("a watch", page.as_str(), false, 1, SMALL_BYTES),
        ("a stream", stream.as_str(), true, 1, SMALL_BYTES),
    ]
    .map(|reader| (small_reader(&server, reader.1), reader));
    sleep(pause);
    for (client, (what, _, is_stream, count, length)) in &mut readers {
        let body = read(client, *is_stream);
        let wanted: Vec<&str> = (0..*count).map(|_| &text[..*length]).collect();
        holds(&body, &wanted, what);
    }
}

/// A client whose receive buffer has a fixed size. It has sent its request.
fn small_reader(server: &Server, target: &str) -> Connection {
    let mut client = server.connect();
    SockRef::from(client.stream())
        .set_recv_buffer_size(64 << 10)
        .expect("a small buffer");
    client
        .write(&form_request("GET", target, None))
        .expect("a request");
    client
}

/// Short listings are rendered once, long ones are measured first. A client sees no difference.
#[test]
fn listings_of_all_lengths_are_whole() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let text = "l".repeat(16_000);
    for count in 1..=40 {
        let key = format!("/v2/keys/shelf/{count:02}");
        put(&server, &key, &text[..16_000 - count]);
        for target in ["/v2/keys/shelf", "/v2/keys/?recursive=true&quorum=true"] {
            client
                .write(&form_request("GET", target, None))
                .expect("a request");
            let answer = client.answer(false, PATIENCE).expect("a whole listing");
            let length = answer.body.len().to_string();
            assert_eq!(answer.header("content-length"), Some(length.as_str()));
            let wanted: Vec<&str> = (1..=count).map(|at| &text[..16_000 - at]).collect();
            holds(&answer.body, &wanted, target);
        }
    }
}
