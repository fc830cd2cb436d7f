//! The handshake: the head of a connection between members. It names the sender and the receiver, and `Refusal` lists
//! the reasons why the receiver may refuse it.
//!
//! ```text
//!   GET /raft/stream HTTP/1.1              HTTP/1.1 101 Switching Protocols
//!   Host: 10.0.0.2:2380                    Connection: Upgrade
//!   Connection: Upgrade                    Upgrade: edgetcd-raft
//!   Upgrade: edgetcd-raft                  X-Edgetcd-Incarnation: 8f3c…
//!   X-Edgetcd-Protocol: 1
//!   X-Edgetcd-Format: 1                    (the newest format of entries that the sender understands)
//!   X-Edgetcd-Cluster: 7dd4bd04f5146e69
//!   X-Edgetcd-From: e9f7ea66e338d192
//!   X-Edgetcd-Incarnation: 51c0…
//!   X-Edgetcd-To: 61520bddc54224e5
//!   X-Edgetcd-Token: 8a1f09…               (the token of the sender's connections to the receiver)
//!   X-Edgetcd-Proof: 0f3b…                 (the sender knows the receiver's incarnation)
//!   X-Edgetcd-Urls: http://10.0.0.1:2380   (the peer URLs of the sender)
//!   X-Edgetcd-Term: 7                      (for a snapshot only)
//! ```
//!
//! Ids and incarnations are hex, version and term are decimal. Both ends check the other's incarnation, because a
//! member that has lost its data must not follow a leader either. A refusal is a status with a line of text. The
//! refusal of a removed member names that member in `X-Edgetcd-Removed`, together with the cluster.
//!
//! # How members recognize each other
//!
//! Any process can connect to the peer port, and ids are public. An incarnation is not public: members learn each
//! other's from the log, and no page shows one. It distinguishes a member from any other process in two ways.
//!
//! - The sender names its own incarnation, which must be the one that the log has published. Before the log has
//!   published one, nothing is known about the sender, and nothing is bound to it.
//! - The *proof* is a SHA-1 over both ids, the token and the receiver's incarnation. A sender that can compute it has
//!   read this cluster's log. Therefore the receiver accepts such a sender even if its table does not contain it yet.
//!
//! The 101 names the receiver's incarnation only to a sender that has shown one of the two. A refusal contains nothing
//! that `/members` on the same port does not contain. The member that refuses logs the details that an operator needs.
//!
//! The *token* lets the receiver ask the sender, at the address in its table, whether a connection is really the
//! sender's (`GET /raft/link`, see `vouch.rs`).
//!
//! A removed member receives its removal with a proof of the same kind over the answering member's own incarnation,
//! which the removed member knows from the log. So only a member can send this answer.

use super::frame::VERSION;
use super::table::Known;
use crate::engine::entry::{FIRST_FORMAT, FORMAT};
use crate::http1::{Answer, Request};
use crate::identity::ids;
use crate::raft::{NodeId, Term};
use crate::urls::Url;
use std::fmt;

/// A stream of peer messages. It lasts as long as both ends.
pub(super) const STREAM_PATH: &str = "/raft/stream";
/// One snapshot.
pub(super) const SNAPSHOT_PATH: &str = "/raft/snapshot";
/// Asks which connections are this member's own. The answer is the digest of their token.
pub(super) const LINK_PATH: &str = "/raft/link";

/// The protocol name in `Upgrade`, in both directions.
pub(super) const PROTOCOL: &str = "edgetcd-raft";

pub(super) const INCARNATION: &str = "X-Edgetcd-Incarnation";
pub(super) const REMOVED: &str = "X-Edgetcd-Removed";
pub(super) const CLUSTER: &str = "X-Edgetcd-Cluster";
const VERSION_HEADER: &str = "X-Edgetcd-Protocol";
const FORMAT_HEADER: &str = "X-Edgetcd-Format";
const FROM: &str = "X-Edgetcd-From";
const TO: &str = "X-Edgetcd-To";
const TERM: &str = "X-Edgetcd-Term";
const URLS: &str = "X-Edgetcd-Urls";
const TOKEN: &str = "X-Edgetcd-Token";
pub(super) const PROOF: &str = "X-Edgetcd-Proof";

/// Limit for the number of peer URLs. Real members have fewer.
const URLS_MAX: usize = 16;

/// How this member identifies itself in a handshake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Me {
    pub cluster: u64,
    pub id: NodeId,
    pub incarnation: u64,
}

/// A connection that is about to be dialled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Greeting<'a> {
    pub path: &'a str,
    pub authority: &'a str,
    /// The term of the leader that sends a snapshot.
    pub term: Option<Term>,
    /// The peer URLs of this member.
    pub urls: &'a [String],
    /// The token of this member's connections to the receiver; 0: none.
    pub token: u64,
    /// The receiver's incarnation, if the log has published it.
    pub known: Option<u64>,
}

/// What a sender proves about the receiver's incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The sender knows no incarnation of this member.
    Missing,
    /// The sender knows this member's incarnation.
    Valid,
    /// The sender knows another incarnation: this member's data directory is not the one that the cluster knows.
    Wrong,
}

/// The content of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handshake {
    pub from: NodeId,
    pub incarnation: u64,
    pub proof: Proof,
    /// The newest format of entries that the sender understands.
    pub format: u16,
    /// The token of the sender's connections to this member. None: the sender runs an earlier version.
    pub token: Option<u64>,
    /// The peer URLs that the sender names. They are used only if the sender has shown that it is a member.
    pub urls: Vec<String>,
    /// The term of the leader that sends a snapshot.
    pub term: Option<Term>,
}

/// Why a handshake is refused.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    Malformed(&'static str),
    Version(u64),
    Cluster {
        theirs: u64,
        ours: u64,
    },
    /// The sender means another member.
    NotMe {
        meant: NodeId,
        me: NodeId,
    },
    Removed(NodeId),
    Unknown(NodeId),
    /// The member must confirm first that the connection is its own, and too many connections already wait for that.
    Unvouched(NodeId),
    /// The sender's incarnation is not the one that the log has published for it.
    LostItsData(NodeId, Box<Known>),
    /// This member is already receiving another snapshot.
    Busy,
    Stopping,
}

impl Me {
    /// The request that begins a connection to `to`.
    pub fn request(&self, to: NodeId, greeting: &Greeting<'_>) -> Vec<u8> {
        let Me {
            cluster,
            id,
            incarnation,
        } = self;
        let Greeting {
            path,
            authority,
            term,
            urls,
            token,
            known,
        } = greeting;
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\
             {VERSION_HEADER}: {VERSION}\r\n{FORMAT_HEADER}: {FORMAT}\r\n{CLUSTER}: {cluster:x}\r\n{FROM}: {:x}\r\n\
             {INCARNATION}: {incarnation:x}\r\n{TO}: {:x}\r\n",
            id.0, to.0
        );
        if !urls.is_empty() {
            head += &format!("{URLS}: {}\r\n", urls.join(","));
        }
        if *token != 0 {
            head += &format!("{TOKEN}: {token:x}\r\n");
        }
        if let Some(incarnation) = known {
            let proof = self.proof(self.id, to, *token, *incarnation);
            head += &format!("{PROOF}: {proof}\r\n");
        }
        if let Some(Term(term)) = term {
            head += &format!("{TERM}: {term}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    /// The request that asks `to` which connections are its own.
    pub fn question(&self, to: NodeId, authority: &str) -> Vec<u8> {
        format!(
            "GET {LINK_PATH} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n{CLUSTER}: {:x}\r\n{FROM}: {:x}\r\n\
             {TO}: {:x}\r\n\r\n",
            self.cluster, self.id.0, to.0
        )
        .into_bytes()
    }

    /// The id of the sender of a request that is meant for this member of this cluster.
    pub fn sender(&self, request: &Request<'_>) -> Result<NodeId, Refusal> {
        let theirs = id(request, CLUSTER)?;
        if theirs != self.cluster {
            let ours = self.cluster;
            return Err(Refusal::Cluster { theirs, ours });
        }
        let (meant, me) = (NodeId(id(request, TO)?), self.id);
        if meant != me {
            return Err(Refusal::NotMe { meant, me });
        }
        Ok(NodeId(id(request, FROM)?))
    }

    /// The head of the 101. It contains this member's incarnation only if the sender already knows it, or has shown its
    /// own.
    pub fn welcome(&self, shows_incarnation: bool) -> Answer {
        let answer = Answer::new(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", PROTOCOL);
        match shows_incarnation {
            true => answer.header(INCARNATION, ids::hex(self.incarnation)),
            false => answer,
        }
    }

    /// Reads the head of a connection that is meant for this member of this cluster.
    pub fn read(&self, request: &Request<'_>) -> Result<Handshake, Refusal> {
        let upgrade = request.header("upgrade").unwrap_or_default();
        if request.method() != "GET" || !upgrade.eq_ignore_ascii_case(PROTOCOL.as_bytes()) {
            return Err(Refusal::Malformed(
                "the request does not ask for an upgrade to edgetcd-raft",
            ));
        }
        // The version is checked first, because another version may format the other headers differently.
        let version = number(request, VERSION_HEADER)?;
        if version != u64::from(VERSION) {
            return Err(Refusal::Version(version));
        }
        let from = self.sender(request)?;
        let term = request.header(TERM).map(|_| number(request, TERM));
        let token = token_of(request)?;
        Ok(Handshake {
            from,
            incarnation: id(request, INCARNATION)?,
            proof: self.proof_of(request, from, token.unwrap_or(0)),
            format: format(request)?,
            token,
            urls: urls(request)?,
            term: term.transpose()?.map(Term),
        })
    }

    fn proof_of(&self, request: &Request<'_>, from: NodeId, token: u64) -> Proof {
        let valid = self.proof(from, self.id, token, self.incarnation);
        match request.header(PROOF) {
            None => Proof::Missing,
            Some(proof) if proof == valid.as_bytes() => Proof::Valid,
            Some(_) => Proof::Wrong,
        }
    }

    /// A proof that only a sender that knows the receiver's incarnation can compute.
    fn proof(&self, from: NodeId, to: NodeId, token: u64, incarnation: u64) -> String {
        self.hash("knows", from, to, &[token, incarnation])
    }

    /// A proof that only the member `by` with that incarnation can compute. It states that `removed`, whose connection
    /// contains that token, was removed.
    pub fn removal(&self, by: NodeId, removed: NodeId, token: u64, incarnation: u64) -> String {
        self.hash("removed", by, removed, &[token, incarnation])
    }

    /// The digest of a token. It reveals nothing to a reader that does not know the token.
    pub fn digest(&self, from: NodeId, to: NodeId, token: u64) -> String {
        self.hash("token", from, to, &[token])
    }

    fn hash(&self, what: &str, from: NodeId, to: NodeId, secrets: &[u64]) -> String {
        let mut text = format!(
            "{PROTOCOL} {what} {:x} {:x} {:x}",
            self.cluster, from.0, to.0
        );
        for secret in secrets {
            text += &format!(" {secret:x}");
        }
        ids::digest(text.as_bytes())
    }
}

/// A sender that names no format understands the first one.
fn format(request: &Request<'_>) -> Result<u16, Refusal> {
    let format = request
        .header(FORMAT_HEADER)
        .map(|_| number(request, FORMAT_HEADER));
    let format = format.transpose()?.unwrap_or(u64::from(FIRST_FORMAT));
    Ok(u16::try_from(format).unwrap_or(u16::MAX))
}

fn token_of(request: &Request<'_>) -> Result<Option<u64>, Refusal> {
    let token = request.header(TOKEN).map(|_| id(request, TOKEN));
    token.transpose()
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
        .map_err(|_| Refusal::Malformed("its peer URLs are invalid"))?;
    let urls = urls.iter().take(URLS_MAX);
    Ok(urls.map(|url| url.as_str().to_owned()).collect())
}

fn id(request: &Request<'_>, name: &'static str) -> Result<u64, Refusal> {
    ids::parse(text(request, name)?).ok_or(Refusal::Malformed("an id is not a hex number"))
}

fn number(request: &Request<'_>, name: &'static str) -> Result<u64, Refusal> {
    let parsed = text(request, name)?.parse();
    parsed.map_err(|_| Refusal::Malformed("a header is not a number"))
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Unknown(_) => 403,
            Refusal::Unvouched(_) => 503,
            Refusal::LostItsData(..) => 409,
            Refusal::Removed(_) => 410,
            Refusal::Cluster { .. } => 412,
            Refusal::NotMe { .. } => 421,
            Refusal::Version(_) => 426,
            Refusal::Busy | Refusal::Stopping => 503,
        }
    }

    /// The text that the sender receives. A sender that names another cluster, or another member, may be a process that
    /// probes the port, so it does not learn the ids of this member.
    fn text(&self) -> String {
        match self {
            Refusal::Cluster { theirs, .. } => format!(
                "this is not a member of the cluster {theirs:x}: check the peer URLs; this member's log has details"
            ),
            Refusal::NotMe { meant, .. } => format!(
                "this is not the member {:x}: check the peer URLs; this member's log has details",
                meant.0
            ),
            other => other.to_string(),
        }
    }

    /// The answer of `me` to this request.
    pub fn answer(&self, me: &Me, request: &Request<'_>) -> Answer {
        let answer = Answer::text(self.status(), format!("{}\n", self.text())).closing();
        let Refusal::Removed(id) = *self else {
            return answer;
        };
        let token = token_of(request).ok().flatten().unwrap_or(0);
        answer
            .header(REMOVED, ids::hex(id.0))
            .header(CLUSTER, ids::hex(me.cluster))
            .header(PROOF, me.removal(me.id, id, token, me.incarnation))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(what) => {
                write!(
                    f,
                    "only members of the cluster may use this path, and {what}"
                )
            }
            Refusal::Version(theirs) => write!(
                f,
                "this member uses version {VERSION} of the peer protocol, the sender uses {theirs}: run the same \
                 edgetcd on all members"
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
                "the member {:x} was removed from the cluster and cannot return with this id",
                id.0
            ),
            Refusal::Unknown(id) => {
                write!(f, "there is no other member {:x} in this cluster", id.0)
            }
            Refusal::Unvouched(id) => write!(
                f,
                "the member {:x} is being asked which connections are its own: try again",
                id.0
            ),
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
        "the member {id:x} has another data directory than the one that the cluster knows: its data was lost, so \
         it must join again: edgetcdctl member remove {id:x}; edgetcdctl member add {name} {urls}; then start it \
         with an empty --data-dir and --initial-cluster-state existing",
        id = id.0,
        urls = known.urls.join(",")
    )
}
