//! Which handshakes are refused and how, and which streams are invalid.

use super::raw::{
    Bare, TOKEN, ask, claim, greeting, has_ended, linked, message_frame, snapshot, stream,
    vouching, with_bare,
};
use super::*;
use crate::peer::dial::{Call, Failure};
use crate::peer::frame::Kind;
use crate::peer::handshake::{Greeting, Me, STREAM_PATH};
use std::io::{Read, Write};

/// A table from which member 9 was removed.
fn without_nine(addresses: &[(u64, SocketAddr)]) -> Members {
    let mut table = serde_json::to_value(members(addresses)).expect("plain data");
    table["removed"] = serde_json::json!([9]);
    serde_json::from_value(table).expect("as it was written")
}

/// The result of dialling `to`.
fn dial(node: &Node, to: u64, address: SocketAddr) -> Result<(), Failure> {
    let call = Call {
        common: &node.link.common,
        to: NodeId(to),
        urls: &[format!("http://{address}")],
        path: STREAM_PATH,
        term: None,
        token: 1,
        given_up: &|| false,
    };
    call.dial().map(drop)
}

#[test]
fn whoever_does_not_belong_here_is_told_why() {
    let (one, a) = listener();
    let two = Bare::listen();
    let one = Node::start(1, one, &without_nine(&[(1, a), (2, two.address)]));
    let table: [(Me, u64, &str, &str); 5] = [
        (
            Me {
                cluster: 0xbad,
                ..claim(2)
            },
            1,
            "412",
            "not a member of the cluster bad",
        ),
        (claim(2), 3, "421", "this is not the member 3"),
        (claim(9), 1, "410", "was removed from the cluster"),
        (claim(5), 1, "403", "no other member 5"),
        (claim(1), 1, "403", "no other member 1"),
    ];
    for (me, to, status, text) in table {
        let (_, said) = stream(a, &me, to);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.contains(text), "{said}");
        let own = ["c1", "1001"];
        let told = |secret: &&str| status != "410" && said.contains(*secret);
        assert!(!own.iter().any(told), "{said}");
    }
    one.link
        .set_members(&published(members(&[(1, a), (2, two.address)])));
    let lost = Me {
        incarnation: 1,
        ..claim(2)
    };
    let (_, said) = stream(a, &lost, 1);
    let url = format!("member add n2 http://{};", two.address);
    for part in [
        "HTTP/1.1 409 ",
        "member remove 2;",
        &url,
        "--initial-cluster-state existing",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    drop(one);
}

#[test]
fn what_is_no_hello_is_refused_and_pages_are_served() {
    let (one, _two) = pair();
    let handshake = claim(2).request(NodeId(1), &greeting(STREAM_PATH));
    let handshake = String::from_utf8(handshake).expect("text");
    let table = [
        (
            handshake.replace("Protocol: 1", "Protocol: 2"),
            "426",
            "version 1",
        ),
        (
            handshake.replace("Upgrade: edgetcd-raft", "Upgrade: h2c"),
            "400",
            "only members",
        ),
        (
            handshake.replace("X-Edgetcd-From: 2", "X-Edgetcd-From: +2"),
            "400",
            "not a hex number",
        ),
        (
            handshake.replace("X-Edgetcd-To", "X-To"),
            "400",
            "a header is missing",
        ),
        (
            handshake.replace("/raft/stream", "/raft/snapshot"),
            "400",
            "a snapshot has no term",
        ),
        (handshake.replace("GET", "POST"), "400", "only members"),
        (
            "GET /raft/stream HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "400",
            "only members",
        ),
        (
            "GET /else HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "404",
            "a page",
        ),
    ];
    for (request, status, text) in table {
        let (_, said) = ask(one.address, request.as_bytes());
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}{said}"
        );
        assert!(said.contains(text), "{request}{said}");
    }
}

#[test]
fn garbage_ends_the_stream_and_nothing_else() {
    let (one, a) = listener();
    let two = Bare::listen();
    let members = members(&[(1, a), (2, two.address)]);
    let one = Node::start(1, one, &published(members));
    let good = message_frame(2, &heartbeat(1));
    let mut flipped = good.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    let table = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n and more than a header's length".to_vec(),
        flipped,
        message_frame(3, &heartbeat(1)),
        raw::frame(2, Kind::PeerMessage, b"\x63 no peer message"),
        raw::frame(2, Kind::Slice, b"a slice"),
        [&u32::MAX.to_le_bytes()[..], &[0; 22]].concat(),
    ];
    for bytes in table {
        let (mut socket, said) = stream(a, &claim(2), 1);
        assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
        socket.write_all(&good).expect("write");
        assert_eq!(
            one.messages(2, 1),
            [heartbeat(1)],
            "a correct one is accepted"
        );
        socket.write_all(&bytes).expect("write");
        assert!(has_ended(&mut socket), "{bytes:?}");
    }
}

#[test]
fn a_removed_member_is_told_as_often_as_it_asks() {
    let (nine, n) = listener();
    let (one, a) = listener();
    let one = Node::start(1, one, &without_nine(&[(1, a)]));
    let nine = Node::start(9, nine, &members(&[(1, a), (9, n)]));
    nine.event(|event| matches!(event, FromPeers::Removed { .. }).then_some(()));
    let refused = dial(&nine, 1, a);
    assert!(
        matches!(&refused, Err(Failure::Removed(why)) if why.contains("was removed")),
        "{refused:?}"
    );
    // Raft may have ignored the first event, because it knew a leader then.
    nine.link.common.event_queue.removed(NodeId(1));
    nine.event(|event| matches!(event, FromPeers::Removed { .. }).then_some(()));
    drop(one);
}

/// Any process at a member's address can send this answer, but only the member can prove that it is one.
#[test]
fn a_410_of_an_unknown_process_does_not_end_a_member() {
    let (one, two) = with_bare(Timing::new(Duration::from_secs(1)));
    let token = one.link.common.peer(NodeId(2)).expect("a member").token;
    let proof = |incarnation| claim(2).removal(NodeId(2), NodeId(1), token, incarnation);
    let table = [
        ("c2", proof(incarnation(2)), false),
        ("c1", String::new(), false),
        ("c1", proof(7), false),
        ("c1", proof(incarnation(2)), true),
    ];
    for (cluster, proof, is_believed) in table {
        let (mut socket, _) = two.accept();
        let answer = format!(
            "HTTP/1.1 410 Gone\r\nX-Edgetcd-Removed: 1\r\nX-Edgetcd-Cluster: {cluster}\r\nX-Edgetcd-Proof: {proof}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        socket.write_all(answer.as_bytes()).expect("write");
        if is_believed {
            one.event(|event| matches!(event, FromPeers::Removed { .. }).then_some(()));
            continue;
        }
        // The member dials again, and raft has received no event meanwhile.
        let _ = two.accept();
        let told = |event| matches!(event, FromPeers::Removed { .. });
        assert!(!one.events.try_iter().any(told), "{answer}");
    }
}

#[test]
fn a_member_without_its_data_hears_nothing_and_is_not_heard() {
    let (one, a) = listener();
    let (two, b) = listener();
    let members = members(&[(1, a), (2, b)]);
    let one = Node::start(1, one, &published(members.clone()));
    let wiped = Setting {
        incarnation: 0xbad,
        ..Setting::of(2)
    };
    let two = Node::with(2, two, &members, wiped);
    let outward = dial(&one, 2, b);
    assert!(
        matches!(&outward, Err(Failure::Refused(why)) if why.contains("member remove 2;")),
        "{outward:?}"
    );
    let inward = dial(&two, 1, a);
    assert!(
        matches!(&inward, Err(Failure::Refused(why)) if why.contains("answers 409")),
        "{inward:?}"
    );
    assert_eq!(
        (one.link.connected(NodeId(2)), two.link.connected(NodeId(1))),
        (None, None)
    );
}

/// An unknown process connects first in the name of a member that has not published yet, and connects repeatedly.
#[test]
fn a_member_that_has_not_published_is_heard_whoever_uses_its_name() {
    let (one, a) = listener();
    let two = vouching(2);
    let one = Node::start(1, one, &members(&[(1, a), (2, two)]));
    let false_claim = Me {
        incarnation: 5,
        ..claim(2)
    };
    for token in 100..130 {
        let (mut other, said) = linked(a, &false_claim, 1, token);
        if !said.starts_with("HTTP/1.1 503 ") {
            assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
            // The connection may already be closed.
            let _ = other.write_all(&message_frame(2, &heartbeat(9)));
            assert!(has_ended(&mut other));
        }
    }
    let (mut own, said) = linked(a, &claim(2), 1, TOKEN);
    assert!(
        said.starts_with("HTTP/1.1 101 "),
        "the member itself: {said}"
    );
    own.write_all(&message_frame(2, &heartbeat(1)))
        .expect("write");
    assert_eq!(
        one.messages(2, 1),
        [heartbeat(1)],
        "and nothing of the other"
    );
    one.link
        .set_members(&published(members(&[(1, a), (2, two)])));
    let (_, said) = stream(a, &false_claim, 1);
    assert!(said.starts_with("HTTP/1.1 409 "), "{said}");
}

/// With the incarnation, an unknown process could pass for this member with the others.
#[test]
fn the_incarnation_is_shown_to_members_only() {
    let (one, a) = listener();
    let two = vouching(2);
    let all = members(&[(1, a), (2, two)]);
    let one = Node::start(1, one, &all);
    let shown = |said: &str| said.contains(&format!("{:x}", incarnation(1)));
    let greeted = |known| {
        let greeting = Greeting {
            token: TOKEN,
            known,
            ..greeting(STREAM_PATH)
        };
        let (_, said) = ask(a, &claim(2).request(NodeId(1), &greeting));
        assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
        said
    };
    assert!(!shown(&greeted(None)));
    assert!(shown(&greeted(Some(incarnation(1)))), "it knows it already");
    one.link.set_members(&published(all));
    assert!(shown(&greeted(None)), "it has shown its own");
}

/// An unknown process that knows a member's incarnation dials repeatedly in its name.
#[test]
fn an_open_stream_gives_way_only_to_one_that_its_member_vouches_for() {
    let (one, a) = listener();
    let two = vouching(2);
    let one = Node::start(1, one, &published(members(&[(1, a), (2, two)])));
    let (mut older, _) = linked(a, &claim(2), 1, 1);
    older
        .write_all(&message_frame(2, &heartbeat(1)))
        .expect("write");
    assert_eq!(one.messages(2, 1), [heartbeat(1)]);
    for token in [0, 2].into_iter().cycle().take(30) {
        let (mut other, said) = linked(a, &claim(2), 1, token);
        assert!(
            said.starts_with("HTTP/1.1 503 ") || has_ended(&mut other),
            "{said}"
        );
    }
    older
        .write_all(&message_frame(2, &heartbeat(2)))
        .expect("write");
    assert_eq!(one.messages(2, 1), [heartbeat(2)], "it is still heard");
    let (mut newer, said) = linked(a, &claim(2), 1, TOKEN);
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    newer
        .write_all(&message_frame(2, &heartbeat(4)))
        .expect("write");
    assert!(has_ended(&mut older), "the member's own takes its place");
    assert_eq!(one.messages(2, 1), [heartbeat(4)]);
}

/// Each connection that waits for the member's answer has a thread. The others are refused before they get one.
#[test]
fn few_connections_wait_for_a_member_that_does_not_answer() {
    const CROWD: u64 = 100;
    let (one, a) = listener();
    let (_silent, two) = listener();
    let one = Node::start(1, one, &published(members(&[(1, a), (2, two)])));
    let (mut own, _) = linked(a, &claim(2), 1, 1);
    own.write_all(&message_frame(2, &heartbeat(1)))
        .expect("write");
    assert_eq!(one.messages(2, 1), [heartbeat(1)]);
    let crowd: Vec<_> = (0..CROWD)
        .map(|token| linked(a, &claim(2), 1, 100 + token))
        .collect();
    let accepted = crowd.iter().filter(|(_, said)| said.contains(" 101 "));
    let accepted = accepted.count() as u64;
    assert!(
        (1..CROWD / 2).contains(&accepted),
        "{accepted} of {CROWD} connections wait for the member's answer"
    );
}

#[test]
fn a_member_says_which_connections_are_its_own() {
    let (one, two) = with_bare(Timing::new(Duration::from_secs(1)));
    let (_stream, head) = two.welcome(2);
    let (_, rest) = head.split_once("X-Edgetcd-Token: ").expect("its token");
    let (token, _) = rest.split_once("\r\n").expect("a line");
    let own = u64::from_str_radix(token, 16).expect("a number");
    let (mut socket, said) = ask(one.address, &claim(2).question(NodeId(1), "x"));
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let mut told = String::new();
    socket.read_to_string(&mut told).expect("a text");
    let told = said + &told;
    let digest = claim(1).digest(NodeId(1), NodeId(2), own);
    assert!(told.contains(&digest), "{told}");
    assert!(
        !told.contains(token),
        "the token itself is for the member alone"
    );
    let (_, said) = ask(one.address, &claim(7).question(NodeId(1), "x"));
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
}

#[test]
fn who_says_nothing_is_cut() {
    let (one, _two) = pair();
    let mut silent = std::net::TcpStream::connect(one.address).expect("connect");
    silent.set_read_timeout(Some(PATIENCE)).expect("an option");
    assert!(
        matches!(silent.read(&mut [0; 100]), Ok(0) | Err(_)),
        "cut, in the end"
    );
    let (_, said) = snapshot(one.address, &claim(5), 1, 3);
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
}

#[test]
fn a_url_that_cannot_be_dialled_is_named() {
    let (one, _two) = with_bare(Timing::new(Duration::from_secs(1)));
    let table = [
        (
            "https://127.0.0.1:1",
            "https://127.0.0.1:1: this member cannot verify a member with TLS: start it with --peer-trusted-ca-file",
        ),
        ("nonsense", "nonsense: "),
    ];
    for (url, why) in table {
        let call = Call {
            common: &one.link.common,
            to: NodeId(2),
            urls: &[url.to_owned()],
            path: STREAM_PATH,
            term: None,
            token: 1,
            given_up: &|| false,
        };
        let failure = call.dial().map(drop);
        assert!(
            matches!(&failure, Err(Failure::Failed(said)) if said.starts_with(why)),
            "{failure:?}"
        );
    }
}

/// The member was added by a change that is not applied here yet, and it may be the leader. If this member refused it,
/// this member would stay behind. No other member runs, so the new member itself proves that it knows the log.
#[test]
fn a_member_that_the_table_does_not_name_yet_is_heard_and_answered() {
    let (one, a) = listener();
    let (_, b) = listener();
    let (three, c) = listener();
    let behind = published(members(&[(1, a), (2, b)]));
    let all = published(members(&[(1, a), (2, b), (3, c)]));
    let one = Node::start(1, one, &behind);
    let three = Node::start(3, three, &all);
    one.await_connected(3);
    three.send(1, [heartbeat(7)]);
    assert_eq!(one.messages(3, 1), [heartbeat(7)]);
    one.send(3, [heartbeat(8)]);
    assert_eq!(three.messages(1, 1), [heartbeat(8)]);
    // A new table with the same members does not end its link. Its removal does.
    one.link.set_members(&behind);
    one.send(3, [heartbeat(9)]);
    assert_eq!(three.messages(1, 1), [heartbeat(9)]);
    let mut without = behind.clone();
    without.remove(NodeId(3));
    one.link.set_members(&without);
    until("it is shut out", || one.link.connected(NodeId(3)).is_none());
    three.event(|event| matches!(event, FromPeers::Removed { .. }).then_some(()));
}

/// This member's incarnation is not published yet, so no process can prove that it knows it.
#[test]
fn a_member_that_another_one_lists_is_heard_and_forgotten_when_it_goes() {
    let (one, a) = listener();
    let (two, b) = listener();
    let (three, c) = listener();
    let behind = members(&[(1, a), (2, b)]);
    let all = members(&[(1, a), (2, b), (3, c)]);
    let one = Node::start(1, one, &behind);
    let _two = Node::start(2, two, &all);
    let three = Node::start(3, three, &all);
    one.await_connected(3);
    three.send(1, [heartbeat(7)]);
    assert_eq!(one.messages(3, 1), [heartbeat(7)]);
    three.stop();
    until("it is forgotten", || {
        let known = one.link.common.table.others();
        !known.contains_key(&NodeId(3)) && one.link.common.peer(NodeId(3)).is_none()
    });
}

/// Otherwise an unknown process could make this member connect to any URL, with a thread for each name.
#[test]
fn an_unknown_process_gets_no_link_and_its_urls_are_not_dialled() {
    let (one, _two) = with_bare(Timing::new(Duration::from_secs(1)));
    let trap = Bare::listen();
    let urls = [format!("http://{}", trap.address)];
    for id in 100..200 {
        let greeting = Greeting {
            urls: &urls,
            token: id,
            ..greeting(STREAM_PATH)
        };
        let (_, said) = ask(one.address, &claim(id).request(NodeId(1), &greeting));
        assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    }
    let wrong = Greeting {
        urls: &urls,
        known: Some(7),
        ..greeting(STREAM_PATH)
    };
    let (_, said) = ask(one.address, &claim(100).request(NodeId(1), &wrong));
    assert!(said.starts_with("HTTP/1.1 409 "), "{said}");
    let linked: Vec<NodeId> = one.link.common.peers().keys().copied().collect();
    assert_eq!(linked, [NodeId(2)]);
    assert!(trap.listener.accept().is_err(), "nobody has dialled it");
}

/// The member moved while this member was away, and no other member runs that could report the new URL.
#[test]
fn a_member_that_moved_and_shows_itself_is_dialled_where_it_says() {
    let (one, a) = listener();
    let (gone, before) = listener();
    drop(gone);
    let (two, now) = listener();
    let one = Node::start(1, one, &published(members(&[(1, a), (2, before)])));
    let two = Node::start(2, two, &published(members(&[(1, a), (2, now)])));
    two.send(1, [heartbeat(1)]);
    one.await_connected(2);
    one.send(2, [heartbeat(2)]);
    assert_eq!(two.messages(1, 1), [heartbeat(2)]);
}
