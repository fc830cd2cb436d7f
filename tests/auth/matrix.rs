//! What each client may do, as a table, and requests with credentials.

// Each test program uses a part of it.
#![allow(dead_code)]

use crate::harness::client::{Answer, request};
use crate::harness::secure::Config;
use crate::harness::server::program;
use crate::harness::{Connection, Server};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Time limit of an answer. Some wait for a password to be compared, and others are before them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Credentials as they stand in the header: base64 of `NAME:PASSWORD`.
pub const ROOT: &str = "Basic cm9vdDpvcGVu"; // root:open
pub const ROOT_WRONG: &str = "Basic cm9vdDpzaHV0"; // root:shut
pub const READER: &str = "Basic cmVhZGVyOnI="; // reader:r
pub const WRITER: &str = "Basic d3JpdGVyOnc="; // writer:w
pub const NOBODY: &str = "Basic bm9ib2R5Om4="; // nobody:n

/// A server, and how to connect to it.
pub trait Place: Copy {
    fn open(self) -> io::Result<Connection>;
}

/// Without TLS.
impl Place for SocketAddr {
    fn open(self) -> io::Result<Connection> {
        Connection::open(self)
    }
}

/// As the harness does.
impl Place for &Server {
    fn open(self) -> io::Result<Connection> {
        self.try_connect()
    }
}

impl Place for (SocketAddr, Option<&Config>) {
    fn open(self) -> io::Result<Connection> {
        Connection::open_with(self.0, self.1)
    }
}

pub fn ask(
    place: impl Place,
    method: &str,
    target: &str,
    body: Option<&str>,
    header: Option<&str>,
) -> Answer {
    let mut connection = place.open().expect("a connection");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut headers = Vec::from(form);
    headers.extend(header.map(|value| ("Authorization", value)));
    let bytes = request(method, target, &headers, body.map(str::as_bytes));
    connection.write(&bytes).expect("a request");
    let answer = connection.answer(method == "HEAD", PATIENCE);
    answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

pub fn change(place: impl Place, method: &str, path: &str, body: &str, wanted: u16) {
    let answer = ask(place, method, path, Some(body), Some(ROOT));
    assert_eq!(
        answer.status,
        wanted,
        "{method} {path} {body}: {}",
        answer.text()
    );
}

/// A user who may read `/r/*`, one who may also write `/w/*`, guests who may read `/pub`, and root.
pub fn make_users(place: impl Place) {
    let users = "/v2/auth/users";
    let put = |path: &str, body: &str, wanted| change(place, "PUT", path, body, wanted);
    put(
        &format!("{users}/root"),
        r#"{"user":"root","password":"open"}"#,
        201,
    );
    let role = |name: &str, read: &str, write: &str| {
        let kv = format!(r#"{{"read":{read},"write":{write}}}"#);
        let body = format!(r#"{{"role":"{name}","permissions":{{"kv":{kv}}}}}"#);
        put(&format!("/v2/auth/roles/{name}"), &body, 201);
    };
    role("reads", r#"["/r/*","/r"]"#, "[]");
    role("writes", "[]", r#"["/w/*"]"#);
    role("guest", r#"["/pub"]"#, "[]");
    let reader = r#"{"user":"reader","password":"r","roles":["reads"]}"#;
    put(&format!("{users}/reader"), reader, 200);
    let writer = r#"{"user":"writer","password":"w","roles":["reads","writes"]}"#;
    put(&format!("{users}/writer"), writer, 200);
    for key in ["r/a", "w/a", "pub"] {
        put(&format!("/v2/keys/{key}"), "value=v", 201);
    }
}

pub fn enable(place: impl Place) {
    change(place, "PUT", "/v2/auth/enable", "", 200);
}

/// A sender of requests.
#[derive(Clone)]
pub struct Sender {
    pub name: &'static str,
    /// Its place in the rows of the table.
    pub column: usize,
    pub header: Option<&'static str>,
    /// None: without TLS.
    pub config: Option<Config>,
}

/// The senders of the table below, in its order.
pub fn senders(config: Option<&Config>) -> Vec<Sender> {
    let all = [
        ("no credentials", None),
        ("a broken header", Some("Basic ?")),
        ("a wrong password", Some(ROOT_WRONG)),
        ("an unknown user", Some(NOBODY)),
        ("reader", Some(READER)),
        ("writer", Some(WRITER)),
        ("root", Some(ROOT)),
    ];
    let all = all.into_iter().enumerate();
    all.map(|(column, (name, header))| Sender {
        name,
        column,
        header,
        config: config.cloned(),
    })
    .collect()
}

/// A request, its status without authentication, and its statuses for the senders with it.
pub type Row = (&'static str, &'static str, u16, [u16; 7]);

pub const KEYS: [Row; 13] = [
    (
        "GET",
        "/v2/keys/r/a",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    (
        "HEAD",
        "/v2/keys/r/a",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    (
        "GET",
        "/v2/keys/r/a?quorum=true",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    (
        "GET",
        "/v2/keys/r?recursive=true",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/v2/keys/r/?recursive=true",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    (
        "GET",
        "/v2/keys/pub",
        200,
        [200, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/v2/keys/w/a",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    ("GET", "/v2/keys/", 200, [401, 401, 401, 401, 401, 401, 200]),
    (
        "PUT",
        "/v2/keys/w/a",
        200,
        [401, 401, 401, 401, 401, 200, 200],
    ),
    (
        "PUT",
        "/v2/keys/r/a?prevExist=false",
        412,
        [401, 401, 401, 401, 401, 401, 412],
    ),
    (
        "POST",
        "/v2/keys/w/queue",
        201,
        [401, 401, 401, 401, 401, 201, 201],
    ),
    (
        "DELETE",
        "/v2/keys/w/none",
        404,
        [401, 401, 401, 401, 401, 404, 404],
    ),
    // The parameters are read before the right is checked.
    (
        "PUT",
        "/v2/keys/w/a?ttl=x",
        400,
        [400, 400, 400, 400, 400, 400, 400],
    ),
];

pub const OTHERS: [Row; 47] = [
    ("GET", "/edgetcd/trace?wait=false", 200, [200; 7]),
    ("GET", "/v2/keys/a?wait=x", 400, [400; 7]),
    ("PATCH", "/v2/keys/a", 405, [405; 7]),
    ("GET", "/v2/members", 200, [200; 7]),
    ("GET", "/v2/members/leader", 200, [200; 7]),
    (
        "PUT",
        "/v2/members/1",
        415,
        [401, 401, 401, 401, 401, 401, 415],
    ),
    (
        "DELETE",
        "/v2/members/1",
        404,
        [401, 401, 401, 401, 401, 401, 404],
    ),
    (
        "POST",
        "/v2/members",
        415,
        [401, 401, 401, 401, 401, 401, 415],
    ),
    ("GET", "/v2/auth/enable", 200, [200; 7]),
    (
        "GET",
        "/v2/auth/users",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/v2/auth/users/none",
        404,
        [401, 401, 401, 401, 401, 401, 404],
    ),
    (
        "PUT",
        "/v2/auth/users/none",
        400,
        [401, 401, 401, 401, 401, 401, 400],
    ),
    (
        "DELETE",
        "/v2/auth/users/none",
        404,
        [401, 401, 401, 401, 401, 401, 404],
    ),
    (
        "GET",
        "/v2/auth/roles",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "PUT",
        "/v2/auth/roles/none",
        400,
        [401, 401, 401, 401, 401, 401, 400],
    ),
    (
        "GET",
        "/v2/auth/roles/guest",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "DELETE",
        "/v2/auth/roles/none",
        404,
        [401, 401, 401, 401, 401, 401, 404],
    ),
    ("POST", "/v2/auth/users", 405, [405; 7]),
    ("GET", "/v2/auth/users/a/b", 400, [400; 7]),
    ("GET", "/v2/machines", 200, [200; 7]),
    ("GET", "/v2/stats/store", 200, [200; 7]),
    ("GET", "/v2/stats/self", 200, [200; 7]),
    ("GET", "/debug/vars", 200, [200; 7]),
    ("PUT", "/config/local/log", 400, [400; 7]),
    ("GET", "/v2/admin", 404, [404; 7]),
    ("GET", "/v2/auth", 404, [404; 7]),
    ("GET", "/version", 200, [200; 7]),
    ("GET", "/health", 200, [200; 7]),
    ("GET", "/livez", 200, [200; 7]),
    ("GET", "/readyz", 200, [200; 7]),
    ("GET", "/metrics", 200, [200; 7]),
    (
        "GET",
        "/edgetcd/snapshot",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    ("GET", "/", 404, [404; 7]),
    ("GET", "/edgetcd/status", 200, [200; 7]),
    (
        "GET",
        "/edgetcd/keys?prefix=/r/",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    // Keys such as /ra begin with this too.
    (
        "GET",
        "/edgetcd/keys?prefix=/r",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/edgetcd/history?key=/r/a",
        200,
        [401, 401, 401, 401, 200, 200, 200],
    ),
    (
        "GET",
        "/edgetcd/history?key=/&recursive=true",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    // The right is that of the key as it is written, so no other key may be meant.
    ("GET", "/edgetcd/history?key=/r/../w/a", 400, [400; 7]),
    ("GET", "/edgetcd/history?key=/r/%2e%2e/w/a", 400, [400; 7]),
    ("GET", "/edgetcd/history?key=w/a", 400, [400; 7]),
    ("GET", "/edgetcd/keys?prefix=/r/../", 400, [400; 7]),
    ("GET", "/edgetcd/keys?prefix=/r/../w", 400, [400; 7]),
    ("GET", "/edgetcd/keys?prefix=/r//", 400, [400; 7]),
    // For the role guest, a pattern without a star allows the recursive requests of the reference, and no others.
    (
        "GET",
        "/edgetcd/history?key=/pub",
        200,
        [200, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/edgetcd/history?key=/pub&recursive=true",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
    (
        "GET",
        "/edgetcd/keys?prefix=/pub",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
];

/// What the answers depend on, apart from the sender.
#[derive(Clone, Copy)]
pub struct State {
    pub enabled: bool,
    /// Whether the server is the leader.
    pub leads: bool,
}

/// The reference, against which this can run too, makes no backups, and has other paths for supervisors.
pub fn rows(state: State) -> impl Iterator<Item = Row> {
    let is_reference = program()[0].rsplit('/').next() == Some("etcd");
    let leader = if state.leads { 200 } else { 403 };
    let all = KEYS.into_iter().chain(OTHERS);
    let all = all.chain([("GET", "/v2/stats/leader", leader, [leader; 7])]);
    all.filter(move |(_, target, ..)| {
        let is_own = ["/edgetcd/", "/livez", "/readyz"]
            .iter()
            .any(|own| target.starts_with(own));
        !is_reference || !is_own
    })
}

/// All differences from the table, on a single server, without TLS.
pub fn differences(address: SocketAddr, enabled: bool) -> Vec<String> {
    let state = State {
        enabled,
        leads: true,
    };
    differences_of(address, state, &senders(None))
}

/// All differences from the table for these senders.
pub fn differences_of(address: SocketAddr, state: State, senders: &[Sender]) -> Vec<String> {
    let mut found = Vec::new();
    for (method, target, open, checked) in rows(state) {
        for sender in senders {
            let wanted = match state.enabled {
                true => checked[sender.column],
                false => open,
            };
            let body = matches!(method, "PUT" | "POST").then_some("value=v");
            let place = (address, sender.config.as_ref());
            let answer = ask(place, method, target, body, sender.header);
            if answer.status != wanted || !is_whole(method, target, &answer) {
                let shown = format!("{} {}", answer.status, answer.text());
                let what = format!("{method} {target}, {}", sender.name);
                found.push(format!("{what}: {shown}, not {wanted}"));
            }
        }
    }
    found
}

/// Whether a refusal says what it must, and nothing else.
fn is_whole(method: &str, target: &str, answer: &Answer) -> bool {
    let keyed = ["/v2/keys", "/edgetcd/keys", "/edgetcd/history"];
    let is_about_keys = keyed.iter().any(|path| target.starts_with(path));
    let wanted = match (answer.status, method) {
        (401, "HEAD") => "",
        (401, _) if is_about_keys => {
            "{\"errorCode\":110,\"message\":\"The request requires user authentication\",\
             \"cause\":\"Insufficient credentials\",\"index\":0}"
        }
        (401, _) => r#"{"message":"Insufficient credentials"}"#,
        _ => return true,
    };
    answer.text().trim_end() == wanted
}
