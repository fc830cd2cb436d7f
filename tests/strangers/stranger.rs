//! A program on the cluster's network that is not a member: sends handshakes, frames and peer messages by hand.

// `tests/closed` uses a part of it.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time limit for an answer on any machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The newest term that the wire format allows.
pub const LAST_TERM: u64 = (1 << 62) - 1;

/// The identity that an attacker claims.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub cluster: u64,
    pub id: u64,
    pub incarnation: u64,
}

impl Claim {
    /// The request that asks the member `to` at `address` for a stream of peer messages, with this URL as its own.
    pub fn request(&self, address: SocketAddr, to: u64, url: &str) -> String {
        let Claim {
            cluster,
            id,
            incarnation,
        } = self;
        format!(
            "GET /raft/stream HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: edgetcd-raft\r\n\
             X-Edgetcd-Protocol: 1\r\nX-Edgetcd-Cluster: {cluster:x}\r\nX-Edgetcd-From: {id:x}\r\n\
             X-Edgetcd-Incarnation: {incarnation:x}\r\nX-Edgetcd-To: {to:x}\r\nX-Edgetcd-Urls: {url}\r\nX-Edgetcd-Token: bad\r\n\r\n"
        )
    }

    /// Connects to `address`, the peer port of the member `to`, with this URL as its own. Returns the socket and the
    /// head of the response.
    pub fn dial(&self, address: SocketAddr, to: u64, url: &str) -> (TcpStream, String) {
        let head = self.request(address, to, url);
        let mut socket = TcpStream::connect(address).expect("the peer port listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.set_write_timeout(Some(PATIENCE)).expect("an option");
        socket.write_all(head.as_bytes()).expect("it is read");
        let answer = read_head(&mut socket);
        (socket, answer)
    }

    /// A frame with one peer message from this sender.
    pub fn frame(&self, peer_message: &[u8]) -> Vec<u8> {
        let mut frame = self.frame_head(peer_message.len());
        frame.extend_from_slice(peer_message);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&frame[..4]);
        hasher.update(&frame[8..]);
        frame[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        frame
    }

    /// The first bytes of a frame of this length, without a checksum.
    pub fn frame_head(&self, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&[0, 0, 0, 0, 1, 1]);
        frame.extend_from_slice(&self.cluster.to_le_bytes());
        frame.extend_from_slice(&self.id.to_le_bytes());
        frame
    }
}

/// The incarnation of the member with this data directory. Only the owner of the machine can read it.
pub fn incarnation_in(data: &Path) -> u64 {
    let path = data.join("member/identity");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = String::from_utf8_lossy(&bytes[12..]).into_owned();
    let (_, rest) = text.split_once("\"incarnation\":").expect("a field");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}

/// A leader's heartbeat.
pub fn heartbeat(term: u64) -> Vec<u8> {
    let mut peer_message = message(term, 8);
    numbers(&mut peer_message, &[1, 0, 0]);
    peer_message
}

/// A candidate's request that claims that the leader itself asked for the election.
pub fn vote(term: u64) -> Vec<u8> {
    let mut peer_message = message(term, 3);
    numbers(&mut peer_message, &[term, 1 << 40]);
    peer_message.push(1);
    peer_message
}

/// A leader's append of one committed command without a valid content.
pub fn garbage(term: u64, index: u64) -> Vec<u8> {
    let mut peer_message = message(term, 5);
    numbers(&mut peer_message, &[term, index, index + 1]);
    peer_message.extend_from_slice(&1u32.to_le_bytes());
    peer_message.extend_from_slice(&term.to_le_bytes());
    peer_message.push(2);
    peer_message.extend_from_slice(&7u32.to_le_bytes());
    peer_message.extend_from_slice(b"garbage");
    peer_message
}

fn numbers(peer_message: &mut Vec<u8>, numbers: &[u64]) {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    peer_message.extend(bytes);
}

fn message(term: u64, kind: u8) -> Vec<u8> {
    let mut peer_message = vec![1];
    peer_message.extend_from_slice(&0u64.to_le_bytes());
    peer_message.extend_from_slice(&term.to_le_bytes());
    peer_message.push(kind);
    peer_message
}

/// Whether the other end closes the connection, after the text of a refusal.
pub fn is_closed(socket: &mut TcpStream) -> bool {
    loop {
        match socket.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}

/// A port that answers every request with the statement that the member `victim` was removed, until it is dropped.
pub struct Trap {
    pub address: SocketAddr,
    answered: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trap {
    /// Port 0: any free port.
    pub fn at(address: SocketAddr, cluster: u64, victim: u64) -> Trap {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("its address");
        let (answered, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stop) = (Arc::clone(&answered), Arc::clone(&ended));
        let answer = format!(
            "HTTP/1.1 410 Gone\r\nX-Edgetcd-Removed: {victim:x}\r\nX-Edgetcd-Cluster: {cluster:x}\r\n\
             X-Edgetcd-Proof: 0123456789abcdef0123456789abcdef01234567\r\nContent-Length: 0\r\n\r\n"
        );
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                read_head(&mut socket);
                // The client may have disconnected.
                let _ = socket.write_all(answer.as_bytes());
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Trap {
            address,
            answered,
            ended,
            thread: Some(thread),
        }
    }

    /// The number of answers sent.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread, which then releases the port.
        let woken = TcpStream::connect(self.address);
        if woken.is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Empty if the other end has closed the connection first.
fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
