//! Limits on what a client may use: time, bytes, memory.

use crate::support::{Client, Pattern, Place, eventually};
use edgetcd::http1::Limits;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(500);

/// The time until the connection ends, and the bytes received before.
fn until_end(mut client: Client) -> (Duration, String) {
    let start = Instant::now();
    let wire = String::from_utf8(client.rest()).expect("text");
    (start.elapsed(), wire)
}

#[test]
fn a_head_must_be_complete_in_time() {
    let place = Place::open(
        2,
        Limits {
            head_time: SHORT,
            ..Limits::default()
        },
    );
    let mut client = place.client();
    client.send("GET /a HTTP/1.1\r\n");
    let (time, wire) = until_end(client);
    assert!(wire.starts_with("HTTP/1.1 408 "), "{wire}");
    assert!((SHORT..10 * SHORT).contains(&time), "after {time:?}");
}

#[test]
fn five_hundred_half_requests_are_closed() {
    let limits = Limits {
        head_time: SHORT,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let mut clients: Vec<_> = (0..500).map(|_| place.client()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: a");
    }
    for client in clients {
        assert!(until_end(client).1.starts_with("HTTP/1.1 408 "));
    }
    eventually("all are closed", || place.http_server.stats().open == 0);
}

#[test]
fn a_head_that_trickles_gets_no_more_time() {
    let limits = Limits {
        head_time: SHORT,
        linger_time: SHORT / 15,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let (mut client, start) = (place.client(), Instant::now());
    client.send("GET /a HTTP/1.1\r\nX: ");
    // After the response, the connection may stay open for a while. Otherwise the client could get a reset before it
    // reads the response.
    eventually("a client that sends a byte now and then is cut", || {
        client.socket.write_all(b"x").is_err()
    });
    assert!(start.elapsed() < 20 * SHORT, "after {:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let place = Place::open(
        2,
        Limits {
            idle_time: Some(SHORT),
            ..Limits::default()
        },
    );
    let silent = place.client();
    let mut used = place.client();
    used.is_served();
    for client in [silent, used] {
        let (time, wire) = until_end(client);
        assert_eq!(wire, "");
        assert!(time < 10 * SHORT, "after {time:?}");
    }
}

/// Half of the places are used by clients that send nothing, some by clients that were served. New clients get a
/// place, and clients that wait for a response keep theirs.
#[test]
fn idle_connections_make_way_when_places_are_scarce() {
    let limits = Limits {
        connections: 64,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let mut parked = place.client();
    parked.get("/park");
    parked.head();
    let mut used = place.client();
    used.is_served();
    let silent: Vec<_> = (0..62).map(|_| place.client()).collect();
    eventually("all places are taken", || {
        place.http_server.stats().open == 64
    });
    let ask = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    eventually("a newcomer is served", || {
        place.client().ask(ask).status == 200
    });
    used.is_served();
    place.desk.end_all("b");
    assert_eq!(parked.chunk(), b"b");
    drop(silent);
}

#[test]
fn requests_in_between_keep_a_connection() {
    let place = Place::open(
        2,
        Limits {
            idle_time: Some(SHORT),
            ..Limits::default()
        },
    );
    let (mut client, start) = (place.client(), Instant::now());
    while start.elapsed() < 3 * SHORT {
        client.is_served();
        std::thread::sleep(SHORT / 10);
    }
}

#[test]
fn a_request_that_waits_for_its_answer_has_no_limit() {
    let limits = Limits {
        idle_time: Some(SHORT),
        head_time: SHORT,
        write_time: SHORT,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let (mut later, mut parked) = (place.client(), place.client());
    later.get("/later?a");
    parked.get("/park");
    parked.head();
    let ticket = place.desk.ticket("a");
    std::thread::sleep(3 * SHORT);
    ticket.send(edgetcd::http1::Answer::text(200, "a"));
    place.desk.end_all("b");
    assert_eq!(
        (later.answer().body, parked.chunk()),
        (b"a".to_vec(), b"b".to_vec())
    );
}

#[test]
fn a_body_must_not_be_too_slow() {
    let limits = Limits {
        body_time: SHORT,
        body_rate: 10_000,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let mut slow = place.client();
    slow.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhello");
    let (time, wire) = until_end(slow);
    assert!(wire.starts_with("HTTP/1.1 408 "), "{wire}");
    assert!((SHORT..10 * SHORT).contains(&time), "after {time:?}");
}

#[test]
fn a_body_that_is_fast_enough_may_take_long() {
    let limits = Limits {
        body_time: SHORT,
        body_rate: 10_000,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let (mut client, start) = (place.client(), Instant::now());
    let length = 200_000;
    client.send(format!(
        "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
    ));
    for _ in 0..20 {
        client.send("x".repeat(length / 20));
        std::thread::sleep(SHORT / 6);
    }
    assert!(start.elapsed() > 2 * SHORT);
    assert_eq!(
        client.answer().body,
        b"PUT /a ? none @ h body [200000 bytes]"
    );
}

#[test]
fn an_answer_that_nobody_reads_is_cut() {
    let place = Place::open(
        2,
        Limits {
            write_time: SHORT,
            ..Limits::default()
        },
    );
    let mut client = place.client();
    client.get("/stream?50000000");
    eventually("it is closed", || {
        let stats = place.http_server.stats();
        stats.open == 0 && stats.requests == 1
    });
    assert!(client.rest().len() < 50_000_000);
}

#[test]
fn heads_up_to_the_limit_are_read() {
    let place = Place::open(2, Limits::default());
    let fits = |line: usize, headers: usize| {
        let target = "a".repeat(line - "GET / HTTP/1.1\r\n".len());
        let header = "x".repeat(headers - "Host: a\r\nX: \r\n\r\n".len());
        let mut client = place.client();
        client
            .ask(format!(
                "GET /{target} HTTP/1.1\r\nHost: a\r\nX: {header}\r\n\r\n"
            ))
            .status
    };
    assert_eq!(fits(1000, (1 << 20) - 1000), 200);
    assert_eq!(fits(1000, (1 << 20) - 999), 431);
    assert_eq!(fits((1 << 20) - 1000, 1000), 200);
    assert_eq!(fits(1 << 20, 1000), 431);
    assert_eq!(fits((1 << 20) + 1, 1000), 414);
}

/// The part of a head beyond 64 KiB uses the memory for bodies. A client for which there is no memory waits, and is
/// served when another one is done.
#[test]
fn long_heads_share_the_memory_of_bodies() {
    let limits = Limits {
        bodies_bytes: 4 << 20,
        body_bytes: 1 << 20,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let half = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: ", "a".repeat(900_000));
    let mut holding: Vec<_> = (0..4)
        .map(|_| {
            let mut client = place.client();
            client.send(&half);
            client
        })
        .collect();
    let mut small = place.client();
    small.is_served();
    holding
        .iter_mut()
        .for_each(|client| client.send("y\r\n\r\n"));
    for client in &mut holding {
        assert_eq!(client.answer().status, 200);
    }
    small.is_served();
}

#[test]
fn a_thousand_headers_are_read() {
    let place = Place::open(2, Limits::default());
    for (count, status) in [(999, 200), (1000, 431)] {
        let mut client = place.client();
        let headers = "X: y\r\n".repeat(count);
        let request = format!("GET /hello HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        assert_eq!(client.ask(request).status, status, "{count} and the host");
    }
}

/// How a client sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Reads the response before it sends anything.
    ReadsFirst,
    HangsUp,
    /// Sends it in small parts.
    Slowly,
    /// Sends all of it, and only then reads.
    AllAtOnce,
}

/// Tests each declared length with each way of sending. The server does not trust the declared length, refuses at
/// once, and a client that is still sending finds the response, up to 11 MiB.
#[test]
fn declared_lengths_are_not_believed() {
    let place = Place::open(2, Limits::default());
    let limit = 10 << 20;
    let refused = ["-5", "+5", "5\r\nContent-Length: 5", "18446744073709551615"];
    let lengths = [
        0,
        1024,
        limit - 1,
        limit,
        limit + 1,
        1_000_000_000,
        i64::MAX as u64,
    ];
    let table = lengths
        .iter()
        .map(u64::to_string)
        .chain(refused.iter().map(|s| s.to_string()));
    for length in table {
        let number = length.parse::<u64>().unwrap_or(5).min(11 << 20);
        let good = lengths
            .iter()
            .any(|l| l.to_string() == length && *l <= limit);
        for manner in [
            Manner::ReadsFirst,
            Manner::HangsUp,
            Manner::Slowly,
            Manner::AllAtOnce,
        ] {
            let mut client = place.client();
            client.send(format!(
                "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
            ));
            if good && manner == Manner::ReadsFirst && number > 0 {
                continue;
            }
            send_body(&mut client, manner, number as usize);
            if manner == Manner::HangsUp {
                continue;
            }
            let status = client.answer().status;
            assert_eq!(status, if good { 200 } else { 400 }, "{length} {manner:?}");
            place.serves();
        }
    }
    eventually("all are closed", || place.http_server.stats().open == 0);
}

fn send_body(client: &mut Client, manner: Manner, length: usize) {
    let part = |of: usize| vec![b'x'; of];
    match manner {
        Manner::ReadsFirst => {}
        Manner::HangsUp => client.send(part(length / 2)),
        Manner::AllAtOnce => client.send(part(length)),
        Manner::Slowly => {
            (0..10).for_each(|_| client.send(part(length / 10)));
            client.send(part(length % 10));
        }
    }
}

#[test]
fn a_client_that_goes_on_sending_is_left_after_eleven_mebibytes() {
    let place = Place::open(2, Limits::default());
    let mut client = place.client();
    client.send("PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let mut sent = 0;
    while client.socket.write_all(chunk.as_bytes()).is_ok() {
        sent += 1;
        assert!(sent < 100, "the server does not stop this client");
    }
    assert!(sent >= 20, "10 MiB are kept, 11 thrown away: {sent}");
    place.serves();
}

#[test]
fn large_chunked_bodies_are_put_together() {
    let place = Place::open(2, Limits::default());
    let mut client = place.client();
    client.send("PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..10_000 {
        client.send(format!("3e8\r\n{}\r\n", "x".repeat(1000)));
    }
    client.send("0\r\n\r\n");
    assert_eq!(
        client.answer().body,
        b"PUT /a ? none @ h body [10000000 bytes]"
    );
    client.is_served();
}

#[test]
fn bodies_wait_for_room_and_all_have_their_turn() {
    let limits = Limits {
        body_bytes: 256 << 10,
        bodies_bytes: 1 << 20,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    let mut clients: Vec<_> = (0..24).map(|_| place.client()).collect();
    let length = 200 << 10;
    for client in &mut clients {
        client.send(format!(
            "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        ));
        // More than all of them may use together. Unread bytes stay in the sockets.
        client.send("x".repeat(length - 1));
    }
    place.serves();
    place.serves();
    for client in clients.iter_mut().rev() {
        client.send("x");
    }
    for client in &mut clients {
        assert_eq!(
            client.answer().body,
            b"PUT /a ? none @ h body [204800 bytes]"
        );
    }
}

#[test]
fn a_body_that_waits_for_room_is_not_too_slow() {
    let limits = Limits {
        body_bytes: 64 << 10,
        bodies_bytes: 1,
        body_time: SHORT,
        body_rate: 20,
        ..Limits::default()
    };
    let place = Place::open(1, limits);
    let (mut elder, mut other) = (place.client(), place.client());
    for client in [&mut elder, &mut other] {
        client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
        client.send("x".repeat(40_000));
        place.serves();
    }
    let start = Instant::now();
    while start.elapsed() < 3 * SHORT {
        elder.send("x".repeat(20));
        std::thread::sleep(SHORT / 10);
    }
    // The client gives up, and the other one gets its memory.
    elder.socket.shutdown(Shutdown::Write).expect("shutdown");
    other.send("x".repeat(20_000));
    assert_eq!(other.answer().body, b"PUT /a ? none @ h body [60000 bytes]");
}

/// A worker with memory for one body, and a slow client that uses all of it.
fn full(room_time: Duration) -> (Place, Client) {
    let limits = Limits {
        body_bytes: 64 << 10,
        bodies_bytes: 1,
        body_rate: 0,
        room_time,
        linger_time: SHORT,
        ..Limits::default()
    };
    let place = Place::open(1, limits);
    let mut elder = place.client();
    send_part(&mut elder);
    place.serves();
    (place, elder)
}

/// The larger part of a body of 60,000 bytes.
fn send_part(client: &mut Client) {
    client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
    client.send("x".repeat(40_000));
}

#[test]
fn a_body_does_not_wait_for_room_for_ever() {
    let (place, mut elder) = full(SHORT);
    let mut other = place.client();
    send_part(&mut other);
    let (time, wire) = until_end(other);
    assert!(wire.starts_with("HTTP/1.1 503 "), "{wire}");
    assert!((SHORT..20 * SHORT).contains(&time), "after {time:?}");
    elder.send("x".repeat(20_000));
    assert_eq!(elder.answer().body, b"PUT /a ? none @ h body [60000 bytes]");
}

#[test]
fn who_gives_up_while_waiting_for_room_is_let_go() {
    let (place, mut elder) = full(Duration::from_secs(3600));
    let (mut gone, mut whole) = (place.client(), place.client());
    send_part(&mut gone);
    send_part(&mut whole);
    whole.send("x".repeat(20_000));
    for client in [&gone, &whole] {
        client.socket.shutdown(Shutdown::Write).expect("shutdown");
    }
    assert_eq!(gone.rest(), b"", "it can never be complete");
    // The other client has sent its whole body and waits for its response.
    elder.send("x".repeat(20_000));
    for client in [&mut elder, &mut whole] {
        assert_eq!(
            client.answer().body,
            b"PUT /a ? none @ h body [60000 bytes]"
        );
    }
}

/// Opens clients that do not read their responses, and waits until at most `most` are left. A client that reads is
/// served.
fn unread(place: &Place, count: usize, path: impl Fn(usize) -> String, most: usize) {
    let before = place.http_server.stats().requests;
    let mut clients: Vec<_> = (0..count)
        .map(|number| {
            let mut client = place.client();
            client.get(&path(number));
            client
        })
        .collect();
    eventually("all have asked", || {
        place.http_server.stats().requests >= before + count as u64
    });
    eventually("some are cut", || place.http_server.stats().open <= most);
    let mut reader = place.client();
    reader.get("/stream?4000000");
    let body = reader.answer().body;
    assert!((0..4_000_000).all(|at| body[at] == Pattern::byte(at)));
    clients.retain_mut(|client| client.socket.peek(&mut [0]).is_ok());
    drop(clients);
}

#[test]
fn answers_that_are_not_read_are_cut_when_memory_is_scarce() {
    let limits = Limits {
        answers_bytes: 10 << 20,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    // Responses that were rendered as a whole.
    unread(&place, 20, |_| "/bytes?4000000".into(), 4);
    eventually("all have gone", || place.http_server.stats().open == 0);
    // Each client holds a slice of these.
    unread(&place, 400, |_| "/stream?40000000".into(), 400);
}

#[test]
fn what_unread_answers_keep_alive_has_a_limit() {
    let limits = Limits {
        pinned_bytes: 8 << 20,
        ..Limits::default()
    };
    let place = Place::open(2, limits);
    // Data that several responses keep alive counts once.
    let mut same: Vec<_> = (0..40).map(|_| place.client()).collect();
    same.iter_mut().for_each(|client| client.get("/pinned?1"));
    same.iter_mut().for_each(|client| {
        client.head();
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(place.http_server.stats().open, 40);
    drop(same);
    eventually("all have gone", || place.http_server.stats().open == 0);
    unread(&place, 40, |number| format!("/pinned?{number}"), 8);
}

#[test]
fn a_request_may_take_several_turns() {
    let place = Place::open(1, Limits::default());
    let mut client = place.client();
    let body = "x".repeat(100);
    let requests = format!(
        "GET /turns?5 HTTP/1.1\r\nHost: a\r\n\r\n\
         PUT /turns?3 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{body}\
         PUT /turns?3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n\
         GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let wanted = [
        "GET /turns ? 5 @ a body []".to_owned(),
        format!("PUT /turns ? 3 @ a body [{body}]"),
        "PUT /turns ? 3 @ a body [abc]".to_owned(),
        "hello".to_owned(),
    ];
    for split in [1, 7, 80, requests.len()] {
        for part in requests.as_bytes().chunks(split) {
            client.send(part);
        }
        for wanted in &wanted {
            assert_eq!(String::from_utf8_lossy(&client.answer().body), *wanted);
        }
    }
    eventually("each is counted once", || {
        place.http_server.stats().requests == 16
    });
    // The client resets the connection while the handler is busy.
    let mut gone = place.client();
    gone.get("/turns?1000000000");
    place.serves();
    gone.reset();
    eventually("it is let go", || place.http_server.stats().open == 1);
    client.is_served();
}

/// The request stays as it was, with its body, while another thread works for it. The requests after it wait.
#[test]
fn a_suspended_request_is_handled_again() {
    let place = Place::open(1, Limits::default());
    let mut client = place.client();
    for round in ["a", "b"] {
        let body = "x".repeat(100_000);
        client.send(
            format!(
                "GET /suspend?{round}1 HTTP/1.1\r\nHost: a\r\n\r\n\
                 PUT /suspend?{round}2 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}\
                 PUT /suspend?{round}3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
                 GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            .as_bytes(),
        );
        for (number, body) in [("1", ""), ("2", "100000 bytes"), ("3", "ab")] {
            let query = format!("{round}{number}");
            let suspended = place.desk.suspended(&query);
            place.serves();
            suspended.go_on(Box::new("done".to_owned()));
            let answer = client.answer();
            let text = String::from_utf8_lossy(&answer.body);
            let method = if number == "1" { "GET" } else { "PUT" };
            assert_eq!(
                text,
                format!("{method} /suspend ? {query} @ a body [{body}]done")
            );
        }
        assert_eq!(client.answer().body, b"hello");
    }
    // The client is gone when the result is there.
    let mut gone = place.client();
    gone.get("/suspend?gone");
    let suspended = place.desk.suspended("gone");
    gone.reset();
    suspended.go_on(Box::new("done".to_owned()));
    eventually("it is let go", || place.http_server.stats().open == 1);
    // The other thread fails.
    let mut dropped = place.client();
    dropped.get("/suspend?dropped");
    drop(place.desk.suspended("dropped"));
    dropped.is_closed();
    client.is_served();
}

/// A pager, or a client between two requests, may be idle as long as no other client needs its place.
#[test]
fn by_default_a_client_may_pause() {
    let limits = Limits::default();
    assert!(limits.write_time >= Duration::from_secs(600));
    assert_eq!(limits.idle_time, None);
}
