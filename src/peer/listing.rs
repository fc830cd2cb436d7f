//! Requests the member lists from the peer ports of the members.
//!
//! A starting node asks for the members of the cluster that its flags name. A member asks when a process connects whose
//! id its table does not contain: another member, asked at its address in the table, may have a newer table. Connecting
//! processes cause at most one round of requests per second, to each member in turn, and never a connection to an
//! address that they named themselves. All members in the answers are linked, not only the process that has connected.
//! Therefore many connections of other processes do not keep a new member out.

use super::common::Common;
use super::reach::{Body, Reach, Response};
use super::resources::Resources;
use crate::dial::Tls;
use crate::engine::members::Member;
use crate::identity::ids;
use crate::raft::NodeId;
use crate::urls::Url;
use serde::Deserialize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long this node waits for a member's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit for a list. A list of thousands of members fits.
const LIST_BYTES_MAX: usize = 1 << 20;

/// The pause between two rounds of requests.
const PAUSE: Duration = Duration::from_secs(1);

/// A member's answer about its cluster.
pub struct MemberList {
    /// The URL of the answering member.
    pub url: String,
    /// The id of its cluster.
    pub cluster: u64,
    /// The members of that cluster.
    pub members: Vec<Listed>,
}

/// A member in the list that the peer port returns.
#[derive(Debug, Deserialize)]
pub struct Listed {
    /// The member's id.
    pub id: u64,
    /// The member's peer URLs.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Empty if the member has not started yet.
    #[serde(default)]
    pub name: String,
    /// Empty if the member has not started yet.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

impl Listed {
    /// The same member in the form of the member table.
    pub fn member(&self) -> Member {
        Member {
            id: self.id,
            name: self.name.clone(),
            peer_urls: self.peer_urls.clone(),
            client_urls: self.client_urls.clone(),
        }
    }
}

/// Asks the member at `url`, with `tls` if the URL has it. Returns `None` if there is no answer, or if the answer is not
/// that of a cluster member.
pub fn ask(url: &Url, tls: &Tls) -> Option<MemberList> {
    ask_with(url, tls, &Resources::new())
}

/// The end of `resources` ends the question.
fn ask_with(url: &Url, tls: &Tls, resources: &Arc<Resources>) -> Option<MemberList> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    let left = || until.saturating_duration_since(Instant::now());
    let given_up = || resources.is_stopping();
    let reach = Reach {
        tls,
        given_up: &given_up,
    };
    let (socket, url) = reach.connect(url.as_str(), left()).ok()?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT)).ok()?;
    let mut connection = reach.secure(resources.hold(socket)?, &url, left()).ok()?;
    // HTTP/1.0 has no chunks.
    let request = format!(
        "GET /members HTTP/1.0\r\nHost: {}\r\n\r\n",
        url.host_header()
    );
    let body = Body::Whole(LIST_BYTES_MAX);
    let response = Response::exchange(&mut connection, request.as_bytes(), body, left()).ok()?;
    Some(MemberList {
        url: url.as_str().to_owned(),
        cluster: ids::parse(response.header("X-Etcd-Cluster-Id")?)?,
        members: serde_json::from_slice(&response.body).ok()?,
    })
}

/// Whether the members are being asked, and whether they must be asked again. The thread `peer-ask` runs only while
/// there is a reason to ask. `closing` is notified once, at the end; only that thread waits on it.
#[derive(Default)]
pub(super) struct Listing {
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Default)]
struct State {
    /// A process whose id the table does not contain has connected since the last round of requests.
    wanted: bool,
    runs: bool,
    closed: bool,
}

impl Listing {
    /// Asks the members soon, because a process has connected whose id the table does not contain.
    pub fn want(&self, common: &Arc<Common>) {
        let mut state = self.state();
        state.wanted = true;
        if state.runs || state.closed {
            return;
        }
        let thread = Arc::clone(common);
        let begun = (common.resources).connection("peer-ask", move || thread.listing.run(&thread));
        match begun {
            Ok(()) => state.runs = true,
            Err(error) => log::warn!("cannot start the thread peer-ask: {error}"),
        }
    }

    pub fn close(&self) {
        self.state().closed = true;
        self.closing.notify_one();
    }

    /// The thread `peer-ask`.
    fn run(&self, common: &Arc<Common>) {
        while self.next() {
            add_newcomer(common);
            let state = self.state();
            let waited = self
                .closing
                .wait_timeout_while(state, PAUSE, |state| !state.closed);
            drop(waited);
        }
    }

    /// Whether another round is needed. False: the thread ends.
    fn next(&self) -> bool {
        let mut state = self.state();
        state.runs = std::mem::take(&mut state.wanted) && !state.closed;
        state.runs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the members of the table, and links the members that they list.
fn add_newcomer(common: &Arc<Common>) {
    for known in common.table.members().into_values() {
        let urls = known.urls.iter().filter_map(|url| Url::parse(url).ok());
        for url in urls {
            if common.resources.is_stopping() {
                return;
            }
            let list = ask_with(&url, &common.tls, &common.resources)
                .filter(|list| list.cluster == common.me.cluster);
            let Some(list) = list else { continue };
            let why = format!("{} at {} lists it", known.name, list.url);
            for listed in &list.members {
                common.add_newcomer(NodeId(listed.id), &listed.peer_urls, &why);
            }
            break;
        }
    }
}
