//! Runs the client as a process, and sends requests to servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{Answer, Cluster, Connection, Json, Server, setting};

/// A large tree takes long on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The default jump of the index.
pub const BUMP: u64 = 1_000_000;

pub fn keys() -> usize {
    usize::try_from(setting("BACKUP_KEYS", 1000)).expect("a count")
}

pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// `edgetcdctl` with these endpoints.
pub fn command(endpoints: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command
        .args(words)
        .env("ETCDCTL_ENDPOINTS", endpoints)
        .stdin(Stdio::null());
    command
}

pub fn run(endpoints: &str, words: &[&str]) -> Output {
    command(endpoints, words).output().expect("it starts")
}

/// The output of a successful command.
#[track_caller]
pub fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The error output of a command that ended with this status.
#[track_caller]
pub fn complained(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(status), "{printed}{text}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

pub fn all_endpoints(cluster: &Cluster) -> String {
    let urls: Vec<String> = cluster.addresses().into_iter().map(url).collect();
    urls.join(",")
}

/// Saves a backup and returns the printed line of JSON.
#[track_caller]
pub fn save(endpoints: &str, file: &Path) -> Json {
    let words = ["-o", "json", "snapshot", "save", text(file)];
    Json::parse(&said(&run(endpoints, &words))).expect("a line of JSON")
}

pub fn number(json: &Json, name: &str) -> u64 {
    let number = json.get(name).and_then(Json::number);
    number.unwrap_or_else(|| panic!("{name} in {json:?}"))
}

/// The arguments that restore the directory of a node of this cluster from a file.
pub fn restore_words(cluster: &Cluster, node: usize, file: &Path) -> Vec<String> {
    let listed: Vec<String> = (0..cluster.len())
        .map(|node| format!("n{node}={}", url(cluster.node(node).peer_address())))
        .collect();
    let own = url(cluster.node(node).peer_address());
    let words = ["snapshot", "restore", text(file), "--data-dir"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push(text(cluster.node(node).data()).to_owned());
    words.extend(["--name".to_owned(), format!("n{node}")]);
    words.push(format!("--initial-cluster={}", listed.join(",")));
    words.push(format!("--initial-advertise-peer-urls={own}"));
    words
}

#[track_caller]
pub fn restore(cluster: &Cluster, node: usize, file: &Path) -> String {
    let words = restore_words(cluster, node, file);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    said(&run("", &words))
}

/// Restores the directory of a single server.
#[track_caller]
pub fn restore_alone(server: &Server, file: &Path, further: &[&str]) -> String {
    let peer = format!(
        "--initial-advertise-peer-urls={}",
        url(server.peer_address())
    );
    let mut words = vec!["snapshot", "restore", text(file), &peer];
    words.extend(["--data-dir", text(server.data())]);
    words.extend(further);
    said(&run("", &words))
}

/// Stops all nodes, wipes them, restores them from the file, and starts them.
pub fn wipe_and_restore(cluster: &mut Cluster, file: &Path) {
    for node in 0..cluster.len() {
        cluster.kill(node);
    }
    for node in 0..cluster.len() {
        cluster.node_mut(node).wipe();
        restore(cluster, node, file);
    }
    cluster.launch();
}

pub fn put(connection: &mut Connection, key: &str, value: &str) -> Answer {
    send(connection, "PUT", key, &format!("value={value}"))
}

#[track_caller]
pub fn send(connection: &mut Connection, method: &str, key: &str, form: &str) -> Answer {
    let answer = connection
        .ask(method, &format!("/v2/keys{key}"), Some(form))
        .unwrap_or_else(|error| panic!("{method} {key}: {error}"));
    assert!(
        matches!(answer.status, 200 | 201),
        "{method} {key}: {answer:?}"
    );
    answer
}

/// Writes `count` keys in several folders, through all of these nodes at once.
pub fn fill(addresses: &[SocketAddr], count: usize) {
    let writers = 16;
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let address = addresses[writer % addresses.len()];
            scope.spawn(move || {
                let mut connection = Connection::open(address).expect("a connection");
                for key in (writer..count).step_by(writers) {
                    let name = format!("/load/d{:02}/k{key:06}", key % 50);
                    put(&mut connection, &name, &format!("value-{key}"));
                }
            });
        }
    });
}

/// The complete tree, with the hidden keys separately, and without the remaining times to live.
pub fn tree(server: &Server) -> Vec<String> {
    let mut connection = server.connect();
    let mut dump = |key: &str| -> String {
        let target = format!("/v2/keys{key}?recursive=true&sorted=true");
        connection
            .write(&crate::harness::client::form_request("GET", &target, None))
            .expect("sent");
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        assert_eq!(answer.status, 200, "{key}: {}", answer.text());
        without_ttl(&answer.text())
    };
    vec![dump("/"), dump("/_hidden"), dump("/rich/_h")]
}

/// Removes fields such as `"ttl":12,`, which count down.
fn without_ttl(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\"ttl\":") {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        out += before;
        rest = after[digits..].trim_start_matches(',');
    }
    out + rest
}

pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("backup-").tempdir();
    folder.expect("a folder")
}

pub fn snapshots(data: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(data.join("member/snap")).expect("the snapshots");
    let mut paths: Vec<PathBuf> = found
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "snap")
        })
        .collect();
    paths.sort();
    paths
}
