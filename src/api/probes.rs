//! `/livez` and `/readyz`: whether a supervisor should restart this member, and whether it should send clients to it.
//! The format is that of Kubernetes and of later versions of etcd; etcd's v2 API does not have these paths.
//!
//! | path | check | fails if |
//! |---|---|---|
//! | `/livez` | `raft` | the raft thread has not run for ten seconds |
//! | `/readyz` | `leader` | this member knows no leader |
//! | | `voter` | this member is a learner: it has not caught up yet |
//! | | `disk_space` | writes are refused because the disk is full |
//! | | `disk_sync` | the disk has not stored a batch within the request timeout |
//! | | `read_index` | the leader does not confirm a quorum read within a second |
//!
//! All checks pass: 200 and `ok`. One fails: 503, one line for each check with the reason, and a last line. `?verbose`
//! shows the lines in both cases, and `?exclude=NAME` leaves a check out, any number of times. A restart cures no full
//! disk and no lost majority, so `/livez` does not check them.

use super::Api;
use super::answer;
use super::cors::Grant;
use super::process::HEALTH_TIMEOUT;
use super::query::Query;
use crate::engine::time::Monotonic;
use crate::http1::{Answer, Outbox, Reply, Request, Ticket};
use crate::replica::{Failure, Reader, Status};
use crate::watch::View;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

const READ_INDEX: &str = "read_index";

/// A check that has been made.
struct Checked {
    name: &'static str,
    /// Why it fails.
    failed: Option<&'static str>,
}

/// The checks of one request, and how to print them.
struct Report {
    of: &'static str,
    checks: Vec<Checked>,
    verbose: bool,
    exclude: Vec<Vec<u8>>,
}

impl Report {
    fn new(of: &'static str, request: &Request<'_>) -> Report {
        let query = Query::new(request.query());
        Report {
            of,
            checks: Vec::new(),
            verbose: query.first("verbose").is_some(),
            exclude: query.all("exclude").collect(),
        }
    }

    /// Whether the client wants this check.
    fn wants(&self, name: &str) -> bool {
        !self
            .exclude
            .iter()
            .any(|excluded| excluded == name.as_bytes())
    }

    /// Adds a check. `failed` is the reason to print if it fails.
    fn add(&mut self, name: &'static str, is_failed: bool, failed: &'static str) {
        if self.wants(name) {
            let failed = is_failed.then_some(failed);
            self.checks.push(Checked { name, failed });
        }
    }

    fn passes(&self) -> bool {
        self.checks.iter().all(|check| check.failed.is_none())
    }

    fn answer(&self, grant: &Grant) -> Answer {
        let passes = self.passes();
        let status = if passes { 200 } else { 503 };
        answer::text(status, &self.text(), grant).header("Cache-Control", "no-store")
    }

    fn text(&self) -> String {
        let passes = self.passes();
        if passes && !self.verbose {
            return "ok\n".to_owned();
        }
        let mut text = String::new();
        for Checked { name, failed } in &self.checks {
            let _ = match failed {
                None => writeln!(text, "[+]{name} ok"),
                Some(reason) => writeln!(text, "[-]{name} failed: {reason}"),
            };
        }
        let result = if passes { "passed" } else { "failed" };
        let _ = writeln!(text, "{} check {result}", self.of);
        text
    }
}

/// `/livez`. Waits for no other thread.
pub fn livez(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", grant));
    }
    let mut report = Report::new("livez", request);
    let hangs = api.replica.status().is_raft_stuck(now(api));
    report.add(
        "raft",
        hangs,
        "the raft thread has not run for 10 s; restart this member",
    );
    reply.send(report.answer(grant));
}

/// `/readyz`. Asks for a quorum read only if all other checks pass.
pub fn readyz(api: &Api, request: &Request<'_>, grant: Grant, reply: Reply<'_>) {
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", &grant));
    }
    let mut report = Report::new("readyz", request);
    check(&mut report, api.replica.status(), now(api));
    if !report.passes() || !report.wants(READ_INDEX) {
        return reply.send(report.answer(&grant));
    }
    let ticket = reply.later();
    api.replica.read(Box::new(QuorumRead {
        ticket,
        grant,
        report,
    }));
}

fn now(api: &Api) -> Monotonic {
    api.clock.now().monotonic
}

fn check(report: &mut Report, status: &Status, now: Monotonic) {
    let (no_leader, full) = (status.leader().is_none(), status.disk_full());
    report.add(
        "leader",
        no_leader,
        "no leader is known; are a majority of the members running and connected?",
    );
    report.add(
        "voter",
        status.is_learner(),
        "this member is a learner; it becomes a voter when it has caught up",
    );
    report.add(
        "disk_space",
        full,
        "the disk is full and writes are refused; free space on it",
    );
    report.add(
        "disk_sync",
        status.is_disk_stuck(now),
        "the disk has not stored a batch within the request timeout",
    );
}

struct QuorumRead {
    ticket: Ticket,
    grant: Grant,
    report: Report,
}

impl QuorumRead {
    fn end(mut self, is_failed: bool, outbox: &mut Outbox) {
        self.report.add(
            READ_INDEX,
            is_failed,
            "the leader did not confirm a quorum read within 1 s",
        );
        let answer = self.report.answer(&self.grant);
        self.ticket.send_in(answer, outbox);
    }
}

impl Reader<Outbox> for QuorumRead {
    fn ready(self: Box<Self>, _: &Arc<View>, outbox: &mut Outbox) {
        self.end(false, outbox);
    }

    fn failed(self: Box<Self>, _: Failure, outbox: &mut Outbox) {
        self.end(true, outbox);
    }

    fn patience(&self) -> Option<Duration> {
        Some(HEALTH_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verbose: bool, exclude: &[&str]) -> Report {
        let exclude = exclude.iter().map(|name| name.as_bytes().to_vec());
        let mut report = Report {
            of: "readyz",
            checks: Vec::new(),
            verbose,
            exclude: exclude.collect(),
        };
        report.add("leader", false, "there is none");
        report.add("disk_space", true, "there is none left");
        report
    }

    #[test]
    fn a_failed_check_has_a_reason() {
        let failed =
            "[+]leader ok\n[-]disk_space failed: there is none left\nreadyz check failed\n";
        for verbose in [false, true] {
            let report = report(verbose, &["raft"]);
            assert_eq!((report.passes(), report.text().as_str()), (false, failed));
        }
    }

    #[test]
    fn an_excluded_check_is_not_made() {
        let brief = report(false, &["disk_space"]);
        assert_eq!((brief.passes(), brief.text().as_str()), (true, "ok\n"));
        let all = report(true, &["disk_space"]).text();
        assert_eq!(all, "[+]leader ok\nreadyz check passed\n");
        let none = report(true, &["leader", "disk_space"]).text();
        assert_eq!(none, "readyz check passed\n");
    }
}
