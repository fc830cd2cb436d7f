//! `/metrics`: numbers in Prometheus' text format, under etcd's names where etcd has one (spec §14).

use super::Api;
use super::cors::Grant;
use crate::door::{Answer, Reply};
use crate::usage;
use crate::wal::WalStats;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Any method is answered, as in the reference.
pub fn handle(api: &Api, grant: &Grant, reply: Reply<'_>) {
    let mut page = Page::default();
    raft(api, &mut page);
    store(api, &mut page);
    disk(&api.wal, &mut page);
    door(api, &mut page);
    process(api, &mut page);
    let answer = Answer::new(200)
        .header("Content-Type", CONTENT_TYPE)
        .body(page.text.into_bytes());
    reply.send(grant.onto(answer));
}

/// The page as it grows.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "gauge");
        self.line(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "counter");
        self.line(name, value);
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: impl Display, value: impl Display) {
        let _ = writeln!(self.text, "{name} {value}");
    }
}

fn raft(api: &Api, page: &mut Page) {
    let status = api.replica.status();
    let led = u8::from(status.leader().is_some());
    let leads = u8::from(status.is_leader());
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", led);
    page.gauge("etcd_server_is_leader", "Whether this member leads.", leads);
    let changes = status.leader_changes();
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Leaders seen since the start.",
        changes,
    );
    let (committed, applied) = (status.commit().0, status.applied().0);
    page.gauge(
        "etcd_server_proposals_committed_total",
        "Last committed entry.",
        committed,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "Last applied entry.",
        applied,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Requests that wait.",
        status.proposals_pending(),
    );
    let failed = status.proposals_failed();
    page.counter(
        "etcd_server_proposals_failed_total",
        "Requests answered with error 300.",
        failed,
    );
    let full = u8::from(status.disk_full());
    page.gauge(
        "edgetcd_disk_full",
        "Whether writes are refused for want of space.",
        full,
    );
}

fn store(api: &Api, page: &mut Page) {
    let view = api.hub.view();
    let stats = view.tree.stats();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let reads = read(&api.reads.success) + read(&api.reads.fail);
    page.family(
        "etcd_debugging_store_reads_total",
        "Reads answered by this member.",
        "counter",
    );
    page.line("etcd_debugging_store_reads_total{action=\"get\"}", reads);
    page.family(
        "etcd_debugging_store_writes_total",
        "Writes applied, refused ones included.",
        "counter",
    );
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
    for (action, count) in writes {
        page.line(
            format_args!("etcd_debugging_store_writes_total{{action=\"{action}\"}}"),
            count,
        );
    }
    page.counter(
        "etcd_debugging_store_expires_total",
        "Expired nodes.",
        stats.expire_count,
    );
    page.gauge(
        "etcd_debugging_store_watchers",
        "Long polls parked now.",
        api.hub.watchers(),
    );
}

fn disk(wal: &WalStats, page: &mut Page) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let name = "etcd_disk_wal_fsync_duration_seconds";
    page.family(name, "How long syncs of the log took.", "histogram");
    let mut sum = 0;
    for (bound, bucket) in WalStats::sync_bounds().iter().zip(&wal.sync_buckets) {
        sum += read(bucket);
        page.line(format_args!("{name}_bucket{{le=\"{bound}\"}}"), sum);
    }
    let beyond = wal.sync_buckets.last().map_or(0, read);
    page.line(format_args!("{name}_bucket{{le=\"+Inf\"}}"), sum + beyond);
    page.line(format_args!("{name}_sum"), read(&wal.sync_ns) as f64 / 1e9);
    page.line(format_args!("{name}_count"), sum + beyond);
    page.counter(
        "edgetcd_wal_bytes_total",
        "Bytes of records written to the log.",
        read(&wal.bytes_written),
    );
    page.gauge(
        "edgetcd_wal_segments",
        "Files of the log in use.",
        read(&wal.segments),
    );
}

fn door(api: &Api, page: &mut Page) {
    let Some(counters) = api.door.get() else {
        return;
    };
    let door = counters.read();
    page.gauge(
        "edgetcd_http_connections",
        "Connections open now.",
        door.open,
    );
    page.counter(
        "edgetcd_http_connections_total",
        "Connections accepted.",
        door.accepted,
    );
    page.counter(
        "edgetcd_http_refused_total",
        "Connections refused at the cap.",
        door.refused,
    );
    page.counter(
        "edgetcd_http_requests_total",
        "Requests handled.",
        door.requests,
    );
}

fn process(api: &Api, page: &mut Page) {
    let usage = usage::read();
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
        usage::open_descriptors(),
    );
    page.gauge(
        "process_max_fds",
        "Descriptors allowed.",
        crate::door::descriptor_limit(),
    );
    page.gauge("process_threads", "Threads.", usage.threads);
    let started = api
        .info
        .started
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    page.gauge(
        "process_start_time_seconds",
        "Start, seconds since 1970.",
        started,
    );
}
