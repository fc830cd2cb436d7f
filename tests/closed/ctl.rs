//! `edgetcdctl` with a closed cluster: each command works with a certificate and a user, and fails without either of
//! them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::certificates::Pair;
use crate::harness::closed::{self, Pki};
use crate::harness::{Cluster, Server, wait_for};
use crate::matrix::{ROOT, ask, enable, make_users};
use crate::support::{WITHIN, alone, edgetcdctl, printed, text};

/// A closed cluster with users, and the certificate of a client. The certificate names no user.
struct Scene {
    pki: Pki,
    operator: Pair,
    cluster: Cluster,
}

impl Scene {
    fn start() -> Scene {
        let pki = Pki::new();
        let operator = pki.sign("operator");
        let mut cluster = closed::prepare(3, &pki, &["https"], &pki.client_cert_flags());
        closed::ask_with(&mut cluster, &pki.named("operator"));
        cluster.launch();
        let leader = cluster.wait_leader();
        make_users(cluster.node(leader));
        enable(cluster.node(leader));
        Scene {
            pki,
            operator,
            cluster,
        }
    }

    /// Runs a command with a certificate or without, and as a user (`NAME:PASSWORD`) or as nobody.
    fn run(&self, pair: Option<&Pair>, user: &str, line: &str) -> Output {
        self.command(pair, user, line).output().expect("it starts")
    }

    fn command(&self, pair: Option<&Pair>, user: &str, line: &str) -> std::process::Command {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = edgetcdctl(&self.cluster, &self.pki, pair, &words);
        if !user.is_empty() {
            command.env("ETCDCTL_USERNAME", user);
        }
        command
    }

    #[track_caller]
    fn works(&self, line: &str, expected: &str) {
        let shown = printed(&self.run(Some(&self.operator), "root:open", line));
        assert!(shown.contains(expected), "{line}: {shown}");
    }

    #[track_caller]
    fn fails(&self, pair: Option<&Pair>, user: &str, line: &str, expected: &str) {
        let output = self.run(pair, user, line);
        let shown = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(!output.status.success(), "{line} as {user:?}: {shown:?}");
        let shown = shown.concat();
        // The members API has no text for it, and etcdctl prints the same.
        let shown = shown.replace("unexpected status code 401", NO_RIGHT);
        assert!(shown.contains(expected), "{line} as {user:?}: {shown}");
    }
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // `timeout` passes this signal on. It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Whom the cluster lets do something: everybody with a certificate, or only some users.
const ANYBODY: bool = false;
const USERS: bool = true;

const NO_RIGHT: &str = "nsufficient credentials";
const NO_CERTIFICATE: &str = "tls: certificate required";

#[test]
fn every_command_needs_a_certificate_and_most_need_a_user() {
    let _alone = alone();
    let scene = Scene::start();
    let folder = scene.pki.folder().to_owned();
    let path = |name: &str| text(&folder.join(name)).to_owned();
    let (keys, saved) = (path("keys.jsonl"), path("saved"));
    for (line, expected, whom) in [
        ("set /fruit/a apple".to_owned(), "apple", USERS),
        ("mk /fruit/b pear".to_owned(), "pear", USERS),
        ("update /fruit/b plum".to_owned(), "plum", USERS),
        ("get /fruit/b".to_owned(), "plum", USERS),
        ("ls -r /fruit".to_owned(), "/fruit/a", USERS),
        ("mkdir /empty".to_owned(), "", USERS),
        ("rmdir /empty".to_owned(), "", USERS),
        ("rm /fruit/b".to_owned(), "plum", USERS),
        (format!("export --file {keys} /fruit"), "", USERS),
        (format!("import {keys}"), "", USERS),
        (format!("snapshot save {saved}"), "", USERS),
        ("user list".to_owned(), "reader", USERS),
        ("role get reads".to_owned(), "/r/*", USERS),
        (
            "role grant reads --path /more/* --read".to_owned(),
            "Role reads updated",
            USERS,
        ),
        ("cluster-health".to_owned(), "cluster is healthy", ANYBODY),
        ("member list".to_owned(), "isLeader=true", ANYBODY),
        ("status".to_owned(), "leader", ANYBODY),
        (
            "member add late https://127.0.0.1:1".to_owned(),
            "Added member named late",
            USERS,
        ),
    ] {
        scene.fails(None, "root:open", &line, NO_CERTIFICATE);
        if whom == USERS {
            scene.fails(Some(&scene.operator), "", &line, NO_RIGHT);
            scene.fails(Some(&scene.operator), "root:wrong", &line, NO_RIGHT);
        }
        assert!(
            !line.contains(&saved) || !folder.join("saved").exists(),
            "a file"
        );
        scene.works(&line, expected);
    }
    scene.fails(
        Some(&scene.operator),
        "reader:r",
        "snapshot save /nowhere",
        NO_RIGHT,
    );
    scene.works(&format!("snapshot check {saved}"), "");
}

/// Starts a command that prints lines for as long as it runs.
fn lines_of(
    scene: &Scene,
    line: &str,
) -> (
    Running,
    impl Iterator<Item = std::io::Result<String>> + use<>,
) {
    let mut command = scene.command(Some(&scene.operator), "root:open", line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(child.spawn().expect("it starts"));
    let out = running.0.stdout.take().expect("piped");
    (running, BufReader::new(out).lines())
}

/// Waits for the watchers of all members.
fn wait_watchers(cluster: &Cluster, wanted: u64) {
    wait_for("the watchers", WITHIN, || {
        let watchers = (0..cluster.len()).map(|node| {
            let stats = cluster
                .node(node)
                .ask("GET", "/v2/stats/store", None)
                .json();
            let count = stats.get("watchers").and_then(|count| count.number());
            count.expect("a count")
        });
        (watchers.sum::<u64>() >= wanted).then_some(())
    });
}

#[test]
fn watches_and_mirrors_follow_a_closed_cluster() {
    let _alone = alone();
    let scene = Scene::start();
    let mut target = Server::prepare(&[]);
    closed::serve(&mut target, &scene.pki, &["https"]);
    let flags = scene.pki.client_cert_flags();
    flags.iter().for_each(|flag| target.add_flag(flag));
    target.ask_with(scene.pki.named("operator"));
    target.launch();
    make_users(&target);
    enable(&target);

    let (from, to) = (
        closed::endpoints(&scene.cluster.addresses()),
        closed::endpoints(&[target.address()]),
    );
    let mirror = format!("mirror --from {from} --to {to} /seen");
    for (pair, user, why) in [
        (None, "root:open", NO_CERTIFICATE),
        (Some(&scene.operator), "", NO_RIGHT),
        (Some(&scene.operator), "reader:r", NO_RIGHT),
    ] {
        scene.fails(pair, user, &mirror, why);
        scene.fails(pair, user, "watch -f -r /seen", why);
        scene.fails(pair, user, "exec-watch -r /seen -- true", why);
    }
    scene.works("set /seen/a before", "before");
    let (_mirror, _) = lines_of(&scene, &mirror);
    let (_watch, mut seen) = lines_of(&scene, "watch -f -r /seen");
    let (_exec, mut executed) =
        lines_of(&scene, "exec-watch -r /seen -- printenv ETCD_WATCH_VALUE");
    wait_watchers(&scene.cluster, 3);
    scene.works("set /seen/a after", "after");
    let mut next = || seen.next().expect("a line").expect("text");
    assert_eq!([next(), next()], ["[set] /seen/a", "after"]);
    assert_eq!(executed.next().expect("a line").expect("text"), "after");
    wait_for("the mirrored key", WITHIN, || {
        let answer = ask(&target, "GET", "/v2/keys/seen/a", None, Some(ROOT));
        answer.text().contains("after").then_some(())
    });
}

/// `edgetcdctl backup` asks no server. Its copy has the users, and a server on it enforces them.
#[test]
fn a_copied_data_directory_keeps_its_users() {
    let _alone = alone();
    let mut scene = Scene::start();
    scene.cluster.stop(0);
    let copy = scene.pki.folder().join("copy");
    let data = text(scene.cluster.node(0).data()).to_owned();
    let line = format!("backup --data-dir {data} --backup-dir {}", text(&copy));
    printed(&scene.run(None, "", &line));
    let mut server = Server::prepare(&[]);
    closed::serve(&mut server, &scene.pki, &["https"]);
    server.keep_data_in(&copy);
    server.ask_with(scene.pki.anonymous());
    server.launch();
    let status = |header| ask(&server, "GET", "/v2/keys/w/a", None, header).status;
    assert_eq!((status(None), status(Some(ROOT))), (401, 200));
}
