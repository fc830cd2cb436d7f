//! Many clients at once, and how long other clients wait meanwhile.

use crate::child::{Child, Settings};
use crate::support::{Client, PATIENCE, Place, eventually};
use edgetcd::http1::Limits;
use std::io::Write;
use std::time::{Duration, Instant};

/// Sends GETs over one connection, until in one round of `count` all but one percent took less than `most`. On a busy
/// machine a round may be slow for another reason, but a stall of the server would affect all rounds.
#[track_caller]
fn gets_are_quick(client: &mut Client, path: &str, count: usize, most: Duration) {
    let mut get = || {
        let start = Instant::now();
        client.get(path);
        assert_eq!(client.answer().status, 200);
        start.elapsed()
    };
    eventually("99 of 100 GETs are quick", || {
        let mut times: Vec<_> = (0..count).map(|_| get()).collect();
        times.sort();
        times[count * 99 / 100] < most
    });
}

#[test]
fn two_hundred_simultaneous_long_polls_are_all_registered() {
    let place = Place::open(2, Limits::default());
    let mut waits = Vec::new();
    for round in 0..20 {
        let mut clients: Vec<_> = (0..200).map(|_| place.client()).collect();
        let start = Instant::now();
        clients.iter_mut().for_each(|client| client.get("/park"));
        let mut other = place.client();
        let asked = Instant::now();
        assert_eq!(
            other.ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").body,
            b"hello"
        );
        waits.push(asked.elapsed());
        eventually("all are registered", || place.desk.parked() == 200);
        let registered = start.elapsed();
        // Handshakes take their time in a program that is not optimized.
        let most = if crate::TLS {
            PATIENCE
        } else {
            Duration::from_secs(1)
        };
        assert!(registered < most, "round {round}: {registered:?}");
        place.desk.end_all("event");
        for client in &mut clients {
            client.head();
            assert_eq!(
                (client.chunk(), client.chunk()),
                (b"event".to_vec(), b"".to_vec())
            );
        }
    }
    // The median, because on a busy machine some rounds are slow.
    waits.sort();
    assert!(
        waits[10] < Duration::from_millis(50),
        "GETs meanwhile took {waits:?}"
    );
}

#[test]
fn small_answers_do_not_stall() {
    let place = Place::open(2, Limits::default());
    let most = Duration::from_millis(5);
    gets_are_quick(&mut place.client(), "/bytes?3000", 200, most);
}

#[test]
fn twenty_thousand_pipelined_requests_are_answered_in_order() {
    let child = Child::start(Settings::default());
    child.serves();
    let before = child.resident();
    let mut client = child.client();
    let count = 20_000;
    let mut writer = client.socket.try_clone().expect("clone");
    let sender = std::thread::spawn(move || {
        for number in 0..count {
            let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
            writer.write_all(request.as_bytes()).expect("send");
        }
    });
    let mut most = 0;
    for number in 0..count {
        let body = String::from_utf8(client.answer().body).expect("text");
        assert_eq!(body, format!("GET /{number} ? none @ a body []"));
        if number % 1000 == 0 {
            most = most.max(child.resident());
        }
    }
    sender.join().expect("no panic");
    assert!(
        most < before + (2 << 20),
        "it grew from {before} to {most} bytes"
    );
}

/// Clients that hold as many resources as they can, all at once, and the effect on other clients.
#[test]
fn clients_that_hold_on_hold_nobody_up() {
    let child = Child::start(Settings::default());
    let mut other = child.client();
    let most = Duration::from_millis(50);
    gets_are_quick(&mut other, "/hello", 200, most);
    let before = child.resident();
    let mut held = Vec::new();
    for index in 0..500 {
        let mut client = child.client();
        client.send(format!(
            "GET /half-a-request-{index} HTTP/1.1\r\nHost: a\r\nX: "
        ));
        held.push(client);
    }
    for _ in 0..200 {
        let mut client = child.client();
        client.send("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n");
        client.send("x".repeat(5000));
        held.push(client);
    }
    for _ in 0..64 {
        let mut client = child.client();
        client.get("/stream?2000000");
        held.push(client);
    }
    for _ in 0..1000 {
        let mut client = child.client();
        client.send("GET / HTTP/1.1\r\nHost : malformed\r\n\r\n");
        assert_eq!(client.answer().status, 400);
    }
    let mut endless = child.client();
    let mut line = 0;
    while endless.socket.write_all(&[b'x'; 1000]).is_ok() {
        line += 1000;
        assert!(
            line < 100 << 20,
            "a header line without end is read forever"
        );
    }
    gets_are_quick(&mut other, "/hello", 500, most);
    let grown = child.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
}
