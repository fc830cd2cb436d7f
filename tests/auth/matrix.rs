//! What each client may do, as a table, and requests with credentials.

use crate::harness::Connection;
use crate::harness::client::{Answer, PATIENCE, request};
use crate::harness::server::program;
use std::net::SocketAddr;

/// Credentials as they stand in the header: base64 of `NAME:PASSWORD`.
pub const ROOT: &str = "Basic cm9vdDpvcGVu"; // root:open
pub const ROOT_WRONG: &str = "Basic cm9vdDpzaHV0"; // root:shut
pub const READER: &str = "Basic cmVhZGVyOnI="; // reader:r
pub const WRITER: &str = "Basic d3JpdGVyOnc="; // writer:w
pub const NOBODY: &str = "Basic bm9ib2R5Om4="; // nobody:n

pub fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: Option<&str>,
    header: Option<&str>,
) -> Answer {
    let mut connection = Connection::open(address).expect("a connection");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let mut headers = Vec::from(form);
    headers.extend(header.map(|value| ("Authorization", value)));
    let bytes = request(method, target, &headers, body.map(str::as_bytes));
    connection.write(&bytes).expect("a request");
    let answer = connection.answer(method == "HEAD", PATIENCE);
    answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

pub fn change(address: SocketAddr, method: &str, path: &str, body: &str, wanted: u16) {
    let answer = ask(address, method, path, Some(body), Some(ROOT));
    assert_eq!(
        answer.status,
        wanted,
        "{method} {path} {body}: {}",
        answer.text()
    );
}

/// A user who may read `/r/*`, one who may also write `/w/*`, guests who may read `/pub`, and root.
pub fn make_users(address: SocketAddr) {
    let users = "/v2/auth/users";
    let put = |path: &str, body: &str, wanted| change(address, "PUT", path, body, wanted);
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

pub fn enable(address: SocketAddr) {
    change(address, "PUT", "/v2/auth/enable", "", 200);
}

/// The senders of the table below, in its order.
pub const SENDERS: [(&str, Option<&str>); 7] = [
    ("no credentials", None),
    ("a broken header", Some("Basic ?")),
    ("a wrong password", Some(ROOT_WRONG)),
    ("an unknown user", Some(NOBODY)),
    ("reader", Some(READER)),
    ("writer", Some(WRITER)),
    ("root", Some(ROOT)),
];

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

pub const OTHERS: [Row; 20] = [
    ("GET", "/v2/keys/a?wait=x", 400, [400; 7]),
    ("PATCH", "/v2/keys/a", 405, [405; 7]),
    ("GET", "/v2/members", 200, [200; 7]),
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
    ("POST", "/v2/auth/users", 405, [405; 7]),
    ("GET", "/v2/auth/users/a/b", 400, [400; 7]),
    ("GET", "/v2/machines", 200, [200; 7]),
    ("GET", "/v2/stats/store", 200, [200; 7]),
    ("GET", "/version", 200, [200; 7]),
    ("GET", "/health", 200, [200; 7]),
    ("GET", "/metrics", 200, [200; 7]),
    (
        "GET",
        "/edgetcd/snapshot",
        200,
        [401, 401, 401, 401, 401, 401, 200],
    ),
];

/// The reference, against which this can run too, makes no backups.
fn rows() -> impl Iterator<Item = Row> {
    let is_reference = program()[0].rsplit('/').next() == Some("etcd");
    let all = KEYS.into_iter().chain(OTHERS);
    all.filter(move |(_, target, ..)| !is_reference || !target.starts_with("/edgetcd/"))
}

/// All differences from the table.
pub fn differences(address: SocketAddr, enabled: bool) -> Vec<String> {
    differences_of(enabled, &SENDERS, |method, target, body, header| {
        ask(address, method, target, body, header).status
    })
}

/// All differences from the table. `senders` replaces those of the table in their order. `ask` sends a request with a
/// method, a target, a body and credentials, and returns the status.
pub fn differences_of(
    enabled: bool,
    senders: &[(&str, Option<&str>); 7],
    mut ask: impl FnMut(&str, &str, Option<&str>, Option<&str>) -> u16,
) -> Vec<String> {
    let mut found = Vec::new();
    for (method, target, open, checked) in rows() {
        for ((sender, header), checked) in senders.iter().zip(checked) {
            let wanted = if enabled { checked } else { open };
            let body = matches!(method, "PUT" | "POST").then_some("value=v");
            let status = ask(method, target, body, *header);
            if status != wanted {
                found.push(format!(
                    "{method} {target}, {sender}: {status}, not {wanted}"
                ));
            }
        }
    }
    found
}
