//! A strict parser of Prometheus' text format. It panics on everything that a Prometheus may reject, and on names
//! that `promtool` warns about.

use crate::harness::Server;
use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels as on the page, and the kinds of their families.
pub struct Page {
    pub text: String,
    /// The kind of each family: gauge, counter or histogram.
    pub kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Names are words in lower case. A name says what is counted, and in which unit.
fn check_name(name: &str, kind: &str) {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(name.chars().all(good), "{name}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
    for suffix in ["_count", "_sum", "_bucket", "_ms", "_milliseconds"] {
        assert!(!name.ends_with(suffix), "{name}");
    }
}

/// The labels between the braces, in order.
fn labels(text: &str) -> Vec<(String, String)> {
    let parse = |pair: &str| {
        let (label, value) = pair.split_once("=\"").expect("a label and its value");
        let value = value.strip_suffix('"').expect("the value is quoted");
        let plain = |c: char| c.is_ascii_graphic() && !"\"\\,{}".contains(c);
        assert!(value.chars().all(plain), "{value:?}");
        (label.to_owned(), value.to_owned())
    };
    text.split(',').map(parse).collect()
}

impl Page {
    /// The current page of a server.
    pub fn of(server: &Server) -> Page {
        let answer = server.ask("GET", "/metrics", None);
        assert_eq!(answer.status, 200);
        Page::parse(answer.text())
    }

    /// Panics on everything that is not valid.
    pub fn parse(text: String) -> Page {
        let mut page = Page {
            kinds: BTreeMap::new(),
            samples: BTreeMap::new(),
            text: String::new(),
        };
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut helped: Option<String> = None;
        let mut family: Option<(String, String, usize)> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                assert!(
                    family.is_none_or(|(_, _, samples)| samples > 0),
                    "before {line}"
                );
                family = None;
                let (name, help) = rest.split_once(' ').expect("a help has a text");
                assert!(help.ends_with(['.', ')']) && help.len() > 5, "{line}");
                assert!(helped.replace(name.to_owned()).is_none(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take().as_deref(), Some(name), "HELP comes first");
                assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
                check_name(name, kind);
                let before = page.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} is there twice");
                family = Some((name.to_owned(), kind.to_owned(), 0));
            } else {
                let (name, kind, samples) = family.as_mut().expect("a sample has a family");
                page.sample(line, name, kind);
                *samples += 1;
            }
        }
        assert!(helped.is_none() && family.is_some_and(|(_, _, samples)| samples > 0));
        page.text = text;
        page.check_histograms();
        page
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) {
        let (id, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no value: {line}"));
        let name = id.split('{').next().unwrap_or_default();
        let suffix = name.strip_prefix(family);
        let suffix = suffix.unwrap_or_else(|| panic!("{line} is not of {family}"));
        match kind {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        if kind != "gauge" {
            assert!(value.is_finite() && value >= 0.0, "{line}");
        }
        if let Some(inside) = id
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('{'))
        {
            let inside = inside.strip_suffix('}').expect("a closing brace");
            let names: BTreeSet<String> =
                labels(inside).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), labels(inside).len(), "a label twice: {line}");
        }
        let before = self.samples.insert(id.to_owned(), value);
        assert!(before.is_none(), "{id} is there twice");
    }

    /// Checks that the buckets ascend and add up, that the last one is infinite and equals the count, and that there
    /// is a sum.
    fn check_histograms(&self) {
        let histograms = self.kinds.iter().filter(|(_, kind)| *kind == "histogram");
        for (name, _) in histograms {
            let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for line in self
                .text
                .lines()
                .filter(|line| line.starts_with(&format!("{name}_bucket{{")))
            {
                let (id, count) = line.rsplit_once(' ').expect("a value");
                let inside = &id[name.len() + "_bucket{".len()..id.len() - 1];
                let (rest, bound) = inside.rsplit_once("le=\"").expect("a bucket has a bound");
                let bound = match bound.trim_end_matches('"') {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().expect("a bound"),
                };
                let rest = rest.trim_end_matches(',').to_owned();
                series
                    .entry(rest)
                    .or_default()
                    .push((bound, count.parse().expect("a count")));
            }
            assert!(!series.is_empty(), "{name} has no buckets");
            for (labels, buckets) in series {
                let ascend = buckets
                    .windows(2)
                    .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
                assert!(ascend, "{name}{{{labels}}}: {buckets:?}");
                let labels = match labels.as_str() {
                    "" => String::new(),
                    labels => format!("{{{labels}}}"),
                };
                let (bound, all) = *buckets.last().expect("there is one");
                assert!(bound.is_infinite(), "{name}{labels}");
                assert_eq!(self.get(&format!("{name}_count{labels}")), all);
                let sum = self.get(&format!("{name}_sum{labels}"));
                assert_eq!(sum > 0.0, all > 0.0, "{name}{labels}: {sum} of {all}");
            }
        }
    }

    /// A sample by its name and labels.
    pub fn find(&self, id: &str) -> Option<f64> {
        self.samples.get(id).copied()
    }

    /// The same. Panics if it does not exist.
    pub fn get(&self, id: &str) -> f64 {
        self.find(id)
            .unwrap_or_else(|| panic!("there is no {id} in\n{}", self.text))
    }

    /// The sum of all samples whose name with labels begins with this text.
    pub fn sum(&self, begin: &str) -> f64 {
        let mut values = self
            .samples
            .iter()
            .filter(|(id, _)| id.starts_with(begin))
            .peekable();
        assert!(values.peek().is_some(), "there is no {begin}…");
        values.map(|(_, value)| value).sum()
    }

    fn is_monotonic(&self, id: &str) -> bool {
        let name = id.split('{').next().unwrap_or_default();
        let histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
            let family = name.strip_suffix(suffix);
            family.is_some_and(|family| self.kinds.contains_key(family))
        });
        histogram || self.kinds.get(name).is_some_and(|kind| kind == "counter")
    }

    /// Asserts that no counter has decreased or disappeared since `before`.
    pub fn check_since(&self, before: &Page) {
        for (id, value) in before
            .samples
            .iter()
            .filter(|(id, _)| before.is_monotonic(id))
        {
            assert!(
                self.get(id) >= *value,
                "{id} fell from {value} to {}",
                self.get(id)
            );
        }
    }
}

#[test]
fn the_strict_reader_is_strict() {
    let good = "# HELP a_seconds Times.\n# TYPE a_seconds histogram\n\
        a_seconds_bucket{le=\"0.1\"} 1\na_seconds_bucket{le=\"+Inf\"} 2\n\
        a_seconds_sum 3\na_seconds_count 2\n";
    Page::parse(good.to_owned());
    let bad = [
        good.replace("} 2", "} 0"),
        good.replace("count 2", "count 3"),
        good.replace("a_seconds_sum 3\n", ""),
        good.replace("+Inf", "9"),
        good.replace("# HELP a_seconds Times.\n", ""),
        good.replace("histogram", "gauge"),
        good.repeat(2),
        format!("{good}b 1\n"),
        format!("{good}# HELP b B is none.\n# TYPE b gauge\n"),
        format!("{good}# HELP b_total B is none.\n# TYPE b_total gauge\nb_total 1\n"),
        format!("{good}# HELP b B is none.\n# TYPE b gauge\nb 1\nb 1\n"),
        format!("{good}# HELP b B is none.\n# TYPE b gauge\nb x\n"),
        format!("{good}# HELP b B is none.\n# TYPE b gauge\nb{{a=\"1\",a=\"2\"}} 1\n"),
    ];
    for text in bad {
        let read = std::panic::catch_unwind(|| drop(Page::parse(text.clone())));
        assert!(read.is_err(), "this passes:\n{text}");
    }
}
