//! Users and roles over TLS: the same table as without, and clients whom their certificate names.

use crate::certificates::{Ca, Leaf, Pair, leaf};
use crate::harness::Server;
use crate::harness::client::request;
use crate::matrix::{ROOT, SENDERS, change, differences, differences_of, enable, make_users};
use crate::process::client;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server whose port accepts both, so that users can be made without TLS.
fn start(pair: &Pair, more: &[String]) -> Server {
    let mut server = Server::prepare(&["--snapshot-count=20"]);
    let address = server.address();
    server.add_flag(&format!(
        "--listen-client-urls=https://{address},http://{address}"
    ));
    server.add_flag(&format!("--cert-file={}", pair.cert.display()));
    server.add_flag(&format!("--key-file={}", pair.key.display()));
    more.iter().for_each(|flag| server.add_flag(flag));
    server.launch();
    server
}

/// The status of a request over TLS.
fn status(
    server: &Server,
    config: &Arc<ClientConfig>,
    (method, target): (&str, &str),
    body: Option<&str>,
    header: Option<&str>,
) -> u16 {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("begun");
    let socket = TcpStream::connect(server.address()).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut stream = StreamOwned::new(session, socket);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let mut headers = vec![form, ("Connection", "close")];
    headers.extend(header.map(|value| ("Authorization", value)));
    let bytes = request(method, target, &headers, body.map(str::as_bytes));
    stream.write_all(&bytes).expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer);
    let digits = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = digits.and_then(|digits| digits.parse().ok());
    status.unwrap_or_else(|| panic!("{method} {target}: {text}"))
}

/// The differences from the table for requests with this configuration.
fn over_tls(
    server: &Server,
    config: &Arc<ClientConfig>,
    senders: &[(&str, Option<&str>); 7],
) -> Vec<String> {
    differences_of(true, senders, |method, target, body, header| {
        status(server, config, (method, target), body, header)
    })
}

#[test]
fn users_and_roles_are_enforced_over_tls_as_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let mut server = start(&ca.sign(&leaf("server")), &[]);
    make_users(server.address());
    enable(server.address());
    let (config, none) = (client(&ca, None), Vec::<String>::new());
    assert_eq!(over_tls(&server, &config, &SENDERS), none);
    server.stop();
    server.launch();
    assert_eq!(over_tls(&server, &config, &SENDERS), none, "restarted");
    assert_eq!(differences(server.address(), true), none, "without TLS");
}

/// With `--client-cert-auth`, a request without credentials is one of the user whom the certificate names. A request
/// with credentials is one of their user.
#[test]
fn a_certificate_names_the_user_of_a_request_without_credentials() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let more = [
        format!("--trusted-ca-file={}", ca.file.display()),
        "--client-cert-auth".to_owned(),
    ];
    let server = start(&ca.sign(&leaf("server")), &more);
    make_users(server.address());
    enable(server.address());
    let none = Vec::<String>::new();
    for (name, column) in [("reader", 4), ("writer", 5), ("root", 6), ("stranger", 0)] {
        let named = Leaf {
            common_name: name,
            ..leaf("client")
        };
        let config = client(&ca, Some(&ca.sign(&named)));
        let mut senders = SENDERS;
        // The place of this user in the table, or that of a guest.
        senders[column] = ("a certificate", None);
        if column > 0 {
            senders[0] = ("a guest's column", Some("Basic bm9ib2R5Om4="));
        }
        let mut found = over_tls(&server, &config, &senders);
        // Without credentials nobody is a guest here, so that column is left out.
        found.retain(|line| !line.contains("a guest's column"));
        assert_eq!(found, none, "{name}");
    }
    // The certificate is that of root, and the credentials are those of reader.
    let root = Leaf {
        common_name: "root",
        ..leaf("client")
    };
    let config = client(&ca, Some(&ca.sign(&root)));
    let target = ("GET", "/v2/keys/w/a");
    let reader = crate::matrix::READER;
    assert_eq!(status(&server, &config, target, None, None), 200);
    assert_eq!(status(&server, &config, target, None, Some(reader)), 401);
    change(server.address(), "DELETE", "/v2/auth/enable", "", 200);
    assert_eq!(status(&server, &config, target, None, Some(ROOT)), 200);
}
