//! The commands that `edgetcdctl` has in addition to etcdctl, run as a process against our server.

mod harness;

#[path = "harness/transcript.rs"]
mod transcript;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Cluster, Server, wait_for};
use rustix::process::{Pid, Signal, kill_process};

const WITHIN: Duration = Duration::from_secs(30);

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"));
    command
        .args(args)
        .env("ETCDCTL_ENDPOINTS", url)
        .stdin(Stdio::null());
    command
}

fn run(url: &str, args: &[&str]) -> Output {
    command(url, args).output().expect("it starts")
}

fn with_stdin(url: &str, args: &[&str], stdin: &str) -> Output {
    let mut child = command(url, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(stdin.as_bytes()).expect("it reads");
    drop(pipe);
    child.wait_with_output().expect("it ends")
}

/// The output on stdout. Asserts that the command succeeded.
fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn show(output: &Output) -> String {
    let mut shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        writeln!(shown, "{}", format!("! {line}").trim_end()).expect("a String takes all");
    }
    if let Some(status) = output.status.code().filter(|status| *status != 0) {
        writeln!(shown, "status {status}").expect("a String takes all");
    }
    shown
}

#[test]
fn beyond() {
    let server = Server::start(&[]);
    let url = url(&server);
    transcript::check("ctl/beyond", |line| {
        let line = line.strip_prefix("edgetcdctl ").expect("a line for it");
        let words: Vec<String> = line
            .split(' ')
            .map(|word| {
                let word = word.replace("SERVER", &url).replace("''", "");
                if word.starts_with('/') {
                    word
                } else {
                    word.replace('_', " ")
                }
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        show(&run(&url, &words)).replace(&url, "SERVER")
    });
}

/// The lines without times to live, which change.
fn timeless(lines: &str) -> Vec<String> {
    let cut = |line: &str| match line.split_once(",\"ttl\":") {
        Some((before, _)) => format!("{before},ttl}}"),
        None => line.to_owned(),
    };
    lines.lines().map(cut).collect()
}

fn fill(url: &str) {
    for (key, value) in [
        ("/a/b", "one"),
        ("/a/c", "two\nlines \"quoted\" <&> ü\u{1}"),
        ("/a/d/e/f", ""),
        ("/z", "last"),
    ] {
        said(&run(url, &["set", "--", key, value]));
    }
    said(&run(url, &["set", "/lease", "mine", "--ttl", "1000"]));
    said(&run(url, &["mkdir", "/empty"]));
    said(&run(url, &["mkdir", "/brief", "--ttl", "1000"]));
}

#[test]
fn what_is_exported_can_be_imported() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let (from_url, to_url) = (url(&from), url(&to));
    fill(&from_url);
    let file = from.folder().join("keys.jsonl");
    let file = file.to_str().expect("a plain path");
    said(&run(&from_url, &["export", "--file", file]));
    let exported = fs::read_to_string(file).expect("a file");
    assert_eq!(said(&run(&from_url, &["export"])).lines().count(), 10);

    let imported = run(&to_url, &["import", file]);
    said(&imported);
    assert_eq!(
        String::from_utf8_lossy(&imported.stderr),
        "imported 10 keys and directories\n"
    );
    let again = with_stdin(&to_url, &["import", "-c", "1"], &exported);
    said(&again);
    assert_eq!(
        timeless(&said(&run(&to_url, &["export"]))),
        timeless(&exported)
    );

    let broken = with_stdin(
        &to_url,
        &["import"],
        "{\"key\":\"/x\"}\n\n{\"kex\":\"/y\"}\n",
    );
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&broken.stderr).starts_with("line 3: unknown field `kex`"),
        "{broken:?}"
    );
    let refused = with_stdin(&to_url, &["import"], "{\"key\":\"/a\",\"value\":\"1\"}\n");
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.starts_with("Error:  /a: 102: Not a file (/a) ["),
        "{error}"
    );
    assert_eq!(refused.status.code(), Some(4));
}

#[test]
fn a_deep_directory_is_listed() {
    let server = Server::start(&[]);
    let url = url(&server);
    let key = "/d".repeat(1000);
    said(&run(&url, &["set", &key, "1"]));
    let listed = said(&run(&url, &["ls", "-r"]));
    assert_eq!(listed.lines().count(), 1000);
    assert_eq!(listed.lines().last(), Some(key.as_str()));
    assert_eq!(said(&run(&url, &["export"])).lines().count(), 1000);
    assert!(said(&run(&url, &["ls", "--tree"])).ends_with("\n999 directories, 1 key\n"));
}

/// A process that is ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn interrupt(&mut self) -> Option<i32> {
        let id = i32::try_from(self.0.id()).expect("ids are small");
        let id = Pid::from_raw(id).expect("an id");
        kill_process(id, Signal::INT).expect("it runs");
        self.0.wait().expect("it ends").code()
    }
}

/// `docker stop` sends SIGTERM. The first process of a container has no default actions, so without a handler a watch
/// would run until it is killed.
#[test]
#[ignore = "needs root and unshare, for a process that is the first of its own"]
fn as_the_first_process_of_a_container_a_watch_ends_by_a_signal() {
    let server = Server::start(&[]);
    for (signal, status) in [("INT", 0), ("TERM", 2), ("HUP", 2), ("QUIT", 2)] {
        let mut wrapped = Command::new("env");
        wrapped
            .arg("--default-signal=HUP,INT,QUIT,TERM")
            .args(["unshare", "--pid", "--fork", "--kill-child"])
            .arg(env!("CARGO_BIN_EXE_edgetcdctl"))
            .args(["--endpoints", &url(&server), "watch", "--forever", "/a"]);
        let mut watch = Running(wrapped.spawn().expect("it starts"));
        wait_for("its watch", WITHIN, || {
            let stats = server.ask("GET", "/v2/stats/store", None);
            stats.text().contains("\"watchers\":1").then_some(())
        });
        // The child of unshare is process 1 in its namespace, but has another number here.
        let children = format!("/proc/{0}/task/{0}/children", watch.0.id());
        let inner = std::fs::read_to_string(children).expect("its children");
        let kill = Command::new("kill")
            .args([&format!("-{signal}"), inner.trim()])
            .status();
        assert!(kill.expect("kill runs").success());
        let ended = wait_for("its end", WITHIN, || watch.0.try_wait().expect("a child"));
        assert_eq!(ended.code(), Some(status), "{signal}");
        wait_for("the server to notice", WITHIN, || {
            let stats = server.ask("GET", "/v2/stats/store", None);
            stats.text().contains("\"watchers\":0").then_some(())
        });
    }
}

#[test]
fn a_mirror_follows() {
    let (mut from, to) = (Server::start(&[]), Server::start(&[]));
    let (from_url, to_url) = (url(&from), url(&to));
    fill(&from_url);
    said(&run(&to_url, &["set", "/own", "stays"]));
    let args = ["mirror", "--from", &from_url, "--to", &to_url];
    let mut mirror = command("http://127.0.0.1:1", &args);
    let mut mirror = Running(mirror.stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut told = BufReader::new(mirror.0.stderr.take().expect("a pipe")).lines();
    let line = told.next().expect("a line").expect("text");
    assert!(
        line.starts_with("copied 10 keys and directories as of index "),
        "{line}"
    );

    said(&run(&from_url, &["set", "/a/b", "changed"]));
    said(&run(&from_url, &["rm", "-r", "/a/d"]));
    said(&run(&from_url, &["mk", "--in-order", "/queue", "job"]));
    said(&run(&from_url, &["updatedir", "/empty", "--ttl", "1000"]));
    said(&run(&from_url, &["set", "/gone", "soon", "--ttl", "1"]));
    same(&from_url, &to_url);

    from.kill();
    let line = told.next().expect("a line").expect("text");
    assert!(line.ends_with("; copying again"), "{line}");
    from.launch();
    said(&run(&from_url, &["rm", "/z"]));
    same(&from_url, &to_url);
    assert_eq!(said(&run(&to_url, &["get", "/own"])), "stays\n");
    assert_eq!(mirror.interrupt(), Some(0));

    let again = Running(
        command("", &[&args[..], &["--delete"]].concat())
            .spawn()
            .expect("it starts"),
    );
    wait_for(
        "keys that are not in the source to be removed",
        WITHIN,
        || {
            let output = run(&to_url, &["get", "/own"]);
            (output.status.code() == Some(4)).then_some(())
        },
    );
    drop(again);
}

/// A service that keeps its key alive with refresh=true, which creates no event.
#[test]
fn what_is_kept_alive_lives_in_the_mirror() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let (from_url, to_url) = (url(&from), url(&to));
    from.ask("PUT", "/v2/keys/svc/web?value=here&ttl=2", None);
    from.ask("PUT", "/v2/keys/svc/until?value=here&ttl=3600", None);
    let args = ["mirror", "--from", &from_url, "--to", &to_url];
    let _mirror = Running(command("", &args).spawn().expect("it starts"));
    let is_there = || to.ask("GET", "/v2/keys/svc/web", None).status == 200;
    wait_for("the copy", WITHIN, || is_there().then_some(()));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        let refresh = "/v2/keys/svc/web?refresh=true&prevExist=true&ttl=2";
        assert_eq!(from.ask("PUT", refresh, None).status, 200);
        assert!(is_there(), "gone after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(300));
    }
    // The times to live were extended without an event in the target too, and keys with a long time to live were not
    // changed.
    let node = |key| to.ask("GET", &format!("/v2/keys/svc/{key}"), None).json();
    let modified = |key| {
        node(key)
            .at("/node/modifiedIndex")
            .and_then(harness::Json::number)
    };
    assert!(modified("until") <= Some(6), "{:?}", node("until"));
    wait_for("its end, once nobody keeps it alive", WITHIN, || {
        (!is_there()).then_some(())
    });
}

#[test]
fn a_cluster_is_no_mirror_of_itself() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.wait_leader();
    let (from, to) = (url(cluster.node(0)), url(cluster.node(1)));
    let refused = run("", &["mirror", "--from", &from, "--to", &to]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("are one cluster"), "{said}");
    cluster.kill(2);
}

/// Members started without flags have the same ids everywhere, and so do their clusters.
#[test]
fn two_clusters_of_the_same_ids_are_mirrored() {
    let (mut from, mut to) = (Server::start(&[]), Server::prepare(&[]));
    from.stop();
    let copied = Command::new("cp")
        .arg("-r")
        .args([from.data(), to.data()])
        .status();
    assert!(copied.expect("there is a cp").success());
    from.launch();
    to.launch();
    let cluster = |server: &Server| {
        let answer = server.ask("GET", "/v2/keys/", None);
        answer
            .header("X-Etcd-Cluster-Id")
            .expect("an id")
            .to_owned()
    };
    assert_eq!(cluster(&from), cluster(&to));
    from.ask("PUT", "/v2/keys/a?value=1", None);
    let args = ["mirror", "--from", &url(&from), "--to", &url(&to)];
    let _mirror = Running(command("", &args).spawn().expect("it starts"));
    wait_for("the copy", WITHIN, || {
        (to.ask("GET", "/v2/keys/a", None).status == 200).then_some(())
    });
}

/// Ignores the key that only the copy has.
fn same(from: &str, to: &str) {
    wait_for("the copy is the same", WITHIN, || {
        let of = |url| timeless(&said(&run(url, &["export"])));
        let mut copy = of(to);
        copy.retain(|line| !line.contains("/own"));
        (copy == of(from)).then_some(())
    });
}

#[test]
fn status_shows_one_and_three() {
    let server = Server::start(&[]);
    let shown = said(&run(&url(&server), &["status"]));
    let lines: Vec<&str> = shown.lines().collect();
    let heads: Vec<&str> = lines[0].split_whitespace().collect();
    let expected = "NAME ID ROLE TERM INDEX LAG RTT SYNC P99 MEMORY VERSION";
    assert_eq!(heads.join(" "), expected);
    assert!(lines[1].contains("  leader  "), "{shown}");
    assert!(lines[1].contains("MiB  "), "{shown}");
    assert_eq!(lines.len(), 2, "{shown}");

    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let url = url(cluster.node(leader));
    let rows = wait_for("a time of each follower", WITHIN, || {
        let shown = said(&run(&url, &["-o", "json", "status"]));
        let rows: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let rows = rows.as_array().expect("an array").clone();
        let timed = rows.iter().filter(|row| row["rtt_ms"].is_f64());
        (timed.count() == 2).then_some(rows)
    });
    assert_eq!(rows.iter().filter(|row| row["role"] == "leader").count(), 1);
    assert!(
        rows.iter().all(|row| row["lag"].as_u64() < Some(10)),
        "{rows:?}"
    );

    let other = cluster.others(leader)[0];
    cluster.kill(other);
    let without = run(&url, &["status"]);
    let shown = String::from_utf8_lossy(&without.stdout);
    assert_eq!(without.status.code(), Some(5), "{shown}");
    assert_eq!(shown.matches("unreachable").count(), 1, "{shown}");
}

/// Runs the script in bash and returns the completions for a line.
fn offered(script: &str, line: &str) -> Vec<String> {
    let commands = format!(
        "{script}\nCOMP_LINE='{line}' COMP_POINT={} COMP_WORDS=({line}{}) \
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n_edgetcdctl\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len(),
        if line.ends_with(' ') { "''" } else { "" }
    );
    let output = Command::new("bash").args(["-c", &commands]).output();
    said(&output.expect("bash runs"))
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "needs bash"]
fn bash_completes_commands_and_options() {
    let script = said(&run("", &["completion", "bash"]));
    let table = [
        ("edgetcdctl se", "set setdir"),
        ("edgetcdctl --no-", "--no-sync"),
        ("edgetcdctl --endpoints http://a:1 mem", "member"),
        ("edgetcdctl -o json get --so", "--sort"),
        ("edgetcdctl get /a --q", "--quorum"),
        ("edgetcdctl member ", "list add remove update"),
        ("edgetcdctl member add --h", "--help"),
        ("edgetcdctl help upd", "update updatedir"),
        ("edgetcdctl completion z", "zsh"),
    ];
    for (line, expected) in table {
        assert_eq!(offered(&script, line).join(" "), expected, "{line}");
    }
}

#[test]
#[ignore = "needs zsh and fish"]
fn other_shells_understand_their_scripts() {
    for shell in ["zsh", "fish"] {
        let script = said(&run("", &["completion", shell]));
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), &script).expect("it can be written");
        let checked = Command::new(shell).arg("-n").arg(file.path()).output();
        let checked = checked.unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert_eq!(show(&checked), "", "{shell}");
    }
}

/// `script` runs it on a terminal.
#[test]
#[ignore = "needs script (apt-get install bsdutils)"]
fn colours_are_for_terminals() {
    let server = Server::start(&[]);
    said(&run(&url(&server), &["set", "/dir/key", "1"]));
    let line = format!("{} ls --tree", env!("CARGO_BIN_EXE_edgetcdctl"));
    let on_terminal = |variable: &str, value: &str| {
        Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("ETCDCTL_ENDPOINTS", url(&server))
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(variable, value)
            .stdin(Stdio::null())
            .output()
    };
    let coloured = on_terminal("LANG", "C.UTF-8").expect("script runs");
    assert!(
        said(&coloured).contains("\x1b[1;34mdir\x1b[0m"),
        "{coloured:?}"
    );
    let plain = on_terminal("NO_COLOR", "1").expect("it starts");
    assert!(said(&plain).contains("└── dir\r\n"), "{plain:?}");
    let piped = said(&run(&url(&server), &["ls", "--tree"]));
    assert!(piped.contains("└── dir\n"), "{piped}");
}

#[test]
fn a_watch_tells_the_time() {
    let server = Server::start(&[]);
    let url = url(&server);
    said(&run(&url, &["set", "/before", "0"]));
    said(&run(&url, &["set", "/a", "1"]));
    let index = server.ask("GET", "/v2/keys/a", None).index();
    let after = (index - 1).to_string();
    let args = ["watch", "--timestamps", "-r", "--after-index", &after, "/a"];
    let line = said(&run(&url, &args));
    let (time, rest) = line.split_once(' ').expect("a time");
    assert_eq!(rest, "[set] /a\n1\n");
    assert_eq!(
        (time.len(), &time[23..]),
        ("2026-01-01T00:00:00.000Z".len(), "Z")
    );
    let json = said(&run(
        &url,
        &[&["-o", "json"], &args[..2], &args[3..]].concat(),
    ));
    assert!(json.starts_with("{\"time\":\"2"), "{json}");
    assert!(json.ends_with("\"prevNode\":null}\n"), "{json}");
}

#[test]
fn a_value_can_be_what_is_in_a_file() {
    let server = Server::start(&[]);
    let url = url(&server);
    let file = server.folder().join("value");
    fs::write(&file, "from\na file\n").expect("it can be written");
    let path = file.display().to_string();
    for command in ["set", "update"] {
        let shown = said(&run(&url, &[command, "/a", "--file", &path]));
        assert_eq!(shown, "from\na file\n\n");
    }
    let shown = with_stdin(&url, &["mk", "/c", "--file", "-"], "piped");
    assert_eq!(said(&shown), "piped\n");
    let both = run(&url, &["set", "/a", "1", "--file", &path]);
    assert_eq!(both.status.code(), Some(1));
    // The text is stored as it is: no argument is a file name.
    let at = format!("@{path}");
    for text in [
        &at,
        "@@x",
        "@",
        "-",
        "--",
        "@/etc/passwd",
        "$(ls)",
        "%zz",
        "\\n",
    ] {
        for words in [&["set", "--", "/b"][..], &["update", "--", "/b"]] {
            let shown = said(&run(&url, &[words, &[text]].concat()));
            assert_eq!(shown, format!("{text}\n"), "{words:?}");
        }
    }
}

/// Accepts one request on a port of its own and returns its head.
fn heard(args: &[&str], stdin: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
        let head: Vec<String> = lines
            .map(|line| line.expect("text"))
            .take_while(|line| !line.is_empty())
            .collect();
        let body = r#"{"errorCode":110,"message":"Unauthorized","cause":"x","index":0}"#;
        let answer = format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).expect("it listens");
        head.join("\n")
    });
    let output = with_stdin(&url, args, stdin);
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(show(&output).ends_with("! Error:  110: Unauthorized (x) [0]\nstatus 4\n"));
    server.join().expect("it was asked")
}

#[test]
fn who_asks_is_told_to_the_server() {
    let given = heard(&["--no-sync", "-u", "root:secret", "get", "/a"], "");
    assert!(
        given.to_lowercase().contains(
            "\nauthorization: basic cm9vdDpzZWNyZXQ="
                .to_lowercase()
                .as_str()
        )
    );
    let asked = heard(&["--no-sync", "-u", "root", "set", "/a"], "secret\nvalue");
    assert!(
        asked.to_lowercase().contains("basic cm9vddpzzwnyzxq="),
        "{asked}"
    );
    let nobody = heard(&["--no-sync", "get", "/a"], "");
    assert!(!nobody.to_lowercase().contains("authorization"), "{nobody}");
}
