//! Members and newcomers that send anything: every kind of peer message, with numbers around this member's own and at
//! their extremes. A message must never end this member, in any role.

use super::*;
use crate::engine::members::MemberError;
use crate::engine::peer_message::LeaderReply;
use crate::engine::request::Query;
use crate::raft::Change;
use crate::random::Random;

const STRANGER: NodeId = NodeId(99);
/// Their numbers are random. Member two is a correct one, so that this member is elected now and then.
const HOSTILE: [NodeId; 3] = [THREE, LEARNER, STRANGER];

/// Number of runs, and of steps in each.
const SEEDS: u64 = 60;
const STEPS: usize = 1500;

struct Attack {
    bench: Bench,
    random: Random,
    /// How often this member was seen in each role.
    led: usize,
    followed: usize,
}

impl Attack {
    fn new(seed: u64) -> Attack {
        Attack {
            bench: Bench::new(&[LEARNER]),
            random: Random::spread(seed),
            led: 0,
            followed: 0,
        }
    }

    fn act(&mut self) {
        match self.random.below(16) {
            0..=5 => self.attack(),
            6..=8 => self.answer(),
            9 | 10 => self.bench.tick(),
            11 | 12 => self.store(),
            13 => drop(self.bench.propose(1, 10)),
            14 => {
                let query = Query::new(2, None);
                self.bench.step(Event::Requests(vec![Request::Read(query)]));
            }
            _ => self.event(),
        }
        let core = self.bench.engine.core();
        self.led += usize::from(core.is_leader());
        self.followed += usize::from(core.leader().is_some_and(|leader| leader != ME));
    }

    fn store(&mut self) {
        if !self.bench.at_disk.is_empty() {
            self.bench.store();
        }
    }

    /// Member two answers one message as a correct member with an empty disk queue would.
    fn answer(&mut self) {
        let sent = std::mem::take(&mut self.bench.sent);
        let Some((_, body)) = sent.into_iter().rfind(|(to, _)| *to == TWO) else {
            return;
        };
        let term = self.bench.term();
        let answer = match body {
            Body::PreVote { .. } => Body::PreVoteReply {
                asked: Term(term + 1),
                granted: true,
            },
            Body::Vote { .. } => Body::VoteReply { granted: true },
            Body::Heartbeat { round, .. } => Body::HeartbeatReply { round },
            Body::Append {
                previous, entries, ..
            } => Body::Accepted {
                matched: previous.index.after(entries.len()),
            },
            _ => return,
        };
        self.bench.hear(TWO, term, answer);
    }

    fn number(&mut self) -> u64 {
        let core = self.bench.engine.core();
        let (last, commit) = (core.last_position(), core.commit().0);
        let bases = [0, last.index.0, last.term.0, commit, core.term().0, 1 << 32];
        let edges = [(1 << 62) - 1, 1 << 62, u64::MAX];
        if self.random.one_in(12) {
            return self.random.pick(&edges).expect("some");
        }
        let base = self.random.pick(&bases).expect("some");
        base.saturating_add(self.random.below(4)).saturating_sub(1)
    }

    fn position(&mut self) -> Position {
        let core = self.bench.engine.core();
        let own = [
            core.last_position(),
            core.position_at(core.commit()).unwrap_or_default(),
        ];
        match self.random.pick(&own) {
            Some(own) if self.random.coin() => own,
            _ => Position {
                term: Term(self.number()),
                index: LogIndex(self.number()),
            },
        }
    }

    fn payload(&mut self) -> Payload {
        let id = self.random.below(5);
        match self.random.below(8) {
            0 | 1 => Payload::Noop,
            2 => Payload::Command(entry::expire().into()),
            3 => Payload::Command(entry::remove(NodeId(id)).into()),
            4 | 5 => {
                let kinds = [
                    ChangeKind::AddLearner,
                    ChangeKind::Promote,
                    ChangeKind::Remove,
                ];
                let kind = self.random.pick(&kinds).expect("some");
                let context = match kind {
                    ChangeKind::AddLearner => entry::add(&member(id)),
                    ChangeKind::Promote => Vec::new(),
                    ChangeKind::Remove => entry::remove(NodeId(id)),
                };
                Payload::Change(Change {
                    kind,
                    node: NodeId(id),
                    context: context.into(),
                })
            }
            _ => {
                let mut command = Command::new(Action::Set, Key::new(b"/h"));
                command.value = "v".into();
                Payload::Command(entry::tree(&command).into())
            }
        }
    }

    fn entries(&mut self, previous: Position) -> Vec<Entry> {
        let mut term = previous.term.0;
        let count = self.random.below(4);
        (1..=count)
            .map(|step| {
                if self.random.coin() {
                    term = term.max(self.bench.term());
                }
                Entry {
                    position: Position {
                        term: Term(term),
                        index: LogIndex(previous.index.0.saturating_add(step)),
                    },
                    payload: self.payload(),
                }
            })
            .collect()
    }

    fn body(&mut self) -> Body {
        let granted = self.random.coin();
        let last = self.position();
        match self.random.below(14) {
            0 => Body::PreVote { last },
            1 => Body::PreVoteReply {
                asked: Term(self.number()),
                granted,
            },
            2 => Body::Vote {
                last,
                handover: granted,
            },
            3 => Body::VoteReply { granted },
            4 | 5 => Body::Append {
                previous: last,
                entries: self.entries(last),
                commit: LogIndex(self.number()),
            },
            6 => Body::Accepted {
                matched: LogIndex(self.number()),
            },
            7 => Body::Refused {
                previous: LogIndex(self.number()),
                hint: last,
            },
            8 => Body::Heartbeat {
                round: self.number(),
                commit: last,
            },
            9 => Body::HeartbeatReply {
                round: self.number(),
            },
            10 => Body::Commit { commit: last },
            11 => Body::CampaignNow,
            12 => Body::Blank,
            _ => Body::Outdated,
        }
    }

    fn message(&mut self) -> PeerMessage {
        let command = match self.payload() {
            Payload::Command(bytes) => bytes,
            _ => entry::tree(&Command::new(Action::Set, Key::new(b"/h"))).into(),
        };
        match self.random.below(12) {
            0 => PeerMessage::Forward {
                number: self.number(),
                term: Term(self.number()),
                commands: vec![command],
            },
            1 => PeerMessage::Change {
                number: self.number(),
                term: Term(self.number()),
                command: command.to_vec(),
            },
            2 => PeerMessage::AskIndex {
                number: self.number(),
            },
            3 => PeerMessage::Reply {
                number: self.number(),
                reply: match self.random.below(3) {
                    0 => LeaderReply::Index(LogIndex(self.number())),
                    1 => LeaderReply::NotTaken,
                    _ => LeaderReply::Refused(MemberError::NotFound),
                },
            },
            _ => PeerMessage::Raft {
                message: Message {
                    term: Term(self.number()),
                    body: self.body(),
                },
                time: ClusterTime(self.number()),
            },
        }
    }

    /// Passes a message as the transport does, which closes the connection at one that cannot be decoded.
    fn attack(&mut self) {
        let from = self.random.pick(&HOSTILE).expect("some");
        let mut bytes = Vec::new();
        self.message().encode(&mut bytes);
        if let Ok(message) = PeerMessage::decode(&bytes) {
            let messages = vec![message];
            self.bench
                .step(Event::Peers(vec![PeerEvent::Messages { from, messages }]));
        }
    }

    /// What the transport reports about such members.
    fn event(&mut self) {
        let node = self.random.pick(&HOSTILE).expect("some");
        let event = match self.random.below(6) {
            0 => PeerEvent::Unreachable(node),
            1 => PeerEvent::Gone(node),
            2 => PeerEvent::Removed { by: node },
            3 => PeerEvent::SnapshotSent {
                to: node,
                installed: self.random.coin().then(|| self.position()),
            },
            4 => PeerEvent::Unsent(vec![self.number()]),
            _ => PeerEvent::Understands {
                member: node,
                format: self.number() as u16,
            },
        };
        self.bench.step(Event::Peers(vec![event]));
    }
}

#[test]
fn nothing_that_a_member_sends_ends_this_one() {
    let (mut led, mut followed) = (0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut attack = Attack::new(seed);
            for _ in 0..STEPS {
                attack.act();
            }
            (attack.led, attack.followed)
        });
        let (as_leader, as_follower) = run.unwrap_or_else(|_| panic!("seed {seed} ends it"));
        led += as_leader;
        followed += as_follower;
    }
    let steps = SEEDS as usize * STEPS;
    assert!(
        led > steps / 50 && followed > steps / 50,
        "led {led}, followed {followed} of {steps}"
    );
}
