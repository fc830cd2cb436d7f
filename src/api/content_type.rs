//! The content type of a request: whether its body is a form (spec §4.1).

use std::collections::HashSet;

/// Longer content types are refused.
const CONTENT_TYPE_BYTES_MAX: usize = 8 << 10;

/// Whether the content type says that the body is a form.
///
/// # Errors
/// A description of the problem if the content type cannot be parsed.
pub fn is_form(content_type: Option<&[u8]>) -> Result<bool, String> {
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
    if text.len() > CONTENT_TYPE_BYTES_MAX {
        return Err("mime: invalid media parameter".into());
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

/// Checks `; name=value`, any number of times. A final `;` is allowed.
fn check_parameters(text: &[u8]) -> Result<(), String> {
    let mut names = HashSet::new();
    let mut rest = text.trim_ascii_start();
    while !rest.is_empty() {
        let Some((name, after)) = parameter(rest) else {
            if rest.trim_ascii() == b";" {
                return Ok(());
            }
            return Err("mime: invalid media parameter".into());
        };
        if !names.insert(name) {
            return Err("mime: duplicate parameter name".into());
        }
        rest = after.trim_ascii_start();
    }
    Ok(())
}

/// Parses one `; name=value`. Returns the name in lower case, and the rest of the text.
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

/// The text after the closing quote of a quoted string.
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

    #[test]
    fn a_long_content_type_is_not_read() {
        let long = format!(
            "application/x-www-form-urlencoded{}",
            ";a=b".repeat(250_000)
        );
        assert_eq!(
            is_form(Some(long.as_bytes())),
            Err("mime: invalid media parameter".into())
        );
    }
}
