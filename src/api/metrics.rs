//! `/metrics`: metrics in Prometheus' text format. Where etcd has a metric, its name is used (spec §14), so that etcd's
//! published dashboards work with this server. Other metrics are named `edgetcd_…`.
//!
//! Some of etcd's metrics have no exact equivalent here. A metric that dashboards use keeps its name, and its `HELP`
//! says what it measures here. The disk of the keys is the log with its snapshots. A backend commit is a batch that was
//! applied to the tree in memory and published. The clients' gRPC is HTTP. If etcd's type contradicts the name (a gauge
//! whose name ends in `_total`), the type here follows the name: `promtool check metrics` reports nothing.
//!
//! A page reads memory and makes a few short system calls (the process, the space on the disk). The total size of the
//! files takes time that grows with their number, so it is measured at most once per second.

mod page;

use super::Api;
use super::cors::Grant;
use super::counts::Method;
use crate::ETCD_VERSION;
use crate::http1::{Answer, Reply};
use crate::process;
use page::Page;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers any method, like the reference.
pub fn handle(api: &Api, grant: &Grant, reply: Reply<'_>) {
    let mut page = Page::default();
    identity(api, &mut page);
    raft(api, &mut page);
    proposals(api, &mut page);
    store(api, &mut page);
    requests(api, &mut page);
    log(api, &mut page);
    wear(api, &mut page);
    snapshots(api, &mut page);
    space(api, &mut page);
    clients(api, &mut page);
    peers(api, &mut page);
    process(api, &mut page);
    let answer = Answer::new(200)
        .header("Content-Type", CONTENT_TYPE)
        .body(page.into_bytes());
    reply.send(grant.onto(answer));
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn identity(api: &Api, page: &mut Page) {
    let id = format!("{:x}", api.replica.status().id().0);
    let cluster = ETCD_VERSION.rsplit_once('.').map_or("", |(minor, _)| minor);
    let own = env!("CARGO_PKG_VERSION");
    let mut one = |name, help, label, value| page.gauges(name, help).sample(&[(label, value)], 1);
    let help = "This member's id.";
    one("etcd_server_id", help, "server_id", &id);
    let help = "The version of etcd whose API this is.";
    one("etcd_server_version", help, "server_version", ETCD_VERSION);
    let help = "That version without its patch.";
    one("etcd_cluster_version", help, "cluster_version", cluster);
    let help = "The version of edgetcd.";
    one("edgetcd_build_info", help, "version", own);
}

fn raft(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    let led = u8::from(status.leader().is_some());
    let leads = u8::from(status.is_leader());
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", led);
    page.gauge("etcd_server_is_leader", "Whether this member leads.", leads);
    page.gauge(
        "etcd_server_is_learner",
        "Whether this member has no vote yet.",
        u8::from(status.is_learner()),
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Leaders seen since the start.",
        status.leader_changes(),
    );
    page.gauge(
        "edgetcd_raft_term",
        "The newest term seen.",
        status.term().0,
    );
    page.gauge(
        "edgetcd_members",
        "Members of the cluster, learners included.",
        status.members().iter().count(),
    );
    page.gauge(
        "edgetcd_learners",
        "Members without a vote.",
        status.learners(),
    );
}

fn proposals(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    let (applied, committed) = (status.applied().0, status.commit().0);
    page.counter(
        "etcd_server_proposals_committed_total",
        "The last entry known to be committed.",
        committed,
    );
    page.counter(
        "etcd_server_proposals_applied_total",
        "The last entry applied.",
        applied,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Requests that wait for their entry or for a leader.",
        status.proposals_pending(),
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Requests answered with error 300.",
        status.proposals_failed(),
    );
    page.gauge(
        "edgetcd_apply_lag_entries",
        "Entries committed and not applied yet.",
        committed.saturating_sub(applied),
    );
    page.gauge(
        "edgetcd_apply_lag_seconds",
        "How long one of them has waited.",
        status.apply_lag().as_secs_f64(),
    );
    page.gauge(
        "edgetcd_uncommitted_bytes",
        "Taken by this member as the leader and not committed yet.",
        status.uncommitted_bytes(),
    );
    page.gauge(
        "edgetcd_backlog_bytes",
        "Requests that wait for the raft thread, or there for a leader.",
        api.replica.backlog_bytes(),
    );
    page.gauge(
        "edgetcd_disk_full",
        "Whether writes are refused for want of space.",
        u8::from(status.disk_full()),
    );
}

fn store(api: &Api, page: &mut Page) {
    let view = api.hub.view();
    let stats = view.tree.stats();
    let reads = |recursive| api.counts.reads(true, recursive) + api.counts.reads(false, recursive);
    let mut family = page.counters(
        "etcd_debugging_store_reads_total",
        "Nodes looked up by this member for its clients, found or not.",
    );
    family.sample(&[("action", "get")], reads(false));
    family.sample(&[("action", "getRecursive")], reads(true));
    let writes = [
        ("set", stats.sets_success + stats.sets_fail),
        ("create", stats.create_success + stats.create_fail),
        ("update", stats.update_success + stats.update_fail),
        ("delete", stats.delete_success + stats.delete_fail),
        (
            "compareAndSwap",
            stats.compare_and_swap_success + stats.compare_and_swap_fail,
        ),
        (
            "compareAndDelete",
            stats.compare_and_delete_success + stats.compare_and_delete_fail,
        ),
    ];
    let mut family = page.counters(
        "etcd_debugging_store_writes_total",
        "Writes applied since the cluster began, refused ones included.",
    );
    for (action, count) in writes {
        family.sample(&[("action", action)], count);
    }
    page.counter(
        "etcd_debugging_store_expires_total",
        "Nodes expired since the cluster began.",
        stats.expire_count,
    );
    page.counter(
        "etcd_debugging_store_watch_requests_total",
        "Watches asked of this member.",
        api.counts.watches(),
    );
    page.gauge(
        "etcd_debugging_store_watchers",
        "Watches parked now.",
        api.hub.watchers(),
    );
    let history = view.tree.history();
    let (first, last) = (history.first(), history.last());
    page.gauge(
        "edgetcd_history_events",
        "Past events that a watch can still ask for.",
        history.len(),
    );
    page.gauge(
        "edgetcd_history_first_index",
        "The oldest of them, 0 if there are none: an older waitIndex gets error 401.",
        first.map_or(0, |index| index.0),
    );
    page.gauge(
        "edgetcd_history_last_index",
        "The newest of them, 0 if there are none.",
        last.map_or(0, |index| index.0),
    );
}

fn requests(api: &Api, page: &mut Page) {
    let counts = &api.counts;
    let mut family = page.counters(
        "etcd_http_received_total",
        "Requests of the key space with good parameters, without watches; QGET: quorum reads.",
    );
    for method in Method::ALL {
        family.sample(&[("method", method.label())], counts.received(method));
    }
    let mut family = page.counters(
        "etcd_http_failed_total",
        "Those of them that were answered with an error, and watches that were.",
    );
    for method in Method::ALL {
        for (code, count) in counts.failures(method) {
            let code = code.to_string();
            family.sample(&[("code", &code), ("method", method.label())], count);
        }
    }
    let mut family = page.histograms(
        "etcd_http_successful_duration_seconds",
        "From the request to its answer; plain reads: the whole round of the worker that served them.",
    );
    for method in Method::ALL {
        let times = counts.times(method);
        if times.count() > 0 {
            family.observed(&[("method", method.label())], &times);
        }
    }
}

fn log(api: &Api, page: &mut Page) {
    let wal = &api.wal;
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "How long syncs of the log took.",
        &wal.syncs.read(),
    );
    page.counter(
        "etcd_disk_wal_write_bytes_total",
        "Bytes of records written to the log.",
        read(&wal.bytes_written),
    );
    page.gauge(
        "edgetcd_wal_segments",
        "Files of the log in use.",
        read(&wal.segments),
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Here: applying what was committed together to the tree in memory, and showing it.",
        &api.replica.status().commits().read(),
    );
}

/// Bytes written to the disk, compared with the bytes that clients write.
fn wear(api: &Api, page: &mut Page) {
    let wal = &api.wal;
    let (log, zeros) = (read(&wal.synced_bytes), read(&wal.zeroed_bytes));
    let snapshots = read(&wal.snapshot_bytes);
    let mut family = page.counters(
        "edgetcd_disk_written_bytes_total",
        "Bytes given to the disk: log pages (whole pages, again with each sync), zeros written ahead, snapshots.",
    );
    family.sample(&[("what", "log")], log);
    family.sample(&[("what", "zeros")], zeros);
    family.sample(&[("what", "snapshots")], snapshots);
    let mut family = page.counters("edgetcd_disk_syncs_total", "Syncs that stored something.");
    family.sample(&[("what", "log")], wal.syncs.read().count());
    family.sample(&[("what", "snapshots")], wal.snapshot_syncs.read().count());
    let accepted = api.replica.status().accepted_bytes();
    page.counter(
        "edgetcd_client_written_bytes_total",
        "Keys and values of the changes applied here, whichever member was asked.",
        accepted,
    );
    page.gauge(
        "edgetcd_disk_bytes_per_client_byte",
        "The bytes given to the disk by those of clients, since the start; NaN before the first change.",
        match accepted {
            0 => f64::NAN,
            accepted => (log + zeros + snapshots) as f64 / accepted as f64,
        },
    );
    if let Some(bytes) = process::written_bytes() {
        page.counter(
            "edgetcd_process_written_bytes_total",
            "Given to storage for this process as the kernel counts it, its log lines included if they go to a file.",
            bytes,
        );
    }
}

fn snapshots(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    page.histogram(
        "etcd_snap_fsync_duration_seconds",
        "How long syncs of snapshots took, sent ones included; a large one is synced several times.",
        &api.wal.snapshot_syncs.read(),
    );
    page.histogram(
        "etcd_debugging_snap_save_total_duration_seconds",
        "How long this member's own snapshots took, from the state to a file that a start can use.",
        &status.snapshots().read(),
    );
    let Some(last) = status.last_snapshot() else {
        return;
    };
    page.gauge(
        "edgetcd_snapshot_last_bytes",
        "Of the last of those.",
        last.bytes,
    );
    page.gauge(
        "edgetcd_snapshot_last_duration_seconds",
        "How long that took.",
        last.took.as_secs_f64(),
    );
    page.gauge(
        "edgetcd_snapshot_last_timestamp_seconds",
        "When it was finished, since 1970.",
        seconds(last.at),
    );
}

fn space(api: &Api, page: &mut Page) {
    let (data, wal) = (&api.info.data_dir, api.info.wal_dir.as_deref());
    let places: Vec<(&str, &Path)> = [("data", data.as_path())]
        .into_iter()
        .chain(wal.map(|dir| ("wal", dir)))
        .collect();
    let dirs: Vec<&Path> = places.iter().map(|(_, dir)| *dir).collect();
    let occupied = process::occupied_bytes(&dirs);
    for name in [
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_debugging_mvcc_db_total_size_in_bytes",
    ] {
        page.gauge(
            name,
            "Here: what the log and the snapshots take of the disk.",
            occupied,
        );
    }
    let rooms: Vec<(&str, process::Room)> = places
        .iter()
        .filter_map(|(name, dir)| Some((*name, process::room(dir)?)))
        .collect();
    let mut family = page.gauges(
        "edgetcd_disk_free_bytes",
        "Left on the file system of this folder for a process that is not root.",
    );
    for (name, room) in &rooms {
        family.sample(&[("dir", name)], room.free_bytes);
    }
    let mut family = page.gauges("edgetcd_disk_size_bytes", "The size of that file system.");
    for (name, room) in &rooms {
        family.sample(&[("dir", name)], room.bytes);
    }
}

fn clients(api: &Api, page: &mut Page) {
    let Some(counters) = api.http_server.get() else {
        return;
    };
    let http_server = counters.read();
    page.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Here: bytes that came in by the client port, all of it HTTP.",
        http_server.received_bytes,
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Here: bytes that went out by the client port, all of it HTTP.",
        http_server.sent_bytes,
    );
    page.gauge(
        "edgetcd_http_connections",
        "Clients' connections open now.",
        http_server.open,
    );
    page.counter(
        "edgetcd_http_connections_total",
        "Clients' connections accepted.",
        http_server.accepted,
    );
    page.counter(
        "edgetcd_http_refused_total",
        "Connections refused because too many were open.",
        http_server.refused,
    );
    page.counter(
        "edgetcd_http_requests_total",
        "Requests of any kind.",
        http_server.requests,
    );
    page.gauge(
        "edgetcd_streams_unsent_bytes",
        "Events that streams have not sent to their clients yet; an event counts once.",
        http_server.streams_bytes,
    );
    page.counter(
        "edgetcd_streams_cut_total",
        "Streams cut because these events used too much memory.",
        http_server.streams_cut,
    );
}

fn peers(api: &Api, page: &mut Page) {
    let own = format!("{:x}", api.replica.status().id().0);
    let all = api.traffic.all();
    let all: Vec<(String, crate::peer::PeerStats)> = all
        .into_iter()
        .map(|(id, stats)| (format!("{:x}", id.0), stats))
        .collect();
    let mut family = page.gauges(
        "etcd_network_active_peers",
        "Whether messages can go to that member and come from it.",
    );
    for (id, stats) in &all {
        let both = stats.sent.since.is_some() && stats.received.since.is_some();
        family.sample(&[("Local", &own), ("Remote", id)], u8::from(both));
    }
    let mut family = page.counters(
        "etcd_network_peer_sent_bytes_total",
        "Messages to that member, without snapshots.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.sent.bytes);
    }
    let mut family = page.counters(
        "etcd_network_peer_received_bytes_total",
        "Messages from that member, without snapshots.",
    );
    for (id, stats) in &all {
        family.sample(&[("From", id)], stats.received.bytes);
    }
    let mut family = page.counters(
        "etcd_network_peer_sent_failures_total",
        "Messages to that member that found no room or no connection.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.dropped);
    }
    let mut family = page.counters(
        "edgetcd_snapshots_sent_total",
        "Snapshots that this member has sent to that one, and that it has installed.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.snapshots);
    }
    let mut family = page.counters(
        "edgetcd_snapshots_send_failures_total",
        "Snapshots that could not be sent to that member, or that it could not use, as with a full disk.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.snapshot_failures);
    }
    let mut family = page.histograms(
        "etcd_network_peer_round_trip_time_seconds",
        "From a heartbeat of this member, while it led, to its answer.",
    );
    for (id, times) in api.replica.status().round_trips() {
        let id = format!("{:x}", id.0);
        family.observed(&[("To", &id)], &times.read());
    }
}

fn process(api: &Api, page: &mut Page) {
    let usage = process::read();
    page.counter(
        "process_cpu_seconds_total",
        "User and system time.",
        usage.cpu.as_secs_f64(),
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Memory in use.",
        usage.resident_bytes,
    );
    page.gauge(
        "process_virtual_memory_bytes",
        "Addresses in use.",
        usage.virtual_bytes,
    );
    page.gauge(
        "process_open_fds",
        "Open descriptors.",
        process::open_descriptors(),
    );
    page.gauge(
        "process_max_fds",
        "Descriptors allowed.",
        crate::http1::descriptor_limit(),
    );
    page.gauge("process_threads", "Threads.", usage.threads);
    page.gauge(
        "process_start_time_seconds",
        "Start, seconds since 1970.",
        seconds(api.info.started),
    );
}
