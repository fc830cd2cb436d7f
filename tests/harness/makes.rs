//! Runs the commands that a user types at a terminal, such as `make cluster` and `make kill NODE=2`, with a folder
//! and ports of the test's own. Linux only, like these targets.
//!
//! make uses the programs that Cargo built for the tests, so make itself builds nothing.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::server::free_address;
use super::wait_for;

/// Time limit for starting or stopping several processes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough ports for a cluster of five nodes and one more.
const PORTS: u16 = 12;

/// A folder and ports for one cluster. All processes there are ended when the test ends.
pub struct Makes {
    folder: TempDir,
    port: u16,
    /// A file that bash reads before each script.
    bash_env: Option<PathBuf>,
}

/// Exit status and output of a make.
pub struct Printed {
    pub status: ExitStatus,
    pub text: String,
}

/// A running `make` in its own process group, as at a terminal.
pub struct Terminal {
    make: Child,
    output: PathBuf,
}

/// Finds `count` consecutive free ports. Returns the first.
fn free_ports(count: u16) -> u16 {
    let (mut first, mut next) = (0, 0);
    while next < first + count || first == 0 {
        let port = free_address().port();
        if port != next {
            first = port;
        }
        next = port + 1;
    }
    first
}

impl Makes {
    /// Needs make, bash 5 or newer, and /proc.
    pub fn new() -> Makes {
        let runs = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let bash = "test ${BASH_VERSINFO[0]} -ge 5 && test -r /proc/self/stat";
        assert!(
            runs("make", &["--version"]) && runs("bash", &["-c", bash]),
            "this test needs make, bash 5 and /proc"
        );
        let folder = tempfile::Builder::new().prefix("edgetcd-make-").tempdir();
        Makes {
            folder: folder.expect("a folder"),
            port: free_ports(PORTS),
            bash_env: None,
        }
    }

    /// The folder of the cluster.
    pub fn cluster_dir(&self) -> PathBuf {
        self.folder.path().join("cluster.etcd")
    }

    /// The client port of node 1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The command `make` with these arguments, not started yet.
    fn command(&self, words: &[&str]) -> Command {
        // If a shell's `&` or nohup has set signals to be ignored, bash cannot catch them. So reset them.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", "make", "--old-file=build"])
            .arg("--no-print-directory")
            .arg(concat!("EDGETCD=", env!("CARGO_BIN_EXE_edgetcd")))
            .arg(concat!("EDGETCDCTL=", env!("CARGO_BIN_EXE_edgetcdctl")))
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CLUSTER_DIR", self.cluster_dir())
            .env("BASE_PORT", self.port.to_string())
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .stdin(Stdio::null());
        if let Some(file) = &self.bash_env {
            command.env("BASH_ENV", file);
        }
        command
    }

    /// Runs `make` and waits for its end.
    pub fn run(&self, words: &[&str]) -> Printed {
        let output = self.folder.path().join("printed");
        let file = File::create(&output).expect("a file");
        let status = self
            .command(words)
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .status();
        Printed {
            status: status.expect("make runs"),
            text: fs::read_to_string(output).expect("text"),
        }
    }

    /// Runs `make`, which must succeed. Returns its output.
    pub fn done(&self, words: &[&str]) -> String {
        let Printed { status, text } = self.run(words);
        assert!(status.success(), "make {}: {text}", words.join(" "));
        text
    }

    /// Runs `make`, which must fail. Returns its output.
    pub fn refused(&self, words: &[&str]) -> String {
        let Printed { status, text } = self.run(words);
        assert!(!status.success(), "make {}: {text}", words.join(" "));
        text
    }

    /// Starts a `make` that does not end by itself.
    pub fn terminal(&self, words: &[&str]) -> Terminal {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let output = self.folder.path().join(format!("terminal-{number}"));
        let file = File::create(&output).expect("a file");
        let make = self
            .command(words)
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("make runs");
        Terminal { make, output }
    }

    /// Makes each bash script wait 30 ms before each of its commands, once the returned file exists. So a signal can
    /// arrive before any of them. For terminals that start after this call.
    pub fn slow_scripts(&mut self) -> PathBuf {
        let slow = self.folder.path().join("slow");
        let script = format!(
            "set -o functrace; trap '[ ! -e {} ] || sleep 0.03' DEBUG",
            slow.display()
        );
        let file = self.folder.path().join("bash-env");
        fs::write(&file, script).expect("a file");
        self.bash_env = Some(file);
        slow
    }

    /// The output of edgetcdctl through a node. None if it fails.
    pub fn ctl(&self, node: u16, words: &[&str]) -> Option<String> {
        let url = format!("http://127.0.0.1:{}", self.port + 2 * (node - 1));
        let output = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
            .args(["--endpoints", &url])
            .args(words)
            .output()
            .expect("edgetcdctl runs");
        let text = String::from_utf8(output.stdout).expect("text");
        output.status.success().then(|| text.trim_end().to_owned())
    }

    /// The processes with this test's folder in their command line.
    pub fn living(&self) -> Vec<(Pid, String)> {
        let name = self.folder.path().to_str().expect("a name of letters");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("processes").flatten() {
            let number = entry.file_name().to_string_lossy().parse().ok();
            let Some(pid) = number.and_then(Pid::from_raw) else {
                continue;
            };
            // A process that ends meanwhile has no command line.
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(name) {
                found.push((pid, words));
            }
        }
        found
    }

    /// The first node that `make status` shows in this state.
    pub fn node_that_is(&self, state: &str) -> Option<u16> {
        let text = self.run(&["status"]).text;
        let mut rows = text.lines().map(|line| line.split_whitespace());
        rows.find_map(|mut row| {
            let node = row.next()?.strip_prefix('n')?.parse().ok()?;
            (row.nth(1)? == state).then_some(node)
        })
    }
}

impl Drop for Makes {
    fn drop(&mut self) {
        for (pid, _) in self.living() {
            // The process may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Terminal {
    pub fn text(&self) -> String {
        fs::read_to_string(&self.output).expect("text")
    }

    /// Waits until the output contains `what`.
    pub fn shows(&mut self, what: &str) {
        let described = format!("{what:?} from make");
        wait_for(&described, PATIENCE, || {
            let ended = self.make.try_wait().expect("a state");
            let text = self.text();
            assert!(
                ended.is_none() || text.contains(what),
                "make ended without {what:?}: {text}"
            );
            text.contains(what).then_some(())
        });
    }

    /// Sends a signal to make and to its child processes, like a key at a terminal.
    pub fn signal(&self, signal: Signal) {
        let group = Pid::from_child(&self.make);
        kill_process_group(group, signal).expect("it runs");
    }

    /// Sends a signal several times, 40 ms apart, until make has ended, like a user who is impatient.
    pub fn signal_often(&mut self, signal: Signal) {
        let group = Pid::from_child(&self.make);
        wait_for("the end of make", PATIENCE, || {
            let ended = self.make.try_wait().expect("a state");
            if ended.is_none() {
                // make may have ended meanwhile.
                let _ = kill_process_group(group, signal);
                sleep(Duration::from_millis(40));
            }
            ended
        });
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the end of make", PATIENCE, || {
            self.make.try_wait().expect("a state")
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.make.kill();
        let _ = self.make.wait();
    }
}
