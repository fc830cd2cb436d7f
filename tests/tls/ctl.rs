//! `edgetcdctl` with `https` and `unixs` endpoints.

use crate::certificates::{Ca, DAY, Leaf, Pair, leaf};
use edgetcd::tls::{Server, Settings};
use rustls::{ServerConnection, StreamOwned};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

/// `root:sesame` as of RFC 7617.
const CREDENTIALS: &str = "Basic cm9vdDpzZXNhbWU=";

fn edgetcdctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    edgetcdctl(args).output().expect("it starts")
}

fn printed(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A CA and a server's certificate of it.
struct Pki {
    folder: tempfile::TempDir,
    ca: Ca,
    server: Pair,
}

impl Pki {
    fn new() -> Pki {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(folder.path(), "ca");
        let server = ca.sign(&leaf("server"));
        Pki { folder, ca, server }
    }

    fn ca(&self) -> &str {
        text(&self.ca.file)
    }

    fn start(&self) -> Fake {
        Fake::start(settings(&self.server))
    }
}

fn settings(pair: &Pair) -> Settings {
    Settings {
        cert_file: Some(pair.cert.clone()),
        key_file: Some(pair.key.clone()),
        ..Settings::default()
    }
}

/// A server with TLS that keeps the requests it gets.
struct Fake {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(settings: Settings) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let sockets = move || listener.accept().map(|(socket, _)| socket);
        Fake::serve(settings, url, sockets)
    }

    fn at_socket(settings: Settings, path: &Path) -> Fake {
        let listener = UnixListener::bind(path).expect("a socket");
        let sockets = move || listener.accept().map(|(socket, _)| socket);
        Fake::serve(settings, format!("unixs://{}", text(path)), sockets)
    }

    fn serve<S: Read + Write + Send + 'static>(
        settings: Settings,
        url: String,
        sockets: impl Fn() -> io::Result<S> + Send + 'static,
    ) -> Fake {
        let server = Server::open(&settings).expect("good files");
        let fake = Fake {
            url: url.clone(),
            requests: Arc::default(),
        };
        let requests = fake.requests.clone();
        thread::spawn(move || {
            while let Ok(socket) = sockets() {
                let connection = ServerConnection::new(server.config()).expect("a connection");
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                let mut head = String::new();
                while stream.read_line(&mut head).is_ok_and(|count| count > 2) {}
                if head.is_empty() {
                    continue;
                }
                let length = head.lines().find_map(|line| {
                    let line = line.to_lowercase();
                    line.strip_prefix("content-length: ")?.parse().ok()
                });
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).expect("a body");
                let text = answer(&url, &head);
                requests.lock().expect("no panic").push(head);
                let stream = stream.get_mut();
                // The client may have ended.
                let _ = stream.write_all(text.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        fake
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().expect("no panic"))
    }

    #[track_caller]
    fn assert_unasked(&self) {
        assert_eq!(self.take_requests(), [""; 0]);
    }
}

fn answer(url: &str, head: &str) -> String {
    let member = format!(r#"{{"id":"a1","name":"n","peerURLs":["{url}"],"clientURLs":["{url}"]}}"#);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let body = match path.split('?').next().unwrap_or_default() {
        "/v2/members" => format!(r#"{{"members":[{member}]}}"#),
        "/v2/members/leader" => member,
        "/v2/keys/moved" => return moved("/v2/keys/a"),
        "/v2/keys/full" => return moved(&format!("{url}/v2/keys/a")),
        _ => r#"{"action":"set","node":{"key":"/a","value":"found"}}"#.to_owned(),
    };
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn moved(to: &str) -> String {
    format!(
        "HTTP/1.1 307 Moved\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn commands_work_with_https_and_with_unixs() {
    let pki = Pki::new();
    let socket = pki.folder.path().join("socket");
    let servers = [pki.start(), Fake::at_socket(settings(&pki.server), &socket)];
    for fake in &servers {
        for (line, expected) in [
            ("get /a", "found\n"),
            ("set /a 1", "found\n"),
            ("watch /a", "found\n"),
            ("get /moved", "found\n"),
            (
                "member list",
                "a1: name=n peerURLs=SERVER clientURLs=SERVER isLeader=true\n",
            ),
            ("export", "{\"key\":\"/a\",\"value\":\"found\"}\n"),
        ] {
            let first = [
                "--endpoints",
                &fake.url,
                "--ca-file",
                pki.ca(),
                "-u",
                "root:sesame",
            ];
            let words: Vec<&str> = first.into_iter().chain(line.split(' ')).collect();
            let shown = printed(&run(&words));
            assert_eq!(shown, expected.replace("SERVER", &fake.url), "{line}");
            let requests = fake.take_requests();
            assert!(requests.len() >= 2, "{line}: {requests:?}");
            for request in requests {
                assert!(request.contains(CREDENTIALS), "{line}: {request}");
            }
        }
    }
}

#[test]
fn the_variables_and_a_certificate_of_the_client() {
    let pki = Pki::new();
    let client = pki.ca.sign(&leaf("client"));
    let fake = Fake::start(Settings {
        trusted_ca_file: Some(pki.ca.file.clone()),
        ..settings(&pki.server)
    });
    let output = edgetcdctl(&["get", "/a"])
        .env("ETCDCTL_ENDPOINTS", &fake.url)
        .env("ETCDCTL_CA_FILE", pki.ca())
        .env("ETCDCTL_CERT_FILE", &client.cert)
        .env("ETCDCTL_KEY_FILE", &client.key)
        .output();
    assert_eq!(printed(&output.expect("it starts")), "found\n");
    assert_eq!(fake.take_requests().len(), 2);
    let without = run(&[
        "--no-sync",
        "--endpoints",
        &fake.url,
        "--ca-file",
        pki.ca(),
        "get",
        "/a",
    ]);
    let shown = printed(&without);
    assert!(
        shown.contains("tls: certificate required: type --cert-file FILE --key-file FILE"),
        "{shown}"
    );
    let stranger = Ca::new(pki.folder.path(), "other").sign(&leaf("stranger"));
    let words = [
        "--no-sync",
        "--endpoints",
        &fake.url,
        "--ca-file",
        pki.ca(),
        "--cert-file",
    ];
    let words = [
        &words[..],
        &[
            text(&stranger.cert),
            "--key-file",
            text(&stranger.key),
            "get",
            "/a",
        ],
    ]
    .concat();
    let shown = printed(&run(&words));
    assert!(
        shown.contains("remote error: tls: ") && shown.contains("stranger.pem"),
        "{shown}"
    );
    fake.assert_unasked();
}

/// A certificate that is wrong in one way, and a part of the message.
fn wrong_servers() -> [(Leaf, &'static str); 3] {
    let now = SystemTime::now();
    let plain = || leaf("wrong");
    let expired = Leaf {
        from: now - 20 * DAY,
        until: now - DAY,
        ..plain()
    };
    let early = Leaf {
        from: now + DAY,
        ..plain()
    };
    let elsewhere = Leaf {
        hosts: vec!["10.0.0.1".to_owned(), "elsewhere.org".to_owned()],
        ..plain()
    };
    [
        (
            expired,
            "x509: certificate has expired or is not yet valid: it was valid until ",
        ),
        (
            early,
            "x509: certificate has expired or is not yet valid: it is valid from ",
        ),
        (
            elsewhere,
            "x509: certificate is valid for 10.0.0.1, elsewhere.org, not 127.0.0.1: type one of its names in \
             --endpoints",
        ),
    ]
}

#[test]
fn a_server_that_is_not_the_right_one_gets_no_request() {
    let pki = Pki::new();
    for (leaf, expected) in wrong_servers() {
        let fake = Fake::start(settings(&pki.ca.sign(&leaf)));
        let words = [
            "--endpoints",
            &fake.url,
            "--ca-file",
            pki.ca(),
            "-u",
            "root:sesame",
        ];
        let output = run(&[&words[..], &["set", "/a", "1"]].concat());
        let shown = printed(&output);
        assert!(shown.contains(expected), "{expected}: {shown}");
        assert_eq!(output.status.code(), Some(4), "{shown}");
        fake.assert_unasked();
    }
    let fake = pki.start();
    let other = Ca::new(pki.folder.path(), "other");
    let words = ["--endpoints", &fake.url, "--ca-file", text(&other.file)];
    let mut command = edgetcdctl(&[&words[..], &["get", "/a"]].concat());
    // With --ca-file, the CAs of this machine do not count.
    let output = command.env("SSL_CERT_FILE", &pki.ca.file).output();
    let shown = printed(&output.expect("it starts"));
    let expected = format!(
        "x509: certificate signed by unknown authority: no certificate in {} has signed it",
        other.file.display()
    );
    assert!(shown.contains(&expected), "{shown}");
    fake.assert_unasked();
}

/// The next endpoint is asked, also for a request that must not be sent twice: nothing was sent.
#[test]
fn an_endpoint_that_is_not_trusted_is_passed_over() {
    let pki = Pki::new();
    let other = Ca::new(pki.folder.path(), "other").sign(&leaf("stranger"));
    let (wrong, right) = (Fake::start(settings(&other)), pki.start());
    let endpoints = format!("{},{}", wrong.url, right.url);
    let words = [
        "--no-sync",
        "--endpoints",
        &endpoints,
        "--ca-file",
        pki.ca(),
        "rm",
        "/a",
    ];
    let output = run(&words);
    assert!(output.status.success(), "{}", printed(&output));
    wrong.assert_unasked();
    assert_eq!(right.take_requests().len(), 1);
}

#[test]
fn without_a_ca_file_the_cas_of_this_machine_are_trusted() {
    let pki = Pki::new();
    let fake = pki.start();
    let (empty, folder) = (
        pki.folder.path().join("empty"),
        pki.folder.path().join("folder"),
    );
    fs::write(&empty, "").expect("a file");
    fs::create_dir(&folder).expect("a folder");
    let get = |list: &Path| {
        let words = ["--no-sync", "--endpoints", &fake.url, "get", "/a"];
        let mut command = edgetcdctl(&words);
        command
            .env("SSL_CERT_FILE", list)
            .env("SSL_CERT_DIR", &folder);
        printed(&command.output().expect("it starts"))
    };
    assert_eq!(get(&pki.ca.file), "found\n");
    assert_eq!(fake.take_requests().len(), 1);
    let other = Ca::new(pki.folder.path(), "other");
    let shown = get(&other.file);
    let expected = "x509: certificate signed by unknown authority: type --ca-file FILE with the certificate of its CA";
    assert!(shown.contains(expected), "{shown}");
    let shown = get(&empty);
    assert!(
        shown.contains("this machine has no list of trusted CAs: type --ca-file FILE"),
        "{shown}"
    );
    fake.assert_unasked();
}

/// A server that answers the first bytes of a handshake with `text`.
fn plain_server(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            // The client may have ended.
            let _ = socket.read(&mut bytes);
            let _ = socket.write_all(text.as_bytes());
        }
    });
    url
}

#[test]
fn a_server_without_tls_is_told() {
    let answered = plain_server("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let shown = printed(&run(&["--endpoints", &answered, "get", "/a"]));
    let expected =
        "http: server gave HTTP response to HTTPS client: type http:// instead of https://";
    assert!(shown.contains(expected), "{shown}");
    let silent = plain_server("");
    let shown = printed(&run(&["--endpoints", &silent, "get", "/a"]));
    assert!(
        shown.contains("if it speaks plain HTTP, type http:// instead of https://"),
        "{shown}"
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let pki = Pki::new();
    let other = pki.ca.sign(&leaf("other"));
    let (cert, key) = (text(&pki.server.cert), text(&pki.server.key));
    for (options, expected) in [
        (
            &["--ca-file", "/no/such"][..],
            "open /no/such: no such file or directory (--ca-file)",
        ),
        (&["--ca-file", key], "no PEM text with BEGIN CERTIFICATE"),
        (
            &["--cert-file", cert],
            "--cert-file and --key-file must both be present",
        ),
        (
            &["--key-file", key],
            "--cert-file and --key-file must both be present",
        ),
        (
            &["--cert-file", cert, "--key-file", cert],
            "no PEM text with BEGIN PRIVATE KEY",
        ),
        (
            &["--cert-file", cert, "--key-file", text(&other.key)],
            "the key of --key-file does not belong to the certificate of --cert-file",
        ),
    ] {
        // As in etcdctl, the files are read even if no endpoint needs them.
        for endpoint in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
            let words = [options, &["--endpoints", endpoint, "get", "/a"]].concat();
            let output = run(&words);
            let shown = printed(&output);
            assert!(shown.contains(expected), "{options:?}: {shown}");
            assert_eq!(output.status.code(), Some(1), "{options:?}");
        }
    }
}

#[test]
fn a_redirect_between_http_and_https_takes_no_credentials() {
    let pki = Pki::new();
    let secure = pki.start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let plain = format!("http://{}", listener.local_addr().expect("an address"));
    let to = moved(&format!("{}/v2/keys/a", secure.url));
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let _ = socket.read(&mut bytes);
            let _ = socket.write_all(to.as_bytes());
        }
    });
    let words = [
        "--no-sync",
        "--ca-file",
        pki.ca(),
        "-u",
        "root:sesame",
        "--endpoints",
    ];
    let shown = printed(&run(&[&words[..], &[&plain, "get", "/x"]].concat()));
    assert_eq!(shown, "found\n");
    let requests = secure.take_requests();
    assert_eq!(requests.len(), 1);
    assert!(
        !requests[0].to_lowercase().contains("authorization"),
        "{requests:?}"
    );
    let shown = printed(&run(&[&words[..], &[&secure.url, "get", "/full"]].concat()));
    assert_eq!(shown, "found\n");
    for request in secure.take_requests() {
        assert!(request.contains(CREDENTIALS), "{request}");
    }
}

/// The proxy sees no request: it connects to the server and passes bytes on.
#[test]
fn a_proxy_is_asked_for_a_tunnel() {
    let pki = Pki::new();
    let remote = pki.ca.sign(&Leaf {
        hosts: vec!["10.1.2.3".to_owned()],
        ..leaf("remote")
    });
    let fake = Fake::start(settings(&remote));
    let server = fake.url.trim_start_matches("https://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = listener.local_addr().expect("an address");
    let asked = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
        socket
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .expect("it waits");
        let mut to = std::net::TcpStream::connect(server).expect("the server");
        let mut from = to.try_clone().expect("a second handle");
        thread::spawn(move || io::copy(&mut reader, &mut to));
        // The client may end first.
        let _ = io::copy(&mut from, &mut socket);
        head
    });
    let words = [
        "--no-sync",
        "--ca-file",
        pki.ca(),
        "--endpoints",
        "https://10.1.2.3:2379",
        "get",
        "/a",
    ];
    let output = edgetcdctl(&words)
        .env("HTTPS_PROXY", format!("http://root:sesame@{proxy}"))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output();
    assert_eq!(printed(&output.expect("it starts")), "found\n");
    let head = asked.join().expect("no panic");
    assert!(
        head.starts_with("CONNECT 10.1.2.3:2379 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.to_lowercase()
            .contains(&format!("proxy-authorization: {CREDENTIALS}").to_lowercase()),
        "{head}"
    );
    assert!(!fake.take_requests()[0].contains("uthorization"));
}
