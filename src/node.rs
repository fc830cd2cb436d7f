//! A node: the rooms wired together, from a checked configuration.
//!
//! ```text
//!   clients ──▶ accept ──▶ http-N ──▶ raft ──▶ wal
//!                            ▲  ▲       │
//!                            │  └───────┤ answers, by inbox
//!                            └── watch ◀┘ events
//! ```
//!
//! This is also how another program embeds a server: [`Node::start`] returns once the node is ready,
//! [`Node::stop`] ends it. What cannot go on (a failed disk, a panic in a thread that everything depends
//! on) ends the process: see [`crate::threads`].

use crate::config::{self, Config, Stop};
use crate::door::{self, Door, Limits, Outbox};
use crate::http::answer::ClusterId;
use crate::http::cors::Cors;
use crate::http::{Api, Info, Reads};
use crate::identity::Identity;
use crate::raft::{self, Core, LogIndex, Membership, NodeId, SnapshotMark, Start};
use crate::replica::clock::{self, Clock, Estimate, SystemClock};
use crate::replica::members::Published;
use crate::replica::peers::NoPeers;
use crate::replica::state::{Loader, State};
use crate::replica::{Done, Failure, Parts, Reader, Replica, Settings, Threads, Waiter};
use crate::threads;
use crate::wal::{self, Home, RealDisk, Recovered, WalStats};
use crate::watch::{View, WatchHub};
use crossbeam_channel::{Sender, bounded};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// A log this long is cut by a snapshot; on a small disk an eighth of it.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// A disk with less room than this keeps no spare snapshots and segments.
const SMALL_DISK_BYTES: u64 = 1 << 30;

/// A lone node leads at once; this is for a disk that takes its time.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long stopping may take, in all.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// A running node.
pub struct Node {
    door: Door,
    engine: Engine,
    client_addresses: Vec<SocketAddr>,
}

impl Node {
    /// Starts a node and waits until it leads or follows.
    ///
    /// # Errors
    /// A [`Stop`] that says what to change: a port in use, a locked or damaged data directory, flags that
    /// contradict each other.
    pub fn start(config: &Config) -> Result<Node, Stop> {
        door::raise_descriptor_limit();
        let listeners = Listeners::open(config)?;
        let stored = Stored::open(config)?;
        let published = stored.identity.published(config);
        let engine = Engine::start(config, stored)?;
        ready(&engine.replica)?;
        tell_members(&engine.replica, &published);
        let client_addresses = listeners.client_addresses();
        let api = engine.api(config, listeners.clients);
        let door = Door::open(listeners.all, workers(), Limits::default(), api.clone())
            .map_err(no_threads)?;
        // Set once, here; a page that is asked for before shows no numbers of the door.
        let _ = api.door.set(door.counters());
        Ok(Node {
            door,
            engine,
            client_addresses,
        })
    }

    /// Where clients are listened to; with port 0 in the flags, the port that was given.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Ends the node: no new connections, what was handed to raft is finished, parked watches are closed
    /// without a final chunk, the log gets its clean end. Takes less than two seconds.
    pub fn stop(self) {
        let end = Instant::now() + STOP_TIMEOUT;
        self.door.stop_accepting();
        self.engine.replica.stop();
        if !self.engine.replica_threads.join(left(end)) {
            log::warn!("the log is still busy; what was not acknowledged may or may not be kept");
        }
        self.engine.hub.close();
        self.door.stop(left(end));
        // The hub is closed, so its thread has ended or is about to.
        let _ = self.engine.watch_thread.join();
    }
}

/// Everything behind the door, running.
struct Engine {
    replica: Replica,
    replica_threads: Threads,
    hub: Arc<WatchHub>,
    watch_thread: JoinHandle<()>,
    clock: Arc<dyn Clock>,
    estimate: Arc<Estimate>,
    wal: Arc<WalStats>,
    cluster: ClusterId,
}

impl Engine {
    fn start(config: &Config, stored: Stored) -> Result<Engine, Stop> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let estimate = Arc::new(Estimate::default());
        let time = clock::resume(stored.clock.as_ref(), stored.state.time, clock.as_ref());
        estimate.set(time, clock.since_boot());
        let hub = Arc::new(WatchHub::new(View {
            tree: stored.state.tree.clone(),
            applied: stored.state.applied,
            term: stored.start.ballot.term,
        }));
        let wal = stored.wal.stats().clone();
        let parts = Parts {
            core: Core::new(raft_settings(config, stored.identity.id), stored.start),
            state: stored.state,
            wal: stored.wal,
            hub: hub.clone(),
            clock: clock.clone(),
            estimate: estimate.clone(),
            settings: replica_settings(config, stored.snapshot_bytes),
            peers: Arc::new(NoPeers),
            from_peers: crossbeam_channel::never(),
            removed: bounded(1).0,
        };
        let (replica, replica_threads) = Replica::start(parts).map_err(no_threads)?;
        let deliverer = hub.clone();
        let watch_thread =
            threads::critical("watch", move || deliverer.deliver()).map_err(no_threads)?;
        Ok(Engine {
            replica,
            replica_threads,
            hub,
            watch_thread,
            clock,
            estimate,
            wal,
            cluster: ClusterId::new(stored.identity.founders.cluster),
        })
    }

    fn api(&self, config: &Config, client_listeners: usize) -> Arc<Api> {
        let info = Info {
            name: config.name.clone(),
            started: SystemTime::now(),
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
            reads: Reads::default(),
            client_listeners,
            door: OnceLock::new(),
            this: this.clone(),
        })
    }
}

fn no_threads(error: std::io::Error) -> Stop {
    Stop::fatal(
        format!("the threads do not start: {error}"),
        "the system has no threads or descriptors left; see: ulimit -u, ulimit -n",
    )
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// As many as cores, at least two, so that one long answer holds up half of the clients at most.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// Waits until this node shows everything it has ever acknowledged: until a quorum read gets through,
/// which takes a leader, an entry of its term, and all of the log applied.
fn ready(replica: &Replica) -> Result<(), Stop> {
    let (told, wait) = bounded(1);
    replica.read(Box::new(Starting { told }));
    match wait.recv_timeout(READY_TIMEOUT) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(not_ready(failure.cause())),
        Err(_) => Err(not_ready(
            "nothing was heard from the raft thread for a minute",
        )),
    }
}

fn not_ready(why: &str) -> Stop {
    Stop::fatal(
        format!("the node does not become ready: {why}"),
        "the log above says what it was doing; is there space on the disk (df)?",
    )
}

/// Lets the members know this node's name and client URLs, if they do not yet.
fn tell_members(replica: &Replica, published: &Published) {
    let members = replica.status().members();
    let me = &published.member;
    let is_known = members.get(NodeId(me.id)).is_some_and(|known| {
        known.name == me.name
            && known.client_urls == me.client_urls
            && members.incarnation(NodeId(me.id)) == Some(published.incarnation)
    });
    if is_known {
        return;
    }
    let (told, wait) = bounded(1);
    replica.publish(published, Box::new(Starting { told }));
    if let Ok(Err(failure)) = wait.recv_timeout(READY_TIMEOUT) {
        log::warn!(
            "the name and the client URLs are not told: {}",
            failure.cause()
        );
    }
}

/// The starting thread, which waits for an answer of the raft thread.
struct Starting {
    told: Sender<Result<(), Failure>>,
}

impl Starting {
    /// The starting thread may have given up.
    fn tell(&self, result: Result<(), Failure>) {
        let _ = self.told.try_send(result);
    }
}

impl Waiter for Starting {
    fn done(self: Box<Self>, _: &Done, _: &mut Outbox) {
        self.tell(Ok(()));
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        self.tell(Err(failure));
    }
}

impl Reader for Starting {
    fn ready(self: Box<Self>, _: &Arc<View>, _: &mut Outbox) {
        self.tell(Ok(()));
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        self.tell(Err(failure));
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
    Settings {
        tick: tick(config),
        request_timeout: Duration::from_secs(5) + 2 * config.election_timeout,
        leader_timeout: 2 * config.election_timeout,
        snapshot_count: config.snapshot_count,
        snapshot_bytes,
        log_bytes_max: LOG_BYTES_MAX.min(disk_bytes(&config.data_dir) / 8),
        stall: config.heartbeat_interval,
        election_ticks: ticks(config, config.election_timeout),
        strict_changes: config.strict_reconfig_check,
        first_tag: random(),
    }
}

/// Ten to a heartbeat, so that members that wait for one wait differently long; at least a millisecond.
fn tick(config: &Config) -> Duration {
    (config.heartbeat_interval / 10).max(Duration::from_millis(1))
}

fn ticks(config: &Config, span: Duration) -> u32 {
    (span.as_millis() / tick(config).as_millis()).max(1) as u32
}

/// Eight bytes that nobody can guess, for the incarnation and for raft's timeouts.
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

/// The sockets, bound before anything else: a port in use must not leave a directory behind.
struct Listeners {
    /// Those of clients first.
    all: Vec<TcpListener>,
    clients: usize,
}

impl Listeners {
    fn open(config: &Config) -> Result<Listeners, Stop> {
        let clients = config.client_addresses();
        let peers = config.peer_addresses();
        let all = clients
            .iter()
            .chain(&peers)
            .map(listen)
            .collect::<Result<Vec<_>, Stop>>()?;
        Ok(Listeners {
            all,
            clients: clients.len(),
        })
    }

    fn client_addresses(&self) -> Vec<SocketAddr> {
        self.all[..self.clients]
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }
}

fn listen(address: &SocketAddr) -> Result<TcpListener, Stop> {
    door::listen(*address).map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::AddrInUse => "address already in use".to_owned(),
            std::io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
            _ => error.to_string(),
        };
        Stop::fatal(
            format!("listen tcp {address}: bind: {what}"),
            "another server may run already (see: ss -ltnp); or choose other ports with \
             --listen-client-urls (with --advertise-client-urls) and --listen-peer-urls",
        )
    })
}

/// What is on disk, recovered.
struct Stored {
    identity: Identity,
    wal: wal::Wal<RealDisk>,
    start: Start,
    state: State,
    clock: Option<wal::Clock>,
    snapshot_bytes: u64,
}

impl Stored {
    fn open(config: &Config) -> Result<Stored, Stop> {
        if !config.data_dir.exists() {
            // Flags that contradict each other must not leave a directory behind.
            check_first_start(config)?;
        }
        let home = Home::open(RealDisk::default(), options(config)).map_err(refused)?;
        let known = match home.identity().map_err(refused)? {
            Some(bytes) => {
                Some(Identity::from_bytes(&bytes).map_err(|what| strange(config, &what))?)
            }
            None => None,
        };
        if known.is_none() {
            check_first_start(config)?;
        }
        let (wal, recovered) = wal::recover(&home).map_err(refused)?;
        // Written after the log: an identity says that there was one.
        let identity = match known {
            Some(identity) => identity,
            None => found(config, &home)?,
        };
        recovered
            .warnings
            .iter()
            .for_each(|warning| log::warn!("{warning}"));
        let first = bootstrap_mark(&identity);
        let founders = identity.founders.clone();
        let Recovered {
            ballot,
            snapshot,
            log,
            clock,
            ..
        } = recovered;
        let (mark, state, snapshot_bytes) = match snapshot {
            Some(reader) => load(reader, config.watch_history)?,
            None => (first, State::new(founders, config.watch_history), 0),
        };
        let start = Start {
            ballot,
            snapshot: mark,
            log,
        };
        Ok(Stored {
            identity,
            wal,
            start,
            state,
            clock,
            snapshot_bytes,
        })
    }
}

/// On a small disk no more is kept than is needed: the log and two snapshots.
fn options(config: &Config) -> wal::Options {
    let is_small = disk_bytes(&config.data_dir) < SMALL_DISK_BYTES;
    let kept = |count: usize, least: usize| if is_small { least } else { count };
    wal::Options {
        wal_dir: config.wal_dir.clone(),
        max_snapshots: kept(config.max_snapshots, 2),
        max_wals: kept(config.max_wals, 1),
        ..wal::Options::new(&config.data_dir)
    }
}

/// The size of the file system that holds `dir`, or will; unlimited if it cannot be told (a ramfs says 0).
fn disk_bytes(dir: &Path) -> u64 {
    let there = dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("."));
    rustix::fs::statvfs(there)
        .map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize))
        .ok()
        .filter(|&bytes| bytes > 0)
        .unwrap_or(u64::MAX)
}

/// On a first start the flags say who this is, so they must agree with each other.
fn check_first_start(config: &Config) -> Result<(), Stop> {
    config::check_first_start(config)?;
    if config.initial_cluster.len() > 1 {
        return Err(Stop::fatal(
            "--initial-cluster names more than one member: this version runs single nodes",
            "start it without --initial-cluster, or with one NAME=URL",
        ));
    }
    Ok(())
}

fn found(config: &Config, home: &Home<RealDisk>) -> Result<Identity, Stop> {
    let identity = Identity::found(config, random());
    home.write_identity(&identity.to_bytes()).map_err(refused)?;
    Ok(identity)
}

fn strange(config: &Config, what: &str) -> Stop {
    Stop::fatal(
        format!("the identity in {}: {what}", config.data_dir.display()),
        "start the edgetcd that wrote it, or give another --data-dir",
    )
}

/// The point before the first entry, with the founders as voters.
fn bootstrap_mark(identity: &Identity) -> SnapshotMark {
    let voters = identity
        .founders
        .iter()
        .map(|member| NodeId(member.id))
        .collect();
    SnapshotMark {
        membership: Membership {
            voters,
            ..Membership::default()
        },
        ..SnapshotMark::default()
    }
}

/// Reads the newest snapshot into a state.
fn load(
    mut reader: wal::SnapshotReader<RealDisk>,
    history_events: usize,
) -> Result<(SnapshotMark, State, u64), Stop> {
    let mark = reader.mark().clone();
    let mut loader = Loader::new(history_events);
    let bytes = reader.bytes();
    let mut malformed = None;
    let mut slice = Vec::new();
    while malformed.is_none() && reader.next(&mut slice).map_err(refused)? {
        malformed = loader.push(&slice).err();
        slice.clear();
    }
    let LogIndex(index) = mark.position.index;
    match malformed.map_or_else(|| loader.finish(mark.position.index), Err) {
        Ok(state) => Ok((mark, state, bytes)),
        Err(error) => Err(Stop::fatal(
            format!(
                "the snapshot at index {index} passes its checksums but cannot be read: {}",
                error.0
            ),
            "it may have been written by a newer edgetcd: start that one",
        )),
    }
}

fn refused(error: wal::WalError) -> Stop {
    Stop::fatal(error, "")
}
