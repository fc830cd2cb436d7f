//! Handshakes and TLS records that are incomplete, malformed or many.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bystander::attacked;
use crate::harness::client::{PATIENCE, form_request};
use crate::harness::secure::Session;
use crate::harness::{Random, Server, wait_for};
use crate::transport::{authority, client, start_with};

/// Time limit of a handshake, and more, because other tests run on this machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);

/// A socket without a session.
fn raw(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.address()).expect("it listens");
    socket.set_read_timeout(Some(CLOSED_WITHIN)).expect("set");
    socket.set_write_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// Reads until the server closes the connection. Returns what it has sent, which may be cut off by a reset.
fn rest(mut socket: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes);
    let is_open = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!is_open, "the server does not close the connection");
    bytes
}

/// A server closes a connection with an alert or without.
fn is_refused(socket: &TcpStream) {
    let answer = rest(socket);
    let shown = answer.escape_ascii();
    assert!(matches!(answer.first(), None | Some(0x15)), "{shown}");
}

#[test]
fn ten_silent_clients_do_not_delay_an_eleventh() {
    attacked("ten silent clients", |server| {
        let _silent: Vec<_> = (0..10).map(|_| raw(server)).collect();
        let begun = Instant::now();
        assert_eq!(server.ask("GET", "/version", None).status, 200);
        // They are closed after ten seconds, so that a server which serves one after the other takes longer.
        assert!(begun.elapsed() < Duration::from_secs(9), "{begun:?}");
    });
}

#[test]
fn five_hundred_half_handshakes_are_closed() {
    attacked("500 half handshakes", |server| {
        let greeting = Session::greeting(client());
        let halves = (0..500).map(|number| {
            let mut half = raw(server);
            let end = number * greeting.len() / 500;
            half.write_all(&greeting[..end]).expect("a part");
            half
        });
        let halves: Vec<_> = halves.collect();
        halves.iter().for_each(is_refused);
    });
}

/// The server has sent its part of the handshake, and the client says nothing any more.
#[test]
fn two_hundred_clients_that_do_not_answer_the_server() {
    attacked("200 clients that do not answer", |server| {
        let silent = (0..200).map(|_| {
            let socket = raw(server);
            Session::greet(client(), &socket).expect("it listens");
            socket
        });
        let silent: Vec<_> = silent.collect();
        for socket in &silent {
            assert!(!rest(socket).is_empty(), "the server's part");
        }
    });
}

#[test]
fn a_thousand_handshakes_at_once() {
    attacked("1,000 handshakes at once", |server| {
        let begun = (0..1000).map(|_| {
            let socket = raw(server);
            let session = Session::greet(client(), &socket).expect("it listens");
            (socket, session)
        });
        let begun: Vec<_> = begun.collect();
        for (socket, mut session) in begun {
            session.finish(&socket).expect("a handshake");
            let bytes = form_request("GET", "/version", None);
            session.write(&socket, &bytes).expect("a request");
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                let ended = session.read(&socket, 4096, &mut answer);
                assert!(!ended.expect("an answer"), "{}", answer.escape_ascii());
            }
        }
    });
}

#[test]
fn garbage_in_place_of_a_handshake() {
    let mut long = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    long.resize(5 + 0x4000, 7);
    let long = long.repeat(16);
    let samples: [&[u8]; 8] = [
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
        b"\x00\x00\x00\x00\x00\x00",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        b"\x14\x03\x03\x00\x01\x01",
        &long,
    ];
    attacked("garbage in place of a handshake", |server| {
        let (greeting, mut noise) = (Session::greeting(client()), Random(7));
        for round in 0..1000 {
            let mut sample = match round % 2 {
                0 => samples[round / 2 % samples.len()].to_vec(),
                _ => greeting.clone(),
            };
            if round % 2 == 1 {
                let at = noise.below(sample.len() as u64) as usize;
                sample[at] ^= 1 << noise.below(8);
            }
            let mut socket = raw(server);
            // The server may close the connection before it has read everything.
            let _ = socket.write_all(&sample);
            let _ = socket.shutdown(Shutdown::Write);
            let answer = rest(&socket);
            // Of a damaged greeting, some bits do not matter.
            let is_tls = matches!(answer.first(), None | Some(0x15 | 0x16));
            assert!(is_tls, "{round}: {}", answer.escape_ascii());
        }
    });
}

#[test]
fn garbage_after_a_handshake() {
    attacked("garbage after a handshake", |server| {
        let mut noise = Random(11);
        for round in 0..300 {
            let mut connection = server.connect();
            let answer = connection.ask("PUT", "/v2/keys/garbage", Some("value=1"));
            assert!(answer.expect("an answer").status < 300);
            let length = noise.below(300) as u8;
            let kind = [0x14, 0x15, 0x16, 0x17, 0x18][round % 5];
            let mut record = vec![kind, 3, 3, 0, length];
            record.extend((0..length).map(|_| noise.next() as u8));
            let mut socket = connection.stream();
            socket.write_all(&record).expect("it is open");
            socket.shutdown(Shutdown::Write).expect("it is open");
            assert!(connection.closes(CLOSED_WITHIN), "round {round}");
        }
    });
}

/// Openssl sends `R` as a request to negotiate again.
#[test]
fn a_client_that_negotiates_again() {
    let server = start_with(&[]);
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-CAfile"])
        .arg(authority())
        .args(["-connect", &server.address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = openssl.stdin.take().expect("piped");
    // Openssl reads commands only between two reads of the connection.
    for _ in 0..10 {
        if input.write_all(b"R\n").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(input);
    let output = openssl.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(
        said.contains("no renegotiation") || said.contains("alert"),
        "{said}"
    );
    assert_eq!(server.ask("GET", "/version", None).status, 200);
}

#[test]
fn connections_that_end_without_a_farewell() {
    attacked("1,000 ends without a farewell", |server| {
        let before = server.process().descriptors();
        for number in 0..1000 {
            let mut connection = server.connect();
            let request = form_request("PUT", "/v2/keys/cut", Some("value=whole"));
            // Idle, in the middle of a request, and with an answer that nobody reads.
            let end = [0, request.len() / 2, request.len()][number % 3];
            connection.write(&request[..end]).expect("it listens");
        }
        wait_for("all to be closed", CLOSED_WITHIN, || {
            (server.process().descriptors() <= before).then_some(())
        });
    });
}
