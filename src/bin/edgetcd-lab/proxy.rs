//! Links between real members that can be cut and delayed, in each direction on its own. The server knows nothing of it.
//!
//! ```text
//!   n1 ── dials the peer URL of n2 ──▶ proxy of n2 ──▶ n2
//! ```
//!
//! Each member publishes the address of its proxy as its peer URL, so all others dial the proxy. Who dials is in the
//! head of the connection (`X-Edgetcd-From`, see `src/peer/handshake.rs`). A member sends only on connections that it has
//! dialled. So a connection that n1 has dialled to n2 belongs to the link from n1 to n2, together with the answer to its
//! handshake.
//!
//! While a link is cut, the proxy reads what arrives and drops it, as a network loses packets: the sender notices only
//! that no answer comes. A stream that has lost bytes cannot continue, so its connection is closed when the link is
//! healed. Requests without a sender pass: `/members` and `/version`, which a member asks before it knows the others.
//!
//! A proxy refuses connections while its member does not run. So the others learn, as from a machine without proxy, that
//! no process listens there.

use edgetcd::http1::{Bound, bind};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A head that is longer is not one of a member.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A member sends the head at once.
const HEAD_TIME: Duration = Duration::from_secs(5);
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of a connection that wait for the end of a delay. With more, the sender waits too.
const PIECES_MAX: usize = 256;
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// A pause if the system has no descriptor or thread left.
const PAUSE: Duration = Duration::from_millis(50);

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
    passages: Vec<Weak<Passage>>,
}

/// A connection through a proxy.
struct Passage {
    /// None: the sender is not known.
    link: Option<(usize, usize)>,
    /// Bytes were lost, so no later ones may arrive.
    has_lost: AtomicBool,
    near: TcpStream,
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
        for passage in shared.passages.iter().filter_map(Weak::upgrade) {
            if passage.link == Some(link) && passage.has_lost.load(Ordering::SeqCst) {
                passage.end();
            }
        }
    }

    /// The delay of bytes that are sent on this connection now. None: they are lost.
    fn judge(&self, passage: &Passage) -> Option<Duration> {
        let rule = passage
            .link
            .and_then(|link| self.shared().rules.get(&link).copied());
        let rule = rule.unwrap_or_default();
        if rule.cut {
            passage.has_lost.store(true, Ordering::SeqCst);
        }
        (!passage.has_lost.load(Ordering::SeqCst)).then_some(rule.delay)
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

    fn begin(&self, passage: &Arc<Passage>) {
        let mut shared = self.shared();
        shared.passages.retain(|known| known.strong_count() > 0);
        shared.passages.push(Arc::downgrade(passage));
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of a header, in lower case as its name.
fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    Some(value.trim().to_owned())
}

/// The proxy of one member.
pub struct Proxy {
    address: SocketAddr,
    /// Where the member itself listens.
    target: SocketAddr,
    /// The number of the member.
    to: usize,
    links: Arc<Links>,
    state: State,
}

enum State {
    Refusing(Bound),
    Accepting {
        stop: Arc<AtomicBool>,
        thread: JoinHandle<()>,
    },
    /// The address was lost between two states.
    Lost,
}

impl Proxy {
    /// A proxy that refuses connections.
    pub fn new(
        socket: Bound,
        address: SocketAddr,
        target: SocketAddr,
        to: usize,
        links: &Arc<Links>,
    ) -> Proxy {
        Proxy {
            address,
            target,
            to,
            links: Arc::clone(links),
            state: State::Refusing(socket),
        }
    }

    /// Accepts connections from now on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn accept(&mut self) -> io::Result<()> {
        let socket = match std::mem::replace(&mut self.state, State::Lost) {
            State::Refusing(socket) => socket,
            State::Lost => bind(self.address, &[])?,
            accepting @ State::Accepting { .. } => {
                self.state = accepting;
                return Ok(());
            }
        };
        let listener = socket.listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, links) = (Arc::clone(&stop), Arc::clone(&self.links));
        let (to, target) = (self.to, self.target);
        let body = move || accept(&listener, &stopped, &links, to, target);
        let thread = thread::Builder::new().name("proxy".into()).spawn(body)?;
        self.state = State::Accepting { stop, thread };
        Ok(())
    }

    /// Refuses connections from now on. Open ones continue.
    pub fn refuse(&mut self) {
        let State::Accepting { stop, thread } = std::mem::replace(&mut self.state, State::Lost)
        else {
            return;
        };
        stop.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        let _ = thread.join();
        if let Ok(socket) = bind(self.address, &[]) {
            self.state = State::Refusing(socket);
        }
    }
}

fn accept(
    listener: &TcpListener,
    stop: &AtomicBool,
    links: &Arc<Links>,
    to: usize,
    target: SocketAddr,
) {
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let links = Arc::clone(links);
        let begun = accepted.and_then(|(near, _)| {
            let body = move || {
                // An error ends this connection, as it would without a proxy.
                let _ = pass(&links, near, to, target);
            };
            thread::Builder::new().name("link".into()).spawn(body)
        });
        if begun.is_err() {
            thread::sleep(PAUSE);
        }
    }
}

/// Bytes that arrive at their receiver at a time.
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// Carries a connection until one of its ends closes it.
fn pass(links: &Links, mut near: TcpStream, to: usize, target: SocketAddr) -> io::Result<()> {
    near.set_nodelay(true)?;
    let head = read_head(&mut near)?;
    let passage = Arc::new(Passage {
        link: links.sender(&head).map(|from| (from, to)),
        has_lost: AtomicBool::new(false),
        near: near.try_clone()?,
    });
    links.begin(&passage);
    let (pieces, waiting) = sync_channel(PIECES_MAX);
    let own = Arc::clone(&passage);
    let body = move || {
        let _ = deliver(&waiting, target, &own);
        own.end();
    };
    thread::Builder::new().name("link-out".into()).spawn(body)?;
    forward(links, &passage, near, head, &pieces)
}

/// Passes on the bytes of the sender that are not lost.
fn forward(
    links: &Links,
    passage: &Passage,
    mut near: TcpStream,
    head: Vec<u8>,
    pieces: &SyncSender<Piece>,
) -> io::Result<()> {
    let mut bytes = head;
    let mut room = vec![0; PIECE_BYTES];
    loop {
        if let Some(delay) = links.judge(passage) {
            let piece = Piece {
                due: Instant::now() + delay,
                bytes,
            };
            if pieces.send(piece).is_err() {
                return Ok(());
            }
        }
        bytes = match near.read(&mut room)? {
            0 => return Ok(()),
            count => room[..count].to_vec(),
        };
    }
}

/// Writes the pieces to the receiver, each at its time. Connects when there is the first one.
fn deliver(pieces: &Receiver<Piece>, target: SocketAddr, passage: &Passage) -> io::Result<()> {
    let mut far: Option<TcpStream> = None;
    for Piece { due, bytes } in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let open = match far.take() {
            Some(open) => open,
            None => connect(target, passage)?,
        };
        far.insert(open).write_all(&bytes)?;
    }
    if let Some(far) = far {
        far.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn connect(target: SocketAddr, passage: &Passage) -> io::Result<TcpStream> {
    let far = TcpStream::connect_timeout(&target, CONNECT_TIME)?;
    far.set_nodelay(true)?;
    let (mut from, mut to) = (far.try_clone()?, passage.near.try_clone()?);
    let back = move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    };
    thread::Builder::new()
        .name("link-back".into())
        .spawn(back)?;
    Ok(far)
}

/// Reads until the end of the head. More bytes may follow it.
fn read_head(near: &mut TcpStream) -> io::Result<Vec<u8>> {
    near.set_read_timeout(Some(HEAD_TIME))?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = near.read(&mut piece)?;
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&piece[..count]);
    }
    near.set_read_timeout(None)?;
    Ok(head)
}

impl Passage {
    fn end(&self) {
        let _ = self.near.shutdown(Shutdown::Both);
    }
}
