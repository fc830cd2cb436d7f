//! The server: parses the flags and runs a node until it is stopped.

use crossbeam_channel::{Receiver, bounded, select};
use edgetcd::config::{Config, Stop};
use edgetcd::logging::Format;
use edgetcd::node::Node;
use edgetcd::process;
use edgetcd::systemd::Supervisor;
use edgetcd::{logging, threads};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
    SIGXCPU, SIGXFSZ,
};
use signal_hook::flag::{register, register_conditional_shutdown};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let config = match Config::from_args(&args, std::env::vars_os()) {
        Ok(config) => config,
        Err(stop) => return end(&stop),
    };
    logging::start(config.log_level, config.log_format);
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        // A program that reads JSON logs reads only JSON.
        Err(stop) if config.log_format == Format::Json => {
            let why = stop.stderr.trim_end();
            log::error!("{}", why.strip_prefix("edgetcd: ").unwrap_or(why));
            logging::flush();
            ExitCode::from(stop.status)
        }
        Err(stop) => end(&stop),
    }
}

/// Prints the reason why no node runs, or the output of `--help` or `--version`.
fn end(stop: &Stop) -> ExitCode {
    logging::flush();
    print!("{}", stop.stdout);
    eprint!("{}", logging::printable(&stop.stderr));
    ExitCode::from(stop.status)
}

fn run(config: &Config) -> Result<(), Stop> {
    config
        .warnings
        .iter()
        .for_each(|warning| log::warn!("{warning}"));
    let starting = Arc::new(AtomicBool::new(true));
    let signals = catch_signals(&starting).map_err(|error| {
        Stop::fatal(
            format!("cannot install signal handlers: {error}"),
            "see: ulimit -n",
        )
    })?;
    let supervisor = Supervisor::new(|name| std::env::var_os(name));
    let extending = supervisor.extend().map_err(no_thread)?;
    let report = |what: &str| supervisor.notify(&[&format!("STATUS={what}")]);
    let node = Node::start_reporting(config, &report)?;
    drop(extending);
    starting.store(false, Ordering::SeqCst);
    let ready = log_ready(config, &node);
    supervisor.notify(&["READY=1", &format!("STATUS={ready}")]);
    let watching = supervisor.watch(node.turns()).map_err(no_thread)?;
    #[cfg(target_os = "linux")]
    process::release_code();
    let end = wait_for_the_end(signals, node.removed())?;
    supervisor.notify(&["STOPPING=1", "STATUS=stopping"]);
    drop(watching);
    let why = match end {
        End::Signal => None,
        End::Removed => Some(node.why_removed(config)),
    };
    node.stop();
    log::info!("stopped");
    logging::flush();
    why.map_or(Ok(()), Err)
}

/// The reason why a running node ends.
enum End {
    Signal,
    Removed,
}

/// Waits for a signal, or for the removal of this member from its cluster.
fn wait_for_the_end(mut signals: Signals, removed: &Receiver<()>) -> Result<End, Stop> {
    let (sender, receiver) = bounded(1);
    let listen = move || {
        if let Some(signal) = signals.forever().next() {
            let _ = sender.send(signal);
        }
    };
    threads::critical("signals", listen).map_err(no_thread)?;
    select! {
        recv(receiver) -> signal => {
            log::info!("signal {}: stopping", signal.unwrap_or(SIGTERM));
            Ok(End::Signal)
        }
        recv(removed) -> notified => {
            if notified.is_err() {
                // The thread that would report has ended, and the process is about to end.
                std::thread::park();
            }
            log::info!("removed from the cluster: stopping");
            Ok(End::Removed)
        }
    }
}

fn no_thread(error: std::io::Error) -> Stop {
    Stop::fatal(format!("cannot start a thread: {error}"), "see: ulimit -u")
}

/// Signals that stop the node cleanly. Supervisors send the first one, and terminals the next three. Managers of
/// containers, or of a failing power supply, send the last one.
const STOPPING: &[i32] = &[
    SIGTERM,
    SIGINT,
    SIGHUP,
    SIGQUIT,
    #[cfg(target_os = "linux")]
    rustix::process::Signal::POWER.as_raw(),
];

/// Signals without a meaning for this program. Their default action would end it without a clean stop. A write beyond
/// `ulimit -f` then fails, and the log reports that.
const MEANINGLESS: [i32; 8] = [
    SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXCPU, SIGXFSZ,
];

/// Until the node is ready (a long log or a slow disk may delay that), a signal ends the process at once. This is
/// safe: nothing was acknowledged yet, and the disk is as after any crash. Later signals are stored until the main
/// thread reads them.
///
/// If the parent process set a signal to be ignored, as `nohup` does with SIGHUP, it stays ignored. The first process
/// of a container has no default actions: without a handler, a signal would have no effect there.
fn catch_signals(starting: &Arc<AtomicBool>) -> std::io::Result<Signals> {
    let ignored = ignored_signals();
    let stopping = STOPPING
        .iter()
        .copied()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let stopping: Vec<i32> = stopping.collect();
    for signal in &stopping {
        register_conditional_shutdown(*signal, 0, starting.clone())?;
    }
    for signal in MEANINGLESS {
        register(signal, Arc::default())?;
    }
    Signals::new(stopping)
}

/// A bit for each signal that was ignored before this program began. The lowest bit is signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// A client URL as curl takes it. Only the operator knows which CA has signed a certificate.
fn for_curl(url: &str) -> String {
    let Some((scheme, place)) = url.split_once("://") else {
        return url.to_owned();
    };
    match scheme {
        "unix" => format!("--unix-socket {place} http://localhost"),
        "unixs" => format!("--cacert CA-FILE --unix-socket {place} https://localhost"),
        _ => {
            // Not every shell accepts the brackets of `[::]`.
            let url = url
                .replace("//[::]:", "//127.0.0.1:")
                .replace("//0.0.0.0:", "//127.0.0.1:");
            match scheme {
                "https" => format!("--cacert CA-FILE {url}"),
                _ => url,
            }
        }
    }
}

/// Logs that the node serves clients, and what to type next. Returns the first part.
fn log_ready(config: &Config, node: &Node) -> String {
    let addresses = node.client_urls();
    let ready = format!(
        "{} is ready: clients on {}",
        config.name,
        addresses.join(", ")
    );
    log::info!("{ready}");
    if let Some(first) = addresses.first() {
        log::info!(
            "try: curl {}/v2/keys/hello -XPUT -d value=world",
            for_curl(first)
        );
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::for_curl;

    #[test]
    fn urls_are_shown_as_curl_takes_them() {
        let cases = [
            ("http://0.0.0.0:1", "http://127.0.0.1:1"),
            ("https://[::]:1", "--cacert CA-FILE https://127.0.0.1:1"),
            ("unix:///a.sock", "--unix-socket /a.sock http://localhost"),
            (
                "unixs:///a.sock",
                "--cacert CA-FILE --unix-socket /a.sock https://localhost",
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(for_curl(url), expected);
        }
    }
}
