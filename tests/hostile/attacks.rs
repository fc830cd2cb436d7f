//! Requests that are abandoned, incomplete, endless or malformed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::bystander::{Bystander, alone, attacked};
use crate::harness::client::{FORM, PATIENCE, form_request, request};
use crate::harness::server::is_release;
use crate::harness::{Connection, Json, Random, Server, wait_for};
use crate::transport::start;

/// Number of clients that request 2 MB each and do not read.
fn deaf_clients() -> usize {
    if is_release() { 64 } else { 8 }
}

#[test]
fn a_header_line_without_end() {
    attacked("a header line without end", |server| {
        for _ in 0..20 {
            let mut connection = server.connect();
            connection
                .write(b"GET /v2/keys HTTP/1.1\r\nHost: a\r\nX-Endless: ")
                .expect("a head");
            let piece = vec![b'a'; 1 << 20];
            let sent = (0..64)
                .take_while(|_| connection.write(&piece).is_ok())
                .count();
            assert!(sent < 64, "64 MiB of a header line were taken");
        }
    });
}

#[test]
fn five_hundred_half_requests_are_closed() {
    attacked("500 half requests", |server| {
        let mut halves = open_with(
            server,
            500,
            b"GET /v2/keys/a HTTP/1.1\r\nHost: a\r\nX-Half: ",
        );
        let deadline = Instant::now() + Duration::from_secs(30);
        for half in &mut halves {
            assert!(
                half.closes(deadline - Instant::now()),
                "a half request is still open after 30 s"
            );
        }
    });
}

#[test]
fn two_hundred_half_bodies() {
    attacked("200 half bodies", |server| {
        let head = "PUT /v2/keys/half HTTP/1.1\r\nHost: a\r\nContent-Length: 5120\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\n\r\nvalue=";
        let bytes = [head.as_bytes(), &[b'h'; 2500]].concat();
        let before = server.process().descriptors();
        let halves = open_with(server, 200, &bytes);
        wait_for("all to be accepted", PATIENCE, || {
            (server.process().descriptors() >= before + 200).then_some(())
        });
        drop(halves);
        wait_for("all to be closed", PATIENCE, || {
            (server.process().descriptors() <= before).then_some(())
        });
        assert_eq!(
            server.ask("GET", "/v2/keys/half", None).status,
            404,
            "half a body was written"
        );
    });
}

#[test]
fn clients_that_ask_for_2_mb_and_do_not_read() {
    let _alone = alone();
    let mut server = start();
    let value = format!("value={}", "x".repeat(10_000));
    for number in 0..210 {
        let answer = server.ask("PUT", &format!("/v2/keys/large/{number}"), Some(&value));
        assert_eq!(answer.status, 201);
    }
    assert!(server.ask("GET", "/v2/keys/large", None).body.len() > 2 << 20);
    let bystander = Bystander::start(&server);
    let bytes = form_request("GET", "/v2/keys/large", None);
    let mut readers = open_with(&server, deaf_clients(), &bytes);
    sleep(Duration::from_secs(2));
    let answer = readers[0]
        .answer(false, PATIENCE)
        .expect("one that reads after all");
    assert!(answer.body.len() > 2 << 20, "{} bytes", answer.body.len());
    drop(readers);
    bystander.finish("clients that ask for 2 MB and do not read", &mut server);
}

#[test]
fn a_body_of_100_mib() {
    attacked("a body of 100 MiB", |server| {
        let mut connection = server.connect();
        let mut bytes = request(
            "PUT",
            "/v2/keys/big",
            &[FORM, ("Content-Length", "104857600")],
            None,
        );
        bytes.extend_from_slice(b"value=");
        connection.write(&bytes).expect("a head");
        let piece = vec![b'b'; 1 << 20];
        let sent = (0..100)
            .take_while(|_| connection.write(&piece).is_ok())
            .count();
        println!("{sent} MiB were taken");
        assert!(sent < 100, "all of it was taken");
        assert_eq!(server.ask("GET", "/v2/keys/big", None).status, 404);
    });
}

#[test]
fn lengths_that_nobody_will_send() {
    attacked("Content-Length: 900000000000", |server| {
        for length in [
            "900000000000",
            "9223372036854775808",
            "18446744073709551615",
            "1073741824",
        ] {
            let mut connection = server.connect();
            let headers = [FORM, ("Content-Length", length)];
            connection
                .write(&request("PUT", "/v2/keys/never", &headers, None))
                .expect("a head");
            let answer = connection.answer(false, PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("Content-Length: {length}: {error}"));
            assert_eq!(answer.status, 400, "{length}: {answer:?}");
        }
        // And one that disconnects instead of waiting for the response.
        for _ in 0..20 {
            let headers = [FORM, ("Content-Length", "900000000000")];
            let mut connection = server.connect();
            connection
                .write(&request("PUT", "/v2/keys/never", &headers, None))
                .expect("a head");
        }
    });
}

#[test]
fn a_body_one_byte_too_long_gets_its_answer() {
    let _alone = alone();
    let server = start();
    let limit = 10 << 20;
    for (length, status) in [(limit, 201), (limit + 1, 400)] {
        let mut body = b"value=".to_vec();
        body.resize(length, b'v');
        let mut connection = server.connect();
        connection
            .write(&request("PUT", "/v2/keys/edge", &[FORM], Some(&body)))
            .expect("a request");
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        let code = || answer.json().get("errorCode").and_then(Json::number);
        assert_eq!(answer.status, status, "{length} bytes");
        assert!(status != 400 || code() == Some(210), "{}", answer.text());
    }
}

#[test]
fn a_thousand_malformed_heads() {
    const HEADS: [&str; 22] = [
        "GET\r\n\r\n",
        "GET /v2/keys\r\n\r\n",
        "GET /v2/keys HTTP/9.9\r\n\r\n",
        "GET /v2/keys HTTP/1.1 more\r\nHost: a\r\n\r\n",
        "GET /v2/keys with blank HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{1}T /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\n: a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        "GET /v2/keys HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nvalue",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked, chunked\r\n\r\n0\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "PUT /v2/keys/m HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nvalue\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3} a TLS hello\r\n\r\n",
    ];
    attacked("1,000 malformed heads", |server| {
        for number in 0..1000 {
            let head = HEADS[number % HEADS.len()];
            let mut connection = server.connect();
            // A second request follows each head. The server must not answer it, however it parses the first one.
            let both = [
                head.as_bytes(),
                &form_request("PUT", "/v2/keys/smuggled", Some("value=1")),
            ];
            if connection.write(&both.concat()).is_err() {
                continue;
            }
            match connection.answer(false, PATIENCE) {
                Ok(answer) => assert!((400..600).contains(&answer.status), "{head:?}: {answer:?}"),
                Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{head:?}"),
            }
            assert!(connection.closes(PATIENCE), "still open after {head:?}");
        }
        assert_eq!(server.ask("GET", "/v2/keys/smuggled", None).status, 404);
    });
}

#[test]
fn connect_and_reset() {
    attacked("2,000 connections that reset", |server| {
        let mut noise = Random(5);
        let bytes = form_request("PUT", "/v2/keys/reset", Some("value=1"));
        for _ in 0..2000 {
            let mut connection = server.connect();
            let end = noise.below(bytes.len() as u64 + 1) as usize;
            let _ = connection.write(&bytes[..end]);
            let socket = socket2::SockRef::from(connection.stream());
            socket
                .set_linger(Some(Duration::ZERO))
                .expect("linger 0: closing resets");
        }
    });
}

/// A client that reads one byte at a time gets the whole response.
#[test]
fn a_slow_reader_gets_everything() {
    let _alone = alone();
    let server = start();
    server.ask(
        "PUT",
        "/v2/keys/slow",
        Some(&format!("value={}", "s".repeat(3000))),
    );
    let mut connection = server.connect();
    connection
        .write(&form_request("GET", "/v2/keys/slow", None))
        .expect("a request");
    connection.read_at_most(1);
    let answer = connection.answer(false, PATIENCE).expect("an answer");
    assert!(answer.body.ends_with(b"}\n") && answer.body.len() > 3000);
}

/// Connections that have sent these bytes and wait.
pub fn open_with(server: &Server, count: usize, bytes: &[u8]) -> Vec<Connection> {
    let mut all: Vec<Connection> = (0..count).map(|_| server.connect()).collect();
    for connection in &mut all {
        connection.write(bytes).expect("a request");
    }
    all
}
