//! Links between real members that can be cut and delayed, in each direction on its own.
//!
//! Each member publishes the address of its proxy as its peer URL, so all others dial the proxy. Who dials is in the
//! head of the connection (`X-Edgetcd-From`, see `src/peer/handshake.rs`). A member sends only on connections that it has
//! dialled. So a connection that n1 has dialled to n2 belongs to the link from n1 to n2, together with the answer to its
//! handshake.
//!
//! While a link is cut, the proxy reads what arrives and drops it, as a network loses packets: the sender notices only
//! that no answer comes. A stream that has lost bytes cannot continue, so its connection is closed when the link is
//! healed. Requests without a sender pass: `/members` and `/version`, which a member asks before it knows the others.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What a link does with messages.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// They are lost.
    pub cut: bool,
    /// They take so much longer.
    pub delay: Duration,
}

/// The rules of all links, and the connections on them. Members are counted from 0.
pub struct Links {
    /// The peer URL of each member: that of its proxy.
    urls: Vec<String>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// By sender and receiver. A link that does nothing has no rule.
    rules: BTreeMap<(usize, usize), Rule>,
    /// The members by their ids, as they were named in handshakes.
    ids: BTreeMap<String, usize>,
    /// The connections by their numbers.
    passages: BTreeMap<u64, Known>,
    /// Number of connections so far.
    begun: u64,
}

/// A connection, and whether it has lost bytes, so that no later ones may arrive. This is noted here, because the rules
/// decide it: a link that is healed between the two would keep a connection that loses all.
struct Known {
    passage: Weak<Passage>,
    has_lost: bool,
}

/// A connection through a proxy.
pub struct Passage {
    number: u64,
    /// None: the sender is not known.
    link: Option<(usize, usize)>,
    /// The sender's end.
    pub near: TcpStream,
}

impl Links {
    /// Links without rules between members with these peer URLs.
    pub fn new(urls: Vec<String>) -> Arc<Links> {
        Arc::new(Links {
            urls,
            shared: Mutex::default(),
        })
    }

    /// The links with a rule.
    pub fn rules(&self) -> Vec<((usize, usize), Rule)> {
        let shared = self.shared();
        shared
            .rules
            .iter()
            .map(|(link, rule)| (*link, *rule))
            .collect()
    }

    /// Messages from the first member to the second are lost from now on.
    pub fn cut(&self, link: (usize, usize)) {
        self.shared().rules.entry(link).or_default().cut = true;
    }

    /// They take so much longer from now on.
    pub fn delay(&self, link: (usize, usize), delay: Duration) {
        self.shared().rules.entry(link).or_default().delay = delay;
    }

    /// Ends the cut and the delay, and closes the connections that have lost something.
    pub fn heal(&self, link: (usize, usize)) {
        let mut shared = self.shared();
        shared.rules.remove(&link);
        let lossy = shared.passages.values().filter(|known| known.has_lost);
        for passage in lossy.filter_map(|known| known.passage.upgrade()) {
            if passage.link == Some(link) {
                passage.end();
            }
        }
    }

    /// The delay of bytes that are sent on this connection now. None: they are lost.
    pub fn judge(&self, passage: &Passage) -> Option<Duration> {
        let mut shared = self.shared();
        let rule = passage.link.and_then(|link| shared.rules.get(&link));
        let rule = rule.copied().unwrap_or_default();
        let known = shared.passages.get_mut(&passage.number)?;
        known.has_lost |= rule.cut;
        (!known.has_lost).then_some(rule.delay)
    }

    /// The member that has sent this head.
    fn sender(&self, head: &[u8]) -> Option<usize> {
        let id = header(head, "x-edgetcd-from")?;
        let mut shared = self.shared();
        // A member that joins again has another id, and the same URL.
        let by_url = header(head, "x-edgetcd-urls").and_then(|named| {
            self.urls
                .iter()
                .position(|url| named.split(',').any(|one| one == url))
        });
        match by_url {
            Some(member) => {
                shared.ids.insert(id, member);
                Some(member)
            }
            None => shared.ids.get(&id).copied(),
        }
    }

    /// The passage of a connection to a member that begins with this head.
    pub fn begin(&self, head: &[u8], to: usize, near: TcpStream) -> Arc<Passage> {
        let link = self.sender(head).map(|from| (from, to));
        let mut shared = self.shared();
        shared.begun += 1;
        let passage = Arc::new(Passage {
            number: shared.begun,
            link,
            near,
        });
        let is_open = |known: &Known| known.passage.strong_count() > 0;
        shared.passages.retain(|_, known| is_open(known));
        let known = Known {
            passage: Arc::downgrade(&passage),
            has_lost: false,
        };
        shared.passages.insert(passage.number, known);
        passage
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage {
    /// Closes the connection.
    pub fn end(&self) {
        let _ = self.near.shutdown(Shutdown::Both);
    }
}

/// The value of a header, in lower case as its name.
fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    const LINK: (usize, usize) = (0, 1);

    #[test]
    fn a_connection_that_has_lost_bytes_ends_when_its_link_is_healed() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
        let links = Links::new(urls.map(str::to_owned).to_vec());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let open = |from: usize, to: usize| {
            let head = format!(
                "X-Edgetcd-From: n{from}\r\nX-Edgetcd-Urls: {}\r\n\r\n",
                urls[from]
            );
            let near = TcpStream::connect(address).expect("it listens");
            near.set_nonblocking(true).expect("a socket");
            let (far, _) = listener.accept().expect("a connection");
            (near, links.begin(head.as_bytes(), to, far))
        };
        let is_closed = |near: &mut TcpStream| {
            let read = near.read(&mut [0]);
            !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        let (mut losing, lost) = open(LINK.0, LINK.1);
        let (mut silent, _silent) = open(LINK.0, LINK.1);
        let (mut back, other) = open(LINK.1, LINK.0);
        links.cut(LINK);
        assert_eq!(links.judge(&lost), None);
        assert_eq!(
            links.judge(&other),
            Some(Duration::ZERO),
            "the other direction"
        );
        links.heal(LINK);
        assert_eq!(links.judge(&lost), None, "no byte after a gap");
        assert!(is_closed(&mut losing));
        assert!(!is_closed(&mut silent) && !is_closed(&mut back));
    }
}
