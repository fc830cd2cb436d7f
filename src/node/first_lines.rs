//! The first lines of the log: the identity of this node, its addresses, and its resources.

use super::stored::Stored;
use crate::config::Config;
use crate::http1::Port;
use crate::raft::NodeId;
use crate::urls::{Scheme, Url};
use crate::{ETCD_VERSION, http1, process};
use std::net::IpAddr;
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
    if let Some(file) = &config.trace {
        log::info!("  trace     in {}", file.display());
    }
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

/// Warns if anybody on the network may read and change all keys. `has_auth`: whether users and roles are enforced.
pub(super) fn warn_if_open(config: &Config, has_auth: bool) {
    let needs_certificate = config.client_tls.client_cert_auth;
    let urls = &config.listen_client_urls;
    if let Some(url) = urls.iter().find(|url| is_open(url, needs_certificate)) {
        match has_auth {
            false => log::warn!("{}", open_text(url.as_str())),
            true if !url.scheme().has_tls() => log::warn!("{}", plain_text(url.as_str())),
            true => {}
        }
    }
}

fn open_text(url: &str) -> String {
    format!(
        "every process that can connect to {url} may read and change all keys. To allow this only to users: \
         edgetcdctl user add root; edgetcdctl auth enable. To encrypt the connections: --cert-file and --key-file with \
         https:// URLs. To serve only this machine: --listen-client-urls http://127.0.0.1:2379"
    )
}

fn plain_text(url: &str) -> String {
    format!(
        "clients of {url} send passwords as plain text. To encrypt the connections: --cert-file and --key-file with \
         https:// URLs"
    )
}

/// Whether processes of other machines can connect, and need no certificate.
fn is_open(url: &Url, needs_certificate: bool) -> bool {
    let is_local = match url.host().parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => url.host() == "localhost",
    };
    let is_file = matches!(url.scheme(), Scheme::Unix | Scheme::Unixs);
    let is_closed = url.scheme().has_tls() && needs_certificate;
    !(is_local || is_file || is_closed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_other_machines_reach_is_open() {
        let table = [
            ("http://127.0.0.1:2379", true, true),
            ("http://127.1.2.3:2379", true, true),
            ("http://[::1]:2379", true, true),
            ("http://localhost:2379", true, true),
            ("http://0.0.0.0:2379", false, false),
            ("http://[::]:2379", false, false),
            ("http://10.0.0.1:2379", false, false),
            ("https://10.0.0.1:2379", false, true),
        ];
        for (url, closed, closed_with_certificates) in table {
            let url: Url = Url::parse(url).expect("a URL");
            assert_eq!(is_open(&url, false), !closed, "{url}");
            assert_eq!(is_open(&url, true), !closed_with_certificates, "{url}");
        }
    }

    const PAGE: &str = include_str!("../guide/log_lines.md");

    #[test]
    fn the_page_about_log_lines_names_the_warnings() {
        for text in [
            open_text("http://0.0.0.0:2379"),
            plain_text("http://0.0.0.0:2379"),
        ] {
            assert!(PAGE.contains(&format!("| `{text}` |")), "{text}");
        }
    }
}
