//! Many keys that expire at the same moment.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bystander::alone;
use crate::harness::client::{PATIENCE, form_request};
use crate::harness::server::is_release;
use crate::harness::{Connection, Server, percentile, setting};

/// Limit of the 99th percentile of the latency of writes meanwhile, in a release build.
const EXPIRY_BAR: Duration = Duration::from_millis(100);

/// Many keys expire at the same moment: the process is paused until all are due. Other tests run meanwhile, so its name
/// makes it one of the first. EXPIRING_KEYS=1000000 EXPIRING_AFTER_S=120 tests it with a million keys in the release
/// build.
#[test]
fn a_crowd_of_expiring_keys_delays_no_write() {
    let making = alone();
    let keys = setting("EXPIRING_KEYS", 20_000);
    let ttl = Duration::from_secs(setting("EXPIRING_AFTER_S", 30));
    let server = Server::start(&[]);
    let begun = Instant::now();
    make_expiring(&server, keys, ttl);
    let made = begun.elapsed();
    assert!(
        made < ttl,
        "making {keys} keys took {made:?}: set EXPIRING_AFTER_S to more"
    );
    server.signal(Signal::STOP);
    drop(making);
    // All keys are due this long after the last one was created.
    sleep(ttl + Duration::from_secs(1));
    let _alone = alone();
    server.signal(Signal::CONT);
    let mut took = Vec::new();
    let mut connection = server.connect();
    let begun = Instant::now();
    while is_any_left(&mut connection) {
        let write = Instant::now();
        let answer = connection
            .ask("PUT", "/v2/keys/beside", Some("value=x"))
            .expect("an answer");
        took.push(write.elapsed());
        assert_eq!(answer.status / 100, 2, "{answer:?}");
    }
    let (all, writes) = (begun.elapsed(), took.len());
    let (median, worst) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
    println!(
        "{keys} keys expired in {all:?}; {writes} concurrent writes: median {median:?}, 99 % {worst:?}"
    );
    // On any machine, a write is processed between two expiry entries, and each entry expires at most 2,000 keys.
    assert!(writes as u64 >= keys / 2_000 / 4, "{writes} writes");
    assert!(
        worst < EXPIRY_BAR || !is_release(),
        "99 % of the writes took up to {worst:?}"
    );
}

/// Creates keys with this time to live, with several writers whose requests share syncs. The last key created also
/// expires last.
fn make_expiring(server: &Server, keys: u64, ttl: Duration) {
    const WRITERS: u64 = 50;
    let form = format!("value=x&ttl={}", ttl.as_secs());
    let put = |key: String| form_request("PUT", &key, Some(&form));
    let mut writers: Vec<Connection> = (0..WRITERS).map(|_| server.connect()).collect();
    for round in 0..keys.div_ceil(WRITERS) {
        for (number, writer) in writers.iter_mut().enumerate() {
            let key = format!("/v2/keys/expiring/{round}/{number}");
            writer.write(&put(key)).expect("it is read");
        }
        for writer in &mut writers {
            let answer = writer.answer(false, PATIENCE).expect("an answer");
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }
    let last = writers[0].ask("PUT", "/v2/keys/expiring/last", Some(&form));
    assert_eq!(last.expect("an answer").status, 201);
}

/// Whether the key that was created last still exists.
fn is_any_left(connection: &mut Connection) -> bool {
    let answer = connection.ask("GET", "/v2/keys/expiring/last", None);
    answer.expect("an answer").status == 200
}
