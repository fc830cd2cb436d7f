//! The addresses on which a server listens, and how clients reach it: IPv4 and IPv6, zones, Unix sockets, a separate
//! address for metrics, proxies.

#[path = "../harness/mod.rs"]
mod harness;

mod link_local;
mod proxy;

use harness::client::{PATIENCE, form_request};
use harness::cluster::Cluster;
use harness::server::{Place, free_address};
use harness::{Connection, Server, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

fn edgetcdctl(endpoints: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command.args(["--endpoints", endpoints]).args(words);
    command.output().expect("edgetcdctl runs")
}

/// The output of edgetcdctl. Asserts that it succeeded.
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

/// Both `[::]` and `0.0.0.0` mean all addresses of this machine.
#[test]
fn all_addresses_are_those_of_both_families() {
    for any in ["[::]", "0.0.0.0"] {
        let ports: Vec<u16> = (0..3).map(|_| free_address().port()).collect();
        let mut server = Server::prepare(&[
            &format!("--listen-client-urls=http://{any}:{}", ports[0]),
            &format!("--listen-peer-urls=http://{any}:{}", ports[1]),
            &format!("--listen-metrics-urls=http://{any}:{}", ports[2]),
        ]);
        server.spawn();
        wait_for("the server", PATIENCE, || {
            let client = SocketAddr::from(([127, 0, 0, 1], ports[0]));
            let mut connection = Connection::open(client).ok()?;
            let answer = connection.ask("GET", "/health", None).ok()?;
            (answer.status == 200).then_some(())
        });
        for port in ports {
            TcpStream::connect(("127.0.0.1", port)).expect("IPv4");
            TcpStream::connect(("::1", port)).expect("IPv6");
        }
        assert!(server.stop().success());
    }
}

/// Each address of the list has its own socket.
#[test]
fn both_families_may_stand_in_one_list() {
    for (v4, v6) in [
        ("0.0.0.0", "[::]"),
        ("127.0.0.1", "[::]"),
        ("0.0.0.0", "[::1]"),
        ("[::ffff:127.0.0.1]", "[::1]"),
    ] {
        let port = free_address().port();
        let mut server = Server::prepare(&[&format!(
            "--listen-client-urls=http://{v6}:{port},http://{v4}:{port}"
        )]);
        server.spawn();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for("the server", PATIENCE, || {
            Connection::open(address)
                .ok()?
                .ask("GET", "/health", None)
                .ok()
        });
        TcpStream::connect(("::1", port)).expect("IPv6");
        assert!(server.stop().success());
    }
}

/// Sends a request through the socket file and returns the response.
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

/// A program that runs as another user, such as a sidecar, may be let in. It cannot read the data directory for that.
#[test]
fn the_umask_decides_who_may_connect_to_a_unix_socket() {
    for (umask, mode) in [("022", 0o755), ("0117", 0o660), ("0", 0o777)] {
        let mut server = Server::prepare(&[]);
        let path = server.folder().join("clients.sock");
        let url = format!("unix://{}", path.display());
        server.add_flag(&format!("--listen-client-urls={url}"));
        server.add_flag(&format!("--advertise-client-urls={url}"));
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        server.wrap(&["sh", "-c", &script]);
        server.spawn();
        let get = form_request("GET", "/v2/keys/", None);
        wait_for("the server", PATIENCE, || through_socket(&path, &get));
        let mode_of = |path: &Path| {
            let found = std::fs::metadata(path).expect("it is there");
            found.permissions().mode() & 0o777
        };
        assert_eq!(mode_of(&path), mode, "umask {umask}");
        assert_eq!(mode_of(server.data()), 0o700, "umask {umask}");
        assert!(server.stop().success());
    }
}

/// The hint matches the reason.
#[test]
fn a_place_that_cannot_be_listened_on_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "text").expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = listener.local_addr().expect("its address");
    for (url, hint) in [
        (
            format!("unix://{}/no/s", folder.path().display()),
            "mkdir -p",
        ),
        (format!("unix://{}", text.display()), "move it away"),
        (format!("http://{busy}"), "ss -ltnp"),
        ("http://192.0.2.1:2379".to_owned(), "ip addr"),
    ] {
        let server = Server::prepare(&[
            &format!("--listen-client-urls={url}"),
            &format!("--advertise-client-urls={url}"),
        ]);
        let refused = server.command().output().expect("a process");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(hint), "{url}: {said}");
        assert_eq!(refused.status.code(), Some(1), "{url}");
        assert!(!server.data().exists());
    }
}

#[test]
fn what_watches_the_server_has_an_address_of_its_own() {
    let metrics = free_address();
    let listen = format!("--listen-metrics-urls=http://{metrics}");
    // A probe sends requests by address, even if clients use a host name.
    let server = Server::start(&[&listen, "--host-whitelist=localhost,127.0.0.1"]);
    let mut probe = Connection::open(metrics).expect("a connection");
    let request = b"GET /health HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n";
    probe.write(request).expect("a request");
    let health = probe.answer(false, PATIENCE).expect("an answer");
    assert_eq!(health.status, 200, "{health:?}");
    for target in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(status(metrics, target), 200, "{target}");
    }
    for other in [
        "/v2/keys/",
        "/version",
        "/v2/members",
        "/edgetcd/snapshot",
        "/edgetcd/trace",
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

/// If a liveness probe had to wait for an answer, a supervisor would restart a member that waits for the others.
#[test]
fn what_watches_the_server_is_answered_before_it_is_ready() {
    let metrics = free_address();
    let own = Place::free();
    let cluster = format!("n1=http://{},n2=http://{}", own.peer, free_address());
    let listen = format!("--listen-metrics-urls=http://{metrics}");
    let mut server = Server::prepare_at(&own, &cluster, &["--name=n1", &listen]);
    server.spawn();
    let health = wait_for("an answer", PATIENCE, || {
        Connection::open(metrics)
            .ok()?
            .ask("GET", "/health", None)
            .ok()
    });
    assert_eq!(
        (health.status, health.text().trim()),
        (503, r#"{"health":"false"}"#)
    );
    assert_eq!(status(metrics, "/metrics"), 200);
}

/// A starting member asks the others for its identity. A web proxy would answer in their place.
#[test]
fn members_ask_each_other_past_any_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    proxy.set_nonblocking(true).expect("set");
    let nobody_asked = || {
        let rule = "requests between members never use a proxy of the environment";
        assert!(proxy.accept().is_err(), "{rule}");
    };
    let address = format!("http://{}", proxy.local_addr().expect("its address"));
    let mut cluster = Cluster::start(1, &[]);
    let added = cluster.add(0);
    let node = cluster.node_mut(added);
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        node.set_variable(name, &address);
        node.set_variable(&name.to_uppercase(), &address);
    }
    // The exceptions of this test's own environment would hide a request.
    for name in ["no_proxy", "NO_PROXY"] {
        node.set_variable(name, "");
    }
    node.spawn();
    wait_for("the start or the end of the process", PATIENCE, || {
        (node.is_healthy() || node.ended().is_some()).then_some(())
    });
    nobody_asked();
    node.wait_ready();
    cluster.put(added, "/a", "1");
    // The others report that a member lost its data.
    cluster.kill(added);
    let node = cluster.node_mut(added);
    node.wipe();
    node.spawn();
    let (status, _) = node.wait_end(PATIENCE);
    nobody_asked();
    assert_eq!(status.code(), Some(1));
}
