//! Measures the HTTP server: requests per second and CPU per request, compared with tiny_http's server.
//!
//!     cargo bench --bench http1 [-- ROUNDS]
//!
//! Each server runs as its own process and answers every request with 100 bytes of JSON and six headers, as etcd
//! does. `wrk` sends requests to them alternately over 64 connections, so that other load on the machine affects both
//! equally. CPU per request is the server's own user and system time.

use edgetcd::http1::{Answer, Handler, HttpServer, Limits, Reply, Request, listen};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const BODY: &str = concat!(
    r#"{"action":"get","node":{"key":"/color","value":"red and green and some more of it","#,
    r#""modifiedIndex":42,"createdIndex":42}}"#
);
const HEADERS: [(&str, &str); 6] = [
    ("Content-Type", "application/json"),
    ("X-Etcd-Cluster-Id", "cdf818194e3a8c32"),
    ("X-Etcd-Index", "42"),
    ("X-Raft-Index", "1042"),
    ("X-Raft-Term", "7"),
    ("Access-Control-Allow-Origin", "*"),
];
const SECONDS: u32 = 3;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    match args.first().map(String::as_str) {
        Some("serve-http1") => serve_http1(),
        Some("serve-tiny-http") => serve_tiny_http(),
        Some("send-to-all") => send_to_all(args[1].parse().expect("a number of connections")),
        rounds => compare(rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(3)),
    }
}

struct Hello;

impl Handler for Hello {
    fn handle(&self, _request: &Request<'_>, reply: Reply<'_>) {
        let mut answer = Answer::new(200);
        for (name, value) in HEADERS {
            answer.add_header(name, value);
        }
        reply.send(answer.body(BODY));
    }
}

fn serve_http1() {
    let listener = listen(([127, 0, 0, 1], 0).into()).expect("listen");
    let http_server =
        HttpServer::open(vec![listener], 2, Limits::default(), Arc::new(Hello)).expect("open");
    println!("{}", http_server.addresses()[0]);
    wait_for_end();
    http_server.stop(Duration::ZERO);
}

fn serve_tiny_http() {
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("listen"));
    println!("{}", server.server_addr().to_ip().expect("an address"));
    for _ in 0..4 {
        let server = Arc::clone(&server);
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                let mut response = tiny_http::Response::from_string(BODY);
                for (name, value) in HEADERS {
                    response.add_header(tiny_http::Header::from_bytes(name, value).expect("valid"));
                }
                let _ = request.respond(response);
            }
        });
    }
    wait_for_end();
}

/// The least that waking many watches can cost: accepts this many connections, and sends a response to each of them as
/// soon as one more connection sends something. Two threads share the connections. Does it again until it is killed.
fn send_to_all(count: usize) {
    let listener = listen(([127, 0, 0, 1], 0).into()).expect("listen");
    listener.set_nonblocking(false).expect("accept waits");
    println!("{}", listener.local_addr().expect("an address"));
    let accept = || listener.accept().expect("a connection").0;
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let send = |sockets: &[TcpStream]| {
        for mut socket in sockets {
            let _ = socket.write_all(response.as_bytes());
        }
    };
    loop {
        let sockets: Vec<TcpStream> = (0..count).map(|_| accept()).collect();
        let _ = accept().read(&mut [0]);
        std::thread::scope(|scope| {
            let (one, other) = sockets.split_at(count / 2);
            scope.spawn(|| send(one));
            send(other);
        });
    }
}

/// The parent process holds the other end of standard input.
fn wait_for_end() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn compare(rounds: usize) {
    let servers = [
        Server::start("serve-http1"),
        Server::start("serve-tiny-http"),
    ];
    println!("{:<16} {:>10} {:>16}", "", "requests/s", "CPU per request");
    for _ in 0..rounds {
        for server in &servers {
            let (rate, cpu) = server.measure();
            println!("{:<16} {rate:>10.0} {cpu:>13.2} µs", server.mode);
        }
    }
}

struct Server {
    mode: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(mode: &'static str) -> Server {
        let program = std::env::current_exe().expect("own path");
        let mut child = Command::new(program)
            .arg(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a server");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("an address");
        let address = line.trim().parse().expect("an address");
        Server {
            mode,
            child,
            address,
        }
    }

    /// Returns requests per second, and microseconds of CPU per request.
    fn measure(&self) -> (f64, f64) {
        let before = self.cpu_seconds();
        let output = Command::new("wrk")
            .args([
                "-t2",
                "-c64",
                &format!("-d{SECONDS}"),
                &format!("http://{}/", self.address),
            ])
            .output()
            .expect("wrk is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests: f64 = text
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .and_then(|(count, _)| count.parse().ok())
            .unwrap_or_else(|| panic!("wrk says no number of requests: {text}"));
        let used = self.cpu_seconds() - before;
        (requests / f64::from(SECONDS), used / requests * 1e6)
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the server runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let ticks = |index: usize| -> f64 {
            fields
                .split(' ')
                .nth(index)
                .and_then(|n| n.parse().ok())
                .expect("a number")
        };
        // utime and stime are fields 14 and 15. The state is field 3, the first after the name.
        (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
