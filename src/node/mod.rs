//! A node: starts all modules from a checked configuration and connects them.
//!
//! ```text
//!   clients ──▶ accept ──▶ http-N ──▶ raft ──▶ wal
//!                            ▲  ▲      │ ▲
//!                            │  └──────┤ │ replies, by inbox
//!                            └─ watch ◀┘ └──▶ peer-out, peer-in ◀──▶ other members
//! ```
//!
//! Another program can also use this module to embed a server: [`Node::start`] returns when the node is ready, and
//! [`Node::stop`] ends it. A failure that the node cannot survive (a failed disk, a panic in a thread that everything
//! depends on) ends the process: see [`crate::threads`].
//!
//! | file | purpose |
//! |---|---|
//! | `mod.rs` | connects the modules, in order, and stops them |
//! | `listeners.rs` | binds the sockets |
//! | `tls.rs` | reads or makes the certificates of the listeners |
//! | `first_lines.rs` | writes the first lines of the log |
//! | `stored.rs` | recovers the data directory, or creates it |
//! | `folders.rs` | warns about other users that can change the files |
//! | `inspect.rs` | inspects a data directory |
//! | `first_start.rs` | determines the identity at a first start |
//! | `force.rs` | `--force-new-cluster` |
//! | `no_fsync.rs` | `--unsafe-no-fsync` |
//! | `trace_file.rs` | writes the trace into the file of `--trace` |

mod first_lines;
mod first_start;
mod folders;
mod force;
mod inspect;
mod listeners;
mod no_fsync;
mod stored;
mod tls;
mod trace_file;

pub use inspect::{Inspected, Refusal, inspect, inspect_on, read};
pub use no_fsync::Unsynced;

use crate::api::answer::ClusterId;
use crate::api::cors::Cors;
use crate::api::counts::Counts;
use crate::api::passwords::Passwords;
use crate::api::trace::Streams;
use crate::api::{Api, Info, MetricsOnly, peers};
use crate::api::{Replica, WatchHub};
use crate::config::{Config, NoFsync, Stop};
use crate::dial::Tls;
use crate::engine::members::Published;
use crate::engine::time::Estimate;
use crate::http1::{self, Handler, HttpServer, Limits, Outbox, Port, Reply, Request, SocketFile};
use crate::peer::{self, Link, Timing};
use crate::process;
use crate::raft::{self, Core, NodeId};
use crate::replica::clock::{SharedEstimate, SystemClock};
use crate::replica::peers::FromPeers;
use crate::replica::{Done, Failure, Parts, Reader, Settings, Threads, Waiter};
use crate::storage::clock::{self, Clock};
use crate::threads::{self, Reserved};
use crate::wal::{self, RealDisk, WalStats};
use crate::watch::View;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use listeners::Listeners;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use stored::{Disks, Stored};
use trace_file::TraceFile;

/// Log size at which a snapshot is made and the log is compacted; on a small disk an eighth of the disk.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// How long the log before a new snapshot is kept for a reachable follower that still needs it.
const KEEP_TAIL: Duration = Duration::from_secs(30);

/// How long a node that runs alone may make no progress before its start fails. It leads at once, so this is for a slow
/// disk.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval between log lines of a node that waits for other members.
const WAITING_LOGGED_EVERY: Duration = Duration::from_secs(30);

/// Wait before a failed request is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Total time limit for stopping. Closing the connections to other members may take a second more.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Capacity of the queue of events from other members to the raft thread. Further events wait in their sockets.
const PEER_EVENTS: usize = 256;

/// A running node.
pub struct Node {
    http_server: HttpServer,
    peer_server: HttpServer,
    engine: Engine,
    client_urls: Vec<String>,
    metrics_server: Option<HttpServer>,
    /// Removed last.
    _socket_files: Vec<SocketFile>,
}

/// Connections to the metrics port. Monitoring systems send a few requests per minute.
const METRICS_CONNECTIONS: usize = 16;

/// A connection to the metrics port that does not read its response for so long is closed.
const METRICS_WRITE_TIME: Duration = Duration::from_secs(10);

fn client_limits() -> Limits {
    Limits {
        streams_bytes: http1::streams_bytes(process::memory_bytes()),
        ..Limits::default()
    }
}

fn metrics_limits() -> Limits {
    Limits {
        connections: METRICS_CONNECTIONS,
        // Monitoring systems run on other machines, too.
        reserve_is_local: false,
        write_time: METRICS_WRITE_TIME,
        ..Limits::default()
    }
}

/// Below this limit the log, snapshots and members would have too few descriptors if many clients are connected.
const DESCRIPTORS_MIN: u64 = 64;

fn refuse_few_descriptors(limit: u64) -> Result<(), Stop> {
    match limit < DESCRIPTORS_MIN {
        true => Err(Stop::fatal(
            format!("the limit of {limit} open files is too low; a node needs {DESCRIPTORS_MIN}"),
            "raise it before the start: ulimit -n 1024 (systemd: LimitNOFILE=)",
        )),
        false => Ok(()),
    }
}

impl Node {
    /// Starts a node and waits until it can return everything that it has ever acknowledged. In a cluster, this needs a
    /// running majority.
    ///
    /// # Errors
    /// A [`Stop`] that says what to change: a port in use, a locked or damaged data directory, flags that contradict
    /// each other.
    pub fn start(config: &Config) -> Result<Node, Stop> {
        Node::start_reporting(config, &|_| {})
    }

    /// Like [`Node::start`]. Calls `report` with a short description of the current step whenever it changes.
    ///
    /// # Errors
    /// Like [`Node::start`].
    pub fn start_reporting(config: &Config, report: &dyn Fn(&str)) -> Result<Node, Stop> {
        refuse_few_descriptors(http1::raise_descriptor_limit())?;
        let mut listeners = Listeners::open(config)?;
        // A wiped member may ask this one while it restarts. It must get an answer, not a refused connection.
        let at_once = wal::has_identity(&config.data_dir)
            .then(|| listeners.open_to_peers())
            .transpose()?;
        report("reading the log");
        let thread = Reserved::start("raft").map_err(no_threads)?;
        let stored = Stored::open(config, &listeners.dialling, &thread)?;
        let peers = match at_once {
            Some(peers) => peers,
            None => listeners.open_to_peers()?,
        };
        first_lines::log(config, &listeners.clients, &peers, &stored);
        let published = stored.identity.published(config);
        let client_urls = listeners.clients.iter().flat_map(Port::urls).collect();
        let engine = Engine::start(config, stored, listeners.dialling, thread)?;
        let api = engine.api(config);
        let peer_handler = engine.link.handler(Arc::new(Pages(api.clone())));
        let peer_server =
            HttpServer::open(peers, 1, peer::limits(), peer_handler).map_err(no_threads)?;
        // Monitoring systems can see from the beginning that the node is not ready.
        let metrics_server = match listeners.metrics.is_empty() {
            true => None,
            false => {
                let pages = Arc::new(MetricsOnly(api.clone()));
                let http_server = HttpServer::open(listeners.metrics, 1, metrics_limits(), pages);
                Some(http_server.map_err(no_threads)?)
            }
        };
        engine.ready(config, report)?;
        first_lines::warn_if_open(config, engine.replica.status().auth().is_enabled());
        engine.publish(published);
        let http_server =
            HttpServer::open(listeners.clients, workers(), client_limits(), api.clone())
                .map_err(no_threads)?;
        // Set only here. A metrics page that is requested earlier contains no numbers of the HTTP server.
        let _ = api.http_server.set(http_server.counters());
        Ok(Node {
            http_server,
            metrics_server,
            client_urls,
            _socket_files: listeners.files,
            peer_server,
            engine,
        })
    }

    /// The same as URLs, including Unix sockets.
    pub fn client_urls(&self) -> &[String] {
        &self.client_urls
    }

    /// A function that returns a number which changes while the raft thread makes progress: at least every 100 ms, or
    /// every tick if a tick is longer.
    pub fn turns(&self) -> impl Fn() -> u64 + Send + 'static {
        let replica = self.engine.replica.clone();
        move || replica.status().turns()
    }

    /// Why the process of a removed member ends, and what its operator can do.
    pub fn why_removed(&self, config: &Config) -> Stop {
        let id = self.engine.replica.status().id().0;
        inspect::stop_removed(&config.data_dir, id)
    }

    /// Receives one notification when this member was removed from its cluster. Then the node has nothing left to do.
    pub fn removed(&self) -> &Receiver<()> {
        &self.engine.removed
    }

    /// Stops the node. It accepts no new connections, finishes the requests that raft has received, transfers
    /// leadership if it leads, closes open watches without a final chunk, and writes the clean end of the log. Takes
    /// less than two seconds, unless a connection attempt to a member hangs in name resolution.
    pub fn stop(self) {
        let end = Instant::now() + STOP_TIMEOUT;
        self.http_server.stop_accepting();
        if let Some(http_server) = self.metrics_server {
            http_server.stop(Duration::ZERO);
        }
        self.peer_server.stop_accepting();
        self.engine.replica.stop();
        if !self.engine.replica_threads.join(left(end)) {
            log::warn!(
                "the WAL thread has not ended in time: stopping without it; writes without an acknowledgement \
                 may be lost"
            );
        }
        self.engine.link.stop();
        self.engine.hub.close();
        self.http_server.stop(left(end));
        self.peer_server.stop(left(end));
        if let Some(file) = self.engine.trace_file {
            file.stop(left(end));
        }
        // The hub is closed, so its thread has ended or is about to end.
        let _ = self.engine.watch_thread.join();
    }
}

/// All running parts except the HTTP servers.
struct Engine {
    replica: Replica,
    replica_threads: Threads,
    link: Arc<Link<RealDisk>>,
    removed: Receiver<()>,
    hub: Arc<WatchHub>,
    watch_thread: JoinHandle<()>,
    /// Writes the file of `--trace`.
    trace_file: Option<TraceFile>,
    clock: Arc<dyn Clock>,
    estimate: Arc<SharedEstimate>,
    wal: Arc<WalStats>,
    cluster: ClusterId,
    alone: bool,
}

impl Engine {
    /// `thread` becomes the raft thread.
    fn start(config: &Config, stored: Stored, tls: Tls, thread: Reserved) -> Result<Engine, Stop> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let estimate = Arc::new(SharedEstimate::default());
        let time = clock::resume(stored.clock.as_ref(), stored.state.time, clock.as_ref());
        estimate.set(Estimate::new(time, clock.now().monotonic));
        // Without nodes: the raft thread changes the tree without copies as long as nobody else has it. It publishes
        // the first complete view before it replies to anybody.
        let hub = Arc::new(WatchHub::new(View {
            tree: stored.state.tree.without_nodes(),
            applied: stored.state.applied,
            term: stored.start.hard_state.term,
        }));
        let wal = stored.wal.stats().clone();
        let cluster = stored.state.members.cluster;
        let alone = stored.addresses.iter().count() == 1;
        let (events, from_peers) = bounded(PEER_EVENTS);
        let link = Link::start(link(config, &stored, tls, events)).map_err(no_threads)?;
        let (notify_removed, removed) = bounded(1);
        let parts = Parts {
            core: Core::new(raft_settings(config, stored.identity.id), stored.start),
            state: stored.state,
            wal: stored.wal,
            views: hub.clone(),
            clock: clock.clone(),
            estimate: estimate.clone(),
            settings: replica_settings(config, stored.snapshot_bytes),
            peers: link.clone(),
            from_peers,
            removed: notify_removed,
            thread,
        };
        let (replica, replica_threads) = Replica::start(parts).map_err(no_threads)?;
        let trace_file = config.trace.as_deref();
        let trace_file = trace_file
            .map(|path| TraceFile::start(path, &config.name, replica.trace()))
            .transpose()?;
        let deliverer = hub.clone();
        let watch_thread =
            threads::critical("watch", move || deliverer.deliver()).map_err(no_threads)?;
        Ok(Engine {
            replica,
            replica_threads,
            link,
            removed,
            hub,
            watch_thread,
            trace_file,
            clock,
            estimate,
            wal,
            cluster: ClusterId::new(cluster),
            alone,
        })
    }

    fn api(&self, config: &Config) -> Arc<Api> {
        let info = Info {
            name: config.name.clone(),
            started: SystemTime::now(),
            data_dir: config.data_dir.clone(),
            wal_dir: config.wal_dir.clone(),
            heartbeat: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            tick: tick(config),
            syncs: config.no_fsync == NoFsync::Off,
        };
        Arc::new_cyclic(|this| Api {
            replica: self.replica.clone(),
            hub: self.hub.clone(),
            estimate: self.estimate.clone(),
            clock: self.clock.clone(),
            wal: self.wal.clone(),
            cluster: self.cluster.clone(),
            cors: Cors::new(config.cors.clone()),
            hosts: config.host_whitelist.clone(),
            info,
            counts: Arc::new(Counts::new(workers())),
            traffic: self.link.counters(),
            snapshots: Arc::default(),
            traces: Streams::new(self.replica.trace().clone()),
            client_cert_auth: config.client_tls.client_cert_auth,
            passwords: Passwords::new(),
            http_server: OnceLock::new(),
            this: this.clone(),
        })
    }

    /// Waits until this node can return everything that it has ever acknowledged. That is the case when a quorum read
    /// succeeds: it needs a leader, a committed entry of its term, and a completely applied log. In a cluster, this
    /// waits until a majority of the members runs. A node that runs alone fails when nothing makes progress any longer.
    fn ready(&self, config: &Config, report: &dyn Fn(&str)) -> Result<(), Stop> {
        let mut logged: Option<Instant> = None;
        let mut moved = (self.replica.status().applied(), Instant::now());
        loop {
            let why = match self.ask_once(config)? {
                None => return Ok(()),
                Some(why) => why,
            };
            let applied = self.replica.status().applied();
            if applied != moved.0 {
                moved = (applied, Instant::now());
            }
            let is_full = self.replica.status().disk_full();
            if self.alone && (is_full || moved.1.elapsed() >= READY_TIMEOUT) {
                return Err(not_ready(why));
            }
            if logged.is_none_or(|at| at.elapsed() >= WAITING_LOGGED_EVERY) {
                logged = Some(Instant::now());
                let waits = self.waits_for(why);
                log::warn!("not ready: {waits}");
                report(&waits);
            }
            // A failure may be returned at once, and the cause does not change immediately.
            std::thread::sleep(AGAIN_AFTER);
        }
    }

    /// What this node waits for, although it has sent a quorum read that failed because of `why`. If there is a leader,
    /// only the leader knows why this member does not keep up, for example because its data directory is an old copy.
    fn waits_for(&self, why: &str) -> String {
        let status = self.replica.status();
        let members = status.members();
        match status.leader().filter(|_| !status.is_leader()) {
            None => format!(
                "waiting for a majority of the {} members ({why})",
                members.iter().count()
            ),
            Some(leader) => {
                let name = members.get(leader).map_or("", |member| &member.name);
                let id = leader.0;
                format!(
                    "waiting for entries of the leader {name} ({id:x}) ({why}); if it sends none, its log says why"
                )
            }
        }
    }

    /// Sends one quorum read. Returns `None` if it succeeded, otherwise the reason for the failure.
    fn ask_once(&self, config: &Config) -> Result<Option<&'static str>, Stop> {
        let (result, answer) = bounded(1);
        self.replica.read(Box::new(Starting { result }));
        select! {
            recv(answer) -> result => Ok(match result {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure.cause()),
                Err(_) => Some("the raft thread has dropped the request"),
            }),
            recv(self.removed) -> notified => {
                if notified.is_err() {
                    // The raft thread has panicked, which ends the process.
                    std::thread::park();
                }
                let id = self.replica.status().id().0;
                Err(inspect::stop_removed(&config.data_dir, id))
            }
            default(READY_TIMEOUT) => Ok(Some("the raft thread has not answered for a minute")),
        }
    }

    /// Publishes this node's name and client URLs to the members, unless they know them already. Repeats until it
    /// succeeds.
    fn publish(&self, published: Published) {
        if is_known(&self.replica, &published) || self.publish_once(&published) {
            return;
        }
        let replica = self.replica.clone();
        let again = move || {
            while !replica.has_ended() && !is_known(&replica, &published) {
                let (result, wait) = bounded(1);
                replica.publish(&published, Box::new(Starting { result }));
                if let Ok(Err(failure)) = wait.recv_timeout(READY_TIMEOUT) {
                    log::warn!(
                        "cannot publish this member's name and client URLs yet, trying again: {}",
                        failure.cause()
                    );
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        };
        if let Err(error) = threads::critical("publish", again) {
            log::warn!(
                "cannot publish this member's name and client URLs: cannot start a thread: {error}"
            );
        }
    }

    fn publish_once(&self, published: &Published) -> bool {
        let (result, wait) = bounded(1);
        self.replica
            .publish(published, Box::new(Starting { result }));
        matches!(wait.recv_timeout(READY_TIMEOUT), Ok(Ok(())))
    }
}

fn is_known(replica: &Replica, published: &Published) -> bool {
    let members = replica.status().members();
    let me = &published.member;
    let known = members.get(NodeId(me.id));
    members.incarnation(NodeId(me.id)) == Some(published.incarnation)
        && known.is_some_and(|known| known.name == me.name && known.client_urls == me.client_urls)
}

fn link(
    config: &Config,
    stored: &Stored,
    tls: Tls,
    to_raft: Sender<FromPeers>,
) -> peer::Config<RealDisk> {
    peer::Config {
        id: NodeId(stored.identity.id),
        incarnation: stored.identity.incarnation,
        members: stored.addresses.clone(),
        urls: (config.initial_advertise_peer_urls.iter())
            .map(|url| url.as_str().to_owned())
            .collect(),
        timing: Timing::new(config.election_timeout),
        tls,
        snapshots: stored.wal.snapshots(),
        history_events: config.watch_history,
        history_bytes: history_bytes(config, Disks::of(config)),
        to_raft,
    }
}

/// The endpoints of the peer port.
struct Pages(Arc<Api>);

impl Handler for Pages {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        peers::handle(&self.0, request, reply);
    }
}

fn no_threads(error: std::io::Error) -> Stop {
    Stop::fatal(
        format!("cannot start the threads: {error}"),
        "the limit of threads or descriptors is reached; see: ulimit -u, ulimit -n",
    )
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// As many workers as cores, but at least two, so that one long response delays at most half of the clients.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

fn not_ready(why: &str) -> Stop {
    Stop::fatal(
        format!("the node did not become ready: {why}"),
        "see the log lines above; is there space on the disk (df)?",
    )
}

/// Notifies the starting thread, which waits for an answer of the raft thread.
struct Starting {
    result: Sender<Result<(), Failure>>,
}

impl Starting {
    /// The starting thread may have stopped waiting.
    fn send(&self, result: Result<(), Failure>) {
        let _ = self.result.try_send(result);
    }
}

impl Waiter<Outbox> for Starting {
    fn done(self: Box<Self>, _: &Done, _: &mut Outbox) {
        self.send(Ok(()));
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        self.send(Err(failure));
    }
}

impl Reader<Outbox> for Starting {
    fn ready(self: Box<Self>, _: &Arc<View>, _: &mut Outbox) {
        self.send(Ok(()));
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        self.send(Err(failure));
    }
}

fn raft_settings(config: &Config, id: u64) -> raft::Settings {
    raft::Settings {
        election_ticks: ticks(config, config.election_timeout),
        heartbeat_ticks: ticks(config, config.heartbeat_interval),
        strict_changes: config.strict_reconfig_check,
        ..raft::Settings::new(NodeId(id), random())
    }
}

fn replica_settings(config: &Config, snapshot_bytes: u64) -> Settings {
    let disks = Disks::of(config);
    Settings {
        tick: tick(config),
        request_timeout: Duration::from_secs(5) + 2 * config.election_timeout,
        leader_timeout: 2 * config.election_timeout,
        snapshot_count: config.snapshot_count,
        snapshot_bytes,
        log_bytes_max: LOG_BYTES_MAX.min(disks.smaller() / 8),
        batch_bytes_max: stored::segment_bytes_max(disks.log) as usize / 2,
        history_bytes: history_bytes(config, disks),
        stall: config.heartbeat_interval,
        keep_tail: KEEP_TAIL,
        election_ticks: ticks(config, config.election_timeout),
        strict_changes: config.strict_reconfig_check,
        first_tag: random(),
    }
}

/// The limit of `--watch-history`, or a sixteenth of the disk.
fn history_bytes(config: &Config, disks: Disks) -> usize {
    let bytes = config.watch_history_bytes.unwrap_or(disks.data / 16);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Five ticks per heartbeat interval, and at least one millisecond. With fewer ticks, the random timeouts of the
/// members would be too equal. With more, an idle node would wake up more often.
fn tick(config: &Config) -> Duration {
    (config.heartbeat_interval / 5).max(Duration::from_millis(1))
}

fn ticks(config: &Config, span: Duration) -> u32 {
    (span.as_millis() / tick(config).as_millis()).max(1) as u32
}

/// Eight unpredictable bytes, for the incarnation and for raft's timeouts.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(
        filled,
        Ok(bytes.len()),
        "the system has random bytes once it has booted"
    );
    u64::from_ne_bytes(bytes)
}
