//! Snapshots between members.

use super::raw::{Frames, claim, frame, has_ended, snapshot, vouching, with_bare};
use super::*;
use crate::engine::state::State;
use crate::peer::frame::Kind;
use crate::raft::{Membership, SnapshotMetadata};
use crate::replica::peers::Received;
use crate::tree::{Action, Command, Key, Stamp, WallTime};
use std::io::Write;
use std::path::PathBuf;

const SLICES: usize = 40;

fn position(index: u64) -> Position {
    Position {
        term: Term(2),
        index: LogIndex(index),
    }
}

fn metadata(index: u64) -> SnapshotMetadata {
    SnapshotMetadata {
        position: position(index),
        membership: Membership {
            voters: [NodeId(1)].into(),
            ..Membership::default()
        },
    }
}

/// A state of about this many slices of 64 KiB.
fn state(members: &Members, slices: usize) -> State {
    let mut state = State::new(members.clone(), 1000);
    let stamp = Stamp {
        cluster: ClusterTime(1),
        wall: WallTime(1),
    };
    state.time = stamp.cluster;
    for i in 0..slices {
        let command = Command {
            action: Action::Set,
            key: Key::new(format!("/key{i}").as_bytes()),
            value: vec![b'a' + (i % 26) as u8; 64 << 10].into(),
            dir: false,
            recursive: false,
            ttl: None,
            refresh: false,
            prev_value: None,
            prev_index: None,
        };
        assert!(state.tree.apply(&command, stamp).is_ok());
    }
    state
}

/// Writes a snapshot of such a state to the node's disk.
fn store(node: &Node, index: u64, slices: usize) {
    let members = members(&[(1, node.address)]);
    let mut writer = node.snapshots.begin(&metadata(index)).expect("a file");
    let saved = state(&members, slices).save(|slice| writer.write(slice));
    saved.expect("room");
    writer.finish().expect("a disk");
}

fn received(node: &Node) -> Box<Received> {
    node.event(|event| match event {
        FromPeers::Snapshot(received) => Some(received),
        _ => None,
    })
}

/// The result of the transfer.
fn sent(node: &Node) -> Option<Position> {
    node.event(|event| match event {
        FromPeers::SnapshotSent { to, installed } => {
            assert_eq!(to, NodeId(2));
            Some(installed)
        }
        _ => None,
    })
}

fn snapshot_files(node: &Node) -> usize {
    let files = node.disk.files();
    let is_snapshot = |file: &&std::path::PathBuf| file.starts_with("/data/member/snap");
    files.iter().filter(is_snapshot).count()
}

fn quick() -> Timing {
    Timing {
        stall: Duration::from_millis(300),
        ..Timing::new(Duration::from_secs(1))
    }
}

#[test]
fn a_snapshot_of_many_slices_is_sent_installed_and_told() {
    let (one, two) = pair();
    store(&one, 100, SLICES);
    one.link.send_snapshot(NodeId(2), Term(3));
    let snapshot = received(&two);
    assert_eq!(
        (snapshot.incoming.from, snapshot.incoming.term),
        (NodeId(1), Term(3))
    );
    assert_eq!(snapshot.incoming.metadata, metadata(100));
    let bytes = one
        .snapshots
        .newest()
        .expect("a disk")
        .expect("one")
        .bytes();
    assert_eq!(snapshot.incoming.bytes, bytes);
    assert!(bytes > (SLICES as u64) << 16);
    let wanted = state(&members(&[(1, one.address)]), SLICES);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let save = |state: &State, out: &mut Vec<u8>| {
        let saved: Result<(), ()> = state.save(|slice| {
            out.extend_from_slice(slice);
            Ok(())
        });
        saved.expect("memory");
    };
    save(&wanted, &mut ours);
    save(&snapshot.incoming.state, &mut theirs);
    assert!(ours == theirs, "the state is the same, byte for byte");
    (snapshot.finish)().expect("a disk");
    let found = two.snapshots.newest().expect("a disk").expect("one");
    assert_eq!(found.metadata(), &metadata(100));
    snapshot.installed.send(position(100)).expect("it waits");
    assert_eq!(sent(&one), Some(position(100)));
}

#[test]
fn a_snapshot_that_is_not_used_leaves_nothing() {
    let (one, two) = pair();
    one.link.send_snapshot(NodeId(2), Term(3));
    assert_eq!(sent(&one), None, "there is none yet");
    store(&one, 100, 3);
    one.link.send_snapshot(NodeId(2), Term(3));
    let snapshot = received(&two);
    assert_eq!(snapshot_files(&two), 1, "sealed, under a temporary name");
    drop(snapshot);
    assert_eq!(sent(&one), None);
    assert_eq!(snapshot_files(&two), 0);
}

#[test]
fn a_receiver_that_goes_away_ends_the_transfer() {
    let (one, two) = with_bare(Timing::new(Duration::from_secs(1)));
    let (_stream, _) = two.welcome(2);
    store(&one, 100, SLICES);
    one.link.send_snapshot(NodeId(2), Term(3));
    let (socket, head) = two.welcome(2);
    assert!(head.contains("X-Edgetcd-Term: 3\r\n"), "{head}");
    let mut frames = Frames::of(socket, 1);
    assert_eq!(frames.next().0, Kind::Metadata);
    assert_eq!(frames.next().0, Kind::Slice);
    one.link.send_snapshot(NodeId(2), Term(3));
    assert_eq!(sent(&one), None, "one at a time: the second is refused");
    drop(frames);
    assert_eq!(sent(&one), None, "and the first has failed");
}

#[test]
fn a_sender_that_goes_away_leaves_nothing_behind() {
    let (one, _two) = with_bare(Timing::new(Duration::from_secs(1)));
    let (mut socket, _) = snapshot(one.address, &claim(2), 1, 3);
    let mut payload = 1_000_000u64.to_le_bytes().to_vec();
    metadata(5).encode(&mut payload);
    socket
        .write_all(&frame(2, Kind::Metadata, &payload))
        .expect("write");
    until("the file is begun", || snapshot_files(&one) == 1);
    socket
        .write_all(&frame(2, Kind::Slice, &[1; 1000])[..500])
        .expect("write");
    drop(socket);
    until("it is gone", || snapshot_files(&one) == 0);
}

#[test]
fn what_is_no_snapshot_is_not_used() {
    let (one, _two) = with_bare(quick());
    let mut start = 4u64.to_le_bytes().to_vec();
    metadata(5).encode(&mut start);
    let start = frame(2, Kind::Metadata, &start);
    let end = frame(2, Kind::End, &[]);
    let slice = |bytes: &[u8]| frame(2, Kind::Slice, bytes);
    let table = [
        vec![end.clone()],
        vec![start.clone(), end.clone()],
        vec![start.clone(), start.clone()],
        vec![start.clone(), slice(b"\xffabc"), end.clone()],
        vec![frame(2, Kind::Metadata, b"short")],
        vec![start.clone(), slice(b"\x01\0\0\0"), end.clone()],
        // A sender that stops sending is also disconnected.
        vec![start.clone()],
    ];
    for frames in table {
        let mut socket = None;
        until("the place is free", || {
            let (asked, said) = snapshot(one.address, &claim(2), 1, 3);
            socket = said.starts_with("HTTP/1.1 101 ").then_some(asked);
            socket.is_some()
        });
        let mut socket = socket.expect("until says so");
        // The other end may close the connection before all bytes are written.
        let _ = socket.write_all(&frames.concat());
        assert!(has_ended(&mut socket));
        until("nothing is left", || snapshot_files(&one) == 0);
    }
    let is_snapshot = |event: &FromPeers| matches!(event, FromPeers::Snapshot(_));
    assert!(!one.events.try_iter().any(|event| is_snapshot(&event)));
}

/// All its checksums are right. A member that installed it could never get another entry.
#[test]
fn a_snapshot_that_no_cluster_writes_is_not_installed() {
    let (one, two) = pair();
    store(&one, 1 << 60, 3);
    one.link.send_snapshot(NodeId(2), Term(3));
    assert_eq!(sent(&one), None);
    until("nothing is left", || snapshot_files(&two) == 0);
    let is_snapshot = |event: &FromPeers| matches!(event, FromPeers::Snapshot(_));
    assert!(!two.events.try_iter().any(|event| is_snapshot(&event)));
}

#[test]
fn a_full_disk_ends_the_transfer_and_not_the_process() {
    let (one, two) = pair();
    store(&one, 100, SLICES);
    two.disk.set_capacity(two.disk.used() + (300 << 10));
    one.link.send_snapshot(NodeId(2), Term(3));
    assert_eq!(sent(&one), None);
    until("nothing is left", || snapshot_files(&two) == 0);
}

/// The leader's disk is larger, so its snapshot contains more events than this member keeps.
#[test]
fn a_snapshot_with_too_much_history_is_installed_with_less_of_it() {
    for room in [1500 << 10, 3500 << 10] {
        let (one, a) = listener();
        let (two, b) = listener();
        let members = members(&[(1, a), (2, b)]);
        let setting = Setting {
            history_bytes: 300 << 10,
            ..Setting::of(2)
        };
        let one = Node::start(1, one, &members);
        let two = Node::with(2, two, &members, setting);
        // The tree and the history each contain every value once.
        store(&one, 100, 16);
        two.disk.set_capacity(two.disk.used() + room);
        one.link.send_snapshot(NodeId(2), Term(3));
        let snapshot = received(&two);
        let history = snapshot.incoming.state.tree.history();
        assert!((1..6).contains(&history.len()), "{}", history.len());
        (snapshot.finish)().expect("it fits");
        let newest = two.snapshots.newest().expect("a disk").expect("one");
        assert_eq!(newest.bytes(), snapshot.incoming.bytes);
        assert_eq!(newest.metadata(), &metadata(100));
        let full = one.snapshots.newest().expect("a disk").expect("one");
        assert_eq!(newest.bytes() < full.bytes(), room < 2 << 20);
        snapshot.installed.send(position(100)).expect("it waits");
        assert_eq!(sent(&one), Some(position(100)));
    }
}

/// A sector of the leader's newest snapshot is damaged. Sending it again would always fail at the same place.
#[test]
fn a_damaged_snapshot_is_set_aside_and_another_one_asked_for() {
    let (one, two) = pair();
    store(&one, 100, SLICES);
    let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "snap");
    let path = one
        .disk
        .files()
        .into_iter()
        .find(is_snapshot)
        .expect("the snapshot");
    let mut bytes = one.disk.bytes(&path).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    one.disk.put(&path, &bytes);
    one.link.send_snapshot(NodeId(2), Term(3));
    one.event(|event| matches!(event, FromPeers::SnapshotUnreadable).then_some(()));
    assert_eq!(sent(&one), None);
    assert!(!one.disk.files().iter().any(is_snapshot), "it is set aside");
    until("nothing is left", || snapshot_files(&two) == 0);
    store(&one, 101, SLICES);
    one.link.send_snapshot(NodeId(2), Term(3));
    assert_eq!(received(&two).incoming.metadata, metadata(101));
}

#[test]
fn a_newer_leaders_snapshot_takes_the_place_of_an_older() {
    let (one, a) = listener();
    let (two, three) = (vouching(2), vouching(3));
    let one = Node::start(1, one, &members(&[(1, a), (2, two), (3, three)]));
    let (mut older, said) = snapshot(a, &claim(2), 1, 3);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    let mut payload = 0u64.to_le_bytes().to_vec();
    metadata(5).encode(&mut payload);
    older
        .write_all(&frame(2, Kind::Metadata, &payload))
        .expect("write");
    until("it has its place", || snapshot_files(&one) == 1);
    let (_, said) = snapshot(a, &claim(3), 1, 3);
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    let (_newer, said) = snapshot(a, &claim(3), 1, 4);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    assert!(has_ended(&mut older));
    drop(one);
}

#[test]
fn heartbeats_go_past_a_snapshot_that_does_not_move() {
    let (one, two) = with_bare(Timing::new(Duration::from_secs(1)));
    let (stream, _) = two.welcome(2);
    let mut stream = Frames::of(stream, 1);
    store(&one, 100, SLICES);
    one.link.send_snapshot(NodeId(2), Term(3));
    let (stuck, _) = two.welcome(2);
    let mut worst = Duration::ZERO;
    for round in 0..100 {
        let begin = Instant::now();
        one.send(2, [heartbeat(round)]);
        assert_eq!(stream.peer_message(), heartbeat(round));
        worst = worst.max(begin.elapsed());
    }
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    drop(stuck);
    assert_eq!(sent(&one), None);
}

#[test]
fn a_transfer_that_stalls_is_given_up() {
    let (one, two) = with_bare(quick());
    let (_stream, _) = two.welcome(2);
    store(&one, 100, 200);
    one.link.send_snapshot(NodeId(2), Term(3));
    let (_stuck, _) = two.welcome(2);
    assert_eq!(sent(&one), None);
}
