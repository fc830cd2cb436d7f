//! Letters between members: order, connections that come and go, what is told to raft.

use super::*;

#[test]
fn letters_arrive_in_order_in_both_directions() {
    let (one, two) = pair();
    one.await_connected(2);
    two.await_connected(1);
    let appends: Vec<Letter> = (0..500).map(|index| append(index, 1000)).collect();
    for part in appends.chunks(7) {
        one.send(2, part.to_vec());
    }
    assert!(two.letters(1, 500) == appends, "every one, in order");
    let beats: Vec<Letter> = (0..50).map(heartbeat).collect();
    two.send(1, beats.clone());
    assert_eq!(one.letters(2, 50), beats);
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
    one.event(|event| matches!(event, FromPeers::Unreachable(NodeId(2))).then_some(()));
    one.event(|event| matches!(event, FromPeers::Gone(NodeId(2))).then_some(()));
    one.send(2, [forward(77)]);
    one.event(|event| matches!(event, FromPeers::Unsent(numbers) if numbers == [77]).then_some(()));
    let again = door::listen(address).expect("the port is free again");
    let two = Node::start(2, again, &members);
    one.await_connected(2);
    two.await_connected(1);
    one.send(2, [forward(78)]);
    assert_eq!(two.letters(1, 1), [forward(78)]);
}
