//! One file of a server, as long as bytes keep coming.
//!
//! A request has a time for all of it, which a big file on a slow line does not fit in. Here each piece has
//! its time: a thread reads, and whoever waits for it gives up when nothing has come for so long. The thread
//! ends with the connection or the process.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::client::{Client, Miss, Settings};
use super::endpoint::Endpoint;
use super::wire::Ask;

/// The server measures what it will send before it says a word.
const PATIENCE_FOR_THE_HEAD: u32 = 10;

/// Pieces that were read and wait to be taken.
const AHEAD: usize = 4;
const PIECE_BYTES: usize = 64 << 10;

/// What an answer says before its body.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    /// `Content-Length`.
    pub bytes: u64,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.parse().ok()
    }
}

enum News {
    Head(Head),
    Piece(Vec<u8>),
    End,
    Failed(Miss),
}

/// An answer that is being read.
pub(super) struct Download {
    pub head: Head,
    endpoint: Endpoint,
    news: Receiver<News>,
    timeout: Duration,
}

impl Download {
    /// Asks this endpoint, and waits for the head of its answer.
    pub fn begin(endpoint: &Endpoint, settings: &Settings, ask: Ask) -> Result<Download, Miss> {
        let (tell, news) = bounded(AHEAD);
        let client = Client::new(vec![endpoint.clone()], settings.clone());
        let from = endpoint.clone();
        let reader = thread::Builder::new().name("download".into());
        let started = reader.spawn(move || read(&client, &from, &ask, &tell));
        if let Err(error) = started {
            return Err(Miss::sent(format!("no thread: {error}")));
        }
        let head = wait(
            &news,
            settings.timeout * PATIENCE_FOR_THE_HEAD,
            endpoint,
            "the beginning of its answer",
        )?;
        match head {
            News::Head(head) => Ok(Download {
                head,
                endpoint: endpoint.clone(),
                news,
                timeout: settings.timeout,
            }),
            News::Failed(miss) => Err(miss),
            News::Piece(_) | News::End => unreachable!("the head comes first"),
        }
    }

    /// The next bytes; none at the end.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Miss> {
        match wait(&self.news, self.timeout, &self.endpoint, "more of it")? {
            News::Piece(piece) => Ok(Some(piece)),
            News::End => Ok(None),
            News::Failed(miss) => Err(miss),
            News::Head(_) => unreachable!("there is one head"),
        }
    }

    /// All that is left, as far as it comes and is of use: the text of a refusal.
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

/// Waits for as long as it may take; 0 is for ever.
fn wait(
    news: &Receiver<News>,
    patience: Duration,
    endpoint: &Endpoint,
    what: &str,
) -> Result<News, Miss> {
    let told = match patience.is_zero() {
        true => news.recv().ok(),
        false => news.recv_timeout(patience).ok(),
    };
    told.ok_or_else(|| {
        Miss::sent(format!(
            "client: {endpoint}: nothing came for {patience:?}, where {what} was due; a slow line needs a \
             longer --timeout"
        ))
    })
}

/// Whoever waited may have given up; then there is nobody to tell.
fn read(client: &Client, endpoint: &Endpoint, ask: &Ask, tell: &Sender<News>) {
    let mut response = match client.begin(endpoint, ask) {
        Ok(response) => response,
        Err(miss) => return drop(tell.send(News::Failed(miss))),
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
    if tell.send(News::Head(head)).is_err() {
        return;
    }
    let body = response.body_mut().with_config().limit(u64::MAX);
    let mut body = body.reader();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let news = match body.read(&mut piece) {
            Ok(0) => News::End,
            Ok(read) => {
                piece.truncate(read);
                News::Piece(piece)
            }
            Err(error) => News::Failed(Miss::sent(format!("client: {endpoint}: {error}"))),
        };
        let over = !matches!(news, News::Piece(_));
        if tell.send(news).is_err() || over {
            return;
        }
    }
}
