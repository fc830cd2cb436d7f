//! Messages of processes that are not members: strangers, removed members, and newcomers.

use super::received_snapshots::incoming;
use super::*;

const OTHER: NodeId = NodeId(99);

/// The transport has admitted this process.
fn introduce(bench: &mut Bench, member: NodeId) {
    let format = entry::FORMAT;
    bench.step(Event::Peers(vec![PeerEvent::Understands {
        member,
        format,
    }]));
}

/// What a leader or a candidate of the next term sends, with the position of this member's last entry.
fn of_the_next_term(bench: &Bench) -> Vec<Body> {
    let last = bench.engine.core().last_position();
    let commit = last;
    let vote = |handover| Body::Vote { last, handover };
    vec![
        vote(true),
        vote(false),
        Body::PreVote { last },
        Body::Heartbeat { round: 1, commit },
        Body::Commit { commit },
        Body::Append {
            previous: last,
            entries: vec![noop(bench.term() + 1, last.index.0 + 1)],
            commit: last.index.next(),
        },
    ]
}

/// Sends all of it from `from`, and checks that it has no effect.
fn is_ignored(bench: &mut Bench, from: NodeId) {
    let (term, last) = (bench.term(), bench.last());
    for body in of_the_next_term(bench) {
        let effects = bench.hear(from, term + 1, body.clone());
        assert!(effects.disk.is_empty(), "{body:?}");
        assert!(!bench.sent.iter().any(|(to, _)| *to == from), "{body:?}");
        assert_eq!((bench.term(), bench.last()), (term, last), "{body:?}");
    }
    let mut snapshot = incoming(term + 1, last.0 + 9);
    snapshot.from = from;
    bench.step(Event::Peers(vec![PeerEvent::Snapshot(snapshot)]));
    assert!(!bench.engine.is_installing() && bench.term() == term);
}

#[test]
fn a_stranger_changes_nothing() {
    let mut leader = Bench::new(&[]);
    leader.lead();
    is_ignored(&mut leader, OTHER);
    assert!(leader.engine.core().is_leader());
    let mut follower = Bench::new(&[]);
    follower.follow(1);
    is_ignored(&mut follower, OTHER);
    let mut alone = Bench::new(&[]);
    is_ignored(&mut alone, OTHER);
}

/// A member that was away may have missed the addition of the member that leads by now.
#[test]
fn a_newcomer_may_lead_and_stand() {
    for at in 0..of_the_next_term(&Bench::new(&[])).len() {
        let mut bench = Bench::new(&[]);
        introduce(&mut bench, OTHER);
        let body = of_the_next_term(&bench).swap_remove(at);
        bench.hear(OTHER, 1, body.clone());
        bench.store_all();
        let is_pre_vote = matches!(body, Body::PreVote { .. });
        let is_answered = bench.sent.iter().any(|(to, _)| *to == OTHER);
        assert!(is_answered || bench.term() == 1, "{body:?}");
        assert!(is_pre_vote || bench.term() == 1, "{body:?}");
    }
    let mut bench = Bench::new(&[]);
    introduce(&mut bench, OTHER);
    let mut snapshot = incoming(1, 9);
    snapshot.from = OTHER;
    bench.step(Event::Peers(vec![PeerEvent::Snapshot(snapshot)]));
    assert!(bench.engine.is_installing());
}

/// Its process may still run, with connections that were admitted before.
#[test]
fn a_removed_member_is_a_stranger() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    introduce(&mut bench, THREE);
    bench.request(Request::Change(Proposal::of(entry::remove(THREE), 1)));
    bench.commit();
    assert!(bench.engine.state().members.was_removed(THREE));
    bench.sent.clear();
    is_ignored(&mut bench, THREE);
    assert!(bench.engine.core().is_leader());
}

/// A newcomer's messages are accepted if a leader or a candidate sends them. Its other messages could only do harm.
#[test]
fn what_only_members_may_say_is_taken_from_members_only() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    introduce(&mut bench, OTHER);
    let (term, last) = (bench.term(), bench.last());
    let refused = Body::PreVoteReply {
        asked: Term(1),
        granted: false,
    };
    let bodies = [
        refused,
        Body::VoteReply { granted: true },
        Body::Accepted { matched: last },
        Body::HeartbeatReply { round: 9 },
        Body::Blank,
        Body::Outdated,
        Body::CampaignNow,
    ];
    for body in bodies {
        bench.hear(OTHER, term + 1, body);
        assert_eq!(bench.term(), term);
    }
    let command = entry::tree(&Command::new(Action::Set, Key::new(b"/a")));
    let forward = PeerMessage::Forward {
        number: 1,
        term: Term(term),
        commands: vec![command.into()],
    };
    for peer_message in [forward, PeerMessage::AskIndex { number: 2 }] {
        let messages = vec![peer_message];
        let from = OTHER;
        let effects = bench.step(Event::Peers(vec![PeerEvent::Messages { from, messages }]));
        assert!(effects.disk.is_empty() && bench.last() == last);
    }
    assert!(bench.engine.core().is_leader());
}
