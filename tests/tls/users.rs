//! Users and roles over TLS: the same table as without, and clients whom their certificate names.

use crate::certificates::{Ca, Leaf, Pair, leaf};
use crate::harness::Server;
use crate::harness::secure::config;
use crate::matrix::{
    ROOT, Sender, State, ask, change, differences, differences_of, enable, make_users, senders,
};

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

/// The differences from the table for these senders.
fn found(server: &Server, senders: &[Sender]) -> Vec<String> {
    let state = State {
        enabled: true,
        leads: true,
    };
    differences_of(server.address(), state, senders)
}

#[test]
fn users_and_roles_are_enforced_over_tls_as_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new(folder.path(), "ca");
    let mut server = start(&ca.sign(&leaf("server")), &[]);
    make_users(server.address());
    enable(server.address());
    let all = senders(Some(&config(&ca.file, None)));
    let none = Vec::<String>::new();
    assert_eq!(found(&server, &all), none);
    server.stop();
    server.launch();
    assert_eq!(found(&server, &all), none, "restarted");
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
    let named = |common_name| {
        let pair = ca.sign(&Leaf {
            common_name,
            ..leaf("client")
        });
        config(&ca.file, Some(&pair))
    };
    // The others are what their credentials say, also with the certificate of root.
    let mut all = senders(Some(&named("root")));
    let others = [("stranger", 0), ("reader", 4), ("writer", 5), ("root", 6)];
    all.retain(|sender| sender.header.is_some());
    all.extend(others.map(|(name, column)| Sender {
        name,
        column,
        header: None,
        config: Some(named(name)),
    }));
    assert_eq!(found(&server, &all), Vec::<String>::new());
    change(server.address(), "DELETE", "/v2/auth/enable", "", 200);
    let place = (server.address(), Some(&named("reader")));
    let answer = ask(place, "GET", "/v2/keys/w/a", None, Some(ROOT));
    assert_eq!(answer.status, 200);
}
