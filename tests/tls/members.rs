//! TLS between members: a cluster with mutual TLS, strangers at its peer ports, and the way from http to https.

#[path = "../harness/mod.rs"]
mod harness;

use crate::harness::acknowledged::{AcknowledgedWrites, Writers};
use crate::harness::certificates::{Ca, DAY, Leaf, Pair, leaf, replace};
use crate::harness::{Cluster, Json, Server, wait_for};
use edgetcd::tls::{Client, Settings};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

const WITHIN: Duration = Duration::from_secs(60);

struct Pki {
    folder: tempfile::TempDir,
    ca: Ca,
    member: Pair,
}

impl Pki {
    fn new() -> Pki {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(folder.path(), "ca");
        let member = ca.sign(&leaf("member"));
        Pki { folder, ca, member }
    }

    /// The flags of a member with mutual TLS, without its URLs.
    fn flags(&self) -> Vec<String> {
        vec![
            format!("--peer-cert-file={}", self.member.cert.display()),
            format!("--peer-key-file={}", self.member.key.display()),
            format!("--peer-trusted-ca-file={}", self.ca.file.display()),
            "--peer-client-cert-auth".to_owned(),
        ]
    }
}

/// The flags that give a member an `https` peer URL.
fn secure_urls(server: &Server) -> [String; 2] {
    let url = format!("https://{}", server.peer_address());
    [
        format!("--listen-peer-urls={url}"),
        format!("--initial-advertise-peer-urls={url}"),
    ]
}

/// A cluster whose members have `https` peer URLs. Its clients use no TLS.
fn secure_cluster(flags: &[String]) -> Cluster {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::prepare(3, &flags);
    let listed: Vec<String> = (0..cluster.len())
        .map(|node| format!("n{node}=https://{}", cluster.node(node).peer_address()))
        .collect();
    for node in 0..cluster.len() {
        let server = cluster.node_mut(node);
        for flag in secure_urls(server) {
            server.add_flag(&flag);
        }
        server.add_flag(&format!("--initial-cluster={}", listed.join(",")));
    }
    cluster.launch();
    cluster
}

fn log_of(cluster: &Cluster, node: usize) -> String {
    fs::read_to_string(cluster.node(node).folder().join("log")).expect("a log")
}

#[test]
fn a_cluster_with_mutual_tls_works_and_survives_kills() {
    let pki = Pki::new();
    let mut flags = pki.flags();
    flags.push("--snapshot-count=20".to_owned());
    flags.push("--peer-cert-allowed-cn=member".to_owned());
    let mut cluster = secure_cluster(&flags);
    for node in 0..3 {
        cluster.put(node, &format!("/from{node}"), "1");
    }
    for node in 0..3 {
        // A ticket of TLS 1.3 is not the end of a connection.
        let log = log_of(&cluster, node);
        assert!(!log.contains("lost the connection"), "{log}");
        assert_eq!(log.matches("connected to n").count(), 2, "{log}");
    }
    let leader = cluster.wait_leader();
    let (killed, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(killed);
    cluster.put(other, "/without", "1");
    cluster.kill(leader);
    cluster.restart(killed);
    cluster.put(killed, "/after", "2");
    cluster.restart(leader);
    for node in 0..3 {
        cluster.wait_value(node, "/after", "2", WITHIN);
    }
    a_member_that_was_away_gets_a_snapshot(&mut cluster);
}

/// The others delete whole files of their log. So large values are written, until the member that is away needs a
/// snapshot.
fn a_member_that_was_away_gets_a_snapshot(cluster: &mut Cluster) {
    let leader = cluster.wait_leader();
    let away = (leader + 1) % 3;
    let form = format!("value={}", "x".repeat(1 << 20));
    for round in 1..=8 {
        cluster.kill(away);
        for _ in 0..30 {
            let answer = cluster
                .node(leader)
                .ask("PUT", "/v2/keys/large", Some(&form));
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        }
        cluster.put(leader, "/round", &round.to_string());
        cluster.restart(away);
        cluster.wait_value(away, "/round", &round.to_string(), WITHIN);
        if log_of(cluster, away).contains("receiving the snapshot") {
            return;
        }
    }
    panic!("it got no snapshot");
}

#[test]
fn self_signed_certificates_are_enough_with_peer_auto_tls() {
    let mut cluster = secure_cluster(&["--peer-auto-tls".to_owned()]);
    let leader = cluster.wait_leader();
    cluster.put(leader, "/a", "1");
    cluster.kill(leader);
    cluster.put((leader + 1) % 3, "/a", "2");
    cluster.restart(leader);
    cluster.wait_value(leader, "/a", "2", WITHIN);
}

/// Connects to a peer port from an address of its own, because failures of one address are logged once a minute.
fn connect(to: SocketAddr, from: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, from));
    let from = SocketAddr::from((from, 0));
    socket.bind(&from.into()).expect("an address");
    socket.connect(&to.into()).expect("it listens");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(WITHIN)).expect("set");
    socket
}

/// Sends a request of a member's page to a peer port. Returns the answer. Empty: there is none.
fn ask(to: SocketAddr, from: u8, settings: &Settings) -> String {
    let client = Client::open(settings).expect("good files");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let session = ClientConnection::new(client.config(), name).expect("a session");
    let mut stream = StreamOwned::new(session, connect(to, from));
    let request = "GET /members HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    // A refusal is an error of either.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn settings(ca: &Ca, pair: Option<&Pair>) -> Settings {
    Settings {
        cert_file: pair.map(|pair| pair.cert.clone()),
        key_file: pair.map(|pair| pair.key.clone()),
        trusted_ca_file: Some(ca.file.clone()),
        ..Settings::peers()
    }
}

#[test]
fn strangers_at_the_peer_port_are_refused_with_a_reason() {
    let pki = Pki::new();
    let now = SystemTime::now();
    let sign = |leaf: &Leaf| pki.ca.sign(leaf);
    let expired = sign(&Leaf {
        from: now - 20 * DAY,
        until: now - DAY,
        common_name: "member",
        ..leaf("expired")
    });
    let revoked = sign(&Leaf {
        serial: 7,
        common_name: "member",
        ..leaf("withdrawn")
    });
    let stranger = Ca::new(pki.folder.path(), "other").sign(&Leaf {
        common_name: "member",
        ..leaf("stranger")
    });
    let other_name = sign(&leaf("other-name"));
    let elsewhere = sign(&elsewhere());
    let list = pki.ca.revoke(&[7]);
    let mut flags = pki.flags();
    flags.push(format!("--peer-crl-file={}", list.display()));
    flags.push("--peer-cert-allowed-cn=member".to_owned());
    let cluster = secure_cluster(&flags);
    let to = cluster.node(0).peer_address();
    let table = [
        (Some(&expired), "its certificate has expired"),
        (Some(&revoked), "its certificate is revoked"),
        (
            Some(&stranger),
            "its certificate does not come from a trusted CA",
        ),
        (
            Some(&other_name),
            "its certificate has another common name than the allowed \"member\"",
        ),
        (
            Some(&elsewhere),
            "its certificate is for 10.0.0.1, and the client's address is 127.0.0.",
        ),
        (None, "it has sent no certificate"),
    ];
    for (number, (pair, why)) in (10..).zip(table) {
        assert_eq!(ask(to, number, &settings(&pki.ca, pair)), "", "{why}");
        // The same address again, which is not logged again.
        assert_eq!(ask(to, number, &settings(&pki.ca, pair)), "", "{why}");
        let remote = format!("127.0.0.{number}:");
        wait_for(why, WITHIN, || {
            let log = log_of(&cluster, 0);
            let line = log.lines().find(|line| line.contains(&remote))?;
            line.contains(why).then_some(())
        });
        let log = log_of(&cluster, 0);
        let count = log.lines().filter(|line| line.contains(&remote)).count();
        assert_eq!(count, 1, "{log}");
    }
    let mut plain = connect(to, 30);
    let request = b"GET /raft/stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: edgetcd-raft\r\n\r\n";
    plain.write_all(request).expect("it listens");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");

    let answer = ask(to, 31, &settings(&pki.ca, Some(&pki.member)));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    cluster.put(0, "/a", "1");
}

/// A member's certificate that is for another address than this machine's.
fn elsewhere() -> Leaf {
    Leaf {
        hosts: vec!["10.0.0.1".to_owned()],
        common_name: "member",
        ..leaf("elsewhere")
    }
}

#[test]
fn the_address_of_a_member_is_not_compared_if_a_flag_says_so() {
    let pki = Pki::new();
    let elsewhere = pki.ca.sign(&elsewhere());
    let mut server = Server::prepare(&["--experimental-peer-skip-client-san-verification"]);
    let [listens, advertises] = secure_urls(&server);
    let url = format!("https://{}", server.peer_address());
    let flags = [
        listens,
        advertises,
        format!("--initial-cluster=default={url}"),
    ];
    flags
        .iter()
        .chain(&pki.flags())
        .for_each(|flag| server.add_flag(flag));
    server.launch();
    let settings = settings(&pki.ca, Some(&elsewhere));
    let answer = ask(server.peer_address(), 10, &settings);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// A whole member with the flags of the third one, but with a certificate of another CA.
#[test]
fn a_member_with_a_certificate_of_another_ca_takes_no_part() {
    let pki = Pki::new();
    let mut cluster = secure_cluster(&pki.flags());
    let victim = (cluster.wait_leader() + 1) % 3;
    cluster.kill(victim);
    let stranger = Ca::new(pki.folder.path(), "other").sign(&leaf("stranger"));
    let server = cluster.node_mut(victim);
    server.add_flag(&format!("--peer-cert-file={}", stranger.cert.display()));
    server.add_flag(&format!("--peer-key-file={}", stranger.key.display()));
    server.spawn();
    let leader = cluster.wait_leader_among(&[(victim + 1) % 3, (victim + 2) % 3]);
    let term = cluster.term(leader);
    wait_for("both sides to log why", WITHIN, || {
        let [ours, theirs] = [leader, victim].map(|node| log_of(&cluster, node));
        let refused = ours.contains("its certificate does not come from a trusted CA");
        (refused && theirs.contains("it has refused this side")).then_some(())
    });
    cluster.put(leader, "/a", "1");
    assert_eq!(cluster.term(leader), term);
    let own = cluster.node(victim);
    let shown = own.try_ask("GET", "/v2/keys/a", None, Duration::from_secs(1));
    assert!(shown.map_or(true, |answer| answer.status != 200));

    cluster.kill(victim);
    for flag in pki.flags() {
        cluster.node_mut(victim).add_flag(&flag);
    }
    cluster.restart(victim);
    cluster.wait_value(victim, "/a", "1", WITHIN);
}

fn serial_of_peer_port(to: SocketAddr, settings: &Settings) -> Option<Vec<u8>> {
    let client = Client::open(settings).ok()?;
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let session = ClientConnection::new(client.config(), name).expect("a session");
    let mut stream = StreamOwned::new(session, connect(to, 1));
    stream.flush().ok()?;
    let chain = stream.conn.peer_certificates()?;
    Some(chain[0].as_ref().to_vec())
}

#[test]
fn a_replaced_certificate_is_used_for_new_connections() {
    let pki = Pki::new();
    let mut cluster = secure_cluster(&pki.flags());
    let (to, own) = (
        cluster.node(0).peer_address(),
        settings(&pki.ca, Some(&pki.member)),
    );
    let before = serial_of_peer_port(to, &own).expect("a certificate");
    let new = pki.ca.sign(&Leaf {
        serial: 2,
        ..leaf("new")
    });
    let copy = |from: &Path, to: &Path| replace(to, &fs::read_to_string(from).expect("a file"));
    copy(&new.key, &pki.member.key);
    copy(&new.cert, &pki.member.cert);
    wait_for("the new certificate", WITHIN, || {
        let now = serial_of_peer_port(to, &own)?;
        (now != before).then_some(())
    });
    for node in 0..3 {
        assert!(!log_of(&cluster, node).contains("lost the connection"));
    }
    cluster.kill(1);
    cluster.restart(1);
    cluster.put(1, "/a", "1");
    cluster.wait_value(0, "/a", "1", WITHIN);
}

/// Gives a member a peer URL with this scheme, and restarts it so that it listens there. Two writers use another member
/// meanwhile.
fn move_to(cluster: &mut Cluster, node: usize, scheme: &str, ledger: &mut AcknowledgedWrites) {
    let other = (node + 1) % 3;
    let writers = Writers::start(cluster.node(other).address(), 2, node as u64, ledger);
    let peer = cluster.node(node).peer_address();
    let old = if scheme == "https" { "http" } else { "https" };
    let id = id_of(cluster, other, &format!("{old}://{peer}"));
    let url = format!("{scheme}://{peer}");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .arg("--no-sync")
        .arg(format!(
            "--endpoints=http://{}",
            cluster.node(other).address()
        ))
        .args(["member", "update", &id, &url])
        .output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    for flag in ["listen-peer-urls", "initial-advertise-peer-urls"] {
        let flag = format!("--{flag}={url}");
        cluster.node_mut(node).add_flag(&flag);
    }
    cluster.stop(node);
    cluster.restart(node);
    cluster.wait_leader();
    cluster.put(node, &format!("/{scheme}{node}"), "1");
    writers.finish(ledger);
}

/// The id of the member with this peer URL.
fn id_of(cluster: &Cluster, through: usize, url: &str) -> String {
    let members = cluster.members(through);
    let has_url = |member: &&Json| member.at("/peerURLs/0").and_then(Json::text) == Some(url);
    let member = members.iter().find(has_url).expect("a member");
    let id = member.get("id").and_then(Json::text);
    id.expect("an id").to_owned()
}

/// The members are restarted one by one, first with certificates, then with `https` URLs, then with `http` URLs again,
/// and at last without certificates. Writes go on.
#[test]
fn members_change_from_http_to_https_and_back_one_by_one() {
    let pki = Pki::new();
    let mut cluster = Cluster::start(3, &[]);
    let mut ledger = AcknowledgedWrites::of_cluster();
    for node in 0..3 {
        for flag in pki.flags() {
            cluster.node_mut(node).add_flag(&flag);
        }
        cluster.stop(node);
        cluster.restart(node);
        cluster.wait_leader();
    }
    for scheme in ["https", "http"] {
        for node in 0..3 {
            move_to(&mut cluster, node, scheme, &mut ledger);
        }
        for node in 0..3 {
            cluster.wait_value(node, &format!("/{scheme}2"), "1", WITHIN);
            let listed = cluster.node(node).ask("GET", "/v2/members", None).text();
            let urls = format!("\"peerURLs\":[\"{scheme}://");
            assert_eq!(listed.matches(&urls).count(), 3, "{listed}");
        }
    }
    for node in 0..3 {
        for flag in pki.flags() {
            cluster.node_mut(node).drop_flag(&flag);
        }
        cluster.stop(node);
        cluster.restart(node);
        cluster.wait_leader();
    }
    assert!(ledger.acknowledged > 0);
    ledger.check(&mut cluster.node(0).connect());
}
