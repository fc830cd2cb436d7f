//! One transcript: its steps in order, and the expected results.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::compare::{Comparer, Variables, plain};
use crate::harness::client::{FORM, PATIENCE, request};
use crate::harness::{Answer, Connection, Json, Line};

pub struct Outcome {
    pub passed: usize,
    /// Each failure contains the step, its request, and the expected and actual values.
    pub failures: Vec<String>,
}

pub struct Transcript {
    name: String,
    document: Json,
    address: SocketAddr,
    variables: Variables,
    watches: HashMap<String, Watch>,
}

/// A request whose response stays open.
struct Watch {
    connection: Connection,
    head: Answer,
}

/// The result of a step: `None` if it compares nothing, otherwise the differences.
type StepResult = io::Result<Option<Vec<String>>>;

impl Transcript {
    pub fn new(name: &str, text: &str, address: SocketAddr) -> Transcript {
        Transcript {
            name: name.to_owned(),
            document: Json::parse(text).unwrap_or_else(|error| panic!("{name}: {error}")),
            address,
            variables: Variables::default(),
            watches: HashMap::new(),
        }
    }

    pub fn run(mut self) -> Outcome {
        let mut outcome = Outcome {
            passed: 0,
            failures: Vec::new(),
        };
        if let Err(error) = self.begin() {
            outcome
                .failures
                .push(format!("{} before its first step: {error}", self.name));
            return outcome;
        }
        let steps = self.document.get("steps").expect("steps").items().to_vec();
        for (number, step) in steps.iter().enumerate() {
            let problems = match self.perform(step) {
                Ok(problems) => problems,
                Err(error) => Some(vec![error.to_string()]),
            };
            match problems {
                None => {}
                Some(problems) if problems.is_empty() => outcome.passed += 1,
                Some(problems) => {
                    outcome
                        .failures
                        .push(self.failure(number + 1, step, &problems));
                }
            }
        }
        self.watches.clear();
        // If the clean-up fails and this matters, the indexes of the next file show it.
        let _ = self.ask(
            "DELETE",
            &self.variables.fill("/v2/keys/${p}?recursive=true"),
        );
        outcome
    }

    /// Sets the variables with which every transcript starts.
    fn begin(&mut self) -> io::Result<()> {
        let stem = self.name.trim_end_matches(".json");
        self.variables
            .set("p", Json::Text(format!("g-{stem}-{}", std::process::id())));
        // Makes two writes first, so that index 1 is always an old one.
        let scratch = self.variables.fill("/v2/keys/${p}");
        self.ask("PUT", &scratch)?;
        self.ask("DELETE", &scratch)?;
        let start = self.ask("GET", "/v2/keys/")?;
        let cluster = start
            .header("X-Etcd-Cluster-Id")
            .unwrap_or_default()
            .to_owned();
        self.variables.set("i", Json::Number(start.index().into()));
        self.variables.set("clusterid", Json::Text(cluster));
        Ok(())
    }

    fn ask(&self, method: &str, target: &str) -> io::Result<Answer> {
        Connection::open(self.address)?.ask(method, target, None)
    }

    fn failure(&self, number: usize, step: &Json, problems: &[String]) -> String {
        let field = |name| step.get(name).and_then(Json::text);
        let title = field("note").or(field("await")).unwrap_or_default();
        let mut text = format!("{} step {number}: {title}", self.name);
        if step.get("method").is_some() {
            let shown: String = String::from_utf8_lossy(&self.build(step))
                .chars()
                .take(600)
                .collect();
            for line in shown.lines() {
                text += &format!("\n  > {line}");
            }
        }
        for problem in problems {
            let shown: String = problem.chars().take(900).collect();
            text += &format!("\n  {shown}");
        }
        text
    }

    fn perform(&mut self, step: &Json) -> StepResult {
        let field = |name| step.get(name).and_then(Json::text);
        if let Some(pause) = step.get("sleep_ms") {
            sleep(milliseconds(pause));
            Ok(None)
        } else if let Some(name) = field("close") {
            self.watches.remove(name);
            Ok(None)
        } else if let Some(name) = field("pending") {
            self.stays_silent(name, number(step, "for_ms", 300))
        } else if let Some(name) = field("await") {
            self.await_line(name, step)
        } else if let Some(name) = field("background") {
            self.open_watch(name, step)
        } else {
            self.request(step)
        }
    }

    fn watch(&mut self, name: &str) -> &mut Watch {
        self.watches
            .get_mut(name)
            .unwrap_or_else(|| panic!("no watch {name} is open"))
    }

    fn request(&mut self, step: &Json) -> StepResult {
        let deadline = Instant::now() + number(step, "retry_ms", 0);
        let times = step.get("repeat").and_then(Json::number).unwrap_or(1);
        for _ in 1..times {
            self.send(step)?;
        }
        loop {
            let answer = self.send(step)?;
            let problems = self.compare(step, &answer, true);
            let wrong = problems
                .as_ref()
                .is_some_and(|problems| !problems.is_empty());
            if !wrong || Instant::now() >= deadline {
                self.save(step, &answer)?;
                return Ok(problems);
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn send(&self, step: &Json) -> io::Result<Answer> {
        let mut connection = Connection::open(self.address)?;
        connection.write(&self.build(step))?;
        let headless = step.get("method").and_then(Json::text) == Some("HEAD");
        connection.answer(headless, PATIENCE)
    }

    fn open_watch(&mut self, name: &str, step: &Json) -> StepResult {
        let mut connection = Connection::open(self.address)?;
        connection.write(&self.build(step))?;
        let head = connection.head(false, number(step, "timeout_ms", 5000))?;
        let problems = self.compare(step, &head, false);
        self.watches
            .insert(name.to_owned(), Watch { connection, head });
        Ok(problems)
    }

    fn stays_silent(&mut self, name: &str, time: Duration) -> StepResult {
        let problems = match self.watch(name).connection.line(time) {
            Line::Silence => Vec::new(),
            other => vec![format!(
                "the watch was to stay silent, actual {}",
                shown(&other)
            )],
        };
        Ok(Some(problems))
    }

    fn await_line(&mut self, name: &str, step: &Json) -> StepResult {
        let time = number(step, "timeout_ms", 5000);
        let watch = self.watch(name);
        let line = watch.connection.line(time);
        if step.at("/expect/closed").is_some() {
            let ended = matches!(line, Line::End | Line::Cut);
            let problem = || format!("expected the end of the answer, actual {}", shown(&line));
            return Ok(Some(if ended { Vec::new() } else { vec![problem()] }));
        }
        let Line::Is(bytes) = line else {
            return Ok(Some(vec![format!(
                "expected a line, actual {}",
                shown(&line)
            )]));
        };
        let answer = Answer {
            body: bytes,
            ..watch.head.clone()
        };
        let end = step.get("last").map(|_| watch.connection.line(PATIENCE));
        let mut problems = self.compare(step, &answer, true).unwrap_or_default();
        if let Some(end) = end.filter(|end| *end != Line::End) {
            problems.push(format!(
                "expected the end of the answer, actual {}",
                shown(&end)
            ));
        }
        Ok(Some(problems))
    }

    /// The bytes of a request.
    fn build(&self, step: &Json) -> Vec<u8> {
        let fill = |text: &str| self.variables.fill(text);
        let field = |name| step.get(name).and_then(Json::text);
        let mut target = fill(field("path").expect("a path"));
        if let Some(query) = step.get("query") {
            target += &format!("?{}", self.pairs(query));
        }
        let listed = step.get("headers").map(Json::fields).unwrap_or_default();
        let mut headers: Vec<(&str, String)> = listed
            .iter()
            .map(|(name, value)| (name.as_str(), fill(&plain(value))))
            .collect();
        let typed = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let mut body = None;
        if let Some(form) = step.get("form") {
            body = Some(self.pairs(form).into_bytes());
            if !typed {
                headers.push((FORM.0, FORM.1.to_owned()));
            }
        } else if let Some(raw) = step.get("body") {
            body = Some(fill(&plain(raw)).into_bytes());
            if !typed && raw.text().is_none() {
                headers.push(("Content-Type", "application/json".to_owned()));
            }
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        request(
            field("method").expect("a method"),
            &target,
            &headers,
            body.as_deref(),
        )
    }

    /// A query or form given as text, as an object, or as a list of pairs.
    fn pairs(&self, value: &Json) -> String {
        let pair = |name: &str, value: &Json| {
            format!("{}={}", escape(name), escape(&self.form_value(value)))
        };
        let all: Vec<String> = match value {
            Json::Text(text) => return self.variables.fill(text),
            Json::Map(fields) => fields
                .iter()
                .map(|(name, value)| pair(name, value))
                .collect(),
            Json::List(items) => items
                .iter()
                .map(|item| pair(&plain(&item.items()[0]), &item.items()[1]))
                .collect(),
            other => panic!("neither query nor form: {other}"),
        };
        all.join("&")
    }

    /// `{"repeat": "v", "times": 1000}` stands for a long value.
    fn form_value(&self, value: &Json) -> String {
        match (
            value.get("repeat"),
            value.get("times").and_then(Json::number),
        ) {
            (Some(piece), Some(times)) => plain(piece).repeat(times as usize),
            _ => self.variables.fill(&plain(value)),
        }
    }

    fn compare(&self, step: &Json, answer: &Answer, with_body: bool) -> Option<Vec<String>> {
        let expect = step.get("expect")?;
        let mut comparer = Comparer::new(&self.variables);
        if let Some(status) = expect.get("status") {
            comparer.scalar("status", status, &Json::Number(answer.status.into()));
        }
        for (name, wanted) in expect.get("headers").map(Json::fields).unwrap_or_default() {
            comparer.header(name, wanted, answer.header(name));
        }
        if with_body {
            compare_body(&mut comparer, expect, &answer.text());
        }
        Some(comparer.problems)
    }

    fn save(&mut self, step: &Json, answer: &Answer) -> io::Result<()> {
        for (name, source) in step.get("save").map(Json::fields).unwrap_or_default() {
            let source = plain(source);
            let value = match source.strip_prefix("header:") {
                Some(header) => answer.header(header).map(header_value),
                None => Json::split(&answer.text())
                    .ok()
                    .and_then(|(body, _)| body.at(&source).cloned()),
            };
            let missing = || io::Error::other(format!("nothing to keep at {source}: {answer:?}"));
            self.variables.set(name, value.ok_or_else(missing)?);
        }
        Ok(())
    }
}

fn compare_body(comparer: &mut Comparer<'_>, expect: &Json, text: &str) {
    let newline = Json::Text("\n".to_owned());
    if let Some(wanted) = expect.get("body") {
        match Json::split(text) {
            Ok((value, rest)) => {
                comparer.value("body", wanted, &value, expect.get("unordered").is_some());
                let end = expect.get("end").unwrap_or(&newline);
                comparer.scalar("text after the JSON", end, &Json::Text(rest.to_owned()));
            }
            Err(error) => {
                comparer.problems.push(format!(
                    "body: expected {wanted}, actual {text:?} ({error})"
                ));
            }
        }
    }
    if let Some(wanted) = expect.get("text") {
        comparer.scalar("body text", wanted, &Json::Text(text.to_owned()));
    }
}

fn header_value(text: &str) -> Json {
    match text.parse::<u64>() {
        Ok(number) => Json::Number(number.into()),
        Err(_) => Json::Text(text.to_owned()),
    }
}

fn number(step: &Json, name: &str, default: u64) -> Duration {
    Duration::from_millis(step.get(name).and_then(Json::number).unwrap_or(default))
}

fn milliseconds(value: &Json) -> Duration {
    Duration::from_millis(value.number().expect("milliseconds"))
}

fn shown(line: &Line) -> String {
    match line {
        Line::Is(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Line::End => "its end".to_owned(),
        Line::Cut => "a closed connection".to_owned(),
        Line::Silence => "nothing".to_owned(),
    }
}

/// Encodes text as in a form: blanks as `+`, everything except letters, digits and `-_.~` as `%XX`.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => out.push(byte as char),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}
