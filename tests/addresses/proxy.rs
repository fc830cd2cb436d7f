//! edgetcdctl and the proxy of the environment.

use crate::harness::Server;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread::JoinHandle;

/// A proxy that answers one request by itself. Returns the request that it received.
fn proxy_that_answers(listener: TcpListener) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let body = r#"{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&head).into_owned()
    })
}

/// As etcdctl does: it sends the whole URI, the proxy resolves the name, and this machine is reached directly.
#[test]
fn edgetcdctl_asks_by_the_proxy_of_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let proxy = proxy_that_answers(listener);
    let run = |endpoint: &str, variables: &[(&str, String)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
        command.args(["--no-sync", "--endpoints", endpoint, "get", "/a"]);
        for name in [
            "HTTP_PROXY",
            "http_proxy",
            "NO_PROXY",
            "no_proxy",
            "REQUEST_METHOD",
        ] {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.output().expect("edgetcdctl runs")
    };
    let by = |variable| (variable, format!("http://u:p@{address}"));
    let server = Server::start(&[]);
    server.ask("PUT", "/v2/keys/a?value=own", None);
    let own = run(&format!("http://{}", server.address()), &[by("http_proxy")]);
    assert_eq!(own.stdout, b"own\n", "{own:?}");
    let except = [by("http_proxy"), ("no_proxy", ".invalid".to_owned())];
    let direct = run("http://etcd.invalid:2379", &except);
    assert_eq!(direct.status.code(), Some(4), "{direct:?}");
    let asked = run("http://etcd.invalid:2379", &[by("http_proxy")]);
    assert_eq!(asked.stdout, b"1\n", "{asked:?}");
    let head = proxy.join().expect("what it was asked");
    assert!(
        head.starts_with("GET http://etcd.invalid:2379/v2/keys/a?"),
        "{head}"
    );
    assert!(
        head.contains("\r\nProxy-Authorization: Basic dTpw\r\n"),
        "{head}"
    );
    assert!(
        head.to_lowercase()
            .contains("\r\nhost: etcd.invalid:2379\r\n"),
        "{head}"
    );
    let nobody = ("HTTP_PROXY", "http://127.0.0.1:1".to_owned());
    let dead = run("http://etcd.invalid:2379", &[nobody]);
    let said = String::from_utf8_lossy(&dead.stderr);
    let wanted = "proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused";
    assert!(said.contains(wanted), "{said}");
}
