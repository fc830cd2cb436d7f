//! The same servers over TLS, and servers that harm by TLS itself.

use crate::harness::certificates::{Ca, leaf};
use crate::{COMMANDS, SHORT, WAYS, WITHIN, drip, drip_head, server, without_end};
use crate::{Way, each_gives_up, head, run_watched, send};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A server's certificate, and the option with which edgetcdctl trusts it.
struct Trust {
    config: Arc<ServerConfig>,
    option: String,
    _folder: tempfile::TempDir,
}

impl Trust {
    fn new() -> Trust {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new(folder.path(), "ca");
        let pair = ca.sign(&leaf("server"));
        let chain = CertificateDer::from_pem_file(&pair.cert).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of both versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key);
        Trust {
            config: Arc::new(config.expect("a pair")),
            option: format!("--ca-file {} ", ca.file.display()),
            _folder: folder,
        }
    }

    /// A server with TLS that answers as the one at `url` does. `is_polite`: it announces the end of a connection.
    fn in_front_of(&self, url: &str, is_polite: bool) -> String {
        let to = url.trim_start_matches("http://").to_owned();
        let config = Arc::clone(&self.config);
        listen_raw(move |socket| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut client = StreamOwned::new(session, socket);
            let Some(request) = read_head(&mut client) else {
                return;
            };
            let mut server = TcpStream::connect(&to).expect("it listens");
            server.write_all(&request).expect("it reads");
            // The client may leave before the end.
            let is_whole = std::io::copy(&mut server, &mut client).is_ok();
            if is_whole && is_polite {
                client.conn.send_close_notify();
                let _ = client.flush();
            }
        })
    }

    fn line(&self, line: &str) -> Vec<String> {
        let line = format!("{}{line}", self.option);
        line.split(' ').map(str::to_owned).collect()
    }
}

/// Reads a request up to the end of its head. `None`: the client has left.
fn read_head(client: &mut impl Read) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&piece[..count]);
    }
    Some(request)
}

/// Starts a server that passes each socket to `serve`. Returns its `https` URL. It ends with the test.
fn listen_raw(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
    url
}

/// Some commands give up soon, with little memory.
fn some_give_up(trust: &Trust, url: &str, what: &str) {
    let lines = [
        "--no-sync get /a",
        "--no-sync set /a 1",
        "--no-sync watch /a",
        "status",
    ];
    thread::scope(|scope| {
        for line in lines {
            scope.spawn(move || {
                let words = trust.line(line);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let begun = Instant::now();
                let (output, most) = run_watched(url, &words);
                assert!(!output.status.success(), "{line} of {what}: {output:?}");
                assert!(most < 400 << 20, "{line} of {what} took {} MiB", most >> 20);
                assert!(begun.elapsed() < WITHIN, "{line} of {what}");
            });
        }
    });
}

#[test]
fn no_answer_that_breaks_the_protocol_holds_a_command() {
    let trust = Trust::new();
    for (what, way) in WAYS {
        let url = trust.in_front_of(&server(move |_, socket| way(&socket)), true);
        some_give_up(&trust, &url, what);
    }
}

#[test]
fn an_answer_without_an_end_is_not_read_to_the_end_of_memory() {
    let trust = Trust::new();
    let url = trust.in_front_of(&server(|_, socket| without_end(&socket)), true);
    each_gives_up(&url, &trust.option, 2);
}

#[test]
fn an_answer_that_drips_is_given_up() {
    let trust = Trust::new();
    let options = format!("{}{SHORT}", trust.option);
    for way in [drip as Way, drip_head] {
        let url = trust.in_front_of(&server(move |_, socket| way(&socket)), true);
        each_gives_up(&url, &options, COMMANDS.len());
    }
}

/// Bytes that no server may send in a handshake. Each is repeated without an end.
const RECORDS: [(&str, &[u8]); 5] = [
    ("zeros", &[0; 1024]),
    ("a record that is too long", b"\x16\x03\x03\xff\xff"),
    ("empty handshake records", b"\x16\x03\x03\x00\x00"),
    ("warnings", b"\x15\x03\x03\x00\x02\x01\x5a"),
    ("changes of ciphers", b"\x14\x03\x03\x00\x01\x01"),
];

#[test]
fn no_handshake_that_breaks_the_protocol_holds_a_command() {
    let trust = Trust::new();
    for (what, record) in RECORDS {
        let url = listen_raw(move |mut socket| {
            let many = record.repeat(1000);
            while socket.write_all(&many).is_ok() {}
        });
        some_give_up(&trust, &url, what);
    }
    let silent = listen_raw(|socket| {
        thread::sleep(WITHIN);
        drop(socket);
    });
    some_give_up(&trust, &silent, "no handshake");
    let slow = listen_raw(|mut socket| {
        // A first message of 16,384 bytes, of which one arrives every 50 ms.
        let begin = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03";
        let bytes = begin.iter().copied().chain(std::iter::repeat(0));
        for byte in bytes {
            if socket.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    some_give_up(&trust, &slow, "a handshake that drips");
}

/// Anybody on the way can end a TCP connection, and a body whose length is not announced has no other end. But a part of
/// an answer is no JSON.
#[test]
fn a_part_of_an_answer_is_no_answer() {
    let trust = Trust::new();
    let body = r#"{"action":"get","node":{"key":"/a","value":"whole","modifiedIndex":7,"createdIndex":7}}"#;
    for cut in [body.len(), body.len() - 1, body.len() / 2, 0] {
        let without_length = server(move |_, socket| {
            send(&socket, &(head("") + &body[..cut]));
        });
        let with_length = server(move |_, socket| {
            let length = format!("Content-Length: {}\r\n", body.len());
            send(&socket, &(head(&length) + &body[..cut]));
        });
        for plain in [without_length, with_length] {
            for is_polite in [false, true] {
                let url = trust.in_front_of(&plain, is_polite);
                let words = trust.line("--no-sync get /a");
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let (output, _) = run_watched(&url, &words);
                let is_whole = cut == body.len();
                assert_eq!(output.status.success(), is_whole, "{cut}: {output:?}");
            }
        }
    }
}
