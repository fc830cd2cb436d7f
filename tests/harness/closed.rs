//! A closed cluster: its clients and its members use TLS, and the members show each other certificates.

use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

use super::certificates::{Ca, Leaf, Pair, leaf};
use super::cluster::Cluster;
use super::secure::{Config, config};
use super::server::Server;

/// A CA, and the certificate that all members have.
pub struct Pki {
    folder: TempDir,
    pub ca: Ca,
    pub member: Pair,
}

impl Pki {
    pub fn new() -> Pki {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(folder.path(), "ca");
        let member = ca.sign(&leaf("member"));
        Pki { folder, ca, member }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate with this common name.
    pub fn sign(&self, common_name: &'static str) -> Pair {
        self.ca.sign(&Leaf {
            common_name,
            ..leaf(common_name)
        })
    }

    /// A client without a certificate.
    pub fn anonymous(&self) -> Config {
        config(&self.ca.file, None)
    }

    /// A client with a certificate that has this common name.
    pub fn named(&self, common_name: &'static str) -> Config {
        config(&self.ca.file, Some(&self.sign(common_name)))
    }

    /// The flags with which a member uses TLS for other members, without its URLs.
    pub fn peer_flags(&self) -> Vec<String> {
        vec![
            format!("--peer-cert-file={}", self.member.cert.display()),
            format!("--peer-key-file={}", self.member.key.display()),
            format!("--peer-trusted-ca-file={}", self.ca.file.display()),
            "--peer-client-cert-auth".to_owned(),
        ]
    }

    /// The flags with which a member uses TLS for clients, without its URLs.
    pub fn server_flags(&self) -> Vec<String> {
        vec![
            format!("--cert-file={}", self.member.cert.display()),
            format!("--key-file={}", self.member.key.display()),
        ]
    }

    /// The flags with which each client needs a certificate.
    pub fn client_cert_flags(&self) -> Vec<String> {
        vec![
            format!("--trusted-ca-file={}", self.ca.file.display()),
            "--client-cert-auth".to_owned(),
        ]
    }
}

/// Gives the client port of a server one URL for each of these schemes, and TLS.
pub fn serve(server: &mut Server, pki: &Pki, schemes: &[&str]) {
    let address = server.address();
    let urls = schemes.iter().map(|scheme| format!("{scheme}://{address}"));
    let urls = urls.collect::<Vec<_>>().join(",");
    server.add_flag(&format!("--listen-client-urls={urls}"));
    server.add_flag(&format!("--advertise-client-urls=https://{address}"));
    pki.server_flags()
        .iter()
        .for_each(|flag| server.add_flag(flag));
}

/// The `--initial-cluster` of a cluster whose members use TLS.
pub fn listed(cluster: &Cluster) -> String {
    let url = |node| format!("n{node}={}", peer_url(cluster.node(node)));
    (0..cluster.len()).map(url).collect::<Vec<_>>().join(",")
}

pub fn peer_url(server: &Server) -> String {
    format!("https://{}", server.peer_address())
}

/// Prepares a cluster without starting its processes. Its client ports have these schemes.
pub fn prepare(count: usize, pki: &Pki, schemes: &[&str], flags: &[String]) -> Cluster {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::prepare(count, &flags);
    let listed = listed(&cluster);
    for node in 0..count {
        let server = cluster.node_mut(node);
        let url = peer_url(server);
        server.add_flag(&format!("--listen-peer-urls={url}"));
        server.add_flag(&format!("--initial-advertise-peer-urls={url}"));
        server.add_flag(&format!("--initial-cluster={listed}"));
        pki.peer_flags()
            .iter()
            .for_each(|flag| server.add_flag(flag));
        serve(server, pki, schemes);
    }
    cluster
}

/// Lets the harness connect to all members with TLS.
pub fn ask_with(cluster: &mut Cluster, config: &Config) {
    for node in 0..cluster.len() {
        cluster.node_mut(node).ask_with(config.clone());
    }
}

/// The `https` endpoints of these addresses.
pub fn endpoints(addresses: &[SocketAddr]) -> String {
    let urls: Vec<String> = addresses.iter().map(|at| format!("https://{at}")).collect();
    urls.join(",")
}
