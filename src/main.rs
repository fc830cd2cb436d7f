//! The server: flags in, a node that runs until it is told to stop.

use edgetcd::config::{Config, Stop};
use edgetcd::logging;
use edgetcd::node::Node;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            logging::flush();
            print!("{}", stop.stdout);
            eprint!("{}", stop.stderr);
            ExitCode::from(stop.status)
        }
    }
}

fn run() -> Result<(), Stop> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let config = Config::from_args(&args, std::env::vars_os())?;
    logging::start(config.log_level, config.log_format);
    config
        .warnings
        .iter()
        .for_each(|warning| log::warn!("{warning}"));
    // Caught from the beginning: a signal while the log is being recovered ends in a clean stop too.
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Stop::fatal(format!("no signal handlers: {error}"), "see: ulimit -n"))?;
    let node = Node::start(&config)?;
    say_ready(&config, &node);
    if let Some(signal) = signals.forever().next() {
        log::info!("signal {signal}: stopping");
    }
    node.stop();
    log::info!("stopped");
    logging::flush();
    Ok(())
}

/// What this node is, where it listens, and what to type next.
fn say_ready(config: &Config, node: &Node) {
    let addresses: Vec<String> = node
        .client_addresses()
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    log::info!(
        "{} {} is ready: name {}, data in {}, clients on {}",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        config.name,
        config.data_dir.display(),
        addresses.join(", "),
    );
    if let Some(first) = addresses.first() {
        log::info!("try: curl {first}/v2/keys/hello -XPUT -d value=world");
    }
}
