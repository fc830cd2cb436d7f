//! Compares a response with the recorded one: variables, placeholders and the order of fields (`README.md`,
//! "Values").

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_lite::Regex;

use crate::harness::Json;

static INLINE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\$\{([a-z][A-Za-z0-9_]*)([+-]\d+)?(?::0(\d+))?\}"));
static WHOLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\$([a-z][A-Za-z0-9_]*)([+-]\d+)?$"));
static TIME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"));
static DURATION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^-?(\d+h)?(\d+m)?(\d+(\.\d+)?(ns|us|µs|ms|s))?$"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Values kept from earlier responses, by name.
#[derive(Default)]
pub struct Variables(HashMap<String, Json>);

impl Variables {
    pub fn set(&mut self, name: &str, value: Json) {
        self.0.insert(name.to_owned(), value);
    }

    fn find(&self, name: &str) -> &Json {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("the transcript names no variable {name}"))
    }

    /// The value of `$i`, `$i+3` and `$clusterid`. `None` for any other text.
    pub fn reference(&self, text: &str) -> Option<Json> {
        let found = WHOLE.captures(text)?;
        let value = self.0.get(&found[1])?;
        match found.get(2) {
            None => Some(value.clone()),
            Some(offset) => Some(Json::Number(shifted(value, offset.as_str()).into())),
        }
    }

    /// The text with every `${name}`, `${name+3}` and `${name+3:020}` replaced.
    pub fn fill(&self, text: &str) -> String {
        self.fill_with(text, |value| value)
    }

    fn fill_with(&self, text: &str, escape: impl Fn(String) -> String) -> String {
        let one = |found: &regex_lite::Captures<'_>| {
            let value = self.find(&found[1]);
            let mut text = match found.get(2) {
                Some(offset) => shifted(value, offset.as_str()).to_string(),
                None => plain(value),
            };
            if let Some(width) = found.get(3) {
                let width: usize = width.as_str().parse().expect("a width");
                text = format!("{text:0>width$}");
            }
            escape(text)
        };
        INLINE.replace_all(text, one).into_owned()
    }
}

/// A value as it is written in a URL or a header.
pub fn plain(value: &Json) -> String {
    match value {
        Json::Text(text) => text.clone(),
        other => other.to_string(),
    }
}

fn shifted(value: &Json, offset: &str) -> u64 {
    let base: i64 = plain(value).parse().expect("a number to add to");
    let offset: i64 = offset.parse().expect("an offset");
    u64::try_from(base + offset).expect("an index that is not negative")
}

/// The requirement of a recorded text on the actual value.
enum Wanted {
    Met,
    NotMet,
    Equal(Json),
}

/// Compares one response, and describes the differences.
pub struct Comparer<'a> {
    variables: &'a Variables,
    pub problems: Vec<String>,
}

impl Comparer<'_> {
    pub fn new(variables: &Variables) -> Comparer<'_> {
        Comparer {
            variables,
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, place: &str, expected: &dyn std::fmt::Display, actual: Option<&Json>) {
        let actual = actual.map_or("nothing".to_owned(), Json::to_string);
        self.problems
            .push(format!("{place}: expected {expected}, actual {actual}"));
    }

    pub fn header(&mut self, name: &str, expected: &Json, actual: Option<&str>) {
        let place = format!("header {name}");
        if expected.text() == Some("$absent") {
            if let Some(actual) = actual {
                self.problem(&place, expected, Some(&Json::Text(actual.to_owned())));
            }
            return;
        }
        let Some(actual) = actual else {
            return self.problem(&place, expected, None);
        };
        let is_number = expected
            .text()
            .and_then(|text| self.variables.reference(text))
            .is_some_and(|value| matches!(value, Json::Number(_)));
        let value = match actual.parse::<u64>() {
            Ok(number) if is_number => Json::Number(number.into()),
            _ => Json::Text(actual.to_owned()),
        };
        self.scalar(&place, expected, &value);
    }

    /// Compares a value with everything in it. `unordered`: lists are compared as sets.
    pub fn value(&mut self, place: &str, expected: &Json, actual: &Json, unordered: bool) {
        match expected {
            Json::Map(fields) => self.map(place, expected, fields, actual, unordered),
            Json::List(items) => self.list(place, expected, items, actual, unordered),
            _ => self.scalar(place, expected, actual),
        }
    }

    fn map(
        &mut self,
        place: &str,
        whole: &Json,
        fields: &[(String, Json)],
        actual: &Json,
        unordered: bool,
    ) {
        let Json::Map(found) = actual else {
            return self.problem(place, whole, Some(actual));
        };
        let wanted: Vec<(String, &Json)> = fields
            .iter()
            .map(|(name, value)| (self.variables.fill(name), value))
            .collect();
        for (name, value) in &wanted {
            let inner = format!("{place}.{name}");
            match actual.get(name) {
                Some(found) => self.value(&inner, value, found, unordered),
                None => self.problem(&inner, value, None),
            }
        }
        for (name, value) in found {
            if !wanted.iter().any(|(known, _)| known == name) {
                self.problem(&format!("{place}.{name}"), &"nothing", Some(value));
            }
        }
        let wanted: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let order: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let known = order.iter().all(|name| wanted.contains(name));
        if known && wanted.len() == order.len() && wanted != order {
            self.problems.push(format!(
                "{place}: fields in order {order:?}, expected {wanted:?}"
            ));
        }
    }

    fn list(&mut self, place: &str, whole: &Json, items: &[Json], actual: &Json, unordered: bool) {
        let found = match actual {
            Json::List(found) if found.len() == items.len() => found,
            _ => return self.problem(place, whole, Some(actual)),
        };
        let mut expected: Vec<&Json> = items.iter().collect();
        let mut found: Vec<&Json> = found.iter().collect();
        if unordered {
            expected.sort_by_key(|item| self.variables.fill(&sort_key(item)));
            found.sort_by_key(|item| sort_key(item));
        }
        for (number, (one, other)) in expected.into_iter().zip(found).enumerate() {
            self.value(&format!("{place}[{number}]"), one, other, unordered);
        }
    }

    pub fn scalar(&mut self, place: &str, expected: &Json, actual: &Json) {
        let wanted = match expected {
            Json::Text(text) => self.resolve(text, actual),
            other => Wanted::Equal(other.clone()),
        };
        let met = match &wanted {
            Wanted::Met => true,
            Wanted::NotMet => false,
            Wanted::Equal(value) => equal(value, actual),
        };
        if !met {
            match wanted {
                Wanted::Equal(value) => self.problem(place, &value, Some(actual)),
                _ => self.problem(place, expected, Some(actual)),
            }
        }
    }

    fn resolve(&self, text: &str, actual: &Json) -> Wanted {
        let string = actual.text();
        let is_number = matches!(actual, Json::Number(_));
        let matches = |regex: &Regex| string.is_some_and(|text| regex.is_match(text));
        let is_met = match text {
            "$any" => !matches!(actual, Json::Null),
            "$int" => {
                let digits =
                    |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                matches!(actual, Json::Number(number) if !number.is_f64())
                    || string.is_some_and(digits)
            }
            "$num" => is_number,
            "$str" => string.is_some(),
            "$time" => matches(&TIME),
            "$duration" => matches(&DURATION),
            "$hex" => string.is_some_and(is_hex),
            _ => return self.resolve_with_argument(text, actual),
        };
        if is_met { Wanted::Met } else { Wanted::NotMet }
    }

    fn resolve_with_argument(&self, text: &str, actual: &Json) -> Wanted {
        let is_met = if let Some(top) = text.strip_prefix("$ttl<=") {
            let top: u64 = top.parse().expect("seconds");
            let least = top.saturating_sub(3).max(1);
            actual
                .number()
                .is_some_and(|left| (least..=top).contains(&left))
        } else if let Some(name) = text.strip_prefix("$ge:") {
            let bound = self
                .variables
                .reference(&format!("${name}"))
                .expect("a variable");
            actual.number() >= bound.number()
        } else if let Some(source) = text.strip_prefix('~') {
            let source = self
                .variables
                .fill_with(source, |value| regex_lite::escape(&value));
            let whole = pattern(&format!(r"\A(?s:{source})\z"));
            actual.text().is_some_and(|text| whole.is_match(text))
        } else {
            if let Some(value) = self.variables.reference(text) {
                return Wanted::Equal(value);
            }
            assert!(
                !text.starts_with('$') || text.starts_with("${"),
                "no placeholder {text:?}"
            );
            return Wanted::Equal(Json::Text(self.variables.fill(text)));
        };
        if is_met { Wanted::Met } else { Wanted::NotMet }
    }
}

fn equal(expected: &Json, actual: &Json) -> bool {
    match (expected, actual) {
        (Json::Null, Json::Null) => true,
        (Json::Bool(one), Json::Bool(other)) => one == other,
        (Json::Text(one), Json::Text(other)) => one == other,
        (Json::Number(one), Json::Number(other)) => one == other,
        _ => false,
    }
}

fn is_hex(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (1..=16).contains(&text.len()) && text.bytes().all(digit)
}

fn sort_key(item: &Json) -> String {
    match item {
        Json::Map(_) => item
            .get("key")
            .or_else(|| item.get("id"))
            .map_or(String::new(), plain),
        other => plain(other),
    }
}
