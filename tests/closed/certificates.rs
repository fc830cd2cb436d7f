//! Members with wrong certificates take no part in a cluster, and certificates are replaced while it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use crate::harness::certificates::{Ca, DAY, Leaf, Pair, leaf};
use crate::harness::closed::{self, Pki};
use crate::harness::secure::{Config, config};
use crate::harness::{Cluster, Connection, wait_for};
use crate::support::{WITHIN, alone};

/// The member that has another certificate than the others.
const WRONG: usize = 2;

/// Starts a cluster of which one member has another certificate. Waits until the others have a leader.
fn start_with_wrong(pki: &Pki, pair: &Pair, flags: &[String]) -> Cluster {
    let mut cluster = closed::prepare(3, pki, &["https"], flags);
    closed::ask_with(&mut cluster, &pki.anonymous());
    let wrong = cluster.node_mut(WRONG);
    wrong.add_flag(&format!("--peer-cert-file={}", pair.cert.display()));
    wrong.add_flag(&format!("--peer-key-file={}", pair.key.display()));
    (0..3).for_each(|node| cluster.node_mut(node).spawn());
    for node in [0, 1] {
        cluster.node_mut(node).wait_ready();
    }
    cluster.wait_leader_among(&[0, 1]);
    cluster
}

/// The other members refuse it when it connects to them, and when they connect to it, and log why. The cluster goes on
/// in the same term.
fn takes_no_part(cluster: &Cluster, accepted: &str, connected: &str) {
    let leader = cluster.wait_leader_among(&[0, 1]);
    let term = cluster.term(leader);
    for node in [0, 1] {
        let logged = |part: &str, why: &str| {
            let log = cluster.node(node).whole_log();
            let mut lines = log.lines();
            lines.any(|line| line.contains(part) && line.contains(why))
        };
        wait_for(&format!("n{node} to log: {accepted}"), WITHIN, || {
            logged("warn http1: TLS with", accepted).then_some(())
        });
        wait_for(&format!("n{node} to log: {connected}"), WITHIN, || {
            logged("no connection to n2", connected).then_some(())
        });
    }
    cluster.put(leader, "/without", "1");
    assert_eq!(cluster.term(leader), term);
    let log = cluster.node(WRONG).whole_log();
    assert!(!log.contains("term is"), "it has heard of a term: {log}");
}

#[test]
fn a_member_with_a_wrong_certificate_takes_no_part() {
    let _alone = alone();
    let pki = Pki::new();
    let now = SystemTime::now();
    let expired = pki.ca.sign(&Leaf {
        from: now - 20 * DAY,
        until: now - DAY,
        ..leaf("expired")
    });
    let revoked = pki.ca.sign(&Leaf {
        serial: 7,
        ..leaf("withdrawn")
    });
    let elsewhere = pki.ca.sign(&Leaf {
        hosts: vec!["10.0.0.1".to_owned()],
        ..leaf("elsewhere")
    });
    let stranger = Ca::new(pki.folder(), "other").sign(&leaf("stranger"));
    let list = pki.ca.revoke(&[7]);
    let flags = [format!("--peer-crl-file={}", list.display())];
    let untrusted = "its certificate does not come from a trusted CA";
    for (pair, accepted, connected) in [
        (
            &expired,
            "its certificate has expired",
            "its certificate has expired",
        ),
        (
            &revoked,
            "its certificate is revoked",
            "its certificate is revoked",
        ),
        (&stranger, untrusted, untrusted),
        (
            &elsewhere,
            "its certificate is for 10.0.0.1, and the client's address is 127.0.0.1",
            "its certificate is for another host",
        ),
    ] {
        let cluster = start_with_wrong(&pki, pair, &flags);
        takes_no_part(&cluster, accepted, connected);
    }
}

/// `--peer-cert-allowed-cn` and `--peer-cert-allowed-hostname`: the others have what the flag wants.
#[test]
fn a_member_without_the_allowed_name_takes_no_part() {
    let _alone = alone();
    let pki = Pki::new();
    let hosts = ["127.0.0.1", "members.example"].map(str::to_owned);
    pki.ca.sign(&Leaf {
        hosts: hosts.to_vec(),
        ..leaf("member")
    });
    let other = pki.sign("other");
    let why = "its certificate has another common name than the allowed \"member\"";
    let flags = ["--peer-cert-allowed-cn=member".to_owned()];
    takes_no_part(&start_with_wrong(&pki, &other, &flags), why, why);

    let why = "its certificate is not valid for the allowed host \"members.example\"";
    let flags = ["--peer-cert-allowed-hostname=members.example".to_owned()];
    let mut cluster = start_with_wrong(&pki, &other, &flags);
    takes_no_part(&cluster, why, why);
    cluster.kill(WRONG);
    for flag in pki.peer_flags() {
        cluster.node_mut(WRONG).add_flag(&flag);
    }
    cluster.restart(WRONG);
    cluster.wait_value(WRONG, "/without", "1", WITHIN);
}

/// Sends requests until `ends`, each of which must succeed. With a new connection for each, or with a single one.
fn write_until(ends: &AtomicBool, count: &AtomicU64, open: impl Fn() -> Connection, keeps: bool) {
    let mut connection = open();
    while !ends.load(Ordering::Relaxed) {
        if !keeps {
            connection = open();
        }
        let answer = connection.ask("PUT", "/v2/keys/replaced", Some("value=1"));
        let answer = answer.expect("an answer");
        assert!(answer.status < 300, "{answer:?}");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends the load, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn certificates_of_all_members_are_replaced_under_load() {
    let _alone = alone();
    let pki = Pki::new();
    let mut cluster = closed::prepare(3, &pki, &["https"], &pki.client_cert_flags());
    let pair = pki.sign("client");
    let client = config(&pki.ca.file, Some(&pair));
    closed::ask_with(&mut cluster, &client);
    cluster.launch();
    let term = cluster.term(0);
    // A session that is resumed shows the certificate of the first one, so each look has a client of its own.
    let shown = |node: usize, is_peer: bool| {
        let server = cluster.node(node);
        let address = match is_peer {
            false => server.address(),
            true => server.peer_address(),
        };
        let fresh: Config = config(&pki.ca.file, Some(&pair));
        let connection = Connection::open_with(address, Some(&fresh)).expect("a handshake");
        let session = connection.session().expect("TLS");
        session.certificate().to_vec()
    };
    let (ends, kept, new) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _end = End(&ends);
        for node in 0..3 {
            let (cluster, ends, kept, new) = (&cluster, &ends, &kept, &new);
            let open = move || cluster.node(node).connect();
            scope.spawn(move || write_until(ends, kept, open, true));
            scope.spawn(move || write_until(ends, new, open, false));
        }
        for serial in [2, 3] {
            let old = shown(0, false);
            pki.ca.sign(&Leaf {
                serial,
                ..leaf("member")
            });
            for node in 0..3 {
                for is_peer in [false, true] {
                    wait_for("the new certificate", WITHIN, || {
                        (shown(node, is_peer) != old).then_some(())
                    });
                }
            }
        }
        // The writers use the new certificates for a while.
        let before = new.load(Ordering::Relaxed);
        wait_for("more writes", WITHIN, || {
            (new.load(Ordering::Relaxed) > before + 30).then_some(())
        });
    });
    assert!(kept.into_inner() > 0);
    assert_eq!(cluster.term(0), term);
    for node in 0..3 {
        let log = cluster.node(node).whole_log();
        assert!(!log.contains("lost the connection"), "{log}");
    }
    // A member that is restarted uses the new one with the others.
    cluster.kill(1);
    cluster.restart(1);
    cluster.put(1, "/after", "1");
}
