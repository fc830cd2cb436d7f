//! The other end of a link as plain sockets, which can break the protocol as no link does.

use super::*;
use crate::peer::frame::{Bounds, Budget, FrameReader, Kind, Origin};
use crate::peer::handshake::{Greeting, Me, SNAPSHOT_PATH, STREAM_PATH};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// A process that claims to be this member.
pub fn claim(id: u64) -> Me {
    Me {
        cluster: CLUSTER,
        id: NodeId(id),
        incarnation: incarnation(id),
    }
}

pub fn origin(sender: u64) -> Origin {
    Origin {
        cluster: CLUSTER,
        sender: NodeId(sender),
    }
}

pub fn frame(sender: u64, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    origin(sender).frame(kind, &mut bytes, |out| out.extend_from_slice(payload));
    bytes
}

pub fn message_frame(sender: u64, peer_message: &PeerMessage) -> Vec<u8> {
    let mut payload = Vec::new();
    peer_message.encode(&mut payload);
    frame(sender, Kind::PeerMessage, &payload)
}

/// Sends bytes to a peer port. Returns the connection and the head of the answer (with the text of a refusal).
pub fn ask(address: SocketAddr, request: &[u8]) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.write_all(request).expect("write");
    let head = head(&mut socket);
    if head.starts_with("HTTP/1.1 101 ") {
        return (socket, head);
    }
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("a text");
    (socket, head + &text)
}

/// Reads up to the end of a head, and not a byte beyond it.
pub fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            socket.read(&mut byte).expect("a head in time"),
            1,
            "an end in the head"
        );
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head is text")
}

pub fn stream(address: SocketAddr, me: &Me, to: u64) -> (TcpStream, String) {
    linked(address, me, to, 0)
}

/// A stream whose handshake contains this token.
pub fn linked(address: SocketAddr, me: &Me, to: u64, token: u64) -> (TcpStream, String) {
    let greeting = Greeting {
        token,
        ..greeting(STREAM_PATH)
    };
    ask(address, &me.request(NodeId(to), &greeting))
}

/// A greeting that proves nothing.
pub fn greeting(path: &str) -> Greeting<'_> {
    Greeting {
        path,
        authority: "x",
        ..Greeting::default()
    }
}

pub fn snapshot(address: SocketAddr, me: &Me, to: u64, term: u64) -> (TcpStream, String) {
    let greeting = Greeting {
        term: Some(Term(term)),
        token: TOKEN,
        ..greeting(SNAPSHOT_PATH)
    };
    ask(address, &me.request(NodeId(to), &greeting))
}

/// The token in the connections of a member by hand.
pub const TOKEN: u64 = 3;

/// The peer port of a member by hand. It vouches to member 1 for connections with [`TOKEN`]. It accepts every stream
/// and never reads from it.
pub fn vouching(id: u64) -> SocketAddr {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            let answer = match head(&mut socket).starts_with("GET /raft/link ") {
                false => welcome(id),
                true => {
                    let digest = claim(id).digest(NodeId(id), NodeId(1), TOKEN);
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{digest}",
                        digest.len()
                    )
                }
            };
            // The process that asked may have closed the connection.
            let _ = socket.write_all(answer.as_bytes());
            open.push(socket);
        }
    });
    address
}

/// The answer of this member to a stream.
fn welcome(id: u64) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: edgetcd-raft\r\n\
         X-Edgetcd-Incarnation: {:x}\r\n\r\n",
        incarnation(id)
    )
}

/// Whether the other end has closed the connection: by an end or by a reset.
pub fn has_ended(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    match socket.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// A listening member that answers a handshake by hand.
pub struct Bare {
    pub listener: TcpListener,
    pub address: SocketAddr,
}

impl Bare {
    pub fn listen() -> Bare {
        let (listener, address) = listener();
        listener.set_nonblocking(true).expect("an option");
        Bare { listener, address }
    }

    /// The next connection, and the head of its request.
    pub fn accept(&self) -> (TcpStream, String) {
        let mut accepted = None;
        until("somebody dials", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (mut socket, _) = accepted.expect("until says so");
        socket.set_nonblocking(false).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        let head = head(&mut socket);
        (socket, head)
    }

    /// The next connection, accepted in the name of this member.
    pub fn welcome(&self, id: u64) -> (TcpStream, String) {
        let (mut socket, head) = self.accept();
        socket.write_all(welcome(id).as_bytes()).expect("write");
        (socket, head)
    }
}

fn bounds() -> Bounds {
    Bounds {
        payload_max: 64 << 20,
        time: PATIENCE,
        budget: Budget::new(128 << 20),
    }
}

/// The frames that arrive on a socket, with their payloads.
pub struct Frames {
    pub socket: TcpStream,
    reader: FrameReader,
    /// The number of bytes that have arrived.
    pub bytes: usize,
}

impl Frames {
    pub fn of(socket: TcpStream, sender: u64) -> Frames {
        Frames {
            socket,
            reader: FrameReader::new(origin(sender), bounds(), &[]),
            bytes: 0,
        }
    }

    pub fn next(&mut self) -> (Kind, Vec<u8>) {
        while !self.reader.has_frame().expect("sound frames") {
            let come = self.reader.fill(&self.socket).expect("bytes in time");
            assert!(come > 0, "the stream has ended");
            self.bytes += come;
        }
        let (kind, payload) = self
            .reader
            .next()
            .expect("a sound frame")
            .expect("it is there");
        (kind, payload.to_vec())
    }

    pub fn peer_message(&mut self) -> PeerMessage {
        let (kind, payload) = self.next();
        assert_eq!(kind, Kind::PeerMessage);
        PeerMessage::decode(&payload).expect("a peer message")
    }
}

/// A link of member 1, and member 2 by hand.
pub fn with_bare(timing: Timing) -> (Node, Bare) {
    let (one, a) = listener();
    let two = Bare::listen();
    let members = published(members(&[(1, a), (2, two.address)]));
    let setting = Setting {
        timing,
        ..Setting::of(1)
    };
    (Node::with(1, one, &members, setting), two)
}
