//! Proxies in front of real members: the links between them can be cut and delayed. The server knows nothing of it.
//!
//! ```text
//!   n1 ── dials the peer URL of n2 ──▶ proxy of n2 ──▶ n2
//! ```
//!
//! Who dials is in the head of the connection (`X-Edgetcd-From`), so the proxy knows the link (`links.rs`). It delays and
//! drops the bytes of the sender as the link's rule says.
//!
//! A proxy refuses connections while its member does not run. So the others learn, as from a machine without proxy, that
//! no process listens there.

use crate::links::{Links, Passage};
use edgetcd::http1::{Bound, bind};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A head that is longer is not one of a member.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A member sends the head at once. From the first to the last byte.
const HEAD_TIME: Duration = Duration::from_secs(5);
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of a connection that wait for the end of a delay. With more, the sender waits too.
const PIECES_MAX: usize = 256;
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Connections through one proxy. Each other member has a few. Further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// A pause if the system has no descriptor or thread left.
const PAUSE: Duration = Duration::from_millis(50);

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
        // Wakes the thread. If nothing does, it ends after its next connection.
        if TcpStream::connect_timeout(&self.address, CONNECT_TIME).is_ok() {
            let _ = thread.join();
        }
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
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let links = Arc::clone(links);
        let place = Place::take(&open);
        let begun = accepted.and_then(|(near, _)| {
            let Some(place) = place else {
                return Ok(());
            };
            let body = move || {
                // An error ends this connection, as it would without a proxy.
                let _ = pass(&links, near, to, target);
                drop(place);
            };
            thread::Builder::new().name("link".into()).spawn(body)?;
            Ok(())
        });
        if begun.is_err() {
            thread::sleep(PAUSE);
        }
    }
}

/// One of the connections that a proxy may have. Dropping it lets another one come.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        let before = open.fetch_add(1, Ordering::SeqCst);
        let place = Place(Arc::clone(open));
        (before < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
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
    let passage = links.begin(&head, to, near.try_clone()?);
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
    let until = Instant::now() + HEAD_TIME;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        near.set_read_timeout(Some(left))?;
        let count = near.read(&mut piece)?;
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&piece[..count]);
    }
    near.set_read_timeout(None)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_cannot_be_reached_does_not_wait_for_its_thread() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = bind(any, &[]).expect("a port");
        // Nothing listens there.
        let other = SocketAddr::from(([127, 0, 0, 1], 1));
        let links = Links::new(Vec::new());
        let mut proxy = Proxy::new(socket, other, any, 0, &links);
        proxy.accept().expect("it listens");
        proxy.refuse();
        assert!(!matches!(proxy.state, State::Accepting { .. }));
    }
}
