//! A client that knows all members, when the first of them, the leader, is killed.

use crate::members::{show, Member, Members};
use etcd::kv::{self, Action, GetOptions, WatchOptions};
use etcd::{stats, Client};
use std::io::stdin;
use std::thread;
use tokio::runtime::Runtime;

pub fn lose_the_leader(members: &mut Members, urls: &[&str]) {
    let each = members.each();
    let leader = (each.iter())
        .position(|member| members.wait(stats::leader_stats(member)).is_ok())
        .expect("a leader");
    let mut order = urls.to_vec();
    order.swap(0, leader);
    let client = Client::new(&order, None).expect("a client of these URLs");
    let start = members.call("start", |m| kv::set(m, "/l/start", "1", None));
    let start = start
        .expect("it is set")
        .data
        .node
        .modified_index
        .expect("a change has an index");
    members.wait_for_watchers(0);
    let watching = client.clone();
    let follower = thread::spawn(move || follow(&watching, start + 1));
    members.wait_for_watchers(1);
    show(
        "before",
        &members.wait(kv::set(&client, "/l/before", "1", None)),
    );
    members.wait_for_watchers(1);

    println!("kill the leader");
    stdin()
        .read_line(&mut String::new())
        .expect("a line when it is done");
    members.forget(leader);
    show(
        "set",
        &members.wait(kv::set(&client, "/l/after", "1", None)),
    );
    let swap = kv::compare_and_swap(&client, "/l/after", "2", None, Some("1"), None);
    show("swap", &members.wait(swap));
    let read = kv::get(&client, "/l/after?quorum=true", GetOptions::default());
    show("get", &members.wait(read));
    for number in 0..10 {
        let key = format!("/l/{}", number % 3);
        show(
            "set",
            &members.wait(kv::set(&client, &key, &number.to_string(), None)),
        );
    }
    show(
        "create_in_order",
        &members.wait(kv::create_in_order(&client, "/l/queue", "x", None)),
    );
    show(
        "delete",
        &members.wait(kv::delete(&client, "/l/after", false)),
    );
    show("end", &members.wait(kv::set(&client, "/l/end", "1", None)));
    for (action, key, value) in follower.join().expect("it follows to the end") {
        println!("followed: {action:?} {key} {value:?}");
    }
}

/// Watches repeatedly, as users of the crate do, until the end is set.
fn follow(client: &Member, mut index: u64) -> Vec<(Action, String, Option<String>)> {
    let mut runtime = Runtime::new().expect("an event loop");
    let mut seen = Vec::new();
    loop {
        let options = WatchOptions {
            index: Some(index),
            recursive: true,
            timeout: None,
        };
        let event = runtime
            .block_on(kv::watch(client, "/l", options))
            .expect("one of them answers")
            .data;
        index = event.node.modified_index.expect("an event has an index") + 1;
        let key = event.node.key.expect("an event has a key");
        let end = key == "/l/end";
        seen.push((event.action, key, event.node.value));
        if end {
            return seen;
        }
    }
}
