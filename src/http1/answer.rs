//! A response before it is printed.
//!
//! The types are those of tiny_http ([`StatusCode`], [`Header`], [`Response`]). [`Answer::from_response`] converts a
//! `Response` to an [`Answer`]. The printing is our own (`output.rs`).

use std::io::{self, Read};
use tiny_http::{Header, Response, StatusCode};

/// Initial space for header lines: about six of them.
const LINES_BYTES: usize = 256;

/// Status, headers and body of a response. The server adds `Content-Length`, `Date`, `Server` and `Connection`.
///
/// The header lines are stored in one buffer as they will be sent. So a response with any number of headers costs two
/// allocations.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    /// Header lines; each ends with CR LF.
    pub(super) lines: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The connection closes after this response.
    pub(super) close: bool,
}

impl Answer {
    /// A response without headers and body.
    pub fn new(status: impl Into<StatusCode>) -> Answer {
        Answer {
            status: status.into().0,
            lines: Vec::new(),
            body: Vec::new(),
            close: false,
        }
    }

    /// A line of plain text. The server itself answers unacceptable requests with it.
    pub fn text(status: impl Into<StatusCode>, body: impl Into<Vec<u8>>) -> Answer {
        Answer::new(status)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(body)
    }

    /// 400 for a malformed request, and the end of its connection: the bytes that follow may not be a request.
    pub fn bad_request() -> Answer {
        Answer::refusal(400)
    }

    /// A response with the status as its text, and the end of the connection.
    pub(super) fn refusal(status: u16) -> Answer {
        let reason = StatusCode(status).default_reason_phrase();
        Answer::text(status, format!("{status} {reason}")).closing()
    }

    /// Converts status, headers and body of a tiny_http response.
    ///
    /// Errors: those of reading its body.
    pub fn from_response<R: Read>(response: Response<R>) -> io::Result<Answer> {
        let mut answer = Answer::new(response.status_code());
        for header in response.headers() {
            answer = answer.with_header(header);
        }
        response.into_reader().read_to_end(&mut answer.body)?;
        Ok(answer)
    }

    /// Adds a header. Control characters in the value are replaced by spaces, because they could end the line and begin
    /// another header. `name` comes from this program and must be a token.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Answer {
        self.add_header(name, value);
        self
    }

    /// Like [`Answer::header`], in place.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        debug_assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        let value = value.as_ref();
        if self.lines.capacity() == 0 {
            self.lines.reserve(LINES_BYTES);
        }
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        let start = self.lines.len();
        self.lines.extend_from_slice(value);
        for byte in &mut self.lines[start..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
        self.lines.extend_from_slice(b"\r\n");
    }

    /// Adds a header whose value is a number, in decimal.
    pub fn number(mut self, name: &str, value: u64) -> Answer {
        let (digits, start) = decimal(value);
        self.add_header(name, &digits[start..]);
        self
    }

    /// Adds a tiny_http header.
    pub fn with_header(self, header: &Header) -> Answer {
        self.header(
            header.field.as_str().as_str(),
            header.value.as_str().as_bytes(),
        )
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    /// Closes the connection after this response.
    pub fn closing(mut self) -> Answer {
        self.close = true;
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// The digits of a number: the array from the returned index to its end.
pub(super) fn decimal(mut number: u64) -> ([u8; 20], usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return (digits, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_begin_another_header() {
        let answer = Answer::new(200).header("Location", "/a\r\nSet-Cookie: x\0");
        assert_eq!(answer.lines, b"Location: /a  Set-Cookie: x \r\n");
    }

    #[test]
    fn numbers_are_decimal() {
        let answer = Answer::new(200)
            .number("A", 0)
            .number("B", 105)
            .number("C", u64::MAX);
        assert_eq!(
            answer.lines,
            b"A: 0\r\nB: 105\r\nC: 18446744073709551615\r\n"
        );
    }

    #[test]
    fn a_tiny_http_response_keeps_its_parts() {
        let response = Response::from_string("hello").with_status_code(404);
        let answer = Answer::from_response(response).expect("a string can be read");
        assert_eq!((answer.status(), &answer.body[..]), (404, &b"hello"[..]));
        assert_eq!(answer.lines, b"Content-Type: text/plain; charset=UTF-8\r\n");
    }
}
