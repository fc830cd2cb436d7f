//! JSON bodies as Go's decoder reads them: names of fields in any case, `null` for "not given", unknown fields ignored,
//! bytes after the first value ignored, invalid UTF-8 replaced.

use crate::tree::json;
use serde_json::{Deserializer, Value};

/// A body that is not JSON, or not of the wanted types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// The fields of an object.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads the first value of a body. `null` has no fields.
    pub fn read(body: &[u8]) -> Result<Fields, Invalid> {
        let text = json::readable(body);
        let mut values = Deserializer::from_str(&text).into_iter::<Value>();
        let value = values.next().ok_or(Invalid)?;
        Fields::of(value.map_err(|_| Invalid)?)
    }

    fn of(value: Value) -> Result<Fields, Invalid> {
        match value {
            Value::Object(fields) => Ok(Fields(fields.into_iter().collect())),
            Value::Null => Ok(Fields::default()),
            _ => Err(Invalid),
        }
    }

    /// Removes the field, which counts as missing if it is `null`.
    fn take(&mut self, name: &str) -> Option<Value> {
        let named = |(given, _): &(String, Value)| given.eq_ignore_ascii_case(name);
        let at = self.0.iter().rposition(named)?;
        let (_, value) = self.0.swap_remove(at);
        Some(value).filter(|value| !value.is_null())
    }

    /// A string; empty if it is missing.
    pub fn text(&mut self, name: &str) -> Result<String, Invalid> {
        self.take(name).map_or_else(|| Ok(String::new()), text)
    }

    /// A list of strings, in which `null` is an empty string.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Invalid> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let Value::Array(items) = value else {
            return Err(Invalid);
        };
        let texts: Result<Vec<String>, Invalid> = items.into_iter().map(text).collect();
        texts.map(Some)
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Invalid> {
        self.take(name).map(Fields::of).transpose()
    }
}

fn text(value: Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        _ => Err(Invalid),
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
        let list = |body: &str| Fields::read(body.as_bytes()).and_then(|mut body| body.texts("l"));
        assert_eq!(
            list(r#"{"l":["a",null]}"#),
            Ok(Some(vec!["a".into(), String::new()]))
        );
        assert_eq!(list(r#"{"l":[]}"#), Ok(Some(vec![])));
        assert_eq!(list(r#"{"l":null}"#), Ok(None));
        assert_eq!(list(r#"{"l":"a"}"#), Err(Invalid));
        assert_eq!(list(r#"{"l":[1]}"#), Err(Invalid));
    }
}
