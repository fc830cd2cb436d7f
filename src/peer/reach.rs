//! Reaches a process at the URL of a member: a TCP connection, TLS if the URL has it, one HTTP request and its response.

use super::connection::{Connection, TimedRead};
use super::dial::Failure;
use super::resources::Held;
use crate::dial::Tls;
use crate::urls::{Scheme, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Limit for the head of a response.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Why a member with an `https` URL cannot be dialled.
const NO_TLS: &str = match crate::tls::IS_BUILT_IN {
    true => {
        "this member cannot verify a member with TLS: start it with --peer-trusted-ca-file (and --peer-cert-file, \
         --peer-key-file)"
    }
    false => "this program was built without TLS",
};

/// How often a pending connect checks whether the connection is still needed.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// What an attempt to reach a process needs.
pub(super) struct Reach<'a> {
    pub tls: &'a Tls,
    /// Called while waiting: returns whether the connection is no longer needed.
    pub given_up: &'a dyn Fn() -> bool,
}

impl Reach<'_> {
    /// Connects to the first address of a URL that accepts a connection. `within`: the time for each address.
    pub fn connect(&self, text: &str, within: Duration) -> Result<(TcpStream, Url), Failure> {
        let failed = |why: String| Failure::Failed(format!("{text}: {why}"));
        let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
        if url.socket_path().is_some() {
            return Err(failed(
                "members connect to each other over the network".into(),
            ));
        }
        if url.scheme() == Scheme::Https && !self.tls.is_possible() {
            return Err(failed(NO_TLS.into()));
        }
        let addresses = url.resolve().map_err(|error| failed(error.to_string()))?;
        let mut why = failed("the host name has no address".into());
        let mut refused = 0;
        for address in &addresses {
            match self.connect_to(*address, within) {
                Ok(socket) => return Ok((socket, url)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                Err(error) => why = failed(error.to_string()),
            }
        }
        match refused > 0 && refused == addresses.len() {
            true => Err(Failure::NobodyThere),
            false => Err(why),
        }
    }

    fn connect_to(&self, address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        let kind = Domain::for_address(address);
        let socket = Socket::new(kind, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if is_under_way(&error) => self.wait_for(&socket, within)?,
            other => other?,
        }
        socket.set_nonblocking(false)?;
        let socket = TcpStream::from(socket);
        if socket.local_addr()? == socket.peer_addr()? {
            // The kernel can give the port of an address without a listener to the dialling socket, which then connects
            // to itself.
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(socket)
    }

    fn wait_for(&self, socket: &Socket, within: Duration) -> io::Result<()> {
        let until = Instant::now() + within;
        let slice = Timespec::try_from(CHECK_EVERY).ok();
        loop {
            let ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], slice.as_ref());
            if ready.is_ok_and(|count| count > 0) {
                return socket.take_error()?.map_or(Ok(()), Err);
            }
            if Instant::now() >= until || (self.given_up)() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the connection attempt timed out",
                ));
            }
        }
    }

    /// Begins TLS if the URL has it.
    #[cfg(feature = "tls")]
    pub fn secure(&self, socket: Held, url: &Url, within: Duration) -> Result<Connection, Failure> {
        if url.scheme() != Scheme::Https {
            return Ok(Connection::plain(socket));
        }
        let failed = |error: io::Error| {
            let why = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "it takes too long".to_owned(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                    "the member has closed the connection; does it listen with TLS?".to_owned()
                }
                _ => error.to_string(),
            };
            Failure::Failed(format!("{url}: TLS has failed: {why}"))
        };
        let config = self.tls.config().map_err(failed)?;
        Connection::secure(socket, config, url.host(), within).map_err(failed)
    }

    #[cfg(not(feature = "tls"))]
    pub fn secure(&self, socket: Held, _: &Url, _: Duration) -> Result<Connection, Failure> {
        Ok(Connection::plain(socket))
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Which part of a body is read.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// As much as `Content-Length` announces, at most this number of bytes. After a 101, the body is empty.
    Announced(usize),
    /// The same, and without `Content-Length` everything until the connection is closed. More than this number is an
    /// error.
    Whole(usize),
}

/// A response to a request of this process.
pub(super) struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// The connection fails, the response is not one of HTTP or is too long, or it is not complete within the time.
    pub fn exchange(
        connection: &mut Connection,
        request: &[u8],
        body: Body,
        within: Duration,
    ) -> io::Result<Response> {
        connection.write_all(request)?;
        connection.flush()?;
        Response::read(connection, body, within)
    }

    /// The value of a header that is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn read(connection: &mut impl TimedRead, body: Body, within: Duration) -> io::Result<Response> {
        let until = Instant::now() + within;
        let mut bytes = Vec::new();
        let mut head = None;
        loop {
            if head.is_none() {
                head = parse(&bytes)?;
            }
            match &head {
                None if bytes.len() > HEAD_BYTES_MAX => return Err(too_long()),
                Some((response, length)) if response.is_complete(&bytes[*length..], body)? => break,
                _ => {}
            }
            match read_some(connection, until, &mut bytes) {
                Ok(0) if ends_at_close(head.as_ref(), body) => break,
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (mut response, length) = head.ok_or(ErrorKind::UnexpectedEof)?;
        let most = match body {
            Body::Announced(most) => response.length().unwrap_or(0).min(most),
            Body::Whole(most) => response.length().unwrap_or(most),
        };
        response.body = bytes.split_off(length);
        response.body.truncate(most);
        Ok(response)
    }

    /// The value of `Content-Length`.
    fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }

    /// Whether `got` is all that is to be read of the body.
    fn is_complete(&self, got: &[u8], body: Body) -> io::Result<bool> {
        let length = self.length();
        match body {
            Body::Announced(most) => {
                Ok(self.status == 101 || got.len() >= length.unwrap_or(0).min(most))
            }
            Body::Whole(most) if length.unwrap_or(got.len()) > most => Err(too_long()),
            Body::Whole(_) => Ok(length.is_some_and(|length| got.len() >= length)),
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the response is too long")
}

/// Whether a closed connection is the end of the body.
fn ends_at_close(head: Option<&(Response, usize)>, body: Body) -> bool {
    let whole = matches!(body, Body::Whole(_));
    whole && head.is_some_and(|(response, _)| response.length().is_none())
}

/// Reads once. Returns how many bytes were added.
fn read_some(
    connection: &mut impl TimedRead,
    until: Instant,
    bytes: &mut Vec<u8>,
) -> io::Result<usize> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    connection.limit_reads(Some(left))?;
    let mut piece = [0; 4096];
    let count = connection.read(&mut piece)?;
    bytes.extend_from_slice(&piece[..count]);
    Ok(count)
}

/// A response without its body, and the length of its head, if the head is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let parsed = parsed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    let (httparse::Status::Complete(head), Some(status)) = (parsed, response.code) else {
        return Ok(None);
    };
    let headers = response.headers.iter().filter_map(|header| {
        let value = std::str::from_utf8(header.value).ok()?;
        Some((header.name.to_owned(), value.to_owned()))
    });
    let response = Response {
        status,
        headers: headers.collect(),
        body: Vec::new(),
    };
    Ok(Some((response, head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A connection on which the bytes arrive in pieces of a size, and which is closed after them.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(room.len());
            let (now, later) = self.0.split_at(count);
            room[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    impl TimedRead for Pieces<'_> {
        fn limit_reads(&self, at_most: Option<Duration>) -> io::Result<()> {
            assert!(at_most.is_some(), "each read has a limit");
            Ok(())
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// The status and the body, or the kind of error. The size of the pieces makes no difference.
    fn read(text: &str, body: Body) -> Result<(u16, String), ErrorKind> {
        let mut results = [1, 7, 4096].map(|size| {
            let read = Response::read(&mut Pieces(text.as_bytes(), size), body, SECOND);
            let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
            read.map(|response| (response.status, text(&response.body)))
                .map_err(|error| error.kind())
        });
        assert!(
            results.iter().all(|other| *other == results[0]),
            "{results:?}"
        );
        std::mem::replace(&mut results[0], Err(ErrorKind::Other))
    }

    #[test]
    fn a_body_ends_where_its_length_says() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbodyrest";
        for body in [Body::Announced(100), Body::Whole(100)] {
            assert_eq!(read(text, body), Ok((200, "body".into())));
        }
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody";
        for body in [Body::Announced(100), Body::Whole(100)] {
            assert_eq!(read(short, body), Err(ErrorKind::UnexpectedEof));
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let text = "HTTP/1.0 200 OK\r\n\r\nbody";
        assert_eq!(read(text, Body::Whole(4)), Ok((200, "body".into())));
        assert_eq!(read(text, Body::Announced(4)), Ok((200, String::new())));
        assert_eq!(
            read("HTTP/1.0 200 OK\r\n", Body::Whole(4)),
            Err(ErrorKind::UnexpectedEof)
        );
        assert_eq!(read("", Body::Whole(4)), Err(ErrorKind::UnexpectedEof));
    }

    #[test]
    fn long_responses_are_cut_or_refused() {
        let text = "HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\nbecause";
        assert_eq!(read(text, Body::Announced(3)), Ok((403, "bec".into())));
        assert_eq!(read(text, Body::Whole(5)), Err(ErrorKind::InvalidData));
        let endless = format!("HTTP/1.0 200 OK\r\n\r\n{}", "b".repeat(100));
        assert_eq!(read(&endless, Body::Whole(50)), Err(ErrorKind::InvalidData));
        let head = format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
            "x".repeat(2 * HEAD_BYTES_MAX)
        );
        assert_eq!(read(&head, Body::Announced(9)), Err(ErrorKind::InvalidData));
        let not_http = "SSH-2.0-OpenSSH_9.2\r\n";
        assert_eq!(
            read(not_http, Body::Announced(9)),
            Err(ErrorKind::InvalidData)
        );
    }

    /// An upgraded connection has no body, and stays open.
    #[test]
    fn nothing_is_read_after_a_101() {
        let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
        assert_eq!(read(text, Body::Announced(9)), Ok((101, String::new())));
    }

    #[test]
    fn it_ends_in_time() {
        let mut endless = Pieces(b"HTTP/1.1 200 OK\r\n\r\n", 1);
        let read = Response::read(&mut endless, Body::Whole(9), Duration::ZERO);
        assert_eq!(
            read.map(|_| ()).map_err(|error| error.kind()),
            Err(ErrorKind::TimedOut)
        );
    }
}
