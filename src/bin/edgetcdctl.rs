//! The command line client. See `edgetcd::ctl`.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;
use std::thread::{Builder, JoinHandle};

use edgetcd::ctl::{STACK_BYTES, World, run};

fn main() -> ExitCode {
    let client = Builder::new().stack_size(STACK_BYTES).spawn(run_here);
    match client.map(JoinHandle::join) {
        Ok(Ok(status)) => ExitCode::from(status),
        // `run` has already printed the error on stderr.
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("edgetcdctl: cannot start a thread: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_here() -> u8 {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut world = World {
        env: &|name| std::env::var(name).ok(),
        stdin: &mut stdin().lock(),
        stdout: &mut stdout().lock(),
        // Not locked, because threads that send requests to several members at once also write to it.
        stderr: &mut stderr(),
        stdout_is_terminal: stdout().is_terminal(),
        stderr_is_terminal: stderr().is_terminal(),
    };
    run(&args, &mut world)
}
