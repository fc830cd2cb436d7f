//! `/edgetcd/status`: one member's raft state and its knowledge of the others, as JSON. This endpoint is our own; the
//! reference does not have it.
//!
//! | field | meaning |
//! |---|---|
//! | `id`, `name`, `cluster`, `version` | this member, its cluster, the version of edgetcd |
//! | `role` | `leader`, `follower`, `candidate`, `pre-candidate` or `learner` |
//! | `term`, `leader` | the newest term, and the leader's id or null |
//! | `heartbeat_ms`, `election_timeout_ms` | the flags with these names |
//! | `log` | `first` and `last` entry, `stored` (on this disk), `commit`, `applied`, and in `terms` the first index of each term: `[[1,1],[90,3]]` |
//! | `index` | `X-Etcd-Index` of the newest tree |
//! | `auth` | whether authentication is enabled |
//! | `unsafe_no_fsync` | whether writes are acknowledged before they are on the disk: the flag with this name |
//! | `members` | the members by id |
//!
//! A member has `id`, `name`, `client_urls`, `learner`, and `connected`: whether this member has connections to it in
//! both directions. If this member leads, it also has `matched` (its entries up to here are on its disk), `next` (the
//! next entry to send), `sends` (`probe`, `stream` or `snapshot`), `silent_ms` (since its last message, null if there
//! was none), and `rtt_ms` (the last round-trip time of a heartbeat).
//!
//! The response contains no keys, so it needs no credentials. The pages of other members may read it
//! ([`Cors::grant_to_members`](super::cors::Cors::grant_to_members)).

use super::Api;
use super::answer;
use super::cors::Grant;
use crate::engine::followers::Followers;
use crate::engine::members::Member;
use crate::http1::{Reply, Request};
use crate::raft::{NodeId, PeerFlow, PeerProgress, Position, Role};
use crate::replica::Status;
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
struct Page {
    id: String,
    name: String,
    cluster: String,
    version: &'static str,
    role: &'static str,
    term: u64,
    leader: Option<String>,
    heartbeat_ms: u128,
    election_timeout_ms: u128,
    log: Log,
    index: u64,
    auth: bool,
    unsafe_no_fsync: bool,
    members: Vec<Shown>,
}

#[derive(Serialize)]
struct Log {
    first: u64,
    last: u64,
    stored: u64,
    commit: u64,
    applied: u64,
    terms: Vec<(u64, u64)>,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    name: String,
    client_urls: Vec<String>,
    learner: bool,
    connected: bool,
    #[serde(flatten)]
    progress: Option<Progress>,
}

#[derive(Serialize)]
struct Progress {
    matched: u64,
    next: u64,
    sends: &'static str,
    silent_ms: Option<u128>,
    rtt_ms: Option<f64>,
}

/// The terms of a log that are shown: those of the newest entries.
const TERMS_MAX: usize = 64;

/// Answers from what the raft thread publishes. Does not wait for it.
pub fn handle(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    let status = api.replica.status();
    let grant = api.cors.grant_to_members(request, &status.members(), grant);
    if request.method() != "GET" {
        return reply.send(answer::method_not_allowed("GET", &grant));
    }
    let answer = answer::json_line(200, &page(api), &grant);
    reply.send(answer.header("Cache-Control", "no-store"));
}

fn page(api: &Api) -> Page {
    let (status, info) = (api.replica.status(), &api.info);
    Page {
        id: hex(status.id()),
        name: info.name.clone(),
        cluster: api.cluster.text().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        role: role(status),
        term: status.term().0,
        leader: status.leader().map(hex),
        heartbeat_ms: info.heartbeat.as_millis(),
        election_timeout_ms: info.election_timeout.as_millis(),
        log: log(status),
        index: api.hub.view().tree.index().0,
        auth: status.enforced_auth().is_some(),
        unsafe_no_fsync: !info.syncs,
        members: members(api),
    }
}

fn hex(id: NodeId) -> String {
    format!("{:x}", id.0)
}

fn role(status: &Status) -> &'static str {
    match status.role() {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::PreCandidate => "pre-candidate",
        Role::Follower if status.is_learner() => "learner",
        Role::Follower => "follower",
    }
}

fn log(status: &Status) -> Log {
    let shape = status.log();
    let shown = shape.terms.len().saturating_sub(TERMS_MAX);
    let pair = |begin: &Position| (begin.index.0, begin.term.0);
    Log {
        first: shape.base.index.0 + 1,
        last: shape.last.index.0,
        stored: shape.stored.0,
        commit: status.commit().0,
        applied: status.applied().0,
        terms: shape.terms[shown..].iter().map(pair).collect(),
    }
}

fn members(api: &Api) -> Vec<Shown> {
    let status = api.replica.status();
    let (learners, progress) = (status.learner_ids(), status.progress());
    let followers = status.followers();
    let shown = |member: &Member| {
        let id = NodeId(member.id);
        let own = progress.iter().find(|progress| progress.node == id);
        Shown {
            id: hex(id),
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
            learner: learners.contains(&id),
            connected: id == status.id() || api.traffic.connected(id).is_some(),
            progress: own.map(|own| shown_progress(own, &followers, api.info.tick)),
        }
    };
    status.members().iter().map(shown).collect()
}

fn shown_progress(own: &PeerProgress, followers: &Followers, tick: Duration) -> Progress {
    let mut followers = followers.iter();
    let follower = followers.find(|(id, _)| *id == own.node);
    let measured = follower.filter(|(_, follower)| follower.range.is_some());
    Progress {
        matched: own.matched.0,
        next: own.next.0,
        sends: match own.flow {
            PeerFlow::Probe => "probe",
            PeerFlow::Stream => "stream",
            PeerFlow::Snapshot => "snapshot",
        },
        silent_ms: own
            .silent_ticks
            .map(|ticks| u128::from(ticks) * tick.as_millis()),
        rtt_ms: measured.map(|(_, follower)| follower.current),
    }
}
