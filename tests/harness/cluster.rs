//! Several real processes that form one cluster.
//!
//! [`Cluster::start`] starts them on free loopback ports. [`Cluster::linked`] gives each its own network namespace,
//! so that a test can cut the links between them in one or both directions ([`super::network`]). This needs root, so
//! tests that use it are `#[ignore]`d; `make clustertest` runs them as root.
//!
//! Nodes are named by their place in the cluster: 0, 1, 2 … Node 1 is started with `--name=n1`. [`Client`] talks to
//! all of them, like a client with several endpoints.

use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Answer, Connection, form_request, request};
use super::json::Json;
use super::network::Network;
use super::server::{Place, Server};
use super::wait_for;

/// Time limit for an election. It may need several rounds, and a debug build on a busy machine is slow.
pub const ELECTED_WITHIN: Duration = Duration::from_secs(30);
/// Time limit for a node's answer to a question about itself.
const SOON: Duration = Duration::from_secs(2);
const JSON: (&str, &str) = ("Content-Type", "application/json");

pub struct Cluster {
    /// Declared before the network, so that the nodes are dropped first.
    nodes: Vec<Server>,
    paused: Vec<bool>,
    network: Option<Network>,
    flags: Vec<String>,
}

impl Cluster {
    /// Starts a new cluster on loopback ports and waits for a leader.
    pub fn start(count: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(count, flags);
        cluster.launch();
        cluster
    }

    /// Starts a new cluster with links that can be cut. Needs root and `ip`.
    pub fn linked(count: usize, flags: &[&str]) -> Cluster {
        let network = Network::new(count);
        let network = network.unwrap_or_else(|reason| {
            panic!("links that can be cut need root and ip (apt-get install iproute2): {reason}")
        });
        let places = (0..count).map(|node| network.place(node)).collect();
        let mut cluster = Cluster::prepare_at(places, Some(network), flags);
        cluster.launch();
        cluster
    }

    /// Prepares the cluster without starting its processes.
    pub fn prepare(count: usize, flags: &[&str]) -> Cluster {
        let places = (0..count).map(|_| Place::free()).collect();
        Cluster::prepare_at(places, None, flags)
    }

    fn prepare_at(places: Vec<Place>, network: Option<Network>, flags: &[&str]) -> Cluster {
        let listed: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(node, place)| format!("n{node}=http://{}", place.peer))
            .collect();
        let mut cluster = Cluster {
            nodes: Vec::new(),
            paused: Vec::new(),
            network,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        for place in &places {
            cluster.prepare_node(place, &listed.join(","), "new");
        }
        cluster
    }

    fn prepare_node(&mut self, place: &Place, listed: &str, state: &str) -> usize {
        let node = self.nodes.len();
        let mut flags = vec![
            format!("--name=n{node}"),
            format!("--initial-cluster-state={state}"),
        ];
        flags.extend(self.flags.clone());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.nodes.push(Server::prepare_at(place, listed, &flags));
        self.paused.push(false);
        node
    }

    /// Starts every process and waits until all serve and report the same leader.
    pub fn launch(&mut self) {
        self.nodes.iter_mut().for_each(Server::spawn);
        self.nodes.iter_mut().for_each(Server::wait_ready);
        self.wait_leader();
    }

    // Observing --------------------------------------------------------------------------------

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, node: usize) -> &Server {
        &self.nodes[node]
    }

    pub fn node_mut(&mut self, node: usize) -> &mut Server {
        &mut self.nodes[node]
    }

    /// Client addresses of all nodes, including those that do not run.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Server::address).collect()
    }

    pub fn client(&self) -> Client {
        Client::new(self.addresses())
    }

    /// The nodes that run and are not paused.
    pub fn running(&self) -> Vec<usize> {
        let awake = |node: &usize| self.nodes[*node].runs() && !self.paused[*node];
        (0..self.len()).filter(awake).collect()
    }

    /// The running nodes without this one.
    pub fn others(&self, node: usize) -> Vec<usize> {
        let mut others = self.running();
        others.retain(|other| *other != node);
        others
    }

    /// Waits until all running nodes report the same leader, and it is one of them.
    pub fn wait_leader(&self) -> usize {
        self.wait_leader_among(&self.running())
    }

    /// Waits until all these nodes report the same leader, and it is one of them.
    pub fn wait_leader_among(&self, nodes: &[usize]) -> usize {
        let what = format!("one leader that all of {nodes:?} report");
        wait_for(&what, ELECTED_WITHIN, || {
            self.assert_alive(nodes);
            self.agreed_leader(nodes)
        })
    }

    /// Fails at once if a process has ended by itself, instead of waiting for it until the deadline.
    fn assert_alive(&self, nodes: &[usize]) {
        for node in nodes {
            let ended = self.nodes[*node].process().has_ended();
            assert!(!ended, "node {node} has ended by itself; its log is below");
        }
    }

    fn agreed_leader(&self, nodes: &[usize]) -> Option<usize> {
        let named: Option<Vec<usize>> = nodes.iter().map(|node| self.named_by(*node)).collect();
        let named = named?;
        let leader = *named.first()?;
        let agreed = named.iter().all(|name| *name == leader) && nodes.contains(&leader);
        (agreed && self.claims(leader)).then_some(leader)
    }

    /// The leader that this node reports.
    pub fn named_by(&self, node: usize) -> Option<usize> {
        let answer = self.get(node, "/v2/members/leader")?;
        let name = answer.get("name")?.text()?;
        name.strip_prefix('n')?.parse().ok()
    }

    /// Whether this node reports itself as leader. It may be wrong.
    pub fn claims(&self, node: usize) -> bool {
        let answer = self.get(node, "/v2/stats/self");
        let state = answer.as_ref().and_then(|answer| answer.get("state"));
        state.and_then(Json::text) == Some("StateLeader")
    }

    /// `X-Raft-Term` of this node.
    pub fn term(&self, node: usize) -> u64 {
        let what = format!("node {node} to report its term");
        wait_for(&what, ELECTED_WITHIN, || {
            let answer = self.nodes[node].try_ask("GET", "/v2/keys/", None, SOON);
            answer.ok()?.header("X-Raft-Term")?.parse().ok()
        })
    }

    fn get(&self, node: usize, target: &str) -> Option<Json> {
        let answer = self.nodes[node].try_ask("GET", target, None, SOON).ok()?;
        // The reference sometimes answers 200 with an empty body.
        let json = Json::parse(&answer.text()).ok();
        json.filter(|_| answer.status == 200)
    }

    /// Waits until a local read on this node returns this value.
    pub fn wait_value(&self, node: usize, key: &str, value: &str, within: Duration) {
        let what = format!("node {node} to hold {key} = {value}");
        wait_for(&what, within, || {
            self.assert_alive(&[node]);
            let found = self.get(node, &format!("/v2/keys{key}"))?;
            (found.at("/node/value")?.text()? == value).then_some(())
        });
    }

    /// Retries a write through this node until it is acknowledged. Returns the index of the response.
    pub fn put(&self, node: usize, key: &str, value: &str) -> u64 {
        let target = format!("/v2/keys{key}?value={value}");
        let answer = wait_answer(&format!("{key} through node {node}"), &[200, 201], || {
            self.nodes[node].try_ask("PUT", &target, None, ELECTED_WITHIN)
        });
        answer.index()
    }

    // Processes -------------------------------------------------------------------------------

    /// Sends SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.paused[node] = false;
        self.nodes[node].kill();
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub fn stop(&mut self, node: usize) -> ExitStatus {
        self.nodes[node].stop()
    }

    /// Starts the node again on its data and waits until it serves.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].launch();
    }

    /// Sends SIGSTOP: the node keeps its sockets open and does nothing.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].signal(Signal::STOP);
        self.paused[node] = true;
    }

    /// Sends SIGCONT.
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].signal(Signal::CONT);
        self.paused[node] = false;
    }

    // Links -----------------------------------------------------------------------------------

    pub fn has_links(&self) -> bool {
        self.network.is_some()
    }

    fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster made by `linked`")
    }

    /// Drops everything that `from` sends to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.network().cut(from, to);
    }

    /// Cuts every link between this node and the others, in both directions.
    pub fn isolate(&self, node: usize) {
        for other in (0..self.len()).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Restores all links.
    pub fn heal(&self) {
        for from in 0..self.len() {
            for to in (0..self.len()).filter(|to| *to != from) {
                self.network().heal(from, to);
            }
        }
    }

    /// Limits the rate at which this node receives, in bytes per second.
    pub fn throttle(&self, node: usize, bytes_per_second: u64) {
        self.network().throttle(node, bytes_per_second);
    }

    /// Removes that limit.
    pub fn unthrottle(&self, node: usize) {
        self.network().unthrottle(node);
    }

    // Members ---------------------------------------------------------------------------------

    /// Adds a member through `through` and prepares its process, but does not start it.
    pub fn add(&mut self, through: usize) -> usize {
        let place = match &mut self.network {
            Some(network) => {
                let node = network.grow();
                network.place(node)
            }
            None => Place::free(),
        };
        let body = format!("{{\"peerURLs\":[\"http://{}\"]}}", place.peer);
        let what = format!("node {through} to add a member");
        // If a member was down a moment ago, the cluster refuses member changes for some seconds.
        wait_answer(&what, &[201], || self.post_member(through, &body));
        let mut listed: Vec<String> = self.member_list(through);
        listed.push(format!("n{}=http://{}", self.len(), place.peer));
        self.prepare_node(&place, &listed.join(","), "existing")
    }

    /// Gives `node` another peer URL through `through`. The node listens on it from its next start on.
    pub fn move_node(&mut self, through: usize, node: usize) {
        let id = self.id(through, node).expect("a member");
        let url = format!("http://{}", self.nodes[node].move_peer());
        let body = format!("{{\"peerURLs\":[\"{url}\"]}}");
        let bytes = request(
            "PUT",
            &format!("/v2/members/{id}"),
            &[JSON],
            Some(body.as_bytes()),
        );
        let what = format!("node {through} to move node {node}");
        wait_answer(&what, &[204], || {
            let mut connection = self.nodes[through].try_connect()?;
            connection.write(&bytes)?;
            connection.answer(false, super::client::PATIENCE)
        });
    }

    pub fn post_member(&self, through: usize, body: &str) -> io::Result<Answer> {
        let mut connection = self.nodes[through].try_connect()?;
        let bytes = request("POST", "/v2/members", &[JSON], Some(body.as_bytes()));
        connection.write(&bytes)?;
        connection.answer(false, super::client::PATIENCE)
    }

    /// `NAME=URL` of all members that have published their name.
    fn member_list(&self, through: usize) -> Vec<String> {
        let named = |member: &Json| {
            let name = member.get("name")?.text()?;
            let url = member.at("/peerURLs/0")?.text()?;
            (!name.is_empty()).then(|| format!("{name}={url}"))
        };
        self.members(through).iter().filter_map(named).collect()
    }

    /// The response of this node to `/v2/members`.
    pub fn members(&self, through: usize) -> Vec<Json> {
        let what = format!("the members that node {through} knows");
        wait_for(&what, ELECTED_WITHIN, || {
            let answer = self.get(through, "/v2/members")?;
            Some(answer.get("members")?.items().to_vec())
        })
    }

    /// The member id of `node`, as known by `through`. None if it is not a member.
    pub fn id(&self, through: usize, node: usize) -> Option<String> {
        let url = format!("http://{}", self.nodes[node].peer_address());
        let members = self.members(through);
        let own = |member: &&Json| member.at("/peerURLs/0").and_then(Json::text) == Some(&url);
        let id = members.iter().find(own)?.get("id")?.text()?;
        Some(id.to_owned())
    }

    /// Removes `node` through `through`. Returns the id that it had.
    pub fn remove(&self, through: usize, node: usize) -> String {
        let id = self.id(through, node).expect("a member");
        let target = format!("/v2/members/{id}");
        let what = format!("node {through} to remove node {node}");
        // 410 means that an earlier attempt succeeded, but its response was lost.
        wait_answer(&what, &[204, 410], || {
            self.nodes[through].try_ask("DELETE", &target, None, ELECTED_WITHIN)
        });
        id
    }
}

/// Retries until the status is one of these. Panics with the last response.
fn wait_answer(
    what: &str,
    statuses: &[u16],
    mut ask: impl FnMut() -> io::Result<Answer>,
) -> Answer {
    let deadline = Instant::now() + ELECTED_WITHIN;
    loop {
        let last = ask();
        if let Ok(answer) = &last
            && statuses.contains(&answer.status)
        {
            return answer.clone();
        }
        assert!(
            Instant::now() < deadline,
            "timed out after {ELECTED_WITHIN:?} waiting for {what}; last {last:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client of several members, with one kept-alive connection to each.
pub struct Client {
    addresses: Vec<SocketAddr>,
    connections: Vec<Option<Connection>>,
}

impl Client {
    pub fn new(addresses: Vec<SocketAddr>) -> Client {
        let connections = addresses.iter().map(|_| None).collect();
        Client {
            addresses,
            connections,
        }
    }

    pub fn members(&self) -> usize {
        self.addresses.len()
    }

    /// Sends one request to one member. After an error, it is unknown whether the request had an effect.
    pub fn ask(
        &mut self,
        member: usize,
        method: &str,
        target: &str,
        form: Option<&str>,
        within: Duration,
    ) -> io::Result<Answer> {
        let mut connection = match self.connections[member].take() {
            Some(connection) => connection,
            None => Connection::open(self.addresses[member])?,
        };
        connection.write(&form_request(method, target, form))?;
        let answer = connection.answer(method == "HEAD", within)?;
        self.connections[member] = Some(connection);
        Ok(answer)
    }
}
