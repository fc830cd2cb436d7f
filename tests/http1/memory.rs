//! Memory used by idle connections, and after large bodies.

use crate::child::{Child, Settings};
use crate::socket::Socket;
use crate::support::{Client, eventually};
use std::time::Duration;

/// As many clients as the machine's descriptor limit allows, at most 10,000.
fn many() -> usize {
    let limit = edgetcd::http1::raise_descriptor_limit() as usize;
    10_000.min(limit.saturating_sub(1000))
}

/// Memory in bytes per connection that `count` clients add, each after `begin`.
fn resident_per_connection(begin: impl Fn(&mut Client)) -> usize {
    let child = Child::start(Settings::default());
    child.serves();
    let (before, count) = (child.resident(), many());
    let mut sockets: Vec<Socket> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = child.client();
        begin(&mut client);
        sockets.push(client.socket);
    }
    child.serves();
    let each = child.resident().saturating_sub(before) / count;
    println!("{count} connections, {each} bytes each");
    each
}

#[test]
fn an_idle_connection_takes_little() {
    let each = resident_per_connection(|client| {
        client.is_served();
    });
    assert!(each < 2048, "{each} bytes");
}

#[test]
fn a_parked_answer_takes_little() {
    let each = resident_per_connection(|client| {
        client.get("/park");
        client.head();
    });
    assert!(each < 4096, "{each} bytes");
}

#[test]
fn large_bodies_give_their_memory_back() {
    let child = Child::start(Settings::default());
    child.serves();
    let length = 10 << 20;
    let round = |count: usize| {
        let mut clients: Vec<_> = (0..count).map(|_| child.client()).collect();
        for client in &mut clients {
            client.send(format!(
                "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
            ));
            client.send(vec![b'x'; length - 1]);
        }
        for client in &mut clients {
            assert!(client.ask("x").body.ends_with(b"[10485760 bytes]"));
        }
    };
    round(1);
    let before = child.resident();
    (0..3).for_each(|_| round(4));
    eventually("memory is back within a mebibyte", || {
        child.resident() < before + (1 << 20)
    });
}

#[test]
fn all_bodies_together_stay_below_their_limit() {
    let child = Child::start(Settings::default());
    child.serves();
    let before = child.resident();
    let length = 9 << 20;
    let mut clients: Vec<_> = (0..20).map(|_| child.client()).collect();
    let senders: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut client = client.socket.try_clone().expect("clone");
            std::thread::spawn(move || {
                use std::io::Write;
                let head =
                    format!("PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
                client.write_all(head.as_bytes()).expect("send");
                client.write_all(&vec![b'x'; length]).expect("send");
            })
        })
        .collect();
    let mut most = 0;
    while senders.iter().any(|sender| !sender.is_finished()) {
        most = most.max(child.resident());
        std::thread::sleep(Duration::from_millis(1));
    }
    for client in &mut clients {
        assert!(client.answer().body.ends_with(b"[9437184 bytes]"));
    }
    // While a buffer grows, each worker also holds the old one.
    assert!(
        most - before < (64 + 2 * 8) << 20,
        "{} MiB",
        (most - before) >> 20
    );
}
