//! Single cores, stepped by hand: the guarantees that a driver relies on.

use crate::cluster::{Cluster, members};
use edgetcd::raft::{
    AllRules, Body, Core, Entry, HardState, Input, LogIndex, Membership, Message, NodeId, Payload,
    Position, Refusal, Role, Settings, SnapshotMetadata, Start, StoredLog, Term, Todo,
};
use std::sync::Arc;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

fn at(index: u64, term: u64) -> Position {
    Position {
        term: Term(term),
        index: LogIndex(index),
    }
}

fn entry(index: u64, term: u64) -> Entry {
    let text = format!("command {index}").into_bytes();
    Entry {
        position: at(index, term),
        payload: Payload::Command(text.into()),
    }
}

fn core(settings: Settings, voters: &[NodeId], log: StoredLog, term: u64) -> Core {
    let snapshot = SnapshotMetadata {
        membership: members(voters),
        ..SnapshotMetadata::default()
    };
    let hard_state = HardState {
        term: Term(term),
        vote: None,
    };
    Core::new(
        settings,
        Start {
            hard_state,
            snapshot,
            log,
        },
    )
}

fn message(from: NodeId, term: u64, body: Body) -> Input {
    Input::Message {
        from,
        message: Message {
            term: Term(term),
            body,
        },
    }
}

fn append(from: NodeId, term: u64, previous: Position, entries: Vec<Entry>) -> Input {
    message(
        from,
        term,
        Body::Append {
            previous,
            entries,
            commit: LogIndex(0),
        },
    )
}

fn acks(todo: &[edgetcd::raft::Envelope]) -> Vec<u64> {
    let matched = |body: &Body| match body {
        Body::Accepted { matched } => Some(matched.0),
        _ => None,
    };
    todo.iter()
        .filter_map(|envelope| matched(&envelope.message.body))
        .collect()
}

#[test]
fn a_node_alone_leads_after_two_syncs_and_no_tick() {
    let mut core = core(Settings::new(ONE, 1), &[ONE], StoredLog::default(), 0);
    let todo = core.step(Input::Start);
    let hard_state = todo.hard_state.expect("it stands");
    assert_eq!((hard_state.vote, core.role()), (Some(ONE), Role::Candidate));
    let refused = core
        .step(Input::Propose {
            term: None,
            commands: vec![],
        })
        .refused;
    assert_eq!(refused, Some(Refusal::NotLeader { leader: None }));

    let todo = core.step(Input::HardStateStored { hard_state });
    assert!(core.is_leader() && todo.append.len() == 1);
    let commands: Vec<Arc<[u8]>> = vec![Arc::from(&b"a"[..]), Arc::from(&b"b"[..])];
    let todo = core.step(Input::Propose {
        term: Some(Term(1)),
        commands,
    });
    assert_eq!(todo.accepted, Some(at(2, 1)));
    assert_eq!(todo.append.len(), 2);
    assert_eq!(core.commit(), LogIndex(0), "not before its own disk has it");

    let todo = core.step(Input::Stored { position: at(3, 1) });
    assert_eq!((core.commit(), todo.apply.len()), (LogIndex(3), 3));
}

#[test]
fn a_forwarded_proposal_is_taken_in_its_term_only() {
    let mut cluster = Cluster::<AllRules>::new();
    cluster.add(Settings::new(ONE, 1), members(&[ONE]));
    cluster.start(ONE).and_then(|()| cluster.settle()).unwrap();
    let core = cluster.node(ONE).core.as_mut().expect("it is up");
    let commands = || vec![Arc::from(&b"a"[..])];
    let todo = core.step(Input::Propose {
        term: Some(Term(7)),
        commands: commands(),
    });
    assert_eq!(
        (todo.refused, todo.append.len()),
        (Some(Refusal::OtherTerm), 0)
    );
    let todo = core.step(Input::Propose {
        term: Some(Term(1)),
        commands: commands(),
    });
    assert_eq!(todo.accepted, Some(at(2, 1)));
}

/// A hundred thousand entries on disk are applied in slices, in order, and none is kept in memory.
#[test]
fn a_restart_with_a_long_log_applies_it_in_slices() {
    const ENTRIES: u64 = 100_000;
    let settings = Settings {
        memory_bytes: 64 << 10,
        ..Settings::new(ONE, 1)
    };
    let tail = (ENTRIES - 100..=ENTRIES)
        .map(|index| entry(index, 1))
        .collect();
    let terms = vec![(LogIndex(1), Term(1))];
    let log = StoredLog {
        terms,
        last: LogIndex(ENTRIES),
        changes: vec![],
        tail,
    };
    let mut core = core(settings, &[ONE], log, 1);

    let hard_state = core.step(Input::Start).hard_state.expect("it stands");
    let todo = core.step(Input::HardStateStored { hard_state });
    let noop = todo.append[0].position;
    let mut todo = core.step(Input::Stored { position: noop });
    assert_eq!(core.commit(), noop.index);
    let (mut applied, mut slices) = (0, 0);
    loop {
        for entry in &todo.apply {
            assert_eq!(entry.position.index.0, applied + 1);
            applied += 1;
        }
        let Some((first, last)) = todo.read else {
            break;
        };
        assert!(first.0 == applied + 1 && last.0 < ENTRIES);
        let until = last.0.min(first.0 + 999);
        let entries = (first.0..=until).map(|index| entry(index, 1)).collect();
        assert!(
            core.in_memory().0 <= 64 << 10,
            "{:?} in memory",
            core.in_memory()
        );
        slices += 1;
        todo = core.step(Input::Read { entries });
    }
    assert_eq!((applied, slices), (ENTRIES + 1, 100));
}

/// While a hard state may not be stored yet, a report may be about an earlier write of an equal entry: 2@1 was
/// stored, replaced by 2@2, and received again from the leader of term 3.
#[test]
fn a_report_of_an_entry_that_went_and_came_back_is_not_believed_too_early() {
    let mut core = core(
        Settings::new(ONE, 1),
        &[ONE, TWO, THREE],
        StoredLog::default(),
        1,
    );
    let first = [entry(1, 1), entry(2, 1)];
    let _ = core.step(append(TWO, 1, at(0, 0), first.to_vec()));
    let _ = core.step(append(THREE, 2, at(1, 1), vec![entry(2, 2)]));
    let todo = core.step(append(TWO, 3, at(1, 1), vec![entry(2, 1)]));
    assert_eq!(core.last_position(), at(2, 1));
    assert_eq!(acks(&todo.send_stored), [2]);

    // The report is about the first write of 2@1. The current 2@1 is after 2@2 in the queue.
    let _ = core.step(Input::Stored { position: at(2, 1) });
    assert_eq!(core.stored(), LogIndex(0), "the term may not be stored yet");
    let again = core.step(append(TWO, 3, at(1, 1), vec![entry(2, 1)]));
    assert_eq!(
        (acks(&again.send_now), acks(&again.send_stored)),
        (vec![], vec![2])
    );

    // The reports of the second write have another term. Those of the third one count.
    let hard_state = |term| Input::HardStateStored {
        hard_state: HardState {
            term: Term(term),
            vote: None,
        },
    };
    let _ = core.step(hard_state(2));
    let _ = core.step(Input::Stored { position: at(2, 2) });
    assert_eq!(core.stored(), LogIndex(0));
    let _ = core.step(hard_state(3));
    let _ = core.step(Input::Stored { position: at(2, 1) });
    assert_eq!(core.stored(), LogIndex(2));
}

#[test]
fn a_snapshot_that_ends_with_an_entry_of_the_log_is_not_installed() {
    let mut core = core(
        Settings::new(ONE, 1),
        &[ONE, TWO, THREE],
        StoredLog::default(),
        1,
    );
    let entries = vec![entry(1, 1), entry(2, 1), entry(3, 1)];
    let _ = core.step(append(TWO, 1, at(0, 0), entries));
    let _ = core.step(Input::Stored { position: at(3, 1) });
    let metadata = SnapshotMetadata {
        position: at(2, 1),
        membership: members(&[ONE, TWO, THREE]),
    };
    let todo = core.step(Input::Snapshot {
        from: TWO,
        term: Term(1),
        metadata,
    });
    assert_eq!(todo.install, None);
    assert_eq!(
        todo.apply.len(),
        2,
        "the entries of the snapshot are in the log"
    );
    assert_eq!(core.last_position(), at(3, 1), "later entries are kept");
}

#[test]
fn what_an_installed_snapshot_promises_waits_for_the_disk() {
    let mut core = core(
        Settings::new(ONE, 1),
        &[ONE, TWO, THREE],
        StoredLog::default(),
        2,
    );
    let _ = core.step(append(TWO, 2, at(0, 0), vec![entry(1, 1), entry(2, 1)]));
    let metadata = SnapshotMetadata {
        position: at(2, 2),
        membership: members(&[ONE, TWO]),
    };
    let todo = core.step(Input::Snapshot {
        from: TWO,
        term: Term(2),
        metadata: metadata.clone(),
    });
    assert_eq!(todo.install, Some(metadata.clone()));
    assert_eq!(
        (core.last_position(), core.applied()),
        (at(2, 2), LogIndex(2))
    );
    assert_eq!(
        (acks(&todo.send_now), acks(&todo.send_stored)),
        (vec![], vec![2])
    );
    assert_eq!(core.membership(), &metadata.membership);

    // The same snapshot again, with nothing new to store: still not before the disk has the first one.
    let snapshot = || Input::Snapshot {
        from: TWO,
        term: Term(2),
        metadata: metadata.clone(),
    };
    let todo = core.step(snapshot());
    assert_eq!((todo.install, acks(&todo.send_now)), (None, vec![]));
    let _ = core.step(Input::Stored { position: at(2, 2) });
    assert_eq!(acks(&core.step(snapshot()).send_now), [2]);
}

#[test]
fn metadata_can_be_made_where_the_membership_is_known() {
    let mut cluster = Cluster::<AllRules>::new();
    cluster.add(Settings::new(ONE, 1), members(&[ONE]));
    cluster.start(ONE).and_then(|()| cluster.settle()).unwrap();
    let add = crate::cluster::change(edgetcd::raft::ChangeKind::AddLearner, TWO);
    cluster
        .step(ONE, add)
        .and_then(|()| cluster.settle())
        .unwrap();
    let core = cluster.nodes[&ONE].core.as_ref().expect("it is up");
    let learners = |index| {
        core.metadata_at(LogIndex(index))
            .map(|metadata| metadata.membership.learners.len())
    };
    assert_eq!(
        [learners(0), learners(1), learners(2), learners(3)],
        [Some(0), Some(0), Some(1), None]
    );
}

/// A node without data gives no vote, because it may be a voter whose disk was lost.
#[test]
fn a_blank_node_does_not_vote() {
    let start = Start {
        snapshot: SnapshotMetadata {
            membership: Membership::default(),
            ..SnapshotMetadata::default()
        },
        ..Start::default()
    };
    let mut core = Core::new(Settings::new(ONE, 1), start);
    let todo: Todo = core.step(message(
        TWO,
        5,
        Body::Vote {
            last: at(9, 4),
            handover: false,
        },
    ));
    let bodies = |todo: Todo| {
        todo.send_stored
            .into_iter()
            .map(|envelope| envelope.message.body)
    };
    assert_eq!(
        bodies(todo).collect::<Vec<_>>(),
        [Body::VoteReply { granted: false }]
    );
    assert!(
        (0..500).all(|_| core.step(Input::Tick).send_now.is_empty()),
        "nor does it stand"
    );
}

#[test]
fn a_term_counts_as_stored_once_its_hard_state_is() {
    let mut core = core(Settings::new(ONE, 1), &[ONE, TWO], StoredLog::default(), 3);
    let _ = core.step(Input::Start);
    assert_eq!((core.term(), core.stored_term()), (Term(3), Term(3)));
    let heartbeat = Body::Heartbeat {
        round: 1,
        commit: at(0, 0),
    };
    let todo = core.step(message(TWO, 5, heartbeat));
    assert_eq!((core.term(), core.stored_term()), (Term(5), Term(3)));
    let hard_state = todo.hard_state.expect("a new term goes to the disk");
    let _ = core.step(Input::HardStateStored { hard_state });
    assert_eq!(core.stored_term(), Term(5));
}

/// A member that was down for long is far behind. A message must never end the process or use up all terms.
#[test]
fn a_message_that_no_sound_member_sends_has_no_effect() {
    let log = StoredLog {
        terms: vec![(LogIndex(1), Term(3))],
        last: LogIndex(2),
        tail: vec![entry(1, 3), entry(2, 3)],
        ..StoredLog::default()
    };
    let mut core = core(Settings::new(ONE, 1), &[ONE, TWO, THREE], log, 3);
    let _ = core.step(Input::Start);
    let heartbeat = |round, commit| Body::Heartbeat { round, commit };
    let follows = core.step(message(TWO, 3, heartbeat(1, at(2, 3))));
    assert!(follows.violations.is_empty() && core.commit() == LogIndex(2));
    let snapshot = |term| Input::Snapshot {
        from: THREE,
        term: Term(term),
        metadata: SnapshotMetadata {
            position: at(9, 3),
            membership: members(&[THREE]),
        },
    };
    let far = (1 << 62) - 1;
    let table = [
        message(THREE, 3, heartbeat(1, at(2, 3))),
        append(THREE, 3, at(2, 3), vec![entry(3, 3)]),
        message(THREE, 3, Body::CampaignNow),
        snapshot(3),
        snapshot(far),
        message(THREE, far, heartbeat(1, at(2, 3))),
        message(
            THREE,
            far,
            Body::Vote {
                last: at(9, far),
                handover: true,
            },
        ),
        message(THREE, far, Body::Outdated),
        // The committed entry here is of term 3.
        message(TWO, 3, heartbeat(1, at(9, 4))),
        append(TWO, 3, at(1, 1), vec![entry(2, 1), entry(3, 1)]),
    ];
    for input in table {
        let shown = format!("{input:?}");
        let todo = core.step(input);
        assert_eq!(todo.violations.len(), 1, "{shown}");
        assert!(todo.append.is_empty() && todo.hard_state.is_none() && todo.install.is_none());
        assert_eq!(
            (core.term(), core.leader()),
            (Term(3), Some(TWO)),
            "{shown}"
        );
    }
    let back = core.step(message(THREE, 1_000_000, heartbeat(1, at(2, 3))));
    assert!(back.violations.is_empty() && core.term() == Term(1_000_000));
}

/// `src/raft` must not use the outside world: no file, socket, thread, clock.
#[test]
fn the_room_is_pure() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft");
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("it can be read").path();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        for outside in [
            "std::fs",
            "std::net",
            "std::thread",
            "std::time",
            "crossbeam",
            "rand::",
        ] {
            assert!(
                !text.contains(outside),
                "{} names {outside}",
                path.display()
            );
        }
    }
}
