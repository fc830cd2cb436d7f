//! The command line client: see `edgetcd::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let endpoints = std::env::var("ETCDCTL_ENDPOINTS").ok();
    ExitCode::from(edgetcd::ctl::run(
        &args,
        endpoints.as_deref(),
        &mut std::io::stdin().lock(),
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    ))
}
