//! Valid and invalid requests: `framing.txt` contains the bytes and everything that the server answers.
//!
//! Each request is sent as a whole, then in two writes, cut at every possible place. All responses must be equal. The
//! client shuts down its sending side after the last byte, so after a response that keeps the connection open, the
//! server closes it normally.

use crate::support::{Client, Place};
use edgetcd::http1::Limits;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Shutdown;

const TRANSCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http1/framing.txt");

/// One worker, so that an answer to a second client shows that the first client's bytes were processed.
fn place() -> Place {
    Place::open(
        1,
        Limits {
            body_bytes: 20,
            head_bytes: 600,
            ..Limits::default()
        },
    )
}

/// The response to `request`, cut at `cut`, without the `Date` line, which must be present.
fn exchange(place: &Place, witness: &mut Client, request: &[u8], cut: usize) -> String {
    let mut client = place.client();
    client.send(&request[..cut]);
    if cut > 0 {
        assert_eq!(
            witness.ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").body,
            b"hello"
        );
    }
    // The server may refuse the request before the rest is sent. It still reads the rest.
    let _ = client.socket.write_all(&request[cut..]);
    let _ = client.socket.shutdown(Shutdown::Write);
    let answer = client.rest();
    let text = String::from_utf8(answer).expect("text");
    text.split_inclusive("\r\n")
        .filter(|line| !line.starts_with("Date: "))
        .collect()
}

/// Decodes the transcript's escapes: `\r`, `\n` (which ends a line), `\xE9`, `\0`, and `{x 30}` for thirty x.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (escape, length) = match (first, rest.as_bytes().get(1)) {
            ('\\', Some(b'r')) => (vec![b'\r'], 2),
            ('\\', Some(b'n')) => (vec![b'\n'], 2),
            ('\\', Some(b't')) => (vec![b'\t'], 2),
            ('\\', Some(b'0')) => (vec![0], 2),
            ('\\', Some(b'x')) => (
                vec![u8::from_str_radix(&rest[2..4], 16).expect("two digits")],
                4,
            ),
            ('{', _) => {
                let end = rest.find('}').expect("a closing brace");
                let (what, count) = rest[1..end].split_once(' ').expect("what and how often");
                (
                    what.repeat(count.parse().expect("a number")).into_bytes(),
                    end + 1,
                )
            }
            ('\n', _) => (Vec::new(), 1),
            (other, _) => (other.to_string().into_bytes(), other.len_utf8()),
        };
        bytes.extend(escape);
        rest = &rest[length..];
    }
    bytes
}

/// The response, with each of its lines on its own line.
fn show(answer: &str) -> String {
    let mut shown = String::new();
    for line in answer.split_inclusive('\n') {
        let version = concat!("edgetcd/", env!("CARGO_PKG_VERSION"));
        let line = line.replace(version, "edgetcd/VERSION");
        let _ = writeln!(shown, "{}", line.escape_default());
    }
    shown + "(end)\n"
}

#[test]
fn requests_and_what_is_none() {
    let old = std::fs::read_to_string(TRANSCRIPT).expect("the transcript");
    let place = place();
    let mut witness = place.client();
    let mut new = String::new();
    for case in old.split("\n\n") {
        let (commands, _) = case.split_once("\n---").expect("a line ---");
        let (comments, request): (Vec<_>, Vec<_>) =
            commands.lines().partition(|line| line.starts_with('#'));
        let request = unescape(&request.join("\n"));
        let whole = exchange(&place, &mut witness, &request, 0);
        for cut in 1..request.len() {
            let split = exchange(&place, &mut witness, &request, cut);
            assert_eq!(split, whole, "{comments:?} cut at {cut}");
        }
        let _ = write!(new, "{commands}\n---\n{}\n", show(&whole));
    }
    let new = new.trim_end().to_string() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TRANSCRIPT, new).expect("write the transcript");
    } else {
        assert_eq!(
            new,
            old.trim_end().to_string() + "\n",
            "UPDATE=1 rewrites it"
        );
    }
}

#[test]
fn every_answer_has_a_date() {
    let place = place();
    let response = place.client().ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let date = response.header("Date").expect("a date");
    assert!(
        date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(),
        "{date}"
    );
    assert_eq!(
        response.header("Server"),
        Some(concat!("edgetcd/", env!("CARGO_PKG_VERSION")))
    );
}
