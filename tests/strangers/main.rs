//! Attackers on the peer ports of three members. They must not end a member, depose the leader,
//! change the term, keep a member out, or use much memory.
//!
//! Without TLS, any program that reaches a peer port can claim to be a member. Some of these tests have an attacker
//! that only knows public facts about the cluster. Others have one that has read a member's incarnation from its
//! disk.

#[path = "../harness/mod.rs"]
mod harness;
mod stranger;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::{Cluster, wait_for};
use stranger::{Claim, LAST_TERM, Trap, garbage, heartbeat, incarnation_in, is_closed, vote};

/// Time limit of a write during an attack, on a busy machine.
const WRITTEN_WITHIN: Duration = Duration::from_secs(4);

/// A long election timeout, so that a busy machine causes no election.
const PATIENT: [&str; 2] = ["--election-timeout", "4000"];

/// How much additional memory a member may use for attackers.
const MEMORY: u64 = 48 << 20;

/// Runs one of the tests with floods and crowds at a time. The others mostly wait for elections.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The facts about a cluster that every client can read.
struct Seen {
    id: u64,
    members: Vec<(u64, SocketAddr)>,
}

impl Seen {
    fn of(cluster: &Cluster) -> Seen {
        let answer = cluster.node(0).ask("GET", "/v2/members", None);
        let id = answer.header("X-Etcd-Cluster-Id").expect("its cluster");
        let member = |node: usize| {
            let id = cluster.id(0, node).expect("a member");
            (hex(&id), cluster.node(node).peer_address())
        };
        Seen {
            id: hex(id),
            members: (0..cluster.len()).map(member).collect(),
        }
    }

    fn claim(&self, id: u64, incarnation: u64) -> Claim {
        Claim {
            cluster: self.id,
            id,
            incarnation,
        }
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("an id")
}

/// Checks that all members run, that the leader and the term are unchanged, and that a write through each member is
/// acknowledged in time.
struct Undisturbed {
    leader: usize,
    term: u64,
}

impl Undisturbed {
    fn now(cluster: &Cluster) -> Undisturbed {
        let leader = cluster.wait_leader();
        Undisturbed {
            leader,
            term: cluster.term(leader),
        }
    }

    #[track_caller]
    fn check(&self, cluster: &mut Cluster, what: &str) {
        for node in cluster.running() {
            let ended = cluster.node_mut(node).ended();
            assert_eq!(ended, None, "{what} has ended n{node}");
            let begun = Instant::now();
            cluster.put(node, "/beside", &what.replace(' ', "-"));
            let took = begun.elapsed();
            assert!(took < WRITTEN_WITHIN, "{what}: a write took {took:?}");
        }
        assert_eq!(
            cluster.wait_leader(),
            self.leader,
            "{what} has deposed the leader"
        );
        assert_eq!(
            cluster.term(self.leader),
            self.term,
            "{what} has changed the term"
        );
    }
}

/// Messages that an attacker can send with only public knowledge.
#[test]
fn an_attacker_ends_no_member_and_changes_no_term() {
    let mut cluster = Cluster::start(3, &PATIENT);
    cluster.put(0, "/before", "1");
    let seen = Seen::of(&cluster);
    let undisturbed = Undisturbed::now(&cluster);
    let term = undisturbed.term;
    let messages = [
        ("a heartbeat of the leader's term", heartbeat(term)),
        ("a heartbeat of the last term", heartbeat(LAST_TERM)),
        ("a request for votes", vote(term + 1)),
        ("a request for votes in the last term", vote(LAST_TERM)),
        ("a command that cannot be read", garbage(term, 4)),
        ("a newer leader's command", garbage(term + 1, 4)),
    ];
    let mut traps = Vec::new();
    for (victim, address) in &seen.members {
        // The attacker claims to be a new member, one of the others, or the attacked member itself.
        let others = seen.members.iter().map(|(id, _)| *id);
        for id in others.chain([0xbad0 + victim % 7]) {
            let claim = seen.claim(id, 0xbad);
            let trap = Trap::at(any_port(), seen.id, *victim);
            for (what, peer_message) in &messages {
                let (mut socket, _) = claim.dial(*address, *victim, &trap.url());
                // It may have been refused already.
                let _ = socket.write_all(&claim.frame(peer_message));
                assert!(is_closed(&mut socket), "{what} was accepted");
            }
            traps.push(trap);
        }
    }
    undisturbed.check(&mut cluster, "an attacker");
    let dialled: usize = traps.iter().map(Trap::answered).sum();
    assert_eq!(
        dialled, 0,
        "members connect to an address that an attacker chose"
    );
    for node in 0..3 {
        let log = cluster.node(node).log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(
            log.contains("refused a connection"),
            "n{node} does not log it:\n{log}"
        );
    }
}

/// The attacker has read a follower's incarnation, and sends messages in its name that the follower would never send.
#[test]
fn one_who_knows_a_members_incarnation_ends_nobody() {
    let mut cluster = Cluster::start(3, &PATIENT);
    let seen = Seen::of(&cluster);
    let undisturbed = Undisturbed::now(&cluster);
    let (leader, term) = (undisturbed.leader, undisturbed.term);
    let follower = cluster.others(leader)[0];
    let claim = seen.claim(
        seen.members[follower].0,
        incarnation_in(cluster.node(follower).data()),
    );
    // While the follower is paused, its place is free.
    cluster.pause(follower);
    let (victim, address) = seen.members[leader];
    let messages = [
        heartbeat(term),
        heartbeat(LAST_TERM),
        vote(LAST_TERM),
        garbage(term, 2),
        garbage(term + 1, 2),
    ];
    for peer_message in &messages {
        let (mut socket, _) = claim.dial(address, victim, "http://127.0.0.1:1");
        let _ = socket.write_all(&claim.frame(peer_message));
    }
    cluster.resume(follower);
    undisturbed.check(&mut cluster, "a false follower");
}

/// Handshakes in a member's name, with its incarnation, as fast as possible.
#[test]
fn a_members_link_is_not_displaced() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &PATIENT);
    let seen = Seen::of(&cluster);
    let undisturbed = Undisturbed::now(&cluster);
    let follower = cluster.others(undisturbed.leader)[0];
    let claim = seen.claim(
        seen.members[follower].0,
        incarnation_in(cluster.node(follower).data()),
    );
    let (victim, address) = seen.members[undisturbed.leader];
    cluster.put(follower, "/before", "1");
    // The leader's log lines about connections of that follower that begin or end.
    let links = |cluster: &Cluster| {
        let log = cluster.node(undisturbed.leader).log();
        let name = format!("n{follower} (");
        let tells = |line: &&str| {
            line.contains(&name)
                && (line.contains("is connected to this member") || line.contains("has ended"))
        };
        log.lines().filter(tells).count()
    };
    let before = links(&cluster);
    let flood = std::thread::spawn(move || {
        let dial = |_| claim.dial(address, victim, "http://127.0.0.1:1");
        let dialled = (0..500).map(dial);
        let welcomed = dialled.filter(|(_, answer)| !answer.starts_with("HTTP/1.1 503 "));
        welcomed.map(|(socket, _)| socket).collect::<Vec<_>>()
    });
    while !flood.is_finished() {
        undisturbed.check(&mut cluster, "a flood of handshakes");
    }
    let mut welcomed = flood.join().expect("the stranger");
    assert!(
        welcomed.iter_mut().all(is_closed),
        "one is accepted as the member's own"
    );
    undisturbed.check(&mut cluster, "a flood of handshakes");
    assert_eq!(links(&cluster), before, "the member's link was replaced");
}

/// Long frames that are never completed, from many senders that claim to be new members.
#[test]
fn strangers_hold_little_memory_and_few_threads() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &PATIENT);
    cluster.put(0, "/before", "1");
    let seen = Seen::of(&cluster);
    let undisturbed = Undisturbed::now(&cluster);
    let (victim, address) = seen.members[0];
    let before = cluster.node(0).process();
    let (memory, threads) = (before.resident_bytes(), before.threads());
    let mut open = Vec::new();
    for id in 0xbad00..0xbad18 {
        let claim = seen.claim(id, 1);
        let (mut socket, _) = claim.dial(address, victim, "http://127.0.0.1:1");
        let mut frame = claim.frame_head(96 << 20);
        frame.resize(8 << 20, 7);
        let _ = socket.write_all(&frame);
        open.push(socket);
    }
    let after = cluster.node(0).process();
    let grown = after.resident_bytes().saturating_sub(memory);
    assert!(grown < MEMORY, "{} KiB more", grown >> 10);
    assert!(
        after.threads() <= threads + 2,
        "{} threads, then {}",
        threads,
        after.threads()
    );
    undisturbed.check(&mut cluster, "long frames");
}

/// An attacker connects repeatedly in the name of an initial member, before that member starts.
#[test]
fn a_founder_is_not_kept_out_by_who_was_there_first() {
    let _alone = alone();
    let mut cluster = Cluster::prepare(3, &PATIENT);
    let founder = 2;
    cluster.node_mut(0).spawn();
    cluster.node_mut(1).spawn();
    let leader = cluster.wait_leader_among(&[0, 1]);
    let seen = Seen::of(&cluster);
    let claim = seen.claim(seen.members[founder].0, 0xbad);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (victim, address) in &seen.members[..2] {
            let stop = &stop;
            scope.spawn(move || {
                let mut held = VecDeque::new();
                while !stop.load(Ordering::SeqCst) {
                    held.push_back(claim.dial(*address, *victim, "http://127.0.0.1:1"));
                    if held.len() > 20 {
                        held.pop_front();
                    }
                }
            });
        }
        cluster.node_mut(founder).spawn();
        let joined = std::panic::catch_unwind(AssertUnwindSafe(|| {
            cluster.put(leader, "/founded", "1");
            cluster.wait_value(founder, "/founded", "1", Duration::from_secs(30));
            wait_for("the founder is healthy", Duration::from_secs(30), || {
                cluster.node(founder).is_healthy().then_some(())
            });
        }));
        stop.store(true, Ordering::SeqCst);
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A member that was added but not started has published nothing, so an attacker can use its name.
#[test]
fn nobody_speaks_for_a_member_that_has_not_started() {
    let mut cluster = Cluster::start(3, &PATIENT);
    let added = cluster.add(0);
    for node in 0..3 {
        wait_for(
            "the added member is listed",
            Duration::from_secs(30),
            || cluster.id(node, added),
        );
    }
    let seen = Seen::of(&cluster);
    let undisturbed = Undisturbed::now(&cluster);
    let term = undisturbed.term;
    let claim = seen.claim(seen.members[added].0, 0xbad);
    for (victim, address) in &seen.members[..3] {
        for peer_message in [heartbeat(term + 1), vote(term + 1), garbage(term + 1, 4)] {
            let (mut socket, _) = claim.dial(*address, *victim, "http://127.0.0.1:1");
            let _ = socket.write_all(&claim.frame(&peer_message));
            assert!(is_closed(&mut socket), "it is not accepted");
        }
    }
    undisturbed.check(&mut cluster, "an attacker in the name of a new member");
    cluster.restart(added);
    cluster.put(0, "/after", "1");
    cluster.wait_value(added, "/after", "1", Duration::from_secs(60));
}

/// Strangers use the addresses of two members that are down, and the last member has no leader.
#[test]
fn who_sits_at_the_addresses_of_members_removes_nobody() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.put(0, "/before", "1");
    let seen = Seen::of(&cluster);
    let (victim, _) = seen.members[0];
    let traps: Vec<Trap> = [1, 2]
        .map(|node| {
            cluster.stop(node);
            Trap::at(seen.members[node].1, seen.id, victim)
        })
        .into();
    wait_for(
        "both have answered the member",
        Duration::from_secs(30),
        || traps.iter().all(|trap| trap.answered() >= 4).then_some(()),
    );
    let log = cluster.node(0).log();
    assert!(!log.contains("this member was removed"), "{log}");
    drop(traps);
    for node in [1, 2] {
        cluster.restart(node);
    }
    cluster.wait_leader();
    cluster.put(0, "/after", "1");
}

/// Kills a member and starts it again. Returns how long it took until a write through it succeeded.
fn comes_back(cluster: &mut Cluster, node: usize, within: Duration) -> Duration {
    cluster.kill(node);
    cluster.node_mut(node).spawn();
    let begun = Instant::now();
    wait_for("the member writes", within, || {
        let server = cluster.node(node);
        let answer = server.try_ask("PUT", "/v2/keys/in", Some("value=1"), WRITTEN_WITHIN);
        answer.ok().filter(|answer| answer.status < 300)
    });
    begun.elapsed()
}

/// Connections that send half a request and are renewed, and responses that nobody reads, hold all places of the peer
/// ports.
#[test]
fn a_crowd_at_the_peer_ports_keeps_no_member_out() {
    let _alone = alone();
    let mut cluster = Cluster::prepare(3, &PATIENT);
    for node in 0..3 {
        // A small limit, so that a small crowd takes all places.
        let limit = "ulimit -n 256; exec \"$0\" \"$@\"";
        cluster.node_mut(node).wrap(&["sh", "-c", limit]);
    }
    cluster.launch();
    let follower = cluster.others(cluster.wait_leader())[0];
    let alone = comes_back(&mut cluster, follower, Duration::from_secs(60));
    let within = Duration::from_secs(3) + 5 * alone;
    let unread = "GET /members HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20_000);
    for says in ["GET /mem", &unread] {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for node in cluster.others(follower) {
                let (address, stop) = (cluster.node(node).peer_address(), &stop);
                scope.spawn(move || {
                    let mut held = VecDeque::new();
                    while !stop.load(Ordering::SeqCst) {
                        let renews = held.len() < 200 || !says.contains('\n');
                        if renews && let Ok(mut socket) = TcpStream::connect(address) {
                            let time = Some(Duration::from_millis(50));
                            let _ = socket.set_write_timeout(time);
                            let _ = socket.write_all(says.as_bytes());
                            held.push_back(socket);
                        }
                        if held.len() > 200 {
                            held.pop_front();
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            std::thread::sleep(Duration::from_secs(2));
            let joined = std::panic::catch_unwind(AssertUnwindSafe(|| {
                comes_back(&mut cluster, follower, within)
            }));
            println!("it was back after {joined:?}, without a crowd after {alone:?}");
            stop.store(true, Ordering::SeqCst);
            if let Err(panic) = joined {
                std::panic::resume_unwind(panic);
            }
        });
    }
}
