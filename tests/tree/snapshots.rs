//! Snapshots and commands as bytes: decoding returns the original, and no bytes do harm.

use crate::random::{Random, stamp_at};
use edgetcd::tree::{Action, Command, Decoder, Encoder, Key, Malformed, Tree, hash};

fn random_tree(seed: u64) -> Tree {
    grown_tree(seed, 500, 60)
}

fn grown_tree(seed: u64, commands: u64, history_events: usize) -> Tree {
    let mut random = Random::new(seed);
    let mut tree = Tree::new(history_events);
    for step in 0..commands {
        let _refused_or_not = tree.apply(&random.command(), stamp_at(step / 10));
    }
    tree
}

fn encode(tree: &Tree) -> Vec<u8> {
    let mut encoder = Encoder::new(tree.clone());
    let mut out = Vec::new();
    while encoder.next(&mut out) {}
    out
}

fn decode(bytes: &[u8], slice: usize, history_events: usize) -> Result<Tree, Malformed> {
    let mut decoder = Decoder::new(history_events);
    for slice in bytes.chunks(slice) {
        decoder.push(slice)?;
    }
    decoder.finish()
}

#[test]
fn a_tree_comes_back_from_its_snapshot() {
    for seed in 200..206 {
        let tree = random_tree(seed);
        let bytes = encode(&tree);
        for slice in [1, 7, 4096, usize::MAX] {
            let mut copy = decode(&bytes, slice, 60).expect("our own snapshot");
            assert_eq!(hash(&copy), hash(&tree), "seed {seed}, slices of {slice}");
            assert_eq!(copy.next_expiry(), tree.next_expiry());
            let mut original = tree.clone();
            let (ours, theirs) = (
                original.expire(stamp_at(200).cluster),
                copy.expire(stamp_at(200).cluster),
            );
            assert_eq!(ours.len(), theirs.len(), "deadlines are ordered alike");
            assert_eq!(hash(&copy), hash(&original), "seed {seed}");
        }
    }
}

/// Checksums fit, as whoever makes such a snapshot computes them.
#[test]
fn a_node_that_was_changed_before_it_was_made_is_refused() {
    let mut tree = Tree::new(0);
    for _ in 0..3 {
        let set = Command {
            value: b"v"[..].into(),
            ..Command::new(Action::Set, Key::new(b"/a"))
        };
        tree.apply(&set, stamp_at(1)).expect("a key");
    }
    let bytes = encode(&tree);
    // A file named `a`, made and changed at 3, without an expiry, and its value.
    let node = [1, 1, b'a', 3, 3, 0, 1, b'v'];
    let at = (bytes.windows(node.len())).position(|found| found == node);
    let at = at.expect("a node");
    for (created, modified, is_good) in [
        (3, 3, true),
        (1, 2, true),
        (3, 2, false),
        (3, 4, false),
        (4, 4, false),
    ] {
        let mut crafted = bytes.clone();
        (crafted[at + 3], crafted[at + 4]) = (created, modified);
        let read = decode(&crafted, 1000, 10);
        assert_eq!(
            read.is_ok(),
            is_good,
            "made at {created}, changed at {modified}"
        );
    }
}

#[test]
fn both_go_on_alike() {
    let mut tree = random_tree(300);
    let mut copy = decode(&encode(&tree), 1000, 60).expect("our own snapshot");
    let mut random = Random::new(301);
    for step in 0..500 {
        let (command, stamp) = (random.command(), stamp_at(60 + step / 10));
        let events = [&mut tree, &mut copy]
            .map(|tree| tree.apply(&command, stamp).map(|applied| applied.event));
        assert_eq!(events[0], events[1], "{command:?}");
    }
    assert_eq!(hash(&copy), hash(&tree));
}

#[test]
fn a_shorter_history_keeps_the_newest() {
    let tree = random_tree(310);
    let copy = decode(&encode(&tree), 1000, 10).expect("our own snapshot");
    assert_eq!(copy.history().len(), 10);
    assert_eq!(copy.history().last(), tree.history().last());
}

#[test]
fn a_slice_is_about_64_kib() {
    let mut tree = Tree::new(10);
    for number in 0..20_000 {
        let key = Key::new(format!("/wide/{number}").as_bytes());
        let command = Command::new(edgetcd::tree::Action::Set, key);
        tree.apply(&command, stamp_at(0)).expect("a set");
    }
    let mut encoder = Encoder::new(tree);
    let mut slices = Vec::new();
    loop {
        let mut slice = Vec::new();
        let more = encoder.next(&mut slice);
        slices.push(slice.len());
        if !more {
            break;
        }
    }
    assert!(
        slices.len() >= 4 && slices.iter().all(|&length| length < 66_000),
        "{slices:?}"
    );
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let bytes = encode(&grown_tree(320, 80, 10));
    for length in 0..bytes.len() {
        assert!(
            decode(&bytes[..length], 512, 10).is_err(),
            "cut to {length} of {}",
            bytes.len()
        );
    }
    assert!(
        decode(&[&bytes[..], b"\0"].concat(), 512, 10).is_err(),
        "one byte more"
    );
}

#[test]
fn hostile_snapshots_are_refused_or_read_but_never_a_panic() {
    let bytes = encode(&grown_tree(330, 200, 20));
    let mut random = Random::new(331);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut other = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(other.len() as u64) as usize;
            other[at] = random.next() as u8;
        }
        match decode(&other, 100_000, 20) {
            Err(_) => refused += 1,
            Ok(mut tree) => {
                tree.expire(stamp_at(1_000_000).cluster);
                let _works = (
                    hash(&tree),
                    tree.apply(&random.command(), stamp_at(1_000_000)),
                );
            }
        }
    }
    assert!(refused > 1000, "only {refused} refused");
}

#[test]
fn commands_come_back_from_their_bytes() {
    let mut random = Random::new(400);
    for _ in 0..5000 {
        let command = random.command();
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&bytes), Ok(command));
    }
}

#[test]
fn any_bytes_may_be_decoded_as_a_command() {
    let mut random = Random::new(401);
    let mut read = 0;
    for _ in 0..50_000 {
        let mut bytes = Vec::new();
        random.command().encode(&mut bytes);
        for _ in 0..=random.below(2) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        if let Ok(command) = Command::decode(&bytes) {
            read += 1;
            let mut again = Vec::new();
            command.encode(&mut again);
            assert_eq!(
                Command::decode(&again),
                Ok(command),
                "the decoded state can be encoded"
            );
        }
        let noise: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        let _refused_or_not = Command::decode(&noise);
    }
    assert!(read > 100, "only {read} of the changed ones could be read");
}
