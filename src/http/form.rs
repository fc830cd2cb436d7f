//! Names and values of a request: query and form body as one list (spec §4.1).

use super::content_type::is_form;
use super::target::hex;
use std::borrow::Cow;

/// The largest form body that is read.
pub const FORM_BYTES_MAX: usize = 10 << 20;

/// The names that any request looks at. Only their first values are kept, so that memory and time do not depend on
/// how many pairs a client sends.
const NAMES: [&str; 15] = [
    "value",
    "prevValue",
    "prevIndex",
    "prevExist",
    "ttl",
    "dir",
    "recursive",
    "sorted",
    "wait",
    "waitIndex",
    "stream",
    "quorum",
    "refresh",
    "noValueOnSuccess",
    "local",
];

/// The first value of each known name; the body's values come before the query's.
#[derive(Debug, Default)]
pub struct Form<'a> {
    values: [Option<Text<'a>>; NAMES.len()],
}

/// Unescaped bytes; as they came, where nothing was escaped.
type Text<'a> = Cow<'a, [u8]>;

/// Where the body of a request stands.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// This method's body is not read.
    Ignored,
    /// All of it is there: at most [`FORM_BYTES_MAX`].
    Complete {
        /// The header as it came; absent or empty: the body is no form and is not parsed.
        content_type: Option<&'a [u8]>,
        /// Without any transfer coding.
        bytes: &'a [u8],
    },
    /// Longer than [`FORM_BYTES_MAX`]: an error if it is a form, else of no concern.
    TooLarge {
        /// As in [`Body::Complete`]; one that cannot be parsed is an error before the length is.
        content_type: Option<&'a [u8]>,
    },
}

impl<'a> Form<'a> {
    /// Parses body and query; an error of the body comes before one of the query.
    ///
    /// # Errors
    /// The cause text of error 210.
    pub fn parse(query: Option<&'a [u8]>, body: Body<'a>) -> Result<Form<'a>, String> {
        let mut form = Form::default();
        match body {
            Body::Ignored => {}
            Body::Complete {
                content_type,
                bytes,
            } => {
                if is_form(content_type)? {
                    form.add(bytes)?;
                }
            }
            Body::TooLarge { content_type } => {
                if is_form(content_type)? {
                    return Err("http: POST too large".into());
                }
            }
        }
        form.add(query.unwrap_or_default())?;
        Ok(form)
    }

    /// The first value of that name, which may be empty.
    ///
    /// # Panics
    /// When it is none of the names that are kept.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let Some(at) = place(name.as_bytes()) else {
            unreachable!("{name} is not kept by forms")
        };
        self.values[at].as_deref()
    }

    fn add(&mut self, text: &'a [u8]) -> Result<(), String> {
        // A semicolon anywhere is told rather than a bad escape before it.
        if text.contains(&b';') {
            return Err("invalid semicolon separator in query".into());
        }
        for pair in text.split(|&byte| byte == b'&') {
            self.add_pair(pair)?;
        }
        Ok(())
    }

    fn add_pair(&mut self, pair: &'a [u8]) -> Result<(), String> {
        let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[..0]),
        };
        let place = match name.iter().any(is_escape) {
            true => place(&unescape(name)?),
            false => place(name),
        };
        match place {
            Some(at) if self.values[at].is_none() => self.values[at] = Some(unescape(value)?),
            // Nobody reads it, and an error in it is one all the same.
            _ => check_escapes(value)?,
        }
        Ok(())
    }
}

/// Where the values of a name are kept.
fn place(name: &[u8]) -> Option<usize> {
    let longest = NAMES.iter().map(|name| name.len()).max();
    if name.is_empty() || Some(name.len()) > longest {
        return None;
    }
    NAMES.iter().position(|known| known.as_bytes() == name)
}

fn is_escape(byte: &u8) -> bool {
    matches!(byte, b'%' | b'+')
}

/// `+` is a blank, `%XX` a byte.
fn unescape(text: &[u8]) -> Result<Text<'_>, String> {
    if !text.iter().any(is_escape) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(is_escape) {
        bytes.extend_from_slice(&rest[..at]);
        let escaped = if rest[at] == b'+' { 1 } else { 3 };
        bytes.push(if escaped == 1 {
            b' '
        } else {
            escape(&rest[at..])?
        });
        rest = &rest[at + escaped..];
    }
    bytes.extend_from_slice(rest);
    Ok(Cow::Owned(bytes))
}

/// Fails as [`unescape`] does.
fn check_escapes(text: &[u8]) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        escape(&rest[at..])?;
        rest = &rest[at + 3..];
    }
    Ok(())
}

/// The byte of the `%XX` that `text` begins with.
fn escape(text: &[u8]) -> Result<u8, String> {
    let digits = text
        .get(1..3)
        .and_then(|digits| Some((hex(digits[0])?, hex(digits[1])?)));
    match digits {
        Some((high, low)) => Ok(high << 4 | low),
        None => {
            let shown = quote(&text[..text.len().min(3)]);
            Err(format!("invalid URL escape {shown}"))
        }
    }
}

/// Text in double quotes, what cannot be printed escaped.
fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\x0b' => quoted.push_str("\\v"),
                other if other.is_control() && other.is_ascii() => {
                    quoted.push_str(&format!("\\x{:02x}", other as u32));
                }
                other if other.is_control() => quoted.push_str(&format!("\\u{:04x}", other as u32)),
                other => quoted.push(other),
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_body<'a>(content_type: &'a str, bytes: &'a str) -> Body<'a> {
        Body::Complete {
            content_type: Some(content_type.as_bytes()),
            bytes: bytes.as_bytes(),
        }
    }

    fn value(query: &str, body: Body<'_>, name: &str) -> String {
        match Form::parse(Some(query.as_bytes()), body) {
            Ok(form) => match form.first(name) {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => "absent".into(),
            },
            Err(cause) => format!("error: {cause}"),
        }
    }

    #[test]
    fn reads_pairs_as_the_reference_does() {
        let table = [
            ("value=a+b%21", "a b!"),
            ("value", ""),
            ("&&value=1&value=2", "1"),
            ("VALUE=1", "absent"),
            ("value=a=b", "a=b"),
            ("value=%zz", "error: invalid URL escape \"%zz\""),
            ("value=%4", "error: invalid URL escape \"%4\""),
            ("a;value=1", "error: invalid semicolon separator in query"),
            ("value=%zz&;", "error: invalid semicolon separator in query"),
        ];
        for (query, wanted) in table {
            assert_eq!(value(query, Body::Ignored, "value"), wanted, "of {query:?}");
        }
    }

    #[test]
    fn the_body_comes_first_if_it_is_a_form() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let with = |content_type: &str| {
            value(
                "value=query",
                form_body(content_type, "value=body"),
                "value",
            )
        };
        assert_eq!(with(FORM), "body");
        assert_eq!(
            with("Application/X-WWW-Form-Urlencoded; charset=\"utf-8\";"),
            "body"
        );
        assert_eq!(with("text/plain"), "query");
        assert_eq!(with(""), "query");
        assert_eq!(
            with("application/x-www-form-urlencoded; x"),
            "error: mime: invalid media parameter"
        );
        assert_eq!(with("a b"), "error: mime: expected slash after first token");
        assert_eq!(with("a/"), "error: mime: expected token after slash");
        assert_eq!(
            with("a/b c"),
            "error: mime: unexpected content after media subtype"
        );
        assert_eq!(with("/b"), "error: mime: no media type");
        assert_eq!(
            with("a/b; c=1; C=2"),
            "error: mime: duplicate parameter name"
        );
    }

    #[test]
    fn a_body_over_the_limit_is_an_error_only_as_a_form() {
        let body = |content_type: &'static str| Body::TooLarge {
            content_type: Some(content_type.as_bytes()),
        };
        let form = value(
            "value=query",
            body("application/x-www-form-urlencoded"),
            "value",
        );
        assert_eq!(form, "error: http: POST too large");
        assert_eq!(value("value=query", body("text/plain"), "value"), "query");
    }

    /// A form of ten megabytes takes no memory of its own, and no longer than reading it does.
    #[test]
    fn many_pairs_cost_little() {
        let text = "a&".repeat(5 << 20) + "%61=%62&value=1&value=2&dir=%74rue";
        let form = Form::parse(Some(text.as_bytes()), Body::Ignored).expect("a form");
        assert_eq!(form.first("value"), Some(&b"1"[..]));
        assert_eq!(form.first("dir"), Some(&b"true"[..]));
        let kept = form.values.iter().flatten();
        let owned = kept.filter(|value| matches!(value, Cow::Owned(_)));
        assert_eq!(owned.count(), 1, "what is not escaped is not copied");
        assert_eq!(
            value("x%zz=1&value=1", Body::Ignored, "value"),
            "error: invalid URL escape \"%zz\""
        );
        assert_eq!(
            value("x=%zz&value=1", Body::Ignored, "value"),
            "error: invalid URL escape \"%zz\""
        );
        assert_eq!(
            value("x=%4", Body::Ignored, "value"),
            "error: invalid URL escape \"%4\""
        );
    }
}
