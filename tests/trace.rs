//! `/edgetcd/trace`: the records of what raft does.

mod harness;

use harness::client::{PATIENCE, form_request};
use harness::{Answer, Cluster, Connection, Json, Line, Server, wait_for};
use std::path::Path;

const PATH: &str = "/edgetcd/trace";

/// The records in memory: the head line, and the other lines.
fn records(server: &Server, query: &str) -> (Json, Vec<Json>) {
    let target = format!("{PATH}?wait=false{query}");
    let answer = server.ask("GET", &target, None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    assert!(text.ends_with('\n'), "{text:?}");
    let mut lines = text.lines().map(parsed);
    (lines.next().expect("a head line"), lines.collect())
}

fn parsed(line: &str) -> Json {
    Json::parse(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn number(line: &Json, name: &str) -> u64 {
    let field = line.get(name).and_then(Json::number);
    field.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

fn text<'a>(line: &'a Json, name: &str) -> &'a str {
    let field = line.get(name).and_then(Json::text);
    field.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

fn kind(line: &Json) -> &str {
    text(line, "kind")
}

/// The records of this kind.
fn of_kind<'a>(lines: &'a [Json], wanted: &str) -> Vec<&'a Json> {
    lines.iter().filter(|line| kind(line) == wanted).collect()
}

/// Waits until a record of the server fits.
fn wait_record(server: &Server, what: &str, fits: impl Fn(&Json) -> bool) -> Json {
    wait_for(what, PATIENCE, || {
        records(server, "").1.into_iter().rev().find(&fits)
    })
}

fn follow(server: &Server, query: &str) -> Connection {
    let mut stream = server.connect();
    let target = format!("{PATH}{query}");
    stream
        .write(&form_request("GET", &target, None))
        .expect("a request");
    assert_eq!(stream.head(false, PATIENCE).expect("a head").status, 200);
    stream
}

fn next(stream: &mut Connection) -> Json {
    match stream.line(PATIENCE) {
        Line::Is(line) => parsed(std::str::from_utf8(&line).expect("text")),
        other => panic!("{other:?}"),
    }
}

/// Checks that the numbers have no gap.
fn check_numbers(lines: &[Json]) {
    for pair in lines.windows(2) {
        assert_eq!(number(&pair[1], "seq"), number(&pair[0], "seq") + 1);
    }
}

fn put(server: &Server, key: &str, value: &str) -> u64 {
    let answer = server.ask(
        "PUT",
        &format!("/v2/keys{key}"),
        Some(&format!("value={value}")),
    );
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    let index = answer.header("X-Raft-Index").expect("an index");
    index.parse().expect("a number")
}

/// A lone member: from its start to a stored, committed and applied write.
#[test]
fn the_records_tell_the_life_of_a_member() {
    let server = Server::start(&[]);
    let index = put(&server, "/a", "1");
    wait_record(&server, "the write is applied", |line| {
        kind(line) == "applied" && number(line, "index") >= index
    });
    let (head, lines) = records(&server, "");
    assert_eq!(number(&head, "format"), 1);
    assert_eq!(
        (text(&head, "name"), number(&head, "first")),
        ("default", 1)
    );
    assert_eq!(number(&head, "next"), lines.len() as u64 + 1);
    check_numbers(&lines);
    let member = text(&head, "member");
    assert!(lines.iter().all(|line| text(line, "member") == member));
    let began = number(&head, "start");
    let times = lines.iter().map(|line| number(line, "at"));
    assert!(times.is_sorted() && number(&lines[0], "at") + 10_000_000 > began);
    let kinds: Vec<&str> = lines.iter().map(kind).collect();
    assert_eq!(kinds[..4], ["start", "members", "role", "timer"]);
    let roles = of_kind(&lines, "role");
    let roles: Vec<&str> = roles.iter().map(|line| text(line, "role")).collect();
    assert_eq!(roles, ["follower", "candidate", "leader"]);
    let is_own = |line: &&Json| kind(line) == "appended" && number(line, "last") >= index;
    let from = lines
        .iter()
        .position(|line| is_own(&line))
        .expect("it is appended");
    let after = lines[from..]
        .iter()
        .map(kind)
        .filter(|kind| *kind != "sent");
    let after: Vec<&str> = after.take(4).collect();
    assert_eq!(after, ["appended", "stored", "committed", "applied"]);
}

#[test]
fn a_stream_goes_on_with_new_records() {
    let server = Server::start(&[]);
    let mut stream = follow(&server, "");
    let head = next(&mut stream);
    assert_eq!(number(&head, "format"), 1);
    let index = put(&server, "/a", "1");
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|line| kind(line) != "applied" || number(line, "index") < index)
    {
        seen.push(next(&mut stream));
    }
    check_numbers(&seen);
    assert_eq!(number(&seen[0], "seq"), number(&head, "first"));
}

/// A reader that comes again gets what it has not seen.
#[test]
fn a_reader_resumes() {
    let mut server = Server::start(&[]);
    put(&server, "/a", "1");
    let (head, lines) = records(&server, "");
    let (started, next) = (number(&head, "start"), number(&head, "next"));
    assert_eq!(number(lines.last().expect("records"), "seq"), next - 1);
    // A write may be answered before all of its records are made.
    let index = put(&server, "/a", "2");
    wait_record(&server, "the write is applied", |line| {
        kind(line) == "applied" && number(line, "index") >= index
    });
    let resume = format!("&since={next}&start={started}");
    let (_, more) = records(&server, &resume);
    check_numbers(&more);
    assert_eq!(number(&more[0], "seq"), next);
    let (_, newest) = records(&server, &format!("{resume}&last=1"));
    assert_eq!(kind(&newest[0]), "gap");
    assert_eq!(number(&newest[0], "from"), next);
    assert_eq!(number(&newest[1], "seq"), number(&newest[0], "to") + 1);
    assert_eq!(newest.len(), 2);
    // After a restart the numbers begin again.
    assert!(server.stop().success());
    server.launch();
    let (head, lines) = records(&server, &resume);
    assert!(number(&head, "start") > started);
    assert_eq!(kind(&lines[0]), "gap");
    assert!(lines[0].get("restart").is_some());
    assert_eq!((kind(&lines[1]), number(&lines[1], "seq")), ("start", 1));
    assert!(number(&lines[1], "last") >= 2, "{:?}", lines[1]);
}

/// A client that reads nothing delays no other one. A gap line reports the records that it missed.
#[test]
fn a_slow_reader_gets_a_gap() {
    let server = Server::start(&[]);
    put(&server, "/a", "1");
    let mut stream = follow(&server, "");
    let head = next(&mut stream);
    let mut client = server.connect();
    let (mut newest, mut asked) = (0, 0);
    // The socket and the server's piece hold some tens of thousands of records.
    while newest < 120_000 {
        // Quorum reads of a sole member need no question, but those of users ask one.
        for _ in 0..1000 {
            let answer = client.ask("GET", "/v2/auth/users", None);
            assert_eq!(answer.expect("an answer").status, 200);
        }
        asked += 1000;
        newest = number(&records(&server, "&last=1").0, "next");
        assert!(
            newest > asked,
            "each read makes two records: {newest} after {asked}"
        );
    }
    let mut expected = number(&head, "first");
    let mut gaps = 0;
    while expected < newest {
        let line = next(&mut stream);
        match kind(&line) {
            "gap" => {
                assert_eq!(number(&line, "from"), expected);
                expected = number(&line, "to") + 1;
                gaps += 1;
            }
            _ => {
                assert_eq!(number(&line, "seq"), expected);
                expected += 1;
            }
        }
    }
    assert!(gaps > 0, "all of {newest} records fit into the buffers");
}

fn ask_from(server: &Server, method: &str, target: &str, origin: &str) -> Answer {
    let mut connection = server.connect();
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n"
    );
    connection.write(text.as_bytes()).expect("it is sent");
    connection.answer(false, PATIENCE).expect("an answer")
}

/// The page of a member may read the traces of the others.
#[test]
fn pages_of_members_may_read_it() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let other = cluster.others(leader)[0];
    let target = format!("{PATH}?wait=false&last=5");
    let allowed = |origin: &str| {
        let answer = ask_from(cluster.node(leader), "GET", &target, origin);
        assert_eq!(answer.status, 200);
        answer
            .header("Access-Control-Allow-Origin")
            .map(str::to_owned)
    };
    let page = format!("http://{}", cluster.node(other).address());
    wait_for("the other member is published", PATIENCE, || {
        allowed(&page).filter(|origin| *origin == page)
    });
    let longer = format!("{page}0");
    for foreign in ["http://evil.example", "null", "https://localhost", &longer] {
        assert_eq!(allowed(foreign), None, "{foreign}");
    }
    // Keys are not for the pages of other members.
    let keys = ask_from(cluster.node(leader), "GET", "/v2/keys/", &page);
    assert_eq!(keys.header("Access-Control-Allow-Origin"), None);
}

#[test]
fn what_else_the_endpoint_answers() {
    let server = Server::start(&[]);
    let ask = |method: &str, target: &str| {
        let answer = server.ask(method, &format!("{PATH}{target}"), None);
        (answer.status, answer.text())
    };
    assert_eq!(ask("POST", "").0, 405);
    assert_eq!(ask("PUT", "").0, 405);
    let (status, text) = ask("GET", "?since=x");
    assert_eq!(status, 400);
    assert!(text.contains("since is a number"), "{text}");
    assert_eq!(ask("GET", "?wait=maybe").0, 400);
    assert_eq!(ask("GET", "/more").0, 404);
    let answer = server.ask("GET", &format!("{PATH}?wait=false"), None);
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
}

/// The number of streams is limited, and a place becomes free when a client disconnects.
#[test]
fn only_so_many_clients_follow_it() {
    const MOST: usize = 64;
    let server = Server::start(&[]);
    let mut streams: Vec<Connection> = (0..MOST).map(|_| follow(&server, "")).collect();
    for stream in &mut streams {
        assert_eq!(number(&next(stream), "format"), 1);
    }
    let threads = server.process().threads();
    let refused = server.ask("GET", PATH, None);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("Retry-After").is_some());
    records(&server, "");
    streams.pop();
    wait_for("a place is free", PATIENCE, || {
        let mut connection = server.connect();
        connection.write(&form_request("GET", PATH, None)).ok()?;
        let head = connection.head(false, PATIENCE).ok()?;
        (head.status == 200).then(|| streams.push(connection))
    });
    // Without clients there is no thread for them.
    drop(streams);
    wait_for("the thread ends", PATIENCE, || {
        (server.process().threads() < threads).then_some(())
    });
    assert_eq!(number(&next(&mut follow(&server, "")), "format"), 1);
}

/// No key, value, user or password is in a trace, for any request.
#[test]
fn a_trace_contains_nothing_secret() {
    let server = Server::start(&[]);
    put(&server, "/secretkey", "secretvalue");
    server.ask("PUT", "/v2/keys/secretdir?dir=true", None);
    let user = |name: &str| {
        let body = format!("{{\"user\":\"{name}\",\"password\":\"secretpassword\"}}");
        let mut connection = server.connect();
        let length = body.len();
        let text = format!(
            "PUT /v2/auth/users/{name} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        connection.write(text.as_bytes()).expect("it is sent");
        let answer = connection.answer(false, PATIENCE).expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    user("secretuser");
    server.ask("GET", "/v2/keys/secretkey?quorum=true", None);
    server.ask("DELETE", "/v2/keys/secretkey", None);
    let trace = server
        .ask("GET", &format!("{PATH}?wait=false"), None)
        .text();
    assert!(
        trace.contains("applied") && !trace.contains("secret"),
        "{trace}"
    );
    assert!(!trace.contains("$2"), "a hash of a password: {trace}");
}

/// Three members: what one sends, the others receive; and the records of an election.
#[test]
fn the_records_of_a_cluster_fit_together() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let others = cluster.others(leader);
    let index = put(cluster.node(leader), "/a", "1");
    let entry = wait_record(cluster.node(leader), "the entry is committed", |line| {
        kind(line) == "committed" && number(line, "index") >= index
    });
    let term = number(&entry, "term");
    let (head, _) = records(cluster.node(leader), "&last=1");
    let leader_id = text(&head, "member").to_owned();
    for &other in &others {
        let node = cluster.node(other);
        wait_record(node, "the follower has it", |line| {
            kind(line) == "stored" && number(line, "last") >= index
        });
        wait_record(node, "the follower knows its leader", |line| {
            kind(line) == "role"
                && line.get("leader").and_then(Json::text) == Some(&leader_id)
                && number(line, "term") == term
        });
        let (head, lines) = records(node, "");
        let id = text(&head, "member").to_owned();
        let appends = of_kind(&lines, "received");
        let appends = appends.iter().filter(|line| text(line, "what") == "append");
        assert!(
            appends.clone().count() > 0
                && appends.clone().all(|line| text(line, "from") == leader_id)
        );
        wait_record(cluster.node(leader), "the acknowledgement", |line| {
            kind(line) == "acknowledged" && text(line, "by") == id
        });
        assert!(!of_kind(&lines, "link").is_empty(), "{id} has connections");
    }
    cluster.kill(leader);
    let next = cluster.wait_leader_among(&others);
    let node = cluster.node(next);
    wait_record(node, "the new leader's role", |line| {
        kind(line) == "role" && text(line, "role") == "leader" && number(line, "term") > term
    });
    let (_, lines) = records(node, "");
    let after: Vec<&str> = lines
        .iter()
        .skip_while(|line| kind(line) != "timeout" || number(line, "term") < term)
        .map(kind)
        .collect();
    for wanted in [
        "timeout",
        "vote_asked",
        "term",
        "vote_stored",
        "vote_got",
        "role",
        "appended",
    ] {
        assert!(after.contains(&wanted), "no {wanted} in {after:?}");
    }
    let stored = after.iter().position(|kind| *kind == "vote_stored");
    let asked = lines
        .iter()
        .filter(|line| kind(line) == "sent" && text(line, "what") == "vote");
    assert!(stored.is_some() && asked.count() >= 1);
    let voter = others
        .iter()
        .find(|other| **other != next)
        .expect("the third");
    let granted = wait_record(cluster.node(*voter), "the vote", |line| {
        kind(line) == "vote_answer"
            && matches!(line.get("pre"), Some(Json::Bool(false)))
            && number(line, "term") > term
    });
    assert_eq!(text(&granted, "why"), "granted");
    // The vote is on disk before the candidate gets the answer.
    let (_, lines) = records(cluster.node(*voter), "");
    let at = |wanted: &dyn Fn(&Json) -> bool| lines.iter().rposition(wanted).expect("a record");
    let stored = at(&|line| kind(line) == "vote_stored");
    let sent = at(&|line| kind(line) == "sent" && text(line, "what") == "vote-answer");
    assert!(stored < sent, "{stored} {sent}");
}

/// The file of `--trace` has the same lines, and continues after a restart.
#[test]
fn a_file_gets_the_same_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let mut server = Server::start(&[&format!("--trace={}", path.display())]);
    let index = put(&server, "/a", "1");
    wait_record(&server, "the write is applied", |line| {
        kind(line) == "applied" && number(line, "index") >= index
    });
    let (_, in_memory) = records(&server, "");
    assert!(server.stop().success());
    let lines = |path: &Path| -> Vec<Json> {
        let text = std::fs::read_to_string(path).expect("the file");
        text.lines().map(parsed).collect()
    };
    let written = lines(&path);
    assert_eq!(number(&written[0], "format"), 1);
    let shown = |line: &Json| format!("{line:?}");
    let first = written[1..].iter().take(in_memory.len());
    assert!(first.map(shown).eq(in_memory.iter().map(shown)));
    check_numbers(&written[1..]);
    server.launch();
    assert!(server.stop().success());
    let both = lines(&path);
    assert!(both.len() > written.len() + 4);
    assert_eq!(number(&both[written.len()], "format"), 1);
    assert_eq!(kind(&both[written.len() + 1]), "start");
    assert_eq!(number(&both[written.len() + 1], "seq"), 1);
}

/// A file that cannot be written does not concern the node.
#[test]
fn errors_of_the_file_are_logged() {
    for (path, why) in [
        ("/dev/full", "No space left"),
        ("/nowhere/trace", "No such file"),
    ] {
        let mut server = Server::start(&[&format!("--trace={path}")]);
        put(&server, "/a", "1");
        let wanted = format!("cannot write the trace to {path}: {why}");
        wait_for("the warning", PATIENCE, || {
            server.log().contains(&wanted).then_some(())
        });
        assert!(server.stop().success(), "{}", server.log());
        assert_eq!(server.log().matches("cannot write the trace").count(), 1);
    }
}
