//! An HTTP server in its own process, to measure the memory, CPU time and descriptors of a process.
//!
//! The process is this test binary again. A variable in its environment makes it run only [`a_door_for_others`].

use crate::support::{Client, Place};
use edgetcd::http1::{Limits, raise_descriptor_limit};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

const VARIABLE: &str = "EDGETCD_DOOR_CHILD";

/// The settings of the child that differ from the defaults.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    /// Its descriptor limit. 0: the highest allowed.
    pub descriptors: u64,
    /// Its connection limit. 0: the one derived from the descriptors.
    pub connections: usize,
}

/// The child's side: serves until its standard input ends. Without the variable there is no parent, and the test only
/// shows that a server can be opened with these settings.
#[test]
fn a_door_for_others() {
    let settings = std::env::var(VARIABLE).ok();
    let given = settings
        .as_deref()
        .unwrap_or("0 0")
        .split_once(' ')
        .expect("two numbers");
    let descriptors = given.0.parse().expect("a number");
    let connections = given.1.parse().expect("a number");
    if descriptors > 0 {
        let limit = Rlimit {
            current: Some(descriptors),
            maximum: Some(descriptors),
        };
        setrlimit(Resource::Nofile, limit).expect("lower it");
    }
    raise_descriptor_limit();
    let mut limits = Limits::default();
    if connections > 0 {
        limits.connections = connections;
    }
    let place = Place::open(2, limits);
    place.serves();
    if settings.is_some() {
        println!("\naddress {}", place.address);
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
    place.http_server.stop(Duration::from_secs(1));
}

/// The parent's side.
pub struct Child {
    process: Process,
    pub address: SocketAddr,
}

impl Child {
    pub fn start(settings: Settings) -> Child {
        let mut process = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child::a_door_for_others", "--nocapture"])
            .env(
                VARIABLE,
                format!("{} {}", settings.descriptors, settings.connections),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the child");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("address ")?.parse().ok())
            .expect("the child says its address");
        Child { process, address }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    #[track_caller]
    pub fn serves(&self) {
        self.client().is_served();
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.process.id());
        std::fs::read_to_string(path).expect("the child lives")
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> usize {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kib = line
            .trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .expect("a number");
        kib * 1024
    }

    /// CPU time used so far.
    #[allow(dead_code, reason = "the tests over TLS do not need it")]
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields: Vec<_> = fields.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        let second = rustix::param::clock_ticks_per_second();
        Duration::from_millis((ticks(11) + ticks(12)) * 1000 / second)
    }

    #[allow(dead_code, reason = "the tests over TLS do not need it")]
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(path).expect("the child lives").count()
    }

    #[allow(dead_code, reason = "the tests over TLS do not need it")]
    pub fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.process.id());
        std::fs::read_dir(path).expect("the child lives").count()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
