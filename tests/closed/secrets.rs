//! Passwords, their hashes and keys appear in nothing that a member or edgetcdctl prints, and in no page of a member
//! except the backup, which only root may read.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::harness::closed::{self, Pki};
use crate::harness::{Cluster, wait_for};
use crate::matrix::ask;
use crate::support::{WITHIN, alone, edgetcdctl, text};

const ROOT: (&str, &str) = ("root", "kept-quiet-4711");
const SHOP: (&str, &str) = ("shop", "hush-hush-0815");
/// A password that is typed and is wrong.
const WRONG: (&str, &str) = ("root", "typed-amiss-2342");

fn pair((name, password): (&str, &str)) -> String {
    format!("{name}:{password}")
}

fn header(user: (&str, &str)) -> String {
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair(user))
    )
}

/// Collects what a cluster shows.
struct Shown {
    text: String,
}

impl Shown {
    /// Runs a command as a user, and keeps what it prints. It may fail.
    fn run(&mut self, cluster: &Cluster, pki: &Pki, user: (&str, &str), words: &[&str]) {
        let operator = pki.sign("operator");
        let output = edgetcdctl(cluster, pki, Some(&operator), words)
            .env("ETCDCTL_USERNAME", pair(user))
            .output()
            .expect("it starts");
        for printed in [&output.stdout, &output.stderr] {
            self.text += &String::from_utf8_lossy(printed);
        }
    }
}

/// The bcrypt hashes in a backup. They begin with `$2a$10$` and have 53 more characters.
fn hashes(backup: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(backup);
    let parts = text.split("$2a$10$").skip(1);
    parts.map(|part| part[..53].to_owned()).collect()
}

/// The lines of base64 in all key files of a folder.
fn keys(pki: &Pki) -> Vec<String> {
    let files = fs::read_dir(pki.folder()).expect("a folder").flatten();
    let keys = files.filter(|file| file.file_name().to_string_lossy().ends_with("-key.pem"));
    let texts = keys.map(|file| fs::read_to_string(file.path()).expect("text"));
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.starts_with("-----") && line.len() > 20)
        .collect()
}

/// The paths of the router, as it documents them, except the backup.
fn pages() -> Vec<String> {
    let router = include_str!("../../src/api/route.rs");
    let documented = router.lines().filter_map(|line| {
        let (path, _) = line.trim().strip_prefix("/// `/")?.split_once('`')?;
        // The trace would not end.
        let path = path.replace("NAME", "root");
        Some(format!(
            "/{}",
            path.replace("edgetcd/trace", "edgetcd/trace?wait=false")
        ))
    });
    documented
        .filter(|path| path != "/edgetcd/snapshot")
        .collect()
}

#[test]
fn no_secret_is_shown() {
    let _alone = alone();
    let pki = Pki::new();
    let mut flags = pki.client_cert_flags();
    flags.push("--debug".to_owned());
    let mut cluster = closed::prepare(3, &pki, &["https"], &flags);
    closed::ask_with(&mut cluster, &pki.named("nobody"));
    cluster.launch();
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];

    let mut shown = Shown {
        text: String::new(),
    };
    let mut run = |user, words: &[&str]| shown.run(&cluster, &pki, user, words);
    for words in [
        &["user", "add", &pair(ROOT)][..],
        &["--debug", "user", "add", &pair(SHOP)],
        &["auth", "enable"],
        &["--debug", "set", "/a", "1"],
        &["--debug", "-o", "json", "user", "get", "shop"],
        &["-u", &pair(ROOT), "--debug", "member", "list"],
        &[
            "--debug",
            "snapshot",
            "save",
            text(&pki.folder().join("saved")),
        ],
        &["snapshot", "check", text(&pki.folder().join("saved"))],
        &["--debug", "--endpoints", "https://127.0.0.1:1", "get", "/a"],
        &["--debug", "--endpoints", "http://127.0.0.1:1", "get", "/a"],
        // The certificate is not a key, and the key is not a certificate.
        &[
            "--key-file",
            text(&pki.member.cert),
            "--cert-file",
            text(&pki.member.key),
            "get",
            "/a",
        ],
    ] {
        run(ROOT, words);
    }
    run(WRONG, &["--debug", "get", "/a"]);
    run(WRONG, &["--debug", "user", "list"]);
    run(SHOP, &["--debug", "get", "/a"]);

    let put = |node: usize, body: &str| {
        let path = "/v2/auth/users/shop";
        ask(
            cluster.node(node),
            "PUT",
            path,
            Some(body),
            Some(&header(ROOT)),
        )
        .text()
    };
    let password = SHOP.1;
    shown.text += &put(
        follower,
        &format!(r#"{{"user":"shop","password":"{password}"}}"#),
    );
    shown.text += &put(
        leader,
        &format!(r#"{{"user":"shop","password":"{password}""#),
    );
    shown.text += &put(
        leader,
        &format!(r#"{{"user":"shop","password":["{password}"]}}"#),
    );
    shown.text += &put(
        leader,
        &format!(r#"{{"user":"other","password":"{password}"}}"#),
    );
    for node in 0..3 {
        for page in pages() {
            let answer = ask(cluster.node(node), "GET", &page, None, Some(&header(ROOT)));
            shown.text += &answer.text();
        }
        let wrong = ask(
            cluster.node(node),
            "GET",
            "/v2/keys/",
            None,
            Some(&header(WRONG)),
        );
        assert_eq!(wrong.status, 401);
    }
    let backup = ask(
        cluster.node(leader),
        "GET",
        "/edgetcd/snapshot",
        None,
        Some(&header(ROOT)),
    );
    let (hashes, keys) = (hashes(&backup.body), keys(&pki));
    assert_eq!(hashes.len(), 2, "the test finds them where they may be");
    assert!(keys.len() >= 4, "two lines of each key");

    // A file that cannot be used is logged. The files are looked at when a client connects.
    let whole = fs::read_to_string(&pki.member.key).expect("a key");
    fs::write(&pki.member.key, &whole[..whole.len() / 2]).expect("written");
    wait_for("the broken key to be logged", WITHIN, || {
        assert!(cluster.node(leader).is_healthy());
        let log = cluster.node(leader).whole_log();
        log.contains("cannot be used").then_some(())
    });
    for node in 0..3 {
        cluster.stop(node);
        shown.text += &cluster.node(node).whole_log();
        let data = text(cluster.node(node).data()).to_owned();
        shown.run(&cluster, &pki, ROOT, &["wal", "dump", &data]);
        shown.run(&cluster, &pki, ROOT, &["-o", "json", "wal", "dump", &data]);
        shown.run(&cluster, &pki, ROOT, &["wal", "check", &data]);
    }

    for there in [
        "User shop created",
        "put user",
        "cURL",
        "info api:",
        "etcd_",
    ] {
        assert!(shown.text.contains(there), "{there} in {}", shown.text);
    }
    let passwords = [ROOT, SHOP, WRONG];
    let mut secrets: Vec<String> = passwords.map(|(_, word)| word.to_owned()).to_vec();
    secrets.extend(passwords.map(|user| STANDARD_NO_PAD.encode(pair(user))));
    secrets.extend(hashes);
    secrets.extend(keys);
    // `{:?}` of bytes prints them as numbers.
    let numbers = |secret: &String| {
        let list = format!("{:?}", secret.as_bytes());
        list.trim_matches(['[', ']']).to_owned()
    };
    secrets.extend(secrets.iter().map(numbers).collect::<Vec<_>>());
    for secret in secrets {
        let at = shown.text.find(&secret);
        let around = at.map(|at| {
            let from = shown.text[..at].rfind('\n').unwrap_or(0);
            shown.text[from..].lines().take(2).collect::<String>()
        });
        assert_eq!(around, None, "{secret}");
    }
}
