//! Watches: of past events, of new events, and without an event.

use crate::members::{show, Members};
use etcd::kv::{self, WatchOptions};
use futures::Future;
use std::time::Duration;

fn from(index: Option<u64>, recursive: bool) -> WatchOptions {
    WatchOptions {
        index,
        recursive,
        timeout: None,
    }
}

pub fn watch(members: &mut Members) {
    let first = members.call("set", |m| kv::set(m, "/w/a", "0", None));
    let index = first
        .ok()
        .and_then(|answer| answer.data.node.modified_index);
    for value in ["1", "2", "3"] {
        let _ = members.call("set", |m| kv::set(m, "/w/a", value, None));
    }
    let next = index.map(|index| index + 1);
    past(members, "watch from an index", from(next, false), "/w/a");
    past(
        members,
        "watch a tree from an index",
        from(next, true),
        "/w",
    );
    let brief = WatchOptions {
        timeout: Some(Duration::from_millis(200)),
        ..WatchOptions::default()
    };
    past(members, "watch without an event", brief, "/w/none");
    members.wait_for_watchers(0);
    live(
        members,
        "watch",
        from(None, false),
        "/w/once",
        &["/w/other", "/w/once"],
    );
    live(
        members,
        "watch a tree",
        from(None, true),
        "/w",
        &["/x", "/w/_hidden", "/w/deep/er"],
    );
    let coming = index.map(|index| index + 12);
    live(
        members,
        "watch from an index to come",
        from(coming, true),
        "/w",
        &["/w/1", "/w/2", "/w/3", "/w/4", "/w/5"],
    );
    expiry(members);
}

fn past(members: &mut Members, what: &str, options: WatchOptions, key: &str) {
    let member = members.next();
    let seen = members.wait(kv::watch(&member, key, options));
    show(what, &seen);
}

/// Watches, and sets the keys in order once the watch is open.
fn live(members: &mut Members, what: &str, options: WatchOptions, key: &str, set: &[&str]) {
    let member = members.next();
    let waiting = members.spawn(kv::watch(&member, key, options));
    members.wait_for_watchers(1);
    for key in set {
        let _ = members.call(key, |m| kv::set(m, key, "now", None));
    }
    show(what, &waiting.wait());
    members.wait_for_watchers(0);
}

fn expiry(members: &mut Members) {
    for ttl in [1, 0] {
        let set = members.call("set", |m| kv::set(m, "/w/fades", "1", Some(ttl)));
        let index = set.ok().and_then(|answer| answer.data.node.modified_index);
        let options = from(index.map(|index| index + 1), false);
        past(members, "watch it expire", options, "/w/fades");
    }
}
