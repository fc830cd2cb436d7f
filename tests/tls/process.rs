//! A node with TLS for its clients, as its operator and its clients see it.

use crate::certificates::{Ca, DAY, Leaf, Pair, leaf};
use crate::harness::{Server, wait_for};
use edgetcd::tls::{Client, Settings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(30);

/// A server at whose address TLS is optional: the harness asks it without.
fn start(flags: &[&str]) -> Server {
    let mut server = Server::prepare(flags);
    let address = server.address();
    server.add_flag(&format!(
        "--listen-client-urls=https://{address},http://{address}"
    ));
    server.launch();
    server
}

fn flags(pair: &Pair) -> [String; 2] {
    [
        format!("--cert-file={}", pair.cert.display()),
        format!("--key-file={}", pair.key.display()),
    ]
}

pub fn client(ca: &Ca, pair: Option<&Pair>) -> Arc<ClientConfig> {
    let settings = Settings {
        cert_file: pair.map(|pair| pair.cert.clone()),
        key_file: pair.map(|pair| pair.key.clone()),
        trusted_ca_file: Some(ca.file.clone()),
        ..Settings::default()
    };
    Client::open(&settings).expect("opened").config()
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(server: &Server, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("begun");
    let socket = TcpStream::connect(server.address()).expect("connect");
    socket.set_read_timeout(Some(SOON)).expect("set");
    StreamOwned::new(session, socket)
}

/// Whether a request is answered.
fn is_answered(stream: &mut Stream) -> std::io::Result<()> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

fn curl(server: &Server, ca: &Path, more: &[&str], path: &str) -> (bool, String) {
    let url = format!("https://{}{path}", server.address());
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--cacert"])
        .arg(ca)
        .args(more)
        .arg(url)
        .output()
        .expect("curl is installed");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn each_refused_client_is_logged_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ca, other) = (
        Ca::new(folder.path(), "ca"),
        Ca::new(folder.path(), "other"),
    );
    let crl = ca.revoke(&[66]);
    let mut given = flags(&ca.sign(&leaf("server"))).to_vec();
    given.push(format!("--trusted-ca-file={}", ca.file.display()));
    given.push(format!("--client-crl-file={}", crl.display()));
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let server = start(&given);
    let good = ca.sign(&leaf("good"));
    is_answered(&mut connect(&server, &client(&ca, Some(&good)))).expect("served");
    // As in the reference, only members must have the addresses of their certificates.
    let elsewhere = ca.sign(&Leaf {
        hosts: vec!["10.0.0.1".to_owned()],
        ..leaf("elsewhere")
    });
    is_answered(&mut connect(&server, &client(&ca, Some(&elsewhere)))).expect("served");
    let old = Leaf {
        until: SystemTime::now() - DAY / 2,
        ..leaf("old")
    };
    let revoked = Leaf {
        serial: 66,
        ..leaf("revoked")
    };
    let cases = [
        (None, "it has sent no certificate"),
        (
            Some(ca.sign(&old)),
            "its certificate has expired (it was valid until ",
        ),
        (
            Some(other.sign(&leaf("x"))),
            "its certificate does not come from a trusted CA",
        ),
        (Some(ca.sign(&revoked)), "its certificate is revoked"),
    ];
    for (pair, reason) in &cases {
        let mut stream = connect(&server, &client(&ca, pair.as_ref()));
        is_answered(&mut stream).expect_err(reason);
        let remote = stream.sock.local_addr().expect("an address");
        let line = format!("warn http1: TLS with the client {remote} has failed: {reason}");
        wait_for(&line, SOON, || server.log().contains(&line).then_some(()));
    }
    let mut stream = connect(&server, &client(&other, Some(&good)));
    is_answered(&mut stream).expect_err("the client refuses the server");
    let line = "has failed: it has refused this side: the certificate comes from a CA that it does not trust";
    wait_for(line, SOON, || server.log().contains(line).then_some(()));

    let cert = good.cert.display().to_string();
    let key = good.key.display().to_string();
    let (ok, text) = curl(
        &server,
        &ca.file,
        &["--cert", &cert, "--key", &key],
        "/health",
    );
    assert!(ok, "{text}");
    let (ok, text) = curl(&server, &ca.file, &[], "/health");
    assert!(!ok, "{text}");
    let key_text = std::fs::read_to_string(&key).expect("a file");
    let secret = key_text.lines().nth(1).expect("a line");
    assert!(!server.log().contains(secret));
}

#[test]
fn curl_reads_listings_and_streams() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let given = flags(&ca.sign(&leaf("server")));
    let server = start(&[&given[0], &given[1]]);
    let value = "x".repeat(100_000);
    for key in 0..30 {
        let answer = server.ask(
            "PUT",
            &format!("/v2/keys/big/{key}"),
            Some(&format!("value={value}")),
        );
        assert_eq!(answer.status, 201);
    }
    for version in ["--tlsv1.3", "--tlsv1.2"] {
        let most = ["--tls-max", "1.2"];
        let more = if version == "--tlsv1.2" {
            &most[..]
        } else {
            &[version][..]
        };
        let (ok, text) = curl(&server, &ca.file, more, "/v2/keys/big");
        assert!(
            ok && text.len() > 3_000_000,
            "{version}: {} bytes",
            text.len()
        );
    }
    let stream = "/v2/keys/big/1?wait=true&stream=true";
    let url = format!("https://{}{stream}", server.address());
    let mut watcher = Command::new("curl")
        .args(["-sSN", "--cacert"])
        .arg(&ca.file)
        .arg(url)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("curl is installed");
    wait_for("the watcher", SOON, || {
        let stats = server.ask("GET", "/v2/stats/store", None);
        stats.text().contains("\"watchers\":1").then_some(())
    });
    let mut out = watcher.stdout.take().expect("piped");
    let mut events = String::new();
    for number in 0..3 {
        let answer = server.ask("PUT", "/v2/keys/big/1", Some(&format!("value=v{number}")));
        assert_eq!(answer.status, 200);
        let wanted = format!("\"value\":\"v{number}\"");
        while !events.contains(&wanted) {
            let mut buffer = [0; 4096];
            let count = out.read(&mut buffer).expect("an event");
            assert!(count > 0, "the stream ends after {} bytes", events.len());
            events += &String::from_utf8_lossy(&buffer[..count]);
        }
    }
    watcher.kill().expect("killed");
    watcher.wait().expect("ended");
}

/// The common name of the certificate that the server shows.
fn shown(server: &Server, config: &Arc<ClientConfig>) -> String {
    let mut stream = connect(server, config);
    is_answered(&mut stream).expect("served");
    let chain = stream.conn.peer_certificates().expect("it was shown");
    let names = edgetcd::tls::certificate::Names::read(&chain[0]);
    names.expect("a certificate").common_name
}

/// Ends the load, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn certificates_are_replaced_under_load_without_a_failed_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let first = ca.sign(&leaf("server"));
    let given = flags(&first);
    let server = start(&[&given[0], &given[1]]);
    // Resumed sessions do not show a certificate, so each look has a configuration of its own.
    let fresh = || client(&ca, None);
    let ends = AtomicBool::new(false);
    let (kept, new) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _end = End(&ends);
        scope.spawn(|| {
            let mut stream = connect(&server, &fresh());
            while !ends.load(Ordering::Relaxed) {
                is_answered(&mut stream).expect("a kept connection is served");
                kept.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let config = fresh();
            while !ends.load(Ordering::Relaxed) {
                is_answered(&mut connect(&server, &config)).expect("a new connection is served");
                new.fetch_add(1, Ordering::Relaxed);
            }
        });
        for name in ["second", "third"] {
            ca.sign(&Leaf {
                common_name: name,
                ..leaf("server")
            });
            wait_for(name, SOON, || {
                (shown(&server, &fresh()) == name).then_some(())
            });
        }
        std::fs::write(&first.key, "half a key").expect("written");
        let line = "the TLS files have changed and cannot be used, the old ones stay in use";
        wait_for(line, SOON, || server.log().contains(line).then_some(()));
        assert_eq!(shown(&server, &fresh()), "third");
    });
    assert!(kept.into_inner() > 0 && new.into_inner() > 0);
    assert_eq!(
        server
            .log()
            .matches("have changed and cannot be used")
            .count(),
        1
    );
}

#[test]
fn a_self_signed_certificate_is_used_again() {
    let mut server = start(&["--auto-tls"]);
    let cert = server.data().join("fixtures/client/cert.pem");
    let first = std::fs::read(&cert).expect("a certificate");
    let (ok, text) = curl(&server, &cert, &[], "/health");
    assert!(ok, "{text}");
    server.stop();
    server.launch();
    assert_eq!(std::fs::read(&cert).expect("a certificate"), first);
}

#[test]
fn a_node_with_a_file_that_it_cannot_use_does_not_start() {
    let mut server = Server::prepare(&["--cert-file=/none.pem", "--key-file=/none-key.pem"]);
    let address = server.address();
    server.add_flag(&format!("--listen-client-urls=https://{address}"));
    server.spawn();
    let (status, _) = server.wait_end(SOON);
    assert_eq!(status.code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("edgetcd: open /none.pem: no such file or directory (--cert-file)\n"),
        "{log}"
    );
    assert!(!server.data().exists(), "nothing was made");
}

#[test]
fn a_key_that_everybody_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Ca::new(folder.path(), "ca").sign(&leaf("server"));
    std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let given = flags(&pair);
    let server = start(&[&given[0], &given[1]]);
    let warned = format!(
        "every user of this machine can read this key (mode 644): type chmod 600 {}",
        pair.key.display()
    );
    assert!(server.log().contains(&warned), "{}", server.log());
}
