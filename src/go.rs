//! Values as Go's `strconv` and `flag` packages read and quote them, since etcd's flags and query parameters are read
//! by these.

pub mod json;

use std::time::Duration;

const BROKEN: &str = "parse error";
const TOO_BIG: &str = "value out of range";

/// Reads a truth value.
pub fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Some(false),
        _ => None,
    }
}

/// Quotes a text as Go's `%q` does.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            _ => escape(c, &mut out),
        }
    }
    out.push('"');
    out
}

/// Appends a character as Go writes it inside quotes. Quotes themselves are not escaped.
fn escape(c: char, out: &mut String) {
    let number = u32::from(c);
    let is_shown = || c.escape_debug().len() == 1 || c == '\'' || c == '"';
    out.push_str(&match c {
        '\\' => "\\\\".to_owned(),
        '\x07' => "\\a".to_owned(),
        '\x08' => "\\b".to_owned(),
        '\x0b' => "\\v".to_owned(),
        '\x0c' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0'..=' ' | '\x7f' if c != ' ' => format!("\\x{number:02x}"),
        _ if is_shown() => c.to_string(),
        _ if number > 0xffff => format!("\\U{number:08x}"),
        _ => format!("\\u{number:04x}"),
    });
}

/// Reads a whole number: decimal, or with `0x`, `0o` or `0`, `0b` in front.
///
/// # Errors
/// The words that Go's `flag` package prints: "parse error", "value out of range".
pub fn signed(text: &str) -> Result<i64, &'static str> {
    let (is_negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let value = i128::from(unsigned(digits)?);
    i64::try_from(if is_negative { -value } else { value }).map_err(|_| TOO_BIG)
}

/// Reads a whole number without a sign.
///
/// # Errors
/// As [`signed`].
pub fn unsigned(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(BROKEN);
    }
    u64::from_str_radix(digits, base).map_err(|_| TOO_BIG)
}

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a time with its units: `2s`, `1m30s`, `0.5s`. A negative time becomes zero.
///
/// # Errors
/// As [`signed`].
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = unsigned;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let number: f64 = number.parse().map_err(|_| BROKEN)?;
        let size = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(BROKEN)?
            .1;
        seconds += number * size;
        rest = after;
    }
    if unsigned.is_empty() {
        return Err(BROKEN);
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| TOO_BIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bases_of_go() {
        let table = [
            ("5", Ok(5)),
            ("-5", Ok(-5)),
            ("+5", Ok(5)),
            ("0", Ok(0)),
            ("0x1F", Ok(31)),
            ("010", Ok(8)),
            ("0b11", Ok(3)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", Err(TOO_BIG)),
            ("99999999999999999999999999999999999999999", Err(TOO_BIG)),
            ("", Err(BROKEN)),
            ("0x", Err(BROKEN)),
            ("--5", Err(BROKEN)),
            ("5s", Err(BROKEN)),
        ];
        for (text, expected) in table {
            assert_eq!(signed(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_without_a_sign() {
        let table = [
            ("0", Ok(0)),
            ("100000", Ok(100_000)),
            ("0x10", Ok(16)),
            ("010", Ok(8)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(TOO_BIG)),
            ("09", Err(BROKEN)),
            ("", Err(BROKEN)),
            ("-5", Err(BROKEN)),
            ("+5", Err(BROKEN)),
            ("1e3", Err(BROKEN)),
            ("10ms", Err(BROKEN)),
            ("0x", Err(BROKEN)),
            ("0x+1", Err(BROKEN)),
        ];
        for (text, expected) in table {
            assert_eq!(unsigned(text), expected, "{text:?}");
        }
    }

    /// As etcd quotes them in its messages.
    #[test]
    fn texts_are_quoted_as_in_go() {
        let table = [
            ("a\"b'c\\", r#""a\"b'c\\""#),
            (
                "\x00\x07\x08\t\n\x0b\x0c\r\x1b \x7f",
                r#""\x00\a\b\t\n\v\f\r\x1b \x7f""#,
            ),
            (
                "\u{80}\u{a0}\u{ad}é\u{2028}",
                r#""\u0080\u00a0\u00adé\u2028""#,
            ),
            ("\u{e0001}😀", "\"\\U000e0001😀\""),
        ];
        for (text, expected) in table {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn times_need_a_unit() {
        let millis = |text| duration(text).map(|time| time.as_millis());
        let table = [
            ("2s", Ok(2000)),
            ("1m30s", Ok(90_000)),
            ("0.5s", Ok(500)),
            ("0", Ok(0)),
            ("-1s", Ok(0)),
            ("5", Err(BROKEN)),
            ("", Err(BROKEN)),
            ("s", Err(BROKEN)),
            ("1s2", Err(BROKEN)),
            ("99999999999999999999h", Err(TOO_BIG)),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
