//! Names and values of a request: query and form body as one list (spec §4.1).

use super::target::hex;
use std::borrow::Cow;

/// The largest form body that is read.
pub const FORM_BYTES_MAX: usize = 10 << 20;

/// Names and values, those of the body before those of the query.
#[derive(Debug, Default)]
pub struct Form<'a> {
    pairs: Vec<(Text<'a>, Text<'a>)>,
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
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(key, _)| key.as_ref() == name.as_bytes())
            .map(|(_, value)| value.as_ref())
    }

    fn add(&mut self, text: &'a [u8]) -> Result<(), String> {
        // A semicolon anywhere is told rather than a bad escape before it.
        if text.contains(&b';') {
            return Err("invalid semicolon separator in query".into());
        }
        for pair in text.split(|&byte| byte == b'&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[..0]),
            };
            self.pairs.push((unescape(name)?, unescape(value)?));
        }
        Ok(())
    }
}

/// `+` is a blank, `%XX` a byte.
fn unescape(text: &[u8]) -> Result<Text<'_>, String> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = after
                    .first_chunk::<2>()
                    .and_then(|&[a, b]| Some((hex(a)?, hex(b)?)));
                let Some((high, low)) = digits else {
                    return Err(format!(
                        "invalid URL escape {}",
                        quote(&rest[..rest.len().min(3)])
                    ));
                };
                bytes.push(high << 4 | low);
                rest = &after[2..];
                continue;
            }
            byte => bytes.push(byte),
        }
        rest = after;
    }
    Ok(Cow::Owned(bytes))
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

/// Whether the content type says that the body is a form.
///
/// # Errors
/// What is wrong with a content type that cannot be parsed.
fn is_form(content_type: Option<&[u8]>) -> Result<bool, String> {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let Some(text) = content_type else {
        return Ok(false);
    };
    if text.is_empty() {
        return Ok(false);
    }
    if text == FORM {
        return Ok(true);
    }
    let end = text
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(text.len());
    let media_type = text[..end].trim_ascii().to_ascii_lowercase();
    check_media_type(&media_type)?;
    check_parameters(&text[end..])?;
    Ok(media_type == FORM)
}

fn check_media_type(media_type: &[u8]) -> Result<(), String> {
    let (kind, rest) = token(media_type);
    if kind.is_empty() {
        return Err("mime: no media type".into());
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(rest) = rest.strip_prefix(b"/") else {
        return Err("mime: expected slash after first token".into());
    };
    let (subtype, rest) = token(rest);
    if subtype.is_empty() {
        return Err("mime: expected token after slash".into());
    }
    if !rest.is_empty() {
        return Err("mime: unexpected content after media subtype".into());
    }
    Ok(())
}

/// `; name=value` any number of times, a last `;` allowed.
fn check_parameters(text: &[u8]) -> Result<(), String> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let Some((name, after)) = parameter(rest) else {
            if rest.trim_ascii() == b";" {
                return Ok(());
            }
            return Err("mime: invalid media parameter".into());
        };
        if names.contains(&name) {
            return Err("mime: duplicate parameter name".into());
        }
        names.push(name);
        rest = after.trim_ascii_start();
    }
    Ok(())
}

/// One `; name=value`: the lower-cased name, and what follows.
fn parameter(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (name, rest) = token(text.strip_prefix(b";")?.trim_ascii_start());
    let rest = rest
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start();
    let rest = match rest.strip_prefix(b"\"") {
        Some(quoted) => after_quoted(quoted)?,
        None => {
            let (value, after) = token(rest);
            (!value.is_empty()).then_some(after)?
        }
    };
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), rest))
}

/// What follows the closing quote of a quoted string.
fn after_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

/// The longest token (RFC 2045) at the start, and the rest.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    let end = text
        .iter()
        .position(|byte| !is_token(byte))
        .unwrap_or(text.len());
    text.split_at(end)
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
}
