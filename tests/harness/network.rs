//! A network for one test, with links that can be cut in one or both directions.
//!
//! Every node has a network namespace with one interface, `eth0`. A bridge in the test's own namespace connects them.
//! So the test can always reach every node, and only links *between* nodes are cut. All neighbour entries are set by
//! the test. Cutting `from → to` changes the hardware address of `to` in `from`'s namespace to an unused one. The
//! packets are then lost without an error, as in a broken switch, and the other direction still works. This needs
//! only `ip`, without a firewall or a queueing discipline.
//!
//! A link can also be slowed down: [`Network::throttle`] limits the bytes per second that a node receives, and drops
//! packets that do not fit into a short queue, like a slow line. This needs `tc` and a kernel with the token bucket
//! filter.
//!
//! Needs root. The test removes what it created, and nothing else. The names contain the process id, so after a test
//! was killed `ip netns list | grep edgetcd-PID` finds what is left.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::Place;

/// Networks reserved for benchmarks (RFC 2544): 512 subnets that are not routed.
const SUBNETS: usize = 512;
const NOBODY: &str = "02:00:00:00:01:00";
const BRIDGE_HOST: u8 = 254;

pub struct Network {
    bridge: String,
    /// The first three bytes of every address.
    subnet: [u8; 3],
    namespaces: Vec<String>,
}

impl Network {
    /// Creates a network of `count` nodes. Fails with the reason if that is not allowed.
    pub fn new(count: usize) -> Result<Network, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let own = format!("{}-{number}", std::process::id());
        let subnet = free_subnet(number)?;
        let mut network = Network {
            bridge: format!("e{own}"),
            subnet,
            namespaces: Vec::new(),
        };
        network.make_bridge()?;
        for node in 0..count {
            network.add_node(&format!("edgetcd-{own}-{node}"))?;
        }
        Ok(network)
    }

    fn make_bridge(&self) -> Result<(), String> {
        let (name, address) = (&self.bridge, self.address_text(BRIDGE_HOST));
        ip(&format!(
            "link add {name} address {} type bridge",
            hardware(BRIDGE_HOST)
        ))?;
        ip(&format!("addr add {address}/24 dev {name}"))?;
        ip(&format!("link set {name} up"))
    }

    /// Adds a node that is linked to all others.
    pub fn add_node(&mut self, namespace: &str) -> Result<usize, String> {
        let node = self.namespaces.len();
        let (host, bridge) = (host(node), &self.bridge);
        let outside = self.outside(node);
        ip(&format!("netns add {namespace}"))?;
        self.namespaces.push(namespace.to_owned());
        ip(&format!(
            "link add {outside} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("link set {outside} master {bridge} up"))?;
        let (address, hardware) = (self.address_text(host), hardware(host));
        self.inside(
            node,
            &[
                "link set lo up".to_owned(),
                format!("link set eth0 address {hardware}"),
                format!("addr add {address}/24 dev eth0"),
                "link set eth0 up".to_owned(),
            ],
        )?;
        for other in 0..node {
            self.heal(node, other);
            self.heal(other, node);
        }
        Ok(node)
    }

    /// Adds a node with a generated name.
    pub fn grow(&mut self) -> usize {
        let name = format!("edgetcd-{}-{}", &self.bridge[1..], self.namespaces.len());
        self.add_node(&name)
            .unwrap_or_else(|reason| panic!("{name}: {reason}"))
    }

    /// The addresses on which a server on this node listens.
    pub fn place(&self, node: usize) -> Place {
        let [a, b, c] = self.subnet;
        let address = IpAddr::V4(Ipv4Addr::new(a, b, c, host(node)));
        Place {
            client: SocketAddr::new(address, 2379),
            peer: SocketAddr::new(address, 2380),
            namespace: Some(self.namespaces[node].clone()),
        }
    }

    /// Drops everything that `from` sends to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.enter_neighbour(from, to, NOBODY);
    }

    pub fn heal(&self, from: usize, to: usize) {
        self.enter_neighbour(from, to, &hardware(host(to)));
    }

    /// Limits the rate at which this node receives, from all others together, in bytes per second.
    pub fn throttle(&self, node: usize, bytes_per_second: u64) {
        let rate = bytes_per_second * 8;
        // Packets that would wait longer are dropped. With an unlimited queue, heartbeats would wait longer than an
        // election timeout, and a slow line would look like a dead one.
        let queue = "burst 64kb latency 100ms";
        let link = self.outside(node);
        run(
            "tc",
            &words(&format!(
                "qdisc replace dev {link} root tbf rate {rate}bit {queue}"
            )),
            &[],
        )
        .unwrap_or_else(|reason| panic!("a slow link needs the kernel's tbf: {reason}"));
    }

    /// Removes the limit.
    pub fn unthrottle(&self, node: usize) {
        let link = self.outside(node);
        run("tc", &words(&format!("qdisc del dev {link} root")), &[])
            .unwrap_or_else(|reason| panic!("the throttle of node {node}: {reason}"));
    }

    /// The bridge's end of a node's link. The packets that it sends are those that the node receives.
    fn outside(&self, node: usize) -> String {
        format!("{}n{node}", self.bridge)
    }

    fn enter_neighbour(&self, from: usize, to: usize, hardware: &str) {
        let address = self.address_text(host(to));
        let entry = format!("neigh replace {address} lladdr {hardware} dev eth0 nud permanent");
        self.inside(from, &[entry])
            .unwrap_or_else(|reason| panic!("the link {from} → {to}: {reason}"));
    }

    fn inside(&self, node: usize, commands: &[String]) -> Result<(), String> {
        run_ip(&["-n", &self.namespaces[node], "-batch", "-"], commands)
    }

    fn address_text(&self, host: u8) -> String {
        let [a, b, c] = self.subnet;
        format!("{a}.{b}.{c}.{host}")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Deleting a namespace also deletes its end of the link, and with it the other end.
        for namespace in &self.namespaces {
            let _ = ip(&format!("netns del {namespace}"));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}

fn host(node: usize) -> u8 {
    u8::try_from(node + 1).expect("few nodes")
}

fn hardware(host: u8) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

/// Finds a subnet that no interface of this machine uses. Processes start the search at different subnets.
fn free_subnet(number: usize) -> Result<[u8; 3], String> {
    let output = Command::new("ip").args(["-4", "-o", "addr"]).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let taken = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = std::process::id() as usize * 31 + number;
    let mut subnets = (start..start + SUBNETS).map(|step| {
        let step = step % SUBNETS;
        [198, 18 + (step / 256) as u8, (step % 256) as u8]
    });
    let free = |[a, b, c]: &[u8; 3]| !taken.contains(&format!(" {a}.{b}.{c}."));
    subnets
        .find(free)
        .ok_or_else(|| "all subnets are taken".to_owned())
}

fn ip(command: &str) -> Result<(), String> {
    run_ip(&words(command), &[])
}

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

/// Runs `ip` with these arguments and these input lines.
fn run_ip(words: &[&str], lines: &[String]) -> Result<(), String> {
    run("ip", words, lines)
}

fn run(program: &str, words: &[&str], lines: &[String]) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut input = child.stdin.take().expect("a pipe");
    let sent = input.write_all(lines.join("\n").as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => sent.map_err(|error| format!("{program}: {error}")),
        false => Err(format!(
            "{program} {} {}: {said}",
            words.join(" "),
            lines.join("; ")
        )),
    }
}
