//! The lab's program: serves the lab, one HTML file, or runs a cluster of real nodes with handles.
//!
//! | command | file |
//! |---|---|
//! | `edgetcd-lab [FILE] [ADDRESS]` | `file.rs` |
//! | `edgetcd-lab cluster` | `cluster.rs`: starts `nodes.rs` and `proxy.rs` with `links.rs`, and performs the acts that `site.rs` receives; `join.rs`, `recording.rs` |
//! | `edgetcd-lab guard` | `guard.rs`: ends the nodes when the program that started them has ended |

mod cluster;
mod file;
mod guard;
mod join;
mod links;
mod nodes;
mod options;
mod proxy;
mod recording;
mod site;

use std::process::ExitCode;

const USAGE: &str = "usage: edgetcd-lab [FILE] [ADDRESS]
       edgetcd-lab cluster [OPTIONS]

The first form serves the lab in FILE (target/lab.html, built by `make lab`) at ADDRESS (127.0.0.1:2390) until it is
ended.

The second form starts a cluster of real nodes on this machine, and serves a page that shows them, kills, pauses and
restarts them, and cuts and delays their links. All nodes end with it.

  --members N       number of nodes, 1 to 7 (3)
  --listen ADDRESS  address of the page (127.0.0.1:2390); must be a loopback address
  --server PATH     the server (edgetcd beside this program)
  --folder DIR      data and logs of the nodes; kept (a temporary folder; removed at the end)
  --record DIR      writes what each node records to a file in DIR; the lab replays these files";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let done = match args.first().map(String::as_str) {
        Some("guard") => guard::run(),
        Some("cluster") => match options::parse(&args[1..]) {
            Ok(options) => cluster::run(options),
            Err(why) => return misused(&why),
        },
        _ if args.len() > 2 => return misused("too many arguments"),
        _ => match args.iter().find(|arg| arg.starts_with('-')) {
            Some(flag) => return misused(&format!("there is no flag {flag}")),
            None => file::serve(&args),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("edgetcd-lab: {why}");
            ExitCode::FAILURE
        }
    }
}

fn misused(why: &str) -> ExitCode {
    eprintln!("edgetcd-lab: {why}\n{USAGE}");
    ExitCode::from(2)
}
