//! Real nodes as processes: one folder, three ports and one proxy each.
//!
//! ```text
//!   FOLDER/n1/data       its data directory
//!   FOLDER/n1/log        its log, of all its processes
//!   FOLDER/n1.trace      what it records; with --record DIR, in DIR
//! ```

use crate::guard::Guard;
use crate::links::Links;
use crate::proxy::Proxy;
use edgetcd::http1::bind;
use edgetcd::identity::ids;
use edgetcd::urls::Url;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TOKEN: &str = "edgetcd-lab";
/// The ports are taken from here on. The system gives no port of this range to a socket that needs any port, so a node
/// finds its port free when it starts again.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// More than a cluster needs. Programs that start one after the other begin at ports that are so far apart.
const STRIDE: u32 = 32;
/// How long nodes have to stop by themselves.
const STOP_TIME: Duration = Duration::from_secs(5);
/// This much of the end of a log is searched for the reason why its node has ended.
const WORDS_BYTES: u64 = 2 << 10;
const CONNECT_TIME: Duration = Duration::from_millis(100);

/// What all nodes have in common.
pub struct Plan {
    pub server: PathBuf,
    pub folder: PathBuf,
    pub traces: PathBuf,
    /// The origin of the page, which may read from and write to the nodes.
    pub origin: String,
}

/// A node and its process, if it runs.
pub struct Node {
    pub name: String,
    /// As it is shown: hexadecimal.
    pub id: String,
    client: SocketAddr,
    peer: SocketAddr,
    proxy: Proxy,
    /// Where the others connect.
    pub proxy_url: String,
    /// All members, as in `--initial-cluster`.
    founders: String,
    /// It was added to a cluster that existed.
    is_added: bool,
    process: Option<Child>,
    is_paused: bool,
    /// A handle has ended its last process.
    is_killed: bool,
    /// It has accepted a connection of a client.
    is_ready: bool,
}

/// Nodes that do not run yet, and the links between them.
pub fn plan(count: usize) -> Result<(Vec<Node>, Arc<Links>), String> {
    let mut ports = Ports { next: 0 };
    let mut sockets = Vec::new();
    for _ in 0..count {
        let address = ports.free()?;
        let socket =
            bind(address, &[]).map_err(|error| format!("cannot use {address}: {error}"))?;
        sockets.push((address, socket));
    }
    let urls: Vec<String> = sockets
        .iter()
        .map(|(address, _)| format!("http://{address}"))
        .collect();
    let named = |(at, url): (usize, &String)| format!("n{}={url}", at + 1);
    let founders: Vec<String> = urls.iter().enumerate().map(named).collect();
    let founders = founders.join(",");
    let links = Links::new(urls.clone());
    let mut nodes = Vec::new();
    for (at, (address, socket)) in sockets.into_iter().enumerate() {
        let (client, peer) = (ports.free()?, ports.free()?);
        let url = Url::parse(&urls[at]).map_err(|error| error.to_string())?;
        nodes.push(Node {
            name: format!("n{}", at + 1),
            id: ids::hex(ids::founder(&[url], TOKEN).0),
            client,
            peer,
            proxy: Proxy::new(socket, address, peer, at, &links),
            proxy_url: urls[at].clone(),
            founders: founders.clone(),
            is_added: false,
            process: None,
            is_paused: false,
            is_killed: false,
            is_ready: false,
        });
    }
    Ok((nodes, links))
}

/// Looks for free ports. Two programs begin at different ones.
struct Ports {
    next: u16,
}

impl Ports {
    fn free(&mut self) -> Result<SocketAddr, String> {
        let start = (std::process::id().wrapping_mul(STRIDE) % u32::from(PORTS)) as u16;
        while self.next < PORTS {
            let port = FIRST_PORT + (start + self.next) % PORTS;
            self.next += 1;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if bind(address, &[]).is_ok() {
                return Ok(address);
            }
        }
        Err(format!(
            "no port from {FIRST_PORT} to {} is free",
            FIRST_PORT + PORTS - 1
        ))
    }
}

impl Node {
    /// Where its clients connect.
    pub fn client_url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// The file with its records.
    pub fn trace(&self, plan: &Plan) -> PathBuf {
        plan.traces.join(format!("{}.trace", self.name))
    }

    fn data(&self, plan: &Plan) -> PathBuf {
        plan.folder.join(&self.name).join("data")
    }

    /// Starts its process.
    pub fn start(&mut self, plan: &Plan, guard: &Guard) -> Result<(), String> {
        if self.process.is_some() {
            return Err(format!("{} runs already", self.name));
        }
        self.proxy
            .accept()
            .map_err(|error| format!("the proxy of {} cannot listen: {error}", self.name))?;
        let log = self.log(plan).map_err(|error| {
            format!(
                "no log can be written in {}: {error}",
                plan.folder.display()
            )
        })?;
        let mut command = Command::new(&plan.server);
        command.args(self.flags(plan)).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log);
        // Only the flags decide.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        guard.keep(&mut command);
        let process = command.spawn().map_err(|error| {
            format!(
                "cannot start {}: {error}; name the server with --server PATH",
                plan.server.display()
            )
        })?;
        self.process = Some(process);
        (self.is_paused, self.is_killed, self.is_ready) = (false, false, false);
        Ok(())
    }

    fn log(&self, plan: &Plan) -> io::Result<File> {
        let folder = plan.folder.join(&self.name);
        fs::create_dir_all(&folder)?;
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("log"))
    }

    fn flags(&self, plan: &Plan) -> Vec<String> {
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        vec![
            flag("name", &self.name),
            flag("data-dir", &self.data(plan).display()),
            flag("listen-client-urls", &self.client_url()),
            flag("advertise-client-urls", &self.client_url()),
            flag("listen-peer-urls", &format!("http://{}", self.peer)),
            flag("initial-advertise-peer-urls", &self.proxy_url),
            flag("initial-cluster", &self.founders),
            flag("initial-cluster-token", &TOKEN),
            flag(
                "initial-cluster-state",
                &if self.is_added { "existing" } else { "new" },
            ),
            flag("cors", &plan.origin),
            flag("trace", &self.trace(plan).display()),
        ]
    }

    /// What its process does: `down`, `paused`, `starting` or `running`.
    pub fn state(&mut self) -> &'static str {
        let Some(process) = &mut self.process else {
            return "down";
        };
        if !matches!(process.try_wait(), Ok(None)) {
            self.ended();
            return "down";
        }
        if self.is_paused {
            return "paused";
        }
        self.is_ready =
            self.is_ready || TcpStream::connect_timeout(&self.client, CONNECT_TIME).is_ok();
        if self.is_ready { "running" } else { "starting" }
    }

    /// Starts it as another member with no data, which the cluster has added.
    pub fn start_as(&mut self, id: String, plan: &Plan, guard: &Guard) -> Result<(), String> {
        self.wipe(plan)?;
        (self.id, self.is_added) = (id, true);
        self.start(plan, guard)
    }

    /// The last thing that it has written before it ended by itself.
    pub fn last_words(&mut self, plan: &Plan) -> Option<String> {
        let is_down = self.state() == "down";
        if !is_down || self.is_killed {
            return None;
        }
        let end = end_of(&plan.folder.join(&self.name).join("log")).ok()?;
        let end = String::from_utf8_lossy(&end);
        // Why a node does not start. Indented lines follow it.
        let reason = end.lines().rfind(|line| line.starts_with("edgetcd: "));
        Some(reason.or(end.lines().last())?.to_owned())
    }

    /// Kills its process, as a crash does.
    pub fn kill(&mut self) -> Result<(), String> {
        let process = self.running()?;
        let killed = process.kill().and_then(|()| process.wait());
        killed.map_err(|error| format!("cannot kill {}: {error}", self.name))?;
        self.is_killed = true;
        self.ended();
        Ok(())
    }

    /// Stops its process where it is, until it is resumed.
    pub fn pause(&mut self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        self.is_paused = true;
        Ok(())
    }

    /// Lets a paused process continue.
    pub fn resume(&mut self) -> Result<(), String> {
        self.signal(Signal::CONT)?;
        self.is_paused = false;
        Ok(())
    }

    /// Kills its process and deletes its data.
    pub fn wipe(&mut self, plan: &Plan) -> Result<(), String> {
        if self.process.is_some() {
            self.kill()?;
        }
        let data = self.data(plan);
        match fs::remove_dir_all(&data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot delete {}: {error}", data.display()))
            }
            _ => Ok(()),
        }
    }

    fn running(&mut self) -> Result<&mut Child, String> {
        let name = &self.name;
        self.process
            .as_mut()
            .ok_or_else(|| format!("{name} does not run"))
    }

    fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let process = self.running()?;
        let Some(id) = Pid::from_raw(process.id() as i32) else {
            return Ok(());
        };
        // The process has not been waited for, so no other process has its id.
        kill_process(id, signal).map_err(|error| format!("cannot signal {}: {error}", self.name))
    }

    fn ended(&mut self) {
        self.process = None;
        self.proxy.refuse();
    }
}

/// The last bytes of a file.
fn end_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WORDS_BYTES)))?;
    let mut end = Vec::new();
    file.take(WORDS_BYTES).read_to_end(&mut end)?;
    Ok(end)
}

/// Stops all nodes as an operator does, so that they write the end of their traces. Those that take too long are killed.
pub fn stop(nodes: &mut [Node]) {
    for node in nodes.iter_mut() {
        let _ = node.signal(Signal::TERM);
        // A paused process receives the signal only then.
        let _ = node.signal(Signal::CONT);
    }
    let until = Instant::now() + STOP_TIME;
    for process in nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Creates a folder if it does not exist. One that contains something belongs to something else.
pub fn empty_folder(folder: &Path, flag: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("--{flag} {}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    match fs::read_dir(folder).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(format!(
            "--{flag} {}: not empty; name another folder",
            folder.display()
        )),
    }
}
