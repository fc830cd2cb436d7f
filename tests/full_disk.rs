//! A full disk: writes are refused, everything else still works, and freed space is used again.
//!
//! Mounting a small file system needs root: `make roottest`.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::acknowledged::AcknowledgedWrites;
use harness::client::{PATIENCE, form_request};
use harness::mount::{Mount, fill};
use harness::{Answer, Connection, Line, Server, wait_for};

/// Time limit within which a full disk must be reported, and also a disk that has space again.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs root, to mount a small file system"]
fn tmpfs_of_16_mb_filled_by_a_foreign_file() {
    let mount = Mount::tmpfs(16);
    filled_by_a_file(&mount);
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn loop_mount_of_64_mb_filled_by_a_foreign_file() {
    let mount = Mount::ext4(64);
    filled_by_a_file(&mount);
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn tmpfs_of_16_mb_filled_by_writes() {
    let mount = Mount::tmpfs(16);
    filled_by_writes(&mount, || mount.grow_tmpfs(64));
}

/// The disk accepts nothing and reports no error, like a controller that hangs.
#[test]
#[ignore = "needs root, to mount a file system and to freeze it"]
fn a_node_whose_disk_hangs_is_not_healthy() {
    let mount = Mount::ext4(64);
    let server = Server::start_on(&mount.path().join("data"), &[]);
    server.ask("PUT", "/v2/keys/a?value=1", None);
    let probe = || {
        let within = Duration::from_secs(30);
        let answer = server.try_ask("GET", "/health?probe=true", None, within);
        let answer = answer.expect("an answer");
        (answer.status, answer.text())
    };
    let well = (200, "{\"health\":\"true\"}".to_owned());
    let ill = (503, "{\"health\":\"false\"}\n".to_owned());
    assert_eq!(probe(), well);
    let frozen = mount.freeze();
    assert!(server.is_healthy(), "nobody has written");
    assert_eq!(probe(), ill);
    drop(frozen);
    wait_for("a healthy server", NOTICED_WITHIN, || {
        (probe() == well).then_some(())
    });

    let frozen = mount.freeze();
    let late = server.try_ask("PUT", "/v2/keys/a?value=2", None, Duration::from_secs(30));
    assert_eq!(late.expect("an answer").status, 500);
    let health = server.ask("GET", "/health", None);
    assert_eq!((health.status, health.text()), ill);
    assert_eq!(
        server.ask("GET", "/v2/keys/a", None).status,
        200,
        "reads go on"
    );
    drop(frozen);
    wait_for("a healthy server", NOTICED_WITHIN, || {
        server.is_healthy().then_some(())
    });
    assert_eq!(server.ask("PUT", "/v2/keys/a?value=3", None).status, 200);
}

fn filled_by_a_file(mount: &Mount) {
    let mut run = Run::start(mount, 50);
    let filler = mount.path().join("filler");
    fill(&filler);
    run.write_until_refused();
    run.reads_and_watches_go_on();
    fs::remove_file(&filler).expect("the filler");
    run.writes_work_again();
    run.nothing_is_lost();
}

fn filled_by_writes(mount: &Mount, make_space: impl FnOnce()) {
    // Every write has a new key, because a disk that is full only of log counts as not full.
    let mut run = Run::start(mount, u64::MAX);
    run.write_until_refused();
    run.reads_and_watches_go_on();
    make_space();
    run.writes_work_again();
    run.nothing_is_lost();
}

/// A server on a small disk, its only writer, and a watch that is parked all the time.
struct Run {
    server: Server,
    connection: Connection,
    watch: Connection,
    ledger: AcknowledgedWrites,
    number: u64,
    keys: u64,
}

impl Run {
    fn start(mount: &Mount, keys: u64) -> Run {
        let server = Server::start_on(&mount.path().join("data"), &[]);
        assert_eq!(
            server
                .ask("PUT", "/v2/keys/before?value=the%20flood", None)
                .status,
            201
        );
        let mut watch = server.connect();
        watch
            .write(&form_request("GET", "/v2/keys/woken?wait=true", None))
            .expect("a request");
        assert_eq!(watch.head(false, PATIENCE).expect("a head").status, 200);
        let connection = server.connect();
        Run {
            server,
            connection,
            watch,
            ledger: AcknowledgedWrites::default(),
            number: 0,
            keys,
        }
    }

    fn write(&mut self) -> Answer {
        self.number += 1;
        let key = format!("/ledger/w0/k{}", self.number % self.keys);
        let value = format!("{:08}", self.number).repeat(1000);
        let sent = self.ledger.write(&mut self.connection, &key, Some(value));
        sent.unwrap_or_else(|error| panic!("write {}: {error}", self.number))
    }

    fn write_until_refused(&mut self) {
        let deadline = Instant::now() + NOTICED_WITHIN;
        let refusal = loop {
            let answer = self.write();
            if answer.status >= 500 {
                break answer;
            }
            assert!(
                Instant::now() < deadline,
                "{} writes and no end",
                self.number
            );
        };
        println!(
            "write {} was refused: {}",
            self.number,
            refusal.text().trim()
        );
        let ready = self.server.ask("GET", "/readyz", None);
        assert_eq!(ready.status, 503);
        let reason =
            "[-]disk_space failed: the disk is full and writes are refused; free space on it\n";
        assert!(ready.text().contains(reason), "{ready:?}");
        let live = self.server.ask("GET", "/livez", None);
        assert_eq!(live.status, 200, "a restart frees no space");
        let code = refusal
            .json()
            .get("errorCode")
            .and_then(harness::Json::number);
        assert_eq!(code, Some(300), "{refusal:?}");
    }

    fn reads_and_watches_go_on(&mut self) {
        for _ in 0..20 {
            let answer = self.server.ask("GET", "/v2/keys/before", None);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(
            self.watch.line(Duration::from_millis(100)),
            Line::Silence,
            "the parked watch"
        );
        let mut watch = self.server.connect();
        let index = self.server.ask("GET", "/v2/keys/before", None).index();
        let target = format!(
            "/v2/keys/ledger?wait=true&recursive=true&waitIndex={}",
            index - 1
        );
        watch
            .write(&form_request("GET", &target, None))
            .expect("a request");
        assert_eq!(watch.head(false, PATIENCE).expect("a head").status, 200);
        assert!(
            matches!(watch.line(PATIENCE), Line::Is(_)),
            "an event of the history"
        );
        assert!(
            self.server.ended().is_none(),
            "the process ended:\n{}",
            self.server.log()
        );
    }

    fn writes_work_again(&mut self) {
        wait_for("a write after space was made", NOTICED_WITHIN, || {
            (self.write().status < 300).then_some(())
        });
        // Some hundred more writes, so that the next segment is needed too.
        for _ in 0..300 {
            let answer = self.write();
            assert!(answer.status < 300, "{answer:?}");
        }
        let woken = self.server.ask("PUT", "/v2/keys/woken?value=up", None);
        assert_eq!(woken.status, 201, "{woken:?}");
        assert!(
            matches!(self.watch.line(PATIENCE), Line::Is(_)),
            "the watch parked before all this"
        );
    }

    fn nothing_is_lost(&mut self) {
        self.ledger.check(&mut self.server.connect());
        self.server.kill();
        self.server.launch();
        self.ledger.check(&mut self.server.connect());
        assert!(self.ledger.refused > 0);
    }
}
