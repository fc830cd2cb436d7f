//! The first lines of the log: the identity of this node, its addresses, and its resources.

use super::stored::Stored;
use crate::config::Config;
use crate::http1::Port;
use crate::raft::NodeId;
use crate::urls::Url;
use crate::{ETCD_VERSION, http1, process};
use std::path::Path;

/// Logs one line per item, as one block.
pub(super) fn log(config: &Config, clients: &[Port], peers: &[Port], stored: &Stored) {
    log::info!(
        "edgetcd {} (the v2 API of etcd {ETCD_VERSION}), process {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    let members = &stored.addresses;
    log::info!(
        "  this is   {}, member {:x} of cluster {:x}",
        config.name,
        stored.identity.id,
        members.cluster
    );
    let wal = config.wal_dir.as_deref();
    let wal = wal.map_or_else(String::new, |dir| format!(", log in {}", with_space(dir)));
    log::info!("  data      in {}{wal}", with_space(&config.data_dir));
    let start = &stored.start;
    let snapshot = match start.snapshot.position.index.0 {
        0 => "no snapshot".to_owned(),
        index => format!("snapshot at {index} of {} bytes", stored.snapshot_bytes),
    };
    log::info!(
        "  log       last entry {}, term {}, {snapshot}",
        start.log.last.0,
        start.hard_state.term.0,
    );
    log::info!(
        "  clients   listening on {}, advertised as {}",
        listening(clients),
        list(&config.advertise_client_urls)
    );
    log::info!(
        "  peers     listening on {}, advertised as {}",
        listening(peers),
        list(&config.initial_advertise_peer_urls)
    );
    let listed = members.iter().map(|member| {
        let name = match member.name.as_str() {
            "" => format!("{:x}", member.id),
            name => name.to_owned(),
        };
        format!("{name}={}", member.peer_urls.join(","))
    });
    log::info!("  members   {}", listed.collect::<Vec<_>>().join(" "));
    log::info!(
        "  times     heartbeat every {} ms, election after {} ms, snapshot after {} writes",
        config.heartbeat_interval.as_millis(),
        config.election_timeout.as_millis(),
        config.snapshot_count
    );
    let memory = process::memory_bytes().map_or_else(|| "unknown".to_owned(), mib);
    log::info!(
        "  machine   {} cores, memory {memory}, {} descriptors",
        std::thread::available_parallelism().map_or(1, usize::from),
        http1::descriptor_limit()
    );
    warn_other_urls(config, stored);
}

/// Warns if the flags contain other peer URLs than the member table. These flags count only at a first start, so the
/// other members would not use the URLs in them.
fn warn_other_urls(config: &Config, stored: &Stored) {
    let me = NodeId(stored.identity.id);
    let Some(known) = stored
        .addresses
        .get(me)
        .map(|member| member.peer_urls.clone())
    else {
        return;
    };
    let mut given: Vec<String> = (config.initial_advertise_peer_urls.iter())
        .map(|url| url.as_str().to_owned())
        .collect();
    given.sort_unstable();
    let is_given =
        config.initial_advertise_peer_urls != Config::default().initial_advertise_peer_urls;
    if is_given && known != given {
        log::warn!(
            "the cluster uses the peer URLs {} for this member, but --initial-advertise-peer-urls is {}; to \
             change them: edgetcdctl member update {:x} {}",
            known.join(","),
            given.join(","),
            me.0,
            given.join(",")
        );
    }
}

/// A directory, and the space on its disk.
fn with_space(dir: &Path) -> String {
    let room = process::room(dir).map_or_else(String::new, |room| {
        format!(" ({} of {} free)", mib(room.free_bytes), mib(room.bytes))
    });
    format!("{}{room}", dir.display())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn listening(ports: &[Port]) -> String {
    let urls: Vec<String> = ports.iter().flat_map(Port::urls).collect();
    urls.join(" ")
}

fn list(urls: &[Url]) -> String {
    let urls: Vec<&str> = urls.iter().map(Url::as_str).collect();
    urls.join(" ")
}
