//! A cluster of real nodes with handles, for the tests.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_edgetcd-lab");
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` returns something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "after {PATIENCE:?} there is not: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test, also if that fails.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts the program with these arguments, and its output in a pipe.
    pub fn start(command: &mut Command) -> Process {
        let started = command.stdout(Stdio::piped()).spawn();
        Process(started.expect("the program starts"))
    }

    /// The first line that it writes to its output.
    pub fn first_line(&mut self) -> String {
        let stdout = self.0.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        line
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("its end")
    }
}

/// A running `edgetcd-lab cluster`.
pub struct RealCluster {
    pub process: Process,
    pub url: String,
    pub folder: tempfile::TempDir,
}

impl RealCluster {
    pub fn start() -> RealCluster {
        RealCluster::start_with(&[])
    }

    /// Starts it in a folder of its own.
    pub fn start_with(flags: &[&str]) -> RealCluster {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(PROGRAM);
        command
            .args(["cluster", "--listen=127.0.0.1:0"])
            .arg(format!(
                "--folder={}",
                folder.path().join("nodes").display()
            ))
            .args(flags)
            .current_dir(folder.path());
        let mut process = Process::start(&mut command);
        let line = process.first_line();
        let url = line
            .strip_prefix("page: ")
            .and_then(|rest| rest.split(';').next());
        let url = url.unwrap_or_else(|| panic!("no URL: {line}")).to_owned();
        RealCluster {
            process,
            url,
            folder,
        }
    }

    /// Sends a request with these headers. Returns the status and the body.
    pub fn ask(&self, path: &str, act: Option<&str>, headers: &[(&str, &str)]) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.build().new_agent();
        let url = format!("{}{path}", self.url);
        let mut answer = match act {
            Some(act) => {
                let request = headers
                    .iter()
                    .fold(agent.post(&url), |request, (name, value)| {
                        request.header(*name, *value)
                    });
                request.send(act)
            }
            None => {
                let request = headers
                    .iter()
                    .fold(agent.get(&url), |request, (name, value)| {
                        request.header(*name, *value)
                    });
                request.call()
            }
        }
        .expect("an answer");
        (
            answer.status().as_u16(),
            answer.body_mut().read_to_string().expect("text"),
        )
    }

    pub fn wait_running(&self, nodes: usize) {
        until("running nodes", || {
            (self
                .ask("cluster", None, &[])
                .1
                .matches("\"running\"")
                .count()
                == nodes)
                .then_some(())
        });
    }

    /// Performs an act, which must succeed.
    pub fn act(&self, act: &str) {
        let (status, text) = self.ask("act", Some(act), &[]);
        assert_eq!(status, 200, "{act}: {text}");
    }

    /// The state of a member in the lab. Members are counted from 1.
    pub fn member(&self, number: usize) -> Value {
        let state: Value = serde_json::from_str(&self.ask("cluster", None, &[]).1).expect("JSON");
        state["members"][number - 1].clone()
    }

    /// The JSON at a path of a member's client URL, if it answers.
    pub fn read(&self, number: usize, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(number, path)?).ok()
    }

    /// The records of a member.
    pub fn records(&self, number: usize) -> Vec<Value> {
        let text = self
            .text(number, "/edgetcd/trace?wait=false")
            .unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"));
        lines.collect()
    }

    fn text(&self, number: usize, path: &str) -> Option<String> {
        let member = self.member(number);
        let url = member["client_urls"][0].as_str().expect("a URL");
        let mut answer = ureq::get(format!("{url}{path}")).call().ok()?;
        answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .ok()
    }

    /// The number of the member that all running members follow.
    pub fn leader(&self) -> usize {
        until("one leader", || {
            let running: Vec<usize> = (1..=3)
                .filter(|number| self.member(*number)["state"] == "running")
                .collect();
            let leaders: Option<Vec<Value>> = running
                .iter()
                .map(|number| Some(self.read(*number, "/edgetcd/status")?["leader"].clone()))
                .collect();
            let leaders = leaders?;
            let is_one = leaders.windows(2).all(|pair| pair[0] == pair[1]);
            (1..=3).find(|number| is_one && self.member(*number)["id"] == leaders[0])
        })
    }
}
