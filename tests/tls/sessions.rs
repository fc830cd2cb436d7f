//! Sessions with the HTTP server: what clients may do, and what they may not do to others.

use crate::certificates::{Ca, Leaf, leaf};
use crate::child::{Child, Settings as ChildSettings};
use crate::socket::Socket;
use crate::support::{Place, eventually};
use edgetcd::http1::{Limits, Security};
use edgetcd::tls::{Client, Server, Settings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

/// A CA, a server, and the configuration of a client with a certificate.
struct Scene {
    place: Place,
    ca: Ca,
    client: Client,
    folder: TempDir,
}

impl Scene {
    fn new(limits: Limits) -> Scene {
        Scene::with(limits, Security::tls, |_, _| {})
    }

    fn with(
        limits: Limits,
        security: impl Fn(Arc<Server>) -> Security,
        change: impl Fn(&mut Settings, &Ca),
    ) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(folder.path(), "ca");
        let mut settings = settings(&ca, &leaf("server"));
        settings.trusted_ca_file = None;
        change(&mut settings, &ca);
        let server = Arc::new(Server::open(&settings).expect("opened"));
        let client = Client::open(&self::settings(&ca, &leaf("client"))).expect("opened");
        Scene {
            place: Place::open_with([127, 0, 0, 1], 2, limits, security(server)),
            ca,
            client,
            folder,
        }
    }

    fn connect(&self) -> Stream {
        connect(self.place.address, self.client.config())
    }

    fn serves(&self) {
        assert!(ask(&mut self.connect(), HELLO).ends_with("hello"));
    }
}

fn settings(ca: &Ca, leaf: &Leaf) -> Settings {
    let pair = ca.sign(leaf);
    Settings {
        cert_file: Some(pair.cert),
        key_file: Some(pair.key),
        trusted_ca_file: Some(ca.file.clone()),
        ..Settings::default()
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn raw(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.set_write_timeout(Some(PATIENCE)).expect("set");
    socket
}

fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let session = ClientConnection::new(config, name).expect("begun");
    StreamOwned::new(session, raw(address))
}

/// Sends a request and reads a response whose length is given.
fn ask(stream: &mut Stream, request: &[u8]) -> String {
    try_ask(stream, request).expect("an answer")
}

fn try_ask(stream: &mut Stream, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        text += &String::from_utf8_lossy(&buffer[..count]);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("Content-Length: ").nth(1).expect("a length");
            let length: usize = length
                .lines()
                .next()
                .expect("digits")
                .parse()
                .expect("a number");
            if body.len() >= length {
                return Ok(text);
            }
        }
    }
}

/// All bytes until the end of the connection.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the connection does not end: {error}"),
    }
}

/// The first record of a handshake.
fn client_hello(config: Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("begun");
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("a vector takes all");
    bytes
}

#[test]
fn ten_silent_clients_do_not_delay_an_eleventh() {
    let scene = Scene::new(Limits {
        handshake_time: Duration::from_secs(2),
        ..Limits::default()
    });
    let hello = client_hello(scene.client.config());
    let begun = Instant::now();
    let silent: Vec<_> = (0..10).map(|_| raw(scene.place.address)).collect();
    let halfway = (0..10).map(|count| {
        let mut socket = raw(scene.place.address);
        socket
            .write_all(&hello[..hello.len() - 1 - count])
            .expect("sent");
        socket
    });
    let halfway: Vec<_> = halfway.collect();
    scene.serves();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for socket in silent.into_iter().chain(halfway) {
        assert_eq!(
            rest(socket),
            b"",
            "nothing is sent to a client that has said nothing"
        );
    }
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "they had their time"
    );
    scene.serves();
}

#[test]
fn garbage_ends_only_its_own_connection() {
    let scene = Scene::new(Limits::default());
    let hello = client_hello(scene.client.config());
    let mut long = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    long.resize(5 + 0x4000, 7);
    let long = [&long[..], &long[..], &long[..]].concat();
    let mut flipped = hello.clone();
    flipped[60] ^= 0x55;
    let samples: [&[u8]; 8] = [
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05hello",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x05hello",
        b"\x00\x00\x00\x00\x00\x00",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
        &long,
        &hello[1..],
    ];
    for sample in samples {
        let mut socket = raw(scene.place.address);
        // The server may close while the client still sends.
        let _ = socket.write_all(sample);
        let _ = socket.shutdown(Shutdown::Write);
        let answer = rest(socket);
        assert!(
            answer.is_empty() || answer[0] == 0x15,
            "an alert: {}",
            answer.escape_ascii()
        );
    }
    for at in (0..hello.len()).step_by(3) {
        let mut damaged = hello.clone();
        damaged[at] ^= 0xa5;
        let mut socket = raw(scene.place.address);
        socket.write_all(&damaged).expect("sent");
        socket.shutdown(Shutdown::Write).expect("shut");
        rest(socket);
    }
    scene.serves();
    eventually("all are closed", || {
        scene.place.http_server.stats().open == 0
    });
}

#[test]
fn a_record_that_is_damaged_later_ends_the_connection() {
    let scene = Scene::new(Limits::default());
    let mut stream = scene.connect();
    ask(&mut stream, HELLO);
    stream
        .sock
        .write_all(b"\x17\x03\x03\x00\x20not what was agreed on, by far!!")
        .expect("sent");
    let mut more = [0; 100];
    let error = stream.read(&mut more).expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    scene.serves();
}

#[test]
fn a_request_without_tls_gets_an_answer_that_it_can_read() {
    let scene = Scene::new(Limits::default());
    let mut socket = raw(scene.place.address);
    socket.write_all(HELLO).expect("sent");
    let answer = String::from_utf8(rest(socket)).expect("text");
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
}

#[test]
fn the_first_byte_decides_where_tls_is_optional() {
    let scene = Scene::with(Limits::default(), Security::optional, |_, _| {});
    scene.serves();
    for cut in [1, 10, HELLO.len()] {
        let mut socket = raw(scene.place.address);
        socket.write_all(&HELLO[..cut]).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        socket.write_all(&HELLO[cut..]).expect("sent");
        socket
            .write_all(b"GET /hello HTTP/1.0\r\n\r\n")
            .expect("sent");
        let answer = String::from_utf8(rest(socket)).expect("text");
        assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    }
}

#[test]
fn a_thousand_handshakes_at_once_succeed() {
    let scene = Scene::new(Limits {
        handshake_time: PATIENCE * 4,
        ..Limits::default()
    });
    let mut streams: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = scene.connect();
            stream
                .sock
                .set_read_timeout(Some(PATIENCE * 4))
                .expect("set");
            let StreamOwned { conn, sock } = &mut stream;
            conn.write_tls(sock).expect("sent");
            stream
        })
        .collect();
    for stream in &mut streams {
        assert!(ask(stream, HELLO).ends_with("hello"));
    }
    assert_eq!(scene.place.http_server.stats().open, 1000);
}

#[test]
fn both_sides_say_that_they_close_and_need_not() {
    let scene = Scene::new(Limits::default());
    let mut stream = scene.connect();
    ask(&mut stream, HELLO);
    stream
        .write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .expect("a farewell: rustls requires it");
    assert!(text.ends_with(b"hello"));

    let mut polite = scene.connect();
    ask(&mut polite, HELLO);
    polite.conn.send_close_notify();
    polite.flush().expect("sent");
    assert_eq!(polite.read(&mut [0; 10]).expect("a farewell"), 0);

    let mut silent = scene.connect();
    ask(&mut silent, HELLO);
    drop(silent);
    let mut half = scene.connect();
    half.write_all(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        .expect("sent");
    drop(half);
    eventually("all are closed", || {
        scene.place.http_server.stats().open <= 1
    });
    scene.serves();
}

#[test]
fn both_versions_are_served_and_sessions_are_resumed() {
    let scene = Scene::new(Limits::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let pem = std::fs::read(&scene.ca.file).expect("a file");
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        let ca = rustls::pki_types::CertificateDer::from_pem_slice(&pem).expect("PEM");
        roots.add(ca).expect("added");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let kinds = [(); 2].map(|()| {
            let mut stream = connect(scene.place.address, Arc::clone(&config));
            ask(&mut stream, HELLO);
            // The ticket comes with the response or after it.
            ask(&mut stream, HELLO);
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            stream.conn.handshake_kind()
        });
        let expected = [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)];
        assert_eq!(kinds, expected, "{version:?}");
    }
    assert_eq!(rustls::version::TLS13.version, ProtocolVersion::TLSv1_3);
}

#[test]
fn the_name_of_a_certificate_is_the_clients() {
    let require = |settings: &mut Settings, ca: &Ca| {
        settings.trusted_ca_file = Some(ca.file.clone());
        settings.checks_address = true;
    };
    let scene = Scene::with(Limits::default(), Security::tls, require);
    let name = b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n";
    let config = scene.client.config();
    for round in ["first", "resumed"] {
        let mut stream = connect(scene.place.address, Arc::clone(&config));
        assert!(ask(&mut stream, name).ends_with("client"), "{round}");
        assert!(ask(&mut stream, name).ends_with("client"), "{round}");
    }
    let nameless = Leaf {
        common_name: "",
        ..leaf("nameless")
    };
    let nameless = Client::open(&settings(&scene.ca, &nameless)).expect("opened");
    let mut stream = connect(scene.place.address, nameless.config());
    assert!(ask(&mut stream, name).ends_with("nobody"));
    let elsewhere = Leaf {
        hosts: vec!["10.0.0.1".to_owned()],
        ..leaf("elsewhere")
    };
    let elsewhere = Client::open(&settings(&scene.ca, &elsewhere)).expect("opened");
    let mut stream = connect(scene.place.address, elsewhere.config());
    try_ask(&mut stream, name).expect_err("its certificate is for another address");
    drop(scene.folder);
}

/// openssl sends `R` as a request to negotiate again.
#[test]
fn nothing_is_negotiated_again() {
    let scene = Scene::new(Limits::default());
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &scene.place.address.to_string(),
            "-tls1_2",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = client.stdin.take().expect("piped");
    for _ in 0..3 {
        if input.write_all(b"R\n").is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    drop(input);
    let output = client.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("no renegotiation") || said.contains("alert"),
        "{said}"
    );
    scene.serves();
}

#[test]
fn an_idle_connection_takes_little() {
    let child = Child::start(ChildSettings::default());
    child.serves();
    let count = 1000;
    let begin = || -> Vec<Socket> {
        let clients = (0..count).map(|_| {
            let mut client = child.client();
            client.is_served();
            client.socket
        });
        clients.collect()
    };
    // The first ones also fill the allocator's caches.
    let first = begin();
    let before = child.resident();
    let second = begin();
    let each = child.resident().saturating_sub(before) / count;
    println!("{each} bytes each");
    assert!(each < 24 << 10, "{each} bytes");
    drop((first, second));
}
