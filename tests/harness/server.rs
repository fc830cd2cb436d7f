//! One server process, started as a user would start it, and ended with the test.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Answer, Connection, form_request};
use super::process::Process;
use super::secure::Config;
use super::wait_for;

/// Time limit for a start, which may read a log. A debug build on a busy machine is slow.
const READY_WITHIN: Duration = Duration::from_secs(20);
const LOG_LINES_SHOWN: usize = 60;

pub struct Server {
    child: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    /// The value of `--initial-cluster`. Empty: this server alone.
    cluster: String,
    flags: Vec<String>,
    /// How the test connects to it. None: without TLS.
    secure: Option<Config>,
    /// The program, if it is another one than that of all tests.
    program: Option<PathBuf>,
    /// Words before the program, such as `ip netns exec NAME`.
    wrapper: Vec<String>,
    /// Environment variables in addition to those of the test.
    variables: Vec<(String, String)>,
    folder: TempDir,
}

/// The addresses of a cluster member.
#[derive(Clone, Debug)]
pub struct Place {
    pub client: SocketAddr,
    pub peer: SocketAddr,
    /// The network namespace it runs in. None: that of the test.
    pub namespace: Option<String>,
}

impl Place {
    /// Two free ports of the loopback interface.
    pub fn free() -> Place {
        Place {
            client: free_address(),
            peer: free_address(),
            namespace: None,
        }
    }
}

impl Server {
    /// Starts a new server with these flags in addition to addresses and data directory. Waits until it serves.
    pub fn start(flags: &[&str]) -> Server {
        let mut server = Server::prepare(flags);
        server.launch();
        server
    }

    /// Starts a new server with this data directory.
    pub fn start_on(data: &Path, flags: &[&str]) -> Server {
        let mut server = Server::prepare(flags);
        server.data = data.to_owned();
        server.launch();
        server
    }

    /// Prepares a server without starting its process.
    pub fn prepare(flags: &[&str]) -> Server {
        Server::prepare_at(&Place::free(), "", flags)
    }

    /// Prepares a member without starting its process. `cluster` is its `--initial-cluster`.
    pub fn prepare_at(place: &Place, cluster: &str, flags: &[&str]) -> Server {
        let folder = tempfile::Builder::new()
            .prefix("edgetcd-")
            .tempdir()
            .expect("a folder");
        Server {
            child: None,
            client: place.client,
            peer: place.peer,
            data: folder.path().join("data"),
            cluster: cluster.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            secure: None,
            program: None,
            wrapper: match &place.namespace {
                Some(name) => ["ip", "netns", "exec", name].map(str::to_owned).to_vec(),
                None => Vec::new(),
            },
            variables: Vec::new(),
            folder,
        }
    }

    /// Starts the process and waits until it serves.
    pub fn launch(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Waits until the process serves.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_healthy() {
            if let Some(status) = self.ended() {
                panic!(
                    "the server ended with {status} before it served:\n{}",
                    self.log()
                );
            }
            assert!(
                Instant::now() < deadline,
                "not ready within {READY_WITHIN:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts the process and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program()[0]));
        self.child = Some(child);
    }

    /// The whole command line. Also used for a second process on the same data.
    pub fn command(&self) -> Command {
        let program = match &self.program {
            Some(path) => vec![path.to_string_lossy().into_owned()],
            None => program(),
        };
        let words = [self.wrapper.clone(), program].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("--data-dir").arg(&self.data);
        for (flag, address) in [
            ("listen-client-urls", self.client),
            ("advertise-client-urls", self.client),
            ("listen-peer-urls", self.peer),
            ("initial-advertise-peer-urls", self.peer),
        ] {
            command.arg(format!("--{flag}=http://{address}"));
        }
        let alone = format!("default=http://{}", self.peer);
        let cluster = if self.cluster.is_empty() {
            &alone
        } else {
            &self.cluster
        };
        command.arg(format!("--initial-cluster={cluster}"));
        command.args(&self.flags);
        command
    }

    /// Runs another program from the next start on; `None`: that of all tests.
    pub fn use_program(&mut self, program: Option<PathBuf>) {
        self.program = program;
    }

    /// Takes another free address for the peer URL, from the next start on. Returns it.
    pub fn move_peer(&mut self) -> SocketAddr {
        self.peer = free_address();
        self.peer
    }

    /// Switches to other addresses than those of the running process, for a second server on the same data.
    pub fn move_elsewhere(&mut self) {
        self.client = free_address();
        self.peer = free_address();
    }

    pub fn address(&self) -> SocketAddr {
        self.client
    }

    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// Adds a flag, or the same flag with another value, for the next start.
    pub fn add_flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Sets the words before the program, from the next start on.
    pub fn wrap(&mut self, words: &[&str]) {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Sets an environment variable, from the next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a flag, from the next start on.
    pub fn drop_flag(&mut self, flag: &str) {
        self.flags.retain(|given| given != flag);
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Sets the data directory, from the next start on.
    pub fn keep_data_in(&mut self, folder: &Path) {
        self.data = folder.to_owned();
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn process(&self) -> Process {
        Process(self.pid())
    }

    /// Lets the test connect to it with TLS, from now on. The flags must fit.
    pub fn ask_with(&mut self, config: Config) {
        self.secure = Some(config);
    }

    /// Opens a new connection to the client port.
    pub fn connect(&self) -> Connection {
        self.try_connect()
            .unwrap_or_else(|error| panic!("connect: {error}"))
    }

    pub fn try_connect(&self) -> io::Result<Connection> {
        Connection::open_with(self.client, self.secure.as_ref())
    }

    /// Sends one request on its own connection.
    pub fn ask(&self, method: &str, target: &str, form: Option<&str>) -> Answer {
        let answer = self.connect().ask(method, target, form);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// The same for a process that may have ended, be paused, or have no leader.
    pub fn try_ask(
        &self,
        method: &str,
        target: &str,
        form: Option<&str>,
        within: Duration,
    ) -> io::Result<Answer> {
        let mut connection = self.try_connect()?;
        connection.write(&form_request(method, target, form))?;
        connection.answer(method == "HEAD", within)
    }

    pub fn is_healthy(&self) -> bool {
        let answer = self.try_ask("GET", "/health", None, Duration::from_secs(2));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The exit status, if the process has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().expect("a status"))
    }

    /// Removes the data, like a machine that gets a new disk. The process must have ended.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(&self.data).expect("the data directory");
    }

    /// Sends SIGKILL: the process cannot log or flush anything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill -9");
            child.wait().expect("a status");
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).expect("a signal to an own child");
    }

    /// Waits for the process to end. Returns how long that took.
    pub fn wait_end(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = wait_for("the end of the process", within, || self.ended());
        self.child = None;
        (status, start.elapsed())
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end(Duration::from_secs(10)).0
    }

    /// Everything that its processes have printed.
    pub fn whole_log(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the server (pid {:?})",
                self.child.as_ref().map(Child::id)
            );
            eprintln!("{}\n---", self.log());
        }
        if let Some(mut child) = self.child.take() {
            // If the process has already ended by itself, this does not matter here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The server under test: this package's, or the command line in `EDGETCD_SERVER`.
pub fn program() -> Vec<String> {
    match std::env::var("EDGETCD_SERVER") {
        Ok(line) => line.split_whitespace().map(str::to_owned).collect(),
        Err(_) => vec![env!("CARGO_BIN_EXE_edgetcd").to_owned()],
    }
}

/// Whether the limits of a release build apply: for our own release build, or for a server set in the environment.
pub fn is_release() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("EDGETCD_SERVER").is_some()
}

/// Finds a port on which no process listens, below the range of ports for outgoing connections. Tests run in parallel
/// in several processes, so each process starts its search at another port.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 11_000;
    const PORTS: u16 = 20_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(0x9e37_79b1) >> 16;
    loop {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(step < PORTS, "no free port");
        let port = FIRST + ((start + u32::from(step)) % u32::from(PORTS)) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
