//! The alerts and the dashboard of `src/packaging`, in a real Prometheus that scrapes a real cluster.
//!
//! Each query of the dashboard must return a number, and each metric of an alert must exist. promtool runs the alerts
//! with the series of `alerts.yml`, in which each of them fires once and does not fire once.

use super::Page;
use crate::harness::json::Json;
use crate::harness::server::free_address;
use crate::harness::{Cluster, Connection, wait_for};
use regex_lite::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Time limit for what takes some scrapes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two scrapes of the test. A rate needs two of them.
const SCRAPE_INTERVAL: &str = "250ms";

/// What Grafana would insert for `$__rate_interval`, `$job` and `$instance`.
const VARIABLES: [(&str, &str); 3] = [
    ("$__rate_interval", "1m"),
    ("$job", "edgetcd"),
    ("$instance", ".+"),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

// Prometheus --------------------------------------------------------------------------------------

/// A Prometheus that ends with the test.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts it with the alerts and with the job of `scrape.yml`, but with these targets.
    fn start(targets: &[SocketAddr]) -> Prometheus {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("prometheus.yml");
        fs::write(&config, configuration(targets)).expect("written");
        let address = free_address();
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus (apt-get install prometheus)");
        wait_for("Prometheus to be ready", PATIENCE, || {
            let ended = process.try_wait().expect("its state");
            assert!(ended.is_none(), "it ended; its errors are above");
            let mut connection = Connection::open(address).ok()?;
            let answer = connection.ask("GET", "/-/ready", None).ok()?;
            (answer.status == 200).then_some(())
        });
        Prometheus {
            process,
            address,
            _folder: folder,
        }
    }

    /// The `data` of an answer.
    fn ask(&self, target: &str, form: Option<&str>) -> Json {
        let mut connection = Connection::open(self.address).expect("it listens");
        let method = if form.is_some() { "POST" } else { "GET" };
        let answer = connection.ask(method, target, form).expect("an answer");
        assert_eq!(answer.status, 200, "{form:?}: {}", answer.text());
        answer.json().get("data").expect("data").clone()
    }

    /// The values of a query, of all series.
    fn query(&self, query: &str) -> Vec<f64> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask("/api/v1/query", Some(&format!("query={escaped}")));
        let series = data.get("result").expect("a result").items();
        let value = |series: &Json| {
            let text = series.at("/value/1").and_then(Json::text).expect("a value");
            text.parse().expect("a number")
        };
        series.iter().map(value).collect()
    }

    /// The alerts that are pending or firing: name and state.
    fn alerts(&self) -> Vec<(String, String)> {
        let data = self.ask("/api/v1/alerts", None);
        let text =
            |alert: &Json, pointer| alert.at(pointer).and_then(Json::text).map(str::to_owned);
        let alert = |alert: &Json| {
            let name = text(alert, "/labels/alertname").expect("a name");
            (name, text(alert, "/state").expect("a state"))
        };
        let alerts = data.get("alerts").expect("a list").items();
        alerts.iter().map(alert).collect()
    }

    /// The rules, once all of them were evaluated: name and query.
    fn rules(&self) -> Vec<(String, String)> {
        wait_for("all rules to be evaluated", PATIENCE, || {
            let data = self.ask("/api/v1/rules", None);
            let groups = data.get("groups").expect("groups").items();
            let rules = groups
                .iter()
                .flat_map(|group| group.get("rules").expect("rules").items());
            let of = |rule: &Json| {
                let text = |name| {
                    rule.get(name)
                        .and_then(Json::text)
                        .expect("a text")
                        .to_owned()
                };
                let health = text("health");
                assert_ne!(health, "err", "{rule}");
                (health == "ok").then(|| (text("name"), text("query")))
            };
            rules.map(of).collect()
        })
    }
}

/// `scrape.yml` with other targets, the path of the alerts, and shorter intervals.
fn configuration(targets: &[SocketAddr]) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
    let mut text = read("src/packaging/prometheus/scrape.yml");
    let alerts = file("src/packaging/prometheus/alerts.yml");
    for (from, to) in [
        ("edgetcd/alerts.yml", alerts.display().to_string()),
        (
            "'10.0.0.1:2379', '10.0.0.2:2379', '10.0.0.3:2379'",
            targets.join(", "),
        ),
        ("15s", SCRAPE_INTERVAL.to_owned()),
    ] {
        assert!(text.contains(from), "{from} in scrape.yml");
        text = text.replace(from, &to);
    }
    format!("global: {{evaluation_interval: {SCRAPE_INTERVAL}}}\n{text}")
}

// Queries -----------------------------------------------------------------------------------------

/// All texts with this name, anywhere in a JSON value.
fn texts<'a>(json: &'a Json, name: &str, found: &mut Vec<&'a str>) {
    for (field, value) in json.fields() {
        found.extend(value.text().filter(|_| field == name));
        texts(value, name, found);
    }
    for item in json.items() {
        texts(item, name, found);
    }
}

fn filled_in(query: &str) -> String {
    let fill = |query: String, (name, value): (&str, &str)| query.replace(name, value);
    VARIABLES.into_iter().fold(query.to_owned(), fill)
}

/// The panels of the dashboard with their queries.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard = Json::parse(&read("src/packaging/grafana/edgetcd.json")).expect("JSON");
    let panels = dashboard.get("panels").expect("panels").items();
    let panel = |panel: &Json| {
        let title = panel.get("title").and_then(Json::text).expect("a title");
        let mut queries = Vec::new();
        texts(panel, "expr", &mut queries);
        (
            title.to_owned(),
            queries.into_iter().map(filled_in).collect(),
        )
    };
    panels
        .iter()
        .map(panel)
        .filter(|(_, queries): &(_, Vec<_>)| !queries.is_empty())
        .collect()
}

/// The queries of the dashboard that may return nothing: of the marks in all panels, and of the variables.
fn other_queries() -> Vec<String> {
    let dashboard = Json::parse(&read("src/packaging/grafana/edgetcd.json")).expect("JSON");
    let mut queries = Vec::new();
    texts(
        dashboard.get("annotations").expect("annotations"),
        "expr",
        &mut queries,
    );
    texts(
        dashboard.get("templating").expect("variables"),
        "definition",
        &mut queries,
    );
    assert_eq!(queries.len(), 3);
    queries.into_iter().map(filled_in).collect()
}

/// The series that a query selects: a name, and labels in braces. Sorted, each of them once.
fn selectors(query: &str) -> BTreeSet<String> {
    let pattern = r"\b(up|(edgetcd|etcd|process)_[a-z0-9_]+)\b(\{[^}]*\})?";
    let pattern = Regex::new(pattern).expect("a pattern");
    let found = pattern.find_iter(query);
    found.map(|part| part.as_str().to_owned()).collect()
}

fn has_metric(page: &Page, selector: &str) -> bool {
    let name = selector.split('{').next().unwrap_or_default();
    let parts = ["_bucket", "_sum", "_count"];
    let family = parts.iter().find_map(|suffix| name.strip_suffix(suffix));
    // Prometheus itself writes `up`.
    name == "up" || page.kinds.contains_key(name) || page.kinds.contains_key(family.unwrap_or(name))
}

// Tests -------------------------------------------------------------------------------------------

/// Some requests of each kind that a panel shows.
fn use_cluster(cluster: &Cluster, number: usize) {
    for node in 0..cluster.len() {
        cluster.put(node, &format!("/key{number}"), "value");
        for (method, target) in [
            ("GET", "/v2/keys/key0"),
            ("GET", "/v2/keys/key0?quorum=true"),
            ("GET", "/v2/keys/missing"),
        ] {
            cluster.node(node).ask(method, target, None);
        }
    }
}

#[test]
#[ignore = "needs prometheus (apt-get install prometheus)"]
fn with_prometheus_each_panel_has_data_and_each_alert_its_metrics() {
    let mut cluster = Cluster::start(3, &["--snapshot-count=10"]);
    let leader = cluster.wait_leader();
    let prometheus = Prometheus::start(&cluster.addresses());

    // The panels. A query that finds a series may still return NaN, for example a quotient of zeros.
    let panels = panels();
    assert!(panels.len() >= 30, "{}", panels.len());
    let mut empty: BTreeSet<&String> = panels.iter().flat_map(|(_, queries)| queries).collect();
    let mut rounds = 0;
    while !empty.is_empty() && rounds < 300 {
        use_cluster(&cluster, rounds);
        empty.retain(|query| {
            !prometheus
                .query(query)
                .iter()
                .any(|value| value.is_finite())
        });
        rounds += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        empty.is_empty(),
        "no number after {rounds} rounds: {empty:#?}"
    );

    // The alerts: the parts of each query find series, and no alert fires.
    let rules = prometheus.rules();
    assert!(rules.len() >= 20, "{rules:?}");
    let page = Page::of(cluster.node(leader));
    let queries = rules
        .iter()
        .map(|(_, query)| query.clone())
        .chain(other_queries());
    for query in queries {
        let selectors = selectors(&query);
        assert!(!selectors.is_empty(), "{query}");
        for selector in selectors {
            assert!(has_metric(&page, &selector), "no metric for {selector}");
            let count = prometheus.query(&format!("count({selector})"));
            assert!(!count.is_empty(), "no series for {selector}");
        }
    }
    let names = panels
        .iter()
        .flat_map(|(_, queries)| queries)
        .flat_map(|query| selectors(query));
    for selector in names {
        assert!(has_metric(&page, &selector), "no metric for {selector}");
    }
    let firing: Vec<_> = prometheus
        .alerts()
        .into_iter()
        .filter(|(_, state)| state == "firing")
        .collect();
    assert!(firing.is_empty(), "{firing:?}");

    // A member that ends.
    cluster.kill(cluster.others(leader)[0]);
    for name in ["EdgetcdMemberDown", "EdgetcdPeerUnreachable"] {
        wait_for(&format!("{name} to wait for its time"), PATIENCE, || {
            let found = prometheus
                .alerts()
                .into_iter()
                .find(|(alert, _)| alert == name)?;
            assert_eq!(found.1, "pending");
            Some(())
        });
    }
}

fn promtool(words: &[&str], name: &str) {
    let output = Command::new("promtool")
        .args(words)
        .arg(file(name))
        .output();
    let output = output.expect("promtool (apt-get install prometheus)");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success(), "{printed}");
}

#[test]
#[ignore = "needs promtool (apt-get install prometheus)"]
fn with_prometheus_each_alert_fires_for_its_series_only() {
    promtool(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        "src/packaging/prometheus/alerts.yml",
    );
    promtool(&["test", "rules"], "tests/metrics/alerts.yml");
}

/// Each alert has a case in which it fires and one in which it does not, says what to do, and is in the guide.
#[test]
fn each_alert_has_both_cases() {
    let cases = read("tests/metrics/alerts.yml");
    let rules = read("src/packaging/prometheus/alerts.yml");
    let guide = read("src/guide/alerts.md");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        let case = Regex::new(&format!(
            r"alertname: {name}\n +eval_time: \w+\n +exp_alerts:(.*)\n"
        ))
        .expect("a pattern");
        let mut expected: Vec<&str> = case
            .captures_iter(&cases)
            .map(|case| case.get(1).map_or("", |part| part.as_str()))
            .collect();
        expected.sort_unstable();
        assert_eq!(expected, ["", " []"], "the cases of {name}");
        let severity = alert
            .split("severity: ")
            .nth(1)
            .and_then(|rest| rest.split('}').next());
        let line = format!("\n| `{name}` | {} |", severity.expect("a severity"));
        assert!(guide.contains(&line), "alerts.md has no line {line:?}");
        for part in ["summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
}

/// Rows and panels lie within the width of 24, do not overlap, and have ids of their own. Each panel has a text.
#[test]
fn the_dashboard_is_in_order() {
    let dashboard = Json::parse(&read("src/packaging/grafana/edgetcd.json")).expect("JSON");
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard.get("panels").expect("panels").items() {
        let number = |pointer: &str| panel.at(pointer).and_then(Json::number).expect("a number");
        assert!(ids.insert(number("/id")), "{panel}");
        let (x, y) = (number("/gridPos/x"), number("/gridPos/y"));
        let (width, height) = (number("/gridPos/w"), number("/gridPos/h"));
        assert!(x + width <= 24, "{panel}");
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(places.insert(place), "{panel} lies on another one");
        }
        let is_row = panel.get("type").and_then(Json::text) == Some("row");
        assert!(is_row || panel.get("description").is_some(), "{panel}");
        let mut sources = Vec::new();
        texts(panel, "uid", &mut sources);
        assert!(sources.iter().all(|uid| *uid == "${datasource}"), "{panel}");
    }
}
