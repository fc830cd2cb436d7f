//! Downloads one file from a server, as long as data keeps arriving.
//!
//! A time limit for the whole request would be too short for a large file on a slow line. So a thread reads the
//! response, and the caller stops waiting if too little data arrives ([`Pace`]). The thread ends with the connection or
//! the process.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::body::{Pace, Unread};
use super::client::{Client, LONG_TIMEOUTS, Miss, Settings, too_slow};
use super::endpoint::Endpoint;
use super::wire::Ask;

/// Number of pieces that are read ahead.
const AHEAD: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

/// The head of a response.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    /// `Content-Length`.
    pub bytes: u64,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header with a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.parse().ok()
    }
}

enum Message {
    Head(Head),
    Piece(Vec<u8>),
    End,
    Failed(Miss),
}

/// A response that is being read.
pub(super) struct Download {
    pub head: Head,
    endpoint: Endpoint,
    messages: Receiver<Message>,
    pace: Pace,
}

impl Download {
    /// Sends a request to this endpoint and waits for the head of its response.
    pub fn begin(endpoint: &Endpoint, settings: &Settings, ask: Ask) -> Result<Download, Miss> {
        let (sender, messages) = bounded(AHEAD);
        let client = Client::new(vec![endpoint.clone()], settings.clone());
        let from = endpoint.clone();
        let reader = thread::Builder::new().name("download".into());
        let started = reader.spawn(move || read(&client, &from, &ask, &sender));
        if let Err(error) = started {
            return Err(Miss::sent(format!("cannot start a thread: {error}")));
        }
        let head = wait(
            &messages,
            settings.timeout * LONG_TIMEOUTS,
            endpoint,
            "the beginning of its answer",
        )?;
        match head {
            Message::Head(head) => Ok(Download {
                head,
                endpoint: endpoint.clone(),
                messages,
                pace: Pace::new(settings.timeout),
            }),
            Message::Failed(miss) => Err(miss),
            Message::Piece(_) | Message::End => unreachable!("the head comes first"),
        }
    }

    /// Returns the next bytes. None at the end.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Miss> {
        loop {
            let slow = |unread| match unread {
                Unread::TooSlow(span) => too_slow(&self.endpoint, span),
                other => Miss::sent(format!("client: {}: {other:?}", self.endpoint)),
            };
            let received = match self.pace.left().map_err(slow)? {
                None => self.messages.recv().ok(),
                Some(left) => match self.messages.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) => continue,
                    received => received.ok(),
                },
            };
            return match received {
                Some(Message::Piece(piece)) => {
                    self.pace.count(piece.len());
                    Ok(Some(piece))
                }
                Some(Message::Failed(miss)) => Err(miss),
                Some(Message::Head(_)) => unreachable!("there is one head"),
                Some(Message::End) | None => Ok(None),
            };
        }
    }

    /// Reads the rest of the response, as far as it arrives, for example the text of an error.
    pub fn text(mut self) -> String {
        let mut text = Vec::new();
        while let Ok(Some(piece)) = self.next()
            && text.len() < PIECE_BYTES
        {
            text.extend(piece);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

/// Waits for at most this time. 0 means no limit.
fn wait(
    messages: &Receiver<Message>,
    patience: Duration,
    endpoint: &Endpoint,
    what: &str,
) -> Result<Message, Miss> {
    let received = match patience.is_zero() {
        true => messages.recv().ok(),
        false => messages.recv_timeout(patience).ok(),
    };
    received.ok_or_else(|| {
        Miss::sent(format!(
            "client: {endpoint}: received nothing for {patience:?} while waiting for {what}; for a slow line use a \
             longer --timeout"
        ))
    })
}

/// If the receiver no longer waits, results are discarded.
fn read(client: &Client, endpoint: &Endpoint, ask: &Ask, sender: &Sender<Message>) {
    let mut response = match client.begin(endpoint, ask) {
        Ok(response) => response,
        Err(miss) => return drop(sender.send(Message::Failed(miss))),
    };
    let headers = response.headers().iter();
    let headers: Vec<(String, String)> = headers
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let mut head = Head {
        status: response.status().as_u16(),
        bytes: 0,
        headers,
    };
    head.bytes = head.number("Content-Length").unwrap_or(0);
    if sender.send(Message::Head(head)).is_err() {
        return;
    }
    let body = response.body_mut().with_config().limit(u64::MAX);
    let mut body = body.reader();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let message = match body.read(&mut piece) {
            Ok(0) => Message::End,
            Ok(read) => {
                piece.truncate(read);
                Message::Piece(piece)
            }
            Err(error) => Message::Failed(Miss::sent(format!("client: {endpoint}: {error}"))),
        };
        let over = !matches!(message, Message::Piece(_));
        if sender.send(message).is_err() || over {
            return;
        }
    }
}
