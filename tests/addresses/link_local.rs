//! Addresses with a zone, in every place that takes a URL.

use crate::harness::client::PATIENCE;
use crate::harness::server::program;
use crate::harness::wait_for;
use std::path::Path;
use std::process::{Child, Command};

/// Hosts with one link-local address each, on `eth0`, connected by a bridge. Removed when dropped, after the
/// processes in them.
struct LinkLocal {
    prefix: String,
    hosts: usize,
    children: Vec<Child>,
}

impl LinkLocal {
    fn new(hosts: usize) -> LinkLocal {
        let prefix = format!("edgetcd-zone-{}", std::process::id());
        let network = LinkLocal {
            prefix: prefix.clone(),
            hosts,
            children: Vec::new(),
        };
        let hub = network.namespace(0);
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link add bridge type bridge"));
        ip(&format!("-n {hub} link set bridge up"));
        for host in 1..=hosts {
            let name = network.namespace(host);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!(
                "-n {hub} link add to{host} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("-n {hub} link set to{host} master bridge up"));
            ip(&format!(
                "-n {name} addr add fe80::{host}/64 dev eth0 nodad"
            ));
            ip(&format!("-n {name} link set eth0 up"));
        }
        network
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host), program]);
        command
    }
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status();
    assert!(done.expect("ip runs").success(), "ip {words}");
}

impl Drop for LinkLocal {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for host in 0..=self.hosts {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(host)])
                .status();
        }
    }
}

fn url(host: usize, port: u16) -> String {
    format!("http://[fe80::{host}%25eth0]:{port}")
}

impl LinkLocal {
    /// Starts a member on a host, with a zone in each flag that takes a URL.
    fn start(&mut self, host: usize, cluster: &str, folder: &Path) {
        let log = std::fs::File::create(folder.join(format!("{host}.log"))).expect("a log");
        let mut command = self.command(host, &program()[0]);
        command
            .arg(format!("--name=n{host}"))
            .arg("--data-dir")
            .arg(folder.join(host.to_string()))
            .arg(format!("--listen-client-urls={}", url(host, 2379)))
            .arg(format!("--advertise-client-urls={}", url(host, 2379)))
            .arg(format!("--listen-metrics-urls={}", url(host, 2381)))
            .arg(format!("--listen-peer-urls={}", url(host, 2380)))
            .arg(format!("--initial-advertise-peer-urls={}", url(host, 2380)))
            .arg(format!("--initial-cluster={cluster}"))
            .stderr(log);
        self.children.push(command.spawn().expect("it starts"));
    }

    /// The output of edgetcdctl on the first host, if it succeeds. It uses the other two as endpoints.
    fn ask(&self, words: &[&str]) -> Option<String> {
        let endpoints = [url(3, 2379), url(2, 2379)].join(",");
        let mut command = self.command(1, env!("CARGO_BIN_EXE_edgetcdctl"));
        command.args(["--endpoints", &endpoints]).args(words);
        let output = command.output().expect("edgetcdctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}

#[test]
#[ignore = "needs root and ip, for network namespaces of its own"]
fn three_members_over_link_local_addresses() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut network = LinkLocal::new(3);
    let cluster: Vec<String> = (1..=3).map(|n| format!("n{n}={}", url(n, 2380))).collect();
    (1..=3).for_each(|host| network.start(host, &cluster.join(","), folder.path()));
    wait_for("a healthy cluster", PATIENCE, || {
        network.ask(&["cluster-health"])
    });
    assert!(network.ask(&["set", "/a", "1"]).is_some());
    let members = network.ask(&["member", "list"]).expect("a list");
    for host in 1..=3 {
        for told in [
            format!("peerURLs={}", url(host, 2380)),
            format!("clientURLs={}", url(host, 2379)),
        ] {
            assert!(members.contains(&told), "{members}");
        }
    }
    let added = network.ask(&["member", "add", "n4", &url(4, 2380)]);
    let added = added.expect("it is added");
    assert!(added.contains(&format!("n4={}", url(4, 2380))), "{added}");
    // One of the three may end, because the others can reach each other.
    network.children[2].kill().expect("it ran");
    wait_for("a write", PATIENCE, || network.ask(&["set", "/a", "2"]));
}
