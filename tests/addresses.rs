//! Where a server listens and how it is reached: both families of IP, zones, Unix sockets, numbers apart, proxies.

mod harness;

use harness::client::{PATIENCE, form_request};
use harness::cluster::Cluster;
use harness::server::{free_address, program};
use harness::{Connection, Server, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output};

fn edgetcdctl(endpoints: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command.args(["--endpoints", endpoints]).args(words);
    command.output().expect("edgetcdctl runs")
}

/// What it prints, after which it ended well.
fn prints(endpoints: &str, words: &[&str]) -> String {
    let output = edgetcdctl(endpoints, words);
    assert!(output.status.success(), "{endpoints} {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn status(address: SocketAddr, target: &str) -> u16 {
    let mut connection = Connection::open(address).expect("a connection");
    connection
        .ask("GET", target, None)
        .expect("an answer")
        .status
}

#[test]
fn all_addresses_are_those_of_both_families() {
    let (clients, peers) = (free_address().port(), free_address().port());
    let mut server = Server::prepare(&[
        &format!("--listen-client-urls=http://[::]:{clients}"),
        &format!("--listen-peer-urls=http://[::]:{peers}"),
    ]);
    server.spawn();
    let v4 = SocketAddr::from(([127, 0, 0, 1], clients));
    wait_for("the server", PATIENCE, || {
        Connection::open(v4).ok()?.ask("GET", "/health", None).ok()
    });
    let v6 = format!("[::1]:{clients}").parse().expect("an address");
    assert_eq!([status(v4, "/version"), status(v6, "/version")], [200, 200]);
    TcpStream::connect(("127.0.0.1", peers)).expect("members by IPv4");
    TcpStream::connect(("::1", peers)).expect("members by IPv6");
    server.stop();

    let port = free_address().port();
    let both = format!("--listen-client-urls=http://0.0.0.0:{port},http://[::]:{port}");
    let mut server = Server::prepare(&[&both]);
    server.spawn();
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the server", PATIENCE, || {
        Connection::open(v4).ok()?.ask("GET", "/health", None).ok()
    });
}

/// An answer to a request that is sent through the file.
fn through_socket(path: &Path, request: &[u8]) -> Option<String> {
    let mut socket = UnixStream::connect(path).ok()?;
    socket.write_all(request).ok()?;
    socket.shutdown(std::net::Shutdown::Write).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_unix_socket_serves_clients_and_goes_with_the_server() {
    let mut server = Server::prepare(&[]);
    let path = server.folder().join("clients.sock");
    let url = format!("unix://{}", path.display());
    server.add_flag(&format!("--listen-client-urls={url}"));
    server.add_flag(&format!("--advertise-client-urls={url}"));
    let get = form_request("GET", "/v2/keys/a", None);
    for (round, end) in [Server::kill as fn(&mut Server), |server| {
        let _ = server.stop();
    }]
    .iter()
    .enumerate()
    {
        server.spawn();
        wait_for("the server", PATIENCE, || through_socket(&path, &get));
        assert_eq!(
            prints(&url, &["set", "/a", &round.to_string()]),
            round.to_string()
        );
        assert_eq!(prints(&url, &["get", "/a"]), round.to_string());
        assert!(prints(&url, &["member", "list"]).contains(&format!("clientURLs={url}")));
        assert!(prints(&url, &["cluster-health"]).contains("cluster is healthy"));
        let rival = Server::prepare(&[
            &format!("--listen-client-urls={url}"),
            &format!("--advertise-client-urls={url}"),
        ]);
        let refused = rival.command().output().expect("a process");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("address already in use"), "{said}");
        assert!(!rival.data().exists());
        end(&mut server);
    }
    assert!(!path.exists(), "a clean stop removes the file");
    let gone = edgetcdctl(&url, &["get", "/a"]);
    assert_eq!(gone.status.code(), Some(2), "{gone:?}");
}

#[test]
fn what_watches_the_server_has_an_address_of_its_own() {
    let metrics = free_address();
    let server = Server::start(&[&format!("--listen-metrics-urls=http://{metrics}")]);
    assert_eq!(status(metrics, "/health"), 200);
    assert_eq!(status(metrics, "/metrics"), 200);
    for other in [
        "/v2/keys/",
        "/version",
        "/v2/members",
        "/edgetcd/snapshot",
        "/",
    ] {
        assert_eq!(status(metrics, other), 404, "{other}");
    }
    assert_eq!(
        server.ask("GET", "/health", None).status,
        200,
        "clients have them, too"
    );
}

/// A member that starts asks the others who it is. A proxy for web pages would answer in their place.
#[test]
fn members_ask_each_other_past_any_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("its address"));
    let mut cluster = Cluster::start(1, &[]);
    let added = cluster.add(0);
    let node = cluster.node_mut(added);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "https_proxy",
    ] {
        node.set_variable(name, &address);
    }
    node.launch();
    cluster.put(added, "/a", "1");
    // A member that lost its data is recognised, by asking.
    cluster.kill(added);
    let node = cluster.node_mut(added);
    node.wipe();
    node.spawn();
    let (status, _) = node.wait_end(PATIENCE);
    assert_eq!(status.code(), Some(1));
    proxy.set_nonblocking(true).expect("set");
    assert!(proxy.accept().is_err(), "somebody asked the proxy");
}

/// A network namespace with a link-local address on its loopback interface. Removed when dropped, after what runs in it.
struct Namespace {
    name: String,
    children: Vec<Child>,
}

impl Namespace {
    fn new() -> Namespace {
        let name = format!("edgetcd-zone-{}", std::process::id());
        let namespace = Namespace {
            name: name.clone(),
            children: Vec::new(),
        };
        for words in [
            format!("netns add {name}"),
            format!("-n {name} link set lo up"),
            format!("-n {name} addr add fe80::7/64 dev lo nodad"),
        ] {
            let done = Command::new("ip")
                .args(words.split(' '))
                .status()
                .expect("ip runs");
            assert!(done.success(), "ip {words}");
        }
        namespace
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

#[test]
#[ignore = "needs root and ip, for a network namespace of its own"]
fn three_members_over_link_local_addresses() {
    let mut namespace = Namespace::new();
    let folder = tempfile::tempdir().expect("a folder");
    let url = |port: u32| format!("http://[fe80::7%25lo]:{port}");
    let cluster: Vec<String> = (1..=3).map(|n| format!("n{n}={}", url(2000 + n))).collect();
    for n in 1..=3 {
        let mut command = namespace.command(&program()[0]);
        command
            .arg(format!("--name=n{n}"))
            .arg("--data-dir")
            .arg(folder.path().join(n.to_string()))
            .arg(format!("--listen-client-urls={}", url(1000 + n)))
            .arg(format!("--advertise-client-urls={}", url(1000 + n)))
            .arg(format!("--listen-peer-urls={}", url(2000 + n)))
            .arg(format!("--initial-advertise-peer-urls={}", url(2000 + n)))
            .arg(format!("--initial-cluster={}", cluster.join(",")));
        let log = std::fs::File::create(folder.path().join(format!("{n}.log"))).expect("a log");
        command.stderr(log);
        namespace.children.push(command.spawn().expect("it starts"));
    }
    let ask = |words: &[&str]| {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_edgetcdctl"));
        let output = command
            .args(["--endpoints", &url(1001)])
            .args(words)
            .output();
        output.expect("edgetcdctl runs")
    };
    wait_for("a healthy cluster", PATIENCE, || {
        ask(&["cluster-health"]).status.success().then_some(())
    });
    assert!(ask(&["set", "/a", "1"]).status.success());
    let members = String::from_utf8_lossy(&ask(&["member", "list"]).stdout).into_owned();
    for n in 1..=3 {
        assert!(
            members.contains(&format!("peerURLs={}", url(2000 + n))),
            "{members}"
        );
    }
}
