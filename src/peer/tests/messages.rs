//! Peer messages between members: their order, lost and new connections, and the events that raft receives.

use super::raw::{Bare, Frames, with_bare};
use super::*;

#[test]
fn messages_arrive_in_order_in_both_directions() {
    let (one, two) = pair();
    one.await_connected(2);
    two.await_connected(1);
    let appends: Vec<PeerMessage> = (0..500).map(|index| append(index, 1000)).collect();
    for part in appends.chunks(7) {
        one.send(2, part.to_vec());
    }
    assert!(two.messages(1, 500) == appends, "every one, in order");
    let beats: Vec<PeerMessage> = (0..50).map(heartbeat).collect();
    two.send(1, beats.clone());
    assert_eq!(one.messages(2, 50), beats);
    let counters = one.link.counters();
    let stats = counters.member(NodeId(2)).expect("a member");
    assert_eq!((stats.sent.appends, stats.received.appends), (500, 50));
    assert!(stats.sent.bytes > 500_000 && stats.dropped == 0);
    assert_eq!(counters.appends_sent().count, 500);
    assert_eq!(counters.appends_received().count, 50);
}

#[test]
fn a_member_that_restarts_is_connected_again() {
    let (one, two) = pair();
    one.await_connected(2);
    let members = members(&[(1, one.address), (2, two.address)]);
    let address = two.address;
    two.stop();
    let (mut unreachable, mut gone) = (false, false);
    while !(unreachable && gone) {
        one.event(|event| {
            unreachable |= matches!(event, FromPeers::Unreachable(NodeId(2)));
            gone |= matches!(event, FromPeers::Gone(NodeId(2)));
            Some(())
        });
    }
    one.send(2, [forward(77)]);
    one.event(|event| matches!(event, FromPeers::Unsent(numbers) if numbers == [77]).then_some(()));
    let again = http1::listen(address).expect("the port is free again");
    let two = Node::start(2, again, &members);
    one.await_connected(2);
    two.await_connected(1);
    one.send(2, [forward(78)]);
    assert_eq!(two.messages(1, 1), [forward(78)]);
}

#[test]
fn urgent_letters_overtake_bulk_that_a_slow_reader_holds_up() {
    let (one, two) = with_bare(Timing::new(Duration::from_secs(1)));
    let (socket, _) = two.welcome(2);
    until("it sends", || sending_since(&one).is_some());
    let appends: Vec<PeerMessage> = (0..60).map(|index| append(index, 100 << 10)).collect();
    one.send(2, appends.clone());
    one.send(2, [heartbeat(1), heartbeat(2)]);
    let mut frames = Frames::of(socket, 1);
    let messages: Vec<PeerMessage> = (0..62).map(|_| frames.peer_message()).collect();
    let urgent = |peer_message: &&PeerMessage| !peer_message.is_bulk();
    let place = messages
        .iter()
        .position(|peer_message| urgent(&peer_message))
        .expect("it came");
    assert!(place < 40, "behind {place} of 60");
    let (first, second): (Vec<PeerMessage>, Vec<PeerMessage>) = messages
        .into_iter()
        .partition(|peer_message| !peer_message.is_bulk());
    assert_eq!(first, [heartbeat(1), heartbeat(2)]);
    assert!(second == appends, "bulk keeps its order");
}

#[test]
fn what_a_stalled_member_does_not_take_is_bounded_and_told() {
    let timing = Timing {
        write: Duration::from_millis(200),
        ..Timing::new(Duration::from_secs(1))
    };
    let (one, two) = with_bare(timing);
    let (_stuck, _) = two.welcome(2);
    until("it sends", || sending_since(&one).is_some());
    one.send(2, (0..100).map(|index| append(index, 1 << 20)));
    one.send(2, (0..5000).map(forward));
    let dropped = |one: &Node| {
        let stats = one.link.counters().member(NodeId(2));
        stats.expect("a member").dropped
    };
    assert!(dropped(&one) > 80 + 900, "{} of 5100", dropped(&one));
    let (mut unsent, mut unreachable) = (Vec::new(), false);
    while unsent.len() < 5000 || !unreachable {
        unsent.extend(one.event(|event| match event {
            FromPeers::Unsent(numbers) => Some(numbers),
            event => {
                unreachable |= matches!(event, FromPeers::Unreachable(NodeId(2)));
                Some(Vec::new())
            }
        }));
    }
    unsent.sort_unstable();
    assert!(unsent == (0..5000).collect::<Vec<u64>>(), "each once");
    // The next connection begins with new messages.
    let (socket, _) = two.welcome(2);
    until("it sends", || sending_since(&one).is_some());
    one.send(2, [append(7, 1)]);
    assert_eq!(Frames::of(socket, 1).peer_message(), append(7, 1));
}

#[test]
fn a_silent_machine_is_not_a_process_that_is_gone() {
    let timing = Timing {
        greet: Duration::from_millis(50),
        ..Timing::new(Duration::from_secs(1))
    };
    let (one, two) = with_bare(timing);
    let (first, _) = two.welcome(2);
    until("it sends", || sending_since(&one).is_some());
    drop(first);
    let (_second, _) = two.accept();
    let (_third, _) = two.accept();
    let told: Vec<FromPeers> = one.events.try_iter().collect();
    let is = |wanted: fn(&FromPeers) -> bool| told.iter().any(wanted);
    assert!(is(|event| matches!(
        event,
        FromPeers::Unreachable(NodeId(2))
    )));
    assert!(!is(|event| matches!(event, FromPeers::Gone(_))));
    drop(two);
    one.event(|event| matches!(event, FromPeers::Gone(NodeId(2))).then_some(()));
}

#[test]
fn the_end_of_an_incoming_stream_makes_a_refused_dial_tell() {
    let (one, a) = listener();
    let two = Bare::listen();
    let members = published(members(&[(1, a), (2, two.address)]));
    // The pause is so long that only the reason to dial can end it.
    let timing = Timing {
        retry_min: 10 * PATIENCE,
        retry_max: 10 * PATIENCE,
        ..Timing::new(Duration::from_secs(1))
    };
    let setting = Setting {
        timing,
        ..Setting::of(1)
    };
    let one = Node::with(1, one, &members, setting);
    let (refused, _) = two.accept();
    drop(refused);
    let (inward, said) = raw::stream(a, &raw::claim(2), 1);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    drop(two);
    drop(inward);
    one.event(|event| matches!(event, FromPeers::Gone(NodeId(2))).then_some(()));
}

#[test]
fn members_come_and_go() {
    let (one, two) = pair();
    one.await_connected(2);
    two.await_connected(1);
    let mut without = members(&[(1, one.address), (2, two.address)]);
    without.remove(NodeId(2));
    one.link.set_members(&without);
    assert_eq!(one.link.counters().member(NodeId(2)), None);
    until("the stream from it has ended", || {
        !one.link.common.streams.is_open(NodeId(2))
    });
    one.send(2, [forward(5)]);
    one.event(|event| matches!(event, FromPeers::Unsent(numbers) if numbers == [5]).then_some(()));
    until("it is refused", || two.link.connected(NodeId(1)).is_none());
    one.link
        .set_members(&members(&[(1, one.address), (2, two.address)]));
    one.await_connected(2);
    two.await_connected(1);
    // The member moves: the new URL is dialled once the old connection ends.
    let moved = Bare::listen();
    one.link
        .set_members(&members(&[(1, one.address), (2, moved.address)]));
    two.stop();
    let (_socket, head) = moved.accept();
    assert!(head.starts_with("GET /raft/stream HTTP/1.1\r\n"), "{head}");
}

#[test]
fn a_full_channel_holds_up_the_sender_and_stopping_ends_all() {
    let (one, a) = listener();
    let (two, b) = listener();
    let members = members(&[(1, a), (2, b)]);
    let narrow = Setting {
        room: 1,
        ..Setting::of(2)
    };
    let one = Node::start(1, one, &members);
    let two = Node::with(2, two, &members, narrow);
    one.await_connected(2);
    let flood = |one: &Node| {
        one.send(2, (0..8).map(|index| append(index, 1 << 20)));
        one.link
            .counters()
            .member(NodeId(2))
            .expect("a member")
            .dropped
    };
    until("nothing more is taken", || flood(&one) > 0);
    let begin = Instant::now();
    two.link.stop();
    assert!(
        two.link.common.resources.join(Duration::ZERO),
        "all threads have ended"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    one.link.stop();
    assert!(
        one.link.common.resources.join(Duration::ZERO),
        "all threads have ended"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
}

fn sending_since(node: &Node) -> Option<Instant> {
    let stats = node.link.counters().member(NodeId(2));
    stats.expect("a member").sent.since
}
