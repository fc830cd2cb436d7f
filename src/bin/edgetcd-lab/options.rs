//! The options of `edgetcd-lab cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// More members do not fit into the picture.
const MEMBERS_MAX: usize = 7;

/// What `edgetcd-lab cluster` is to do.
pub struct Options {
    /// Number of nodes.
    pub members: usize,
    /// Where the page is served: a loopback address. Port 0 is any free one.
    pub listen: SocketAddr,
    /// The server.
    pub server: PathBuf,
    /// For data and logs. None: a temporary folder.
    pub folder: Option<PathBuf>,
    /// For the files of trace records. None: the folder of the data.
    pub record: Option<PathBuf>,
}

/// Reads the arguments after `cluster`.
///
/// # Errors
/// The fault in them.
pub fn parse(args: &[String]) -> Result<Options, String> {
    let mut flags = getopts::Options::new();
    for name in ["members", "listen", "server", "folder", "record"] {
        flags.optopt("", name, "", "");
    }
    let given = flags.parse(args).map_err(|error| error.to_string())?;
    if let Some(extra) = given.free.first() {
        return Err(format!("cluster takes no argument {extra}"));
    }
    let members = given.opt_str("members").unwrap_or_else(|| "3".into());
    let count: usize = members.parse().unwrap_or(0);
    if !(1..=MEMBERS_MAX).contains(&count) {
        return Err(format!(
            "--members {members}: not a number from 1 to {MEMBERS_MAX}"
        ));
    }
    let listen = given
        .opt_str("listen")
        .unwrap_or_else(|| "127.0.0.1:2390".into());
    let address: Option<SocketAddr> = listen.parse().ok();
    let address = address.filter(|address| address.ip().is_loopback()).ok_or_else(|| {
        format!("--listen {listen}: not a loopback address such as 127.0.0.1:2390; anybody who reaches the page can kill nodes")
    })?;
    Ok(Options {
        members: count,
        listen: address,
        server: given.opt_str("server").map_or_else(beside, PathBuf::from),
        folder: given.opt_str("folder").map(PathBuf::from),
        record: given.opt_str("record").map(PathBuf::from),
    })
}

/// The server in the folder of this program.
fn beside() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.with_file_name("edgetcd")
}
