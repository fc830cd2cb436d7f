//! What `edgetcd-lab cluster` bounds: requests to its page, recordings, and connections to its proxies.

use crate::real::{RealCluster, until};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::Duration;

/// More than the connections of a proxy or of the page.
const CONNECTIONS: usize = 90;
const CONNECTIONS_MAX: usize = 64;

#[test]
fn an_act_is_short() {
    let lab = RealCluster::start();
    assert_eq!(lab.ask("act", Some(&"x".repeat(1024)), &[]).0, 409);
    let (status, text) = lab.ask("act", Some(&"x".repeat(1025)), &[]);
    assert!(status == 413 && text.contains("1024"), "{status} {text}");
}

#[test]
fn the_page_has_few_connections() {
    let lab = RealCluster::start();
    let host = host(&lab.url);
    let open: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&host)).collect();
    until("connections that are closed", || {
        let closed = open.iter().filter(|one| is_closed(one)).count();
        (closed >= CONNECTIONS - CONNECTIONS_MAX).then_some(())
    });
    drop(open);
    until("an answer again", || {
        (lab.ask("cluster", None, &[]).0 == 200).then_some(())
    });
}

#[test]
fn another_site_may_not_read() {
    let lab = RealCluster::start();
    for path in ["recording", "cluster"] {
        for site in ["cross-site", "same-site"] {
            let (status, text) = lab.ask(path, None, &[("Sec-Fetch-Site", site)]);
            assert!(
                status == 403 && text.contains(&format!("open {}", lab.url)),
                "{path}, {site}: {status} {text}"
            );
        }
        for site in ["same-origin", "none"] {
            assert_eq!(lab.ask(path, None, &[("Sec-Fetch-Site", site)]).0, 200);
        }
    }
    // A link of another page may lead to this one.
    let link = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(lab.ask("", None, &link).0, 200);
}

#[test]
fn there_is_one_recording_at_a_time() {
    let lab = RealCluster::start();
    let older = lab.folder.path().join("nodes/n1.trace.1");
    let made = Command::new("mkfifo").arg(&older).status();
    assert!(made.expect("mkfifo").success());
    std::thread::scope(|threads| {
        let first = threads.spawn(|| lab.ask("recording", None, &[]).0);
        // The end of a pipe for writing opens when there is a reader.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let pipe = until("a recording", || {
            let mut options = OpenOptions::new();
            let opened = options.write(true).custom_flags(nonblocking).open(&older);
            opened.ok()
        });
        fs::remove_file(&older).expect("it exists");
        let (status, text) = lab.ask("recording", None, &[]);
        assert_eq!(
            (status, text.as_str()),
            (503, "another recording is being read; try again\n")
        );
        drop(pipe);
        assert_eq!(first.join().expect("a status"), 200);
    });
    assert_eq!(lab.ask("recording", None, &[]).0, 200);
}

#[test]
fn a_recording_has_the_newest_records() {
    const FILE_BYTES: usize = 40 << 20;
    let lab = RealCluster::start();
    lab.wait_running(3);
    let [newer, older] =
        ["n2.trace", "n2.trace.1"].map(|name| lab.folder.path().join("nodes").join(name));
    until("records in the newer file", || {
        let text = fs::read_to_string(&newer).unwrap_or_default();
        text.starts_with("{\"format\":1,").then_some(())
    });
    let head = "{\"format\":1,\"member\":\"2\",\"name\":\"n2\"}\n";
    let mut text = String::from(head);
    for seq in 0.. {
        text.push_str(&format!(
            "{{\"seq\":{seq},\"filler\":\"{}\"}}\n",
            "x".repeat(1000)
        ));
        if text.len() > FILE_BYTES {
            break;
        }
    }
    let newest = text.lines().last().expect("a line").to_owned();
    fs::write(&older, &text).expect("a file");
    let mut recording = ureq::get(format!("{}recording", lab.url))
        .call()
        .expect("an answer");
    let body = recording.body_mut().with_config().limit(256 << 20);
    let read = body.read_to_string().expect("text");
    assert!(read.len() <= 24 << 20, "{} bytes", read.len());
    let from = read.find(head).expect("the head of the file");
    let own = &read[from + head.len()..];
    assert!(own.starts_with("{\"seq\":"), "a whole line");
    let to = own.find(&newest).expect("the newest record of the file");
    assert!(to > 20 << 20, "{to} bytes of the file");
    assert!(own[to + newest.len()..].starts_with("\n{\"format\":1,"));
}

#[test]
fn a_proxy_has_few_connections() {
    let lab = RealCluster::start();
    lab.wait_running(3);
    let proxy = proxy(&lab);
    let mut open: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&proxy)).collect();
    let answered = open.iter_mut().filter_map(|one| asks(one).ok()).count();
    assert!(
        (1..=CONNECTIONS_MAX).contains(&answered),
        "{answered} connections"
    );
    drop(open);
    until("a connection through the proxy again", || {
        asks(&mut connect(&proxy)).ok()
    });
}

#[test]
fn a_proxy_waits_for_a_head_only_once() {
    let lab = RealCluster::start();
    lab.wait_running(3);
    let mut slow = connect(&proxy(&lab));
    slow.write_all(b"GET / HTTP/1.1\r\nX-Filler: ")
        .expect("it is open");
    slow.set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    for _ in 0..60 {
        let sent = slow.write_all(b"x");
        match slow.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && sent.is_ok() => {}
            _ => return,
        }
    }
    panic!("after 30 s the proxy still waits");
}

fn host(url: &str) -> String {
    let host = url.strip_prefix("http://").expect("a URL");
    host.trim_end_matches('/').to_owned()
}

/// Where the first member's proxy listens.
fn proxy(lab: &RealCluster) -> String {
    let members = until("the members", || lab.read(1, "/v2/members"));
    let members = members["members"].as_array().expect("a list");
    let first = members.iter().find(|member| member["name"] == "n1");
    host(first.expect("n1")["peerURLs"][0].as_str().expect("a URL"))
}

fn connect(host: &str) -> TcpStream {
    let stream = TcpStream::connect(host).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    stream
}

fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let found = stream.peek(&mut [0]);
    !found.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Sends a request without a sender. An error if the connection is closed without a response.
fn asks(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])
}
