//! An HTTP/1.1 client over one socket that gives the test control over every byte.
//!
//! A test can keep a [`Connection`] alive, leave it waiting on a long poll, send half a request, or read slowly. The
//! client decodes the body framing as bytes arrive, so a test can read a watch line by line.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::json::Json;
use super::secure::{Config, Session};

/// Default time limit for a response.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics with the body if it is not JSON.
    pub fn json(&self) -> Json {
        Json::parse(&self.text()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `X-Etcd-Index`.
    pub fn index(&self) -> u64 {
        let value = self
            .header("X-Etcd-Index")
            .and_then(|text| text.parse().ok());
        value.unwrap_or_else(|| panic!("no X-Etcd-Index in {self:?}"))
    }
}

/// The result of waiting for the next line of an open body.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// The bytes of the line, including the newline (the last line may have none).
    Is(Vec<u8>),
    /// The body ended according to its framing.
    End,
    /// The connection ended before the end of the body.
    Cut,
    /// No complete line arrived in time. The connection is still open.
    Silence,
}

/// How much of the current body is still to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Done,
    Length(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailer,
    UntilClose,
}

pub struct Connection {
    stream: TcpStream,
    /// None: without TLS.
    session: Option<Session>,
    /// Received bytes that are not decoded yet.
    raw: Vec<u8>,
    /// Decoded bytes that the test has not read yet.
    body: Vec<u8>,
    /// Number of bytes at the beginning of `body` that contain no newline.
    no_newline: usize,
    framing: Framing,
    closed: bool,
    /// The most bytes that are read from the socket at once.
    most: usize,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        Connection::open_with(address, None)
    }

    /// Opens a connection, with TLS if there is a configuration for it. The handshake is over when this returns.
    pub fn open_with(address: SocketAddr, secure: Option<&Config>) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let session = secure.map(|config| Session::begin(config, &stream));
        Ok(Connection {
            session: session.transpose()?,
            stream,
            raw: Vec::new(),
            body: Vec::new(),
            no_newline: 0,
            framing: Framing::Done,
            closed: false,
            most: 65536,
        })
    }

    /// Reads so many bytes at once from the socket, from now on.
    pub fn read_at_most(&mut self, bytes: usize) {
        self.most = bytes;
    }

    /// The socket. With TLS, encrypted bytes are read from it and written to it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The TLS session. None: without TLS.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Sends exactly these bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.write(&self.stream, bytes),
            None => self.stream.write_all(bytes),
        }
    }

    /// Sends a request and reads the whole response. The connection stays open.
    pub fn ask(&mut self, method: &str, target: &str, form: Option<&str>) -> io::Result<Answer> {
        self.write(&form_request(method, target, form))?;
        self.answer(method == "HEAD", PATIENCE)
    }

    /// Reads the whole response. `headless`: it is the response to a HEAD, so it has no body.
    pub fn answer(&mut self, headless: bool, within: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + within;
        let mut answer = self.head(headless, within)?;
        loop {
            self.unframe()?;
            if self.framing == Framing::Done {
                answer.body = std::mem::take(&mut self.body);
                return Ok(answer);
            }
            if self.closed {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the body was cut short",
                ));
            }
            self.fill(deadline)?;
        }
    }

    /// Reads the status and the headers only. The body stays in the connection, see [`Connection::line`].
    pub fn head(&mut self, headless: bool, within: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..end + 4).collect();
                let answer = parse_head(&head[..end])?;
                self.framing = framing(&answer, headless)?;
                self.body.clear();
                self.no_newline = 0;
                return Ok(answer);
            }
            if self.closed {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "closed without an answer",
                ));
            }
            self.fill(deadline)?;
        }
    }

    /// Waits at most `within` for the next line of the open body.
    pub fn line(&mut self, within: Duration) -> Line {
        let deadline = Instant::now() + within;
        loop {
            if self.unframe().is_err() {
                return Line::Cut;
            }
            if let Some(line) = self.take_line() {
                return Line::Is(line);
            }
            if self.framing == Framing::Done {
                self.no_newline = 0;
                return match self.body.is_empty() {
                    true => Line::End,
                    false => Line::Is(std::mem::take(&mut self.body)),
                };
            }
            if self.closed {
                return Line::Cut;
            }
            match self.fill(deadline) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Line::Silence,
                Err(_) => return Line::Cut,
            }
        }
    }

    /// Takes the first line from `body`, if it is complete. Searches each byte once, because a line may have megabytes.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let fresh = &self.body[self.no_newline..];
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.no_newline = self.body.len();
            return None;
        };
        let rest = self.body.split_off(self.no_newline + at + 1);
        self.no_newline = 0;
        Some(std::mem::replace(&mut self.body, rest))
    }

    /// Waits until the peer closes the connection. Discards everything that the peer still sends.
    pub fn closes(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !self.closed {
            self.raw.clear();
            match self.fill(deadline) {
                Ok(()) => {}
                Err(error) => return error.kind() != ErrorKind::TimedOut,
            }
        }
        true
    }

    /// Reads once. Fails with `TimedOut` at the deadline. The end of the stream is not an error.
    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "nothing came in time"));
        }
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match self.read() {
            Ok(has_ended) => self.closed = has_ended,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(ErrorKind::TimedOut, "nothing came in time"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads once from the socket. Returns whether the connection has ended.
    fn read(&mut self) -> io::Result<bool> {
        if let Some(session) = &mut self.session {
            return session.read(&self.stream, self.most, &mut self.raw);
        }
        let mut piece = vec![0; self.most];
        let count = self.stream.read(&mut piece)?;
        self.raw.extend_from_slice(&piece[..count]);
        Ok(count == 0)
    }

    /// Decodes the body framing of all received bytes.
    fn unframe(&mut self) -> io::Result<()> {
        loop {
            match self.framing {
                Framing::Done => return Ok(()),
                Framing::Length(left) | Framing::Chunk(left) => {
                    let count = left.min(self.raw.len());
                    self.body.extend(self.raw.drain(..count));
                    let rest = left - count;
                    let chunked = matches!(self.framing, Framing::Chunk(_));
                    self.framing = match (chunked, rest) {
                        (true, 0) => Framing::ChunkEnd,
                        (true, _) => Framing::Chunk(rest),
                        (false, 0) => Framing::Done,
                        (false, _) => Framing::Length(rest),
                    };
                    if rest > 0 {
                        return Ok(());
                    }
                }
                Framing::UntilClose => {
                    self.body.append(&mut self.raw);
                    if self.closed {
                        self.framing = Framing::Done;
                    }
                    return Ok(());
                }
                Framing::ChunkSize | Framing::ChunkEnd | Framing::Trailer => {
                    let Some(end) = find(&self.raw, b"\r\n") else {
                        return Ok(());
                    };
                    let line: Vec<u8> = self.raw.drain(..end + 2).collect();
                    self.framing = self.after_line(&line[..end])?;
                }
            }
        }
    }

    fn after_line(&self, line: &[u8]) -> io::Result<Framing> {
        let bad = || {
            io::Error::new(
                ErrorKind::InvalidData,
                format!("bad chunk framing {line:?}"),
            )
        };
        match self.framing {
            Framing::ChunkEnd if line.is_empty() => Ok(Framing::ChunkSize),
            Framing::Trailer if line.is_empty() => Ok(Framing::Done),
            Framing::Trailer => Ok(Framing::Trailer),
            Framing::ChunkSize => {
                let text = std::str::from_utf8(line).map_err(|_| bad())?;
                match usize::from_str_radix(text, 16).map_err(|_| bad())? {
                    0 => Ok(Framing::Trailer),
                    size => Ok(Framing::Chunk(size)),
                }
            }
            _ => Err(bad()),
        }
    }
}

/// The bytes of a request. A request with a body gets a `Content-Length`.
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// The bytes of a request with a form, or without a body.
pub fn form_request(method: &str, target: &str, form: Option<&str>) -> Vec<u8> {
    match form {
        Some(form) => request(method, target, &[FORM], Some(form.as_bytes())),
        None => request(method, target, &[], None),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse_head(head: &[u8]) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(head);
    let bad = || io::Error::new(ErrorKind::InvalidData, format!("not an answer: {text:?}"));
    let mut lines = text.split("\r\n");
    let status_line = lines.next().ok_or_else(bad)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Answer {
        status,
        headers,
        body: Vec::new(),
    })
}

fn framing(answer: &Answer, headless: bool) -> io::Result<Framing> {
    if headless || answer.status == 204 || answer.status == 304 || answer.status < 200 {
        return Ok(Framing::Done);
    }
    if answer.header("Transfer-Encoding") == Some("chunked") {
        return Ok(Framing::ChunkSize);
    }
    match answer.header("Content-Length") {
        Some(text) => match text.parse() {
            Ok(0) => Ok(Framing::Done),
            Ok(length) => Ok(Framing::Length(length)),
            Err(_) => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("length {text:?}"),
            )),
        },
        None => Ok(Framing::UntilClose),
    }
}
