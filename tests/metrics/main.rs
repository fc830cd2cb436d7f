//! Tests `/metrics`: parses it as strictly as any Prometheus, and checks that each metric reacts to its cause.
//!
//! If `promtool` (Debian's prometheus) is installed, `promtool check metrics` checks the same pages. The alerts and the
//! dashboard are tested with a Prometheus (`packaging.rs`).

#[path = "../harness/mod.rs"]
mod harness;
mod packaging;
mod page;

use harness::client::form_request;
use harness::{Cluster, Server, wait_for};
use page::Page;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

// One node ----------------------------------------------------------------------------------------

/// The metrics that a request changes, and by how much: `name{labels}`, a number.
type Moves = &'static [(&'static str, f64)];

const PUT: Moves = &[
    ("etcd_http_received_total{method=\"PUT\"}", 1.0),
    (
        "etcd_http_successful_duration_seconds_count{method=\"PUT\"}",
        1.0,
    ),
    ("etcd_debugging_store_writes_total{action=\"set\"}", 1.0),
    ("etcd_server_proposals_committed_total", 1.0),
    ("etcd_server_proposals_applied_total", 1.0),
    ("etcd_disk_wal_fsync_duration_seconds_count", 1.0),
    ("edgetcd_disk_syncs_total{what=\"log\"}", 1.0),
    ("etcd_disk_backend_commit_duration_seconds_count", 1.0),
    ("edgetcd_client_written_bytes_total", 9.0),
    ("edgetcd_history_last_index", 1.0),
    ("edgetcd_history_events", 1.0),
    ("edgetcd_http_connections", 0.0),
    ("etcd_http_received_total{method=\"GET\"}", 0.0),
];

#[test]
fn each_request_moves_its_numbers() {
    let server = Server::start(&["--snapshot-count=1000000"]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    server.ask("PUT", "/v2/keys/dir/b?value=1", None);
    let get: Moves = &[
        ("etcd_http_received_total{method=\"GET\"}", 1.0),
        (
            "etcd_http_successful_duration_seconds_count{method=\"GET\"}",
            1.0,
        ),
        ("etcd_debugging_store_reads_total{action=\"get\"}", 1.0),
        (
            "etcd_debugging_store_reads_total{action=\"getRecursive\"}",
            0.0,
        ),
        ("etcd_server_proposals_committed_total", 0.0),
        ("edgetcd_disk_syncs_total{what=\"log\"}", 0.0),
        ("edgetcd_client_written_bytes_total", 0.0),
    ];
    let recursive: Moves = &[
        ("etcd_http_received_total{method=\"GET\"}", 1.0),
        (
            "etcd_debugging_store_reads_total{action=\"getRecursive\"}",
            1.0,
        ),
        ("etcd_debugging_store_reads_total{action=\"get\"}", 0.0),
    ];
    let missing: Moves = &[
        ("etcd_http_received_total{method=\"GET\"}", 1.0),
        ("etcd_http_failed_total{code=\"404\",method=\"GET\"}", 1.0),
        (
            "etcd_http_successful_duration_seconds_count{method=\"GET\"}",
            0.0,
        ),
        ("etcd_debugging_store_reads_total{action=\"get\"}", 1.0),
    ];
    let quorum: Moves = &[
        ("etcd_http_received_total{method=\"QGET\"}", 1.0),
        (
            "etcd_http_successful_duration_seconds_count{method=\"QGET\"}",
            1.0,
        ),
        ("etcd_http_received_total{method=\"GET\"}", 0.0),
    ];
    let head: Moves = &[
        ("etcd_http_received_total{method=\"HEAD\"}", 1.0),
        (
            "etcd_http_successful_duration_seconds_count{method=\"HEAD\"}",
            1.0,
        ),
    ];
    let post: Moves = &[
        ("etcd_http_received_total{method=\"POST\"}", 1.0),
        ("etcd_debugging_store_writes_total{action=\"create\"}", 1.0),
    ];
    let compared: Moves = &[
        ("etcd_http_failed_total{code=\"412\",method=\"PUT\"}", 1.0),
        ("etcd_http_received_total{method=\"PUT\"}", 1.0),
        (
            "etcd_http_successful_duration_seconds_count{method=\"PUT\"}",
            0.0,
        ),
        (
            "etcd_debugging_store_writes_total{action=\"compareAndSwap\"}",
            1.0,
        ),
        ("edgetcd_client_written_bytes_total", 0.0),
    ];
    let delete: Moves = &[
        ("etcd_http_received_total{method=\"DELETE\"}", 1.0),
        ("etcd_debugging_store_writes_total{action=\"delete\"}", 1.0),
        ("edgetcd_client_written_bytes_total", 2.0),
    ];
    // Requests with invalid parameters are not counted, as in the reference.
    let refused: Moves = &[
        ("etcd_http_received_total{method=\"PUT\"}", 0.0),
        ("etcd_http_failed_total{code=\"400\",method=\"PUT\"}", 0.0),
    ];
    let outdated: Moves = &[
        ("etcd_debugging_store_watch_requests_total", 1.0),
        ("etcd_http_received_total{method=\"GET\"}", 0.0),
    ];
    let table: [(&str, &str, u16, Moves); 11] = [
        ("PUT", "/v2/keys/c?value=1234567", 201, PUT),
        ("GET", "/v2/keys/a", 200, get),
        ("GET", "/v2/keys/?recursive=true", 200, recursive),
        ("GET", "/v2/keys/nothing", 404, missing),
        ("GET", "/v2/keys/a?quorum=true", 200, quorum),
        ("HEAD", "/v2/keys/a", 200, head),
        ("POST", "/v2/keys/dir?value=1", 201, post),
        ("PUT", "/v2/keys/a?prevValue=2&value=3", 412, compared),
        ("DELETE", "/v2/keys/a", 200, delete),
        ("PUT", "/v2/keys/a?ttl=x", 400, refused),
        ("GET", "/v2/keys/c?wait=true&waitIndex=1", 200, outdated),
    ];
    let mut client = server.connect();
    for (method, target, status, moves) in table {
        let before = Page::of(&server);
        let answer = client.ask(method, target, None).expect("an answer");
        assert_eq!(answer.status, status, "{method} {target}");
        // A worker publishes the counts of a round at its end, a moment after the responses.
        let what = format!("{method} {target} to move {moves:?}");
        let after = wait_for(&what, SOON, || {
            let after = Page::of(&server);
            let moved = |id: &str| after.find(id).unwrap_or(0.0) - before.find(id).unwrap_or(0.0);
            let all = moves.iter().all(|(id, by)| moved(id) == *by);
            all.then_some(after)
        });
        after.check_since(&before);
    }
}

#[test]
fn what_is_open_waits_or_is_kept_is_shown() {
    let server = Server::start(&["--snapshot-count=1000000"]);
    let wait = |what: &str, id: &str, value: f64| {
        wait_for(what, SOON, || {
            Some(Page::of(&server)).filter(|page| page.get(id) == value)
        })
    };
    let before = Page::of(&server);
    let mut watches: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for watch in &mut watches {
        let request = form_request("GET", "/v2/keys/a?wait=true", None);
        watch.write(&request).expect("sent");
    }
    let watchers = "etcd_debugging_store_watchers";
    let page = wait("three watches", watchers, 3.0);
    assert_eq!(page.get("etcd_debugging_store_watch_requests_total"), 3.0);
    let open = "edgetcd_http_connections";
    wait("their connections and the one that asks", open, 4.0);
    drop(watches);
    wait("no watch", watchers, 0.0);
    for number in 0..1100 {
        server.ask("PUT", &format!("/v2/keys/k{number}?value=x"), None);
    }
    let page = Page::of(&server);
    // The member itself has used the first three indexes.
    assert_eq!(page.get("edgetcd_history_events"), 1000.0);
    assert_eq!(page.get("edgetcd_history_first_index"), 104.0);
    assert_eq!(page.get("edgetcd_history_last_index"), 1103.0);
    page.check_since(&before);
    let client = "edgetcd_client_written_bytes_total";
    assert_eq!(
        page.get(client),
        (10 * 3 + 90 * 4 + 900 * 5 + 100 * 6 + 1100) as f64
    );
    let written = page.sum("edgetcd_disk_written_bytes_total");
    let ratio = page.get("edgetcd_disk_bytes_per_client_byte");
    assert!((ratio - written / page.get(client)).abs() < 1e-6, "{ratio}");
    let log = page.get("edgetcd_disk_written_bytes_total{what=\"log\"}");
    assert!(log >= page.get("etcd_disk_wal_write_bytes_total"));
    assert_eq!(
        page.get("edgetcd_disk_syncs_total{what=\"log\"}"),
        page.get("etcd_disk_wal_fsync_duration_seconds_count")
    );
    let kept = page.get("etcd_mvcc_db_total_size_in_bytes");
    assert!(kept >= f64::from(1 << 20), "a segment is 1 MiB: {kept}");
    let (free, size) = (
        "edgetcd_disk_free_bytes{dir=\"data\"}",
        "edgetcd_disk_size_bytes{dir=\"data\"}",
    );
    assert!(page.get(free) > 0.0 && page.get(free) < page.get(size));
    assert!(page.get("etcd_network_client_grpc_received_bytes_total") > 1100.0 * 50.0);
    assert!(page.get("etcd_network_client_grpc_sent_bytes_total") > 1100.0 * 100.0);
}

#[test]
fn snapshots_are_timed_and_measured() {
    let server = Server::start(&["--snapshot-count=10"]);
    let before = Page::of(&server);
    let saved = "etcd_debugging_snap_save_total_duration_seconds_count";
    assert_eq!(
        (
            before.get(saved),
            before.find("edgetcd_snapshot_last_bytes")
        ),
        (0.0, None)
    );
    for number in 0..30 {
        server.ask("PUT", &format!("/v2/keys/k{number}?value=x"), None);
    }
    let made = |page: &Page| page.get(saved) >= 1.0;
    let page = wait_for("a snapshot", SOON, || Some(Page::of(&server)).filter(made));
    assert!(page.get("edgetcd_snapshot_last_bytes") > 100.0);
    assert!(page.get("edgetcd_snapshot_last_duration_seconds") > 0.0);
    let started = page.get("process_start_time_seconds");
    assert!(page.get("edgetcd_snapshot_last_timestamp_seconds") >= started);
    assert!(page.get("edgetcd_disk_written_bytes_total{what=\"snapshots\"}") > 100.0);
    assert!(page.get("etcd_snap_fsync_duration_seconds_count") >= 1.0);
    page.check_since(&before);
}

/// Entries that are read from the log at a start were counted by the previous process.
#[test]
fn writes_of_before_are_not_counted_again() {
    let mut server = Server::start(&[]);
    for number in 0..30 {
        server.ask("PUT", &format!("/v2/keys/k{number}?value=x"), None);
    }
    server.kill();
    server.launch();
    let client = "edgetcd_client_written_bytes_total";
    assert_eq!(Page::of(&server).get(client), 0.0);
    server.ask("PUT", "/v2/keys/k?value=x", None);
    assert_eq!(Page::of(&server).get(client), 3.0);
}

// Three nodes -------------------------------------------------------------------------------------

fn peers(name: &str, label: &str, page: &Page) -> f64 {
    page.sum(&format!("{name}{{{label}="))
}

#[test]
fn what_goes_between_members_is_shown() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let before = Page::of(cluster.node(leader));
    cluster.put(leader, "/a", "1");
    let trips = "etcd_network_peer_round_trip_time_seconds_count";
    let met = |page: &Page| {
        let text = &page.text;
        text.matches("etcd_network_peer_round_trip_time_seconds_count{")
            .count()
            == 2
            && peers("etcd_network_active_peers", "Local", page) == 2.0
    };
    let page = wait_for("both to answer heartbeats", SOON, || {
        Some(Page::of(cluster.node(leader))).filter(met)
    });
    assert!(peers(trips, "To", &page) >= 2.0);
    for (name, label) in [
        ("etcd_network_peer_sent_bytes_total", "To"),
        ("etcd_network_peer_received_bytes_total", "From"),
    ] {
        let bytes = |page: &Page| peers(name, label, page);
        assert!(bytes(&page) > bytes(&before), "{name}");
    }
    page.check_since(&before);
    let number = |node: usize, name: &str| Page::of(cluster.node(node)).get(name);
    for node in 0..3 {
        let leads = f64::from(u8::from(node == leader));
        assert_eq!(number(node, "etcd_server_is_leader"), leads);
        assert_eq!(number(node, "etcd_server_has_leader"), 1.0);
        assert_eq!(number(node, "edgetcd_members"), 3.0);
        assert_eq!(number(node, "etcd_server_is_learner"), 0.0);
        // Every member applies it, whichever member received it.
        let applied =
            || Some(()).filter(|()| number(node, "edgetcd_client_written_bytes_total") == 3.0);
        wait_for("the write to be counted", SOON, applied);
    }
    let others = cluster.others(leader);
    cluster.kill(others[0]);
    wait_for("one peer to be gone", SOON, || {
        let page = Page::of(cluster.node(leader));
        Some(()).filter(|()| peers("etcd_network_active_peers", "Local", &page) == 1.0)
    });
    cluster.restart(others[0]);
    let added = cluster.add(leader);
    assert_eq!(Page::of(cluster.node(leader)).get("edgetcd_learners"), 1.0);
    assert_eq!(Page::of(cluster.node(leader)).get("edgetcd_members"), 4.0);
    assert_eq!(added, 3);
    let last = Page::of(cluster.node(leader));
    last.check_since(&page);
    cluster.kill(others[0]);
    cluster.kill(others[1]);
    wait_for("no leader", SOON, || {
        let page = Page::of(cluster.node(leader));
        Some(()).filter(|()| page.get("etcd_server_has_leader") == 0.0)
    });
    let failed = Page::of(cluster.node(leader)).get("etcd_server_proposals_failed_total");
    let answer = cluster.node(leader).ask("PUT", "/v2/keys/b?value=1", None);
    assert_eq!(answer.status, 500);
    let page = wait_for("a failure", SOON, || {
        let page = Page::of(cluster.node(leader));
        Some(page).filter(|page| page.get("etcd_server_proposals_failed_total") > failed)
    });
    assert_eq!(
        page.get("etcd_http_failed_total{code=\"500\",method=\"PUT\"}"),
        1.0
    );
}

// promtool ----------------------------------------------------------------------------------------

/// The problems that it finds.
fn promtool(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (apt-get install prometheus)");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let found = [output.stdout, output.stderr].concat();
    format!(
        "{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&found)
    )
}

#[test]
#[ignore = "needs promtool (apt-get install prometheus)"]
fn promtool_finds_nothing() {
    let found = promtool("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n");
    assert!(found.contains("a_total"), "it looks: {found}");
    let cluster = Cluster::start(3, &["--snapshot-count=10"]);
    let leader = cluster.wait_leader();
    for number in 0..30 {
        cluster.put(leader, &format!("/k{number}"), "x");
    }
    let node = cluster.node(leader);
    for (method, target) in [
        ("GET", "/v2/keys/a"),
        ("GET", "/v2/keys/k1?quorum=true"),
        ("HEAD", "/v2/keys/k1"),
        ("DELETE", "/v2/keys/k1"),
    ] {
        node.ask(method, target, None);
    }
    let saved = "etcd_debugging_snap_save_total_duration_seconds_count";
    let page = wait_for("a snapshot", SOON, || {
        Some(Page::of(node)).filter(|page| page.get(saved) > 0.0)
    });
    assert_eq!(promtool(&page.text), "0", "a leader's page");
    let alone = Server::start(&[]);
    assert_eq!(promtool(&Page::of(&alone).text), "0", "one node's page");
}

// The README's section on what to watch ------------------------------------------------------------

/// The queries of that section: text in backquotes that contains a metric, and the indented lines.
fn watched() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).expect("there is a README");
    let (_, rest) = text.split_once("\n## What to watch\n").expect("a section");
    let (section, _) = rest.split_once("\n## ").expect("another one");
    let mut found = Vec::new();
    let plain = section.lines().filter(|line| !line.starts_with('$'));
    for line in plain {
        match line.strip_prefix("    ") {
            Some(line) => found.push(line.to_owned()),
            None => found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    found.retain(|text| text.contains("etcd_") && !text.contains('…'));
    found
}

#[test]
fn what_the_readme_says_to_watch_is_there() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    cluster.put(leader, "/a", "1");
    let page = Page::of(cluster.node(leader));
    let watched = watched();
    assert!(watched.len() >= 10, "{watched:?}");
    let word = regex_lite::Regex::new("(edgetcd|etcd|process)_[a-z0-9_]+").expect("a pattern");
    for name in watched.iter().flat_map(|text| word.find_iter(text)) {
        let name = name.as_str();
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(page.kinds.contains_key(family), "there is no {name}");
    }
}

#[test]
#[ignore = "needs promtool (apt-get install prometheus)"]
fn prometheus_takes_what_the_readme_says_to_watch() {
    let watched = watched();
    let rules = watched.iter().enumerate();
    let rules =
        rules.map(|(number, text)| format!("  - {{record: 'a:{number}', expr: '{text}'}}\n"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let rules = format!(
        "groups:\n- name: a\n  rules:\n{}",
        rules.collect::<String>()
    );
    std::fs::write(file.path(), &rules).expect("written");
    let check = Command::new("promtool")
        .args(["check", "rules"])
        .arg(file.path())
        .output();
    let output = check.expect("promtool runs");
    assert!(output.status.success(), "{output:?} of\n{rules}");
}
