use super::*;
use crate::engine::trace::Trace;
use crate::raft::{LogIndex, Term};

fn record(seq: u64) -> Timed {
    Timed {
        at: 1_000_000 + seq,
        record: Record {
            seq,
            term: Term(2),
            event: Trace::Applied {
                index: LogIndex(seq * 10),
            },
        },
    }
}

fn log() -> Arc<TraceLog> {
    Arc::new(TraceLog::new(NodeId(0xabc)))
}

fn add(log: &TraceLog, numbers: std::ops::RangeInclusive<u64>) {
    let mut pending: Vec<Timed> = numbers.map(record).collect();
    log.add(&mut pending);
    assert!(pending.is_empty());
}

/// The head line, and the other lines.
fn begin(log: &Arc<TraceLog>, resume: Resume) -> (TraceReader, String, String) {
    let mut out = String::new();
    let mut reader = TraceReader::begin(log, "a \"name\"", resume, &mut out);
    reader.render(usize::MAX, &mut out);
    let (head, rest) = out.split_once('\n').expect("a head line");
    (reader, head.to_owned(), rest.to_owned())
}

fn since(since: u64) -> Resume {
    Resume {
        since,
        ..Resume::default()
    }
}

/// The numbers of the lines, and of gaps as texts.
fn numbers(lines: &str) -> Vec<String> {
    let number = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        match value["kind"].as_str() {
            Some("gap") => line.to_owned(),
            _ => value["seq"].to_string(),
        }
    };
    lines.lines().map(number).collect()
}

#[test]
fn a_reader_gets_what_is_there_and_then_what_is_new() {
    let log = log();
    add(&log, 1..=3);
    let (mut reader, head, lines) = begin(&log, since(0));
    assert_eq!(
        head,
        format!(
            r#"{{"format":1,"member":"abc","name":"a \"name\"","start":{},"first":1,"next":4}}"#,
            log.started()
        )
    );
    assert_eq!(
        lines.lines().next(),
        Some(r#"{"seq":1,"at":1000001,"member":"abc","term":2,"kind":"applied","index":10}"#)
    );
    assert_eq!(numbers(&lines), ["1", "2", "3"]);
    let mut out = String::new();
    reader.render(usize::MAX, &mut out);
    assert_eq!(out, "");
    add(&log, 4..=5);
    reader.render(usize::MAX, &mut out);
    assert_eq!(numbers(&out), ["4", "5"]);
}

#[test]
fn a_reader_resumes_where_it_was() {
    let log = log();
    add(&log, 1..=9);
    assert_eq!(numbers(&begin(&log, since(8)).2), ["8", "9"]);
    assert!(begin(&log, since(10)).2.is_empty(), "10 is the next one");
}

#[test]
fn an_overrun_is_a_gap() {
    let log = log();
    add(&log, 1..=2);
    let (mut reader, ..) = begin(&log, since(0));
    let most = RECORDS_MAX as u64;
    add(&log, 3..=most + 100);
    let mut out = String::new();
    reader.render(usize::MAX, &mut out);
    let lines = numbers(&out);
    assert_eq!(lines[0], r#"{"kind":"gap","from":3,"to":100}"#);
    assert_eq!(lines[1], "101");
    assert_eq!(lines.len(), RECORDS_MAX + 1);
    // A reader without a position misses nothing.
    assert_eq!(numbers(&begin(&log, since(0)).2)[0], "101");
}

/// More records in one step than are kept.
#[test]
fn a_large_step_leaves_its_last_records() {
    let log = log();
    add(&log, 1..=5);
    let most = RECORDS_MAX as u64;
    add(&log, 6..=2 * most);
    let lines = begin(&log, since(5)).2;
    let lines = numbers(&lines);
    assert_eq!(lines.len(), RECORDS_MAX + 1);
    assert_eq!(lines[RECORDS_MAX], (2 * most).to_string());
}

#[test]
fn numbers_of_another_process_are_noticed() {
    let log = log();
    add(&log, 1..=3);
    let restart = r#"{"kind":"gap","restart":true}"#;
    let of_other = Resume {
        started: Some(log.started() - 1),
        ..since(3)
    };
    assert_eq!(numbers(&begin(&log, of_other).2), [restart, "1", "2", "3"]);
    // A number that this process has not reached.
    assert_eq!(numbers(&begin(&log, since(99)).2), [restart, "1", "2", "3"]);
    let of_this = Resume {
        started: Some(log.started()),
        ..since(3)
    };
    assert_eq!(numbers(&begin(&log, of_this).2), ["3"]);
}

#[test]
fn a_reader_may_want_only_the_newest() {
    let log = log();
    add(&log, 1..=9);
    let last = |since, last| Resume {
        since,
        started: None,
        last: Some(last),
    };
    let gap = r#"{"kind":"gap","from":1,"to":7}"#;
    assert_eq!(numbers(&begin(&log, last(0, 2)).2), [gap, "8", "9"]);
    assert_eq!(numbers(&begin(&log, last(8, 5)).2), ["8", "9"]);
    assert_eq!(numbers(&begin(&log, last(0, 50)).2).len(), 9);
}

/// A reader that holds the lock delays no step. Its records follow with those of the next one.
#[test]
fn adding_never_waits() {
    let log = log();
    let mut pending = vec![record(1)];
    let held = log.lock();
    log.add(&mut pending);
    assert_eq!(pending.len(), 1, "they wait");
    drop(held);
    pending.push(record(2));
    log.add(&mut pending);
    assert_eq!(numbers(&begin(&log, since(0)).2), ["1", "2"]);
}

/// If the lock is held for very long, records are lost, and the numbers show it.
#[test]
fn records_that_could_not_be_added_are_a_gap() {
    let log = log();
    add(&log, 1..=2);
    let most = RECORDS_MAX as u64;
    let held = log.lock();
    let mut pending: Vec<Timed> = (3..=most + 3).map(record).collect();
    log.add(&mut pending);
    assert!(pending.is_empty());
    drop(held);
    add(&log, most + 4..=most + 5);
    let gap = format!(r#"{{"kind":"gap","from":2,"to":{}}}"#, most + 3);
    let lines = begin(&log, since(2)).2;
    assert_eq!(
        numbers(&lines),
        [gap, (most + 4).to_string(), (most + 5).to_string()]
    );
}

#[test]
fn a_waiting_reader_is_notified() {
    let log = log();
    let (begun, other) = (std::time::Instant::now(), Arc::clone(&log));
    let mark = log.mark();
    let adder = std::thread::spawn(move || {
        while other.lock().waiting == 0 {
            std::thread::yield_now();
        }
        add(&other, 1..=1);
    });
    let long = Duration::from_secs(600);
    log.wait(mark, long);
    assert_eq!(log.mark().next, 2);
    log.wait(mark, long);
    adder.join().expect("it adds one record");
    let mark = log.mark();
    log.wake();
    log.wait(mark, long);
    assert!(begun.elapsed() < long);
}

/// `render` keeps to its limit, and continues.
#[test]
fn a_long_trace_is_rendered_in_pieces() {
    let log = log();
    add(&log, 1..=2000);
    let mut out = String::new();
    let mut reader = TraceReader::begin(&log, "", since(0), &mut out);
    let (mut all, mut pieces) = (String::new(), 0);
    loop {
        let mut piece = String::new();
        let more = reader.render(1000, &mut piece);
        assert!(piece.len() < 1000 + RECORDS_AT_ONCE * 200);
        all.push_str(&piece);
        pieces += 1;
        if !more {
            break;
        }
    }
    assert_eq!(all.lines().count(), 2000);
    assert!(pieces > 5, "{pieces} pieces");
}
