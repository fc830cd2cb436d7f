//! The head of a connection between members: who dials, whom it means, and why it may be refused.
//!
//! ```text
//!   GET /raft/stream HTTP/1.1              HTTP/1.1 101 Switching Protocols
//!   Host: 10.0.0.2:2380                    Connection: Upgrade
//!   Connection: Upgrade                    Upgrade: edgetcd-raft
//!   Upgrade: edgetcd-raft                  X-Edgetcd-Incarnation: 8f3c…
//!   X-Edgetcd-Protocol: 1
//!   X-Edgetcd-Cluster: 7dd4bd04f5146e69
//!   X-Edgetcd-From: e9f7ea66e338d192
//!   X-Edgetcd-Incarnation: 51c0…
//!   X-Edgetcd-To: 61520bddc54224e5
//!   X-Edgetcd-Urls: http://10.0.0.1:2380   (where the sender is reached)
//!   X-Edgetcd-Term: 7                      (a snapshot's only)
//! ```
//!
//! Ids and incarnations are hex, version and term decimal. Both ends look at the other's incarnation: a
//! member without its data shall hear no leader either. A refusal is a status with a line of text; one to
//! a member that was removed names it in `X-Edgetcd-Removed` beside the cluster, so that no stranger's 410
//! ends a node.

use super::frame::VERSION;
use super::table::Known;
use crate::door::{Answer, Request};
use crate::ids;
use crate::raft::{NodeId, Term};
use crate::urls::Url;
use std::fmt;

/// Letters, for as long as both ends live.
pub(super) const STREAM_PATH: &str = "/raft/stream";
/// One snapshot.
pub(super) const SNAPSHOT_PATH: &str = "/raft/snapshot";

/// What `Upgrade` names, in both directions.
pub(super) const PROTOCOL: &str = "edgetcd-raft";

pub(super) const INCARNATION: &str = "X-Edgetcd-Incarnation";
pub(super) const REMOVED: &str = "X-Edgetcd-Removed";
pub(super) const CLUSTER: &str = "X-Edgetcd-Cluster";
const VERSION_HEADER: &str = "X-Edgetcd-Protocol";
const FROM: &str = "X-Edgetcd-From";
const TO: &str = "X-Edgetcd-To";
const TERM: &str = "X-Edgetcd-Term";
const URLS: &str = "X-Edgetcd-Urls";

/// More peer URLs than any member has.
const URLS_MAX: usize = 16;

/// This member, as it says hello.
#[derive(Debug, Clone, Copy)]
pub(super) struct Me {
    pub cluster: u64,
    pub id: NodeId,
    pub incarnation: u64,
}

/// What the head of a connection says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub from: NodeId,
    pub incarnation: u64,
    /// Where it says it is reached: for a receiver whose table does not have it yet.
    pub urls: Vec<String>,
    /// Of the leader that sends a snapshot.
    pub term: Option<Term>,
}

/// Why somebody is refused.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    Malformed(&'static str),
    Version(u64),
    Cluster {
        theirs: u64,
        ours: u64,
    },
    /// It means another member.
    NotMe {
        meant: NodeId,
        me: NodeId,
    },
    Removed(NodeId),
    Unknown(NodeId),
    /// Its incarnation is not the one that it is known by.
    LostItsData(NodeId, Box<Known>),
    /// Another snapshot is coming in.
    Busy,
    Stopping,
}

impl Me {
    /// The request that begins a connection to `to`; `urls` are this member's own.
    pub fn request(
        &self,
        path: &str,
        authority: &str,
        to: NodeId,
        term: Option<Term>,
        urls: &[String],
    ) -> Vec<u8> {
        let Me {
            cluster,
            id,
            incarnation,
        } = self;
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\
             {VERSION_HEADER}: {VERSION}\r\n{CLUSTER}: {cluster:x}\r\n{FROM}: {:x}\r\n\
             {INCARNATION}: {incarnation:x}\r\n{TO}: {:x}\r\n",
            id.0, to.0
        );
        if !urls.is_empty() {
            head += &format!("{URLS}: {}\r\n", urls.join(","));
        }
        if let Some(Term(term)) = term {
            head += &format!("{TERM}: {term}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    /// The head of the 101.
    pub fn welcome(&self) -> Answer {
        Answer::new(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", PROTOCOL)
            .header(INCARNATION, ids::hex(self.incarnation))
    }

    /// Reads the head of a connection that is meant for this member of this cluster.
    pub fn read(&self, request: &Request<'_>) -> Result<Hello, Refusal> {
        let upgrade = request.header("upgrade").unwrap_or_default();
        if request.method() != "GET" || !upgrade.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
            return Err(Refusal::Malformed(
                "it does not ask for an upgrade to edgetcd-raft",
            ));
        }
        // The version first: another one may say the rest in other words.
        let version = number(request, VERSION_HEADER)?;
        if version != u64::from(VERSION) {
            return Err(Refusal::Version(version));
        }
        let theirs = id(request, CLUSTER)?;
        if theirs != self.cluster {
            let ours = self.cluster;
            return Err(Refusal::Cluster { theirs, ours });
        }
        let (meant, me) = (NodeId(id(request, TO)?), self.id);
        if meant != me {
            return Err(Refusal::NotMe { meant, me });
        }
        let term = request.header(TERM).map(|_| number(request, TERM));
        Ok(Hello {
            from: NodeId(id(request, FROM)?),
            incarnation: id(request, INCARNATION)?,
            urls: urls(request)?,
            term: term.transpose()?.map(Term),
        })
    }
}

fn text<'a>(request: &Request<'a>, name: &'static str) -> Result<&'a str, Refusal> {
    request
        .header(name)
        .and_then(|value| std::str::from_utf8(value).ok())
        .ok_or(Refusal::Malformed("a header is missing"))
}

fn urls(request: &Request<'_>) -> Result<Vec<String>, Refusal> {
    if request.header(URLS).is_none() {
        return Ok(Vec::new());
    }
    let urls = Url::parse_list(text(request, URLS)?)
        .map_err(|_| Refusal::Malformed("its peer URLs are none"))?;
    let urls = urls.iter().take(URLS_MAX);
    Ok(urls.map(|url| url.as_str().to_owned()).collect())
}

fn id(request: &Request<'_>, name: &'static str) -> Result<u64, Refusal> {
    ids::parse(text(request, name)?).ok_or(Refusal::Malformed("an id is no hex number"))
}

fn number(request: &Request<'_>, name: &'static str) -> Result<u64, Refusal> {
    let parsed = text(request, name)?.parse();
    parsed.map_err(|_| Refusal::Malformed("a header is no number"))
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Unknown(_) => 403,
            Refusal::LostItsData(..) => 409,
            Refusal::Removed(_) => 410,
            Refusal::Cluster { .. } => 412,
            Refusal::NotMe { .. } => 421,
            Refusal::Version(_) => 426,
            Refusal::Busy | Refusal::Stopping => 503,
        }
    }

    /// The answer of `me`.
    pub fn answer(&self, me: &Me) -> Answer {
        let answer = Answer::text(self.status(), format!("{self}\n")).closing();
        match self {
            Refusal::Removed(id) => answer
                .header(REMOVED, ids::hex(id.0))
                .header(CLUSTER, ids::hex(me.cluster)),
            _ => answer,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(what) => write!(f, "this is for members of the cluster, and {what}"),
            Refusal::Version(theirs) => write!(
                f,
                "members speak version {VERSION} of the protocol here, not {theirs}: run the same edgetcd everywhere"
            ),
            Refusal::Cluster { theirs, ours } => write!(
                f,
                "this is a member of the cluster {ours:x}, not of {theirs:x}: check the peer URLs"
            ),
            Refusal::NotMe { meant, me } => write!(
                f,
                "this is the member {:x}, not {:x}: check the peer URLs",
                me.0, meant.0
            ),
            Refusal::Removed(id) => write!(
                f,
                "the member {:x} was removed from the cluster and cannot come back under this id",
                id.0
            ),
            Refusal::Unknown(id) => {
                write!(f, "there is no other member {:x} in this cluster", id.0)
            }
            Refusal::LostItsData(id, known) => lost_its_data(f, *id, known),
            Refusal::Busy => write!(f, "another snapshot is being received"),
            Refusal::Stopping => write!(f, "this member is stopping"),
        }
    }
}

fn lost_its_data(f: &mut fmt::Formatter<'_>, id: NodeId, known: &Known) -> fmt::Result {
    let name = match known.name.as_str() {
        "" => "NAME",
        name => name,
    };
    write!(
        f,
        "the member {id:x} comes with another data directory than the one it was known by: its data was lost, so \
         it must join anew: edgetcdctl member remove {id:x}; edgetcdctl member add {name} {urls}; then start it \
         with an empty --data-dir and --initial-cluster-state existing",
        id = id.0,
        urls = known.urls.join(",")
    )
}
