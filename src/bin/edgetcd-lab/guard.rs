//! Ends the nodes when the program that has started them has ended, for whatever reason: also after SIGKILL, when that
//! program cannot do it itself.
//!
//! The guard is a process that leads a process group, and the nodes are in that group. It waits for the end of its
//! input, a pipe that closes with the program, and then kills the group. So no process id can be mistaken, and Ctrl-C in
//! the terminal reaches only the program.

use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The running guard. Dropping it kills every process in its group.
pub struct Guard {
    process: Child,
}

impl Guard {
    /// Starts the guard. It is this program with the argument `guard`.
    pub fn start() -> Result<Guard, String> {
        let failed =
            |error: io::Error| format!("cannot start the process that ends the nodes: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("guard").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let process = command.spawn().map_err(failed)?;
        Ok(Guard { process })
    }

    /// Lets a process begin in the group.
    pub fn keep(&self, command: &mut Command) {
        // An id of a process fits.
        command.process_group(self.process.id() as i32);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The guard itself.
pub fn run() -> Result<(), String> {
    if getpgrp() != getpid() {
        return Err(
            "guard: only edgetcd-lab itself starts this, in a process group of its own".into(),
        );
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
    kill_current_process_group(Signal::KILL).map_err(|error| format!("guard: {error}"))
}
