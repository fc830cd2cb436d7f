//! A version of the tree keeps its content when later versions are changed.

use crate::random::{Random, stamp_at};
use edgetcd::tree::{Key, Listing, Tree, TreeIndex, hash};

#[test]
fn an_old_version_stays_as_it_was() {
    for seed in 100..110 {
        let mut random = Random::new(seed);
        let mut tree = Tree::new(50);
        let mut kept = Vec::new();
        for step in 0..400 {
            if step % 20 == 0 {
                kept.push((tree.clone(), hash(&tree), tree.index()));
            }
            let _refused_or_not = tree.apply(&random.command(), stamp_at(step));
            tree.expire(stamp_at(step).cluster);
        }
        for (version, hash_then, index) in &kept {
            assert_eq!(
                (hash(version), version.index()),
                (*hash_then, *index),
                "seed {seed}"
            );
        }
        assert!(tree.index() > TreeIndex(100), "seed {seed} did nothing");
    }
}

#[test]
fn a_listing_shows_the_version_it_began_with() {
    let mut random = Random::new(7);
    let mut tree = Tree::new(10);
    for step in 0..300 {
        let _refused_or_not = tree.apply(&random.command(), stamp_at(step));
    }
    let now = stamp_at(300).cluster;
    let mut at_once = Vec::new();
    let mut whole = Listing::new(&tree, &Key::root(), true, now).expect("the root is there");
    assert!(!whole.render(&mut at_once, usize::MAX), "all of it");
    for slice in [0, 1, 10, 1000] {
        let mut changing = tree.clone();
        let mut listing =
            Listing::new(&changing, &Key::root(), true, now).expect("the root is there");
        let mut out = Vec::new();
        let mut written = 0;
        while listing.render(&mut out, slice) {
            assert!(
                out.len() >= written + slice,
                "at least what was asked for, or all"
            );
            written = out.len();
            let _refused_or_not = changing.apply(&random.command(), stamp_at(301));
        }
        assert_eq!(out, at_once, "slices of {slice}");
    }
}

#[test]
fn refusals_change_nothing_but_counters() {
    let mut random = Random::new(11);
    let mut tree = Tree::new(10);
    let mut refused = 0;
    for step in 0..500 {
        let (command, stamp) = (random.command(), stamp_at(step));
        let mut other = tree.clone();
        if other.apply(&command, stamp).is_err() {
            refused += 1;
            let body = |tree: &Tree| {
                let mut out = Vec::new();
                let listing = Listing::new(tree, &Key::root(), true, stamp.cluster);
                listing
                    .expect("the root is there")
                    .render(&mut out, usize::MAX);
                (out, tree.index(), tree.next_expiry(), tree.history().len())
            };
            assert_eq!(body(&tree), body(&other), "{command:?}");
            assert_ne!(tree.stats(), other.stats());
        }
        tree = other;
    }
    assert!(refused > 100, "only {refused} refusals");
}
