//! Acknowledged writes survive `kill -9`. Damaged files are refused, with name and offset.
//!
//! `CRASH_ROUNDS=100` runs more rounds. `CRASH_SEED` repeats them.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use harness::acknowledged::{AcknowledgedWrites, Writers};
use harness::{Random, Server, setting};

const WRITERS: u64 = 16;

#[test]
fn kill_under_writers_loses_nothing_acknowledged() {
    let (rounds, seed) = (setting("CRASH_ROUNDS", 3), setting("CRASH_SEED", 20));
    let mut noise = Random(seed);
    let mut server = Server::start(&["--snapshot-count=2000"]);
    let mut ledger = AcknowledgedWrites::default();
    for round in 1..=rounds {
        let writers = Writers::start(server.address(), WRITERS, noise.next(), &ledger);
        // The time of the kill is random: any moment in the life of a batch.
        sleep(Duration::from_micros(20_000 + noise.below(200_000)));
        server.kill();
        writers.finish(&mut ledger);
        server.launch();
        ledger.check(&mut server.connect());
        println!(
            "round {round} of seed {seed}: {} writes acknowledged so far",
            ledger.acknowledged
        );
    }
    assert!(
        ledger.acknowledged > rounds * WRITERS,
        "only {} writes",
        ledger.acknowledged
    );
}

/// A kill while the server still reads the log after the previous kill.
#[test]
fn kill_during_recovery_loses_nothing_acknowledged() {
    let mut noise = Random(setting("CRASH_SEED", 21));
    let mut server = Server::start(&[]);
    let mut ledger = AcknowledgedWrites::default();
    let writers = Writers::start(server.address(), WRITERS, noise.next(), &ledger);
    sleep(Duration::from_millis(300));
    server.kill();
    writers.finish(&mut ledger);
    for _ in 0..setting("CRASH_ROUNDS", 5) {
        server.spawn();
        sleep(Duration::from_micros(noise.below(30_000)));
        server.kill();
    }
    server.launch();
    ledger.check(&mut server.connect());
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let mut server = Server::start(&[]);
    let pid = server.pid().to_string();
    let first = server.address();
    server.move_elsewhere();
    let output = run_to_its_end(&server);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains(&pid),
        "no pid {pid} in: {}",
        said(&output)
    );
    let mut connection = harness::Connection::open(first).expect("the first still listens");
    let answer = connection
        .ask("PUT", "/v2/keys/still?value=here", None)
        .expect("an answer");
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(server.ended().is_none(), "the first process has ended");
}

#[test]
fn a_flipped_bit_is_refused_by_file_and_offset() {
    let mut server = Server::start(&[]);
    let mut connection = server.connect();
    for number in 0..200 {
        let target = format!("/v2/keys/marked/{number}?value={}", marker(number));
        assert_eq!(
            connection
                .ask("PUT", &target, None)
                .expect("an answer")
                .status,
            201
        );
    }
    drop(connection);
    assert_eq!(server.stop().code(), Some(0), "{}", server.log());
    for number in [0, 1, 57, 120, 199] {
        let (file, offset) = find(server.data(), marker(number).as_bytes());
        flip(&file, offset);
        let output = run_to_its_end(&server);
        assert_eq!(
            output.status.code(),
            Some(1),
            "bit at {offset}: {}",
            said(&output)
        );
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            said(&output).contains(&name),
            "no file {name} in: {}",
            said(&output)
        );
        assert!(
            names_a_place_near(&said(&output), offset),
            "not near {offset}: {}",
            said(&output)
        );
        flip(&file, offset);
    }
    server.launch();
    for number in 0..200 {
        let answer = server.ask("GET", &format!("/v2/keys/marked/{number}"), None);
        let value = answer
            .json()
            .at("/node/value")
            .and_then(|value| value.text().map(str::to_owned));
        assert_eq!(value, Some(marker(number)), "{answer:?}");
    }
}

#[test]
fn a_log_that_is_cut_while_it_runs_ends_it_with_a_message() {
    let mut server = Server::start(&[]);
    let put = format!("/v2/keys/marked?value={}", marker(1));
    assert_eq!(server.ask("PUT", &put, None).status, 201);
    let (file, offset) = find(server.data(), marker(1).as_bytes());
    let kept = offset as u64 / 4096 * 4096;
    let cut = fs::OpenOptions::new().write(true).open(&file);
    cut.and_then(|file| file.set_len(kept)).expect("it is cut");
    let mut connection = server.connect();
    let answer = connection.ask("PUT", &put, None);
    assert!(answer.is_err(), "acknowledged after the cut: {answer:?}");
    let (status, _) = server.wait_end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(1), "no signal: {status:?}");
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(
        server.log().contains(&*name),
        "no file {name} in: {}",
        server.log()
    );
    // Acknowledged writes are lost, so the next start must report that too.
    let output = run_to_its_end(&server);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains(&*name),
        "no file {name} in: {}",
        said(&output)
    );
}

fn marker(number: u32) -> String {
    format!("marker-{number:04}-of-the-flipped-bit")
}

/// Runs the server's command line. It must end by itself, and soon.
fn run_to_its_end(server: &Server) -> Output {
    let mut command = server.command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut status = None;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while status.is_none() && std::time::Instant::now() < deadline {
        status = child.try_wait().expect("a status");
        sleep(Duration::from_millis(2));
    }
    if status.is_none() {
        child.kill().expect("kill -9");
    }
    let output = child.wait_with_output().expect("its output");
    assert!(
        status.is_some(),
        "it serves instead of refusing:\n{}",
        said(&output)
    );
    output
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The first file below `folder` that contains these bytes, and their offset.
fn find(folder: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
            continue;
        }
        let content = fs::read(&path).expect("a file");
        if let Some(offset) = content
            .windows(bytes.len())
            .position(|window| window == bytes)
        {
            return (path, offset);
        }
    }
    panic!(
        "{} is in no file below {}",
        String::from_utf8_lossy(bytes),
        folder.display()
    );
}

fn flip(file: &Path, offset: usize) {
    let mut content = fs::read(file).expect("the file");
    content[offset] ^= 0x10;
    fs::write(file, content).expect("the file");
}

/// Whether the text contains a number that can be the damaged record's offset: a little before the bit.
fn names_a_place_near(text: &str, offset: usize) -> bool {
    let numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse::<usize>().ok());
    numbers
        .into_iter()
        .any(|number| number <= offset && offset - number < 4096)
}

#[test]
fn the_test_itself_notices_a_lost_write() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut ledger = AcknowledgedWrites::default();
    ledger
        .write(&mut connection, "/ledger/w0/k0", Some("kept".to_owned()))
        .expect("an answer");
    ledger
        .write(&mut connection, "/ledger/w0/k1", Some("lost".to_owned()))
        .expect("an answer");
    connection
        .ask("DELETE", "/v2/keys/ledger/w0/k1", None)
        .expect("an answer");
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ledger.check(&mut connection)
    }));
    assert!(noticed.is_err(), "a lost write went unnoticed");
}

#[test]
fn the_test_itself_notices_a_write_made_twice() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut ledger = AcknowledgedWrites::of_cluster();
    ledger.post(&mut connection, "once").expect("an answer");
    ledger.check(&mut connection);
    // As a node would do that repeats a write after it has lost the answer.
    ledger.post(&mut connection, "once").expect("an answer");
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ledger.check(&mut connection)
    }));
    assert!(noticed.is_err(), "a write made twice went unnoticed");
}
