//! JSON bodies as Go's decoder reads them into structs: names of fields in any case, fields that nobody asks for ignored,
//! bytes after the first value ignored, invalid UTF-8 and halves of surrogate pairs replaced.
//!
//! A field that is given several times is decoded several times: the last text or list counts, and objects are merged.

use crate::tree::json;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A body that is not JSON, or not of the wanted types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// The requested names. Other fields are skipped, at any depth and with any numbers.
const NAMES: [&str; 10] = [
    "user",
    "password",
    "roles",
    "grant",
    "revoke",
    "role",
    "permissions",
    "kv",
    "read",
    "write",
];

/// The fields of an object, in the order of the body.
#[derive(Debug, Default)]
pub struct Fields(Vec<(&'static str, Json)>);

#[derive(Debug)]
enum Json {
    Null,
    Text(String),
    List(Vec<Json>),
    Object(Fields),
    /// A number or a boolean.
    Other,
}

/// What `null` does to an object that was given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// Nothing: the object is a part of another one.
    Keeps,
    /// Removes it.
    Removes,
}

impl Fields {
    /// Reads the first value of a body. `null` has no fields.
    pub fn read(body: &[u8]) -> Result<Fields, Invalid> {
        let text = json::readable(body);
        let text = paired(&text);
        let mut reader = serde_json::Deserializer::from_str(&text);
        match Json::deserialize(&mut reader) {
            Ok(Json::Object(fields)) => Ok(fields),
            Ok(Json::Null) => Ok(Fields::default()),
            _ => Err(Invalid),
        }
    }

    fn take(&mut self, name: &str) -> impl Iterator<Item = Json> {
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(given, _)| *given == name);
        self.0 = left;
        let taken: Vec<_> = taken;
        taken.into_iter().map(|(_, value)| value)
    }

    /// A string; empty if it is missing.
    pub fn text(&mut self, name: &str) -> Result<String, Invalid> {
        self.take(name)
            .try_fold(String::new(), |before, value| match value {
                Json::Null => Ok(before),
                value => text(value),
            })
    }

    /// A list of strings, in which `null` is an empty string.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Invalid> {
        self.take(name).try_fold(None, |_, value| match value {
            Json::Null => Ok(None),
            Json::List(items) => items
                .into_iter()
                .map(text)
                .collect::<Result<_, _>>()
                .map(Some),
            _ => Err(Invalid),
        })
    }

    /// An object.
    pub fn object(&mut self, name: &str, null: Null) -> Result<Option<Fields>, Invalid> {
        self.take(name).try_fold(None, |before, value| match value {
            Json::Null if null == Null::Removes => Ok(None),
            Json::Null => Ok(before),
            Json::Object(more) => {
                let mut merged: Fields = before.unwrap_or_default();
                merged.0.extend(more.0);
                Ok(Some(merged))
            }
            _ => Err(Invalid),
        })
    }
}

fn text(value: Json) -> Result<String, Invalid> {
    match value {
        Json::Text(text) => Ok(text),
        Json::Null => Ok(String::new()),
        _ => Err(Invalid),
    }
}

/// The requested name, if this is one. Go folds the letters that Unicode folds to ASCII.
fn known(given: &str) -> Option<&'static str> {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    let is_it = |name: &&&str| name.chars().eq(given.chars().map(fold));
    NAMES.iter().find(is_it).copied()
}

/// The text with `\ufffd` for each escape that is half of a surrogate pair. serde_json refuses those.
fn paired(text: &str) -> Cow<'_, str> {
    let mut fixed = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(next) = text[at..].find('\\') {
        at += next;
        let step = match (escape(&text[at..]), text.get(at + 6..).and_then(escape)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                fixed.push_str(&text[kept..at]);
                fixed.push_str("\\ufffd");
                kept = at + 6;
                6
            }
            // The escaped character may be a backslash.
            _ => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        at += step;
    }
    match kept {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(fixed + &text[kept..]),
    }
}

/// The number of an escape `\u0000` at the start of the text.
fn escape(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| are_digits)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = given.next_key::<Cow<'_, str>>()? {
            match known(&name) {
                Some(name) => fields.push((name, given.next_value()?)),
                None => {
                    given.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Json::Object(Fields(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_the_reference_reads_them() {
        let name =
            |body: &str| Fields::read(body.as_bytes()).and_then(|mut body| body.text("user"));
        let table = [
            (r#"{"user":"u"}"#, Ok("u")),
            (r#"{"USER":"u","x":{}} trailing"#, Ok("u")),
            (r#"{"user":"v","user":"u"}"#, Ok("u")),
            (r#"{"user":null}"#, Ok("")),
            ("null", Ok("")),
            ("{}", Ok("")),
            ("", Err(Invalid)),
            ("x", Err(Invalid)),
            ("[]", Err(Invalid)),
            ("1", Err(Invalid)),
            (r#"{"user":1}"#, Err(Invalid)),
            (r#"{"user":"u""#, Err(Invalid)),
        ];
        for (body, wanted) in table {
            assert_eq!(name(body), wanted.map(str::to_owned), "{body}");
        }
        let list =
            |body: &str| Fields::read(body.as_bytes()).and_then(|mut body| body.texts("roles"));
        assert_eq!(
            list(r#"{"roles":["a",null]}"#),
            Ok(Some(vec!["a".into(), String::new()]))
        );
        assert_eq!(list(r#"{"roles":[]}"#), Ok(Some(vec![])));
        assert_eq!(list(r#"{"roles":null}"#), Ok(None));
        assert_eq!(list(r#"{"roles":"a"}"#), Err(Invalid));
        assert_eq!(list(r#"{"roles":[1]}"#), Err(Invalid));
    }
    /// The same bodies, sent to the reference as users and roles.
    #[test]
    fn a_field_may_be_given_again() {
        let name =
            |body: &str| Fields::read(body.as_bytes()).and_then(|mut body| body.text("user"));
        let table = [
            (r#"{"user":"u","USER":"v"}"#, Ok("v")),
            (r#"{"USER":"v","user":"u"}"#, Ok("u")),
            (r#"{"user":"u","user":null}"#, Ok("u")),
            (r#"{"user":"u","uſer":"v"}"#, Ok("v")),
            (r#"{"user":1,"user":"u"}"#, Err(Invalid)),
            (r#"{"x":1e400,"user":"u"}"#, Ok("u")),
            (r#"{"x":1.,"user":"u"}"#, Err(Invalid)),
            (r#"{"user":"\ud800"}"#, Ok("\u{fffd}")),
            (r#"{"user":"\udc00\ud800x"}"#, Ok("\u{fffd}\u{fffd}x")),
            (r#"{"user":"\uD83D\uDE00"}"#, Ok("😀")),
            (r#"{"user":"\ud800\ud83d\ude00"}"#, Ok("\u{fffd}😀")),
            (r#"{"user":"\\ud800"}"#, Ok("\\ud800")),
            (r#"{"user":"\ud80é"}"#, Err(Invalid)),
            (r#"{"user":"\u+800"}"#, Err(Invalid)),
        ];
        for (body, wanted) in table {
            assert_eq!(name(body), wanted.map(str::to_owned), "{body}");
        }
        let deep = format!(
            r#"{{"x":{}{},"user":"u"}}"#,
            "[".repeat(5_000),
            "]".repeat(5_000)
        );
        assert_eq!(name(&deep), Ok("u".to_owned()));
        let list =
            |body: &str| Fields::read(body.as_bytes()).and_then(|mut body| body.texts("grant"));
        let one = |text: &str| Ok(Some(vec![text.to_owned()]));
        assert_eq!(list(r#"{"grant":["a"],"Grant":["b"]}"#), one("b"));
        assert_eq!(list(r#"{"grant":["a"],"Grant":null}"#), Ok(None));
        let read_of = |body: &str, null| {
            let object = Fields::read(body.as_bytes())?.object("grant", null)?;
            object.map_or(Ok(None), |mut object| object.texts("read"))
        };
        let twice = r#"{"grant":{"read":["a"]},"Grant":{"write":[]}}"#;
        assert_eq!(read_of(twice, Null::Keeps), one("a"));
        let removed = r#"{"grant":{"read":["a"]},"Grant":null}"#;
        assert_eq!(read_of(removed, Null::Keeps), one("a"));
        assert_eq!(read_of(removed, Null::Removes), Ok(None));
        assert_eq!(read_of(r#"{"grant":1}"#, Null::Keeps), Err(Invalid));
    }
}
