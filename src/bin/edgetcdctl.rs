//! The command line client: see `edgetcd::ctl`.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;

use edgetcd::ctl::{World, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let mut world = World {
        env: &|name| std::env::var(name).ok(),
        stdin: &mut stdin().lock(),
        stdout: &mut stdout().lock(),
        stderr: &mut stderr().lock(),
        stdout_is_terminal: stdout().is_terminal(),
        stderr_is_terminal: stderr().is_terminal(),
    };
    ExitCode::from(run(&args, &mut world))
}
