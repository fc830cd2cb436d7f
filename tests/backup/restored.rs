//! Save, wipe everything, restore.

use std::time::Duration;

use crate::harness::client::form_request;
use crate::harness::{Cluster, Connection, Json, Line, Server, wait_for};
use crate::support::{
    BUMP, PATIENCE, all_endpoints, fill, folder, keys, number, put, restore_alone, save, send,
    tree, url, wipe_and_restore,
};
use jiff::Timestamp;

#[test]
fn one_node() {
    all_is_there_again(1);
}

#[test]
fn three_nodes() {
    all_is_there_again(3);
}

#[test]
fn five_nodes() {
    all_is_there_again(5);
}

/// Writes one node of each kind, in addition to the many plain keys.
fn write_one_of_each(connection: &mut Connection) {
    put(connection, "/rich/plain", "one");
    put(connection, "/rich/plain", "two");
    put(connection, "/rich/empty", "");
    put(
        connection,
        "/rich/%EA%B0%80/%F0%9F%94%91",
        "%ED%95%9C%EA%B8%80%0A%22%00%7F",
    );
    put(connection, "/rich/large", &"x".repeat(512 << 10));
    put(connection, "/rich/_h/below", "hidden");
    put(connection, "/_hidden/a/b", "hidden");
    send(connection, "PUT", "/rich/folder/within", "dir=true");
    send(connection, "PUT", "/rich/brief-folder", "dir=true&ttl=3600");
    send(connection, "PUT", "/rich/brief-folder/file", "value=v");
    send(connection, "PUT", "/rich/lease", "value=mine&ttl=3600");
    send(connection, "PUT", "/soon", "value=gone&ttl=4");
    send(connection, "POST", "/queue", "value=first");
    send(connection, "POST", "/queue", "value=second");
    put(connection, "/rich/removed", "x");
    send(connection, "DELETE", "/rich/removed", "");
}

/// `expiration` and `ttl` of a key, the latter in seconds.
fn times(connection: &mut Connection, key: &str) -> (String, u64) {
    let answer = connection.ask("GET", &format!("/v2/keys{key}"), None);
    let json = answer.expect("an answer").json();
    let expiration = json.at("/node/expiration").and_then(Json::text);
    let ttl = json.at("/node/ttl").and_then(Json::number);
    (
        expiration.expect("an expiration").to_owned(),
        ttl.expect("a ttl"),
    )
}

fn all_is_there_again(count: usize) {
    let mut cluster = Cluster::start(count, &[]);
    fill(&cluster.addresses(), keys());
    let mut connection = cluster.node(count - 1).connect();
    write_one_of_each(&mut connection);
    let before_cluster = cluster_id(&cluster);
    let (expiration, ttl) = times(&mut connection, "/rich/lease");

    let folder = folder();
    let file = folder.path().join("keys.snap");
    let mut full = tree(cluster.node(count - 1));
    let saved = save(&all_endpoints(&cluster), &file);
    let index = number(&saved, "index");
    assert_eq!(number(&saved, "keys"), keys() as u64 + 11, "{saved:?}");
    // Writes after the backup are lost, but clients have seen their indexes.
    let mut lost = 0;
    for _ in 0..20 {
        lost = put(&mut connection, "/after", "the backup").index();
    }
    assert!(lost > index);

    let saved_at = std::time::Instant::now();
    wipe_and_restore(&mut cluster, &file);
    wait_for("the key that had four seconds", PATIENCE, || {
        let gone = cluster.node(0).ask("GET", "/v2/keys/soon", None).status == 404;
        gone.then_some(())
    });
    forget_soon(&mut full);
    for node in 0..count {
        let node = cluster.node(node);
        let what = format!("the same tree at {}", node.address());
        wait_for(&what, PATIENCE, || (tree(node) == full).then_some(()));
    }
    let mut connection = cluster.node(0).connect();
    let (now_expiration, now_ttl) = times(&mut connection, "/rich/lease");
    assert_eq!(now_expiration, expiration, "the expiration does not change");
    let passed = saved_at.elapsed().as_secs();
    assert!(
        now_ttl <= ttl && now_ttl + passed + 15 >= ttl,
        "{ttl} seconds, {passed} later {now_ttl}"
    );
    assert_ne!(cluster_id(&cluster), before_cluster);
    assert_eq!(cluster.members(0).len(), count);
    old_indexes_are_told(&cluster, &[1, index - 1, index, index + 1, lost]);
    everything_goes_on(&mut cluster, index + BUMP);
}

/// The `ttl` decreases with the wall clock that `expiration` is based on, even while the state lies in a file and no
/// server runs.
#[test]
fn times_to_live_go_on_while_nothing_runs() {
    let mut server = Server::start(&[]);
    let mut connection = server.connect();
    send(&mut connection, "PUT", "/lease", "value=mine&ttl=3600");
    send(&mut connection, "PUT", "/brief", "value=gone&ttl=2");
    let brief = expires(&times(&mut connection, "/brief").0);
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&url(server.address()), &file);
    server.kill();
    server.wipe();
    let late = brief + jiff::SignedDuration::from_secs(2);
    wait_for("the wall clock to pass it", PATIENCE, || {
        (Timestamp::now() > late).then_some(())
    });
    restore_alone(&server, &file, &[]);
    server.launch();
    let mut connection = server.connect();
    let (expiration, ttl) = times(&mut connection, "/lease");
    let left = expires(&expiration)
        .duration_since(Timestamp::now())
        .as_secs_f64();
    assert!(
        (ttl as f64 - left).abs() < 1.5,
        "{ttl} is shown, {left} is left to {expiration}"
    );
    wait_for("overdue keys to expire", Duration::from_secs(5), || {
        (server.ask("GET", "/v2/keys/brief", None).status == 404).then_some(())
    });
}

/// With and without an index jump, a watch for past events gets its error at once, before any new event.
#[test]
fn old_indexes_are_told_while_nothing_has_happened_yet() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let index = put(&mut connection, "/key", "value").index();
    let folder = folder();
    let file = folder.path().join("keys.snap");
    save(&url(server.address()), &file);
    for bump in [0, BUMP] {
        let mut restored = Server::prepare(&[]);
        restore_alone(&restored, &file, &["--bump-index", &bump.to_string()]);
        for start in 0..2 {
            restored.launch();
            for old in [1, index, index + bump] {
                let target = format!("/v2/keys/key?wait=true&waitIndex={old}");
                let answer = restored.ask("GET", &target, None);
                assert_eq!(
                    answer.status, 400,
                    "{old} after a jump of {bump}, start {start}"
                );
                let next = (index + bump + 1).to_string();
                assert_eq!(answer.header("X-Edgetcd-First-Index"), Some(next.as_str()));
                assert!(
                    answer.text().contains(&format!("[{next}/{old}]")),
                    "{}",
                    answer.text()
                );
            }
            restored.kill();
        }
    }
}

fn expires(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Removes `/soon` from the earlier state: it has expired since, as expected.
fn forget_soon(full: &mut [String]) {
    let root = &mut full[0];
    let begin = root.find("{\"key\":\"/soon\"").expect("it was there");
    let end = begin + root[begin..].find('}').expect("a node") + 1;
    root.replace_range(begin..end, "");
    *root = root
        .replace(",,", ",")
        .replace(",]", "]")
        .replace("[,", "[");
}

fn cluster_id(cluster: &Cluster) -> String {
    let answer = cluster.node(0).ask("GET", "/v2/keys/queue", None);
    let id = answer.header("X-Etcd-Cluster-Id");
    id.expect("a cluster id").to_owned()
}

/// Each old index gets 401 at each node, and no watch waits.
fn old_indexes_are_told(cluster: &Cluster, indexes: &[u64]) {
    for node in 0..cluster.len() {
        for index in indexes {
            let target = format!("/v2/keys/rich?wait=true&recursive=true&waitIndex={index}");
            let answer = cluster.node(node).ask("GET", &target, None);
            assert_eq!(answer.status, 400, "waitIndex {index}: {}", answer.text());
            assert_eq!(
                answer.json().get("errorCode").and_then(Json::number),
                Some(401)
            );
            let newest = answer.json().get("index").and_then(Json::number);
            assert!(newest.is_some_and(|newest| newest >= BUMP), "{newest:?}");
        }
    }
}

/// New writes get higher indexes, names of in-order keys still ascend, watches without an index and with the next one
/// receive events, and a restart changes nothing.
fn everything_goes_on(cluster: &mut Cluster, at_least: u64) {
    let last = cluster.len() - 1;
    let now = cluster.node(last).ask("GET", "/v2/keys/rich", None).index();
    assert!(now >= at_least, "{now} after {at_least}");
    let mut waiting = Vec::new();
    for index in [String::new(), format!("&waitIndex={}", now + 1)] {
        let mut watch = cluster.node(last).connect();
        let target = format!("/v2/keys/queue?wait=true&recursive=true{index}");
        watch
            .write(&form_request("GET", &target, None))
            .expect("sent");
        let head = watch.head(false, Duration::from_secs(10)).expect("a head");
        assert_eq!(head.status, 200);
        waiting.push(watch);
    }
    let mut connection = cluster.node(0).connect();
    let posted = send(&mut connection, "POST", "/queue", "value=third");
    assert!(posted.index() > at_least);
    for mut watch in waiting {
        let told = watch.line(Duration::from_secs(10));
        let told = match &told {
            Line::Is(line) => String::from_utf8_lossy(line),
            other => panic!("{other:?}"),
        };
        assert!(told.contains("third"), "{told}");
    }
    let sorted = connection.ask("GET", "/v2/keys/queue?sorted=true", None);
    let sorted = sorted.expect("an answer").json();
    let values = sorted.at("/node/nodes").expect("nodes").items().iter();
    let values: Vec<&str> = values
        .filter_map(|node| node.get("value")?.text())
        .collect();
    assert_eq!(values, ["first", "second", "third"]);

    if cluster.len() == 3 {
        // A member that joins begins with the other members' state or with their log.
        let joined = cluster.add(0);
        cluster.node_mut(joined).launch();
        cluster.wait_value(joined, "/rich/plain", "two", PATIENCE);
        old_indexes_are_told(cluster, &[1, at_least]);
    }
    let term = cluster.term(0);
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_leader();
    assert!(cluster.term(0) >= term);
    cluster.wait_value(0, "/rich/plain", "two", PATIENCE);
}
