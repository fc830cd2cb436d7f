//! Writing, reading, comparing and deleting.

use crate::members::Members;
use etcd::kv::{self, GetOptions};

const SORTED: GetOptions = GetOptions {
    recursive: false,
    sort: true,
    strong_consistency: false,
};
const TREE: GetOptions = GetOptions {
    recursive: true,
    ..SORTED
};

pub fn write_and_read(members: &mut Members) {
    let _ = members.call("set", |m| kv::set(m, "/k/a", "one", None));
    let _ = members.call("set again", |m| kv::set(m, "/k/a", "two", None));
    let _ = members.call("set with a ttl", |m| kv::set(m, "/k/t", "soon", Some(1000)));
    let _ = members.call("set unicode", |m| {
        kv::set(m, "/k/%EC%82%AC", "값 & <b> + % = ;", None)
    });
    let _ = members.call("set nothing", |m| kv::set(m, "/k/empty", "", None));
    let _ = members.call("get", |m| kv::get(m, "/k/a", GetOptions::default()));
    let _ = members.call("get unicode", |m| kv::get(m, "/k/%EC%82%AC", SORTED));
    let _ = members.call("get nothing", |m| kv::get(m, "/k/empty", SORTED));
    let _ = members.call("get what is not", |m| kv::get(m, "/k/none", SORTED));
    let _ = members.call("create", |m| kv::create(m, "/k/new", "1", None));
    let _ = members.call("create again", |m| kv::create(m, "/k/new", "2", Some(1000)));
    let _ = members.call("create below a file", |m| {
        kv::create(m, "/k/new/b", "3", None)
    });
    let _ = members.call("update", |m| kv::update(m, "/k/new", "4", Some(1000)));
    let _ = members.call("update for good", |m| kv::update(m, "/k/new", "5", None));
    let _ = members.call("update what is not", |m| {
        kv::update(m, "/k/none", "6", None)
    });
    let _ = members.call("set the root", |m| kv::set(m, "/", "7", None));
    let large = "x".repeat(1 << 20);
    let _ = members.call("set a megabyte", |m| kv::set(m, "/large/a", &large, None));
    let _ = members.call("get it", |m| kv::get(m, "/large/a", SORTED));
    let _ = members.call("get its directory", |m| kv::get(m, "/large", TREE));
    let _ = members.call("delete it", |m| kv::delete(m, "/large", true));
}

pub fn directories(members: &mut Members) {
    let _ = members.call("create_dir", |m| kv::create_dir(m, "/k/d", None));
    let _ = members.call("create_dir again", |m| kv::create_dir(m, "/k/d", None));
    let _ = members.call("create_dir below", |m| {
        kv::create_dir(m, "/k/d/e/f", Some(1000))
    });
    let _ = members.call("set_dir", |m| kv::set_dir(m, "/k/s", None));
    let _ = members.call("set_dir again", |m| kv::set_dir(m, "/k/s", None));
    let _ = members.call("set_dir over a file", |m| {
        kv::set_dir(m, "/k/new", Some(1000))
    });
    let _ = members.call("update_dir", |m| kv::update_dir(m, "/k/d", Some(1000)));
    let _ = members.call("update_dir for good", |m| kv::update_dir(m, "/k/d", None));
    let _ = members.call("update_dir of a file", |m| {
        kv::update_dir(m, "/k/empty", None)
    });
    let _ = members.call("update_dir of nothing", |m| {
        kv::update_dir(m, "/k/none", None)
    });
    let _ = members.call("set a directory", |m| kv::set(m, "/k/d", "1", None));
    for value in ["first", "second", "third"] {
        let ttl = (value == "third").then_some(1000);
        let _ = members.call("create_in_order", |m| {
            kv::create_in_order(m, "/k/queue", value, ttl)
        });
    }
    let _ = members.call("create_in_order below a file", |m| {
        kv::create_in_order(m, "/k/a", "1", None)
    });
    let _ = members.call("list", |m| kv::get(m, "/k/queue", SORTED));
    let _ = members.call("list one level", |m| kv::get(m, "/k", SORTED));
    let _ = members.call("list all", |m| kv::get(m, "/k", TREE));
    let _ = members.call("list the root", |m| kv::get(m, "/", SORTED));
}

pub fn compare(members: &mut Members) {
    let swap = |value, index| {
        move |m: &crate::members::Member| kv::compare_and_swap(m, "/k/a", "3", None, value, index)
    };
    let now = members.call("get", |m| kv::get(m, "/k/a", GetOptions::default()));
    let index = now.ok().and_then(|answer| answer.data.node.modified_index);
    let _ = members.call("swap, wrong value", swap(Some("wrong"), None));
    let _ = members.call("swap, wrong index", swap(None, Some(1)));
    let _ = members.call("swap, both wrong", swap(Some("wrong"), Some(1)));
    let _ = members.call("swap, no condition", swap(None, None));
    let _ = members.call("swap, index 0", swap(None, Some(0)));
    let _ = members.call("swap, nothing", swap(Some(""), None));
    let _ = members.call("swap, an old index", swap(None, index));
    let _ = members.call("swap, the value", swap(Some("3"), None));
    let remove = |value, index| {
        move |m: &crate::members::Member| kv::compare_and_delete(m, "/k/a", value, index)
    };
    let _ = members.call("delete, wrong value", remove(Some("wrong"), None));
    let _ = members.call("delete, wrong index", remove(None, Some(1)));
    let _ = members.call("delete, no condition", remove(None, None));
    let _ = members.call("delete, the value", remove(Some("3"), None));
    let _ = members.call("delete, gone", remove(Some("3"), None));
}

pub fn delete(members: &mut Members) {
    let _ = members.call("delete what is not", |m| kv::delete(m, "/k/none", false));
    let _ = members.call("delete", |m| kv::delete(m, "/k/empty", false));
    let _ = members.call("delete_dir of a file", |m| kv::delete_dir(m, "/k/t"));
    let _ = members.call("delete a directory", |m| kv::delete(m, "/k/s", false));
    let _ = members.call("delete_dir", |m| kv::delete_dir(m, "/k/s"));
    let _ = members.call("delete_dir with keys", |m| kv::delete_dir(m, "/k/queue"));
    let _ = members.call("delete a tree", |m| kv::delete(m, "/k/queue", true));
    let _ = members.call("delete the root", |m| kv::delete(m, "/", true));
}
