//! systemd: the notifications to the supervisor, and the unit of `src/packaging/systemd`.

#![cfg(target_os = "linux")]

mod harness;

use harness::Server;
use harness::server::{Place, free_address, program};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(server: &Server, name: &str, more: &[(&str, &str)]) -> Running {
        let mut command = server.command();
        command
            .env("NOTIFY_SOCKET", name)
            .envs(more.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Running(command.spawn().expect("it starts"))
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The supervisor's end of the socket.
struct Ear {
    socket: UnixDatagram,
    name: String,
    _folder: tempfile::TempDir,
}

impl Ear {
    fn new(is_abstract: bool) -> Ear {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify").display().to_string();
        let (socket, name) = if is_abstract {
            let address = SocketAddr::from_abstract_name(&path).expect("a name");
            (UnixDatagram::bind_addr(&address), format!("@{path}"))
        } else {
            (UnixDatagram::bind(&path), path)
        };
        Ear {
            socket: socket.expect("a socket"),
            name,
            _folder: folder,
        }
    }

    /// The lines of the next datagram. None if nothing arrives within that time.
    fn next(&self, within: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(within)).expect("set");
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        Some(text.lines().map(str::to_owned).collect())
    }

    /// All lines up to and including this one.
    fn until(&self, line: &str) -> Vec<String> {
        let deadline = Instant::now() + SOON;
        let mut all = Vec::new();
        while !all.iter().any(|heard| heard == line) {
            assert!(Instant::now() < deadline, "no {line}, but {all:?}");
            all.extend(self.next(Duration::from_secs(1)).unwrap_or_default());
        }
        all
    }
}

#[test]
fn ready_is_told_when_it_serves_and_stopping_when_it_was_told_to() {
    for is_abstract in [false, true] {
        let ear = Ear::new(is_abstract);
        let server = Server::prepare(&[]);
        let running = Running::start(&server, &ear.name, &[]);
        let lines = ear.until("READY=1");
        assert!(server.is_healthy(), "ready means ready");
        let address = server.address().to_string();
        let status = |line: &String| line.starts_with("STATUS=") && line.contains(&address);
        assert!(lines.iter().any(status), "{lines:?}");
        assert!(
            !lines.contains(&"WATCHDOG=1".to_owned()),
            "there is no watchdog"
        );
        running.terminate();
        ear.until("STOPPING=1");
    }
}

#[test]
fn a_member_that_waits_for_a_majority_asks_for_more_time() {
    let ear = Ear::new(false);
    let places = [Place::free(), Place::free(), Place::free()];
    let names = ["a", "b", "c"].iter().zip(&places);
    let cluster: Vec<String> = names
        .map(|(name, place)| format!("{name}=http://{}", place.peer))
        .collect();
    let cluster = cluster.join(",");
    let one = Server::prepare_at(&places[0], &cluster, &["--name=a"]);
    let _one = Running::start(&one, &ear.name, &[]);
    let mut lines = ear.until("EXTEND_TIMEOUT_USEC=30000000");
    // The first request times out after two election timeouts.
    let waits = |line: &String| line.starts_with("STATUS=waiting for a majority of the 3 members");
    while !lines.iter().any(waits) {
        lines.extend(ear.next(SOON).expect("it tells"));
    }
    lines.extend(ear.until("EXTEND_TIMEOUT_USEC=30000000"));
    assert!(!lines.contains(&"READY=1".to_owned()), "{lines:?}");
    let mut two = Server::prepare_at(&places[1], &cluster, &["--name=b"]);
    two.launch();
    ear.until("READY=1");
    let more = ear.next(Duration::from_secs(6)).unwrap_or_default();
    assert!(
        !more.iter().any(|line| line.starts_with("EXTEND")),
        "{more:?}"
    );
}

#[test]
fn the_watchdog_is_fed_as_often_as_it_wants() {
    let ear = Ear::new(false);
    let server = Server::prepare(&[]);
    let _running = Running::start(&server, &ear.name, &[("WATCHDOG_USEC", "1000000")]);
    ear.until("READY=1");
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(
            ear.next(Duration::from_secs(1)).expect("fed in time"),
            ["WATCHDOG=1"]
        );
    }
    assert!(
        begun.elapsed() > Duration::from_millis(1500),
        "not more often"
    );
}

// The unit file -----------------------------------------------------------------------------------

fn packaged(name: &str) -> String {
    let path = format!(
        "{}/src/packaging/systemd/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn unit() -> String {
    packaged("edgetcd.service")
}

fn values(unit: &str, name: &str) -> Vec<String> {
    let joined = unit.replace("\\\n", " ");
    let lines = joined
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// The lines of the settings file that the unit names.
fn variables() -> Vec<(String, String)> {
    let text = packaged("edgetcd.env");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| line.trim_start_matches("ETCD_"));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').expect("NAME=value");
        (name.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

#[test]
fn what_the_unit_tells_is_what_the_server_is_told() {
    let unit = unit();
    let program = program();
    let help = Command::new(&program[0])
        .args(&program[1..])
        .arg("--help")
        .output()
        .expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let variables = variables();
    assert!(variables.len() >= 7, "{variables:?}");
    for (name, _) in &variables {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let known = help.split_whitespace().any(|word| word == flag);
        assert!(known, "the server has no {flag}:\n{help}");
    }
    let data = variables.iter().find(|(name, _)| name == "DATA_DIR");
    let (_, data) = data.expect("a data directory");
    let state = values(&unit, "StateDirectory").remove(0);
    // The data directory is below that folder, so that it can be moved aside: systemd manages the folder itself.
    assert!(data.starts_with(&format!("/var/lib/{state}/")), "{data}");
    assert_eq!(values(&unit, "Type"), ["notify"]);
    assert_eq!(values(&unit, "Restart"), ["on-failure"]);
    for name in [
        "ExecStart",
        "EnvironmentFile",
        "LimitNOFILE",
        "User",
        "WatchdogSec",
        "NoNewPrivileges",
    ] {
        assert_eq!(values(&unit, name).len(), 1, "{name}");
    }
}

/// With those variables and other paths, the server becomes ready.
#[test]
fn the_server_starts_from_the_variables_of_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let ear = Ear::new(false);
    let ports = [(); 2].map(|()| free_address().port());
    let program = program();
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).env("NOTIFY_SOCKET", &ear.name);
    for (name, value) in variables() {
        let value = value
            .replace("/var/lib/edgetcd", &folder.path().display().to_string())
            .replace(":2379", &format!(":{}", ports[0]))
            .replace(":2380", &format!(":{}", ports[1]));
        command.env(format!("ETCD_{name}"), value);
    }
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Running(command.spawn().expect("it starts"));
    ear.until("READY=1");
    assert!(folder.path().join("data/member/identity").exists());
}
