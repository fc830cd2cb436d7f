//! etcd's v2 API over HTTP: the paths, checks and responses of the client port (spec §1–§14).
//!
//! | file | purpose |
//! |---|---|
//! | [`target`] | decodes and cleans the path |
//! | [`form`], `content_type`, [`params`] | names and values of a request, checked in the contract's order |
//! | `route`, `access` | the endpoint of a path and the rights that it needs; the sender of a request and its rights |
//! | `passwords`, `waiting`, `json_body` | hashes of passwords, and which of them wait; JSON as Go reads it |
//! | `keys` | `/v2/keys`: writes, reads, watches |
//! | `members`, `stats`, `auth`, `process`, `metrics` | the other endpoints |
//! | `snapshot` | `/edgetcd/snapshot`: a backup |
//! | [`trace`] | `/edgetcd/trace`: what raft does, as a stream of lines |
//! | [`status`] | `/edgetcd/status`: the state of raft |
//! | [`search`], [`past`], `query` | `/edgetcd/keys` and `/edgetcd/history`: keys and earlier values, page by page |
//! | `browser` | `/`: the page for browsers |
//! | `slices` | long bodies, rendered as they are sent |
//! | `peers` | the endpoints of the peer port |
//! | [`counts`] | counts and times the requests |
//! | [`cors`], [`answer`] | headers and bodies that several responses share |
//!
//! # The order of checks
//!
//! Host (421) → a path that cannot be decoded (400) → a very deep path (414) → OPTIONS (200, any path and `*`) → a
//! write by a web page of another origin (403) → a path that is not clean (301) → the route (404) → credentials (401) →
//! the method (405) → the checks of the endpoint. The key space checks its parameters before it refuses a request whose
//! user may not access the key, as the reference does.
//!
//! No function here waits. A read is answered from the newest view. For a write or a quorum read, the reply object is
//! passed on together with the request. A watch is stored in the watch hub.

mod access;
pub mod answer;
mod auth;
mod browser;
mod content_type;
pub mod cors;
pub mod counts;
pub mod form;
mod json_body;
mod keys;
mod members;
mod metrics;
mod outbox;
pub mod params;
pub mod passwords;
pub mod past;
pub mod peers;
mod probes;
mod process;
mod query;
mod route;
pub mod search;
mod slices;
mod snapshot;
mod stats;
pub mod status;
pub mod target;
pub mod trace;
mod waiting;

use crate::http1::{Answer, Counters, Handler, Reply, Request};
use crate::replica::clock::SharedEstimate;
use crate::storage::clock::Clock;
use crate::wal::WalStats;
use answer::ClusterId;
use cors::{Cors, Grant};
use counts::Counts;
pub use outbox::{Replica, WatchHub};
use passwords::Passwords;
use route::Route;
use stats::Page;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime};
use target::Target;

/// What the endpoints need to answer requests.
pub struct Api {
    /// Accepts writes and quorum reads; knows the leader.
    pub replica: Replica,
    /// Holds the newest view, for plain reads, and the waiting watches.
    pub hub: Arc<WatchHub>,
    /// The current cluster time, from which a read computes the remaining `ttl`.
    pub estimate: Arc<SharedEstimate>,
    /// Time since boot, the input of `estimate`.
    pub clock: Arc<dyn Clock>,
    /// The WAL's counters, for `/metrics`.
    pub wal: Arc<WalStats>,
    /// The cluster's id. It never changes.
    pub cluster: ClusterId,
    /// `--cors`: the origins whose web pages may read responses and write.
    pub cors: Cors,
    /// `--host-whitelist`: a request with another Host gets 421.
    pub hosts: crate::config::Allowed,
    /// Set at the start; shown in `/v2/stats/self` and `/debug/vars`.
    pub info: Info,
    /// This member's own counts. A restart resets them.
    pub counts: Arc<Counts>,
    /// Counters of the traffic from and to other members.
    pub traffic: Arc<crate::peer::Counters>,
    /// The backups that are being sent.
    pub snapshots: Arc<snapshot::Slots>,
    /// The clients that follow the trace.
    pub traces: Arc<trace::Streams>,
    /// `--client-cert-auth`: a request without credentials is one of the user whom the client's certificate names.
    pub client_cert_auth: bool,
    /// Compares and hashes the passwords of users.
    pub passwords: Passwords,
    /// The HTTP server's counters. Set when the server accepts connections.
    pub http_server: OnceLock<Counters>,
    /// A pointer to this value itself, for requests that outlive their handler.
    pub this: Weak<Api>,
}

/// Information about this node.
#[derive(Debug, Clone)]
pub struct Info {
    /// `--name`. Two members may have the same name.
    pub name: String,
    /// Wall-clock time of the start of the process: `startTime`.
    pub started: SystemTime,
    /// `--data-dir`, to measure how full its disk is.
    pub data_dir: PathBuf,
    /// `--wal-dir` if it is elsewhere, for the same purpose.
    pub wal_dir: Option<PathBuf>,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// The time between two ticks of raft.
    pub tick: Duration,
    /// False with `--unsafe-no-fsync`: writes are acknowledged before they are on the disk.
    pub syncs: bool,
}

impl Api {
    fn shared(&self) -> Arc<Api> {
        self.this
            .upgrade()
            .expect("the HTTP server that calls this holds it")
    }
}

impl Handler for Api {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        if let Some(refusal) = self.refuse_host(request) {
            return reply.send(refusal);
        }
        let grant = self.cors.grant(request);
        if request.path() == b"*" {
            return reply.send(asterisk(request, &grant));
        }
        let target = target::target(request.path(), request.query());
        match target {
            Target::Malformed => return reply.send(Answer::bad_request()),
            Target::TooDeep => return reply.send(answer::text(414, "414 URI Too Long\n", &grant)),
            _ => {}
        }
        if request.method() == "OPTIONS" {
            return reply.send(grant.onto(Answer::new(200)));
        }
        if self.cors.refuses(request) {
            return reply.send(answer::text(403, FOREIGN_ORIGIN, &grant));
        }
        match target {
            Target::Clean(path) => self.route(request, Route::of(&path), grant, reply),
            Target::Redirect(location) => reply.send(redirect(request, &location, &grant)),
            Target::Malformed | Target::TooDeep => unreachable!("answered above"),
        }
    }

    /// The writes and quorum reads of a round are handed over together.
    fn round(&self, worker: usize, took: Duration) {
        self.replica.wake();
        self.counts.round(worker, took);
    }

    /// A supervisor on this machine must not conclude from too many clients that the node is dead.
    fn is_vital(&self, request: &Request<'_>) -> bool {
        is_vital(request)
    }
}

fn is_vital(request: &Request<'_>) -> bool {
    let paths = [b"/health".as_slice(), b"/livez", b"/readyz", b"/metrics"];
    matches!(request.method(), "GET" | "HEAD") && paths.contains(&request.path())
}

/// The endpoints of `--listen-metrics-urls`: metrics and health checks only. As in the reference, `--host-whitelist` does not
/// apply, because a probe knows an address and no name.
pub struct MetricsOnly(pub Arc<Api>);

impl Handler for MetricsOnly {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        let (api, grant) = (&self.0, Grant::Nothing);
        match request.path() {
            b"/metrics" => metrics::handle(api, &grant, reply),
            b"/health" => process::health(api, request, grant, reply),
            b"/livez" => probes::livez(api, request, &grant, reply),
            b"/readyz" => probes::readyz(api, request, grant, reply),
            _ => reply.send(answer::not_found(&grant)),
        }
    }

    fn is_vital(&self, request: &Request<'_>) -> bool {
        is_vital(request)
    }
}

/// If there is a whitelist, a longer Host header is refused. Names have at most 253 bytes.
const HOST_BYTES_MAX: usize = 512;

const FOREIGN_ORIGIN: &str =
    "403 Forbidden: this write comes from a page of another origin; --cors=ORIGIN admits it\n";

impl Api {
    fn route(&self, request: &Request<'_>, route: Route<'_>, grant: Grant, reply: Reply<'_>) {
        let Some((access, reply)) = self.admit(request, route, &grant, reply) else {
            return;
        };
        match route {
            Route::Keys(rest) => keys::handle(self, request, rest, &access, grant, reply),
            Route::Members(rest) => members::handle(self, request, rest, &grant, reply),
            Route::AuthEnable
            | Route::Users
            | Route::User(_)
            | Route::Roles
            | Route::Role(_)
            | Route::AuthInvalid => auth::handle(self, request, route, &grant, reply),
            Route::Machines => members::machines(self, request, &grant, reply),
            Route::StatsSelf => stats::handle(self, request, Page::Itself, &grant, reply),
            Route::StatsLeader => stats::handle(self, request, Page::Leader, &grant, reply),
            Route::StatsStore => stats::handle(self, request, Page::Store, &grant, reply),
            Route::Version => process::version(request, &grant, reply),
            Route::Health => process::health(self, request, grant, reply),
            Route::Livez => probes::livez(self, request, &grant, reply),
            Route::Readyz => probes::readyz(self, request, grant, reply),
            Route::Vars => process::vars(self, request, &grant, reply),
            Route::LogLevel => process::log_level(request, &grant, reply),
            Route::Snapshot => snapshot::handle(self, request, grant, reply),
            Route::Trace => trace::handle(self, request, &grant, reply),
            Route::Status => status::handle(self, request, &grant, reply),
            Route::Search => search::handle(self, request, &access, &grant, reply),
            Route::Past => past::handle(self, request, &access, &grant, reply),
            Route::Metrics => metrics::handle(self, &grant, reply),
            Route::Page => browser::handle(self, request, &grant, reply),
            Route::Unknown => reply.send(answer::not_found(&grant)),
        }
    }

    /// Returns 421 for a Host that `--host-whitelist` does not contain.
    fn refuse_host(&self, request: &Request<'_>) -> Option<Answer> {
        if self.hosts == crate::config::Allowed::Anybody {
            return None;
        }
        let host = request.authority();
        let shown = String::from_utf8_lossy(&host[..host.len().min(HOST_BYTES_MAX)]).into_owned();
        let name = without_port(&shown);
        let is_admitted = self.hosts.admits(name) || self.hosts.admits(&shown);
        if is_admitted && host.len() <= HOST_BYTES_MAX {
            return None;
        }
        let body = format!("421 Misdirected Request: --host-whitelist does not name {name:?}\n");
        Some(answer::text(421, &body, &Grant::Nothing))
    }
}

/// `OPTIONS *` asks about the server as a whole. Web pages of other origins need no answer to it, and no other method
/// has this target. Both responses are those of the reference.
fn asterisk(request: &Request<'_>, grant: &Grant) -> Answer {
    match request.method() {
        "OPTIONS" => Answer::new(200),
        _ => grant.onto(Answer::new(400)).closing(),
    }
}

/// The name or address in a Host header.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Redirects (301) to the cleaned path. The request is not executed.
fn redirect(request: &Request<'_>, location: &str, grant: &Grant) -> Answer {
    let answer = grant.onto(Answer::new(301).header("Location", location));
    if !matches!(request.method(), "GET" | "HEAD") {
        return answer;
    }
    let answer = answer.header("Content-Type", "text/html; charset=utf-8");
    if request.method() == "HEAD" {
        return answer;
    }
    let escaped = escape_html(location);
    answer.body(format!("<a href=\"{escaped}\">Moved Permanently</a>.\n\n").into_bytes())
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        escaped.push_str(&rest[..at]);
        escaped.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&#34;",
            _ => "&#39;",
        });
        rest = &rest[at + 1..];
    }
    escaped.push_str(rest);
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_their_port() {
        let table = [
            ("a:1", "a"),
            ("a", "a"),
            ("[::1]:2379", "::1"),
            ("[::1]", "::1"),
            ("", ""),
        ];
        for (host, wanted) in table {
            assert_eq!(without_port(host), wanted);
        }
    }
}
