//! Responses that are sent at once, later, in chunks, or by handing over the socket, and clients that disconnect
//! meanwhile.

use crate::support::{Client, Pattern, Place, eventually};
use edgetcd::http1::{Answer, Limits, Outbox};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn place() -> Place {
    Place::open(2, Limits::default())
}

fn chunk(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

#[test]
fn an_answer_may_come_later_from_any_thread() {
    let place = place();
    let mut clients: Vec<_> = (0..20).map(|_| place.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/later?{index}"));
    }
    let tickets: Vec<_> = (0..20)
        .map(|index| place.desk.ticket(&index.to_string()))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut outbox = Outbox::new();
            for (index, ticket) in tickets.into_iter().enumerate() {
                ticket.send_in(Answer::text(200, format!("for {index}")), &mut outbox);
            }
            outbox.flush();
        });
    });
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().body, format!("for {index}").into_bytes());
        client.is_served();
    }
}

#[test]
fn a_forgotten_ticket_or_reply_answers_500() {
    let place = place();
    let mut client = place.client();
    client.get("/later?x");
    drop(place.desk.ticket("x"));
    assert_eq!(client.answer().status, 500);
    client.is_closed();
    let mut client = place.client();
    assert_eq!(
        client.ask("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").status,
        500
    );
    client.is_closed();
}

#[test]
fn a_late_answer_never_reaches_the_next_client_in_the_slot() {
    let place = Place::open(1, Limits::default());
    let mut first = place.client();
    first.get("/later?first");
    let late = place.desk.ticket("first");
    first.reset();
    eventually("the first one has disconnected", || {
        place.http_server.stats().open == 0
    });
    let mut second = place.client();
    second.get("/later?second");
    let ticket = place.desk.ticket("second");
    let mut outbox = Outbox::new();
    late.send_in(Answer::text(200, "for the first"), &mut outbox);
    ticket.send_in(Answer::text(200, "for the second"), &mut outbox);
    outbox.flush();
    assert_eq!(second.answer().body, b"for the second");
    second.get("/hello");
    assert_eq!(second.answer().body, b"hello");
}

#[test]
fn a_late_chunk_never_reaches_the_next_request_of_its_client() {
    let place = Place::open(1, Limits::default());
    let mut client = place.client();
    client.get("/park");
    client.head();
    let parked = place.desk.lock().parked.remove(&1).expect("parked");
    let mut outbox = Outbox::new();
    parked.chunk_in(chunk("one"), &mut outbox);
    parked.end_in(chunk(""), &mut outbox);
    client.get("/park");
    outbox.flush();
    assert_eq!(
        (client.chunk(), client.chunk()),
        (b"one".to_vec(), b"".to_vec())
    );
    client.head();
    place.desk.end_all("two");
    assert_eq!(
        (client.chunk(), client.chunk()),
        (b"two".to_vec(), b"".to_vec())
    );
}

#[test]
fn pipelined_requests_wait_their_turn() {
    let place = place();
    let mut client = place.client();
    client.get("/later?a");
    client.get("/hello");
    client.get("/later?b");
    client.get("/hello");
    place.desk.ticket("a").send(Answer::text(200, "a"));
    assert_eq!(
        (client.answer().body, client.answer().body),
        (b"a".to_vec(), b"hello".to_vec())
    );
    place.desk.ticket("b").send(Answer::text(200, "b"));
    assert_eq!(
        (client.answer().body, client.answer().body),
        (b"b".to_vec(), b"hello".to_vec())
    );
}

#[test]
fn a_parked_answer_comes_in_chunks_and_keeps_the_connection() {
    let place = place();
    let mut client = place.client();
    for token in 1..=2 {
        client.get("/park");
        let head = client.head();
        assert_eq!(head.header("X-Token"), Some(token.to_string().as_str()));
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(head.header("Content-Length"), None);
        let parked = place.desk.lock().parked.remove(&token).expect("parked");
        let mut outbox = Outbox::new();
        parked.chunk_in(chunk("one"), &mut outbox);
        outbox.flush();
        assert_eq!(client.chunk(), b"one");
        parked.chunk_in(chunk("two"), &mut outbox);
        parked.end_in(chunk("three"), &mut outbox);
        outbox.flush();
        assert_eq!(
            (client.chunk(), client.chunk()),
            (b"two".to_vec(), b"three".to_vec())
        );
        assert_eq!(client.chunk(), b"");
    }
    client.is_served();
    assert!(
        place.desk.lock().gone.is_empty(),
        "an answer that ended is not gone"
    );
}

#[test]
fn a_parked_answer_in_http_1_0_ends_with_the_connection() {
    let place = place();
    let mut client = place.client();
    client.send("GET /park HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (head.header("Transfer-Encoding"), head.header("Connection")),
        (None, Some("close"))
    );
    place.desk.end_all("event");
    assert_eq!(client.rest(), b"event");
}

#[test]
fn an_aborted_answer_has_no_final_chunk() {
    let place = place();
    let mut client = place.client();
    client.get("/park");
    client.head();
    place.desk.lock().parked.remove(&1).expect("parked").abort();
    client.is_closed();
    eventually("the connection has ended", || {
        place.http_server.stats().open == 0
    });
    assert!(
        place.desk.lock().gone.is_empty(),
        "the handler aborted it, so it is not notified"
    );
}

/// A client that does something to its connection while its response is parked.
fn leaves_by(leave: impl FnOnce(Client) -> Option<Client>) {
    let place = place();
    let mut client = place.client();
    client.get("/park");
    client.head();
    let kept = leave(client);
    eventually("the client is seen to be gone", || {
        place.desk.lock().gone.contains(&1)
    });
    eventually("its connection is closed", || {
        place.http_server.stats().open == 0
    });
    drop(kept);
}

#[test]
fn a_client_that_closes_is_gone() {
    leaves_by(|client| {
        drop(client);
        None
    });
}

#[test]
fn a_client_that_resets_is_gone() {
    leaves_by(|client| {
        client.reset();
        None
    });
}

#[test]
fn a_client_that_closes_behind_unread_requests_is_gone() {
    leaves_by(|mut client| {
        (0..1000).for_each(|_| client.get("/hello"));
        drop(client);
        None
    });
}

#[test]
fn a_parked_client_that_shuts_its_sending_side_is_gone() {
    leaves_by(|client| {
        client.socket.shutdown(Shutdown::Write).expect("shutdown");
        Some(client)
    });
}

#[test]
fn a_client_that_parks_with_its_last_bytes_is_gone() {
    let place = place();
    let mut client = place.client();
    client.get("/park");
    client.socket.shutdown(Shutdown::Write).expect("shutdown");
    eventually("the client is seen to be gone", || {
        place.desk.lock().gone.contains(&1)
    });
}

#[test]
fn a_request_with_the_sending_side_shut_is_still_answered() {
    let place = place();
    let mut client = place.client();
    client.get("/later?a");
    client.get("/bytes?300000");
    client.socket.shutdown(Shutdown::Write).expect("shutdown");
    place.desk.ticket("a").send(Answer::text(200, "a"));
    assert_eq!(client.answer().body, b"a");
    assert_eq!(client.answer().body.len(), 300_000);
    client.is_closed();
}

#[test]
fn two_thousand_abandoned_watches_are_forgotten() {
    let place = place();
    // Two thousand handshakes of TLS may take longer than a connection may be idle.
    let parked = |_| {
        let mut client = place.client();
        client.get("/park");
        client
    };
    let clients: Vec<_> = (0..2000).map(parked).collect();
    eventually("all are parked", || place.desk.parked() == 2000);
    drop(clients);
    let start = Instant::now();
    eventually("all are gone", || {
        place.desk.parked() == 0 && place.http_server.stats().open == 0
    });
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "after {:?}",
        start.elapsed()
    );
}

/// Sends `count` chunks of `bytes` bytes on a stream whose client reads nothing. Returns whether the stream was cut.
fn lags_behind(count: usize, bytes: usize) -> bool {
    let place = Place::open(1, Limits::default());
    let mut client = place.client();
    client.get("/park");
    client.head();
    let event: Arc<[u8]> = vec![b'x'; bytes].into();
    let mut outbox = Outbox::new();
    for _ in 0..count {
        if let Some(parked) = place.desk.lock().parked.get(&1) {
            parked.chunk_in(Arc::clone(&event), &mut outbox);
        }
        outbox.flush();
    }
    // The only worker answers this request after it has processed the chunks.
    place.serves();
    let gone = place.desk.lock().gone.contains(&1);
    if !gone {
        place.desk.end_all("");
        assert_eq!(client_length(&mut client), count * bytes);
    }
    gone
}

fn client_length(client: &mut Client) -> usize {
    let mut length = 0;
    loop {
        match client.chunk().len() {
            0 => return length,
            count => length += count,
        }
    }
}

#[test]
fn a_stream_whose_client_lags_is_cut() {
    assert!(
        !lags_behind(90, 10 << 10),
        "neither 100 chunks nor much memory"
    );
    assert!(!lags_behind(500, 300), "what the socket takes");
    assert!(lags_behind(10_000, 4 << 10), "100 chunks");
    assert!(lags_behind(40, 4 << 20), "more than twice 64 MiB");
}

#[test]
fn a_large_body_goes_out_as_the_client_reads() {
    let place = place();
    let mut client = place.client();
    let length = 30_000_000;
    client.get(&format!("/stream?{length}"));
    client.get("/hello");
    let head = client.head();
    assert_eq!(head.header("Content-Length"), Some("30000000"));
    // No client waits for this response.
    place.serves();
    place.serves();
    let mut rest = client;
    let body = {
        let mut body = Vec::new();
        while body.len() < length {
            body.extend(rest.take(1.max((length - body.len()).min(1 << 20))));
        }
        body
    };
    assert!(
        body.iter()
            .enumerate()
            .all(|(at, &byte)| byte == Pattern::byte(at))
    );
    assert_eq!(rest.answer().body, b"hello");
}

#[test]
fn a_body_shorter_than_promised_costs_the_connection() {
    let place = place();
    let mut client = place.client();
    client.get("/short");
    client.get("/hello");
    let wire = String::from_utf8(client.rest()).expect("text");
    assert!(!wire.contains("hello"), "{wire}");
    place.serves();
}

#[test]
fn head_of_a_large_body_has_no_body() {
    let place = place();
    let mut client = place.client();
    for path in ["/stream?1000000", "/bytes?1000000", "/hello"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(client.head().header("Content-Length").is_some());
    }
    client.is_served();
}

#[test]
fn a_panic_ends_one_connection() {
    let place = Place::open(1, Limits::default());
    let mut other = place.client();
    other.get("/park");
    other.head();
    for _ in 0..3 {
        let mut client = place.client();
        client.get("/panic");
        assert_eq!(client.rest(), b"");
        place.serves();
    }
    place.desk.end_all("still here");
    assert_eq!(other.chunk(), b"still here");
}

#[test]
fn an_upgraded_socket_leaves_the_server() {
    let place = place();
    let mut client = place.client();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\n\r\nhello");
    let head = client.head();
    assert_eq!((head.status, head.header("Upgrade")), (101, Some("raft")));
    assert_eq!(head.header("Content-Length"), None);
    eventually("the socket was handed over", || {
        place.desk.lock().upgraded.len() == 1
    });
    let (mut socket, rest) = place.desk.lock().upgraded.remove(0);
    assert_eq!(
        (&rest[..], place.http_server.stats().open),
        (&b"hello"[..], 0)
    );
    place.http_server.stop(Duration::ZERO);
    client.send(" again");
    let mut read = [0; 6];
    socket
        .read_exact(&mut read)
        .expect("it blocks until the bytes are there");
    socket.write_all(&read).expect("send");
    assert_eq!(client.take(6), b" again");
}

#[test]
fn a_client_that_asks_gets_its_100() {
    let place = place();
    let head = "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n";
    let mut client = place.client();
    for (framing, body) in [
        ("Content-Length: 5\r\n\r\n", "hello"),
        (
            "Transfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        client.send(format!("{head}{framing}"));
        assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n");
        assert_eq!(client.ask(body).body, b"PUT /a ? none @ h body [hello]");
    }
    // If the body will be refused, the server sends no 100 Continue.
    let refused = client.ask(format!("{head}Content-Length: 99999999\r\n\r\n"));
    assert_eq!(refused.status, 400);
    client.is_closed();
}

#[test]
fn stopping_answers_what_waits_and_cuts_what_is_parked() {
    // There is one worker: when one connection was notified, all were.
    let place = Place::open(1, Limits::default());
    let mut parked = place.client();
    parked.get("/park");
    parked.head();
    let mut waiting = place.client();
    waiting.get("/later?a");
    let ticket = place.desk.ticket("a");
    let mut idle = place.client();
    idle.is_served();
    place.http_server.stop_accepting();
    let (http_server, start) = (place.http_server, Instant::now());
    let stopping = std::thread::spawn(move || http_server.stop(Duration::from_secs(10)));
    parked.is_closed();
    idle.is_closed();
    ticket.send(Answer::text(200, "done"));
    let last = waiting.answer();
    assert_eq!(
        (&last.body[..], last.header("Connection")),
        (&b"done"[..], Some("close"))
    );
    waiting.is_closed();
    stopping.join().expect("no panic");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        start.elapsed()
    );
    assert!(place.desk.lock().gone.contains(&1));
}

#[test]
fn stopping_sends_what_was_begun_and_begins_nothing() {
    let place = Place::open(1, Limits::default());
    let (mut idle, mut client) = (place.client(), place.client());
    // A connection that ends within its TLS handshake may be reset.
    idle.is_served();
    let length = 30_000_000;
    client.send(format!(
        "GET /stream?{length} HTTP/1.1\r\nHost: a\r\n\r\nGET /later?second HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    eventually("the answer has begun", || {
        place.http_server.stats().requests == 2
    });
    let (http_server, desk) = (place.http_server, place.desk);
    let stopping = std::thread::spawn(move || http_server.stop(Duration::from_secs(10)));
    // There is one worker: when it was notified, so was the other connection.
    idle.is_closed();
    let wire = client.rest();
    stopping.join().expect("no panic");
    let head = wire.windows(4).position(|four| four == b"\r\n\r\n");
    assert_eq!(wire.len(), head.expect("a head") + 4 + length);
    assert!(desk.lock().tickets.is_empty(), "the second was begun");
}

/// Uses its own address, so that no other test gets the released port.
#[test]
#[cfg(target_os = "linux")]
fn a_door_that_no_longer_accepts_has_closed_its_listener() {
    let place = Place::open_at([127, 0, 0, 2], 2, Limits::default());
    let mut client = place.client();
    eventually("the client is inside", || {
        place.http_server.stats().open == 1
    });
    place.http_server.stop_accepting();
    assert!(std::net::TcpStream::connect(place.address).is_err());
    client.get("/hello");
    assert_eq!(
        client.answer().body,
        b"hello",
        "a connected client is served"
    );
}

#[test]
fn stopping_has_a_deadline() {
    let place = place();
    let mut waiting = place.client();
    waiting.get("/later?a");
    let ticket = place.desk.ticket("a");
    let start = Instant::now();
    place.http_server.stop(Duration::from_millis(200));
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        start.elapsed()
    );
    ticket.send(Answer::text(200, "too late"));
    assert_eq!(waiting.rest(), b"");
}
