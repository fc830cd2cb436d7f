//! Requests that are long or expensive to parse, and crowds of connections. The server must accept the requests within
//! its limits, refuse the others, and serve other clients meanwhile.

mod harness;

use harness::client::{FORM, PATIENCE, form_request, request};
use harness::server::{free_address, is_release};
use harness::{Connection, Server, wait_for};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn status_of(server: &Server, bytes: &[u8]) -> u16 {
    let mut client = server.connect();
    // The reference accepts a long line only on a connection that has already served a request.
    assert_eq!(
        client
            .ask("GET", "/version", None)
            .expect("an answer")
            .status,
        200
    );
    // A server that refuses a request may close the connection before it has read everything.
    let _ = client.write(bytes);
    client.answer(false, PATIENCE).expect("an answer").status
}

#[test]
fn an_old_value_may_be_long() {
    let server = Server::start(&[]);
    let long = "v".repeat(200_000);
    let answer = server.ask("PUT", "/v2/keys/a", Some(&format!("value={long}")));
    assert_eq!(answer.status, 201);
    for length in [70_000, 900_000] {
        let other = "w".repeat(length);
        let target = format!("/v2/keys/a?prevValue={other}");
        let swap = form_request("PUT", &target, Some("value=b"));
        let mut client = server.connect();
        client.ask("GET", "/version", None).expect("an answer");
        client.write(&swap).expect("a request");
        let answer = client.answer(false, PATIENCE).expect("an answer");
        assert_eq!(answer.status, 412);
        let cause = format!(r#""cause":"[{other} != {long}]""#);
        assert!(answer.text().contains(&cause));
    }
    let target = format!("/v2/keys/a?prevValue={long}");
    assert_eq!(
        status_of(&server, &form_request("PUT", &target, Some("value=b"))),
        200
    );
}

#[test]
fn heads_have_limits() {
    let server = Server::start(&[]);
    let head = |target: &str, lines: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
    };
    let target = "/v2/keys/?recursive=true";
    let table = [
        (head(target, &"X-Y: z\r\n".repeat(999)), 200),
        (head(target, &"X-Y: z\r\n".repeat(1000)), 431),
        (
            head(target, &format!("X-Y: {}\r\n", "z".repeat(1_000_000))),
            200,
        ),
        (
            head(target, &format!("X-Y: {}\r\n", "z".repeat(1 << 20))),
            431,
        ),
        (head(&format!("{target}&{}", "a&".repeat(500_000)), ""), 200),
        (head(&format!("{target}&{}", "a".repeat(1 << 20)), ""), 414),
        (
            head(&format!("/v2/keys/{}", "a".repeat(1_000_000)), ""),
            404,
        ),
        (head(&format!("/v2/keys{}", "/a".repeat(200_000)), ""), 414),
        (head(&format!("/v2/keys{}", "//".repeat(200_000)), ""), 414),
    ];
    for (bytes, wanted) in table {
        let shown = String::from_utf8_lossy(&bytes[..60]).into_owned();
        assert_eq!(
            status_of(&server, &bytes),
            wanted,
            "{shown} ({} bytes)",
            bytes.len()
        );
    }
}

/// The server must not parse the received part of a head again each time more bytes arrive.
#[test]
fn a_head_that_trickles_in_costs_little() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.ask("GET", "/version", None).expect("an answer");
    let before = server.process().cpu();
    let target = format!("/v2/keys/?a={}", "a".repeat(1_000_000));
    let bytes = form_request("GET", &target, None);
    for part in bytes.chunks(250) {
        client.write(part).expect("a part");
    }
    assert_eq!(
        client.answer(false, PATIENCE).expect("an answer").status,
        200
    );
    let took = server.process().cpu() - before;
    assert!(took < Duration::from_secs(2), "{took:?} of processor time");
}

/// The slowest request of clients on all workers while `attack` runs.
fn slowest_beside(server: &Server, attack: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let others: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let mut slowest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        client.ask("GET", "/version", None).expect("an answer");
                        slowest = slowest.max(start.elapsed());
                        thread::sleep(Duration::from_millis(5));
                    }
                    slowest
                })
            })
            .collect();
        attack();
        stop.store(true, Ordering::Relaxed);
        let times = others
            .into_iter()
            .map(|other| other.join().expect("served"));
        times.max().expect("some")
    })
}

/// How long other clients may wait in a release build. A server that parsed a form in one step made them wait for 800
/// ms. A worker that parses it in slices is busy for less than 5 ms; the rest is the load of the machine. Times of a
/// debug build mean nothing.
const SLOWEST: Duration = Duration::from_millis(50);

fn is_slow(slowest: Duration) -> bool {
    is_release() && slowest >= SLOWEST
}

#[test]
fn a_costly_form_holds_nobody_up() {
    let server = Server::start(&[]);
    let forms = [
        ("a&".repeat(5 << 20), 200),
        ("&".repeat(10 << 20), 200),
        ("%61=%62&".repeat((10 << 20) / 8), 200),
        (format!("value={}", "%41".repeat(3 << 20)), 200),
        (format!("prevIndex={}x", "0".repeat(9 << 20)), 400),
    ];
    server.ask("PUT", "/v2/keys/form", Some("value=x"));
    for (form, wanted) in forms {
        let before = server.process().resident_bytes();
        let mut most = 0;
        let slowest = slowest_beside(&server, || {
            let mut client = server.connect();
            client
                .write(&form_request("PUT", "/v2/keys/form", Some(&form)))
                .expect("a form");
            client.stream().set_nonblocking(true).expect("set");
            let deadline = Instant::now() + PATIENCE;
            while client.stream().peek(&mut [0]).is_err() && Instant::now() < deadline {
                most = most.max(server.process().resident_bytes());
                thread::sleep(Duration::from_millis(1));
            }
            client.stream().set_nonblocking(false).expect("set");
            let answer = client.answer(false, PATIENCE).expect("an answer");
            assert_eq!(answer.status, wanted, "{}", &form[..20]);
        });
        let grown = most.saturating_sub(before) >> 20;
        println!("{}…: slowest {slowest:?}, {grown} MiB", &form[..12]);
        assert!(grown < 80, "{}: {grown} MiB", &form[..20]);
        assert!(!is_slow(slowest), "{}: {slowest:?}", &form[..20]);
    }
}

#[test]
fn other_costly_requests_hold_nobody_up() {
    let server = Server::start(&[]);
    let get = |target: &str| request("GET", target, &[], None);
    let put =
        |target: &str, kind: &str| request("PUT", target, &[(FORM.0, kind)], Some(b"value=x"));
    let parameters: String = (0..100_000).map(|number| format!(";a{number}=b")).collect();
    let urls = format!("{{\"peerURLs\":[{}\"\"]}}", "\"\",".repeat(3 << 20));
    let json = ("Content-Type", "application/json");
    let members = request("POST", "/v2/members", &[json], Some(urls.as_bytes()));
    let chunks = format!(
        "PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\n{}: {}\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        FORM.0,
        FORM.1,
        "1\r\na\r\n".repeat(300_000)
    );
    let deep = format!("/v2/keys{}", "/d".repeat(2_000));
    let table = [
        (
            "content type",
            put("/v2/keys/a", &format!("{}{parameters}", FORM.1)),
            400,
        ),
        ("URLs of a member", members, 413),
        (
            "query",
            get(&format!("/v2/keys/?{}", "a&".repeat(500_000))),
            200,
        ),
        (
            "escapes",
            get(&format!("/v2/keys/{}", "%41".repeat(300_000))),
            404,
        ),
        (
            "no UTF-8",
            get(&format!("/v2/keys/{}", "%FF".repeat(300_000))),
            404,
        ),
        ("small chunks", chunks.into_bytes(), 201),
        ("deep key", put(&deep, FORM.1), 201),
        ("deep listing", get("/v2/keys/d?recursive=true"), 200),
    ];
    for (what, bytes, wanted) in table {
        let slowest = slowest_beside(&server, || {
            assert_eq!(status_of(&server, &bytes), wanted, "{what}");
        });
        println!("{what}: slowest {slowest:?}");
        assert!(!is_slow(slowest), "{what}: {slowest:?}");
    }
}

/// A proxy may check one of two headers while the server uses the other one.
#[test]
fn a_header_that_decides_must_not_come_twice() {
    let server = Server::start(&[]);
    let host = server.address();
    let own = format!("Origin: http://{host}\r\n");
    let foreign = "origin: http://evil.example\r\n";
    let table = [
        (own.clone(), 201),
        (format!("{own}{foreign}"), 400),
        (format!("{foreign}{own}"), 400),
        (format!("{own}{own}"), 400),
        (format!("Host: {host}\r\n"), 400),
    ];
    for (number, (lines, wanted)) in table.into_iter().enumerate() {
        let bytes = format!(
            "PUT /v2/keys/twice{number} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        assert_eq!(status_of(&server, bytes.as_bytes()), wanted, "{lines}");
        let stored = server.ask("GET", &format!("/v2/keys/twice{number}"), None);
        assert_eq!(stored.status == 200, wanted == 201, "{lines}");
    }
}

/// A server that may open 256 descriptors.
fn small_server(flags: &[&str]) -> Server {
    let mut server = limited(256, flags);
    server.launch();
    server
}

/// A server that may open this many descriptors, not started yet.
fn limited(descriptors: usize, flags: &[&str]) -> Server {
    let mut server = Server::prepare(flags);
    let limit = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    server.wrap(&["sh", "-c", &limit]);
    server
}

fn crowd(address: SocketAddr, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut socket = TcpStream::connect(address).expect("connect");
        // A refused connection may already be closed.
        let _ = socket.write_all(says);
        socket
    };
    (0..count).map(connect).collect()
}

fn asks(server: &Server, target: &str) -> Option<u16> {
    asks_at(server.address(), target)
}

fn asks_at(address: SocketAddr, target: &str) -> Option<u16> {
    let mut client = Connection::open(address).ok()?;
    Some(client.ask("GET", target, None).ok()?.status)
}

#[test]
fn silent_connections_lock_nobody_out() {
    let server = small_server(&[]);
    for says in [&b""[..], b"G", b"GET /v2/keys/ HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let crowd = crowd(server.address(), 250, says);
        for target in ["/health", "/v2/keys/"] {
            wait_for(target, Duration::from_secs(8), || {
                (asks(&server, target) == Some(200)).then_some(())
            });
        }
        drop(crowd);
    }
}

/// No connection here is idle, but a health check is still answered.
#[test]
fn health_is_told_when_all_connections_are_taken() {
    let server = small_server(&[]);
    let watch = b"GET /v2/keys/?wait=true&recursive=true HTTP/1.1\r\nHost: a\r\n\r\n";
    let _crowd = crowd(server.address(), 250, watch);
    wait_for("the places to be taken", PATIENCE, || {
        (asks(&server, "/version") == Some(503)).then_some(())
    });
    for _ in 0..30 {
        for target in ["/health", "/metrics", "/livez", "/readyz"] {
            // Right after the crowd has come, its last connections may fill the reserve for a moment.
            wait_for(target, PATIENCE, || {
                (asks(&server, target) == Some(200)).then_some(())
            });
        }
        assert_eq!(asks(&server, "/version"), Some(503));
    }
}

/// However many connections clients, unknown peers and monitoring systems hold, the log has descriptors for its next
/// segment and for snapshots, at every limit with which a node starts.
#[test]
fn crowds_at_all_ports_leave_the_log_its_descriptors() {
    for descriptors in [64, 100, 128, 256] {
        let metrics = free_address();
        let listen = format!("--listen-metrics-urls=http://{metrics}");
        let mut server = limited(descriptors, &["--snapshot-count=20", &listen]);
        server.launch();
        let mut writer = server.connect();
        let write = |writer: &mut Connection, number: usize| {
            let form = format!("value={}", "v".repeat(1 << 20));
            let target = format!("/v2/keys/log/{}", number % 4);
            let answer = writer.ask("PUT", &target, Some(&form)).expect("an answer");
            assert!([200, 201].contains(&answer.status), "{}", answer.status);
        };
        write(&mut writer, 0);
        let watch = b"GET /v2/keys/x?wait=true HTTP/1.1\r\nHost: a\r\n\r\n";
        let clients = crowd(server.address(), 250, watch);
        let peers = crowd(server.peer_address(), 250, b"G");
        let monitors = crowd(metrics, 50, b"G");
        for number in 1..40 {
            write(&mut writer, number);
        }
        assert!(server.ended().is_none(), "{}", server.log());
        wait_for("a health check", PATIENCE, || {
            (asks(&server, "/health") == Some(200)).then_some(())
        });
        drop((clients, peers, monitors));
    }
}

#[test]
fn a_node_does_not_start_with_too_few_descriptors() {
    let mut server = limited(63, &[]);
    server.spawn();
    let (status, _) = server.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(1));
    assert!(server.log().contains("ulimit -n 1024"), "{}", server.log());
}

/// Responses that nobody reads, and heads that do not end, hold all connections of the port for monitoring.
#[test]
fn a_crowd_at_the_metrics_port_locks_no_monitoring_out() {
    let metrics = free_address();
    let listen = format!("--listen-metrics-urls=http://{metrics}");
    let server = Server::start(&[&listen]);
    let unread = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    for says in ["G", &unread] {
        let crowd = crowd(metrics, 100, says.as_bytes());
        for _ in 0..20 {
            for target in ["/health", "/metrics"] {
                wait_for(target, Duration::from_secs(5), || {
                    (asks_at(metrics, target) == Some(200)).then_some(())
                });
            }
        }
        drop(crowd);
    }
    assert!(server.runs());
}
