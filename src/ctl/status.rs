//! `edgetcdctl status`: shows all members. Each member is asked directly, all of them at the same time.
//!
//! | column | from |
//! |---|---|
//! | role, name | `/v2/stats/self` of the member |
//! | term, index | `X-Raft-Term` and `X-Raft-Index` of a HEAD of the keys' root |
//! | lag | number of entries that the member is behind the most advanced one |
//! | RTT | `/v2/stats/leader`: round-trip time of the leader's last append to the member |
//! | sync p99 | `/metrics`: 99th percentile of the duration of its log syncs since its start; `none` with `--unsafe-no-fsync` |
//! | memory | `/metrics`: resident memory of the process |
//! | version | `/version` |
//!
//! A value that a server does not report is shown as `-`.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Stop;
use super::answer::to_json;
use super::args::Opt;
use super::client::{Answer, Client};
use super::command::{Command, HELP, Run};
use super::endpoint::Endpoint;
use super::member::{self, Member};
use super::metrics;
use super::paint::Paint;
use super::screen;
use super::table::{Align, Table};
use super::watch::end_well_on_interrupt;
use super::wire::{Ask, Method};

pub(super) const ALL: &[Command] = &[Command {
    name: "status",
    arguments: "",
    what: "show all members: role, index, lag, times, memory",
    examples: &["status", "status -w 2", "-o json status"],
    options: &[
        Opt::number(
            &["watch", "w"],
            "repeat after this many seconds, until Ctrl-C",
        ),
        HELP,
    ],
    run: status,
}];

/// The values shown for one member.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    id: String,
    role: String,
    term: Option<u64>,
    index: Option<u64>,
    lag: Option<u64>,
    rtt_ms: Option<f64>,
    sync_p99_ms: Option<f64>,
    /// Whether the member acknowledges writes that are not on its disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unsafe_no_fsync: bool,
    memory_bytes: Option<f64>,
    version: Option<String>,
}

/// A member's report about itself, and about the others if it leads.
#[derive(Debug, Default)]
struct Report {
    row: Row,
    rtts_ms: BTreeMap<String, f64>,
}

// These structs name what is read of a page. The rest of it, which may be anything, is not kept.

#[derive(Debug, Deserialize)]
struct Itself {
    #[serde(default)]
    name: String,
    #[serde(default)]
    state: String,
}

#[derive(Debug, Deserialize)]
struct Version {
    etcdserver: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Followers {
    followers: Option<BTreeMap<String, Follower>>,
}

#[derive(Debug, Deserialize)]
struct Follower {
    #[serde(default)]
    latency: Latency,
}

#[derive(Debug, Default, Deserialize)]
struct Latency {
    #[serde(default)]
    current: f64,
}

/// Returns status 5 if a member cannot be reached or there is no leader, so that scripts can check it.
fn status(run: &mut Run) -> Result<(), Stop> {
    let pause = run.parsed.number("watch").filter(|seconds| *seconds > 0);
    if pause.is_some() {
        end_well_on_interrupt()?;
    }
    let client = run.connect()?;
    let Some(seconds) = pause else {
        return once(run, &client);
    };
    loop {
        match once(run, &client) {
            Err(stop @ Stop::Failed(_)) => writeln!(run.world.stderr, "{}", stop.text())?,
            Ok(()) | Err(Stop::Unhealthy) => {}
            stopped => return stopped,
        }
        thread::sleep(Duration::from_secs(seconds.unsigned_abs()));
    }
}

fn once(run: &mut Run, client: &Client) -> Result<(), Stop> {
    let rows = ask_all(client)?;
    print(run, &rows)?;
    let lost = rows.iter().any(|row| row.role == UNREACHABLE);
    let led = rows.iter().any(|row| row.role == "leader");
    if led && !lost {
        Ok(())
    } else {
        Err(Stop::Unhealthy)
    }
}

const UNREACHABLE: &str = "unreachable";

/// How many members are asked at the same time.
const AT_ONCE: usize = 16;

fn ask_all(client: &Client) -> Result<Vec<Row>, Stop> {
    let members = member::known_to(client)?;
    let several = members.chunks(AT_ONCE);
    let reports: Vec<Report> = several.flat_map(|some| ask_some(client, some)).collect();
    let rtts: BTreeMap<String, f64> = reports
        .iter()
        .flat_map(|report| report.rtts_ms.clone())
        .collect();
    let mut rows: Vec<Row> = reports.into_iter().map(|report| report.row).collect();
    let furthest = rows.iter().filter_map(|row| row.index).max().unwrap_or(0);
    for row in &mut rows {
        row.lag = row.index.map(|index| furthest - index);
        // For an unreachable member this would be the time of its last answer.
        let answers = row.role != UNREACHABLE;
        row.rtt_ms = rtts.get(&row.id).copied().filter(|_| answers);
    }
    // The server sorts by id, which is random for people. Sort n2 before n10.
    rows.sort_by_key(|row| (row.name.len(), row.name.clone()));
    Ok(rows)
}

/// Asks these members at the same time.
fn ask_some(client: &Client, members: &[Member]) -> Vec<Report> {
    thread::scope(|scope| {
        let asked: Vec<_> = members
            .iter()
            .map(|member| scope.spawn(move || ask(client, member)))
            .collect();
        let reports = asked
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default());
        reports.collect()
    })
}

/// Asks at the first of the member's URLs that answers. All pages together have the time of one request.
fn ask(client: &Client, member: &Member) -> Report {
    let mut report = Report::default();
    let row = &mut report.row;
    (row.id, row.name) = (member.id.clone(), member.name.clone());
    if member.client_urls.is_empty() {
        row.role = "unstarted".to_owned();
        return report;
    }
    let urls = member
        .client_urls
        .iter()
        .filter_map(|url| Endpoint::parse(url).ok());
    let deadline = Instant::now() + client.settings.total_timeout;
    for url in urls {
        let page = |path: &str| ask_page(client, &url, &Ask::get(path, vec![]), deadline);
        if let Some(answer) = page("/v2/stats/self") {
            fill(&mut report, &answer);
            fill_by_headers(&mut report.row, client, &url, deadline);
            fill_by_metrics(&mut report.row, page("/metrics"));
            report.row.version = page("/version").and_then(|answer| {
                let version: Version = serde_json::from_slice(&answer.body).ok()?;
                version.etcdserver
            });
            if report.row.role == "leader" {
                report.rtts_ms = page("/v2/stats/leader").map_or_else(BTreeMap::new, read_rtts);
            }
            return report;
        }
    }
    report.row.role = UNREACHABLE.to_owned();
    report
}

fn ask_page(client: &Client, url: &Endpoint, ask: &Ask, deadline: Instant) -> Option<Answer> {
    let answer = client.any_answer_of(url, ask, Some(deadline)).ok()?;
    (answer.status == 200).then_some(answer)
}

fn fill(report: &mut Report, answer: &Answer) {
    let itself: Result<Itself, _> = serde_json::from_slice(&answer.body);
    let Ok(Itself { name, state }) = itself else {
        report.row.role = "-".to_owned();
        return;
    };
    report.row.name = name;
    report.row.role = match state.as_str() {
        "StateLeader" => "leader".to_owned(),
        "StateFollower" => "follower".to_owned(),
        "StateCandidate" | "StatePreCandidate" => "candidate".to_owned(),
        other => other.to_owned(),
    };
}

fn fill_by_headers(row: &mut Row, client: &Client, url: &Endpoint, deadline: Instant) {
    let head = Ask {
        method: Method::Head,
        ..Ask::key("/", vec![])
    };
    if let Some(answer) = ask_page(client, url, &head, deadline) {
        (row.term, row.index) = (answer.raft_term, answer.raft_index);
    }
}

fn fill_by_metrics(row: &mut Row, answer: Option<Answer>) {
    let Some(answer) = answer else { return };
    let page = String::from_utf8_lossy(&answer.body);
    let sync = metrics::quantile(&page, "etcd_disk_wal_fsync_duration_seconds", 0.99);
    row.sync_p99_ms = sync.map(|seconds| seconds * 1e3);
    row.unsafe_no_fsync = metrics::value(&page, "edgetcd_unsafe_no_fsync") == Some(1.0);
    row.memory_bytes = metrics::value(&page, "process_resident_memory_bytes");
}

/// The times of the members that the leader sends to. A member that has not answered yet has none.
fn read_rtts(answer: Answer) -> BTreeMap<String, f64> {
    let page: Followers = serde_json::from_slice(&answer.body).unwrap_or_default();
    let followers = page.followers.unwrap_or_default().into_iter();
    let times = followers.map(|(id, follower)| (id, follower.latency.current));
    times.filter(|(_, current)| *current > 0.0).collect()
}

fn print(run: &mut Run, rows: &[Row]) -> Result<(), Stop> {
    if run.globals.output == "json" {
        return Ok(writeln!(run.world.stdout, "{}", to_json(&rows)?)?);
    }
    let paint = Paint::new(run.world);
    let again = run.parsed.text("watch").is_some();
    let before = match (again, run.world.stdout_is_terminal) {
        (true, true) => screen::command("[H") + &screen::command("[2J"),
        _ => String::new(),
    };
    let after = if again { "\n" } else { "" };
    let text = table(rows).draw(|column, text| match (column, text.trim()) {
        (2, "leader") => paint.good(text),
        (2, UNREACHABLE) | (7, NO_SYNCS) => paint.bad(text),
        _ => text.to_owned(),
    });
    let unsafe_rows = rows.iter().filter(|row| row.unsafe_no_fsync);
    let unsafe_lines: String = unsafe_rows.map(unsafe_line).collect();
    Ok(write!(
        run.world.stdout,
        "{before}{text}{unsafe_lines}{after}"
    )?)
}

/// Shown instead of a time, if the member never syncs.
const NO_SYNCS: &str = "none";

fn unsafe_line(row: &Row) -> String {
    format!(
        "{} runs with --unsafe-no-fsync: if its machine stops, acknowledged writes are lost\n",
        row.name
    )
}

fn table(rows: &[Row]) -> Table {
    use Align::{Left, Right};

    let mut table = Table::new(&[
        ("NAME", Left),
        ("ID", Left),
        ("ROLE", Left),
        ("TERM", Right),
        ("INDEX", Right),
        ("LAG", Right),
        ("RTT", Right),
        ("SYNC P99", Right),
        ("MEMORY", Right),
        ("VERSION", Left),
    ]);
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let millis = |value: Option<f64>| value.map(|value| format!("{value:.1}ms"));
    let mebibytes = |bytes: f64| format!("{:.1}MiB", bytes / 1_048_576.0);
    for row in rows {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        table.add(vec![
            some(&row.name),
            some(&row.id),
            some(&row.role),
            number(row.term),
            number(row.index),
            number(row.lag),
            millis(row.rtt_ms),
            match row.unsafe_no_fsync {
                true => Some(NO_SYNCS.to_owned()),
                false => millis(row.sync_p99_ms),
            },
            row.memory_bytes.map(mebibytes),
            row.version.clone(),
        ]);
    }
    table
}
