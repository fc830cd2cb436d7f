//! Links over real sockets on the loopback interface. Every wait has a deadline.

mod messages;
mod raw;
mod snapshots;
mod strangers;

use super::{Config, Link, Timing};
use crate::dial::Tls;
use crate::engine::entry;
use crate::engine::members::{Member, Members, Published};
use crate::engine::peer_message::PeerMessage;
use crate::http1::{self, Answer, Handler, HttpServer, Reply, Request};
use crate::raft::{Body, Entry, LogIndex, Message, NodeId, Payload, Position, Term};
use crate::replica::peers::{FromPeers, Peers};
use crate::tree::{Action, ClusterTime, Command, Key};
use crate::wal::{DataDir, FaultyDisk, Options, Snapshots, recover};
use crossbeam_channel::{Receiver, bounded};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: u64 = 0xc1;

/// The incarnation of a member that has kept its data.
fn incarnation(id: u64) -> u64 {
    0x1000 + id
}

/// The pages of a peer port: the list of members.
struct Pages(Members);

impl Handler for Pages {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        if request.path() != b"/members" {
            return reply.send(Answer::text(404, "a page"));
        }
        let listed = |member: &Member| serde_json::json!({"id": member.id, "peerURLs": member.peer_urls, "name": member.name});
        let list: Vec<_> = self.0.iter().map(listed).collect();
        let text = serde_json::Value::from(list).to_string();
        reply.send(Answer::text(200, text).header("X-Etcd-Cluster-Id", "c1"));
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = http1::listen(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn member(id: u64, address: SocketAddr) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://{address}")],
        client_urls: Vec::new(),
    }
}

fn members(addresses: &[(u64, SocketAddr)]) -> Members {
    let list = addresses.iter().map(|(id, address)| member(*id, *address));
    Members::new(CLUSTER, list)
}

/// The members after all of them have published their incarnations.
fn published(mut members: Members) -> Members {
    let all: Vec<Member> = members.iter().cloned().collect();
    for member in all {
        members.publish(Published {
            incarnation: incarnation(member.id),
            member,
        });
    }
    members
}

fn open(disk: &FaultyDisk) -> Snapshots<FaultyDisk> {
    let options = Options {
        segment_bytes: 64 << 10,
        ..Options::new("/data")
    };
    let data_dir = DataDir::open(disk.clone(), options).expect("the directory is free");
    let (wal, _) = recover(&data_dir).expect("the log is sound");
    wal.snapshots().clone()
}

/// A member's link, its port, and the events that raft receives.
struct Node {
    link: Arc<Link<FaultyDisk>>,
    http_server: Option<HttpServer>,
    events: Receiver<FromPeers>,
    address: SocketAddr,
    disk: FaultyDisk,
    snapshots: Snapshots<FaultyDisk>,
}

/// The settings that differ from one node to another.
struct Setting {
    incarnation: u64,
    timing: Timing,
    /// The capacity of raft's channel.
    room: usize,
    history_bytes: usize,
}

impl Setting {
    fn of(id: u64) -> Setting {
        Setting {
            incarnation: incarnation(id),
            timing: Timing::new(Duration::from_secs(1)),
            room: 1024,
            history_bytes: usize::MAX,
        }
    }
}

impl Node {
    fn start(id: u64, listener: TcpListener, members: &Members) -> Node {
        Node::with(id, listener, members, Setting::of(id))
    }

    fn with(id: u64, listener: TcpListener, members: &Members, setting: Setting) -> Node {
        let disk = FaultyDisk::new(id);
        let (to_raft, events) = bounded(setting.room);
        let snapshots = open(&disk);
        let link = Link::start(Config {
            id: NodeId(id),
            incarnation: setting.incarnation,
            members: members.clone(),
            urls: vec![format!(
                "http://{}",
                listener.local_addr().expect("its address")
            )],
            timing: setting.timing,
            tls: Tls::none(),
            snapshots: snapshots.clone(),
            history_events: 1000,
            history_bytes: setting.history_bytes,
            to_raft,
        });
        let link = link.expect("threads");
        let address = listener.local_addr().expect("its address");
        let handler = link.handler(Arc::new(Pages(members.clone())));
        let http_server =
            HttpServer::open(vec![listener], 1, super::limits(), handler).expect("an HTTP server");
        Node {
            link,
            http_server: Some(http_server),
            events,
            address,
            disk,
            snapshots,
        }
    }

    fn send(&self, to: u64, messages: impl IntoIterator<Item = PeerMessage>) {
        let addressed = messages
            .into_iter()
            .map(|peer_message| (NodeId(to), peer_message));
        self.link.send(addressed.collect());
    }

    /// The first event for which `wanted` returns a value. Others are skipped.
    fn event<T>(&self, mut wanted: impl FnMut(FromPeers) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let event = self.events.recv_deadline(until).expect("an event in time");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// The next `count` peer messages of a member, in order.
    fn messages(&self, wanted: u64, count: usize) -> Vec<PeerMessage> {
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(self.event(|event| match event {
                FromPeers::Messages { from, messages } if from == NodeId(wanted) => Some(messages),
                _ => None,
            }));
        }
        found
    }

    fn await_connected(&self, to: u64) {
        until("both directions are up", || {
            self.link.connected(NodeId(to)).is_some()
        });
    }

    /// Stops the node, as when its process ends.
    fn stop(mut self) {
        drop(self.http_server.take());
        self.link.stop();
    }
}

/// Two members that know each other.
fn pair() -> (Node, Node) {
    let (one, a) = listener();
    let (two, b) = listener();
    let members = members(&[(1, a), (2, b)]);
    (Node::start(1, one, &members), Node::start(2, two, &members))
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn raft(body: Body) -> PeerMessage {
    PeerMessage::Raft {
        message: Message {
            term: Term(1),
            body,
        },
        time: ClusterTime(0),
    }
}

fn heartbeat(round: u64) -> PeerMessage {
    let commit = Position::default();
    raft(Body::Heartbeat { round, commit })
}

/// An append of one write, with a value of `bytes` bytes.
fn append(index: u64, bytes: usize) -> PeerMessage {
    let mut write = Command::new(Action::Set, Key::new(b"/a"));
    write.value = vec![7; bytes].into();
    let position = |index| Position {
        term: Term(1),
        index: LogIndex(index),
    };
    raft(Body::Append {
        previous: position(index),
        entries: vec![Entry {
            position: position(index + 1),
            payload: Payload::Command(entry::tree(&write).into()),
        }],
        commit: LogIndex(0),
    })
}

fn forward(number: u64) -> PeerMessage {
    PeerMessage::Forward {
        number,
        term: Term(1),
        commands: vec![Arc::from([1; 10])],
    }
}
