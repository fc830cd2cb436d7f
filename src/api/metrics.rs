//! `/metrics`: metrics in Prometheus' text format. Where etcd has a metric, its name is used (spec §14), so that etcd's
//! published dashboards work with this server. Other metrics are named `edgetcd_…`.
//!
//! Some of etcd's metrics have no exact equivalent here. A metric that dashboards use keeps its name, and its `HELP`
//! describes what it measures here. The disk of the keys is the log with its snapshots. A backend commit is a batch that was
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
    let help = "The id of this member.";
    one("etcd_server_id", help, "server_id", &id);
    let help = "The version of etcd whose API this is.";
    one("etcd_server_version", help, "server_version", ETCD_VERSION);
    let help = "The minor version of etcd whose API this is.";
    one("etcd_cluster_version", help, "cluster_version", cluster);
    let help = "The version of edgetcd.";
    one("edgetcd_build_info", help, "version", own);
}

fn raft(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    let led = u8::from(status.leader().is_some());
    let leads = u8::from(status.is_leader());
    page.gauge(
        "etcd_server_has_leader",
        "Whether this member knows a leader (1) or not (0).",
        led,
    );
    page.gauge(
        "etcd_server_is_leader",
        "Whether this member is the leader (1) or not (0).",
        leads,
    );
    page.gauge(
        "etcd_server_is_learner",
        "Whether this member is a learner, without a vote (1), or a voter (0).",
        u8::from(status.is_learner()),
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Number of leader changes that this process has seen.",
        status.leader_changes(),
    );
    page.gauge(
        "edgetcd_raft_term",
        "The newest raft term that this member knows.",
        status.term().0,
    );
    page.gauge(
        "edgetcd_members",
        "Number of members of the cluster, including learners.",
        status.members().iter().count(),
    );
    page.gauge(
        "edgetcd_learners",
        "Number of learners in the cluster.",
        status.learners(),
    );
}

fn proposals(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    let (applied, committed) = (status.applied().0, status.commit().0);
    page.counter(
        "etcd_server_proposals_committed_total",
        "Index of the last entry that this member knows to be committed.",
        committed,
    );
    page.counter(
        "etcd_server_proposals_applied_total",
        "Index of the last entry that this member has applied.",
        applied,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Number of requests that wait for their entry or for a leader.",
        status.proposals_pending(),
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Number of requests answered with error 300.",
        status.proposals_failed(),
    );
    page.gauge(
        "edgetcd_apply_lag_entries",
        "Number of entries that are committed but not applied yet.",
        committed.saturating_sub(applied),
    );
    page.gauge(
        "edgetcd_apply_lag_seconds",
        "How long the oldest committed entry has waited to be applied, in seconds.",
        status.apply_lag().as_secs_f64(),
    );
    page.gauge(
        "edgetcd_uncommitted_bytes",
        "Bytes of entries that this member has appended as the leader and that are not committed yet.",
        status.uncommitted_bytes(),
    );
    page.gauge(
        "edgetcd_backlog_bytes",
        "Bytes of requests that wait for the raft thread or for a leader.",
        api.replica.backlog_bytes(),
    );
    page.gauge(
        "edgetcd_disk_full",
        "Whether this member refuses writes because its disk is full (1) or not (0).",
        u8::from(status.disk_full()),
    );
    page.gauge(
        "edgetcd_unsafe_no_fsync",
        "Whether this member acknowledges writes that are not on its disk (1, --unsafe-no-fsync) or not (0).",
        u8::from(!api.info.syncs),
    );
}

fn store(api: &Api, page: &mut Page) {
    let view = api.hub.view();
    let stats = view.tree.stats();
    let reads = |recursive| api.counts.reads(true, recursive) + api.counts.reads(false, recursive);
    let mut family = page.counters(
        "etcd_debugging_store_reads_total",
        "Number of nodes that this member has looked up for its clients, including missing ones.",
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
        "Number of writes applied since the cluster was founded, including refused ones.",
    );
    for (action, count) in writes {
        family.sample(&[("action", action)], count);
    }
    page.counter(
        "etcd_debugging_store_expires_total",
        "Number of nodes that have expired since the cluster was founded.",
        stats.expire_count,
    );
    page.counter(
        "etcd_debugging_store_watch_requests_total",
        "Number of watches that clients have requested from this member.",
        api.counts.watches(),
    );
    page.gauge(
        "etcd_debugging_store_watchers",
        "Number of watches that wait for an event now.",
        api.hub.watchers(),
    );
    let history = view.tree.history();
    let (first, last) = (history.first(), history.last());
    page.gauge(
        "edgetcd_history_events",
        "Number of past events that a watch with waitIndex can read.",
        history.len(),
    );
    page.gauge(
        "edgetcd_history_first_index",
        "Index of the oldest past event in the history, 0 if it is empty. A watch with a smaller waitIndex gets error 401.",
        first.map_or(0, |index| index.0),
    );
    page.gauge(
        "edgetcd_history_last_index",
        "Index of the newest past event in the history, 0 if it is empty.",
        last.map_or(0, |index| index.0),
    );
}

fn requests(api: &Api, page: &mut Page) {
    let counts = &api.counts;
    let mut family = page.counters(
        "etcd_http_received_total",
        "Number of requests for keys with valid parameters, without watches. QGET: quorum reads.",
    );
    for method in Method::ALL {
        family.sample(&[("method", method.label())], counts.received(method));
    }
    let mut family = page.counters(
        "etcd_http_failed_total",
        "Number of requests for keys and watches that were answered with an error.",
    );
    for method in Method::ALL {
        for (code, count) in counts.failures(method) {
            let code = code.to_string();
            family.sample(&[("code", &code), ("method", method.label())], count);
        }
    }
    let mut family = page.histograms(
        "etcd_http_successful_duration_seconds",
        "Time from a request for keys to its response. Reads without a quorum: the duration of the worker's whole round.",
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
        "Duration of the syncs of the log.",
        &wal.syncs.read(),
    );
    page.counter(
        "etcd_disk_wal_write_bytes_total",
        "Bytes of records written to the log.",
        read(&wal.bytes_written),
    );
    page.gauge(
        "edgetcd_wal_segments",
        "Number of files of the log that are in use.",
        read(&wal.segments),
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "Here: the time to apply a batch of committed entries to the tree in memory and to publish it.",
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
    let mut family = page.counters(
        "edgetcd_disk_syncs_total",
        "Number of syncs that stored data.",
    );
    family.sample(&[("what", "log")], wal.syncs.read().count());
    family.sample(&[("what", "snapshots")], wal.snapshot_syncs.read().count());
    let accepted = api.replica.status().accepted_bytes();
    page.counter(
        "edgetcd_client_written_bytes_total",
        "Bytes of keys and values in the changes that this member has applied, through whichever member they were requested.",
        accepted,
    );
    page.gauge(
        "edgetcd_disk_bytes_per_client_byte",
        "Bytes written to the disk per byte of keys and values, since the start. NaN before the first change.",
        match accepted {
            0 => f64::NAN,
            accepted => (log + zeros + snapshots) as f64 / accepted as f64,
        },
    );
    if let Some(bytes) = process::written_bytes() {
        page.counter(
            "edgetcd_process_written_bytes_total",
            "Bytes that this process has written to storage, as counted by the kernel, including log lines if they go to a file.",
            bytes,
        );
    }
}

fn snapshots(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    page.histogram(
        "etcd_snap_fsync_duration_seconds",
        "Duration of the syncs of snapshot files, including received snapshots. A large snapshot is synced several times.",
        &api.wal.snapshot_syncs.read(),
    );
    page.histogram(
        "etcd_debugging_snap_save_total_duration_seconds",
        "Duration of this member's own snapshots, until the file is complete.",
        &status.snapshots().read(),
    );
    let Some(last) = status.last_snapshot() else {
        return;
    };
    page.gauge(
        "edgetcd_snapshot_last_bytes",
        "Size of this member's last own snapshot.",
        last.bytes,
    );
    page.gauge(
        "edgetcd_snapshot_last_duration_seconds",
        "Duration of this member's last own snapshot.",
        last.took.as_secs_f64(),
    );
    page.gauge(
        "edgetcd_snapshot_last_timestamp_seconds",
        "Time at which this member's last own snapshot was complete, in seconds since 1970.",
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
            "Here: the disk space that the log and the snapshots use.",
            occupied,
        );
    }
    let rooms: Vec<(&str, process::Room)> = places
        .iter()
        .filter_map(|(name, dir)| Some((*name, process::room(dir)?)))
        .collect();
    let mut family = page.gauges(
        "edgetcd_disk_free_bytes",
        "Free bytes on the file system of this directory, for a process that is not root.",
    );
    for (name, room) in &rooms {
        family.sample(&[("dir", name)], room.free_bytes);
    }
    let mut family = page.gauges(
        "edgetcd_disk_size_bytes",
        "Size of the file system of this directory.",
    );
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
        "Here: bytes received on the client port (HTTP).",
        http_server.received_bytes,
    );
    page.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Here: bytes sent on the client port (HTTP).",
        http_server.sent_bytes,
    );
    page.gauge(
        "edgetcd_http_connections",
        "Number of open client connections.",
        http_server.open,
    );
    page.counter(
        "edgetcd_http_connections_total",
        "Number of accepted client connections.",
        http_server.accepted,
    );
    page.counter(
        "edgetcd_http_refused_total",
        "Number of client connections that were refused because too many were open.",
        http_server.refused,
    );
    page.counter(
        "edgetcd_http_requests_total",
        "Number of requests on the client port, of any kind.",
        http_server.requests,
    );
    page.gauge(
        "edgetcd_streams_unsent_bytes",
        "Bytes of events that streams have not sent to their clients yet. An event counts once.",
        http_server.streams_bytes,
    );
    page.counter(
        "edgetcd_streams_cut_total",
        "Number of streams that were closed because unsent events used too much memory.",
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
        "Whether the connections to and from that member are open (1) or not (0).",
    );
    for (id, stats) in &all {
        let both = stats.sent.since.is_some() && stats.received.since.is_some();
        family.sample(&[("Local", &own), ("Remote", id)], u8::from(both));
    }
    let mut family = page.counters(
        "etcd_network_peer_sent_bytes_total",
        "Bytes of messages sent to that member, without snapshots.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.sent.bytes);
    }
    let mut family = page.counters(
        "etcd_network_peer_received_bytes_total",
        "Bytes of messages received from that member, without snapshots.",
    );
    for (id, stats) in &all {
        family.sample(&[("From", id)], stats.received.bytes);
    }
    let mut family = page.counters(
        "etcd_network_peer_sent_failures_total",
        "Number of messages to that member that were dropped, because its queue was full or there was no connection.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.dropped);
    }
    let mut family = page.counters(
        "edgetcd_snapshots_sent_total",
        "Number of snapshots that this member has sent and that member has installed.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.snapshots);
    }
    let mut family = page.counters(
        "edgetcd_snapshots_send_failures_total",
        "Number of snapshots that could not be sent to that member, or that it could not install, for example with a full disk.",
    );
    for (id, stats) in &all {
        family.sample(&[("To", id)], stats.snapshot_failures);
    }
    let mut family = page.histograms(
        "etcd_network_peer_round_trip_time_seconds",
        "Time from a heartbeat of this member as the leader to the reply of that member.",
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
        "User and system CPU time in seconds.",
        usage.cpu.as_secs_f64(),
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        usage.resident_bytes,
    );
    page.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        usage.virtual_bytes,
    );
    page.gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        process::open_descriptors(),
    );
    page.gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        crate::http1::descriptor_limit(),
    );
    page.gauge("process_threads", "Number of threads.", usage.threads);
    page.gauge(
        "process_start_time_seconds",
        "Start time of the process, in seconds since 1970.",
        seconds(api.info.started),
    );
}
