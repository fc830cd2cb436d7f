//! A handler for tests, and a client that sends and receives bytes.

use crate::socket::{self, Socket};
use edgetcd::http1::{
    Answer, BodyState, Gone, Handler, HttpServer, Limits, Outbox, Parked, Pin, Port, Reply,
    Request, Security, Slices, Suspended, Ticket, Upgraded, UpgradedStream, listen,
};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time limit for anything that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds. Fails with `what` if it never does.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The requests that the handler has not answered yet.
#[derive(Default)]
pub struct Desk {
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    /// By the query of their requests.
    pub tickets: HashMap<String, Ticket>,
    /// By the query of their requests.
    pub suspended: HashMap<String, Suspended>,
    pub parked: HashMap<u64, Parked>,
    pub gone: HashSet<u64>,
    pub upgraded: Vec<(UpgradedStream, Vec<u8>)>,
    last_token: u64,
}

impl Desk {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }

    pub fn parked(&self) -> usize {
        self.lock().parked.len()
    }

    /// Waits for the request with this query and returns its ticket.
    pub fn ticket(&self, query: &str) -> Ticket {
        eventually(&format!("a ticket for {query}"), || {
            self.lock().tickets.contains_key(query)
        });
        self.lock().tickets.remove(query).expect("it was there")
    }

    /// Waits for the request with this query, which was suspended.
    pub fn suspended(&self, query: &str) -> Suspended {
        eventually(&format!("{query} is suspended"), || {
            self.lock().suspended.contains_key(query)
        });
        self.lock().suspended.remove(query).expect("it was there")
    }

    /// Ends all parked responses with `last`.
    pub fn end_all(&self, last: &str) {
        let parked = std::mem::take(&mut self.lock().parked);
        let (last, mut outbox): (Arc<[u8]>, _) = (last.as_bytes().into(), Outbox::new());
        for (_, parked) in parked {
            parked.end_in(Arc::clone(&last), &mut outbox);
        }
    }
}

/// The client of a parked response has disconnected: the desk removes it, as the watch hub does.
impl Gone for Desk {
    fn gone(&self, token: u64) {
        let mut state = self.lock();
        state.parked.remove(&token);
        assert!(
            state.gone.insert(token),
            "{token} was said to be gone twice"
        );
    }
}

/// The handler.
pub struct Front(pub Arc<Desk>);

impl Handler for Front {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        let query = String::from_utf8_lossy(request.query().unwrap_or_default()).into_owned();
        if request.body_state() == BodyState::TooLarge {
            return reply.send(Answer::text(400, "too large"));
        }
        match request.path() {
            b"/name" => {
                let name = request.certificate_name().unwrap_or("nobody").to_owned();
                reply.send(Answer::text(200, name));
            }
            b"/hello" => reply.send(Answer::text(200, "hello")),
            b"/bytes" => reply.send(Answer::text(200, "x".repeat(number(&query)))),
            b"/stream" => {
                let length = number(&query);
                reply.stream_from(
                    Answer::new(200),
                    length as u64,
                    Box::new(Pattern::new(length)),
                );
            }
            b"/later" => {
                let ticket = reply.later();
                self.0.lock().tickets.insert(query, ticket);
            }
            b"/park" => self.park(reply),
            b"/upgrade" => self.upgrade(reply),
            b"/panic" => panic!("the handler was asked to"),
            b"/silent" => {}
            b"/short" => reply.stream_from(Answer::new(200), 10, Box::new(Pattern::new(9))),
            b"/pinned" => {
                let body = Pinned(Pattern::new(4 << 20), number(&query));
                reply.stream_from(Answer::new(200), 4 << 20, Box::new(body));
            }
            b"/suspend" => match request.work() {
                None => {
                    let suspended = reply.suspend();
                    self.0.lock().suspended.insert(query, suspended);
                }
                Some(work) => {
                    let text = *work.downcast::<String>().expect("a text");
                    reply.send(Answer::text(200, describe(request) + &text));
                }
            },
            b"/turns" => match request.work() {
                None => reply.go_on(Box::new(number(&query))),
                Some(work) => match *work.downcast::<usize>().expect("a number") {
                    0 => reply.send(Answer::text(200, describe(request))),
                    left => reply.go_on(Box::new(left - 1)),
                },
            },
            _ => reply.send(Answer::text(200, describe(request))),
        }
    }

    fn is_vital(&self, request: &Request<'_>) -> bool {
        request.path() == b"/hello"
    }
}

/// A body that keeps a mebibyte alive. It is the same one for the same number.
struct Pinned(Pattern, usize);

impl Slices for Pinned {
    fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> std::io::Result<bool> {
        self.0.next(out, at_least)
    }

    fn pin(&self) -> Option<Pin> {
        Some(Pin {
            key: self.1 + 1,
            bytes: 1 << 20,
        })
    }
}

impl Front {
    fn park(&self, reply: Reply<'_>) {
        let mut state = self.0.lock();
        state.last_token += 1;
        let token = state.last_token;
        let gone: Arc<dyn Gone> = self.0.clone();
        let head = Answer::new(200).header("X-Token", token.to_string());
        state.parked.insert(token, reply.park(head, gone, token));
    }

    fn upgrade(&self, reply: Reply<'_>) {
        let head = Answer::new(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", "raft");
        let desk = Arc::clone(&self.0);
        let then = move |Upgraded { stream, early }| {
            desk.lock().upgraded.push((stream, early));
        };
        reply.upgrade(head, Box::new(then));
    }
}

fn number(query: &str) -> usize {
    query.parse().unwrap_or(0)
}

/// The request that the handler received, as text.
fn describe(request: &Request<'_>) -> String {
    let body = match request.body() {
        short if short.len() <= 100 => short.escape_ascii().to_string(),
        long => format!("{} bytes", long.len()),
    };
    format!(
        "{} {} ? {} @ {} body [{body}]",
        request.method(),
        request.path().escape_ascii(),
        request
            .query()
            .map_or("none".into(), |query| query.escape_ascii().to_string()),
        request.authority().escape_ascii(),
    )
}

/// A body in which every byte depends on its position.
pub struct Pattern {
    at: usize,
    length: usize,
}

impl Pattern {
    pub fn new(length: usize) -> Pattern {
        Pattern { at: 0, length }
    }

    pub fn byte(at: usize) -> u8 {
        (at % 251) as u8
    }
}

impl Slices for Pattern {
    fn next(&mut self, out: &mut Vec<u8>, at_least: usize) -> std::io::Result<bool> {
        let end = self.length.min(self.at + at_least);
        out.extend((self.at..end).map(Pattern::byte));
        self.at = end;
        Ok(end < self.length)
    }
}

/// An HTTP server and its desk.
pub struct Place {
    pub http_server: HttpServer,
    pub desk: Arc<Desk>,
    pub address: SocketAddr,
}

impl Place {
    pub fn open(workers: usize, limits: Limits) -> Place {
        Place::open_at([127, 0, 0, 1], workers, limits)
    }

    pub fn open_at(ip: [u8; 4], workers: usize, limits: Limits) -> Place {
        Place::open_with(ip, workers, limits, socket::security())
    }

    pub fn open_with(ip: [u8; 4], workers: usize, limits: Limits, security: Security) -> Place {
        // Handshakes take their time in a program that is not optimized, and some tests open hundreds of connections
        // before they use the first.
        let is_default = limits.handshake_time == Limits::default().handshake_time;
        let limits = Limits {
            handshake_time: match is_default {
                true => PATIENCE * 6,
                false => limits.handshake_time,
            },
            ..limits
        };
        let listener = listen((ip, 0).into()).expect("listen");
        let desk = Arc::new(Desk::default());
        let front = Arc::new(Front(Arc::clone(&desk)));
        let port = Port {
            security,
            ..Port::from(listener)
        };
        let http_server = HttpServer::open(vec![port], workers, limits, front).expect("open");
        let address = http_server.addresses()[0];
        Place {
            http_server,
            desk,
            address,
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Asserts that the server still serves.
    #[track_caller]
    pub fn serves(&self) {
        self.client().is_served();
    }
}

/// A response as it was received.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One connection to a server.
pub struct Client {
    pub socket: Socket,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("connect");
        socket.set_nodelay(true).expect("nodelay");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Client {
            socket: Socket::new(socket),
            read: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("send");
    }

    /// Sends a GET of `path`.
    pub fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }

    /// Sends bytes, and reads one response.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.answer()
    }

    #[track_caller]
    pub fn is_served(&mut self) {
        self.get("/hello");
        assert_eq!(self.answer().body, b"hello");
    }

    fn read_more(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        let count = self.socket.read(&mut buffer).expect("an answer in time");
        self.read.extend_from_slice(&buffer[..count]);
        count
    }

    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(
                self.read_more() > 0,
                "the answer is cut: {:?}",
                self.read.escape_ascii()
            );
        }
        self.read.drain(..count).collect()
    }

    fn take_line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|&b| b == b'\n') {
                return String::from_utf8(self.take(end + 1)).expect("text");
            }
            self.take(self.read.len() + 1)
                .into_iter()
                .rev()
                .for_each(|b| self.read.insert(0, b));
        }
    }

    /// Reads only a head, for example of a parked response.
    pub fn head(&mut self) -> Response {
        let mut head = String::new();
        loop {
            let line = self.take_line();
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        Response {
            status,
            head,
            body: Vec::new(),
        }
    }

    /// Reads the data of one chunk. Empty for the last one.
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.take_line();
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
        let data = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        data
    }

    /// Reads a complete response, by `Content-Length` or in chunks.
    #[track_caller]
    pub fn answer(&mut self) -> Response {
        let mut response = self.head();
        if let Some(length) = response.header("Content-Length") {
            let length = length.parse().expect("a number");
            response.body = self.take(length);
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    break;
                }
                response.body.extend(chunk);
            }
        }
        response
    }

    /// Reads everything up to the end of the connection, however it ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
        std::mem::take(&mut self.read)
    }

    /// Asserts that no further bytes arrive, and that the connection ends without a reset.
    #[track_caller]
    pub fn is_closed(&mut self) {
        let mut buffer = [0; 100];
        let count = self.socket.read(&mut buffer).expect("an end, not a reset");
        assert_eq!(
            (count, self.read.len()),
            (0, 0),
            "{}",
            buffer[..count].escape_ascii()
        );
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&*self.socket)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    }
}
